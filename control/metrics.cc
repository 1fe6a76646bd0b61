#include "control/metrics.h"

#include "control/monotonic.h"

namespace millrace::control {

using stats::CounterInfo;
using stats::CounterType;
using stats::RegionView;

namespace {

using Visit = std::function<void(const MetricGroup&, std::span<const MetricValue>)>;

MetricValue metric(const CounterInfo& info, uint64_t value) {
  return {info.name, info.text, info.type == CounterType::kGauge, value};
}

// Envoy names a listener in its statistics by its address.
std::string listener_label(const Model& model, const std::string& name) {
  const auto l = model.listeners().find(name);
  if (l == model.listeners().end()) return metric_safe(name);
  const auto& s = l->second->config->address().socket_address();
  const bool v6 = s.address().find(':') != std::string::npos;
  return metric_safe((v6 ? "[" + s.address() + "]" : s.address()) + ":" + std::to_string(s.port_value()));
}

MetricGroup scope_group(const RegionView& view, const Model& model, const stats::Scope& s) {
  const std::string name = metric_safe(s.name);
  switch (s.kind) {
    case stats::ScopeKind::kListener: {
      const std::string label = listener_label(model, s.name);
      return {"listener." + label + ".", "listener.", {{"envoy.listener_address", label}}};
    }
    case stats::ScopeKind::kHcm:
      return {"http." + name + ".", "http.", {{"envoy.http_conn_manager_prefix", name}}};
    case stats::ScopeKind::kCompressor: {  // named "LIBRARY.CODEC.", below its connection manager
      const auto parent = view.scope(s.parent);
      const std::string hcm = parent ? metric_safe(parent->name) : "_";
      return {"http." + hcm + ".compressor." + name, "http.compressor." + name, {{"envoy.http_conn_manager_prefix", hcm}}};
    }
    case stats::ScopeKind::kVirtualHost:
      return {"vhost." + name + ".", "vhost.", {{"envoy.virtual_host", name}}};
    case stats::ScopeKind::kClusterCheck:
    case stats::ScopeKind::kClusterHealth:  // named as its cluster
    case stats::ScopeKind::kCluster:
      return {"cluster." + name + ".", "cluster.", {{"envoy.cluster_name", name}}};
    case stats::ScopeKind::kEndpoint: {
      const auto parent = view.scope(s.parent);
      const std::string cluster = parent ? metric_safe(parent->name) : "_";
      return {"cluster." + cluster + ".endpoint." + name + ".",
              "cluster.endpoint.",
              {{"envoy.cluster_name", cluster}, {"envoy.endpoint_address", name}},
              true};
    }
    default:
      return {};
  }
}

// One counter list of every worker, summed.
template <class Enum, class Of>
void process_group(const RegionView& view, const MetricGroup& group, const Visit& visit, Of&& of) {
  const std::span<const CounterInfo> infos = stats::infos<Enum>();
  std::vector<MetricValue> values;
  values.reserve(infos.size());
  for (uint32_t i = 0; i < infos.size(); ++i) {
    uint64_t sum = 0;
    for (uint32_t w = 0; w < view.workers(); ++w) sum += of(view.worker(w))[static_cast<Enum>(i)].read();
    values.push_back(metric(infos[i], sum));
  }
  visit(group, values);
}

void server_group(const RegionView& view, const Visit& visit) {
  const stats::RegionHeader& h = view.header();
  const uint64_t now = monotonic_ns();
  uint64_t connections = 0;
  for (uint32_t w = 0; w < view.workers(); ++w) connections += view.worker(w).tcp[stats::TcpCounter::kActive].read();
  const MetricValue values[] = {
      {"live", "1 while the data plane is connected to control", true, 1},
      {"uptime", "seconds since the data plane's start", true,
       now > h.start_monotonic_ns ? (now - h.start_monotonic_ns) / 1'000'000'000 : 0},
      {"concurrency", "workers", true, view.workers()},
      {"total_connections", "TCP connections, clients' and to endpoints", true, connections},
  };
  visit({"server.", "server.", {}}, values);
  // As Envoy's: of all workers, and of each.
  MetricValue watchdog[] = {{"watchdog_miss", "times a worker's loop stood still for 200 ms", false, 0},
                            {"watchdog_mega_miss", "times a worker's loop stood still for a second", false, 0}};
  uint64_t misses = 0, mega_misses = 0;
  for (uint32_t w = 0; w < view.workers(); ++w) {
    const stats::WatchdogBlock& b = view.worker(w).watchdog;
    misses += watchdog[0].value = b.misses.read();
    mega_misses += watchdog[1].value = b.mega_misses.read();
    visit({"server.worker_" + std::to_string(w) + ".", "server.worker.", {{"envoy.worker_id", std::to_string(w)}}}, watchdog);
  }
  watchdog[0].value = misses;
  watchdog[1].value = mega_misses;
  visit({"workers.", "workers.", {}}, watchdog);
}

}  // namespace

void visit_metrics(const RegionView& view, const Model& model, const Visit& visit) {
  using stats::WorkerBlock;
  server_group(view, visit);
  std::vector<MetricValue> values;
  for (const stats::Scope& s : view.all_scopes()) {
    if (s.kind == stats::ScopeKind::kOverflow || s.kind == stats::ScopeKind::kNone) continue;
    const std::span<const CounterInfo> infos = stats::scope_counters(s.kind);
    values.clear();
    for (uint32_t i = 0; i < infos.size(); ++i) values.push_back(metric(infos[i], view.scope_sum(s.slot, i)));
    if (s.kind == stats::ScopeKind::kCompressor && stats::is_plain_compressor(s.key))
      for (MetricValue& v : values)
        if (constexpr std::string_view kResponse = "response."; v.name.starts_with(kResponse))
          v.name.remove_prefix(kResponse.size());
    MetricGroup group = scope_group(view, model, s);
    group.life = uint64_t{s.slot} << 32 | s.generation;
    visit(group, values);
  }
  const auto plain = [](const char* prefix) { return MetricGroup{prefix, prefix, {}}; };
  process_group<stats::TcpCounter>(
      view, plain("millrace.tcp."), visit, [](const WorkerBlock& b) -> const auto& { return b.tcp; });
  process_group<stats::TlsCounter>(
      view, plain("millrace.tls."), visit, [](const WorkerBlock& b) -> const auto& { return b.tls; });
  process_group<stats::HttpCounter>(
      view, plain("millrace.http."), visit, [](const WorkerBlock& b) -> const auto& { return b.http; });
  process_group<stats::LoopCounter>(
      view, plain("millrace.worker."), visit, [](const WorkerBlock& b) -> const auto& { return b.loop; });
  for (uint32_t p = 0; p < view.ports(); ++p) {
    const std::string name = metric_safe(view.port_name(p));
    process_group<stats::PortCounter>(
        view, {"millrace.port." + name + ".", "millrace.port.", {{"millrace.port", name}}},
        visit, [p](const WorkerBlock& b) -> const auto& { return b.ports[p]; });
  }
  const std::span<const CounterInfo> loader = stats::infos<stats::LoaderCounter>();
  values.clear();
  for (uint32_t i = 0; i < loader.size(); ++i)
    values.push_back(metric(loader[i], view.loader()[static_cast<stats::LoaderCounter>(i)].read()));
  visit(plain("millrace.loader."), values);

  values.clear();
  for (uint32_t i = 1; i < stats::kDropReasonCount; ++i) {
    const stats::DropReasonInfo& info = stats::info(static_cast<stats::DropReason>(i));
    values.push_back({info.name, info.text, false, view.drops(static_cast<stats::DropReason>(i))});
  }
  visit(plain("millrace.drops."), values);
  values.clear();
  for (uint32_t i = 0; i < stats::kResponseFlagCount; ++i) {
    const stats::ResponseFlagInfo& info = stats::info(static_cast<stats::ResponseFlag>(i));
    values.push_back({info.short_name, info.text, false, view.response_flags(static_cast<stats::ResponseFlag>(i))});
  }
  visit(plain("millrace.response_flags."), values);
}

void visit_histograms(const RegionView& view,
                      const std::function<void(std::string_view, const char*, const stats::HistogramSnapshot&)>& visit) {
  const std::span<const CounterInfo> infos = stats::infos<stats::WorkerHistogram>();
  for (uint32_t i = 0; i < infos.size(); ++i)
    visit("millrace." + std::string(infos[i].name), infos[i].text, view.histogram(static_cast<stats::WorkerHistogram>(i)));
}

}  // namespace millrace::control
