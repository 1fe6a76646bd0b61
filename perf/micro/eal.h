// DPDK's memory for benchmarks whose packets must come from the pools of production: rte_mempools with a cache a core.
#pragma once

#include "lib/base/status.h"

namespace millrace::bench {

// Once a process. `core`: where this thread is pinned to; -1: the last one it may use. `hugepages` false: ordinary pages.
base::Status start_eal(int core = -1, bool hugepages = false);

}  // namespace millrace::bench
