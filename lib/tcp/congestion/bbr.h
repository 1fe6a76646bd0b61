// BBR: cwnd and pacing from a model of the path, its bandwidth and its round trip without a queue, instead of from losses. The
// state machine is version 1's (draft-cardwell-iccrg-bbr-congestion-control-00), with version 3's answer to loss
// (draft-ietf-ccwg-bbr 5.5.10: a round that loses more than 2 % ends probing and bounds what may be in flight) and its shorter,
// shallower probe for the round trip.
//
//   STARTUP ── bandwidth grew less than 25 % in three rounds, or loss ──▶ DRAIN ── no queue left ──▶ PROBE_BW ⇄ PROBE_RTT
//   gain 2.77                                                            gain 0.35               1.25, 0.75, 1 x 6
//
// Bandwidth is measured as draft-cheng-iccrg-delivery-rate-estimation says, at eight places of a window instead of at each
// segment.
#pragma once

#include <array>
#include <cstdint>

#include "lib/base/time.h"

namespace millrace::tcp {

enum class BbrPhase : uint8_t { kStartup, kDrain, kProbeBw, kProbeRtt };

struct BbrState {
  // What was true when something was sent. It counts as delivered when as much has left the path since as was in flight then:
  // the order does not matter, and what was lost has left it too, or rounds would take as much longer as more is lost.
  struct Mark {
    uint32_t target;                   // BbrState::sent, this included
    uint32_t delivered, delivered_us;  // BbrState's then
    uint32_t first_sent_us, sent_us;
  };
  static constexpr uint32_t kMarks = 8;

  bool active = false;  // false: zero, and cwnd is as it was before
  BbrPhase phase = BbrPhase::kStartup;
  uint8_t marks = 0;
  uint8_t cycle = 0;        // of PROBE_BW, 0..7
  uint8_t full_rounds = 0;  // without growth of 25 %
  bool full = false;        // the pipe was filled once
  bool app_limited = false;
  bool conserving = false;       // first round of a recovery: what leaves may be replaced, no more
  bool probe_rtt_round = false;  // a round has passed in PROBE_RTT
  std::array<Mark, kMarks> mark;
  uint32_t delivered = 0, delivered_us = 0, first_sent_us = 0;  // modulo 2^32
  uint32_t sent = 0;                                            // bytes, modulo 2^32; less what is in flight: has left the path
  uint32_t round_end = 0;                                       // a round ends when so much has left the path
  uint32_t unmarked = 0;                                        // bytes sent since the last mark
  uint32_t round_delivered = 0, round_lost = 0;                 // bytes in this round
  uint32_t min_rtt_us = 0, min_rtt_at_us = 0;
  uint32_t cycle_at_us = 0, probe_rtt_done_us = 0;
  uint32_t inflight_hi = UINT32_MAX;  // bytes: more than this was too much
  uint32_t prior_cwnd = 0;            // before a recovery or PROBE_RTT
  uint32_t full_bw = 0;               // bytes/ms
  uint32_t bw[2] = {0, 0};            // bytes/ms: the largest of the last cycle and of this one
  uint32_t rounds = 0, bw_round = 0;  // the filter moves on every ten rounds
  base::TimeNs next_send = 0;         // pacing: not before this
};

struct BbrAck {
  uint32_t now_us = 0;
  int32_t delivered = 0;  // bytes, by this ACK; negative: the sender forgot a report, which will come again
  uint32_t lost = 0;      // bytes
  uint32_t in_flight = 0;
  uint32_t rtt_us = 0;  // exact; 0: none
  uint32_t mss = 0;
};

void bbr_start(BbrState&, uint32_t in_flight, uint32_t srtt_us, uint32_t now_us);
// `bytes` go, for the first time or again, with `in_flight` before them.
void bbr_sent(BbrState&, uint32_t bytes, uint32_t in_flight, uint32_t cwnd, uint32_t now_us);
// The application had no more to send while cwnd would have let it.
void bbr_app_limited(BbrState&);
// Returns the new cwnd.
uint32_t bbr_acked(BbrState&, uint32_t cwnd, const BbrAck&);
// A recovery begins (`timeout`: by the timer) and ends. Both return the new cwnd.
uint32_t bbr_lost(BbrState&, uint32_t cwnd, uint32_t in_flight, uint32_t mss, bool timeout);
uint32_t bbr_recovered(BbrState&, uint32_t cwnd);
// Bytes a second; never 0.
uint64_t bbr_pacing_rate(const BbrState&, uint32_t cwnd, uint32_t srtt_us);
uint32_t bbr_bandwidth(const BbrState&);  // bytes/ms

}  // namespace millrace::tcp
