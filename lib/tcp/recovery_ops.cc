// The sender's reaction to an ACK: what left the network, what is lost, how large cwnd may be. RFC 5681, 6582 (NewReno), 6675
// (SACK).
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

// Folds the segment's SACK blocks into the scoreboard. Returns bytes reported for the first time. A fast recovery that began
// without a scoreboard stays with RFC 6582.
uint32_t take_sack(Tcb& t, const wire::TcpView& s) {
  if (t.repair == nullptr && (t.recovery == Recovery::kFast || need_repair(t) == nullptr)) return 0;
  uint32_t fresh = 0;
  bool first = true;
  for (const wire::SackBlock& b : s.sack) {
    const bool duplicate_report =
        first && (seq_le(b.right, s.ack) || seq_lt(b.left, t.snd_una));  // RFC 2883 4: D-SACK comes first
    first = false;
    if (!seq_lt(b.left, b.right)) continue;
    if (duplicate_report) {
      ++t.repair->reordering_events;
      continue;
    }
    if (seq_lt(b.left, t.snd_una) || seq_lt(b.left, s.ack) || seq_gt(b.right, t.snd_max)) continue;
    fresh += t.repair->scoreboard.add(b.left, b.right);
  }
  return fresh;
}

// Once a window of data, whatever the signs (RFC 3168 6.1.2).
void reduce_window(Tcb& t, uint32_t flight) {
  congestion_on_loss(t.congestion, config(t).congestion, growth(t), flight, payload_mss(t));
  if (has(t, kFlagEcn)) t.due |= kDueCwr;
}

// The peer saw a mark.
void on_congestion_echo(Tcb& t) {
  if (t.recovery != Recovery::kOpen || t.snd_una == t.snd_max) return;
  reduce_window(t, t.snd_max - t.snd_una);
  t.recovery = Recovery::kCwr;
  t.recover = t.snd_max;
}

void enter_fast_recovery(Tcb& t, TimeNs now) {
  const uint32_t mss = payload_mss(t);
  const bool reduced = t.recovery == Recovery::kCwr;
  const uint32_t flight = t.snd_max - t.snd_una;  // FlightSize of RFC 5681 2
  t.recovery = Recovery::kFast;
  t.recover = t.snd_max;
  if (need_repair(t) != nullptr) t.repair->high_rxt = t.repair->rescue_rxt = t.snd_una;
  t.flags &= static_cast<uint16_t>(~kFlagPartialAck);
  if (!reduced) reduce_window(t, flight);
  if (!sack_recovery(t)) t.congestion.cwnd += kDupThresh * mss;  // RFC 6582 3.2 step 3
  arm_retransmit(t, now);
  mark_output(t, kDueRetransmit);
}

void leave_fast_recovery(Tcb& t) {
  const uint32_t mss = payload_mss(t);
  if (!sack_recovery(t)) {
    // RFC 6582 3.2 step 3, full acknowledgement, option 1: no burst.
    const uint32_t flight = t.snd_max - t.snd_una;
    t.congestion.cwnd = std::min<uint32_t>(t.congestion.ssthresh, std::max(flight, mss) + mss);
  }
  t.recovery = Recovery::kOpen;
  t.dup_acks = 0;
  t.due &= static_cast<uint16_t>(~kDueRetransmit);
}

void on_duplicate(Tcb& t, TimeNs now) {
  const uint32_t mss = payload_mss(t);
  if (t.recovery == Recovery::kTimeout) return;
  if (t.recovery == Recovery::kFast) {
    if (!sack_recovery(t)) t.congestion.cwnd = std::min(t.congestion.cwnd + mss, kMaxSendWindow);  // a segment left the network
    mark_output(t);
    return;
  }
  if (t.dup_acks < 255) ++t.dup_acks;
  const bool lost = t.dup_acks >= kDupThresh || (has_scoreboard(t) && t.repair->scoreboard.is_lost(t.snd_una, mss));
  // RFC 6582 3.2 step 1: duplicates of data sent before the last recovery do not start another one.
  if (lost && (sack_recovery(t) || t.recovery == Recovery::kCwr || seq_gt(t.snd_una, t.recover))) {
    enter_fast_recovery(t, now);
  } else {
    mark_output(t);  // limited transmit (RFC 3042): output may send up to two segments beyond cwnd
  }
}

// New data was acknowledged during recovery.
void on_progress_in_recovery(Tcb& t, uint32_t acked, TimeNs now) {
  const uint32_t mss = payload_mss(t);
  const bool all = seq_ge(t.snd_una, t.recover);
  if (t.recovery != Recovery::kFast) {
    if (all) {
      t.recovery = Recovery::kOpen;
      t.dup_acks = 0;
    }
    return;
  }
  if (all) return leave_fast_recovery(t);
  if (sack_recovery(t)) {
    t.repair->high_rxt = seq_max(t.repair->high_rxt, t.snd_una);
    // The hole at snd_una was repeated before: the timer, not a guess, repeats it again.
  } else {
    // RFC 6582 3.2 step 3, partial acknowledgement: the next hole, cwnd deflated by what was acknowledged.
    t.congestion.cwnd -= std::min(t.congestion.cwnd - std::min(t.congestion.cwnd, mss), acked);
    if (acked >= mss) t.congestion.cwnd += mss;
    t.due |= kDueRetransmit;
  }
  mark_output(t);
}

