// Memory for the few strings a head gains on its way through the gateway (x-forwarded-for, x-request-id, a rewritten path ...). A
// bump pointer over bytes that the caller lends; nothing is freed singly, all of it goes when the exchange's buffer goes. No
// heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>

#include "lib/http/short_bytes.h"

namespace millrace::http {

class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(std::span<char> memory) : next_(memory.data()), end_(memory.data() + memory.size()) {}

  size_t left() const { return static_cast<size_t>(end_ - next_); }
  // True once an allocation did not fit; stays true. Callers check it once, at the end of a group of edits, and answer 500/431.
  bool overflowed() const { return overflowed_; }

  // n bytes, or null (and overflowed()) when they do not fit.
  char* allocate(size_t n) {
    if (n > left()) {
      overflowed_ = true;
      return nullptr;
    }
    char* p = next_;
    next_ += n;
    return p;
  }
  // The last `n` bytes allocated go back (a reservation that turned out too large).
  void give_back(size_t n) { next_ -= n; }

  // A copy of the parts one after another; "" (and overflowed()) when it does not fit.
  std::string_view concat(std::initializer_list<std::string_view> parts) {
    size_t n = 0;
    for (std::string_view p : parts) n += p.size();
    char* out = allocate(n);
    if (out == nullptr) return {};
    char* q = out;
    for (std::string_view p : parts) {
      copy_bytes(q, p.data(), p.size());
      q += p.size();
    }
    return {out, n};
  }
  std::string_view copy(std::string_view s) { return concat({s}); }
  // Decimal text of v.
  std::string_view decimal(uint64_t v) {
    if (left() >= kMaxDecimalBytes) [[likely]] {
      const size_t n = write_decimal(next_, v);
      return {std::exchange(next_, next_ + n), n};
    }
    char digits[kMaxDecimalBytes];
    const size_t n = write_decimal(digits, v);
    char* const out = allocate(n);
    if (out == nullptr) return {};
    std::memcpy(out, digits, n);
    return {out, n};
  }

 private:
  char* next_ = nullptr;
  char* end_ = nullptr;
  bool overflowed_ = false;
};

}  // namespace millrace::http
