// Is one object, taken alone, something that Envoy would accept and Millrace can do? Rules are Envoy's own (the validate.rules of
// its published API and the checks of its configuration code) plus ours where we do less. References between objects are the
// model's business. Every complaint goes to the sink with its path; the return value says only whether there was none. Files that
// the object names (certificates, bodies, log formats) are read.
//
// Where we are stricter than Envoy, on purpose: names of virtual hosts are unique in a route configuration, names of filter
// chains in a listener, endpoints in a cluster (they are what `millctl` edits by name); header names are RFC 9110 tokens; ports
// are not 0; compressors have levels that a poll core can bear.
#pragma once

#include <optional>
#include <string>

#include "control/admin_config.h"
#include "control/model.h"
#include "control/source_map.h"
#include "control/stats_sinks_config.h"
#include "control/xds_config.h"
#include "lib/api/envoy.config.bootstrap.v3.pb.h"
#include "lib/api/envoy.config.metrics.v3.pb.h"

namespace millrace::control {

bool validate_listener(const api::Listener& listener, ErrorSink& errors);
// `at`: where the configuration stands in its object (the object itself, or an HCM's route_config).
bool validate_route_configuration(const api::RouteConfiguration& config, const Path& at, ErrorSink& errors);
bool validate_cluster(const api::Cluster& cluster, ErrorSink& errors);
// `at`: the object itself, or a cluster's load_assignment. `names`: addresses may be host names (STRICT_DNS, LOGICAL_DNS).
bool validate_load_assignment(const api::ClusterLoadAssignment& assignment, const Path& at, ErrorSink& errors, bool names);
// What the cluster's type asks of its endpoints: no host names in STATIC, exactly one endpoint in LOGICAL_DNS.
bool validate_discovery(const api::Cluster& cluster, const api::ClusterLoadAssignment& assignment, const Path& at,
                        ErrorSink& errors);
bool validate_secret(const api::Secret& secret, ErrorSink& errors);
// One of Bootstrap.stats_sinks; nullopt after a complaint. That its cluster exists is looked at when everything is loaded.
std::optional<StatsSinkConfig> read_stats_sink(const envoy::config::metrics::v3::StatsSink& sink, ErrorSink& errors);
// Bootstrap.admin; nullopt after a complaint.
std::optional<AdminConfig> read_admin(const envoy::config::bootstrap::v3::Admin& admin, ErrorSink& errors);
// Bootstrap.dynamic_resources; false after a complaint. That clusters of servers exist is looked at when everything is loaded.
bool read_dynamic_resources(const envoy::config::bootstrap::v3::Bootstrap::DynamicResources& resources, ErrorSink& errors,
                            XdsConfig* out);

// Parts, for edits of a single virtual host or route. `max_body`: max_direct_response_body() of the route configuration.
uint32_t max_direct_response_body(const api::RouteConfiguration& config);
bool validate_virtual_host(const api::VirtualHost& host, uint32_t max_body, const Path& at, ErrorSink& errors);
// What virtual hosts of one route configuration must not have in common: names and domains. "" or what they have.
std::string common_names(const std::vector<std::shared_ptr<const api::VirtualHost>>& hosts);
bool validate_route(const api::Route& route, uint32_t max_body, const Path& at, ErrorSink& errors);

}  // namespace millrace::control
