// Services and EndpointSlices to clusters.
#include <algorithm>

#include "control/manifests/build.h"
#include "lib/api/envoy.extensions.upstreams.http.v3.pb.h"
#include "lib/base/ip_address.h"

namespace millrace::control::manifests {

namespace {

constexpr const char* kServiceLabel = "kubernetes.io/service-name";
constexpr const char* kHttpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

std::string group_of(const Object& o) {
  const std::string& version = o.root["apiVersion"].text;
  const size_t slash = version.find('/');
  return slash == std::string::npos ? "" : version.substr(0, slash);
}

}  // namespace

bool Builder::granted(const Object& from, const std::string& group, const std::string& kind, const std::string& ns,
                      const std::string& name) const {
  for (const auto& grant : all("ReferenceGrant")) {
    if (grant->ns != ns) continue;
    const Value& spec = grant->root["spec"];
    const auto &froms = spec["from"].members, &tos = spec["to"].members;
    const bool who = std::any_of(froms.begin(), froms.end(), [&](const auto& f) {
      return f.second["group"].text == group_of(from) && f.second["kind"].text == from.kind &&
             f.second["namespace"].text == from.ns;
    });
    const bool what = std::any_of(tos.begin(), tos.end(), [&](const auto& t) {
      return t.second["group"].text == group && t.second["kind"].text == kind &&
             (!t.second.has("name") || t.second["name"].text == name);
    });
    if (who && what) return true;
  }
  return false;
}

Found Builder::backend(const Value& ref, const Object& from, bool grpc, std::string* cluster) {
  const std::string kind = ref["kind"].or_else("Service"), ns = ref["namespace"].or_else(from.ns), name = ref["name"].text;
  const std::string what = kind + " " + ns + "/" + name;
  if (kind != "Service" || !ref["group"].text.empty()) return {"InvalidKind", what + ": a backend is a Service"};
  if (ns != from.ns && !granted(from, "", "Service", ns, name))
    return {"RefNotPermitted",
            "no ReferenceGrant in namespace " + ns + " lets a " + from.kind + " of " + from.ns + " use " + what};
  if (!ref.has("port")) return {"UnsupportedValue", what + ": needs a port"};
  return service(ns, name, "", ref["port"].number(0), grpc, cluster);
}

// `port_name` or, when it is "", `port`.
Found Builder::service(const std::string& ns, const std::string& name, const std::string& port_name, int64_t port, bool grpc,
                       std::string* cluster) {
  const std::string what = "Service " + ns + "/" + name;
  const auto s = find("Service", ns, name);
  if (s == nullptr) return {"BackendNotFound", what + ": there is none"};
  const Value& spec = s->root["spec"];
  if (spec["type"].text == "ExternalName")
    return {"UnsupportedValue", what + ": is of type ExternalName, which has no endpoints"};
  const Value* found = nullptr;
  for (const auto& [unused, p] : spec["ports"].members)
    if (port_name.empty() ? p["port"].number(0) == port : p["name"].text == port_name) found = &p;
  if (found == nullptr)
    return {"BackendNotFound", what + ": has no port " + (port_name.empty() ? std::to_string(port) : port_name)};
  if ((*found)["protocol"].or_else("TCP") != "TCP")
    return {"UnsupportedProtocol", what + ": its port is of " + (*found)["protocol"].text};
  const std::string app = (*found)["appProtocol"].text;
  const bool h2 = grpc || app == "kubernetes.io/h2c" || app == "grpc";
  if (!h2 && !app.empty() && app != "http" && app != "tcp" && app != "kubernetes.io/ws")
    return {"UnsupportedProtocol",
            what + ": appProtocol " + app + "; Millrace takes http, kubernetes.io/h2c, kubernetes.io/ws, grpc"};
  *cluster = kPrefix + ns + "/" + name + ":" + std::to_string((*found)["port"].number(0)) + (h2 ? "/h2" : "");
  const auto [it, fresh] = clusters_.try_emplace(*cluster);
  if (!fresh) return {};
  api::Cluster& c = it->second;
  c.set_name(*cluster);
  c.set_type(api::Cluster::STATIC);
  c.mutable_load_assignment()->set_cluster_name(*cluster);
  fill_endpoints(*s, *found, c.mutable_load_assignment());
  if (h2) {
    envoy::extensions::upstreams::http::v3::HttpProtocolOptions options;
    options.mutable_explicit_http_config()->mutable_http2_protocol_options();
    (*c.mutable_typed_extension_protocol_options())[kHttpOptions].PackFrom(options);
  }
  return {};
}

// A slice's port is found by name, as kube-proxy does. An endpoint without a word of readiness is ready (discovery.k8s.io/v1).
void Builder::fill_endpoints(const Object& service, const Value& port, api::ClusterLoadAssignment* out) const {
  std::set<std::pair<std::string, int64_t>> seen;
  envoy::config::endpoint::v3::LocalityLbEndpoints* locality = nullptr;
  for (const auto& slice : all("EndpointSlice")) {
    if (slice->ns != service.ns || slice->label(kServiceLabel) != service.name || slice->root["addressType"].text == "FQDN")
      continue;
    for (const auto& [unused, p] : slice->root["ports"].members) {
      if (p["name"].text != port["name"].text || p["protocol"].or_else("TCP") != "TCP") continue;
      for (const auto& [unused2, e] : slice->root["endpoints"].members) {
        const Value& ready = e["conditions"]["ready"];
        if ((ready.kind == Value::Kind::kScalar && !ready.is_true()) || e["addresses"].members.empty()) continue;
        const std::string& address = e["addresses"].members.front().second.text;
        if (!base::IpAddress::parse(address) || !seen.emplace(address, p["port"].number(0)).second) continue;
        if (locality == nullptr) locality = out->add_endpoints();
        auto* socket = locality->add_lb_endpoints()->mutable_endpoint()->mutable_address()->mutable_socket_address();
        socket->set_address(address);
        socket->set_port_value(static_cast<uint32_t>(p["port"].number(0)));
      }
    }
  }
}

// What of Services and EndpointSlices is not acted on.
void Builder::service_status() {
  for (const auto& s : all("Service"))
    if (s->root["spec"]["sessionAffinity"].or_else("None") != "None")
      condition(add_status(s->key()), "SessionAffinity", false, "UnsupportedValue",
                "spec.sessionAffinity: Millrace sends a client's requests to any endpoint");
  for (const auto& s : all("EndpointSlice")) {
    std::string why;
    const std::string type = s->root["addressType"].text, service = s->label(kServiceLabel);
    if (service.empty()) why = "needs the label " + std::string(kServiceLabel);
    else if (find("Service", s->ns, service) == nullptr) why = "there is no Service " + s->ns + "/" + service;
    else if (type != "IPv4" && type != "IPv6") why = "addressType " + type + ": Millrace takes IPv4 and IPv6";
    for (const auto& [unused, e] : s->root["endpoints"].members)
      for (const auto& [unused2, a] : e["addresses"].members)
        if (why.empty() && !base::IpAddress::parse(a.text))
          why = "\"" + a.text + "\" (line " + std::to_string(a.line) + ") is no IP address: not used";
    if (!why.empty()) condition(add_status(s->key()), "Accepted", false, "UnsupportedValue", why);
  }
}

}  // namespace millrace::control::manifests
