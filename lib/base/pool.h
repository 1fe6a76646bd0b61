// A fixed number of equal objects, lent out by index or by pointer: connections, exchanges, streams. Memory is reserved as
// address space at construction and touched when an object is lent for the first time, so that capacity costs nothing and what is
// in use lies close together. Objects are default-constructed when first lent and live as long as the pool; whoever gives one
// back leaves it ready for the next user (release() of the type). Last in, first out, so that what is handed out is likely still
// in the cache. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "lib/base/assert.h"
#include "lib/base/reserved_memory.h"

namespace millrace::base {

template <class T>
class Pool {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;  // the index of no object
  static constexpr uint32_t kBytesPerObject = sizeof(T) + 4;

  // All memory the pool will ever use: capacity x kBytesPerObject. 0 < capacity < kNone.
  explicit Pool(uint32_t capacity)
      : object_memory_(check(capacity) * sizeof(T)),
        link_memory_(capacity * sizeof(uint32_t)),
        objects_(object_memory_.as<T>()),
        next_free_(link_memory_.as<uint32_t>()),
        capacity_(capacity) {}
  ~Pool() {
    for (uint32_t i = 0; i < fresh_; ++i) std::destroy_at(&objects_[i]);
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
    uint32_t i = free_head_;
    if (i != kNone) [[likely]] {
      free_head_ = next_free_[i];
    } else {
      if (fresh_ == capacity_) return kNone;
      i = fresh_++;
      new (&objects_[i]) T();
    }
    next_free_[i] = kLent;
    ++in_use_;
    return i;
  }
  // Gives back an object that alloc() lent. Twice, or one of another pool, is our bug.
  void free(T* object) { free_index(index_of(object)); }
  void free_index(uint32_t i) {
    MILLRACE_ASSERT(lent(i), "object given back once, to its own pool");
    next_free_[i] = free_head_;
    free_head_ = i;
    --in_use_;
  }

  // An object that is lent, or was; i < capacity().
  T& operator[](uint32_t i) {
    MILLRACE_ASSERT(i < fresh_, "index within the pool, of an object that was lent");
    return objects_[i];
  }
  const T& operator[](uint32_t i) const {
    MILLRACE_ASSERT(i < fresh_, "index within the pool, of an object that was lent");
    return objects_[i];
  }
  uint32_t index_of(const T* object) const {
    const auto at = static_cast<uintptr_t>(reinterpret_cast<const uint8_t*>(object) - reinterpret_cast<const uint8_t*>(objects_));
    MILLRACE_ASSERT(at < uintptr_t{capacity_} * sizeof(T) && at % sizeof(T) == 0, "object of this pool");
    return static_cast<uint32_t>(at / sizeof(T));
  }
  // The same without looking, for hot paths; the object is of this pool.
  uint32_t index_of_own(const T* object) const { return static_cast<uint32_t>(object - objects_); }
  bool lent(uint32_t i) const { return i < fresh_ && next_free_[i] == kLent; }

  uint32_t in_use() const { return in_use_; }
  uint32_t capacity() const { return capacity_; }
  uint32_t ever_used() const { return fresh_; }       // indices from here on were never lent
  bool full() const { return in_use_ == capacity_; }  // nothing left to lend

 private:
  static constexpr uint32_t kLent = UINT32_MAX - 1;  // in next_free_: not in the free list

  static size_t check(uint32_t capacity) {
    MILLRACE_ASSERT(capacity > 0 && capacity < kLent, "a pool of a sensible size");
    return capacity;
  }

  ReservedMemory object_memory_, link_memory_;
  T* objects_;
  uint32_t* next_free_;
  uint32_t capacity_;
  uint32_t fresh_ = 0;  // objects made so far
  uint32_t in_use_ = 0;
  uint32_t free_head_ = kNone;
};

}  // namespace millrace::base