void measure_rtt(Tcb& t, const wire::TcpView& s, TimeNs now) {
  if (has(t, kFlagTiming)) {
    if (seq_ge(t.snd_una, t.rtt_seq)) {
      t.flags &= static_cast<uint16_t>(~kFlagTiming);
      rtt_sample(t, clock_us(now) - t.rtt_sent_us);
    }
  } else if (has(t, kFlagKarn) && has(t, kFlagTimestamps) && s.timestamps && s.timestamps->ecr != 0) {
    // The timed segment was sent again: Karn's rule forbids the clock, the timestamp knows which copy this answers (RFC
    // 7323 4.1).
    const uint32_t ms = timestamp_clock(t, now) - s.timestamps->ecr;
    if (ms < 600'000) rtt_sample(t, std::max(ms, 1u) * 1000);
  }
}

}  // namespace

uint32_t bytes_in_flight(const Tcb& t) {
  switch (t.recovery) {
    case Recovery::kOpen:
    case Recovery::kCwr:
    case Recovery::kTimeout:
      return t.snd_nxt - t.snd_una - (has_scoreboard(t) ? t.repair->scoreboard.bytes_in(t.snd_una, t.snd_nxt) : 0);
    case Recovery::kFast:
      return sack_recovery(t) ? t.repair->scoreboard.pipe(t.snd_una, t.snd_max, t.repair->high_rxt, payload_mss(t))
                              : t.snd_max - t.snd_una;
  }
  return 0;
}

void grow_window(Tcb& t, uint32_t acked, bool limited, TimeNs now) {
  Growth* g =
      limited && congestion_wants_growth(t.congestion, acked) && need_repair(t) != nullptr ? &t.repair->growth : growth(t);
  congestion_on_ack(t.congestion, config(t).congestion, g,
                    {.acked = acked, .mss = payload_mss(t), .srtt_us = t.srtt_us, .cwnd_limited = limited, .now = now});
}

// Progress: gives back what was borrowed, or, when all is acknowledged and only congestion avoidance still remembers something,
// lets the first idle RTO do it (timers.cc).
void settle_repair(Tcb& t, TimeNs now) {
  return_repair(t);
  if (t.repair == nullptr || outstanding(t) || t.state == State::kTimeWait) return;
  t.flags |= kFlagPersist;
  t.retransmit_at = base::time_add(now, from_us(t.rto_us));
}

uint32_t process_ack(Tcb& t, const wire::TcpView& s, uint32_t payload_length, bool window_changed, TimeNs now) {
  const uint32_t acked = seq_gt(s.ack, t.snd_una) ? s.ack - t.snd_una : 0;
  const bool had_sack = has_scoreboard(t);
  if (has(t, kFlagEcn) && s.has(wire::kTcpEce)) on_congestion_echo(t);
  uint32_t events = 0;

  uint32_t newly_sacked = 0;
  if (has(t, kFlagSack) && !s.sack.empty()) newly_sacked = take_sack(t, s);

  if (acked > 0) {
    const uint32_t flight_before = t.snd_max - t.snd_una;
    const uint32_t data = static_cast<uint32_t>(std::min<uint64_t>(acked, t.tx.bytes()));
    if (data > 0) {
      t.tx.consume(data);
      events |= kEventSendSpace;
    }
    if (acked > data && has(t, kFlagFinSent)) t.flags |= kFlagFinAcked;
    t.snd_una = s.ack;
    if (seq_lt(t.snd_nxt, t.snd_una)) t.snd_nxt = t.snd_una;
    if (had_sack || newly_sacked > 0) t.repair->scoreboard.advance(t.snd_una);
    t.timeouts = 0;
    t.probes = 0;
    measure_rtt(t, s, now);
    if (t.recovery == Recovery::kOpen) {
      t.dup_acks = 0;
      const bool limited = has(t, kFlagCwndLimited) || flight_before >= t.congestion.cwnd;
      grow_window(t, acked, limited, now);
      if (t.tx.empty()) t.flags &= static_cast<uint16_t>(~kFlagCwndLimited);
      if (seq_gt(t.snd_una, t.recover))
        t.recover = t.snd_una - 1;  // keeps RFC 6582's test meaningful when sequence numbers go round
    } else {
      if (t.recovery == Recovery::kTimeout) grow_window(t, acked, true, now);
      on_progress_in_recovery(t, acked, now);
    }
    // RFC 6298 5.2, 5.3; in NewReno recovery only the first partial ACK restarts the timer (RFC 6582 4, "impatient").
    if (t.snd_una == t.snd_max) {
      t.retransmit_at = base::kNever;
    } else if (t.recovery != Recovery::kFast || sack_recovery(t) || !has(t, kFlagPartialAck)) {
      arm_retransmit(t, now);
      if (t.recovery == Recovery::kFast) t.flags |= kFlagPartialAck;
    }
    t.flags &= static_cast<uint16_t>(~kFlagPersist);
    // Progress: the user timeout starts again, or ends.
    if (t.state != State::kFinWait2) t.state_at = outstanding(t) ? base::time_add(now, config(t).user_timeout_ns) : base::kNever;
    if (outstanding(t)) mark_output(t);
    if (t.repair != nullptr) settle_repair(t, now);
  }

  if (t.snd_una == t.snd_max) return events;
  // A duplicate ACK: with SACK one that reports something new (RFC 6675 2), without SACK the five conditions of RFC 5681 2.
  const bool duplicate = has(t, kFlagSack) && (s.sack.empty() || t.repair != nullptr)
                             ? newly_sacked > 0
                             : acked == 0 && s.ack == t.snd_una && payload_length == 0 && !s.has(wire::kTcpSyn | wire::kTcpFin) &&
                                   !window_changed && !has(t, kFlagPersist);
  if (duplicate) on_duplicate(t, now);
  return events;
}

}  // namespace millrace::tcp
