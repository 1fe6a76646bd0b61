// proto3 JSON in YAML and JSON: what is accepted, as what, and with which position. (What is refused: bad_config_test.)
#include "control/config_loader.h"

#include "lib/api/envoy.config.bootstrap.v3.pb.h"
#include "lib/api/envoy.extensions.access_loggers.file.v3.pb.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

api::Cluster cluster(const std::string& text, const std::string& errors = "") {
  api::Cluster c;
  EXPECT_EQ(to_text(load_message(text, "c.yaml", &c)), errors) << text;
  return c;
}

TEST(ConfigLoader, TakesSnakeAndCamelCase) {
  EXPECT_EQ(cluster("{ name: a, connect_timeout: 5s }").DebugString(), cluster("{ name: a, connectTimeout: 5s }").DebugString());
}

TEST(ConfigLoader, Durations) {
  const struct {
    const char* text;
    int64_t seconds;
    int32_t nanos;
  } cases[] = {{"5s", 5, 0},
               {"\"5s\"", 5, 0},
               {"0.25s", 0, 250'000'000},
               {"0.000000001s", 0, 1},
               {"-1.5s", -1, -500'000'000},
               {"315576000000s", 315'576'000'000, 0}};
  for (const auto& c : cases) {
    const api::Cluster m = cluster(std::string("connect_timeout: ") + c.text);
    EXPECT_EQ(m.connect_timeout().seconds(), c.seconds) << c.text;
    EXPECT_EQ(m.connect_timeout().nanos(), c.nanos) << c.text;
  }
  for (const char* bad : {"s", "5 s", ".5s", "1.s", "1.0000000001s", "1e3s", "5m", "+5s", "--5s", "-5", "[5s]", "{}"})
    EXPECT_EQ(to_text(load_message(std::string("connect_timeout: ") + bad, "c.yaml", std::make_unique<api::Cluster>().get()))
                  .substr(0, 24),
              "c.yaml:1:18: connect_tim")
        << bad;
}

TEST(ConfigLoader, Integers) {
  const struct {
    const char* text;
    uint32_t value;
  } cases[] = {{"7", 7}, {"\"7\"", 7}, {"0x10", 16}, {"7.0", 7}, {"1e3", 1000}, {"4294967295", UINT32_MAX}, {"+7", 7}};
  for (const auto& c : cases)
    EXPECT_EQ(cluster(std::string("per_connection_buffer_limit_bytes: ") + c.text).per_connection_buffer_limit_bytes().value(),
              c.value)
        << c.text;
}

TEST(ConfigLoader, Enums) {
  EXPECT_EQ(cluster("lb_policy: RANDOM").lb_policy(), api::Cluster::RANDOM);
  EXPECT_EQ(cluster("lb_policy: random").lb_policy(), api::Cluster::RANDOM);
  EXPECT_EQ(cluster("lb_policy: 3").lb_policy(), api::Cluster::RANDOM);
}

TEST(ConfigLoader, Booleans) {
  for (const char* yes : {"true", "True", "yes", "on", "y", "\"true\""}) {
    api::RouteConfiguration r;
    EXPECT_EQ(to_text(load_message(std::string("ignore_port_in_host_matching: ") + yes, "r", &r)), "") << yes;
    EXPECT_TRUE(r.ignore_port_in_host_matching()) << yes;
  }
}

TEST(ConfigLoader, NullIsTheDefault) {
  EXPECT_EQ(cluster("name: a\nconnect_timeout:\ncircuit_breakers: ~\n").DebugString(), "name: \"a\"\n");
}

TEST(ConfigLoader, BytesAreBase64) {
  api::Secret s;
  EXPECT_EQ(
      to_text(load_message(
          "tls_certificate: { private_key: { inline_bytes: aGVsbG8= }, certificate_chain: { inlineBytes: \"-_8\" } }", "s", &s)),
      "");
  EXPECT_EQ(s.tls_certificate().private_key().inline_bytes(), "hello");
  EXPECT_EQ(s.tls_certificate().certificate_chain().inline_bytes(), "\xfb\xff");
}

TEST(ConfigLoader, AnchorsAliasesMergesAndIgnored) {
  const Document d = load_document(R"(
static_resources:
  !ignore templates:
  - &defaults { connect_timeout: 2s, lb_policy: RANDOM }
  clusters:
  - <<: *defaults
    name: a
  - { <<: [*defaults], name: b, lb_policy: ROUND_ROBIN }
)",
                                   "m.yaml");
  ASSERT_EQ(to_text(d.errors), "");
  ASSERT_EQ(d.objects.size(), 2u);
  const auto& a = static_cast<const api::Cluster&>(*d.objects[0].message);
  const auto& b = static_cast<const api::Cluster&>(*d.objects[1].message);
  EXPECT_EQ(a.connect_timeout().seconds(), 2);
  EXPECT_EQ(a.lb_policy(), api::Cluster::RANDOM);
  EXPECT_EQ(b.connect_timeout().seconds(), 2);
  EXPECT_EQ(b.lb_policy(), api::Cluster::ROUND_ROBIN);
}

TEST(ConfigLoader, AliasBombIsRefused) {
  std::string text = "resources:\n- &a0 { name: x }\n";
  for (int i = 1; i < 30; ++i)
    text += "- &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) + ", *a" + std::to_string(i - 1) + "]\n";
  EXPECT_FALSE(load_document(text, "bomb").ok());
  text = "resources:\n- &a0 { x: y }\n";
  for (int i = 1; i < 30; ++i)
    text += "- &a" + std::to_string(i) + " { <<: [*a" + std::to_string(i - 1) + ", *a" + std::to_string(i - 1) + "], k" +
            std::to_string(i) + ": 1 }\n";
  EXPECT_FALSE(load_document(text, "bomb").ok());
  // Inside a message that allows any nesting: a Struct.
  std::string nested = "v0: &v0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string p = "*v" + std::to_string(i - 1);
    nested += "v" + std::to_string(i) + ": &v" + std::to_string(i) + " [" + p + ", " + p + ", " + p + ", " + p + ", " + p + ", " +
              p + ", " + p + ", " + p + ", " + p + ", " + p + "]\n";
  }
  google::protobuf::Struct s;
  const std::string errors = to_text(load_message(nested, "bomb", &s));
  EXPECT_NE(errors.find("aliases make this document larger than 1000000 nodes"), std::string::npos) << errors;
}

