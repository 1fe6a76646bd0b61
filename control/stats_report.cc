#include "control/stats_report.h"

#include <algorithm>
#include <ctime>
#include <iterator>
#include <string>

#include "control/manifests/apply.h"
#include "control/monotonic.h"
#include "lib/stats/kernel_counters.h"
#include "lib/table/outlier_detection.h"

namespace millrace::control {

using stats::CounterInfo;
using stats::CounterType;
using stats::RegionView;

namespace {

// Collects counters that pass the request's filter.
class Collector {
 public:
  Collector(const v1::StatsRequest& request, v1::StatsReply* out) : request_(request), out_(out) {}

  void add(const std::string& scope, const std::string& name, const std::string& parent, const CounterInfo& info,
           uint64_t value) {
    if (request_.nonzero() && value == 0) return;
    if (!request_.filter().empty() && (scope + "." + name + "." + info.name).find(request_.filter()) == std::string::npos) return;
    v1::Counter& c = *out_->add_counters();
    c.set_scope(scope);
    c.set_name(name);
    c.set_parent(parent);
    c.set_counter(info.name);
    c.set_value(value);
    c.set_gauge(info.type == CounterType::kGauge);
    c.set_text(info.text);
  }
  // One group of every worker, summed or one by one.
  template <class Enum, class Of>
  void group(const RegionView& view, const std::string& scope, const std::string& name, Of&& of) {
    const std::span<const CounterInfo> infos = stats::infos<Enum>();
    for (uint32_t w = 0; request_.per_worker() && w < view.workers(); ++w)
      for (uint32_t i = 0; i < infos.size(); ++i)
        add(scope, name, "worker " + std::to_string(w), infos[i], of(view.worker(w))[static_cast<Enum>(i)].read());
    for (uint32_t i = 0; i < infos.size() && !request_.per_worker(); ++i) {
      uint64_t sum = 0;
      for (uint32_t w = 0; w < view.workers(); ++w) sum += of(view.worker(w))[static_cast<Enum>(i)].read();
      add(scope, name, "", infos[i], sum);
    }
  }

