// Connections and requests that last too long, or that somebody keeps alive by as little as possible: what ends them, and that
// the others do not notice. Virtual time, to the millisecond.
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

double since_ms(World& w, base::TimeNs start) { return static_cast<double>(w.now - start) / 1e6; }
TEST(MaxConnectionDuration, IdleConnectionsGoAfterTheDrainTime) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.max_connection_duration_ms = 2'000;
    h.drain_timeout_ms = 500;
  };
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Peer& c = w.connect();
  w.settle();
  const base::TimeNs start = w.now;
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "hello"));
  EXPECT_EQ(c.received.find("connection: close"), std::string::npos);
  ASSERT_TRUE(w.run_until([&] { return c.fin; }));
  EXPECT_NEAR(since_ms(w, start), 2'500, 10);
}

TEST(MaxConnectionDuration, ARequestOnTheWayIsServedAndIsTheLast) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.max_connection_duration_ms = 2'000;
    h.drain_timeout_ms = 5'000;
  };
  World w(config);
  Peer& c = w.connect();
  w.run(1'900 * kMillisecond);
  w.send(c, get("/slow"));
  ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
  w.run(kSecond);
  EXPECT_TRUE(c.open());
  w.send(w.upstream(), ok());
  ASSERT_TRUE(w.run_until([&] { return c.fin; }, kSecond));
  EXPECT_TRUE(has_line(c.received, "connection: close")) << c.received;
  EXPECT_EQ(w.last(), "200 -");
  // ... and so is one that comes while the connection drains.
  Peer& d = w.connect();
  w.run(3 * kSecond);
  EXPECT_TRUE(d.open());
  w.send(d, get("/late"));
  ASSERT_TRUE(w.wait_for(w.upstream(), "/late"));
  w.send(w.upstream(), ok());
  ASSERT_TRUE(w.run_until([&] { return d.fin; }, kSecond));
  EXPECT_TRUE(has_line(d.received, "connection: close")) << d.received;
}

TEST(MaxConnectionDuration, Http2IsDrained) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.max_connection_duration_ms = 2'000;
    h.drain_timeout_ms = 500;
  };
  World w(config);
  Http2Client c(w);
  const base::TimeNs start = w.now;
  ClientStream& s = c.request("GET", "/slow");
  Peer& u = w.upstream();
  ASSERT_TRUE(c.until([&] { return u.received.ends_with("\r\n\r\n"); }));
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }));
  EXPECT_NEAR(since_ms(w, start), 2'000, 10);
  w.send(u, ok());
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 200) << "what was on the way is served";
  ASSERT_TRUE(c.until([&] { return c.peer.fin; }));
  EXPECT_NEAR(since_ms(w, start), 2'500, 10);
}

