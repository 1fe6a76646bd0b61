#include "control/config_kind.h"

#include <array>

#include "lib/api/envoy.config.cluster.v3.pb.h"
#include "lib/api/envoy.config.endpoint.v3.pb.h"
#include "lib/api/envoy.config.listener.v3.pb.h"
#include "lib/api/envoy.config.route.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.tls.v3.pb.h"
#include "lib/api/millrace.manifest.v1.pb.h"

namespace millrace::control {

namespace {
constexpr std::array<std::string_view, kConfigKinds> kNames = {"secret", "endpoint", "cluster", "route", "listener", "manifest"};
}

std::string_view to_string(ConfigKind kind) { return kNames[static_cast<size_t>(kind)]; }

std::optional<ConfigKind> parse_config_kind(std::string_view word) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (word == kNames[i] || (word.ends_with('s') && word.substr(0, word.size() - 1) == kNames[i]))
      return static_cast<ConfigKind>(i);
  return std::nullopt;
}

const google::protobuf::Descriptor* descriptor_of(ConfigKind kind) {
  switch (kind) {
    case ConfigKind::kSecret:
      return envoy::extensions::transport_sockets::tls::v3::Secret::descriptor();
    case ConfigKind::kEndpoints:
      return envoy::config::endpoint::v3::ClusterLoadAssignment::descriptor();
    case ConfigKind::kCluster:
      return envoy::config::cluster::v3::Cluster::descriptor();
    case ConfigKind::kRoute:
      return envoy::config::route::v3::RouteConfiguration::descriptor();
    case ConfigKind::kListener:
      return envoy::config::listener::v3::Listener::descriptor();
    case ConfigKind::kManifest:
      return millrace::manifest::v1::Manifest::descriptor();
  }
  return nullptr;
}

std::optional<ConfigKind> kind_of(const google::protobuf::Descriptor* descriptor) {
  for (int i = 0; i < kConfigKinds; ++i)
    if (descriptor_of(static_cast<ConfigKind>(i)) == descriptor) return static_cast<ConfigKind>(i);
  return std::nullopt;
}

}  // namespace millrace::control
