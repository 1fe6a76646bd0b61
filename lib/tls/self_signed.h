// A certificate for oneself: for benches and first steps, where nobody verifies it. Ordinary threads only (it makes a key).
#pragma once

#include <string>
#include <vector>

#include "lib/base/status.h"
#include "lib/tls/context.h"

namespace millrace::tls {

// Key ECDSA P-256, signed by itself with SHA-256, a random serial, valid from an hour ago for `days` (1 … 3650). `names`: at
// least one DNS name or IP address; the first is the common name too. Errors name the name that does not pass.
base::Result<CertificatePem> make_self_signed(const std::vector<std::string>& names, uint32_t days = 30);

}  // namespace millrace::tls
