// What the active health checks of one endpoint have found, and when the next one is due (Envoy: HealthCheckerImplBase and its
// ActiveHealthCheckSession). No clock, no I/O: a function of the results, the configuration and random numbers.
//
//   failed ── first success, or healthy_threshold in a row ──▶ healthy
//          ◀── unhealthy_threshold in a row of the network's or of retriable statuses, or one failure of another kind ──
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/table/health_check.h"

namespace millrace::dataplane {

// Envoy's envoy.data.core.v3.HealthCheckFailureType, as far as it makes a difference.
enum class CheckFailure : uint8_t {
  kActive,     // the answer was there and said no: counts at once
  kRetriable,  // it said no with a retriable status: counts towards unhealthy_threshold
  kNetwork,    // there was none (connection, timeout): likewise
};

class CheckState {
 public:
  enum class Transition : uint8_t { kUnchanged, kPending, kChanged };

  bool failed() const { return failed_; }  // FAILED_ACTIVE_HC
  bool first() const { return first_; }    // no result yet

  Transition success(const table::HealthCheck& c) {
    unhealthy_ = 0;
    Transition t = Transition::kUnchanged;
    if (failed_) {
      // The first result of all decides alone, so that a start is fast.
      if (first_ || ++healthy_ == c.healthy_threshold) {
        failed_ = false;
        t = Transition::kChanged;
      } else {
        t = Transition::kPending;
      }
    }
    first_ = false;
    return t;
  }

  Transition failure(const table::HealthCheck& c, CheckFailure kind) {
    healthy_ = 0;
    Transition t = Transition::kUnchanged;
    if (!failed_) {
      if (kind == CheckFailure::kActive || ++unhealthy_ == c.unhealthy_threshold) {
        failed_ = true;
        t = Transition::kChanged;
      } else {
        t = Transition::kPending;
      }
    }
    first_ = false;
    return t;
  }

  // Milliseconds from the result to the next check. `traffic`: the cluster has ever opened a connection for a request. random():
  // a number of 64 bits.
  template <class Random>
  static uint64_t interval_ms(const table::HealthCheck& c, bool success, Transition t, bool traffic, Random&& random) {
    const bool pending = t == Transition::kPending;
    uint32_t base;
    if (!traffic) base = success && !pending ? c.no_traffic_healthy_interval_ms : c.no_traffic_interval_ms;
    else if (success) base = pending ? c.healthy_edge_interval_ms : c.interval_ms;
    else base = pending ? c.unhealthy_edge_interval_ms : c.unhealthy_interval_ms;
    return jittered(c, base, c.interval_jitter_ms, random);
  }
  // Until the first check of an endpoint; 0: at once.
  template <class Random>
  static uint64_t initial_ms(const table::HealthCheck& c, Random&& random) {
    return c.initial_jitter_ms == 0 ? 0 : jittered(c, 0, c.initial_jitter_ms, random);
  }

 private:
  // HealthCheckerImplBase::intervalWithJitter; never less than a millisecond.
  template <class Random>
  static uint64_t jittered(const table::HealthCheck& c, uint64_t base_ms, uint64_t jitter_ms, Random&& random) {
    const uint64_t percent = base_ms * c.interval_jitter_percent / 100;
    uint64_t ms = base_ms;
    if (percent > 0) ms += random() % percent;
    if (jitter_ms > 0) ms += random() % jitter_ms;
    return std::max<uint64_t>(ms, 1);
  }

  uint32_t healthy_ = 0, unhealthy_ = 0;  // results in a row towards the other state
  bool failed_ = true, first_ = true;
};

}  // namespace millrace::dataplane
