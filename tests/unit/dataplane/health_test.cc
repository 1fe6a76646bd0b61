// Outlier detection in virtual time: what ejects an endpoint, for how long, how many may be, and that everybody acts on it.
// Envoy's rules (DetectorImpl, DetectorHostMonitorImpl).
#include <set>
#include <thread>

#include "dataplane/endpoint_health.h"
#include "dataplane/health_keeper.h"
#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

using stats::ClusterHealthCounter;
using table::OutlierDetection;

constexpr uint16_t kFirstPort = 8000;

Config watched(uint32_t endpoints, const std::function<void(OutlierDetection&)>& edit) {
  Config c;
  c.routes = {route_to()};
  c.clusters[0].endpoints.clear();
  for (uint32_t i = 0; i < endpoints; ++i) c.clusters[0].endpoints.push_back({"10.2.0.2", static_cast<uint16_t>(kFirstPort + i)});
  c.clusters[0].edit = [edit](table::Cluster& o) {
    o.outlier.present = 1;
    o.outlier.max_ejection_percent = 100;
    o.panic_threshold = 0;  // what is ejected gets nothing, however few are left
    edit(o.outlier);
  };
  return c;
}

// Endpoints that answer with what `status` says for their number, 0: by a reset.
struct Mesh {
  Mesh(const Config& config, uint32_t endpoints) : w(config) {
    std::vector<uint16_t> ports;
    for (uint32_t i = 0; i < endpoints; ++i) ports.push_back(static_cast<uint16_t>(kFirstPort + i));
    w.server.set_listening(ports);
    status.assign(endpoints, 200);
    w.server_script = [this] {
      for (Peer& p : w.server.peers) {
        if (p.connection == nullptr || p.received.find("\r\n\r\n") == std::string::npos) continue;
        p.received.clear();
        const size_t who = p.connection->tuple().local_port - kFirstPort;
        asked.push_back(who);
        if (status[who] == 0) w.server.abort(p, w.now);
        else if (status[who] != 1)
          w.server.send(p, "HTTP/1.1 " + std::to_string(status[who]) + " X\r\n" + more + "content-length: 0\r\n\r\n", w.now);
      }
    };
    client = &w.connect();
  }
  ~Mesh() { w.server_script = nullptr; }
  // n requests one after the other; which endpoints they came to, each once.
  std::set<size_t> ask(uint32_t n, std::string_view fields = "") {
    asked.clear();
    for (uint32_t i = 0; i < n; ++i) {
      client->received.clear();
      w.send(*client, get("/", fields));
      EXPECT_TRUE(w.wait_for(*client, "\r\n\r\n", 30 * kSecond));
      w.run(50 * kMicrosecond);
    }
    return {asked.begin(), asked.end()};
  }
  uint64_t count(ClusterHealthCounter c) { return w.health_count(c); }
  uint64_t active() { return count(ClusterHealthCounter::kEjectionsActive); }

  World w;
  std::vector<int> status;
  std::vector<size_t> asked;
  std::string more;
  Peer* client;
};

// ---- runs of failures
// ----------------------------------------------------------------------------------------------------------

