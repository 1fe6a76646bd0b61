// A client's connection: from the accepted TCP connection to its filter chain. Listener filters (TLS inspection) come first, then
// the filter chain is chosen, TLS is terminated where the chain says so, and HTTP or raw TCP begins.
//
//   accepted ─▶ kInspect ──ClientHello or not──▶ chain ─┬─ TLS ─▶ kHandshake ─┬─ HCM ─▶ kHttp or kHttp2 ─▶ kLinger ─▶ gone
//                   │ timeout, no chain: closed         └─ plain ─────────────┴─ TCP proxy ▶ kTunnel
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/exchange.h"
#include "dataplane/policy_cache.h"
#include "dataplane/transport.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/tls/client_hello.h"
#include "lib/tls/fingerprint.h"

namespace millrace::dataplane {

class HttpProxy;
class TcpProxy;
class Upstreams;
struct Http2Session;
struct Tunnel;

enum class DownstreamPhase : uint8_t { kFree, kInspect, kHandshake, kHttp, kHttp2, kTunnel, kLinger };

// What fewer still have: those of listeners and clusters that ask for it.
struct ConnectionMore {
  io::PacketQueue tlvs;  // of its PROXY protocol header, those that the listener keeps for endpoints
  base::List<ClientPool, &ClientPool::of_client> pools;  // connections to endpoints that are its own
  bool has_ja3 = false, has_ja4 = false;
  tls::Ja3 ja3;
  tls::Ja4 ja4;
};

// What few connections have beside their session.
struct ConnectionExtra {
  InlineString<255> sni;           // empty: none
  bool proxied = false;            // a PROXY protocol header said whose connection it is:
  tcp::FourTuple tuple;            // the client's addresses then, in place of the proxy's
  ConnectionMore* more = nullptr;  // lent; null: none
};

// An idle one is two cache lines: what a request or a body needs is the exchange's, what all connections of a chain share the
// policy's, and addresses are the connection's.
struct DownstreamSession : Session {
  DownstreamSession() : Session(SessionKind::kDownstream) {}
  DownstreamPhase phase = DownstreamPhase::kFree;
  bool draining : 1 = false;    // its listener or chain is gone: the next response says connection: close
  bool expired : 1 = false;     // max_connection_duration has passed: likewise
  bool proxy_read : 1 = false;  // kInspect: the PROXY protocol header is behind us
  bool tls_terminated : 1 = false, tls_resumed : 1 = false;
  bool certificate_presented : 1 = false, certificate_validated : 1 = false;  // of the client
  uint16_t tls_version = 0, tls_cipher = 0;                                   // wire values, once negotiated
  uint32_t requests = 0;
  ConnectionPolicy* policy = nullptr;  // never null between accept() and the end
  union {
    Exchange* exchange = nullptr;  // kHttp
    Http2Session* h2;              // kHttp2
    Tunnel* tunnel;                // kTunnel
  };
  HeadBuffer* head = nullptr;  // HTTP: a request head that is not complete yet
  TimeNs head_started = 0;
  uint32_t head_scanned = 0;
  uint32_t handshake_rtt_us = 0;  // as the TCP handshake measured it; 0: it did not
  SessionTimer timer{TimerKind::kDownstream};
  base::ListNode wake;  // in HttpProxy::wake_: more to do without a new event
  // Seldom looked at:
  uint64_t connection_id = 0;
  TimeNs accepted_at = 0;
  ConnectionExtra* extra = nullptr;  // lent; null: none

