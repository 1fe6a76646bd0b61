// Time: the RTO estimate (RFC 6298) and what happens when a deadline passes.
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {

uint32_t clamp_rto(const Tcb& t, uint64_t rto_us) {
  const uint64_t least = config(t).rto_min_ns / base::kMicrosecond, most = config(t).rto_max_ns / base::kMicrosecond;
  return static_cast<uint32_t>(std::min<uint64_t>(std::max(rto_us, least), std::min<uint64_t>(most, UINT32_MAX)));
}

void rtt_sample(Tcb& t, uint32_t r) {
  r = std::max(r, 1u);
  if (t.srtt_us == 0) {  // RFC 6298 2.2
    t.srtt_us = r;
    t.rttvar_us = r / 2;
  } else {  // RFC 6298 2.3: alpha 1/8, beta 1/4
    const uint32_t deviation = t.srtt_us > r ? t.srtt_us - r : r - t.srtt_us;
    t.rttvar_us = static_cast<uint32_t>((uint64_t{t.rttvar_us} * 3 + deviation) / 4);
    t.srtt_us = std::max(1u, static_cast<uint32_t>((uint64_t{t.srtt_us} * 7 + r) / 8));
  }
  constexpr uint64_t g = kClockGranularity / base::kMicrosecond;
  t.rto_us = clamp_rto(t, t.srtt_us + std::max<uint64_t>(g, uint64_t{t.rttvar_us} * 4));
}

void arm_retransmit(Tcb& t, TimeNs now) {
  t.retransmit_at = base::time_add(now, from_us(t.rto_us));
  t.flags &= static_cast<uint16_t>(~kFlagPersist);
  t.probe_timer = false;
}

// RFC 8985 7.2: two round trips, and the delay of an ACK where a single segment may wait for it; never later than the RTO.
void lower_to_probe(Tcb& t, TimeNs now) {
  if (!has(t, kFlagSack) || t.srtt_us == 0 || !undisturbed(t) ||
      (t.repair != nullptr && (t.repair->probing || has_scoreboard(t))))
    return;
  const bool single = t.snd_max - t.snd_una <= payload_mss(t);
  const uint64_t wait_us = uint64_t{t.srtt_us} * 2 + (single ? kProbeAckDelay_us : kProbeFloor_us);
  const TimeNs at = base::time_add(now, wait_us * base::kMicrosecond);
  if (at >= t.retransmit_at) return;
  t.retransmit_at = at;
  t.probe_timer = true;
}

void arm_loss_timer(Tcb& t, TimeNs now) {
  arm_retransmit(t, now);
  lower_to_probe(t, now);
}

void stop_timers(Tcb& t) { t.retransmit_at = t.delayed_ack_at = t.state_at = base::kNever; }

namespace {

uint32_t give_up(Tcb& t) {
  if (t.state == State::kSynSent) {
    enter_closed(t);
  } else {
    reset_connection(t);
  }
  return kEventTimedOut | kEventClosed;
}

// RFC 9293 3.8.3, RFC 6298 5.4 to 5.7.
void retransmission_timeout(Tcb& t, TimeNs now) {
  t.rto_us = clamp_rto(t, uint64_t{t.rto_us} * 2);
  forbid_timing(t);
  if (!synchronized(t.state)) {
    t.flags |= kFlagSynLost;
    arm_retransmit(t, now);
    mark_output(t, kDueSyn);
    return;
  }
  const bool first = t.timeouts == 0;
  if (t.timeouts < 255) ++t.timeouts;
  if (t.snd_wnd == 0) {
    // The peer closed its window over what is in flight: from here on it is a zero-window probe.
    t.snd_nxt = t.snd_una;
    t.recovery = Recovery::kOpen;
    if (t.repair != nullptr) t.repair->scoreboard.reset(t.snd_una, t.snd_max, clock_us(now));
    t.flags |= kFlagPersist;
    t.retransmit_at = base::time_add(now, from_us(t.rto_us));
    mark_output(t, kDueProbe);
    return;
  }
  suspect_black_hole(t);
  need_repair(t);
  if (undisturbed(t)) remember_window(t);
  const bool reduced = t.recovery == Recovery::kCwr;
  if (bbr_rules(t)) {
    t.congestion.cwnd = bbr_lost(t.repair->bbr, t.congestion.cwnd, 0, payload_mss(t), true);
  } else {
    congestion_on_timeout(t.congestion, config(t).congestion, growth(t), bytes_in_flight(t), payload_mss(t), first && !reduced);
  }
  if (has(t, kFlagEcn)) t.due |= kDueCwr;
  lose_everything(t, now, true);
  arm_retransmit(t, now);
}

// RFC 8985 7.3.
void probe_timeout(Tcb& t, TimeNs now) {
  arm_retransmit(t, now);
  if (!undisturbed(t) || t.snd_wnd == 0 || t.snd_una == t.snd_max || need_repair(t) == nullptr || t.repair->probing) return;
  mark_output(t, kDueLossProbe);
}

// Nothing was sent for an RTO: what RFC 5681 4.1 would do when the next segment goes, done now, so that congestion avoidance
// gives back its memory.
void idle_timeout(Tcb& t) {
  t.flags &= static_cast<uint16_t>(~kFlagPersist);
  congestion_on_idle(t.congestion, config(t).congestion, growth(t), payload_mss(t));
  if (t.repair != nullptr) {
    t.repair->growth = Growth();
    t.repair->bbr = BbrState();
    t.repair->probing = false;
    t.repair->path = {};
    t.repair->pace_at = base::kNever;
  }
  return_repair(t);
}

// RFC 9293 3.8.6.1.
void persist_timeout(Tcb& t, TimeNs now) {
  if (!outstanding(t)) return idle_timeout(t);
  if (t.probes < 255) ++t.probes;
  const uint64_t wait = uint64_t{t.rto_us} << std::min<uint32_t>(t.probes, 10);
  t.retransmit_at = base::time_add(now, from_us(clamp_rto(t, wait)));
  mark_output(t, kDueProbe);
}

uint32_t keepalive_timeout(Tcb& t, TimeNs now) {
  t.last_received += now - keepalive_at(t);  // looked at late: the next probe is a whole interval away all the same
  if (t.keepalives_sent >= config(t).keepalive_probes) return give_up(t);
  ++t.keepalives_sent;
  mark_output(t, kDueKeepalive);
  return 0;
}

uint32_t state_timeout(Tcb& t) {
  t.state_at = base::kNever;
  switch (t.state) {
    case State::kTimeWait:
      enter_closed(t);
      return kEventClosed;
    case State::kFinWait2:
      enter_closed(t);
      return kEventTimedOut | kEventClosed;
    default:
      return give_up(t);
  }
}

}  // namespace

uint32_t on_deadline(Tcb& t, TimeNs now) {
  if (t.state_at <= now) {
    const uint32_t events = state_timeout(t);
    if ((events & kEventClosed) != 0) return events;
  }
  if (t.delayed_ack_at <= now) {
    t.delayed_ack_at = base::kNever;
    if ((t.due & kDueDelayedAck) != 0) mark_output(t, kDueAck);
  }
  if (t.retransmit_at <= now) {
    t.retransmit_at = base::kNever;
    if (has(t, kFlagPersist)) {
      persist_timeout(t, now);
    } else if (t.probe_timer) {
      probe_timeout(t, now);
    } else {
      retransmission_timeout(t, now);
    }
  }
  if (t.repair != nullptr && t.repair->reorder_at <= now) reorder_timeout(t, now);
  if (t.repair != nullptr && t.repair->pace_at <= now) {
    t.repair->pace_at = base::kNever;
    mark_output(t);
  }
  if (keepalive_at(t) <= now) return keepalive_timeout(t, now);
  return 0;
}

}  // namespace millrace::tcp
