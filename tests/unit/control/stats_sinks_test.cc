// What stats sinks send: lines against a region in memory, and the peers as real sockets on loopback.
#include "control/stats_sinks.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstdlib>
#include <cstring>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

using stats::ClusterCounter;
using stats::HcmCounter;
using stats::ListenerCounter;
using stats::ScopeKind;

// A statistics region of two workers with one listener, one connection manager and one cluster with an endpoint.
struct World {
  explicit World(uint64_t incarnation = 7) {
    stats::RegionConfig config;
    config.workers = 2;
    config.scopes = 64;
    config.incarnation = incarnation;
    const size_t bytes = (stats::region_size(config) + 63) / 64 * 64;
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(64, bytes)));
    std::memset(memory.get(), 0, bytes);
    auto made = stats::Region::create({memory.get(), bytes}, config);
    EXPECT_TRUE(made.ok()) << made.error();
    region = std::make_unique<stats::Region>(*made);
    directory = std::make_unique<stats::ScopeDirectory>(*region);
    directory->acquire(ScopeKind::kListener, 1, "edge");
    hcm = directory->acquire(ScopeKind::kHcm, 2, "in gress|x");
    cluster = directory->acquire(ScopeKind::kCluster, 3, "api");
    endpoint = directory->acquire(ScopeKind::kEndpoint, 4, "10.0.0.1:80", cluster);
    view = std::make_unique<stats::RegionView>(*stats::RegionView::attach({memory.get(), bytes}));
  }
  template <class Enum>
  stats::Counter& word(uint32_t worker, stats::ScopeSlot slot, Enum c) {
    return region->worker_stats(worker).scope(slot)[c];
  }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> memory;
  std::unique_ptr<stats::Region> region;
  std::unique_ptr<stats::ScopeDirectory> directory;
  std::unique_ptr<stats::RegionView> view;
  stats::ScopeSlot hcm = 0, cluster = 0, endpoint = 0;
};

// Lines that begin so, in order.
std::vector<std::string> only(const std::vector<std::string>& lines, const std::string& prefix) {
  std::vector<std::string> out;
  for (const std::string& l : lines)
    if (l.starts_with(prefix)) out.push_back(l);
  return out;
}
using Lines = std::vector<std::string>;

TEST(Statsd, CountersAreWhatWasAddedGaugesWhatIs) {
  World w;
  const Model model;
  StatsdEncoder encoder({});
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(5);
  w.word(1, w.cluster, ClusterCounter::kRqTotal).add(2);
  w.word(1, w.cluster, ClusterCounter::kRqActive).add(3);
  EXPECT_EQ(only(encoder.lines(*w.view, model), "envoy.cluster.api."),
            (Lines{"envoy.cluster.api.upstream_rq_total:7|c\n", "envoy.cluster.api.upstream_rq_active:3|g\n"}));
  // Not committed: nobody has them yet.
  EXPECT_EQ(only(encoder.lines(*w.view, model), "envoy.cluster.api.upstream_rq_total").size(), 1u);
  encoder.commit();
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(1);
  w.word(1, w.cluster, ClusterCounter::kRqActive).set(0);
  EXPECT_EQ(only(encoder.lines(*w.view, model), "envoy.cluster.api."),
            (Lines{"envoy.cluster.api.upstream_rq_total:1|c\n", "envoy.cluster.api.upstream_rq_active:0|g\n"}));
  encoder.commit();
  // A gauge that was once used is sent for ever, a counter that stood still is not.
  EXPECT_EQ(only(encoder.lines(*w.view, model), "envoy.cluster.api."), (Lines{"envoy.cluster.api.upstream_rq_active:0|g\n"}));
}

// Counters of a cluster's health have its prefix, and lists of their own.
TEST(Statsd, TwoGroupsOfOneNameAreKeptApart) {
  World w;
  const Model model;
  StatsdEncoder encoder({});
  const stats::ScopeSlot health = w.directory->acquire(ScopeKind::kClusterHealth, 5, "api");
  using stats::ClusterHealthCounter;
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(5);
  w.word(0, health, ClusterHealthCounter::kEjectionsEnforcedTotal).add(2);
  const Lines first = only(encoder.lines(*w.view, model), "envoy.cluster.api.");
  EXPECT_EQ(first.size(), 2u);
  encoder.commit();
  EXPECT_EQ(only(encoder.lines(*w.view, model), "envoy.cluster.api."), Lines{}) << "nothing has happened since";
  w.word(1, w.cluster, ClusterCounter::kRqTotal).add(1);
  w.word(1, health, ClusterHealthCounter::kEjectionsEnforcedTotal).add(3);
  Lines second = only(encoder.lines(*w.view, model), "envoy.cluster.api.");
  std::sort(second.begin(), second.end());
  EXPECT_EQ(second, (Lines{"envoy.cluster.api.outlier_detection.ejections_enforced_total:3|c\n",
                           "envoy.cluster.api.upstream_rq_total:1|c\n"}));
}

