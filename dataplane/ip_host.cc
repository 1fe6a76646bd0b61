// What is not ours, and the host: frames to it and from it, over the exception path. The rule of thumb is that of a port whose
// addresses two share: connections and listeners of the gateway first, then its addresses for what it speaks (ARP, ND, echo),
// then the host.
#include <algorithm>
#include <cstring>

#include <rte_mbuf.h>

#include "dataplane/ip_layer.h"
#include "lib/wire/udp.h"

namespace millrace::dataplane {

using stats::DropReason;

namespace {
// True when nobody needs to verify the checksums behind IP: the device did, or the bytes come from a host that we share memory
// with and were left unfinished because nothing can happen to them.
bool sums_good(const rte_mbuf* m, const io::PortCapabilities& c) {
  const uint64_t mark = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
  return c.partial_rx_checksum || mark == RTE_MBUF_F_RX_L4_CKSUM_GOOD ||
         (c.rx_tcp_unsummed && mark == RTE_MBUF_F_RX_L4_CKSUM_NONE);
}
}  // namespace

bool IpLayer::offer_to_host(const Frame& f) {
  if (config_.exception == nullptr || f.learn_only) return false;
  const Interface& i = *interfaces_[f.port];
  config_.exception->offer(i.device, f.mbuf, sums_good(f.mbuf, i.capabilities), counters_, f.now);
  return true;
}

IpVerdict IpLayer::not_ours(const Frame& f, DropReason why) { return offer_to_host(f) ? done(f) : drop(f, why); }

bool IpLayer::host_wants(const Frame& f, uint8_t protocol, uint32_t l4_offset) const {
  if (config_.exception == nullptr || f.mbuf->data_len < l4_offset + 4) return false;
  const uint8_t* l4 = rte_pktmbuf_mtod(f.mbuf, const uint8_t*) + l4_offset;
  return config_.exception->wants(protocol, base::load_be16(l4), base::load_be16(l4 + 2));
}

bool IpLayer::give_to_host(const TcpPacket& p, TimeNs now) {
  ExceptionPath* e = config_.exception;
  if (e == nullptr || !e->wants(wire::kIpTcp, p.tuple.local_port, p.tuple.remote_port)) return false;
  e->offer(p.arrival_port, p.frame, true, counters_, now);  // its checksum was verified on the way here
  return true;
}

// One copy each, in one packet, or in as many as it takes where the port sends chains.
bool IpLayer::send_from_host(TimeNs now) {
  ExceptionPath& e = *config_.exception;
  for (uint32_t n = 0; n < ExceptionPath::kFramesPerTurn; ++n) {
    const ExceptionPath::Taken taken = e.take(counters_, now);
    if (taken.frame.empty()) return n != 0;
    const bool known = taken.device < interfaces_.size() && interfaces_[taken.device]->device == taken.device;
    const uint32_t room = pools_.payload.data_room(), pieces = (static_cast<uint32_t>(taken.frame.size()) + room - 1) / room;
    const io::PortCapabilities* c = known ? &interfaces_[taken.device]->capabilities : nullptr;
    if (!known || taken.frame.size() < wire::kEthernetHeader ||
        taken.frame.size() > c->mtu + wire::kEthernetHeader + wire::kVlanTag || pieces > c->max_tx_segments) {
      counters_.drop(DropReason::kFromHostMalformed);
      e.pop();
      continue;
    }
    rte_mbuf* frame = nullptr;
    rte_mbuf* tail = nullptr;
    for (uint32_t at = 0; at < taken.frame.size();) {
      io::PacketPtr piece = pools_.payload.alloc();
      if (!piece) break;
      const auto take = static_cast<uint32_t>(std::min<size_t>(room, taken.frame.size() - at));
      std::memcpy(piece.append(take), taken.frame.data() + at, take);
      at += take;
      rte_mbuf* m = piece.release();
      if (frame == nullptr) {
        frame = m;
      } else {
        tail->next = m;
        ++frame->nb_segs;
        frame->pkt_len += take;
      }
      tail = m;
    }
    e.pop();
    if (frame == nullptr || frame->pkt_len != taken.frame.size()) {
      counters_.drop(DropReason::kTxNoMbuf);
      if (frame != nullptr) rte_pktmbuf_free(frame);
      continue;
    }
    interfaces_[taken.device]->tx.send(frame);
    (*counters_.ports[taken.device])[PortCounter::kFromKernel].add();
  }
  return true;
}

}  // namespace millrace::dataplane
