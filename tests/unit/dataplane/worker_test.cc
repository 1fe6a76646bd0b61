// The whole worker in virtual time: requests, their ends good and bad, timeouts to the millisecond, tables that change under way,
// pools that run dry. Every World checks at its end that everything came back to its pool.
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

// ---- plain requests
// --------------------------------------------------------------------------------------------------------------------
TEST(Worker, GetThereAndBack) {
  for (const bool chain : {false, true}) {
    WorldOptions o;
    o.chain = chain;
    World w({}, o);
    Peer& c = w.connect();
    w.send(c, get("/cart?x=1"));
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    EXPECT_EQ(u.received.substr(0, 26), "GET /cart?x=1 HTTP/1.1\r\nho");
    EXPECT_TRUE(has_line(u.received, "x-forwarded-proto: http"));
    w.send(u, ok("hello"));
    ASSERT_TRUE(w.wait_for(c, "\r\n\r\nhello"));
    EXPECT_EQ(c.received.substr(0, 17), "HTTP/1.1 200 OK\r\n");
    EXPECT_TRUE(has_line(c.received, "server: envoy"));
    EXPECT_EQ(w.last(), "200 -");
    EXPECT_EQ(w.log()[0].path, "/cart?x=1");
    EXPECT_EQ(w.log()[0].bytes_sent, 5u);
  }
}

TEST(Worker, OneConnectionServesManyRequests) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  for (size_t i = 1; i <= 50; ++i) {
    w.send(c, get());
    ASSERT_TRUE(w.run_until([&] { return count_of(c.received, "\r\n\r\nhello") == i; })) << i;
  }
  EXPECT_EQ(w.server.peers.size(), 1u);
  EXPECT_EQ(w.worker->upstreams_in_use(), 1u);
  EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
  EXPECT_EQ(w.worker->heads_in_use(), 0u);
}

TEST(Worker, PipelinedRequestsAreAnsweredInOrder) {
  World w;
  w.serve([](const std::string& request) { return ok(request.substr(4, request.find(' ', 4) - 4)); });
  Peer& c = w.connect();
  std::string all, paths;
  for (int i = 0; i < 20; ++i) all += get("/" + std::to_string(i));
  w.send(c, all);
  ASSERT_TRUE(w.wait_for(c, "\r\n\r\n/19"));
  size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    const size_t next = c.received.find("\r\n\r\n/" + std::to_string(i), at);
    ASSERT_NE(next, std::string::npos) << i;
    at = next;
  }
  EXPECT_EQ(w.server.peers.size(), 1u) << "one after the other, over one connection";
}

