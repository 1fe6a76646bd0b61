// Connections through a whole stack: hand-built segments in, segments and events out.
#include "tests/unit/dataplane/stack_fixture.h"

namespace millrace::dataplane::test {
namespace {

using tcp::Event;

// The peer's end of one connection, driven by hand.
struct Peer {
  Stack& s;
  IpAddress addr = ip("10.1.0.2"), us = ip("10.1.0.1");
  uint16_t port = 5000, our_port = 80;
  uint32_t seq = 100, ack = 0;

  void send(uint8_t flags, std::string payload = "") {
    Segment x{addr, us, {}, std::move(payload)};
    x.header.src_port = port;
    x.header.dst_port = our_port;
    x.header.seq = seq;
    x.header.ack = ack;
    x.header.flags = flags;
    x.header.window = 65535;
    if (flags & wire::kTcpSyn) x.header.mss = 1460;
    seq += static_cast<uint32_t>(x.payload.size()) + ((flags & wire::kTcpSyn) != 0) + ((flags & wire::kTcpFin) != 0);
    s.input(x);
  }
  // The next segment of theirs; what it carries is acknowledged by our next send().
  std::optional<Seen> expect() {
    auto seen = s.sent();
    if (seen && !seen->tcp.rst()) ack = seen->tcp.seq + seen->tcp.sequence_length();
    return seen;
  }
  // Client side handshake; the connection that the session layer gets.
  Connection* open() {
    send(wire::kTcpSyn);
    const auto synack = expect();
    if (!synack || synack->tcp.flags != (wire::kTcpSyn | wire::kTcpAck)) return nullptr;
    send(wire::kTcpAck);
    return s.stack->pop_ready();
  }
};

std::string read_all(Connection& c) {
  std::string out;
  io::PacketQueue& q = tcp::rx_queue(c.tcb);
  while (!q.empty()) {
    out += base::as_chars(q.front());
    q.pop();
  }
  return out;
}

TEST(Accept, HandshakeThenDataBothWaysThenCloseByThePeer) {
  for (const bool v4 : {true, false}) {
    Stack s;
    Peer p{s};
    if (!v4) p.addr = ip("fd00:1::2"), p.us = ip("fd00:1::1");
    p.send(wire::kTcpSyn);
    EXPECT_EQ(s.stack->pop_ready(), nullptr);  // half open is nobody's business yet
    EXPECT_EQ(s.counted(TcpCounter::kSynReceived), 1u);
    const auto synack = p.expect();
    ASSERT_TRUE(synack);
    EXPECT_EQ(synack->tcp.flags, wire::kTcpSyn | wire::kTcpAck);
    EXPECT_EQ(synack->tcp.ack, 101u);
    EXPECT_EQ(synack->tcp.mss, v4 ? 1460 : 1440);
    EXPECT_EQ(synack->ttl, 64);
    EXPECT_TRUE(synack->dont_fragment);
    EXPECT_EQ(synack->ethernet.dst, kPeerMac);
    p.send(wire::kTcpAck);
    Connection* c = s.stack->pop_ready();
    ASSERT_NE(c, nullptr);
    EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventConnected);
    EXPECT_EQ(c->role, Role::kDownstream);
    EXPECT_EQ(c->owner, nullptr);
    EXPECT_EQ(s.stack->listener_of(*c), v4 ? 11u : 12u);
    EXPECT_EQ(c->tuple().remote, p.addr);
    EXPECT_EQ(s.counted(TcpCounter::kAccepted), 1u);
    EXPECT_EQ(s.counted(TcpCounter::kSynReceived), 0u);

    p.send(wire::kTcpAck | wire::kTcpPsh, "GET /");
    ASSERT_EQ(s.stack->pop_ready(), c);
    EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventReadable);
    EXPECT_EQ(read_all(*c), "GET /");
    tcp::window_update(c->tcb, s.now);
    EXPECT_EQ(tcp::send_copy(c->tcb, base::as_bytes("200"), s.stack->pool()), 3u);
    s.stack->touch(*c);
    s.turn();
    const auto answer = p.expect();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->payload, "200");
    EXPECT_EQ(answer->tcp.ack, p.seq);  // piggybacked

    p.send(wire::kTcpAck | wire::kTcpFin);
    ASSERT_EQ(s.stack->pop_ready(), c);
    EXPECT_TRUE(TcpStack::take_events(*c) & tcp::kEventPeerFin);
    s.stack->detach(*c, s.now);
    s.turn();
    std::optional<Seen> fin;
    while (auto seen = p.expect()) fin = seen;
    ASSERT_TRUE(fin);
    EXPECT_TRUE(fin->tcp.fin());
    p.send(wire::kTcpAck);
    EXPECT_EQ(s.stack->active_connections(), 0u);  // LAST-ACK done: no TIME-WAIT on this side
    EXPECT_EQ(s.stack->time_wait_entries(), 0u);
    EXPECT_EQ(s.pool.in_use() + s.headers.in_use(), 0u);
  }
}