 private:
  const v1::StatsRequest& request_;
  v1::StatsReply* out_;
};

const char* severity(stats::Severity s) {
  return s == stats::Severity::kError ? "error" : s == stats::Severity::kWarning ? "warning" : "info";
}

uint64_t heartbeat_age_ms(const stats::WorkerBlock& b, uint64_t now) {
  const uint64_t beat = b.heartbeat_ns.read();
  return beat != 0 && now > beat ? (now - beat) / 1'000'000 : 0;
}

// Pools that have a capacity.
void report_pools(const stats::WorkerBlock& b, google::protobuf::RepeatedPtrField<v1::PoolStatus>* out) {
  for (uint32_t i = 0; i < stats::kCountOf<stats::Pool>; ++i) {
    const stats::PoolGauge& g = b.pools[i];
    if (g.capacity.read() == 0) continue;
    v1::PoolStatus& p = *out->Add();
    p.set_name(stats::info(static_cast<stats::Pool>(i)).name);
    p.set_in_use(g.in_use.read());
    p.set_capacity(g.capacity.read());
    p.set_high_water(g.high_water.read());
    p.set_refused(g.refused.read());
  }
}

std::string routes_line(const api::VirtualHost& vh) {
  std::string domains;
  for (const std::string& d : vh.domains()) domains += (domains.empty() ? "" : ", ") + d;
  return domains;
}

}  // namespace

void report_status(const RegionView& view, const std::vector<uint64_t>& seen, v1::StatusReply* out) {
  const stats::RegionHeader& h = view.header();
  const uint64_t now = monotonic_ns();
  out->set_dataplane_version(std::string(h.version, strnlen(h.version, sizeof h.version)));
  out->set_dataplane_uptime_ms(now > h.start_monotonic_ns ? (now - h.start_monotonic_ns) / 1'000'000 : 0);
  report_drain(view, out->mutable_drain());
  uint64_t lost = 0;
  for (uint32_t w = 0; w < view.workers(); ++w) {
    const stats::WorkerBlock& b = view.worker(w);
    v1::WorkerStatus& s = *out->add_workers();
    s.set_worker(w);
    s.set_epoch(w < seen.size() ? seen[w] : 0);
    s.set_connections(b.tcp[stats::TcpCounter::kActive].read());
    s.set_exchanges(b.http[stats::HttpCounter::kRqActive].read());
    s.set_requests(b.http[stats::HttpCounter::kRqTotal].read());
    s.set_handed_in(b.loop[stats::LoopCounter::kHandoverIn].read());
    s.set_handed_out(b.loop[stats::LoopCounter::kHandoverOut].read());
    const double busy = static_cast<double>(b.loop[stats::LoopCounter::kBusyCycles].read());
    const double idle = static_cast<double>(b.loop[stats::LoopCounter::kIdleCycles].read());
    s.set_busy(busy + idle > 0 ? busy / (busy + idle) : 0);
    s.set_heartbeat_age_ms(heartbeat_age_ms(b, now));
    lost += b.loop[stats::LoopCounter::kEventsLost].read();
    report_pools(b, s.mutable_pools());
  }
  out->set_events_lost(lost);
  for (uint32_t i = 0; i < view.ports(); ++i) {
    v1::PortStatus& p = *out->add_ports();
    p.set_name(view.port_name(i));
    uint64_t v[5] = {};
    for (uint32_t w = 0; w < view.workers(); ++w) {
      const auto& c = view.worker(w).ports[i];
      v[0] += c[stats::PortCounter::kRxPackets].read();
      v[1] += c[stats::PortCounter::kRxBytes].read();
      v[2] += c[stats::PortCounter::kTxPackets].read();
      v[3] += c[stats::PortCounter::kTxBytes].read();
      v[4] += c[stats::PortCounter::kRxMissed].read() + c[stats::PortCounter::kRxNoMbuf].read() +
              c[stats::PortCounter::kRxErrors].read() + c[stats::PortCounter::kTxErrors].read();
    }
    p.set_rx_packets(v[0]);
    p.set_rx_bytes(v[1]);
    p.set_tx_packets(v[2]);
    p.set_tx_bytes(v[3]);
    p.set_drops(v[4]);
  }
}

void report_drain(const RegionView& view, v1::DrainReply* out) {
  using stats::LoaderCounter;
  const auto read = [&](LoaderCounter c) { return view.loader()[c].read(); };
  out->set_draining(read(LoaderCounter::kDraining) != 0);
  out->set_health_failed(read(LoaderCounter::kHealthFailed) != 0);
  out->set_time_s(static_cast<uint32_t>(read(LoaderCounter::kDrainTime)));
  const uint64_t now_ms = monotonic_ns() / 1'000'000, from_ms = read(LoaderCounter::kDrainFromMs);
  out->set_elapsed_ms(out->draining() && now_ms > from_ms ? now_ms - from_ms : 0);
  out->set_accepting(!out->draining() || out->elapsed_ms() < uint64_t{out->time_s()} * 1000);
  uint64_t connections = 0, requests = 0;
  for (const stats::Scope& s : view.all_scopes())
    if (s.kind == stats::ScopeKind::kListener)
      connections += view.scope_sum(s.slot, static_cast<uint32_t>(stats::ListenerCounter::kCxActive));
  for (uint32_t w = 0; w < view.workers(); ++w) requests += view.worker(w).http[stats::HttpCounter::kRqActive].read();
  out->set_connections(connections);
  out->set_requests(requests);
}

void report_top(const RegionView& view, v1::TopSample* out) {
  using stats::HttpCounter, stats::LoopCounter, stats::PortCounter, stats::TcpCounter, stats::TlsCounter;
  const stats::RegionHeader& h = view.header();
  const uint64_t now = monotonic_ns();
  out->set_incarnation(h.incarnation);
  out->set_taken_ns(now);
  out->set_tsc_hz(h.tsc_hz);
  out->set_stage_period(static_cast<uint32_t>(view.loader()[stats::LoaderCounter::kStagePeriod].read()));
  out->set_uptime_ms(now > h.start_monotonic_ns ? (now - h.start_monotonic_ns) / 1'000'000 : 0);
  for (uint32_t w = 0; w < view.workers(); ++w) {
    const stats::WorkerBlock& b = view.worker(w);
    v1::WorkerSample& s = *out->add_workers();
    s.set_worker(w);
    s.set_busy_turns(b.loop[LoopCounter::kBusyIterations].read());
    s.set_busy_cycles(b.loop[LoopCounter::kBusyCycles].read());
    s.set_idle_cycles(b.loop[LoopCounter::kIdleCycles].read());
    uint64_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0;
    for (uint32_t p = 0; p < view.ports(); ++p) {
      const auto& c = b.ports[p];
      rx_packets += c[PortCounter::kRxPackets].read();
      rx_bytes += c[PortCounter::kRxBytes].read();
      tx_packets += c[PortCounter::kTxPackets].read();
      tx_bytes += c[PortCounter::kTxBytes].read();
    }
    s.set_rx_packets(rx_packets);
    s.set_rx_bytes(rx_bytes);
    s.set_tx_packets(tx_packets);
    s.set_tx_bytes(tx_bytes);
    s.set_requests(b.http[HttpCounter::kRqTotal].read());
    s.set_failed(b.http[HttpCounter::kRq5xx].read());
    s.set_exchanges(b.http[HttpCounter::kRqActive].read());
    s.set_accepted(b.tcp[TcpCounter::kAccepted].read());
    s.set_opened(b.tcp[TcpCounter::kOpened].read());
    s.set_connections(b.tcp[TcpCounter::kActive].read());
    s.set_handshakes(b.tls[TlsCounter::kHandshakes].read() + b.tls[TlsCounter::kClientHandshakes].read());
    s.set_heartbeat_age_ms(heartbeat_age_ms(b, now));
    s.set_accounted_turns(b.stages.turns.read());
    for (uint32_t i = 0; i < stats::kCountOf<stats::Stage>; ++i) {
      v1::StageCount& c = *s.add_stages();
      c.set_name(stats::info(static_cast<stats::Stage>(i)).name);
      c.set_cycles(b.stages.cycles[i].read());
      c.set_entries(b.stages.entries[i].read());
    }
    report_pools(b, s.mutable_pools());
  }
  v1::DropsReply reasons;
  report_drops(view, false, &reasons);
  *out->mutable_drops() = std::move(*reasons.mutable_drops());
  *out->mutable_flags() = std::move(*reasons.mutable_flags());
}

void report_stats(const RegionView& view, const v1::StatsRequest& request, v1::StatsReply* out) {
  Collector c(request, out);
  using stats::WorkerBlock;
  if (request.kernel()) {
    for (const stats::KernelCounter& k : stats::kernel_counters()) {
      uint64_t sum = 0;
      for (uint32_t w = 0; w < view.workers(); ++w) sum += k.of(view.worker(w));
      const bool gauge = std::string_view(k.name) == "TcpCurrEstab";
      c.add("kernel", "", "", {k.name, gauge ? CounterType::kGauge : CounterType::kCounter, k.text}, sum);
    }
    return;
  }
  for (const stats::Scope& s : view.all_scopes()) {
    if (s.kind == stats::ScopeKind::kOverflow || s.kind == stats::ScopeKind::kNone) continue;
    std::string parent;
    if (const auto p = view.scope(s.parent); p && s.parent != stats::kOverflowScope) parent = p->name;
    const std::span<const CounterInfo> infos = stats::scope_counters(s.kind);
    std::string name = s.name;
    if (s.kind == stats::ScopeKind::kCompressor && name.ends_with('.')) name.pop_back();  // "LIBRARY.CODEC.": a prefix of Envoy's
    for (uint32_t i = 0; i < infos.size(); ++i)
      c.add(stats::to_string(s.kind), name, parent, infos[i], view.scope_sum(s.slot, i));
  }
  c.group<stats::HttpCounter>(
      view, "http_total", "", [](const WorkerBlock& b) -> const auto& { return b.http; });
  c.group<stats::TlsCounter>(
      view, "tls", "", [](const WorkerBlock& b) -> const auto& { return b.tls; });
  c.group<stats::TcpCounter>(
      view, "tcp", "", [](const WorkerBlock& b) -> const auto& { return b.tcp; });
  c.group<stats::LoopCounter>(
      view, "worker", "", [](const WorkerBlock& b) -> const auto& { return b.loop; });
  for (uint32_t i = 0; i < view.ports(); ++i)
    c.group<stats::PortCounter>(
        view, "port", view.port_name(i), [i](const WorkerBlock& b) -> const auto& { return b.ports[i]; });
  const std::span<const CounterInfo> loader = stats::infos<stats::LoaderCounter>();
  for (uint32_t i = 0; i < loader.size(); ++i)
    c.add("loader", "", "", loader[i], view.loader()[static_cast<stats::LoaderCounter>(i)].read());

  const std::span<const CounterInfo> histograms = stats::infos<stats::WorkerHistogram>();
  for (uint32_t i = 0; i < histograms.size(); ++i) {
    const stats::HistogramSnapshot h = view.histogram(static_cast<stats::WorkerHistogram>(i));
    if (h.count() == 0 ||
        (!request.filter().empty() && std::string(histograms[i].name).find(request.filter()) == std::string::npos))
      continue;
    v1::HistogramSummary& s = *out->add_histograms();
    s.set_name(histograms[i].name);
    s.set_text(histograms[i].text);
    s.set_count(h.count());
    s.set_mean_us(h.mean() / 1e3);
    s.set_p50_us(static_cast<double>(h.percentile(50)) / 1e3);
    s.set_p90_us(static_cast<double>(h.percentile(90)) / 1e3);
    s.set_p99_us(static_cast<double>(h.percentile(99)) / 1e3);
    s.set_p999_us(static_cast<double>(h.percentile(99.9)) / 1e3);
    s.set_max_us(static_cast<double>(h.max()) / 1e3);
  }
}

void report_drops(const RegionView& view, bool all, v1::DropsReply* out) {
  struct Entry {
    const stats::DropReasonInfo* info;
    uint64_t count;
  };
  std::vector<Entry> entries;
  for (uint32_t i = 1; i < stats::kDropReasonCount; ++i) {
    const auto reason = static_cast<stats::DropReason>(i);
    const uint64_t n = view.drops(reason);
    if (n != 0 || all) entries.push_back({&stats::info(reason), n});
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.info->severity != b.info->severity) return a.info->severity > b.info->severity;
    return a.count > b.count;
  });
  for (const Entry& e : entries) {
    v1::Drop& d = *out->add_drops();
    d.set_name(e.info->name);
    d.set_severity(severity(e.info->severity));
    d.set_count(e.count);
    d.set_text(e.info->text);
  }
  for (uint32_t i = 0; i < stats::kResponseFlagCount; ++i) {
    const auto flag = static_cast<stats::ResponseFlag>(i);
    const uint64_t n = view.response_flags(flag);
    if (n == 0 && !all) continue;
    v1::ResponseFlagCount& f = *out->add_flags();
    f.set_flag(stats::info(flag).short_name);
    f.set_name(stats::info(flag).long_name);
    f.set_count(n);
    f.set_text(stats::info(flag).text);
  }
}

