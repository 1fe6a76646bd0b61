// A port whose transmit queue is full holds its connections back: nothing is lost, nobody is forgotten, other ports go on, and a
// port that takes nothing any more is given up. Two ports of memory; virtual time.
#include <map>

#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

constexpr uint32_t kMss = 1460;

// A client on port 0 (10.1.0.2) or 1 (10.2.0.2): opens, reads what comes in order, acknowledges.
struct Client {
  uint16_t wire = 0, port = 5000;
  uint32_t seq = 100, ack = 0, acknowledged = 0;
  std::string got;
  uint32_t repeated = 0;  // segments with data that was there already
  Connection* connection = nullptr;
};

class TwoPorts {
 public:
  explicit TwoPorts(uint32_t max_connections = 64) {
    TcpStackConfig c;
    c.max_connections = max_connections;
    c.secret[0] = 1;
    c.ip.worker = 1;  // no announcements
    for (int w = 0; w < 2; ++w) {
      InterfaceConfig i;
      i.addresses = {{us(w), 24}};
      i.neighbors = {{them(w), kPeerMac}};
      c.ip.ports.push_back(i);
    }
    const ListenerSet::Entry entries[] = {{ip("0.0.0.0"), 80, 11, false}};
    listeners_ = ListenerSet(entries);
    io::PortQueue* queues[] = {&port[0], &port[1]};
    stack.emplace(c, queues, steering_, nullptr, pool.pool(), headers.pool(), io::PacketPool(), counters.view(), now);
    stack->set_listeners(&listeners_);
  }
  static IpAddress us(int w) { return ip(w == 0 ? "10.1.0.1" : "10.2.0.1"); }
  static IpAddress them(int w) { return ip(w == 0 ? "10.1.0.2" : "10.2.0.2"); }

  void turn(TimeNs step = kMillisecond) {
    now += step;
    stack->receive(now);
    stack->run_timers(now, 64);
    stack->flush(now);
  }
  void deliver(const Client& c, uint8_t flags) {
    Segment x{them(c.wire), us(c.wire), {}, ""};
    x.header.src_port = c.port;
    x.header.dst_port = 80;
    x.header.seq = c.seq;
    x.header.ack = c.ack;
    x.header.flags = flags;
    x.header.window = 65535;
    if (flags & wire::kTcpSyn) x.header.mss = kMss;
    port[c.wire].deliver(pool.make(tcp_frame(x)));
  }
  Client& open(uint16_t wire) {
    Client& c = clients[next_port_];
    c.wire = wire;
    c.port = next_port_++;
    deliver(c, wire::kTcpSyn);
    turn();
    collect();
    ++c.seq;
    deliver(c, wire::kTcpAck);
    turn();
    c.connection = stack->pop_ready();
    EXPECT_NE(c.connection, nullptr);
    TcpStack::take_events(*c.connection);
    return c;
  }
  // The peers read what was sent. Returns the client ports of segments with data, in order.
  std::vector<uint16_t> collect() {
    std::vector<uint16_t> order;
    for (support::FakePort& p : port) {
      while (p.sent() > 0) {
        const auto seen = parse_tcp(p.pop_sent_bytes());
        if (!seen) continue;
        Client& c = clients.at(seen->tcp.dst_port);
        if (seen->tcp.syn()) {
          c.ack = seen->tcp.seq + 1;
          continue;
        }
        if (seen->payload.empty()) continue;
        order.push_back(c.port);
        if (seen->tcp.seq == c.ack) {
          c.ack += static_cast<uint32_t>(seen->payload.size());
          c.got += seen->payload;
        } else {
          ++c.repeated;
        }
      }
    }
    return order;
  }
  void acknowledge() {
    for (auto& [port, c] : clients) {
      if (c.acknowledged != c.ack) deliver(c, wire::kTcpAck);
      c.acknowledged = c.ack;
    }
  }
  void give(Client& c, const std::string& bytes) {
    ASSERT_EQ(tcp::send_copy(c.connection->tcb, base::as_bytes(bytes), stack->pool()), bytes.size());
    stack->touch(*c.connection);
  }
  uint64_t full() const { return counters.dropped(DropReason::kTxQueueFull); }

