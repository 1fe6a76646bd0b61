// Fragments: every order gives the datagram; what overlaps, lies or stays away is dropped with a reason, and nothing is kept.
#include <algorithm>
#include <random>

#include "tests/support/seed.h"
#include "tests/unit/dataplane/control_frames.h"

namespace millrace::dataplane::test {
namespace {

struct Piece {
  uint32_t offset, length;  // bytes
  bool more;
};

// The fragments of an IP packet (as ip_packet() makes them), in Ethernet.
Bytes fragment(const Bytes& packet, const Piece& p, uint32_t identification = 77) {
  const bool v4 = packet[0] >> 4 == 4;
  const uint32_t header = v4 ? 20 : 40;
  Bytes f(packet.begin(), packet.begin() + header);
  if (v4) {
    base::store_be16(f.data() + 2, static_cast<uint16_t>(20 + p.length));
    base::store_be16(f.data() + 4, static_cast<uint16_t>(identification));
    base::store_be16(f.data() + 6, static_cast<uint16_t>(p.offset / 8 | (p.more ? 0x2000 : 0)));
    wire::store_checksum(f.data() + 10, 0);
    wire::store_checksum(f.data() + 10, wire::checksum_finish(wire::checksum_sum({f.data(), 20})));
  } else {
    base::store_be16(f.data() + 4, static_cast<uint16_t>(8 + p.length));
    f.insert(f.end(), {f[6], 0, 0, 0, 0, 0, 0, 0});
    f[6] = 44;
    base::store_be16(f.data() + 42, static_cast<uint16_t>(p.offset | (p.more ? 1 : 0)));
    base::store_be32(f.data() + 44, identification);
  }
  for (uint32_t i = 0; i < p.length; ++i) f.push_back(header + p.offset + i < packet.size() ? packet[header + p.offset + i] : 0);
  Bytes frame = ethernet_frame(kOurMac, kPeerMac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, f);
  frame.resize(std::max<size_t>(60, frame.size()));  // Ethernet's padding is no data
  return frame;
}

std::vector<Piece> cut(uint32_t total, uint32_t size) {
  std::vector<Piece> out;
  for (uint32_t at = 0; at < total; at += size) out.push_back({at, std::min(size, total - at), at + size < total});
  return out;
}

Bytes echo(bool v4, uint32_t data) {
  const IpAddress src = ip(v4 ? "10.1.0.2" : "fd00:1::2"), dst = ip(v4 ? "10.1.0.1" : "fd00:1::1");
  std::string text(data, 0);
  for (uint32_t i = 0; i < data; ++i) text[i] = static_cast<char>(i * 7);
  wire::IcmpEchoRepr e;
  e.data = base::as_bytes(text);
  Bytes body(e.length());
  v4 ? e.emit_v4(body.data()) : e.emit_v6(body.data(), src, dst);
  return ip_packet(src, dst, v4 ? wire::kIpIcmp : wire::kIpIcmpv6, body);
}

TEST(Fragments, EveryOrderGivesTheDatagram) {
  for (const bool v4 : {true, false}) {
    const Bytes packet = echo(v4, 1000);
    std::vector<Piece> pieces = cut(static_cast<uint32_t>(packet.size()) - (v4 ? 20 : 40), 256);
    ASSERT_EQ(pieces.size(), 4u);
    std::vector<int> order = {0, 1, 2, 3};
    do {
      Stack s;
      for (size_t k = 0; k < order.size(); ++k) {
        EXPECT_EQ(s.port.sent(), 0u);
        s.input(fragment(packet, pieces[static_cast<size_t>(order[k])]));
      }
      const auto reply = parse_icmp(s.port.pop_sent_bytes());
      ASSERT_TRUE(reply) << v4;
      EXPECT_EQ(reply->icmp.kind, wire::IcmpKind::kEchoReply);
      EXPECT_TRUE(std::equal(reply->body.begin(), reply->body.end(), packet.begin() + (v4 ? 28 : 48), packet.end()));
      EXPECT_EQ(s.pool.in_use(), 0u);
    } while (std::next_permutation(order.begin(), order.end()));
  }
}

TEST(Fragments, ALargeEchoIsAnsweredInFragments) {
  for (const bool v4 : {true, false}) {
    Stack s;
    const Bytes packet = echo(v4, 1800);
    const uint32_t header = v4 ? 20 : 40;
    for (const Piece& p : cut(static_cast<uint32_t>(packet.size()) - header, 1400)) s.input(fragment(packet, p));
    ASSERT_EQ(s.port.sent(), 2u) << v4;
    Bytes whole;
    for (int k = 0; k < 2; ++k) {
      const Bytes f = s.port.pop_sent_bytes();
      EXPECT_LE(f.size(), 1514u);
      const uint32_t data = 14 + header + (v4 ? 0 : 8);
      const uint32_t offset = v4 ? (base::load_be16(f.data() + 20) & 0x1fffu) * 8 : base::load_be16(f.data() + 14 + 42) & 0xfff8u;
      const bool more = v4 ? (f[20] & 0x20) != 0 : (f[14 + 43] & 1) != 0;
      EXPECT_EQ(offset, whole.size());
      EXPECT_EQ(more, k == 0);
      whole.insert(whole.end(), f.begin() + data, f.end());
    }
    ASSERT_EQ(whole.size(), packet.size() - header);
    EXPECT_EQ(whole[0], v4 ? 0 : 129);
    EXPECT_TRUE(std::equal(whole.begin() + 8, whole.end(), packet.begin() + header + 8));
    EXPECT_EQ(s.pool.in_use(), 0u);
  }
}

// A SYN with a long option list in two fragments opens a connection; data in fragments larger than a packet arrives as a chain.
TEST(Fragments, TcpComesThrough) {
  for (const bool v4 : {true, false}) {
    Stack s;
    const char *peer = v4 ? "10.1.0.2" : "fd00:1::2", *ours = v4 ? "10.1.0.1" : "fd00:1::1";
    Segment open = syn(peer, ours);
    const Bytes packet = ip_packet(open.src, open.dst, wire::kIpTcp, tcp_bytes(open));
    for (const Piece& p : {Piece{16, 8, false}, Piece{0, 16, true}}) s.input(fragment(packet, p));
    const auto answer = s.sent();
    ASSERT_TRUE(answer) << v4;
    EXPECT_TRUE(answer->tcp.syn() && answer->tcp.has_ack());
    Segment data = open;
    data.header.mss.reset();
    data.header.flags = wire::kTcpAck | wire::kTcpPsh;
    data.header.seq = 1001;
    data.header.ack = answer->tcp.seq + 1;
    data.payload.assign(5000, 'x');
    const Bytes large = ip_packet(data.src, data.dst, wire::kIpTcp, tcp_bytes(data));
    for (const Piece& p : cut(static_cast<uint32_t>(large.size()) - (v4 ? 20 : 40), 1440)) s.input(fragment(large, p, 78));
    Connection* c = s.stack->pop_ready();
    ASSERT_NE(c, nullptr);
    EXPECT_EQ(tcp::rx_queue(c->tcb).bytes(), 5000u) << v4;
    s.stack->abort(*c, s.now);
    s.turn();
    EXPECT_EQ(s.pool.in_use(), 0u);
  }
}

TEST(Fragments, WhatIsDropped) {
  const struct {
    const char* what;
    std::vector<Piece> pieces;
    DropReason reason;
    uint64_t dropped;  // for it
    uint32_t held;     // in the end
  } cases[] = {
      {"a gap stays", {{0, 256, true}, {512, 96, false}}, DropReason::kFragmentTimeout, 0, 2},
      {"the same again is ignored", {{0, 256, true}, {0, 256, true}}, DropReason::kFragmentDuplicate, 1, 1},
      {"overlap by eight bytes", {{0, 256, true}, {248, 256, true}}, DropReason::kFragmentOverlap, 2, 0},
      {"one within another", {{0, 512, true}, {128, 64, true}}, DropReason::kFragmentOverlap, 2, 0},
      {"one around another", {{128, 64, true}, {0, 512, true}}, DropReason::kFragmentOverlap, 2, 0},
      {"same start, other length", {{0, 512, true}, {0, 256, true}}, DropReason::kFragmentOverlap, 2, 0},
      {"beyond the last", {{512, 96, false}, {608, 96, true}}, DropReason::kFragmentOverlap, 2, 0},
      {"a second last", {{512, 96, false}, {256, 96, false}}, DropReason::kFragmentOverlap, 2, 0},
      {"a last before others", {{512, 96, true}, {256, 96, false}}, DropReason::kFragmentOverlap, 2, 0},
      {"no multiple of eight, and more to come", {{0, 100, true}}, DropReason::kFragmentBad, 1, 0},
      {"empty", {{512, 0, false}}, DropReason::kFragmentBad, 1, 0},
      {"beyond 64 KB", {{65'528, 96, false}}, DropReason::kFragmentBad, 1, 0},
  };
  for (const bool v4 : {true, false}) {
    const Bytes packet = echo(v4, 592);
    for (const auto& c : cases) {
      Stack s;
      for (const Piece& p : c.pieces) s.input(fragment(packet, p));
      EXPECT_EQ(s.dropped(c.reason), c.dropped) << c.what << v4;
      while (s.port.sent() > 0) {  // at most: what was wrong
        const auto icmp = parse_icmp(s.port.pop_sent_bytes());
        ASSERT_TRUE(icmp) << c.what;
        EXPECT_EQ(icmp->icmp.kind, wire::IcmpKind::kParameterProblem) << c.what;
      }
      EXPECT_EQ(s.pool.in_use(), c.held) << c.what << v4;
    }
  }
}

TEST(Fragments, TimeIsUp) {
  for (const bool v4 : {true, false}) {
    for (const bool with_first : {true, false}) {
      Stack s;
      const Bytes packet = echo(v4, 592);
      if (with_first) s.input(fragment(packet, {0, 256, true}));
      s.input(fragment(packet, {512, 88, false}));
      const TimeNs most = v4 ? 30 * kSecond : 60 * kSecond;
      s.wait(most - 1);
      EXPECT_EQ(s.pool.in_use(), with_first ? 2u : 1u);
      s.wait(kSecond);
      EXPECT_EQ(s.pool.in_use(), s.port.sent()) << "nothing but the error";
      EXPECT_EQ(s.dropped(DropReason::kFragmentTimeout), with_first ? 2u : 1u);
      const auto error = parse_icmp(s.port.pop_sent_bytes());
      ASSERT_EQ(error.has_value(), with_first);  // RFC 792: only of what is known
      if (!error) continue;
      EXPECT_EQ(error->icmp.kind, wire::IcmpKind::kTimeExceeded);
      EXPECT_EQ(error->icmp.code, 1);
      EXPECT_EQ(error->dst, ip(v4 ? "10.1.0.2" : "fd00:1::2"));
    }
  }
}

TEST(Fragments, BoundsOfASourceAndOfAll) {
  Stack s;
  Bytes packet = echo(true, 592);
  // One source: a quarter of the 256, however many datagrams it begins.
  for (uint32_t id = 0; id < 200; ++id) s.input(fragment(packet, {0, 256, true}, id));
  EXPECT_LE(s.pool.in_use(), 64u);
  EXPECT_GT(s.dropped(DropReason::kFragmentLimit), 0u);
  // Many sources: the oldest give way, and the newest still gets through.
  for (uint32_t source = 10; source < 250; ++source) {
    packet[15] = static_cast<uint8_t>(source);
    for (uint32_t at = 0; at < 4; ++at) s.input(fragment(packet, {at * 128, 128, true}, source));
  }
  EXPECT_LE(s.pool.in_use(), 256u);
  packet = echo(true, 592);
  packet[15] = 9;
  wire::store_checksum(packet.data() + 10, 0);
  for (const Piece& p : cut(600, 256)) s.input(fragment(packet, p, 5));
  EXPECT_EQ(s.port.sent(), 1u);
}

TEST(Fragments, NotForUsAndOffAreDropped) {
  Stack s;
  Bytes packet = echo(true, 592);
  packet[19] = 99;
  s.input(fragment(packet, {0, 256, true}));
  EXPECT_EQ(s.dropped(DropReason::kIpNotOurs), 1u);
  support::HeapPacketPool pool(8);
  LocalCounters counters;
  Reassembler off(0, pool.pool(), counters.drops);
  Fragment f;
  f.frame = pool.make(Bytes(64)).release();
  EXPECT_EQ(off.add(f, 0), nullptr);
  EXPECT_EQ(counters.dropped(DropReason::kIpFragment), 1u);
  EXPECT_EQ(pool.in_use(), 0u);
}

// Any pieces in any order: nothing is lost or kept for ever, and what comes out is what went in.
TEST(Fragments, RandomPieces) {
  const auto seed = static_cast<uint32_t>(support::run_seed());
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Stack s;
  uint64_t answered = 0;
  for (int round = 0; round < 300; ++round) {
    const bool v4 = random() % 2 == 0;
    const Bytes packet = echo(v4, 8 + random() % 1500);
    std::vector<Piece> pieces = cut(static_cast<uint32_t>(packet.size()) - (v4 ? 20 : 40), 8 * (1 + random() % 100));
    std::shuffle(pieces.begin(), pieces.end(), random);
    for (Piece p : pieces) {
      if (random() % 10 == 0) continue;
      if (random() % 20 == 0) p.offset += 8;
      s.input(fragment(packet, p, static_cast<uint32_t>(round)));
    }
    s.now += kSecond / 4;
    while (s.port.sent() > 0) answered += parse_icmp(s.port.pop_sent_bytes()).has_value();
  }
  EXPECT_GT(answered, 0u);
  s.wait(120 * kSecond);
  s.port.clear();
  EXPECT_EQ(s.pool.in_use(), 0u);
}

// A port that spreads by ports and addresses sends later fragments, which have no ports, elsewhere than the first: whoever gets
// which, they meet, and what comes of them is with the worker that owns its flow.
struct Workers {
  static constexpr uint32_t kCount = 3;
  io::Steering steering{kCount, 99};
  std::optional<io::HandoverMesh> mesh{kCount};
  std::optional<Stack> worker[kCount];
  explicit Workers(const Options& o = {}) {
    for (uint32_t w = 0; w < kCount; ++w) {
      Options mine = o;
      mine.workers = kCount;
      mine.worker = w;
      worker[w].emplace(mine, &steering, &*mesh);
    }
  }
  ~Workers() { mesh.reset(); }  // before the pools
  void input(uint32_t w, const Bytes& frame) {
    worker[w]->input(frame);
    for (int k = 0; k < 3; ++k)  // to where they meet, from there to the owner, and its answer
      for (auto& s : worker) s->turn();
  }
  uint64_t handed_over() const {
    uint64_t n = 0;
    for (const auto& s : worker) n += s->counters.loop[stats::LoopCounter::kHandoverOut].read();
    return n;
  }
  uint32_t in_use() const {
    uint32_t n = 0;
    for (const auto& s : worker) n += s->pool.in_use();
    return n;
  }
};

TEST(Fragments, MeetAtOneWorker) {
  for (const bool v4 : {true, false}) {
    Workers all;
    uint32_t answered[Workers::kCount] = {};
    const Bytes packet = echo(v4, 1000);
    for (uint32_t id = 1; id <= 60; ++id) {
      uint32_t at = id;
      for (const Piece& p : cut(static_cast<uint32_t>(packet.size()) - (v4 ? 20 : 40), 256))
        all.input(at++ % Workers::kCount, fragment(packet, p, id * 7919));
      uint32_t answers = 0;
      for (uint32_t w = 0; w < Workers::kCount; ++w) {
        for (; all.worker[w]->port.sent() > 0; ++answers, ++answered[w]) {
          const auto reply = parse_icmp(all.worker[w]->port.pop_sent_bytes());
          ASSERT_TRUE(reply) << v4;
          EXPECT_EQ(reply->icmp.kind, wire::IcmpKind::kEchoReply);
        }
      }
      EXPECT_EQ(answers, 1u) << id;
    }
    for (const uint32_t n : answered) EXPECT_GT(n, 5u) << "each has its share";
    EXPECT_GT(all.handed_over(), 60u);
    EXPECT_EQ(all.in_use(), 0u);
  }
}

TEST(Fragments, AWholeSegmentGoesToTheOwnerOfItsFlow) {
  for (const bool v4 : {true, false}) {
    uint32_t owned[Workers::kCount] = {};
    Workers all({.payload_packets = 256});
    for (uint16_t k = 0; k < 30; ++k) {
      Segment x = syn(v4 ? "10.1.0.2" : "fd00:1::2", v4 ? "10.1.0.1" : "fd00:1::1");
      x.header.src_port = static_cast<uint16_t>(5000 + k);
      const uint32_t owner = all.steering.owner(0, x.dst, 80, x.src, x.header.src_port);
      ++owned[owner];
      Stack& o = *all.worker[owner];
      uint32_t at = k;
      const Bytes opening = ip_packet(x.src, x.dst, wire::kIpTcp, tcp_bytes(x));
      for (const Piece& p : {Piece{16, 8, false}, Piece{0, 16, true}})
        all.input(at++ % Workers::kCount, fragment(opening, p, 1000u + k));
      const auto answer = o.sent();
      ASSERT_TRUE(answer) << v4 << " " << k;
      EXPECT_TRUE(answer->tcp.syn() && answer->tcp.has_ack());
      x.header.mss.reset();
      x.header.flags = wire::kTcpAck | wire::kTcpPsh;
      x.header.seq = 1001;
      x.header.ack = answer->tcp.seq + 1;
      x.payload.assign(5000, 'x');
      const Bytes large = ip_packet(x.src, x.dst, wire::kIpTcp, tcp_bytes(x));
      for (const Piece& p : cut(static_cast<uint32_t>(large.size()) - (v4 ? 20 : 40), 1440))
        all.input(at++ % Workers::kCount, fragment(large, p, 2000u + k));
      Connection* c = o.stack->pop_ready();
      ASSERT_NE(c, nullptr);
      EXPECT_EQ(tcp::rx_queue(c->tcb).bytes(), 5000u) << v4;
      o.stack->abort(*c, o.now);
      o.turn();
      for (auto& s : all.worker) s->port.clear();
    }
    for (const uint32_t n : owned) EXPECT_GT(n, 3u);
    for (auto& s : all.worker) EXPECT_EQ(s->dropped(DropReason::kWrongCore) + s->dropped(DropReason::kTcpNoConnection), 0u);
    EXPECT_EQ(all.in_use(), 0u);
  }
}

}  // namespace
}  // namespace millrace::dataplane::test
