// A byte stream over one connection, plain or TLS: what the sessions read from and write to. It hides whether bytes are
// encrypted, and nothing else: who owns the connection, when it closes and what the bytes mean is the session's.
//
//   session  ── write()/write_copy() ──▶ [TlsChannel: plain_tx → records] ──▶ tcp::send
//            ◀── rx() + after_read() ─── [TlsChannel: plain_rx ← records] ◀── tcp::rx_queue
//
// Back-pressure is the same for both: tx_space() is what may be written now; bytes left in rx() close the peer's window.
#pragma once

#include <cstdint>
#include <string_view>

#include "dataplane/connection.h"
#include "dataplane/tcp_stack.h"
#include "dataplane/worker_limits.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/base/time.h"
#include "lib/io/packet_queue.h"
#include "lib/stats/counters.h"
#include "lib/tls/session.h"

namespace millrace::dataplane {

struct Session;

// The part of an EndpointPool (upstreams.h) that a client's connection knows, where the pool is its own.
struct ClientPool {
  base::ListNode of_client;
};

enum class SessionKind : uint8_t { kDownstream, kUpstreamHttp, kUpstreamTcp, kHealthCheck };

// The TLS half of a session; lent from a pool while the connection speaks TLS.
struct TlsChannel {
  tls::Session* session = nullptr;
  Session* owner = nullptr;
  io::PacketQueue plain_rx, plain_tx;
  base::ListNode deferred;      // in Transports::deferred_: wants another handshake step or more decryption
  base::ListNode corked;        // in Transports::corked_: plain_tx grew in this iteration
  bool close_after_tx = false;  // shutdown() was called: close_notify and FIN follow plain_tx
  bool established_reported = false;
  bool client = false;  // we began the handshake
};

// The front of every session: Connection::owner points here.
struct Session {
  explicit Session(SessionKind k) : kind(k) {}
  Connection* connection = nullptr;         // null once let go
  TlsChannel* tls = nullptr;                // null: plaintext
  uint32_t counted_rx = 0, counted_tx = 0;  // up to where in its byte streams the statistics have counted (tcp::stream_received)
  SessionKind kind;
  bool fin_received = false;  // the peer's FIN came
  bool peer_closed = false;   // rx() will not grow any more: FIN, or close_notify and all before it decrypted
  bool shut_down = false;     // our side is closed: nothing more may be written
};

// What a look at a connection's input brought, beyond its tcp::Event bits.
struct TransportEvents {
  bool handshake_done = false;
  bool failed = false;  // TLS failed; `error` says why; the alert is on its way
  tls::TlsError error = tls::TlsError::kNone;
};

// Bytes that went both ways since the last call, each once. Call at least once every 4 GiB: sessions do with each exchange, and
// when bytes_due() says so. The first call is preceded by start_counting(), when the connection is established.
struct MovedBytes {
  uint32_t rx = 0, tx = 0;
};
inline void start_counting(Session& s) {
  tcp::Tcb& t = s.connection->tcb;
  s.counted_rx = tcp::stream_received(t) - static_cast<uint32_t>(tcp::rx_queue(t).bytes());
  s.counted_tx = tcp::stream_sent(t);
}
inline MovedBytes take_moved(Session& s) {
  const tcp::Tcb& t = s.connection->tcb;
  const MovedBytes m{tcp::stream_received(t) - s.counted_rx, tcp::stream_sent(t) - s.counted_tx};
  s.counted_rx += m.rx;
  s.counted_tx += m.tx;
  return m;
}
inline bool bytes_due(const Session& s) {
  const tcp::Tcb& t = s.connection->tcb;
  return ((tcp::stream_received(t) - s.counted_rx) | (tcp::stream_sent(t) - s.counted_tx)) >> 30 != 0;
}

class Transports {
 public:
  Transports(TcpStack& stack, uint32_t tls_sessions, stats::CounterBlock<stats::TlsCounter>& counters);