TEST(Worker, RequestBodies) {
  struct Case {
    std::string name, head, body, seen;
  };
  const std::string big = pattern(300'000);
  char size[16];
  std::snprintf(size, sizeof size, "%zx", big.size());
  const Case cases[] = {
      {"content-length", "content-length: 5\r\n", "abcde", "abcde"},
      {"one byte", "content-length: 1\r\n", "x", "x"},
      {"large", "content-length: " + std::to_string(big.size()) + "\r\n", big, big},
      {"chunked", "transfer-encoding: chunked\r\n", "3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    World w;
    Peer& c = w.connect();
    w.send(c, "POST /p HTTP/1.1\r\nhost: a\r\n" + k.head + "\r\n" + k.body);
    Peer& u = w.upstream();
    ASSERT_TRUE(w.run_until([&] {
      const size_t end = u.received.find("\r\n\r\n");
      return end != std::string::npos && u.received.size() - end - 4 >= k.seen.size();
    }));
    EXPECT_EQ(u.received.substr(u.received.find("\r\n\r\n") + 4), k.seen);
    w.send(u, ok());
    ASSERT_TRUE(w.wait_for(c, "hello"));
    EXPECT_EQ(w.last(), "200 -");
    EXPECT_EQ(w.worker->upstreams_in_use(), 1u) << "both sides complete: kept";
  }
}

TEST(Worker, ResponseBodies) {
  const std::string big = pattern(500'000);
  struct Case {
    std::string name, response, seen;
    bool upstream_closes, kept;
  };
  const Case cases[] = {
      {"chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", false,
       true},
      {"until close", "HTTP/1.1 200 OK\r\n\r\nabc", "3\r\nabc\r\n0\r\n\r\n", true, false},
      {"large", ok(big), big, false, true},
      {"none", "HTTP/1.1 204 No Content\r\n\r\n", "", false, true},
      {"not asked for to stay", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab", "ab", false, false},
      {"early hints first", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok("ab"), "ab", false, true},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    World w;
    Peer& c = w.connect();
    w.send(c, get());
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    w.send(u, k.response);
    if (k.upstream_closes) w.close(u);
    ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }, 100 * kSecond));
    w.run(20 * kMillisecond);
    EXPECT_TRUE(c.received.substr(c.received.find("\r\n\r\n") + 4) == k.seen) << c.received.substr(0, 300);
    EXPECT_TRUE(c.open());
    EXPECT_EQ(w.worker->upstreams_in_use(), k.kept ? 1u : 0u);
    EXPECT_EQ(w.last().substr(3), " -");
  }
}

// An endpoint that begins to answer before it has the whole request: the response goes through in full, says that the connection
// ends, and it does, although the rest of the request came after all (Envoy: downstream_rq_response_before_rq_complete). A client
// that asks again on it sees the end and no answer, whichever way its request's segments came: one of them late is enough.
TEST(Worker, AnAnswerBeforeTheRequestIsComplete) {
  for (const bool late : {true, false}) {
    World w;
    Peer& c = w.connect();
    w.send(c, "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabcde");
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "abcde"));
    if (!late) {
      w.send(c, "fghij");
      ASSERT_TRUE(w.wait_for(u, "fghij"));
    }
    w.send(u, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabcde");
    ASSERT_TRUE(w.wait_for(c, "\r\n\r\nabcde"));
    EXPECT_EQ(has_line(c.received, "connection: close"), late) << c.received;
    if (late) {
      w.send(c, "fghij");
      ASSERT_TRUE(w.wait_for(u, "fghij")) << "it is passed on all the same";
    }
    w.send(u, "fghij");
    ASSERT_TRUE(w.wait_for(c, "abcdefghij"));
    w.settle();
    EXPECT_EQ(w.last(), "200 -");
    EXPECT_EQ(c.fin, late);
    EXPECT_FALSE(c.reset);
    EXPECT_EQ(w.counted(stats::HcmCounter::kRqBeforeComplete), late ? 1u : 0u);
  }
}

// ---- endpoints that fail
// -----------------------------------------------------------------------------------------------------------------
TEST(Worker, UpstreamsThatFail) {
  struct Case {
    std::string name, sends;
    bool closes, resets;
    std::string log, body_end;
    bool client_stays;
  };
  const Case cases[] = {
      {"closes without a byte", "", true, false, "503 UC", "upstream connect error", true},
      {"resets without a byte", "", false, true, "503 UC", "upstream connect error", true},
      {"closes in the head", "HTTP/1.1 200 OK\r\ncontent-le", true, false, "502 UPE", "HTTP/1.1 502", true},
      {"resets in the head", "HTTP/1.1 200 OK\r\ncontent-le", false, true, "503 UC", "upstream connect error", true},
      {"closes in the body", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", true, false, "200 UPE", "\r\n\r\nabc", false},
      {"resets in the body", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", false, true, "200 UPE", "\r\n\r\nabc", false},
      {"closes in a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", true, false, "200 UPE", "abc",
       false},
      {"sends no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", false, false, "502 UPE", "upstream connect error", true},
      {"breaks a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", false, false, "200 UPE", "", false},
      {"switches protocols unasked", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", false,
       false, "502 UPE", "upstream", true},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    World w;
    Peer& c = w.connect();
    w.send(c, get());
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    if (!k.sends.empty()) {
      w.send(u, k.sends);
      w.settle();
    }
    if (k.closes) w.close(u);
    if (k.resets) w.abort(u);
    ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }, kSecond)) << "at once, not by a timeout";
    w.settle();
    EXPECT_EQ(w.last(), k.log);
    EXPECT_NE(c.received.find(k.body_end), std::string::npos) << c.received;
    EXPECT_EQ(c.open(), k.client_stays);
    EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
    EXPECT_EQ(w.worker->upstreams_in_use(), 0u) << "not used again";
  }
}

