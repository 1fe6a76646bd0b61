// Retries of a whole worker, in virtual time: what is tried again, how often, after which pause, with which body, and what is
// counted. Envoy's rules (RetryStateImpl, Router::Filter).
#include "lib/table/retry_on.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

using stats::ClusterCounter;

route::RetrySpec on(std::string_view words, uint32_t retries = 1) {
  route::RetrySpec r;
  r.retry_on = table::parse_retry_on(words) | table::parse_retry_grpc_on(words);
  r.num_retries = retries;
  return r;
}
Config with(route::RetrySpec retry, std::function<void(table::Cluster&)> edit = nullptr) {
  Config c;
  c.routes = {route_to()};
  c.routes[0].retry = std::move(retry);
  c.clusters[0].edit = std::move(edit);
  return c;
}
std::string answer(int status, std::string_view more = "", std::string_view body = "") {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\n" + std::string(more) + "content-length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

// An endpoint that does with its n-th request what a script says, then answers 200 "end".
struct Script {
  enum What { kAnswer, kClose, kAbort, kSilent };
  struct Step {
    What what = kAnswer;
    std::string bytes;
  };
  Script(World& world, std::vector<Step> steps) : w(world), steps(std::move(steps)) {
    w.server_script = [this] {
      for (size_t i = 0; i < w.server.peers.size(); ++i) turn(w.server.peers[i]);
    };
  }
  ~Script() { w.server_script = nullptr; }
  void turn(Peer& p) {
    while (p.connection != nullptr) {
      const size_t end = p.received.find("\r\n\r\n");
      if (end == std::string::npos) return;
      size_t whole = end + 4;
      const std::string head = p.received.substr(0, whole);
      if (const size_t at = head.find("content-length: "); at != std::string::npos)
        whole += std::strtoul(head.c_str() + at + 16, nullptr, 10);
      if (head.find("transfer-encoding: chunked") != std::string::npos) {
        const size_t last = p.received.find("0\r\n\r\n", end + 4);
        if (last == std::string::npos) return;
        whole = last + 5;
      }
      if (p.received.size() < whole) return;
      requests.push_back(p.received.substr(0, whole));
      ports.push_back(p.connection->tuple().local_port);
      at.push_back(w.now);
      p.received.erase(0, whole);
      const Step step = requests.size() <= steps.size() ? steps[requests.size() - 1] : Step{kAnswer, answer(200, "", "end")};
      switch (step.what) {
        case kAnswer:
          w.send(p, step.bytes);
          break;
        case kClose:
          w.close(p);
          break;
        case kAbort:
          return w.abort(p);
        case kSilent:
          break;
      }
    }
  }
  World& w;
  std::vector<Step> steps;
  std::vector<std::string> requests;
  std::vector<uint16_t> ports;
  std::vector<base::TimeNs> at;
};

// A request but for the time that is left, which is another one with each attempt.
std::string without_time(std::string request) {
  if (const size_t at = request.find("x-envoy-expected-rq-timeout-ms"); at != std::string::npos)
    request.erase(at, request.find('\n', at) + 1 - at);
  return request;
}

struct OutcomeCase {
  const char* name;
  const char* retry_on;
  Script::What what;
  int status;  // 0: `fields` is all there is
  const char* fields;
  const char* body;
  int attempts;
  const char* last;    // of the log; "": the response is cut
  bool codes = false;  // retriable_status_codes 404, 418
};
constexpr OutcomeCase kOutcomes[] = {
    {"5xx 500", "5xx", Script::kAnswer, 500, "", "", 2, "200 -"},
    {"5xx 503 with a body", "5xx", Script::kAnswer, 503, "", "no", 2, "200 -"},
    {"5xx 404", "5xx", Script::kAnswer, 404, "", "", 1, "404 -"},
    {"5xx reset", "5xx", Script::kAbort, 0, "", "", 2, "200 -"},
    {"5xx closed", "5xx", Script::kClose, 0, "", "", 2, "200 -"},
    {"gateway-error 503", "gateway-error", Script::kAnswer, 503, "", "", 2, "200 -"},
    {"gateway-error 500", "gateway-error", Script::kAnswer, 500, "", "", 1, "500 -"},
    {"gateway-error reset", "gateway-error", Script::kAbort, 0, "", "", 2, "200 -"},
    {"reset 503", "reset", Script::kAnswer, 503, "", "", 1, "503 -"},
    {"reset reset", "reset", Script::kAbort, 0, "", "", 2, "200 -"},
    {"reset closed", "reset", Script::kClose, 0, "", "", 2, "200 -"},
    {"reset nonsense", "reset", Script::kAnswer, 0, "nonsense\r\n\r\n", "", 2, "200 -"},
    {"connect-failure nonsense", "connect-failure", Script::kAnswer, 0, "nonsense\r\n\r\n", "", 1, "502 UPE"},
    {"connect-failure reset", "connect-failure", Script::kAbort, 0, "", "", 1, "503 UC"},
    {"reset-before-request reset", "reset-before-request", Script::kAbort, 0, "", "", 1, "503 UC"},
    {"retriable-4xx 409", "retriable-4xx", Script::kAnswer, 409, "", "", 2, "200 -"},
    {"retriable-4xx 404", "retriable-4xx", Script::kAnswer, 404, "", "", 1, "404 -"},
    {"retriable-status-codes", "retriable-status-codes", Script::kAnswer, 418, "", "", 2, "200 -", true},
    {"codes without the word", "5xx", Script::kAnswer, 418, "", "", 1, "418 -", true},
    {"codes not listed", "retriable-status-codes", Script::kAnswer, 419, "", "", 1, "419 -", true},
    {"rate limited", "5xx", Script::kAnswer, 503, "x-envoy-ratelimited: true\r\n", "", 1, "503 -"},
    {"envoy-ratelimited", "envoy-ratelimited", Script::kAnswer, 429, "x-envoy-ratelimited: true\r\n", "", 2, "200 -"},
    {"envoy-ratelimited without the field", "envoy-ratelimited", Script::kAnswer, 429, "", "", 1, "429 -"},
    {"unavailable", "unavailable", Script::kAnswer, 200, "grpc-status: 14\r\n", "", 2, "200 -"},
    {"cancelled", "cancelled,internal", Script::kAnswer, 200, "grpc-status: 1\r\n", "", 2, "200 -"},
    {"deadline", "deadline-exceeded", Script::kAnswer, 200, "grpc-status: 4\r\n", "", 2, "200 -"},
    {"exhausted", "resource-exhausted", Script::kAnswer, 200, "grpc-status: 8\r\n", "", 2, "200 -"},
    {"internal", "internal", Script::kAnswer, 200, "grpc-status: 13\r\n", "", 2, "200 -"},
    {"grpc of another status", "cancelled,internal", Script::kAnswer, 200, "grpc-status: 14\r\n", "", 1, "200 -"},
    {"unknown words", "5xy, gateway-error ,", Script::kAnswer, 502, "", "", 2, "200 -"},
    {"no word", "", Script::kAnswer, 500, "", "", 1, "500 -"},
    {"begun is not tried again", "5xx,reset", Script::kAnswer, 0, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "", 1, ""},
};
TEST(Retry, WhatIsTriedAgain) {
  for (const OutcomeCase& c : kOutcomes) {
    SCOPED_TRACE(c.name);
    route::RetrySpec r = on(c.retry_on);
    if (c.codes) r.status_codes = {404, 418};
    World w(with(r));
    Script s(w, {{c.what, c.status == 0 ? c.fields : answer(c.status, c.fields, c.body)}});
    Peer& p = w.connect();
    w.send(p, get("/x"));
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", 5 * kSecond));
    if (*c.last == 0) {
      w.abort(w.upstream());
      ASSERT_TRUE(w.run_until([&] { return !p.open(); }, kSecond));
    } else {
      w.settle();
      EXPECT_EQ(w.last(), c.last);
    }
    EXPECT_EQ(s.requests.size(), static_cast<size_t>(c.attempts));
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetry), static_cast<uint64_t>(c.attempts - 1));
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetrySuccess), static_cast<uint64_t>(c.attempts - 1));
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetryBackoffExponential), static_cast<uint64_t>(c.attempts - 1));
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqTotal), static_cast<uint64_t>(c.attempts));
    EXPECT_EQ(without_time(s.requests.front()), without_time(s.requests.back()));
  }
}