struct RunCase {
  const char* name;
  int status;       // of endpoint 0
  uint32_t before;  // requests of which it fails the half: as many as do not eject it
  ClusterHealthCounter detected, enforced;
  bool ejected;
  std::function<void(OutlierDetection&)> edit;
};
const RunCase kRuns[] = {
    {"five times 500", 500, 8, ClusterHealthCounter::kDetectedConsecutive5xx, ClusterHealthCounter::kEnforcedConsecutive5xx, true,
     [](OutlierDetection&) {}},
    {"five times 503", 503, 8, ClusterHealthCounter::kDetectedConsecutive5xx, ClusterHealthCounter::kEnforcedConsecutive5xx, true,
     [](OutlierDetection&) {}},
    {"three", 500, 4, ClusterHealthCounter::kDetectedConsecutive5xx, ClusterHealthCounter::kEnforcedConsecutive5xx, true,
     [](OutlierDetection& o) { o.consecutive_5xx = 3; }},
    {"enforcing 0 finds and does nothing", 500, 8, ClusterHealthCounter::kDetectedConsecutive5xx,
     ClusterHealthCounter::kEnforcedConsecutive5xx, false, [](OutlierDetection& o) { o.enforcing[0] = 0; }},
    {"gateway failures", 503, 4, ClusterHealthCounter::kDetectedConsecutiveGatewayFailure,
     ClusterHealthCounter::kEnforcedConsecutiveGatewayFailure, true,
     [](OutlierDetection& o) {
       o.consecutive_gateway_failure = 3;
       o.enforcing[1] = 100;
     }},
    {"a reset is a gateway failure", 0, 4, ClusterHealthCounter::kDetectedConsecutiveGatewayFailure,
     ClusterHealthCounter::kEnforcedConsecutiveGatewayFailure, true,
     [](OutlierDetection& o) {
       o.consecutive_gateway_failure = 3;
       o.enforcing[1] = 100;
     }},
    {"a reset is local where they are told apart", 0, 4, ClusterHealthCounter::kDetectedConsecutiveLocalOriginFailure,
     ClusterHealthCounter::kEnforcedConsecutiveLocalOriginFailure, true,
     [](OutlierDetection& o) {
       o.split_external_local_origin_errors = 1;
       o.consecutive_local_origin_failure = 1;
     }},
};
TEST(Outliers, ARunOfFailuresEjects) {
  for (const RunCase& c : kRuns) {
    SCOPED_TRACE(c.name);
    Mesh m(watched(2, c.edit), 2);
    m.status[0] = c.status;
    const bool at_once = c.detected == ClusterHealthCounter::kDetectedConsecutiveLocalOriginFailure;
    if (!at_once) {
      m.ask(c.before);
      EXPECT_EQ(m.count(c.detected), 0u);
      EXPECT_EQ(m.active(), 0u);
    }
    m.ask(2);
    EXPECT_EQ(m.count(c.detected), 1u);
    EXPECT_EQ(m.count(c.enforced), c.ejected ? 1u : 0u);
    EXPECT_EQ(m.count(ClusterHealthCounter::kEjectionsEnforcedTotal), c.ejected ? 1u : 0u);
    EXPECT_EQ(m.active(), c.ejected ? 1u : 0u);
    EXPECT_EQ(m.ask(8), (c.ejected ? std::set<size_t>{1} : std::set<size_t>{0, 1}));
  }
}

