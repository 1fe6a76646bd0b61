// Endpoints that speak HTTP/2, to a whole worker in virtual time: pooling, windows, resets, GOAWAY, timeouts. Clients speak
// either.
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

Config http2_config(std::function<void(table::Cluster&)> edit = nullptr) {
  Config c;
  c.clusters[0].edit = [edit](table::Cluster& t) {
    t.http = table::UpstreamHttp::kHttp2;
    if (edit) edit(t);
  };
  return c;
}
TEST(Http2Upstream, ARequestOfHttp1) {
  World w(http2_config());
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (!s.head_complete || s.tx_end) return;
    EXPECT_EQ(s.request.method, "GET");
    EXPECT_EQ(s.request.path, "/cart?x=1");
    EXPECT_EQ(s.request.authority, "a");
    EXPECT_EQ(s.request.scheme, "http");
    EXPECT_EQ(s.header("x-one"), "1");
    EXPECT_EQ(s.header("te"), "trailers");
    EXPECT_EQ(s.header("x-forwarded-proto"), "http");
    for (const char* gone : {"connection", "keep-alive", "proxy-connection", "host", "x-named"})
      EXPECT_EQ(s.header(gone), "-") << gone;
    EXPECT_TRUE(s.rx_end) << "no body: END_STREAM comes with the head";
    e.respond(s, 200, {{"x-two", "2"}}, "hello");
  };
  Peer& p = w.connect();
  w.send(p, get("/cart?x=1", "X-One: 1\r\nTE: gzip, trailers\r\nConnection: keep-alive, x-named, te\r\nX-Named: n\r\n"));
  ASSERT_TRUE(w.wait_for(p, "hello\r\n0\r\n\r\n"));
  EXPECT_TRUE(p.received.starts_with("HTTP/1.1 200 OK\r\n")) << p.received;
  EXPECT_TRUE(has_line(p.received, "x-two: 2"));
  EXPECT_TRUE(has_line(p.received, "transfer-encoding: chunked"));
  EXPECT_EQ(w.last(), "200 -");
  // The connection of either side is used again.
  p.received.clear();
  e.serve();
  w.send(p, get("/two"));
  ASSERT_TRUE(w.wait_for(p, "/two"));
  EXPECT_EQ(w.server.peers.size(), 1u);
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxHttp2Total), 1u);
}

TEST(Http2Upstream, LengthsAreKept) {
  World w(http2_config());
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    EXPECT_EQ(s.header("content-length"), "4");
    EXPECT_EQ(s.body, "body");
    e.respond(s, 200, {{"content-length", "5", HeaderId::kContentLength}}, "hello");
  };
  Peer& p = w.connect();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\nhello"));
  EXPECT_TRUE(has_line(p.received, "content-length: 5"));
  EXPECT_EQ(p.received.find("transfer-encoding"), std::string::npos);
}

struct BodilessCase {
  const char* method;
  uint16_t status;
  bool late_end;  // END_STREAM in a DATA frame of its own
  const char* line;
};
TEST(Http2Upstream, ResponsesWithoutABody) {
  World w(http2_config());
  Http2Endpoint e(w);
  const BodilessCase* now = nullptr;
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    if (!now->late_end) return e.respond(s, now->status);
    e.respond(s, now->status, {}, {}, false);
    e.send(s, {}, true);
  };
  Peer& p = w.connect();
  for (const BodilessCase& c : {BodilessCase{"GET", 204, false, ""},
                                {"GET", 204, true, ""},
                                {"GET", 304, false, ""},
                                {"GET", 304, true, ""},
                                {"HEAD", 200, false, "transfer-encoding: chunked"},
                                {"HEAD", 200, true, "transfer-encoding: chunked"},
                                {"GET", 200, false, "content-length: 0"},
                                {"DELETE", 404, false, "content-length: 0"}}) {
    SCOPED_TRACE(std::string(c.method) + std::to_string(c.status) + (c.late_end ? " late" : ""));
    now = &c;
    p.received.clear();
    w.send(p, std::string(c.method) + " / HTTP/1.1\r\nhost: a\r\n\r\n");
    ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond));
    w.settle();
    EXPECT_TRUE(p.received.ends_with("\r\n\r\n")) << p.received;
    EXPECT_TRUE(p.received.starts_with("HTTP/1.1 " + std::to_string(c.status)));
    EXPECT_TRUE(*c.line == 0 || has_line(p.received, c.line)) << p.received;
    EXPECT_TRUE(p.open());
  }
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Upstream, InterimResponsesAreTakenOut) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("POST", "/", {{"expect", "100-continue", HeaderId::kExpect}}, false);
  ServerStream& at = e.request();
  EXPECT_EQ(at.header("expect"), "-") << "answered by us";
  e.respond(at, 103, {{"link", "</a>"}}, {}, false);
  w.settle();
  c.step();
  EXPECT_FALSE(s.done);
  c.body(s, "x", true);
  ASSERT_TRUE(c.until([&] { return at.rx_end; }, kSecond));
  e.respond(at, 103, {{"link", "</b>"}}, {}, false);
  e.respond(at, 200, {}, "done");
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 200);
  EXPECT_EQ(s.body, "done");
}

