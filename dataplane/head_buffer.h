// Where message heads live: a block of bytes with room for the parsed header table behind it. An exchange holds one for its
// request and one for its response, so that heads can be read across packets, rewritten, logged and (later) retried, while the
// packets they came in are already free. Two sizes: small ones that almost every head fits, and a few large ones for heads up to
// the limit.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <sys/mman.h>

#include "lib/base/assert.h"
#include "lib/http/message.h"

namespace millrace::dataplane {

class HeadBufferPool;

struct HeadBuffer {
  char* data = nullptr;      // head bytes first, scratch for rewritten strings behind `used`
  uint32_t capacity = 0;     // bytes at `data`
  uint32_t used = 0;         // bytes filled from the connection
  uint32_t head_length = 0;  // bytes of the complete head; 0 until it is complete
  http::Header* headers = nullptr;
  uint32_t header_capacity = 0;
  HeadBuffer* next_free = nullptr;
  bool large = false;

  std::span<char> bytes() { return {data, used}; }
  // What is left for strings made while forwarding (paths, forwarded-for lists, ids).
  std::span<char> scratch() { return {data + used, capacity - used}; }
};

// Fixed numbers of blocks, reserved at start as address space and touched only when used; LIFO, so that the hot ones stay in
// cache.
class HeadBufferPool {
 public:
  static constexpr uint32_t kSmallBytes = 8 * 1024;     // head and scratch; typical heads are below 1 KiB
  static constexpr uint32_t kSmallHeaders = 128;        // 100 (Envoy's default limit) and what the gateway adds
  static constexpr uint32_t kLargeBytes = 128 * 1024;   // 96 KiB (kMaxHeadBytes) of head, the rest scratch
  static constexpr uint32_t kLargeHeaders = 1100;       // 1,000 (the most the configuration may allow) and what the gateway adds
  static constexpr uint32_t kMaxHeadBytes = 96 * 1024;  // configuration above is refused by control

  HeadBufferPool(uint32_t small_count, uint32_t large_count) {
    small_region_ = carve(small_count, kSmallBytes, kSmallHeaders, false, &small_, &small_blocks_);
    large_region_ = carve(large_count, kLargeBytes, kLargeHeaders, true, &large_, &large_blocks_);
    small_capacity_ = small_count;
    large_capacity_ = large_count;
  }
  ~HeadBufferPool() {
    munmap(small_region_.base, small_region_.bytes);
    munmap(large_region_.base, large_region_.bytes);
    delete[] small_blocks_;
    delete[] large_blocks_;
  }
  HeadBufferPool(const HeadBufferPool&) = delete;
  HeadBufferPool& operator=(const HeadBufferPool&) = delete;

  HeadBuffer* acquire() { return take(&small_, &small_in_use_); }  // null when empty
  // Exchanges a small block for a large one, bytes copied. Null (and the small one kept) when there is none or it is large
  // already.
  HeadBuffer* grow(HeadBuffer* b) {
    if (b->large) return nullptr;
    HeadBuffer* l = take(&large_, &large_in_use_);
    if (l == nullptr) return nullptr;
    std::memcpy(l->data, b->data, b->used);
    l->used = b->used;
    release(b);
    return l;
  }
  void release(HeadBuffer* b) {
    if (b == nullptr) return;
    HeadBuffer** list = b->large ? &large_ : &small_;
    (b->large ? large_in_use_ : small_in_use_)--;
    b->next_free = *list;
    *list = b;
  }
  uint32_t in_use() const { return small_in_use_ + large_in_use_; }
  uint32_t small_in_use() const { return small_in_use_; }
  uint32_t large_in_use() const { return large_in_use_; }
  uint32_t small_capacity() const { return small_capacity_; }
  uint32_t large_capacity() const { return large_capacity_; }

 private:
  struct Region {
    void* base = nullptr;
    size_t bytes = 0;
  };
  static Region carve(uint32_t count, uint32_t bytes, uint32_t headers, bool large, HeadBuffer** list, HeadBuffer** blocks) {
    const size_t stride = bytes + ((headers * sizeof(http::Header) + 63) & ~size_t{63});
    Region r{nullptr, stride * count};
    r.base = mmap(nullptr, r.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MILLRACE_ASSERT(r.base != MAP_FAILED, "address space for head buffers");
    *blocks = new HeadBuffer[count];
    for (uint32_t i = count; i-- > 0;) {
      HeadBuffer& b = (*blocks)[i];
      b.data = static_cast<char*>(r.base) + stride * i;
      b.capacity = bytes;
      b.headers = reinterpret_cast<http::Header*>(b.data + bytes);
      b.header_capacity = headers;
      b.large = large;
      b.next_free = *list;
      *list = &b;
    }
    return r;
  }
  static HeadBuffer* take(HeadBuffer** list, uint32_t* in_use) {
    HeadBuffer* b = *list;
    if (b == nullptr) return nullptr;
    *list = b->next_free;
    ++*in_use;
    b->used = b->head_length = 0;
    return b;
  }

  HeadBuffer* small_ = nullptr;
  HeadBuffer* large_ = nullptr;
  HeadBuffer* small_blocks_ = nullptr;
  HeadBuffer* large_blocks_ = nullptr;
  Region small_region_, large_region_;
  uint32_t small_in_use_ = 0, large_in_use_ = 0, small_capacity_ = 0, large_capacity_ = 0;
};

}  // namespace millrace::dataplane
