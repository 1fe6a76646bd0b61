// Small helpers for text that goes to people and programs.
#pragma once

#include <string>
#include <string_view>

namespace millrace::control {

// The text as a JSON string, in quotes; bytes that are not UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);

bool is_utf8(std::string_view text);           // RFC 3629
size_t first_bad_utf8(std::string_view text);  // offset; text.size() when there is none

// RFC 4648 base64 with padding; decoding also takes the URL-safe alphabet and missing padding (proto3 JSON). False: not base64.
std::string base64_encode(std::string_view bytes);
bool base64_decode(std::string_view text, std::string* out);

// "a", "b" or "c"
template <class Range>
std::string list_of(const Range& words, std::string_view last_joiner = " or ") {
  std::string out;
  size_t i = 0, n = 0;
  for ([[maybe_unused]] const auto& w : words) ++n;
  for (const auto& w : words) {
    if (i > 0) out += i + 1 == n ? last_joiner : std::string_view(", ");
    out += w;
    ++i;
  }
  return out;
}

// The candidate nearest to `word` by edit distance, when it is near enough to be what was meant; "" otherwise.
template <class Range>
std::string nearest(std::string_view word, const Range& candidates);
size_t edit_distance(std::string_view a, std::string_view b);

template <class Range>
std::string nearest(std::string_view word, const Range& candidates) {
  size_t best = word.size() / 3 + 2;
  std::string out;
  for (const auto& c : candidates) {
    const size_t d = edit_distance(word, c);
    if (d < best) {
      best = d;
      out = c;
    }
  }
  return out;
}

}  // namespace millrace::control
