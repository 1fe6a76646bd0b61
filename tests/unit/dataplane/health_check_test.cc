// Active health checks in virtual time: what makes an endpoint healthy and what does not, when it is asked, what an edit changes.
// Envoy's rules (HealthCheckerImplBase, HttpHealthCheckerImpl, TcpHealthCheckerImpl).
#include "dataplane/check_state.h"
#include "dataplane/endpoint_health.h"
#include "dataplane/payload_match.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

using stats::CheckResult;
using stats::ClusterCheckCounter;
using table::HealthCheck;
using table::HealthCheckKind;
using Transition = CheckState::Transition;

// ---- results and intervals --------------------------------------------------------------------------------------------------

HealthCheck intervals() {
  HealthCheck c;
  c.interval_ms = 100;
  c.no_traffic_interval_ms = 1000;
  c.no_traffic_healthy_interval_ms = 2000;
  c.unhealthy_interval_ms = 300;
  c.unhealthy_edge_interval_ms = 400;
  c.healthy_edge_interval_ms = 500;
  c.healthy_threshold = 3;
  c.unhealthy_threshold = 2;
  return c;
}

struct Step {
  char result;       // + success, n network failure, r retriable status, a other failure
  bool failed;       // behind it
  uint32_t next_ms;  // with traffic
  uint32_t no_traffic;
};
TEST(CheckState, ThresholdsAndIntervals) {
  const std::vector<Step> runs[] = {
      // The first success is enough, later three in a row.
      {{'+', false, 100, 2000},
       {'n', false, 400, 1000},
       {'n', true, 300, 1000},
       {'+', true, 500, 1000},
       {'+', true, 500, 1000},
       {'+', false, 100, 2000}},
      // A first failure, then it is no first success any more.
      {{'n', true, 300, 1000}, {'+', true, 500, 1000}, {'+', true, 500, 1000}, {'+', false, 100, 2000}},
      // A failure begins the run anew, and so does a success.
      {{'n', true, 300, 1000},
       {'+', true, 500, 1000},
       {'+', true, 500, 1000},
       {'n', true, 300, 1000},
       {'+', true, 500, 1000},
       {'+', true, 500, 1000},
       {'+', false, 100, 2000},
       {'r', false, 400, 1000},
       {'+', false, 100, 2000},
       {'n', false, 400, 1000},
       {'r', true, 300, 1000}},
      // What is not retriable counts at once.
      {{'+', false, 100, 2000}, {'a', true, 300, 1000}},
  };
  for (const auto& run : runs) {
    const HealthCheck c = intervals();
    CheckState s;
    EXPECT_TRUE(s.failed() && s.first());
    for (const Step& step : run) {
      SCOPED_TRACE(step.result);
      const bool success = step.result == '+';
      const Transition t = success ? s.success(c)
                                   : s.failure(c, step.result == 'a'   ? CheckFailure::kActive
                                                  : step.result == 'r' ? CheckFailure::kRetriable
                                                                       : CheckFailure::kNetwork);
      EXPECT_EQ(s.failed(), step.failed);
      EXPECT_FALSE(s.first());
      EXPECT_EQ(CheckState::interval_ms(c, success, t, true, [] { return uint64_t{7}; }), step.next_ms);
      EXPECT_EQ(CheckState::interval_ms(c, success, t, false, [] { return uint64_t{7}; }), step.no_traffic);
    }
  }
}

TEST(CheckState, Jitter) {
  HealthCheck c = intervals();
  uint64_t random = 0;
  const auto at = [&](uint64_t r) {
    random = r;
    return CheckState::interval_ms(c, true, Transition::kUnchanged, true, [&] { return random; });
  };
  c.interval_jitter_percent = 50;  // of 100 ms
  EXPECT_EQ(at(49), 149u);
  EXPECT_EQ(at(50), 100u);
  c.interval_jitter_ms = 30;
  EXPECT_EQ(at(29), 158u);
  EXPECT_EQ(at(30), 130u);
  EXPECT_EQ(CheckState::initial_ms(c, [] { return uint64_t{5}; }), 0u);
  c.initial_jitter_ms = 10;
  EXPECT_EQ(CheckState::initial_ms(c, [] { return uint64_t{25}; }), 5u);
  EXPECT_EQ(CheckState::initial_ms(c, [] { return uint64_t{20}; }), 1u);
}

