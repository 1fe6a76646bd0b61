// Who gets the next request: order, shares, states, edits.
#include "lib/route/balancer/balancer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/table/object_writer.h"

namespace millrace::test {
namespace {

using route::balancer::Balancer;
using route::balancer::Health;
using route::balancer::kNoEndpoint;
using route::balancer::PlanOptions;
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
  std::vector<std::unique_ptr<Set>> kept;
  const table::EndpointSet* set = nullptr;
  route::balancer::PickContext context;
  uint32_t panics = 0;
  Balancer balancer;
  uint32_t pick() {
    const bool any = std::any_of(unusable.begin(), unusable.end(), [](const auto& u) { return u.second; });
    const auto health = [this](uint32_t e) {
      return unusable[e] ? Health::kUnhealthy : route::balancer::configured_health(set->endpoints.at(set, e));
    };
    if (balancer.stale(any)) balancer.recount(any, health);
    return balancer.pick([this] { return context; }, [this](uint32_t e) { return active[e]; }, [this] { return random.next(); },
                         health, [this] { ++panics; });
  }
  void build(Set s, LbPolicy policy, uint32_t choice_count, uint64_t seed) {
    PlanOptions o;
    o.policy = policy;
    o.choice_count = choice_count;
    build(std::move(s), o, seed);
  }
  void build(Set s, const PlanOptions& o, uint64_t seed = 1) {
    kept.push_back(std::make_unique<Set>(std::move(s)));
    set = &kept.back()->object();
    balancer.build(route::balancer::Plan::make(*set, o), seed);
  }
};

TEST(RoundRobin, InTurnFromTheSeedOn) {
  Driver d;
  d.build(equal(3), LbPolicy::kRoundRobin, 2, 7);
  for (uint32_t i = 0; i < 9; ++i) EXPECT_EQ(d.pick(), (7 + i) % 3);
}

TEST(RoundRobin, PositionSurvivesAnEdit) {
  Driver d;
  d.build(equal(4), LbPolicy::kRoundRobin, 2, 0);
  EXPECT_EQ(d.pick(), 0u);
  EXPECT_EQ(d.pick(), 1u);
  const uint64_t position = d.balancer.position();
  d.build(equal(5), LbPolicy::kRoundRobin, 2, 99);
  d.balancer.set_position(position);
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
    d.build(set, LbPolicy::kRoundRobin, 2, 3);
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
    d.build(set, policy, 2, 5);
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
      d.build(*empty, policy, 2, 5);
      d.unusable.clear();
      EXPECT_EQ(d.pick(), kNoEndpoint);
    }
    d.build(equal(0), policy, 2, 5);
    EXPECT_EQ(d.pick(), kNoEndpoint);
  }
}

TEST(Balancers, WeightedAndUnusable) {
  for (const LbPolicy policy : {LbPolicy::kRoundRobin, LbPolicy::kLeastRequest}) {
    Driver d;
    d.build(weighted({1000, 1, 1}), policy, 2, 5);
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
  for (const auto& [threshold, all] : std::vector<std::pair<uint32_t, bool>>{{0, false}, {33, false}, {34, true}, {50, true}}) {
    PlanOptions o;
    o.panic_threshold = threshold;  // 33.3 % are healthy
    Driver d;
    d.build(set, o);
    std::map<uint32_t, int> got;
    for (int i = 0; i < 300; ++i) ++got[d.pick()];
    EXPECT_EQ(got.size(), all ? 3u : 1u) << threshold;
    EXPECT_EQ(d.panics, all ? 300u : 0u) << threshold;
    o.fail_on_panic = true;
    d.build(set, o);
    EXPECT_EQ(d.pick(), all ? kNoEndpoint : 0u) << threshold;
  }
}

TEST(LeastRequest, PrefersTheIdle) {
  Driver d;
  d.build(equal(10), LbPolicy::kLeastRequest, 2, 1);
  // Endpoint 0 is stuck with many requests; the others finish theirs at once. It is chosen only when drawn twice: 1 in 100.
  d.active[0] = 50;
  int stuck = 0;
  for (int i = 0; i < 10'000; ++i) stuck += d.pick() == 0;
  EXPECT_GT(stuck, 50);
  EXPECT_LT(stuck, 170);
  // With all drawn, it is hardly ever chosen.
  d.build(equal(10), LbPolicy::kLeastRequest, 100, 1);
  stuck = 0;
  for (int i = 0; i < 10'000; ++i) stuck += d.pick() == 0;
  EXPECT_LE(stuck, 2);
}

TEST(LeastRequest, KeepsLoadLevel) {
  Driver d;
  d.build(equal(8), LbPolicy::kLeastRequest, 2, 1);
  for (int i = 0; i < 800; ++i) ++d.active[d.pick()];
  for (uint32_t e = 0; e < 8; ++e) EXPECT_NEAR(d.active[e], 100, 5);
}

TEST(LeastRequest, WeightsOverActive) {
  Driver d;
  d.build(weighted({1, 3}), LbPolicy::kLeastRequest, 2, 1);
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
  d.build(weighted({1, 50, 1, 1, 1}), LbPolicy::kRandom, 2, 1);
  std::map<uint32_t, int> got;
  for (int i = 0; i < 50'000; ++i) ++got[d.pick()];
  for (uint32_t e = 0; e < 5; ++e) EXPECT_NEAR(got[e], 10'000, 500);
}

}  // namespace
}  // namespace millrace::test
