#include "lib/tcp/congestion/reno.h"

#include <algorithm>

namespace millrace::tcp {

uint32_t reno_increase(RenoState& s, uint32_t cwnd, uint32_t acked, uint32_t mss) {
  s.acked += std::min(acked, cwnd);
  if (s.acked < cwnd) return 0;
  s.acked -= cwnd;
  return mss;
}

uint32_t reno_ssthresh(uint32_t flight, uint32_t mss) { return std::max(flight / 2, 2 * mss); }

}  // namespace millrace::tcp
