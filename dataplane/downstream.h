// A client's connection: from the accepted TCP connection to its filter chain. Listener filters (TLS inspection) come first, then
// the filter chain is chosen, TLS is terminated where the chain says so, and HTTP or raw TCP begins.
//
//   accepted ─▶ kInspect ──ClientHello or not──▶ chain ─┬─ TLS ─▶ kHandshake ─┬─ HCM ──────▶ kHttp ──▶ kLinger ─▶ gone
//                   │ timeout, no chain: closed         └─ plain ─────────────┴─ TCP proxy ▶ kTunnel
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/exchange.h"
#include "dataplane/http_policy.h"
#include "dataplane/transport.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/tls/client_hello.h"

namespace millrace::dataplane {

class HttpProxy;
class TcpProxy;
struct Tunnel;

enum class DownstreamPhase : uint8_t { kFree, kInspect, kHandshake, kHttp, kTunnel, kLinger };

struct DownstreamSession : Session {
  DownstreamSession() : Session(SessionKind::kDownstream) {}
  DownstreamPhase phase = DownstreamPhase::kFree;
  bool draining = false;  // its listener or chain is gone: the next response says connection: close
  bool tls_terminated = false, tls_resumed = false;
  uint16_t tls_version = 0, tls_cipher = 0;  // wire values, once negotiated
  base::IpAddress remote, local;             // the connection's addresses, kept beyond its life for records
  uint16_t remote_port = 0, local_port = 0;
  uint64_t connection_id = 0;
  uint16_t chain = UINT16_MAX;  // index in the listener's filter chains, of epoch policy_epoch
  table::ObjectId listener = table::kNoObject;
  uint64_t chain_key = 0;  // hash of the chain's name: finds it again in a later epoch
  stats::ScopeSlot listener_slot = stats::kOverflowScope;
  uint64_t policy_epoch = 0;
  HttpPolicy policy;
  InlineString<255> sni;
  tls::AlpnList alpn;  // of the ClientHello: only between inspection and the choice of the chain
  SessionTimer timer{TimerKind::kDownstream};
  base::ListNode wake;  // in HttpProxy::wake_: more to do without a new event

  // HTTP
  Exchange* exchange = nullptr;
  HeadBuffer* head = nullptr;  // a request head that is not complete yet
  size_t head_scanned = 0;
  TimeNs head_started = 0;
  TimeNs accepted_at = 0;
  uint32_t requests = 0;
  // TCP proxy
  Tunnel* tunnel = nullptr;
};

// The chain of that key (chain_key), looking at `likely` first; UINT32_MAX when the listener has it no more.
uint32_t find_chain(const table::Listener& listener, uint64_t key, uint32_t likely);

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

  uint32_t in_use() const { return sessions_.in_use(); }
  uint32_t capacity() const { return sessions_.capacity(); }

 private:
  void inspect(DownstreamSession& d);
  void choose_chain(DownstreamSession& d, bool is_tls);
  void start_filter(DownstreamSession& d);
  void free(DownstreamSession& d);
  void count_close(DownstreamSession& d);

  WorkerContext& ctx_;
  HttpProxy& http_;
  TcpProxy& tcp_;
  base::Pool<DownstreamSession> sessions_;
  std::unique_ptr<uint8_t[]> hello_scratch_;
};

}  // namespace millrace::dataplane