TEST(Accept, RequestInTheSameBurstAsTheHandshakesAck) {
  Stack s;
  Peer p{s};
  p.send(wire::kTcpSyn);
  ASSERT_TRUE(p.expect());
  p.send(wire::kTcpAck | wire::kTcpPsh, "hello");
  Connection* c = s.stack->pop_ready();
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventConnected | tcp::kEventReadable);
  EXPECT_EQ(read_all(*c), "hello");
  s.stack->abort(*c, s.now);
  s.turn();
  EXPECT_EQ(s.stack->active_connections(), 0u);
  std::optional<Seen> last;
  while (auto seen = p.expect()) last = seen;
  ASSERT_TRUE(last);
  EXPECT_TRUE(last->tcp.rst());
}

TEST(Accept, EthernetPaddingIsNotPayload) {
  Stack s;
  Peer p{s};
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);
  TcpStack::take_events(*c);
  Segment x{p.addr, p.us, {}, "ab"};
  x.header.src_port = p.port;
  x.header.dst_port = 80;
  x.header.seq = p.seq;
  x.header.ack = p.ack;
  x.header.flags = wire::kTcpAck;
  x.header.window = 1000;
  Bytes f = tcp_frame(x);
  f.resize(60, 0xee);
  s.input(f);
  ASSERT_EQ(s.stack->pop_ready(), c);
  EXPECT_EQ(read_all(*c), "ab");
}

TEST(Accept, ChainedFrameIsReadWhole) {
  Stack s;
  Peer p{s};
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);
  TcpStack::take_events(*c);
  std::string body;
  for (int i = 0; i < 1401; ++i) body += static_cast<char>('a' + i % 26);
  Segment x{p.addr, p.us, {}, body};
  x.header.src_port = p.port;
  x.header.dst_port = 80;
  x.header.seq = p.seq;
  x.header.ack = p.ack;
  x.header.flags = wire::kTcpAck | wire::kTcpFin;
  x.header.window = 1000;
  const Bytes f = tcp_frame(x);
  // 600 | 601 (odd) | rest, and Ethernet's padding in a segment of its own
  rte_mbuf* head = s.pool.make(base::ByteSpan(f).first(600)).release();
  rte_mbuf* tail = head;
  for (const base::ByteSpan part :
       {base::ByteSpan(f).subspan(600, 601), base::ByteSpan(f).subspan(1201), base::ByteSpan(f).first(4)}) {
    tail->next = s.pool.make(part).release();
    tail = tail->next;
    head->nb_segs++;
    head->pkt_len += static_cast<uint32_t>(part.size());
  }
  s.port.deliver(head);
  s.turn();
  ASSERT_EQ(s.stack->pop_ready(), c);
  EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventReadable | tcp::kEventPeerFin);
  EXPECT_EQ(read_all(*c), body);
  EXPECT_EQ(s.pool.in_use(), 0u);
}

struct RefuseCase {
  const char* what;
  uint16_t port;
  uint8_t flags;
  DropReason reason;
  bool reset;
};
TEST(Refuse, WhatNobodyOwns) {
  const RefuseCase cases[] = {
      {"SYN, no listener", 9, wire::kTcpSyn, DropReason::kTcpNoListener, true},
      {"SYN, listener drains", 81, wire::kTcpSyn, DropReason::kTcpListenerDraining, true},
      {"data, no listener", 9, wire::kTcpAck, DropReason::kTcpNoConnection, true},
      {"ACK to a listener that sent no cookie", 80, wire::kTcpAck, DropReason::kTcpNoConnection, true},
      {"RST", 9, wire::kTcpRst, DropReason::kTcpNoConnection, false},
      {"SYN with FIN", 80, wire::kTcpSyn | wire::kTcpFin, DropReason::kTcpBadFlags, false},
      {"no flags", 80, 0, DropReason::kTcpBadFlags, false},
  };
  for (const RefuseCase& c : cases) {
    Stack s;
    Peer p{s, ip("10.1.0.2"), ip("10.1.0.1"), 5000, c.port};
    p.ack = 4242;
    p.send(c.flags);
    EXPECT_EQ(s.dropped(c.reason), 1u) << c.what;
    const auto rst = s.sent();
    EXPECT_EQ(rst.has_value(), c.reset) << c.what;
    if (rst) {
      EXPECT_TRUE(rst->tcp.rst()) << c.what;
      if (c.flags & wire::kTcpAck) {
        EXPECT_EQ(rst->tcp.seq, 4242u) << c.what;
      } else {
        EXPECT_EQ(rst->tcp.ack, 101u) << c.what;
      }
    }
    EXPECT_EQ(s.stack->active_connections(), 0u) << c.what;
    EXPECT_EQ(s.pool.in_use() + s.headers.in_use(), 0u) << c.what;
  }
}

