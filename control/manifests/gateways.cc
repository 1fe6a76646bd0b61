// GatewayClasses, Gateways and their listeners.
#include <algorithm>

#include "control/json_text.h"
#include "control/manifests/build.h"
#include "lib/base/ip_address.h"
#include "lib/tls/certificate.h"

namespace millrace::control::manifests {

namespace {

constexpr const char* kGroup = "gateway.networking.k8s.io";

std::string at_line(const Value& v) { return v.line == 0 ? "" : " (line " + std::to_string(v.line) + ")"; }

bool selects(const Value& selector, const Object& ns) {
  const auto label = [&](const std::string& name) -> const Value& {
    static thread_local Value own;
    own.kind = Value::Kind::kScalar;
    own.text = ns.name;
    return name == "kubernetes.io/metadata.name" ? own : ns.root["metadata"]["labels"][name];
  };
  for (const auto& [name, value] : selector["matchLabels"].members)
    if (const Value& is = label(name); is.kind == Value::Kind::kNull || is.text != value.text) return false;
  for (const auto& [unused, e] : selector["matchExpressions"].members) {
    const Value& is = label(e["key"].text);
    const auto& values = e["values"].members;
    const bool in = std::any_of(values.begin(), values.end(), [&](const auto& v) { return v.second.text == is.text; });
    const bool there = is.kind != Value::Kind::kNull;
    const std::string& op = e["operator"].text;
    if (op == "In" ? !there || !in : op == "NotIn" ? there && in : op == "Exists" ? !there : op == "DoesNotExist" ? there : true)
      return false;
  }
  return true;
}

bool is_hostname(const std::string& h) {
  const std::string_view rest = std::string_view(h).substr(h.starts_with("*.") ? 2 : 0);
  return !rest.empty() && rest.size() <= 253 && !rest.starts_with('.') && !rest.ends_with('.') &&
         rest.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string_view::npos;
}

}  // namespace

// Whether a class is there and Millrace's.
bool Builder::ours(const std::string& class_kind, const std::string& class_name, const char* field, std::string* why) const {
  const auto c = find(class_kind, "", class_name);
  if (c == nullptr) *why = "there is no " + class_kind + " \"" + class_name + "\"";
  else if (c->root["spec"][field].text != kController)
    *why = class_kind + " \"" + class_name + "\" is of the controller " + c->root["spec"][field].text + "; Millrace's is " +
           kController;
  else if (!c->unsupported.empty()) *why = class_kind + " \"" + class_name + "\" was not accepted";
  return why->empty();
}

void Builder::classes() {
  for (const auto& c : all("GatewayClass")) {
    const size_t status = add_status(c->key());
    const std::string& controller = c->root["spec"]["controllerName"].text;
    if (controller != kController)
      out_.status[status].conditions.push_back(
          {"Accepted", "Unknown", "Pending", "of another controller; Millrace's is " + std::string(kController)});
    else if (!c->unsupported.empty()) condition(status, "Accepted", false, "InvalidParameters", unsupported_text(*c));
    else condition(status, "Accepted", true, "Accepted");
  }
  for (const auto& c : all("IngressClass")) {
    const size_t status = add_status(c->key());
    if (c->root["spec"]["controller"].text != kController)
      out_.status[status].conditions.push_back(
          {"Accepted", "Unknown", "Pending", "of another controller; Millrace's is " + std::string(kController)});
    else
      condition(status, "Accepted", c->unsupported.empty(), c->unsupported.empty() ? "Accepted" : "UnsupportedValue",
                unsupported_text(*c));
  }
}

// The oldest first: where two claim one thing, it has it.
void Builder::gateways() {
  auto list = all("Gateway");
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return std::tuple(a->created.empty(), a->created) < std::tuple(b->created.empty(), b->created);
  });
  for (const auto& g : list) gateway(g);
}

void Builder::gateway(const std::shared_ptr<const Object>& g) {
  const Value& spec = g->root["spec"];
  std::string why;
  if (!ours("GatewayClass", spec["gatewayClassName"].text, "controllerName", &why)) {
    const size_t status = add_status(g->key());
    out_.status[status].conditions.push_back({"Accepted", "Unknown", "Pending", why});
    gateway_problem_[g->key()] = why;
    return;
  }
  if (!g->unsupported.empty()) why = unsupported_text(*g);
  std::vector<std::string> addresses;
  std::string reason = "Invalid";
  for (const auto& [unused, a] : spec["addresses"].members) {
    const std::string type = a["type"].or_else("IPAddress");
    const std::string& value = a["value"].text;
    if (!why.empty()) break;
    reason = "UnsupportedAddress";
    if (type != "IPAddress") why = "an address of type " + type + at_line(a["type"]) + ": Millrace listens on an IPAddress";
    else if (!base::IpAddress::parse(value)) why = "\"" + value + "\"" + at_line(a) + " is no IP address";
    else addresses.push_back(value);
  }
  if (!why.empty()) {
    const size_t status = add_status(g->key());
    condition(status, "Accepted", false, reason, why);
    condition(status, "Programmed", false, "Invalid");
    gateway_problem_[g->key()] = why;
    return;
  }
  if (addresses.empty()) addresses.push_back(kDefaultAddress);
  for (const auto& [unused, l] : spec["listeners"].members) listener(g, l, addresses);
}

