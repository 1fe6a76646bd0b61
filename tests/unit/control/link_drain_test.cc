// A drain on its way from control to the workers.
#include <optional>
#include <string>

#include <gtest/gtest.h>

#include "dataplane/drain.h"
#include "tests/unit/control/link_world.h"

namespace millrace {
namespace {

using namespace testing;  // millrace::testing
using stats::LoaderCounter;

TEST(LinkDrain, ReachesEveryWorkerAndOutlivesControl) {
  RunDir dir;
  base::TimeNs now = base::kSecond;
  FakeControl c(dir.socket);
  table::SetDrain drain;
  drain.fields = table::SetDrain::kDrain;
  drain.draining = 1;
  drain.time_s = 30;
  EXPECT_FALSE(c.publisher->set_drain(drain)) << "nobody is there to do it";
  std::optional<FakeDataplane> d(dir.socket);
  settle(&*d, &c, now);
  const auto states = [&] {
    std::string all;
    for (const dataplane::WorkerTableSlot& s : d->slots) {
      const auto state = dataplane::DrainState::of(s.drain());
      all += std::string(state.health_failed ? "failed " : "") + (state.draining ? "draining " : "") +
             std::to_string(state.time_s) + "; ";
    }
    return all;
  };
  EXPECT_EQ(states(), "0; 0; ") << "what was asked of nobody is not done later";
  EXPECT_TRUE(c.publisher->set_drain(drain));
  settle(&*d, &c, now);
  EXPECT_EQ(states(), "draining 30; draining 30; ");
  EXPECT_EQ(d->count(LoaderCounter::kDraining), 1u);
  EXPECT_EQ(d->count(LoaderCounter::kDrainTime), 30u);
  EXPECT_NE(d->count(LoaderCounter::kDrainFromMs), 0u);
  // Health is another matter, and neither takes the other back.
  table::SetDrain health;
  health.fields = table::SetDrain::kHealth;
  health.health_failed = 1;
  EXPECT_TRUE(c.publisher->set_drain(health));
  settle(&*d, &c, now);
  EXPECT_EQ(states(), "failed draining 30; failed draining 30; ");
  EXPECT_EQ(d->count(LoaderCounter::kHealthFailed), 1u);
  // Nonsense is refused and counted.
  drain.time_s = table::SetDrain::kMaxTimeS + 1;
  EXPECT_TRUE(c.publisher->set_drain(drain));
  settle(&*d, &c, now);
  EXPECT_EQ(states(), "failed draining 30; failed draining 30; ");
  EXPECT_EQ(d->count(LoaderCounter::kCommandErrors), 1u);
  // Another control process finds it as it is, and may end it.
  c.link.reset();
  settle(&*d, nullptr, now);
  FakeControl other(dir.socket, 2);
  settle(&*d, &other, now);
  EXPECT_EQ(states(), "failed draining 30; failed draining 30; ");
  EXPECT_TRUE(other.publisher->set_drain({.fields = table::SetDrain::kHealth | table::SetDrain::kDrain}));
  settle(&*d, &other, now);
  EXPECT_EQ(states(), "0; 0; ");
  EXPECT_EQ(d->count(LoaderCounter::kDraining) + d->count(LoaderCounter::kHealthFailed), 0u);
}

}  // namespace
}  // namespace millrace
