// Address space reserved at start and paid for when it is touched: the memory of pools and tables whose capacity is a limit, not
// an expectation. Zero when first read. From 2 MiB on it asks for huge pages, because what it holds is reached at random.
#pragma once

#include <cstddef>
#include <cstdint>
#include <sys/mman.h>

#include "lib/base/assert.h"

namespace millrace::base {

class ReservedMemory {
 public:
  static constexpr size_t kHugePage = size_t{2} << 20;

  // `bytes` > 0. No address space left is a machine that cannot run us: assert.
  explicit ReservedMemory(size_t bytes) : mapped_(bytes >= kHugePage ? bytes + kHugePage : bytes) {
    map_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MILLRACE_ASSERT(map_ != MAP_FAILED, "address space for a pool");
    data_ = map_;
    if (bytes < kHugePage) return;
    data_ = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(map_) + kHugePage - 1) & ~uintptr_t{kHugePage - 1});
    madvise(data_, bytes, MADV_HUGEPAGE);  // without effect where the administrator has switched them off
  }
  ~ReservedMemory() { munmap(map_, mapped_); }
  ReservedMemory(const ReservedMemory&) = delete;
  ReservedMemory& operator=(const ReservedMemory&) = delete;

  // On a page boundary.
  template <class T>
  T* as() const {
    static_assert(alignof(T) <= 4096);
    return static_cast<T*>(data_);
  }

 private:
  size_t mapped_;
  void* map_;
  void* data_;
};

}  // namespace millrace::base
