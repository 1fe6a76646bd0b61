// The clusters that objects name.
#pragma once

#include <string>
#include <variant>

#include "control/model.h"

namespace millrace::control {

// Calls see(name) for each cluster that a route of the virtual host names; names may come again.
template <class See>
void for_each_cluster(const api::VirtualHost& host, See&& see) {
  for (const api::Route& r : host.routes()) {
    if (!r.has_route()) continue;
    if (r.route().has_cluster()) see(r.route().cluster());
    for (const auto& w : r.route().weighted_clusters().clusters()) see(w.name());
  }
}
// Likewise of a filter chain, but for those of its routes.
template <class See>
void for_each_cluster(const ChainObject& chain, See&& see) {
  const auto* tcp = std::get_if<api::TcpProxy>(&chain.filter);
  if (tcp == nullptr) return;
  if (tcp->has_cluster()) see(tcp->cluster());
  for (const auto& w : tcp->weighted_clusters().clusters()) see(w.name());
}

}  // namespace millrace::control
