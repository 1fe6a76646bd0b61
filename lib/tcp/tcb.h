// The transmission control block, laid out by cache line. Only lib/tcp touches its members; callers use tcp.h.
//
//   line 0  who it is and where both sequence spaces stand: all that the lookup and the fast path of input() read
//   line 1  timers, what the peer's segments are checked with, negotiated options
//   line 2  send queue, round-trip time           line 3  receive queue, window growth
//   line 4  congestion control                    line 5  recovery and what is seldom looked at
//   line 6  out-of-order data                     lines 7, 8  SACK scoreboard, configuration
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/io/packet_queue.h"
#include "lib/tcp/congestion/congestion.h"
#include "lib/tcp/reassembly.h"
#include "lib/tcp/recovery.h"
#include "lib/tcp/tcp.h"

namespace millrace::tcp {

// What the sender is doing about losses.
enum class Recovery : uint8_t {
  kOpen,     // nothing known to be lost
  kFast,     // fast recovery until snd_una reaches `recover` (RFC 6675 with SACK, RFC 6582 without)
  kTimeout,  // after a retransmission timeout: snd_nxt went back and walks up again, skipping what is reported as received
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
};

// Tcb::flags
enum Flag : uint16_t {
  kFlagSack = 1u << 0,            // both sides may send SACK
  kFlagTimestamps = 1u << 1,      // both sides send timestamps
  kFlagPassive = 1u << 2,         // opened by a peer's SYN
  kFlagFinQueued = 1u << 3,       // close() was called
  kFlagFinSent = 1u << 4,         // snd_max includes our FIN
  kFlagFinAcked = 1u << 5,        // snd_una includes our FIN
  kFlagPeerFin = 1u << 6,         // peer_fin_seq is known (it may still be ahead of rcv_nxt)
  kFlagPeerFinDone = 1u << 7,     // rcv_nxt includes the peer's FIN
  kFlagOrphan = 1u << 8,          // set_orphan()
  kFlagPersist = 1u << 9,         // retransmit_at is the persist timer
  kFlagTiming = 1u << 10,         // rtt_seq, rtt_sent_at measure a segment
  kFlagSynLost = 1u << 11,        // our SYN or SYN-ACK was sent more than once
  kFlagCwndLimited = 1u << 12,    // cwnd held output back since the last ACK
  kFlagPartialAck = 1u << 13,     // this fast recovery saw a partial ACK
  kFlagWindowScaling = 1u << 14,  // both sides scale their windows
  kFlagKarn = 1u << 15,           // what was timed has been sent again: only timestamps can measure it
};

// Tcb::settings
enum Setting : uint8_t {
  kSettingDelayedAck = 1u << 0,
  kSettingNodelay = 1u << 1,
  kSettingSack = 1u << 2,
  kSettingTimestamps = 1u << 3,
  kSettingScaling = 1u << 4,
};

class alignas(64) Tcb {
 public:
  Tcb() = default;
  Tcb(const Tcb&) = delete;
  Tcb& operator=(const Tcb&) = delete;

  // --- line 0
  FourTuple tuple;
  State state = State::kClosed;
  Recovery recovery = Recovery::kOpen;
  uint16_t due = 0;  // Due bits
  uint32_t rcv_nxt = 0;
  uint32_t rcv_adv = 0;  // right edge of the window we advertised; never moves left
  uint32_t snd_una = 0;
  uint32_t snd_nxt = 0;  // next to send; below snd_max while repeating after a timeout
  uint32_t snd_max = 0;  // next never sent
  uint32_t snd_wnd = 0;  // bytes, scaled

  // --- line 1
  TimeNs retransmit_at = base::kNever;  // RTO or persist timer
  TimeNs delayed_ack_at = base::kNever;
  TimeNs state_at = base::kNever;      // connect, user, FIN-WAIT-2 or TIME-WAIT time-out
  TimeNs keepalive_at = base::kNever;  // earliest time to look at last_received again
  TimeNs last_received = 0;
  uint32_t snd_wl1 = 0, snd_wl2 = 0;
  uint32_t ts_recent = 0;
  uint32_t last_ack_sent = 0;
  uint16_t flags = 0;      // Flag bits
  uint16_t snd_mss = 536;  // before options are deducted
  uint8_t snd_wscale = 0, rcv_wscale = 0;
  uint8_t dup_acks = 0;
  uint8_t keepalives_sent = 0;

  // --- line 2
  io::PacketQueue tx;  // from snd_una on (from snd_una + 1 while our SYN is not acknowledged)
  TimeNs rtt_sent_at = 0;
  uint32_t rtt_seq = 0;                 // acknowledged up to here: the measurement is done
  uint32_t srtt_us = 0, rttvar_us = 0;  // 0: no measurement yet
  uint32_t rto_us = 0;

  // --- line 3
  io::PacketQueue rx;
  TimeNs growth_started_at = 0;  // receive window growth: bytes the reader took since then
  uint32_t growth_bytes = 0;
  uint32_t rcv_cap = 0;  // bytes: what the window is taken from now; grows up to rcv_buf
  uint32_t peer_fin_seq = 0;
  uint16_t rcv_mss = 536;                        // the peer's segment size as seen
  uint8_t challenge_second = 0, challenges = 0;  // rate limit of RFC 5961 7

  // --- line 4
  Congestion congestion;
  TimeNs last_sent = 0;

  // --- line 5
  uint32_t recover = 0;     // snd_max when this recovery began
  uint32_t high_rxt = 0;    // HighRxt of RFC 6675
  uint32_t rescue_rxt = 0;  // RescueRxt of RFC 6675
  uint32_t max_snd_wnd = 0;
  uint32_t ts_offset = 0;
  uint32_t iss = 0, irs = 0;
  uint32_t stray_reset_seq = 0;
  uint32_t ts_recent_s = 0;  // second in which ts_recent was set
  uint32_t retransmits = 0;
  uint64_t bytes_acked = 0, bytes_received = 0;
  uint16_t reordering_events = 0;
  uint8_t timeouts = 0;  // in a row, without progress
  uint8_t probes = 0;    // zero-window probes in a row

  // --- line 6
  Reassembly reassembly;

  // --- lines 7, 8
  Scoreboard scoreboard;
  uint32_t rcv_buf = 0, snd_buf = 0;
  uint32_t delayed_ack_us = 0, rto_min_us = 0, rto_max_ms = 0;
  uint32_t user_timeout_ms = 0, keepalive_idle_ms = 0, keepalive_interval_ms = 0, fin_wait_2_ms = 0, time_wait_ms = 0;
  uint16_t our_mss = 0;
  uint8_t settings = 0;  // Setting bits
  uint8_t keepalive_probes = 0;
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"  // members have private parts; the layout is checked all the same
static_assert(offsetof(Tcb, retransmit_at) == 64 && offsetof(Tcb, tx) == 128 && offsetof(Tcb, rx) == 192 &&
                  offsetof(Tcb, congestion) == 256 && offsetof(Tcb, recover) == 320 && offsetof(Tcb, reassembly) == 384 &&
                  offsetof(Tcb, scoreboard) == 448,
              "the TCB's groups start on their cache lines");
#pragma GCC diagnostic pop
static_assert(sizeof(Tcb) == 576, "memory per connection: update the sum in README.md");

}  // namespace millrace::tcp
