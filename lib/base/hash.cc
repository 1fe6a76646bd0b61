#include "lib/base/hash.h"

#include <bit>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

namespace millrace::base {

namespace detail {

uint64_t hash64_long(const uint8_t* p, size_t n, uint64_t seed) {
  size_t left = n;
  if (left > 48) {
    // Three independent chains, so that the multiplier is never idle.
    uint64_t s1 = seed, s2 = seed;
    do {
      seed = fold_multiply(load_unaligned<uint64_t>(p) ^ kHashB, load_unaligned<uint64_t>(p + 8) ^ seed);
      s1 = fold_multiply(load_unaligned<uint64_t>(p + 16) ^ kHashC, load_unaligned<uint64_t>(p + 24) ^ s1);
      s2 = fold_multiply(load_unaligned<uint64_t>(p + 32) ^ kHashD, load_unaligned<uint64_t>(p + 40) ^ s2);
      p += 48;
      left -= 48;
    } while (left > 48);
    seed ^= s1 ^ s2;
  }
  while (left > 16) {
    seed = fold_multiply(load_unaligned<uint64_t>(p) ^ kHashB, load_unaligned<uint64_t>(p + 8) ^ seed);
    p += 16;
    left -= 16;
  }
  // The last 16 bytes, overlapping what was read before: there are at least 17 in all.
  const uint64_t a = load_unaligned<uint64_t>(p + left - 16), b = load_unaligned<uint64_t>(p + left - 8);
  return fold_multiply(kHashB ^ n, fold_multiply(a ^ kHashC, b ^ seed) ^ kHashD);
}

}  // namespace detail

namespace {

struct SipState {
  uint64_t v0, v1, v2, v3;
  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
};

template <int kCompression, int kFinalization>
uint64_t siphash(const HashKey& key, const uint8_t* p, size_t n) {
  SipState s{key.k0 ^ 0x736f6d6570736575, key.k1 ^ 0x646f72616e646f6d, key.k0 ^ 0x6c7967656e657261, key.k1 ^ 0x7465646279746573};
  const auto absorb = [&s](uint64_t word) {
    s.v3 ^= word;
    for (int i = 0; i < kCompression; ++i) s.round();
    s.v0 ^= word;
  };
  const uint8_t* const words_end = p + (n & ~size_t{7});
  for (; p != words_end; p += 8) absorb(load_unaligned<uint64_t>(p));
  uint64_t last = uint64_t{n & 0xff} << 56;
  for (size_t i = 0; i < (n & 7); ++i) last |= uint64_t{p[i]} << (8 * i);
  absorb(last);
  s.v2 ^= 0xff;
  for (int i = 0; i < kFinalization; ++i) s.round();
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

}  // namespace

uint64_t siphash13(const HashKey& key, const uint8_t* p, size_t n) { return siphash<1, 3>(key, p, n); }
uint64_t siphash24(const HashKey& key, const uint8_t* p, size_t n) { return siphash<2, 4>(key, p, n); }

uint32_t crc32c(ByteSpan bytes, uint32_t previous) {
  const uint8_t* p = bytes.data();
  size_t n = bytes.size();
#ifdef __SSE4_2__
  uint64_t crc = ~previous;
  for (; n >= 8; n -= 8, p += 8) crc = _mm_crc32_u64(crc, load_unaligned<uint64_t>(p));
  auto crc32 = static_cast<uint32_t>(crc);
  for (; n > 0; --n, ++p) crc32 = _mm_crc32_u8(crc32, *p);
  return ~crc32;
#else
  constexpr uint32_t kReflectedPolynomial = 0x82f63b78;
  uint32_t crc = ~previous;
  for (; n > 0; --n, ++p) {
    crc ^= *p;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
  }
  return ~crc;
#endif
}

}  // namespace millrace::base
