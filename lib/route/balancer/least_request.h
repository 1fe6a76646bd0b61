// LEAST_REQUEST (Envoy's LeastRequestLoadBalancer). Equal weights: of choice_count endpoints drawn at random, the one with the
// fewest active requests (power of two choices). Unequal: earliest deadline first with weight / (active + 1), active_request_bias
// 1. The caller keeps the active counts (per endpoint index, keyed by address over edits).
#pragma once

#include <cstdint>

#include "lib/route/balancer/edf.h"
#include "lib/route/balancer/endpoints.h"

namespace millrace::route::balancer {

class LeastRequest {
 public:
  // `choice_count`: LeastRequestLbConfig.choice_count, at least 2 (default 2).
  void build(Eligible eligible, uint32_t choice_count, uint64_t seed);
  void adopt(const LeastRequest&) {}  // nothing to carry: the caller's counts are the state

  // `active(endpoint index)`: requests in flight. `random()`: a fresh uint64_t each. `usable` as in RoundRobin.
  template <class Active, class Random, class Usable>
  uint32_t pick(Active&& active, Random&& random, Usable&& usable) {
    const uint32_t n = static_cast<uint32_t>(eligible_.index.size());
    if (n == 0) return kNoEndpoint;
    if (!eligible_.equal_weights) {
      for (uint32_t tries = 0; tries < n; ++tries) {
        const uint32_t slot = edf_.pick([&](uint32_t s) {
          return static_cast<double>(eligible_.weight[s]) / (static_cast<double>(active(eligible_.index[s])) + 1.0);
        });
        if (usable(eligible_.index[slot])) return eligible_.index[slot];
      }
      return any_usable(random, usable);
    }
    uint32_t best = kNoEndpoint;
    uint64_t best_active = 0;
    for (uint32_t i = 0; i < choice_count_; ++i) {
      const uint32_t e = eligible_.index[random() % n];
      if (!usable(e)) continue;
      const uint64_t a = active(e);
      if (best == kNoEndpoint || a < best_active) {
        best = e;
        best_active = a;
      }
    }
    return best != kNoEndpoint ? best : any_usable(random, usable);
  }
  template <class Active, class Random>
  uint32_t pick(Active&& active, Random&& random) {
    return pick(active, random, [](uint32_t) { return true; });
  }
  const Eligible& eligible() const { return eligible_; }

 private:
  template <class Random, class Usable>
  uint32_t any_usable(Random&& random, Usable&& usable) const {
    const uint32_t n = static_cast<uint32_t>(eligible_.index.size());
    const uint64_t start = random() % n;
    for (uint32_t i = 0; i < n; ++i)
      if (const uint32_t e = eligible_.index[(start + i) % n]; usable(e)) return e;
    return kNoEndpoint;
  }
  Eligible eligible_;
  Edf edf_;
  uint32_t choice_count_ = 2;
};

}  // namespace millrace::route::balancer
