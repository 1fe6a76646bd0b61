// The insides of the contexts, for context.cc and session.cc.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "lib/tls/context.h"
#include "lib/tls/openssl_ptr.h"
#include "lib/tls/pem.h"
#include "lib/tls/verifier.h"

namespace millrace::tls {

// Lets the name table be asked with a string_view, without making a string.
struct NameHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};

struct ServerContext::Impl {
  static constexpr uint32_t kNoCertificate = UINT32_MAX;
  // The first certificate of each kind for one name, as Envoy keeps them.
  struct ByKey {
    uint32_t rsa = kNoCertificate;
    uint32_t ecdsa = kNoCertificate;
  };
  OSSL_LIB_CTX* library = nullptr;
  Verifier verifier;  // outlives ctx
  SslCtxPtr ctx;
  std::vector<LoadedCertificate> certificates;
  std::unordered_map<std::string, ByKey, NameHash, std::equal_to<>> names;  // "a.b" exact, ".b" for "*.b"
  std::vector<unsigned char> alpn_wire;
  EVP_CIPHER* ticket_cipher = nullptr;  // AES-256-CBC of this library context, fetched once
  TicketKeys ticket_keys;
  OcspPolicy ocsp_policy = OcspPolicy::kLenient;
  bool tickets_allowed = true;
  bool full_scan = false;
  ~Impl() { EVP_CIPHER_free(ticket_cipher); }
};

// The newest resumable sessions of a client context, a reference of ours each: a stack that loses its oldest entry when it is
// full.
class KeptSessions {
 public:
  explicit KeptSessions(uint32_t capacity) : ring_(capacity) {}
  KeptSessions(const KeptSessions&) = delete;
  KeptSessions& operator=(const KeptSessions&) = delete;
  ~KeptSessions() {
    while (count_ != 0) drop_newest();
  }
  SSL_SESSION* newest() const { return count_ == 0 ? nullptr : ring_[top_]; }
  // Takes the reference over.
  void keep(SSL_SESSION* s) {
    top_ = top_ + 1 == ring_.size() ? 0 : top_ + 1;
    if (count_ == ring_.size()) SSL_SESSION_free(ring_[top_]);
    else ++count_;
    ring_[top_] = s;
  }
  void drop_newest() {
    SSL_SESSION_free(ring_[top_]);
    top_ = top_ == 0 ? static_cast<uint32_t>(ring_.size()) - 1 : top_ - 1;
    --count_;
  }
  uint32_t count() const { return count_; }

 private:
  std::vector<SSL_SESSION*> ring_;
  uint32_t top_ = 0, count_ = 0;
};

struct ClientContext::Impl {
  explicit Impl(uint32_t max_sessions) : sessions(max_sessions) {}
  OSSL_LIB_CTX* library = nullptr;
  Verifier verifier;  // outlives ctx
  SslCtxPtr ctx;
  bool tickets = true;
  KeptSessions sessions;
};

}  // namespace millrace::tls
