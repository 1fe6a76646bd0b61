#include "lib/base/pool.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::base {
namespace {

struct Thing {
  uint64_t value = 42;
  char name[24] = {};
};

TEST(Pool, LendsEachOnceAndThenSaysNo) {
  Pool<Thing> pool(3);
  EXPECT_EQ(pool.capacity(), 3u);
  Thing* a = pool.alloc();
  Thing* b = pool.alloc();
  Thing* c = pool.alloc();
  EXPECT_EQ((std::set<Thing*>{a, b, c}).size(), 3u);
  EXPECT_EQ(pool.index_of(a), 0u);
  EXPECT_EQ(a->value, 42u);
  EXPECT_TRUE(pool.full());
  EXPECT_EQ(pool.alloc(), nullptr);
  EXPECT_EQ(pool.alloc_index(), Pool<Thing>::kNone);
  EXPECT_EQ(pool.in_use(), 3u);
  pool.free(b);
  EXPECT_EQ(pool.in_use(), 2u);
  EXPECT_FALSE(pool.lent(1));
  EXPECT_TRUE(pool.lent(2));
}

TEST(Pool, LastBackIsFirstOut) {
  Pool<Thing> pool(4);
  for (int i = 0; i < 4; ++i) pool.alloc();
  pool.free_index(2);
  pool.free_index(0);
  EXPECT_EQ(pool.alloc_index(), 0u);
  EXPECT_EQ(pool.alloc_index(), 2u);
}

TEST(Pool, MistakesDie) {
  Pool<Thing> pool(2), other(2);
  Thing* a = pool.alloc();
  EXPECT_DEATH(other.free(a), "object of this pool");
  EXPECT_DEATH(pool.free(reinterpret_cast<Thing*>(reinterpret_cast<uint8_t*>(a) + 8)), "object of this pool");
  pool.free(a);
  EXPECT_DEATH(pool.free(a), "given back once");
  EXPECT_DEATH((void)pool[2], "within the pool");
}

TEST(Pool, RandomUseKeepsTheBooks) {
  constexpr uint64_t kSeed = 3;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  Prng random(kSeed);
  Pool<Thing> pool(64);
  std::vector<uint32_t> out;
  for (int step = 0; step < 20'000; ++step) {
    if (random.chance(1, 2)) {
      const uint32_t i = pool.alloc_index();
      ASSERT_EQ(i == Pool<Thing>::kNone, out.size() == 64);
      if (i == Pool<Thing>::kNone) continue;
      pool[i].value = i;
      out.push_back(i);
    } else if (!out.empty()) {
      const size_t at = random.below(out.size());
      ASSERT_EQ(pool[out[at]].value, out[at]);
      pool.free_index(out[at]);
      out[at] = out.back();
      out.pop_back();
    }
    ASSERT_EQ(pool.in_use(), out.size());
  }
}

}  // namespace
}  // namespace millrace::base
