// The listener filter proxy_protocol in a whole worker: whose connection it is, in logs, headers and filter chains.
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

const std::string kV1 = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const std::string kV2 =
    std::string("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 16) + std::string("\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb", 12);
const std::string kLocal = std::string("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16);

Config proxied(std::function<void(table::Listener&)> more = nullptr) {
  Config c;
  c.edit_listener = [more = std::move(more)](table::Listener& l) {
    l.proxy_protocol = 1;
    l.listener_filters_timeout_ms = 2'000;
    if (more) more(l);
  };
  c.hcm = [](table::HttpConnectionManager& h) { h.use_remote_address = 1; };
  return c;
}

TEST(ProxyProtocolIn, WhoseConnectionItIs) {
  struct Case {
    std::string name, header, xff, remote, local;
  };
  for (const Case& k :
       {Case{"version 1", kV1, "192.0.2.1", "192.0.2.1:56324", "198.51.100.1:443"},
        Case{"version 2", kV2, "192.0.2.1", "192.0.2.1:56324", "198.51.100.1:443"},
        Case{"IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1", "2001:db8::1:1", "2001:db8::2:2"},
        Case{"local", kLocal, "10.1.0.2", "", "10.1.0.1:80"},
        Case{"unknown", "PROXY UNKNOWN\r\n", "10.1.0.2", "", "10.1.0.1:80"}}) {
    for (const bool split : {false, true}) {
      SCOPED_TRACE(k.name + (split ? ", in pieces" : ""));
      World w(proxied());
      w.serve([&](const std::string& request) {
        EXPECT_TRUE(has_line(request, "x-forwarded-for: " + k.xff)) << request;
        return ok();
      });
      Peer& c = w.connect();
      const std::string all = k.header + get();
      for (size_t i = 0; i < all.size(); ++i) {
        w.send(c, all.substr(i, split ? 1 : all.size()));
        if (!split) break;
        w.run(kMillisecond);
      }
      ASSERT_TRUE(w.wait_for(c, "hello", 10 * kSecond));
      const LogLine l = w.log().at(0);
      EXPECT_EQ(l.direct.substr(0, 9), "10.1.0.2:");
      EXPECT_EQ(l.remote, k.remote.empty() ? l.direct : k.remote);
      EXPECT_EQ(l.local, k.local);
      w.send(c, get("/second"));  // said once, for all requests
      ASSERT_TRUE(w.run_until([&] { return w.log().size() == 2; }, kSecond));
      EXPECT_EQ(w.log()[1].remote, l.remote);
    }
  }
}

TEST(ProxyProtocolIn, WhoIsTurnedAway) {
  struct Case {
    std::string name, sends;
    std::function<void(table::Listener&)> edit;
    bool served;
  };
  const Case cases[] = {
      {"no header", get(), nullptr, false},
      {"no header, and none needed", get(), [](table::Listener& l) { l.proxy_optional = 1; }, true},
      {"a header where none is needed", kV1 + get(), [](table::Listener& l) { l.proxy_optional = 1; }, true},
      {"malformed", "PROXY TCP4 nobody\r\n" + get(), [](table::Listener& l) { l.proxy_optional = 1; }, false},
      {"version 1 is not wanted", kV1 + get(), [](table::Listener& l) { l.proxy_refuse_v1 = 1; }, false},
      {"version 2 is", kV2 + get(), [](table::Listener& l) { l.proxy_refuse_v1 = 1; }, true},
      {"version 2 is not wanted", kV2 + get(), [](table::Listener& l) { l.proxy_refuse_v2 = 1; }, false},
  };
  for (const Case& k : cases) {
    SCOPED_TRACE(k.name);
    World w(proxied(k.edit));
    w.serve([](const std::string&) { return ok(); });
    Peer& c = w.connect();
    w.send(c, k.sends);
    if (k.served) {
      ASSERT_TRUE(w.wait_for(c, "hello", kSecond));
      continue;
    }
    ASSERT_TRUE(w.run_until([&] { return !c.open(); }, kSecond));
    EXPECT_EQ(c.received, "") << "no word of HTTP";
    EXPECT_EQ(w.server.peers.size(), 0u);
  }
}

TEST(ProxyProtocolIn, NotForEver) {
  for (const bool goes_on : {false, true}) {
    World w(proxied([=](table::Listener& l) { l.continue_on_listener_filters_timeout = goes_on; }));
    w.serve([](const std::string&) { return ok(); });
    Peer& c = w.connect();
    w.send(c, "PROXY TCP4 192");
    w.run(1'900 * kMillisecond);
    EXPECT_TRUE(c.open());
    ASSERT_TRUE(w.run_until([&] { return !c.open(); }, 300 * kMillisecond)) << "what had come is no HTTP either";
    EXPECT_EQ(c.received.empty(), !goes_on) << c.received;
  }
}

// ---- towards endpoints ------------------------------------------------------------------------------------------------

Config announced(uint8_t version, std::function<void(table::Cluster&)> more = nullptr) {
  Config c;
  c.clusters[0].edit = [version, more = std::move(more)](table::Cluster& o) {
    o.proxy.version = version;
    if (more) more(o);
  };
  return c;
}
std::string line_of(const Peer& client) {
  return "PROXY TCP4 10.1.0.2 10.1.0.1 " + std::to_string(client.connection->tuple().local_port) + " 80\r\n";
}

// Endpoints that are told: answer(the header of the connection, the head of a request).
void serve_told(World& w, std::function<std::string(const std::string& header, const std::string& request)> answer) {
  w.server_script = [&w, headers = std::make_shared<std::map<const Peer*, std::string>>(), answer = std::move(answer)] {
    for (Peer& p : w.server.peers) {
      if (!headers->contains(&p)) {
        if (p.received.size() < 16) continue;
        size_t n = 0;
        if (p.received.substr(0, 6) == "PROXY ") n = p.received.find("\r\n") + 2;
        else if (p.received.substr(0, 12) == kV2.substr(0, 12))
          n = 16 + base::load_be16(reinterpret_cast<const uint8_t*>(p.received.data()) + 14);
        if (n == 1 || p.received.size() < n) continue;  // 1: the line has no end yet
        (*headers)[&p] = p.received.substr(0, n);
        p.received.erase(0, n);
      }
      for (size_t end = p.received.find("\r\n\r\n"); end != std::string::npos; end = p.received.find("\r\n\r\n")) {
        const std::string request = p.received.substr(0, end + 4);
        p.received.erase(0, end + 4);
        w.server.send(p, answer(headers->at(&p), request), w.now);
      }
    }
  };
}

TEST(ProxyProtocolOut, OneClientsRequestsShareAConnectionAndNobodyElses) {
  World w(announced(1));
  std::vector<std::string> seen;
  serve_told(w, [&](const std::string& header, const std::string& request) {
    seen.push_back(header + request.substr(0, 7));
    return ok();
  });
  Peer& a = w.connect();
  w.send(a, get("/a1"));
  ASSERT_TRUE(w.wait_for(a, "hello"));
  a.received.clear();
  w.send(a, get("/a2"));
  ASSERT_TRUE(w.wait_for(a, "hello"));
  Peer& b = w.connect();
  w.send(b, get("/b1"));
  ASSERT_TRUE(w.wait_for(b, "hello"));
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0], line_of(a) + "GET /a1");
  EXPECT_EQ(seen[1], line_of(a) + "GET /a2") << "said once, for all requests";
  EXPECT_EQ(seen[2], line_of(b) + "GET /b1") << "a's connection is idle, and not b's";
  ASSERT_EQ(w.server.peers.size(), 2u);
  w.close(a);  // and nobody after him gets his connection
  EXPECT_TRUE(w.run_until([&] { return w.server.peers[0].fin; }, kSecond));
  EXPECT_TRUE(w.server.peers[1].open());
  a.received.clear();
  b.received.clear();
  w.send(b, get("/b2"));
  ASSERT_TRUE(w.wait_for(b, "hello"));
  EXPECT_EQ(w.server.peers.size(), 2u);
}

TEST(ProxyProtocolOut, PipelinedAndLaterClientsOfTheSameAddress) {
  World w(announced(2));
  serve_told(w, [](const std::string&, const std::string&) { return ok(); });
  for (size_t i = 0; i < 5; ++i) {
    Peer& c = w.connect();
    w.send(c, get("/1") + get("/2"));
    ASSERT_TRUE(w.run_until([&] { return count_of(c.received, "hello") == 2; }, kSecond));
    w.close(c);
    w.run(kMillisecond);
    EXPECT_EQ(w.server.peers.size(), i + 1);
  }
  ASSERT_TRUE(w.run_until([&] { return w.worker->upstreams_in_use() == 0; }, 10 * kSecond));
  EXPECT_EQ(w.worker->endpoints_in_use(), 0u);
}

TEST(ProxyProtocolOut, TlvsThatPassAndThoseThatAreAdded) {
  struct Case {
    std::string name;
    std::vector<uint8_t> kept, passed;
    std::string added, expected;
  };
  const std::string authority(
      "\x02\0\x06"
      "a.test",
      9),
      custom(
          "\xe1\0\x03"
          "abc",
          6),
      second(
          "\xe1\0\x01"
          "d",
          4),
      noop(
          "\x04\0\x02"
          "xx",
          5),
      own("\xe1\0\x02"
          "OW",
          5),
      extra(
          "\xf0\0\x01"
          "E",
          4);
  for (const Case& k :
       {Case{"nothing is kept", {}, {0x02, 0xe1}, "", ""}, Case{"nothing passes", {0x02, 0xe1}, {}, "", ""},
        Case{"one of both", {0x02, 0xe1}, {0x02}, "", authority},
        Case{"all, in their order", {0x02, 0x04, 0xe1}, {0x02, 0x04, 0xe1}, "", authority + custom + second + noop},
        Case{"added ones come first", {0x02}, {0x02}, extra, extra + authority},
        Case{"added ones displace those of their type", {0x02, 0xe1}, {0x02, 0xe1}, own, own + authority}}) {
    SCOPED_TRACE(k.name);
    Config c = proxied([&](table::Listener& l) {
      for (const uint8_t t : k.kept) l.proxy_kept_tlvs.set(t);
    });
    c.clusters[0].added_tlvs = k.added;
    c.clusters[0].edit = [&](table::Cluster& o) {
      o.proxy.version = 2;
      for (const uint8_t t : k.passed) o.proxy.passed.set(t);
    };
    World w(c);
    std::string seen;
    serve_told(w, [&](const std::string& told, const std::string&) {
      seen = told;
      return ok();
    });
    const std::string tlvs = authority + custom + second + noop;
    std::string header = kV2 + tlvs;
    header[15] = static_cast<char>(12 + tlvs.size());
    Peer& p = w.connect();
    w.send(p, header + get());
    ASSERT_TRUE(w.wait_for(p, "hello", 10 * kSecond));
    std::string expected = kV2 + k.expected;
    expected[15] = static_cast<char>(12 + k.expected.size());
    EXPECT_EQ(seen, expected);
  }
}

TEST(ProxyProtocolOut, WhoCannotBeRememberedIsClosed) {
  for (const bool memory : {true, false}) {
    World w(proxied([&](table::Listener& l) { l.proxy_kept_tlvs.set(0xe1); }));
    w.serve([&](const std::string&) { return ok(); });
    constexpr size_t kValue = 600;  // more than is copied into the packet before it
    std::string header = kV2 + std::string("\xe1\x02\x58", 3) + std::string(kValue, 'v');
    base::store_be16(reinterpret_cast<uint8_t*>(header.data()) + 14, 12 + 3 + kValue);
    Peer& p = w.connect();
    w.send(p, header.substr(0, 20));
    w.settle();
    if (!memory) w.payload.set_limit(w.payload.in_use() + 1);  // for what is still to come, and nothing else
    w.send(p, header.substr(20));
    w.settle();
    w.payload.set_limit(w.payload.capacity());
    w.send(p, get());
    EXPECT_EQ(w.wait_for(p, "hello", kSecond), memory);
    EXPECT_EQ(p.fin || p.reset, !memory);
  }
}

TEST(ProxyProtocolOut, AClientThatGoesWhileTheConnectionIsUnderWay) {
  World w(announced(1));
  w.server_deaf = true;
  Peer& p = w.connect();
  w.send(p, get());
  w.run(10 * kMillisecond);
  EXPECT_EQ(w.worker->upstreams_in_use(), 1u);
  w.abort(p);
  w.run(10 * kMillisecond);
  w.server_deaf = false;
  ASSERT_TRUE(w.run_until([&] { return w.worker->upstreams_in_use() == 0; }, 10 * kSecond));
  EXPECT_EQ(w.worker->endpoints_in_use(), 0u);
  for (const Peer& s : w.server.peers) EXPECT_EQ(s.received, "") << "a header without a client";
}

TEST(ProxyProtocolOut, ConfiguredLater) {
  World w;
  serve_told(w, [&](const std::string& told, const std::string&) {
    return ok(told.empty() ? "nothing" : told[0] == 'P' ? "version 1" : "version 2");
  });
  Peer& p = w.connect();
  w.send(p, get());
  ASSERT_TRUE(w.wait_for(p, "nothing"));
  const Config later[] = {announced(1), announced(2), Config{}};
  const char* const answers[] = {"version 1", "version 2", "nothing"};
  for (size_t i = 0; i < 3; ++i) {
    w.publish(later[i]);
    EXPECT_TRUE(w.run_until([&] { return w.server.peers[i].fin; }, kSecond)) << "what said something else serves nobody now";
    p.received.clear();
    w.send(p, get());
    ASSERT_TRUE(w.wait_for(p, answers[i])) << i;
  }
}

TEST(ProxyProtocolOut, EndpointsSpent) {
  WorldOptions o;
  o.limits.upstream_endpoints = 2;
  World w(announced(1), o);
  serve_told(w, [](const std::string&, const std::string&) { return ok(); });
  Peer &a = w.connect(), &b = w.connect();
  w.send(a, get());
  ASSERT_TRUE(w.wait_for(a, "hello"));
  w.send(b, get());  // a's own pool, and the one that is looked up, leave no place: a's idle connection makes one
  ASSERT_TRUE(w.wait_for(b, "hello"));
  EXPECT_TRUE(w.server.peers[0].fin);
  w.server_script = nullptr;
  b.received.clear();
  w.send(b, get("/slow"));
  w.settle();
  w.send(a, get());  // b's is in use
  ASSERT_TRUE(w.run_until([&] { return !a.received.empty() && a.received.find("503") != std::string::npos; }, kSecond));
  EXPECT_EQ(w.last(), "503 UO");
}

}  // namespace
}  // namespace millrace::dataplane::test