  // Starts TLS as server on what the connection has received. False: no memory or session left (counted).
  bool start_tls_server(Session& s, tls::ServerContext& context);
  // Starts TLS as client on a connection that is established; pull() then brings the handshake on its way. `sni`: empty for none.
  // `alpn_wire`: offered instead of the context's list (RFC 7301 3.1: each name behind its length); empty: the context's. False:
  // no memory or session left (counted).
  bool start_tls_client(Session& s, tls::ClientContext& context, std::string_view sni, std::string_view alpn_wire = {});
  // The protocol that ALPN selected: "h2", "http/1.1"; empty: none, no TLS, or the handshake is not done. Valid while it speaks
  // TLS.
  std::string_view alpn(const Session& s) const {
    return s.tls != nullptr && s.tls->session->established() ? s.tls->session->alpn() : std::string_view();
  }

  // Brings rx() up to date. `events`: what the stack reported (kEventReadable, kEventPeerFin), 0 for a deferred session. Sets
  // peer_closed.
  TransportEvents pull(Session& s, uint32_t events, TimeNs now);

  io::PacketQueue& rx(Session& s) { return s.tls != nullptr ? s.tls->plain_rx : tcp::rx_queue(s.connection->tcb); }
  // After bytes left rx(): opens the peer's window, decrypts what waits. May make rx() grow again; true when it did.
  bool after_read(Session& s, TimeNs now);

  // Plaintext bytes that may be written now.
  uint64_t tx_space(const Session& s) const {
    if (s.shut_down) return 0;
    const uint64_t space = tcp::send_space(s.connection->tcb);
    if (s.tls == nullptr) return space;
    const uint64_t waiting = s.tls->plain_tx.bytes();
    return space > waiting ? space - waiting : 0;
  }
  // Bytes written and not yet acknowledged by the peer.
  uint64_t tx_pending(const Session& s) const {
    return tcp::bytes_unacked(s.connection->tcb) + (s.tls != nullptr ? s.tls->plain_tx.bytes() : 0);
  }
  // What TLS sessions write is encrypted by flush_records(), so that a head and its body share a record.
  void write(Session& s, io::PacketPtr packet, TimeNs now);
  // Copies all of it, also beyond tx_space(), or (pool empty) a part; returns the bytes taken. So a head or the framing of a
  // chunk is never cut; callers look at tx_space() before they begin with the next one.
  size_t write_copy(Session& s, base::ByteSpan bytes, TimeNs now);
  size_t write_copy(Session& s, std::string_view text, TimeNs now) { return write_copy(s, base::as_bytes(text), now); }
  // At the end of each iteration, before the stack's flush(): encrypts what was written in it.
  void flush_records(TimeNs now);
  // kEventSendSpace: lets records that waited for space go.
  void on_send_space(Session& s, TimeNs now);
  // Our side is over: what was written still goes, then close_notify (TLS) and FIN.
  void shutdown(Session& s, TimeNs now);
  // Lets go of the connection: what was written and FIN still go, the stack finishes alone.
  void detach(Session& s, TimeNs now);
  // Lets go with a reset.
  void abort(Session& s, TimeNs now);

  // Sessions whose handshake or decryption was put off by a bound. At the top of each iteration: pop at most what is there now,
  // pull() each.
  Session* pop_deferred();
  void begin_iteration() { handshakes_left_ = kMaxHandshakesPerLoop; }
  bool has_deferred() { return !deferred_.empty(); }

  TcpStack& stack() { return stack_; }
  uint32_t tls_in_use() const { return channels_.in_use(); }
  const tls::SessionPool& tls_sessions() const { return sessions_; }
  void set_key_log(const tls::SessionPool::KeyLog& log) { sessions_.set_key_log(log); }

 private:
  void pump_tx(Session& s, TimeNs now);
  void cork(TlsChannel& c) {
    if (!c.corked.linked()) corked_.push_back(c);
  }
  TlsChannel* take_channel();
  bool start_tls(Session& s, tls::Session* session, TlsChannel& channel, bool client);
  void send_cipher(Session& s, io::PacketQueue& out);
  void free_tls(Session& s);
  void count_failure(tls::TlsError e);

  TcpStack& stack_;
  base::Pool<TlsChannel> channels_;
  tls::SessionPool sessions_;
  base::List<TlsChannel, &TlsChannel::deferred> deferred_;
  base::List<TlsChannel, &TlsChannel::corked> corked_;
  stats::CounterBlock<stats::TlsCounter>& counters_;
  uint32_t handshakes_left_ = kMaxHandshakesPerLoop;
};

}  // namespace millrace::dataplane
