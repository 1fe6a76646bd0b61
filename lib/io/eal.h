// DPDK's environment for one data plane process: one primary, nothing shared with other processes, no files left behind.
// Called by the main thread at start and end only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/status.h"

namespace millrace::io {

struct EalOptions {
  std::vector<uint32_t> worker_cores;  // one worker lcore on each
  uint32_t main_core = 0;              // where the main thread and the threads it makes run
  bool share_cores = false;            // a core may be named more than once, by workers and the main thread
  bool hugepages = true;               // false: ordinary pages (slow; for tests)
  uint32_t memory_mb = 512;
  std::string file_prefix = "millrace";
  std::vector<std::string> devices;  // as of open_port(): says which PCI devices may be touched
};

// Initialises EAL. Each failure is one sentence: a core that is not there or not allowed, too few hugepages (and how many it
// takes), no privileges. At most once per process. SIGPIPE is ignored from here on.
base::Status init_eal(const EalOptions& options);
// Ends EAL: after every port is closed and every pool is freed.
void cleanup_eal();

// Ticks of the TSC a second, as EAL determined it; after init_eal().
uint64_t tsc_hz();

// The lcore id on which worker `index` runs (index of worker_cores): what rte_eal_remote_launch takes.
unsigned worker_lcore(const EalOptions& options, uint32_t index);
// Runs `function(argument)` on the lcore of worker `index`; wait_worker() waits for its end and returns what it returned.
base::Status launch_worker(const EalOptions& options, uint32_t index, int (*function)(void*), void* argument);
int wait_worker(const EalOptions& options, uint32_t index);

}  // namespace millrace::io
