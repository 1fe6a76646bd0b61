#include "perf/load/wire.h"

#include <algorithm>

#include "lib/base/assert.h"
#include "lib/wire/arp.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/icmp.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "lib/wire/nd.h"

namespace millrace::load {

// --- AddressBook ------------------------------------------------------------------------------------------------------------

AddressBook::AddressBook(uint32_t own) : addresses_(own + kForeign) {
  uint32_t n = 1;
  while (n < 2 * addresses_.size()) n *= 2;
  slots_.resize(n);
}

uint32_t AddressBook::slot_of(const uint8_t* a) const {
  uint64_t h = (base::load_unaligned<uint64_t>(a) * 0x9e3779b97f4a7c15) ^ base::load_unaligned<uint64_t>(a + 8);
  h ^= h >> 32;  // the last bytes of an address, in which neighbours differ, are the highest bits here, and a product only
                 // carries upwards
  h *= 0x9fb21c651e98df25;
  uint32_t at = static_cast<uint32_t>(h >> 32) & static_cast<uint32_t>(slots_.size() - 1);
  while (slots_[at] != 0 && std::memcmp(addresses_[slots_[at] - 1].data(), a, 16) != 0)
    at = (at + 1) & static_cast<uint32_t>(slots_.size() - 1);
  return at;
}

AddressId AddressBook::find(const uint8_t* a) const {
  const uint32_t s = slots_[slot_of(a)];
  return s == 0 ? kNoAddress : s - 1;
}

AddressId AddressBook::intern(const uint8_t* a) {
  const uint32_t at = slot_of(a);
  if (slots_[at] != 0) return slots_[at] - 1;
  if (count_ == addresses_.size()) return kNoAddress;
  std::memcpy(addresses_[count_].data(), a, 16);
  slots_[at] = ++count_;
  return count_ - 1;
}

// --- OwnAddresses -----------------------------------------------------------------------------------------------------------

void OwnAddresses::add(const base::IpAddress& first, uint32_t count) {
  base::IpAddress last = first;
  uint64_t carry = count - 1;
  for (int i = 15; i >= 0 && carry != 0; --i) {
    carry += last.bytes[static_cast<size_t>(i)];
    last.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(carry);
    carry >>= 8;
  }
  ranges_.push_back({first, last});
}

bool OwnAddresses::contains(const base::IpAddress& a) const {
  return everything_ || std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) { return r.first <= a && a <= r.last; });
}

// --- Wire -------------------------------------------------------------------------------------------------------------------

