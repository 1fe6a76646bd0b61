// A stack under attack, in virtual time: a million frames a second from whoever likes it least, while real clients open
// connections, ask, are answered and close. Whatever comes: every real client gets its answer, memory and answers stay within
// their limits, and when it is over every buffer is back.
#include <deque>
#include <functional>
#include <set>

#include "lib/base/prng.h"
#include "lib/tcp/seq.h"
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

using base::Prng;
constexpr uint32_t kSynAck = wire::kTcpSyn | wire::kTcpAck;

// What a segment is besides its addresses.
Segment segment(const IpAddress& src, uint16_t src_port, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window = 65'535,
                std::string payload = "") {
  Segment s{src, ip("10.1.0.1"), {}, std::move(payload)};
  s.header.src_port = src_port;
  s.header.dst_port = 80;
  s.header.seq = seq;
  s.header.ack = ack;
  s.header.flags = flags;
  s.header.window = window;
  if (flags == wire::kTcpSyn) s.header.mss = 1460;
  return s;
}

// One real client: opens, sends a request, reads the answer, closes, and begins again from another port.
class Client {
 public:
  explicit Client(uint32_t number) : number_(number), port_(static_cast<uint16_t>(2'000 + number * 1'000)) {}

  // A new connection if there is none. What there is to send now.
  std::optional<Segment> begin() {
    if (state_ != State::kIdle) return std::nullopt;
    state_ = State::kOpening;
    seq_ = 1'000'000 * number_ + done_;
    begun_ = true;
    return at(wire::kTcpSyn, "");
  }
  // A real client's SYN or request is repeated when it gets no answer.
  std::optional<Segment> repeat() {
    if (state_ == State::kOpening) return at(wire::kTcpSyn, "");
    if (state_ == State::kAsking) return at(wire::kTcpAck | wire::kTcpPsh, kRequest);
    return std::nullopt;
  }
  // Something arrived for it; what it answers.
  std::vector<Segment> on(const Seen& s) {
    std::vector<Segment> out;
    if (s.tcp.dst_port != port_) return out;
    if (s.tcp.rst()) {
      ++resets_;
      state_ = State::kIdle;
      next_port();
      return out;
    }
    if (state_ == State::kOpening && s.tcp.flags == kSynAck) {
      ++seq_;
      ack_ = s.tcp.seq + 1;
      state_ = State::kAsking;
      out.push_back(at(wire::kTcpAck | wire::kTcpPsh, kRequest));
    } else if (state_ == State::kAsking && s.payload == kAnswer) {
      seq_ += sizeof kRequest - 1;
      ack_ = s.tcp.seq + static_cast<uint32_t>(s.payload.size());
      state_ = State::kClosing;
      out.push_back(at(wire::kTcpAck | wire::kTcpFin, ""));
      ++seq_;
    } else if (state_ == State::kClosing && s.tcp.fin()) {
      ack_ = s.tcp.seq + 1 + static_cast<uint32_t>(s.payload.size());
      out.push_back(at(wire::kTcpAck, ""));
      state_ = State::kIdle;
      ++done_;
      next_port();
    }
    return out;
  }
  uint32_t done() const { return done_; }
  uint32_t resets() const { return resets_; }
  static constexpr char kRequest[] = "GET /", kAnswer[] = "200 OK";

