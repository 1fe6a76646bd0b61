// Bootstrap.stats_sinks and stats_flush_interval, read and checked.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/ip_address.h"

namespace millrace::control {

struct StatsSinkConfig {
  enum class Kind : uint8_t { kStatsd, kDogStatsd };
  Kind kind = Kind::kStatsd;
  std::string name;         // of the extension, for messages
  base::IpAddress address;  // UDP, where `cluster` is empty
  uint16_t port = 0;
  std::string cluster;  // TCP, to the first of its endpoints that answers
  std::string prefix = "envoy";
  size_t datagram_bytes = 0;  // most that one datagram holds; 0: one metric a datagram

  friend bool operator==(const StatsSinkConfig&, const StatsSinkConfig&) = default;
};
struct StatsSinksConfig {
  std::vector<StatsSinkConfig> sinks;
  std::chrono::milliseconds flush_interval{5000};

  friend bool operator==(const StatsSinksConfig&, const StatsSinksConfig&) = default;
};

}  // namespace millrace::control
