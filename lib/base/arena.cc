#include "lib/base/arena.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <sys/mman.h>

#include "lib/base/assert.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace millrace::base {
namespace {

// Size classes: every 16 bytes up to 128, then four a doubling up to 16 KiB, then a third and a half of a span: a record buffer
// of OpenSSL (16.7 KB) is a third. Larger blocks are runs of whole spans.
constexpr auto kClassBytes = [] {
  std::array<uint32_t, 38> c{};
  unsigned n = 0;
  for (uint32_t b = 16; b <= 128; b += 16) c[n++] = b;
  for (uint32_t base = 128; base < 16384; base *= 2)
    for (uint32_t quarter = 1; quarter <= 4; ++quarter) c[n++] = base + base / 4 * quarter;
  c[n++] = 21840;
  c[n++] = 32768;
  return c;
}();
constexpr unsigned kClasses = kClassBytes.size();
static_assert(kClassBytes[35] == 16384 && kClassBytes[37] == 32768);

// bytes > 0. kClasses: larger than the largest class.
unsigned class_of(size_t bytes) {
  if (bytes <= 128) return static_cast<unsigned>((bytes + 15) / 16 - 1);
  if (bytes <= 16384) {
    const unsigned log = 63 - static_cast<unsigned>(std::countl_zero(static_cast<uint64_t>(bytes - 1)));  // 2^log <= bytes-1
    const unsigned quarter = static_cast<unsigned>((bytes - 1) >> (log - 2)) & 3;
    return 8 + (log - 7) * 4 + quarter;
  }
  return bytes <= kClassBytes[36] ? 36 : bytes <= kClassBytes[37] ? 37 : kClasses;
}

constexpr uint32_t kNil = UINT32_MAX;
enum SpanState : uint8_t { kFree, kSmall, kLarge, kLargeTail };

struct Span {
  void* free = nullptr;               // blocks given back, linked through their first word
  uint32_t live = 0;                  // blocks out
  uint32_t bump = 0;                  // blocks that were ever handed out: those from here on are fresh
  uint32_t prev = kNil, next = kNil;  // free list, or the class's list of spans with room
  uint32_t run = 0;                   // kLarge: spans of the run
  uint8_t size_class = 0;
  SpanState state = kFree;
  bool listed = false;  // kSmall: on the class's list
};

std::array<std::atomic<Arena*>, kMaxArenas> g_arenas{};
std::atomic<unsigned> g_arena_slots{0};  // slots ever used, so that a search is short
constinit thread_local Arena* t_arena = nullptr;

void bump(uint64_t& counter, uint64_t by = 1) {
  std::atomic_ref<uint64_t>(counter).store(counter + by, std::memory_order_relaxed);
}
void lower(uint64_t& counter, uint64_t by) { std::atomic_ref<uint64_t>(counter).store(counter - by, std::memory_order_relaxed); }

}  // namespace

struct Arena::Impl {
  Span* spans = nullptr;
  uint32_t span_count = 0;
  uint32_t free_head = kNil;
  std::array<uint32_t, kClasses> partial;  // per class: spans with room
  ArenaCounters counters;
  void* mapping = nullptr;  // null: memory of the caller
  size_t mapping_bytes = 0;
  unsigned slot = 0;
  alignas(64) std::atomic<void*> remote{nullptr};  // blocks freed by other threads: push release, take-all acquire

