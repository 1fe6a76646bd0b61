// Connections to endpoints, pooled per worker: HTTP/1 exchanges take one, use it alone, and give it back (Envoy: one request at a
// time, no pipelining); of HTTP/2 there are as few as the streams that the endpoint allows (http2_client.h). Also what everybody
// who picks an endpoint shares: cluster and endpoint state of this worker, balancing, circuit breakers.
//
//   exchange ── submit() ──▶ ClusterState (balancer, breakers) ──▶ EndpointPool ── idle connection, room for a stream? ──▶
//   attached
//                                                                      │ none
//                                                                      └──▶ pending FIFO ── a connection gets ready ──▶ attached
//
// Circuit breakers are per process in Envoy; here each worker takes its share, limit / workers rounded up, so that workers share
// nothing. As in Envoy a worker may open one connection to an endpoint that has none, whatever max_connections says.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "dataplane/exchange.h"
#include "dataplane/health_keeper.h"
#include "dataplane/http2_client.h"
#include "dataplane/transport.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/route/request_hash.h"

namespace millrace::dataplane {

class Downstreams;
class HttpProxy;

// How an upstream connection, or the wait for one, ended badly.
enum class UpstreamFailure : uint8_t {
  kRefused,   // the endpoint refused or reset the connection before it was established
  kTimeout,   // connect_timeout, or nobody answered the SYN
  kLocal,     // no route, no local port, no memory: the request never left
  kClosed,    // established, then the endpoint closed before the response was complete
  kReset,     // likewise, with a reset (or it fell silent and was given up)
  kTls,       // the TLS handshake failed; Upstreams::tls_failure() says why
  kOverflow,  // a circuit breaker, or a table of ours, is full
  // Of streams of HTTP/2:
  kStreamReset,    // the endpoint reset the stream
  kStreamRefused,  // it refused the stream unprocessed (REFUSED_STREAM, GOAWAY)
  kProtocol,       // it broke the protocol
  kNoRoom,         // memory of ours was spent
};

// What is spoken to an endpoint. kAlpn: what TLS agrees on.
enum class UpstreamCodec : uint8_t { kHttp1, kHttp2, kAlpn };

struct ConnectionMore;
struct EndpointPool;

struct UpstreamSession : Session {
  UpstreamSession() : Session(SessionKind::kUpstreamHttp) {}
  EndpointPool* endpoint = nullptr;
  Exchange* exchange = nullptr;              // HTTP/1: in flight; null while connecting or idle
  Http2ClientSession* h2 = nullptr;          // once established, when it speaks HTTP/2
  base::ListNode link;                       // in EndpointPool::idle, or ::multiplexed
  SessionTimer timer{TimerKind::kUpstream};  // connect timeout, then idle timeout
  TimeNs opened_at = 0;
  const void* context = nullptr;  // ClusterState::context when its handshake was done
  uint32_t requests = 0;
  bool connected = false;  // TLS handshake included
  bool awaited = false;    // counted in EndpointPool::connecting: how many requests it will take is not known yet
  bool reusable = true;    // false: closed when its exchange ends
  bool own = false;        // opened for one exchange alone: `exchange` is set from the start
};

// A cluster as this worker remembers it; policy is refreshed from the tables with each epoch.
struct ClusterState {
  table::ObjectId id = table::kNoObject;
  uint64_t epoch = 0;  // of the policy below
  stats::ScopeSlot slot = stats::kOverflowScope;
  uint32_t connect_timeout_ms = 5'000, idle_timeout_ms = 0, max_requests_per_connection = 0;
  uint32_t max_connections = 1024, max_pending = 1024, max_requests = 1024;  // this worker's share
  uint32_t max_response_head_bytes = 60 * 1024, max_response_headers_count = 100;
  bool enable_trailers = false;
  uint8_t unusual = 0;        // of its exchanges: kUnusualWatched where outlier detection watches it
  bool split_errors = false;  // split_external_local_origin_errors
  bool has_tls = false;
  bool apart = false;         // connections are for one client or one name alone: pools of the key kApart
  bool auto_sni = false;      // for one name
  uint8_t proxy_version = 0;  // for one client; of the PROXY protocol header that each connection begins with; 0: none
  // Which TLS context connections are opened with, null for none: only to be compared. A connection that was opened with another
  // one takes no further request. (A context lives while it has sessions, so its address is not given to a new one meanwhile.)
  const void* context = nullptr;
  table::TcpOptions tcp;
  uint32_t buffer_limit = kNoBufferLimit;  // per_connection_buffer_limit_bytes
  table::UpstreamHttp http = table::UpstreamHttp::kHttp1;
  uint32_t streams_expected = 1;  // of a connection of HTTP/2 whose SETTINGS are not known yet
  http::H2Options http2;
  KeepaliveOptions keepalive;
  uint32_t max_retries = 3;
  uint32_t retry_budget_millipercent = 0, min_retry_concurrency = 0;  // has_retry_budget
  bool has_retry_budget = false;
  uint32_t connections = 0, active = 0, waiting = 0, endpoints = 0, retries = 0;
  uint64_t balancer_position = 0;  // carried from snapshot to snapshot
  base::ListNode bucket;

