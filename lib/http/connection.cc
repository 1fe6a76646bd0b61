#include "lib/http/connection.h"

namespace millrace::http {

namespace {
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }
}  // namespace

bool equals_ignore_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  if (equal_bytes(a.data(), b.data(), a.size())) return true;
  for (size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

bool list_has_token(std::string_view list, std::string_view token) {
  if (is_text(list, "keep-alive") || is_text(list, "close")) return list == token;  // as nearly always
  while (!list.empty()) {
    const size_t comma = list.find(',');
    std::string_view member = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    while (!member.empty() && (member.front() == ' ' || member.front() == '\t')) member.remove_prefix(1);
    while (!member.empty() && (member.back() == ' ' || member.back() == '\t')) member.remove_suffix(1);
    if (equals_ignore_case(member, token)) return true;
  }
  return false;
}

bool has_token(const HeaderTable& headers, HeaderId id, std::string_view token) {
  if (!headers.has(id)) return false;
  for (const Header& h : headers)
    if (h.id == id && list_has_token(h.value, token)) return true;
  return false;
}

}  // namespace millrace::http
