// Upgrades and CONNECT through a whole worker in virtual time, from clients of HTTP/1.1 and of HTTP/2.
#include "lib/http/websocket.h"
#include "tests/unit/dataplane/http2_fixture.h"

namespace millrace::dataplane::test {
namespace {

const std::string kUpgrade =
    "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-key: "
    "dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "sec-websocket-version: 13\r\n\r\n";
const std::string kSwitch =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: "
    "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const std::string kConnect = "CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n";

Config allowing(std::string types) {
  Config c;
  c.upgrades = std::move(types);
  c.routes = {route_to()};
  return c;
}
// A route for CONNECT; `terminate`: to TCP.
Config connecting(bool terminate) {
  Config c;
  route::RouteSpec r = route_to();
  r.path_kind = table::PathKind::kConnect;
  r.path.clear();
  r.upgrades = {{"CONNECT", true, terminate, false}};
  c.routes = {r, route_to()};
  return c;
}
std::string body_of(const Peer& p) {
  const size_t end = p.received.find("\r\n\r\n");
  return end == std::string::npos ? "no head" : p.received.substr(end + 4);
}
size_t ends_with_head(const std::string& s) { return s.ends_with("\r\n\r\n"); }

TEST(Tunnel, BytesBothWays) {
  World w(allowing("websocket"));
  Peer& c = w.connect();
  w.send(c, kUpgrade);
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  EXPECT_EQ(u.received.substr(0, 22), "GET /chat HTTP/1.1\r\nho");
  for (const char* line : {"connection: Upgrade", "upgrade: WebSocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="})
    EXPECT_TRUE(has_line(u.received, line)) << line << "\n" << u.received;
  EXPECT_EQ(u.received.find("transfer-encoding"), std::string::npos);
  w.send(u, kSwitch + "early");
  ASSERT_TRUE(w.wait_for(c, "early"));
  EXPECT_EQ(c.received.substr(0, 34), "HTTP/1.1 101 Switching Protocols\r\n");
  for (const char* line : {"connection: Upgrade", "upgrade: websocket", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="})
    EXPECT_TRUE(has_line(c.received, line)) << line << "\n" << c.received;
  EXPECT_EQ(c.received.find("content-length"), std::string::npos);
  EXPECT_EQ(c.received.find("close"), std::string::npos);
  std::string up = pattern(200'000), down = pattern(300'000);
  w.send(c, up);
  w.send(u, down);
  ASSERT_TRUE(w.run_until([&] { return body_of(u).size() == up.size() && body_of(c).size() == down.size() + 5; }));
  EXPECT_TRUE(body_of(u) == up);
  EXPECT_TRUE(body_of(c) == "early" + down);
  EXPECT_EQ(w.log().size(), 0u);
  w.close(c);
  ASSERT_TRUE(w.run_until([&] { return u.fin; }));
  EXPECT_TRUE(c.open()) << "one direction is over, the other is not";
  w.send(u, "last words");
  ASSERT_TRUE(w.wait_for(c, "last words"));
  w.close(u);
  ASSERT_TRUE(w.run_until([&] { return c.fin && !w.log().empty(); }));
  EXPECT_EQ(w.last(), "101 -");
  EXPECT_EQ(w.log()[0].bytes_received, up.size());
  EXPECT_EQ(w.log()[0].bytes_sent, down.size() + 15);
  EXPECT_EQ(w.worker->upstreams_in_use(), 0u);
}

TEST(Tunnel, TheEndpointMayEndFirst) {
  World w(allowing("websocket"));
  Peer& c = w.connect();
  w.send(c, kUpgrade);
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  w.send(u, kSwitch + "bye");
  w.close(u);
  ASSERT_TRUE(w.run_until([&] { return c.fin; }));
  EXPECT_EQ(body_of(c), "bye");
  w.send(c, "and still");
  ASSERT_TRUE(w.wait_for(u, "and still"));
  EXPECT_TRUE(w.log().empty());
  w.close(c);
  ASSERT_TRUE(w.run_until([&] { return u.fin && !w.log().empty(); }));
  EXPECT_EQ(w.last(), "101 -");
}

// What a client sends behind an upgrade request may be a request to one that does not know the upgrade.
TEST(Tunnel, NothingGoesOnBeforeTheEndpointAgrees) {
  for (const std::string& head : {kUpgrade, kConnect}) {
    SCOPED_TRACE(head);
    Config config = head == kConnect ? connecting(false) : allowing("websocket");
    World w(config);
    Peer& c = w.connect();
    w.send(c, head + get("/smuggled"));
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    w.run(kSecond);
    EXPECT_TRUE(ends_with_head(u.received)) << u.received;
    w.send(u, head == kConnect ? "HTTP/1.1 200 OK\r\n\r\n" : kSwitch);
    ASSERT_TRUE(w.wait_for(u, "GET /smuggled"));
    w.close(c);
    w.close(u);
  }
}

TEST(Tunnel, EndpointsThatRefuse) {
  struct Case {
    std::string name, head, answer, first, body, log, details;
  };
  const Case cases[] = {
      {"websocket, 400", kUpgrade,
       "HTTP/1.1 400 Bad Request\r\nconnection: upgrade\r\nupgrade: x\r\ncontent-length: 3\r\n\r\nwhy",
       "HTTP/1.1 400 Bad Request", "why", "400 -", "via_upstream"},
      {"websocket, 426 chunked", kUpgrade,
       "HTTP/1.1 426 Upgrade Required\r\ntransfer-encoding: chunked\r\n\r\n3\r\nwhy\r\n0\r\n\r\n",
       "HTTP/1.1 426 Upgrade Required", "3\r\nwhy\r\n0\r\n\r\n", "426 -", "via_upstream"},
      {"websocket, 200: no answer to a handshake", kUpgrade, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 3\r\n\r\nhey",
       "HTTP/1.1 200 OK", "", "200 -", "websocket_handshake_unsuccessful"},
      {"websocket, redirected", kUpgrade, "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 302 Found",
       "", "302 -", "websocket_handshake_unsuccessful"},
      {"another type, 200", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n",
       "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhey", "HTTP/1.1 200 OK", "hey", "200 -", "via_upstream"},
      {"CONNECT, 403", kConnect, "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "HTTP/1.1 403 Forbidden", "no", "403 -",
       "via_upstream"},
      {"CONNECT, 101", kConnect, kSwitch, "HTTP/1.1 502 Bad Gateway", "-", "502 UPE",
       "upstream_reset_before_response_started{protocol_error}"},
      {"no answer, closes", kUpgrade, "", "HTTP/1.1 503 Service Unavailable", "-", "503 UC",
       "upstream_reset_before_response_started{connection_termination}"},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    Config config = connecting(false);
    config.upgrades = "websocket,foo";
    World w(config);
    Peer& c = w.connect();
    w.send(c, k.head + get("/smuggled"));
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    if (k.answer.empty()) w.close(u);
    else w.send(u, k.answer);
    ASSERT_TRUE(w.run_until([&] { return c.fin; }, 5 * kSecond)) << "the connection ends with the refusal";
    EXPECT_EQ(c.received.substr(0, c.received.find("\r\n")), k.first);
    if (k.body != "-") {
      EXPECT_EQ(body_of(c), k.body);
    }
    EXPECT_EQ(c.received.find("upgrade: x"), std::string::npos);
    EXPECT_TRUE(has_line(c.received, "connection: close")) << c.received;
    EXPECT_EQ(w.last(), k.log);
    EXPECT_EQ(w.log()[0].details, k.details);
    EXPECT_TRUE(ends_with_head(u.received)) << "nothing behind the request: " << u.received;
    EXPECT_EQ(w.server.peers.size(), 1u);
    EXPECT_EQ(w.worker->upstreams_in_use(), 0u);
  }
}

TEST(Tunnel, WhoIsAllowed) {
  const auto upgrade = [](const std::string& type) {
    return "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: " + type + "\r\n\r\n";
  };
  struct Case {
    std::string name, manager;
    std::vector<route::UpgradeSpec> route;
    std::string request, log;  // "": it went on
  };
  const Case cases[] = {
      {"nothing is configured", "", {}, upgrade("websocket"), "403 -"},
      {"any case", "websocket", {}, upgrade("WEBSOCKET"), ""},
      {"another one", "websocket", {}, upgrade("foo"), "403 -"},
      {"a part of one", "websocket", {}, upgrade("web"), "403 -"},
      {"two", "foo,websocket", {}, upgrade("websocket"), ""},
      {"a list is no type", "foo,websocket", {}, upgrade("foo, websocket"), "403 -"},
      {"said twice",
       "foo",
       {},
       "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\nupgrade: foo\r\n\r\n",
       "403 -"},
      {"the route allows", "", {{"websocket", true, false, false}}, upgrade("websocket"), ""},
      {"the route forbids", "websocket", {{"WebSocket", false, false, false}}, upgrade("websocket"), "403 -"},
      {"the route speaks of another", "websocket", {{"foo", false, false, false}}, upgrade("websocket"), ""},
      {"no upgrade without connection", "", {}, "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n", ""},
      {"none in HTTP/1.0", "websocket", {}, "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", ""},
      {"CONNECT takes no ordinary route", "connect", {}, kConnect, "404 NR"},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    Config config = allowing(k.manager);
    config.routes[0].upgrades = k.route;
    config.hcm = [](table::HttpConnectionManager& h) { h.accept_http_10 = 1; };
    World w(config);
    Peer& c = w.connect();
    w.send(c, k.request);
    if (k.log.empty()) {
      ASSERT_TRUE(w.wait_for(w.upstream(), "\r\n\r\n"));
      const bool passed = k.name.starts_with("no");
      EXPECT_EQ(w.upstream().received.find("upgrade:") == std::string::npos, passed) << w.upstream().received;
      continue;
    }
    ASSERT_TRUE(w.run_until([&] { return c.fin; }, 5 * kSecond)) << "no request is read behind it";
    EXPECT_EQ(w.last(), k.log);
    EXPECT_EQ(w.server.peers.size(), 0u);
  }
}

// Whatever an upgrade request is refused for, its body is not the next request.
TEST(Tunnel, TheBodyOfARefusedUpgradeIsNoRequest) {
  const std::string smuggled = get("/smuggled");
  const std::string more =
      "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: " + std::to_string(smuggled.size()) + "\r\n";
  for (const std::string& line : {std::string("OPTIONS * HTTP/1.1"), std::string("GET /a%2fb HTTP/1.1"),
                                  std::string("OPTIONS / HTTP/1.1\r\nmax-forwards: 0"), std::string("GET /nowhere HTTP/1.1")}) {
    SCOPED_TRACE(line);
    Config config = allowing(line.starts_with("GET /n") ? "" : "websocket");
    config.hcm = [](table::HttpConnectionManager& h) { h.escaped_slashes = table::EscapedSlashes::kUnescapeAndRedirect; };
    World w(config);
    Peer& c = w.connect();
    w.send(c, std::string(line) + "\r\nhost: a\r\n" + more + "\r\n" + smuggled);
    ASSERT_TRUE(w.run_until([&] { return c.fin; }, 5 * kSecond));
    EXPECT_EQ(w.log().size(), 1u);
    EXPECT_TRUE(has_line(c.received, "connection: close")) << c.received;
    EXPECT_EQ(w.server.peers.size(), 0u);
  }
}

TEST(Tunnel, ConnectEnabledByRouteOrManager) {
  for (const bool by_manager : {false, true}) {
    Config config = connecting(false);
    if (by_manager) {
      config.upgrades = "connect";
      config.routes[0].upgrades.clear();
    }
    World w(config);
    Peer& c = w.connect();
    w.send(c, kConnect);
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    EXPECT_EQ(u.received.substr(0, 52), "CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\nx");
    EXPECT_EQ(u.received.find("content-length"), std::string::npos);
    w.send(u, "HTTP/1.1 200 Connection established\r\ncontent-length: 7\r\n\r\n");  // RFC 9110 9.3.6: no length counts here
    w.send(c, "question");
    ASSERT_TRUE(w.wait_for(u, "question"));
    w.send(u, "answer");
    ASSERT_TRUE(w.wait_for(c, "answer"));
    EXPECT_EQ(body_of(c), "answer");
    EXPECT_EQ(c.received.find("transfer-encoding"), std::string::npos);
    EXPECT_EQ(c.received.find("content-length"), std::string::npos);
    EXPECT_EQ(c.received.find("connection: close"), std::string::npos) << c.received;
    w.abort(u);
    ASSERT_TRUE(w.run_until([&] { return c.reset; }, kSecond)) << "a reset is passed on";
    EXPECT_EQ(w.last(), "200 UC");
  }
}

TEST(Tunnel, ConnectEndsHere) {
  World w(connecting(true));
  Peer& c = w.connect();
  w.send(c, kConnect + "first bytes");
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "first bytes"));
  EXPECT_EQ(u.received, "first bytes") << "no HTTP";
  ASSERT_TRUE(w.wait_for(c, "\r\n\r\n"));
  EXPECT_EQ(c.received.substr(0, 17), "HTTP/1.1 200 OK\r\n");
  w.send(u, "reply");
  ASSERT_TRUE(w.wait_for(c, "reply"));
  EXPECT_EQ(body_of(c), "reply");
  w.close(c);
  ASSERT_TRUE(w.run_until([&] { return u.fin; }));
  w.send(u, "!");
  w.close(u);
  ASSERT_TRUE(w.run_until([&] { return c.fin; }));
  EXPECT_EQ(body_of(c), "reply!");
  EXPECT_EQ(w.last(), "200 -");
  // The next one has a connection of its own.
  Peer& c2 = w.connect();
  w.send(c2, kConnect);
  ASSERT_TRUE(w.wait_for(c2, "\r\n\r\n"));
  EXPECT_EQ(w.server.peers.size(), 2u);
  // ... and pooled connections stay the pool's.
  Peer& c3 = w.connect();
  w.send(c3, get());
  ASSERT_TRUE(w.wait_for(w.upstream(2), "GET /"));
  w.send(w.upstream(2), ok());
  ASSERT_TRUE(w.wait_for(c3, "hello"));
  EXPECT_EQ(w.upstream(1).received, "");
}

TEST(Tunnel, TheEndpointIsToldWhoseConnectionItIs) {
  for (const uint8_t version : {1, 2}) {
    Config config = connecting(true);
    config.routes[0].upgrades[0].proxy_version = version;
    World w(config);
    Peer& c = w.connect();
    w.send(c, kConnect + "first");
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "first"));
    const std::string header = u.received.substr(0, u.received.size() - 5);
    if (version == 1) {
      EXPECT_TRUE(header.starts_with("PROXY TCP4 10.1.0.2 10.1.0.1 ") && header.ends_with(" 80\r\n")) << header;
    } else {
      EXPECT_EQ(header.substr(0, 24), std::string("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\n\1\0\2\n\1\0\1", 24));
      EXPECT_EQ(header.substr(26), std::string("\0P", 2));
    }
  }
}

