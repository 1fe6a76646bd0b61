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

// What is to be compared with a StringMatcher, by the name it is known under.
route::MatcherSpec string_matcher_spec(std::string name, const envoy::type::matcher::v3::StringMatcher& matcher);
route::MatcherSpec header_matcher_spec(const envoy::config::route::v3::HeaderMatcher& matcher);
// A header to add; its value compiled where it has %COMMANDS% ("%%" is a percent sign).
route::HeaderOptionSpec header_option_spec(const envoy::config::core::v3::HeaderValueOption& option);

}  // namespace millrace::control
