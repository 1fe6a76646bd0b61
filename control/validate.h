// Is one object, taken alone, something that Envoy would accept and Millrace can do? Rules are Envoy's own (the validate.rules of its
// published API and the checks of its config code) plus ours where we do less. References between objects are the model's business
// (model_check.h). Every complaint goes to the sink with its path; the return value says only whether there was none.
#pragma once

#include <string>

#include "control/model.h"
#include "control/source_map.h"

namespace millrace::control {

bool validate_listener(const api::Listener& listener, ErrorSink& errors);
bool validate_route_configuration(const api::RouteConfiguration& config, ErrorSink& errors);
bool validate_cluster(const api::Cluster& cluster, ErrorSink& errors);
bool validate_load_assignment(const api::ClusterLoadAssignment& assignment, ErrorSink& errors);
bool validate_secret(const api::Secret& secret, ErrorSink& errors);

// Parts, for edits of a single virtual host, route or endpoint: `at` is where it stands in its object.
bool validate_virtual_host(const api::VirtualHost& host, const Path& at, ErrorSink& errors);
bool validate_route(const api::Route& route, const Path& at, ErrorSink& errors);

}  // namespace millrace::control
