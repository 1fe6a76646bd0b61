// Which names are asked for when, and what becomes of the answers; time is virtual.
#include "control/dns_names.h"

#include <algorithm>

#include "control/compile.h"
#include "lib/table/layout.h"
#include "lib/table/objects.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

using base::kMillisecond;
using base::kSecond;
using base::TimeNs;

std::string endpoint(const std::string& address, const std::string& more = "") {
  return "        - { endpoint: { address: { socket_address: { address: \"" + address + "\", port_value: 80 } } }" + more +
         " }\n";
}
std::string cluster(const std::string& name, const std::string& type, const std::string& endpoints,
                    const std::string& more = "") {
  return "  - name: " + name + "\n    type: " + type + "\n" + (more.empty() ? "" : "    " + more + "\n") +
         "    load_assignment:\n      cluster_name: " + name + "\n      endpoints:\n      - lb_endpoints:\n" + endpoints;
}
std::string clusters(const std::string& all) { return "static_resources:\n  clusters:\n" + all; }

DnsAnswer good(const std::vector<std::string>& addresses, uint32_t ttl = 0) {
  DnsAnswer a{.ok = true, .error = "", .addresses = {}, .ttl = ttl};
  for (const std::string& s : addresses) a.addresses.push_back(*base::IpAddress::parse(s));
  return a;
}
const DnsAnswer kFailure{.ok = false, .error = "Timeout while contacting DNS servers", .addresses = {}, .ttl = 0};

// "address hostname weight" of each endpoint that the compiler sees.
std::vector<std::string> endpoints_of(const Model& m, const std::string& name) {
  std::vector<std::string> out;
  for (const auto& l : m.endpoints().at(name)->config->endpoints())
    for (const auto& e : l.lb_endpoints())
      out.push_back(e.endpoint().address().socket_address().address() + " " + e.endpoint().hostname() +
                    (e.has_load_balancing_weight() ? " " + std::to_string(e.load_balancing_weight().value()) : ""));
  return out;
}
using Lines = std::vector<std::string>;

class DnsNamesTest : public ConfigTest {
 protected:
  // Asks what is due; the names.
  Lines due(TimeNs now) {
    Lines out;
    for (const DnsQuestion& q : names_.due(now)) {
      out.push_back(q.name);
      asked_[q.name] = q;
    }
    return out;
  }
  DnsNames::Turn answer(const std::string& name, const DnsAnswer& a, TimeNs now) {
    return names_.answered(asked_.at(name), a, now);
  }

  DnsNames names_{1};
  std::map<std::string, DnsQuestion> asked_;
};

TEST_F(DnsNamesTest, StrictTakesEveryAddressOnceWithTheNamesWeight) {
  const Model m = model_of(clusters(cluster(
      "a", "STRICT_DNS", endpoint("one.test", ", load_balancing_weight: 3") + endpoint("two.test") + endpoint("10.0.0.9"))));
  names_.follow(m, 0);
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"), Lines{"10.0.0.9 "}) << "names that nobody answered are nobody";
  EXPECT_EQ(due(0), (Lines{"one.test", "two.test"}));
  EXPECT_FALSE(names_.warm(m));
  EXPECT_TRUE(answer("one.test", good({"10.0.0.1", "fd00::1"}), 0).changed);
  EXPECT_TRUE(answer("two.test", good({"10.0.0.1", "10.0.0.2"}), 0).changed);
  EXPECT_TRUE(names_.warm(m));
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"),
            (Lines{"10.0.0.1 one.test 3", "fd00::1 one.test 3", "10.0.0.2 two.test", "10.0.0.9 "}));
  EXPECT_EQ(endpoints_of(m, "a").front(), "one.test  3") << "the model itself keeps the names";
  EXPECT_EQ(names_.resolved(m).endpoints().at("a"), names_.resolved(m).endpoints().at("a")) << "nothing to compile again";
}

TEST_F(DnsNamesTest, LogicalTakesTheFirst) {
  const Model m = model_of(clusters(cluster("a", "LOGICAL_DNS", endpoint("one.test"))));
  names_.follow(m, 0);
  due(0);
  answer("one.test", good({"10.0.0.1", "10.0.0.2"}), 0);
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"), Lines{"10.0.0.1 one.test"});
}

