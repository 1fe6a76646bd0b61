// Upgrades and CONNECT to endpoints of HTTP/2: extended CONNECT (RFC 8441), from clients of HTTP/1.1 and of HTTP/2.
#include "lib/http/websocket.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

constexpr std::string_view kKey = "dGhlIHNhbXBsZSBub25jZQ==", kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const std::string kUpgrade =
    "GET /chat?x=1 HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: " + std::string(kKey) +
    "\r\nsec-websocket-version: 13\r\n\r\n";

Config tunnels() {
  Config c;
  route::RouteSpec r = route_to();
  r.path_kind = table::PathKind::kConnect;
  r.path.clear();
  r.upgrades = {{"CONNECT", true, false, false}};
  c.routes = {r, route_to()};
  c.upgrades = "websocket,foo";
  c.hcm = [](table::HttpConnectionManager& h) { h.http2.allow_connect = 1; };
  c.clusters[0].edit = [](table::Cluster& t) { t.http = table::UpstreamHttp::kHttp2; };
  return c;
}
http::H2Options allowing() {
  http::H2Options o;
  o.allow_connect = true;
  return o;
}
std::string body_of(const Peer& p) {
  const size_t end = p.received.find("\r\n\r\n");
  return end == std::string::npos ? "no head" : p.received.substr(end + 4);
}

TEST(Http2Tunnel, WebSocketOfHttp1) {
  World w(tunnels());
  Http2Endpoint e(w, allowing());
  Peer& c = w.connect();
  w.send(c, kUpgrade + "not yet");
  ServerStream& s = e.request();
  EXPECT_EQ(s.request.method, "CONNECT");
  EXPECT_EQ(s.protocol, "websocket");
  EXPECT_EQ(s.request.path, "/chat?x=1");
  EXPECT_EQ(s.request.scheme, "http");
  EXPECT_EQ(s.header("sec-websocket-version"), "13");
  for (const char* gone : {"connection", "upgrade"}) EXPECT_EQ(s.header(gone), "-") << gone;
  w.settle();
  EXPECT_EQ(s.body, "") << "the endpoint has not agreed";
  e.respond(s, 200, {{"sec-websocket-protocol", "chat"}}, "early", false);
  ASSERT_TRUE(w.wait_for(c, "early"));
  EXPECT_EQ(c.received.substr(0, 34), "HTTP/1.1 101 Switching Protocols\r\n");
  const std::string accept = "sec-websocket-accept: " + std::string(kAccept);
  for (const char* line : {"connection: Upgrade", "upgrade: websocket", accept.c_str(), "sec-websocket-protocol: chat"})
    EXPECT_TRUE(has_line(c.received, line)) << line << "\n" << c.received;
  EXPECT_EQ(c.received.find("transfer-encoding"), std::string::npos);
  const std::string up = pattern(200'000), down = pattern(300'000);
  w.send(c, up);
  e.send(s, down, false);
  ASSERT_TRUE(w.run_until([&] { return s.body.size() == up.size() + 7 && body_of(c).size() == down.size() + 5; }));
  EXPECT_TRUE(s.body == "not yet" + up);
  EXPECT_TRUE(body_of(c) == "early" + down);
  EXPECT_TRUE(w.log().empty());
  w.close(c);
  ASSERT_TRUE(w.run_until([&] { return s.rx_end; }));
  EXPECT_TRUE(c.open()) << "one direction is over, the other is not";
  e.send(s, "last words", true);
  ASSERT_TRUE(w.run_until([&] { return c.fin && !w.log().empty(); }));
  EXPECT_TRUE(c.received.ends_with("last words"));
  EXPECT_EQ(w.last(), "101 -");
  EXPECT_EQ(w.log()[0].bytes_received, up.size() + 7);
  EXPECT_EQ(w.log()[0].bytes_sent, down.size() + 15);
  EXPECT_EQ(s.error, H2Error::kNone) << "the stream ends in order";
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Tunnel, TheEndpointMayEndFirst) {
  World w(tunnels());
  Http2Endpoint e(w, allowing());
  Peer& c = w.connect();
  w.send(c, kUpgrade);
  ServerStream& s = e.request();
  e.respond(s, 200, {}, "bye");
  ASSERT_TRUE(w.run_until([&] { return c.fin; }));
  EXPECT_EQ(body_of(c), "bye");
  w.send(c, "and still");
  ASSERT_TRUE(w.run_until([&] { return s.body == "and still"; }));
  EXPECT_TRUE(w.log().empty());
  w.close(c);
  ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }));
  EXPECT_EQ(w.last(), "101 -");
  ASSERT_TRUE(w.run_until([&] { return s.over; }));
  EXPECT_EQ(s.error, H2Error::kNone);
}

