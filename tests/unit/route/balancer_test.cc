// Who gets the next request: order, shares, states, edits.
#include "lib/route/balancer/balancer.h"

#include <cmath>
#include <cstring>
#include <map>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/table/object_writer.h"

namespace millrace::test {
namespace {

using route::balancer::Balancer;
using route::balancer::kNoEndpoint;
using table::EndpointState;
using table::LbPolicy;

// An endpoint set object from (weight, state) pairs.
class Set {
 public:
  explicit Set(std::vector<std::pair<uint32_t, EndpointState>> list) {
    table::ObjectWriter w(table::Kind::kEndpointSet, "c");
    std::vector<table::Endpoint> endpoints;
    for (const auto& [weight, state] : list) {
      table::Endpoint e{};
      e.weight = weight;
      e.state = state;
      endpoints.push_back(e);
    }
    table::EndpointSet root{};
    root.endpoints = w.array(endpoints);
    auto bytes = w.finish(root);
    EXPECT_TRUE(bytes.ok());
    words_.resize((bytes->size() + 7) / 8);
    std::memcpy(words_.data(), bytes->data(), bytes->size());
  }
  const table::EndpointSet& object() const { return *reinterpret_cast<const table::EndpointSet*>(words_.data()); }

 private:
  std::vector<uint64_t> words_;
};
Set equal(size_t n) { return Set(std::vector<std::pair<uint32_t, EndpointState>>(n, {1, EndpointState::kHealthy})); }
Set weighted(std::vector<uint32_t> weights) {
  std::vector<std::pair<uint32_t, EndpointState>> list;
  for (uint32_t w : weights) list.emplace_back(w, EndpointState::kHealthy);
  return Set(list);
}

struct Driver {
  base::Prng random{42};
  std::map<uint32_t, uint32_t> active;
  std::map<uint32_t, bool> unusable;
  Balancer balancer;
  uint32_t pick() {
    return balancer.pick([this](uint32_t e) { return active[e]; }, [this] { return random.next(); },
                         [this](uint32_t e) { return !unusable[e]; });
  }
};

TEST(RoundRobin, InTurnFromTheSeedOn) {
  Driver d;
  d.balancer.build(equal(3).object(), LbPolicy::kRoundRobin, 2, 7);
  for (uint32_t i = 0; i < 9; ++i) EXPECT_EQ(d.pick(), (7 + i) % 3);
}

TEST(RoundRobin, PositionSurvivesAnEdit) {
  Driver d;
  d.balancer.build(equal(4).object(), LbPolicy::kRoundRobin, 2, 0);
  EXPECT_EQ(d.pick(), 0u);
  EXPECT_EQ(d.pick(), 1u);
  Balancer next;
  next.build(equal(5).object(), LbPolicy::kRoundRobin, 2, 99);
  next.adopt(d.balancer);
  d.balancer = next;
  EXPECT_EQ(d.pick(), 2u);
  EXPECT_EQ(d.pick(), 3u);
  EXPECT_EQ(d.pick(), 4u);
  EXPECT_EQ(d.pick(), 0u);
}

TEST(RoundRobin, WeightsGiveExactShares) {
  for (const auto& weights :
       std::vector<std::vector<uint32_t>>{{1, 2, 3}, {1, 99}, {5, 5, 90}, {1, 1000, 1, 7}, {128, 64, 32, 16}}) {
    Driver d;
    const Set set = weighted(weights);
    d.balancer.build(set.object(), LbPolicy::kRoundRobin, 2, 3);
    uint64_t sum = 0;
    for (uint32_t w : weights) sum += w;
    std::vector<uint64_t> got(weights.size());
    for (uint64_t i = 1; i <= sum * 20; ++i) {
      const uint32_t e = d.pick();
      ASSERT_LT(e, weights.size());
      ++got[e];
      // Smooth: at no time is anybody far from its share.
      for (size_t k = 0; k < weights.size(); ++k) {
        const double want = static_cast<double>(i) * weights[k] / static_cast<double>(sum);
        ASSERT_NEAR(static_cast<double>(got[k]), want, 2.5) << "endpoint " << k << " after " << i;
      }
    }
  }
}

TEST(Balancers, DrainingAndUnhealthyGetNothing) {
  const Set set({{1, EndpointState::kHealthy},
                 {1, EndpointState::kDraining},
                 {1, EndpointState::kUnhealthy},
                 {1, EndpointState::kHealthy}});
  const Set none({{1, EndpointState::kDraining}, {1, EndpointState::kUnhealthy}});
  for (const LbPolicy policy : {LbPolicy::kRoundRobin, LbPolicy::kLeastRequest, LbPolicy::kRandom}) {
    Driver d;
    d.balancer.build(set.object(), policy, 2, 5);
    std::map<uint32_t, int> got;
    for (int i = 0; i < 200; ++i) ++got[d.pick()];
    EXPECT_EQ(got.size(), 2u);
    EXPECT_GT(got[0], 50);
    EXPECT_GT(got[3], 50);
    d.unusable[0] = true;
    for (int i = 0; i < 50; ++i) EXPECT_EQ(d.pick(), 3u);
    d.unusable[3] = true;
    EXPECT_EQ(d.pick(), kNoEndpoint);
    for (const Set* empty : {&none}) {
      d.balancer.build(empty->object(), policy, 2, 5);
      EXPECT_TRUE(d.balancer.empty());
      EXPECT_EQ(d.pick(), kNoEndpoint);
    }
    d.balancer.build(equal(0).object(), policy, 2, 5);
    EXPECT_EQ(d.pick(), kNoEndpoint);
  }
}

TEST(Balancers, WeightedAndUnusable) {
  for (const LbPolicy policy : {LbPolicy::kRoundRobin, LbPolicy::kLeastRequest}) {
    Driver d;
    d.balancer.build(weighted({1000, 1, 1}).object(), policy, 2, 5);
    d.unusable[0] = true;
    std::map<uint32_t, int> got;
    for (int i = 0; i < 100; ++i) ++got[d.pick()];
    EXPECT_EQ(got.count(0), 0u);
    EXPECT_EQ(got[1] + got[2], 100);
    EXPECT_GT(got[1], 20);
    EXPECT_GT(got[2], 20);
  }
}

TEST(Balancers, PanicUsesAll) {
  const Set set({{1, EndpointState::kHealthy}, {1, EndpointState::kUnhealthy}, {1, EndpointState::kDraining}});
  EXPECT_EQ(route::balancer::Eligible::of(set.object(), 0).index, (std::vector<uint32_t>{0}));
  EXPECT_EQ(route::balancer::Eligible::of(set.object(), 33).index, (std::vector<uint32_t>{0}));  // 33.3 % are healthy
  EXPECT_EQ(route::balancer::Eligible::of(set.object(), 50).index, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_TRUE(route::balancer::Eligible::of(set.object(), 50).panic);
}

TEST(LeastRequest, PrefersTheIdle) {
  Driver d;
  d.balancer.build(equal(10).object(), LbPolicy::kLeastRequest, 2, 1);
  // Endpoint 0 is stuck with many requests; the others finish theirs at once. It is chosen only when drawn twice: 1 in 100.
  d.active[0] = 50;
  int stuck = 0;
  for (int i = 0; i < 10'000; ++i) stuck += d.pick() == 0;
  EXPECT_GT(stuck, 50);
  EXPECT_LT(stuck, 170);
  // With all drawn, it is hardly ever chosen.
  d.balancer.build(equal(10).object(), LbPolicy::kLeastRequest, 100, 1);
  stuck = 0;
  for (int i = 0; i < 10'000; ++i) stuck += d.pick() == 0;
  EXPECT_LE(stuck, 2);
}

TEST(LeastRequest, KeepsLoadLevel) {
  Driver d;
  d.balancer.build(equal(8).object(), LbPolicy::kLeastRequest, 2, 1);
  for (int i = 0; i < 800; ++i) ++d.active[d.pick()];
  for (uint32_t e = 0; e < 8; ++e) EXPECT_NEAR(d.active[e], 100, 5);
}

TEST(LeastRequest, WeightsOverActive) {
  Driver d;
  d.balancer.build(weighted({1, 3}).object(), LbPolicy::kLeastRequest, 2, 1);
  std::map<uint32_t, int> got;
  for (int i = 0; i < 4'000; ++i) ++got[d.pick()];
  EXPECT_NEAR(got[1], 3'000, 10);  // idle: plain weights
  d.active[1] = 2;                 // 3 / (2 + 1) = 1: even
  got.clear();
  for (int i = 0; i < 4'000; ++i) ++got[d.pick()];
  EXPECT_NEAR(got[1], 2'000, 10);
}

TEST(Random, Uniform) {
  Driver d;
  d.balancer.build(weighted({1, 50, 1, 1, 1}).object(), LbPolicy::kRandom, 2, 1);
  std::map<uint32_t, int> got;
  for (int i = 0; i < 50'000; ++i) ++got[d.pick()];
  for (uint32_t e = 0; e < 5; ++e) EXPECT_NEAR(got[e], 10'000, 500);
}

}  // namespace
}  // namespace millrace::test