TEST(Retry, HeadersThatSaySo) {
  route::RetrySpec r = on("retriable-headers");
  r.response_headers = {route::MatcherSpec{"X-Again", table::StringMatchKind::kExact, "yes"}};
  World w(with(r));
  Script s(w, {{Script::kAnswer, answer(200, "x-again: no\r\n")}, {Script::kAnswer, answer(200, "X-Again: yes\r\n")}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "x-again: no"));
  p.received.clear();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend"));
  EXPECT_EQ(s.requests.size(), 3u);
}

TEST(Retry, OnlyRequestsThatCarryTheHeader) {
  route::RetrySpec r = on("5xx");
  r.request_headers = {route::MatcherSpec{"x-idempotent"}};
  World w(with(r));
  Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAnswer, answer(500)}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500"));
  w.send(p, get("/", "X-Idempotent: 1\r\n"));
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend"));
  EXPECT_EQ(s.requests.size(), 3u);
}

TEST(Retry, TheLimitOfRetries) {
  World w(with(on("5xx", 2)));
  Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAbort, ""}, {Script::kAnswer, answer(502, "", "third")}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "third"));
  EXPECT_TRUE(p.received.starts_with("HTTP/1.1 502")) << p.received;
  w.settle();
  EXPECT_EQ(w.last(), "502 URX");
  EXPECT_EQ(s.requests.size(), 3u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetry), 2u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetryLimitExceeded), 1u);
  EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetrySuccess), 0u);
  // And by a reset.
  s.steps = {{Script::kAbort, ""}, {Script::kAbort, ""}, {Script::kAbort, ""},
             {Script::kAbort, ""}, {Script::kAbort, ""}, {Script::kAbort, ""}};
  p.received.clear();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 503"));
  w.settle();
  EXPECT_EQ(w.last(), "503 UC,URX");
  EXPECT_EQ(s.requests.size(), 6u);
}

