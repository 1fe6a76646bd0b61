// Certificates made in memory, for tests.
#pragma once

#include <string>
#include <vector>

#include "lib/tls/context.h"

namespace millrace::tls::testing {

struct CertificateSpec {
  std::string common_name = "test";
  std::vector<std::string> sans;  // OpenSSL's text: "DNS:a.example", "IP:10.0.0.1", "URI:spiffe://x"
  std::string key = "P-256";      // "P-256", "P-384", "P-521", "secp256k1", "RSA:2048", "ED25519"
  long not_before_s = -3600;      // from now
  long not_after_s = 365L * 24 * 3600;
  bool ca = false;
  const CertificatePem* issuer = nullptr;  // null: self-signed
  std::string key_usage;                   // extendedKeyUsage: "clientAuth", "serverAuth"
  bool intermediate = false;               // a CA whose chain holds its issuer's, as a leaf's does
};

CertificatePem make_certificate(const CertificateSpec& spec);
// A CRL of that CA (PEM), good for an hour, that revokes these certificates (leaf first in each chain).
std::string make_crl(const CertificatePem& ca, const std::vector<CertificatePem>& revoked);
// SHA-256 of the leaf's SubjectPublicKeyInfo, and of the leaf itself.
Sha256 spki_hash(const CertificatePem& c);
Sha256 certificate_hash(const CertificatePem& c);
// The same key under a password, PKCS#8.
std::string encrypt_key(const std::string& key_pem, const std::string& password);

}  // namespace millrace::tls::testing
