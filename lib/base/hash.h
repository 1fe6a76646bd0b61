// Three hashes for three purposes:
//   hash64      fast, for keys that we choose (names in tables, paths against compiled tables with a full compare behind). Its
//   values are
//               stored in table objects, so they never change: a new function would get a new name and a new object version.
//   siphash...  keyed, for what a peer can choose (flow tuples, cookies, initial sequence numbers, header maps): without the key
//   nobody can
//               make collisions on purpose.
//   crc32c      finds damage in stored and shared bytes (RFC 3720 B.4: reflected 0x1EDC6F41, initial and final XOR all ones).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/bytes.h"

namespace millrace::base {

namespace detail {

// The product of two words folded onto itself: each bit of the result depends on each bit of both.
inline uint64_t fold_multiply(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// The fractional parts of the square roots of 2, 3, 5 and 7, the first made odd: words without a pattern of ours.
inline constexpr uint64_t kHashA = 0x6a09e667f3bcc909, kHashB = 0xbb67ae8584caa73b, kHashC = 0x3c6ef372fe94f82b,
                          kHashD = 0xa54ff53a5f1d36f1;

uint64_t hash64_long(const uint8_t* p, size_t n, uint64_t seed);  // n > 16

}  // namespace detail

// 64-bit hash of n bytes, in the manner of wyhash: multiply and fold, 16 bytes a step. Not for keys that a peer chooses.
inline uint64_t hash64(const uint8_t* p, size_t n, uint64_t seed = 0) {
  uint64_t a, b;
  seed ^= detail::fold_multiply(seed ^ detail::kHashA, detail::kHashB);
  if (__builtin_expect(n > 16, 0)) return detail::hash64_long(p, n, seed);
  if (n >= 4) {
    // Two overlapping pairs of 4-byte words cover 4..16 bytes.
    const size_t step = n >> 3 << 2;
    a = uint64_t{load_unaligned<uint32_t>(p)} << 32 | load_unaligned<uint32_t>(p + step);
    b = uint64_t{load_unaligned<uint32_t>(p + n - 4)} << 32 | load_unaligned<uint32_t>(p + n - 4 - step);
  } else if (n > 0) {
    a = uint64_t{p[0]} << 16 | uint64_t{p[n >> 1]} << 8 | p[n - 1];
    b = 0;
  } else {
    a = b = 0;
  }
  return detail::fold_multiply(detail::kHashB ^ n, detail::fold_multiply(a ^ detail::kHashC, b ^ seed) ^ detail::kHashD);
}
inline uint64_t hash64(ByteSpan bytes, uint64_t seed = 0) { return hash64(bytes.data(), bytes.size(), seed); }
inline uint64_t hash64(std::string_view text, uint64_t seed = 0) { return hash64(as_bytes(text), seed); }
// One word, for integer keys.
inline uint64_t hash64(uint64_t word) {
  return detail::fold_multiply(detail::fold_multiply(word ^ detail::kHashA, detail::kHashB) ^ detail::kHashC, detail::kHashD);
}

// 128 bits nobody outside may know; drawn from the system's random source at start.
struct HashKey {
  uint64_t k0 = 0, k1 = 0;
};

// SipHash-1-3: for hash tables (Aumasson, Bernstein: "SipHash: a fast short-input PRF").
uint64_t siphash13(const HashKey& key, const uint8_t* p, size_t n);
inline uint64_t siphash13(const HashKey& key, ByteSpan bytes) { return siphash13(key, bytes.data(), bytes.size()); }
// SipHash-2-4: where the value itself is seen by the peer and must tell nothing (RFC 6528 sequence numbers, SYN cookies).
uint64_t siphash24(const HashKey& key, const uint8_t* p, size_t n);
inline uint64_t siphash24(const HashKey& key, ByteSpan bytes) { return siphash24(key, bytes.data(), bytes.size()); }

// `previous` is the result over the bytes before: crc32c(b, crc32c(a)) is that of a followed by b.
uint32_t crc32c(ByteSpan bytes, uint32_t previous = 0);

}  // namespace millrace::base
