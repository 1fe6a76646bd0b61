// The monotonic clock read through the TSC: a multiplication instead of a call. Follows CLOCK_MONOTONIC, against which it is set
// once a second: what it is behind or ahead is made up for over the next second, so time neither jumps nor runs backwards. It
// knows no hardware: the caller reads the TSC and the clock (worker.cc), a test passes any.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/base/time.h"

namespace millrace::dataplane {

using base::TimeNs;

class TscClock {
 public:
  static constexpr TimeNs kInterval = base::kSecond;  // between adjust() calls
  // Further off than this (the machine slept) and ahead of us: the clock jumps forward. Behind us: it runs at half speed until
  // they agree.
  static constexpr TimeNs kMaxSlew = kInterval / 100;

  // `hz`: ticks a second, as well as it is known. `now`: the monotonic clock at `tsc`.
  TscClock(uint64_t hz, uint64_t tsc, TimeNs now)
      : base_tsc_(tsc), base_ns_(now), measured_tsc_(tsc), measured_ns_(now), rate_(rate(base::kSecond, hz)), nominal_(rate_) {}

  // The time at `tsc`, which is never before the last adjust()'s.
  TimeNs at(uint64_t tsc) const {
    return base_ns_ + static_cast<TimeNs>(static_cast<unsigned __int128>(tsc - base_tsc_) * rate_ >> 32);
  }
  bool due(TimeNs now) const { return now - base_ns_ >= kInterval; }

  // The monotonic clock says `truth` at `tsc`. Sets the rate such that both meet one interval from here. A reading that cannot be
  // (interrupted between the two, by more than a rate may change) corrects itself at the next.
  void adjust(uint64_t tsc, TimeNs truth) {
    const TimeNs ours = at(tsc);
    if (tsc - measured_tsc_ > 0 && truth > measured_ns_) {
      // How fast the TSC really is; within a part in a thousand of what we were told, or the reading is worth nothing.
      const uint64_t seen = rate(truth - measured_ns_, tsc - measured_tsc_);
      if (seen > nominal_ - nominal_ / 1000 && seen < nominal_ + nominal_ / 1000) true_rate_ = seen;
    }
    measured_tsc_ = tsc;
    measured_ns_ = truth;
    base_tsc_ = tsc;
    base_ns_ = ours;
    const uint64_t steady = true_rate_ != 0 ? true_rate_ : nominal_;
    if (truth >= ours) {
      const TimeNs behind = truth - ours;
      if (behind > kMaxSlew) {
        base_ns_ = truth;
        rate_ = steady;
      } else {
        rate_ = steady + scaled(steady, behind);
      }
    } else {
      rate_ = steady - scaled(steady, std::min(ours - truth, kInterval / 2));
    }
  }

 private:
  // Nanoseconds a tick, 32 bits behind the point.
  static uint64_t rate(TimeNs ns, uint64_t ticks) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(ns) << 32) / ticks);
  }
  static uint64_t scaled(uint64_t rate, TimeNs part) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(rate) * part / kInterval);
  }

  uint64_t base_tsc_;
  TimeNs base_ns_;
  uint64_t measured_tsc_;  // the last reading of both clocks
  TimeNs measured_ns_;
  uint64_t rate_;           // in force
  uint64_t nominal_;        // by the frequency that we were told
  uint64_t true_rate_ = 0;  // as measured; 0: not yet
};

}  // namespace millrace::dataplane
