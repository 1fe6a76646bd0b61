// envoy.config.accesslog.v3.AccessLogFilter as table nodes in prefix order (table::LogFilter): of access logs and of
// local_reply_config.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/api/envoy.config.accesslog.v3.pb.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::control {

// The bit of a short name such as "UH"; 0: no flag of ours.
uint64_t response_flag_bit(std::string_view short_name);
// Nodes that the filter makes.
size_t filter_nodes(const envoy::config::accesslog::v3::AccessLogFilter& filter);
// Of a validated filter.
table::Array<table::LogFilter> compile_filter(const envoy::config::accesslog::v3::AccessLogFilter& filter,
                                              table::ObjectWriter& w);

}  // namespace millrace::control
