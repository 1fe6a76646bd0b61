// Chunked bodies (RFC 9112 7.1), a piece at a time; extensions and trailers are skipped.
#pragma once

#include <algorithm>
#include <cstdint>

#include "perf/load/connection.h"

namespace millrace::load {

struct ChunkStep {
  uint32_t took = 0;  // bytes consumed, at least 1
  uint32_t data = 0;  // of them body bytes: all of them or none
  bool end = false;   // the body is over
  bool bad = false;
};

// `state` kChunkSize … kTrailer, `left` the connection's body_left (0 when the body begins). n > 0.
inline ChunkStep scan_chunked(Parse& state, uint32_t& left, const uint8_t* p, uint32_t n) {
  constexpr uint32_t kExtension = 1u << 31;  // in `left`: the digits are over
  constexpr uint32_t kLineStart = 1, kInLine = 2;
  ChunkStep step;
  switch (state) {
    case Parse::kChunkSize:
      for (; step.took < n;) {
        const uint8_t b = p[step.took++];
        if (b == '\n') {
          left &= ~kExtension;
          state = left == 0 ? Parse::kTrailer : Parse::kChunkData;
          if (left == 0) left = kLineStart;
          return step;
        }
        if ((left & kExtension) != 0 || b == '\r') continue;
        const uint8_t lower = b | 0x20;
        if (b == ';' || b == ' ') left |= kExtension;
        else if (b >= '0' && b <= '9') left = left * 16 + (b - '0');
        else if (lower >= 'a' && lower <= 'f') left = left * 16 + (lower - 'a' + 10);
        else step.bad = true;
        step.bad |= (left & ~kExtension) > kMaxBody;
        if (step.bad) return step;
      }
      return step;
    case Parse::kChunkData:
      step.took = step.data = std::min(n, left);
      left -= step.took;
      if (left == 0) state = Parse::kChunkEnd;
      return step;
    case Parse::kChunkEnd:
      step.took = 1;
      step.bad = *p != '\r' && *p != '\n';
      if (*p == '\n') state = Parse::kChunkSize;
      return step;
    default:  // kTrailer: lines until an empty one
      step.took = 1;
      if (*p == '\n') {
        step.end = left == kLineStart;
        left = kLineStart;
      } else if (*p != '\r') {
        left = kInLine;
      }
      return step;
  }
}

}  // namespace millrace::load