TEST_F(DnsNamesTest, LogicalKeepsItsAddressWhenTheNameIsEmpty) {
  const Model m =
      model_of(clusters(cluster("a", "LOGICAL_DNS", endpoint("one.test")) + cluster("b", "STRICT_DNS", endpoint("one.test"))));
  names_.follow(m, 0);
  EXPECT_EQ(due(0), Lines{"one.test"}) << "both ask the same";
  answer("one.test", good({"10.0.0.1"}), 0);
  due(5 * kSecond);
  EXPECT_TRUE(answer("one.test", good({}), 5 * kSecond).changed);
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"), Lines{"10.0.0.1 one.test"});
  EXPECT_EQ(endpoints_of(names_.resolved(m), "b"), Lines{});
}

TEST_F(DnsNamesTest, IsAskedAgainAtTheRefreshRate) {
  const Model m = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"), "dns_refresh_rate: 2s") +
                                    cluster("b", "STRICT_DNS", endpoint("two.test"))));
  names_.follow(m, 0);
  due(0);
  EXPECT_EQ(names_.next_due(), base::kNever) << "everything is under way";
  answer("one.test", good({"10.0.0.1"}), kSecond);
  answer("two.test", good({"10.0.0.1"}), kSecond);
  EXPECT_EQ(names_.next_due(), 3 * kSecond);
  EXPECT_EQ(due(3 * kSecond - 1), Lines{});
  EXPECT_EQ(due(3 * kSecond), Lines{"one.test"});
  EXPECT_EQ(due(6 * kSecond), Lines{"two.test"}) << "5 s, as Envoy";
  EXPECT_FALSE(answer("one.test", good({"10.0.0.1"}), 6 * kSecond).changed);
  EXPECT_EQ(names_.status("a")[0].unchanged, 1u);
}

TEST_F(DnsNamesTest, TimeToLiveCountsWhereItIsRespected) {
  const Model m = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"), "respect_dns_ttl: true") +
                                    cluster("b", "STRICT_DNS", endpoint("two.test"))));
  names_.follow(m, 0);
  due(0);
  answer("one.test", good({"10.0.0.1"}, 30), 0);
  answer("two.test", good({"10.0.0.1"}, 30), 0);
  EXPECT_EQ(names_.status("a")[0].next, 30 * kSecond);
  EXPECT_EQ(names_.status("b")[0].next, 5 * kSecond);
  due(30 * kSecond);
  answer("one.test", good({"10.0.0.1"}, 0), 30 * kSecond);
  EXPECT_EQ(names_.status("a")[0].next, 35 * kSecond) << "0 is no pace";
}

TEST_F(DnsNamesTest, FailureKeepsWhatIsThereAndBacksOff) {
  const Model m = model_of(clusters(
      cluster("a", "STRICT_DNS", endpoint("one.test"), "dns_failure_refresh_rate: { base_interval: 1s, max_interval: 4s }")));
  names_.follow(m, 0);
  due(0);
  answer("one.test", good({"10.0.0.1"}), 0);
  TimeNs now = 5 * kSecond;
  TimeNs longest = 0;
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(due(now), Lines{"one.test"});
    const auto turn = answer("one.test", kFailure, now);
    EXPECT_FALSE(turn.changed);
    EXPECT_EQ(turn.began_to_fail, i == 0);
    const TimeNs wait = names_.status("a")[0].next - now, most = std::min<TimeNs>(kSecond << std::min(i, 2), 4 * kSecond);
    EXPECT_LE(wait, most);
    EXPECT_GE(wait, kMillisecond);
    longest = std::max(longest, wait);
    now += wait;
  }
  EXPECT_GT(longest, 3 * kSecond);
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"), Lines{"10.0.0.1 one.test"});
  EXPECT_EQ(names_.status("a")[0].failures, 200u);
  EXPECT_NE(names_.status("a")[0].error, "");
  due(now);
  EXPECT_TRUE(answer("one.test", good({"10.0.0.2"}), now).works_again);
  EXPECT_EQ(names_.status("a")[0].next, now + 5 * kSecond);
}

TEST_F(DnsNamesTest, FailureWithoutABackOffWaitsTheRefreshRate) {
  const Model m = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"), "dns_refresh_rate: 7s")));
  names_.follow(m, 0);
  due(0);
  answer("one.test", kFailure, 0);
  EXPECT_TRUE(names_.warm(m)) << "a failure is an answer: nobody waits for ever";
  EXPECT_EQ(names_.next_due(), 7 * kSecond);
}

