// Is a text well-formed UTF-8 (RFC 3629)? ASCII, which nearly every subject is, is told apart eight bytes a step.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/bytes.h"

namespace millrace::route {

inline bool is_utf8(std::string_view text) {
  const uint8_t* p = reinterpret_cast<const uint8_t*>(text.data());
  size_t n = text.size();
  while (n > 0) {
    if (n >= 8 && (base::load_unaligned<uint64_t>(p) & 0x8080808080808080) == 0) {
      p += 8;
      n -= 8;
      continue;
    }
    const uint8_t lead = *p;
    if (lead < 0x80) {
      ++p;
      --n;
      continue;
    }
    // Table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing beyond U+10FFFF.
    const size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || n < length) return false;
    const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high) return false;
    for (size_t i = 2; i < length; ++i)
      if ((p[i] & 0xc0) != 0x80) return false;
    p += length;
    n -= length;
  }
  return true;
}

}  // namespace millrace::route
