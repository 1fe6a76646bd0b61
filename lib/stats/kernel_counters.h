// A worker's counters under the names of Linux (kernel_counters.def): for people who read a stack by `nstat`.
#pragma once

#include <cstdint>
#include <span>

#include "lib/stats/region.h"

namespace millrace::stats {

struct KernelCounter {
  const char* name;                           // as nstat prints it: "TcpRetransSegs"
  uint64_t (*of)(const WorkerBlock& worker);  // modulo 2^64, as gauges are: sums over workers are right
  const char* text;                           // one sentence
};
std::span<const KernelCounter> kernel_counters();

}  // namespace millrace::stats
