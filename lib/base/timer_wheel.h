// Timers for very many connections: schedule, re-arm and cancel in O(1) without memory of their own, a tick of 1 ms, correct for
// as long as TimeNs lasts, and never more work in one call of advance() than the caller grants.
//
// Levels of 64 slots; a slot of level n is 8^n ms wide. A timer goes to the lowest level whose 64 slots reach its deadline, so it
// lies in a slot that is at most 1/8 as wide as the time that remains; when the slot's time comes, its timers move to finer
// levels, and from level 0 they fire.
//
//   level 0  |.|.|#|.| ... 64 slots of 1 ms        reaches  64 ms
//   level 1  |  ..  |  #   | ... of 8 ms           reaches 512 ms
//   level 2  |             ...        | of 64 ms   reaches 4.1 s    ... level 13: of 17 years, beyond the end of TimeNs
//
// * Never early: a timer fires in the first advance() with now >= deadline rounded up to a whole millisecond (later only when the
//   caller's bound is reached; then the next call goes on).
// * Lazy re-arm: a deadline that moves later (every segment of a busy connection does that) only writes the field; the timer is
//   looked at when its old slot comes, and moved then. One that moves earlier is relinked.
// * Moving the timers of a wide slot is bounded work too, and what is due in fine slots fires first, so a million idle timers
//   that come down together do not delay a retransmission.
//
// One thread. The wheel does not own its nodes; a node that is destroyed leaves the wheel, in whichever order the two go. Timers
// of one tick fire in no particular order.
#pragma once

#include <bit>
#include <cstdint>

#include "lib/base/list.h"
#include "lib/base/time.h"

namespace millrace::base {

class TimerWheel;

// A timer, as a member of what it is for; base::member_owner<&Session::timer>(node) leads back. 24 bytes, because there is one in
// every connection.
class TimerNode {
 public:
  bool armed() const { return link_.linked() && tick_ != kNoTick; }
  // Rounded up to a whole tick of the wheel; kNever when it is not armed.
  TimeNs deadline() const { return armed() ? tick_ * kMillisecond : kNever; }

 private:
  friend class TimerWheel;
  static constexpr uint64_t kNoTick = (uint64_t{1} << 54) - 1;
  static constexpr uint64_t kNoLevel = 15;  // in due_, and in no slot
  ListNode link_;
  uint64_t tick_ : 54 = kNoTick;   // of the deadline
  uint64_t level_ : 4 = kNoLevel;  // of the slot that it lies in, which is never after the deadline
  uint64_t index_ : 6 = 0;
};
static_assert(sizeof(TimerNode) == 24);

class TimerWheel {
 public:
  static constexpr TimeNs kTick = kMillisecond;
  static constexpr uint32_t kMovesPerFire = 2;  // advance(): a move is counted as this part of a fire

  explicit TimerWheel(TimeNs now) : current_(now / kTick) {}
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  // Arms `node`, or re-arms it. A deadline in the past fires in the next advance(); kNever disarms.
  void schedule(TimerNode& node, TimeNs deadline) {
    const uint64_t tick = deadline == kNever ? TimerNode::kNoTick : tick_of(deadline);
    if (node.link_.linked()) {
      if (tick >= slot_tick(node)) {  // lazy: also for kNever, which is dropped when its slot comes
        node.tick_ = tick;
        return;
      }
      node.link_.unlink();
    }
    node.tick_ = tick;
    if (tick != TimerNode::kNoTick) insert(node);
  }

  // Nothing when it is not armed.
  void cancel(TimerNode& node) { node.link_.unlink(); }

  // Calls fire(TimerNode&) for each timer that is due at `now`, at most max_fired times, and moves at most max_fired x
  // kMovesPerFire others. The node is disarmed before the call, which may schedule and cancel any timer and destroy the node.
  // `now` never goes back. Returns how many fired; backlog() tells whether the bound left something over.
  template <class Fire>
  uint32_t advance(TimeNs now, uint32_t max_fired, Fire&& fire) {
    const uint64_t target = now / kTick;
    if (target < next_event_ && due_.empty() && moving_.empty()) {  // nearly every loop iteration
      if (target > current_) current_ = target;
      return 0;
    }
    uint32_t fired = 0;
    uint64_t moves = uint64_t{max_fired} * kMovesPerFire;
    while (true) {
      if (!drain(due_, max_fired, moves, fired, fire)) return fired;
      const uint64_t event = find_next_event();
      next_event_ = event;
      if (event > target) break;
      collect(event);
    }
    if (target > current_) current_ = target;
    drain(moving_, max_fired, moves, fired, fire);
    return fired;
  }

  // True when advance() stopped at its bound: call again soon.
  bool backlog() const { return !due_.empty() || !moving_.empty(); }

  // No timer fires before this time, so a caller with nothing else to do may wait (or let virtual time jump) until then. It may
  // be earlier than the first deadline, as timers that only have to move count. kNever when there is none.
  TimeNs next_wakeup() {
    if (backlog()) return current_ * kTick;
    const uint64_t event = find_next_event();
    next_event_ = event;
    return event == kNoEvent ? kNever : event * kTick;
  }

