// A client and a server session joined by two byte queues, for tests: what one sends is delivered to the other in pieces of a
// chosen size.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "lib/tls/session.h"
#include "tests/support/heap_packet_pool.h"
#include "tests/unit/tls/test_certificate.h"

namespace millrace::tls::testing {

inline constexpr uint64_t kNoLimit = UINT64_MAX;

// One end: its session and its queues.
struct End {
  Session* session = nullptr;
  io::PacketQueue cipher_in, cipher_out, plain_in, plain_out;
  bool eof = false;
  uint64_t cipher_limit = 256 * 1024;
  io::PacketPool* pool = nullptr;
  Wire wire() { return {cipher_in, cipher_out, *pool, cipher_limit, eof}; }
  Progress receive(uint64_t max = kNoLimit, bool allow = true) { return session->receive(wire(), plain_out, max, allow); }
  Progress send(base::TimeNs now = 0, uint64_t max = kNoLimit) { return session->send(wire(), plain_in, max, now); }
  void queue(std::string_view s) { ASSERT_EQ(plain_in.append_copy(s, *pool), s.size()); }
  // All plaintext received so far, taken.
  std::string take() {
    std::string out(plain_out.bytes(), 0);
    plain_out.peek(0, reinterpret_cast<uint8_t*>(out.data()), out.size());
    plain_out.clear();
    return out;
  }
};

struct Pair {
  support::HeapPacketPool packets{8192};
  SessionPool sessions{4};
  std::unique_ptr<LibraryContext> library = std::move(LibraryContext::create().value());
  std::unique_ptr<ServerContext> server_context;
  std::unique_ptr<ClientContext> client_context;
  End client, server;

  Pair() { client.pool = server.pool = &packets.pool(); }
  ~Pair() { close(); }

  void configure(const ServerConfig& s, const ClientConfig& c) {
    auto sc = ServerContext::create(*library, s);
    ASSERT_TRUE(sc.ok()) << sc.error();
    auto cc = ClientContext::create(*library, c);
    ASSERT_TRUE(cc.ok()) << cc.error();
    close();
    server_context = std::move(*sc);
    client_context = std::move(*cc);
  }
  void open(std::string_view sni = "", std::string_view alpn_wire = {}) {
    client.session = sessions.open_client(*client_context, sni, alpn_wire);
    server.session = sessions.open_server(*server_context);
    ASSERT_NE(client.session, nullptr);
    ASSERT_NE(server.session, nullptr);
  }
  void close() {
    for (End* e : {&client, &server}) {
      if (e->session != nullptr) sessions.close(std::exchange(e->session, nullptr));
      e->cipher_in.clear();
      e->cipher_out.clear();
      e->plain_in.clear();
      e->plain_out.clear();
      e->eof = false;
    }
  }
  // Delivers up to `n` bytes of what `from` has sent.
  uint64_t deliver(End& from, End& to, uint64_t n = kNoLimit) { return from.cipher_out.move_to(to.cipher_in, n, packets.pool()); }

  // Runs both ends until the handshake is done, fails, or nothing moves. `piece`: bytes delivered at a time.
  void handshake(uint64_t piece = kNoLimit) {
    client.receive();
    for (;;) {
      uint64_t moved = 0;
      for (auto [from, to] : {std::pair{&client, &server}, std::pair{&server, &client}}) {
        while (!from->cipher_out.empty()) {
          moved += deliver(*from, *to, piece);
          to->receive();
        }
      }
      if (moved == 0) break;
    }
  }
  // Sends all of from.plain_in to the other end.
  void transfer(End& from, End& to, uint64_t piece = kNoLimit, base::TimeNs now = 0) {
    for (int idle = 0; idle < 2;) {
      const bool moved = from.send(now).plain_bytes + deliver(from, to, piece) + to.receive().plain_bytes != 0;
      idle = moved ? 0 : idle + 1;
    }
  }
  bool established() const { return client.session->established() && server.session->established(); }
};

// Keys and certificates are costly to make: one of each kind for all tests.
inline const CertificatePem& ecdsa_certificate() {
  static const CertificatePem c =
      make_certificate({.common_name = "ecdsa", .sans = {"DNS:www.example.com", "DNS:*.example.com"}});
  return c;
}
inline const CertificatePem& rsa_certificate() {
  static const CertificatePem c =
      make_certificate({.common_name = "rsa", .sans = {"DNS:www.example.com", "DNS:*.example.com"}, .key = "RSA:2048"});
  return c;
}
inline ServerConfig server_config() { return {.certificates = {ecdsa_certificate()}}; }
inline ClientConfig client_config(Version max = Version::kTls13) { return {.max_version = max}; }

}  // namespace millrace::tls::testing
