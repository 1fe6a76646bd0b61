// ARP, neighbour discovery and ICMP of a peer as plain data, and ours as they were seen.
#pragma once

#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {

inline Bytes arp_frame(wire::ArpOperation op, const char* sender, const char* target,
                       const io::MacAddress& dst = wire::kBroadcastMac, const io::MacAddress& src = kPeerMac, uint16_t vlan = 0) {
  wire::ArpRepr a;
  a.operation = op;
  a.sender_mac = src;
  a.sender_ip = ip(sender).v4_host_order();
  a.target_ip = ip(target).v4_host_order();
  Bytes body(wire::kArpLength);
  a.emit(body.data());
  return ethernet_frame(dst, src, wire::kEtherArp, body, vlan);
}

struct SeenArp {
  wire::EthernetView ethernet;
  wire::ArpView arp;
};
inline std::optional<SeenArp> parse_arp(const Bytes& f) {
  SeenArp s;
  if (f.empty() || wire::EthernetView::parse(f, s.ethernet) != wire::ParseError::kNone ||
      s.ethernet.ether_type != wire::kEtherArp)
    return std::nullopt;
  if (wire::ArpView::parse(base::ByteSpan(f).subspan(s.ethernet.payload_offset), s.arp) != wire::ParseError::kNone)
    return std::nullopt;
  return s;
}

inline Bytes nd_frame(const wire::NdRepr& nd, const char* src, const IpAddress& dst, const io::MacAddress& dst_mac,
                      uint8_t hop_limit = 255) {
  Bytes body(nd.length());
  nd.emit(body.data(), ip(src), dst);
  return ethernet_frame(dst_mac, kPeerMac, wire::kEtherIpv6, ip_packet(ip(src), dst, wire::kIpIcmpv6, body, hop_limit));
}

struct SeenNd {
  wire::EthernetView ethernet;
  wire::Ipv6View ip;
  wire::NdView nd;
};
inline std::optional<SeenNd> parse_nd(const Bytes& f) {
  SeenNd s;
  if (f.empty() || wire::EthernetView::parse(f, s.ethernet) != wire::ParseError::kNone ||
      s.ethernet.ether_type != wire::kEtherIpv6)
    return std::nullopt;
  const base::ByteSpan l3 = base::ByteSpan(f).subspan(s.ethernet.payload_offset);
  if (wire::Ipv6View::parse(l3, s.ip) != wire::ParseError::kNone) return std::nullopt;
  const base::ByteSpan message = l3.subspan(s.ip.payload_offset, s.ip.payload_length);
  if (wire::NdView::parse(message, s.ip.src, s.ip.dst, s.ip.hop_limit, true, s.nd) != wire::ParseError::kNone)
    return std::nullopt;
  return s;
}

inline Segment syn(const char* src, const char* dst, uint16_t port = 80) {
  Segment s{ip(src), ip(dst), {}, ""};
  s.header.src_port = 1234;
  s.header.dst_port = port;
  s.header.seq = 1000;
  s.header.flags = wire::kTcpSyn;
  s.header.window = 65535;
  s.header.mss = 1460;
  return s;
}

// An ICMP message of ours; every checksum is looked at.
struct SeenIcmp {
  wire::EthernetView ethernet;
  IpAddress src, dst;
  wire::IcmpView icmp;
  Bytes body;  // behind the ICMP header
  uint32_t parameter = 0;
};
inline std::optional<SeenIcmp> parse_icmp(const Bytes& f) {
  SeenIcmp s;
  if (f.empty() || wire::EthernetView::parse(f, s.ethernet) != wire::ParseError::kNone) return std::nullopt;
  const base::ByteSpan l3 = base::ByteSpan(f).subspan(s.ethernet.payload_offset);
  base::ByteSpan message;
  if (s.ethernet.ether_type == wire::kEtherIpv4) {
    wire::Ipv4View v;
    if (wire::Ipv4View::parse(l3, true, v) != wire::ParseError::kNone || v.protocol != wire::kIpIcmp) return std::nullopt;
    s.src = IpAddress::v4(v.src);
    s.dst = IpAddress::v4(v.dst);
    message = l3.subspan(v.payload_offset, v.payload_length);
    if (wire::IcmpView::parse_v4(message, true, s.icmp) != wire::ParseError::kNone) return std::nullopt;
  } else {
    wire::Ipv6View v;
    if (wire::Ipv6View::parse(l3, v) != wire::ParseError::kNone || v.next_header != wire::kIpIcmpv6) return std::nullopt;
    s.src = v.src;
    s.dst = v.dst;
    message = l3.subspan(v.payload_offset, v.payload_length);
    if (wire::IcmpView::parse_v6(message, v.src, v.dst, true, s.icmp) != wire::ParseError::kNone) return std::nullopt;
  }
  s.parameter = base::load_be32(message.data() + 4);
  s.body.assign(message.begin() + 8, message.end());
  return s;
}

}  // namespace millrace::dataplane::test
