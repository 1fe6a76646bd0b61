// A frame of `millctl top` as text: fits the width it is given by leaving out columns, the least important first, and never
// breaks a line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "lib/api/millrace.control.v1.pb.h"

namespace millrace::cli {

struct ScreenOptions {
  size_t width = 0;   // columns; 0: no limit
  size_t height = 0;  // lines; 0: no limit. What does not fit is cut at the bottom, and the last line says so
  bool keys = false;  // somebody can press keys: the last line of the head names them
  std::string clock;  // what stands at the right of the first line; empty: nothing
};

// Lines, each with '\n'. Colours as set_color() says.
std::string render(const control::v1::TopFrame& frame, const ScreenOptions& options);

// Columns that a terminal shows for a line: UTF-8 characters, without escape sequences.
size_t visible_width(std::string_view line);
// The line cut to `width` columns, colours ended where they are cut.
std::string cut_line(std::string_view line, size_t width);

std::string rate(double per_second);  // "0", "0.25", "12.5", "1,234,567"

}  // namespace millrace::cli
