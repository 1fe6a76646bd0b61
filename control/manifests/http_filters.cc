// Filters, timeouts and backends of one rule: what Envoy's route does with a request.
#include <algorithm>

#include "control/manifests/build.h"

namespace millrace::control::manifests {

namespace {

using envoy::config::core::v3::HeaderValueOption;
using envoy::config::route::v3::RedirectAction;
using envoy::config::route::v3::RouteAction;
using envoy::config::route::v3::WeightedCluster;
using google::protobuf::RepeatedPtrField;

std::string at_line(const Value& v) { return " (line " + std::to_string(v.line) + ")"; }

bool may_change(const std::string& name) {
  static constexpr std::string_view kToken = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const bool host =
      name.size() == 4 && std::equal(name.begin(), name.end(), "host", [](char a, char b) { return (a | 0x20) == b; });
  return !name.empty() && !host && name.find_first_not_of(kToken) == std::string::npos;
}

// Envoy expands %COMMANDS% in values; the Gateway API does not.
std::string literal(const std::string& value) {
  std::string out;
  for (const char c : value) out += c == '%' ? "%%" : std::string(1, c);
  return out;
}

void modify_headers(const Value& modifier, RepeatedPtrField<HeaderValueOption>* add, RepeatedPtrField<std::string>* remove,
                    std::string* why) {
  const auto check = [&](const Value& at, const std::string& name) {
    if (!may_change(name)) *why = "header \"" + name + "\"" + at_line(at) + " is none that may be changed";
    return why->empty();
  };
  for (const auto& [list, action] : {std::pair("set", HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD),
                                     std::pair("add", HeaderValueOption::APPEND_IF_EXISTS_OR_ADD)})
    for (const auto& [unused, h] : modifier[list].members) {
      if (!check(h, h["name"].text)) return;
      if (h["value"].text.find_first_of(std::string_view("\0\r\n", 3)) != std::string::npos)
        return *why = "the value of header \"" + h["name"].text + "\"" + at_line(h) + " has a line break or NUL in it", void();
      HeaderValueOption& o = *add->Add();
      o.mutable_header()->set_key(h["name"].text);
      o.mutable_header()->set_value(literal(h["value"].text));
      o.set_append_action(action);
    }
  for (const auto& [unused, name] : modifier["remove"].members)
    if (check(name, name.text)) remove->Add(std::string(name.text));
}

// The header modifiers of `filters`, into a Route or a ClusterWeight.
template <class Message>
void header_filters(const Value& filters, Message* to, std::string* why) {
  for (const auto& [unused, f] : filters.members) {
    if (f["type"].text == "RequestHeaderModifier")
      modify_headers(f["requestHeaderModifier"], to->mutable_request_headers_to_add(), to->mutable_request_headers_to_remove(),
                     why);
    if (f["type"].text == "ResponseHeaderModifier")
      modify_headers(f["responseHeaderModifier"], to->mutable_response_headers_to_add(), to->mutable_response_headers_to_remove(),
                     why);
  }
}

const Value* filter_of(const Value& filters, const char* type, const char* field) {
  for (const auto& [unused, f] : filters.members)
    if (f["type"].text == type) return &f[field];
  return nullptr;
}

std::string without_last_slash(std::string path) {
  while (path.ends_with('/')) path.pop_back();
  return path;
}

// A path that is written anew. `to_root`: the prefix goes away whole, which takes two routes: /foo -> / and /foo/bar -> /bar.
struct NewPath {
  std::string full, prefix;
  bool to_root = false;
};

NewPath new_path(const Value& path, const std::optional<std::string>& prefix, std::string* why) {
  NewPath out;
  if (path.kind != Value::Kind::kMap) return out;
  const std::string& type = path["type"].text;
  const Value& full = path["replaceFullPath"];
  if (type == "ReplaceFullPath") {
    if (!full.text.starts_with('/')) *why = "path.replaceFullPath" + at_line(path) + ": expected a path that begins with /";
    out.full = full.text;
  } else if (type == "ReplacePrefixMatch") {
    const std::string to = without_last_slash(path["replacePrefixMatch"].text);
    if (!prefix)
      *why = "path of type ReplacePrefixMatch" + at_line(path) + " is for rules whose matches are all of type PathPrefix";
    else if (!to.empty() && !to.starts_with('/'))
      *why = "path.replacePrefixMatch" + at_line(path) + ": expected a path that begins with /";
    else if (prefix->empty()) out.prefix = to.empty() ? "" : to + "/";
    else if (to.empty()) out.prefix = "/", out.to_root = true;
    else out.prefix = to;
  } else {
    *why = "path.type " + type + at_line(path["type"]) + ": expected ReplaceFullPath or ReplacePrefixMatch";
  }
  return out;
}

bool default_port(std::string_view scheme, int64_t port) { return port == (scheme == "https" ? 443 : 80); }

// Of the port: the filter's; or its scheme's; or the listener's. Left out where the scheme has it by default
// (HTTPRequestRedirectFilter.port).
bool redirect(const Value& f, const Action& a, const std::optional<std::string>& prefix, RedirectAction* out, std::string* why) {
  const NewPath path = new_path(f["path"], prefix, why);
  if (!path.full.empty()) out->set_path_redirect(path.full);
  if (!path.prefix.empty()) out->set_prefix_rewrite(path.prefix);
  const std::string &scheme = f["scheme"].text, &host = f["hostname"].text;
  if (!scheme.empty() && scheme != "http" && scheme != "https")
    *why = "scheme " + scheme + at_line(f["scheme"]) + ": expected http or https";
  const std::string now = a.listener_tls ? "https" : "http", next = scheme.empty() ? now : scheme;
  if (!scheme.empty()) out->set_scheme_redirect(scheme);
  if (!host.empty()) out->set_host_redirect(host);
  const int64_t port = f.has("port") ? f["port"].number(0) : !scheme.empty() ? (scheme == "https" ? 443 : 80) : a.listener_port;
  if (port < 1 || port > 65535) *why = "port" + at_line(f["port"]) + ": expected 1 to 65535";
  // Without a host the request's stays, with its port, of which Envoy takes away only the scheme's own.
  const bool clean = !host.empty() || default_port(now, a.listener_port);
  if (!default_port(next, port) || !clean) out->set_port_redirect(static_cast<uint32_t>(port));
  switch (f["statusCode"].number(302)) {
    case 301:
      out->set_response_code(RedirectAction::MOVED_PERMANENTLY);
      break;
    case 302:
      out->set_response_code(RedirectAction::FOUND);
      break;
    case 303:
      out->set_response_code(RedirectAction::SEE_OTHER);
      break;
    case 307:
      out->set_response_code(RedirectAction::TEMPORARY_REDIRECT);
      break;
    case 308:
      out->set_response_code(RedirectAction::PERMANENT_REDIRECT);
      break;
    default:
      *why = "statusCode" + at_line(f["statusCode"]) + ": expected 301, 302, 303, 307 or 308";
  }
  return path.to_root;
}

void set_timeout(const Value& timeouts, RouteAction* out, std::string* why) {
  int64_t ms[2] = {0, 0};
  for (int i = 0; i < 2; ++i) {
    const Value& v = timeouts[i == 0 ? "request" : "backendRequest"];
    if (v.kind == Value::Kind::kNull) continue;
    const auto read = duration_ms(v.text);
    if (!read) return *why = "timeouts: \"" + v.text + "\"" + at_line(v) + " is no duration: expected 10s, 500ms, 1h30m", void();
    ms[i] = *read;
  }
  if (ms[0] != 0 && ms[1] > ms[0])
    return *why = "timeouts.backendRequest" + at_line(timeouts) + " is longer than timeouts.request", void();
  // One try is made, so the shorter is the limit of both. No word of it: none (not Envoy's 15 s).
  const int64_t limit = ms[1] != 0 ? ms[1] : ms[0];
  out->mutable_timeout()->set_seconds(limit / 1000);
  out->mutable_timeout()->set_nanos(static_cast<int32_t>(limit % 1000 * 1'000'000));
}

void send(const Action& a, api::Route* route, std::string* why) {
  uint64_t total = 0;
  bool any = false, plain = true;
  for (const Share& s : a.shares) {
    total += s.weight;
    any = any || (s.weight != 0 && !s.cluster.empty());
    plain = plain && s.filters.members.empty();
  }
  if (total > UINT32_MAX) *why = "the weights of backendRefs are more than 4294967295 together";
  // "If all entries in BackendRefs are invalid … HTTP 500"; of gRPC UNAVAILABLE, which 503 becomes.
  if (!any) return route->mutable_direct_response()->set_status(a.grpc ? 503 : 500);
  RouteAction& action = *route->mutable_route();
  set_timeout(a.timeouts, &action, why);
  std::vector<const Share*> used;
  for (const Share& s : a.shares)
    if (s.weight != 0) used.push_back(&s);
  if (used.size() == 1 && plain) return action.set_cluster(used.front()->cluster);
  for (const Share* s : used) {
    WeightedCluster::ClusterWeight& w = *action.mutable_weighted_clusters()->add_clusters();
    w.set_name(s->cluster.empty() ? kInvalidBackend : s->cluster);
    w.mutable_weight()->set_value(s->weight);
    header_filters(s->filters, &w, why);
    if (s->cluster.empty() && !a.grpc) action.set_cluster_not_found_response_code(RouteAction::INTERNAL_SERVER_ERROR);
  }
}

void check_filters(const Action& a, std::string* why) {
  for (const auto& [unused, f] : a.filters.members) {
    const std::string& type = f["type"].text;
    const bool http = type == "RequestRedirect" || type == "URLRewrite";
    if (type != "RequestHeaderModifier" && type != "ResponseHeaderModifier" && (!http || a.grpc))
      *why = "filter of type " + type + at_line(f["type"]) + " is not supported by Millrace";
  }
  for (const Share& s : a.shares)
    for (const auto& [unused, f] : s.filters.members)
      if (f["type"].text != "RequestHeaderModifier" && f["type"].text != "ResponseHeaderModifier")
        *why = "filter of type " + f["type"].text + at_line(f["type"]) + " of a backend is not supported by Millrace";
}

}  // namespace

std::optional<int64_t> duration_ms(const std::string& text) {
  int64_t total = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t digits = text.find_first_not_of("0123456789", at);
    if (digits == at || digits == std::string::npos || digits - at > 5) return std::nullopt;
    const int64_t n = std::stoll(text.substr(at, digits - at));
    const size_t end = std::min(text.find_first_of("0123456789", digits), text.size());
    const std::string unit = text.substr(digits, end - digits);
    if (unit == "h") total += n * 3'600'000;
    else if (unit == "m") total += n * 60'000;
    else if (unit == "s") total += n * 1000;
    else if (unit == "ms") total += n;
    else return std::nullopt;
    at = end;
  }
  return text.empty() ? std::nullopt : std::optional(total);
}

