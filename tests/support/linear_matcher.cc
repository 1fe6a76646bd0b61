#include "tests/support/linear_matcher.h"

#include <charconv>
#include <optional>
#include <re2/re2.h>
#include <set>
#include <vector>

namespace millrace::support {

namespace {

using table::PathKind;
using table::StringMatchKind;

std::string lowered(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

bool starts_with(const std::string& s, const std::string& with) { return s.compare(0, with.size(), with) == 0; }
bool ends_with(const std::string& s, const std::string& with) {
  return s.size() >= with.size() && s.compare(s.size() - with.size(), with.size(), with) == 0;
}

}  // namespace

LinearMatcher::LinearMatcher() = default;
LinearMatcher::~LinearMatcher() = default;

bool LinearMatcher::full_match(const std::string& expression, std::string_view subject) {
  auto& re = regexes_[expression];
  if (re == nullptr) {
    re2::RE2::Options options;
    options.set_log_errors(false);
    re = std::make_unique<re2::RE2>(expression, options);
  }
  return re2::RE2::FullMatch(re2::StringPiece(subject.data(), subject.size()), *re);
}

int LinearMatcher::find_virtual_host(const route::RouteTableSpec& spec, std::string_view authority) {
  std::string host = lowered(authority);
  if (spec.ignore_port_in_host_matching) {
    const size_t colon = host.rfind(':');
    const size_t bracket = host.rfind(']');
    if (colon != std::string::npos && (bracket == std::string::npos || bracket < colon)) host.resize(colon);
  }
  int exact = -1, best_suffix = -1, best_prefix = -1, fallback = -1;
  size_t suffix_length = 0, prefix_length = 0;
  for (size_t h = 0; h < spec.virtual_hosts.size(); ++h) {
    for (const std::string& written : spec.virtual_hosts[h].domains) {
      const std::string domain = lowered(written);
      const int index = static_cast<int>(h);
      if (domain == "*") {
        fallback = index;
      } else if (domain[0] == '*') {
        const std::string rest = domain.substr(1);
        if (host.size() > rest.size() && ends_with(host, rest) && rest.size() >= suffix_length) {
          best_suffix = index;
          suffix_length = rest.size();
        }
      } else if (domain.back() == '*') {
        const std::string rest = domain.substr(0, domain.size() - 1);
        if (host.size() > rest.size() && starts_with(host, rest) && rest.size() >= prefix_length) {
          best_prefix = index;
          prefix_length = rest.size();
        }
      } else if (domain == host) {
        exact = index;
      }
    }
  }
  return exact >= 0 ? exact : best_suffix >= 0 ? best_suffix : best_prefix >= 0 ? best_prefix : fallback;
}

int LinearMatcher::match(const route::VirtualHostSpec& spec, const http::RequestHead& head, uint64_t random_value, bool is_tls) {
  std::string proto = is_tls ? "https" : "http";
  std::string internal;
  for (const http::Header& h : head.headers) {
    if (h.name == "x-forwarded-proto") proto = std::string(h.value);
    if (h.name == "x-envoy-internal") internal = std::string(h.value);
  }
  if (spec.require_tls == table::RequireTls::kAll && proto != "https") return kTlsRequired;
  if (spec.require_tls == table::RequireTls::kExternalOnly && proto != "https" && internal != "true") return kTlsRequired;
  if (head.path.empty() && head.method != "CONNECT") return kNoRoute;
  for (size_t i = 0; i < spec.routes.size(); ++i)
    if (matches(spec.routes[i], head, random_value, is_tls)) return static_cast<int>(i);
  return kNoRoute;
}

bool LinearMatcher::matches(const route::RouteSpec& route, const http::RequestHead& head, uint64_t random_value, bool is_tls) {
  if (random_value % route.fraction_denominator >= route.fraction_numerator) return false;
  if (route.grpc_only) {
    std::string type;
    for (const http::Header& h : head.headers)
      if (h.name == "content-type") {
        type = std::string(h.value);
        break;
      }
    if (type != "application/grpc" && !starts_with(type, "application/grpc+")) return false;
  }
  for (const route::MatcherSpec& m : route.headers)
    if (!header_matches(m, head, is_tls)) return false;
  for (const route::MatcherSpec& m : route.query)
    if (!query_matches(m, head.path)) return false;
  if (route.path_kind == PathKind::kConnect) return head.method == "CONNECT" && head.path.empty();
  return !head.path.empty() && path_matches(route, head.path);
}

bool LinearMatcher::path_matches(const route::RouteSpec& route, std::string_view whole) {
  std::string path(whole.substr(0, whole.find_first_of("?#")));
  if (route.path_kind == PathKind::kRegex) return full_match(route.path, path);
  std::string want = route.path;
  if (!route.case_sensitive) {
    path = lowered(path);
    want = lowered(want);
  }
  if (route.path_kind == PathKind::kExact) return path == want;
  if (!starts_with(path, want)) return false;
  return route.path_kind == PathKind::kPrefix || path.size() == want.size() || path[want.size()] == '/';
}

bool LinearMatcher::header_matches(const route::MatcherSpec& m, const http::RequestHead& head, bool is_tls) {
  const std::string name = lowered(m.name);
  std::optional<std::string> value;
  if (name == ":method") {
    value = std::string(head.method);
  } else if (name == ":path") {
    value = std::string(head.path);
  } else if (name == ":authority" || name == "host") {
    value = std::string(head.authority);
  } else if (name == ":scheme") {
    value = !head.scheme.empty() ? std::string(head.scheme) : is_tls ? "https" : "http";
  } else {
    static const std::set<std::string> kJoined = {
        "connection",       "content-type",     "te",           "user-agent", "x-forwarded-for", "x-forwarded-proto",
        "x-forwarded-host", "x-forwarded-port", "x-request-id", "via",        "grpc-timeout"};
    bool any = false;
    for (const http::Header& h : head.headers) {
      if (h.name != name) continue;
      any = any || value_matches(m, std::string(h.value));
      value = value ? *value + "," + std::string(h.value) : std::string(h.value);
    }
    if (value && !kJoined.contains(name)) return any != m.invert;  // of repeated fields one is enough
  }
  if (!value && !m.treat_missing_as_empty) return m.kind == StringMatchKind::kPresent && m.invert;
  return value_matches(m, value.value_or("")) != m.invert;
}

bool LinearMatcher::query_matches(const route::MatcherSpec& m, std::string_view path) {
  std::optional<std::string> value;
  const size_t mark = path.find('?');
  if (mark != std::string_view::npos) {
    const std::string query(path.substr(mark + 1));
    for (size_t at = 0; at < query.size() && !value;) {
      size_t end = query.find('&', at);
      if (end == std::string::npos) end = query.size();
      const std::string parameter = query.substr(at, end - at);
      const size_t equal = parameter.find('=');
      if (parameter.substr(0, equal) == m.name) value = equal == std::string::npos ? "" : parameter.substr(equal + 1);
      at = end + 1;
    }
  }
  if (m.kind == StringMatchKind::kPresent) return value.has_value() != m.invert;
  return value && value_matches(m, *value);
}

bool LinearMatcher::value_matches(const route::MatcherSpec& m, std::string value) {
  if (m.kind == StringMatchKind::kPresent) return true;
  if (m.kind == StringMatchKind::kRegex) return full_match(m.value, value);
  if (m.kind == StringMatchKind::kRange) {
    size_t from = value.find_first_not_of(" \t\n\v\f\r"), to = value.find_last_not_of(" \t\n\v\f\r");
    if (from == std::string::npos) return false;
    std::string digits = value.substr(from, to - from + 1);
    if (digits[0] == '+') {
      digits.erase(0, 1);
      if (digits.empty() || digits[0] == '-') return false;
    }
    int64_t number = 0;
    const auto r = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return r.ec == std::errc{} && r.ptr == digits.data() + digits.size() && number >= m.range_start && number < m.range_end;
  }
  std::string want = m.value;
  if (m.ignore_case) {
    value = lowered(value);
    want = lowered(want);
  }
  switch (m.kind) {
    case StringMatchKind::kExact:
      return value == want;
    case StringMatchKind::kPrefix:
      return starts_with(value, want);
    case StringMatchKind::kSuffix:
      return ends_with(value, want);
    case StringMatchKind::kContains:
      return value.find(want) != std::string::npos;
    default:
      return false;
  }
}

}  // namespace millrace::support