std::set<stats::ScopeSlot> checked_clusters(const std::vector<stats::Scope>& scopes) {
  std::set<stats::ScopeSlot> out;
  for (const stats::Scope& s : scopes)
    if (s.kind == stats::ScopeKind::kClusterCheck && s.state == stats::ScopeState::kLive) out.insert(s.parent);
  return out;
}

// "" where the endpoint is healthy and its last check says nothing else.
static std::string check_state_text(uint32_t state, uint64_t result, uint64_t failures) {
  using stats::CheckResult;
  const auto why = [&]() -> std::string {
    switch (static_cast<CheckResult>(result & 0xff)) {
      case CheckResult::kNone:
        return "not checked yet";
      case CheckResult::kSuccess:
        return "not enough successes yet";
      case CheckResult::kStatus:
        return "status " + std::to_string(result >> 8 & 0xffff);
      case CheckResult::kPayload:
        return "the answer is not the expected one";
      case CheckResult::kTimeout:
        return "timeout";
      case CheckResult::kRefused:
        return "connection refused";
      case CheckResult::kClosed:
        return "connection closed";
      case CheckResult::kProtocol:
        return "the answer is no HTTP";
      case CheckResult::kTls:
        return "TLS handshake failed";
      case CheckResult::kLocal:
        return "no route, local port or memory";
      case CheckResult::kGrpc:
        return "gRPC status " + std::to_string(result >> 8 & 0xffff);
      case CheckResult::kNotServing:
        return "not serving";
    }
    return "unknown";
  };
  if ((state & stats::kHealthCheckPassed) == 0)
    return (result & 0xff) == 0 ? "not checked yet" : "failed active health check: " + why();
  if (failures != 0) return "in rotation, last health check: " + why();
  return (state & stats::kHealthCheckDegraded) != 0 ? "degraded by its health check" : "";
}