 private:
  enum class State { kIdle, kOpening, kAsking, kClosing };
  Segment at(uint8_t flags, std::string payload) const {
    return segment(ip("10.1.0.2"), port_, flags, seq_, ack_, 65'535, std::move(payload));
  }
  void next_port() {
    port_ = static_cast<uint16_t>(2'000 + number_ * 1'000 + (port_ - 1'999 - number_ * 1'000) % 1'000), ack_ = 0;
  }

  uint32_t number_;
  uint16_t port_;
  State state_ = State::kIdle;
  uint32_t seq_ = 0, ack_ = 0, done_ = 0, resets_ = 0;
  bool begun_ = false;
};

// The stack with an application that answers requests, clients, and an attacker.
class Arena {
 public:
  explicit Arena(const Options& o, uint64_t seed = 1) : s(o), random(seed), clients{Client(0), Client(1), Client(2), Client(3)} {}

  static constexpr uint32_t kPerTurn = 24;  // a burst is 32: room for the clients
  using Attack = std::function<std::optional<Segment>(uint32_t)>;

  // `frames` of the attacker, one each microsecond, the clients in between. After each burst the stack has its turn.
  void flood(uint32_t frames, const Attack& attack) {
    for (uint32_t i = 0; i < frames; ++i) {
      if (const auto x = attack(i)) deliver(*x);
      s.now += 1'000;
      if (i % kPerTurn == kPerTurn - 1) turn();
      if (i % 1'024 == 0)
        for (Client& c : clients)
          if (const auto x = c.begin()) deliver(*x);
      if (i % 100'000 == 99'999)
        for (Client& c : clients)
          if (const auto x = c.repeat()) deliver(*x);
    }
    turn();
  }
  // Time passes without frames, the peers silent, until nothing is left (or the time is over).
  void quiet(TimeNs ns) {
    for (const TimeNs end = s.now + ns;
         s.now < end && (s.stack->active_connections() != 0 || s.stack->time_wait_entries() != 0);) {
      s.now += 100 * kMillisecond;
      for (int i = 0; i < 64; ++i) turn();
    }
  }
  void deliver(const Segment& x) {
    io::PacketPtr p = s.pool.make(tcp_frame(x));
    if (!p) return;  // as a NIC without buffers
    s.port.deliver(std::move(p));
  }
  void turn() {
    most_packets = std::max<uint32_t>(most_packets, s.pool.in_use());
    s.stack->receive(s.now);
    while (Connection* c = s.stack->pop_ready()) application(*c);
    s.stack->run_timers(s.now, 64);
    while (Connection* c = s.stack->pop_ready()) application(*c);
    s.stack->flush(s.now);
    most_connections = std::max(most_connections, s.stack->active_connections());
    most_packets = std::max<uint32_t>(most_packets, s.pool.in_use());
    while (auto seen = s.sent()) {
      ++answers;
      resets += seen->tcp.rst();
      if (watch) watch(*seen);
      for (Client& c : clients)
        for (const Segment& x : c.on(*seen)) deliver(x);
    }
  }
  uint32_t done() const {
    uint32_t n = 0;
    for (const Client& c : clients) n += c.done();
    return n;
  }
  uint32_t client_resets() const {
    uint32_t n = 0;
    for (const Client& c : clients) n += c.resets();
    return n;
  }
  // Nothing is left anywhere.
  void expect_balanced() {
    EXPECT_EQ(s.stack->active_connections(), 0u);
    EXPECT_EQ(s.stack->repairs().in_use(), 0u);
    EXPECT_EQ(s.pool.in_use() + s.headers.in_use(), 0u);
    if (s.stack->admission() != nullptr) {
      EXPECT_EQ(s.stack->admission()->active() + s.stack->admission()->sources(), 0u);
    }
  }
  IpAddress anybody() { return IpAddress::v4(0x0b000000u | static_cast<uint32_t>(random.below(1u << 24))); }
  uint16_t any_port() { return static_cast<uint16_t>(1'024 + random.below(60'000)); }
  uint32_t any32() { return static_cast<uint32_t>(random.next()); }

  Stack s;
  Prng random;
  std::vector<Client> clients;
  std::function<void(const Seen&)> watch;  // sees every frame that the stack sends
  bool reads = true;                       // the application; false: it leaves everything where it is
  uint32_t answers = 0, resets = 0, most_connections = 0, most_packets = 0;
  std::string body = Client::kAnswer;

 private:
  void application(Connection& c) {
    const uint32_t events = TcpStack::take_events(c);
    if (events & (tcp::kEventReset | tcp::kEventTimedOut)) return s.stack->detach(c, s.now);
    if (!reads) return;
    io::PacketQueue& q = tcp::rx_queue(c.tcb);
    bool asked = false;
    while (!q.empty()) asked |= base::as_chars(q.front()) == Client::kRequest, q.pop();
    tcp::window_update(c.tcb, s.now);
    if (asked) tcp::send_copy(c.tcb, base::as_bytes(std::string_view(body)), s.stack->pool());
    s.stack->touch(c);
    if (events & tcp::kEventPeerFin) s.stack->detach(c, s.now);
  }
};

Options large() {
  Options o;
  o.max_connections = 4'096;
  o.max_half_open = 256;
  o.payload_packets = 16'384;
  o.static_router = true;
  return o;
}

// --- segments of nobody
// ---------------------------------------------------------------------------------------------------------------

struct FloodCase {
  const char* what;
  uint8_t flags;
  uint32_t frames;
  uint32_t clients_done;  // at least
  uint32_t answers;       // at most, beside the clients' own
};

TEST(Flood, SegmentsFromAnybody) {
  // Resets are limited to 1,000 a second; frames come for 0.3 s of virtual time. SYNs are all answered: with cookies beyond the
  // backlog.
  const FloodCase cases[] = {
      {"SYN", wire::kTcpSyn, 300'000, 200, 320'000}, {"ACK", wire::kTcpAck, 300'000, 200, 500},
      {"RST", wire::kTcpRst, 300'000, 200, 0},       {"RST with ACK", wire::kTcpRst | wire::kTcpAck, 300'000, 200, 0},
      {"FIN", wire::kTcpFin, 300'000, 200, 500},     {"FIN with ACK", wire::kTcpFin | wire::kTcpAck, 300'000, 200, 500},
      {"SYN with ACK", kSynAck, 300'000, 200, 500},  {"everything set", 0x3f, 300'000, 200, 0},
  };
  for (const FloodCase& c : cases) {
    SCOPED_TRACE(c.what);
    Arena a(large());
    a.flood(c.frames, [&](uint32_t) { return segment(a.anybody(), a.any_port(), c.flags, a.any32(), a.any32()); });
    EXPECT_GE(a.done(), c.clients_done);
    EXPECT_EQ(a.client_resets(), 0u);
    EXPECT_LE(a.answers, c.answers + a.done() * 8 + 64);
    EXPECT_LE(a.most_connections, 256u + 16u);  // half-open ones and the clients'
    EXPECT_LE(a.most_packets, 512u);
    a.quiet(200 * kSecond);
    a.expect_balanced();
  }
}

// The flood goes on while cookies are out: a bare ACK of nobody is then silently ignored, and real ones still get in by cookie.
TEST(Flood, SynsAndForgedAcksTogether) {
  Arena a(large());
  a.flood(500'000, [&](uint32_t i) {
    return segment(a.anybody(), a.any_port(), i % 2 == 0 ? wire::kTcpSyn : wire::kTcpAck, a.any32(), a.any32());
  });
  EXPECT_GE(a.done(), 300u);
  EXPECT_GT(a.s.counted(TcpCounter::kSynCookiesAccepted), 0u);
  EXPECT_GT(a.s.dropped(DropReason::kTcpCookieInvalid), 200'000u);
  EXPECT_LE(a.s.counted(TcpCounter::kAccepted), a.done() + 4u);  // no forged one
  a.quiet(200 * kSecond);
  a.expect_balanced();
}

TEST(Flood, OneNetworksSynsAreLimitedBeforeAnythingIsKept) {
  Options o = large();
  o.admission.sources = {{32, 64, 1'000, 100, 0}, {24, 64, 5'000, 500, 0}};
  Arena a(o);
  a.flood(500'000, [&](uint32_t) {
    return segment(IpAddress::v4(0x0b000000u | static_cast<uint32_t>(a.random.below(256))), a.any_port(), wire::kTcpSyn,
                   a.any32(), 0);
  });
  EXPECT_GE(a.done(), 300u);
  // Half a second at 5,000 a second and the burst: so many were answered, the rest was ignored in silence.
  EXPECT_GT(a.s.dropped(DropReason::kTcpSynRateLimited), 490'000u);
  EXPECT_LE(a.answers, 3'100u + a.done() * 8 + 64);
  a.quiet(200 * kSecond);
  a.expect_balanced();
}

// --- on one connection of the attacker's
// --------------------------------------------------------------------------------------------------

// A connection of 11.0.0.n, established by hand.
struct Attacker {
  Arena& a;
  IpAddress address;
  uint16_t port;
  uint32_t seq = 5'000, ack = 0;
  uint32_t heard = 0;  // segments that it got

  void open(uint16_t window = 65'535) {
    const auto before = a.watch;
    a.watch = [&](const Seen& s) {
      if (s.dst == address && s.tcp.dst_port == port && s.tcp.flags == kSynAck) ack = s.tcp.seq + 1;
    };
    a.deliver(segment(address, port, wire::kTcpSyn, seq, 0, window));
    a.turn();
    ++seq;
    a.deliver(segment(address, port, wire::kTcpAck, seq, ack, window));
    a.turn();
    a.watch = before;
    ASSERT_NE(ack, 0u);
  }
  Segment data(uint32_t at, std::string payload, uint16_t window = 65'535) const {
    return segment(address, port, wire::kTcpAck | wire::kTcpPsh, seq + at, ack, window, std::move(payload));
  }
};

TEST(Flood, ResetsAimedAtAConnectionEndItOnlyWhenExact) {
  Arena a(large());
  Attacker victim{a, ip("11.0.0.9"), 7'777};
  victim.open();
  uint32_t challenges = 0;
  a.watch = [&](const Seen& s) { challenges += s.dst == ip("11.0.0.9"); };
  a.flood(300'000, [&](uint32_t) {
    uint32_t guess = a.any32();
    if (guess == victim.seq) ++guess;
    return segment(ip("11.0.0.9"), 7'777, wire::kTcpRst, a.random.chance(1, 2) ? guess : victim.seq + 1 + guess % 60'000,
                   victim.ack);
  });
  EXPECT_LE(challenges, 2 * 8u);  // RFC 5961 7: so many a second
  EXPECT_GT(a.s.dropped(DropReason::kTcpResetOutOfWindow) + a.s.dropped(DropReason::kTcpChallenged), 290'000u);
  EXPECT_GE(a.done(), 200u);
  EXPECT_EQ(a.s.counted(TcpCounter::kResetReceived), 0u);
  a.deliver(segment(ip("11.0.0.9"), 7'777, wire::kTcpRst, victim.seq, 0));
  a.turn();
  EXPECT_EQ(a.s.counted(TcpCounter::kResetReceived), 1u);
  a.quiet(200 * kSecond);
  a.expect_balanced();
}

TEST(Flood, SmallSegmentsThatNobodyReads) {
  Options o = large();
  Arena a(o);
  Attacker x{a, ip("11.0.0.9"), 7'777};
  x.open();
  a.reads = false;
  uint32_t at = 0;
  for (uint32_t i = 0; i < 300'000; ++i) {
    a.deliver(x.data(at, "x"));
    ++at;
    a.s.now += 1'000;
    if (i % Arena::kPerTurn == Arena::kPerTurn - 1) a.turn();
  }
  // The window is charged by what packets cost, not by their bytes: memory stays at four receive buffers.
  const uint32_t most = 4 * tcp::Config{}.rcv_buf / 2'048;
  EXPECT_LE(a.most_packets, most + 64);
  EXPECT_GT(a.s.dropped(DropReason::kTcpOutOfWindow) + a.s.dropped(DropReason::kTcpWindowOverflow), 0u);  // the window did close
  a.reads = true;
  a.flood(50'000, [](uint32_t) { return std::nullopt; });
  EXPECT_GE(a.done(), 20u);
  a.quiet(1'000 * kSecond);  // keepalive ends it
  a.expect_balanced();
}

TEST(Flood, OutOfOrderBytesOnManyConnections) {
  Arena a(large());
  std::vector<Attacker> all;
  for (uint32_t i = 0; i < 64; ++i) all.push_back({a, IpAddress::v4(0x0b000001u + i), 7'777});
  for (Attacker& x : all) x.open();
  a.flood(300'000, [&](uint32_t) {
    const Attacker& x = all[a.random.below(all.size())];
    return x.data(1 + 2 * static_cast<uint32_t>(a.random.below(30'000)), "x");  // every other byte: no two meet
  });
  // Four receive windows of packet memory a connection (lib/tcp/README.md), as for bytes that come in order.
  EXPECT_LE(a.most_packets, 64u * (4 * tcp::Config{}.rcv_wnd_initial / 2'048) + 256u);
  EXPECT_GT(a.s.dropped(DropReason::kTcpReassemblyFull), 100'000u);
  EXPECT_GE(a.done(), 200u);
  for (const Attacker& x : all) a.deliver(segment(x.address, x.port, wire::kTcpRst, x.seq, 0));
  a.quiet(400 * kSecond);
  a.expect_balanced();
}

// The peer takes back the window that it gave (RFC 9293 3.8.6: SHOULD NOT, and we must live with it), and asks again and again.
TEST(Flood, ShrinkingWindows) {
  Arena a(large());
  a.body = std::string(60'000, 'b');
  Attacker x{a, ip("11.0.0.9"), 7'777};
  x.open();
  uint32_t sent = 0, most_at_once = 0, end = x.ack;
  a.watch = [&](const Seen& s) {
    if (s.dst != ip("11.0.0.9")) return;
    ++sent;
    if (tcp::seq_gt(s.tcp.seq + static_cast<uint32_t>(s.payload.size()), end))
      end = s.tcp.seq + static_cast<uint32_t>(s.payload.size());
  };
  a.deliver(x.data(0, Client::kRequest));
  a.turn();
  const uint32_t request = sizeof Client::kRequest - 1;
  for (uint32_t i = 0; i < 300'000; ++i) {
    const uint32_t before = sent;
    a.deliver(segment(x.address, x.port, wire::kTcpAck, x.seq + request, x.ack, static_cast<uint16_t>(a.random.below(3'000))));
    a.s.now += 1'000;
    if (i % Arena::kPerTurn == Arena::kPerTurn - 1) a.turn();
    most_at_once = std::max(most_at_once, sent - before);
  }
  EXPECT_LE(most_at_once, 64u);  // bounded work a turn
  EXPECT_LE(end - x.ack, 60'000u);
  EXPECT_LE(a.most_packets, 256u);
  a.deliver(segment(x.address, x.port, wire::kTcpRst, x.seq + request, 0));
  a.body = Client::kAnswer;
  a.flood(50'000, [](uint32_t) { return std::nullopt; });
  EXPECT_GE(a.done(), 20u);
  a.quiet(400 * kSecond);
  a.expect_balanced();
}

// --- connections that are held
// ----------------------------------------------------------------------------------------------------------------

// Sockstress: a thousand connections ask, and then have no window for the answer, dripping an acknowledgement for each probe.
// Each ends when the user timeout has passed without progress.
TEST(Flood, ZeroWindowsThatAreAcknowledgedForEver) {
  Options o = large();
  Arena a(o);
  a.body = std::string(20'000, 'b');
  std::vector<Attacker> all;
  for (uint32_t i = 0; i < 1'000; ++i) all.push_back({a, IpAddress::v4(0x0b000001u + i), 7'777});
  for (Attacker& x : all) x.open(0);
  for (Attacker& x : all) a.deliver(x.data(0, Client::kRequest, 0));
  for (int i = 0; i < 64; ++i) a.turn();
  EXPECT_GE(a.s.stack->active_connections(), 1'000u);
  const uint32_t request = sizeof Client::kRequest - 1;
  std::set<uint32_t> ended;
  a.watch = [&](const Seen& s) {
    if (s.dst.v4_host_order() >> 24 != 11) return;
    if (s.tcp.rst()) {
      ended.insert(s.dst.v4_host_order());
      return;
    }
    const Attacker& x = all[s.dst.v4_host_order() - 0x0b000001u];
    a.deliver(segment(x.address, x.port, wire::kTcpAck, x.seq + request, x.ack, 0));
  };
  const TimeNs begin = a.s.now;
  while (a.s.stack->active_connections() != 0 && a.s.now - begin < 600 * kSecond) {
    a.s.now += 200 * kMillisecond;
    for (int i = 0; i < 32; ++i) a.turn();
  }
  const TimeNs took = a.s.now - begin;
  EXPECT_GE(took, tcp::Config{}.user_timeout_ns - kSecond);
  EXPECT_LE(took, 2 * tcp::Config{}.user_timeout_ns);
  EXPECT_EQ(a.s.counted(TcpCounter::kTimedOut), 1'000u);
  EXPECT_EQ(ended.size(), 1'000u);  // each was told
  a.watch = nullptr;
  a.body = Client::kAnswer;
  a.flood(50'000, [](uint32_t) { return std::nullopt; });
  EXPECT_GE(a.done(), 20u);
  a.quiet(400 * kSecond);
  a.expect_balanced();
}

// Hoarding: whoever opens and never lets go gets so many and no more; others still get in.
TEST(Flood, HoardedConnections) {
  Options o = large();
  o.max_connections = 1'024;
  o.admission.sources = {{32, 64, 0, 0, 50}, {24, 64, 0, 0, 200}};
  Arena a(o);
  std::map<std::pair<uint32_t, uint16_t>, uint32_t> syn;  // what it sent, by where from
  std::deque<Segment> acks;
  a.watch = [&](const Seen& s) {
    if (s.dst.v4_host_order() >> 24 != 11 || s.tcp.flags != kSynAck) return;
    acks.push_back(segment(s.dst, s.tcp.dst_port, wire::kTcpAck, s.tcp.ack, s.tcp.seq + 1));
  };
  a.flood(200'000, [&](uint32_t) -> std::optional<Segment> {
    if (!acks.empty()) {
      Segment x = acks.front();
      acks.pop_front();
      return x;
    }
    return segment(IpAddress::v4(0x0b000000u | static_cast<uint32_t>(a.random.below(16))), a.any_port(), wire::kTcpSyn, a.any32(),
                   0);
  });
  EXPECT_LE(a.s.stack->admission()->active(), 200u + 4u);
  EXPECT_GE(a.s.stack->admission()->active(), 200u);
  EXPECT_GT(a.s.dropped(DropReason::kTcpSourceLimit), 10'000u);
  EXPECT_GE(a.done(), 100u);
  EXPECT_EQ(a.client_resets(), 0u);
  EXPECT_LE(a.resets, 1'000u);  // their rate is limited
  a.watch = nullptr;
  a.quiet(1'000 * kSecond);  // keepalive ends those that do not answer
  a.expect_balanced();
}

// --- the same ports again
// -----------------------------------------------------------------------------------------------------------------------

// A client that closed last time leaves TIME-WAIT to us when we close first; its next SYN from the same port takes it over (RFC
// 6191).
TEST(Reuse, FourTupleWhileTheOldOneIsInTimeWait) {
  Stack s(large());
  uint32_t seq = 1'000, ack = 0;
  const auto send = [&](uint8_t flags, std::string payload = "") {
    Segment x = segment(ip("10.1.0.2"), 5'000, flags, seq, ack, 65'535, std::move(payload));
    seq += static_cast<uint32_t>(x.payload.size()) + ((flags & (wire::kTcpSyn | wire::kTcpFin)) != 0);
    s.input(x);
  };
  for (uint32_t round = 0; round < 1'000; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    send(wire::kTcpSyn);
    auto seen = s.sent();
    ASSERT_TRUE(seen && seen->tcp.flags == kSynAck);
    ack = seen->tcp.seq + 1;
    send(wire::kTcpAck | wire::kTcpPsh, "x");
    Connection* c = s.stack->pop_ready();
    ASSERT_NE(c, nullptr);
    TcpStack::take_events(*c);
    tcp::rx_queue(c->tcb).clear();
    s.stack->detach(*c, s.now);  // we close first
    s.turn();
    bool fin = false;
    while ((seen = s.sent())) fin |= seen->tcp.fin();
    ASSERT_TRUE(fin);
    ++ack;
    send(wire::kTcpAck | wire::kTcpFin);
    s.port.clear();
    ASSERT_EQ(s.stack->time_wait_entries(), 1u);
    ASSERT_EQ(s.stack->active_connections(), 0u);
    s.now += kMillisecond;
    seq += 1 + round * 7'919;  // beyond what was seen, as another initial sequence number (RFC 6528 goes up with time)
    ack = 0;
  }
  EXPECT_EQ(s.counted(TcpCounter::kTimeWaitReused), 999u);
  s.wait(120 * kSecond);
  EXPECT_EQ(s.stack->time_wait_entries(), 0u);
  EXPECT_EQ(s.pool.in_use() + s.headers.in_use(), 0u);
}

// Our own side: a range of ports for each address of the port, the next address when the first has none left, then no more.
TEST(SourceAddresses, TheNextOneWhenPortsAreSpent) {
  Options o = large();
  o.port_first = 40'000;
  o.port_last = 40'009;
  o.more_addresses = {{ip("10.1.0.5"), 24}, {ip("10.9.0.1"), 24}, {ip("10.1.0.6"), 32}};
  Stack s(o);
  ConnectError why = ConnectError::kNone;
  std::map<std::string, uint32_t> from;
  std::vector<Connection*> open;
  for (uint32_t i = 0; i < 30; ++i) {
    Connection* c = s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why);
    ASSERT_NE(c, nullptr) << i;
    ++from[c->tuple().local.to_string()];
    open.push_back(c);
  }
  // Not 10.9.0.1, of another network: what is sent there may not come back.
  EXPECT_EQ(from, (std::map<std::string, uint32_t>{{"10.1.0.1", 10}, {"10.1.0.5", 10}, {"10.1.0.6", 10}}));
  EXPECT_EQ(s.counted(TcpCounter::kNextSource), 20u);
  EXPECT_EQ(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kNoLocalPort);
  EXPECT_EQ(s.counted(TcpCounter::kPortsExhausted), 1u);
  EXPECT_NE(s.stack->connect(ip("10.1.0.2"), 8081, s.stack->downstream_profile(), s.now, nullptr, &why),
            nullptr);  // another endpoint
  s.stack->abort(*open[3], s.now);
  s.turn();
  Connection* again = s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->tuple().local, ip("10.1.0.1"));
}

}  // namespace
}  // namespace millrace::dataplane::test
