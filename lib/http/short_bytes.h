// Strings of a few bytes without a library call: comparison with a constant, zero-padded loads, copies. A call of memcmp or
// memcpy costs more than the work itself for the names and values of a head. Nothing outside the given strings is read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace millrace::http {

inline uint16_t load2(const char* p) {
  uint16_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline uint32_t load4(const char* p) {
  uint32_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline uint64_t load8(const char* p) {
  uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// The number that load2, load4 or load8 give for those bytes in memory (little endian, as everything we run on).
constexpr uint64_t word_of(std::string_view s) {
  uint64_t v = 0;
  for (size_t i = 0; i < s.size(); ++i) v |= uint64_t{static_cast<uint8_t>(s[i])} << (8 * i);
  return v;
}
consteval uint64_t operator""_word(const char* s, size_t n) { return word_of({s, n}); }

// s == "literal" by one or two loads: the length is a constant, so the compiler needs no memcmp.
template <size_t N>
constexpr bool is_text(std::string_view s, const char (&literal)[N]) {
  return s.size() == N - 1 && __builtin_memcmp(s.data(), literal, N - 1) == 0;
}

// The n (0..8) bytes at p, zeros above them.
inline uint64_t load_zero_padded(const char* p, size_t n) {
  if (n >= 4) return load4(p) | uint64_t{load4(p + n - 4)} << (8 * (n - 4));
  if (n == 0) return 0;
  return uint64_t{static_cast<uint8_t>(p[0])} | uint64_t{static_cast<uint8_t>(p[n / 2])} << (8 * (n / 2)) |
         uint64_t{static_cast<uint8_t>(p[n - 1])} << (8 * (n - 1));
}
inline bool equal_bytes(const char* a, const char* b, size_t n) {
  if (n >= 8) {
    for (size_t i = 0; i + 8 <= n; i += 8)
      if (load8(a + i) != load8(b + i)) return false;
    return load8(a + n - 8) == load8(b + n - 8);
  }
  return load_zero_padded(a, n) == load_zero_padded(b, n);
}

// n bytes from one place to another that does not overlap it; for sizes that are small or that nobody knows.
inline void copy_bytes(char* to, const char* from, size_t n) {
#if defined(__AVX2__)
  const auto move32 = [](char* d, const char* s) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(d), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(s)));
  };
  if (n >= 32) {
    const char* const last = from + n - 32;
    char* const last_to = to + n - 32;
    for (; from < last; from += 32, to += 32) move32(to, from);
    return move32(last_to, last);
  }
  if (n >= 16) {
    const __m128i head = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m128i tail = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + n - 16));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), head);
    return _mm_storeu_si128(reinterpret_cast<__m128i*>(to + n - 16), tail);
  }
#else
  if (n >= 16) {
    std::memcpy(to, from, n);
    return;
  }
#endif
  if (n >= 8) {
    const uint64_t head = load8(from), tail = load8(from + n - 8);
    std::memcpy(to, &head, 8);
    std::memcpy(to + n - 8, &tail, 8);
  } else if (n >= 4) {
    const uint32_t head = load4(from), tail = load4(from + n - 4);
    std::memcpy(to, &head, 4);
    std::memcpy(to + n - 4, &tail, 4);
  } else if (n != 0) {
    to[0] = from[0];
    to[n / 2] = from[n / 2];
    to[n - 1] = from[n - 1];
  }
}

// Decimal text of v at `to` (room for kMaxDecimalBytes); how many bytes it has.
inline constexpr size_t kMaxDecimalBytes = 20;
inline constexpr auto kDigitPairs = [] {
  std::array<char, 200> t{};
  for (size_t i = 0; i < 100; ++i) {
    t[2 * i] = static_cast<char>('0' + i / 10);
    t[2 * i + 1] = static_cast<char>('0' + i % 10);
  }
  return t;
}();
inline size_t write_decimal(char* to, uint64_t v) {
  const auto pair = [](char* at, uint64_t n) { std::memcpy(at, kDigitPairs.data() + 2 * n, 2); };
  const auto below_100 = [&](uint64_t n) -> size_t {
    if (n >= 10) {
      pair(to, n);
      return 2;
    }
    *to = static_cast<char>('0' + n);
    return 1;
  };
  if (v < 100) return below_100(v);
  size_t n = 0;
  uint64_t rest = v;
  if (v >= 10000) {
    n = write_decimal(to, v / 10000);
    rest = v % 10000;
    pair(to + n, rest / 100);
    n += 2;
  } else {
    n = below_100(v / 100);
  }
  pair(to + n, rest % 100);
  return n + 2;
}

}  // namespace millrace::http
