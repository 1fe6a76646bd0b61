#include "lib/tls/context.h"

#include <algorithm>
#include <cstring>
#include <ctime>

#include <openssl/core_names.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

#include "lib/base/assert.h"
#include "lib/tls/context_impl.h"
#include "lib/tls/session.h"

namespace millrace::tls {
namespace {

using base::Error;
using base::Result;
using base::Status;

// Envoy's default for TLS 1.2: each pair of AES-128-GCM and ChaCha20 is one group of equal preference there. OpenSSL has no
// groups; SSL_OP_PRIORITIZE_CHACHA (ChaCha20 first for a client that puts it first) gives the same answers to those who differ.
constexpr const char* kDefaultCiphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
constexpr const char* kTls13Suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* kDefaultCurves = "X25519:P-256";
// A peer's certificate chain may take so much memory of a handshake.
constexpr long kMaxCertificateListBytes = 64 * 1024;

int openssl_version(Version v) { return v == Version::kTls12 ? TLS1_2_VERSION : TLS1_3_VERSION; }

// Wire form of a list of ALPN names. False when a name is empty or too long.
bool alpn_to_wire(const std::vector<std::string>& names, std::vector<unsigned char>& out) {
  for (const std::string& n : names) {
    if (n.empty() || n.size() > 255) return false;
    out.push_back(static_cast<unsigned char>(n.size()));
    out.insert(out.end(), n.begin(), n.end());
  }
  return true;
}

Status configure(SSL_CTX* ctx, Version min, Version max, const std::vector<std::string>& ciphers,
                 const std::vector<std::string>& curves) {
  if (min > max) return Error{"minimum TLS version is above the maximum"};
  SSL_CTX_set_min_proto_version(ctx, openssl_version(min));
  SSL_CTX_set_max_proto_version(ctx, openssl_version(max));
  // AES-GCM and ChaCha20 only by default; a list of the user's is checked by check_cipher_suites() before.
  if (SSL_CTX_set_cipher_list(ctx, ciphers.empty() ? kDefaultCiphers : flatten(ciphers).c_str()) != 1) {
    return Error{"cipher_suites: " + drain_errors()};
  }
  if (SSL_CTX_set_ciphersuites(ctx, kTls13Suites) != 1) return Error{"TLS 1.3 cipher suites: " + drain_errors()};
  if (SSL_CTX_set1_groups_list(ctx, curves.empty() ? kDefaultCurves : flatten(curves).c_str()) != 1) {
    return Error{"ecdh_curves: " + drain_errors()};
  }
  SSL_CTX_set_options(
      ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);  // back to us after each record without data: session.cc counts them
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_max_cert_list(ctx, kMaxCertificateListBytes);
  return {};
}

// --- server: the callbacks ------------------------------------------------------------------------------------------------

int select_alpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length,
                void* arg) {
  const auto& ours = *static_cast<const std::vector<unsigned char>*>(arg);
  unsigned char* chosen = nullptr;
  // The list given first decides the preference: ours. No overlap: go on without ALPN, as Envoy does.
  if (SSL_select_next_proto(&chosen, out_length, ours.data(), static_cast<unsigned>(ours.size()), in, in_length) !=
      OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

int accept_server_name(SSL*, int*, void*) { return SSL_TLSEXT_ERR_OK; }

// Which ECDSA certificates the client could verify. TLS 1.3: by its signature algorithms, which name the curve. TLS 1.2: by its
// cipher suites, signature algorithms and groups (RFC 8422 5.1: no groups, no restriction).
ServerContext::ClientSignatures client_signatures(SSL* ssl) {
  bool suite = SSL_version(ssl) == TLS1_3_VERSION;
  if (!suite) {
    STACK_OF(SSL_CIPHER)* offered = SSL_get_client_ciphers(ssl);
    for (int i = 0; i < sk_SSL_CIPHER_num(offered) && !suite; ++i) {
      suite = SSL_CIPHER_get_auth_nid(sk_SSL_CIPHER_value(offered, i)) == NID_auth_ecdsa;
    }
  }
  if (!suite) return {};
  ServerContext::ClientSignatures can;
  const int n = SSL_get_sigalgs(ssl, -1, nullptr, nullptr, nullptr, nullptr, nullptr);
  for (int i = 0; i < n; ++i) {
    unsigned char signature = 0, hash = 0;
    SSL_get_sigalgs(ssl, i, nullptr, nullptr, nullptr, &signature, &hash);
    const unsigned scheme = unsigned{hash} << 8 | signature;  // RFC 8446 4.2.3
    can.p256 = can.p256 || scheme == 0x0403;
    can.p384 = can.p384 || scheme == 0x0503;
    can.p521 = can.p521 || scheme == 0x0603;
  }
  if (SSL_version(ssl) == TLS1_3_VERSION) return can;
  // TLS 1.2: the hash says nothing of the curve; the groups do.
  const bool any = can.p256 || can.p384 || can.p521 || n == 0;
  if (!any) return {};
  int groups[64];
  const int count = SSL_get1_groups(ssl, nullptr);
  if (count <= 0) return {true, true, true};
  if (count > static_cast<int>(std::size(groups))) return {true, false, false};
  SSL_get1_groups(ssl, groups);
  can = {};
  for (int i = 0; i < count; ++i) {
    can.p256 = can.p256 || groups[i] == NID_X9_62_prime256v1;
    can.p384 = can.p384 || groups[i] == NID_secp384r1;
    can.p521 = can.p521 || groups[i] == NID_secp521r1;
  }
  return can;
}

}  // namespace

struct ContextCallbacks {
  static int choose_certificate(SSL* ssl, void* arg) {
    const ServerContext& context = *static_cast<const ServerContext*>(arg);
    const char* sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const uint32_t chosen = context.select_certificate(sni != nullptr ? sni : "", client_signatures(ssl));
    if (chosen == 0) return 1;  // already the SSL_CTX's own
    static_cast<Session*>(BIO_get_data(SSL_get_rbio(ssl)))->certificate_ = chosen;
    const LoadedCertificate& c = context.impl_->certificates[chosen];
    SSL_certs_clear(ssl);
    return SSL_use_cert_and_key(ssl, c.leaf.get(), c.key.get(), c.chain.get(), 1);
  }

  // Called for clients that ask for a staple, once the certificate is chosen (ServerContextImpl::ocspStapleAction).
  static int staple(SSL* ssl, void* arg) {
    const ServerContext::Impl& im = *static_cast<const ServerContext*>(arg)->impl_;
    Session& s = *static_cast<Session*>(BIO_get_data(SSL_get_rbio(ssl)));
    const LoadedCertificate& c = im.certificates[s.certificate_];
    const bool valid = c.staple.good_at(static_cast<int64_t>(std::time(nullptr)));
    const OcspPolicy policy = c.must_staple ? OcspPolicy::kMustStaple : im.ocsp_policy;
    s.staple_ = StapleResult::kOmitted;
    if (!valid && (policy == OcspPolicy::kMustStaple || (policy == OcspPolicy::kStrict && !c.staple.der.empty()))) {
      s.staple_ = StapleResult::kFailed;
      return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (!valid) return SSL_TLSEXT_ERR_NOACK;
    void* copy = OPENSSL_memdup(c.staple.der.data(), c.staple.der.size());  // OpenSSL frees it
    if (copy == nullptr) return SSL_TLSEXT_ERR_NOACK;
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, static_cast<long>(c.staple.der.size()));
    s.staple_ = StapleResult::kSent;
    return SSL_TLSEXT_ERR_OK;
  }

  // RFC 5077 4, with keys from outside: AES-256-CBC and HMAC-SHA256.
  static int ticket_key(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int encrypt) {
    auto* context = static_cast<const ServerContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    const ServerContext::Impl& im = *context->impl_;
    const TicketKeys& keys = im.ticket_keys;
    const TicketKey* key = nullptr;
    // Renew in TLS 1.3 always: a client uses a ticket once (RFC 8446 C.4), and OpenSSL sends a fresh one only when told to.
    int answer = SSL_version(ssl) == TLS1_3_VERSION ? 2 : 1;
    if (encrypt != 0) {
      key = &keys.current;
      std::memcpy(name, key->data(), 16);
      if (RAND_bytes_ex(im.library, iv, 16, 0) != 1) return -1;
    } else if (std::memcmp(name, keys.current.data(), 16) == 0) {
      key = &keys.current;
    } else if (keys.has_previous && std::memcmp(name, keys.previous.data(), 16) == 0) {
      key = &keys.previous;
      answer = 2;
    } else if (keys.has_next && std::memcmp(name, keys.next.data(), 16) == 0) {
      key = &keys.next;
    } else {
      for (const TicketKey& k : keys.older)
        if (std::memcmp(name, k.data(), 16) == 0) key = &k;
      if (key == nullptr) return 0;  // not ours: full handshake
      answer = 2;
    }
    OSSL_PARAM params[3];
    char digest[] = "SHA256";
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, const_cast<uint8_t*>(key->data() + 16), 32);
    params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
    params[2] = OSSL_PARAM_construct_end();
    if (EVP_MAC_CTX_set_params(mac, params) != 1) return -1;
    const int ok = encrypt != 0 ? EVP_EncryptInit_ex(cipher, im.ticket_cipher, nullptr, key->data() + 48, iv)
                                : EVP_DecryptInit_ex(cipher, im.ticket_cipher, nullptr, key->data() + 48, iv);
    return ok == 1 ? answer : -1;
  }

  // --- client ---
  static int keep_session(SSL* ssl, SSL_SESSION* session) {
    auto* context = static_cast<ClientContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    context->impl_->sessions.keep(session);
    return 1;  // the reference is ours now
  }
};

// --- LibraryContext ---------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<LibraryContext>> LibraryContext::create() {
  // No openssl.cnf: what is negotiated is the configuration's business alone.
  OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, nullptr);
  std::unique_ptr<LibraryContext> out(new LibraryContext);
  out->ctx_ = OSSL_LIB_CTX_new();
  if (out->ctx_ != nullptr) out->provider_ = OSSL_PROVIDER_load(out->ctx_, "default");
  if (out->provider_ == nullptr) {
    return Error{"OpenSSL's default provider cannot be loaded: " + drain_errors()};
  }
  return out;
}

