// Two whole stacks back to back over a wire of virtual time: delay, loss, reordering, repeated and damaged frames; bytes must
// arrive as they were sent, both ways, and every packet must come back. The seed is printed.
#include <deque>
#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "dataplane/tcp_stack.h"
#include "lib/base/prng.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::dataplane {
namespace {

using base::kMicrosecond;
using base::kMillisecond;
using base::kSecond;

struct Impairment {
  std::string name;
  uint32_t loss_ppm = 0, duplicate_ppm = 0, reorder_ppm = 0, damage_ppm = 0;
  TimeNs delay = 50 * kMicrosecond;
  bool chain = false;
  bool v6 = false;
  bool large = false;  // both ports cut and deliver large segments and leave sums alone, as virtio and vhost do
  uint64_t bytes = 10 << 20;
};

io::MacAddress mac_of(uint8_t side) { return {2, 0, 0, 0, 0, side}; }

// One end: a stack, and an application that sends `total` pseudo-random bytes and checks what it gets.
struct End {
  End(uint8_t side, const Impairment& im, TimeNs now)
      : side(side), pool(4096), headers(2048, 128), indirect(4096, 0), port(mac_of(side)), steering(1, 1) {
    io::PortCapabilities& can = port.change();
    can.tx_multi_segment = im.chain || im.large;
    if (im.large) {
      can.tx_tcp_checksum = can.rx_tcp_checksum = can.rx_tcp_unsummed = can.tso = can.tso_sum_with_length = can.lro =
          can.rx_scatter = true;
      can.max_tx_segments = io::kMaxTxSegments;
    }
    TcpStackConfig c;
    c.max_connections = 16;
    c.max_time_wait = 16;
    for (int i = 0; i < 4; ++i) c.secret[i] = 100u * side + static_cast<uint64_t>(i);
    InterfaceConfig i;
    i.addresses = {{address(side), static_cast<uint8_t>(24)}, {address6(side), 64}};
    c.ip.ports = {i};
    c.downstream.time_wait_ns = kSecond;
    io::PortQueue* q[] = {&port};
    const ListenerSet::Entry e[] = {{base::IpAddress::v4(0), 80, 1, false}, {base::IpAddress{}, 80, 1, false}};
    listeners = ListenerSet(e);
    stack.emplace(c, q, steering, nullptr, pool.pool(), headers.pool(), im.chain || im.large ? indirect.pool() : io::PacketPool(),
                  counters.view(), now);
    stack->set_listeners(&listeners);
  }
  static base::IpAddress address(uint8_t side) { return base::IpAddress::v4(0x0a010000u + side); }
  static base::IpAddress address6(uint8_t side) {
    base::IpAddress a = *base::IpAddress::parse("fd00:1::");
    a.bytes[15] = side;
    return a;
  }
  static uint8_t byte_at(uint64_t i, uint8_t from) {
    return static_cast<uint8_t>((i * 0x9e3779b97f4a7c15ull) >> 56) ^ static_cast<uint8_t>(from * 37);
  }

  void work(TimeNs now, uint64_t total) {
    while (Connection* c = stack->pop_ready()) {
      const uint32_t events = TcpStack::take_events(*c);
      if (connection == nullptr) connection = c;
      EXPECT_EQ(events & (tcp::kEventReset | tcp::kEventTimedOut), 0u);
      io::PacketQueue& q = tcp::rx_queue(c->tcb);
      while (!q.empty()) {
        const base::ByteSpan s = q.front();
        for (size_t i = 0; i < s.size(); ++i) wrong += s[i] != byte_at(received + i, static_cast<uint8_t>(3 - side));
        received += s.size();
        q.pop();
      }
      if (events & tcp::kEventReadable) {
        tcp::window_update(c->tcb, now);
        stack->touch(*c);
      }
      if (events & tcp::kEventPeerFin) peer_done = true;
    }
    if (connection == nullptr || detached) return;
    uint8_t chunk[1777];
    const tcp::State state = tcp::state(connection->tcb);
    while (sent < total && (state == tcp::State::kEstablished || state == tcp::State::kCloseWait)) {
      const uint64_t n = std::min<uint64_t>({sizeof chunk, total - sent, tcp::send_space(connection->tcb)});
      if (n == 0) break;
      for (uint64_t i = 0; i < n; ++i) chunk[i] = byte_at(sent + i, side);
      const size_t took = tcp::send_copy(connection->tcb, {chunk, n}, stack->pool());
      sent += took;
      stack->touch(*connection);
      if (took < n) break;
    }
    if (sent == total && !closed) {
      tcp::close(connection->tcb, now);
      stack->touch(*connection);
      closed = true;
    }
    if (closed && peer_done) {
      stack->detach(*connection, now);
      detached = true;
    }
  }

