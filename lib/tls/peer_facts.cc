#include "lib/tls/peer_facts.h"

#include <cstring>
#include <ctime>

#include <openssl/bn.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "lib/tls/san_text.h"

namespace millrace::tls {

namespace {

constexpr char kHex[] = "0123456789abcdef";
int64_t unix_time(const ASN1_TIME* t) {
  std::tm tm{};
  return ASN1_TIME_to_tm(t, &tm) == 1 ? static_cast<int64_t>(timegm(&tm)) : 0;
}

// Text that a memory BIO holds.
std::string_view view(BIO* bio) {
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio, &data);
  return {data, n > 0 ? static_cast<size_t>(n) : 0};
}

BioPtr name_text(const X509_NAME* name) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (out != nullptr && X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) < 0) out.reset();
  return out;
}

struct Names {
  GENERAL_NAMES* list;
  explicit Names(X509* leaf)
      : list(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, nullptr, nullptr))) {}
  ~Names() { GENERAL_NAMES_free(list); }
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;
  template <class Visit>
  void each(Visit&& visit) const {
    for (int i = 0; i < sk_GENERAL_NAME_num(list); ++i) {
      char buffer[64];
      SanMatcher::Type type{};
      const std::string_view text = san_text(sk_GENERAL_NAME_value(list, i), &type, buffer);
      if (text.data() != nullptr) visit(static_cast<size_t>(type), text);
    }
  }
};

struct Free {
  void operator()(char* p) const { OPENSSL_free(p); }
};

}  // namespace

PeerCertificate* make_peer_certificate(X509* leaf, OSSL_LIB_CTX* library) {
  const BioPtr subject = name_text(X509_get_subject_name(leaf)), issuer = name_text(X509_get_issuer_name(leaf));
  const EvpMdPtr sha256(EVP_MD_fetch(library, "SHA256", nullptr)), sha1(EVP_MD_fetch(library, "SHA1", nullptr));
  unsigned char digest256[EVP_MAX_MD_SIZE], digest1[EVP_MAX_MD_SIZE];
  unsigned size256 = 0, size1 = 0;
  BIGNUM* number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), nullptr);
  const std::unique_ptr<char, Free> serial(number == nullptr ? nullptr : BN_bn2hex(number));
  BN_free(number);
  const bool ok = subject != nullptr && issuer != nullptr && sha256 != nullptr && sha1 != nullptr && serial != nullptr &&
                  X509_digest(leaf, sha256.get(), digest256, &size256) == 1 &&
                  X509_digest(leaf, sha1.get(), digest1, &size1) == 1;
  if (!ok) {
    ERR_clear_error();
    return nullptr;
  }
  const Names names(leaf);
  size_t counts[kSanTypes] = {}, text_bytes = 0;
  names.each([&](size_t kind, std::string_view text) {
    ++counts[kind];
    text_bytes += text.size();
  });
  const size_t views = counts[0] + counts[1] + counts[2] + counts[3];
  const std::string_view serial_text(serial.get());
  text_bytes += view(subject.get()).size() + view(issuer.get()).size() + serial_text.size() + 2 * (size256 + size1);
  auto* block = static_cast<char*>(OPENSSL_malloc(sizeof(PeerCertificate) + views * sizeof(std::string_view) + text_bytes));
  if (block == nullptr) {
    ERR_clear_error();
    return nullptr;
  }
  auto* out = new (block) PeerCertificate;
  auto* lists = reinterpret_cast<std::string_view*>(block + sizeof(PeerCertificate));
  char* next = reinterpret_cast<char*>(lists + views);
  const auto keep = [&](std::string_view text) {
    char* at = next;
    next = std::copy(text.begin(), text.end(), at);
    return std::string_view(at, text.size());
  };
  const auto hex = [&](const unsigned char* p, unsigned n) {
    char* at = next;
    for (unsigned i = 0; i < n; ++i) {
      *next++ = kHex[p[i] >> 4];
      *next++ = kHex[p[i] & 15];
    }
    return std::string_view(at, 2 * n);
  };
  out->subject = keep(view(subject.get()));
  out->issuer = keep(view(issuer.get()));
  out->serial = keep(serial_text);
  for (char* c = const_cast<char*>(out->serial.data()); c != next; ++c)
    if (*c >= 'A' && *c <= 'F') *c = static_cast<char>(*c + 32);
  out->sha256 = hex(digest256, size256);
  out->sha1 = hex(digest1, size1);
  out->not_before = unix_time(X509_get0_notBefore(leaf));
  out->not_after = unix_time(X509_get0_notAfter(leaf));
  std::string_view* ends[kSanTypes];
  // In the order of SanMatcher::Type.
  std::span<const std::string_view>* spans[kSanTypes] = {&out->dns_sans, &out->uri_sans, &out->ip_sans, &out->email_sans};
  for (size_t k = 0; k < kSanTypes; ++k) {
    ends[k] = lists;
    *spans[k] = {lists, counts[k]};
    lists += counts[k];
  }
  names.each([&](size_t kind, std::string_view text) { *ends[kind]++ = keep(text); });
  return out;
}

char* make_encoded_pem(X509* leaf, const STACK_OF(X509) * chain) {
  BioPtr pem(BIO_new(BIO_s_mem()));
  bool ok = pem != nullptr && PEM_write_bio_X509(pem.get(), leaf) == 1;
  for (int i = 0; ok && chain != nullptr && i < sk_X509_num(chain); ++i)
    ok = PEM_write_bio_X509(pem.get(), sk_X509_value(chain, i)) == 1;
  if (!ok) {
    ERR_clear_error();
    return nullptr;
  }
  const auto encoded = [](char c) -> std::string_view {
    switch (c) {
      case '\n':
        return "%0A";
      case ' ':
        return "%20";
      case '+':
        return "%2B";
      case '/':
        return "%2F";
      case '=':
        return "%3D";
      default:
        return {};
    }
  };
  const std::string_view text = view(pem.get());
  size_t bytes = 1;
  for (const char c : text) bytes += encoded(c).empty() ? 1 : 3;
  auto* out = static_cast<char*>(OPENSSL_malloc(bytes));
  if (out == nullptr) {
    ERR_clear_error();
    return nullptr;
  }
  char* at = out;
  for (const char c : text) {
    const std::string_view e = encoded(c);
    if (e.empty()) *at++ = c;
    else at = std::copy(e.begin(), e.end(), at);
  }
  *at = 0;
  return out;
}

}  // namespace millrace::tls
