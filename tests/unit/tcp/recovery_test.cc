// Loss: fast retransmit and recovery with SACK (RFC 6675) and without (RFC 6582), timeouts (RFC 6298), what cwnd does.
#include <cmath>

#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

// 1000-byte segments make the scripts easy to read: segment n is bytes 1000n+1 .. 1000n+1000.
struct Sender : TcpDialog {
  explicit Sender(bool sack, Config c = plain()) : TcpDialog(c) {
    handshake_takes = ms(20);
    establish(sack ? "<mss 1000,sackOK>" : "<mss 1000>");
  }
  // Lets time pass until the retransmission timer has fired, whatever comes before; nothing of the timeout's is taken.
  void timeout() {
    while (t.timeouts == 0) {
      drain();
      now = next_deadline(t);
      on_deadline(t, now);
    }
  }
  // Sends all that goes; returns how many segments.
  size_t burst(uint32_t bytes) {
    write(bytes);
    return drain().size();
  }
};

// --- without SACK

TEST(NewReno, ThreeDuplicatesRepeatTheFirstSegment) {  // RFC 5681 3.2
  Sender t(false);
  EXPECT_EQ(t.burst(8000), 8u);
  t.recv(". 1 ack 1");
  t.recv(". 1 ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 1");
  t.expect(". 1:1001(1000) ack 1");
  t.expect_nothing();
  EXPECT_EQ(info(t.t).ssthresh, 5600u);     // CUBIC: 0.7 of 8000
  EXPECT_EQ(info(t.t).cwnd, 5600u + 3000);  // inflated by what left the network
  t.recv(". 1 ack 8001");
  EXPECT_EQ(info(t.t).cwnd, 2000u);  // RFC 6582 3.2 step 3: min(ssthresh, max(flight, MSS) + MSS)
  EXPECT_EQ(info(t.t).retransmits, 1u);
}

TEST(NewReno, PartialAckRepeatsTheNextHole) {  // RFC 6582 3.2 step 3
  Sender t(false);
  t.burst(8000);  // segments 0 and 3 are lost
  for (int i = 0; i < 3; ++i) t.recv(". 1 ack 1");
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 1");
  t.recv(". 1 ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 3001");
  t.expect(". 3001:4001(1000) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 8001");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
  EXPECT_EQ(info(t.t).retransmits, 2u);
}

