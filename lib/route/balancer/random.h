// RANDOM (Envoy's RandomLoadBalancer): any eligible endpoint, weights do not count.
#pragma once

#include <cstdint>

#include "lib/route/balancer/endpoints.h"

namespace millrace::route::balancer {

class Random {
 public:
  void build(Eligible eligible) { eligible_ = std::move(eligible); }
  void adopt(const Random&) {}

  // `random()`: a fresh uint64_t each; `usable` as in RoundRobin.
  template <class Rng, class Usable>
  uint32_t pick(Rng&& random, Usable&& usable) const {
    const uint64_t n = eligible_.index.size();
    if (n == 0) return kNoEndpoint;
    const uint64_t start = random() % n;
    for (uint64_t i = 0; i < n; ++i)
      if (const uint32_t e = eligible_.index[(start + i) % n]; usable(e)) return e;
    return kNoEndpoint;
  }
  template <class Rng>
  uint32_t pick(Rng&& random) const {
    return pick(random, [](uint32_t) { return true; });
  }
  const Eligible& eligible() const { return eligible_; }

 private:
  Eligible eligible_;
};

}  // namespace millrace::route::balancer
