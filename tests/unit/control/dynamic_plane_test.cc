// A control plane that starts with objects that wait for a management server: what is published when, and what is stored.
#include <thread>

#include "control/admin/pages.h"
#include "control/dynamic_config.h"
#include "control/monotonic.h"
#include "lib/route/pattern_db.h"
#include "tests/unit/control/config_fixture.h"
#include "tests/unit/control/link_world.h"

namespace millrace::control {
namespace {

using namespace std::chrono_literals;
using NameSet = std::set<std::string>;

const char* kWaits = R"(
static_resources:
  listeners:
  - name: edge
    address: { socket_address: { address: 0.0.0.0, port_value: 8080 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          rds: { route_config_name: main, config_source: { ads: {} } }
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
  - { name: api, type: EDS, eds_cluster_config: { eds_config: { ads: {} } } }
)";

// What the listener was before it asked a server.
std::string static_config() {
  std::string text = kWaits;
  const std::string rds = "rds: { route_config_name: main, config_source: { ads: {} } }";
  text.replace(text.find(rds), rds.size(),
               "route_config: { name: before, virtual_hosts: [ { name: all, domains: [\"*\"], routes: [ { match: { prefix: / }, "
               "direct_response: { status: 200 } } ] } ] }");
  return text.substr(0, text.find("  clusters:"));
}

// A data plane that lives by itself and takes what it is given.
class LivingDataplane {
 public:
  explicit LivingDataplane(const std::string& run_dir)
      : dataplane_(run_dir + "/dataplane.sock", 1, 77, {}, route::platform()), thread_([this] { live(); }) {}
  ~LivingDataplane() {
    stopping_ = true;
    thread_.join();
  }
  uint64_t epoch() {
    const std::lock_guard lock(mutex_);
    const auto* tables = dataplane_.workers[0].tables;
    return tables == nullptr ? 0 : tables->epoch();
  }
  bool has_route_table(const char* name) {
    const std::lock_guard lock(mutex_);
    const auto* tables = dataplane_.workers[0].tables;
    return tables != nullptr && tables->route_table(table::object_id(table::Kind::kRouteTable, name)) != nullptr;
  }

 private:
  void live() {
    while (!stopping_) {
      {
        const std::lock_guard lock(mutex_);
        dataplane_.link->step(monotonic_ns());
        dataplane_.turn_all();
      }
      std::this_thread::sleep_for(1ms);
    }
  }
  std::mutex mutex_;
  std::atomic<bool> stopping_{false};
  millrace::testing::FakeDataplane dataplane_;
  std::thread thread_;
};

template <class Condition>
bool comes(Condition&& condition) {
  for (int i = 0; i < 30'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

class DynamicPlaneTest : public ConfigTest {
 protected:
  void SetUp() override {
    ConfigTest::SetUp();
    static int count = 0;
    config_.run_dir = work_directory() / ("run" + std::to_string(++count));
    config_.config_file = config_.run_dir + ".yaml";
    config_.dynamic.servers = true;
    write(kWaits);
  }
  void write(const std::string& text) { std::ofstream(config_.config_file) << text; }
  std::unique_ptr<ControlPlane> start() {
    ConfigErrors errors;
    auto plane = ControlPlane::start(config_, &errors);
    EXPECT_TRUE(plane.ok()) << (plane.ok() ? "" : plane.error()) << to_text(errors);
    return plane.ok() ? std::move(plane).value() : nullptr;
  }
  static XdsUpdate update(XdsType type, const google::protobuf::Message& m, const std::string& name) {
    XdsUpdate u;
    u.waits = true;
    u.type = type;
    u.version = "7";
    u.changed.push_back({name, "", m.SerializeAsString(), "", false});
    return u;
  }
  static XdsUpdate endpoints(int port) {
    api::ClusterLoadAssignment a;
    a.set_cluster_name("api");
    auto* s = a.add_endpoints()->add_lb_endpoints()->mutable_endpoint()->mutable_address()->mutable_socket_address();
    s->set_address("10.0.0.1");
    s->set_port_value(static_cast<uint32_t>(port));
    return update(XdsType::kEndpoints, a, "api");
  }
  static XdsUpdate routes() {
    api::RouteConfiguration r;
    r.set_name("main");
    auto* host = r.add_virtual_hosts();
    host->set_name("all");
    host->add_domains("*");
    auto* route = host->add_routes();
    route->mutable_match()->set_prefix("/");
    route->mutable_route()->set_cluster("api");
    return update(XdsType::kRoute, r, "main");
  }
  ControlConfig config_;
};

TEST_F(DynamicPlaneTest, NothingIsPublishedBeforeServersHaveSpoken) {
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  DynamicConfig& dynamic = plane->dynamic_config();
  EXPECT_TRUE(plane->held_back());
  EXPECT_EQ(plane->publisher().status().epoch, 0u) << "a data plane goes on with the tables it has";
  EXPECT_EQ(dynamic.wanted(XdsType::kRoute), NameSet{"main"});
  EXPECT_EQ(dynamic.wanted(XdsType::kEndpoints), NameSet{"api"});
  // An edit meanwhile is stored, and in force with the rest.
  const EditOutcome edit = plane->edit(
      [](const Model& m) {
        return m.apply(load_document("{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: own}", ""));
      },
      false, 0ms);
  EXPECT_EQ(to_text(edit.errors), "");
  EXPECT_EQ(edit.revision, 2u);
  EXPECT_EQ(plane->publisher().status().epoch, 0u);
  EXPECT_TRUE(dynamic.apply(routes()).empty());
  EXPECT_EQ(plane->publisher().status().epoch, 0u) << "the cluster still waits for its endpoints";
  EXPECT_TRUE(dynamic.apply(endpoints(80)).empty());
  EXPECT_FALSE(plane->held_back());
  EXPECT_EQ(plane->publisher().status().epoch, 1u);
  for (const auto& [kind, name] : {std::pair(table::Kind::kListener, "edge"), std::pair(table::Kind::kRouteTable, "main"),
                                   std::pair(table::Kind::kCluster, "api"), std::pair(table::Kind::kCluster, "own")})
    EXPECT_TRUE(plane->publisher().contains(table::object_id(kind, name))) << name;
  EXPECT_TRUE(dynamic.apply(endpoints(81)).empty());
  EXPECT_EQ(plane->publisher().status().epoch, 2u);
  EXPECT_EQ(dynamic.infos().at({XdsType::kEndpoints, "api"}).version, "7");
}

TEST_F(DynamicPlaneTest, WhatNobodyAnswersIsGoneOnWithout) {
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  plane->dynamic_config().expired(XdsType::kRoute, "main");
  EXPECT_TRUE(plane->held_back());
  plane->dynamic_config().expired(XdsType::kEndpoints, "api");
  EXPECT_FALSE(plane->held_back());
  EXPECT_TRUE(plane->publisher().contains(table::object_id(table::Kind::kListener, "edge"))) << "its requests get 404";
}

TEST_F(DynamicPlaneTest, DynamicObjectsAreForgottenAtARestart) {
  {
    const auto plane = start();
    ASSERT_NE(plane, nullptr);
    plane->dynamic_config().apply(routes());
    plane->dynamic_config().apply(endpoints(80));
    const EditOutcome edit = plane->edit(
        [](const Model& m) {
          return m.apply(load_document("{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: own}", ""));
        },
        false, 0ms);
    EXPECT_EQ(to_text(edit.errors), "");
    EXPECT_EQ(plane->model()->names(ConfigKind::kRoute), std::vector<std::string>{"main"});
  }
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  EXPECT_TRUE(plane->has_edits());
  EXPECT_EQ(plane->model()->names(ConfigKind::kCluster), (std::vector<std::string>{"api", "own"}));
  EXPECT_EQ(plane->model()->names(ConfigKind::kRoute), std::vector<std::string>{});
  EXPECT_EQ(plane->model()->assignments().size(), 0u);
  EXPECT_TRUE(plane->held_back());
}

TEST_F(DynamicPlaneTest, ARestartedControlLeavesTheTablesThatServe) {
  config_.dynamic.fetch_timeout = 300ms;  // counts from a server's first word, and there is none
  write(static_config());
  std::filesystem::create_directories(config_.run_dir);
  LivingDataplane dataplane(config_.run_dir);
  auto plane = start();
  ASSERT_NE(plane, nullptr);
  ASSERT_TRUE(comes([&] { return dataplane.has_route_table("before"); }));
  const uint64_t epoch = dataplane.epoch();
  plane.reset();
  write(kWaits);
  plane = start();
  ASSERT_NE(plane, nullptr);
  ASSERT_TRUE(comes([&] { return plane->inherited_epoch() >= epoch; }));
  std::this_thread::sleep_for(1s);
  EXPECT_TRUE(plane->held_back());
  EXPECT_EQ(dataplane.epoch(), epoch);
  EXPECT_TRUE(dataplane.has_route_table("before"));
  plane->dynamic_config().apply(endpoints(80));
  EXPECT_EQ(dataplane.epoch(), epoch) << "a part is not enough";
  plane->dynamic_config().apply(routes());
  ASSERT_TRUE(comes([&] { return dataplane.epoch() > epoch; }));
  EXPECT_TRUE(dataplane.has_route_table("main"));
  EXPECT_FALSE(dataplane.has_route_table("before"));
}

TEST_F(DynamicPlaneTest, ADataplaneWithoutTablesWaitsNoLongerThanTheTimeout) {
  config_.dynamic.fetch_timeout = 300ms;
  std::filesystem::create_directories(config_.run_dir);
  LivingDataplane dataplane(config_.run_dir);
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  EXPECT_TRUE(comes([&] { return dataplane.epoch() != 0; })) << "without what no server has brought";
  EXPECT_FALSE(plane->held_back());
}

TEST_F(DynamicPlaneTest, WithoutLimitItWaits) {
  config_.dynamic.fetch_timeout = 0ms;
  config_.dynamic.listeners = true;
  write("static_resources: { clusters: [ { name: api } ] }");
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  std::this_thread::sleep_for(500ms);
  EXPECT_TRUE(plane->held_back()) << "for listeners, as a whole";
  XdsUpdate none;
  none.type = XdsType::kListener;
  plane->dynamic_config().apply(none);
  EXPECT_FALSE(plane->held_back());
}

// /config_dump in one line, without what a model is made of.
std::string dump(ControlPlane& plane, const std::string& resource) {
  admin::Pages::Sources s;
  s.model = [&] { return plane.model(); };
  s.dynamic = [&] { return admin::DynamicView{plane.dynamic_config().infos(), {}, plane.waiting_objects(), plane.in_force()}; };
  const admin::Reply reply = admin::Pages(s).answer({"GET", "/config_dump", {{"resource", resource}, {"include_eds", ""}}});
  EXPECT_EQ(reply.status, 200) << reply.body;
  std::string out;
  for (const char c : reply.body)
    if (c != ' ' && c != '\n') out += c;
  return out;
}
bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(DynamicPlaneTest, ConfigDumpTellsStaticFromDynamic) {
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  DynamicConfig& dynamic = plane->dynamic_config();
  const std::string none = "{\"configs\":[]}";
  EXPECT_TRUE(holds(dump(*plane, "static_clusters"), "\"name\":\"api\""));
  EXPECT_EQ(dump(*plane, "dynamic_route_configs"), none);
  EXPECT_EQ(dump(*plane, "dynamic_endpoint_configs"), none);
  dynamic.apply(routes());
  dynamic.apply(endpoints(80));
  const std::string routes_dump = dump(*plane, "dynamic_route_configs");
  EXPECT_TRUE(holds(routes_dump,
                    "\"@type\":\"type.googleapis.com/envoy.admin.v3.RoutesConfigDump.DynamicRouteConfig\","
                    "\"version_info\":\"7\",\"route_config\":{"))
      << routes_dump;
  EXPECT_TRUE(holds(routes_dump, "\"last_updated\":\"20")) << routes_dump;
  EXPECT_EQ(dump(*plane, "static_route_configs"), none);
  EXPECT_TRUE(holds(dump(*plane, "dynamic_endpoint_configs"), "\"version_info\":\"7\",\"endpoint_config\":{"));
  EXPECT_EQ(dump(*plane, "static_endpoint_configs"), none);
  // A cluster that warms, and one that was refused.
  api::Cluster c;
  c.set_name("new");
  c.set_type(api::Cluster::EDS);
  c.mutable_eds_cluster_config()->mutable_eds_config()->mutable_ads();
  EXPECT_TRUE(dynamic.apply(update(XdsType::kCluster, c, "new")).empty());
  EXPECT_TRUE(holds(dump(*plane, "dynamic_warming_clusters"), "\"name\":\"new\""));
  EXPECT_EQ(dump(*plane, "dynamic_active_clusters"), none);
  c.set_name("bad");
  c.clear_eds_cluster_config();
  ASSERT_EQ(dynamic.apply(update(XdsType::kCluster, c, "bad")).size(), 1u);
  const std::string refused = dump(*plane, "dynamic_active_clusters");
  EXPECT_TRUE(holds(refused, "\"error_state\":{")) << refused;
  EXPECT_TRUE(holds(refused, "\"details\":\"eds_cluster_config.eds_config:isrequired\",\"version_info\":\"7\"")) << refused;
  // A listener that warms while the old one serves.
  const auto listener_of = [](const std::string& route) {
    api::Listener l = *static_cast<const api::Listener*>(load_document(kWaits, "").objects.front().message.get());
    l.set_name("more");
    l.mutable_address()->mutable_socket_address()->set_port_value(8090);
    api::HttpConnectionManager hcm;
    l.filter_chains(0).filters(0).typed_config().UnpackTo(&hcm);
    hcm.mutable_rds()->set_route_config_name(route);
    l.mutable_filter_chains(0)->mutable_filters(0)->mutable_typed_config()->PackFrom(hcm);
    return l;
  };
  EXPECT_TRUE(dynamic.apply(update(XdsType::kListener, listener_of("main"), "more")).empty());
  EXPECT_FALSE(holds(dump(*plane, "dynamic_listeners"), "warming_state"));
  EXPECT_TRUE(
      holds(dump(*plane, "dynamic_listeners"), "\"name\":\"more\",\"active_state\":{\"version_info\":\"7\",\"listener\":{"));
  EXPECT_TRUE(dynamic.apply(update(XdsType::kListener, listener_of("later"), "more")).empty());
  const std::string both = dump(*plane, "dynamic_listeners");
  EXPECT_TRUE(holds(both, "\"active_state\":{\"listener\":{") && holds(both, "\"warming_state\":{\"version_info\":\"7\""))
      << both;
}

TEST_F(DynamicPlaneTest, NothingWaitsNothingIsHeldBack) {
  write("static_resources: { clusters: [ { name: api } ] }");
  const auto plane = start();
  ASSERT_NE(plane, nullptr);
  EXPECT_FALSE(plane->held_back());
  EXPECT_EQ(plane->publisher().status().epoch, 1u);
}

}  // namespace
}  // namespace millrace::control