TEST(Refuse, ResetsAreRateLimited) {
  Stack s;
  Peer p{s, ip("10.1.0.2"), ip("10.1.0.1"), 5000, 9};
  for (int i = 0; i < 250; ++i) p.send(wire::kTcpSyn);
  EXPECT_EQ(s.port.sent(), 100u);
  EXPECT_EQ(s.dropped(DropReason::kTcpResetRateLimited), 150u);
}

TEST(Limits, ConnectionTableFull) {
  Stack s({.max_connections = 2});
  Peer a{s}, b{s}, c{s};
  b.port = 5001;
  c.port = 5002;
  ASSERT_NE(a.open(), nullptr);
  ASSERT_NE(b.open(), nullptr);
  c.send(wire::kTcpSyn);
  EXPECT_EQ(s.dropped(DropReason::kTcpTableFull), 1u);
  EXPECT_EQ(s.port.sent(), 0u);  // ignored: the peer tries again
  ConnectError why;
  EXPECT_EQ(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kTooManyConnections);
}

TEST(Limits, SynFloodIsAnsweredWithCookiesThatWork) {
  Stack s({.max_half_open = 2});
  Peer a{s}, b{s}, c{s};
  b.port = 5001;
  c.port = 5002;
  a.send(wire::kTcpSyn);
  b.send(wire::kTcpSyn);
  s.port.clear();
  EXPECT_EQ(s.stack->active_connections(), 2u);
  c.send(wire::kTcpSyn);
  EXPECT_EQ(s.stack->active_connections(), 2u);  // nothing kept
  EXPECT_EQ(s.counted(TcpCounter::kSynCookiesSent), 1u);
  ASSERT_TRUE(c.expect());
  c.send(wire::kTcpAck | wire::kTcpPsh, "hi");
  Connection* conn = s.stack->pop_ready();
  ASSERT_NE(conn, nullptr);
  EXPECT_EQ(TcpStack::take_events(*conn), tcp::kEventConnected | tcp::kEventReadable);
  EXPECT_EQ(read_all(*conn), "hi");
  EXPECT_EQ(s.counted(TcpCounter::kSynCookiesAccepted), 1u);
  Peer forged{s};
  forged.port = 5003;
  forged.ack = 123456;
  forged.send(wire::kTcpAck);
  EXPECT_EQ(s.dropped(DropReason::kTcpCookieInvalid), 1u);
}

TEST(Limits, HalfOpenConnectionsEndWithoutTheSessionLayer) {
  Stack s;
  Peer p{s};
  p.send(wire::kTcpSyn);
  EXPECT_EQ(s.stack->active_connections(), 1u);
  for (int i = 0; i < 200 && s.stack->active_connections() > 0; ++i) s.wait(kSecond);
  EXPECT_EQ(s.stack->active_connections(), 0u);
  EXPECT_EQ(s.stack->pop_ready(), nullptr);
  EXPECT_EQ(s.counted(TcpCounter::kSynReceived), 0u);
}

TEST(Limits, MemoryPressureStopsNewConnectionsThenPayload) {
  Stack s({.payload_packets = 100});
  Peer p{s};
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);
  TcpStack::take_events(*c);
  std::vector<io::PacketPtr> hoard;
  auto hold = [&](size_t n) {
    while (hoard.size() < n) hoard.push_back(s.pool.alloc());
    for (int i = 0; i < 40; ++i) s.turn();  // the pool is looked at now and then
  };
  hold(80);
  EXPECT_EQ(s.stack->memory_pressure(), MemoryPressure::kNoGrowth);
  hold(92);
  EXPECT_EQ(s.stack->memory_pressure(), MemoryPressure::kNoNew);
  Peer q{s};
  q.port = 6000;
  q.send(wire::kTcpSyn);
  EXPECT_EQ(s.dropped(DropReason::kTcpMemory), 1u);
  ConnectError why;
  EXPECT_EQ(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kNoMemory);
  hold(97);
  EXPECT_EQ(s.stack->memory_pressure(), MemoryPressure::kReserve);
  const uint32_t seq = p.seq;
  p.send(wire::kTcpAck, "too much");
  EXPECT_EQ(s.dropped(DropReason::kTcpMemory), 3u);
  EXPECT_EQ(s.stack->pop_ready(), nullptr);
  hoard.clear();
  hold(0);
  EXPECT_EQ(s.stack->memory_pressure(), MemoryPressure::kNone);
  p.seq = seq;
  p.send(wire::kTcpAck, "too much");
  ASSERT_EQ(s.stack->pop_ready(), c);
  EXPECT_EQ(read_all(*c), "too much");
}