  void unlink(uint32_t& head, uint32_t i) {
    Span& s = spans[i];
    if (s.prev != kNil) spans[s.prev].next = s.next;
    else head = s.next;
    if (s.next != kNil) spans[s.next].prev = s.prev;
    s.prev = s.next = kNil;
  }
  void push(uint32_t& head, uint32_t i) {
    Span& s = spans[i];
    s.prev = kNil;
    s.next = head;
    if (head != kNil) spans[head].prev = i;
    head = i;
  }
  void give_back(Arena& a, uint32_t i) {
    spans[i] = Span{};
    push(free_head, i);
    ++a.free_spans_;
  }
  uint32_t take_span(Arena& a) {
    const uint32_t i = free_head;
    if (i != kNil) {
      unlink(free_head, i);
      --a.free_spans_;
    }
    return i;
  }
  // First fit: large blocks are rare on a poll core (certificate chains and session tables beyond 32 KiB).
  uint32_t take_run(Arena& a, uint32_t n) {
    for (uint32_t i = 0, run = 0; i < span_count; ++i) {
      run = spans[i].state == kFree ? run + 1 : 0;
      if (run < n) continue;
      const uint32_t first = i + 1 - n;
      for (uint32_t k = first; k <= i; ++k) {
        unlink(free_head, k);
        spans[k].state = kLargeTail;
        --a.free_spans_;
      }
      return first;
    }
    return kNil;
  }
  size_t usable(const Arena& a, const void* block) const {
    const Span& s = spans[index(a, block)];
    return s.state == kLarge ? s.run * kArenaSpanBytes : kClassBytes[s.size_class];
  }
  uint32_t index(const Arena& a, const void* block) const {
    return static_cast<uint32_t>(static_cast<size_t>(static_cast<const uint8_t*>(block) - a.base_) / kArenaSpanBytes);
  }
  void drain(Arena& a) {
    void* block = remote.exchange(nullptr, std::memory_order_acquire);
    while (block != nullptr) {
      void* next;
      std::memcpy(&next, block, sizeof next);
      bump(counters.remote_frees);
      release(a, block);
      block = next;
    }
  }
  void release(Arena& a, void* block) {
    const uint32_t i = index(a, block);
    Span& s = spans[i];
    const size_t bytes = usable(a, block);
    bump(counters.frees);
    lower(counters.in_use, bytes);
    if (s.state == kLarge) {
      const uint32_t run = s.run;
      ASAN_POISON_MEMORY_REGION(block, bytes);
      for (uint32_t k = i; k < i + run; ++k) give_back(a, k);
      return;
    }
    MILLRACE_ASSERT(s.state == kSmall && s.live > 0, "a block that is freed was handed out before");
    std::memcpy(block, &s.free, sizeof s.free);
    ASAN_POISON_MEMORY_REGION(static_cast<uint8_t*>(block) + sizeof(void*), bytes - sizeof(void*));
    s.free = block;
    --s.live;
    uint32_t& head = partial[s.size_class];
    if (!s.listed) {
      push(head, i);
      s.listed = true;
    }
    // An empty span goes back, unless it is the last one of its class: no ping-pong on the hot path.
    if (s.live == 0 && (head != i || s.next != kNil)) {
      unlink(head, i);
      give_back(a, i);
    }
  }
};

Arena* Arena::create(size_t bytes) {
  bytes = (std::max(bytes, kArenaMinBytes) + kArenaSpanBytes - 1) / kArenaSpanBytes * kArenaSpanBytes;
  constexpr size_t kHugePage = 2 * 1024 * 1024;
  const size_t total = bytes + kHugePage;
  void* m = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) return nullptr;
  uint8_t* base = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(m) + kHugePage - 1) / kHugePage * kHugePage);
  (void)::madvise(base, bytes, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
  const bool populated = ::madvise(base, bytes, MADV_POPULATE_WRITE) == 0;
#else
  const bool populated = false;
#endif
  if (!populated) {
    for (size_t i = 0; i < bytes; i += 4096) static_cast<volatile uint8_t*>(base)[i] = 0;
  }
  Arena* a = create_over(base, bytes);
  if (a == nullptr) {
    ::munmap(m, total);
    return nullptr;
  }
  a->impl_->mapping = m;
  a->impl_->mapping_bytes = total;
  return a;
}

Arena* Arena::create_over(void* memory, size_t bytes) {
  MILLRACE_ASSERT(reinterpret_cast<uintptr_t>(memory) % kArenaSpanBytes == 0 && bytes % kArenaSpanBytes == 0,
                  "spans are aligned");
  auto* a = new (std::nothrow) Arena;
  auto* impl = new (std::nothrow) Impl;
  if (a == nullptr || impl == nullptr) {
    delete a;
    delete impl;
    return nullptr;
  }
  a->impl_ = impl;
  impl->span_count = static_cast<uint32_t>(bytes / kArenaSpanBytes);
  impl->spans = new (std::nothrow) Span[impl->span_count];
  impl->partial.fill(kNil);
  impl->counters.capacity = bytes;
  a->base_ = static_cast<uint8_t*>(memory);
  a->end_ = a->base_ + bytes;
  if (impl->spans != nullptr) {
    for (uint32_t i = impl->span_count; i-- > 0;) impl->give_back(*a, i);
    for (unsigned i = 0; i < kMaxArenas; ++i) {
      Arena* expected = nullptr;
      if (g_arenas[i].load(std::memory_order_relaxed) == nullptr &&
          g_arenas[i].compare_exchange_strong(expected, a, std::memory_order_release)) {
        impl->slot = i;
        unsigned slots = g_arena_slots.load(std::memory_order_relaxed);
        while (slots < i + 1 && !g_arena_slots.compare_exchange_weak(slots, i + 1, std::memory_order_release)) {
        }
        ASAN_POISON_MEMORY_REGION(memory, bytes);
        return a;
      }
    }
  }
  delete[] impl->spans;
  delete impl;
  delete a;
  return nullptr;
}

void Arena::destroy(Arena* a) {
  if (a == nullptr) return;
  MILLRACE_ASSERT(a->in_use() == 0, "an arena is destroyed when nothing of it is in use");
  MILLRACE_ASSERT(t_arena != a, "an arena is destroyed when no thread has it");
  g_arenas[a->impl_->slot].store(nullptr, std::memory_order_release);
  ASAN_UNPOISON_MEMORY_REGION(a->base_, static_cast<size_t>(a->end_ - a->base_));
  if (a->impl_->mapping != nullptr) ::munmap(a->impl_->mapping, a->impl_->mapping_bytes);
  delete[] a->impl_->spans;
  delete a->impl_;
  delete a;
}

