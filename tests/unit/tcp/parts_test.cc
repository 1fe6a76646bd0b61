// The parts with an invariant of their own, each against a simple reference: serial numbers, scoreboard, reassembly.
#include <bitset>
#include <cstdlib>
#include <ctime>

#include "lib/base/prng.h"
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

uint64_t test_seed() {
  const char* given = std::getenv("MILLRACE_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : static_cast<uint64_t>(std::time(nullptr));
}

TEST(Seq, GoesRound) {
  EXPECT_TRUE(seq_lt(0xffffffff, 0));
  EXPECT_TRUE(seq_gt(5, 0xfffffff0));
  EXPECT_TRUE(seq_le(7, 7) && seq_ge(7, 7));
  EXPECT_FALSE(seq_lt(7, 7));
  EXPECT_EQ(seq_max(0xffffffff, 1), 1u);
  EXPECT_EQ(seq_min(0xffffffff, 1), 0xffffffffu);
  EXPECT_TRUE(seq_in(0, 0xfffffff0, 0x10));
  EXPECT_FALSE(seq_in(0x10, 0xfffffff0, 0x10));
  EXPECT_FALSE(seq_in(5, 5, 5));
}

// --- the scoreboard against one bit a byte

constexpr uint32_t kSpace = 400;
using Bits = std::bitset<kSpace>;

uint32_t count_bits(const Bits& b, uint32_t from, uint32_t to) {
  uint32_t n = 0;
  for (uint32_t i = from; i < to; ++i) n += b[i];
  return n;
}

TEST(ScoreboardTest, AgreesWithOneBitAByte) {
  const uint64_t seed = test_seed();
  base::Prng r(seed);
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed));
  for (int round = 0; round < 2000; ++round) {
    const uint32_t origin = static_cast<uint32_t>(r.next());  // anywhere, so that it goes round too
    Scoreboard s;
    Bits bits;
    uint32_t una = 0;
    for (int step = 0; step < 40; ++step) {
      if (r.chance(1, 5)) {
        una = static_cast<uint32_t>(r.between(una, std::min(una + 60, kSpace)));
        s.advance(origin + una);
        for (uint32_t i = 0; i < una; ++i) bits[i] = false;
      } else if (una + 1 < kSpace) {
        const uint32_t left = static_cast<uint32_t>(r.between(una, kSpace - 1));
        const uint32_t right = static_cast<uint32_t>(r.between(left + 1, std::min(left + 30, kSpace)));
        const uint32_t before = s.bytes();
        const bool full = s.ranges() == Scoreboard::kMaxRanges;
        const uint32_t fresh = s.add(origin + left, origin + right);
        Bits expected = bits;
        for (uint32_t i = left; i < right; ++i) expected[i] = true;
        if (!full) {
          ASSERT_EQ(fresh, expected.count() - bits.count());
          ASSERT_EQ(s.bytes(), before + fresh);
          bits = expected;
        } else {
          // Something may have been forgotten from the top: what is kept must be true.
          Bits kept;
          for (uint32_t i = 0; i < kSpace; ++i) kept[i] = s.skip(origin + i) != origin + i;
          ASSERT_TRUE((kept & ~expected).none());
          bits = kept;
        }
      }
      ASSERT_LE(s.ranges(), Scoreboard::kMaxRanges);
      ASSERT_EQ(s.bytes(), bits.count());
      for (int i = 0; i < 5; ++i) {
        const uint32_t at = static_cast<uint32_t>(r.below(kSpace));
        uint32_t end = at;
        while (end < kSpace && bits[end]) ++end;
        ASSERT_EQ(s.skip(origin + at), origin + end);
        const uint32_t to = static_cast<uint32_t>(r.between(at, kSpace));
        ASSERT_EQ(s.bytes_in(origin + at, origin + to), count_bits(bits, at, to));
      }
    }
  }
}

TEST(ScoreboardTest, IsLost) {  // RFC 6675 4
  Scoreboard s;
  s.add(1000, 2000);
  s.add(3000, 4000);
  EXPECT_FALSE(s.is_lost(0, 1000));  // two ranges, two segments
  EXPECT_TRUE(s.is_lost(0, 999));    // more than two segments
  s.add(5000, 5001);
  EXPECT_TRUE(s.is_lost(0, 1000));  // three ranges
  EXPECT_FALSE(s.is_lost(2000, 1000));
  EXPECT_EQ(s.pipe(0, 7000, 0, 1000), 3000u - 0 + 999 + 999 - 999);  // 2000-3000, 4000-5000, 5001-7000 fly; 0-1000 is lost
}

