// What a bootstrap says about management servers: Bootstrap.node and Bootstrap.dynamic_resources, read and checked.
#pragma once

#include <optional>
#include <string>

#include "lib/api/envoy.config.core.v3.pb.h"

namespace millrace::control {

struct XdsConfig {
  envoy::config::core::v3::Node node;
  // Not set: not dynamic. Of `ads` kind only when there is `ads`; or files.
  std::optional<envoy::config::core::v3::ConfigSource> lds, cds;
  std::optional<envoy::config::core::v3::ApiConfigSource> ads;

  bool dynamic() const { return lds.has_value() || cds.has_value() || ads.has_value(); }
};

// A file that resources are asked of (ConfigSource.path_config_source). It is read again when it is replaced or written; with a
// watched directory, when something is moved into that one.
struct ResourceFile {
  std::string path;               // "": no file
  std::string watched_directory;  // "": that of the file
  bool there() const { return !path.empty(); }
  friend auto operator<=>(const ResourceFile&, const ResourceFile&) = default;
};

// The file of a source that is one: path_config_source or the older `path`; "" when it is none.
inline const std::string& path_of(const envoy::config::core::v3::ConfigSource& source) {
  return source.has_path_config_source() ? source.path_config_source().path() : source.path();
}
inline ResourceFile file_of(const envoy::config::core::v3::ConfigSource& source) {
  return {path_of(source), source.path_config_source().watched_directory().path()};
}

}  // namespace millrace::control
