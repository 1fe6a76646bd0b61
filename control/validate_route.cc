// Route configurations: what Envoy's validate.rules and its RouteMatcher refuse, then what lib/route refuses (domains,
// expressions).
#include <map>
#include <set>
#include <unordered_set>

#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/route_filters.h"
#include "control/route_spec.h"
#include "control/validate.h"
#include "control/validate_rules.h"
#include "lib/base/ascii.h"

namespace millrace::control {

namespace {

namespace rt = envoy::config::route::v3;
using envoy::type::matcher::v3::RegexMatcher;
using envoy::type::matcher::v3::StringMatcher;
using namespace rules;

constexpr uint32_t kDefaultMaxBody = 4096;  // RouteConfiguration.max_direct_response_body_size_bytes

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool regex(const RegexMatcher& m, const Path& at, ErrorSink& e) { return not_empty(m.regex(), Path(at, "regex"), e); }

bool query_matcher(const rt::QueryParameterMatcher& m, const Path& at, ErrorSink& e) {
  constexpr size_t kMostNameBytes = 1024;  // validate.rules
  const Path name(at, "name");
  bool ok = not_empty(m.name(), name, e);
  if (m.name().size() > kMostNameBytes) ok = complain(name, e, "must be at most " + std::to_string(kMostNameBytes) + " bytes");
  if (m.has_string_match()) ok = string_matcher(m.string_match(), Path(at, "string_match"), e) && ok;
  return ok;
}

bool match(const rt::RouteMatch& m, const Path& at, ErrorSink& e) {
  bool ok = true;
  switch (m.path_specifier_case()) {
    case rt::RouteMatch::PATH_SPECIFIER_NOT_SET:
      ok = complain(at, e, "needs one of prefix, path, path_separated_prefix, safe_regex or connect_matcher");
      break;
    case rt::RouteMatch::kSafeRegex:
      ok = regex(m.safe_regex(), Path(at, "safe_regex"), e);
      break;
    case rt::RouteMatch::kPathSeparatedPrefix: {
      const std::string& p = m.path_separated_prefix();
      if (p.size() < 2 || p.find_first_of("?#") != std::string::npos || p.back() == '/')
        ok = complain(Path(at, "path_separated_prefix"), e,
                      "must be at least two characters, without '?' and '#', and must not end in '/'");
      break;
    }
    default:
      break;
  }
  for (int i = 0; i < m.headers_size(); ++i) ok = header_matcher(m.headers(i), Path(at, "headers", i), e) && ok;
  for (int i = 0; i < m.query_parameters_size(); ++i)
    ok = query_matcher(m.query_parameters(i), Path(at, "query_parameters", i), e) && ok;
  const Path fraction(at, "runtime_fraction");
  if (m.has_runtime_fraction() && !m.runtime_fraction().has_default_value())
    ok = complain(Path(fraction, "default_value"), e, "is required");
  return ok;
}

bool weighted_clusters(const rt::WeightedCluster& w, const Path& at, ErrorSink& e) {
  const Path all(at, "clusters");
  if (w.clusters().empty()) return complain(all, e, "must have at least one element");
  bool ok = true;
  uint64_t sum = 0;
  for (int i = 0; i < w.clusters_size(); ++i) {
    const auto& c = w.clusters(i);
    const Path here(at, "clusters", i);
    ok = not_empty(c.name(), Path(here, "name"), e) && ok;
    if (!c.has_weight()) ok = complain(Path(here, "weight"), e, "is required");
    sum += c.weight().value();
    ok = header_mutations(c, here, e) && ok;
  }
  if (ok && sum == 0) ok = complain(all, e, "the weights sum up to 0: at least one must be greater");
  if (sum > UINT32_MAX) ok = complain(all, e, "the weights sum up to " + std::to_string(sum) + ", more than 4294967295");
  return ok;
}

bool upgrades(const rt::RouteAction& a, const Path& at, ErrorSink& e) {
  bool ok = true;
  std::set<std::string> seen;
  for (int i = 0; i < a.upgrade_configs_size(); ++i) {
    const auto& u = a.upgrade_configs(i);
    const Path here(at, "upgrade_configs", i);
    ok = upgrade_type(u.upgrade_type(), Path(here, "upgrade_type"), e) && ok;
    std::string lower = u.upgrade_type();
    for (char& c : lower) c = base::to_lower(c);
    if (!seen.insert(lower).second)
      ok = complain(Path(here, "upgrade_type"), e, "\"" + u.upgrade_type() + "\" is configured already");
    if (u.has_connect_config() && lower != "connect")
      ok = complain(Path(here, "connect_config"), e, "may be set only with upgrade_type CONNECT");
    ok = validate_version_only(u.connect_config().proxy_protocol_config(),
                               Path(Path(here, "connect_config"), "proxy_protocol_config"), e) &&
         ok;
  }
  return ok;
}

bool retry_headers(const google::protobuf::RepeatedPtrField<rt::HeaderMatcher>& list, std::string_view field, const Path& at,
                   ErrorSink& e) {
  bool ok = true;
  if (list.size() > static_cast<int>(table::kMostRetryMatchers))
    ok = complain(Path(at, field), e, "Millrace takes at most " + std::to_string(table::kMostRetryMatchers) + " of them");
  for (int i = 0; i < list.size(); ++i) {
    const Path here(at, field, i);
    if (list[i].has_safe_regex_match() || list[i].string_match().has_safe_regex())
      ok = complain(here, e, "regular expressions are not supported in retry policies by Millrace yet");
    else ok = header_matcher(list[i], here, e) && ok;
  }
  return ok;
}

// RetryPolicy's validate.rules, and what RetryPolicyImpl throws.
bool retry_policy(const rt::RetryPolicy& p, const Path& at, ErrorSink& e) {
  bool ok = true;
  const auto too_many = [&](std::string_view field, int n, const Path& where) {
    if (n <= static_cast<int>(table::kMostRetryMatchers)) return;
    ok = complain(Path(where, field), e, "Millrace takes at most " + std::to_string(table::kMostRetryMatchers) + " of them");
  };
  if (p.has_per_try_timeout()) ok = duration(p.per_try_timeout(), Path(at, "per_try_timeout"), e) && ok;
  if (p.has_per_try_idle_timeout()) ok = duration(p.per_try_idle_timeout(), Path(at, "per_try_idle_timeout"), e) && ok;
  if (p.has_retry_back_off()) {
    const Path here(at, "retry_back_off");
    const auto& b = p.retry_back_off();
    if (!b.has_base_interval()) ok = complain(Path(here, "base_interval"), e, "is required");
    else ok = duration(b.base_interval(), Path(here, "base_interval"), e) && ok;
    if (b.has_max_interval()) ok = duration(b.max_interval(), Path(here, "max_interval"), e) && ok;
    const auto ns = [](const google::protobuf::Duration& d) { return d.seconds() * 1'000'000'000 + d.nanos(); };
    if (ok && ns(b.base_interval()) <= 0) ok = complain(Path(here, "base_interval"), e, "must be greater than 0");
    if (ok && b.has_max_interval() && ns(b.max_interval()) <= 0)
      ok = complain(Path(here, "max_interval"), e, "must be greater than 0");
    if (ok && b.has_max_interval() && ns(b.max_interval()) < ns(b.base_interval()))
      ok = complain(Path(here, "max_interval"), e, "must be greater than or equal to base_interval");
  }
  if (p.has_rate_limited_retry_back_off()) {
    const Path here(at, "rate_limited_retry_back_off");
    const auto& b = p.rate_limited_retry_back_off();
    if (b.reset_headers().empty()) ok = complain(Path(here, "reset_headers"), e, "must have at least one element");
    too_many("reset_headers", b.reset_headers_size(), here);
    for (int i = 0; i < b.reset_headers_size(); ++i) {
      const Path name(Path(here, "reset_headers", i), "name");
      ok = not_empty(b.reset_headers(i).name(), name, e) && header_name(b.reset_headers(i).name(), name, e) && ok;
    }
    if (b.has_max_interval()) {
      ok = duration(b.max_interval(), Path(here, "max_interval"), e) && ok;
      if (b.max_interval().seconds() == 0 && b.max_interval().nanos() == 0)
        ok = complain(Path(here, "max_interval"), e, "must be greater than 0");
    }
  }
  for (int i = 0; i < p.retry_host_predicate_size(); ++i) {
    const auto& h = p.retry_host_predicate(i);
    const Path here(at, "retry_host_predicate", i);
    ok = not_empty(h.name(), Path(here, "name"), e) && ok;
    if (!h.has_typed_config() && !h.name().empty() && h.name() != "envoy.retry_host_predicates.previous_hosts")
      ok = complain(Path(here, "name"), e, "\"" + h.name() + "\" is not supported by Millrace yet");
  }
  if (p.host_selection_retry_max_attempts() < 0)
    ok = complain(Path(at, "host_selection_retry_max_attempts"), e, "must not be negative");
  too_many("retriable_status_codes", p.retriable_status_codes_size(), at);
  ok = retry_headers(p.retriable_headers(), "retriable_headers", at, e) && ok;
  return retry_headers(p.retriable_request_headers(), "retriable_request_headers", at, e) && ok;
}

// HashPolicy's validate.rules.
bool hash_policies(const rt::RouteAction& a, const Path& at, ErrorSink& e) {
  using Policy = rt::RouteAction::HashPolicy;
  bool ok = true;
  for (int i = 0; i < a.hash_policy_size(); ++i) {
    const Policy& p = a.hash_policy(i);
    const Path here(at, "hash_policy", i), header(here, "header"), cookie(here, "cookie"), query(here, "query_parameter");
    switch (p.policy_specifier_case()) {
      case Policy::kHeader: {
        const std::string& name = p.header().header_name();
        const Path where(header, "header_name");
        ok = not_empty(name, where, e) && ok;
        constexpr std::string_view kPseudo[] = {":method", ":path", ":authority", ":scheme"};
        if (name.starts_with(':')) {
          if (std::find(std::begin(kPseudo), std::end(kPseudo), name) == std::end(kPseudo))
            ok = complain(where, e, "\"" + name + "\" is no pseudo-header of a request");
        } else if (!name.empty()) ok = header_name(name, where, e) && ok;
        break;
      }
      case Policy::kCookie:
        ok = not_empty(p.cookie().name(), Path(cookie, "name"), e) && ok;
        ok = header_value(p.cookie().name(), Path(cookie, "name"), e) &&
             header_value(p.cookie().path(), Path(cookie, "path"), e) && ok;
        if (p.cookie().has_ttl() && p.cookie().ttl().seconds() < 0) ok = complain(Path(cookie, "ttl"), e, "must not be negative");
        for (int k = 0; k < p.cookie().attributes_size(); ++k) {
          const auto& attribute = p.cookie().attributes(k);
          const Path one(cookie, "attributes", k);
          ok = not_empty(attribute.name(), Path(one, "name"), e) && ok;
          ok = header_value(attribute.name(), Path(one, "name"), e) && header_value(attribute.value(), Path(one, "value"), e) &&
               ok;
        }
        break;
      case Policy::kQueryParameter:
        ok = not_empty(p.query_parameter().name(), Path(query, "name"), e) && ok;
        break;
      case Policy::kConnectionProperties:
        break;
      case Policy::POLICY_SPECIFIER_NOT_SET:
        ok = complain(here, e, "needs one of header, cookie, connection_properties or query_parameter");
    }
  }
  return ok;
}

bool route_action(const rt::RouteAction& a, const Path& at, ErrorSink& e) {
  bool ok = true;
  switch (a.cluster_specifier_case()) {
    case rt::RouteAction::kCluster:
      ok = not_empty(a.cluster(), Path(at, "cluster"), e);
      break;
    case rt::RouteAction::kWeightedClusters:
      ok = weighted_clusters(a.weighted_clusters(), Path(at, "weighted_clusters"), e);
      break;
    case rt::RouteAction::CLUSTER_SPECIFIER_NOT_SET:
      ok = complain(at, e, "needs cluster or weighted_clusters");
      break;
  }
  ok = header_value(a.prefix_rewrite(), Path(at, "prefix_rewrite"), e) && ok;
  ok = header_value(a.host_rewrite_literal(), Path(at, "host_rewrite_literal"), e) && ok;
  if (a.has_timeout()) ok = duration(a.timeout(), Path(at, "timeout"), e) && ok;
  if (a.has_idle_timeout()) ok = duration(a.idle_timeout(), Path(at, "idle_timeout"), e) && ok;
  const Path most(at, "max_stream_duration");
  if (a.max_stream_duration().has_max_stream_duration())
    ok = duration(a.max_stream_duration().max_stream_duration(), Path(most, "max_stream_duration"), e) && ok;
  if (a.has_retry_policy()) ok = retry_policy(a.retry_policy(), Path(at, "retry_policy"), e) && ok;
  ok = hash_policies(a, at, e) && ok;
  ok = upgrades(a, at, e) && ok;
  return ok;
}

bool redirect_action(const rt::RedirectAction& a, const Path& at, ErrorSink& e) {
  bool ok = header_value(a.host_redirect(), Path(at, "host_redirect"), e);
  ok = header_value(a.path_redirect(), Path(at, "path_redirect"), e) && ok;
  ok = header_value(a.prefix_rewrite(), Path(at, "prefix_rewrite"), e) && ok;
  ok = header_value(a.scheme_redirect(), Path(at, "scheme_redirect"), e) && ok;
  if (a.port_redirect() > 65535) ok = complain(Path(at, "port_redirect"), e, "must be a port, at most 65535");
  return ok;
}

bool direct_response(const rt::DirectResponseAction& a, uint32_t max_body, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (a.status() < 200 || a.status() > 599)
    ok = complain(Path(at, "status"), e, "must be a status from 200 to 599, not " + std::to_string(a.status()));
  const Path body(at, "body");
  if (!a.has_body()) return ok;
  if (!data_source(a.body(), body, e)) return false;
  const auto bytes = read_data_source(a.body());
  if (bytes.ok() && bytes->size() > max_body)
    ok = complain(body, e,
                  "response body size is " + std::to_string(bytes->size()) + " bytes; maximum is " + std::to_string(max_body) +
                      " (max_direct_response_body_size_bytes of the route configuration)");
  return ok;
}

bool route(const api::Route& r, uint32_t max_body, const Path& at, ErrorSink& e) {
  bool ok = r.has_match() ? match(r.match(), Path(at, "match"), e) : complain(Path(at, "match"), e, "is required");
  switch (r.action_case()) {
    case api::Route::kRoute:
      ok = route_action(r.route(), Path(at, "route"), e) && ok;
      break;
    case api::Route::kRedirect:
      ok = redirect_action(r.redirect(), Path(at, "redirect"), e) && ok;
      break;
    case api::Route::kDirectResponse:
      ok = direct_response(r.direct_response(), max_body, Path(at, "direct_response"), e) && ok;
      break;
    case api::Route::ACTION_NOT_SET:
      ok = complain(at, e, "needs one of route, redirect or direct_response");
      break;
  }
  ok = validate_filter_configs(r.typed_per_filter_config(), at, e) && ok;
  return header_mutations(r, at, e) && ok;
}

// lib/route's complaints, below `at`.
bool spec_errors(const std::vector<route::SpecError>& errors, const Path& at, ErrorSink& e) {
  const std::string prefix = at.to_string();
  for (const route::SpecError& s : errors)
    e.add(prefix.empty() || s.path.empty() ? prefix + s.path : prefix + "." + s.path, s.message);
  return errors.empty();
}

bool virtual_host(const api::VirtualHost& h, uint32_t max_body, const Path& at, ErrorSink& e) {
  bool ok = not_empty(h.name(), Path(at, "name"), e);
  if (h.domains().empty()) ok = complain(Path(at, "domains"), e, "must have at least one element (\"*\" matches every host)");
  for (int i = 0; i < h.routes_size(); ++i) ok = route(h.routes(i), max_body, Path(at, "routes", i), e) && ok;
  if (h.has_retry_policy()) ok = retry_policy(h.retry_policy(), Path(at, "retry_policy"), e) && ok;
  ok = validate_filter_configs(h.typed_per_filter_config(), at, e) && ok;
  ok = header_mutations(h, at, e) && ok;
  return ok && spec_errors(route::check_virtual_host(virtual_host_spec(h)), at, e);
}

}  // namespace

namespace rules {

bool string_matcher(const StringMatcher& m, const Path& at, ErrorSink& e) {
  switch (m.match_pattern_case()) {
    case StringMatcher::kExact:
      return true;
    case StringMatcher::kPrefix:
      return not_empty(m.prefix(), Path(at, "prefix"), e);
    case StringMatcher::kSuffix:
      return not_empty(m.suffix(), Path(at, "suffix"), e);
    case StringMatcher::kContains:
      return not_empty(m.contains(), Path(at, "contains"), e);
    case StringMatcher::kSafeRegex:
      return regex(m.safe_regex(), Path(at, "safe_regex"), e);
    case StringMatcher::MATCH_PATTERN_NOT_SET:
      break;
  }
  return complain(at, e, "needs one of exact, prefix, suffix, contains or safe_regex");
}

bool header_matcher(const rt::HeaderMatcher& m, const Path& at, ErrorSink& e) {
  const Path name(at, "name");
  bool ok =
      m.name().starts_with(':') ? header_name(std::string_view(m.name()).substr(1), name, e) : header_name(m.name(), name, e);
  switch (m.header_match_specifier_case()) {
    case rt::HeaderMatcher::kStringMatch:
      return string_matcher(m.string_match(), Path(at, "string_match"), e) && ok;
    case rt::HeaderMatcher::kSafeRegexMatch:
      return regex(m.safe_regex_match(), Path(at, "safe_regex_match"), e) && ok;
    case rt::HeaderMatcher::kPrefixMatch:
      return not_empty(m.prefix_match(), Path(at, "prefix_match"), e) && ok;
    case rt::HeaderMatcher::kSuffixMatch:
      return not_empty(m.suffix_match(), Path(at, "suffix_match"), e) && ok;
    case rt::HeaderMatcher::kContainsMatch:
      return not_empty(m.contains_match(), Path(at, "contains_match"), e) && ok;
    default:
      return ok;
  }
}

}  // namespace rules

uint32_t max_direct_response_body(const api::RouteConfiguration& config) {
  return config.has_max_direct_response_body_size_bytes() ? config.max_direct_response_body_size_bytes().value()
                                                          : kDefaultMaxBody;
}

bool validate_route(const api::Route& r, uint32_t max_body, const Path& at, ErrorSink& e) {
  if (!known_fields_only(r, at, e) || !route(r, max_body, at, e)) return false;
  route::VirtualHostSpec alone;
  alone.name = "v";
  alone.domains = {"*"};
  alone.routes.push_back(route_spec(r));
  std::vector<route::SpecError> errors = route::check_virtual_host(alone);
  for (route::SpecError& s : errors) s.path.erase(0, s.path.starts_with("routes[0].") ? sizeof("routes[0].") - 1 : 0);
  return spec_errors(errors, at, e);
}

bool validate_virtual_host(const api::VirtualHost& h, uint32_t max_body, const Path& at, ErrorSink& e) {
  return known_fields_only(h, at, e) && virtual_host(h, max_body, at, e);
}

bool validate_route_configuration(const api::RouteConfiguration& c, const Path& at, ErrorSink& e) {
  if (!known_fields_only(c, at, e)) return false;
  bool ok = header_mutations(c, at, e);
  const uint32_t max_body = max_direct_response_body(c);
  std::map<std::string_view, int> names;
  for (int i = 0; i < c.virtual_hosts_size(); ++i) {
    const Path here(at, "virtual_hosts", i);
    ok = virtual_host(c.virtual_hosts(i), max_body, here, e) && ok;
    const auto [first, fresh] = names.emplace(c.virtual_hosts(i).name(), i);
    if (!fresh)
      ok = complain(
          Path(here, "name"), e,
          "\"" + c.virtual_hosts(i).name() + "\" is the name of virtual_hosts[" + std::to_string(first->second) + "] already");
  }
  if (!ok) return false;
  route::RouteTableSpec domains;
  for (const auto& h : c.virtual_hosts()) domains.virtual_hosts.push_back({h.name(), {h.domains().begin(), h.domains().end()}});
  return spec_errors(route::check_domains(domains), at, e);
}

std::string common_names(const std::vector<std::shared_ptr<const api::VirtualHost>>& hosts) {
  std::unordered_set<std::string_view> names;
  route::RouteTableSpec domains;
  domains.virtual_hosts.reserve(hosts.size());
  for (const auto& h : hosts) {
    if (!names.insert(h->name()).second) return h->name();
    domains.virtual_hosts.push_back({h->name(), {h->domains().begin(), h->domains().end()}});
  }
  const std::vector<route::SpecError> found = route::check_domains(domains);
  return found.empty() ? "" : found.front().message;
}

}  // namespace millrace::control
