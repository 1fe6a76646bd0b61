// The sender's reaction to an ACK: what left the network, what is lost, how large cwnd may be. With SACK and a scoreboard: RFC
// 6675 and 8985 (RACK-TLP), proportional rate reduction (RFC 6937), spurious retransmissions taken back (RFC 3522, 4015, 5682).
// Without: RFC 5681 and 6582 (NewReno).
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

// What one ACK said, as far as later steps ask.
struct Ack {
  uint32_t acked = 0;  // bytes of sequence space that snd_una moves by
  // What the peer is known to have more than before. Less, when the scoreboard had to forget reports that will come again.
  int32_t gained = 0;
  uint32_t newly_sacked = 0;    // bytes reported for the first time
  bool duplicate_seen = false;  // a D-SACK (RFC 2883)
  wire::SackBlock duplicate;    // that
  Delivery delivery;
};

// Ranges sent within an eighth of a round trip may become one: never more than that is their time wrong.
uint32_t grain_shift(const Tcb& t) { return t.srtt_us < 16 ? 1 : 31u - static_cast<uint32_t>(__builtin_clz(t.srtt_us / 8)); }

// Folds the segment's SACK blocks into the scoreboard.
void take_sack(Tcb& t, const wire::TcpView& s, Ack& a) {
  Repair& r = *t.repair;
  bool first = true;
  for (const wire::SackBlock& b : s.sack) {
    const bool duplicate_report =
        first && (seq_le(b.right, s.ack) || seq_lt(b.left, t.snd_una));  // RFC 2883 4: D-SACK comes first
    if (first && !duplicate_report && s.sack.size() > 1 && seq_ge(b.left, s.sack[1].left) && seq_le(b.right, s.sack[1].right)) {
      first = false;  // likewise, of what lies above the ACK: the second block holds it
      if (seq_lt(b.left, b.right)) {
        tally(t, &RecoveryCounts::duplicates_above);
        ++r.reordering_events;
        a.duplicate_seen = true;
        a.duplicate = b;
      }
      continue;
    }
    first = false;
    if (!seq_lt(b.left, b.right)) continue;
    if (duplicate_report) {
      tally(t, &RecoveryCounts::duplicates_below);
      ++r.reordering_events;
      a.duplicate_seen = true;
      a.duplicate = b;
      continue;
    }
    if (seq_lt(b.left, t.snd_una) || seq_lt(b.left, s.ack) || seq_gt(b.right, t.snd_max)) continue;
    const uint32_t before = r.scoreboard.bytes();
    r.scoreboard.report(b.left, b.right, [&](const Scoreboard::Range& range) { rack_delivered(r.rack, a.delivery, range); });
    if (r.scoreboard.bytes() > before) a.newly_sacked += r.scoreboard.bytes() - before;
  }
}

// Once a window of data, whatever the signs (RFC 3168 6.1.2). ACKs come in bursts, and output follows behind the burst: of what
// the ACKs before this one have let go nothing is sent yet, and the flight is smaller than the path's share. Where cwnd is what
// holds output back it stands for it (RFC 9438 4.6; cwnd grows only then).
void reduce_window(Tcb& t, uint32_t flight) {
  if (has(t, kFlagCwndLimited)) flight = std::max<uint32_t>(flight, t.congestion.cwnd);
  if (bbr_rules(t)) {
    t.congestion.cwnd = bbr_lost(t.repair->bbr, t.congestion.cwnd, bytes_in_flight(t), payload_mss(t), false);
    return;
  }
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
  need_repair(t);
  if (!reduced) {
    remember_window(t);
    reduce_window(t, flight);
  }
  t.recovery = Recovery::kFast;
  t.recover = t.snd_max;
  t.flags &= static_cast<uint16_t>(~kFlagPartialAck);
  if (sack_recovery(t)) {
    adopt_scoreboard(t);
    t.repair->prr = Prr{.flight = flight - t.repair->scoreboard.bytes()};
    mark_output(t);
  } else {
    tally(t, &RecoveryCounts::reno_recoveries);
    t.congestion.cwnd += kDupThresh * mss;  // RFC 6582 3.2 step 3
    mark_output(t, kDueRetransmit);
  }
  arm_retransmit(t, now);
}

