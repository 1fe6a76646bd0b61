// Cluster.outlier_detection (envoy.config.cluster.v3.OutlierDetection), with Envoy's defaults.
#pragma once

#include <cstdint>

namespace millrace::table {

// What finds an outlier; the order of the counters' names (stats/counters.def) is this one.
enum class OutlierDetector : uint8_t {
  kConsecutive5xx,
  kConsecutiveGatewayFailure,
  kSuccessRate,
  kConsecutiveLocalOriginFailure,
  kLocalOriginSuccessRate,
  kFailurePercentage,
  kFailurePercentageLocalOrigin,
};
inline constexpr uint32_t kOutlierDetectors = 7;

struct OutlierDetection {
  uint32_t interval_ms = 10'000;
  uint32_t base_ejection_ms = 30'000, max_ejection_ms = 300'000, max_ejection_jitter_ms = 0;
  uint32_t consecutive_5xx = 5, consecutive_gateway_failure = 5, consecutive_local_origin_failure = 5;  // 0: never
  uint32_t success_rate_minimum_hosts = 5, success_rate_request_volume = 100;
  uint32_t success_rate_stdev_factor = 1900;  // thousandths
  uint32_t failure_percentage_minimum_hosts = 5, failure_percentage_request_volume = 50;
  uint8_t enforcing[kOutlierDetectors] = {100, 0, 100, 100, 100, 0, 0};  // percent of the ejections that happen, by detector
  uint8_t failure_percentage_threshold = 85;
  uint8_t max_ejection_percent = 10;
  uint8_t always_eject_one_host = 0;
  uint8_t split_external_local_origin_errors = 0;
  uint8_t present = 0;  // the cluster has outlier_detection
  uint8_t reserved[4] = {};
};
static_assert(sizeof(OutlierDetection) == 64);

}  // namespace millrace::table
