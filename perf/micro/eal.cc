#include "perf/micro/eal.h"

#include <sched.h>
#include <string>
#include <vector>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>

namespace millrace::bench {

namespace {
std::vector<int> cores;  // allowed at start; DPDK pins the main thread, and threads inherit that
}

base::Status start_eal(int core, bool hugepages) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  for (int c = 0; c < CPU_SETSIZE; ++c)
    if (CPU_ISSET(c, &allowed)) cores.push_back(c);
  if (core < 0) core = cores.back();
  std::vector<std::string> args = {"bench",    "--lcores",    std::to_string(core) + "@" + std::to_string(core),
                                   "--no-pci", "--log-level", "*:error",
                                   "-m",       "384",         "--no-telemetry"};
  args.emplace_back(hugepages ? "--in-memory" : "--no-huge");
  args.emplace_back(hugepages ? "--single-file-segments" : "--no-shconf");
  std::vector<char*> argv;
  for (std::string& a : args) argv.push_back(a.data());
  argv.push_back(nullptr);
  if (rte_eal_init(static_cast<int>(args.size()), argv.data()) < 0)
    return base::Error{std::string("DPDK did not start: ") + rte_strerror(rte_errno)};
  return {};
}

base::Status enter_eal(unsigned index) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cores[index % cores.size()], &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) return base::Error{"a thread cannot be pinned"};
  if (rte_thread_register() != 0) return base::Error{std::string("no DPDK core id for a thread: ") + rte_strerror(rte_errno)};
  return {};
}
void leave_eal() { rte_thread_unregister(); }
unsigned allowed_cores() { return static_cast<unsigned>(cores.size()); }

}  // namespace millrace::bench