LibraryContext::~LibraryContext() {
  if (provider_ != nullptr) OSSL_PROVIDER_unload(provider_);
  OSSL_LIB_CTX_free(ctx_);
}

void LibraryContext::warm_up_thread() {
  unsigned char sink[32];
  ERR_clear_error();  // creates the thread's error state
  (void)RAND_bytes_ex(ctx_, sink, sizeof sink, 0);
  (void)RAND_priv_bytes_ex(ctx_, sink, sizeof sink, 0);
}

const char* to_string(Version v) { return v == Version::kTls12 ? "TLSv1.2" : "TLSv1.3"; }

TicketKeys TicketKeys::random() {
  TicketKeys k;
  MILLRACE_ASSERT(RAND_bytes(k.current.data(), static_cast<int>(k.current.size())) == 1, "the random generator works");
  return k;
}

// --- ServerContext ----------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<ServerContext>> ServerContext::create(LibraryContext& library, const ServerConfig& config) {
  ERR_clear_error();
  if (config.certificates.empty()) return Error{"no TLS certificate is configured"};
  std::unique_ptr<ServerContext> out(new ServerContext);
  out->impl_ = std::make_unique<Impl>();
  Impl& im = *out->impl_;
  im.library = library.raw();
  im.full_scan = config.full_scan_on_sni_mismatch;
  im.tickets_allowed = !config.disable_tickets;
  im.ctx.reset(SSL_CTX_new_ex(library.raw(), nullptr, TLS_server_method()));
  if (im.ctx == nullptr) return Error{"SSL_CTX: " + drain_errors()};
  SSL_CTX* ctx = im.ctx.get();
  SSL_CTX_set_app_data(ctx, out.get());
  if (Status s = configure(ctx, config.min_version, config.max_version, config.cipher_suites, config.curves); !s)
    return Error{s.error()};
  if (config.prefer_client_ciphers) SSL_CTX_clear_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_early_data(ctx, 0);
  SSL_CTX_set_recv_max_early_data(ctx, 0);

  // Tickets of a context are taken only by contexts that are configured alike: the hash goes into every session (session id
  // context).
  EVP_MD* sha256 = EVP_MD_fetch(library.raw(), "SHA256", nullptr);
  EVP_MD_CTX* identity = EVP_MD_CTX_new();
  EVP_DigestInit_ex(identity, sha256, nullptr);
  for (size_t i = 0; i < config.certificates.size(); ++i) {
    auto pair = load_pair(config.certificates[i].chain, config.certificates[i].key, library.raw());
    if (!pair) {
      EVP_MD_CTX_free(identity);
      EVP_MD_free(sha256);
      return Error{"certificate " + std::to_string(i + 1) + ": " + pair.error()};
    }
    if (!config.certificates[i].ocsp_der.empty()) {
      auto staple = load_ocsp_staple(config.certificates[i].ocsp_der, pair->leaf.get());
      if (!staple) {
        EVP_MD_CTX_free(identity);
        EVP_MD_free(sha256);
        return Error{"certificate " + std::to_string(i + 1) + ": ocsp_staple: " + staple.error()};
      }
      pair->staple = std::move(*staple);
    }
    pair->must_staple = must_staple(pair->leaf.get());
    pair->uri_sans = uri_names(pair->leaf.get());
    for (const std::string& n : server_names(pair->leaf.get())) {
      Impl::ByKey& slot = im.names[n.starts_with("*.") ? n.substr(1) : n];
      uint32_t& mine = pair->type == KeyType::kRsa ? slot.rsa : slot.ecdsa;
      if (mine == Impl::kNoCertificate) mine = static_cast<uint32_t>(i);
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    X509_digest(pair->leaf.get(), sha256, digest, &n);
    EVP_DigestUpdate(identity, digest, n);
    im.certificates.push_back(std::move(*pair));
  }
  std::string judges;
  append_identity(config.validation, &judges);
  EVP_DigestUpdate(identity, judges.data(), judges.size());
  EVP_DigestUpdate(identity, &config.require_client_certificate, sizeof config.require_client_certificate);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  EVP_DigestFinal_ex(identity, digest, &n);
  EVP_MD_CTX_free(identity);
  EVP_MD_free(sha256);
  SSL_CTX_set_session_id_context(ctx, digest, std::min(n, unsigned{SSL_MAX_SID_CTX_LENGTH}));

  const LoadedCertificate& first = im.certificates[0];
  if (SSL_CTX_use_cert_and_key(ctx, first.leaf.get(), first.key.get(), first.chain.get(), 1) != 1) {
    return Error{"certificate 1: " + drain_errors()};
  }
  if (im.certificates.size() > 1) SSL_CTX_set_cert_cb(ctx, &ContextCallbacks::choose_certificate, out.get());
  SSL_CTX_set_tlsext_servername_callback(ctx, &accept_server_name);
  im.ocsp_policy = config.ocsp_policy;
  SSL_CTX_set_tlsext_status_cb(ctx, &ContextCallbacks::staple);
  SSL_CTX_set_tlsext_status_arg(ctx, out.get());
  if (config.session_timeout_s != 0) SSL_CTX_set_timeout(ctx, static_cast<long>(config.session_timeout_s));

  if (!alpn_to_wire(config.alpn, im.alpn_wire)) return Error{"alpn_protocols: a name is empty or longer than 255 bytes"};
  if (!im.alpn_wire.empty()) SSL_CTX_set_alpn_select_cb(ctx, &select_alpn, &im.alpn_wire);

  if (Status st = im.verifier.attach(ctx, config.validation, library.raw(), true, config.require_client_certificate); !st)
    return Error{st.error()};

  // No tickets until there are keys.
  im.ticket_cipher = EVP_CIPHER_fetch(library.raw(), "AES-256-CBC", nullptr);
  if (im.ticket_cipher == nullptr) return Error{"AES-256-CBC: " + drain_errors()};
  SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, &ContextCallbacks::ticket_key);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_info_callback(ctx, &Session::info_callback);
  if (!config.ticket_keys.empty()) {
    TicketKeys keys;
    keys.current = config.ticket_keys[0];
    keys.older.assign(config.ticket_keys.begin() + 1, config.ticket_keys.end());
    out->set_ticket_keys(keys);
  }
  ERR_clear_error();
  return out;
}

