// What one resource of a management server costs control, among 10,000 clusters of type EDS, 100,000 endpoints and 100,000 routes
// in one route configuration: from the bytes of the resource until the change is published in shared memory (no data plane takes
// it). p50_ms and p99_ms are of single updates; `changed` is how many table objects each wrote.
//   build/perf/bench-dynamic
#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "control/compile.h"
#include "control/dynamic_resources.h"
#include "control/publisher.h"
#include "control/warming.h"

using namespace millrace;
using namespace millrace::control;

namespace {

constexpr int kClusters = 10'000, kEndpointsOfEach = 10, kHosts = 10'000, kRoutesOfEach = 10;

std::string number(int n) { return std::to_string(n); }

api::Cluster cluster(int i) {
  api::Cluster c;
  c.set_name("cluster-" + number(i));
  c.set_type(api::Cluster::EDS);
  c.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  c.mutable_eds_cluster_config()->set_service_name("service-" + number(i));
  return c;
}
api::ClusterLoadAssignment assignment(int i, int first_port) {
  api::ClusterLoadAssignment a;
  a.set_cluster_name("service-" + number(i));
  auto* locality = a.add_endpoints();
  for (int k = 0; k < kEndpointsOfEach; ++k) {
    auto* socket = locality->add_lb_endpoints()->mutable_endpoint()->mutable_address()->mutable_socket_address();
    socket->set_address("10." + number(i / 250) + "." + number(i % 250) + "." + number(k + 1));
    socket->set_port_value(static_cast<uint32_t>(first_port));
  }
  return a;
}
api::Listener listener() {
  api::HttpConnectionManager hcm;
  hcm.set_stat_prefix("edge");
  hcm.mutable_rds()->set_route_config_name("main");
  hcm.mutable_rds()->mutable_config_source()->mutable_ads();
  auto* router = hcm.add_http_filters();
  router->set_name("router");
  router->mutable_typed_config()->set_type_url("type.googleapis.com/envoy.extensions.filters.http.router.v3.Router");
  api::Listener l;
  l.set_name("edge");
  auto* socket = l.mutable_address()->mutable_socket_address();
  socket->set_address("0.0.0.0");
  socket->set_port_value(80);
  auto* filter = l.add_filter_chains()->add_filters();
  filter->set_name("hcm");
  filter->mutable_typed_config()->PackFrom(hcm);
  return l;
}
void add_host(api::RouteConfiguration* r, int h) {
  auto* host = r->add_virtual_hosts();
  host->set_name("host-" + number(h));
  host->add_domains("host-" + number(h) + ".example");
  for (int k = 0; k < kRoutesOfEach; ++k) {
    auto* route = host->add_routes();
    route->mutable_match()->set_prefix("/service-" + number(k) + "/");
    route->mutable_route()->set_cluster("cluster-" + number((h * kRoutesOfEach + k) % kClusters));
  }
}

struct Control {
  Control() {
    PublisherConfig config;
    config.incarnation = 1;
    publisher = std::move(Publisher::create(config)).value();
    model.let_servers_answer();
    model.let_clusters_come();
  }
  // Bytes to a published epoch; how many objects it wrote.
  size_t send(XdsType type, std::vector<std::pair<std::string, std::string>> resources) {
    XdsUpdate u;
    u.waits = true;
    u.type = type;
    for (auto& [name, body] : resources) u.changed.push_back({name, "", std::move(body), "", false});
    DynamicResources::Outcome out = dynamic.apply(model, u, 0);
    model = std::move(out.model);
    const CompileResult r = compiler.compile(warming.update(model, 1));
    std::vector<PublishObject> objects;
    for (const TableObject& o : r.changed) objects.push_back({o.name, {o.bytes(), o.size_bytes}});
    const auto published = publisher->publish(objects, r.removed);
    if (!out.rejections.empty() || !published.ok() || !r.ok()) {
      std::fprintf(stderr, "refused: %s\n", out.rejections.empty() ? "" : out.rejections.front().reason.c_str());
      std::abort();
    }
    return r.changed.size();
  }
  size_t send(XdsType type, const std::string& name, const google::protobuf::Message& m) {
    return send(type, {{name, m.SerializeAsString()}});
  }

  Model model;
  DynamicResources dynamic;
  Warming warming;
  Compiler compiler;
  std::unique_ptr<Publisher> publisher;
};

// Everything, once.
struct Filled : Control {
  Filled() {
    std::vector<std::pair<std::string, std::string>> clusters, assignments;
    for (int i = 0; i < kClusters; ++i) {
      clusters.emplace_back("cluster-" + number(i), cluster(i).SerializeAsString());
      assignments.emplace_back("service-" + number(i), assignment(i, 80).SerializeAsString());
    }
    routes.set_name("main");
    for (int h = 0; h < kHosts; ++h) add_host(&routes, h);
    send(XdsType::kCluster, std::move(clusters));
    send(XdsType::kEndpoints, std::move(assignments));
    send(XdsType::kListener, "edge", listener());
    send(XdsType::kRoute, "main", routes);
  }
  api::RouteConfiguration routes;
};
Filled& filled() {
  static Filled f;
  return f;
}

// `make` gives the next resource, outside the time that counts.
template <class Make>
void updates(benchmark::State& state, XdsType type, Make&& make) {
  Filled& f = filled();
  std::vector<double> ms;
  size_t changed = 0;
  int n = 0;
  for (auto unused : state) {
    (void)unused;
    const auto [name, body] = make(f, ++n);
    const auto begun = std::chrono::steady_clock::now();
    changed = f.send(type, {{name, body}});
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    state.SetIterationTime(took);
    ms.push_back(took * 1000);
  }
  std::sort(ms.begin(), ms.end());
  state.counters["p50_ms"] = ms[ms.size() / 2];
  state.counters["p99_ms"] = ms[ms.size() * 99 / 100];
  state.counters["changed"] = static_cast<double>(changed);
}
using Resource = std::pair<std::string, std::string>;

void everything(benchmark::State& state) {
  for (auto unused : state) {
    (void)unused;
    Filled f;
    benchmark::DoNotOptimize(f.publisher->status().objects);
  }
}
void one_assignment(benchmark::State& state) {
  updates(state, XdsType::kEndpoints, [](Filled&, int n) {
    return Resource("service-" + number(n * 7 % kClusters), assignment(n * 7 % kClusters, 1000 + n % 60'000).SerializeAsString());
  });
}
void one_cluster(benchmark::State& state) {
  updates(state, XdsType::kCluster, [](Filled&, int n) {
    api::Cluster c = cluster(n * 7 % kClusters);
    c.mutable_connect_timeout()->set_seconds(1 + n % 1000);
    return Resource(c.name(), c.SerializeAsString());
  });
}
void one_route(benchmark::State& state) {
  updates(state, XdsType::kRoute, [](Filled& f, int n) {
    f.routes.mutable_virtual_hosts(n * 7 % kHosts)->mutable_routes(3)->mutable_match()->set_prefix("/changed-" + number(n));
    return Resource("main", f.routes.SerializeAsString());
  });
}
void one_virtual_host_more(benchmark::State& state) {
  updates(state, XdsType::kRoute, [](Filled& f, int) {
    add_host(&f.routes, f.routes.virtual_hosts_size());
    return Resource("main", f.routes.SerializeAsString());
  });
}

BENCHMARK(everything)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(one_assignment)->Iterations(1000)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(one_cluster)->Iterations(1000)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(one_route)->Iterations(200)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(one_virtual_host_more)->Iterations(100)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
