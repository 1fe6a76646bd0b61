// A FIFO of bytes held in packets: the receive queue, the send queue and every body buffer of the gateway.
// Packets are linked through their own `next` field, so a queue needs no memory of its own and moving a packet from one
// connection to another is a few stores. Not thread-safe: a queue belongs to one worker.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "lib/io/packet.h"

namespace millrace::io {

class PacketQueue {
 public:
  PacketQueue() = default;
  PacketQueue(PacketQueue&& o) noexcept { swap(o); }
  PacketQueue& operator=(PacketQueue&& o) noexcept {
    if (this != &o) {
      clear();
      swap(o);
    }
    return *this;
  }
  PacketQueue(const PacketQueue&) = delete;
  PacketQueue& operator=(const PacketQueue&) = delete;
  ~PacketQueue() { clear(); }

  bool empty() const { return head_ == nullptr; }
  uint64_t bytes() const { return bytes_; }        // payload
  uint64_t truesize() const { return truesize_; }  // what the pools have lent, in bytes
  uint32_t packets() const {                       // O(packets)
    uint32_t n = 0;
    for (const rte_mbuf* m = head_; m != nullptr; m = m->next) ++n;
    return n;
  }

  // Takes ownership. Empty packets are freed at once. A payload of at most kCopyBelow bytes is copied into the tail packet when
  // that is unshared and has room, so that many small segments do not pin a buffer each.
  void push(PacketPtr p) {
    if (!p || p.size() == 0) return;
    if (p.size() <= kCopyBelow && try_append(p.bytes())) return;
    link(p.release());
  }
  // Takes ownership without coalescing: the packet keeps its identity.
  void push_whole(PacketPtr p) {
    if (p && p.size() != 0) link(p.release());
  }
  // Puts a packet back in front of all others (an unread remainder). No coalescing.
  void push_front(PacketPtr p) {
    if (!p || p.size() == 0) return;
    rte_mbuf* m = p.release();
    account(m, +1);
    m->next = head_;
    head_ = m;
    if (tail_ == nullptr) tail_ = m;
  }
  // Copies `s` in, filling the tail first, then fresh packets of `pool`. Returns how many bytes were taken: less than all of them
  // only when the pool is empty.
  size_t append_copy(base::ByteSpan s, PacketPool& pool) {
    size_t done = 0;
    while (done < s.size()) {
      if (tail_ == nullptr || tail_shared() || rte_pktmbuf_tailroom(tail_) == 0) {
        PacketPtr fresh = pool.alloc();
        if (!fresh) break;
        link(fresh.release());
      }
      const uint32_t n = static_cast<uint32_t>(std::min<size_t>(s.size() - done, rte_pktmbuf_tailroom(tail_)));
      append_to_tail(s.data() + done, n);
      done += n;
    }
    return done;
  }
  size_t append_copy(std::string_view s, PacketPool& pool) { return append_copy(base::as_bytes(s), pool); }

