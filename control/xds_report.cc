#include "control/xds_report.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "control/dynamic_config.h"
#include "control/monotonic.h"
#include "control/xds_channel.h"
#include "control/xds_files.h"
#include "lib/base/hash.h"

namespace millrace::control {

namespace {

using Key = std::pair<XdsType, std::string>;

uint64_t version_number(const std::string& version) { return version.empty() ? 0 : base::hash64(std::string_view(version)); }

// Who asks for a name: each has the name's counters under a prefix of its own.
struct Prefix {
  MetricGroup group;
  Key key;
};
std::vector<Prefix> prefixes(const Model& model) {
  std::vector<Prefix> out;
  const auto secrets = [&](const TlsSecrets& s, std::set<std::string>& names) {
    names.insert(s.discovered.begin(), s.discovered.end());
  };
  std::set<std::string> secret_names, seen;
  for (const auto& [name, c] : model.clusters()) {
    secrets(c->secrets, secret_names);
    if (c->eds_service.empty()) continue;
    const std::string safe = metric_safe(name);
    out.push_back({{"cluster." + safe + ".", "cluster.", {{"envoy.cluster_name", safe}}}, {XdsType::kEndpoints, c->eds_service}});
  }
  for (const auto& [name, l] : model.listeners()) {
    for (const ChainObject& c : l->chains) {
      secrets(c.secrets, secret_names);
      const auto* h = std::get_if<api::HttpConnectionManager>(&c.filter);
      if (h == nullptr || !c.rds) continue;
      const std::string hcm = metric_safe(h->stat_prefix()), route = metric_safe(c.route);
      const std::string prefix = "http." + hcm + ".rds." + route + ".";
      if (!seen.insert(prefix).second) continue;
      out.push_back({{prefix, "http.rds.", {{"envoy.http_conn_manager_prefix", hcm}, {"envoy.rds_route_config", route}}},
                     {XdsType::kRoute, c.route}});
    }
  }
  for (const std::string& name : secret_names) {
    const std::string prefix = "sds." + metric_safe(name) + ".";
    out.push_back({{prefix, prefix, {}}, {XdsType::kSecret, name}});
  }
  return out;
}

template <class Counts>
std::array<MetricValue, 6> values_of(const Counts& c, const std::string& version) {
  return {{{"update_attempt", "responses of a management server, readings of a file", false, c.update_attempt},
           {"update_success", "responses that were accepted", false, c.update_success},
           {"update_rejected", "responses of which something was refused", false, c.update_rejected},
           {"update_failure", "streams and attempts that ended without an answer, readings that failed", false, c.update_failure},
           {"init_fetch_timeout", "waits for a first answer that were given up", false, c.init_fetch_timeout},
           {"version", "a hash of the version that was accepted last", true, version_number(version)}}};
}

constexpr struct {
  XdsType type;
  const char* prefix;
} kWhole[] = {{XdsType::kCluster, "cluster_manager.cds."}, {XdsType::kListener, "listener_manager.lds."}};

const XdsStatus::Type& of(const XdsStatus& s, XdsType type) { return s.types[static_cast<size_t>(type)]; }

ConfigKind kind_of(XdsType type) {
  constexpr ConfigKind kKinds[] = {ConfigKind::kCluster, ConfigKind::kEndpoints, ConfigKind::kListener, ConfigKind::kRoute,
                                   ConfigKind::kSecret};
  return kKinds[static_cast<size_t>(type)];
}

void report_servers(const XdsStatus& s, const XdsStreamConfig& config, v1::XdsReply* out) {
  const uint64_t now = monotonic_ns();
  for (const auto& service : config.servers) {
    v1::XdsServer& to = *out->add_servers();
    to.set_name(server_name(service));
    to.set_current(to.name() == s.server);
    to.set_state(to.current() ? std::string(to_string(s.state)) : "standby");
    if (!to.current()) continue;
    to.set_identifier(s.identifier);
    to.set_last_error(s.last_error);
    to.set_since_ms(now > s.since_ns ? (now - s.since_ns) / 1'000'000 : 0);
  }
}

void report_files(const std::vector<XdsFiles::FileStatus>& files, v1::XdsReply* out) {
  const uint64_t now = monotonic_ns();
  for (const XdsFiles::FileStatus& f : files) {
    v1::XdsFile& to = *out->add_files();
    to.set_path(f.path);
    for (const XdsType type : f.types) to.add_types(std::string(short_name(type)));
    to.set_version(f.version);
    to.set_error(f.error);
    to.set_since_ms(now > f.since_ns ? (now - f.since_ns) / 1'000'000 : 0);
  }
}

void report_subscriptions(const XdsStatus& s, v1::XdsReply* out) {
  for (size_t i = 0; i < kXdsTypes; ++i) {
    const XdsStatus::Type& t = s.types[i];
    if (!t.subscribed && t.stats.update_attempt == 0) continue;
    v1::XdsSubscription& to = *out->add_subscriptions();
    to.set_type(std::string(short_name(static_cast<XdsType>(i))));
    to.set_whole(t.subscribed && t.names == 0);
    to.set_asked(t.names);
    to.set_known(t.known);
    to.set_outstanding(t.outstanding);
    to.set_version(t.stats.version);
    to.set_update_attempt(t.stats.update_attempt);
    to.set_update_success(t.stats.update_success);
    to.set_update_rejected(t.stats.update_rejected);
    to.set_update_failure(t.stats.update_failure);
    to.set_init_fetch_timeout(t.stats.init_fetch_timeout);
    to.set_last_nack(t.stats.last_error);
  }
}

// Is what was accepted what requests are answered by? An assignment and a secret wait with those who use them.
bool in_force(const Model& model, const Key& key) {
  const std::string& name = key.second;
  switch (key.first) {
    case XdsType::kCluster:
      return model.clusters().contains(name);
    case XdsType::kEndpoints:
      return model.assignments().contains(name);
    case XdsType::kListener:
      return model.listeners().contains(name);
    case XdsType::kRoute:
      return model.routes().contains(name);
    case XdsType::kSecret:
      return model.secrets().contains(name);
  }
  return false;
}

}  // namespace

void visit_discovery(const XdsStatus& status, const Model& model, const MetricVisit& visit) {
  for (const auto& w : kWhole) {
    const XdsStatus::Type& t = of(status, w.type);
    if (t.subscribed) visit({w.prefix, w.prefix, {}}, values_of(t.stats, t.stats.version));
  }
  for (const Prefix& p : prefixes(model))
    if (const auto found = status.names.find(p.key); found != status.names.end())
      visit(p.group, values_of(found->second, found->second.version));
  if (!status.streaming) return;
  uint64_t pending = 0;
  for (const XdsStatus::Type& t : status.types) pending += t.outstanding;
  const MetricValue stream[] = {
      {"connected_state", "1 while a management server is connected", true, status.state == XdsStatus::State::kConnected},
      {"pending_requests", "names that a management server has not answered yet", true, pending}};
  visit({"control_plane.", "control_plane.", {}}, stream);
}

std::vector<std::pair<std::string, std::string>> discovery_texts(const XdsStatus& status, const Model& model) {
  std::vector<std::pair<std::string, std::string>> out;
  if (status.streaming) out.emplace_back("control_plane.identifier", status.identifier);
  for (const auto& w : kWhole)
    if (const XdsStatus::Type& t = of(status, w.type); t.subscribed)
      out.emplace_back(std::string(w.prefix) + "version_text", t.stats.version);
  for (const Prefix& p : prefixes(model))
    if (const auto found = status.names.find(p.key); found != status.names.end())
      out.emplace_back(p.group.prefix + "version_text", found->second.version);
  return out;
}

std::optional<XdsStatus> discovery_status(const ControlPlane& plane) {
  const XdsStatus files = plane.xds_files().status();
  if (plane.xds_stream() == nullptr && plane.xds_files().files().empty()) return std::nullopt;
  XdsStatus out;
  out.streaming = plane.xds_stream() != nullptr;
  if (out.streaming) out = plane.xds_stream()->status();
  // A type as a whole, and a name, have one source.
  for (size_t i = 0; i < kXdsTypes; ++i)
    if (files.types[i].subscribed) out.types[i] = files.types[i];
  for (const auto& [key, name] : files.names) out.names[key] = name;
  return out;
}

void report_xds(ControlPlane& plane, v1::XdsReply* out) {
  const std::optional<XdsStatus> found = discovery_status(plane);
  if (!found) return;
  const XdsStatus& status = *found;
  out->set_configured(true);
  if (const XdsStream* stream = plane.xds_stream(); stream != nullptr) {
    out->set_streaming(true);
    out->set_delta(stream->config().engine.delta);
    out->set_streams(status.streams);
    out->set_requests(status.requests);
    out->set_responses(status.responses);
    report_servers(status, stream->config(), out);
  }
  report_files(plane.xds_files().files(), out);
  report_subscriptions(status, out);

  const DynamicResources::Infos infos = plane.dynamic_config().infos();
  const std::set<ConfigKey> waiting = plane.waiting_objects();
  const auto model = plane.in_force();
  std::set<Key> keys;
  for (const auto& [key, info] : infos) keys.insert(key);
  for (const auto& [key, counts] : status.names) keys.insert(key);
  const int64_t now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  for (const Key& key : keys) {
    v1::XdsResource& to = *out->add_resources();
    to.set_type(std::string(short_name(key.first)));
    to.set_name(key.second);
    const auto info = infos.find(key);
    const auto name = status.names.find(key);
    if (info == infos.end()) {
      to.set_state(name != status.names.end() && name->second.given_up ? "given up" : "requested");
      continue;
    }
    const DynamicResources::Info& i = info->second;
    to.set_version(i.version);
    to.set_server(i.server);
    const bool refused = !i.error.empty();
    to.set_age_ms(static_cast<uint64_t>(std::max<int64_t>(now_ms - (refused ? i.error_ms : i.updated_ms), 0)));
    if (refused) {
      to.set_state("refused");
      to.set_reason(i.error);
      to.set_refused_version(i.error_version);
    } else if (waiting.contains({kind_of(key.first), key.second})) {
      to.set_state("warming");
    } else {
      to.set_state(in_force(*model, key) ? "in force" : "received");
    }
  }
}

void report_discovery(ControlPlane& plane, const v1::StatsRequest& request, v1::StatsReply* out) {
  const std::optional<XdsStatus> status = discovery_status(plane);
  if (!status) return;
  visit_discovery(*status, *plane.model(), [&](const MetricGroup& g, std::span<const MetricValue> values) {
    for (const MetricValue& v : values) {
      const std::string full = g.prefix + std::string(v.name);
      if ((request.nonzero() && v.value == 0) || ("xds." + full).find(request.filter()) == std::string::npos) continue;
      v1::Counter& c = *out->add_counters();
      c.set_scope("xds");
      c.set_name(g.prefix.substr(0, g.prefix.size() - 1));
      c.set_counter(std::string(v.name));
      c.set_value(v.value);
      c.set_gauge(v.gauge);
      c.set_text(v.text);
    }
  });
}

}  // namespace millrace::control
