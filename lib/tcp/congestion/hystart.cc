#include "lib/tcp/congestion/hystart.h"

#include <algorithm>

#include "lib/tcp/seq.h"

namespace millrace::tcp {
namespace {

// RFC 9406 4.3
constexpr uint32_t kMinRttThresh_us = 4'000, kMaxRttThresh_us = 16'000, kMinRttDivisor = 8;
constexpr uint32_t kRttSamples = 8, kCssGrowthDivisor = 4, kCssRounds = 5;

}  // namespace

uint32_t hystart_on_ack(HyStart& h, uint32_t una, uint32_t snd_nxt, uint32_t rtt_us) {
  if (!h.started || seq_ge(una, h.window_end)) {
    if (h.started && h.baseline_min_us != 0 && ++h.css_rounds >= kCssRounds) return 0;
    h.last_min_us = h.current_min_us;
    h.current_min_us = 0;
    h.samples = 0;
    h.window_end = snd_nxt;
    h.started = true;
  }
  if (rtt_us != 0) {
    h.current_min_us = h.current_min_us == 0 ? rtt_us : std::min(h.current_min_us, rtt_us);
    if (h.samples < 255) ++h.samples;
    if (h.samples >= kRttSamples) {
      if (h.baseline_min_us != 0) {
        if (h.current_min_us < h.baseline_min_us) {  // it was jitter
          h.baseline_min_us = 0;
          h.css_rounds = 0;
        }
      } else if (h.last_min_us != 0) {
        const uint32_t thresh = std::clamp(h.last_min_us / kMinRttDivisor, kMinRttThresh_us, kMaxRttThresh_us);
        if (h.current_min_us >= h.last_min_us + thresh) {
          h.baseline_min_us = h.current_min_us;
          h.css_rounds = 0;
        }
      }
    }
  }
  return h.baseline_min_us != 0 ? kCssGrowthDivisor : 1;
}

}  // namespace millrace::tcp
