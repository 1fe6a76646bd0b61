#include "lib/io/tx_buffer.h"

#include <algorithm>

namespace millrace::io {

using stats::DropReason;
using stats::PortCounter;

TxBuffer::TxBuffer(PortQueue& port, TxPools pools, stats::CounterBlock<PortCounter>& counters, stats::Counter* drops,
                   stats::StageClock& stages)
    : port_(port),
      pools_(pools),
      counters_(counters),
      drops_(drops),
      stages_(stages),
      header_room_(pools.headers.raw() == nullptr ? 0 : std::min(pools.headers.data_room(), kHeaderRoom)) {}

TxBuffer::~TxBuffer() {
  for (uint32_t i = 0; i < count_; ++i) rte_pktmbuf_free(frames_[i]);
}

rte_mbuf* TxBuffer::no_packet() {
  drops_[static_cast<uint32_t>(DropReason::kTxNoMbuf)].add();
  return nullptr;
}

rte_mbuf* TxBuffer::build_any(uint32_t header_bytes, const PacketQueue* payload, uint64_t offset, uint32_t length) {
  MILLRACE_ASSERT(header_bytes <= header_room_, "frame headers fit a header packet");
  if (length >= kChainFrom && port_.capabilities().tx_multi_segment && pools_.indirect.raw() != nullptr) {
    rte_mbuf* frame = build_chain(header_bytes, *payload, offset, length);
    if (frame != nullptr) return frame;  // else: too many pieces for the port, or no indirect packet left: copy
  }
  const uint32_t size = header_bytes + length;
  rte_mbuf* m = rte_mbuf_raw_alloc(size <= header_room_ ? pools_.headers.raw() : pools_.payload.raw());
  if (m == nullptr) return no_packet();
  if (size + RTE_PKTMBUF_HEADROOM > m->buf_len) {
    drops_[static_cast<uint32_t>(DropReason::kTxTooBig)].add();
    rte_mbuf_raw_free(m);
    return nullptr;
  }
  reset_for_transmit(m, size);
  const size_t copied = length == 0 ? 0 : payload->peek(offset, rte_pktmbuf_mtod(m, uint8_t*) + header_bytes, length);
  MILLRACE_ASSERT(copied == length, "payload to send is in the queue");
  return m;
}

namespace {

// A packet without data of its own, straight from its pool, that refers to `take` bytes of `payload` from `offset`: what
// rte_pktmbuf_alloc() and rte_pktmbuf_attach() do, less what only a frame's first packet has. A payload that refers to others
// itself goes the long way.
void attach(rte_mbuf* piece, rte_mbuf* payload, uint32_t offset, uint32_t take) {
  constexpr uint64_t kOneReferenceOneSegment = uint64_t{1} << 16 | uint64_t{1} << 32 | uint64_t{RTE_MBUF_PORT_INVALID} << 48;
  if (RTE_MBUF_DIRECT(payload)) [[likely]] {
    rte_mbuf_refcnt_update(payload, 1);  // nobody may write it any more
    piece->buf_addr = payload->buf_addr;
    rte_mbuf_iova_set(piece, rte_mbuf_iova_get(payload));
    piece->buf_len = payload->buf_len;
    std::memcpy(&piece->rearm_data, &kOneReferenceOneSegment, sizeof kOneReferenceOneSegment);
    piece->ol_flags = RTE_MBUF_F_INDIRECT;
    piece->priv_size = payload->priv_size;
  } else {
    rte_pktmbuf_reset(piece);
    rte_pktmbuf_attach(piece, payload);
  }
  piece->next = nullptr;
  piece->data_off = static_cast<uint16_t>(payload->data_off + offset);
  piece->data_len = static_cast<uint16_t>(take);
  piece->pkt_len = take;
}

}  // namespace

// Null when the payload lies in more pieces than the port takes, or a pool is empty.
rte_mbuf* TxBuffer::build_chain(uint32_t header_bytes, const PacketQueue& payload, uint64_t offset, uint32_t length) {
  rte_mbuf* m = const_cast<rte_mbuf*>(payload.raw_head());
  while (m != nullptr && offset >= m->data_len) {
    offset -= m->data_len;
    m = m->next;
  }
  uint64_t reached = 0;
  uint32_t pieces = 0;
  for (const rte_mbuf* p = m; p != nullptr && reached < offset + length; p = p->next) reached += p->data_len, ++pieces;
  MILLRACE_ASSERT(reached >= offset + length, "payload to send is in the queue");
  if (pieces >= std::min<uint32_t>(port_.capabilities().max_tx_segments, kMaxTxSegments)) return nullptr;
  rte_mbuf* chain[kMaxTxSegments];
  if (rte_mempool_get_bulk(pools_.indirect.raw(), reinterpret_cast<void**>(chain), pieces) != 0) return nullptr;
  rte_mbuf* frame = rte_mbuf_raw_alloc(pools_.headers.raw());
  if (frame == nullptr) {
    rte_mempool_put_bulk(pools_.indirect.raw(), reinterpret_cast<void**>(chain), pieces);
    return nullptr;
  }
  reset_for_transmit(frame, header_bytes);
  frame->pkt_len = header_bytes + length;
  frame->nb_segs = static_cast<uint16_t>(1 + pieces);
  rte_mbuf* tail = frame;
  for (uint32_t i = 0; i < pieces; ++i, m = m->next) {
    if (m->next != nullptr) __builtin_prefetch(m->next, 1);
    const uint32_t take = std::min<uint32_t>(length, m->data_len - static_cast<uint32_t>(offset));
    attach(chain[i], m, static_cast<uint32_t>(offset), take);
    tail->next = chain[i];
    tail = chain[i];
    length -= take;
    offset = 0;
  }
  return frame;
}

// Beyond a burst's worth: the port is asked at once, unless it has just refused; then there is the reserve.
bool TxBuffer::make_room() {
  if (!blocked_ || count_ == kCapacity) blocked_ = offer() != 0;
  return count_ < kCapacity;
}

void TxBuffer::drop(rte_mbuf* frame) {
  drops_[static_cast<uint32_t>(DropReason::kTxQueueFull)].add();
  rte_pktmbuf_free(frame);
}

// One transmit call with everything; returns how many frames are still here, moved to the front.
uint32_t TxBuffer::offer() {
  stats::StageScope stage(stages_, stats::Stage::kTxBurst, count_);
  if (tap_->on) [[unlikely]]
    tap_->show(*tap_, tap_port_, true, frames_ + shown_, count_ - shown_);
  const uint32_t sent = port_.tx_burst(frames_, static_cast<uint16_t>(count_));
  const uint32_t left = count_ - sent;
  counters_[PortCounter::kTxBursts].add();
  counters_[PortCounter::kTxPackets].add(sent);
  // The sizes of what was sent: of all, less those that are still ours. A frame that the port took may be gone already.
  uint64_t kept = 0;
  if (left != 0) [[unlikely]] {
    counters_[PortCounter::kTxRetries].add();
    std::memmove(frames_, frames_ + sent, left * sizeof frames_[0]);
    for (uint32_t i = 0; i < left; ++i) kept += frames_[i]->pkt_len;
  }
  if (sent != 0) full_since_ = base::kNever;
  counters_[PortCounter::kTxBytes].add(bytes_ - kept);
  bytes_ = kept;
  return count_ = shown_ = left;
}

void TxBuffer::flush(base::TimeNs now) {
  if (offer() == 0) [[likely]] {
    blocked_ = false;
    return;
  }
  blocked_ = true;
  if (full_since_ == base::kNever) full_since_ = now;
  if (now - full_since_ < kGiveUpAfter) return;
  for (uint32_t i = 0; i < count_; ++i) drop(frames_[i]);
  count_ = shown_ = 0;
  bytes_ = 0;
  blocked_ = false;  // connections go on, so that TCP finds out; full_since_ stays until the port takes a frame
}

}  // namespace millrace::io
