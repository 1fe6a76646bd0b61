#include "lib/tls/certificate.h"

#include <ctime>

#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/tls/ocsp.h"
#include "lib/tls/pem.h"

namespace millrace::tls {
namespace {

using base::Error;
using base::Result;

constexpr uint32_t kMinRsaBits = 2048;  // Envoy refuses less
constexpr int64_t kExpiryWarningSeconds = 14 * 24 * 3600;

std::string hex(const unsigned char* p, size_t n) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < n; ++i) {
    out += kDigits[p[i] >> 4];
    out += kDigits[p[i] & 15];
  }
  return out;
}

std::string lower(std::string s) {
  for (char& c : s)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return s;
}

std::string name_text(const X509_NAME* name) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (out == nullptr || X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253) < 0) return {};
  char* data = nullptr;
  const long n = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<size_t>(n)};
}

int64_t unix_time(const ASN1_TIME* t) {
  std::tm tm{};
  return ASN1_TIME_to_tm(t, &tm) == 1 ? static_cast<int64_t>(timegm(&tm)) : 0;
}

std::string asn1_text(const ASN1_STRING* s) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(s)), static_cast<size_t>(ASN1_STRING_length(s))};
}

// A password is never typed in here: an encrypted key is an error of its own.
int no_password(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

Result<KeyType> key_type(const EVP_PKEY* key) {
  if (EVP_PKEY_is_a(key, "RSA")) {
    if (EVP_PKEY_get_bits(key) < static_cast<int>(kMinRsaBits)) {
      return Error{"only RSA certificates with 2048-bit or larger keys are supported (this one has " +
                   std::to_string(EVP_PKEY_get_bits(key)) + " bits)"};
    }
    return KeyType::kRsa;
  }
  if (EVP_PKEY_is_a(key, "EC")) {
    char group[64] = {};
    size_t n = 0;
    EVP_PKEY_get_group_name(key, group, sizeof group, &n);
    const std::string_view g(group, n);
    if (g == "prime256v1" || g == "P-256") return KeyType::kEcdsaP256;
    if (g == "secp384r1" || g == "P-384") return KeyType::kEcdsaP384;
    if (g == "secp521r1" || g == "P-521") return KeyType::kEcdsaP521;
    return Error{"only P-256, P-384 or P-521 ECDSA certificates are supported (this one is on curve " + std::string(g) + ")"};
  }
  const char* type = EVP_PKEY_get0_type_name(key);
  return Error{std::string("only RSA and ECDSA certificates are supported (this one is ") +
               (type != nullptr ? type : "of an unknown kind") + ")"};
}

}  // namespace

const char* to_string(KeyType t) {
  switch (t) {
    case KeyType::kRsa:
      return "RSA";
    case KeyType::kEcdsaP256:
      return "ECDSA P-256";
    case KeyType::kEcdsaP384:
      return "ECDSA P-384";
    case KeyType::kEcdsaP521:
      return "ECDSA P-521";
  }
  return "unknown";
}

Result<std::vector<X509Ptr>> load_certificates(std::string_view pem, OSSL_LIB_CTX* library) {
  ERR_clear_error();
  if (pem.empty()) return Error{"no certificate: the PEM text is empty"};
  BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<X509Ptr> out;
  bool asked = false;
  for (;;) {
    X509* fresh = X509_new_ex(library, nullptr);
    if (in == nullptr || fresh == nullptr) {
      X509_free(fresh);
      return Error{"out of memory"};
    }
    // On failure OpenSSL frees `fresh` and sets it to null.
    if (PEM_read_bio_X509(in.get(), &fresh, no_password, &asked) == nullptr) {
      X509_free(fresh);
      const unsigned long e = ERR_peek_last_error();
      if (ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE && !out.empty()) break;  // the end
      const bool none = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
      const std::string why = drain_errors();
      if (none) return Error{"no certificate: no \"-----BEGIN CERTIFICATE-----\" in the PEM text"};
      return Error{"certificate " + std::to_string(out.size() + 1) + " of the PEM text is broken: " + why};
    }
    out.emplace_back(fresh);
  }
  ERR_clear_error();
  return out;
}

Result<std::vector<CrlPtr>> load_crls(std::string_view pem) {
  ERR_clear_error();
  BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<CrlPtr> out;
  for (;;) {
    X509_CRL* crl = in == nullptr ? nullptr : PEM_read_bio_X509_CRL(in.get(), nullptr, nullptr, nullptr);
    if (crl != nullptr) {
      out.emplace_back(crl);
      continue;
    }
    const unsigned long e = ERR_peek_last_error();
    if (ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE) break;  // the end
    return Error{"CRL " + std::to_string(out.size() + 1) + " of the PEM text is broken: " + drain_errors()};
  }
  ERR_clear_error();
  return out;
}