std::set<std::string> Builder::selected(const Value& selector) const {
  std::set<std::string> out;
  for (const auto& n : all("Namespace"))
    if (selects(selector, *n)) out.insert(n->name);
  return out;
}

void Builder::listener(const std::shared_ptr<const Object>& g, const Value& spec, const std::vector<std::string>& addresses) {
  auto l = std::make_unique<PortListener>();
  l->gateway = g;
  l->name = spec["name"].text;
  l->hostname = spec["hostname"].text;
  l->protocol = spec["protocol"].text;
  l->port = static_cast<int>(spec["port"].number(0));
  l->addresses = addresses;
  l->status = add_status(g->key(), "listener " + l->name);
  const auto refuse = [&](const char* reason, const std::string& message) {
    if (l->good) condition(l->status, "Accepted", false, reason, message);
    l->good = false;
  };
  if (l->protocol != "HTTP" && l->protocol != "HTTPS")
    refuse("UnsupportedProtocol", "protocol " + l->protocol + at_line(spec["protocol"]) + ": Millrace takes HTTP and HTTPS here");
  if (l->port < 1 || l->port > 65535) refuse("PortUnavailable", "port" + at_line(spec["port"]) + ": expected 1 to 65535");
  if (!l->hostname.empty() && !is_hostname(l->hostname))
    refuse("UnsupportedValue", "hostname \"" + l->hostname + "\"" + at_line(spec["hostname"]) + " is none");
  // Routes: from where, and of which kinds.
  const Value& allowed = spec["allowedRoutes"];
  const std::string from = allowed["namespaces"]["from"].or_else("Same");
  if (from == "All") l->all_namespaces = true;
  else if (from == "Same") l->namespaces = {g->ns};
  else if (from == "Selector") l->namespaces = selected(allowed["namespaces"]["selector"]);
  else if (from != "None")
    refuse("UnsupportedValue",
           "allowedRoutes.namespaces.from" + at_line(allowed["namespaces"]["from"]) + ": expected All, Same, Selector or None");
  Found refs;
  for (const auto& [unused, k] : allowed["kinds"].members) {
    const std::string& kind = k["kind"].text;
    if (k["group"].or_else(kGroup) == kGroup && (kind == "HTTPRoute" || kind == "GRPCRoute")) l->kinds.push_back(kind);
    else refs = {"InvalidRouteKinds", kind + at_line(k) + ": expected HTTPRoute or GRPCRoute"};
  }
  if (!allowed.has("kinds")) l->kinds = {"HTTPRoute", "GRPCRoute"};
  if (l->protocol == "HTTPS") {
    const Value& tls = spec["tls"];
    if (const std::string mode = tls["mode"].or_else("Terminate"); mode != "Terminate")
      refuse("UnsupportedValue", "tls.mode " + mode + at_line(tls["mode"]) + ": of HTTPS expected Terminate");
    if (tls["certificateRefs"].members.empty()) refs = {"InvalidCertificateRef", "needs tls.certificateRefs" + at_line(spec)};
    for (const auto& [unused, ref] : tls["certificateRefs"].members) {
      Certificate c;
      if (const Found f = certificate(ref, *g, &c); f.ok()) l->certificates.push_back(std::move(c));
      else refs = f;
    }
    if (l->good && l->certificates.empty()) l->good = false, condition(l->status, "Accepted", true, "Accepted");
  } else if (spec.has("tls")) {
    refuse("UnsupportedValue", "tls" + at_line(spec["tls"]) + ": a listener of protocol " + l->protocol + " has none");
  }
  condition(l->status, "ResolvedRefs", refs.ok(), refs.ok() ? "ResolvedRefs" : refs.reason, refs.message);
  listeners_.push_back(std::move(l));
}

