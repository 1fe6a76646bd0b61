#include "lib/stats/histogram.h"

#include <algorithm>
#include <cmath>

namespace millrace::stats {

void HistogramSnapshot::merge(const Histogram& h) {
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
    const uint64_t n = h.buckets[i].read();
    buckets_[i] += n;
    count_ += n;
  }
  sum_ += h.sum.read();
  max_ = std::max(max_, h.max.read());
}

void HistogramSnapshot::merge(const HistogramSnapshot& h) {
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) buckets_[i] += h.buckets_[i];
  count_ += h.count_;
  sum_ += h.sum_;
  max_ = std::max(max_, h.max_);
}

HistogramSnapshot HistogramSnapshot::since(const HistogramSnapshot& earlier) const {
  HistogramSnapshot d;
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
    // The source was replaced by a younger one (data plane restarted): all of it is new.
    if (buckets_[i] < earlier.buckets_[i]) return *this;
    d.buckets_[i] = buckets_[i] - earlier.buckets_[i];
    d.count_ += d.buckets_[i];
    if (d.buckets_[i] != 0) d.max_ = histogram_bucket_end(i) - 1;
  }
  d.sum_ = sum_ >= earlier.sum_ ? sum_ - earlier.sum_ : 0;
  d.max_ = std::min(d.max_, max_);
  return d;
}

uint64_t HistogramSnapshot::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double wanted = std::clamp(percent, 0.0, 100.0) / 100.0 * static_cast<double>(count_);
  const uint64_t rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(wanted)));
  uint64_t seen = 0;
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
    seen += buckets_[i];
    if (seen < rank) continue;
    if (i == kHistogramBuckets - 1) return max_;  // an open bucket: its middle means nothing
    const uint64_t begin = histogram_bucket_begin(i), end = histogram_bucket_end(i);
    return std::min(begin + (end - 1 - begin) / 2, max_);
  }
  return max_;
}

uint64_t HistogramSnapshot::count_at_or_below(uint64_t value) const {
  uint64_t n = 0;
  for (uint32_t i = 0; i < kHistogramBuckets; ++i) {
    const uint64_t last = i == kHistogramBuckets - 1 ? UINT64_MAX : histogram_bucket_end(i) - 1;
    if (last > value) break;
    n += buckets_[i];
  }
  return n;
}

}  // namespace millrace::stats