// RFC 7413 through a whole worker: a cookie, data with the SYN, what is counted, and the queue.
TEST(FastOpen, CountsAndQueue) {
  Stack s;
  const ListenerSet::Entry entries[] = {
      {.address = ip("10.1.0.1"), .port = 80, .id = 11, .tcp = {.fast_open_queue = 1}},
      {.address = ip("10.1.0.1"), .port = 81, .id = 12},
  };
  const ListenerSet listeners(entries);
  s.stack->set_listeners(&listeners);
  wire::TcpCookie cookie;
  const auto syn = [&](uint16_t port, const std::string& data, uint16_t to = 80) {
    Segment x{ip("10.1.0.2"), ip("10.1.0.1"), {}, data};
    x.header.src_port = port;
    x.header.dst_port = to;
    x.header.seq = 100;
    x.header.flags = wire::kTcpSyn;
    x.header.window = 65'535;
    x.header.mss = 1460;
    x.header.fast_open = &cookie;
    s.input(x);
    return s.sent();
  };
  const auto first = syn(5000, "too early");
  ASSERT_TRUE(first && first->tcp.fast_open);
  EXPECT_EQ(first->tcp.ack, 101u);
  EXPECT_EQ(first->tcp.fast_open->length, tcp::FastOpenCookies::kLength);
  EXPECT_EQ(s.stack->pop_ready(), nullptr);
  EXPECT_EQ(s.counted(TcpCounter::kFastOpenRequests), 1u);
  cookie = *first->tcp.fast_open;

  const auto opened = syn(5001, "GET /");
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->tcp.ack, 106u);
  EXPECT_FALSE(opened->tcp.fast_open);
  Connection* c = s.stack->pop_ready();
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventConnected | tcp::kEventReadable);
  EXPECT_EQ(read_all(*c), "GET /");
  EXPECT_EQ(tcp::state(c->tcb), tcp::State::kSynReceived);
  EXPECT_EQ(s.counted(TcpCounter::kFastOpens), 1u);
  EXPECT_EQ(s.counted(TcpCounter::kSynReceived), 2u);

  const auto beyond = syn(5002, "GET /");  // one is pending: as many as may be
  ASSERT_TRUE(beyond);
  EXPECT_EQ(beyond->tcp.ack, 101u);
  EXPECT_EQ(s.counted(TcpCounter::kFastOpenOverflows), 1u);
  const auto elsewhere = syn(5003, "GET /", 81);  // a listener without
  ASSERT_TRUE(elsewhere);
  EXPECT_EQ(elsewhere->tcp.ack, 101u);
  EXPECT_FALSE(elsewhere->tcp.fast_open);

  Peer p{s};
  p.port = 5001;
  p.seq = 106;
  p.ack = opened->tcp.seq + 1;
  p.send(wire::kTcpAck);
  EXPECT_EQ(tcp::state(c->tcb), tcp::State::kEstablished);
  EXPECT_EQ(s.stack->pop_ready(), nullptr) << "it was connected before";
  EXPECT_EQ(s.counted(TcpCounter::kAccepted), 1u);
  const auto next = syn(5004, "GET /");
  ASSERT_TRUE(next);
  EXPECT_EQ(next->tcp.ack, 106u);
  cookie.bytes[0] ^= 1;
  const auto bad = syn(5005, "GET /");
  ASSERT_TRUE(bad && bad->tcp.fast_open);
  EXPECT_EQ(bad->tcp.ack, 101u);
  EXPECT_EQ(s.counted(TcpCounter::kFastOpenBadCookies), 1u);

  Connection* d = s.stack->pop_ready();  // let go before its handshake is complete
  ASSERT_NE(d, nullptr);
  s.stack->abort(*d, s.now);
  s.stack->detach(*c, s.now);
  s.turn();
  const auto again = syn(5006, "GET /");
  EXPECT_TRUE(again);
}