Result<LoadedCertificate> load_pair(std::string_view chain_pem, std::string_view key_pem, OSSL_LIB_CTX* library) {
  auto certificates = load_certificates(chain_pem, library);
  if (!certificates) return Error{"certificate chain: " + certificates.error()};
  LoadedCertificate out;
  out.leaf = std::move((*certificates)[0]);
  out.chain.reset(sk_X509_new_null());
  for (size_t i = 1; i < certificates->size(); ++i) sk_X509_push(out.chain.get(), (*certificates)[i].release());

  EVP_PKEY* public_key = X509_get0_pubkey(out.leaf.get());
  if (public_key == nullptr) return Error{"certificate chain: public key of the certificate is unusable: " + drain_errors()};
  auto type = key_type(public_key);
  if (!type) return Error{"certificate chain: " + type.error()};
  out.type = *type;

  if (key_pem.empty()) return Error{"private key: the PEM text is empty"};
  BioPtr in(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
  bool asked = false;
  out.key.reset(PEM_read_bio_PrivateKey_ex(in.get(), nullptr, no_password, &asked, library, nullptr));
  if (out.key == nullptr) {
    const std::string why = drain_errors();
    if (asked) return Error{"private key: it is encrypted; give it without a password"};
    return Error{"private key: no usable PEM private key: " + why};
  }
  if (X509_check_private_key(out.leaf.get(), out.key.get()) != 1) {
    ERR_clear_error();
    return Error{"private key does not belong to the certificate (key values mismatch)"};
  }
  return out;
}

std::vector<std::string> server_names(X509* leaf) {
  std::vector<std::string> out;
  auto* sans = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr));
  if (sans != nullptr) {
    for (int i = 0; i < sk_GENERAL_NAME_num(sans); ++i) {
      const GENERAL_NAME* n = sk_GENERAL_NAME_value(sans, i);
      if (n->type == GEN_DNS) out.push_back(lower(asn1_text(n->d.dNSName)));
    }
    GENERAL_NAMES_free(sans);
    return out;
  }
  X509_NAME* subject = X509_get_subject_name(leaf);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at >= 0) {
    const ASN1_STRING* cn = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    if (ASN1_STRING_length(cn) > 0) out.push_back(lower(asn1_text(cn)));
  }
  return out;
}

std::vector<std::string> uri_names(X509* leaf) {
  std::vector<std::string> out;
  auto* sans = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(sans); ++i) {
    const GENERAL_NAME* n = sk_GENERAL_NAME_value(sans, i);
    if (n->type == GEN_URI) out.push_back(asn1_text(n->d.uniformResourceIdentifier));
  }
  GENERAL_NAMES_free(sans);
  return out;
}

CertificateInfo describe(const std::vector<X509*>& chain, int64_t now) {
  X509* leaf = chain[0];
  CertificateInfo info;
  info.subject = name_text(X509_get_subject_name(leaf));
  info.issuer = name_text(X509_get_issuer_name(leaf));
  if (BIGNUM* serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), nullptr)) {
    if (char* text = BN_bn2hex(serial)) {
      info.serial = lower(text);
      OPENSSL_free(text);
    }
    BN_free(serial);
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned n = 0;
  if (X509_digest(leaf, EVP_sha256(), digest, &n) == 1) info.sha256 = hex(digest, n);
  if (auto* sans = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr))) {
    for (int i = 0; i < sk_GENERAL_NAME_num(sans); ++i) {
      const GENERAL_NAME* g = sk_GENERAL_NAME_value(sans, i);
      if (g->type == GEN_DNS) info.dns_names.push_back(asn1_text(g->d.dNSName));
      if (g->type == GEN_URI) info.uri_names.push_back(asn1_text(g->d.uniformResourceIdentifier));
      if (g->type == GEN_IPADD) {
        const unsigned char* p = ASN1_STRING_get0_data(g->d.iPAddress);
        const int length = ASN1_STRING_length(g->d.iPAddress);
        if (length == 4) info.ip_names.push_back(base::IpAddress::v4(base::load_be32(p)).to_string());
        if (length == 16) info.ip_names.push_back(base::IpAddress::v6(p).to_string());
      }
    }
    GENERAL_NAMES_free(sans);
  }
  info.server_names = server_names(leaf);
  info.not_before = unix_time(X509_get0_notBefore(leaf));
  info.not_after = unix_time(X509_get0_notAfter(leaf));
  if (EVP_PKEY* key = X509_get0_pubkey(leaf)) {
    info.key_bits = static_cast<uint32_t>(EVP_PKEY_get_bits(key));
    if (auto type = key_type(key)) info.key_type = *type;
  }
  info.chain_length = static_cast<uint32_t>(chain.size());
  if (now < info.not_before) info.warnings.push_back("certificate is not valid yet");
  else if (now > info.not_after) info.warnings.push_back("certificate has expired");
  else if (info.not_after - now < kExpiryWarningSeconds) info.warnings.push_back("certificate expires within 14 days");
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    if (X509_check_issued(chain[i + 1], chain[i]) != X509_V_OK) {
      info.warnings.push_back("certificate " + std::to_string(i + 2) + " of the chain did not issue certificate " +
                              std::to_string(i + 1));
      break;
    }
  }
  ERR_clear_error();
  return info;
}

