// How requests are spread over the priorities of a cluster, as Envoy's LoadBalancerBase works it out: what the healthy endpoints
// of a priority can take (their share times the overprovisioning factor) goes to them, the rest to the next one; what no healthy
// ones can take goes to the degraded; where too few are left, a priority is in panic and uses all it has.
#pragma once

#include <cstdint>
#include <span>

namespace millrace::route::balancer {

struct HealthCount {
  uint32_t healthy = 0, degraded = 0, total = 0;  // endpoints
};
struct PriorityLoad {
  uint32_t healthy = 0, degraded = 0;  // percent of all requests; over all priorities the sum is 100
  bool panic = false;
};

// `counts` and `loads`: by priority, of one size, at least one. `overprovisioning`: percent. `panic_threshold`: percent of
// endpoints that must be left, 0: never a panic. No allocation; O(priorities).
void spread_load(std::span<const HealthCount> counts, uint32_t overprovisioning, uint32_t panic_threshold,
                 std::span<PriorityLoad> loads);

struct PriorityChoice {
  uint32_t priority = 0;
  bool degraded = false;
};
// LoadBalancerBase::choosePriority: `hash` decides, any 64 bits.
PriorityChoice choose_priority(std::span<const PriorityLoad> loads, uint64_t hash);

// What a locality weighs by its endpoints that can be used (LoadBalancerBase::effectiveLocalityWeight), in 1/65536.
uint64_t effective_weight(uint32_t weight, uint32_t eligible, uint32_t total, uint32_t overprovisioning);

}  // namespace millrace::route::balancer