TEST(Http2Upstream, StreamsShareAConnection) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 50; ++i) all.push_back(&c.request("GET", "/" + std::to_string(i)));
  ASSERT_TRUE(w.run_until([&] { return e.all().size() == 50; }, 10 * kSecond));
  EXPECT_EQ(w.server.peers.size(), 1u);
  e.serve();
  for (ServerStream* s : e.all()) e.news(*s);
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(all[static_cast<size_t>(i)]->body, "/" + std::to_string(i));
    EXPECT_EQ(all[static_cast<size_t>(i)]->error, H2Error::kNone);
  }
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kRqTotal), 50u);
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kRqActive), 0u);
}

TEST(Http2Upstream, AsManyConnectionsAsStreamsNeed) {
  for (const bool ours : {false, true}) {  // whose limit it is
    SCOPED_TRACE(ours);
    World w(http2_config([&](table::Cluster& t) {
      if (ours) t.http2.max_concurrent_streams = 3;
    }));
    http::H2Options o;
    if (!ours) o.max_concurrent_streams = 3;
    Http2Endpoint e(w, o);
    Http2Client c(w);
    ClientStream& first = c.request("GET", "/first");
    e.request();
    w.settle();
    std::vector<ClientStream*> all{&first};
    for (int i = 0; i < 7; ++i) all.push_back(&c.request("GET", "/" + std::to_string(i)));
    ASSERT_TRUE(w.run_until([&] { return e.all().size() == 8; }, 10 * kSecond));
    EXPECT_EQ(w.server.peers.size(), 3u) << "3 + 3 + 2";
    for (auto& k : e.connections) EXPECT_LE(k->streams.size(), 3u);
    e.serve();
    for (ServerStream* s : e.all()) e.news(*s);
    ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }));
    for (ClientStream* s : all) EXPECT_EQ(s->response.status, 200);
    // The first with room is filled up again; no further connection.
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(c.finished(c.request("GET", "/again")));
    EXPECT_EQ(w.server.peers.size(), 3u);
  }
}

TEST(Http2Upstream, WhatWasOpenedBeforeSettingsAndRefusedIsTriedOnceMore) {
  World w(http2_config());
  http::H2Options o;
  o.max_concurrent_streams = 3;
  Http2Endpoint e(w, o);
  e.serve();
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 8; ++i) all.push_back(&c.request("GET", "/" + std::to_string(i)));
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }));
  for (ClientStream* s : all) EXPECT_EQ(s->response.status, 200);
}

