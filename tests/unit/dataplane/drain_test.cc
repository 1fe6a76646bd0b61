// The whole gateway's drain: which answers end their connections, and from when nothing new is accepted.
#include "dataplane/drain.h"

#include <gtest/gtest.h>

#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

DrainState draining(base::TimeNs from, uint32_t time_s) {
  DrainState s;
  s.active = s.draining = true;
  s.from_ms = from / kMillisecond;
  s.time_s = time_s;
  return s;
}

TEST(DrainState, AWordCarriesAllOfIt) {
  EXPECT_EQ(DrainState{}.word(), 0u);
  EXPECT_FALSE(DrainState::of(0).active);
  for (const uint64_t from_ms : {uint64_t{0}, uint64_t{123'456'789}, (uint64_t{1} << DrainState::kFromBits) - 1})
    for (const uint32_t time_s : {0u, 600u, table::SetDrain::kMaxTimeS})
      for (const bool failed : {false, true}) {
        DrainState s = draining(0, time_s);
        s.from_ms = from_ms;
        s.health_failed = failed;
        const DrainState t = DrainState::of(s.word());
        EXPECT_TRUE(t.active && t.draining);
        EXPECT_EQ(t.health_failed, failed);
        EXPECT_EQ(t.from_ms, from_ms);
        EXPECT_EQ(t.time_s, time_s);
      }
}

TEST(DrainState, MoreAndMoreAnswersEndTheirConnectionsThenNothingIsAccepted) {
  const base::TimeNs from = 1000 * kSecond;
  const DrainState s = draining(from, 100);
  base::Prng random(7);
  for (const uint32_t percent : {0, 10, 50, 90, 100}) {
    const base::TimeNs now = from + percent * kSecond;
    int closed = 0;
    for (int i = 0; i < 10'000; ++i) closed += s.closes(now, random.next());
    EXPECT_NEAR(closed, percent * 100, 200) << percent;
    EXPECT_EQ(s.refuses(now), percent == 100);
  }
  EXPECT_FALSE(s.closes(from - kSecond, 0)) << "the loader's clock was a moment ahead";
  EXPECT_TRUE(draining(from, 0).closes(from, UINT64_MAX)) << "at once";
  EXPECT_TRUE(draining(from, 0).refuses(from));
  DrainState failed;
  failed.active = failed.health_failed = true;
  EXPECT_TRUE(failed.closes(from, UINT64_MAX));
  EXPECT_FALSE(failed.refuses(from + 1'000'000 * kSecond)) << "who still comes is served";
}

TEST(Drain, AnswersEndTheirConnectionsAndNoRequestFails) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "hello"));
  w.drain(draining(w.now, 60));
  w.settle();
  EXPECT_TRUE(c.open()) << "a drain closes no connection by itself";
  Peer& late = w.connect();  // accepted for the drain time
  w.send(late, get());
  ASSERT_TRUE(w.wait_for(late, "hello"));
  w.now += 61 * kSecond;
  w.settle();
  Peer& refused = w.connect();
  ASSERT_TRUE(w.run_until([&] { return refused.reset; }, kSecond));
  c.received.clear();
  w.send(c, get());
  ASSERT_TRUE(w.run_until([&] { return c.fin; }, 20 * kSecond)) << c.received;
  EXPECT_NE(c.received.find("200 OK"), std::string::npos) << c.received;
  EXPECT_NE(c.received.find("connection: close"), std::string::npos) << c.received;
  w.drain({});
  w.settle();
  Peer& again = w.connect();
  w.send(again, get());
  ASSERT_TRUE(w.wait_for(again, "hello")) << "back in service";
  EXPECT_EQ(again.received.find("connection: close"), std::string::npos);
  for (const LogLine& l : w.log()) EXPECT_EQ(std::to_string(l.status) + " " + l.flags, "200 -");
}

TEST(Drain, FailedHealthSendsClientsAwayButAcceptsThem) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  DrainState failed;
  failed.active = failed.health_failed = true;
  w.drain(failed);
  w.now += 1000 * kSecond;
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.run_until([&] { return c.fin; }, 20 * kSecond)) << c.received;
  EXPECT_NE(c.received.find("200 OK"), std::string::npos) << c.received;
  EXPECT_NE(c.received.find("connection: close"), std::string::npos) << c.received;
}

TEST(Drain, Http2IsToldByGoawayAndFinishes) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Http2Client c(w);
  ClientStream& before = c.request("GET", "/");
  ASSERT_TRUE(c.finished(before));
  EXPECT_FALSE(c.h2.goaway_received());
  DrainState failed;
  failed.active = failed.health_failed = true;
  w.drain(failed);
  ClientStream& last = c.request("GET", "/");
  ASSERT_TRUE(c.finished(last));
  EXPECT_EQ(last.response.status, 200);
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }, 10 * kSecond));
  ASSERT_TRUE(c.until([&] { return !c.peer.open(); }, 30 * kSecond));
}

}  // namespace
}  // namespace millrace::dataplane::test
