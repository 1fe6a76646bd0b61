// JA3 and JA4 of a ClientHello, as Envoy's tls_inspector computes them (enable_ja3_fingerprinting, enable_ja4_fingerprinting:
// both off by default, so these are computed on request). No heap of our own; the digests go through OpenSSL.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "lib/tls/client_hello.h"

namespace millrace::tls {

struct Ja3 {
  std::array<char, 32> hex;  // MD5 of "version,ciphers,extensions,groups,point formats" in lower-case hex
  std::string_view view() const { return {hex.data(), hex.size()}; }
};
struct Ja4 {
  std::array<char, 36> text;  // "t13d1516h2_8daaf6152771_e5627efa2ab1"
  std::string_view view() const { return {text.data(), text.size()}; }
};

// False when OpenSSL could not compute a digest (no memory); `out` is then unspecified. The hello must come from inspect().
bool ja3(const ClientHello& hello, Ja3& out);
bool ja4(const ClientHello& hello, Ja4& out);

}  // namespace millrace::tls
