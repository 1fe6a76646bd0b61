// Reads PEM into OpenSSL objects that live in a given library context. Internal to lib/tls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"
#include "lib/tls/certificate.h"
#include "lib/tls/ocsp.h"
#include "lib/tls/openssl_ptr.h"

namespace millrace::tls {

struct LoadedCertificate {
  X509Ptr leaf;
  ChainPtr chain;  // what follows the leaf; never null, may be empty
  PkeyPtr key;
  KeyType type = KeyType::kRsa;
  OcspStaple staple;
  bool must_staple = false;           // RFC 7633
  std::vector<std::string> uri_sans;  // for x-forwarded-client-cert
};

// `library`: null for the default one.
base::Result<std::vector<X509Ptr>> load_certificates(std::string_view pem, OSSL_LIB_CTX* library);
// All CRLs among what else the text holds; none is no error here.
base::Result<std::vector<CrlPtr>> load_crls(std::string_view pem);
base::Result<LoadedCertificate> load_pair(std::string_view chain_pem, std::string_view key_pem, OSSL_LIB_CTX* library);
CertificateInfo describe(const std::vector<X509*>& chain, int64_t now_unix);
std::vector<std::string> uri_names(X509* leaf);
// What SNI is matched with, lower case: the DNS names, or the CN of a certificate without subjectAltName.
std::vector<std::string> server_names(X509* leaf);
// "[A|B]:C" and names alike -> "A:B:C".
std::string flatten(const std::vector<std::string>& names);

}  // namespace millrace::tls
