// Where one worker's TCP/IP counts: pointers into the statistics region (lib/stats/region.h), or into a LocalCounters where there
// is none (tests, the simulator). Every word has one writer, the worker.
#pragma once

#include <cstdint>

#include "lib/io/port_queue.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"
#include "lib/stats/region.h"
#include "lib/stats/stage_clock.h"

namespace millrace::dataplane {

using stats::LoopCounter;
using stats::PortCounter;
using stats::Stage;
using stats::StageScope;
using stats::TcpCounter;

struct StackCounters {
  stats::Counter* drops = nullptr;  // kDropReasonCount words, by DropReason
  stats::CounterBlock<TcpCounter>* tcp = nullptr;
  stats::CounterBlock<LoopCounter>* loop = nullptr;  // hand-over and timers only
  stats::CounterBlock<PortCounter>* ports[io::kMaxPorts] = {};
  stats::WorkerStats listeners;                             // for what listeners refuse; may be null
  stats::StageClock* stages = &stats::StageClock::never();  // the worker's; never null

  // A connection that a listener may not have.
  void overflowed(stats::ScopeSlot listener) const {
    if (listeners.there()) listeners.scope(listener)[stats::ListenerCounter::kCxOverflow].add();
  }
  void drop(stats::DropReason r) const { drops[static_cast<uint32_t>(r)].add(); }
};

// The same words in memory of one's own, all zero.
struct LocalCounters {
  stats::Counter drops[stats::kDropReasonCount];
  stats::CounterBlock<TcpCounter> tcp;
  stats::CounterBlock<LoopCounter> loop;
  stats::CounterBlock<PortCounter> ports[io::kMaxPorts];

  StackCounters view() {
    StackCounters v{drops, &tcp, &loop, {}, {}};
    for (uint32_t i = 0; i < io::kMaxPorts; ++i) v.ports[i] = &ports[i];
    return v;
  }
  uint64_t dropped(stats::DropReason r) const { return drops[static_cast<uint32_t>(r)].read(); }
};

}  // namespace millrace::dataplane
