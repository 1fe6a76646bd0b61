// Opening: options offered and agreed, repeats and giving up, SYN cookies, the listener, TIME-WAIT entries, sequence numbers.
#include "lib/tcp/syn_cookie.h"
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;
using Action = ListenerDecision::Action;

constexpr base::HashKey kKey{0x1122334455667788, 0x99aabbccddeeff00};

Config full() {
  Config c;
  c.rcv_buf = 262'144;
  c.rcv_wnd_initial = 65'536;
  return c;
}

TEST(ActiveOpen, OffersEverything) {
  TcpDialog t(full());
  t.connect();
  t.expect("S 0 win 65528 <mss 1460,sackOK,ts 100000 0,wscale 3>");
  t.expect_nothing();
  t.now += ms(30);
  t.recv("S. 0 ack 1 win 65535 <mss 1400,sackOK,ts 7000 100000,wscale 7>");
  EXPECT_EQ(event_names(t.last.events), "connected");
  t.expect(". 1 ack 1 win 8191 <ts 100030 7000>");  // the window of our SYN, scaled
  EXPECT_EQ(effective_mss(t.t), 1400 - 12);
  EXPECT_EQ(info(t.t).snd_wnd, 65'535u);  // the SYN-ACK's window is not scaled
  EXPECT_EQ(info(t.t).srtt_us, 30'000u);
  EXPECT_EQ(info(t.t).cwnd, 10u * 1388);
  t.recv(". 1 ack 1 win 1000 <ts 7001 100030>");
  EXPECT_EQ(info(t.t).snd_wnd, 128'000u);
}

struct Agreement {
  const char* peer;                // options of the peer's SYN
  bool sack, timestamps, scaling;  // ours
  const char* answer;              // options of our SYN-ACK
  uint16_t mss;                    // payload per segment
};
class Options : public testing::TestWithParam<Agreement> {};
TEST_P(Options, Passive) {
  const Agreement& a = GetParam();
  Config c = full();
  c.sack = a.sack;
  c.timestamps = a.timestamps;
  c.window_scaling = a.scaling;
  TcpDialog t(c);
  t.listen("S 0 win 60000 " + std::string(a.peer));
  t.expect("S. 0 ack 1 " + std::string(a.answer));
  EXPECT_EQ(effective_mss(t.t), a.mss);
}
INSTANTIATE_TEST_SUITE_P(
    Handshake, Options,
    testing::Values(Agreement{"<mss 1460,sackOK,ts 5 0,wscale 7>", true, true, true, "<mss 1460,sackOK,ts 100000 5,wscale 3>",
                              1448},
                    Agreement{"<mss 1460,sackOK,wscale 7>", true, true, true, "<mss 1460,sackOK,wscale 3>", 1460},
                    Agreement{"<mss 1460,sackOK,ts 5 0>", true, true, true, "<mss 1460,sackOK,ts 100000 5>", 1448},
                    Agreement{"<mss 1460,ts 5 0,wscale 7>", true, true, true, "<mss 1460,ts 100000 5,wscale 3>", 1448},
                    Agreement{"<mss 1460,sackOK,ts 5 0,wscale 7>", false, false, false, "<mss 1460>", 1460},
                    Agreement{"<>", true, true, true, "<mss 1460>", 536},                 // RFC 9293 MUST-15
                    Agreement{"<mss 9000>", true, true, true, "<mss 1460>", 1460},        // never more than our own
                    Agreement{"<mss 1>", true, true, true, "<mss 1460>", kMinSendMss}));  // absurd

TEST(PassiveOpen, WindowWithoutScalingFitsSixteenBits) {
  TcpDialog t(full());
  t.listen("S 0 win 60000 <mss 1460>");
  t.expect("S. 0 ack 1 win 65535");
  t.recv(". 1 ack 1");
  EXPECT_EQ(info(t.t).rcv_wnd, 65'535u);
}

TEST(ActiveOpen, SynIsRepeatedWithBackoffAndGivenUp) {  // RFC 6298 5.5, RFC 9293 3.8.3
  TcpDialog t;
  t.connect();
  t.expect("S 0");
  for (const uint64_t wait : {1, 2, 4, 8}) {
    EXPECT_EQ(t.deadline(sec(wait)), 0u);
    t.expect("S 0");
    t.expect_nothing();
  }
  EXPECT_EQ(event_names(t.deadline(sec(30 - 15))), "timed-out closed");
  t.expect_nothing();
  EXPECT_EQ(state(t.t), State::kClosed);
}

TEST(PassiveOpen, SynAckIsRepeatedAndGivenUpWithReset) {
  TcpDialog t;
  t.listen("S 0 <mss 1460>");
  t.expect("S. 0 ack 1");
  for (const uint64_t wait : {1, 2, 4, 8}) {
    EXPECT_EQ(t.deadline(sec(wait)), 0u);
    t.expect("S. 0 ack 1");
  }
  EXPECT_EQ(event_names(t.deadline(sec(15))), "timed-out closed");
  t.expect("R. 1 ack 1");
}

TEST(ActiveOpen, LostSynMeansSmallFirstWindow) {  // RFC 6928 2, RFC 6298 5.7
  TcpDialog t;
  t.connect();
  t.drain();
  t.deadline(sec(1));
  t.drain();
  t.recv("S. 0 ack 1 <mss 1000>");
  EXPECT_EQ(info(t.t).cwnd, 1000u);
  EXPECT_EQ(info(t.t).rto_ms, 3000u);
}

TEST(ActiveOpen, DataQueuedEarlyFollowsTheHandshake) {
  TcpDialog t;
  t.connect();
  t.write(100);
  t.expect("S 0");
  t.expect_nothing();
  t.recv("S. 0 ack 1 <mss 1460>");
  t.expect("P. 1:101(100) ack 1");  // the ACK rides on the data
  t.expect_nothing();
}

TEST(SimultaneousOpen, BothSidesReachEstablished) {  // RFC 9293 figure 8
  TcpDialog t(full());
  t.connect();
  t.expect("S 0");
  t.recv("S 0 win 60000 <mss 1460,sackOK,ts 5 0,wscale 7>");
  EXPECT_EQ(state(t.t), State::kSynReceived);
  t.expect("S. 0 ack 1 <mss 1460,sackOK,ts 100000 5,wscale 3>");
  t.recv("S. 0 ack 1 win 60000 <mss 1460,sackOK,ts 6 100000,wscale 7>");
  EXPECT_EQ(event_names(t.last.events), "connected");
  EXPECT_EQ(info(t.t).snd_wnd, 60'000u);
}

TEST(PassiveOpen, CloseBeforeTheHandshakeEnds) {
  TcpDialog t;
  t.listen("S 0 <mss 1460>");
  t.expect("S. 0 ack 1");
  t.write(10);
  t.close();
  t.expect_nothing();
  t.recv(". 1 ack 1");
  EXPECT_EQ(state(t.t), State::kFinWait1);
  t.expect("FP. 1:11(10) ack 1");
}

// --- sequence numbers

TEST(Isn, GrowsWithTimeAndDiffersByTuple) {  // RFC 6528 3
  const IsnGenerator g(kKey);
  FourTuple a = TcpDialog::tuple(), b = a;
  b.remote_port++;
  EXPECT_EQ(g.isn(a, sec(1)) + 250'000, g.isn(a, sec(2)));  // one in 4 us
  EXPECT_NE(g.isn(a, sec(1)), g.isn(b, sec(1)));
  EXPECT_NE(g.isn(a, sec(1)), IsnGenerator({1, 2}).isn(a, sec(1)));
  EXPECT_EQ(g.timestamp_offset(a), g.timestamp_offset(b));  // RFC 6191 compares across ports
  b.remote = base::IpAddress::v4(0x0a000003);
  EXPECT_NE(g.timestamp_offset(a), g.timestamp_offset(b));
}

// --- cookies

struct CookieCase {
  const char* options;
  uint16_t mss;
  bool scaling;
  uint8_t shift;
  bool sack, timestamps;
};
class Cookies : public testing::TestWithParam<CookieCase> {};
TEST_P(Cookies, RoundTrip) {
  const CookieCase& c = GetParam();
  TcpDialog t(full());
  Listener l(t.config, 0, kKey);
  const wire::TcpView syn = t.parse("S 0 win 60000 " + std::string(c.options));
  ListenerDecision d = l.input(t.tuple(), syn, t.now);
  ASSERT_EQ(d.action, Action::kCookie);
  EXPECT_EQ(d.reply.flags, wire::kTcpSyn | wire::kTcpAck);
  EXPECT_EQ(d.reply.ack, syn.seq + 1);
  EXPECT_EQ(d.reply.window, 65'528u);
  EXPECT_EQ(d.reply.wscale.has_value(), c.scaling);
  EXPECT_EQ(d.reply.sack_permitted, c.sack);
  EXPECT_EQ(d.reply.timestamps.has_value(), c.timestamps);

  wire::TcpView ack = t.parse("P. 1:11(10) ack 1 win 500");
  ack.ack = d.reply.seq + 1;
  if (c.timestamps) ack.timestamps = wire::TcpTimestamps{6, d.reply.timestamps->val};
  t.now += sec(1);
  ListenerDecision done = l.input(t.tuple(), ack, t.now);
  ASSERT_EQ(done.action, Action::kAcceptCookie);
  EXPECT_EQ(done.cookie.mss, c.mss);
  EXPECT_EQ(done.cookie.window_scaling, c.scaling);
  EXPECT_EQ(done.cookie.snd_wscale, c.shift);
  EXPECT_EQ(done.cookie.sack, c.sack);
  EXPECT_EQ(done.cookie.timestamps, c.timestamps);

  open_cookie(t.t, t.tuple(), t.settle(), ack, done.cookie, t.now, done.ts_offset);
  EXPECT_EQ(state(t.t), State::kEstablished);
  std::vector<uint8_t> bytes(10);
  for (uint32_t i = 0; i < 10; ++i) bytes[i] = pattern(i);
  const InputResult r = input(t.t, ack, t.pool.make(bytes), t.now);
  EXPECT_EQ(event_names(r.events), "readable");
  EXPECT_EQ(info(t.t).snd_wnd, 500u << c.shift);
  EXPECT_EQ(t.read(), 10u);
}
INSTANTIATE_TEST_SUITE_P(Handshake, Cookies,
                         testing::Values(CookieCase{"<mss 1460,sackOK,ts 5 0,wscale 7>", 1460, true, 7, true, true},
                                         CookieCase{"<mss 1460,sackOK,ts 5 0,wscale 0>", 1460, true, 0, true, true},
                                         CookieCase{"<mss 1459,ts 5 0,wscale 14>", 1440, true, 14, false, true},
                                         CookieCase{"<mss 8960,sackOK,ts 5 0>", 8960, false, 0, true, true},
                                         CookieCase{"<mss 1460,sackOK,wscale 7>", 1460, false, 0, false,
                                                    false},  // no timestamps: nowhere to keep the rest
                                         CookieCase{"<>", 536, false, 0, false, false},
                                         CookieCase{"<mss 1>", 216, false, 0, false, false}));

TEST(Cookies, WhatIsNotOursIsRefused) {
  TcpDialog t;
  const SynCookies cookies(kKey);
  const wire::TcpView syn = t.parse("S 0 <mss 1460>");
  const uint32_t cookie = cookies.make(t.tuple(), syn, t.now);
  wire::TcpView ack = t.parse(". 1 ack 1");
  ack.ack = cookie + 1;
  EXPECT_TRUE(cookies.check(t.tuple(), ack, t.config, t.now).has_value());
  for (uint32_t bit = 0; bit < 32; ++bit) {
    wire::TcpView bad = ack;
    bad.ack = (cookie ^ 1u << bit) + 1;
    EXPECT_FALSE(cookies.check(t.tuple(), bad, t.config, t.now).has_value()) << "bit " << bit;
  }
  wire::TcpView other = ack;
  other.seq++;
  EXPECT_FALSE(cookies.check(t.tuple(), other, t.config, t.now).has_value());
  FourTuple moved = t.tuple();
  moved.remote_port++;
  EXPECT_FALSE(cookies.check(moved, ack, t.config, t.now).has_value());
  EXPECT_FALSE(SynCookies({1, 2}).check(t.tuple(), ack, t.config, t.now).has_value());
  // Good for its own epoch and the next.
  const TimeNs epoch_start = t.now / SynCookies::kEpochNs * SynCookies::kEpochNs;
  EXPECT_TRUE(cookies.check(t.tuple(), ack, t.config, epoch_start + 2 * SynCookies::kEpochNs - 1).has_value());
  EXPECT_FALSE(cookies.check(t.tuple(), ack, t.config, epoch_start + 2 * SynCookies::kEpochNs).has_value());
}

TEST(Cookies, TimestampIsNeverFromTheFuture) {
  TcpDialog t;
  const wire::TcpView syn = t.parse("S 0 <mss 1460,sackOK,ts 5 0,wscale 14>");
  Config c = full();
  for (uint32_t now : {0u, 1u, 29u, 30u, 31u, 63u, 64u, 1'000'000u}) {
    const uint32_t ts = SynCookies::encode_timestamp(syn, c, now);
    EXPECT_EQ(ts & 63, 14u | 16u);
    EXPECT_LE(static_cast<int32_t>(ts - now), 0);
    EXPECT_GT(static_cast<int32_t>(ts - now), -64);
  }
}

// --- the listener

TEST(ListenerTest, OpensBelowTheBacklogCookiesAbove) {
  TcpDialog t;
  Listener l(t.config, 2, kKey);
  const wire::TcpView syn = t.parse("S 0 <mss 1460>");
  EXPECT_EQ(l.input(t.tuple(), syn, t.now).action, Action::kOpen);
  EXPECT_EQ(l.input(t.tuple(), syn, t.now, false).action, Action::kCookie);  // the caller has no TCB
  EXPECT_EQ(l.input(t.tuple(), syn, t.now).action, Action::kOpen);
  EXPECT_EQ(l.input(t.tuple(), syn, t.now).action, Action::kCookie);
  EXPECT_EQ(l.half_open(), 2u);
  l.half_open_ended();
  EXPECT_EQ(l.input(t.tuple(), syn, t.now).action, Action::kOpen);
}

TEST(ListenerTest, AnswersWhatIsNoSyn) {  // RFC 9293 3.10.7.2
  TcpDialog t;
  Listener l(t.config, 0, kKey);
  EXPECT_EQ(l.input(t.tuple(), t.parse("R 0"), t.now).action, Action::kIgnore);
  ListenerDecision d = l.input(t.tuple(), t.parse(". 1 ack 1"), t.now);
  EXPECT_EQ(d.action, Action::kReply);
  EXPECT_EQ(d.drop, DropReason::kTcpNoConnection);
  EXPECT_EQ(t.format(d.reply, 0), "R 1 win 0");
  EXPECT_EQ(l.input(t.tuple(), t.parse("F 1"), t.now).action, Action::kIgnore);
  EXPECT_EQ(l.input(t.tuple(), t.parse("S. 1 ack 1"), t.now).action, Action::kReply);
  // While cookies are out a bad ACK may be the later segment of a good connection: silence.
  EXPECT_EQ(l.input(t.tuple(), t.parse("S 0"), t.now).action, Action::kCookie);
  d = l.input(t.tuple(), t.parse(". 1 ack 1"), t.now);
  EXPECT_EQ(d.action, Action::kIgnore);
  EXPECT_EQ(d.drop, DropReason::kTcpCookieInvalid);
  EXPECT_EQ(l.input(t.tuple(), t.parse(". 1 ack 1"), t.now + 2 * SynCookies::kEpochNs).action, Action::kReply);
}

TEST(ListenerTest, Draining) {
  TcpDialog t;
  Listener l(t.config, 4, kKey);
  l.drain();
  ListenerDecision d = l.input(t.tuple(), t.parse("S 0 <mss 1460>"), t.now);
  EXPECT_EQ(d.action, Action::kReply);
  EXPECT_EQ(d.drop, DropReason::kTcpListenerDraining);
  EXPECT_EQ(TcpDialog::flag_letters(d.reply.flags), "R.");
}

// --- TIME-WAIT

struct TimeWaitCase {
  const char* what;
  const char* segment;
  TimeWaitVerdict verdict;
  const char* reply;
  bool restarts;
};
class TimeWaits : public testing::TestWithParam<TimeWaitCase> {};
TEST_P(TimeWaits, Entry) {
  const TimeWaitCase& c = GetParam();
  Config config = full();
  TcpDialog t(config);
  t.establish("<mss 1460,sackOK,ts 1000 0,wscale 7>");
  t.close();
  t.drain();
  t.recv("F. 1 ack 2 win 500 <ts 1002 100000>");
  ASSERT_EQ(state(t.t), State::kTimeWait);
  t.drain();
  TimeWaitEntry e = make_time_wait(t.t, t.now);
  const TimeNs expires = e.expires_at;
  EXPECT_EQ(expires, t.now + config.time_wait_ns);
  t.now += sec(5);
  wire::TcpRepr reply;
  const TimeWaitResult r = time_wait_input(e, t.parse(c.segment), t.now, reply);
  EXPECT_EQ(r.verdict, c.verdict);
  if (r.verdict == TimeWaitVerdict::kReply) {
    EXPECT_EQ(t.format(reply, 0), c.reply);
  }
  EXPECT_EQ(e.expires_at, c.restarts ? t.now + config.time_wait_ns : expires);
}
INSTANTIATE_TEST_SUITE_P(
    Rfc6191, TimeWaits,
    testing::Values(TimeWaitCase{"FIN again", "F. 1 ack 2 <ts 1500 100000>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1500>", true},
                    TimeWaitCase{"FIN with data again", "FP. -9:1(10) ack 2 <ts 1500 100000>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1500>", true},
                    TimeWaitCase{"FIN, timestamp too old", "F. 1 ack 2 <ts 900 100000>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1002>", false},
                    TimeWaitCase{"newer SYN by timestamp", "S -5000 <mss 1460,ts 1003 0>", TimeWaitVerdict::kReopen, "", false},
                    TimeWaitCase{"older SYN by timestamp", "S 5000 <mss 1460,ts 1001 0>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1002>", false},
                    TimeWaitCase{"same timestamp, newer sequence", "S 5000 <mss 1460,ts 1002 0>", TimeWaitVerdict::kReopen, "",
                                 false},
                    TimeWaitCase{"same timestamp, older sequence", "S -5000 <mss 1460,ts 1002 0>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1002>", false},
                    TimeWaitCase{"SYN without timestamp, newer", "S 5000 <mss 1460>", TimeWaitVerdict::kReopen, "", false},
                    TimeWaitCase{"SYN without timestamp, older", "S 2 <mss 1460>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1002>", false},
                    TimeWaitCase{"SYN-ACK", "S. 5000 ack 2 <mss 1460,ts 1003 0>", TimeWaitVerdict::kReply,
                                 ". 2 ack 2 win 8191 <ts 105000 1002>", false},
                    TimeWaitCase{"RST", "R 2", TimeWaitVerdict::kIgnore, "", false},
                    TimeWaitCase{"bare ACK", ". 2 ack 2 <ts 1500 100000>", TimeWaitVerdict::kIgnore, "", false}));

TEST(TimeWaitTest, NextIsnIsBeyondTheOldConnection) {
  TimeWaitEntry e;
  e.snd_nxt = 0xfffffff0;
  EXPECT_EQ(next_isn(e, 0xfffffff1), 0xfffffff0 + 65'537);
  EXPECT_EQ(next_isn(e, 0xfffffff0 + 100'000), 0xfffffff0 + 100'000);
}

}  // namespace
}  // namespace millrace::tcp