 private:
  static constexpr uint32_t kSlotBits = 6, kSlots = 1u << kSlotBits, kLevelShift = 3;
  static constexpr uint32_t kLevels = 14;      // 3 x 13 + 6 = 45 bits: 2^64 ns are less than 2^45 ms
  static constexpr uint32_t kCoarseLevel = 4;  // slots of 4 s and more: nothing there is in a hurry
  static constexpr uint64_t kNoEvent = UINT64_MAX;
  using Slot = List<TimerNode, &TimerNode::link_>;

  // The first tick at which `deadline` has passed.
  static uint64_t tick_of(TimeNs deadline) { return deadline / kTick + (deadline % kTick != 0 ? 1 : 0); }

  // When the slot of a linked node is due: slots lie less than 64 of their own width ahead. Of a node that has left its slot and
  // waits to be moved, some tick that makes schedule() right either way.
  uint64_t slot_tick(const TimerNode& node) const {
    if (node.level_ == TimerNode::kNoLevel) return 0;
    const uint32_t shift = static_cast<uint32_t>(node.level_) * kLevelShift;
    const uint64_t now_slot = current_ >> shift;
    return (now_slot + ((node.index_ - now_slot) & (kSlots - 1))) << shift;
  }

  void insert(TimerNode& node) {
    const uint64_t tick = node.tick_;
    if (tick <= current_) {
      node.level_ = TimerNode::kNoLevel;
      due_.push_back(node);
      return;
    }
    // The lowest level from which the slot is at most 63 slots away. The first guess can be one too low, by the phase of
    // `current_`.
    const uint32_t bits = 64 - static_cast<uint32_t>(std::countl_zero(tick - current_));
    uint32_t level = bits <= kSlotBits ? 0 : (bits - kSlotBits + kLevelShift - 1) / kLevelShift;
    if ((tick >> level * kLevelShift) - (current_ >> level * kLevelShift) >= kSlots) ++level;
    const uint32_t shift = level * kLevelShift;
    const uint64_t slot = tick >> shift;
    const uint32_t index = static_cast<uint32_t>(slot) & (kSlots - 1);
    node.level_ = level & 15;
    node.index_ = index & (kSlots - 1);
    slots_[level][index].push_back(node);
    occupied_[level] |= uint64_t{1} << index;
    if (slot << shift < next_event_) next_event_ = slot << shift;
  }

  // The tick of the first slot that may hold something. A slot whose timers were all cancelled still counts until its time comes.
  uint64_t find_next_event() const {
    uint64_t best = kNoEvent;
    for (uint32_t level = 0; level < kLevels; ++level) {
      if (occupied_[level] == 0) continue;
      const uint32_t shift = level * kLevelShift;
      const uint64_t now_slot = current_ >> shift;
      const uint64_t rotated = std::rotr(occupied_[level], static_cast<int>(now_slot & (kSlots - 1)));
      const uint64_t event = (now_slot + static_cast<uint64_t>(std::countr_zero(rotated))) << shift;
      if (event < best) best = event;
    }
    return best;
  }

  // Goes to tick `event` and takes the slots that are due there: of level 0 to due_, of the others to moving_, the finer ones in
  // front of all that still waits there, so that a retransmission does not queue behind a hundred thousand idle timers.
  void collect(uint64_t event) {
    current_ = event;
    Slot coming;
    for (uint32_t level = 0; level < kLevels; ++level) {
      const uint32_t shift = level * kLevelShift;
      if ((event & ((uint64_t{1} << shift) - 1)) != 0) break;  // inside a slot of this level and of all above
      const uint32_t index = static_cast<uint32_t>(event >> shift) & (kSlots - 1);
      const uint64_t bit = uint64_t{1} << index;
      if ((occupied_[level] & bit) == 0) continue;
      occupied_[level] &= ~bit;
      if (level == 0) {
        due_.splice_back(slots_[level][index]);
      } else if (level < kCoarseLevel) {
        coming.splice_back(slots_[level][index]);
      } else {
        moving_.splice_back(slots_[level][index]);
      }
    }
    if (coming.empty()) return;
    coming.splice_back(moving_);
    moving_.splice_back(coming);
  }

  // Fires what is due in `list` and puts the rest where it belongs. False when a bound was reached first.
  template <class Fire>
  bool drain(Slot& list, uint32_t max_fired, uint64_t& moves, uint32_t& fired, Fire& fire) {
    while (TimerNode* node = list.front()) {
      __builtin_prefetch(node->link_.next);  // of timers that sleep for minutes, nothing is in the cache
      if (node->tick_ <= current_) {
        if (fired == max_fired) return false;
        node->link_.unlink();
        ++fired;
        fire(*node);
      } else {
        if (moves == 0) return false;
        --moves;
        node->link_.unlink();
        if (node->tick_ != TimerNode::kNoTick) insert(*node);
      }
    }
    return true;
  }

  uint64_t current_;                // tick: all slots up to it were collected
  uint64_t next_event_ = kNoEvent;  // no slot is due before; may be too early, never too late
  uint64_t occupied_[kLevels] = {};
  Slot due_;
  Slot moving_;
  Slot slots_[kLevels][kSlots];
};

}  // namespace millrace::base
