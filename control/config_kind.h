// The kinds of configuration object that control keeps, that millctl names, and that (later) travel over xDS.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace google::protobuf {
class Descriptor;
}

namespace millrace::control {

// In make-before-break order: an object refers only to kinds before it.
// Manifests refer to nothing here: other objects are made of them (control/manifests/README.md).
enum class ConfigKind : uint8_t { kSecret, kEndpoints, kCluster, kRoute, kListener, kManifest };
inline constexpr int kConfigKinds = 6;

// What a person writes: "secret", "endpoint", "cluster", "route", "listener", "manifest".
std::string_view to_string(ConfigKind kind);
// Singular or plural ("listener", "listeners", ...); nullopt when it is none of them.
std::optional<ConfigKind> parse_config_kind(std::string_view word);
// envoy.config.listener.v3.Listener, ... : the message of a kind.
const google::protobuf::Descriptor* descriptor_of(ConfigKind kind);
// The kind of a message type, if it is a top-level resource.
std::optional<ConfigKind> kind_of(const google::protobuf::Descriptor* descriptor);

struct ConfigKey {
  ConfigKind kind;
  std::string name;
  friend auto operator<=>(const ConfigKey&, const ConfigKey&) = default;
};

}  // namespace millrace::control
