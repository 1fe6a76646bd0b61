// Clients that speak HTTP/2 to a whole worker in virtual time, endpoints that speak HTTP/1.1.
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

TEST(Http2, GetByPriorKnowledge) {
  World w;
  w.serve([](const std::string& request) {
    EXPECT_EQ(request.substr(0, 24), "GET /cart?x=1 HTTP/1.1\r\n");
    EXPECT_TRUE(has_line(request, "host: a"));
    EXPECT_TRUE(has_line(request, "x-one: 1"));
    EXPECT_TRUE(has_line(request, "x-forwarded-proto: http"));
    EXPECT_EQ(request.find("transfer-encoding"), std::string::npos);
    return ok("hello");
  });
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/cart?x=1", {{"x-one", "1"}});
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.error, H2Error::kNone);
  EXPECT_EQ(s.response.status, 200);
  EXPECT_EQ(s.body, "hello");
  EXPECT_EQ(s.header("server"), "envoy");
  EXPECT_EQ(s.header("content-length"), "5");
  EXPECT_EQ(w.last(), "200 -");
  EXPECT_EQ(w.log()[0].bytes_sent, 5u);
  EXPECT_EQ(w.stats().http[stats::HttpCounter::kHttp2].read(), 1u);
}

TEST(Http2, ThePrefaceInPieces) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Http2Client whole(w);
  ClientStream& s = whole.request("GET", "/");
  ASSERT_TRUE(whole.finished(s));
  for (const size_t cut : {1u, 3u, 16u, 17u, 20u, 23u}) {
    SCOPED_TRACE(cut);
    Peer& p = w.connect();
    w.send(p, http::kH2Preface.substr(0, cut));
    w.settle();
    EXPECT_EQ(p.received, "");
    EXPECT_TRUE(p.open());
    w.send(p, std::string(http::kH2Preface.substr(cut)) + std::string("\0\0\0\4\0\0\0\0\0", 9));
    ASSERT_TRUE(w.run_until([&] { return p.received.size() > 9; }, kSecond));
    EXPECT_EQ(p.received[3], 4) << "a SETTINGS frame comes first";
    w.abort(p);
  }
}

TEST(Http2, OnlyWhereTheCodecAllowsIt) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.codec = table::HttpCodec::kHttp1; };
  World w(config);
  Peer& p = w.connect();
  w.send(p, http::kH2Preface);
  ASSERT_TRUE(w.run_until([&] { return p.received.find("HTTP/1.1 ") == 0; }, kSecond));
  config.hcm = [](table::HttpConnectionManager& h) { h.codec = table::HttpCodec::kHttp2; };
  w.publish(config);
  Peer& q = w.connect();
  w.send(q, get());
  ASSERT_TRUE(w.run_until([&] { return !q.open(); }, 10 * kSecond));
  EXPECT_EQ(q.received.find("HTTP/1.1"), std::string::npos);
}

TEST(Http2, ManyStreamsAtOnce) {
  World w;
  w.serve([](const std::string& request) { return ok(request.substr(4, request.find(' ', 4) - 4)); });
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 50; ++i) all.push_back(&c.request("GET", "/" + std::to_string(i)));
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(all[static_cast<size_t>(i)]->body, "/" + std::to_string(i));
    EXPECT_EQ(all[static_cast<size_t>(i)]->error, H2Error::kNone);
  }
  EXPECT_GT(w.server.peers.size(), 1u) << "HTTP/1.1 upstream: one exchange a connection";
}

