// HyStart++ (RFC 9406): when CUBIC's first slow start ends. The curve itself is in recovery_test.cc.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

struct Rounds {
  HyStart h;
  uint32_t una = 0;
  // A round of `samples` ACKs with this round trip; returns what the last one answered.
  uint32_t round(uint32_t rtt_us, uint32_t samples = 10) {
    uint32_t last = 1;
    for (uint32_t i = 0; i < samples; ++i) last = hystart_on_ack(h, una + 1000, una + 1000 + samples * 1000, rtt_us), una += 1000;
    return last;
  }
};

TEST(HyStart, EvenRoundTripsGoOn) {
  Rounds r;
  for (int i = 0; i < 20; ++i) EXPECT_EQ(r.round(20'000), 1u);
}

TEST(HyStart, GrowingRoundTripsSlowDownThenEndIt) {  // 4.2: CSS_GROWTH_DIVISOR, CSS_ROUNDS
  Rounds r;
  EXPECT_EQ(r.round(20'000), 1u);
  EXPECT_EQ(r.round(20'000), 1u);
  EXPECT_EQ(r.round(24'500), 4u);  // MIN_RTT_THRESH 4 ms
  int rounds = 0;
  while (r.round(25'000) != 0 && rounds < 20) ++rounds;
  EXPECT_EQ(rounds, 4);
}

TEST(HyStart, JitterIsForgiven) {  // 4.2: back to slow start when the round trip falls below the baseline
  Rounds r;
  r.round(20'000);
  r.round(20'000);
  EXPECT_EQ(r.round(25'000), 4u);
  EXPECT_EQ(r.round(21'000), 1u);
  EXPECT_EQ(r.round(21'000), 1u);
}

TEST(HyStart, TheThresholdIsAnEighthWithinBounds) {  // RttThresh = max(4 ms, min(lastRoundMinRTT / 8, 16 ms))
  for (const auto& [rtt, more, answer] : {std::tuple{8'000u, 3'900u, 1u},
                                          {8'000u, 4'000u, 4u},
                                          {80'000u, 9'900u, 1u},
                                          {80'000u, 10'000u, 4u},
                                          {400'000u, 15'900u, 1u},
                                          {400'000u, 16'000u, 4u}}) {
    Rounds r;
    r.round(rtt);
    r.round(rtt);
    EXPECT_EQ(r.round(rtt + more), answer) << rtt << " + " << more;
  }
}

TEST(HyStart, FewSamplesDecideNothing) {  // N_RTT_SAMPLE
  Rounds r;
  r.round(20'000);
  r.round(20'000);
  EXPECT_EQ(r.round(40'000, 7), 1u);
}

TEST(HyStart, CubicGrowsByAQuarterAndThenKeepsItsWindow) {
  Congestion c;
  Growth g;
  congestion_init(c, 1000);
  c.cwnd = 100'000;
  uint32_t una = 0, nxt = 0;
  const auto round = [&](uint32_t rtt_us) {
    const uint32_t before = c.cwnd;
    nxt = una + c.cwnd;
    for (uint32_t left = before / 2000; left > 0; --left) {
      una += 2000;
      congestion_on_ack(
          c, CongestionAlgorithm::kCubic, &g,
          {.acked = 2000, .mss = 1000, .srtt_us = rtt_us, .now = sec(1), .rtt_us = rtt_us, .snd_una = una, .snd_nxt = nxt});
    }
    return static_cast<double>(c.cwnd) / before;
  };
  EXPECT_NEAR(round(20'000), 2.0, 0.05);
  EXPECT_NEAR(round(20'000), 2.0, 0.05);
  round(30'000);
  EXPECT_NEAR(round(30'000), 1.25, 0.05);
  for (int i = 0; i < 6 && c.ssthresh == Congestion::kNoThreshold; ++i) round(30'000);
  EXPECT_LE(c.ssthresh, c.cwnd);
  EXPECT_NEAR(round(30'000), 1.0, 0.05);
}

}  // namespace
}  // namespace millrace::tcp
