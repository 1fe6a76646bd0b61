// The CORS filter in a whole worker: which origins are allowed, what preflights are answered with, what endpoints' responses are
// told, and what is counted.
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

using stats::HcmCounter;
using table::StringMatchKind;

route::MatcherSpec origin(StringMatchKind kind, std::string value, bool ignore_case = false) {
  route::MatcherSpec m;
  m.name = "origin";
  m.kind = kind;
  m.value = std::move(value);
  m.ignore_case = ignore_case;
  return m;
}
route::CorsSpec policy(std::vector<route::MatcherSpec> origins) {
  route::CorsSpec c;
  c.filter = "cors";
  c.origins = std::move(origins);
  return c;
}
Config with(route::CorsSpec c, std::string name = "cors") {
  Config config;
  route::RouteSpec r = route_to();
  r.cors.push_back(std::move(c));
  config.routes.push_back(std::move(r));
  config.write_hcm = [name](table::ObjectWriter& w, table::HttpConnectionManager& h) { h.cors = w.string(name); };
  return config;
}
const std::string kGood = "https://good.test";

std::string preflight(std::string_view more = "", std::string_view from = kGood) {
  return "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: " + std::string(from) + "\r\naccess-control-request-method: PUT\r\n" +
         std::string(more) + "\r\n";
}
std::string from(std::string_view o) { return get("/", "origin: " + std::string(o) + "\r\n"); }

// One request, one response; `reached`: requests that endpoints have seen in all.
struct Gateway {
  explicit Gateway(const Config& config) : w(config) {
    w.serve([this](const std::string&) {
      ++reached;
      return ok();
    });
  }
  std::string ask(const std::string& request) {
    Peer& p = w.connect();
    w.send(p, request);
    EXPECT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond)) << p.received;
    return p.received;
  }
  uint64_t valid() { return w.counted(HcmCounter::kCorsOriginValid); }
  uint64_t invalid() { return w.counted(HcmCounter::kCorsOriginInvalid); }
  World w;
  int reached = 0;
};

TEST(Cors, OriginsByEveryMatcher) {
  const struct {
    route::MatcherSpec matcher;
    const char* origin;
    bool allowed;
  } kCases[] = {
      {origin(StringMatchKind::kExact, kGood), "https://good.test", true},
      {origin(StringMatchKind::kExact, kGood), "https://Good.test", false},
      {origin(StringMatchKind::kExact, kGood, true), "https://Good.test", true},
      {origin(StringMatchKind::kExact, "*"), "null", true},
      {origin(StringMatchKind::kPrefix, "https://good."), "https://good.example", true},
      {origin(StringMatchKind::kPrefix, "https://good."), "http://good.example", false},
      {origin(StringMatchKind::kSuffix, ".test"), "https://good.test", true},
      {origin(StringMatchKind::kSuffix, ".test"), "https://good.test.evil", false},
      {origin(StringMatchKind::kContains, "good"), "https://a.good.b", true},
      {origin(StringMatchKind::kContains, "good"), "https://a.bad.b", false},
      {origin(StringMatchKind::kRegex, "https://[a-z]+\\.test"), "https://good.test", true},
      {origin(StringMatchKind::kRegex, "https://[a-z]+\\.test"), "https://good.test.evil", false},
      {origin(StringMatchKind::kRegex, "[*]"), "https://anybody", true},  // Envoy asks every matcher about "*"
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.matcher.value + " " + c.origin);
    Gateway g(with(policy({origin(StringMatchKind::kExact, "https://never"), c.matcher})));
    const std::string r = g.ask(from(c.origin));
    EXPECT_EQ(has_line(r, "access-control-allow-origin: " + std::string(c.origin)), c.allowed) << r;
    EXPECT_EQ(g.valid(), c.allowed ? 1u : 0u);
    EXPECT_EQ(g.invalid(), c.allowed ? 0u : 1u);
    EXPECT_EQ(g.reached, 1);
  }
}

TEST(Cors, PreflightIsAnsweredHere) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  c.allow_methods = "GET,PUT";
  c.allow_headers = "x-a,x-b";
  c.expose_headers = "x-c";
  c.max_age = "600";
  c.allow_credentials = c.allow_private_network_access = true;
  Gateway g(with(c));
  const std::string r = g.ask(preflight("access-control-request-private-network: true\r\n"));
  EXPECT_TRUE(r.starts_with("HTTP/1.1 200 OK\r\n")) << r;
  for (const char* line :
       {"access-control-allow-origin: https://good.test", "access-control-allow-credentials: true",
        "access-control-allow-methods: GET,PUT", "access-control-allow-headers: x-a,x-b", "access-control-max-age: 600",
        "access-control-allow-private-network: true", "access-control-expose-headers: x-c", "content-length: 0"})
    EXPECT_TRUE(has_line(r, line)) << line << "\n" << r;
  EXPECT_EQ(g.reached, 0);
  EXPECT_EQ(g.valid(), 1u);
  EXPECT_FALSE(has_line(g.ask(preflight()), "access-control-allow-private-network: true"));
  g.w.expect_balanced();
}

TEST(Cors, StarsAreWhatThePreflightAsksFor) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, "*")});
  c.allow_methods = c.allow_headers = "*";
  Gateway g(with(c));
  const std::string r = g.ask(preflight("access-control-request-headers: x-q, x-r\r\n"));
  EXPECT_TRUE(has_line(r, "access-control-allow-methods: PUT")) << r;
  EXPECT_TRUE(has_line(r, "access-control-allow-headers: x-q, x-r")) << r;
  EXPECT_FALSE(has_line(r, "access-control-allow-credentials: true"));
}

