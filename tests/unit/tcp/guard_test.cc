// What protects a connection: PAWS, challenge ACKs and their limit, keepalive, path MTU messages, sequence numbers that go round.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;

Config with_timestamps() {
  Config c = TcpDialog::plain();
  c.timestamps = true;
  return c;
}

// --- PAWS (RFC 7323 5)

TEST(Paws, OldTimestampIsAcknowledgedAndDropped) {
  TcpDialog t(with_timestamps());
  t.establish("<mss 1460,ts 1000 0>");
  t.recv("P. 1:11(10) ack 1 <ts 2000 100000>");
  t.expect(". 1 ack 11 <ts 100000 2000>");
  t.recv("P. 11:21(10) ack 1 <ts 1999 100000>");
  EXPECT_EQ(t.last.drop, DropReason::kTcpPaws);
  EXPECT_EQ(t.last.events, 0u);
  t.expect(". 1 ack 11 <ts 100000 2000>");
  t.recv("P. 11:21(10) ack 1 <ts 2000 100000>");  // equal is good
  EXPECT_EQ(t.last.drop, DropReason::kNone);
  t.recv("P. 31:41(10) ack 1 <ts 2000 100000>");  // off the fast path too
  EXPECT_EQ(t.last.drop, DropReason::kNone);
  t.recv("P. 31:41(10) ack 1 <ts 1999 100000>");
  EXPECT_EQ(t.last.drop, DropReason::kTcpPaws);
}

TEST(Paws, GoesRound) {
  TcpDialog t(with_timestamps());
  t.listen("S 0 <mss 1460,ts 4294967290 0>");
  t.drain();
  t.recv(". 1 ack 1 <ts 4294967295 100000>");
  t.recv("P. 1:11(10) ack 1 <ts 3 100000>");
  EXPECT_EQ(t.last.drop, DropReason::kNone);
  EXPECT_EQ(t.t.ts_recent, 3u);
}

TEST(Paws, DoesNotProtectFromResets) {  // RFC 7323 5.2
  TcpDialog t(with_timestamps());
  t.establish("<mss 1460,ts 1000 0>");
  t.recv("R 1 <ts 1 0>");
  EXPECT_EQ(event_names(t.last.events), "reset closed");
}