TEST(Http2, BodiesBothWays) {
  const std::string big = pattern(600'000);
  for (const bool told : {true, false}) {
    SCOPED_TRACE(told);
    World w;
    std::string seen;
    w.server_script = [&] {
      for (Peer& p : w.server.peers) {
        if (p.received.size() > big.size() && seen.empty() && (told || p.received.find("\r\n0\r\n\r\n") != std::string::npos)) {
          seen = p.received;
          w.send(p, "HTTP/1.1 200 OK\r\n" + (told ? "content-length: " + std::to_string(big.size()) + "\r\n\r\n" + big
                                                  : "transfer-encoding: chunked\r\n\r\n" + [&] {
                                                      std::string chunks;
                                                      char head[32];
                                                      for (size_t at = 0; at < big.size(); at += 5000) {
                                                        const std::string part = big.substr(at, 5000);
                                                        std::snprintf(head, sizeof head, "%zx\r\n", part.size());
                                                        chunks += head + part + "\r\n";
                                                      }
                                                      return chunks + "0\r\n\r\n";
                                                    }()));
        }
      }
    };
    Http2Client c(w);
    std::vector<Header> extra;
    const std::string length = std::to_string(big.size());
    if (told) extra.push_back({"content-length", length, HeaderId::kContentLength});
    ClientStream& s = c.request("POST", "/", extra, false);
    for (size_t at = 0; at < big.size(); at += 50'000) c.body(s, big.substr(at, 50'000), at + 50'000 == big.size());
    ASSERT_TRUE(c.finished(s));
    EXPECT_EQ(s.body, big);
    EXPECT_EQ(s.error, H2Error::kNone);
    if (told) {
      EXPECT_TRUE(has_line(seen.substr(0, 2000), "content-length: " + length));
      EXPECT_EQ(seen.substr(seen.find("\r\n\r\n") + 4), big);
    } else {
      EXPECT_TRUE(has_line(seen.substr(0, 2000), "transfer-encoding: chunked"));
    }
    EXPECT_EQ(w.log()[0].bytes_received, big.size());
    EXPECT_EQ(w.log()[0].bytes_sent, big.size());
  }
}

// The end has come before the head is looked at: the endpoint must be told where the body ends, or it is the next request.
TEST(Http2, ABodyWithoutALengthThatComesWithItsHead) {
  World w;
  Http2Client c(w);
  w.settle();
  ClientStream& s = c.request("POST", "/", {}, false);
  c.body(s, "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n", true);
  ASSERT_TRUE(w.wait_for(w.upstream(), "smuggled"));
  w.settle();
  const std::string& seen = w.upstream().received;
  EXPECT_TRUE(has_line(seen, "transfer-encoding: chunked")) << seen;
  EXPECT_TRUE(seen.ends_with("\r\n\r\n23\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n\r\n0\r\n\r\n")) << seen;
  w.send(w.upstream(), ok());
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(w.log()[0].bytes_received, 35u);
}

TEST(Http2, ASlowReaderHoldsItsOwnStreamOnly) {
  World w;
  const std::string big = pattern(2'000'000);
  w.serve([&](const std::string& request) { return ok(request.starts_with("GET /big") ? big : "small"); });
  http::H2Options o;
  o.initial_stream_window_size = 65535;
  o.initial_connection_window_size = 1 << 20;
  Http2Client c(w, o);
  c.reading = false;
  ClientStream& slow = c.request("GET", "/big");
  w.settle();
  c.until([&] { return slow.rx.bytes() >= 65535; }, kSecond);
  EXPECT_EQ(slow.rx.bytes(), 65535u);
  EXPECT_LT(w.payload.in_use(), 1500u) << "what is not read stays at the endpoint, not in our memory";
  ClientStream& quick = c.request("GET", "/small");
  ASSERT_TRUE(c.until([&] { return quick.done; }, 10 * kSecond));
  EXPECT_EQ(quick.rx.bytes(), 5u);
  c.reading = true;
  c.h2.consumed(slow, slow.rx.bytes());
  slow.body = std::string(slow.rx.bytes(), '?');
  slow.rx.clear();
  ASSERT_TRUE(c.finished(slow));
  EXPECT_EQ(slow.body.size(), big.size());
  EXPECT_EQ(slow.body.substr(65535), big.substr(65535));
}

TEST(Http2, LocalAnswers) {
  Config config;
  config.routes = {route_to("c", "/yes")};
  World w(config);
  Http2Client c(w);
  ClientStream& none = c.request("GET", "/no");
  ASSERT_TRUE(c.finished(none));
  EXPECT_EQ(none.response.status, 404);
  EXPECT_EQ(none.error, H2Error::kNone);
  EXPECT_EQ(w.last(), "404 NR");
  // gRPC is answered in its own terms: trailers-only.
  ClientStream& grpc = c.request("POST", "/no", {{"content-type", "application/grpc", HeaderId::kContentType}}, false);
  ASSERT_TRUE(c.finished(grpc));
  EXPECT_EQ(grpc.response.status, 200);
  EXPECT_EQ(grpc.header("grpc-status"), "12");
  // Answered before the body was complete: the answer whole, then RST_STREAM(NO_ERROR).
  ClientStream& early = c.request("POST", "/no", {}, false);
  ASSERT_TRUE(c.finished(early));
  EXPECT_EQ(early.response.status, 404);
  EXPECT_EQ(early.peer_code, H2Code::kNoError);
  // The connection is as good as before.
  w.serve([](const std::string&) { return ok(); });
  ClientStream& good = c.request("GET", "/yes");
  ASSERT_TRUE(c.finished(good));
  EXPECT_EQ(good.response.status, 200);
}

TEST(Http2, AResetEndsItsExchangeAlone) {
  World w;
  Http2Client c(w);
  ClientStream& left = c.request("GET", "/left");
  ClientStream& stays = c.request("GET", "/stays");
  ASSERT_TRUE(w.run_until([&] { return w.server.peers.size() == 2; }, kSecond));
  c.h2.reset(left, H2Code::kCancel);
  c.step();
  ASSERT_TRUE(c.until([&] { return w.log().size() == 1; }, kSecond));
  EXPECT_EQ(w.last(), "0 DC");
  EXPECT_EQ(w.log()[0].details, "http2.remote_reset");
  for (Peer& p : w.server.peers)
    if (p.received.find("/stays") != std::string::npos) w.send(p, ok());
  ASSERT_TRUE(c.finished(stays));
  EXPECT_EQ(stays.response.status, 200);
}

TEST(Http2, AResetForABrokenProtocolIsLoggedAsThat) {
  World w;
  Http2Client c(w);
  ClientStream& left = c.request("GET", "/left");
  ASSERT_TRUE(w.run_until([&] { return w.server.peers.size() == 1; }, kSecond));
  c.h2.reset(left, H2Code::kProtocolError);
  c.step();
  ASSERT_TRUE(c.until([&] { return w.log().size() == 1; }, kSecond));
  EXPECT_EQ(w.last(), "0 DPE");
  EXPECT_EQ(w.log()[0].details, "http2.remote_reset");
}

// By default the whole connection ends for it, else its stream alone.
TEST(Http2, AMalformedRequestIsCountedAndLogged) {
  for (const bool stream_only : {false, true}) {
    Config config;
    config.hcm = [&](auto& h) { h.http2.override_stream_error_on_invalid_http_message = stream_only; };
    World w(config);
    Peer& p = w.connect();
    // GET http://a/ with a field that RFC 9113 8.2.2 forbids.
    const std::string block(
        "\x82\x86\x84\x41\x01"
        "a\x00\x11transfer-encoding\x07"
        "chunked",
        33);
    w.send(p, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string("\0\0\0\4\0\0\0\0\0", 9) + std::string("\0\0\x21\1\5\0\0\0\1", 9) +
                  block);
    ASSERT_TRUE(w.run_until([&] { return w.log().size() == 1; }, kSecond)) << stream_only;
    EXPECT_EQ(w.last(), "0 DPE");
    EXPECT_EQ(w.log()[0].details, "http2.invalid.header.field");
    EXPECT_EQ(w.log()[0].method, "-");
    EXPECT_TRUE(w.server.peers.empty());
  }
}

TEST(Http2, AnEndpointThatBreaksOffCostsItsStreamAlone) {
  World w;
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  w.send(u, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
  ASSERT_TRUE(c.until([&] { return s.body == "half"; }, kSecond));
  w.close(u);
  ASSERT_TRUE(c.finished(s));
  EXPECT_NE(s.error, H2Error::kNone) << "a body that is cut must not look complete";
  EXPECT_EQ(s.peer_code, H2Code::kInternalError);
  w.serve([](const std::string&) { return ok(); });
  ClientStream& next = c.request("GET", "/");
  ASSERT_TRUE(c.finished(next));
  EXPECT_EQ(next.response.status, 200);
}

TEST(Http2, TimeoutsAnswerTheStream) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.stream_idle_timeout_ms = 3000; };
  World w(config);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 504);
  EXPECT_EQ(w.last(), "504 SI");
}

