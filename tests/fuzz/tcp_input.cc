// One TCB under a peer and an application made of bytes: segments near the window with any flags and options, writes, reads,
// closes, aborts, time. Whatever comes, the invariants of lib/tcp hold and every packet goes back to its pool.
//
// Input: one byte of configuration, then records of one opcode byte and its operands (missing bytes read as 0).
#include <algorithm>

#include "lib/tcp/listener.h"
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcp.h"
#include "lib/tcp/time_wait.h"
#include "tests/fuzz/require.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::tcp;

namespace {

constexpr uint32_t kIss = 0xffffff80, kIrs = 0xffffff40;

struct Bytes {
  const uint8_t* at;
  const uint8_t* end;
  bool empty() const { return at == end; }
  uint8_t u8() { return empty() ? 0 : *at++; }
  uint16_t u16() { return static_cast<uint16_t>(u8() << 8 | u8()); }
};

struct Machine {
  support::HeapPacketPool& pool;
  RepairPool& repairs;
  Tcb t;
  TimeNs now = 1000 * base::kSecond;
  Config config;
  uint32_t right_edge = 0;
  bool edge_known = false;

  void check(uint32_t events) {
    const State s = state(t);
    FUZZ_REQUIRE((events & kEventClosed) == 0 || s == State::kClosed);
    FUZZ_REQUIRE((events & kEventTimeWait) == 0 || s == State::kTimeWait || s == State::kClosed);
    if (s == State::kClosed) {
      FUZZ_REQUIRE(t.tx.empty() && t.repair == nullptr && next_deadline(t) == base::kNever);
      return;
    }
    FUZZ_REQUIRE(seq_le(t.snd_una, t.snd_nxt) && seq_le(t.snd_nxt, t.snd_max));
    FUZZ_REQUIRE(seq_le(t.rcv_nxt, t.rcv_adv) || s == State::kSynSent || (t.flags & kFlagPeerFinDone) != 0);
    if (t.repair != nullptr) {
      const Scoreboard& b = t.repair->scoreboard;
      const Reassembly& r = t.repair->reassembly;
      FUZZ_REQUIRE(b.ranges() <= Scoreboard::kMaxRanges);
      FUZZ_REQUIRE(b.bytes() <= t.snd_max - t.snd_una);
      FUZZ_REQUIRE(b.empty() || (seq_le(b.highest(), t.snd_max) && seq_gt(b.highest(), t.snd_una)));
      FUZZ_REQUIRE(r.empty() || seq_gt(r.end(), t.rcv_nxt));
      // Nothing is kept that nobody needs: an idle connection gives back all within an RTO.
      FUZZ_REQUIRE(!b.empty() || !r.empty() || r.has_report() || t.recovery != Recovery::kOpen ||
                   t.retransmit_at != base::kNever || output_pending(t));  // what is about to be sent starts the timer
    }
    FUZZ_REQUIRE(s < State::kEstablished || t.congestion.cwnd > 0);
    FUZZ_REQUIRE(s < State::kEstablished || s == State::kTimeWait ||
                 t.tx.bytes() + ((t.flags & (kFlagFinSent | kFlagFinAcked)) == kFlagFinSent ? 1 : 0) >= t.snd_max - t.snd_una);
    FUZZ_REQUIRE(bytes_unacked(t) == t.tx.bytes());
    FUZZ_REQUIRE(config.keepalive_idle_ns == 0 || s == State::kSynSent || s == State::kSynReceived ||
                 next_deadline(t) != base::kNever || output_pending(t));
  }

