// Values of TLS configuration as bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/status.h"

namespace millrace::control {

using Sha256 = std::array<uint8_t, 32>;

// verify_certificate_hash: 64 hex digits, or 32 pairs of them joined by colons. False: neither.
bool parse_certificate_hash(std::string_view text, Sha256* out);
// verify_certificate_spki: 44 characters of base64. False: not that.
bool parse_spki_hash(std::string_view text, Sha256* out);
// system_root_certs: the certificates that this machine trusts, PEM; where distributions keep them. Fails when there are none.
base::Result<std::string> system_roots();

}  // namespace millrace::control
