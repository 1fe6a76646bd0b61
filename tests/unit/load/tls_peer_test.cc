// TLS endpoints of the generator against each other: handshakes of both versions, tickets, data in pieces, limits, errors.
#include "perf/load/tls_peer.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/tls/certificate.h"
#include "lib/tls/memory.h"
#include "lib/tls/self_signed.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::load {
namespace {

// Before any test uses OpenSSL.
const bool kHooked = tls::install_memory_hooks().ok();

using Handle = TlsPeer::Handle;

// One peer that plays both sides, and a wire that delivers in pieces.
struct Rig {
  support::HeapPacketPool packets{4096};
  std::unique_ptr<TlsPeer> peer;

  explicit Rig(TlsConfig config) {
    config.clients = config.servers = true;
    auto made = TlsPeer::create(config, packets.pool());
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error());
    peer = std::move(*made);
    peer->start_thread();
  }
  ~Rig() {
    peer->end_thread();
    peer.reset();
    EXPECT_EQ(packets.in_use(), 0u);
  }
  struct Received {
    std::string text;
    TlsStep last;
    bool handshake_done = false, resumed = false;
  };
  // Takes up to `piece` bytes of what `from` has to send to `to`, as its TCP would: acknowledged at once.
  bool carry(Handle from, Handle to, Received& r, size_t piece) {
    io::PacketQueue& q = peer->output(from);
    if (q.empty()) return false;
    std::string bytes(std::min<uint64_t>(q.bytes(), piece), 0);
    q.peek(0, reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
    q.consume(bytes.size());
    const auto sink = [&](base::ByteSpan s) { r.text.append(reinterpret_cast<const char*>(s.data()), s.size()); };
    // Both ways in which a frame can be handed over.
    io::PacketPtr packet = bytes.size() <= 2048 && bytes.size() % 2 == 0 ? packets.pool().alloc() : io::PacketPtr();
    if (packet) {
      std::memcpy(packet.append(static_cast<uint32_t>(bytes.size())), bytes.data(), bytes.size());
      r.last = peer->receive(to, std::move(packet), sink);
    } else {
      r.last = peer->receive(to, base::as_bytes(bytes), sink);
    }
    r.handshake_done |= r.last.handshake_done;
    r.resumed |= r.last.resumed;
    return true;
  }
  struct Pair {
    Handle client, server;
    Received at_client, at_server;
  };
  Pair open(uint32_t target = 0) {
    Pair p{peer->open_client(target), peer->open_server(), {}, {}};
    EXPECT_NE(p.client, TlsPeer::kNoHandle);
    EXPECT_NE(p.server, TlsPeer::kNoHandle);
    return p;
  }
  void settle(Pair& p, size_t piece = 1400) {
    while (carry(p.client, p.server, p.at_server, piece) | carry(p.server, p.client, p.at_client, piece)) {
    }
  }
  void close(const Pair& p) {
    peer->close(p.client);
    peer->close(p.server);
  }
};

std::string pattern(size_t n) {
  std::string s(n, 0);
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>(i * 31 + i / 251);
  return s;
}

class TlsPeerVersions : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(LoadTls, TlsPeerVersions, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& i) { return i.param ? "Tls12" : "Tls13"; });

