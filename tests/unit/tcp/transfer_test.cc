// Data both ways: delayed ACK, Nagle, silly windows, zero windows and their probes, the receive window's growth, data out of
// order.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;

Config delayed() {
  Config c = TcpDialog::plain();
  c.delayed_ack = true;
  return c;
}

// --- acknowledging (RFC 9293 3.8.6.3)

TEST(DelayedAck, OneSegmentWaits) {
  TcpDialog t(delayed());
  t.establish();
  t.recv("P. 1:1001(1000) ack 1");
  t.expect_nothing();
  EXPECT_EQ(t.deadline(ms(40)), 0u);
  t.expect(". 1 ack 1001");
  t.expect_nothing();
}

TEST(DelayedAck, EverySecondFullSegment) {
  TcpDialog t(delayed());
  t.establish();
  for (uint32_t n = 0; n < 6; ++n) {
    t.p = 1 + n * 1460;
    t.recv(". p:p+1460(1460) ack 1");
    if (n % 2 == 0) t.expect_nothing();
    else t.expect(". 1 ack p+1460");
  }
}

TEST(DelayedAck, RidesOnData) {
  TcpDialog t(delayed());
  t.establish();
  t.recv("P. 1:101(100) ack 1");
  t.write(200);
  t.expect("P. 1:201(200) ack 101");
  t.expect_nothing();
  EXPECT_GT(next_deadline(t.t), t.now + ms(40));  // no ACK timer is left: what remains is the RTO
}

TEST(DelayedAck, AtOnceForWhatIsOutOfOrderAndForWhatFillsTheGap) {  // RFC 5681 4.2
  TcpDialog t(delayed());
  t.establish();
  t.recv(". 1461:2921(1460) ack 1");
  t.expect(". 1 ack 1");
  t.recv(". 1:1461(1460) ack 1");
  t.expect(". 1 ack 2921");
  t.recv("P. 2931:2941(10) ack 1");  // and the same for small ones, which no count of segments would hurry
  t.expect(". 1 ack 2921");
  t.recv("P. 2921:2931(10) ack 1");
  t.expect(". 1 ack 2941");
}

TEST(DelayedAck, AtOnceForFin) {
  TcpDialog t(delayed());
  t.establish();
  t.recv("F. 1 ack 1");
  t.expect(". 1 ack 2");
}

// --- sending

TEST(Send, InSegmentsOfTheMssWithPushAtTheEnd) {
  TcpDialog t;
  t.establish("<mss 1000>");
  t.write(2500);
  t.expect(". 1:1001(1000) ack 1");
  t.expect(". 1001:2001(1000) ack 1");
  t.expect("P. 2001:2501(500) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 2001");
  EXPECT_EQ(event_names(t.last.events), "send-space");
  EXPECT_EQ(bytes_unacked(t.t), 500u);
  t.recv(". 1 ack 2501");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
}

TEST(Send, LargeSegmentsForPortsThatCut) {
  TcpDialog t;
  t.establish("<mss 1000>");
  t.write(4500);
  OutSegment out;
  ASSERT_TRUE(poll_output(t.t, t.now, out, 3500));
  EXPECT_EQ(out.payload_len, 3000u);  // a multiple
  EXPECT_EQ(out.segment_size, 1000u);
  t.expect(". 3001:4001(1000) ack 1", 3500);
  t.expect("P. 4001:4501(500) ack 1", 3500);
}

