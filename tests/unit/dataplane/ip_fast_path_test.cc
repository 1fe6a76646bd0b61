// IpLayer::input() takes ordinary frames in one pass and leaves the rest to input_any(). Two equal layers get the same frames,
// one through each: every verdict, drop reason, answer and TcpPacket must be the same, whatever is in the frame and its marks.
#include <set>

#include "lib/base/prng.h"
#include "lib/stats/drop_reason.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

struct Layer {
  explicit Layer(const IpLayerConfig& config, const io::PortCapabilities& c) {
    port.change() = c;
    io::PortQueue* q[] = {&port};
    ip = std::make_unique<IpLayer>(config, q, io::TxPools{pool.pool(), headers.pool(), {}}, counters.view(), 0);
  }
  ~Layer() {
    ip->flush(0);
    port.clear();
  }
  support::HeapPacketPool pool{64}, headers{64, io::kHeaderRoom};
  support::FakePort port{kOurMac};
  LocalCounters counters;
  std::unique_ptr<IpLayer> ip;
};

IpLayerConfig config_of(uint16_t vlan) {
  IpLayerConfig c;
  InterfaceConfig i;
  i.vlan = vlan;
  i.addresses = {{ip("10.1.0.1"), 24}, {ip("10.1.0.3"), 24}, {ip("fd00:1::1"), 64}};
  i.neighbors = {{ip("10.1.0.2"), kPeerMac}, {ip("fd00:1::2"), kPeerMac}};
  c.ports = {i};
  c.worker = 1;  // does not announce
  return c;
}

// A frame with what the port says of it; `cuts`: where it is cut into a chain.
struct Input {
  Bytes bytes;
  uint64_t flags = 0;
  std::vector<size_t> cuts;
};

rte_mbuf* make(support::HeapPacketPool& pool, const Input& in) {
  rte_mbuf *head = nullptr, *tail = nullptr;
  size_t at = 0;
  for (size_t k = 0; k <= in.cuts.size(); ++k) {
    const size_t end = k == in.cuts.size() ? in.bytes.size() : in.cuts[k];
    rte_mbuf* m = pool.make(base::ByteSpan(in.bytes).subspan(at, end - at)).release();
    at = end;
    if (head == nullptr) {
      head = m;
      head->ol_flags |= in.flags;
    } else {
      tail->next = m;
      ++head->nb_segs;
      head->pkt_len += m->data_len;
    }
    tail = m;
  }
  return head;
}

void fix_sums(Bytes& f, size_t l3, bool v4, bool ip_too) {
  const size_t header = v4 ? 20 : 40;
  if (f.size() < l3 + header + 20) return;
  if (v4 && ip_too) {
    f[l3 + 10] = f[l3 + 11] = 0;
    wire::store_checksum(&f[l3 + 10], wire::checksum_finish(wire::checksum_sum({&f[l3], 20})));
  }
  const size_t l4 = l3 + header, length = v4 ? base::load_be16(&f[l3 + 2]) - header : base::load_be16(&f[l3 + 4]);
  if (length < 20 || length > f.size() - l4) return;
  const IpAddress src = v4 ? IpAddress::v4(base::load_be32(&f[l3 + 12])) : IpAddress::v6(&f[l3 + 8]);
  const IpAddress dst = v4 ? IpAddress::v4(base::load_be32(&f[l3 + 16])) : IpAddress::v6(&f[l3 + 24]);
  f[l4 + 16] = f[l4 + 17] = 0;
  const auto pseudo =
      v4 ? wire::pseudo_header_v4(src.v4_host_order(), dst.v4_host_order(), wire::kIpTcp, static_cast<uint32_t>(length))
         : wire::pseudo_header_v6(src.bytes.data(), dst.bytes.data(), wire::kIpTcp, static_cast<uint32_t>(length));
  wire::store_checksum(&f[l4 + 16], wire::checksum_finish(pseudo + wire::checksum_sum({&f[l4], length})));
}