TEST(Http2, TheIdleConnectionIsToldAndClosed) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) { h.idle_timeout_ms = 5000; };
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ASSERT_TRUE(c.finished(s));
  const base::TimeNs from = w.now;
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }, 60 * kSecond));
  EXPECT_GE(w.now - from, 4900 * kMillisecond);
  EXPECT_LE(w.now - from, 5100 * kMillisecond);
  ASSERT_TRUE(c.until([&] { return !c.peer.open(); }, 10 * kSecond));
  EXPECT_TRUE(c.peer.fin);
}

TEST(Http2, KeepalivePingsEndAConnectionThatIsDead) {
  Config config;
  config.hcm = [](table::HttpConnectionManager& h) {
    h.http2.keepalive_interval_ms = 2000;
    h.http2.keepalive_timeout_ms = 1000;
    h.http2.keepalive_jitter_percent = 0;
  };
  World w(config);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  c.until([] { return false; }, 9 * kSecond);
  EXPECT_EQ(c.h2.counters().pings_rx, 4u);
  EXPECT_FALSE(s.done);
  const base::TimeNs from = w.now;  // from here on the client's codec sees nothing, and says nothing
  ASSERT_TRUE(w.run_until([&] { return !c.peer.open(); }, 60 * kSecond));
  EXPECT_LE(w.now - from, 3100 * kMillisecond);
  EXPECT_EQ(w.last(), "0 DC");
}