TEST(Statsd, NamesAreEnvoysAndSafe) {
  World w;
  const Model model = model_of(gateway_yaml("- { match: { prefix: / }, route: { cluster: api } }"));
  w.word(0, w.hcm, HcmCounter::kRqTotal).add(1);
  w.word(0, w.endpoint, ClusterCounter::kRqTotal).add(1);
  w.region->worker(0).drop(static_cast<stats::DropReason>(1), 4);
  w.word(0, 1, ListenerCounter::kCxTotal).add(1);
  StatsSinkConfig config;
  config.prefix = "mesh.edge";
  StatsdEncoder encoder(config);
  const Lines lines = encoder.lines(*w.view, model);
  EXPECT_EQ(only(lines, "mesh.edge.http."), (Lines{"mesh.edge.http.in_gress_x.downstream_rq_total:1|c\n"}));
  EXPECT_EQ(only(lines, "mesh.edge.listener."), (Lines{"mesh.edge.listener.0.0.0.0_8080.downstream_cx_total:1|c\n"}));
  EXPECT_EQ(only(lines, "mesh.edge.cluster."), Lines{}) << "endpoints are not sent";
  EXPECT_EQ(only(lines, "mesh.edge.millrace.drops."),
            (Lines{std::string("mesh.edge.millrace.drops.") + stats::info(static_cast<stats::DropReason>(1)).name + ":4|c\n"}));
  EXPECT_EQ(only(lines, "mesh.edge.server.live"), (Lines{"mesh.edge.server.live:1|g\n"}));
  for (const std::string& l : lines) EXPECT_TRUE(l.starts_with("mesh.edge.") && l.ends_with("\n")) << l;
}

TEST(Statsd, TagsOfDogStatsd) {
  World w;
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(9);
  StatsSinkConfig config;
  config.kind = StatsSinkConfig::Kind::kDogStatsd;
  StatsdEncoder encoder(config);
  EXPECT_EQ(only(encoder.lines(*w.view, Model{}), "envoy.cluster."),
            (Lines{"envoy.cluster.upstream_rq_total:9|c|#envoy.cluster_name:api\n"}));
}

TEST(Statsd, TimesAreSampledByBucket) {
  World w;
  StatsdEncoder encoder({});
  auto& h = w.region->worker(1).histogram(stats::WorkerHistogram::kRequestTime);
  for (int i = 0; i < 4; ++i) h.record(20);  // ns: an exact bucket
  h.record(5);
  const std::string name = "envoy.millrace.downstream_rq_time:";
  EXPECT_EQ(only(encoder.lines(*w.view, Model{}), name), (Lines{name + "5e-06|ms\n", name + "2e-05|ms|@0.25\n"}));
  encoder.commit();
  h.record(20);
  EXPECT_EQ(only(encoder.lines(*w.view, Model{}), name), (Lines{name + "2e-05|ms\n"}));
}

TEST(Statsd, ANewDataPlaneBeginsAtZero) {
  World old(7), fresh(8);
  old.word(0, old.cluster, ClusterCounter::kRqTotal).add(100);
  fresh.word(0, fresh.cluster, ClusterCounter::kRqTotal).add(100);
  StatsdEncoder encoder({});
  encoder.lines(*old.view, Model{});
  encoder.commit();
  EXPECT_EQ(only(encoder.lines(*fresh.view, Model{}), "envoy.cluster.api."),
            (Lines{"envoy.cluster.api.upstream_rq_total:100|c\n"}));
}

// ---- peers -----------------------------------------------------------------------------------------------------------------

struct Receiver {  // on a port of loopback that the kernel chose
  explicit Receiver(int type) : fd(socket(AF_INET, type | SOCK_CLOEXEC, 0)) {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
    socklen_t size = sizeof any;
    getsockname(fd, reinterpret_cast<sockaddr*>(&any), &size);
    port = ntohs(any.sin_port);
  }
  ~Receiver() { close(fd); }
  int fd;
  uint16_t port = 0;
};