TEST(NewReno, LimitedTransmit) {  // RFC 3042
  Sender t(false);
  EXPECT_EQ(t.burst(20'000), 10u);
  t.recv(". 1 ack 1");
  t.expect(". 10001:11001(1000) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 1");
  t.expect(". 11001:12001(1000) ack 1");
  t.expect_nothing();
}

TEST(NewReno, ProgressStartsTheCountAgain) {
  Sender t(false);
  t.burst(6000);
  t.recv(". 1 ack 1");
  t.recv(". 1 ack 1");
  t.recv(". 1 ack 1001");
  t.recv(". 1 ack 1001");
  t.recv(". 1 ack 1001");
  t.expect_nothing();
  EXPECT_EQ(info(t.t).retransmits, 0u);
  t.recv(". 1 ack 1001");
  t.expect(". 1001:2001(1000) ack 1");
}

TEST(NewReno, WhatIsNoDuplicate) {  // RFC 5681 2
  Sender t(false);
  t.burst(5000);
  for (uint32_t i = 0; i < 5; ++i) {
    t.p = 1 + i * 10;
    t.recv("P. p:p+10(10) ack 1");  // carries data
    t.drain();
  }
  for (int i = 0; i < 5; ++i) t.recv(". 51 ack 1 win " + std::to_string(50'000 + i));  // updates the window
  t.expect_nothing();
  EXPECT_EQ(info(t.t).retransmits, 0u);
}

TEST(NewReno, OldDuplicatesAfterATimeoutDoNotStartARecovery) {  // RFC 6582 3.2 step 1
  Sender t(false);
  t.burst(5000);
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 5001");
  t.write(2000);
  t.drain();
  for (int i = 0; i < 5; ++i) t.recv(". 1 ack 5001");
  EXPECT_EQ(t.drain().size(), 0u);
  EXPECT_EQ(info(t.t).retransmits, 1u);
}

// --- with SACK

TEST(Sack, RecoversTwoHolesInOneRoundTrip) {
  Sender t(true);
  t.burst(10'000);  // 0 and 4 are lost
  t.recv(". 1 ack 1 <sack 1001:2001>");
  t.recv(". 1 ack 1 <sack 1001:3001>");
  t.expect_nothing();
  t.recv(". 1 ack 1 <sack 1001:4001>");
  t.expect(". 1:1001(1000) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 1 <sack 5001:6001,sack 1001:4001>");
  t.expect(". 4001:5001(1000) ack 1");  // sent before what came: lost too (RFC 8985 6.2)
  t.expect_nothing();
  t.recv(". 1 ack 1 <sack 5001:8001,sack 1001:4001>");
  t.expect_nothing();
  t.recv(". 1 ack 4001 <sack 5001:8001>");
  t.expect_nothing();
  t.recv(". 1 ack 10001");
  EXPECT_EQ(info(t.t).retransmits, 2u);
  EXPECT_EQ(info(t.t).cwnd, info(t.t).ssthresh);
  EXPECT_EQ(info(t.t).cwnd, 7000u);
}

TEST(Sack, PipeGovernsWhatIsSent) {
  Sender t(true);
  t.burst(40'000);                       // ten in flight, segment 0 lost
  t.recv(". 1 ack 1 <sack 1001:4001>");  // three at once: more than two segments above
  t.expect(". 1:1001(1000) ack 1");
  t.expect_nothing();  // ssthresh 7000; pipe: 6 above and the repeated one
  t.recv(". 1 ack 1 <sack 1001:7001>");
  for (const char* line : {". 10001:11001(1000) ack 1", ". 11001:12001(1000) ack 1", ". 12001:13001(1000) ack 1"}) t.expect(line);
  t.expect_nothing();  // three left, three go
  EXPECT_EQ(bytes_in_flight(t.t), 7000u);
}

// A receive burst is worked through before anything is sent: what its first ACKs let go is missing in the flight when a later one
// reports a loss. A sender that cwnd held back reduces cwnd; one that had no more to send reduces what it had in flight (RFC 5681
// 3.1).
TEST(Sack, AcksOfTheSameBurstDoNotMakeTheWindowSmaller) {
  for (const uint32_t waiting : {40'000u, 8'000u}) {
    Sender t(true);
    t.burst(waiting);
    t.recv(". 1 ack 4001");
    const uint32_t cwnd = info(t.t).cwnd, flight = info(t.t).snd_nxt - info(t.t).snd_una;
    t.recv(". 1 ack 4001 <sack 5001:8001>");
    EXPECT_GT(cwnd, flight);
    const bool held_back = waiting > 10'000;
    EXPECT_EQ(info(t.t).ssthresh, (held_back ? cwnd : flight) * 7 / 10) << waiting;
  }
}

TEST(Sack, AllHolesBelowWhatCameAreLost) {  // RFC 8985 6.2
  Sender t(true);
  t.burst(10'000);
  t.recv(". 1 ack 1 <sack 1001:2001,sack 3001:4001,sack 8001:10001>");
  t.expect(". 1:1001(1000) ack 1");
  t.expect(". 2001:3001(1000) ack 1");
  t.expect(". 4001:5001(1000) ack 1");
}

TEST(Sack, LostHoleGoesBeforeNewData) {  // NextSeg() rule 1 before rule 2
  Sender t(true);
  t.burst(40'000);  // segments 0 and 4 are lost
  t.recv(". 1 ack 1 <sack 1001:4001>");
  t.expect(". 1:1001(1000) ack 1");
  t.drain();
  t.recv(". 1 ack 1 <sack 5001:7001,sack 1001:4001>");
  t.expect(". 4001:5001(1000) ack 1");
}

TEST(Sack, NothingToRescueWithoutReports) {
  Sender t(true);
  t.burst(6000);  // 0 and 5 (the last) are lost
  t.recv(". 1 ack 1 <sack 1001:5001>");
  t.expect(". 1:1001(1000) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 5001");  // a partial ACK, and nothing is reported above it
  t.expect_nothing();
  EXPECT_EQ(t.t.recovery, Recovery::kFast);
}

TEST(Sack, UselessBlocksAreIgnored) {
  Sender t(true);
  t.burst(5000);
  t.recv(". 1 ack 1 <sack 9001:10001>");  // never sent
  t.recv(". 1 ack 1 <sack 3001:2001>");   // backwards
  t.recv(". 1 ack 1 <sack -1000:1>");     // below: a D-SACK
  EXPECT_EQ(info(t.t).reordering_events, 1u);
  EXPECT_FALSE(has_scoreboard(t.t));
  t.recv(". 1 ack 2001 <sack 1:1001>");  // a D-SACK
  EXPECT_FALSE(info(t.t).repairing);     // nothing of it was worth keeping
  t.expect_nothing();
  EXPECT_EQ(info(t.t).retransmits, 0u);
}

TEST(Sack, FinAtTheEndIsRepeatedWithItsData) {
  Sender t(true);
  t.write(4500);
  t.close();
  EXPECT_EQ(t.drain().size(), 5u);
  t.timeout();
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 4001");
  t.expect("FP. 4001:4501(500) ack 1");
  t.recv(". 1 ack 4502");
  EXPECT_EQ(state(t.t), State::kFinWait2);
}

// --- timeouts

TEST(Rto, BacksOffAndStartsOver) {  // RFC 6298 5.5
  Sender t(false);
  t.burst(3000);
  for (const uint64_t wait : {200, 400, 800}) {
    EXPECT_EQ(t.deadline(ms(wait), ms(1)), 0u);
    t.expect(". 1:1001(1000) ack 1");
    t.expect_nothing();
    EXPECT_EQ(info(t.t).cwnd, 1000u);
  }
  EXPECT_EQ(info(t.t).ssthresh, 2100u);  // set once: repeated timeouts leave it (RFC 5681 3.1)
  t.recv(". 1 ack 1001");
  t.expect(". 1001:2001(1000) ack 1");
  t.expect("P. 2001:3001(1000) ack 1");
  t.recv(". 1 ack 3001");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
}

TEST(Rto, SkipsWhatIsReported) {
  Sender t(true);
  t.burst(5000);
  t.timeout();
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 1001 <sack 2001:4001>");
  t.expect(". 1001:2001(1000) ack 1");
  t.expect("P. 4001:5001(1000) ack 1");  // straight over the reported ones
  t.recv(". 1 ack 5001");
  EXPECT_EQ(info(t.t).retransmits, 4u);  // and the probe
}

TEST(Rto, ForgetsOldReports) {  // RFC 2018 8
  Sender t(true);
  t.burst(5000);
  t.recv(". 1 ack 1 <sack 4001:5001>");
  t.timeout();
  EXPECT_EQ(t.t.repair->scoreboard.bytes(), 0u);
}

TEST(Rto, EstimatorFollowsTheRfc) {  // RFC 6298 2.2, 2.3
  Config c = TcpDialog::plain();
  c.rto_min_ns = ms(1);
  TcpDialog t(c);
  t.listen("S 0 <mss 1000>");
  t.drain();
  t.now += ms(100);
  t.recv(". 1 ack 1");
  EXPECT_EQ(info(t.t).srtt_us, 100'000u);
  EXPECT_EQ(info(t.t).rttvar_us, 50'000u);
  EXPECT_EQ(info(t.t).rto_ms, 300u);
  t.write(1000);
  t.drain();
  t.now += ms(200);
  t.recv(". 1 ack 1001");
  EXPECT_EQ(info(t.t).srtt_us, (7 * 100'000u + 200'000) / 8);
  EXPECT_EQ(info(t.t).rttvar_us, (3 * 50'000u + 100'000) / 4);
  EXPECT_EQ(info(t.t).rto_ms, (112'500u + 4 * 62'500) / 1000);
}

TEST(Rto, IsRestartedByProgressAndStoppedByTheLastAck) {  // RFC 6298 5.2, 5.3
  Sender t(false);
  t.burst(3000);
  const TimeNs rto = ms(info(t.t).rto_ms);
  t.now += ms(300);
  t.recv(". 1 ack 1001");
  const TimeNs again = ms(info(t.t).rto_ms);
  EXPECT_GE(next_deadline(t.t), t.now + std::min(rto, again));
  t.recv(". 1 ack 3001");
  EXPECT_EQ(t.t.retransmit_at, base::kNever);
}

TEST(Karn, NoSampleFromARepeatedSegment) {
  Sender t(false);
  t.burst(1000);
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.drain();
  const uint32_t srtt = info(t.t).srtt_us;
  t.now += ms(1);
  t.recv(". 1 ack 1001");
  EXPECT_EQ(info(t.t).srtt_us, srtt);
  EXPECT_GE(info(t.t).rto_ms, 400u);  // the backed-off RTO stays until there is a sample (RFC 6298 5.7)
}

TEST(Karn, TimestampsMeasureRepeatedSegments) {  // RFC 7323 4.1
  Config c = TcpDialog::plain();
  c.timestamps = true;
  TcpDialog t(c);
  t.listen("S 0 <mss 1012,ts 1000 0>");
  t.drain();
  t.now += ms(50);
  t.recv(". 1 ack 1 <ts 1001 100000>");
  t.write(1000);
  t.drain();
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.drain();
  const uint32_t sent_at = t.ts_now();
  t.now += ms(50);
  t.recv(". 1 ack 1001 <ts 1002 " + std::to_string(sent_at) + ">");
  EXPECT_EQ(info(t.t).srtt_us, 50'000u);
  EXPECT_LT(info(t.t).rto_ms, 300u);
}

TEST(Rto, UserTimeoutEndsIt) {  // RFC 9293 3.8.3
  Sender t(false);
  t.write(1000);
  t.expect("P. 1:1001(1000) ack 1");
  const TimeNs start = t.now;
  EXPECT_EQ(event_names(t.pass(t.config.user_timeout_ns)), "timed-out closed");
  EXPECT_EQ(t.now, start + t.config.user_timeout_ns);
}

TEST(Rto, UserTimeoutStartsAgainWithProgress) {
  Sender t(false);
  t.burst(2000);
  t.pass(sec(100));
  t.recv(". 1 ack 1001");
  t.drain();
  EXPECT_EQ(event_names(t.pass(sec(100))), "");
  EXPECT_EQ(event_names(t.pass(sec(20))), "timed-out closed");
}

// --- cwnd

TEST(Cwnd, RestartsAfterIdle) {  // RFC 5681 4.1
  Sender t(false);
  uint32_t acked = 1;
  for (int i = 0; i < 4; ++i) {
    t.write(40'000);
    for (size_t n = t.drain().size(); n > 0; n = t.drain().size()) {
      acked += static_cast<uint32_t>(n) * 1000;
      t.o = acked;
      t.recv(". 1 ack o");
    }
  }
  EXPECT_GT(info(t.t).cwnd, 20'000u);
  t.now += sec(10);
  EXPECT_EQ(t.burst(40'000), 10u);
}

// A burst of ACKs is taken in before anything goes out: each of them found the window full.
TEST(Cwnd, GrowsWithEachAckOfABurst) {
  Sender t(false);
  t.write(100'000);
  EXPECT_EQ(t.drain().size(), 10u);
  t.recv(". 1 ack 2001");
  t.recv(". 1 ack 4001");
  t.recv(". 1 ack 6001");
  EXPECT_EQ(info(t.t).cwnd, 16'000u);
}

// Once everything is out and acknowledged, a window that was too small before says nothing any more.
TEST(Cwnd, ForgetsThatItWasTooSmall) {
  Sender t(false);
  t.write(11'000);
  EXPECT_EQ(t.drain().size(), 10u);
  t.recv(". 1 ack 2001");
  EXPECT_EQ(info(t.t).cwnd, 12'000u);
  t.drain();
  t.recv(". 1 ack 11001");
  const uint32_t cwnd = info(t.t).cwnd;
  for (uint32_t i = 0; i < 20; ++i) {
    t.write(1000);
    t.drain();
    t.o = 12'001 + i * 1000;
    t.recv(". 1 ack o");
  }
  EXPECT_EQ(info(t.t).cwnd, cwnd);
}

TEST(Cwnd, DoesNotGrowWhileTheApplicationIsSlow) {  // RFC 7661, RFC 9438 5.8
  Sender t(false);
  for (uint32_t i = 0; i < 100; ++i) {
    t.write(1000);
    t.drain();
    t.o = 1001 + i * 1000;
    t.recv(". 1 ack o");
  }
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
}

TEST(Cwnd, SlowStartThenOneSegmentAWindow) {
  Config c = TcpDialog::plain();
  c.congestion = CongestionAlgorithm::kReno;
  Sender t(false, c);
  t.t.congestion.ssthresh = 12'000;
  t.write(60'000);
  t.drain();
  t.recv(". 1 ack 2001");
  EXPECT_EQ(info(t.t).cwnd, 12'000u);
  t.drain();
  for (uint32_t o = 4001; o <= 12'001; o += 2000) {
    t.o = o;
    t.recv(". 1 ack o");
    t.drain();
  }
  EXPECT_EQ(info(t.t).cwnd, 12'000u);
  t.recv(". 1 ack 14001");
  EXPECT_EQ(info(t.t).cwnd, 13'000u);
}

TEST(Cubic, FollowsTheCurve) {  // RFC 9438 4.2: W(t) = C (t - K)^3 + W_max
  Congestion c;
  Growth g;
  congestion_init(c, 1000);
  c.cwnd = 1'000'000;
  TimeNs now = sec(1);
  congestion_on_loss(c, CongestionAlgorithm::kCubic, &g, 1'000'000, 1000);
  EXPECT_EQ(c.cwnd, 700'000u);
  const double k = std::cbrt(300 / 0.4);
  const TimeNs start = now;
  const auto run_until = [&](double seconds) {  // one ACK a millisecond for a hundredth of the window: 100 ms round trip
    while (static_cast<double>(now - start) * 1e-9 < seconds) {
      congestion_on_ack(c, CongestionAlgorithm::kCubic, &g,
                        {.acked = c.cwnd / 100, .mss = 1000, .srtt_us = 100'000, .cwnd_limited = true, .now = now});
      now += ms(1);
    }
  };
  for (const double at : {k / 4, k / 2, k, 1.5 * k}) {
    run_until(at);
    const double expected = 0.4 * std::pow(at - k, 3) + 1000;
    EXPECT_NEAR(c.cwnd / 1000.0, expected, expected * 0.02) << "after " << at << " s";
  }
}

TEST(Cubic, IsAtLeastAsGoodAsRenoOnShortPaths) {  // RFC 9438 4.3
  Congestion c;
  Growth g;
  congestion_init(c, 1000);
  c.cwnd = 20'000;
  TimeNs now = sec(1);
  congestion_on_loss(c, CongestionAlgorithm::kCubic, &g, 20'000, 1000);
  EXPECT_EQ(c.cwnd, 14'000u);
  // 100 round trips of 1 ms: the cubic curve has not moved, Reno gained 0.53 segments each until 20, then one each.
  for (int round = 0; round < 30; ++round, now += ms(1)) {
    const uint32_t window = c.cwnd;
    for (uint32_t acked = 0; acked < window; acked += 2000)
      congestion_on_ack(c, CongestionAlgorithm::kCubic, &g,
                        {.acked = 2000, .mss = 1000, .srtt_us = 1000, .cwnd_limited = true, .now = now});
  }
  EXPECT_NEAR(c.cwnd, 14'000 + 12 * 529 + 18 * 1000, 4000);
}

TEST(Cubic, FastConvergenceAndFloor) {  // RFC 9438 4.6, 4.7
  Congestion c;
  Growth g;
  congestion_init(c, 1000);
  c.cwnd = 100'000;
  congestion_on_loss(c, CongestionAlgorithm::kCubic, &g, 100'000, 1000);
  EXPECT_FLOAT_EQ(g.cubic.w_max, 100);
  congestion_on_loss(c, CongestionAlgorithm::kCubic, &g, 70'000, 1000);
  EXPECT_FLOAT_EQ(g.cubic.w_max, 70 * 0.85f);
  congestion_on_loss(c, CongestionAlgorithm::kCubic, &g, 1000, 1000);
  EXPECT_EQ(c.cwnd, 2000u);
}

TEST(Congestion, InitialWindow) {  // RFC 6928 2
  EXPECT_EQ(initial_window(1460), 14'600u);
  EXPECT_EQ(initial_window(536), 5'360u);
  EXPECT_EQ(initial_window(8960), 17'920u);
}

}  // namespace
}  // namespace millrace::tcp
