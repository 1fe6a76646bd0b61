// Bytes whose end is the end of a page that cannot be read beyond (and, with `front`, whose start is the start of one): a read one byte
// outside is a crash here and not only under a sanitizer.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <string_view>

namespace millrace::http {

class GuardPage {
 public:
  explicit GuardPage(size_t capacity) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = (capacity + page - 1) / page * page;
    base_ = static_cast<char*>(mmap(nullptr, size_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + size_, page, PROT_NONE);
    total_ = size_ + page;
  }
  ~GuardPage() { munmap(base_, total_); }
  GuardPage(const GuardPage&) = delete;
  GuardPage& operator=(const GuardPage&) = delete;

  // A copy of `bytes` that ends at the guard page.
  std::span<char> place(std::string_view bytes) {
    char* p = base_ + size_ - bytes.size();
    std::memcpy(p, bytes.data(), bytes.size());
    return {p, bytes.size()};
  }

 private:
  char* base_ = nullptr;
  size_t size_ = 0, total_ = 0;
};

}  // namespace millrace::http
