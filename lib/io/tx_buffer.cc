#include "lib/io/tx_buffer.h"

#include <algorithm>
#include <cstring>

namespace millrace::io {

using stats::DropReason;
using stats::PortCounter;

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
  PacketPool& pool = header_bytes + length <= kHeaderRoom ? pools_.headers : pools_.payload;
  PacketPtr p = pool.alloc();
  if (!p || p.tailroom() < header_bytes + length) {
    drops_[static_cast<uint32_t>(p ? DropReason::kTxTooBig : DropReason::kTxNoMbuf)].add();
    return nullptr;
  }
  uint8_t* at = p.append(header_bytes + length) + header_bytes;
  if (length > 0) {
    const size_t copied = payload->peek(offset, at, length);
    MILLRACE_ASSERT(copied == length, "payload to send is in the queue");
  }
  return p.release();
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

void TxBuffer::send(rte_mbuf* frame) {
  if (count_ == kCapacity) flush();
  frames_[count_++] = frame;
}

void TxBuffer::flush() {
  stats::StageScope stage(stages_, stats::Stage::kTxBurst, count_);
  uint32_t sent = 0;
  uint64_t bytes = 0;
  for (uint32_t tries = 0; sent < count_ && tries <= kFlushRetries; ++tries) {
    // Sizes first: a frame that the port took may be freed at any time.
    uint32_t sizes[kCapacity];
    for (uint32_t i = sent; i < count_; ++i) sizes[i] = frames_[i]->pkt_len;
    const uint32_t n = port_.tx_burst(frames_ + sent, static_cast<uint16_t>(count_ - sent));
    for (uint32_t i = sent; i < sent + n; ++i) bytes += sizes[i];
    sent += n;
    counters_[PortCounter::kTxBursts].add();
    if (sent < count_) counters_[PortCounter::kTxRetries].add();
  }
  counters_[PortCounter::kTxPackets].add(sent);
  counters_[PortCounter::kTxBytes].add(bytes);
  for (uint32_t i = sent; i < count_; ++i) rte_pktmbuf_free(frames_[i]);
  if (sent < count_) drops_[static_cast<uint32_t>(DropReason::kTxQueueFull)].add(count_ - sent);
  count_ = 0;
}

}  // namespace millrace::io
