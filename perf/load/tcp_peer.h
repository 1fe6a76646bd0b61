// TCP as a generator needs it (RFC 9293, 5681, 7323's window scale), for clients and servers alike: handshake, data in order,
// acknowledgements that ride on data or wait for it, retransmission by timer and by three duplicates, the peer's window, FIN and
// RST both ways. It keeps no bytes: what is sent is made again from the messages of the connection. It says nothing in silence:
// each loss, repetition and reset counts.
//
// What it does not do, because a generator need not: SACK, timestamps, keep-alive probes, urgent data, reordering (a segment that
// comes early is dropped, counted, and the peer told what is missing).
//
//   burst ─▶ input(segment) … ─▶ finish_burst(): one output() for each connection that was touched,
//                                so answers and acknowledgements of a burst share their segments
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "perf/load/connection_table.h"
#include "perf/load/options.h"
#include "perf/load/run_result.h"
#include "perf/load/wire.h"

namespace millrace::load {

class HttpClient;
class HttpServer;
class TlsPeer;

inline constexpr uint32_t kSynTimeoutMs = 1000;  // RFC 6298 2.1
inline constexpr uint32_t kRtoMs =
    250;  // above the 200 ms of RFC 6298's common implementations and every delayed acknowledgement
inline constexpr uint32_t kMaxRtoMs = 8000;
inline constexpr uint8_t kMaxBackoff = 7;  // then the connection is given up
inline constexpr uint32_t kDelayedAckMs = 20;
inline constexpr uint32_t kInitialWindow = 10;      // segments, RFC 6928
inline constexpr uint32_t kPlainChunk = 16 * 1024;  // one TLS record
inline constexpr uint32_t kRetryMs = 100;           // a slot whose connection could not be opened waits so long

// The bytes of one message: up to two pieces of head, a body of the pattern, a tail.
struct MessageBytes {
  const uint8_t* piece[2] = {};
  uint32_t piece_bytes[2] = {};
  uint32_t rotation = 0, body = 0;
  const uint8_t* tail = nullptr;
  uint32_t tail_bytes = 0;
  uint32_t total() const { return piece_bytes[0] + piece_bytes[1] + body + tail_bytes; }
};

// What all parts of the engine share. `now` is read once a loop iteration.
struct Shared {
  const Options& options;
  Counters& counters;
  ConnectionTable& table;
  std::vector<std::unique_ptr<Wire>>& wires;
  TlsPeer* tls = nullptr;
  base::TimeNs now = 0;
  uint32_t now_ms = 1;
  bool stopping = false;  // no new requests, no new connections
};

class TcpPeer {
 public:
  explicit TcpPeer(Shared& shared);
  void set_applications(HttpClient* client, HttpServer* server) { client_ = client, server_ = server; }

  // A whole burst; takes ownership of the packets.
  void input_burst(uint8_t wire, std::span<Segment> burst);

  // Client: the connection has its addresses, ports and mss; sends SYN.
  void connect(uint32_t i);
  // Sends what may be sent now.
  void output(uint32_t i);
  // Queues a message behind what is queued. Null: no room for it.
  Message* append(Connection& c, base::TimeNs time, uint32_t what, const MessageBytes& bytes);
  // False while a message is not yet wholly in segments that were sent (TLS: encrypted), so that nobody can have heard it out.
  bool was_sent(const Connection& c, const Message& m) const { return seq_le(m.end, c.tls == kNone ? c.snd_una : c.plain_sent); }
  // FIN behind what is queued; nothing may be queued afterwards.
  void close(uint32_t i);
  // RST, and forgets the connection. Tells the application.
  void abort(uint32_t i);
  // output() at the end of this burst, or of this loop iteration.
  void touch(uint32_t i) {
    Connection& c = table_[i];
    if ((c.flags & kTouched) != 0) return;
    c.flags |= kTouched;
    touched_.push_back(i);
  }
  void finish_burst();
  void on_deadline(uint32_t i);
  // Connections that stopped because a wire was congested.
  void unblock();

 private:
  void input(uint32_t i, uint8_t wire, Segment& s);
  void input_open(uint32_t i, Connection& c, Segment& s);
  void input_syn_sent(uint32_t i, Connection& c, const Segment& s);
  void on_stranger(uint8_t wire, const Segment& s);
  bool accept(uint8_t wire, const Segment& s);
  void read_syn_options(Connection& c, const Segment& s);
  void acknowledge(uint32_t i, Connection& c, const Segment& s, bool may_be_duplicate);
  void deliver(uint32_t i, Connection& c, const Segment& s, uint32_t skip);
  void send_syn(uint32_t i, Connection& c);
  // `n` bytes of the stream from `seq`; 0 for none. Returns false when no packet was to be had.
  bool send_segment(uint32_t i, Connection& c, uint32_t seq, uint32_t n, uint8_t flags);
  bool append_chain(Wire& wire, Connection& c, rte_mbuf* head, uint32_t seq, uint32_t n);
  bool append_references(Wire& wire, Connection& c, rte_mbuf* head, uint32_t seq, uint32_t n);
  template <class Sink>
  bool walk_messages(Connection& c, uint32_t seq, uint32_t n, Sink sink);
  void send_bare(Wire& wire, const Wire::Headers& h);
  void send_ack(uint32_t i, Connection& c) { send_segment(i, c, c.snd_nxt, 0, 0x10); }
  void copy_stream(Connection& c, uint32_t seq, uint32_t n, uint8_t* out);
  void copy_messages(Connection& c, uint32_t seq, uint32_t n, uint8_t* out);
  // TLS: a connection's session, what it received, and plaintext that can be encrypted now.
  bool open_session(uint32_t i, Connection& c);
  void receive_tls(uint32_t i, Connection& c, base::ByteSpan payload);
  void encrypt(uint32_t i, Connection& c);
  uint32_t plain_end(Connection& c) { return c.in_flight == 0 ? c.plain_sent : table_.message(c, c.in_flight - 1u).end; }
  void take_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  void finish(uint32_t i);
  void forget(uint32_t i, Connection& c);
  void arm_rto(uint32_t i, Connection& c, uint32_t base_ms);
  uint32_t timeout_ms() const { return static_cast<uint32_t>(shared_.options.timeout_ns / base::kMillisecond) + 1; }
  // RFC 9293 3.4.1 with a tick of 64 ns: an address and port that come again lie above what a peer's TIME-WAIT remembers of them,
  // also from the run before (main's clock goes on where its left off).
  uint32_t initial_sequence() const { return static_cast<uint32_t>(shared_.now >> 6); }
  bool is_server(const Connection& c) const { return (c.flags & kServer) != 0; }

  Shared& shared_;
  Counters& counters_;
  ConnectionTable& table_;
  HttpClient* client_ = nullptr;
  HttpServer* server_ = nullptr;
  uint8_t window_shift_;
  uint16_t advertised_;  // scaled; in SYN segments 65,535 at most
  // A session cannot be closed while it delivers: the handle then waits here.
  uint32_t delivering_ = kNone, close_later_ = kNone;
  std::unique_ptr<uint8_t[]> plain_;  // kPlainChunk bytes on their way into a session
  std::vector<uint32_t> touched_;     // reserved at start: never more than a burst and what the loop touches
  std::vector<uint32_t> blocked_, unblocking_;
};

}  // namespace millrace::load
