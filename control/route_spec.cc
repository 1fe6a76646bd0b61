#include "control/route_spec.h"

#include <algorithm>

#include "control/access_log_template.h"
#include "control/proto_values.h"
#include "control/route_filters.h"
#include "lib/table/retry_on.h"

namespace millrace::control {

namespace {

namespace rt = envoy::config::route::v3;
using envoy::config::core::v3::HeaderValueOption;
using envoy::type::matcher::v3::StringMatcher;
using table::StringMatchKind;

table::HeaderAppend append_of(const HeaderValueOption& o) {
  if (o.has_append())
    return o.append().value() ? table::HeaderAppend::kAppendIfExistsOrAdd : table::HeaderAppend::kOverwriteIfExistsOrAdd;
  switch (o.append_action()) {
    case HeaderValueOption::ADD_IF_ABSENT:
      return table::HeaderAppend::kAddIfAbsent;
    case HeaderValueOption::OVERWRITE_IF_EXISTS_OR_ADD:
      return table::HeaderAppend::kOverwriteIfExistsOrAdd;
    case HeaderValueOption::OVERWRITE_IF_EXISTS:
      return table::HeaderAppend::kOverwriteIfExists;
    default:
      return table::HeaderAppend::kAppendIfExistsOrAdd;
  }
}

// Every message with header edits has the four fields under the same names.
template <class M>
route::HeaderMutationsSpec mutations(const M& m) {
  route::HeaderMutationsSpec out;
  const auto add = [](const auto& from, std::vector<route::HeaderOptionSpec>* to) {
    for (const HeaderValueOption& o : from) to->push_back(header_option_spec(o));
  };
  add(m.request_headers_to_add(), &out.request_add);
  add(m.response_headers_to_add(), &out.response_add);
  out.request_remove.assign(m.request_headers_to_remove().begin(), m.request_headers_to_remove().end());
  out.response_remove.assign(m.response_headers_to_remove().begin(), m.response_headers_to_remove().end());
  return out;
}

void set_string_match(const StringMatcher& m, route::MatcherSpec* out) {
  out->ignore_case = m.ignore_case();
  switch (m.match_pattern_case()) {
    case StringMatcher::kExact:
      out->kind = StringMatchKind::kExact, out->value = m.exact();
      break;
    case StringMatcher::kPrefix:
      out->kind = StringMatchKind::kPrefix, out->value = m.prefix();
      break;
    case StringMatcher::kSuffix:
      out->kind = StringMatchKind::kSuffix, out->value = m.suffix();
      break;
    case StringMatcher::kContains:
      out->kind = StringMatchKind::kContains, out->value = m.contains();
      break;
    case StringMatcher::kSafeRegex:
      out->kind = StringMatchKind::kRegex, out->value = m.safe_regex().regex();
      break;
    case StringMatcher::MATCH_PATTERN_NOT_SET:
      break;
  }
}

route::MatcherSpec query_matcher(const rt::QueryParameterMatcher& m) {
  route::MatcherSpec out;
  out.name = m.name();
  if (m.has_string_match()) set_string_match(m.string_match(), &out);
  else if (m.query_parameter_match_specifier_case() == rt::QueryParameterMatcher::kPresentMatch) out.invert = !m.present_match();
  return out;
}

void set_match(const rt::RouteMatch& m, route::RouteSpec* out) {
  switch (m.path_specifier_case()) {
    case rt::RouteMatch::kPrefix:
      out->path_kind = table::PathKind::kPrefix, out->path = m.prefix();
      break;
    case rt::RouteMatch::kPath:
      out->path_kind = table::PathKind::kExact, out->path = m.path();
      break;
    case rt::RouteMatch::kSafeRegex:
      out->path_kind = table::PathKind::kRegex, out->path = m.safe_regex().regex();
      break;
    case rt::RouteMatch::kConnectMatcher:
      out->path_kind = table::PathKind::kConnect;
      break;
    case rt::RouteMatch::kPathSeparatedPrefix:
      out->path_kind = table::PathKind::kSeparatedPrefix, out->path = m.path_separated_prefix();
      break;
    case rt::RouteMatch::PATH_SPECIFIER_NOT_SET:
      break;
  }
  out->case_sensitive = !m.has_case_sensitive() || m.case_sensitive().value();
  out->grpc_only = m.has_grpc();
  const auto wanted = [](bool has, bool value) {
    return !has ? table::CertificateMatch::kAny : value ? table::CertificateMatch::kYes : table::CertificateMatch::kNo;
  };
  out->presented = wanted(m.tls_context().has_presented(), m.tls_context().presented().value());
  out->validated = wanted(m.tls_context().has_validated(), m.tls_context().validated().value());
  for (const auto& h : m.headers()) out->headers.push_back(header_matcher_spec(h));
  for (const auto& q : m.query_parameters()) out->query.push_back(query_matcher(q));
  if (m.has_runtime_fraction()) {
    const auto& f = m.runtime_fraction().default_value();
    out->fraction_numerator = f.numerator();
    out->fraction_denominator = f.denominator() == envoy::type::v3::FractionalPercent::HUNDRED        ? 100
                                : f.denominator() == envoy::type::v3::FractionalPercent::TEN_THOUSAND ? 10'000
                                                                                                      : 1'000'000;
  }
}

route::RetrySpec retry_spec(const rt::RetryPolicy& p) {
  route::RetrySpec out;
  out.retry_on = table::parse_retry_on(p.retry_on()) | table::parse_retry_grpc_on(p.retry_on());
  if (p.has_num_retries()) out.num_retries = p.num_retries().value();
  out.per_try_timeout_ms = ms_or(p.has_per_try_timeout(), p.per_try_timeout(), 0);
  out.per_try_idle_timeout_ms = ms_or(p.has_per_try_idle_timeout(), p.per_try_idle_timeout(), 0);
  if (p.has_retry_back_off()) {
    const auto& b = p.retry_back_off();
    out.base_interval_ms = std::max<uint32_t>(ms_or(true, b.base_interval(), 0), 1);
    out.max_interval_ms = b.has_max_interval()
                              ? ms_or(true, b.max_interval(), 0)
                              : static_cast<uint32_t>(std::min<uint64_t>(uint64_t{10} * out.base_interval_ms, UINT32_MAX));
    out.max_interval_ms = std::max(out.max_interval_ms, out.base_interval_ms);
  }
  if (p.has_rate_limited_retry_back_off()) {
    const auto& b = p.rate_limited_retry_back_off();
    for (const auto& h : b.reset_headers())
      out.reset_headers.emplace_back(h.name(), h.format() == rt::RetryPolicy::UNIX_TIMESTAMP);
    out.reset_max_interval_ms = ms_or(b.has_max_interval(), b.max_interval(), out.reset_max_interval_ms);
  }
  if (p.host_selection_retry_max_attempts() != 0)
    out.host_attempts = static_cast<uint32_t>(std::clamp<int64_t>(p.host_selection_retry_max_attempts(), 0, UINT32_MAX));
  out.previous_hosts = !p.retry_host_predicate().empty();  // the only one that validation lets pass
  out.status_codes.assign(p.retriable_status_codes().begin(), p.retriable_status_codes().end());
  for (const auto& h : p.retriable_headers()) out.response_headers.push_back(header_matcher_spec(h));
  for (const auto& h : p.retriable_request_headers()) out.request_headers.push_back(header_matcher_spec(h));
  return out;
}

route::HashPolicySpec hash_policy_spec(const rt::RouteAction::HashPolicy& p) {
  using Policy = rt::RouteAction::HashPolicy;
  route::HashPolicySpec out;
  out.terminal = p.terminal();
  switch (p.policy_specifier_case()) {
    case Policy::kCookie:
      out.kind = table::HashPolicyKind::kCookie;
      out.name = p.cookie().name();
      out.path = p.cookie().path();
      if (p.cookie().has_ttl()) out.ttl_s = static_cast<uint64_t>(p.cookie().ttl().seconds());
      for (const auto& a : p.cookie().attributes()) out.attributes.emplace_back(a.name(), a.value());
      break;
    case Policy::kConnectionProperties:
      out.kind = table::HashPolicyKind::kSourceIp;
      break;
    case Policy::kQueryParameter:
      out.kind = table::HashPolicyKind::kQueryParameter;
      out.name = p.query_parameter().name();
      break;
    default:
      out.name = p.header().header_name();
  }
  return out;
}

void set_action(const rt::RouteAction& a, route::RouteSpec* out) {
  if (a.has_weighted_clusters()) {
    out->action = table::ActionKind::kWeightedClusters;
    for (const auto& c : a.weighted_clusters().clusters()) out->clusters.push_back({c.name(), c.weight().value(), mutations(c)});
  } else {
    out->clusters.push_back({a.cluster(), 1, {}});
  }
  switch (a.cluster_not_found_response_code()) {
    case rt::RouteAction::NOT_FOUND:
      out->cluster_not_found_status = 404;
      break;
    case rt::RouteAction::INTERNAL_SERVER_ERROR:
      out->cluster_not_found_status = 500;
      break;
    default:
      out->cluster_not_found_status = 503;
  }
  out->prefix_rewrite = a.prefix_rewrite();
  if (a.host_rewrite_specifier_case() == rt::RouteAction::kHostRewriteLiteral) out->host_rewrite = a.host_rewrite_literal();
  out->auto_host_rewrite = a.has_auto_host_rewrite() && a.auto_host_rewrite().value();
  out->append_xfh = a.append_x_forwarded_host();
  out->timeout_ms = ms_or(a.has_timeout(), a.timeout(), out->timeout_ms);
  if (a.has_idle_timeout()) out->idle_timeout_ms = ms_or(true, a.idle_timeout(), 0);
  if (a.max_stream_duration().has_max_stream_duration())
    out->max_stream_duration_ms = ms_or(true, a.max_stream_duration().max_stream_duration(), 0);
  if (a.has_retry_policy()) out->retry = retry_spec(a.retry_policy());
  for (const auto& p : a.hash_policy()) {
    const bool idle = p.has_connection_properties() && !p.connection_properties().source_ip();  // as if it were not there
    if (!idle) out->hash_policies.push_back(hash_policy_spec(p));
  }
  for (const auto& u : a.upgrade_configs()) {
    const auto& c = u.connect_config();
    const bool v2 = c.proxy_protocol_config().version() == envoy::config::core::v3::ProxyProtocolConfig::V2;
    out->upgrades.push_back({u.upgrade_type(), !u.has_enabled() || u.enabled().value(), u.has_connect_config(), c.allow_post(),
                             static_cast<uint8_t>(c.has_proxy_protocol_config() ? 1 + v2 : 0)});
  }
}

void set_redirect(const rt::RedirectAction& a, route::RedirectSpec* out) {
  out->scheme = a.scheme_redirect();
  out->https_redirect = a.https_redirect();
  out->host = a.host_redirect();
  out->path = a.path_redirect();
  out->prefix_rewrite = a.prefix_rewrite();
  out->port = static_cast<uint16_t>(a.port_redirect());
  out->strip_query = a.strip_query();
  constexpr uint16_t kStatus[] = {301, 302, 303, 307, 308};
  const auto code = static_cast<size_t>(a.response_code());
  out->status = code < std::size(kStatus) ? kStatus[code] : 301;
}

}  // namespace

route::MatcherSpec string_matcher_spec(std::string name, const StringMatcher& m) {
  route::MatcherSpec out;
  out.name = std::move(name);
  set_string_match(m, &out);
  return out;
}

route::MatcherSpec header_matcher_spec(const rt::HeaderMatcher& m) {
  route::MatcherSpec out;
  out.name = m.name();
  out.invert = m.invert_match();
  out.treat_missing_as_empty = m.treat_missing_header_as_empty();
  switch (m.header_match_specifier_case()) {
    case rt::HeaderMatcher::kStringMatch:
      set_string_match(m.string_match(), &out);
      break;
    case rt::HeaderMatcher::kExactMatch:
      out.kind = m.exact_match().empty() ? StringMatchKind::kPrefix : StringMatchKind::kExact;
      out.value = m.exact_match();
      break;
    case rt::HeaderMatcher::kPrefixMatch:
      out.kind = StringMatchKind::kPrefix, out.value = m.prefix_match();
      break;
    case rt::HeaderMatcher::kSuffixMatch:
      out.kind = StringMatchKind::kSuffix, out.value = m.suffix_match();
      break;
    case rt::HeaderMatcher::kContainsMatch:
      out.kind = StringMatchKind::kContains, out.value = m.contains_match();
      break;
    case rt::HeaderMatcher::kSafeRegexMatch:
      out.kind = StringMatchKind::kRegex, out.value = m.safe_regex_match().regex();
      break;
    case rt::HeaderMatcher::kRangeMatch:
      out.kind = StringMatchKind::kRange;
      out.range_start = m.range_match().start();
      out.range_end = m.range_match().end();
      break;
    case rt::HeaderMatcher::kPresentMatch:
      out.invert = out.invert != !m.present_match();
      break;
    case rt::HeaderMatcher::HEADER_MATCH_SPECIFIER_NOT_SET:
      break;
  }
  return out;
}

route::HeaderOptionSpec header_option_spec(const HeaderValueOption& o) {
  route::HeaderOptionSpec out{o.header().key(), {}, append_of(o), o.keep_empty_value()};
  auto parts = AccessLogTemplate::parse(o.header().value(), table::FormatWhere::kAnywhere);
  if (!parts.ok()) return out;  // validation has refused it
  if (parts->size() == 1 && parts->front().op == table::FormatOp::kLiteral) out.value = parts->front().text;
  else out.parts = *std::move(parts);
  return out;
}

route::RouteSpec route_spec(const api::Route& r) {
  route::RouteSpec out;
  out.name = r.name();
  set_match(r.match(), &out);
  switch (r.action_case()) {
    case api::Route::kRoute:
      set_action(r.route(), &out);
      break;
    case api::Route::kRedirect:
      out.action = table::ActionKind::kRedirect;
      set_redirect(r.redirect(), &out.redirect);
      break;
    case api::Route::kDirectResponse:
      out.action = table::ActionKind::kDirectResponse;
      out.direct_status = static_cast<uint16_t>(r.direct_response().status());
      if (r.direct_response().has_body())
        if (auto body = read_data_source(r.direct_response().body()); body.ok()) out.direct_body = *std::move(body);
      break;
    case api::Route::ACTION_NOT_SET:
      break;
  }
  if (r.has_per_request_buffer_limit_bytes()) out.retry_buffer_limit = r.per_request_buffer_limit_bytes().value();
  out.headers_mut = mutations(r);
  // Filters see no route in one that answers by itself (Envoy: it has no RouteEntry).
  if (r.has_route()) set_filter_configs({}, r.typed_per_filter_config(), &out);
  return out;
}

route::VirtualHostSpec virtual_host_spec(const api::VirtualHost& host) {
  route::VirtualHostSpec out;
  out.name = host.name();
  out.domains.assign(host.domains().begin(), host.domains().end());
  out.routes.reserve(static_cast<size_t>(host.routes_size()));
  for (const auto& r : host.routes()) {
    route::RouteSpec& spec = out.routes.emplace_back(route_spec(r));
    if (!r.has_route()) continue;
    if (!host.typed_per_filter_config().empty()) {
      spec.cors.clear();
      set_filter_configs(host.typed_per_filter_config(), r.typed_per_filter_config(), &spec);
    }
    // A route's own policy replaces the virtual host's as a whole.
    if (host.has_retry_policy() && !spec.retry.has_value()) spec.retry = retry_spec(host.retry_policy());
    if (host.has_per_request_buffer_limit_bytes() && !r.has_per_request_buffer_limit_bytes())
      spec.retry_buffer_limit = host.per_request_buffer_limit_bytes().value();
    spec.count_in_request = host.include_request_attempt_count();
    spec.count_in_response = host.include_attempt_count_in_response();
    spec.tell_timeout_retry = host.include_is_timeout_retry_header();
  }
  out.require_tls = host.require_tls() == api::VirtualHost::ALL             ? table::RequireTls::kAll
                    : host.require_tls() == api::VirtualHost::EXTERNAL_ONLY ? table::RequireTls::kExternalOnly
                                                                            : table::RequireTls::kNone;
  out.headers_mut = mutations(host);
  return out;
}

route::RouteTableSpec route_table_spec(const std::string& table, const api::RouteConfiguration& config,
                                       const std::vector<std::shared_ptr<const api::VirtualHost>>& hosts) {
  route::RouteTableSpec out;
  out.name = table;
  for (const auto& h : hosts)
    out.virtual_hosts.push_back({route::virtual_host_object_name(table, h->name()), {h->domains().begin(), h->domains().end()}});
  out.ignore_port_in_host_matching = config.ignore_port_in_host_matching();
  out.most_specific_header_mutations_wins = config.most_specific_header_mutations_wins();
  out.headers_mut = mutations(config);
  return out;
}

}  // namespace millrace::control
