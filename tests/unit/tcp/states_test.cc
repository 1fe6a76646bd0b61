// Every state x everything that can happen in it: one row each, like the tables of RFC 9293 3.10.
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;

// Brings the dialog into `s`. The peer's next sequence number is p, ours o, our oldest unacknowledged a; nothing is due.
void reach(TcpDialog& d, State s) {
  if (s == State::kSynSent) {
    d.connect();
    d.drain();
    d.p = 0, d.o = 1, d.a = 0;
    return;
  }
  if (s == State::kSynReceived) {
    d.listen("S 0 win 60000 <mss 1460>");
    d.drain();
    d.p = 1, d.o = 1, d.a = 0;
    return;
  }
  d.establish();
  d.p = d.o = d.a = 1;
  const auto our_fin = [&] {
    d.close();
    d.drain();
    d.o = 2;
  };
  const auto peer_fin = [&] {
    d.recv("F. p ack a");
    d.drain();
    d.p = 2;
  };
  switch (s) {
    case State::kFinWait1:
      our_fin();
      break;
    case State::kFinWait2:
      our_fin();
      d.a = 2;
      d.recv(". p ack a");
      break;
    case State::kCloseWait:
      peer_fin();
      break;
    case State::kClosing:
      our_fin();
      peer_fin();
      break;
    case State::kLastAck:
      peer_fin();
      our_fin();
      break;
    case State::kTimeWait:
      our_fin();
      d.a = 2;
      d.recv(". p ack a");
      peer_fin();
      break;
    default:
      break;
  }
  d.drain();
  ASSERT_EQ(state(d.t), s);
}

struct Row {
  State state;
  const char* what;
  const char* stimulus;  // a segment, or "close()", "abort()", "timeout" (the next deadline that ends or repeats something)
  const char* reply;     // what is then due, the first segment; "" for none
  State after;
  const char* events;
  DropReason drop;
};

constexpr State kClosed = State::kClosed, kSynSent = State::kSynSent, kSynReceived = State::kSynReceived,
                kEstablished = State::kEstablished, kFinWait1 = State::kFinWait1, kFinWait2 = State::kFinWait2,
                kCloseWait = State::kCloseWait, kClosing = State::kClosing, kLastAck = State::kLastAck,
                kTimeWait = State::kTimeWait;
constexpr DropReason kNone = DropReason::kNone;