// An ordinary segment, then what chance makes of it.
Input any_frame(base::Prng& r, uint16_t port_vlan, uint32_t& ordinary) {
  const bool v4 = r.chance(2, 3);
  static const char* const kV4[] = {"10.1.0.1",  "10.1.0.2",  "10.1.0.3", "10.1.0.9",
                                    "127.0.0.1", "224.0.0.1", "0.0.0.1",  "8.8.8.8"};
  static const char* const kV6[] = {"fd00:1::1", "fd00:1::2", "fd00:1::3", "::1", "::", "ff02::1", "2001:db8::7", "::5"};
  const bool strange = r.chance(1, 4);
  Segment s{strange ? ip((v4 ? kV4 : kV6)[r.below(8)]) : ip(v4 ? "10.1.0.2" : "fd00:1::2"),
            strange ? ip((v4 ? kV4 : kV6)[r.below(8)]) : ip(v4 ? (r.chance(1, 2) ? "10.1.0.1" : "10.1.0.3") : "fd00:1::1"),
            {},
            std::string(r.below(r.chance(1, 8) ? 1400 : 80), 'x')};
  s.header.src_port = static_cast<uint16_t>(r.next());
  s.header.dst_port = static_cast<uint16_t>(r.next());
  s.header.seq = static_cast<uint32_t>(r.next());
  s.header.flags = r.chance(1, 8) ? wire::kTcpSyn : wire::kTcpAck;
  if (r.chance(1, 2)) s.header.timestamps = wire::TcpTimestamps{1, 2};
  if (r.chance(1, 8)) s.header.sack.push({1, 2});
  const uint16_t vlan = r.chance(1, 10) ? static_cast<uint16_t>(r.below(8)) : port_vlan;
  const size_t l3 = vlan == 0 ? 14 : 18;
  Input in{tcp_frame(s, vlan), 0, {}};
  Bytes& f = in.bytes;
  bool plain = !strange && vlan == port_vlan;
  if (vlan != 0 && r.chance(1, 4)) f[14] |= static_cast<uint8_t>(r.below(8) << 5);  // priority
  if (v4 && r.chance(1, 2)) f[l3 + 1] = static_cast<uint8_t>(r.next());             // TOS, ECN
  if (!v4 && r.chance(1, 2)) f[l3] = static_cast<uint8_t>(0x60 | r.below(16)), f[l3 + 1] = static_cast<uint8_t>(r.next());
  if (v4) fix_sums(f, l3, v4, true);
  if (r.chance(1, 2)) {  // a few bytes of the headers, at random or to values that mean something
    plain = false;
    for (uint64_t k = 1 + r.below(3); k-- > 0;) {
      static constexpr uint8_t kTelling[] = {0, 1, 6, 0x20, 0x40, 0x45, 0x46, 0x60, 0x80, 0xff, 58, 17, 44, 0x81, 0x08};
      f[r.below(std::min<size_t>(f.size(), l3 + 64))] =
          r.chance(1, 2) ? kTelling[r.below(sizeof kTelling)] : static_cast<uint8_t>(r.next());
    }
    if (r.chance(2, 3)) fix_sums(f, l3, v4, true);
  }
  if (r.chance(1, 8)) f.resize(r.below(f.size()) + 1), plain = false;
  if (r.chance(1, 4)) f.resize(f.size() + r.below(20));  // Ethernet's padding
  static constexpr uint64_t kMarks[] = {0, RTE_MBUF_F_RX_L4_CKSUM_GOOD, RTE_MBUF_F_RX_L4_CKSUM_BAD, RTE_MBUF_F_RX_L4_CKSUM_NONE};
  in.flags |= kMarks[r.below(4)];
  static constexpr uint64_t kIpMarks[] = {0, RTE_MBUF_F_RX_IP_CKSUM_GOOD, RTE_MBUF_F_RX_IP_CKSUM_BAD,
                                          RTE_MBUF_F_RX_IP_CKSUM_NONE};
  in.flags |= kIpMarks[r.below(4)];
  if (r.chance(1, 16)) in.flags |= RTE_MBUF_F_RX_LRO;
  if (r.chance(1, 16)) in.flags |= RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED, plain = false;
  if (r.chance(1, 6))
    for (size_t at = r.below(400); at < f.size() && in.cuts.size() < 4; at += 1 + r.below(300))
      if (at > 0) in.cuts.push_back(at);
  // A sum that was left to a device.
  const size_t l4 = l3 + (v4 ? 20u : 40u);
  if (r.chance(1, 4) && plain && f.size() >= l4 + 20) {
    const uint32_t length = r.chance(1, 4) ? 0 : v4 ? base::load_be16(&f[l3 + 2]) - 20u : base::load_be16(&f[l3 + 4]);
    wire::store_checksum(&f[l4 + 16], wire::checksum_fold(wire::pseudo_header(s.src, s.dst, wire::kIpTcp, length)));
  }
  ordinary += plain;
  return in;
}

