// VLANs of a port, the life of its addresses, routers that die, neighbours that age, ICMP errors.
#include "tests/unit/dataplane/control_frames.h"

namespace millrace::dataplane::test {
namespace {

// An IP layer over ports of memory, without TCP.
struct Layer {
  explicit Layer(const IpLayerConfig& config, size_t devices = 1) : pool(256), headers(256, 128) {
    const io::MacAddress macs[] = {kOurMac, {0x02, 0, 0, 0, 0, 0x11}};
    std::vector<io::PortQueue*> queues;
    for (size_t d = 0; d < devices; ++d) {
      ports.push_back(std::make_unique<support::FakePort>(macs[d]));
      queues.push_back(ports.back().get());
    }
    ip.emplace(config, queues, io::TxPools{pool.pool(), headers.pool(), {}}, counters.view(), now);
  }
  // The segment that came of the frame; nullopt: none.
  std::optional<TcpPacket> input(const Bytes& f, uint16_t device = 0, bool learn_only = false) {
    TcpPacket tcp;
    IcmpError error;
    const IpVerdict v = ip->input(device, pool.make(f).release(), now, learn_only, tcp, error);
    if (v != IpVerdict::kConsumed) rte_pktmbuf_free(tcp.frame);
    run();
    return v == IpVerdict::kTcp ? std::optional(tcp) : std::nullopt;
  }
  void run() {
    ip->run_timers(now);
    ip->flush(now);
  }
  void wait(TimeNs ns) {
    now += ns;
    run();
  }
  Bytes sent(size_t device = 0) { return ports[device]->pop_sent_bytes(); }
  uint64_t dropped(DropReason r) const { return counters.dropped(r); }

