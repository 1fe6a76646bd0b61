// Pages of the admin interface against a region in memory; what real clients and a real Envoy say to them:
// tests/e2e/test_admin.py.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "control/admin/field_mask.h"
#include "control/admin/pages.h"
#include "control/admin/prometheus.h"
#include "control/config_kind.h"
#include "control/log_book.h"

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
    s.reopen_logs = [this] { ++reopened; };
    s.dynamic = [this] { return dynamic; };
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
  int quits = 0, reopened = 0;
  DynamicView dynamic;
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
               {"GET", "/logging", 405},
               {"GET", "/reset_counters", 405},
               {"GET", "/runtime_modify", 405},
               {"GET", "/reopen_logs", 405},
               {"GET", "/cpuprofiler", 405},
               {"POST", "/cpuprofiler", 400},
               {"GET", "/heap_dump", 501},
               {"POST", "/heapprofiler", 501},
               {"POST", "/runtime_modify", 400},
               {"GET", "/contention", 200},
               {"GET", "/runtime", 200},
               {"GET", "/hot_restart_version", 200}};
  for (const auto& c : cases) EXPECT_EQ(p.answer({c.method, c.path, {}}).status, c.status) << c.method << " " << c.path;
  EXPECT_EQ(w.quits, 0);
  EXPECT_EQ(p.answer({"POST", "/quitquitquit", {}}).status, 200);
  EXPECT_EQ(w.quits, 1);
}

TEST(Pages, ProfilersAndRuntimeSayWhyNot) {
  World w;
  const Pages p = w.pages();
  const auto post = [&](const char* path, std::map<std::string, std::string> query) { return p.answer({"POST", path, query}); };
  EXPECT_EQ(post("/cpuprofiler", {{"enable", "y"}}).status, 500);
  EXPECT_EQ(post("/cpuprofiler", {{"enable", "n"}}).body, "OK\n");
  EXPECT_EQ(post("/allocprofiler", {{"enable", "x"}}).status, 400);
  EXPECT_EQ(post("/allocprofiler", {{"enable", "y"}}).status, 501);
  const Reply refused = post("/runtime_modify", {{"a", "1"}});
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.body, "No admin layer specified");
  EXPECT_EQ(p.answer({"GET", "/runtime", {}}).body, "{\n \"layers\": [],\n \"entries\": {}\n}\n");
}

TEST(Pages, LoggingAsEnvoys) {
  World w;
  const Pages p = w.pages();
  LogBook& book = log_book();
  const auto ask = [&](std::map<std::string, std::string> query) { return p.answer({"POST", "/logging", query}); };
  EXPECT_EQ(ask({}).body,
            "active loggers:\n  admin: info\n  config: info\n  dns: info\n  file: info\n  link: info\n  main: info\n"
            "  stats: info\n");
  EXPECT_EQ(ask({{"paths", "admin:debug,stats:off"}}).status, 200);
  EXPECT_EQ(book.level(Logger::kAdmin), LogLevel::kDebug);
  EXPECT_EQ(book.level(Logger::kStats), LogLevel::kOff);
  EXPECT_TRUE(holds(ask({{"dns", "trace"}}).body, "  dns: trace"));
  const struct {
    std::map<std::string, std::string> query;
    const char* error;
  } bad[] = {{{{"level", "loud"}}, "unknown logger level"},
             {{{"quic", "info"}}, "unknown logger name"},
             {{{"paths", "main:info,quic:info"}}, "unknown logger name"},
             {{{"paths", "main"}}, "empty logger name or empty logger level"},
             {{{"level", "info"}, {"main", "info"}}, "invalid number of parameters"},
             {{{"group", "main:debug"}}, "group parameter requires fine-grain logging to be enabled"}};
  for (const auto& b : bad) {
    const Reply r = ask(b.query);
    EXPECT_EQ(r.status, 400);
    EXPECT_TRUE(r.body.starts_with(std::string("error: ") + b.error + "\n")) << r.body;
  }
  EXPECT_EQ(book.level(Logger::kMain), LogLevel::kInfo) << "what is wrong in part changes nothing";
  EXPECT_EQ(ask({{"level", "info"}}).status, 200);
  EXPECT_EQ(book.level(Logger::kAdmin), LogLevel::kInfo);
}

