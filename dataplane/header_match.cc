#include "dataplane/header_match.h"

#include <algorithm>
#include <charconv>

namespace millrace::dataplane {

using table::StringMatchKind;

namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool equal(std::string_view value, std::string_view want, bool fold) {
  return fold ? std::equal(value.begin(), value.end(), want.begin(), want.end(), [](char a, char b) { return lower(a) == b; })
              : value == want;
}

bool value_matches(const void* object, const table::ValueMatch& m, std::string_view value) {
  const std::string_view want = table::view(object, m.value);
  const bool fold = m.ignore_case != 0;
  switch (m.kind) {
    case StringMatchKind::kPresent:
      return true;
    case StringMatchKind::kExact:
      return equal(value, want, fold);
    case StringMatchKind::kPrefix:
      return value.size() >= want.size() && equal(value.substr(0, want.size()), want, fold);
    case StringMatchKind::kSuffix:
      return value.size() >= want.size() && equal(value.substr(value.size() - want.size()), want, fold);
    case StringMatchKind::kContains:
      return std::search(value.begin(), value.end(), want.begin(), want.end(),
                         [fold](char a, char b) { return (fold ? lower(a) : a) == b; }) != value.end() ||
             want.empty();
    case StringMatchKind::kRange: {
      int64_t number = 0;
      const char* const end = value.data() + value.size();
      const auto r = std::from_chars(value.data(), end, number);
      return r.ec == std::errc() && r.ptr == end && number >= m.range_start && number < m.range_end;
    }
    case StringMatchKind::kRegex:  // control refuses it here
      break;
  }
  return false;
}

}  // namespace

bool header_holds(const void* object, const table::ValueMatch& m, const http::RequestHead* request,
                  const http::HeaderTable* headers) {
  const std::string_view name = table::view(object, m.name);
  const bool invert = m.invert != 0;
  bool found = false;
  const auto holds = [&](std::string_view value) {
    found = true;
    return value_matches(object, m, value);
  };
  if (request != nullptr) {
    const std::string_view pseudo = name == ":method"                        ? request->method
                                    : name == ":path"                        ? request->path
                                    : name == ":authority" || name == "host" ? request->authority
                                    : name == ":scheme"                      ? request->scheme
                                                                             : std::string_view{};
    if (!pseudo.empty()) return holds(pseudo) != invert;
  }
  if (headers != nullptr)
    for (const http::Header& h : *headers)
      if (h.name == name && holds(h.value)) return !invert;
  if (found) return invert;
  if (m.treat_missing_as_empty != 0) return value_matches(object, m, {}) != invert;
  return m.kind == StringMatchKind::kPresent && invert;
}

}  // namespace millrace::dataplane
