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

}  // namespace
}  // namespace millrace::dataplane::test
