// What the balancers of all workers share of a cluster and its endpoint set: who belongs together, and the tables of hashes.
// Built by the loader with each change of either, then immutable.
//
//   priority 0 ─┬─ all ─ healthy ─ degraded            a request: priority by the load ─▶ group ─▶ its scheduler, or the table
//               ├─ locality a ─ all ─ healthy ─ degraded   (only where localities are weighted)
//               └─ table of hashes                         (only with RING_HASH and MAGLEV)
//   priority 1 …
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/route/balancer/hash_table.h"
#include "lib/route/balancer/priority_load.h"
#include "lib/table/objects.h"

namespace millrace::route::balancer {

inline constexpr uint32_t kNoEndpoint = UINT32_MAX;  // no healthy upstream: 503, response flag UH

enum class Health : uint8_t { kHealthy, kDegraded, kUnhealthy };
inline Health configured_health(const table::Endpoint& e) {
  switch (e.state) {
    case table::EndpointState::kHealthy:
      return Health::kHealthy;
    case table::EndpointState::kDegraded:
      return Health::kDegraded;
    default:
      return Health::kUnhealthy;
  }
}

// Endpoints that one scheduler turns over.
struct Group {
  uint32_t first = 0, count = 0;  // of Plan::members
  uint32_t scheduler = 0;         // groups of the same members have the same one
  bool equal_weights = true;
};
struct Groups {
  Group all, healthy, degraded;  // by their configured state
};

struct PlanOptions {  // of table::Cluster
  table::LbPolicy policy = table::LbPolicy::kRoundRobin;
  uint32_t choice_count = 2;  // at least 2
  uint32_t panic_threshold = 0;
  bool fail_on_panic = false, locality_weighted = false, hash_hostname = false, ring_murmur = false;
  uint32_t hash_balance_factor = 0;
  uint64_t ring_min = 1024, ring_max = table::kMostRingSize;
  uint32_t maglev_size = 65'537;
  static PlanOptions of(const table::Cluster& c);
};

class Plan {
 public:
  // `set` outlives the plan.
  static std::shared_ptr<const Plan> make(const table::EndpointSet& set, const PlanOptions& options);

  const table::EndpointSet* set = nullptr;
  PlanOptions options;
  std::vector<uint32_t> members;  // indices into EndpointSet.endpoints
  struct Priority {
    Groups groups;
    uint32_t first_locality = 0, localities = 0;  // of EndpointSet.localities
    HashTable table;
  };
  std::vector<Priority> priorities;  // at least one
  std::vector<Groups> localities;    // where they are weighted
  std::vector<HealthCount> counts;   // by locality, as configured
  std::vector<Group> schedulers;     // one group for each
  bool simple = false;               // one priority, everything healthy, no localities: group 0 is all endpoints in order
  std::span<const uint32_t> of(const Group& g) const { return {members.data() + g.first, g.count}; }
  uint32_t weight(uint32_t endpoint) const { return set->endpoints.at(set, endpoint).weight; }
  size_t hash_bytes() const;  // of the tables

 private:
  Groups group(const std::vector<uint32_t>& all);
  Group add(const std::vector<uint32_t>& list);
  HashTable make_table(const Priority& p, bool panic) const;
};

}  // namespace millrace::route::balancer
