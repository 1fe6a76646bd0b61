#include "control/arena.h"

#include <algorithm>
#include <utility>

#include "lib/base/assert.h"

namespace millrace::control {

namespace {
constexpr uint64_t kBlockAlignment = 64;           // a cache line: no two objects share one
constexpr uint64_t kDiscardAtLeast = 1024 * 1024;  // smaller free blocks keep their pages: they are reused soon
constexpr uint64_t round_up(uint64_t n) { return (n + kBlockAlignment - 1) & ~(kBlockAlignment - 1); }
}  // namespace

Arena::Arena(shm::Segment segment) : segment_(std::move(segment)) {
  insert_free(table::kArenaFirstOffset, segment_.size() - table::kArenaFirstOffset);
  piece_.resize(segment_.size() / shm::kHugePageSize, kUntouched);
  pieces_[kUntouched] = piece_.size();
}

base::Result<Arena> Arena::create(uint64_t size) {
  if (size < table::kMinArenaSize || size > table::kMaxArenaSize)
    return base::Error{"arena of " + std::to_string(size) + " bytes: must be " + std::to_string(table::kMinArenaSize) + " to " +
                       std::to_string(table::kMaxArenaSize)};
  auto segment = shm::Segment::create("millrace-arena", size);
  if (!segment.ok()) return base::Error{segment.error()};
  return Arena(std::move(*segment));
}

void Arena::touch(uint64_t offset, uint64_t size) {
  const uint64_t end = std::min<uint64_t>((offset + size - 1) / shm::kHugePageSize + 1, piece_.size());
  for (uint64_t i = offset / shm::kHugePageSize; i < end; ++i) {
    if (piece_[i] != kUntouched) continue;
    const auto got = segment_.make_huge(i * shm::kHugePageSize);
    kernel_makes_huge_ = got != shm::Segment::Huge::kNever;
    set(piece_[i], got == shm::Segment::Huge::kDone ? kHuge : kOrdinary);
  }
}

// Of a piece on a huge page all or nothing goes: a hole would split it.
void Arena::give_back(uint64_t offset, uint64_t size) {
  const uint64_t end = offset + size;
  while (offset < end) {
    const uint64_t i = offset / shm::kHugePageSize, begin = i * shm::kHugePageSize;
    const uint64_t next = std::min(begin + shm::kHugePageSize, end);
    const bool whole = offset == begin && next == begin + shm::kHugePageSize;
    if (whole || i >= piece_.size() || piece_[i] != kHuge) segment_.discard(offset, next - offset);
    if (whole && i < piece_.size()) set(piece_[i], kUntouched);
    offset = next;
  }
}

void Arena::insert_free(uint64_t offset, uint64_t size) {
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + size) {
    size += next->second;
    by_size_.erase({next->second, next->first});
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      size += previous->second;
      by_size_.erase({previous->second, previous->first});
      free_.erase(previous);
    }
  }
  free_[offset] = size;
  by_size_.insert({size, offset});
}

base::Result<uint64_t> Arena::allocate(uint64_t size) {
  MILLRACE_ASSERT(size > 0, "a block has bytes");
  const uint64_t rounded = round_up(size);
  const auto fit = rounded < size ? by_size_.end() : by_size_.lower_bound({rounded, 0});
  if (fit == by_size_.end())
    return base::Error{"the arena is full: " + std::to_string(size) + " bytes wanted, largest free block " +
                       std::to_string(largest_free()) + " of " + std::to_string(segment_.size()) + " (" + std::to_string(used_) +
                       " in use, of these " + std::to_string(retired_bytes_) + " wait for a worker)"};
  const auto [block, offset] = *fit;
  by_size_.erase(fit);
  free_.erase(offset);
  if (block > rounded) {
    free_[offset + rounded] = block - rounded;
    by_size_.insert({block - rounded, offset + rounded});
  }
  blocks_[offset] = rounded;
  used_ += rounded;
  touch(offset, rounded);
  return offset;
}

void Arena::free(uint64_t offset) {
  const auto it = blocks_.find(offset);
  MILLRACE_ASSERT(it != blocks_.end(), "free of a block that is there");
  const uint64_t size = it->second;
  blocks_.erase(it);
  used_ -= size;
  if (size >= kDiscardAtLeast) give_back(offset, size);
  insert_free(offset, size);
}

void Arena::retire(uint64_t offset, uint64_t epoch) {
  const auto it = blocks_.find(offset);
  MILLRACE_ASSERT(it != blocks_.end(), "retirement of a block that is there");
  MILLRACE_ASSERT(retired_queue_.empty() || retired_queue_.back().first <= epoch, "epochs only grow");
  retired_queue_.emplace_back(epoch, offset);
  retired_bytes_ += it->second;
}

size_t Arena::reclaim(uint64_t seen_epoch) {
  size_t n = 0;
  while (!retired_queue_.empty() && retired_queue_.front().first <= seen_epoch) {
    const uint64_t offset = retired_queue_.front().second;
    retired_queue_.pop_front();
    retired_bytes_ -= blocks_.at(offset);
    free(offset);
    ++n;
  }
  return n;
}

}  // namespace millrace::control
