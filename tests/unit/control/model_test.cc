#include "control/model.h"

#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

api::Route route(const std::string& yaml) {
  api::Route r;
  EXPECT_EQ(to_text(load_message(yaml, "route.yaml", &r)), "");
  return r;
}
std::vector<std::string> route_names(const Model& m, const std::string& config = "main") {
  std::vector<std::string> out;
  for (const auto& h : m.routes().at(config)->virtual_hosts)
    for (const auto& r : h->routes()) out.push_back(r.name());
  return out;
}
using Names = std::vector<std::string>;

const char* kTwoRoutes =
    "- { name: one, match: { prefix: /1 }, route: { cluster: api } }\n- { name: two, match: { prefix: /2 }, route: { cluster: "
    "api } }\n";

class ModelTest : public ConfigTest {
 protected:
  Model model_ = model_of(gateway_yaml(kTwoRoutes));
};

TEST_F(ModelTest, SplitsWhatIsEditedApart) {
  EXPECT_EQ(model_.names(ConfigKind::kListener), Names{"edge"});
  EXPECT_EQ(model_.names(ConfigKind::kRoute), Names{"main"});
  EXPECT_EQ(model_.names(ConfigKind::kCluster), (Names{"api", "canary"}));
  EXPECT_EQ(model_.names(ConfigKind::kEndpoints), (Names{"api", "canary"}));
  EXPECT_FALSE(model_.clusters().at("api")->config->has_load_assignment());
  EXPECT_EQ(model_.routes().at("main")->listener, "edge");
}

// What comes out goes back in and is the same, object by object and as pointers: the compiler then has nothing to do.
TEST_F(ModelTest, EveryObjectRoundTrips) {
  for (const auto& file : files_in("good")) {
    const Model m = model_of(read_file(file));
    Model again = m;
    for (ConfigKind kind :
         {ConfigKind::kSecret, ConfigKind::kEndpoints, ConfigKind::kCluster, ConfigKind::kRoute, ConfigKind::kListener}) {
      for (const std::string& name : m.names(kind)) {
        if (kind == ConfigKind::kSecret && m.secrets().at(name)->derived) continue;
        const std::string yaml = to_yaml(*m.message({kind, name}), true);
        const Document d = load_document(yaml, name);
        ASSERT_EQ(to_text(d.errors), "") << file << "\n" << yaml;
        const ModelEdit e = again.apply(d);
        ASSERT_EQ(errors_of(e), "") << file << "\n" << yaml;
        EXPECT_EQ(to_yaml(*e.model.message({kind, name}), true), yaml);
        again = e.model;
      }
    }
    EXPECT_EQ(to_text(Model::diff(m, again)), "") << file;
    EXPECT_EQ(m.routes(), again.routes()) << file << ": shared, not copied";
    EXPECT_EQ(m.clusters(), again.clusters());
    EXPECT_EQ(m.endpoints(), again.endpoints());
    EXPECT_EQ(m.secrets(), again.secrets());
    EXPECT_EQ(m.listeners(), again.listeners());
  }
}

TEST_F(ModelTest, AddRouteAtEveryPlace) {
  const api::Route fresh = route("{ name: new, match: { prefix: /n }, route: { cluster: canary } }");
  using K = RoutePlace::Kind;
  const struct {
    RoutePlace place;
    Names expected;
  } cases[] = {{{K::kLast, 0, ""}, {"one", "two", "new"}},      {{K::kFirst, 0, ""}, {"new", "one", "two"}},
               {{K::kIndex, 1, ""}, {"one", "new", "two"}},     {{K::kIndex, 2, ""}, {"one", "two", "new"}},
               {{K::kBefore, 0, "two"}, {"one", "new", "two"}}, {{K::kAfter, 0, "one"}, {"one", "new", "two"}},
               {{K::kBefore, 0, "#0"}, {"new", "one", "two"}}};
  for (const auto& c : cases) {
    const ModelEdit e = model_.add_route("main", "all", fresh, c.place);
    EXPECT_EQ(errors_of(e), "");
    EXPECT_EQ(route_names(e.model), c.expected);
    EXPECT_EQ(e.model.clusters(), model_.clusters()) << "all the rest is shared";
  }
  EXPECT_EQ(route_names(model_), (Names{"one", "two"})) << "the old model stays";
}

