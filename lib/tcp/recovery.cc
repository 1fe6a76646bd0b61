#include "lib/tcp/recovery.h"

#include <algorithm>

namespace millrace::tcp {
namespace {

bool same_time(uint32_t a_us, uint32_t b_us, uint32_t shift) { return a_us >> shift == b_us >> shift; }

}  // namespace

void Scoreboard::reset(uint32_t una, uint32_t max, uint32_t sent_us) {
  una_ = una;
  count_ = 0;
  if (una != max) ranges_[count_++] = {.right = max, .sent = sent_us & kSentMask, .marks = 0};
  melt();
}

void Scoreboard::extend(uint32_t max, uint32_t now_us, uint32_t shift) {
  if (!seq_gt(max, this->max())) return;
  now_us &= kSentMask;
  if (count_ > 0 && ranges_[count_ - 1].marks == 0 && same_time(ranges_[count_ - 1].sent, now_us, shift)) {
    ranges_[count_ - 1].right = max;
    ranges_[count_ - 1].sent = now_us;
    return;
  }
  make_room(1);
  ranges_[count_++] = {.right = max, .sent = now_us, .marks = 0};
}

void Scoreboard::repeat(uint32_t left, uint32_t right, uint32_t now_us, uint32_t shift) {
  now_us &= kSentMask;
  make_room(2);
  cut(right);
  const uint32_t first = cut(left);
  uint32_t last = first;
  while (last < count_ && seq_le(ranges_[last].right, right)) ++last;
  if (first == last) return;
  if (first > 0 && ranges_[first - 1].marks == kRepeated && same_time(ranges_[first - 1].sent, now_us, shift)) {
    ranges_[first - 1].right = right;
    ranges_[first - 1].sent = now_us;
    erase(first, last - first);
  } else {
    ranges_[first] = {.right = right, .sent = now_us, .marks = kRepeated};
    erase(first + 1, last - first - 1);
  }
  melt();
}

void Scoreboard::lose_from(uint32_t left) {
  if (!seq_lt(left, max())) return;
  make_room(1);
  const uint32_t first = cut(left);
  for (uint32_t i = first; i < count_; ++i)
    if ((ranges_[i].marks & kReported) == 0) ranges_[i].marks |= kLost;
  melt();
}

void Scoreboard::lose_first(uint32_t bytes) {
  if (count_ == 0) return;
  make_room(1);
  cut(una_ + std::min(bytes, max() - una_));
  if ((ranges_[0].marks & kReported) == 0) ranges_[0].marks |= kLost;
  melt();
}

void Scoreboard::find_again() {
  for (uint32_t i = 0; i < count_; ++i) ranges_[i].marks &= static_cast<uint8_t>(~kLost);
  melt();
}

void Scoreboard::forget_reports() {
  for (uint32_t i = 0; i < count_; ++i) ranges_[i].marks &= static_cast<uint8_t>(~kReported);
  melt();
}

void Scoreboard::renege() {
  for (uint32_t i = 0; i < count_; ++i)
    if ((ranges_[i].marks & kReported) != 0) ranges_[i].marks = kLost;
  melt();
}

uint32_t Scoreboard::highest() const {
  for (uint32_t i = count_; i-- > 0;)
    if ((ranges_[i].marks & kReported) != 0) return ranges_[i].right;
  return una_;
}

Scoreboard::Range Scoreboard::first_lost() const {
  for (uint32_t i = 0; lost_ > 0 && i < count_; ++i)
    if ((ranges_[i].marks & kLost) != 0) return at(i, true);
  return {max(), max(), 0, 0, true};
}

uint32_t Scoreboard::skip(uint32_t seq) const {
  const uint32_t i = reported_ > 0 && seq_ge(seq, una_) ? first_above(seq) : count_;
  return i < count_ && (ranges_[i].marks & kReported) != 0 ? ranges_[i].right : seq;
}

uint32_t Scoreboard::next_left(uint32_t seq, uint32_t end) const {
  for (uint32_t i = reported_ > 0 ? first_above(seq) : count_; i < count_; ++i)
    if ((ranges_[i].marks & kReported) != 0 && seq_gt(left_of(i), seq)) return seq_min(left_of(i), end);
  return end;
}

uint32_t Scoreboard::bytes_in(uint32_t from, uint32_t to) const {
  uint32_t sum = 0;
  for (uint32_t i = 0; reported_ > 0 && i < count_; ++i) {
    if ((ranges_[i].marks & kReported) == 0) continue;
    const uint32_t left = seq_max(left_of(i), from), right = seq_min(ranges_[i].right, to);
    if (seq_lt(left, right)) sum += right - left;
  }
  return sum;
}

// The first range that ends above `seq`; count_ when none does.
uint32_t Scoreboard::first_above(uint32_t seq) const {
  return static_cast<uint32_t>(
      std::partition_point(ranges_, ranges_ + count_, [seq](const Packed& p) { return seq_le(p.right, seq); }) - ranges_);
}

bool Scoreboard::cut_at(uint32_t seq) const {
  const uint32_t i = first_above(seq);
  return i > 0 && ranges_[i - 1].right == seq;
}

uint32_t Scoreboard::cut(uint32_t seq) {
  const uint32_t i = first_above(seq);
  if (i == count_ || left_of(i) == seq) return i;
  Packed below = ranges_[i];
  below.right = seq;
  insert(i, below);
  return i + 1;
}

void Scoreboard::insert(uint32_t i, Packed p) {
  std::move_backward(ranges_ + i, ranges_ + count_, ranges_ + count_ + 1);
  ranges_[i] = p;
  ++count_;
}

void Scoreboard::erase(uint32_t first, uint32_t n) {
  if (n == 0) return;
  std::move(ranges_ + first + n, ranges_ + count_, ranges_ + first);
  count_ = static_cast<uint16_t>(count_ - n);
}

void Scoreboard::give_back() {
  if (annex_ == nullptr) return;
  std::copy_n(ranges_, std::min<uint32_t>(count_, kOwnRanges), own_.data());
  annexes_->free(annex_);
  annex_ = nullptr;
  ranges_ = own_.data();
  capacity_ = kOwnRanges;
}

void Scoreboard::make_room(uint32_t places) {
  if (count_ + places <= capacity_) return;
  const auto later = [](uint32_t a, uint32_t b) { return sent_since(a, b) > 0 ? a : b; };
  uint32_t n = 1;  // what differs only in time
  for (uint32_t i = 1, more = count_ + places - capacity_; i < count_; ++i) {
    if (more > 0 && ranges_[n - 1].marks == ranges_[i].marks) {
      const uint32_t sent = later(ranges_[n - 1].sent, ranges_[i].sent);
      ranges_[n - 1] = ranges_[i];
      ranges_[n - 1].sent = sent;
      --more;
    } else {
      ranges_[n++] = ranges_[i];
    }
  }
  count_ = static_cast<uint16_t>(n);
  if (count_ + places <= capacity_) return;
  if (annex_ == nullptr && annexes_ != nullptr && (annex_ = annexes_->alloc()) != nullptr) {
    std::copy_n(ranges_, count_, annex_->data());
    ranges_ = annex_->data();
    capacity_ = kMaxRanges;
    return;
  }
  while (count_ + places > capacity_) {
    Packed& top = ranges_[count_ - 1];
    Packed& below = ranges_[count_ - 2];
    below = {.right = top.right,
             .sent = later(below.sent, top.sent),
             .marks = static_cast<uint8_t>((below.marks | top.marks) & kRepeated)};
    --count_;
  }
  melt();
}

void Scoreboard::melt() {
  uint32_t n = 0;
  reported_ = lost_ = repeated_ = 0;
  reported_ranges_ = 0;
  for (uint32_t i = 0, left = una_; i < count_; ++i) {
    const Packed p = ranges_[i];
    const uint32_t bytes = p.right - left;
    left = p.right;
    if ((p.marks & kReported) != 0) reported_ += bytes;
    else if ((p.marks & kLost) != 0) lost_ += bytes;
    else if ((p.marks & kRepeated) != 0) repeated_ += bytes;
    if (n > 0 && ranges_[n - 1].marks == p.marks && (p.marks & (kReported | kLost) || ranges_[n - 1].sent == p.sent)) {
      const uint32_t earlier = ranges_[n - 1].sent;
      ranges_[n - 1] = p;
      if (sent_since(earlier, p.sent) > 0) ranges_[n - 1].sent = earlier;
    } else {
      ranges_[n++] = p;
    }
  }
  count_ = static_cast<uint16_t>(n);
  for (uint32_t i = 0; i < count_; ++i)
    if ((ranges_[i].marks & kReported) != 0) ++reported_ranges_;
  if (annex_ != nullptr && count_ <= kOwnRanges / 4) give_back();
}

void Scoreboard::drop(uint32_t gone, uint32_t una) {
  erase(0, gone);
  una_ = una;
  melt();
}

}  // namespace millrace::tcp