TEST(ScoreboardTest, PipeCountsRepeatedBytesTwice) {
  Scoreboard s;
  s.add(1000, 2000);
  EXPECT_EQ(s.pipe(0, 3000, 0, 1000), 2000u);     // both holes still fly
  EXPECT_EQ(s.pipe(0, 3000, 1000, 1000), 3000u);  // and the first was sent again
  s.add(2000, 3000);
  s.add(3000, 4000);
  EXPECT_EQ(s.pipe(0, 4000, 1000, 1000), 1000u);  // the original is lost, the copy flies
}

// --- reassembly against an array

TEST(ReassemblyTest, AgreesWithAnArray) {
  const uint64_t seed = test_seed();
  base::Prng r(seed);
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed));
  support::HeapPacketPool pool(512, 2048);
  for (int round = 0; round < 600; ++round) {
    const uint32_t origin = static_cast<uint32_t>(r.next());
    constexpr uint32_t kLength = 6000;
    std::vector<bool> held(kLength, false);
    Reassembly q;
    io::PacketQueue out;
    uint32_t rcv_nxt = 0;
    const uint32_t max_piece = r.chance(1, 2) ? 60 : 1500;
    for (int step = 0; step < 60; ++step) {
      if (rcv_nxt >= kLength) break;
      const uint32_t left = static_cast<uint32_t>(r.between(rcv_nxt, kLength - 1));
      const uint32_t n = static_cast<uint32_t>(r.between(1, std::min(max_piece, kLength - left)));
      std::vector<uint8_t> bytes(n);
      for (uint32_t i = 0; i < n; ++i) bytes[i] = pattern(left + i);
      if (left > rcv_nxt) {
        bool any_new = false;
        for (uint32_t i = left; i < left + n; ++i) any_new = any_new || !held[i];
        const auto outcome = q.insert(origin + left, pool.make(bytes), UINT32_MAX);
        if (outcome != Reassembly::Outcome::kFull) {
          ASSERT_EQ(outcome == Reassembly::Outcome::kStored, any_new);
          for (uint32_t i = left; i < left + n; ++i) held[i] = true;
        } else {
          ASSERT_EQ(q.ranges(), Reassembly::kMaxRanges);
        }
        // The first block reported holds what came last.
        wire::SackBlocks blocks;
        Reassembly& report = q;
        if (outcome != Reassembly::Outcome::kFull) {
          report.report(blocks, 3);
          ASSERT_GE(blocks.size(), 1u);
          uint32_t from = left, to = left + n;
          while (from > 0 && held[from - 1]) --from;
          while (to < kLength && held[to]) ++to;
          ASSERT_EQ(blocks[0].left - origin, from);
          ASSERT_EQ(blocks[0].right - origin, to);
        }
      } else {
        out.push(pool.make(bytes));
        const uint32_t got = n + q.deliver(origin + rcv_nxt + n, out);
        for (uint32_t i = rcv_nxt; i < rcv_nxt + n; ++i) held[i] = true;
        uint32_t expected = rcv_nxt;
        while (expected < kLength && held[expected]) ++expected;
        ASSERT_EQ(rcv_nxt + got, expected);
        for (uint32_t i = 0; i < got; ++i) {
          uint8_t b = 0;
          out.peek(i, &b, 1);
          ASSERT_EQ(b, pattern(rcv_nxt + i));
        }
        out.clear();
        rcv_nxt += got;
        for (uint32_t i = 0; i < rcv_nxt; ++i) held[i] = false;
      }
      uint32_t bytes_held = 0, ranges = 0;
      for (uint32_t i = rcv_nxt; i < kLength; ++i) {
        bytes_held += held[i];
        ranges += held[i] && (i == 0 || !held[i - 1]);
      }
      ASSERT_EQ(q.bytes(), bytes_held);
      ASSERT_EQ(q.ranges(), ranges);
    }
  }
}

TEST(ReassemblyTest, RespectsItsBudget) {
  support::HeapPacketPool pool(64, 2048);
  Reassembly q;
  const uint32_t one = pool.make(std::string_view("x")).truesize();
  const std::string big(1000, 'x');
  EXPECT_EQ(q.insert(10'000, pool.make(big), 2 * one), Reassembly::Outcome::kStored);
  EXPECT_EQ(q.insert(20'000, pool.make(big), 2 * one), Reassembly::Outcome::kStored);
  EXPECT_EQ(q.insert(30'000, pool.make(big), 2 * one), Reassembly::Outcome::kFull);
  EXPECT_EQ(q.insert(21'000, pool.make(std::string_view("small")), 2 * one),
            Reassembly::Outcome::kStored);  // into the same packet
  EXPECT_EQ(q.truesize(), 2 * one);
}

}  // namespace
}  // namespace millrace::tcp
