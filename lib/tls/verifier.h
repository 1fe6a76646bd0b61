// The verifier of a context: sets an SSL_CTX up by a ValidationConfig and judges each peer's certificate. Internal to lib/tls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"
#include "lib/tls/openssl_ptr.h"
#include "lib/tls/tls_error.h"
#include "lib/tls/validation.h"

namespace millrace::tls {

class Verifier {
 public:
  // `server`: the peer is a client, which is asked for a certificate when there is anything to judge it by; `require`: and
  // refused without one. The context must not outlive the verifier, and neither may move. Errors name the field.
  base::Status attach(SSL_CTX* ctx, ValidationConfig config, OSSL_LIB_CTX* library, bool server, bool require);
  void set_regexes(const SanRegexes& regexes) { regexes_ = regexes; }
  const ValidationConfig& config() const { return config_; }

 private:
  struct Verdict {
    TlsError error = TlsError::kNone;
    bool validated = false;  // something was checked and held
  };
  static int callback(X509_STORE_CTX* store, void* self);
  Verdict judge(X509_STORE_CTX* store, SSL* ssl, std::string_view* detail) const;
  bool name_matches(X509* leaf, std::string_view sni) const;
  bool hash_matches(X509* leaf) const;
  base::Status trust(SSL_CTX* ctx, OSSL_LIB_CTX* library, bool announce);

  ValidationConfig config_;
  SanRegexes regexes_;
  EvpMdPtr sha256_;
};

}  // namespace millrace::tls
