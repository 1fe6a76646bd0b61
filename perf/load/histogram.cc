#include "perf/load/histogram.h"

#include <algorithm>
#include <cmath>

namespace millrace::load {
namespace {

// HdrHistogram's percentileTicksPerHalfDistance; its plotter and wrk2 use 5, too.
constexpr double kTicksPerHalf = 5;
constexpr double kUsPerNs = 1e-3;

}  // namespace

void Histogram::merge(const Histogram& other) {
  for (uint32_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
  clipped_ += other.clipped_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

void Histogram::clear() {
  std::fill_n(counts_.get(), kBuckets, 0);
  count_ = sum_ = max_ = clipped_ = 0;
  min_ = UINT64_MAX;
}

uint64_t Histogram::middle(uint32_t bucket) const {
  const uint64_t low = bucket_low(bucket);
  return std::clamp(low + (bucket_high(bucket) - low) / 2, min_, max_);
}

double Histogram::stddev() const {
  if (count_ == 0) return 0;
  double squares = 0;
  for (uint32_t i = 0; i < kBuckets; ++i) {
    if (counts_[i] == 0) continue;
    const double d = static_cast<double>(middle(i)) - mean();
    squares += d * d * static_cast<double>(counts_[i]);
  }
  return std::sqrt(squares / static_cast<double>(count_));
}

uint64_t Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  // Without the grain of sand 99.9 % of 1000 values would be 1000 of them: 0.999 * 1000 is a little above 999 in doubles.
  const double exact = std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(count_);
  const auto rank = std::clamp<uint64_t>(static_cast<uint64_t>(std::ceil(exact - 1e-6)), 1, count_);
  if (rank == count_) return max_;
  uint64_t seen = 0;
  for (uint32_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= rank) return middle(i);
  }
  return max_;
}

bool Histogram::write_percentiles(std::FILE* out) const {
  std::fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
  // Each line: the lowest value with at least `next` of all values at or below it, where `next` walks towards 1 in steps that
  // halve whenever half of the way that was left is done.
  uint64_t seen = 0;
  double next = 0;
  for (uint32_t i = 0; i < kBuckets && seen < count_; ++i) {
    if (counts_[i] == 0) continue;
    seen += counts_[i];
    const double share = static_cast<double>(seen) / static_cast<double>(count_);
    const double value_us = static_cast<double>(std::min(bucket_high(i), max_)) * kUsPerNs;
    while (seen < count_ && next <= share) {
      std::fprintf(out, "%12.3f %14.12f %10llu %14.2f\n", value_us, next, static_cast<unsigned long long>(seen), 1 / (1 - next));
      const double halvings = std::floor(std::log2(1 / (1 - next))) + 1;
      next += 1 / (kTicksPerHalf * std::exp2(halvings));
    }
  }
  if (count_ != 0) {
    std::fprintf(out, "%12.3f %14.12f %10llu %14s\n", static_cast<double>(max_) * kUsPerNs, 1.0,
                 static_cast<unsigned long long>(count_), "inf");
  }
  std::fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", mean() * kUsPerNs, stddev() * kUsPerNs);
  std::fprintf(out, "#[Max     = %12.3f, Total count    = %12llu]\n", static_cast<double>(max_) * kUsPerNs,
               static_cast<unsigned long long>(count_));
  std::fprintf(out, "#[Buckets = %12u, SubBuckets     = %12u]\n", kBuckets >> kSubBits, 1u << kSubBits);
  return std::fflush(out) == 0 && std::ferror(out) == 0;
}

}  // namespace millrace::load