  support::HeapPacketPool pool{4096}, headers{2048, 128};
  support::FakePort port[2] = {support::FakePort(kOurMac), support::FakePort(kOurMac)};
  LocalCounters counters;
  TimeNs now = 1'000 * kSecond;
  std::map<uint16_t, Client> clients;
  std::optional<TcpStack> stack;

 private:
  io::Steering steering_{1, 7};
  ListenerSet listeners_;
  uint16_t next_port_ = 5000;
};

std::string pattern(size_t n, uint32_t seed) {
  std::string s(n, ' ');
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>('a' + (i * 7 + seed) % 26);
  return s;
}

TEST(BackPressure, SlowPortLosesAndRepeatsNothing) {
  for (const size_t a_burst : {1u, 2u, 7u}) {
    SCOPED_TRACE(a_burst);
    TwoPorts s;
    constexpr size_t kBytes = 60'000;
    for (int i = 0; i < 4; ++i) s.open(0);
    for (auto& [port, c] : s.clients) s.give(c, pattern(kBytes, port));
    s.port[0].tx_a_burst = a_burst;
    size_t got = 0;
    for (int turns = 0; got < 4 * kBytes; ++turns) {
      ASSERT_LT(turns, 400) << got;
      s.turn(10 * base::kMicrosecond);
      s.collect();
      s.acknowledge();
      got = 0;
      for (auto& [port, c] : s.clients) got += c.got.size();
    }
    for (auto& [port, c] : s.clients) {
      EXPECT_EQ(c.got, pattern(kBytes, port));
      EXPECT_EQ(c.repeated, 0u);
      EXPECT_EQ(tcp::info(c.connection->tcb).retransmits, 0u);
    }
    EXPECT_EQ(s.full(), 0u);
  }
}

// Twenty connections, one place a turn: served in the order in which they came to wait, and all of them in the end.
TEST(BackPressure, HeldConnectionsTakeTurns) {
  TwoPorts s;
  constexpr uint32_t kConnections = 20, kEach = 10;
  for (uint32_t i = 0; i < kConnections; ++i) s.open(0);
  s.port[0].tx_room = 0;
  for (auto& [port, c] : s.clients) s.give(c, pattern(kEach * kMss, port));
  s.turn(10 * base::kMicrosecond);
  std::vector<uint16_t> order;
  for (uint32_t k = 0; k < kConnections * kEach; ++k) {
    s.port[0].tx_room = 1;
    s.turn(10 * base::kMicrosecond);
    for (const uint16_t p : s.collect()) order.push_back(p);
  }
  ASSERT_EQ(order.size(), kConnections * kEach);
  std::map<uint16_t, uint32_t> frames;
  uint16_t next = 5000;
  for (const uint16_t p : order) {
    if (frames[p]++ == 0) {
      EXPECT_EQ(p, next++);
    }
  }
  for (const auto& [port, n] : frames) EXPECT_EQ(n, kEach) << port;
  EXPECT_EQ(s.full(), 0u);
}

// What is held back is not made: no segment of a connection that waits exists, so its sequence numbers do not move.
TEST(BackPressure, BlockedPortStopsSegmentsFromBeingMade) {
  TwoPorts s(256);
  for (int i = 0; i < 40; ++i) s.open(0);
  const uint64_t before = s.counters.tcp[stats::TcpCounter::kSegmentsOut].read();
  s.port[0].tx_room = 0;
  for (auto& [port, c] : s.clients) s.give(c, pattern(10 * kMss, port));
  for (int k = 0; k < 50; ++k) s.turn(10 * base::kMicrosecond);
  const uint64_t made = s.counters.tcp[stats::TcpCounter::kSegmentsOut].read() - before;
  EXPECT_GE(made, io::TxBuffer::kBurst);
  EXPECT_LE(made, io::TxBuffer::kBurst + 1u);
  EXPECT_EQ(s.full(), 0u);
}

