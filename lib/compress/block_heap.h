// The memory of one encoder: a block that its pool lends, out of which the compression library allocates and frees by its hooks.
// First fit over a list in order of address, neighbours joined; a library has a few dozen pieces at a time. Exhaustion is an
// answer (null), never malloc. What is still allocated when the block is given back goes with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace::compress {

class BlockHeap {
 public:
  static constexpr size_t kAlign = 16;

  BlockHeap() = default;
  // `memory`: aligned to kAlign, outlives the heap; at least 64 bytes.
  explicit BlockHeap(std::span<uint8_t> memory);

  void* allocate(size_t bytes);              // aligned to kAlign; null when there is no piece so large, or for 0 bytes
  void free(void* piece);                    // of this heap; null: nothing
  size_t in_use() const { return in_use_; }  // bytes, each piece's header included
  size_t peak() const { return peak_; }
  size_t refused() const { return refused_; }  // allocations that found no room

 private:
  struct Piece {  // in front of each piece; free ones are linked in order of address
    size_t bytes;
    Piece* next;
  };
  static_assert(sizeof(Piece) == kAlign);

  Piece* free_ = nullptr;
  size_t in_use_ = 0, peak_ = 0, refused_ = 0;
};

}  // namespace millrace::compress
