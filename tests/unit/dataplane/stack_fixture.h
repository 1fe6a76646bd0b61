// A TcpStack on a port of memory, and frames to and from it as plain data.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "dataplane/tcp_stack.h"
#include "lib/wire/arp.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/icmp.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "lib/wire/nd.h"
#include "lib/wire/tcp.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::dataplane::test {

using base::IpAddress;
using base::kMillisecond;
using base::kSecond;
using stats::DropReason;
using stats::TcpCounter;
using Bytes = std::vector<uint8_t>;

inline constexpr io::MacAddress kOurMac = {0x02, 0, 0, 0, 0, 0x01};
inline constexpr io::MacAddress kPeerMac = {0x02, 0, 0, 0, 0, 0x02};
inline IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }

// A TCP segment of the peer's, or one of ours as it was seen.
struct Segment {
  IpAddress src, dst;
  wire::TcpRepr header;
  std::string payload;
};

struct Seen {
  wire::EthernetView ethernet;
  IpAddress src, dst;
  uint8_t ttl = 0;
  bool dont_fragment = false;
  wire::TcpView tcp;
  std::string payload;
};

inline Bytes ethernet_frame(const io::MacAddress& dst, const io::MacAddress& src, uint16_t type, const Bytes& payload,
                            uint16_t vlan = 0) {
  Bytes f(18);
  f.resize(wire::EthernetRepr{dst, src, type, vlan}.emit(f.data()));
  f.insert(f.end(), payload.begin(), payload.end());
  return f;
}

inline Bytes ip_packet(const IpAddress& src, const IpAddress& dst, uint8_t protocol, const Bytes& payload, uint8_t hop_limit = 64,
                       uint8_t tos = 0) {
  Bytes p(src.is_v4() ? 20 : 40);
  if (src.is_v4()) {
    wire::Ipv4Repr r;
    r.src = src.v4_host_order();
    r.dst = dst.v4_host_order();
    r.protocol = protocol;
    r.ttl = hop_limit;
    r.tos = tos;
    r.payload_length = static_cast<uint16_t>(payload.size());
    r.emit(p.data());
  } else {
    wire::Ipv6Repr r;
    r.src = src;
    r.dst = dst;
    r.next_header = protocol;
    r.hop_limit = hop_limit;
    r.traffic_class = tos;
    r.payload_length = static_cast<uint16_t>(payload.size());
    r.emit(p.data());
  }
  p.insert(p.end(), payload.begin(), payload.end());
  return p;
}

inline Bytes tcp_bytes(const Segment& s) {
  Bytes t(s.header.header_length());
  s.header.emit(t.data());
  t.insert(t.end(), s.payload.begin(), s.payload.end());
  const auto sum = wire::pseudo_header(s.src, s.dst, wire::kIpTcp, static_cast<uint32_t>(t.size())) + wire::checksum_sum(t);
  wire::store_checksum(t.data() + wire::kTcpChecksumOffset, wire::checksum_finish(sum));
  return t;
}

inline Bytes tcp_frame(const Segment& s, uint16_t vlan = 0) {
  return ethernet_frame(kOurMac, kPeerMac, s.src.is_v4() ? wire::kEtherIpv4 : wire::kEtherIpv6,
                        ip_packet(s.src, s.dst, wire::kIpTcp, tcp_bytes(s)), vlan);
}

// Checks every checksum on the way. nullopt when the frame is no TCP.
inline std::optional<Seen> parse_tcp(const Bytes& f) {
  Seen s;
  if (wire::EthernetView::parse(f, s.ethernet) != wire::ParseError::kNone) return std::nullopt;
  const base::ByteSpan l3 = base::ByteSpan(f).subspan(s.ethernet.payload_offset);
  base::ByteSpan l4;
  if (s.ethernet.ether_type == wire::kEtherIpv4) {
    wire::Ipv4View v;
    if (wire::Ipv4View::parse(l3, true, v) != wire::ParseError::kNone || v.protocol != wire::kIpTcp) return std::nullopt;
    s.src = IpAddress::v4(v.src);
    s.dst = IpAddress::v4(v.dst);
    s.ttl = v.ttl;
    s.dont_fragment = v.dont_fragment;
    l4 = l3.subspan(v.payload_offset, v.payload_length);
  } else if (s.ethernet.ether_type == wire::kEtherIpv6) {
    wire::Ipv6View v;
    if (wire::Ipv6View::parse(l3, v) != wire::ParseError::kNone || v.next_header != wire::kIpTcp) return std::nullopt;
    s.src = v.src;
    s.dst = v.dst;
    s.ttl = v.hop_limit;
    s.dont_fragment = true;
    l4 = l3.subspan(v.payload_offset, v.payload_length);
  } else {
    return std::nullopt;
  }
  EXPECT_TRUE(wire::checksum_ok(wire::pseudo_header(s.src, s.dst, wire::kIpTcp, static_cast<uint32_t>(l4.size())) +
                                wire::checksum_sum(l4)));
  if (wire::TcpView::parse(l4, s.tcp) != wire::ParseError::kNone) return std::nullopt;
  s.payload = base::as_chars(l4.subspan(s.tcp.payload_offset));
  return s;
}