TEST(Tunnel, ConnectToNobody) {
  struct Case {
    std::string name, address, log;
    uint32_t after_ms;
  };
  for (const Case& k : {Case{"refused", "10.2.0.2", "503 UF", 0}, Case{"silent", "10.2.0.3", "503 UF", 250}}) {
    SCOPED_TRACE(k.name);
    Config config = connecting(true);
    config.clusters[0].endpoints = {{k.address, 8000}};
    config.clusters[0].edit = [](table::Cluster& c) { c.connect_timeout_ms = 250; };
    World w(config);
    w.server.set_listening({});
    Peer& c = w.connect();
    w.settle();
    const base::TimeNs start = w.now;
    w.send(c, kConnect + "x");
    ASSERT_TRUE(w.run_until([&] { return c.fin; }));
    EXPECT_EQ(w.last(), k.log);
    EXPECT_NEAR(static_cast<double>(w.log()[0].duration_ns) / 1e6, k.after_ms, 5.0) << start;
    EXPECT_EQ(w.worker->upstreams_in_use(), 0u);
  }
}

TEST(Tunnel, PostToTcp) {
  Config config = connecting(true);
  config.routes[0] = route_to();
  config.routes[0].upgrades = {{"CONNECT", true, true, true}};
  World w(config);
  Peer& c = w.connect();
  w.send(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
  Peer& u = w.upstream();
  ASSERT_TRUE(w.run_until([&] { return u.fin; }));
  EXPECT_EQ(u.received, "hello");
  w.send(u, "world");
  w.close(u);
  ASSERT_TRUE(w.wait_for(c, "0\r\n\r\n"));
  EXPECT_EQ(body_of(c), "5\r\nworld\r\n0\r\n\r\n");
  EXPECT_EQ(w.last(), "200 -");
  Peer& c2 = w.connect();
  w.send(c2, get("/next"));  // GET does not go there
  ASSERT_TRUE(w.wait_for(w.upstream(1), "GET /next"));
}

TEST(Tunnel, Timeouts) {
  struct Case {
    std::string name;
    std::function<void(Config&)> edit;
    std::string sends, answer;
    uint32_t after_ms;
    std::string log;
  };
  const Case cases[] = {
      {"idle", [](Config& c) { c.hcm = [](auto& h) { h.stream_idle_timeout_ms = 900; }; }, kUpgrade, kSwitch, 900, "101 SI"},
      {"idle, by the route", [](Config& c) { c.routes[1].idle_timeout_ms = 400; }, kUpgrade, kSwitch, 400, "101 SI"},
      {"nobody agrees: the route's timeout", [](Config& c) { c.routes[1].timeout_ms = 700; }, kUpgrade, "", 700, "504 UT"},
      {"CONNECT has none", [](Config& c) { c.hcm = [](auto& h) { h.stream_idle_timeout_ms = 20'000; }; }, kConnect, "", 20'000,
       "408 SI"},
      {"longest stream", [](Config& c) { c.hcm = [](auto& h) { h.max_stream_duration_ms = 800; }; }, kUpgrade, kSwitch, 800,
       "101 -"},
      {"longest stream, by the route", [](Config& c) { c.routes[1].max_stream_duration_ms = 300; }, kUpgrade, kSwitch, 300,
       "101 -"},
      {"no longest stream, by the route",
       [](Config& c) {
         c.hcm = [](auto& h) { h.max_stream_duration_ms = 800; };
         c.routes[1].max_stream_duration_ms = 0;
         c.routes[1].idle_timeout_ms = 5'000;
       },
       kUpgrade, kSwitch, 5'000, "101 SI"},
      {"request_timeout ends with the answer",
       [](Config& c) {
         c.hcm = [](auto& h) {
           h.request_timeout_ms = 500;
           h.stream_idle_timeout_ms = 2'000;
         };
       },
       kUpgrade, kSwitch, 2'000, "101 SI"},
      {"request_timeout without one", [](Config& c) { c.hcm = [](auto& h) { h.request_timeout_ms = 500; }; }, kUpgrade, "", 500,
       "408 -"},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    Config config = connecting(false);
    config.upgrades = "websocket";
    k.edit(config);
    World w(config);
    Peer& c = w.connect();
    w.settle();
    const base::TimeNs start = w.now;
    w.send(c, k.sends);
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    if (!k.answer.empty()) w.send(u, k.answer);
    ASSERT_TRUE(w.run_until([&] { return !w.log().empty(); }));
    EXPECT_NEAR(static_cast<double>(w.now - start) / 1e6, k.after_ms, 5.0);
    w.settle();
    EXPECT_EQ(w.last(), k.log);
    EXPECT_TRUE(c.fin && !c.reset);
    EXPECT_FALSE(u.open());
  }
}

TEST(Tunnel, BytesKeepItFromBeingIdle) {
  Config config = allowing("websocket");
  config.hcm = [](table::HttpConnectionManager& h) { h.stream_idle_timeout_ms = 1'000; };
  World w(config);
  Peer& c = w.connect();
  w.send(c, kUpgrade);
  Peer& u = w.upstream();
  ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
  w.send(u, kSwitch);
  for (int i = 0; i < 10; ++i) {
    w.run(900 * kMillisecond);
    w.send(i % 2 == 0 ? c : u, "x");
  }
  w.settle();
  EXPECT_EQ(body_of(c), "xxxxx");
  EXPECT_EQ(body_of(u), "xxxxx");
  EXPECT_TRUE(c.open() && w.log().empty());
}

// A reader that is stuck stops the writer, whichever side it is on; memory is bounded by the two windows.
TEST(Tunnel, BackPressure) {
  for (const bool client_stuck : {true, false}) {
    World w(allowing("websocket"));
    Peer& c = w.connect();
    w.send(c, kUpgrade);
    Peer& u = w.upstream();
    ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
    w.send(u, kSwitch);
    ASSERT_TRUE(w.wait_for(c, "\r\n\r\n"));
    Peer& reader = client_stuck ? c : u;
    Peer& writer = client_stuck ? u : c;
    reader.reading = false;
    const std::string all = pattern(6'000'000);
    w.send(writer, all);
    w.run(kSecond);
    EXPECT_GT(writer.unsent.size(), 1'000'000u) << "stopped";
    EXPECT_LT(w.payload.in_use() * 2048ull, 4'000'000u);
    w.resume(reader);
    ASSERT_TRUE(w.run_until([&] { return body_of(reader).size() >= all.size(); }));
    EXPECT_TRUE(body_of(reader) == all);
  }
}

TEST(Tunnel, AnUpgradeRequestMayHaveABody) {
  for (const bool chunked : {false, true}) {
    World w(allowing("foo"));
    Peer& c = w.connect();
    w.send(c, std::string("POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n") +
                  (chunked ? "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" : "content-length: 3\r\n\r\nabc") +
                  "foo bytes");
    Peer& u = w.upstream();
    const std::string body = chunked ? "3\r\nabc\r\n0\r\n\r\n" : "abc";
    ASSERT_TRUE(w.run_until([&] { return body_of(u).size() >= body.size(); }));
    w.run(kSecond);
    EXPECT_EQ(body_of(u), body) << "and not what comes behind it";
    w.send(u, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n");
    ASSERT_TRUE(w.wait_for(u, "foo bytes"));
    EXPECT_EQ(body_of(u), body + "foo bytes");
    w.send(c, " more");
    ASSERT_TRUE(w.wait_for(u, "foo bytes more"));
  }
}

TEST(Tunnel, ClientsThatLeave) {
  for (const bool open : {false, true})
    for (const bool reset : {false, true}) {
      SCOPED_TRACE(std::string(open ? "open" : "waiting") + (reset ? ", reset" : ", closed"));
      World w(allowing("websocket"));
      Peer& c = w.connect();
      w.send(c, kUpgrade);
      Peer& u = w.upstream();
      ASSERT_TRUE(w.wait_for(u, "\r\n\r\n"));
      if (open) {
        w.send(u, kSwitch);
        ASSERT_TRUE(w.wait_for(c, "\r\n\r\n"));
      }
      if (reset) w.abort(c);
      else w.close(c);
      const bool half = open && !reset;
      ASSERT_TRUE(w.run_until([&] { return half ? u.fin : u.reset; }, kSecond));
      EXPECT_EQ(w.log().empty(), half);
      if (!half) {
        EXPECT_EQ(w.last(), open ? "101 DC" : "0 DC");
      }
    }
}

// ---- HTTP/2
Config extended(std::string types) {
  Config c = connecting(false);
  c.upgrades = std::move(types);
  c.hcm = [](table::HttpConnectionManager& h) { h.http2.allow_connect = 1; };
  return c;
}

TEST(Tunnel, WebSocketOverExtendedConnect) {
  World w(extended("websocket"));
  Http2Client c(w);
  ClientStream& s = c.request("CONNECT", "/chat?x=1", {{"sec-websocket-version", "13"}}, false, "websocket");
  Peer& u = w.upstream();
  ASSERT_TRUE(c.until([&] { return ends_with_head(u.received); }));
  EXPECT_EQ(u.received.substr(0, 26), "GET /chat?x=1 HTTP/1.1\r\nho");
  EXPECT_TRUE(has_line(u.received, "connection: upgrade") && has_line(u.received, "upgrade: websocket")) << u.received;
  const size_t at = u.received.find("\r\nsec-websocket-key: ");
  ASSERT_NE(at, std::string::npos) << "an endpoint of HTTP/1.1 wants a key: " << u.received;
  char accept[http::kWebSocketAcceptBytes];
  http::write_websocket_accept(std::string_view(u.received).substr(at + 21, http::kWebSocketKeyBytes), accept);
  w.send(u,
         "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-protocol: chat\r\n"
         "sec-websocket-accept: " +
             std::string(accept, sizeof accept) + "\r\n\r\nhello");
  ASSERT_TRUE(c.until([&] { return s.body == "hello"; }));
  EXPECT_EQ(s.response.status, 200);
  EXPECT_EQ(s.header("sec-websocket-protocol"), "chat");
  for (const char* gone : {"connection", "upgrade", "sec-websocket-accept"}) EXPECT_EQ(s.header(gone), "-") << gone;
  const std::string up = pattern(100'000);
  c.body(s, up, false);
  ASSERT_TRUE(c.until([&] { return body_of(u).size() >= up.size(); }));
  EXPECT_TRUE(body_of(u) == up);
  c.body(s, "end", true);
  ASSERT_TRUE(c.until([&] { return u.fin; }));
  w.send(u, " bye");
  w.close(u);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.body, "hello bye");
  EXPECT_EQ(s.error, H2Error::kNone);
  EXPECT_EQ(w.last(), "101 -");
  ClientStream& next = c.request("GET", "/next");
  ASSERT_TRUE(c.until([&] { return w.server.peers.size() == 2 && ends_with_head(w.server.peers[1].received); }));
  w.send(w.server.peers[1], ok());
  ASSERT_TRUE(c.finished(next)) << "the connection goes on";
}

TEST(Tunnel, AWrongAcceptIsNoHandshake) {
  World w(extended("websocket"));
  Http2Client c(w);
  ClientStream& s = c.request("CONNECT", "/chat", {}, false, "websocket");
  Peer& u = w.upstream();
  ASSERT_TRUE(c.until([&] { return ends_with_head(u.received); }));
  w.send(u, kSwitch);
  ASSERT_TRUE(c.finished(s));
  EXPECT_EQ(s.response.status, 502);
  EXPECT_EQ(w.last(), "502 UPE");
  EXPECT_EQ(w.log()[0].details, "websocket_handshake_invalid_accept");
}

TEST(Tunnel, ExtendedConnectIsRefused) {
  for (const bool known : {true, false}) {
    Config config = extended("foo");
    if (!known) config.hcm = nullptr;  // allow_connect: false: a pseudo header that was not agreed on
    World w(config);
    Http2Client c(w);
    ClientStream& s = c.request("CONNECT", "/chat", {}, false, "websocket");
    if (known) {
      ASSERT_TRUE(c.finished(s));
      EXPECT_EQ(s.response.status, 403);
      EXPECT_EQ(w.last(), "403 -");
    } else {
      ASSERT_TRUE(c.until([&] { return s.closed || !c.peer.open(); }, 5 * kSecond));
      EXPECT_FALSE(s.head_complete);
    }
    EXPECT_EQ(w.server.peers.size(), 0u);
  }
}

TEST(Tunnel, ConnectOverHttp2) {
  for (const bool terminate : {false, true}) {
    SCOPED_TRACE(terminate);
    World w(connecting(terminate));
    Http2Client c(w);
    ClientStream& s = c.request("CONNECT", "", {}, false, {}, "db.test:5432");
    Peer& u = w.upstream();
    if (!terminate) {
      ASSERT_TRUE(c.until([&] { return ends_with_head(u.received); }));
      EXPECT_EQ(u.received.substr(0, 31), "CONNECT db.test:5432 HTTP/1.1\r\n");
      w.send(u, "HTTP/1.1 200 OK\r\n\r\n");
    }
    ASSERT_TRUE(c.until([&] { return s.head_complete; }));
    EXPECT_EQ(s.response.status, 200);
    u.received.clear();
    c.body(s, "question", false);
    ASSERT_TRUE(c.until([&] { return u.received == "question"; }));
    w.send(u, "answer");
    ASSERT_TRUE(c.until([&] { return s.body == "answer"; }));
    w.abort(u);
    ASSERT_TRUE(c.finished(s));
    EXPECT_EQ(s.peer_code, H2Code::kConnectError) << "RFC 9113 8.5";
    EXPECT_EQ(w.last(), "200 UC");
    // The other way round: what the client resets, is reset towards the endpoint.
    ClientStream& t = c.request("CONNECT", "", {}, false, {}, "db.test:5432");
    Peer& v = w.upstream(1);
    if (!terminate) {
      ASSERT_TRUE(c.until([&] { return ends_with_head(v.received); }));
      w.send(v, "HTTP/1.1 200 OK\r\n\r\n");
    }
    ASSERT_TRUE(c.until([&] { return t.head_complete; }));
    c.h2.reset(t, H2Code::kCancel);
    ASSERT_TRUE(c.until([&] { return v.reset; }, kSecond));
  }
}

TEST(Tunnel, BackPressureOverHttp2) {
  World w(extended("foo"));
  http::H2Options o;
  o.initial_stream_window_size = 65'535;
  Http2Client c(w, o);
  ClientStream& s = c.request("CONNECT", "/", {}, false, "foo");
  Peer& u = w.upstream();
  ASSERT_TRUE(c.until([&] { return ends_with_head(u.received); }));
  w.send(u, "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n");
  ASSERT_TRUE(c.until([&] { return s.head_complete; }));
  c.reading = false;
  const std::string all = pattern(6'000'000);
  w.send(u, all);
  for (int i = 0; i < 50; ++i) {
    c.step();
    w.run(10 * kMillisecond);
  }
  EXPECT_GT(u.unsent.size(), 1'000'000u) << "stopped by the stream's window";
  c.reading = true;
  while (!s.rx.empty()) {
    s.body += base::as_chars(s.rx.front());
    c.h2.consumed(s, s.rx.front().size());
    s.rx.consume(s.rx.front().size());
  }
  ASSERT_TRUE(c.until([&] { return s.body.size() >= all.size(); }));
  EXPECT_TRUE(s.body == all);
}

}  // namespace
}  // namespace millrace::dataplane::test
