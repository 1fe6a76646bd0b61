// How a peer's certificate is judged: CertificateValidationContext, for clients and servers alike. Built by ordinary threads as
// part of a context, used by one worker.
//
//   chain against trusted_ca (and CRLs) ──▶ names (sans, or the SNI) ──▶ hashes of certificate or key ──▶ accepted
//
// The order and the answers are those of Envoy's DefaultCertValidator; what verifies nothing accepts everything.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace millrace::tls {

using Sha256 = std::array<uint8_t, 32>;

// SubjectAltNameMatcher: a certificate passes when one of its names of that kind matches.
struct SanMatcher {
  enum class Type : uint8_t { kDns, kUri, kIp, kEmail };
  enum class Kind : uint8_t { kExact, kPrefix, kSuffix, kContains, kRegex };
  Type type = Type::kDns;
  Kind kind = Kind::kExact;  // kDns with kExact: a wildcard certificate name matches one label (RFC 6125 6.4.3)
  std::string value;         // kRegex: unused
  bool ignore_case = false;  // not with kRegex
  uint32_t regex = 0;        // kRegex: what Regexes is asked for
};

// The engine for kRegex, which is not OpenSSL's business: does the whole of `text` match expression `id`? Called on the worker's
// thread, from within a handshake.
struct SanRegexes {
  bool (*matches)(void* self, uint32_t id, std::string_view text) = nullptr;
  void* self = nullptr;
};

inline constexpr uint32_t kDefaultVerifyDepth = 100;

struct ValidationConfig {
  std::string trusted_ca_pem;    // CertificateValidationContext.trusted_ca; may hold CRLs, too. Empty: chains are not verified
  std::string crl_pem;           // crl; with trusted_ca_pem only
  std::vector<SanMatcher> sans;  // match_typed_subject_alt_names; with trusted_ca_pem only; empty: any name
  bool match_sni = false;        // auto_sni_san_validation (clients): instead of `sans` a DNS name must match the SNI sent
  bool sni_of_request = false;   // with match_sni: auto_san_validation, which Envoy words otherwise when it fails
  std::vector<Sha256> certificate_hashes, spki_hashes;  // of any of these lists one must match, unless both are empty
  uint32_t max_verify_depth = kDefaultVerifyDepth;      // certificates behind the leaf, the trust anchor included
  bool only_leaf_crl = false;                           // only_verify_leaf_cert_crl: of a chain the leaf alone is looked up
  bool allow_expired = false;                           // allow_expired_certificate
  bool accept_untrusted = false;  // trust_chain_verification ACCEPT_UNTRUSTED: judged, accepted all the same
  // A peer without a certificate is refused (a server asks for one then).
  bool required() const { return !accept_untrusted && (!sans.empty() || !certificate_hashes.empty() || !spki_hashes.empty()); }
  // There is something to judge by, or at least a certificate is asked for.
  bool active() const {
    return accept_untrusted || !trusted_ca_pem.empty() || !certificate_hashes.empty() || !spki_hashes.empty();
  }
};

// Everything that decides, as bytes behind what is in *out: equal bytes, equal answers.
void append_identity(const ValidationConfig& config, std::string* out);

// What became of the peer's certificate (Envoy's ClientValidationStatus).
enum class PeerValidation : uint8_t { kNoCertificate, kNotValidated, kFailed, kValidated };

}  // namespace millrace::tls
