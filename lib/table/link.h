// What control and data plane say to each other: the handshake over the socket, then commands through the command ring. (Events
// and statistics go the other way: lib/stats/events.h, lib/stats/region.h.) Plain structs, little endian, fixed sizes; strings
// are NUL-padded.
//
//   control                                            data plane
//      | -- kHello {versions, incarnation} ----------------> |   checks versions; another control connected? then kRefused
//      | <-- kWelcome {versions, incarnation, workers,       |
//      |      last_epoch}  + fds: stats region,              |
//      |      worker event rings, loader event ring,         |
//      |      worker inspection rings (inspect.h) ---------- |
//      | -- kAttach {} + fds: arena (read only), commands -> |   maps them; the loader takes over at the next step
//      | <-- kReady ---------------------------------------- |
//      |                                                     |   from here on the socket carries nothing; EOF is the peer's death
#pragma once

#include <cstdint>

#include "lib/table/layout.h"

namespace millrace::table {

inline constexpr uint32_t kLinkVersion = 4;
inline constexpr const char* kLinkSocketName = "dataplane.sock";  // in the run directory

enum class LinkMessage : uint16_t { kHello = 1, kWelcome, kAttach, kReady, kRefused };

// What must agree on both sides. Regex databases are only good for the very engine and CPU class they were compiled for.
struct LinkVersions {
  uint32_t link = kLinkVersion;
  uint32_t layout = kLayoutVersion;
  uint32_t stats_layout = 0;     // stats::kRegionLayoutVersion
  uint32_t events = 0;           // stats::kEventVersion
  uint64_t stats_hash = 0;       // stats::region_layout_hash()
  char regex_engine[64] = {};    // hs_version(); empty: not compared
  char regex_platform[64] = {};  // what databases are compiled for; empty: not compared
};
// Null when `mine` and `theirs` can work together; else a static sentence naming the first difference.
const char* link_mismatch(const LinkVersions& mine, const LinkVersions& theirs);

struct LinkHello {
  LinkVersions versions;
  uint64_t incarnation = 0;  // of control, random
  uint32_t pid = 0;
  uint32_t reserved = 0;
};
struct LinkWelcome {
  LinkVersions versions;
  uint64_t incarnation = 0;  // of the data plane, random
  uint64_t last_epoch = 0;   // highest epoch it ever accepted: control goes on above it
  uint32_t pid = 0;
  uint32_t workers = 0;  // so many event rings follow the stats region, then the loader's, then so many inspection rings
};
struct LinkAttach {
  uint64_t arena_size = 0;        // bytes, of the whole segment
  uint64_t command_capacity = 0;  // bytes of the command ring
};
struct LinkReady {
  uint64_t reserved = 0;
};
struct LinkRefused {
  char reason[256] = {};  // one sentence
};

// ---- commands, control -> loader -----------------------------------------------------------------------------------------
enum class CommandType : uint32_t {
  kPublishSnapshot = 1,
  kSetStagePeriod,
  kInspectConnections,  // inspect.h, as what follows
  kStartCapture,
  kStopInspection,
  kSetDrain,
};

struct PublishSnapshot {
  CommandType type = CommandType::kPublishSnapshot;
  uint32_t count = 0;  // references behind the root
  uint64_t epoch = 0;
  uint64_t root_offset = 0;  // of the SnapshotHeader in the arena
};
static_assert(sizeof(PublishSnapshot) == 24);

// Stage accounting of every worker (stats/stage_clock.h) from its next turn on. It belongs to the data plane's life: a control
// process that comes or goes changes nothing, a data plane that starts takes the configuration's `stage_accounting`.
struct SetStagePeriod {
  CommandType type = CommandType::kSetStagePeriod;
  uint32_t period = 0;  // 0: off; N: one turn in N is accounted; at most StageClock::kMaxPeriod
};
static_assert(sizeof(SetStagePeriod) == 8);

// Takes the whole gateway out of service, or back into it. It belongs to the data plane's life, as SetStagePeriod does: a control
// process that comes or goes changes nothing. Whether it is in force: LoaderCounter::kDraining and its neighbours.
struct SetDrain {
  static constexpr uint32_t kHealth = 1, kDrain = 2;  // of `fields`
  static constexpr uint32_t kMaxTimeS = 4'000'000;    // 46 days
  CommandType type = CommandType::kSetDrain;
  uint32_t fields = 0;         // what is meant; the other stays as it is
  uint32_t health_failed = 0;  // 1: every answer ends its connection; new connections are accepted on
  uint32_t draining = 0;  // 1: answers end their connections, the more of them the later; after time_s nothing new is accepted
  uint32_t time_s = 0;    // at most kMaxTimeS; 0: at once
};
static_assert(sizeof(SetDrain) == 20);

// Arena offsets begin here, so that 0 is never an object.
inline constexpr uint64_t kArenaFirstOffset = 4096;
inline constexpr uint64_t kMinArenaSize = 1ull << 20, kMaxArenaSize = 1ull << 40;
inline constexpr uint64_t kDefaultArenaSize = 4ull << 30;   // sparse: costs what is written
inline constexpr uint64_t kDefaultCommandRing = 64 * 1024;  // 2,000 snapshots; full: only the newest matters, control waits

}  // namespace millrace::table
