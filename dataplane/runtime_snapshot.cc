#include "dataplane/runtime_snapshot.h"

#include <utility>

namespace millrace::dataplane {

RuntimeSnapshot::~RuntimeSnapshot() = default;

void RuntimeSnapshot::adopt_scratch(uint32_t worker, route::PatternScratch& mine) const {
  if (worker >= scratch_.size() || !scratch_[worker].fresh) return;
  scratch_[worker].fresh = false;
  std::swap(scratch_[worker].scratch, mine);
}

}  // namespace millrace::dataplane
