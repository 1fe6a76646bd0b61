// sim_tcp: the simulator of TCBs.
//   sim_tcp                          200 seeds from a fresh starting point, which is printed
//   sim_tcp --seed N                 one seed, with its scenario
//   sim_tcp --from N --count K       K seeds from N on
//           --coverage               what they have seen; --need-coverage: fails when something is missing
//   sim_tcp --mutants                every Mutant must be found by the oracle
//   sim_tcp --golden FILE            measures the throughput table and compares it with FILE (15% tolerance)
//   sim_tcp --golden FILE --update   writes it
#include <cstdio>
#include <cstring>

#include "tests/sim/golden.h"
#include "tests/sim/runner.h"
#include "tests/sim/simulation.h"

using namespace millrace;
using namespace millrace::sim;

namespace {

constexpr uint64_t kMutantSeeds = 500;  // a mutant that survives so many has not been found

RunResult run(const Scenario& scenario, Mutant mutant = Mutant::kNone) {
  static support::HeapPacketPool client(4'096, 9'216), server(4'096, 9'216);
  RunResult r;
  {
    Simulation simulation(scenario, {&client, &server}, mutant);
    r.failure = simulation.run();
    if (!r.failure.empty()) r.trace = simulation.trace();
    r.packets = simulation.packets();
    r.hash = simulation.hash();
    r.coverage = simulation.coverage();
  }
  if (r.failure.empty() && (!client.balanced() || !server.balanced())) r.failure = "packets not returned after the end";
  return r;
}

int mutants() {
  int survived = 0;
  for (auto m = 1; m < static_cast<int>(Mutant::kCount); ++m) {
    const Mutant mutant = static_cast<Mutant>(m);
    uint64_t seed = 1;
    RunResult r;
    for (; seed <= kMutantSeeds; ++seed)
      if (r = run(random_scenario(seed), mutant); !r.failure.empty()) break;
    if (r.failure.empty()) ++survived;
    std::printf("%-16s %s\n", to_string(mutant),
                r.failure.empty() ? "SURVIVED" : ("found with seed " + std::to_string(seed) + ", " + r.failure).c_str());
  }
  std::printf("%d mutants, %d survived\n", static_cast<int>(Mutant::kCount) - 1, survived);
  return survived == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  RunOptions options{.program = "tcp"};
  fresh_start(options);
  const char* golden_path = nullptr;
  bool update = false;
  for (int i = 1; i < argc; ++i) {
    if (parse_option(options, argc, argv, i)) continue;
    if (std::strcmp(argv[i], "--mutants") == 0) return mutants();
    if (std::strcmp(argv[i], "--golden") == 0 && i + 1 < argc) {
      golden_path = argv[++i];
    } else if (std::strcmp(argv[i], "--update") == 0) {
      update = true;
    } else {
      std::fprintf(stderr, "sim_tcp: unknown argument %s\n", argv[i]);
      return 2;
    }
  }
  if (golden_path != nullptr) return golden(golden_path, update);
  return run_seeds(options, [](const Scenario& s) { return run(s); });
}
