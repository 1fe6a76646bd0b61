// What management servers say, and what of it is in force: synthetic updates in virtual time, and random ones with the static
// configuration as the oracle.
#include <cstring>
#include <random>

#include "control/cluster_references.h"
#include "control/compile.h"
#include "control/dynamic_resources.h"
#include "control/warming.h"
#include "lib/table/objects.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

using Names = std::vector<std::string>;
using NameSet = std::set<std::string>;
constexpr XdsType kTypes[] = {XdsType::kCluster, XdsType::kEndpoints, XdsType::kListener, XdsType::kRoute, XdsType::kSecret};

// Resources by name, as bytes.
using Resources = std::map<std::string, std::string>;

std::string number(int n) { return std::to_string(n); }

// ---- resources as text ------------------------------------------------------------------------------------------------------

std::string typed(const char* type, const std::string& rest) {
  return "\"@type\": type.googleapis.com/envoy." + std::string(type) + ", " + rest;
}
std::string cluster_json(const std::string& name, const std::string& discovery, int version = 1, const std::string& more = "") {
  return "{" +
         typed("config.cluster.v3.Cluster",
               "name: " + name + ", connect_timeout: " + number(version) + "s, " + discovery + more) +
         "}";
}
std::string eds(const std::string& service) {
  return "type: EDS, eds_cluster_config: { service_name: " + service + ", eds_config: { ads: {} } }";
}
std::string endpoints_of(const std::string& name, const std::vector<int>& ports) {
  std::string list;
  for (const int p : ports)
    list += (list.empty() ? "" : ", ") +
            ("{ endpoint: { address: { socket_address: { address: 10.0.0.1, port_value: " + number(p) + " } } } }");
  return "cluster_name: " + name + ", endpoints: [ { lb_endpoints: [" + list + "] } ]";
}
std::string assignment_json(const std::string& name, const std::vector<int>& ports) {
  return "{" + typed("config.endpoint.v3.ClusterLoadAssignment", endpoints_of(name, ports)) + "}";
}
// One virtual host for each cluster, so that a change of one leaves the others alone.
std::string routes_of(const std::string& name, const Names& clusters) {
  std::string hosts;
  for (size_t i = 0; i < clusters.size(); ++i) {
    const std::string n = number(static_cast<int>(i));
    hosts += (i == 0 ? "" : ", ") + ("{ name: h" + n + ", domains: [\"h" + n + ".example\"], routes: [ { match: { prefix: / }, " +
                                     "route: { cluster: " + clusters[i] + " } } ] }");
  }
  return "name: " + name + ", virtual_hosts: [" + hosts + "]";
}
std::string route_json(const std::string& name, const Names& clusters) {
  return "{" + typed("config.route.v3.RouteConfiguration", routes_of(name, clusters)) + "}";
}
std::string tls(const std::string& secret, bool by_sds) {
  return ", transport_socket: { name: tls, typed_config: {" +
         typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext",
               "common_tls_context: { tls_certificate_sds_secret_configs: [ { name: " + secret +
                   (by_sds ? ", sds_config: { ads: {} }" : "") + " } ] }") +
         "} }";
}
std::string listener_json(const std::string& name, int port, const std::string& routes, int version = 1,
                          const std::string& more = "") {
  const std::string hcm = typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                                "stat_prefix: " + name + ", server_name: v" + number(version) + ", " + routes +
                                    ", http_filters: [ { name: router, typed_config: { " +
                                    typed("extensions.filters.http.router.v3.Router", "") + "} } ]");
  return "{" +
         typed("config.listener.v3.Listener",
               "name: " + name + ", address: { socket_address: { address: 0.0.0.0, port_value: " + number(port) +
                   " } }, filter_chains: [ { filters: [ { name: hcm, typed_config: {" + hcm + "} } ]" + more + " } ]") +
         "}";
}
std::string rds(const std::string& name) { return "rds: { route_config_name: " + name + ", config_source: { ads: {} } }"; }
std::string tcp_json(const std::string& name, int port, const std::string& cluster) {
  return "{" +
         typed("config.listener.v3.Listener",
               "name: " + name + ", address: { socket_address: { address: 0.0.0.0, port_value: " + number(port) +
                   " } }, filter_chains: [ { filters: [ { name: tcp, typed_config: {" +
                   typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix: t, cluster: " + cluster) +
                   "} } ] } ]") +
         "}";
}
std::string secret_json(const std::string& name) {
  return "{" +
         typed("extensions.transport_sockets.tls.v3.Secret",
               "name: " + name +
                   ", tls_certificate: { certificate_chain: { filename: cert.pem }, private_key: { filename: key.pem } }") +
         "}";
}

Document document_of(const Names& objects) {
  std::string text = "resources:\n";
  if (objects.empty()) text = "resources: []\n";
  for (const std::string& o : objects) text += "- " + o + "\n";
  Document d = load_document(text, "test.yaml");
  EXPECT_EQ(to_text(d.errors), "") << text;
  return d;
}

// Resources of a kind as a server sends them, from their text.
Resources resources_of(const Names& objects) {
  Resources out;
  for (const LoadedObject& o : document_of(objects).objects) {
    const auto* f = o.message->GetDescriptor()->FindFieldByName(o.kind == ConfigKind::kEndpoints ? "cluster_name" : "name");
    out[o.message->GetReflection()->GetString(*o.message, f)] = o.message->SerializeAsString();
  }
  return out;
}

