#include "lib/http/websocket.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace::http {

namespace {

constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";  // RFC 6455 1.3
constexpr size_t kMostKeyBytes = 64, kDigestBytes = 20, kBlockBytes = 64;

uint32_t load_big(const uint8_t* p) { return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3]; }

// One block of SHA-1 (FIPS 180-4 6.1.2). Nothing here rests on it being hard to collide: RFC 6455 asks for this very function.
void sha1_block(const uint8_t* block, uint32_t h[5]) {
  uint32_t w[80];
  for (int t = 0; t < 16; ++t) w[t] = load_big(block + 4 * t);
  for (int t = 16; t < 80; ++t) w[t] = std::rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
  uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (int t = 0; t < 80; ++t) {
    const uint32_t f = t < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                       : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                       : t < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                : (b ^ c ^ d) + 0xca62c1d6;
    const uint32_t next = std::rotl(a, 5) + f + e + w[t];
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// RFC 4648 4; `n` bytes, with padding.
void base64(const uint8_t* in, size_t n, char* out) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < n; i += 3) {
    const uint32_t v = uint32_t{in[i]} << 16 | (i + 1 < n ? uint32_t{in[i + 1]} << 8 : 0) | (i + 2 < n ? in[i + 2] : 0u);
    *out++ = kDigits[v >> 18];
    *out++ = kDigits[v >> 12 & 63];
    *out++ = i + 1 < n ? kDigits[v >> 6 & 63] : '=';
    *out++ = i + 2 < n ? kDigits[v & 63] : '=';
  }
}

}  // namespace

void write_websocket_key(const uint64_t random[2], char out[kWebSocketKeyBytes]) {
  uint8_t bytes[16];
  std::memcpy(bytes, random, sizeof bytes);
  base64(bytes, sizeof bytes, out);
}

void write_websocket_accept(std::string_view key, char out[kWebSocketAcceptBytes]) {
  uint8_t message[3 * kBlockBytes] = {};
  const size_t key_bytes = std::min(key.size(), kMostKeyBytes), n = key_bytes + kGuid.size();
  std::memcpy(message, key.data(), key_bytes);
  std::memcpy(message + key_bytes, kGuid.data(), kGuid.size());
  message[n] = 0x80;
  const size_t blocks = (n + 1 + 8 + kBlockBytes - 1) / kBlockBytes;
  const uint64_t bits = uint64_t{n} * 8;
  for (size_t i = 0; i < 8; ++i) message[blocks * kBlockBytes - 1 - i] = static_cast<uint8_t>(bits >> 8 * i);
  uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  for (size_t b = 0; b < blocks; ++b) sha1_block(message + b * kBlockBytes, h);
  uint8_t digest[kDigestBytes];
  for (size_t i = 0; i < kDigestBytes; ++i) digest[i] = static_cast<uint8_t>(h[i / 4] >> (24 - 8 * (i % 4)));
  base64(digest, sizeof digest, out);
}

}  // namespace millrace::http
