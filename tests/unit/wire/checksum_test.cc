#include "lib/wire/checksum.h"

#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

// RFC 1071 as it is written: 16-bit words in network order, one at a time.
uint16_t reference(base::ByteSpan bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += static_cast<uint32_t>(bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0));
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(~sum);
}
uint16_t ours(base::ByteSpan bytes) { return __builtin_bswap16(checksum_finish(checksum_sum(bytes))); }

TEST(Checksum, ExampleOfRfc1071) { EXPECT_EQ(ours(hex("0001 f203 f4f5 f6f7")), static_cast<uint16_t>(~0xddf2)); }

TEST(Checksum, EveryLengthAndAlignmentAgreesWithTheRfc) {
  base::Prng random(7);
  std::vector<uint8_t> bytes(2100);
  for (auto& b : bytes) b = static_cast<uint8_t>(random.next());
  GuardPage guard(bytes.size());
  for (size_t n = 0; n <= 2050; ++n) {
    const auto span = base::ByteSpan(bytes).subspan(n % 33, n);
    ASSERT_EQ(ours(guard.place(span)), reference(span)) << n;
  }
}

TEST(Checksum, CarriesAreNotLost) {
  for (size_t n : {2u, 127u, 128u, 1460u, 65535u}) {
    const std::vector<uint8_t> ones(n, 0xff);
    EXPECT_EQ(ours(ones), reference(ones)) << n;
  }
  ChecksumSum sum = 0;
  const std::vector<uint8_t> ones(65534, 0xff);
  for (int i = 0; i < 1000; ++i) sum += checksum_sum(ones);
  EXPECT_EQ(checksum_fold(sum), 0xffff);
}

TEST(Checksum, PartsOfAnyLengthAddUp) {
  base::Prng random(8);
  for (int trial = 0; trial < 2000; ++trial) {
    SCOPED_TRACE(testing::Message() << "seed 8 trial " << trial);
    std::vector<uint8_t> bytes(random.below(400));
    for (auto& b : bytes) b = static_cast<uint8_t>(random.next());
    ChecksumSum sum = 0;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = 1 + random.below(bytes.size() - at);
      sum += checksum_at(checksum_sum(base::ByteSpan(bytes).subspan(at, n)), at);
      at += n;
    }
    ASSERT_EQ(__builtin_bswap16(checksum_finish(sum)), reference(bytes));
  }
}

// Frames of a Linux kernel carry the pseudo-header's proof.
TEST(Checksum, PseudoHeadersOfRealSegments) {
  const auto syn4 = hex("ec9c 0051 24de24fe 00000000 a002 faf0 593b 0000 0204 05b4 0402 080a 4dad5b45 00000000 01 03030a");
  const auto v4 = [](const char* a) { return *base::IpAddress::parse(a); };
  EXPECT_TRUE(checksum_ok(pseudo_header(v4("10.9.0.1"), v4("10.9.0.2"), 6, 40) + checksum_sum(syn4)));
  EXPECT_FALSE(checksum_ok(pseudo_header(v4("10.9.0.1"), v4("10.9.0.3"), 6, 40) + checksum_sum(syn4)));
  EXPECT_FALSE(checksum_ok(pseudo_header(v4("10.9.0.1"), v4("10.9.0.2"), 17, 40) + checksum_sum(syn4)));
  const auto rst6 = hex("0051 e9f6 00000000 9df7faa8 5014 0000 32d2 0000");
  EXPECT_TRUE(checksum_ok(pseudo_header(v4("fd00:9::2"), v4("fd00:9::1"), 6, 20) + checksum_sum(rst6)));
  EXPECT_FALSE(checksum_ok(pseudo_header(v4("fd00:9::2"), v4("fd00:9::1"), 6, 21) + checksum_sum(rst6)));
  EXPECT_EQ(pseudo_header_v4(0x0a090001, 0x0a090002, 6, 40), pseudo_header(v4("10.9.0.1"), v4("10.9.0.2"), 6, 40));
}

TEST(Checksum, IncrementalUpdateEqualsFullSum) {
  base::Prng random(9);
  for (int trial = 0; trial < 20'000; ++trial) {
    SCOPED_TRACE(testing::Message() << "seed 9 trial " << trial);
    uint8_t bytes[20];
    for (auto& b : bytes) b = random.chance(1, 3) ? (random.chance(1, 2) ? 0xff : 0) : static_cast<uint8_t>(random.next());
    bytes[10] = bytes[11] = 0;
    uint16_t checksum = checksum_finish(checksum_sum({bytes, 20}));
    const bool wide = random.chance(1, 2);
    const size_t at = wide ? 12 : 4;
    const uint32_t fresh = random.chance(1, 4) ? 0 : static_cast<uint32_t>(random.next());
    if (wide) {
      checksum = checksum_update32(checksum, base::load_unaligned<uint32_t>(bytes + at), fresh);
      std::memcpy(bytes + at, &fresh, 4);
    } else {
      const auto half = static_cast<uint16_t>(fresh);
      checksum = checksum_update16(checksum, base::load_unaligned<uint16_t>(bytes + at), half);
      std::memcpy(bytes + at, &half, 2);
    }
    store_checksum(bytes + 10, checksum);
    ASSERT_TRUE(checksum_ok(checksum_sum({bytes, 20})));
  }
}

}  // namespace
}  // namespace millrace::wire