// What lib/tcp counts for itself reaches the statistics.
TEST(Counters, ATailLossProbeIsSeen) {
  Stack s;
  Peer p{s};
  Segment x{p.addr, p.us, {}, ""};
  x.header.src_port = p.port;
  x.header.dst_port = p.our_port;
  x.header.seq = p.seq++;
  x.header.flags = wire::kTcpSyn;
  x.header.window = 65'535;
  x.header.mss = 1000;
  x.header.sack_permitted = true;
  s.input(x);
  ASSERT_TRUE(p.expect());
  s.now += 20 * kMillisecond;
  p.send(wire::kTcpAck);
  Connection* c = s.stack->pop_ready();
  ASSERT_NE(c, nullptr);
  const std::string data(3'000, 'x');
  tcp::send_copy(c->tcb, base::as_bytes(data), s.stack->pool());
  s.stack->touch(*c);
  s.turn();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(s.sent());
  for (int i = 0; i < 100 && s.counted(TcpCounter::kLossProbes) == 0; ++i) s.wait(kMillisecond);
  EXPECT_EQ(s.counted(TcpCounter::kLossProbes), 1u);
  EXPECT_TRUE(s.sent());
  s.stack->abort(*c, s.now);
  s.turn();
}

TEST(Connect, HandshakeAndRefusal) {
  Stack s;
  ConnectError why;
  int owner = 0;
  Connection* c = s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, &owner, &why);
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->role, Role::kUpstream);
  EXPECT_EQ(c->owner, &owner);
  s.turn();
  Peer p{s};
  p.port = 8080;
  const auto syn = p.expect();
  ASSERT_TRUE(syn);
  EXPECT_EQ(syn->tcp.flags, wire::kTcpSyn);
  EXPECT_EQ(syn->src, ip("10.1.0.1"));
  EXPECT_GE(syn->tcp.src_port, 40'000);
  EXPECT_LE(syn->tcp.src_port, 40'063);
  p.our_port = syn->tcp.src_port;
  p.send(wire::kTcpSyn | wire::kTcpAck);
  ASSERT_EQ(s.stack->pop_ready(), c);
  EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventConnected);
  EXPECT_EQ(s.counted(TcpCounter::kOpened), 1u);
  const auto ack = p.expect();
  ASSERT_TRUE(ack);
  EXPECT_EQ(ack->tcp.flags, wire::kTcpAck);

  Connection* r = s.stack->connect(ip("10.1.0.2"), 8081, s.stack->downstream_profile(), s.now, nullptr, &why);
  ASSERT_NE(r, nullptr);
  s.turn();
  Peer q{s};
  q.port = 8081;
  const auto syn2 = q.expect();
  ASSERT_TRUE(syn2);
  q.our_port = syn2->tcp.src_port;
  q.send(wire::kTcpRst | wire::kTcpAck);
  ASSERT_EQ(s.stack->pop_ready(), r);
  EXPECT_EQ(TcpStack::take_events(*r), tcp::kEventReset | tcp::kEventClosed);
  EXPECT_EQ(s.counted(TcpCounter::kConnectFailed), 1u);
  EXPECT_EQ(s.stack->active_connections(), 2u);  // ours until we let go
  s.stack->detach(*r, s.now);
  s.turn();
  EXPECT_EQ(s.stack->active_connections(), 1u);
}

TEST(Connect, UnansweredTimesOut) {
  Stack s;
  ConnectError why;
  Connection* c = s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why, 3 * kSecond);
  ASSERT_NE(c, nullptr);
  Connection* ready = nullptr;
  for (int i = 0; i < 50 && ready == nullptr; ++i) {
    s.wait(100 * kMillisecond);
    ready = s.stack->pop_ready();
  }
  ASSERT_EQ(ready, c);
  EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventTimedOut | tcp::kEventClosed);
  EXPECT_EQ(s.counted(TcpCounter::kConnectTimeout), 1u);
  s.stack->detach(*c, s.now);
  s.turn();
  EXPECT_EQ(s.stack->active_connections(), 0u);
}

