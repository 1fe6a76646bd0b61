// One connection of a client or a server: two cache lines, so that a million idle ones take 128 MB. The first line is all that a
// segment of an open connection needs of TCP, the second is HTTP's. No buffer belongs to a connection: what it sends is made
// again from templates when it has to be sent again, what it receives is checked and let go.
#pragma once

#include <cstdint>

#include "perf/load/wire.h"

namespace millrace::load {

inline constexpr uint32_t kNone = UINT32_MAX;
inline constexpr uint32_t kNoSession = UINT32_MAX - 1;  // Connection::tls: TLS, but no session yet

enum class State : uint8_t {
  kFree,         // no connection
  kWaiting,      // client: opens again at rto_at_ms, after a failure
  kSynSent,      // client
  kSynReceived,  // server
  kOpen,         // established, or on its way to its end: the flags say
};

// What a receiver of HTTP expects next.
enum class Parse : uint8_t { kHead, kBody, kUntilClose, kChunkSize, kChunkData, kChunkEnd, kTrailer };

enum ConnectionFlag : uint16_t {
  kServer = 1 << 0,
  kV6 = 1 << 1,
  kIdle = 1 << 2,         // opened for --idle
  kIdleDone = 1 << 3,     // its one request is answered
  kFinQueued = 1 << 4,    // FIN follows the last byte of snd_end
  kPeerFin = 1 << 5,      // the peer's FIN was received
  kAckNow = 1 << 6,       // an acknowledgement is due with the end of this burst
  kAckLater = 1 << 7,     // or with the next segment, or at ack_at_ms
  kTouched = 1 << 8,      // in the burst's list
  kBlocked = 1 << 9,      // in the list of those that wait for the wire
  kReady = 1 << 10,       // in the open loop's list of those that can take a request
  kLastAnswer = 1 << 11,  // no further request: the peer, or we, said Connection: close
  kRecovery = 1 << 12,    // fast recovery until `recover` is acknowledged
  kBadBody = 1 << 13,     // of the response that is being received
  kBodyless = 1 << 14,    // HEAD: no body follows the head
  kSettled = 1 << 15,     // client: the slot's first connection has opened or failed, for the ramp
};

// One request (client) or answer (server) in the stream of bytes that is sent.
struct Message {
  uint64_t time_ns;  // client: from when its latency counts; server: when the answer may go
  uint32_t what;     // client: line of the targets; server: rotation and kAnswer… flags
  uint32_t end;      // sequence number behind its last byte; TLS: place in the plaintext
};

inline constexpr uint32_t kCloseBit = 1u << 31;   // Message::what: with Connection: close
inline constexpr uint32_t kNoBodyBit = 1u << 30;  // the answer to HEAD

struct alignas(64) Connection {
  AddressId local, remote;
  uint16_t local_port, remote_port;
  State state;
  uint8_t wire;
  uint16_t flags;
  // RFC 9293 3.3.1. snd_max: highest ever sent (snd_nxt goes back after a timeout). snd_end: end of what there is to send,
  // without FIN.
  uint32_t snd_una, snd_nxt, snd_max, snd_end;
  uint32_t snd_wnd, rcv_nxt;
  uint32_t cwnd, ssthresh;  // bytes
  uint16_t mss;
  uint8_t snd_shift;
  uint8_t duplicate_acks;
  uint8_t backoff;
  uint8_t ack_segments;  // received and not acknowledged
  Parse parse;
  uint8_t in_flight;   // messages that are not done: client: unanswered; server: not acknowledged
  uint32_t rto_at_ms;  // 0: nothing to be acknowledged
  uint32_t ack_at_ms;  // 0: no acknowledgement owed

  Message first;           // the only message, while there is no ring
  uint32_t ring;           // of messages, kNone: none
  uint32_t ring_head;      // of the oldest message in the ring
  uint32_t body_left;      // bytes of the body (or chunk) that are still to come
  uint32_t body_done;      // bytes of the body that came
  uint16_t rotation;       // of the body that is coming
  uint16_t status;         // of the response that is coming
  uint32_t carry;          // buffer with the beginning of a head, kNone: none
  uint32_t tls;            // TlsPeer::Handle, kNoSession, or kNone: plaintext
  uint32_t generation;     // client: of the slot; part of the address and port
  uint32_t requests_left;  // client: that may still begin on this connection; server: answers until it closes
  uint32_t recover;        // RFC 6582; after close(): when it was called, in ms
  uint32_t plain_sent;     // TLS: place in the plaintext up to which it is encrypted
  uint32_t began_us;       // client: when the SYN was sent
};
static_assert(sizeof(Connection) == 128);

inline bool seq_lt(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
inline bool seq_le(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) <= 0; }

}  // namespace millrace::load
