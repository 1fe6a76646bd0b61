// Bytes written as in a packet dump: hex("45 00 003c"), blanks and line breaks as one likes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/base/assert.h"

namespace millrace::support {

inline std::vector<uint8_t> hex(std::string_view text) {
  std::vector<uint8_t> out;
  int high = -1;
  for (char c : text) {
    int digit;
    if (c >= '0' && c <= '9') digit = c - '0';
    else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    else continue;
    if (high < 0) {
      high = digit;
    } else {
      out.push_back(static_cast<uint8_t>(high << 4 | digit));
      high = -1;
    }
  }
  MILLRACE_ASSERT(high < 0, "an even number of hex digits");
  return out;
}

}  // namespace millrace::support
