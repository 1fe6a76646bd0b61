// The stage clock in virtual TSC: every cycle of an accounted turn belongs to one stage.
#include "lib/stats/stage_clock.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::stats {
namespace {

struct VirtualTsc {
  static inline uint64_t now = 0;
  static inline uint64_t reads = 0;
  static uint64_t read() {
    ++reads;
    return now;
  }
};
using Clock = BasicStageClock<VirtualTsc>;
using Scope = BasicStageScope<Clock>;

void spend(uint64_t cycles) { VirtualTsc::now += cycles; }

// "loop 5/1, route 7/2": cycles/entries of the stages that were entered, in the order of the list.
std::string told(const StageBlock& b) {
  std::string out;
  for (uint32_t i = 0; i < kCountOf<Stage>; ++i) {
    if (b.cycles[i].read() == 0 && b.entries[i].read() == 0) continue;
    out += (out.empty() ? "" : ", ") + std::string(info(static_cast<Stage>(i)).name) + " " + std::to_string(b.cycles[i].read()) +
           "/" + std::to_string(b.entries[i].read());
  }
  return out;
}

uint64_t sum(const StageBlock& b) {
  uint64_t all = 0;
  for (const Counter& c : b.cycles) all += c.read();
  return all;
}

struct StageClock : testing::Test {
  void SetUp() override { VirtualTsc::now = 1'000'000, VirtualTsc::reads = 0; }
  void turn(Clock& c, uint32_t period, bool busy, uint64_t cycles = 10) {
    c.begin_turn(VirtualTsc::now, period);
    {
      Scope s(c, Stage::kRoute);
      spend(cycles);
    }
    c.end_turn(VirtualTsc::now, busy);
  }
  StageBlock block;
};

TEST_F(StageClock, StagesNestAndEachCycleIsChargedOnce) {
  Clock c(&block);
  c.begin_turn(VirtualTsc::now, 1);
  spend(3);  // loop
  {
    Scope rx(c, Stage::kRxBurst);
    spend(10);
    {
      Scope parse(c, Stage::kPacketParse, 32);
      spend(100);
      parse.next(Stage::kTcpInput, 30);
      spend(200);
      {
        Scope tx(c, Stage::kTxBurst);
        spend(7);
      }
      spend(50);
    }
    spend(20);
  }
  spend(4);  // loop
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 7/1, rx_burst 30/1, packet_parse 100/32, tcp_input 250/30, tx_burst 7/1");
  EXPECT_EQ(block.turns.read(), 1u);
  EXPECT_EQ(sum(block), 394u);
}

TEST_F(StageClock, AStageInsideItselfIsStillOneStage) {
  Clock c(&block);
  c.begin_turn(VirtualTsc::now, 1);
  {
    Scope outer(c, Stage::kHttpWrite);
    spend(5);
    {
      Scope inner(c, Stage::kHttpWrite);
      spend(6);
    }
    EXPECT_EQ(c.stage(), Stage::kHttpWrite);
    spend(7);
  }
  EXPECT_EQ(c.stage(), Stage::kLoop);
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 0/1, http_write 18/2");
}

TEST_F(StageClock, AnEarlyReturnLeavesItsStage) {
  Clock c(&block);
  const auto parse = [&](bool bad) {
    Scope s(c, Stage::kHttpParse);
    spend(1);
    if (bad) return;
    spend(10);
  };
  c.begin_turn(VirtualTsc::now, 1);
  parse(true);
  parse(false);
  spend(100);
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 100/1, http_parse 12/2");
}

TEST_F(StageClock, OffNothingIsReadOrCounted) {
  Clock c(&block);
  for (int i = 0; i < 100; ++i) turn(c, 0, true);
  EXPECT_EQ(VirtualTsc::reads, 0u);
  EXPECT_EQ(told(block), "");
  EXPECT_EQ(block.turns.read(), 0u);
}

TEST_F(StageClock, WithoutSharedWordsItNeverRuns) {
  turn(Clock::never(), 1, true);
  EXPECT_EQ(VirtualTsc::reads, 0u);
  EXPECT_FALSE(Clock::never().on());
}

TEST_F(StageClock, IdleTurnsAreForgotten) {
  Clock c(&block);
  turn(c, 1, false, 1'000);
  turn(c, 1, true, 10);
  turn(c, 1, false, 1'000);
  EXPECT_EQ(told(block), "loop 0/1, route_match 10/1");
  EXPECT_EQ(block.turns.read(), 1u);
}

TEST_F(StageClock, TimeBetweenTurnsIsTheLoops) {
  Clock c(&block);
  const uint64_t last = VirtualTsc::now;
  spend(25);  // the clock that run() reads
  c.begin_turn(last, 1);
  spend(5);
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 30/1");
}

TEST_F(StageClock, OneTurnInSoManyAtRandom) {
  for (const uint32_t period : {2u, 16u, 100u}) {
    StageBlock b;
    Clock c(&b, 0, 12'345);
    const uint32_t turns = period * 10'000;
    uint64_t previous = 0, streak = 0, longest = 0;
    for (uint32_t i = 0; i < turns; ++i) {
      turn(c, period, true);
      streak = b.turns.read() == previous ? streak + 1 : 0;
      longest = std::max(longest, streak);
      previous = b.turns.read();
    }
    EXPECT_NEAR(static_cast<double>(b.turns.read()), 10'000, 300) << period;
    EXPECT_LT(longest, 2 * period) << period;
    EXPECT_GE(longest, period) << "not every " << period << "th";
    EXPECT_EQ(b.cycles[static_cast<uint32_t>(Stage::kRoute)].read(), 10 * b.turns.read());
  }
}

// A traffic that repeats every 16 turns: every kind of turn gets its share.
TEST_F(StageClock, PeriodicTrafficDoesNotFallInStep) {
  Clock c(&block, 0, 99);
  for (uint32_t i = 0; i < 1'600'000; ++i) {
    c.begin_turn(VirtualTsc::now, 16);
    {
      Scope s(c, i % 16 == 0 ? Stage::kTlsHandshake : Stage::kRoute);
      spend(10);
    }
    c.end_turn(VirtualTsc::now, true);
  }
  const double rare = static_cast<double>(block.cycles[static_cast<uint32_t>(Stage::kTlsHandshake)].read());
  EXPECT_NEAR(rare / static_cast<double>(sum(block)), 1.0 / 16, 0.005);
}

TEST_F(StageClock, SwitchedOnAndOffAndToAnotherPeriodWhileRunning) {
  Clock c(&block, 0, 7);
  for (int i = 0; i < 1'000; ++i) turn(c, Clock::kMaxPeriod, true);
  const uint64_t rare = block.turns.read();
  EXPECT_LE(rare, 1u);
  for (int i = 0; i < 100; ++i) turn(c, 1, true);
  EXPECT_GE(block.turns.read(), rare + 98) << "a long countdown does not outlive its period";
  const uint64_t then = block.turns.read();
  for (int i = 0; i < 100; ++i) turn(c, 0, true);
  EXPECT_EQ(block.turns.read(), then);
  turn(c, 1, true);
  turn(c, 1, true);
  EXPECT_GT(block.turns.read(), then);
}

TEST_F(StageClock, WhatTheClockItselfCostsIsTakenOff) {
  Clock c(&block, 20);
  c.begin_turn(VirtualTsc::now, 1);
  spend(120);
  {
    Scope s(c, Stage::kRoute);
    spend(70);
    {
      Scope t(c, Stage::kHttpWrite);
      spend(15);  // less than the cost: nothing, not a huge number
    }
    spend(25);
  }
  spend(30);
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 110/1, route_match 55/1, http_write 0/1");
}

TEST_F(StageClock, ATscThatGoesBackIsNoTime) {
  Clock c(&block);
  c.begin_turn(VirtualTsc::now, 1);
  {
    Scope s(c, Stage::kRoute);
    VirtualTsc::now -= 500;
  }
  spend(9);
  c.end_turn(VirtualTsc::now, true);
  EXPECT_EQ(told(block), "loop 9/1, route_match 0/1");
}

TEST_F(StageClock, TscWraps) {
  VirtualTsc::now = UINT64_MAX - 4;
  Clock c(&block);
  turn(c, 1, true, 10);
  EXPECT_EQ(told(block), "loop 0/1, route_match 10/1");
}

TEST(RealStageClock, ChangingTheStageCostsTensOfCycles) {
  const uint64_t cost = stats::StageClock::measure_cost();
  EXPECT_GT(cost, 0u);
  EXPECT_LT(cost, 5'000u);
}

}  // namespace
}  // namespace millrace::stats
