#include "dataplane/ip_layer.h"

#include <bit>

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

// Sources that nobody can have (RFC 1122 3.2.1.3, RFC 4291 2.7).
bool bad_source_v4(uint32_t a) {
  return (a >> 28) >= 14 || (a >> 24) == 127 || (a >> 24) == 0;  // groups, class E, broadcast, loopback, "this network"
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

uint32_t table_size(size_t entries) {
  uint32_t n = 4;
  while (n < entries * 2) n *= 2;
  return n;
}

}  // namespace

base::ByteSpan IpLayer::Frame::l3() const {
  return {rte_pktmbuf_mtod(mbuf, const uint8_t*) + l3_offset, mbuf->pkt_len - l3_offset};
}

IpLayer::IpLayer(const IpLayerConfig& config, std::span<io::PortQueue* const> ports, io::TxPools pools,
                 const StackCounters& counters, TimeNs now)
    : config_(config),
      counters_(counters),
      neighbors_(config.max_neighbors, config.seed, counters.drops),
      icmp_limit_(config.max_icmp_per_second, now) {
  MILLRACE_ASSERT(ports.size() == config.ports.size() && ports.size() <= io::kMaxPorts, "one queue for each configured port");
  size_t addresses = 0;
  for (uint16_t p = 0; p < ports.size(); ++p) {
    const InterfaceConfig& c = config.ports[p];
    ports[p]->count_drops_in(counters.drops);
    interfaces_.push_back(std::make_unique<Interface>(c, *ports[p], pools, counters, p));
    for (const InterfaceAddress& a : c.addresses) routes_.push_back({a.address, {}, a.prefix_bits, true, p});
    for (const InterfaceRoute& r : c.routes) routes_.push_back({r.network, r.via, r.prefix_bits, false, p});
    for (const StaticNeighbor& n : c.neighbors) neighbors_.add_static(p, n.address, n.mac, now);
    addresses += c.addresses.size();
  }
  std::stable_sort(routes_.begin(), routes_.end(), [](const Route& a, const Route& b) { return a.bits > b.bits; });
  locals_.resize(table_size(addresses));
  for (uint16_t p = 0; p < ports.size(); ++p) {
    for (const InterfaceAddress& a : config.ports[p].addresses) {
      uint32_t i = static_cast<uint32_t>(flow_hash(0, a.address, 0, a.address, 0)) & static_cast<uint32_t>(locals_.size() - 1);
      while (locals_[i].used && !(locals_[i].address == a.address)) i = (i + 1) & static_cast<uint32_t>(locals_.size() - 1);
      if (!locals_[i].used) locals_[i] = {a.address, p, true};
    }
  }
  if (config.worker == 0 && addresses > 0) {
    announcements_left_ = kAnnouncements;
    announce_at_ = now;
  }
}

const IpLayer::Local* IpLayer::local(const IpAddress& a) const {
  const uint32_t mask = static_cast<uint32_t>(locals_.size() - 1);
  for (uint32_t i = static_cast<uint32_t>(flow_hash(0, a, 0, a, 0)) & mask; locals_[i].used; i = (i + 1) & mask)
    if (locals_[i].address == a) return &locals_[i];
  return nullptr;
}

std::optional<uint16_t> IpLayer::port_of(const IpAddress& a) const {
  const Local* l = local(a);
  return l == nullptr ? std::nullopt : std::optional<uint16_t>(l->port);
}

// Longest prefix; among equals the preferred port, then the first. Few routes, and connections keep what was found (NextHop).
const IpLayer::Route* IpLayer::route_to(const IpAddress& remote, uint16_t preferred_port) const {
  const Route* best = nullptr;
  for (const Route& r : routes_) {
    if (best != nullptr && r.bits < best->bits) break;
    if (r.network.is_v4() != remote.is_v4() || !remote.in_prefix(r.network, r.bits)) continue;
    if (best == nullptr || (r.port == preferred_port && best->port != preferred_port)) best = &r;
  }
  return best;
}

// The address of `port` that a neighbour sees as its own kind: of the same prefix, else the first of the family. Null: none of
// the family.
const IpAddress* IpLayer::address_towards(uint16_t port, const IpAddress& neighbor) const {
  const IpAddress* first = nullptr;
  for (const InterfaceAddress& a : interfaces_[port]->config.addresses) {
    if (a.address.is_v4() != neighbor.is_v4()) continue;
    if (neighbor.in_prefix(a.address, a.prefix_bits)) return &a.address;
    if (first == nullptr) first = &a.address;
  }
  return first;
}

