// A fixed log-linear histogram in shared memory: one writer records with two or three relaxed stores, control merges and reads
// percentiles.
//
// Bucket i < 32 holds the value i; above, each power of two is cut into 32 equal buckets, so a bucket is never wider than 1/32
// (3.1 %) of its values. Values at or above 2^42 (73 minutes in nanoseconds) fall into the last bucket.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>

#include "lib/stats/counters.h"

namespace millrace::stats {

inline constexpr uint32_t kHistogramSubBits = 5;     // 32 buckets a power of two
inline constexpr uint32_t kHistogramValueBits = 42;  // values below 2^42 keep their resolution
// 32 exact buckets + one row of 32 for each of the powers 2^5 … 2^41
inline constexpr uint32_t kHistogramBuckets = (1u << kHistogramSubBits) * (1 + kHistogramValueBits - kHistogramSubBits);

constexpr uint32_t histogram_bucket(uint64_t value) {
  if (value < (1u << kHistogramSubBits)) return static_cast<uint32_t>(value);
  if (value >= uint64_t{1} << kHistogramValueBits) return kHistogramBuckets - 1;
  const uint32_t exponent = static_cast<uint32_t>(std::bit_width(value)) - 1;  // >= kHistogramSubBits
  const uint32_t row = exponent - kHistogramSubBits;                           // 0 …
  return ((row + 1) << kHistogramSubBits) + static_cast<uint32_t>((value >> row) & ((1u << kHistogramSubBits) - 1));
}
// Smallest value of a bucket, and the first value behind it.
constexpr uint64_t histogram_bucket_begin(uint32_t bucket) {
  const uint32_t row = bucket >> kHistogramSubBits, sub = bucket & ((1u << kHistogramSubBits) - 1);
  if (row == 0) return sub;
  return (uint64_t{1} << kHistogramSubBits | sub) << (row - 1);
}
constexpr uint64_t histogram_bucket_end(uint32_t bucket) { return histogram_bucket_begin(bucket + 1); }

// In shared memory; zero bytes are an empty histogram. Writer: one worker; readers: anybody.
struct Histogram {
  Counter sum;  // of all recorded values
  Counter max;
  Counter buckets[kHistogramBuckets];

  void record(uint64_t value) {
    buckets[histogram_bucket(value)].add();
    sum.add(value);
    if (value > max.read()) max.set(value);
  }
};

// A copy in ordinary memory: merged over workers, subtracted for an interval, asked for percentiles. Not for poll cores (about 10
// KB).
class HistogramSnapshot {
 public:
  void merge(const Histogram& h);
  void merge(const HistogramSnapshot& h);
  // What was recorded since `earlier` (a snapshot of the same sources). max() then is the upper end of the highest bucket in use.
  HistogramSnapshot since(const HistogramSnapshot& earlier) const;

  uint64_t count() const { return count_; }
  uint64_t sum() const { return sum_; }
  uint64_t max() const { return max_; }
  double mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }
  // The value below which `percent` (0 … 100) of the recorded values lie: the middle of the bucket in which that rank falls,
  // never above max(); 0 when empty.
  uint64_t percentile(double percent) const;
  // Values recorded that are <= `value` (exact at bucket borders; whole buckets below, none of the bucket `value` lies in unless
  // it ends it).
  uint64_t count_at_or_below(uint64_t value) const;
  uint64_t bucket(uint32_t i) const { return buckets_[i]; }

 private:
  std::array<uint64_t, kHistogramBuckets> buckets_{};
  uint64_t count_ = 0, sum_ = 0, max_ = 0;
};

}  // namespace millrace::stats
