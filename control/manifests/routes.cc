// HTTPRoutes and GRPCRoutes: which listeners they are attached to, and their rules as routes of virtual hosts.
#include <algorithm>

#include "control/manifests/build.h"
#include "lib/route/regex_syntax.h"

namespace millrace::control::manifests {

namespace {

std::string at_line(const Value& v) { return v.line == 0 ? "" : " (line " + std::to_string(v.line) + ")"; }

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

std::string quote_regex(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

// One match of a rule.
struct Match {
  api::RouteMatch match;
  std::optional<std::string> prefix;  // of a PathPrefix, without the last slash
  bool exact = false;
  Precedence order;
};

// An expression that the compiler would refuse is this object's mistake, not the listener's.
const std::string& checked(const Value& at, const std::string& text, std::string* why) {
  if (const auto r = route::translate_re2(text); !r.ok()) *why = "regular expression" + at_line(at) + ": " + r.error;
  return text;
}

template <class Matcher>
void string_match(const Value& m, Matcher* out, std::string* why) {
  const std::string type = m["type"].or_else("Exact");
  if (type == "Exact") out->mutable_string_match()->set_exact(m["value"].text);
  else if (type == "RegularExpression")
    out->mutable_string_match()->mutable_safe_regex()->set_regex(checked(m, m["value"].text, why));
  else *why = "match of type " + type + at_line(m["type"]) + ": expected Exact or RegularExpression";
}

// "If multiple entries specify equivalent header names, only the first entry … MUST be considered".
void headers(const Value& list, Match* out, std::string* why) {
  std::set<std::string> seen;
  for (const auto& [unused, h] : list.members) {
    if (!seen.insert(lower(h["name"].text)).second) continue;
    auto& matcher = *out->match.add_headers();
    matcher.set_name(h["name"].text);
    string_match(h, &matcher, why);
    ++out->order.headers;
  }
}

Match http_match(const Value& m, std::string* why) {
  Match out;
  const std::string type = m["path"]["type"].or_else("PathPrefix"), value = m["path"]["value"].or_else("/");
  out.order.length = static_cast<int>(value.size());
  if (type != "RegularExpression" && !value.starts_with('/'))
    *why = "path.value" + at_line(m["path"]) + ": expected a path that begins with /";
  if (type == "Exact") {
    out.exact = true;
    out.match.set_path(value);
  } else if (type == "PathPrefix") {
    std::string prefix = value;
    while (prefix.ends_with('/')) prefix.pop_back();
    if (prefix.empty()) out.match.set_prefix("/");
    else out.match.set_path_separated_prefix(prefix);
    out.order.path = 2;
    out.order.length = static_cast<int>(std::max<size_t>(prefix.size(), 1));
    out.prefix = prefix;
  } else if (type == "RegularExpression") {
    out.match.mutable_safe_regex()->set_regex(checked(m["path"], value, why));
    out.order.path = 1;
  } else {
    *why = "path.type " + type + at_line(m["path"]["type"]) + ": expected Exact, PathPrefix or RegularExpression";
  }
  if (m.has("method")) {
    auto& method = *out.match.add_headers();
    method.set_name(":method");
    method.mutable_string_match()->set_exact(m["method"].text);
    out.order.method = 1;
  }
  headers(m["headers"], &out, why);
  std::set<std::string> seen;
  for (const auto& [unused, q] : m["queryParams"].members) {
    if (!seen.insert(q["name"].text).second) continue;
    auto& matcher = *out.match.add_query_parameters();
    matcher.set_name(q["name"].text);
    string_match(q, &matcher, why);
    ++out.order.query;
  }
  return out;
}

Match grpc_match(const Value& m, std::string* why) {
  Match out;
  const std::string type = m["method"]["type"].or_else("Exact"), service = m["method"]["service"].text,
                    method = m["method"]["method"].text;
  out.order.length = static_cast<int>(service.size());
  out.order.method = static_cast<int>(method.size());
  if (type != "Exact" && type != "RegularExpression")
    *why = "method.type " + type + at_line(m["method"]) + ": expected Exact or RegularExpression";
  const bool regex = type == "RegularExpression";
  if (service.empty() && method.empty()) {
    if (m.has("method")) *why = "method" + at_line(m["method"]) + ": needs service or method";
    out.match.set_prefix("/");
    out.order.path = 2;
  } else if (!regex && !service.empty()) {
    if (method.empty()) out.match.set_prefix("/" + service + "/");
    else out.match.set_path("/" + service + "/" + method);
  } else {
    const auto part = [&](const std::string& text) {
      return text.empty() ? "[^/]+" : regex ? "(?:" + text + ")" : quote_regex(text);
    };
    out.match.mutable_safe_regex()->set_regex(checked(m["method"], "/" + part(service) + "/" + part(method), why));
    out.order.path = regex ? 1 : 0;
  }
  headers(m["headers"], &out, why);
  return out;
}

}  // namespace

// The oldest first: where an HTTPRoute and a GRPCRoute want one host, it has it.
void Builder::routes() {
  auto list = all("HTTPRoute"), grpc = all("GRPCRoute");
  list.insert(list.end(), grpc.begin(), grpc.end());
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return std::tuple(a->created.empty(), a->created, a->ns, a->name) <
           std::tuple(b->created.empty(), b->created, b->ns, b->name);
  });
  for (const auto& r : list) route(r);
}

