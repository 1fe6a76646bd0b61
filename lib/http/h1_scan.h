// Byte classes of HTTP/1 and the scans over them, 32 bytes at a time with AVX2, 16 with SSSE3, one by one otherwise and for the
// rest that does not fill a vector (nothing beyond `end` is ever read). Internal to the codec.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>

#include "lib/http/short_bytes.h"

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
// Host and :authority: unreserved, sub-delims and : @ [ ] % of RFC 3986 3.2, as Envoy's authorityIsValid.
constexpr bool is_authority_byte(uint8_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         std::string_view("-._~!$&'()*+,;=:@[]%").find(static_cast<char>(c)) != std::string_view::npos;
}
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

#if defined(__AVX2__)
#define MILLRACE_HTTP_WINDOW 1

inline __m256i load32(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// The bytes of a head such that kReach bytes may be loaded from any place in them: places near the end are read in a copy of the
// last bytes that has zeros behind it (a zero stops every scan). Made once a head, before anything is lowered.
class Window {
 public:
  static constexpr size_t kReach = 64;

  Window(const char* begin, const char* end) {
    const size_t n = static_cast<size_t>(end - begin);
    const size_t kept = n < kReach ? n : kReach;
    direct_end_ = n < kReach ? 0 : reinterpret_cast<uintptr_t>(end) - kReach + 1;
    to_copy_ = reinterpret_cast<uintptr_t>(copy_ + kReach) - reinterpret_cast<uintptr_t>(end);
    const __m256i zero = _mm256_setzero_si256();
    _mm256_store_si256(reinterpret_cast<__m256i*>(copy_ + kReach), zero);
    _mm256_store_si256(reinterpret_cast<__m256i*>(copy_ + kReach + 32), zero);
    _mm256_store_si256(reinterpret_cast<__m256i*>(copy_ + kReach + 64), zero);
    if (kept == kReach) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(copy_), load32(end - kReach));
      _mm256_store_si256(reinterpret_cast<__m256i*>(copy_ + 32), load32(end - 32));
    } else if (kept != 0) {
      copy_bytes(copy_ + kReach - kept, end - kept, kept);
    }
  }
  // Where to read the bytes at p (begin <= p <= end).
  const char* at(const char* p) const {
    const uintptr_t a = reinterpret_cast<uintptr_t>(p);
    return reinterpret_cast<const char*>(a < direct_end_ ? a : a + to_copy_);
  }

 private:
  uintptr_t direct_end_;  // places in front of it are read directly; 0: none
  uintptr_t to_copy_;     // from a place in the bytes to the same in the copy
  // kReach bytes of the end, kReach of zeros and what a load from the last place but one can touch besides.
  alignas(32) char copy_[2 * kReach + 32];
};

// Two table look-ups class all bytes at once: the bits that a byte's row (high nibble) and its column (low nibble) have in common
// say what it is. Rows 2 to 7 of ASCII need five bits for token bytes, since row 6 (where every byte is one) can borrow those of
// rows 3 and 4; three bits remain for the bytes no value may have. Bytes above 0x7f give 0: neither.
struct NibbleTables {
  std::array<uint8_t, 16> column{}, row{};
};
inline constexpr uint8_t kLastTokenBit = 0x10;
inline constexpr NibbleTables kFieldTables = [] {
  NibbleTables t;
  constexpr uint8_t kControl0 = 0x20, kControl1 = 0x40, kDelete = 0x80;
  constexpr uint8_t kRow2 = 0x01, kRow3 = 0x02, kRow4 = 0x04, kRow5 = 0x08, kRow7 = kLastTokenBit;
  t.row = {kControl0, kControl1, kRow2, kRow3, kRow4, kRow5, kRow3 | kRow4, kRow7 | kDelete};
  constexpr uint8_t kTokenBit[8] = {0, 0, kRow2, kRow3, kRow4, kRow5, 0, kRow7};
  for (uint32_t c = 0; c < 16; ++c) {
    uint32_t bits = kControl1 | (c != '\t' ? kControl0 : 0u) | (c == 15 ? kDelete : 0u);
    for (uint32_t r = 0; r < 8; ++r)
      if (is_tchar(static_cast<uint8_t>(r << 4 | c))) bits |= kTokenBit[r];
    t.column[c] = static_cast<uint8_t>(bits);
  }
  return t;
}();
static_assert([] {
  for (uint32_t c = 0; c < 128; ++c) {
    const uint8_t hit = kFieldTables.column[c & 15] & kFieldTables.row[c >> 4];
    const uint8_t b = static_cast<uint8_t>(c);
    if ((hit != 0 && hit < 2 * kLastTokenBit) != is_tchar(b) || (hit >= 2 * kLastTokenBit) == is_value_byte(b)) return false;
  }
  return true;
}());
inline constexpr NibbleTables kAuthorityTables = [] {
  NibbleTables t;
  t.row = {0, 0, 1, 2, 4, 8, 16, 32};
  for (uint32_t c = 0x20; c < 0x80; ++c)
    if (is_authority_byte(static_cast<uint8_t>(c))) t.column[c & 15] = static_cast<uint8_t>(t.column[c & 15] | t.row[c >> 4]);
  return t;
}();

