#include "dataplane/upstreams.h"

#include <algorithm>
#include <bit>

#include "dataplane/downstream.h"
#include "dataplane/endpoint_health.h"
#include "dataplane/http_proxy.h"
#include "lib/base/hash.h"
#include "lib/wire/proxy_protocol.h"

namespace millrace::dataplane {

using stats::ClusterCounter;

namespace {

// What a pool offers where its cluster has no alpn_protocols: what it speaks.
constexpr std::string_view pool_alpn(UpstreamCodec codec) {
  switch (codec) {
    case UpstreamCodec::kHttp1:
      return "\x08http/1.1";
    case UpstreamCodec::kHttp2:
      return "\x02h2";
    case UpstreamCodec::kAlpn:
      return "\x02h2\x08http/1.1";
  }
  return {};
}

uint32_t buckets_for(uint32_t capacity) { return std::bit_ceil(capacity); }

uint64_t mix(uint64_t v) {
  v ^= v >> 33;
  v *= 0xff51afd7ed558ccdull;
  return v ^ v >> 29;
}

uint64_t endpoint_hash(table::ObjectId cluster, const base::IpAddress& a, uint16_t port) {
  return mix(cluster ^ base::load_unaligned<uint64_t>(a.bytes.data()) * 3 ^ base::load_unaligned<uint64_t>(a.bytes.data() + 8) ^
             uint64_t{port} << 48);
}

// Of what the cluster's connections begin with; never 0.
uintptr_t said_hash(const table::Cluster& t) {
  const std::string_view added{reinterpret_cast<const char*>(t.proxy.added.begin(&t)), t.proxy.added.count};
  const std::string_view passed{reinterpret_cast<const char*>(t.proxy.passed.bits), sizeof t.proxy.passed.bits};
  const uint64_t sni = t.tls.auto_sni == 0 ? 0 : base::hash64(table::view(&t, t.tls.auto_sni_header)) * 5 + 4;
  return (base::hash64(added) ^ base::hash64(passed) * 3 ^ t.proxy.version ^ sni) | 1;
}

// This worker's share of a process-wide limit.
uint32_t share(uint32_t limit, uint32_t workers) { return limit / workers + (limit % workers != 0 ? 1 : 0); }

}  // namespace

Upstreams::Upstreams(WorkerContext& context, HttpProxy& proxy, base::Arena* http2_arena)
    : ctx_(context),
      proxy_(proxy),
      health_(context),
      http2_(context, proxy, *this, http2_arena),
      sessions_(context.limits.connections),
      endpoints_(context.limits.upstream_endpoints),
      clusters_(context.limits.clusters),
      names_(context.limits.upstream_endpoints),
      endpoint_buckets_(std::make_unique<EndpointBucket[]>(buckets_for(context.limits.upstream_endpoints))),
      cluster_buckets_(std::make_unique<ClusterBucket[]>(buckets_for(context.limits.clusters))),
      endpoint_mask_(buckets_for(context.limits.upstream_endpoints) - 1),
      cluster_mask_(buckets_for(context.limits.clusters) - 1),
      profile_(context.stack.add_profile(context.upstream_tcp)),
      proxy_scratch_(std::make_unique_for_overwrite<uint8_t[]>(wire::kMostProxyHeaderBytes + wire::kMostTlvBytes)) {}

Upstreams::~Upstreams() {
  for (uint32_t i = 0; i < sessions_.capacity(); ++i)
    if (sessions_.lent(i)) drop_session(sessions_[i]);
}

// ---- clusters and endpoints ------------------------------------------------------------------------------------------------

ClusterState* Upstreams::cluster_state(table::ObjectId id, const ClusterRuntime& runtime) {
  ClusterBucket& bucket = cluster_buckets_[mix(id) & cluster_mask_];
  for (ClusterState& c : bucket)
    if (c.id == id) {
      if (c.epoch != ctx_.tables->epoch()) refresh(c, runtime);
      return &c;
    }
  ClusterState* c = clusters_.alloc();
  if (c == nullptr) {  // full of clusters that came and went: one without any use makes room
    for (uint32_t i = 0; i < clusters_.capacity() && c == nullptr; ++i)
      if (clusters_.lent(i) && clusters_[i].endpoints == 0 && clusters_[i].retries == 0) {
        clusters_[i].bucket.unlink();
        c = &clusters_[i];
      }
    if (c == nullptr) return nullptr;
  }
  c->id = id;
  c->connections = c->active = c->waiting = c->endpoints = c->retries = 0;
  bucket.push_front(*c);
  refresh(*c, runtime);
  return c;
}

void Upstreams::refresh(ClusterState& c, const ClusterRuntime& runtime) {
  const table::Cluster& t = *runtime.object;
  c.epoch = ctx_.tables->epoch();
  c.slot = runtime.slot;
  c.connect_timeout_ms = t.connect_timeout_ms;
  c.idle_timeout_ms = t.idle_timeout_ms;
  c.max_requests_per_connection = t.max_requests_per_connection;
  c.max_connections = share(t.max_connections, ctx_.workers);
  c.max_pending = share(t.max_pending_requests, ctx_.workers);
  c.max_requests = share(t.max_requests, ctx_.workers);
  c.max_retries = share(t.max_retries, ctx_.workers);
  c.has_retry_budget = t.has_retry_budget != 0;
  c.retry_budget_millipercent = t.retry_budget_millipercent;
  c.min_retry_concurrency = share(t.min_retry_concurrency, ctx_.workers);
  c.max_response_head_bytes = t.max_response_headers_bytes;
  c.max_response_headers_count = t.max_response_headers_count;
  c.unusual = runtime.detects ? kUnusualWatched : 0;
  c.split_errors = t.outlier.split_external_local_origin_errors != 0;
  c.enable_trailers = t.enable_trailers != 0;
  c.has_tls = t.has_tls != 0;
  c.context = runtime.tls_context(ctx_.worker);
  c.proxy_version = t.proxy.version;
  c.auto_sni = t.tls.auto_sni != 0;
  c.apart = c.proxy_version != 0 || c.auto_sni;
  // What a connection has said is not taken back: who says something else needs another one.
  if (c.apart) [[unlikely]]
    c.context = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(c.context) + said_hash(t));
  c.tcp = t.tcp;
  c.buffer_limit = t.per_connection_buffer_limit_bytes;
  c.http = t.http;
  if (t.http != table::UpstreamHttp::kHttp1) {
    c.http2 = h2_options_of(t.http2);
    c.http2.max_head_bytes = t.max_response_headers_bytes;
    c.http2.max_headers = t.max_response_headers_count + 1;  // :status
    c.keepalive.assign(t.http2);
    c.streams_expected = t.http2.max_concurrent_streams;
    if (c.max_requests_per_connection != 0) c.streams_expected = std::min(c.streams_expected, c.max_requests_per_connection);
  }
  if (ctx_.worker < runtime.balancers.size()) runtime.balancers[ctx_.worker].set_position(c.balancer_position);
}