TEST(Outliers, NoRunNoEjection) {
  struct Case {
    const char* name;
    std::vector<int> statuses;  // of the only endpoint, in turn
    std::function<void(OutlierDetection&)> edit;
  };
  const Case cases[] = {
      {"a success in between", {500, 500, 500, 500, 200, 500, 500, 500, 500}, [](OutlierDetection&) {}},
      {"404 is a success", {500, 500, 500, 500, 404, 500}, [](OutlierDetection&) {}},
      {"500 ends a run of gateway failures",
       {503, 503, 500, 503, 503},
       [](OutlierDetection& o) {
         o.consecutive_gateway_failure = 3;
         o.consecutive_5xx = 6;
       }},
      {"0 is never", {500, 500, 500, 500, 500, 500, 500}, [](OutlierDetection& o) { o.consecutive_5xx = 0; }},
      {"a response is no local failure",
       {500, 500, 500, 500, 500, 500},
       [](OutlierDetection& o) {
         o.split_external_local_origin_errors = 1;
         o.consecutive_5xx = 100;
         o.consecutive_local_origin_failure = 1;
       }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Mesh m(watched(1, c.edit), 1);
    for (const int s : c.statuses) {
      m.status[0] = s;
      m.ask(1);
    }
    EXPECT_EQ(m.active(), 0u);
    for (uint32_t d = 0; d < table::kOutlierDetectors; ++d)
      EXPECT_EQ(
          m.count(static_cast<ClusterHealthCounter>(static_cast<uint32_t>(ClusterHealthCounter::kDetectedConsecutive5xx) + d)),
          0u)
          << d;
  }
}

TEST(Outliers, TheStatusOfGrpcCounts) {
  Mesh m(watched(2, [](OutlierDetection& o) { o.consecutive_5xx = 2; }), 2);
  m.more = "content-type: application/grpc\r\ngrpc-status: 14\r\n";
  m.ask(4);
  EXPECT_EQ(m.active(), 0u) << "not asked as gRPC";
  m.ask(4, "content-type: application/grpc\r\n");
  EXPECT_EQ(m.active(), 2u);
}

TEST(Outliers, SilenceIsAGatewayFailure) {
  Config c = watched(2, [](OutlierDetection& o) { o.consecutive_gateway_failure = 2, o.enforcing[1] = 100; });
  c.routes[0].timeout_ms = 1000;
  Mesh m(c, 2);
  m.status[0] = 1;
  m.ask(4);
  EXPECT_EQ(m.count(ClusterHealthCounter::kEnforcedConsecutiveGatewayFailure), 1u);
  EXPECT_EQ(m.ask(4), std::set<size_t>{1});
}

// ---- how long, how many
// --------------------------------------------------------------------------------------------------------

TEST(Outliers, EachEjectionLastsLonger) {
  Mesh m(watched(2,
                 [](OutlierDetection& o) {
                   o.consecutive_5xx = 1;
                   o.interval_ms = 1000;
                   o.base_ejection_ms = 3000;
                   o.max_ejection_ms = 7000;
                 }),
         2);
  m.status[0] = 500;
  for (const uint32_t seconds : {3u, 6u, 7u, 7u}) {
    SCOPED_TRACE(seconds);
    while (m.active() == 0) m.ask(1);
    m.w.run(seconds * kSecond - 10 * kMillisecond);
    EXPECT_EQ(m.active(), 1u);
    EXPECT_EQ(m.ask(4), std::set<size_t>{1});
    m.w.run(1100 * kMillisecond);  // the end of an interval
    EXPECT_EQ(m.active(), 0u);
  }
  m.status[0] = 200;
  m.w.run(10 * kSecond);  // intervals without an ejection take the multiplier back
  m.status[0] = 500;
  while (m.active() == 0) m.ask(1);
  m.w.run(4100 * kMillisecond);
  EXPECT_EQ(m.active(), 0u);
}

TEST(Outliers, HowManyMayBe) {
  struct Case {
    uint32_t endpoints, percent, ejected;
    bool one;
  };
  for (const Case& c :
       {Case{10, 10, 1, false}, {9, 10, 0, false}, {9, 10, 1, true}, {4, 50, 2, false}, {3, 100, 3, false}, {2, 0, 0, false}}) {
    SCOPED_TRACE(c.endpoints * 1000 + c.percent);
    Mesh m(watched(c.endpoints,
                   [&](OutlierDetection& o) {
                     o.consecutive_5xx = 1;
                     o.max_ejection_percent = static_cast<uint8_t>(c.percent);
                     o.always_eject_one_host = c.one;
                   }),
           c.endpoints);
    m.status.assign(c.endpoints, 500);
    m.ask(c.endpoints);
    EXPECT_EQ(m.active(), c.ejected);
    EXPECT_EQ(m.count(ClusterHealthCounter::kEjectionsOverflow), c.endpoints - c.ejected);
    if (c.ejected == c.endpoints) {
      m.ask(1);
      EXPECT_EQ(m.w.last(), "503 UH");
    }
  }
}

// ---- rates
// ---------------------------------------------------------------------------------------------------------------------

struct RateCase {
  const char* name;
  uint32_t endpoints, bad;  // the first `bad` fail each second request
  std::function<void(OutlierDetection&)> edit;
  ClusterHealthCounter detected;
  uint64_t found, active;
};
const RateCase kRates[] = {
    {"far below the mean", 5, 1, [](OutlierDetection&) {}, ClusterHealthCounter::kDetectedSuccessRate, 1, 1},
    {"too few endpoints", 4, 1, [](OutlierDetection&) {}, ClusterHealthCounter::kDetectedSuccessRate, 0, 0},
    {"too few requests", 5, 1, [](OutlierDetection& o) { o.success_rate_request_volume = 21; },
     ClusterHealthCounter::kDetectedSuccessRate, 0, 0},
    {"not far enough: 2.1 standard deviations", 5, 1, [](OutlierDetection& o) { o.success_rate_stdev_factor = 2100; },
     ClusterHealthCounter::kDetectedSuccessRate, 0, 0},
    {"two of five are no outliers", 5, 2, [](OutlierDetection&) {}, ClusterHealthCounter::kDetectedSuccessRate, 0, 0},
    {"failure percentage", 5, 2,
     [](OutlierDetection& o) {
       o.failure_percentage_threshold = 50;
       o.enforcing[static_cast<uint32_t>(table::OutlierDetector::kFailurePercentage)] = 100;
     },
     ClusterHealthCounter::kDetectedFailurePercentage, 2, 2},
    {"failure percentage found only", 5, 2, [](OutlierDetection& o) { o.failure_percentage_threshold = 50; },
     ClusterHealthCounter::kDetectedFailurePercentage, 2, 0},
    {"below the percentage", 5, 2, [](OutlierDetection& o) { o.failure_percentage_threshold = 51; },
     ClusterHealthCounter::kDetectedFailurePercentage, 0, 0},
};
TEST(Outliers, RatesOfAnInterval) {
  for (const RateCase& c : kRates) {
    SCOPED_TRACE(c.name);
    Mesh m(watched(c.endpoints,
                   [&](OutlierDetection& o) {
                     o.success_rate_request_volume = o.failure_percentage_request_volume = 20;
                     o.failure_percentage_threshold = 100;
                     c.edit(o);
                   }),
           c.endpoints);
    for (uint32_t i = 0; i < 20; ++i) {
      for (uint32_t e = 0; e < c.bad; ++e) m.status[e] = i % 2 == 0 ? 500 : 200;
      m.ask(c.endpoints);
    }
    EXPECT_EQ(m.count(c.detected), 0u) << "within the interval";
    m.w.run(10 * kSecond);
    EXPECT_EQ(m.count(c.detected), c.found);
    EXPECT_EQ(m.active(), c.active);
    m.w.run(10 * kSecond);
    EXPECT_EQ(m.count(c.detected), c.found) << "an interval without requests finds nobody";
  }
}

// ---- edits
// ---------------------------------------------------------------------------------------------------------------------

TEST(Outliers, AnEditOfTheSetKeepsEjectionsAndForgetsWhoLeaves) {
  const auto edit = [](OutlierDetection& o) { o.consecutive_5xx = 1; };
  Mesh m(watched(2, edit), 3);
  m.status[0] = 500;
  m.ask(2);
  ASSERT_EQ(m.active(), 1u);
  m.w.publish(watched(3, edit));
  m.w.settle();
  EXPECT_EQ(m.active(), 1u);
  EXPECT_EQ(m.ask(6), (std::set<size_t>{1, 2}));
  Config less = watched(3, edit);
  less.clusters[0].endpoints.erase(less.clusters[0].endpoints.begin());
  m.w.publish(less);
  m.w.settle();
  EXPECT_EQ(m.active(), 0u);
  m.status[0] = 200;
  m.w.publish(watched(3, edit));
  m.w.settle();
  EXPECT_EQ(m.ask(6), (std::set<size_t>{0, 1, 2}));
  m.status[0] = 500;
  m.ask(3);
  ASSERT_EQ(m.active(), 1u);
  Config off = watched(3, edit);
  off.clusters[0].edit = nullptr;
  m.w.publish(off);
  m.w.settle();
  EXPECT_EQ(m.ask(6), (std::set<size_t>{0, 1, 2}));
  m.w.publish(watched(3, edit));
  m.w.settle();
  EXPECT_EQ(m.active(), 0u) << "nothing is left of before";
}

// ---- several workers
// -----------------------------------------------------------------------------------------------------------

// Two keepers on one region, as two workers have them.
struct Two {
  explicit Two(const Config& config) : w(config) {
    w.settle();
    stats::RegionConfig r;
    r.workers = 2;
    r.scopes = 128;
    r.incarnation = 7;
    const uint64_t size = (stats::region_size(r) + 63) & ~uint64_t{63};
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
    std::memset(memory.get(), 0, size);
    region.emplace(*stats::Region::create({memory.get(), size}, r));
    mesh.emplace(*region);
    cluster = w.worker->context().tables->watched_clusters()[0];
    contexts.reserve(2);  // keepers refer to them
    for (uint32_t i = 0; i < 2; ++i) {
      contexts.push_back(w.worker->context());
      contexts[i].worker = i;
      contexts[i].workers = 2;
      contexts[i].stats = region->worker_stats(i);
      contexts[i].health_mesh = &*mesh;
      keepers.push_back(std::make_unique<HealthKeeper>(contexts[i]));
      keepers[i]->on_tables();
    }
    owner = cluster->slot % 2;
  }
  void say(uint32_t worker, HealthResult r, uint32_t endpoint = 0) {
    keepers[worker]->report(cluster->id, cluster->slot, cluster->endpoint_slots[endpoint], r);
  }
  void step(base::TimeNs later = 100 * kMicrosecond) {
    for (uint32_t i = 0; i < 2; ++i) {
      contexts[i].now += later;
      keepers[i]->step();
      keepers[i]->step();
    }
  }
  bool bad(uint32_t worker, uint32_t endpoint = 0) {
    return live_health(contexts[worker].stats, *cluster, endpoint) == route::balancer::Health::kUnhealthy;
  }

  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  World w;
  std::unique_ptr<uint8_t, Free> memory;
  std::optional<stats::Region> region;
  std::optional<HealthMesh> mesh;
  std::vector<WorkerContext> contexts;
  std::vector<std::unique_ptr<HealthKeeper>> keepers;
  const ClusterRuntime* cluster = nullptr;
  uint32_t owner = 0;
};

TEST(OutliersOfTwoWorkers, ARunIsOfTheMachine) {
  Two t(watched(2, [](OutlierDetection& o) { o.consecutive_5xx = 4; }));
  const uint32_t other = 1 - t.owner;
  const uint32_t before = health_generation(t.contexts[other].stats, *t.cluster);
  t.say(other, HealthResult::kFailure);
  t.say(t.owner, HealthResult::kFailure);
  t.step();
  t.say(other, HealthResult::kFailure);
  t.step();
  EXPECT_FALSE(t.bad(0) || t.bad(1));
  t.say(other, HealthResult::kGatewayFailure);
  t.step();
  EXPECT_TRUE(t.bad(0) && t.bad(1)) << "both see it";
  EXPECT_FALSE(t.bad(0, 1));
  EXPECT_NE(health_generation(t.contexts[other].stats, *t.cluster), before);
}

TEST(OutliersOfTwoWorkers, ASuccessAnywhereEndsARun) {
  Two t(watched(2, [](OutlierDetection& o) { o.consecutive_5xx = 4; }));
  const uint32_t other = 1 - t.owner;
  for (int round = 0; round < 5; ++round) {
    for (int i = 0; i < 3; ++i) t.say(round % 2 == 0 ? t.owner : other, HealthResult::kFailure);
    t.step();
    t.say(round % 2 == 0 ? other : t.owner, HealthResult::kSuccess);
    t.step();
  }
  EXPECT_FALSE(t.bad(0));
  // And before the owner has looked.
  for (int i = 0; i < 3; ++i) t.say(other, HealthResult::kFailure);
  t.say(other, HealthResult::kSuccess);
  t.say(other, HealthResult::kFailure);
  t.step();
  EXPECT_FALSE(t.bad(0));
}

TEST(OutliersOfTwoWorkers, SuccessesThatAreNoNewsAreNotTold) {
  Two t(watched(2, [](OutlierDetection&) {}));
  const uint32_t other = 1 - t.owner;
  for (int i = 0; i < 1000; ++i) t.say(other, HealthResult::kSuccess);
  HealthReport r;
  EXPECT_FALSE(t.mesh->pop(other, t.owner, &r));
  for (uint32_t i = 0; i < HealthMesh::kReports + 3; ++i) t.say(other, HealthResult::kFailure);
  EXPECT_EQ(t.contexts[other].stats.scope(t.cluster->health_slot)[ClusterHealthCounter::kReportsLost].read(), 3u);
  t.step();
  EXPECT_TRUE(t.bad(other));
}

TEST(OutliersOfTwoWorkers, RatesAreOfAllWorkers) {
  Two t(watched(5, [](OutlierDetection& o) {
    o.success_rate_request_volume = 20;
    o.consecutive_5xx = 0;
  }));
  t.step();  // the interval begins
  for (uint32_t e = 0; e < 5; ++e)
    for (uint32_t i = 0; i < 20; ++i) t.say(i % 2, e == 3 && i % 2 == 0 ? HealthResult::kFailure : HealthResult::kSuccess, e);
  t.step(10 * kSecond);
  t.step();
  EXPECT_TRUE(t.bad(0, 3) && t.bad(1, 3));
  EXPECT_FALSE(t.bad(0, 0) || t.bad(0, 1) || t.bad(0, 2) || t.bad(0, 4));
}

TEST(HealthMesh, ReportsArriveInOrderAcrossThreads) {
  stats::RegionConfig r;
  r.workers = 2;
  r.scopes = 64;
  r.incarnation = 7;
  const uint64_t size = (stats::region_size(r) + 63) & ~uint64_t{63};
  std::unique_ptr<uint8_t, Two::Free> memory(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
  std::memset(memory.get(), 0, size);
  HealthMesh mesh(*stats::Region::create({memory.get(), size}, r));
  constexpr uint32_t kCount = 100'000;
  std::thread writer([&] {
    for (uint32_t i = 0; i < kCount;)
      if (mesh.push(0, 1, {i ^ 0x5555u, i, HealthResult::kFailure})) ++i;
      else std::this_thread::yield();
  });
  HealthReport got;
  for (uint32_t i = 0; i < kCount;) {
    if (!mesh.pop(0, 1, &got)) {
      std::this_thread::yield();
      continue;
    }
    ASSERT_EQ(got.endpoint, i);
    ASSERT_EQ(got.cluster, i ^ 0x5555u);
    ++i;
  }
  writer.join();
  EXPECT_FALSE(mesh.pop(1, 0, &got));
}

}  // namespace
}  // namespace millrace::dataplane::test
