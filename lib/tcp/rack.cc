#include "lib/tcp/rack.h"

#include <algorithm>

namespace millrace::tcp {
namespace {

constexpr uint32_t kEchoPrecision_us = 1000;  // timestamps count milliseconds
constexpr uint8_t kPersist = 16, kMaxSteps = 255;

bool sent_after(uint32_t a_us, uint32_t a_end, uint32_t b_us, uint32_t b_end) {
  const int32_t d = sent_since(a_us, b_us);
  return d > 0 || (d == 0 && seq_gt(a_end, b_end));
}

}  // namespace

void rack_delivered(Rack& r, Delivery& d, const Scoreboard::Range& range) {
  d.bytes += range.bytes();
  const uint32_t rtt = static_cast<uint32_t>(std::max(sent_since(d.now_us, range.sent_us), 0));
  if (range.repeated()) {
    // Which copy is it that the peer has? Not the last one if it echoes an older timestamp, or came too soon.
    if (d.echo_age_us != Delivery::kNoEcho ? d.echo_age_us > rtt + kEchoPrecision_us : rtt < r.min_rtt_us) return;
  } else {
    if (seq_lt(range.left, d.recover)) d.original = true;
    if (seq_lt(range.right, r.highest)) d.reordered = true;
    if (range.whole && d.exact && (d.rtt_us == 0 || sent_since(range.sent_us, d.newest) >= 0)) {
      d.rtt_us = std::max(rtt, 1u);
      d.newest = range.sent_us;
      r.min_rtt_us = r.min_rtt_us == 0 ? d.rtt_us : std::min(r.min_rtt_us, d.rtt_us);
    }
  }
  if (r.valid && !sent_after(range.sent_us, range.right, r.sent_us, r.end_seq)) return;
  r.valid = true;
  r.sent_us = range.sent_us;
  r.end_seq = range.right;
  r.rtt_us = rtt;
}

void rack_highest(Rack& r, uint32_t seq) {
  if (seq_gt(seq, r.highest)) r.highest = seq;
}

uint32_t rack_window(const Rack& r, bool reordering_seen, bool certain, uint32_t srtt_us) {
  if (!reordering_seen && certain) return 0;
  const uint32_t rtt = r.min_rtt_us != 0 ? r.min_rtt_us : srtt_us;
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{r.steps} * rtt / 4, srtt_us));
}

void rack_dsack(Rack& r, uint32_t una, uint32_t max) {
  if (r.in_dsack_round && seq_lt(una, r.dsack_round)) return;
  r.in_dsack_round = true;
  r.dsack_round = max;
  if (r.steps < kMaxSteps) ++r.steps;
  r.persist = kPersist;
}

void rack_recovered(Rack& r) {
  if (r.persist > 0 && --r.persist == 0) {
    r.steps = 1;
    r.persist = kPersist;
  }
}

uint32_t rack_detect(Scoreboard& board, const Rack& r, uint32_t window_us, uint32_t now_us, uint32_t& wait_us) {
  wait_us = 0;
  if (!r.valid) return 0;
  return board.lose([&](const Scoreboard::Range& range) {
    if (!sent_after(r.sent_us, r.end_seq, range.sent_us, range.right)) return false;
    if (range.repeated() && sent_since(r.sent_us, range.sent_us) == 0) return false;  // its order says nothing
    const int64_t left = int64_t{r.rtt_us} + window_us - sent_since(now_us, range.sent_us);
    if (left <= 0) return true;
    wait_us = std::max(wait_us, static_cast<uint32_t>(left));
    return false;
  });
}

}  // namespace millrace::tcp