TEST(PayloadMatch, TextsInOrderHoweverTheyCome) {
  const std::vector<std::string> texts = {"abc", "cd", "abab"};
  const auto text = [&](uint32_t i) { return base::as_bytes(texts[i]); };
  const auto found = [&](const std::string& stream, size_t piece) {
    char buffer[8];
    PayloadMatch m;
    m.start();
    bool all = false;
    for (size_t i = 0; i < stream.size() && !all; i += piece)
      all = m.feed(base::as_bytes(std::string_view(stream).substr(i, piece)), buffer, 3, text);
    return all;
  };
  for (size_t piece = 1; piece < 24; ++piece) {
    SCOPED_TRACE(piece);
    EXPECT_TRUE(found("abccdabab", piece));
    EXPECT_TRUE(found("xxababcxxxxxxxxxxxcccdxxaabaabab", piece));
    EXPECT_FALSE(found("abcdabab", piece));    // "cd" may not begin inside "abc"
    EXPECT_FALSE(found("ababcdabc", piece));   // the order
    EXPECT_FALSE(found("abccdabaxb", piece));  // not all of the last
  }
}

// ---- a worker that checks
// -------------------------------------------------------------------------------------------------------

constexpr uint16_t kPort = 8000;
using Edit = std::function<void(HealthCheck&, table::ObjectWriter&)>;

const std::string kRequest = "GET /healthz HTTP/1.1\r\nhost: c\r\nuser-agent: Envoy/HC\r\n\r\n";

Config checked(
    uint32_t endpoints, Edit edit = [](HealthCheck&, table::ObjectWriter&) {}) {
  Config c;
  c.routes = {route_to()};
  c.clusters[0].endpoints.clear();
  for (uint32_t i = 0; i < endpoints; ++i) c.clusters[0].endpoints.push_back({"10.2.0.2", static_cast<uint16_t>(kPort + i)});
  c.clusters[0].write = [edit](table::Cluster& o, table::ObjectWriter& w) {
    o.panic_threshold = 0;
    HealthCheck& h = o.health_check;
    h.kind = HealthCheckKind::kHttp;
    h.timeout_ms = 50;
    h.interval_ms = h.no_traffic_interval_ms = h.no_traffic_healthy_interval_ms = 100;
    h.unhealthy_interval_ms = h.unhealthy_edge_interval_ms = h.healthy_edge_interval_ms = 100;
    h.healthy_threshold = h.unhealthy_threshold = 2;
    h.host = w.string("c");
    h.front = w.blob(base::as_bytes(std::string_view("GET /healthz HTTP/1.1\r\nhost: ")));
    h.back = w.blob(base::as_bytes(std::string_view("\r\nuser-agent: Envoy/HC\r\n\r\n")));
    edit(h, w);
  };
  return c;
}

