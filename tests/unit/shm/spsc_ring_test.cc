#include "lib/shm/spsc_ring.h"

#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/hash.h"
#include "lib/base/prng.h"
#include "lib/shm/segment.h"

namespace millrace::shm {
namespace {

struct AlignedMemory {
  explicit AlignedMemory(size_t n) : size(n), p(static_cast<uint8_t*>(std::aligned_alloc(64, (n + 63) / 64 * 64))) {
    std::memset(p, 0, n);
  }
  ~AlignedMemory() { std::free(p); }
  std::span<uint8_t> span() { return {p, size}; }
  size_t size;
  uint8_t* p;
};

struct TestRing {
  explicit TestRing(uint64_t capacity) : memory(ring_bytes(capacity)) {
    EXPECT_EQ(format_ring(memory.span(), capacity), RingError::kNone);
    EXPECT_EQ(producer.attach(memory.span()), RingError::kNone);
    EXPECT_EQ(consumer.attach(memory.span()), RingError::kNone);
  }
  RingHeader& header() { return *reinterpret_cast<RingHeader*>(memory.p); }
  AlignedMemory memory;
  RingProducer producer;
  RingConsumer consumer;
};

std::span<const uint8_t> bytes(const std::string& s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }
std::string text(std::span<const uint8_t> s) { return {reinterpret_cast<const char*>(s.data()), s.size()}; }

TEST(SpscRing, CapacityTable) {
  AlignedMemory memory(ring_bytes(1 << 16));
  const struct {
    uint64_t capacity;
    size_t memory;
    RingError want;
  } cases[] = {
      {4096, ring_bytes(4096), RingError::kNone},
      {1 << 16, ring_bytes(1 << 16), RingError::kNone},
      {4096, ring_bytes(4096) - 1, RingError::kTooSmall},
      {2048, ring_bytes(1 << 16), RingError::kBadCapacity},
      {4097, ring_bytes(1 << 16), RingError::kBadCapacity},
      {0, ring_bytes(1 << 16), RingError::kBadCapacity},
      {kMaxRingCapacity * 2, ring_bytes(1 << 16), RingError::kBadCapacity},
  };
  for (const auto& c : cases)
    EXPECT_EQ(format_ring(memory.span().first(c.memory), c.capacity), c.want) << c.capacity << " in " << c.memory;
  EXPECT_EQ(format_ring(memory.span().subspan(8), 4096), RingError::kTooSmall) << "unaligned";
  EXPECT_EQ(ring_capacity_for(ring_bytes(4096)), 4096u);
  EXPECT_EQ(ring_capacity_for(ring_bytes(4096) - 1), 0u);
  EXPECT_EQ(ring_capacity_for(10'000), 8192u);
}

TEST(SpscRing, RecordsComeOutInOrderAndWhole) {
  TestRing r(4096);
  EXPECT_EQ(r.consumer.front().data(), nullptr);
  EXPECT_TRUE(r.producer.push(bytes("one")));
  EXPECT_TRUE(r.producer.push({}));
  EXPECT_TRUE(r.producer.push(bytes("three is longer than eight bytes")));
  EXPECT_EQ(text(r.consumer.front()), "one");
  EXPECT_EQ(text(r.consumer.front()), "one") << "front may be repeated";
  r.consumer.pop();
  const auto empty = r.consumer.front();
  EXPECT_NE(empty.data(), nullptr) << "an empty record is a record";
  EXPECT_EQ(empty.size(), 0u);
  r.consumer.pop();
  EXPECT_EQ(text(r.consumer.front()), "three is longer than eight bytes");
  r.consumer.pop();
  EXPECT_EQ(r.consumer.front().data(), nullptr);
  EXPECT_EQ(r.consumer.error(), RingError::kNone);
}

TEST(SpscRing, ReservationsCanShrinkAndCanBeGivenUp) {
  TestRing r(4096);
  auto room = r.producer.reserve(1000);
  ASSERT_EQ(room.size(), 1000u);
  room = r.producer.reserve(16);  // the first one is forgotten
  ASSERT_EQ(room.size(), 16u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(room.data()) % 8, 0u);
  EXPECT_EQ(r.consumer.front().data(), nullptr) << "nothing is published before commit";
  std::memcpy(room.data(), "abc", 3);
  r.producer.commit(3);
  EXPECT_EQ(text(r.consumer.front()), "abc");
}

TEST(SpscRing, HalfTheRingFitsAlwaysMoreNever) {
  for (uint64_t offset = 0; offset < 4096; offset += 8) {
    TestRing r(4096);
    for (uint64_t at = 0; at < offset; at += 8) {  // an empty record takes 8 bytes
      ASSERT_TRUE(r.producer.push({}));
      ASSERT_NE(r.consumer.front().data(), nullptr);
      r.consumer.pop();
    }
    EXPECT_EQ(r.producer.max_record(), 4096u / 2 - 8);
    EXPECT_TRUE(r.producer.reserve(r.producer.max_record() + 1).empty());
    const std::string big(r.producer.max_record(), static_cast<char>('a' + offset / 8 % 26));
    ASSERT_TRUE(r.producer.push(bytes(big))) << "at offset " << offset;
    ASSERT_EQ(text(r.consumer.front()), big);
    r.consumer.pop();
    EXPECT_EQ(r.consumer.front().data(), nullptr);
  }
}

TEST(SpscRing, FullRefusesAndGoesOnWhenThereIsRoom) {
  TestRing r(4096);
  int pushed = 0;
  while (r.producer.push(bytes("sixteen bytes 16"))) ++pushed;
  EXPECT_EQ(pushed, 4096 / 24);
  EXPECT_EQ(r.producer.error(), RingError::kNone);
  r.consumer.front();
  r.consumer.pop();
  EXPECT_TRUE(r.producer.push(bytes("sixteen bytes 16")) ||
              (r.consumer.front(), r.consumer.pop(), r.producer.push(bytes("sixteen bytes 16"))));
  EXPECT_GT(r.producer.backlog(), 0u);
  EXPECT_LE(r.producer.backlog(), 4096u);
}

TEST(SpscRing, ANewConsumerGoesOnWhereTheOldOneStopped) {
  TestRing r(4096);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(r.producer.push(bytes("record " + std::to_string(i))));
  for (int i = 0; i < 4; ++i) {
    r.consumer.front();
    r.consumer.pop();
  }
  r.consumer.front();  // seen, not consumed
  RingConsumer second;
  ASSERT_EQ(second.attach(r.memory.span()), RingError::kNone);
  EXPECT_EQ(text(second.front()), "record 4");
  RingProducer producer;
  ASSERT_EQ(producer.attach(r.memory.span()), RingError::kNone);
  ASSERT_TRUE(producer.push(bytes("record 10")));
  for (int i = 4; i <= 10; ++i) {
    ASSERT_EQ(text(second.front()), "record " + std::to_string(i));
    second.pop();
  }
}

// Random sizes against a deque, wrap after wrap.
TEST(SpscRing, RandomSizesAgainstAModel) {
  const uint64_t seed = std::getenv("SEED") != nullptr ? std::strtoull(std::getenv("SEED"), nullptr, 10) : 0x5eed;
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  base::Prng random(seed);
  TestRing r(8192);
  std::deque<std::string> model;
  uint64_t records = 0, refused = 0;
  for (int i = 0; i < 200'000; ++i) {
    if (random.below(2) == 0) {
      const uint64_t limit = random.below(8) == 0 ? r.producer.max_record() : 200;
      std::string record(random.below(limit + 1), 0);
      for (char& c : record) c = static_cast<char>(random.next());
      if (r.producer.push(bytes(record))) model.push_back(record);
      else ++refused;
      ++records;
    } else {
      const auto front = r.consumer.front();
      ASSERT_EQ(front.data() == nullptr, model.empty());
      if (model.empty()) continue;
      ASSERT_EQ(text(front), model.front());
      model.pop_front();
      r.consumer.pop();
    }
    ASSERT_EQ(r.producer.error(), RingError::kNone);
    ASSERT_EQ(r.consumer.error(), RingError::kNone);
  }
  EXPECT_GT(records, 90'000u);
  EXPECT_GT(refused, 100u) << "the ring was never full: the test does not test that";
}

// ---- a peer that lies -------------------------------------------------------------------------------------------------------

TEST(SpscRing, AProducerThatLiesIsNamed) {
  struct Case {
    const char* what;
    void (*corrupt)(RingHeader&);
    RingError want;
  };
  const Case cases[] = {
      {"head behind tail", [](RingHeader& h) { h.head = 0; }, RingError::kHeadBehindTail},
      {"head beyond the capacity", [](RingHeader& h) { h.head = h.tail + h.capacity + 8; }, RingError::kHeadBeyondEnd},
      {"head not aligned", [](RingHeader& h) { h.head = h.head + 4; }, RingError::kHeadMisaligned},
      {"head moved back", [](RingHeader& h) { h.head = h.head - 8; }, RingError::kHeadMovedBack},
      {"head huge", [](RingHeader& h) { h.head = UINT64_MAX - 7; }, RingError::kHeadBeyondEnd},
      {"size without its complement", [](RingHeader& h) { h.data[40] ^= 1; }, RingError::kBadRecordSize},
      {"record beyond head",
       [](RingHeader& h) {
         const uint64_t w = uint64_t{~uint32_t{1000}} << 32 | 1000;
         std::memcpy(h.data + 40, &w, 8);
       },
       RingError::kRecordBeyondHead},
      {"record larger than half",
       [](RingHeader& h) {
         const uint64_t w = uint64_t{~uint32_t{3000}} << 32 | 3000;
         std::memcpy(h.data + 40, &w, 8);
       },
       RingError::kBadRecordSize},
      {"pad in the middle",
       [](RingHeader& h) {
         const uint32_t s = detail::kPad | 16;
         const uint64_t w = uint64_t{~s} << 32 | s;
         std::memcpy(h.data + 40, &w, 8);
       },
       RingError::kRecordBeyondEnd},
      {"pad to the end but not committed",
       [](RingHeader& h) {
         const uint32_t s = detail::kPad | (4096 - 40);
         const uint64_t w = uint64_t{~s} << 32 | s;
         std::memcpy(h.data + 40, &w, 8);
       },
       RingError::kRecordBeyondHead},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    // One record of 40 bytes consumed, two more waiting behind it.
    TestRing f(4096);
    ASSERT_TRUE(f.producer.push(bytes(std::string(32, 'x'))));
    f.consumer.front();
    f.consumer.pop();
    ASSERT_TRUE(f.producer.push(bytes("waiting 1")));
    ASSERT_TRUE(f.producer.push(bytes("waiting 2")));
    (void)f.consumer.backlog();  // has seen where head is
    c.corrupt(f.header());
    (void)f.consumer.backlog();  // looks at head, whether or not it must
    EXPECT_EQ(f.consumer.front().data(), nullptr);
    EXPECT_EQ(f.consumer.error(), c.want) << to_string(f.consumer.error());
    EXPECT_EQ(f.consumer.front().data(), nullptr) << "the error sticks";
    EXPECT_STRNE(to_string(c.want), "unknown");
  }
}

TEST(SpscRing, AConsumerThatLiesIsNamed) {
  const struct {
    const char* what;
    void (*corrupt)(RingHeader&);
    RingError want;
  } cases[] = {
      {"tail beyond head", [](RingHeader& h) { h.tail = h.head + 8192; }, RingError::kTailBeyondHead},
      {"tail moved back", [](RingHeader& h) { h.tail = 0; }, RingError::kTailMovedBack},
      {"tail not aligned", [](RingHeader& h) { h.tail = h.tail + 1; }, RingError::kHeadMisaligned},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    TestRing r(4096);
    ASSERT_TRUE(r.producer.push(bytes("something")));
    r.consumer.front();
    r.consumer.pop();
    ASSERT_EQ(r.producer.backlog(), 0u);
    c.corrupt(r.header());
    while (r.producer.push(bytes(std::string(500, 'x')))) {
    }
    EXPECT_EQ(r.producer.error(), c.want) << to_string(r.producer.error());
    EXPECT_TRUE(r.producer.reserve(1).empty()) << "the error sticks";
  }
}

TEST(SpscRing, AttachChecksTheHeader) {
  const struct {
    const char* what;
    void (*corrupt)(RingHeader&);
    RingError want;
  } cases[] = {
      {"magic", [](RingHeader& h) { h.magic ^= 1; }, RingError::kBadMagic},
      {"version", [](RingHeader& h) { h.version = 9; }, RingError::kBadVersion},
      {"capacity", [](RingHeader& h) { h.capacity = 5000; }, RingError::kBadCapacity},
      {"capacity larger than the memory", [](RingHeader& h) { h.capacity = 1 << 20; }, RingError::kTooSmall},
      {"tail beyond head", [](RingHeader& h) { h.tail = 8; }, RingError::kHeadBehindTail},
      {"more than the capacity", [](RingHeader& h) { h.head = 8192; }, RingError::kHeadBeyondEnd},
      {"misaligned", [](RingHeader& h) { h.head = 12; }, RingError::kHeadMisaligned},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    TestRing r(4096);
    c.corrupt(r.header());
    RingConsumer consumer;
    EXPECT_EQ(consumer.attach(r.memory.span()), c.want);
    EXPECT_FALSE(consumer.attached());
    EXPECT_EQ(consumer.front().data(), nullptr);
    RingProducer producer;
    EXPECT_EQ(producer.attach(r.memory.span()), c.want);
    EXPECT_TRUE(producer.reserve(8).empty());
  }
  RingConsumer consumer;
  EXPECT_EQ(consumer.attach({}), RingError::kTooSmall);
}

// Whatever bytes the peer leaves behind, the consumer reads inside the ring and ends with an error or with nothing.
TEST(SpscRing, RandomDamageNeverEscapes) {
  const uint64_t seed = 0xdead;
  SCOPED_TRACE("seed " + std::to_string(seed));
  base::Prng random(seed);
  uint64_t errors = 0;
  for (int round = 0; round < 20'000; ++round) {
    TestRing r(4096);
    for (int i = 0; i < 20; ++i) {
      if (!r.producer.push(bytes(std::string(random.below(300), 'x')))) break;
      if (random.below(2) != 0) {
        r.consumer.front();
        r.consumer.pop();
      }
    }
    const size_t where =
        random.below(2) == 0 ? offsetof(RingHeader, head) + random.below(8) : sizeof(RingHeader) + random.below(4096);
    r.memory.p[where] ^= static_cast<uint8_t>(1u << random.below(8));
    uint64_t sum = 0;
    int n = 0;
    for (auto f = r.consumer.front(); f.data() != nullptr && n < 10'000; f = r.consumer.front(), ++n) {
      ASSERT_GE(f.data(), r.header().data);
      ASSERT_LE(f.data() + f.size(), r.header().data + 4096);
      for (const uint8_t b : f) sum += b;
      r.consumer.pop();
    }
    ASSERT_LT(n, 10'000);
    errors += r.consumer.error() != RingError::kNone;
    (void)sum;
  }
  EXPECT_GT(errors, 1000u);
}

// ---- two sides at once --------------------------------------------------------------------------------------------------------

// Record i: its number, its length is a function of it, its bytes too.
void fill(std::span<uint8_t> out, uint64_t i) {
  std::memcpy(out.data(), &i, sizeof i);
  for (size_t k = sizeof i; k < out.size(); ++k) out[k] = static_cast<uint8_t>(i * 31 + k);
}
uint32_t length(uint64_t i) { return static_cast<uint32_t>(8 + base::hash64(i) % (i % 97 == 0 ? 4000 : 120)); }
bool check(std::span<const uint8_t> in, uint64_t i) {
  if (in.size() != length(i)) return false;
  uint64_t number;
  std::memcpy(&number, in.data(), sizeof number);
  if (number != i) return false;
  for (size_t k = sizeof number; k < in.size(); ++k)
    if (in[k] != static_cast<uint8_t>(i * 31 + k)) return false;
  return true;
}

void produce(std::span<uint8_t> memory, uint64_t count) {
  RingProducer p;
  if (p.attach(memory) != RingError::kNone) return;
  for (uint64_t i = 0; i < count;) {
    const auto room = p.reserve(length(i));
    if (room.data() == nullptr) {
      if (p.error() != RingError::kNone) return;
      std::this_thread::yield();
      continue;
    }
    fill(room, i);
    p.commit(length(i));
    ++i;
  }
}

// Number of records that arrived right before the first that did not.
uint64_t consume(std::span<uint8_t> memory, uint64_t count) {
  RingConsumer c;
  if (c.attach(memory) != RingError::kNone) return 0;
  for (uint64_t i = 0; i < count;) {
    const auto record = c.front();
    if (record.data() == nullptr) {
      if (c.error() != RingError::kNone) return i;
      std::this_thread::yield();
      continue;
    }
    if (!check(record, i)) return i;
    c.pop();
    ++i;
  }
  return count;
}

TEST(SpscRing, TwoThreads) {
  constexpr uint64_t kRecords = 200'000;
  AlignedMemory memory(ring_bytes(16384));
  ASSERT_EQ(format_ring(memory.span(), 16384), RingError::kNone);
  std::thread producer([&] { produce(memory.span(), kRecords); });
  EXPECT_EQ(consume(memory.span(), kRecords), kRecords);
  producer.join();
}

TEST(SpscRing, TwoProcesses) {
  constexpr uint64_t kRecords = 200'000;
  auto mine = Segment::create("ring-test", ring_bytes(16384));
  ASSERT_TRUE(mine.ok()) << mine.error();
  ASSERT_EQ(format_ring(mine->bytes(), 16384), RingError::kNone);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto theirs = Segment::map(UniqueFd(::dup(mine->fd())), Access::kReadWrite, ring_bytes(16384), 1 << 20);
    if (!theirs.ok()) ::_exit(2);
    produce(theirs->bytes(), kRecords);
    ::_exit(0);
  }
  EXPECT_EQ(consume(mine->bytes(), kRecords), kRecords);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace millrace::shm