Found Builder::certificate(const Value& ref, const Object& from, Certificate* out) const {
  const std::string kind = ref["kind"].or_else("Secret"), ns = ref["namespace"].or_else(from.ns);
  if (kind != "Secret" || !ref["group"].text.empty())
    return {"InvalidCertificateRef", kind + at_line(ref) + ": expected a Secret"};
  if (ns != from.ns && !granted(from, "", "Secret", ns, ref["name"].text))
    return {"RefNotPermitted",
            "no ReferenceGrant in namespace " + ns + " lets Gateways of " + from.ns + " use Secret " + ref["name"].text};
  return secret(ns, ref["name"].text, out);
}

Found Builder::secret(const std::string& ns, const std::string& name, Certificate* out) const {
  const auto s = find("Secret", ns, name);
  const auto bad = [&](const std::string& why) {
    return Found{"InvalidCertificateRef", "Secret " + ns + "/" + name + ": " + why};
  };
  if (s == nullptr) return bad("there is none");
  if (const std::string type = s->root["type"].text; type != "kubernetes.io/tls")
    return bad("is of type " + (type.empty() ? "Opaque" : type) + ", expected kubernetes.io/tls");
  for (const auto& [field, to] : {std::pair("tls.crt", &out->chain_pem), std::pair("tls.key", &out->key_pem)}) {
    const Value &data = s->root["data"][field], &text = s->root["stringData"][field];
    if (text.kind == Value::Kind::kScalar) *to = text.text;
    else if (data.kind != Value::Kind::kScalar) return bad("has no " + std::string(field));
    else if (!base64_decode(data.text, to)) return bad("data." + std::string(field) + at_line(data) + " is not base64");
  }
  if (const auto checked = tls::check_certificate(out->chain_pem, out->key_pem, now_); !checked.ok()) return bad(checked.error());
  return {};
}

// One port of one address: one protocol; and of each protocol each hostname once. Within a Gateway both are refused, of two
// Gateways the younger's.
void Builder::conflicts() {
  std::vector<bool> refused;
  for (const auto& l : listeners_) {
    const Condition& first = out_.status[l->status].conditions.front();
    refused.push_back(first.type == "Accepted" && first.status == "False");
  }
  for (size_t i = 0; i < listeners_.size(); ++i) {
    PortListener& b = *listeners_[i];
    if (refused[i]) continue;
    std::string reason, message;
    for (size_t j = 0; j < listeners_.size() && reason.empty(); ++j) {
      const PortListener& a = *listeners_[j];
      const bool before = j < i || a.gateway == b.gateway;
      const bool meets = std::any_of(a.addresses.begin(), a.addresses.end(), [&](const std::string& x) {
        return std::find(b.addresses.begin(), b.addresses.end(), x) != b.addresses.end();
      });
      if (i == j || refused[j] || !before || !meets || a.port != b.port) continue;
      const std::string other = "listener " + a.name + " of " + a.gateway->key();
      if (a.protocol != b.protocol)
        reason = "ProtocolConflict", message = other + " has port " + std::to_string(a.port) + " for " + a.protocol;
      else if (a.hostname == b.hostname)
        reason = "HostnameConflict",
        message = other + " has port " + std::to_string(a.port) + " and hostname \"" + a.hostname + "\"";
    }
    auto& conditions = out_.status[b.status].conditions;
    std::erase_if(conditions, [](const Condition& c) { return c.type == "Accepted"; });
    conditions.insert(conditions.begin(),
                      {"Accepted", reason.empty() ? "True" : "False", reason.empty() ? "Accepted" : reason, ""});
    conditions.push_back({"Conflicted", reason.empty() ? "False" : "True", reason.empty() ? "NoConflicts" : reason, message});
    if (!reason.empty()) b.good = false;
  }
}

void Builder::finish_gateways() {
  std::map<std::string, std::pair<int, int>> counts;  // listeners that are served, and all, by Gateway
  for (const auto& l : listeners_) {
    if (l->gateway == nullptr) continue;
    auto& [good, all] = counts[l->gateway->key()];
    good += l->good ? 1 : 0;
    ++all;
    condition(
        l->status, "Programmed", l->good, l->good ? "Programmed" : "Invalid",
        l->good ? std::to_string(l->attached.size()) + (l->attached.size() == 1 ? " route attached" : " routes attached") : "");
  }
  for (const auto& [key, count] : counts) {
    const auto& [good, all] = count;
    const size_t status = add_status(key);
    const std::string which = std::to_string(good) + " of " + std::to_string(all) + " listeners are served";
    condition(status, "Accepted", good > 0, good == all ? "Accepted" : "ListenersNotValid", good == all ? "" : which);
    condition(status, "Programmed", good > 0, good > 0 ? "Programmed" : "Invalid", which);
  }
}

}  // namespace millrace::control::manifests
