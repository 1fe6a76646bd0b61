#include "perf/load/pattern.h"

#include "lib/base/prng.h"

namespace millrace::load {

const uint8_t* pattern() {
  static const uint8_t* const bytes = [] {
    alignas(64) static uint8_t p[kPatternPeriod + kPatternRun];
    base::Prng random(0x6d696c6c72616365);
    // Printable, so that a capture can be read.
    for (uint32_t i = 0; i < kPatternPeriod; ++i)
      p[i] = static_cast<uint8_t>("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[random.below(64)]);
    for (uint32_t i = kPatternPeriod; i < sizeof p; ++i) p[i] = p[i - kPatternPeriod];
    return p;
  }();
  return bytes;
}

}  // namespace millrace::load
