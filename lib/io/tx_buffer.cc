#include "lib/io/tx_buffer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace millrace::io {

using stats::DropReason;
using stats::PortCounter;

namespace {

// What rte_pktmbuf_reset() does, less what only receivers look at, in four stores, as receive paths of drivers do it. A packet from
// a pool has one reference, one segment and no successor (rte_mbuf_raw_free() sees to that).
inline void reset_for_transmit(rte_mbuf* m, uint32_t size) {
  constexpr uint64_t kDataOffRefcntSegmentsPort = uint64_t{RTE_PKTMBUF_HEADROOM} | uint64_t{1} << 16 | uint64_t{1} << 32 |
                                                  uint64_t{RTE_MBUF_PORT_INVALID} << 48;
  std::memcpy(&m->rearm_data, &kDataOffRefcntSegmentsPort, sizeof kDataOffRefcntSegmentsPort);
  m->ol_flags = 0;
  m->pkt_len = size;
  m->data_len = static_cast<uint16_t>(size);
  m->vlan_tci = 0;
  m->tx_offload = 0;
}
static_assert(offsetof(rte_mbuf, refcnt) == offsetof(rte_mbuf, rearm_data) + 2 &&
              offsetof(rte_mbuf, nb_segs) == offsetof(rte_mbuf, rearm_data) + 4 &&
              offsetof(rte_mbuf, port) == offsetof(rte_mbuf, rearm_data) + 6);

}  // namespace

TxBuffer::TxBuffer(PortQueue& port, TxPools pools, stats::CounterBlock<PortCounter>& counters, stats::Counter* drops,
                   stats::StageClock& stages)
    : port_(port), pools_(pools), counters_(counters), drops_(drops), stages_(stages) {}

TxBuffer::~TxBuffer() {
  for (uint32_t i = 0; i < count_; ++i) rte_pktmbuf_free(frames_[i]);
}

rte_mbuf* TxBuffer::build(uint32_t header_bytes, const PacketQueue* payload, uint64_t offset, uint32_t length) {
  MILLRACE_ASSERT(header_bytes <= kHeaderRoom, "frame headers fit a header packet");
  rte_mbuf* frame = nullptr;
  if (length >= kChainFrom && port_.capabilities().tx_multi_segment && pools_.indirect.raw() != nullptr) {
    frame = build_chain(header_bytes, *payload, offset, length);
    if (frame != nullptr) return frame;  // else: too many pieces for the port, or no indirect packet left: copy
  }
  const uint32_t size = header_bytes + length;
  rte_mempool* pool = size <= kHeaderRoom ? pools_.headers.raw() : pools_.payload.raw();
  rte_mbuf* m = rte_mbuf_raw_alloc(pool);
  if (m == nullptr || size + RTE_PKTMBUF_HEADROOM > m->buf_len) [[unlikely]] {
    drops_[static_cast<uint32_t>(m != nullptr ? DropReason::kTxTooBig : DropReason::kTxNoMbuf)].add();
    if (m != nullptr) rte_mbuf_raw_free(m);
    return nullptr;
  }
  reset_for_transmit(m, size);
  if (length > 0) {
    uint8_t* at = rte_pktmbuf_mtod(m, uint8_t*) + header_bytes;
    const base::ByteSpan front = payload->front();
    if (offset + length <= front.size()) [[likely]] {
      std::memcpy(at, front.data() + offset, length);
    } else {
      const size_t copied = payload->peek(offset, at, length);
      MILLRACE_ASSERT(copied == length, "payload to send is in the queue");
    }
  }
  return m;
}

rte_mbuf* TxBuffer::build_chain(uint32_t header_bytes, const PacketQueue& payload, uint64_t offset, uint32_t length) {
  PacketPtr head = pools_.headers.alloc();
  if (!head) return nullptr;
  head.append(header_bytes);
  rte_mbuf* frame = head.release();
  rte_mbuf* tail = frame;
  const uint32_t max_segments = port_.capabilities().max_tx_segments;
  for (rte_mbuf* m = const_cast<rte_mbuf*>(payload.raw_head()); length > 0; m = m->next) {
    MILLRACE_ASSERT(m != nullptr, "payload to send is in the queue");
    if (offset >= m->data_len) {
      offset -= m->data_len;
      continue;
    }
    rte_mbuf* piece = frame->nb_segs < max_segments ? pools_.indirect.alloc().release() : nullptr;
    if (piece == nullptr) {
      rte_pktmbuf_free(frame);
      return nullptr;
    }
    rte_pktmbuf_attach(piece, m);  // one more reference on the payload, which nobody may write any more
    const uint32_t take = std::min<uint32_t>(length, m->data_len - static_cast<uint32_t>(offset));
    piece->data_off = static_cast<uint16_t>(m->data_off + offset);
    piece->data_len = static_cast<uint16_t>(take);
    piece->pkt_len = take;
    tail->next = piece;
    tail = piece;
    ++frame->nb_segs;
    frame->pkt_len += take;
    length -= take;
    offset = 0;
  }
  return frame;
}

void TxBuffer::flush() {
  stats::StageScope stage(stages_, stats::Stage::kTxBurst, count_);
  uint32_t sent = 0;
  for (uint32_t tries = 0; sent < count_ && tries <= kFlushRetries; ++tries) {
    sent += port_.tx_burst(frames_ + sent, static_cast<uint16_t>(count_ - sent));
    counters_[PortCounter::kTxBursts].add();
    if (sent < count_) counters_[PortCounter::kTxRetries].add();
  }
  // The sizes of what was sent: of all, less those that are still ours. A frame that the port took may be gone already.
  for (uint32_t i = sent; i < count_; ++i) {
    bytes_ -= frames_[i]->pkt_len;
    rte_pktmbuf_free(frames_[i]);
  }
  counters_[PortCounter::kTxPackets].add(sent);
  counters_[PortCounter::kTxBytes].add(bytes_);
  if (sent < count_) drops_[static_cast<uint32_t>(DropReason::kTxQueueFull)].add(count_ - sent);
  count_ = 0;
  bytes_ = 0;
}

}  // namespace millrace::io