  support::HeapPacketPool pool, headers;
  std::vector<std::unique_ptr<support::FakePort>> ports;
  LocalCounters counters;
  TimeNs now = 1'000 * kSecond;
  std::optional<IpLayer> ip;
};

InterfaceConfig interface(std::initializer_list<std::pair<const char*, uint8_t>> addresses, uint16_t vlan = 0) {
  InterfaceConfig i;
  i.vlan = vlan;
  for (const auto& [a, bits] : addresses) i.addresses.push_back({ip(a), bits});
  return i;
}

IpLayerConfig quiet(std::vector<InterfaceConfig> ports) {
  IpLayerConfig c;
  c.ports = std::move(ports);
  c.worker = 1;  // announces nothing
  c.max_neighbors = 16;
  return c;
}

// --- VLANs -------------------------------------------------------------------------------------------------------------------

IpLayerConfig trunk(uint16_t native_vlan) {
  InterfaceConfig ten = interface({{"10.10.0.1", 24}, {"fd00:10::1", 64}}, 10), twenty = interface({{"10.20.0.1", 24}}, 20);
  ten.device = twenty.device = 0;
  ten.neighbors = {{ip("10.10.0.2"), kPeerMac}, {ip("fd00:10::2"), kPeerMac}};
  InterfaceConfig native = interface({{"10.1.0.1", 24}, {"10.1.0.99", 32}}, native_vlan);
  native.neighbors = {{ip("10.1.0.2"), kPeerMac}};
  return quiet({native, ten, twenty});
}

TEST(Vlan, EachInterfaceHasItsOwnTagAndAddresses) {
  const struct {
    const char* what;
    uint16_t native;  // tag of the device's first interface
    const char *src, *dst;
    uint16_t tag;
    int interface;  // that has the address; -1: the frame is dropped
    DropReason reason;
  } cases[] = {
      {"untagged for the first", 0, "10.1.0.2", "10.1.0.1", 0, 0, {}},
      {"its second address", 0, "10.1.0.2", "10.1.0.99", 0, 0, {}},
      {"VLAN 10", 0, "10.10.0.2", "10.10.0.1", 10, 1, {}},
      {"VLAN 10, IPv6", 0, "fd00:10::2", "fd00:10::1", 10, 1, {}},
      {"VLAN 20", 0, "10.20.0.2", "10.20.0.1", 20, 2, {}},
      {"an address of ours is ours on every VLAN (weak host model)", 0, "10.20.0.2", "10.10.0.1", 20, 1, {}},
      {"priority 5, VLAN 10", 0, "10.10.0.2", "10.10.0.1", 0xa000 | 10, 1, {}},
      {"only a priority: untagged", 0, "10.1.0.2", "10.1.0.1", 0xa000, 0, {}},
      {"unknown VLAN", 0, "10.1.0.2", "10.1.0.1", 30, -1, DropReason::kVlanUnknown},
      {"VLAN 4095", 0, "10.1.0.2", "10.1.0.1", 4095, -1, DropReason::kEthNotOurs},
      {"the first tagged too", 5, "10.1.0.2", "10.1.0.1", 5, 0, {}},
      {"then nothing is untagged", 5, "10.1.0.2", "10.1.0.1", 0, -1, DropReason::kVlanUnknown},
      {"and only a priority neither", 5, "10.1.0.2", "10.1.0.1", 0xa000, -1, DropReason::kVlanUnknown},
      {"VLAN 20 beside a tagged first", 5, "10.20.0.2", "10.20.0.1", 20, 2, {}},
  };
  for (const auto& c : cases) {
    Layer l(trunk(c.native));
    Bytes f = tcp_frame(syn(c.src, c.dst), c.tag == 0 ? 0 : 1);
    if (c.tag != 0) base::store_be16(f.data() + 14, c.tag);
    const auto segment = l.input(f);
    ASSERT_EQ(segment.has_value(), c.interface >= 0) << c.what;
    if (segment) {
      EXPECT_EQ(segment->local_port_index, c.interface) << c.what;
      EXPECT_EQ(segment->arrival_port, 0) << c.what;
    } else {
      EXPECT_EQ(l.dropped(c.reason), 1u) << c.what;
    }
    EXPECT_EQ(l.pool.in_use(), 0u) << c.what;
  }
}

TEST(Vlan, SegmentsLeaveWithTheTagOfTheirRoute) {
  Layer l(trunk(0));
  const struct {
    const char *local, *remote;
    uint16_t port, tag;
  } cases[] = {{"10.1.0.1", "10.1.0.2", 0, 0}, {"10.10.0.1", "10.10.0.2", 1, 10}, {"fd00:10::1", "fd00:10::2", 1, 10}};
  for (const auto& c : cases) {
    EXPECT_EQ(l.ip->source_for(ip(c.remote))->port, c.port);
    EXPECT_EQ(l.ip->device_of(c.port), 0);
    NextHop hop;
    wire::TcpRepr header;
    header.src_port = 80;
    header.dst_port = 1234;
    header.flags = wire::kTcpAck;
    l.ip->send_tcp({ip(c.local), ip(c.remote), 80, 1234}, c.port, hop, header, nullptr, 0, 0, l.now);
    l.run();
    const Bytes f = l.sent();
    const auto seen = parse_tcp(f);
    ASSERT_TRUE(seen) << c.remote;
    EXPECT_EQ(seen->ethernet.vlan_id, c.tag) << c.remote;
    EXPECT_EQ(seen->src, ip(c.local));
  }
}

TEST(Vlan, ArpIsAnsweredOnlyWhereTheAddressIs) {
  Layer l(trunk(0));
  l.input(arp_frame(wire::ArpOperation::kRequest, "10.10.0.7", "10.10.0.1", wire::kBroadcastMac, kPeerMac, 10));
  const auto reply = parse_arp(l.sent());
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->ethernet.vlan_id, 10);
  EXPECT_NE(l.ip->neighbors().find(1, ip("10.10.0.7")), NeighborTable::kNone);
  l.input(arp_frame(wire::ArpOperation::kRequest, "10.20.0.7", "10.10.0.1", wire::kBroadcastMac, kPeerMac, 20));
  EXPECT_TRUE(l.sent().empty());
  EXPECT_EQ(l.dropped(DropReason::kArpNotOurs), 1u);
}

// --- several ports -----------------------------------------------------------------------------------------------------------

TEST(Hosts, WeakToReceiveStrongToAnswer) {
  Layer l(quiet({interface({{"10.1.0.1", 24}}), interface({{"10.2.0.1", 24}})}), 2);
  Segment s = syn("10.2.0.9", "10.1.0.1");
  Bytes f = tcp_frame(s);
  const io::MacAddress second = l.ports[1]->capabilities().mac;
  std::copy(second.begin(), second.end(), f.begin());
  const auto segment = l.input(f, 1);  // the first port's address, on the second port
  ASSERT_TRUE(segment);
  EXPECT_EQ(segment->arrival_port, 1);
  EXPECT_EQ(segment->local_port_index, 0);
  l.input(arp_frame(wire::ArpOperation::kRequest, "10.2.0.9", "10.1.0.1"), 1);
  EXPECT_EQ(l.ports[1]->sent(), 0u);
  EXPECT_EQ(l.dropped(DropReason::kArpNotOurs), 1u);
}

// --- addresses: asked for, announced, defended -------------------------------------------------------------------------------

struct Counted {
  size_t probes = 0, announcements = 0;
};
Counted count_nd(Layer& l) {
  Counted c;
  while (l.ports[0]->sent() > 0) {
    const auto nd = parse_nd(l.sent());
    if (!nd) continue;
    if (nd->nd.type == wire::NdType::kNeighborSolicitation) {
      EXPECT_TRUE(nd->ip.src.is_unspecified());
      EXPECT_FALSE(nd->nd.source_mac);
      EXPECT_EQ(nd->ip.dst, wire::solicited_node_group(nd->nd.target));
      ++c.probes;
    } else {
      EXPECT_TRUE(nd->nd.override_flag);
      EXPECT_FALSE(nd->nd.solicited);
      ++c.announcements;
    }
  }
  return c;
}

IpLayerConfig asking(uint8_t transmits, uint32_t worker = 0) {
  InterfaceConfig i = interface({{"fd00:1::1", 64}});
  i.dad_transmits = transmits;
  IpLayerConfig c = quiet({i});
  c.worker = worker;
  return c;
}

TEST(Dad, AddressIsUsedWhenNobodyObjected) {
  for (const uint8_t transmits : {1, 3}) {
    Layer l(asking(transmits));
    l.run();
    size_t probes = count_nd(l).probes;
    EXPECT_EQ(probes, 1u);
    for (uint8_t k = 0; k < transmits; ++k) {
      EXPECT_EQ(l.ip->addresses()[0].state, IpLayer::AddressState::kTentative);
      EXPECT_FALSE(l.input(tcp_frame(syn("fd00:1::2", "fd00:1::1"))));  // not ours yet
      EXPECT_FALSE(l.ip->source_for(ip("fd00:1::2")));
      l.wait(k + 1 < transmits ? kSecond : kSecond - 1);
      probes += count_nd(l).probes;
    }
    EXPECT_EQ(probes, transmits);
    EXPECT_EQ(l.ip->addresses()[0].state, IpLayer::AddressState::kTentative);
    l.wait(1);
    EXPECT_EQ(l.ip->addresses()[0].state, IpLayer::AddressState::kUsed);
    EXPECT_EQ(count_nd(l).announcements, 1u);
    l.wait(2 * kSecond);
    EXPECT_EQ(count_nd(l).announcements, 1u);
    EXPECT_TRUE(l.input(tcp_frame(syn("fd00:1::2", "fd00:1::1"))));
    EXPECT_EQ(l.ip->next_deadline(), base::kNever);
  }
}

TEST(Dad, OtherWorkersWaitAndSayNothing) {
  Layer l(asking(1, 1));
  l.wait(kSecond);
  EXPECT_EQ(l.ports[0]->sent(), 0u);
  EXPECT_EQ(l.ip->addresses()[0].state, IpLayer::AddressState::kTentative);
  l.wait(kSecond);
  EXPECT_EQ(l.ip->addresses()[0].state, IpLayer::AddressState::kUsed);
}

TEST(Dad, WhoObjectsAndWhoDoesNot) {
  const IpAddress ours = ip("fd00:1::1"), group = wire::solicited_node_group(ours);
  wire::NdRepr na, ns;
  na.type = wire::NdType::kNeighborAdvertisement;
  na.target = ns.target = ours;
  na.override_flag = true;
  na.mac = kPeerMac;
  wire::NdRepr with_mac = ns;
  with_mac.mac = kPeerMac;
  Bytes looped = nd_frame(ns, "::", group, wire::multicast_mac_v6(group));
  std::copy(kOurMac.begin(), kOurMac.end(), looped.begin() + 6);
  const struct {
    const char* what;
    Bytes frame;
    bool learn_only, duplicate;
  } cases[] = {
      {"somebody has it", nd_frame(na, "fd00:1::1", wire::all_nodes_group(), {0x33, 0x33, 0, 0, 0, 1}), false, true},
      {"the same, told by another worker", nd_frame(na, "fd00:1::1", wire::all_nodes_group(), {0x33, 0x33, 0, 0, 0, 1}), true,
       true},
      {"somebody asks for it too", nd_frame(ns, "::", group, wire::multicast_mac_v6(group)), false, true},
      {"our own question comes back", looped, false, false},
      {"somebody looks for who has it", nd_frame(with_mac, "fd00:1::7", group, wire::multicast_mac_v6(group)), false, false},
  };
  for (const auto& c : cases) {
    Layer l(asking(1));
    l.run();
    l.ports[0]->clear();
    l.input(c.frame, 0, c.learn_only);
    EXPECT_EQ(l.ports[0]->sent(), 0u) << c.what;
    l.wait(2 * kSecond);
    EXPECT_EQ(l.ip->addresses()[0].state, c.duplicate ? IpLayer::AddressState::kDuplicate : IpLayer::AddressState::kUsed)
        << c.what;
    EXPECT_EQ(l.dropped(DropReason::kAddressDuplicate), c.duplicate) << c.what;
    EXPECT_EQ(l.input(tcp_frame(syn("fd00:1::2", "fd00:1::1"))).has_value(), !c.duplicate) << c.what;
    if (c.duplicate) {
      EXPECT_EQ(l.ports[0]->sent(), 0u) << c.what;
      EXPECT_FALSE(l.ip->source_for(ip("fd00:1::2"))) << c.what;
    }
  }
}

TEST(Announcements, AgainWhenTheLinkComesUp) {
  IpLayerConfig c = quiet({interface({{"10.1.0.1", 24}, {"fd00:1::1", 64}}), interface({{"10.2.0.1", 24}})});
  c.worker = 0;
  Layer l(c, 2);
  for (int k = 0; k < 10; ++k) l.wait(kSecond);
  EXPECT_EQ(l.ports[0]->sent(), 4u);
  EXPECT_EQ(l.ports[1]->sent(), 2u);
  l.ports[0]->clear();
  l.ports[1]->clear();
  l.ip->link_came_up(0, l.now);
  for (int k = 0; k < 10; ++k) l.wait(kSecond);
  EXPECT_EQ(l.ports[0]->sent(), 4u);
  EXPECT_EQ(l.ports[1]->sent(), 0u);
}

TEST(Announcements, DefendAnAddressOnceInTenSeconds) {
  IpLayerConfig c = quiet({interface({{"10.1.0.1", 24}, {"fd00:1::1", 64}})});
  c.worker = 0;
  Layer l(c);
  for (int k = 0; k < 5; ++k) l.wait(kSecond);
  l.ports[0]->clear();
  wire::NdRepr na;
  na.type = wire::NdType::kNeighborAdvertisement;
  na.target = ip("fd00:1::1");
  na.override_flag = true;
  na.mac = kPeerMac;
  const Bytes claims[] = {arp_frame(wire::ArpOperation::kRequest, "10.1.0.1", "10.1.0.1"),
                          nd_frame(na, "fd00:1::1", wire::all_nodes_group(), {0x33, 0x33, 0, 0, 0, 1})};
  uint64_t claimed = 0;
  for (const Bytes& claim : claims) {
    for (int k = 0; k < 3; ++k) l.input(claim);
    claimed += 3;
    EXPECT_EQ(l.ports[0]->sent(), 1u);
    l.wait(11 * kSecond);
    l.input(claim);
    ++claimed;
    EXPECT_EQ(l.ports[0]->sent(), 2u);
    EXPECT_EQ(l.dropped(DropReason::kAddressConflict), claimed);
    l.ports[0]->clear();
  }
}

// --- routers -----------------------------------------------------------------------------------------------------------------

TEST(Routes, TheSecondRouterTakesOverFromADeadOneAndGivesBack) {
  InterfaceConfig i = interface({{"10.1.0.1", 24}});
  i.routes = {{ip("0.0.0.0"), 0, ip("10.1.0.253")}, {ip("0.0.0.0"), 0, ip("10.1.0.254")}};
  Layer l(quiet({i}));
  wire::TcpRepr header;
  header.flags = wire::kTcpAck;
  const auto send = [&] {
    NextHop hop;
    l.ip->send_tcp({ip("10.1.0.1"), ip("8.8.8.8"), 80, 99}, 0, hop, header, nullptr, 0, 0, l.now);
    l.run();
  };
  const auto asked_for = [&] {
    const auto request = parse_arp(l.sent());
    return request ? IpAddress::v4(request->arp.target_ip).to_string() : std::string("nobody");
  };
  send();
  EXPECT_EQ(asked_for(), "10.1.0.253");
  for (int k = 0; k < 3; ++k) l.wait(kSecond);
  l.ports[0]->clear();
  EXPECT_EQ(l.dropped(DropReason::kNeighborUnreachable), 1u);
  send();  // TCP repeats: the other one is tried
  EXPECT_EQ(asked_for(), "10.1.0.254");
  l.input(arp_frame(wire::ArpOperation::kReply, "10.1.0.254", "10.1.0.1", kOurMac));
  EXPECT_TRUE(parse_tcp(l.sent()));
  l.wait(10 * kSecond);
  EXPECT_EQ(asked_for(), "10.1.0.253");  // asked again every ten seconds
  send();
  EXPECT_TRUE(parse_tcp(l.sent()));  // through the second, until the first answers
  l.input(arp_frame(wire::ArpOperation::kReply, "10.1.0.253", "10.1.0.1", kOurMac, {2, 0, 0, 0, 0, 0x53}));
  send();
  const auto seen = parse_tcp(l.sent());
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->ethernet.dst, (io::MacAddress{2, 0, 0, 0, 0, 0x53}));
}

