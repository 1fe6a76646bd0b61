// What bodies are made of: a fixed pseudo-random pattern whose period is prime, so that a segment that is missing, doubled or out
// of place shows, read from a place that depends on the path, so that an answer to another request shows too. The client compares
// with memcmp.
//
// Byte i of the body for a path of rotation r is pattern[(r + i) mod 4093].
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "lib/base/bytes.h"

namespace millrace::load {

inline constexpr uint32_t kPatternPeriod = 4093;
inline constexpr uint32_t kPatternRun = 65'536;  // bytes that can be read at once from any rotation

// The rotation of a path (the request target as it is on the wire), 0 … kPatternPeriod - 1.
inline uint32_t rotation_of(std::string_view path) {
  uint64_t h = path.size() * 0x9e3779b97f4a7c15;
  const char* p = path.data();
  size_t n = path.size();
  for (; n >= 8; n -= 8, p += 8) {
    h = (h ^ base::load_unaligned<uint64_t>(p)) * 0x9fb21c651e98df25;
    h ^= h >> 32;
  }
  uint64_t last = 0;
  for (size_t i = 0; i < n; ++i) last = last << 8 | static_cast<uint8_t>(p[i]);
  h = (h ^ last) * 0x9fb21c651e98df25;
  return static_cast<uint32_t>(((h >> 32) * kPatternPeriod) >> 32);
}

// kPatternPeriod + kPatternRun bytes; made once, before the first use.
const uint8_t* pattern();

// The place in the pattern of byte `offset` of a body.
inline uint32_t pattern_at(uint32_t rotation, uint64_t offset) {
  return static_cast<uint32_t>((rotation + offset) % kPatternPeriod);
}

// n <= any; copies body bytes offset … offset + n.
inline void copy_pattern(uint8_t* out, uint32_t rotation, uint64_t offset, uint32_t n) {
  while (n > kPatternRun) {
    std::memcpy(out, pattern() + pattern_at(rotation, offset), kPatternRun);
    out += kPatternRun, offset += kPatternRun, n -= kPatternRun;
  }
  std::memcpy(out, pattern() + pattern_at(rotation, offset), n);
}
// True when `n` bytes are those of a body at `offset`.
inline bool matches_pattern(const uint8_t* p, uint32_t rotation, uint64_t offset, uint32_t n) {
  while (n > kPatternRun) {
    if (std::memcmp(p, pattern() + pattern_at(rotation, offset), kPatternRun) != 0) return false;
    p += kPatternRun, offset += kPatternRun, n -= kPatternRun;
  }
  return std::memcmp(p, pattern() + pattern_at(rotation, offset), n) == 0;
}

}  // namespace millrace::load
