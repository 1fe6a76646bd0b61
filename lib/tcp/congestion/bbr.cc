#include "lib/tcp/congestion/bbr.h"

#include <algorithm>
#include <utility>

namespace millrace::tcp {
namespace {

constexpr uint32_t kStartupGain = 277, kDrainGain = 35, kCwndGain = 200;  // per cent
constexpr uint32_t kCycleGain[8] = {125, 75, 100, 100, 100, 100, 100, 100};
constexpr uint32_t kPacingMargin = 99;                  // per cent: draft-ietf-ccwg-bbr 5.6.2
constexpr uint32_t kFullRounds = 3, kFullGrowth = 125;  // STARTUP ends
constexpr uint32_t kFilterRounds = 10;
constexpr uint32_t kLossThreshold = 2, kBeta = 70;  // per cent: BBRLossThresh, BBRBeta
constexpr uint32_t kMinRttFilter_us = 10'000'000, kProbeRttInterval_us = 5'000'000, kProbeRttDuration_us = 200'000;
constexpr uint32_t kMinWindow = 4;  // segments
constexpr uint32_t kFewLosses = 2;  // segments a round that prove nothing, however small the window

int32_t since(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b); }

uint32_t pacing_gain(const BbrState& b) {
  switch (b.phase) {
    case BbrPhase::kStartup:
      return kStartupGain;
    case BbrPhase::kDrain:
      return kDrainGain;
    case BbrPhase::kProbeBw:
      return kCycleGain[b.cycle];
    case BbrPhase::kProbeRtt:
      return 100;
  }
  return 100;
}

// Bytes; 0 while nothing is known.
uint32_t bdp(const BbrState& b) {
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{bbr_bandwidth(b)} * b.min_rtt_us / 1000, 1u << 30));
}

uint32_t floor_of(uint32_t mss) { return kMinWindow * mss; }

// The largest rate that the delivered marks show. Bytes/ms; 0: none.
uint32_t sample_rate(BbrState& b, const BbrAck& a) {
  uint32_t best = 0, gone = 0;
  for (; gone < b.marks && since(b.sent - a.in_flight, b.mark[gone].target) >= 0; ++gone) {
    const BbrState::Mark& m = b.mark[gone];
    const int32_t bytes = since(b.delivered, m.delivered);
    const int32_t interval = std::max(since(m.sent_us, m.first_sent_us), since(a.now_us, m.delivered_us));
    b.first_sent_us = m.sent_us;
    if (bytes <= 0 || interval <= 0 || static_cast<uint32_t>(interval) < b.min_rtt_us) continue;  // too short to mean anything
    best = std::max(best, static_cast<uint32_t>(std::min<uint64_t>(
                              static_cast<uint64_t>(bytes) * 1000 / static_cast<uint32_t>(interval), UINT32_MAX)));
  }
  std::copy(b.mark.begin() + gone, b.mark.begin() + b.marks, b.mark.begin());
  b.marks = static_cast<uint8_t>(b.marks - gone);
  return best;
}

void enter_probe_bw(BbrState& b, uint32_t now_us) {
  b.phase = BbrPhase::kProbeBw;
  b.cycle = 2;  // cruising, until the flows that share the path have settled
  b.cycle_at_us = now_us;
}

void too_much_lost(BbrState& b, uint32_t cwnd, const BbrAck& a) {
  b.inflight_hi = std::max({a.in_flight + static_cast<uint32_t>(std::max(a.delivered, 0)), bdp(b),
                            static_cast<uint32_t>(uint64_t{cwnd} * kBeta / 100), floor_of(a.mss)});
  if (b.phase == BbrPhase::kProbeBw && b.cycle == 0) {
    b.cycle = 1;
    b.cycle_at_us = a.now_us;
  }
}

void on_round(BbrState& b, uint32_t cwnd, const BbrAck& a) {
  b.round_end = b.sent;
  ++b.rounds;
  const bool lossy = b.round_lost > kFewLosses * a.mss &&
                     uint64_t{b.round_lost} * 100 > (uint64_t{b.round_delivered} + b.round_lost) * kLossThreshold;
  if (lossy) too_much_lost(b, cwnd, a);
  if (!b.full && !b.app_limited) {
    if (uint64_t{bbr_bandwidth(b)} * 100 >= uint64_t{b.full_bw} * kFullGrowth) {
      b.full_bw = bbr_bandwidth(b);
      b.full_rounds = 0;
    } else if (++b.full_rounds >= kFullRounds || (lossy && b.round_lost >= 6 * a.mss)) {
      b.full = true;
    }
  }
  if (b.rounds - b.bw_round >= kFilterRounds && b.bw[1] != 0) {
    b.bw_round = b.rounds;
    b.bw[0] = b.bw[1];
    b.bw[1] = 0;
  }
  b.round_delivered = b.round_lost = 0;
  b.conserving = false;
  b.app_limited = false;
  if (b.phase == BbrPhase::kProbeRtt) b.probe_rtt_round = true;
}

void advance_cycle(BbrState& b, const BbrAck& a) {
  const uint32_t in_phase = static_cast<uint32_t>(std::max(since(a.now_us, b.cycle_at_us), 0));
  bool next = in_phase > b.min_rtt_us;
  if (b.cycle == 0)
    next = next &&
           a.in_flight + static_cast<uint32_t>(std::max(a.delivered, 0)) >= static_cast<uint32_t>(uint64_t{bdp(b)} * 125 / 100);
  if (b.cycle == 0 && in_phase > 4 * b.min_rtt_us) next = true;  // the application does not fill it
  if (b.cycle == 1) next = next || a.in_flight <= bdp(b);
  if (!next) return;
  b.cycle = (b.cycle + 1) & 7;
  b.cycle_at_us = a.now_us;
  if (b.cycle == 0 && b.inflight_hi != UINT32_MAX)  // room for the probe: what was too much may not be any more
    b.inflight_hi = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{b.inflight_hi} * 125 / 100, 1u << 30));
}

}  // namespace