  // Retries that may be under way at a time (Envoy: RetryBudgetImpl).
  uint64_t most_retries() const {
    constexpr uint64_t kWhole = 100'000;  // millipercent
    if (!has_retry_budget) return max_retries;
    return std::max<uint64_t>((uint64_t{active} + waiting) * retry_budget_millipercent / kWhole, min_retry_concurrency);
  }
  // For a client that speaks HTTP/2, or 1.
  UpstreamCodec codec_for(bool http2_client) const {
    if (http == table::UpstreamHttp::kAsDownstream) return http2_client ? UpstreamCodec::kHttp2 : UpstreamCodec::kHttp1;
    return static_cast<UpstreamCodec>(http);
  }
};
static_assert(static_cast<UpstreamCodec>(table::UpstreamHttp::kHttp2) == UpstreamCodec::kHttp2 &&
              static_cast<UpstreamCodec>(table::UpstreamHttp::kAlpn) == UpstreamCodec::kAlpn);

// One endpoint of one cluster, and what is spoken to it. Lives while it has connections, waiting exchanges or requests under way.
inline constexpr uint8_t kApart = 0xff;  // EndpointPool::key

// A name that connections to an endpoint are for.
struct RequestName {
  InlineString<255> text;
};

struct EndpointPool : ClientPool {
  ClusterState* cluster = nullptr;
  base::IpAddress address;
  uint16_t port = 0;
  stats::ScopeSlot slot = stats::kOverflowScope;
  uint32_t connections = 0, connecting = 0, active = 0, waiting = 0;
  UpstreamCodec codec = UpstreamCodec::kHttp1;
  uint8_t key = 0;                     // `codec`, so that anybody's is found by it; kApart: apart_bucket()
  bool retired = false;                // left its endpoint set, or drains: takes nothing new, idle connections are closed
  bool alpn_http1 = false;             // kAlpn: the last connection agreed on HTTP/1.1
  uint32_t streams_told = UINT32_MAX;  // HTTP/2: what the last connection's SETTINGS allowed
  base::List<UpstreamSession, &UpstreamSession::link> idle;         // most recently used first
  base::List<UpstreamSession, &UpstreamSession::link> multiplexed;  // HTTP/2, with room for streams
  base::List<Exchange, &Exchange::pending> pending;
  base::ListNode bucket;
  uint64_t client_id = 0;                     // the connection_id of the client that it is for; 0: all
  const DownstreamSession* client = nullptr;  // null when it has gone
  RequestName* name = nullptr;                // lent; null: none of its own

  bool abandoned() const { return client_id != 0 && client == nullptr; }
  // Requests that the connections under way will take.
  uint64_t expected() const {
    const bool alone = codec == UpstreamCodec::kHttp1 || alpn_http1;
    return alone ? connecting : uint64_t{connecting} * std::max(1u, std::min(cluster->streams_expected, streams_told));
  }
  // Whether those who wait are more than the connections under way will take. An endpoint that allows no stream at all would
  // allow none on a further connection either.
  bool wants_connection() const { return waiting > expected() && (streams_told != 0 || connections == 0); }
};

class Upstreams {
 public:
  // `http2_arena`: memory of nghttp2; null: malloc (tests).
  Upstreams(WorkerContext& context, HttpProxy& proxy, base::Arena* http2_arena = nullptr);
  ~Upstreams();

