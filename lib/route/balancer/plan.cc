#include "lib/route/balancer/plan.h"

#include <algorithm>
#include <string>

namespace millrace::route::balancer {

namespace {

std::string hash_key(const table::EndpointSet& set, uint32_t i, bool hostname) {
  const table::Endpoint& e = set.endpoints.at(&set, i);
  if (hostname) return std::string(table::view(&set, e.hostname));
  const std::string ip = e.address.to_string();
  return (e.address.is_v4() ? ip : "[" + ip + "]") + ":" + std::to_string(e.port);
}

bool hashes(table::LbPolicy p) { return p == table::LbPolicy::kRingHash || p == table::LbPolicy::kMaglev; }

}  // namespace

PlanOptions PlanOptions::of(const table::Cluster& c) {
  PlanOptions o;
  o.policy = c.lb_policy;
  o.choice_count = c.least_request_choice_count;
  o.panic_threshold = c.panic_threshold;
  o.fail_on_panic = c.fail_on_panic != 0;
  o.locality_weighted = c.locality_weighted != 0;
  o.hash_hostname = c.hash_hostname != 0;
  o.ring_murmur = c.ring_murmur != 0;
  o.hash_balance_factor = c.hash_balance_factor;
  o.ring_min = c.ring_min;
  o.ring_max = c.ring_max;
  o.maglev_size = c.maglev_size;
  return o;
}

Group Plan::add(const std::vector<uint32_t>& list) {
  Group g;
  g.first = static_cast<uint32_t>(members.size());
  g.count = static_cast<uint32_t>(list.size());
  g.scheduler = static_cast<uint32_t>(schedulers.size());
  members.insert(members.end(), list.begin(), list.end());
  for (const uint32_t i : list) g.equal_weights = g.equal_weights && weight(i) == weight(list.front());
  schedulers.push_back(g);
  return g;
}

Groups Plan::group(const std::vector<uint32_t>& all) {
  std::vector<uint32_t> healthy, degraded;
  for (const uint32_t i : all) {
    const Health h = configured_health(set->endpoints.at(set, i));
    if (h == Health::kHealthy) healthy.push_back(i);
    else if (h == Health::kDegraded) degraded.push_back(i);
  }
  Groups g;
  g.all = add(all);
  g.healthy = healthy.size() == all.size() ? g.all : add(healthy);
  g.degraded = degraded.empty() || degraded.size() == all.size() ? g.all : add(degraded);
  return g;
}

// Envoy's normalizeWeights(): of the healthy endpoints, or in panic of all; a locality's share is divided among its endpoints.
HashTable Plan::make_table(const Priority& p, bool panic) const {
  std::vector<HashTable::Host> hosts;
  const auto put = [&](const Groups& g, double share) {
    const std::span<const uint32_t> list = of(panic ? g.all : g.healthy);
    uint64_t sum = 0;
    for (const uint32_t i : list) sum += weight(i);
    for (const uint32_t i : list)
      hosts.push_back(
          {hash_key(*set, i, options.hash_hostname), i, static_cast<double>(weight(i)) * share / static_cast<double>(sum)});
  };
  uint64_t weights = 0;
  for (uint32_t l = 0; options.locality_weighted && l < p.localities; ++l)
    weights += set->localities.at(set, p.first_locality + l).weight;
  if (weights == 0) {
    put(p.groups, 1);
  } else {
    for (uint32_t l = p.first_locality; l < p.first_locality + p.localities; ++l)
      if (const uint32_t w = set->localities.at(set, l).weight; w != 0)
        put(localities[l], static_cast<double>(w) / static_cast<double>(weights));
  }
  return options.policy == table::LbPolicy::kMaglev
             ? HashTable::maglev(std::move(hosts), options.maglev_size)
             : HashTable::ring(std::move(hosts), options.ring_min, options.ring_max, options.ring_murmur);
}

std::shared_ptr<const Plan> Plan::make(const table::EndpointSet& set, const PlanOptions& options) {
  auto plan = std::make_shared<Plan>();
  Plan& p = *plan;
  p.set = &set;
  p.options = options;
  p.options.choice_count = std::max(options.choice_count, 2u);
  const uint32_t localities = std::max(set.localities.count, 1u);
  const auto priority_of = [&](uint32_t locality) {
    return set.localities.count == 0 ? 0 : set.localities.at(&set, locality).priority;
  };
  p.priorities.resize(priority_of(localities - 1) + 1);
  for (uint32_t l = 0; l < localities; ++l) {
    Priority& at = p.priorities[priority_of(l)];
    if (at.localities++ == 0) at.first_locality = l;
  }
  std::vector<std::vector<uint32_t>> by_priority(p.priorities.size()), by_locality(localities);
  p.counts.resize(localities);
  for (uint32_t i = 0; i < set.endpoints.count; ++i) {
    const table::Endpoint& e = set.endpoints.at(&set, i);
    by_priority[priority_of(e.locality)].push_back(i);
    by_locality[e.locality].push_back(i);
    HealthCount& c = p.counts[e.locality];
    ++c.total;
    c.healthy += configured_health(e) == Health::kHealthy;
    c.degraded += configured_health(e) == Health::kDegraded;
  }
  for (size_t i = 0; i < by_priority.size(); ++i) p.priorities[i].groups = p.group(by_priority[i]);
  if (options.locality_weighted)
    for (const std::vector<uint32_t>& list : by_locality) p.localities.push_back(p.group(list));
  p.simple = p.priorities.size() == 1 && !options.locality_weighted && !hashes(options.policy) && set.endpoints.count != 0 &&
             p.priorities[0].groups.healthy.count == set.endpoints.count;
  if (hashes(options.policy)) {
    std::vector<HealthCount> counts(p.priorities.size());
    std::vector<PriorityLoad> loads(p.priorities.size());
    for (uint32_t l = 0; l < localities; ++l) {
      HealthCount& c = counts[priority_of(l)];
      c.healthy += p.counts[l].healthy;
      c.degraded += p.counts[l].degraded;
      c.total += p.counts[l].total;
    }
    spread_load(counts, set.overprovisioning_factor, options.panic_threshold, loads);
    for (size_t i = 0; i < p.priorities.size(); ++i) p.priorities[i].table = p.make_table(p.priorities[i], loads[i].panic);
  }
  return plan;
}

size_t Plan::hash_bytes() const {
  size_t n = 0;
  for (const Priority& p : priorities) n += p.table.bytes();
  return n;
}

}  // namespace millrace::route::balancer