Wire::Wire(io::PortQueue& port, io::PacketPool packets, const WireOptions& options, const OwnAddresses& own, AddressBook* book,
           Counters& counters, double loss, uint64_t seed)
    : port_(port),
      packets_(packets),
      options_(options),
      own_(own),
      book_(book),
      counters_(counters),
      loss_(static_cast<uint32_t>(loss * 1e6)),
      random_(seed),
      tx_checksum_(port.capabilities().tx_tcp_checksum),
      partial_checksum_(port.capabilities().partial_rx_checksum),
      tso_with_length_(port.capabilities().tso_sum_with_length),
      max_payload_(port.capabilities().tso && port.capabilities().tx_multi_segment
                       ? std::min<uint32_t>(65'535 - 60 - 60, (port.capabilities().max_tx_segments - 1u) * packets.data_room())
                       : 0),
      queue_(std::make_unique<rte_mbuf*[]>(kQueue)) {
  std::memcpy(ethernet_.data() + 6, port.capabilities().mac.data(), 6);
  reference_.free_cb = [](void*, void*) {};
  reference_.fcb_opaque = nullptr;
  rte_mbuf_ext_refcnt_set(&reference_, 1);  // ours: it never reaches 0
}

Wire::~Wire() {
  for (; head_ != tail_; ++head_) rte_pktmbuf_free(queue_[head_ & (kQueue - 1)]);
}

void Wire::forward(rte_mbuf* m) {
  const uint64_t mark = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  const uint8_t* p = rte_pktmbuf_mtod(m, const uint8_t*);
  const bool v4 = p[12] == 0x08;
  const uint32_t l3 = v4 ? (p[14] & 15u) * 4 : 40;
  m->ol_flags = 0;
  if (mark == RTE_MBUF_F_RX_L4_CKSUM_NONE && tx_checksum_ && p[v4 ? 23 : 20] == wire::kIpTcp) {
    m->l2_len = 14;
    m->l3_len = l3;
    m->l4_len = 20;
    m->ol_flags = (v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) | RTE_MBUF_F_TX_TCP_CKSUM;
  }
  send(m);
}

void Wire::flush() {
  while (head_ != tail_) {
    const uint32_t at = head_ & (kQueue - 1);
    // With loss of our own making frames go one by one.
    const uint32_t run = loss_ != 0 ? 1 : std::min({tail_ - head_, kQueue - at, uint32_t{kBurst}});
    uint64_t bytes = 0;
    uint32_t buffers = 0;
    for (uint32_t i = 0; i < run; ++i) bytes += queue_[at + i]->pkt_len, buffers += queue_[at + i]->nb_segs;
    if (lose()) [[unlikely]] {
      rte_pktmbuf_free(queue_[at]);
      ++head_;
      buffers_ -= buffers;
      continue;
    }
    const uint16_t sent = port_.tx_burst(&queue_[at], static_cast<uint16_t>(run));
    for (uint32_t i = sent; i < run; ++i) bytes -= queue_[at + i]->pkt_len, buffers -= queue_[at + i]->nb_segs;
    head_ += sent;
    buffers_ -= buffers;
    counters_.tx_frames += sent;
    counters_.tx_bytes += bytes;
    counters_.tx_stalls += sent < run && !stalled_;
    stalled_ = sent < run;
    if (stalled_) return;
  }
}

uint32_t Wire::receive(base::TimeNs now, Segment* out, uint32_t& frames) {
  rte_mbuf* burst[kBurst];
  frames = port_.rx_burst(burst, burst_);
  if (frames == 0) {
    burst_ = kBurst;
    if (!resolved_) resolve(now);
    return 0;
  }
  for (uint32_t i = 0; i < frames; ++i) rte_prefetch0(rte_pktmbuf_mtod(burst[i], const void*));
  uint32_t kept = 0;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < frames; ++i) {
    bytes += burst[i]->pkt_len;
    if (lose()) [[unlikely]] {
      rte_pktmbuf_free(burst[i]);
      continue;
    }
    if (parse(burst[i], out[kept])) [[likely]]
      ++kept;
    else rte_pktmbuf_free(burst[i]);
  }
  burst_ = bytes > uint64_t{frames} * kLarge ? kLargeBurst : kBurst;
  counters_.rx_frames += frames;
  counters_.rx_bytes += bytes;
  return kept;
}

uint32_t Wire::receive_raw(rte_mbuf** out, uint32_t& frames) {
  frames = port_.rx_burst(out, kBurst);
  uint32_t kept = 0;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < frames; ++i) rte_prefetch0(rte_pktmbuf_mtod(out[i], const void*));
  for (uint32_t i = 0; i < frames; ++i) {
    rte_mbuf* m = out[i];
    bytes += m->pkt_len;
    const uint8_t* p = rte_pktmbuf_mtod(m, const uint8_t*);
    const uint16_t type = m->data_len >= 14 ? base::load_be16(p + 12) : 0;
    const bool ip = (type == 0x0800 && m->data_len >= 34) || (type == 0x86dd && m->data_len >= 54 && p[20] != wire::kIpIcmpv6);
    if (ip) [[likely]] {
      out[kept++] = m;
    } else {
      Segment unused;
      parse(m, unused);
      rte_pktmbuf_free(m);
    }
  }
  counters_.rx_frames += frames;
  counters_.rx_bytes += bytes;
  return kept;
}

