// The reference that lib/route is compared with: Envoy's algorithms written down as plainly as possible, on the specs and not on
// the compiled objects, one route after the other, regular expressions by RE2. Slow on purpose, and without a line in common with
// lib/route.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "lib/http/message.h"
#include "lib/route/compiler.h"

namespace re2 {
class RE2;
}

namespace millrace::support {

class LinearMatcher {
 public:
  LinearMatcher();
  ~LinearMatcher();

  // RouteMatcher::findVirtualHost: index into spec.virtual_hosts, or -1.
  int find_virtual_host(const route::RouteTableSpec& spec, std::string_view authority);

  static constexpr int kNoRoute = -1;
  static constexpr int kTlsRequired = -2;
  // VirtualHostImpl::getRouteFromEntries: index into spec.routes, kNoRoute or kTlsRequired.
  int match(const route::VirtualHostSpec& spec, const http::RequestHead& head, uint64_t random_value, bool is_tls);

  // RE2 as Envoy uses it. The expression is legal.
  bool full_match(const std::string& expression, std::string_view subject);

 private:
  bool matches(const route::RouteSpec& route, const http::RequestHead& head, uint64_t random_value, bool is_tls);
  bool path_matches(const route::RouteSpec& route, std::string_view path);
  bool header_matches(const route::MatcherSpec& m, const http::RequestHead& head, bool is_tls);
  bool query_matches(const route::MatcherSpec& m, std::string_view path);
  bool value_matches(const route::MatcherSpec& m, std::string value);

  std::map<std::string, std::unique_ptr<re2::RE2>> regexes_;
};

}  // namespace millrace::support