TEST(Http2Upstream, ManyWaitForOneConnection) {
  WorldOptions o;
  o.limits.exchanges = 256;
  o.limits.small_heads = 1024;
  World w(http2_config(), o);
  Http2Endpoint e(w);
  e.serve();
  Http2Client c(w);
  c.until([] { return false; }, kMillisecond);  // our SETTINGS
  std::vector<ClientStream*> all;               // more than may be opened before SETTINGS
  for (int i = 0; i < 200; ++i) all.push_back(&c.request("GET", "/" + std::to_string(i)));
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }));
  for (ClientStream* s : all) ASSERT_EQ(s->response.status, 200);
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Upstream, AnEndpointThatAllowsNoStreamGetsOneConnection) {
  Config config = http2_config();
  config.routes = {route_to()};
  config.routes[0].timeout_ms = 2000;
  World w(config);
  http::H2Options o;
  o.max_concurrent_streams = 0;
  Http2Endpoint e(w, o);
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 40; ++i) all.push_back(&c.request("GET", "/"));
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }, 20 * kSecond));
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Upstream, BodiesAndTrailersBothWays) {
  const std::string big = pattern(700'000);
  World w(http2_config());
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    EXPECT_EQ(s.body, big);
    EXPECT_TRUE(s.trailers_complete);
    EXPECT_EQ(s.trailers.size(), 1u);
    EXPECT_EQ(s.trailers[0].value, "of the request");
    e.respond(s, 200, {}, big, true, {{"x-end", "of the response"}, {"grpc-status", "0", HeaderId::kGrpcStatus}});
  };
  Http2Client c(w);
  ClientStream& s = c.request("POST", "/", {}, false);
  for (size_t at = 0; at < big.size(); at += 50'000) c.body(s, big.substr(at, 50'000), false);
  Header fields[2];
  http::HeaderTable trailers(fields, 2);
  trailers.push({"x-end", "of the request"});
  s.tx_trailers = &trailers;
  c.body(s, "", true);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.error, H2Error::kNone);
  EXPECT_EQ(s.body, big);
  ASSERT_TRUE(s.trailers_complete);
  EXPECT_EQ(s.trailers.find("x-end")->value, "of the response");
  EXPECT_EQ(s.trailers.get(HeaderId::kGrpcStatus), "0");
  EXPECT_EQ(w.log()[0].bytes_received, big.size());
  EXPECT_EQ(w.log()[0].bytes_sent, big.size());
}

TEST(Http2Upstream, TrailersOfHttp1) {
  Config config = http2_config();
  config.hcm = [](table::HttpConnectionManager& h) { h.enable_trailers = 1; };
  World w(config);
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    EXPECT_EQ(s.body, "abc");
    EXPECT_TRUE(s.trailers_complete);
    EXPECT_EQ(s.trailers.size(), 1u);
    e.respond(s, 200, {}, "xyz", true, {{"x-end", "v"}});
  };
  Peer& p = w.connect();
  w.send(p, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n");
  ASSERT_TRUE(w.wait_for(p, "0\r\nx-end: v\r\n\r\n"));
  // Without the option they are dropped, and the message ends in order.
  config.hcm = nullptr;
  w.publish(config);
  e.news = [&](ServerStream& s) {
    if (s.rx_end && !s.tx_end) e.respond(s, 200, {}, "xyz", true, {{"x-end", "v"}});
  };
  Peer& q = w.connect();
  w.send(q, get());
  ASSERT_TRUE(w.wait_for(q, "xyz\r\n0\r\n\r\n"));
}

TEST(Http2Upstream, ASlowReaderHoldsItsOwnStreamOnly) {
  World w(http2_config([](table::Cluster& t) {
    t.http2.initial_stream_window_size = 65535;
    t.http2.initial_connection_window_size = 1 << 20;
  }));
  const std::string big = pattern(2'000'000);
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (s.rx_end && !s.tx_end) e.respond(s, 200, {}, s.request.path == "/big" ? std::string_view(big) : "small");
  };
  http::H2Options o;
  o.initial_stream_window_size = 65535;
  Http2Client c(w, o);
  c.reading = false;
  ClientStream& slow = c.request("GET", "/big");
  c.until([&] { return slow.rx.bytes() >= 65535; }, kSecond);
  w.run(100 * kMillisecond);
  EXPECT_LT(w.payload.in_use(), 600u) << "two windows and a buffer, not the body";
  c.reading = true;
  ClientStream& quick = c.request("GET", "/small");
  ASSERT_TRUE(c.until([&] { return quick.done; }, 10 * kSecond));
  c.h2.consumed(slow, slow.rx.bytes());
  slow.body = std::string(slow.rx.bytes(), '?');
  slow.rx.clear();
  ASSERT_TRUE(c.finished(slow));
  EXPECT_EQ(slow.body.size(), big.size());
  EXPECT_EQ(slow.body.substr(65535), big.substr(65535));
}