TEST(Retry, NoneAreLeftWithNumRetriesZero) {
  World w(with(on("5xx", 0)));
  Script s(w, {{Script::kAnswer, answer(500)}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500"));
  w.settle();
  EXPECT_EQ(w.last(), "500 URX");
}

TEST(Retry, ARefusedConnectionGoesToAnotherEndpoint) {
  for (const char* words : {"connect-failure", "reset-before-request", "5xx", "reset"}) {
    SCOPED_TRACE(words);
    Config c = with(on(words));
    c.clusters[0].endpoints = {{"10.2.0.2", 8002}, {"10.2.0.2", 8000}};  // nobody listens on 8002
    World w(c);
    Script s(w, {});
    Peer& p = w.connect();
    for (int i = 0; i < 4; ++i) {
      p.received.clear();
      w.send(p, get());
      ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 5 * kSecond));
    }
    EXPECT_GE(w.cluster_count(ClusterCounter::kCxConnectFail), 1u);
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetry), w.cluster_count(ClusterCounter::kCxConnectFail));
  }
}

TEST(Retry, EndpointsThatWereTriedAreAvoided) {
  for (const bool avoid : {false, true}) {
    route::RetrySpec r = on("5xx", 1);
    r.previous_hosts = avoid;
    r.host_attempts = 50;
    Config c = with(r);
    c.clusters[0].edit = [](table::Cluster& t) { t.lb_policy = table::LbPolicy::kRandom; };
    c.clusters[0].endpoints = {{"10.2.0.2", 8000}, {"10.2.0.2", 8001}};
    World w(c);
    Script s(w, std::vector<Script::Step>(200, {Script::kAnswer, answer(500)}));
    Peer& p = w.connect();
    int same = 0;
    for (int i = 0; i < 50; ++i) {
      p.received.clear();
      w.send(p, get());
      ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500", 5 * kSecond));
      ASSERT_EQ(s.ports.size(), 2u * static_cast<size_t>(i) + 2);
      same += s.ports[s.ports.size() - 1] == s.ports[s.ports.size() - 2];
    }
    EXPECT_EQ(same > 10, !avoid) << same << " of 50 went twice to one";
    EXPECT_TRUE(!avoid || same == 0);
  }
}

TEST(Retry, PausesDoubleUpToTheirMost) {
  route::RetrySpec r = on("5xx", 8);
  r.base_interval_ms = 100;
  r.max_interval_ms = 500;
  const uint32_t envoys[] = {100, 200, 400, 500, 500, 500, 500, 500};
  std::array<double, 8> longest{}, sum{};
  constexpr int kRuns = 60;
  World w(with(r));
  Script s(w, std::vector<Script::Step>(kRuns * 9, {Script::kAnswer, answer(500)}));
  Peer& p = w.connect();
  for (int run = 0; run < kRuns; ++run) {
    p.received.clear();
    s.at.clear();
    w.send(p, get());
    ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500", 60 * kSecond));
    ASSERT_EQ(s.at.size(), 9u);
    for (size_t i = 0; i < 8; ++i) {
      const double ms = static_cast<double>(s.at[i + 1] - s.at[i]) / 1e6;
      longest[i] = std::max(longest[i], ms);
      sum[i] += ms;
    }
  }
  for (size_t i = 0; i < 8; ++i) {
    SCOPED_TRACE(i);
    EXPECT_LT(longest[i], envoys[i] + 3);
    EXPECT_GT(longest[i], envoys[i] * 0.8);
    EXPECT_NEAR(sum[i] / kRuns, envoys[i] / 2.0, envoys[i] * 0.2) << "evenly spread";
  }
}