TEST(Send, InitialWindowOfTen) {  // RFC 6928
  TcpDialog t;
  t.establish("<mss 1000>");
  t.write(30'000);
  EXPECT_EQ(t.drain().size(), 10u);
  t.recv(". 1 ack 2001");
  EXPECT_EQ(t.drain().size(), 4u);  // slow start: two that left, two more
}

TEST(Send, SpaceIsBounded) {
  Config c = TcpDialog::plain();
  c.snd_buf = 5000;
  TcpDialog t(c);
  t.establish();
  EXPECT_EQ(send_space(t.t), 5000u);
  t.write(3000);
  EXPECT_EQ(send_space(t.t), 2000u);
  t.write(2000);
  EXPECT_EQ(send_space(t.t), 0u);
  t.drain();
  t.recv(". 1 ack 1461");
  EXPECT_EQ(send_space(t.t), 1460u);
  t.close();
  EXPECT_EQ(send_space(t.t), 0u);
  tcp::send(t.t, t.pool.make(std::string_view("late")));  // refused, freed
  EXPECT_EQ(bytes_unacked(t.t), 3540u);
}

TEST(Send, NagleHoldsSmallSegmentsBack) {  // RFC 9293 3.7.4
  Config c = TcpDialog::plain();
  c.nodelay = false;
  TcpDialog t(c);
  t.establish();
  t.write(10);
  t.expect("P. 1:11(10) ack 1");
  t.write(10);
  t.expect_nothing();
  t.write(1460);
  t.expect(". 11:1471(1460) ack 1");
  t.expect_nothing();
  t.recv(". 1 ack 1471");
  t.expect("P. 1471:1481(10) ack 1");
  t.write(5);
  t.close();  // nothing more to wait for
  t.expect("FP. 1481:1486(5) ack 1");
}

TEST(Send, SillyWindowIsNotFilled) {  // RFC 9293 3.8.6.2.1
  TcpDialog t;
  t.establish("<mss 1460>", 10'000);
  t.recv(". 1 ack 1 win 500");
  t.write(5000);
  t.expect_nothing();                           // 500 is neither a segment nor half the largest window
  EXPECT_EQ(t.deadline(sec(1), ms(2000)), 0u);  // the override timer
  t.expect(". 1:501(500) ack 1");
}

TEST(Send, HalfTheLargestWindowIsWorthASegment) {
  TcpDialog t;
  t.establish("<mss 1460>", 1000);
  t.write(5000);
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 1001 win 499");
  t.expect_nothing();
  t.recv(". 1 ack 1001 win 500");
  t.expect(". 1001:1501(500) ack 1");
}

TEST(Send, NeverBeyondTheWindow) {
  TcpDialog t;
  t.establish("<mss 1000>", 2500);
  t.write(5000);
  t.expect(". 1:1001(1000) ack 1");
  t.expect(". 1001:2001(1000) ack 1");
  t.expect_nothing();  // 500 would be a silly segment
  t.recv(". 1 ack 1001 win 3000");
  t.expect(". 2001:3001(1000) ack 1");
  t.expect(". 3001:4001(1000) ack 1");
  t.expect_nothing();
}

TEST(Send, OldWindowUpdatesAreIgnored) {  // RFC 9293 3.10.7.4: SND.WL1, SND.WL2
  TcpDialog t;
  t.establish();
  t.recv("P. 1:11(10) ack 1 win 5000");
  t.recv(". 1 ack 1 win 9000");  // older segment: its sequence number is below
  EXPECT_EQ(info(t.t).snd_wnd, 5000u);
  t.recv(". 11 ack 1 win 7000");
  EXPECT_EQ(info(t.t).snd_wnd, 7000u);
}

// --- zero window (RFC 9293 3.8.6.1)

TEST(Persist, ProbesWithBackoffUntilTheWindowOpens) {
  TcpDialog t;
  t.establish();
  t.recv(". 1 ack 1 win 0");
  t.write(3000);
  t.expect_nothing();
  const TimeNs rto = ms(info(t.t).rto_ms);
  for (const uint32_t factor : {1, 2, 4, 8}) {
    EXPECT_EQ(t.deadline(rto * factor, ms(1)), 0u);
    t.expect(". 1:2(1) ack 1");
    t.expect_nothing();
    t.recv(". 1 ack 1 win 0");
    t.expect_nothing();
  }
  t.recv(". 1 ack 1 win 60000");
  t.expect(". 1:1461(1460) ack 1");
  t.expect(". 1461:2921(1460) ack 1");
  t.expect("P. 2921:3001(80) ack 1");
}

TEST(Persist, ProbedByteMayBeAccepted) {
  TcpDialog t;
  t.establish();
  t.recv(". 1 ack 1 win 0");
  t.write(3000);
  t.drain();
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.expect(". 1:2(1) ack 1");
  t.recv(". 1 ack 2 win 0");
  EXPECT_EQ(event_names(t.last.events), "send-space");
  t.expect_nothing();
  EXPECT_LT(next_deadline(t.t), t.now + sec(10));  // still probing
  t.recv(". 1 ack 2 win 60000");
  t.expect(". 2:1462(1460) ack 1");
}

TEST(Persist, FinWaitsBehindAZeroWindowAndIsProbedWith) {
  TcpDialog t;
  t.establish();
  t.recv(". 1 ack 1 win 0");
  t.close();
  t.expect_nothing();
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.expect("F. 1 ack 1");
  t.recv(". 1 ack 2 win 0");
  EXPECT_EQ(state(t.t), State::kFinWait2);
}

TEST(Persist, WindowThatClosesOverFlyingData) {
  TcpDialog t;
  t.establish();
  t.write(1000);
  t.expect("P. 1:1001(1000) ack 1");
  t.recv(". 1 ack 1 win 0");  // shrunk: RFC 9293 3.8.6 forbids it to them, and wants us to survive it
  t.expect_nothing();
  t.now = next_deadline(t.t);
  EXPECT_EQ(on_deadline(t.t, t.now), 0u);
  t.expect(". 1:2(1) ack 1");
  t.recv(". 1 ack 1 win 2000");
  t.expect("P. 1:1001(1000) ack 1");
  t.recv(". 1 ack 1001 win 2000");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
}

TEST(Persist, EndsWithTheUserTimeout) {
  TcpDialog t;
  t.establish();
  t.recv(". 1 ack 1 win 0");
  t.write(10);
  t.drain();
  const TimeNs start = t.now;
  uint32_t events = 0;
  while (events == 0) {
    t.now = next_deadline(t.t);
    events = on_deadline(t.t, t.now);
    if (events == 0) {
      t.drain();
      t.recv(". 1 ack 1 win 0");
    }
  }
  EXPECT_EQ(event_names(events), "timed-out closed");
  EXPECT_EQ(t.now - start, t.config.user_timeout_ns);
  t.expect("R. 2 ack 1");
}

// --- receiving

TEST(Window, ClosesWhenTheReaderDoesNotKeepUpAndReopensByAStep) {
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 10'000;
  TcpDialog t(c);
  t.establish();
  for (uint32_t at = 1; at < 10'001; at += 1000) {
    t.p = at;
    t.recv(". p:p+1000(1000) ack 1");
    t.drain();
  }
  EXPECT_EQ(info(t.t).rcv_wnd, 0u);
  t.p = 10'001;
  t.recv(". p:p+1(1) ack 1");  // a probe
  EXPECT_EQ(t.last.drop, DropReason::kTcpWindowOverflow);
  t.expect(". 1 ack 10001 win 0");
  EXPECT_EQ(t.read(1000), 1000u);
  t.expect_nothing();  // 1000 < MSS: a silly window
  EXPECT_EQ(t.read(1000), 1000u);
  t.expect(". 1 ack 10001 win 2000");
  EXPECT_EQ(t.read(8000), 8000u);
  t.expect(". 1 ack 10001 win 10000");
}

TEST(Window, AckAndResetAreHeardWhileItIsClosed) {  // RFC 9293 MUST-66
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 1000;
  TcpDialog t(c);
  t.establish();
  t.write(10);
  t.drain();
  t.recv("P. 1:1001(1000) ack 1");
  t.expect(". 11 ack 1001 win 0");
  t.recv("P. 1001:1011(10) ack 11");
  EXPECT_EQ(event_names(t.last.events), "send-space");
  t.expect(". 11 ack 1001 win 0");
  t.recv("R 1001");
  EXPECT_EQ(event_names(t.last.events), "reset closed");
  EXPECT_EQ(t.read(), 1000u);  // what had come stays readable
}

TEST(Window, BareFinNeedsNoRoom) {
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 1000;
  TcpDialog t(c);
  t.establish();
  t.recv("P. 1:1001(1000) ack 1");
  t.drain();
  t.recv("F. 1001 ack 1");
  EXPECT_EQ(event_names(t.last.events), "peer-fin");
}

TEST(Window, DataBeyondItIsCutOff) {
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 1000;
  TcpDialog t(c);
  t.establish();
  t.recv("FP. 1:1201(1200) ack 1");
  EXPECT_EQ(t.last.drop, DropReason::kTcpWindowOverflow);
  EXPECT_EQ(event_names(t.last.events), "readable");  // and no FIN: it lies behind what was cut
  t.expect(". 1 ack 1001 win 0");
  EXPECT_EQ(t.read(), 1000u);
}

TEST(Window, PeerThatFilledItStillAcknowledges) {
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 3000;
  TcpDialog t(c);
  t.establish();
  t.write(100);
  t.drain();
  t.recv(". 1001:2001(1000) ack 1");  // the first of three is lost
  t.recv(". 2001:3001(1000) ack 1");
  t.drain();
  t.recv(". 3001 ack 101");  // its ACK comes from the right edge exactly
  EXPECT_EQ(event_names(t.last.events), "send-space");
}

class WindowGrowth : public testing::TestWithParam<bool> {};
TEST_P(WindowGrowth, WhileTheReaderKeepsUp) {
  const bool may_grow = GetParam();
  Config c;
  c.rcv_wnd_initial = 16'000;
  c.rcv_buf = 128'000;
  c.timestamps = false;
  TcpDialog t(c);
  t.listen("S 0 win 60000 <mss 1460,sackOK,wscale 7>");
  t.drain();
  t.now += ms(10);
  t.recv(". 1 ack 1");
  EXPECT_EQ(info(t.t).srtt_us, 10'000u);
  uint32_t at = 1, window = info(t.t).rcv_wnd, steps = 0;
  for (int round = 0; round < 20; ++round) {  // a sender that fills the window once a round trip
    t.now += ms(10);
    const uint32_t fill = info(t.t).rcv_wnd / 1460;
    for (uint32_t i = 0; i < fill; ++i, at += 1460) {
      t.p = at;
      t.recv(". p:p+1460(1460) ack 1");
      t.read(UINT32_MAX, may_grow);
      t.drain();
    }
    const uint32_t now_window = info(t.t).rcv_wnd;
    if (now_window > window + 8000) ++steps;
    window = std::max(window, now_window);
  }
  if (!may_grow) {  // packet memory is short
    EXPECT_LE(window, 16'000u + 1460);
    return;
  }
  EXPECT_GT(window, 120'000u);
  EXPECT_LE(window, 128'000u + 1460);
  EXPECT_GE(steps, 3u);
}
INSTANTIATE_TEST_SUITE_P(Window, WindowGrowth, testing::Bool());

TEST(Window, DoesNotGrowForASlowSender) {
  Config c;
  c.rcv_wnd_initial = 16'000;
  c.rcv_buf = 128'000;
  TcpDialog t(c);
  t.listen("S 0 win 60000 <mss 1460>");
  t.drain();
  t.now += ms(10);
  t.recv(". 1 ack 1");
  for (uint32_t at = 1; at < 200'000; at += 1460) {
    t.now += ms(10);
    t.p = at;
    t.recv(". p:p+1460(1460) ack 1");
    t.read();
    t.drain();
  }
  EXPECT_LE(info(t.t).rcv_wnd, 16'000u);
}

TEST(Window, SmallPiecesAreChargedWhatTheyCost) {
  TcpDialog t;
  t.establish();
  uint32_t at = 1, sent = 0;
  while (info(t.t).rcv_wnd > 600 && sent < 1000) {
    t.p = at;
    t.recv("P. p:p+600(600) ack 1");  // each keeps its own packet
    t.drain();
    at += 600;
    ++sent;
  }
  EXPECT_LE(t.t.rx.truesize(), (60'000u + 600) * kReceiveTruesizeFactor + 20'000);
}

TEST(Receive, OutOfOrderInManyPieces) {
  TcpDialog t;
  t.establish_sack();
  t.recv("P. 301:401(100) ack 1");
  t.expect(". 1 ack 1 <sack 301:401>");
  t.recv("P. 101:201(100) ack 1");
  t.expect(". 1 ack 1 <sack 101:201,sack 301:401>");
  t.recv("P. 501:601(100) ack 1");
  t.expect(". 1 ack 1 <sack 501:601,sack 101:201,sack 301:401>");
  t.recv("P. 201:301(100) ack 1");
  t.expect(". 1 ack 1 <sack 101:401,sack 501:601>");
  t.recv("P. 1:101(100) ack 1");
  t.expect(". 1 ack 401 <sack 501:601>");
  t.recv("P. 351:551(200) ack 1");         // overlaps both
  t.expect(". 1 ack 601 <sack 351:401>");  // D-SACK: what of it was old
  t.expect_nothing();
  EXPECT_EQ(t.read(), 600u);
}

TEST(Receive, NoSackWithoutAgreement) {
  TcpDialog t;
  t.establish();
  t.recv("P. 301:401(100) ack 1");
  t.expect(". 1 ack 1 <>");
}

TEST(Receive, DuplicatesAreReported) {  // RFC 2883 4
  TcpDialog t;
  t.establish_sack();
  t.recv("P. 1:101(100) ack 1");
  t.expect(". 1 ack 101 <>");
  t.recv("P. 1:101(100) ack 1");
  EXPECT_EQ(t.last.drop, DropReason::kTcpOldDuplicate);
  t.expect(". 1 ack 101 <sack 1:101>");
  t.recv("P. 201:301(100) ack 1");
  t.expect(". 1 ack 101 <sack 201:301>");
  t.recv("P. 201:301(100) ack 1");
  EXPECT_EQ(t.last.drop, DropReason::kTcpOldDuplicate);
  t.expect(". 1 ack 101 <sack 201:301,sack 201:301>");
}

TEST(Receive, SackBlocksShortenOurSegments) {  // RFC 6691
  TcpDialog t;
  t.establish("<mss 1000,sackOK>");
  t.recv("P. 201:301(100) ack 1");
  t.recv("P. 401:501(100) ack 1");
  t.write(2000);
  t.expect(". 1:981(980) ack 1 <sack 401:501,sack 201:301>");
}

TEST(Receive, ReassemblyIsBounded) {
  Config c = TcpDialog::plain();
  c.rcv_buf = c.rcv_wnd_initial = 20'000;
  TcpDialog t(c);
  t.establish();
  uint32_t held = 0;
  for (uint32_t at = 3; at < 4'000; at += 2) {
    t.p = at;
    t.recv("P. p:p+1(1) ack 1");
    if (t.last.drop == DropReason::kTcpReassemblyFull) break;
    ++held;
    t.drain();
  }
  EXPECT_EQ(t.last.drop, DropReason::kTcpReassemblyFull);
  EXPECT_LE(held, 20'000u * kReceiveTruesizeFactor / 2'048);
  ASSERT_NE(t.t.repair, nullptr);
  EXPECT_LE(t.t.repair->reassembly.truesize(), 20'000u * kReceiveTruesizeFactor);
  t.drain();
}

TEST(Receive, FastPathAndSlowPathAgreeOnAPingPong) {
  TcpDialog t;
  t.establish();
  for (uint32_t i = 0; i < 1000; ++i) {
    t.p = 1 + i * 100;
    t.o = 1 + i * 50;
    t.recv("P. p:p+100(100) ack o");
    ASSERT_EQ(t.read(), 100u);
    t.write(50);
    t.expect("P. o:o+50(50) ack p+100");
    t.expect_nothing();
  }
}

}  // namespace
}  // namespace millrace::tcp
