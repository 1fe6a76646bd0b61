// Routes that no request reaches.
#include "control/route_shadow.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

envoy::config::route::v3::RouteMatch match(const std::string& text) {
  envoy::config::route::v3::RouteMatch m;
  const ConfigErrors errors = load_message(text, "match", &m);
  EXPECT_TRUE(errors.empty()) << text << "\n" << to_text(errors);
  return m;
}
bool covers(const std::string& a, const std::string& b) { return takes_all_of(match("{ " + a + " }"), match("{ " + b + " }")); }

TEST(RouteShadow, Paths) {
  EXPECT_TRUE(covers("prefix: /", "prefix: /api"));
  EXPECT_TRUE(covers("prefix: /api", "prefix: /api"));
  EXPECT_TRUE(covers("prefix: /api", "path: /apis"));
  EXPECT_TRUE(covers("prefix: /api", "path_separated_prefix: /api"));
  EXPECT_FALSE(covers("prefix: /api/", "path_separated_prefix: /api"));
  EXPECT_FALSE(covers("prefix: /api", "prefix: /ap"));
  EXPECT_TRUE(covers("path_separated_prefix: /api", "path: /api"));
  EXPECT_TRUE(covers("path_separated_prefix: /api", "path: /api/x"));
  EXPECT_TRUE(covers("path_separated_prefix: /api", "prefix: /api/"));
  EXPECT_FALSE(covers("path_separated_prefix: /api", "prefix: /api"));
  EXPECT_FALSE(covers("path_separated_prefix: /api", "path: /apis"));
  EXPECT_TRUE(covers("path: /a", "path: /a"));
  EXPECT_FALSE(covers("path: /a", "prefix: /a"));
  EXPECT_FALSE(covers("path: /a", "path: /b"));
  EXPECT_TRUE(covers("connect_matcher: {}", "connect_matcher: {}"));
  EXPECT_FALSE(covers("prefix: /", "connect_matcher: {}"));
  EXPECT_FALSE(covers("connect_matcher: {}", "prefix: /"));
}

TEST(RouteShadow, Case) {
  EXPECT_TRUE(covers("prefix: /Api, case_sensitive: false", "prefix: /aPI/x"));
  EXPECT_TRUE(covers("prefix: /Api, case_sensitive: false", "prefix: /aPI/x, case_sensitive: false"));
  EXPECT_FALSE(covers("prefix: /api", "prefix: /api/x, case_sensitive: false"));
  EXPECT_TRUE(covers("prefix: /", "prefix: /api/x, case_sensitive: false"));
  EXPECT_FALSE(covers("prefix: /Api", "prefix: /api"));
}

TEST(RouteShadow, RegularExpressions) {
  const auto regex = [](const std::string& r) { return "safe_regex: { regex: '" + r + "' }"; };
  EXPECT_TRUE(covers(regex("/a/[0-9]+"), regex("/a/[0-9]+")));
  EXPECT_FALSE(covers(regex("/a/[0-9]+"), regex("/a/[0-8]+"))) << "not solved";
  EXPECT_TRUE(covers(regex(".*"), "prefix: /"));
  EXPECT_TRUE(covers(regex("/.*"), "path: /a"));
  EXPECT_TRUE(covers(regex(".*"), regex("[a-z]*")));
  EXPECT_TRUE(covers("prefix: /a", regex("/api/v[0-9]+")));
  EXPECT_TRUE(covers("path_separated_prefix: /api", regex("/api/v[0-9]+")));
  EXPECT_FALSE(covers("path_separated_prefix: /api", regex("/api.*")));
  EXPECT_FALSE(covers("prefix: /api", regex("/api?/x")));
  EXPECT_FALSE(covers("prefix: /api", regex("/api*")));
  EXPECT_FALSE(covers("prefix: /api", regex("/api{0,2}x")));
  EXPECT_TRUE(covers("prefix: /api", regex("/api+")));
  EXPECT_FALSE(covers("prefix: /api", regex("/api|/other")));
  EXPECT_FALSE(covers("prefix: /", regex(".*")));
  EXPECT_FALSE(covers("path: /api", regex("/api")));
}