TEST(Retry, PausesThatTheResponseAsksFor) {
  const auto unix_now = [](World& w) { return (World::kWallStart + w.now) / kSecond; };
  route::RetrySpec r = on("envoy-ratelimited,5xx");
  r.reset_headers = {{"Retry-After", false}, {"X-Reset", true}};
  r.reset_max_interval_ms = 100'000;
  struct Case {
    const char* name;
    std::function<std::string(uint64_t)> fields;
    double least, most;  // seconds
    bool limited = true;
  };
  for (const Case& c : std::vector<Case>{
           {"seconds", [](uint64_t) { return std::string("retry-after: 4\r\n"); }, 4, 6.1},
           {"time", [](uint64_t now) { return "x-reset: " + std::to_string(now + 10) + "\r\n"; }, 9, 15.1},
           {"too long", [](uint64_t) { return std::string("retry-after: 101\r\n"); }, 0, 0.03, false},
           {"too long, then the next",
            [](uint64_t now) { return "retry-after: 101\r\nx-reset: " + std::to_string(now + 10) + "\r\n"; }, 9, 15.1},
           {"no number", [](uint64_t) { return std::string("retry-after: soon\r\n"); }, 0, 0.03, false},
           {"past", [](uint64_t now) { return "x-reset: " + std::to_string(now - 10) + "\r\n"; }, 0, 0.03, false},
       }) {
    SCOPED_TRACE(c.name);
    World w(with(r));
    Script s(w, {{Script::kAnswer, answer(503, c.fields(unix_now(w)))}});
    Peer& p = w.connect();
    w.send(p, get());
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 60 * kSecond)) << p.received;
    const double pause = static_cast<double>(s.at[1] - s.at[0]) / 1e9;
    EXPECT_GE(pause, c.least);
    EXPECT_LE(pause, c.most);
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetryBackoffRatelimited), c.limited ? 1u : 0u);
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetryBackoffExponential), c.limited ? 0u : 1u);
  }
}

TEST(Retry, TimeOfOneTry) {
  route::RetrySpec r = on("5xx", 2);
  r.per_try_timeout_ms = 200;
  Config c = with(r);
  c.routes[0].count_in_request = c.routes[0].count_in_response = c.routes[0].tell_timeout_retry = true;
  World w(c);
  Script s(w, {{Script::kSilent, ""}, {Script::kAnswer, answer(503)}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 5 * kSecond)) << p.received;
  EXPECT_TRUE(has_line(p.received, "x-envoy-attempt-count: 3"));
  ASSERT_EQ(s.requests.size(), 3u);
  EXPECT_NEAR(static_cast<double>(s.at[1] - s.at[0]) / 1e6, 212, 14);
  EXPECT_TRUE(has_line(s.requests[0], "x-envoy-expected-rq-timeout-ms: 200"));
  EXPECT_TRUE(has_line(s.requests[0], "x-envoy-attempt-count: 1"));
  EXPECT_EQ(s.requests[0].find("timeout-retry"), std::string::npos);
  EXPECT_TRUE(has_line(s.requests[1], "x-envoy-attempt-count: 2"));
  EXPECT_TRUE(has_line(s.requests[1], "x-envoy-is-timeout-retry: true"));
  EXPECT_TRUE(has_line(s.requests[2], "x-envoy-is-timeout-retry: false"));
  EXPECT_EQ(w.cluster_count(ClusterCounter::kRqPerTryTimeout), 1u);
  // All tries in vain.
  p.received.clear();
  s.steps.assign(10, {Script::kSilent, ""});
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "upstream request timeout", 5 * kSecond)) << p.received;
  EXPECT_TRUE(p.received.starts_with("HTTP/1.1 504"));
  EXPECT_TRUE(has_line(p.received, "x-envoy-attempt-count: 3"));
  w.settle();
  EXPECT_EQ(w.last(), "504 UT,URX");
  EXPECT_EQ(w.log().back().details, "upstream_per_try_timeout");
}

TEST(Retry, TheTimeOfAllTriesIsTheRoutes) {
  route::RetrySpec r = on("5xx", 10);
  r.per_try_timeout_ms = 300;
  r.base_interval_ms = 1;
  r.max_interval_ms = 1;
  Config c = with(r);
  c.routes[0].timeout_ms = 1'000;
  World w(c);
  Script s(w, std::vector<Script::Step>(10, {Script::kSilent, ""}));
  Peer& p = w.connect();
  const base::TimeNs start = w.now;
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "upstream request timeout", 5 * kSecond));
  EXPECT_NEAR(static_cast<double>(w.now - start) / 1e6, 1'000, 5);
  ASSERT_EQ(s.requests.size(), 4u);
  EXPECT_TRUE(has_line(s.requests[0], "x-envoy-expected-rq-timeout-ms: 300"));
  EXPECT_NE(s.requests[3].find("x-envoy-expected-rq-timeout-ms: "), std::string::npos);
  EXPECT_LT(std::atoi(s.requests[3].c_str() + s.requests[3].find("timeout-ms: ") + 12), 105) << s.requests[3];
  w.settle();
  EXPECT_EQ(w.last(), "504 UT");
  EXPECT_EQ(w.log().back().details, "response_timeout");
}

