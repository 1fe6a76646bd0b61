#include "lib/tcp/recovery.h"

#include <algorithm>

#include "lib/tcp/seq.h"

namespace millrace::tcp {

uint32_t Scoreboard::add(uint32_t left, uint32_t right) {
  // Ranges [first, last) touch or overlap [left, right) and melt into it.
  uint32_t first = 0;
  while (first < count_ && seq_lt(ranges_[first].right, left)) ++first;
  uint32_t last = first, swallowed = 0;
  while (last < count_ && seq_le(ranges_[last].left, right)) {
    swallowed += ranges_[last].right - ranges_[last].left;
    left = seq_min(left, ranges_[last].left);
    right = seq_max(right, ranges_[last].right);
    ++last;
  }
  const uint32_t fresh = (right - left) - swallowed;
  if (last == first) {
    if (count_ == kMaxRanges) {
      if (first == count_) return 0;  // above all others: forgotten
      bytes_ -= ranges_[count_ - 1].right - ranges_[count_ - 1].left;
      --count_;
    }
    std::move_backward(ranges_.begin() + first, ranges_.begin() + count_, ranges_.begin() + count_ + 1);
    ++count_;
  } else if (last > first + 1) {
    std::move(ranges_.begin() + last, ranges_.begin() + count_, ranges_.begin() + first + 1);
    count_ = static_cast<uint8_t>(count_ - (last - first - 1));
  }
  ranges_[first] = {left, right};
  bytes_ += fresh;
  return fresh;
}

void Scoreboard::advance(uint32_t una) {
  uint32_t gone = 0;
  while (gone < count_ && seq_le(ranges_[gone].right, una)) ++gone;
  if (gone > 0) {
    std::move(ranges_.begin() + gone, ranges_.begin() + count_, ranges_.begin());
    count_ = static_cast<uint8_t>(count_ - gone);
  }
  if (count_ > 0 && seq_lt(ranges_[0].left, una)) ranges_[0].left = una;
  recount();
}

void Scoreboard::recount() {
  bytes_ = 0;
  for (uint32_t i = 0; i < count_; ++i) bytes_ += ranges_[i].right - ranges_[i].left;
}

uint32_t Scoreboard::skip(uint32_t seq) const {
  for (uint32_t i = 0; i < count_; ++i)
    if (seq_in(seq, ranges_[i].left, ranges_[i].right)) return ranges_[i].right;
  return seq;
}

uint32_t Scoreboard::next_left(uint32_t seq, uint32_t end) const {
  for (uint32_t i = 0; i < count_; ++i)
    if (seq_gt(ranges_[i].left, seq)) return seq_min(ranges_[i].left, end);
  return end;
}

uint32_t Scoreboard::bytes_in(uint32_t from, uint32_t to) const {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < count_; ++i) {
    const uint32_t left = seq_max(ranges_[i].left, from), right = seq_min(ranges_[i].right, to);
    if (seq_lt(left, right)) sum += right - left;
  }
  return sum;
}

bool Scoreboard::is_lost(uint32_t seq, uint32_t mss) const {
  uint32_t above = 0, sum = 0;
  for (uint32_t i = count_; i-- > 0 && seq_gt(ranges_[i].left, seq);) {
    ++above;
    sum += ranges_[i].right - ranges_[i].left;
  }
  return above >= kDupThresh || sum > (kDupThresh - 1) * mss;
}

uint32_t Scoreboard::pipe(uint32_t una, uint32_t max, uint32_t high_rxt, uint32_t mss) const {
  uint32_t sum = 0, at = una;
  const auto hole = [&](uint32_t from, uint32_t to) {
    if (!is_lost(from, mss)) sum += to - from;                        // (a) not lost
    if (seq_gt(high_rxt, from)) sum += seq_min(high_rxt, to) - from;  // (b) sent again
  };
  for (uint32_t i = 0; i < count_; ++i) {
    if (seq_lt(at, ranges_[i].left)) hole(at, ranges_[i].left);
    at = ranges_[i].right;
  }
  if (seq_lt(at, max)) hole(at, max);
  return sum;
}

}  // namespace millrace::tcp
