// Why a TLS session ended: one enum, made from the one list in tls_errors.def.
#pragma once

#include <cstdint>

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

}  // namespace millrace::tls
