// Congestion control behind two small structs: no virtual call, no allocation. cwnd and ssthresh are the TCB's; what an algorithm
// remembers beyond them (`Growth`) is needed in congestion avoidance only, and a connection may have none. Loss detection and
// retransmission (recovery.h) are the same for all; an algorithm only decides how large cwnd is.
//
// All sizes in bytes. `mss` is the sender's maximum segment size (SMSS), options deducted.
#pragma once

#include <cstdint>

#include "lib/base/time.h"
#include "lib/tcp/congestion/bbr.h"
#include "lib/tcp/congestion/cubic.h"
#include "lib/tcp/congestion/hystart.h"
#include "lib/tcp/congestion/reno.h"

namespace millrace::tcp {

enum class CongestionAlgorithm : uint8_t { kCubic, kReno, kBbr };

struct Congestion {
  static constexpr uint32_t kNoThreshold = (1u << 31) - 1;  // beyond every cwnd: slow start until the first loss

  uint32_t cwnd = 0;
  uint32_t ssthresh : 31 = kNoThreshold;
  uint32_t after_timeout : 1 = 0;  // slow start after a retransmission timeout counts less per ACK than the first one
};
static_assert(sizeof(Congestion) == 8);

// What the windows of CUBIC and Reno are made of besides cwnd; zero is a fresh one of either algorithm. BBR's model is not kept
// here: it is larger, and is no part of what a spurious loss gives back.
union Growth {
  CubicState cubic;
  RenoState reno;
  Growth() : cubic() {}
  // Remembers nothing; reno.acked lies in epoch_start.
  bool idle() const { return cubic.epoch_start == 0 && cubic.w_max == 0 && !cubic.hystart.started; }
};

// What an algorithm may know about an ACK that acknowledged `acked` new bytes.
struct AckSample {
  uint32_t acked = 0;
  uint32_t mss = 0;
  uint32_t srtt_us = 0;  // 0: not measured yet
  bool cwnd_limited =
      true;  // false: the application or the peer's window held us back, so cwnd was not tested (RFC 9438 5.8, RFC 7661)
  base::TimeNs now = 0;
  uint32_t rtt_us = 0;                // exact round trip that it measured; 0: none
  uint32_t snd_una = 0, snd_nxt = 0;  // after it
};

// `Growth*` may be null in every call: congestion avoidance then grows as Reno's does, without memory, and a loss halves (Reno)
// or takes 0.7 (CUBIC) without knowing the window before.

// cwnd = initial window of RFC 6928: min(10 * mss, max(2 * mss, 14600)).
void congestion_init(Congestion&, uint32_t mss);
uint32_t initial_window(uint32_t mss);
// The SYN or SYN-ACK had to be repeated: the first window is one segment (RFC 6928 2, RFC 5681 3.1).
void congestion_syn_lost(Congestion&, uint32_t mss);
// Would congestion_on_ack() want a Growth? In congestion avoidance; CUBIC also in a slow start worth watching (RFC 9406).
inline bool congestion_wants_growth(const Congestion& c, CongestionAlgorithm algorithm, uint32_t acked, uint32_t mss,
                                    uint32_t srtt_us) {
  return c.cwnd + uint64_t{acked} > c.ssthresh ||
         (algorithm == CongestionAlgorithm::kCubic && c.ssthresh == Congestion::kNoThreshold &&
          c.cwnd >= HyStart::kMinWindow * mss && srtt_us >= HyStart::kMinRoundTrip_us);
}
// Slow start below ssthresh (RFC 5681 3.1, counting bytes as RFC 3465 with the limit of RFC 9406 4.3), congestion avoidance above
// it.
void congestion_on_ack(Congestion&, CongestionAlgorithm, Growth*, const AckSample&);
// A loss seen through duplicate ACKs or SACK: ssthresh from `flight`, cwnd = ssthresh. The caller inflates where RFC 6582 wants
// it.
void congestion_on_loss(Congestion&, CongestionAlgorithm, Growth*, uint32_t flight, uint32_t mss);
// A retransmission timeout: cwnd = 1 segment. `first`: not a repeated timeout of the same data, which leaves ssthresh alone (RFC
// 5681 3.1).
void congestion_on_timeout(Congestion&, CongestionAlgorithm, Growth*, uint32_t flight, uint32_t mss, bool first);
// Nothing was sent for more than an RTO: cwnd = min(cwnd, initial window) (RFC 5681 4.1).
void congestion_on_idle(Congestion&, CongestionAlgorithm, Growth*, uint32_t mss);

}  // namespace millrace::tcp
