// The insides of the contexts, for context.cc and session.cc.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "lib/tls/context.h"
#include "lib/tls/openssl_ptr.h"
#include "lib/tls/pem.h"

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
  SslCtxPtr ctx;
  std::vector<LoadedCertificate> certificates;
  std::unordered_map<std::string, ByKey, NameHash, std::equal_to<>> names;  // "a.b" exact, ".b" for "*.b"
  std::vector<unsigned char> alpn_wire;
  EVP_CIPHER* ticket_cipher = nullptr;  // AES-256-CBC of this library context, fetched once
  TicketKeys ticket_keys;
  bool tickets_allowed = true;
  bool full_scan = false;
  ~Impl() { EVP_CIPHER_free(ticket_cipher); }
};

struct ClientContext::Impl {
  SslCtxPtr ctx;
  std::vector<SanMatcher> sans;
  bool verify = false, verify_sni = false, tickets = true;
  SSL_SESSION* session = nullptr;  // the latest resumable one; a reference of ours
  ~Impl() { SSL_SESSION_free(session); }
};

}  // namespace millrace::tls
