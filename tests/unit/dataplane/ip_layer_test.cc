// Frames in, frames out: ARP, ND, ICMP, what is dropped and why, the neighbour queue, routes.
#include "tests/unit/dataplane/control_frames.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

TEST(Arp, AnswersForOurAddressAndLearnsWhoAsks) {
  Stack s({.static_neighbor = false});
  s.input(arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.1"));
  const auto reply = parse_arp(s.port.pop_sent_bytes());
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->ethernet.dst, kPeerMac);
  EXPECT_EQ(reply->ethernet.src, kOurMac);
  EXPECT_EQ(reply->arp.operation, wire::ArpOperation::kReply);
  EXPECT_EQ(reply->arp.sender_mac, kOurMac);
  EXPECT_EQ(reply->arp.sender_ip, ip("10.1.0.1").v4_host_order());
  EXPECT_EQ(reply->arp.target_ip, ip("10.1.0.7").v4_host_order());
  const uint32_t slot = s.stack->ip().neighbors().find(0, ip("10.1.0.7"));
  ASSERT_NE(slot, NeighborTable::kNone);
  EXPECT_EQ(s.stack->ip().neighbors().at(slot).mac, kPeerMac);
}

TEST(Arp, ProbeIsAnsweredAndTeachesNothing) {  // RFC 5227 1.1: sender address 0
  Stack s({.static_neighbor = false});
  s.input(arp_frame(wire::ArpOperation::kRequest, "0.0.0.0", "10.1.0.1"));
  const auto reply = parse_arp(s.port.pop_sent_bytes());
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->arp.sender_ip, ip("10.1.0.1").v4_host_order());
  EXPECT_EQ(s.stack->ip().neighbors().size(), 0u);
}

struct ArpCase {
  const char* what;
  Bytes frame;
  DropReason reason;
};
TEST(Arp, NotAnswered) {
  Bytes truncated = arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.1");
  truncated.resize(30);
  const ArpCase cases[] = {
      {"for another address", arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.9"), DropReason::kArpNotOurs},
      {"truncated", truncated, DropReason::kArpMalformed},
      {"somebody claims our address", arp_frame(wire::ArpOperation::kRequest, "10.1.0.1", "10.1.0.1"),
       DropReason::kAddressConflict},
      {"tagged on an untagged port",
       arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.1", wire::kBroadcastMac, kPeerMac, 5),
       DropReason::kVlanUnknown},
      {"to another MAC", arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.1", {2, 9, 9, 9, 9, 9}),
       DropReason::kEthNotOurs},
  };
  for (const ArpCase& c : cases) {
    Stack s({.static_neighbor = false});
    s.input(c.frame);
    EXPECT_EQ(s.port.sent(), 0u) << c.what;
    EXPECT_EQ(s.dropped(c.reason), 1u) << c.what;
    EXPECT_EQ(s.stack->ip().neighbors().size(), 0u) << c.what;
  }
}

TEST(Arp, StrangersOffTheSubnetAreNotLearned) {
  Stack s({.static_neighbor = false});
  s.input(arp_frame(wire::ArpOperation::kRequest, "192.168.5.5", "10.1.0.1"));
  EXPECT_EQ(s.port.sent(), 1u);  // answered, as the question was for us
  EXPECT_EQ(s.stack->ip().neighbors().size(), 0u);
}

TEST(Arp, VlanPortAnswersWithItsTag) {
  Stack s({.vlan = 5, .static_neighbor = false});
  s.input(arp_frame(wire::ArpOperation::kRequest, "10.1.0.7", "10.1.0.1", wire::kBroadcastMac, kPeerMac, 5));
  const auto reply = parse_arp(s.port.pop_sent_bytes());
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->ethernet.vlan_id, 5);
}

TEST(Nd, SolicitationIsAnswered) {
  Stack s({.static_neighbor = false});
  wire::NdRepr ns;
  ns.target = ip("fd00:1::1");
  ns.mac = kPeerMac;
  const IpAddress group = wire::solicited_node_group(ns.target);
  s.input(nd_frame(ns, "fd00:1::7", group, wire::multicast_mac_v6(group)));
  const auto na = parse_nd(s.port.pop_sent_bytes());
  ASSERT_TRUE(na);
  EXPECT_EQ(na->ethernet.dst, kPeerMac);
  EXPECT_EQ(na->ip.src, ip("fd00:1::1"));
  EXPECT_EQ(na->ip.dst, ip("fd00:1::7"));
  EXPECT_EQ(na->ip.hop_limit, 255);
  EXPECT_EQ(na->nd.type, wire::NdType::kNeighborAdvertisement);
  EXPECT_TRUE(na->nd.solicited);
  EXPECT_TRUE(na->nd.override_flag);
  EXPECT_EQ(na->nd.target_mac, kOurMac);
  EXPECT_NE(s.stack->ip().neighbors().find(0, ip("fd00:1::7")), NeighborTable::kNone);
}

