// Fragments: those for us become whole datagrams (reassembly.h), and large echo replies of ours become fragments.
#include <algorithm>
#include <cstring>

#include <rte_mbuf.h>

#include "dataplane/flow_table.h"
#include "dataplane/ip_layer.h"

namespace millrace::dataplane {

using base::IpAddress;

IpVerdict IpLayer::reassemble_v4(Frame& f, const wire::Ipv4View& ip, TcpPacket& elsewhere) {
  const uint16_t field = base::load_be16(rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + f.l3_offset + 6);
  Fragment piece;
  piece.src = IpAddress::v4(ip.src);
  piece.dst = IpAddress::v4(ip.dst);
  piece.identification = ip.identification;
  piece.protocol = ip.protocol;
  piece.ecn = ip.tos & 3;
  piece.more = (field & 0x2000) != 0;
  piece.offset = (field & 0x1fffu) * 8;
  piece.data_offset = ip.payload_offset;
  piece.length = ip.payload_length;
  return reassemble(f, piece, elsewhere);
}

IpVerdict IpLayer::reassemble_v6(Frame& f, const wire::Ipv6View& ip, TcpPacket& elsewhere) {
  const uint8_t* packet = rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + f.l3_offset;
  const uint8_t* header = packet + ip.fragment_at;
  const uint16_t field = base::load_be16(header + 2);
  Fragment piece;
  piece.src = ip.src;
  piece.dst = ip.dst;
  piece.identification = base::load_be32(header + 4);
  piece.protocol = header[0];
  piece.ecn = ip.traffic_class & 3;
  piece.more = (field & 1) != 0;
  piece.offset = field & 0xfff8u;
  piece.next_header_at = ip.next_header_at;
  piece.data_offset = static_cast<uint16_t>(ip.fragment_at + 8);
  piece.length = static_cast<uint16_t>(wire::kIpv6Header + base::load_be16(packet + 4) - piece.data_offset);
  return reassemble(f, piece, elsewhere);
}

// By what all fragments of a datagram have and a port's own spreading may not look at. Two datagrams at one worker do no harm, so
// the protocol may be left out, which only the first fragment of IPv6 knows.
uint32_t IpLayer::fragment_owner(const Fragment& piece) const {
  const uint64_t hash = flow_hash(config_.seed ^ piece.identification, piece.dst, 0, piece.src, 0);
  return static_cast<uint32_t>((hash >> 32) * config_.workers >> 32);
}

IpVerdict IpLayer::reassemble(Frame& f, Fragment& piece, TcpPacket& elsewhere) {
  // No device delivers a fragment in pieces but with buffers smaller than its own MTU.
  if (f.mbuf->nb_segs > 1) return drop(f, stats::DropReason::kFragmentBad);
  if (config_.workers > 1 && config_.max_fragments > 0) {
    if (const uint32_t owner = fragment_owner(piece); owner != config_.index) {
      elsewhere.frame = f.mbuf;
      elsewhere.arrival_port = interfaces_[f.port]->device;
      elsewhere.meets_at = owner;
      return IpVerdict::kFragment;
    }
  }
  if (!piece.src.is_v4()) {
    // RFC 8200 4.5: a length that is no multiple of eight, an end beyond what a packet can hold.
    if (piece.more && piece.length % 8 != 0) send_icmp_error(f, piece.src, piece.dst, 4, 0, 4);
    else if (piece.offset + piece.length > UINT16_MAX) send_icmp_error(f, piece.src, piece.dst, 4, 0, piece.data_offset - 6u);
  }
  piece.port = f.port;
  piece.frame = f.mbuf;
  piece.l3_offset = static_cast<uint16_t>(f.l3_offset);
  rte_mbuf* whole = reassembler_.add(piece, f.now);
  next_timer_ = std::min(next_timer_, reassembler_.next_deadline());
  if (whole == nullptr) return IpVerdict::kConsumed;
  f.mbuf = whole;
  (void)wire::EthernetView::parse({rte_pktmbuf_mtod(whole, const uint8_t*), whole->data_len},
                                  f.ethernet);  // of the first fragment
  f.l3_offset = f.ethernet.payload_offset;
  return IpVerdict::kTcp;
}

// RFC 792, RFC 4443 3.3: the sender is told, when the fragment that says what it was has come.
void IpLayer::expire_fragments(TimeNs now) {
  rte_mbuf* first = nullptr;
  Frame f;
  uint16_t l3_offset = 0;
  while (reassembler_.expire(now, &first, &f.port, &l3_offset)) {
    if (first == nullptr) continue;
    f.mbuf = first;
    f.now = now;
    f.l3_offset = l3_offset;
    (void)wire::EthernetView::parse({rte_pktmbuf_mtod(first, const uint8_t*), first->data_len}, f.ethernet);
    const uint8_t* ip = rte_pktmbuf_mtod(first, const uint8_t*) + l3_offset;
    if (ip[0] >> 4 == 4) {
      send_icmp_error(f, IpAddress::v4(base::load_be32(ip + 12)), IpAddress::v4(base::load_be32(ip + 16)), 11, 1, 0);
    } else {
      send_icmp_error(f, IpAddress::v6(ip + 8), IpAddress::v6(ip + 24), 3, 1, 0);
    }
    rte_pktmbuf_free(first);
  }
  next_timer_ = std::min(next_timer_, reassembler_.next_deadline());
}

void IpLayer::send_fragments(Interface& i, const wire::MacAddress& to, const IpAddress& src, const IpAddress& dst,
                             uint8_t protocol, base::ByteSpan payload) {
  const bool v4 = dst.is_v4();
  const uint32_t headers = v4 ? wire::kIpv4Header : wire::kIpv6Header + 8;
  const auto most = static_cast<uint32_t>((i.config.mtu - headers) & ~7u);
  const uint32_t identification = next_identification_++;
  const wire::EthernetRepr ethernet{to, i.capabilities.mac, v4 ? wire::kEtherIpv4 : wire::kEtherIpv6, i.config.vlan};
  for (uint32_t offset = 0; offset < payload.size(); offset += most) {
    const auto length = static_cast<uint32_t>(std::min<size_t>(most, payload.size() - offset));
    const bool more = offset + length < payload.size();
    io::PacketPtr frame = pools_.payload.alloc();
    if (!frame) return counters_.drop(stats::DropReason::kTxNoMbuf);
    uint8_t* at = frame.append(ethernet.header_length() + headers + length);
    at += ethernet.emit(at);
    if (v4) {
      wire::Ipv4Repr ip;
      ip.src = src.v4_host_order();
      ip.dst = dst.v4_host_order();
      ip.protocol = protocol;
      ip.dont_fragment = false;
      ip.identification = static_cast<uint16_t>(identification);
      ip.payload_length = static_cast<uint16_t>(length);
      ip.emit(at, false);
      base::store_be16(at + 6, static_cast<uint16_t>(offset / 8 | (more ? 0x2000 : 0)));
      wire::store_checksum(at + wire::kIpv4ChecksumOffset, wire::checksum_finish(wire::checksum_sum({at, wire::kIpv4Header})));
    } else {
      wire::Ipv6Repr ip;
      ip.src = src;
      ip.dst = dst;
      ip.next_header = 44;
      ip.payload_length = static_cast<uint16_t>(8 + length);
      ip.emit(at);
      uint8_t* header = at + wire::kIpv6Header;
      header[0] = protocol;
      header[1] = 0;
      base::store_be16(header + 2, static_cast<uint16_t>(offset | (more ? 1 : 0)));
      base::store_be32(header + 4, identification);
    }
    std::memcpy(at + headers, payload.data() + offset, length);
    i.tx.send(std::move(frame));
  }
}

}  // namespace millrace::dataplane