struct Sinks {
  explicit Sinks(StatsSinkConfig config, const World& world, Model m = {}) : model(std::make_shared<const Model>(std::move(m))) {
    StatsSinksConfig all;
    all.sinks.push_back(std::move(config));
    sinks = std::make_unique<StatsSinks>(
        all, StatsSinks::Sources{[&world](const auto& f) { return f(*world.view), true; }, [this] { return model; },
                                 [this](const std::string& line) { said.push_back(line); }});
  }
  std::shared_ptr<const Model> model;
  std::vector<std::string> said;
  std::unique_ptr<StatsSinks> sinks;
};

TEST(StatsSinks, DatagramsHoldWhatTheyMay) {
  World w;
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(1);
  w.word(0, w.cluster, ClusterCounter::kRq2xx).add(1);
  for (const size_t bytes : {size_t{0}, size_t{4000}}) {
    Receiver udp(SOCK_DGRAM);
    StatsSinkConfig config;
    config.kind = StatsSinkConfig::Kind::kDogStatsd;
    config.address = base::IpAddress::v4(0x7f000001);
    config.port = udp.port;
    config.datagram_bytes = bytes;
    Sinks s(config, w);
    s.sinks->flush();
    const auto counters = s.sinks->counters();
    EXPECT_EQ(counters.lost_lines, 0u);
    uint64_t datagrams = 0, lines = 0;
    char text[65536];
    for (ssize_t n; (n = recv(udp.fd, text, sizeof text, MSG_DONTWAIT)) > 0; ++datagrams) {
      lines += static_cast<uint64_t>(std::count(text, text + n, '\n'));
      EXPECT_TRUE(bytes == 0 || static_cast<size_t>(n) <= bytes) << n;
    }
    EXPECT_EQ(lines, counters.lines);
    EXPECT_GE(lines, 4u);
    EXPECT_EQ(datagrams, bytes == 0 ? lines : 1);
  }
}

Model statsd_cluster(uint16_t port) {
  return model_of(
      "static_resources: { clusters: [ { name: metrics, type: STATIC, load_assignment: { cluster_name: metrics, endpoints: "
      "[ { lb_endpoints: [ { endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: " +
      std::to_string(port) + " } } } } ] } ] } } ] }");
}

TEST(StatsSinks, OverTcpCountersWaitForThePeer) {
  World w;
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(3);
  Receiver tcp(SOCK_STREAM);  // bound and not listening: refused
  StatsSinkConfig config;
  config.name = "statsd";
  config.cluster = "metrics";
  Sinks s(config, w, statsd_cluster(tcp.port));
  s.sinks->flush();
  s.sinks->flush();
  EXPECT_EQ(s.sinks->counters().lines, 0u);
  EXPECT_EQ(s.sinks->counters().failures, 2u);
  const std::string where = "127.0.0.1:" + std::to_string(tcp.port);
  EXPECT_EQ(s.said, (Lines{"stats sink statsd: " + where + ": Connection refused; tried again with every flush"})) << "said once";

  ASSERT_EQ(listen(tcp.fd, 4), 0);
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(4);
  s.sinks->flush();
  EXPECT_EQ(s.said.back(), "stats sink statsd: sends to " + where);
  const int peer = accept(tcp.fd, nullptr, nullptr);
  ASSERT_GE(peer, 0);
  char text[65536];
  const ssize_t n = recv(peer, text, sizeof text - 1, 0);
  ASSERT_GT(n, 0);
  EXPECT_NE(std::string(text, static_cast<size_t>(n)).find("envoy.cluster.api.upstream_rq_total:7|c\n"), std::string::npos);

  // The peer goes and another comes: seen before anything is handed to the dead connection.
  close(peer);
  pollfd wait{tcp.fd, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 0), 0);
  w.word(0, w.cluster, ClusterCounter::kRqTotal).add(1);
  s.sinks->flush();
  const int second = accept(tcp.fd, nullptr, nullptr);
  ASSERT_GE(second, 0);
  const ssize_t m = recv(second, text, sizeof text - 1, 0);
  ASSERT_GT(m, 0);
  EXPECT_NE(std::string(text, static_cast<size_t>(m)).find("envoy.cluster.api.upstream_rq_total:1|c\n"), std::string::npos);
  EXPECT_EQ(s.sinks->counters().lost_lines, 0u);
  close(second);
}

TEST(StatsSinks, AClusterThatIsGoneIsSaid) {
  World w;
  StatsSinkConfig config;
  config.name = "statsd";
  config.cluster = "metrics";
  Sinks s(config, w);
  s.sinks->flush();
  EXPECT_EQ(s.said, (Lines{"stats sink statsd: cluster metrics: has no endpoint; tried again with every flush"}));
}

}  // namespace
}  // namespace millrace::control
