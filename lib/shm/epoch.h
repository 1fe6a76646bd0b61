// Epochs: how a writer of immutable things learns that no reader can still see an old one. Each reader has one word, on its own
// cache line, that only it writes: the epoch it has arrived at. A reader arrives at the top of its loop, where it holds no
// pointer into what older epochs show; so once every word is >= e, whatever was last visible before e may be freed.
//
//   reader: ... last use of epoch e-1 ... ; word.arrive(e)  [release]
//   writer: min_epoch(words) >= e         [acquire] ; free      pair: every use of e-1 happened before the free
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace millrace::shm {

struct alignas(64) EpochWord {  // its reader: rw; others: ro
  std::atomic<uint64_t> value{0};
  void arrive(uint64_t epoch) { value.store(epoch, std::memory_order_release); }  // pairs with read()
  uint64_t read() const { return value.load(std::memory_order_acquire); }         // pairs with arrive()
};
static_assert(sizeof(EpochWord) == 64);

// The epoch all readers have reached; UINT64_MAX when there are none.
inline uint64_t min_epoch(std::span<const EpochWord> words) {
  uint64_t least = UINT64_MAX;
  for (const EpochWord& w : words) {
    const uint64_t v = w.read();
    if (v < least) least = v;
  }
  return least;
}

}  // namespace millrace::shm
