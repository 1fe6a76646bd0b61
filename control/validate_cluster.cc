// Clusters, their endpoints, and secrets.
#include <map>

#include "control/dns_names.h"
#include "control/health_checks.h"
#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/socket_options.h"
#include "control/upstream_http.h"
#include "control/validate.h"
#include "control/validate_rules.h"
#include "control/validate_tls.h"
#include "lib/base/ip_address.h"
#include "lib/table/objects.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace core = envoy::config::core::v3;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool circuit_breakers(const envoy::config::cluster::v3::CircuitBreakers& c, const Path& at, ErrorSink& e) {
  for (int i = 0; i < c.thresholds_size(); ++i) {
    const double percent = c.thresholds(i).retry_budget().budget_percent().value();
    if (!(percent >= 0 && percent <= 100))
      return complain(Path(Path(Path(Path(at, "thresholds", i), "retry_budget"), "budget_percent"), "value"), e,
                      "must be from 0 to 100");
  }
  if (c.thresholds_size() <= 1) return true;  // we know one priority
  return complain(Path(at, "thresholds", 1), e, "a second set of thresholds for priority DEFAULT");
}

// validate.rules of OutlierDetection.
bool outlier_detection(const envoy::config::cluster::v3::OutlierDetection& o, const Path& at, ErrorSink& e) {
  bool ok = true;
  const auto percent = [&](const google::protobuf::UInt32Value& v, std::string_view field) {
    if (v.value() > 100) ok = complain(Path(at, field), e, "must be at most 100");
  };
  percent(o.max_ejection_percent(), "max_ejection_percent");
  percent(o.enforcing_consecutive_5xx(), "enforcing_consecutive_5xx");
  percent(o.enforcing_success_rate(), "enforcing_success_rate");
  percent(o.enforcing_consecutive_gateway_failure(), "enforcing_consecutive_gateway_failure");
  percent(o.enforcing_consecutive_local_origin_failure(), "enforcing_consecutive_local_origin_failure");
  percent(o.enforcing_local_origin_success_rate(), "enforcing_local_origin_success_rate");
  percent(o.failure_percentage_threshold(), "failure_percentage_threshold");
  percent(o.enforcing_failure_percentage(), "enforcing_failure_percentage");
  percent(o.enforcing_failure_percentage_local_origin(), "enforcing_failure_percentage_local_origin");
  if (o.has_interval()) ok = duration(o.interval(), Path(at, "interval"), e, 1) && ok;
  if (o.has_base_ejection_time()) ok = duration(o.base_ejection_time(), Path(at, "base_ejection_time"), e, 1) && ok;
  if (o.has_max_ejection_time()) ok = duration(o.max_ejection_time(), Path(at, "max_ejection_time"), e, 1) && ok;
  if (o.has_max_ejection_time_jitter())
    ok = duration(o.max_ejection_time_jitter(), Path(at, "max_ejection_time_jitter"), e) && ok;
  return ok;
}