const Row kRows[] = {
    // --- SYN-SENT (RFC 9293 3.10.7.3)
    {kSynSent, "SYN-ACK", "S. 0 ack 1 <mss 1460>", ". 1 ack 1", kEstablished, "connected", kNone},
    {kSynSent, "SYN-ACK with data", "SP. 0:1(10) ack 1 <mss 1460>", ". 1 ack 11", kEstablished, "connected readable", kNone},
    {kSynSent, "SYN-ACK with FIN bit data", "SF. 0 ack 1 <mss 1460>", ". 1 ack 2", kCloseWait, "connected peer-fin", kNone},
    {kSynSent, "SYN: simultaneous open", "S 0 <mss 1460>", "S. 0 ack 1", kSynReceived, "", kNone},
    {kSynSent, "SYN-ACK of unsent", "S. 0 ack 2 <mss 1460>", "R 2", kSynSent, "", DropReason::kTcpAckUnacceptable},
    {kSynSent, "SYN-ACK of nothing", "S. 0 ack 0 <mss 1460>", "R 0", kSynSent, "", DropReason::kTcpAckUnacceptable},
    {kSynSent, "ACK without SYN", ". 7 ack 1", "", kSynSent, "", DropReason::kTcpNoAck},
    {kSynSent, "old ACK: half-open peer", ". 300 ack 100", "R 100", kSynSent, "", DropReason::kTcpAckUnacceptable},
    {kSynSent, "data without ACK", "P 1:11(10)", "", kSynSent, "", DropReason::kTcpNoAck},
    {kSynSent, "FIN", "F 0", "", kSynSent, "", DropReason::kTcpNoAck},
    {kSynSent, "RST with our ACK: refused", "R. 0 ack 1", "", kClosed, "reset closed", kNone},
    {kSynSent, "RST without ACK", "R 0", "", kSynSent, "", DropReason::kTcpResetOutOfWindow},
    {kSynSent, "RST with a wrong ACK", "R. 0 ack 2", "", kSynSent, "", DropReason::kTcpAckUnacceptable},
    {kSynSent, "close()", "close()", "", kClosed, "", kNone},
    {kSynSent, "abort()", "abort()", "", kClosed, "", kNone},
    {kSynSent, "timeout repeats the SYN", "timeout", "S 0", kSynSent, "", kNone},

    // --- SYN-RECEIVED
    {kSynReceived, "ACK", ". p ack 1", "", kEstablished, "connected", kNone},
    {kSynReceived, "ACK with data", "P. p:p+10(10) ack 1", ". 1 ack p+10", kEstablished, "connected readable", kNone},
    {kSynReceived, "ACK with FIN", "F. p ack 1", ". 1 ack p+1", kCloseWait, "connected peer-fin", kNone},
    {kSynReceived, "ACK with data and FIN", "FP. p:p+10(10) ack 1", ". 1 ack p+11", kCloseWait, "connected readable peer-fin",
     kNone},
    {kSynReceived, "SYN again: our SYN-ACK was lost", "S 0 <mss 1460>", "S. 0 ack 1", kSynReceived, "",
     DropReason::kTcpOldDuplicate},
    {kSynReceived, "SYN-ACK: end of a simultaneous open", "S. 0 ack 1 <mss 1460>", "", kEstablished, "connected", kNone},
    {kSynReceived, "another SYN in the window", "S 100 <mss 1460>", ". 1 ack 1", kSynReceived, "", DropReason::kTcpChallenged},
    {kSynReceived, "ACK of unsent", ". p ack 2", "R 2", kSynReceived, "", DropReason::kTcpAckUnacceptable},
    {kSynReceived, "ACK of nothing", ". p ack 0", "R 0", kSynReceived, "", DropReason::kTcpAckUnacceptable},
    {kSynReceived, "data without ACK", "P p:p+10(10)", "", kSynReceived, "", DropReason::kTcpNoAck},
    {kSynReceived, "out of the window", ". p-1 ack 1", ". 1 ack 1", kSynReceived, "", DropReason::kTcpOutOfWindow},
    {kSynReceived, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kSynReceived, "RST in the window", "R p+5", ". 1 ack 1", kSynReceived, "", DropReason::kTcpChallenged},
    {kSynReceived, "RST outside", "R p-5", "", kSynReceived, "", DropReason::kTcpResetOutOfWindow},
    {kSynReceived, "close() waits for the handshake", "close()", "", kSynReceived, "", kNone},
    {kSynReceived, "abort()", "abort()", "R. 1 ack 1", kClosed, "", kNone},
    {kSynReceived, "timeout repeats the SYN-ACK", "timeout", "S. 0 ack 1", kSynReceived, "", kNone},

    // --- ESTABLISHED
    {kEstablished, "data", "P. p:p+10(10) ack a", ". o ack p+10", kEstablished, "readable", kNone},
    {kEstablished, "data with URG", "PU. p:p+10(10) ack a", ". o ack p+10", kEstablished, "readable", kNone},
    {kEstablished, "FIN", "F. p ack a", ". o ack p+1", kCloseWait, "peer-fin", kNone},
    {kEstablished, "data and FIN", "FP. p:p+10(10) ack a", ". o ack p+11", kCloseWait, "readable peer-fin", kNone},
    {kEstablished, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kEstablished, "RST in the window", "R p+1", ". o ack p", kEstablished, "", DropReason::kTcpChallenged},
    {kEstablished, "RST at the far end of the window", "R p+59999", ". o ack p", kEstablished, "", DropReason::kTcpChallenged},
    {kEstablished, "RST beyond the window", "R p+60000", "", kEstablished, "", DropReason::kTcpResetOutOfWindow},
    {kEstablished, "RST below the window", "R p-1", "", kEstablished, "", DropReason::kTcpResetOutOfWindow},
    {kEstablished, "SYN in the window", "S p", ". o ack p", kEstablished, "", DropReason::kTcpChallenged},
    {kEstablished, "SYN outside the window", "S p+70000", ". o ack p", kEstablished, "", DropReason::kTcpChallenged},
    {kEstablished, "SYN-ACK again: our ACK was lost", "S. 0 ack 1 <mss 1460>", ". o ack p", kEstablished, "",
     DropReason::kTcpChallenged},
    {kEstablished, "old duplicate", "P. p-1:p(1) ack a", ". o ack p", kEstablished, "", DropReason::kTcpOldDuplicate},
    {kEstablished, "keepalive probe", ". p-1 ack a", ". o ack p", kEstablished, "", DropReason::kTcpOutOfWindow},
    {kEstablished, "half old, half new", "P. p-1:p+9(10) ack a", ". o ack p+9", kEstablished, "readable", kNone},
    {kEstablished, "data beyond the window", "P. p+60000:p+60010(10) ack a", ". o ack p", kEstablished, "",
     DropReason::kTcpOutOfWindow},
    {kEstablished, "ahead of its turn", "P. p+10:p+20(10) ack a", ". o ack p", kEstablished, "", kNone},
    {kEstablished, "ACK of unsent", ". p ack o+1", ". o ack p", kEstablished, "", DropReason::kTcpAckUnacceptable},
    {kEstablished, "ACK far too old", ". p ack a-60001", ". o ack p", kEstablished, "", DropReason::kTcpAckUnacceptable},
    {kEstablished, "ACK a little old", ". p ack a-1", "", kEstablished, "", kNone},
    {kEstablished, "no ACK bit", "P p:p+10(10)", "", kEstablished, "", DropReason::kTcpNoAck},
    {kEstablished, "zero window", ". p ack a win 0", "", kEstablished, "", kNone},
    {kEstablished, "close()", "close()", "F. o ack p", kFinWait1, "", kNone},
    {kEstablished, "abort()", "abort()", "R. o ack p", kClosed, "", kNone},
    {kEstablished, "timeout: keepalive", "timeout", ". o-1 ack p", kEstablished, "", kNone},

    // --- FIN-WAIT-1
    {kFinWait1, "data", "P. p:p+10(10) ack a", ". o ack p+10", kFinWait1, "readable", kNone},
    {kFinWait1, "data and the ACK of our FIN", "P. p:p+10(10) ack o", ". o ack p+10", kFinWait2, "readable", kNone},
    {kFinWait1, "ACK of our FIN", ". p ack o", "", kFinWait2, "", kNone},
    {kFinWait1, "FIN: simultaneous close", "F. p ack a", ". o ack p+1", kClosing, "peer-fin", kNone},
    {kFinWait1, "FIN and the ACK of ours", "F. p ack o", ". o ack p+1", kTimeWait, "peer-fin time-wait", kNone},
    {kFinWait1, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kFinWait1, "RST in the window", "R p+1", ". o ack p", kFinWait1, "", DropReason::kTcpChallenged},
    {kFinWait1, "RST outside", "R p-1", "", kFinWait1, "", DropReason::kTcpResetOutOfWindow},
    {kFinWait1, "SYN", "S p", ". o ack p", kFinWait1, "", DropReason::kTcpChallenged},
    {kFinWait1, "old duplicate", "P. p-1:p(1) ack a", ". o ack p", kFinWait1, "", DropReason::kTcpOldDuplicate},
    {kFinWait1, "ACK of unsent", ". p ack o+1", ". o ack p", kFinWait1, "", DropReason::kTcpAckUnacceptable},
    {kFinWait1, "zero window", ". p ack a win 0", "", kFinWait1, "", kNone},
    {kFinWait1, "close() again", "close()", "", kFinWait1, "", kNone},
    {kFinWait1, "abort()", "abort()", "R. o ack p", kClosed, "", kNone},
    {kFinWait1, "timeout repeats the FIN", "timeout", "F. o-1 ack p", kFinWait1, "", kNone},

    // --- FIN-WAIT-2
    {kFinWait2, "data", "P. p:p+10(10) ack a", ". o ack p+10", kFinWait2, "readable", kNone},
    {kFinWait2, "FIN", "F. p ack a", ". o ack p+1", kTimeWait, "peer-fin time-wait", kNone},
    {kFinWait2, "data and FIN", "FP. p:p+10(10) ack a", ". o ack p+11", kTimeWait, "readable peer-fin time-wait", kNone},
    {kFinWait2, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kFinWait2, "RST in the window", "R p+1", ". o ack p", kFinWait2, "", DropReason::kTcpChallenged},
    {kFinWait2, "RST outside", "R p-1", "", kFinWait2, "", DropReason::kTcpResetOutOfWindow},
    {kFinWait2, "SYN", "S p", ". o ack p", kFinWait2, "", DropReason::kTcpChallenged},
    {kFinWait2, "old duplicate", "P. p-1:p(1) ack a", ". o ack p", kFinWait2, "", DropReason::kTcpOldDuplicate},
    {kFinWait2, "ACK of unsent", ". p ack o+1", ". o ack p", kFinWait2, "", DropReason::kTcpAckUnacceptable},
    {kFinWait2, "zero window", ". p ack a win 0", "", kFinWait2, "", kNone},
    {kFinWait2, "close() again", "close()", "", kFinWait2, "", kNone},
    {kFinWait2, "abort()", "abort()", "R. o ack p", kClosed, "", kNone},
    {kFinWait2, "timeout: keepalive", "timeout", ". o-1 ack p", kFinWait2, "", kNone},

    // --- CLOSE-WAIT
    {kCloseWait, "data behind the FIN", "P. p:p+10(10) ack a", ". o ack p", kCloseWait, "", DropReason::kTcpDataAfterFin},
    {kCloseWait, "FIN again", "F. p-1 ack a", ". o ack p", kCloseWait, "", DropReason::kTcpOldDuplicate},
    {kCloseWait, "another FIN", "F. p ack a", ". o ack p", kCloseWait, "", kNone},
    {kCloseWait, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kCloseWait, "RST in the window", "R p+1", ". o ack p", kCloseWait, "", DropReason::kTcpChallenged},
    {kCloseWait, "RST outside", "R p-1", "", kCloseWait, "", DropReason::kTcpResetOutOfWindow},
    {kCloseWait, "SYN", "S p", ". o ack p", kCloseWait, "", DropReason::kTcpChallenged},
    {kCloseWait, "ACK of unsent", ". p ack o+1", ". o ack p", kCloseWait, "", DropReason::kTcpAckUnacceptable},
    {kCloseWait, "zero window", ". p ack a win 0", "", kCloseWait, "", kNone},
    {kCloseWait, "close()", "close()", "F. o ack p", kLastAck, "", kNone},
    {kCloseWait, "abort()", "abort()", "R. o ack p", kClosed, "", kNone},
    {kCloseWait, "timeout: keepalive", "timeout", ". o-1 ack p", kCloseWait, "", kNone},

    // --- CLOSING
    {kClosing, "ACK of our FIN", ". p ack o", "", kTimeWait, "time-wait", kNone},
    {kClosing, "FIN again", "F. p-1 ack a", ". o ack p", kClosing, "", DropReason::kTcpOldDuplicate},
    {kClosing, "data", "P. p:p+10(10) ack a", ". o ack p", kClosing, "", DropReason::kTcpDataAfterFin},
    {kClosing, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kClosing, "RST in the window", "R p+1", ". o ack p", kClosing, "", DropReason::kTcpChallenged},
    {kClosing, "RST outside", "R p-1", "", kClosing, "", DropReason::kTcpResetOutOfWindow},
    {kClosing, "SYN", "S p", ". o ack p", kClosing, "", DropReason::kTcpChallenged},
    {kClosing, "ACK of unsent", ". p ack o+1", ". o ack p", kClosing, "", DropReason::kTcpAckUnacceptable},
    {kClosing, "zero window", ". p ack a win 0", "", kClosing, "", kNone},
    {kClosing, "close() again", "close()", "", kClosing, "", kNone},
    {kClosing, "abort(): no RST (3.10.5)", "abort()", "", kClosed, "", kNone},
    {kClosing, "timeout repeats the FIN", "timeout", "F. o-1 ack p", kClosing, "", kNone},

    // --- LAST-ACK
    {kLastAck, "ACK of our FIN", ". p ack o", "", kClosed, "closed", kNone},
    {kLastAck, "FIN again", "F. p-1 ack a", ". o ack p", kLastAck, "", DropReason::kTcpOldDuplicate},
    {kLastAck, "data", "P. p:p+10(10) ack a", ". o ack p", kLastAck, "", DropReason::kTcpDataAfterFin},
    {kLastAck, "RST, exact", "R p", "", kClosed, "reset closed", kNone},
    {kLastAck, "RST in the window", "R p+1", ". o ack p", kLastAck, "", DropReason::kTcpChallenged},
    {kLastAck, "RST outside", "R p-1", "", kLastAck, "", DropReason::kTcpResetOutOfWindow},
    {kLastAck, "SYN", "S p", ". o ack p", kLastAck, "", DropReason::kTcpChallenged},
    {kLastAck, "ACK of unsent", ". p ack o+1", ". o ack p", kLastAck, "", DropReason::kTcpAckUnacceptable},
    {kLastAck, "zero window", ". p ack a win 0", "", kLastAck, "", kNone},
    {kLastAck, "close() again", "close()", "", kLastAck, "", kNone},
    {kLastAck, "abort(): no RST (3.10.5)", "abort()", "", kClosed, "", kNone},
    {kLastAck, "timeout repeats the FIN", "timeout", "F. o-1 ack p", kLastAck, "", kNone},

    // --- TIME-WAIT
    {kTimeWait, "FIN again", "F. p-1 ack o", ". o ack p", kTimeWait, "", DropReason::kTcpOldDuplicate},
    {kTimeWait, "data", "P. p:p+10(10) ack o", ". o ack p", kTimeWait, "", DropReason::kTcpOutOfWindow},
    {kTimeWait, "bare ACK", ". p ack o", "", kTimeWait, "", DropReason::kTcpOutOfWindow},
    {kTimeWait, "keepalive probe", ". p-1 ack o", ". o ack p", kTimeWait, "", DropReason::kTcpOutOfWindow},
    {kTimeWait, "RST (RFC 1337)", "R p", "", kTimeWait, "", DropReason::kTcpResetOutOfWindow},
    {kTimeWait, "newer SYN (RFC 6191)", "S p+1", "", kClosed, "closed reopen", kNone},
    {kTimeWait, "older SYN", "S p-10", ". o ack p", kTimeWait, "", DropReason::kTcpChallenged},
    {kTimeWait, "close() again", "close()", "", kTimeWait, "", kNone},
    {kTimeWait, "abort()", "abort()", "", kClosed, "", kNone},
    {kTimeWait, "timeout: 2 MSL", "timeout", "", kClosed, "closed", kNone},

    // --- CLOSED
    {kClosed, "a segment", ". p ack o", "", kClosed, "", DropReason::kTcpNoConnection},
    {kClosed, "close()", "close()", "", kClosed, "", kNone},
    {kClosed, "abort()", "abort()", "", kClosed, "", kNone},
};