TEST(Paws, OutdatedAfterTwentyFourDays) {  // RFC 7323 5.5
  Config c = with_timestamps();
  c.keepalive_idle_ns = 0;
  TcpDialog t(c);
  t.establish("<mss 1460,ts 1000 0>");
  t.now += sec(25 * 86'400);
  t.recv("P. 1:11(10) ack 1 <ts 5 100000>");
  EXPECT_EQ(t.last.drop, DropReason::kNone);
}

TEST(Paws, OutOfOrderSegmentDoesNotMoveTheClock) {  // RFC 7323 4.3: SEG.SEQ <= Last.ACK.sent
  TcpDialog t(with_timestamps());
  t.establish("<mss 1460,ts 1000 0>");
  t.recv("P. 11:21(10) ack 1 <ts 3000 100000>");
  t.drain();
  t.recv("P. 1:11(10) ack 1 <ts 2000 100000>");  // the earlier one, delayed
  EXPECT_EQ(t.last.drop, DropReason::kNone);
  t.expect(". 1 ack 21 <ts 100000 2000>");
}

TEST(Timestamps, SegmentWithoutThemIsAccepted) {  // deviation from RFC 7323 3.2, see README
  TcpDialog t(with_timestamps());
  t.establish("<mss 1460,ts 1000 0>");
  t.recv("P. 1:11(10) ack 1");
  EXPECT_EQ(event_names(t.last.events), "readable");
}

// --- RFC 5961

TEST(Challenge, RateIsLimited) {
  TcpDialog t;
  t.establish();
  uint32_t answered = 0;
  for (int i = 0; i < 100; ++i) {
    t.recv("R 100");
    EXPECT_EQ(t.last.drop, DropReason::kTcpChallenged);
    answered += static_cast<uint32_t>(t.drain().size());
  }
  EXPECT_EQ(answered, kChallengesPerSecond);
  t.now += sec(1);
  t.recv("R 100");
  t.expect(". 1 ack 1");
}

TEST(Challenge, DataIsAlwaysAcknowledged) {
  TcpDialog t;
  t.establish();
  for (int i = 0; i < 100; ++i) {
    t.recv("P. -9:1(10) ack 1");
    t.expect(". 1 ack 1");
  }
}

TEST(Challenge, BlindDataNeedsAPlausibleAck) {  // RFC 5961 5.2
  TcpDialog t;
  t.establish("<mss 1460>", 1000);
  t.recv("P. 1:11(10) ack -1000");
  EXPECT_EQ(t.last.drop, DropReason::kTcpAckUnacceptable);
  t.drain();
  t.recv("P. 1:11(10) ack -999");
  EXPECT_EQ(event_names(t.last.events), "readable");
}

// --- keepalive (RFC 9293 3.8.4)

TEST(Keepalive, ProbesThenGivesUp) {
  TcpDialog t;
  t.establish();
  EXPECT_EQ(t.deadline(sec(300)), 0u);
  t.expect(". 0 ack 1");
  t.expect_nothing();
  for (int i = 1; i < 4; ++i) {
    EXPECT_EQ(t.deadline(sec(30)), 0u);
    t.expect(". 0 ack 1");
  }
  EXPECT_EQ(event_names(t.deadline(sec(30))), "timed-out closed");
  t.expect("R. 1 ack 1");
}

TEST(Keepalive, AnAnswerIsEnough) {
  TcpDialog t;
  t.establish();
  for (int i = 0; i < 3; ++i) {
    t.deadline(sec(300));
    t.expect(". 0 ack 1");
    t.recv(". 1 ack 1");
    t.now += ms(0);
    EXPECT_EQ(next_deadline(t.t), t.now + sec(300));
  }
}

TEST(Keepalive, TrafficPutsItOff) {
  TcpDialog t;
  t.establish();
  for (uint32_t i = 0; i < 10; ++i) {
    EXPECT_EQ(t.pass(sec(200)), 0u);
    t.p = 1 + i * 10;
    t.recv("P. p:p+10(10) ack 1");
    t.drain();
  }
  EXPECT_EQ(t.t.keepalives_sent, 0);
  EXPECT_EQ(info(t.t).state, State::kEstablished);
}

TEST(Keepalive, CanBeOff) {
  Config c = TcpDialog::plain();
  c.keepalive_idle_ns = 0;
  TcpDialog t(c);
  t.establish();
  EXPECT_EQ(next_deadline(t.t), base::kNever);
}

TEST(Keepalive, PeersProbesAreAnswered) {
  TcpDialog t;
  t.establish();
  t.recv(". 0 ack 1");
  t.expect(". 1 ack 1");
  t.recv(". 0:1(1) ack 1");  // with the garbage octet of old stacks
  t.expect(". 1 ack 1");
}

// --- path MTU (RFC 1191, 8201, 5927)

TEST(PathMtu, SmallerSegmentsFromNowOn) {
  TcpDialog t;
  t.establish();
  t.write(4000);
  EXPECT_EQ(t.drain().size(), 3u);
  const uint32_t cwnd = info(t.t).cwnd;
  on_path_mtu(t.t, 1000, TcpDialog::kIss + 1, t.now);
  EXPECT_EQ(effective_mss(t.t), 960u);
  EXPECT_EQ(info(t.t).cwnd, cwnd);  // not congestion
  t.expect(". 1:961(960) ack 1");
  t.expect(". 961:1921(960) ack 1");
  t.expect(". 1921:2881(960) ack 1");
  t.expect(". 2881:3841(960) ack 1");
  t.expect("P. 3841:4001(160) ack 1");
  t.recv(". 1 ack 4001");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
}

TEST(PathMtu, ForgedMessagesAreIgnored) {
  TcpDialog t;
  t.establish();
  t.write(1000);
  t.drain();
  on_path_mtu(t.t, 1000, TcpDialog::kIss, t.now);         // acknowledged before
  on_path_mtu(t.t, 1000, TcpDialog::kIss + 1001, t.now);  // never sent
  on_path_mtu(t.t, 1500, TcpDialog::kIss + 1, t.now);     // not smaller
  EXPECT_EQ(effective_mss(t.t), 1460u);
  on_path_mtu(t.t, 68, TcpDialog::kIss + 1, t.now);  // smaller than any path
  EXPECT_EQ(effective_mss(t.t), kMinPathMtuV4 - 40);
}

// --- the owner's side

TEST(Owner, IdleConnectionHoldsNoPacket) {
  TcpDialog t;
  t.establish();
  t.write(5000);
  t.drain();
  t.recv("P. 1:1001(1000) ack 5001");
  t.drain();
  t.read();
  EXPECT_TRUE(t.pool.balanced());
}

TEST(Owner, ReleasedTcbCanBeUsedAgain) {
  TcpDialog t;
  t.establish();
  t.write(100);
  t.recv("P. 1:1001(1000) ack 1");
  release(t.t);
  EXPECT_EQ(state(t.t), State::kClosed);
  EXPECT_TRUE(t.pool.balanced());
  t.written = 0;
  t.establish();
}

TEST(Owner, EmptyPoolTakesWhatItCan) {
  TcpDialog t;
  t.establish();
  t.pool.set_limit(2);
  std::vector<uint8_t> bytes(10'000, 1);
  const size_t taken = send_copy(t.t, bytes, t.pool);
  EXPECT_EQ(taken, 2u * t.pool.pool().data_room());
  EXPECT_EQ(bytes_unacked(t.t), taken);
}

TEST(Owner, LostMbufIsJustALostSegment) {
  TcpDialog t;
  t.establish();
  t.write(500);
  t.drain();  // "sent", but the port had no buffer
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.expect("P. 1:501(500) ack 1");
}

TEST(Owner, SizesAreWhatTheReadmeSays) {
  EXPECT_EQ(sizeof(Tcb), 256u);
  EXPECT_EQ(sizeof(TimeWaitEntry), 64u);
}

}  // namespace
}  // namespace millrace::tcp
