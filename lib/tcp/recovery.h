// The sender's scoreboard: what the peer has reported about each piece of [snd_una, snd_max), when it was sent last, and whether
// it is believed lost (RFC 6675, RFC 8985). The pieces are ranges that tile the whole, in the order of sequence numbers; what was
// sent about the same time and has the same fate is one range.
//
//   snd_una                                                                   snd_max
//   │ lost, to be sent │ reported │ sent again at t3 │ reported │ sent at t1 │ sent at t2 │
//
// Bounded, without heap. Of its own a board has places for what ordinary loss makes of a window. When there are more pieces,
// those that differ only in time melt; then a larger board is borrowed, for a queue on the way that overflowed has lost every
// second segment; and when that is full or none is left, the pieces at the top melt: their reports are forgotten and the later
// time counts, which is safe: at worst something is sent again.
#pragma once

#include <array>
#include <cstdint>

#include "lib/base/pool.h"
#include "lib/tcp/seq.h"
#include "lib/wire/tcp.h"

namespace millrace::tcp {

inline constexpr uint32_t kDupThresh = 3;  // RFC 5681 3.2, RFC 6675 2

// Times of sending: microseconds modulo 2^29 (nine minutes), so that a range takes eight bytes. Two of them compare rightly while
// they are less than half of that apart; what was sent longer ago has long been taken for lost by the retransmission timer.
inline constexpr uint32_t kSentBits = 29, kSentMask = (1u << kSentBits) - 1;
constexpr int32_t sent_since(uint32_t now_us, uint32_t then_us) {
  return static_cast<int32_t>((now_us - then_us) << (32 - kSentBits)) >> (32 - kSentBits);
}

class Scoreboard {
 public:
  static constexpr uint32_t kOwnRanges = 32, kMaxRanges = 1024;
  struct Packed {
    uint32_t right = 0;
    uint32_t sent : kSentBits = 0, marks : 3 = 0;
  };
  using Places = std::array<Packed, kMaxRanges>;  // what is borrowed: 8 KB
  using Annexes = base::Pool<Places>;

  Scoreboard() = default;
  Scoreboard(const Scoreboard&) = delete;
  Scoreboard& operator=(const Scoreboard&) = delete;
  ~Scoreboard() { give_back(); }
  // Where to borrow from; outlives the board. Null, as at first: nowhere.
  void set_annexes(Annexes* annexes) { annexes_ = annexes; }

  enum Mark : uint8_t {
    kReported = 1,  // the peer has it (SACK)
    kLost = 2,      // to be sent again
    kRepeated = 4,  // was sent more than once
  };
  struct Range {
    uint32_t left, right;  // [left, right)
    uint32_t sent_us;      // when the last byte of it was sent last; the others not later
    uint8_t marks;
    bool whole;  // up to the end of what was sent by sent_us: exact for its last byte, unless a report has cut it before
    uint32_t bytes() const { return right - left; }
    bool repeated() const { return (marks & kRepeated) != 0; }
  };

  // All of [una, max) was sent at sent_us or before, and nothing is known of it.
  void reset(uint32_t una, uint32_t max, uint32_t sent_us);
  // New data: everything up to `max` is sent now. Ranges sent within 2^shift us of each other may become one.
  void extend(uint32_t max, uint32_t now_us, uint32_t shift);
  // [left, right) within the board is sent again now.
  void repeat(uint32_t left, uint32_t right, uint32_t now_us, uint32_t shift);

