// Answers an operator's questions about a worker's connections (table/inspect.h), a slice a turn of the loop: so many places of
// the pool looked at, so many records written, then packets again. A million connections are walked in the turns that come
// anyway, and no turn becomes noticeably longer.
//
//   WorkerTableSlot::posted() ─▶ step() ─┬─ list, show, kill: Walk ── a slice ──▶ records ─▶ inspection ring
//        (one word a turn)               └─ capture: start, stop  ──▶ Capture (capture.h)
//
// A ring without room stops a walk until there is some; it never stops the loop. What is seen is no snapshot: a connection may
// come or go while the walk is elsewhere.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/capture.h"
#include "dataplane/runtime_snapshot.h"
#include "dataplane/tcp_stack.h"
#include "dataplane/transport.h"
#include "dataplane/worker_context.h"
#include "lib/shm/spsc_ring.h"
#include "lib/table/inspect.h"

namespace millrace::dataplane {

// What the session layer knows of a connection, apart from its TCP facts.
struct SessionFacts {
  table::SessionPhase phase = table::SessionPhase::kNone;
  table::ObjectId listener = table::kNoObject, cluster = table::kNoObject;
  const Connection* peer = nullptr;
  TimeNs since = 0;  // 0: not known
  uint32_t requests = 0;
  uint64_t id = 0;
  uint16_t tls_version = 0, tls_cipher = 0;
  std::string_view sni, alpn;
  bool tunnel = false;
  uint64_t bytes_to_peer = 0, bytes_from_peer = 0;  // of tunnels
};
SessionFacts session_facts(const Connection& c);

class Inspector {
 public:
  // `ring`: null where there is none (tests): then nothing is answered.
  Inspector(WorkerContext& context, Capture& capture, shm::RingProducer* ring);

  // Once a turn, with WorkerTableSlot::posted(): true when step() has work.
  bool due(uint32_t posted) const { return posted != fetched_ || active_; }
  // Bounded work; true when a walk is under way. At the top of a turn: nothing of a burst is under way, so connections may be
  // ended.
  bool step(WorkerTableSlot& slot);

  static constexpr uint32_t kSlotsPerStep = 64;    // places of the pool looked at a turn, and trace entries times 16
  static constexpr uint32_t kRecordsPerStep = 32;  // written a turn
  static constexpr uint32_t kWalks = 4;            // questions under way at one time; one more is refused

 private:
  struct Candidate {
    uint64_t key = 0;
    table::ConnectionId id;
  };
  struct Walk {
    table::InspectConnections question;
    table::InspectDone done;
    enum class Phase : uint8_t { kFree, kPool, kSorted, kTrace, kDone } phase = Phase::kFree;
    uint32_t next = 0;  // slot, or candidate
    uint64_t trace_at = 0, trace_end = 0;
    uint32_t candidates = 0;
    std::unique_ptr<Candidate[]> best;  // kMaxSorted, made at start; a heap with the smallest in front
  };

  void fetch(const WorkerTableSlot::Question& q);
  void begin(const table::InspectConnections& question);
  void advance(Walk& w);
  bool walk_pool(Walk& w);
  bool walk_sorted(Walk& w);
  bool walk_trace(Walk& w);
  bool matches(const table::ConnectionFilter& f, const Connection& c) const;
  void keep(Walk& w, uint64_t key, table::ConnectionId id);
  bool report(Walk& w, const Connection& c);
  bool finish(Walk& w);
  void fill(table::ConnectionRecord& r, const Connection& c, const SessionFacts& s) const;

  WorkerContext& ctx_;
  Capture& capture_;
  shm::RingProducer* ring_;
  Walk walks_[kWalks];
  uint32_t fetched_ = 0;
  bool active_ = false;
};

}  // namespace millrace::dataplane