Upstreams::EndpointBucket& Upstreams::endpoint_bucket(const ClusterState& cluster, const base::IpAddress& address,
                                                      uint16_t port) {
  return endpoint_buckets_[endpoint_hash(cluster.id, address, port) & endpoint_mask_];
}

EndpointPool* Upstreams::find_endpoint(const ClusterState& cluster, const base::IpAddress& address, uint16_t port,
                                       UpstreamCodec codec) {
  for (EndpointPool& e : endpoint_bucket(cluster, address, port))
    if (e.cluster == &cluster && e.port == port && e.key == static_cast<uint8_t>(codec) && e.address == address) return &e;
  return nullptr;
}

void Upstreams::prepare(EndpointPool& e, ClusterState& cluster, const base::IpAddress& address, uint16_t port,
                        UpstreamCodec codec) {
  e.cluster = &cluster;
  e.address = address;
  e.port = port;
  e.codec = codec;
  e.key = static_cast<uint8_t>(codec);
  e.client_id = 0;
  e.client = nullptr;
  e.name = nullptr;
  e.alpn_http1 = false;
  e.streams_told = UINT32_MAX;
  e.connections = e.connecting = e.active = e.waiting = 0;
  ++cluster.endpoints;
}

EndpointPool* Upstreams::endpoint_state(ClusterState& cluster, const table::Endpoint& endpoint, UpstreamCodec codec,
                                        stats::ScopeSlot slot) {
  EndpointPool* e = find_endpoint(cluster, endpoint.address, endpoint.port, codec);
  if (e == nullptr) {
    e = endpoints_.alloc();
    if (e == nullptr) return nullptr;
    prepare(*e, cluster, endpoint.address, endpoint.port, codec);
    endpoint_bucket(cluster, endpoint.address, endpoint.port).push_front(*e);
  }
  e->slot = slot;
  e->retired = false;
  return e;
}

