// ASCII case, as Envoy folds it: bytes from 0x80 are left alone.
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::route {

inline char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

inline void lower_copy(char* to, std::string_view from) {
  for (size_t i = 0; i < from.size(); ++i) to[i] = lower(from[i]);
}
// `folded` is in lower case already.
inline bool equals_folded(std::string_view text, std::string_view folded) {
  if (text.size() != folded.size()) return false;
  for (size_t i = 0; i < text.size(); ++i)
    if (lower(text[i]) != folded[i]) return false;
  return true;
}
inline bool contains_folded(std::string_view text, std::string_view folded) {
  if (folded.size() > text.size()) return false;
  for (size_t i = 0; i + folded.size() <= text.size(); ++i)
    if (equals_folded(text.substr(i, folded.size()), folded)) return true;
  return false;
}

}  // namespace millrace::route
