// envoy.config.accesslog.v3.AccessLogFilter on a poll core: which records an access log wants, and which of the gateway's own
// answers local_reply_config changes. Filters lie in the table as nodes in prefix order (table::LogFilter).
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/http/message.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

// What filters look at.
struct LogFacts {
  uint16_t status = 0;       // 0: no response
  uint64_t duration_ms = 0;  // so far
  uint64_t flags = 0;        // stats::ResponseFlags::bits
  uint32_t grpc_status = 2;  // as Envoy's filter: of trailers or headers, else what the HTTP status means
  table::LogType type = table::LogType::kDownstreamEnd;
  const http::RequestHead* request = nullptr;  // null: of a connection, which has none
  std::string_view request_id;
  uint64_t random = 0;
};

// `object`: that the filter lies in. No filter holds always.
bool filter_holds(const void* object, const table::Array<table::LogFilter>& filter, const LogFacts& facts);

// Bit i: the i-th log wants it; logs from the 32nd on have all bits of the last.
uint32_t wanted_logs(const void* object, const table::Array<table::AccessLog>& logs, const LogFacts& facts);

}  // namespace millrace::dataplane
