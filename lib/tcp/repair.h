// What a connection needs only after something was lost or came out of order, and gives back when all is well again: the sender's
// SACK scoreboard, the receiver's reassembly, the window growth of congestion avoidance. Lent from a pool that the connections of
// one worker share, so that an idle connection, and one that never lost anything, costs none of it.
//
//   borrowed  an out-of-order segment, a SACK block, a duplicate to report, an ACK that grows cwnd above ssthresh
//   returned  as soon as nothing of it is in use; what congestion avoidance and the search for a larger segment remember goes
//   with the first idle RTO, when RFC 5681
//             4.1 forgets it anyway (ssthresh stays in the TCB)
//   empty     the connection does without, and is still right: out-of-order data is dropped (tcp_reassembly_full) and repeated by
//             the peer, SACK blocks are ignored and losses found by duplicate ACKs (RFC 5681, 6582), cwnd grows as Reno's, and no
//             duplicate is reported (RFC 2883 is optional). Each refusal is counted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "lib/base/pool.h"
#include "lib/tcp/congestion/congestion.h"
#include "lib/tcp/prr.h"
#include "lib/tcp/rack.h"
#include "lib/tcp/reassembly.h"
#include "lib/tcp/recovery.h"

namespace millrace::tcp {

using base::TimeNs;

// How things stood before cwnd was reduced, for when the peer shows that there was no need to (RFC 4015).
struct Undo {
  Congestion before;
  Growth growth;
  uint32_t repeated = 0;     // bytes sent again since, and not reported as duplicates yet
  uint32_t repeated_us = 0;  // when the first of them was
  bool valid = false;
};

// Forward RTO recovery (RFC 5682 3.1): what the ACKs after a retransmission timeout are asked.
enum class Frto : uint8_t {
  kOff,
  kFirst,   // the first segment was repeated: does its ACK move snd_una?
  kSecond,  // it did, and new data went out: does the next one deliver what was sent once, before the timeout?
};

// The way back up after a black hole made segments smaller (RFC 4821 7.3): larger ones are tried with data that follows, one at a
// time. Sizes are Tcb::snd_mss.
struct PathSearch {
  uint16_t most = 0;             // before the first black hole; 0: nothing to search
  uint16_t failed = 0;           // the smallest that is known not to get through; above `most`: none
  uint16_t size = 0;             // of the probe that is out; 0: none
  bool repeating = false;        // the probe alone was lost, and goes again in segments that fit
  uint32_t left = 0, right = 0;  // its sequence numbers
  TimeNs again_at = 0;           // no probe before
};

struct Repair {
  Reassembly reassembly;
  Scoreboard scoreboard;
  Rack rack;
  Prr prr;
  Growth growth;
  Undo undo;
  BbrState bbr;                      // while the sender is BBR
  TimeNs reorder_at = base::kNever;  // RACK looks again (RFC 8985 6.2 step 5)
  TimeNs pace_at = base::kNever;     // something waits for its time to be sent
  uint32_t probe_end = 0;            // snd_max behind the tail loss probe (TLP.end_seq)
  bool probing = false;              // it has not been answered
  bool probe_repeats = false;        // it carried old data (TLP.is_retrans)
  Frto frto = Frto::kOff;
  PathSearch path;
  uint32_t reordering_events = 0;  // duplicates that the peer reported (RFC 2883)
};
static_assert(sizeof(Repair) <= 880, "memory per connection in trouble: update the sum in README.md");

// What happened to all that ever borrowed: for statistics, which know the kernel's name of each (lib/stats/kernel_counters.def).
struct RecoveryCounts {
  uint64_t reno_recoveries = 0;       // fast recoveries without a scoreboard (RFC 6582)
  uint64_t loss_probes = 0;           // tail loss probes sent (RFC 8985 7.3)
  uint64_t probes_repaired = 0;       // that repaired a loss nobody else saw (7.4)
  uint64_t duplicates_below = 0;      // D-SACKs received, of what was acknowledged (RFC 2883 4.1.1)
  uint64_t duplicates_above = 0;      // and of what was not (4.1.2)
  uint64_t reported_below = 0;        // D-SACKs noted for the peer, of what it sent again below our ACK
  uint64_t reported_above = 0;        // and above it
  uint64_t spurious_timeouts = 0;     // found by F-RTO (RFC 5682)
  uint64_t undone_by_duplicates = 0;  // reductions taken back: every repetition was reported as a duplicate (RFC 3708)
  uint64_t undone_by_echoes = 0;      // taken back: a timestamp from before the repetition came back (RFC 3522), in fast recovery
  uint64_t undone_timeouts = 0;       // the same, after a timeout
  uint64_t reorderings = 0;           // ACKs that delivered what had been overtaken (RFC 8985 6.2 step 3)
  uint64_t lost_again = 0;            // repetitions that were lost, each time some were found
  uint64_t reneged = 0;               // peers that dropped what they had reported (RFC 2018 8)
  uint64_t larger_segments = 0;       // probes of the path's MTU that got through (RFC 4821)
  uint64_t larger_lost = 0;           // and that did not
  uint64_t delay_exits = 0;           // first slow starts that ended because round trips grew (RFC 9406)
};

// Not thread-safe; outlives every TCB that borrows from it.
class RepairPool {
 public:
  explicit RepairPool(uint32_t capacity) : annexes_(std::max(kFewestAnnexes, capacity / 64)), pool_(capacity) {}

  RecoveryCounts& counts() { return counts_; }
  const RecoveryCounts& counts() const { return counts_; }

  Repair* take() {  // fresh; null when all are lent
    Repair* r = pool_.alloc();
    if (r == nullptr) ++refused_;
    else r->scoreboard.set_annexes(&annexes_);
    return r;
  }
  void give(Repair* r) {
    std::destroy_at(r);
    std::construct_at(r);
    pool_.free(r);
  }
  uint32_t in_use() const { return pool_.in_use(); }
  uint32_t capacity() const { return pool_.capacity(); }
  uint64_t refused() const { return refused_; }

 private:
  static constexpr uint32_t kFewestAnnexes = 16;
  Scoreboard::Annexes annexes_;  // before what borrows from it
  base::Pool<Repair> pool_;
  uint64_t refused_ = 0;
  RecoveryCounts counts_;
};

}  // namespace millrace::tcp
