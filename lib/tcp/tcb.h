// The transmission control block, laid out by cache line. Only lib/tcp touches its members; callers use tcp.h.
//
//   line 0  who it is and where both sequence spaces stand: all that the lookup and the fast path of input() read
//   line 1  timers, what the peer's segments are checked with, negotiated options
//   line 2  both queues, timestamps, round-trip measurement
//   line 3  configuration, congestion window, window growth, counters
//
// What only a connection with losses needs is borrowed (repair.h); what all connections of a kind share is in their Profile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "lib/io/packet_queue.h"
#include "lib/tcp/congestion/congestion.h"
#include "lib/tcp/repair.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

// What the sender is doing about losses.
enum class Recovery : uint8_t {
  kOpen,     // nothing known to be lost
  kCwr,      // likewise, but cwnd was reduced because of a mark (RFC 3168 6.1.2), until snd_una reaches `recover`
  kFast,     // fast recovery until snd_una reaches `recover` (RFC 6675, 8985 with a scoreboard, RFC 6582 without)
  kTimeout,  // after a retransmission timeout: all is lost. Without a scoreboard snd_nxt went back and walks up again
};

// Tcb::due: what poll_output() has to do.
enum Due : uint16_t {
  kDueOutput = 1u << 0,      // poll_output() may have something: set by whatever could change its mind, cleared when it says no
  kDueSyn = 1u << 1,         // SYN or SYN-ACK
  kDueAck = 1u << 2,         // an ACK now
  kDueDelayedAck = 1u << 3,  // an ACK by delayed_ack_at at the latest
  kDueReset = 1u << 4,       // the RST that ends this connection
  kDueStrayReset = 1u << 5,  // a RST at stray_reset_seq that answers one bad segment and changes nothing
  kDueRetransmit = 1u << 6,  // fast retransmit: the segment at snd_una, whatever cwnd says
  kDueProbe = 1u << 7,       // a zero-window probe
  kDueKeepalive = 1u << 8,   // a keepalive probe
  kDueLossProbe = 1u << 11,  // a tail loss probe (RFC 8985 7.3)
  // Not due by themselves, but to go with what is:
  kDueEce = 1u << 9,        // every ACK says ECE, until the peer says CWR (RFC 3168 6.1.3)
  kDueCwr = 1u << 10,       // the next new data says CWR (RFC 3168 6.1.2)
  kDueAckAtMax = 1u << 12,  // the next ACK without data carries snd_max, whatever window the peer took back
};

// Tcb::flags
enum Flag : uint16_t {
  kFlagSack = 1u << 0,            // both sides may send SACK
  kFlagTimestamps = 1u << 1,      // both sides send timestamps
  kFlagEcn = 1u << 2,             // both sides react to marks (RFC 3168 6.1.1)
  kFlagFinQueued = 1u << 3,       // close() was called
  kFlagFinSent = 1u << 4,         // snd_max includes our FIN
  kFlagFinAcked = 1u << 5,        // snd_una includes our FIN
  kFlagPeerFin = 1u << 6,         // peer_fin_seq is known (it may still be ahead of rcv_nxt)
  kFlagPeerFinDone = 1u << 7,     // rcv_nxt includes the peer's FIN
  kFlagOrphan = 1u << 8,          // set_orphan()
  kFlagPersist = 1u << 9,         // retransmit_at is the persist timer; with nothing outstanding, the end of an idle RTO
  kFlagTiming = 1u << 10,         // rtt_seq, rtt_sent_us measure a segment
  kFlagSynLost = 1u << 11,        // our SYN or SYN-ACK was sent more than once
  kFlagCwndLimited = 1u << 12,    // cwnd held output back the last time there was any: for all ACKs until the next
  kFlagPartialAck = 1u << 13,     // this fast recovery saw a partial ACK
  kFlagWindowScaling = 1u << 14,  // both sides scale their windows
  kFlagKarn = 1u << 15,           // what was timed has been sent again: only timestamps can measure it
};

class alignas(64) Tcb {
 public:
  Tcb() = default;
  Tcb(const Tcb&) = delete;
  Tcb& operator=(const Tcb&) = delete;

  // --- line 0
  FourTuple tuple;
  State state = State::kClosed;
  Recovery recovery : 4 = Recovery::kOpen;
  bool probe_timer : 1 = false;      // retransmit_at is when a tail loss probe is due (RFC 8985 7.2)
  bool reordering_seen : 1 = false;  // RACK.reordering_seen (RFC 8985 6.2 step 3)
  // In SYN-RECEIVED: data goes both ways already (RFC 7413). Our SYN is not part of the sequence space then: snd_una is behind
  // it.
  bool fast_open : 1 = false;
  bool answered_at_max : 1 = false;  // the last answer to an unacceptable segment carried snd_max
  uint16_t due = 0;                  // Due bits
  uint32_t rcv_nxt = 0;
  uint32_t rcv_adv = 0;  // right edge of the window we advertised; never moves left
  uint32_t snd_una = 0;  // the SYN's own number until it is acknowledged
  uint32_t snd_nxt = 0;  // next to send; below snd_max while repeating after a timeout
  uint32_t snd_max = 0;  // next never sent
  uint32_t snd_wnd = 0;  // bytes, scaled

