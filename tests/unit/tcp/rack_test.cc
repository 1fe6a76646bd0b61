// Losses found by time (RFC 8985): RACK with its reordering window, tail loss probes; retransmissions that were a mistake taken
// back (RFC 3522, 3708, 4015, 5682).
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

Config reno(bool timestamps = false) {
  Config c = TcpDialog::plain();
  c.congestion = CongestionAlgorithm::kReno;
  c.timestamps = timestamps;
  return c;
}

// 1000-byte segments, 20 ms of round trip.
struct Racked : TcpDialog {
  explicit Racked(Config c = reno()) : TcpDialog(c) {
    handshake_takes = ms(20);
    establish(c.timestamps ? "<mss 1012,sackOK,ts 1000 0>" : "<mss 1000,sackOK>");
  }
  size_t burst(uint32_t bytes) {
    write(bytes);
    return drain().size();
  }
  const RecoveryCounts& counts() const { return repairs.counts(); }
  void timeout() {
    while (t.timeouts == 0) {
      drain();
      now = next_deadline(t);
      on_deadline(t, now);
    }
  }
};

// --- RACK (6.2)

TEST(Rack, ALostRetransmissionGoesAgainWithoutATimeout) {  // what counting duplicates cannot see
  Racked t;
  EXPECT_EQ(t.burst(10'000), 10u);
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 1001:4001>");
  t.expect(". 1:1001(1000) ack 1");  // lost again
  t.now += ms(1);
  t.write(10'000);
  t.recv(". 1 ack 1 <sack 1001:10001>");
  EXPECT_GT(t.drain().size(), 2u);  // new data, sent after the retransmission
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 10001:11001,sack 1001:10001>");
  t.expect(". 1:1001(1000) ack 1");
  EXPECT_EQ(t.t.timeouts, 0u);
  EXPECT_EQ(t.counts().lost_again, 1u);
  EXPECT_EQ(t.counts().reno_recoveries, 0u);
}

TEST(Rack, FewReportsWaitForTheReorderingWindow) {  // step 4: min_RTT / 4
  Racked t;
  EXPECT_EQ(t.burst(4000), 4u);
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 1001:2001>");
  t.expect_nothing();
  EXPECT_EQ(t.t.recovery, Recovery::kOpen);
  t.deadline(ms(5), ms(1));
  t.expect(". 1:1001(1000) ack 1");
  EXPECT_EQ(t.t.recovery, Recovery::kFast);
}

TEST(Rack, ReorderingWithinTheWindowCostsNothing) {
  Racked t;
  t.burst(4000);
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 1001:2001>");
  t.now += ms(3);
  t.recv(". 1 ack 2001");
  EXPECT_EQ(t.pass(ms(20)), 0u);
  EXPECT_EQ(info(t.t).retransmits, 0u);
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
}

TEST(Rack, OnceReorderingWasSeenThreeReportsWaitToo) {  // step 4: not without a window any more
  Racked t;
  t.burst(5000);
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 1001:2001>");
  t.now += ms(1);
  t.recv(". 1 ack 2001");
  EXPECT_TRUE(t.t.reordering_seen);
  EXPECT_EQ(t.counts().reorderings, 1u);
  t.recv(". 1 ack 5001");
  t.burst(8000);
  t.now += ms(20);
  t.recv(". 1 ack 5001 <sack 6001:10001>");
  t.expect_nothing();
  t.deadline(ms(5), ms(2));
  t.expect(". 5001:6001(1000) ack 1");
}

TEST(Rack, DuplicatesReportedWidenTheWindow) {  // step 4: RACK.reo_wnd_mult, once a round trip
  Rack r;
  r.min_rtt_us = 20'000;
  EXPECT_EQ(rack_window(r, true, true, 40'000), 5'000u);
  EXPECT_EQ(rack_window(r, false, true, 40'000), 0u);
  EXPECT_EQ(rack_window(r, false, false, 40'000), 5'000u);
  rack_dsack(r, 0, 1000);
  rack_dsack(r, 500, 2000);  // the same round
  EXPECT_EQ(rack_window(r, true, true, 40'000), 10'000u);
  rack_dsack(r, 1000, 3000);
  EXPECT_EQ(rack_window(r, true, true, 40'000), 15'000u);
  for (uint32_t i = 3; i < 20; ++i) rack_dsack(r, i * 1000, i * 1000 + 1000);
  EXPECT_EQ(rack_window(r, true, true, 40'000), 40'000u);  // never above SRTT
  for (int i = 0; i < 16; ++i) rack_recovered(r);
  EXPECT_EQ(rack_window(r, true, true, 40'000), 5'000u);
}

TEST(Rack, AReportOfARetransmissionThatCameTooSoonSaysNothing) {  // step 2: RTT below min_RTT
  Rack r;
  r.min_rtt_us = 10'000;
  Delivery d{.now_us = 50'000};
  rack_delivered(r, d, {.left = 0, .right = 1000, .sent_us = 45'000, .marks = Scoreboard::kRepeated, .whole = true});
  EXPECT_FALSE(r.valid);
  EXPECT_EQ(d.bytes, 1000u);
  d.now_us = 60'000;
  rack_delivered(r, d, {.left = 1000, .right = 2000, .sent_us = 45'000, .marks = Scoreboard::kRepeated, .whole = true});
  EXPECT_TRUE(r.valid);
  EXPECT_EQ(r.rtt_us, 15'000u);
}

// --- tail loss probes (7)

TEST(LossProbe, TheLastSegmentGoesAgainAfterTwoRoundTrips) {  // 7.2, 7.3
  Racked t;
  t.burst(3000);
  t.now += ms(20);
  t.recv(". 1 ack 1001");
  t.deadline(ms(42), ms(1));
  EXPECT_EQ(t.counts().loss_probes, 0u);
  t.expect("P. 2001:3001(1000) ack 1");
  t.expect_nothing();
  EXPECT_EQ(t.counts().loss_probes, 1u);
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
  EXPECT_EQ(t.t.timeouts, 0u);
  t.deadline(ms(200), ms(20));  // then the RTO
  EXPECT_EQ(t.t.timeouts, 1u);
}

TEST(LossProbe, NewDataServesIfThereIsAny) {  // 7.3, whatever cwnd says
  Racked t;
  EXPECT_EQ(t.burst(12'000), 10u);
  t.deadline(ms(42), ms(1));
  t.expect(". 10001:11001(1000) ack 1");
  t.expect_nothing();
}

TEST(LossProbe, ASingleSegmentMayBeWaitingForADelayedAck) {  // 7.2: 200 ms more, which is the RTO's business
  Racked t;
  t.burst(1000);
  t.deadline(ms(200), ms(20));
  EXPECT_EQ(t.t.timeouts, 1u);
}

TEST(LossProbe, ItsReportStartsRecovery) {  // what it is for: tail losses become ordinary ones
  Racked t;
  t.burst(5000);
  t.now += ms(20);
  t.recv(". 1 ack 1001");  // the rest is lost
  t.deadline(ms(42), ms(1));
  t.expect("P. 4001:5001(1000) ack 1");
  t.now += ms(20);
  t.recv(". 1 ack 1001 <sack 4001:5001>");
  t.expect(". 1001:2001(1000) ack 1");  // sent long before the probe that came through
  EXPECT_EQ(t.t.recovery, Recovery::kFast);
  t.recv(". 1 ack 5001");
  EXPECT_EQ(t.t.timeouts, 0u);
}

TEST(LossProbe, ALossThatItRepairedReducesTheWindow) {  // 7.4
  Racked t;
  t.burst(4000);
  t.now += ms(20);
  t.recv(". 1 ack 2001");
  t.deadline(ms(42), ms(1));
  t.expect("P. 3001:4001(1000) ack 1");
  t.now += ms(20);
  t.recv(". 1 ack 4001");
  t.write(1000);
  t.drain();
  t.now += ms(20);
  t.recv(". 1 ack 5001");  // beyond the probe, and no duplicate was reported
  EXPECT_EQ(info(t.t).ssthresh, 2000u);
  EXPECT_EQ(info(t.t).cwnd, 2000u);
  EXPECT_EQ(t.counts().probes_repaired, 1u);
}

TEST(LossProbe, ADuplicateReportedMeansThatNothingWasLost) {  // 7.4, case 1
  Racked t;
  t.burst(4000);
  t.now += ms(20);
  t.recv(". 1 ack 2001");
  t.deadline(ms(42), ms(1));
  t.expect("P. 3001:4001(1000) ack 1");
  t.recv(". 1 ack 4001");
  t.recv(". 1 ack 4001 <sack 3001:4001>");
  t.write(1000);
  t.drain();
  t.now += ms(20);
  t.recv(". 1 ack 5001");
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
  EXPECT_EQ(t.counts().duplicates_below, 1u);
  EXPECT_EQ(t.counts().probes_repaired, 0u);
}

TEST(LossProbe, NoneWithoutSack) {
  TcpDialog t(reno());
  t.handshake_takes = ms(20);
  t.establish("<mss 1000>");
  t.write(5000);
  t.drain();
  t.deadline(ms(200), ms(20));
  EXPECT_EQ(t.t.timeouts, 1u);
}

// --- mistakes taken back

TEST(Spurious, AnOldEchoTakesATimeoutBack) {  // RFC 3522, 4015
  Racked t(reno(true));
  t.burst(8000);
  const uint32_t sent_at = t.ts_now();
  t.timeout();
  t.expect(". 1:1001(1000) ack 1");
  EXPECT_EQ(info(t.t).cwnd, 1000u);
  t.now += ms(5);
  t.recv(". 1 ack 1001 <ts 1002 " + std::to_string(sent_at) + ">");  // the original's ACK, late
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
  EXPECT_EQ(info(t.t).ssthresh, UINT32_MAX);
  EXPECT_EQ(t.t.recovery, Recovery::kOpen);
  EXPECT_EQ(t.counts().undone_timeouts, 1u);
  EXPECT_EQ(t.counts().undone_by_echoes, 0u);
  t.expect_nothing();
}

TEST(Spurious, AFreshEchoDoesNot) {
  Racked t(reno(true));
  t.burst(8000);
  t.timeout();
  t.expect(". 1:1001(1000) ack 1");
  const uint32_t again_at = t.ts_now();
  t.now += ms(20);
  t.recv(". 1 ack 1001 <ts 1002 " + std::to_string(again_at) + ">");
  EXPECT_EQ(t.t.recovery, Recovery::kTimeout);
  EXPECT_EQ(t.drain().size(), 2u);
  EXPECT_EQ(t.counts().undone_timeouts, 0u);
}

TEST(Spurious, AnOldEchoTakesAFastRetransmitBack) {  // RFC 3522
  Racked t(reno(true));
  t.burst(8000);
  const uint32_t sent_at = t.ts_now();
  t.now += ms(20);
  t.recv(". 1 ack 1 <ts 1001 " + std::to_string(sent_at) + ",sack 1001:5001>");
  t.expect(". 1:1001(1000) ack 1");
  EXPECT_LT(info(t.t).ssthresh, 10'000u);
  t.now += ms(5);
  t.recv(". 1 ack 5001 <ts 1002 " + std::to_string(sent_at) + ">");
  EXPECT_EQ(info(t.t).cwnd, 10'000u);
  EXPECT_EQ(t.t.recovery, Recovery::kOpen);
  EXPECT_EQ(t.counts().undone_by_echoes, 1u);
}

TEST(Spurious, EveryRepeatedByteReportedTwiceTakesARecoveryBack) {  // RFC 3708
  Racked t;
  t.burst(8000);
  t.now += ms(20);
  t.recv(". 1 ack 1 <sack 1001:5001>");
  t.expect(". 1:1001(1000) ack 1");
  t.now += ms(5);
  t.recv(". 1 ack 5001");  // the original came late
  EXPECT_EQ(t.t.recovery, Recovery::kFast);
  t.now += ms(15);
  t.recv(". 1 ack 8001 <sack 1:1001>");  // and the copy after it
  EXPECT_GE(info(t.t).cwnd, 10'000u);
  EXPECT_EQ(t.t.recovery, Recovery::kOpen);
  EXPECT_EQ(t.counts().undone_by_duplicates, 1u);
}

TEST(Frto, AfterTheFirstAckNewDataIsSentAndTheSecondDecides) {  // RFC 5682 3.1
  for (const bool mistaken : {true, false}) {
    Racked t;
    EXPECT_EQ(t.burst(20'000), 10u);
    t.timeout();
    const uint32_t probe = t.t.snd_max - TcpDialog::kIss;  // a tail loss probe went before
    t.expect(". 1:1001(1000) ack 1");
    t.expect_nothing();
    t.now += ms(20);
    t.recv(". 1 ack 1001");
    t.o = probe;
    t.expect(". o:o+1000(1000) ack 1");  // step 2b: new data, no repetition
    t.expect(". o+1000:o+2000(1000) ack 1");
    t.expect_nothing();
    t.now += ms(20);
    if (mistaken) {
      t.recv(". 1 ack 3001");  // step 3b: what was sent once arrived
      EXPECT_EQ(t.t.recovery, Recovery::kOpen);
      EXPECT_GE(info(t.t).cwnd, 10'000u);
      EXPECT_EQ(info(t.t).ssthresh, UINT32_MAX);
      EXPECT_EQ(t.counts().spurious_timeouts, 1u);
    } else {
      t.recv(". 1 ack 1001 <sack o:o+1000>");  // step 3a: only what is new
      EXPECT_EQ(t.t.recovery, Recovery::kTimeout);
      EXPECT_EQ(t.counts().spurious_timeouts, 0u);
      t.expect(". 1001:2001(1000) ack 1");
    }
  }
}

}  // namespace
}  // namespace millrace::tcp
