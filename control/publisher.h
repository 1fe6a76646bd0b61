// The publisher: holds the set of table objects that should be in force, writes changes into the arena, tells the data plane, and
// knows which epoch every worker has taken. Works the same with no data plane connected: what is published meanwhile is handed
// over whole when one comes.
//
//   publish(changed, removed) ─▶ write changed objects + a root ─▶ PublishSnapshot on the command ring ─▶ loader ─▶ workers:
//   seen_epoch
//                                                                       full? only the newest epoch matters; step() tries again
//
// An arena serves one link only. When the link is lost, or a data plane appears, the live objects are copied into a fresh arena
// and published there as one new epoch: whoever still uses the old memory is never disturbed, and nothing shared needs repair.
// Epochs grow through all of this, and through control's restarts: a new control goes on above the last epoch its data plane has
// taken.
//
// All functions may be called from any thread (one mutex; publishing copies bytes under it).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/arena.h"
#include "lib/base/status.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/events.h"
#include "lib/stats/region.h"
#include "lib/table/layout.h"
#include "lib/table/link.h"

namespace millrace::control {

// One object to publish: the blob as ObjectWriter::finish made it, 8-aligned; its header names kind, id and size.
struct PublishObject {
  std::string name;  // for messages
  std::span<const uint8_t> bytes;
};

struct PublisherConfig {
  uint64_t incarnation = 0;  // of this control process, random, not 0
  uint64_t arena_size = table::kDefaultArenaSize;
  uint64_t command_ring = table::kDefaultCommandRing;
  bool validate = true;  // table::validate_object before anything is written: a compiler's bug stops here
};

enum class AckState : uint8_t {
  kAcknowledged,  // every worker uses this epoch or a newer one
  kRejected,      // the loader refused it, and nothing newer was accepted; `reason` says why
  kPending,       // time was up before one of the others
  kNotConnected,  // no data plane is connected
};
struct Acknowledgement {
  AckState state = AckState::kPending;
  std::string reason;
};

struct PublisherStatus {
  bool connected = false;
  uint64_t epoch = 0;                   // newest published
  uint64_t acknowledged = 0;            // every worker has taken it
  std::vector<uint64_t> seen;           // by worker, of this link; 0: nothing of it yet
  uint64_t accepted = 0, rejected = 0;  // epochs: last the loader accepted and refused (0: none)
  std::string rejection;                // its reason
  size_t objects = 0;
  uint64_t arena_used = 0, arena_retired = 0, arena_size = 0;
  uint64_t arena_huge = 0, arena_ordinary = 0;  // bytes by kind of page; ordinary ones make large tables slower
  bool kernel_makes_huge = true;
  bool waiting_for_ring = false;  // the command ring is full; the newest epoch goes out when there is room
};

class Publisher {
 public:
  static base::Result<std::unique_ptr<Publisher>> create(const PublisherConfig& config);

  // Makes `changed` (added or replaced) and `removed` (ids; unknown ones are ignored) the new tables, as one epoch. Objects whose
  // content is what is in force already are not written again; if nothing differs, no new epoch is made and the current one is
  // returned. All or nothing: on error (an object that does not validate, arena full, id collision) the tables stay as they were.
  base::Result<uint64_t> publish(std::span<const PublishObject> changed, std::span<const table::ObjectId> removed = {});
  // Every live object becomes exactly `objects`.
  base::Result<uint64_t> publish_all(std::span<const PublishObject> objects);

  Acknowledgement acknowledgement(uint64_t epoch) const;
  // Blocks until the epoch is acknowledged or rejected or time is up. kNotConnected does not end the wait: a data plane may come.
  Acknowledgement wait_acknowledged(uint64_t epoch, std::chrono::milliseconds timeout);
  PublisherStatus status() const;
  // How far the data plane that is linked came with an earlier control, while nothing was published; 0: not linked yet, or no
  // such.
  uint64_t inherited_epoch() const;
  bool contains(table::ObjectId id) const;
  // A copy of a live object's blob; nullopt when there is none.
  std::optional<std::vector<uint8_t>> object(table::ObjectId id) const;