TEST_F(ModelTest, AddRouteRefusals) {
  const auto add = [&](const std::string& config, const std::string& host, const std::string& yaml, RoutePlace place = {}) {
    return errors_of(model_.add_route(config, host, route(yaml), place));
  };
  const std::string good = "{ match: { prefix: / }, route: { cluster: api } }";
  EXPECT_EQ(add("nope", "all", good), "no route configuration 'nope'; there is main\n");
  EXPECT_EQ(add("main", "nope", good), "no virtual host 'nope' in main; there is all\n");
  EXPECT_EQ(add("main", "", good), "") << "the only virtual host needs no name";
  EXPECT_EQ(add("main", "all", good, {RoutePlace::Kind::kIndex, 3, ""}), "no place 3 in virtual host all: it has 2 routes\n");
  EXPECT_EQ(add("main", "all", good, {RoutePlace::Kind::kAfter, 0, "three"}),
            "no route 'three' in virtual host all; there is one, two\n");
  EXPECT_EQ(add("main", "all", good, {RoutePlace::Kind::kAfter, 0, "#2"}),
            "no route #2 in virtual host all: it has 2 routes, from #0\n");
  EXPECT_EQ(add("main", "all", "{ name: one, match: { prefix: / }, route: { cluster: api } }"),
            "virtual host all has a route named 'one' already\n");
  EXPECT_EQ(add("main", "all", "{ match: { prefix: / }, route: { cluster: gone } }"),
            "route.cluster: unknown cluster 'gone'; there is api, canary\n");
  EXPECT_EQ(add("main", "all", "{ match: { prefix: / } }"), "route: needs one of route, redirect or direct_response\n");
  EXPECT_NE(add("main", "all", "{ match: { safe_regex: { regex: '(' } }, route: { cluster: api } }").find("match.safe_regex"),
            std::string::npos);
}

TEST_F(ModelTest, RemoveRoute) {
  EXPECT_EQ(route_names(model_.remove_route("main", "all", "one").model), Names{"two"});
  EXPECT_EQ(route_names(model_.remove_route("main", "all", "#1").model), Names{"one"});
  EXPECT_EQ(errors_of(model_.remove_route("main", "all", "three")), "no route 'three' in virtual host all; there is one, two\n");
}

TEST_F(ModelTest, SetWeights) {
  const Model m =
      model_of(gateway_yaml("- { name: split, match: { prefix: / }, route: { weighted_clusters: { clusters: [{ name: api, "
                            "weight: 90 }, { name: canary, weight: 10 }] } } }\n"
                            "- { name: plain, match: { prefix: / }, route: { cluster: api } }"));
  const ModelEdit e = m.set_weights("main", "all", "split", {{"canary", 100}, {"api", 0}});
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(to_text(Model::diff(m, e.model)),
            "~ route main: virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].weight: 90 -> 0\n"
            "~ route main: virtual_hosts[0].routes[0].route.weighted_clusters.clusters[1].weight: 10 -> 100\n");
  EXPECT_EQ(errors_of(m.set_weights("main", "all", "split", {{"x", 1}})),
            "cluster 'x' is not among the weighted clusters of route 'split'; there is api, canary\n");
  EXPECT_EQ(errors_of(m.set_weights("main", "all", "plain", {{"api", 1}})), "route 'plain' has no weighted_clusters\n");
  EXPECT_EQ(errors_of(m.set_weights("main", "all", "split", {{"canary", 0}, {"api", 0}})),
            "route main: virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the weights sum up to 0: at least one must "
            "be greater\n");
}

TEST_F(ModelTest, ParseEndpoint) {
  EXPECT_EQ(parse_endpoint("10.0.0.1:80")->address, "10.0.0.1");
  EXPECT_EQ(parse_endpoint("[fd00:0::1]:8080")->address, "fd00::1");
  EXPECT_EQ(parse_endpoint("[fd00::1]:8080")->port, 8080);
  for (const char* bad : {"", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "fd00::1:80", "[10.0.0.1]:80", "host:80",
                          "10.0.0.1:80x", ":80", "[fd00::1:80"})
    EXPECT_FALSE(parse_endpoint(bad).ok()) << bad;
}