std::optional<IpLayer::Source> IpLayer::source_for(const IpAddress& remote) const {
  if (local(remote) != nullptr) return std::nullopt;  // ourselves: there is no loopback
  const Route* r = route_to(remote, UINT16_MAX);
  if (r == nullptr) return std::nullopt;
  const IpAddress* a = address_towards(r->port, r->direct ? remote : r->via);
  if (a == nullptr) return std::nullopt;
  return Source{*a, r->port};
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

IpVerdict IpLayer::input(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error) {
  neighbor_news_ = false;
  Interface& i = *interfaces_[port];
  Frame f;
  f.mbuf = frame;
  f.port = port;
  f.now = now;
  f.learn_only = learn_only;
  const base::ByteSpan bytes{rte_pktmbuf_mtod(frame, const uint8_t*), frame->data_len};
  switch (wire::EthernetView::parse(bytes, f.ethernet)) {
    case ParseError::kNone:
      break;
    case ParseError::kUnsupported:
      return drop(f, DropReason::kEthUnknownType);
    case ParseError::kBadHeader:
      return drop(f, DropReason::kEthNotOurs);
    default:
      return drop(f, DropReason::kEthTruncated);
  }
  if (!addressed_to_us(i, f.ethernet.dst)) return drop(f, DropReason::kEthNotOurs);
  uint16_t vlan = f.ethernet.vlan_id;
  if (vlan == 0 && (frame->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0)
    vlan = frame->vlan_tci & 0xfff;  // the port took the tag out
  if (vlan != i.config.vlan) return drop(f, DropReason::kVlanUnknown);
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
      return drop(f, DropReason::kEthUnknownType);
  }
}

IpVerdict IpLayer::input_v4(Frame& f, TcpPacket& tcp, IcmpError& error) {
  if (f.learn_only) return done(f);
  Interface& i = *interfaces_[f.port];
  const bool good = i.capabilities.rx_ip_checksum && i.marks_to_verify == 0 &&
                    (f.mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
  wire::Ipv4View ip;
  if (const ParseError e = wire::Ipv4View::parse(f.l3(), !good, ip); e != ParseError::kNone) {
    if (e == ParseError::kFragment && local(IpAddress::v4(ip.dst)) == nullptr) return drop(f, DropReason::kIpNotOurs);
    return drop(f, ip_reason(e));
  }
  const IpAddress src = IpAddress::v4(ip.src), dst = IpAddress::v4(ip.dst);
  const Local* to = local(dst);
  if (to == nullptr || wire::is_group(f.ethernet.dst)) return drop(f, DropReason::kIpNotOurs);
  if (bad_source_v4(ip.src) || local(src) != nullptr) return drop(f, DropReason::kIpBadSource);
  const uint32_t l4_offset = f.l3_offset + ip.payload_offset;
  switch (ip.protocol) {
    case wire::kIpTcp:
      return input_tcp(f, src, dst, to->port, l4_offset, ip.payload_length, ip.tos & 3, tcp);
    case wire::kIpIcmp: {
      if (f.mbuf->nb_segs > 1) return drop(f, DropReason::kIcmpIgnored);
      wire::IcmpView icmp;
      const base::ByteSpan message = f.l3().subspan(ip.payload_offset, ip.payload_length);
      if (wire::IcmpView::parse_v4(message, true, icmp) != ParseError::kNone) return drop(f, DropReason::kIcmpMalformed);
      return input_icmp(f, icmp, src, dst, to->port, l4_offset, ip.payload_length, error);
    }
    default:
      return drop(f, DropReason::kIpUnknownProtocol);
  }
}

IpVerdict IpLayer::input_v6(Frame& f, TcpPacket& tcp, IcmpError& error) {
  wire::Ipv6View ip;
  const ParseError e = wire::Ipv6View::parse(f.l3(), ip);
  if (e == ParseError::kFragment && local(ip.dst) == nullptr) return drop(f, DropReason::kIpNotOurs);
  if (e != ParseError::kNone) return drop(f, ip_reason(e));
  const base::ByteSpan message = f.l3().subspan(ip.payload_offset, ip.payload_length);
  if (ip.next_header == wire::kIpIcmpv6 && !message.empty() && message[0] >= 133 && message[0] <= 137) {
    if (f.mbuf->nb_segs > 1) return drop(f, DropReason::kNdMalformed);
    return input_nd(f, ip.src, ip.dst, ip.hop_limit, message);
  }
  if (f.learn_only) return done(f);
  const Local* to = local(ip.dst);
  if (to == nullptr || wire::is_group(f.ethernet.dst)) return drop(f, DropReason::kIpNotOurs);
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
      return input_icmp(f, icmp, ip.src, ip.dst, to->port, l4_offset, ip.payload_length, error);
    }
    default:
      return drop(f, DropReason::kIpUnknownProtocol);
  }
}