Result<CertificateInfo> describe_certificate(std::string_view chain_pem, int64_t now) {
  auto certificates = load_certificates(chain_pem, nullptr);
  if (!certificates) return Error{certificates.error()};
  std::vector<X509*> chain;
  for (const X509Ptr& c : *certificates) chain.push_back(c.get());
  return describe(chain, now);
}

Result<CertificateInfo> check_certificate(std::string_view chain_pem, std::string_view key_pem, int64_t now) {
  auto pair = load_pair(chain_pem, key_pem, nullptr);
  if (!pair) return Error{pair.error()};
  std::vector<X509*> chain{pair->leaf.get()};
  for (int i = 0; i < sk_X509_num(pair->chain.get()); ++i) chain.push_back(sk_X509_value(pair->chain.get(), i));
  return describe(chain, now);
}

Result<uint32_t> check_ca_bundle(std::string_view pem) {
  auto certificates = load_certificates(pem, nullptr);
  if (!certificates) return Error{"trusted CA: " + certificates.error()};
  return static_cast<uint32_t>(certificates->size());
}

Result<uint32_t> check_crls(std::string_view pem) {
  auto lists = load_crls(pem);
  if (!lists) return Error{lists.error()};
  if (lists->empty()) return Error{"no CRL: no \"-----BEGIN X509 CRL-----\" in the PEM text"};
  return static_cast<uint32_t>(lists->size());
}

base::Status check_ocsp_staple(std::string_view der, std::string_view chain_pem) {
  auto certificates = load_certificates(chain_pem, nullptr);
  if (!certificates) return Error{certificates.error()};
  auto staple = load_ocsp_staple(der, (*certificates)[0].get());
  if (!staple) return Error{staple.error()};
  return {};
}

std::string flatten(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& group : names) {
    if (!out.empty()) out += ':';
    for (char c : group) {
      if (c == '|') out += ':';
      else if (c != '[' && c != ']') out += c;
    }
  }
  return out;
}

namespace {
// Each name alone, so that the message can say which is unknown.
template <class Try>
base::Status check_names(const std::vector<std::string>& names, const char* what, Try&& known) {
  const std::string flat = flatten(names);
  for (size_t at = 0; at <= flat.size();) {
    const size_t end = std::min(flat.find(':', at), flat.size());
    const std::string one = flat.substr(at, end - at);
    if (one.empty() || !known(one.c_str())) {
      ERR_clear_error();
      return Error{std::string("unknown ") + what + " \"" + one + "\""};
    }
    at = end + 1;
  }
  return {};
}
}  // namespace

base::Status check_cipher_suites(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  SslCtxPtr ctx(SSL_CTX_new(TLS_method()));
  if (ctx == nullptr) return Error{"out of memory"};
  // OpenSSL's list language has operators ("ALL", "!MD5", "@SECLEVEL=0"); only names of single suites are meant here.
  return check_names(names, "cipher suite", [&](const char* one) {
    if (SSL_CTX_set_cipher_list(ctx.get(), one) != 1) return false;
    STACK_OF(SSL_CIPHER)* list = SSL_CTX_get_ciphers(ctx.get());
    for (int i = 0; i < sk_SSL_CIPHER_num(list); ++i) {
      const SSL_CIPHER* c = sk_SSL_CIPHER_value(list, i);
      if (std::string_view(SSL_CIPHER_get_name(c)) == one) return true;
    }
    return false;
  });
}

base::Status check_curves(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  SslCtxPtr ctx(SSL_CTX_new(TLS_method()));
  if (ctx == nullptr) return Error{"out of memory"};
  return check_names(names, "curve", [&](const char* one) { return SSL_CTX_set1_groups_list(ctx.get(), one) == 1; });
}

}  // namespace millrace::tls