TEST_F(ModelTest, Endpoints) {
  const EndpointSpec fresh{"10.0.0.9", 81, 3};
  ModelEdit e = model_.add_endpoint("api", fresh);
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(to_text(Model::diff(model_, e.model)),
            "~ endpoint api: + endpoints[0].lb_endpoints[2]: {\"endpoint\": {\"address\": {\"socket_address\": {\"address\": "
            "\"10.0.0.9\", \"port_value\": 81}}}, \"load_balancing_weight\": 3}\n");
  EXPECT_EQ(errors_of(e.model.add_endpoint("api", fresh)), "cluster api has endpoint 10.0.0.9:81 already\n");
  e = e.model.drain_endpoint("api", {"fd00:0:0::2", 80, 1});
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(e.model.endpoints().at("api")->config->endpoints(0).lb_endpoints(1).health_status(),
            envoy::config::core::v3::DRAINING);
  e = e.model.drain_endpoint("api", {"fd00::2", 80, 1}, false);
  e = e.model.remove_endpoint("api", fresh);
  EXPECT_EQ(to_text(Model::diff(model_, e.model)), "");
  EXPECT_EQ(errors_of(model_.remove_endpoint("api", fresh)),
            "cluster api has no endpoint 10.0.0.9:81; there is 10.0.0.1:80, [fd00::2]:80\n");
  EXPECT_EQ(errors_of(model_.add_endpoint("db", fresh)), "no cluster 'db'; there is api, canary\n");
  const ModelEdit none = model_.remove_endpoint("canary", {"10.0.1.1", 80, 1});
  EXPECT_EQ(errors_of(none), "");
  EXPECT_EQ(none.model.endpoints().at("canary")->config->endpoints_size(), 0);
  EXPECT_EQ(errors_of(none.model.add_endpoint("canary", fresh)), "");
}

TEST_F(ModelTest, EraseIsRefusedWhileInUse) {
  EXPECT_EQ(errors_of(model_.erase({ConfigKind::kCluster, "api"})),
            "cluster 'api' is in use by route main (virtual host all, route one) and 1 more\n");
  EXPECT_EQ(errors_of(model_.erase({ConfigKind::kRoute, "main"})), "route 'main' is in use by listener edge\n");
  EXPECT_EQ(errors_of(model_.erase({ConfigKind::kEndpoints, "api"})), "endpoint 'api' is in use by cluster api\n");
  EXPECT_EQ(errors_of(model_.erase({ConfigKind::kCluster, "nope"})), "no cluster 'nope'; there is api, canary\n");
  ModelEdit e = model_.erase({ConfigKind::kCluster, "canary"});
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(e.model.names(ConfigKind::kEndpoints), Names{"api"});
  e = e.model.erase({ConfigKind::kListener, "edge"});
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(e.model.size(ConfigKind::kRoute), 0u) << "an inline route configuration goes with its listener";
  EXPECT_EQ(errors_of(e.model.erase({ConfigKind::kCluster, "api"})), "");
}

TEST_F(ModelTest, ReplaceForgetsWhatIsNotNamedAndChecksReferencesAgain) {
  std::string yaml = gateway_yaml(kTwoRoutes);
  yaml.resize(yaml.find("  - name: canary"));
  EXPECT_EQ(model_.replace(load_document(yaml, "f")).model.names(ConfigKind::kCluster), Names{"api"});
  yaml.resize(yaml.find("  clusters:"));
  const ModelEdit e = model_.replace(load_document(yaml, "f"));
  EXPECT_EQ(e.errors.size(), 2u) << errors_of(e);
  EXPECT_NE(errors_of(e).find("unknown cluster 'api'; there are no clusters"), std::string::npos);
}