TEST(Worker, RefusedConnectionIsAnsweredAtOnce) {
  World w;
  w.server.set_listening({});
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "\r\n\r\nupstream connect error", kSecond));
  EXPECT_EQ(w.last(), "503 UF");
  EXPECT_TRUE(c.open());
}

TEST(Worker, ConnectTimeoutIsExact) {
  Config config;
  config.clusters[0].endpoints = {{"10.2.0.3", 8000}};  // nobody answers there
  config.clusters[0].edit = [](table::Cluster& c) { c.connect_timeout_ms = 1'250; };
  World w(config);
  Peer& c = w.connect();
  w.send(c, get());
  w.settle();
  const base::TimeNs start = w.now;
  ASSERT_TRUE(w.wait_for(c, "HTTP/1.1 503"));
  EXPECT_NEAR(static_cast<double>(w.now - start), 1250e6, 5e6);
  EXPECT_EQ(w.last(), "503 UF");
}

TEST(Worker, NoEndpointIsUnhealthyFlag) {
  Config config;
  config.clusters[0].endpoints.clear();
  World w(config);
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "HTTP/1.1 503"));
  EXPECT_EQ(w.last(), "503 UH");
}

TEST(Worker, ClosedIdleUpstreamIsReplacedNotUsed) {
  World w;
  Peer& c = w.connect();
  w.send(c, get());
  w.send((w.wait_for(w.upstream(), "\r\n\r\n"), w.upstream()), ok());
  ASSERT_TRUE(w.wait_for(c, "hello"));
  w.close(w.upstream());
  w.settle();
  EXPECT_EQ(w.worker->upstreams_in_use(), 0u);
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(w.upstream(1), "\r\n\r\n"));
  w.send(w.upstream(1), ok("again"));
  EXPECT_TRUE(w.wait_for(c, "again"));
}

