// Tables for people: columns as wide as their widest cell, numbers to the right, colour only on a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::cli {

enum class Color : uint8_t { kNone, kGreen, kYellow, kRed, kDim, kBold };

// Whether output is coloured: a terminal, NO_COLOR unset, --no-color not given.
void set_color(bool on);
std::string paint(std::string_view text, Color color);

class Table {
 public:
  // A title that begins with '>' is right-aligned (numbers).
  explicit Table(std::vector<std::string> titles);
  struct Cell {
    Cell(std::string t, Color c = Color::kNone) : text(std::move(t)), color(c) {}  // NOLINT: implicit by design
    Cell(const char* t) : text(t) {}                                               // NOLINT
    std::string text;
    Color color = Color::kNone;
  };
  void row(std::vector<Cell> cells);
  bool empty() const { return rows_.empty(); }
  // `indent` spaces in front of each line; every line ends with '\n', none with spaces.
  std::string to_string(size_t indent = 0) const;

 private:
  std::vector<std::string> titles_;
  std::vector<bool> right_;
  std::vector<std::vector<Cell>> rows_;
};

// Characters a terminal shows for UTF-8 text (combining marks and wide characters aside).
size_t display_width(std::string_view text);

std::string count(uint64_t n);                // "1,234,567"
std::string bytes(uint64_t n);                // "12.3 MB"
std::string duration_ms(uint64_t ms);         // "850 ms", "12.4 s", "3 h 12 min"
std::string micros(double us);                // "87 µs", "1.24 ms", "2.1 s"
std::string percent(double share);            // 0.1234 -> "12.3 %"
std::string bar(double share, size_t width);  // "███▌      "

}  // namespace millrace::cli
