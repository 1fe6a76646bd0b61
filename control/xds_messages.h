// The messages of the discovery service to what XdsEngine speaks, and back. Pure.
#pragma once

#include "control/xds_engine.h"
#include "lib/api/envoy.service.discovery.v3.pb.h"

namespace millrace::control {

// `node`: goes into requests that ask for it.
envoy::service::discovery::v3::DiscoveryRequest to_sotw(const XdsRequest& request, const envoy::config::core::v3::Node& node);
envoy::service::discovery::v3::DeltaDiscoveryRequest to_delta(const XdsRequest& request,
                                                              const envoy::config::core::v3::Node& node);
// Resources of another type than the response's, or whose name cannot be read, come out as bad. In state of the world a resource
// may lie in a Resource.
XdsResponse from_sotw(const envoy::service::discovery::v3::DiscoveryResponse& response);
XdsResponse from_delta(const envoy::service::discovery::v3::DeltaDiscoveryResponse& response);

}  // namespace millrace::control
