// How a worker behaves whose core is not its own (share_cores: small machines, tests). It knows turns, neither threads nor time.
//
//   idle turn                      let the others run: nothing is lost by it
//   kIdleTurns of them in a row    sleep between turns: ordinary processes, and workers that have work, get the core
//   kBusyTurns with work in a row  let the others run: without it a turn at the core lasts a scheduler's time slice, in which
//                                  the rings of the others overflow
#pragma once

#include <cstdint>

namespace millrace::dataplane {

enum class Pause : uint8_t { kNone, kYield, kNap };

class CoreSharing {
 public:
  static constexpr uint32_t kBusyTurns = 8;
  static constexpr uint32_t kIdleTurns = 64;
  static constexpr long kNapNs = 50'000;  // the kernel makes twice that of it (timer slack)

  // What to do behind a turn that had work, or had none.
  Pause after(bool busy) {
    if (busy) {
      idle_turns_ = 0;
      if (++busy_turns_ < kBusyTurns) return Pause::kNone;
      busy_turns_ = 0;
      return Pause::kYield;
    }
    busy_turns_ = 0;
    if (idle_turns_ >= kIdleTurns) return Pause::kNap;
    ++idle_turns_;
    return Pause::kYield;
  }

 private:
  uint32_t busy_turns_ = 0, idle_turns_ = 0;
};

}  // namespace millrace::dataplane
