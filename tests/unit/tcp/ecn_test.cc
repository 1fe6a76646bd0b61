// Explicit congestion notification (RFC 3168 6.1): who agrees on it, who echoes what, and what a sender makes of it.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

Config with(EcnMode mode, CongestionAlgorithm algorithm = CongestionAlgorithm::kReno) {
  Config c = TcpDialog::plain();
  c.ecn = mode;
  c.congestion = algorithm;
  return c;
}

// A connection that agreed on ECN, 1000-byte segments.
struct Marked : TcpDialog {
  explicit Marked(Config c = with(EcnMode::kAccept)) : TcpDialog(c) {
    listen("SEW 0 win 60000 <mss 1000,sackOK>");
    expect("SE. 0 ack 1");
    p = o = a = 1;
    now += ms(20);
    recv(". 1 ack 1 win 60000");
  }
  size_t burst(uint32_t bytes) {
    write(bytes);
    return drain().size();
  }
};

// --- negotiation (6.1.1)

struct PassiveCase {
  EcnMode mode;
  CongestionAlgorithm algorithm;
  const char *syn, *syn_ack;
};
class PassiveEcn : public testing::TestWithParam<PassiveCase> {};
TEST_P(PassiveEcn, Negotiation) {
  TcpDialog t(with(GetParam().mode, GetParam().algorithm));
  t.listen(GetParam().syn);
  t.expect(GetParam().syn_ack);
}
INSTANTIATE_TEST_SUITE_P(Ecn, PassiveEcn,
                         testing::Values(PassiveCase{EcnMode::kAccept, CongestionAlgorithm::kCubic, "SEW 0", "SE. 0 ack 1"},
                                         PassiveCase{EcnMode::kRequest, CongestionAlgorithm::kReno, "SEW 0", "SE. 0 ack 1"},
                                         PassiveCase{EcnMode::kOff, CongestionAlgorithm::kCubic, "SEW 0", "S. 0 ack 1"},
                                         PassiveCase{EcnMode::kAccept, CongestionAlgorithm::kCubic, "S 0", "S. 0 ack 1"},
                                         PassiveCase{EcnMode::kAccept, CongestionAlgorithm::kCubic, "SE 0",
                                                     "S. 0 ack 1"},  // not the setup
                                         PassiveCase{EcnMode::kRequest, CongestionAlgorithm::kBbr, "SEW 0",
                                                     "S. 0 ack 1"}));  // does not react to marks

struct ActiveCase {
  EcnMode mode;
  const char *syn, *syn_ack;
  bool agreed;
};
class ActiveEcn : public testing::TestWithParam<ActiveCase> {};
TEST_P(ActiveEcn, Negotiation) {
  TcpDialog t(with(GetParam().mode));
  t.connect();
  t.expect(GetParam().syn);
  t.recv(GetParam().syn_ack);
  t.drain();
  t.written = 0;
  t.write(100);
  t.expect("P. 1:101(100) ack 1");
  EXPECT_EQ(t.sent.ecn_capable, GetParam().agreed);
}
INSTANTIATE_TEST_SUITE_P(Ecn, ActiveEcn,
                         testing::Values(ActiveCase{EcnMode::kRequest, "SEW 0", "SE. 0 ack 1", true},
                                         ActiveCase{EcnMode::kRequest, "SEW 0", "S. 0 ack 1", false},
                                         ActiveCase{EcnMode::kRequest, "SEW 0", "SEW. 0 ack 1", false},  // flags thrown back
                                         ActiveCase{EcnMode::kAccept, "S 0", "SE. 0 ack 1", false},
                                         ActiveCase{EcnMode::kOff, "S 0", "SE. 0 ack 1", false}));

TEST(Ecn, ALostSynIsRepeatedWithoutIt) {  // 6.1.1.1
  TcpDialog t(with(EcnMode::kRequest));
  t.connect();
  t.expect("SEW 0");
  t.deadline(sec(1));
  t.expect("S 0");
  t.recv("SE. 0 ack 1");
  t.drain();
  t.write(100);
  t.expect("P. 1:101(100) ack 1");
  EXPECT_FALSE(t.sent.ecn_capable);
}

// --- the receiver (6.1.3)

TEST(EcnReceiver, EchoesUntilTheSenderHeard) {
  Marked t;
  t.recv(". 1:1001(1000) ack 1");
  t.expect(". 1 ack 1001");
  t.recv(". 1001:2001(1000) ack 1", true);
  t.expect("E. 1 ack 2001");
  t.recv(". 2001:3001(1000) ack 1");
  t.expect("E. 1 ack 3001");
  t.recv("W. 3001:4001(1000) ack 1");
  t.expect(". 1 ack 4001");
  t.recv("W. 4001:5001(1000) ack 1", true);  // heard of the last one, and a new one
  t.expect("E. 1 ack 5001");
}

TEST(EcnReceiver, AMarkIsAcknowledgedAtOnce) {
  Config c = with(EcnMode::kAccept);
  c.delayed_ack = true;
  Marked t(c);
  t.recv(". 1:501(500) ack 1");
  t.expect_nothing();
  t.recv(". 501:701(200) ack 1", true);
  t.expect("E. 1 ack 701");
}

