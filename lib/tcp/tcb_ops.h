// What the parts of lib/tcp share about a TCB and callers do not see.
#pragma once

#include <algorithm>

#include "lib/tcp/seq.h"
#include "lib/tcp/tcb.h"

namespace millrace::tcp {

// --- limits (STYLE rule 7)
inline constexpr uint16_t kMinSendMss =
    88;  // bytes: a peer that announces less gets segments of this size; leaves room for 40 option bytes
inline constexpr uint16_t kDefaultMssV4 = 536, kDefaultMssV6 = 1220;  // RFC 9293 MUST-15: without an MSS option
inline constexpr uint16_t kMinPathMtuV4 = 552,
                          kMinPathMtuV6 = 1280;  // below: an attack, or a path nobody has (RFC 5927 7.2, RFC 8200 5)
inline constexpr uint8_t kBlackHoleTimeouts =
    4;  // of one full-sized segment, in a row (RFC 4821 7.7; when Linux would, with tcp_retries1 of 3)
inline constexpr uint16_t kPathSearchGrain = 16;                 // bytes that are not worth another probe (Linux: 8)
inline constexpr TimeNs kPathSearchAgain = 600 * base::kSecond;  // RFC 4821 7.3: paths change
inline constexpr uint32_t kPathProbeTail = 4;          // segments behind a probe, whose reports tell its loss (RFC 4821 7.4)
inline constexpr uint32_t kMaxSendWindow = 1u << 30;   // bytes: RFC 7323 2.3
inline constexpr uint8_t kChallengesPerSecond = 8;     // challenge and out-of-window ACKs of one connection (RFC 5961 7)
inline constexpr uint16_t kPawsIdleLimit_h = 24 * 24;  // RFC 7323 5.5: an older ts_recent proves nothing
inline constexpr uint32_t kReceiveTruesizeFactor = 4;  // pool bytes that a receive buffer may cost, per byte of it
inline constexpr TimeNs kClockGranularity = base::kMillisecond;  // RFC 6298 2: G
inline constexpr uint32_t kRtoAfterLostSyn_us = 3'000'000;       // RFC 6298 5.7
inline constexpr uint32_t kProbeAckDelay_us = 200'000;           // RFC 8985 7.2: TLP.max_ack_delay, of the peer's last segment
inline constexpr uint32_t kProbeFloor_us = 2'000;                // a probe needs no finer clock than the worker's timers have

// --- clocks
inline uint32_t timestamp_clock(TimeNs now, uint32_t offset) { return static_cast<uint32_t>(now / base::kMillisecond) + offset; }
inline uint32_t timestamp_clock(const Tcb& t, TimeNs now) { return timestamp_clock(now, t.ts_offset); }
inline uint32_t whole_seconds(TimeNs now) { return static_cast<uint32_t>(now / base::kSecond); }
inline uint16_t whole_hours(TimeNs now) { return static_cast<uint16_t>(now / (3'600 * base::kSecond)); }  // modulo seven years
inline uint32_t clock_us(TimeNs now) { return static_cast<uint32_t>(now / base::kMicrosecond); }
inline uint32_t clock_ms(TimeNs now) { return static_cast<uint32_t>(now / base::kMillisecond); }
inline TimeNs from_us(uint32_t us) { return TimeNs{us} * base::kMicrosecond; }

// --- windows
// The smallest shift that lets 16 bits describe `buffer` bytes, rounding up included.
inline uint8_t window_shift(uint32_t buffer) {
  uint8_t shift = 0;
  while (shift < wire::kTcpMaxWindowShift && (buffer >> shift) >= 65'535) ++shift;
  return shift;
}
// The window of a SYN or SYN-ACK, which is never scaled (RFC 7323 2.2): a multiple of the scale's step, so that no later rounding
// moves the right edge that it names.
inline uint16_t first_window(uint32_t cap, uint8_t shift) {
  const uint32_t step = 1u << shift, window = std::min(cap, 65'535u) & ~(step - 1);
  return static_cast<uint16_t>(window != 0 ? window : step);
}
inline uint16_t first_window(const Config& c) {
  return first_window(std::min(c.rcv_wnd_initial, c.rcv_buf), window_shift(c.rcv_buf));
}

// --- what the profile says
// Bytes: most that the receive window may ever be taken from. Without scaling 16 bits are all there is.
inline uint32_t rcv_limit(const Tcb& t) {
  return std::min(config(t).rcv_buf, (t.flags & kFlagWindowScaling) != 0 ? kMaxSendWindow / 2 : 65'535u);
}

inline bool may_use_ecn(const Config& c) { return c.ecn != EcnMode::kOff && c.congestion != CongestionAlgorithm::kBbr; }
inline constexpr uint8_t kEcnSetup = wire::kTcpEce | wire::kTcpCwr;  // in a SYN: "I can" (RFC 3168 6.1.1)
inline bool accepts_ecn(const Config& c, const wire::TcpView& syn) {
  return may_use_ecn(c) && (syn.flags & kEcnSetup) == kEcnSetup;
}

// --- what is borrowed
inline bool out_of_order(const Tcb& t) { return t.repair != nullptr && !t.repair->reassembly.empty(); }
// Something is reported, or lost, or flies for the second time.
inline bool has_scoreboard(const Tcb& t) {
  return t.repair != nullptr &&
         (t.repair->scoreboard.bytes() | t.repair->scoreboard.lost() | t.repair->scoreboard.repeated()) != 0;
}
// Counts once more what happened; nowhere, where nothing can be borrowed.
inline void tally(const Tcb& t, uint64_t RecoveryCounts::*what) {
  if (t.profile->repairs != nullptr) ++(t.profile->repairs->counts().*what);
}
Repair* need_repair(Tcb&);  // borrows one if there is none yet; null when none is left
void return_repair(Tcb&);   // if nothing of it is in use
void give_up_repair(Tcb&);  // whatever is in it
// BBR's model is in charge of cwnd and of when segments go.
inline bool bbr_rules(const Tcb& t) { return t.repair != nullptr && t.repair->bbr.active; }
inline Growth* growth(Tcb& t) { return t.repair == nullptr ? nullptr : &t.repair->growth; }
// RFC 6675 rules this sender's recovery; else RFC 6582.
inline bool sack_recovery(const Tcb& t) { return (t.flags & kFlagSack) != 0 && t.repair != nullptr; }

// --- predicates
inline bool has(const Tcb& t, uint16_t flag) { return (t.flags & flag) != 0; }
// No recovery under way: new data goes as cwnd lets it.
inline bool undisturbed(const Tcb& t) { return t.recovery <= Recovery::kCwr; }
inline bool synchronized(State s) { return s >= State::kEstablished; }
inline bool may_send_data(State s) { return s == State::kEstablished || s == State::kCloseWait; }
inline uint32_t rcv_wnd(const Tcb& t) { return t.rcv_adv - t.rcv_nxt; }
inline uint32_t snd_end(const Tcb& t) {
  return t.snd_una + static_cast<uint32_t>(t.tx.bytes());
}  // behind the last byte queued; not in SYN states
// Payload bytes of a segment that carries no SACK blocks.
inline uint32_t payload_mss(const Tcb& t) { return t.snd_mss - (has(t, kFlagTimestamps) ? wire::kTcpTimestampsLength : 0); }

// --- timers.cc
uint32_t clamp_rto(const Tcb&, uint64_t rto_us);
void rtt_sample(Tcb&, uint32_t rtt_us);  // RFC 6298 2
void arm_retransmit(Tcb&, TimeNs now);   // restarts the RTO timer
// The same, or the tail loss probe's where one may be sent and comes first (RFC 8985 7.2).
void arm_loss_timer(Tcb&, TimeNs now);
// Without starting the RTO anew: after more than one segment has been sent.
void lower_to_probe(Tcb&, TimeNs now);
// Karn's rule: what is being timed was, or will be, sent twice.
inline void forbid_timing(Tcb& t) {
  if (has(t, kFlagTiming)) t.flags = static_cast<uint16_t>((t.flags & ~kFlagTiming) | kFlagKarn);
}
void stop_timers(Tcb&);
// path_mtu.cc: full-sized segments time out again and again, so the next ones are smaller.
void suspect_black_hole(Tcb&);
// How large a segment to try next; 0: none now.
uint16_t path_probe_size(Tcb&, TimeNs now);
// After an ACK: has the probe that is out got through? Then segments grow.
void path_probe_answered(Tcb&, TimeNs now);
// Something is lost: is it the probe, and nothing else? That says nothing about congestion (RFC 4821 7.6.1).
bool path_probe_lost(Tcb&);
// A timeout, or a router's word: the probe that is out has no meaning any more.
void forget_path_probe(Tcb&);

// --- tcb.cc: changes of state
void apply_peer_options(Tcb&, const wire::TcpView& syn);  // of a SYN or SYN-ACK
void enter_established(Tcb&, TimeNs now);
void enter_closed(Tcb&);  // keeps rx and a RST that is due
void enter_time_wait(Tcb&, TimeNs now);
void enter_fin_wait_2(Tcb&, TimeNs now);
void reset_connection(Tcb&);  // CLOSED, with a RST due

// --- recovery_ops.cc: what an acceptable ACK does to sender and congestion state; returns Event bits
uint32_t process_ack(Tcb&, const wire::TcpView&, uint32_t payload_length, bool window_changed, TimeNs now);
void grow_window(Tcb&, uint32_t acked, bool limited, TimeNs now, uint32_t rtt_us = 0);  // cwnd after an ACK outside fast recovery
// Progress: gives back what was borrowed, or, when all is acknowledged and only congestion avoidance still remembers something,
// lets the first idle RTO do it (timers.cc).
void settle_repair(Tcb&, TimeNs now);
// Brings the scoreboard up to snd_una and snd_max, which the fast paths move alone.
void sync_scoreboard(Tcb&);
// With a scoreboard nothing goes back to be walked over again: what lies above snd_nxt is lost.
void adopt_scoreboard(Tcb&);
// `space` bytes of sequence space from `seq` on were sent; a repair is lent.
void note_sent_in_repair(Tcb&, uint32_t seq, uint32_t space, TimeNs now);
// A retransmission timeout, or everything was too big for the path: with a scoreboard, all of it is lost.
void lose_everything(Tcb&, TimeNs now, bool timeout);
// What cwnd was, should this reduction turn out to be a mistake.
void remember_window(Tcb&);
// RACK's timer: what was undecided may be lost by now.
void reorder_timeout(Tcb&, TimeNs now);
// Bytes in flight as the sender's current mode counts them.
uint32_t bytes_in_flight(const Tcb&);

// --- receive.cc: payload and FIN of an acceptable segment
uint32_t receive_text(Tcb&, const wire::TcpView&, uint32_t seq, io::PacketPtr payload, bool fin, TimeNs now,
                      stats::DropReason& drop);
void note_duplicate(Tcb&, uint32_t left, uint32_t right);
// Bytes that the window may offer now. A queue of small pieces costs more than its bytes: a share of what the pool lent is
// charged.
inline uint32_t receive_room(const Tcb& t) {
  const uint64_t charge = std::max(t.rx.bytes(), t.rx.truesize() / kReceiveTruesizeFactor);
  return t.rcv_cap > charge ? static_cast<uint32_t>(t.rcv_cap - charge) : 0;
}

// --- output.cc
// The window field, never moving the right edge to the left (RFC 9293 3.8.6: SHLD-14), opening it only by steps that avoid silly
// windows (RFC 9293 3.8.6.2.2). Rounded up when scaled, since rounding down would take back what was offered; but not once that
// gave more than rcv_cap, or every ACK of a small segment would open the window by a few bytes more (RFC 7323 2.4 allows for
// both).
inline uint16_t advertise(Tcb& t) {
  const uint32_t right = t.rcv_nxt + receive_room(t);
  if (seq_gt(right, t.rcv_adv) && right - t.rcv_adv >= std::min<uint32_t>(t.our_mss, t.rcv_cap / 2)) t.rcv_adv = right;
  const uint32_t window = rcv_wnd(t), round_up = window + t.rx.bytes() > t.rcv_cap ? 0 : (1u << t.rcv_wscale) - 1;
  const uint32_t field = std::min<uint32_t>((window + round_up) >> t.rcv_wscale, 65'535);
  t.rcv_adv = seq_max(t.rcv_adv, t.rcv_nxt + (field << t.rcv_wscale));
  return static_cast<uint16_t>(field);
}
// poll_output() of everything; `out` is fresh.
bool poll_output_any(Tcb&, TimeNs now, OutSegment& out, uint32_t max_payload);

inline void mark_output(Tcb& t, uint16_t what = 0) { t.due |= static_cast<uint16_t>(what | kDueOutput); }

}  // namespace millrace::tcp
