// Workers that stand still, in virtual time.
#include "dataplane/watchdog.h"

#include <cstdlib>
#include <cstring>
#include <memory>

#include <gtest/gtest.h>

namespace millrace::dataplane {
namespace {

using base::kMillisecond;
using base::kSecond;

struct Pen {
  Pen() {
    stats::RegionConfig config;
    config.workers = 2;
    config.scopes = 64;
    config.incarnation = 7;
    const size_t bytes = (stats::region_size(config) + 127) / 128 * 128;
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(128, bytes)));
    std::memset(memory.get(), 0, bytes);
    region = std::make_unique<stats::Region>(*stats::Region::create({memory.get(), bytes}, config));
  }
  // Time goes on for `ns`; the workers in `turning` beat every ten milliseconds.
  void run(Watchdog& dog, base::TimeNs ns, std::initializer_list<uint32_t> turning) {
    for (const base::TimeNs end = now + ns; now < end; now += 10 * kMillisecond) {
      for (const uint32_t w : turning) region->worker(w).heartbeat_ns.set(now);
      if (now % Watchdog::kLookEveryNs == 0) dog.look(now);
    }
  }
  uint64_t misses(uint32_t w) const { return region->worker(w).watchdog.misses.read(); }
  uint64_t mega_misses(uint32_t w) const { return region->worker(w).watchdog.mega_misses.read(); }

  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> memory;
  std::unique_ptr<stats::Region> region;
  base::TimeNs now = 100 * kSecond;
};

TEST(Watchdog, WhoTurnsIsNotCounted) {
  Pen p;
  Watchdog dog(*p.region, p.now);
  p.run(dog, 10 * kSecond, {0, 1});
  EXPECT_EQ(p.misses(0) + p.misses(1) + p.mega_misses(0) + p.mega_misses(1), 0u);
  EXPECT_TRUE(dog.all_turn());
}

TEST(Watchdog, AStandstillCountsOnce) {
  Pen p;
  Watchdog dog(*p.region, p.now);
  p.run(dog, kSecond, {0, 1});
  p.run(dog, 500 * kMillisecond, {0});
  EXPECT_EQ(p.misses(1), 1u);
  EXPECT_EQ(p.mega_misses(1), 0u);
  EXPECT_TRUE(dog.all_turn()) << "half a second is not the end";
  p.run(dog, 2 * kSecond, {0});
  EXPECT_EQ(p.misses(1), 1u);
  EXPECT_EQ(p.mega_misses(1), 1u);
  EXPECT_FALSE(dog.all_turn());
  p.run(dog, kSecond, {0, 1});
  EXPECT_TRUE(dog.all_turn());
  p.run(dog, 300 * kMillisecond + 10 * kMillisecond, {0});
  EXPECT_EQ(p.misses(1), 2u);
  EXPECT_EQ(p.misses(0), 0u);
}

TEST(Watchdog, AWorkerThatNeverBeginsIsMissed) {
  Pen p;
  Watchdog dog(*p.region, p.now);
  p.run(dog, 3 * kSecond, {1});
  EXPECT_EQ(p.misses(0), 1u);
  EXPECT_EQ(p.mega_misses(0), 1u);
  EXPECT_FALSE(dog.all_turn());
}

}  // namespace
}  // namespace millrace::dataplane
