// Checks and describes a certificate with its key, for control (validation, listing) and for ServerContext::create. For ordinary
// threads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"

namespace millrace::tls {

enum class KeyType : uint8_t { kRsa, kEcdsaP256, kEcdsaP384, kEcdsaP521 };
const char* to_string(KeyType t);  // "RSA", "ECDSA P-256", ...

struct CertificateInfo {
  std::string subject;  // RFC 2253 text, "CN=www.example.com,O=Example"
  std::string issuer;
  std::string serial;                  // lower-case hex, as Envoy's /certs prints it
  std::string sha256;                  // of the DER, lower-case hex
  std::vector<std::string> dns_names;  // subject alternative names of each kind, as written
  std::vector<std::string> uri_names;
  std::vector<std::string> ip_names;  // text form
  std::vector<std::string>
      server_names;  // what SNI is matched with: dns_names, or the CN when there is no subjectAltName; lower case
  int64_t not_before = 0, not_after = 0;  // seconds since 1970, UTC
  KeyType key_type = KeyType::kRsa;
  uint32_t key_bits = 0;
  uint32_t chain_length = 1;  // certificates in the file
  std::vector<std::string>
      warnings;  // does not stop it from being used: expired, not yet valid, ends within 14 days, chain out of order
};

// The first certificate of a PEM chain (no key needed). `now_unix`: seconds, only for the warnings.
base::Result<CertificateInfo> describe_certificate(std::string_view chain_pem, int64_t now_unix);

// All that makes a pair unusable, as Envoy refuses it: no or broken PEM, encrypted key, key that does not belong to the
// certificate, RSA below 2048 bits, ECDSA on another curve than P-256, P-384, P-521. An expired certificate is accepted, with a
// warning.
base::Result<CertificateInfo> check_certificate(std::string_view chain_pem, std::string_view key_pem, int64_t now_unix);

// A bundle of CA certificates (CertificateValidationContext.trusted_ca): at least one, all well-formed. Returns how many.
base::Result<uint32_t> check_ca_bundle(std::string_view pem);

// Certificate revocation lists (CertificateValidationContext.crl): at least one, all well-formed. Returns how many.
base::Result<uint32_t> check_crls(std::string_view pem);

// TlsCertificate.ocsp_staple: a successful response for the first certificate of the chain. Expired ones pass.
base::Status check_ocsp_staple(std::string_view der, std::string_view chain_pem);

// Names that OpenSSL does not know are errors here, not silently skipped. Envoy's "[A|B]" groups are accepted, and flattened.
base::Status check_cipher_suites(const std::vector<std::string>& names);
base::Status check_curves(const std::vector<std::string>& names);

}  // namespace millrace::tls
