// The generator's histogram against a sorted vector, its edges, and the text HdrHistogram's tools read.
#include "perf/load/histogram.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::load {
namespace {

constexpr double kMaxRelativeError = 0.004;  // half a bucket of 1/128

// Every bucket begins where the one before ends, holds its own ends, and is no wider than 1/128 of its values.
TEST(LoadHistogram, BucketsTileTheLine) {
  EXPECT_EQ(Histogram::bucket_low(0), 0u);
  for (uint32_t i = 0; i < Histogram::kBuckets; ++i) {
    const uint64_t low = Histogram::bucket_low(i), high = Histogram::bucket_high(i);
    ASSERT_EQ(Histogram::bucket_of(low), i);
    ASSERT_EQ(Histogram::bucket_of(high), i);
    ASSERT_EQ(high + 1, Histogram::bucket_low(i + 1));
    if (low >= 128) {
      ASSERT_LE((high - low + 1) * 128, low) << i;
    } else {
      ASSERT_EQ(low, high);
    }
  }
  EXPECT_LT(Histogram::bucket_of(Histogram::kMaxValueNs), Histogram::kBuckets);
}

TEST(LoadHistogram, EmptyIsZero) {
  const Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.min(), 0u);
  EXPECT_EQ(h.max(), 0u);
  EXPECT_EQ(h.mean(), 0);
  EXPECT_EQ(h.stddev(), 0);
  EXPECT_EQ(h.percentile(50), 0u);
  EXPECT_EQ(h.percentile(100), 0u);
}

