// DPDK's memory for benchmarks whose packets must come from the pools of production: rte_mempools with a cache a core.
#pragma once

#include "lib/base/status.h"

namespace millrace::bench {

// Once a process. `core`: where this thread is pinned to; -1: the last one it may use. `hugepages` false: ordinary pages.
base::Status start_eal(int core = -1, bool hugepages = false);

// Another thread of such a process: gets a core id of DPDK for its pools' caches, and is pinned to the index-th core that the
// process may use (modulo their number). It says so when it ends.
base::Status enter_eal(unsigned index);
void leave_eal();
// How many cores the process might use when it started.
unsigned allowed_cores();

}  // namespace millrace::bench