TEST(RouteShadow, Predicates) {
  const std::string exact = "{ name: x-a, string_match: { exact: b } }", present = "{ name: X-A, present_match: true }",
                    absent = "{ name: x-a, present_match: true, invert_match: true }",
                    empty = "{ name: x-a, string_match: { exact: b }, treat_missing_header_as_empty: true }";
  const auto with = [](const std::string& h) { return "prefix: /, headers: [" + h + "]"; };
  EXPECT_TRUE(covers("prefix: /", with(exact)));
  EXPECT_FALSE(covers(with(exact), "prefix: /"));
  EXPECT_TRUE(covers(with(exact), with(exact)));
  EXPECT_TRUE(covers(with(exact), with(present + ", " + exact)));
  EXPECT_TRUE(covers(with(present), with(exact)));
  EXPECT_FALSE(covers(with(exact), with(present)));
  EXPECT_FALSE(covers(with(present), with(absent)));
  EXPECT_FALSE(covers(with(present), with(empty)));
  EXPECT_FALSE(covers(with(absent), with(exact)));
  EXPECT_TRUE(covers("prefix: /", "prefix: /, grpc: {}"));
  EXPECT_FALSE(covers("prefix: /, grpc: {}", "prefix: /"));
  EXPECT_TRUE(covers("prefix: /, grpc: {}", "prefix: /a, grpc: {}"));
  const std::string half = "runtime_fraction: { default_value: { numerator: 50 } }",
                    all = "runtime_fraction: { default_value: { numerator: 100 } }";
  EXPECT_FALSE(covers("prefix: /, " + half, "prefix: /, " + half)) << "drawn for each";
  EXPECT_TRUE(covers("prefix: /, " + all, "prefix: /, " + half));
  const std::string q = "query_parameters: [{ name: a, present_match: true }]";
  EXPECT_TRUE(covers("prefix: /, " + q, "prefix: /b, " + q));
  EXPECT_FALSE(covers("prefix: /, " + q, "prefix: /b"));
  EXPECT_FALSE(covers("prefix: /, tls_context: { presented: true }", "prefix: /"));
  EXPECT_TRUE(covers("prefix: /, tls_context: { presented: true }", "prefix: /, tls_context: { presented: true }"));
}

api::VirtualHost host_of(const std::vector<std::string>& matches) {
  api::VirtualHost h;
  h.set_name("all");
  for (const std::string& m : matches) *h.add_routes()->mutable_match() = match("{ " + m + " }");
  return h;
}

TEST(RouteShadow, TheFirstThatTakesAllIsNamed) {
  const api::VirtualHost h = host_of({"prefix: /a", "path: /b", "prefix: /", "prefix: /a/b", "prefix: /c", "path: /b"});
  std::string said;
  for (const ShadowedRoute& s : shadowed_routes(h)) said += to_string(s, h) + "\n";
  EXPECT_EQ(said,
            "routes[3] (prefix /a/b) is never reached: routes[0] (prefix /a) before it takes every request that it matches\n"
            "routes[4] (prefix /c) is never reached: routes[2] (prefix /) before it takes every request that it matches\n"
            "routes[5] (path /b) is never reached: routes[1] (path /b) before it takes every request that it matches\n");
}

// The same as comparing each route with all before it.
TEST(RouteShadow, FoundByTextAsByLookingAtAll) {
  std::mt19937 random(7);
  const char* const paths[] = {"/", "/a", "/A", "/a/b", "/a/b/c", "/ab", "/b", ""};
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> matches;
    for (int i = 0; i < 30; ++i) {
      const std::string path = paths[random() % 8];
      std::string m;
      switch (random() % 4) {
        case 0:
          m = "prefix: '" + path + "'";
          break;
        case 1:
          m = "path: '" + path + "'";
          break;
        case 2:
          m = "path_separated_prefix: '" + (path.size() > 1 ? path : "/z") + "'";
          break;
        default:
          m = "safe_regex: { regex: '" + path + (random() % 2 == 0 ? "[0-9]+" : ".*") + "' }";
      }
      if (random() % 4 == 0) m += ", case_sensitive: false";
      if (random() % 3 == 0) m += ", headers: [{ name: x, string_match: { exact: v" + std::to_string(random() % 2) + " } }]";
      matches.push_back(m);
    }
    const api::VirtualHost h = host_of(matches);
    std::vector<std::pair<int, int>> found, expected;
    for (const ShadowedRoute& s : shadowed_routes(h)) found.emplace_back(s.route, s.by);
    for (int i = 0; i < h.routes_size(); ++i)
      for (int a = 0; a < i; ++a)
        if (takes_all_of(h.routes(a).match(), h.routes(i).match())) {
          expected.emplace_back(i, a);
          break;
        }
    ASSERT_EQ(found, expected) << "round " << round;
  }
}

TEST(RouteShadow, WhatAnEditBrings) {
  const api::VirtualHost h = host_of({"prefix: /a", "prefix: /", "prefix: /a/b", "path: /c"});
  const auto said = [&](int at) {
    std::string out;
    for (const ShadowedRoute& s : shadowed_at(h, at)) out += std::to_string(s.route) + "<" + std::to_string(s.by) + " ";
    return out;
  };
  EXPECT_EQ(said(0), "2<0 ");
  EXPECT_EQ(said(1), "2<1 3<1 ");
  EXPECT_EQ(said(2), "2<0 ");
  EXPECT_EQ(said(3), "3<1 ");
}

TEST(RouteShadow, AWarningSaysWhere) {
  const std::string text = gateway_yaml(
      "- { match: { prefix: / }, route: { cluster: api } }\n- { name: late, match: { prefix: /api }, route: { cluster: api } }");
  const Model model = model_of(text);
  const ConfigErrors warnings = shadow_warnings(model, nullptr);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_GT(warnings[0].line, 0u);
  EXPECT_NE(warnings[0].path.find("virtual_hosts[0].routes[1]"), std::string::npos) << warnings[0].path;
  EXPECT_EQ(warnings[0].message, "\"late\" is never reached: routes[0] (prefix /) before it takes every request that it matches");
  EXPECT_TRUE(shadow_warnings(model, &model).empty()) << "nothing is new";
}

}  // namespace
}  // namespace millrace::control
