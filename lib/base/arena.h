// Memory for libraries that want malloc on poll cores, where there is no heap: OpenSSL (lib/tls/memory.h) and nghttp2
// (lib/http/h2_connection.h). A poll core registers an Arena once; threads without one use malloc as ever.
//
//  1. An Arena has one owner thread at a time. Only that thread allocates from it.
//  2. Any thread may free any block. The owner of a block is found by its address; a free by another thread goes onto the owner's
//     remote list, one atomic push: (release, pairs with the acquire exchange in the owner's next drain); the owner takes the
//     whole list at once, so there is no ABA.
//  3. Exhaustion is an answer, not an accident: allocation returns null and is counted.
//  4. An Arena lives as long as any block of it does: it is released at the end of the process, or when in_use() is 0.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace millrace::base {

inline constexpr size_t kArenaSpanBytes = 64 * 1024;       // unit in which an arena hands memory to its size classes
inline constexpr size_t kArenaMinBytes = 4 * 1024 * 1024;  // an arena below this could not hold one span of every size class
inline constexpr unsigned kMaxArenas = 256;                // registered at one time: workers and helpers of one process

struct ArenaCounters {    // writer: the owner thread; may be read by others as a snapshot
  uint64_t in_use = 0;    // bytes handed out, rounded up to their size class
  uint64_t peak = 0;      // most of that
  uint64_t capacity = 0;  // bytes of all spans
  uint64_t allocations = 0, frees = 0;
  uint64_t remote_frees = 0;   // of those frees: by other threads
  uint64_t foreign_frees = 0;  // malloc'ed blocks that the owner thread freed (contexts are built elsewhere; should stay near 0)
  uint64_t exhausted = 0;      // allocations refused
};

class Arena {
 public:
  // Reserves `bytes` (rounded up to spans, at least kArenaMinBytes) of zeroed, locked-in-advance memory: anonymous mapping,
  // populated, huge pages where the kernel gives them. For ordinary threads. Null when the machine has not got it, or kMaxArenas
  // are in use.
  static Arena* create(size_t bytes);
  // Over memory of the caller (64 KiB aligned, bytes a multiple of it), e.g. from a hugepage heap on the worker's NUMA node.
  static Arena* create_over(void* memory, size_t bytes);
  // in_use() must be 0 and no thread may have it registered.
  static void destroy(Arena* arena);

  // Makes this the arena of the calling thread, or none (null). The thread that leaves must have no more use for OpenSSL or
  // accept malloc.
  static void register_thread(Arena* arena);
  static Arena* of_this_thread();

  // The arena that a block lies in, whatever thread asks; null: malloc's.
  static Arena* owner_of(const void* block);

  void* allocate(size_t bytes);  // owner thread; 16-byte aligned; null when exhausted. bytes 0: null
  void* reallocate(void* block, size_t bytes);
  void free_local(void* block);   // owner thread
  void free_remote(void* block);  // any other thread
  size_t usable_bytes(const void* block) const;  // of a block of this arena: at least what was asked for
  void count_foreign_free();                     // owner thread: it freed a malloc'ed block
  bool owns(const void* p) const { return p >= base_ && p < end_; }

  // What could still be had, in bytes: free spans only, so an understatement.
  uint64_t available() const { return uint64_t{free_spans_} * kArenaSpanBytes; }
  // True when one block of so many bytes could be had now. Owner thread.
  bool has_room(size_t bytes) const;
  uint64_t in_use();               // owner thread, or nobody: drains the remote list first
  ArenaCounters counters() const;  // any thread: relaxed reads

  // For tests: refuse every allocation after `n` more have been granted. UINT64_MAX: never.
  void fail_after(uint64_t n) { fail_after_ = n; }

 private:
  struct Impl;
  friend struct Impl;
  Arena() = default;

  uint8_t* base_ = nullptr;
  uint8_t* end_ = nullptr;
  uint32_t free_spans_ = 0;
  uint64_t fail_after_ = UINT64_MAX;
  Impl* impl_ = nullptr;
};

}  // namespace millrace::base
