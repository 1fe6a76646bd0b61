#include "tests/unit/tls/test_certificate.h"

#include <atomic>
#include <cstdlib>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "lib/base/assert.h"
#include "lib/tls/openssl_ptr.h"

namespace millrace::tls::testing {
namespace {

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(n)};
}

EVP_PKEY* make_key(const std::string& kind) {
  if (kind.starts_with("RSA:"))
    return EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", static_cast<size_t>(std::atoi(kind.c_str() + 4)));
  if (kind == "ED25519") return EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519");
  return EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", kind.c_str());
}

}  // namespace

CertificatePem make_certificate(const CertificateSpec& spec) {
  static std::atomic<long> serial{1000};
  PkeyPtr key(make_key(spec.key));
  MILLRACE_ASSERT(key != nullptr, "the test's key kind exists");
  X509Ptr cert(X509_new());
  X509_set_version(cert.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), spec.not_before_s);
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), spec.not_after_s);
  X509_set_pubkey(cert.get(), key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(spec.common_name.c_str()), -1, -1, 0);

  X509Ptr issuer;
  PkeyPtr issuer_key;
  if (spec.issuer != nullptr) {
    BioPtr c(BIO_new_mem_buf(spec.issuer->chain.data(), -1)), k(BIO_new_mem_buf(spec.issuer->key.data(), -1));
    issuer.reset(PEM_read_bio_X509(c.get(), nullptr, nullptr, nullptr));
    issuer_key.reset(PEM_read_bio_PrivateKey(k.get(), nullptr, nullptr, nullptr));
  }
  X509_set_issuer_name(cert.get(), X509_get_subject_name(issuer ? issuer.get() : cert.get()));
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, issuer ? issuer.get() : cert.get(), cert.get(), nullptr, nullptr, 0);
  const auto extend = [&](int nid, const std::string& value) {
    X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
    MILLRACE_ASSERT(e != nullptr, "the test's extension is well-formed");
    X509_add_ext(cert.get(), e, -1);
    X509_EXTENSION_free(e);
  };
  extend(NID_basic_constraints, spec.ca ? "critical,CA:TRUE" : "CA:FALSE");
  if (!spec.key_usage.empty()) extend(NID_ext_key_usage, spec.key_usage);
  std::string sans;
  for (const std::string& s : spec.sans) sans += (sans.empty() ? "" : ",") + s;
  if (!sans.empty()) extend(NID_subject_alt_name, sans);
  const EVP_MD* digest = spec.key == "ED25519" && spec.issuer == nullptr ? nullptr : EVP_sha256();
  MILLRACE_ASSERT(X509_sign(cert.get(), issuer_key ? issuer_key.get() : key.get(), digest) > 0, "signing works");

  BioPtr c(BIO_new(BIO_s_mem())), k(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(c.get(), cert.get());
  PEM_write_bio_PrivateKey(k.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return {text_of(c.get()) + (spec.issuer != nullptr && (!spec.ca || spec.intermediate) ? spec.issuer->chain : ""),
          text_of(k.get())};
}

namespace {
X509Ptr leaf_of(const CertificatePem& c) {
  BioPtr in(BIO_new_mem_buf(c.chain.data(), -1));
  X509Ptr leaf(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
  MILLRACE_ASSERT(leaf != nullptr, "the test's certificate is well-formed");
  return leaf;
}
}  // namespace

std::string make_crl(const CertificatePem& ca, const std::vector<CertificatePem>& revoked) {
  X509Ptr issuer = leaf_of(ca);
  BioPtr in(BIO_new_mem_buf(ca.key.data(), -1)), out(BIO_new(BIO_s_mem()));
  PkeyPtr key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  CrlPtr crl(X509_CRL_new());
  X509_CRL_set_version(crl.get(), 1);
  X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(issuer.get()));
  ASN1_TIME* t = ASN1_TIME_new();
  X509_gmtime_adj(t, -3600);
  X509_CRL_set1_lastUpdate(crl.get(), t);
  for (const CertificatePem& c : revoked) {
    X509_REVOKED* entry = X509_REVOKED_new();
    X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(leaf_of(c).get()));
    X509_REVOKED_set_revocationDate(entry, t);
    X509_CRL_add0_revoked(crl.get(), entry);
  }
  X509_gmtime_adj(t, 3600);
  X509_CRL_set1_nextUpdate(crl.get(), t);
  ASN1_TIME_free(t);
  X509_CRL_sort(crl.get());
  MILLRACE_ASSERT(X509_CRL_sign(crl.get(), key.get(), EVP_sha256()) > 0, "signing works");
  PEM_write_bio_X509_CRL(out.get(), crl.get());
  return text_of(out.get());
}

Sha256 certificate_hash(const CertificatePem& c) {
  Sha256 out{};
  unsigned n = 0;
  X509_digest(leaf_of(c).get(), EVP_sha256(), out.data(), &n);
  return out;
}

Sha256 spki_hash(const CertificatePem& c) {
  Sha256 out{};
  X509Ptr leaf = leaf_of(c);
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf.get()), &der);
  unsigned n = 0;
  EVP_Digest(der, static_cast<size_t>(size), out.data(), &n, EVP_sha256(), nullptr);
  OPENSSL_free(der);
  return out;
}

std::string encrypt_key(const std::string& key_pem, const std::string& password) {
  BioPtr in(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size()))), out(BIO_new(BIO_s_mem()));
  PkeyPtr key(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  PEM_write_bio_PKCS8PrivateKey(out.get(), key.get(), EVP_aes_128_cbc(), password.data(), static_cast<int>(password.size()),
                                nullptr, nullptr);
  return text_of(out.get());
}

}  // namespace millrace::tls::testing
