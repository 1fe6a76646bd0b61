// Discovery messages to what the engine speaks, and back.
#include "control/xds_messages.h"

#include <gtest/gtest.h>

#include "lib/api/envoy.config.cluster.v3.pb.h"

namespace millrace::control {
namespace {

namespace discovery = envoy::service::discovery::v3;
using envoy::config::cluster::v3::Cluster;

const std::string kCds(type_url(XdsType::kCluster));

google::protobuf::Any packed(const std::string& name) {
  Cluster c;
  c.set_name(name);
  c.mutable_connect_timeout()->set_seconds(5);
  google::protobuf::Any any;
  any.PackFrom(c);
  return any;
}

TEST(XdsMessages, NamesAreReadFromResourcesPlainAndWrapped) {
  discovery::DiscoveryResponse m;
  m.set_type_url(kCds);
  m.set_version_info("7");
  m.set_nonce("n");
  *m.add_resources() = packed("plain");
  discovery::Resource wrapped;
  wrapped.set_name("wrapped");
  wrapped.set_version("3");
  *wrapped.mutable_resource() = packed("wrapped");
  m.add_resources()->PackFrom(wrapped);
  const XdsResponse r = from_sotw(m);
  EXPECT_EQ(r.type_url, kCds);
  EXPECT_EQ(r.version, "7");
  EXPECT_EQ(r.nonce, "n");
  ASSERT_EQ(r.resources.size(), 2u);
  for (const auto& [at, name, version] : {std::tuple{0, "plain", ""}, std::tuple{1, "wrapped", "3"}}) {
    const XdsResource& x = r.resources[static_cast<size_t>(at)];
    EXPECT_EQ(x.name, name);
    EXPECT_EQ(x.version, version);
    EXPECT_EQ(x.body, packed(name).value());
    EXPECT_EQ(x.bad, "");
  }
}

TEST(XdsMessages, WhatIsNoResourceOfTheTypeIsBadAndTheRestIsNot) {
  discovery::DiscoveryResponse m;
  m.set_type_url(kCds);
  m.add_resources()->set_type_url("type.googleapis.com/envoy.config.listener.v3.Listener");
  google::protobuf::Any* broken = m.add_resources();
  broken->set_type_url(kCds);
  broken->set_value("\x0a\x7f short");  // says 127 bytes follow
  google::protobuf::Any* group = m.add_resources();
  group->set_type_url(kCds);
  group->set_value("\x0c");  // ends a group that was not begun
  *m.add_resources() = packed("good");
  const XdsResponse r = from_sotw(m);
  ASSERT_EQ(r.resources.size(), 4u);
  EXPECT_EQ(r.resources[0].bad, "is a type.googleapis.com/envoy.config.listener.v3.Listener in a response of " + kCds);
  EXPECT_EQ(r.resources[1].bad, "is no valid message of its type");
  EXPECT_EQ(r.resources[2].bad, "is no valid message of its type");
  EXPECT_EQ(r.resources[3].bad, "");
  EXPECT_EQ(r.resources[3].name, "good");
}

TEST(XdsMessages, DeltaKnowsRemovalsHeartbeatsAndNamesThatDiffer) {
  discovery::DeltaDiscoveryResponse m;
  m.set_type_url(kCds);
  m.set_nonce("1");
  m.add_removed_resources("gone");
  discovery::Resource* beat = m.add_resources();
  beat->set_name("kept");
  discovery::Resource* other = m.add_resources();
  other->set_name("outside");
  *other->mutable_resource() = packed("inside");
  const XdsResponse r = from_delta(m);
  EXPECT_EQ(r.removed, std::vector<std::string>{"gone"});
  ASSERT_EQ(r.resources.size(), 2u);
  EXPECT_TRUE(r.resources[0].heartbeat);
  EXPECT_EQ(r.resources[0].bad, "");
  EXPECT_EQ(r.resources[1].bad, "is called \"inside\" inside");
}

TEST(XdsMessages, RequestsSayWhatTheEngineSays) {
  envoy::config::core::v3::Node node;
  node.set_id("gateway-1");
  XdsRequest ask;
  ask.type = XdsType::kEndpoints;
  ask.with_node = true;
  ask.version = "3";
  ask.nonce = "n";
  ask.names = {"a", "b"};
  const discovery::DiscoveryRequest first = to_sotw(ask, node);
  EXPECT_EQ(first.type_url(), type_url(XdsType::kEndpoints));
  EXPECT_EQ(first.node().id(), "gateway-1");
  EXPECT_EQ(first.version_info(), "3");
  EXPECT_EQ(first.response_nonce(), "n");
  EXPECT_EQ(first.resource_names_size(), 2);
  EXPECT_FALSE(first.has_error_detail());

  XdsRequest refusal;
  refusal.type = XdsType::kCluster;
  refusal.error = "bad: no";
  refusal.subscribe = {"x"};
  refusal.unsubscribe = {"y"};
  refusal.initial = {{"z", "9"}};
  const discovery::DeltaDiscoveryRequest second = to_delta(refusal, node);
  EXPECT_FALSE(second.has_node());
  EXPECT_EQ(second.error_detail().code(), 3);
  EXPECT_EQ(second.error_detail().message(), "bad: no");
  EXPECT_EQ(second.resource_names_subscribe(0), "x");
  EXPECT_EQ(second.resource_names_unsubscribe(0), "y");
  EXPECT_EQ(second.initial_resource_versions().at("z"), "9");
}

}  // namespace
}  // namespace millrace::control
