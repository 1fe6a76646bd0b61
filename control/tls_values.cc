#include "control/tls_values.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "control/json_text.h"

namespace millrace::control {

bool parse_certificate_hash(std::string_view text, Sha256* out) {
  const bool colons = text.size() == 95;
  if (!colons && text.size() != 64) return false;
  const size_t step = colons ? 3 : 2;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  for (size_t i = 0; i < out->size(); ++i) {
    const int high = digit(text[i * step]), low = digit(text[i * step + 1]);
    if (high < 0 || low < 0) return false;
    if (colons && i + 1 < out->size() && text[i * step + 2] != ':') return false;
    (*out)[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool parse_spki_hash(std::string_view text, Sha256* out) {
  std::string bytes;
  if (text.size() != 44 || !base64_decode(text, &bytes) || bytes.size() != out->size()) return false;
  std::copy(bytes.begin(), bytes.end(), out->begin());
  return true;
}

base::Result<std::string> system_roots() {
  constexpr const char* kBundles[] = {"/etc/ssl/certs/ca-certificates.crt",                 // Debian, Alpine, Arch
                                      "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  // RHEL, Fedora
                                      "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"};
  for (const char* path : kBundles) {
    std::ifstream file(path, std::ios::binary);
    if (!file) continue;
    std::ostringstream text;
    text << file.rdbuf();
    if (!text.str().empty()) return text.str();
  }
  return base::Error{"this machine has no bundle of root certificates, such as " + std::string(kBundles[0])};
}

}  // namespace millrace::control
