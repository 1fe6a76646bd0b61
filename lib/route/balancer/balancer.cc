#include "lib/route/balancer/balancer.h"

#include <algorithm>

#include "lib/base/prng.h"

namespace millrace::route::balancer {

Eligible Eligible::of(const table::EndpointSet& set, uint32_t panic_threshold_percent) {
  Eligible e;
  uint32_t healthy = 0;
  for (uint32_t i = 0; i < set.endpoints.count; ++i) healthy += set.endpoints.at(&set, i).state == table::EndpointState::kHealthy;
  // LoadBalancerBase::isHostSetInPanic: healthy percentage below the threshold.
  e.panic = set.endpoints.count != 0 && uint64_t{healthy} * 100 < uint64_t{set.endpoints.count} * panic_threshold_percent;
  for (uint32_t i = 0; i < set.endpoints.count; ++i) {
    const table::Endpoint& endpoint = set.endpoints.at(&set, i);
    if (!e.panic && endpoint.state != table::EndpointState::kHealthy) continue;
    e.index.push_back(i);
    e.weight.push_back(std::max(endpoint.weight, 1u));
    e.equal_weights = e.equal_weights && e.weight.back() == e.weight.front();
  }
  return e;
}

void Edf::build(const std::vector<uint32_t>& weights, uint64_t seed) {
  base::Prng random(seed);
  heap_.clear();
  now_ = 0;
  order_ = 0;
  for (uint32_t slot = 0; slot < weights.size(); ++slot) heap_.push_back({random.unit() / weights[slot], ++order_, slot});
  std::sort(heap_.begin(), heap_.end(), [](const Entry& a, const Entry& b) { return a.before(b); });  // sorted is a heap
}

void Edf::replace_top(const Entry& e) {
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].before(heap_[child])) ++child;
    if (!heap_[child].before(e)) break;
    heap_[at] = heap_[child];
    at = child;
  }
  heap_[at] = e;
}

void RoundRobin::build(Eligible eligible, uint64_t seed) {
  eligible_ = std::move(eligible);
  if (!eligible_.equal_weights) edf_.build(eligible_.weight, seed);
  next_ = seed;
}

void LeastRequest::build(Eligible eligible, uint32_t choice_count, uint64_t seed) {
  eligible_ = std::move(eligible);
  choice_count_ = std::max(choice_count, 2u);
  if (!eligible_.equal_weights) edf_.build(eligible_.weight, seed);
}

void Balancer::build(const table::EndpointSet& set, table::LbPolicy policy, uint32_t choice_count, uint64_t seed,
                     uint32_t panic_threshold_percent) {
  Eligible eligible = Eligible::of(set, panic_threshold_percent);
  policy_ = policy;
  switch (policy) {
    case table::LbPolicy::kRoundRobin:
      round_robin_.build(std::move(eligible), seed);
      break;
    case table::LbPolicy::kLeastRequest:
      least_request_.build(std::move(eligible), choice_count, seed);
      break;
    case table::LbPolicy::kRandom:
      random_.build(std::move(eligible));
      break;
  }
}

bool Balancer::empty() const {
  switch (policy_) {
    case table::LbPolicy::kRoundRobin:
      return round_robin_.eligible().index.empty();
    case table::LbPolicy::kLeastRequest:
      return least_request_.eligible().index.empty();
    case table::LbPolicy::kRandom:
      return random_.eligible().index.empty();
  }
  return true;
}

}  // namespace millrace::route::balancer