TEST(Http2Tunnel, FromStreamToStreamOnOneConnection) {
  World w(tunnels());
  Http2Endpoint e(w, allowing());
  Http2Client c(w);
  ClientStream& s = c.request("CONNECT", "/chat", {}, false, "websocket");
  ASSERT_TRUE(c.until([&] { return e.all().size() == 1; }));
  ServerStream& at = *e.all()[0];
  EXPECT_EQ(at.protocol, "websocket");
  EXPECT_EQ(at.header("sec-websocket-key"), "-") << "there is none on streams";
  e.respond(at, 200, {}, "hello", false);
  ASSERT_TRUE(c.until([&] { return s.body == "hello"; }));
  EXPECT_EQ(s.response.status, 200);
  for (const char* gone : {"connection", "upgrade", "sec-websocket-accept"}) EXPECT_EQ(s.header(gone), "-") << gone;
  ClientStream& beside = c.request("GET", "/beside");
  ASSERT_TRUE(c.until([&] { return e.all().size() == 2; }));
  e.respond(*e.all()[1], 200, {}, "ordinary");
  ASSERT_TRUE(c.finished(beside));
  EXPECT_EQ(beside.body, "ordinary");
  c.body(s, "up", true);
  ASSERT_TRUE(c.until([&] { return at.rx_end; }));
  EXPECT_EQ(at.body, "up");
  e.send(at, " bye", true);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.body, "hello bye");
  EXPECT_EQ(s.error, H2Error::kNone);
  EXPECT_EQ(w.last(), "101 -");
  EXPECT_EQ(w.server.peers.size(), 1u);
}

TEST(Http2Tunnel, Connect) {
  World w(tunnels());
  Http2Endpoint e(w);  // plain CONNECT needs nobody's SETTINGS
  Peer& c = w.connect();
  w.send(c, "CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n");
  ServerStream& s = e.request();
  EXPECT_EQ(s.request.method, "CONNECT");
  EXPECT_EQ(s.protocol, "");
  EXPECT_EQ(s.request.authority, "db.test:5432");
  EXPECT_EQ(s.request.path, "");
  e.respond(s, 200, {}, "hello", false);
  ASSERT_TRUE(w.wait_for(c, "hello"));
  EXPECT_EQ(c.received.substr(0, 15), "HTTP/1.1 200 OK");
  w.send(c, "select 1");
  ASSERT_TRUE(w.run_until([&] { return s.body == "select 1"; }));
  e.reset(s, H2Code::kConnectError);
  ASSERT_TRUE(w.run_until([&] { return c.reset && !w.log().empty(); })) << "a reset is passed on";
  EXPECT_EQ(w.last(), "200 UR");
}

TEST(Http2Tunnel, AClientThatResetsEndsTheStream) {
  World w(tunnels());
  Http2Endpoint e(w, allowing());
  Peer& c = w.connect();
  w.send(c, kUpgrade);
  ServerStream& s = e.request();
  e.respond(s, 200, {}, "x", false);
  ASSERT_TRUE(w.wait_for(c, "x"));
  w.client.abort(c, w.now);
  ASSERT_TRUE(w.run_until([&] { return s.over; }));
  EXPECT_EQ(s.peer_code, H2Code::kCancel);
  EXPECT_EQ(w.last(), "101 DC");
}

TEST(Http2Tunnel, WhatIsNoTunnel) {
  struct Case {
    const char* name;
    bool allowed;
    std::string request;
    uint16_t status;  // of the endpoint; 0: it is not asked
    const char *log, *client;
  };
  const std::string foo = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n";
  for (const Case& k : {Case{"the endpoint has not allowed it", false, kUpgrade, 0, "502 UPE", "HTTP/1.1 502"},
                        {"a body comes first", true, foo + "content-length: 3\r\n\r\nabc", 0, "403 -", "HTTP/1.1 403"},
                        {"the endpoint refuses", true, kUpgrade, 403, "403 -", "HTTP/1.1 403"},
                        {"no answer to a handshake", true, kUpgrade, 204, "502 UPE", "HTTP/1.1 502"},
                        {"no content, and that is an answer", true, foo + "\r\n", 204, "204 -", "HTTP/1.1 204"}}) {
    SCOPED_TRACE(k.name);
    World w(tunnels());
    Http2Endpoint e(w, k.allowed ? allowing() : http::H2Options());
    e.news = [&](ServerStream& s) {
      if (s.head_complete && !s.tx_end && !s.closed) e.respond(s, k.status, {}, k.status == 204 ? "" : "why");
    };
    Peer& c = w.connect();
    w.send(c, k.request);
    ASSERT_TRUE(w.run_until([&] { return w.log().size() == 1; }, 10 * kSecond));
    EXPECT_EQ(w.last(), k.log);
    EXPECT_EQ(e.all().size(), k.status == 0 ? 0u : 1u);
    EXPECT_TRUE(w.wait_for(c, k.client)) << c.received;
    EXPECT_TRUE(c.received.starts_with(k.client)) << c.received;
    EXPECT_EQ(c.received.find("upgrade:"), std::string::npos) << c.received;
  }
}

}  // namespace
}  // namespace millrace::dataplane::test
