// When clients are told to go elsewhere: the whole gateway's drain, and its failed health (Envoy: POST /drain_listeners?graceful
// and /healthcheck/fail). Decided by an operator, kept by the table loader, passed to each worker as one word
// (WorkerTableSlot::drain).
#pragma once

#include <cstdint>

#include "lib/base/time.h"
#include "lib/table/link.h"

namespace millrace::dataplane {

struct DrainState {
  bool active = false;         // either of the next two; all that an ordinary request looks at
  bool health_failed = false;  // every answer ends its connection; new connections are accepted on
  bool draining = false;       // from `from` on, with a probability that grows to one over `time_s`; then nothing new is accepted
  uint64_t from_ms = 0;        // of CLOCK_MONOTONIC; below 2^40
  uint32_t time_s = 0;         // at most table::SetDrain::kMaxTimeS

  static constexpr uint32_t kTimeBits = 22, kFromBits = 40;
  static_assert(table::SetDrain::kMaxTimeS < 1u << kTimeBits);

  // 0: neither.
  uint64_t word() const {
    if (!active) return 0;
    return from_ms << (kTimeBits + 2) | uint64_t{time_s} << 2 | uint64_t{draining} << 1 | uint64_t{health_failed};
  }
  static DrainState of(uint64_t word) {
    DrainState s;
    s.active = word != 0;
    s.health_failed = (word & 1) != 0;
    s.draining = (word & 2) != 0;
    s.time_s = static_cast<uint32_t>(word >> 2) & ((1u << kTimeBits) - 1);
    s.from_ms = word >> (kTimeBits + 2);
    return s;
  }

  // Whether the answer to a request of `now` is the last of its connection (Envoy: DrainManagerImpl::drainClose, strategy
  // gradual).
  bool closes(base::TimeNs now, uint64_t random) const {
    if (health_failed || !draining) return health_failed;
    const uint64_t whole_ms = uint64_t{time_s} * 1000, gone_ms = elapsed_ms(now);
    return gone_ms >= whole_ms || random % whole_ms < gone_ms;
  }
  // Whether new connections are refused.
  bool refuses(base::TimeNs now) const { return draining && elapsed_ms(now) >= uint64_t{time_s} * 1000; }

 private:
  uint64_t elapsed_ms(base::TimeNs now) const {
    const uint64_t now_ms = now / base::kMillisecond;
    return now_ms > from_ms ? now_ms - from_ms : 0;
  }
};

}  // namespace millrace::dataplane
