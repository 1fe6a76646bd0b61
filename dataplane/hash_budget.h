// Memory of the tables of hashes of all clusters together: RING_HASH and MAGLEV take much of it for each. Loader thread only.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "lib/base/status.h"
#include "lib/route/balancer/plan.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

// 10,000 clusters of Envoy's 65,537 slots and up to 16 endpoints each take 330 MB.
inline constexpr size_t kMostHashTableBytes = size_t{1} << 30;

class HashBudget {
 public:
  explicit HashBudget(size_t most = kMostHashTableBytes) : used_(std::make_shared<size_t>(0)), most_(most) {}
  // The plan of a cluster; an error when the tables of all clusters would be too large. Old plans count until they are freed.
  base::Result<std::shared_ptr<const route::balancer::Plan>> plan(const table::EndpointSet& set, const table::Cluster& cluster) {
    std::shared_ptr<const route::balancer::Plan> made =
        route::balancer::Plan::make(set, route::balancer::PlanOptions::of(cluster));
    const size_t bytes = made->hash_bytes();
    if (bytes == 0) return made;
    if (bytes > most_ - *used_)
      return base::Error{"cluster " + std::string(table::view(&cluster, cluster.name)) + ": its hash tables, " +
                         std::to_string(bytes) + " bytes, are more than what the others leave of " + std::to_string(most_)};
    *used_ += bytes;
    const route::balancer::Plan* raw = made.get();
    return std::shared_ptr<const route::balancer::Plan>(
        raw, [made = std::move(made), used = used_, bytes](const route::balancer::Plan*) { *used -= bytes; });
  }
  size_t used() const { return *used_; }

 private:
  std::shared_ptr<size_t> used_;  // outlives the plans
  size_t most_;
};

}  // namespace millrace::dataplane
