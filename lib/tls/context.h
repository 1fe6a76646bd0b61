// What many sessions share: certificates, versions, ciphers, ALPN, ticket keys. Built and destroyed by ordinary threads, used by
// one worker. OpenSSL 3.0 takes locks on shared objects at every handshake, so nothing is shared between workers: each has its
// LibraryContext and builds its contexts in it.
//
// Life: create() on the loader thread -> hand over to the worker -> sessions -> the worker gives it back when sessions() is 0 ->
// destroyed on the loader thread. (Destroyed on the worker it would be correct too, but would free malloc'ed memory on a poll
// core.)
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"
#include "lib/tls/certificate.h"
#include "lib/tls/validation.h"

struct ossl_lib_ctx_st;
struct ossl_provider_st;
struct ssl_ctx_st;
struct ssl_st;

namespace millrace::tls {

// One per worker; outlives every context and session made with it.
class LibraryContext {
 public:
  static base::Result<std::unique_ptr<LibraryContext>> create();
  ~LibraryContext();
  LibraryContext(const LibraryContext&) = delete;
  LibraryContext& operator=(const LibraryContext&) = delete;
  // Called once by the worker's own thread, after it registered its arena and before its loop: seeds the thread's random
  // generators and creates OpenSSL's per-thread state, so that the first handshake does neither.
  void warm_up_thread();
  ossl_lib_ctx_st* raw() const { return ctx_; }

 private:
  LibraryContext() = default;
  ossl_lib_ctx_st* ctx_ = nullptr;
  ossl_provider_st* provider_ = nullptr;
};

enum class Version : uint8_t { kTls12, kTls13 };
const char* to_string(Version v);  // "TLSv1.2", "TLSv1.3": as %DOWNSTREAM_TLS_VERSION% prints it

// One session ticket key: Envoy's TlsSessionTicketKeys, 80 bytes: 16 name, 32 HMAC-SHA256, 32 AES-256-CBC.
inline constexpr size_t kTicketKeyBytes = 80;
using TicketKey = std::array<uint8_t, kTicketKeyBytes>;
struct TicketKeys {
  TicketKey current{};           // encrypts, decrypts
  TicketKey previous{}, next{};  // decrypt only; a ticket under `previous` is renewed
  bool has_previous = false, has_next = false;
  std::vector<TicketKey> older;  // decrypt only, and are renewed
  static TicketKeys random();  // fresh `current`; for ordinary threads, when no keys are configured (then shared by all workers)
};

struct CertificatePem {
  std::string chain;  // leaf first
  std::string key;
  std::string ocsp_der;  // servers: what is stapled (TlsCertificate.ocsp_staple); empty: nothing
};

// What to do with clients that ask for a staple (OcspStaplePolicy): without a valid one, kLenient sends none, kStrict refuses
// when the one there is has expired, kMustStaple refuses always. A certificate that says so itself (RFC 7633) is kMustStaple.
enum class OcspPolicy : uint8_t { kLenient, kStrict, kMustStaple };

struct ServerConfig {
  std::vector<CertificatePem> certificates;  // at least one; the first answers when SNI matches none
  std::vector<std::string> alpn;             // in order of preference; empty: none is negotiated
  std::vector<std::string> cipher_suites;    // TLS 1.2, OpenSSL names or Envoy's groups; empty: Envoy's default list
  std::vector<std::string> curves;           // empty: X25519, P-256
  Version min_version = Version::kTls12, max_version = Version::kTls13;
  bool disable_tickets = false;            // disable_stateless_session_resumption
  bool prefer_client_ciphers = false;      // of what both have, the client's first; else ours
  bool full_scan_on_sni_mismatch = false;  // full_scan_certs_on_sni_mismatch
  OcspPolicy ocsp_policy = OcspPolicy::kLenient;
  uint32_t session_timeout_s = 0;           // of tickets; 0: OpenSSL's default, two hours
  std::vector<TicketKey> ticket_keys;       // session_ticket_keys, the first encrypts; empty: set_ticket_keys() brings them
  ValidationConfig validation;              // of client certificates; not active(): none is asked for
  bool require_client_certificate = false;  // needs an active `validation`
};

class Session;
class SessionPool;

class ServerContext {
 public:
  // Errors name the certificate by its index and the cause.
  static base::Result<std::unique_ptr<ServerContext>> create(LibraryContext& library, const ServerConfig& config);
  ~ServerContext();
  ServerContext(const ServerContext&) = delete;
  ServerContext& operator=(const ServerContext&) = delete;

  // The worker's thread only, between sessions' calls. Without keys no tickets are issued.
  void set_ticket_keys(const TicketKeys& keys);
  // Before the first session: the engine of SanMatcher::Kind::kRegex.
  void set_san_regexes(const SanRegexes& regexes);
  // Open now. Any thread: 0, once no worker can open more, means that the context may be destroyed (acquire, pairs with the
  // release of the worker's count).
  uint32_t sessions() const { return sessions_.load(std::memory_order_acquire); }

  // Which certificate (index into ServerConfig.certificates) answers; what the handshake itself uses. `sni` in any case, may be
  // empty. The flags say which ECDSA curves the client can verify; none: RSA only.
  struct ClientSignatures {
    bool p256 = false, p384 = false, p521 = false;
  };
  uint32_t select_certificate(std::string_view sni, ClientSignatures client) const;
  uint32_t certificate_count() const;

 private:
  friend class SessionPool;
  friend class Session;
  friend struct ContextCallbacks;
  struct Impl;
  ServerContext() = default;
  std::unique_ptr<Impl> impl_;
  std::atomic<uint32_t> sessions_{0};  // writer: the worker (SessionPool)
};

struct ClientConfig {
  ValidationConfig validation;  // not active(): the server's certificate is NOT verified (Envoy's default)
  std::vector<std::string> alpn;
  std::vector<std::string> cipher_suites, curves;
  Version min_version = Version::kTls12, max_version = Version::kTls12;  // Envoy's client maximum is TLS 1.2 by default
  CertificatePem certificate;                                            // shown when the server asks; empty chain: none
  bool tickets = true;                                                   // keep and offer sessions; false: max_session_keys 0
  uint32_t max_sessions = 1;  // with tickets: the newest so many are kept (max_session_keys, Envoy's default 1); at least 1
};

class ClientContext {
 public:
  static base::Result<std::unique_ptr<ClientContext>> create(LibraryContext& library, const ClientConfig& config);
  ~ClientContext();
  ClientContext(const ClientContext&) = delete;
  ClientContext& operator=(const ClientContext&) = delete;
  void set_san_regexes(const SanRegexes& regexes);  // as of ServerContext
  uint32_t sessions() const { return sessions_.load(std::memory_order_acquire); }
  bool has_resumable_session() const;  // the newest session kept can be resumed
  uint32_t kept_sessions() const;      // 0 … max_sessions

 private:
  friend class SessionPool;
  friend class Session;
  friend struct ContextCallbacks;
  struct Impl;
  ClientContext() = default;
  // TLS 1.2: a ticket that was renewed on resumption is in the session object only; OpenSSL calls nobody.
  void keep_renewed_session(ssl_st* ssl);
  std::unique_ptr<Impl> impl_;
  std::atomic<uint32_t> sessions_{0};  // writer: the worker (SessionPool)
};

}  // namespace millrace::tls
