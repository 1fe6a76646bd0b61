// The live state of endpoints, for whoever chooses among them: what outlier detection (and EDS, from the tables) says now. One
// load an endpoint, and none where nothing watches the cluster. Memory orders: lib/stats/health.h.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/runtime_snapshot.h"
#include "lib/stats/region.h"

namespace millrace::dataplane {

// What the balancer makes of an endpoint: ejected, or not (yet) found healthy by checks, it is bad whatever the tables say of it;
// who calls itself degraded is that at best. `i`: index into cluster.endpoints, which is there.
inline route::balancer::Health live_health(const stats::WorkerStats& stats, const ClusterRuntime& cluster, uint32_t i) {
  using route::balancer::Health;
  const Health configured = route::balancer::configured_health(cluster.endpoints->endpoints.at(cluster.endpoints, i));
  if (!cluster.watched) return configured;
  const uint32_t state = stats.health(cluster.endpoint_slots[i]).state.load(std::memory_order_relaxed);
  if (((state ^ cluster.good_state) & cluster.state_mask) != 0) return Health::kUnhealthy;
  if (cluster.checks && (state & stats::kHealthCheckDegraded) != 0 && configured == Health::kHealthy) return Health::kDegraded;
  return configured;
}

// Grows with each change of a found state of the cluster's endpoints; for whoever keeps what was worked out from them: load this
// first, then the states, and again when it is another number. 0 for ever where nothing watches the cluster; where endpoints are
// checked never 0, since what the tables say is not what they are.
inline uint32_t health_generation(const stats::WorkerStats& stats, const ClusterRuntime& cluster) {
  if (!cluster.watched) return 0;
  const uint32_t g = stats.health(cluster.slot).generation.load(std::memory_order_acquire);  // pairs with health_changed()
  return cluster.checks && g == 0 ? UINT32_MAX : g;
}

// The worker that owns the cluster, behind each change of a state of its endpoints.
inline void health_changed(const stats::WorkerStats& stats, stats::ScopeSlot cluster_slot) {
  std::atomic<uint32_t>& g = stats.health(cluster_slot).generation;
  g.store(g.load(std::memory_order_relaxed) + 1, std::memory_order_release);  // pairs with health_generation()
}

}  // namespace millrace::dataplane
