// Edits of single routes, weights and endpoints.
#include <charconv>

#include "control/model_builder.h"
#include "control/proto_values.h"
#include "control/route_shadow.h"
#include "control/validate.h"
#include "lib/base/ip_address.h"

namespace millrace::control {

namespace {

template <class Names>
std::string choices(const Names& names) {
  std::string out;
  size_t n = 0;
  for (const std::string& s : names) {
    if (++n > 10) return out + ", ...";
    out += (out.empty() ? "" : ", ") + s;
  }
  return out.empty() ? "there are none" : "there is " + out;
}

// The pieces of an edit of one virtual host: found, copied, put back.
struct HostEdit {
  std::shared_ptr<const RouteObject> before;
  size_t index = 0;
  std::shared_ptr<api::VirtualHost> host;  // a copy to change
};

bool open_host(const Model& m, ModelBuilder& b, std::string_view route_config, std::string_view virtual_host, HostEdit* out) {
  const auto r = m.routes().find(route_config);
  if (r == m.routes().end()) {
    b.complain("no route configuration '" + std::string(route_config) + "'; " + choices(m.names(ConfigKind::kRoute)));
    return false;
  }
  if (r->second->dynamic) return b.complain(managed_elsewhere({ConfigKind::kRoute, r->second->name})), false;
  out->before = r->second;
  const auto& hosts = r->second->virtual_hosts;
  int at = r->second->find_virtual_host(virtual_host);
  if (virtual_host.empty() && hosts.size() == 1) at = 0;
  if (at < 0) {
    std::vector<std::string> names;
    for (const auto& h : hosts) names.push_back(h->name());
    b.complain("no virtual host '" + std::string(virtual_host) + "' in " + std::string(route_config) + "; " + choices(names));
    return false;
  }
  out->index = static_cast<size_t>(at);
  out->host = std::make_shared<api::VirtualHost>(*hosts[out->index]);
  return true;
}

void close_host(ModelBuilder& b, HostEdit edit) {
  auto after = std::make_shared<RouteObject>(*edit.before);
  after->virtual_hosts[edit.index] = std::move(edit.host);
  after->source = nullptr;  // lines and columns are those of the text before the edit
  b.set_route(std::move(after));
}

// Index of a route by name or "#INDEX", or -1 with a complaint.
int find_route(const api::VirtualHost& host, std::string_view name, ModelBuilder& b) {
  int index = -1;
  if (name.starts_with('#')) {
    const auto r = std::from_chars(name.data() + 1, name.data() + name.size(), index);
    if (r.ec == std::errc() && r.ptr == name.data() + name.size() && index >= 0 && index < host.routes_size()) return index;
    b.complain("no route " + std::string(name) + " in virtual host " + host.name() + ": it has " +
               std::to_string(host.routes_size()) + " routes, from #0");
    return -1;
  }
  int found = -1;
  for (int i = 0; i < host.routes_size(); ++i) {
    if (host.routes(i).name() != name) continue;
    if (found >= 0) {
      b.complain("several routes are named '" + std::string(name) + "' in virtual host " + host.name() + ": name one as #" +
                 std::to_string(found) + " or #" + std::to_string(i));
      return -1;
    }
    found = i;
  }
  if (found < 0) {
    std::vector<std::string> names;
    for (int i = 0; i < host.routes_size(); ++i)
      names.push_back(host.routes(i).name().empty() ? "#" + std::to_string(i) : host.routes(i).name());
    b.complain("no route '" + std::string(name) + "' in virtual host " + host.name() + "; " + choices(names));
  }
  return found;
}

}  // namespace

ModelEdit Model::add_route(std::string_view route_config, std::string_view virtual_host, const api::Route& route,
                           const RoutePlace& place, const SourceMap* source) const {
  ModelBuilder b(*this);
  HostEdit e;
  if (!open_host(*this, b, route_config, virtual_host, &e)) return b.finish();
  const int size = e.host->routes_size();
  int at = size;
  switch (place.kind) {
    case RoutePlace::Kind::kLast:
      break;
    case RoutePlace::Kind::kFirst:
      at = 0;
      break;
    case RoutePlace::Kind::kIndex:
      at = place.index <= static_cast<uint32_t>(size) ? static_cast<int>(place.index) : -1;
      if (at < 0)
        b.complain("no place " + std::to_string(place.index) + " in virtual host " + e.host->name() + ": it has " +
                   std::to_string(size) + " routes");
      break;
    case RoutePlace::Kind::kBefore:
      at = find_route(*e.host, place.route, b);
      break;
    case RoutePlace::Kind::kAfter:
      at = find_route(*e.host, place.route, b);
      if (at >= 0) ++at;
      break;
  }
  if (at < 0) return b.finish();
  if (!route.name().empty())
    for (const api::Route& r : e.host->routes())
      if (r.name() == route.name())
        return b.complain("virtual host " + e.host->name() + " has a route named '" + route.name() + "' already"), b.finish();
  ErrorSink sink(source, "route", &b.errors());
  const Path root;
  const bool valid = validate_route(route, max_direct_response_body(*e.before->config), root, sink);
  const bool check = !e.before->config->has_validate_clusters() || e.before->config->validate_clusters().value();
  ErrorSink references(source, "", &b.errors());
  if (!valid || (check && !b.route_references(route, "", references))) return b.finish();
  auto* routes = e.host->mutable_routes();
  *routes->Add() = route;
  for (int i = size; i > at; --i) routes->SwapElements(i, i - 1);
  ConfigErrors warnings;
  for (const ShadowedRoute& s : shadowed_at(*e.host, at))
    warnings.push_back({"", 0, 0, "virtual host " + e.host->name(), to_string(s, *e.host)});
  close_host(b, std::move(e));
  ModelEdit edit = b.finish();
  edit.warnings = std::move(warnings);
  return edit;
}

ModelEdit Model::remove_route(std::string_view route_config, std::string_view virtual_host, std::string_view route) const {
  ModelBuilder b(*this);
  HostEdit e;
  if (!open_host(*this, b, route_config, virtual_host, &e)) return b.finish();
  const int at = find_route(*e.host, route, b);
  if (at < 0) return b.finish();
  e.host->mutable_routes()->DeleteSubrange(at, 1);
  close_host(b, std::move(e));
  return b.finish();
}

ModelEdit Model::set_weights(std::string_view route_config, std::string_view virtual_host, std::string_view route,
                             const std::vector<std::pair<std::string, uint32_t>>& weights) const {
  ModelBuilder b(*this);
  HostEdit e;
  if (!open_host(*this, b, route_config, virtual_host, &e)) return b.finish();
  const int at = find_route(*e.host, route, b);
  if (at < 0) return b.finish();
  api::Route* r = e.host->mutable_routes(at);
  if (!r->route().has_weighted_clusters())
    return b.complain("route '" + std::string(route) + "' has no weighted_clusters"), b.finish();
  auto* clusters = r->mutable_route()->mutable_weighted_clusters()->mutable_clusters();
  for (const auto& [name, weight] : weights) {
    bool found = false;
    std::vector<std::string> names;
    for (auto& c : *clusters) {
      names.push_back(c.name());
      if (c.name() != name) continue;
      c.mutable_weight()->set_value(weight);
      found = true;
    }
    if (!found)
      b.complain("cluster '" + name + "' is not among the weighted clusters of route '" + std::string(route) + "'; " +
                 choices(names));
  }
  ErrorSink sink(nullptr, "route " + std::string(route_config), &b.errors());
  const Path root, hosts(root, "virtual_hosts", static_cast<int32_t>(e.index)), here(hosts, "routes", at);
  if (!b.errors().empty() || !validate_route(*r, max_direct_response_body(*e.before->config), here, sink)) return b.finish();
  close_host(b, std::move(e));
  return b.finish();
}

// ---- endpoints --------------------------------------------------------------------------------------------------------------

base::Result<EndpointSpec> parse_endpoint(std::string_view text) {
  const std::string form =
      "\"" + std::string(text) + "\" is no endpoint: write ADDRESS:PORT, \"10.0.0.1:80\" or \"[fd00::1]:80\"";
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return base::Error{form};
  std::string_view address = text.substr(0, colon), port = text.substr(colon + 1);
  const bool brackets = address.starts_with('[') && address.ends_with(']');
  if (brackets) address = address.substr(1, address.size() - 2);
  EndpointSpec out;
  const auto ip = base::IpAddress::parse(address);
  const auto r = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (!ip || brackets == ip->is_v4() || port.empty() || r.ec != std::errc() || r.ptr != port.data() + port.size() ||
      out.port == 0)
    return base::Error{form};
  out.address = ip->to_string();
  return out;
}

namespace {

struct EndpointsEdit {
  std::shared_ptr<api::ClusterLoadAssignment> config;  // a copy to change
  int locality = -1, index = -1;                       // of the endpoint, when it is there
};

std::string text_of(const EndpointSpec& e) {
  return (e.address.find(':') != std::string::npos ? "[" + e.address + "]" : e.address) + ":" + std::to_string(e.port);
}

bool open_endpoints(const Model& m, ModelBuilder& b, std::string_view cluster, const EndpointSpec& spec, EndpointsEdit* out) {
  const auto e = m.endpoints().find(cluster);
  if (e == m.endpoints().end()) {
    b.complain("no cluster '" + std::string(cluster) + "'; " + choices(m.names(ConfigKind::kCluster)));
    return false;
  }
  const auto c = m.clusters().find(cluster);
  if (c != m.clusters().end() && (c->second->dynamic || !c->second->eds_service.empty()))
    return b.complain("endpoints of " + managed_elsewhere({ConfigKind::kCluster, c->second->name})), false;
  out->config = std::make_shared<api::ClusterLoadAssignment>(*e->second->config);
  const auto wanted = base::IpAddress::parse(spec.address);
  for (int l = 0; l < out->config->endpoints_size(); ++l) {
    for (int i = 0; i < out->config->endpoints(l).lb_endpoints_size(); ++i) {
      const auto& s = out->config->endpoints(l).lb_endpoints(i).endpoint().address().socket_address();
      if (s.port_value() == spec.port && base::IpAddress::parse(s.address()) == wanted) out->locality = l, out->index = i;
    }
  }
  return true;
}

void close_endpoints(ModelBuilder& b, std::string_view cluster, EndpointsEdit e) {
  ErrorSink sink(nullptr, "endpoint " + std::string(cluster), &b.errors());
  const Path root;
  if (validate_load_assignment(*e.config, root, sink, true))
    b.set_endpoints(
        std::make_shared<const EndpointsObject>(EndpointsObject{std::string(cluster), std::move(e.config), nullptr, false}));
}

bool need_endpoint(ModelBuilder& b, std::string_view cluster, const EndpointSpec& spec, const EndpointsEdit& e) {
  if (e.index >= 0) return true;
  std::vector<std::string> there;
  for (const auto& l : e.config->endpoints())
    for (const auto& p : l.lb_endpoints()) {
      const auto& s = p.endpoint().address().socket_address();
      there.push_back(text_of({s.address(), static_cast<uint16_t>(s.port_value()), 1}));
    }
  b.complain("cluster " + std::string(cluster) + " has no endpoint " + text_of(spec) + "; " + choices(there));
  return false;
}

}  // namespace

ModelEdit Model::add_endpoint(std::string_view cluster, const EndpointSpec& spec) const {
  ModelBuilder b(*this);
  EndpointsEdit e;
  if (!open_endpoints(*this, b, cluster, spec, &e)) return b.finish();
  if (e.index >= 0)
    return b.complain("cluster " + std::string(cluster) + " has endpoint " + text_of(spec) + " already"), b.finish();
  if (!base::IpAddress::parse(spec.address) || spec.port == 0)
    return b.complain("\"" + text_of(spec) + "\" is no endpoint"), b.finish();
  if (spec.weight == 0) return b.complain("the weight of an endpoint must be at least 1"), b.finish();
  auto* locality = e.config->endpoints().empty() ? e.config->add_endpoints() : e.config->mutable_endpoints(0);
  api::LbEndpoint* p = locality->add_lb_endpoints();
  auto* socket = p->mutable_endpoint()->mutable_address()->mutable_socket_address();
  socket->set_address(spec.address);
  socket->set_port_value(spec.port);
  if (spec.weight != 1) p->mutable_load_balancing_weight()->set_value(spec.weight);
  close_endpoints(b, cluster, std::move(e));
  return b.finish();
}

ModelEdit Model::remove_endpoint(std::string_view cluster, const EndpointSpec& spec) const {
  ModelBuilder b(*this);
  EndpointsEdit e;
  if (!open_endpoints(*this, b, cluster, spec, &e) || !need_endpoint(b, cluster, spec, e)) return b.finish();
  e.config->mutable_endpoints(e.locality)->mutable_lb_endpoints()->DeleteSubrange(e.index, 1);
  if (e.config->endpoints(e.locality).lb_endpoints().empty()) e.config->mutable_endpoints()->DeleteSubrange(e.locality, 1);
  close_endpoints(b, cluster, std::move(e));
  return b.finish();
}

ModelEdit Model::drain_endpoint(std::string_view cluster, const EndpointSpec& spec, bool drain) const {
  ModelBuilder b(*this);
  EndpointsEdit e;
  if (!open_endpoints(*this, b, cluster, spec, &e) || !need_endpoint(b, cluster, spec, e)) return b.finish();
  e.config->mutable_endpoints(e.locality)
      ->mutable_lb_endpoints(e.index)
      ->set_health_status(drain ? envoy::config::core::v3::DRAINING : envoy::config::core::v3::UNKNOWN);
  close_endpoints(b, cluster, std::move(e));
  return b.finish();
}

ModelEdit Model::erase(const ConfigKey& key) const {
  ModelBuilder b(*this);
  const std::string what = std::string(to_string(key.kind)) + " '" + key.name + "'";
  if (!has(key)) return b.complain("no " + what + "; " + choices(names(key.kind))), b.finish();
  if (is_dynamic(key)) return b.complain(managed_elsewhere(key)), b.finish();
  const std::vector<std::string> users = referrers(key);
  if (!users.empty())
    return b.complain(what + " is in use by " + users.front() +
                      (users.size() > 1 ? " and " + std::to_string(users.size() - 1) + " more" : "")),
           b.finish();
  b.erase(key);
  return b.finish();
}

}  // namespace millrace::control
