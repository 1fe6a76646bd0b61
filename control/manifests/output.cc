// Listeners with their hosts to Envoy's Listener: a filter chain for each hostname of HTTPS, one for HTTP.
#include <algorithm>

#include "control/manifests/build.h"
#include "lib/api/envoy.extensions.filters.http.router.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.tls_inspector.v3.pb.h"

namespace millrace::control::manifests {

namespace {

using Router = envoy::extensions::filters::http::router::v3::Router;
using TlsInspector = envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

std::string any_if_empty(const std::string& hostname) { return hostname.empty() ? "*" : hostname; }

// Is a request for `host`, which `mine` takes, another listener's? The most specific hostname has it ("listener isolation").
bool taken(const std::string& host, const PortListener& mine, const std::vector<const PortListener*>& all) {
  return std::any_of(all.begin(), all.end(), [&](const PortListener* other) {
    if (other == &mine || other->hostname.size() <= mine.hostname.size()) return false;
    const auto both = intersection(other->hostname, host);
    return both && *both == host;
  });
}

void fill_routes(const std::vector<const PortListener*>& of, api::RouteConfiguration* out) {
  std::map<std::string, std::vector<const Entry*>> hosts;
  for (const PortListener* l : of) {
    hosts.try_emplace(any_if_empty(l->hostname));  // its own requests that no route takes are no other listener's
    for (const auto& [host, entries] : l->hosts)
      if (!taken(host, *l, of))
        for (const Entry& e : entries) hosts[host].push_back(&e);
  }
  out->set_ignore_port_in_host_matching(true);
  for (auto& [host, entries] : hosts) {
    std::stable_sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) { return a->order < b->order; });
    api::VirtualHost& vh = *out->add_virtual_hosts();
    vh.set_name(host);
    vh.add_domains(host);
    for (const Entry* e : entries) {
      for (const api::Route& r : e->routes) *vh.add_routes() = r;
      if (e->invalid_backend) out->mutable_validate_clusters()->set_value(false);
    }
  }
}

void fill_chain(const std::string& name, const std::string& route_name, const std::vector<const PortListener*>& of,
                api::FilterChain* out) {
  out->set_name(name);
  api::HttpConnectionManager hcm;
  hcm.set_stat_prefix(route_name);
  hcm.mutable_use_remote_address()->set_value(true);
  hcm.mutable_normalize_path()->set_value(true);
  hcm.set_merge_slashes(true);
  hcm.add_upgrade_configs()->set_upgrade_type("websocket");
  hcm.mutable_route_config()->set_name(route_name);
  fill_routes(of, hcm.mutable_route_config());
  auto& filter = *hcm.add_http_filters();
  filter.set_name("envoy.filters.http.router");
  filter.mutable_typed_config()->PackFrom(Router());
  auto& network = *out->add_filters();
  network.set_name("envoy.filters.network.http_connection_manager");
  network.mutable_typed_config()->PackFrom(hcm);
}

void fill_tls(const PortListener& l, api::FilterChain* out) {
  auto& match = *out->mutable_filter_chain_match();
  if (!l.hostname.empty()) match.add_server_names(l.hostname);
  api::DownstreamTlsContext tls;
  auto& common = *tls.mutable_common_tls_context();
  common.add_alpn_protocols("h2");
  common.add_alpn_protocols("http/1.1");
  for (const Certificate& c : l.certificates) {
    auto& certificate = *common.add_tls_certificates();
    certificate.mutable_certificate_chain()->set_inline_string(c.chain_pem);
    certificate.mutable_private_key()->set_inline_string(c.key_pem);
  }
  out->mutable_transport_socket()->set_name("envoy.transport_sockets.tls");
  out->mutable_transport_socket()->mutable_typed_config()->PackFrom(tls);
}

}  // namespace

api::Listener Builder::port_listener(const std::string& address, int port, const std::vector<const PortListener*>& of) const {
  api::Listener out;
  const std::string place = (address.find(':') != std::string::npos ? "[" + address + "]" : address) + ":" + std::to_string(port);
  out.set_name(kPrefix + place);
  auto& socket = *out.mutable_address()->mutable_socket_address();
  socket.set_address(address);
  socket.set_port_value(static_cast<uint32_t>(port));
  if (of.front()->protocol == "HTTP") {
    fill_chain("http", out.name(), of, out.add_filter_chains());
    return out;
  }
  auto& inspector = *out.add_listener_filters();
  inspector.set_name("envoy.filters.listener.tls_inspector");
  inspector.mutable_typed_config()->PackFrom(TlsInspector());
  for (const PortListener* l : of) {
    api::FilterChain& chain = *out.add_filter_chains();
    fill_chain(any_if_empty(l->hostname), out.name() + "/" + any_if_empty(l->hostname), {l}, &chain);
    fill_tls(*l, &chain);
  }
  return out;
}

void Builder::output() {
  const auto put = [&](ConfigKind kind, std::shared_ptr<google::protobuf::Message> message) {
    LoadedObject object;
    object.kind = kind;
    object.message = std::move(message);
    out_.objects.push_back(std::move(object));
  };
  for (const auto& [name, cluster] : clusters_) put(ConfigKind::kCluster, std::make_shared<api::Cluster>(cluster));
  std::map<std::pair<std::string, int>, std::vector<const PortListener*>> places;
  for (const auto& l : listeners_)
    if (l->good)
      for (const std::string& address : l->addresses) places[{address, l->port}].push_back(l.get());
  for (const auto& [place, of] : places)
    put(ConfigKind::kListener, std::make_shared<api::Listener>(port_listener(place.first, place.second, of)));
}

}  // namespace millrace::control::manifests