void Upstreams::release_if_unused(EndpointPool& e) {
  if (e.connections != 0 || e.active != 0 || e.waiting != 0) return;
  --e.cluster->endpoints;
  e.cluster = nullptr;
  e.bucket.unlink();
  e.of_client.unlink();
  if (e.name != nullptr) names_.free(std::exchange(e.name, nullptr));
  endpoints_.free(&e);
}

EndpointPool* Upstreams::pick(ClusterState& cluster, const ClusterRuntime& runtime, UpstreamCodec codec,
                              const route::RequestHash& hash, uint32_t attempt, PickError* why, std::string_view* hostname) {
  *why = PickError::kNone;
  const table::EndpointSet* set = runtime.endpoints;
  uint32_t index = route::balancer::kNoEndpoint;
  if (set != nullptr) {  // so there is a balancer for each worker
    route::balancer::Balancer& balancer = runtime.balancers[ctx_.worker];
    const auto context = [&] {
      route::balancer::PickContext c;
      c.hash = hash.value;
      c.has_hash = hash.known;
      c.attempt = attempt;
      c.total_active = cluster.active;
      return c;
    };
    const auto active = [&](uint32_t i) -> uint32_t {
      if (cluster.apart)  // of all its pools
        return static_cast<uint32_t>(ctx_.stats.scope(runtime.endpoint_slots[i])[ClusterCounter::kRqActive].read());
      const table::Endpoint& e = set->endpoints.at(set, i);
      const EndpointPool* known = find_endpoint(cluster, e.address, e.port, codec);
      return known == nullptr ? 0 : known->active;
    };
    const auto health = [&](uint32_t i) { return live_health(ctx_.stats, runtime, i); };
    if (runtime.watched) [[unlikely]] {
      const uint32_t generation = health_generation(ctx_.stats, runtime);
      if (balancer.stale(generation)) balancer.recount(generation, health);
    }
    index = balancer.pick(
        context, active, [&] { return ctx_.random.next(); }, health,
        [&] { ctx_.stats.scope(cluster.slot)[ClusterCounter::kLbHealthyPanic].add(); });
    cluster.balancer_position = balancer.position();
  }
  if (index == route::balancer::kNoEndpoint) {
    *why = PickError::kNoHealthy;
    ctx_.stats.scope(cluster.slot)[ClusterCounter::kCxNoneHealthy].add();
    return nullptr;
  }
  const table::Endpoint& chosen = set->endpoints.at(set, index);
  *hostname = table::view(set, chosen.hostname);
  EndpointPool* e = endpoint_state(cluster, chosen, codec, runtime.endpoint_slots[index]);
  if (e == nullptr) *why = PickError::kTableFull;
  return e;
}

void Upstreams::count_connection(EndpointPool& e, int delta) {
  e.connections += static_cast<uint32_t>(delta);
  e.cluster->connections += static_cast<uint32_t>(delta);
  for (stats::ScopeBlock* b : {&cluster_stats(e), &endpoint_stats(e)}) {
    (*b)[ClusterCounter::kCxActive].add(static_cast<uint64_t>(static_cast<int64_t>(delta)));
    (*b)[delta > 0 ? ClusterCounter::kCxTotal : ClusterCounter::kCxDestroy].add();
  }
}

void Upstreams::count_active(EndpointPool& e, int delta) {
  e.active += static_cast<uint32_t>(delta);
  e.cluster->active += static_cast<uint32_t>(delta);
  for (stats::ScopeBlock* b : {&cluster_stats(e), &endpoint_stats(e)}) {
    (*b)[ClusterCounter::kRqActive].add(static_cast<uint64_t>(static_cast<int64_t>(delta)));
    if (delta > 0) (*b)[ClusterCounter::kRqTotal].add();
  }
}

void Upstreams::report_status(const EndpointPool& e, uint16_t status) {
  const HealthResult r = status >= 502 && status <= 504   ? HealthResult::kGatewayFailure
                         : status >= 500 && status <= 599 ? HealthResult::kFailure
                                                          : HealthResult::kSuccess;
  health_.report(e.cluster->id, e.cluster->slot, e.slot, r);
}

