// BBR: the model on a path of known bandwidth and round trip, step by step, and what the sender does by it: pacing, losses,
// idleness.
#include <cmath>
#include <deque>

#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

constexpr uint32_t kMss = 1000;

// A bottleneck in virtual microseconds: `rate` bytes/ms, `rtt_us` without a queue, a queue of any length. Segments of one kMss.
struct Bottleneck {
  BbrState b;
  uint32_t rate, rtt_us, now_us = 1'000'000, cwnd = 10 * kMss, una = 0, nxt = 0;
  uint64_t free_at_us = 0, next_send_us = 0;
  double lose = 0;
  uint32_t sent = 0, lost_waiting = 0, most_in_flight = 0;
  struct Flying {
    uint64_t back_us;
    uint32_t end, sent_us;
    bool lost;
  };
  std::deque<Flying> flying;

  Bottleneck(uint32_t rate, uint32_t rtt_us) : rate(rate), rtt_us(rtt_us) { bbr_start(b, 0, rtt_us, now_us); }
  uint32_t in_flight() const { return nxt - una; }
  void run(uint32_t ms) {
    const uint64_t end = now_us + uint64_t{ms} * 1000;
    while (now_us < end) {
      const bool may_send = in_flight() + kMss <= cwnd;
      const uint64_t send_at = may_send ? std::max<uint64_t>(now_us, next_send_us) : UINT64_MAX;
      const uint64_t ack_at = flying.empty() ? UINT64_MAX : flying.front().back_us;
      if (std::min(send_at, ack_at) > end) {
        now_us = static_cast<uint32_t>(end);
        return;
      }
      if (send_at <= ack_at) {
        now_us = static_cast<uint32_t>(send_at);
        bbr_sent(b, kMss, in_flight(), cwnd, now_us);
        nxt += kMss;
        const uint64_t leaves = std::max<uint64_t>(free_at_us, now_us) + kMss * 1000ull / rate;
        free_at_us = leaves;
        flying.push_back({leaves + rtt_us, nxt, now_us, lose > 0 && std::fmod(++sent * lose, 1.0) < lose});
        next_send_us = std::max<uint64_t>(next_send_us, now_us) + kMss * 1'000'000ull / bbr_pacing_rate(b, cwnd, rtt_us);
      } else {
        now_us = static_cast<uint32_t>(ack_at);
        const Flying f = flying.front();
        flying.pop_front();
        una = f.end;
        if (f.lost) {  // seen with the next one that arrives
          lost_waiting += kMss;
          continue;
        }
        cwnd = bbr_acked(b, cwnd,
                         {.now_us = now_us,
                          .delivered = kMss,
                          .lost = std::exchange(lost_waiting, 0),
                          .in_flight = in_flight(),
                          .rtt_us = now_us - f.sent_us,
                          .mss = kMss});
      }
      most_in_flight = std::max(most_in_flight, in_flight());
    }
  }
  uint32_t bdp() const { return static_cast<uint32_t>(uint64_t{rate} * rtt_us / 1000); }
};

