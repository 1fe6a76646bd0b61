#include "perf/load/run_result.h"

#include <cstring>
#include <type_traits>

namespace millrace::load {

static_assert(std::is_trivially_copyable_v<Sample>);

void PublishedSample::publish(const Sample& s) {
  uint64_t raw[kWords] = {};
  std::memcpy(raw, &s, sizeof s);
  const uint64_t n = sequence_.load(std::memory_order_relaxed);
  sequence_.store(n + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);  // odd before any word: pairs with the reader's acquire fence
  for (size_t i = 0; i < kWords; ++i) words_[i].store(raw[i], std::memory_order_relaxed);
  sequence_.store(n + 2, std::memory_order_release);  // pairs with the reader's first load
}

Sample PublishedSample::read() const {
  Sample s;
  uint64_t raw[kWords];
  while (true) {
    const uint64_t before = sequence_.load(std::memory_order_acquire);
    for (size_t i = 0; i < kWords; ++i) raw[i] = words_[i].load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((before & 1) == 0 && sequence_.load(std::memory_order_relaxed) == before) break;
  }
  std::memcpy(static_cast<void*>(&s), raw, sizeof s);
  return s;
}

}  // namespace millrace::load
