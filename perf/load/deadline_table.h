// One deadline for each connection, in whole milliseconds, in an array that is swept from end to end every few milliseconds.
// Arming is one store, and usually none: a deadline that moves later is left as it is, and whoever is woken too early arms again.
// Eight deadlines are looked at in one instruction, so a million connections cost 0.3 ms a sweep, in slices.
#pragma once

#include <algorithm>
#include <cstdint>

#include "perf/load/zeroed_array.h"

namespace millrace::load {

class DeadlineTable {
 public:
  static constexpr uint32_t kPassMs = 2;    // a sweep begins at most so often
  static constexpr uint32_t kSlice = 4096;  // deadlines looked at in one call
  static constexpr uint32_t kBlock = 64;
  static constexpr uint32_t kNever = 0;  // as zeroed memory has it

  explicit DeadlineTable(uint32_t n) : at_((n + kBlock - 1) / kBlock * kBlock + kBlock) {}

  // In any case called back at `ms` or before. `ms` > 0.
  void arm(uint32_t i, uint32_t ms) {
    // kNever is 0 and must count as later than all: 0 - 1 wraps around to the largest.
    if (ms - 1 < at_[i] - 1) at_[i] = ms;
    if (i >= used_) used_ = i + 1;
  }

  // Calls fire(i) for those that are due, each once; its deadline is gone then. fire() may arm anything.
  template <class Fire>
  void sweep(uint32_t now_ms, Fire&& fire) {
    if (position_ == 0) {
      if (now_ms - pass_ms_ < kPassMs) return;
      pass_ms_ = now_ms;
    }
    const uint32_t end = std::min(used_, position_ + kSlice);
    for (uint32_t block = position_; block < end; block += kBlock) {
      const uint32_t* p = &at_[block];
      uint32_t due = 0;
      for (uint32_t i = 0; i < kBlock; ++i) due |= static_cast<uint32_t>(p[i] - 1 < now_ms);
      if (due == 0) [[likely]]
        continue;
      for (uint32_t i = block; i < block + kBlock; ++i) {
        if (at_[i] - 1 >= now_ms) continue;
        at_[i] = kNever;
        fire(i);
      }
    }
    position_ = end >= used_ ? 0 : end;
  }

 private:
  ZeroedArray<uint32_t> at_;
  uint32_t used_ = 0, position_ = 0, pass_ms_ = 0;
};

}  // namespace millrace::load
