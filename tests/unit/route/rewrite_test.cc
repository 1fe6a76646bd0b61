// Rewritten paths and redirect targets, as Envoy makes them.
#include "lib/route/rewrite.h"

#include <gtest/gtest.h>

#include "tests/unit/route/route_fixture.h"

namespace millrace::test {
namespace {

TEST(RewritePath, Table) {
  const struct {
    route::RouteSpec route;
    const char* rewrite;
    const char* path;
    const char* want;
  } cases[] = {
      {prefix("/api"), "", "/api/x?q", "/api/x?q"},
      {prefix("/api"), "/v2", "/api/x?q=1", "/v2/x?q=1"},
      {prefix("/api/"), "/", "/api/x", "/x"},
      {prefix("/"), "/base/", "/x?y", "/base/x?y"},
      {exact("/a"), "/b", "/a?q", "/b?q"},
      {separated("/api"), "/", "/api/x", "//x"},
      {separated("/api"), "/z", "/api", "/z"},
      {regex("/[a-z]+/.*"), "/all", "/ab/cd?q", "/all?q"},
      {folded(prefix("/API")), "/v", "/aPi/x", "/v/x"},
      {prefix("/api"), "/v2", "/api#f", "/v2#f"},
  };
  for (const auto& c : cases) {
    route::RouteSpec r = c.route;
    r.prefix_rewrite = c.rewrite;
    Loaded host(host_of({r}));
    const Request request(c.path);
    ASSERT_EQ(host(request), 0) << c.path;
    const auto& route = host.object().routes.at(&host.object(), 0);
    char out[64];
    EXPECT_EQ(route::rewrite_path(host.object(), route, request.head(), out), c.want);
    if (*c.rewrite != '\0') {
      EXPECT_EQ(route::rewrite_path(host.object(), route, request.head(), std::span(out, 1)),
                std::string(c.want).size() == 1 ? c.want : "");
    }
  }
}

struct RedirectCase {
  const char* what;
  route::RedirectSpec redirect;
  const char* authority;
  const char* path;
  bool tls;
  const char* want;
};

TEST(RedirectTarget, Table) {
  const auto make = [](auto&& f) {
    route::RedirectSpec r;
    f(r);
    return r;
  };
  const RedirectCase cases[] = {
      {"https", make([](auto& r) { r.https_redirect = true; }), "a.com", "/x?q", false, "https://a.com/x?q"},
      {"https drops the default port of http", make([](auto& r) { r.https_redirect = true; }), "a.com:80", "/x", false,
       "https://a.com/x"},
      {"https keeps another port", make([](auto& r) { r.https_redirect = true; }), "a.com:8080", "/x", false,
       "https://a.com:8080/x"},
      {"https to https keeps 443", make([](auto& r) { r.https_redirect = true; }), "a.com:443", "/x", true,
       "https://a.com:443/x"},
      {"scheme", make([](auto& r) { r.scheme = "http"; }), "a.com:443", "/x", true, "http://a.com/x"},
      {"IPv6 literal", make([](auto& r) { r.https_redirect = true; }), "[::1]:80", "/x", false, "https://[::1]/x"},
      {"IPv6 literal without port", make([](auto& r) { r.https_redirect = true; }), "[::1]", "/x", false, "https://[::1]/x"},
      {"host", make([](auto& r) { r.host = "b.com"; }), "a.com:81", "/x?q", false, "http://b.com/x?q"},
      {"port", make([](auto& r) { r.port = 8443; }), "a.com:81", "/x", false, "http://a.com:8443/x"},
      {"port with host", make([](auto& r) {
         r.port = 1;
         r.host = "b";
       }),
       "a.com:81", "/x", false, "http://b:1/x"},
      {"path, query kept", make([](auto& r) { r.path = "/new"; }), "a", "/x?q=1", false, "http://a/new?q=1"},
      {"path with its own query", make([](auto& r) { r.path = "/new?z"; }), "a", "/x?q=1", false, "http://a/new?z"},
      {"path without slash", make([](auto& r) { r.path = "new"; }), "a", "/x", false, "http://a/new"},
      {"path, query stripped", make([](auto& r) {
         r.path = "/new";
         r.strip_query = true;
       }),
       "a", "/x?q=1", false, "http://a/new"},
      {"own query is not stripped", make([](auto& r) {
         r.path = "/new?z";
         r.strip_query = true;
       }),
       "a", "/x?q=1", false, "http://a/new?z"},
      {"query stripped", make([](auto& r) { r.strip_query = true; }), "a", "/x?q=1", false, "http://a/x"},
      {"prefix rewrite", make([](auto& r) { r.prefix_rewrite = "/y"; }), "a", "/x/z?q=1", false, "http://a/y/z?q=1"},
      {"prefix rewrite, query stripped", make([](auto& r) {
         r.prefix_rewrite = "/y";
         r.strip_query = true;
       }),
       "a", "/x/z?q=1", false, "http://a/y/z"},
      {"everything", make([](auto& r) {
         r.scheme = "HTTPS";
         r.host = "b.com";
         r.port = 65535;
         r.path = "/p";
         r.strip_query = true;
       }),
       "a:1", "/x?q", false, "https://b.com:65535/p"},
  };
  for (const RedirectCase& c : cases) {
    auto r = prefix("/x");
    r.action = table::ActionKind::kRedirect;
    r.redirect = c.redirect;
    Loaded host(host_of({r}));
    const Request request(c.path, {}, "GET", c.authority);
    const auto& route = host.object().routes.at(&host.object(), 0);
    std::vector<char> out(route::redirect_target_bound(host.object(), route, request.head()));
    EXPECT_EQ(route::redirect_target(host.object(), route, request.head(), {c.tls}, out), c.want) << c.what;
    for (size_t n = 0; n < std::string_view(c.want).size(); ++n)
      EXPECT_EQ(route::redirect_target(host.object(), route, request.head(), {c.tls}, std::span(out).first(n)), "")
          << c.what << " " << n;
  }
}

TEST(RedirectTarget, ForTls) {
  const Request request("/x?q", {}, "GET", "a.com:80");
  char out[64];
  EXPECT_EQ(route::tls_redirect_target(request.head(), out), "https://a.com:80/x?q");
  EXPECT_EQ(route::tls_redirect_target(request.head(), std::span(out, 5)), "");
}

}  // namespace
}  // namespace millrace::test
