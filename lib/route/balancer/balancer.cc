#include "lib/route/balancer/balancer.h"

#include "lib/base/prng.h"

namespace millrace::route::balancer {

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

void Balancer::build(std::shared_ptr<const Plan> plan, uint64_t seed) {
  plan_ = std::move(plan);
  const Plan& p = *plan_;
  next_ = seed;
  choices_ = p.options.choice_count;
  count_ = p.set->endpoints.count;
  turns_.assign(p.schedulers.size(), {});
  const bool in_turn = p.options.policy == table::LbPolicy::kRoundRobin || p.options.policy == table::LbPolicy::kLeastRequest;
  std::vector<uint32_t> weights;
  for (size_t i = 0; in_turn && i < p.schedulers.size(); ++i) {
    if (p.schedulers[i].equal_weights) continue;
    weights.clear();
    for (const uint32_t e : p.of(p.schedulers[i])) weights.push_back(p.weight(e));
    turns_[i].edf.build(weights, seed + i);
  }
  counts_ = p.counts;
  counting_.resize(counts_.size());
  by_priority_.resize(p.priorities.size());
  loads_.resize(p.priorities.size());
  if (p.options.locality_weighted) {
    healthy_share_.resize(counts_.size());
    degraded_share_.resize(counts_.size());
  }
  generation_ = 0;
  cursor_ = 0;
  work_out();
}

void Balancer::build(const table::EndpointSet& set, table::LbPolicy policy, uint32_t choice_count, uint64_t seed,
                     uint32_t panic_threshold_percent) {
  PlanOptions o;
  o.policy = policy;
  o.choice_count = choice_count;
  o.panic_threshold = panic_threshold_percent;
  build(Plan::make(set, o), seed);
}

void Balancer::work_out() {
  const Plan& p = *plan_;
  const uint32_t over = p.set->overprovisioning_factor;
  bool all_healthy = true;
  for (size_t i = 0; i < p.priorities.size(); ++i) {
    HealthCount& sum = by_priority_[i];
    sum = {};
    uint64_t healthy = 0, degraded = 0;
    for (uint32_t k = 0; k < p.priorities[i].localities; ++k) {
      const uint32_t l = p.priorities[i].first_locality + k;
      const HealthCount& c = counts_[l];
      sum.healthy += c.healthy;
      sum.degraded += c.degraded;
      sum.total += c.total;
      if (!p.options.locality_weighted) continue;
      const uint32_t weight = p.set->localities.count == 0 ? 0 : p.set->localities.at(p.set, l).weight;
      healthy_share_[l] = healthy += effective_weight(weight, c.healthy, c.total, over);
      degraded_share_[l] = degraded += effective_weight(weight, c.degraded, c.total, over);
    }
    all_healthy = all_healthy && sum.healthy == sum.total;
  }
  spread_load(by_priority_, over, p.options.panic_threshold, loads_);
  mode_ = count_ == 0 ? Mode::kNone : Mode::kGeneral;
  if (!p.simple || !all_healthy) return;
  switch (p.options.policy) {
    case table::LbPolicy::kRoundRobin:
      if (p.schedulers[0].equal_weights) mode_ = Mode::kTurn;
      break;
    case table::LbPolicy::kLeastRequest:
      if (p.schedulers[0].equal_weights) mode_ = Mode::kLeast;
      break;
    default:
      mode_ = Mode::kRandom;
  }
}

uint32_t Balancer::locality_of(const Plan::Priority& p, bool degraded, uint64_t random) const {
  if (p.localities == 0) return UINT32_MAX;
  const uint64_t* shares = (degraded ? degraded_share_ : healthy_share_).data() + p.first_locality;
  const uint64_t sum = shares[p.localities - 1];
  if (sum == 0) return UINT32_MAX;
  const uint64_t* at = std::upper_bound(shares, shares + p.localities, random % sum);
  return p.first_locality + static_cast<uint32_t>(at - shares);
}

}  // namespace millrace::route::balancer
