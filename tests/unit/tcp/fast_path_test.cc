// The fast paths do exactly what the general code does: two TCBs live the same random life, one through input_predicted() and
// poll_output(), the other through input() and poll_output_any() alone, and must agree on every member after every step.
#include <array>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

constexpr uint32_t kIss = 0xffffff00, kIrs = 0xfffffe00, kL4Offset = 34;

struct Twin {
  Twin(const Config& c, bool fast) : fast(fast), profile{c, &repairs} {}
  ~Twin() {
    release(t);
    EXPECT_TRUE(pool.balanced());
    EXPECT_EQ(repairs.in_use(), 0u);
  }

  // The segment as a frame; `fast` twins look at it whole first.
  InputResult recv(const wire::TcpRepr& h, uint32_t text, TimeNs now) {
    InputResult r;
    std::array<uint8_t, wire::kTcpMaxHeader> header;
    const uint32_t n = h.emit(header.data());
    io::PacketPtr frame = pool.alloc();
    frame.append(kL4Offset + n + text);
    std::memcpy(frame.data() + kL4Offset, header.data(), n);
    for (uint32_t i = 0; i < text; ++i) frame.data()[kL4Offset + n + i] = pattern(h.seq + i);
    frame.append(6);  // Ethernet's padding
    if (fast && input_predicted(t, frame.raw(), kL4Offset, n + text, now, r.events)) {
      (void)frame.release();
      ++predicted;
      return r;
    }
    wire::TcpView v;
    EXPECT_EQ(wire::TcpView::parse({frame.data() + kL4Offset, n + text}, v), wire::ParseError::kNone);
    frame.trim_back(6);
    frame.trim_front(kL4Offset + n);
    return input(t, v, text > 0 ? std::move(frame) : io::PacketPtr(), now);
  }
  bool poll(TimeNs now, OutSegment& out, uint32_t max_payload) {
    if (fast) return poll_output(t, now, out, max_payload);
    if (!output_pending(t)) return false;
    out = OutSegment{};
    return poll_output_any(t, now, out, max_payload);
  }

  support::HeapPacketPool pool{1024, 2048};
  RepairPool repairs{2};
  bool fast;
  Profile profile;
  Tcb t;
  uint64_t predicted = 0;
};

void expect_equal(const Tcb& a, const Tcb& b) {
#define SAME(member) ASSERT_EQ(a.member, b.member) << #member
  SAME(state);
  SAME(recovery);
  SAME(due);
  SAME(rcv_nxt);
  SAME(rcv_adv);
  SAME(snd_una);
  SAME(snd_nxt);
  SAME(snd_max);
  SAME(snd_wnd);
  SAME(retransmit_at);
  SAME(delayed_ack_at);
  SAME(state_at);
  SAME(last_received);
  SAME(snd_wl1);
  SAME(snd_wl2);
  SAME(ts_recent);
  SAME(last_ack_sent);
  SAME(flags);
  SAME(snd_mss);
  SAME(rcv_mss);
  SAME(ts_recent_hour);
  SAME(dup_acks);
  SAME(keepalives_sent);
  SAME(timeouts);
  SAME(probes);
  SAME(tx.bytes());
  SAME(rx.bytes());
  SAME(rx.truesize());
  SAME(rcv_cap);
  SAME(srtt_us);
  SAME(rttvar_us);
  SAME(rto_us);
  SAME(congestion.cwnd);
  SAME(congestion.ssthresh);
  SAME(max_snd_wnd);
  SAME(last_sent_ms);
  SAME(recover);
  SAME(growth_seq);
  SAME(retransmits);
  if (has(a, kFlagTiming)) {
    SAME(rtt_seq);
    SAME(rtt_sent_us);
  }
#undef SAME
  ASSERT_EQ(a.repair != nullptr, b.repair != nullptr);
  ASSERT_EQ(next_deadline(a), next_deadline(b));
}