// ---- clients that leave
// --------------------------------------------------------------------------------------------------------------------
TEST(Worker, ClientAbortsAtEveryStage) {
  enum Stage { kConnected, kHalfHead, kConnecting, kWaiting, kHalfRequestBody, kHalfResponseHead, kHalfResponseBody, kStages };
  for (int stage = 0; stage < kStages; ++stage) {
    for (const bool reset : {true, false}) {
      SCOPED_TRACE("stage " + std::to_string(stage) + (reset ? ", reset" : ", closed"));
      World w;
      w.server_deaf = stage == kConnecting;
      Peer& c = w.connect();
      w.settle();
      if (stage == kHalfHead) w.send(c, "GET / HT");
      if (stage >= kConnecting && stage != kHalfRequestBody) w.send(c, get());
      if (stage == kHalfRequestBody) w.send(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
      w.settle();
      if (stage >= kWaiting) {
        ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
      }
      if (stage == kHalfResponseHead) w.send(w.upstream(), "HTTP/1.1 200 OK\r\ncon");
      if (stage == kHalfResponseBody) w.send(w.upstream(), "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc");
      w.settle();
      if (reset) w.abort(c);
      else w.close(c);
      w.run(5 * kMillisecond);
      EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
      EXPECT_EQ(w.worker->heads_in_use(), 0u);
      EXPECT_EQ(w.worker->upstreams_in_use(), stage == kConnecting && w.worker->upstreams_in_use() != 0 ? 1u : 0u)
          << "a connection with half an exchange on it is not used again";
      if (stage >= kConnecting) {
        EXPECT_EQ(w.last().substr(w.last().size() - 2), "DC") << w.last();
        EXPECT_EQ(w.last().substr(0, 1), stage == kHalfResponseBody ? "2" : "0") << w.last();
      }
    }
  }
}

// ---- back-pressure
// ----------------------------------------------------------------------------------------------------------------------------
TEST(Worker, StalledClientStopsTheUpstream) {
  Config config;
  config.routes = {route_to()};
  config.routes[0].timeout_ms = 0;
  World w(config);
  Peer& c = w.connect();
  w.settle();
  c.reading = false;
  w.send(c, get());
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  const std::string body = pattern(8 << 20);
  w.send(u, ok(body));
  w.run(5 * kSecond);
  EXPECT_GT(u.unsent.size(), body.size() / 2) << "the server is held back";
  EXPECT_LT(w.payload.in_use() * 2048ull, 3ull << 20) << "what the worker holds is bounded";
  const size_t held = u.unsent.size();
  w.run(20 * kSecond);
  EXPECT_EQ(u.unsent.size(), held) << "and stays so";
  w.resume(c);
  ASSERT_TRUE(w.run_until([&] { return c.received.size() > body.size() && c.received.ends_with(body.substr(body.size() - 100)); },
                          200 * kSecond));
  EXPECT_TRUE(c.received.substr(c.received.find("\r\n\r\n") + 4) == body);
  EXPECT_EQ(w.last(), "200 -");
}

// What came before the endpoint went is delivered to a client that was not ready for it; whether that is all decides how the
// response ends.
TEST(Worker, UpstreamEndsWhileTheClientIsStuck) {
  for (const bool complete : {true, false}) {
    SCOPED_TRACE(complete ? "complete" : "cut");
    World w;
    Peer& c = w.connect();
    w.settle();
    c.reading = false;
    w.send(c, get());
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    const std::string body = pattern(400'000);
    w.send(u, "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size() + (complete ? 0 : 1)) + "\r\n\r\n" + body);
    w.close(u);
    w.run(kSecond);
    EXPECT_TRUE(w.log().empty()) << "not at its end yet";
    w.resume(c);
    ASSERT_TRUE(w.run_until([&] { return c.received.ends_with(body.substr(body.size() - 100)); }, 10 * kSecond));
    w.run(kSecond);
    EXPECT_TRUE(c.received.substr(c.received.find("\r\n\r\n") + 4) == body);
    EXPECT_EQ(w.last(), complete ? "200 -" : "200 UPE");
    EXPECT_EQ(c.open(), complete);
  }
}

TEST(Worker, StalledServerStopsTheClient) {
  World w;
  Peer& c = w.connect();
  const std::string body = pattern(8 << 20);
  w.send(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  Peer& u = w.upstream();
  u.reading = false;
  w.run(5 * kSecond);
  EXPECT_GT(c.unsent.size(), body.size() / 2);
  EXPECT_LT(w.payload.in_use() * 2048ull, 3ull << 20);
  w.resume(u);
  ASSERT_TRUE(w.run_until(
      [&] { return u.received.size() >= body.size() && u.received.ends_with(body.substr(body.size() - 100)); }, 200 * kSecond));
  EXPECT_TRUE(u.received.substr(u.received.find("\r\n\r\n") + 4) == body);
  w.send(u, ok());
  EXPECT_TRUE(w.wait_for(c, "hello"));
}

// ---- timeouts
// ---------------------------------------------------------------------------------------------------------------------------------
TEST(Worker, TimeoutsAreExact) {
  struct Case {
    std::string name;
    std::function<void(Config&)> edit;
    std::string client_sends, server_sends;
    uint32_t after_ms;
    std::string log, answer;  // "" : the connection just closes
  };
  const std::string half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
  const Case cases[] = {
      {"route timeout", [](Config& c) { c.routes[0].timeout_ms = 700; }, get(), "", 700, "504 UT",
       "\r\n\r\nupstream request timeout"},
      {"route timeout in the body", [](Config& c) { c.routes[0].timeout_ms = 700; }, get(), half, 700, "200 UT", ""},
      {"15 s when not told", [](Config&) {}, get(), "", 15'000, "504 UT", "upstream request timeout"},
      {"idle stream", [](Config& c) { c.hcm = [](auto& h) { h.stream_idle_timeout_ms = 900; }; }, get(), "", 900, "504 SI",
       "stream timeout"},
      {"idle stream of the route", [](Config& c) { c.routes[0].idle_timeout_ms = 400; }, get(), "", 400, "504 SI",
       "stream timeout"},
      {"idle upload", [](Config& c) { c.hcm = [](auto& h) { h.stream_idle_timeout_ms = 900; }; },
       "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", "", 900, "408 SI", "stream timeout"},
      {"slow head", [](Config& c) { c.hcm = [](auto& h) { h.request_headers_timeout_ms = 300; }; }, "GET / HTTP/1.1\r\nho", "",
       300, "408 -", "HTTP/1.1 408"},
      {"slow request", [](Config& c) { c.hcm = [](auto& h) { h.request_timeout_ms = 600; }; },
       "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", "", 600, "408 -", "request timeout"},
      {"longest stream",
       [](Config& c) {
         c.hcm = [](auto& h) { h.max_stream_duration_ms = 800; };
         c.routes[0].timeout_ms = 0;
       },
       get(), "", 800, "504 -", "HTTP/1.1 504"},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    Config config;
    config.routes = {route_to()};
    k.edit(config);
    World w(config);
    Peer& c = w.connect();
    w.settle();
    const base::TimeNs start = w.now;
    w.send(c, k.client_sends);
    if (!k.server_sends.empty()) {
      ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
      w.send(w.upstream(), k.server_sends);
    }
    ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }));
    EXPECT_NEAR(static_cast<double>(w.now - start) / 1e6, k.after_ms, 5.0);
    w.settle();
    EXPECT_EQ(w.last(), k.log);
    EXPECT_NE(c.received.find(k.answer), std::string::npos) << c.received;
    EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
    EXPECT_EQ(w.worker->upstreams_in_use(), 0u) << "its connection is not used again";
  }
}

TEST(Worker, TimeoutsThatDoNotCome) {
  Config config;
  config.routes = {route_to()};
  config.routes[0].timeout_ms = 0;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.stream_idle_timeout_ms = 1'000;
    h.request_headers_timeout_ms = 500;
  };
  World w(config);
  Peer& c = w.connect();
  w.run(3 * kSecond);  // a connection without a request has no header timeout
  w.send(c, get());
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  w.send(u, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
  for (int i = 0; i < 10; ++i) {  // a byte every 0.9 s keeps it from being idle
    w.run(900 * kMillisecond);
    w.send(u, "x");
  }
  ASSERT_TRUE(w.wait_for(c, "\r\n\r\nxxxxxxxxxx"));
  EXPECT_EQ(w.last(), "200 -");
}

TEST(Worker, IdleConnectionsClose) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.idle_timeout_ms = 2'000; };
  config.clusters[0].edit = [](table::Cluster& c) { c.idle_timeout_ms = 1'000; };
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "hello"));
  const base::TimeNs start = w.now;
  ASSERT_TRUE(w.run_until([&] { return w.upstream().fin; }));
  EXPECT_NEAR(static_cast<double>(w.upstream().ended_at - start) / 1e6, 1000, 5);
  ASSERT_TRUE(w.run_until([&] { return c.fin; }));
  EXPECT_NEAR(static_cast<double>(c.ended_at - start) / 1e6, 2000, 5);
  EXPECT_EQ(w.log().size(), 1u) << "an idle end is no request";
}

