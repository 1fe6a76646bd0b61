// One direction of the network between two hosts: what happens to a packet that is put on it. A function of (what the link is and
// does when, packet length, time, random numbers); it holds no packets.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/prng.h"
#include "lib/base/time.h"

namespace millrace::sim {

using base::TimeNs;

// Half open: from <= t < until. Times of a scenario count from its start.
struct Interval {
  TimeNs from = 0, until = 0;
  bool holds(TimeNs t) const { return t >= from && t < until; }
};

// Probabilities are 0..1, of one packet.
struct Link {
  // --- faults, which end when the network heals
  double loss = 0, duplicate = 0, corrupt = 0;
  // Losses in bursts (Gilbert 1960, Elliott 1963): a packet begins a bad spell with burst_begin, in which packets are lost with
  // burst_loss, and ends it with burst_end.
  double burst_begin = 0, burst_end = 0.25, burst_loss = 0.8;
  double reorder = 0;  // comes up to `reorder_by` later than those behind it
  TimeNs reorder_by = 0;
  TimeNs jitter = 0;              // extra delay of every packet, uniform in 0..jitter: reorders too
  std::vector<Interval> down;     // a partition: nothing gets through
  std::vector<Interval> squeeze;  // a box on the way makes the windows of passing segments as small as `squeeze_window`
  uint16_t squeeze_window = 0;    // as on the wire, unscaled

  // --- what it is
  TimeNs delay = 10 * base::kMillisecond;
  uint64_t bytes_per_second = 0;      // 0: unlimited
  uint32_t queue_bytes = UINT32_MAX;  // waiting for the link; more is dropped
  uint32_t mark_bytes = UINT32_MAX;   // waiting for the link; from here on ECN-capable packets are marked (RFC 3168)
  struct MtuChange {
    TimeNs at = 0;
    uint16_t mtu = 0;
  };
  std::vector<MtuChange> mtu;  // by time; larger packets are dropped from then on
  bool icmp = true;  // and answered (RFC 1191, RFC 8201). Without an answer the restriction is a fault and ends with them
};

struct Passage {
  const char* fate = "";  // in one or two words, for the trace; empty: nothing happened to it
  uint32_t copies = 0;    // 0: dropped
  TimeNs at[2] = {0, 0};  // when each arrives, from the start
  bool corrupt = false;   // bytes of it are changed on the way
  bool squeeze = false;   // its window is
  bool crowded = false;   // it found a queue beyond mark_bytes
  uint16_t next_mtu = 0;  // dropped as too big, and the sender is told this
};

class Path {
 public:
  // `t` from the scenario's start; `length`: bytes of the IP packet; `healed`: no faults any more.
  Passage pass(const Link& link, TimeNs t, uint32_t length, bool healed, base::Prng& random);

 private:
  TimeNs free_at_ = 0;  // the link has sent all that was given to it
  bool bad_spell_ = false;
};

}  // namespace millrace::sim