LiveStates live_states(const RegionView& view, uint64_t now_monotonic_ns) {
  constexpr const char* kDetectors[] = {"consecutive_5xx",
                                        "consecutive_gateway_failure",
                                        "success_rate",
                                        "consecutive_local_origin_failure",
                                        "local_origin_success_rate",
                                        "failure_percentage",
                                        "failure_percentage_local_origin"};
  static_assert(std::size(kDetectors) == table::kOutlierDetectors);
  LiveStates out;
  const std::vector<stats::Scope> scopes = view.all_scopes();
  const std::set<stats::ScopeSlot> checked = checked_clusters(scopes);
  for (const stats::Scope& s : scopes) {
    if (s.kind != stats::ScopeKind::kEndpoint) continue;
    const stats::EndpointHealth& h = view.health(s.slot);
    const uint32_t state = h.state.load(std::memory_order_relaxed);
    std::string text;
    if (checked.contains(s.parent)) text = check_state_text(state, h.check_result.read(), h.check_failures.read());
    if ((state & stats::kHealthEjected) != 0) {
      const uint64_t until = h.ejected_until_ns.read(), detector = h.detector.read();
      const uint64_t left = until > now_monotonic_ns ? (until - now_monotonic_ns + 999'999'999) / 1'000'000'000 : 0;
      if (!text.empty()) text += ", ";
      text +=
          "ejected for " + std::to_string(left) + " s: " + (detector < std::size(kDetectors) ? kDetectors[detector] : "unknown");
    }
    if (text.empty()) continue;
    if (const auto cluster = view.scope(s.parent)) out[{cluster->name, s.name}] = text;
  }
  return out;
}