// ---- tables that change
// ---------------------------------------------------------------------------------------------------------------------
TEST(Worker, TablesSwappedInTheMiddleOfARequest) {
  for (const bool response_started : {false, true}) {
    Config before;
    before.routes = {route_to()};
    before.routes[0].timeout_ms = 5'000;
    before.routes[0].headers_mut.response_add = {{"x-old", "yes"}};
    World w(before);
    Peer& c = w.connect();
    w.send(c, get("/long?way"));
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    if (response_started) w.send(u, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe");
    w.settle();
    Config after;  // another cluster, another policy; every object of before is overwritten
    after.routes = {route_to("d")};
    after.routes[0].timeout_ms = 100;
    after.clusters = {{"d", {{"10.2.0.2", 8001}}, {}}};
    after.hcm = [](table::HttpConnectionManager& h) { h.idle_timeout_ms = 777; };
    w.publish(after);
    w.run(kSecond);  // beyond the new timeout: the old policy holds for this request
    w.send(u, response_started ? "llo" : ok());
    ASSERT_TRUE(w.wait_for(c, "hello"));
    EXPECT_TRUE(has_line(c.received, "x-old: yes"));
    w.settle();
    EXPECT_EQ(w.last(), "200 -");
    EXPECT_EQ(w.log()[0].path, "/long?way");
    EXPECT_EQ(w.worker->upstreams_in_use(), 0u) << "its endpoint is gone: not kept";
    // The same client connection goes on, under the new tables.
    c.received.clear();
    w.send(c, get("/next"));
    Peer& v = w.upstream(1);
    EXPECT_EQ(v.local_port, 8001);
    ASSERT_TRUE(w.wait_for(v, "/next"));
    w.send(v, ok("second"));
    ASSERT_TRUE(w.wait_for(c, "second"));
    EXPECT_EQ(c.received.find("x-old"), std::string::npos);
  }
}

TEST(Worker, DrainedEndpointFinishesItsRequestAndGetsNoMore) {
  Config config;
  config.clusters[0].endpoints = {{"10.2.0.2", 8000}, {"10.2.0.2", 8001}};
  World w(config);
  std::vector<Peer*> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(&w.connect());
    w.send(*clients.back(), get());
    ASSERT_TRUE(w.wait_for(w.upstream(static_cast<size_t>(i)), "\r\n\r\n"));
  }
  ASSERT_NE(w.upstream(0).local_port, w.upstream(1).local_port) << "round robin";
  const size_t drained = w.upstream(0).local_port == 8000 ? 0 : 1;
  config.clusters[0].endpoints[0].state = table::EndpointState::kDraining;
  w.publish(config);
  w.settle();
  EXPECT_TRUE(w.upstream(drained).open()) << "its request goes on";
  for (size_t i = 0; i < 2; ++i) w.send(w.upstream(i), ok());
  for (Peer* c : clients) ASSERT_TRUE(w.wait_for(*c, "hello"));
  w.settle();
  EXPECT_FALSE(w.upstream(drained).open()) << "then it is closed";
  EXPECT_TRUE(w.upstream(1 - drained).open());
  for (size_t i = 0; i < 2; ++i) w.upstream(i).received.clear();  // answered
  w.serve([](const std::string&) { return ok("more"); });
  for (int i = 0; i < 6; ++i) {
    clients[0]->received.clear();
    w.send(*clients[0], get());
    ASSERT_TRUE(w.wait_for(*clients[0], "more"));
  }
  EXPECT_EQ(w.server.peers.size(), 2u) << "all over the other endpoint's connection";
}

