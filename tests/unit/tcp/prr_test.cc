// Proportional rate reduction (RFC 6937 and its bis): the equations, and what a recovery looks like by them.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

constexpr uint32_t kMss = 1000;

TEST(Prr, ReducesInProportion) {  // RFC 6937 3: sndcnt = CEIL(prr_delivered * ssthresh / RecoverFS) - prr_out
  Prr p{.flight = 20 * kMss};
  uint32_t pipe = 19 * kMss;
  for (uint32_t acks = 1; acks <= 8; ++acks) {  // halving: one out for two delivered
    const uint32_t cwnd = prr_cwnd(p, 10 * kMss, pipe, kMss, false, kMss);
    if (acks == 1) {
      EXPECT_EQ(cwnd, pipe + kMss);  // half a segment is due, but the first one goes
    }
    const uint32_t send = (cwnd - pipe) / kMss * kMss;
    p.out += send;
    pipe = pipe + send - kMss;
    EXPECT_EQ(p.out, std::max(acks / 2, 1u) * kMss);
  }
}

TEST(Prr, TheFastRetransmitIsForced) {  // bis: "Force a fast retransmit upon entering recovery"
  Prr p{.flight = 4 * kMss};
  EXPECT_EQ(prr_cwnd(p, 2 * kMss, 2 * kMss, 1, false, kMss), 3 * kMss);  // pipe == ssthresh: no room, but one segment
  p.out = kMss;
  EXPECT_EQ(prr_cwnd(p, 2 * kMss, 2 * kMss, 1, false, kMss), 2 * kMss);  // once
}

TEST(Prr, ConservativeBoundKeepsWhatIsDelivered) {  // CRB: not safe, no more than was delivered
  Prr p{.flight = 20 * kMss};
  EXPECT_EQ(prr_cwnd(p, 10 * kMss, 4 * kMss, kMss, false, kMss), 5 * kMss);
  p.out = kMss;
  EXPECT_EQ(prr_cwnd(p, 10 * kMss, 4 * kMss, kMss, false, kMss), 5 * kMss);
}

TEST(Prr, SlowStartBoundAddsASegment) {  // SSRB: snd_una moved and nothing more is lost
  Prr p{.flight = 20 * kMss};
  EXPECT_EQ(prr_cwnd(p, 10 * kMss, 4 * kMss, kMss, true, kMss), 6 * kMss);
  p.out = 2 * kMss;
  EXPECT_EQ(prr_cwnd(p, 10 * kMss, 9 * kMss, kMss, true, kMss), 10 * kMss);  // never above ssthresh
}

TEST(PrrDialog, ARecoveryEndsAtSsthresh) {
  Config c = TcpDialog::plain();
  c.congestion = CongestionAlgorithm::kReno;
  TcpDialog t(c);
  t.handshake_takes = ms(20);
  t.establish("<mss 1000,sackOK>");
  t.write(40'000);
  EXPECT_EQ(t.drain().size(), 10u);
  t.now += ms(20);
  size_t sent = 0;
  for (uint32_t o = 4001; o <= 10'001; o += 1000) {
    t.o = o;
    t.recv(". 1 ack 1 <sack 1001:o>");
    sent += t.drain().size();
  }
  EXPECT_EQ(sent, 5u);  // of ten, one lost: the retransmission, and half of the nine that left
  t.now += ms(20);
  t.recv(". 1 ack 10001");
  EXPECT_EQ(info(t.t).cwnd, 5000u);
  EXPECT_EQ(info(t.t).ssthresh, 5000u);
}

}  // namespace
}  // namespace millrace::tcp