TEST(IdleTimeout, Http2IsDrainedAndPingsDoNotCount) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.idle_timeout_ms = 3'000;
    h.drain_timeout_ms = 700;
  };
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ASSERT_TRUE(c.finished(s));
  const base::TimeNs start = w.now;
  const std::string ping("\0\0\x08\6\0\0\0\0\0abcdefgh", 17);
  for (int i = 0; i < 5; ++i) {
    w.run(500 * kMillisecond);
    w.send(c.peer, ping);
  }
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }));
  EXPECT_NEAR(since_ms(w, start), 3'000, 10);
  ASSERT_TRUE(c.until([&] { return c.peer.fin; }));
  EXPECT_NEAR(since_ms(w, start), 3'700, 10);
}

// Slowloris: a head that never ends. Envoy's stream idle timeout runs from its first byte, whether or not there is a
// request_headers_timeout, and however often another byte comes.
TEST(Slowloris, AHeadThatNeverEnds) {
  struct Case {
    std::string name;
    uint32_t headers_ms, idle_ms, after_ms;
    std::string log, answer;
  };
  for (const Case& k : {Case{"both", 2'000, 5'000, 2'000, "408 -", "request header timeout"},
                        Case{"idle alone", 0, 3'000, 3'000, "408 SI", "stream timeout"},
                        Case{"idle comes first", 4'000, 3'000, 3'000, "408 SI", "stream timeout"}}) {
    SCOPED_TRACE(k.name);
    Config config;
    config.hcm = [&](table::HttpConnectionManager& h) {
      h.request_headers_timeout_ms = k.headers_ms;
      h.stream_idle_timeout_ms = k.idle_ms;
    };
    World w(config);
    Peer& c = w.connect();
    w.settle();
    const base::TimeNs start = w.now;
    w.send(c, "GET / HTTP/1.1\r\n");
    for (int i = 0; w.log().empty() && i < 100; ++i) {
      w.run(90 * kMillisecond);
      if (w.log().empty()) w.send(c, "x: y\r\n");
    }
    EXPECT_NEAR(static_cast<double>(w.log()[0].duration_ns) / 1e6, k.after_ms, 10.0) << start;
    w.settle();
    EXPECT_EQ(w.last(), k.log);
    EXPECT_NE(c.received.find(k.answer), std::string::npos) << c.received;
  }
}

TEST(Slowloris, AHeadOfHttp2ThatNeverEnds) {
  for (const uint32_t headers_ms : {0u, 2'000u}) {
    Config config;
    config.hcm = [&](table::HttpConnectionManager& h) {
      h.request_headers_timeout_ms = headers_ms;
      h.stream_idle_timeout_ms = 3'000;
    };
    World w(config);
    Peer& c = w.connect();
    w.send(c, std::string(http::kH2Preface) + std::string("\0\0\0\4\0\0\0\0\0", 9));
    w.settle();
    const base::TimeNs start = w.now;
    w.send(c, std::string("\0\0\1\1\0\0\0\0\1\x82", 10));  // HEADERS without END_HEADERS: ":method: GET"
    ASSERT_TRUE(w.run_until([&] { return c.fin || c.reset; }, 20 * kSecond)) << "it cannot be held for ever";
    EXPECT_NEAR(since_ms(w, start), headers_ms != 0 ? headers_ms : 3'000, 1'050);
    EXPECT_EQ(w.worker->heads_in_use(), 0u);
  }
}

// Two hundred of them hold what little their heads take, and a client beside them does not notice.
TEST(Slowloris, ManyCostLittle) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.stream_idle_timeout_ms = 30'000; };
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  std::vector<Peer*> slow;
  for (int i = 0; i < 100; ++i) slow.push_back(&w.connect());
  w.settle();
  for (Peer* p : slow) w.send(*p, "POST / HTTP/1.1\r\nhost: a\r\nx-slow: ");
  w.settle();
  const uint32_t packets = w.payload.in_use();
  for (int i = 0; i < 20; ++i) {
    for (Peer* p : slow) w.send(*p, "y");
    w.settle();
  }
  EXPECT_LE(w.payload.in_use(), packets + 100) << "a packet for each, whatever the number of pieces";
  EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
  Peer& c = w.connect();
  w.send(c, get());
  ASSERT_TRUE(w.wait_for(c, "hello", kSecond));
  ASSERT_TRUE(w.run_until([&] { return std::all_of(slow.begin(), slow.end(), [](Peer* p) { return p->fin; }); }, 40 * kSecond));
  EXPECT_EQ(w.worker->heads_in_use(), 0u);
}

// A client of HTTP/2 that asks and does not read: what was answered does not stay for ever.
TEST(SlowReader, AnswersThatNobodyReadsAreReset) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.stream_idle_timeout_ms = 2'000; };
  World w(config);
  const std::string body = pattern(60'000);
  w.serve([&](const std::string&) { return ok(body); });
  http::H2Options o;
  o.initial_stream_window_size = 65'535;
  o.initial_connection_window_size = 65'535;
  Http2Client c(w, o);
  c.reading = false;
  std::vector<ClientStream*> streams;
  for (int i = 0; i < 8; ++i) streams.push_back(&c.request("GET", "/"));  // together more than the connection's window
  const base::TimeNs start = w.now;
  ASSERT_TRUE(c.until([&] { return w.log().size() == 8; }, 10 * kSecond));
  EXPECT_GT(w.payload.in_use(), 10u);
  ASSERT_TRUE(c.until([&] { return std::all_of(streams.begin(), streams.end(), [](ClientStream* s) { return s->done; }); },
                      20 * kSecond));
  EXPECT_GE(since_ms(w, start), 2'000);
  EXPECT_LE(since_ms(w, start), 4'100);
  EXPECT_TRUE(w.run_until([&] { return w.payload.in_use() == 0; }, kSecond));  // the last delayed ACK has come
  EXPECT_TRUE(c.peer.open()) << "the connection goes on";
}

// A request's body that comes a byte at a time keeps its stream from being idle; request_timeout ends it all the same.
TEST(SlowBody, RequestTimeout) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.request_timeout_ms = 5'000;
    h.stream_idle_timeout_ms = 1'000;
  };
  World w(config);
  Peer& c = w.connect();
  w.settle();
  w.send(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n");
  for (int i = 0; i < 20 && w.log().empty(); ++i) {
    w.run(500 * kMillisecond);
    if (w.log().empty()) w.send(c, "x");
  }
  EXPECT_EQ(w.last(), "408 -");
  EXPECT_NEAR(static_cast<double>(w.log()[0].duration_ns) / 1e6, 5'000, 10.0);
}

TEST(SlowBody, TheAnswerEndsRequestTimeout) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.request_timeout_ms = 2'000; };
  World w(config);
  Peer& c = w.connect();
  w.send(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
  ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
  w.send(w.upstream(), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel");
  w.run(10 * kSecond);
  EXPECT_TRUE(w.log().empty()) << "Envoy: until the response begins";
  w.send(c, "cd");
  w.send(w.upstream(), "lo");
  ASSERT_TRUE(w.wait_for(c, "hello"));
}

// per_connection_buffer_limit_bytes of both sides: what waits for a client that does not read.
TEST(BufferLimits, ASlowReaderHoldsNoMore) {
  const auto held = [](uint32_t limit) {
    Config c;
    c.edit_listener = [limit](table::Listener& l) { l.per_connection_buffer_limit_bytes = limit; };
    c.clusters[0].edit = [limit](table::Cluster& t) { t.per_connection_buffer_limit_bytes = limit; };
    World w(c);
    const std::string body = pattern(2'000'000);
    w.serve([&](const std::string&) { return ok(body); });
    Peer& p = w.connect();
    p.reading = false;
    w.send(p, get());
    w.run(2 * kSecond);
    const uint64_t packets = w.payload.in_use();
    p.received.clear();
    w.resume(p);
    EXPECT_TRUE(w.run_until(
        [&] { return p.received.size() > body.size() && p.received.ends_with(body.substr(body.size() - 100)); }, 60 * kSecond));
    return packets * 1460;
  };
  const uint64_t usual = held(1024 * 1024), small = held(32 * 1024);
  EXPECT_GT(usual, 256u * 1024);
  EXPECT_LT(small, 2u * 32 * 1024 + 32 * 1024);
}

}  // namespace
}  // namespace millrace::dataplane::test
