// What TLS costs one core: full and resumed handshakes (both ends run here, so the server's share is about half), records in both
// directions by size, and looking at a ClientHello.
//   build/perf/micro/tls_bench --benchmark_min_time=1
#include <benchmark/benchmark.h>

#include "lib/tls/client_hello.h"
#include "lib/tls/memory.h"
#include "lib/tls/session.h"
#include "tests/support/heap_packet_pool.h"
#include "tests/unit/tls/test_certificate.h"

namespace millrace::tls {
namespace {

struct Bench {
  support::HeapPacketPool packets{16384};
  SessionPool sessions{4};
  std::unique_ptr<LibraryContext> library = std::move(LibraryContext::create().value());
  std::unique_ptr<ServerContext> server_context;
  std::unique_ptr<ClientContext> client_context;
  Session *client = nullptr, *server = nullptr;
  io::PacketQueue up, down, client_plain, server_plain;  // ciphertext either way, and what came out

  Bench(Version v, bool resume, const char* key) {
    const CertificatePem c = testing::make_certificate({.common_name = "bench", .key = key});
    server_context = std::move(ServerContext::create(*library, {.certificates = {c}}).value());
    if (resume) server_context->set_ticket_keys(TicketKeys::random());
    client_context = std::move(ClientContext::create(*library, {.max_version = v, .tickets = resume}).value());
  }
  Wire client_wire() { return {down, up, packets.pool(), UINT64_MAX}; }
  Wire server_wire() { return {up, down, packets.pool(), UINT64_MAX}; }
  void connect() {
    client = sessions.open_client(*client_context, "bench");
    server = sessions.open_server(*server_context);
    while (!client->established() || !server->established() || !up.empty() || !down.empty()) {
      client->receive(client_wire(), client_plain, UINT64_MAX);
      server->receive(server_wire(), server_plain, UINT64_MAX);
      MILLRACE_ASSERT(client->error() == TlsError::kNone && server->error() == TlsError::kNone,
                      "the benchmark's handshake works");
    }
  }
  void close() {
    sessions.close(client);
    sessions.close(server);
  }
};

void handshake(benchmark::State& state, Version v, bool resume, const char* key) {
  Bench b(v, resume, key);
  b.connect();
  b.close();
  for (auto _ : state) {
    b.connect();
    b.close();
  }
  state.SetItemsProcessed(state.iterations());
  state.counters["resumed"] =
      static_cast<double>(b.sessions.counters().resumed) / static_cast<double>(b.sessions.counters().handshakes);
}
BENCHMARK_CAPTURE(handshake, tls13_ecdsa_p256, Version::kTls13, false, "P-256");
BENCHMARK_CAPTURE(handshake, tls13_resumed, Version::kTls13, true, "P-256");
BENCHMARK_CAPTURE(handshake, tls12_ecdsa_p256, Version::kTls12, false, "P-256");
BENCHMARK_CAPTURE(handshake, tls12_resumed, Version::kTls12, true, "P-256");
BENCHMARK_CAPTURE(handshake, tls13_rsa_2048, Version::kTls13, false, "RSA:2048");

// The server encrypts, its ciphertext is thrown away.
void encrypt(benchmark::State& state) {
  Bench b(Version::kTls13, false, "P-256");
  b.connect();
  const auto n = static_cast<size_t>(state.range(0));
  const std::string text(n, 'x');
  io::PacketQueue plain;
  for (auto _ : state) {
    plain.append_copy(text, b.packets.pool());
    b.server->send(b.server_wire(), plain, UINT64_MAX, 0);
    b.down.clear();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(n));
  b.close();
}
BENCHMARK(encrypt)->Arg(64)->Arg(1300)->Arg(16 * 1024)->Arg(256 * 1024);

// The client encrypts, the server decrypts: both.
void there_and_out(benchmark::State& state) {
  Bench b(Version::kTls13, false, "P-256");
  b.connect();
  const auto n = static_cast<size_t>(state.range(0));
  const std::string text(n, 'x');
  io::PacketQueue plain;
  for (auto _ : state) {
    plain.append_copy(text, b.packets.pool());
    b.client->send(b.client_wire(), plain, UINT64_MAX, 0);
    b.server->receive(b.server_wire(), b.server_plain, UINT64_MAX);
    MILLRACE_ASSERT(b.server_plain.bytes() == n, "all of it arrived");
    b.server_plain.clear();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(n));
  b.close();
}
BENCHMARK(there_and_out)->Arg(64)->Arg(1300)->Arg(16 * 1024)->Arg(256 * 1024);

// A context with so many certificates, as the loader builds one for each worker.
void create_context(benchmark::State& state) {
  Bench b(Version::kTls13, false, "P-256");
  ServerConfig config;
  config.certificates.assign(static_cast<size_t>(state.range(0)),
                             testing::make_certificate({.sans = {"DNS:a.example", "DNS:b.example"}}));
  Arena* mine = Arena::of_this_thread();
  Arena::register_thread(nullptr);
  for (auto _ : state) benchmark::DoNotOptimize(ServerContext::create(*b.library, config).ok());
  Arena::register_thread(mine);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(create_context)->Arg(1)->Arg(100)->Unit(benchmark::kMillisecond);

void inspect_hello(benchmark::State& state) {
  Bench b(Version::kTls13, false, "P-256");
  b.client = b.sessions.open_client(*b.client_context, "www.example.com", std::string_view("\2h2\10http/1.1", 12));
  b.client->receive(b.client_wire(), b.client_plain, 0);
  std::vector<uint8_t> bytes(b.up.bytes()), scratch(kMaxClientHelloBytes);
  b.up.peek(0, bytes.data(), bytes.size());
  b.up.clear();
  ClientHello hello;
  for (auto _ : state) benchmark::DoNotOptimize(inspect(bytes, scratch, hello).verdict == HelloVerdict::kClientHello);
  b.sessions.close(b.client);
}
BENCHMARK(inspect_hello);

}  // namespace
}  // namespace millrace::tls

int main(int argc, char** argv) {
  using namespace millrace::tls;
  if (!install_memory_hooks()) return 1;
  Arena* arena = Arena::create(64 * 1024 * 1024);
  if (arena == nullptr) return 1;
  Arena::register_thread(arena);  // as on a worker
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