// DetectorHostMonitorImpl::putResultNoLocalExternalSplit, putResultWithLocalExternalSplit.
void Upstreams::report(const EndpointPool& e, Outcome outcome) {
  if (e.cluster->unusual == 0) return;
  const bool connected = outcome == Outcome::kConnected || outcome == Outcome::kConnectedFinal;
  HealthResult r;
  if (e.cluster->split_errors) r = connected ? HealthResult::kLocalSuccess : HealthResult::kLocalFailure;
  else if (connected) r = HealthResult::kSuccess;
  else r = HealthResult::kGatewayFailure;  // as 503, or 504 for a timeout
  if (outcome == Outcome::kConnected && !e.cluster->split_errors) return;
  health_.report(e.cluster->id, e.cluster->slot, e.slot, r);
}

void Upstreams::count_connect_failure(EndpointPool& e, bool timeout) {
  count(e, ClusterCounter::kCxConnectFail);
  if (timeout) count(e, ClusterCounter::kCxConnectTimeout);
}

// ---- exchanges ---------------------------------------------------------------------------------------------------------------

bool Upstreams::submit(Exchange& ex, EndpointPool& e, UpstreamFailure* failure) {
  ex.endpoint = &e;
  ex.cluster = e.cluster;
  ex.cluster_slot = e.cluster->slot;
  ex.endpoint_slot = e.slot;
  if (e.cluster->active >= e.cluster->max_requests) {
    count(e, ClusterCounter::kRqPendingOverflow);
    *failure = UpstreamFailure::kOverflow;
    return false;
  }
  while (UpstreamSession* u = e.idle.front()) {
    if (u->context != e.cluster->context) [[unlikely]] {
      ++e.active;  // keeps it while its connections of another time go
      close_session(*u, false);
      --e.active;
      continue;
    }
    u->link.unlink();
    attach(*u, ex);
    return true;
  }
  if (e.codec != UpstreamCodec::kHttp1) {
    while (UpstreamSession* u = e.multiplexed.front()) {
      if (http2_.room(*u) != 0) {
        attach(*u, ex);
        return true;
      }
      u->link.unlink();  // until offer() finds it with room again
    }
  }
  if (e.cluster->apart && e.key != kApart) {
    EndpointPool* own = move_apart(ex, e, failure);
    return own != nullptr && submit(ex, *own, failure);
  }
  if (e.cluster->waiting >= e.cluster->max_pending) {
    count(e, ClusterCounter::kRqPendingOverflow);
    *failure = UpstreamFailure::kOverflow;
    return false;
  }
  ++e.waiting;
  ++e.cluster->waiting;
  e.pending.push_back(ex);
  count(e, ClusterCounter::kRqPendingTotal);
  cluster_stats(e)[ClusterCounter::kRqPendingActive].add();
  endpoint_stats(e)[ClusterCounter::kRqPendingActive].add();
  if (!e.wants_connection()) return true;  // somebody is already on the way for it
  if (!may_connect(e)) {
    count(e, ClusterCounter::kCxOverflow);
    return true;  // waits for a connection to become free
  }
  if (open_connection(e)) return true;
  if (e.connections != 0) return true;
  *failure = UpstreamFailure::kLocal;
  ex.pending.unlink();
  --e.waiting;
  --e.cluster->waiting;
  cluster_stats(e)[ClusterCounter::kRqPendingActive].sub();
  endpoint_stats(e)[ClusterCounter::kRqPendingActive].sub();
  return false;
}

bool Upstreams::submit_own(Exchange& ex, EndpointPool& e, UpstreamFailure* failure) {
  if (e.cluster->apart && e.key != kApart) {
    ex.endpoint = &e;
    EndpointPool* own = move_apart(ex, e, failure);
    return own != nullptr && submit_own(ex, *own, failure);
  }
  ex.endpoint = &e;
  ex.cluster = e.cluster;
  ex.cluster_slot = e.cluster->slot;
  ex.endpoint_slot = e.slot;
  *failure = UpstreamFailure::kOverflow;
  if (e.cluster->active >= e.cluster->max_requests) {
    count(e, ClusterCounter::kRqPendingOverflow);
    return false;
  }
  if (!may_connect(e)) {
    count(e, ClusterCounter::kCxOverflow);
    return false;
  }
  *failure = UpstreamFailure::kLocal;
  return open_connection(e, &ex) != nullptr;
}