TEST(Nd, DuplicateAddressDetectionIsAnsweredThroughAllNodes) {
  Stack s({.static_neighbor = false});
  wire::NdRepr ns;
  ns.target = ip("fd00:1::1");
  const IpAddress group = wire::solicited_node_group(ns.target);
  s.input(nd_frame(ns, "::", group, wire::multicast_mac_v6(group)));
  const auto na = parse_nd(s.port.pop_sent_bytes());
  ASSERT_TRUE(na);
  EXPECT_EQ(na->ip.dst, wire::all_nodes_group());
  EXPECT_FALSE(na->nd.solicited);
  EXPECT_EQ(s.stack->ip().neighbors().size(), 0u);
}

TEST(Nd, OffLinkMessagesAreDropped) {
  Stack s({.static_neighbor = false});
  wire::NdRepr ns;
  ns.target = ip("fd00:1::1");
  ns.mac = kPeerMac;
  const IpAddress group = wire::solicited_node_group(ns.target);
  s.input(nd_frame(ns, "fd00:1::7", group, wire::multicast_mac_v6(group), 254));
  EXPECT_EQ(s.port.sent(), 0u);
  EXPECT_EQ(s.dropped(DropReason::kNdMalformed), 1u);
}

TEST(Icmp, EchoIsAnsweredForBothFamilies) {
  for (const bool v4 : {true, false}) {
    Stack s;
    const IpAddress src = ip(v4 ? "10.1.0.2" : "fd00:1::2"), dst = ip(v4 ? "10.1.0.1" : "fd00:1::1");
    const std::string data = "what a mill needs is water";
    wire::IcmpEchoRepr echo;
    echo.identifier = 77;
    echo.sequence = 3;
    echo.data = base::as_bytes(data);
    Bytes body(echo.length());
    v4 ? echo.emit_v4(body.data()) : echo.emit_v6(body.data(), src, dst);
    s.input(ethernet_frame(kOurMac, kPeerMac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6,
                           ip_packet(src, dst, v4 ? wire::kIpIcmp : wire::kIpIcmpv6, body)));
    const Bytes f = s.port.pop_sent_bytes();
    ASSERT_EQ(f.size(), 14u + (v4 ? 20u : 40u) + body.size());
    wire::IcmpView reply;
    const base::ByteSpan message = base::ByteSpan(f).subspan(14 + (v4 ? 20 : 40));
    ASSERT_EQ(v4 ? wire::IcmpView::parse_v4(message, true, reply) : wire::IcmpView::parse_v6(message, dst, src, true, reply),
              wire::ParseError::kNone);
    EXPECT_EQ(reply.kind, wire::IcmpKind::kEchoReply);
    EXPECT_EQ(reply.identifier, 77);
    EXPECT_EQ(reply.sequence, 3);
    EXPECT_EQ(base::as_chars(message.subspan(8)), data);
    EXPECT_TRUE(std::equal(kPeerMac.begin(), kPeerMac.end(), f.begin()));
  }
}

TEST(Icmp, EchoRepliesAreRateLimited) {
  Stack s;
  wire::IcmpEchoRepr echo;
  Bytes body(echo.length());
  echo.emit_v4(body.data());
  const Bytes f =
      ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpIcmp, body));
  for (int i = 0; i < 300; ++i) s.input(f);
  EXPECT_EQ(s.port.sent(), 100u);  // a tenth of a second's worth at once
  EXPECT_EQ(s.dropped(DropReason::kIcmpRateLimited), 200u);
}