TEST(Worker, RemovedListenerDrainsItsConnections) {
  Config config;
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "hello"));
  config.listener = false;
  w.publish(config);
  w.settle();
  EXPECT_TRUE(c.open()) << "an edit closes no connection";
  Peer& late = w.connect();
  ASSERT_TRUE(w.run_until([&] { return late.reset; }, kSecond)) << "nobody listens any more";
  c.received.clear();
  w.send(c, get());
  ASSERT_TRUE(w.run_until([&] { return c.fin; }, 20 * kSecond)) << c.received;
  EXPECT_NE(c.received.find("connection: close"), std::string::npos) << c.received;
}

TEST(Worker, ManySwapsUnderLoad) {
  Config config;
  config.routes = {route_to()};
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  std::vector<Peer*> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(&w.connect());
  size_t asked = 0;
  for (int round = 0; round < 100; ++round) {
    for (Peer* c : clients) w.send(*c, get("/" + std::to_string(round)));
    asked += clients.size();
    for (int i = 0; i < round % 7; ++i) {
      w.turn();
      w.now += 10 * kMicrosecond;
    }
    config.routes[0].name = "r" + std::to_string(round);
    config.routes[0].headers_mut.response_add = {{"x-round", std::to_string(round)}};
    w.publish(config);
  }
  ASSERT_TRUE(w.run_until([&] { return w.log().size() == asked; }, 10 * kSecond));
  for (const LogLine& l : w.log()) EXPECT_EQ(std::to_string(l.status) + " " + l.flags, "200 -");
  for (Peer* c : clients) EXPECT_TRUE(c->open());
  EXPECT_LE(w.server.peers.size(), 8u) << "no connection was lost to an edit";
}