TEST(Retry, ATryThatStandsStill) {
  route::RetrySpec r = on("5xx", 1);
  r.per_try_idle_timeout_ms = 300;
  World w(with(r));
  Script s(w, {{Script::kSilent, ""}, {Script::kAnswer, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"}});
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "abc", 5 * kSecond)) << p.received;
  const base::TimeNs start = w.now;
  ASSERT_TRUE(w.run_until([&] { return !p.open(); }, 5 * kSecond));
  EXPECT_NEAR(static_cast<double>(w.now - start) / 1e6, 300, 5);
  w.settle();
  EXPECT_EQ(w.last(), "200 UT");
  EXPECT_EQ(w.log().back().details, "upstream_per_try_idle_timeout");
  EXPECT_EQ(w.cluster_count(ClusterCounter::kRqPerTryIdleTimeout), 2u);
}

// The body is sent again, whole, however it came.
TEST(Retry, BodiesAreKept) {
  for (const bool chain : {false, true}) {
    for (const size_t size : {size_t{1}, size_t{100}, size_t{1400}, size_t{5'000}, size_t{300'000}}) {
      SCOPED_TRACE(std::to_string(size) + (chain ? " by reference" : ""));
      WorldOptions o;
      o.chain = chain;
      World w(with(on("5xx", 3)), o);
      Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAbort, ""}, {Script::kAnswer, answer(500)}});
      Peer& p = w.connect();
      const std::string body = pattern(size);
      w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n" + body);
      ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 60 * kSecond)) << p.received;
      ASSERT_EQ(s.requests.size(), 4u);
      for (const std::string& request : s.requests)
        EXPECT_TRUE(without_time(request) == without_time(s.requests[0]) && request.ends_with("\r\n\r\n" + body));
      w.settle();
      EXPECT_EQ(w.log().back().bytes_received, size);
    }
  }
}

TEST(Retry, ChunkedBodiesAreKept) {
  World w(with(on("5xx", 2)));
  Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAnswer, answer(500)}});
  Peer& p = w.connect();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
  w.settle();
  w.send(p, "4\r\ndefg\r\n0\r\n\r\n");
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 60 * kSecond)) << p.received;
  ASSERT_EQ(s.requests.size(), 3u);
  EXPECT_TRUE(s.requests[0].ends_with("\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")) << s.requests[0];
  for (size_t i = 1; i < 3; ++i) EXPECT_TRUE(s.requests[i].ends_with("\r\n\r\n7\r\nabcdefg\r\n0\r\n\r\n")) << s.requests[i];
  // One of nothing.
  p.received.clear();
  s.requests.clear();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
  w.settle();
  w.send(p, "0\r\n\r\n");
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend", 60 * kSecond)) << p.received;
  ASSERT_EQ(s.requests.size(), 3u);
  for (const std::string& r : s.requests) EXPECT_TRUE(r.ends_with("\r\n\r\n0\r\n\r\n")) << r;
}

