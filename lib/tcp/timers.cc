// Time: the RTO estimate (RFC 6298) and what happens when a deadline passes.
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {

uint32_t clamp_rto(const Tcb& t, uint64_t rto_us) {
  const uint64_t most = uint64_t{t.rto_max_ms} * 1000;
  return static_cast<uint32_t>(
      std::min<uint64_t>(std::max<uint64_t>(rto_us, t.rto_min_us), std::min<uint64_t>(most, UINT32_MAX)));
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
}

void arm_keepalive(Tcb& t, TimeNs now) {
  t.keepalive_at = t.keepalive_idle_ms == 0 ? base::kNever : base::time_add(now, from_ms(t.keepalive_idle_ms));
}

void stop_timers(Tcb& t) { t.retransmit_at = t.delayed_ack_at = t.state_at = t.keepalive_at = base::kNever; }

TimeNs next_deadline(const Tcb& t) {
  return std::min(std::min(t.retransmit_at, t.delayed_ack_at), std::min(t.state_at, t.keepalive_at));
}

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
    ++t.retransmits;
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
    t.scoreboard.clear();
    t.flags |= kFlagPersist;
    t.retransmit_at = base::time_add(now, from_us(t.rto_us));
    mark_output(t, kDueProbe);
    return;
  }
  congestion_on_timeout(t.congestion, bytes_in_flight(t), payload_mss(t), first, now);
  t.scoreboard.clear();  // RFC 2018 8: after a timeout the peer may have dropped what it had reported
  t.recovery = Recovery::kTimeout;
  t.recover = t.snd_max;
  t.snd_nxt = t.snd_una;
  t.high_rxt = t.rescue_rxt = t.snd_una;
  t.dup_acks = 0;
  arm_retransmit(t, now);
  t.due &= static_cast<uint16_t>(~kDueRetransmit);
  mark_output(t);
}

// RFC 9293 3.8.6.1.
void persist_timeout(Tcb& t, TimeNs now) {
  if (t.probes < 255) ++t.probes;
  const uint64_t wait = uint64_t{t.rto_us} << std::min<uint32_t>(t.probes, 10);
  t.retransmit_at = base::time_add(now, from_us(clamp_rto(t, wait)));
  mark_output(t, kDueProbe);
}

uint32_t keepalive_timeout(Tcb& t, TimeNs now) {
  const TimeNs quiet_since = t.last_received;
  const TimeNs idle = from_ms(t.keepalive_idle_ms);
  if (now < base::time_add(quiet_since, idle)) {  // something came since: look again later
    t.keepalives_sent = 0;
    t.keepalive_at = base::time_add(quiet_since, idle);
    return 0;
  }
  if (outstanding(t)) {  // the retransmission timer is at work and finds out by itself
    t.keepalive_at = base::time_add(now, idle);
    return 0;
  }
  if (t.keepalives_sent >= t.keepalive_probes) return give_up(t);
  ++t.keepalives_sent;
  t.keepalive_at = base::time_add(now, from_ms(t.keepalive_interval_ms));
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
    } else {
      retransmission_timeout(t, now);
    }
  }
  if (t.keepalive_at <= now) return keepalive_timeout(t, now);
  return 0;
}

}  // namespace millrace::tcp
