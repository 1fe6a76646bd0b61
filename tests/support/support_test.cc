// The tools of the tests are tested too: a pool that misses a leak, or a guard page that does not guard, makes every other test
// weaker.
#include <vector>

#include <gtest/gtest.h>

#include "lib/io/packet_queue.h"
#include "tests/support/guard_page.h"
#include "tests/support/heap_packet_pool.h"
#include "tests/support/hex.h"

namespace millrace::support {
namespace {

TEST(HeapPacketPool, LendsRealPackets) {
  HeapPacketPool pool(4, 1000);
  {
    io::PacketPtr p = pool.make("hello");
    EXPECT_EQ(base::as_chars(p.bytes()), "hello");
    EXPECT_EQ(p.headroom(), uint32_t{RTE_PKTMBUF_HEADROOM});
    EXPECT_EQ(p.tailroom(), 995u);
    EXPECT_FALSE(p.shared());
    EXPECT_EQ(pool.pool().data_room(), 1000u);
    EXPECT_EQ(pool.pool().capacity(), 4u);
    EXPECT_EQ(pool.pool().available(), 3u);
    EXPECT_EQ(pool.in_use(), 1u);
  }
  EXPECT_TRUE(pool.balanced());
  EXPECT_EQ(pool.high_water(), 1u);
}

TEST(HeapPacketPool, SaysNoWhenEmptyAndAtItsLimit) {
  HeapPacketPool pool(2);
  io::PacketPtr a = pool.alloc(), b = pool.alloc();
  EXPECT_TRUE(a && b);
  EXPECT_FALSE(pool.alloc());
  b.reset();
  pool.set_limit(1);
  EXPECT_FALSE(pool.alloc());
  pool.set_limit(pool.capacity());
  EXPECT_TRUE(pool.alloc());
}

TEST(HeapPacketPool, ReferencesCount) {
  HeapPacketPool pool(4);
  io::PacketPtr original = pool.make("shared");
  io::PacketPtr clone = pool.alloc();
  rte_pktmbuf_attach(clone.raw(), original.raw());
  original.reset();
  EXPECT_EQ(base::as_chars(clone.bytes()), "shared");
  EXPECT_TRUE(clone.shared());
  EXPECT_EQ(pool.in_use(), 2u);
  clone.reset();
  EXPECT_TRUE(pool.balanced());
}

TEST(HeapPacketPool, ARoomlessPacketCanBeAttached) {
  HeapPacketPool pool(2), indirect(2, 0);
  io::PacketPtr original = pool.make("x"), clone = indirect.alloc();
  EXPECT_EQ(clone.tailroom(), 0u);
  rte_pktmbuf_attach(clone.raw(), original.raw());
  EXPECT_EQ(base::as_chars(clone.bytes()), "x");
}

TEST(HeapPacketPool, MistakesDie) {
  EXPECT_DEATH(
      {
        HeapPacketPool pool(2);
        (void)pool.alloc().release();
      },
      "every packet back");
  EXPECT_DEATH(
      {
        HeapPacketPool pool(2);
        rte_mbuf* m = pool.alloc().release();
        rte_mempool_put(pool.pool().raw(), m);
        rte_mempool_put(pool.pool().raw(), m);
      },
      "freed once|use-after-poison");
  EXPECT_DEATH(
      {
        HeapPacketPool pool(2);
        HeapPacketPool other(2);
        rte_mempool_put(other.pool().raw(), pool.alloc().release());
      },
      "packet of this pool");
  EXPECT_DEATH(
      {
        HeapPacketPool pool(2);
        rte_mbuf* m = pool.alloc().release();
        rte_mbuf_refcnt_set(m, 2);
        rte_mempool_put(pool.pool().raw(), m);
      },
      "initial state");
}

TEST(PacketQueue, MovesBytesBetweenPackets) {
  HeapPacketPool pool(8, 100);
  io::PacketQueue queue, other;
  EXPECT_EQ(queue.append_copy(std::string_view(std::string(250, 'a')), pool), 250u);
  EXPECT_EQ(queue.packets(), 3u);
  EXPECT_EQ(queue.move_to(other, 120, pool), 120u);
  EXPECT_EQ(other.bytes(), 120u);
  EXPECT_EQ(queue.bytes(), 130u);
  queue.consume(130);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.truesize(), 0u);
  other.clear();
  EXPECT_TRUE(pool.balanced());
}

TEST(GuardPage, GuardsTheFirstByteBehind) {
  GuardPage page(hex("0102 03"));
  EXPECT_EQ(page.bytes().size(), 3u);
  EXPECT_EQ(page.bytes()[2], 3);
  const volatile uint8_t* behind = page.bytes().data() + 3;
  EXPECT_DEATH((void)*behind, "");
  const auto again = page.place(hex("ff"));
  EXPECT_EQ(again.size(), 1u);
  EXPECT_EQ(again.data() + 1, behind);
}

TEST(Hex, ReadsDumps) { EXPECT_EQ(hex("45 00\n0aFF"), (std::vector<uint8_t>{0x45, 0, 0x0a, 0xff})); }

}  // namespace
}  // namespace millrace::support
