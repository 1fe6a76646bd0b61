// Looking into a running data plane: what control asks for (through the command ring, as link.h's commands) and what workers
// answer (through one inspection ring each, lib/shm/spsc_ring.h, made by the data plane and handed out with the welcome). Plain
// structs, little endian, fixed sizes; texts follow their record.
//
//   control ── InspectConnections{id, action, filter} ─▶ loader ─▶ every worker: walks its pool in slices
//           ◀── ConnectionRecord … TraceRecord … InspectDone{id} ── inspection ring of each worker
//           ── StartCapture{id, filter, bounds} ──▶ loader ─▶ every worker: taps its ports
//           ◀── PacketRecord … TlsKeyRecord … CaptureDone{id} ────
//           ── StopInspection{id} ──▶
//
// A worker never waits for room: a walk goes on when there is room again, a packet that finds none is counted as dropped.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/ip_address.h"
#include "lib/table/layout.h"
#include "lib/table/link.h"
#include "lib/table/packet_filter.h"

namespace millrace::table {

// Bytes of a worker's inspection ring: 5 ms of 25 Gbit/s. Sparse: costs nothing until something is asked for.
inline constexpr uint64_t kInspectRing = 16ull << 20;

// A connection as a person names it: `worker-slot-tag`, e.g. 0-17-3fa90c21. The tag tells apart those that use one place of the
// pool one after another.
struct ConnectionId {
  uint32_t slot = UINT32_MAX;  // UINT32_MAX: none
  uint32_t tag = 0;
};

// ---- questions, control -> loader -> workers ---------------------------------------------------------------------------------
enum class InspectAction : uint32_t { kList = 1, kShow, kKill };                                          // kShow: with the trace
enum class ConnectionSort : uint32_t { kNone, kRtt, kRetransmits, kAge, kQueued, kCwnd, kIdle, kCount };  // largest first
inline constexpr uint32_t kMaxSorted = 1'024;  // records of a sorted question, from each worker

struct ConnectionFilter {
  uint64_t workers = UINT64_MAX;                       // bit mask
  ConnectionId id;                                     // slot UINT32_MAX: any
  uint32_t states = UINT32_MAX;                        // bit mask over tcp::State
  uint32_t role = 0;                                   // 0: any, 1: downstream, 2: upstream, as dataplane::Role
  ObjectId listener = kNoObject, cluster = kNoObject;  // kNoObject: any
  base::IpAddress peer, local;                         // networks
  uint8_t peer_bits = 0, local_bits = 0;               // of the family's own form
  uint8_t has_peer = 0, has_local = 0;
  uint16_t peer_port = 0, local_port = 0;  // 0: any
};

struct InspectConnections {
  CommandType type = CommandType::kInspectConnections;
  InspectAction action = InspectAction::kList;
  uint64_t id = 0;     // of the question, never 0
  uint32_t limit = 0;  // records from each worker; what matches beyond is only counted. Of kKill: connections, UINT32_MAX: all
  ConnectionSort sort = ConnectionSort::kNone;
  ConnectionFilter filter;
};

inline constexpr uint32_t kMaxCapturePorts = 16;
struct StartCapture {
  CommandType type = CommandType::kStartCapture;
  uint32_t snap = 0;  // bytes kept of each frame, at least 1
  uint64_t id = 0;
  uint64_t max_packets = 0, max_bytes = 0;  // from each worker; bytes as kept
  uint64_t duration_ns = 0;                 // 0: until it is stopped
  uint32_t ports = UINT32_MAX;              // bit mask
  uint32_t tls_keys = 0;  // 1: of handshakes while it runs; the loader makes it 2 where the configuration forbids it
  PacketFilter filter;
};
// Ends whatever goes by that id (0: everything); what it had still to say is not said, but for a capture's CaptureDone.
struct StopInspection {
  CommandType type = CommandType::kStopInspection;
  uint32_t reserved = 0;
  uint64_t id = 0;
};

// ---- answers, worker -> control ----------------------------------------------------------------------------------------------
enum class InspectType : uint32_t { kConnection = 1, kTrace, kDone, kPacket, kTlsKey, kCaptureDone };

struct InspectHeader {
  InspectType type{};
  uint32_t worker = 0;
  uint64_t id = 0;  // of the question
};

// By number of tcp::State.
inline constexpr const char* kTcpStateNames[] = {"CLOSED",     "SYN-SENT",   "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1",
                                                 "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING",      "LAST-ACK",    "TIME-WAIT"};
inline constexpr uint32_t kTcpStates = 10;

enum class SessionPhase : uint8_t { kNone, kInspect, kHandshake, kHttp, kTunnel, kLinger, kConnecting, kIdle, kActive, kHttp2 };

struct ConnectionRecord {  // followed by sni_size bytes of server name, then alpn_size bytes
  InspectHeader header;
  ConnectionId connection, peer;  // peer: the other side of the proxied exchange or tunnel now under way
  base::IpAddress local, remote;
  uint16_t local_port = 0, remote_port = 0;
  uint16_t port = 0;  // index of the port of the local address
  uint8_t state = 0;  // tcp::State
  uint8_t role = 0;   // dataplane::Role; 0: the stack finishes it alone
  SessionPhase phase = SessionPhase::kNone;
  uint8_t recovery = 0;  // tcp::Recovery
  uint8_t snd_wscale = 0, rcv_wscale = 0;
  uint8_t sack = 0, timestamps = 0, window_scaling = 0, congestion = 0;  // congestion: tcp::CongestionAlgorithm
  uint8_t backoff = 0, probes = 0, keepalives = 0;  // RTO doublings, zero-window and keepalive probes in a row
  uint8_t sni_size = 0, alpn_size = 0;
  uint8_t stream_known = 0;  // stream_sent, stream_received count from the connection's beginning; 0: from anywhere
  uint16_t mss = 0, peer_mss = 0;
  uint16_t tls_version = 0, tls_cipher = 0;  // wire values; 0: no TLS, or not negotiated yet
  uint32_t cwnd = 0, ssthresh = 0;           // bytes; ssthresh UINT32_MAX: none
  uint32_t snd_wnd = 0, rcv_wnd = 0;         // bytes
  uint32_t snd_una = 0, snd_nxt = 0, rcv_nxt = 0;
  uint32_t unacked = 0;                                          // bytes sent and not acknowledged
  uint32_t sacked = 0;                                           // bytes above snd_una that the peer reported
  uint32_t send_queue = 0, receive_queue = 0, out_of_order = 0;  // bytes: not acknowledged, not read, received beyond a gap
  uint32_t srtt_us = 0, rttvar_us = 0, rto_us = 0;
  uint32_t retransmits = 0;  // segments
  uint32_t reordering = 0;   // duplicates that the peer reported
  uint32_t requests = 0;     // HTTP
  uint64_t age_ns = 0;       // 0: not known
  uint64_t idle_ns = 0;      // since the last segment of the peer
  int64_t retransmit_in_ns = -1, delayed_ack_in_ns = -1, state_in_ns = -1, keepalive_in_ns = -1;  // timers; -1: off
  uint32_t persist = 0;  // the retransmission timer is the persist timer
  uint32_t queued_total = 0;
  uint64_t stream_sent = 0, stream_received = 0;  // bytes; modulo 2^32 but for tunnels
  uint64_t session_id = 0;                        // %CONNECTION_ID%; 0: none
  ObjectId listener = kNoObject, cluster = kNoObject;
};

enum class TraceKind : uint8_t {
  kOpened = 1,     // from: 1 SYN received, 2 SYN cookie, 3 active; a: our first sequence number, b: the peer's
  kState,          // from, to: tcp::State
  kRetransmit,     // a: snd_una, b: segments at once, c: cwnd, d: bytes in flight
  kTimeout,        // a: snd_una, b: RTO in µs from now on, c: cwnd, d: timeouts in a row
  kFastRecovery,   // a: recover, b: ssthresh, c: cwnd, d: bytes in flight
  kRecovered,      // a: snd_una, b: ssthresh, c: cwnd
  kZeroWindow,     // the peer closed its window. a: snd_una, d: bytes not acknowledged
  kWindowOpened,   // a: snd_una, b: window
  kProbe,          // zero-window probe. b: RTO in µs, d: how many in a row
  kKeepalive,      // d: how many in a row
  kOurWindowShut,  // we advertise no window. d: bytes unread
  kDropped,        // a: drop reason of the segment or its payload
  kResetReceived,  // from: state
  kResetSent,      // to: ResetCause, from: state
  kTimedOut,       // gave up: from: state
  kPathMtu,        // a: MTU
  kCount
};
enum class ResetCause : uint8_t { kSession = 1, kOperator, kDataAfterClose, kBadSegment, kTimeout };

struct TraceEntry {
  uint64_t time_ns = 0;  // of the worker's monotonic clock
  uint32_t slot = 0, tag = 0;
  TraceKind kind{};
  uint8_t from = 0, to = 0, reserved = 0;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  uint32_t reserved2 = 0;
};
static_assert(sizeof(TraceEntry) == 40);

struct TraceRecord {
  InspectHeader header;
  uint64_t ago_ns = 0;
  TraceEntry entry;
};

struct InspectDone {
  InspectHeader header;
  uint64_t matched = 0;   // connections
  uint64_t reported = 0;  // records sent
  uint64_t killed = 0;
  uint64_t time_wait = 0;            // TIME-WAIT entries that match; they have no record of their own
  uint64_t trace_begins_ago_ns = 0;  // kShow: how far back the worker's trace goes
  uint32_t refused = 0;              // 1: as many questions are under way as a worker takes
  uint32_t reserved = 0;
};

enum class FrameDirection : uint32_t { kInbound = 1, kOutbound = 2 };  // as pcapng's epb_flags
struct PacketRecord {                                                  // followed by `kept` bytes
  InspectHeader header;
  uint64_t wall_ns = 0;  // Unix time
  uint32_t port = 0;
  uint32_t length = 0, kept = 0;
  FrameDirection direction{};
};
struct TlsKeyRecord {  // followed by `size` bytes: a line of the NSS key log format, without newline
  InspectHeader header;
  uint32_t size = 0, reserved = 0;
};
struct CaptureDone {
  InspectHeader header;
  uint64_t seen[kMaxCapturePorts] = {};     // frames by port
  uint64_t taken[kMaxCapturePorts] = {};    // of them, those that the filter let pass
  uint64_t dropped[kMaxCapturePorts] = {};  // of those, lost because the ring was full
  uint32_t refused = 0;                     // 1: another capture runs, 2: TLS keys are not permitted
  uint32_t reserved = 0;
};

}  // namespace millrace::table
