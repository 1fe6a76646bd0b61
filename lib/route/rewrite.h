// Paths and redirect targets as Envoy makes them: RouteEntryImplBase::rewritePathByPrefixOrRegex and Http::Utility::newUri.
// Results are written to memory that the caller lends, or are views of the input where nothing changes.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lib/http/message.h"
#include "lib/table/objects.h"

namespace millrace::route {

// How many bytes of head.path prefix_rewrite replaces: the literal's length for prefix and exact routes, the whole path (query
// stays) for regex routes. `route` matched `head`.
size_t matched_path_bytes(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head);

// head.path with RouteAction.prefix_rewrite applied, query kept; head.path itself when the route rewrites nothing.
// Empty view: `out` is too small (head.path.size() + prefix_rewrite.count is always enough).
std::string_view rewrite_path(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head,
                              std::span<char> out);

struct RedirectContext {
  bool is_tls = false;  // of the downstream connection; used when the head has no scheme or x-forwarded-proto
};
// The location of a redirect route: scheme, host with its port (dropped when it is the default port of a scheme that changes),
// path and query by path_redirect, prefix_rewrite and strip_query. Empty view: `out` is too small (redirect_target_bound() is
// always enough).
std::string_view redirect_target(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head,
                                 const RedirectContext& context, std::span<char> out);
size_t redirect_target_bound(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head);

// The location for MatchOutcome::kTlsRequired: "https://" authority path (Envoy's createSslRedirectPath: nothing is stripped).
std::string_view tls_redirect_target(const http::RequestHead& head, std::span<char> out);

}  // namespace millrace::route