// ---- the world --------------------------------------------------------------------------------------------------------------

class World {
 public:
  explicit World(const Names& fixed = {}, bool clusters_come = true) {
    model.let_servers_answer();
    if (clusters_come) model.let_clusters_come();
    ModelEdit e = model.replace(document_of(fixed));
    EXPECT_EQ(errors_of(e), "");
    model = std::move(e.model);
    step();
  }

  // "" or the refusals, one a line: "name: reason".
  std::string send_bytes(XdsType type, const Resources& changed, const Names& removed = {}) {
    XdsUpdate u;
    u.waits = true;
    u.type = type;
    u.version = number(++version);
    for (const auto& [name, body] : changed) u.changed.push_back({name, "", body, "", false});
    u.removed = removed;
    DynamicResources::Outcome out = dynamic.apply(model, u, static_cast<int64_t>(version));
    model = std::move(out.model);
    for (const std::string& name : out.gone) warming.given_up(type, name);
    passed_over = out.passed_over;
    step();
    std::string text;
    for (const XdsRejection& r : out.rejections) text += r.name + ": " + r.reason + "\n";
    return text;
  }
  std::string send(XdsType type, const Names& objects, const Names& removed = {}) {
    return send_bytes(type, resources_of(objects), removed);
  }
  void expire(XdsType type, const std::string& name) {
    warming.given_up(type, name);
    step();
  }
  void at(base::TimeNs when) {
    now = when;
    step();
  }
  NameSet wanted(XdsType type) {
    const NameSet gone = warming.take_unwanted(type);
    if (!gone.empty()) {
      model = dynamic.forget(model, type, gone);
      step();
    }
    return warming.wanted(type);
  }
  void step() {
    warming.update(model, now);
    const CompileResult r = compiler.compile(warming.in_force());
    EXPECT_EQ(to_text(r.errors), "");
    last = r;
  }
  const Model& live() const { return warming.in_force(); }
  Names live_names(ConfigKind kind) const { return live().names(kind); }
  // The ports of a live cluster's endpoints; {-1}: there is no such cluster.
  std::vector<int> ports(const std::string& cluster) const {
    if (!live().clusters().contains(cluster)) return {-1};
    std::vector<int> out;
    for (const auto& l : live().endpoints().at(cluster)->config->endpoints())
      for (const auto& e : l.lb_endpoints())
        out.push_back(static_cast<int>(e.endpoint().address().socket_address().port_value()));
    return out;
  }
  std::string server_name(const std::string& listener) const {
    const auto l = live().listeners().find(listener);
    return l == live().listeners().end() ? "none"
                                         : std::get<api::HttpConnectionManager>(l->second->chains[0].filter).server_name();
  }
  Names route_clusters(const std::string& route) const {
    Names out;
    const auto r = live().routes().find(route);
    if (r == live().routes().end()) return {"none"};
    for (const auto& h : r->second->virtual_hosts) for_each_cluster(*h, [&](const std::string& c) { out.push_back(c); });
    return out;
  }
  // Routes that a request can take, and that name a cluster that is not in force.
  Names dangling() const {
    Names out;
    for (const auto& [name, l] : live().listeners())
      for (const ChainObject& c : l->chains) {
        for_each_cluster(c, [&](const std::string& n) {
          if (!live().clusters().contains(n)) out.push_back(name + " -> " + n);
        });
        if (c.route.empty()) continue;
        if (!live().routes().contains(c.route)) out.push_back(name + " has no " + c.route);
        else
          for (const std::string& n : route_clusters(c.route))
            if (!live().clusters().contains(n)) out.push_back(c.route + " -> " + n);
        for (const std::string& s : c.secrets.all())
          if (!live().secrets().contains(s)) out.push_back(name + " lacks " + s);
      }
    return out;
  }

  Model model;
  DynamicResources dynamic;
  Warming warming;
  Compiler compiler;
  CompileResult last;
  Names passed_over;
  base::TimeNs now = base::kSecond;
  uint64_t version = 0;
};

class DynamicTest : public ConfigTest {};

// ---- warming ----------------------------------------------------------------------------------------------------------------

TEST_F(DynamicTest, AClusterWaitsForItsEndpointsAndGoesOnWithTheOldOnes) {
  World w;
  EXPECT_EQ(w.send(XdsType::kCluster, {cluster_json("api", eds("s1"))}), "");
  EXPECT_EQ(w.ports("api"), std::vector<int>{-1}) << "not in force before its first answer";
  EXPECT_EQ(w.wanted(XdsType::kEndpoints), NameSet{"s1"});
  w.send(XdsType::kEndpoints, {assignment_json("s1", {1, 2})});
  EXPECT_EQ(w.ports("api"), (std::vector<int>{1, 2}));
  w.send(XdsType::kCluster, {cluster_json("api", eds("s2"))});
  EXPECT_EQ(w.ports("api"), (std::vector<int>{1, 2})) << "changed: waits for the other service, goes on with what it has";
  EXPECT_EQ(w.wanted(XdsType::kEndpoints), NameSet{"s2"});
  w.send(XdsType::kEndpoints, {assignment_json("s2", {3})});
  EXPECT_EQ(w.ports("api"), std::vector<int>{3});
  EXPECT_TRUE(w.warming.waiting().empty());
}

