// Balancing by hashes and over priorities: hashes against published values, tables, shares over 100,000 picks, Envoy's documented
// examples of load between priorities.
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/base/xxhash64.h"
#include "lib/route/balancer/balancer.h"
#include "lib/route/request_hash.h"
#include "lib/table/object_writer.h"
#include "lib/table/validate.h"

namespace millrace::test {
namespace {

using namespace route::balancer;
using table::EndpointState;
using table::LbPolicy;

constexpr EndpointState kUp = EndpointState::kHealthy, kDown = EndpointState::kUnhealthy, kHalf = EndpointState::kDegraded;

struct One {
  uint32_t weight = 1;
  uint32_t locality = 0;
  EndpointState state = kUp;
};
// An endpoint set that the data plane would take, and a balancer over it.
class Rig {
 public:
  Rig(const std::vector<One>& list, const PlanOptions& options, std::vector<table::Locality> localities = {}, uint64_t seed = 11)
      : random_(seed) {
    table::ObjectWriter w(table::Kind::kEndpointSet, "c");
    table::EndpointSet root{};
    std::vector<table::Endpoint> endpoints;
    for (const One& one : list) {
      table::Endpoint e{};
      e.address = base::IpAddress::v4(0x0a000001 + static_cast<uint32_t>(endpoints.size()));
      e.port = 80;
      e.weight = one.weight;
      e.state = one.state;
      e.locality = one.locality;
      if (one.state == kUp) {
        ++root.healthy;
        root.total_weight += one.weight;
      }
      endpoints.push_back(e);
    }
    root.endpoints = w.array(endpoints);
    root.localities = w.array(localities);
    const auto bytes = w.finish(root);
    EXPECT_TRUE(bytes.ok());
    words_.resize((bytes->size() + 7) / 8);
    std::memcpy(words_.data(), bytes->data(), bytes->size());
    const auto good = table::validate_object({reinterpret_cast<const uint8_t*>(words_.data()), bytes->size()});
    EXPECT_TRUE(good.ok()) << good.error();
    live.resize(list.size());
    active.resize(list.size());
    for (size_t i = 0; i < list.size(); ++i) live[i] = configured_health(endpoints[i]);
    plan = Plan::make(set(), options);
    balancer.build(plan, seed);
  }
  const table::EndpointSet& set() const { return *reinterpret_cast<const table::EndpointSet*>(words_.data()); }
  uint32_t pick(PickContext context = {}) {
    context.total_active = static_cast<uint32_t>(std::accumulate(active.begin(), active.end(), uint64_t{0}));
    return balancer.pick([&] { return context; }, [&](uint32_t e) { return active[e]; }, [&] { return random_.next(); },
                         [&](uint32_t e) { return live[e]; }, [&] { ++panics; });
  }
  uint32_t pick_hash(uint64_t hash, uint32_t attempt = 0) {
    PickContext c;
    c.hash = hash;
    c.has_hash = true;
    c.attempt = attempt;
    return pick(c);
  }
  void changed(uint32_t most = Balancer::kRecountSlice) {
    balancer.recount(
        ++generation, [&](uint32_t e) { return live[e]; }, most);
  }
  std::vector<double> shares(uint32_t picks = 100'000) {
    std::vector<double> got(live.size());
    for (uint32_t i = 0; i < picks; ++i)
      if (const uint32_t e = pick(); e != kNoEndpoint) got[e] += 1.0 / picks;
    return got;
  }

  std::vector<Health> live;
  std::vector<uint32_t> active;
  std::shared_ptr<const Plan> plan;
  Balancer balancer;
  uint32_t panics = 0;
  uint64_t generation = 0;