struct DropCase {
  const char* what;
  Bytes frame;
  DropReason reason;
};
TEST(Ip, DropsWithAReason) {
  auto eth = [](const Bytes& packet, uint16_t type = wire::kEtherIpv4) {
    return ethernet_frame(kOurMac, kPeerMac, type, packet);
  };
  const Bytes good = tcp_bytes(syn("10.1.0.2", "10.1.0.1"));
  Bytes bad_sum = tcp_frame(syn("10.1.0.2", "10.1.0.1"));
  bad_sum.back() ^= 1;
  Bytes bad_ip_sum = tcp_frame(syn("10.1.0.2", "10.1.0.1"));
  bad_ip_sum[14 + 8] ^= 1;  // TTL
  Bytes short_ip = tcp_frame(syn("10.1.0.2", "10.1.0.1"));
  short_ip.resize(30);
  const DropCase cases[] = {
      {"half an Ethernet header", Bytes(10), DropReason::kEthTruncated},
      {"an EtherType of others", eth({1, 2, 3}, 0x88cc), DropReason::kEthUnknownType},
      {"IP header cut off", short_ip, DropReason::kIpTruncated},
      {"IP version 5", eth(Bytes(40, 0x55)), DropReason::kIpBadHeader},
      {"IP checksum", bad_ip_sum, DropReason::kIpBadChecksum},
      {"TCP checksum", bad_sum, DropReason::kTcpBadChecksum},
      {"for another address", tcp_frame(syn("10.1.0.2", "10.1.0.9")), DropReason::kIpNotOurs},
      {"to a group", tcp_frame(syn("10.1.0.2", "224.0.0.1")), DropReason::kIpNotOurs},
      {"to everybody", tcp_frame(syn("10.1.0.2", "255.255.255.255")), DropReason::kIpNotOurs},
      {"to everybody on the link", tcp_frame(syn("10.1.0.2", "10.1.0.255")), DropReason::kIpNotOurs},
      {"to all nodes", tcp_frame(syn("fd00:1::2", "ff02::1")), DropReason::kIpNotOurs},
      {"from a group", tcp_frame(syn("224.0.0.5", "10.1.0.1")), DropReason::kIpBadSource},
      {"from loopback", tcp_frame(syn("127.0.0.1", "10.1.0.1")), DropReason::kIpBadSource},
      {"from ourselves", tcp_frame(syn("10.1.0.1", "10.1.0.1")), DropReason::kIpBadSource},
      {"from ::1", tcp_frame(syn("::1", "fd00:1::1")), DropReason::kIpBadSource},
      {"ICMP of three bytes", eth(ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpIcmp, Bytes(3))),
       DropReason::kIcmpMalformed},
      {"TCP of ten bytes", eth(ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpTcp, Bytes(10))), DropReason::kTcpTruncated},
  };
  for (const DropCase& c : cases) {
    Stack s;
    s.input(c.frame);
    EXPECT_EQ(s.dropped(c.reason), 1u) << c.what;
    EXPECT_EQ(s.port.sent(), 0u) << c.what;
    EXPECT_EQ(s.pool.in_use() + s.headers.in_use(), 0u) << c.what;
  }
}

// A kernel peer on veth leaves the pseudo-header's sum in the field; only ports that say so may take it (engine rule 7).
TEST(Ip, PartialChecksumCountsOnlyWherePeersAreOnThisHost) {
  for (const bool host_peer : {true, false}) {
    Stack s;
    Bytes f = tcp_frame(syn("10.1.0.2", "10.1.0.1"));
    const auto pseudo = wire::pseudo_header(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpTcp, static_cast<uint32_t>(f.size() - 34));
    wire::store_checksum(f.data() + 34 + 16, wire::checksum_fold(pseudo));
    s.port.change().partial_rx_checksum = host_peer;
    TcpStackConfig c;  // capabilities are read at construction: make a fresh layer over the changed port
    IpLayerConfig ipc;
    InterfaceConfig i;
    i.addresses = {{ip("10.1.0.1"), 24}};
    ipc.ports = {i};
    io::PortQueue* q[] = {&s.port};
    IpLayer layer(ipc, q, {s.pool.pool(), s.headers.pool(), {}}, s.counters.view(), s.now);
    TcpPacket tcp;
    IcmpError error;
    const IpVerdict v = layer.input(0, s.pool.make(f).release(), s.now, false, tcp, error);
    EXPECT_EQ(v, host_peer ? IpVerdict::kTcp : IpVerdict::kConsumed);
    if (v == IpVerdict::kTcp) rte_pktmbuf_free(tcp.frame);
    layer.flush(s.now);
    s.port.clear();
  }
}

