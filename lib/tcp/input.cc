// Segments arrive (RFC 9293 3.10.7). The numbered comments follow the steps of that section.
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"
#include "lib/tcp/time_wait.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;
using wire::TcpView;

// RFC 5961 7: ACKs that answer what no honest peer sends are counted per connection, so that nobody can learn anything from a
// shared limit.
bool may_challenge(Tcb& t, TimeNs now) {
  const uint8_t second = whole_seconds(now) & 15;
  if (t.challenge_second != second) {
    t.challenge_second = second;
    t.challenges = 0;
  }
  if (t.challenges >= kChallengesPerSecond) return false;
  ++t.challenges;
  return true;
}

InputResult challenge(Tcb& t, DropReason why, TimeNs now) {
  if (may_challenge(t, now)) mark_output(t, kDueAck);
  return {0, why};
}

void stray_reset(Tcb& t, uint32_t seq) {
  t.stray_reset_seq = seq;
  mark_output(t, kDueStrayReset);
}

void heard(Tcb& t, TimeNs now) {
  t.last_received = now;
  t.keepalives_sent = 0;
}

void update_window(Tcb& t, const TcpView& s, uint32_t wnd) {
  t.snd_wl1 = s.seq;
  t.snd_wl2 = s.ack;
  if (wnd == t.snd_wnd) return;
  if (wnd > t.snd_wnd) {
    // What was probed goes again as data, if the window is worth it; until then the persist timer stays.
    if (has(t, kFlagPersist)) t.snd_nxt = t.snd_una;
    mark_output(t);
  }
  t.snd_wnd = wnd;
  t.max_snd_wnd = std::max(t.max_snd_wnd, wnd);
}

// RFC 7323 4.3 (2): remembers the timestamp of a segment that spans the last ACK we sent.
void update_ts_recent(Tcb& t, const TcpView& s, TimeNs now) {
  if (!has(t, kFlagTimestamps) || !s.timestamps) return;
  if (seq_le(s.seq, t.last_ack_sent) && seq_ge(s.timestamps->val, t.ts_recent)) {
    t.ts_recent = s.timestamps->val;
    t.ts_recent_hour = whole_hours(now);
  }
}

// RFC 7323 5.3 R1.
bool paws_rejects(const Tcb& t, const TcpView& s, TimeNs now) {
  return has(t, kFlagTimestamps) && s.timestamps && seq_lt(s.timestamps->val, t.ts_recent) &&
         static_cast<uint16_t>(whole_hours(now) - t.ts_recent_hour) < kPawsIdleLimit_h;
}

// --- 3.10.7.3: SYN-SENT

InputResult input_syn_sent(Tcb& t, const TcpView& s, io::PacketPtr payload, TimeNs now) {
  // First: the ACK bit.
  const bool ack_good = s.has_ack() && seq_gt(s.ack, t.snd_una) && seq_le(s.ack, t.snd_max);
  if (s.has_ack() && !ack_good) {
    if (!s.rst()) stray_reset(t, s.ack);
    return {0, DropReason::kTcpAckUnacceptable};
  }
  // Second: the RST bit.
  if (s.rst()) {
    if (!ack_good) return {0, DropReason::kTcpResetOutOfWindow};  // RFC 5961 3.2: only a RST that proves it saw our SYN
    enter_closed(t);
    return {kEventReset | kEventClosed, DropReason::kNone};
  }
  // Third: security, not used. Fourth: the SYN bit.
  if (!s.syn()) return {0, DropReason::kTcpNoAck};
  heard(t, now);
  t.rcv_nxt = t.last_ack_sent = s.seq + 1;
  t.rcv_adv = t.rcv_nxt + first_window(t.rcv_cap, t.rcv_wscale);  // what our SYN said
  apply_peer_options(t, s);
  if (has(t, kFlagTimestamps)) {
    t.ts_recent = s.timestamps->val;
    t.ts_recent_hour = whole_hours(now);
  }
  t.snd_wnd = t.max_snd_wnd = s.window;  // never scaled in a SYN
  t.snd_wl1 = s.seq;
  t.snd_wl2 = s.ack;
  if (!ack_good) {  // simultaneous open
    t.state = State::kSynReceived;
    mark_output(t, kDueSyn);
    return {0, DropReason::kNone};
  }
  if (has(t, kFlagTiming)) {
    t.flags &= static_cast<uint16_t>(~kFlagTiming);
    rtt_sample(t, clock_us(now) - t.rtt_sent_us);
  }
  t.snd_una = s.ack;
  enter_established(t, now);
  mark_output(t, kDueAck);
  InputResult r{kEventConnected, DropReason::kNone};
  if (payload || s.fin()) r.events |= receive_text(t, s, s.seq + 1, std::move(payload), s.fin(), now, r.drop);
  return r;
}