IpVerdict IpLayer::input_tcp(Frame& f, const IpAddress& src, const IpAddress& dst, uint16_t local_port, uint32_t l4_offset,
                             uint32_t l4_length, uint8_t ecn, TcpPacket& tcp) {
  if (l4_length < wire::kTcpMinHeader) return drop(f, DropReason::kTcpTruncated);
  if (!tcp_checksum_ok(*interfaces_[f.port], f.mbuf, l4_offset, src, dst, l4_length)) return drop(f, DropReason::kTcpBadChecksum);
  tcp.frame = f.mbuf;
  tcp.local = dst;
  tcp.remote = src;
  tcp.arrival_port = f.port;
  tcp.local_port_index = local_port;
  tcp.l4_offset = static_cast<uint16_t>(l4_offset);
  tcp.l4_length = static_cast<uint16_t>(l4_length);
  tcp.ecn = ecn;
  return IpVerdict::kTcp;
}

// Three states of a mark: good is believed (after the first kMarksToVerify, which are checked), unknown and bad are computed.
bool IpLayer::tcp_checksum_ok(Interface& i, const rte_mbuf* m, uint32_t l4_offset, const IpAddress& src, const IpAddress& dst,
                              uint32_t l4_length) {
  const bool marked_good =
      i.capabilities.rx_tcp_checksum && (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD;
  if (marked_good && i.marks_to_verify == 0) [[likely]]
    return true;
  const wire::ChecksumSum pseudo = wire::pseudo_header(src, dst, wire::kIpTcp, l4_length);
  wire::ChecksumSum sum = pseudo;
  uint32_t left = l4_length, done = 0, skip = l4_offset;
  for (const rte_mbuf* s = m; s != nullptr && left > 0; s = s->next) {
    const uint32_t n = std::min<uint32_t>(left, s->data_len - skip);
    sum += wire::checksum_at(wire::checksum_sum({rte_pktmbuf_mtod(s, const uint8_t*) + skip, n}), done);
    left -= n;
    done += n;
    skip = 0;
  }
  const bool ok = left == 0 && wire::checksum_ok(sum);
  if (marked_good) {
    if (!ok) {
      i.capabilities.rx_ip_checksum = i.capabilities.rx_tcp_checksum = false;  // the port's word is worth nothing
      return false;
    }
    --i.marks_to_verify;
    return true;
  }
  if (ok) return true;
  // A peer on this host may leave the sum to a device that is not there: then the field holds the pseudo-header's sum,
  // uncomplemented.
  if (!i.capabilities.partial_rx_checksum) return false;
  const uint16_t field =
      base::load_unaligned<uint16_t>(rte_pktmbuf_mtod(m, const uint8_t*) + l4_offset + wire::kTcpChecksumOffset);
  return field == wire::checksum_fold(pseudo);
}

// --- send --------------------------------------------------------------------------------------------------------------------

DropReason IpLayer::send_tcp(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, const wire::TcpRepr& header,
                             const io::PacketQueue* payload, uint64_t payload_offset, uint32_t payload_length, TimeNs now,
                             uint32_t mss) {
  if (hop.neighbor == NeighborTable::kNone || neighbors_.at(hop.neighbor).generation != hop.generation) {
    const Route* r = route_to(tuple.remote, local_port_index);
    if (r == nullptr) {
      counters_.drop(DropReason::kNoRoute);
      return DropReason::kNoRoute;
    }
    hop.neighbor = neighbors_.find_or_create(r->port, r->direct ? tuple.remote : r->via, now);
    if (hop.neighbor == NeighborTable::kNone) {
      counters_.drop(DropReason::kNeighborTableFull);
      return DropReason::kNeighborTableFull;
    }
    hop.port = r->port;
    hop.generation = neighbors_.at(hop.neighbor).generation;
  }
  Interface& i = *interfaces_[hop.port];
  const bool v4 = tuple.local.is_v4();
  const uint32_t ip_header = v4 ? wire::kIpv4Header : wire::kIpv6Header;
  const uint32_t tcp_header = header.header_length();
  const uint32_t l4_length = tcp_header + payload_length;
  const bool cut = payload_length > mss;
  if (ip_header + l4_length > (cut ? UINT16_MAX : i.config.mtu) || (cut && !i.capabilities.tso)) {
    counters_.drop(DropReason::kTxTooBig);
    return DropReason::kTxTooBig;
  }
  wire::EthernetRepr ethernet{{}, i.capabilities.mac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, i.config.vlan};
  const uint32_t l2 = ethernet.header_length();
  rte_mbuf* frame = i.tx.build(l2 + ip_header + tcp_header, payload, payload_offset, payload_length);
  if (frame == nullptr) return DropReason::kTxNoMbuf;

  uint8_t* at = rte_pktmbuf_mtod(frame, uint8_t*);
  const bool known = neighbors_.usable(hop.neighbor, now);
  if (known) ethernet.dst = neighbors_.at(hop.neighbor).mac;
  ethernet.emit(at);
  uint8_t* l3 = at + l2;
  if (v4) {
    wire::Ipv4Repr ip;
    ip.src = tuple.local.v4_host_order();
    ip.dst = tuple.remote.v4_host_order();
    ip.protocol = wire::kIpTcp;
    ip.payload_length = static_cast<uint16_t>(l4_length);
    ip.emit(l3, !i.capabilities.tx_ip_checksum);
  } else {
    wire::Ipv6Repr ip;
    ip.src = tuple.local;
    ip.dst = tuple.remote;
    ip.next_header = wire::kIpTcp;
    ip.payload_length = static_cast<uint16_t>(l4_length);
    ip.emit(l3);
  }
  uint8_t* l4 = l3 + ip_header;
  header.emit(l4);

  // The sum that a port completes leaves the length out where it cuts: each piece has its own.
  wire::ChecksumSum sum = wire::pseudo_header(tuple.local, tuple.remote, wire::kIpTcp, cut ? 0 : l4_length);
  if (i.capabilities.tx_tcp_checksum) {
    wire::store_checksum(l4 + wire::kTcpChecksumOffset, wire::checksum_fold(sum));
    frame->l2_len = l2;
    frame->l3_len = ip_header;
    frame->l4_len = tcp_header;
    frame->ol_flags |= (v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM |
                       (v4 && i.capabilities.tx_ip_checksum ? RTE_MBUF_F_TX_IP_CKSUM : 0);
    if (cut) {
      frame->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
      frame->tso_segsz = static_cast<uint16_t>(mss);
    }
  } else {
    sum += wire::checksum_sum({l4, frame->data_len - l2 - ip_header});
    uint32_t offset = frame->data_len - l2 - ip_header;
    for (const rte_mbuf* s = frame->next; s != nullptr; s = s->next) {
      sum += wire::checksum_at(wire::checksum_sum({rte_pktmbuf_mtod(s, const uint8_t*), s->data_len}), offset);
      offset += s->data_len;
    }
    wire::store_checksum(l4 + wire::kTcpChecksumOffset, wire::checksum_finish(sum));
    if (v4 && i.capabilities.tx_ip_checksum) {
      frame->l2_len = l2;
      frame->l3_len = ip_header;
      frame->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    }
  }
  if (known) [[likely]] {
    i.tx.send(frame);
  } else {
    neighbors_.enqueue(hop.neighbor, frame);
  }
  return DropReason::kNone;
}

bool IpLayer::can_cut(uint16_t port, const io::PacketQueue& payload, uint64_t offset, uint32_t length) const {
  const io::PortCapabilities& c = interfaces_[port]->capabilities;
  if (!c.tso || !c.tx_multi_segment) return false;
  uint32_t pieces = 1;  // the header
  payload.for_each(offset, length, [&](base::ByteSpan) { return ++pieces <= c.max_tx_segments; });
  return pieces <= c.max_tx_segments;
}

void IpLayer::run_timers(TimeNs now) {
  if (now >= announce_at_) {
    announce();
    announce_at_ = --announcements_left_ == 0 ? base::kNever : now + kAnnounceInterval;
  }
  NeighborProbe probes[16];
  uint32_t n;
  do {
    n = neighbors_.poll(now, probes);
    for (uint32_t p = 0; p < n; ++p) solicit(probes[p]);
  } while (n == std::size(probes));
}

void IpLayer::flush() {
  for (auto& i : interfaces_)
    if (i->tx.waiting() > 0) i->tx.flush();
}

}  // namespace millrace::dataplane
