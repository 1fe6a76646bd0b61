// The sender's scoreboard (RFC 6675): which ranges above snd_una the peer has reported as received. Bounded, in the TCB, without
// heap. What does not fit is forgotten from the top, which is safe: it counts as in flight and, at worst, is sent again.
#pragma once

#include <array>
#include <cstdint>

#include "lib/wire/tcp.h"

namespace millrace::tcp {

inline constexpr uint32_t kDupThresh = 3;  // RFC 5681 3.2, RFC 6675 2

class Scoreboard {
 public:
  // Ranges kept. Nine disjoint holes in one window are a loss rate beyond 5% on a 256 KB window.
  static constexpr uint32_t kMaxRanges = 9;

  bool empty() const { return count_ == 0; }
  uint32_t ranges() const { return count_; }
  uint32_t bytes() const { return bytes_; }                       // reported as received, above snd_una
  uint32_t highest() const { return ranges_[count_ - 1].right; }  // right end of the last range; not when empty()
  void clear() {
    count_ = 0;
    bytes_ = 0;
  }

  // Notes [left, right); the caller has checked snd_una <= left < right <= snd_max. Returns how many bytes are new.
  uint32_t add(uint32_t left, uint32_t right);
  // snd_una moved up to `una`.
  void advance(uint32_t una);

  // The right end of the range that holds `seq`, else `seq`: where unreported data goes on.
  uint32_t skip(uint32_t seq) const;
  // Left end of the first range above `seq`, or `end` when there is none before it.
  uint32_t next_left(uint32_t seq, uint32_t end) const;
  // Bytes reported within [from, to).
  uint32_t bytes_in(uint32_t from, uint32_t to) const;
  // IsLost() of RFC 6675 4 for an unreported `seq`.
  bool is_lost(uint32_t seq, uint32_t mss) const;
  // SetPipe() of RFC 6675 4: bytes believed to be in flight between `una` and `max`, of which everything below `high_rxt` was
  // sent again.
  uint32_t pipe(uint32_t una, uint32_t max, uint32_t high_rxt, uint32_t mss) const;

 private:
  void recount();
  uint32_t bytes_ = 0;
  uint8_t count_ = 0;
  std::array<wire::SackBlock, kMaxRanges> ranges_;  // ascending, disjoint, not touching
};

}  // namespace millrace::tcp