TEST(Retry, ABodyThatIsTooLargeIsNotKept) {
  Config c = with(on("5xx", 1));
  c.routes[0].retry_buffer_limit = 10'000;
  for (const size_t size : {size_t{10'000}, size_t{10'001}}) {
    World w(c);
    Script s(w, {{Script::kAnswer, answer(500)}});
    Peer& p = w.connect();
    w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size) + "\r\n\r\n" + pattern(size));
    ASSERT_TRUE(w.wait_for(p, size > 10'000 ? "HTTP/1.1 500" : "\r\n\r\nend", 60 * kSecond)) << p.received;
    EXPECT_EQ(s.requests.size(), size > 10'000 ? 1u : 2u);
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRetryOrShadowAbandoned), size > 10'000 ? 1u : 0u);
    w.settle();
    EXPECT_EQ(w.last(), size > 10'000 ? "500 -" : "200 -");
  }
}

TEST(Retry, TheListenersLimitHoldsToo) {
  Config c = with(on("5xx", 1));
  c.edit_listener = [](table::Listener& l) { l.per_connection_buffer_limit_bytes = 3'000; };
  World w(c);
  Script s(w, {{Script::kAnswer, answer(500)}});
  Peer& p = w.connect();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000\r\n\r\n" + pattern(4'000));
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500"));
}

TEST(Retry, WhatComesDuringThePauseIsKept) {
  route::RetrySpec r = on("5xx", 1);
  r.base_interval_ms = r.max_interval_ms = 10'000;
  Config c = with(r);
  c.routes[0].retry_buffer_limit = 20;
  for (const bool too_much : {false, true}) {
    World w(c);
    Peer& p = w.connect();
    w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 21\r\n\r\n0123456789");
    ASSERT_TRUE(w.wait_for(w.upstream(), "0123456789"));
    w.send(w.upstream(), answer(503));
    ASSERT_TRUE(w.run_until([&] { return w.cluster_count(ClusterCounter::kRqRetry) == 1; }, kSecond));
    w.send(p, too_much ? "abcdefghijk" : "abcdefghij");
    if (too_much) {
      ASSERT_TRUE(w.wait_for(p, "exceeded request buffer limit while retrying upstream", 9 * kSecond)) << p.received;
      EXPECT_TRUE(p.received.starts_with("HTTP/1.1 507 Insufficient Storage"));
      w.settle();
      EXPECT_EQ(w.last(), "507 -");
      EXPECT_EQ(w.log().back().details, "request_payload_exceeded_retry_buffer_limit");
      EXPECT_EQ(w.server.peers.size(), 1u);
    } else {
      ASSERT_TRUE(w.wait_for(w.upstream(1), "0123456789abcdefghij", 20 * kSecond));
      w.send(p, "Z");
      ASSERT_TRUE(w.wait_for(w.upstream(1), "0123456789abcdefghijZ"));
      w.send(w.upstream(1), answer(200, "", "end"));
      ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend"));
    }
  }
}

TEST(Retry, AClientThatLeavesDuringThePause) {
  route::RetrySpec r = on("5xx", 5);
  r.base_interval_ms = r.max_interval_ms = 10'000;
  World w(with(r));
  Script s(w, std::vector<Script::Step>(9, {Script::kAnswer, answer(500)}));
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.run_until([&] { return w.cluster_count(ClusterCounter::kRqRetry) == 1; }, kSecond));
  w.abort(p);
  w.settle();
  EXPECT_EQ(w.last(), "0 DC");
  w.run(30 * kSecond);
  EXPECT_EQ(s.requests.size(), 1u);
}

TEST(Retry, TheBreakerForRetries) {
  for (const bool reset : {false, true}) {
    World w(with(on("5xx", 3), [](table::Cluster& t) { t.max_retries = 0; }));
    Script s(w, {{reset ? Script::kAbort : Script::kAnswer, answer(503)}});
    Peer& p = w.connect();
    w.send(p, get());
    ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 503"));
    EXPECT_EQ(p.received.find("x-envoy-overloaded"), std::string::npos) << "nothing was dropped";
    w.settle();
    EXPECT_EQ(w.last(), reset ? "503 UC,UO" : "503 UO");
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetryOverflow), 1u);
    EXPECT_EQ(w.cluster_count(ClusterCounter::kRqRetry), 0u);
  }
}

