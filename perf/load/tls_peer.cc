#include "perf/load/tls_peer.h"

#include <algorithm>

#include "lib/base/assert.h"
#include "lib/tls/memory.h"
#include "lib/tls/self_signed.h"

namespace millrace::load {
namespace {

using base::Error;
using base::Result;

constexpr uint32_t kMaxTargets = 65536;
// OpenSSL's memory: what an idle session takes (14 KB, see lib/tls/README.md), rounded up; and room for handshakes and records
// under way.
constexpr uint64_t kArenaBytesPerSession = 20 * 1024;
constexpr uint64_t kArenaBaseBytes = 32 * 1024 * 1024;
// A ticket with the peer's certificate and what else OpenSSL keeps of a session.
constexpr uint64_t kArenaBytesPerKept = 4 * 1024;
constexpr uint32_t kKeptSlack = 16;  // a target whose connections happen to open faster than their share

// Connections go round the targets, so each has its share of them open; twice that much, because they do not end in the order
// they began.
uint32_t kept_per_target(const TlsConfig& c) {
  return c.resume ? std::min(2 * (c.max_sessions / c.targets) + kKeptSlack, kTlsMaxKeptSessions) : 1;
}

}  // namespace

TlsPeer::TlsPeer(const TlsConfig& config, io::PacketPool pool)
    : pool_(pool),
      config_(config),
      sessions_(config.max_sessions),
      ends_(new End[config.max_sessions]),
      scratch_(new uint8_t[tls::kMaxRecordBytes]) {
  for (uint32_t i = 0; i < config.max_sessions; ++i) ends_[i].next_free = i + 1;
}

Result<std::unique_ptr<TlsPeer>> TlsPeer::create(const TlsConfig& config, io::PacketPool pool) {
  if (!config.clients && !config.servers) return Error{"TLS is neither for clients nor for servers"};
  if (config.max_sessions == 0) return Error{"TLS with no session at all"};
  if (config.clients && (config.targets == 0 || config.targets > kMaxTargets)) {
    return Error{"TLS clients: 1 to " + std::to_string(kMaxTargets) + " targets"};
  }
  if (config.sni.size() > tls::kMaxServerNameBytes) {
    return Error{"the server name is longer than " + std::to_string(tls::kMaxServerNameBytes) + " bytes"};
  }
  if (config.certificate_pem.empty() != config.key_pem.empty()) return Error{"a certificate and its key come together"};
  if (base::Status s = tls::install_memory_hooks(); !s) return Error{s.error()};
  auto library = tls::LibraryContext::create();
  if (!library) return Error{library.error()};

  std::unique_ptr<TlsPeer> peer(new TlsPeer(config, pool));
  peer->library_ = std::move(*library);
  const tls::Version version = config.tls12 ? tls::Version::kTls12 : tls::Version::kTls13;
  if (config.servers) {
    tls::CertificatePem pair{config.certificate_pem, config.key_pem};
    if (pair.chain.empty()) {
      auto made = tls::make_self_signed({config.sni.empty() ? "localhost" : config.sni});
      if (!made) return Error{made.error()};
      pair = std::move(*made);
    }
    peer->certificate_pem_ = pair.chain;
    auto context = tls::ServerContext::create(
        *peer->library_, {.certificates = {pair}, .alpn = {"http/1.1"}, .min_version = version, .max_version = version});
    if (!context) return Error{context.error()};
    peer->server_context_ = std::move(*context);
    peer->server_context_->set_ticket_keys(tls::TicketKeys::random());
  }
  if (config.clients) {
    tls::ClientConfig client{.alpn = {"http/1.1"}, .min_version = version, .max_version = version, .tickets = config.resume};
    client.max_sessions = kept_per_target(config);
    for (uint32_t i = 0; i < config.targets; ++i) {
      auto context = tls::ClientContext::create(*peer->library_, client);
      if (!context) return Error{context.error()};
      peer->client_contexts_.push_back(std::move(*context));
    }
  }
  const uint32_t reserved =
      config.memory_sessions != 0 ? std::min(config.memory_sessions, config.max_sessions) : config.max_sessions;
  uint64_t bytes = kArenaBaseBytes + reserved * kArenaBytesPerSession;
  if (config.clients) bytes += uint64_t{config.targets} * kept_per_target(config) * kArenaBytesPerKept;
  peer->arena_ = tls::Arena::create(bytes);
  if (peer->arena_ == nullptr) {
    return Error{"no " + std::to_string(bytes >> 20) + " MB of memory for " + std::to_string(reserved) + " TLS sessions"};
  }
  return peer;
}

TlsPeer::~TlsPeer() {
  for (uint32_t i = 0; i < config_.max_sessions; ++i) {
    if (ends_[i].session != nullptr) close(i);
  }
  client_contexts_.clear();
  server_context_.reset();
  // The thread that polled may have left error queues and generators of OpenSSL in the arena, which go with the thread; then the
  // memory stays until the process ends (memory.h, 5).
  if (arena_ != nullptr && tls::Arena::of_this_thread() != arena_ && arena_->in_use() == 0) tls::Arena::destroy(arena_);
}

void TlsPeer::start_thread() {
  tls::Arena::register_thread(arena_);
  library_->warm_up_thread();
}

void TlsPeer::end_thread() { tls::Arena::register_thread(nullptr); }

TlsPeer::Handle TlsPeer::open_end(tls::Session* session) {
  if (session == nullptr) return kNoHandle;
  const Handle h = free_head_;
  MILLRACE_ASSERT(h < config_.max_sessions, "as many ends as sessions");
  free_head_ = ends_[h].next_free;
  ends_[h].session = session;
  return h;
}

TlsPeer::Handle TlsPeer::open_client(uint32_t target) {
  MILLRACE_ASSERT(target < client_contexts_.size(), "a target that create() was told of");
  const Handle h = open_end(sessions_.open_client(*client_contexts_[target], config_.sni));
  if (h != kNoHandle) ends_[h].session->receive(wire(ends_[h]), std::span<uint8_t>(scratch_.get(), 1));
  return h;
}

TlsPeer::Handle TlsPeer::open_server() {
  MILLRACE_ASSERT(server_context_ != nullptr, "servers were asked for");
  return open_end(sessions_.open_server(*server_context_));
}

void TlsPeer::close(Handle h) {
  End& end = ends_[h];
  MILLRACE_ASSERT(end.session != nullptr, "an end is closed once");
  sessions_.close(end.session);
  end.session = nullptr;
  end.input.clear();
  end.output.clear();
  end.next_free = free_head_;
  free_head_ = h;
}

bool TlsPeer::receive_some(End& end, TlsStep& step, size_t& got) {
  const tls::Progress p = end.session->receive(wire(end), std::span<uint8_t>(scratch_.get(), tls::kMaxRecordBytes));
  got = p.plain_bytes;
  step.error = p.error;
  step.peer_closed = p.peer_closed;
  step.blocked = p.output_blocked || p.pool_empty;
  if (p.handshake_done) {
    step.handshake_done = true;
    step.resumed = end.session->negotiated().resumed;
  }
  return p.more && p.error == tls::TlsError::kNone;
}

size_t TlsPeer::send(Handle h, base::ByteSpan plain, base::TimeNs now) {
  return ends_[h].session->send(wire(ends_[h]), plain, now).plain_bytes;
}

void TlsPeer::close_notify(Handle h) { ends_[h].session->close_notify(wire(ends_[h])); }

}  // namespace millrace::load
