// Pages of the admin interface against a region in memory; what real clients and a real Envoy say to them:
// tests/e2e/test_admin.py.
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

#include "control/admin/pages.h"
#include "control/admin/prometheus.h"

namespace millrace::control::admin {
namespace {

using stats::ClusterCounter;
using stats::ScopeKind;

struct World {
  World() {
    stats::RegionConfig config;
    config.workers = 2;
    config.scopes = 64;
    config.incarnation = 7;
    const size_t bytes = (stats::region_size(config) + 127) / 128 * 128;
    memory.reset(static_cast<uint8_t*>(std::aligned_alloc(128, bytes)));
    std::memset(memory.get(), 0, bytes);
    region = std::make_unique<stats::Region>(*stats::Region::create({memory.get(), bytes}, config));
    directory = std::make_unique<stats::ScopeDirectory>(*region);
    cluster = directory->acquire(ScopeKind::kCluster, 3, "a\"p\\i");
    view = std::make_unique<stats::RegionView>(*stats::RegionView::attach({memory.get(), bytes}));
  }
  Pages pages() {
    Pages::Sources s;
    s.with_stats = [this](const auto& f) {
      if (connected) f(*view);
      return connected;
    };
    s.model = s.resolved = [] { return std::make_shared<const Model>(); };
    s.state = [this] { return state; };
    s.quit = [this] { ++quits; };
    s.set_health = [this](bool failed) {
      wishes += failed ? "fail " : "ok ";
      return connected;
    };
    s.drain = [this](uint32_t time_s) {
      wishes += "drain:" + std::to_string(time_s) + " ";
      return connected;
    };
    s.arena_bytes = [] { return uint64_t{4096}; };
    s.unix_time = [] { return int64_t{0}; };
    return Pages(s);
  }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> memory;
  std::unique_ptr<stats::Region> region;
  std::unique_ptr<stats::ScopeDirectory> directory;
  std::unique_ptr<stats::RegionView> view;
  stats::ScopeSlot cluster = 0;
  bool connected = true;
  ServerState state = ServerState::kLive;
  int quits = 0;
  std::string wishes;
};

bool holds(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Pages, MethodsAndPaths) {
  World w;
  const Pages p = w.pages();
  const struct {
    const char *method, *path;
    int status;
  } cases[] = {{"GET", "/ready", 200},
               {"POST", "/ready", 200},
               {"HEAD", "/ready", 200},
               {"DELETE", "/ready", 405},
               {"GET", "/quitquitquit", 405},
               {"HEAD", "/quitquitquit", 405},
               {"GET", "/", 200},
               {"GET", "", 200},
               {"GET", "/Ready", 404},
               {"GET", "/ready/", 404},
               {"GET", "/help", 200},
               {"GET", "/../ready", 404},
               {"GET", "/memory", 200},
               {"GET", "/hot_restart_version", 200}};
  for (const auto& c : cases) EXPECT_EQ(p.answer({c.method, c.path, {}}).status, c.status) << c.method << " " << c.path;
  EXPECT_EQ(w.quits, 0);
  EXPECT_EQ(p.answer({"POST", "/quitquitquit", {}}).status, 200);
  EXPECT_EQ(w.quits, 1);
}

TEST(Pages, HealthAndDrainAreAskedForByPost) {
  World w;
  const Pages p = w.pages();
  for (const char* page : {"/healthcheck/fail", "/healthcheck/ok", "/drain_listeners"})
    EXPECT_EQ(p.answer({"GET", page, {}}).status, 405) << page;
  EXPECT_EQ(w.wishes, "");
  EXPECT_EQ(p.answer({"POST", "/healthcheck/fail", {}}).body, "OK\n");
  EXPECT_EQ(p.answer({"POST", "/healthcheck/ok", {}}).body, "OK\n");
  EXPECT_EQ(p.answer({"POST", "/drain_listeners", {}}).body, "OK\n");
  EXPECT_EQ(p.answer({"POST", "/drain_listeners", {{"graceful", ""}}}).body, "OK\n");
  EXPECT_EQ(p.answer({"POST", "/drain_listeners", {{"inboundonly", ""}}}).status, 400);
  EXPECT_EQ(w.wishes, "fail ok drain:0 drain:600 ");
  w.connected = false;
  for (const char* page : {"/healthcheck/fail", "/healthcheck/ok", "/drain_listeners"})
    EXPECT_EQ(p.answer({"POST", page, {}}).status, 503) << page;
}

TEST(Pages, ReadyIsTheStateOfTheWhole) {
  World w;
  const Pages p = w.pages();
  w.state = ServerState::kInitializing;
  EXPECT_EQ(p.answer({"GET", "/ready", {}}).status, 503);
  EXPECT_EQ(p.answer({"GET", "/ready", {}}).body, "INITIALIZING\n");
  w.state = ServerState::kDraining;
  EXPECT_EQ(p.answer({"GET", "/ready", {}}).status, 503);
  EXPECT_EQ(p.answer({"GET", "/ready", {}}).body, "DRAINING\n");
  w.state = ServerState::kLive;
  EXPECT_EQ(p.answer({"GET", "/ready", {}}).body, "LIVE\n");
}

TEST(Pages, StatisticsWithoutADataPlane) {
  World w;
  w.connected = false;
  const Pages p = w.pages();
  EXPECT_EQ(p.answer({"GET", "/stats", {}}).body, "server.live: 0\n");
  EXPECT_TRUE(holds(p.answer({"GET", "/stats/prometheus", {}}).body, "envoy_server_live 0"));
  EXPECT_EQ(p.answer({"GET", "/clusters", {}}).status, 200);
}

TEST(Prometheus, NamesLabelsAndSumsOverWorkers) {
  World w;
  w.region->worker_stats(0).scope(w.cluster)[ClusterCounter::kRq2xx].add(5);
  w.region->worker_stats(1).scope(w.cluster)[ClusterCounter::kRq2xx].add(2);
  w.region->worker_stats(1).scope(w.cluster)[ClusterCounter::kRqActive].add(3);
  const std::string all = prometheus_text(*w.view, Model(), {});
  const std::string label = "envoy_cluster_name=\"a\\\"p\\\\i\"";
  EXPECT_TRUE(holds(all, "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\"," + label + "} 7"));
  EXPECT_TRUE(holds(all, "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\"," + label + "} 0"));
  EXPECT_TRUE(holds(all, "envoy_cluster_upstream_rq_active{" + label + "} 3"));
  EXPECT_TRUE(holds(all, "# TYPE envoy_cluster_upstream_rq_active gauge"));
  const size_t first = all.find("# TYPE envoy_cluster_upstream_rq_xx counter");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(all.find("# TYPE envoy_cluster_upstream_rq_xx ", first + 1), std::string::npos) << "a metric stands together";

  PrometheusOptions used{.used_only = true};
  const std::string little = prometheus_text(*w.view, Model(), used);
  EXPECT_EQ(little.find("class=\"5\""), std::string::npos);
  PrometheusOptions some{.wanted = [](std::string_view n) { return n == "envoy_cluster_upstream_rq_active"; }};
  EXPECT_EQ(prometheus_text(*w.view, Model(), some),
            "# HELP envoy_cluster_upstream_rq_active requests under way\n# TYPE envoy_cluster_upstream_rq_active gauge\n"
            "envoy_cluster_upstream_rq_active{" +
                label + "} 3\n");
}

TEST(Prometheus, TimesAreCumulativeMilliseconds) {
  World w;
  for (const uint64_t us : {7u, 70u, 700u, 7'000'000u})
    w.region->worker(0).histogram(stats::WorkerHistogram::kRequestTime).record(us * 1000);
  PrometheusOptions some{.wanted = [](std::string_view n) { return n == "millrace_downstream_rq_time"; }};
  const std::string text = prometheus_text(*w.view, Model(), some);
  for (const char* line :
       {"millrace_downstream_rq_time_bucket{le=\"0.01\"} 1", "millrace_downstream_rq_time_bucket{le=\"0.1\"} 2",
        "millrace_downstream_rq_time_bucket{le=\"1\"} 3", "millrace_downstream_rq_time_bucket{le=\"10000\"} 4",
        "millrace_downstream_rq_time_bucket{le=\"+Inf\"} 4", "millrace_downstream_rq_time_count 4",
        "millrace_downstream_rq_time_sum 7000.777"})
    EXPECT_TRUE(holds(text, line)) << line << "\n" << text;
}

TEST(Prometheus, NamesAreMadeFit) {
  EXPECT_EQ(prometheus_name("grpc-web.total"), "grpc_web_total");
  EXPECT_EQ(prometheus_name("2xx"), "_2xx");
  EXPECT_EQ(prometheus_label("a\nb\"c\\d"), "a\\nb\\\"c\\\\d");
}

}  // namespace
}  // namespace millrace::control::admin
