#include "dataplane/ip_layer.h"

#include <cstring>

#include <rte_mbuf.h>

#include "dataplane/flow_table.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"

namespace millrace::dataplane {

using base::IpAddress;
using stats::DropReason;
using wire::ParseError;

namespace {

// Of a chained frame, at least this much must be in its first segment: every header this layer reads, extensions included.
constexpr uint32_t kMinFirstSegment = 18 + 40 + wire::kIpv6MaxExtensionBytes + 60;

// Bytes of a frame as a little-endian load sees them, for input(). EtherType, version and header length:
constexpr uint32_t kTypeIpv4NoOptions = 0x45'0008, kTypeIpv6 = 0x60'dd86;
// Bytes 4 to 11 of an IPv4 header: no fragment offset, no more fragments, protocol TCP.
constexpr uint64_t kMiddleMask = 0x0000'ff00'ff3f'0000, kMiddleWholeTcp = 0x0000'0600'0000'0000;
static_assert(wire::kIpTcp == 6);

// Headers of our segments, likewise. IPv4: version and length 0x45, no TOS, identification 0, don't fragment; time to live, TCP.
constexpr uint64_t kIpv4First = 0x0040'0000'0000'0045, kIpv4Second = uint64_t{wire::kIpTcp} << 8 | wire::kDefaultHopLimit;
constexpr wire::ChecksumSum kIpv4Sum = 0x0045 + 0x0040 + kIpv4Second;  // of these fields
// The pseudo-header of either family less addresses and length: the protocol's field differs in width, its sum does not.
constexpr wire::ChecksumSum kTcpPseudo = wire::kIpTcp << 8;
// IPv6: version, no traffic class, no flow label; next header, hop limit.
constexpr uint64_t kIpv6First = 0x60 | uint64_t{wire::kIpTcp} << 48 | uint64_t{wire::kDefaultHopLimit} << 56;

// Sources that nobody can have (RFC 1122 3.2.1.3, RFC 4291 2.7).
bool bad_source_v4(uint32_t a) {
  const auto first = static_cast<uint8_t>(a >> 24);
  return static_cast<uint8_t>(first - 1) >= 223 || first == 127;  // "this network"; groups, class E, broadcast; loopback
}
bool bad_source_v6(const IpAddress& a) {
  if (a.bytes[0] == 0xff) return true;
  IpAddress loopback{};
  loopback.bytes[15] = 1;
  return a == loopback || a.is_unspecified();
}

DropReason ip_reason(ParseError e) {
  switch (e) {
    case ParseError::kTruncated:
      return DropReason::kIpTruncated;
    case ParseError::kBadChecksum:
      return DropReason::kIpBadChecksum;
    case ParseError::kFragment:
      return DropReason::kIpFragment;
    default:
      return DropReason::kIpBadHeader;
  }
}

}  // namespace

base::ByteSpan IpLayer::Frame::l3() const {
  return {rte_pktmbuf_mtod(mbuf, const uint8_t*) + l3_offset, mbuf->pkt_len - l3_offset};
}

IpLayer::IpLayer(const IpLayerConfig& config, std::span<io::PortQueue* const> ports, io::TxPools pools,
                 const StackCounters& counters, TimeNs now)
    : config_(config),
      counters_(counters),
      pools_(pools),
      neighbors_(config.max_neighbors, config.seed, counters.drops),
      reassembler_(config.max_fragments, pools.payload, counters.drops),
      next_identification_(static_cast<uint32_t>(config.seed ^ now) + config.worker * 0x9e3779b9u),
      icmp_limit_(config.max_icmp_per_second, now) {
  MILLRACE_ASSERT(ports.size() <= config.ports.size() && ports.size() <= io::kMaxPorts && config.ports.size() <= kMaxInterfaces,
                  "a configuration for each device, further VLANs behind them");
  for (uint16_t p = 0; p < config.ports.size(); ++p) {
    const InterfaceConfig& c = config.ports[p];
    const uint16_t device = p < ports.size() ? p : c.device;
    MILLRACE_ASSERT(device < ports.size() && (c.device == device || c.device == InterfaceConfig::kOwnDevice),
                    "an interface is of a device that is there");
    if (p == device) ports[p]->count_drops_in(counters.drops);
    interfaces_.push_back(std::make_unique<Interface>(c, *ports[device], pools, counters, device));
    Interface& i = *interfaces_.back();
    i.index = p;
    if (p != device) i.next_vlan = std::exchange(interfaces_[device]->next_vlan, &i);
    for (const InterfaceAddress& a : c.addresses) routes_.push_back({a.address, {}, a.prefix_bits, true, p});
    for (const InterfaceRoute& r : c.routes) routes_.push_back({r.network, r.via, r.prefix_bits, false, p});
    for (const StaticNeighbor& n : c.neighbors) neighbors_.add_static(p, n.address, n.mac, now);
  }
  std::stable_sort(routes_.begin(), routes_.end(), [](const Route& a, const Route& b) { return a.bits > b.bits; });
  add_addresses(now);
}

std::optional<uint16_t> IpLayer::port_of(const IpAddress& a) const {
  const Local* l = local(a);
  return l == nullptr ? std::nullopt : std::optional<uint16_t>(l->port);
}

// Longest prefix; among equals one whose router answers, then one of the preferred port, then the first. Few routes, and
// connections keep what was found (NextHop).
const IpLayer::Route* IpLayer::route_to(const IpAddress& remote, uint16_t preferred_port) const {
  const Route* best = nullptr;
  for (const Route& r : routes_) {
    if (best != nullptr && r.bits < best->bits) break;
    if (r.network.is_v4() != remote.is_v4() || !remote.in_prefix(r.network, r.bits)) continue;
    const auto rank = [&](const Route& x) { return (x.down ? 0 : 2) + (x.port == preferred_port ? 1 : 0); };
    if (best == nullptr || rank(r) > rank(*best)) best = &r;
  }
  return best;
}

// The address of `port` that a neighbour sees as its own kind: of the same prefix, else the first of the family. Null: none of
// the family that may be used (yet).
const IpAddress* IpLayer::address_towards(uint16_t port, const IpAddress& neighbor) const {
  const IpAddress* first = nullptr;
  for (const InterfaceAddress& a : interfaces_[port]->config.addresses) {
    if (a.address.is_v4() != neighbor.is_v4() || local(a.address) == nullptr) continue;
    if (neighbor.in_prefix(a.address, a.prefix_bits)) return &a.address;
    if (first == nullptr) first = &a.address;
  }
  return first;
}

std::optional<IpLayer::Source> IpLayer::source_for(const IpAddress& remote, uint32_t nth) const {
  // Nobody can be there, so nobody is asked (RFC 9293 3.9.1.1, MUST-46).
  if (remote.is_v4() ? bad_source_v4(remote.v4_host_order()) : bad_source_v6(remote)) return std::nullopt;
  if (local(remote) != nullptr) return std::nullopt;  // ourselves: there is no loopback
  const Route* r = route_to(remote, UINT16_MAX);
  if (r == nullptr) return std::nullopt;
  const IpAddress* a = address_towards(r->port, r->direct ? remote : r->via);
  if (a == nullptr) return std::nullopt;
  if (nth == 0) return Source{*a, r->port};
  const auto& addresses = interfaces_[r->port]->config.addresses;
  const auto first = std::find_if(addresses.begin(), addresses.end(), [&](const InterfaceAddress& x) { return x.address == *a; });
  for (const InterfaceAddress& x : addresses) {
    const bool alike =
        x.address.is_v4() == a->is_v4() && x.address != *a && x.address.in_prefix(first->address, first->prefix_bits);
    if (alike && local(x.address) == nullptr) continue;  // not yet (RFC 4862 5.4)
    if (alike && --nth == 0) return Source{x.address, r->port};
  }
  return std::nullopt;
}

uint16_t IpLayer::mss(uint16_t port, bool v4) const {
  const uint16_t mtu = interfaces_[port]->config.mtu;
  return static_cast<uint16_t>(mtu - (v4 ? 40 : 60));
}

// --- receive -----------------------------------------------------------------------------------------------------------------

IpVerdict IpLayer::drop(const Frame& f, DropReason why) {
  if (!f.learn_only) counters_.drop(why);
  rte_pktmbuf_free(f.mbuf);
  return IpVerdict::kConsumed;
}

IpVerdict IpLayer::done(const Frame& f) {
  rte_pktmbuf_free(f.mbuf);
  return IpVerdict::kConsumed;
}

bool IpLayer::addressed_to_us(const Interface& i, const wire::MacAddress& dst) const {
  if (dst == i.capabilities.mac) [[likely]]
    return true;
  if (!wire::is_group(dst)) return false;
  if (dst == wire::kBroadcastMac) return true;
  if (dst == wire::multicast_mac_v6(wire::all_nodes_group())) return true;
  for (const InterfaceAddress& a : i.config.addresses)
    if (!a.address.is_v4() && dst == wire::multicast_mac_v6(wire::solicited_node_group(a.address))) return true;
  return false;
}

// Frames as nearly all are: for our address, IPv4 without options or IPv6 without extensions, TCP, nothing odd about them. What
// is asked for here is what input_any() would find to be right, one by one; a frame for which it does not hold is not wrong, it
// only goes the long way. tests/unit/dataplane/ip_fast_path_test.cc holds the two against each other.
IpVerdict IpLayer::input(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error) {
  return input_on(*interfaces_[port], port, frame, now, learn_only, tcp, error);
}

// A frame as `i` would have it; a frame of another VLAN comes here a second time, as that one has it.
[[gnu::always_inline]] inline IpVerdict IpLayer::input_on(Interface& i, uint16_t port, rte_mbuf* frame, TimeNs now,
                                                          bool learn_only, TcpPacket& tcp, IcmpError& error) {
  const uint8_t* at = rte_pktmbuf_mtod(frame, const uint8_t*);
  const uint64_t flags = frame->ol_flags;
  const uint8_t* l3 = at + i.fast.l3_offset;
  const bool plain = frame->data_len >= i.fast.l3_offset + wire::kIpv4Header + wire::kTcpMinHeader && !learn_only &&
                     (flags & RTE_MBUF_F_RX_VLAN_STRIPPED) == 0 &&
                     (base::load_unaligned<uint64_t>(at) & FastFrame::kMacMask) == i.fast.mac &&
                     (base::load_unaligned<uint32_t>(at + 12) & i.fast.tag_mask) == i.fast.tag &&
                     (frame->nb_segs == 1 || frame->data_len >= kMinFirstSegment);
  if (!plain) [[unlikely]] {
    if (i.next_vlan != nullptr && i.index == port) return input_vlan(port, frame, now, learn_only, tcp, error);
    return input_any(port, frame, now, learn_only, tcp, error);
  }
  // The type of the payload and the first two bytes of the IP header.
  const uint32_t type = base::load_unaligned<uint32_t>(l3 - 2);
  const uint32_t room = frame->pkt_len - i.fast.l3_offset;
  uint32_t header, l4_length;
  if ((type & 0x00ff'ffff) == kTypeIpv4NoOptions) {
    const uint32_t total = base::load_be16(l3 + 2);
    header = wire::kIpv4Header;
    l4_length = total - header;
    const uint64_t middle = base::load_unaligned<uint64_t>(l3 + 4);  // identification, fragment, TTL, protocol, checksum
    const uint32_t source = base::load_unaligned<uint32_t>(l3 + 12);
    if ((middle & kMiddleMask) != kMiddleWholeTcp || total < header + wire::kTcpMinHeader || total > room ||
        ((flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) != i.believed.ip && !wire::checksum_ok(wire::checksum_ipv4_header(l3))) ||
        bad_source_v4(__builtin_bswap32(source))) [[unlikely]]
      return input_any(port, frame, now, learn_only, tcp, error);
    tcp.tuple.remote = IpAddress::v4_memory_order(source);
    tcp.tuple.local = IpAddress::v4_memory_order(base::load_unaligned<uint32_t>(l3 + 16));
    tcp.ecn = static_cast<uint8_t>(type >> 24 & 3);
  } else if ((type & 0x00f0'ffff) == kTypeIpv6) {
    l4_length = base::load_be16(l3 + 4);
    header = wire::kIpv6Header;
    tcp.tuple.remote = IpAddress::v6(l3 + 8);
    tcp.tuple.local = IpAddress::v6(l3 + 24);
    // A first half of zero: unspecified, loopback, IPv4-mapped: the long way knows which of these are wrong.
    if (l3[6] != wire::kIpTcp || l4_length < wire::kTcpMinHeader || header + l4_length > room ||
        frame->data_len < i.fast.l3_offset + wire::kIpv6Header + wire::kTcpMinHeader || l3[8] == 0xff ||
        tcp.tuple.remote.word(0) == 0 || tcp.tuple.local.word(0) == 0) [[unlikely]]
      return input_any(port, frame, now, learn_only, tcp, error);
    tcp.ecn = static_cast<uint8_t>(type >> 28 & 3);
  } else {
    return input_any(port, frame, now, learn_only, tcp, error);
  }
  if (!(tcp.tuple.local == i.recent.address)) [[unlikely]] {  // :: at first, which comes no further than the above
    const Local* to = local(tcp.tuple.local);
    if (to == nullptr) return input_any(port, frame, now, learn_only, tcp, error);
    i.recent = *to;
  }
  if (local(tcp.tuple.remote) != nullptr) [[unlikely]]
    return input_any(port, frame, now, learn_only, tcp, error);
  neighbor_news_ = false;
  const uint32_t l4_offset = i.fast.l3_offset + header;
  const uint64_t mark = flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  if (mark != i.believed.good && mark != i.believed.unsummed &&
      !tcp_checksum_ok(i, frame, l4_offset, tcp.tuple.remote, tcp.tuple.local, l4_length)) [[unlikely]] {
    counters_.drop(DropReason::kTcpBadChecksum);
    rte_pktmbuf_free(frame);
    return IpVerdict::kConsumed;
  }
  const uint32_t l4_ports = base::load_unaligned<uint32_t>(at + l4_offset);
  tcp.frame = frame;
  tcp.tuple.local_port = __builtin_bswap16(static_cast<uint16_t>(l4_ports >> 16));
  tcp.tuple.remote_port = __builtin_bswap16(static_cast<uint16_t>(l4_ports));
  tcp.arrival_port = port;
  tcp.local_port_index = i.recent.port;
  tcp.l4_offset = static_cast<uint16_t>(l4_offset);
  tcp.l4_length = static_cast<uint16_t>(l4_length);
  return IpVerdict::kTcp;
}

// The interface that a frame belongs to by its tag; null: none.
IpLayer::Interface* IpLayer::interface_of(uint16_t device, uint16_t vlan) const {
  Interface* i = interfaces_[device].get();
  while (i != nullptr && i->config.vlan != vlan) i = i->next_vlan;
  return i;
}

// A frame on a device with several VLANs that is no ordinary one of its first.
IpVerdict IpLayer::input_vlan(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error) {
  const uint8_t* at = rte_pktmbuf_mtod(frame, const uint8_t*);
  if (frame->data_len >= wire::kEthernetHeader + wire::kVlanTag && base::load_be16(at + 12) == wire::kEtherVlan) {
    Interface* i = interface_of(port, base::load_be16(at + 14) & 0xfff);
    if (i != nullptr && i->index != port) return input_on(*i, port, frame, now, learn_only, tcp, error);
  }
  return input_any(port, frame, now, learn_only, tcp, error);
}

// Any frame, step by step, with a reason for each thing that can be wrong.
IpVerdict IpLayer::input_any(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error) {
  neighbor_news_ = false;
  Frame f;
  f.mbuf = frame;
  f.port = port;
  f.now = now;
  f.learn_only = learn_only;
  const base::ByteSpan bytes{rte_pktmbuf_mtod(frame, const uint8_t*), frame->data_len};
  switch (wire::EthernetView::parse(bytes, f.ethernet)) {
    case ParseError::kNone:
      break;
    case ParseError::kUnsupported:  // among them LLC: spanning tree, IS-IS
      if (f.ethernet.dst == interfaces_[port]->capabilities.mac || wire::is_group(f.ethernet.dst))
        return not_ours(f, DropReason::kEthUnknownType);
      return drop(f, DropReason::kEthUnknownType);
    case ParseError::kBadHeader:
      return drop(f, DropReason::kEthNotOurs);
    default:
      return drop(f, DropReason::kEthTruncated);
  }
  uint16_t vlan = f.ethernet.vlan_id;
  if (vlan == 0 && (frame->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0)
    vlan = frame->vlan_tci & 0xfff;  // the port took the tag out
  const Interface* i = interface_of(port, vlan);
  const bool to_us = addressed_to_us(i != nullptr ? *i : *interfaces_[port], f.ethernet.dst);
  if (!to_us && !wire::is_group(f.ethernet.dst)) return drop(f, DropReason::kEthNotOurs);
  if (i == nullptr) return drop(f, to_us ? DropReason::kVlanUnknown : DropReason::kEthNotOurs);
  f.port = i->index;
  if (!to_us) return not_ours(f, DropReason::kEthNotOurs);  // a group that we did not join: routing protocols
  f.l3_offset = f.ethernet.payload_offset;
  if (frame->nb_segs > 1 && frame->data_len < kMinFirstSegment) return drop(f, DropReason::kIpTruncated);
  switch (f.ethernet.ether_type) {
    case wire::kEtherIpv4:
      return input_v4(f, tcp, error);
    case wire::kEtherIpv6:
      return input_v6(f, tcp, error);
    case wire::kEtherArp:
      return input_arp(f);
    default:
      return not_ours(f, DropReason::kEthUnknownType);
  }
}

IpVerdict IpLayer::input_v4(Frame& f, TcpPacket& tcp, IcmpError& error) {
  if (f.learn_only) return done(f);
  Interface& i = *interfaces_[f.port];
  const bool good = (f.mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == i.believed.ip;
  wire::Ipv4View ip;
  const ParseError e = wire::Ipv4View::parse(f.l3(), !good, ip);
  if (e != ParseError::kNone && e != ParseError::kFragment) return drop(f, ip_reason(e));
  const IpAddress src = IpAddress::v4(ip.src), dst = IpAddress::v4(ip.dst);
  const Local* to = local(dst);
  if (to == nullptr || wire::is_group(f.ethernet.dst)) return not_ours(f, DropReason::kIpNotOurs);
  if (bad_source_v4(ip.src) || local(src) != nullptr) return drop(f, DropReason::kIpBadSource);
  if (e == ParseError::kFragment) {
    if (ip.protocol != wire::kIpTcp && ip.protocol != wire::kIpIcmp) return not_ours(f, DropReason::kIpFragment);
    const IpVerdict v = reassemble_v4(f, ip, tcp);
    return v == IpVerdict::kTcp ? input_v4(f, tcp, error) : v;
  }
  const uint32_t l4_offset = f.l3_offset + ip.payload_offset;
  switch (ip.protocol) {
    case wire::kIpTcp:
      return input_tcp(f, src, dst, to->port, l4_offset, ip.payload_length, ip.tos & 3, tcp);
    case wire::kIpIcmp: {
      if (f.mbuf->nb_segs > 1) return drop(f, DropReason::kIcmpIgnored);
      wire::IcmpView icmp;
      const base::ByteSpan message = f.l3().subspan(ip.payload_offset, ip.payload_length);
      if (wire::IcmpView::parse_v4(message, true, icmp) != ParseError::kNone) return drop(f, DropReason::kIcmpMalformed);
      return input_icmp(f, icmp, src, dst, to->port, l4_offset, ip.payload_length, tcp, error);
    }
    case wire::kIpUdp:
      if (host_wants(f, wire::kIpUdp, l4_offset)) return not_ours(f, DropReason::kUdpNoPort);
      send_icmp_error(f, src, dst, 3, 3, 0);  // port unreachable (RFC 1122 4.1.3.1)
      return drop(f, DropReason::kUdpNoPort);
    default:
      if (offer_to_host(f)) return done(f);
      send_icmp_error(f, src, dst, 3, 2, 0);  // protocol unreachable (RFC 1122 3.2.2.1)
      return drop(f, DropReason::kIpUnknownProtocol);
  }
}

IpVerdict IpLayer::input_v6(Frame& f, TcpPacket& tcp, IcmpError& error) {
  wire::Ipv6View ip;
  const ParseError e = wire::Ipv6View::parse(f.l3(), ip);
  const Local* to = e == ParseError::kNone || e == ParseError::kFragment ? local(ip.dst) : nullptr;
  if (e == ParseError::kFragment) {
    if (f.learn_only) return done(f);
    if (to == nullptr || wire::is_group(f.ethernet.dst)) return not_ours(f, DropReason::kIpNotOurs);
    if (bad_source_v6(ip.src) || local(ip.src) != nullptr) return drop(f, DropReason::kIpBadSource);
    const IpVerdict v = reassemble_v6(f, ip, tcp);
    return v == IpVerdict::kTcp ? input_v6(f, tcp, error) : v;
  }
  if (e != ParseError::kNone) {
    const bool ours = local(ip.dst) != nullptr && !wire::is_group(f.ethernet.dst);
    if (e == ParseError::kBadHeader && ip.problem_at != 0 && ours && !f.learn_only && !bad_source_v6(ip.src))
      send_icmp_error(f, ip.src, ip.dst, 4, ip.problem_code, ip.problem_at);
    return drop(f, ip_reason(e));
  }
  const base::ByteSpan message = f.l3().subspan(ip.payload_offset, ip.payload_length);
  if (ip.next_header == wire::kIpIcmpv6 && !message.empty() && message[0] >= 133 && message[0] <= 137) {
    if (f.mbuf->nb_segs > 1) return drop(f, DropReason::kNdMalformed);
    return input_nd(f, ip.src, ip.dst, ip.hop_limit, message);
  }
  if (f.learn_only) return done(f);
  if (to == nullptr || wire::is_group(f.ethernet.dst)) return not_ours(f, DropReason::kIpNotOurs);
  if (bad_source_v6(ip.src) || local(ip.src) != nullptr) return drop(f, DropReason::kIpBadSource);
  const uint32_t l4_offset = f.l3_offset + ip.payload_offset;
  switch (ip.next_header) {
    case wire::kIpTcp:
      return input_tcp(f, ip.src, ip.dst, to->port, l4_offset, ip.payload_length, ip.traffic_class & 3, tcp);
    case wire::kIpIcmpv6: {
      if (f.mbuf->nb_segs > 1) return drop(f, DropReason::kIcmpIgnored);
      wire::IcmpView icmp;
      if (wire::IcmpView::parse_v6(message, ip.src, ip.dst, true, icmp) != ParseError::kNone)
        return drop(f, DropReason::kIcmpMalformed);
      return input_icmp(f, icmp, ip.src, ip.dst, to->port, l4_offset, ip.payload_length, tcp, error);
    }
    case wire::kIpUdp:
      if (host_wants(f, wire::kIpUdp, l4_offset)) return not_ours(f, DropReason::kUdpNoPort);
      send_icmp_error(f, ip.src, ip.dst, 1, 4, 0);  // port unreachable (RFC 4443 3.1)
      return drop(f, DropReason::kUdpNoPort);
    case wire::kIpv6NoNext:  // nothing follows, and that is as it should be (RFC 8200 4.7)
      return drop(f, DropReason::kIpUnknownProtocol);
    default:
      if (offer_to_host(f)) return done(f);
      send_icmp_error(f, ip.src, ip.dst, 4, 1, ip.next_header_at);  // unrecognized next header (RFC 8200 4)
      return drop(f, DropReason::kIpUnknownProtocol);
  }
}

IpVerdict IpLayer::input_tcp(Frame& f, const IpAddress& src, const IpAddress& dst, uint16_t local_port, uint32_t l4_offset,
                             uint32_t l4_length, uint8_t ecn, TcpPacket& tcp) {
  if (l4_length < wire::kTcpMinHeader) return drop(f, DropReason::kTcpTruncated);
  if (!tcp_checksum_ok(*interfaces_[f.port], f.mbuf, l4_offset, src, dst, l4_length)) return drop(f, DropReason::kTcpBadChecksum);
  const uint8_t* l4 = rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + l4_offset;
  tcp.frame = f.mbuf;
  tcp.tuple = {dst, src, base::load_be16(l4 + 2), base::load_be16(l4)};
  tcp.arrival_port = interfaces_[f.port]->device;
  tcp.local_port_index = local_port;
  tcp.l4_offset = static_cast<uint16_t>(l4_offset);
  tcp.l4_length = static_cast<uint16_t>(l4_length);
  tcp.ecn = ecn;
  return IpVerdict::kTcp;
}

// What a port says of a TCP checksum, and what is made of it:
//   good      believed, after the first kMarksToVerify of them were computed and found right
//   unsummed  (RTE_MBUF_F_RX_L4_CKSUM_NONE of virtio and vhost) the peer left the sum to a device because the bytes never leave
//   the
//             memory of this machine; the field holds the pseudo-header's part. Believed, after the first ones held exactly that,
//             or a right sum
//   unknown, bad, and every mark of a port that once lied: computed
bool IpLayer::tcp_checksum_ok(Interface& i, const rte_mbuf* m, uint32_t l4_offset, const IpAddress& src, const IpAddress& dst,
                              uint32_t l4_length) {
  const uint64_t mark = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  const bool marked_good = i.capabilities.rx_tcp_checksum && mark == RTE_MBUF_F_RX_L4_CKSUM_GOOD;
  const bool marked_unsummed = i.capabilities.rx_tcp_unsummed && mark == RTE_MBUF_F_RX_L4_CKSUM_NONE;
  if (mark == i.believed.good || mark == i.believed.unsummed) return true;
  const wire::ChecksumSum pseudo = wire::pseudo_header(src, dst, wire::kIpTcp, l4_length);
  const uint16_t field =
      base::load_unaligned<uint16_t>(rte_pktmbuf_mtod(m, const uint8_t*) + l4_offset + wire::kTcpChecksumOffset);
  // Of a large segment that a device is to cut, some stacks leave the length out of the sum.
  const bool unfinished =
      field == wire::checksum_fold(pseudo) ||
      ((m->ol_flags & RTE_MBUF_F_RX_LRO) != 0 && field == wire::checksum_fold(wire::pseudo_header(src, dst, wire::kIpTcp, 0)));
  const bool ok = (marked_unsummed && unfinished) || tcp_sum_ok(m, l4_offset, pseudo, l4_length);
  if (marked_unsummed) {
    if (!ok) return i.distrust();
    if (--i.unsummed_to_verify == 0) i.believe();
    return true;
  }
  if (marked_good) {
    if (!ok) return i.distrust();
    if (--i.marks_to_verify == 0) i.believe();
    return true;
  }
  if (ok) return true;
  // A peer on this host may leave the sum to a device that is not there, and the port does not tell.
  return i.capabilities.partial_rx_checksum && unfinished;
}

bool IpLayer::tcp_sum_ok(const rte_mbuf* m, uint32_t l4_offset, wire::ChecksumSum pseudo, uint32_t l4_length) {
  wire::ChecksumSum sum = pseudo;
  uint32_t left = l4_length, done = 0, skip = l4_offset;
  for (const rte_mbuf* s = m; s != nullptr && left > 0; s = s->next) {
    const uint32_t n = std::min<uint32_t>(left, s->data_len - skip);
    sum += wire::checksum_at(wire::checksum_sum({rte_pktmbuf_mtod(s, const uint8_t*) + skip, n}), done);
    left -= n;
    done += n;
    skip = 0;
  }
  return left == 0 && wire::checksum_ok(sum);
}

void IpLayer::Interface::believe() {
  believed.ip = capabilities.rx_ip_checksum && marks_to_verify == 0 ? RTE_MBUF_F_RX_IP_CKSUM_GOOD : Believed::kNoMark;
  believed.good = capabilities.rx_tcp_checksum && marks_to_verify == 0 ? RTE_MBUF_F_RX_L4_CKSUM_GOOD : Believed::kNoMark;
  believed.unsummed = capabilities.rx_tcp_unsummed && unsummed_to_verify == 0 ? RTE_MBUF_F_RX_L4_CKSUM_NONE : Believed::kNoMark;
}

// The port's word is worth nothing: from here on every sum is computed.
bool IpLayer::Interface::distrust() {
  capabilities.rx_ip_checksum = capabilities.rx_tcp_checksum = capabilities.rx_tcp_unsummed = false;
  believe();
  return false;
}

void IpLayer::FastFrame::set(const io::MacAddress& address, uint16_t vlan) {
  std::memcpy(&mac, address.data(), address.size());
  l3_offset = vlan == 0 ? wire::kEthernetHeader : wire::kEthernetHeader + wire::kVlanTag;
  const uint8_t tag_bytes[4] = {wire::kEtherVlan >> 8, wire::kEtherVlan & 0xff, static_cast<uint8_t>(vlan >> 8),
                                static_cast<uint8_t>(vlan)};
  const uint8_t mask_bytes[4] = {0xff, 0xff, 0x0f, 0xff};  // the priority does not matter
  if (vlan == 0) return;
  std::memcpy(&tag, tag_bytes, sizeof tag);
  std::memcpy(&tag_mask, mask_bytes, sizeof tag_mask);
}

// --- send --------------------------------------------------------------------------------------------------------------------

// Where segments of this connection go, and what all of them have in common.
DropReason IpLayer::resolve(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, TimeNs now) {
  const Route* r = route_to(tuple.remote, local_port_index);
  if (r == nullptr) return DropReason::kNoRoute;
  hop.neighbor = neighbors_.find_or_create(r->port, r->direct ? tuple.remote : r->via, now);
  if (hop.neighbor == NeighborTable::kNone) return DropReason::kNeighborTableFull;
  hop.port = r->port;
  hop.generation = neighbors_.at(hop.neighbor).generation;
  hop.address_sum = wire::checksum_fold(wire::pseudo_header(tuple.local, tuple.remote, 0, 0));
  return DropReason::kNone;
}

// Ethernet and IP header of a frame of ours, as little-endian words; wire::EthernetRepr, Ipv4Repr and Ipv6Repr write the same, a
// test compares.
[[gnu::always_inline]] inline void IpLayer::write_link_and_ip(const Interface& i, bool v4, uint8_t* at,
                                                              const io::MacAddress& destination, const tcp::FourTuple& tuple,
                                                              uint16_t address_sum, uint32_t l4_length, wire::Ecn ecn) const {
  const Outgoing& o = i.outgoing[v4];
  std::memcpy(at, destination.data(), 6);
  std::memcpy(at + 6, &o.ethernet, 8);
  std::memcpy(at + 14, &o.tag_rest, 4);  // without a tag these bytes are IP's, written next
  uint8_t* l3 = at + o.l3_offset;
  if (v4) {
    const uint64_t tos = uint64_t{static_cast<uint8_t>(ecn)} << 8;
    const uint64_t total = __builtin_bswap16(static_cast<uint16_t>(wire::kIpv4Header + l4_length));
    const uint64_t sum = i.capabilities.tx_ip_checksum ? 0 : wire::checksum_finish(kIpv4Sum + address_sum + total + tos);
    const uint64_t first = kIpv4First | total << 16 | tos, second = kIpv4Second | sum << 16 | tuple.local.word(1) >> 32 << 32;
    std::memcpy(l3, &first, 8);
    std::memcpy(l3 + 8, &second, 8);
    std::memcpy(l3 + 16, tuple.remote.bytes.data() + 12, 4);
  } else {
    const uint64_t first = kIpv6First | uint64_t{static_cast<uint8_t>(ecn)} << 12 |
                           uint64_t{__builtin_bswap16(static_cast<uint16_t>(l4_length))} << 32;
    std::memcpy(l3, &first, 8);
    std::memcpy(l3 + 8, tuple.local.bytes.data(), 16);
    std::memcpy(l3 + 24, tuple.remote.bytes.data(), 16);
  }
}

// The ordinary case: a known neighbour, a header without options but timestamps, no more than one segment, and a port that
// completes the checksum.
DropReason IpLayer::send_tcp(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, const wire::TcpRepr& header,
                             const io::PacketQueue* payload, uint64_t payload_offset, uint32_t payload_length, TimeNs now,
                             uint32_t mss, wire::Ecn ecn) {
  if (hop.neighbor == NeighborTable::kNone) [[unlikely]]
    return send_any(tuple, local_port_index, hop, header, payload, payload_offset, payload_length, now, mss, ecn);
  const NeighborTable::Entry& neighbor = neighbors_.at(hop.neighbor);
  Interface& i = *interfaces_[hop.port];
  const bool v4 = tuple.local.is_v4();
  const Outgoing& o = i.outgoing[v4];
  const uint32_t tcp_header = wire::kTcpMinHeader + (header.timestamps ? wire::kTcpTimestampsLength : 0);
  const uint32_t l4_length = tcp_header + payload_length;
  if (neighbor.generation != hop.generation || now >= neighbor.fresh_until || !header.plain() || l4_length > o.max_l4 ||
      payload_length > mss || o.ol_flags == 0) [[unlikely]]
    return send_any(tuple, local_port_index, hop, header, payload, payload_offset, payload_length, now, mss, ecn);
  rte_mbuf* frame = i.tx.build(o.l4_offset + tcp_header, payload, payload_offset, payload_length);
  if (frame == nullptr) [[unlikely]]
    return DropReason::kTxNoMbuf;
  uint8_t* at = rte_pktmbuf_mtod(frame, uint8_t*);
  write_link_and_ip(i, v4, at, neighbor.mac, tuple, hop.address_sum, l4_length, ecn);
  header.emit_plain(at + o.l4_offset,
                    wire::checksum_fold(kTcpPseudo + hop.address_sum + __builtin_bswap16(static_cast<uint16_t>(l4_length))));
  frame->ol_flags = o.ol_flags;
  frame->tx_offload = o.tx_offload | uint64_t{tcp_header} << (RTE_MBUF_L2_LEN_BITS + RTE_MBUF_L3_LEN_BITS);
  i.tx.send(frame);
  return DropReason::kNone;
}

// Any segment.
DropReason IpLayer::send_any(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, const wire::TcpRepr& header,
                             const io::PacketQueue* payload, uint64_t payload_offset, uint32_t payload_length, TimeNs now,
                             uint32_t mss, wire::Ecn ecn) {
  if (hop.neighbor == NeighborTable::kNone || neighbors_.at(hop.neighbor).generation != hop.generation) {
    if (const DropReason why = resolve(tuple, local_port_index, hop, now); why != DropReason::kNone) {
      counters_.drop(why);
      return why;
    }
  }
  Interface& i = *interfaces_[hop.port];
  const bool v4 = tuple.local.is_v4();
  const Outgoing& o = i.outgoing[v4];
  const uint32_t ip_header = v4 ? wire::kIpv4Header : wire::kIpv6Header;
  const uint32_t tcp_header = header.header_length();
  const uint32_t l4_length = tcp_header + payload_length;
  const bool cut = payload_length > mss;
  if (cut ? ip_header + l4_length > UINT16_MAX || !i.capabilities.tso : l4_length > o.max_l4) {
    counters_.drop(DropReason::kTxTooBig);
    return DropReason::kTxTooBig;
  }
  rte_mbuf* frame = i.tx.build(o.l4_offset + tcp_header, payload, payload_offset, payload_length);
  if (frame == nullptr) return DropReason::kTxNoMbuf;
  // The destination of a neighbour that is not known yet is written when it is (learned()).
  const bool known = neighbors_.usable(hop.neighbor, now);
  uint8_t* at = rte_pktmbuf_mtod(frame, uint8_t*);
  write_link_and_ip(i, v4, at, neighbors_.at(hop.neighbor).mac, tuple, hop.address_sum, l4_length, ecn);
  uint8_t* l4 = at + o.l4_offset;
  header.emit(l4);

  // The sum that a port completes leaves the length out where it cuts, because each piece has its own; virtio wants it in.
  const bool no_length = cut && !i.capabilities.tso_sum_with_length;
  const wire::ChecksumSum pseudo =
      kTcpPseudo + hop.address_sum + (no_length ? 0 : __builtin_bswap16(static_cast<uint16_t>(l4_length)));
  if (i.capabilities.tx_tcp_checksum) {
    wire::store_checksum(l4 + wire::kTcpChecksumOffset, wire::checksum_fold(pseudo));
    frame->tx_offload = rte_mbuf_tx_offload(o.l3_offset, ip_header, tcp_header, cut ? mss : 0, 0, 0, 0);
    frame->ol_flags |= o.ol_flags | (cut ? RTE_MBUF_F_TX_TCP_SEG : 0);
  } else {
    uint32_t offset = frame->data_len - o.l4_offset;
    wire::ChecksumSum sum = pseudo + wire::checksum_sum({l4, offset});
    for (const rte_mbuf* s = frame->next; s != nullptr; s = s->next) {
      sum += wire::checksum_at(wire::checksum_sum({rte_pktmbuf_mtod(s, const uint8_t*), s->data_len}), offset);
      offset += s->data_len;
    }
    wire::store_checksum(l4 + wire::kTcpChecksumOffset, wire::checksum_finish(sum));
    if (v4 && i.capabilities.tx_ip_checksum) {
      frame->tx_offload = rte_mbuf_tx_offload(o.l3_offset, ip_header, 0, 0, 0, 0, 0);
      frame->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    }
  }
  if (known) {
    i.tx.send(frame);
  } else {
    neighbors_.enqueue(hop.neighbor, frame);
  }
  return DropReason::kNone;
}

void IpLayer::Outgoing::set(const io::PortCapabilities& c, const InterfaceConfig& config, bool v4) {
  uint8_t bytes[wire::kEthernetHeader + wire::kVlanTag] = {};
  const wire::EthernetRepr link{{}, c.mac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, config.vlan};
  l3_offset = link.emit(bytes);
  std::memcpy(&ethernet, bytes + 6, sizeof ethernet);
  std::memcpy(&tag_rest, bytes + 14, sizeof tag_rest);
  const uint32_t ip_header = v4 ? wire::kIpv4Header : wire::kIpv6Header;
  l4_offset = l3_offset + ip_header;
  max_l4 = config.mtu - ip_header;
  tx_offload = rte_mbuf_tx_offload(l3_offset, ip_header, 0, 0, 0, 0, 0);
  if (c.tx_tcp_checksum)
    ol_flags = (v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM |
               (v4 && c.tx_ip_checksum ? RTE_MBUF_F_TX_IP_CKSUM : 0);
}

bool IpLayer::can_cut(uint16_t port, const io::PacketQueue& payload, uint64_t offset, uint32_t length) const {
  const io::PortCapabilities& c = interfaces_[port]->capabilities;
  if (!c.tso || !c.tx_multi_segment) return false;
  uint32_t pieces = 1;  // the header
  payload.for_each(offset, length, [&](base::ByteSpan) { return ++pieces <= c.max_tx_segments; });
  return pieces <= c.max_tx_segments;
}

void IpLayer::run_timers(TimeNs now) {
  if (now < next_deadline()) return;  // every iteration of an idle loop
  if (now >= next_timer_) address_timers(now);
  NeighborProbe probes[16];
  uint32_t n;
  do {
    n = neighbors_.poll(now, probes);
    for (uint32_t p = 0; p < n; ++p) {
      if (probes[p].lost) router_lost(probes[p].port, probes[p].address, now);
      else solicit(probes[p]);
    }
  } while (n == std::size(probes));
}

void IpLayer::flush(TimeNs now) {
  for (auto& i : interfaces_)
    if (i->tx.waiting() > 0) i->tx.flush(now);
}

TimeNs IpLayer::tx_give_up_at() const {
  TimeNs first = base::kNever;
  for (const auto& i : interfaces_) first = std::min(first, i->tx.give_up_at());
  return first;
}

}  // namespace millrace::dataplane
