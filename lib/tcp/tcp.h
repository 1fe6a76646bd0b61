// The public face of lib/tcp: what the data plane, the simulator and the load generator call. Sans-I/O (STYLE rule 1): every
// function is a function of (TCB, segment or application call, now); nothing here reads a clock, allocates a TCB, sends, or calls
// upward.
//
// One life of a TCB, as its owner sees it:
//   passive:  Listener decides on a SYN -> open_passive(tcb) or a stateless SYN cookie; later accept_cookie(tcb)
//   active:   open_active(tcb)
//   then      loop { input(segment) ; react to its events ; send/consume/close/abort ; while (poll_output(..)) transmit ; }
//             on_deadline() whenever next_deadline() <= now
//   end       kEventClosed (or state() == kClosed after close() or abort()): the owner calls poll_output() until false, because a
//   last
//             RST may be due, then release(), and may reuse the memory.
//
// Ownership: payload packets go in through input() and send() and come out through rx_queue(); between, the TCB owns them. A TCB
// with nothing queued holds no packet (an idle connection holds no buffer).
#pragma once

#include <cstdint>

#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/io/packet_queue.h"
#include "lib/stats/drop_reason.h"
#include "lib/tcp/congestion/congestion.h"
#include "lib/wire/tcp.h"

namespace millrace::tcp {

using base::TimeNs;

// Connection states of RFC 9293 3.3.2. LISTEN is not a TCB state here: a listener is a Listener (listener.h).
enum class State : uint8_t {
  kClosed,
  kSynSent,
  kSynReceived,
  kEstablished,
  kFinWait1,
  kFinWait2,
  kCloseWait,
  kClosing,
  kLastAck,
  kTimeWait,
};
const char* to_string(State s);  // "ESTABLISHED", "FIN-WAIT-1", ...

struct FourTuple {
  base::IpAddress local, remote;
  uint16_t local_port = 0, remote_port = 0;  // host order
  friend bool operator==(const FourTuple& a, const FourTuple& b) {
    return ((a.local.word(0) ^ b.local.word(0)) | (a.local.word(1) ^ b.local.word(1)) | (a.remote.word(0) ^ b.remote.word(0)) |
            (a.remote.word(1) ^ b.remote.word(1)) | uint64_t(a.local_port ^ b.local_port) |
            uint64_t(a.remote_port ^ b.remote_port)) == 0;
  }
};

// What an input, a deadline or an output call brought about; bits, because several can come with one segment.
enum Event : uint32_t {
  kEventConnected = 1u << 0,  // reached ESTABLISHED
  kEventReadable = 1u << 1,   // rx_queue() grew
  kEventSendSpace = 1u << 2,  // acknowledged data left the send queue
  kEventPeerFin = 1u << 3,    // the peer will send no more; what it sent is in rx_queue()
  kEventReset = 1u << 4,      // the peer reset the connection (or refused it, in SYN-SENT)
  kEventTimedOut = 1u << 5,   // gave up: SYN, data or keepalive went unanswered (user timeout, RFC 9293 3.8.3)
  kEventClosed = 1u << 6,     // the TCB is CLOSED: nothing more will be accepted; poll_output() a last time, then release() it
  kEventTimeWait = 1u << 7,   // entered TIME-WAIT: the owner may move to a TimeWaitEntry and free the TCB
  kEventReopen = 1u << 8,     // with kEventClosed, in TIME-WAIT: the SYN may open a new connection (RFC 6191); for the listener
};

// Explicit congestion notification (RFC 3168): whether a connection may agree on it. BBR does not react to marks, so its
// connections never do.
enum class EcnMode : uint8_t {
  kOff,
  kAccept,   // when the peer asks for it
  kRequest,  // our SYN asks for it too
};

// Limits and timers of a connection. Defaults are the gateway's own; their sum is explained in README.md.
struct Config {
  uint16_t mss = 1460;                   // what we announce: port MTU less IP and TCP header (RFC 6691)
  uint32_t rcv_buf = 256 * 1024;         // bytes: most we let the peer have in flight or unread towards us
  uint32_t rcv_wnd_initial = 64 * 1024;  // bytes: first advertised window, grows towards rcv_buf while the reader keeps up
  uint32_t snd_buf = 256 * 1024;         // bytes: most the application may queue unacknowledged
  bool sack = true, timestamps = true, window_scaling = true;
  bool delayed_ack = true, nodelay = true;  // nodelay: no Nagle (a proxy forwards what it has)
  TimeNs delayed_ack_ns = 40 * base::kMillisecond;
  TimeNs rto_min_ns = 200 * base::kMillisecond, rto_initial_ns = base::kSecond, rto_max_ns = 60 * base::kSecond;  // RFC 6298
  TimeNs connect_timeout_ns = 30 * base::kSecond;  // SYN or SYN-ACK unanswered
  TimeNs user_timeout_ns = 120 * base::kSecond;    // data unacknowledged, or zero window never opened
  TimeNs keepalive_idle_ns = 300 * base::kSecond, keepalive_interval_ns = 30 * base::kSecond;  // idle 0: off
  uint8_t keepalive_probes = 4;
  TimeNs fin_wait_2_ns = 60 * base::kSecond;  // after our application let go (orphan)
  TimeNs time_wait_ns = 60 * base::kSecond;   // 2 MSL
  CongestionAlgorithm congestion = CongestionAlgorithm::kCubic;
  EcnMode ecn = EcnMode::kAccept;
  // Of a listener: connections whose data came with the SYN and whose handshake is not complete, at one time (RFC 7413 5.1). 0:
  // no fast open.
  uint16_t fast_open_queue = 0;
};

class RepairPool;  // repair.h

// What the connections of a kind share: they point to it, so it outlives them and does not change while they live.
struct Profile {
  Config config;
  RepairPool* repairs = nullptr;  // of the worker; may be null (tests): then nobody ever gets anything from it
};

class Tcb;  // tcb.h: cache-line layout; opaque to callers but for the accessors below (inline ones are defined there) and its
            // size

// --- opening ------------------------------------------------------------------------------------------------------------
// `iss`, `ts_offset`: from isn.h (RFC 6528, RFC 7323 5.4); the listener's decision carries both. The TCB must be fresh (default
// constructed or released). Output is then due. `most_mss`: of the port, where that may be less than the profile's mss.
// `connect_timeout_ns`: instead of the profile's.
inline constexpr TimeNs kProfileTimeout = base::kNever;
void open_active(Tcb&, const FourTuple&, const Profile&, uint32_t iss, TimeNs now, uint32_t ts_offset = 0,
                 uint16_t most_mss = UINT16_MAX, TimeNs connect_timeout_ns = kProfileTimeout);  // -> SYN-SENT
void open_passive(Tcb&, const FourTuple&, const Profile&, const wire::TcpView& syn, uint32_t iss, TimeNs now,
                  uint32_t ts_offset = 0, uint16_t most_mss = UINT16_MAX);  // -> SYN-RECEIVED
// open_passive() of a SYN whose fast open cookie is good (RFC 7413 4.2.2): `data`, exactly the segment's (may be none), is
// received now, and what the application answers goes out behind the SYN-ACK, before the handshake is complete. Returns Event
// bits: kEventConnected, which does not come again, and kEventReadable.
uint32_t open_fast(Tcb&, const FourTuple&, const Profile&, const wire::TcpView& syn, io::PacketPtr data, uint32_t iss, TimeNs now,
                   uint32_t ts_offset = 0, uint16_t most_mss = UINT16_MAX);  // -> SYN-RECEIVED
// The ACK that completes a SYN cookie handshake (checked by SynCookies::check, which yields the options): ESTABLISHED at once;
// the payload of that very segment then goes through input() as any other.
struct CookieOptions {
  uint16_t mss;
  uint8_t snd_wscale;
  bool window_scaling, sack, timestamps, ecn;
};
void open_cookie(Tcb&, const FourTuple&, const Profile&, const wire::TcpView& ack, const CookieOptions&, TimeNs now,
                 uint32_t ts_offset = 0, uint16_t most_mss = UINT16_MAX);  // -> ESTABLISHED

// --- input, time, output -------------------------------------------------------------------------------------------------
struct InputResult {
  uint32_t events = 0;                                // Event bits
  stats::DropReason drop = stats::DropReason::kNone;  // why the segment, or its payload, was not used
};
// `segment` is checked (length, checksum, options) and belongs to this tuple. `payload` holds exactly the segment's data bytes
// (empty PacketPtr when there are none) and is consumed in any case. `congestion_marked`: the IP header said CE (RFC 3168 5).
InputResult input(Tcb&, const wire::TcpView& segment, io::PacketPtr payload, TimeNs now, bool congestion_marked = false);
// Header prediction: input() of a segment that lies in `frame`, `l4_length` bytes from `l4_offset` on (header and payload, 20 at
// least; behind it only padding; not marked CE), without parsing it. True: it was what nearly every segment is, is dealt with,
// the frame is the TCB's or freed, and `events` has its Event bits added. False: nothing happened; parse it and call input(). All
// of a header lies in the first mbuf.
bool input_predicted(Tcb&, rte_mbuf* frame, uint32_t l4_offset, uint32_t l4_length, TimeNs now, uint32_t& events);

inline TimeNs next_deadline(const Tcb&);  // earliest of all timers; kNever in no timer's interest
uint32_t on_deadline(Tcb&, TimeNs now);   // Event bits; call when next_deadline() <= now, then poll_output()

// The next segment due, already accounted as sent: call until false, transmit each. `payload_offset`/`payload_len` name bytes of
// tx_queue() (offset 0 is snd_una). Callers check for a free packet before calling; what the network then loses is retransmitted.
struct OutSegment {
  wire::TcpRepr header;  // ports, seq, ack, flags, window (already scaled), options
  uint32_t payload_offset = 0, payload_len = 0;
  bool ecn_capable = false;  // the IP header says ECT(0) (RFC 3168 6.1): new data of a connection that agreed on it
  // Payload bytes of each segment on the wire (TSO's tso_segsz) when payload_len is more. When it is not, and both are more than
  // effective_mss(), a larger segment is being tried (RFC 4821) and must not be cut.
  uint16_t segment_size = 0;
};
// `max_payload`: most payload bytes in one OutSegment. One MSS, unless the port does TSO: then a larger value, of which a
// multiple of segment_size is used.
bool poll_output(Tcb&, TimeNs now, OutSegment& out, uint32_t max_payload = 0);
inline bool output_pending(const Tcb&);  // cheap: poll_output might return true now

// --- the application's side ------------------------------------------------------------------------------------------------
uint32_t send_space(const Tcb&);         // bytes that send() takes now; 0 after close()
void send(Tcb&, io::PacketPtr payload);  // takes ownership; the whole packet is queued (may exceed snd_buf by < one packet)
size_t send_copy(Tcb&, base::ByteSpan, io::PacketPool&);  // copies min(space, pool); returns bytes taken
// As send(), of a copy: not bounded by send_space(), for a piece of a message that must not be cut in two (a head, the framing of
// a chunk). Whoever uses it looks at send_space() before it begins the next message. Returns bytes taken: all, unless the pool is
// empty.
size_t send_copy_whole(Tcb&, base::ByteSpan, io::PacketPool&);
// All three after close(), or in a state that cannot send, take nothing: the packet is freed, 0 is returned.
inline io::PacketQueue& tx_queue(Tcb&);     // unacknowledged + unsent, from snd_una on; only appended to by callers (send*)
inline uint32_t bytes_unacked(const Tcb&);  // in tx_queue, sent or not
inline io::PacketQueue& rx_queue(Tcb&);     // in-order received bytes; callers consume or move from the front, then:
// After taking bytes from rx_queue(): a window update may become due. `may_grow`: false while packet memory is short; the window
// then stays as large as it is (it never shrinks what was advertised).
void window_update(Tcb&, TimeNs now, bool may_grow = true);
void close(Tcb&, TimeNs now);       // FIN after what is queued (idempotent)
void abort(Tcb&, TimeNs now);       // RST if the state calls for one (RFC 9293 3.10.5); output is then due, then CLOSED
void set_orphan(Tcb&, TimeNs now);  // nobody reads any more: data that still arrives is answered with RST (RFC 1122 4.2.2.13)
void release(Tcb&);                 // frees every packet and resets to a fresh TCB

// --- what can be seen -----------------------------------------------------------------------------------------------------
inline State state(const Tcb&);
inline const Profile* profile(const Tcb&);  // it was opened with; null: fresh
inline const FourTuple& tuple(const Tcb&);
inline uint16_t effective_mss(const Tcb&);  // payload bytes per segment, options deducted
struct Info {                               // for millctl and traces; a copy
  State state;
  uint32_t snd_una, snd_nxt, snd_wnd, rcv_nxt, rcv_wnd, cwnd, ssthresh, bytes_in_flight, srtt_us, rttvar_us, rto_ms;
  uint64_t retransmits;
  uint32_t reordering_events;  // while `repairing`
  bool repairing;              // has borrowed from the pool of repair.h
  // The rest of what `ss -ti` says of a connection.
  uint32_t snd_una_bytes, rx_bytes, out_of_order, sacked;  // bytes: in both queues, beyond a gap, reported by the peer
  uint16_t mss, peer_mss;                                  // payload bytes a segment; what the peer's segments carry
  uint8_t snd_wscale, rcv_wscale, recovery, timeouts, probes, keepalives;
  bool sack, timestamps, window_scaling, persist;
  CongestionAlgorithm congestion;
  TimeNs last_received, retransmit_at, delayed_ack_at, state_at, keepalive_at;  // kNever: off
};
Info info(const Tcb&);
// A look at what is out of the ordinary, to be compared with another one: for traces and counters (dataplane/trace.h).
struct Glance {
  State state;
  uint8_t recovery;  // Recovery of tcb.h
  uint8_t timeouts, probes, keepalives;
  bool window_shut;                    // the peer's
  uint32_t retransmits, out_of_order;  // segments; bytes
  friend bool operator==(const Glance&, const Glance&) = default;
};
inline Glance glance(const Tcb&);
inline uint32_t retransmits(const Tcb&);  // segments sent again
inline uint32_t cwnd(const Tcb&);         // bytes
// Where both byte streams stand, modulo 2^32, for whoever counts bytes by differences: in-order bytes received and bytes sent
// (each once), from an arbitrary start. They mean something from ESTABLISHED on, and stay when the connection is closed.
inline uint32_t stream_received(const Tcb&);
inline uint32_t stream_sent(const Tcb&);
void on_path_mtu(Tcb&, uint16_t mtu, uint32_t quoted_seq,
                 TimeNs now);  // ICMP "fragmentation needed"/"packet too big" (RFC 1191, 8201; seq checked per RFC 5927)

// A reset that answers a segment nobody owns (RFC 9293 3.10.7.1). False when none may be sent (the segment was itself a RST).
bool make_reset(const wire::TcpView& segment, wire::TcpRepr& out);

}  // namespace millrace::tcp