// Endpoints that answer checks with `answer`; "" not at all, "-" with a reset.
struct Checks {
  explicit Checks(const Config& config, uint32_t endpoints = 1, const WorldOptions& o = {}) : w(start(config, o)) {
    std::vector<uint16_t> ports;
    for (uint32_t i = 0; i < endpoints; ++i) ports.push_back(static_cast<uint16_t>(kPort + i));
    w->server.set_listening(ports);
    answer.assign(endpoints, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    asked.assign(endpoints, 0);
    w->server_script = [this] { serve(); };
    w->publish(config);
  }
  ~Checks() {
    Config none;
    none.routes = {route_to()};
    w->publish(none);
    w->server_script = nullptr;
  }
  static std::unique_ptr<World> start(const Config& with, const WorldOptions& o) {
    Config none = with;
    none.clusters[0].write = nullptr;
    return std::make_unique<World>(none, o);
  }
  void serve() {
    for (Peer& p : w->server.peers) {
      if (p.connection == nullptr || p.received.empty()) continue;
      const size_t who = p.connection->tuple().local_port - kPort;
      if (p.received.find("/healthz") == std::string::npos) {
        p.received.clear();
        w->server.send(p, other, w->now);
        continue;
      }
      last = std::exchange(p.received, {});
      ++asked[who];
      if (answer[who] == "-") w->server.abort(p, w->now);
      else if (!answer[who].empty()) w->server.send(p, answer[who], w->now);
    }
  }
  bool healthy(uint32_t i = 0) {
    const ClusterRuntime& c = *w->worker->context().tables->cluster(table::object_id(table::Kind::kCluster, "c"));
    return live_health(w->worker->context().stats, c, i) == route::balancer::Health::kHealthy;
  }
  uint64_t result(uint32_t i = 0) {
    const ClusterRuntime& c = *w->worker->context().tables->cluster(table::object_id(table::Kind::kCluster, "c"));
    return w->worker->context().stats.health(c.endpoint_slots[i]).check_result.read();
  }
  // Rounds of checks.
  void rounds(uint32_t n) { w->run(n * 100 * kMillisecond); }
  uint64_t count(ClusterCheckCounter c) { return w->check_count(c); }

  std::unique_ptr<World> w;
  std::vector<std::string> answer;
  std::vector<int> asked;
  std::string last;
  std::string other = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";  // to what is no check
};

TEST(HealthChecks, NotUsedBeforeTheFirstSuccessWhichIsEnough) {
  Checks t(checked(1, [](HealthCheck& h, table::ObjectWriter&) { h.healthy_threshold = 5; }));
  EXPECT_FALSE(t.healthy());
  Peer& client = t.w->connect();
  t.w->send(client, get("/"));  // before the first answer
  EXPECT_TRUE(t.w->wait_for(client, "no healthy upstream", kSecond));
  t.rounds(1);
  EXPECT_TRUE(t.healthy());
  EXPECT_EQ(t.last, kRequest);
  client.received.clear();
  t.w->send(client, get("/"));
  EXPECT_TRUE(t.w->wait_for(client, "200 OK", kSecond));
  EXPECT_EQ(t.count(ClusterCheckCounter::kHealthy), 1u);
  EXPECT_EQ(t.w->server.peers.size(), 2u);  // checks have a connection of their own, and keep it
  const uint64_t before = t.count(ClusterCheckCounter::kAttempt);
  t.rounds(10);
  EXPECT_NEAR(static_cast<double>(t.count(ClusterCheckCounter::kAttempt) - before), 10, 1);
  EXPECT_EQ(t.count(ClusterCheckCounter::kSuccess), t.count(ClusterCheckCounter::kAttempt));
  EXPECT_EQ(t.w->server.peers.size(), 2u);
}

struct AnswerCase {
  const char* name;
  std::string answer;
  uint32_t rounds_until_failed;  // 0: stays healthy
  CheckResult result;
  Edit edit = [](HealthCheck&, table::ObjectWriter&) {};
};
TEST(HealthChecks, WhatAnswersMean) {
  const Edit retriable = [](HealthCheck& h, table::ObjectWriter& w) {
    h.expected = w.array(std::vector<table::StatusRange>{{200, 202}, {204, 205}});
    h.retriable = w.array(std::vector<table::StatusRange>{{500, 600}});
  };
  const Edit receive = [](HealthCheck& h, table::ObjectWriter& w) {
    std::vector<table::HealthPayload> p(2);
    p[0].bytes = w.blob(base::as_bytes(std::string_view("up")));
    p[1].bytes = w.blob(base::as_bytes(std::string_view("ready")));
    h.receive = w.array(p);
    h.receive_limit = 20;
  };
  const auto body = [](const std::string& text) {
    return "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
  };
  const AnswerCase cases[] = {
      {"500 at once", "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno", 1, CheckResult::kStatus},
      {"503 at once", "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n", 1, CheckResult::kStatus},
      {"204 is not 200", "HTTP/1.1 204 X\r\n\r\n", 1, CheckResult::kStatus},
      {"expected ranges", "HTTP/1.1 204 X\r\n\r\n", 0, CheckResult::kSuccess, retriable},
      {"outside of them", "HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n", 1, CheckResult::kStatus, retriable},
      {"retriable: by the threshold", "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n", 2, CheckResult::kStatus, retriable},
      {"no answer: by the threshold", "", 2, CheckResult::kTimeout},
      {"half a head", "HTTP/1.1 200 OK\r\ncontent-le", 2, CheckResult::kTimeout},
      {"half a body", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", 2, CheckResult::kTimeout},
      {"reset", "-", 2, CheckResult::kClosed},
      {"no HTTP", "SSH-2.0-x\r\n\r\n", 2, CheckResult::kProtocol},
      {"chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 0, CheckResult::kSuccess},
      {"100 in front", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 0, CheckResult::kSuccess},
      {"close", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 0, CheckResult::kSuccess},
      {"the body holds what is expected", body("it is up and ready"), 0, CheckResult::kSuccess, receive},
      {"it does not", body("ready and up"), 1, CheckResult::kPayload, receive},
      {"too late in it", body("it is up, nearly, now ready"), 1, CheckResult::kPayload, receive},
  };
  for (const AnswerCase& c : cases) {
    SCOPED_TRACE(c.name);
    Checks t(checked(1, c.edit));
    t.answer[0] = body("up ready");
    t.rounds(2);
    EXPECT_TRUE(t.healthy());
    t.answer[0] = c.answer;
    const int before = t.asked[0];
    t.w->run_until([&] { return !t.healthy(); }, c.rounds_until_failed == 0 ? kSecond : 10 * kSecond);
    EXPECT_EQ(t.healthy(), c.rounds_until_failed == 0);
    if (c.rounds_until_failed != 0) {
      EXPECT_EQ(t.asked[0] - before, static_cast<int>(c.rounds_until_failed));
    }
    EXPECT_EQ(static_cast<CheckResult>(t.result() & 0xff), c.result);
    if (c.result == CheckResult::kStatus) {
      EXPECT_EQ(t.result() >> 8, std::stoull(c.answer.substr(9, 3)));
    }
    if (c.rounds_until_failed == 0) continue;
    EXPECT_EQ(t.count(ClusterCheckCounter::kHealthy), 0u);
    t.answer[0] = body("up ready");  // two successes bring it back
    const uint64_t successes = t.count(ClusterCheckCounter::kSuccess);
    EXPECT_TRUE(t.w->run_until([&] { return t.healthy(); }, 10 * kSecond));
    EXPECT_EQ(t.count(ClusterCheckCounter::kSuccess) - successes, 2u);
  }
}

TEST(HealthChecks, RefusedAndSwitchedOff) {
  Config c = checked(2);
  c.clusters[0].endpoints[1].address = "10.2.0.3";
  Checks t(c);
  t.w->server.set_listening({});
  t.rounds(3);
  EXPECT_FALSE(t.healthy(0));
  EXPECT_FALSE(t.healthy(1));
  EXPECT_EQ(static_cast<CheckResult>(t.result(0) & 0xff), CheckResult::kRefused);
  EXPECT_EQ(static_cast<CheckResult>(t.result(1) & 0xff), CheckResult::kTimeout);
  EXPECT_EQ(t.count(ClusterCheckCounter::kFailure), t.count(ClusterCheckCounter::kNetworkFailure));
  EXPECT_GE(t.count(ClusterCheckCounter::kFailure), 4u);
}

TEST(HealthChecks, ADegradedEndpointSaysSo) {
  Checks t(checked(1));
  t.answer[0] = "HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n";
  t.rounds(1);
  const ClusterRuntime& c = *t.w->worker->context().tables->watched_clusters()[0];
  EXPECT_EQ(live_health(t.w->worker->context().stats, c, 0), route::balancer::Health::kDegraded);
  EXPECT_EQ(t.count(ClusterCheckCounter::kDegraded), 1u);
  t.answer[0] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
  t.rounds(2);
  EXPECT_TRUE(t.healthy());
  EXPECT_EQ(t.count(ClusterCheckCounter::kDegraded), 0u);
}

Config tcp_checked(const std::string& send, const std::string& receive, bool reuse = true) {
  return checked(1, [=](HealthCheck& h, table::ObjectWriter& w) {
    h.kind = HealthCheckKind::kTcp;
    h.host = {};
    h.reuse_connection = reuse;
    h.front = w.blob(base::as_bytes(send));
    h.back = {};
    std::vector<table::HealthPayload> p(receive.empty() ? 0 : 1);
    if (!p.empty()) p[0].bytes = w.blob(base::as_bytes(receive));
    h.receive = w.array(p);
  });
}
TEST(HealthChecks, TcpConnects) {
  Checks t(tcp_checked("", ""));
  t.rounds(5);
  EXPECT_TRUE(t.healthy());
  EXPECT_NEAR(static_cast<double>(t.w->server.peers.size()), 5, 1);  // a connection each
  t.w->server.set_listening({});
  t.rounds(3);
  EXPECT_FALSE(t.healthy());
}
TEST(HealthChecks, TcpAsks) {
  for (const bool reuse : {true, false}) {
    SCOPED_TRACE(reuse);
    Checks t(tcp_checked("/healthz?", "PONG", reuse));
    t.answer[0] = "..PONG..";
    t.rounds(5);
    EXPECT_TRUE(t.healthy());
    EXPECT_EQ(t.last, "/healthz?");
    EXPECT_NEAR(static_cast<double>(t.w->server.peers.size()), reuse ? 1 : 5, reuse ? 0 : 1);
    t.answer[0] = "PING";
    t.rounds(4);
    EXPECT_FALSE(t.healthy());
    EXPECT_EQ(static_cast<CheckResult>(t.result() & 0xff), CheckResult::kTimeout);
  }
}
TEST(HealthChecks, TheEndOfAnIdleConnectionIsAFailureOfTcpAlone) {
  Checks tcp(tcp_checked("/healthz?", "PONG")), http(checked(1));
  tcp.answer[0] = "PONG";
  for (Checks* t : {&tcp, &http}) {
    t->rounds(2);
    t->w->server.abort_all(t->w->now);
    t->w->run(10 * kMillisecond);
    EXPECT_EQ(t->count(ClusterCheckCounter::kFailure), t == &tcp ? 1u : 0u);
    EXPECT_TRUE(t->healthy());
    t->rounds(2);
    EXPECT_TRUE(t->healthy());
  }
}

TEST(HealthChecks, AnEditLeavesWhatWasFound) {
  Checks t(checked(2), 2);
  t.answer[1] = "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n";
  t.rounds(2);
  EXPECT_TRUE(t.healthy(0) && !t.healthy(1));
  const size_t connections = t.w->server.peers.size();
  Config other = checked(2);
  other.clusters[0].edit = [](table::Cluster& c) { c.connect_timeout_ms = 777; };
  t.w->publish(other);
  EXPECT_TRUE(t.healthy(0) && !t.healthy(1));
  t.rounds(2);
  EXPECT_EQ(t.w->server.peers.size(), connections);  // not even its connection closed
  // Another order of endpoints, and one that is new.
  Config more = checked(3);
  std::swap(more.clusters[0].endpoints[0], more.clusters[0].endpoints[1]);
  t.asked.push_back(0);
  t.answer.push_back("");
  t.w->publish(more);
  EXPECT_TRUE(!t.healthy(0) && t.healthy(1) && !t.healthy(2));
  // Other checks: at once, and what was found stays until they have a result.
  t.w->publish(checked(2, [](HealthCheck& h, table::ObjectWriter&) { h.interval_ms = 3'600'000; }));
  EXPECT_TRUE(t.healthy(0) && !t.healthy(1));
  const int asked = t.asked[0];
  t.w->run(10 * kMillisecond);
  EXPECT_EQ(t.asked[0], asked + 1);
  // Who leaves and comes back has to pass.
  Config one = checked(2);
  one.clusters[0].endpoints.erase(one.clusters[0].endpoints.begin());
  t.w->publish(one);
  t.w->run(10 * kMillisecond);
  t.answer[0] = "";
  t.w->publish(checked(2));
  t.w->run(10 * kMillisecond);
  EXPECT_FALSE(t.healthy(0));
  // No checks: healthy, all of them.
  Config none = checked(2);
  none.clusters[0].write = nullptr;
  t.w->publish(none);
  EXPECT_TRUE(t.healthy(0) && t.healthy(1));
  t.w->run(10 * kMillisecond);
  EXPECT_EQ(t.w->worker->checks_in_use(), 0u);
}

TEST(HealthChecks, PortOfItsOwnAndNoCheck) {
  Config c = checked(2);
  c.clusters[0].endpoints[0].health_port = kPort + 2;
  c.clusters[0].endpoints[1].no_health_check = true;
  Checks t(c, 3);
  t.rounds(2);
  EXPECT_TRUE(t.healthy(0) && t.healthy(1));
  EXPECT_EQ(t.asked[0], 0);
  EXPECT_EQ(t.asked[1], 0);
  EXPECT_GE(t.asked[2], 2);
  t.answer[2] = "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n";
  t.rounds(2);
  EXPECT_TRUE(!t.healthy(0) && t.healthy(1));
}

TEST(HealthChecks, WithoutTrafficSeldom) {
  Checks t(checked(1, [](HealthCheck& h, table::ObjectWriter&) { h.no_traffic_healthy_interval_ms = 10'000; }));
  t.rounds(20);
  EXPECT_EQ(t.asked[0], 1);
  Peer& client = t.w->connect();
  t.w->send(client, get("/"));
  EXPECT_TRUE(t.w->wait_for(client, "200 OK", kSecond));
  t.w->run(10 * kSecond);
  EXPECT_GE(t.asked[0], 15);
}

TEST(HealthChecks, ASuccessEndsAnEjection) {
  Config c = checked(1);
  c.clusters[0].edit = [](table::Cluster& o) {
    o.outlier.present = 1;
    o.outlier.max_ejection_percent = 100;
    o.outlier.consecutive_5xx = 1;
  };
  Checks t(c);
  t.rounds(1);
  const ClusterRuntime& r = *t.w->worker->context().tables->watched_clusters()[0];
  const auto ejected = [&] {
    return (t.w->worker->context().stats.health(r.endpoint_slots[0]).state & stats::kHealthEjected) != 0;
  };
  t.other = "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n";
  Peer& client = t.w->connect();
  t.w->send(client, get("/"));
  EXPECT_TRUE(t.w->wait_for(client, "500 ", 50 * kMillisecond));
  EXPECT_TRUE(ejected() && !t.healthy());
  t.rounds(2);
  EXPECT_TRUE(!ejected() && t.healthy());
  EXPECT_EQ(t.w->health_count(stats::ClusterHealthCounter::kEjectionsActive), 0u);
}

TEST(HealthChecks, NoPlaceLeft) {
  WorldOptions o;
  o.limits.health_checks = 1;
  Checks t(checked(2), 2, o);
  t.rounds(1);
  EXPECT_EQ(t.count(ClusterCheckCounter::kUnchecked), 1u);
  EXPECT_TRUE(t.healthy(0) && !t.healthy(1));
  Config one = checked(2);
  one.clusters[0].endpoints.erase(one.clusters[0].endpoints.begin());
  t.w->publish(one);  // the place is free only when the sweep has ended
  t.w->run(10 * kMillisecond);
  t.w->publish(one);
  t.rounds(2);
  EXPECT_TRUE(t.healthy(0));
  EXPECT_EQ(t.count(ClusterCheckCounter::kUnchecked), 0u);
}

// ---- HTTP/2 and gRPC ----------------------------------------------------------------------------------------------------------

std::string framed(std::string_view message) {
  std::string out(4, '\0');
  out.push_back(static_cast<char>(message.size()));
  return out + std::string(message);
}

struct GrpcAnswer {
  uint16_t status = 200;
  std::string body = framed("\x08\x01");  // SERVING
  std::string_view grpc_status = "0";     // "": none
  bool trailers_only = false;
  int reset = -1;  // a code of RFC 9113
  bool silent = false;
};

struct Http2Checks {
  explicit Http2Checks(
      HealthCheckKind kind, Edit edit = [](HealthCheck&, table::ObjectWriter&) {})
      : w(std::make_unique<World>(without())), e(*w) {
    e.news = [this](ServerStream& s) { serve(s); };
    Config c = checked(1, [=](HealthCheck& h, table::ObjectWriter& writer) {
      using namespace std::string_view_literals;
      h.kind = kind;
      h.http2 = 1;
      if (kind == HealthCheckKind::kGrpc) {
        h.front = writer.blob(base::as_bytes("POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: "sv));
        h.back = writer.blob(base::as_bytes(
            "\r\ncontent-type: application/grpc\r\nte: trailers\r\nuser-agent: Envoy/HC\r\n\r\n\0\0\0\0\x03\x0a\x01s"sv));
      }
      edit(h, writer);
    });
    w->publish(c);
  }
  ~Http2Checks() {
    w->publish(without());
    w->run(10 * kMillisecond);
  }
  static Config without() {
    Config none = checked(1);
    none.clusters[0].write = nullptr;
    return none;
  }
  void serve(ServerStream& s) {
    if (!s.head_complete || !s.rx_end || s.tx_end || s.closed || answer.silent) return;
    ++asked;
    if (answer.reset >= 0) return e.reset(s, static_cast<http::H2Code>(answer.reset));
    std::vector<http::Header> status;
    if (!answer.grpc_status.empty()) status = {{"grpc-status", answer.grpc_status, http::HeaderId::kGrpcStatus}};
    if (answer.trailers_only) return e.respond(s, answer.status, status);
    e.respond(s, answer.status, {{"content-type", "application/grpc"}}, answer.body, true, status);
  }
  bool healthy() {
    const ClusterRuntime& c = *w->worker->context().tables->cluster(table::object_id(table::Kind::kCluster, "c"));
    return live_health(w->worker->context().stats, c, 0) == route::balancer::Health::kHealthy;
  }
  uint64_t result() {
    const ClusterRuntime& c = *w->worker->context().tables->cluster(table::object_id(table::Kind::kCluster, "c"));
    return w->worker->context().stats.health(c.endpoint_slots[0]).check_result.read();
  }
  std::unique_ptr<World> w;
  Http2Endpoint e;
  GrpcAnswer answer;
  int asked = 0;
};

TEST(HealthChecksOfGrpc, AServiceThatServes) {
  Http2Checks t(HealthCheckKind::kGrpc);
  t.w->run(kSecond);
  EXPECT_TRUE(t.healthy());
  EXPECT_NEAR(t.asked, 10, 1);
  EXPECT_EQ(t.w->server.peers.size(), 1u);  // streams of one connection
  const ServerStream& s = *t.e.all()[0];
  EXPECT_EQ(s.request.method, "POST");
  EXPECT_EQ(s.request.path, "/grpc.health.v1.Health/Check");
  EXPECT_EQ(s.request.authority, "c");
  EXPECT_EQ(s.request.scheme, "http");
  EXPECT_EQ(s.header("content-type"), "application/grpc");
  EXPECT_EQ(s.header("te"), "trailers");
  EXPECT_EQ(s.header("user-agent"), "Envoy/HC");
  EXPECT_EQ(s.body, framed("\x0a\x01s"));
}

TEST(HealthChecksOfGrpc, WhatAnswersMean) {
  struct Case {
    const char* name;
    GrpcAnswer answer;
    int failures;  // until it is unhealthy
    CheckResult result;
    uint64_t code = 0;
  };
  const Case cases[] = {
      {"not serving", {200, framed("\x08\x02")}, 1, CheckResult::kNotServing},
      {"unknown", {200, framed("")}, 1, CheckResult::kNotServing},
      {"no message", {200, ""}, 1, CheckResult::kNotServing},
      {"two messages", {200, framed("\x08\x01") + framed("\x08\x01")}, 1, CheckResult::kNotServing},
      {"no protobuf", {200, framed("\x0f\xff")}, 1, CheckResult::kNotServing},
      {"a status in the trailers", {200, framed("\x08\x01"), "14"}, 1, CheckResult::kGrpc, 14},
      {"a status alone", {200, "", "12", true}, 1, CheckResult::kGrpc, 12},
      {"no status", {200, framed("\x08\x01"), ""}, 1, CheckResult::kStatus, 200},
      {"no gRPC", {503, "", "", true}, 1, CheckResult::kStatus, 503},
      {"reset", {200, "", "", false, 2}, 2, CheckResult::kClosed},
      {"silence", {200, "", "", false, -1, true}, 2, CheckResult::kTimeout},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Http2Checks t(HealthCheckKind::kGrpc);
    t.w->run(200 * kMillisecond);
    EXPECT_TRUE(t.healthy());
    const uint64_t failures = t.w->check_count(ClusterCheckCounter::kFailure);
    t.answer = c.answer;
    EXPECT_TRUE(t.w->run_until([&] { return !t.healthy(); }, 10 * kSecond));
    EXPECT_EQ(t.w->check_count(ClusterCheckCounter::kFailure) - failures, static_cast<uint64_t>(c.failures));
    EXPECT_EQ(static_cast<CheckResult>(t.result() & 0xff), c.result);
    if (c.code != 0) {
      EXPECT_EQ(t.result() >> 8, c.code);
    }
    t.answer = {};
    EXPECT_TRUE(t.w->run_until([&] { return t.healthy(); }, 10 * kSecond));
  }
}

TEST(HealthChecksOfHttp2, AsOverHttp1) {
  const Edit receive = [](HealthCheck& h, table::ObjectWriter& w) {
    std::vector<table::HealthPayload> p(1);
    p[0].bytes = w.blob(base::as_bytes(std::string_view("ready")));
    h.receive = w.array(p);
  };
  Http2Checks t(HealthCheckKind::kHttp, receive);
  t.answer.body = "is ready";
  t.w->run(300 * kMillisecond);
  EXPECT_TRUE(t.healthy());
  EXPECT_EQ(t.e.all()[0]->request.method, "GET");
  EXPECT_EQ(t.e.all()[0]->request.path, "/healthz");
  t.answer.body = "is not";
  t.w->run(200 * kMillisecond);
  EXPECT_FALSE(t.healthy());
  EXPECT_EQ(static_cast<CheckResult>(t.result() & 0xff), CheckResult::kPayload);
  t.answer.body = "ready";
  t.w->run(400 * kMillisecond);
  EXPECT_TRUE(t.healthy());
  t.answer.status = 500;
  t.w->run(200 * kMillisecond);
  EXPECT_FALSE(t.healthy());
  EXPECT_EQ(t.result() >> 8, 500u);
}

TEST(HealthChecksOfHttp2, WhoLeavesIsAskedOnAnotherConnection) {
  Http2Checks t(HealthCheckKind::kHttp);
  t.w->run(250 * kMillisecond);
  EXPECT_TRUE(t.healthy());
  t.e.connections[0]->h2.goaway(http::H2Code::kNoError);
  t.w->run(300 * kMillisecond);
  EXPECT_TRUE(t.healthy());
  EXPECT_EQ(t.w->check_count(ClusterCheckCounter::kFailure), 0u);
  EXPECT_EQ(t.w->server.peers.size(), 2u);
}

}  // namespace
}  // namespace millrace::dataplane::test
