// What is asked for: a table of (host, path), and which line comes next. Drawing is O(1) and without a branch that the law
// decides: for Zipf by Vose's alias method, for the uniform law the same table with no alias. The same seed draws the same
// sequence everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/prng.h"
#include "lib/base/status.h"

namespace millrace::load {

inline constexpr uint32_t kMaxTargetLines = 10'000'000;
inline constexpr uint32_t kMaxHostBytes = 255;   // RFC 1035 2.3.4
inline constexpr uint32_t kMaxPathBytes = 8000;  // RFC 9112 3: what every HTTP implementation should at least take

struct RequestTarget {
  std::string_view host, path;  // into the table's text
};

// The lines of a targets file, or the one of --host and --path.
class TargetTable {
 public:
  // One `host path` a line, separated by blanks; empty lines and lines that begin with # are skipped. An error names file and
  // line.
  static base::Result<TargetTable> read(const std::string& file);
  static base::Result<TargetTable> parse(std::string text, std::string_view name);
  static base::Result<TargetTable> single(std::string_view host, std::string_view path);

  uint32_t size() const { return static_cast<uint32_t>(lines_.size()); }  // at least 1
  RequestTarget operator[](uint32_t i) const {
    const Line& l = lines_[i];
    return {std::string_view(text_).substr(l.host, l.host_bytes), std::string_view(text_).substr(l.path, l.path_bytes)};
  }

 private:
  struct Line {
    uint64_t host, path;  // offsets into text_
    uint32_t host_bytes, path_bytes;
  };
  std::string text_;
  std::vector<Line> lines_;
};

// Draws indices 0 … n-1. Zipf's law with exponent s: index i has weight 1/(i+1)^s; s = 0 is uniform.
class TargetDraw {
 public:
  TargetDraw(uint32_t n, double zipf_exponent, uint64_t seed);  // n >= 1, 0 <= zipf_exponent <= 10
  uint32_t next() {
    const uint64_t r = random_.next();
    const auto column = static_cast<uint32_t>((static_cast<Wide>(r) * n_) >> 64);
    if (columns_.empty()) return column;
    // The low half of the product is the fraction within the column: a second random number for free.
    const Column& c = columns_[column];
    return r * n_ < c.keep ? column : c.alias;
  }
  uint32_t size() const { return n_; }

 private:
  __extension__ using Wide = unsigned __int128;
  struct Column {
    uint64_t keep;   // of 2^64: how much of the column is its own
    uint32_t alias;  // the rest
  };
  uint32_t n_;
  base::Prng random_;
  std::vector<Column> columns_;  // empty: uniform
};

}  // namespace millrace::load
