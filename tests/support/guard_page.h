// Bytes placed so that the first one behind them lies on a page that cannot be read: a parser that looks one byte too far
// dies on the spot, in every build, not only under ASan.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"

namespace millrace::support {

class GuardPage {
 public:
  // Copies `bytes` to the very end of the readable memory.
  explicit GuardPage(base::ByteSpan bytes) : size_(bytes.size()) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    readable_ = (size_ + page - 1) / page * page;
    mapped_ = readable_ + page;
    void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MILLRACE_ASSERT(p != MAP_FAILED, "memory for a test");
    base_ = static_cast<uint8_t*>(p);
    MILLRACE_ASSERT(mprotect(base_ + readable_, page, PROT_NONE) == 0, "guard page protected");
    if (size_ != 0) std::memcpy(base_ + readable_ - size_, bytes.data(), size_);
  }
  ~GuardPage() { munmap(base_, mapped_); }
  GuardPage(const GuardPage&) = delete;
  GuardPage& operator=(const GuardPage&) = delete;

  base::ByteSpan bytes() const { return {base_ + readable_ - size_, size_}; }
  base::MutableByteSpan writable() { return {base_ + readable_ - size_, size_}; }

 private:
  uint8_t* base_ = nullptr;
  size_t size_, readable_ = 0, mapped_ = 0;
};

}  // namespace millrace::support