TEST(Pages, CountersBeginAgain) {
  World w;
  const Pages p = w.pages();
  const auto add = [&](uint64_t n) { w.region->worker_stats(1).scope(w.cluster)[ClusterCounter::kRq2xx].add(n); };
  const auto shows = [&](uint64_t n) {
    EXPECT_TRUE(holds(p.answer({"GET", "/stats", {}}).body, "cluster.a\"p\\i.upstream_rq_2xx: " + std::to_string(n)));
    EXPECT_TRUE(holds(
        p.answer({"GET", "/stats/prometheus", {}}).body,
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"a\\\"p\\\\i\"} " + std::to_string(n)));
  };
  add(5);
  w.region->worker_stats(0).scope(w.cluster)[ClusterCounter::kRqActive].add(3);
  w.region->worker(1).loop[stats::LoopCounter::kTableSwaps].add(4);
  shows(5);
  EXPECT_EQ(p.answer({"POST", "/reset_counters", {}}).body, "OK\n");
  shows(0);
  const std::string all = p.answer({"GET", "/stats/prometheus", {}}).body;
  EXPECT_TRUE(holds(all, "millrace_worker_table_swaps{millrace_worker=\"1\"} 0"));
  EXPECT_TRUE(holds(p.answer({"GET", "/stats", {}}).body, "cluster.a\"p\\i.upstream_rq_active: 3")) << "gauges stay";
  EXPECT_EQ(w.view->sum(w.cluster, ClusterCounter::kRq2xx), 5u) << "nothing of the data plane is written to";
  add(2);
  shows(2);
  w.connected = false;
  EXPECT_EQ(p.answer({"POST", "/reset_counters", {}}).status, 503);
}

TEST(Pages, CountersOfANewLifeAreWhole) {
  Baseline b(7);
  const MetricValue then[] = {{"n", "", false, 10}, {"g", "", true, 10}};
  MetricGroup g{"cluster.a.", "cluster.", {{"envoy.cluster_name", "a"}}, false, 1};
  b.add(g, then);
  const MetricValue now[] = {{"n", "", false, 25}, {"g", "", true, 11}};
  EXPECT_EQ(b.rest(g, now)[0].value, 15u);
  EXPECT_EQ(b.rest(g, now)[1].value, 11u);
  g.life = 2;
  EXPECT_EQ(b.rest(g, now)[0].value, 25u);
}

