// The Internet checksum (RFC 1071) in parts that can be computed apart and carried along: the sum of a payload is taken once,
// the pseudo-header and header are added per segment.
//
// A sum is a plain uint64_t of 16-bit words in *memory* order, not complemented and not folded: sums of even-length parts may
// simply be added. Zero is the sum of nothing. A one's complement sum does not care for byte order as long as nobody mixes
// orders, so words are loaded as they lie and the final value is stored as it is.
#pragma once

#include <bit>
#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"

namespace millrace::wire {

using ChecksumSum = uint64_t;

// Down to 16 bits, in memory order, not complemented. Each step adds the two halves of a word in its upper half, where the carry
// of the lower half comes in: an end-around carry without a branch (RFC 1071 2 C). Only a sum of zero folds to zero.
constexpr uint16_t checksum_fold(ChecksumSum sum) {
  const auto half = static_cast<uint32_t>((sum + std::rotl(sum, 32)) >> 32);
  return static_cast<uint16_t>((half + std::rotl(half, 16)) >> 16);
}

namespace detail {
ChecksumSum checksum_long(const uint8_t* p, size_t n);
}

// The sum of `bytes`; an odd last byte counts as if a zero followed. Fits 32 + log2(n) bits, so that thousands of sums can be
// added.
inline ChecksumSum checksum_sum(base::ByteSpan bytes) {
  const uint8_t* p = bytes.data();
  size_t n = bytes.size();
  if (n >= 128) return detail::checksum_long(p, n);
  ChecksumSum sum = 0;
  for (; n >= 4; n -= 4, p += 4) sum += base::load_unaligned<uint32_t>(p);
  if (n >= 2) {
    sum += base::load_unaligned<uint16_t>(p);
    n -= 2;
    p += 2;
  }
  if (n != 0) sum += *p;
  return sum;
}

// The sum of an IPv4 header without options: 20 bytes.
inline ChecksumSum checksum_ipv4_header(const uint8_t* p) {
  return ChecksumSum{base::load_unaligned<uint32_t>(p)} + base::load_unaligned<uint32_t>(p + 4) +
         base::load_unaligned<uint32_t>(p + 8) + base::load_unaligned<uint32_t>(p + 12) + base::load_unaligned<uint32_t>(p + 16);
}

// `sum` as it counts when its bytes begin at an odd offset of the whole (RFC 1071 2 B): for payloads made of pieces of odd
// length.
constexpr ChecksumSum checksum_at(ChecksumSum sum, uint64_t offset) {
  if ((offset & 1) == 0) return sum;
  const uint16_t folded = checksum_fold(sum);
  return static_cast<uint16_t>(folded << 8 | folded >> 8);
}

// The field to write: complement of the folded sum. Store it with store_checksum.
constexpr uint16_t checksum_finish(ChecksumSum sum) { return static_cast<uint16_t>(~checksum_fold(sum)); }
// Writes a checksum in memory order (no byte swap).
inline void store_checksum(void* at, uint16_t checksum) { std::memcpy(at, &checksum, sizeof checksum); }

// True when bytes that contain their own checksum add up.
constexpr bool checksum_ok(ChecksumSum sum) { return checksum_fold(sum) == 0xffff; }

// Pseudo-headers of RFC 9293 3.1 and RFC 8200 8.1. `length`: of the L4 header and payload, in bytes.
inline ChecksumSum pseudo_header_v4(uint32_t src_host_order, uint32_t dst_host_order, uint8_t protocol, uint32_t length) {
  return ChecksumSum{__builtin_bswap32(src_host_order)} + __builtin_bswap32(dst_host_order) +
         __builtin_bswap16(static_cast<uint16_t>(length)) + (ChecksumSum{protocol} << 8);
}
inline ChecksumSum pseudo_header_v6(const uint8_t* src16, const uint8_t* dst16, uint8_t next_header, uint32_t length) {
  ChecksumSum sum = ChecksumSum{__builtin_bswap32(length)} + (ChecksumSum{next_header} << 24);
  for (int i = 0; i < 16; i += 4)
    sum += ChecksumSum{base::load_unaligned<uint32_t>(src16 + i)} + base::load_unaligned<uint32_t>(dst16 + i);
  return sum;
}
// Of the family that both addresses have.
inline ChecksumSum pseudo_header(const base::IpAddress& src, const base::IpAddress& dst, uint8_t protocol, uint32_t length) {
  if (src.is_v4()) return pseudo_header_v4(src.v4_host_order(), dst.v4_host_order(), protocol, length);
  return pseudo_header_v6(src.bytes.data(), dst.bytes.data(), protocol, length);
}

// RFC 1624 (equation 3): the checksum after a 16-bit or 32-bit field changed. `checksum` and the result in memory order as loaded
// with load_unaligned; old and new value in memory order too. Even offsets only. Never 0 but 0xffff, its other form, which every
// receiver takes: 0 would be wrong where all other bytes are zero, and that cannot be seen from here.
constexpr uint16_t checksum_update32(uint16_t checksum, uint32_t old_word, uint32_t new_word) {
  const uint16_t updated =
      checksum_finish(ChecksumSum{static_cast<uint16_t>(~checksum)} + static_cast<uint32_t>(~old_word) + new_word);
  return updated == 0 ? 0xffff : updated;
}
constexpr uint16_t checksum_update16(uint16_t checksum, uint16_t old_word, uint16_t new_word) {
  return checksum_update32(checksum, old_word, new_word);
}

}  // namespace millrace::wire