TEST_F(DynamicTest, NobodyAnswers) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("api", eds("s1"))});
  w.expire(XdsType::kEndpoints, "s1");
  EXPECT_EQ(w.ports("api"), std::vector<int>{}) << "a cluster without endpoints";
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  EXPECT_EQ(w.server_name("edge"), "none");
  w.expire(XdsType::kRoute, "main");
  EXPECT_EQ(w.server_name("edge"), "v1") << "without routes: 404";
  w.send(XdsType::kEndpoints, {assignment_json("s1", {1})});
  EXPECT_EQ(w.ports("api"), std::vector<int>{1});
  w.send(XdsType::kRoute, {route_json("main", {"api"})});
  EXPECT_EQ(w.route_clusters("main"), Names{"api"});
}

TEST_F(DynamicTest, ThatOneDoesNotExistEndsTheWait) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("api", eds("s1"))});
  w.send(XdsType::kEndpoints, Names{}, {"s1"});
  EXPECT_EQ(w.ports("api"), std::vector<int>{});
  w.send(XdsType::kEndpoints, {assignment_json("s1", {1})});
  w.send(XdsType::kEndpoints, Names{}, {"s1"});
  EXPECT_EQ(w.ports("api"), std::vector<int>{1}) << "as in Envoy: who asks for it keeps it";
}

TEST_F(DynamicTest, AServiceOfSeveralClusters) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", eds("s")), cluster_json("b", eds("s")), cluster_json("c", eds("other"))});
  w.send(XdsType::kEndpoints, {assignment_json("s", {1}), assignment_json("other", {9})});
  w.send(XdsType::kEndpoints, {assignment_json("s", {1, 2})});
  EXPECT_EQ(w.ports("a"), (std::vector<int>{1, 2}));
  EXPECT_EQ(w.ports("b"), (std::vector<int>{1, 2}));
  ASSERT_EQ(w.last.changed.size(), 2u) << "two endpoint sets and nothing else";
  EXPECT_EQ(w.last.changed[0].kind, table::Kind::kEndpointSet);
  EXPECT_EQ(w.last.changed[1].kind, table::Kind::kEndpointSet);
}

TEST_F(DynamicTest, AnEndpointThatIsThereTwiceCountsOnce) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", eds("s"))});
  EXPECT_EQ(w.send(XdsType::kEndpoints, {assignment_json("s", {1, 2, 1, 3, 3})}), "");
  EXPECT_EQ(w.ports("a"), (std::vector<int>{1, 2, 3}));
}

TEST_F(DynamicTest, AListenerWaitsForRoutesAndSecrets) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("api", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 443, rds("main"), 1, tls("web", true))});
  EXPECT_EQ(w.wanted(XdsType::kRoute), NameSet{"main"});
  EXPECT_EQ(w.wanted(XdsType::kSecret), NameSet{"web"});
  w.send(XdsType::kRoute, {route_json("main", {"api"})});
  EXPECT_EQ(w.server_name("edge"), "none");
  w.send(XdsType::kSecret, {secret_json("web")});
  EXPECT_EQ(w.server_name("edge"), "v1");
  EXPECT_EQ(w.dangling(), Names{});
  // A changed one goes on with its old chains.
  w.send(XdsType::kListener, {listener_json("edge", 443, rds("other"), 2, tls("web2", true))});
  EXPECT_EQ(w.wanted(XdsType::kRoute), NameSet{"other"});
  EXPECT_EQ(w.wanted(XdsType::kSecret), NameSet{"web2"});
  EXPECT_EQ(w.server_name("edge"), "v1");
  EXPECT_EQ(w.dangling(), Names{}) << "with what they use";
  w.send(XdsType::kSecret, {secret_json("web2")});
  w.send(XdsType::kRoute, {route_json("other", {"api"})});
  EXPECT_EQ(w.server_name("edge"), "v2");
  EXPECT_EQ(w.dangling(), Names{});
  EXPECT_EQ(w.live_names(ConfigKind::kRoute), Names{"other"});
  EXPECT_EQ(w.live_names(ConfigKind::kSecret), Names{"web2"});
  w.send(XdsType::kListener, Names{}, {"edge"});
  EXPECT_EQ(w.wanted(XdsType::kRoute), NameSet{});
  EXPECT_EQ(w.wanted(XdsType::kSecret), NameSet{});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), Names{});
  EXPECT_EQ(w.live_names(ConfigKind::kRoute), Names{});
  EXPECT_EQ(w.live_names(ConfigKind::kSecret), Names{});
}

