#include "control/arena.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::control {
namespace {

constexpr uint64_t kSize = 1 << 20;

Arena make() {
  auto a = Arena::create(kSize);
  EXPECT_TRUE(a.ok());
  return std::move(*a);
}

TEST(Arena, SizesOutOfRangeAreRefused) {
  EXPECT_FALSE(Arena::create(table::kMinArenaSize - 1).ok());
  EXPECT_FALSE(Arena::create(table::kMaxArenaSize + 1).ok());
}

TEST(Arena, BlocksAreAlignedAndNeverAtZero) {
  Arena a = make();
  for (const uint64_t size : {1u, 63u, 64u, 65u, 1000u}) {
    auto offset = a.allocate(size);
    ASSERT_TRUE(offset.ok());
    EXPECT_GE(*offset, table::kArenaFirstOffset);
    EXPECT_EQ(*offset % 64, 0u);
  }
  EXPECT_EQ(a.blocks(), 5u);
  EXPECT_EQ(a.used(), 64u + 64 + 64 + 128 + 1024);
}

TEST(Arena, TheBestFitIsTakenAndNeighboursGrowTogether) {
  Arena a = make();
  uint64_t o[6];
  for (int i = 0; i < 6; ++i) o[i] = *a.allocate(i == 1 ? 4096 : 1024);
  a.free(o[1]);
  a.free(o[3]);
  EXPECT_EQ(*a.allocate(1000), o[3]) << "the smaller hole fits better";
  EXPECT_EQ(*a.allocate(2000), o[1]);
  for (int i : {0, 2, 3, 4, 5}) a.free(o[i]);
  a.free(o[1]);
  EXPECT_EQ(a.used(), 0u);
  EXPECT_EQ(a.largest_free(), kSize - table::kArenaFirstOffset) << "all of it is one block again";
}

TEST(Arena, FullIsAnErrorThatSaysHowFull) {
  Arena a = make();
  ASSERT_TRUE(a.allocate(kSize - table::kArenaFirstOffset - 64).ok());
  auto r = a.allocate(65);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(
      r.error(),
      "the arena is full: 65 bytes wanted, largest free block 64 of 1048576 (1044416 in use, of these 0 wait for a worker)");
  EXPECT_TRUE(a.allocate(64).ok());
  EXPECT_FALSE(a.allocate(1).ok());
  EXPECT_FALSE(a.allocate(UINT64_MAX).ok()) << "rounding up does not wrap";
}

TEST(Arena, RetiredBlocksWaitForTheirEpoch) {
  Arena a = make();
  const uint64_t x = *a.allocate(100), y = *a.allocate(100), z = *a.allocate(100);
  a.retire(x, 5);
  a.retire(y, 5);
  a.retire(z, 7);
  EXPECT_EQ(a.retired(), 384u);
  EXPECT_EQ(a.reclaim(4), 0u);
  EXPECT_EQ(a.reclaim(6), 2u);
  EXPECT_EQ(a.blocks(), 1u);
  EXPECT_EQ(a.reclaim(7), 1u);
  EXPECT_EQ(a.used(), 0u);
  EXPECT_EQ(a.retired(), 0u);
}

TEST(Arena, RandomUseAgainstAModel) {
  const uint64_t seed = std::getenv("SEED") != nullptr ? std::strtoull(std::getenv("SEED"), nullptr, 10) : 0xa7e4a;
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  base::Prng random(seed);
  Arena a = make();
  std::map<uint64_t, std::pair<uint64_t, uint8_t>> model;  // offset -> size, fill
  int full = 0;
  for (int i = 0; i < 50'000; ++i) {
    if (random.below(100) < 52) {
      const uint64_t size = 1 + random.below(random.below(10) == 0 ? 100'000 : 5'000);
      auto offset = a.allocate(size);
      if (!offset.ok()) {
        ++full;
        ASSERT_LT(a.largest_free(), (size + 63) / 64 * 64);
        continue;
      }
      const auto next = model.lower_bound(*offset);
      ASSERT_TRUE(next == model.end() || *offset + size <= next->first) << "overlaps the block behind";
      ASSERT_TRUE(next == model.begin() || std::prev(next)->first + std::prev(next)->second.first <= *offset)
          << "overlaps the block before";
      ASSERT_LE(*offset + size, a.size());
      const uint8_t fill = static_cast<uint8_t>(random.next());
      std::memset(a.at(*offset), fill, size);
      model[*offset] = {size, fill};
    } else if (!model.empty()) {
      auto it = std::next(model.begin(), static_cast<ptrdiff_t>(random.below(model.size())));
      for (uint64_t k = 0; k < it->second.first; k += 997)
        ASSERT_EQ(a.at(it->first)[k], it->second.second) << "somebody wrote into the block";
      a.free(it->first);
      model.erase(it);
    }
  }
  EXPECT_GT(full, 100) << "the arena was never full: the test does not test that";
  while (!model.empty()) {
    a.free(model.begin()->first);
    model.erase(model.begin());
  }
  EXPECT_EQ(a.largest_free(), kSize - table::kArenaFirstOffset);
}

// Pieces come and go with their blocks; what is on which pages is counted whatever the system has to give.
TEST(Arena, PiecesArePutOnHugePagesBeforeTheirFirstBlock) {
  constexpr uint64_t kPiece = shm::kHugePageSize;
  auto created = Arena::create(8 * kPiece);
  ASSERT_TRUE(created.ok());
  Arena a = std::move(*created);
  const auto pieces = [&a] { return (a.on_huge_pages() + a.on_ordinary_pages()) / kPiece; };
  EXPECT_EQ(pieces(), 0u);
  const uint64_t small = *a.allocate(100);
  EXPECT_EQ(pieces(), 1u);
  const uint64_t large = *a.allocate(3 * kPiece);  // ends in the fourth piece
  EXPECT_EQ(pieces(), 4u);
  a.at(large)[kPiece] = 'x';
  std::memset(a.at(small), 'y', 100);
  a.free(large);
  EXPECT_EQ(pieces(), 2u) << "the two that it filled are given back, the two that it shared stay";
  EXPECT_EQ(a.at(large)[kPiece], 0);
  EXPECT_EQ(a.at(small)[99], 'y');
  EXPECT_EQ(*a.allocate(3 * kPiece), large);
  EXPECT_EQ(pieces(), 4u);
}

}  // namespace
}  // namespace millrace::control
