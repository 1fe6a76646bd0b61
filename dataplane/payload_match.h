// Looks for texts in a stream, each behind the one before it (Envoy: PayloadMatcher), in a buffer that is lent: of what has been
// looked at only as much is kept as the rest of a text may begin in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "lib/base/assert.h"
#include "lib/base/bytes.h"

namespace millrace::dataplane {

class PayloadMatch {
 public:
  void start() { found_ = kept_ = 0; }

  // The next bytes of the stream. `text(i)`: the i-th of `count` texts, each shorter than half of `buffer`, which is the same one
  // throughout a stream. True once all were found.
  template <class Text>
  bool feed(base::ByteSpan in, std::span<char> buffer, uint32_t count, Text&& text) {
    while (found_ < count) {
      const size_t n = std::min(in.size(), buffer.size() - kept_);
      std::memcpy(buffer.data() + kept_, in.data(), n);
      in = in.subspan(n);
      kept_ += static_cast<uint32_t>(n);
      look(buffer, count, text);
      if (in.empty()) break;
    }
    return found_ == count;
  }

 private:
  template <class Text>
  void look(std::span<char> buffer, uint32_t count, Text&& text) {
    while (found_ < count) {
      const base::ByteSpan t = text(found_);
      MILLRACE_ASSERT(!t.empty() && t.size() * 2 <= buffer.size(), "a text leaves room in the buffer");
      const char* begin = buffer.data();
      const char* end = begin + kept_;
      const char* wanted = reinterpret_cast<const char*>(t.data());
      const char* at = std::search(begin, end, wanted, wanted + t.size());
      if (at == end) return drop(buffer, std::max<size_t>(kept_, t.size() - 1) - (t.size() - 1));
      ++found_;
      drop(buffer, static_cast<size_t>(at - begin) + t.size());
    }
  }
  void drop(std::span<char> buffer, size_t n) {
    std::memmove(buffer.data(), buffer.data() + n, kept_ - n);
    kept_ -= static_cast<uint32_t>(n);
  }

  uint32_t found_ = 0, kept_ = 0;  // texts; bytes at the front of the buffer
};

}  // namespace millrace::dataplane
