// Bytes placed so that the first one behind them lies on a page that cannot be read: a parser that looks one byte too far
// dies on the spot, in every build, not only under ASan.
#pragma once

#include <cstdint>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"

namespace millrace::support {

class GuardPage {
 public:
  // Room for up to `capacity` bytes; place() fills it.
  explicit GuardPage(size_t capacity) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    readable_ = (capacity + page - 1) / page * page;
    mapped_ = readable_ + page;
    void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MILLRACE_ASSERT(p != MAP_FAILED, "memory for a test");
    base_ = static_cast<uint8_t*>(p);
    MILLRACE_ASSERT(mprotect(base_ + readable_, page, PROT_NONE) == 0, "guard page protected");
  }
  explicit GuardPage(base::ByteSpan bytes) : GuardPage(bytes.size()) { place(bytes); }
  ~GuardPage() { munmap(base_, mapped_); }
  GuardPage(const GuardPage&) = delete;
  GuardPage& operator=(const GuardPage&) = delete;

  // Copies `bytes`, at most the capacity, to the very end of the readable memory, in place of what was there; valid until the
  // next call.
  base::MutableByteSpan place(base::ByteSpan bytes) {
    MILLRACE_ASSERT(bytes.size() <= readable_, "bytes fit the memory in front of the guard page");
    size_ = bytes.size();
    if (size_ != 0) std::memmove(base_ + readable_ - size_, bytes.data(), size_);
    return writable();
  }
  // What was placed.
  base::ByteSpan bytes() const { return {base_ + readable_ - size_, size_}; }
  base::MutableByteSpan writable() { return {base_ + readable_ - size_, size_}; }

 private:
  uint8_t* base_ = nullptr;
  size_t size_ = 0, readable_ = 0, mapped_ = 0;
};

}  // namespace millrace::support
