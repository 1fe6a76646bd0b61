// Routes that no request reaches, because an earlier route of their virtual host takes every request that they match. What is
// said is certain; what is not said may still be so (regular expressions and predicates are compared, not solved). Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "control/model.h"

namespace millrace::control {

struct ShadowedRoute {
  int route = 0;  // index in its virtual host
  int by = 0;     // of the first earlier route that takes everything
};

// Does every request that `b` matches match `a` too? Paths are compared as the data plane does (prefix, separated prefix, exact,
// regular expression, case); of `a`'s other predicates each must be one of `b`'s, or follow from one.
bool takes_all_of(const envoy::config::route::v3::RouteMatch& a, const envoy::config::route::v3::RouteMatch& b);

// All of a virtual host, ordered by `route`. The work grows with the number of routes, not with its square.
std::vector<ShadowedRoute> shadowed_routes(const api::VirtualHost& host);
// What an edit at `index` brings: whether that route is reached, and the later ones that are not because of it.
std::vector<ShadowedRoute> shadowed_at(const api::VirtualHost& host, int index);

// "routes[3] (prefix /api/v1) is never reached: routes[1] (prefix /api) takes every request that it matches"
std::string to_string(const ShadowedRoute& s, const api::VirtualHost& host);
// All of a model that `before` has not (null: all), as warnings.
ConfigErrors shadow_warnings(const Model& model, const Model* before);
// As warnings with the places of the document that `r` came from, of the virtual hosts that `before` has not (null: of all).
ConfigErrors shadow_warnings(const RouteObject& r, const RouteObject* before);

}  // namespace millrace::control
