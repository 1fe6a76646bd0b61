// ASCII as protocols mean it: no locale, bytes above 127 are never letters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/bytes.h"

namespace millrace::base {

constexpr bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr char to_lower(char c) { return is_upper(c) ? static_cast<char>(c | 0x20) : c; }

namespace detail {
constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> t{};
  for (int c = '0'; c <= '9'; ++c) t[static_cast<size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) t[static_cast<size_t>(c)] = t[static_cast<size_t>(c - 32)] = true;
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) t[static_cast<uint8_t>(c)] = true;
  return t;
}
inline constexpr std::array<bool, 256> kToken = make_token_table();

// 0x20 in each byte of `word` that is 'A'..'Z', else 0.
constexpr uint64_t upper_mask(uint64_t word) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  const uint64_t low7 = word & ~kHigh;
  const uint64_t at_least_a = low7 + kOnes * (0x80 - 'A');     // high bit: >= 'A'
  const uint64_t above_z = low7 + kOnes * (0x80 - ('Z' + 1));  // high bit: > 'Z'
  return (at_least_a & ~above_z & ~word & kHigh) >> 2;
}
}  // namespace detail

// tchar of RFC 9110 5.6.2.
constexpr bool is_token_char(char c) { return detail::kToken[static_cast<uint8_t>(c)]; }

// A field name or method: one tchar or more.
constexpr bool is_token(std::string_view s) {
  if (s.empty()) return false;
  for (char c : s)
    if (!is_token_char(c)) return false;
  return true;
}

// Lower case in place, eight bytes at a time.
inline void lower_in_place(char* p, size_t n) {
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word = load_unaligned<uint64_t>(p);
    word |= detail::upper_mask(word);
    std::memcpy(p, &word, 8);
  }
  for (; n > 0; --n, ++p) *p = to_lower(*p);
}

// Equal but for the case of ASCII letters.
inline bool iequals(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  const char *p = a.data(), *q = b.data();
  size_t n = a.size();
  for (; n >= 8; n -= 8, p += 8, q += 8) {
    const uint64_t x = load_unaligned<uint64_t>(p), y = load_unaligned<uint64_t>(q);
    if ((x | detail::upper_mask(x)) != (y | detail::upper_mask(y))) return false;
  }
  for (; n > 0; --n, ++p, ++q)
    if (to_lower(*p) != to_lower(*q)) return false;
  return true;
}

}  // namespace millrace::base
