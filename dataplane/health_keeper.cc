#include "dataplane/health_keeper.h"

#include <algorithm>
#include <cmath>

#include "dataplane/endpoint_health.h"

namespace millrace::dataplane {

using stats::ClusterHealthCounter;
using stats::EndpointHealth;
using stats::OriginKind;

namespace {

constexpr uint32_t bit(OriginKind k) { return 1u << static_cast<uint32_t>(k); }

OriginKind kind_of(HealthResult r) {
  return r == HealthResult::kLocalSuccess || r == HealthResult::kLocalFailure ? OriginKind::kLocal : OriginKind::kExternal;
}
bool succeeded(HealthResult r) { return r == HealthResult::kSuccess || r == HealthResult::kLocalSuccess; }

bool is_ejected(const EndpointHealth& h) { return (h.state.load(std::memory_order_relaxed) & stats::kHealthEjected) != 0; }

ClusterHealthCounter counter(ClusterHealthCounter first, table::OutlierDetector d) {
  return static_cast<ClusterHealthCounter>(static_cast<uint32_t>(first) + static_cast<uint32_t>(d));
}

uint32_t requests(const EndpointHealth& h, uint32_t kind) { return static_cast<uint32_t>(h.interval[kind].read() >> 32); }
double success_rate(const EndpointHealth& h, uint32_t kind) {  // percent
  return 100.0 * static_cast<double>(h.interval[kind].read() & UINT32_MAX) / requests(h, kind);
}

}  // namespace

HealthKeeper::HealthKeeper(WorkerContext& context) : ctx_(context) { ejected_.reserve(context.limits.upstream_endpoints); }

// ---- what requests found
// ------------------------------------------------------------------------------------------------------

void HealthKeeper::report(table::ObjectId cluster, stats::ScopeSlot cluster_slot, stats::ScopeSlot endpoint,
                          HealthResult result) {
  if (endpoint == stats::kOverflowScope) return;  // many share it: nobody's health
  const OriginKind kind = kind_of(result);
  stats::EndpointTally& mine = ctx_.stats.scope(endpoint).tally();
  mine.total[static_cast<uint32_t>(kind)].add();
  if (succeeded(result)) {
    mine.success[static_cast<uint32_t>(kind)].add();
    // A success ends a run of failures: news only where there is one, or one on its way from here.
    if (((mine.told.read() | ctx_.stats.health(endpoint).suspect.read()) & bit(kind)) == 0) return;
    mine.told.set(mine.told.read() & ~uint64_t{bit(kind)});
  } else {
    mine.told.set(mine.told.read() | bit(kind));
  }
  const HealthReport r{cluster, endpoint, result};
  if (owns(cluster_slot) || ctx_.health_mesh == nullptr) return judge(r);
  if (ctx_.health_mesh->push(ctx_.worker, cluster_slot % ctx_.workers, r)) return;
  if (const ClusterRuntime* c = ctx_.tables->cluster(cluster); c != nullptr && c->detects)
    ctx_.stats.scope(c->health_slot)[ClusterHealthCounter::kReportsLost].add();
}

// DetectorHostMonitorImpl::putHttpResponseCode, localOriginFailure, localOriginNoFailure.
void HealthKeeper::judge(const HealthReport& r) {
  const ClusterRuntime* c = ctx_.tables->cluster(r.cluster);
  if (c == nullptr || !c->detects) return;
  const table::OutlierDetection& o = c->object->outlier;
  EndpointHealth& h = ctx_.stats.health(r.endpoint);
  switch (r.result) {
    case HealthResult::kSuccess:
      h.consecutive_5xx.set(0);
      h.consecutive_gateway_failure.set(0);
      h.suspect.set(h.suspect.read() & ~uint64_t{bit(OriginKind::kExternal)});
      return;
    case HealthResult::kLocalSuccess:
      h.consecutive_local_origin_failure.set(0);
      h.suspect.set(h.suspect.read() & ~uint64_t{bit(OriginKind::kLocal)});
      return;
    case HealthResult::kGatewayFailure:
    case HealthResult::kFailure:
      h.suspect.set(h.suspect.read() | bit(OriginKind::kExternal));
      if (r.result == HealthResult::kFailure) {
        h.consecutive_gateway_failure.set(0);
      } else {
        h.consecutive_gateway_failure.add();
        if (h.consecutive_gateway_failure.read() == o.consecutive_gateway_failure)
          detected(*c, r.endpoint, Detector::kConsecutiveGatewayFailure);
      }
      h.consecutive_5xx.add();
      if (h.consecutive_5xx.read() == o.consecutive_5xx) detected(*c, r.endpoint, Detector::kConsecutive5xx);
      return;
    case HealthResult::kLocalFailure:
      h.suspect.set(h.suspect.read() | bit(OriginKind::kLocal));
      h.consecutive_local_origin_failure.add();
      if (h.consecutive_local_origin_failure.read() == o.consecutive_local_origin_failure)
        detected(*c, r.endpoint, Detector::kConsecutiveLocalOriginFailure);
      return;
  }
}

// DetectorImpl::onConsecutiveErrorWorker.
void HealthKeeper::detected(const ClusterRuntime& c, stats::ScopeSlot endpoint, Detector d) {
  if (std::find(c.endpoint_slots.begin(), c.endpoint_slots.end(), endpoint) == c.endpoint_slots.end()) return;  // gone meanwhile
  EndpointHealth& h = ctx_.stats.health(endpoint);
  if (is_ejected(h)) return;
  stats::ScopeBlock& counters = ctx_.stats.scope(c.health_slot);
  counters[counter(ClusterHealthCounter::kDetectedConsecutive5xx, d)].add();
  eject(c, endpoint, d);
  // The next run of as many is another one.
  if (d == Detector::kConsecutive5xx) {
    counters[ClusterHealthCounter::kEjectionsConsecutive5xx].add();
    h.consecutive_5xx.set(0);
  } else if (d == Detector::kConsecutiveGatewayFailure) {
    h.consecutive_gateway_failure.set(0);
  } else {
    h.consecutive_local_origin_failure.set(0);
  }
}

// ---- ejections
// ----------------------------------------------------------------------------------------------------------------

// DetectorImpl::ejectHost.
void HealthKeeper::eject(const ClusterRuntime& c, stats::ScopeSlot endpoint, Detector d) {
  const table::OutlierDetection& o = c.object->outlier;
  stats::ScopeBlock& counters = ctx_.stats.scope(c.health_slot);
  const uint64_t active = counters[ClusterHealthCounter::kEjectionsActive].read();  // all of them are this worker's
  const bool fits = (active + 1) * 100 <= uint64_t{o.max_ejection_percent} * c.endpoint_slots.size();
  if (!(fits || (o.always_eject_one_host != 0 && active == 0)) || ejected_.size() == ejected_.capacity()) {
    counters[ClusterHealthCounter::kEjectionsOverflow].add();
    return;
  }
  if (d == Detector::kConsecutive5xx || d == Detector::kSuccessRate) counters[ClusterHealthCounter::kEjectionsTotal].add();
  if (ctx_.random.next() % 100 >= o.enforcing[static_cast<uint32_t>(d)]) return;
  counters[ClusterHealthCounter::kEjectionsActive].add();
  counters[ClusterHealthCounter::kEjectionsEnforcedTotal].add();
  counters[counter(ClusterHealthCounter::kEnforcedConsecutive5xx, d)].add();
  EndpointHealth& h = ctx_.stats.health(endpoint);
  if (h.backoff.read() * o.base_ejection_ms < uint64_t{o.max_ejection_ms} + o.base_ejection_ms) h.backoff.add();
  uint64_t ms = std::min<uint64_t>(h.backoff.read() * o.base_ejection_ms, o.max_ejection_ms);
  if (o.max_ejection_jitter_ms != 0) ms += ctx_.random.next() % (uint64_t{o.max_ejection_jitter_ms} + 1);
  h.detector.set(static_cast<uint64_t>(d));
  h.ejected_at_ns.set(ctx_.now);
  h.ejected_until_ns.set(ctx_.now + ms * base::kMillisecond);
  h.ejections.add();
  h.state.store(h.state.load(std::memory_order_relaxed) | stats::kHealthEjected, std::memory_order_relaxed);
  changed(c.slot);
  ejected_.push_back({c.id, c.slot, c.health_slot, endpoint});
}

void HealthKeeper::changed(stats::ScopeSlot cluster_slot) { health_changed(ctx_.stats, cluster_slot); }

// DetectorImpl::unejectHost.
void HealthKeeper::clear(const Ejected& e) {
  EndpointHealth& h = ctx_.stats.health(e.endpoint);
  h.state.store(h.state.load(std::memory_order_relaxed) & ~uint32_t{stats::kHealthEjected}, std::memory_order_relaxed);
  h.consecutive_5xx.set(0);
  h.consecutive_gateway_failure.set(0);
  h.consecutive_local_origin_failure.set(0);
  h.suspect.set(0);
  ctx_.stats.scope(e.health_slot)[ClusterHealthCounter::kEjectionsActive].sub();
  changed(e.cluster_slot);
}

void HealthKeeper::check_succeeded(stats::ScopeSlot endpoint) {
  if (!is_ejected(ctx_.stats.health(endpoint))) return;
  const auto e = std::find_if(ejected_.begin(), ejected_.end(), [&](const Ejected& x) { return x.endpoint == endpoint; });
  if (e == ejected_.end()) return;
  clear(*e);
  *e = ejected_.back();
  ejected_.pop_back();
}

// DetectorImpl::checkHostForUneject.
void HealthKeeper::uneject_if_due(const ClusterRuntime& c, stats::ScopeSlot endpoint) {
  EndpointHealth& h = ctx_.stats.health(endpoint);
  if (!is_ejected(h)) {
    if (h.backoff.read() != 0) h.backoff.sub();
    return;
  }
  if (ctx_.now < h.ejected_until_ns.read()) return;
  const auto e = std::find_if(ejected_.begin(), ejected_.end(), [&](const Ejected& x) { return x.endpoint == endpoint; });
  if (e == ejected_.end()) return;
  clear({c.id, c.slot, e->health_slot, endpoint});
  *e = ejected_.back();
  ejected_.pop_back();
}

// Ejected endpoints that the tables do not have any more, or whose cluster is not watched any more, are as fresh when they come
// back (Envoy: their monitor goes with the host).
void HealthKeeper::recheck() {
  if (recheck_at_ >= ejected_.size()) {
    recheck_at_ = SIZE_MAX;
    return;
  }
  const Ejected e = ejected_[recheck_at_];
  const ClusterRuntime* c = ctx_.tables->cluster(e.cluster);
  if (c != nullptr && c->detects &&
      std::find(c->endpoint_slots.begin(), c->endpoint_slots.end(), e.endpoint) != c->endpoint_slots.end()) {
    ++recheck_at_;
    return;
  }
  clear(e);
  ctx_.stats.health(e.endpoint).backoff.set(0);
  ejected_[recheck_at_] = ejected_.back();
  ejected_.pop_back();
}

// ---- intervals
// ----------------------------------------------------------------------------------------------------------------

void HealthKeeper::on_tables() {
  evaluation_ = {};  // its cluster may be gone; what was counted so far counts for nothing
  recheck_at_ = ejected_.empty() ? SIZE_MAX : 0;
  scan_at_ = 0;
  next_interval_ = base::kNever;
  const bool idle = ctx_.tables->watched_clusters().empty();
  scan_due_ = idle ? base::kNever : ctx_.now;
  due_ = idle && ejected_.empty() ? base::kNever : ctx_.now;
}

void HealthKeeper::step() {
  if (ctx_.now < due_) return;
  if (HealthMesh* mesh = ctx_.health_mesh; mesh != nullptr) {
    HealthReport r;
    uint32_t left = kReportsPerTurn;
    for (uint32_t w = 0; w < mesh->workers(); ++w)
      while (w != ctx_.worker && left != 0 && mesh->pop(w, ctx_.worker, &r)) {
        judge(r);
        --left;
      }
  }
  if (recheck_at_ != SIZE_MAX) recheck();
  if (evaluation_.cluster != nullptr) evaluate();
  else if (ctx_.now >= scan_due_) scan();
  const bool busy = recheck_at_ != SIZE_MAX || evaluation_.cluster != nullptr;
  due_ = busy ? ctx_.now : scan_due_;
  if (ctx_.health_mesh != nullptr && scan_due_ != base::kNever) due_ = std::min(due_, ctx_.now + kLookInterval);
}

// Looks for the next cluster of ours whose interval is over.
void HealthKeeper::scan() {
  const std::span<const ClusterRuntime* const> watched = ctx_.tables->watched_clusters();
  for (uint32_t i = 0; i < kClustersPerTurn && scan_at_ < watched.size(); ++i, ++scan_at_) {
    const ClusterRuntime& c = *watched[scan_at_];
    if (!c.detects || !owns(c.slot)) continue;
    const TimeNs interval = c.object->outlier.interval_ms * base::kMillisecond;
    stats::Counter& end = ctx_.stats.health(c.slot).ejected_until_ns;  // of a cluster: when its interval ends
    if (end.read() == 0 || end.read() > ctx_.now + interval) end.set(ctx_.now + interval);
    if (ctx_.now >= end.read()) {
      end.set(ctx_.now + interval);
      evaluation_ = {};
      evaluation_.cluster = &c;
      return evaluate();  // and this cluster again, for its next interval
    }
    next_interval_ = std::min(next_interval_, end.read());
  }
  if (scan_at_ < watched.size()) {
    scan_due_ = ctx_.now;
    return;
  }
  scan_at_ = 0;
  scan_due_ = std::exchange(next_interval_, base::kNever);
  // None of the clusters is ours: only the tables can change that.
  if (scan_due_ == base::kNever) scan_due_ = base::time_add(ctx_.now, base::kSecond);
}

// The requests of the interval that ends now, of all workers.
void HealthKeeper::tally(const ClusterRuntime& c, stats::ScopeSlot endpoint) {
  const table::OutlierDetection& o = c.object->outlier;
  EndpointHealth& h = ctx_.stats.health(endpoint);
  uneject_if_due(c, endpoint);
  for (uint32_t kind = 0; kind < 2; ++kind) {
    uint64_t total = 0, success = 0;
    const uint32_t workers = ctx_.health_mesh == nullptr ? 1 : ctx_.health_mesh->workers();
    for (uint32_t w = 0; w < workers; ++w) {
      const stats::EndpointTally& t =
          ctx_.health_mesh == nullptr ? ctx_.stats.scope(endpoint).tally() : ctx_.health_mesh->tally(w, endpoint);
      // Successes first: another worker may add between the two, and there must not be more of them than requests.
      success += t.success[kind].read();
      total += t.total[kind].read();
    }
    const uint64_t requests_now = total - h.seen_total[kind].read();
    const uint64_t successes_now = std::min(success - h.seen_success[kind].read(), requests_now);
    h.seen_total[kind].set(total);
    h.seen_success[kind].set(success);
    h.interval[kind].set(std::min<uint64_t>(requests_now, UINT32_MAX) << 32 | std::min<uint64_t>(successes_now, UINT32_MAX));
    if (is_ejected(h) || requests_now == 0) continue;
    if (requests_now >= o.success_rate_request_volume) {
      ++evaluation_.rated[kind];
      evaluation_.sum[kind] += success_rate(h, kind);
    }
    if (requests_now >= o.failure_percentage_request_volume) ++evaluation_.counted[kind];
  }
}

// DetectorImpl::processSuccessRateEjections.
void HealthKeeper::evaluate() {
  Evaluation& v = evaluation_;
  const ClusterRuntime& c = *v.cluster;
  const table::OutlierDetection& o = c.object->outlier;
  stats::ScopeBlock& counters = ctx_.stats.scope(c.health_slot);
  const uint32_t n = static_cast<uint32_t>(c.endpoint_slots.size());
  for (uint32_t budget = kEndpointsPerTurn; v.cluster != nullptr;) {
    if (v.at == n) {
      next_pass();
      continue;
    }
    if (budget-- == 0) return;
    const stats::ScopeSlot endpoint = c.endpoint_slots[v.at++];
    if (endpoint == stats::kOverflowScope) continue;
    if (v.pass == Evaluation::Pass::kTally) {
      tally(c, endpoint);
      continue;
    }
    const EndpointHealth& h = ctx_.stats.health(endpoint);
    const bool local = v.kind == static_cast<uint32_t>(OriginKind::kLocal);
    if (is_ejected(h) || requests(h, v.kind) == 0) continue;
    const double rate = success_rate(h, v.kind);
    const bool rated = requests(h, v.kind) >= o.success_rate_request_volume;
    Detector d;
    if (v.pass == Evaluation::Pass::kFailurePercentage) {
      if (requests(h, v.kind) < o.failure_percentage_request_volume || 100.0 - rate < o.failure_percentage_threshold) continue;
      d = local ? Detector::kFailurePercentageLocalOrigin : Detector::kFailurePercentage;
    } else {
      if (!rated) continue;
      const double mean = v.sum[v.kind] / v.rated[v.kind];
      if (v.pass == Evaluation::Pass::kVariance) {
        v.squares[v.kind] += (rate - mean) * (rate - mean);
        continue;
      }
      if (rate >= v.threshold) continue;
      d = local ? Detector::kLocalOriginSuccessRate : Detector::kSuccessRate;
      counters[ClusterHealthCounter::kEjectionsSuccessRate].add();
    }
    counters[counter(ClusterHealthCounter::kDetectedConsecutive5xx, d)].add();
    eject(c, endpoint, d);
  }
}

// Behind the last endpoint: the pass that comes next and has something to do, or the end.
void HealthKeeper::next_pass() {
  using Pass = Evaluation::Pass;
  Evaluation& v = evaluation_;
  const table::OutlierDetection& o = v.cluster->object->outlier;
  v.at = 0;
  const auto begin_kind = [&] {
    for (; v.kind < 2; ++v.kind) {
      if (v.rated[v.kind] != 0 && v.rated[v.kind] >= o.success_rate_minimum_hosts) return v.pass = Pass::kVariance, true;
      if (v.counted[v.kind] != 0 && v.counted[v.kind] >= o.failure_percentage_minimum_hosts)
        return v.pass = Pass::kFailurePercentage, true;
    }
    return false;
  };
  switch (v.pass) {
    case Pass::kTally:
      if (begin_kind()) return;
      break;
    case Pass::kVariance:
      v.threshold =
          v.sum[v.kind] / v.rated[v.kind] - o.success_rate_stdev_factor / 1000.0 * std::sqrt(v.squares[v.kind] / v.rated[v.kind]);
      v.pass = Pass::kSuccessRate;
      return;
    case Pass::kSuccessRate:
      if (v.counted[v.kind] != 0 && v.counted[v.kind] >= o.failure_percentage_minimum_hosts) {
        v.pass = Pass::kFailurePercentage;
        return;
      }
      [[fallthrough]];
    case Pass::kFailurePercentage:
      ++v.kind;
      if (begin_kind()) return;
      break;
  }
  v.cluster = nullptr;
}

}  // namespace millrace::dataplane
