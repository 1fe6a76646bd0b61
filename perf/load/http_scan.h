// Finds the end of an HTTP/1 head and the few fields a generator needs, by looking only at the first bytes of each line. It is no
// validator: the gateway under test has one, this must only be fast and never read outside its bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#include "lib/base/bytes.h"

namespace millrace::load {

inline constexpr uint64_t kNoLength = UINT64_MAX;

struct HeadScan {
  uint32_t length = 0;  // of the head with its empty line; 0: not all there yet
  uint64_t content_length = kNoLength;
  bool chunked = false;
  bool close = false;       // Connection: close
  bool keep_alive = false;  // Connection: keep-alive
  bool bad = false;         // a Content-Length that is no number
};

namespace detail {

// `name` in lower case; the line begins at p and has at least n bytes left in the buffer.
inline bool field_is(const uint8_t* p, size_t left, std::string_view name) {
  if (left <= name.size() || p[name.size()] != ':') return false;
  for (size_t i = 0; i < name.size(); ++i)
    if ((p[i] | (name[i] >= 'a' ? 0x20 : 0)) != static_cast<uint8_t>(name[i])) return false;
  return true;
}

inline void scan_length(const uint8_t* p, const uint8_t* end, HeadScan& out) {
  while (p < end && *p == ' ') ++p;
  uint64_t v = 0;
  const uint8_t* from = p;
  for (; p < end && *p >= '0' && *p <= '9' && p - from < 18; ++p) v = v * 10 + (*p - '0');
  if (p == from || p == end || (*p != '\r' && *p != ' ')) out.bad = true;
  else out.content_length = v;
}

inline bool value_has(const uint8_t* p, const uint8_t* end, std::string_view token) {
  for (; p + token.size() <= end && *p != '\r' && *p != '\n'; ++p) {
    size_t i = 0;
    while (i < token.size() && (p[i] | 0x20) == (static_cast<uint8_t>(token[i]) | 0x20)) ++i;
    if (i == token.size()) return true;
  }
  return false;
}

// A line begins at p[at]. True when it is the empty line that ends the head.
inline bool scan_line(const uint8_t* p, uint32_t at, uint32_t n, HeadScan& out) {
  if (at + 1 >= n) return false;
  const uint8_t* line = p + at;
  const size_t left = n - at;
  const uint8_t first = *line | 0x20;
  if (*line == '\r') {
    if (line[1] != '\n') return false;
    out.length = at + 2;
    return true;
  }
  if (first == 'c') {
    if (field_is(line, left, "content-length")) scan_length(line + 15, p + n, out);
    else if (field_is(line, left, "connection")) {
      out.close = value_has(line + 11, p + n, "close");
      out.keep_alive = value_has(line + 11, p + n, "keep-alive");
    }
  } else if (first == 't' && field_is(line, left, "transfer-encoding")) {
    out.chunked = value_has(line + 18, p + n, "chunked");
  }
  return false;
}

}  // namespace detail

// `n` bytes from the start of a message. out.length stays 0 while the head is not whole; the other fields mean something only
// then.
inline void scan_head(const uint8_t* p, uint32_t n, HeadScan& out) {
  uint32_t at = 0;
#ifdef __AVX2__
  const __m256i newline = _mm256_set1_epi8('\n');
  for (; at + 32 <= n; at += 32) {
    const __m256i block = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + at));
    auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(block, newline)));
    while (mask != 0) {
      const uint32_t bit = static_cast<uint32_t>(std::countr_zero(mask));
      mask &= mask - 1;
      if (detail::scan_line(p, at + bit + 1, n, out)) return;
    }
  }
#endif
  for (; at < n; ++at)
    if (p[at] == '\n' && detail::scan_line(p, at + 1, n, out)) return;
}

}  // namespace millrace::load