// --- neighbours that age: RFC 4861 7.3 -----------------------------------------------------------------------------------------

struct Aging {
  NeighborState state() { return s.stack->ip().neighbors().at(s.stack->ip().neighbors().find(0, peer)).state; }
  bool known() { return s.stack->ip().neighbors().find(0, peer) != NeighborTable::kNone; }
  // Heard of, then written to: in DELAY.
  void to_delay() {
    s.input(arp_frame(wire::ArpOperation::kRequest, "10.1.0.2", "10.1.0.1"));
    EXPECT_EQ(state(), NeighborState::kStale);
    s.input(syn("10.1.0.2", "10.1.0.1"));
    EXPECT_EQ(state(), NeighborState::kDelay);
    s.port.pop_sent_bytes();  // our answer to the request
    const auto answer = s.sent();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->ethernet.dst, kPeerMac);
    ours = answer->tcp.seq + 1;
  }
  Stack s{{.static_neighbor = false}};
  IpAddress peer = ip("10.1.0.2");
  uint32_t ours = 0;
};

TEST(Neighbor, ProgressOfTcpConfirmsIt) {
  Aging a;
  a.to_delay();
  Segment ack = syn("10.1.0.2", "10.1.0.1");
  ack.header.mss.reset();
  ack.header.flags = wire::kTcpAck;
  ack.header.seq = 1001;
  ack.header.ack = a.ours;
  a.s.input(ack);
  ack.payload = "GET";
  ack.header.flags |= wire::kTcpPsh;
  a.s.input(ack);  // its bytes move: what we sent arrived
  EXPECT_EQ(a.state(), NeighborState::kReachable);
  for (int k = 0; k < 20; ++k) {
    a.s.wait(kSecond);
    while (a.s.port.sent() > 0) EXPECT_FALSE(parse_arp(a.s.port.pop_sent_bytes()));
  }
  EXPECT_TRUE(a.known());
}

