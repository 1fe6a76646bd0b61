// The table loader: an ordinary thread's work, between the command ring and the workers. It checks what control published, makes
// of it what workers need (regex databases, TLS contexts, statistics slots, maps), offers the result, and frees what no worker
// can see any more.
//
//   command ring ─▶ newest PublishSnapshot ─▶ validate root ─▶ validate new objects ─▶ build runtime objects ─▶ offer ─▶ free old
//                        any error: kSnapshotRejected with the reason, old tables stay, next command
//
// Cost of a snapshot: O(objects) cheap work (root, maps) and O(changed objects) expensive work: an object already checked at the
// same arena offset, version and size is not looked at again, and its runtime object is shared between snapshots.
//
// Trust: control is trusted not to change published objects (it writes them once); it is not trusted to write them right, and the
// arena's bytes may be damaged. So everything is checked once, when first seen, and the mapping is read-only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dataplane/runtime_snapshot.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/region.h"
#include "lib/stats/stage_clock.h"
#include "lib/table/link.h"

namespace millrace::tls {
class LibraryContext;
}

namespace millrace::dataplane {

struct TableLoaderConfig {
  // One per worker, or empty: then no TLS contexts are made (tests).
  std::vector<tls::LibraryContext*> tls_libraries;
  base::TimeNs scope_linger_ns = stats::kScopeLingerNs;
  // Established connections that listeners may have, all workers together, by name; 0: no limit. `connection_limit`: of all
  // others.
  std::map<std::string, uint32_t> listener_limits;
  uint32_t connection_limit = 0;
  uint32_t stage_period = 0;  // of stage accounting at start (table::SetStagePeriod changes it); 0: off
  bool tls_key_capture = false;  // StartCapture may ask for TLS keys
};

class TableLoader {
 public:
  // `slots`: one per worker (region.workers()), `events`: the loader's event ring, may be null. All outlive the loader, which
  // outlives the workers' loops. Offers an empty snapshot (epoch 0) to every slot at once, so that a worker never sees null.
  TableLoader(const TableLoaderConfig& config, stats::Region region, std::span<WorkerTableSlot> slots, shm::RingProducer* events);
  ~TableLoader();
  TableLoader(const TableLoader&) = delete;
  TableLoader& operator=(const TableLoader&) = delete;

  // A control process has completed the handshake. Takes both segments; errors when the command ring is not one. Tables in force
  // stay until its first snapshot is accepted, and so does the mapping of the arena they lie in.
  base::Status attach(shm::Segment arena, shm::Segment commands, uint64_t control_incarnation);
  // The control process is gone: no more commands; tables in force stay.
  void detach();
  bool attached() const;

  // Handles what is in the command ring (only the newest snapshot is built), frees what every worker has passed, frees statistics
  // slots. `now`: any monotonic clock. Returns true when it did something.
  bool step(base::TimeNs now);

  uint64_t last_epoch() const;             // highest epoch ever accepted; control goes on above it
  const RuntimeSnapshot* offered() const;  // the newest one (loader thread only)
  size_t snapshots_alive() const;
  const std::string& last_rejection() const;  // reason; empty when the last command was good

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The names that a format asks for with %REQ(X)%, %REQ(X?Y)%, %RESP(X)%, %TRAILER(X)% and that a record does not carry anyway;
// added to `out` without duplicates. Text that is not a well-formed operator is skipped (control has checked formats).
void collect_access_log_fields(std::string_view format, AccessLogFields& out);

}  // namespace millrace::dataplane
