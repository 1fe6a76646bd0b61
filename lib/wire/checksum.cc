#include "lib/wire/checksum.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace millrace::wire::detail {

ChecksumSum checksum_long(const uint8_t* p, size_t n) {
  ChecksumSum sum = 0;
#ifdef __AVX2__
  // 32-bit words widened into 64-bit lanes, four accumulators: no carries to think of before 2^32 additions.
  const __m256i zero = _mm256_setzero_si256();
  __m256i a = zero, b = zero, c = zero, d = zero;
  for (; n >= 64; n -= 64, p += 64) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
    a = _mm256_add_epi64(a, _mm256_unpacklo_epi32(x, zero));
    b = _mm256_add_epi64(b, _mm256_unpackhi_epi32(x, zero));
    c = _mm256_add_epi64(c, _mm256_unpacklo_epi32(y, zero));
    d = _mm256_add_epi64(d, _mm256_unpackhi_epi32(y, zero));
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
  const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  sum = static_cast<uint64_t>(_mm_extract_epi64(half, 0)) + static_cast<uint64_t>(_mm_extract_epi64(half, 1));
#endif
  ChecksumSum even = 0, odd = 0;
  for (; n >= 8; n -= 8, p += 8) {
    even += base::load_unaligned<uint32_t>(p);
    odd += base::load_unaligned<uint32_t>(p + 4);
  }
  return sum + even + odd + checksum_sum({p, n});
}

}  // namespace millrace::wire::detail