UpstreamSession* Upstreams::open_connection(EndpointPool& e, Exchange* own) {
  UpstreamSession* u = sessions_.alloc();
  if (u == nullptr) return nullptr;
  ConnectError why = ConnectError::kNone;
  Connection* c =
      ctx_.stack.connect(e.address, e.port, ctx_.stack.profile(profile_, e.cluster->tcp, e.cluster->buffer_limit), ctx_.now,
                         static_cast<Session*>(u), &why, uint64_t{e.cluster->connect_timeout_ms} * base::kMillisecond);
  if (c == nullptr) {
    sessions_.free(u);
    count_connect_failure(e, false);
    return nullptr;
  }
  u->connection = c;
  u->tls = nullptr;
  u->context = nullptr;
  u->endpoint = &e;
  u->exchange = own;
  u->own = own != nullptr;
  u->h2 = nullptr;
  if (own != nullptr) own->upstream = u;
  u->fin_received = u->peer_closed = u->shut_down = u->connected = false;
  u->reusable = true;
  u->awaited = !u->own;
  u->requests = 0;
  u->opened_at = ctx_.now;
  if (u->awaited) ++e.connecting;  // those that can serve who waits
  count_connection(e, +1);
  ctx_.arm(u->timer, deadline_after(ctx_.now, e.cluster->connect_timeout_ms));
  return u;
}

void Upstreams::attach(UpstreamSession& u, Exchange& ex) {
  EndpointPool& e = *u.endpoint;
  ex.upstream = &u;
  if (u.h2 != nullptr) {
    http2_.open(u, ex);
  } else {
    ctx_.disarm(u.timer);
    u.exchange = &ex;
  }
  ++u.requests;
  const uint32_t most = e.cluster->max_requests_per_connection;
  if (most != 0 && u.requests >= most) {
    u.reusable = false;
    if (u.h2 != nullptr) http2_.drain(u);
    count(e, ClusterCounter::kCxMaxRequests);
  }
  ex.counted_active = true;
  count_active(e, +1);
  const tcp::FourTuple& t = u.connection->tuple();
  ex.upstream_address = t.remote;
  ex.upstream_port = t.remote_port;
  ex.upstream_local_address = t.local;
  ex.upstream_local_port = t.local_port;
  ex.upstream_connected_at = ctx_.now;
  proxy_.on_upstream_ready(ex);
}

// The first that waits, which waits no more; null: nobody.
Exchange* Upstreams::pop_pending(EndpointPool& e) {
  Exchange* ex = e.pending.pop_front();
  if (ex == nullptr) return nullptr;
  --e.waiting;
  --e.cluster->waiting;
  cluster_stats(e)[ClusterCounter::kRqPendingActive].sub();
  endpoint_stats(e)[ClusterCounter::kRqPendingActive].sub();
  return ex;
}

void Upstreams::not_awaited(UpstreamSession& u) {
  if (std::exchange(u.awaited, false)) --u.endpoint->connecting;
}

// The connection is there, and what it speaks is known.
void Upstreams::established(UpstreamSession& u) {
  EndpointPool& e = *u.endpoint;
  if (e.codec == UpstreamCodec::kAlpn) e.alpn_http1 = ctx_.transports.alpn(u) != "h2";
  if (e.codec == UpstreamCodec::kHttp1 || e.alpn_http1) {
    e.streams_told = UINT32_MAX;
    not_awaited(u);
    ++e.active;  // keeps it
    connection_ready(u);
    --e.active;
    if (e.alpn_http1) open_for_waiting(e);  // it serves one, where many streams were hoped for
    release_if_unused(e);
    return;
  }
  if (!http2_.start(u)) return connect_failed(u, UpstreamFailure::kLocal);
  count(e, ClusterCounter::kCxHttp2Total);
  feed(u);
}

void Upstreams::settled(UpstreamSession& u) {
  not_awaited(u);
  u.endpoint->streams_told = u.h2->connection.stream_limit();
}

bool Upstreams::feed(UpstreamSession& u) {
  EndpointPool& e = *u.endpoint;
  bool any = false;
  while (!e.pending.empty() && http2_.room(u) != 0) {
    attach(u, *pop_pending(e));
    any = true;
  }
  return any;
}