TEST_F(DynamicTest, AClusterWaitsForItsSecret) {
  const std::string tls_up =
      ", transport_socket: { name: tls, typed_config: {" +
      typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context: { tls_certificate_sds_secret_configs: [ { name: client, sds_config: { self: {} "
            "} } ] }") +
      "} }";
  World w;
  EXPECT_EQ(w.send(XdsType::kCluster, {cluster_json("api", "type: STATIC", 1, tls_up)}), "");
  EXPECT_EQ(w.ports("api"), std::vector<int>{-1});
  w.send(XdsType::kSecret, {secret_json("client")});
  EXPECT_EQ(w.ports("api"), std::vector<int>{});
}

TEST_F(DynamicTest, ARouteIsLiveOnlyWithItsCluster) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  w.send(XdsType::kRoute, {route_json("main", {"a"})});
  EXPECT_EQ(w.server_name("edge"), "v1");
  // The route comes first, then the cluster, then its endpoints.
  EXPECT_EQ(w.send(XdsType::kRoute, {route_json("main", {"a", "b"})}), "");
  EXPECT_EQ(w.route_clusters("main"), Names{"a"});
  w.send(XdsType::kCluster, {cluster_json("b", eds("b"))});
  EXPECT_EQ(w.route_clusters("main"), Names{"a"});
  w.at(w.now + 2 * Warming::kClusterWait);
  EXPECT_EQ(w.route_clusters("main"), Names{"a"})
      << "a cluster that warms is waited for until its endpoints come or are given up";
  w.send(XdsType::kEndpoints, {assignment_json("b", {1})});
  EXPECT_EQ(w.route_clusters("main"), (Names{"a", "b"}));
}

TEST_F(DynamicTest, AClusterThatNeverComes) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  w.send(XdsType::kRoute, {route_json("main", {"a"})});
  w.send(XdsType::kRoute, {route_json("main", {"a", "ghost"})});
  EXPECT_EQ(w.warming.next_deadline(), w.now + Warming::kClusterWait);
  w.at(w.now + Warming::kClusterWait - 1);
  EXPECT_EQ(w.route_clusters("main"), Names{"a"});
  w.at(w.now + 1);
  EXPECT_EQ(w.route_clusters("main"), (Names{"a", "ghost"})) << "503 (NC), as in Envoy";
  EXPECT_EQ(w.warming.next_deadline(), base::kNever);
  w.send(XdsType::kRoute, {route_json("main", {"a", "ghost", "a"})});
  EXPECT_EQ(w.route_clusters("main"), (Names{"a", "ghost", "a"})) << "not waited for twice";
  // Without CDS nobody can bring it.
  World fixed({}, false);
  fixed.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  fixed.send(XdsType::kRoute, {route_json("main", {"ghost"})});
  EXPECT_EQ(fixed.server_name("edge"), "v1");
}

TEST_F(DynamicTest, AClusterThatIsUsedLeavesLater) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC"), cluster_json("b", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main")), tcp_json("raw", 81, "b")});
  w.send(XdsType::kRoute, {route_json("main", {"a"})});
  w.send(XdsType::kCluster, Names{}, {"a", "b"});
  EXPECT_EQ(w.live_names(ConfigKind::kCluster), (Names{"a", "b"}));
  EXPECT_EQ(w.model.names(ConfigKind::kCluster), Names{});
  w.send(XdsType::kListener, Names{}, {"raw"});
  EXPECT_EQ(w.live_names(ConfigKind::kCluster), Names{"a"}) << "with its last user";
  w.at(w.now + Warming::kClusterWait);
  EXPECT_EQ(w.live_names(ConfigKind::kCluster), Names{}) << "and then requests get 503 (NC), as in Envoy";
  EXPECT_EQ(w.warming.next_deadline(), base::kNever);
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC")});
  EXPECT_EQ(w.dangling(), Names{});
}

TEST_F(DynamicTest, AnAddressThatGoesFromOneListenerToAnother) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC")});
  const std::string inline_a = "route_config: {" + routes_of("a", {"a"}) + "}",
                    inline_b = "route_config: {" + routes_of("b", {"a"}) + "}";
  w.send(XdsType::kListener, {listener_json("one", 80, inline_a), listener_json("two", 81, inline_b)});
  // "one" is about to leave its address, which "three" is to have, but waits.
  w.send(XdsType::kListener,
         {listener_json("one", 82, rds("main")), listener_json("three", 80, "route_config: {" + routes_of("c", {"a"}) + "}")});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), (Names{"one", "two"}));
  w.send(XdsType::kRoute, {route_json("main", {"a"})});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), (Names{"one", "three", "two"}));
  // Both at once.
  w.send(XdsType::kListener, {listener_json("three", 81, inline_b), listener_json("two", 80, inline_a)});
  EXPECT_TRUE(w.warming.waiting().empty());
  EXPECT_EQ(w.live().listeners().at("two")->config->address().socket_address().port_value(), 80u);
  EXPECT_EQ(w.dangling(), Names{});
}

TEST_F(DynamicTest, FromInlineRoutesToRdsAndBack) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC"), cluster_json("b", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, "route_config: {" + routes_of("main", {"a"}) + "}")});
  EXPECT_EQ(w.route_clusters("main"), Names{"a"});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"), 2)});
  EXPECT_EQ(w.route_clusters("main"), Names{"a"}) << "the old one goes on with its routes";
  EXPECT_EQ(w.server_name("edge"), "v1");
  EXPECT_EQ(w.send(XdsType::kRoute, {route_json("main", {"b"})}), "");
  EXPECT_EQ(w.route_clusters("main"), Names{"b"});
  EXPECT_EQ(w.server_name("edge"), "v2");
  w.send(XdsType::kListener, {listener_json("edge", 80, "route_config: {" + routes_of("inline", {"a"}) + "}", 3)});
  EXPECT_EQ(w.wanted(XdsType::kRoute), NameSet{});
  EXPECT_EQ(w.live_names(ConfigKind::kRoute), Names{"inline"});
  EXPECT_EQ(w.dangling(), Names{});
}