// Options of a test's stack that differ from the defaults.
struct Options {
  uint16_t vlan = 0;
  uint32_t max_connections = 64;
  uint32_t max_half_open = 16;
  uint16_t port_first = 40'000, port_last = 40'063;
  uint32_t payload_packets = 1024;
  bool chain = false;
  bool tso = false;             // with transmit checksums
  bool static_neighbor = true;  // the peers 10.1.0.2 and fd00:1::2 are known
  uint32_t workers = 1, worker = 0;
  uint32_t max_neighbors = 8;
  bool static_router = false;  // 10.1.0.254, the way to everybody else, is known
  AdmissionConfig admission = {};
  std::vector<InterfaceAddress> more_addresses = {};  // of the port
  ExceptionPath* exception = nullptr;
};

// One stack with the address 10.1.0.1/24, fd00:1::1/64 on a port of memory, default routers 10.1.0.254 and fd00:1::fe.
class Stack {
 public:
  explicit Stack(const Options& o = {}, const io::Steering* steering = nullptr, io::HandoverMesh* mesh = nullptr)
      : pool(o.payload_packets), headers(512, 128), indirect(512, 0), port(kOurMac), own_steering(o.workers, 7) {
    port.change().tx_multi_segment = o.chain;
    port.change().partial_rx_checksum = true;
    port.change().tso = port.change().tx_tcp_checksum = port.change().tx_ip_checksum = o.tso;
    TcpStackConfig c;
    c.worker = o.worker;
    c.workers = o.workers;
    c.max_connections = o.max_connections;
    c.max_half_open = o.max_half_open;
    c.max_time_wait = 16;
    c.admission = o.admission;
    c.local_port_first = o.port_first;
    c.local_port_last = o.port_last;
    c.max_port_maps = 4;
    c.secret[0] = 1;
    c.secret[1] = 2;
    c.secret[2] = 3;
    c.secret[3] = 4;
    c.ip.max_neighbors = o.max_neighbors;
    c.ip.exception = o.exception;
    c.ip.worker = 1;  // no announcements unless a test asks for them
    InterfaceConfig i;
    i.vlan = o.vlan;
    i.addresses = {{ip("10.1.0.1"), 24}, {ip("fd00:1::1"), 64}};
    i.addresses.insert(i.addresses.end(), o.more_addresses.begin(), o.more_addresses.end());
    i.routes = {{ip("0.0.0.0"), 0, ip("10.1.0.254")}, {ip("::"), 0, ip("fd00:1::fe")}};
    if (o.static_neighbor) i.neighbors = {{ip("10.1.0.2"), kPeerMac}, {ip("fd00:1::2"), kPeerMac}};
    if (o.static_router) i.neighbors.push_back({ip("10.1.0.254"), kPeerMac});
    c.ip.ports = {i};
    const ListenerSet::Entry entries[] = {
        {ip("10.1.0.1"), 80, 11, false}, {ip("::"), 80, 12, false}, {ip("0.0.0.0"), 81, 13, true}};
    listeners = ListenerSet(entries);
    io::PortQueue* queues[] = {&port};
    stack.emplace(c, queues, steering != nullptr ? *steering : own_steering, mesh, pool.pool(), headers.pool(),
                  o.chain ? indirect.pool() : io::PacketPool(), counters.view(), now);
    stack->set_listeners(&listeners);
  }

  // Delivers a frame and runs one loop iteration.
  void input(const Bytes& frame) {
    io::PacketPtr p = pool.make(frame);
    ASSERT_TRUE(p);
    port.deliver(std::move(p));
    turn();
  }
  void input(const Segment& s) { input(tcp_frame(s)); }
  void turn() {
    stack->receive(now);
    stack->run_timers(now, 64);
    stack->flush(now);
  }
  void wait(TimeNs ns) {
    now += ns;
    turn();
  }
  std::optional<Seen> sent() {
    Bytes f = port.pop_sent_bytes();
    if (f.empty()) return std::nullopt;
    if (port.capabilities()
            .tx_tcp_checksum) {  // what a device does: IPv4 header, then TCP over the pseudo-header's sum that is there
      wire::store_checksum(f.data() + 24, wire::checksum_finish(wire::checksum_sum({f.data() + 14, 20})));
      wire::store_checksum(f.data() + 50, wire::checksum_finish(wire::checksum_sum(base::ByteSpan(f).subspan(34))));
    }
    return parse_tcp(f);
  }
  uint64_t dropped(DropReason r) const { return counters.dropped(r); }
  uint64_t counted(TcpCounter c) const { return counters.tcp[c].read(); }

  support::HeapPacketPool pool, headers, indirect;
  support::FakePort port;
  io::Steering own_steering;
  LocalCounters counters;
  ListenerSet listeners;
  TimeNs now = 1'000 * kSecond;
  std::optional<TcpStack> stack;
};

}  // namespace millrace::dataplane::test