bool Wire::parse(rte_mbuf* m, Segment& s) {
  const uint8_t* p = rte_pktmbuf_mtod(m, const uint8_t*);
  const uint32_t n = m->data_len;
  if (n < 14 + 20) {
    ++counters_.rx_malformed;
    return false;
  }
  const uint16_t type = base::load_be16(p + 12);
  if (type == 0x0800) [[likely]]
    return parse_v4(m, p + 14, n - 14, s);
  if (type == 0x86dd) return parse_v6(m, p + 14, n - 14, s);
  if (type == 0x0806) on_arp({p + 14, n - 14});
  else ++counters_.other_frames;
  return false;
}

bool Wire::parse_v4(rte_mbuf* m, const uint8_t* ip, uint32_t left, Segment& s) {
  const uint32_t header = (ip[0] & 15u) * 4;
  const uint32_t total = base::load_be16(ip + 2);
  const uint32_t in_frame = m->pkt_len - 14;
  if (ip[0] >> 4 != 4 || header < 20 || header > left || total < header || total > in_frame) {
    ++counters_.rx_malformed;
    return false;
  }
  if (ip[9] != wire::kIpTcp || (base::load_be16(ip + 6) & 0x3fff) != 0) {
    ++counters_.other_frames;
    return false;
  }
  // The header is checked in any case: it is 20 bytes, and a gateway that gets it wrong must be found out.
  if (!wire::checksum_ok(wire::checksum_sum({ip, header})) &&
      (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) != RTE_MBUF_F_RX_IP_CKSUM_NONE) {
    ++counters_.rx_bad_checksum;
    return false;
  }
  s.v6 = false;
  s.src = base::load_be32(ip + 12);
  s.dst = base::load_be32(ip + 16);
  const uint32_t bytes = total - header;
  if (m->nb_segs == 1 && total < left) {
  }  // Ethernet's padding: `bytes` rules
  const wire::ChecksumSum pseudo = wire::pseudo_header_v4(s.src, s.dst, wire::kIpTcp, bytes);
  if (bytes < 20 || header + 20 > left) {
    ++counters_.rx_malformed;
    return false;
  }
  if (!checksum_good(m, ip + header, bytes, pseudo)) {
    ++counters_.rx_bad_checksum;
    return false;
  }
  return parse_tcp(m, ip + header, bytes, {ip, left}, s);
}

bool Wire::parse_v6(rte_mbuf* m, const uint8_t* ip, uint32_t left, Segment& s) {
  if (left < 40) {
    ++counters_.rx_malformed;
    return false;
  }
  if (ip[6] == wire::kIpIcmpv6) {
    on_nd(ip, left);
    return false;
  }
  const uint32_t bytes = base::load_be16(ip + 4);
  if (ip[6] != wire::kIpTcp || book_ == nullptr) {
    ++counters_.other_frames;
    return false;
  }
  if (ip[0] >> 4 != 6 || bytes < 20 || left < 40 + 20 || 40 + bytes > m->pkt_len - 14) {
    ++counters_.rx_malformed;
    return false;
  }
  if (!checksum_good(m, ip + 40, bytes, wire::pseudo_header_v6(ip + 8, ip + 24, wire::kIpTcp, bytes))) {
    ++counters_.rx_bad_checksum;
    return false;
  }
  s.v6 = true;
  s.src = book_->intern(ip + 8);
  s.dst = book_->find(ip + 24);
  if (s.dst == kNoAddress || s.src == kNoAddress) {
    ++counters_.other_frames;
    return false;
  }
  return parse_tcp(m, ip + 40, bytes, {ip, left}, s);
}