  // --- line 1
  TimeNs retransmit_at = base::kNever;  // RTO or persist timer
  TimeNs delayed_ack_at = base::kNever;
  TimeNs state_at = base::kNever;  // connect, user, FIN-WAIT-2 or TIME-WAIT time-out
  TimeNs last_received = 0;        // the keepalive counts from here
  uint32_t snd_wl1 = 0, snd_wl2 = 0;
  uint32_t ts_recent = 0;
  uint32_t last_ack_sent = 0;
  uint16_t flags = 0;           // Flag bits
  uint16_t snd_mss = 536;       // before options are deducted
  uint16_t our_mss = 0;         // what we announced
  uint16_t rcv_mss = 536;       // the peer's segment size as seen
  uint16_t ts_recent_hour = 0;  // hour in which ts_recent was set
  uint8_t snd_wscale : 4 = 0, rcv_wscale : 4 = 0;
  uint8_t challenge_second : 4 = 0, challenges : 4 = 0;  // rate limit of RFC 5961 7
  uint8_t dup_acks = 0;
  uint8_t keepalives_sent = 0;
  uint8_t timeouts = 0;  // in a row, without progress
  uint8_t probes = 0;    // zero-window probes in a row

  // --- line 2
  io::PacketQueue tx;  // from snd_una on (from snd_una + 1 while our SYN is not acknowledged)
  io::PacketQueue rx;
  uint32_t ts_offset = 0;
  uint32_t rcv_cap = 0;      // bytes: what the window is taken from now; grows up to rcv_limit()
  uint32_t rtt_seq = 0;      // acknowledged up to here: the measurement is done
  uint32_t rtt_sent_us = 0;  // clock_us() when it was sent

  // --- line 3
  const Profile* profile = nullptr;     // null: fresh
  Repair* repair = nullptr;             // borrowed from profile->repairs; null: all is well, or none was left
  uint32_t srtt_us = 0, rttvar_us = 0;  // 0: no measurement yet
  uint32_t rto_us = 0;
  Congestion congestion;
  uint32_t max_snd_wnd = 0;
  uint32_t last_sent_ms = 0;  // clock_ms() of the last segment with sequence space
  uint32_t recover = 0;       // snd_max when this recovery began
  union {
    uint32_t peer_fin_seq = 0;  // once the peer's FIN came
    uint32_t stray_reset_seq;   // before the handshake is done
  };
  uint32_t growth_started_us = 0;  // receive window growth: from then, when the reader stood at growth_seq
  uint32_t growth_seq = 0;         // while fast_open: behind the peer's SYN
  uint32_t retransmits = 0;
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // members have private parts; the layout is checked all the same
static_assert(offsetof(Tcb, retransmit_at) == 64 && offsetof(Tcb, tx) == 128 && offsetof(Tcb, profile) == 192,
              "the TCB's groups start on their cache lines");
#pragma GCC diagnostic pop
static_assert(sizeof(Tcb) == 256, "memory per connection: update the sum in README.md");

inline const Config& config(const Tcb& t) { return t.profile->config; }
// Sequence space that the peer has not acknowledged or that we have not sent: data or our FIN.
inline bool outstanding(const Tcb& t) { return !t.tx.empty() || (t.flags & (kFlagFinQueued | kFlagFinAcked)) == kFlagFinQueued; }
// When the connection has been quiet for too long. kNever while something is outstanding: that is the retransmission timer's
// affair, which finds out by itself.
inline TimeNs keepalive_at(const Tcb& t) {
  if (t.state < State::kEstablished || t.state == State::kTimeWait || outstanding(t)) return base::kNever;
  const Config& c = config(t);
  if (c.keepalive_idle_ns == 0) return base::kNever;
  return base::time_add(t.last_received, c.keepalive_idle_ns + t.keepalives_sent * c.keepalive_interval_ns);
}

// --- of tcp.h, what is called per segment
inline State state(const Tcb& t) { return t.state; }
inline const Profile* profile(const Tcb& t) { return t.profile; }
inline const FourTuple& tuple(const Tcb& t) { return t.tuple; }
inline io::PacketQueue& tx_queue(Tcb& t) { return t.tx; }
inline io::PacketQueue& rx_queue(Tcb& t) { return t.rx; }
inline uint32_t bytes_unacked(const Tcb& t) { return static_cast<uint32_t>(t.tx.bytes()); }
inline bool output_pending(const Tcb& t) { return (t.due & kDueOutput) != 0; }
inline uint16_t effective_mss(const Tcb& t) {
  return static_cast<uint16_t>(t.snd_mss - ((t.flags & kFlagTimestamps) != 0 ? wire::kTcpTimestampsLength : 0));
}
inline uint32_t stream_received(const Tcb& t) { return t.rcv_nxt - ((t.flags & kFlagPeerFinDone) != 0 ? 1 : 0); }
inline uint32_t stream_sent(const Tcb& t) { return t.snd_max - ((t.flags & kFlagFinSent) != 0 ? 1 : 0); }
inline uint32_t retransmits(const Tcb& t) { return t.retransmits; }
inline uint32_t cwnd(const Tcb& t) { return t.congestion.cwnd; }
inline Glance glance(const Tcb& t) {
  return {.state = t.state,
          .recovery = static_cast<uint8_t>(t.recovery),
          .timeouts = t.timeouts,
          .probes = t.probes,
          .keepalives = t.keepalives_sent,
          .window_shut = t.snd_wnd == 0,
          .retransmits = t.retransmits,
          .out_of_order = t.repair != nullptr ? t.repair->reassembly.bytes() : 0};
}
inline TimeNs next_deadline(const Tcb& t) {
  const TimeNs next = std::min(std::min(t.retransmit_at, t.delayed_ack_at), std::min(t.state_at, keepalive_at(t)));
  return t.repair == nullptr ? next : std::min(next, std::min(t.repair->reorder_at, t.repair->pace_at));
}

}  // namespace millrace::tcp
