#include "perf/load/workload.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "lib/base/assert.h"

namespace millrace::load {
namespace {

using base::Error;
using base::Result;

constexpr double kMaxZipfExponent = 10;

// What may stand in a Host field and in an origin-form target without breaking the request's head: no blank, no control
// character.
bool printable(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return c > ' ' && c != 0x7f; });
}

// What is wrong with a pair, or empty.
std::string complaint(std::string_view host, std::string_view path) {
  if (host.empty()) return "the host is empty";
  if (host.size() > kMaxHostBytes) return "the host is longer than " + std::to_string(kMaxHostBytes) + " bytes";
  if (path.empty()) return "the path is missing: a line is `host path`";
  if (path.size() > kMaxPathBytes) return "the path is longer than " + std::to_string(kMaxPathBytes) + " bytes";
  if (path[0] != '/' && path != "*") return "the path does not begin with /";
  if (!printable(host)) return "the host has a blank or control character";
  if (!printable(path)) return "the path has a blank or control character";
  return {};
}

constexpr bool blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

}  // namespace

Result<TargetTable> TargetTable::read(const std::string& file) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(file.c_str(), "rb"), &std::fclose);
  if (in == nullptr) return Error{file + ": " + std::strerror(errno)};
  std::string text;
  char block[64 * 1024];
  for (size_t n; (n = std::fread(block, 1, sizeof block, in.get())) > 0;) text.append(block, n);
  if (std::ferror(in.get()) != 0) return Error{file + ": " + std::strerror(errno)};
  return parse(std::move(text), file);
}

Result<TargetTable> TargetTable::parse(std::string text, std::string_view name) {
  TargetTable table;
  uint64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t newline = std::min(text.find('\n', at), text.size());
    ++number;
    size_t begin = at, end = newline;
    at = newline + 1;
    while (begin < end && blank(text[begin])) ++begin;
    while (begin < end && blank(text[end - 1])) --end;
    if (begin == end || text[begin] == '#') continue;
    size_t gap = begin;
    while (gap < end && !blank(text[gap])) ++gap;
    size_t path = gap;
    while (path < end && blank(text[path])) ++path;
    const std::string_view all(text);
    const std::string wrong = complaint(all.substr(begin, gap - begin), all.substr(path, end - path));
    if (!wrong.empty()) return Error{std::string(name) + ":" + std::to_string(number) + ": " + wrong};
    if (table.lines_.size() == kMaxTargetLines) {
      return Error{std::string(name) + ": more than " + std::to_string(kMaxTargetLines) + " lines"};
    }
    table.lines_.push_back({begin, path, static_cast<uint32_t>(gap - begin), static_cast<uint32_t>(end - path)});
  }
  if (table.lines_.empty()) return Error{std::string(name) + ": no line says what to ask for; write lines of `host path`"};
  table.text_ = std::move(text);
  return table;
}

Result<TargetTable> TargetTable::single(std::string_view host, std::string_view path) {
  if (const std::string wrong = complaint(host, path); !wrong.empty()) return Error{wrong};
  TargetTable table;
  table.text_ = std::string(host) + std::string(path);
  table.lines_.push_back({0, host.size(), static_cast<uint32_t>(host.size()), static_cast<uint32_t>(path.size())});
  return table;
}

// Vose, "A linear algorithm for generating random numbers with a given distribution", 1991: every column is filled to the same
// height by its own weight and at most one other's.
TargetDraw::TargetDraw(uint32_t n, double zipf_exponent, uint64_t seed) : n_(n), random_(seed) {
  MILLRACE_ASSERT(n >= 1, "there is something to draw");
  MILLRACE_ASSERT(zipf_exponent >= 0 && zipf_exponent <= kMaxZipfExponent, "an exponent that options allow");
  if (zipf_exponent == 0 || n == 1) return;
  std::vector<double> height(n);
  double sum = 0;
  for (uint32_t i = n; i-- > 0;) sum += height[i] = std::pow(i + 1.0, -zipf_exponent);  // small ones first: less is rounded away
  std::vector<uint32_t> low, high;
  for (uint32_t i = 0; i < n; ++i) {
    height[i] *= n / sum;
    (height[i] < 1 ? low : high).push_back(i);
  }
  columns_.resize(n);
  while (!low.empty() && !high.empty()) {
    const uint32_t l = low.back(), h = high.back();
    low.pop_back();
    columns_[l] = {static_cast<uint64_t>(height[l] * 0x1p64), h};
    height[h] -= 1 - height[l];
    if (height[h] < 1) {
      high.pop_back();
      low.push_back(h);
    }
  }
  // What is left is full but for rounding.
  for (const std::vector<uint32_t>* rest : {&low, &high}) {
    for (const uint32_t i : *rest) columns_[i] = {UINT64_MAX, i};
  }
}

}  // namespace millrace::load