bool Wire::checksum_good(rte_mbuf* m, const uint8_t* tcp, uint32_t bytes, wire::ChecksumSum pseudo) const {
  const uint64_t mark = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  if (mark == RTE_MBUF_F_RX_L4_CKSUM_GOOD || mark == RTE_MBUF_F_RX_L4_CKSUM_NONE) [[likely]]
    return true;
  wire::ChecksumSum sum = pseudo;
  uint64_t offset = 0;
  uint32_t left = bytes;
  const uint8_t* at = tcp;
  for (rte_mbuf* seg = m; seg != nullptr && left != 0; seg = seg->next) {
    if (seg != m) at = rte_pktmbuf_mtod(seg, const uint8_t*);
    const uint32_t room = static_cast<uint32_t>(rte_pktmbuf_mtod(seg, const uint8_t*) + seg->data_len - at);
    const uint32_t n = std::min(left, room);
    sum += wire::checksum_at(wire::checksum_sum({at, n}), offset);
    offset += n;
    left -= n;
  }
  if (wire::checksum_ok(sum)) return true;
  // Only the pseudo-header's sum: the peer is a socket of this host, and the bytes never left memory.
  return partial_checksum_ && base::load_unaligned<uint16_t>(tcp + 16) == wire::checksum_fold(pseudo);
}

bool Wire::parse_tcp(rte_mbuf* m, const uint8_t* tcp, uint32_t bytes, base::ByteSpan, Segment& s) {
  const uint32_t header = (tcp[12] >> 4) * 4u;
  const uint8_t* end = rte_pktmbuf_mtod(m, const uint8_t*) + m->data_len;
  if (header < 20 || header > bytes || tcp + header > end) {
    ++counters_.rx_malformed;
    return false;
  }
  s.packet = m;
  s.tcp = tcp;
  s.src_port = base::load_be16(tcp);
  s.dst_port = base::load_be16(tcp + 2);
  s.seq = base::load_be32(tcp + 4);
  s.ack = base::load_be32(tcp + 8);
  s.flags = tcp[13];
  s.window = base::load_be16(tcp + 14);
  s.header = static_cast<uint8_t>(header);
  s.payload = tcp + header;
  s.length = bytes - header;
  s.first = std::min(s.length, static_cast<uint32_t>(end - s.payload));
  return true;
}

// --- ARP and ND -------------------------------------------------------------------------------------------------------------

void Wire::resolve(base::TimeNs now) {
  if (options_.router.address.is_unspecified()) return;  // role forward asks nobody
  if (now < next_resolve_) return;
  next_resolve_ = now + kResolveEvery;
  const base::IpAddress& mine = options_.router.address;
  if (mine.is_v4()) {
    // An announcement first, so that a device under test that knew an earlier us forgets that MAC (RFC 5227 3).
    if (!announced_) send_arp(1, wire::kBroadcastMac, mine.v4_host_order(), mine.v4_host_order(), {});
    send_arp(1, wire::kBroadcastMac, mine.v4_host_order(), options_.dut.v4_host_order(), {});
  } else {
    const base::IpAddress group = wire::solicited_node_group(options_.dut);
    if (!announced_) send_nd(false, wire::multicast_mac_v6(wire::all_nodes_group()), mine, wire::all_nodes_group(), mine);
    send_nd(true, wire::multicast_mac_v6(group), mine, group, options_.dut);
  }
  announced_ = true;
  flush();
}

void Wire::on_arp(base::ByteSpan packet) {
  wire::ArpView arp;
  if (wire::ArpView::parse(packet, arp) != wire::ParseError::kNone) {
    ++counters_.other_frames;
    return;
  }
  const bool from_dut = options_.dut.is_v4() && arp.sender_ip == options_.dut.v4_host_order();
  if (from_dut) {
    std::memcpy(ethernet_.data(), arp.sender_mac.data(), 6);
    resolved_ = true;
  }
  if (arp.operation != wire::ArpOperation::kRequest || arp.is_gratuitous()) return;
  // A forwarder has no address of its own: it answers for every one but the asker's.
  const bool forwarder = options_.router.address.is_unspecified();
  if (!forwarder && !own_.contains(base::IpAddress::v4(arp.target_ip))) return;
  send_arp(2, arp.sender_mac, arp.target_ip, arp.sender_ip, arp.sender_mac);
}

