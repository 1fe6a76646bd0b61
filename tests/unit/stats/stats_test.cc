#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/stats/counters.h"
#include "lib/stats/histogram.h"
#include "lib/stats/region.h"
#include "lib/stats/response_flag.h"

namespace millrace::stats {
namespace {

// ---- response flags ---------------------------------------------------------------------------------------------------------

std::string text(ResponseFlags f, bool of_request = false) {
  char buffer[ResponseFlags::kMaxText];
  return {buffer, f.format(buffer, sizeof buffer, of_request)};
}

TEST(ResponseFlags, EnvoysText) {
  EXPECT_EQ(text({}), "-");
  EXPECT_EQ(text(ResponseFlag::kNoHealthyUpstream), "UH");
  EXPECT_EQ(text(ResponseFlags(ResponseFlag::kUpstreamRetryLimitExceeded) | ResponseFlag::kUpstreamConnectionFailure), "UF,URX");
  EXPECT_EQ(text(ResponseFlags(ResponseFlag::kUpstreamRetryLimitExceeded) | ResponseFlag::kUpstreamConnectionFailure, true),
            "URX,UF");
  EXPECT_EQ(text(ResponseFlag::kUpstreamRetryLimitExceeded, true), "URX");
  ResponseFlags unknown;
  unknown.bits = uint64_t{1} << 63;
  EXPECT_EQ(text(unknown), "-");
  ResponseFlags all;
  all.bits = UINT64_MAX;
  const std::string every = text(all);
  EXPECT_EQ(every.substr(0, 9), "LH,UH,UT,");
  EXPECT_EQ(every.substr(every.size() - 3), ",DO");
  char small[4];
  EXPECT_EQ(all.format(small, 4), 2u) << "whole names only";
  EXPECT_EQ(ResponseFlags().format(small, 0), 0u);
}

TEST(ResponseFlags, EachHasItsOwnNames) {
  std::set<std::string> shorts, longs;
  for (uint32_t i = 0; i < kResponseFlagCount; ++i) {
    const auto f = static_cast<ResponseFlag>(i);
    shorts.insert(info(f).short_name);
    longs.insert(info(f).long_name);
    EXPECT_EQ(response_flag_of(info(f).short_name), f);
  }
  EXPECT_EQ(shorts.size(), kResponseFlagCount);
  EXPECT_EQ(longs.size(), kResponseFlagCount);
  EXPECT_EQ(response_flag_of("XX"), std::nullopt);
  EXPECT_STREQ(info(static_cast<ResponseFlag>(200)).short_name, "-");
}

// ---- counters -----------------------------------------------------------------------------------------------------------------

template <class Enum>
void check_list(const char* what) {
  const auto list = infos<Enum>();
  EXPECT_EQ(list.size(), kCountOf<Enum>) << what;
  std::set<std::string> names;
  for (const CounterInfo& c : list) {
    EXPECT_TRUE(names.insert(c.name).second) << what << " has " << c.name << " twice";
    for (const char* p = c.name; *p != 0; ++p)
      EXPECT_TRUE((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '_' || *p == '.' || *p == '-') << c.name;
    EXPECT_GT(std::strlen(c.text), 3u) << c.name;
  }
}

TEST(Counters, NamesAreUniqueAndPlain) {
  check_list<LoopCounter>("loop");
  check_list<PortCounter>("port");
  check_list<TcpCounter>("tcp");
  check_list<TlsCounter>("tls");
  check_list<HttpCounter>("http");
  check_list<LoaderCounter>("loader");
  check_list<ListenerCounter>("listener");
  check_list<HcmCounter>("hcm");
  check_list<VirtualHostCounter>("virtual host");
  check_list<ClusterCounter>("cluster");
  check_list<Pool>("pool");
  check_list<WorkerHistogram>("histogram");
  check_list<Stage>("stage");
  EXPECT_STREQ(info(ClusterCounter::kRqTotal).name, "upstream_rq_total");
  EXPECT_EQ(info(ClusterCounter::kRqActive).type, CounterType::kGauge);
}

TEST(Counters, AddSubSet) {
  CounterBlock<TcpCounter> block;
  block[TcpCounter::kActive].add();
  block[TcpCounter::kActive].add(4);
  block[TcpCounter::kActive].sub(2);
  EXPECT_EQ(block[TcpCounter::kActive].read(), 3u);
  block[TcpCounter::kActive].set(9);
  EXPECT_EQ(block[TcpCounter::kActive].read(), 9u);
  EXPECT_EQ(block[TcpCounter::kOpened].read(), 0u);
}

// ---- histogram ----------------------------------------------------------------------------------------------------------------

TEST(Histogram, BucketsTileTheNumbers) {
  EXPECT_EQ(histogram_bucket(0), 0u);
  uint64_t expected = 0;
  for (uint32_t b = 0; b < kHistogramBuckets; ++b) {
    const uint64_t begin = histogram_bucket_begin(b), end = histogram_bucket_end(b);
    ASSERT_EQ(begin, expected) << "bucket " << b << " does not begin where the last one ended";
    ASSERT_GT(end, begin);
    ASSERT_EQ(histogram_bucket(begin), b);
    ASSERT_EQ(histogram_bucket(end - 1), b);
    ASSERT_TRUE(begin < 32 || (end - begin) * 32 <= begin) << "wider than 1/32 of its values";
    expected = end;
  }
  EXPECT_EQ(expected, uint64_t{1} << kHistogramValueBits);
  EXPECT_EQ(histogram_bucket(UINT64_MAX), kHistogramBuckets - 1);
}

TEST(Histogram, PercentilesAgainstSortedValues) {
  base::Prng random(7);
  auto h = std::make_unique<Histogram>();
  std::vector<uint64_t> values;
  for (int i = 0; i < 50'000; ++i) {
    const uint64_t v = random.next() >> (22 + random.below(40));
    values.push_back(v);
    h->record(v);
  }
  std::sort(values.begin(), values.end());
  auto s = std::make_unique<HistogramSnapshot>();
  s->merge(*h);
  EXPECT_EQ(s->count(), values.size());
  EXPECT_EQ(s->max(), values.back());
  for (const double p : {0.0, 1.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const size_t rank = std::max<size_t>(1, static_cast<size_t>(std::ceil(p / 100 * static_cast<double>(values.size()))));
    const double exact = static_cast<double>(values[rank - 1]), got = static_cast<double>(s->percentile(p));
    EXPECT_NEAR(got, exact, exact / 32 + 1) << p;
  }
}

TEST(Histogram, MergeAndSince) {
  auto a = std::make_unique<Histogram>(), b = std::make_unique<Histogram>();
  for (uint64_t i = 1; i <= 100; ++i) {
    a->record(i);
    b->record(i * 1000);
  }
  auto earlier = std::make_unique<HistogramSnapshot>(), later = std::make_unique<HistogramSnapshot>();
  earlier->merge(*a);
  later->merge(*a);
  later->merge(*b);
  EXPECT_EQ(later->count(), 200u);
  EXPECT_EQ(later->sum(), 5050u + 5050u * 1000);
  EXPECT_EQ(later->count_at_or_below(31), 31u);
  EXPECT_EQ(later->count_at_or_below(UINT64_MAX), 200u);
  const auto since = std::make_unique<HistogramSnapshot>(later->since(*earlier));
  EXPECT_EQ(since->count(), 100u);
  EXPECT_EQ(since->sum(), 5'050'000u);
  EXPECT_NEAR(static_cast<double>(since->percentile(50)), 50'000, 50'000 / 32.0);
  EXPECT_EQ(HistogramSnapshot().percentile(50), 0u);
  EXPECT_EQ(earlier->since(*later).count(), 100u) << "a restarted source counts as new";
}

// ---- region -------------------------------------------------------------------------------------------------------------------

struct TestRegion {
  explicit TestRegion(uint32_t workers = 2, uint32_t scopes = kMinScopes) {
    config.workers = workers;
    config.scopes = scopes;
    config.incarnation = 42;
    config.port_names = {"ingress", "egress"};
    config.version = "1.2.3";
    size = region_size(config);
    memory = static_cast<uint8_t*>(std::aligned_alloc(4096, (size + 4095) / 4096 * 4096));
    std::memset(memory, 0, size);
    auto made = Region::create({memory, size}, config);
    EXPECT_TRUE(made.ok()) << made.error();
    region = std::make_unique<Region>(*made);
  }
  ~TestRegion() { std::free(memory); }
  RegionView view() const {
    auto v = RegionView::attach({memory, size});
    EXPECT_TRUE(v.ok()) << v.error();
    return *v;
  }
  RegionConfig config;
  size_t size;
  uint8_t* memory;
  std::unique_ptr<Region> region;
};

TEST(Region, WhatWorkersWriteControlReads) {
  TestRegion t;
  WorkerStats w0 = t.region->worker_stats(0), w1 = t.region->worker_stats(1);
  w0->drop(DropReason::kTcpPaws);
  w1->drop(DropReason::kTcpPaws, 5);
  w0->flag(ResponseFlag::kNoRouteFound);
  w1->flag(ResponseFlags(ResponseFlag::kNoRouteFound) | ResponseFlag::kUpstreamOverflow);
  w1->ports[1][PortCounter::kRxBytes].add(1500);
  w0->pool(Pool::kPackets).capacity.set(100);
  w0->histogram(WorkerHistogram::kRequestTime).record(1000);
  w1->histogram(WorkerHistogram::kRequestTime).record(3000);
  w0->seen_epoch.store(7, std::memory_order_release);
  const RegionView v = t.view();
  EXPECT_EQ(v.workers(), 2u);
  EXPECT_EQ(v.port_name(1), "egress");
  EXPECT_EQ(v.port_name(2), "");
  EXPECT_STREQ(v.header().version, "1.2.3");
  EXPECT_EQ(v.header().incarnation, 42u);
  EXPECT_EQ(v.drops(DropReason::kTcpPaws), 6u);
  EXPECT_EQ(v.drops(DropReason::kTcpMemory), 0u);
  EXPECT_EQ(v.response_flags(ResponseFlag::kNoRouteFound), 2u);
  EXPECT_EQ(v.response_flags(ResponseFlag::kUpstreamOverflow), 1u);
  EXPECT_EQ(v.worker(1).ports[1][PortCounter::kRxBytes].read(), 1500u);
  EXPECT_EQ(v.worker(0).pools[static_cast<size_t>(Pool::kPackets)].capacity.read(), 100u);
  EXPECT_EQ(v.histogram(WorkerHistogram::kRequestTime).count(), 2u);
  EXPECT_EQ(v.min_seen_epoch(), 0u);
  w1->seen_epoch.store(9, std::memory_order_release);
  EXPECT_EQ(v.min_seen_epoch(), 7u);
}

TEST(Region, NoTwoWritersShareACacheLine) {
  TestRegion t(3);
  const auto line = [](const void* p) { return reinterpret_cast<uintptr_t>(p) / 64; };
  for (uint32_t w = 0; w + 1 < 3; ++w) {
    EXPECT_LT(line(reinterpret_cast<const uint8_t*>(&t.region->worker(w)) + sizeof(WorkerBlock) - 1),
              line(&t.region->worker(w + 1)));
    EXPECT_LT(line(reinterpret_cast<const uint8_t*>(t.region->scope_blocks(w) + t.region->scopes()) - 1),
              line(t.region->scope_blocks(w + 1)));
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(&t.region->worker(1)) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(t.region->scope_blocks(1)) % 64, 0u);
  EXPECT_EQ(offsetof(RegionHeader, loader) % 64, 0u);
}

TEST(Region, ConfigurationLimits) {
  std::vector<uint8_t> memory(64);
  const auto error = [&](auto change) {
    RegionConfig c;
    c.incarnation = 1;
    change(c);
    auto r = Region::create({memory.data(), 0}, c);
    return r.ok() ? std::string("ok") : r.error();
  };
  EXPECT_EQ(error([](auto& c) { c.workers = 0; }), "statistics region: 1 to 64 workers");
  EXPECT_EQ(error([](auto& c) { c.workers = 65; }), "statistics region: 1 to 64 workers");
  EXPECT_EQ(error([](auto& c) { c.scopes = 1; }), "statistics region: 64 to 4194304 scopes");
  EXPECT_EQ(error([](auto& c) { c.port_names.resize(17); }), "statistics region: at most 16 ports");
  EXPECT_EQ(error([](auto& c) { c.incarnation = 0; }), "statistics region: incarnation 0");
  EXPECT_EQ(error([](auto&) {}).substr(0, 25), "statistics region: needs ");
}

TEST(Region, AttachRefusesWhatIsNotOne) {
  struct Case {
    const char* what;
    void (*change)(RegionHeader&);
  };
  const Case cases[] = {
      {"magic", [](RegionHeader& h) { h.magic = 0; }},
      {"version", [](RegionHeader& h) { h.layout_version++; }},
      {"another list of counters", [](RegionHeader& h) { h.layout_hash++; }},
      {"workers", [](RegionHeader& h) { h.workers = 65; }},
      {"more workers than fit", [](RegionHeader& h) { h.workers = 60; }},
      {"scopes", [](RegionHeader& h) { h.scopes = 1u << 30; }},
      {"more scopes than fit", [](RegionHeader& h) { h.scopes = 1u << 20; }},
      {"ports", [](RegionHeader& h) { h.ports = 17; }},
      {"workers offset", [](RegionHeader& h) { h.workers_offset += 4096; }},
      {"stride", [](RegionHeader& h) { h.worker_stride = 0; }},
      {"scopes offset", [](RegionHeader& h) { h.scopes_offset = ~uint64_t{0}; }},
      {"blocks offset", [](RegionHeader& h) { h.blocks_offset -= 4096; }},
  };
  for (const Case& c : cases) {
    TestRegion t;
    c.change(t.region->header());
    EXPECT_FALSE(RegionView::attach({t.memory, t.size}).ok()) << c.what;
  }
  TestRegion t;
  EXPECT_FALSE(RegionView::attach({t.memory, t.size - 1}).ok());
  EXPECT_FALSE(RegionView::attach({t.memory, 100}).ok());
  EXPECT_FALSE(RegionView::attach({}).ok());
}

TEST(Scopes, NamesAreCopiedCutAndMarked) {
  TestRegion t;
  ScopeDirectory d(*t.region);
  const ScopeSlot a = d.acquire(ScopeKind::kCluster, 1, "cluster-a");
  const ScopeSlot long_name = d.acquire(ScopeKind::kVirtualHost, 2, std::string(200, 'x'));
  const ScopeSlot endpoint = d.acquire(ScopeKind::kEndpoint, 3, "10.0.0.1:80", a);
  EXPECT_EQ(d.acquire(ScopeKind::kCluster, 1, "cluster-a"), a);
  EXPECT_NE(d.acquire(ScopeKind::kListener, 1, "same key, other kind"), a);
  const RegionView v = t.view();
  EXPECT_EQ(v.scope(a)->name, "cluster-a");
  EXPECT_EQ(v.scope(a)->kind, ScopeKind::kCluster);
  EXPECT_EQ(v.scope(long_name)->name, std::string(kMaxScopeName, 'x'));
  EXPECT_TRUE(v.scope(long_name)->truncated);
  EXPECT_FALSE(v.scope(a)->truncated);
  EXPECT_EQ(v.scope(endpoint)->parent, a);
  EXPECT_EQ(v.scope(kOverflowScope)->name, "overflow");
  EXPECT_EQ(v.scope(60), std::nullopt);
  EXPECT_EQ(v.scope(1'000'000), std::nullopt);
  EXPECT_EQ(v.all_scopes().size(), 4u);
  EXPECT_EQ(scope_counters(ScopeKind::kEndpoint).size(), kCountOf<ClusterCounter>);
  EXPECT_TRUE(scope_counters(ScopeKind::kOverflow).empty());
}

TEST(Scopes, LifeOfASlot) {
  using base::kSecond;
  TestRegion t;
  ScopeDirectory d(*t.region, kSecond);
  const ScopeSlot a = d.acquire(ScopeKind::kCluster, 1, "a");
  WorkerStats w = t.region->worker_stats(1);
  w.scope(a)[ClusterCounter::kRqTotal].add(5);
  w.scope(a)[ClusterCounter::kCxActive].add();
  const RegionView v = t.view();
  d.release(a, 10 * kSecond);
  EXPECT_EQ(v.scope(a)->state, ScopeState::kLingering);
  d.sweep(20 * kSecond, 10 * kSecond);
  EXPECT_EQ(v.scope(a)->state, ScopeState::kLingering) << "not released before `safe_before`";
  // In use: never freed, however long.
  for (uint64_t s = 20; s < 100; ++s) d.sweep(s * kSecond, base::kNever);
  EXPECT_EQ(v.scope(a)->state, ScopeState::kLingering);
  // Comes back and is released again: one entry counts, the newer.
  EXPECT_EQ(d.acquire(ScopeKind::kCluster, 1, "a"), a);
  EXPECT_EQ(v.scope(a)->state, ScopeState::kLive);
  EXPECT_EQ(v.sum(a, ClusterCounter::kRqTotal), 5u) << "counters go on";
  d.release(a, 100 * kSecond);
  w.scope(a)[ClusterCounter::kCxActive].sub();
  d.sweep(101 * kSecond, base::kNever);  // quiet once
  EXPECT_TRUE(v.scope(a).has_value());
  d.sweep(101 * kSecond + 1, base::kNever);
  EXPECT_TRUE(v.scope(a).has_value()) << "too soon for the second look";
  d.sweep(103 * kSecond, base::kNever);
  EXPECT_EQ(v.scope(a), std::nullopt);
  EXPECT_EQ(d.in_use(), 0u);
  const ScopeSlot b = d.acquire(ScopeKind::kListener, 2, "b");
  EXPECT_EQ(b, a) << "the slot is used again";
  EXPECT_EQ(v.scope(b)->generation, 1u);
  EXPECT_EQ(v.sum(b, ListenerCounter::kCxTotal), 0u);
  EXPECT_EQ(v.scope_sum(b, 16), 0u);
  d.release(kOverflowScope, 0);
  d.release(5000, 0);
}

TEST(Scopes, AFullDirectoryOverflowsIntoSlotZero) {
  TestRegion t;
  ScopeDirectory d(*t.region);
  for (uint64_t k = 1; k < kMinScopes; ++k) EXPECT_NE(d.acquire(ScopeKind::kCluster, k, "x"), kOverflowScope);
  EXPECT_EQ(d.acquire(ScopeKind::kCluster, 1000, "x"), kOverflowScope);
  EXPECT_EQ(d.overflowed(), 1u);
  WorkerStats w = t.region->worker_stats(0);
  EXPECT_EQ(&w.scope(99999), &w.scope(kOverflowScope)) << "a slot number out of range counts there too";
}

// A reader while the loader writes: a copy is of one moment or none. Runs under TSan too.
TEST(Scopes, ReadersSeeWholeEntries) {
  TestRegion t;
  ScopeDirectory d(*t.region, 0);
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    const RegionView v = t.view();
    uint64_t seen = 0;
    while (!stop.load(std::memory_order_relaxed)) {
      for (ScopeSlot s = 1; s < 8; ++s) {
        const auto e = v.scope(s);
        if (!e) continue;
        ++seen;
        // Key k has the name of k times its last digit's letter.
        ASSERT_EQ(e->name, std::string(static_cast<size_t>(e->key % 100) + 1, static_cast<char>('a' + e->key % 26))) << e->key;
      }
    }
    (void)seen;
  });
  base::TimeNs now = 0;
  for (uint64_t k = 1; k < 20'000; ++k) {
    const ScopeSlot s = d.acquire(ScopeKind::kCluster, k, std::string(k % 100 + 1, static_cast<char>('a' + k % 26)));
    d.release(s, now);
    for (int i = 0; i < 3; ++i) d.sweep(now += 10, base::kNever);
  }
  stop = true;
  reader.join();
}

}  // namespace
}  // namespace millrace::stats
