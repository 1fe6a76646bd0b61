#include "tests/sim/runner.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

namespace millrace::sim {
namespace {

constexpr std::chrono::seconds kReduceTime{20};

// What went wrong without where, when and how many.
std::string kind(const std::string& failure) {
  std::string text;
  for (const char c : failure.substr(failure.find(": ") == std::string::npos ? 0 : failure.find(": ")))
    if (c < '0' || c > '9') text += c;
  return text;
}

void report(const RunOptions& o, const Scenario& scenario, const RunResult& r, const Run& run) {
  std::printf("%sseed %lu FAILED %s\n%s", r.trace.c_str(), scenario.seed, r.failure.c_str(), describe(scenario).c_str());
  if (o.reduce) {
    const auto end = std::chrono::steady_clock::now() + kReduceTime;
    const std::string what = kind(r.failure);
    const Scenario small = reduce(
        scenario, [&](const Scenario& s) { return std::chrono::steady_clock::now() < end && kind(run(s).failure) == what; });
    std::printf("still fails with no more than this: %s\n%s", run(small).failure.c_str(), describe(small).c_str());
  }
  std::printf("repeat: scripts/dev sim %lu %s\n", scenario.seed, o.program);
}

}  // namespace

void fresh_start(RunOptions& o) {
  o.from = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1'000'000'000;
}

bool parse_option(RunOptions& o, int argc, char** argv, int& i) {
  const char* name = argv[i];
  const auto number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
  if (std::strcmp(name, "--seed") == 0) o.from = number(), o.count = 1, o.one = true;
  else if (std::strcmp(name, "--from") == 0) o.from = number();
  else if (std::strcmp(name, "--count") == 0) o.count = number();
  else if (std::strcmp(name, "--no-reduce") == 0) o.reduce = false;
  else if (std::strcmp(name, "--coverage") == 0) o.show_coverage = true;
  else if (std::strcmp(name, "--need-coverage") == 0) o.need_coverage = true;
  else return false;
  return true;
}

int run_seeds(const RunOptions& o, const Run& run) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  std::printf("seeds %lu to %lu\n", o.from, o.from + o.count - 1);
  std::fflush(stdout);
  Coverage coverage;
  uint64_t packets = 0;
  for (uint64_t i = 0; i < o.count; ++i) {
    const uint64_t seed = o.from + i;
    const Scenario scenario = random_scenario(seed, o.stack);
    if (o.one) std::printf("%s", describe(scenario).c_str());
    const RunResult r = run(scenario);
    coverage.add(r.coverage);
    packets += r.packets;
    if (!r.failure.empty()) {
      report(o, scenario, r, run);
      return 1;
    }
    if (o.one || seed % kHashEvery == 0) {
      const RunResult again = run(scenario);
      if (again.hash != r.hash) {
        std::printf("seed %lu FAILED: two runs of it differ (%016lx, %016lx)\nrepeat: scripts/dev sim %lu %s\n", seed, r.hash,
                    again.hash, seed, o.program);
        return 1;
      }
    }
    if (o.one) std::printf("seed %lu: right, %lu packets, trace %016lx\n", seed, r.packets, r.hash);
    if (i % 512 == 511 && (terminal || i % 16384 == 16383)) {
      std::printf(terminal ? "\r%lu of %lu seeds, %lu packets" : "%lu of %lu seeds, %lu packets\n", i + 1, o.count, packets);
      std::fflush(stdout);
    }
  }
  std::printf("%s%lu seeds, %lu packets, all right\n", terminal && o.count > 512 ? "\r" : "", o.count, packets);
  if (o.show_coverage) std::printf("%s", coverage.report().c_str());
  if (o.need_coverage && !coverage.missing().empty()) {
    std::printf("FAILED: these seeds have never seen\n%s", coverage.missing().c_str());
    return 1;
  }
  return 0;
}

}  // namespace millrace::sim