void leave_fast_recovery(Tcb& t) {
  const uint32_t mss = payload_mss(t);
  if (sack_recovery(t)) {
    t.congestion.cwnd = bbr_rules(t) ? bbr_recovered(t.repair->bbr, t.congestion.cwnd) : t.congestion.ssthresh;  // RFC 6937 3
    rack_recovered(t.repair->rack);
  } else {
    // RFC 6582 3.2 step 3, full acknowledgement, option 1: no burst.
    const uint32_t flight = t.snd_max - t.snd_una;
    t.congestion.cwnd = std::min<uint32_t>(t.congestion.ssthresh, std::max(flight, mss) + mss);
  }
  t.recovery = Recovery::kOpen;
  t.dup_acks = 0;
  t.due &= static_cast<uint16_t>(~kDueRetransmit);
}

void leave_timeout(Tcb& t) {
  t.recovery = Recovery::kOpen;
  t.dup_acks = 0;
  if (t.repair == nullptr) return;
  t.repair->frto = Frto::kOff;
  if (bbr_rules(t)) t.congestion.cwnd = bbr_recovered(t.repair->bbr, t.congestion.cwnd);
  rack_recovered(t.repair->rack);
}

// RFC 4015 4: there was no loss. What is in flight flies; cwnd and ssthresh are what they were, without a burst.
void take_back(Tcb& t) {
  Repair& r = *t.repair;
  r.undo.valid = false;
  r.scoreboard.find_again();
  r.frto = Frto::kOff;
  const uint32_t flight = t.snd_max - t.snd_una, least = t.congestion.cwnd;
  t.congestion = r.undo.before;
  r.growth = r.undo.growth;
  if (t.congestion.ssthresh < t.congestion.cwnd) t.congestion.ssthresh = t.congestion.cwnd;
  t.congestion.cwnd = std::max(least, std::min(t.congestion.cwnd, flight + initial_window(payload_mss(t))));
  if (bbr_rules(t)) t.congestion.cwnd = bbr_recovered(r.bbr, t.congestion.cwnd);
  t.recovery = Recovery::kOpen;
  t.dup_acks = 0;
  t.due &= static_cast<uint16_t>(~kDueRetransmit);
  mark_output(t);
}

// Was it a mistake to send anything again? True: taken back.
bool spurious(Tcb& t, const Ack& a) {
  Repair& r = *t.repair;
  if (!r.undo.valid) return false;
  // RFC 3708: every byte that was sent again has been received twice.
  if (a.duplicate_seen) {
    const uint32_t bytes = a.duplicate.right - a.duplicate.left;
    if (r.undo.repeated > 0 && seq_le(a.duplicate.right, t.snd_max)) {
      r.undo.repeated -= std::min(r.undo.repeated, bytes);
      if (r.undo.repeated == 0) {
        tally(t, &RecoveryCounts::undone_by_duplicates);
        take_back(t);
        return true;
      }
    }
  }
  if (undisturbed(t) || a.acked == 0 || r.undo.repeated == 0) return false;
  // RFC 3522: the ACK that gets us on echoes a timestamp from before the retransmission.
  const uint32_t since = static_cast<uint32_t>(std::max(sent_since(a.delivery.now_us, r.undo.repeated_us), 0));
  if (a.delivery.echo_age_us == Delivery::kNoEcho || a.delivery.echo_age_us <= since + 1000) return false;
  tally(t, t.recovery == Recovery::kTimeout ? &RecoveryCounts::undone_timeouts : &RecoveryCounts::undone_by_echoes);
  take_back(t);
  return true;
}

