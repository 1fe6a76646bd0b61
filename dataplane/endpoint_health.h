// The live state of endpoints, for whoever chooses among them: what outlier detection (and EDS, from the tables) says now. One
// load an endpoint, and none where nothing watches the cluster. Memory orders: lib/stats/health.h.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/runtime_snapshot.h"
#include "lib/stats/region.h"

namespace millrace::dataplane {

// Ejected, or found bad otherwise, whatever the tables say of it. `i`: index into cluster.endpoints, which is there.
inline bool found_bad(const stats::WorkerStats& stats, const ClusterRuntime& cluster, uint32_t i) {
  return cluster.watched &&
         (stats.health(cluster.endpoint_slots[i]).state.load(std::memory_order_relaxed) & stats::kHealthUnusable) != 0;
}

// Grows with each change of a found state of the cluster's endpoints; for whoever keeps what was worked out from them: load this
// first, then the states, and again when it is another number. 0 for ever where nothing watches the cluster.
inline uint32_t health_generation(const stats::WorkerStats& stats, const ClusterRuntime& cluster) {
  if (!cluster.watched) return 0;
  return stats.health(cluster.slot).generation.load(std::memory_order_acquire);  // pairs with HealthKeeper::changed()
}

}  // namespace millrace::dataplane
