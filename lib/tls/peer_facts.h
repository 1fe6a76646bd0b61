// Makes PeerCertificate. Internal to lib/tls.
#pragma once

#include <string_view>

#include "lib/tls/openssl_ptr.h"
#include "lib/tls/peer_certificate.h"

namespace millrace::tls {

// One block by OPENSSL_malloc, to be given to OPENSSL_free; null: no memory. `library`: whose digests are used.
PeerCertificate* make_peer_certificate(X509* leaf, OSSL_LIB_CTX* library);

// The certificates as PEM, URL-encoded as Envoy writes them into x-forwarded-client-cert ("Cert", "Chain"); NUL-terminated, by
// OPENSSL_malloc; null: no memory. `chain`: what follows the leaf; may be null.
char* make_encoded_pem(X509* leaf, const STACK_OF(X509) * chain);

}  // namespace millrace::tls