  // --- choosing ----------------------------------------------------------------------------------------------------------
  // This worker's state of a cluster of the current tables; null when the table of clusters is full.
  ClusterState* cluster_state(table::ObjectId id, const ClusterRuntime& runtime);
  // The balancer's choice among the healthy endpoints; null with *why when there is none. *hostname: Endpoint.hostname, a view
  // into the tables.
  enum class PickError : uint8_t { kNone, kNoHealthy, kTableFull };
  // `hash`: of the request, for balancing by it; `attempt`: choices for this request that were turned down.
  EndpointPool* pick(ClusterState& cluster, const ClusterRuntime& runtime, UpstreamCodec codec, const route::RequestHash& hash,
                     uint32_t attempt, PickError* why, std::string_view* hostname);
  // An endpoint that was picked and is not used after all, or not any more.
  void release_if_unused(EndpointPool& e);

  // --- exchanges ------------------------------------------------------------------------------------------------------------
  // Puts the exchange on a connection to the endpoint: at once (proxy.on_upstream_ready is called before it returns), or when one
  // is ready. False with *failure when it cannot even wait.
  bool submit(Exchange& ex, EndpointPool& endpoint, UpstreamFailure* failure);
  // The same on a connection that nobody had before and nobody gets after.
  bool submit_own(Exchange& ex, EndpointPool& endpoint, UpstreamFailure* failure);
  // The exchange is done with its connection. `reuse`: the response was complete and the connection can serve another.
  void finish(Exchange& ex, bool reuse);
  // The exchange is given up, waiting or in flight: its connection, or its stream, is reset.
  void cancel(Exchange& ex);
  // Its stream was not processed: once, and if nothing of its body is gone, it goes to another connection, as if nothing had been
  // sent. False: it cannot.
  bool try_again(Exchange& ex);

  // --- from Downstreams
  void set_downstreams(Downstreams& downstreams) { downstreams_ = &downstreams; }
  void forget_client(ConnectionMore& more);

  // --- from Http2Client
  Http2Client& http2() { return http2_; }
  // How many streams the connection takes is known.
  void settled(UpstreamSession& u);
  // Gives streams to exchanges that wait. True: to some.
  bool feed(UpstreamSession& u);
  // Into or out of the list of those with room, and further connections for those that still wait.
  void offer(UpstreamSession& u);
  void close_session(UpstreamSession& u, bool reset);
  void count(EndpointPool& e, stats::ClusterCounter c) {
    cluster_stats(e)[c].add();
    endpoint_stats(e)[c].add();
  }

  // --- events --------------------------------------------------------------------------------------------------------------
  void on_ready(UpstreamSession& u, uint32_t events);
  void on_timer(UpstreamSession& u);
  // After a snapshot swap: connections of endpoints that are gone or draining are closed once idle. Bounded work per call, from
  // the worker's loop; returns true while there is more to do.
  bool sweep_retired(uint32_t max);
  void begin_sweep();

  // Shared with the TCP proxy: counting connections it makes itself.
  bool may_connect(const EndpointPool& e) const {
    return e.cluster->connections < e.cluster->max_connections || e.connections == 0;
  }
  void count_connection(EndpointPool& e, int delta);
  void count_active(EndpointPool& e, int delta);
  void count_connect_failure(EndpointPool& e, bool timeout);

  // On events of a connection that is not yet ready: TCP's handshake, then TLS's where the cluster has it. kFailed: *failure; the
  // connection is still there. kReady once; the events that are left are in *events. `alpn`: what is offered where the cluster
  // has no alpn_protocols, in the wire's form (RFC 7301 3.1): what an HTTP pool speaks, as Envoy's pools do; empty for raw bytes.
  enum class Setup : uint8_t { kWait, kReady, kFailed };
  // `client`: whose connection it is, for a cluster whose connections say so.
  Setup establish(Session& s, EndpointPool& e, std::string_view alpn, const DownstreamSession* client, uint32_t* events,
                  UpstreamFailure* failure);
  // What establish() last failed with as Envoy words it ("TLS_error:..."), for whoever is told of kTls. May be empty.
  std::string_view tls_failure() const { return {tls_failure_, tls_failure_size_}; }

  // What outlier detection is told, for clusters that are watched: a response's status; what became of a connection or of an
  // exchange without a response (Envoy: Outlier::Result). kConnectedFinal: and no response will tell more.
  enum class Outcome : uint8_t { kConnected, kConnectedFinal, kFailed, kTimeout };
  void report_status(const EndpointPool& e, uint16_t status);
  void report(const EndpointPool& e, Outcome outcome);
  HealthKeeper& health() { return health_; }