ServerContext::~ServerContext() { MILLRACE_ASSERT(sessions() == 0, "a context outlives its sessions"); }

void ServerContext::set_ticket_keys(const TicketKeys& keys) {
  impl_->ticket_keys = keys;
  if (!impl_->tickets_allowed) return;
  SSL_CTX_clear_options(impl_->ctx.get(), SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(impl_->ctx.get(), 1);
}

void ServerContext::set_san_regexes(const SanRegexes& regexes) { impl_->verifier.set_regexes(regexes); }
void ClientContext::set_san_regexes(const SanRegexes& regexes) { impl_->verifier.set_regexes(regexes); }

uint32_t ServerContext::certificate_count() const { return static_cast<uint32_t>(impl_->certificates.size()); }

// Envoy's DefaultTlsCertificateSelector: exact name, then the wildcard of the first label, then the first certificate; without
// SNI, or with full_scan, the first that suits the client. ECDSA is preferred where the client can verify its curve; RSA is the
// candidate otherwise.
uint32_t ServerContext::select_certificate(std::string_view sni, ClientSignatures client) const {
  constexpr uint32_t kNone = Impl::kNoCertificate;
  const Impl& im = *impl_;
  const bool ecdsa_capable = client.p256 || client.p384 || client.p521;
  const auto suits = [&](uint32_t i) {
    if (i == kNone) return false;
    switch (im.certificates[i].type) {
      case KeyType::kRsa:
        return true;
      case KeyType::kEcdsaP256:
        return client.p256;
      case KeyType::kEcdsaP384:
        return client.p384;
      case KeyType::kEcdsaP521:
        return client.p521;
    }
    return false;
  };
  const auto by_name = [&](std::string_view name) {
    const auto at = im.names.find(name);
    if (at == im.names.end()) return kNone;
    return suits(at->second.ecdsa) ? at->second.ecdsa : at->second.rsa;
  };

  if (!sni.empty() && sni.size() <= 255) {
    char lower[255];
    for (size_t i = 0; i < sni.size(); ++i) lower[i] = sni[i] >= 'A' && sni[i] <= 'Z' ? static_cast<char>(sni[i] + 32) : sni[i];
    const std::string_view name(lower, sni.size());
    if (const uint32_t i = by_name(name); i != kNone) return i;
    const size_t dot = name.find('.', 1);
    if (dot != std::string_view::npos && dot < name.size() - 1) {
      if (const uint32_t i = by_name(name.substr(dot)); i != kNone) return i;
    }
    if (!im.full_scan) return 0;
  }
  uint32_t candidate = kNone;
  for (uint32_t i = 0; i < im.certificates.size(); ++i) {
    if (!suits(i)) continue;
    const bool rsa = im.certificates[i].type == KeyType::kRsa;
    if (rsa != ecdsa_capable) return i;  // ECDSA for those who can, RSA for those who cannot
    if (candidate == kNone) candidate = i;
  }
  return candidate != kNone ? candidate : 0;
}

// --- ClientContext ----------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<ClientContext>> ClientContext::create(LibraryContext& library, const ClientConfig& config) {
  ERR_clear_error();
  std::unique_ptr<ClientContext> out(new ClientContext);
  if (config.max_sessions == 0) return Error{"a TLS client that keeps tickets keeps at least one session"};
  out->impl_ = std::make_unique<Impl>(config.max_sessions);
  Impl& im = *out->impl_;
  im.tickets = config.tickets;
  im.library = library.raw();
  im.ctx.reset(SSL_CTX_new_ex(library.raw(), nullptr, TLS_client_method()));
  if (im.ctx == nullptr) return Error{"SSL_CTX: " + drain_errors()};
  SSL_CTX* ctx = im.ctx.get();
  SSL_CTX_set_app_data(ctx, out.get());
  if (Status s = configure(ctx, config.min_version, config.max_version, config.cipher_suites, config.curves); !s)
    return Error{s.error()};
  if (config.tickets) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, &ContextCallbacks::keep_session);
  } else {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  }
  if (Status st = im.verifier.attach(ctx, config.validation, library.raw(), false, false); !st) return Error{st.error()};
  std::vector<unsigned char> alpn;
  if (!alpn_to_wire(config.alpn, alpn)) return Error{"alpn_protocols: a name is empty or longer than 255 bytes"};
  if (!alpn.empty()) SSL_CTX_set_alpn_protos(ctx, alpn.data(), static_cast<unsigned>(alpn.size()));
  if (!config.certificate.chain.empty()) {
    auto pair = load_pair(config.certificate.chain, config.certificate.key, library.raw());
    if (!pair) return Error{"client certificate: " + pair.error()};
    if (SSL_CTX_use_cert_and_key(ctx, pair->leaf.get(), pair->key.get(), pair->chain.get(), 1) != 1) {
      return Error{"client certificate: " + drain_errors()};
    }
  }
  SSL_CTX_set_info_callback(ctx, &Session::info_callback);
  ERR_clear_error();
  return out;
}

ClientContext::~ClientContext() { MILLRACE_ASSERT(sessions() == 0, "a context outlives its sessions"); }

void ClientContext::keep_renewed_session(SSL* ssl) {
  if (!impl_->tickets || SSL_session_reused(ssl) != 1 || SSL_version(ssl) != TLS1_2_VERSION) return;
  SSL_SESSION* now = SSL_get0_session(ssl);
  if (now == impl_->sessions.newest() || now == nullptr) return;
  SSL_SESSION_up_ref(now);
  impl_->sessions.keep(now);
}

bool ClientContext::has_resumable_session() const {
  const SSL_SESSION* newest = impl_->sessions.newest();
  return newest != nullptr && SSL_SESSION_is_resumable(newest) == 1;
}

uint32_t ClientContext::kept_sessions() const { return impl_->sessions.count(); }

}  // namespace millrace::tls