  // The peer reports [left, right), una <= left < right <= max: calls f(Range) for each piece that was not reported before.
  template <class F>
  void report(uint32_t left, uint32_t right, F&& f) {
    make_room(2);
    const bool whole = cut_at(right);
    cut(right);
    for (uint32_t i = cut(left); i < count_ && seq_le(ranges_[i].right, right); ++i) {
      if ((ranges_[i].marks & kReported) != 0) continue;
      f(at(i, whole || ranges_[i].right != right));
      ranges_[i].marks = kReported;
    }
    melt();
  }
  // snd_una moved up to `una` <= max: f(Range) for each piece below it that was not reported before.
  template <class F>
  void advance(uint32_t una, F&& f) {
    uint32_t gone = 0;
    for (; gone < count_ && seq_le(ranges_[gone].right, una); ++gone)
      if ((ranges_[gone].marks & kReported) == 0) f(at(gone, true));
    if (gone < count_ && seq_lt(left_of(gone), una) && (ranges_[gone].marks & kReported) == 0) {
      Range r = at(gone, false);
      r.right = una;
      f(r);
    }
    drop(gone, una);
  }
  // Marks as lost what was neither reported nor marked before and f(Range) says is. Returns how many bytes.
  template <class F>
  uint32_t lose(F&& f) {
    const uint32_t before = lost_;
    for (uint32_t i = 0; i < count_; ++i)
      if ((ranges_[i].marks & (kReported | kLost)) == 0 && f(at(i, true))) ranges_[i].marks |= kLost;
    melt();
    return lost_ - before;
  }
  // The same for all of [left, max).
  void lose_from(uint32_t left);
  void lose_first(uint32_t bytes);
  void find_again();      // nothing is lost after all
  void renege();          // what was reported is not there any more, and goes again
  void forget_reports();  // nothing is reported: the peer may have dropped it (RFC 2018 8)

  uint32_t una() const { return una_; }
  uint32_t max() const { return count_ == 0 ? una_ : ranges_[count_ - 1].right; }
  bool empty() const { return reported_ == 0; }                            // nothing is reported
  uint32_t bytes() const { return reported_; }                             // reported as received, above snd_una
  uint32_t lost() const { return lost_; }                                  // bytes to be sent again
  uint32_t repeated() const { return repeated_; }                          // bytes in flight for the second time or more
  uint32_t in_flight() const { return max() - una_ - reported_ - lost_; }  // pipe of RFC 6675 and 8985
  uint32_t ranges() const { return count_; }
  uint32_t reported_ranges() const { return reported_ranges_; }
  uint32_t highest() const;  // right end of the last reported range; not when empty()
  // The lowest range that is lost; [max, max) when there is none.
  Range first_lost() const;

  // The right end of the reported range that holds `seq`, else `seq`: where unreported data goes on.
  uint32_t skip(uint32_t seq) const;
  // Left end of the first reported range above `seq`, or `end` when there is none before it.
  uint32_t next_left(uint32_t seq, uint32_t end) const;
  // Bytes reported within [from, to).
  uint32_t bytes_in(uint32_t from, uint32_t to) const;

 private:
  uint32_t left_of(uint32_t i) const { return i == 0 ? una_ : ranges_[i - 1].right; }
  Range at(uint32_t i, bool whole) const {
    return {left_of(i), ranges_[i].right, ranges_[i].sent, static_cast<uint8_t>(ranges_[i].marks), whole};
  }
  uint32_t first_above(uint32_t seq) const;
  bool cut_at(uint32_t seq) const;  // is `seq` the end of a range already?
  uint32_t cut(uint32_t seq);       // the range that begins at `seq` from now on; count_ when seq is max
  void insert(uint32_t i, Packed p);
  void erase(uint32_t first, uint32_t n);
  void make_room(uint32_t places);
  void give_back();
  void melt();  // joins neighbours that need not be told apart, and counts anew
  void drop(uint32_t gone, uint32_t una);

  uint32_t una_ = 0;
  uint32_t reported_ = 0, lost_ = 0, repeated_ = 0;
  uint16_t count_ = 0, reported_ranges_ = 0;
  uint16_t capacity_ = kOwnRanges;
  Annexes* annexes_ = nullptr;
  Places* annex_ = nullptr;
  Packed* ranges_ = own_.data();  // or the annex's
  std::array<Packed, kOwnRanges> own_;
};

}  // namespace millrace::tcp
