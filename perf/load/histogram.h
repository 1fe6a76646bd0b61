// Latencies of one run: a log-linear histogram as HdrHistogram's, values 1 ns to 60 s, at most 0.79 % wide buckets, recorded in
// O(1) with three additions and no branch that data decides. lib/stats has one for shared memory with 3.1 %; a bench wants to
// tell p99.9 of two systems apart, so this one has 128 buckets a power of two and lives in one thread.
//
// Bucket i < 128 holds the value i; above, each power of two is cut into 128 equal buckets, so a bucket is never wider than 1/128
// of its values. percentile() answers with the middle of the bucket in which the rank falls, so its error is below 0.4 %.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <memory>

namespace millrace::load {

class Histogram {
 public:
  static constexpr uint32_t kSubBits = 7;                         // 128 buckets a power of two
  static constexpr uint64_t kMaxValueNs = 60ull * 1'000'000'000;  // larger values are recorded as this, and counted as clipped
  static constexpr uint32_t kBuckets = (1u << kSubBits) * (1 + 36 - kSubBits);  // 2^36 ns is 68.7 s
  static_assert(kMaxValueNs < uint64_t{1} << 36);

  Histogram() : counts_(new uint64_t[kBuckets]()) {}
  Histogram(Histogram&&) = default;
  Histogram& operator=(Histogram&&) = default;

  static constexpr uint32_t bucket_of(uint64_t ns) {
    const uint32_t width = static_cast<uint32_t>(std::bit_width(ns >> kSubBits));  // 0: exact
    const uint32_t shift = width == 0 ? 0 : width - 1;
    return (width << kSubBits) + static_cast<uint32_t>((ns >> shift) & ((1u << kSubBits) - 1));
  }
  // Smallest value of a bucket, and the largest.
  static constexpr uint64_t bucket_low(uint32_t bucket) {
    const uint32_t width = bucket >> kSubBits, sub = bucket & ((1u << kSubBits) - 1);
    return width == 0 ? sub : (uint64_t{1} << kSubBits | sub) << (width - 1);
  }
  static constexpr uint64_t bucket_high(uint32_t bucket) { return bucket_low(bucket + 1) - 1; }

  void record(uint64_t ns) {
    clipped_ += ns > kMaxValueNs;
    ns = ns > kMaxValueNs ? kMaxValueNs : ns;
    ++counts_[bucket_of(ns)];
    ++count_;
    sum_ += ns;
    min_ = ns < min_ ? ns : min_;
    max_ = ns > max_ ? ns : max_;
  }
  void merge(const Histogram& other);
  void clear();

  uint64_t count() const { return count_; }
  uint64_t clipped() const { return clipped_; }            // values above kMaxValueNs
  uint64_t min() const { return count_ == 0 ? 0 : min_; }  // exact
  uint64_t max() const { return max_; }                    // exact
  double mean() const { return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_); }  // exact
  double stddev() const;  // from the buckets' middles
  // The value at or below which `percent` (0 … 100) of the recorded values lie, in ns: the middle of its bucket, within min() and
  // max(). 0 when empty.
  uint64_t percentile(double percent) const;

  // HdrHistogram's percentile text ("Value Percentile TotalCount 1/(1-Percentile)", values in microseconds), five steps for each
  // halving of the distance to 100 %: what HdrHistogram's plotter and wrk2 write. False when `out` cannot be written.
  bool write_percentiles(std::FILE* out) const;

 private:
  uint64_t middle(uint32_t bucket) const;

  std::unique_ptr<uint64_t[]> counts_;
  uint64_t count_ = 0, sum_ = 0, min_ = UINT64_MAX, max_ = 0, clipped_ = 0;
};

}  // namespace millrace::load