// ---- static and dynamic -----------------------------------------------------------------------------------------------------

TEST_F(DynamicTest, StaticObjectsWin) {
  const std::string fixed = cluster_json("api", "load_assignment: {" + endpoints_of("api", {7}) + "}");
  World w({fixed, listener_json("edge", 80, "route_config: {" + routes_of("main", {"api"}) + "}"), secret_json("web")});
  EXPECT_EQ(w.send(XdsType::kCluster, {cluster_json("api", eds("x")), cluster_json("more", "type: STATIC")}), "");
  EXPECT_EQ(w.passed_over, Names{"api"});
  EXPECT_EQ(w.ports("api"), std::vector<int>{7});
  EXPECT_EQ(w.send(XdsType::kListener, {listener_json("edge", 99, rds("other"))}), "");
  EXPECT_EQ(w.passed_over, Names{"edge"});
  w.send(XdsType::kCluster, Names{}, {"api", "more"});
  EXPECT_EQ(w.live_names(ConfigKind::kCluster), Names{"api"}) << "and are not removed";
  w.send(XdsType::kListener, {listener_json("second", 81, rds("main"))});
  EXPECT_EQ(w.send(XdsType::kRoute, {route_json("main", {"api"})}), "main: name: a static route has the name 'main'\n");
}

TEST_F(DynamicTest, DynamicObjectsAreNotEditedNorStored) {
  World w({cluster_json("own", "load_assignment: {" + endpoints_of("own", {7}) + "}"), cluster_json("found", eds("s"))});
  w.send(XdsType::kCluster, {cluster_json("api", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  w.send(XdsType::kRoute, {route_json("main", {"api"})});
  const std::string elsewhere = " is managed by xDS: change it at its server\n";
  EXPECT_EQ(errors_of(w.model.apply(document_of({cluster_json("api", "type: STATIC", 2)}))),
            "test.yaml:2:72: resources[0].name: cluster 'api' is managed by xDS: change it at its server\n");
  EXPECT_EQ(errors_of(w.model.erase({ConfigKind::kCluster, "api"})), "cluster 'api'" + elsewhere);
  EXPECT_EQ(errors_of(w.model.erase({ConfigKind::kListener, "edge"})), "listener 'edge'" + elsewhere);
  EXPECT_EQ(errors_of(w.model.add_endpoint("api", {"10.0.0.9", 80, 1})), "endpoints of cluster 'api'" + elsewhere);
  EXPECT_EQ(errors_of(w.model.add_endpoint("found", {"10.0.0.9", 80, 1})), "endpoints of cluster 'found'" + elsewhere);
  EXPECT_EQ(errors_of(w.model.remove_route("main", "h0", "#0")), "route 'main'" + elsewhere);
  std::string stored;
  for (const ConfigKey& k : w.model.stored_keys()) stored += std::string(to_string(k.kind)) + " " + k.name + "\n";
  EXPECT_EQ(stored, "cluster found\ncluster own\n");
  // What is stored must be good when no server has said anything yet.
  const ModelEdit e = w.model.apply(document_of({listener_json("fixed", 81, "route_config: {" + routes_of("r", {"api"}) + "}")}));
  EXPECT_NE(errors_of(e).find("cluster 'api' is a management server's"), std::string::npos) << errors_of(e);
  // Everything static replaced: what servers brought stays.
  ModelEdit replaced = w.model.replace(document_of({cluster_json("own", "type: STATIC")}));
  EXPECT_EQ(errors_of(replaced), "");
  EXPECT_EQ(replaced.model.names(ConfigKind::kCluster), (Names{"api", "own"}));
  EXPECT_EQ(replaced.model.names(ConfigKind::kListener), Names{"edge"});
}

TEST_F(DynamicTest, StaticObjectsMayAskServers) {
  World w({cluster_json("api", eds("s")), listener_json("edge", 443, rds("main"), 1, tls("web", true))}, false);
  EXPECT_EQ(w.wanted(XdsType::kEndpoints), NameSet{"s"});
  EXPECT_EQ(w.wanted(XdsType::kRoute), NameSet{"main"});
  EXPECT_EQ(w.wanted(XdsType::kSecret), NameSet{"web"});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), Names{});
  w.send(XdsType::kRoute, {route_json("main", {"api"})});
  w.send(XdsType::kSecret, {secret_json("web")});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), Names{});
  w.send(XdsType::kEndpoints, {assignment_json("s", {1})});
  EXPECT_EQ(w.live_names(ConfigKind::kListener), Names{"edge"});
  EXPECT_EQ(w.dangling(), Names{});
}

// ---- refusals ---------------------------------------------------------------------------------------------------------------