TEST(Bbr, StartupFindsTheBandwidthInAFewRoundTrips) {
  Bottleneck p(12'500, 20'000);  // 100 Mbit/s, 20 ms: 250 segments
  p.run(400);
  EXPECT_TRUE(p.b.full);
  EXPECT_NE(p.b.phase, BbrPhase::kStartup);
  EXPECT_NEAR(bbr_bandwidth(p.b), 12'500, 625);
}

TEST(Bbr, DrainsWhatStartupLeftInTheQueue) {
  Bottleneck p(12'500, 20'000);
  p.run(1'000);
  EXPECT_EQ(p.b.phase, BbrPhase::kProbeBw);
  p.most_in_flight = 0;
  p.run(1'000);
  EXPECT_LE(p.most_in_flight, p.bdp() * 3 / 2);  // gain 1.25 at most, and a little
  EXPECT_NEAR(p.b.min_rtt_us, 20'080, 500);
}

TEST(Bbr, FollowsMoreBandwidthWithinCycles) {
  Bottleneck p(5'000, 20'000);
  p.run(1'000);
  EXPECT_NEAR(bbr_bandwidth(p.b), 5'000, 250);
  p.rate = 10'000;
  p.run(3'000);
  EXPECT_NEAR(bbr_bandwidth(p.b), 10'000, 1'000);
}

TEST(Bbr, FollowsLessBandwidthWhenTheFilterHasForgotten) {
  Bottleneck p(10'000, 20'000);
  p.run(1'000);
  p.rate = 5'000;
  p.run(4'000);
  EXPECT_NEAR(bbr_bandwidth(p.b), 5'000, 500);
}

// What is lost leaves the path as what is delivered does: a window of which half is lost is a round, and after a timeout that
// took all of it the next round is the segment that was sent again.
TEST(Bbr, LossesDoNotMakeRoundsLonger) {
  BbrState b;
  bbr_start(b, 0, 20'000, 0);
  const auto window = [&] {
    for (uint32_t i = 0; i < 100; ++i) bbr_sent(b, kMss, i * kMss, 100 * kMss, 1000);
  };
  const auto acked = [&](uint32_t delivered, uint32_t lost, uint32_t in_flight) {
    return bbr_acked(
        b, 100 * kMss,
        {.now_us = 21'000, .delivered = static_cast<int32_t>(delivered), .lost = lost, .in_flight = in_flight, .mss = kMss});
  };
  window();
  acked(0, 0, 100 * kMss);
  const uint32_t before = b.rounds;
  acked(49 * kMss, 50 * kMss, kMss);
  EXPECT_EQ(b.rounds, before);
  acked(kMss, 0, 0);
  EXPECT_EQ(b.rounds, before + 1);

  window();
  acked(0, 0, 100 * kMss);
  const uint32_t cwnd = bbr_lost(b, 100 * kMss, 0, kMss, true);
  EXPECT_EQ(cwnd, kMss);
  EXPECT_TRUE(b.conserving);
  bbr_sent(b, kMss, 0, cwnd, 300'000);
  acked(kMss, 0, 0);
  EXPECT_FALSE(b.conserving);
}

TEST(Bbr, ProbesForTheRoundTripEveryFiveSeconds) {
  Bottleneck p(5'000, 20'000);
  p.run(1'000);
  bool probed = false;
  uint32_t least = UINT32_MAX;
  for (int i = 0; i < 12'000; ++i) {
    p.run(1);
    if (p.b.phase != BbrPhase::kProbeRtt) continue;
    probed = true;
    least = std::min(least, p.cwnd);
  }
  EXPECT_TRUE(probed);
  EXPECT_LE(least, p.bdp() * 6 / 10);
  EXPECT_EQ(p.b.phase, BbrPhase::kProbeBw);
}

TEST(Bbr, RandomLossBelowTheThresholdCostsNothing) {  // what it is for
  Bottleneck p(12'500, 20'000);
  p.lose = 0.01;
  p.run(3'000);
  EXPECT_NEAR(bbr_bandwidth(p.b), 12'500, 1'000);
  EXPECT_GE(p.cwnd, p.bdp());
}

TEST(Bbr, ARoundThatLosesMoreBoundsWhatFlies) {  // draft-ietf-ccwg-bbr 5.5.10
  Bottleneck p(12'500, 20'000);
  p.run(1'000);
  EXPECT_EQ(p.b.inflight_hi, UINT32_MAX);
  p.lose = 0.05;
  p.run(200);
  EXPECT_NE(p.b.inflight_hi, UINT32_MAX);
  EXPECT_LE(p.cwnd, p.b.inflight_hi);
}

// --- the sender

struct BbrSender : TcpDialog {
  static Config config_of() {
    Config c = TcpDialog::plain();
    c.congestion = CongestionAlgorithm::kBbr;
    return c;
  }
  BbrSender() : TcpDialog(config_of()) {
    handshake_takes = ms(20);
    establish("<mss 1000,sackOK>");
  }
  // Until the model rules: one window sent and acknowledged.
  void begin() {
    write(50'000);
    EXPECT_EQ(drain().size(), 10u);
    now += ms(20);
    recv(". 1 ack 2001");
    EXPECT_TRUE(bbr_rules(t));
  }
};

TEST(BbrSenderTest, SegmentsGoWhenTheirTimeComes) {
  BbrSender t;
  t.begin();
  size_t sent = 0;
  TimeNs first = 0, last = 0;
  uint32_t acked = 2001;
  for (int i = 0; i < 400 && sent < 30; ++i) {
    const size_t n = t.drain().size();
    EXPECT_LE(n, 8u) << "a burst is what the rate sends in a millisecond";
    if (n > 0) {
      if (first == 0) first = t.now;
      last = t.now;
    }
    sent += n;
    if (i % 4 == 3 && acked < 10'001) {
      t.o = acked += 1000;
      t.recv(". 1 ack o");
    }
    if (t.t.repair != nullptr && t.t.repair->pace_at != base::kNever) {
      EXPECT_LE(next_deadline(t.t), t.t.repair->pace_at);
      t.now = std::max(t.now, t.t.repair->pace_at);
      on_deadline(t.t, t.now);
      EXPECT_GT(next_deadline(t.t), t.now);
    } else {
      t.now += ms(1);
    }
  }
  EXPECT_GT(last - first, ms(5));
}

TEST(BbrSenderTest, ALossDoesNotHalveTheWindow) {
  BbrSender t;
  t.begin();
  t.pass(ms(10));
  const uint32_t cwnd = info(t.t).cwnd;
  t.o = info(t.t).snd_nxt - TcpDialog::kIss;
  t.recv(". 1 ack 2001 <sack 3001:o>");
  EXPECT_EQ(t.t.recovery, Recovery::kFast);
  t.drain();
  t.now += ms(20);
  t.recv(". 1 ack o");
  EXPECT_GE(info(t.t).cwnd, cwnd);
  EXPECT_EQ(info(t.t).ssthresh, UINT32_MAX);
}

TEST(BbrSenderTest, TheModelIsGivenBackWhenIdle) {
  BbrSender t;
  t.begin();
  for (int i = 0; i < 200 && bytes_unacked(t.t) > 0; ++i) {
    t.pass(ms(5));
    t.drain();
    t.o = info(t.t).snd_nxt - TcpDialog::kIss;
    t.recv(". 1 ack o");
  }
  EXPECT_EQ(bytes_unacked(t.t), 0u);
  t.pass(sec(3));
  EXPECT_FALSE(info(t.t).repairing);
}

}  // namespace
}  // namespace millrace::tcp
