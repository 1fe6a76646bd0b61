// What pages are asked with.
#pragma once

#include <memory>
#include <re2/re2.h>
#include <string>
#include <string_view>

#include "control/admin/pages.h"

namespace millrace::control::admin {

inline bool has(const Request& r, const char* name) { return r.query.contains(name); }
inline std::string value_of(const Request& r, const char* name) {
  const auto found = r.query.find(name);
  return found == r.query.end() ? "" : found->second;
}

// ?filter= (found anywhere, or with ?invert_filter nowhere): RE2. Error: what is wrong with it.
struct Filter {
  std::unique_ptr<re2::RE2> regex;  // null: everything passes
  bool invert = false;
  std::string error;
  bool passes(std::string_view text) const {
    return regex == nullptr || re2::RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *regex) != invert;
  }
};
inline Filter filter_of(const Request& r, const char* name) {
  Filter f;
  const std::string pattern = value_of(r, name);
  if (pattern.empty()) return f;
  re2::RE2::Options quiet;
  quiet.set_log_errors(false);
  f.regex = std::make_unique<re2::RE2>(pattern, quiet);
  f.invert = has(r, "invert_filter");
  if (!f.regex->ok()) f.error = "Invalid regex: \"" + f.regex->error() + "\"";
  return f;
}

}  // namespace millrace::control::admin