std::vector<api::Route> make_routes(const api::RouteMatch& match, const std::optional<std::string>& prefix, bool exact,
                                    const Action& a, std::string* why) {
  api::Route route;
  *route.mutable_match() = match;
  check_filters(a, why);
  header_filters(a.filters, &route, why);
  const Value* to = filter_of(a.filters, "RequestRedirect", "requestRedirect");
  const Value* rewrite = filter_of(a.filters, "URLRewrite", "urlRewrite");
  bool to_root = false;
  if (to != nullptr && (rewrite != nullptr || !a.shares.empty()))
    *why = "a rule that redirects has neither backendRefs nor URLRewrite";
  if (to != nullptr) {
    to_root = redirect(*to, a, prefix, route.mutable_redirect(), why);
  } else {
    send(a, &route, why);
    if (rewrite != nullptr) {
      const NewPath path = new_path((*rewrite)["path"], prefix, why);
      if (!path.full.empty() && !exact)
        *why = "urlRewrite with ReplaceFullPath" + at_line((*rewrite)["path"]) + " is supported for matches of type Exact only";
      const bool sent = route.has_route();
      if (sent && !(path.full + path.prefix).empty()) route.mutable_route()->set_prefix_rewrite(path.full + path.prefix);
      if (sent && rewrite->has("hostname")) route.mutable_route()->set_host_rewrite_literal((*rewrite)["hostname"].text);
      to_root = sent && path.to_root;
    }
  }
  if (!to_root) return {route};
  std::vector<api::Route> out(2, route);
  out[0].mutable_match()->set_prefix(*prefix + "/");
  out[1].mutable_match()->set_path(*prefix);
  return out;
}

}  // namespace millrace::control::manifests
