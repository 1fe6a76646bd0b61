// The parts with an invariant of their own, each against a simple reference: serial numbers, scoreboard, reassembly.
#include <cstdlib>
#include <ctime>

#include "lib/base/prng.h"
#include "tests/support/seed.h"
#include "tests/unit/tcp/dialog.h"

namespace millrace::tcp {
namespace {

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

// --- the scoreboard against a record for each byte

constexpr uint32_t kSpace = 400;

struct ByteRecord {
  bool sent = false, reported = false, lost = false, repeated = false;
  uint32_t at_us = 0;
};

TEST(ScoreboardTest, AgreesWithARecordForEachByte) {
  const uint64_t seed = support::run_seed();
  base::Prng r(seed);
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed));
  for (int round = 0; round < 2000; ++round) {
    const uint32_t origin = static_cast<uint32_t>(r.next());  // anywhere, so that it goes round too
    uint32_t now_us = static_cast<uint32_t>(r.next());
    Scoreboard s;
    std::vector<ByteRecord> bytes(kSpace);
    uint32_t una = 0, max = 0;
    s.reset(origin, origin, 0);
    const auto count = [&](auto&& which) {
      uint32_t n = 0;
      for (uint32_t i = una; i < max; ++i) n += which(bytes[i]);
      return n;
    };
    for (int step = 0; step < 24; ++step) {  // few enough that nothing must be forgotten
      now_us += static_cast<uint32_t>(r.below(100));
      uint32_t visited = 0;
      const auto visit = [&](const Scoreboard::Range& range) {
        for (uint32_t i = range.left - origin; i < range.right - origin; ++i) {
          ASSERT_FALSE(bytes[i].reported);
          ASSERT_EQ(bytes[i].repeated, range.repeated());
          ASSERT_GE(sent_since(range.sent_us, bytes[i].at_us), 0);
          ++visited;
        }
      };
      const uint32_t left = static_cast<uint32_t>(r.between(una, max));
      const uint32_t right = static_cast<uint32_t>(r.between(left, std::min(left + 30, max)));
      switch (r.below(7)) {
        case 0:
        case 1: {  // new data
          const uint32_t end = static_cast<uint32_t>(r.between(max, std::min(max + 60, kSpace)));
          for (; max < end; ++max) bytes[max] = {.sent = true, .at_us = now_us};
          s.extend(origin + max, now_us, 5);
          break;
        }
        case 2:  // sent again
          if (left == right) break;
          if (count([](const ByteRecord&) { return true; }) == 0) break;
          for (uint32_t i = left; i < right; ++i) bytes[i] = {.sent = true, .repeated = true, .at_us = now_us};
          s.repeat(origin + left, origin + right, now_us, 5);
          break;
        case 3:
        case 4: {  // reported
          if (left == right) break;
          uint32_t fresh = 0;
          for (uint32_t i = left; i < right; ++i) fresh += !bytes[i].reported;
          s.report(origin + left, origin + right, visit);
          ASSERT_EQ(visited, fresh);
          for (uint32_t i = left; i < right; ++i) bytes[i].reported = true, bytes[i].lost = false;
          break;
        }
        case 5: {  // acknowledged
          uint32_t fresh = 0;
          for (uint32_t i = una; i < left; ++i) fresh += !bytes[i].reported;
          s.advance(origin + left, visit);
          ASSERT_EQ(visited, fresh);
          una = left;
          break;
        }
        case 6: {  // lost: what is older than some time, by the range's own
          const uint32_t age = static_cast<uint32_t>(r.below(300));
          uint32_t fresh = 0;
          const uint32_t got = s.lose([&](const Scoreboard::Range& range) {
            if (static_cast<uint32_t>(sent_since(now_us, range.sent_us)) < age) return false;
            for (uint32_t i = range.left - origin; i < range.right - origin; ++i) fresh += !bytes[i].lost, bytes[i].lost = true;
            return true;
          });
          ASSERT_EQ(got, fresh);
          break;
        }
      }
      ASSERT_LE(s.ranges(), Scoreboard::kOwnRanges);
      ASSERT_EQ(s.una(), origin + una);
      ASSERT_EQ(s.max(), origin + max);
      ASSERT_EQ(s.bytes(), count([](const ByteRecord& b) { return b.reported; }));
      ASSERT_EQ(s.lost(), count([](const ByteRecord& b) { return !b.reported && b.lost; }));
      ASSERT_EQ(s.repeated(), count([](const ByteRecord& b) { return !b.reported && !b.lost && b.repeated; }));
      ASSERT_EQ(s.in_flight(), count([](const ByteRecord& b) { return !b.reported && !b.lost; }));
      uint32_t first = una;
      while (first < max && (bytes[first].reported || !bytes[first].lost)) ++first;
      ASSERT_EQ(s.first_lost().left, origin + first);
      for (int i = 0; i < 5 && una < max; ++i) {
        const uint32_t at = static_cast<uint32_t>(r.between(una, max - 1));
        uint32_t end = at;
        while (end < max && bytes[end].reported) ++end;
        ASSERT_EQ(s.skip(origin + at), origin + end);
        const uint32_t to = static_cast<uint32_t>(r.between(at, max));
        uint32_t n = 0;
        for (uint32_t k = at; k < to; ++k) n += bytes[k].reported;
        ASSERT_EQ(s.bytes_in(origin + at, origin + to), n);
      }
    }
  }
}

