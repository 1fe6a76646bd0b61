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

void Reassembly::unlink_after(rte_mbuf* prev) {
  rte_mbuf*& slot = prev == nullptr ? head_ : prev->next;
  rte_mbuf* m = std::exchange(slot, slot->next);
  if (tail_ == m) tail_ = prev;
  bytes_ -= m->data_len;
  truesize_ -= truesize_of(m);
  m->next = nullptr;
  io::PacketPtr(m).reset();
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

Reassembly::Outcome Reassembly::insert(uint32_t seq, io::PacketPtr p, uint32_t max_truesize) {
  // Most segments continue the highest range, or start one above it: no walk.
  rte_mbuf* prev = nullptr;
  bool at_tail = false;
  uint32_t left = seq;  // of the range that the new bytes end up in
  if (tail_ != nullptr && seq_ge(seq, end_of(tail_))) {
    prev = tail_;
    at_tail = true;
    if (seq == end_of(tail_)) left = last_left_;
  } else {
    uint32_t run = seq;  // left end of the range that prev belongs to
    for (rte_mbuf* m = head_; m != nullptr && seq_le(seq_of(m), seq); m = m->next) {
      if (prev == nullptr || end_of(prev) != seq_of(m)) run = seq_of(m);
      prev = m;
      if (seq_ge(seq, end_of(m))) continue;
      const uint32_t overlap = end_of(m) - seq;
      if (overlap >= p.size()) {
        note_recent(run, run_end(m));
        return Outcome::kDuplicate;
      }
      p.trim_front(overlap);
      seq += overlap;
    }
    if (prev != nullptr && seq == end_of(prev)) left = run;
  }
  const bool joins_left = prev != nullptr && seq == end_of(prev);
  if (!joins_left) left = seq;
  const bool append = joins_left && appendable(prev, p.size());  // small pieces do not pin a buffer each
  if (truesize_ + p.truesize() > max_truesize && !append) return Outcome::kFull;
  if (!joins_left && ranges_ >= kMaxRanges) return Outcome::kFull;

  // What lies above: packets that the new one covers go, the first that it only reaches into cuts it short.
  uint32_t end = seq + p.size();
  if (!at_tail) {
    const auto above = [&] { return prev == nullptr ? head_ : prev->next; };
    while (above() != nullptr && seq_le(end_of(above()), end)) {
      unlink_after(prev);
    }
    if (above() != nullptr && seq_gt(end, seq_of(above()))) {
      p.trim_back(end - seq_of(above()));  // at least one byte is left: what lies above starts above `seq`
      end = seq_of(above());
    }
  }
  if (append) {
    append_to(prev, p.bytes());
  } else {
    rte_mbuf* m = p.release();
    m->hash.usr = seq;
    link_after(prev, m);
    prev = m;
  }
  uint32_t right = end;
  if (at_tail) {
    if (!joins_left) {
      ++ranges_;
      last_left_ = seq;
    }
  } else {
    right = run_end(prev);
    recount();
  }
  note_recent(left, right);
  return Outcome::kStored;
}

uint32_t Reassembly::deliver(uint32_t rcv_nxt, io::PacketQueue& out) {
  uint32_t moved = 0;
  while (head_ != nullptr && seq_le(seq_of(head_), rcv_nxt)) {
    rte_mbuf* m = head_;
    head_ = m->next;
    if (head_ == nullptr) tail_ = nullptr;
    m->next = nullptr;
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
  recount();
  return moved;
}

void Reassembly::clear() {
  while (head_ != nullptr) unlink_after(nullptr);
  ranges_ = 0;
  recent_count_ = 0;
  has_duplicate_ = false;
}

uint32_t Reassembly::run_end(const rte_mbuf* m) {
  uint32_t right = end_of(m);
  while ((m = m->next) != nullptr && seq_of(m) == right) right = end_of(m);
  return right;
}

void Reassembly::recount() {
  ranges_ = 0;
  const rte_mbuf* prev = nullptr;
  for (const rte_mbuf* m = head_; m != nullptr; prev = m, m = m->next) {
    if (prev == nullptr || end_of(prev) != seq_of(m)) {
      ++ranges_;
      last_left_ = seq_of(m);
    }
  }
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
