// CLOCK_MONOTONIC, which data plane and control share: ages of what the statistics region says.
#pragma once

#include <cstdint>
#include <ctime>

namespace millrace::control {

inline uint64_t monotonic_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace millrace::control
