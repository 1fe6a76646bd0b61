// One pass over the lines of a head that are as nearly all lines are; whatever is not so is left to the parser's careful
// functions, which accept the same and more, and find the words for what is wrong. Internal to the parser. Where there is no
// AVX2, every line is left to them.
#pragma once

#include <bit>
#include <cstdint>

#include "lib/http/h1_scan.h"
#include "lib/http/header_names.h"
#include "lib/http/message.h"

namespace millrace::http {

enum class LineKind : uint8_t { kField, kEmpty, kOdd };

// A field line; offsets count from its first byte, where the name is.
struct FieldLine {
  size_t name_bytes, value_at, value_end;
  size_t bytes;     // the line with its end
  bool as_written;  // "name: value" CRLF once the name is lowered
  uint32_t upper;   // bit i: byte i of the name is to be lowered still
  HeaderId id;
};

struct StartLine {
  size_t method_bytes, target_end;  // of a request; the target begins one byte behind the method
  uint32_t status;                  // of a response
  size_t reason_end;
  size_t bytes;  // the line with CRLF
};
inline constexpr size_t kReasonAt = 13;  // "HTTP/1.1 200 "

#if defined(MILLRACE_HTTP_WINDOW)
using scan::Window;

inline constexpr uint16_t kCrLf = "\r\n"_word;

// The end of the value that runs from `from` on: the place of its CRLF, or null when something else ends it.
inline const char* value_end(const Window& window, const char* from) {
  for (;; from += 32) {
    const char* const q = window.at(from);
    const uint32_t stop = scan::classify(scan::load32(q)).stop;
    if (stop == 0) continue;
    const size_t at = static_cast<size_t>(std::countr_zero(stop));
    return load2(q + at) == kCrLf ? from + at : nullptr;
  }
}

// Reads the line at p. kOdd: a name of 32 bytes or more, an empty value, blanks that are not one space, a line end other than
// CRLF, anything wrong or not there yet.
[[gnu::always_inline]] inline LineKind read_line(const Window& window, const char* p, FieldLine* line) {
  const char* const q = window.at(p);
  if (load2(q) == kCrLf) return LineKind::kEmpty;
  const __m256i bytes = scan::load32(q);
  const scan::FieldBlock block = scan::classify(bytes);
  if (block.not_token == 0) return LineKind::kOdd;
  const size_t n = static_cast<size_t>(std::countr_zero(block.not_token));
  if (q[n] != ':' || n == 0) return LineKind::kOdd;

  line->value_at = n + 1 + (q[n + 1] == ' ');
  if (static_cast<uint8_t>(q[line->value_at]) <= ' ') return LineKind::kOdd;  // an empty value among them
  const char* last;  // of the value: no control, so it is a blank when it is not above them
  if (block.stop != 0) [[likely]] {
    line->value_end = static_cast<size_t>(std::countr_zero(block.stop));
    if (load2(q + line->value_end) != kCrLf) return LineKind::kOdd;
    last = q + line->value_end - 1;
  } else {
    const char* const end = value_end(window, p + 32);
    if (end == nullptr) return LineKind::kOdd;
    line->value_end = static_cast<size_t>(end - p);
    last = end - 1;
  }
  if (static_cast<uint8_t>(*last) <= ' ') return LineKind::kOdd;

  const scan::Lowered lowered = scan::lower(bytes);
  const uint32_t with_colon = block.not_token ^ (block.not_token - 1);  // bits 0 to n
  const __m256i name = _mm256_and_si256(lowered.bytes, scan::first_bytes(n));
  const __m128i half = _mm_xor_si128(_mm256_castsi256_si128(name), _mm256_extracti128_si256(name, 1));
  const __m128i folded = _mm_xor_si128(half, _mm_unpackhi_epi64(half, half));
  const uint8_t id = names::kHash.slots[names::kHash.slot(static_cast<uint64_t>(_mm_cvtsi128_si64(folded)))];
  const __m256i known = _mm256_load_si256(reinterpret_cast<const __m256i*>(names::kPrefixes[id].bytes.data()));
  const uint32_t equal = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(lowered.bytes, known)));
  line->name_bytes = n;
  line->bytes = line->value_end + 2;
  line->as_written = line->value_at == n + 2;
  line->upper = lowered.upper & with_colon;
  line->id = static_cast<HeaderId>((with_colon & ~equal) == 0 ? id : 0);
  return LineKind::kField;
}

