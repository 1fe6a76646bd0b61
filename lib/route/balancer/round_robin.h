// ROUND_ROBIN (Envoy's RoundRobinLoadBalancer): in turn; with unequal weights by earliest deadline. One per worker and cluster.
// build() off the poll core with every new endpoint set, adopt() when the worker swaps, pick() per request.
#pragma once

#include <cstdint>

#include "lib/route/balancer/edf.h"
#include "lib/route/balancer/endpoints.h"

namespace millrace::route::balancer {

class RoundRobin {
 public:
  // `seed`: any random number, different for each worker, so that workers do not march in step.
  void build(Eligible eligible, uint64_t seed);
  // Carries the position on from the balancer of the previous set. O(1).
  void adopt(const RoundRobin& previous) { next_ = previous.next_; }

  // `usable(endpoint index)`: false to pass over (ejected, already tried). Index into EndpointSet.endpoints, or kNoEndpoint when
  // no endpoint is eligible and usable. Bounded by the number of endpoints.
  template <class Usable>
  uint32_t pick(Usable&& usable) {
    const uint32_t n = static_cast<uint32_t>(eligible_.index.size());
    for (uint32_t tries = 0; tries < n; ++tries) {
      const uint32_t slot = eligible_.equal_weights ? static_cast<uint32_t>(next_++ % n)
                                                    : edf_.pick([this](uint32_t s) { return eligible_.weight[s]; });
      if (usable(eligible_.index[slot])) return eligible_.index[slot];
    }
    if (!eligible_.equal_weights)  // the deadlines may have favoured unusable ones all along: take the first usable in turn
      for (uint32_t tries = 0; tries < n; ++tries)
        if (const uint32_t i = eligible_.index[next_++ % n]; usable(i)) return i;
    return kNoEndpoint;
  }
  uint32_t pick() {
    return pick([](uint32_t) { return true; });
  }
  uint64_t position() const { return next_; }
  void set_position(uint64_t p) { next_ = p; }
  const Eligible& eligible() const { return eligible_; }

 private:
  Eligible eligible_;
  Edf edf_;
  uint64_t next_ = 0;
};

}  // namespace millrace::route::balancer