// ---- what runs dry
// -----------------------------------------------------------------------------------------------------------------------------
TEST(Worker, NoExchangeLeft) {
  WorldOptions o;
  o.limits.exchanges = 2;
  World w({}, o);
  std::vector<Peer*> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(&w.connect());
    w.send(*clients.back(), get());
    w.settle();
  }
  EXPECT_NE(clients[2]->received.find("HTTP/1.1 503 Service Unavailable"), std::string::npos);
  EXPECT_NE(clients[2]->received.find("envoy overloaded"), std::string::npos);
  EXPECT_TRUE(clients[2]->fin);
  EXPECT_EQ(w.stats().response_flags[static_cast<uint32_t>(stats::ResponseFlag::kOverloadManager)].read(), 1u);
  for (size_t i = 0; i < 2; ++i) {
    w.send(w.upstream(i), ok());
    EXPECT_TRUE(w.wait_for(*clients[i], "hello")) << "the others are served";
  }
  Peer& next = w.connect();
  w.send(next, get());
  ASSERT_TRUE(w.run_until([&] { return count_of(w.upstream(0).received + w.upstream(1).received, "\r\n\r\n") == 3; }, kSecond))
      << "and later ones again";
}

TEST(Worker, NoHeadBufferLeft) {
  WorldOptions o;
  o.limits.small_heads = 2;
  World w({}, o);
  std::vector<Peer*> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(&w.connect());
    w.send(*clients.back(), "GET / HTTP/1.1\r\n");  // half a head holds a buffer
    w.settle();
  }
  EXPECT_NE(clients[2]->received.find("HTTP/1.1 503"), std::string::npos);
  w.abort(*clients[0]);
  w.settle();
  w.send(*clients[1], "host: a\r\n\r\n");
  ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
  w.send(w.upstream(), ok());
  EXPECT_TRUE(w.wait_for(*clients[1], "hello"));
}

TEST(Worker, HeadsGrowUpToTheirLimit) {
  struct Case {
    size_t bytes;
    bool ok;
  };
  for (const Case& k :
       {Case{2'000, true}, {3'500, true}, {7'000, true}, {20'000, true}, {60'000, true}, {62'000, false}, {200'000, false}}) {
    for (const bool in_response : {false, true}) {
      SCOPED_TRACE(std::to_string(k.bytes) + (in_response ? " bytes of response head" : " bytes of request head"));
      World w;
      std::string fields;
      for (int i = 0; fields.size() + 1000 < k.bytes; ++i)
        fields +=
            "x-" + std::to_string(i) + ": " + pattern(3000).substr(0, std::min<size_t>(3000, k.bytes - fields.size())) + "\r\n";
      Peer& c = w.connect();
      w.send(c, get("/", in_response ? "" : fields));
      if (in_response || k.ok) {
        Peer& u = w.upstream();
        ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
        if (!in_response) {
          EXPECT_NE(u.received.find(fields.substr(0, fields.size() - 2)), std::string::npos);
        }
        w.send(u, "HTTP/1.1 200 OK\r\n" + (in_response ? fields : "") + "content-length: 5\r\n\r\nhello");
      }
      ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }, kSecond));
      w.settle();
      if (k.ok) {
        EXPECT_EQ(w.last(), "200 -");
        if (in_response) {
          EXPECT_NE(c.received.find(fields.substr(0, fields.size() - 2)), std::string::npos);
        }
      } else {
        EXPECT_EQ(w.last(), in_response ? "502 UPE" : "431 DPE");
      }
      EXPECT_EQ(w.worker->heads_in_use(), 0u);
    }
  }
}