// The listeners that a parentRef means and that take the route, as far as hostnames do not decide.
std::vector<PortListener*> Builder::parents(const Object& r, const Value& ref, Condition* accepted) {
  const auto refuse = [&](const char* reason, std::string message) {
    *accepted = {"Accepted", "False", reason, std::move(message)};
    return std::vector<PortListener*>();
  };
  const std::string kind = ref["kind"].or_else("Gateway"), ns = ref["namespace"].or_else(r.ns), name = ref["name"].text;
  if (kind != "Gateway") return refuse("NoMatchingParent", kind + at_line(ref) + ": a parent is a Gateway");
  const auto g = find("Gateway", ns, name);
  if (g == nullptr) return refuse("NoMatchingParent", "there is no Gateway " + ns + "/" + name);
  if (const auto bad = gateway_problem_.find(g->key()); bad != gateway_problem_.end())
    return refuse("NoMatchingParent", "Gateway " + ns + "/" + name + " is not served: " + bad->second);
  std::vector<PortListener*> meant, out;
  for (const auto& l : listeners_) {
    if (l->gateway != g) continue;
    if (ref.has("sectionName") && ref["sectionName"].text != l->name) continue;
    if (ref.has("port") && ref["port"].number(0) != l->port) continue;
    meant.push_back(l.get());
  }
  if (meant.empty()) return refuse("NoMatchingParent", "Gateway " + ns + "/" + name + " has no such listener" + at_line(ref));
  for (PortListener* l : meant) {
    const bool kind_good = std::find(l->kinds.begin(), l->kinds.end(), r.kind) != l->kinds.end();
    if (kind_good && (l->all_namespaces || l->namespaces.contains(r.ns))) out.push_back(l);
  }
  if (out.empty())
    return refuse("NotAllowedByListeners", "allowedRoutes of the listeners of Gateway " + ns + "/" + name + " takes no " +
                                               r.kind + " of namespace " + r.ns);
  *accepted = {"Accepted", "True", "Accepted", ""};
  return out;
}