uint32_t bbr_bandwidth(const BbrState& b) { return std::max(b.bw[0], b.bw[1]); }

void bbr_start(BbrState& b, uint32_t in_flight, uint32_t srtt_us, uint32_t now_us) {
  b = BbrState{};
  b.active = true;
  b.sent = b.round_end = in_flight;
  b.delivered_us = b.first_sent_us = now_us;
  b.min_rtt_us = srtt_us;
  b.min_rtt_at_us = now_us;
}

void bbr_sent(BbrState& b, uint32_t bytes, uint32_t in_flight, uint32_t cwnd, uint32_t now_us) {
  if (in_flight == 0) b.first_sent_us = b.delivered_us = now_us;
  b.sent += bytes;
  b.unmarked += bytes;
  if (b.marks == BbrState::kMarks || (b.marks > 0 && b.unmarked < cwnd / BbrState::kMarks)) return;
  b.unmarked = 0;
  b.mark[b.marks++] = {b.sent, b.delivered, b.delivered_us, b.first_sent_us, now_us};
}

void bbr_app_limited(BbrState& b) { b.app_limited = true; }

uint32_t bbr_acked(BbrState& b, uint32_t cwnd, const BbrAck& a) {
  const uint32_t delivered = static_cast<uint32_t>(std::max(a.delivered, 0));
  b.delivered += static_cast<uint32_t>(a.delivered);
  b.delivered_us = a.now_us;
  b.round_delivered += delivered;
  b.round_lost += a.lost;

  const uint32_t rate = sample_rate(b, a);
  if (rate > 0 && (!b.app_limited || rate > bbr_bandwidth(b))) b.bw[1] = std::max(b.bw[1], rate);
  const bool rtt_old = since(a.now_us, b.min_rtt_at_us) > static_cast<int32_t>(kProbeRttInterval_us);
  if (a.rtt_us != 0 && (b.min_rtt_us == 0 || a.rtt_us <= b.min_rtt_us || (rtt_old && b.phase == BbrPhase::kProbeRtt) ||
                        since(a.now_us, b.min_rtt_at_us) > static_cast<int32_t>(kMinRttFilter_us))) {
    b.min_rtt_us = a.rtt_us;
    b.min_rtt_at_us = a.now_us;
  }
  if (since(b.sent - a.in_flight, b.round_end) >= 0) on_round(b, cwnd, a);

  if (b.phase == BbrPhase::kStartup && b.full) b.phase = BbrPhase::kDrain;
  if (b.phase == BbrPhase::kDrain && a.in_flight <= bdp(b)) enter_probe_bw(b, a.now_us);
  if (b.phase == BbrPhase::kProbeBw) advance_cycle(b, a);
  if (rtt_old && b.phase != BbrPhase::kProbeRtt && b.full) {
    b.phase = BbrPhase::kProbeRtt;
    b.prior_cwnd = std::max(b.prior_cwnd, cwnd);
    b.probe_rtt_done_us = a.now_us + kProbeRttDuration_us;
    b.probe_rtt_round = false;
    b.round_end = b.sent;
  } else if (b.phase == BbrPhase::kProbeRtt && b.probe_rtt_round && since(a.now_us, b.probe_rtt_done_us) >= 0) {
    b.min_rtt_at_us = a.now_us;
    cwnd = std::max(cwnd, b.prior_cwnd);
    b.prior_cwnd = 0;
    enter_probe_bw(b, a.now_us);
  }

  const uint32_t least = floor_of(a.mss);
  if (b.conserving) {
    cwnd = std::max(cwnd, a.in_flight + delivered);
  } else {
    const uint64_t gain = b.phase == BbrPhase::kStartup || b.phase == BbrPhase::kDrain ? kStartupGain : kCwndGain;
    const uint64_t target = std::max<uint64_t>(uint64_t{bdp(b)} * gain / 100 + 3 * a.mss, least);
    if (b.full) cwnd = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{cwnd} + delivered, target));
    else if (cwnd < target || b.rounds == 0) cwnd += delivered;
  }
  cwnd = std::min(cwnd, b.inflight_hi);
  if (b.phase == BbrPhase::kProbeRtt) cwnd = std::min(cwnd, bdp(b) / 2);
  return std::clamp<uint32_t>(cwnd, least, 1u << 30);
}

uint32_t bbr_lost(BbrState& b, uint32_t cwnd, uint32_t in_flight, uint32_t mss, bool timeout) {
  b.prior_cwnd = std::max(b.prior_cwnd, cwnd);
  b.conserving = true;
  return timeout ? mss : std::max(in_flight + mss, floor_of(mss));
}

uint32_t bbr_recovered(BbrState& b, uint32_t cwnd) {
  b.conserving = false;
  if (b.phase == BbrPhase::kProbeRtt) return cwnd;
  return std::max(cwnd, std::exchange(b.prior_cwnd, 0));
}

uint64_t bbr_pacing_rate(const BbrState& b, uint32_t cwnd, uint32_t srtt_us) {
  const uint32_t bw = bbr_bandwidth(b);
  // Before the first sample: the window, in a round trip.
  if (bw == 0) return std::max<uint64_t>(uint64_t{cwnd} * 1'000'000 / std::max(srtt_us, 1'000u) * kStartupGain / 100, 1);
  return std::max<uint64_t>(uint64_t{bw} * 1000 * pacing_gain(b) / 100 * kPacingMargin / 100, 1);
}

}  // namespace millrace::tcp