TEST_F(DynamicTest, OneBadResourceNeverBlocksGoodOnes) {
  World w;
  Resources clusters = resources_of({cluster_json("a", "type: STATIC"), cluster_json("z", "type: STATIC")});
  clusters["bad"] = resources_of({cluster_json("bad", "type: STATIC")})["bad"];
  api::Cluster broken;
  broken.ParseFromString(clusters["bad"]);
  broken.mutable_connect_timeout()->set_seconds(-1);
  broken.GetReflection()->MutableUnknownFields(&broken)->AddVarint(999, 1);
  clusters["bad"] = broken.SerializeAsString();
  clusters["junk"] = "\xff\xff\xff";
  clusters["alias"] = clusters["a"];
  EXPECT_EQ(w.send_bytes(XdsType::kCluster, clusters),
            "alias: name: is \"a\", and it was sent as \"alias\"\n"
            "junk: is no envoy.config.cluster.v3.Cluster: its bytes cannot be read\n"
            "bad: field number 999 of Cluster is not supported by Millrace yet\n");
  EXPECT_EQ(w.live_names(ConfigKind::kCluster), (Names{"a", "z"}));
  EXPECT_EQ(w.dynamic.infos().at({XdsType::kCluster, "bad"}).error,
            "field number 999 of Cluster is not supported by Millrace yet");
  // What was there stays as it was.
  clusters = resources_of({cluster_json("a", "type: STATIC", 5)});
  api::Cluster a;
  a.ParseFromString(clusters["a"]);
  a.mutable_connect_timeout()->set_seconds(-1);
  clusters["a"] = a.SerializeAsString();
  EXPECT_EQ(w.send_bytes(XdsType::kCluster, clusters), "a: connect_timeout: must not be negative\n");
  EXPECT_EQ(w.live().clusters().at("a")->config->connect_timeout().seconds(), 1);
  EXPECT_EQ(w.dynamic.infos().at({XdsType::kCluster, "a"}).version, "1");
  EXPECT_EQ(w.dynamic.infos().at({XdsType::kCluster, "a"}).error_version, "2");
}

TEST_F(DynamicTest, RefusalsOfEachKind) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", eds("s")), cluster_json("b", "type: STATIC")});
  Resources bad = resources_of({assignment_json("s", {1})});
  api::ClusterLoadAssignment cla;
  cla.ParseFromString(bad["s"]);
  cla.mutable_endpoints(0)->mutable_lb_endpoints(0)->mutable_endpoint()->mutable_address()->mutable_socket_address()->set_address(
      "name");
  bad["s"] = cla.SerializeAsString();
  EXPECT_NE(
      w.send_bytes(XdsType::kEndpoints, bad).find("s: endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: "),
      std::string::npos);
  // Envoy looks at clusters of routes that are written in a listener, and not at others.
  EXPECT_EQ(w.send(XdsType::kListener, {listener_json("x", 80, "route_config: {" + routes_of("r", {"nowhere"}) + "}"),
                                        listener_json("good", 81, "route_config: {" + routes_of("q", {"b"}) + "}")}),
            "x: filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster: unknown cluster "
            "'nowhere'; there is a, b\n");
  EXPECT_EQ(w.live_names(ConfigKind::kListener), Names{"good"});
  EXPECT_EQ(w.send(XdsType::kListener, {listener_json("z", 81, rds("r"))}),
            "z: address.socket_address: 'z' has duplicate address '0.0.0.0:81' as existing listener 'good'\n");
}

// ---- filters of others ------------------------------------------------------------------------------------------------------

api::Listener with_filter(const std::string& type_url, const std::string& value) {
  api::Listener l;
  l.ParseFromString(resources_of({listener_json("edge", 80, rds("main"))})["edge"]);
  auto* any = l.mutable_filter_chains(0)->mutable_filters(0)->mutable_typed_config();
  api::HttpConnectionManager hcm;
  any->UnpackTo(&hcm);
  auto* filter = hcm.add_http_filters();
  filter->set_name("foreign");
  filter->mutable_typed_config()->set_type_url(type_url);
  filter->mutable_typed_config()->set_value(value);
  hcm.mutable_http_filters()->SwapElements(0, 1);
  any->PackFrom(hcm);
  return l;
}

