// What the programs of the simulators have in common: seeds from the command line, progress, the search for a smaller scenario
// that still fails, equal runs of equal seeds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tests/sim/scenario.h"
#include "tests/sim/simulation.h"

namespace millrace::sim {

struct RunResult {
  std::string failure;  // empty: all was right
  std::string trace;    // of a failure
  uint64_t packets = 0, hash = 0;
  Coverage coverage;
};
using Run = std::function<RunResult(const Scenario&)>;

struct RunOptions {
  const char* program = "";  // as the line that repeats a seed names it
  bool stack = false;        // which scenarios
  uint64_t from = 0, count = 200;
  bool one = false;            // --seed: say what the scenario is
  bool reduce = true;          // make a failing scenario smaller
  bool need_coverage = false;  // fail when something has never happened
  bool show_coverage = false;
};

// Takes the options that are for the runner out of argv; false: `argv[i]` was not one. A fresh starting point unless told.
bool parse_option(RunOptions& options, int argc, char** argv, int& i);
void fresh_start(RunOptions& options);

// Runs the seeds; every kHashEvery-th twice, which must be the same run. Returns the program's exit code.
inline constexpr uint64_t kHashEvery = 16;
int run_seeds(const RunOptions& options, const Run& run);

}  // namespace millrace::sim