  // The first packet's bytes; empty when the queue is.
  base::ByteSpan front() const {
    return head_ == nullptr ? base::ByteSpan{} : base::ByteSpan{rte_pktmbuf_mtod(head_, const uint8_t*), head_->data_len};
  }
  PacketPtr pop() {
    if (head_ == nullptr) return {};
    rte_mbuf* m = head_;
    head_ = m->next;
    if (head_ == nullptr) tail_ = nullptr;
    m->next = nullptr;
    account(m, -1);
    return PacketPtr(m);
  }
  // Drops the first n bytes. n <= bytes().
  void consume(uint64_t n) {
    MILLRACE_ASSERT(n <= bytes_, "consume what is there");
    while (n > 0) {
      if (n >= head_->data_len) {
        n -= head_->data_len;
        pop();
      } else {
        head_->data_off = static_cast<uint16_t>(head_->data_off + n);
        head_->data_len = static_cast<uint16_t>(head_->data_len - n);
        head_->pkt_len = head_->data_len;
        bytes_ -= static_cast<uint32_t>(n);
        n = 0;
      }
    }
  }
  // Copies up to `n` bytes from `offset` on into `out`; returns how many there were.
  size_t peek(uint64_t offset, uint8_t* out, size_t n) const {
    size_t done = 0;
    for (const rte_mbuf* m = head_; m != nullptr && done < n; m = m->next) {
      if (offset >= m->data_len) {
        offset -= m->data_len;
        continue;
      }
      const size_t take = std::min<size_t>(n - done, m->data_len - offset);
      std::memcpy(out + done, rte_pktmbuf_mtod(m, const uint8_t*) + offset, take);
      done += take;
      offset = 0;
    }
    return done;
  }
  // Calls f(ByteSpan) for each contiguous run of the n bytes from `offset`; stops early when f returns false.
  template <class F>
  void for_each(uint64_t offset, uint64_t n, F&& f) const {
    for (const rte_mbuf* m = head_; m != nullptr && n > 0; m = m->next) {
      if (offset >= m->data_len) {
        offset -= m->data_len;
        continue;
      }
      const uint64_t take = std::min<uint64_t>(n, m->data_len - offset);
      if (!f(base::ByteSpan{rte_pktmbuf_mtod(m, const uint8_t*) + offset, static_cast<size_t>(take)})) return;
      n -= take;
      offset = 0;
    }
  }
  // Moves the first n bytes to the end of `to`: whole packets by reference, the last part by a copy into packets of `pool`.
  // Returns how many bytes moved (less than min(n, bytes()) only when the pool is empty).
  uint64_t move_to(PacketQueue& to, uint64_t n, PacketPool& pool) {
    uint64_t moved = 0;
    n = std::min<uint64_t>(n, bytes_);
    while (moved < n) {
      if (head_->data_len <= n - moved) {
        const uint32_t len = head_->data_len;
        to.push(pop());
        moved += len;
      } else {
        const size_t part = to.append_copy(front().first(static_cast<size_t>(n - moved)), pool);
        consume(part);
        moved += part;
        break;
      }
    }
    return moved;
  }
  void clear() {
    while (head_ != nullptr) pop();
  }
  void swap(PacketQueue& o) noexcept {
    std::swap(head_, o.head_);
    std::swap(tail_, o.tail_);
    std::swap(bytes_, o.bytes_);
    std::swap(truesize_, o.truesize_);
  }
  // The packets themselves, for a transmit path that chains them; valid until the queue changes.
  const rte_mbuf* raw_head() const { return head_; }

  static constexpr uint32_t kCopyBelow = 512;  // bytes; DESIGN section 6

 private:
  bool tail_shared() const { return rte_mbuf_refcnt_read(tail_) != 1 || !RTE_MBUF_DIRECT(tail_); }
  bool try_append(base::ByteSpan s) {
    if (tail_ == nullptr || tail_shared() || rte_pktmbuf_tailroom(tail_) < s.size()) return false;
    append_to_tail(s.data(), static_cast<uint32_t>(s.size()));
    return true;
  }
  void append_to_tail(const uint8_t* p, uint32_t n) {
    std::memcpy(rte_pktmbuf_mtod_offset(tail_, uint8_t*, tail_->data_len), p, n);
    tail_->data_len = static_cast<uint16_t>(tail_->data_len + n);
    tail_->pkt_len = tail_->data_len;
    bytes_ += n;
  }
  void link(rte_mbuf* m) {
    m->next = nullptr;
    if (tail_ != nullptr) tail_->next = m;
    else head_ = m;
    tail_ = m;
    account(m, +1);
  }
  void account(const rte_mbuf* m, int sign) {
    bytes_ += static_cast<uint32_t>(sign * int32_t{m->data_len});
    truesize_ += static_cast<uint32_t>(sign * static_cast<int32_t>(m->buf_len + sizeof(rte_mbuf)));
  }

  rte_mbuf* head_ = nullptr;
  rte_mbuf* tail_ = nullptr;
  uint32_t bytes_ = 0;  // 4 GiB are more than any queue's limit
  uint32_t truesize_ = 0;
};
static_assert(sizeof(PacketQueue) == 24, "two of them are in every TCB");

}  // namespace millrace::io
