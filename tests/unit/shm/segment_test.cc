#include "lib/shm/segment.h"

#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "lib/shm/epoch.h"

namespace millrace::shm {
namespace {

TEST(Segment, BytesWrittenInOneMappingShowInTheOther) {
  auto a = Segment::create("segment-test", 10'000);
  ASSERT_TRUE(a.ok()) << a.error();
  EXPECT_EQ(a->size(), 12'288u) << "whole pages";
  std::memcpy(a->data() + 5000, "hello", 5);
  auto b = Segment::map(UniqueFd(::dup(a->fd())), Access::kReadOnly, 1, 1 << 20);
  ASSERT_TRUE(b.ok()) << b.error();
  EXPECT_EQ(std::memcmp(b->data() + 5000, "hello", 5), 0);
  EXPECT_NE(a->data(), b->data());
}

TEST(Segment, NobodyCanShrinkOrGrowIt) {
  auto a = Segment::create("segment-test", 8192);
  ASSERT_TRUE(a.ok());
  EXPECT_NE(::ftruncate(a->fd(), 4096), 0);
  EXPECT_NE(::ftruncate(a->fd(), 16384), 0);
}

TEST(Segment, AReadOnlyDescriptorCannotBeMappedWritable) {
  auto a = Segment::create("segment-test", 8192);
  ASSERT_TRUE(a.ok());
  auto fd = a->read_only_fd();
  ASSERT_TRUE(fd.ok()) << fd.error();
  EXPECT_EQ(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd->get(), 0), MAP_FAILED);
  auto b = Segment::map(std::move(*fd), Access::kReadOnly, 8192, 8192);
  EXPECT_TRUE(b.ok()) << b.error();
}

TEST(Segment, MapRefuses) {
  auto a = Segment::create("segment-test", 8192);
  ASSERT_TRUE(a.ok());
  const auto error = [](base::Result<Segment> r) { return r.ok() ? std::string("mapped") : r.error(); };
  EXPECT_EQ(error(Segment::map(UniqueFd(), Access::kReadOnly, 1, 1 << 20)), "shared memory: no descriptor");
  EXPECT_EQ(error(Segment::map(UniqueFd(::dup(a->fd())), Access::kReadOnly, 8193, 1 << 20)),
            "shared memory: segment of 8192 bytes where 8193 to 1048576 are expected");
  EXPECT_EQ(error(Segment::map(UniqueFd(::dup(a->fd())), Access::kReadOnly, 1, 8191)),
            "shared memory: segment of 8192 bytes where 1 to 8191 are expected");
  UniqueFd unsealed(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 8192), 0);
  EXPECT_EQ(error(Segment::map(std::move(unsealed), Access::kReadOnly, 1, 1 << 20)),
            "shared memory: the segment is not sealed against shrinking and growing");
  UniqueFd zero(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(error(Segment::map(std::move(zero), Access::kReadOnly, 1, 1 << 20)),
            "shared memory: the descriptor is not a sealed memory file");
  EXPECT_FALSE(Segment::create("empty", 0).ok());
}

TEST(Segment, DiscardGivesWholePagesBack) {
  auto a = Segment::create("segment-test", 5 * 4096);
  ASSERT_TRUE(a.ok());
  std::memset(a->data(), 'x', a->size());
  a->discard(100, 3 * 4096);  // pages 1 and 2 lie inside wholly
  EXPECT_EQ(a->data()[100], 'x');
  EXPECT_EQ(a->data()[4095], 'x');
  EXPECT_EQ(a->data()[4096], 0);
  EXPECT_EQ(a->data()[3 * 4096 - 1], 0);
  EXPECT_EQ(a->data()[3 * 4096], 'x');
  a->discard(4 * 4096, UINT64_MAX);  // clipped to the end
  EXPECT_EQ(a->data()[4 * 4096], 0);
}

TEST(Segment, HugepagesWhereThereAreSomeOrdinaryOnesElse) {
  auto a = Segment::create("segment-test", 4096, Pages::kHugeIfPossible);
  ASSERT_TRUE(a.ok()) << a.error();
  a->data()[0] = 1;
  EXPECT_EQ(a->size() % (a->huge() ? kHugePageSize : 4096), 0u);
}

// ShmemPmdMapped of the mapping that holds `at`, in bytes: what this process reads through huge pages.
uint64_t mapped_huge(const void* at) {
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    uint64_t begin = 0, end = 0, kb = 0;
    char permissions[8];
    const auto address = reinterpret_cast<uint64_t>(at);
    if (std::sscanf(line.c_str(), "%lx-%lx %7s", &begin, &end, permissions) == 3) inside = begin <= address && address < end;
    else if (inside && std::sscanf(line.c_str(), "ShmemPmdMapped: %lu", &kb) == 1) return kb * 1024;
  }
  return 0;
}

TEST(Segment, WhatIsLargeCanBeMappedWithHugePagesByEverybody) {
  auto a = Segment::create("segment-test", 5 * kHugePageSize + 4096);
  ASSERT_TRUE(a.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a->data()) % kHugePageSize, 0u);
  a->data()[kHugePageSize + 5000] = 'x';
  EXPECT_EQ(a->make_huge(4096), Segment::Huge::kNotNow) << "not the beginning of one";
  EXPECT_EQ(a->make_huge(5 * kHugePageSize), Segment::Huge::kNotNow) << "less than one is left";
  const Segment::Huge done = a->make_huge(kHugePageSize);
  EXPECT_EQ(a->data()[kHugePageSize + 5000], 'x');
  EXPECT_EQ(a->data()[kHugePageSize], 0);
  auto fd = a->read_only_fd();
  ASSERT_TRUE(fd.ok());
  auto b = Segment::map(std::move(*fd), Access::kReadOnly, 1, UINT64_MAX);
  ASSERT_TRUE(b.ok()) << b.error();
  EXPECT_FALSE(b->huge()) << "memory that is given back";
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b->data()) % kHugePageSize, 0u);
  EXPECT_EQ(b->data()[kHugePageSize + 5000], 'x');
  if (done != Segment::Huge::kDone) GTEST_SKIP() << "no huge page to be had here";
  EXPECT_EQ(mapped_huge(a->data()), kHugePageSize);
  EXPECT_EQ(mapped_huge(b->data()), kHugePageSize) << "the other side's mapping, after its first look";
  a->discard(kHugePageSize, kHugePageSize);
  EXPECT_EQ(b->data()[kHugePageSize + 5000], 0);
}

TEST(Segment, MovesLeaveNothingBehind) {
  auto a = Segment::create("segment-test", 4096);
  ASSERT_TRUE(a.ok());
  Segment s = std::move(*a);
  EXPECT_TRUE(a->empty());
  uint8_t* at = s.data();
  Segment t;
  t = std::move(s);
  EXPECT_EQ(t.data(), at);
  EXPECT_TRUE(s.empty());
  EXPECT_EQ(s.fd(), -1);
}

TEST(Epoch, TheLeastOfAllWords) {
  EpochWord words[3];
  EXPECT_EQ(min_epoch(words), 0u);
  words[0].arrive(5);
  words[1].arrive(3);
  words[2].arrive(9);
  EXPECT_EQ(min_epoch(words), 3u);
  words[1].arrive(7);
  EXPECT_EQ(min_epoch(words), 5u);
  EXPECT_EQ(min_epoch({}), UINT64_MAX);
}

}  // namespace
}  // namespace millrace::shm