void report_list(const Model& model, std::optional<ConfigKind> only, const LiveStates& live, v1::ListReply* out) {
  const auto add = [&](ConfigKind kind, const std::string& name, std::vector<std::string> columns) {
    v1::ObjectSummary& o = *out->add_objects();
    o.set_kind(std::string(to_string(kind)));
    o.set_name(name);
    for (std::string& c : columns) o.add_columns(std::move(c));
    if (!model.has_dynamic()) return;
    const ConfigKey key{kind, name};
    const bool by_eds = kind == ConfigKind::kEndpoints && !model.clusters().at(name)->eds_service.empty();
    o.add_columns(model.is_dynamic(key) || by_eds ? "xDS" : "here");
  };
  const auto titles = [&](std::initializer_list<const char*> t) {
    if (!only) return;
    for (const char* s : t) out->add_titles(s);
    if (model.has_dynamic()) out->add_titles("MANAGED BY");
  };
  const auto wanted = [&](ConfigKind k) { return !only || *only == k; };
  if (wanted(ConfigKind::kListener)) {
    titles({"ADDRESS", "CHAINS", "TLS"});
    for (const auto& [name, l] : model.listeners()) {
      const auto& a = l->config->address().socket_address();
      const auto tls = std::count_if(l->chains.begin(), l->chains.end(), [](const ChainObject& c) { return c.has_tls; });
      add(ConfigKind::kListener, name,
          {a.address() + ":" + std::to_string(a.port_value()), std::to_string(l->chains.size()),
           tls == 0 ? "-" : std::to_string(tls)});
    }
  }
  if (wanted(ConfigKind::kRoute)) {
    titles({"VIRTUAL HOST", "DOMAINS", "ROUTES"});
    for (const auto& [name, r] : model.routes())
      for (const auto& vh : r->virtual_hosts)
        add(ConfigKind::kRoute, name, {vh->name(), routes_line(*vh), std::to_string(vh->routes_size())});
  }
  if (wanted(ConfigKind::kCluster)) {
    titles({"ENDPOINTS", "POLICY", "CONNECT TIMEOUT"});
    for (const auto& [name, c] : model.clusters()) {
      int endpoints = 0;
      if (const auto e = model.endpoints_of(name); e != nullptr)
        for (const auto& l : e->config->endpoints()) endpoints += l.lb_endpoints_size();
      const auto& t = c->config->connect_timeout();
      add(ConfigKind::kCluster, name,
          {std::to_string(endpoints), api::Cluster::LbPolicy_Name(c->config->lb_policy()),
           c->config->has_connect_timeout() ? std::to_string(t.seconds() * 1000 + t.nanos() / 1'000'000) + " ms" : "5000 ms"});
    }
  }
  if (wanted(ConfigKind::kEndpoints)) {
    titles({"ENDPOINT", "WEIGHT", "STATE"});
    for (const auto& [name, unused] : model.endpoints()) {
      const auto e = model.endpoints_of(name);
      if (e == nullptr) continue;
      for (const auto& l : e->config->endpoints())
        for (const auto& lb : l.lb_endpoints()) {
          const auto& a = lb.endpoint().address().socket_address();
          const std::string host = a.address().find(':') != std::string::npos ? "[" + a.address() + "]" : a.address();
          const std::string state = envoy::config::core::v3::HealthStatus_Name(lb.health_status());
          const std::string endpoint = host + ":" + std::to_string(a.port_value());
          const auto found = live.find({name, endpoint});
          std::string shown = state == "UNKNOWN" ? "in rotation" : state;
          if (found != live.end())
            shown = state == "UNKNOWN" || state == "HEALTHY" ? found->second : state + ", " + found->second;
          add(ConfigKind::kEndpoints, name,
              {endpoint, std::to_string(lb.has_load_balancing_weight() ? lb.load_balancing_weight().value() : 1), shown});
        }
    }
  }
  if (wanted(ConfigKind::kSecret)) {
    titles({"FROM"});
    for (const auto& [name, s] : model.secrets())
      add(ConfigKind::kSecret, name, {s->derived ? std::string(to_string(s->owner.kind)) : "secret"});
  }
  if (wanted(ConfigKind::kManifest)) {
    titles({"CONDITIONS"});
    if (model.size(ConfigKind::kManifest) == 0) return;
    const manifests::Objects objects = manifests::objects_of(model);
    const manifests::Translation made = manifests::translate(objects, std::time(nullptr));
    for (const auto& [name, unused] : objects) add(ConfigKind::kManifest, name, {manifests::summary(made.status, name)});
  }
}

}  // namespace millrace::control
