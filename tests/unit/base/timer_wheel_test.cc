#include "lib/base/timer_wheel.h"

#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::base {
namespace {

constexpr uint32_t kPlenty = 1'000'000;
constexpr TimeNs kMinute = 60 * kSecond, kHour = 60 * kMinute, kDay = 24 * kHour;

struct Timer {
  int id = 0;
  TimerNode node;
};

std::vector<int> advance(TimerWheel& wheel, TimeNs now, uint32_t max_fired = kPlenty) {
  std::vector<int> fired;
  wheel.advance(now, max_fired, [&](TimerNode& n) { fired.push_back(member_owner<&Timer::node>(n).id); });
  return fired;
}

using Ids = std::vector<int>;

// One timer alone, whatever its distance and the phase of the wheel: not a millisecond early, not one late.
TEST(TimerWheel, FiresAtItsMillisecond) {
  const TimeNs starts[] = {0, 1, 63 * kMillisecond, 999'999, 511 * kMillisecond + 5, 4 * kHour + 17, 400 * kDay};
  const TimeNs distances[] = {1,
                              kMillisecond,
                              63 * kMillisecond,
                              64 * kMillisecond,
                              65 * kMillisecond,
                              504 * kMillisecond,
                              511 * kMillisecond,
                              512 * kMillisecond,
                              kSecond,
                              4095 * kMillisecond,
                              4096 * kMillisecond,
                              kMinute,
                              5 * kMinute + 1,
                              kHour,
                              kDay,
                              30 * kDay,
                              90 * kDay,
                              10'000 * kDay};
  for (TimeNs start : starts) {
    for (TimeNs distance : distances) {
      SCOPED_TRACE(testing::Message() << "start " << start << " distance " << distance);
      TimerWheel wheel(start);
      Timer t{7, {}};
      const TimeNs deadline = start + distance;
      const TimeNs tick = (deadline + kMillisecond - 1) / kMillisecond * kMillisecond;
      wheel.schedule(t.node, deadline);
      EXPECT_EQ(t.node.deadline(), tick);
      EXPECT_LE(wheel.next_wakeup(), tick);
      EXPECT_EQ(advance(wheel, tick - 1), Ids{});
      EXPECT_TRUE(t.node.armed());
      EXPECT_EQ(advance(wheel, tick), Ids{7});
      EXPECT_FALSE(t.node.armed());
      EXPECT_EQ(wheel.next_wakeup(), kNever);
    }
  }
}

TEST(TimerWheel, DeadlineInThePastFiresAtOnce) {
  TimerWheel wheel(kSecond);
  Timer t{1, {}};
  wheel.schedule(t.node, 3);
  EXPECT_EQ(wheel.next_wakeup(), kSecond);
  EXPECT_EQ(advance(wheel, kSecond), Ids{1});
}

TEST(TimerWheel, LaterIsLazyEarlierIsNot) {
  TimerWheel wheel(0);
  Timer t{1, {}};
  wheel.schedule(t.node, 200 * kMillisecond);
  wheel.schedule(t.node, 900 * kMillisecond);
  EXPECT_EQ(advance(wheel, 899 * kMillisecond), Ids{});
  EXPECT_EQ(advance(wheel, 900 * kMillisecond), Ids{1});

  wheel.schedule(t.node, 5 * kSecond);
  wheel.schedule(t.node, kSecond);
  EXPECT_EQ(advance(wheel, kSecond), Ids{1});
  EXPECT_EQ(advance(wheel, 10 * kSecond), Ids{});
}

TEST(TimerWheel, NeverDisarmsAndCanBeRearmed) {
  TimerWheel wheel(0);
  Timer t{1, {}};
  wheel.schedule(t.node, kNever);
  EXPECT_FALSE(t.node.armed());
  wheel.schedule(t.node, 10 * kMillisecond);
  wheel.schedule(t.node, kNever);
  EXPECT_FALSE(t.node.armed());
  EXPECT_EQ(t.node.deadline(), kNever);
  EXPECT_EQ(advance(wheel, 5 * kMillisecond), Ids{});
  wheel.schedule(t.node, 7 * kMillisecond);
  EXPECT_EQ(advance(wheel, 7 * kMillisecond), Ids{1});
  wheel.schedule(t.node, 20 * kMillisecond);
  wheel.schedule(t.node, kNever);
  EXPECT_EQ(advance(wheel, kMinute), Ids{});
  EXPECT_EQ(wheel.next_wakeup(), kNever);
}

TEST(TimerWheel, CancelledNeverFires) {
  TimerWheel wheel(0);
  Timer a{1, {}}, b{2, {}};
  wheel.schedule(a.node, kSecond);
  wheel.schedule(b.node, kSecond);
  wheel.cancel(a.node);
  wheel.cancel(a.node);
  EXPECT_EQ(advance(wheel, kSecond), Ids{2});
}

TEST(TimerWheel, DestroyedNodeLeaves) {
  auto wheel = std::make_unique<TimerWheel>(0);
  Timer outlives{1, {}};
  {
    Timer t{2, {}};
    wheel->schedule(t.node, kSecond);
  }
  wheel->schedule(outlives.node, kSecond);
  EXPECT_EQ(advance(*wheel, kSecond), Ids{1});
  wheel->schedule(outlives.node, 2 * kSecond);
  wheel.reset();
  EXPECT_FALSE(outlives.node.armed());
}

TEST(TimerWheel, BoundIsKeptAndNothingIsLost) {
  constexpr int kCount = 1000;
  TimerWheel wheel(0);
  std::vector<Timer> timers(kCount);
  for (int i = 0; i < kCount; ++i) {
    timers[i].id = i;
    wheel.schedule(timers[i].node, 100 * kMillisecond);
  }
  EXPECT_EQ(advance(wheel, 99 * kMillisecond).size(), 0u);
  std::set<int> seen;
  for (int call = 0; call < kCount / 10; ++call) {
    const auto fired = advance(wheel, 100 * kMillisecond, 10);
    ASSERT_EQ(fired.size(), 10u);
    ASSERT_EQ(wheel.backlog(), call + 1 < kCount / 10);
    seen.insert(fired.begin(), fired.end());
  }
  EXPECT_EQ(seen.size(), size_t{kCount});
}

// Many idle timers come down from a wide slot while fine timers are due: those fire in time though the move takes many calls.
TEST(TimerWheel, WideSlotDoesNotDelayFineTimers) {
  constexpr int kIdle = 10'000;
  TimerWheel wheel(0);
  std::vector<Timer> idle(kIdle);
  for (auto& t : idle) wheel.schedule(t.node, 300 * kSecond);
  Timer fine{1, {}};
  TimeNs due = 250 * kSecond;
  wheel.schedule(fine.node, due);
  uint32_t idle_fired = 0, fine_fired = 0;
  bool saw_backlog = false;
  for (TimeNs now = due - kSecond; now < 302 * kSecond; now += kMillisecond) {
    wheel.advance(now, 8, [&](TimerNode& n) {
      if (&n != &fine.node) {
        ++idle_fired;
        EXPECT_GE(now, 300 * kSecond);
        return;
      }
      EXPECT_EQ(now, due);
      ++fine_fired;
      due += kMillisecond;
      wheel.schedule(n, due);
    });
    saw_backlog |= wheel.backlog();
    if (now >= 295 * kSecond && fine.node.armed()) wheel.cancel(fine.node);
  }
  EXPECT_TRUE(saw_backlog);
  EXPECT_GT(fine_fired, 40'000u);
  EXPECT_EQ(idle_fired, uint32_t{kIdle});
}

TEST(TimerWheel, CallbackMayCancelOthersAndRearmItself) {
  TimerWheel wheel(0);
  Timer a{1, {}}, b{2, {}};
  wheel.schedule(a.node, kSecond);
  wheel.schedule(b.node, kSecond);
  int fired = 0;
  wheel.advance(kSecond, kPlenty, [&](TimerNode& n) {
    ++fired;
    wheel.cancel(&n == &a.node ? b.node : a.node);
    wheel.schedule(n, 2 * kSecond);
  });
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(advance(wheel, 2 * kSecond).size(), 1u);
}

// A sorted multimap says what must fire. Random schedules, re-arms, cancels, bounds and jumps of time, from milliseconds to
// months.
TEST(TimerWheel, AgreesWithASortedMultimap) {
  const char* given = std::getenv("MILLRACE_SEED");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  const uint64_t last = given != nullptr ? first : 40;
  for (uint64_t seed = first; seed <= last; ++seed) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed);
    Prng random(seed);
    TimeNs now = random.below(400 * kDay);
    TimerWheel wheel(now);
    std::vector<Timer> timers(200);
    for (size_t i = 0; i < timers.size(); ++i) timers[i].id = static_cast<int>(i);
    std::multimap<TimeNs, int> expected;  // tick -> id
    std::vector<TimeNs> deadline(timers.size(), kNever);
    const auto tick_time = [](TimeNs t) { return t / kMillisecond * kMillisecond + (t % kMillisecond != 0 ? kMillisecond : 0); };
    const auto forget = [&](int id) {
      if (deadline[id] == kNever) return;
      auto [from, to] = expected.equal_range(tick_time(deadline[id]));
      for (auto it = from; it != to; ++it)
        if (it->second == id) {
          expected.erase(it);
          break;
        }
      deadline[id] = kNever;
    };
    const auto random_span = [&] {
      const TimeNs scales[] = {5 * kMillisecond, 100 * kMillisecond, 2 * kSecond, kMinute, kHour, 3 * kDay, 200 * kDay};
      return random.below(scales[random.below(std::size(scales))]);
    };
    const auto arm = [&](int id) {
      forget(id);
      deadline[id] = random.chance(1, 20) ? (now > kSecond ? now - random.below(kSecond) : 0) : now + random_span();
      wheel.schedule(timers[id].node, deadline[id]);
      expected.emplace(tick_time(deadline[id]), id);
    };
    for (int step = 0; step < 3000; ++step) {
      for (uint64_t n = random.below(8); n > 0; --n) {
        const int id = static_cast<int>(random.below(timers.size()));
        const uint64_t what = random.below(10);
        if (what == 0) {
          wheel.cancel(timers[id].node);
          forget(id);
        } else if (what == 1) {
          wheel.schedule(timers[id].node, kNever);
          forget(id);
        } else {
          arm(id);
        }
      }
      const TimeNs wakeup = wheel.next_wakeup();
      if (!expected.empty()) {
        ASSERT_LE(wakeup, std::max(now, expected.begin()->first));
      }
      now += random.chance(1, 3) ? random.below(3 * kMillisecond) : random_span();
      const uint32_t bound = random.chance(1, 4) ? 1 + static_cast<uint32_t>(random.below(5)) : kPlenty;
      const size_t due = static_cast<size_t>(std::distance(expected.begin(), expected.upper_bound(now)));
      uint32_t calls = 0;
      const uint32_t fired = wheel.advance(now, bound, [&](TimerNode& n) {
        const int id = member_owner<&Timer::node>(n).id;
        ++calls;
        ASSERT_NE(deadline[id], kNever) << "fired a disarmed timer";
        ASSERT_LE(deadline[id], now) << "fired early";
        forget(id);
      });
      ASSERT_EQ(fired, calls);
      ASSERT_LE(fired, bound);
      if (bound == kPlenty) {
        ASSERT_EQ(fired, due);
      }
      if (fired < due) {
        ASSERT_TRUE(wheel.backlog());
      }
      for (const auto& t : timers) ASSERT_EQ(t.node.deadline(), deadline[t.id] == kNever ? kNever : tick_time(deadline[t.id]));
    }
  }
}

}  // namespace
}  // namespace millrace::base