TEST(Worker, NoPacketLeftAndThenSome) {
  World w;
  w.serve([](const std::string&) { return ok(pattern(20'000)); });
  std::vector<Peer*> clients;
  for (int i = 0; i < 16; ++i) clients.push_back(&w.connect());
  w.settle();
  w.payload.set_limit(w.payload.in_use() + 4);  // as good as nothing
  for (Peer* c : clients) w.send(*c, get());
  w.run(3 * kSecond);
  w.payload.set_limit(w.payload.capacity());
  ASSERT_TRUE(w.run_until([&] { return w.log().size() >= clients.size(); }, 120 * kSecond)) << w.log().size();
  size_t good = 0;
  for (const LogLine& l : w.log()) good += l.status == 200 && l.flags == "-";
  EXPECT_GT(good, 0u);
  // After the drought everything works.
  Peer& c = w.connect();
  w.send(c, get());
  EXPECT_TRUE(w.wait_for(c, pattern(20'000), 30 * kSecond));
}

// ---- where the cycles go
// ---------------------------------------------------------------------------------------------------------------
TEST(Worker, StagesAreEnteredWhereTheirWorkIsDone) {
  using stats::Stage;
  World w;
  w.account_stages = true;
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  constexpr uint64_t kRequests = 20;
  for (size_t i = 1; i <= kRequests; ++i) {
    w.send(c, get());
    ASSERT_TRUE(w.run_until([&] { return count_of(c.received, "\r\n\r\nhello") == i; })) << i;
  }
  w.send(c, get("/redirect"));
  w.settle();
  const stats::StageBlock& b = w.stages();
  const auto entries = [&](Stage s) { return b.entries[static_cast<uint32_t>(s)].read(); };
  const auto cycles = [&](Stage s) { return b.cycles[static_cast<uint32_t>(s)].read(); };
  EXPECT_EQ(entries(Stage::kRoute), kRequests + 1);
  EXPECT_EQ(entries(Stage::kHttpParse), 2 * kRequests + 2) << "each request's head and each response's";
  EXPECT_EQ(entries(Stage::kHttpWrite), 2 * kRequests + 2);
  EXPECT_EQ(entries(Stage::kFinish), kRequests + 1);
  EXPECT_GE(entries(Stage::kRelay), kRequests + 1);
  EXPECT_GE(entries(Stage::kPacketParse), 2 * kRequests);
  EXPECT_GE(entries(Stage::kTcpInput), 2 * kRequests);
  EXPECT_GE(entries(Stage::kTxBurst), 2 * kRequests);
  EXPECT_EQ(entries(Stage::kTlsRecords) + entries(Stage::kTlsHandshake), 0u);
  EXPECT_EQ(entries(Stage::kLoop), b.turns.read());
  for (const Stage s : {Stage::kPacketParse, Stage::kTcpInput, Stage::kHttpParse, Stage::kRoute, Stage::kUpstream,
                        Stage::kHttpWrite, Stage::kFinish, Stage::kTcpOutput})
    EXPECT_GT(cycles(s), 0u) << stats::info(s).name;
  w.account_stages = false;
  w.send(c, get());
  w.settle();
  EXPECT_EQ(entries(Stage::kFinish), kRequests + 1) << "off is off";
}

}  // namespace
}  // namespace millrace::dataplane::test
