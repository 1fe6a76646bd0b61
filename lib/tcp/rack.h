// RACK (RFC 8985 6): time decides what is lost. A segment that was sent before another one that has been delivered is lost once a
// reordering window has passed too; that covers retransmissions, which counting duplicates cannot. The scoreboard knows when what
// was sent; this remembers the newest delivery, and how much reordering the path shows.
#pragma once

#include <cstdint>

#include "lib/tcp/recovery.h"

namespace millrace::tcp {

struct Rack {
  uint32_t sent_us = 0, end_seq = 0;  // of what was delivered, the segment sent last (RACK.xmit_ts, RACK.end_seq)
  uint32_t rtt_us = 0;                // its round trip
  uint32_t min_rtt_us = 0;            // smallest exact one since this memory was borrowed; 0: none
  uint32_t highest = 0;               // right end of the highest segment delivered (RACK.fack)
  uint32_t dsack_round = 0;           // snd_max when the window was widened last
  uint8_t steps = 1;                  // of the window (RACK.reo_wnd_mult)
  uint8_t persist = 16;               // recoveries without a D-SACK until it is one again (RACK.reo_wnd_persist)
  bool valid = false;                 // sent_us and what follows mean something
  bool in_dsack_round = false;
};

// What one ACK delivered.
struct Delivery {
  static constexpr uint32_t kNoEcho = UINT32_MAX;
  uint32_t now_us = 0;
  uint32_t echo_age_us = kNoEcho;  // how long ago the timestamp was sent that the ACK echoes; milliseconds' precision
  bool exact = true;               // no report has cut ranges: their times are good for measuring
  uint32_t recover = 0;            // what was sent before the recovery in force, if any
  // filled:
  uint32_t bytes = 0;      // for the first time
  uint32_t rtt_us = 0;     // exact round trip of the newest segment that was sent once; 0: none
  uint32_t newest = 0;     // sent_us of that
  bool original = false;   // some of it, below `recover`, was sent only once
  bool reordered = false;  // some of it was sent once and lies below what was delivered by earlier ACKs
};

// RFC 8985 6.2 steps 1 to 3, for each range delivered.
void rack_delivered(Rack&, Delivery&, const Scoreboard::Range&);
// After all ranges of an ACK: RACK.fack.
void rack_highest(Rack&, uint32_t seq);
// Step 4: microseconds. `certain`: in a recovery, or kDupThresh segments reported, and no reordering was ever seen: no window.
uint32_t rack_window(const Rack&, bool reordering_seen, bool certain, uint32_t srtt_us);
// A D-SACK came: the window was too small (once a round trip).
void rack_dsack(Rack&, uint32_t una, uint32_t max);
// A recovery is over.
void rack_recovered(Rack&);
// Step 5: marks what is lost now. Returns how many bytes; `wait_us`: look again then, 0 when nothing is undecided.
uint32_t rack_detect(Scoreboard&, const Rack&, uint32_t window_us, uint32_t now_us, uint32_t& wait_us);

}  // namespace millrace::tcp
