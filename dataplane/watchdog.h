// Whether workers' loops turn, looked at from outside: each writes heartbeat_ns every ten milliseconds
// (Worker::publish_gauges()). Used by the main thread, a few times a second; workers know nothing of it.
#pragma once

#include <vector>

#include "lib/base/time.h"
#include "lib/stats/region.h"

namespace millrace::dataplane {

class Watchdog {
 public:
  static constexpr base::TimeNs kMissNs = 200 * base::kMillisecond;  // Envoy's defaults of Watchdog.miss_timeout
  static constexpr base::TimeNs kMegaMissNs = base::kSecond;         // and megamiss_timeout
  static constexpr base::TimeNs kLookEveryNs = 100 * base::kMillisecond;

  // `now` as the heartbeats: CLOCK_MONOTONIC. A worker that has not begun yet is measured from here.
  Watchdog(const stats::Region& region, base::TimeNs now) : region_(region), dogs_(region.workers(), Dog{now, false, false}) {}

  // Counts, once for each time a loop stands still (WorkerBlock::watchdog).
  void look(base::TimeNs now) {
    for (uint32_t w = 0; w < dogs_.size(); ++w) {
      stats::WorkerBlock& block = region_.worker(w);
      Dog& dog = dogs_[w];
      if (const base::TimeNs beat = block.heartbeat_ns.read(); beat > dog.last) dog = {beat, false, false};
      const base::TimeNs age = now > dog.last ? now - dog.last : 0;
      if (age > kMissNs && !dog.missed) block.watchdog.misses.add();
      if (age > kMegaMissNs && !dog.mega_missed) block.watchdog.mega_misses.add();
      dog.missed |= age > kMissNs;
      dog.mega_missed |= age > kMegaMissNs;
    }
  }
  // Of the last look(): every worker's loop turned within the last second.
  bool all_turn() const {
    for (const Dog& d : dogs_)
      if (d.mega_missed) return false;
    return true;
  }

 private:
  struct Dog {
    base::TimeNs last;  // heartbeat seen last
    bool missed, mega_missed;
  };
  const stats::Region& region_;
  std::vector<Dog> dogs_;
};

}  // namespace millrace::dataplane