// The constants of the functions below. They lie in h1_scan.cc, where the compiler does not see their values while it compiles a
// loop over lines: it would make each anew in every turn, by two or three instructions instead of none.
struct alignas(32) Constant {
  std::array<uint8_t, 32> bytes{};
  explicit operator __m256i() const { return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes.data())); }
};
struct Constants {
  Constant field_column, field_row, authority_column, authority_row, low_nibble, raise, zero, from_a, behind_z, case_bit, space,
      del;
  // 32 bytes of ones, then of zeros: a load from ones + 32 - n keeps the first n bytes of a vector.
  Constant ones, none;
};
extern const Constants kConstants;

inline __m256i nibble_hits(__m256i x, const Constant& column, const Constant& row) {
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), __m256i(kConstants.low_nibble));
  return _mm256_and_si256(_mm256_shuffle_epi8(__m256i(column), x), _mm256_shuffle_epi8(__m256i(row), high));
}
inline uint32_t zero_bytes(__m256i x) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, __m256i(kConstants.zero))));
}

// What 32 bytes of a field line are; bit i is byte i.
struct FieldBlock {
  uint32_t not_token;  // the first of them ends a name
  uint32_t stop;       // no value may have it: the first of them ends a value
};
inline FieldBlock classify(__m256i x) {
  const __m256i hit = nibble_hits(x, kConstants.field_column, kConstants.field_row);
  // Bits of controls become the top bit by a saturated addition.
  const uint32_t stop = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_adds_epu8(hit, __m256i(kConstants.raise))));
  return {zero_bytes(hit) | stop, stop};
}
// Bit i: byte i may not be in an authority.
inline uint32_t authority_stops(__m256i x) {
  return zero_bytes(nibble_hits(x, kConstants.authority_column, kConstants.authority_row));
}
// Bytes that are no VCHAR.
inline uint32_t target_stops(__m256i x) {
  const __m256i above = _mm256_cmpgt_epi8(x, __m256i(kConstants.space));  // signed: 0x80 and above are negative
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_andnot_si256(_mm256_cmpeq_epi8(x, __m256i(kConstants.del)), above)));
}

inline __m256i first_bytes(size_t n) { return load32(reinterpret_cast<const char*>(&kConstants.none) - n); }

struct Lowered {
  __m256i bytes;   // with A..Z lowered
  uint32_t upper;  // where they were
};
inline Lowered lower(__m256i x) {
  // A..Z moved to the bottom of the signed range: one comparison tells them from all others.
  const __m256i upper = _mm256_cmpgt_epi8(__m256i(kConstants.behind_z), _mm256_add_epi8(x, __m256i(kConstants.from_a)));
  return {_mm256_or_si256(x, _mm256_and_si256(upper, __m256i(kConstants.case_bit))),
          static_cast<uint32_t>(_mm256_movemask_epi8(upper))};
}
// f(vector) for pieces of 32 bytes that together hold all of s (at least kLeastForPieces bytes) and nothing else; every pair of
// neighbours is in one of them. Bytes may come more than once, and neighbours that are none.
inline constexpr size_t kLeastForPieces = 8;
template <class F>
[[gnu::always_inline]] inline void for_each_piece(std::string_view s, F&& f) {
  const size_t n = s.size();
  const char* const p = s.data();
  if (n < 16) {
    const __m128i both = _mm_set_epi64x(static_cast<int64_t>(load8(p + n - 8)), static_cast<int64_t>(load8(p)));
    f(_mm256_broadcastsi128_si256(both));
  } else if (n < 32) {
    const auto load16 = [](const char* q) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)); };
    f(_mm256_set_m128i(load16(p + n - 16), load16(p)));
  } else {
    for (size_t at = 0; at + 32 < n; at += 31) f(load32(p + at));
    f(load32(p + n - 32));
  }
}
#endif

}  // namespace millrace::http::scan