TEST(Ip, PortThatMarksWrongSumsAsGoodLosesItsTrust) {
  Stack s;
  s.port.change().rx_tcp_checksum = true;
  IpLayerConfig ipc;
  InterfaceConfig i;
  i.addresses = {{ip("10.1.0.1"), 24}};
  ipc.ports = {i};
  io::PortQueue* q[] = {&s.port};
  IpLayer layer(ipc, q, {s.pool.pool(), s.headers.pool(), {}}, s.counters.view(), s.now);
  auto input = [&](bool damaged) {
    Bytes f = tcp_frame(syn("10.1.0.2", "10.1.0.1"));
    if (damaged) f.back() ^= 0xff;
    io::PacketPtr p = s.pool.make(f);
    p.raw()->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    TcpPacket tcp;
    IcmpError error;
    const IpVerdict v = layer.input(0, p.release(), s.now, false, tcp, error);
    if (v == IpVerdict::kTcp) rte_pktmbuf_free(tcp.frame);
    return v == IpVerdict::kTcp;
  };
  EXPECT_TRUE(input(false));
  EXPECT_FALSE(input(true));  // caught while its marks are verified
  for (int k = 0; k < 100; ++k) EXPECT_TRUE(input(false));
  EXPECT_FALSE(input(true));  // and never believed again
  EXPECT_EQ(s.dropped(DropReason::kTcpBadChecksum), 2u);
  layer.flush(s.now);
  s.port.clear();
}

TEST(Neighbor, FramesWaitForTheAnswerSoManyAtMost) {
  Stack s({.static_neighbor = false});
  constexpr uint16_t kMost = NeighborTable::kMaxQueued;
  for (uint16_t p = 1; p <= kMost + 2; ++p) {
    Segment one = syn("10.1.0.2", "10.1.0.1", 9);  // nobody listens: each is answered with RST
    one.header.src_port = p;
    s.input(one);
  }
  auto request = parse_arp(s.port.pop_sent_bytes());
  ASSERT_TRUE(request);
  EXPECT_EQ(request->ethernet.dst, wire::kBroadcastMac);
  EXPECT_EQ(request->arp.target_ip, ip("10.1.0.2").v4_host_order());
  EXPECT_EQ(request->arp.sender_ip, ip("10.1.0.1").v4_host_order());
  EXPECT_EQ(s.port.sent(), 0u);  // asked once, not once a frame
  EXPECT_EQ(s.dropped(DropReason::kNeighborQueueFull), 2u);
  s.input(arp_frame(wire::ArpOperation::kReply, "10.1.0.2", "10.1.0.1", kOurMac));
  for (uint16_t p = 3; p <= kMost + 2; ++p) {  // the oldest gave way
    const auto rst = s.sent();
    ASSERT_TRUE(rst);
    EXPECT_EQ(rst->tcp.dst_port, p);
    EXPECT_EQ(rst->ethernet.dst, kPeerMac);
    EXPECT_TRUE(rst->tcp.rst());
  }
  EXPECT_EQ(s.port.sent(), 0u);
}

TEST(Neighbor, UnansweredRequestsEndAfterThree) {
  Stack s({.static_neighbor = false});
  s.input(syn("10.1.0.2", "10.1.0.1", 9));
  int requests = 0;
  for (int i = 0; i < 60; ++i) {
    while (parse_arp(s.port.pop_sent_bytes())) ++requests;
    s.wait(100 * kMillisecond);
  }
  EXPECT_EQ(requests, 3);
  EXPECT_EQ(s.dropped(DropReason::kNeighborUnreachable), 1u);
  EXPECT_EQ(s.stack->ip().neighbors().size(), 0u);
  EXPECT_EQ(s.headers.in_use(), 0u);
}

TEST(Neighbor, FullTableRefusesAndForgetsTheOldest) {
  Stack s({.static_neighbor = false, .max_neighbors = 2});
  s.input(arp_frame(wire::ArpOperation::kRequest, "10.1.0.11", "10.1.0.1"));
  s.input(arp_frame(wire::ArpOperation::kRequest, "10.1.0.12", "10.1.0.1"));
  s.port.clear();
  s.input(syn("10.1.0.13", "10.1.0.1", 9));
  EXPECT_EQ(s.dropped(DropReason::kNeighborTableFull), 1u);
  s.now += 40 * kSecond;  // both have aged
  s.input(syn("10.1.0.13", "10.1.0.1", 9));
  EXPECT_EQ(s.dropped(DropReason::kNeighborTableFull), 1u);
  EXPECT_EQ(s.stack->ip().neighbors().find(0, ip("10.1.0.11")), NeighborTable::kNone);
  EXPECT_NE(s.stack->ip().neighbors().find(0, ip("10.1.0.12")), NeighborTable::kNone);
}

