// What the balancers choose from: the endpoints of a set that may get new requests, worked out once per published set (off the
// poll core).
#pragma once

#include <cstdint>
#include <vector>

#include "lib/table/objects.h"

namespace millrace::route::balancer {

inline constexpr uint32_t kNoEndpoint = UINT32_MAX;  // no healthy upstream: 503, response flag UH

struct Eligible {
  std::vector<uint32_t> index;   // into EndpointSet.endpoints, ascending: healthy, neither draining nor unhealthy
  std::vector<uint32_t> weight;  // load_balancing_weight of each, at least 1
  bool equal_weights = true;
  bool panic = false;  // too few were healthy: all endpoints take part (Cluster.common_lb_config.healthy_panic_threshold)

  // `panic_threshold_percent` 0: never panic. Envoy's default is 50: with fewer healthy than that, all are used.
  static Eligible of(const table::EndpointSet& set, uint32_t panic_threshold_percent = 0);
};

}  // namespace millrace::route::balancer