  uint8_t side;
  support::HeapPacketPool pool, headers, indirect;
  support::FakePort port;
  io::Steering steering;
  LocalCounters counters;
  ListenerSet listeners;
  std::optional<TcpStack> stack;
  Connection* connection = nullptr;
  uint64_t sent = 0, received = 0, wrong = 0;
  bool peer_done = false, closed = false, detached = false;
};

void PrintTo(const Impairment& im, std::ostream* out) { *out << im.name; }

class TwoStacks : public testing::TestWithParam<Impairment> {};

// What a frame is on its way: its bytes, and that nobody summed it.
struct Flying {
  End* to;
  std::vector<uint8_t> bytes;
  bool unsummed;
};

// Into the receiver's packets, as many as it takes.
void deliver(const Flying& f) {
  rte_mbuf *head = nullptr, *tail = nullptr;
  for (size_t at = 0; at < f.bytes.size();) {
    const size_t n = std::min<size_t>(f.bytes.size() - at, io::kPayloadRoom);
    rte_mbuf* m = f.to->pool.make(base::ByteSpan(f.bytes).subspan(at, n)).release();
    if (m == nullptr) {
      rte_pktmbuf_free(head);
      return;
    }
    if (head == nullptr) {
      head = m;
    } else {
      tail->next = m;
      ++head->nb_segs;
      head->pkt_len += m->data_len;
    }
    tail = m;
    at += n;
  }
  if (f.unsummed) head->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE | (head->pkt_len > 1514 ? RTE_MBUF_F_RX_LRO : 0);
  f.to->port.deliver(head);
}

TEST_P(TwoStacks, MoveBytesBothWays) {
  const Impairment& im = GetParam();
  const uint64_t seed = 20'240'607;
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  base::Prng random(seed);
  TimeNs now = 5 * kSecond;
  End a(1, im, now), b(2, im, now);
  std::multimap<TimeNs, Flying> wire;
  size_t largest = 0;

  ConnectError why;
  a.connection =
      a.stack->connect(im.v6 ? End::address6(2) : End::address(2), 80, a.stack->downstream_profile(), now, nullptr, &why);
  ASSERT_NE(a.connection, nullptr) << to_string(why);
  const TimeNs limit = now + 600 * kSecond;
  while (
      !(a.detached && b.detached && a.stack->active_connections() == 0 && b.stack->active_connections() == 0 && wire.empty()) &&
      now < limit) {
    while (!wire.empty() && wire.begin()->first <= now) {
      deliver(wire.begin()->second);
      wire.erase(wire.begin());
    }
    for (End* e : {&a, &b}) {
      while (e->stack->receive(now) > 0) {
      }
      e->stack->run_timers(now, 64);
      e->work(now, im.bytes);
      e->stack->flush(now);
    }
    for (End* e : {&a, &b}) {
      End* to = e == &a ? &b : &a;
      while (e->port.sent() > 0) {
        Flying flying{to, {}, (e->port.next_sent()->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) != 0};
        flying.bytes = e->port.pop_sent_bytes();
        std::vector<uint8_t>& f = flying.bytes;
        largest = std::max(largest, f.size());
        if (random.chance(im.loss_ppm, 1'000'000)) continue;
        if (random.chance(im.damage_ppm, 1'000'000)) f[random.below(f.size())] ^= static_cast<uint8_t>(1 + random.below(255));
        const TimeNs late = random.chance(im.reorder_ppm, 1'000'000) ? im.delay * 3 : 0;
        if (random.chance(im.duplicate_ppm, 1'000'000)) wire.emplace(now + im.delay + 1000, flying);
        wire.emplace(now + im.delay + late, std::move(flying));
      }
    }
    TimeNs next = std::min(a.stack->next_deadline(), b.stack->next_deadline());
    if (!wire.empty()) next = std::min(next, wire.begin()->first);
    now = std::max(now + kMicrosecond, std::min(next, now + kSecond));
  }
  EXPECT_LT(now, limit) << "did not end in time";
  for (End* e : {&a, &b}) {
    EXPECT_EQ(e->received, im.bytes) << "side " << int{e->side};
    EXPECT_EQ(e->wrong, 0u);
    EXPECT_EQ(e->stack->active_connections(), 0u);
    EXPECT_EQ(e->pool.in_use() + e->indirect.in_use(), 0u);
  }
  if (im.large) EXPECT_GT(largest, 40'000u);
  else EXPECT_LE(largest, 1'514u);
  if (im.damage_ppm > 0) {
    EXPECT_GT(a.counters.dropped(stats::DropReason::kTcpBadChecksum) + b.counters.dropped(stats::DropReason::kTcpBadChecksum),
              0u);
  }
  if (im.loss_ppm > 0) {
    EXPECT_GT(a.counters.tcp[stats::TcpCounter::kRetransmits].read(), 0u);
  } else if (im.damage_ppm + im.reorder_ppm == 0) {
    EXPECT_EQ(a.counters.tcp[stats::TcpCounter::kRetransmits].read(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, TwoStacks,
                         testing::Values(Impairment{.name = "clean"}, Impairment{.name = "clean_chained", .chain = true},
                                         Impairment{.name = "clean_v6", .v6 = true},
                                         Impairment{.name = "loss_1_percent", .loss_ppm = 10'000},
                                         Impairment{.name = "loss_chained", .loss_ppm = 5'000, .chain = true},
                                         Impairment{.name = "loss_10_percent", .loss_ppm = 100'000, .bytes = 1 << 20},
                                         Impairment{.name = "reordered", .reorder_ppm = 20'000},
                                         Impairment{.name = "repeated", .duplicate_ppm = 20'000},
                                         Impairment{.name = "large", .large = true},
                                         Impairment{.name = "large_v6", .v6 = true, .large = true},
                                         Impairment{.name = "large_loss", .loss_ppm = 5'000, .large = true},
                                         Impairment{.name = "large_reordered", .reorder_ppm = 20'000, .large = true},
                                         Impairment{.name = "damaged", .damage_ppm = 5'000},
                                         Impairment{.name = "everything_at_once",
                                                    .loss_ppm = 10'000,
                                                    .duplicate_ppm = 10'000,
                                                    .reorder_ppm = 10'000,
                                                    .damage_ppm = 5'000,
                                                    .delay = 2 * kMillisecond,
                                                    .chain = true,
                                                    .v6 = true,
                                                    .bytes = 2 << 20}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millrace::dataplane
