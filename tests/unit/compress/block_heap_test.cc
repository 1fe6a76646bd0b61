#include "lib/compress/block_heap.h"

#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/support/seed.h"

namespace millrace::compress {
namespace {

struct Block {
  alignas(64) uint8_t bytes[64 * 1024];
};

TEST(BlockHeap, WhatIsFreedIsWhole) {
  Block b;
  BlockHeap h(b.bytes);
  void* x = h.allocate(10'000);
  void* y = h.allocate(20'000);
  void* z = h.allocate(30'000);
  ASSERT_TRUE(x && y && z);
  EXPECT_EQ(h.allocate(10'000), nullptr);
  EXPECT_EQ(h.refused(), 1u);
  h.free(x);
  h.free(z);
  EXPECT_EQ(h.allocate(40'000), nullptr);  // two pieces, not one
  h.free(y);
  EXPECT_EQ(h.in_use(), 0u);
  EXPECT_NE(h.allocate(sizeof b.bytes - 16), nullptr);
  EXPECT_EQ(h.allocate(1), nullptr);
  EXPECT_EQ(h.allocate(0), nullptr);
  EXPECT_EQ(h.allocate(SIZE_MAX), nullptr);
}

// Pieces do not overlap, are aligned, and everything comes back.
TEST(BlockHeap, Random) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE(seed);
  base::Prng random(seed);
  Block b;
  BlockHeap h(b.bytes);
  struct Piece {
    uint8_t* at;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Piece> live;
  for (int i = 0; i < 20'000; ++i) {
    if (live.empty() || random.next() % 2 == 0) {
      const size_t n = 1 + random.next() % (random.next() % 8 == 0 ? 20'000 : 500);
      auto* p = static_cast<uint8_t*>(h.allocate(n));
      if (p == nullptr) continue;
      ASSERT_EQ(reinterpret_cast<uintptr_t>(p) % BlockHeap::kAlign, 0u);
      ASSERT_GE(p, b.bytes);
      ASSERT_LE(p + n, b.bytes + sizeof b.bytes);
      std::memset(p, i & 0xff, n);
      live.push_back({p, n, static_cast<uint8_t>(i)});
    } else {
      const size_t k = random.next() % live.size();
      for (size_t at = 0; at < live[k].bytes; ++at) ASSERT_EQ(live[k].at[at], live[k].mark);
      h.free(live[k].at);
      live[k] = live.back();
      live.pop_back();
    }
  }
  for (const Piece& p : live) h.free(p.at);
  EXPECT_EQ(h.in_use(), 0u);
  EXPECT_NE(h.allocate(sizeof b.bytes - 16), nullptr);
}

}  // namespace
}  // namespace millrace::compress