TEST(Http2Upstream, ASlowEndpointStopsItsClientOnly) {
  World w(http2_config());
  http::H2Options o;
  o.initial_stream_window_size = 65535;
  Http2Endpoint e(w, o);
  e.reading = false;
  Config config = http2_config();
  config.hcm = [](table::HttpConnectionManager& h) {
    h.http2.initial_stream_window_size = 65535;
    h.http2.initial_connection_window_size = 1 << 20;
  };
  w.publish(config);
  const std::string big = pattern(1'000'000);
  Http2Client c(w);
  ClientStream& slow = c.request("POST", "/slow", {}, false);
  for (size_t at = 0; at < big.size(); at += 50'000) c.body(slow, big.substr(at, 50'000), at + 50'000 == big.size());
  c.until([] { return false; }, 100 * kMillisecond);
  EXPECT_GT(slow.tx.bytes(), 700'000u) << "what the endpoint does not read stays with the client";
  EXPECT_LT(w.payload.in_use(), 600u);
  e.reading = true;
  e.serve();
  for (ServerStream* s : e.all()) {
    const uint64_t n = s->rx.bytes();
    s->body += std::string(n, '?');
    s->rx.clear();
    e.of(*s).consumed(*s, n);
  }
  ASSERT_TRUE(c.finished(slow));
  EXPECT_EQ(slow.response.status, 200);
  EXPECT_EQ(e.all()[0]->body.size(), big.size());
}

TEST(Http2Upstream, AClientThatLeavesResetsItsStreamAlone) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& left = c.request("GET", "/left");
  ClientStream& stays = c.request("GET", "/stays");
  ASSERT_TRUE(w.run_until([&] { return e.all().size() == 2; }, kSecond));
  c.h2.reset(left, H2Code::kCancel);
  c.step();
  ASSERT_TRUE(c.until([&] { return e.all()[0]->over; }, kSecond));
  EXPECT_EQ(e.all()[0]->peer_code, H2Code::kCancel);
  EXPECT_EQ(w.last(), "0 DC");
  e.respond(*e.all()[1], 200, {}, "x");
  ASSERT_TRUE(c.finished(stays));
  EXPECT_EQ(stays.body, "x");
  EXPECT_EQ(w.server.peers.size(), 1u);
}

struct ResetCase {
  const char* name;
  H2Code code;
  bool started;
  const char *last, *details;
};
class Http2UpstreamReset : public ::testing::TestWithParam<ResetCase> {};
TEST_P(Http2UpstreamReset, IsTheStreamsAlone) {
  const ResetCase& k = GetParam();
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  e.serve();
  ASSERT_TRUE(c.finished(c.request("GET", "/first")));
  e.news = nullptr;
  ClientStream& s = c.request("GET", "/");
  ServerStream& at = e.request(1);
  if (k.started) {
    e.respond(at, 200, {}, "half", false);
    ASSERT_TRUE(c.until([&] { return s.body == "half"; }, kSecond));
  }
  e.reset(at, k.code);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(w.last(), k.last);
  EXPECT_EQ(w.log()[1].details, k.details);
  EXPECT_EQ(s.error != H2Error::kNone, k.started) << "a body that is cut must not look complete";
  EXPECT_EQ(s.response.status, std::stoi(k.last));
  e.serve();
  ClientStream& next = c.request("GET", "/next");
  ASSERT_TRUE(c.finished(next));
  EXPECT_EQ(next.body, "/next");
  EXPECT_EQ(w.server.peers.size(), 1u);
}
INSTANTIATE_TEST_SUITE_P(Table, Http2UpstreamReset,
                         ::testing::Values(ResetCase{"Cancel", H2Code::kCancel, false, "503 UR",
                                                     "upstream_reset_before_response_started{remote_reset}"},
                                           ResetCase{"InternalError", H2Code::kInternalError, false, "503 UR",
                                                     "upstream_reset_before_response_started{remote_reset}"},
                                           ResetCase{"Refused", H2Code::kRefusedStream, false, "503 UR",
                                                     "upstream_reset_before_response_started{remote_refused_stream_reset}"},
                                           // Envoy: as if the endpoint had broken it itself
                                           ResetCase{"ProtocolError", H2Code::kProtocolError, false, "502 UPE",
                                                     "upstream_reset_before_response_started{protocol_error}"},
                                           ResetCase{"InTheBody", H2Code::kCancel, true, "200 UR",
                                                     "upstream_reset_after_response_started{remote_reset}"}),
                         [](const auto& p) { return std::string(p.param.name); });

