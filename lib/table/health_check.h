// Cluster.health_checks (envoy.config.core.v3.HealthCheck), with Envoy's defaults. What is sent is made when it is compiled: a
// poll core only writes it.
#pragma once

#include <cstdint>

#include "lib/table/layout.h"

namespace millrace::table {

enum class HealthCheckKind : uint8_t { kNone, kTcp, kHttp, kGrpc };

struct HealthPayload {  // bytes that the answer must hold, each behind the one before it
  Blob bytes;
  template <class V>
  void refs(V& v) const {
    v(bytes);
  }
};
struct StatusRange {  // Int64Range: [from, to)
  uint16_t from = 0, to = 0;
};
inline constexpr uint32_t kMostHealthPayload = 4096;  // bytes of one to be received

struct HealthCheck {
  uint32_t timeout_ms = 1000, interval_ms = 1000;
  uint32_t initial_jitter_ms = 0, interval_jitter_ms = 0, interval_jitter_percent = 0;
  uint32_t no_traffic_interval_ms = 60'000, no_traffic_healthy_interval_ms = 60'000;  // while the cluster never had a connection
  uint32_t unhealthy_interval_ms = 1000, unhealthy_edge_interval_ms = 1000, healthy_edge_interval_ms = 1000;
  uint32_t unhealthy_threshold = 1, healthy_threshold = 1;
  uint32_t receive_limit = 1024;  // HttpHealthCheck.response_buffer_size; 0: all of the body
  HealthCheckKind kind = HealthCheckKind::kNone;
  uint8_t reuse_connection = 1;
  uint8_t head_method = 0;  // the method is HEAD: the answer has no body
  uint8_t http2 = 0;        // HTTP and gRPC: spoken over HTTP/2; the request is written as HTTP/1.1 has it all the same
  Str host;                 // HTTP: of endpoints that name none of their own
  Blob front;               // HTTP: the request as far as the host; TCP: all that is sent
  Blob back;                // HTTP: the request behind the host
  Array<HealthPayload> receive;
  Array<StatusRange> expected, retriable;  // HTTP; no expected ones: 200 alone
  template <class V>
  void refs(V& v) const {
    v(host);
    v(front);
    v(back);
    v(receive);
    v(expected);
    v(retriable);
  }
};

}  // namespace millrace::table
