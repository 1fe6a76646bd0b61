// What the engine says to a management server, message by message, in virtual time. Requests and updates are compared as one line
// of text.
#include "control/xds_engine.h"

#include <gtest/gtest.h>

namespace millrace::control {
namespace {

using base::kMillisecond;
using base::kNever;
using base::kSecond;
using base::TimeNs;
using enum XdsType;

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += (out.empty() ? "" : ",") + n;
  return out;
}

// "CDS v=1 n=a [x,y] !why", "CDS n=a +x -y {x=1}"; "*" is a request with the node.
std::string text(const XdsRequest& r, bool delta) {
  std::string out = std::string(short_name(r.type)) + (r.with_node ? "*" : "");
  if (!r.version.empty()) out += " v=" + r.version;
  if (!r.nonce.empty()) out += " n=" + r.nonce;
  if (!delta) out += " [" + join(r.names) + "]";
  if (!r.subscribe.empty()) out += " +" + join(r.subscribe);
  if (!r.unsubscribe.empty()) out += " -" + join(r.unsubscribe);
  if (!r.initial.empty()) {
    std::vector<std::string> known;
    for (const auto& [name, version] : r.initial) known.push_back(name + "=" + version);
    out += " {" + join(known) + "}";
  }
  if (!r.error.empty()) out += " !" + r.error;
  return out;
}

XdsResource res(const std::string& name, const std::string& body = "1", const std::string& version = "") {
  return {name, version, body, "", false};
}
XdsResource broken(const std::string& name, const std::string& why) { return {name, "", "", why, false}; }

class Peer {
 public:
  explicit Peer(XdsEngineConfig config = {}) : config_(config), engine(config, 7) {}

  // Everything the engine wants to do now.
  std::string acts() {
    std::string out;
    for (int i = 0; i < 1000; ++i) {
      const XdsAction a = engine.poll(now);
      if (a.kind == XdsAction::Kind::kNone) return out;
      if (!out.empty()) out += " | ";
      if (a.kind == XdsAction::Kind::kConnect) out += "connect " + std::to_string(a.server);
      if (a.kind == XdsAction::Kind::kClose) out += "close";
      if (a.kind == XdsAction::Kind::kSend) out += text(a.request, config_.delta);
      if (a.kind == XdsAction::Kind::kExpired) out += "expired " + std::string(short_name(a.type)) + " " + a.name;
    }
    return out + " | for ever";
  }
  void up() {
    const TimeNs at = engine.next_deadline();
    if (at != kNever && at > now) now = at;
    EXPECT_EQ(acts().substr(0, 7), "connect");
    engine.connected(now);
  }
  // The update as "+name -name", or "ignored".
  std::string gets(XdsType type, const std::string& version, const std::string& nonce, std::vector<XdsResource> resources,
                   std::vector<std::string> removed = {}) {
    const XdsUpdate u =
        engine.on_response({std::string(type_url(type)), version, nonce, std::move(resources), std::move(removed)});
    if (!u.waits) return "ignored";
    std::string out;
    for (const XdsResource& r : u.changed) out += (out.empty() ? "+" : " +") + r.name;
    for (const std::string& n : u.removed) out += (out.empty() ? "-" : " -") + n;
    return out;
  }
  std::string takes(XdsType type, const std::string& version, const std::string& nonce, std::vector<XdsResource> resources,
                    std::vector<std::string> removed = {}) {
    const std::string out = gets(type, version, nonce, std::move(resources), std::move(removed));
    engine.applied(now, type, {});
    return out;
  }

