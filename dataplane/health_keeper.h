// Outlier detection (Envoy: Upstream::Outlier::DetectorImpl) of a worker: tells what its own requests found, and judges the
// endpoints of the clusters that it owns (slot of the cluster % workers). All results are in words that everybody reads
// (lib/stats/health.h), so that every worker acts on one state.
//
//   exchange ends ─▶ report() ─▶ tally (own word) ─┬─ ring of the mesh ─▶ owner: step() ─▶ judge() ─▶ eject() ─▶ EndpointHealth
//                                                  └───── own cluster ─────────────────────▲              ▲
//                                      interval: tallies of all workers ─▶ success rates ──────────────────┘
//
// It refuses to know what a request is, how endpoints are chosen, and connections.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/health_mesh.h"
#include "dataplane/runtime_snapshot.h"
#include "dataplane/worker_context.h"

namespace millrace::dataplane {

class HealthKeeper {
 public:
  explicit HealthKeeper(WorkerContext& context);

  // A request or connection of the cluster (its slot, its id) had this result at the endpoint.
  void report(table::ObjectId cluster, stats::ScopeSlot cluster_slot, stats::ScopeSlot endpoint, HealthResult result);

  // An active health check of the endpoint, whose cluster this worker owns, succeeded and it counts as healthy: it is ejected no
  // longer (Envoy: successful_active_health_check_uneject_host, true).
  void check_succeeded(stats::ScopeSlot endpoint);

  // The worker has taken other tables.
  void on_tables();
  // When step() has something to do; kNever where no cluster is watched.
  TimeNs due() const { return due_; }
  // Bounded work: reports of other workers, ejections of endpoints that are gone, intervals that are over.
  void step();

 private:
  struct Ejected {
    table::ObjectId cluster;
    stats::ScopeSlot cluster_slot, health_slot, endpoint;
  };
  // An interval that is being evaluated: pass by pass over the endpoints, some of them a turn.
  struct Evaluation {
    enum class Pass : uint8_t { kTally, kVariance, kSuccessRate, kFailurePercentage };
    const ClusterRuntime* cluster = nullptr;
    Pass pass = Pass::kTally;
    uint32_t kind = 0, at = 0;                           // stats::OriginKind, index of the endpoint
    uint32_t rated[2] = {}, counted[2] = {};             // endpoints with enough requests for either detector
    double sum[2] = {}, squares[2] = {}, threshold = 0;  // of success rates, percent
  };
  using Detector = table::OutlierDetector;

  bool owns(stats::ScopeSlot cluster_slot) const { return cluster_slot % ctx_.workers == ctx_.worker; }
  void judge(const HealthReport& r);
  void detected(const ClusterRuntime& c, stats::ScopeSlot endpoint, Detector d);
  void eject(const ClusterRuntime& c, stats::ScopeSlot endpoint, Detector d);
  void uneject_if_due(const ClusterRuntime& c, stats::ScopeSlot endpoint);
  void clear(const Ejected& e);
  void changed(stats::ScopeSlot cluster_slot);
  void recheck();
  void scan();
  void evaluate();
  void tally(const ClusterRuntime& c, stats::ScopeSlot endpoint);
  void next_pass();

  static constexpr uint32_t kReportsPerTurn = 256, kClustersPerTurn = 64, kEndpointsPerTurn = 256;
  static constexpr TimeNs kLookInterval = 50 * base::kMicrosecond;  // at the rings

  WorkerContext& ctx_;
  std::vector<Ejected> ejected_;  // those of clusters that are owned; never grows beyond what was reserved
  Evaluation evaluation_;
  size_t recheck_at_ = SIZE_MAX;  // next of ejected_ to be looked for in the tables
  uint32_t scan_at_ = 0;          // next watched cluster
  TimeNs due_ = base::kNever, next_interval_ = base::kNever, scan_due_ = base::kNever;
};

}  // namespace millrace::dataplane