void Upstreams::offer(UpstreamSession& u) {
  EndpointPool& e = *u.endpoint;
  const bool room = http2_.room(u) != 0;
  if (room && !u.link.linked()) e.multiplexed.push_front(u);
  else if (!room) u.link.unlink();
  if (u.h2->connection.settings_received()) e.streams_told = u.h2->connection.stream_limit();  // SETTINGS may come again
  open_for_waiting(e);
}

void Upstreams::open_for_waiting(EndpointPool& e) {
  while (e.wants_connection() && may_connect(e))
    if (!open_connection(e)) return;
}

bool Upstreams::try_again(Exchange& ex) {
  if (ex.tried_again || ex.bytes_received != 0 || ex.response_phase != ResponsePhase::kNone) return false;
  if (ex.request_phase == RequestPhase::kComplete && ex.upstream_stream->tx_trailers != nullptr) return false;
  EndpointPool& e = *ex.upstream->endpoint;
  ++e.active;  // keeps it
  finish(ex, false);
  ex.tried_again = true;
  ex.upstream_head_sent = false;
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  UpstreamFailure failure = UpstreamFailure::kLocal;
  const bool submitted = submit(ex, e, &failure);
  --e.active;
  count(e, ClusterCounter::kRqRetry);
  if (submitted) return true;
  ex.endpoint = nullptr;
  proxy_.on_upstream_failed(ex, failure);
  release_if_unused(e);
  return true;
}

// A connection without an exchange: the next waiting one gets it, else it idles.
void Upstreams::connection_ready(UpstreamSession& u) {
  EndpointPool& e = *u.endpoint;
  if (!e.pending.empty()) return attach(u, *pop_pending(e));
  if (e.retired || u.context != e.cluster->context) {
    close_session(u, false);
    return;
  }
  e.idle.push_front(u);
  ctx_.arm(u.timer, deadline_after(ctx_.now, e.cluster->idle_timeout_ms));
}

void Upstreams::finish(Exchange& ex, bool reuse) {
  StageScope stage(ctx_.stages, Stage::kUpstream);
  UpstreamSession& u = *ex.upstream;
  EndpointPool& e = *u.endpoint;
  ex.upstream = nullptr;
  ex.endpoint = nullptr;
  u.exchange = nullptr;
  if (ex.counted_active) count_active(e, -1);
  ex.counted_active = false;
  count_bytes(u);
  if (ex.upstream_stream != nullptr) return http2_.release(*ex.upstream_stream);
  if (!reuse || !u.reusable || u.peer_closed || u.fin_received) {
    close_session(u, !reuse && !u.peer_closed);
    return;
  }
  connection_ready(u);
}

void Upstreams::cancel(Exchange& ex) {
  if (ex.upstream != nullptr) {
    if (ex.upstream->connected) count(*ex.upstream->endpoint, ClusterCounter::kRqTxReset);
    finish(ex, false);
    return;
  }
  if (ex.endpoint == nullptr) return;
  EndpointPool& e = *ex.endpoint;
  ex.endpoint = nullptr;
  if (!ex.pending.linked()) return;
  ex.pending.unlink();
  --e.waiting;
  --e.cluster->waiting;
  cluster_stats(e)[ClusterCounter::kRqPendingActive].sub();
  endpoint_stats(e)[ClusterCounter::kRqPendingActive].sub();
  count(e, ClusterCounter::kRqCancelled);
  release_if_unused(e);
}

// ---- connections
// ---------------------------------------------------------------------------------------------------------------

