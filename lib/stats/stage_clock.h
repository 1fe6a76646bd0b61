// Where a worker's cycles go: a clock that knows the stage the worker is in and charges every TSC cycle of an accounted turn to
// exactly one stage. Stages nest: the time of an inner stage is not the outer one's.
//
//   turn    │ loop │ rx_burst │ packet_parse │ tcp_input │ session ─────────────────────── │ tcp_output │ tx_burst │ loop │
//   nested  │                                           │ http_parse │ route │ upstream │                             │
//
// Off, a scope costs one test of a byte that is in the cache, going in and coming out. On, one turn in `period` is accounted,
// chosen at random (so that nothing periodic in the traffic falls in step with it), and only it reads the TSC: a pair of
// readings a scope would otherwise be felt in a loop of a few thousand cycles a request. Shares are exact in expectation.
// What a turn's scopes counted goes to shared memory at its end, and only if the turn was busy: idle polling is
// LoopCounter::kIdleCycles and nothing else.
//
// RDTSC does not wait for earlier instructions, so the border between two stages is blurred by what is in flight there, up to
// some tens of nanoseconds either way; it does not add up, because every cycle is charged once.
#pragma once

#include <cstdint>
#include <x86intrin.h>

#include "lib/stats/region.h"

namespace millrace::stats {

struct RealTsc {
  static uint64_t read() { return __rdtsc(); }
};

// `Tsc`: has a static uint64_t read(). All functions are called by the owning worker's thread; const ones see its state only.
template <class Tsc>
class BasicStageClock {
 public:
  // One turn in so many: 2.5 % of the cost of accounting every turn, some thousand accounted turns a second under load.
  static constexpr uint32_t kDefaultPeriod = 16;
  static constexpr uint32_t kMaxPeriod = 1u << 20;

  // `shared`: where busy turns are added; null: nothing is ever accounted. `cost`: cycles that one change of stage costs by
  // itself and that are taken off what is charged; measure_cost() finds them. `seed`: of the choice of turns.
  explicit BasicStageClock(StageBlock* shared = nullptr, uint64_t cost = 0, uint64_t seed = 1)
      : shared_(shared), cost_(cost), random_(seed | 1) {}

  // A turn begins. `tsc`: when the last one ended. `period`: 0: off; N: one turn in N is accounted.
  void begin_turn(uint64_t tsc, uint32_t period) {
    if (period == 0 || shared_ == nullptr) [[likely]]
      return;
    if (countdown_ != 0 && countdown_ < 2 * uint64_t{period}) [[likely]] {
      --countdown_;
      return;
    }
    countdown_ = next_random() % (2 * uint64_t{period} - 1);  // mean period - 1
    on_ = true;
    stage_ = Stage::kLoop;
    since_ = tsc;
    ++entries_[index(Stage::kLoop)];
  }
  // The turn ended at `tsc`; `busy`: there was something to do.
  void end_turn(uint64_t tsc, bool busy) {
    if (!on_) [[likely]]
      return;
    on_ = false;
    charge(tsc);
    if (busy) shared_->turns.add();
    for (uint32_t i = 0; i < kCountOf<Stage>; ++i) {
      if (busy && entries_[i] != 0) {
        shared_->cycles[i].add(cycles_[i]);
        shared_->entries[i].add(entries_[i]);
      }
      cycles_[i] = entries_[i] = 0;
    }
  }

  // This turn is accounted. Does not change between begin_turn() and end_turn().
  bool on() const { return on_; }
  Stage stage() const { return stage_; }

  // For scopes, while on(): the worker is in `next` from now on; `entries` more were counted there. Returns the stage before.
  Stage enter(Stage next, uint32_t entries) {
    charge(Tsc::read());
    entries_[index(next)] += entries;
    const Stage before = stage_;
    stage_ = next;
    return before;
  }
  void leave(Stage outer) {
    charge(Tsc::read());
    stage_ = outer;
  }

  // The least that a change of stage took among many: for the constructor of the clock that is going to be used.
  static uint64_t measure_cost() {
    StageBlock sink;
    BasicStageClock probe(&sink);
    probe.begin_turn(Tsc::read(), 1);
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 1'000; ++i) {
      const uint64_t before = probe.since_;
      probe.enter(Stage::kSession, 1);
      if (probe.since_ - before < least) least = probe.since_ - before;
    }
    return least;
  }

  // A clock that never runs, for what is built without a worker (tests, fuzzers). Never written, so threads may share it.
  static BasicStageClock& never() {
    static BasicStageClock clock;
    return clock;
  }

 private:
  static constexpr uint32_t index(Stage s) { return static_cast<uint32_t>(s); }
  void charge(uint64_t tsc) {
    const uint64_t spent = tsc - since_;
    since_ = tsc;
    if (spent > cost_ && spent < kImpossible) cycles_[index(stage_)] += spent - cost_;
  }
  uint64_t next_random() {  // xorshift64: Marsaglia, Xorshift RNGs, 2003
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ >> 11;
  }
  // The TSC of another core read after a migration may lie behind: such a difference is no time.
  static constexpr uint64_t kImpossible = 1ull << 62;

  bool on_ = false;
  Stage stage_ = Stage::kLoop;
  StageBlock* shared_;
  uint64_t cost_;
  uint64_t since_ = 0;
  uint64_t countdown_ = 0;
  uint64_t random_;
  uint64_t cycles_[kCountOf<Stage>] = {};
  uint64_t entries_[kCountOf<Stage>] = {};
};
using StageClock = BasicStageClock<RealTsc>;

// The worker is in `stage` while this lives: StageScope scope(clock, Stage::kRoute);
template <class Clock>
class [[nodiscard]] BasicStageScope {
 public:
  // `entries`: how many items the stage takes on, for stages that work on bursts.
  BasicStageScope(Clock& clock, Stage stage, uint32_t entries = 1) : clock_(clock) {
    if (clock.on()) [[unlikely]]
      outer_ = clock.enter(stage, entries);
  }
  ~BasicStageScope() {
    if (clock_.on()) [[unlikely]]
      clock_.leave(outer_);
  }
  BasicStageScope(const BasicStageScope&) = delete;
  BasicStageScope& operator=(const BasicStageScope&) = delete;
  // On to another stage; the destructor still goes back to the outermost one.
  void next(Stage stage, uint32_t entries = 1) {
    if (clock_.on()) [[unlikely]]
      clock_.enter(stage, entries);
  }

 private:
  Clock& clock_;
  Stage outer_ = Stage::kLoop;
};
using StageScope = BasicStageScope<StageClock>;

}  // namespace millrace::stats