 private:
  std::vector<uint64_t> words_;
  base::Prng random_;
};

PlanOptions options(LbPolicy policy, uint32_t panic = 50) {
  PlanOptions o;
  o.policy = policy;
  o.panic_threshold = panic;
  return o;
}
std::vector<One> of_locality(uint32_t locality, uint32_t up, uint32_t half = 0, uint32_t down = 0) {
  std::vector<One> out(up, {1, locality, kUp});
  out.insert(out.end(), half, {1, locality, kHalf});
  out.insert(out.end(), down, {1, locality, kDown});
  return out;
}
std::vector<One> operator+(std::vector<One> a, const std::vector<One>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
// Five standard deviations of a share that is found in `n` draws.
double bound(double share, double n = 100'000) { return 5 * std::sqrt(share * (1 - share) / n) + 1e-9; }

// ---- hashes ------------------------------------------------------------------------------------------------------------------

TEST(XxHash64, PublishedValues) {
  EXPECT_EQ(base::xxhash64(""), 0xef46db3751d8e999u);
  EXPECT_EQ(base::xxhash64("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(base::xxhash64("Nobody inspects the spammish repetition"), 0xfbcea83c8a378bf1u);
  // Every way through the tail, by the library of the algorithm's author, seed 1: bytes i * 37.
  std::string text;
  for (int i = 0; i < 101; ++i) text += static_cast<char>(i * 37);
  for (const auto& [size, hash] : std::vector<std::pair<size_t, uint64_t>>{{1, 0x771917c7f6ee2451},
                                                                           {4, 0x65eaf7b8003cad65},
                                                                           {14, 0xb1e15f38d62687e1},
                                                                           {32, 0xa25d9bc128dea9bf},
                                                                           {33, 0x78481049d5bcb04b},
                                                                           {63, 0xd55765e075e3d71e},
                                                                           {100, 0x627057c9432c40c3}})
    EXPECT_EQ(base::xxhash64(std::string_view(text).substr(0, size), 1), hash) << size;
}

#ifdef __GLIBCXX__
TEST(MurmurHash2, IsTheStandardLibrarys) {
  std::string text;
  for (int i = 0; i < 100; ++i, text += static_cast<char>('A' + i * 7))
    EXPECT_EQ(base::murmurhash2(text), std::hash<std::string>()(text)) << i;
}
#endif

// ---- what of a request is hashed ---------------------------------------------------------------------------------------------

TEST(RequestHash, PoliciesTable) {
  http::Header storage[16];
  http::RequestHead head;
  head.headers = http::HeaderTable(storage, 16);
  head.path = "/p?a=1&user=bob&user=eve&empty=";
  head.authority = "host";
  head.headers.push({"x-user", "bob", http::header_id("x-user")});
  head.headers.push({"x-two", "foo", http::header_id("x-two")});
  head.headers.push({"x-two", "bar", http::header_id("x-two")});
  head.headers.push({"cookie", "a=1; sid=\"xyz\";bad; b=2", http::HeaderId::kCookie});
  head.headers.push({"cookie", "late=z", http::HeaderId::kCookie});
  using Kind = table::HashPolicyKind;
  using route::PolicyAnswer;
  struct Case {
    Kind kind;
    std::string name;
    PolicyAnswer answer;
    uint64_t hash;
    bool ttl = false;
    uint8_t header = 0;
  };
  const Case cases[] = {
      {Kind::kHeader, "x-user", PolicyAnswer::kHash, base::xxhash64("bob")},
      {Kind::kHeader, "x-two", PolicyAnswer::kHash, base::xxhash64("foo", base::xxhash64("bar"))},  // in the order of values
      {Kind::kHeader, "x-none", PolicyAnswer::kNothing, 0},
      {Kind::kHeader, ":path", PolicyAnswer::kHash, base::xxhash64(head.path), false, table::kPseudoPath},
      {Kind::kHeader, ":authority", PolicyAnswer::kHash, base::xxhash64("host"), false, table::kPseudoAuthority},
      {Kind::kCookie, "a", PolicyAnswer::kHash, base::xxhash64("1")},
      {Kind::kCookie, "sid", PolicyAnswer::kHash, base::xxhash64("xyz")},
      {Kind::kCookie, "late", PolicyAnswer::kHash, base::xxhash64("z")},
      {Kind::kCookie, "bad", PolicyAnswer::kNothing, 0},
      {Kind::kCookie, "none", PolicyAnswer::kNothing, 0},
      {Kind::kCookie, "none", PolicyAnswer::kMakeCookie, 0, true},
      {Kind::kCookie, "a", PolicyAnswer::kHash, base::xxhash64("1"), true},
      {Kind::kSourceIp, "", PolicyAnswer::kHash, base::xxhash64("10.1.2.3")},
      {Kind::kQueryParameter, "user", PolicyAnswer::kHash, base::xxhash64("bob")},  // the first
      {Kind::kQueryParameter, "empty", PolicyAnswer::kHash, base::xxhash64("")},
      {Kind::kQueryParameter, "none", PolicyAnswer::kNothing, 0},
  };
  for (const Case& c : cases) {
    struct {
      table::HashPolicy policy;
      char name[32];
    } object{};
    std::memcpy(object.name, c.name.data(), c.name.size());
    object.policy.kind = c.kind;
    object.policy.name = {static_cast<uint32_t>(object.name - reinterpret_cast<char*>(&object)),
                          static_cast<uint32_t>(c.name.size())};
    object.policy.has_ttl = c.ttl;
    object.policy.header = c.header;
    uint64_t hash = 0;
    EXPECT_EQ(route::ask_policy(&object, object.policy, head, "10.1.2.3", &hash), c.answer) << c.name;
    EXPECT_EQ(hash, c.hash) << c.name;
  }
  route::RequestHash two;
  two.add(0x8000000000000001);
  two.add(5);
  EXPECT_EQ(two.value, 3u ^ 5u);  // rotated by one
}

// ---- ring hash, Maglev -------------------------------------------------------------------------------------------------------

TEST(HashTables, SharesFollowWeights) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    PlanOptions o = options(policy);
    o.ring_min = 65'536;
    Rig rig({{1}, {2}, {3}, {4}}, o);
    base::Prng random(5);
    std::vector<double> got(4);
    for (int i = 0; i < 100'000; ++i) got[rig.pick_hash(random.next())] += 1.0 / 100'000;
    // Maglev's table holds the weights exactly; points on a ring fall as they fall (6,554 and more of each).
    const double slack = policy == LbPolicy::kMaglev ? 0.001 : 0.02;
    for (uint32_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], (i + 1) / 10.0, bound((i + 1) / 10.0) + slack) << i;
    // Without a hash: at random.
    const auto random_shares = rig.shares();
    for (uint32_t i = 0; i < 4; ++i) EXPECT_NEAR(random_shares[i], (i + 1) / 10.0, bound((i + 1) / 10.0) + slack) << i;
  }
}

TEST(HashTables, AHashIsOneEndpoint) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    Rig a(std::vector<One>(20), options(policy), {}, 1), b(std::vector<One>(20), options(policy), {}, 2);
    base::Prng random(5);
    for (int i = 0; i < 1000; ++i) {
      const uint64_t hash = random.next();
      EXPECT_EQ(a.pick_hash(hash), b.pick_hash(hash));
    }
  }
}

// One of fifty goes: what was its moves, and (of Maglev, which rearranges itself) hardly anything else.
TEST(HashTables, DisruptionWhenAnEndpointGoes) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    PlanOptions o = options(policy);
    o.ring_min = 50 * 100;
    std::vector<One> less(50);
    less[17].state = kDown;
    Rig all(std::vector<One>(50), o), rest(less, o);
    if (policy == LbPolicy::kRingHash) {
      o.ring_min = 49 * 100;  // as many points for each
      rest.plan = Plan::make(rest.set(), o);
      rest.balancer.build(rest.plan, 1);
    }
    base::Prng random(5);
    uint32_t own = 0, others = 0;
    for (int i = 0; i < 100'000; ++i) {
      const uint64_t hash = random.next();
      const uint32_t before = all.pick_hash(hash), after = rest.pick_hash(hash);
      ASSERT_NE(after, 17u);
      if (before == 17) ++own;
      else others += before != after;
    }
    EXPECT_NEAR(own, 2000, 700);
    if (policy == LbPolicy::kRingHash) EXPECT_EQ(others, 0u);
    else EXPECT_LT(others, 3000u);  // 3 % of the table
  }
}