bool is_prime(uint64_t n) {
  if (n < 2) return false;
  for (uint64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

// validate.rules of CommonLbConfig, RingHashLbConfig and MaglevLbConfig, and what their balancers throw.
bool balancing(const api::Cluster& c, const Path& root, ErrorSink& e) {
  const Path ring(root, "ring_hash_lb_config"), maglev(root, "maglev_lb_config"), common(root, "common_lb_config"),
      panic(common, "healthy_panic_threshold"), hashing(common, "consistent_hashing_lb_config");
  bool ok = true;
  if (c.has_ring_hash_lb_config()) {
    const auto& r = c.ring_hash_lb_config();
    const uint64_t most = r.has_maximum_ring_size() ? r.maximum_ring_size().value() : table::kMostRingSize;
    const uint64_t least = r.has_minimum_ring_size() ? r.minimum_ring_size().value() : table::Cluster{}.ring_min;
    const std::string limit = "must be at most " + std::to_string(table::kMostRingSize);
    if (most > table::kMostRingSize) ok = complain(Path(ring, "maximum_ring_size"), e, limit);
    if (least > table::kMostRingSize) ok = complain(Path(ring, "minimum_ring_size"), e, limit);
    if (most == 0) ok = complain(Path(ring, "maximum_ring_size"), e, "must be at least 1");
    if (r.has_minimum_ring_size() && least == 0) ok = complain(Path(ring, "minimum_ring_size"), e, "must be at least 1");
    if (ok && least > most)
      ok = complain(Path(ring, "minimum_ring_size"), e,
                    std::to_string(least) + " is above maximum_ring_size, " + std::to_string(most));
  }
  if (c.maglev_lb_config().has_table_size()) {
    const uint64_t size = c.maglev_lb_config().table_size().value();
    if (size > table::kMostMaglevTable || !is_prime(size) || size == 2)
      ok = complain(Path(maglev, "table_size"), e,
                    "must be a prime from 3 to " + std::to_string(table::kMostMaglevTable) + ", not " + std::to_string(size));
  }
  const double percent = c.common_lb_config().healthy_panic_threshold().value();
  if (!(percent >= 0 && percent <= 100)) ok = complain(Path(panic, "value"), e, "must be from 0 to 100");
  const auto& h = c.common_lb_config().consistent_hashing_lb_config();
  if (h.use_hostname_for_hashing() && c.type() != api::Cluster::STRICT_DNS)
    ok = complain(Path(hashing, "use_hostname_for_hashing"), e, "may be set only for a cluster of type STRICT_DNS");
  if (h.has_hash_balance_factor())
    ok = at_least(h.hash_balance_factor().value(), 100, Path(hashing, "hash_balance_factor"), e) && ok;
  return ok;
}

}  // namespace

bool validate_discovery(const api::Cluster& c, const api::ClusterLoadAssignment& a, const Path& at, ErrorSink& e) {
  const bool names = is_dns(c);
  bool ok = true;
  int count = 0;
  for (int l = 0; l < a.endpoints_size(); ++l)
    for (int i = 0; i < a.endpoints(l).lb_endpoints_size(); ++i, ++count) {
      const std::string& address = a.endpoints(l).lb_endpoints(i).endpoint().address().socket_address().address();
      if (names || base::IpAddress::parse(address)) continue;
      const Path locality(at, "endpoints", l), endpoint(locality, "lb_endpoints", i), inner(endpoint, "endpoint"),
          where(inner, "address"), socket(where, "socket_address");
      ok = complain(Path(socket, "address"), e,
                    "\"" + address +
                        "\" is a host name; those are resolved in clusters of type STRICT_DNS and LOGICAL_DNS only, and '" +
                        c.name() + "' is STATIC");
    }
  if (c.type() == api::Cluster::LOGICAL_DNS && count != 1)
    ok = complain(Path(at, "endpoints"), e,
                  "a LOGICAL_DNS cluster has exactly one endpoint, not " + std::to_string(count) + "; STRICT_DNS takes several");
  return ok;
}

bool validate_load_assignment(const api::ClusterLoadAssignment& a, const Path& at, ErrorSink& e, bool names) {
  if (!known_fields_only(a, at, e)) return false;
  bool ok = not_empty(a.cluster_name(), Path(at, "cluster_name"), e);
  std::map<std::pair<std::string, uint32_t>, std::string> seen;
  uint64_t weights = 0, locality_weights = 0;
  const Path policy(at, "policy");
  if (a.policy().has_overprovisioning_factor())
    ok = at_least(a.policy().overprovisioning_factor().value(), 1, Path(policy, "overprovisioning_factor"), e) && ok;
  for (int l = 0; l < a.endpoints_size(); ++l) {
    const Path locality(at, "endpoints", l);
    if (a.endpoints(l).priority() > table::kMostPriority)
      ok = complain(Path(locality, "priority"), e, "must be at most " + std::to_string(table::kMostPriority));
    if (a.endpoints(l).has_load_balancing_weight())
      ok = at_least(a.endpoints(l).load_balancing_weight().value(), 1, Path(locality, "load_balancing_weight"), e) && ok;
    locality_weights += a.endpoints(l).load_balancing_weight().value();
    for (int i = 0; i < a.endpoints(l).lb_endpoints_size(); ++i) {
      const api::LbEndpoint& p = a.endpoints(l).lb_endpoints(i);
      const Path here(locality, "lb_endpoints", i), endpoint(here, "endpoint"), addr(endpoint, "address");
      if (!p.has_endpoint()) {
        ok = complain(endpoint, e, "is required");
        continue;
      }
      if (p.has_load_balancing_weight())
        ok = at_least(p.load_balancing_weight().value(), 1, Path(here, "load_balancing_weight"), e) && ok;
      weights += p.has_load_balancing_weight() ? p.load_balancing_weight().value() : 1;
      ok = header_value(p.endpoint().hostname(), Path(endpoint, "hostname"), e) && ok;
      ok = validate_health_check_config(p.endpoint().health_check_config(), Path(endpoint, "health_check_config"), e) && ok;
      if (!address(p.endpoint().has_address(), p.endpoint().address(), addr, e, false, names)) {
        ok = false;
        continue;
      }
      const core::SocketAddress& s = p.endpoint().address().socket_address();
      // By its canonical form: two ways to write an IPv6 address are one.
      const auto ip = base::IpAddress::parse(s.address());
      const auto [first, fresh] = seen.emplace(std::pair{ip ? ip->to_string() : s.address(), s.port_value()}, here.to_string());
      if (!fresh)
        ok = complain(addr, e,
                      s.address() + ":" + std::to_string(s.port_value()) + " is " + first->second +
                          " already (use load_balancing_weight for a larger share)");
    }
  }
  if (weights > UINT32_MAX)
    ok = complain(Path(at, "endpoints"), e, "the weights sum up to " + std::to_string(weights) + ", more than 4294967295");
  if (locality_weights > UINT32_MAX)
    ok = complain(Path(at, "endpoints"), e,
                  "the weights of localities sum up to " + std::to_string(locality_weights) + ", more than 4294967295");
  return ok;
}

namespace {

bool resolvers(const google::protobuf::RepeatedPtrField<core::Address>& list, const Path& at, std::string_view field,
               ErrorSink& e) {
  bool ok = true;
  for (int i = 0; i < list.size(); ++i) ok = address(true, list[i], Path(at, field, i), e, true) && ok;
  return ok;
}

bool interval(bool has, const google::protobuf::Duration& d, const Path& at, ErrorSink& e) {
  return !has || duration(d, at, e, 1);
}

// Whatever the type: Envoy checks them too, and they mean something as soon as the type does.
bool dns(const api::Cluster& c, const Path& root, ErrorSink& e) {
  const Path failure(root, "dns_failure_refresh_rate"), base(failure, "base_interval"), most(failure, "max_interval"),
      older(root, "dns_resolution_config"), extension(root, "typed_dns_resolver_config"), config(extension, "typed_config");
  bool ok = interval(c.has_dns_refresh_rate(), c.dns_refresh_rate(), Path(root, "dns_refresh_rate"), e);
  if (c.has_dns_failure_refresh_rate()) {
    const auto& r = c.dns_failure_refresh_rate();
    if (!r.has_base_interval()) ok = complain(base, e, "is required");
    ok = interval(r.has_base_interval(), r.base_interval(), base, e) &&
         interval(r.has_max_interval(), r.max_interval(), most, e) && ok;
    if (r.has_base_interval() && r.has_max_interval() && to_ms(r.max_interval()) < to_ms(r.base_interval()))
      ok = complain(most, e, "must not be less than base_interval");
  }
  ok = resolvers(c.dns_resolvers(), root, "dns_resolvers", e) && ok;
  ok = resolvers(c.dns_resolution_config().resolvers(), older, "resolvers", e) && ok;
  if (c.has_dns_resolution_config() && c.dns_resolution_config().resolvers().empty())
    ok = complain(Path(older, "resolvers"), e, "must not be empty");
  if (!c.has_typed_dns_resolver_config()) return ok;
  DnsResolverConfig r;
  if (!c.typed_dns_resolver_config().has_typed_config()) return complain(config, e, "is required");
  if (!c.typed_dns_resolver_config().typed_config().UnpackTo(&r)) return complain(config, e, "must be a CaresDnsResolverConfig");
  if (!known_fields_only(r, config, e)) return false;
  ok = resolvers(r.resolvers(), config, "resolvers", e) && ok;
  constexpr uint64_t kMostSeconds = 3600, kMostTries = 100;
  const Path timeout(config, "query_timeout_seconds"), tries(config, "query_tries");
  if (r.has_query_timeout_seconds() &&
      (r.query_timeout_seconds().value() < 1 || r.query_timeout_seconds().value() > kMostSeconds))
    ok = complain(timeout, e, "must be from 1 to " + std::to_string(kMostSeconds));
  if (r.has_query_tries() && (r.query_tries().value() < 1 || r.query_tries().value() > kMostTries))
    ok = complain(tries, e, "must be from 1 to " + std::to_string(kMostTries));
  return ok;
}

}  // namespace

bool validate_cluster(const api::Cluster& c, ErrorSink& e) {
  const Path root;
  if (!known_fields_only(c, root, e)) return false;
  bool ok = not_empty(c.name(), Path(root, "name"), e);
  if (c.has_connect_timeout()) ok = duration(c.connect_timeout(), Path(root, "connect_timeout"), e, 1) && ok;
  if (c.has_per_connection_buffer_limit_bytes())
    ok = at_least(c.per_connection_buffer_limit_bytes().value(), 1, Path(root, "per_connection_buffer_limit_bytes"), e) && ok;
  const Path lr(root, "least_request_lb_config");
  if (c.has_least_request_lb_config() && c.least_request_lb_config().has_choice_count())
    ok = at_least(c.least_request_lb_config().choice_count().value(), 2, Path(lr, "choice_count"), e) && ok;
  ok = balancing(c, root, e) && ok;
  ok = circuit_breakers(c.circuit_breakers(), Path(root, "circuit_breakers"), e) && ok;
  if (c.has_outlier_detection()) ok = outlier_detection(c.outlier_detection(), Path(root, "outlier_detection"), e) && ok;
  ok = validate_health_checks(c, root, e) && ok;
  ok = validate_upstream_http(c, root, e) && ok;
  if (c.has_transport_socket()) ok = validate_transport_socket(c.transport_socket(), Path(root, "transport_socket"), e) && ok;
  table::TcpOptions tcp;
  ok = cluster_tcp_options(c, root, tcp, &e) && ok;
  ok = dns(c, root, e) && ok;
  const Path eds(root, "eds_cluster_config");
  if (c.type() == api::Cluster::EDS) {
    ok = resource_source(c.eds_cluster_config().has_eds_config(), c.eds_cluster_config().eds_config(), Path(eds, "eds_config"),
                         e) &&
         ok;
    if (c.has_load_assignment())
      ok = complain(Path(root, "load_assignment"), e, "is not for clusters of type EDS: their endpoints come from eds_config");
  } else if (c.has_eds_cluster_config()) {
    ok = complain(eds, e, "is for clusters of type EDS");
  }
  if (c.has_load_assignment()) {
    const Path endpoints(root, "load_assignment");
    ok = validate_load_assignment(c.load_assignment(), endpoints, e, true) &&
         validate_discovery(c, c.load_assignment(), endpoints, e) && ok;
  }
  return ok;
}

bool validate_secret(const api::Secret& s, ErrorSink& e) {
  const Path root, cert(root, "tls_certificate"), context(root, "validation_context"), keys(root, "session_ticket_keys");
  if (!known_fields_only(s, root, e)) return false;
  const bool ok = not_empty(s.name(), Path(root, "name"), e);
  switch (s.type_case()) {
    case api::Secret::kTlsCertificate:
      return certificate(s.tls_certificate(), cert, e) && ok;
    case api::Secret::kValidationContext:
      return validation_context(s.validation_context(), false, context, e) && ok;
    case api::Secret::kSessionTicketKeys:
      return ticket_keys(s.session_ticket_keys(), keys, e) && ok;
    case api::Secret::TYPE_NOT_SET:
      break;
  }
  return complain(cert, e, "is required (or validation_context, or session_ticket_keys)");
}

}  // namespace millrace::control
