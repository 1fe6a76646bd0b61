// The CORS filter (envoy.filters.http.cors), as Envoy's CorsFilter: which origins a route allows, preflights answered, and what a
// response says of it. Runs only where a connection manager has the filter.
#include <memory>

#include "dataplane/http_proxy.h"
#include "lib/route/matcher.h"

namespace millrace::dataplane {

using http::HeaderId;
using stats::HcmCounter;

namespace {

constexpr std::string_view kOrigin = "origin", kRequestMethod = "access-control-request-method",
                           kRequestHeaders = "access-control-request-headers",
                           kRequestPrivateNetwork = "access-control-request-private-network";

// All values of a field: Envoy keeps these as one, joined by ','.
std::string_view value_of(const http::HeaderTable& headers, std::string_view name, http::Scratch& scratch) {
  std::string_view all;
  bool found = false;
  for (const http::Header& h : headers) {
    if (h.name != name) continue;
    all = found ? scratch.concat({all, ",", h.value}) : h.value;
    found = true;
  }
  return all;
}

const table::CorsPolicy* policy_of(const table::VirtualHost& host, const table::Route& route, std::string_view filter) {
  for (uint32_t f = 0; f < route.filters.count; ++f) {
    const table::Array<table::CorsPolicy>& policies = route.filters.at(&host, f).cors;
    for (uint32_t i = 0; i < policies.count; ++i)
      if (table::view(&host, policies.at(&host, i).filter) == filter) return &policies.at(&host, i);
  }
  return nullptr;
}

}  // namespace

// Envoy: CorsFilter::decodeHeaders. A fraction is drawn once a request (Envoy draws anew each time it asks, so that with both
// fractions some shadowed requests are enforced). True: it is a preflight, to be answered now.
bool HttpProxy::begin_cors(Exchange& ex, const VirtualHostEntry& entry, const table::Route& route) {
  const bool forwards = route.action == table::ActionKind::kCluster || route.action == table::ActionKind::kWeightedClusters;
  if (route.filters.count == 0 || !forwards) return false;
  const DownstreamSession& d = *ex.downstream;
  const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
  const FilterChainRuntime* chain = compressors_of(d);
  if (chain == nullptr) return false;
  const table::VirtualHost& host = *entry.runtime.object;
  const table::CorsPolicy* policy = policy_of(host, route, table::view(listener->object, chain->chain->hcm.cors));
  if (policy == nullptr) return false;
  const auto draw = [&](uint32_t numerator, uint32_t denominator) {
    return numerator >= denominator || (numerator != 0 && ctx_.random.next() % denominator < numerator);
  };
  const bool enabled = draw(policy->enabled_numerator, policy->enabled_denominator);
  if (!enabled && !draw(policy->shadow_numerator, policy->shadow_denominator)) return false;
  const http::HeaderTable& headers = ex.request.headers;
  const std::string_view origin = value_of(headers, kOrigin, ex.scratch);
  if (origin.empty()) return false;

  bool allowed = policy->any_origin != 0;
  for (uint32_t i = 0; i < policy->origins.count && !allowed; ++i) {
    const table::ValueMatch& m = policy->origins.at(&host, i);
    // An expression that the engine fails at allows nothing.
    if (!route::value_matches(entry.runtime, m, origin, ctx_.match_scratch, &allowed)) allowed = false;
    if (!allowed && m.kind == table::StringMatchKind::kRegex &&
        !route::value_matches(entry.runtime, m, "*", ctx_.match_scratch, &allowed))
      allowed = false;
  }
  ctx_.stats.scope(d.policy->http.stat_slot)[allowed ? HcmCounter::kCorsOriginValid : HcmCounter::kCorsOriginInvalid].add();
  if (!enabled) return false;

  const std::string_view asked = ex.request.method == "OPTIONS" ? value_of(headers, kRequestMethod, ex.scratch) : "";
  const bool preflight = !asked.empty() && (allowed || policy->forward_not_matching_preflights == 0);
  if (!allowed && !preflight) return false;
  ExchangeFilters* filters = filters_of(ex);
  auto* cors = filters == nullptr ? nullptr : allocate_array<Cors>(ex.scratch, 1);
  if (cors == nullptr) return false;  // the scratch has overflowed: 431
  filters->cors = std::construct_at(cors);
  if (allowed) cors->origin = origin;
  cors->allow_credentials = policy->allow_credentials != 0;
  const auto copy = [&](const table::Str& s) { return ex.scratch.copy(table::view(&host, s)); };
  cors->expose_headers = copy(policy->expose_headers);
  if (!preflight) return false;
  cors->preflight = true;
  cors->says_methods = policy->allow_methods.count != 0;
  cors->says_headers = policy->allow_headers.count != 0;
  cors->methods = table::view(&host, policy->allow_methods) == "*" ? asked : copy(policy->allow_methods);
  cors->headers = table::view(&host, policy->allow_headers) == "*" ? value_of(headers, kRequestHeaders, ex.scratch)
                                                                   : copy(policy->allow_headers);
  cors->max_age = copy(policy->max_age);
  cors->allow_private_network =
      policy->allow_private_network_access != 0 && value_of(headers, kRequestPrivateNetwork, ex.scratch) == "true";
  return true;
}

// Envoy: CorsFilter::encodeHeaders, of a preflight behind what decodeHeaders has put in. False: no room.
bool HttpProxy::put_cors(const Cors& cors, http::HeaderTable& headers) {
  constexpr std::string_view kAllowOrigin = "access-control-allow-origin", kTrue = "true";
  bool room = true;
  const auto set = [&](bool said, std::string_view name, std::string_view value) {
    if (said) room = room && headers.set(name, value);
  };
  const bool allowed = !cors.origin.empty();
  set(allowed, kAllowOrigin, cors.origin);
  set(cors.allow_credentials && (allowed || cors.preflight), "access-control-allow-credentials", kTrue);
  if (cors.preflight) {
    set(cors.says_methods, "access-control-allow-methods", cors.methods);
    set(cors.says_headers, "access-control-allow-headers", cors.headers);
    set(!cors.max_age.empty(), "access-control-max-age", cors.max_age);
    set(cors.allow_private_network, "access-control-allow-private-network", kTrue);
  }
  set(allowed && !cors.expose_headers.empty(), "access-control-expose-headers", cors.expose_headers);
  return room;
}

void HttpProxy::answer_preflight(Exchange& ex, const VirtualHostEntry& entry, const table::Route& route, uint64_t random) {
  const table::VirtualHost& host = *entry.runtime.object;
  ex.detail_text = "cors_response";
  if (ex.downstream->policy->http.log_names) {
    ex.route.route_name = ex.scratch.copy(table::view(&host, route.name));
    const table::WeightedCluster& c = route.clusters.at(&host, route::pick_cluster(host, route, random));
    if (ctx_.tables->cluster(c.cluster) != nullptr) ex.route.cluster_name = ex.scratch.copy(table::view(&host, c.name));
  }
  reply_with(ex, 200, {}, http::ResponseDetail::kNone, false);
}

}  // namespace millrace::dataplane