TEST(Http2Upstream, ACutBodyForHttp1EndsWithoutItsLastChunk) {
  World w(http2_config());
  Http2Endpoint e(w);
  Peer& p = w.connect();
  w.send(p, get());
  ServerStream& s = e.request();
  e.respond(s, 200, {}, "half", false);
  ASSERT_TRUE(w.wait_for(p, "half", kSecond));
  e.reset(s, H2Code::kInternalError);
  ASSERT_TRUE(w.run_until([&] { return !p.open(); }, 10 * kSecond));
  EXPECT_EQ(p.received.find("0\r\n\r\n"), std::string::npos);
}

TEST(Http2Upstream, AnEndpointThatClosesCostsItsOpenStreams) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& none = c.request("GET", "/none");
  ClientStream& half = c.request("GET", "/half");
  ClientStream& whole = c.request("GET", "/whole");
  ASSERT_TRUE(w.run_until([&] { return e.all().size() == 3; }, kSecond));
  c.reading = false;  // the whole one is still on its way through us when the endpoint goes
  e.respond(*e.all()[1], 200, {}, "half", false);
  e.respond(*e.all()[2], 200, {}, std::string(60'000, 'w'));
  w.settle();
  w.close(w.server.peers[0]);
  ASSERT_TRUE(c.until([&] { return none.done; }, 10 * kSecond));
  c.reading = true;
  for (ClientStream* s : {&half, &whole}) {
    c.h2.consumed(*s, s->rx.bytes());
    s->body = std::string(s->rx.bytes(), '?');
    s->rx.clear();
  }
  ASSERT_TRUE(c.finished(half));
  ASSERT_TRUE(c.finished(whole));
  EXPECT_EQ(none.response.status, 503);
  EXPECT_NE(half.error, H2Error::kNone);
  EXPECT_EQ(whole.error, H2Error::kNone);
  EXPECT_EQ(whole.body.size(), 60'000u);
  int terminated = 0;
  for (const LogLine& l : w.log()) terminated += l.flags == "UC";
  EXPECT_EQ(terminated, 2);
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxDestroyRemoteActiveRq), 1u);
}

TEST(Http2Upstream, AnEndpointThatSpeaksSomethingElse) {
  World w(http2_config());
  Peer& p = w.connect();
  w.send(p, get());
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, http::kH2Preface, kSecond));
  w.send(u, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
  ASSERT_TRUE(w.wait_for(p, "\r\n\r\n", kSecond));
  EXPECT_EQ(w.last(), "502 UPE");
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxProtocolError), 1u);
  ASSERT_TRUE(w.run_until([&] { return !u.open(); }, 10 * kSecond));
}

TEST(Http2Upstream, RefusedConnectionsFailThoseWhoWait) {
  Config config = http2_config();
  config.clusters[0].endpoints[0].port = 9;
  World w(config);
  Http2Client c(w);
  std::vector<ClientStream*> all;
  for (int i = 0; i < 5; ++i) all.push_back(&c.request("GET", "/"));
  ASSERT_TRUE(c.until([&] { return std::all_of(all.begin(), all.end(), [](auto* s) { return s->done; }); }, 10 * kSecond));
  for (const LogLine& l : w.log()) EXPECT_EQ(std::to_string(l.status) + l.flags, "503UF");
}