  XdsEngineConfig config_;
  XdsEngine engine;
  TimeNs now = 100 * kSecond;
};

XdsEngineConfig delta() { return {.delta = true}; }

TEST(XdsSotw, NothingWantedNothingDone) {
  Peer p;
  EXPECT_EQ(p.acts(), "");
  EXPECT_EQ(p.engine.next_deadline(), kNever);
}

TEST(XdsSotw, TypesInOrderAndAcks) {
  Peer p({.node_on_first_only = true});
  p.engine.want(kRoute, {"r"});
  p.engine.want_all(kListener);
  p.engine.want(kEndpoints, {"b", "a"});
  p.engine.want_all(kCluster);
  p.up();
  EXPECT_EQ(p.acts(), "CDS* [] | EDS [a,b] | LDS [] | RDS [r]");
  EXPECT_EQ(p.takes(kCluster, "1", "n1", {res("a"), res("b")}), "+a +b");
  EXPECT_EQ(p.acts(), "CDS v=1 n=n1 []");
  EXPECT_EQ(p.takes(kEndpoints, "7", "n2", {res("a")}), "+a");
  EXPECT_EQ(p.acts(), "EDS v=7 n=n2 [a,b]");
  EXPECT_EQ(p.engine.known(kCluster), 2u);
  EXPECT_EQ(p.engine.outstanding(kEndpoints), 1u);
  EXPECT_EQ(p.acts(), "");
}

TEST(XdsSotw, NodeOnEveryRequestUnlessSaid) {
  Peer p;
  p.engine.want_all(kCluster);
  p.engine.want_all(kListener);
  p.up();
  EXPECT_EQ(p.acts(), "CDS* [] | LDS* []");
}

TEST(XdsSotw, WorldsRemoveWhatIsAbsentOthersDoNot) {
  Peer p;
  p.engine.want_all(kCluster);
  p.engine.want(kEndpoints, {"a", "b"});
  p.up();
  p.acts();
  p.takes(kCluster, "1", "1", {res("a"), res("b")});
  p.takes(kEndpoints, "1", "2", {res("a"), res("b")});
  EXPECT_EQ(p.takes(kCluster, "2", "3", {res("a")}), "-b");  // a did not change: not told again
  EXPECT_EQ(p.takes(kCluster, "3", "4", {res("a", "2")}), "+a");
  EXPECT_EQ(p.takes(kEndpoints, "2", "5", {res("a", "2")}), "+a");
  EXPECT_EQ(p.engine.known(kEndpoints), 2u);
  EXPECT_EQ(p.takes(kCluster, "4", "6", {}), "-a");
}

TEST(XdsSotw, OneBadResourceIsNamedAndTheRestIsTaken) {
  Peer p;
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  p.takes(kCluster, "1", "1", {res("bad"), res("good")});
  p.acts();
  EXPECT_EQ(p.gets(kCluster, "2", "2", {res("bad", "2"), res("good", "2"), broken("worse", "not a Cluster")}), "+bad +good");
  EXPECT_EQ(p.acts(), "");  // the verdict is awaited
  p.engine.applied(p.now, kCluster, {{"bad", "lb_policy: not supported"}});
  EXPECT_EQ(p.acts(), "CDS* v=1 n=2 [] !worse: not a Cluster; bad: lb_policy: not supported");
  EXPECT_EQ(p.engine.stats(kCluster).update_rejected, 1u);
  // The good one is not told again, the bad one is; that the worse one is gone is told too.
  EXPECT_EQ(p.gets(kCluster, "3", "3", {res("bad", "2"), res("good", "2")}), "+bad -worse");
  p.engine.applied(p.now, kCluster, {});
  EXPECT_EQ(p.acts(), "CDS* v=3 n=3 []");
  EXPECT_EQ(p.engine.stats(kCluster).update_success, 2u);
  EXPECT_EQ(p.engine.stats(kCluster).last_error, "worse: not a Cluster; bad: lb_policy: not supported");
}

TEST(XdsSotw, ABadResourceIsNotRemoved) {
  Peer p;
  p.engine.want_all(kListener);
  p.up();
  p.acts();
  p.takes(kListener, "1", "1", {res("a"), res("b")});
  EXPECT_EQ(p.takes(kListener, "2", "2", {broken("a", "no address")}), "-b");
  EXPECT_EQ(p.engine.known(kListener), 1u);
  // One without a name may be any of the absent: nothing is removed.
  EXPECT_EQ(p.takes(kListener, "3", "3", {broken("", "unknown type")}), "");
  EXPECT_EQ(p.engine.known(kListener), 1u);
}

// Who shows what was refused has to hear that it is gone.
TEST(XdsSotw, ARefusedResourceThatGoesIsNews) {
  for (const bool incremental : {false, true}) {
    Peer p({.delta = incremental});
    p.engine.want_all(kCluster);
    p.up();
    p.acts();
    p.takes(kCluster, "1", "1", {broken("a", "no name"), res("b")});
    EXPECT_EQ(p.takes(kCluster, "2", "2", {res("b")}, incremental ? std::vector<std::string>{"a"} : std::vector<std::string>{}),
              "-a");
    EXPECT_EQ(p.takes(kCluster, "3", "3", {res("b")}, incremental ? std::vector<std::string>{"a"} : std::vector<std::string>{}),
              "");
  }
}

TEST(XdsSotw, ARemovalThatIsRefusedLeavesTheResourceKnown) {
  Peer p;
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  p.takes(kCluster, "1", "1", {res("a")});
  p.gets(kCluster, "2", "2", {});
  p.engine.applied(p.now, kCluster, {{"a", "in use"}});
  EXPECT_EQ(p.engine.known(kCluster), 1u);
}

TEST(XdsSotw, DuplicatesAndNamesThatWereNotAskedFor) {
  Peer p;
  p.engine.want(kRoute, {"r"});
  p.up();
  p.acts();
  EXPECT_EQ(p.takes(kRoute, "1", "1", {res("r"), res("r", "2"), res("s"), res("")}), "+r");
  EXPECT_EQ(p.acts(), "RDS* n=1 [r] !r: is in the response more than once; has no name");
  EXPECT_EQ(p.engine.stats(kRoute).ignored_resources, 1u);
}

TEST(XdsSotw, NewNamesTravelWithNewestNonceAndVersion) {
  Peer p;
  p.engine.want(kEndpoints, {"a"});
  p.up();
  p.acts();
  p.takes(kEndpoints, "1", "1", {res("a")});
  p.engine.want(kEndpoints, {"a", "b"});
  EXPECT_EQ(p.acts(), "EDS* v=1 n=1 [a,b]");  // one request: acknowledgement and names
  p.engine.want(kEndpoints, {"a", "b"});
  EXPECT_EQ(p.acts(), "");
  p.engine.want(kEndpoints, {});
  EXPECT_EQ(p.acts(), "EDS* v=1 n=1 []");
  EXPECT_EQ(p.engine.known(kEndpoints), 0u);
  EXPECT_EQ(p.gets(kEndpoints, "2", "2", {}), "ignored");
}

TEST(XdsSotw, NamesWaitForTheVerdict) {
  Peer p;
  p.engine.want(kEndpoints, {"a"});
  p.up();
  p.acts();
  p.gets(kEndpoints, "1", "1", {res("a")});
  p.engine.want(kEndpoints, {"b"});
  EXPECT_EQ(p.acts(), "");
  p.engine.applied(p.now, kEndpoints, {});
  EXPECT_EQ(p.acts(), "EDS* v=1 n=1 [b]");
  EXPECT_EQ(p.engine.known(kEndpoints), 0u);  // a is not wanted any more
}

TEST(XdsSotw, UnknownTypesAreIgnored) {
  Peer p;
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  EXPECT_FALSE(p.engine.on_response({"type.googleapis.com/x.Y", "1", "1", {}, {}}).waits);
  EXPECT_EQ(p.gets(kListener, "1", "1", {}), "ignored");  // never asked for
  EXPECT_EQ(p.engine.unknown_types(), 2u);
  EXPECT_EQ(p.acts(), "");
}

TEST(XdsSotw, TheSameBadResponseIsAnsweredEverSlower) {
  Peer p;
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  TimeNs longest = 0;
  for (int i = 0; i < 12; ++i) {
    const std::string nonce = std::to_string(i);
    p.gets(kCluster, "bad", nonce, {res("a")});
    p.engine.applied(p.now, kCluster, {{"a", "no"}});
    const TimeNs begun = p.now;
    if (i > 0) {
      EXPECT_EQ(p.acts(), "") << i;
      EXPECT_GE(p.engine.next_deadline(), p.now + 250 * kMillisecond);
      p.now = p.engine.next_deadline();
    }
    EXPECT_EQ(p.acts(), "CDS* n=" + nonce + " [] !a: no");
    longest = std::max(longest, p.now - begun);
    EXPECT_LE(p.now - begun, 30 * kSecond);
  }
  EXPECT_GT(longest, 2 * kSecond);
  // Another bad response is answered at once, and so is a good one.
  p.gets(kCluster, "worse", "x", {res("a", "2")});
  p.engine.applied(p.now, kCluster, {{"a", "no"}});
  EXPECT_EQ(p.acts(), "CDS* n=x [] !a: no");
  p.takes(kCluster, "good", "y", {res("a", "3")});
  EXPECT_EQ(p.acts(), "CDS* v=good n=y []");
}

TEST(XdsSotw, NamesDoNotWaitForADelayedNack) {
  Peer p;
  p.engine.want(kRoute, {"r"});
  p.up();
  p.acts();
  for (const char* nonce : {"1", "2"}) {
    p.gets(kRoute, "bad", nonce, {res("r")});
    p.engine.applied(p.now, kRoute, {{"r", "no"}});
    if (*nonce == '1') p.acts();
  }
  EXPECT_EQ(p.acts(), "");
  p.engine.want(kRoute, {"r", "s"});
  EXPECT_EQ(p.acts(), "RDS* n=2 [r,s] !r: no");
  EXPECT_EQ(p.acts(), "");
}

TEST(XdsSotw, ReasonsAreBoundedAndWholeUtf8) {
  Peer p;
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  p.gets(kCluster, "1", "1", {res("a")});
  std::string umlauts;
  for (int i = 0; i < 5000; ++i) umlauts += "\xc3\xa4";
  p.engine.applied(p.now, kCluster, {{"a", umlauts}, {"b", "never seen"}});
  const std::string& error = p.engine.stats(kCluster).last_error;
  EXPECT_LE(error.size(), XdsEngine::kMaxErrorText);
  EXPECT_GE(error.size(), XdsEngine::kMaxErrorText - 4);
  EXPECT_EQ(error.substr(error.size() - 6), "\xc3\xa4 ...");
}

// ---- the stream ----

TEST(XdsStream, ResubscribesWithVersionsWithoutNonce) {
  Peer p;
  p.engine.want_all(kCluster);
  p.engine.want(kEndpoints, {"a"});
  p.up();
  p.acts();
  p.takes(kCluster, "5", "1", {res("a")});
  p.acts();
  p.engine.closed(p.now);
  EXPECT_EQ(p.engine.stats(kCluster).update_failure, 0u);
  EXPECT_EQ(p.engine.stats(kEndpoints).update_failure, 1u);
  p.up();
  EXPECT_EQ(p.acts(), "CDS* v=5 [] | EDS* [a]");
  EXPECT_EQ(p.takes(kCluster, "5", "1", {res("a")}), "");  // known already
  EXPECT_EQ(p.takes(kCluster, "6", "2", {res("b")}), "+b -a");
}

TEST(XdsStream, AVerdictAfterTheStreamEndedIsNotSentButRemembered) {
  Peer p;
  p.engine.want_all(kCluster);
  p.engine.want_all(kListener);
  p.up();
  p.acts();
  p.gets(kCluster, "1", "1", {res("a")});
  p.engine.closed(p.now);
  p.up();
  EXPECT_EQ(p.acts(), "LDS* []");  // clusters wait for the verdict
  p.engine.applied(p.now, kCluster, {});
  EXPECT_EQ(p.acts(), "CDS* v=1 []");
}

TEST(XdsStream, FailsOverAtOnceAndBacksOffAfterARound) {
  Peer p({.servers = 3});
  p.engine.want_all(kCluster);
  TimeNs longest = 0;
  for (int round = 0; round < 12; ++round) {
    for (int server = 0; server < 3; ++server) {
      EXPECT_EQ(p.acts(), "connect " + std::to_string(server));
      p.engine.closed(p.now);
    }
    const TimeNs next = p.engine.next_deadline();
    EXPECT_LE(next - p.now, std::min<TimeNs>(500 * kMillisecond << std::min(round, 20), 30 * kSecond));
    longest = std::max(longest, next - p.now);
    if (next > p.now) {
      EXPECT_EQ(p.acts(), "");
    }
    p.now = next;
  }
  EXPECT_GT(longest, 5 * kSecond);
  EXPECT_EQ(p.engine.stats(kCluster).update_failure, 36u);
}

TEST(XdsStream, AnotherServersVersionsAreForgottenItsResourcesAreNot) {
  for (const bool is_delta : {false, true}) {
    Peer p({.delta = is_delta, .servers = 2});
    p.engine.want_all(kCluster);
    p.up();
    p.acts();
    p.takes(kCluster, "5", "1", {res("a", "1", "v5")});
    p.acts();
    p.engine.closed(p.now);  // it had answered: the first server again
    p.now = p.engine.next_deadline();
    EXPECT_EQ(p.acts(), "connect 0");
    p.engine.closed(p.now);
    EXPECT_EQ(p.acts(), "connect 1");
    p.engine.connected(p.now);
    EXPECT_EQ(p.acts(), is_delta ? "CDS* {a=}" : "CDS* []");
    EXPECT_EQ(p.engine.known(kCluster), 1u);
    EXPECT_EQ(p.takes(kCluster, "x", "1", {res("a", "1", "x")}), "");  // the same bytes: nothing to apply
  }
}

TEST(XdsStream, AVerdictOnAServerThatWasLeftBringsNoVersion) {
  Peer p({.servers = 2});
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  p.gets(kCluster, "old", "1", {res("a")});
  p.engine.closed(p.now);
  p.now = p.engine.next_deadline();
  p.acts();
  p.engine.closed(p.now);
  p.acts();
  p.engine.connected(p.now);
  p.engine.applied(p.now, kCluster, {});
  EXPECT_EQ(p.acts(), "CDS* []");
}

TEST(XdsStream, AServerThatDoesNotConnectIsGivenUp) {
  Peer p({.servers = 2});
  p.engine.want_all(kCluster);
  EXPECT_EQ(p.acts(), "connect 0");
  p.now += 5 * kSecond - 1;
  EXPECT_EQ(p.acts(), "");
  p.now += 1;
  EXPECT_EQ(p.acts(), "close");
  EXPECT_EQ(p.engine.next_deadline(), kNever);
  p.engine.closed(p.now);
  EXPECT_EQ(p.acts(), "connect 1");
}

TEST(XdsStream, NamesExpireOnceAndOnlyWhileConnected) {
  Peer p;
  p.engine.want_all(kCluster);
  p.engine.want(kEndpoints, {"a", "b"});
  p.acts();
  p.now += 100 * kSecond;
  p.acts();
  p.engine.closed(p.now);
  p.up();
  p.acts();
  p.takes(kEndpoints, "1", "1", {res("a")});
  p.takes(kCluster, "1", "1", {});
  p.acts();
  EXPECT_EQ(p.engine.next_deadline(), p.now + 15 * kSecond);
  p.now += 15 * kSecond;
  EXPECT_EQ(p.acts(), "expired EDS b");
  EXPECT_EQ(p.engine.next_deadline(), kNever);
  EXPECT_EQ(p.engine.stats(kEndpoints).init_fetch_timeout, 1u);
  EXPECT_EQ(p.takes(kEndpoints, "2", "2", {res("b")}), "+b");  // late is better than never
}

TEST(XdsStream, NoFetchTimeout) {
  Peer p({.fetch_timeout = 0});
  p.engine.want(kEndpoints, {"a"});
  p.up();
  p.acts();
  EXPECT_EQ(p.engine.next_deadline(), kNever);
}

// ---- delta ----

TEST(XdsDelta, SubscriptionsAndAcksAreApart) {
  Peer p(delta());
  p.engine.want_all(kCluster);
  p.engine.want(kEndpoints, {"a"});
  p.up();
  EXPECT_EQ(p.acts(), "CDS* | EDS* +a");
  EXPECT_EQ(p.takes(kEndpoints, "", "n1", {res("a", "1", "1")}), "+a");
  p.engine.want(kEndpoints, {"b", "c"});
  EXPECT_EQ(p.acts(), "EDS* n=n1 | EDS* +b,c -a");
}

TEST(XdsDelta, ChangesAndRemovals) {
  Peer p(delta());
  p.engine.want_all(kCluster);
  p.up();
  p.acts();
  EXPECT_EQ(p.takes(kCluster, "1", "1", {res("a", "1", "1"), res("b", "1", "1")}), "+a +b");
  EXPECT_EQ(p.takes(kCluster, "2", "2", {res("b", "2", "2")}, {"a", "never"}), "+b -a");
  EXPECT_EQ(p.takes(kCluster, "3", "3", {{"b", "2", "", "", true}}), "");  // a heartbeat
  EXPECT_EQ(p.engine.known(kCluster), 1u);
}

TEST(XdsDelta, ARemovedNameThatWasAskedForDoesNotExist) {
  Peer p(delta());
  p.engine.want(kEndpoints, {"a"});
  p.up();
  p.acts();
  EXPECT_EQ(p.takes(kEndpoints, "", "1", {}, {"a"}), "-a");
  EXPECT_EQ(p.engine.outstanding(kEndpoints), 0u);
}

TEST(XdsDelta, ReconnectSaysWhatIsKnown) {
  Peer p(delta());
  p.engine.want_all(kCluster);
  p.engine.want(kEndpoints, {"a", "b"});
  p.up();
  p.acts();
  p.takes(kCluster, "", "1", {res("a", "1", "v1")});
  p.takes(kEndpoints, "", "2", {res("a", "1", "v2")});
  p.gets(kEndpoints, "", "3", {res("a", "2", "v3")});
  p.engine.applied(p.now, kEndpoints, {{"a", "no"}});  // what is in force is v2
  p.acts();
  p.engine.closed(p.now);
  p.up();
  EXPECT_EQ(p.acts(), "CDS* {a=v1} | EDS* +a,b {a=v2}");
  p.engine.want(kEndpoints, {"b"});
  EXPECT_EQ(p.acts(), "EDS* -a");  // known versions only with the first request
}

TEST(XdsDelta, Nack) {
  Peer p(delta());
  p.engine.want_all(kListener);
  p.up();
  p.acts();
  p.gets(kListener, "1", "n", {res("a", "1", "1"), res("b", "1", "1")});
  p.engine.applied(p.now, kListener, {{"b", "filter_chains[0]: not supported"}});
  EXPECT_EQ(p.acts(), "LDS* n=n !b: filter_chains[0]: not supported");
  EXPECT_EQ(p.engine.known(kListener), 1u);
}

}  // namespace
}  // namespace millrace::control