TEST(Cors, PreflightsOfStrangers) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  c.allow_methods = "GET";
  for (const bool forward : {true, false}) {
    c.forward_not_matching_preflights = forward;
    Gateway g(with(c));
    const std::string r = g.ask(preflight("", "https://bad.test"));
    EXPECT_TRUE(r.starts_with("HTTP/1.1 200 OK\r\n")) << r;
    EXPECT_EQ(r.find("access-control-allow-origin"), std::string::npos) << r;
    EXPECT_EQ(has_line(r, "access-control-allow-methods: GET"), !forward) << r;
    EXPECT_EQ(g.reached, forward ? 1 : 0);
    EXPECT_EQ(g.invalid(), 1u);
  }
}

TEST(Cors, WhatIsNoPreflightGoesOn) {
  Gateway g(with(policy({origin(StringMatchKind::kExact, kGood)})));
  g.ask("OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: https://good.test\r\n\r\n");  // asks for no method
  EXPECT_EQ(g.reached, 1);
  EXPECT_EQ(g.valid(), 1u);
  g.ask("OPTIONS / HTTP/1.1\r\nhost: a\r\naccess-control-request-method: PUT\r\n\r\n");  // has no origin
  EXPECT_EQ(g.reached, 2);
  EXPECT_EQ(g.valid() + g.invalid(), 1u);
}

TEST(Cors, EndpointsFieldsAreReplaced) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  c.expose_headers = "x-c";
  c.allow_credentials = true;
  World w(with(c));
  w.serve([](const std::string&) {
    return std::string(
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\naccess-control-expose-headers: all\r\ncontent-length: 0\r\n\r\n");
  });
  Peer& p = w.connect();
  w.send(p, from(kGood));
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond));
  EXPECT_EQ(count_of(p.received, "access-control-allow-origin"), 1u) << p.received;
  EXPECT_TRUE(has_line(p.received, "access-control-allow-origin: https://good.test"));
  EXPECT_TRUE(has_line(p.received, "access-control-allow-credentials: true"));
  EXPECT_EQ(count_of(p.received, "access-control-expose-headers"), 1u);
  EXPECT_TRUE(has_line(p.received, "access-control-expose-headers: x-c"));
  p.received.clear();
  w.send(p, from("https://bad.test"));  // the same connection
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond));
  EXPECT_TRUE(has_line(p.received, "access-control-allow-origin: *")) << p.received;
}

// The gateway's own answers behind the filter say it too; a browser would hide the 503 from the page otherwise.
TEST(Cors, LocalReplies) {
  Config config = with(policy({origin(StringMatchKind::kExact, kGood)}));
  config.clusters[0].endpoints.clear();
  World w(config);
  Peer& p = w.connect();
  w.send(p, from(kGood));
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond));
  EXPECT_TRUE(p.received.starts_with("HTTP/1.1 503")) << p.received;
  EXPECT_TRUE(has_line(p.received, "access-control-allow-origin: https://good.test")) << p.received;
}

TEST(Cors, OnlyForItsFilterAndWhereItIsEnabled) {
  const route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  {
    Gateway g(with(c, "another"));
    EXPECT_EQ(g.ask(from(kGood)).find("access-control"), std::string::npos);
    g.ask(preflight());
    EXPECT_EQ(g.reached, 2);
    EXPECT_EQ(g.valid(), 0u);
  }
  {
    Config none = with(c);
    none.write_hcm = nullptr;
    Gateway g(none);
    EXPECT_EQ(g.ask(from(kGood)).find("access-control"), std::string::npos);
    EXPECT_EQ(g.valid(), 0u);
  }
  route::CorsSpec off = c;
  off.enabled_numerator = 0;
  {
    Gateway g(with(off));
    EXPECT_EQ(g.ask(from(kGood)).find("access-control"), std::string::npos);
    EXPECT_EQ(g.valid(), 0u);
  }
  off.shadow_numerator = 1;  // judged and counted, nothing else
  {
    Gateway g(with(off));
    EXPECT_EQ(g.ask(from(kGood)).find("access-control"), std::string::npos);
    g.ask(preflight());
    g.ask(from("https://bad.test"));
    EXPECT_EQ(g.reached, 3);
    EXPECT_EQ(g.valid(), 2u);
    EXPECT_EQ(g.invalid(), 1u);
  }
}

TEST(Cors, Fractions) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  c.enabled_numerator = 25;
  c.enabled_denominator = 100;
  Gateway g(with(c));
  Peer& p = g.w.connect();
  int enforced = 0;
  constexpr int kRequests = 1'000;
  for (int i = 0; i < kRequests; ++i) {
    p.received.clear();
    g.w.send(p, from(kGood));
    ASSERT_TRUE(g.w.wait_for(p, "hello", kSecond));
    enforced += has_line(p.received, "access-control-allow-origin: https://good.test");
  }
  EXPECT_EQ(g.valid(), static_cast<uint64_t>(enforced));
  EXPECT_NEAR(enforced, kRequests / 4, 70);  // five standard deviations
}

TEST(Cors, OverHttp2) {
  route::CorsSpec c = policy({origin(StringMatchKind::kExact, kGood)});
  c.allow_methods = "PUT";
  World w(with(c));
  Http2Client client(w);
  ClientStream& s = client.request(
      "OPTIONS", "/",
      {{"origin", "https://good.test", HeaderId::kOther}, {"access-control-request-method", "PUT", HeaderId::kOther}}, true);
  ASSERT_TRUE(client.finished(s));
  EXPECT_EQ(s.response.status, 200);
  EXPECT_EQ(s.header("access-control-allow-origin"), "https://good.test");
  EXPECT_EQ(s.header("access-control-allow-methods"), "PUT");
  EXPECT_TRUE(w.server.peers.empty());
}

}  // namespace
}  // namespace millrace::dataplane::test