// RFC 5682 3.1, steps 2 and 3. True: the timeout was spurious and is taken back.
bool forward_recovery(Tcb& t, const Ack& a) {
  Repair& r = *t.repair;
  if (r.frto == Frto::kOff || a.delivery.bytes == 0) return false;
  if (r.frto == Frto::kFirst) {
    const uint32_t right = t.snd_una + t.snd_wnd;
    const bool can_go_on = seq_lt(t.snd_max, snd_end(t)) && seq_lt(t.snd_max, right);
    r.frto = a.acked > 0 && seq_lt(t.snd_una, t.recover) && can_go_on ? Frto::kSecond : Frto::kOff;
    return false;
  }
  r.frto = Frto::kOff;
  if (!a.delivery.original || !r.undo.valid) return false;
  tally(t, &RecoveryCounts::spurious_timeouts);
  take_back(t);
  return true;
}

// RFC 8985 7.4: what became of the tail loss probe.
void probe_answered(Tcb& t, const wire::TcpView& s, const Ack& a) {
  Repair& r = *t.repair;
  if (!r.probing || seq_lt(s.ack, r.probe_end)) return;
  const bool twice = a.duplicate_seen && seq_le(a.duplicate.right, r.probe_end);
  if (!r.probe_repeats || twice || (a.acked == 0 && s.sack.empty())) {
    r.probing = false;
  } else if (seq_gt(s.ack, r.probe_end)) {
    // It repaired a loss that nobody saw: cwnd answers for that.
    r.probing = false;
    tally(t, &RecoveryCounts::probes_repaired);
    if (undisturbed(t)) reduce_window(t, t.snd_max - t.snd_una + a.acked);
  }
}

// RFC 8985 6.2 step 5: what is lost by now. Returns how many bytes.
uint32_t detect(Tcb& t, uint32_t now_us, TimeNs now) {
  Repair& r = *t.repair;
  r.reorder_at = base::kNever;
  if (!has_scoreboard(t)) return 0;
  const bool certain = !undisturbed(t) || t.dup_acks >= kDupThresh || r.scoreboard.reported_ranges() >= kDupThresh ||
                       r.scoreboard.bytes() > (kDupThresh - 1) * payload_mss(t);
  uint32_t wait_us = 0;
  const uint32_t repeated = r.scoreboard.repeated();
  const uint32_t lost =
      rack_detect(r.scoreboard, r.rack, rack_window(r.rack, t.reordering_seen, certain, t.srtt_us), now_us, wait_us);
  if (r.scoreboard.repeated() < repeated) tally(t, &RecoveryCounts::lost_again);
  if (wait_us > 0) r.reorder_at = base::time_add(now, from_us(wait_us));
  if (r.scoreboard.lost() == 0) {
    r.path.repeating = false;
  } else if (undisturbed(t) && !path_probe_lost(t)) {
    enter_fast_recovery(t, now);
  }
  if (lost > 0) mark_output(t);
  return lost;
}

// cwnd by BBR's model.
void follow_model(Tcb& t, const Ack& a, uint32_t lost) {
  Repair& r = *t.repair;
  t.congestion.cwnd = bbr_acked(r.bbr, t.congestion.cwnd,
                                {.now_us = a.delivery.now_us,
                                 .delivered = a.gained,
                                 .lost = lost,
                                 .in_flight = r.scoreboard.in_flight(),
                                 .rtt_us = a.delivery.rtt_us,
                                 .mss = payload_mss(t)});
}