TEST(Neighbor, SilenceEndsInThreeUnicastProbesAndForgetting) {
  Aging a;
  a.to_delay();
  a.s.wait(5 * kSecond - 1);
  while (a.s.port.sent() > 0) EXPECT_FALSE(parse_arp(a.s.port.pop_sent_bytes()));  // TCP repeats its SYN-ACK, nothing else
  int probes = 0;
  for (int k = 0; k < 50 && a.known(); ++k) {
    a.s.wait(100 * kMillisecond);
    while (a.s.port.sent() > 0) {
      const auto probe = parse_arp(a.s.port.pop_sent_bytes());
      if (!probe) continue;
      ++probes;
      EXPECT_EQ(probe->ethernet.dst, kPeerMac);
      EXPECT_EQ(a.state(), NeighborState::kProbe);
    }
  }
  EXPECT_EQ(probes, 3);
  EXPECT_FALSE(a.known());
}

TEST(Neighbor, AnAnswerToAProbeConfirmsIt) {
  Aging a;
  a.to_delay();
  a.s.wait(5 * kSecond);
  EXPECT_EQ(a.state(), NeighborState::kProbe);
  a.s.input(arp_frame(wire::ArpOperation::kReply, "10.1.0.2", "10.1.0.1", kOurMac));
  EXPECT_EQ(a.state(), NeighborState::kReachable);
}

