// Names in certificates (RFC 5280 4.2.1.6) as text. Internal to lib/tls.
#pragma once

#include <span>
#include <string_view>

#include <openssl/x509v3.h>

#include "lib/tls/validation.h"

namespace millrace::tls {

inline constexpr size_t kSanTypes = 4;  // SanMatcher::Type

// The name, in `buffer` (64 bytes) where it is an address. Null data: of a kind that nobody matches or shows, or with a NUL
// inside, which would be another name to whoever reads it as a C string.
std::string_view san_text(const GENERAL_NAME* name, SanMatcher::Type* type, std::span<char> buffer);

}  // namespace millrace::tls
