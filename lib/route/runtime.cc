#include "lib/route/runtime.h"

#include <string>

namespace millrace::route {

base::Result<std::shared_ptr<const PatternDb>> PatternDbCache::get(uint64_t hash, std::span<const uint8_t> serialized,
                                                                   PatternScratch& prototype, bool* scratch_grew) {
  if (const auto it = dbs_.find(hash); it != dbs_.end()) {
    if (auto db = it->second.lock()) return db;
  }
  auto loaded = PatternDb::load(serialized);
  if (!loaded.ok()) return loaded;
  if (auto s = prototype.fit(**loaded, scratch_grew); !s.ok()) return base::Error{s.error()};
  dbs_[hash] = *loaded;
  return loaded;
}

void PatternDbCache::sweep() {
  std::erase_if(dbs_, [](const auto& entry) { return entry.second.expired(); });
}

base::Result<std::unique_ptr<LoadedVirtualHost>> LoadedVirtualHost::load(const table::VirtualHost& object, PatternDbCache& cache,
                                                                         PatternScratch& prototype, bool* scratch_grew) {
  const std::string name(view(&object, object.name));
  if (auto s = validate_index(object); !s.ok()) return base::Error{"virtual host " + name + ": " + s.error()};
  auto host = std::make_unique<LoadedVirtualHost>();
  for (uint32_t i = 0; i < object.regex_dbs.count; ++i) {
    const table::RegexDb& db = object.regex_dbs.at(&object, i);
    auto loaded = cache.get(db.hash, {db.serialized.begin(&object), db.serialized.count}, prototype, scratch_grew);
    if (!loaded.ok()) return base::Error{"virtual host " + name + ": " + loaded.error()};
    host->dbs_.push_back(loaded->get());
    host->owners_.push_back(*loaded);
  }
  host->runtime_ = {&object, host->dbs_.data()};
  return host;
}

}  // namespace millrace::route