TEST(Connect, ErrorsAreNamed) {
  Stack s({.port_first = 40'000, .port_last = 40'003});
  ConnectError why;
  for (int i = 0; i < 4; ++i)
    EXPECT_NE(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kNoLocalPort);
  EXPECT_EQ(s.counted(TcpCounter::kPortsExhausted), 1u);
  EXPECT_NE(s.stack->connect(ip("10.1.0.2"), 8081, s.stack->downstream_profile(), s.now, nullptr, &why),
            nullptr);  // another endpoint has its own range
  EXPECT_EQ(s.stack->connect(ip("10.1.0.1"), 80, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kNoRoute);                                                                        // ourselves
  for (const char* nobody : {"224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "ff02::1", "::", "::1"}) {  // MUST-46
    EXPECT_EQ(s.stack->connect(ip(nobody), 80, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr) << nobody;
    EXPECT_EQ(why, ConnectError::kNoRoute) << nobody;
  }
}

TEST(Connect, UnreachableEndsTheAttemptWhenItQuotesOurSyn) {
  for (const bool right_seq : {true, false}) {
    Stack s;
    ConnectError why;
    Connection* c = s.stack->connect(ip("192.0.2.5"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why);
    ASSERT_NE(c, nullptr);
    const uint32_t iss = tcp::info(c->tcb).snd_una;
    Segment quoted{ip("10.1.0.1"), ip("192.0.2.5"), {}, ""};
    quoted.header.src_port = c->tuple().local_port;
    quoted.header.dst_port = 8080;
    quoted.header.seq = right_seq ? iss : iss + 1;
    quoted.header.flags = wire::kTcpSyn;
    const Bytes inner = ip_packet(quoted.src, quoted.dst, wire::kIpTcp, tcp_bytes(quoted));
    wire::IcmpErrorRepr e;
    e.type = 3;
    e.code = 1;
    e.packet = inner;
    Bytes body(e.length_v4());
    e.emit_v4(body.data());
    s.input(
        ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4, ip_packet(ip("10.1.0.254"), ip("10.1.0.1"), wire::kIpIcmp, body)));
    EXPECT_EQ(s.stack->pop_ready(), right_seq ? c : nullptr);
    if (right_seq) {
      EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventReset | tcp::kEventClosed);
    }
  }
}

TEST(TimeWait, EntryAnswersThenExpiresAndGivesThePortBack) {
  Stack s({.port_first = 40'000, .port_last = 40'000});
  ConnectError why;
  Connection* c = s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why);
  ASSERT_NE(c, nullptr);
  s.turn();
  Peer p{s};
  p.port = 8080;
  const auto syn = p.expect();
  ASSERT_TRUE(syn);
  p.our_port = syn->tcp.src_port;
  p.send(wire::kTcpSyn | wire::kTcpAck);
  s.port.clear();
  TcpStack::take_events(*s.stack->pop_ready());
  s.stack->detach(*c, s.now);  // we close first
  s.turn();
  const auto fin = p.expect();
  ASSERT_TRUE(fin);
  EXPECT_TRUE(fin->tcp.fin());
  p.send(wire::kTcpAck | wire::kTcpFin);
  const auto last_ack = p.expect();
  ASSERT_TRUE(last_ack);
  EXPECT_EQ(last_ack->tcp.flags, wire::kTcpAck);
  EXPECT_EQ(last_ack->tcp.ack, p.seq);
  EXPECT_EQ(s.stack->active_connections(), 0u);
  EXPECT_EQ(s.stack->time_wait_entries(), 1u);
  EXPECT_EQ(s.counted(TcpCounter::kTimeWait), 1u);

  p.seq -= 1;
  p.send(wire::kTcpAck | wire::kTcpFin);  // our ACK was lost
  const auto again = p.expect();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->tcp.flags, wire::kTcpAck);
  EXPECT_EQ(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
  EXPECT_EQ(why, ConnectError::kNoLocalPort);  // taken through TIME-WAIT
  s.wait(61 * kSecond);
  EXPECT_EQ(s.stack->time_wait_entries(), 0u);
  EXPECT_NE(s.stack->connect(ip("10.1.0.2"), 8080, s.stack->downstream_profile(), s.now, nullptr, &why), nullptr);
}

TEST(TimeWait, NewSynReopensAndFullTableForgetsTheOldest) {
  Stack s;
  auto close_first = [&](Peer& p) {
    Connection* c = p.open();
    ASSERT_NE(c, nullptr);
    TcpStack::take_events(*c);
    s.stack->detach(*c, s.now);
    s.turn();
    while (p.expect()) {
    }
    p.send(wire::kTcpAck | wire::kTcpFin);
    while (s.sent()) {
    }
  };
  Peer p{s};
  close_first(p);
  EXPECT_EQ(s.stack->time_wait_entries(), 1u);
  p.seq += 100'000;
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);  // RFC 9293 MAY-2
  EXPECT_EQ(s.counted(TcpCounter::kTimeWaitReused), 1u);
  EXPECT_EQ(s.stack->time_wait_entries(), 0u);
  s.stack->abort(*c, s.now);
  s.turn();
  s.port.clear();
  for (uint16_t i = 0; i < 20; ++i) {
    Peer q{s};
    q.port = static_cast<uint16_t>(7000 + i);
    close_first(q);
  }
  EXPECT_EQ(s.stack->time_wait_entries(), 16u);  // its capacity
}

TEST(Sessions, ConnectionOutlivesThePeerUntilLetGo) {
  Stack s;
  Peer p{s};
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);
  TcpStack::take_events(*c);
  p.send(wire::kTcpAck, "last words");
  p.send(wire::kTcpRst);
  ASSERT_EQ(s.stack->pop_ready(), c);
  EXPECT_TRUE(TcpStack::take_events(*c) & tcp::kEventReset);
  s.turn();
  EXPECT_EQ(s.stack->active_connections(), 1u);
  Connection* again = p.open();  // the tuple is free at once, the object is not
  ASSERT_NE(again, nullptr);
  EXPECT_NE(again, c);
  s.stack->detach(*c, s.now);
  s.turn();
  EXPECT_EQ(s.stack->active_connections(), 1u);
}

TEST(Sessions, RescheduleComesBack) {
  Stack s;
  Peer p{s};
  Connection* c = p.open();
  ASSERT_NE(c, nullptr);
  TcpStack::take_events(*c);
  s.stack->reschedule(*c, tcp::kEventReadable);
  s.stack->reschedule(*c, tcp::kEventReadable);
  EXPECT_EQ(s.stack->pop_ready(), c);
  EXPECT_EQ(s.stack->pop_ready(), nullptr);
}