TEST(Routes, OffLinkGoesThroughTheRouter) {
  Stack s({.static_neighbor = false});
  s.input(syn("192.0.2.9", "10.1.0.1", 9));
  const auto request = parse_arp(s.port.pop_sent_bytes());
  ASSERT_TRUE(request);
  EXPECT_EQ(request->arp.target_ip, ip("10.1.0.254").v4_host_order());
  s.input(syn("2001:db8::9", "fd00:1::1", 9));
  const auto ns = parse_nd(s.port.pop_sent_bytes());
  ASSERT_TRUE(ns);
  EXPECT_EQ(ns->nd.target, ip("fd00:1::fe"));
  EXPECT_EQ(ns->ip.dst, wire::solicited_node_group(ip("fd00:1::fe")));
  EXPECT_EQ(ns->nd.source_mac, kOurMac);
}

TEST(Routes, SourceByLongestPrefixOverSeveralPorts) {
  support::HeapPacketPool pool(8), headers(8, 128);
  support::FakePort a(kOurMac), b(kPeerMac);
  LocalCounters counters;
  IpLayerConfig c;
  InterfaceConfig first, second;
  first.addresses = {{ip("10.1.0.1"), 24}};
  first.routes = {{ip("0.0.0.0"), 0, ip("10.1.0.254")}};
  second.addresses = {{ip("10.2.0.1"), 24}, {ip("10.3.0.1"), 24}};
  second.routes = {{ip("172.16.0.0"), 12, ip("10.3.0.9")}};
  c.ports = {first, second};
  io::PortQueue* q[] = {&a, &b};
  IpLayer layer(c, q, {pool.pool(), headers.pool(), {}}, counters.view(), 0);
  const struct {
    const char *remote, *source;
    int port;
  } cases[] = {{"10.1.0.7", "10.1.0.1", 0},
               {"10.2.0.7", "10.2.0.1", 1},
               {"10.3.0.7", "10.3.0.1", 1},
               {"172.20.1.1", "10.3.0.1", 1},
               {"8.8.8.8", "10.1.0.1", 0}};
  for (const auto& k : cases) {
    const auto s = layer.source_for(ip(k.remote));
    ASSERT_TRUE(s) << k.remote;
    EXPECT_EQ(s->address, ip(k.source)) << k.remote;
    EXPECT_EQ(s->port, k.port) << k.remote;
  }
  EXPECT_FALSE(layer.source_for(ip("2001:db8::1")));  // no address of the family
  EXPECT_FALSE(layer.source_for(ip("10.2.0.1")));     // ourselves
  EXPECT_EQ(layer.port_of(ip("10.3.0.1")), 1);
  EXPECT_FALSE(layer.port_of(ip("10.3.0.2")));
}

TEST(Announcements, TwiceAtStartByTheFirstWorker) {
  support::HeapPacketPool pool(8), headers(64, 128);
  support::FakePort port(kOurMac);
  LocalCounters counters;
  IpLayerConfig c;
  InterfaceConfig i;
  i.addresses = {{ip("10.1.0.1"), 24}, {ip("fd00:1::1"), 64}};
  c.ports = {i};
  io::PortQueue* q[] = {&port};
  IpLayer layer(c, q, {pool.pool(), headers.pool(), {}}, counters.view(), 0);
  size_t arps = 0, nas = 0;
  for (TimeNs now = 0; now < 10 * kSecond; now += 500 * kMillisecond) {
    layer.run_timers(now);
    layer.flush(now);
    while (port.sent() > 0) {
      const Bytes f = port.pop_sent_bytes();
      if (const auto a = parse_arp(f)) arps += a->arp.is_gratuitous();
      if (const auto n = parse_nd(f)) nas += n->nd.type == wire::NdType::kNeighborAdvertisement && n->nd.override_flag;
    }
  }
  EXPECT_EQ(arps, 2u);
  EXPECT_EQ(nas, 2u);
}

}  // namespace
}  // namespace millrace::dataplane::test