// Tables of RFC 4861 appendix C, for advertisements about a neighbour that is known.
TEST(Neighbor, AdvertisementsByTheBook) {
  const io::MacAddress other = {2, 0, 0, 0, 0, 0x77};
  const struct {
    const char* what;
    NeighborState before;
    bool solicited, override_flag, other_mac;
    NeighborState after;
    bool taken_over;
  } cases[] = {
      {"confirmed", NeighborState::kStale, true, false, false, NeighborState::kReachable, false},
      {"confirmed and moved", NeighborState::kStale, true, true, true, NeighborState::kReachable, true},
      {"another address without override", NeighborState::kReachable, true, false, true, NeighborState::kStale, false},
      {"the same, and already doubted", NeighborState::kStale, true, false, true, NeighborState::kStale, false},
      {"announced elsewhere", NeighborState::kReachable, false, true, true, NeighborState::kStale, true},
      {"announced again", NeighborState::kReachable, false, true, false, NeighborState::kReachable, false},
  };
  for (const auto& c : cases) {
    Stack s({.static_neighbor = false});
    const auto advertise = [&](bool solicited, bool override_flag, const io::MacAddress& mac) {
      wire::NdRepr na;
      na.type = wire::NdType::kNeighborAdvertisement;
      na.target = ip("fd00:1::2");
      na.solicited = solicited;
      na.override_flag = override_flag;
      na.mac = mac;
      s.input(nd_frame(na, "fd00:1::2", solicited ? ip("fd00:1::1") : wire::all_nodes_group(),
                       solicited ? kOurMac : io::MacAddress{0x33, 0x33, 0, 0, 0, 1}));
    };
    wire::NdRepr ns;
    ns.target = ip("fd00:1::1");
    ns.mac = kPeerMac;
    const IpAddress group = wire::solicited_node_group(ns.target);
    s.input(nd_frame(ns, "fd00:1::2", group, wire::multicast_mac_v6(group)));
    const uint32_t slot = s.stack->ip().neighbors().find(0, ip("fd00:1::2"));
    if (c.before == NeighborState::kReachable) advertise(true, false, kPeerMac);
    const NeighborTable::Entry& e = s.stack->ip().neighbors().at(slot);
    ASSERT_EQ(e.state, c.before) << c.what;
    advertise(c.solicited, c.override_flag, c.other_mac ? other : kPeerMac);
    EXPECT_EQ(e.state, c.after) << c.what;
    EXPECT_EQ(e.mac, c.taken_over ? other : kPeerMac) << c.what;
  }
}

