#include "lib/tcp/congestion/congestion.h"

#include <algorithm>

namespace millrace::tcp {
namespace {

constexpr uint32_t kMaxCwnd = 1u << 30;  // bytes: the largest window RFC 7323 can describe
constexpr uint32_t kSlowStartLimit = 8;  // segments counted per ACK in the first slow start, unpaced (RFC 9406 4.3)
constexpr uint32_t kSlowStartLimitAfterTimeout =
    1;  // and after a timeout, when one ACK may cover what arrived long ago (RFC 3465 2.3)

void grow(Congestion& c, uint32_t bytes) { c.cwnd = std::min(c.cwnd + bytes, kMaxCwnd); }

uint32_t ssthresh_after_loss(const Congestion& c, CongestionAlgorithm algorithm, Growth* g, uint32_t flight, uint32_t mss) {
  switch (algorithm) {
    case CongestionAlgorithm::kCubic: {
      CubicState none;
      return cubic_ssthresh(g != nullptr ? g->cubic : none, c.cwnd, flight, mss);
    }
    case CongestionAlgorithm::kBbr:
    case CongestionAlgorithm::kReno:
      if (g != nullptr) g->reno.acked = 0;
      return reno_ssthresh(flight, mss);
  }
  return 2 * mss;
}

void set_ssthresh(Congestion& c, uint32_t bytes) {
  c.ssthresh = std::min(bytes, Congestion::kNoThreshold) & Congestion::kNoThreshold;
}

}  // namespace

uint32_t initial_window(uint32_t mss) { return std::min(10 * mss, std::max(2 * mss, 14600u)); }

void congestion_init(Congestion& c, uint32_t mss) {
  c = Congestion();
  c.cwnd = initial_window(mss);
}

void congestion_syn_lost(Congestion& c, uint32_t mss) { c.cwnd = mss; }

void congestion_on_ack(Congestion& c, CongestionAlgorithm algorithm, Growth* g, const AckSample& a) {
  if (!a.cwnd_limited) {
    if (g != nullptr && algorithm == CongestionAlgorithm::kCubic) cubic_not_limited(g->cubic, a.now);
    return;
  }
  uint32_t acked = a.acked;
  if (c.cwnd < c.ssthresh) {
    const uint32_t limit = (c.after_timeout ? kSlowStartLimitAfterTimeout : kSlowStartLimit) * a.mss;
    const uint32_t room = c.ssthresh - c.cwnd;
    uint32_t step = std::min({acked, limit, room});
    if (g != nullptr && algorithm == CongestionAlgorithm::kCubic && c.ssthresh == Congestion::kNoThreshold) {
      const uint32_t divisor = hystart_on_ack(g->cubic.hystart, a.snd_una, a.snd_nxt, a.rtt_us);
      if (divisor == 0) return set_ssthresh(c, c.cwnd);  // RFC 9406 4.2: congestion avoidance from here
      step /= divisor;
    }
    grow(c, step);
    if (step < room) return;
    c.after_timeout = 0;
    acked -= std::min(acked, step);
    if (acked == 0) return;
  }
  if (g == nullptr)  // RFC 5681 3.1 equation 3, at least a byte
    return grow(c, std::max<uint32_t>(1, static_cast<uint32_t>(uint64_t{a.mss} * std::min(acked, c.cwnd) / c.cwnd)));
  switch (algorithm) {
    case CongestionAlgorithm::kCubic:
      return grow(c, cubic_increase(g->cubic, c.cwnd, acked, a.mss, a.srtt_us, a.now));
    case CongestionAlgorithm::kBbr:
    case CongestionAlgorithm::kReno:
      return grow(c, reno_increase(g->reno, c.cwnd, acked, a.mss));
  }
}

void congestion_on_loss(Congestion& c, CongestionAlgorithm algorithm, Growth* g, uint32_t flight, uint32_t mss) {
  set_ssthresh(c, ssthresh_after_loss(c, algorithm, g, flight, mss));
  c.cwnd = c.ssthresh;
  c.after_timeout = 0;
}

void congestion_on_timeout(Congestion& c, CongestionAlgorithm algorithm, Growth* g, uint32_t flight, uint32_t mss, bool first) {
  if (first) set_ssthresh(c, ssthresh_after_loss(c, algorithm, g, flight, mss));
  c.cwnd = mss;
  c.after_timeout = 1;
}

void congestion_on_idle(Congestion& c, CongestionAlgorithm algorithm, Growth* g, uint32_t mss) {
  c.cwnd = std::min(c.cwnd, initial_window(mss));
  if (g != nullptr && algorithm == CongestionAlgorithm::kCubic) g->cubic.epoch_start = 0;
}

}  // namespace millrace::tcp
