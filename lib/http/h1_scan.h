// Byte classes of HTTP/1 and the scans over them, 32 bytes at a time with AVX2, 16 with SSSE3, one by one otherwise and for the
// rest that does not fill a vector (nothing beyond `end` is ever read). Internal to the codec.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#if defined(__SSSE3__)
#include <immintrin.h>
#endif

namespace millrace::http::scan {

constexpr bool is_tchar(uint8_t c) {  // RFC 9110 5.6.2
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
}
// Lower case of a token byte; 0 for every other byte.
inline constexpr auto kTokenLower = [] {
  std::array<char, 256> t{};
  for (int c = 0; c < 256; ++c)
    if (is_tchar(static_cast<uint8_t>(c))) t[static_cast<size_t>(c)] = static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  return t;
}();
// field-value byte (RFC 9110 5.5): HTAB, SP, VCHAR, obs-text.
constexpr bool is_value_byte(uint8_t c) { return c == '\t' || (c >= 0x20 && c != 0x7f); }
// What a request target may consist of: VCHAR.
constexpr bool is_target_byte(uint8_t c) { return c > 0x20 && c < 0x7f; }

// Bit r of kTokenLow[low nibble] is set when the byte (r + 2) << 4 | low nibble is a token byte; kTokenHigh picks the bit of a
// row.
inline constexpr auto kTokenLow = [] {
  std::array<uint8_t, 16> t{};
  for (uint32_t c = 0x20; c < 0x80; ++c)
    if (is_tchar(static_cast<uint8_t>(c))) t[c & 15] = static_cast<uint8_t>(t[c & 15] | 1u << ((c >> 4) - 2));
  return t;
}();
inline constexpr std::array<uint8_t, 16> kTokenHigh = {0, 0, 1, 2, 4, 8, 16, 32, 0, 0, 0, 0, 0, 0, 0, 0};

#if defined(__AVX2__)
inline constexpr size_t kStep = 32;
struct Vector {
  __m256i v;
  static Vector load(const char* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  void store(char* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static Vector all(char c) { return {_mm256_set1_epi8(c)}; }
  static Vector table(const std::array<uint8_t, 16>& t) {
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(t.data())))};
  }
  Vector operator==(Vector o) const { return {_mm256_cmpeq_epi8(v, o.v)}; }
  Vector operator>(Vector o) const { return {_mm256_cmpgt_epi8(v, o.v)}; }  // signed
  Vector operator&(Vector o) const { return {_mm256_and_si256(v, o.v)}; }
  Vector operator|(Vector o) const { return {_mm256_or_si256(v, o.v)}; }
  Vector but_not(Vector o) const { return {_mm256_andnot_si256(o.v, v)}; }
  Vector min_unsigned(Vector o) const { return {_mm256_min_epu8(v, o.v)}; }
  Vector high_nibbles() const { return {_mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15))}; }
  // Table look-up by the low nibble; bytes with the top bit set give 0.
  Vector pick_from(Vector t) const { return {_mm256_shuffle_epi8(t.v, v)}; }
  uint32_t mask() const { return static_cast<uint32_t>(_mm256_movemask_epi8(v)); }
};
#elif defined(__SSSE3__)
inline constexpr size_t kStep = 16;
struct Vector {
  __m128i v;
  static Vector load(const char* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
  void store(char* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
  static Vector all(char c) { return {_mm_set1_epi8(c)}; }
  static Vector table(const std::array<uint8_t, 16>& t) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(t.data()))}; }
  Vector operator==(Vector o) const { return {_mm_cmpeq_epi8(v, o.v)}; }
  Vector operator>(Vector o) const { return {_mm_cmpgt_epi8(v, o.v)}; }  // signed
  Vector operator&(Vector o) const { return {_mm_and_si128(v, o.v)}; }
  Vector operator|(Vector o) const { return {_mm_or_si128(v, o.v)}; }
  Vector but_not(Vector o) const { return {_mm_andnot_si128(o.v, v)}; }
  Vector min_unsigned(Vector o) const { return {_mm_min_epu8(v, o.v)}; }
  Vector high_nibbles() const { return {_mm_and_si128(_mm_srli_epi16(v, 4), _mm_set1_epi8(15))}; }
  Vector pick_from(Vector t) const { return {_mm_shuffle_epi8(t.v, v)}; }
  uint32_t mask() const { return static_cast<uint32_t>(_mm_movemask_epi8(v)); }
};
#else
#define MILLRACE_HTTP_SCALAR 1
inline constexpr size_t kStep = 1;
#endif

