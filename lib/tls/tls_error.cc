#include "lib/tls/tls_error.h"

namespace millrace::tls {

const char* name(TlsError e) {
  switch (e) {
#define TLS_ERROR(symbol, name, text) \
  case TlsError::symbol:              \
    return name;
#include "lib/tls/tls_errors.def"
#undef TLS_ERROR
    case TlsError::kNone:
    case TlsError::kCount:
      break;
  }
  return "none";
}

const char* text(TlsError e) {
  switch (e) {
#define TLS_ERROR(symbol, name, text) \
  case TlsError::symbol:              \
    return text;
#include "lib/tls/tls_errors.def"
#undef TLS_ERROR
    case TlsError::kNone:
    case TlsError::kCount:
      break;
  }
  return "no error";
}

}  // namespace millrace::tls