// Live health: only what was the endpoint's moves, and comes back with it.
TEST(HashTables, LiveHealthMovesOnlyItsOwn) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    Rig rig(std::vector<One>(10), options(policy));
    std::map<uint64_t, uint32_t> before;
    base::Prng random(5);
    for (int i = 0; i < 5000; ++i) {
      const uint64_t hash = random.next();
      before[hash] = rig.pick_hash(hash);
    }
    rig.live[3] = Health::kUnhealthy;
    rig.changed();
    for (const auto& [hash, endpoint] : before) {
      const uint32_t now = rig.pick_hash(hash);
      if (endpoint == 3) EXPECT_NE(now, 3u);
      else EXPECT_EQ(now, endpoint);
    }
    rig.live[3] = Health::kHealthy;
    rig.changed();
    for (const auto& [hash, endpoint] : before) EXPECT_EQ(rig.pick_hash(hash), endpoint);
  }
}

TEST(HashTables, AnotherAttemptIsAnotherPlace) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    Rig rig(std::vector<One>(10), options(policy));
    int other = 0;
    for (uint64_t i = 0; i < 1000; ++i)
      other += rig.pick_hash(base::xxhash64(std::to_string(i)), 1) != rig.pick_hash(base::xxhash64(std::to_string(i)), 0);
    EXPECT_GT(other, 800);
  }
}