TEST(LoadHistogram, OneValueIsEveryPercentile) {
  Histogram h;
  h.record(123'456);
  for (double p : {0.0, 1.0, 50.0, 99.999, 100.0}) EXPECT_EQ(h.percentile(p), 123'456u) << p;
  EXPECT_EQ(h.min(), 123'456u);
  EXPECT_EQ(h.max(), 123'456u);
  EXPECT_DOUBLE_EQ(h.mean(), 123'456.0);
}

TEST(LoadHistogram, MoreThanAMinuteIsClippedAndCounted) {
  Histogram h;
  h.record(Histogram::kMaxValueNs);
  EXPECT_EQ(h.clipped(), 0u);
  h.record(Histogram::kMaxValueNs + 1);
  h.record(UINT64_MAX);
  EXPECT_EQ(h.clipped(), 2u);
  EXPECT_EQ(h.count(), 3u);
  EXPECT_EQ(h.max(), Histogram::kMaxValueNs);
  EXPECT_EQ(h.percentile(50), Histogram::kMaxValueNs);
}

std::vector<uint64_t> draw(uint64_t seed, const std::string& law, size_t n) {
  base::Prng random(seed);
  std::vector<uint64_t> v(n);
  for (uint64_t& x : v) {
    if (law == "small") x = random.below(300);
    if (law == "uniform") x = random.below(5'000'000);
    if (law == "exponential") x = static_cast<uint64_t>(-std::log(1 - random.unit()) * 80'000);
    if (law == "two humps") x = random.chance(99, 100) ? random.between(20'000, 30'000) : random.between(30'000'000, 50'000'000);
    if (law == "powers") x = uint64_t{1} << random.below(35);
  }
  return v;
}

TEST(LoadHistogram, PercentilesOfASortedVector) {
  const uint64_t seed = std::getenv("MILLRACE_SEED") != nullptr ? std::strtoull(std::getenv("MILLRACE_SEED"), nullptr, 0) : 20;
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed));
  for (const char* law : {"small", "uniform", "exponential", "two humps", "powers"}) {
    for (const size_t n : {size_t{2}, size_t{99}, size_t{1000}, size_t{100'000}}) {
      SCOPED_TRACE(std::string(law) + ", " + std::to_string(n) + " values");
      std::vector<uint64_t> v = draw(seed + n, law, n);
      Histogram h, half[2];
      double sum = 0;
      for (size_t i = 0; i < n; ++i) {
        h.record(v[i]);
        half[i % 2].record(v[i]);
        sum += static_cast<double>(v[i]);
      }
      std::sort(v.begin(), v.end());
      EXPECT_EQ(h.min(), v.front());
      EXPECT_EQ(h.max(), v.back());
      EXPECT_NEAR(h.mean(), sum / static_cast<double>(n), 1e-6 * h.mean() + 1e-9);
      half[0].merge(half[1]);
      for (double p : {0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0}) {
        const size_t rank = std::max<size_t>(1, (static_cast<size_t>(std::lround(p * 100)) * n + 9'999) / 10'000);
        const auto want = static_cast<double>(v[rank - 1]);
        EXPECT_NEAR(static_cast<double>(h.percentile(p)), want, want * kMaxRelativeError) << p;
        EXPECT_EQ(half[0].percentile(p), h.percentile(p)) << "merged, " << p;
      }
      double squares = 0;
      for (uint64_t x : v) squares += (static_cast<double>(x) - h.mean()) * (static_cast<double>(x) - h.mean());
      EXPECT_NEAR(h.stddev(), std::sqrt(squares / static_cast<double>(n)), 0.01 * h.stddev() + 1e-9);
      EXPECT_EQ(half[0].count(), n);
      EXPECT_EQ(half[0].min(), v.front());
      EXPECT_EQ(half[0].max(), v.back());
    }
  }
}

TEST(LoadHistogram, ClearedIsEmpty) {
  Histogram h;
  h.record(1'000'000);
  h.record(UINT64_MAX);
  h.clear();
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.clipped(), 0u);
  EXPECT_EQ(h.max(), 0u);
  h.record(5);
  EXPECT_EQ(h.percentile(100), 5u);
  EXPECT_EQ(h.min(), 5u);
}

std::string percentile_text(const Histogram& h) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  EXPECT_TRUE(h.write_percentiles(out));
  std::fclose(out);
  std::string s(text, size);
  std::free(text);
  return s;
}

// The form that HdrHistogram's plotter reads: a head, lines of four columns, and the summary.
TEST(LoadHistogram, PercentileText) {
  Histogram h;
  for (uint64_t i = 1; i <= 1000; ++i) h.record(i * 1000);  // 1 … 1000 µs
  std::istringstream in(percentile_text(h));
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "       Value     Percentile TotalCount 1/(1-Percentile)");
  std::getline(in, line);
  EXPECT_EQ(line, "");
  double last_value = 0, last_share = -1;
  uint64_t last_count = 0;
  int lines = 0;
  bool ended = false;
  while (std::getline(in, line) && line[0] != '#') {
    EXPECT_FALSE(ended) << line;
    ++lines;
    std::istringstream columns(line);
    double value = 0, share = 0;
    uint64_t count = 0;
    std::string inverse;
    columns >> value >> share >> count >> inverse;
    ASSERT_FALSE(columns.fail()) << line;
    EXPECT_GE(value, last_value);
    EXPECT_GT(share, last_share);
    EXPECT_GE(count, last_count);
    EXPECT_GE(static_cast<double>(count), share * 1000 - 1e-6) << line;  // so many values are at or below
    EXPECT_NEAR(value, static_cast<double>(count), 0.01 * value + 1) << line;
    if (inverse == "inf") {
      ended = true;
      EXPECT_EQ(share, 1);
      EXPECT_EQ(count, 1000u);
      EXPECT_EQ(value, 1000);
    } else {
      EXPECT_NEAR(std::strtod(inverse.c_str(), nullptr), 1 / (1 - share), 0.01);
    }
    last_value = value, last_share = share, last_count = count;
  }
  EXPECT_TRUE(ended);
  EXPECT_GT(lines, 30);
  EXPECT_LT(lines, 80);
  EXPECT_EQ(line,
            "#[Mean    =      500.500, StdDeviation   =      288.674]");  // exactly 288.675; the deviation is taken from buckets
  std::getline(in, line);
  EXPECT_EQ(line, "#[Max     =     1000.000, Total count    =         1000]");
  std::getline(in, line);
  EXPECT_EQ(line, "#[Buckets =           30, SubBuckets     =          128]");
  EXPECT_FALSE(std::getline(in, line));
}

TEST(LoadHistogram, PercentileTextOfNothing) {
  const std::string s = percentile_text(Histogram());
  EXPECT_NE(s.find("Total count    =            0"), std::string::npos);
  EXPECT_EQ(s.find("inf"), std::string::npos);
}

TEST(LoadHistogram, AFullDiskIsSaid) {
  Histogram h;
  h.record(1);
  std::FILE* out = std::fopen("/dev/full", "w");
  ASSERT_NE(out, nullptr);
  EXPECT_FALSE(h.write_percentiles(out));
  std::fclose(out);
}

}  // namespace
}  // namespace millrace::load
