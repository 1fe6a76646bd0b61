// The neighbour table of one worker: which MAC address an IP address on a port has (ARP, RFC 826; ND, RFC 4861 7.3). A pure state
// machine: it is told what was seen and what time it is, and says which solicitations are due; frames are made by ip_layer.
//
//              answered                30 s                  use          5 s                 3 unicast probes unanswered
//  INCOMPLETE ─────────▶ REACHABLE ────────────▶ STALE ──────────▶ DELAY ────────────▶ PROBE ──────────────────────────▶ gone
//      │ heard only         ▲                       ▲                │ progress of TCP  │ answered, progress
//      ├────────────────────┼───────────────────────┘                │                  │
//      │                    └────────────────────────────────────────┴──────────────────┘
//      │ 3 requests, 1 s apart, unanswered
//      ▼
//     gone: waiting frames dropped (kNeighborUnreachable); TCP repeats them and resolution starts again
//
// Between REACHABLE and STALE nothing happens: an entry is REACHABLE for as long as `fresh_until` says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/io/port_queue.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"

struct rte_mbuf;

namespace millrace::dataplane {

using base::TimeNs;

enum class NeighborState : uint8_t { kFree, kIncomplete, kReachable, kStale, kDelay, kProbe, kStatic };
const char* to_string(NeighborState s);

// What a message of a neighbour says of it (RFC 4861 7.2.3, 7.2.5; of ARP the same, RFC 826).
enum class Evidence : uint8_t {
  kHeard,     // it sends: a request, or an announcement that nobody asked for. A new address is taken over, and is STALE
  kAnswered,  // it answered us: it hears us too, and is REACHABLE
};

// A solicitation that is due, or the news that a neighbour did not answer.
struct NeighborProbe {
  uint16_t port = 0;
  bool lost = false;     // given up: nothing is to be sent
  bool unicast = false;  // to `mac` (a probe of a known neighbour), else broadcast or solicited-node multicast
  io::MacAddress mac{};
  base::IpAddress address;
};

class NeighborTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  // Frames waiting for one unresolved neighbour; the oldest gives way. Each worker asks for itself, and behind a router a hundred
  // clients' first frames are one neighbour's.
  static constexpr uint32_t kMaxQueued = 32;
  static constexpr uint32_t kMaxProbes = 3;                     // MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT (RFC 4861 10)
  static constexpr TimeNs kProbeInterval = base::kSecond;       // RETRANS_TIMER
  static constexpr TimeNs kReachableTime = 30 * base::kSecond;  // REACHABLE_TIME
  static constexpr TimeNs kDelayTime = 5 * base::kSecond;       // DELAY_FIRST_PROBE_TIME
  static constexpr TimeNs kWatchTime = base::kSecond;  // a connection that made no progress for so long is watched no longer
  static constexpr TimeNs kTick = 100 * base::kMillisecond;  // how exactly the two are kept

  struct Entry {
    base::IpAddress address;
    io::MacAddress mac{};
    uint16_t port = 0;
    NeighborState state = NeighborState::kFree;
    uint8_t probes = 0;  // sent without an answer
    uint8_t queued = 0;
    uint32_t generation = 0;    // changes whenever the slot changes hands
    uint32_t next = kNone;      // in its hash chain, or in the free list
    TimeNs confirmed = 0;       // when last heard of
    TimeNs fresh_until = 0;     // `mac` may be used without a second look: static, or REACHABLE and not aged
    TimeNs due = base::kNever;  // next probe or failure
    // In DELAY and PROBE: the connection whose progress would prove that the neighbour still hears us.
    uint32_t watched = kNone, watched_una = 0, watched_received = 0;
    TimeNs watched_at = 0;
    rte_mbuf* frames[kMaxQueued] = {};  // waiting; the Ethernet destination is still to be written
  };

  // `drops`: by DropReason, for frames given up.
  NeighborTable(uint32_t capacity, uint64_t seed, stats::Counter* drops);
  ~NeighborTable();  // frees waiting frames

  NeighborTable(const NeighborTable&) = delete;
  NeighborTable& operator=(const NeighborTable&) = delete;

  // The slot for (port, address), made when there is none (INCOMPLETE, its first solicitation due at once). kNone when the table
  // is full of neighbours in use.
  uint32_t find_or_create(uint16_t port, const base::IpAddress& address, TimeNs now);
  uint32_t find(uint16_t port, const base::IpAddress& address) const;
  Entry& at(uint32_t slot) { return entries_[slot]; }
  const Entry& at(uint32_t slot) const { return entries_[slot]; }

  // True when `e.mac` may be written into a frame now. Moves an aged entry on to DELAY.
  bool usable(uint32_t slot, TimeNs now) {
    Entry& e = entries_[slot];
    if (now < e.fresh_until) [[likely]]
      return true;
    return usable_slow(e, now);
  }
  // Keeps a frame until the neighbour is known. A full queue drops its oldest frame (kNeighborQueueFull).
  void enqueue(uint32_t slot, rte_mbuf* frame);

  // The neighbour has told us its address. Updates the entry if there is one, makes one when `create` and there is room. Static
  // entries do not change. Returns the slot, kNone when nothing was kept; the caller then sends the frames that waited:
  // take_frames().
  uint32_t learn(uint16_t port, const base::IpAddress& address, const io::MacAddress& mac, bool create, Evidence evidence,
                 TimeNs now);
  // An advertisement without Override names another address than we know (RFC 4861 7.2.5 I): it may have moved.
  void doubt(uint32_t slot, TimeNs now);
  // Where the byte streams of connection `id` through this neighbour stand; two calls with a difference are progress.
  void observe(uint32_t slot, uint32_t generation, uint32_t id, uint32_t una, uint32_t received, TimeNs now);
  uint32_t in_doubt() const { return in_doubt_; }  // entries in DELAY or PROBE
  // Moves the waiting frames to `out` (room for kMaxQueued); returns how many.
  uint32_t take_frames(uint32_t slot, rte_mbuf** out);
  void add_static(uint16_t port, const base::IpAddress& address, const io::MacAddress& mac, TimeNs now);

  // Solicitations due at `now`, at most out.size() of them (the rest next time); gives up on those that never answered. Returns
  // how many.
  uint32_t poll(TimeNs now, std::span<NeighborProbe> out);
  // When poll() has something to do; kNever when nothing is unresolved or probed.
  TimeNs next_deadline() const { return pending_ == 0 ? base::kNever : next_poll_; }

  uint32_t size() const { return used_; }
  uint32_t capacity() const { return capacity_; }

 private:
  bool usable_slow(Entry& e, TimeNs now);
  uint32_t bucket(uint16_t port, const base::IpAddress& a) const;
  uint32_t allocate(uint16_t port, const base::IpAddress& a, TimeNs now);
  void remove(uint32_t slot, stats::DropReason why);
  void set_state(Entry& e, NeighborState to);
  void confirm(Entry& e, TimeNs now);
  void set_pending(Entry& e, TimeNs due);
  void clear_pending(Entry& e);

  uint32_t capacity_;
  uint32_t mask_;
  uint64_t seed_;
  stats::Counter* drops_;
  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<uint32_t[]> heads_;
  uint32_t free_ = kNone;
  uint32_t used_ = 0;
  uint32_t pending_ = 0;  // entries with a due time
  uint32_t in_doubt_ = 0;
  TimeNs next_poll_ = 0;
};

}  // namespace millrace::dataplane