// Of n requests that fail together: how many are tried again.
uint64_t retried(World& w, int n) {
  Script s(w, std::vector<Script::Step>(static_cast<size_t>(n), {Script::kSilent, ""}));
  std::vector<Peer*> clients;
  for (int i = 0; i < n; ++i) w.send(*clients.emplace_back(&w.connect()), get());
  EXPECT_TRUE(w.run_until([&] { return s.requests.size() == static_cast<size_t>(n); }, kSecond));
  const size_t first = w.server.peers.size();
  for (size_t i = 0; i < first; ++i) w.send(w.server.peers[i], answer(503));
  EXPECT_TRUE(w.run_until(
      [&] { return std::all_of(clients.begin(), clients.end(), [](Peer* p) { return !p->received.empty(); }); }, 60 * kSecond));
  return w.cluster_count(ClusterCounter::kRqRetry);
}
TEST(Retry, RetriesAtATime) {
  route::RetrySpec r = on("5xx", 1);
  r.base_interval_ms = r.max_interval_ms = 5'000;
  {
    World w(with(r));
    EXPECT_EQ(retried(w, 8), 3u) << "max_retries, by default";
  }
  {
    World w(with(
        r, [](table::Cluster& t) { t.has_retry_budget = 1, t.retry_budget_millipercent = 50'000, t.min_retry_concurrency = 1; }));
    const uint64_t n = retried(w, 20);
    EXPECT_GE(n, 5u) << "the first are half of twenty, the last of fewer";
    EXPECT_LE(n, 10u);
  }
  {
    World w(
        with(r, [](table::Cluster& t) { t.has_retry_budget = 1, t.retry_budget_millipercent = 0, t.min_retry_concurrency = 2; }));
    EXPECT_EQ(retried(w, 8), 2u);
  }
}

// ---- what the request's fields say ------------------------------------------------------------------------------------------

Config believed(Config c) {
  c.hcm = [](table::HttpConnectionManager& h) { h.use_remote_address = 1; };
  c.write_hcm = [](table::ObjectWriter& w, table::HttpConnectionManager& h) {
    table::AddressRange r{};
    r.network = ip("10.1.0.0");
    r.prefix_bits = 16;
    h.internal_ranges = w.array(std::vector<table::AddressRange>{r});
  };
  return c;
}
struct FieldCase {
  const char* name;
  const char* fields;
  std::vector<Script::Step> steps;
  size_t attempts;
};
TEST(RetryFields, OfThoseWhoAreBelieved) {
  using S = Script;
  const S::Step e500{S::kAnswer, answer(500)}, e418{S::kAnswer, answer(418)}, e429{S::kAnswer, answer(200, "x-later: 1\r\n")},
      grpc{S::kAnswer, answer(200, "grpc-status: 14\r\n")}, silent{S::kSilent, ""};
  for (const bool internal : {true, false}) {
    for (const FieldCase& c : std::vector<FieldCase>{
             {"retry-on", "x-envoy-retry-on: 5xx\r\n", {e500, e500}, 2},
             {"max-retries", "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n", {e500, e500, e500}, 4},
             {"max-retries 0", "x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 0\r\n", {e500}, 1},
             {"max-retries alone", "x-envoy-max-retries: 3\r\n", {e500}, 1},
             {"grpc", "x-envoy-retry-grpc-on: unavailable\r\n", {grpc}, 2},
             {"codes", "x-envoy-retry-on: retriable-status-codes\r\nx-envoy-retriable-status-codes: 417, 418\r\n", {e418}, 2},
             {"names", "x-envoy-retry-on: retriable-headers\r\nx-envoy-retriable-header-names: x-other, X-Later\r\n", {e429}, 2},
             {"per try",
              "x-envoy-retry-on: 5xx\r\nx-envoy-upstream-rq-per-try-timeout-ms: 100\r\nx-envoy-hedge-on-per-try-timeout: "
              "true\r\n",
              {silent},
              2},
         }) {
      SCOPED_TRACE(std::string(c.name) + (internal ? "" : ", external"));
      Config config;
      World w(internal ? believed(config) : config);
      Script s(w, c.steps);
      Peer& p = w.connect();
      w.send(p, get("/", c.fields));
      if (!internal && c.steps[0].what == S::kSilent) {
        ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 504", 60 * kSecond));
      } else {
        ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", 5 * kSecond));
      }
      EXPECT_EQ(s.requests.size(), internal ? c.attempts : 1u);
      for (const std::string& r : s.requests)
        for (const char* gone : {"x-envoy-retry", "x-envoy-max", "x-envoy-retriable", "per-try", "hedge"})
          EXPECT_EQ(r.find(gone), std::string::npos) << r;
    }
  }
}

TEST(RetryFields, AddToTheRoutesPolicy) {
  World w(believed(with(on("gateway-error", 1))));
  Script s(w, {{Script::kAnswer, answer(409)}, {Script::kAnswer, answer(502)}});
  Peer& p = w.connect();
  w.send(p, get("/", "x-envoy-retry-on: retriable-4xx\r\nx-envoy-max-retries: 2\r\n"));
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nend"));
  EXPECT_EQ(s.requests.size(), 3u);
}

TEST(RetryFields, ATimeOfOneTryWithoutRetries) {
  World w(believed({}));
  Script s(w, {{Script::kSilent, ""}});
  Peer& p = w.connect();
  const base::TimeNs start = w.now;
  w.send(p, get("/", "x-envoy-upstream-rq-per-try-timeout-ms: 250\r\n"));
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 504"));
  EXPECT_NEAR(static_cast<double>(w.now - start) / 1e6, 250, 5);
  w.settle();
  EXPECT_EQ(w.last(), "504 UT");
}

TEST(Retry, AttemptsAreCountedWithoutAPolicy) {
  Config c;
  c.routes = {route_to()};
  c.routes[0].count_in_request = c.routes[0].count_in_response = true;
  World w(c);
  Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAbort, ""}});
  Peer& p = w.connect();
  w.send(p, get("/", "x-envoy-attempt-count: 7\r\n"));
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 500"));
  EXPECT_TRUE(has_line(p.received, "x-envoy-attempt-count: 1"));
  EXPECT_TRUE(has_line(s.requests[0], "x-envoy-attempt-count: 1"));
  p.received.clear();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 503"));
  EXPECT_TRUE(has_line(p.received, "x-envoy-attempt-count: 1"));
}

// ---- HTTP/2 -----------------------------------------------------------------------------------------------------------------

void http2(table::Cluster& t) { t.http = table::UpstreamHttp::kHttp2; }

