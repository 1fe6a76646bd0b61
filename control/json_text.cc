#include "control/json_text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace millrace::control {

namespace {

// Length of the UTF-8 sequence at `s`, 0 when it is not one (RFC 3629).
size_t utf8_length(std::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<uint8_t>(s[i]) : uint8_t{0}; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const uint8_t b = byte(0);
  if (b < 0x80) return 1;
  if (b >= 0xc2 && b <= 0xdf && tail(1)) return 2;
  if ((b & 0xf0) == 0xe0 && tail(1) && tail(2) && !(b == 0xe0 && byte(1) < 0xa0) && !(b == 0xed && byte(1) > 0x9f)) return 3;
  if (b >= 0xf0 && b <= 0xf4 && tail(1) && tail(2) && tail(3) && !(b == 0xf0 && byte(1) < 0x90) && !(b == 0xf4 && byte(1) > 0x8f))
    return 4;
  return 0;
}

}  // namespace

std::string json_quote(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const size_t n = utf8_length(text);
    const char c = text[0];
    if (n == 0) {
      out += "\\ufffd";
      text.remove_prefix(1);
      continue;
    }
    if (n > 1) out += text.substr(0, n);
    else if (c == '"') out += "\\\"";
    else if (c == '\\') out += "\\\\";
    else if (c == '\n') out += "\\n";
    else if (c == '\r') out += "\\r";
    else if (c == '\t') out += "\\t";
    else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) (out += "\\u00") += {kHex[c >> 4 & 15], kHex[c & 15]};
    else out += c;
    text.remove_prefix(n);
  }
  return out + "\"";
}

size_t first_bad_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t n = utf8_length(text.substr(at));
    if (n == 0) return at;
    at += n;
  }
  return at;
}

bool is_utf8(std::string_view text) { return first_bad_utf8(text) == text.size(); }

std::string base64_encode(std::string_view bytes) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t v = 0;
    for (size_t k = 0; k < 3; ++k) v = v << 8 | (k < n ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kAlphabet[v >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

bool base64_decode(std::string_view text, std::string* out) {
  out->clear();
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  uint32_t v = 0, bits = 0;
  for (const char c : text) {
    uint32_t d;
    if (c >= 'A' && c <= 'Z') d = static_cast<uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z') d = static_cast<uint32_t>(c - 'a' + 26);
    else if (c >= '0' && c <= '9') d = static_cast<uint32_t>(c - '0' + 52);
    else if (c == '+' || c == '-') d = 62;
    else if (c == '/' || c == '_') d = 63;
    else if (c == '\n' || c == '\r' || c == ' ') continue;  // folded YAML text
    else return false;
    v = v << 6 | d;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out->push_back(static_cast<char>(v >> bits & 255));
    }
  }
  return bits < 6;
}

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace millrace::control
