// HyStart++ (RFC 9406): leaves the first slow start when the round trips grow, before a queue overflows.
#pragma once

#include <cstdint>

namespace millrace::tcp {

struct HyStart {
  // Below this many segments a round has too few samples for anything to be seen.
  static constexpr uint32_t kMinWindow = 16;
  // Below this smoothed round trip nothing is watched: a queue worth leaving slow start for (4 ms) lifts it above. Watching costs
  // a Repair and the predicted path, which the connections of a data centre need for their throughput.
  static constexpr uint32_t kMinRoundTrip_us = 1'000;

  uint32_t window_end = 0;       // the round ends when this is acknowledged
  uint32_t last_min_us = 0;      // smallest round trip of the last round; 0: none
  uint32_t current_min_us = 0;   // of this one
  uint32_t baseline_min_us = 0;  // when conservative slow start began; 0: it has not
  uint8_t samples = 0;           // of this round
  uint8_t css_rounds = 0;
  bool started = false;
};

// An ACK in the first slow start. `rtt_us`: exact, 0 when it measured nothing. Returns by how much growth is divided: 1, 4
// (conservative slow start), or 0: slow start is over.
uint32_t hystart_on_ack(HyStart&, uint32_t una, uint32_t snd_nxt, uint32_t rtt_us);

}  // namespace millrace::tcp