// --- 3.10.7.4: the other states

enum class Acceptance : uint8_t { kYes, kOld, kOutside };

// First step: is any of it in the window? `length` is SEG.LEN behind a SYN already taken off.
Acceptance acceptable(const Tcb& t, uint32_t seq, uint32_t length) {
  const uint32_t window = rcv_wnd(t);
  // A peer that filled our window sends its ACKs from the right edge; RFC 9293's table would refuse them, Linux and we do not.
  if (length == 0) return seq_ge(seq, t.rcv_nxt) && seq_le(seq, t.rcv_adv) ? Acceptance::kYes : Acceptance::kOutside;
  // Zero window: the ACK, RST and URG of the very next segment are still good, its data is cut off later (RFC 9293 3.10.7.4,
  // MUST-66).
  if (window == 0 && seq == t.rcv_nxt) return Acceptance::kYes;
  const bool first_in = seq_ge(seq, t.rcv_nxt) && seq_lt(seq, t.rcv_adv);
  const bool last_in = seq_ge(seq + length - 1, t.rcv_nxt) && seq_lt(seq + length - 1, t.rcv_adv);
  const bool spans = seq_lt(seq, t.rcv_nxt) && seq_ge(seq + length, t.rcv_adv);
  if (first_in || last_in || spans) return Acceptance::kYes;
  return seq_le(seq + length, t.rcv_nxt) ? Acceptance::kOld : Acceptance::kOutside;
}

// The answer to an unacceptable segment. Where the peer took back window from what is in flight, two numbers may be the one it
// expects: the edge of its window, and snd_max, if it took what was in flight nevertheless (a middlebox lowered the window). With
// the wrong one at both ends no ACK is acceptable to anyone, for ever; so they take turns.
void answer_unacceptable(Tcb& t) {
  if (seq_lt(t.snd_una + t.snd_wnd, t.snd_max)) [[unlikely]] {
    t.answered_at_max = !t.answered_at_max;
    if (t.answered_at_max) t.due |= kDueAckAtMax;
  }
  mark_output(t, kDueAck);
}

InputResult unacceptable(Tcb& t, const TcpView& s, Acceptance why, uint32_t length, TimeNs now) {
  if (length == 0) {
    // Keepalive probes sit just below the window; anything else may be one half of an ACK storm: answered at a bounded rate.
    if (may_challenge(t, now)) answer_unacceptable(t);
    return {0, DropReason::kTcpOutOfWindow};
  }
  if (why == Acceptance::kOld) note_duplicate(t, s.seq, s.seq + length);
  answer_unacceptable(t);
  return {0, why == Acceptance::kOld ? DropReason::kTcpOldDuplicate : DropReason::kTcpOutOfWindow};
}

// Second step, with RFC 5961 3.2: only the exact sequence number resets.
InputResult input_reset(Tcb& t, uint32_t seq, TimeNs now) {
  if (seq == t.rcv_nxt) {
    enter_closed(t);
    t.due = 0;
    return {kEventReset | kEventClosed, DropReason::kNone};
  }
  if (seq_gt(seq, t.rcv_nxt) && seq_lt(seq, t.rcv_adv)) return challenge(t, DropReason::kTcpChallenged, now);
  return {0, DropReason::kTcpResetOutOfWindow};
}

// Our FIN was acknowledged.
uint32_t fin_acknowledged(Tcb& t, TimeNs now) {
  switch (t.state) {
    case State::kFinWait1:
      enter_fin_wait_2(t, now);
      return 0;
    case State::kClosing:
      enter_time_wait(t, now);
      return kEventTimeWait;
    case State::kLastAck:
      enter_closed(t);
      t.due = 0;
      return kEventClosed;
    default:
      return 0;
  }
}

