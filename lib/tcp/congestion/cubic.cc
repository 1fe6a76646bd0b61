#include "lib/tcp/congestion/cubic.h"

#include <algorithm>
#include <cmath>

namespace millrace::tcp {
namespace {

constexpr float kC = 0.4f;                                        // RFC 9438 5: aggressiveness, segments / s^3
constexpr float kBeta = 0.7f;                                     // RFC 9438 4.6: multiplicative decrease
constexpr float kAlpha = 3.0f * (1.0f - kBeta) / (1.0f + kBeta);  // RFC 9438 4.3: Reno-friendly additive increase

float seconds(base::TimeNs t) { return static_cast<float>(t) * 1e-9f; }

void begin_epoch(CubicState& s, float cwnd, base::TimeNs now) {
  s.epoch_start = now;
  s.last_ack = now;
  s.w_est = cwnd;
  s.fraction = 0;
  if (cwnd < s.w_max) {
    s.k = std::cbrt((s.w_max - cwnd) / kC);  // RFC 9438 4.2, with cwnd_epoch for W_max * beta
  } else {
    s.k = 0;
    s.w_max = cwnd;
  }
}

}  // namespace

uint32_t cubic_increase(CubicState& s, uint32_t cwnd_bytes, uint32_t acked, uint32_t mss, uint32_t srtt_us, base::TimeNs now) {
  const float cwnd = static_cast<float>(cwnd_bytes) / static_cast<float>(mss);
  const float acked_segments = static_cast<float>(acked) / static_cast<float>(mss);
  if (s.epoch_start == 0) begin_epoch(s, cwnd, now);
  s.last_ack = now;

  const float t = seconds(now - s.epoch_start);
  const auto w_cubic = [&s](float at) { return kC * (at - s.k) * (at - s.k) * (at - s.k) + s.w_max; };

  // RFC 9438 4.3: what Reno would have by now; once it passed the old window it grows at Reno's own pace.
  s.w_est += (s.w_est >= s.cwnd_prior ? 1.0f : kAlpha) * acked_segments / cwnd;

  float grow;  // in bytes
  if (w_cubic(t) < s.w_est) {
    grow = (s.w_est - cwnd) * static_cast<float>(mss);
  } else {
    // RFC 9438 4.4 and 4.5: the target one RTT from now, never above 1.5 cwnd.
    const float target = std::clamp(w_cubic(t + static_cast<float>(srtt_us) * 1e-6f), cwnd, 1.5f * cwnd);
    grow = (target - cwnd) / cwnd * static_cast<float>(acked);
  }
  s.fraction += std::max(grow, 0.0f);
  const float whole = std::min(std::floor(s.fraction), static_cast<float>(cwnd_bytes));
  s.fraction -= whole;
  return static_cast<uint32_t>(whole);
}

void cubic_not_limited(CubicState& s, base::TimeNs now) {
  if (s.epoch_start == 0) return;
  s.epoch_start += now - s.last_ack;
  s.last_ack = now;
}

uint32_t cubic_ssthresh(CubicState& s, uint32_t cwnd_bytes, uint32_t flight, uint32_t mss) {
  const float cwnd = static_cast<float>(cwnd_bytes) / static_cast<float>(mss);
  s.cwnd_prior = cwnd;
  s.w_max = cwnd < s.w_max ? cwnd * (1.0f + kBeta) / 2.0f : cwnd;  // RFC 9438 4.7: fast convergence
  s.epoch_start = 0;
  return std::max(static_cast<uint32_t>(static_cast<float>(flight) * kBeta), 2 * mss);
}

}  // namespace millrace::tcp
