#include "control/store.h"

#include <algorithm>
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
  int step() { return s_ == nullptr ? SQLITE_ERROR : sqlite3_step(s_); }
  void reset() { sqlite3_reset(s_); }
  std::string text(int column) const {
    const auto* p = reinterpret_cast<const char*>(sqlite3_column_text(s_, column));
    return p == nullptr ? std::string() : std::string(p, static_cast<size_t>(sqlite3_column_bytes(s_, column)));
  }

 private:
  sqlite3_stmt* s_ = nullptr;
};

}  // namespace

base::Result<std::unique_ptr<Store>> Store::open(const std::string& path) {
  std::unique_ptr<Store> s(new Store);
  s->path_ = path;
  const mode_t old = umask(0077);
  const int rc =
      sqlite3_open_v2(path.c_str(), &s->db_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  umask(old);
  if (rc != SQLITE_OK) return base::Error{path + ": " + sqlite3_errmsg(s->db_) + "; the directory must exist and be writable"};
  sqlite3_busy_timeout(s->db_, 2'000);
  for (const char* sql : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
                          "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
                          "CREATE TABLE IF NOT EXISTS objects (kind TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL, "
                          "PRIMARY KEY (kind, name))"})
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

std::vector<StoredObject> Store::load() const {
  std::vector<StoredObject> out;
  Statement s(db_, "SELECT kind, name, json FROM objects ORDER BY kind, name");
  while (s.step() == SQLITE_ROW)
    if (const std::optional<ConfigKind> kind = parse_config_kind(s.text(0))) out.push_back({{*kind, s.text(1)}, s.text(2)});
  return out;
}

base::Status Store::reset(const std::string& base_fingerprint) {
  if (const base::Status s = exec("BEGIN IMMEDIATE; DELETE FROM objects; DELETE FROM meta"); !s.ok()) {
    (void)exec("ROLLBACK");
    return s;
  }
  {
    Statement s(db_, "INSERT INTO meta VALUES ('base', ?1)");
    s.bind(1, base_fingerprint);
    s.step();
  }
  return exec("COMMIT");
}

base::Status Store::commit(const std::vector<StoredObject>& put, const std::vector<ConfigKey>& removed) {
  if (const base::Status s = exec("BEGIN IMMEDIATE"); !s.ok()) return s;
  bool good = true;
  {
    Statement s(db_, "INSERT INTO objects VALUES (?1, ?2, ?3) ON CONFLICT (kind, name) DO UPDATE SET json = excluded.json");
    for (const StoredObject& o : put) {
      s.bind(1, std::string(to_string(o.key.kind))).bind(2, o.key.name).bind(3, o.json);
      good = good && s.step() == SQLITE_DONE;
      s.reset();
    }
    Statement d(db_, "DELETE FROM objects WHERE kind = ?1 AND name = ?2");
    for (const ConfigKey& k : removed) {
      d.bind(1, std::string(to_string(k.kind))).bind(2, k.name);
      good = good && d.step() == SQLITE_DONE;
      d.reset();
    }
    Statement m(db_, "INSERT INTO meta VALUES ('edited', '1') ON CONFLICT (key) DO NOTHING");
    good = good && m.step() == SQLITE_DONE;
  }
  if (!good) {
    const std::string why = sqlite3_errmsg(db_);
    (void)exec("ROLLBACK");
    return base::Error{path_ + ": " + why + "; the change was not made"};
  }
  return exec("COMMIT");
}

}  // namespace millrace::control
