// One balancer of whichever policy the cluster asks for: worker-local, no virtual calls.
#pragma once

#include <cstdint>
#include <utility>

#include "lib/route/balancer/least_request.h"
#include "lib/route/balancer/random.h"
#include "lib/route/balancer/round_robin.h"

namespace millrace::route::balancer {

class Balancer {
 public:
  // Off the poll core (allocates). `seed`: a random number, different for each worker and set.
  void build(const table::EndpointSet& set, table::LbPolicy policy, uint32_t choice_count, uint64_t seed,
             uint32_t panic_threshold_percent = 0);
  // When the worker swaps in a new one: carries the round-robin position. O(1), no allocation.
  void adopt(const Balancer& previous) {
    if (policy_ == previous.policy_) round_robin_.adopt(previous.round_robin_);
  }

  // Index into EndpointSet.endpoints, or kNoEndpoint. active(endpoint), random() and usable(endpoint) as in the policies'
  // headers.
  template <class Active, class Rng, class Usable>
  uint32_t pick(Active&& active, Rng&& random, Usable&& usable) {
    switch (policy_) {
      case table::LbPolicy::kRoundRobin:
        return round_robin_.pick(usable);
      case table::LbPolicy::kLeastRequest:
        return least_request_.pick(active, random, usable);
      case table::LbPolicy::kRandom:
        return random_.pick(random, usable);
    }
    return kNoEndpoint;
  }
  // The round-robin position, to be kept over a swap by whoever does not keep the previous balancer. 0 for the other policies.
  uint64_t position() const { return round_robin_.position(); }
  void set_position(uint64_t p) { round_robin_.set_position(p); }
  bool empty() const;  // no endpoint is eligible

 private:
  table::LbPolicy policy_ = table::LbPolicy::kRoundRobin;
  RoundRobin round_robin_;
  LeastRequest least_request_;
  Random random_;
};

}  // namespace millrace::route::balancer