// --- ICMP errors -------------------------------------------------------------------------------------------------------------

TEST(Icmp, ErrorsSayWhatWasWrong) {
  const auto options = [](uint8_t type) {  // a destination options header with one option, then TCP
    Bytes b = {wire::kIpTcp, 0, type, 4, 0, 0, 0, 0};
    b.resize(b.size() + 20);
    return b;
  };
  const Bytes routing = {wire::kIpTcp, 0, 77, 1, 0, 0, 0, 0},
              nested = {60, 0, 1, 4, 0, 0, 0, 0, 132, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3, 4};
  const struct {
    const char* what;
    bool v4;
    uint8_t protocol;
    Bytes payload;
    int type, code;  // -1: silence
    uint32_t parameter;
    DropReason reason;
  } cases[] = {
      {"UDP", true, wire::kIpUdp, Bytes(12), 3, 3, 0, DropReason::kUdpNoPort},
      {"UDP over IPv6", false, wire::kIpUdp, Bytes(12), 1, 4, 0, DropReason::kUdpNoPort},
      {"SCTP", true, 132, Bytes(12), 3, 2, 0, DropReason::kIpUnknownProtocol},
      {"SCTP over IPv6", false, 132, Bytes(12), 4, 1, 6, DropReason::kIpUnknownProtocol},
      {"SCTP behind two headers", false, 60, nested, 4, 1, 48, DropReason::kIpUnknownProtocol},
      {"an option to be told about", false, 60, options(0x80), 4, 2, 42, DropReason::kIpBadHeader},
      {"the same, not to groups", false, 60, options(0xc0), 4, 2, 42, DropReason::kIpBadHeader},
      {"an option to be silent about", false, 60, options(0x40), -1, 0, 0, DropReason::kIpBadHeader},
      {"a routing header with segments left", false, 43, routing, 4, 0, 42, DropReason::kIpBadHeader},
      {"nothing follows", false, 59, {}, -1, 0, 0, DropReason::kIpUnknownProtocol},
  };
  for (const auto& c : cases) {
    Layer l(quiet({interface({{"10.1.0.1", 24}, {"fd00:1::1", 64}})}));
    const IpAddress src = ip(c.v4 ? "10.1.0.2" : "fd00:1::2"), dst = ip(c.v4 ? "10.1.0.1" : "fd00:1::1");
    const Bytes packet = ip_packet(src, dst, c.protocol, c.payload);
    Bytes frame = ethernet_frame(kOurMac, kPeerMac, c.v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, packet);
    frame.resize(std::max<size_t>(frame.size(), 60));  // padding is not quoted
    l.input(frame);
    EXPECT_EQ(l.dropped(c.reason), 1u) << c.what;
    const auto seen = parse_icmp(l.sent());
    ASSERT_EQ(seen.has_value(), c.type >= 0) << c.what;
    if (!seen) continue;
    EXPECT_EQ(seen->icmp.type, c.type) << c.what;
    EXPECT_EQ(seen->icmp.code, c.code) << c.what;
    EXPECT_EQ(seen->parameter, c.parameter) << c.what;
    EXPECT_EQ(seen->src, dst) << c.what;
    EXPECT_EQ(seen->dst, src) << c.what;
    EXPECT_EQ(seen->ethernet.dst, kPeerMac) << c.what;
    EXPECT_EQ(seen->body, packet) << c.what;
  }
}

