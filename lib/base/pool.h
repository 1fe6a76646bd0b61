// A fixed number of equal objects, made once at construction and lent out by index or by pointer: connections, exchanges,
// streams. Objects are default-constructed once and live as long as the pool; whoever gives one back leaves it ready for the next
// user (release() of the type). Last in, first out, so that what is handed out is likely still in the cache. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/base/assert.h"

namespace millrace::base {

template <class T>
class Pool {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;  // the index of no object

  // All memory the pool will ever use: capacity x (sizeof(T) + 4 bytes). 0 < capacity < kNone.
  explicit Pool(uint32_t capacity)
      : objects_(std::make_unique<T[]>(capacity)), next_free_(std::make_unique<uint32_t[]>(capacity)), capacity_(capacity) {
    MILLRACE_ASSERT(capacity > 0 && capacity < kLent, "a pool of a sensible size");
    for (uint32_t i = 0; i < capacity; ++i) next_free_[i] = i + 1 < capacity ? i + 1 : kNone;
    free_head_ = 0;
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Null when all are lent: a limit with a designed answer of the caller's. Index 0 goes out first.
  T* alloc() {
    const uint32_t i = alloc_index();
    return i == kNone ? nullptr : &objects_[i];
  }
  // kNone when all are lent.
  uint32_t alloc_index() {
    const uint32_t i = free_head_;
    if (__builtin_expect(i == kNone, 0)) return kNone;
    free_head_ = next_free_[i];
    next_free_[i] = kLent;
    ++in_use_;
    return i;
  }
  // Gives back an object that alloc() lent. Twice, or one of another pool, is our bug.
  void free(T* object) { free_index(index_of(object)); }
  void free_index(uint32_t i) {
    MILLRACE_ASSERT(i < capacity_ && next_free_[i] == kLent, "object given back once, to its own pool");
    next_free_[i] = free_head_;
    free_head_ = i;
    --in_use_;
  }

  // Any object, lent or not; i < capacity().
  T& operator[](uint32_t i) {
    MILLRACE_ASSERT(i < capacity_, "index within the pool");
    return objects_[i];
  }
  const T& operator[](uint32_t i) const {
    MILLRACE_ASSERT(i < capacity_, "index within the pool");
    return objects_[i];
  }
  uint32_t index_of(const T* object) const {
    const auto at =
        static_cast<uintptr_t>(reinterpret_cast<const uint8_t*>(object) - reinterpret_cast<const uint8_t*>(objects_.get()));
    MILLRACE_ASSERT(at < uintptr_t{capacity_} * sizeof(T) && at % sizeof(T) == 0, "object of this pool");
    return static_cast<uint32_t>(at / sizeof(T));
  }
  bool lent(uint32_t i) const { return i < capacity_ && next_free_[i] == kLent; }

  uint32_t in_use() const { return in_use_; }
  uint32_t capacity() const { return capacity_; }
  bool full() const { return free_head_ == kNone; }  // nothing left to lend

 private:
  static constexpr uint32_t kLent = UINT32_MAX - 1;  // in next_free_: not in the free list

  std::unique_ptr<T[]> objects_;
  std::unique_ptr<uint32_t[]> next_free_;
  uint32_t capacity_;
  uint32_t in_use_ = 0;
  uint32_t free_head_ = kNone;
};

}  // namespace millrace::base
