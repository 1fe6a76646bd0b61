#include "lib/tls/verifier.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include <climits>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "lib/tls/pem.h"
#include "lib/tls/san_text.h"
#include "lib/tls/session.h"

namespace millrace::tls {

using base::Error;
using base::Status;

namespace {

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && OPENSSL_strncasecmp(a.data(), b.data(), a.size()) == 0;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

bool value_matches(const SanMatcher& m, std::string_view have) {
  const auto same = [&](char a, char b) { return m.ignore_case ? lower(a) == lower(b) : a == b; };
  const std::string& want = m.value;
  switch (m.kind) {
    case SanMatcher::Kind::kExact:
      return have.size() == want.size() && std::equal(have.begin(), have.end(), want.begin(), same);
    case SanMatcher::Kind::kPrefix:
      return have.size() >= want.size() && std::equal(want.begin(), want.end(), have.begin(), same);
    case SanMatcher::Kind::kSuffix:
      return have.size() >= want.size() && std::equal(want.rbegin(), want.rend(), have.rbegin(), same);
    case SanMatcher::Kind::kContains:
      return std::search(have.begin(), have.end(), want.begin(), want.end(), same) != have.end() || want.empty();
    case SanMatcher::Kind::kRegex:
      break;
  }
  return false;
}

// RFC 6125 6.4.3, the wildcard being the whole left-most label.
bool dns_matches(std::string_view pattern, std::string_view host) {
  if (equal_ignoring_case(pattern, host)) return true;
  if (!pattern.starts_with("*.")) return false;
  const size_t dot = host.find('.');
  return dot != std::string_view::npos && dot != 0 && equal_ignoring_case(pattern.substr(1), host.substr(dot));
}

// Calls visit(type, text) for each name of the certificate until it returns true; whether one did.
template <class Visit>
bool any_name(X509* leaf, Visit&& visit) {
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr));
  if (names == nullptr) return false;
  bool found = false;
  for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; ++i) {
    char buffer[64];
    SanMatcher::Type type{};
    const std::string_view text = san_text(sk_GENERAL_NAME_value(names, i), &type, buffer);
    found = text.data() != nullptr && visit(type, text);
  }
  GENERAL_NAMES_free(names);
  return found;
}

// Text that grows to a limit and is cut there.
class Writer {
 public:
  explicit Writer(std::span<char> out) : out_(out) {}
  void add(std::string_view s) {
    const size_t n = std::min(s.size(), out_.size() - used_);
    std::memcpy(out_.data() + used_, s.data(), n);
    used_ += n;
  }
  std::string_view view() const { return {out_.data(), used_}; }

 private:
  std::span<char> out_;
  size_t used_ = 0;
};

// BoringSSL's words, which Envoy shows, where OpenSSL has others.
const char* verify_text(int error) {
  switch (error) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return "self signed certificate";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
      return "self signed certificate in certificate chain";
    case X509_V_ERR_INVALID_PURPOSE:
      return "unsupported certificate purpose";
    case X509_V_ERR_CERT_REVOKED:
      return "certificate revocation check against provided CRLs failed: certificate revoked";
    default:
      return X509_verify_cert_error_string(error);
  }
}

TlsError from_verify_error(int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return TlsError::kPeerCertificateExpired;
    case X509_V_ERR_CERT_REVOKED:
      return TlsError::kPeerCertificateRevoked;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL:
    case X509_V_ERR_CA_MD_TOO_WEAK:
    case X509_V_ERR_INVALID_PURPOSE:
      return TlsError::kPeerCertificateBad;
    case X509_V_ERR_OUT_OF_MEM:
      return TlsError::kNoMemory;
    default:
      return TlsError::kPeerCertificateUntrusted;
  }
}

int accept_anything(X509_STORE_CTX*, void*) { return 1; }

}  // namespace