TEST(Http2, ARemovedListenerDrainsWithoutAFailedRequest) {
  Config config;
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  Http2Client c(w);
  ClientStream& before = c.request("GET", "/");
  ASSERT_TRUE(c.finished(before));
  config.listener = false;
  w.publish(config);
  ClientStream& last = c.request("GET", "/");
  ASSERT_TRUE(c.finished(last));
  EXPECT_EQ(last.response.status, 200);
  EXPECT_EQ(last.error, H2Error::kNone);
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }, 10 * kSecond));
  ASSERT_TRUE(c.until([&] { return !c.peer.open(); }, 30 * kSecond));
}

TEST(Http2, ABrokenConnectionEndsAllItsStreams) {
  World w;
  Http2Client c(w);
  c.request("GET", "/1");
  c.request("GET", "/2");
  ASSERT_TRUE(w.run_until([&] { return w.server.peers.size() == 2; }, kSecond));
  w.send(c.peer, std::string("\0\0\7\6\0\0\0\0\0", 9) + "1234567");  // a PING of seven bytes
  ASSERT_TRUE(c.until([&] { return w.log().size() == 2; }, 10 * kSecond));
  EXPECT_EQ(w.log()[0].flags, "DPE");
  ASSERT_TRUE(c.until([&] { return c.h2.goaway_received(); }, 10 * kSecond));
  ASSERT_TRUE(c.until([&] { return !c.peer.open(); }, 10 * kSecond));
}

TEST(Http2, ExchangesThatAreSpentRefuseStreamsOnly) {
  WorldOptions o;
  o.limits.exchanges = 4;
  o.limits.small_heads = 64;
  World w({}, o);
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 6; ++i) all.push_back(&c.request("GET", "/"));
  ASSERT_TRUE(c.until([&] { return all[4]->done && all[5]->done; }, 10 * kSecond));
  EXPECT_EQ(all[4]->error, H2Error::kRemoteRefused);
  w.serve([](const std::string&) { return ok(); });
  ASSERT_TRUE(c.until([&] { return all[0]->done && all[3]->done; }, 10 * kSecond));
  EXPECT_EQ(all[0]->response.status, 200);
}

TEST(Http2, TheClientThatGoesLeavesNothing) {
  World w;
  Http2Client c(w);
  for (int i = 0; i < 5; ++i) c.request("POST", "/", {}, false);
  ASSERT_TRUE(w.run_until([&] { return w.server.peers.size() == 5; }, kSecond));
  w.abort(c.peer);
  ASSERT_TRUE(w.run_until([&] { return w.worker->exchanges_in_use() == 0; }, 10 * kSecond));
  EXPECT_EQ(w.log().size(), 5u);
  EXPECT_EQ(w.last(), "0 DC");
}

TEST(Http2, ALargeHead) {
  World w;
  std::string seen;
  w.serve([&](const std::string& request) {
    seen = request;
    return ok();
  });
  Http2Client c(w);
  const std::string value(40'000, 'v');
  ClientStream& s = c.request("GET", "/", {{"x-large", value}});
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 200);
  EXPECT_TRUE(has_line(seen, "x-large: " + value));
}

}  // namespace
}  // namespace millrace::dataplane::test