class States : public testing::TestWithParam<Row> {};

TEST_P(States, Row) {
  const Row& row = GetParam();
  TcpDialog d;
  if (row.state != kClosed) reach(d, row.state);
  if (HasFatalFailure()) return;
  uint32_t events = 0;
  DropReason drop = kNone;
  const std::string stimulus = row.stimulus;
  if (stimulus == "close()") {
    d.close();
  } else if (stimulus == "abort()") {
    d.abort();
  } else if (stimulus == "timeout") {
    d.now = next_deadline(d.t);
    ASSERT_NE(d.now, base::kNever);
    events = on_deadline(d.t, d.now);
  } else {
    const InputResult r = d.recv(stimulus);
    events = r.events;
    drop = r.drop;
  }
  EXPECT_STREQ(event_names(events).c_str(), row.events);
  EXPECT_STREQ(stats::info(drop).name, stats::info(row.drop).name);
  EXPECT_STREQ(to_string(state(d.t)), to_string(row.after));
  if (*row.reply) d.expect(row.reply);
  d.expect_nothing();
  if (state(d.t) != kClosed) {
    EXPECT_NE(next_deadline(d.t), base::kNever) << "a TCB without a deadline";
  }
}

std::string row_name(const testing::TestParamInfo<Row>& info) {
  std::string name = std::string(to_string(info.param.state)) + "_" + info.param.what;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Rfc9293, States, testing::ValuesIn(kRows), row_name);

