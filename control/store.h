// What control remembers over a restart: the objects in force, as Envoy text, in a SQLite file. Edits made with millctl (and
// later by xDS) are there after control was killed, upgraded or restarted; the configuration file is the base they were made on.
//
// Every edit is a numbered revision with author, time and what it changed; what the objects were before it is kept beside it, so
// that an edit can be undone, also after a restart. The last kMaxRevisions are kept.
//
// The store belongs to the file it was made from: when the file's content changes, the new file wins and the old edits are put
// aside with a line in the log (a file that says otherwise than the running tables would be a trap).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "control/config_kind.h"
#include "lib/base/status.h"

struct sqlite3;

namespace millrace::control {

// An object is one row, or several: virtual hosts have rows of their own (stored_rows.h), so that an edit of one route among
// 100,000 writes one virtual host.
struct StoredKey {
  ConfigKey key;
  std::string part;  // "": the object itself
  friend auto operator<=>(const StoredKey&, const StoredKey&) = default;
};
struct StoredRow {
  StoredKey key;
  uint32_t position = 0;  // among the parts of the object
  std::string json;       // the object's with "@type"
};

// Who made an edit, as they call themselves, and with which words.
struct EditOrigin {
  std::string author, what;
};
struct Revision {
  uint64_t number = 0;  // from 1, grows over restarts too
  int64_t time_ms = 0;  // since the epoch, UTC
  EditOrigin origin;
  std::string changes;  // to_text(std::vector<ObjectChange>), perhaps cut; "" for a configuration file that was loaded
  bool loaded = false;  // begins anew from a configuration file: nothing before it can be gone back to
};
// What leads back: every row, as it was, of the objects that have changed since, and the objects that were not there.
struct StoredState {
  std::vector<StoredRow> rows;  // by object, then position
  std::vector<ConfigKey> removed;
};

class Store {
 public:
  static constexpr uint64_t kMaxRevisions = 1000;

  // Opens or makes the file (mode 0600: it may hold private keys). Errors name the file.
  static base::Result<std::unique_ptr<Store>> open(const std::string& path, uint64_t max_revisions = kMaxRevisions);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Fingerprint of the configuration file that the contents were made from; "" when the store is empty.
  std::string base() const;
  bool edited() const;                  // something was changed after reset()
  std::vector<StoredRow> load() const;  // by object, then position

  // Forgets all objects and begins anew from a configuration file; `what` names it in the history.
  base::Status reset(const std::string& base_fingerprint, const std::string& what);
  // The objects before the first edit; no revision.
  base::Status fill(const std::vector<StoredRow>& rows);
  // One edit, all of it or nothing: on stable storage when it returns. `time_ms`, `origin` and `changes` make its revision.
  base::Result<uint64_t> commit(const std::vector<StoredRow>& put, const std::vector<StoredKey>& removed,
                                const Revision& revision);
  // Takes the newest revision back, objects and history, as if it had never been: it could not be published.
  base::Status withdraw(uint64_t revision);

  // The newest first, at most `limit`; 0: all that are kept.
  std::vector<Revision> history(size_t limit) const;
  // From now to what was in force right after `revision`. Errors: it is not known, or a configuration file was loaded since.
  base::Result<StoredState> way_back(uint64_t revision) const;

 private:
  Store() = default;
  base::Status exec(const char* sql) const;
  bool put_all(const std::vector<StoredRow>& put) const;
  bool remove_all(const std::vector<StoredKey>& removed) const;
  base::Status check_revision(uint64_t revision) const;  // that it can be gone back to
  base::Status end(bool good) const;                     // of a transaction
  std::string meta(const char* key) const;
  sqlite3* db_ = nullptr;
  std::string path_;
  uint64_t max_revisions_ = kMaxRevisions;
};

}  // namespace millrace::control