// Envoy keeps route configurations of listeners apart whatever their names; so do we, and an edit finds each.
TEST_F(ModelTest, RouteConfigurationsOfOneNameInTwoListeners) {
  std::string two = gateway_yaml(kTwoRoutes);
  const size_t from = two.find("  - name: edge"), to = two.find("  clusters:\n");
  std::string second = two.substr(from, to - from);
  second.replace(second.find("edge"), 4, "other");
  second.replace(second.find("8080"), 4, "8081");
  second.replace(second.find("name: two"), 9, "name: 2nd");
  two.insert(to, second);
  const Model m = model_of(two);
  EXPECT_EQ(m.names(ConfigKind::kRoute), (Names{"main", "main@other"}));
  EXPECT_EQ(route_names(m, "main@other"), (Names{"one", "2nd"}));
  const Model again = m.replace(load_document(two, "again")).model;
  EXPECT_EQ(to_text(Model::diff(m, again)), "");
  // Edited by hand or read from its own text, a listener keeps its table.
  const std::string other = to_yaml(*m.message({ConfigKind::kListener, "other"}), true),
                    edge = to_yaml(*m.message({ConfigKind::kListener, "edge"}), true);
  const ModelEdit e = m.apply(load_document(other, "o"));
  EXPECT_EQ(errors_of(e), "");
  EXPECT_EQ(to_text(Model::diff(m, e.model)), "");
  // One by one in the other order (as a store would give them back): the same names.
  Model rebuilt = Model().replace(load_document(two.substr(0, from) + two.substr(to), "clusters")).model;
  for (const std::string& text : {other, edge}) {
    ModelEdit step = rebuilt.apply(load_document(text, "l"));
    EXPECT_EQ(errors_of(step), "");
    rebuilt = std::move(step.model);
  }
  EXPECT_EQ(to_text(Model::diff(m, rebuilt)), "");
  // And the file that used one name twice, again: each to its own.
  EXPECT_EQ(to_text(Model::diff(m, rebuilt.replace(load_document(two, "again")).model)), "");
  EXPECT_EQ(e.model.erase({ConfigKind::kListener, "edge"}).model.names(ConfigKind::kRoute), Names{"main@other"});
}

TEST_F(ModelTest, NamesThatNobodyGave) {
  std::string yaml = gateway_yaml(kTwoRoutes);
  yaml.erase(yaml.find("            name: main\n"), 23);
  yaml.replace(yaml.find("- name: edge\n    address"), 24, "- address");
  const Model m = model_of(yaml);
  EXPECT_EQ(m.names(ConfigKind::kListener), Names{"0.0.0.0:8080"});
  EXPECT_EQ(m.names(ConfigKind::kRoute), Names{"0.0.0.0:8080"});
}

TEST_F(ModelTest, EndpointsApartFromTheirCluster) {
  const Model m = model_of(R"(
resources:
- { "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a }
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: a
  endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 10.0.0.1, port_value: 80 } } } }] }]
)");
  EXPECT_EQ(m.endpoints().at("a")->config->endpoints_size(), 1);
  const ModelEdit e = m.apply(
      load_document("{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a, connect_timeout: 1s }", "f"));
  EXPECT_EQ(e.model.endpoints().at("a"), m.endpoints().at("a")) << "a cluster that says nothing of its endpoints keeps them";
}

TEST_F(ModelTest, DiffSaysWhatChanged) {
  Model m = model_
                .apply(load_document("{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: canary, "
                                     "connect_timeout: 2s, lb_policy: RANDOM }",
                                     "f"))
                .model;
  m = m.apply(load_document("{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: fresh }", "f")).model;
  m = m.remove_route("main", "all", "one").model;
  EXPECT_EQ(to_text(Model::diff(model_, m)),
            "+ endpoint fresh\n"
            "~ cluster canary: connect_timeout: \"1s\" -> \"2s\"\n"
            "~ cluster canary: + lb_policy: \"RANDOM\"\n"
            "+ cluster fresh\n"
            "~ route main: - virtual_hosts[0].routes[0]: {\"match\": {\"prefix\": \"/1\"}, \"route\": {\"cluster\": \"api\"}, "
            "\"name\": \"one\"}\n");
  EXPECT_EQ(to_json(Model::diff(m, m)), "[]");
}