void Upstreams::on_ready(UpstreamSession& u, uint32_t events) {
  EndpointPool& e = *u.endpoint;
  if (u.connected && bytes_due(u)) count_bytes(u);
  if (u.h2 != nullptr) return http2_.on_ready(u, events);
  if (!u.connected) {
    if (e.abandoned()) return close_session(u, true);
    UpstreamFailure failure = UpstreamFailure::kLocal;
    const Setup setup = establish(u, e, u.own ? std::string_view() : pool_alpn(e.codec), e.client, &events, &failure);
    if (setup == Setup::kFailed) return connect_failed(u, failure);
    if (setup == Setup::kWait) return;
    u.connected = true;
    u.context = u.tls == nullptr && e.cluster->proxy_version == 0 ? nullptr : e.cluster->context;
    start_counting(u);
    ctx_.disarm(u.timer);
    ctx_.stats->histogram(stats::WorkerHistogram::kConnectTime).record(ctx_.now - u.opened_at);
    if (u.own) attach(u, *u.exchange);
    else established(u);
    if (events == 0) return;
    if (u.connection == nullptr) return;
    if (u.h2 != nullptr) return http2_.on_ready(u, events);
  }
  if (events & (tcp::kEventReset | tcp::kEventTimedOut)) {
    u.peer_closed = u.fin_received = true;
    Exchange* ex = u.exchange;
    if (ex == nullptr) {
      close_session(u, false);
      return;
    }
    // What came before the reset is still in rx(): a response that is complete counts.
    proxy_.on_upstream_readable(*ex);
    if (u.exchange == ex && ex->upstream == &u) {
      count(e, ClusterCounter::kCxDestroyRemoteActiveRq);
      proxy_.on_upstream_failed(*ex, UpstreamFailure::kReset);
    }
    return;
  }
  if (events & (tcp::kEventReadable | tcp::kEventPeerFin)) {
    if (ctx_.transports.pull(u, events, ctx_.now).failed) return tls_failed(u);
    if (u.exchange == nullptr) {
      // Nobody asked for anything: bytes are an error of the endpoint (Envoy: upstream_cx_protocol_error), a FIN is its right.
      // Neither: the event is of bytes that the exchange took when its client made room, and which completed it.
      const bool unasked = !ctx_.transports.rx(u).empty();
      if (!unasked && !u.fin_received && !u.peer_closed) return;
      if (unasked) count(e, ClusterCounter::kCxProtocolError);
      close_session(u, unasked);
      return;
    }
    Exchange* ex = u.exchange;
    proxy_.on_upstream_readable(*ex);
    if (u.connection == nullptr || u.exchange != ex) return;
    // Half a head stays in rx() until the rest comes; it does not come any more.
    const bool waits = ex->response_phase != ResponsePhase::kComplete;  // else the other direction of a tunnel goes on
    if (u.peer_closed && waits && (ctx_.transports.rx(u).empty() || ex->response_phase == ResponsePhase::kNone)) {
      count(e, ClusterCounter::kCxDestroyRemoteActiveRq);
      proxy_.on_upstream_failed(*ex, UpstreamFailure::kClosed);
      return;
    }
  }
  if ((events & tcp::kEventSendSpace) && u.exchange != nullptr) {
    ctx_.transports.on_send_space(u, ctx_.now);
    proxy_.on_upstream_writable(*u.exchange);
  }
}

// A record that does not decrypt, or an alert: as a reset, but ours goes out.
void Upstreams::tls_failed(UpstreamSession& u) {
  EndpointPool& e = *u.endpoint;
  count(e, ClusterCounter::kSslConnectionError);
  u.peer_closed = u.fin_received = true;
  if (u.exchange == nullptr) return close_session(u, false);
  count(e, ClusterCounter::kCxDestroyRemoteActiveRq);
  proxy_.on_upstream_failed(*u.exchange, UpstreamFailure::kReset);
}

void Upstreams::on_timer(UpstreamSession& u) {
  if (u.h2 != nullptr) return http2_.on_timer(u);
  if (!u.connected) return connect_failed(u, UpstreamFailure::kTimeout);
  count(*u.endpoint, ClusterCounter::kCxIdleTimeout);
  close_session(u, false);
}

void Upstreams::connect_failed(UpstreamSession& u, UpstreamFailure failure) {
  EndpointPool& e = *u.endpoint;
  count_connect_failure(e, failure == UpstreamFailure::kTimeout);
  if (u.own) return proxy_.on_upstream_failed(*u.exchange, failure);
  ++e.active;  // keeps the endpoint while its exchanges are told; they go first, so that nothing is opened for them again
  fail_pending(e, failure);
  close_session(u, failure != UpstreamFailure::kTls);  // the alert that says why still goes
  --e.active;
  release_if_unused(e);
}