  // ---- for DataplaneLink ---------------------------------------------------------------------------------------------------
  // A data plane is there: a fresh arena and command ring for it. The descriptors stay the publisher's.
  struct Handover {
    shm::UniqueFd arena;  // read only
    int commands = -1;
    uint64_t arena_size = 0, command_capacity = 0;
  };
  base::Result<Handover> prepare_link();
  // The data plane has taken them. `stats`: its region, mapped by the caller and alive until on_unlinked. Publishes everything
  // above `last_epoch`.
  void on_linked(stats::RegionView stats, uint64_t last_epoch);
  void on_unlinked();
  // Stage accounting of the linked data plane: one turn in `period`, 0: off (table::SetStagePeriod). The newest wish goes out as
  // soon as there is room; false when no data plane is linked. Whether it is in force: LoaderCounter::kStagePeriod.
  bool set_stage_period(uint32_t period);
  // The linked data plane's drain (table::SetDrain), likewise; in force: LoaderCounter::kDraining, kHealthFailed.
  bool set_drain(const table::SetDrain& wish);
  // A question to the workers (table/inspect.h), as its bytes. False: no data plane is linked, or the command ring has no room.
  bool send_inspection(std::span<const uint8_t> command);
  // A record of the loader's event ring.
  void on_loader_event(const stats::LoaderEvent& event, stats::EventType type, std::string_view text);
  // Retries a full ring, reclaims, wakes waiters. Call at least every few milliseconds while linked. Error: the command ring is
  // corrupt.
  base::Status step();

 private:
  struct Object {
    std::string name;
    uint64_t offset = 0;
    uint64_t version = 0;
    uint32_t size = 0;
    table::Kind kind{};
  };
  using Key = std::pair<table::Kind, table::ObjectId>;
  using Objects = std::map<Key, Object>;

  Publisher(const PublisherConfig& config, Arena arena);
  base::Result<uint64_t> apply(std::span<const PublishObject> changed, std::span<const table::ObjectId> removed,
                               bool replace_all);
  base::Result<uint64_t> write_root(std::vector<table::ObjectRef> refs, uint64_t epoch);
  std::vector<table::ObjectRef> all_references() const;
  std::vector<table::ObjectRef> merged(const Objects& put, std::span<const Key> gone) const;
  base::Status move_to_fresh_arena();
  void send_newest();
  void send_stage_period();
  void send_drain();
  uint64_t min_seen() const;
  Acknowledgement acknowledgement_locked(uint64_t epoch) const;

  const PublisherConfig config_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Arena arena_;
  bool arena_shared_ = false;  // a data plane has (had) this arena: blocks are freed by epoch only
  uint64_t inherited_epoch_ = 0;
  bool published_ = false;  // something was published in this control's life
  Objects objects_;
  std::vector<table::ObjectRef> refs_;  // of objects_, sorted by key: what the root holds
  std::unordered_map<table::ObjectId, table::Kind> kind_of_;
  uint64_t epoch_ = 0;
  uint64_t next_version_ = 1;
  uint64_t root_offset_ = 0;  // of epoch_; 0: none yet
  uint32_t root_count_ = 0;
  uint64_t sent_epoch_ = 0;   // newest on the command ring of this link
  uint64_t fence_epoch_ = 0;  // first epoch of this link: smaller seen_epoch words are older control's
  uint64_t accepted_ = 0, rejected_ = 0;
  std::string rejection_;
  std::optional<uint32_t> stage_period_;  // to be sent
  table::SetDrain drain_;                 // to be sent; no fields: nothing
  shm::Segment commands_;
  shm::RingProducer ring_;
  std::optional<stats::RegionView> stats_;
};

}  // namespace millrace::control
