// Values of TLS configuration as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>


namespace millrace::control {

using Sha256 = std::array<uint8_t, 32>;

// verify_certificate_hash: 64 hex digits, or 32 pairs of them joined by colons. False: neither.
bool parse_certificate_hash(std::string_view text, Sha256* out);
// verify_certificate_spki: 44 characters of base64. False: not that.
bool parse_spki_hash(std::string_view text, Sha256* out);

}  // namespace millrace::control