// "METHOD /target HTTP/1.1" CRLF with a method of the list and single spaces. False: something else.
[[gnu::always_inline]] inline bool read_request_line(const Window& window, const char* p, StartLine* line) {
  const char* const q = window.at(p);
  const uint64_t front = load8(q);
  const auto front_is = [&](uint64_t word, int bytes) { return (front << (64 - 8 * bytes)) == (word << (64 - 8 * bytes)); };
  const size_t method = front_is("GET "_word, 4) || front_is("PUT "_word, 4)     ? 3
                        : front_is("POST "_word, 5) || front_is("HEAD "_word, 5) ? 4
                        : front_is("PATCH "_word, 6)                             ? 5
                        : front_is("DELETE "_word, 7)                            ? 6
                        : front_is("OPTIONS "_word, 8)                           ? 7
                                                                                 : 0;
  if (method == 0 || q[method + 1] != '/') return false;
  line->method_bytes = method;
  const char* at = p + method + 1;
  const char* r = q + method + 1;  // 32 bytes from there are within reach still
  uint32_t stop;
  while ((stop = scan::target_stops(scan::load32(r))) == 0) {
    at += 32;
    r = window.at(at);
  }
  at += std::countr_zero(stop);
  r = window.at(at);
  constexpr uint32_t kThree = 0xffffff;
  if (load8(r) != " HTTP/1."_word || (load4(r + 8) & kThree) != "1\r\n"_word) return false;
  line->target_end = static_cast<size_t>(at - p);
  line->bytes = line->target_end + 11;
  return true;
}

// "HTTP/1.1 ddd reason" CRLF with single spaces. False: something else.
[[gnu::always_inline]] inline bool read_status_line(const Window& window, const char* p, StartLine* line) {
  const char* const q = window.at(p);
  if (load8(q) != "HTTP/1.1"_word || q[8] != ' ') return false;
  if (load8(q + 9) == "200 OK\r\n"_word) [[likely]] {
    line->status = 200;
    line->reason_end = kReasonAt + 2;
    line->bytes = kReasonAt + 4;
    return true;
  }
  const auto digit = [&](int i) { return static_cast<uint8_t>(q[i]) - uint32_t{'0'}; };
  if (digit(9) - 1 > 8 || digit(10) > 9 || digit(11) > 9 || q[12] != ' ' || q[kReasonAt] == ' ' || q[kReasonAt] == '\t')
    return false;
  line->status = digit(9) * 100 + digit(10) * 10 + digit(11);
  const char* const end = value_end(window, p + kReasonAt);
  if (end == nullptr) return false;
  line->reason_end = static_cast<size_t>(end - p);
  line->bytes = line->reason_end + 2;
  return true;
}

// True when each of the n bytes at p, which lie in the window, is an authority's.
inline bool is_authority(const Window& window, const char* p, size_t n) {
  for (size_t at = 0;; at += 32) {
    const uint64_t wrong = scan::authority_stops(scan::load32(window.at(p + at)));
    if (n - at <= 32) return (wrong & ((uint64_t{1} << (n - at)) - 1)) == 0;
    if (wrong != 0) return false;
  }
}
#else
struct Window {
  Window(const char*, const char*) {}
};
inline LineKind read_line(const Window&, const char*, FieldLine*) { return LineKind::kOdd; }
inline bool read_request_line(const Window&, const char*, StartLine*) { return false; }
inline bool read_status_line(const Window&, const char*, StartLine*) { return false; }
inline bool is_authority(const Window&, const char* p, size_t n) {
  for (size_t i = 0; i < n; ++i)
    if (!scan::is_authority_byte(static_cast<uint8_t>(p[i]))) return false;
  return true;
}
#endif

}  // namespace millrace::http