InputResult input_time_wait(Tcb& t, const TcpView& s, TimeNs now) {
  TimeWaitEntry e = make_time_wait(t, now);
  wire::TcpRepr reply;
  const TimeWaitResult r = time_wait_input(e, s, now, reply);
  t.state_at = e.expires_at;
  t.ts_recent = e.ts_recent;
  switch (r.verdict) {
    case TimeWaitVerdict::kIgnore:
      break;
    case TimeWaitVerdict::kReply:
      mark_output(t, kDueAck);
      break;
    case TimeWaitVerdict::kReopen:
      enter_closed(t);
      t.due = 0;
      return {kEventClosed | kEventReopen, r.drop};
  }
  return {0, r.drop};
}

// RFC 3168 6.1.3: a mark is echoed with every ACK until the peer says that it heard.
void take_mark(Tcb& t, const TcpView& s, bool marked) {
  if (s.has(wire::kTcpCwr)) t.due &= static_cast<uint16_t>(~kDueEce);
  if (marked && (t.due & kDueEce) == 0) mark_output(t, kDueEce | kDueAck);
}

InputResult input_other(Tcb& t, const TcpView& s, io::PacketPtr payload, TimeNs now, bool marked) {
  InputResult r;
  uint32_t seq = s.seq;
  bool syn = s.syn();
  const uint32_t text = payload ? payload.size() : 0;

  // The SYN that began this connection, once more. With an ACK it completes a simultaneous open (RFC 9293 figure 8), without one
  // our SYN-ACK was lost.
  if (t.state == State::kSynReceived && syn && seq + 1 == (t.fast_open ? t.growth_seq : t.rcv_nxt)) {
    if (!s.has_ack()) {
      mark_output(t, kDueSyn);
      return {0, DropReason::kTcpOldDuplicate};
    }
    if (!t.fast_open) {
      syn = false;
      ++seq;
    }
  }
  const uint32_t length = text + (syn ? 1 : 0) + (s.fin() ? 1 : 0);

  // Zeroth: PAWS, before all else but a RST (RFC 7323 5.3).
  if (!s.rst() && paws_rejects(t, s, now)) {
    if (length == 0) return challenge(t, DropReason::kTcpPaws, now);
    mark_output(t, kDueAck);
    return {0, DropReason::kTcpPaws};
  }
  // Second, drawn forward: RST, which has its own acceptance (RFC 5961).
  if (s.rst()) return input_reset(t, seq, now);
  // Fourth, drawn forward: SYN, whatever its sequence number (RFC 5961 4.2).
  if (syn) return challenge(t, DropReason::kTcpChallenged, now);

  // First: the sequence number.
  const Acceptance a = acceptable(t, seq, length);
  if (a != Acceptance::kYes) {
    if (a == Acceptance::kOld || length == 0) heard(t, now);  // the peer lives: this may answer our keepalive
    return unacceptable(t, s, a, length, now);
  }
  // Third: security, not used.
  // Fifth: the ACK.
  if (!s.has_ack()) return {0, DropReason::kTcpNoAck};
  bool completed = false;  // a fast open: whatever it says, no duplicate
  if (t.state == State::kSynReceived) {
    const uint32_t least = t.fast_open ? t.snd_una : t.snd_una + 1;
    if (!(seq_ge(s.ack, least) && seq_le(s.ack, t.snd_max))) {
      stray_reset(t, s.ack);
      return {0, DropReason::kTcpAckUnacceptable};
    }
    if (has(t, kFlagTiming) && seq_ge(s.ack, t.rtt_seq)) {
      t.flags &= static_cast<uint16_t>(~kFlagTiming);
      rtt_sample(t, clock_us(now) - t.rtt_sent_us);
    }
    completed = t.fast_open;
    if (!t.fast_open) {
      t.snd_una = t.snd_una + 1;  // the SYN; a queue filled meanwhile starts here
      t.snd_nxt = t.snd_max;
      r.events |= kEventConnected;
    }
    enter_established(t, now);
    t.snd_wl1 = s.seq - 1;  // take the window of this segment below
  }
  if (seq_gt(s.ack, t.snd_max) || seq_lt(s.ack, t.snd_una - std::max(t.max_snd_wnd, 1u))) {
    InputResult c = challenge(t, DropReason::kTcpAckUnacceptable, now);  // RFC 5961 5.2
    c.events = r.events;
    return c;
  }
  heard(t, now);
  update_ts_recent(t, s, now);
  if (has(t, kFlagEcn)) take_mark(t, s, marked && text > 0);
  const uint32_t wnd = uint32_t{s.window} << (s.syn() ? 0 : t.snd_wscale);
  const bool newer = seq_lt(t.snd_wl1, seq) || (t.snd_wl1 == seq && seq_le(t.snd_wl2, s.ack));
  const bool window_changed = wnd != t.snd_wnd || completed;
  r.events |= process_ack(t, s, text, window_changed, now);
  if (newer && seq_ge(s.ack, t.snd_una)) update_window(t, s, wnd);
  if (has(t, kFlagFinAcked)) {
    r.events |= fin_acknowledged(t, now);
    if (t.state == State::kClosed) return r;
  }
  // Sixth: URG is ignored; its bytes are part of the stream (RFC 9293 3.8.5 forbids new uses).
  // Seventh and eighth: text and FIN.
  if (text > 0 || s.fin()) r.events |= receive_text(t, s, seq, std::move(payload), s.fin(), now, r.drop);
  return r;
}

