#include "perf/micro/measured.h"

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

}  // namespace millrace::bench
