// What control remembers over a restart: the objects in force, as Envoy text, in a SQLite file. Edits made with millctl (and
// later by xDS) are there after control was killed, upgraded or restarted; the configuration file is the base they were made on.
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

struct StoredObject {
  ConfigKey key;
  std::string json;  // with "@type"
};

class Store {
 public:
  // Opens or makes the file (mode 0600: it may hold private keys). Errors name the file.
  static base::Result<std::unique_ptr<Store>> open(const std::string& path);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Fingerprint of the configuration file that the contents were made from; "" when the store is empty.
  std::string base() const;
  bool edited() const;  // something was changed after reset()
  std::vector<StoredObject> load() const;

  // Forgets everything and begins anew from a configuration file.
  base::Status reset(const std::string& base_fingerprint);
  // One edit, all of it or nothing: on stable storage when it returns.
  base::Status commit(const std::vector<StoredObject>& put, const std::vector<ConfigKey>& removed);

 private:
  Store() = default;
  base::Status exec(const char* sql) const;
  std::string meta(const char* key) const;
  sqlite3* db_ = nullptr;
  std::string path_;
};

}  // namespace millrace::control
