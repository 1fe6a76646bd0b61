// ARP, neighbour discovery and ICMP of the IP layer.
#include <cstring>

#include <rte_mbuf.h>

#include "dataplane/ip_layer.h"
#include "lib/wire/arp.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "lib/wire/nd.h"

namespace millrace::dataplane {

using base::IpAddress;
using stats::DropReason;
using wire::ParseError;

// A frame of our own with its Ethernet header written; returns where `length` bytes of payload go. Null when there is no packet
// (counted).
uint8_t* IpLayer::control_frame(uint16_t port, const wire::MacAddress& dst, uint16_t ether_type, uint32_t length,
                                rte_mbuf** frame) {
  Interface& i = *interfaces_[port];
  const wire::EthernetRepr ethernet{dst, i.capabilities.mac, ether_type, i.config.vlan};
  const uint32_t l2 = ethernet.header_length();
  *frame = i.tx.build(l2 + length, nullptr, 0, 0);
  if (*frame == nullptr) return nullptr;
  uint8_t* at = rte_pktmbuf_mtod(*frame, uint8_t*);
  ethernet.emit(at);
  return at + l2;
}

// Frames that waited for this neighbour go out now.
void IpLayer::learned(uint32_t slot) {
  if (slot == NeighborTable::kNone) return;
  rte_mbuf* frames[NeighborTable::kMaxQueued];
  const uint32_t n = neighbors_.take_frames(slot, frames);
  const NeighborTable::Entry& e = neighbors_.at(slot);
  if (routers_down_ > 0) router_found(e.port, e.address);
  for (uint32_t k = 0; k < n; ++k) {
    std::memcpy(rte_pktmbuf_mtod(frames[k], uint8_t*), e.mac.data(), 6);
    interfaces_[e.port]->tx.send(frames[k]);
  }
}

IpVerdict IpLayer::input_arp(Frame& f) {
  wire::ArpView arp;
  if (wire::ArpView::parse({rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + f.l3_offset, f.mbuf->data_len - f.l3_offset}, arp) !=
      ParseError::kNone) {
    return drop(f, DropReason::kArpMalformed);
  }
  const IpAddress sender = IpAddress::v4(arp.sender_ip), target = IpAddress::v4(arp.target_ip);
  const Local* to = local(target);
  const bool for_us = to != nullptr && to->port == f.port;
  // Somebody claims an address of ours: nothing is learned from that.
  if (arp.sender_ip != 0 && local(sender) != nullptr) {
    if (local(sender)->port == f.port && arp.sender_mac != interfaces_[f.port]->capabilities.mac) {
      defend(sender, f.now);
      return drop(f, DropReason::kAddressConflict);
    }
    return drop(f, DropReason::kIpBadSource);
  }
  // RFC 826: who asks for us is about to talk to us, so the entry is made; others only update an entry that is there. A neighbour
  // outside our prefixes is none (its packets come through a router).
  const Route* r = route_to(sender, f.port);
  const bool request = arp.operation == wire::ArpOperation::kRequest;
  const bool neighbor = arp.sender_ip != 0 && r != nullptr && r->direct && r->port == f.port;
  if (neighbor || neighbors_.find(f.port, sender) != NeighborTable::kNone) {
    const bool answer = !request && for_us && !wire::is_group(f.ethernet.dst);
    learned(neighbors_.learn(f.port, sender, arp.sender_mac, for_us && neighbor && request,
                             answer ? Evidence::kAnswered : Evidence::kHeard, f.now));
    neighbor_news_ = true;
  }
  if (!request || !for_us) offer_to_host(f);  // it has neighbours, and maybe addresses, of its own
  if (request && !for_us) {
    if (arp.is_gratuitous() || config_.exception != nullptr) return done(f);
    return drop(f, DropReason::kArpNotOurs);
  }
  if (request && !f.learn_only) {
    rte_mbuf* frame = nullptr;
    if (uint8_t* at = control_frame(f.port, arp.sender_mac, wire::kEtherArp, wire::kArpLength, &frame)) {
      wire::ArpRepr reply;
      reply.operation = wire::ArpOperation::kReply;
      reply.sender_mac = interfaces_[f.port]->capabilities.mac;
      reply.sender_ip = arp.target_ip;
      reply.target_mac = arp.sender_mac;
      reply.target_ip = arp.sender_ip;
      reply.emit(at);
      interfaces_[f.port]->tx.send(frame);
    }
  }
  return done(f);
}

IpVerdict IpLayer::input_nd(Frame& f, const IpAddress& src, const IpAddress& dst, uint8_t hop_limit, base::ByteSpan message) {
  wire::NdView nd;
  switch (wire::NdView::parse(message, src, dst, hop_limit, true, nd)) {
    case ParseError::kNone:
      break;
    case ParseError::kUnsupported:
      return not_ours(f, DropReason::kIcmpIgnored);
    default:
      return drop(f, DropReason::kNdMalformed);
  }
  if (nd.type != wire::NdType::kNeighborAdvertisement && !src.is_unspecified() && local(src) != nullptr)
    return drop(f, DropReason::kIpBadSource);
  if (nd.type == wire::NdType::kNeighborSolicitation) return input_solicitation(f, nd, src);
  if (nd.type == wire::NdType::kNeighborAdvertisement) return input_advertisement(f, nd);
  return not_ours(f, DropReason::kIcmpIgnored);  // routers are configured, not discovered
}

IpVerdict IpLayer::input_solicitation(Frame& f, const wire::NdView& nd, const IpAddress& src) {
  const bool dad = src.is_unspecified();
  if (const uint32_t n = address_index(f.port, nd.target, AddressState::kTentative); n != UINT32_MAX) {
    // RFC 4862 5.4.3: somebody asks for the address that we ask for, and neither may have it. A copy of our own question says
    // nothing.
    neighbor_news_ = dad;
    if (!dad || f.ethernet.src == interfaces_[f.port]->capabilities.mac) return drop(f, DropReason::kArpNotOurs);
    found_duplicate(n);
    return done(f);
  }
  const Local* to = local(nd.target);
  if (to == nullptr || to->port != f.port) return not_ours(f, DropReason::kArpNotOurs);
  // RFC 4861 7.2.3: create or update from the source link-layer address option; without one the frame's source serves for the
  // answer.
  if (!dad && nd.source_mac) {
    learned(neighbors_.learn(f.port, src, *nd.source_mac, true, Evidence::kHeard, f.now));
    neighbor_news_ = true;
  }
  if (f.learn_only) return done(f);
  wire::NdRepr na;
  na.type = wire::NdType::kNeighborAdvertisement;
  na.target = nd.target;
  na.solicited = !dad;
  na.override_flag = true;
  na.mac = interfaces_[f.port]->capabilities.mac;
  // RFC 4861 7.2.4: who has no address yet (duplicate address detection) is answered through all nodes.
  const IpAddress to_ip = dad ? wire::all_nodes_group() : src;
  send_nd(f.port, na, nd.target, to_ip, dad ? wire::multicast_mac_v6(to_ip) : nd.source_mac.value_or(f.ethernet.src));
  return done(f);
}

// RFC 4861 7.2.5.
IpVerdict IpLayer::input_advertisement(Frame& f, const wire::NdView& nd) {
  if (local(nd.target) == nullptr) offer_to_host(f);  // it asks for neighbours of its own
  if (const uint32_t n = address_index(f.port, nd.target, AddressState::kTentative); n != UINT32_MAX) {  // RFC 4862 5.4.4
    found_duplicate(n);
    neighbor_news_ = true;
    return done(f);
  }
  if (const Local* mine = local(nd.target); mine != nullptr) {
    if (mine->port != f.port || nd.target_mac.value_or(f.ethernet.src) == interfaces_[f.port]->capabilities.mac)
      return drop(f, DropReason::kIcmpIgnored);
    defend(nd.target, f.now);
    return drop(f, DropReason::kAddressConflict);
  }
  const uint32_t slot = neighbors_.find(f.port, nd.target);
  if (slot == NeighborTable::kNone) return drop(f, DropReason::kIcmpIgnored);
  const NeighborTable::Entry& e = neighbors_.at(slot);
  const bool incomplete = e.state == NeighborState::kIncomplete;
  if (incomplete && !nd.target_mac && !nd.solicited) return drop(f, DropReason::kIcmpIgnored);
  const wire::MacAddress mac = nd.target_mac.value_or(incomplete ? f.ethernet.src : e.mac);
  neighbor_news_ = true;
  if (!incomplete && !nd.override_flag && mac != e.mac) {
    neighbors_.doubt(slot, f.now);
    return drop(f, DropReason::kIcmpIgnored);
  }
  learned(neighbors_.learn(f.port, nd.target, mac, false, nd.solicited ? Evidence::kAnswered : Evidence::kHeard, f.now));
  return done(f);
}

// A solicitation or advertisement of ours.
void IpLayer::send_nd(uint16_t port, const wire::NdRepr& nd, const IpAddress& src, const IpAddress& dst,
                      const wire::MacAddress& to) {
  rte_mbuf* frame = nullptr;
  uint8_t* at = control_frame(port, to, wire::kEtherIpv6, wire::kIpv6Header + nd.length(), &frame);
  if (at == nullptr) return;
  wire::Ipv6Repr ip;
  ip.src = src;
  ip.dst = dst;
  ip.next_header = wire::kIpIcmpv6;
  ip.hop_limit = wire::kNdHopLimit;
  ip.payload_length = static_cast<uint16_t>(nd.length());
  ip.emit(at);
  nd.emit(at + wire::kIpv6Header, src, dst);
  interfaces_[port]->tx.send(frame);
}

IpVerdict IpLayer::input_icmp(Frame& f, const wire::IcmpView& icmp, const IpAddress& src, const IpAddress& dst,
                              uint16_t local_port, uint32_t l4_offset, uint32_t l4_length, TcpPacket& tcp, IcmpError& error) {
  switch (icmp.kind) {
    case wire::IcmpKind::kEchoRequest: {
      if (!icmp_limit_.take(f.now)) return drop(f, DropReason::kIcmpRateLimited);
      Interface& i = *interfaces_[f.port];
      // The reply goes back the way the request came, in the same packet: headers rewritten, data as it is (RFC 1122 3.2.2.6).
      const uint32_t ip_header = dst.is_v4() ? wire::kIpv4Header : wire::kIpv6Header;
      const wire::EthernetRepr ethernet{f.ethernet.src, i.capabilities.mac, f.ethernet.ether_type, i.config.vlan};
      const uint32_t front = ethernet.header_length() + ip_header;
      rte_mbuf* m = f.mbuf;
      if (m->nb_segs > 1) return drop(f, DropReason::kIcmpIgnored);
      if (ip_header + l4_length > i.config.mtu) {  // the request came in fragments, and so goes the reply
        uint8_t* request = rte_pktmbuf_mtod(m, uint8_t*) + l4_offset;
        dst.is_v4() ? wire::make_echo_reply_v4({request, l4_length}) : wire::make_echo_reply_v6({request, l4_length});
        send_fragments(i, f.ethernet.src, dst, src, dst.is_v4() ? wire::kIpIcmp : wire::kIpIcmpv6, {request, l4_length});
        return done(f);
      }
      if (rte_mbuf_refcnt_read(m) != 1 || l4_offset + rte_pktmbuf_headroom(m) < front) return drop(f, DropReason::kIcmpIgnored);
      m->data_off =
          static_cast<uint16_t>(m->data_off + l4_offset - front);  // IP options are not returned; a stripped tag is put back
      m->data_len = static_cast<uint16_t>(front + l4_length);
      m->pkt_len = m->data_len;
      m->ol_flags = 0;
      uint8_t* at = rte_pktmbuf_mtod(m, uint8_t*);
      const base::MutableByteSpan message{at + front, l4_length};
      ethernet.emit(at);
      if (dst.is_v4()) {
        wire::Ipv4Repr ip;
        ip.src = dst.v4_host_order();
        ip.dst = src.v4_host_order();
        ip.protocol = wire::kIpIcmp;
        ip.dont_fragment = false;
        ip.payload_length = static_cast<uint16_t>(l4_length);
        ip.emit(at + front - ip_header);
        wire::make_echo_reply_v4(message);
      } else {
        wire::Ipv6Repr ip;
        ip.src = dst;
        ip.dst = src;
        ip.next_header = wire::kIpIcmpv6;
        ip.payload_length = static_cast<uint16_t>(l4_length);
        ip.emit(at + front - ip_header);
        wire::make_echo_reply_v6(message);
      }
      i.tx.send(m);
      return IpVerdict::kConsumed;
    }
    case wire::IcmpKind::kTimeExceeded:      // soft errors (RFC 1122 4.2.3.9)
    case wire::IcmpKind::kParameterProblem:  //
    case wire::IcmpKind::kUnreachable:
    case wire::IcmpKind::kPacketTooBig: {
      const wire::QuotedPacket& q = icmp.quote;
      if (!icmp.has_quote || q.protocol != wire::kIpTcp || !q.has_ports || !q.has_seq || q.src != dst)
        return not_ours(f, DropReason::kIcmpIgnored);
      if (config_.exception != nullptr && config_.exception->wants(wire::kIpTcp, q.src_port, q.dst_port)) offer_to_host(f);
      const bool too_big = icmp.kind == wire::IcmpKind::kPacketTooBig;
      error.kind = too_big ? IcmpError::Kind::kTooBig : IcmpError::Kind::kUnreachable;
      // RFC 1122 4.2.3.9: codes 2..4 of v4 are hard; of v6 administratively prohibited and port unreachable (RFC 4443 3.1).
      error.hard = icmp.kind == wire::IcmpKind::kUnreachable &&
                   (dst.is_v4() ? icmp.code == 2 || icmp.code == 3 || icmp.code == 9 || icmp.code == 10 || icmp.code == 13
                                : icmp.code == 1 || icmp.code == 4);
      error.mtu = static_cast<uint16_t>(std::min<uint32_t>(icmp.mtu, UINT16_MAX));
      error.tuple = {q.src, q.dst, q.src_port, q.dst_port};
      error.seq = q.seq;
      error.port = local_port;
      tcp.frame = f.mbuf;
      tcp.arrival_port = interfaces_[f.port]->device;
      return IpVerdict::kIcmpError;
    }
    default:
      return not_ours(f, DropReason::kIcmpIgnored);
  }
}

void IpLayer::send_icmp_error(const Frame& f, const IpAddress& src, const IpAddress& dst, uint8_t type, uint8_t code,
                              uint32_t parameter) {
  if (!icmp_limit_.take(f.now)) return counters_.drop(DropReason::kIcmpRateLimited);
  const uint8_t* packet = rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + f.l3_offset;
  const bool v4 = dst.is_v4();
  // What is quoted ends with the packet, not with Ethernet's padding.
  const uint32_t whole = v4 ? base::load_be16(packet + 2) : wire::kIpv6Header + base::load_be16(packet + 4);
  const wire::IcmpErrorRepr error{type, code, parameter, {packet, std::min<uint32_t>(whole, f.mbuf->data_len - f.l3_offset)}};
  const uint32_t length = v4 ? error.length_v4() : error.length_v6();
  const uint32_t header = v4 ? wire::kIpv4Header : wire::kIpv6Header;
  // Back the way the packet came: whoever handed it to us knows the way to its sender.
  Interface& i = *interfaces_[f.port];
  const wire::EthernetRepr ethernet{f.ethernet.src, i.capabilities.mac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, i.config.vlan};
  io::PacketPtr frame = pools_.payload.alloc();  // it may be long; nobody is in need of it
  if (!frame) return counters_.drop(DropReason::kTxNoMbuf);
  uint8_t* at = frame.append(ethernet.header_length() + header + length);
  at += ethernet.emit(at);
  if (v4) {
    wire::Ipv4Repr ip;
    ip.src = dst.v4_host_order();
    ip.dst = src.v4_host_order();
    ip.protocol = wire::kIpIcmp;
    ip.tos = 0xc0;  // internetwork control (RFC 1812 4.3.2.5)
    ip.payload_length = static_cast<uint16_t>(length);
    ip.emit(at);
    error.emit_v4(at + header);
  } else {
    wire::Ipv6Repr ip;
    ip.src = dst;
    ip.dst = src;
    ip.next_header = wire::kIpIcmpv6;
    ip.payload_length = static_cast<uint16_t>(length);
    ip.emit(at);
    error.emit_v6(at + header, dst, src);
  }
  i.tx.send(std::move(frame));
}

void IpLayer::solicit(const NeighborProbe& probe) {
  Interface& i = *interfaces_[probe.port];
  const IpAddress* from = address_towards(probe.port, probe.address);
  if (from == nullptr) return;
  if (!probe.address.is_v4()) {
    wire::NdRepr ns;
    ns.type = wire::NdType::kNeighborSolicitation;
    ns.target = probe.address;
    ns.mac = i.capabilities.mac;
    const IpAddress to = probe.unicast ? probe.address : wire::solicited_node_group(probe.address);
    return send_nd(probe.port, ns, *from, to, probe.unicast ? probe.mac : wire::multicast_mac_v6(to));
  }
  rte_mbuf* frame = nullptr;
  uint8_t* at =
      control_frame(probe.port, probe.unicast ? probe.mac : wire::kBroadcastMac, wire::kEtherArp, wire::kArpLength, &frame);
  if (at == nullptr) return;
  wire::ArpRepr arp;
  arp.operation = wire::ArpOperation::kRequest;
  arp.sender_mac = i.capabilities.mac;
  arp.sender_ip = from->v4_host_order();
  arp.target_ip = probe.address.v4_host_order();
  arp.emit(at);
  i.tx.send(frame);
}

}  // namespace millrace::dataplane