TEST_P(TlsPeerVersions, HandshakeInPiecesThenDataBothWays) {
  ASSERT_TRUE(kHooked);
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{1400}, size_t{100'000}}) {
    Rig rig({.max_sessions = 2, .sni = "www.example.com", .tls12 = GetParam()});
    Rig::Pair p = rig.open();
    EXPECT_FALSE(rig.peer->established(p.client));
    EXPECT_GT(rig.peer->output(p.client).bytes(), 100u);  // the ClientHello is there at once
    EXPECT_EQ(rig.peer->send(p.client, base::as_bytes(std::string_view("early")), 0), 0u);
    rig.settle(p, piece);
    EXPECT_TRUE(p.at_client.handshake_done && p.at_server.handshake_done);
    EXPECT_FALSE(p.at_client.resumed);
    ASSERT_TRUE(rig.peer->established(p.client) && rig.peer->established(p.server));
    const tls::Negotiated n = rig.peer->negotiated(p.server);
    EXPECT_EQ(n.version, GetParam() ? tls::Version::kTls12 : tls::Version::kTls13);
    EXPECT_EQ(n.alpn, "http/1.1");
    EXPECT_EQ(n.server_name, "www.example.com");

    const std::string request = "GET / HTTP/1.1\r\n\r\n", response = pattern(50'000);
    EXPECT_EQ(rig.peer->send(p.client, base::as_bytes(request), 0), request.size());
    EXPECT_EQ(rig.peer->send(p.server, base::as_bytes(response), 0), response.size());
    rig.settle(p, piece);
    EXPECT_EQ(p.at_server.text, request);
    EXPECT_EQ(p.at_client.text, response);

    rig.peer->close_notify(p.server);
    rig.peer->close_notify(p.server);
    rig.settle(p, piece);
    EXPECT_TRUE(p.at_client.last.peer_closed);
    EXPECT_EQ(p.at_client.last.error, tls::TlsError::kNone);
    rig.close(p);
  }
}

TEST_P(TlsPeerVersions, AMegabyteAgainstTheLimit) {
  Rig rig({.max_sessions = 2, .tls12 = GetParam()});
  Rig::Pair p = rig.open();
  rig.settle(p);
  const std::string data = pattern(1'000'000);
  size_t sent = 0;
  int refused = 0;
  while (p.at_client.text.size() < data.size()) {
    const size_t n = rig.peer->send(p.server, base::as_bytes(data).subspan(sent), 0);
    sent += n;
    refused += n == 0;
    EXPECT_LE(rig.peer->output(p.server).bytes(), kTlsOutputLimit + tls::kMaxRecordBytes + 64);
    ASSERT_TRUE(rig.carry(p.server, p.client, p.at_client, 30'000));
    ASSERT_EQ(p.at_client.last.error, tls::TlsError::kNone);
  }
  EXPECT_EQ(sent, data.size());
  EXPECT_EQ(p.at_client.text, data);
  EXPECT_GT(refused, 3);
  rig.close(p);
}

TEST_P(TlsPeerVersions, TicketsBelongToTheirTarget) {
  Rig rig({.targets = 2, .max_sessions = 2, .sni = "a.example", .resume = true, .tls12 = GetParam()});
  const auto resumed = [&](uint32_t target) {
    Rig::Pair p = rig.open(target);
    rig.settle(p);
    EXPECT_TRUE(p.at_client.handshake_done);
    EXPECT_EQ(p.at_client.resumed, p.at_server.resumed);
    rig.close(p);
    return p.at_client.resumed;
  };
  EXPECT_FALSE(resumed(0));
  EXPECT_FALSE(resumed(1));
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(resumed(0));
    EXPECT_TRUE(resumed(1));
  }
  EXPECT_EQ(rig.peer->counters().handshakes, 24u);
  EXPECT_EQ(rig.peer->counters().resumed, 20u);
}

TEST_P(TlsPeerVersions, WithoutResumeEveryHandshakeIsFull) {
  Rig rig({.max_sessions = 2, .tls12 = GetParam()});
  for (int i = 0; i < 3; ++i) {
    Rig::Pair p = rig.open();
    rig.settle(p);
    EXPECT_TRUE(p.at_client.handshake_done);
    EXPECT_FALSE(p.at_client.resumed);
    rig.close(p);
  }
}

// Fifty connections open together, again and again: from the second round on all are resumed.
TEST_P(TlsPeerVersions, ManyAtATimeAreAllResumed) {
  constexpr uint32_t kPairs = 50;
  Rig rig({.max_sessions = 2 * kPairs, .resume = true, .tls12 = GetParam()});
  for (int round = 0; round < 4; ++round) {
    std::vector<Rig::Pair> pairs;
    for (uint32_t i = 0; i < kPairs; ++i) pairs.push_back(rig.open());
    uint32_t resumed = 0;
    for (Rig::Pair& p : pairs) {
      rig.settle(p);
      EXPECT_TRUE(p.at_client.handshake_done);
      resumed += p.at_client.resumed;
    }
    for (Rig::Pair& p : pairs) rig.close(p);
    EXPECT_EQ(resumed, round == 0 ? 0 : kPairs);
  }
}

TEST_P(TlsPeerVersions, FullIsSaidAndForgotten) {
  Rig rig({.max_sessions = 2, .tls12 = GetParam()});
  Rig::Pair p = rig.open();
  EXPECT_EQ(rig.peer->open_client(0), TlsPeer::kNoHandle);
  EXPECT_EQ(rig.peer->open_server(), TlsPeer::kNoHandle);
  EXPECT_EQ(rig.peer->counters().limit, 2u);
  rig.close(p);
  p = rig.open();
  rig.settle(p);
  EXPECT_TRUE(rig.peer->established(p.client));
  rig.close(p);
  EXPECT_EQ(rig.peer->open(), 0u);
}

TEST_P(TlsPeerVersions, AChangedByteEndsTheSession) {
  Rig rig({.max_sessions = 2, .tls12 = GetParam()});
  Rig::Pair p = rig.open();
  rig.settle(p);
  rig.peer->send(p.client, base::as_bytes(std::string_view("hello")), 0);
  io::PacketQueue& q = rig.peer->output(p.client);
  std::string bytes(q.bytes(), 0);
  q.peek(0, reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
  q.clear();
  bytes[7] = static_cast<char>(bytes[7] ^ 1);
  const TlsStep step = rig.peer->receive(p.server, base::as_bytes(bytes), [](base::ByteSpan) { FAIL(); });
  EXPECT_EQ(step.error, tls::TlsError::kBadRecordMac);
  EXPECT_FALSE(rig.peer->output(p.server).empty());  // the alert
  rig.carry(p.server, p.client, p.at_client, 2000);
  EXPECT_EQ(p.at_client.last.error, tls::TlsError::kAlertBadRecordMac);
  EXPECT_EQ(rig.peer->receive(p.server, io::PacketPtr(), [](base::ByteSpan) {}).error, tls::TlsError::kBadRecordMac);
  rig.close(p);
}

TEST(TlsPeer, NoPacketLeftForAHandshakeOnlyDelaysIt) {
  Rig rig({.max_sessions = 2});
  Rig::Pair p = rig.open();
  std::string hello(rig.peer->output(p.client).bytes(), 0);
  rig.peer->output(p.client).peek(0, reinterpret_cast<uint8_t*>(hello.data()), hello.size());
  io::PacketPtr packet = rig.packets.pool().alloc();
  std::memcpy(packet.append(static_cast<uint32_t>(hello.size())), hello.data(), hello.size());
  rig.peer->output(p.client).clear();
  rig.packets.set_limit(rig.packets.in_use() - 1);  // the hello's own packet is free when it has been read
  TlsStep s = rig.peer->receive(p.server, std::move(packet), [](base::ByteSpan) {});
  EXPECT_EQ(s.error, tls::TlsError::kNone);
  EXPECT_TRUE(s.blocked);
  rig.packets.set_limit(rig.packets.capacity());
  s = rig.peer->receive(p.server, io::PacketPtr(), [](base::ByteSpan) {});
  EXPECT_FALSE(s.blocked);
  rig.settle(p);
  EXPECT_TRUE(rig.peer->established(p.client));
  rig.close(p);
}

TEST(TlsPeer, OpenSessionsGoWithIt) {
  Rig rig({.max_sessions = 4});
  Rig::Pair p = rig.open();
  rig.settle(p);
  rig.peer->send(p.client, base::as_bytes(std::string_view("not fetched")), 0);
  // ~Rig: every packet is back
}

TEST(TlsPeer, CertificateOfTheUser) {
  auto pair = tls::make_self_signed({"mine.example"}, 3);
  ASSERT_TRUE(pair.ok()) << pair.error();
  Rig rig({.max_sessions = 2, .certificate_pem = pair->chain, .key_pem = pair->key});
  EXPECT_EQ(rig.peer->certificate_pem(), pair->chain);
  Rig::Pair p = rig.open();
  rig.settle(p);
  EXPECT_TRUE(rig.peer->established(p.client));
  rig.close(p);
}

TEST(TlsPeer, MistakesAreNamed) {
  support::HeapPacketPool packets(64);
  auto other = tls::make_self_signed({"other.example"});
  auto pair = tls::make_self_signed({"mine.example"});
  ASSERT_TRUE(pair.ok() && other.ok());
  const struct {
    TlsConfig config;
    std::string want;  // a part of it
  } cases[] = {
      {{}, "neither for clients nor for servers"},
      {{.clients = true, .max_sessions = 0}, "no session"},
      {{.clients = true, .targets = 0}, "1 to 65536 targets"},
      {{.clients = true, .sni = std::string(256, 'a')}, "longer than 255 bytes"},
      {{.servers = true, .certificate_pem = pair->chain}, "come together"},
      {{.servers = true, .certificate_pem = "no PEM", .key_pem = "no PEM"}, "certificate 1: "},
      {{.servers = true, .certificate_pem = pair->chain, .key_pem = other->key}, "certificate 1: "},
      {{.servers = true, .sni = "a b"}, "'a b' is neither"},
  };
  for (const auto& c : cases) {
    const auto made = TlsPeer::create(c.config, packets.pool());
    ASSERT_FALSE(made.ok()) << c.want;
    EXPECT_NE(made.error().find(c.want), std::string::npos) << made.error();
  }
}

}  // namespace
}  // namespace millrace::load