TEST_F(DynamicTest, HarmlessFiltersPassAndOthersAreRefused) {
  const std::string google = "type.googleapis.com/";
  const std::string set("\x08\x01", 2);
  const auto typed_struct = [](const std::string& type) {
    return "\x0a" + std::string(1, static_cast<char>(type.size())) + type + std::string("\x12\x02\x0a\x00", 4);
  };
  const struct {
    std::string type, value;
    bool passes;
  } cases[] = {
      {"io.istio.http.peer_metadata.Config", set, true},
      {"stats.PluginConfig", set, true},
      {"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", set, true},
      {"udpa.type.v1.TypedStruct", typed_struct(google + "stats.PluginConfig"), true},
      {"udpa.type.v1.TypedStruct", typed_struct(google + "envoy.extensions.filters.http.rbac.v3.RBAC"), false},
      {"xds.type.v3.TypedStruct", "\xff", false},
      {"envoy.extensions.filters.http.fault.v3.HTTPFault", set, false},
      {"envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "", false},
      {"acme.Wall", "", false},
  };
  for (const auto& c : cases) {
    World w;
    const std::string refused =
        w.send_bytes(XdsType::kListener, {{"edge", with_filter(google + c.type, c.value).SerializeAsString()}});
    EXPECT_EQ(refused.empty(), c.passes) << c.type << ": " << refused;
    const char* where = "edge: filter_chains[0].filters[0].typed_config.http_filters[0]";
    EXPECT_TRUE(c.passes || refused.starts_with(where)) << refused;
    EXPECT_EQ(w.model.listeners().contains("edge"), c.passes);
  }
}

// ---- large route configurations ---------------------------------------------------------------------------------------------

TEST_F(DynamicTest, OnlyChangedVirtualHostsAreMadeAnew) {
  World w;
  w.send(XdsType::kCluster, {cluster_json("a", "type: STATIC"), cluster_json("b", "type: STATIC")});
  w.send(XdsType::kListener, {listener_json("edge", 80, rds("main"))});
  w.send(XdsType::kRoute, {route_json("main", {"a", "a", "a"})});
  const auto before = w.live().routes().at("main");
  EXPECT_EQ(w.send(XdsType::kRoute, {route_json("main", {"a", "b", "a"})}), "");
  const auto after = w.live().routes().at("main");
  EXPECT_EQ(after->virtual_hosts[0], before->virtual_hosts[0]);
  EXPECT_EQ(after->virtual_hosts[2], before->virtual_hosts[2]);
  EXPECT_EQ(w.route_clusters("main"), (Names{"a", "b", "a"}));
  ASSERT_EQ(w.last.changed.size(), 1u);
  EXPECT_EQ(w.last.changed[0].kind, table::Kind::kVirtualHost);
  // The same again: nothing. Another host, a bad host, another setting of the whole: looked at as a whole.
  w.send(XdsType::kRoute, {route_json("main", {"a", "b", "a"})});
  EXPECT_EQ(w.live().routes().at("main"), after);
  w.send(XdsType::kRoute, {route_json("main", {"a", "b", "a", "b"})});
  EXPECT_EQ(w.route_clusters("main"), (Names{"a", "b", "a", "b"}));
  EXPECT_EQ(w.live().routes().at("main")->virtual_hosts[1], after->virtual_hosts[1]);
  api::RouteConfiguration r;
  r.ParseFromString(resources_of({route_json("main", {"a", "b", "a", "b"})})["main"]);
  r.mutable_virtual_hosts(3)->mutable_routes(0)->clear_match();
  EXPECT_EQ(w.send_bytes(XdsType::kRoute, {{"main", r.SerializeAsString()}}),
            "main: virtual_hosts[3].routes[0].match: is required\n");
  r.mutable_virtual_hosts(3)->mutable_routes(0)->mutable_match()->set_prefix("/");
  r.mutable_virtual_hosts(3)->set_domains(0, "h0.example");
  EXPECT_NE(w.send_bytes(XdsType::kRoute, {{"main", r.SerializeAsString()}}), "") << "a domain twice";
  r.mutable_virtual_hosts(3)->set_domains(0, "other.example");
  r.set_ignore_port_in_host_matching(true);
  EXPECT_EQ(w.send_bytes(XdsType::kRoute, {{"main", r.SerializeAsString()}}), "");
  EXPECT_EQ(w.live().routes().at("main")->virtual_hosts[3]->domains(0), "other.example");
  EXPECT_TRUE(w.live().routes().at("main")->config->ignore_port_in_host_matching());
  // The first goes: the others are those that were there.
  const auto four = w.live().routes().at("main");
  r.mutable_virtual_hosts()->DeleteSubrange(0, 1);
  EXPECT_EQ(w.send_bytes(XdsType::kRoute, {{"main", r.SerializeAsString()}}), "");
  const auto three = w.live().routes().at("main");
  ASSERT_EQ(three->virtual_hosts.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(three->virtual_hosts[i], four->virtual_hosts[i + 1]);
}

// ---- any order --------------------------------------------------------------------------------------------------------------

// A server's whole configuration, and the same as a static one.
struct Snapshot {
  Resources resources[kXdsTypes];
  Names fixed;
};

Snapshot random_snapshot(std::mt19937_64& random) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint64_t>(n)); };
  Names objects[kXdsTypes];
  Snapshot s;
  const auto add = [&](XdsType type, const std::string& dynamic, const std::string& fixed) {
    objects[static_cast<size_t>(type)].push_back(dynamic);
    if (!fixed.empty()) s.fixed.push_back(fixed);
  };
  std::vector<std::vector<int>> services;
  for (int i = 0; i < 3; ++i) {
    std::vector<int> ports;
    for (int p = 1; p <= 4; ++p)
      if (below(2) == 0) ports.push_back(p + 10 * i);
    add(XdsType::kEndpoints, assignment_json("s" + number(i), ports), "");
    services.push_back(ports);
  }
  Names clusters;
  for (int i = 0; i < 6; ++i) {
    if (below(3) == 0 && i != 5) continue;
    const std::string name = "c" + number(i);
    const int service = below(3), version = 1 + below(3);
    const bool inlined = below(4) == 0;
    const std::string written = "load_assignment: {" + endpoints_of(name, services[static_cast<size_t>(service)]) + "}";
    add(XdsType::kCluster, cluster_json(name, inlined ? written : eds("s" + number(service)), version),
        cluster_json(name, written, version));
    clusters.push_back(name);
  }
  std::vector<Names> routes;
  for (int i = 0; i < 3; ++i) {
    Names used;
    for (int n = 1 + below(4); n > 0; --n) used.push_back(clusters[random() % clusters.size()]);
    const std::string name = "r" + number(i);
    add(XdsType::kRoute, route_json(name, used), "");
    routes.push_back(used);
  }
  for (int i = 0; i < 2; ++i) add(XdsType::kSecret, secret_json("k" + number(i)), "");
  NameSet secrets;
  NameSet held;  // route configurations that a listener has: a second one would be called otherwise where they are written inline
  for (int i = 0; i < 4; ++i) {
    if (below(4) == 0) continue;
    const std::string name = "l" + number(i);
    const int port = 8000 + i, version = 1 + below(3), secret = below(2);
    const size_t route = random() % routes.size();
    const bool secure = below(3) == 0;
    if (below(5) == 0) {
      const std::string text = tcp_json(name, port, clusters[random() % clusters.size()]);
      add(XdsType::kListener, text, text);
      continue;
    }
    const bool inlined = below(4) == 0;
    const std::string r = inlined ? "inline-" + name : "r" + number(static_cast<int>(route));
    if (!held.insert(r).second) continue;
    const std::string written = "route_config: {" + routes_of(r, routes[route]) + "}";
    const std::string k = "k" + number(secret);
    if (secure && secrets.insert(k).second) s.fixed.push_back(secret_json(k));
    add(XdsType::kListener, listener_json(name, port, inlined ? written : rds(r), version, secure ? tls(k, true) : ""),
        listener_json(name, port, written, version, secure ? tls(k, false) : ""));
  }
  for (const XdsType t : kTypes) s.resources[static_cast<size_t>(t)] = resources_of(objects[static_cast<size_t>(t)]);
  return s;
}