// The same walk with data in flight both ways: half close by us, half close by the peer.
TEST(HalfClose, OursFirst) {
  TcpDialog d;
  d.establish();
  d.write(100);
  d.close();
  EXPECT_EQ(send_space(d.t), 0u);
  d.expect("FP. 1:101(100) ack 1");
  d.expect_nothing();
  d.recv(". 1 ack 102");
  EXPECT_EQ(state(d.t), kFinWait2);
  d.recv("P. 1:1001(1000) ack 102");  // the peer goes on as long as it likes
  d.expect(". 102 ack 1001");
  EXPECT_EQ(d.read(), 1000u);
  d.recv("FP. 1001:1101(100) ack 102");
  EXPECT_EQ(event_names(d.last.events), "readable peer-fin time-wait");
  d.expect(". 102 ack 1102");
  EXPECT_EQ(d.read(), 100u);
}

TEST(HalfClose, PeersFirst) {
  TcpDialog d;
  d.establish();
  d.recv("FP. 1:101(100) ack 1");
  d.expect(". 1 ack 102");
  EXPECT_EQ(state(d.t), kCloseWait);
  EXPECT_EQ(d.read(), 100u);
  d.write(2000);
  d.expect(". 1:1461(1460) ack 102");
  d.expect("P. 1461:2001(540) ack 102");
  d.recv(". 102 ack 2001");
  d.close();
  d.expect("F. 2001 ack 102");
  EXPECT_EQ(state(d.t), kLastAck);
  d.recv(". 102 ack 2002");
  EXPECT_EQ(event_names(d.last.events), "closed");
}