TEST(Http2Upstream, WhatGoawayLeavesOutIsTriedOnceMore) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& served = c.request("GET", "/served");
  e.request();
  e.speaking = false;
  ClientStream& missed = c.request("GET", "/missed");
  ClientStream& body = c.request("POST", "/body", {}, false);
  c.body(body, "gone", false);
  ASSERT_TRUE(w.run_until([&] { return e.all().size() == 3; }, kSecond));
  // GOAWAY with the first stream's id.
  w.send(w.server.peers[0], std::string("\0\0\x8\7\0\0\0\0\0", 9) + std::string("\0\0\0\1\0\0\0\0", 8));
  ASSERT_TRUE(w.run_until([&] { return w.server.peers.size() == 2; }, kSecond));
  e.speaking = true;
  ServerStream& again = e.request(3);
  EXPECT_EQ(again.request.path, "/missed");
  EXPECT_EQ(again.connection, 1u);
  e.respond(again, 200, {}, "second");
  e.respond(*e.all()[0], 200, {}, "first");
  ASSERT_TRUE(c.finished(missed));
  ASSERT_TRUE(c.finished(served));
  EXPECT_EQ(missed.body, "second");
  EXPECT_EQ(served.body, "first");
  // A request whose body is gone cannot be told again.
  ASSERT_TRUE(c.finished(body));
  EXPECT_EQ(body.response.status, 503);
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers[0].open(); }, 10 * kSecond)) << "its last stream is over";
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kRqRetry), 1u);
}

TEST(Http2Upstream, WhoeverIsLeftOutTwiceGivesUp) {
  World w(http2_config());
  Http2Endpoint e(w);
  e.speaking = false;
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  const std::string nothing = std::string("\0\0\0\4\0\0\0\0\0", 9) + std::string("\0\0\x8\7\0\0\0\0\0", 9) + std::string(8, '\0');
  for (size_t i = 0; i < 2; ++i) {
    e.request(i);
    w.send(w.server.peers[i], nothing);
  }
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(w.last(), "503 UR");
  EXPECT_EQ(w.server.peers.size(), 2u);
}

TEST(Http2Upstream, GracefulGoawayMovesNewRequests) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& old = c.request("GET", "/old");
  ServerStream& at = e.request();
  e.connections[0]->h2.notice();
  w.settle();
  ClientStream& fresh = c.request("GET", "/fresh");
  ServerStream& second = e.request(1);
  EXPECT_EQ(second.connection, 1u);
  e.respond(second, 200, {}, "b");
  e.respond(at, 200, {}, "a");
  ASSERT_TRUE(c.finished(old));
  ASSERT_TRUE(c.finished(fresh));
  EXPECT_EQ(old.body + fresh.body, "ab");
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers[0].open(); }, 10 * kSecond));
  EXPECT_TRUE(w.server.peers[1].open());
}

TEST(Http2Upstream, MaxRequestsPerConnection) {
  World w(http2_config([](table::Cluster& t) { t.max_requests_per_connection = 2; }));
  Http2Endpoint e(w);
  e.serve();
  Http2Client c(w);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(c.finished(c.request("GET", "/")));
  w.run(kSecond);
  EXPECT_EQ(w.server.peers.size(), 3u);
  EXPECT_FALSE(w.server.peers[0].open());
  EXPECT_FALSE(w.server.peers[1].open());
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxMaxRequests), 2u);
}

TEST(Http2Upstream, TheIdleConnectionIsClosed) {
  World w(http2_config([](table::Cluster& t) { t.idle_timeout_ms = 5000; }));
  Http2Endpoint e(w);
  e.serve();
  Http2Client c(w);
  ASSERT_TRUE(c.finished(c.request("GET", "/")));
  const base::TimeNs from = w.now;
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers[0].open(); }, 60 * kSecond));
  EXPECT_GE(w.now - from, 4900 * kMillisecond);
  EXPECT_LE(w.now - from, 5100 * kMillisecond);
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxIdleTimeout), 1u);
  // A long stream is not idle.
  ClientStream& s = c.request("GET", "/long");
  e.news = nullptr;
  w.run(20 * kSecond);
  EXPECT_FALSE(s.done);
  EXPECT_TRUE(w.server.peers[1].open());
}

