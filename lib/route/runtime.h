// The loader's side of lib/route: turns a published virtual host into what workers can use. Heap and time allowed; never on a
// poll core.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "lib/base/status.h"
#include "lib/route/matcher.h"
#include "lib/route/pattern_db.h"

namespace millrace::route {

// Deserialised databases by content hash, shared between versions of a virtual host: an edit that leaves a database alone costs
// nothing. Holds weak references; a database goes when the last LoadedVirtualHost that uses it goes.
class PatternDbCache {
 public:
  // From the cache, or loaded from `serialized`; new ones are fitted into `prototype` (*scratch_grew is set when it had to grow).
  base::Result<std::shared_ptr<const PatternDb>> get(uint64_t hash, std::span<const uint8_t> serialized,
                                                     PatternScratch& prototype, bool* scratch_grew);
  size_t size() const { return dbs_.size(); }
  void sweep();  // forgets databases nobody uses any more

 private:
  std::unordered_map<uint64_t, std::weak_ptr<const PatternDb>> dbs_;
};

// A virtual host with its databases. `object` must outlive it (the snapshot's reclamation rule).
class LoadedVirtualHost {
 public:
  // validate_index(), then every database. The caller ran table::validate on the object.
  static base::Result<std::unique_ptr<LoadedVirtualHost>> load(const table::VirtualHost& object, PatternDbCache& cache,
                                                               PatternScratch& prototype, bool* scratch_grew);
  const VirtualHostRuntime& runtime() const { return runtime_; }

 private:
  std::vector<std::shared_ptr<const PatternDb>> owners_;
  std::vector<const PatternDb*> dbs_;
  VirtualHostRuntime runtime_;
};

}  // namespace millrace::route
