// Reading Envoy's value messages: durations as milliseconds, wrappers with their default, data sources.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/wrappers.pb.h>

#include "lib/api/envoy.config.core.v3.pb.h"
#include "lib/base/status.h"

namespace millrace::control {

// Fractions of a millisecond are cut off, as in Envoy. Validated durations fit.
inline constexpr int64_t kMaxDurationMs = UINT32_MAX - 1;
inline int64_t to_ms(const google::protobuf::Duration& d) { return d.seconds() * 1000 + d.nanos() / 1'000'000; }
inline uint32_t ms_or(bool has, const google::protobuf::Duration& d, uint32_t fallback) {
  if (!has) return fallback;
  const int64_t ms = to_ms(d);
  return ms < 0 ? 0 : ms > kMaxDurationMs ? static_cast<uint32_t>(kMaxDurationMs) : static_cast<uint32_t>(ms);
}

// A data source's bytes; a file is read now, relative names from the working directory, as Envoy does. Error: "cannot read FILE:
// reason".
base::Result<std::string> read_data_source(const envoy::config::core::v3::DataSource& source);
inline constexpr size_t kMaxDataSourceBytes = 16 << 20;

}  // namespace millrace::control