TEST(Output, ChainsByReferenceWhereThePortCan) {
  for (const bool chain : {true, false}) {
    Stack s({.chain = chain});
    Peer p{s};
    Connection* c = p.open();
    ASSERT_NE(c, nullptr);
    TcpStack::take_events(*c);
    std::string body;
    for (int i = 0; i < 1400; ++i) body += static_cast<char>('A' + i % 26);
    tcp::send(c->tcb, s.pool.make(body.substr(0, 701)));  // an odd first piece: the checksum of the second is swapped
    tcp::send(c->tcb, s.pool.make(body.substr(701)));
    s.stack->touch(*c);
    s.turn();
    rte_mbuf* m = s.port.pop_sent();
    ASSERT_NE(m, nullptr);
    EXPECT_EQ(m->nb_segs, chain ? 3 : 1);
    s.port.deliver(m);  // look at it as flat bytes
    rte_mbuf* out[1];
    ASSERT_EQ(s.port.rx_burst(out, 1), 1);
    s.port.tx_burst(out, 1);
    const auto seen = s.sent();
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->payload, body);
  }
}

// A port with TSO gets one big frame with what it needs to cut it; a payload in too many packets is cut by us.
TEST(Output, BigSegmentsWhereThePortCuts) {
  for (const bool few_packets : {true, false}) {
    Stack s({.chain = true, .tso = true});
    Peer p{s};
    Connection* c = p.open();
    ASSERT_NE(c, nullptr);
    TcpStack::take_events(*c);
    std::string body;
    for (int i = 0; i < 9000; ++i) body += static_cast<char>('A' + i % 26);
    for (size_t at = 0; at < body.size(); at += few_packets ? 1800 : 450) {
      io::PacketPtr piece = s.pool.make(body.substr(at, few_packets ? 1800 : 450));
      if (!few_packets) piece.append(piece.tailroom()), piece.trim_back(piece.size() - 450);
      tcp::tx_queue(c->tcb).push_whole(std::move(piece));
    }
    tcp::send_copy(c->tcb, base::as_bytes("!"), s.stack->pool());  // wakes the sender
    body += "!";
    s.stack->touch(*c);
    s.turn();
    std::string sent;
    size_t frames = 0;
    while (rte_mbuf* m = s.port.pop_sent()) {
      ++frames;
      const uint32_t payload = m->pkt_len - 54;
      EXPECT_TRUE(m->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM);
      EXPECT_EQ(m->l2_len, 14);
      EXPECT_EQ(m->l3_len, 20);
      EXPECT_EQ(m->l4_len, 20);
      const bool big = payload > 1460;
      EXPECT_EQ((m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0, big);
      if (big) {
        EXPECT_EQ(m->tso_segsz, 1460);
      }
      const auto pseudo = wire::pseudo_header(p.us, p.addr, wire::kIpTcp, big ? 0 : 20 + payload);
      EXPECT_EQ(base::load_unaligned<uint16_t>(rte_pktmbuf_mtod(m, uint8_t*) + 34 + 16), wire::checksum_fold(pseudo));
      std::string flat;
      for (const rte_mbuf* seg = m; seg != nullptr; seg = seg->next)
        flat.append(rte_pktmbuf_mtod(seg, const char*), seg->data_len);
      sent += flat.substr(54);
      rte_pktmbuf_free(m);
    }
    EXPECT_EQ(sent, body.substr(0, sent.size()));
    EXPECT_EQ(sent.size(), body.size());
    if (few_packets) {
      EXPECT_LE(frames, 2u);
    } else {
      EXPECT_EQ(frames, 7u);
    }
  }
}

// Two workers, one queue: worker 0 gets everything, and hands over what belongs to worker 1.
TEST(Handover, SegmentsReachTheWorkerThatOwnsTheFlow) {
  io::Steering steering(2, 99);
  io::HandoverMesh mesh(2);
  Stack a({.workers = 2, .worker = 0}, &steering, &mesh);
  Stack b({.workers = 2, .worker = 1}, &steering, &mesh);
  int owned[2] = {};
  for (uint16_t i = 0; i < 40; ++i) {
    Peer p{a};
    p.port = static_cast<uint16_t>(5000 + i);
    p.send(wire::kTcpSyn);
    b.turn();
    const bool at_a = a.port.sent() > 0, at_b = b.port.sent() > 0;
    EXPECT_NE(at_a, at_b);
    const uint32_t owner = steering.owner(0, p.us, 80, p.addr, p.port);
    EXPECT_EQ(owner, at_b ? 1u : 0u);
    ++owned[owner];
    a.port.clear();
    b.port.clear();
  }
  EXPECT_GT(owned[0], 5);
  EXPECT_GT(owned[1], 5);
  EXPECT_EQ(a.counters.loop[stats::LoopCounter::kHandoverOut].read(), static_cast<uint64_t>(owned[1]));
  EXPECT_EQ(b.counters.loop[stats::LoopCounter::kHandoverIn].read(), static_cast<uint64_t>(owned[1]));
  // What worker 1 opens comes back to worker 1, although it arrives at worker 0.
  for (int i = 0; i < 10; ++i) {
    ConnectError why;
    Connection* c = b.stack->connect(ip("10.1.0.2"), 8080, b.stack->downstream_profile(), b.now, nullptr, &why);
    ASSERT_NE(c, nullptr);
    EXPECT_EQ(steering.owner(0, c->tuple().local, c->tuple().local_port, c->tuple().remote, 8080), 1u);
    Peer p{a};
    p.port = 8080;
    p.our_port = c->tuple().local_port;
    p.ack = tcp::info(c->tcb).snd_una + 1;
    b.turn();
    p.send(wire::kTcpSyn | wire::kTcpAck);
    b.turn();
    EXPECT_EQ(b.stack->pop_ready(), c);
  }
}

// An ICMP error comes from some router, so the port sends it anywhere; whoever gets it knows whose connection it quotes.
TEST(Handover, IcmpErrorsReachTheWorkerOfTheConnectionTheyQuote) {
  for (const bool arrives_at_owner : {true, false}) {
    io::Steering steering(2, 99);
    io::HandoverMesh mesh(2);
    Stack a({.workers = 2, .worker = 0}, &steering, &mesh);
    Stack b({.workers = 2, .worker = 1}, &steering, &mesh);
    ConnectError why;
    Connection* c = b.stack->connect(ip("192.0.2.5"), 8080, b.stack->downstream_profile(), b.now, nullptr, &why);
    ASSERT_NE(c, nullptr);
    Segment quoted{ip("10.1.0.1"), ip("192.0.2.5"), {}, ""};
    quoted.header.src_port = c->tuple().local_port;
    quoted.header.dst_port = 8080;
    quoted.header.seq = tcp::info(c->tcb).snd_una;
    quoted.header.flags = wire::kTcpSyn;
    const Bytes inner = ip_packet(quoted.src, quoted.dst, wire::kIpTcp, tcp_bytes(quoted));
    wire::IcmpErrorRepr e;
    e.type = 3;
    e.code = 1;
    e.packet = inner;
    Bytes body(e.length_v4());
    e.emit_v4(body.data());
    (arrives_at_owner ? b : a)
        .input(ethernet_frame(kOurMac, kPeerMac, wire::kEtherIpv4,
                              ip_packet(ip("10.1.0.254"), ip("10.1.0.1"), wire::kIpIcmp, body)));
    b.turn();
    EXPECT_EQ(b.stack->pop_ready(), c);
    EXPECT_EQ(TcpStack::take_events(*c), tcp::kEventReset | tcp::kEventClosed);
    EXPECT_EQ(a.dropped(DropReason::kIcmpIgnored) + b.dropped(DropReason::kIcmpIgnored), 0u);
    EXPECT_EQ(a.counters.loop[stats::LoopCounter::kHandoverOut].read(), arrives_at_owner ? 0u : 1u);
    b.stack->detach(*c, b.now);
    b.turn();
    a.port.clear();
    b.port.clear();
    EXPECT_EQ(a.pool.in_use(), 0u);
  }
}

TEST(Handover, FullRingIsCounted) {
  io::Steering steering(2, 99);
  io::HandoverMesh mesh(2);
  Stack a({.payload_packets = 2048, .workers = 2, .worker = 0}, &steering, &mesh);
  Peer p{a};
  while (steering.owner(0, p.us, 80, p.addr, p.port) != 1) ++p.port;
  for (uint32_t i = 0; i < io::HandoverMesh::kRingSize + 9; ++i) p.send(wire::kTcpSyn);
  EXPECT_EQ(a.dropped(DropReason::kWrongCore), 10u);  // a ring holds one less than its size
  rte_mbuf* frame;
  while (mesh.pop(0, 1, &frame, 1) == 1) rte_pktmbuf_free(frame);
}

TEST(Handover, NeighborNewsReachesAllWorkers) {
  io::Steering steering(2, 99);
  io::HandoverMesh mesh(2);
  Stack a({.static_neighbor = false, .workers = 2, .worker = 0}, &steering, &mesh);
  Stack b({.static_neighbor = false, .workers = 2, .worker = 1}, &steering, &mesh);
  wire::ArpRepr arp;
  arp.operation = wire::ArpOperation::kRequest;
  arp.sender_mac = kPeerMac;
  arp.sender_ip = ip("10.1.0.7").v4_host_order();
  arp.target_ip = ip("10.1.0.1").v4_host_order();
  Bytes body(wire::kArpLength);
  arp.emit(body.data());
  a.input(ethernet_frame(wire::kBroadcastMac, kPeerMac, wire::kEtherArp, body));
  b.turn();
  EXPECT_EQ(a.port.sent(), 1u);  // answered once
  EXPECT_EQ(b.port.sent(), 0u);
  EXPECT_NE(a.stack->ip().neighbors().find(0, ip("10.1.0.7")), NeighborTable::kNone);
  EXPECT_NE(b.stack->ip().neighbors().find(0, ip("10.1.0.7")), NeighborTable::kNone);
  EXPECT_EQ(a.pool.in_use(), 0u);
}

}  // namespace
}  // namespace millrace::dataplane::test