TEST_F(DnsNamesTest, AnEditAsksForWhatIsNewAndForgetsWhatIsGone) {
  const Model one = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"))));
  const Model two = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test") + endpoint("two.test"))));
  names_.follow(one, 0);
  due(0);
  answer("one.test", good({"10.0.0.1"}), 0);
  names_.expect(two, kSecond);
  EXPECT_FALSE(names_.warm(two));
  EXPECT_TRUE(names_.warm(one));
  EXPECT_EQ(due(kSecond), Lines{"two.test"}) << "what is known is not asked for again";
  answer("two.test", good({"10.0.0.2"}), kSecond);
  EXPECT_TRUE(names_.warm(two));
  EXPECT_EQ(endpoints_of(names_.resolved(two), "a"), (Lines{"10.0.0.1 one.test", "10.0.0.2 two.test"}))
      << "from the first moment";
  EXPECT_EQ(endpoints_of(names_.resolved(one), "a"), Lines{"10.0.0.1 one.test"});
  names_.follow(two, kSecond);
  names_.follow(one, 2 * kSecond);
  EXPECT_EQ(due(100 * kSecond), Lines{"one.test"});
  EXPECT_FALSE(answer("two.test", good({"10.0.0.9"}), 100 * kSecond).changed) << "nobody asks any more";
}

TEST_F(DnsNamesTest, ClustersThatNeedNotBeWarm) {
  const Model m = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"), "wait_for_warm_on_init: false")));
  names_.expect(m, 0);
  EXPECT_TRUE(names_.warm(m));
}

TEST_F(DnsNamesTest, ResolversAndFamiliesAreOtherQuestions) {
  const std::string resolver =
      "typed_dns_resolver_config: { name: envoy.network.dns_resolver.cares, typed_config: { \"@type\": "
      "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [ { socket_address: "
      "{ address: 10.0.0.53, port_value: 53 } } ] } }";
  const Model m = model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test")) +
                                    cluster("b", "STRICT_DNS", endpoint("one.test"), resolver) +
                                    cluster("c", "STRICT_DNS", endpoint("one.test"), "dns_lookup_family: V4_ONLY")));
  names_.follow(m, 0);
  EXPECT_EQ(due(0), (Lines{"one.test", "one.test", "one.test"}));
}

TEST_F(DnsNamesTest, HostnameOfTheEndpointWins) {
  const Model m = model_of(clusters(
      "  - name: a\n    type: STRICT_DNS\n    load_assignment:\n      cluster_name: a\n      endpoints:\n      - lb_endpoints:\n"
      "        - { endpoint: { hostname: shop.test, address: { socket_address: { address: one.test, port_value: 80 } } } }\n"));
  names_.follow(m, 0);
  due(0);
  answer("one.test", good({"10.0.0.1"}), 0);
  EXPECT_EQ(endpoints_of(names_.resolved(m), "a"), Lines{"10.0.0.1 shop.test"});
}

// What is not resolved compiles, to nobody: an unresolved model is never refused.
TEST_F(DnsNamesTest, NamesCompileToNobody) {
  Compiler compiler;
  ASSERT_TRUE(compiler.compile(model_of(clusters(cluster("a", "STRICT_DNS", endpoint("one.test"))))).ok());
  const TableObject* o = compiler.find(table::Kind::kEndpointSet, "a");
  ASSERT_NE(o, nullptr);
  EXPECT_EQ(reinterpret_cast<const table::EndpointSet*>(o->bytes())->endpoints.count, 0u);
}

TEST(HostName, WhatMayBeAskedFor) {
  for (const char* good : {"a", "api.example.com", "api.example.com.", "xn--bcher-kva.example", "_srv.a", "1.example", "A-b.c"})
    EXPECT_TRUE(is_host_name(good)) << good;
  for (const std::string& bad :
       {std::string(""), std::string("."), std::string("a..b"), std::string("-a"), std::string("a-.b"), std::string("a b"),
        std::string("a/b"), std::string("a:80"), std::string(64, 'a'), std::string(250, 'a') + ".abcd"})
    EXPECT_FALSE(is_host_name(bad)) << bad;
}

}  // namespace
}  // namespace millrace::control
