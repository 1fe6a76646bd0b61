// What a peer's certificate says, as text: for access logs and x-forwarded-client-cert. Made when somebody asks for the first
// time, then kept with the session in one block of the worker's TLS memory.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace millrace::tls {

struct PeerCertificate {
  std::string_view subject, issuer;       // RFC 2253, "CN=client,O=Example"; UTF-8 as it is
  std::string_view serial;                // lower-case hex
  std::string_view sha256, sha1;          // of the DER, lower-case hex
  int64_t not_before = 0, not_after = 0;  // seconds since 1970, UTC
  // Subject alternative names of a kind, in the certificate's order. Names with a NUL in them are left out.
  std::span<const std::string_view> uri_sans, dns_sans, ip_sans, email_sans;
};

}  // namespace millrace::tls
