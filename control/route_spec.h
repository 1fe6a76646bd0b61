// From Envoy's route messages to lib/route's specs: one place, used for checking and for compiling, so that both see the same
// thing.
#pragma once

#include <string>
#include <vector>

#include "control/model.h"
#include "lib/route/compiler.h"

namespace millrace::control {

route::RouteSpec route_spec(const api::Route& route);
route::VirtualHostSpec virtual_host_spec(const api::VirtualHost& host);
// `table` is the model name of the configuration.
route::RouteTableSpec route_table_spec(const std::string& table, const api::RouteConfiguration& config,
                                       const std::vector<std::shared_ptr<const api::VirtualHost>>& hosts);

// Envoy writes a literal '%' of a header value as "%%"; a single one begins a variable, which validation refuses.
std::string unescape_percent(std::string_view value);
bool has_percent_variable(std::string_view value);

}  // namespace millrace::control
