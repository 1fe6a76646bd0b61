// What goes to the host, what stays, and what comes from it: the worker's end of the exception path with a test at the host's.
#include <cstdlib>

#include "tests/unit/dataplane/control_frames.h"

namespace millrace::dataplane::test {
namespace {

struct Ring {
  Ring() : memory(static_cast<uint8_t*>(std::aligned_alloc(64, kBytes))) {
    shm::format_ring({memory, kBytes}, kCapacity);
    producer.attach({memory, kBytes});
    consumer.attach({memory, kBytes});
  }
  ~Ring() { std::free(memory); }
  static constexpr uint64_t kCapacity = 64 * 1024, kBytes = (shm::ring_bytes(kCapacity) + 63) & ~uint64_t{63};
  uint8_t* memory;
  shm::RingProducer producer;
  shm::RingConsumer consumer;
};

// A stack with 10.1.0.1 and fd00:1::1, whose host gets TCP of port 179 and UDP of port 3784.
struct Shared {
  explicit Shared(uint32_t rate = 1000)
      : path(out.producer, &in.consumer, rate, {{wire::kIpTcp, 179, 179}, {wire::kIpUdp, 3784, 3784}}, 1'000 * kSecond),
        s({.static_neighbor = true, .exception = &path}) {}
  std::optional<Bytes> at_host() {
    const auto record = out.consumer.front();
    if (record.data() == nullptr) return std::nullopt;
    EXPECT_EQ(record[0], 0);  // the device
    sums_good = record[1] != 0;
    Bytes b(record.begin() + sizeof(HostFrame), record.end());
    out.consumer.pop();
    return b;
  }
  bool from_host(const Bytes& frame, uint8_t device = 0) {
    Bytes record(sizeof(HostFrame));
    record[0] = device;
    record.insert(record.end(), frame.begin(), frame.end());
    return in.producer.push(record);
  }
  bool sums_good = false;
  Ring out, in;
  ExceptionPath path;
  Stack s;
};

Bytes udp(const char* src, const char* dst, uint16_t port) {
  Bytes d(12);
  base::store_be16(d.data(), 5000);
  base::store_be16(d.data() + 2, port);
  base::store_be16(d.data() + 4, 12);
  return ethernet_frame(kOurMac, kPeerMac, ip(src).is_v4() ? wire::kEtherIpv4 : wire::kEtherIpv6,
                        ip_packet(ip(src), ip(dst), wire::kIpUdp, d));
}

TEST(Host, GetsWhatIsNotOurs) {
  const Bytes ospf = ip_packet(ip("10.1.0.2"), ip("224.0.0.5"), 89, Bytes(24));
  const Bytes to_us = ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), 89, Bytes(24));
  Segment bgp = syn("10.1.0.2", "10.1.0.1", 179), answer = syn("10.1.0.2", "10.1.0.1", 40'000);
  answer.header.src_port = 179;
  answer.header.flags |= wire::kTcpAck;
  wire::NdRepr ns;
  ns.target = ip("fd00:1::9");
  ns.mac = kPeerMac;
  const IpAddress group = wire::solicited_node_group(ns.target);
  wire::IcmpEchoRepr pong;
  pong.reply = true;
  Bytes pong_body(pong.length());
  pong.emit_v4(pong_body.data());
  const struct {
    const char* what;
    Bytes frame;
    bool host, answered;  // a copy went up; we answered
  } cases[] = {
      {"OSPF to its group", ethernet_frame({1, 0, 0x5e, 0, 0, 5}, kPeerMac, wire::kEtherIpv4, ospf), true, false},
      {"OSPF to us", ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, to_us), true, false},
      {"LLDP", ethernet_frame({1, 0x80, 0xc2, 0, 0, 0xe}, kPeerMac, 0x88cc, Bytes(46)), true, false},
      {"IS-IS, in LLC", ethernet_frame({1, 0x80, 0xc2, 0, 0, 0x14}, kPeerMac, 46, Bytes(46)), true, false},
      {"to another MAC", ethernet_frame({2, 9, 9, 9, 9, 9}, kPeerMac, wire::kEtherIpv4, ospf), false, false},
      {"to an address of the host's", tcp_frame(syn("10.1.0.2", "10.1.0.3")), true, false},
      {"TCP of a rule", tcp_frame(bgp), true, false},
      {"an answer to the host's own connection", tcp_frame(answer), true, false},
      {"TCP for our listener", tcp_frame(syn("10.1.0.2", "10.1.0.1", 80)), false, true},
      {"TCP of no rule and no listener", tcp_frame(syn("10.1.0.2", "10.1.0.1", 22)), false, true},
      {"UDP of a rule", udp("10.1.0.2", "10.1.0.1", 3784), true, false},
      {"UDP of none", udp("10.1.0.2", "10.1.0.1", 53), false, true},
      {"the same, IPv6", udp("fd00:1::2", "fd00:1::1", 53), false, true},
      {"UDP to the host's address", udp("10.1.0.2", "10.1.0.3", 53), true, false},
      {"ARP for us", arp_frame(wire::ArpOperation::kRequest, "10.1.0.2", "10.1.0.1"), false, true},
      {"ARP for the host", arp_frame(wire::ArpOperation::kRequest, "10.1.0.2", "10.1.0.3"), true, false},
      {"an ARP answer: for both", arp_frame(wire::ArpOperation::kReply, "10.1.0.2", "10.1.0.1", kOurMac), true, false},
      {"ND for the host", nd_frame(ns, "fd00:1::2", group, wire::multicast_mac_v6(group)), true, false},
      {"a ping's answer",
       ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("10.1.0.2"), ip("10.1.0.1"), wire::kIpIcmp, pong_body)),
       true, false},
      {"an unknown VLAN", tcp_frame(syn("10.1.0.2", "10.1.0.3"), 9), false, false},
  };
  for (const auto& c : cases) {
    Shared h;
    h.s.input(c.frame);
    const auto seen = h.at_host();
    EXPECT_EQ(seen.has_value(), c.host) << c.what;
    EXPECT_EQ(seen.value_or(c.frame), c.frame) << c.what;
    EXPECT_EQ(h.s.port.sent() > 0, c.answered) << c.what;
    EXPECT_EQ(h.s.counters.ports[0][PortCounter::kToKernel].read(), c.host) << c.what;
    h.s.port.clear();
  }
}

