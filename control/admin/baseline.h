// What counters stood at when somebody asked for POST /reset_counters: the pages show what came since. Nothing of the data plane
// is written to, so the counters that millctl and the statistics sinks read go on.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/metrics.h"

namespace millrace::control::admin {

class Baseline {
 public:
  // `incarnation`: of the data plane whose counters these are; those of another have no baseline.
  explicit Baseline(uint64_t incarnation) : incarnation_(incarnation) {}
  uint64_t incarnation() const { return incarnation_; }

  void add(const MetricGroup& group, std::span<const MetricValue> values);
  // The values with their counters from the baseline on, gauges as they are. A group that was not there then is whole.
  std::vector<MetricValue> rest(const MetricGroup& group, std::span<const MetricValue> values) const;

 private:
  const uint64_t incarnation_;
  std::unordered_map<std::string, std::vector<uint64_t>> then_;
};

}  // namespace millrace::control::admin
