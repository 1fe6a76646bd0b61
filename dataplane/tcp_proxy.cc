#include "dataplane/tcp_proxy.h"

#include <algorithm>
#include <memory>

#include "dataplane/log_filter.h"
#include "lib/base/xxhash64.h"
#include "lib/format/evaluate.h"
#include "lib/stats/events.h"

namespace millrace::dataplane {

using stats::ClusterCounter;
using stats::HcmCounter;
using stats::ResponseFlag;

TcpProxy::TcpProxy(WorkerContext& context, Downstreams& downstreams)
    : ctx_(context), downstreams_(downstreams), tunnels_(context.limits.tcp_proxies) {}

TcpProxy::~TcpProxy() {
  for (uint32_t i = 0; i < tunnels_.capacity(); ++i) {
    if (!tunnels_.lent(i)) continue;
    ctx_.disarm(tunnels_[i].timer);
    if (tunnels_[i].connection != nullptr) ctx_.transports.abort(tunnels_[i], ctx_.now);
    tunnels_.free(&tunnels_[i]);
  }
}

void TcpProxy::start(DownstreamSession& d, const void* object, const table::TcpProxy& config, stats::ScopeSlot slot) {
  Tunnel* t = tunnels_.alloc();
  if (t == nullptr) {
    ctx_.stats.scope(d.policy->listener_slot)[stats::ListenerCounter::kCxOverflow].add();
    return downstreams_.abort(d);
  }
  std::destroy_at(t);
  std::construct_at(t);
  t->downstream = &d;
  t->slot = slot;
  t->max_attempts = std::max<uint32_t>(config.max_connect_attempts, 1);
  t->idle_timeout_ms = config.idle_timeout_ms;
  t->started_at = t->last_activity = ctx_.now;
  t->started_wall_ns = ctx_.wall_ns;
  t->duration_deadline = deadline_after(ctx_.now, config.max_downstream_connection_duration_ms);
  t->access_logs = config.access_logs.count;
  d.phase = DownstreamPhase::kTunnel;
  d.tunnel = t;
  ctx_.stats.scope(slot)[HcmCounter::kCxTotal].add();
  ctx_.stats.scope(slot)[HcmCounter::kCxActive].add();

  uint32_t choice = 0;
  if (config.clusters.count > 1 && config.total_weight != 0) {
    uint64_t left = ctx_.random.next() % config.total_weight;
    for (; choice + 1 < config.clusters.count; ++choice) {
      const uint32_t w = config.clusters.at(object, choice).weight;
      if (left < w) break;
      left -= w;
    }
  }
  const table::WeightedCluster& cluster = config.clusters.at(object, choice);
  t->cluster = cluster.cluster;
  if (config.hash_source_ip != 0) {
    char ip[64];
    t->hash.add(base::xxhash64(format::detail::ip_text(d.tuple().remote, ip)));
  }
  t->cluster_name.assign(table::view(object, cluster.name));
  if (!connect(*t)) end(*t, false);
}

// Opens a connection to an endpoint of the tunnel's cluster. False: it is not to be had; flags say why.
bool TcpProxy::connect(Tunnel& t) {
  const ClusterRuntime* runtime = ctx_.tables->cluster(t.cluster);
  if (runtime == nullptr) {
    t.flags.set(ResponseFlag::kNoClusterFound);
    return false;
  }
  ClusterState* cluster = upstreams_->cluster_state(t.cluster, *runtime);
  Upstreams::PickError why = Upstreams::PickError::kTableFull;
  std::string_view hostname;
  EndpointPool* e =
      cluster == nullptr ? nullptr : upstreams_->pick(*cluster, *runtime, UpstreamCodec::kHttp1, t.hash, 0, &why, &hostname);
  if (e == nullptr) {
    t.flags.set(why == Upstreams::PickError::kNoHealthy ? ResponseFlag::kNoHealthyUpstream : ResponseFlag::kUpstreamOverflow);
    return false;
  }
  t.upstream_address = e->address;
  t.upstream_port = e->port;
  if (!upstreams_->may_connect(*e)) {
    ctx_.stats.scope(cluster->slot)[ClusterCounter::kCxOverflow].add();
    upstreams_->release_if_unused(*e);
    t.flags.set(ResponseFlag::kUpstreamOverflow);
    return false;
  }
  ++t.attempts;
  ConnectError error = ConnectError::kNone;
  const tcp::Profile& profile = ctx_.stack.profile(upstreams_->profile(), cluster->tcp, cluster->buffer_limit);
  Connection* c = ctx_.stack.connect(e->address, e->port, profile, ctx_.now, static_cast<Session*>(&t), &error,
                                     uint64_t{cluster->connect_timeout_ms} * base::kMillisecond);
  if (c == nullptr) {
    upstreams_->count_connect_failure(*e, false);
    upstreams_->release_if_unused(*e);
    t.flags.set(ResponseFlag::kUpstreamConnectionFailure);
    return false;
  }
  t.connection = c;
  t.endpoint = e;
  t.connected = t.fin_received = t.peer_closed = t.shut_down = false;
  t.connect_started = ctx_.now;
  t.upstream_local_address = c->tuple().local;
  t.upstream_local_port = c->tuple().local_port;
  upstreams_->count_connection(*e, +1);
  ctx_.arm(t.timer, deadline_after(ctx_.now, cluster->connect_timeout_ms));
  return true;
}

void TcpProxy::connect_failed(Tunnel& t, UpstreamFailure why) {
  upstreams_->count_connect_failure(*t.endpoint, why == UpstreamFailure::kTimeout);
  upstreams_->report(*t.endpoint, why == UpstreamFailure::kTimeout ? Upstreams::Outcome::kTimeout : Upstreams::Outcome::kFailed);
  leave_endpoint(t, why != UpstreamFailure::kTls);  // TLS: the alert that says why still goes
  if (t.attempts < t.max_attempts && connect(t)) return;
  if (t.attempts >= t.max_attempts) {  // Envoy: UF,URX, also when one attempt is all there is
    t.flags.set(ResponseFlag::kUpstreamConnectionFailure);
    t.flags.set(ResponseFlag::kUpstreamRetryLimitExceeded);
  }
  end(t, false);
}

void TcpProxy::on_downstream(DownstreamSession& d, uint32_t events) {
  Tunnel& t = *d.tunnel;
  if (events & (tcp::kEventReset | tcp::kEventTimedOut)) {
    if (!t.connected) t.flags.set(ResponseFlag::kDownstreamConnectionTermination);
    return end(t, true);
  }
  if (events & tcp::kEventSendSpace) ctx_.transports.on_send_space(d, ctx_.now);
  pump(t);  // a client that has half closed before the endpoint was there still wants to hear it: the FIN is passed on then
}

void TcpProxy::on_downstream_gone(DownstreamSession& d) { end(*d.tunnel, true); }

void TcpProxy::on_upstream(Tunnel& t, uint32_t events) {
  if (!t.connected) {
    UpstreamFailure failure = UpstreamFailure::kLocal;
    const Upstreams::Setup setup = upstreams_->establish(t, *t.endpoint, {}, t.downstream, &events, &failure);
    if (setup == Upstreams::Setup::kFailed) return connect_failed(t, failure);
    if (setup == Upstreams::Setup::kWait) return;
    t.connected = true;
    t.last_activity = t.ready_at = ctx_.now;
    ctx_.stats->histogram(stats::WorkerHistogram::kConnectTime).record(ctx_.now - t.connect_started);
    upstreams_->count_active(*t.endpoint, +1);
    upstreams_->report(*t.endpoint, Upstreams::Outcome::kConnectedFinal);
    arm(t);
  } else if (events & (tcp::kEventReset | tcp::kEventTimedOut)) {
    t.flags.set(ResponseFlag::kUpstreamConnectionTermination);
    ctx_.stats.scope(t.endpoint->cluster->slot)[ClusterCounter::kCxDestroyRemoteActiveRq].add();
    // What the endpoint sent before its reset still belongs to the client; the reset is passed on behind it.
    move(t, *t.downstream, &t.bytes_sent);
    return end(t, true);
  }
  if ((events & (tcp::kEventReadable | tcp::kEventPeerFin)) && ctx_.transports.pull(t, events, ctx_.now).failed) {
    t.flags.set(ResponseFlag::kUpstreamConnectionTermination);
    ctx_.stats.scope(t.endpoint->cluster->slot)[ClusterCounter::kSslConnectionError].add();
    move(t, *t.downstream, &t.bytes_sent);
    return end(t, true);
  }
  if (events & tcp::kEventSendSpace) ctx_.transports.on_send_space(t, ctx_.now);
  pump(t);
}

void TcpProxy::on_timer(Tunnel& t) {
  if (!t.connected) return connect_failed(t, UpstreamFailure::kTimeout);
  if (ctx_.now >= t.duration_deadline) {
    ctx_.stats.scope(t.slot)[HcmCounter::kCxMaxDuration].add();
    t.flags.set(ResponseFlag::kDurationTimeout);
    return end(t, false);
  }
  if (t.idle_timeout_ms != 0 && ctx_.now >= deadline_after(t.last_activity, t.idle_timeout_ms)) {
    ctx_.stats.scope(t.slot)[HcmCounter::kCxIdleTimeout].add();
    t.flags.set(ResponseFlag::kStreamIdleTimeout);
    return end(t, false);
  }
  arm(t);
}

void TcpProxy::arm(Tunnel& t) {
  ctx_.arm(t.timer, std::min(deadline_after(t.last_activity, t.idle_timeout_ms), t.duration_deadline));
}

bool TcpProxy::move(Session& from, Session& to, uint64_t* bytes) {
  Transports& transports = ctx_.transports;
  io::PacketQueue& in = transports.rx(from);
  bool moved = false;
  while (!in.empty() && transports.tx_space(to) > 0) {
    io::PacketPtr p = in.pop();
    *bytes += p.size();
    transports.write(to, std::move(p), ctx_.now);
    moved = true;
  }
  if (moved) transports.after_read(from, ctx_.now);
  if (from.peer_closed && in.empty() && !to.shut_down) {
    transports.shutdown(to, ctx_.now);
    moved = true;
  }
  return moved;
}

void TcpProxy::pump(Tunnel& t) {
  if (!t.connected) return;
  StageScope stage(ctx_.stages, Stage::kRelay);
  DownstreamSession& d = *t.downstream;
  const bool up = move(d, t, &t.bytes_received);
  const bool down = move(t, d, &t.bytes_sent);
  if (up || down) t.last_activity = ctx_.now;
  if (d.shut_down && t.shut_down) end(t, false);
}

void TcpProxy::leave_endpoint(Tunnel& t, bool reset) {
  if (t.endpoint == nullptr) return;
  EndpointPool& e = *std::exchange(t.endpoint, nullptr);
  ctx_.disarm(t.timer);
  for (stats::ScopeBlock* b : {&ctx_.stats.scope(e.cluster->slot), &ctx_.stats.scope(e.slot)}) {
    (*b)[ClusterCounter::kCxRxBytes].add(t.bytes_sent);
    (*b)[ClusterCounter::kCxTxBytes].add(t.bytes_received);
  }
  if (t.connected) upstreams_->count_active(e, -1);
  upstreams_->count_connection(e, -1);
  if (reset) ctx_.transports.abort(t, ctx_.now);
  else ctx_.transports.detach(t, ctx_.now);
  upstreams_->release_if_unused(e);
}

void TcpProxy::end(Tunnel& t, bool reset) {
  DownstreamSession& d = *t.downstream;
  const bool refused = !t.connected;
  leave_endpoint(t, reset || refused);
  ctx_.stats.scope(t.slot)[HcmCounter::kCxActive].sub();
  ctx_.stats.scope(t.slot)[HcmCounter::kCxDestroy].add();
  if (!t.flags.empty()) ctx_.stats->flag(t.flags);
  if (t.access_logs != 0) emit_access_log(t);
  ctx_.disarm(t.timer);
  d.tunnel = nullptr;
  tunnels_.free(&t);
  if (reset) downstreams_.abort(d);
  else downstreams_.close(d, 0);
}

void TcpProxy::emit_access_log(const Tunnel& t) {
  if (ctx_.events == nullptr) return;
  const DownstreamSession& d = *t.downstream;
  stats::AccessLogRecord r;
  r.start_wall_ns = t.started_wall_ns;
  r.duration_ns = ctx_.now - t.started_at;
  r.bytes_received = t.bytes_received;
  r.bytes_sent = t.bytes_sent;
  r.flags = t.flags.bits;
  r.connection_id = d.connection_id;
  r.listener = d.policy->listener;
  r.filter_chain = d.policy->chain;
  r.cluster = t.cluster;
  r.downstream_remote = d.tuple().remote;
  r.downstream_remote_port = d.tuple().remote_port;
  r.downstream_direct_remote = d.connection->tuple().remote;
  r.downstream_direct_remote_port = d.connection->tuple().remote_port;
  r.downstream_local = d.tuple().local;
  r.downstream_local_port = d.tuple().local_port;
  r.upstream_remote = t.upstream_address;
  r.upstream_remote_port = t.upstream_port;
  r.upstream_local = t.upstream_local_address;
  r.upstream_local_port = t.upstream_local_port;
  if (t.connected) r.upstream_ready_ns = t.ready_at - t.started_at;
  r.tcp_handshake_rtt_us = d.handshake_rtt_us;
  r.tcp_rtt_us = d.connection->tcb.srtt_us;
  r.tcp_retransmits = tcp::retransmits(d.connection->tcb);
  r.protocol = stats::Protocol::kTcp;
  r.record_flags = stats::kFlagConnectionRecord | (d.tls_terminated ? stats::kFlagDownstreamTls : 0);
  r.tls_version = d.tls_version;
  r.tls_cipher = d.tls_cipher;
  r.worker = static_cast<uint16_t>(ctx_.worker);
  if (const CurrentChain chain = current_chain(ctx_, d); chain.object != nullptr && chain.runtime->log_fields->filters) {
    LogFacts facts;
    facts.duration_ms = r.duration_ns / base::kMillisecond;
    facts.flags = r.flags;
    facts.type = table::LogType::kTcpConnectionEnd;
    facts.random = ctx_.random.next();
    r.sinks = wanted_logs(chain.object, chain.runtime->chain->tcp.access_logs, facts);
    if (r.sinks == 0) return;
  }
  const stats::LogString strings[] = {{stats::StringId::kClusterName, t.cluster_name.view()},
                                      {stats::StringId::kServerName, d.server_name()},
                                      {stats::StringId::kJa3, d.ja3()},
                                      {stats::StringId::kJa4, d.ja4()}};
  const stats::AccessLogBuilder builder(r, strings);
  const std::span<uint8_t> out = ctx_.events->reserve(builder.size());
  if (out.empty()) {
    ctx_.stats->loop[stats::LoopCounter::kEventsLost].add();
    return;
  }
  builder.write(out);
  ctx_.events->commit(builder.size());
  ctx_.stats->loop[stats::LoopCounter::kEventsWritten].add();
}

}  // namespace millrace::dataplane
