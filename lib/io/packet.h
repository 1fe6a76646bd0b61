// The packet buffer: a thin, move-only owner over one rte_mbuf. The only file of lib/io that the layers above include
// (DESIGN section 6); it costs the hot path what the mbuf costs, and it runs without EAL on a heap-backed pool
// (tests/support/heap_packet_pool.h).
//
// Rules
//  1. A PacketPtr owns exactly one reference on exactly one *single-segment* mbuf. What a port delivers as a chain is split into
//     single segments at receive; what is sent chained is put together at transmit, in lib/io.
//  2. Bytes that were received are read-only. Only the owner of an unshared packet (refcnt 1, direct) may write, and only into
//     bytes that it appended or prepended itself.
//  3. While a packet waits in a PacketQueue its `next` field is the queue's link; outside a queue it is null.
//  4. Never a leak: the destructor frees. `release()` hands the raw mbuf to a port and ends our ownership.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include <rte_mbuf.h>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"

namespace millrace::io {

class PacketPtr {
 public:
  PacketPtr() = default;
  // Takes over one reference on `m` (may be null).
  explicit PacketPtr(rte_mbuf* m) : m_(m) {}
  PacketPtr(PacketPtr&& other) noexcept : m_(std::exchange(other.m_, nullptr)) {}
  PacketPtr& operator=(PacketPtr&& other) noexcept {
    if (this != &other) {
      reset();
      m_ = std::exchange(other.m_, nullptr);
    }
    return *this;
  }
  PacketPtr(const PacketPtr&) = delete;
  PacketPtr& operator=(const PacketPtr&) = delete;
  ~PacketPtr() { reset(); }

  explicit operator bool() const { return m_ != nullptr; }
  rte_mbuf* raw() const { return m_; }
  [[nodiscard]] rte_mbuf* release() { return std::exchange(m_, nullptr); }
  void reset() {
    if (m_ != nullptr) free(std::exchange(m_, nullptr));
  }

  uint8_t* data() const { return rte_pktmbuf_mtod(m_, uint8_t*); }
  uint32_t size() const { return m_->data_len; }
  base::ByteSpan bytes() const { return {data(), size()}; }
  uint32_t headroom() const { return rte_pktmbuf_headroom(m_); }
  uint32_t tailroom() const { return rte_pktmbuf_tailroom(m_); }
  // True when somebody else holds the same bytes (an indirect packet, or another reference).
  bool shared() const { return rte_mbuf_refcnt_read(m_) != 1 || !RTE_MBUF_DIRECT(m_); }
  // What the packet costs its pool, in bytes, whatever its payload length (data room plus the mbuf itself).
  uint32_t truesize() const { return m_->buf_len + static_cast<uint32_t>(sizeof(rte_mbuf)); }

  // Room for `n` bytes in front of / behind the data; the caller has checked headroom()/tailroom(). Returns the new bytes.
  uint8_t* prepend(uint32_t n) {
    MILLRACE_ASSERT(n <= headroom(), "prepend within the headroom");
    m_->data_off = static_cast<uint16_t>(m_->data_off - n);
    set_size(m_->data_len + n);
    return data();
  }
  uint8_t* append(uint32_t n) {
    MILLRACE_ASSERT(n <= tailroom(), "append within the tailroom");
    uint8_t* at = data() + m_->data_len;
    set_size(m_->data_len + n);
    return at;
  }
  void trim_front(uint32_t n) {
    MILLRACE_ASSERT(n <= size(), "trim within the data");
    m_->data_off = static_cast<uint16_t>(m_->data_off + n);
    set_size(m_->data_len - n);
  }
  void trim_back(uint32_t n) {
    MILLRACE_ASSERT(n <= size(), "trim within the data");
    set_size(m_->data_len - n);
  }

 private:
  // Of its own, so that the many destructors of empty owners are a test and nothing else. What nearly every packet is - the only
  // reference to bytes of its own, on a core with room in its share of the pool - goes straight back; the rest is DPDK's.
  [[gnu::noinline]] static void free(rte_mbuf* m) {
    rte_mempool_cache* cache = rte_mempool_default_cache(m->pool, rte_lcore_id());
    const bool usual = rte_mbuf_refcnt_read(m) == 1 && RTE_MBUF_DIRECT(m);
    if (!usual || cache == nullptr || cache->len >= cache->flushthresh) [[unlikely]]
      return free_any(m);
    m->next = nullptr;
    m->nb_segs = 1;
    cache->objs[cache->len++] = m;
  }
  [[gnu::noinline, gnu::cold]] static void free_any(rte_mbuf* m) { rte_pktmbuf_free_seg(m); }
  void set_size(uint32_t n) {
    m_->data_len = static_cast<uint16_t>(n);
    m_->pkt_len = n;
  }
  rte_mbuf* m_ = nullptr;
};

// A pool of equal packets. Does not own the mempool: whoever made it (lib/io/packet_pool.h for the data plane, HeapPacketPool for
// tests) does.
class PacketPool {
 public:
  PacketPool() = default;
  explicit PacketPool(rte_mempool* mp) : mp_(mp) {}

  // Null when the pool is empty; the caller then has a designed answer (DESIGN section 11).
  PacketPtr alloc() { return PacketPtr(rte_pktmbuf_alloc(mp_)); }
  uint32_t available() const { return rte_mempool_avail_count(mp_); }
  uint32_t capacity() const { return mp_->size; }
  // Payload bytes that fit into a fresh packet behind the standard headroom.
  uint32_t data_room() const { return rte_pktmbuf_data_room_size(mp_) - RTE_PKTMBUF_HEADROOM; }
  rte_mempool* raw() const { return mp_; }

 private:
  rte_mempool* mp_ = nullptr;
};

}  // namespace millrace::io
