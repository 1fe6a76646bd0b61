// Clusters, their endpoints, and secrets.
#include <map>

#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/socket_options.h"
#include "control/upstream_http.h"
#include "control/validate.h"
#include "control/validate_rules.h"
#include "control/validate_tls.h"
#include "lib/base/ip_address.h"

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

}  // namespace

bool validate_load_assignment(const api::ClusterLoadAssignment& a, const Path& at, ErrorSink& e) {
  if (!known_fields_only(a, at, e)) return false;
  bool ok = not_empty(a.cluster_name(), Path(at, "cluster_name"), e);
  std::map<std::pair<base::IpAddress, uint32_t>, std::string> seen;
  uint64_t weights = 0;
  for (int l = 0; l < a.endpoints_size(); ++l) {
    const Path locality(at, "endpoints", l);
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
      if (!address(p.endpoint().has_address(), p.endpoint().address(), addr, e)) {
        ok = false;
        continue;
      }
      const core::SocketAddress& s = p.endpoint().address().socket_address();
      const auto [first, fresh] = seen.emplace(std::pair{*base::IpAddress::parse(s.address()), s.port_value()}, here.to_string());
      if (!fresh)
        ok = complain(addr, e,
                      s.address() + ":" + std::to_string(s.port_value()) + " is " + first->second +
                          " already (use load_balancing_weight for a larger share)");
    }
  }
  if (weights > UINT32_MAX)
    ok = complain(Path(at, "endpoints"), e, "the weights sum up to " + std::to_string(weights) + ", more than 4294967295");
  return ok;
}

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
  ok = circuit_breakers(c.circuit_breakers(), Path(root, "circuit_breakers"), e) && ok;
  ok = validate_upstream_http(c, root, e) && ok;
  if (c.has_transport_socket()) ok = validate_transport_socket(c.transport_socket(), Path(root, "transport_socket"), e) && ok;
  table::TcpOptions tcp;
  ok = cluster_tcp_options(c, root, tcp, &e) && ok;
  if (c.has_load_assignment()) ok = validate_load_assignment(c.load_assignment(), Path(root, "load_assignment"), e) && ok;
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