Status Verifier::attach(SSL_CTX* ctx, ValidationConfig config, OSSL_LIB_CTX* library, bool server, bool require) {
  config_ = std::move(config);
  if (config_.trusted_ca_pem.empty()) {
    if (!config_.sans.empty() || config_.match_sni) return Error{"matching subject alternative names needs a trusted_ca"};
    if (!config_.crl_pem.empty()) return Error{"crl needs a trusted_ca"};
  }
  if (!config_.active()) {
    if (require) return Error{"require_client_certificate needs a trusted_ca, or hashes to compare with"};
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, nullptr);
    // OpenSSL has a client look at the server's chain even if nothing comes of it.
    SSL_CTX_set_cert_verify_callback(ctx, &accept_anything, nullptr);
    return {};
  }
  sha256_.reset(EVP_MD_fetch(library, "SHA256", nullptr));
  if (sha256_ == nullptr) return Error{"SHA256: " + drain_errors()};
  if (!config_.trusted_ca_pem.empty()) {
    if (Status s = trust(ctx, library, server); !s) return s;
  }
  // Envoy counts the trust anchor (OpenSSL 1.0's way); OpenSSL 3 what is between it and the leaf.
  SSL_CTX_set_verify_depth(ctx, static_cast<int>(std::min<uint32_t>(config_.max_verify_depth, INT_MAX)) - 1);
  if (config_.max_verify_depth == 0) SSL_CTX_set_verify_depth(ctx, 0);
  const bool must = require || config_.required();
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (must ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), nullptr);
  SSL_CTX_set_cert_verify_callback(ctx, &Verifier::callback, this);
  return {};
}

Status Verifier::trust(SSL_CTX* ctx, OSSL_LIB_CTX* library, bool announce) {
  auto certificates = load_certificates(config_.trusted_ca_pem, library);
  if (!certificates) return Error{"trusted_ca: " + certificates.error()};
  X509_STORE* store = SSL_CTX_get_cert_store(ctx);
  for (const X509Ptr& c : *certificates) {
    if (X509_STORE_add_cert(store, c.get()) != 1) return Error{"trusted_ca: " + drain_errors()};
    if (announce) SSL_CTX_add_client_CA(ctx, c.get());
  }
  // An intermediate CA may be the anchor.
  unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;
  if (config_.allow_expired) flags |= X509_V_FLAG_NO_CHECK_TIME;
  uint32_t crls = 0;
  for (const std::string* pem : {&config_.trusted_ca_pem, &config_.crl_pem}) {
    if (pem->empty()) continue;
    auto lists = load_crls(*pem);
    if (!lists) return Error{"crl: " + lists.error()};
    for (const CrlPtr& crl : *lists) {
      if (X509_STORE_add_crl(store, crl.get()) != 1) return Error{"crl: " + drain_errors()};
      ++crls;
    }
  }
  if (crls != 0) flags |= X509_V_FLAG_CRL_CHECK | (config_.only_leaf_crl ? 0ul : X509_V_FLAG_CRL_CHECK_ALL);
  X509_STORE_set_flags(store, flags);
  return {};
}

bool Verifier::name_matches(X509* leaf, std::string_view sni) const {
  if (config_.match_sni && !sni.empty())
    return any_name(leaf, [&](SanMatcher::Type type, std::string_view text) {
      return type == SanMatcher::Type::kDns && dns_matches(text, sni);
    });
  return any_name(leaf, [&](SanMatcher::Type type, std::string_view text) {
    return std::any_of(config_.sans.begin(), config_.sans.end(), [&](const SanMatcher& m) {
      if (m.type != type) return false;
      if (m.kind == SanMatcher::Kind::kRegex)
        return regexes_.matches != nullptr && regexes_.matches(regexes_.self, m.regex, text);
      if (type == SanMatcher::Type::kDns && m.kind == SanMatcher::Kind::kExact) return dns_matches(text, m.value);
      return value_matches(m, text);
    });
  });
}

bool Verifier::hash_matches(X509* leaf) const {
  Sha256 digest{};
  unsigned n = 0;
  const auto listed = [&](const std::vector<Sha256>& list) { return std::find(list.begin(), list.end(), digest) != list.end(); };
  if (!config_.certificate_hashes.empty() && X509_digest(leaf, sha256_.get(), digest.data(), &n) == 1 &&
      listed(config_.certificate_hashes))
    return true;
  if (config_.spki_hashes.empty()) return false;
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &der);
  if (size <= 0) return false;
  const bool ok = EVP_Digest(der, static_cast<size_t>(size), digest.data(), &n, sha256_.get(), nullptr) == 1;
  OPENSSL_free(der);
  return ok && listed(config_.spki_hashes);
}