void Builder::route(const std::shared_ptr<const Object>& r) {
  const Value& spec = r->root["spec"];
  if (spec["parentRefs"].members.empty())
    return condition(add_status(r->key()), "Accepted", false, "NoMatchingParent", "spec.parentRefs: names no Gateway");
  for (const auto& [unused, ref] : spec["parentRefs"].members) {
    std::string about = "parent " + ref["namespace"].or_else(r->ns) + "/" + ref["name"].text;
    if (ref.has("sectionName")) about += " listener " + ref["sectionName"].text;
    if (ref.has("port")) about += " port " + ref["port"].text;
    const size_t status = add_status(r->key(), about);
    Condition accepted;
    const std::vector<PortListener*> listeners = parents(*r, ref, &accepted);
    std::string unsupported = unsupported_text(*r);
    Found refs;
    bool hosts_meet = false, conflict = false;
    for (PortListener* l : listeners) {
      std::vector<std::string> hosts;
      if (spec["hostnames"].members.empty()) hosts.push_back(l->hostname.empty() ? "*" : l->hostname);
      for (const auto& [unused2, h] : spec["hostnames"].members)
        if (const auto both = intersection(l->hostname, h.text);
            both && std::find(hosts.begin(), hosts.end(), *both) == hosts.end())
          hosts.push_back(*both);
      hosts_meet = hosts_meet || !hosts.empty();
      if (hosts.empty()) continue;
      const std::vector<Entry> entries = entries_of(*r, *l, &unsupported, &refs);
      if (!unsupported.empty()) break;
      std::string rival;
      for (const auto& [host, kind] : l->host_kind)
        for (const std::string& h : hosts)
          if (kind != r->kind && intersection(host, h)) rival = l->host_owner[host];
      if (!rival.empty()) {
        conflict = true;
        accepted = {"Accepted", "False", "HostnameConflict",
                    rival + " has this hostname on listener " + l->name + "; HTTPRoutes and GRPCRoutes do not share one"};
        break;
      }
      attach(*r, *l, hosts, entries);
    }
    if (!unsupported.empty()) accepted = {"Accepted", "False", "UnsupportedValue", unsupported};
    else if (!listeners.empty() && !hosts_meet && !conflict)
      accepted = {"Accepted", "False", "NoMatchingListenerHostname", "no listener has a hostname of spec.hostnames"};
    out_.status[status].conditions.push_back(std::move(accepted));
    condition(status, "ResolvedRefs", refs.ok(), refs.ok() ? "ResolvedRefs" : refs.reason, refs.message);
  }
}

void Builder::attach(const Object& r, PortListener& l, const std::vector<std::string>& hosts, const std::vector<Entry>& entries) {
  if (!l.attached.insert(r.key()).second) return;  // by another parentRef
  for (const std::string& h : hosts) {
    l.host_kind.emplace(h, r.kind);
    l.host_owner.emplace(h, r.key());
    auto& list = l.hosts[h];
    list.insert(list.end(), entries.begin(), entries.end());
  }
}

// BackendRef.weight of the Gateway API.
constexpr int64_t kMostWeight = 1'000'000;

std::vector<Entry> Builder::entries_of(const Object& r, const PortListener& l, std::string* unsupported, Found* refs) {
  std::vector<Entry> out;
  const bool grpc = r.kind == "GRPCRoute";
  int rule_number = 0;
  for (const auto& [unused, rule] : r.root["spec"]["rules"].members) {
    Action action;
    action.filters = rule["filters"];
    action.timeouts = rule["timeouts"];
    action.grpc = grpc;
    action.listener_port = l.port;
    action.listener_tls = l.protocol == "HTTPS";
    bool invalid = false;
    for (const auto& [unused2, b] : rule["backendRefs"].members) {
      Share share;
      const int64_t weight = b["weight"].number(1);
      if (weight < 0 || weight > kMostWeight)
        *unsupported = "weight " + std::to_string(weight) + " (line " + std::to_string(b["weight"].line) + ") is not 0 to " +
                       std::to_string(kMostWeight);
      share.weight = static_cast<uint32_t>(std::clamp<int64_t>(weight, 0, kMostWeight));
      share.filters = b["filters"];
      const Found f = backend(b, r, grpc, &share.cluster);
      if (!f.ok() && refs->ok()) *refs = f;
      invalid = invalid || !f.ok();
      action.shares.push_back(std::move(share));
    }
    static const Value kAnything;
    std::vector<const Value*> matches;
    for (const auto& [unused2, m] : rule["matches"].members) matches.push_back(&m);
    if (matches.empty()) matches.push_back(&kAnything);
    for (size_t i = 0; i < matches.size() && unsupported->empty(); ++i) {
      Match m = grpc ? grpc_match(*matches[i], unsupported) : http_match(*matches[i], unsupported);
      Entry e;
      e.routes = make_routes(m.match, m.prefix, m.exact, action, unsupported);
      e.invalid_backend = invalid;
      e.order = m.order;
      e.order.created = r.created;
      e.order.name = r.ns + "/" + r.name;
      e.order.rule = rule_number;
      e.order.match = static_cast<int>(i);
      const std::string name = r.key() + "/" + rule["name"].or_else(std::to_string(rule_number)) + "/" + std::to_string(i);
      for (size_t k = 0; k < e.routes.size(); ++k) e.routes[k].set_name(name + (k == 0 ? "" : "/exact"));
      out.push_back(std::move(e));
    }
    if (!unsupported->empty()) return {};
    ++rule_number;
  }
  return out;
}

}  // namespace millrace::control::manifests