struct Result {
  IpVerdict verdict;
  TcpPacket tcp;
  IcmpError error;
  bool news;
};

Result run(Layer& l, const Input& in, TimeNs now, bool learn_only, bool any) {
  Result r{};
  rte_mbuf* m = make(l.pool, in);
  r.verdict = any ? l.ip->input_any(0, m, now, learn_only, r.tcp, r.error) : l.ip->input(0, m, now, learn_only, r.tcp, r.error);
  r.news = l.ip->neighbor_news();
  if (r.verdict != IpVerdict::kConsumed) {
    EXPECT_EQ(r.tcp.frame, m);
    rte_pktmbuf_free(m);
  }
  return r;
}

TEST(FastPath, SaysWhatTheLongWaySays) {
  uint32_t ordinary = 0, segments = 0;
  std::set<DropReason> reasons;
  for (uint64_t seed = 1; seed <= 240; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    base::Prng r(seed);
    const uint16_t vlan = r.chance(1, 3) ? 5 : 0;
    io::PortCapabilities c;
    c.mac = kOurMac;
    c.rx_ip_checksum = r.chance(1, 2);
    c.rx_tcp_checksum = r.chance(1, 2);
    c.rx_tcp_unsummed = r.chance(1, 2);
    c.partial_rx_checksum = r.chance(1, 4);
    Layer a(config_of(vlan), c), b(config_of(vlan), c);
    // A port whose marks are right: trust is reached in half of the runs, and then lies are believed by both alike.
    const bool honest = r.chance(1, 2);
    for (int k = 0; k < 600; ++k) {
      Input in = any_frame(r, vlan, ordinary);
      if (honest && k < 200) in.flags = 0;
      if (honest && k >= 100 && k < 300) {
        in = {};
        Segment s{ip("10.1.0.2"), ip("10.1.0.1"), {}, "x"};
        s.header.flags = wire::kTcpAck;
        in.bytes = tcp_frame(s, vlan);
        in.flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_GOOD;
      }
      const bool learn_only = r.chance(1, 50);
      const TimeNs now = static_cast<TimeNs>(k) * kMillisecond;
      const Result x = run(a, in, now, learn_only, false), y = run(b, in, now, learn_only, true);
      ASSERT_EQ(x.verdict, y.verdict) << "frame " << k;
      ASSERT_EQ(x.news, y.news) << "frame " << k;
      for (uint32_t d = 0; d < stats::kDropReasonCount; ++d) {
        ASSERT_EQ(a.counters.drops[d].read(), b.counters.drops[d].read()) << "frame " << k << " reason " << d;
        if (a.counters.drops[d].read() != 0) reasons.insert(static_cast<DropReason>(d));
      }
      if (x.verdict == IpVerdict::kTcp) {
        ++segments;
        ASSERT_EQ(x.tcp.tuple, y.tcp.tuple) << "frame " << k;
        ASSERT_EQ(x.tcp.arrival_port, y.tcp.arrival_port);
        ASSERT_EQ(x.tcp.local_port_index, y.tcp.local_port_index);
        ASSERT_EQ(x.tcp.l4_offset, y.tcp.l4_offset) << "frame " << k;
        ASSERT_EQ(x.tcp.l4_length, y.tcp.l4_length) << "frame " << k;
        ASSERT_EQ(x.tcp.ecn, y.tcp.ecn) << "frame " << k;
      }
      a.ip->flush(0);
      b.ip->flush(0);
      ASSERT_EQ(a.port.sent(), b.port.sent());
      while (a.port.sent() > 0) ASSERT_EQ(a.port.pop_sent_bytes(), b.port.pop_sent_bytes());
    }
  }
  // The comparison is worth something only while both kinds of frame are many and most reasons come up.
  EXPECT_GT(ordinary, 30'000u);
  EXPECT_GT(segments, 30'000u);
  for (const DropReason d :
       {DropReason::kEthNotOurs, DropReason::kEthUnknownType, DropReason::kVlanUnknown, DropReason::kIpTruncated,
        DropReason::kIpBadHeader, DropReason::kIpBadChecksum, DropReason::kIpFragment, DropReason::kIpNotOurs,
        DropReason::kIpBadSource, DropReason::kIpUnknownProtocol, DropReason::kTcpBadChecksum, DropReason::kTcpTruncated})
    EXPECT_TRUE(reasons.contains(d)) << stats::info(d).name;
}

// What a mark is worth, by what the port is known to mean with it.
struct MarkCase {
  const char* what;
  bool tcp_checksum, unsummed;
  uint64_t flags;
  enum Sum { kRight, kWrong, kPseudo, kPseudoNoLength } sum;
  bool at_first, later;  // accepted as the first frame of its kind; after the port has earned its trust
};
TEST(ChecksumMarks, AreWorthWhatTheDriverMeans) {
  constexpr uint64_t kGood = RTE_MBUF_F_RX_L4_CKSUM_GOOD, kNone = RTE_MBUF_F_RX_L4_CKSUM_NONE, kBad = RTE_MBUF_F_RX_L4_CKSUM_BAD;
  const MarkCase cases[] = {
      {"good, and it is", true, true, kGood, MarkCase::kRight, true, true},
      {"good, but it is not", true, true, kGood, MarkCase::kWrong, false, true},
      {"unknown, right", true, true, 0, MarkCase::kRight, true, true},
      {"unknown, wrong", true, true, 0, MarkCase::kWrong, false, false},
      {"unknown, only the pseudo-header", true, true, 0, MarkCase::kPseudo, false, false},
      {"bad, but right", true, true, kBad, MarkCase::kRight, true, true},
      {"bad", true, true, kBad, MarkCase::kWrong, false, false},
      {"never summed", true, true, kNone, MarkCase::kPseudo, true, true},
      {"never summed, yet summed", true, true, kNone, MarkCase::kRight, true, true},
      {"never summed, neither the one nor the other", true, true, kNone, MarkCase::kWrong, false, true},
      {"never summed, large", true, true, kNone | RTE_MBUF_F_RX_LRO, MarkCase::kPseudoNoLength, true, true},
      {"never summed, small, without its length", true, true, kNone, MarkCase::kPseudoNoLength, false, true},
      {"never summed, of a driver that means nothing by it", true, false, kNone, MarkCase::kPseudo, false, false},
      {"good, of a driver that does not mark", false, false, kGood, MarkCase::kWrong, false, false},
  };
  for (const bool v4 : {true, false}) {
    const IpAddress src = ip(v4 ? "10.1.0.2" : "fd00:1::2"), dst = ip(v4 ? "10.1.0.1" : "fd00:1::1");
    auto frame = [&](MarkCase::Sum sum) {
      Segment s{src, dst, {}, "what a mill needs is water"};
      s.header.flags = wire::kTcpAck;
      Bytes f = tcp_frame(s);
      const size_t l4 = v4 ? 34 : 54;
      const auto length = static_cast<uint32_t>(f.size() - l4);
      if (sum == MarkCase::kWrong) f.back() ^= 1;
      if (sum == MarkCase::kPseudo || sum == MarkCase::kPseudoNoLength) {
        const auto pseudo = wire::pseudo_header(src, dst, wire::kIpTcp, sum == MarkCase::kPseudo ? length : 0);
        wire::store_checksum(f.data() + l4 + 16, wire::checksum_fold(pseudo));
      }
      return f;
    };
    for (const MarkCase& c : cases) {
      io::PortCapabilities caps;
      caps.mac = kOurMac;
      caps.rx_tcp_checksum = c.tcp_checksum;
      caps.rx_tcp_unsummed = c.unsummed;
      Layer fresh(config_of(0), caps), trusted(config_of(0), caps);
      for (int k = 0; k < 64; ++k) {
        run(trusted, {frame(MarkCase::kRight), kGood, {}}, 0, false, false);
        run(trusted, {frame(MarkCase::kPseudo), kNone, {}}, 0, false, false);
      }
      EXPECT_EQ(run(fresh, {frame(c.sum), c.flags, {}}, 0, false, false).verdict == IpVerdict::kTcp, c.at_first) << c.what;
      EXPECT_EQ(run(trusted, {frame(c.sum), c.flags, {}}, 0, false, false).verdict == IpVerdict::kTcp, c.later) << c.what;
    }
  }
}

// What leaves is what the reprs of lib/wire write, byte for byte, whichever way it went through send_tcp().
TEST(SendTcp, WritesWhatTheReprsWrite) {
  base::Prng r(11);
  for (int trial = 0; trial < 4000; ++trial) {
    SCOPED_TRACE(testing::Message() << "seed 11 trial " << trial);
    const bool v4 = r.chance(1, 2), known = r.chance(7, 8);
    const uint16_t vlan = r.chance(1, 3) ? static_cast<uint16_t>(r.between(1, 4094)) : 0;
    io::PortCapabilities c;
    c.mac = kOurMac;
    c.tx_tcp_checksum = r.chance(2, 3);
    c.tx_ip_checksum = r.chance(1, 3);
    c.tx_multi_segment = r.chance(1, 2);
    c.max_tx_segments = 8;
    c.tso = c.tx_tcp_checksum && c.tx_multi_segment && r.chance(1, 2);
    c.tso_sum_with_length = r.chance(1, 2);
    support::HeapPacketPool pool(32), headers(32, io::kHeaderRoom), indirect(32, 0);
    support::FakePort port(kOurMac);
    port.change() = c;
    LocalCounters counters;
    IpLayerConfig config = config_of(vlan);
    if (!known) config.ports[0].neighbors.clear();
    io::PortQueue* q[] = {&port};
    IpLayer layer(config, q, {pool.pool(), headers.pool(), indirect.pool()}, counters.view(), 0);

    Segment s{ip(v4 ? "10.1.0.1" : "fd00:1::1"), ip(v4 ? "10.1.0.2" : "fd00:1::2"), {}, ""};
    s.header.src_port = static_cast<uint16_t>(r.next());
    s.header.dst_port = static_cast<uint16_t>(r.next());
    s.header.seq = static_cast<uint32_t>(r.next());
    s.header.ack = static_cast<uint32_t>(r.next());
    s.header.window = static_cast<uint16_t>(r.next());
    s.header.flags = static_cast<uint8_t>(1 + r.below(255));
    if (r.chance(1, 2))
      s.header.timestamps = wire::TcpTimestamps{static_cast<uint32_t>(r.next()), static_cast<uint32_t>(r.next())};
    if (r.chance(1, 8)) s.header.mss = static_cast<uint16_t>(r.next());
    if (r.chance(1, 8)) s.header.wscale = 7;
    if (r.chance(1, 8)) s.header.sack_permitted = true;
    if (r.chance(1, 8)) s.header.sack.push({1, 2});
    io::PacketQueue queue;
    std::string all;
    for (uint64_t k = r.below(4); k-- > 0;) {
      const std::string piece(1 + r.below(1500), static_cast<char>('a' + k));
      all += piece;
      queue.push_whole(pool.make(piece));
    }
    const uint64_t offset = r.below(all.size() + 1);
    const uint32_t mss = 1400;
    const auto length = static_cast<uint32_t>(r.below(std::min<uint64_t>(all.size() - offset, c.tso ? 65'000 : mss) + 1));
    s.payload = all.substr(offset, length);
    NextHop hop;
    const wire::Ecn ecn = r.chance(1, 2) ? wire::Ecn::kCapable0 : wire::Ecn::kNotCapable;
    const DropReason why = layer.send_tcp({s.src, s.dst, s.header.src_port, s.header.dst_port}, 0, hop, s.header, &queue, offset,
                                          length, 0, mss, ecn);
    if (why == DropReason::kTxTooBig) continue;  // more than the MTU with all these options, or one buffer
    ASSERT_EQ(why, DropReason::kNone);
    if (!known) {
      Bytes body;
      if (v4) {
        wire::ArpRepr reply;
        reply.operation = wire::ArpOperation::kReply;
        reply.sender_mac = kPeerMac;
        reply.sender_ip = s.dst.v4_host_order();
        reply.target_mac = kOurMac;
        reply.target_ip = s.src.v4_host_order();
        body.resize(wire::kArpLength);
        reply.emit(body.data());
        body = ethernet_frame(kOurMac, kPeerMac, wire::kEtherArp, body, vlan);
      } else {
        wire::NdRepr na;
        na.type = wire::NdType::kNeighborAdvertisement;
        na.target = s.dst;
        na.solicited = true;
        na.mac = kPeerMac;
        body.resize(na.length());
        na.emit(body.data(), s.dst, s.src);
        body = ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv6, ip_packet(s.dst, s.src, wire::kIpIcmpv6, body, 255), vlan);
      }
      TcpPacket tcp;
      IcmpError error;
      layer.input(0, pool.make(body).release(), 0, false, tcp, error);
    }
    layer.flush(0);
    ASSERT_EQ(port.sent(), 1u);
    rte_mbuf* m = port.pop_sent();
    ASSERT_EQ(m->pkt_len, m->nb_segs == 1 ? m->data_len : m->pkt_len);
    Bytes got;
    for (rte_mbuf* k = m; k != nullptr; k = k->next)
      got.insert(got.end(), rte_pktmbuf_mtod(k, uint8_t*), rte_pktmbuf_mtod(k, uint8_t*) + k->data_len);

    Segment to_peer = s;
    Bytes want = ethernet_frame(kPeerMac, kOurMac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6,
                                ip_packet(s.src, s.dst, wire::kIpTcp, tcp_bytes(to_peer), 64, static_cast<uint8_t>(ecn)), vlan);
    const size_t l2 = vlan == 0 ? 14 : 18, l3 = v4 ? 20 : 40, l4 = l2 + l3;
    const bool cut = length > mss;
    uint64_t flags = 0;
    if (v4 && c.tx_ip_checksum) {
      want[l2 + 10] = want[l2 + 11] = 0;
      flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    }
    if (c.tx_tcp_checksum) {
      const auto sum = wire::pseudo_header(s.src, s.dst, wire::kIpTcp,
                                           cut && !c.tso_sum_with_length ? 0 : static_cast<uint32_t>(want.size() - l4));
      wire::store_checksum(&want[l4 + 16], wire::checksum_fold(sum));
      flags |= (v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM | (cut ? RTE_MBUF_F_TX_TCP_SEG : 0);
      ASSERT_EQ(m->l4_len, s.header.header_length());
      ASSERT_EQ(m->tso_segsz, cut ? mss : 0);
    }
    if (flags != 0) {
      ASSERT_EQ(m->l2_len, l2);
      ASSERT_EQ(m->l3_len, l3);
    }
    ASSERT_EQ(got, want);
    ASSERT_EQ(m->ol_flags, flags);
    rte_pktmbuf_free(m);
  }
}

}  // namespace
}  // namespace millrace::dataplane::test