TEST(ConfigLoader, DeepNestingIsRefused) {
  EXPECT_FALSE(load_document(std::string(100'000, '['), "deep.yaml").ok());
  EXPECT_FALSE(load_document("{\"a\":" + std::string(100'000, '['), "deep.json").ok());
  EXPECT_FALSE(load_document("a: " + std::string(100'000, '{'), "deep.yaml").ok());
}

TEST(ConfigLoader, JsonIsReadToTheSameMessages) {
  const std::string yaml = gateway_yaml("- { name: r, match: { prefix: /é }, route: { cluster: api, timeout: 1.5s } }");
  const Model a = model_of(yaml);
  const std::string json = to_json(*a.message({ConfigKind::kListener, "edge"}), true);
  const Document b = load_document(json, "edge.json");
  ASSERT_EQ(to_text(b.errors), "");
  ASSERT_EQ(b.objects.size(), 1u);
  EXPECT_EQ(to_yaml(*b.objects[0].message), to_yaml(*a.message({ConfigKind::kListener, "edge"})));
}

TEST(ConfigLoader, JsonEscapes) {
  api::Cluster c;
  EXPECT_EQ(to_text(load_message(R"({"name": "\u00e9\t\/\ud83d\ude00\"\\"})", "c.json", &c)), "");
  EXPECT_EQ(c.name(), "\u00e9\t/\U0001F600\"\\");
  for (const char* bad : {R"({"name": "\ud83d"})", R"({"name": "\x"})", R"({"name": "\u12"})", "{\"name\": \"a\nb\"}",
                          R"({"name": tru})", R"({"name": "a")", R"({"name" "a"})", "{} x"})
    EXPECT_NE(to_text(load_message(bad, "c.json", &c)), "") << bad;
}

TEST(ConfigLoader, ShapesOfADocument) {
  EXPECT_EQ(load_document("node: { id: gw-1, cluster: edge }", "b").node_id, "gw-1");
  const Document list =
      load_document("resources:\n- { \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a }\n", "l");
  EXPECT_EQ(list.shape, DocumentShape::kResources);
  ASSERT_EQ(list.objects.size(), 1u);
  EXPECT_EQ(list.objects[0].kind, ConfigKind::kCluster);
  const Document one = load_document("\"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\nname: r\n", "o");
  ASSERT_EQ(one.objects.size(), 1u);
  EXPECT_EQ(one.objects[0].kind, ConfigKind::kRoute);
  const Document whole = load_document(
      "\"@type\": type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap\nstatic_resources: { clusters: [{ name: a }] }\n", "w");
  EXPECT_EQ(whole.shape, DocumentShape::kBootstrap);
  EXPECT_EQ(whole.objects.size(), 1u);
  EXPECT_EQ(load_document_file("/nonexistent/file.yaml").errors.at(0).to_string(),
            "/nonexistent/file.yaml: cannot be read: No such file or directory");
}

TEST(ConfigLoader, AccessLogFormatsKeepTheirJson) {
  envoy::extensions::access_loggers::file::v3::FileAccessLog f;
  ASSERT_EQ(to_text(load_message(
                "path: /x\nlog_format: { json_format: { status: \"%RESPONSE_CODE%\", nested: { n: 1, t: true, l: [a, null] } } }",
                "f", &f)),
            "");
  EXPECT_EQ(to_json(f.log_format().json_format(), false, false),
            R"({"nested": {"l": ["a", null], "n": 1, "t": true}, "status": "%RESPONSE_CODE%"})");
}

TEST(ConfigLoader, PositionsOfFields) {
  std::shared_ptr<const SourceMap> source;
  api::VirtualHost h;
  ASSERT_EQ(to_text(load_message("name: a\ndomains: [x,\n  z]\nroutes:\n- match: { prefix: / }\n- match:\n    prefix: /b\n",
                                 "h.yaml", &h, &source)),
            "");
  EXPECT_EQ(source->error("routes[1].match.prefix", "m").to_string(), "h.yaml:7:13: routes[1].match.prefix: m");
  EXPECT_EQ(source->error("routes[1].match", "m").to_string(), "h.yaml:6:3: routes[1].match: m");
  EXPECT_EQ(source->error("domains[1]", "m").to_string(), "h.yaml:3:3: domains[1]: m");
  EXPECT_EQ(source->error("routes[0].route.cluster", "m").to_string(), "h.yaml:5:3: routes[0].route.cluster: m")
      << "the nearest that is there";
}

TEST(ConfigLoader, TextRoundTrips) {
  api::Cluster c;
  c.set_name("a: b # c");
  c.mutable_connect_timeout()->set_nanos(1'000'000);
  c.mutable_load_assignment()->set_cluster_name("true");
  for (const char* name :
       {"",  "y",  "No", "1.5",   "-",      "~",    "null", "a\nb", "\"", "'",  "é",  "[x]",  "{",    "*a", "&b",
        "%", "@x", "`",  " lead", "trail ", "0x1f", "1e3",  ".inf", "=",  "<<", "!t", "a: b", "a #b", "|",  ">"}) {
    auto* l = c.mutable_load_assignment()->add_endpoints();
    l->mutable_locality()->set_zone(name);
    l->add_lb_endpoints()->mutable_endpoint();
  }
  for (const auto& [text, file] : {std::pair{to_yaml(c), "c.yaml"},
                                   {to_json(c), "c.json"},
                                   {to_json(c, false, false), "c.json"},
                                   {to_json(c), "json-as-yaml"}}) {
    api::Cluster back;
    EXPECT_EQ(to_text(load_message(text, file, &back)), "") << text;
    EXPECT_EQ(back.DebugString(), c.DebugString()) << text;
  }
}

}  // namespace
}  // namespace millrace::control