TEST(EcnReceiver, WithoutAnAgreementMarksMeanNothing) {
  TcpDialog t;
  t.establish("<mss 1000>");
  t.recv(". 1:1001(1000) ack 1", true);
  t.expect(". 1 ack 1001");
}

TEST(EcnReceiver, EchoRidesOnData) {
  Marked t;
  t.recv(". 1:1001(1000) ack 1", true);
  t.write(500);
  t.expect("PE. 1:501(500) ack 1001");
  t.expect_nothing();
}

// --- the sender (6.1.2)

TEST(EcnSender, NewDataIsCapableNothingElseIs) {  // 6.1.4 pure ACKs, 6.1.5 retransmissions, 6.1.6 window probes
  Marked t;
  t.write(1000);
  t.expect("P. 1:1001(1000) ack 1");
  EXPECT_TRUE(t.sent.ecn_capable);
  t.recv(". 1:11(10) ack 1");
  t.expect(". 1001 ack 11");
  EXPECT_FALSE(t.sent.ecn_capable);
  t.deadline(ms(200), ms(50));
  t.expect("P. 1:1001(1000) ack 11");
  EXPECT_FALSE(t.sent.ecn_capable);
  t.recv(". 11 ack 1001 win 0");
  t.write(10);
  t.drain();
  t.now = next_deadline(t.t);
  on_deadline(t.t, t.now);
  t.expect(". 1001:1002(1) ack 11");
  EXPECT_FALSE(t.sent.ecn_capable);
}

TEST(EcnSender, OneReductionAWindow) {
  Marked t;
  EXPECT_EQ(t.burst(10'000), 10u);
  t.recv("E. 1 ack 2001");
  EXPECT_EQ(info(t.t).cwnd, 5000u);
  EXPECT_EQ(info(t.t).ssthresh, 5000u);
  t.recv("E. 1 ack 4001");
  t.recv("E. 1 ack 9001");
  EXPECT_EQ(info(t.t).cwnd, 5000u);  // one a window of data, and no growth in it
  t.write(20'000);
  t.expect("W. 10001:11001(1000) ack 1");
  t.expect(". 11001:12001(1000) ack 1");  // said once
  t.drain();
  t.recv(". 1 ack 12001");
  t.recv("E. 1 ack 13001");
  EXPECT_LE(info(t.t).cwnd, 3000u);  // the next window
  EXPECT_EQ(info(t.t).retransmits, 0u);
}

TEST(EcnSender, CwrGoesWithOneSegmentOfALargePacket) {
  Marked t;
  t.burst(4000);
  t.recv("E. 1 ack 4001");
  t.write(4000);
  t.expect("W. 4001:5001(1000) ack 1", 4000);
  t.expect(". 5001:6001(1000) ack 1", 4000);
}

TEST(EcnSender, ALossInTheSameWindowReducesNoFurther) {
  Marked t;
  t.burst(10'000);  // segment 2 is lost, another one was marked
  t.recv("E. 1 ack 2001");
  const uint32_t cwnd = info(t.t).cwnd;
  t.recv("E. 1 ack 2001 <sack 3001:6001>");
  t.expect(". 2001:3001(1000) ack 1");
  EXPECT_EQ(info(t.t).ssthresh, cwnd);
  t.recv(". 1 ack 10001");
  EXPECT_EQ(info(t.t).cwnd, cwnd);
}

TEST(EcnSender, ALossIsAnsweredWithCwrToo) {  // 6.1.2: "any reason"
  Marked t;
  t.burst(10'000);
  t.recv(". 1 ack 1 <sack 1001:4001>");
  t.expect(". 1:1001(1000) ack 1");
  t.recv(". 1 ack 10001");
  t.write(1000);
  t.expect("PW. 10001:11001(1000) ack 1");
}

// --- a SYN cookie keeps it in its timestamp

TEST(EcnCookie, SurvivesTheCookie) {
  TcpDialog t(with(EcnMode::kAccept));
  t.config.timestamps = true;
  Listener listener(t.config, 0, {1, 2});
  for (const bool asks : {true, false}) {
    const wire::TcpView syn = t.parse(asks ? "SEW 0 <mss 1000,ts 5 0>" : "S 0 <mss 1000,ts 5 0>");
    const ListenerDecision d = listener.input(TcpDialog::tuple(), syn, t.now);
    ASSERT_EQ(d.action, ListenerDecision::Action::kCookie);
    EXPECT_EQ((d.reply.flags & wire::kTcpEce) != 0, asks);
    wire::TcpView ack = t.parse(". 1");
    ack.ack = d.reply.seq + 1;
    ack.timestamps = wire::TcpTimestamps{6, d.reply.timestamps->val};
    const ListenerDecision a = listener.input(TcpDialog::tuple(), ack, t.now);
    ASSERT_EQ(a.action, ListenerDecision::Action::kAcceptCookie);
    EXPECT_EQ(a.cookie.ecn, asks);
  }
}

}  // namespace
}  // namespace millrace::tcp
