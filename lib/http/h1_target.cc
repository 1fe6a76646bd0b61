#include "lib/http/h1_target.h"

#include <array>

#include "lib/base/ip_address.h"
#include "lib/http/connection.h"
#include "lib/http/h1_scan.h"

namespace millrace::http {

namespace {

constexpr bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_alnum(char c) { return is_alpha(c) || is_digit(c); }

constexpr auto kAuthorityByte = [] {
  std::array<bool, 256> t{};
  for (size_t c = 0; c < 256; ++c) t[c] = scan::is_authority_byte(static_cast<uint8_t>(c));
  return t;
}();

// host ":" port of a URL: a name of letters, digits, '-' and '.', or an IPv6 address in brackets; the port, where there is one,
// is 0 to 65535 in decimal. Narrower than RFC 3986 (no percent-encoding, no sub-delims), as Envoy's URL class is.
bool is_host_and_port(std::string_view s, bool port_required) {
  std::string_view port;
  bool has_port = false;
  if (!s.empty() && s.front() == '[') {
    const size_t close = s.find(']');
    if (close == std::string_view::npos) return false;
    const std::string_view inside = s.substr(1, close - 1);
    if (inside.find(':') == std::string_view::npos || !base::IpAddress::parse(inside)) return false;
    const std::string_view rest = s.substr(close + 1);
    has_port = !rest.empty();
    if (has_port && rest.front() != ':') return false;
    if (has_port) port = rest.substr(1);
  } else {
    const size_t colon = s.find(':');
    has_port = colon != std::string_view::npos;
    if (has_port) port = s.substr(colon + 1);
    const std::string_view host = s.substr(0, colon);
    if (host.empty()) return false;
    for (char c : host)
      if (!is_alnum(c) && c != '-' && c != '.') return false;
  }
  if (!has_port) return !port_required;
  if (port.empty()) return false;
  uint32_t value = 0;
  for (char c : port) {
    if (!is_digit(c)) return false;
    value = value * 10 + static_cast<uint32_t>(c - '0');
    if (value > 65535) return false;
  }
  return true;
}

// absolute-form (RFC 9112 3.2.2): scheme "://" [userinfo "@"] host [":" port] [path] ["?" query].
H1Error parse_absolute(std::span<char> target, RequestHead* head) {
  const std::string_view t(target.data(), target.size());
  size_t scheme_end = 0;
  if (!is_alpha(t[0])) return H1Error::kBadTarget;
  while (scheme_end < t.size() &&
         (is_alnum(t[scheme_end]) || t[scheme_end] == '+' || t[scheme_end] == '-' || t[scheme_end] == '.'))
    ++scheme_end;
  if (t.substr(scheme_end, 3) != "://") return H1Error::kBadTarget;
  const std::string_view rest = t.substr(scheme_end + 3);
  const size_t path_at = rest.find_first_of("/?");
  std::string_view host = rest.substr(0, path_at);
  const std::string_view path = path_at == std::string_view::npos ? std::string_view{} : rest.substr(path_at);
  if (!is_valid_authority(host) || host.find("@@") != std::string_view::npos) return H1Error::kBadTarget;
  if (const size_t at = host.find('@'); at != std::string_view::npos)
    host = host.substr(at + 1);  // RFC 9110 4.2.4: never forwarded
  if (!is_host_and_port(host, false)) return H1Error::kInvalidUrl;
  for (size_t i = 0; i < scheme_end; ++i)
    if (target[i] >= 'A' && target[i] <= 'Z') target[i] = static_cast<char>(target[i] | 0x20);
  const std::string_view scheme = t.substr(0, scheme_end);
  if (scheme != "http" && scheme != "https") return H1Error::kInvalidScheme;
  head->scheme = scheme;
  head->authority = host;
  head->path = path.empty() ? std::string_view("/") : path;
  return H1Error::kNone;
}

}  // namespace

bool is_valid_authority(std::string_view authority) {
  for (char c : authority)
    if (!kAuthorityByte[static_cast<uint8_t>(c)]) return false;
  return true;
}

H1Error parse_target(std::span<char> target, bool allow_absolute_url, RequestHead* head) {
  const std::string_view t(target.data(), target.size());
  if (t.empty()) return H1Error::kBadTarget;
  if (is_connect(*head)) {  // authority-form, 3.2.3
    if (!is_host_and_port(t, true)) return H1Error::kInvalidUrl;
    head->authority = t;
    return H1Error::kNone;
  }
  if (t.front() == '/') {  // origin-form, 3.2.1
    head->path = t;
    return H1Error::kNone;
  }
  if (t.front() == '*') {  // asterisk-form, 3.2.4
    if (!is_text(head->method, "OPTIONS")) return H1Error::kInvalidUrl;
    head->path = t;
    return H1Error::kNone;
  }
  if (!allow_absolute_url) {  // Envoy's old behaviour: the URL is the path, which no route takes (absolute_path_rejected)
    head->path = t;
    return H1Error::kNone;
  }
  return parse_absolute(target, head);
}

}  // namespace millrace::http
