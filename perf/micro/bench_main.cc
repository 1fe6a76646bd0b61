#include <benchmark/benchmark.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "perf/micro/measured.h"

namespace millrace::bench {
namespace {

constexpr uint64_t kWarmUpItems = 64;

void count(const CountedCase& c, uint64_t items) {
  const std::function<void()> item = c.make();
  for (uint64_t i = 0; i < kWarmUpItems; ++i) item();
  start_counting();
  for (uint64_t i = 0; i < items; ++i) measured(item);
  stop_counting(c.name);
  std::printf("case %s requests %lu\n", c.name.c_str(), items);
}

}  // namespace

int bench_main(int argc, char** argv, std::span<const CountedCase> counted) {
  if (argc == 4 && std::strcmp(argv[1], "--callgrind") == 0) {
    const bool all = std::strcmp(argv[2], "all") == 0;
    bool found = false;
    for (const CountedCase& c : counted) {
      if (!all && c.name != argv[2]) continue;
      count(c, std::strtoull(argv[3], nullptr, 10));
      found = true;
    }
    if (found) return 0;
    std::fprintf(stderr, "%s: no counted case %s; there are:", argv[0], argv[2]);
    for (const CountedCase& c : counted) std::fprintf(stderr, " %s", c.name.c_str());
    std::fputs("\n", stderr);
    return 2;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace millrace::bench
