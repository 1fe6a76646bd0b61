// sim_stack: the simulator of whole hosts.
//   sim_stack                          200 seeds from a fresh starting point, which is printed
//   sim_stack --seed N                 one seed, with its scenario
//   sim_stack --from N --count K       K seeds from N on
#include <cstdio>

#include "tests/sim/runner.h"
#include "tests/sim/stack_simulation.h"

using namespace millrace;
using namespace millrace::sim;

namespace {

RunResult run(const Scenario& scenario) {
  static HostPools client, server;
  RunResult r;
  {
    StackSimulation simulation(scenario, {&client, &server});
    r.failure = simulation.run();
    if (!r.failure.empty()) r.trace = simulation.trace();
    r.packets = simulation.coverage().packets;
    r.hash = simulation.hash();
    r.coverage = simulation.coverage();
  }
  if (r.failure.empty() && (!client.balanced() || !server.balanced())) r.failure = "packets not returned after the end";
  return r;
}

}  // namespace

int main(int argc, char** argv) {
  RunOptions options{.program = "stack", .stack = true};
  fresh_start(options);
  for (int i = 1; i < argc; ++i) {
    if (parse_option(options, argc, argv, i)) continue;
    std::fprintf(stderr, "sim_stack: unknown argument %s\n", argv[i]);
    return 2;
  }
  return run_seeds(options, run);
}