  // Whose connection it is: its own addresses, or those of a PROXY protocol header.
  const tcp::FourTuple& tuple() const { return extra != nullptr && extra->proxied ? extra->tuple : connection->tuple(); }
  std::string_view server_name() const { return extra == nullptr ? std::string_view() : extra->sni.view(); }
  // Null: none were kept.
  const io::PacketQueue* tlvs() const {
    return extra == nullptr || extra->more == nullptr || extra->more->tlvs.empty() ? nullptr : &extra->more->tlvs;
  }
  // Of its ClientHello, where the listener's tls_inspector computes them; absent otherwise (null data()).
  std::string_view ja3() const {
    return extra == nullptr || extra->more == nullptr || !extra->more->has_ja3 ? std::string_view() : extra->more->ja3.view();
  }
  std::string_view ja4() const {
    return extra == nullptr || extra->more == nullptr || !extra->more->has_ja4 ? std::string_view() : extra->more->ja4.view();
  }
};
static_assert(sizeof(DownstreamSession) <= 152, "memory per connection: update the sum in README.md and memory_test.cc");

// The chain of that key (chain_key), looking at `likely` first; UINT32_MAX when the listener has it no more.
uint32_t find_chain(const table::Listener& listener, uint64_t key, uint32_t likely);

// The filter chain that a connection came through as this iteration's tables have it: `object` is null when it is gone.
struct CurrentChain {
  const table::Listener* object = nullptr;
  const FilterChainRuntime* runtime = nullptr;
};
CurrentChain current_chain(const WorkerContext& ctx, const DownstreamSession& d);

class Downstreams {
 public:
  Downstreams(WorkerContext& context, HttpProxy& http, TcpProxy& tcp);
  ~Downstreams();

  // The first pop_ready() of an accepted connection.
  void accept(Connection& c);
  void on_ready(DownstreamSession& d, uint32_t events);
  void on_timer(DownstreamSession& d);

  // Ends a session whose owner (HTTP, TCP proxy) is done with it. Graceful: what was written is delivered, then FIN, and for
  // delayed_close_ms the peer is listened to (and ignored), so that late bytes of it do not turn into a reset that destroys the
  // response (RFC 9112 9.6).
  void close(DownstreamSession& d, uint32_t delayed_close_ms);
  void abort(DownstreamSession& d);

  // What the connection has moved since the last call, into the listener's counters: with each exchange, so that long connections
  // show.
  void count_bytes(DownstreamSession& d);

  // The policy of a connection as this epoch's tables have it. A listener or chain that is gone leaves the connection its last
  // policy and marks it (`gone`): an edit never closes a connection, but a removed listener drains.
  void refresh_policy(DownstreamSession& d);

  void set_upstreams(Upstreams& upstreams) { upstreams_ = &upstreams; }
  ConnectionMore& more(DownstreamSession& d);

  uint32_t policies_in_use() const { return policies_.in_use(); }
  uint32_t in_use() const { return sessions_.in_use(); }
  uint32_t capacity() const { return sessions_.capacity(); }

 private:
  void inspect(DownstreamSession& d);
  ConnectionPolicy* unchosen(table::ObjectId listener, stats::ScopeSlot slot);
  void choose_chain(DownstreamSession& d, table::ObjectId listener_id, bool is_tls, const tls::AlpnList& alpn);
  void refuse(DownstreamSession& d, stats::ScopeSlot slot);
  void set_sni(DownstreamSession& d, std::string_view name);
  ConnectionExtra& extra(DownstreamSession& d);
  void free_extra(DownstreamSession& d);
  bool read_proxy_header(DownstreamSession& d, const table::Listener& listener);
  bool keep_tlvs(DownstreamSession& d, base::ByteSpan tlvs, const table::TlvTypes& types);
  void fingerprint(DownstreamSession& d, const tls::ClientHello& hello);
  void start_filter(DownstreamSession& d);
  void free(DownstreamSession& d);
  void count_close(DownstreamSession& d);
  void count_tls_failure(DownstreamSession& d, tls::TlsError error);
  void count_staple(DownstreamSession& d);

  WorkerContext& ctx_;
  HttpProxy& http_;
  TcpProxy& tcp_;
  Upstreams* upstreams_ = nullptr;
  base::Pool<DownstreamSession> sessions_;
  base::Pool<ConnectionExtra> extras_;  // as many as sessions: never empty
  base::Pool<ConnectionMore> mores_;    // ditto
  PolicyCache policies_;
  std::unique_ptr<uint8_t[]> hello_scratch_;
};

}  // namespace millrace::dataplane