TEST(Http2Upstream, KeepalivePings) {
  World w(http2_config([](table::Cluster& t) {
    t.http2.keepalive_interval_ms = 2000;
    t.http2.keepalive_timeout_ms = 1000;
    t.http2.keepalive_jitter_percent = 0;
  }));
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  e.request();
  c.until([] { return false; }, 9 * kSecond);
  EXPECT_EQ(e.connections[0]->h2.counters().pings_rx, 4u);
  EXPECT_FALSE(s.done);
  e.speaking = false;  // no answer any more
  const base::TimeNs from = w.now;
  ASSERT_TRUE(c.finished(s));
  EXPECT_LE(w.now - from, 3100 * kMillisecond);
  EXPECT_EQ(w.last(), "503 UC");
  EXPECT_EQ(w.cluster_count(stats::ClusterCounter::kCxKeepaliveTimeout), 1u);
  EXPECT_TRUE(w.server.peers[0].reset);
}

TEST(Http2Upstream, AnOldSilenceIsProbedBeforeAStream) {
  World w(http2_config([](table::Cluster& t) {
    t.http2.keepalive_timeout_ms = 1000;
    t.http2.keepalive_idle_interval_ms = 5000;
  }));
  Http2Endpoint e(w);
  e.serve();
  Http2Client c(w);
  ASSERT_TRUE(c.finished(c.request("GET", "/")));
  ASSERT_TRUE(c.finished(c.request("GET", "/")));
  EXPECT_EQ(e.connections[0]->h2.counters().pings_rx, 0u);
  w.run(6 * kSecond);
  ASSERT_TRUE(c.finished(c.request("GET", "/")));
  EXPECT_EQ(e.connections[0]->h2.counters().pings_rx, 1u);
}

TEST(Http2Upstream, CircuitBreakersCountStreams) {
  World w(http2_config([](table::Cluster& t) { t.max_requests = 3; }));
  Http2Endpoint e(w);
  Http2Client c(w);
  std::vector<ClientStream*> all;
  ClientStream& first = c.request("GET", "/");
  e.request();
  for (int i = 0; i < 4; ++i) all.push_back(&c.request("GET", "/"));
  ASSERT_TRUE(c.until([&] { return all[2]->done && all[3]->done; }, kSecond));
  EXPECT_EQ(all[2]->response.status, 503);
  EXPECT_EQ(all[3]->header("x-envoy-overloaded"), "true");
  EXPECT_EQ(w.last(), "503 UO");
  EXPECT_FALSE(first.done || all[0]->done || all[1]->done);
}

TEST(Http2Upstream, AnAnswerBeforeTheEndOfTheRequest) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("POST", "/", {}, false);
  c.body(s, "part", false);
  ServerStream& at = e.request();
  e.respond(at, 413, {}, "enough");
  ASSERT_TRUE(c.until([&] { return at.tx_ended; }, kSecond));
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 413);
  EXPECT_EQ(s.body, "enough");
  ASSERT_TRUE(c.until([&] { return at.over; }, kSecond)) << "what remains of the request is not sent";
  e.serve();
  ClientStream& next = c.request("GET", "/next");
  ASSERT_TRUE(c.finished(next));
  EXPECT_EQ(next.body, "/next");
}