void Wire::send_arp(uint16_t operation, const io::MacAddress& to, uint32_t sender_ip, uint32_t target_ip,
                    const io::MacAddress& target_mac) {
  rte_mbuf* m = alloc();
  if (m == nullptr) return;
  auto* p = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, 60));
  std::memset(p, 0, 60);
  const wire::EthernetRepr ethernet{to, port_.capabilities().mac, wire::kEtherArp, 0};
  const uint32_t at = ethernet.emit(p);
  const wire::ArpRepr arp{static_cast<wire::ArpOperation>(operation), port_.capabilities().mac, sender_ip, target_mac, target_ip};
  arp.emit(p + at);
  send(m);
}

void Wire::on_nd(const uint8_t* ip, uint32_t left) {
  wire::Ipv6View v6;
  if (wire::Ipv6View::parse({ip, left}, v6) != wire::ParseError::kNone) {
    ++counters_.rx_malformed;
    return;
  }
  wire::NdView nd;
  const base::ByteSpan message{ip + v6.payload_offset, v6.payload_length};
  if (message.empty() || message[0] < 133 || message[0] > 136 ||
      wire::NdView::parse(message, v6.src, v6.dst, v6.hop_limit, true, nd) != wire::ParseError::kNone) {
    ++counters_.other_frames;
    return;
  }
  const base::IpAddress* dut = !options_.dut.is_v4() ? &options_.dut : options_.dut6 ? &*options_.dut6 : nullptr;
  const bool advertised = nd.type == wire::NdType::kNeighborAdvertisement && dut != nullptr && nd.target == *dut && nd.target_mac;
  const bool asked = nd.type == wire::NdType::kNeighborSolicitation && own_.contains(nd.target);
  if (advertised) std::memcpy(ethernet_.data(), nd.target_mac->data(), 6);
  if (asked && dut != nullptr && nd.source_mac) std::memcpy(ethernet_.data(), nd.source_mac->data(), 6);
  resolved_ |= advertised || (asked && nd.source_mac);
  if (!asked) return;
  const io::MacAddress to = nd.source_mac ? *nd.source_mac : wire::multicast_mac_v6(wire::all_nodes_group());
  send_nd(false, to, nd.target, v6.src.is_unspecified() ? wire::all_nodes_group() : v6.src, nd.target);
}

void Wire::send_nd(bool solicitation, const io::MacAddress& to, const base::IpAddress& src, const base::IpAddress& dst,
                   const base::IpAddress& target) {
  rte_mbuf* m = alloc();
  if (m == nullptr) return;
  wire::NdRepr nd;
  nd.type = solicitation ? wire::NdType::kNeighborSolicitation : wire::NdType::kNeighborAdvertisement;
  nd.target = target;
  nd.router = nd.override_flag = !solicitation;
  nd.solicited = !solicitation && !wire::is_multicast_v6(dst);
  nd.mac = port_.capabilities().mac;
  const uint32_t length = 14 + wire::kIpv6Header + nd.length();
  auto* p = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(length)));
  const wire::EthernetRepr ethernet{to, port_.capabilities().mac, wire::kEtherIpv6, 0};
  uint32_t at = ethernet.emit(p);
  wire::Ipv6Repr v6;
  v6.src = src, v6.dst = dst, v6.next_header = wire::kIpIcmpv6, v6.hop_limit = wire::kNdHopLimit;
  v6.payload_length = static_cast<uint16_t>(nd.length());
  at += v6.emit(p + at);
  nd.emit(p + at, src, dst);
  send(m);
}

}  // namespace millrace::load