TEST(Icmp, NoErrorAboutWhatNobodyMayBeToldOf) {
  const Bytes udp(12);
  Bytes group = ethernet_frame(wire::kBroadcastMac, kPeerMac, wire::kEtherIpv4,
                               ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpUdp, udp));
  const Bytes cases[] = {
      group,
      ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("10.1.0.2"), ip("10.1.0.255"), wire::kIpUdp, udp)),
      ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("224.0.0.1"), ip("10.1.0.1"), wire::kIpUdp, udp)),
      ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv6, ip_packet(ip("ff02::1"), ip("fd00:1::1"), wire::kIpUdp, udp)),
  };
  for (const Bytes& f : cases) {
    Layer l(quiet({interface({{"10.1.0.1", 24}, {"fd00:1::1", 64}})}));
    l.input(f);
    EXPECT_EQ(l.ports[0]->sent(), 0u);
  }
}

TEST(Icmp, ErrorsAreRateLimited) {
  Layer l(quiet({interface({{"10.1.0.1", 24}})}));
  const Bytes f =
      ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpUdp, Bytes(12)));
  for (int k = 0; k < 300; ++k) l.input(f);
  EXPECT_EQ(l.ports[0]->sent(), 100u);
  EXPECT_EQ(l.dropped(DropReason::kIcmpRateLimited), 200u);
}

}  // namespace
}  // namespace millrace::dataplane::test
