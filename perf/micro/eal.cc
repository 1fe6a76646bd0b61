#include "perf/micro/eal.h"

#include <sched.h>
#include <string>
#include <vector>

#include <rte_eal.h>
#include <rte_errno.h>

namespace millrace::bench {

base::Status start_eal(int core, bool hugepages) {
  if (core < 0) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    sched_getaffinity(0, sizeof allowed, &allowed);
    for (int c = 0; c < CPU_SETSIZE; ++c)
      if (CPU_ISSET(c, &allowed)) core = c;
  }
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

}  // namespace millrace::bench