// `detail`: Envoy's words for what was wrong, in the pool's buffer.
Verifier::Verdict Verifier::judge(X509_STORE_CTX* store, SSL* ssl, std::string_view* detail) const {
  auto* session = static_cast<Session*>(BIO_get_data(SSL_get_rbio(ssl)));
  Writer out(session->verify_detail_buffer());
  X509* leaf = X509_STORE_CTX_get0_cert(store);
  Verdict v;
  if (!config_.trusted_ca_pem.empty()) {
    if (X509_verify_cert(store) != 1) {
      const int error = X509_STORE_CTX_get_error(store);
      char depth[12];
      const auto end = std::to_chars(depth, depth + sizeof depth, X509_STORE_CTX_get_error_depth(store)).ptr;
      out.add("verify cert failed: X509_verify_cert: certificate verification error at depth ");
      out.add({depth, static_cast<size_t>(end - depth)});
      out.add(": ");
      out.add(verify_text(error));
      *detail = out.view();
      v.error = from_verify_error(error);
      return v;
    }
    v.validated = true;
  }
  const char* sent = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  const std::string_view sni = sent != nullptr && config_.match_sni ? sent : "";
  if (!sni.empty() || !config_.sans.empty()) {
    if (!name_matches(leaf, sni)) {
      if (!sni.empty() && config_.sni_of_request) {
        out.add("verify cert failed: verify SAN list, expected SANs: [");
        out.add(sni);
        out.add("], certificate SANs: [");
      } else {
        out.add("verify cert failed: SAN matcher, certificate SANs are [");
      }
      bool first = true;
      any_name(leaf, [&](SanMatcher::Type, std::string_view text) {
        if (!std::exchange(first, false)) out.add(", ");
        out.add(text);
        return false;
      });
      out.add("]");
      *detail = out.view();
      X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
      v.error = TlsError::kPeerCertificateName;
      return v;
    }
    v.validated = true;
  }
  if (!config_.certificate_hashes.empty() || !config_.spki_hashes.empty()) {
    if (!hash_matches(leaf)) {
      *detail = "verify cert failed: cert hash and spki";
      X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_UNTRUSTED);
      v.error = TlsError::kPeerCertificateHash;
      return v;
    }
    v.validated = true;
  }
  return v;
}

int Verifier::callback(X509_STORE_CTX* store, void* self) {
  const Verifier& me = *static_cast<const Verifier*>(self);
  auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* session = static_cast<Session*>(BIO_get_data(SSL_get_rbio(ssl)));
  X509_STORE_CTX_set_error(store, X509_V_OK);
  std::string_view detail;
  const Verdict v = me.judge(store, ssl, &detail);
  const bool failed = v.error != TlsError::kNone;
  const bool accepted = !failed || (me.config_.accept_untrusted && v.error != TlsError::kNoMemory);
  session->set_verdict(failed        ? PeerValidation::kFailed
                       : v.validated ? PeerValidation::kValidated
                                     : PeerValidation::kNotValidated,
                       v.error, detail);
  if (accepted) ERR_clear_error();
  return accepted ? 1 : 0;
}

void append_identity(const ValidationConfig& c, std::string* out) {
  const auto text = [&](std::string_view s) {
    *out += std::to_string(s.size());
    *out += ':';
    *out += s;
  };
  text(c.trusted_ca_pem);
  text(c.crl_pem);
  for (const SanMatcher& m : c.sans) {
    *out += static_cast<char>('a' + static_cast<int>(m.type));
    *out += static_cast<char>('a' + static_cast<int>(m.kind));
    *out += m.ignore_case ? 'i' : 'c';
    *out += std::to_string(m.regex);
    text(m.value);
  }
  for (const auto* list : {&c.certificate_hashes, &c.spki_hashes}) {
    *out += '#';
    for (const Sha256& h : *list) out->append(reinterpret_cast<const char*>(h.data()), h.size());
  }
  *out += std::to_string(c.max_verify_depth);
  for (const bool flag : {c.match_sni, c.sni_of_request, c.only_leaf_crl, c.allow_expired, c.accept_untrusted})
    *out += flag ? '1' : '0';
}

}  // namespace millrace::tls
