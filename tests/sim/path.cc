#include "tests/sim/path.h"

namespace millrace::sim {
namespace {

bool any(const std::vector<Interval>& intervals, TimeNs t) {
  for (const Interval& i : intervals)
    if (i.holds(t)) return true;
  return false;
}

constexpr uint32_t kLinkOverhead = 20;  // bytes of a frame beyond its IP packet that the link's rate carries too

}  // namespace

Passage Path::pass(const Link& l, TimeNs t, uint32_t length, bool healed, base::Prng& random) {
  Passage p;
  if (!l.mtu.empty() && (l.icmp || !healed)) {
    uint16_t mtu = UINT16_MAX;
    for (const Link::MtuChange& change : l.mtu)
      if (t >= change.at) mtu = change.mtu;
    if (length > mtu) {
      p.fate = "too big";
      if (l.icmp) p.next_mtu = mtu;
      return p;
    }
  }
  if (!healed) {
    if (any(l.down, t)) {
      p.fate = "partition";
      return p;
    }
    if (l.burst_begin > 0) {
      bad_spell_ = bad_spell_ ? !(random.unit() < l.burst_end) : random.unit() < l.burst_begin;
      if (bad_spell_ && random.unit() < l.burst_loss) {
        p.fate = "burst";
        return p;
      }
    }
    if (l.loss > 0 && random.unit() < l.loss) {
      p.fate = "lost";
      return p;
    }
  }
  TimeNs leaves = t;
  if (l.bytes_per_second != 0) {
    const TimeNs waiting = free_at_ > t ? free_at_ - t : 0;
    const uint64_t queued = waiting * l.bytes_per_second / base::kSecond;
    if (queued + length > l.queue_bytes) {
      p.fate = "queue full";
      return p;
    }
    p.crowded = queued >= l.mark_bytes;
    leaves = t + waiting + (length + kLinkOverhead) * base::kSecond / l.bytes_per_second;
    free_at_ = leaves;
  }
  p.copies = 1;
  if (!healed) {
    if (l.duplicate > 0 && random.unit() < l.duplicate) {
      p.copies = 2;
      p.fate = "twice";
    }
    if (l.corrupt > 0 && random.unit() < l.corrupt) {
      p.corrupt = true;
      p.fate = "corrupt";
    }
    if (any(l.squeeze, t)) {
      p.squeeze = true;
      p.fate = "squeezed";
    }
  }
  for (uint32_t i = 0; i < p.copies; ++i) {
    TimeNs late = 0;
    if (!healed && l.jitter > 0) late += random.below(l.jitter);
    if (!healed && l.reorder > 0 && random.unit() < l.reorder) {
      late += random.below(l.reorder_by + 1);
      p.fate = "late";
    }
    p.at[i] = leaves + l.delay + late;
  }
  return p;
}

}  // namespace millrace::sim