TEST(Host, ConnectionsOfOursComeBeforeRules) {
  Shared h;
  const ListenerSet::Entry entries[] = {{ip("10.1.0.1"), 179, 11, false}};
  const ListenerSet listeners(entries);
  h.s.stack->set_listeners(&listeners);
  h.s.input(syn("10.1.0.2", "10.1.0.1", 179));
  const auto answer = h.s.sent();
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->tcp.syn());
  EXPECT_FALSE(h.at_host());
}

TEST(Host, FramesAndDropsAreCounted) {
  Shared h;  // a thousand a second: a burst of a hundred
  const Bytes frame = tcp_frame(syn("10.1.0.2", "10.1.0.3"));
  for (int k = 0; k < 300; ++k) h.s.input(frame);
  EXPECT_EQ(h.s.dropped(DropReason::kToHostRateLimited), 200u);
  size_t seen = 0;
  while (h.at_host()) ++seen;
  EXPECT_EQ(seen, 100u);
  Shared full(1'000'000);
  for (int k = 0; k < 2000; ++k) full.s.input(frame);
  EXPECT_GT(full.s.dropped(DropReason::kToHostFull), 0u);
  seen = 0;
  while (full.at_host()) ++seen;
  EXPECT_EQ(seen + full.s.dropped(DropReason::kToHostFull), 2000u);
}

TEST(Host, ItsFramesLeaveAsTheyAre) {
  Shared h;
  const Bytes small = arp_frame(wire::ArpOperation::kRequest, "10.1.0.3", "10.1.0.2", wire::kBroadcastMac, kOurMac);
  Bytes tagged = tcp_frame(syn("10.9.0.3", "10.9.0.2"), 9);
  ASSERT_TRUE(h.from_host(small));
  ASSERT_TRUE(h.from_host(tagged));
  h.s.turn();
  EXPECT_EQ(h.s.port.pop_sent_bytes(), small);
  EXPECT_EQ(h.s.port.pop_sent_bytes(), tagged);
  EXPECT_EQ(h.s.counters.ports[0][PortCounter::kFromKernel].read(), 2u);
  EXPECT_EQ(h.s.pool.in_use(), 0u);
}

TEST(Host, ItsBadFramesAreDropped) {
  Shared h;
  h.from_host(Bytes(1519));   // larger than the port's MTU and headers
  h.from_host(Bytes(13));     // no Ethernet header
  h.from_host(Bytes(60), 3);  // no such port
  h.s.turn();
  EXPECT_EQ(h.s.port.sent(), 0u);
  EXPECT_EQ(h.s.dropped(DropReason::kFromHostMalformed), 3u);
  for (int k = 0; k < 300; ++k) h.from_host(Bytes(60));
  for (int k = 0; k < 20; ++k) h.s.turn();
  EXPECT_EQ(h.s.port.sent() + h.s.dropped(DropReason::kFromHostRateLimited), 300u);
  EXPECT_GT(h.s.dropped(DropReason::kFromHostRateLimited), 150u);
}

TEST(Host, WithoutItNothingChanges) {
  Stack s;
  s.input(tcp_frame(syn("10.1.0.2", "10.1.0.3")));
  EXPECT_EQ(s.dropped(DropReason::kIpNotOurs), 1u);
}

}  // namespace
}  // namespace millrace::dataplane::test