TEST(HalfClose, FinWaitsForItsTurn) {
  TcpDialog d;
  d.establish();
  d.recv("FP. 101:201(100) ack 1");  // the first 100 bytes were lost
  EXPECT_EQ(state(d.t), kEstablished);
  d.expect(". 1 ack 1");
  d.recv("P. 1:101(100) ack 1");
  EXPECT_EQ(event_names(d.last.events), "readable peer-fin");
  d.expect(". 1 ack 202");
  EXPECT_EQ(d.read(), 200u);
}

TEST(Orphan, DataIsAnsweredWithReset) {  // RFC 1122 4.2.2.13
  TcpDialog d;
  d.establish();
  set_orphan(d.t, d.now);
  d.close();
  d.expect("F. 1 ack 1");
  d.recv("P. 1:11(10) ack 2");
  EXPECT_EQ(event_names(d.last.events), "closed");
  EXPECT_EQ(d.last.drop, DropReason::kTcpDataAfterClose);
  d.expect("R. 2 ack 1");
  d.expect_nothing();
}

TEST(Orphan, FinIsNotData) {
  TcpDialog d;
  d.establish();
  d.close();
  set_orphan(d.t, d.now);
  d.expect("F. 1 ack 1");
  d.recv("F. 1 ack 2");
  EXPECT_EQ(event_names(d.last.events), "peer-fin time-wait");
  d.expect(". 2 ack 2");
}