// Header prediction: the next segment in order of an undisturbed connection. True when `r` is the answer.
bool input_fast(Tcb& t, const TcpView& s, io::PacketPtr& payload, TimeNs now, InputResult& r) {
  constexpr uint8_t kOther =
      wire::kTcpSyn | wire::kTcpFin | wire::kTcpRst | wire::kTcpUrg | wire::kTcpAck | wire::kTcpEce | wire::kTcpCwr;
  if (t.state != State::kEstablished || (s.flags & kOther) != wire::kTcpAck || s.seq != t.rcv_nxt) return false;
  if (t.recovery != Recovery::kOpen || t.snd_nxt != t.snd_max || out_of_order(t) || has_scoreboard(t) || !s.sack.empty())
    return false;
  if ((t.flags & (kFlagPeerFin | kFlagOrphan | kFlagPersist)) != 0 || uint32_t{s.window} << t.snd_wscale != t.snd_wnd)
    return false;
  if (has(t, kFlagTimestamps) && (!s.timestamps || seq_lt(s.timestamps->val, t.ts_recent))) return false;
  if (!seq_ge(s.ack, t.snd_una) || !seq_le(s.ack, t.snd_max)) return false;
  const uint32_t text = payload ? payload.size() : 0;
  if (text > rcv_wnd(t) || (text == 0 && s.ack == t.snd_una)) return false;

  heard(t, now);
  update_ts_recent(t, s, now);
  if (seq_le(t.snd_wl1, s.seq)) {
    t.snd_wl1 = s.seq;
    t.snd_wl2 = s.ack;
  }
  if (s.ack != t.snd_una) r.events |= process_ack(t, s, text, false, now);
  if (text > 0) r.events |= receive_text(t, s, s.seq, std::move(payload), false, now, r.drop);
  return true;
}

}  // namespace

InputResult input(Tcb& t, const TcpView& s, io::PacketPtr payload, TimeNs now, bool congestion_marked) {
  InputResult r;
  if (!congestion_marked && input_fast(t, s, payload, now, r)) return r;
  switch (t.state) {
    case State::kClosed:
      return {0, DropReason::kTcpNoConnection};
    case State::kSynSent:
      return input_syn_sent(t, s, std::move(payload), now);
    case State::kTimeWait:
      return input_time_wait(t, s, now);
    default:
      r = input_other(t, s, std::move(payload), now, congestion_marked);
      // What was borrowed goes back by progress or by a timer; a segment that brought neither must not leave it lent.
      if (t.repair != nullptr && t.retransmit_at == base::kNever) [[unlikely]] {
        return_repair(t);
        if (t.repair != nullptr && (!t.repair->growth.idle() || t.repair->path.most != 0)) settle_repair(t, now);
      }
      return r;
  }
}

}  // namespace millrace::tcp
