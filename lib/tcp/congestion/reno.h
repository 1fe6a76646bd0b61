// Reno's congestion avoidance (RFC 5681 3.1), counted in bytes (RFC 3465): one segment more per window acknowledged.
#pragma once

#include <cstdint>

namespace millrace::tcp {

struct RenoState {
  uint32_t acked = 0;  // bytes acknowledged towards the next segment
};

// How many bytes cwnd grows by, above ssthresh.
uint32_t reno_increase(RenoState&, uint32_t cwnd, uint32_t acked, uint32_t mss);
// ssthresh after a loss with `flight` bytes in flight (RFC 5681 equation 4).
uint32_t reno_ssthresh(uint32_t flight, uint32_t mss);

}  // namespace millrace::tcp