TEST(Pages, HistogramsInEveryForm) {
  World w;
  const Pages p = w.pages();
  for (const uint64_t us : {7u, 70u, 7'000u})
    w.region->worker(0).histogram(stats::WorkerHistogram::kRequestTime).record(us * 1000);
  const auto line = [&](const char* mode) {
    return p.answer({"GET", "/stats", {{"filter", "^millrace.downstream_rq_time$"}, {"histogram_buckets", mode}}}).body;
  };
  EXPECT_TRUE(
      line("cumulative").starts_with("millrace.downstream_rq_time: B0.01(nan,1) B0.025(nan,1) B0.05(nan,1) B0.1(nan,2) "));
  EXPECT_TRUE(line("disjoint").starts_with("millrace.downstream_rq_time: B0.01(nan,1) B0.025(nan,0) B0.05(nan,0) B0.1(nan,1) "));
  EXPECT_TRUE(line("detailed").starts_with("millrace.downstream_rq_time:\n  totals=0.00")) << line("detailed");
  EXPECT_TRUE(line("summary").starts_with("millrace.downstream_rq_time: P0(nan,"));
  EXPECT_TRUE(line("nonsense").starts_with("usage: "));
  const auto summary = p.answer({"GET", "/stats/prometheus", {{"histogram_buckets", "summary"}}}).body;
  EXPECT_TRUE(holds(summary, "# TYPE millrace_downstream_rq_time summary"));
  EXPECT_TRUE(holds(summary, "millrace_downstream_rq_time_count 3"));
  EXPECT_NE(summary.find("millrace_downstream_rq_time{quantile=\"0.999\"} "), std::string::npos);
  EXPECT_EQ(p.answer({"GET", "/stats/prometheus", {{"histogram_buckets", "detailed"}}}).status, 400);
  const auto others = p.answer({"GET", "/stats", {{"filter", "^millrace|^server|^cluster"}, {"invert_filter", ""}}}).body;
  EXPECT_TRUE(holds(others, "workers.watchdog_miss: 0") && others.find("millrace.") == std::string::npos) << others;
}

TEST(Pages, WatchdogByWorkerAndTogether) {
  World w;
  const Pages p = w.pages();
  w.region->worker(0).watchdog.misses.add(2);
  w.region->worker(1).watchdog.misses.add();
  w.region->worker(1).watchdog.mega_misses.add();
  const std::string all = p.answer({"GET", "/stats", {}}).body;
  for (const char* l : {"server.worker_0.watchdog_miss: 2", "server.worker_1.watchdog_miss: 1", "workers.watchdog_miss: 3",
                        "workers.watchdog_mega_miss: 1"})
    EXPECT_TRUE(holds(all, l)) << l;
  EXPECT_TRUE(
      holds(p.answer({"GET", "/stats/prometheus", {}}).body, "envoy_server_worker_watchdog_miss{envoy_worker_id=\"0\"} 2"));
}

TEST(Pages, WhatWaitsIsInTheInitDump) {
  World w;
  const Pages p = w.pages();
  EXPECT_EQ(p.answer({"GET", "/init_dump", {}}).body, "{}\n");
  w.dynamic.waiting = {{ConfigKind::kListener, "edge"}, {ConfigKind::kCluster, "web"}};
  const std::string all = p.answer({"GET", "/init_dump", {}}).body;
  EXPECT_NE(all.find("\"cluster web\""), std::string::npos) << all;
  const std::string listeners = p.answer({"GET", "/init_dump", {{"mask", "listener"}}}).body;
  EXPECT_NE(listeners.find("\"listener edge\""), std::string::npos);
  EXPECT_EQ(listeners.find("web"), std::string::npos);
  EXPECT_EQ(p.answer({"POST", "/reopen_logs", {}}).body, "OK\n");
  EXPECT_EQ(w.reopened, 1);
}

TEST(FieldMask, NamesFieldsAndTrims) {
  const auto* cluster = descriptor_of(ConfigKind::kCluster);
  const auto valid = [&](const char* path) { return names_field(cluster, parse_mask(path)[0]); };
  EXPECT_TRUE(valid("name"));
  EXPECT_TRUE(valid("load_assignment.endpoints"));
  EXPECT_FALSE(valid("load_assignment.endpoints.lb_endpoints")) << "through a list";
  EXPECT_FALSE(valid("nonsense"));
  EXPECT_FALSE(valid("name.more"));
  EXPECT_TRUE(parse_mask("").empty());
  const auto leaf = [](const char* s) { return TextValue{TextValue::Kind::kScalar, s, true, {}}; };
  TextValue inner{TextValue::Kind::kMap, "", false, {{"@type", leaf("t")}, {"name", leaf("n")}, {"type", leaf("STATIC")}}};
  TextValue v{TextValue::Kind::kMap, "", false, {{"cluster", inner}, {"last_updated", leaf("x")}}};
  trim(&v, parse_mask("cluster.name"));
  EXPECT_EQ(to_json(v, false), R"({"cluster": {"@type": "t", "name": "n"}})");
}

TEST(LogBook, LinesAsTextAndAsJson) {
  const int64_t t = 1'764'000'000'123;
  EXPECT_EQ(log_line(LogFormat::kText, t, Logger::kMain, LogLevel::kInfo, "hello"),
            "2025-11-24T16:00:00.123Z millrace-control: hello\n");
  EXPECT_EQ(log_line(LogFormat::kText, t, Logger::kDns, LogLevel::kError, "no"),
            "2025-11-24T16:00:00.123Z millrace-control: error: no\n");
  EXPECT_EQ(log_line(LogFormat::kJson, t, Logger::kDns, LogLevel::kWarning, "a \"b\"\n\xff \xc3\xa9"),
            "{\"time\":\"2025-11-24T16:00:00.123Z\",\"level\":\"warning\",\"logger\":\"dns\",\"program\":\"millrace-control\","
            "\"message\":\"a \\\"b\\\"\\u000a\\u00ff \xc3\xa9\"}\n");
}

TEST(LogBook, FilesAreReopenedAndLevelsHold) {
  const std::string path = ::testing::TempDir() + "/book.log";
  std::remove(path.c_str());
  const auto content = [](const std::string& file) {
    std::ifstream in(file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  LogBook book;
  EXPECT_FALSE(book.set_output(LogFormat::kJson, ::testing::TempDir() + "/no/such/folder").ok());
  ASSERT_TRUE(book.set_output(LogFormat::kText, path).ok());
  book.log(Logger::kMain, LogLevel::kInfo, "one");
  book.log(Logger::kMain, LogLevel::kDebug, "unheard");
  std::rename(path.c_str(), (path + ".1").c_str());
  book.log(Logger::kMain, LogLevel::kInfo, "two");
  ASSERT_TRUE(book.reopen().ok());
  book.set_level(Logger::kMain, LogLevel::kDebug);
  book.log(Logger::kMain, LogLevel::kDebug, "three");
  const std::string old = content(path + ".1");
  EXPECT_NE(old.find("one\n"), std::string::npos);
  EXPECT_NE(old.find("two\n"), std::string::npos);
  EXPECT_TRUE(content(path).ends_with("millrace-control: debug: three\n"));
  EXPECT_EQ(old.find("unheard"), std::string::npos);
  EXPECT_EQ(book.last(10).size(), 3u);
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