TEST(HashTables, BoundedLoad) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    PlanOptions o = options(policy);
    o.hash_balance_factor = 150;
    Rig rig(std::vector<One>(10), o);
    // A thousand requests of one hash, none of which ends: nobody has more than 1.5 times the mean.
    const uint64_t hash = base::xxhash64("everybody's favourite");
    const uint32_t first = rig.pick_hash(hash);
    for (int i = 0; i < 1000; ++i) ++rig.active[rig.pick_hash(hash)];
    for (const uint32_t n : rig.active) EXPECT_LE(n, 152u);
    EXPECT_GE(rig.active[first], 149u);
    // Idle again, it is the first one's.
    std::fill(rig.active.begin(), rig.active.end(), 0);
    EXPECT_EQ(rig.pick_hash(hash), first);
  }
}

TEST(HashTables, MemoryOfTenThousandClusters) {
  Rig rig(std::vector<One>(10), options(LbPolicy::kMaglev));
  EXPECT_LE(rig.plan->hash_bytes(), 33'200u);  // four bits a slot
  Rig one(std::vector<One>(1), options(LbPolicy::kMaglev));
  EXPECT_EQ(one.pick_hash(77), 0u);
  Rig none({}, options(LbPolicy::kMaglev));
  EXPECT_EQ(none.pick_hash(77), kNoEndpoint);
}

// ---- priorities --------------------------------------------------------------------------------------------------------------

// Envoy's documentation, "Priority levels": percent of healthy endpoints -> percent of traffic. Of 100 endpoints each.
TEST(Priorities, DocumentedExamples) {
  struct Case {
    std::vector<std::pair<uint32_t, uint32_t>> health;  // healthy, degraded of each priority
    std::vector<uint32_t> healthy, degraded;            // load
    std::vector<bool> panic = {};
  };
  const Case cases[] = {
      {{{100, 0}, {100, 0}}, {100, 0}, {0, 0}},
      {{{72, 0}, {100, 0}}, {100, 0}, {0, 0}},  // 72 * 1.4 = 100.8
      {{{71, 0}, {100, 0}}, {99, 1}, {0, 0}},
      {{{50, 0}, {100, 0}}, {70, 30}, {0, 0}},
      {{{25, 0}, {100, 0}}, {35, 65}, {0, 0}},
      {{{0, 0}, {100, 0}}, {0, 100}, {0, 0}},
      {{{25, 0}, {25, 0}}, {50, 50}, {0, 0}, {true, true}},  // 35 + 35 is too little: panic, by the number of endpoints
      {{{100, 0}, {100, 0}, {100, 0}}, {100, 0, 0}, {0, 0, 0}},
      {{{25, 0}, {25, 0}, {100, 0}}, {35, 35, 30}, {0, 0, 0}},
      {{{25, 0}, {25, 0}, {20, 0}}, {36, 35, 29}, {0, 0, 0}, {true, true, true}},  // panic everywhere: see below
      // Degraded: what the healthy cannot take.
      {{{0, 100}, {100, 0}}, {0, 100}, {0, 0}},
      {{{50, 50}, {0, 0}}, {70, 0}, {30, 0}},
      {{{5, 100}, {0, 1}}, {7, 0}, {93, 0}},  // "5 % healthy, 100 % degraded": 7 % and 93 %
  };
  for (size_t i = 0; i < std::size(cases); ++i) {
    const Case& c = cases[i];
    std::vector<HealthCount> counts;
    for (const auto& [healthy, degraded] : c.health) counts.push_back({healthy, degraded, 100});
    std::vector<PriorityLoad> loads(counts.size());
    spread_load(counts, 140, 50, loads);
    uint32_t sum = 0;
    const bool everywhere = !c.panic.empty() && c.health.size() == 3;
    for (size_t p = 0; p < loads.size(); ++p) {
      sum += loads[p].healthy + loads[p].degraded;
      EXPECT_EQ(loads[p].panic, !c.panic.empty() && c.panic[p]) << i << " priority " << p;
      if (everywhere) continue;  // a third each, the first with what is left
      EXPECT_EQ(loads[p].healthy, c.healthy[p]) << i << " priority " << p;
      EXPECT_EQ(loads[p].degraded, c.degraded[p]) << i << " priority " << p;
    }
    if (everywhere) {
      EXPECT_EQ(loads[0].healthy, 34u);
      EXPECT_EQ(loads[1].healthy, 33u);
    }
    EXPECT_EQ(sum, 100u) << i;
  }
}

// "Panic threshold" of the documentation: P0 and P1 of 100 endpoints each.
TEST(Priorities, PanicExamples) {
  struct Case {
    uint32_t p0, p1;
    std::vector<uint32_t> load;
    bool panic0, panic1;
  };
  const Case cases[] = {
      {72, 72, {100, 0}, false, false},
      {71, 71, {99, 1}, false, false},
      {50, 60, {70, 30}, false, false},
      {25, 100, {35, 65}, false, false},
      {25, 25, {50, 50}, true, true},
      {5, 65, {8, 92}, true, false},  // 7 and 92 of 98, and what rounding leaves is the first one's
  };
  for (const Case& c : cases) {
    const HealthCount counts[] = {{c.p0, 0, 100}, {c.p1, 0, 100}};
    PriorityLoad loads[2];
    spread_load(counts, 140, 50, loads);
    EXPECT_EQ(loads[0].healthy, c.load[0]) << c.p0 << " " << c.p1;
    EXPECT_EQ(loads[1].healthy, c.load[1]) << c.p0 << " " << c.p1;
    EXPECT_EQ(loads[0].panic, c.panic0) << c.p0 << " " << c.p1;
    EXPECT_EQ(loads[1].panic, c.panic1) << c.p0 << " " << c.p1;
    spread_load(counts, 140, 0, loads);
    EXPECT_FALSE(loads[0].panic || loads[1].panic);
  }
  // No endpoints at all, and a threshold of 0 with nobody healthy: the first priority has it all.
  const HealthCount none[] = {{0, 0, 0}, {0, 0, 0}};
  PriorityLoad loads[2];
  for (const uint32_t threshold : {0u, 50u}) {
    spread_load(none, 140, threshold, loads);
    EXPECT_EQ(loads[0].healthy, 100u);
  }
}

TEST(Priorities, SharesOfEveryPolicy) {
  for (const LbPolicy policy :
       {LbPolicy::kRoundRobin, LbPolicy::kLeastRequest, LbPolicy::kRandom, LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    // P0: 5 of 10 healthy takes 70 %; P1 the rest.
    PlanOptions o = options(policy);
    o.ring_min = 100'000;
    Rig rig(of_locality(0, 5, 0, 5) + of_locality(1, 4), o, {{0, 0}, {1, 0}});
    const auto got = rig.shares();
    const double slack = policy == LbPolicy::kRingHash ? 0.005 : 0.001;
    for (uint32_t i = 0; i < 5; ++i) EXPECT_NEAR(got[i], 0.14, bound(0.14) + slack) << i;
    for (uint32_t i = 5; i < 10; ++i) EXPECT_EQ(got[i], 0) << i;
    for (uint32_t i = 10; i < 14; ++i) EXPECT_NEAR(got[i], 0.075, bound(0.075) + slack) << i;
    EXPECT_EQ(rig.panics, 0u);
  }
}

TEST(Priorities, DegradedGetTheRest) {
  Rig rig(of_locality(0, 5, 5), options(LbPolicy::kRoundRobin));
  const auto got = rig.shares();
  for (uint32_t i = 0; i < 5; ++i) EXPECT_NEAR(got[i], 0.14, bound(0.14));
  for (uint32_t i = 5; i < 10; ++i) EXPECT_NEAR(got[i], 0.06, bound(0.06));
}

// Live health: the loads follow, the shares of those that are left are even, and all comes back.
TEST(Priorities, LiveHealth) {
  for (const LbPolicy policy : {LbPolicy::kRoundRobin, LbPolicy::kLeastRequest, LbPolicy::kRandom}) {
    Rig rig(std::vector<One>(10), options(policy));
    EXPECT_FALSE(rig.balancer.stale(0));
    EXPECT_TRUE(rig.balancer.stale(1));
    rig.live[2] = rig.live[3] = Health::kUnhealthy;
    rig.changed();
    EXPECT_FALSE(rig.balancer.stale(1));
    auto got = rig.shares();
    for (uint32_t i = 0; i < 10; ++i) {
      if (i == 2 || i == 3) EXPECT_EQ(got[i], 0) << i;
      else EXPECT_NEAR(got[i], 0.125, bound(0.125)) << i;  // nobody takes its neighbour's share
    }
    for (uint32_t i = 2; i < 8; ++i) rig.live[i] = Health::kUnhealthy;
    rig.changed();  // 40 %: panic
    got = rig.shares();
    for (uint32_t i = 0; i < 10; ++i) EXPECT_NEAR(got[i], 0.1, bound(0.1)) << i;
    EXPECT_EQ(rig.panics, 100'000u);
    std::fill(rig.live.begin(), rig.live.end(), Health::kHealthy);
    rig.changed();
    EXPECT_NEAR(rig.shares()[2], 0.1, bound(0.1));
    EXPECT_EQ(rig.panics, 100'000u);
  }
}

// A large set is looked at in slices; meanwhile nobody unhealthy is chosen, and the loads are the old ones.
TEST(Priorities, RecountInSlices) {
  Rig rig(std::vector<One>(100'000), options(LbPolicy::kRoundRobin));
  for (uint32_t i = 0; i < 60'000; ++i) rig.live[i] = Health::kUnhealthy;
  uint32_t slices = 1;
  const auto health = [&](uint32_t e) { return rig.live[e]; };
  rig.balancer.recount(1, health);
  for (; rig.balancer.stale(1); ++slices) {
    EXPECT_FALSE(rig.balancer.loads()[0].panic);
    ASSERT_GE(rig.pick(), 60'000u);
    rig.balancer.recount(1, health);
  }
  EXPECT_EQ(slices, (100'000 + Balancer::kRecountSlice - 1) / Balancer::kRecountSlice);
  EXPECT_TRUE(rig.balancer.loads()[0].panic);
}

// ---- localities --------------------------------------------------------------------------------------------------------------

// Envoy's documentation, "Locality weighted load balancing": X and Y with weights 1 and 2.
TEST(Localities, WeightedExamples) {
  struct Case {
    uint32_t x_up, y_up;  // of 100
    double x;             // share
  };
  for (const Case& c :
       {Case{100, 100, 1 / 3.0}, {100, 70, 1 / (1 + 2 * 0.98)}, {71, 100, 0.994 / 2.994}, {50, 100, 0.7 / 2.7}, {100, 0, 1.0}}) {
    PlanOptions o = options(LbPolicy::kRoundRobin);
    o.locality_weighted = true;
    Rig rig(of_locality(0, c.x_up, 0, 100 - c.x_up) + of_locality(1, c.y_up, 0, 100 - c.y_up), o, {{0, 1}, {0, 2}});
    const auto got = rig.shares();
    const double x = std::accumulate(got.begin(), got.begin() + 100, 0.0);
    EXPECT_NEAR(x, c.x, bound(c.x) + 0.001) << c.x_up << " " << c.y_up;
  }
}

TEST(Localities, WithoutWeightThereIsNoLoad) {
  PlanOptions o = options(LbPolicy::kRoundRobin);
  o.locality_weighted = true;
  Rig rig(of_locality(0, 2) + of_locality(1, 2), o, {{0, 5}, {0, 0}});
  EXPECT_NEAR(rig.shares()[0], 0.5, 0.001);
  Rig none(of_locality(0, 2) + of_locality(1, 2), o, {{0, 0}, {0, 0}});  // nobody has one: as if localities were not weighted
  EXPECT_NEAR(none.shares()[0], 0.25, 0.001);
  Rig off(of_locality(0, 2) + of_locality(1, 2), options(LbPolicy::kRoundRobin), {{0, 5}, {0, 1}});
  EXPECT_NEAR(off.shares()[3], 0.25, 0.001);
}

TEST(Localities, WeightsInTheTablesOfHashes) {
  for (const LbPolicy policy : {LbPolicy::kRingHash, LbPolicy::kMaglev}) {
    PlanOptions o = options(policy);
    o.locality_weighted = true;
    o.ring_min = 100'000;
    Rig rig(std::vector<One>{{1, 0}, {3, 0}, {1, 1}}, o, {{0, 1}, {0, 1}});
    const auto got = rig.shares();
    EXPECT_NEAR(got[0], 0.125, 0.01);
    EXPECT_NEAR(got[1], 0.375, 0.01);
    EXPECT_NEAR(got[2], 0.5, 0.01);
  }
}

}  // namespace
}  // namespace millrace::test