// All that an ACK means to a sender with a scoreboard.
void recover_by_scoreboard(Tcb& t, const wire::TcpView& s, const Ack& a, TimeNs now) {
  Repair& r = *t.repair;
  rack_highest(r.rack, seq_max(t.snd_una, r.scoreboard.empty() ? t.snd_una : r.scoreboard.highest()));
  if (a.delivery.reordered) {
    t.reordering_seen = true;
    tally(t, &RecoveryCounts::reorderings);
  }
  if (a.duplicate_seen) rack_dsack(r.rack, t.snd_una, t.snd_max);
  probe_answered(t, s, a);
  if (spurious(t, a) || forward_recovery(t, a)) {
    arm_retransmit(t, now);
    if (t.snd_una == t.snd_max) t.retransmit_at = base::kNever;
  }
  if (!undisturbed(t) && seq_ge(t.snd_una, t.recover)) {
    if (t.recovery == Recovery::kFast) leave_fast_recovery(t);
    else leave_timeout(t);
  }
  if (a.newly_sacked > 0 && undisturbed(t) && t.dup_acks < 255) ++t.dup_acks;
  const bool before = undisturbed(t);
  const uint32_t lost = t.snd_una == t.snd_max ? 0 : detect(t, a.delivery.now_us, now);
  if (before && !undisturbed(t)) r.prr.flight += a.delivery.bytes;  // what this ACK delivered was outstanding before it
  if (t.snd_una == t.snd_max) r.reorder_at = base::kNever;
  if (bbr_rules(t)) {
    follow_model(t, a, lost);
  } else if (t.recovery == Recovery::kFast && a.gained < 0) {
    r.prr.delivered -= std::min(r.prr.delivered, static_cast<uint32_t>(-a.gained));
  } else if (t.recovery == Recovery::kFast && a.gained > 0) {
    t.congestion.cwnd = prr_cwnd(r.prr, t.congestion.ssthresh, r.scoreboard.in_flight(), static_cast<uint32_t>(a.gained),
                                 a.acked > 0 && lost == 0, payload_mss(t));
  }
  if (a.delivery.bytes > 0) mark_output(t);
}

// --- without a scoreboard

void on_duplicate(Tcb& t, TimeNs now) {
  const uint32_t mss = payload_mss(t);
  if (t.recovery == Recovery::kTimeout) return;
  if (t.recovery == Recovery::kFast) {
    t.congestion.cwnd = std::min(t.congestion.cwnd + mss, kMaxSendWindow);  // a segment left the network
    mark_output(t);
    return;
  }
  if (t.dup_acks < 255) ++t.dup_acks;
  // RFC 6582 3.2 step 1: duplicates of data sent before the last recovery do not start another one.
  if (t.dup_acks >= kDupThresh && (t.recovery == Recovery::kCwr || seq_gt(t.snd_una, t.recover))) {
    enter_fast_recovery(t, now);
  } else {
    mark_output(t);  // limited transmit (RFC 3042): output may send up to two segments beyond cwnd
  }
}