#if !defined(MILLRACE_HTTP_SCALAR)
inline constexpr uint32_t kFull = kStep == 32 ? 0xffffffffu : 0xffffu;

inline uint32_t token_mask(Vector x) {
  const Vector hit = x.pick_from(Vector::table(kTokenLow)) & x.high_nibbles().pick_from(Vector::table(kTokenHigh));
  return ~(hit == Vector::all(0)).mask() & kFull;
}
#endif

// The first byte of [p, end) that is no token byte, or end. Bytes before it are lowered in place (RFC 9110 5.1).
inline char* lower_token(char* p, char* end) {
#if !defined(MILLRACE_HTTP_SCALAR)
  while (static_cast<size_t>(end - p) >= kStep) {
    const Vector x = Vector::load(p);
    const uint32_t stop = ~token_mask(x) & kFull;
    const Vector upper = (x > Vector::all('A' - 1)).but_not(x > Vector::all('Z'));
    // Bytes at and behind the stop are of the value or the next line: they keep their case.
    uint32_t raise = upper.mask();
    if (stop != 0) raise &= (stop & (0u - stop)) - 1;
    if (raise != 0) {
      if (stop == 0) {
        (x | (upper & Vector::all(0x20))).store(p);
      } else {
        for (; raise != 0; raise &= raise - 1) p[std::countr_zero(raise)] |= 0x20;
      }
    }
    if (stop != 0) return p + std::countr_zero(stop);
    p += kStep;
  }
#endif
  for (; p != end; ++p) {
    const char low = kTokenLower[static_cast<uint8_t>(*p)];
    if (low == 0) return p;
    *p = low;
  }
  return p;
}

// The first byte of [p, end) that no field value may have (a line end among them), or end.
inline char* skip_value(char* p, char* end) {
#if !defined(MILLRACE_HTTP_SCALAR)
  while (static_cast<size_t>(end - p) >= kStep) {
    const Vector x = Vector::load(p);
    const Vector control = (x.min_unsigned(Vector::all(0x1f)) == x).but_not(x == Vector::all('\t'));
    const uint32_t stop = (control | (x == Vector::all(0x7f))).mask();
    if (stop != 0) return p + std::countr_zero(stop);
    p += kStep;
  }
#endif
  while (p != end && is_value_byte(static_cast<uint8_t>(*p))) ++p;
  return p;
}

// The first byte of [p, end) that is no VCHAR, or end.
inline char* skip_target(char* p, char* end) {
#if !defined(MILLRACE_HTTP_SCALAR)
  while (static_cast<size_t>(end - p) >= kStep) {
    const Vector x = Vector::load(p);
    const uint32_t go = (x > Vector::all(0x20)).but_not(x == Vector::all(0x7f)).mask();  // signed: 0x80 and above are negative
    if (go != kFull) return p + std::countr_zero(~go);
    p += kStep;
  }
#endif
  while (p != end && is_target_byte(static_cast<uint8_t>(*p))) ++p;
  return p;
}

// The first LF of [p, end), or end.
inline const char* find_lf(const char* p, const char* end) {
#if !defined(MILLRACE_HTTP_SCALAR)
  while (static_cast<size_t>(end - p) >= kStep) {
    const uint32_t hit = (Vector::load(p) == Vector::all('\n')).mask();
    if (hit != 0) return p + std::countr_zero(hit);
    p += kStep;
  }
#endif
  while (p != end && *p != '\n') ++p;
  return p;
}

}  // namespace millrace::http::scan
