#include "dataplane/reassembly.h"

#include <algorithm>
#include <cstring>

#include <rte_mbuf.h>

#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"

namespace millrace::dataplane {

using stats::DropReason;

namespace {
constexpr uint32_t kFragmentHeader = 8;
constexpr uint32_t kMaxDatagram = 65'535;  // bytes of an IPv4 packet, and of an IPv6 payload
// A datagram in several packets must have its headers in the first: smaller first fragments only serve to hide them (RFC 1858 3).
constexpr uint32_t kMinFirst = 18 + 40 + wire::kIpv6MaxExtensionBytes + 60;
constexpr uint8_t kNotCapable = 1 << 0, kCongestion = 1 << 3;  // bits of Datagram::ecn
}  // namespace

Reassembler::Reassembler(uint32_t max_fragments, io::PacketPool pool, stats::Counter* drops)
    : max_fragments_(max_fragments), pool_(pool), drops_(drops) {
  if (max_fragments > 0) datagrams_ = std::make_unique<Datagram[]>(kMaxDatagrams);
}

Reassembler::~Reassembler() {
  for (uint32_t i = 0; datagrams_ != nullptr && i < kMaxDatagrams; ++i)
    for (uint32_t p = 0; p < datagrams_[i].pieces; ++p) rte_pktmbuf_free(datagrams_[i].piece[p].frame);
}

rte_mbuf* Reassembler::refuse(const Fragment& f, DropReason why) {
  count(why);
  rte_pktmbuf_free(f.frame);
  return nullptr;
}

void Reassembler::give_up(Datagram& d, DropReason why) {
  for (uint32_t p = 0; p < d.pieces; ++p) rte_pktmbuf_free(d.piece[p].frame);
  count(why, d.pieces);
  held_ -= d.pieces;
  d.pieces = 0;
}

// RFC 791: source, destination, protocol, identification; of IPv6 the same less the protocol, which only the first fragment knows
// for sure (RFC 8200 4.5).
Reassembler::Datagram* Reassembler::find(const Fragment& f) {
  for (uint32_t i = 0; i < kMaxDatagrams; ++i) {
    Datagram& d = datagrams_[i];
    if (d.pieces > 0 && d.identification == f.identification && d.src == f.src && d.dst == f.dst &&
        (!f.src.is_v4() || d.protocol == f.protocol))
      return &d;
  }
  return nullptr;
}

Reassembler::Datagram* Reassembler::make(const Fragment& f, TimeNs now) {
  Datagram* free = nullptr;
  Datagram* oldest = nullptr;
  for (uint32_t i = 0; i < kMaxDatagrams && free == nullptr; ++i) {
    Datagram& d = datagrams_[i];
    if (d.pieces == 0) free = &d;
    else if (oldest == nullptr || d.deadline < oldest->deadline) oldest = &d;
  }
  if (free == nullptr) {
    give_up(*oldest, DropReason::kFragmentLimit);
    free = oldest;
  }
  free->src = f.src;
  free->dst = f.dst;
  free->identification = f.identification;
  free->protocol = f.protocol;
  free->port = f.port;
  free->total = free->received = 0;
  free->ecn = 0;
  free->deadline = now + (f.src.is_v4() ? kTimeoutV4 : kTimeoutV6);
  return free;
}

// Makes room for one more fragment of `d`; false: its source has its share.
bool Reassembler::room_for(const Fragment& f, const Datagram& d) {
  uint32_t of_source = 0;
  for (uint32_t i = 0; i < kMaxDatagrams; ++i)
    if (datagrams_[i].pieces > 0 && datagrams_[i].src == f.src) of_source += datagrams_[i].pieces;
  if (of_source >= std::max(max_fragments_ / 4, 1u)) return false;
  if (held_ < max_fragments_) return true;
  Datagram* oldest = nullptr;
  for (uint32_t i = 0; i < kMaxDatagrams; ++i) {
    Datagram& other = datagrams_[i];
    if (&other != &d && other.pieces > 0 && (oldest == nullptr || other.deadline < oldest->deadline)) oldest = &other;
  }
  if (oldest == nullptr) return false;
  give_up(*oldest, DropReason::kFragmentLimit);
  return true;
}

rte_mbuf* Reassembler::add(const Fragment& f, TimeNs now) {
  if (max_fragments_ == 0) return refuse(f, DropReason::kIpFragment);
  const uint32_t end = f.offset + f.length;
  if (f.length == 0 || (f.more && f.length % 8 != 0) || end + f.data_offset > kMaxDatagram)
    return refuse(f, DropReason::kFragmentBad);
  Datagram* d = find(f);
  if (d == nullptr) d = make(f, now);
  if (d->pieces == kMaxPieces || !room_for(f, *d)) {
    give_up(*d, DropReason::kFragmentLimit);
    return refuse(f, DropReason::kFragmentLimit);
  }
  uint32_t at = 0;
  while (at < d->pieces && d->piece[at].offset < f.offset) ++at;
  if (at < d->pieces && d->piece[at].offset == f.offset && d->piece[at].length == f.length)
    return refuse(f, DropReason::kFragmentDuplicate);
  const bool overlaps =
      (at > 0 && d->piece[at - 1].offset + d->piece[at - 1].length > f.offset) || (at < d->pieces && end > d->piece[at].offset);
  const bool beyond = d->total != 0 ? (end > d->total || !f.more) : (!f.more && at < d->pieces);
  if (overlaps || beyond) {
    give_up(*d, DropReason::kFragmentOverlap);
    return refuse(f, DropReason::kFragmentOverlap);
  }
  std::move_backward(d->piece + at, d->piece + d->pieces, d->piece + d->pieces + 1);
  d->piece[at] = {f.frame, f.offset, f.length, static_cast<uint16_t>(f.l3_offset + f.data_offset)};
  ++d->pieces;
  ++held_;
  d->received += f.length;
  d->ecn |= static_cast<uint8_t>(1 << f.ecn);
  if (!f.more) d->total = end;
  if (f.offset == 0) {
    d->protocol = f.protocol;
    d->l3_offset = f.l3_offset;
    d->next_header_at = f.next_header_at;
  }
  return d->total != 0 && d->received == d->total ? assemble(*d) : nullptr;
}

rte_mbuf* Reassembler::assemble(Datagram& d) {
  const bool v4 = d.src.is_v4();
  rte_mbuf* first = d.piece[0].frame;
  uint8_t* at = rte_pktmbuf_mtod(first, uint8_t*);
  const uint32_t headers =
      d.piece[0].data_offset - d.l3_offset - (v4 ? 0 : kFragmentHeader);  // of IP, without the fragment header
  // RFC 3168 5.3: congestion seen by one is seen by all; mixed with fragments that are not capable it is a lie.
  const bool lie = (d.ecn & kCongestion) != 0 && (d.ecn & kNotCapable) != 0;
  const bool whole = d.l3_offset + headers + d.total <= pool_.data_room();
  if (lie || headers + d.total > kMaxDatagram || (!whole && d.l3_offset + headers + d.piece[0].length < kMinFirst)) {
    give_up(d, DropReason::kFragmentBad);
    return nullptr;
  }
  if (v4) {
    uint8_t* ip = at + d.l3_offset;
    base::store_be16(ip + 2, static_cast<uint16_t>(headers + d.total));
    base::store_be16(ip + 6, 0);
    if (d.ecn & kCongestion) ip[1] |= 3;
    wire::store_checksum(ip + wire::kIpv4ChecksumOffset, 0);
    wire::store_checksum(ip + wire::kIpv4ChecksumOffset, wire::checksum_finish(wire::checksum_sum({ip, headers})));
  } else {
    std::memmove(at + kFragmentHeader, at, d.l3_offset + headers);
    rte_pktmbuf_adj(first, kFragmentHeader);
    uint8_t* ip = at + kFragmentHeader + d.l3_offset;
    ip[d.next_header_at] = d.protocol;
    base::store_be16(ip + 4, static_cast<uint16_t>(headers - wire::kIpv6Header + d.total));
    if (d.ecn & kCongestion) ip[1] |= 0x30;
  }
  first->data_len = static_cast<uint16_t>(d.l3_offset + headers + d.piece[0].length);  // less Ethernet's padding
  first->pkt_len = first->data_len;
  first->ol_flags &= ~(RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_LRO);
  io::PacketPtr one = whole ? pool_.alloc() : io::PacketPtr();
  if (whole && !one) {
    give_up(d, DropReason::kTxNoMbuf);
    return nullptr;
  }
  rte_mbuf* tail = first;
  for (uint32_t p = 0; p < d.pieces; ++p) {
    rte_mbuf* m = d.piece[p].frame;
    if (p > 0) {
      m->data_off = static_cast<uint16_t>(m->data_off + d.piece[p].data_offset);
      m->data_len = d.piece[p].length;
      m->pkt_len = m->data_len;
    }
    if (whole) {
      std::memcpy(one.append(m->data_len), rte_pktmbuf_mtod(m, const uint8_t*), m->data_len);
      if (p == 0) one.raw()->ol_flags = m->ol_flags & ~(RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL);
      rte_pktmbuf_free(m);
    } else if (p > 0) {
      tail->next = m;
      tail = m;
      ++first->nb_segs;
      first->pkt_len += m->data_len;
    }
  }
  held_ -= d.pieces;
  d.pieces = 0;
  return whole ? one.release() : first;
}

bool Reassembler::expire(TimeNs now, rte_mbuf** first, uint16_t* port, uint16_t* l3_offset) {
  if (held_ == 0) return false;
  for (uint32_t i = 0; i < kMaxDatagrams; ++i) {
    Datagram& d = datagrams_[i];
    if (d.pieces == 0 || now < d.deadline) continue;
    *first = nullptr;
    *port = d.port;
    *l3_offset = d.l3_offset;
    if (d.piece[0].offset == 0) {
      *first = d.piece[0].frame;
      std::move(d.piece + 1, d.piece + d.pieces, d.piece);
      --d.pieces;
      --held_;
      count(DropReason::kFragmentTimeout);
    }
    give_up(d, DropReason::kFragmentTimeout);
    return true;
  }
  return false;
}

TimeNs Reassembler::next_deadline() const {
  TimeNs next = base::kNever;
  if (held_ == 0) return next;
  for (uint32_t i = 0; i < kMaxDatagrams; ++i)
    if (datagrams_[i].pieces > 0) next = std::min(next, datagrams_[i].deadline);
  return next;
}

}  // namespace millrace::dataplane
