// An OCSP response that a server staples (RFC 6960, RFC 6066 8): read once by an ordinary thread. Internal to lib/tls; control
// checks with certificate.h's check_ocsp_staple().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/status.h"
#include "lib/tls/openssl_ptr.h"

namespace millrace::tls {

struct OcspStaple {
  std::string der;         // empty: none
  int64_t expires_at = 0;  // nextUpdate, seconds since 1970; INT64_MAX: the response has none
  bool good_at(int64_t now_unix) const { return !der.empty() && now_unix < expires_at; }
};

// Successful, one single response, for this very certificate (its serial number), as Envoy asks. Expired ones are read, too.
base::Result<OcspStaple> load_ocsp_staple(std::string_view der, X509* leaf);

// RFC 7633 with status_request: the certificate asks for a staple.
bool must_staple(X509* leaf);

}  // namespace millrace::tls
