// The neighbour table of one worker: which MAC address an IP address on a port has (ARP, RFC 826; ND, RFC 4861 7.3). A pure state
// machine: it is told what was seen and what time it is, and says which solicitations are due; frames are made by ip_layer.
//
//              learn()                 30 s unused or used            3 unicast probes unanswered
//  INCOMPLETE ─────────▶ REACHABLE ───────────────────────▶ STALE ─use─▶ PROBE ────────────────────▶ gone
//      │ 3 requests, 1 s apart, unanswered                    ▲             │ learn()
//      ▼                                                      └─ REACHABLE ◀┘
//     gone: waiting frames dropped (kNeighborUnreachable); TCP repeats them and resolution starts again
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

enum class NeighborState : uint8_t { kFree, kIncomplete, kReachable, kStale, kProbe, kStatic };
const char* to_string(NeighborState s);

// A solicitation that is due.
struct NeighborProbe {
  uint16_t port = 0;
  bool unicast = false;  // to `mac` (a probe of a known neighbour), else broadcast or solicited-node multicast
  io::MacAddress mac{};
  base::IpAddress address;
};

class NeighborTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kMaxQueued = 3;                // frames waiting for one unresolved neighbour; the oldest gives way
  static constexpr uint32_t kMaxProbes = 3;                // MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT (RFC 4861 10)
  static constexpr TimeNs kProbeInterval = base::kSecond;  // RETRANS_TIMER
  static constexpr TimeNs kReachableTime = 30 * base::kSecond;  // REACHABLE_TIME
  static constexpr TimeNs kTick = 100 * base::kMillisecond;     // how exactly the two are kept

  struct Entry {
    base::IpAddress address;
    io::MacAddress mac{};
    uint16_t port = 0;
    NeighborState state = NeighborState::kFree;
    uint8_t probes = 0;  // sent without an answer
    uint8_t queued = 0;
    uint32_t generation = 0;            // changes whenever the slot changes hands
    uint32_t next = kNone;              // in its hash chain, or in the free list
    TimeNs confirmed = 0;               // when last learned
    TimeNs fresh_until = 0;             // `mac` may be used without a second look: static, or REACHABLE and not aged
    TimeNs due = base::kNever;          // next probe or failure
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

  // True when `e.mac` may be written into a frame now. Moves an aged entry on to STALE/PROBE (a probe becomes due).
  bool usable(uint32_t slot, TimeNs now) {
    Entry& e = entries_[slot];
    if (now < e.fresh_until) [[likely]]
      return true;
    return usable_slow(e, now);
  }
  // Keeps a frame until the neighbour is known. A full queue drops its oldest frame (kNeighborQueueFull).
  void enqueue(uint32_t slot, rte_mbuf* frame);

  // The neighbour has told us its address (reply, advertisement, or a request/solicitation that names it). Updates the entry if
  // there is one, makes one when `create` and there is room. Static entries do not change. Returns the slot, kNone when nothing
  // was kept; the caller then sends the frames that waited: take_frames().
  uint32_t learn(uint16_t port, const base::IpAddress& address, const io::MacAddress& mac, bool create, TimeNs now);
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
  TimeNs next_poll_ = 0;
};

}  // namespace millrace::dataplane
