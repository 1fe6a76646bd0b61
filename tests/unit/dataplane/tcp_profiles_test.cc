// What listeners and clusters ask of TCP: which configuration that is, who shares it, and that an edit changes no open
// connection.
#include "dataplane/tcp_profiles.h"

#include <gtest/gtest.h>

#include "lib/tcp/repair.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

using table::TcpCongestion;
using table::TcpKeepalive;
using table::TcpOptions;
using tcp::CongestionAlgorithm;

TEST(TcpProfiles, OptionsBecomeAConfiguration) {
  const tcp::Config gateway{.user_timeout_ns = 120 * kSecond,
                            .keepalive_idle_ns = 300 * kSecond,
                            .keepalive_interval_ns = 30 * kSecond,
                            .keepalive_probes = 4};
  tcp::Config silent = gateway;
  silent.keepalive_idle_ns = 0;
  struct Case {
    const char* what;
    tcp::Config base;
    TcpOptions options;
    CongestionAlgorithm congestion;
    TimeNs idle_s, interval_s;
    uint8_t probes;
    TimeNs user_timeout_s;
    uint16_t mss;
  };
  const Case cases[] = {
      {"nothing", gateway, {}, CongestionAlgorithm::kCubic, 300, 30, 4, 120, 1460},
      {"bbr", gateway, {.congestion = TcpCongestion::kBbr}, CongestionAlgorithm::kBbr, 300, 30, 4, 120, 1460},
      {"reno", gateway, {.congestion = TcpCongestion::kReno}, CongestionAlgorithm::kReno, 300, 30, 4, 120, 1460},
      {"cubic", gateway, {.congestion = TcpCongestion::kCubic}, CongestionAlgorithm::kCubic, 300, 30, 4, 120, 1460},
      {"keepalive of its own",
       gateway,
       {.keepalive_idle_s = 7, .keepalive_interval_s = 2, .keepalive_probes = 9, .keepalive = TcpKeepalive::kOn},
       CongestionAlgorithm::kCubic,
       7,
       2,
       9,
       120,
       1460},
      {"off", gateway, {.keepalive = TcpKeepalive::kOff}, CongestionAlgorithm::kCubic, 0, 30, 4, 120, 1460},
      {"on where the gateway's is off",
       silent,
       {.keepalive = TcpKeepalive::kOn},
       CongestionAlgorithm::kCubic,
       300,
       30,
       4,
       120,
       1460},
      {"a time alone does not switch it on", silent, {.keepalive_idle_s = 7}, CongestionAlgorithm::kCubic, 0, 30, 4, 120, 1460},
      {"user timeout", gateway, {.user_timeout_ms = 5'000}, CongestionAlgorithm::kCubic, 300, 30, 4, 5, 1460},
      {"segment", gateway, {.max_segment = 536}, CongestionAlgorithm::kCubic, 300, 30, 4, 120, 536},
      {"a larger segment than the path's", gateway, {.max_segment = 9'000}, CongestionAlgorithm::kCubic, 300, 30, 4, 120, 1460},
  };
  for (const Case& c : cases) {
    const tcp::Config out = with_options(c.base, c.options);
    EXPECT_EQ(out.congestion, c.congestion) << c.what;
    EXPECT_EQ(out.keepalive_idle_ns, c.idle_s * kSecond) << c.what;
    EXPECT_EQ(out.keepalive_interval_ns, c.interval_s * kSecond) << c.what;
    EXPECT_EQ(out.keepalive_probes, c.probes) << c.what;
    EXPECT_EQ(out.user_timeout_ns, c.user_timeout_s * kSecond) << c.what;
    EXPECT_EQ(out.mss, c.mss) << c.what;
  }
}

TEST(TcpProfiles, LimitsOfBuffers) {
  tcp::RepairPool repairs(4);
  TcpProfiles profiles(repairs);
  const tcp::Profile& base = profiles.add({});
  const struct {
    uint32_t limit, receive, send;
  } cases[] = {{1 << 20, 256 * 1024, 256 * 1024},
               {256 * 1024, 256 * 1024, 256 * 1024},
               {100'000, 100'000, 100'000},
               {1, 16 * 1024, 16 * 1024}};
  for (const auto& c : cases) {
    const tcp::Profile& p = profiles.with(base, {}, c.limit);
    EXPECT_EQ(p.config.rcv_buf, c.receive) << c.limit;
    EXPECT_EQ(p.config.snd_buf, c.send) << c.limit;
    EXPECT_LE(p.config.rcv_wnd_initial, c.receive) << c.limit;
    EXPECT_EQ(&p == &base, c.limit >= 256 * 1024) << c.limit;
    EXPECT_EQ(&profiles.with(base, {}, c.limit), &p) << "shared";
  }
}

TEST(TcpProfiles, EqualOptionsShareOneAndUnusedOnesGiveWay) {
  tcp::RepairPool repairs(4);
  TcpProfiles profiles(repairs);
  const tcp::Profile& down = profiles.add({});
  const tcp::Profile& up = profiles.add({});
  EXPECT_EQ(&profiles.with(down, {}), &down);
  const TcpOptions bbr{.congestion = TcpCongestion::kBbr};
  const tcp::Profile& a = profiles.with(down, bbr);
  profiles.joined(a);
  EXPECT_EQ(&profiles.with(down, bbr), &a);
  EXPECT_NE(&profiles.with(up, bbr), &a) << "of the other direction";
  EXPECT_EQ(a.repairs, &repairs);

  // As many sets as there is room for, all in use; the next one is refused, until a connection of some set is gone.
  std::vector<const tcp::Profile*> all;
  for (uint16_t i = 1; profiles.in_use() < TcpProfiles::kMost; ++i) {
    all.push_back(&profiles.with(down, {.user_timeout_ms = i}));
    profiles.joined(*all.back());
    ASSERT_LE(i, TcpProfiles::kMost);
  }
  const TcpOptions late{.user_timeout_ms = 70'000};
  EXPECT_EQ(&profiles.with(down, late), &down);
  EXPECT_EQ(profiles.refused(), 1u);
  EXPECT_EQ(&profiles.with(down, bbr), &a) << "what is known still is";
  EXPECT_EQ(a.config.congestion, CongestionAlgorithm::kBbr);
  profiles.left(*all[100]);
  const tcp::Profile& fresh = profiles.with(down, late);
  EXPECT_EQ(&fresh, all[100]);
  EXPECT_EQ(fresh.config.user_timeout_ns, 70 * kSecond);
  for (size_t i = 0; i < all.size(); ++i) {
    if (i == 100) continue;
    EXPECT_EQ(all[i]->config.user_timeout_ns, (i + 1) * kMillisecond) << i;
  }
  profiles.left(down);  // of a permanent one: nothing to count
  EXPECT_EQ(profiles.refused(), 1u);
}

struct Dial {
  Stack& s;
  uint16_t port;
  uint32_t ack = 0;

  void send(uint8_t flags, uint32_t seq) {
    Segment x{ip("10.1.0.2"), ip("10.1.0.1"), {}, ""};
    x.header.src_port = port;
    x.header.dst_port = 80;
    x.header.seq = seq;
    x.header.ack = ack;
    x.header.flags = flags;
    x.header.window = 65'535;
    if (flags == wire::kTcpSyn)
      x.header.mss = 1460, x.header.sack_permitted = true, x.header.timestamps = wire::TcpTimestamps{1, 0};
    else x.header.timestamps = wire::TcpTimestamps{2, ecr};
    s.input(x);
  }
  // The MSS that the SYN-ACK says.
  uint16_t syn() {
    send(wire::kTcpSyn, 100);
    const auto seen = s.sent();
    if (!seen || !seen->tcp.mss) return 0;
    ack = seen->tcp.seq + 1;
    ecr = seen->tcp.timestamps ? seen->tcp.timestamps->val : 0;
    return *seen->tcp.mss;
  }
  Connection* complete() {
    send(wire::kTcpAck, 101);
    return s.stack->pop_ready();
  }
  uint32_t ecr = 0;
};

ListenerSet listening(const TcpOptions& options) {
  const ListenerSet::Entry entries[] = {
      {.address = ip("10.1.0.1"), .port = 80, .id = 11, .tcp = options},
  };
  return ListenerSet(entries);
}

TEST(TcpProfiles, AListenersConnectionsAreWhatItAsksFor) {
  for (const bool cookie : {false, true}) {
    Options o;
    if (cookie) o.max_half_open = 0;
    Stack s(o);
    const ListenerSet before = listening({.max_segment = 600, .congestion = TcpCongestion::kBbr});
    s.stack->set_listeners(&before);
    Dial first{s, 5000};
    EXPECT_EQ(first.syn(), 600) << cookie;
    Connection* a = first.complete();
    ASSERT_NE(a, nullptr) << cookie;
    EXPECT_EQ(tcp::info(a->tcb).congestion, CongestionAlgorithm::kBbr) << cookie;
    EXPECT_EQ(s.stack->profiles().in_use(), 1u);

    // An edit: the next connection follows it, the open one stays as it is.
    const ListenerSet after = listening({.congestion = TcpCongestion::kReno});
    s.stack->set_listeners(&after);
    Dial second{s, 5001};
    EXPECT_EQ(second.syn(), 1460) << cookie;
    Connection* b = second.complete();
    ASSERT_NE(b, nullptr) << cookie;
    EXPECT_EQ(tcp::info(b->tcb).congestion, CongestionAlgorithm::kReno) << cookie;
    EXPECT_EQ(tcp::info(a->tcb).congestion, CongestionAlgorithm::kBbr) << cookie;
    EXPECT_EQ(s.stack->profiles().in_use(), 2u);
    s.stack->abort(*a, s.now);
    s.stack->abort(*b, s.now);
    s.turn();
    EXPECT_EQ(s.stack->profiles().in_use(), 0u);
    EXPECT_EQ(s.stack->active_connections(), 0u);
  }
}

TEST(TcpProfiles, AClustersConnectionsKeepAliveAsItAsks) {
  Stack s;
  const tcp::Profile& upstream = s.stack->add_profile({});
  const TcpOptions options{
      .keepalive_idle_s = 10, .keepalive_interval_s = 2, .keepalive_probes = 1, .keepalive = TcpKeepalive::kOn};
  ConnectError why;
  int owner = 0;
  Connection* c =
      s.stack->connect(ip("10.1.0.2"), 8080, s.stack->profile(upstream, options, kNoBufferLimit), s.now, &owner, &why);
  ASSERT_NE(c, nullptr);
  s.turn();
  const auto syn = s.sent();
  ASSERT_TRUE(syn);
  Segment x{ip("10.1.0.2"), ip("10.1.0.1"), {}, ""};
  x.header.src_port = 8080;
  x.header.dst_port = syn->tcp.src_port;
  x.header.seq = 500;
  x.header.ack = syn->tcp.seq + 1;
  x.header.flags = wire::kTcpSyn | wire::kTcpAck;
  x.header.window = 65'535;
  s.input(x);
  ASSERT_TRUE(s.sent());
  s.wait(9'900 * kMillisecond);
  EXPECT_FALSE(s.sent());
  s.wait(300 * kMillisecond);
  const auto probe = s.sent();
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->tcp.seq, syn->tcp.seq);
  s.wait(2'100 * kMillisecond);
  const auto reset = s.sent();
  ASSERT_TRUE(reset);
  EXPECT_TRUE(reset->tcp.rst());
  s.stack->detach(*c, s.now);
  s.turn();
  EXPECT_EQ(s.stack->profiles().in_use(), 0u);
}

}  // namespace
}  // namespace millrace::dataplane::test
