#include "lib/tls/self_signed.h"

#include <algorithm>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "lib/base/ip_address.h"
#include "lib/tls/openssl_ptr.h"

namespace millrace::tls {
namespace {

using base::Error;
using base::Result;

constexpr uint32_t kMaxDays = 3650;
constexpr long kBackdateSeconds = 3600;     // clocks of peers that verify may be behind
constexpr size_t kMaxCommonNameBytes = 64;  // RFC 5280, ub-common-name

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(n)};
}

// A DNS name that cannot mean something else in OpenSSL's extension syntax.
bool dns_name(const std::string& s) {
  return !s.empty() && s.size() <= 253 && std::all_of(s.begin(), s.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
           c == '*';
  });
}

bool add_extension(X509* cert, X509V3_CTX* ctx, int nid, const std::string& value) {
  X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, ctx, nid, value.c_str());
  const bool ok = e != nullptr && X509_add_ext(cert, e, -1) == 1;
  X509_EXTENSION_free(e);
  return ok;
}

bool set_random_serial(X509* cert) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] &= 0x7f;  // RFC 5280 4.1.2.2: positive
  BIGNUM* number = BN_bin2bn(bytes, sizeof bytes, nullptr);
  const bool ok = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != nullptr;
  BN_free(number);
  return ok;
}

}  // namespace

Result<CertificatePem> make_self_signed(const std::vector<std::string>& names, uint32_t days) {
  if (names.empty()) return Error{"a certificate needs a name"};
  if (days == 0 || days > kMaxDays) return Error{"a certificate is valid for 1 to " + std::to_string(kMaxDays) + " days"};
  std::string alternatives;
  for (const std::string& n : names) {
    const bool address = base::IpAddress::parse(n).has_value();
    if (!address && !dns_name(n)) return Error{"'" + n + "' is neither a DNS name nor an IP address"};
    alternatives += (alternatives.empty() ? "" : ",") + std::string(address ? "IP:" : "DNS:") + n;
  }
  PkeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  X509Ptr cert(X509_new());
  if (key == nullptr || cert == nullptr) return Error{"OpenSSL cannot make a key: " + drain_errors()};
  bool ok = X509_set_version(cert.get(), X509_VERSION_3) == 1 && set_random_serial(cert.get()) &&
            X509_gmtime_adj(X509_getm_notBefore(cert.get()), -kBackdateSeconds) != nullptr &&
            X509_time_adj_ex(X509_getm_notAfter(cert.get()), static_cast<int>(days), 0, nullptr) != nullptr &&
            X509_set_pubkey(cert.get(), key.get()) == 1;
  X509_NAME* subject = X509_get_subject_name(cert.get());
  const std::string common = names[0].substr(0, kMaxCommonNameBytes);
  ok = ok &&
       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(common.c_str()), -1, -1,
                                  0) == 1 &&
       X509_set_issuer_name(cert.get(), subject) == 1;
  X509V3_CTX ctx;
  X509V3_set_ctx(&ctx, cert.get(), cert.get(), nullptr, nullptr, 0);
  ok = ok && add_extension(cert.get(), &ctx, NID_basic_constraints, "critical,CA:FALSE") &&
       add_extension(cert.get(), &ctx, NID_key_usage, "critical,digitalSignature") &&
       add_extension(cert.get(), &ctx, NID_subject_alt_name, alternatives) && X509_sign(cert.get(), key.get(), EVP_sha256()) > 0;
  BioPtr c(BIO_new(BIO_s_mem())), k(BIO_new(BIO_s_mem()));
  ok = ok && c != nullptr && k != nullptr && PEM_write_bio_X509(c.get(), cert.get()) == 1 &&
       PEM_write_bio_PrivateKey(k.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
  if (!ok) return Error{"OpenSSL cannot make a certificate: " + drain_errors()};
  return CertificatePem{text_of(c.get()), text_of(k.get())};
}

}  // namespace millrace::tls
