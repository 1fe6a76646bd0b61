// Owners for OpenSSL's objects, and its error queue as text. Internal to lib/tls.
#pragma once

#include <memory>
#include <string>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

namespace millrace::tls {

template <auto F>
struct Freer {
  template <class T>
  void operator()(T* p) const {
    F(p);
  }
};
inline void free_chain(STACK_OF(X509) * s) { sk_X509_pop_free(s, X509_free); }

using BioPtr = std::unique_ptr<BIO, Freer<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Freer<X509_free>>;
using CrlPtr = std::unique_ptr<X509_CRL, Freer<X509_CRL_free>>;
using PkeyPtr = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using ChainPtr = std::unique_ptr<STACK_OF(X509), Freer<free_chain>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Freer<SSL_free>>;
using EvpMdPtr = std::unique_ptr<EVP_MD, Freer<EVP_MD_free>>;

// Empties the error queue; the first error's reason, or "unknown error".
inline std::string drain_errors() {
  std::string out;
  for (unsigned long e; (e = ERR_get_error()) != 0;) {
    if (!out.empty()) continue;
    const char* reason = ERR_reason_error_string(e);
    out = reason != nullptr ? reason : "unknown error";
  }
  return out.empty() ? "unknown error" : out;
}

}  // namespace millrace::tls