// As Envoy: a failed connection fails everything that waits for one, so that nothing is stuck behind an endpoint that does not
// answer.
void Upstreams::fail_pending(EndpointPool& e, UpstreamFailure failure) {
  base::List<Exchange, &Exchange::pending> failed;
  failed.splice_back(e.pending);
  while (Exchange* ex = failed.pop_front()) {
    --e.waiting;
    --e.cluster->waiting;
    cluster_stats(e)[ClusterCounter::kRqPendingActive].sub();
    endpoint_stats(e)[ClusterCounter::kRqPendingActive].sub();
    count(e, ClusterCounter::kRqPendingFailureEject);
    proxy_.on_upstream_failed(*ex, failure);
  }
}

void Upstreams::count_bytes(UpstreamSession& u) {
  if (u.connection == nullptr || !u.connected) return;
  const MovedBytes moved = take_moved(u);
  for (stats::ScopeBlock* b : {&cluster_stats(*u.endpoint), &endpoint_stats(*u.endpoint)}) {
    (*b)[ClusterCounter::kCxRxBytes].add(moved.rx);
    (*b)[ClusterCounter::kCxTxBytes].add(moved.tx);
  }
}

// Ends a session that has no exchange (any more) and lets its endpoint open another one for those who wait.
void Upstreams::close_session(UpstreamSession& u, bool reset) {
  EndpointPool& e = *u.endpoint;
  ctx_.disarm(u.timer);
  u.link.unlink();
  count_bytes(u);
  not_awaited(u);
  if (u.h2 != nullptr) http2_.stop(u);
  count_connection(e, -1);
  if (reset) ctx_.transports.abort(u, ctx_.now);
  else ctx_.transports.detach(u, ctx_.now);
  u.endpoint = nullptr;
  sessions_.free(&u);
  if (e.connections == 0 && e.streams_told == 0) e.streams_told = UINT32_MAX;  // asked anew
  open_for_waiting(e);
  if (e.waiting != 0 && e.connections == 0) {
    ++e.active;
    fail_pending(e, UpstreamFailure::kLocal);
    --e.active;
  }
  release_if_unused(e);
}

// Shutdown of the worker: no accounting, no successor.
void Upstreams::drop_session(UpstreamSession& u) {
  ctx_.disarm(u.timer);
  u.link.unlink();
  if (u.h2 != nullptr) http2_.stop(u);
  ctx_.transports.abort(u, ctx_.now);
  sessions_.free(&u);
}

// ---- after a snapshot swap ---------------------------------------------------------------------------------------------------

UpstreamSession* Upstreams::stale_idle(EndpointPool& e) {
  for (UpstreamSession& u : e.idle)
    if (u.context != e.cluster->context) return &u;
  return nullptr;
}

void Upstreams::begin_sweep() { sweep_at_ = 0; }

bool Upstreams::sweep_retired(uint32_t max) {
  if (sweep_at_ == UINT32_MAX) return false;
  for (; max > 0 && sweep_at_ < endpoints_.capacity(); ++sweep_at_) {
    if (!endpoints_.lent(sweep_at_)) continue;
    --max;
    EndpointPool& e = endpoints_[sweep_at_];
    const ClusterRuntime* runtime = ctx_.tables->cluster(e.cluster->id);
    bool usable = false;
    if (runtime != nullptr && runtime->endpoints != nullptr) {
      if (e.cluster->epoch != ctx_.tables->epoch()) refresh(*e.cluster, *runtime);
      const table::EndpointSet* set = runtime->endpoints;
      for (const table::Endpoint* p = set->endpoints.begin(set); p != set->endpoints.end(set) && !usable; ++p)
        usable = p->port == e.port && p->address == e.address &&
                 (p->state == table::EndpointState::kHealthy || p->state == table::EndpointState::kDegraded);
    }
    usable = usable && !e.abandoned();
    e.retired = !usable;
    if (usable) {
      // Idle connections of another TLS configuration (or of none) go.
      while (UpstreamSession* u = stale_idle(e)) close_session(*u, false);
      for (UpstreamSession& u : e.multiplexed)
        if (u.context != e.cluster->context) http2_.drain(u);
      continue;
    }
    ++e.active;  // keeps it while its idle connections go
    while (UpstreamSession* u = e.idle.front()) close_session(*u, false);
    for (UpstreamSession& u : e.multiplexed) http2_.drain(u);  // those without room end by themselves: `retired`
    --e.active;
    release_if_unused(e);
  }
  if (sweep_at_ >= endpoints_.capacity()) sweep_at_ = UINT32_MAX;
  return sweep_at_ != UINT32_MAX;
}

}  // namespace millrace::dataplane
