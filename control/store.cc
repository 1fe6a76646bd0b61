#include "control/store.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <sqlite3.h>
#include <sys/stat.h>

namespace millrace::control {

namespace {

// A prepared statement; steps are checked by the callers.
class Statement {
 public:
  Statement(sqlite3* db, const char* sql) { sqlite3_prepare_v2(db, sql, -1, &s_, nullptr); }
  ~Statement() { sqlite3_finalize(s_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  Statement& bind(int i, const std::string& v) {
    sqlite3_bind_text(s_, i, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind(int i, int64_t v) {
    sqlite3_bind_int64(s_, i, v);
    return *this;
  }
  int step() { return s_ == nullptr ? SQLITE_ERROR : sqlite3_step(s_); }
  void reset() { sqlite3_reset(s_); }
  int64_t number(int column) const { return sqlite3_column_int64(s_, column); }
  bool null(int column) const { return sqlite3_column_type(s_, column) == SQLITE_NULL; }
  std::string text(int column) const {
    const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
    return p == nullptr ? std::string() : std::string(p, static_cast<size_t>(sqlite3_column_bytes(s_, column)));
  }

 private:
  sqlite3_stmt* s_ = nullptr;
};

constexpr const char* kLayout = "2";  // of the tables

int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

base::Result<std::unique_ptr<Store>> Store::open(const std::string& path, uint64_t max_revisions) {
  std::unique_ptr<Store> s(new Store);
  s->path_ = path;
  s->max_revisions_ = max_revisions;
  const mode_t old = umask(0077);
  const int rc =
      sqlite3_open_v2(path.c_str(), &s->db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  umask(old);
  if (rc != SQLITE_OK) return base::Error{path + ": " + sqlite3_errmsg(s->db_) + "; the directory must exist and be writable"};
  sqlite3_busy_timeout(s->db_, 2'000);
  for (const char* sql : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
                          "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"})
    if (const base::Status st = s->exec(sql); !st.ok()) return base::Error{st.error()};
  // A store of another layout begins anew: its edits are put aside like those of another configuration file.
  if (s->meta("layout") != kLayout) {
    const std::string mark = "INSERT INTO meta VALUES ('layout', '" + std::string(kLayout) + "')";
    for (const char* sql : {"DROP TABLE IF EXISTS objects", "DROP TABLE IF EXISTS before", "DROP TABLE IF EXISTS history",
                            "DELETE FROM meta", mark.c_str()})
      if (const base::Status st = s->exec(sql); !st.ok()) return base::Error{st.error()};
  }
  for (const char* sql :
       {"CREATE TABLE IF NOT EXISTS objects (kind TEXT NOT NULL, name TEXT NOT NULL, part TEXT NOT NULL, "
        "position INTEGER NOT NULL, json TEXT NOT NULL, PRIMARY KEY (kind, name, part))",
        "CREATE TABLE IF NOT EXISTS history (revision INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, "
        "author TEXT NOT NULL, what TEXT NOT NULL, changes TEXT NOT NULL, loaded INTEGER NOT NULL)",
        "CREATE TABLE IF NOT EXISTS before (revision INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, "
        "part TEXT NOT NULL, position INTEGER, json TEXT, PRIMARY KEY (revision, kind, name, part))"})
    if (const base::Status st = s->exec(sql); !st.ok()) return base::Error{st.error()};
  return s;
}

Store::~Store() { sqlite3_close(db_); }

base::Status Store::exec(const char* sql) const {
  char* message = nullptr;
  if (sqlite3_exec(db_, sql, nullptr, nullptr, &message) == SQLITE_OK) return {};
  const std::string text = message == nullptr ? "unknown error" : message;
  sqlite3_free(message);
  return base::Error{path_ + ": " + text +
                     "; if the file is damaged, move it away: control then starts from its configuration file"};
}

std::string Store::meta(const char* key) const {
  Statement s(db_, "SELECT value FROM meta WHERE key = ?1");
  s.bind(1, key);
  return s.step() == SQLITE_ROW ? s.text(0) : std::string();
}

std::string Store::base() const { return meta("base"); }
bool Store::edited() const { return meta("edited") == "1"; }

std::vector<StoredRow> Store::load() const {
  std::vector<StoredRow> out;
  Statement s(db_, "SELECT kind, name, part, position, json FROM objects ORDER BY kind, name, part <> '', position, part");
  while (s.step() == SQLITE_ROW)
    if (const std::optional<ConfigKind> kind = parse_config_kind(s.text(0)))
      out.push_back({{{*kind, s.text(1)}, s.text(2)}, static_cast<uint32_t>(s.number(3)), s.text(4)});
  return out;
}

bool Store::put_all(const std::vector<StoredRow>& put) const {
  Statement s(db_,
              "INSERT INTO objects VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (kind, name, part) DO UPDATE SET "
              "position = excluded.position, json = excluded.json");
  for (const StoredRow& o : put) {
    s.bind(1, std::string(to_string(o.key.key.kind))).bind(2, o.key.key.name).bind(3, o.key.part);
    if (s.bind(4, int64_t{o.position}).bind(5, o.json).step() != SQLITE_DONE) return false;
    s.reset();
  }
  return true;
}

bool Store::remove_all(const std::vector<StoredKey>& removed) const {
  Statement s(db_, "DELETE FROM objects WHERE kind = ?1 AND name = ?2 AND part = ?3");
  for (const StoredKey& k : removed) {
    if (s.bind(1, std::string(to_string(k.key.kind))).bind(2, k.key.name).bind(3, k.part).step() != SQLITE_DONE) return false;
    s.reset();
  }
  return true;
}

base::Status Store::end(bool good) const {
  if (good) return exec("COMMIT");
  const std::string why = sqlite3_errmsg(db_);
  (void)exec("ROLLBACK");
  return base::Error{path_ + ": " + why + "; the change was not made"};
}

base::Status Store::reset(const std::string& base_fingerprint, const std::string& what) {
  if (const base::Status s = exec("BEGIN IMMEDIATE"); !s.ok()) return s;
  bool good = exec("DELETE FROM objects; DELETE FROM meta WHERE key <> 'layout'; DELETE FROM before").ok();
  {
    Statement s(db_, "INSERT INTO meta VALUES ('base', ?1)");
    good = good && s.bind(1, base_fingerprint).step() == SQLITE_DONE;
    Statement h(db_, "INSERT INTO history (time_ms, author, what, changes, loaded) VALUES (?1, '', ?2, '', 1)");
    good = good && h.bind(1, now_ms()).bind(2, what).step() == SQLITE_DONE;
  }
  return end(good);
}

base::Status Store::fill(const std::vector<StoredRow>& rows) {
  if (const base::Status s = exec("BEGIN IMMEDIATE"); !s.ok()) return s;
  return end(put_all(rows));
}

base::Result<uint64_t> Store::commit(const std::vector<StoredRow>& put, const std::vector<StoredKey>& removed,
                                     const Revision& revision) {
  if (const base::Status s = exec("BEGIN IMMEDIATE"); !s.ok()) return base::Error{s.error()};
  bool good = true;
  uint64_t number = 0;
  {
    Statement h(db_, "INSERT INTO history (time_ms, author, what, changes, loaded) VALUES (?1, ?2, ?3, ?4, 0)");
    h.bind(1, revision.time_ms != 0 ? revision.time_ms : now_ms()).bind(2, revision.origin.author).bind(3, revision.origin.what);
    good = h.bind(4, revision.changes).step() == SQLITE_DONE;
    number = static_cast<uint64_t>(sqlite3_last_insert_rowid(db_));
    // Copied inside the database: what an object was is its row until now.
    Statement b(db_,
                "INSERT INTO before SELECT ?1, ?2, ?3, ?4, o.position, o.json FROM (SELECT 1) LEFT JOIN objects AS o "
                "ON o.kind = ?2 AND o.name = ?3 AND o.part = ?4");
    const auto keep = [&](const StoredKey& k) {
      b.bind(1, static_cast<int64_t>(number)).bind(2, std::string(to_string(k.key.kind))).bind(3, k.key.name).bind(4, k.part);
      good = good && b.step() == SQLITE_DONE;
      b.reset();
    };
    for (const StoredRow& o : put) keep(o.key);
    for (const StoredKey& k : removed) keep(k);
    good = good && put_all(put) && remove_all(removed);
    Statement m(db_, "INSERT INTO meta VALUES ('edited', '1') ON CONFLICT (key) DO NOTHING");
    good = good && m.step() == SQLITE_DONE;
    const int64_t oldest = static_cast<int64_t>(number) - static_cast<int64_t>(max_revisions_);
    for (const char* sql : {"DELETE FROM history WHERE revision <= ?1", "DELETE FROM before WHERE revision <= ?1"}) {
      Statement d(db_, sql);
      good = good && d.bind(1, oldest).step() == SQLITE_DONE;
    }
  }
  if (const base::Status s = end(good); !s.ok()) return base::Error{s.error()};
  return number;
}

base::Status Store::withdraw(uint64_t revision) {
  std::vector<StoredRow> put;
  std::vector<StoredKey> removed;
  {
    Statement s(db_, "SELECT kind, name, part, position, json FROM before WHERE revision = ?1");
    s.bind(1, static_cast<int64_t>(revision));
    while (s.step() == SQLITE_ROW)
      if (const std::optional<ConfigKind> kind = parse_config_kind(s.text(0))) {
        StoredKey key{{*kind, s.text(1)}, s.text(2)};
        if (s.null(4)) removed.push_back(std::move(key));
        else put.push_back({std::move(key), static_cast<uint32_t>(s.number(3)), s.text(4)});
      }
  }
  if (const base::Status s = exec("BEGIN IMMEDIATE"); !s.ok()) return s;
  bool good = put_all(put) && remove_all(removed);
  for (const char* sql : {"DELETE FROM history WHERE revision = ?1", "DELETE FROM before WHERE revision = ?1"}) {
    Statement d(db_, sql);
    good = good && d.bind(1, static_cast<int64_t>(revision)).step() == SQLITE_DONE;
  }
  return end(good);
}

std::vector<Revision> Store::history(size_t limit) const {
  std::vector<Revision> out;
  Statement s(db_, "SELECT revision, time_ms, author, what, changes, loaded FROM history ORDER BY revision DESC LIMIT ?1");
  s.bind(1, limit == 0 ? int64_t{-1} : static_cast<int64_t>(limit));
  while (s.step() == SQLITE_ROW)
    out.push_back({static_cast<uint64_t>(s.number(0)), s.number(1), {s.text(2), s.text(3)}, s.text(4), s.number(5) != 0});
  return out;
}

base::Status Store::check_revision(uint64_t revision) const {
  int64_t first = 0, last = 0, loaded = 0;
  Statement s(db_, "SELECT min(revision), max(revision), max(CASE WHEN loaded THEN revision END) FROM history");
  if (s.step() == SQLITE_ROW) first = s.number(0), last = s.number(1), loaded = s.number(2);
  const auto wanted = static_cast<int64_t>(revision);
  const std::string name = "revision " + std::to_string(revision);
  if (wanted > last) return base::Error{"there is no " + name + "; the newest is " + std::to_string(last)};
  if (wanted < loaded)
    return base::Error{name + " is before the configuration file was loaded (revision " + std::to_string(loaded) +
                       "); what was before it is not kept"};
  if (wanted < first - 1)
    return base::Error{name + " is not kept any more; the oldest that can be gone back to is " + std::to_string(first - 1)};
  return {};
}

base::Result<StoredState> Store::way_back(uint64_t revision) const {
  if (const base::Status s = check_revision(revision); !s.ok()) return base::Error{s.error()};
  // What a row was before the first edit since (with min(), SQLite takes the other columns from the row that has it); where no
  // edit has touched it, what it is. Of objects of which a row was touched.
  Statement s(db_,
              "WITH since AS (SELECT kind, name, part, position, json, min(revision) FROM before WHERE revision > ?1 "
              "GROUP BY kind, name, part), touched AS (SELECT DISTINCT kind, name FROM since) "
              "SELECT kind, name, part, position, json, part <> '' AS is_part FROM since "
              "UNION ALL SELECT o.kind, o.name, o.part, o.position, o.json, o.part <> '' FROM objects AS o JOIN touched USING "
              "(kind, name) "
              "WHERE NOT EXISTS (SELECT 1 FROM since AS x WHERE x.kind = o.kind AND x.name = o.name AND x.part = o.part) "
              "ORDER BY kind, name, is_part, position, part");
  s.bind(1, static_cast<int64_t>(revision));
  StoredState out;
  while (s.step() == SQLITE_ROW) {
    const std::optional<ConfigKind> kind = parse_config_kind(s.text(0));
    if (!kind) continue;
    StoredKey key{{*kind, s.text(1)}, s.text(2)};
    if (!s.null(4)) out.rows.push_back({std::move(key), static_cast<uint32_t>(s.number(3)), s.text(4)});
    else if (key.part.empty()) out.removed.push_back(std::move(key.key));
  }
  // Parts of an object that was not there.
  std::erase_if(out.rows, [&](const StoredRow& r) {
    return std::find(out.removed.begin(), out.removed.end(), r.key.key) != out.removed.end();
  });
  return out;
}

}  // namespace millrace::control
