// What a bootstrap says about management servers: Bootstrap.node and Bootstrap.dynamic_resources, read and checked.
#pragma once

#include <optional>

#include "lib/api/envoy.config.core.v3.pb.h"

namespace millrace::control {

struct XdsConfig {
  envoy::config::core::v3::Node node;
  // Not set: not dynamic. Of `ads` kind only when there is `ads`, or files, or with servers of their own.
  std::optional<envoy::config::core::v3::ConfigSource> lds, cds;
  std::optional<envoy::config::core::v3::ApiConfigSource> ads;

  bool dynamic() const { return lds.has_value() || cds.has_value() || ads.has_value(); }
};

// The file of a source that is one: path_config_source or the older `path`; "" when it is none.
inline const std::string& path_of(const envoy::config::core::v3::ConfigSource& source) {
  return source.has_path_config_source() ? source.path_config_source().path() : source.path();
}

}  // namespace millrace::control