TEST(BackPressure, StuckPortDoesNotHoldTheOtherOne) {
  TwoPorts s;
  for (int i = 0; i < 10; ++i) s.open(static_cast<uint16_t>(i % 2));
  s.port[0].tx_room = 0;
  constexpr size_t kBytes = 100'000;
  for (auto& [port, c] : s.clients) s.give(c, pattern(kBytes, port));
  size_t done = 0;
  for (int turns = 0; done < 5; ++turns) {
    ASSERT_LT(turns, 200);
    s.turn();
    s.collect();
    s.acknowledge();
    done = 0;
    for (auto& [port, c] : s.clients) done += c.wire == 1 && c.got.size() == kBytes;
  }
  for (auto& [port, c] : s.clients) {
    EXPECT_EQ(c.got, c.wire == 1 ? pattern(kBytes, port) : "");
  }
  EXPECT_EQ(s.full(), 0u);
  // The stuck one is given up after the limit …
  while (s.full() == 0) {
    ASSERT_LT(s.now, 1'010 * kSecond);
    s.turn(10 * kMillisecond);
  }
  EXPECT_GE(s.now - 1'000 * kSecond, io::TxBuffer::kGiveUpAfter);
  // … TCP repeats, and goes on where the port comes back.
  s.port[0].tx_room = SIZE_MAX;
  for (int turns = 0; done < 10; ++turns) {
    ASSERT_LT(turns, 2'000);
    s.turn(10 * kMillisecond);
    s.collect();
    s.acknowledge();
    done = 0;
    for (auto& [port, c] : s.clients) done += c.got.size() == kBytes;
  }
  for (auto& [port, c] : s.clients) EXPECT_EQ(c.got, pattern(kBytes, port));
}

// ARP, and a reset for a segment of nobody, find room behind the data that waits.
TEST(BackPressure, AnswersHaveAReserve) {
  TwoPorts s(256);
  for (int i = 0; i < 20; ++i) s.open(0);
  s.port[0].tx_room = 0;
  for (auto& [port, c] : s.clients) s.give(c, pattern(10 * kMss, port));
  s.turn(10 * base::kMicrosecond);
  wire::ArpRepr request;
  request.operation = wire::ArpOperation::kRequest;
  request.sender_mac = kPeerMac;
  request.sender_ip = TwoPorts::them(0).v4_host_order();
  request.target_ip = TwoPorts::us(0).v4_host_order();
  Bytes arp(wire::kArpLength);
  request.emit(arp.data());
  s.port[0].deliver(s.pool.make(ethernet_frame(wire::kBroadcastMac, kPeerMac, wire::kEtherArp, arp)));
  Client stranger;
  stranger.port = 999;
  s.deliver(stranger, wire::kTcpAck);
  s.turn(10 * base::kMicrosecond);
  EXPECT_EQ(s.full(), 0u);
  s.port[0].tx_room = SIZE_MAX;
  s.turn(10 * base::kMicrosecond);
  bool reset = false, answered = false;
  while (s.port[0].sent() > 0) {
    const Bytes f = s.port[0].pop_sent_bytes();
    answered |= base::load_be16(f.data() + 12) == wire::kEtherArp;
    if (const auto seen = parse_tcp(f); seen && seen->tcp.dst_port == 999) reset = seen->tcp.rst();
  }
  EXPECT_TRUE(answered);
  EXPECT_TRUE(reset);
}

// Sessions that let go while their connection is held back: the FIN still comes, behind the data, and everything is given back.
TEST(BackPressure, HeldConnectionsMayBeLetGo) {
  TwoPorts s;
  for (int i = 0; i < 20; ++i) s.open(0);
  s.port[0].tx_room = 0;
  for (auto& [port, c] : s.clients) s.give(c, pattern(10 * kMss, port));
  s.turn(10 * base::kMicrosecond);
  for (auto& [port, c] : s.clients) {
    if (port % 2 == 0) s.stack->detach(*c.connection, s.now);
    else s.stack->abort(*c.connection, s.now);
  }
  s.port[0].tx_a_burst = 3;
  s.port[0].tx_room = SIZE_MAX;
  for (int k = 0; k < 300; ++k) {
    s.turn(10 * base::kMicrosecond);
    s.collect();
    s.acknowledge();
  }
  for (auto& [port, c] : s.clients) {
    if (port % 2 == 0) {
      EXPECT_EQ(c.got, pattern(10 * kMss, port));
    }
  }
  EXPECT_EQ(s.stack->active_connections(), 10u);  // whose FIN nobody has answered
  EXPECT_EQ(s.full(), 0u);
}

}  // namespace
}  // namespace millrace::dataplane::test
