#include "control/cli/table.h"

#include <algorithm>
#include <cstdio>

namespace millrace::cli {

namespace {
bool g_color = false;
}

void set_color(bool on) { g_color = on; }

std::string paint(std::string_view text, Color color) {
  static constexpr const char* kCodes[] = {"", "\033[32m", "\033[33m", "\033[31m", "\033[2m", "\033[1m"};
  if (!g_color || color == Color::kNone || text.empty()) return std::string(text);
  return kCodes[static_cast<int>(color)] + std::string(text) + "\033[0m";
}

size_t display_width(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Table::Table(std::vector<std::string> titles) : titles_(std::move(titles)) {
  for (std::string& t : titles_) {
    right_.push_back(!t.empty() && t[0] == '>');
    if (right_.back()) t.erase(0, 1);
  }
}

void Table::row(std::vector<Cell> cells) {
  cells.resize(titles_.size(), Cell(""));
  rows_.push_back(std::move(cells));
}

std::string Table::to_string(size_t indent) const {
  std::vector<size_t> width;
  for (const std::string& t : titles_) width.push_back(display_width(t));
  for (const auto& r : rows_)
    for (size_t i = 0; i < r.size(); ++i) width[i] = std::max(width[i], display_width(r[i].text));
  std::string out;
  const auto line = [&](auto&& text_of, auto&& color_of) {
    std::string l(indent, ' ');
    size_t pending = 0;  // spaces that are only written when something follows them
    for (size_t i = 0; i < titles_.size(); ++i) {
      const std::string& text = text_of(i);
      const size_t gap = width[i] - display_width(text);
      if (right_[i]) pending += gap;
      if (!text.empty()) {
        l.append(pending, ' ');
        pending = 0;
        l += paint(text, color_of(i));
      }
      pending += (right_[i] ? 0 : gap) + 2;
    }
    while (!l.empty() && l.back() == ' ') l.pop_back();
    out += l + '\n';
  };
  if (std::any_of(titles_.begin(), titles_.end(), [](const std::string& t) { return !t.empty(); }))
    line([&](size_t i) -> const std::string& { return titles_[i]; }, [](size_t) { return Color::kDim; });
  for (const auto& r : rows_)
    line([&](size_t i) -> const std::string& { return r[i].text; }, [&](size_t i) { return r[i].color; });
  return out;
}

std::string count(uint64_t n) {
  std::string s = std::to_string(n);
  for (size_t i = s.size(); i > 3; i -= 3) s.insert(i - 3, ",");
  return s;
}

std::string bytes(uint64_t n) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  double v = static_cast<double>(n);
  int unit = 0;
  for (; v >= 999.95 && unit < 5; ++unit) v /= 1000;
  char out[32];
  std::snprintf(out, sizeof out, unit == 0 ? "%.0f %s" : "%.1f %s", v, kUnits[unit]);
  return out;
}

std::string duration_ms(uint64_t ms) {
  char out[48];
  if (ms < 1'000) std::snprintf(out, sizeof out, "%llu ms", static_cast<unsigned long long>(ms));
  else if (ms < 120'000) std::snprintf(out, sizeof out, "%.1f s", static_cast<double>(ms) / 1e3);
  else if (ms < 7'200'000)
    std::snprintf(out, sizeof out, "%llu min %llu s", static_cast<unsigned long long>(ms / 60'000),
                  static_cast<unsigned long long>(ms / 1'000 % 60));
  else if (ms < 172'800'000)
    std::snprintf(out, sizeof out, "%llu h %llu min", static_cast<unsigned long long>(ms / 3'600'000),
                  static_cast<unsigned long long>(ms / 60'000 % 60));
  else
    std::snprintf(out, sizeof out, "%llu days %llu h", static_cast<unsigned long long>(ms / 86'400'000),
                  static_cast<unsigned long long>(ms / 3'600'000 % 24));
  return out;
}

std::string micros(double us) {
  char out[32];
  if (us < 1'000) std::snprintf(out, sizeof out, "%.0f µs", us);
  else if (us < 1'000'000) std::snprintf(out, sizeof out, "%.2f ms", us / 1e3);
  else std::snprintf(out, sizeof out, "%.2f s", us / 1e6);
  return out;
}

std::string percent(double share) {
  char out[16];
  std::snprintf(out, sizeof out, "%.1f %%", share * 100);
  return out;
}

std::string bar(double share, size_t width) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const double cells = std::clamp(share, 0.0, 1.0) * static_cast<double>(width);
  const size_t full = static_cast<size_t>(cells);
  std::string out;
  for (size_t i = 0; i < full; ++i) out += "█";
  size_t used = full;
  if (full < width)
    if (const int rest = static_cast<int>((cells - static_cast<double>(full)) * 8); rest > 0) {
      out += kEighths[rest];
      ++used;
    }
  return out + std::string(width - used, ' ');
}

}  // namespace millrace::cli
