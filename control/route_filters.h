// What routes and virtual hosts say to HTTP filters (typed_per_filter_config).
#pragma once

#include <string>

#include "control/model.h"
#include "control/source_map.h"
#include "lib/api/envoy.config.route.v3.pb.h"
#include "lib/route/compiler.h"

namespace millrace::control {

using FilterConfigs = google::protobuf::Map<std::string, google::protobuf::Any>;

// `at`: the route or virtual host whose typed_per_filter_config it is.
bool validate_filter_configs(const FilterConfigs& configs, const Path& at, ErrorSink& e);

// Resolves them for one route, filter by filter, as Envoy does: FilterConfig.disabled counts where it is said nearest to the
// route, and each field of a policy is taken from the nearest policy that says it.
void set_filter_configs(const FilterConfigs& host, const FilterConfigs& route, route::RouteSpec* out);

}  // namespace millrace::control
