#include "lib/compress/block_heap.h"

#include <algorithm>

#include "lib/base/assert.h"

namespace millrace::compress {

BlockHeap::BlockHeap(std::span<uint8_t> memory) {
  MILLRACE_ASSERT(reinterpret_cast<uintptr_t>(memory.data()) % kAlign == 0 && memory.size() >= 4 * kAlign, "a block for a heap");
  free_ = reinterpret_cast<Piece*>(memory.data());
  *free_ = {memory.size() & ~(kAlign - 1), nullptr};
}

void* BlockHeap::allocate(size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) return nullptr;
  const size_t need = ((bytes + kAlign - 1) & ~(kAlign - 1)) + sizeof(Piece);
  for (Piece** at = &free_; *at != nullptr; at = &(*at)->next) {
    Piece* p = *at;
    if (p->bytes < need) continue;
    if (p->bytes >= need + 2 * kAlign) {
      Piece* rest = reinterpret_cast<Piece*>(reinterpret_cast<uint8_t*>(p) + need);
      *rest = {p->bytes - need, p->next};
      *at = rest;
      p->bytes = need;
    } else {
      *at = p->next;
    }
    p->next = nullptr;
    in_use_ += p->bytes;
    peak_ = std::max(peak_, in_use_);
    return p + 1;
  }
  ++refused_;
  return nullptr;
}

void BlockHeap::free(void* piece) {
  if (piece == nullptr) return;
  Piece* p = static_cast<Piece*>(piece) - 1;
  in_use_ -= p->bytes;
  Piece* before = nullptr;
  Piece* after = free_;
  while (after != nullptr && after < p) {
    before = after;
    after = after->next;
  }
  const auto end = [](Piece* q) { return reinterpret_cast<Piece*>(reinterpret_cast<uint8_t*>(q) + q->bytes); };
  p->next = after;
  if (after != nullptr && end(p) == after) {
    p->bytes += after->bytes;
    p->next = after->next;
  }
  if (before == nullptr) {
    free_ = p;
  } else if (end(before) == p) {
    before->bytes += p->bytes;
    before->next = p->next;
  } else {
    before->next = p;
  }
}

}  // namespace millrace::compress