// The engine's part: what was accepted is not delivered again, names nobody asks for are forgotten.
class Client {
 public:
  explicit Client(World& world) : world_(world) {}
  // One response of a type; false: there was nothing new.
  bool deliver(XdsType type, const Resources& has, std::mt19937_64* some = nullptr) {
    Resources& known = known_[static_cast<size_t>(type)];
    const bool whole = type == XdsType::kCluster || type == XdsType::kListener;
    Resources changed;
    Names removed;
    if (whole) {
      for (const auto& [name, body] : known)
        if (!has.contains(name)) removed.push_back(name);
    } else {
      const NameSet names = world_.wanted(type);
      std::erase_if(known, [&](const auto& k) { return !names.contains(k.first); });
    }
    for (const auto& [name, body] : has) {
      if (!whole && !world_.warming.wanted(type).contains(name)) continue;
      if (!whole && some != nullptr && (*some)() % 3 == 0) continue;  // those that come by name need not come at once
      const auto it = known.find(name);
      if (it == known.end() || it->second != body) changed[name] = body;
    }
    if (changed.empty() && removed.empty()) return false;
    const std::string refused = world_.send_bytes(type, changed, removed);
    for (const auto& [name, body] : changed)
      if (refused.find(name + ": ") == std::string::npos) known[name] = body;
    for (const std::string& name : removed) known.erase(name);
    return true;
  }

 private:
  World& world_;
  Resources known_[kXdsTypes];
};

std::string objects_text(const Compiler& c) {
  std::string out;
  for (const TableObject& o : c.objects())
    out += std::string(table::to_string(o.kind)) + " " + o.name + " " + number(static_cast<int>(o.size_bytes)) + "\n";
  return out;
}
bool same_objects(const Compiler& a, const Compiler& b) {
  const auto x = a.objects(), y = b.objects();
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i)
    if (x[i].kind != y[i].kind || x[i].name != y[i].name || x[i].size_bytes != y[i].size_bytes ||
        std::memcmp(x[i].bytes(), y[i].bytes(), x[i].size_bytes) != 0)
      return false;
  return true;
}

TEST_F(DynamicTest, AnyOrderEndsAsTheStaticConfigurationAndNothingDangles) {
  const char* given = std::getenv("SEED");
  const uint64_t first = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  const uint64_t seeds = given != nullptr ? 1 : 150;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("SEED=" + std::to_string(seed));
    std::mt19937_64 random(seed);
    World w;
    Client client(w);
    Snapshot s;
    for (int generation = 0; generation < 4; ++generation) {
      s = random_snapshot(random);
      // Types in any order, some of them twice, some not at all before the next generation.
      for (int n = 0; n < 8; ++n) {
        const XdsType type = kTypes[random() % kXdsTypes];
        client.deliver(type, s.resources[static_cast<size_t>(type)], &random);
        ASSERT_EQ(w.dangling(), Names{}) << "generation " << generation << ", after " << short_name(type);
      }
    }
    // Then all of it is delivered, until there is no more to say.
    bool more = true;
    for (int round = 0; more; ++round) {
      ASSERT_LT(round, 10);
      more = false;
      std::vector<XdsType> order(std::begin(kTypes), std::end(kTypes));
      std::shuffle(order.begin(), order.end(), random);
      for (const XdsType type : order) {
        more = client.deliver(type, s.resources[static_cast<size_t>(type)]) || more;
        ASSERT_EQ(w.dangling(), Names{});
      }
    }
    const ModelEdit fixed = Model().replace(document_of(s.fixed));
    ASSERT_EQ(errors_of(fixed), "");
    Compiler oracle;
    ASSERT_EQ(to_text(oracle.compile(fixed.model).errors), "");
    std::string waits;
    for (const ConfigKey& k : w.warming.waiting()) waits += std::string(to_string(k.kind)) + " " + k.name + "\n";
    ASSERT_EQ(waits, "");
    ASSERT_EQ(objects_text(w.compiler), objects_text(oracle));
    ASSERT_TRUE(same_objects(w.compiler, oracle));
  }
}

}  // namespace
}  // namespace millrace::control