TEST(Http2Upstream, AResetWithNoErrorBehindACompleteAnswer) {
  World w(http2_config());
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("POST", "/", {}, false);
  ServerStream& at = e.request();
  e.respond(at, 200, {}, std::string(30'000, 'r'));
  e.step();
  e.reset(at, H2Code::kNoError);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 200);
  EXPECT_EQ(s.body.size(), 30'000u);
  EXPECT_EQ(w.last(), "200 -");
}

TEST(Http2Upstream, TheRoutesTimeoutResetsTheStream) {
  Config config = http2_config();
  config.routes = {route_to()};
  config.routes[0].timeout_ms = 1500;
  World w(config);
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ServerStream& at = e.request();
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 504);
  EXPECT_EQ(w.last(), "504 UT");
  ASSERT_TRUE(w.run_until([&] { return at.over; }, kSecond));
  EXPECT_EQ(at.peer_code, H2Code::kCancel);
}

TEST(Http2Upstream, AsTheClientSpeaks) {
  Config config;
  config.clusters[0].edit = [](table::Cluster& t) { t.http = table::UpstreamHttp::kAsDownstream; };
  World w(config);
  Peer& p = w.connect();
  w.send(p, get("/one"));
  ASSERT_TRUE(w.wait_for(w.upstream(0), "GET /one HTTP/1.1\r\n", kSecond));
  w.send(w.upstream(0), ok("of 1.1"));
  ASSERT_TRUE(w.wait_for(p, "of 1.1", kSecond));
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/two");
  ASSERT_TRUE(w.wait_for(w.upstream(1), http::kH2Preface, kSecond));
  EXPECT_FALSE(s.done);
}

TEST(Http2Upstream, ARemovedEndpointDrains) {
  Config config = http2_config();
  World w(config);
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ServerStream& at = e.request();
  config.clusters[0].endpoints[0].port = 8001;
  w.publish(config);
  w.run(10 * kMillisecond);
  EXPECT_TRUE(w.server.peers[0].open());
  e.respond(at, 200, {}, "whole");
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.body, "whole");
  ASSERT_TRUE(w.run_until([&] { return !w.server.peers[0].open(); }, 10 * kSecond));
}

TEST(Http2Upstream, ALargeHeadBothWays) {
  World w(http2_config());
  Http2Endpoint e(w);
  const std::string value(12'000, 'v');
  e.news = [&](ServerStream& s) {
    if (!s.rx_end || s.tx_end) return;
    EXPECT_EQ(s.header("x-large"), value);
    e.respond(s, 200, {{"x-large", value}}, "x");
  };
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/", {{"x-large", value}});
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.header("x-large"), value);
}

TEST(Http2Upstream, AHeadBeyondTheLimitIsTheStreamsEnd) {
  World w(http2_config([](table::Cluster& t) { t.max_response_headers_count = 10; }));
  Http2Endpoint e(w);
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  std::vector<std::string> names;
  std::vector<Header> many;
  for (int i = 0; i < 12; ++i) names.push_back("x-" + std::to_string(i));
  for (const std::string& n : names) many.push_back({n, "v"});
  e.respond(e.request(), 200, many, "x");
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(w.last(), "502 UPE");
  e.serve();
  ASSERT_TRUE(c.finished(c.request("GET", "/")));
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Upstream, WithoutMemoryForHeads) {
  WorldOptions o;
  o.limits.small_heads = 1;
  World w(http2_config(), o);
  Http2Endpoint e(w);
  e.serve();
  Http2Client c(w);
  ClientStream& s = c.request("GET", "/");
  ASSERT_TRUE(c.finished(s));
  EXPECT_NE(s.error, H2Error::kNone) << "not even a 503 has a place";
}

TEST(Http2Upstream, ShortMemoryStopsTheReadingOfWhatNobodyTakes) {
  WorldOptions o;
  o.payload_packets = 2048;
  World w(http2_config(), o);
  const std::string big = pattern(3'000'000);
  Http2Endpoint e(w);
  e.news = [&](ServerStream& s) {
    if (s.rx_end && !s.tx_end) e.respond(s, 200, {}, big);
  };
  http::H2Options narrow;
  narrow.initial_stream_window_size = 65535;
  Http2Client c(w, narrow);
  c.reading = false;
  ClientStream& s = c.request("GET", "/");
  c.until([] { return false; }, 500 * kMillisecond);
  EXPECT_LT(w.payload.in_use(), 1950u) << "the endpoint may send 16 MiB, but we do not read them";
  c.reading = true;
  c.h2.consumed(s, s.rx.bytes());
  s.body = std::string(s.rx.bytes(), '?');
  s.rx.clear();
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.body.size(), big.size());
  EXPECT_EQ(s.body.substr(65535), big.substr(65535));
}

}  // namespace
}  // namespace millrace::dataplane::test
