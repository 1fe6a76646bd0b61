// What a connection needs only after something was lost or came out of order, and gives back when all is well again: the sender's
// SACK scoreboard, the receiver's reassembly, the window growth of congestion avoidance. Lent from a pool that the connections of
// one worker share, so that an idle connection, and one that never lost anything, costs none of it.
//
//   borrowed  an out-of-order segment, a SACK block, a duplicate to report, an ACK that grows cwnd above ssthresh
//   returned  as soon as nothing of it is in use; what congestion avoidance remembers goes with the first idle RTO, when RFC 5681
//             4.1 forgets it anyway (ssthresh stays in the TCB)
//   empty     the connection does without, and is still right: out-of-order data is dropped (tcp_reassembly_full) and repeated by
//             the peer, SACK blocks are ignored and losses found by duplicate ACKs (RFC 5681, 6582), cwnd grows as Reno's, and no
//             duplicate is reported (RFC 2883 is optional). Each refusal is counted.
#pragma once

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
  uint32_t reordering_events = 0;  // duplicates that the peer reported (RFC 2883)
};
static_assert(sizeof(Repair) <= 808, "memory per connection in trouble: update the sum in README.md");

// Not thread-safe; outlives every TCB that borrows from it.
class RepairPool {
 public:
  explicit RepairPool(uint32_t capacity) : pool_(capacity) {}

  Repair* take() {  // fresh; null when all are lent
    Repair* r = pool_.alloc();
    if (r == nullptr) ++refused_;
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
  base::Pool<Repair> pool_;
  uint64_t refused_ = 0;
};

}  // namespace millrace::tcp