  void drain() {
    OutSegment out;
    for (int n = 0; poll_output(t, now, out, 1460 * 4); ++n) {
      FUZZ_REQUIRE(n < 10'000);
      FUZZ_REQUIRE(out.payload_offset + uint64_t{out.payload_len} <= t.tx.bytes() || state(t) == State::kClosed);
      uint8_t header[wire::kTcpMaxHeader];
      wire::TcpView view;
      FUZZ_REQUIRE(wire::TcpView::parse({header, out.header.emit(header)}, view) == wire::ParseError::kNone);
      if ((out.header.flags & wire::kTcpAck) && !(out.header.flags & (wire::kTcpRst | wire::kTcpSyn))) {
        const uint32_t right = out.header.ack + (uint32_t{out.header.window} << t.rcv_wscale);
        // A scaled window is at most its unit short of what was offered once (RFC 7323 2.4); what was offered is still taken.
        FUZZ_REQUIRE(!edge_known || seq_gt(right + (1u << t.rcv_wscale), right_edge));
        right_edge = edge_known ? seq_max(right_edge, right) : right;
        FUZZ_REQUIRE(seq_le(right_edge, t.rcv_adv));
        edge_known = true;
      }
      check(0);
    }
    FUZZ_REQUIRE(!output_pending(t));
  }

  void segment(Bytes& in) {
    wire::TcpView v;
    v.src_port = 40'000;
    v.dst_port = 80;
    v.payload_offset = 20;
    const uint8_t how = in.u8();
    v.flags = in.u8();
    if ((v.flags & wire::kTcpSyn) && (v.flags & (wire::kTcpFin | wire::kTcpRst)))
      v.flags &= static_cast<uint8_t>(~(wire::kTcpFin | wire::kTcpRst));
    // Sequence and ACK numbers: exactly right, near, or anything.
    const int16_t near = static_cast<int16_t>(in.u16());
    v.seq = t.rcv_nxt;
    v.ack = t.snd_max;
    if (state(t) == State::kSynSent) v.seq = kIrs;
    switch (how & 3) {
      case 0:
        break;
      case 1:
        v.seq += static_cast<uint32_t>(near);
        break;
      case 2:
        v.ack = t.snd_una + static_cast<uint32_t>(near);
        break;
      default:
        v.seq += static_cast<uint32_t>(near) << 8;
        v.ack = t.snd_una + static_cast<uint32_t>(near >> 4);
        break;
    }
    v.window = how & 4 ? in.u16() : 30'000;
    if (how & 8)
      v.timestamps = wire::TcpTimestamps{t.ts_recent + static_cast<uint32_t>(static_cast<int8_t>(in.u8())),
                                         static_cast<uint32_t>(now / base::kMillisecond) - in.u8()};
    if (how & 16) {
      for (uint8_t n = in.u8() & 3; n-- > 0;) {
        const uint32_t left = t.snd_una + static_cast<uint32_t>(static_cast<int16_t>(in.u16()));
        v.sack.push({left, left + static_cast<uint32_t>(static_cast<int16_t>(in.u16()))});
      }
    }
    if (v.flags & wire::kTcpSyn) {
      v.mss = in.u16();
      if (how & 32) v.wscale = static_cast<uint8_t>(in.u8() % 15);
      v.sack_permitted = how & 64;
    }
    io::PacketPtr payload;
    const uint32_t length = how & 128 ? in.u16() % 1461 : 0;
    if (length > 0) {
      payload = pool.alloc();
      if (!payload) return;
      std::fill_n(payload.append(length), length, uint8_t{7});
      v.payload_length = length;
    }
    const InputResult r = input(t, v, std::move(payload), now, (how & 3) == 1);
    check(r.events);
    if (state(t) == State::kTimeWait && (how & 1)) {
      TimeWaitEntry e = make_time_wait(t, now);
      wire::TcpRepr reply;
      time_wait_input(e, v, now, reply);
    }
  }

  void step(Bytes& in) {
    const uint8_t op = in.u8();
    switch (op & 15) {
      default:
        segment(in);
        break;
      case 9: {
        uint8_t bytes[2048] = {};
        send_copy(t, base::ByteSpan(bytes, in.u16() % sizeof bytes), pool);
        break;
      }
      case 10:
        t.rx.consume(std::min<uint64_t>(t.rx.bytes(), in.u16()));
        window_update(t, now);
        break;
      case 11:
        if ((op >> 4) < 4) tcp::close(t, now);
        else if ((op >> 4) == 4) tcp::abort(t, now);
        else if ((op >> 4) == 5) set_orphan(t, now);
        else on_path_mtu(t, in.u16(), t.snd_una + in.u8(), now);
        break;
      case 12:
        now += TimeNs{in.u16()} * base::kMillisecond;
        break;
      case 13:
      case 14:
        if (next_deadline(t) != base::kNever) now = std::max(now, next_deadline(t));
        break;
      case 15:
        drain();
        return;
    }
    if (next_deadline(t) <= now) {
      check(on_deadline(t, now));
      FUZZ_REQUIRE(next_deadline(t) > now);
    }
    if (op & 16) drain();
    check(0);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static support::HeapPacketPool pool(2048, 2048);
  static RepairPool repairs(1);
  {
    Bytes in{data, data + size};
    Machine m{.pool = pool, .repairs = repairs};
    const uint8_t how = in.u8();
    m.config.sack = !(how & 1);
    m.config.timestamps = how & 2;
    m.config.window_scaling = how & 4;
    m.config.delayed_ack = how & 8;
    m.config.nodelay = how & 16;
    m.config.rcv_buf = how & 32 ? 4'000 : 200'000;
    m.config.snd_buf = 100'000;
    m.config.ecn = EcnMode::kRequest;
    m.config.congestion = how & 64 ? CongestionAlgorithm::kReno : CongestionAlgorithm::kCubic;
    const Profile profile{m.config, size % 4 == 3 ? nullptr : &repairs};  // a pool that is empty must do no harm
    const FourTuple tuple{base::IpAddress::v4(1), base::IpAddress::v4(2), 80, 40'000};
    if (how & 128) {
      open_active(m.t, tuple, profile, kIss, m.now);
    } else {
      wire::TcpView syn;
      syn.seq = kIrs;
      syn.flags = wire::kTcpSyn | wire::kTcpEce | wire::kTcpCwr;
      syn.window = 20'000;
      syn.mss = 1000;
      syn.wscale = 3;
      syn.sack_permitted = true;
      syn.timestamps = wire::TcpTimestamps{1000, 0};
      if (size % 4 == 2) {  // a fast open, whose handshake the input completes or does not
        io::PacketPtr early = pool.alloc();
        std::fill_n(early.append(500), 500, uint8_t{7});
        m.check(open_fast(m.t, tuple, profile, syn, std::move(early), kIss, m.now));
        m.drain();
      } else {
        open_passive(m.t, tuple, profile, syn, kIss, m.now);
        m.drain();
        wire::TcpView ack;
        ack.seq = kIrs + 1;
        ack.ack = kIss + 1;
        ack.flags = wire::kTcpAck;
        ack.window = 20'000;
        if (m.config.timestamps) ack.timestamps = wire::TcpTimestamps{1001, static_cast<uint32_t>(m.now / base::kMillisecond)};
        input(m.t, ack, {}, m.now);
      }
    }
    for (int steps = 0; !in.empty() && steps < 2000; ++steps) m.step(in);
    m.drain();
    release(m.t);
  }
  FUZZ_REQUIRE(pool.balanced() && repairs.in_use() == 0);
  return 0;
}
