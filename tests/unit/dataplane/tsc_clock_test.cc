// The worker's clock against a monotonic clock of our own: it keeps up, never runs backwards, and survives what machines do.
#include "dataplane/tsc_clock.h"

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::dataplane {
namespace {

using base::kMicrosecond;
using base::kMillisecond;
using base::kSecond;

// A TSC of `hz` and the monotonic clock beside it.
struct Machine {
  double hz;
  double ns = 1e12;
  double tsc = 7e15;
  void pass(double nanoseconds) {
    ns += nanoseconds;
    tsc += nanoseconds * hz / 1e9;
  }
  uint64_t ticks() const { return static_cast<uint64_t>(tsc); }
  TimeNs now() const { return static_cast<TimeNs>(ns); }
};

int64_t error_ns(const TscClock& c, const Machine& m) { return static_cast<int64_t>(c.at(m.ticks()) - m.now()); }

TEST(TscClock, FollowsAFrequencyThatWasToldWrong) {
  for (const double told_off : {0.0, 3e-4, -3e-4, 5e-6, -9e-4}) {
    Machine m{2.6e9};
    TscClock c(static_cast<uint64_t>(2.6e9 * (1 + told_off)), m.ticks(), m.now());
    TimeNs last = 0;
    for (int ms = 0; ms < 20'000; ++ms) {
      m.pass(1e6);
      const TimeNs now = c.at(m.ticks());
      ASSERT_GE(now, last);
      last = now;
      if (c.due(now)) {
        c.adjust(m.ticks(), m.now());
        ASSERT_EQ(c.at(m.ticks()), now) << "no jump when it is set";
      }
      // In the first second as far off as the frequency; after two readings within a microsecond.
      ASSERT_LE(std::abs(error_ns(c, m)), ms < 3'000 ? 1'000'000 : 1'000) << told_off << " at " << ms << " ms";
    }
  }
}

TEST(TscClock, ReadingsWithNoiseStayClose) {
  base::Prng r(3);
  Machine m{3.1e9};
  TscClock c(3'100'050'000, m.ticks(), m.now());
  TimeNs last = 0;
  for (int k = 0; k < 200'000; ++k) {
    m.pass(static_cast<double>(r.below(200'000)));
    const TimeNs now = c.at(m.ticks());
    ASSERT_GE(now, last);
    last = now;
    // Interrupted between the two readings: the clock is read up to 50 us later than the TSC.
    if (c.due(now)) c.adjust(m.ticks(), m.now() + r.below(50 * kMicrosecond));
    ASSERT_LE(std::abs(error_ns(c, m)), k < 50'000 ? 2'000'000 : 200'000);
  }
}

TEST(TscClock, JumpsForwardAfterASleepAndSlowsDownWhenAhead) {
  Machine m{2e9};
  TscClock c(2'000'000'000, m.ticks(), m.now());
  m.ns += 5e9;  // the TSC stood still
  m.pass(1e9);
  c.adjust(m.ticks(), m.now());
  EXPECT_EQ(error_ns(c, m), 0);
  m.ns -= 300e6;  // as if the TSC had run on without us
  TimeNs last = c.at(m.ticks());
  for (int ms = 0; ms < 4'000; ++ms) {
    m.pass(1e6);
    const TimeNs now = c.at(m.ticks());
    ASSERT_GE(now, last);
    last = now;
    if (c.due(now)) c.adjust(m.ticks(), m.now());
  }
  EXPECT_LE(std::abs(error_ns(c, m)), 1'000);
}

}  // namespace
}  // namespace millrace::dataplane
