#include "lib/http/connection.h"

namespace millrace::http {

namespace {
constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }
}  // namespace

bool equals_ignore_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i])) return false;
  return true;
}

bool list_has_token(std::string_view list, std::string_view token) {
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

bool should_close(Version version, const HeaderTable& headers) {
  if (version == Version::kHttp10) return !has_token(headers, HeaderId::kConnection, "keep-alive");
  return has_token(headers, HeaderId::kConnection, "close") || has_token(headers, HeaderId::kProxyConnection, "close");
}

bool is_upgrade(const HeaderTable& headers) {
  return headers.has(HeaderId::kUpgrade) && has_token(headers, HeaderId::kConnection, "upgrade");
}

bool expects_continue(const RequestHead& head) {
  return head.headers.has(HeaderId::kExpect) && equals_ignore_case(head.headers.get(HeaderId::kExpect), "100-continue");
}

bool is_grpc(const HeaderTable& headers) {
  constexpr std::string_view kGrpc = "application/grpc";
  const std::string_view type = headers.get(HeaderId::kContentType);
  return type.starts_with(kGrpc) && (type.size() == kGrpc.size() || type[kGrpc.size()] == '+');
}

}  // namespace millrace::http
