#include "lib/tcp/congestion/congestion.h"

#include <algorithm>

namespace millrace::tcp {
namespace {

constexpr uint32_t kMaxCwnd = 1u << 30;  // bytes: the largest window RFC 7323 can describe
constexpr uint32_t kSlowStartLimit = 8;  // segments counted per ACK in the first slow start, unpaced (RFC 9406 4.3)
constexpr uint32_t kSlowStartLimitAfterTimeout =
    1;  // and after a timeout, when one ACK may cover what arrived long ago (RFC 3465 2.3)

void grow(Congestion& c, uint32_t bytes) { c.cwnd = std::min(c.cwnd + bytes, kMaxCwnd); }

uint32_t ssthresh_after_loss(Congestion& c, uint32_t flight, uint32_t mss) {
  switch (c.algorithm) {
    case CongestionAlgorithm::kCubic:
      return cubic_ssthresh(c.cubic, c.cwnd, flight, mss);
    case CongestionAlgorithm::kReno:
      c.reno.acked = 0;
      return reno_ssthresh(flight, mss);
  }
  return 2 * mss;
}

}  // namespace

uint32_t initial_window(uint32_t mss) { return std::min(10 * mss, std::max(2 * mss, 14600u)); }

void congestion_init(Congestion& c, CongestionAlgorithm algorithm, uint32_t mss) {
  c = Congestion();
  c.algorithm = algorithm;
  if (algorithm == CongestionAlgorithm::kReno) c.reno = RenoState();
  c.cwnd = initial_window(mss);
}

void congestion_syn_lost(Congestion& c, uint32_t mss) { c.cwnd = mss; }

void congestion_on_ack(Congestion& c, const AckSample& a) {
  if (!a.cwnd_limited) {
    if (c.algorithm == CongestionAlgorithm::kCubic) cubic_not_limited(c.cubic, a.now);
    return;
  }
  uint32_t acked = a.acked;
  if (c.cwnd < c.ssthresh) {
    const uint32_t limit = (c.after_timeout ? kSlowStartLimitAfterTimeout : kSlowStartLimit) * a.mss;
    const uint32_t room = c.ssthresh - c.cwnd;
    const uint32_t step = std::min({acked, limit, room});
    grow(c, step);
    if (step < room) return;
    c.after_timeout = false;
    acked -= std::min(acked, step);
    if (acked == 0) return;
  }
  switch (c.algorithm) {
    case CongestionAlgorithm::kCubic:
      return grow(c, cubic_increase(c.cubic, c.cwnd, acked, a.mss, a.srtt_us, a.now));
    case CongestionAlgorithm::kReno:
      return grow(c, reno_increase(c.reno, c.cwnd, acked, a.mss));
  }
}

void congestion_on_loss(Congestion& c, uint32_t flight, uint32_t mss, base::TimeNs now) {
  c.ssthresh = ssthresh_after_loss(c, flight, mss);
  c.cwnd = c.ssthresh;
  c.after_timeout = false;
}

void congestion_on_timeout(Congestion& c, uint32_t flight, uint32_t mss, bool first, base::TimeNs now) {
  if (first) c.ssthresh = ssthresh_after_loss(c, flight, mss);
  c.cwnd = mss;
  c.after_timeout = true;
}

void congestion_on_idle(Congestion& c, uint32_t mss) {
  c.cwnd = std::min(c.cwnd, initial_window(mss));
  if (c.algorithm == CongestionAlgorithm::kCubic) c.cubic.epoch_start = 0;
}

}  // namespace millrace::tcp