void live(uint64_t seed, uint64_t* predicted) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  base::Prng r(seed);
  Config c;
  c.timestamps = r.chance(3, 4);
  c.sack = r.chance(3, 4);
  c.window_scaling = r.chance(3, 4);
  c.delayed_ack = r.chance(3, 4);
  c.nodelay = r.chance(3, 4);
  c.rcv_buf = c.rcv_wnd_initial = r.chance(1, 4) ? 4'000 : 100'000;
  c.congestion = r.chance(1, 2) ? CongestionAlgorithm::kReno : CongestionAlgorithm::kCubic;
  Twin x(c, true), y(c, false);
  Twin* both[] = {&x, &y};
  TimeNs now = sec(100) + r.below(sec(1));

  wire::TcpView syn;
  syn.flags = wire::kTcpSyn;
  syn.seq = kIrs;
  syn.window = 30'000;
  syn.mss = r.chance(1, 2) ? 1460 : 500;
  if (c.window_scaling) syn.wscale = 2;
  syn.sack_permitted = c.sack;
  uint32_t peer_ts = 1000;
  if (c.timestamps) syn.timestamps = wire::TcpTimestamps{peer_ts, 0};
  wire::TcpRepr h;
  h.src_port = 40'000;
  h.dst_port = 80;
  h.flags = wire::kTcpAck;
  h.window = 30'000;
  const auto drain = [&] {
    for (int n = 0; n < 10'000; ++n) {
      OutSegment a, b;
      const uint32_t most = r.chance(1, 3) ? 10'000 : 0;
      const bool more = x.poll(now, a, most);
      ASSERT_EQ(y.poll(now, b, most), more);
      if (!more) {
        ASSERT_FALSE(output_pending(x.t) || output_pending(y.t));
        return;
      }
      ASSERT_EQ(a.payload_offset, b.payload_offset);
      ASSERT_EQ(a.payload_len, b.payload_len);
      ASSERT_TRUE(a.payload_len == 0 || a.segment_size == b.segment_size);
      std::array<uint8_t, wire::kTcpMaxHeader> ha{}, hb{};
      ASSERT_EQ(a.header.emit(ha.data()), b.header.emit(hb.data()));
      ASSERT_EQ(ha, hb);
    }
    FAIL() << "output never ends";
  };
  for (Twin* w : both) open_passive(w->t, TcpDialog::tuple(), w->profile, syn, kIss, now);
  drain();
  uint32_t sent = 0, peer_next = kIrs + 1;  // the peer's own next number
  for (int step = 0; step < 600; ++step) {
    const uint64_t what = r.below(16);
    if (what < 9) {  // a segment: mostly the next one in order that acknowledges all
      const bool odd = r.chance(1, 12);
      uint32_t text = r.chance(1, 3) ? 0 : static_cast<uint32_t>(r.below(r.chance(1, 2) ? 1461 : 80));
      h.seq = peer_next;
      h.ack = r.chance(3, 4) ? x.t.snd_max : x.t.snd_una + static_cast<uint32_t>(r.below(x.t.snd_max - x.t.snd_una + 1));
      h.flags = wire::kTcpAck | (r.chance(1, 2) ? wire::kTcpPsh : 0);
      h.sack.clear();
      peer_ts += static_cast<uint32_t>(r.below(3));
      h.timestamps.reset();
      if (c.timestamps) h.timestamps = wire::TcpTimestamps{peer_ts, timestamp_clock(now, 0) - static_cast<uint32_t>(r.below(20))};
      if (odd) {
        switch (r.below(8)) {
          case 0:
            h.seq += static_cast<uint32_t>(r.between(1, 3000));
            break;
          case 1:
            h.seq -= static_cast<uint32_t>(r.between(1, 3000));
            break;
          case 2:
            h.ack += static_cast<uint32_t>(r.between(1, 100));
            break;
          case 3:
            h.ack -= static_cast<uint32_t>(r.between(1, 2000));
            break;
          case 4:
            h.window = static_cast<uint16_t>(r.chance(1, 3) ? 0 : r.below(65'536));
            break;
          case 5:
            if (c.sack) h.sack.push({x.t.snd_una + 500, x.t.snd_una + 500 + static_cast<uint32_t>(r.below(3000))});
            break;
          case 6:
            if (h.timestamps) h.timestamps->val -= static_cast<uint32_t>(r.below(5));
            break;
          default:
            if (r.chance(1, 8)) h.flags |= wire::kTcpFin;
            break;
        }
      } else if (r.chance(1, 6)) {
        h.window = static_cast<uint16_t>(r.between(10'000, 60'000));
      }
      const InputResult a = x.recv(h, text, now), b = y.recv(h, text, now);
      ASSERT_EQ(event_names(a.events), event_names(b.events));
      ASSERT_EQ(a.drop, b.drop);
      if (h.seq == peer_next && !(h.flags & wire::kTcpFin)) peer_next = seq_max(peer_next, x.t.rcv_nxt);
    } else if (what < 12) {  // the application writes
      std::vector<uint8_t> bytes(r.chance(1, 2) ? r.below(300) : r.below(9000));
      for (auto& byte : bytes) byte = pattern(sent++);
      for (Twin* w : both) send_copy(w->t, bytes, w->pool);
    } else if (what < 14) {  // and reads
      const uint64_t n = r.chance(1, 2) ? UINT32_MAX : r.below(2000);
      for (Twin* w : both) {
        w->t.rx.consume(std::min<uint64_t>(n, w->t.rx.bytes()));
        window_update(w->t, now);
      }
    } else if (what == 14 && r.chance(1, 40)) {
      for (Twin* w : both) close(w->t, now);
    }
    if (r.chance(1, 2)) drain();
    if (testing::Test::HasFatalFailure()) return;
    now += r.chance(1, 3) ? r.below(ms(80)) : r.below(ms(1));
    if (next_deadline(x.t) <= now) {
      const uint32_t events = on_deadline(x.t, now);
      ASSERT_EQ(on_deadline(y.t, now), events);
    }
    if (r.chance(1, 2)) {
      drain();
      if (testing::Test::HasFatalFailure()) return;
      expect_equal(x.t, y.t);
    }
    if (testing::Test::HasFatalFailure()) return;
    if (state(x.t) == State::kClosed) break;
  }
  *predicted += x.predicted;
}

TEST(FastPath, AgreesWithTheGeneralCode) {
  const char* given = std::getenv("MILLRACE_SEED");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  const uint64_t last = given != nullptr ? first : 300;
  uint64_t predicted = 0;
  for (uint64_t seed = first; seed <= last && !testing::Test::HasFatalFailure(); ++seed) live(seed, &predicted);
  if (given == nullptr) {
    EXPECT_GT(predicted, 20'000u) << "the fast path is hardly taken";
  }
}

// --- the pool of repair.h is empty: everything is as right, only slower

TEST(Repair, WithoutOneOutOfOrderDataIsDroppedAndAskedForAgain) {
  TcpDialog t;
  t.establish_sack();
  std::vector<Repair*> all;
  while (Repair* r = t.repairs.take()) all.push_back(r);
  EXPECT_EQ(t.recv("P. 101:201(100) ack 1").drop, stats::DropReason::kTcpReassemblyFull);
  t.expect(". 1 ack 1 <>");
  EXPECT_EQ(t.repairs.refused(), 2u);  // the fixture's own take() that found it empty, and ours
  EXPECT_EQ(event_names(t.recv("P. 1:101(100) ack 1").events), "readable");
  t.expect(". 1 ack 101");
  EXPECT_EQ(event_names(t.recv("P. 101:201(100) ack 1").events), "readable");
  EXPECT_EQ(t.read(), 200u);
  for (Repair* r : all) t.repairs.give(r);
}

TEST(Repair, WithoutOneDuplicateAcksFindTheLoss) {
  TcpDialog t;
  t.establish_sack();
  std::vector<Repair*> all;
  while (Repair* r = t.repairs.take()) all.push_back(r);
  t.write(14'600);
  EXPECT_EQ(t.drain().size(), 10u);
  for (uint32_t i = 2; i <= 4; ++i) {
    t.o = 1 + i * 1460;
    t.recv(". 1 ack 1 <sack 1461:o>");
  }
  t.expect(". 1:1461(1460) ack 1");  // RFC 5681 3.2, from duplicate ACKs alone
  EXPECT_FALSE(info(t.t).repairing);
  t.recv(". 1 ack 14601");
  EXPECT_EQ(bytes_unacked(t.t), 0u);
  EXPECT_EQ(t.t.recovery, Recovery::kOpen);
  for (Repair* r : all) t.repairs.give(r);
}

TEST(Repair, IsGivenBackWhenTheConnectionIsIdle) {
  Config c = TcpDialog::plain();
  TcpDialog t(c);
  t.establish_sack();
  t.write(14'600);
  t.drain();
  for (uint32_t i = 2; i <= 4; ++i) {
    t.o = 1 + i * 1460;
    t.recv(". 1 ack 1 <sack 1461:o>");
  }
  EXPECT_TRUE(info(t.t).repairing);
  t.drain();
  t.recv(". 1 ack 14601");
  EXPECT_TRUE(info(t.t).repairing);  // CUBIC remembers the window before the loss …
  const uint32_t ssthresh = info(t.t).ssthresh;
  EXPECT_EQ(t.pass(sec(3)), 0u);  // … for an RTO
  EXPECT_FALSE(info(t.t).repairing);
  EXPECT_EQ(t.repairs.in_use(), 0u);
  EXPECT_EQ(info(t.t).ssthresh, ssthresh);  // RFC 5681 4.1: cwnd restarts, ssthresh stays
  EXPECT_LE(info(t.t).cwnd, initial_window(1460));
}

}  // namespace
}  // namespace millrace::tcp