void Arena::register_thread(Arena* arena) { t_arena = arena; }
Arena* Arena::of_this_thread() { return t_arena; }

Arena* Arena::owner_of(const void* p) {
  if (t_arena != nullptr && t_arena->owns(p)) return t_arena;
  const unsigned n = g_arena_slots.load(std::memory_order_acquire);
  for (unsigned i = 0; i < n; ++i) {
    Arena* a = g_arenas[i].load(std::memory_order_acquire);
    if (a != nullptr && a != t_arena && a->owns(p)) return a;
  }
  return nullptr;
}


void* Arena::allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  Impl& im = *impl_;
  if (im.remote.load(std::memory_order_relaxed) != nullptr) im.drain(*this);
  if (__builtin_expect(fail_after_ != UINT64_MAX, 0)) {
    if (fail_after_ == 0) {
      bump(im.counters.exhausted);
      return nullptr;
    }
    --fail_after_;
  }
  void* block = nullptr;
  size_t granted = 0;
  const unsigned c = class_of(bytes);
  if (c == kClasses) {
    const size_t spans = (bytes + kArenaSpanBytes - 1) / kArenaSpanBytes;
    const uint32_t first = spans <= free_spans_ ? im.take_run(*this, static_cast<uint32_t>(spans)) : kNil;
    if (first != kNil) {
      im.spans[first].state = kLarge;
      im.spans[first].run = static_cast<uint32_t>(spans);
      block = base_ + first * kArenaSpanBytes;
      granted = spans * kArenaSpanBytes;
    }
  } else {
    granted = kClassBytes[c];
    uint32_t i = im.partial[c];
    if (i == kNil && (i = im.take_span(*this)) != kNil) {
      im.spans[i].state = kSmall;
      im.spans[i].size_class = static_cast<uint8_t>(c);
      im.spans[i].listed = true;
      im.push(im.partial[c], i);
    }
    if (i != kNil) {
      Span& s = im.spans[i];
      if (s.free != nullptr) {
        block = s.free;
        std::memcpy(&s.free, block, sizeof s.free);
      } else {
        block = base_ + i * kArenaSpanBytes + s.bump++ * granted;
      }
      ++s.live;
      if (s.free == nullptr && (s.bump + 1) * granted > kArenaSpanBytes) {
        im.unlink(im.partial[c], i);
        s.listed = false;
      }
    }
  }
  if (block == nullptr) {
    bump(im.counters.exhausted);
    return nullptr;
  }
  ASAN_UNPOISON_MEMORY_REGION(block, granted);
  bump(im.counters.allocations);
  bump(im.counters.in_use, granted);
  if (im.counters.in_use > im.counters.peak) bump(im.counters.peak, im.counters.in_use - im.counters.peak);
  return block;
}

void* Arena::reallocate(void* block, size_t bytes) {
  if (block == nullptr) return allocate(bytes);
  if (bytes == 0) {
    free_local(block);
    return nullptr;
  }
  const size_t have = impl_->usable(*this, block);
  // Stay in place while it fits and is not absurdly large for it.
  if (bytes <= have && (have <= 512 || bytes * 2 > have)) return block;
  void* fresh = allocate(bytes);
  if (fresh == nullptr) return bytes <= have ? block : nullptr;
  std::memcpy(fresh, block, std::min(have, bytes));
  free_local(block);
  return fresh;
}

void Arena::free_local(void* block) {
  if (block != nullptr) impl_->release(*this, block);
}

void Arena::free_remote(void* block) {
  void* head = impl_->remote.load(std::memory_order_relaxed);
  do {
    std::memcpy(block, &head, sizeof head);
  } while (!impl_->remote.compare_exchange_weak(head, block, std::memory_order_release, std::memory_order_relaxed));
}

bool Arena::has_room(size_t bytes) const {
  const unsigned c = class_of(bytes);
  return free_spans_ != 0 || (c < kClasses && impl_->partial[c] != kNil);
}

uint64_t Arena::in_use() {
  impl_->drain(*this);
  return impl_->counters.in_use;
}

ArenaCounters Arena::counters() const {
  const auto read = [](uint64_t& v) { return std::atomic_ref<uint64_t>(v).load(std::memory_order_relaxed); };
  ArenaCounters& c = impl_->counters;
  return {read(c.in_use),       read(c.peak),          c.capacity,       read(c.allocations), read(c.frees),
          read(c.remote_frees), read(c.foreign_frees), read(c.exhausted)};
}

size_t Arena::usable_bytes(const void* block) const { return impl_->usable(*this, block); }
void Arena::count_foreign_free() { bump(impl_->counters.foreign_frees); }

}  // namespace millrace::base
