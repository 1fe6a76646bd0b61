// Raw TCP from client to endpoint (envoy.filters.network.tcp_proxy), also what SNI passthrough ends in: bytes both ways by
// reference, each half closed on its own, back-pressure from the slower side.
#pragma once

#include <cstdint>

#include "dataplane/downstream.h"
#include "dataplane/upstreams.h"
#include "dataplane/worker_context.h"
#include "lib/base/pool.h"

namespace millrace::dataplane {

struct Tunnel : Session {  // the upstream side; its timer is connect, then idle timeout
  Tunnel() : Session(SessionKind::kUpstreamTcp) {}
  DownstreamSession* downstream = nullptr;
  EndpointPool* endpoint = nullptr;
  SessionTimer timer{TimerKind::kTunnel};
  bool connected = false;
  uint32_t attempts = 0, max_attempts = 1;
  uint32_t idle_timeout_ms = 0;
  TimeNs duration_deadline = base::kNever;
  TimeNs started_at = 0, last_activity = 0, connect_started = 0, ready_at = 0;
  uint64_t started_wall_ns = 0;
  route::RequestHash hash;                        // of the client's address, where hash_policy asks for it
  uint64_t bytes_received = 0, bytes_sent = 0;    // from, to the client
  stats::ScopeSlot slot = stats::kOverflowScope;  // of the stat_prefix
  table::ObjectId cluster = table::kNoObject;
  InlineString<255> cluster_name;
  uint32_t access_logs = 0;
  stats::ResponseFlags flags;
  base::IpAddress upstream_address, upstream_local_address;
  uint16_t upstream_port = 0, upstream_local_port = 0;
};

class TcpProxy {
 public:
  TcpProxy(WorkerContext& context, Downstreams& downstreams);
  ~TcpProxy();
  void set_upstreams(Upstreams& upstreams) { upstreams_ = &upstreams; }

  // A connection whose chain is a TCP proxy; `config` lies in `object`, of this iteration's tables.
  void start(DownstreamSession& d, const void* object, const table::TcpProxy& config, stats::ScopeSlot slot);
  void on_downstream(DownstreamSession& d, uint32_t events);  // rx() is up to date
  void on_downstream_gone(DownstreamSession& d);              // TLS failed under it
  void on_upstream(Tunnel& t, uint32_t events);
  void on_timer(Tunnel& t);

  uint32_t in_use() const { return tunnels_.in_use(); }
  uint32_t capacity() const { return tunnels_.capacity(); }

 private:
  bool connect(Tunnel& t);
  void connect_failed(Tunnel& t, UpstreamFailure why);
  void pump(Tunnel& t);
  // Bytes and a pending FIN from one side to the other; true when something moved.
  bool move(Session& from, Session& to, uint64_t* bytes);
  void arm(Tunnel& t);
  void leave_endpoint(Tunnel& t, bool reset);
  // Ends both sides; `reset`: the downstream is reset rather than closed.
  void end(Tunnel& t, bool reset);
  void emit_access_log(const Tunnel& t);

  WorkerContext& ctx_;
  Downstreams& downstreams_;
  Upstreams* upstreams_ = nullptr;
  base::Pool<Tunnel> tunnels_;
};

}  // namespace millrace::dataplane