TEST(RetryHttp2, BodiesAndTrailersGoAgain) {
  World w(with(on("5xx,refused-stream,unavailable", 4), http2));
  Http2Endpoint e(w);
  std::vector<std::string> seen;
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end || s.closed) return;
    seen.push_back(s.body + "|" + (s.trailers_complete ? std::string(s.trailers.find("x-t")->value) : "-"));
    switch (seen.size()) {
      case 1:
        return e.respond(s, 503);
      case 2:
        return e.reset(s, H2Code::kRefusedStream);
      case 3:
        return e.respond(s, 200, {{"grpc-status", "14", HeaderId::kGrpcStatus}});
      case 4:
        return e.reset(s, H2Code::kInternalError);
      default:
        return e.respond(s, 200, {}, "end");
    }
  };
  Http2Client c(w);
  for (const size_t size : {size_t{0}, size_t{10}, size_t{200'000}}) {
    SCOPED_TRACE(size);
    seen.clear();
    ClientStream& s = c.request("POST", "/", {}, size == 0);
    const std::string body = pattern(size);
    if (size != 0) c.body(s, body, true);
    ASSERT_TRUE(c.finished(s));
    EXPECT_EQ(s.response.status, 200);
    EXPECT_EQ(s.body, "end");
    ASSERT_EQ(seen.size(), 5u);
    for (const std::string& got : seen) EXPECT_TRUE(got == body + "|-");
  }
}

TEST(RetryHttp2, ARefusedStream) {
  for (const char* words : {"refused-stream", "connect-failure"}) {
    World w(with(on(words, 1), http2));
    Http2Endpoint e(w);
    int n = 0;
    e.news = [&](ServerStream& s) {
      if (!s.head_complete || s.tx_end || s.closed) return;
      if (++n == 2) return e.reset(s, H2Code::kRefusedStream);
      e.respond(s, 200, {}, "end");
    };
    Peer& p = w.connect();
    w.send(p, get());  // so that SETTINGS are there, and the client of HTTP/2 does not try again by itself
    ASSERT_TRUE(w.wait_for(p, "end"));
    p.received.clear();
    w.send(p, get());
    ASSERT_TRUE(w.wait_for(p, words[0] == 'r' ? "end" : "HTTP/1.1 503"));
    EXPECT_EQ(n, words[0] == 'r' ? 3 : 2);
  }
}

TEST(RetryHttp2, ToEndpointsOfHttp1) {
  World w(with(on("5xx", 2)));
  Script s(w, {{Script::kAnswer, answer(500, "", "long body")}, {Script::kAbort, ""}});
  Http2Client c(w);
  ClientStream& r = c.request("POST", "/", {}, false);
  c.body(r, pattern(3'000), false);
  w.settle();
  c.body(r, "tail", true);
  ASSERT_TRUE(c.finished(r));
  EXPECT_EQ(r.response.status, 200);
  ASSERT_EQ(s.requests.size(), 3u);
  for (size_t i = 1; i < 3; ++i) EXPECT_NE(s.requests[i].find("tail"), std::string::npos);
}

TEST(RetryHttp2, AStreamIsResetDuringThePause) {
  route::RetrySpec spec = on("5xx", 1);
  spec.base_interval_ms = spec.max_interval_ms = 10'000;
  World w(with(spec));
  Script s(w, {{Script::kAnswer, answer(500)}});
  Http2Client c(w);
  ClientStream& r = c.request("GET", "/");
  ASSERT_TRUE(c.until([&] { return w.cluster_count(ClusterCounter::kRqRetry) == 1; }, kSecond));
  c.h2.reset(r, H2Code::kCancel);
  ASSERT_TRUE(c.until([&] { return w.last() == "0 DC"; }, kSecond));
  w.run(20 * kSecond);
  EXPECT_EQ(s.requests.size(), 1u);
}

// Memory that runs out is the end of retries, not of the request.
TEST(Retry, WithoutPacketMemoryNothingIsKept) {
  World w(with(on("5xx", 1)));
  Script s(w, {{Script::kAnswer, answer(500)}, {Script::kAnswer, answer(500)}});
  Peer& p = w.connect();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n");
  ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
  const uint32_t used = w.payload.in_use();
  for (uint32_t spare = 0; spare < 6; ++spare) {
    w.payload.set_limit(used + spare);
    w.send(p, "abcdef");
    w.run(300 * kMillisecond);
  }
  w.payload.set_limit(w.payload.capacity());
  w.send(p, "abcd");
  ASSERT_TRUE(w.wait_for(p, "HTTP/1.1 ", 100 * kSecond)) << p.received;
}

}  // namespace
}  // namespace millrace::dataplane::test
