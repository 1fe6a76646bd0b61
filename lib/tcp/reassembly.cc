#include "lib/tcp/reassembly.h"

#include <algorithm>
#include <utility>

#include "lib/tcp/seq.h"

namespace millrace::tcp {
namespace {

uint32_t truesize_of(const rte_mbuf* m) { return m->buf_len + static_cast<uint32_t>(sizeof(rte_mbuf)); }

}  // namespace

void Reassembly::link_after(rte_mbuf* prev, rte_mbuf* m) {
  rte_mbuf*& slot = prev == nullptr ? head_ : prev->next;
  m->next = slot;
  slot = m;
  if (m->next == nullptr) tail_ = m;
  bytes_ += m->data_len;
  truesize_ += truesize_of(m);
}

// The whole range behind `prev`, which is the last packet of another one, or null: the first range.
void Reassembly::drop_range_after(rte_mbuf* prev) {
  rte_mbuf*& slot = prev == nullptr ? head_ : prev->next;
  rte_mbuf* const last = last_of(slot);
  if (latest_ == slot) latest_ = nullptr;
  if (highest_ == slot) highest_ = nullptr;  // the caller's to mend
  for (bool more = true; more;) {
    rte_mbuf* m = std::exchange(slot, slot->next);
    more = m != last;
    bytes_ -= m->data_len;
    truesize_ -= truesize_of(m);
    m->next = nullptr;
    m->tx_offload = 0;
    io::PacketPtr(m).reset();
  }
  if (tail_ == last) tail_ = prev;
  --ranges_;
}

bool Reassembly::appendable(const rte_mbuf* m, uint32_t n) {
  return n <= io::PacketQueue::kCopyBelow && rte_mbuf_refcnt_read(m) == 1 && RTE_MBUF_DIRECT(m) && rte_pktmbuf_tailroom(m) >= n;
}

void Reassembly::append_to(rte_mbuf* m, base::ByteSpan bytes) {
  std::memcpy(rte_pktmbuf_mtod_offset(m, uint8_t*, m->data_len), bytes.data(), bytes.size());
  m->data_len = static_cast<uint16_t>(m->data_len + bytes.size());
  m->pkt_len = m->data_len;
  bytes_ += static_cast<uint32_t>(bytes.size());
}

// The highest range that begins at `seq` or below; null: there is none. False: too far to look.
bool Reassembly::find(uint32_t seq, rte_mbuf*& range) const {
  range = nullptr;
  if (highest_ != nullptr && seq_ge(seq, seq_of(highest_))) {  // most segments continue the highest range, or start one above it
    range = highest_;
    return true;
  }
  rte_mbuf* m = latest_ != nullptr && seq_ge(seq, seq_of(latest_)) ? latest_ : head_;
  for (uint32_t walked = 0; m != nullptr && seq_le(seq_of(m), seq); m = range_after(m)) {
    if (++walked > kMaxWalk) return false;
    range = m;
  }
  return true;
}

Reassembly::Outcome Reassembly::insert(uint32_t seq, io::PacketPtr p, uint32_t max_truesize) {
  rte_mbuf* range = nullptr;
  if (!find(seq, range)) return Outcome::kFull;
  rte_mbuf* const prev = range == nullptr ? nullptr : last_of(range);
  if (prev != nullptr && seq_lt(seq, end_of(prev))) {
    const uint32_t overlap = end_of(prev) - seq;
    if (overlap >= p.size()) {
      note_recent(seq_of(range), end_of(prev));
      return Outcome::kDuplicate;
    }
    p.trim_front(overlap);
    seq += overlap;
  }
  const bool joins_left = prev != nullptr && seq == end_of(prev);
  const bool append = joins_left && appendable(prev, p.size());  // small pieces do not pin a buffer each
  if (truesize_ + p.truesize() > max_truesize && !append) return Outcome::kFull;

  // What lies above: ranges that the new bytes cover go, the first that they only reach into cuts them short.
  const uint32_t end = seq + p.size();
  const auto above = [&] { return prev == nullptr ? head_ : prev->next; };
  while (above() != nullptr && seq_le(end_of(last_of(above())), end)) drop_range_after(prev);
  rte_mbuf* const next = above();
  if (next != nullptr && seq_gt(end, seq_of(next))) p.trim_back(end - seq_of(next));  // a byte is left: it starts above `seq`
  const bool joins_right = next != nullptr && seq + p.size() == seq_of(next);

  rte_mbuf* last = prev;
  if (append) {
    append_to(prev, p.bytes());
  } else {
    last = p.release();
    last->hash.usr = seq;
    link_after(prev, last);
  }
  rte_mbuf* const first = joins_left ? range : last;
  if (joins_right) {
    last = last_of(next);
    next->tx_offload = 0;
  }
  set_last(first, last);
  if (joins_left && joins_right) --ranges_;
  if (!joins_left && !joins_right) ++ranges_;
  if (last == tail_) highest_ = first;
  latest_ = first;
  note_recent(seq_of(first), end_of(last));
  return Outcome::kStored;
}

uint32_t Reassembly::deliver(uint32_t rcv_nxt, io::PacketQueue& out) {
  uint32_t moved = 0;
  while (head_ != nullptr && seq_le(seq_of(head_), rcv_nxt)) {
    rte_mbuf* m = head_;
    rte_mbuf* const last = last_of(m);
    head_ = m->next;
    if (head_ == nullptr) tail_ = nullptr;
    rte_mbuf* const rest = m == last ? nullptr : head_;  // of its range
    if (rest != nullptr) set_last(rest, last);
    else --ranges_;
    if (latest_ == m) latest_ = rest;
    if (highest_ == m) highest_ = rest;
    m->next = nullptr;
    m->tx_offload = 0;
    bytes_ -= m->data_len;
    truesize_ -= truesize_of(m);
    io::PacketPtr p(m);
    const uint32_t old = std::min<uint32_t>(rcv_nxt - seq_of(m), p.size());
    p.trim_front(old);
    rcv_nxt += p.size();
    moved += p.size();
    out.push(std::move(p));
  }
  // Ranges at or below rcv_nxt are acknowledged and no longer reported.
  uint8_t kept = 0;
  for (uint8_t i = 0; i < recent_count_; ++i)
    if (seq_gt(recent_[i].right, rcv_nxt)) recent_[kept++] = recent_[i];
  recent_count_ = kept;
  return moved;
}

void Reassembly::clear() {
  while (head_ != nullptr) drop_range_after(nullptr);
  recent_count_ = 0;
  has_duplicate_ = false;
}

void Reassembly::note_recent(uint32_t left, uint32_t right) {
  std::array<wire::SackBlock, kMaxRecent> old = recent_;
  const uint8_t old_count = recent_count_;
  recent_[0] = {left, right};
  recent_count_ = 1;
  for (uint8_t i = 0; i < old_count && recent_count_ < kMaxRecent; ++i) {
    const bool touches = seq_le(old[i].left, right) && seq_ge(old[i].right, left);
    if (!touches) recent_[recent_count_++] = old[i];
  }
}

void Reassembly::report(wire::SackBlocks& out, uint32_t max_blocks) {
  if (has_duplicate_ && max_blocks > 0) {
    out.push(duplicate_);
    has_duplicate_ = false;
    --max_blocks;
  }
  for (uint8_t i = 0; i < recent_count_ && max_blocks > 0; ++i, --max_blocks) out.push(recent_[i]);
}

}  // namespace millrace::tcp
