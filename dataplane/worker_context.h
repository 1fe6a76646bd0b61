// What the parts of one worker share: references to what the worker owns, and the few things of the running loop iteration.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "dataplane/drain.h"
#include "dataplane/head_buffer.h"
#include "dataplane/runtime_snapshot.h"
#include "dataplane/tcp_stack.h"
#include "dataplane/transport.h"
#include "dataplane/worker_limits.h"
#include "lib/base/list.h"
#include "lib/base/prng.h"
#include "lib/base/time.h"
#include "lib/base/timer_wheel.h"
#include "lib/route/matcher.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/region.h"

namespace millrace::dataplane {

using base::TimeNs;

// Which kind of object a timer of the worker's wheel belongs to.
enum class TimerKind : uint8_t { kDownstream, kExchange, kUpstream, kTunnel, kRetry, kHealthCheck };

struct SessionTimer {
  explicit SessionTimer(TimerKind k) : kind(k) {}
  base::TimerNode node;
  TimerKind kind;
};

class HealthMesh;

struct WorkerContext {
  uint32_t worker = 0, workers = 1;
  WorkerLimits limits;
  tcp::Config upstream_tcp;  // of connections to endpoints; their connect timeout is the cluster's
  TcpStack& stack;
  Transports& transports;
  base::TimerWheel& timers;
  HeadBufferPool& heads;
  stats::WorkerStats stats;
  shm::RingProducer* events = nullptr;  // access log records; null in tests that want none
  base::Prng& random;
  route::MatchScratch& match_scratch;
  std::span<char> write_buffer;  // where heads are put together before they are copied into packets
  stats::StageClock& stages;

  // Of this loop iteration:
  TimeNs now = 0;
  uint64_t wall_ns = 0;                     // Unix time
  std::string_view date;                    // IMF-fixdate of wall_ns
  const RuntimeSnapshot* tables = nullptr;  // never null after start: an empty snapshot serves nothing

  DrainState drain;  // as of this turn

  HealthMesh* health_mesh = nullptr;  // null with one worker

  void arm(SessionTimer& t, TimeNs deadline) { timers.schedule(t.node, deadline); }
  // Lazily: the node may stay in its slot of the wheel without a deadline, so that the next arm() is one store. A request arms
  // and disarms four timers.
  void disarm(SessionTimer& t) { timers.schedule(t.node, base::kNever); }
};

// now + ms, or never for 0 (a timeout of 0 is off everywhere in Envoy's API).
inline TimeNs deadline_after(TimeNs now, uint32_t ms) {
  return ms == 0 ? base::kNever : base::time_add(now, ms * base::kMillisecond);
}

}  // namespace millrace::dataplane
