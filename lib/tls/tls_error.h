// Why a TLS session ended: one enum, made from the one list in tls_errors.def.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace millrace::tls {

enum class TlsError : uint8_t {
  kNone = 0,
#define TLS_ERROR(symbol, name, text) symbol,
#include "lib/tls/tls_errors.def"
#undef TLS_ERROR
  kCount
};
inline constexpr unsigned kTlsErrorCount = static_cast<unsigned>(TlsError::kCount);

const char* name(TlsError e);  // "no_shared_cipher": stable
const char* text(TlsError e);  // one sentence for a person

// Envoy's transport failure reason: "TLS_error:|268435581:SSL
// routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:DETAIL:TLS_error_end" (BoringSSL's number and name where it has one for
// this error, our own name otherwise). `detail`: Session::verify_detail(), may be empty. Empty, as Envoy's, for a connection that
// just ended. Cut at the size of `out`; returns the bytes written.
size_t failure_reason(TlsError e, std::string_view detail, std::span<char> out);

}  // namespace millrace::tls
