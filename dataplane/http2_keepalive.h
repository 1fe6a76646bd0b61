// Http2ProtocolOptions.connection_keepalive: PING at intervals, and the connection's end when one is not answered in time. Used
// alike towards clients and endpoints. A decision only: whoever owns the connection sends, arms its timer and closes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/base/time.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

struct KeepaliveOptions {
  uint32_t interval_ms = 0;       // 0: none at intervals
  uint32_t timeout_ms = 0;        // 0: off altogether
  uint32_t idle_interval_ms = 0;  // 0: off; else a stream that opens after so long a silence is preceded by a PING
  uint8_t jitter_percent = 15;    // of the interval, added at random

  void assign(const table::Http2Options& t) {
    interval_ms = t.keepalive_interval_ms;
    timeout_ms = t.keepalive_timeout_ms;
    idle_interval_ms = t.keepalive_idle_interval_ms;
    jitter_percent = t.keepalive_jitter_percent;
  }
  friend bool operator==(const KeepaliveOptions&, const KeepaliveOptions&) = default;
};

class Keepalive {
 public:
  enum class Due : uint8_t { kNothing, kPing, kDead };

  // `random`: any bits. Call when the connection begins.
  void start(const KeepaliveOptions& o, base::TimeNs now, uint64_t random) {
    answer_by_ = base::kNever;
    heard_at_ = now;
    answers_ = 0;
    schedule(o, now, random);
  }
  base::TimeNs deadline() const { return std::min(ping_at_, answer_by_); }
  // At deadline(). kPing: send one, then sent(). kDead: the peer did not answer.
  Due due(base::TimeNs now) const {
    if (now >= answer_by_) return Due::kDead;
    return now >= ping_at_ && answer_by_ == base::kNever ? Due::kPing : Due::kNothing;
  }
  void sent(const KeepaliveOptions& o, base::TimeNs now) {
    answer_by_ = base::time_add(now, o.timeout_ms * base::kMillisecond);
    ping_at_ = base::kNever;
  }
  // Bytes came. `answers`: PING answers counted on the connection so far.
  void heard(const KeepaliveOptions& o, base::TimeNs now, uint64_t answers, uint64_t random) {
    heard_at_ = now;
    if (answers == answers_) return;
    answers_ = answers;
    answer_by_ = base::kNever;
    schedule(o, now, random);
  }
  // A stream is about to open: whether a PING should go before it.
  bool wanted_before_stream(const KeepaliveOptions& o, base::TimeNs now) const {
    return o.idle_interval_ms != 0 && o.timeout_ms != 0 && answer_by_ == base::kNever &&
           now >= base::time_add(heard_at_, o.idle_interval_ms * base::kMillisecond);
  }

 private:
  void schedule(const KeepaliveOptions& o, base::TimeNs now, uint64_t random) {
    ping_at_ = base::kNever;
    if (o.interval_ms == 0 || o.timeout_ms == 0) return;
    const base::TimeNs interval = o.interval_ms * base::kMillisecond;
    const base::TimeNs jitter = interval / 100 * o.jitter_percent;
    ping_at_ = base::time_add(now, interval + (jitter == 0 ? 0 : random % jitter));
  }

  base::TimeNs ping_at_ = base::kNever, answer_by_ = base::kNever, heard_at_ = 0;
  uint64_t answers_ = 0;
};

}  // namespace millrace::dataplane
