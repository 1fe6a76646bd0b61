// The arena: one sparse shared memory segment that holds published objects and snapshot roots. Objects are written once and never
// moved. The bookkeeping is in control's own heap, not in the segment: a new control starts with a new arena, so nothing is ever
// recovered.
//
//   allocate -> write -> publish ... replaced by epoch e -> retire(offset, e) -> every worker has seen e -> reclaim -> free
//
// Huge pages: a piece of kHugePageSize bytes is put on one before its first block is written, so no reader ever waits for that; a
// piece for which there is none stays on ordinary pages and is counted. They come out of ordinary memory by need: nothing is
// reserved, nothing is taken from DPDK's hugepages, and a lack of them is never more than a slower look-up.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "lib/base/status.h"
#include "lib/shm/segment.h"
#include "lib/table/link.h"

namespace millrace::control {

class Arena {
 public:
  // `size`: bytes of address space and most it can hold (table::kMinArenaSize … kMaxArenaSize); memory is used as it is written.
  static base::Result<Arena> create(uint64_t size = table::kDefaultArenaSize);
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  // `size` > 0 bytes, 64-byte aligned: the smallest free block that fits, the lowest offset among equals. Error when there is
  // none.
  base::Result<uint64_t> allocate(uint64_t size);
  // Gives a block back at once. For blocks that no data plane can know of.
  void free(uint64_t offset);
  // The block is not part of epoch `epoch` and later; readers of earlier epochs may still use it.
  void retire(uint64_t offset, uint64_t epoch);
  // Frees what was retired at `seen_epoch` or before (every worker has passed it). Returns how many blocks.
  size_t reclaim(uint64_t seen_epoch);

  uint8_t* at(uint64_t offset) const { return segment_.data() + offset; }
  uint64_t size() const { return segment_.size(); }
  uint64_t used() const { return used_; }  // bytes in blocks, retired ones included
  uint64_t retired() const { return retired_bytes_; }
  uint64_t largest_free() const { return by_size_.empty() ? 0 : by_size_.rbegin()->first; }
  size_t blocks() const { return blocks_.size(); }
  // Bytes of the pieces that have blocks or had: on huge pages, and on ordinary ones.
  uint64_t on_huge_pages() const { return pieces_[kHuge] * shm::kHugePageSize; }
  uint64_t on_ordinary_pages() const { return pieces_[kOrdinary] * shm::kHugePageSize; }
  bool kernel_makes_huge() const { return kernel_makes_huge_; }  // as far as is known
  const shm::Segment& segment() const { return segment_; }

 private:
  explicit Arena(shm::Segment segment);
  void insert_free(uint64_t offset, uint64_t size);
  // `offset`, `size` of a block about to be written.
  void touch(uint64_t offset, uint64_t size);
  void give_back(uint64_t offset, uint64_t size);

  enum Piece : uint8_t { kUntouched, kHuge, kOrdinary, kPieces };
  void set(Piece& piece, Piece to) {
    --pieces_[piece];
    ++pieces_[piece = to];
  }

  shm::Segment segment_;
  std::map<uint64_t, uint64_t> free_;                        // offset -> size, never adjacent (coalesced)
  std::set<std::pair<uint64_t, uint64_t>> by_size_;          // (size, offset) of the same blocks
  std::unordered_map<uint64_t, uint64_t> blocks_;            // offset -> size, in use or retired
  std::deque<std::pair<uint64_t, uint64_t>> retired_queue_;  // (epoch, offset), epochs ascending
  uint64_t used_ = 0, retired_bytes_ = 0;
  std::vector<Piece> piece_;  // of kHugePageSize bytes each; none beyond the last whole one
  uint64_t pieces_[kPieces] = {};
  bool kernel_makes_huge_ = true;
};

}  // namespace millrace::control
