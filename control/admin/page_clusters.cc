// /clusters: what is configured of each cluster, and what its endpoints count.
#include <map>
#include <set>

#include "control/admin/json.h"
#include "control/admin/pages.h"
#include "control/admin/query.h"
#include "control/stats_report.h"

namespace millrace::control::admin {

using stats::ClusterCounter;

namespace {

using Slots = std::map<std::pair<std::string, std::string>, stats::ScopeSlot>;  // (cluster, "10.0.0.1:80")

Slots endpoint_slots(const stats::RegionView& view) {
  std::map<stats::ScopeSlot, std::string> clusters;
  Slots out;
  for (const stats::Scope& s : view.all_scopes())
    if (s.kind == stats::ScopeKind::kCluster) clusters.emplace(s.slot, s.name);
  for (const stats::Scope& s : view.all_scopes())
    if (s.kind == stats::ScopeKind::kEndpoint)
      if (const auto parent = clusters.find(s.parent); parent != clusters.end())
        out.emplace(std::pair(parent->second, s.name), s.slot);
  return out;
}

// Envoy's names of a host's statistics, in its order.
struct HostStat {
  const char* name;
  ClusterCounter counter;
  bool gauge;
};
constexpr HostStat kHostStats[] = {
    {"cx_active", ClusterCounter::kCxActive, true}, {"cx_connect_fail", ClusterCounter::kCxConnectFail, false},
    {"cx_total", ClusterCounter::kCxTotal, false},  {"rq_active", ClusterCounter::kRqActive, true},
    {"rq_error", ClusterCounter::kRq5xx, false},    {"rq_pending_active", ClusterCounter::kRqPendingActive, true},
    {"rq_success", ClusterCounter::kRq2xx, false},  {"rq_timeout", ClusterCounter::kRqTimeout, false},
    {"rq_total", ClusterCounter::kRqTotal, false},
};
// Envoy counts every status below 500 as a success of the host.
constexpr ClusterCounter kSuccesses[] = {ClusterCounter::kRq2xx, ClusterCounter::kRq3xx, ClusterCounter::kRq4xx};

uint64_t read(const stats::RegionView* view, stats::ScopeSlot slot, const HostStat& s) {
  if (view == nullptr || slot == stats::kOverflowScope) return 0;
  if (s.counter != ClusterCounter::kRq2xx) return view->sum(slot, s.counter);
  uint64_t n = 0;
  for (const ClusterCounter c : kSuccesses) n += view->sum(slot, c);
  return n;
}

struct Limits {
  const char* name;
  uint32_t connections = 1024, pending = 1024, requests = 1024, retries = 3;
};
std::vector<Limits> limits_of(const api::Cluster& c) {
  Limits usual{"default"}, high{"high"};
  for (const auto& t : c.circuit_breakers().thresholds()) {
    Limits& l = envoy::config::core::v3::RoutingPriority_Name(t.priority()) == "HIGH" ? high : usual;
    if (t.has_max_connections()) l.connections = t.max_connections().value();
    if (t.has_max_pending_requests()) l.pending = t.max_pending_requests().value();
    if (t.has_max_requests()) l.requests = t.max_requests().value();
    if (t.has_max_retries()) l.retries = t.max_retries().value();
  }
  return {usual, high};
}

// What the data plane found out about a host, as Envoy names it.
struct Found {
  bool failed_active = false, ejected = false, degraded = false, pending = false, timeout = false;
};
Found found_of(const stats::EndpointHealth& h, bool checked) {
  const uint32_t state = h.state.load(std::memory_order_relaxed);
  const auto result = static_cast<stats::CheckResult>(h.check_result.read() & 0xff);
  Found f;
  f.ejected = (state & stats::kHealthEjected) != 0;
  f.failed_active = checked && (state & stats::kHealthCheckPassed) == 0;
  f.degraded = checked && (state & stats::kHealthCheckDegraded) != 0;
  f.pending = f.failed_active && result == stats::CheckResult::kNone;
  f.timeout = checked && result == stats::CheckResult::kTimeout;
  return f;
}

// Envoy's names of a host's health flags; "healthy" where none is set.
std::string flags_of(const std::string& eds_status, const Found& found) {
  std::string flags = found.failed_active ? "/failed_active_hc" : "";
  if (found.ejected) flags += "/failed_outlier_check";
  if (eds_status == "UNHEALTHY" || eds_status == "DRAINING" || eds_status == "TIMEOUT") flags += "/failed_eds_health";
  if (found.degraded) flags += "/degraded_active_hc";
  if (eds_status == "DEGRADED") flags += "/degraded_eds_health";
  if (found.pending) flags += "/pending_active_hc";
  if (found.timeout) flags += "/active_hc_timeout";
  return flags.empty() ? "healthy" : flags;
}
std::string eds_status(envoy::config::core::v3::HealthStatus s) {
  return s == envoy::config::core::v3::UNKNOWN ? "HEALTHY" : envoy::config::core::v3::HealthStatus_Name(s);
}

}  // namespace

Reply Pages::clusters(const Request& r) const {
  const auto format = r.query.find("format");
  const bool as_json = format != r.query.end() && format->second == "json";
  const Filter filter = filter_of(r, "filter");
  if (!filter.error.empty()) return bad_request(filter.error);
  const auto model = s_.resolved();
  Reply out;
  TextValue statuses = list();
  const auto write = [&](const stats::RegionView* view) {
    const Slots slots = view == nullptr ? Slots{} : endpoint_slots(*view);
    std::set<std::string> checked;
    if (view != nullptr)
      for (const stats::ScopeSlot c : checked_clusters(view->all_scopes()))
        if (const auto scope = view->scope(c)) checked.insert(scope->name);
    for (const auto& [name, cluster] : model->clusters()) {
      if (!filter.passes(name)) continue;
      TextValue hosts = list(), thresholds = list();
      const auto say = [&](const std::string& what) { out.body += name + "::" + what + "\n"; };
      say("observability_name::" + name);
      for (const Limits& l : limits_of(*cluster->config)) {
        const std::string priority = std::string(l.name) + "_priority::";
        say(priority + "max_connections::" + std::to_string(l.connections));
        say(priority + "max_pending_requests::" + std::to_string(l.pending));
        say(priority + "max_requests::" + std::to_string(l.requests));
        say(priority + "max_retries::" + std::to_string(l.retries));
        TextValue t = map();
        if (std::string_view(l.name) == "high") put(t, "priority", text("HIGH"));
        put(t, "max_connections", number(l.connections));
        put(t, "max_pending_requests", number(l.pending));
        put(t, "max_requests", number(l.requests));
        put(t, "max_retries", number(l.retries));
        append(thresholds, std::move(t));
      }
      say("added_via_api::false");
      const auto endpoints = model->endpoints().find(name);
      if (endpoints != model->endpoints().end()) {
        for (const auto& locality : endpoints->second->config->endpoints()) {
          for (const auto& lb : locality.lb_endpoints()) {
            const auto& a = lb.endpoint().address().socket_address();
            const bool v6 = a.address().find(':') != std::string::npos;
            const std::string address = (v6 ? "[" + a.address() + "]" : a.address()) + ":" + std::to_string(a.port_value());
            const auto slot = slots.find({name, address});
            const uint32_t weight = lb.has_load_balancing_weight() ? lb.load_balancing_weight().value() : 1;
            Found found;
            if (view != nullptr && slot != slots.end()) found = found_of(view->health(slot->second), checked.contains(name));
            TextValue counts = list();
            for (const HostStat& s : kHostStats) {
              const uint64_t n = read(view, slot == slots.end() ? stats::kOverflowScope : slot->second, s);
              say(address + "::" + s.name + "::" + std::to_string(n));
              append(counts, map({{"name", text(s.name)},
                                  {"value", text(std::to_string(n))},
                                  {"type", text(s.gauge ? "GAUGE" : "COUNTER")}}));
            }
            say(address + "::hostname::" + lb.endpoint().hostname());
            say(address + "::health_flags::" + flags_of(eds_status(lb.health_status()), found));
            say(address + "::weight::" + std::to_string(weight));
            say(address + "::region::" + locality.locality().region());
            say(address + "::zone::" + locality.locality().zone());
            say(address + "::sub_zone::" + locality.locality().sub_zone());
            say(address + "::canary::false");
            say(address + "::priority::" + std::to_string(locality.priority()));
            say(address + "::success_rate::-1");
            say(address + "::local_origin_success_rate::-1");
            TextValue health = map({{"eds_health_status", text(eds_status(lb.health_status()))}});
            if (found.failed_active) put(health, "failed_active_health_check", boolean(true));
            if (found.ejected) put(health, "failed_outlier_check", boolean(true));
            if (found.degraded) put(health, "failed_active_degraded_check", boolean(true));
            if (found.pending) put(health, "pending_active_hc", boolean(true));
            if (found.timeout) put(health, "active_hc_timeout", boolean(true));
            TextValue host = map({{"address", socket_address(a.address(), a.port_value())},
                                  {"stats", counts},
                                  {"health_status", health},
                                  {"weight", number(weight)}});
            if (!lb.endpoint().hostname().empty()) put(host, "hostname", text(lb.endpoint().hostname()));
            put(host, "locality", map());
            append(hosts, std::move(host));
          }
        }
      }
      append(statuses, map({{"name", text(name)},
                            {"observability_name", text(name)},
                            {"host_statuses", hosts},
                            {"circuit_breakers", map({{"thresholds", thresholds}})}}));
    }
  };
  if (!s_.with_stats([&](const stats::RegionView& view) { write(&view); })) write(nullptr);
  if (as_json) return {200, "application/json", to_json(map({{"cluster_statuses", statuses}}), true) + "\n"};
  return out;
}

}  // namespace millrace::control::admin