TEST(Orphan, FinWait2Ends) {
  TcpDialog d;
  d.establish();
  d.close();
  d.drain();
  set_orphan(d.t, d.now);
  d.recv(". 1 ack 2");
  EXPECT_EQ(state(d.t), kFinWait2);
  EXPECT_EQ(event_names(d.deadline(d.config.fin_wait_2_ns)), "timed-out closed");
}

TEST(Orphan, FinWait2OfAReaderIsKeptAlive) {
  TcpDialog d;
  d.establish();
  d.close();
  d.drain();
  d.recv(". 1 ack 2");
  EXPECT_EQ(event_names(d.pass(sec(120))), "");
  EXPECT_EQ(state(d.t), kFinWait2);
}

TEST(Reset, StrayResetAnswersWhatNobodyOwns) {  // RFC 9293 3.10.7.1
  TcpDialog d;
  wire::TcpRepr r;
  ASSERT_TRUE(make_reset(d.parse("P. 5:15(10) ack 7"), r));
  EXPECT_EQ(d.format(r, 0), "R 7 win 0");
  ASSERT_TRUE(make_reset(d.parse("S 5"), r));
  EXPECT_EQ(TcpDialog::flag_letters(r.flags), "R.");
  EXPECT_EQ(r.seq, 0u);
  EXPECT_EQ(r.ack - TcpDialog::kIrs, 6u);
  EXPECT_FALSE(make_reset(d.parse("R 5"), r));
}

TEST(TimeWait, AbortedConnectionReleasesItsQueues) {
  TcpDialog d;
  d.establish();
  d.write(5000);
  d.recv("P. 1:1001(1000) ack 1");
  d.recv("P. 3001:4001(1000) ack 1");
  d.abort();
  d.expect("R. 1 ack 1001");
  d.expect_nothing();
  EXPECT_EQ(state(d.t), kClosed);
}

}  // namespace
}  // namespace millrace::tcp
