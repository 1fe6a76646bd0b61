#include "lib/base/prng.h"

#include <vector>

#include <gtest/gtest.h>

namespace millrace::base {
namespace {

// Simulation seeds in bug reports must mean the same tomorrow. The first is SplitMix64 into xoshiro256**, computed independently.
TEST(Prng, SequenceOfASeedNeverChanges) {
  Prng random(0);
  EXPECT_EQ(random.next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(random.next(), 0xbf6e1f784956452au);
  EXPECT_EQ(random.next(), 0x1a5f849d4933e6e0u);
}

TEST(Prng, BelowIsUniformAndInRange) {
  Prng random(1);
  std::vector<int> count(7);
  for (int i = 0; i < 70'000; ++i) {
    const uint64_t v = random.below(7);
    ASSERT_LT(v, 7u);
    ++count[v];
  }
  for (int n : count) EXPECT_NEAR(n, 10'000, 600);  // 6 deviations
  EXPECT_EQ(random.below(1), 0u);
}

TEST(Prng, BetweenIncludesBothEnds) {
  Prng random(2);
  bool low = false, high = false;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t v = random.between(10, 13);
    ASSERT_GE(v, 10u);
    ASSERT_LE(v, 13u);
    low |= v == 10;
    high |= v == 13;
  }
  EXPECT_TRUE(low && high);
  EXPECT_EQ(random.between(5, 5), 5u);
  random.between(0, UINT64_MAX);
}

TEST(Prng, UnitAndChance) {
  Prng random(3);
  double sum = 0;
  int hits = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double u = random.unit();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    hits += random.chance(1, 100) ? 1 : 0;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.006);
  EXPECT_NEAR(hits, 1000, 190);
}

}  // namespace
}  // namespace millrace::base
