#include "control/route_filters.h"

#include <optional>
#include <set>
#include <vector>

#include "control/route_spec.h"
#include "control/validate_rules.h"
#include "lib/api/envoy.extensions.filters.http.cors.v3.pb.h"

namespace millrace::control {

namespace {

using namespace rules;
using envoy::config::core::v3::RuntimeFractionalPercent;
using envoy::config::route::v3::FilterConfig;
using envoy::extensions::filters::http::cors::v3::CorsPolicy;
using envoy::type::v3::FractionalPercent;

constexpr std::string_view kField = "typed_per_filter_config", kCorsName = "envoy.filters.http.cors";

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool fraction(const RuntimeFractionalPercent& f, const Path& at, ErrorSink& e) {
  return f.has_default_value() || complain(Path(at, "default_value"), e, "is required");
}

bool cors_policy(const CorsPolicy& p, const Path& at, ErrorSink& e) {
  if (!known_fields_only(p, at, e)) return false;
  bool ok = true;
  for (int i = 0; i < p.allow_origin_string_match_size(); ++i)
    ok = string_matcher(p.allow_origin_string_match(i), Path(at, "allow_origin_string_match", i), e) && ok;
  ok = header_value(p.allow_methods(), Path(at, "allow_methods"), e) && ok;
  ok = header_value(p.allow_headers(), Path(at, "allow_headers"), e) && ok;
  ok = header_value(p.expose_headers(), Path(at, "expose_headers"), e) && ok;
  ok = header_value(p.max_age(), Path(at, "max_age"), e) && ok;
  if (p.has_filter_enabled()) ok = fraction(p.filter_enabled(), Path(at, "filter_enabled"), e) && ok;
  if (p.has_shadow_enabled()) ok = fraction(p.shadow_enabled(), Path(at, "shadow_enabled"), e) && ok;
  return ok;
}

// What one level says to one filter.
struct Said {
  std::optional<CorsPolicy> cors;
  bool disabled = false;
};
std::optional<Said> said_by(const FilterConfigs& configs, const std::string& name) {
  const auto at = configs.find(name);
  if (at == configs.end()) return std::nullopt;
  Said out;
  FilterConfig wrapped;
  const bool wraps = at->second.UnpackTo(&wrapped);
  out.disabled = wraps && wrapped.disabled();
  CorsPolicy cors;
  if ((wraps ? wrapped.config() : at->second).UnpackTo(&cors)) out.cors = std::move(cors);
  return out;
}

uint32_t denominator(const FractionalPercent& f) {
  return f.denominator() == FractionalPercent::HUNDRED        ? 100
         : f.denominator() == FractionalPercent::TEN_THOUSAND ? 10'000
                                                              : 1'000'000;
}

// `policies`: the nearest first, at least one.
route::CorsSpec merged(const std::string& name, const std::vector<CorsPolicy>& policies, bool first_is_of_host) {
  route::CorsSpec out;
  out.filter = name;
  const auto text = [&](auto get) {
    for (const CorsPolicy& p : policies)
      if (!get(p).empty()) return get(p);
    return std::string();
  };
  const auto flag = [&](auto has, auto get, bool otherwise) {
    for (const CorsPolicy& p : policies)
      if (has(p)) return get(p).value();
    return otherwise;
  };
  for (size_t i = 0; i < policies.size() && out.origins.empty(); ++i) {
    out.origins_of_host = first_is_of_host || i > 0;
    for (const auto& m : policies[i].allow_origin_string_match()) out.origins.push_back(string_matcher_spec("origin", m));
  }
  out.allow_methods = text([](const CorsPolicy& p) { return p.allow_methods(); });
  out.allow_headers = text([](const CorsPolicy& p) { return p.allow_headers(); });
  out.expose_headers = text([](const CorsPolicy& p) { return p.expose_headers(); });
  out.max_age = text([](const CorsPolicy& p) { return p.max_age(); });
  out.allow_credentials = flag([](const CorsPolicy& p) { return p.has_allow_credentials(); },
                               [](const CorsPolicy& p) { return p.allow_credentials(); }, false);
  out.allow_private_network_access = flag([](const CorsPolicy& p) { return p.has_allow_private_network_access(); },
                                          [](const CorsPolicy& p) { return p.allow_private_network_access(); }, false);
  out.forward_not_matching_preflights = flag([](const CorsPolicy& p) { return p.has_forward_not_matching_preflights(); },
                                             [](const CorsPolicy& p) { return p.forward_not_matching_preflights(); }, true);
  const CorsPolicy& nearest = policies.front();  // alone says whether the filter is on
  if (nearest.has_filter_enabled()) {
    out.enabled_numerator = nearest.filter_enabled().default_value().numerator();
    out.enabled_denominator = denominator(nearest.filter_enabled().default_value());
  }
  if (nearest.has_shadow_enabled()) {
    out.shadow_numerator = nearest.shadow_enabled().default_value().numerator();
    out.shadow_denominator = denominator(nearest.shadow_enabled().default_value());
  }
  return out;
}

}  // namespace

bool validate_filter_configs(const FilterConfigs& configs, const Path& at, ErrorSink& e) {
  bool ok = true;
  for (const auto& [name, any] : configs) {
    const Path here(at, kField, std::string_view(name));
    CorsPolicy cors;
    FilterConfig wrapped;
    if (name.empty()) {
      ok = complain(here, e, "needs the name of a filter");
    } else if (any.UnpackTo(&cors)) {
      ok = cors_policy(cors, here, e) && ok;
    } else if (!any.UnpackTo(&wrapped)) {
      ok = complain(here, e, "only CorsPolicy, and FilterConfig with one, are supported here by Millrace yet");
    } else if (const Path config(here, "config"); !known_fields_only(wrapped, here, e)) {
      ok = false;
    } else if (wrapped.has_config()) {
      ok = wrapped.config().UnpackTo(&cors) ? cors_policy(cors, config, e) && ok
                                            : complain(config, e, "only CorsPolicy is supported here by Millrace yet");
    } else if (!wrapped.disabled()) {
      ok = complain(config, e, "is required unless the filter is disabled");
    } else if (name != kCorsName) {
      ok = complain(Path(here, "disabled"), e,
                    "without a config is supported only of " + std::string(kCorsName) + " by Millrace yet");
    }
  }
  return ok;
}

void set_filter_configs(const FilterConfigs& host, const FilterConfigs& route, route::RouteSpec* out) {
  std::set<std::string> names;
  for (const auto& [name, any] : host) names.insert(name);
  for (const auto& [name, any] : route) names.insert(name);
  for (const std::string& name : names) {
    const auto near = said_by(route, name), far = said_by(host, name);
    if (near.has_value() ? near->disabled : far->disabled) continue;
    std::vector<CorsPolicy> policies;
    if (near.has_value() && near->cors.has_value()) policies.push_back(*near->cors);
    const bool of_host = policies.empty();
    if (far.has_value() && far->cors.has_value()) policies.push_back(*far->cors);
    if (!policies.empty()) out->cors.push_back(merged(name, policies, of_host));
  }
}

}  // namespace millrace::control