  const tcp::Profile& profile() const { return profile_; }  // of connections to endpoints
  uint32_t connections_in_use() const { return sessions_.in_use(); }
  uint32_t connections_capacity() const { return sessions_.capacity(); }
  uint32_t endpoints_in_use() const { return endpoints_.in_use(); }
  uint32_t clusters_in_use() const { return clusters_.in_use(); }

 private:
  using EndpointBucket = base::List<EndpointPool, &EndpointPool::bucket>;
  using ClusterBucket = base::List<ClusterState, &ClusterState::bucket>;

  EndpointPool* endpoint_state(ClusterState& cluster, const table::Endpoint& e, UpstreamCodec codec, stats::ScopeSlot slot);
  EndpointPool* find_endpoint(const ClusterState& cluster, const base::IpAddress& address, uint16_t port, UpstreamCodec codec);
  EndpointBucket& endpoint_bucket(const ClusterState& cluster, const base::IpAddress& address, uint16_t port);
  void refresh(ClusterState& c, const ClusterRuntime& runtime);
  void prepare(EndpointPool& e, ClusterState& cluster, const base::IpAddress& address, uint16_t port, UpstreamCodec codec);
  EndpointPool* pool_apart(const EndpointPool& shared, const Exchange& ex);
  EndpointBucket& apart_bucket(const EndpointPool& shared, uint64_t client_id, std::string_view name);
  // In place of `shared`, which is given back; null: the table of endpoints is full, and *failure says so.
  EndpointPool* move_apart(const Exchange& ex, EndpointPool& shared, UpstreamFailure* failure);
  std::string_view request_name(const ClusterState& cluster, const Exchange& ex) const;
  bool evict_apart();
  bool announce(Session& s, const EndpointPool& e, const DownstreamSession* client);
  // Opens a connection to serve the endpoint's pending exchanges, or `own`. Null: it could not even be started.
  UpstreamSession* open_connection(EndpointPool& e, Exchange* own = nullptr);
  void open_for_waiting(EndpointPool& e);
  void established(UpstreamSession& u);
  void not_awaited(UpstreamSession& u);
  Exchange* pop_pending(EndpointPool& e);
  void attach(UpstreamSession& u, Exchange& ex);
  void connection_ready(UpstreamSession& u);
  void connect_failed(UpstreamSession& u, UpstreamFailure failure);
  void fail_pending(EndpointPool& e, UpstreamFailure failure);
  void tls_failed(UpstreamSession& u);
  static UpstreamSession* stale_idle(EndpointPool& e);
  bool start_tls(Session& s, EndpointPool& e, std::string_view alpn);
  void count_tls_failure(EndpointPool& e, tls::TlsError error);
  void set_tls_failure(std::string_view text);
  void count_bytes(UpstreamSession& u);
  void drop_session(UpstreamSession& u);
  stats::ScopeBlock& cluster_stats(const EndpointPool& e) { return ctx_.stats.scope(e.cluster->slot); }
  stats::ScopeBlock& endpoint_stats(const EndpointPool& e) { return ctx_.stats.scope(e.slot); }

  WorkerContext& ctx_;
  HttpProxy& proxy_;
  HealthKeeper health_;
  Http2Client http2_;
  base::Pool<UpstreamSession> sessions_;
  base::Pool<EndpointPool> endpoints_;
  base::Pool<ClusterState> clusters_;
  base::Pool<RequestName> names_;  // as many as endpoints: never empty
  uint32_t evict_at_ = 0;
  std::unique_ptr<EndpointBucket[]> endpoint_buckets_;
  std::unique_ptr<ClusterBucket[]> cluster_buckets_;
  uint32_t endpoint_mask_, cluster_mask_;
  uint32_t sweep_at_ = UINT32_MAX;  // next endpoint index to look at; UINT32_MAX: no sweep
  const tcp::Profile& profile_;
  Downstreams* downstreams_ = nullptr;
  std::unique_ptr<uint8_t[]> proxy_scratch_;  // a PROXY protocol header being made; touched by who has one
  static constexpr size_t kTlsFailureBytes = 640;
  size_t tls_failure_size_ = 0;
  char tls_failure_[kTlsFailureBytes];
};

}  // namespace millrace::dataplane
