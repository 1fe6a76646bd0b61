#include "lib/base/hash.h"

#include <bit>
#include <string>
#include <unordered_set>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::base {
namespace {

std::string counted(size_t n) {
  std::string s;
  for (size_t i = 0; i < n; ++i) s.push_back(static_cast<char>(i));
  return s;
}

// Stored in tables: these values must never change.
TEST(Hash64, IsStable) {
  const struct {
    size_t length;
    uint64_t hash;
  } kGolden[] = {
      {0, 0xbece05f804e08995},  {1, 0xf2ccb72596608ae0},   {3, 0x0e67a1adc87fbcc8},    {4, 0xcc707e02389d94d3},
      {7, 0x81d33d20f63a137c},  {8, 0x170d1306a1a1e627},   {15, 0x2c008bc76cc2fc44},   {16, 0xbff4ccd770c731d7},
      {17, 0x3114398d3bf82b81}, {32, 0xcfda24e20d263246},  {33, 0x399ec079cffddc8a},   {48, 0x181538520d74e33b},
      {49, 0xaf67b55f65c1460d}, {100, 0xcdf18ef5df4adc2d}, {1000, 0x6f090609c567cd62},
  };
  for (const auto& row : kGolden)
    EXPECT_EQ(hash64(counted(row.length)), row.hash)
        << "length " << row.length << std::hex << " 0x" << hash64(counted(row.length));
}

TEST(Hash64, EveryBytePositionAndTheLengthCount) {
  for (size_t n = 0; n <= 200; ++n) {
    const std::string base = counted(n);
    std::unordered_set<uint64_t> seen{hash64(base)};
    EXPECT_TRUE(seen.insert(hash64(base + std::string(1, '\0'))).second) << n;
    for (size_t i = 0; i < n; ++i) {
      std::string changed = base;
      changed[i] = static_cast<char>(changed[i] ^ 0x40);
      EXPECT_TRUE(seen.insert(hash64(changed)).second) << "length " << n << " byte " << i;
    }
    EXPECT_NE(hash64(base, 1), hash64(base, 2));
  }
}

TEST(Hash64, DoesNotReadBehindTheKey) {
  for (size_t n = 0; n <= 120; ++n) {
    const std::string key = counted(n);
    std::vector<uint8_t> exact(key.begin(), key.end());  // its own allocation: ASan sees one byte too far
    exact.shrink_to_fit();
    EXPECT_EQ(hash64(exact.data(), exact.size()), hash64(key));
  }
}

// Each input bit flips each output bit in about half of the cases.
TEST(Hash64, Avalanche) {
  Prng random(1);
  for (size_t length : {1u, 3u, 4u, 8u, 13u, 16u, 17u, 31u, 48u, 49u, 100u}) {
    constexpr int kTrials = 2000;
    std::vector<std::vector<int>> flips(length * 8, std::vector<int>(64));
    for (int trial = 0; trial < kTrials; ++trial) {
      std::vector<uint8_t> key(length);
      for (auto& b : key) b = static_cast<uint8_t>(random.next());
      const uint64_t before = hash64(key.data(), length);
      for (size_t bit = 0; bit < length * 8; ++bit) {
        key[bit / 8] = static_cast<uint8_t>(key[bit / 8] ^ 1u << bit % 8);
        const uint64_t changed = before ^ hash64(key.data(), length);
        key[bit / 8] = static_cast<uint8_t>(key[bit / 8] ^ 1u << bit % 8);
        for (int out = 0; out < 64; ++out) flips[bit][out] += changed >> out & 1;
      }
    }
    // 2000 fair coins: 1000 with a deviation of 22; 7 deviations never happen by chance in 51,200 cells. One-byte keys have 256
    // values only.
    const int slack = length == 1 ? 500 : 160;
    for (size_t bit = 0; bit < length * 8; ++bit)
      for (int out = 0; out < 64; ++out)
        ASSERT_NEAR(flips[bit][out], kTrials / 2, slack) << "length " << length << " in " << bit << " out " << out;
  }
}

TEST(Hash64, RealisticKeysDoNotCollideInAnyHalf) {
  std::unordered_set<uint64_t> whole;
  std::vector<uint32_t> low(1 << 16), high(1 << 16);
  constexpr int kKeys = 400'000;
  for (int i = 0; i < kKeys; ++i) {
    const uint64_t h = hash64("/api/v1/tenants/" + std::to_string(i) + "/items");
    EXPECT_TRUE(whole.insert(h).second);
    ++low[h & 0xffff];
    ++high[h >> 48];
  }
  for (const auto* half : {&low, &high})
    for (uint32_t n : *half) ASSERT_LE(n, 30u);  // mean 6.1: a Poisson variable above 30 has probability 1e-12
}

TEST(Hash64, WordsSpread) {
  std::vector<uint32_t> bucket(1 << 16);
  for (uint64_t i = 0; i < 400'000; ++i) ++bucket[hash64(i << 20) & 0xffff];
  for (uint32_t n : bucket) ASSERT_LE(n, 30u);
}

// Vectors of the reference implementation: key 00..0f, input 00..(n-1).
TEST(SipHash, ReferenceVectors24) {
  const HashKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  const struct {
    size_t length;
    uint64_t hash;
  } kVectors[] = {{0, 0x726fdb47dd0e0e31},
                  {1, 0x74f839c593dc67fd},
                  {2, 0x0d6c8009d9a94f5a},
                  {8, 0x93f5f5799a932462},
                  {15, 0xa129ca6149be45e5}};
  for (const auto& v : kVectors) EXPECT_EQ(siphash24(key, as_bytes(counted(v.length))), v.hash) << v.length;
}

TEST(SipHash, ReferenceVectors13) {
  const HashKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  EXPECT_EQ(siphash13(key, as_bytes(counted(0))), 0xabac0158050fc4dcu);
  EXPECT_EQ(siphash13(key, as_bytes(counted(1))), 0xc9f49bf37d57ca93u);
}

TEST(SipHash, KeyMatters) {
  EXPECT_NE(siphash13({1, 2}, as_bytes("x")), siphash13({1, 3}, as_bytes("x")));
  EXPECT_NE(siphash13({1, 2}, as_bytes("x")), siphash13({2, 2}, as_bytes("x")));
}

// RFC 3720 B.4, and the check value of the CRC catalogue.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(as_bytes("")), 0u);
  const std::vector<uint8_t> zeros(32, 0), ones(32, 0xff);
  EXPECT_EQ(crc32c(zeros), 0x8a9136aau);
  EXPECT_EQ(crc32c(ones), 0x62a8ab43u);
  EXPECT_EQ(crc32c(as_bytes(counted(32))), 0x46dd794eu);
}

TEST(Crc32c, CanBeContinued) {
  const std::string text = counted(100);
  for (size_t cut = 0; cut <= text.size(); ++cut)
    EXPECT_EQ(crc32c(as_bytes(text.substr(cut)), crc32c(as_bytes(text.substr(0, cut)))), crc32c(as_bytes(text)));
}

}  // namespace
}  // namespace millrace::base
