// CUBIC (RFC 9438). Windows inside are in segments and times in seconds, as in the RFC's equations; cwnd outside is in bytes.
#pragma once

#include <cstdint>

#include "lib/base/time.h"
#include "lib/tcp/congestion/hystart.h"

namespace millrace::tcp {

struct CubicState {
  base::TimeNs epoch_start = 0;  // when this congestion avoidance stage began; 0: not begun
  base::TimeNs last_ack = 0;     // to take out the time in which cwnd was not tested (RFC 9438 5.8)
  float w_max = 0;               // window before the last reduction, after fast convergence
  float k = 0;                   // seconds from epoch_start until W_cubic reaches w_max
  float w_est = 0;               // what Reno would have (RFC 9438 4.3)
  float cwnd_prior = 0;          // window just before the last reduction
  float fraction = 0;            // bytes of growth not yet whole
  HyStart hystart;               // the first slow start
};

// How many bytes cwnd grows by, above ssthresh.
uint32_t cubic_increase(CubicState&, uint32_t cwnd, uint32_t acked, uint32_t mss, uint32_t srtt_us, base::TimeNs now);
// An ACK came while cwnd was not what limited us: the epoch does not go on.
void cubic_not_limited(CubicState&, base::TimeNs now);
// ssthresh after a loss with `flight` bytes in flight (RFC 9438 4.6); remembers w_max (4.7) and ends the epoch.
uint32_t cubic_ssthresh(CubicState&, uint32_t cwnd, uint32_t flight, uint32_t mss);

}  // namespace millrace::tcp