TEST(ScoreboardTest, WhatDoesNotFitIsForgottenFromTheTop) {
  Scoreboard s;
  s.reset(0, 0, 0);
  for (uint32_t i = 1; i <= 40; ++i) s.extend(i * 1000, i * 1000, 0);
  EXPECT_LE(s.ranges(), Scoreboard::kOwnRanges);
  EXPECT_EQ(s.in_flight(), 40'000u);
  for (uint32_t i = 1; i < 40; i += 2) s.report(i * 1000, i * 1000 + 1000, [](const Scoreboard::Range&) {});
  EXPECT_LE(s.ranges(), Scoreboard::kOwnRanges);
  EXPECT_EQ(s.max(), 40'000u);
  EXPECT_EQ(s.in_flight() + s.bytes(), 40'000u);
  EXPECT_GE(s.bytes(), 14'000u);  // the lowest reports are the ones that are kept
  for (uint32_t i = 1; i < 28; i += 2) EXPECT_EQ(s.skip(i * 1000), i * 1000 + 1000);
}

// Of a window of which a queue has lost every second segment, all is remembered, and the places go back when they do no more.
TEST(ScoreboardTest, WhatDoesNotFitIsBorrowed) {
  Scoreboard::Annexes annexes(1);
  Scoreboard s, other;
  s.set_annexes(&annexes);
  other.set_annexes(&annexes);
  const auto nothing = [](const Scoreboard::Range&) {};
  s.reset(0, 800'000, 0);
  for (uint32_t i = 1; i < 800; i += 2) s.report(i * 1000, i * 1000 + 1000, nothing);
  EXPECT_EQ(s.bytes(), 400'000u);
  EXPECT_EQ(s.ranges(), 800u);
  EXPECT_EQ(s.reported_ranges(), 400u);
  EXPECT_EQ(annexes.in_use(), 1u);
  EXPECT_EQ(s.lose([](const Scoreboard::Range&) { return true; }), 400'000u);
  for (uint32_t i = 0; i < 800; i += 2) {
    ASSERT_EQ(s.first_lost().left, i * 1000);
    ASSERT_EQ(s.next_left(i * 1000, 800'000), i * 1000 + 1000);
    ASSERT_EQ(s.skip(i * 1000 + 1500), i * 1000 + 2000);
    s.repeat(i * 1000, i * 1000 + 1000, i, 0);
  }
  EXPECT_EQ(s.repeated(), 400'000u);
  // Nothing is left for another one, which forgets from its top.
  other.reset(0, 800'000, 0);
  for (uint32_t i = 1; i < 800; i += 2) other.report(i * 1000, i * 1000 + 1000, nothing);
  EXPECT_LE(other.ranges(), Scoreboard::kOwnRanges);
  EXPECT_EQ(other.skip(1000), 2000u);
  s.advance(795'000, nothing);
  EXPECT_EQ(annexes.in_use(), 0u);
  EXPECT_EQ(s.bytes(), 3000u);
  EXPECT_EQ(s.skip(795'000), 796'000u);
  EXPECT_EQ(s.skip(796'000), 796'000u);
}

TEST(ScoreboardTest, EvenWhatIsBorrowedIsFullAtLast) {
  Scoreboard::Annexes annexes(1);
  {
    Scoreboard s;
    s.set_annexes(&annexes);
    s.reset(0, 4'000'000, 0);
    for (uint32_t i = 1; i < 4000; i += 2) s.report(i * 1000, i * 1000 + 1000, [](const Scoreboard::Range&) {});
    EXPECT_LE(s.ranges(), Scoreboard::kMaxRanges);
    EXPECT_EQ(s.max(), 4'000'000u);
    EXPECT_GE(s.bytes(), 510'000u);  // the lowest
    for (uint32_t i = 1; i < 1020; i += 2) ASSERT_EQ(s.skip(i * 1000), i * 1000 + 1000);
  }
  EXPECT_EQ(annexes.in_use(), 0u);
}

TEST(ScoreboardTest, OfMeltedRangesTheLaterTimeCounts) {
  Scoreboard s;
  s.reset(0, 0, 0);
  s.extend(1000, 64, 6);
  s.extend(2000, 127, 6);  // the same 64 us
  s.extend(3000, 128, 6);  // the next
  std::vector<std::pair<uint32_t, uint32_t>> seen;
  s.advance(3000, [&](const Scoreboard::Range& r) { seen.push_back({r.right, r.sent_us}); });
  EXPECT_EQ(seen, (std::vector<std::pair<uint32_t, uint32_t>>{{2000, 127}, {3000, 128}}));
}

// --- reassembly against an array

TEST(ReassemblyTest, AgreesWithAnArray) {
  const uint64_t seed = support::run_seed();
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
          ASSERT_GT(q.ranges(), Reassembly::kMaxWalk);
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

// A queue on the way that overflows loses every second segment of a large window; what is sent again fills the gaps in order.
TEST(ReassemblyTest, HoldsAsManyRangesAsItsBudgetAllows) {
  support::HeapPacketPool pool(4096, 2048);
  Reassembly q;
  io::PacketQueue out;
  const std::string segment(1000, 'x');
  for (uint32_t i = 1; i < 2000; i += 2)
    ASSERT_EQ(q.insert(i * 1000, pool.make(segment), UINT32_MAX), Reassembly::Outcome::kStored);
  EXPECT_EQ(q.ranges(), 1000u);
  for (uint32_t i = 2; i < 2000; i += 2)
    ASSERT_EQ(q.insert(i * 1000, pool.make(segment), UINT32_MAX), Reassembly::Outcome::kStored);
  EXPECT_EQ(q.ranges(), 1u);
  EXPECT_EQ(q.deliver(1000, out), 1'999'000u);
  EXPECT_EQ(q.ranges(), 0u);
  EXPECT_TRUE(q.empty());
}

TEST(ReassemblyTest, ASearchIsBounded) {
  support::HeapPacketPool pool(4096, 2048);
  Reassembly q;
  const std::string byte(1, 'x');
  for (uint32_t i = 1; i <= 1000; ++i) ASSERT_EQ(q.insert(i * 1000, pool.make(byte), UINT32_MAX), Reassembly::Outcome::kStored);
  constexpr uint32_t kNear = Reassembly::kMaxWalk * 1000;
  EXPECT_EQ(q.insert(500'500, pool.make(byte), UINT32_MAX), Reassembly::Outcome::kFull);            // in the middle of nowhere
  EXPECT_EQ(q.insert(kNear + 500, pool.make(byte), UINT32_MAX), Reassembly::Outcome::kStored);      // near the head,
  EXPECT_EQ(q.insert(2 * kNear - 500, pool.make(byte), UINT32_MAX), Reassembly::Outcome::kStored);  // near the last place,
  EXPECT_EQ(q.insert(1'000'500, pool.make(byte), UINT32_MAX), Reassembly::Outcome::kStored);        // at the top
  EXPECT_EQ(q.ranges(), 1003u);
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