// New data was acknowledged during recovery.
void on_progress_in_recovery(Tcb& t, uint32_t acked) {
  const uint32_t mss = payload_mss(t);
  if (seq_ge(t.snd_una, t.recover)) return t.recovery == Recovery::kFast ? leave_fast_recovery(t) : leave_timeout(t);
  if (t.recovery != Recovery::kFast) return;
  // RFC 6582 3.2 step 3, partial acknowledgement: the next hole, cwnd deflated by what was acknowledged.
  t.congestion.cwnd -= std::min(t.congestion.cwnd - std::min(t.congestion.cwnd, mss), acked);
  if (acked >= mss) t.congestion.cwnd += mss;
  mark_output(t, kDueRetransmit);
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

void sync_scoreboard(Tcb& t) {
  Scoreboard& b = t.repair->scoreboard;
  if (seq_lt(b.una(), t.snd_una)) {
    if (seq_gt(t.snd_una, b.max())) b.extend(t.snd_una, t.last_sent_ms * 1000u, 0);
    b.advance(t.snd_una, [](const Scoreboard::Range&) {});
  }
  if (seq_lt(b.max(), t.snd_max)) b.extend(t.snd_max, t.last_sent_ms * 1000u, grain_shift(t));
}

void adopt_scoreboard(Tcb& t) {
  if (!seq_lt(t.snd_nxt, t.snd_max)) return;
  t.repair->scoreboard.lose_from(t.snd_nxt);
  t.snd_nxt = t.snd_max;
}

void note_sent_in_repair(Tcb& t, uint32_t seq, uint32_t space, TimeNs now) {
  Repair& r = *t.repair;
  sync_scoreboard(t);
  const uint32_t end = seq + space, now_us = clock_us(now);
  if (seq_lt(seq, t.snd_max)) {
    r.scoreboard.repeat(seq, seq_min(end, t.snd_max), now_us, grain_shift(t));
    if (seq_lt(seq, r.path.right) && seq_gt(end, r.path.left)) forget_path_probe(t);  // whose ACK that will be, nobody knows
    if (r.undo.valid && !undisturbed(t)) {
      if (r.undo.repeated == 0) r.undo.repeated_us = now_us;
      r.undo.repeated += space;
    }
  }
  if (seq_gt(end, t.snd_max)) r.scoreboard.extend(end, now_us, grain_shift(t));
  if (t.recovery == Recovery::kFast) r.prr.out += space;
  if (!r.bbr.active) return;
  bbr_sent(r.bbr, space, r.scoreboard.in_flight() - std::min(space, r.scoreboard.in_flight()), t.congestion.cwnd, now_us);
  if (seq_gt(end, t.snd_max) && end == snd_end(t)) bbr_app_limited(r.bbr);
  // What timers were late by, up to a millisecond, is made up for.
  const TimeNs from = std::max(r.bbr.next_send, now - std::min<TimeNs>(now, base::kMillisecond));
  r.bbr.next_send = from + uint64_t{space} * base::kSecond / bbr_pacing_rate(r.bbr, t.congestion.cwnd, t.srtt_us);
}

void remember_window(Tcb& t) {
  if (t.repair == nullptr) return;
  t.repair->undo = {.before = t.congestion, .growth = t.repair->growth, .valid = true};
}

void lose_everything(Tcb& t, TimeNs now, bool timeout) {
  const bool board = sack_recovery(t);
  t.dup_acks = 0;
  t.due &= static_cast<uint16_t>(~(kDueRetransmit | kDueLossProbe));
  const bool again = t.recovery == Recovery::kTimeout;
  t.recovery = Recovery::kTimeout;
  t.recover = t.snd_max;
  if (!board) {
    t.snd_nxt = t.snd_una;
    if (t.repair != nullptr) t.repair->scoreboard.reset(t.snd_una, t.snd_max, clock_us(now));
    mark_output(t);
    return;
  }
  Repair& r = *t.repair;
  sync_scoreboard(t);
  r.scoreboard.forget_reports();
  r.probing = false;
  forget_path_probe(t);
  r.reorder_at = base::kNever;
  t.snd_nxt = t.snd_max;
  if (!timeout) {
    r.undo.valid = false;
    r.frto = Frto::kOff;
    r.scoreboard.lose_from(t.snd_una);
    return mark_output(t);
  }
  // RFC 8985 6.3: the first segment, and what was sent so long ago that it should have been acknowledged.
  const uint32_t now_us = clock_us(now), rtt = r.rack.valid ? r.rack.rtt_us : t.srtt_us;
  const uint32_t window = rack_window(r.rack, t.reordering_seen, true, t.srtt_us);
  r.scoreboard.lose_first(payload_mss(t));
  r.scoreboard.lose([&](const Scoreboard::Range& range) {
    const int32_t since = sent_since(now_us, range.sent_us);
    return since < 0 || static_cast<uint32_t>(since) >= rtt + window;
  });
  r.frto = again || !r.undo.valid || r.undo.repeated > 0 ? Frto::kOff : Frto::kFirst;
  mark_output(t, kDueRetransmit);
}

void reorder_timeout(Tcb& t, TimeNs now) {
  Repair& r = *t.repair;
  r.reorder_at = base::kNever;
  if (!synchronized(t.state) || t.snd_una == t.snd_max || !sack_recovery(t)) return;
  sync_scoreboard(t);
  detect(t, clock_us(now), now);
  if (r.reorder_at <= now) r.reorder_at = now + 1;  // what is not due now is due later
  // No ACK says how much may go: one segment, as at the beginning of any recovery.
  if (t.recovery == Recovery::kFast && r.prr.out == 0 && !bbr_rules(t))
    t.congestion.cwnd = std::max(t.congestion.cwnd, r.scoreboard.in_flight() + payload_mss(t));
  mark_output(t);
}

uint32_t bytes_in_flight(const Tcb& t) {
  switch (t.recovery) {
    case Recovery::kOpen:
    case Recovery::kCwr:
      break;
    case Recovery::kTimeout:
      if (sack_recovery(t)) return t.repair->scoreboard.in_flight();
      break;
    case Recovery::kFast:
      return sack_recovery(t) ? t.repair->scoreboard.in_flight() : t.snd_max - t.snd_una;
  }
  return t.snd_nxt - t.snd_una - (t.repair != nullptr ? t.repair->scoreboard.bytes_in(t.snd_una, t.snd_nxt) : 0);
}

void grow_window(Tcb& t, uint32_t acked, bool limited, TimeNs now, uint32_t rtt_us) {
  const CongestionAlgorithm algorithm = config(t).congestion;
  if (algorithm == CongestionAlgorithm::kBbr) {
    if (bbr_rules(t)) return;  // follow_model() does it
    if (limited && has(t, kFlagSack) && need_repair(t) != nullptr) {
      bbr_start(t.repair->bbr, t.snd_max - t.snd_una, t.srtt_us, clock_us(now));
      return;
    }
  }
  Growth* g =
      limited && congestion_wants_growth(t.congestion, algorithm, acked, payload_mss(t), t.srtt_us) && need_repair(t) != nullptr
          ? &t.repair->growth
          : growth(t);
  const bool first_slow_start = t.congestion.ssthresh == Congestion::kNoThreshold;
  congestion_on_ack(t.congestion, algorithm, g,
                    {.acked = acked,
                     .mss = payload_mss(t),
                     .srtt_us = t.srtt_us,
                     .cwnd_limited = limited,
                     .now = now,
                     .rtt_us = rtt_us,
                     .snd_una = t.snd_una,
                     .snd_nxt = t.snd_nxt});
  if (first_slow_start && t.congestion.ssthresh != Congestion::kNoThreshold) tally(t, &RecoveryCounts::delay_exits);
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
  Ack a;
  a.acked = seq_gt(s.ack, t.snd_una) ? s.ack - t.snd_una : 0;
  uint32_t events = 0;
  if (has(t, kFlagEcn) && s.has(wire::kTcpEce)) on_congestion_echo(t);

  // A fast recovery that began without a scoreboard stays with RFC 6582.
  if (has(t, kFlagSack) && !s.sack.empty() && t.repair == nullptr && t.recovery != Recovery::kFast) need_repair(t);
  const bool board = sack_recovery(t);
  uint32_t known = 0;
  if (t.repair != nullptr) {
    sync_scoreboard(t);
    known = t.repair->scoreboard.bytes();
    a.delivery.now_us = clock_us(now);
    if (!t.repair->rack.valid) t.repair->rack.highest = t.snd_una;
    a.delivery.exact = !has_scoreboard(t);
    a.delivery.recover = undisturbed(t) ? t.snd_una : t.recover;
    if (has(t, kFlagTimestamps) && s.timestamps && s.timestamps->ecr != 0) {
      const uint32_t ms = timestamp_clock(t, now) - s.timestamps->ecr;
      if (ms < 600'000) a.delivery.echo_age_us = ms * 1000;
    }
    if (board && !s.sack.empty()) take_sack(t, s, a);
  }

  if (a.acked > 0) {
    const uint32_t flight_before = t.snd_max - t.snd_una;
    const uint32_t data = static_cast<uint32_t>(std::min<uint64_t>(a.acked, t.tx.bytes()));
    if (data > 0) {
      t.tx.consume(data);
      events |= kEventSendSpace;
    }
    if (a.acked > data && has(t, kFlagFinSent)) t.flags |= kFlagFinAcked;
    t.snd_una = s.ack;
    if (seq_lt(t.snd_nxt, t.snd_una)) t.snd_nxt = t.snd_una;
    if (t.repair != nullptr) {
      Repair& r = *t.repair;
      r.scoreboard.advance(t.snd_una, [&](const Scoreboard::Range& range) { rack_delivered(r.rack, a.delivery, range); });
      // It had what comes next, and does not acknowledge it: the peer has dropped what it reported (RFC 2018 8).
      if (r.scoreboard.skip(t.snd_una) != t.snd_una) {
        r.scoreboard.renege();
        tally(t, &RecoveryCounts::reneged);
      }
    }
    t.timeouts = 0;
    t.probes = 0;
    measure_rtt(t, s, now);
    if (t.recovery == Recovery::kOpen) {
      t.dup_acks = 0;
      const bool limited = has(t, kFlagCwndLimited) || flight_before >= t.congestion.cwnd;
      grow_window(t, a.acked, limited, now, a.delivery.rtt_us);
      if (t.tx.empty()) t.flags &= static_cast<uint16_t>(~kFlagCwndLimited);
      if (seq_gt(t.snd_una, t.recover))
        t.recover = t.snd_una - 1;  // keeps RFC 6582's test meaningful when sequence numbers go round
    } else if (t.recovery == Recovery::kCwr) {
      if (seq_ge(t.snd_una, t.recover)) t.recovery = Recovery::kOpen;
    } else {
      if (t.recovery == Recovery::kTimeout) grow_window(t, a.acked, true, now);
      if (!board) on_progress_in_recovery(t, a.acked);
    }
    // RFC 6298 5.2, 5.3; in NewReno recovery only the first partial ACK restarts the timer (RFC 6582 4, "impatient").
    if (t.snd_una == t.snd_max) {
      t.retransmit_at = base::kNever;
    } else if (t.recovery != Recovery::kFast || board || !has(t, kFlagPartialAck)) {
      arm_loss_timer(t, now);
      if (t.recovery == Recovery::kFast) t.flags |= kFlagPartialAck;
    }
    t.flags &= static_cast<uint16_t>(~kFlagPersist);
    // Progress: the user timeout starts again, or ends.
    if (t.state != State::kFinWait2) t.state_at = outstanding(t) ? base::time_add(now, config(t).user_timeout_ns) : base::kNever;
    if (outstanding(t)) mark_output(t);
  }

  if (board) {
    a.gained = static_cast<int32_t>(a.acked + t.repair->scoreboard.bytes() - known);
    if (a.delivery.bytes > 0 || a.duplicate_seen || t.repair->probing) recover_by_scoreboard(t, s, a, now);
  } else if (t.snd_una != t.snd_max) {
    // A duplicate ACK: the five conditions of RFC 5681 2.
    const bool duplicate = a.acked == 0 && s.ack == t.snd_una && payload_length == 0 && !s.has(wire::kTcpSyn | wire::kTcpFin) &&
                           !window_changed && !has(t, kFlagPersist);
    if (duplicate) on_duplicate(t, now);
  }
  if (t.repair != nullptr && t.repair->path.size != 0) path_probe_answered(t, now);
  if (a.acked > 0 && t.repair != nullptr) settle_repair(t, now);
  return events;
}

}  // namespace millrace::tcp