TEST_F(ModelTest, SecretsOfClustersAreDerivedToo) {
  const std::string yaml = read_file(data_directory() / "good" / "upstream_tls.yaml");
  const Model m = model_of(yaml);
  EXPECT_EQ(m.names(ConfigKind::kSecret),
            (Names{"ca", "cluster combined/validation_context", "cluster everything/tls_certificates[0]",
                   "cluster everything/validation_context", "mutual/strict/tls_certificates[0]", "mutual/strict/validation_context", "web"}));
  EXPECT_EQ(errors_of(m.erase({ConfigKind::kSecret, "ca"})), "secret 'ca' is in use by cluster combined and 1 more\n");
  EXPECT_FALSE(m.erase({ConfigKind::kSecret, "cluster everything/validation_context"}).ok());
  // A cluster's own secrets go with it, others stay.
  const ModelEdit gone = m.erase({ConfigKind::kCluster, "everything"});
  ASSERT_TRUE(gone.ok()) << errors_of(gone);
  EXPECT_EQ(gone.model.secrets().size(), 5u);
  // The same text with other files: the secret changes, its cluster does not.
  const std::string cert = read_file("cert.pem");
  std::ofstream("cert.pem") << cert << "\n";
  const Model after = m.replace(load_document(yaml, "upstream_tls.yaml")).model;
  std::ofstream("cert.pem") << cert;
  EXPECT_EQ(after.clusters().at("everything"), m.clusters().at("everything"));
  EXPECT_NE(after.secrets().at("cluster everything/validation_context"), m.secrets().at("cluster everything/validation_context"));
}

TEST_F(ModelTest, CertificatesAreDerivedAndFollowTheirFiles) {
  const std::string yaml = read_file(data_directory() / "good" / "tls.yaml");
  const Model m = model_of(yaml);
  EXPECT_EQ(m.names(ConfigKind::kSecret), (Names{"https/a/tls_certificates[0]", "web"}));
  EXPECT_TRUE(m.secrets().at("https/a/tls_certificates[0]")->derived);
  EXPECT_NE(m.secrets().at("web")->private_key_pem.find("PRIVATE KEY"), std::string::npos);
  EXPECT_EQ(errors_of(m.erase({ConfigKind::kSecret, "web"})),
            "secret 'web' is in use by listener https (filter chain chain-1)\n");
  EXPECT_FALSE(m.erase({ConfigKind::kSecret, "https/a/tls_certificates[0]"}).ok());
  // Same text, other file: that is a change.
  const std::string cert = read_file("cert.pem");
  std::ofstream("cert.pem") << cert << "\n";
  const Model after = m.replace(load_document(yaml, "tls.yaml")).model;
  std::ofstream("cert.pem") << cert;
  EXPECT_EQ(after.listeners(), m.listeners());
  EXPECT_NE(after.secrets().at("web"), m.secrets().at("web"));
  EXPECT_EQ(to_text(Model::diff(m, after)),
            "~ secret https/a/tls_certificates[0]: tls_certificate: \"(file content before)\" -> \"(file content now)\"\n"
            "~ secret web: tls_certificate: \"(file content before)\" -> \"(file content now)\"\n");
}

// A message that came in binary can carry what our .proto files do not know.
TEST_F(ModelTest, UnknownFieldsOfBinaryMessagesAreRefused) {
  auto c = std::make_shared<api::Cluster>();
  c->set_name("x");
  c->GetReflection()->MutableUnknownFields(c.get())->AddVarint(31, 1);
  EXPECT_EQ(errors_of(model_.apply({{ConfigKind::kCluster, c, nullptr}})),
            "cluster x: field number 31 of Cluster is not supported by Millrace yet\n");
  auto d = std::make_shared<api::Cluster>();
  d->set_name("x");
  d->set_lb_policy(static_cast<api::Cluster::LbPolicy>(6));
  EXPECT_EQ(errors_of(model_.apply({{ConfigKind::kCluster, d, nullptr}})),
            "cluster x: lb_policy: value 6 of LbPolicy is not supported by Millrace yet\n");
}

}  // namespace
}  // namespace millrace::control
