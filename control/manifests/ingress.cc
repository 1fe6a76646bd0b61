// Ingresses: port 80 of every address, and port 443 for the hosts under tls. Beside a Gateway's listener of the same port and
// hostname they are attached to it.
#include <algorithm>

#include "control/manifests/build.h"

namespace millrace::control::manifests {

namespace {

constexpr int kHttpPort = 80, kHttpsPort = 443;

std::string at_line(const Value& v) { return v.line == 0 ? "" : " (line " + std::to_string(v.line) + ")"; }

}  // namespace

void Builder::ingresses() {
  for (const auto& i : all("Ingress")) ingress(i);
}

PortListener* Builder::ingress_listener(const std::string& protocol, int port, const std::string& hostname, std::string* why) {
  for (const auto& l : listeners_) {
    const bool here = std::find(l->addresses.begin(), l->addresses.end(), kDefaultAddress) != l->addresses.end();
    if (!l->good || !here || l->port != port) continue;
    if (l->protocol != protocol) {
      *why = "port " + std::to_string(port) + " is for " + l->protocol + ", by listener " + l->name + " of " + l->gateway->key();
      return nullptr;
    }
    if (l->hostname == hostname) return l.get();
  }
  auto l = std::make_unique<PortListener>();
  l->name = "ingress";
  l->hostname = hostname;
  l->protocol = protocol;
  l->port = port;
  l->addresses = {kDefaultAddress};
  listeners_.push_back(std::move(l));
  return listeners_.back().get();
}

Entry Builder::ingress_entry(const Object& i, const std::string& host, const Value* path, const Value& backend, int rule,
                             int index, std::string* why, Found* refs) {
  Entry e;
  e.order.name = i.ns + "/" + i.name;
  e.order.created = i.created;
  e.order.rule = rule;
  e.order.match = index;
  e.order.last = path == nullptr;
  api::RouteMatch match;
  const std::string type = path == nullptr ? "Prefix" : (*path)["pathType"].text;
  std::string value = path == nullptr ? "/" : (*path)["path"].or_else("/");
  if (type != "Exact")
    while (value.ends_with('/')) value.pop_back();
  e.order.path = type == "Exact" ? 0 : 2;
  e.order.length = static_cast<int>(value.size());
  if (type == "Exact") match.set_path(value);
  else if (value.empty()) match.set_prefix("/");
  else match.set_path_separated_prefix(value);
  if (type != "Exact" && type != "Prefix" && type != "ImplementationSpecific")
    *why = "pathType " + type + at_line((*path)["pathType"]) + ": expected Exact, Prefix or ImplementationSpecific";
  if (!value.empty() && !value.starts_with('/')) *why = "path" + at_line(*path) + ": expected a path that begins with /";
  // "*.foo.com" is one label here, any number in Envoy's virtual hosts.
  if (host.starts_with("*.")) {
    std::string rest;
    for (const char c : host.substr(1)) rest += c == '.' ? "\\." : std::string(1, c);
    auto& authority = *match.add_headers();
    authority.set_name(":authority");
    authority.mutable_string_match()->mutable_safe_regex()->set_regex("[^.:]+" + rest + "(?::[0-9]+)?");
  }
  Action action;
  action.listener_port = kHttpPort;
  Share share;
  const Value& s = backend["service"];
  Found found{"BackendNotFound", "a backend without service" + at_line(backend)};
  if (s.kind == Value::Kind::kMap)
    found = service(i.ns, s["name"].text, s["port"]["name"].text, s["port"]["number"].number(0), false, &share.cluster);
  if (!found.ok() && refs->ok()) *refs = found;
  // "A missing backend": 503 would promise that it comes back; as the Gateway API, 500.
  action.shares.push_back(std::move(share));
  e.routes = make_routes(match, std::nullopt, type == "Exact", action, why);
  for (api::Route& r : e.routes)
    r.set_name(i.key() + "/" + (path == nullptr ? "default" : std::to_string(rule) + "/" + std::to_string(index)));
  return e;
}

void Builder::ingress(const std::shared_ptr<const Object>& i) {
  const size_t status = add_status(i->key());
  const Value& spec = i->root["spec"];
  std::string why;
  if (spec.has("ingressClassName") && !ours("IngressClass", spec["ingressClassName"].text, "controller", &why)) {
    out_.status[status].conditions.push_back({"Accepted", "Unknown", "Pending", why});
    return;
  }
  if (!i->unsupported.empty()) return condition(status, "Accepted", false, "UnsupportedValue", unsupported_text(*i));
  // By host; the default backend answers what no path of a host does.
  std::map<std::string, std::vector<Entry>> hosts;
  Found refs;
  int number = 0;
  for (const auto& [unused, rule] : spec["rules"].members) {
    const std::string host = rule["host"].or_else("*");
    auto& list = hosts[host];
    int index = 0;
    for (const auto& [unused2, path] : rule["http"]["paths"].members)
      list.push_back(ingress_entry(*i, host, &path, path["backend"], number, index++, &why, &refs));
    ++number;
  }
  if (spec.has("defaultBackend")) {
    hosts.try_emplace("*");
    for (auto& [host, list] : hosts)
      list.push_back(ingress_entry(*i, "*", nullptr, spec["defaultBackend"], number, 0, &why, &refs));
  }
  if (!why.empty()) return condition(status, "Accepted", false, "UnsupportedValue", why);
  std::map<std::string, Certificate> secure;  // by host
  for (const auto& [unused, t] : spec["tls"].members) {
    Certificate c;
    const Found f = secret(i->ns, t["secretName"].text, &c);
    if (!f.ok()) refs = {refs.ok() ? f.reason : refs.reason, (refs.ok() ? "" : refs.message + "; ") + f.message};
    std::vector<std::string> names;
    for (const auto& [unused2, h] : t["hosts"].members) names.push_back(h.text);
    if (names.empty()) names.push_back("");
    for (const std::string& h : names)
      if (f.ok()) secure.emplace(h, c);
  }
  const auto put = [&](PortListener* l, const std::string& host, const std::vector<Entry>& entries) {
    auto& list = l->hosts[host];
    list.insert(list.end(), entries.begin(), entries.end());
    l->attached.insert(i->key());
  };
  if (PortListener* l = ingress_listener("HTTP", kHttpPort, "", &why); l != nullptr)
    for (const auto& [host, entries] : hosts) put(l, host, entries);
  for (const auto& [name, c] : secure) {
    PortListener* l = ingress_listener("HTTPS", kHttpsPort, name, &why);
    if (l == nullptr) continue;
    if (l->certificates.empty()) l->certificates.push_back(c);
    // Rules without a host are for hosts that no rule names.
    const bool named = !name.empty() && std::any_of(hosts.begin(), hosts.end(), [&n = name](const auto& h) {
      return h.first != "*" && intersection(n, h.first);
    });
    for (const auto& [host, entries] : hosts)
      if (const auto both = intersection(name, host); both && (host != "*" || !named)) put(l, *both, entries);
  }
  condition(status, "Accepted", why.empty(), why.empty() ? "Accepted" : "PortUnavailable", why);
  condition(status, "ResolvedRefs", refs.ok(), refs.ok() ? "ResolvedRefs" : refs.reason, refs.message);
}

}  // namespace millrace::control::manifests
