// xxHash64, as its specification has it (the algorithm of Yann Collet, version 0.1.1 of the document): the hash that Envoy's
// consistent hashing takes of headers, cookies, addresses and endpoints, so that a request goes to the endpoint that Envoy would
// choose. For everything else there is hash64(), which is faster.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

#include "lib/base/bytes.h"

namespace millrace::base {

namespace detail {
inline constexpr uint64_t kXx1 = 0x9E3779B185EBCA87, kXx2 = 0xC2B2AE3D27D4EB4F, kXx3 = 0x165667B19E3779F9,
                          kXx4 = 0x85EBCA77C2B2AE63, kXx5 = 0x27D4EB2F165667C5;
inline uint64_t xx_round(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kXx2, 31) * kXx1; }
inline uint64_t xx_merge(uint64_t hash, uint64_t lane) { return (hash ^ xx_round(0, lane)) * kXx1 + kXx4; }
}  // namespace detail

inline uint64_t xxhash64(const uint8_t* p, size_t n, uint64_t seed = 0) {
  using namespace detail;
  static_assert(std::endian::native == std::endian::little, "lanes are read as they lie");
  const uint8_t* const end = p + n;
  uint64_t hash;
  if (n >= 32) {
    uint64_t a = seed + kXx1 + kXx2, b = seed + kXx2, c = seed, d = seed - kXx1;
    for (; end - p >= 32; p += 32) {
      a = xx_round(a, load_unaligned<uint64_t>(p));
      b = xx_round(b, load_unaligned<uint64_t>(p + 8));
      c = xx_round(c, load_unaligned<uint64_t>(p + 16));
      d = xx_round(d, load_unaligned<uint64_t>(p + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    hash = xx_merge(xx_merge(xx_merge(xx_merge(hash, a), b), c), d);
  } else {
    hash = seed + kXx5;
  }
  hash += n;
  for (; end - p >= 8; p += 8) hash = std::rotl(hash ^ xx_round(0, load_unaligned<uint64_t>(p)), 27) * kXx1 + kXx4;
  if (end - p >= 4) {
    hash = std::rotl(hash ^ load_unaligned<uint32_t>(p) * kXx1, 23) * kXx2 + kXx3;
    p += 4;
  }
  for (; p != end; ++p) hash = std::rotl(hash ^ *p * kXx5, 11) * kXx1;
  hash = (hash ^ hash >> 33) * kXx2;
  hash = (hash ^ hash >> 29) * kXx3;
  return hash ^ hash >> 32;
}
inline uint64_t xxhash64(std::string_view text, uint64_t seed = 0) {
  return xxhash64(reinterpret_cast<const uint8_t*>(text.data()), text.size(), seed);
}

// MurmurHash2, 64 bits for 64-bit machines (Austin Appleby), with the seed of GNU libstdc++'s std::hash: what Envoy's
// RingHashLbConfig.MURMUR_HASH_2 means.
inline constexpr uint64_t kMurmurSeed = 0xc70f6907;
inline uint64_t murmurhash2(std::string_view text, uint64_t seed = kMurmurSeed) {
  constexpr uint64_t kMultiplier = 0xc6a4a7935bd1e995;
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const size_t n = text.size();
  uint64_t hash = seed ^ n * kMultiplier;
  for (const uint8_t* const whole = p + (n & ~size_t{7}); p != whole; p += 8) {
    uint64_t k = load_unaligned<uint64_t>(p) * kMultiplier;
    k = (k ^ k >> 47) * kMultiplier;
    hash = (hash ^ k) * kMultiplier;
  }
  if ((n & 7) != 0) {
    uint64_t tail = 0;
    for (size_t i = n & 7; i-- > 0;) tail = tail << 8 | p[i];
    hash = (hash ^ tail) * kMultiplier;
  }
  hash = (hash ^ hash >> 47) * kMultiplier;
  return hash ^ hash >> 47;
}

}  // namespace millrace::base
