#include "perf/micro/measured.h"

#include <benchmark/benchmark.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define MILLRACE_HAS_CALLGRIND 1
#endif

extern "C" [[gnu::noinline]] void millrace_measured_turn(void (*work)(void*), void* argument) {
  work(argument);
  asm volatile("");  // no tail call: the profiler looks for this function's return
}

namespace millrace::bench {

void start_counting() {
#ifdef MILLRACE_HAS_CALLGRIND
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;  // or what the last dump held would be subtracted from the next one
#endif
}

void stop_counting(const std::string& label) {
#ifdef MILLRACE_HAS_CALLGRIND
  CALLGRIND_DUMP_STATS_AT(label.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
#else
  static_cast<void>(label);
#endif
}

namespace {

constexpr uint64_t kWarmUpItems = 64;

int count(const CountedCase& c, uint64_t items) {
  const std::function<void()> item = c.make();
  for (uint64_t i = 0; i < kWarmUpItems; ++i) item();
  start_counting();
  for (uint64_t i = 0; i < items; ++i) measured(item);
  stop_counting(c.name);
  std::printf("case %s requests %lu\n", c.name.c_str(), items);
  return 0;
}

}  // namespace

int bench_main(int argc, char** argv, std::span<const CountedCase> counted) {
  if (argc == 4 && std::strcmp(argv[1], "--callgrind") == 0) {
    for (const CountedCase& c : counted)
      if (c.name == argv[2]) return count(c, std::strtoull(argv[3], nullptr, 10));
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
