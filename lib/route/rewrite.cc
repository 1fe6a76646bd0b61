#include "lib/route/rewrite.h"

#include <algorithm>
#include <cstring>

namespace millrace::route {

namespace {

// Appends to lent memory; a text that did not fit makes the result the empty view.
class Text {
 public:
  explicit Text(std::span<char> out) : out_(out) {}
  Text& operator<<(std::string_view s) {
    if (s.size() > out_.size() - used_) {
      overflowed_ = true;
    } else if (!s.empty()) {
      std::memcpy(out_.data() + used_, s.data(), s.size());
      used_ += s.size();
    }
    return *this;
  }
  std::string_view view() const { return overflowed_ ? std::string_view{} : std::string_view(out_.data(), used_); }

 private:
  std::span<char> out_;
  size_t used_ = 0;
  bool overflowed_ = false;
};

constexpr size_t kLongestPort = 6;  // ":65535"
constexpr std::string_view kHttps = "https", kHttp = "http";

std::string_view format_port(uint16_t port, char (&buffer)[kLongestPort]) {
  size_t at = kLongestPort;
  do {
    buffer[--at] = static_cast<char>('0' + port % 10);
    port = static_cast<uint16_t>(port / 10);
  } while (port != 0);
  buffer[--at] = ':';
  return {buffer + at, kLongestPort - at};
}

// processRequestHost: the authority, without its port when the redirect names another one, or when the scheme changes and the
// port was the default of the old scheme.
std::string_view request_host(const http::RequestHead& head, std::string_view new_scheme, bool new_port, std::string_view proto) {
  const std::string_view host = head.authority;
  if (host.empty()) return host;
  size_t colon;
  if (host[0] == '[') {
    colon = host.rfind("]:");
    if (colon != std::string_view::npos) ++colon;
  } else {
    colon = host.rfind(':');
  }
  if (colon == std::string_view::npos) return host;
  const std::string_view port = host.substr(colon);
  bool remove = new_port;
  if (new_scheme != proto) remove = remove || (proto == kHttps && port == ":443") || (proto == kHttp && port == ":80");
  return remove ? host.substr(0, colon) : host;
}

}  // namespace

size_t matched_path_bytes(const table::VirtualHost&, const table::Route& route, const http::RequestHead& head) {
  const size_t whole = http::path_only(head.path).size();
  return route.path_kind == table::PathKind::kRegex ? whole : std::min<size_t>(route.path.count, whole);
}

std::string_view rewrite_path(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head,
                              std::span<char> out) {
  const std::string_view replacement = view(&host, route.prefix_rewrite);
  if (replacement.empty()) return head.path;
  Text text(out);
  text << replacement << head.path.substr(matched_path_bytes(host, route, head));
  return text.view();
}

size_t redirect_target_bound(const table::VirtualHost&, const table::Route& route, const http::RequestHead& head) {
  const table::Redirect& r = route.redirect;
  return std::max<size_t>(r.scheme.count, std::max(head.scheme.size(), kHttps.size())) + 3 +
         std::max<size_t>(r.host.count, head.authority.size()) + kLongestPort + 1 + r.path.count + r.prefix_rewrite.count +
         head.path.size();
}

std::string_view redirect_target(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head,
                                 const RedirectContext& context, std::span<char> out) {
  const table::Redirect& r = route.redirect;
  std::string_view proto = head.headers.get(http::HeaderId::kXForwardedProto);
  if (proto.empty()) proto = context.is_tls ? kHttps : kHttp;

  std::string_view scheme = view(&host, r.scheme);
  if (scheme.empty()) scheme = r.https_redirect != 0 ? kHttps : !head.scheme.empty() ? head.scheme : proto;
  char port_text[kLongestPort];
  const std::string_view port = r.port != 0 ? format_port(r.port, port_text) : std::string_view{};
  std::string_view name = view(&host, r.host);
  if (name.empty()) name = request_host(head, scheme, !port.empty(), proto);

  // The path: path_redirect (with the request's query unless it brings its own), or the request's with its matched part
  // rewritten.
  const std::string_view path_redirect = view(&host, r.path);
  const bool own_query = path_redirect.find('?') != std::string_view::npos;
  const std::string_view query = head.path.substr(std::min(head.path.find('?'), head.path.size()));
  std::string_view first, second;
  if (!path_redirect.empty()) {
    first = path_redirect;
    second = own_query ? std::string_view{} : query;
  } else if (const std::string_view prefix = view(&host, r.prefix_rewrite); !prefix.empty()) {
    first = prefix;
    second = head.path.substr(matched_path_bytes(host, route, head));
  } else {
    first = head.path;
  }
  if (r.strip_query != 0 && !own_query) {
    if (const size_t mark = first.find('?'); mark != std::string_view::npos) {
      first = first.substr(0, mark);
      second = {};
    }
    second = second.substr(0, second.find('?'));
  }
  Text text(out);
  text << scheme << "://" << name << port;
  if (first.empty() ? !second.starts_with('/') : first[0] != '/') text << "/";
  text << first << second;
  return text.view();
}

std::string_view tls_redirect_target(const http::RequestHead& head, std::span<char> out) {
  Text text(out);
  text << "https://" << head.authority << head.path;
  return text.view();
}

}  // namespace millrace::route
