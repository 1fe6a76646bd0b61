// The whole way of a table from the publisher to the workers, both sides in one process, stepped by hand.
#include <atomic>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <signal.h>
#include <sys/wait.h>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "lib/route/compiler.h"
#include "lib/tls/context.h"
#include "tests/unit/control/link_world.h"
#include "tests/unit/tls/test_certificate.h"

namespace millrace {
namespace {

using namespace testing;  // millrace::testing
using control::AckState;
using stats::LoaderCounter;
using table::Kind;
using table::object_id;

class Link : public ::testing::Test {
 protected:
  RunDir dir;
  base::TimeNs now = base::kSecond;
  std::string ack(FakeControl& c, uint64_t epoch) { return state(c.publisher->acknowledgement(epoch).state); }
};

const dataplane::ClusterRuntime* cluster_of(const FakeWorker& w, const std::string& name) {
  return w.tables->cluster(object_id(Kind::kCluster, name));
}
std::string name_of(const table::Cluster* c) { return std::string(table::view(c, c->name)); }

TEST_F(Link, AWorkerAlwaysHasTables) {
  FakeDataplane d(dir.socket);
  for (FakeWorker& w : d.workers) {
    ASSERT_NE(w.tables, nullptr);
    EXPECT_EQ(w.tables->epoch(), 0u);
    EXPECT_EQ(w.tables->cluster(1234), nullptr);
    EXPECT_EQ(w.tables->listener_set().find(base::IpAddress::v4(1), 80), nullptr);
    EXPECT_TRUE(w.tables->listeners().empty());
  }
}

TEST_F(Link, WhatIsPublishedReachesEveryWorker) {
  FakeDataplane d(dir.socket);
  FakeControl c(dir.socket);
  settle(&d, &c, now);
  ASSERT_TRUE(c.link->info().connected) << c.link->info().state;
  EXPECT_EQ(c.link->info().workers, 2u);
  EXPECT_EQ(c.link->info().pid, static_cast<uint32_t>(::getpid()));

  const uint64_t epoch = c.publish({{"a", sample::cluster("a")},
                                    {"a", sample::endpoint_set("a", 3)},
                                    {"l", sample::listener("l")},
                                    {"r", sample::route_table("r", {"h"})}});
  EXPECT_EQ(epoch, 1u);
  EXPECT_EQ(ack(c, epoch), "pending");
  settle(&d, &c, now, /*workers=*/false);
  EXPECT_EQ(c.publisher->status().accepted, 1u);
  EXPECT_EQ(ack(c, epoch), "pending") << "accepted, but no worker has taken it";
  d.workers[0].turn();
  EXPECT_EQ(ack(c, epoch), "pending");
  EXPECT_EQ(c.publisher->status().seen, (std::vector<uint64_t>{1, 0}));
  d.workers[1].turn();
  EXPECT_EQ(ack(c, epoch), "acknowledged");

  for (const FakeWorker& w : d.workers) {
    const auto* a = cluster_of(w, "a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(name_of(a->object), "a");
    ASSERT_EQ(a->endpoint_list().size(), 3u);
    EXPECT_EQ(a->endpoint_list()[2].port, 8002);
    ASSERT_EQ(a->endpoint_slots.size(), 3u);
    const auto* l = w.tables->listener(object_id(Kind::kListener, "l"));
    ASSERT_NE(l, nullptr);
    ASSERT_EQ(l->chains.size(), 2u);
    EXPECT_EQ(l->chains[0].tls_context(0), nullptr);
    EXPECT_EQ(w.tables->listeners().size(), 1u);
    const auto* entry = w.tables->listener_set().find(base::IpAddress::v4(0x0a000001), 10000);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->id, l->id);
    EXPECT_NE(w.tables->route_table(object_id(Kind::kRouteTable, "r")), nullptr);
    EXPECT_EQ(w.tables->objects(), 4u);
  }
  // Statistics slots carry the names.
  ASSERT_TRUE(c.link->with_stats([&](const stats::RegionView& v) {
    std::set<std::pair<std::string, stats::ScopeKind>> names;
    for (const auto& s : v.all_scopes()) names.emplace(s.name, s.kind);
    EXPECT_TRUE(names.contains({"a", stats::ScopeKind::kCluster}));
    EXPECT_TRUE(names.contains({"a", stats::ScopeKind::kClusterCheck})) << "it is checked";
    EXPECT_TRUE(names.contains({"l", stats::ScopeKind::kListener}));
    EXPECT_TRUE(names.contains({"10.0.0.1:8000", stats::ScopeKind::kEndpoint}));
    EXPECT_TRUE(names.contains({"ingress", stats::ScopeKind::kHcm}));
    EXPECT_TRUE(names.contains({"passthrough", stats::ScopeKind::kHcm}));
  }));
}

TEST_F(Link, WhatIsPublishedBeforeThereIsADataplaneIsHandedOver) {
  FakeControl c(dir.socket);
  settle(nullptr, &c, now);
  const uint64_t first = c.publish({{"a", sample::cluster("a")}});
  const uint64_t second = c.publish({{"b", sample::cluster("b")}}, {object_id(Kind::kCluster, "a")});
  EXPECT_EQ(ack(c, second), "not connected");
  EXPECT_EQ(c.publisher->status().arena_retired, 0u) << "nobody reads it: freed at once";
  FakeDataplane d(dir.socket);
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, first), "acknowledged");
  EXPECT_EQ(ack(c, second), "acknowledged");
  EXPECT_EQ(cluster_of(d.workers[0], "a"), nullptr);
  EXPECT_NE(cluster_of(d.workers[0], "b"), nullptr);
}

TEST_F(Link, AnEmptyConfigurationIsOneToo) {
  FakeDataplane d(dir.socket);
  FakeControl c(dir.socket);
  const uint64_t epoch = c.publish({});
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, epoch), "acknowledged");
  EXPECT_EQ(d.workers[0].tables->objects(), 0u);
  EXPECT_GT(d.workers[0].tables->epoch(), 0u);
}

TEST_F(Link, UnchangedObjectsAreNeitherWrittenNorCheckedAgain) {
  FakeDataplane d(dir.socket);
  FakeControl c(dir.socket);
  settle(&d, &c, now);
  std::vector<std::pair<std::string, Blob>> all;
  for (int i = 0; i < 50; ++i) all.emplace_back("c" + std::to_string(i), sample::cluster("c" + std::to_string(i)));
  const uint64_t first = c.publish(all);
  settle(&d, &c, now);
  const uint64_t used = c.publisher->status().arena_used;
  EXPECT_EQ(d.count(LoaderCounter::kObjectsValidated), 50u);
  EXPECT_EQ(c.publish(all), first) << "nothing differs: no new epoch";
  EXPECT_EQ(c.publisher->status().arena_used, used);
  all[7].second = sample::cluster("c7", 1234);
  const uint64_t second = c.publish(all);
  EXPECT_EQ(second, first + 1);
  settle(&d, &c, now);
  EXPECT_EQ(d.count(LoaderCounter::kObjectsValidated), 51u);
  EXPECT_EQ(d.count(LoaderCounter::kObjectsReused), 49u);
  EXPECT_EQ(cluster_of(d.workers[0], "c7")->object->connect_timeout_ms, 1234u);
  EXPECT_EQ(c.publisher->status().arena_used, used) << "the old version was reclaimed";
}

TEST_F(Link, MemoryIsReclaimedWhenTheSlowestWorkerHasPassed) {
  FakeDataplane d(dir.socket, 3);
  FakeControl c(dir.socket);
  c.publish({{"a", sample::cluster("a", 1)}});
  settle(&d, &c, now);
  const uint64_t used = c.publisher->status().arena_used;
  for (uint32_t i = 2; i < 20; ++i) {
    c.publish({{"a", sample::cluster("a", i)}});
    settle(&d, &c, now, false);
    d.workers[0].turn();
    d.workers[2].turn();  // worker 1 sleeps
  }
  settle(&d, &c, now, false);
  EXPECT_EQ(cluster_of(d.workers[1], "a")->object->connect_timeout_ms, 1u);
  EXPECT_TRUE(table::validate_object({reinterpret_cast<const uint8_t*>(cluster_of(d.workers[1], "a")->object),
                                      cluster_of(d.workers[1], "a")->object->header.size})
                  .ok())
      << "what a worker still reads must not be written over";
  EXPECT_GT(c.publisher->status().arena_retired, 18u * 64);
  EXPECT_EQ(d.loader->snapshots_alive(), 19u);
  d.workers[1].turn();
  settle(&d, &c, now, false);
  EXPECT_EQ(c.publisher->status().arena_retired, 0u);
  EXPECT_EQ(c.publisher->status().arena_used, used);
  EXPECT_EQ(d.loader->snapshots_alive(), 1u);
  EXPECT_EQ(cluster_of(d.workers[1], "a")->object->connect_timeout_ms, 19u);
}

TEST_F(Link, AFullCommandRingCoalesces) {
  FakeDataplane d(dir.socket);
  control::PublisherConfig config;
  config.command_ring = 4096;
  FakeControl c(dir.socket, 1, config);
  settle(&d, &c, now);
  uint64_t epoch = 0;
  for (uint32_t i = 1; i <= 500; ++i) epoch = c.publish({{"a", sample::cluster("a", i)}});
  EXPECT_TRUE(c.publisher->status().waiting_for_ring);
  settle(&d, &c, now);
  EXPECT_FALSE(c.publisher->status().waiting_for_ring);
  EXPECT_EQ(ack(c, epoch), "acknowledged");
  EXPECT_EQ(cluster_of(d.workers[0], "a")->object->connect_timeout_ms, 500u);
  EXPECT_LE(d.count(LoaderCounter::kSnapshotsAccepted), 3u);
  EXPECT_GT(d.count(LoaderCounter::kSnapshotsSkipped), 100u);
}

// ---- deaths -------------------------------------------------------------------------------------------------------------------

TEST_F(Link, StageAccountingIsSwitchedOnEveryWorkerAndOutlivesControl) {
  using stats::LoaderCounter;
  FakeControl c(dir.socket, 1, [] {
    control::PublisherConfig p;
    p.command_ring = shm::kMinRingCapacity;
    return p;
  }());
  EXPECT_FALSE(c.publisher->set_stage_period(16)) << "nobody is there to do it";
  std::optional<FakeDataplane> d(dir.socket);
  settle(&*d, &c, now);
  const auto periods = [&] {
    std::vector<uint32_t> all;
    for (const dataplane::WorkerTableSlot& s : d->slots) all.push_back(s.stage_period());
    return all;
  };
  EXPECT_EQ(periods(), (std::vector<uint32_t>{0, 0})) << "what was asked of nobody is not done later";
  EXPECT_TRUE(c.publisher->set_stage_period(16));
  settle(&*d, &c, now);
  EXPECT_EQ(periods(), (std::vector<uint32_t>{16, 16}));
  EXPECT_EQ(d->count(LoaderCounter::kStagePeriod), 16u);
  // A ring that is full of commands: the newest wish comes through, between snapshots that come through too.
  uint64_t epoch = 0;
  for (uint32_t i = 1; i <= 500; ++i) {
    epoch = c.publish({{"c", sample::cluster("c", i)}});
    EXPECT_TRUE(c.publisher->set_stage_period(i));
  }
  settle(&*d, &c, now);
  EXPECT_EQ(periods(), (std::vector<uint32_t>{500, 500}));
  EXPECT_EQ(c.publisher->acknowledgement(epoch).state, AckState::kAcknowledged);
  EXPECT_EQ(d->count(LoaderCounter::kCommandErrors), 0u);
  // Nonsense from control is refused and counted.
  EXPECT_TRUE(c.publisher->set_stage_period(stats::StageClock::kMaxPeriod + 1));
  settle(&*d, &c, now);
  EXPECT_EQ(periods(), (std::vector<uint32_t>{500, 500}));
  EXPECT_EQ(d->count(LoaderCounter::kCommandErrors), 1u);
  // It belongs to the data plane: another control process finds it as it is, a new data plane begins as it is configured.
  c.link.reset();
  settle(&*d, nullptr, now);
  FakeControl other(dir.socket, 2);
  settle(&*d, &other, now);
  EXPECT_EQ(periods(), (std::vector<uint32_t>{500, 500}));
  EXPECT_TRUE(other.publisher->set_stage_period(0));
  settle(&*d, &other, now);
  EXPECT_EQ(periods(), (std::vector<uint32_t>{0, 0}));
}

TEST_F(Link, ControlDiesAndANewOneTakesOver) {
  FakeDataplane d(dir.socket);
  uint64_t last = 0;
  {
    FakeControl c(dir.socket, 1);
    for (uint32_t i = 1; i <= 10; ++i) {
      last = c.publish({{"a", sample::cluster("a", i)}, {"old", sample::cluster("old")}});
      settle(&d, &c, now);
    }
    EXPECT_EQ(ack(c, last), "acknowledged");
  }
  settle(&d, nullptr, now);
  EXPECT_FALSE(d.link->connected());
  EXPECT_EQ(cluster_of(d.workers[0], "a")->object->connect_timeout_ms, 10u) << "the tables stay";
  EXPECT_NE(cluster_of(d.workers[1], "old"), nullptr);

  FakeControl c(dir.socket, 2);
  const uint64_t early = c.publish({{"a", sample::cluster("a", 99)}});
  EXPECT_EQ(early, 1u);
  EXPECT_EQ(ack(c, early), "not connected");
  settle(&d, &c, now, /*workers=*/false);
  EXPECT_EQ(ack(c, early), "pending") << "the old control's epoch 10 must not be taken for ours";
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, early), "acknowledged");
  EXPECT_GT(c.publisher->status().epoch, last) << "epochs go on above the old control's";
  EXPECT_EQ(cluster_of(d.workers[0], "a")->object->connect_timeout_ms, 99u);
  EXPECT_EQ(cluster_of(d.workers[0], "old"), nullptr);
  EXPECT_EQ(d.loader->snapshots_alive(), 1u) << "the old arena is gone with its last snapshot";
  EXPECT_EQ(d.count(LoaderCounter::kControlConnects), 2u);
}

TEST_F(Link, TheDataplaneDiesAndANewOneGetsEverything) {
  FakeControl c(dir.socket, 1);
  std::optional<FakeDataplane> d(std::in_place, dir.socket, 2, 100);
  c.publish({{"a", sample::cluster("a", 5)}, {"a", sample::endpoint_set("a", 4)}});
  settle(&*d, &c, now);
  const uint64_t before = c.publisher->status().epoch;
  d.reset();
  settle(nullptr, &c, now);
  EXPECT_FALSE(c.link->info().connected);
  const uint64_t meanwhile = c.publish({{"a", sample::cluster("a", 6)}});
  EXPECT_EQ(ack(c, meanwhile), "not connected");
  d.emplace(dir.socket, 3, 101);
  settle(&*d, &c, now);
  ASSERT_TRUE(c.link->info().connected) << c.link->info().state;
  EXPECT_EQ(c.link->info().incarnation, 101u);
  EXPECT_EQ(ack(c, meanwhile), "acknowledged");
  EXPECT_GT(c.publisher->status().epoch, before);
  EXPECT_EQ(c.publisher->status().seen.size(), 3u);
  EXPECT_EQ(cluster_of(d->workers[2], "a")->object->connect_timeout_ms, 6u);
  EXPECT_EQ(cluster_of(d->workers[2], "a")->endpoint_list().size(), 4u);
}

TEST_F(Link, ASecondControlIsRefusedAndGetsInWhenTheFirstIsGone) {
  FakeDataplane d(dir.socket);
  std::optional<FakeControl> first(std::in_place, dir.socket, 1);
  settle(&d, &*first, now);
  FakeControl second(dir.socket, 2);
  settle(&d, &second, now);
  EXPECT_FALSE(second.link->info().connected);
  EXPECT_EQ(second.link->info().state, "the data plane refused: this data plane already serves the control process " +
                                           std::to_string(::getpid()) + "; stop that one first");
  EXPECT_TRUE(first->link->info().connected);
  EXPECT_GE(d.count(LoaderCounter::kControlRefused), 1u);
  EXPECT_LE(second.log.size(), 2u) << "said once, not every 100 ms";
  first.reset();
  settle(&d, &second, now);
  EXPECT_TRUE(second.link->info().connected);
}

TEST_F(Link, DifferentVersionsRefuseEachOther) {
  FakeDataplane d(dir.socket, 1, 7, {}, "hyperscan 5.4.0 avx2");
  FakeControl c(dir.socket, 1, {}, "hyperscan 5.4.2 avx512");
  settle(&d, &c, now);
  EXPECT_FALSE(c.link->info().connected);
  EXPECT_EQ(c.link->info().state,
            "the data plane refused: regex databases of this control process do not run in this data plane: Hyperscan version or "
            "CPU features differ");
  table::LinkVersions a = control::link_versions("x"), b = a;
  EXPECT_EQ(table::link_mismatch(a, b), nullptr);
  b.link++;
  EXPECT_NE(table::link_mismatch(a, b), nullptr);
  b = a;
  b.layout++;
  EXPECT_NE(table::link_mismatch(a, b), nullptr);
  b = a;
  b.stats_hash++;
  EXPECT_NE(table::link_mismatch(a, b), nullptr);
  b = a;
  b.events++;
  EXPECT_NE(table::link_mismatch(a, b), nullptr);
  b = dataplane::link_versions("");
  EXPECT_EQ(table::link_mismatch(a, b), nullptr) << "one side uses no regexes";
}

TEST_F(Link, StrangersAtTheSocketDoNoHarm) {
  FakeDataplane d(dir.socket);
  FakeControl c(dir.socket);
  c.publish({{"a", sample::cluster("a", 5)}});
  {
    auto silent = shm::FdChannel::connect(dir.socket);  // never says anything: dropped after the handshake time
    ASSERT_TRUE(silent.ok());
    d.link->step(now);
    now += 3 * base::kSecond;
    d.link->step(now);
    d.link->step(now);
    auto babbler = shm::FdChannel::connect(dir.socket);
    ASSERT_TRUE(babbler.ok());
    ASSERT_TRUE(babbler->send(static_cast<uint16_t>(table::LinkMessage::kHello), std::vector<uint8_t>{1, 2, 3}).ok());
    d.link->step(now);
    auto wrong = shm::FdChannel::connect(dir.socket);
    ASSERT_TRUE(wrong.ok());
    ASSERT_TRUE(wrong->send_struct(static_cast<uint16_t>(table::LinkMessage::kAttach), table::LinkAttach{}).ok());
    d.link->step(now);
    // A hello, then an attach with segments that are none.
    auto liar = shm::FdChannel::connect(dir.socket);
    ASSERT_TRUE(liar.ok());
    table::LinkHello hello;
    hello.versions = control::link_versions("test");
    hello.incarnation = 5;
    ASSERT_TRUE(liar->send_struct(static_cast<uint16_t>(table::LinkMessage::kHello), hello).ok());
    d.link->step(now);
    const int fds[] = {0, 0};
    ASSERT_TRUE(liar->send_struct(static_cast<uint16_t>(table::LinkMessage::kAttach), table::LinkAttach{}, fds).ok());
    d.link->step(now);
    EXPECT_FALSE(d.link->connected());
  }
  EXPECT_GE(d.count(LoaderCounter::kControlRefused), 4u);
  settle(&d, &c, now);
  EXPECT_TRUE(c.link->info().connected);
  EXPECT_NE(cluster_of(d.workers[0], "a"), nullptr);
}

// ---- rejection ----------------------------------------------------------------------------------------------------------------

TEST_F(Link, ThePublisherStopsBrokenObjects) {
  FakeControl c(dir.socket);
  Blob blob = sample::cluster("a");
  blob.back() ^= 1;
  const control::PublishObject bad[] = {{"a", blob}};
  auto r = c.publisher->publish(bad);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error(), "'a': cluster: checksum is wrong");
  const Blob good = sample::cluster("b");
  const control::PublishObject twice[] = {{"b", good}, {"b", good}};
  EXPECT_FALSE(c.publisher->publish(twice).ok());
  const control::PublishObject once[] = {{"b", good}};
  ASSERT_TRUE(c.publisher->publish(once).ok());
  const control::PublishObject other_name[] = {{"not b", good}};
  auto collision = c.publisher->publish(other_name);
  ASSERT_FALSE(collision.ok());
  EXPECT_EQ(collision.error(), "'not b': its id collides with that of 'b'; give one of them another name");
  const table::ObjectId id[] = {object_id(Kind::kCluster, "b")};
  EXPECT_FALSE(c.publisher->publish(once, id).ok()) << "published and removed at once";
  EXPECT_EQ(c.publisher->status().objects, 1u);
}

TEST_F(Link, DamagedObjectsAreRejectedWithAReasonAndTheOldTablesStay) {
  FakeDataplane d(dir.socket);
  control::PublisherConfig config;
  config.validate = false;  // as if memory were damaged on the way
  FakeControl c(dir.socket, 1, config);
  const uint64_t good = c.publish({{"a", sample::cluster("a", 1)}});
  settle(&d, &c, now);
  ASSERT_EQ(ack(c, good), "acknowledged");
  Blob damaged = sample::cluster("b");
  damaged[60] ^= 4;
  const uint64_t bad = c.publish({{"b", damaged}});
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, bad), "rejected");
  EXPECT_EQ(c.publisher->acknowledgement(bad).reason, "cluster: checksum is wrong");
  EXPECT_EQ(c.publisher->wait_acknowledged(bad, std::chrono::milliseconds(1)).reason, "cluster: checksum is wrong");
  EXPECT_EQ(ack(c, good), "acknowledged");
  EXPECT_EQ(d.count(LoaderCounter::kSnapshotsRejected), 1u);
  EXPECT_EQ(d.loader->last_rejection(), "cluster: checksum is wrong");
  EXPECT_EQ(d.workers[0].tables->epoch(), good);
  EXPECT_NE(cluster_of(d.workers[0], "a"), nullptr);
  ASSERT_FALSE(c.log.empty());
  EXPECT_EQ(c.log.back(), "data plane rejected the tables of epoch " + std::to_string(bad) + ": cluster: checksum is wrong");
  // The repaired object goes through.
  const uint64_t repaired = c.publish({{"b", sample::cluster("b")}});
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, repaired), "acknowledged");
  EXPECT_EQ(ack(c, bad), "acknowledged") << "a newer epoch is in force";
  EXPECT_TRUE(d.loader->last_rejection().empty());
}

// The loader alone with an arena made by hand: every way in which a root or a command can be wrong.
class LoaderAlone : public Link {
 protected:
  LoaderAlone() : d(dir.socket, 1) {
    auto a = shm::Segment::create("arena", 1 << 20);
    arena = a->data();
    auto commands = shm::Segment::create("commands", shm::ring_bytes(4096));
    EXPECT_EQ(shm::format_ring(commands->bytes(), 4096), shm::RingError::kNone);
    ring_memory = commands->bytes();
    EXPECT_EQ(ring.attach(ring_memory), shm::RingError::kNone);
    keep = shm::UniqueFd(::dup(a->fd()));
    EXPECT_TRUE(d.loader->attach(std::move(*a), std::move(*commands), 42).ok());
  }
  table::ObjectRef put(uint64_t offset, const Blob& blob) {
    std::memcpy(arena + offset, blob.data(), blob.size());
    table::ObjectHeader h;
    std::memcpy(&h, blob.data(), sizeof h);
    table::ObjectRef r{};
    r.id = h.id;
    r.kind = h.kind;
    r.size = h.size;
    r.version = h.version;
    r.arena_offset = offset;
    return r;
  }
  void command(uint64_t epoch, uint64_t root, uint32_t count) {
    table::PublishSnapshot p;
    p.epoch = epoch;
    p.root_offset = root;
    p.count = count;
    ASSERT_TRUE(ring.push({reinterpret_cast<const uint8_t*>(&p), sizeof p}));
  }
  void root(uint64_t offset, uint64_t epoch, std::vector<table::ObjectRef> refs, uint64_t incarnation = 42) {
    const auto bytes = table::write_snapshot(epoch, incarnation, std::move(refs));
    std::memcpy(arena + offset, bytes.data(), bytes.size());
  }
  std::string result() {
    d.loader->step(now);
    return d.loader->last_rejection().empty() ? "accepted" : d.loader->last_rejection();
  }
  FakeDataplane d;
  uint8_t* arena = nullptr;
  shm::UniqueFd keep;
  std::span<uint8_t> ring_memory;
  shm::RingProducer ring;
};

TEST_F(LoaderAlone, RootTable) {
  const auto a = put(8192, sample::cluster("a"));
  root(65536, 5, {a});
  command(5, 65536, 1);
  EXPECT_EQ(result(), "accepted");
  const uint64_t accepted_epoch = 5;

  struct Case {
    const char* what;
    std::function<void()> act;
    const char* want;
  };
  const Case cases[] = {
      {"outside", [&] { command(6, 1 << 20, 1); }, "snapshot root lies outside the arena"},
      {"far outside", [&] { command(6, UINT64_MAX - 7, 1); }, "snapshot root lies outside the arena"},
      {"unaligned", [&] { command(6, 65540, 1); }, "snapshot root lies outside the arena"},
      {"first page", [&] { command(6, 8, 1); }, "snapshot root lies outside the arena"},
      {"nothing there", [&] { command(6, 131072, 1); }, "not a snapshot root (magic)"},
      {"at the very end", [&] { command(6, (1 << 20) - 8, 1); }, "snapshot root is shorter than its header"},
      {"other epoch",
       [&] {
         root(65536, 7, {a});
         command(6, 65536, 1);
       },
       "snapshot root is not the one the command names"},
      {"other count",
       [&] {
         root(65536, 6, {a});
         command(6, 65536, 2);
       },
       "snapshot root is not the one the command names"},
      {"other control",
       [&] {
         root(65536, 6, {a}, 43);
         command(6, 65536, 1);
       },
       "snapshot root is of another control process"},
      {"old epoch",
       [&] {
         root(65536, 5, {a});
         command(5, 65536, 1);
       },
       "epoch 5 is not above the last one, 5"},
      {"object beyond the arena",
       [&] {
         auto r = a;
         r.arena_offset = (1 << 20) - 64;
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "snapshot reference 0: reaches past the end of the arena"},
      {"object in the first page",
       [&] {
         auto r = a;
         r.arena_offset = 64;
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "snapshot reference 0: lies in the arena's first page"},
      {"no object there",
       [&] {
         auto r = a;
         r.arena_offset = 131072;
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "not a table object (magic)"},
      {"another object there",
       [&] {
         auto r = a;
         r.arena_offset = 16384;
         put(16384, sample::cluster("b"));
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "cluster: is not the object its reference names"},
      {"another version there",
       [&] {
         auto r = a;
         r.version = 9;
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "cluster: is not the object its reference names"},
      {"shorter than said",
       [&] {
         auto r = a;
         r.arena_offset = 8192;
         r.size += 8;
         root(65536, 6, {r});
         command(6, 65536, 1);
       },
       "cluster: size field disagrees with the bytes there are"},
      {"a malformed command", [&] { ASSERT_TRUE(ring.push(std::vector<uint8_t>(7))); }, "control sent a malformed command"},
      {"an unknown command",
       [&] {
         table::PublishSnapshot p;
         p.type = static_cast<table::CommandType>(9);
         ASSERT_TRUE(ring.push({reinterpret_cast<const uint8_t*>(&p), sizeof p}));
       },
       "control sent a malformed command"},
  };
  for (const Case& c : cases) {
    c.act();
    EXPECT_EQ(result(), c.want) << c.what;
    d.turn_all();
    EXPECT_EQ(d.workers[0].tables->epoch(), accepted_epoch) << c.what;
    EXPECT_NE(cluster_of(d.workers[0], "a"), nullptr) << c.what;
  }
  root(65536, 6, {a});
  command(6, 65536, 1);
  EXPECT_EQ(result(), "accepted");
  EXPECT_EQ(d.count(LoaderCounter::kObjectsValidated), 1u) << "the one good object, once";
}

TEST_F(LoaderAlone, ACorruptCommandRingIsGivenUpAndTheTablesStay) {
  const auto a = put(8192, sample::cluster("a"));
  root(65536, 1, {a});
  command(1, 65536, 1);
  EXPECT_EQ(result(), "accepted");
  auto* header = reinterpret_cast<shm::RingHeader*>(ring_memory.data());
  header->head = 1;
  EXPECT_EQ(result(), "command ring is corrupt: ring_index_misaligned");
  EXPECT_GE(d.count(LoaderCounter::kCommandErrors), 1u);
  d.turn_all();
  EXPECT_NE(cluster_of(d.workers[0], "a"), nullptr);
}

// ---- edits --------------------------------------------------------------------------------------------------------------------

struct Model {
  struct Cluster {
    uint32_t timeout;
    std::optional<uint32_t> endpoints;
  };
  std::map<std::string, Cluster> clusters;
  std::map<std::string, uint16_t> listeners;  // name -> port

  void check(const dataplane::RuntimeSnapshot& t) const {
    size_t objects = clusters.size() + listeners.size();
    for (const auto& [name, c] : clusters) {
      const auto* r = t.cluster(object_id(Kind::kCluster, name));
      ASSERT_NE(r, nullptr) << name;
      ASSERT_EQ(name_of(r->object), name);
      ASSERT_EQ(r->object->connect_timeout_ms, c.timeout);
      ASSERT_EQ(r->endpoint_list().size(), c.endpoints.value_or(0)) << name;
      ASSERT_EQ(r->endpoints != nullptr, c.endpoints.has_value());
      ASSERT_EQ(r->endpoint_slots.size(), r->endpoint_list().size());
      objects += c.endpoints.has_value();
    }
    for (const auto& [name, port] : listeners) {
      const auto* l = t.listener(object_id(Kind::kListener, name));
      ASSERT_NE(l, nullptr);
      ASSERT_EQ(l->object->port, port);
      const auto* entry = t.listener_set().find(l->object->address, port);
      ASSERT_NE(entry, nullptr);
    }
    ASSERT_EQ(t.objects(), objects);
    ASSERT_EQ(t.listeners().size(), listeners.size());
  }
};

// A thousand random edits; workers take tables when they like; control and data plane die now and then. After each quiet moment
// every worker has exactly the model's tables, and no memory is lost.
TEST_F(Link, AThousandRandomEdits) {
  const uint64_t seed = std::getenv("SEED") != nullptr ? std::strtoull(std::getenv("SEED"), nullptr, 10) : 0xed17;
  SCOPED_TRACE("SEED=" + std::to_string(seed));
  base::Prng random(seed);
  std::optional<FakeDataplane> d(std::in_place, dir.socket, 3, 1);
  std::optional<FakeControl> c(std::in_place, dir.socket, 1);
  Model model;
  std::map<std::string, Blob> all;  // everything live, for a new control; key: kind and name
  uint64_t deaths = 0;
  for (int edit = 0; edit < 1000; ++edit) {
    const std::string name = "c" + std::to_string(random.below(30));
    switch (random.below(6)) {
      case 0:
      case 1: {
        auto& m = model.clusters[name];
        m.timeout = 1 + static_cast<uint32_t>(random.below(5000));
        all["c" + name] = sample::cluster(name, m.timeout);
        c->publish({{name, all["c" + name]}});
        break;
      }
      case 2: {
        const auto m = model.clusters.find(name);
        if (m == model.clusters.end()) break;
        m->second.endpoints = static_cast<uint32_t>(random.below(8));
        all["e" + name] = sample::endpoint_set(name, *m->second.endpoints);
        c->publish({{name, all["e" + name]}});
        break;
      }
      case 3:
        if (model.clusters.erase(name) != 0) {
          c->publish({}, {object_id(Kind::kCluster, name), object_id(Kind::kEndpointSet, name)});
          all.erase("c" + name);
          all.erase("e" + name);
        }
        break;
      case 4: {
        const uint16_t port = static_cast<uint16_t>(10'000 + random.below(20));
        const std::string listener = "l" + std::to_string(port);
        if (random.below(3) == 0) {
          model.listeners.erase(listener);
          all.erase("l" + listener);
          c->publish({}, {object_id(Kind::kListener, listener)});
        } else {
          model.listeners[listener] = port;
          all["l" + listener] = sample::listener(listener, {.port = port, .stat_prefix = "p" + std::to_string(random.below(3))});
          c->publish({{listener, all["l" + listener]}});
        }
        break;
      }
      case 5: {  // several at once
        std::vector<std::pair<std::string, Blob>> changed;
        for (int i = 0; i < 5; ++i) {
          const std::string n = "c" + std::to_string(i * 6 + static_cast<int>(random.below(6)));
          auto& m = model.clusters[n];
          m.timeout = 1 + static_cast<uint32_t>(random.below(5000));
          all["c" + n] = sample::cluster(n, m.timeout);
          changed.emplace_back(n, all["c" + n]);
        }
        c->publish(changed);
        break;
      }
    }
    if (random.below(50) == 0) {  // control dies without a word and is started again
      ++deaths;
      c.reset();
      if (random.below(2) == 0) settle(&*d, nullptr, now);
      c.emplace(dir.socket, 1000 + deaths);
      std::vector<std::pair<std::string, Blob>> again;
      for (const auto& [key, blob] : all) again.emplace_back(key.substr(1), blob);
      c->publish(again);
    } else if (random.below(80) == 0) {
      ++deaths;
      d.reset();
      d.emplace(dir.socket, 3, 1000 + deaths);
    }
    // Some turns for everybody, in random order.
    for (uint64_t n = random.below(6); n > 0; --n) {
      now += base::kMillisecond;
      switch (random.below(3)) {
        case 0:
          c->link->step(now);
          break;
        case 1:
          d->link->step(now);
          break;
        case 2:
          d->workers[random.below(3)].turn();
          break;
      }
      // What a worker holds must be whole at any moment.
      for (const FakeWorker& w : d->workers) {
        for (const auto* l : w.tables->listeners())
          ASSERT_TRUE(table::validate_object({reinterpret_cast<const uint8_t*>(l->object), l->object->header.size}).ok());
      }
    }
    if (random.below(4) == 0) {
      settle(&*d, &*c, now);
      ASSERT_TRUE(c->link->info().connected);
      const auto status = c->publisher->status();
      ASSERT_EQ(status.acknowledged, status.epoch);
      ASSERT_EQ(status.arena_retired, 0u);
      ASSERT_EQ(d->loader->snapshots_alive(), 1u);
      for (const FakeWorker& w : d->workers) ASSERT_NO_FATAL_FAILURE(model.check(*w.tables));
      ASSERT_EQ(d->count(LoaderCounter::kSnapshotsRejected), 0u);
    }
  }
  EXPECT_GT(deaths, 10u);
  EXPECT_GT(model.clusters.size(), 10u);
}

// ---- what the loader makes of virtual hosts, and statistics slots
// ------------------------------------------------------------------

route::CompiledObject compile_host(route::RouteCompiler& compiler, const std::string& name,
                                   const std::vector<std::string>& regexes) {
  route::VirtualHostSpec spec;
  spec.name = name;
  spec.domains = {"*"};
  for (const std::string& r : regexes) {
    route::RouteSpec route;
    route.path_kind = table::PathKind::kRegex;
    route.path = r;
    route.clusters.resize(1);
    route.clusters[0].name = "a";
    spec.routes.push_back(route);
  }
  return compiler.compile_virtual_host(spec, route::virtual_host_object_name("t", name));
}

TEST_F(Link, RegexesWorkForEveryWorkerAndScratchGrowsWithThem) {
  FakeDataplane d(dir.socket, 2);
  FakeControl c(dir.socket);
  settle(&d, &c, now);
  route::RouteCompiler compiler;
  std::vector<std::string> regexes;
  const auto id = object_id(Kind::kVirtualHost, route::virtual_host_object_name("t", "h"));
  for (int i = 0; i < 6; ++i) {
    for (int k = 0; k < 8; ++k)
      regexes.push_back("/v" + std::to_string(i * 8 + k) + "/[a-z]+/users/[^/]+/orders/[0-9]{1," + std::to_string(5 + i) + "}");
    auto compiled = compile_host(compiler, "h", regexes);
    ASSERT_TRUE(compiled.ok()) << compiled.errors[0].message;
    const Blob blob(compiled.bytes(), compiled.bytes() + compiled.size_bytes);
    // 8-aligned copy for the publisher.
    c.publish({{route::virtual_host_object_name("t", "h"), blob}});
    settle(&d, &c, now, false);
    ASSERT_EQ(d.loader->last_rejection(), "");
    if (i % 2 == 0) d.turn_all();  // every second snapshot is skipped by the workers: its scratch must reach them all the same
    else continue;
    for (FakeWorker& w : d.workers) {
      const auto* host = w.tables->virtual_host(id);
      ASSERT_NE(host, nullptr);
      route::MatchScratch scratch;
      std::swap(scratch.patterns, w.scratch);
      http::RequestHead head;
      http::Header storage[4];
      head.headers = http::HeaderTable(storage, 4);
      head.method = "GET";
      const std::string path = "/v" + std::to_string(regexes.size() - 1) + "/abc/users/me/orders/123";
      head.path = path;
      route::MatchContext context;
      context.scratch = &scratch;
      const auto result = route::match_route(host->runtime, head, context);
      EXPECT_EQ(result.outcome, route::MatchOutcome::kRoute) << route::to_string(result.outcome);
      EXPECT_EQ(result.route, regexes.size() - 1);
      std::swap(scratch.patterns, w.scratch);
    }
  }
}

TEST_F(Link, ABrokenRegexDatabaseIsRejectedByName) {
  FakeDataplane d(dir.socket, 1);
  FakeControl c(dir.socket);
  const uint64_t good = c.publish({{"a", sample::cluster("a")}});
  settle(&d, &c, now);
  const uint64_t bad = c.publish({{"host", sample::virtual_host("host")}});  // its databases are no databases
  settle(&d, &c, now);
  EXPECT_EQ(ack(c, bad), "rejected");
  EXPECT_EQ(c.publisher->acknowledgement(bad).reason.find("virtual host host: "), 0u) << c.publisher->acknowledgement(bad).reason;
  EXPECT_EQ(d.workers[0].tables->epoch(), good);
}

// A refused snapshot has built and replaced nodes before it was refused: the tables in force get theirs back, and the next change
// finds everything where it was.
TEST_F(Link, ARefusedSnapshotGivesEveryNodeBack) {
  FakeDataplane d(dir.socket, 1);
  FakeControl c(dir.socket);
  std::vector<std::pair<std::string, Blob>> all;
  for (const std::string name : {"a", "b", "c"}) {
    all.emplace_back(name, sample::cluster(name));
    all.emplace_back(name, sample::endpoint_set(name, 2));
  }
  all.emplace_back("l", sample::listener("l"));
  c.publish(all);
  settle(&d, &c, now);
  const FakeWorker& w = d.workers[0];
  const auto* a = cluster_of(w, "a");
  const auto* b = cluster_of(w, "b");
  const auto* l = w.tables->listener(object_id(Kind::kListener, "l"));
  for (int i = 0; i < 3; ++i) {
    // The cluster looks at its endpoints and is made anew; then the virtual host is refused.
    const uint64_t bad = c.publish({{"a", sample::endpoint_set("a", 5)}, {"host", sample::virtual_host("host")}});
    settle(&d, &c, now);
    ASSERT_EQ(ack(c, bad), "rejected");
    EXPECT_EQ(cluster_of(w, "a"), a);
    EXPECT_EQ(a->endpoint_list().size(), 2u);
    c.publish({{"a", sample::endpoint_set("a", 2)}, {"c", sample::endpoint_set("c", static_cast<uint32_t>(3 + i))}},
              {object_id(Kind::kVirtualHost, "host")});
    settle(&d, &c, now);
    EXPECT_EQ(d.loader->last_rejection(), "");
    EXPECT_EQ(cluster_of(w, "b"), b) << "nothing of it has changed";
    EXPECT_EQ(w.tables->listener(object_id(Kind::kListener, "l")), l);
    EXPECT_EQ(cluster_of(w, "c")->endpoint_list().size(), static_cast<size_t>(3 + i));
    a = cluster_of(w, "a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->endpoint_list().size(), 2u);
  }
}

// Names come and go by the thousand: a cluster still hears of its endpoints, also after what is gone has been forgotten.
TEST_F(Link, EndpointsReachTheirClusterHoweverManyNamesHaveBeen) {
  FakeDataplane d(dir.socket, 1);
  FakeControl c(dir.socket);
  c.publish(
      {{"stays", sample::cluster("stays")}, {"waits", sample::cluster("waits")}, {"stays", sample::endpoint_set("stays", 1)}});
  settle(&d, &c, now);
  for (uint32_t round = 0; round < 3; ++round) {
    std::vector<std::pair<std::string, Blob>> some;
    std::vector<table::ObjectId> gone;
    for (int i = 0; i < 700; ++i) {
      const std::string name = "r" + std::to_string(round) + "-" + std::to_string(i);
      some.emplace_back(name, sample::cluster(name));
      gone.push_back(object_id(Kind::kCluster, name));
    }
    c.publish(some);
    settle(&d, &c, now);
    c.publish({}, gone);
    settle(&d, &c, now);
    c.publish({{"stays", sample::endpoint_set("stays", 2 + round)}});
    settle(&d, &c, now);
    EXPECT_EQ(cluster_of(d.workers[0], "stays")->endpoint_list().size(), 2 + round);
    EXPECT_EQ(cluster_of(d.workers[0], "waits")->endpoints, nullptr);
  }
  c.publish({{"waits", sample::endpoint_set("waits", 4)}});
  settle(&d, &c, now);
  EXPECT_EQ(cluster_of(d.workers[0], "waits")->endpoint_list().size(), 4u);
}

TEST_F(Link, TlsContextsAreMadePerWorkerAndSurviveEditsElsewhere) {
  std::vector<std::unique_ptr<tls::LibraryContext>> libraries;
  std::vector<tls::LibraryContext*> raw;
  for (int w = 0; w < 2; ++w) {
    auto library = tls::LibraryContext::create();
    ASSERT_TRUE(library.ok()) << library.error();
    libraries.push_back(std::move(*library));
    raw.push_back(libraries.back().get());
  }
  FakeDataplane d(dir.socket, 2, 7, raw);
  FakeControl c(dir.socket);
  settle(&d, &c, now);
  const auto pem = tls::testing::make_certificate({.common_name = "www.example.com", .sans = {"DNS:www.example.com"}});
  const auto context = [&](uint32_t worker) {
    return d.workers[worker].tables->listener(object_id(Kind::kListener, "l"))->chains[0].tls_context(worker);
  };
  const auto publish = [&](std::vector<std::pair<std::string, Blob>> objects) {
    const uint64_t epoch = c.publish(objects);
    settle(&d, &c, now);
    return c.publisher->acknowledgement(epoch);
  };
  // The certificate is not there yet: the chain is, without a context, and somebody is told.
  EXPECT_EQ(publish({{"l", sample::listener("l", {.secrets = {"s"}})}}).state, AckState::kAcknowledged);
  EXPECT_EQ(context(0), nullptr);
  ASSERT_FALSE(c.log.empty());
  EXPECT_EQ(c.log.back(),
            "data plane: listener 'l', filter chain 'chain-0': a secret is missing; TLS connections to it are refused until "
            "it is there");
  EXPECT_EQ(publish({{"s", sample::secret("s", pem.chain, pem.key)}}).state, AckState::kAcknowledged);
  tls::ServerContext* first = context(0);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(context(1), nullptr);
  EXPECT_NE(context(1), first) << "nothing is shared between workers";
  now += 2 * base::kSecond;  // gauges are brought up to date once a second
  settle(&d, &c, now);
  EXPECT_EQ(d.count(LoaderCounter::kTlsContexts), 2u);
  // The listener changes, its certificate does not.
  EXPECT_EQ(publish({{"l", sample::listener("l", {.port = 10001, .secrets = {"s"}})}}).state, AckState::kAcknowledged);
  EXPECT_EQ(context(0), first);
  // A new certificate: new contexts; the old ones go when no table shows them and no session uses them.
  const auto renewed = tls::testing::make_certificate({.common_name = "www.example.com", .sans = {"DNS:www.example.com"}});
  EXPECT_EQ(publish({{"s", sample::secret("s", renewed.chain, renewed.key)}}).state, AckState::kAcknowledged);
  EXPECT_NE(context(0), first);
  now += 2 * base::kSecond;
  settle(&d, &c, now);
  EXPECT_EQ(d.count(LoaderCounter::kTlsContexts), 2u);
  // A key that does not belong to the certificate: refused by name, the old one stays.
  const auto bad = publish({{"s", sample::secret("s", renewed.chain, pem.key)}});
  EXPECT_EQ(bad.state, AckState::kRejected);
  EXPECT_EQ(bad.reason.find("listener 'l', filter chain 'chain-0': "), 0u) << bad.reason;
  EXPECT_NE(context(0), nullptr);
}

TEST_F(Link, StatisticsSlotsAreStableAndAreFreedWhenQuiet) {
  FakeDataplane d(dir.socket, 2);
  FakeControl c(dir.socket);
  c.publish({{"a", sample::cluster("a", 1)}, {"a", sample::endpoint_set("a", 2)}, {"b", sample::cluster("b")}});
  settle(&d, &c, now);
  const stats::ScopeSlot a = cluster_of(d.workers[0], "a")->slot, b = cluster_of(d.workers[0], "b")->slot;
  const stats::ScopeSlot endpoint = cluster_of(d.workers[0], "a")->endpoint_slots[1];
  ASSERT_NE(a, stats::kOverflowScope);
  ASSERT_NE(a, b);
  d.workers[0].stats.scope(a)[stats::ClusterCounter::kRqTotal].add(3);
  d.workers[1].stats.scope(a)[stats::ClusterCounter::kRqTotal].add(4);
  d.workers[0].stats.scope(b)[stats::ClusterCounter::kRqActive].add();  // a request is under way
  c.publish({{"a", sample::cluster("a", 2)}, {"a", sample::endpoint_set("a", 3)}});
  settle(&d, &c, now);
  EXPECT_EQ(cluster_of(d.workers[0], "a")->slot, a) << "an edit keeps the slot";
  EXPECT_EQ(cluster_of(d.workers[0], "a")->endpoint_slots[1], endpoint);
  c.link->with_stats([&](const stats::RegionView& v) { EXPECT_EQ(v.sum(a, stats::ClusterCounter::kRqTotal), 7u); });

  c.publish({}, {object_id(Kind::kCluster, "a"), object_id(Kind::kEndpointSet, "a"), object_id(Kind::kCluster, "b")});
  settle(&d, &c, now);
  const auto state_of = [&](stats::ScopeSlot slot) {
    std::string s = "?";
    c.link->with_stats([&](const stats::RegionView& v) {
      const auto scope = v.scope(slot);
      s = !scope ? "free" : scope->state == stats::ScopeState::kLive ? "live" : "lingering";
    });
    return s;
  };
  EXPECT_EQ(state_of(a), "lingering");
  const auto pass = [&](int seconds) {
    for (int i = 0; i < seconds; ++i) {
      now += base::kSecond + 1;
      settle(&d, &c, now);
    }
  };
  pass(6);  // linger is a second in these tests; quiet at both ends of a further one
  EXPECT_EQ(state_of(a), "free");
  EXPECT_EQ(state_of(b), "lingering") << "somebody still counts on it";
  d.workers[0].stats.scope(b)[stats::ClusterCounter::kRqActive].sub();
  pass(6);
  EXPECT_EQ(state_of(b), "free");
  c.publish({{"new", sample::cluster("new")}});
  settle(&d, &c, now);
  const stats::ScopeSlot reused = cluster_of(d.workers[0], "new")->slot;
  c.link->with_stats([&](const stats::RegionView& v) {
    EXPECT_EQ(v.sum(reused, stats::ClusterCounter::kRqTotal), 0u);
    EXPECT_EQ(v.scope(reused)->name, "new");
    EXPECT_GT(v.scope(reused)->generation, 0u) << "a slot that was used before";
  });
}

TEST_F(Link, TooManyObjectsShareTheOverflowSlot) {
  FakeDataplane d(dir.socket, 1);  // 256 slots
  FakeControl c(dir.socket);
  std::vector<std::pair<std::string, Blob>> all;
  for (int i = 0; i < 400; ++i) all.emplace_back("c" + std::to_string(i), sample::cluster("c" + std::to_string(i), 5000, false));
  const uint64_t epoch = c.publish(all);
  settle(&d, &c, now);
  ASSERT_EQ(ack(c, epoch), "acknowledged");
  size_t overflowed = 0;
  for (const auto& [name, blob] : all) {
    const auto slot = cluster_of(d.workers[0], name)->slot;
    overflowed += slot == stats::kOverflowScope;
    d.workers[0].stats.scope(slot)[stats::ClusterCounter::kRqTotal].add();  // always a good slot
  }
  EXPECT_EQ(overflowed, 400u - 255u);
}

TEST_F(Link, EventsReachControlAndANewOneGoesOnWhereTheOldStopped) {
  FakeDataplane d(dir.socket, 2);
  const auto emit = [&](uint32_t worker, const std::string& method) {
    stats::AccessLogRecord r;
    r.worker = static_cast<uint16_t>(worker);
    const stats::LogString strings[] = {{stats::StringId::kMethod, method}};
    const stats::AccessLogBuilder b(r, strings);
    const auto room = d.event_rings[worker].reserve(b.size());
    ASSERT_FALSE(room.empty());
    b.write(room);
    d.event_rings[worker].commit(b.size());
  };
  std::vector<std::string> got;
  const auto collect = [&](const FakeControl& c) {
    for (const auto& [worker, bytes] : c.events) {
      stats::AccessLogView v;
      ASSERT_EQ(v.parse(bytes), stats::RecordError::kNone);
      ASSERT_EQ(v.fixed().worker, worker);
      got.push_back(std::string(*v.string(stats::StringId::kMethod)));
    }
  };
  emit(0, "BEFORE");
  {
    FakeControl c(dir.socket, 1);
    settle(&d, &c, now);
    emit(1, "DURING");
    settle(&d, &c, now);
    collect(c);
  }
  emit(0, "BETWEEN");
  FakeControl c(dir.socket, 2);
  settle(&d, &c, now);
  collect(c);
  EXPECT_EQ(got, (std::vector<std::string>{"BEFORE", "DURING", "BETWEEN"}));
}

TEST(AccessLogFields, WhatFormatsAskFor) {
  const struct {
    const char* format;
    std::vector<std::string> request, response, trailers;
  } cases[] = {
      {"", {}, {}, {}},
      {"[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE%", {}, {}, {}},
      {"%REQ(X-Tenant)% %RESP(Content-Type)%", {"x-tenant"}, {"content-type"}, {}},
      {"%REQ(X-A?X-B):10% %REQ(x-a)% %TRAILER(grpc-status)%", {"x-a", "x-b"}, {}, {"grpc-status"}},
      {"100%% %REQ(X-C)%", {"x-c"}, {}, {}},
      {"%REQ(X-D", {}, {}, {}},
      {"%REQ)X-D(% %REQ()% %", {}, {}, {}},
      {"{\"a\": \"%REQ(X-E)%\", \"b\": \"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%\"}", {"x-e"}, {}, {}},
      {"%START_TIME(%Y/%m)% %REQ(X-F)%", {"x-f"}, {}, {}},
  };
  for (const auto& c : cases) {
    dataplane::AccessLogFields fields;
    dataplane::collect_access_log_fields(c.format, fields);
    EXPECT_EQ(fields.request_headers, c.request) << c.format;
    EXPECT_EQ(fields.response_headers, c.response) << c.format;
    EXPECT_EQ(fields.response_trailers, c.trailers) << c.format;
  }
}

// ---- real threads, real processes
// ------------------------------------------------------------------------------------------------

void run_dataplane(FakeDataplane& d, const std::atomic<bool>& stop, std::vector<std::thread>& threads) {
  d.link->start();
  for (FakeWorker& w : d.workers) {
    threads.emplace_back([&w, &stop] {
      uint64_t sum = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        w.turn();
        // Read what is shown, as a request would; under TSan and ASan any use after free or race shows here.
        for (int i = 0; i < 30; ++i) {
          const auto* c = cluster_of(w, "c" + std::to_string(i));
          if (c == nullptr) continue;
          sum += c->object->connect_timeout_ms;
          for (const auto& e : c->endpoint_list()) sum += e.port;
          w.stats.scope(c->slot)[stats::ClusterCounter::kRqTotal].add();
        }
        w.stats->loop[stats::LoopCounter::kIterations].add();
        std::this_thread::yield();
      }
      if (sum == 1) std::abort();
    });
  }
}

TEST_F(Link, ThreadsOfBothSides) {
  FakeDataplane d(dir.socket, 2);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  run_dataplane(d, stop, threads);
  for (uint64_t incarnation = 1; incarnation <= 3; ++incarnation) {
    FakeControl c(dir.socket, incarnation);
    c.link->start();
    base::Prng random(incarnation);
    for (uint32_t i = 1; i <= 60; ++i) {
      const std::string name = "c" + std::to_string(random.below(30));
      const uint64_t epoch = random.below(5) == 0
                                 ? c.publish({}, {object_id(Kind::kCluster, name)})
                                 : c.publish({{name, sample::cluster(name, i)}, {name, sample::endpoint_set(name, i % 6)}});
      if (i % 3 != 0) continue;
      const auto a = c.publisher->wait_acknowledged(epoch, std::chrono::seconds(20));
      ASSERT_EQ(state(a.state), "acknowledged") << a.reason << " incarnation " << incarnation << " edit " << i;
      c.link->with_stats([](const stats::RegionView& v) { ASSERT_LT(v.all_scopes().size(), 256u); });
    }
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  d.link->stop();
}

// A data plane in a process of its own, killed and started again; control in this one.
TEST_F(Link, ProcessesAreKilledAndStartedAgain) {
  const auto spawn = [&](uint64_t incarnation) {
    const pid_t child = ::fork();
    if (child == 0) {
      FakeDataplane d(dir.socket, 2, incarnation);
      std::atomic<bool> stop{false};
      std::vector<std::thread> threads;
      run_dataplane(d, stop, threads);
      for (std::thread& t : threads) t.join();  // for ever
      ::_exit(0);
    }
    return child;
  };
  const auto end = [](pid_t child) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  };
  // The child is made while this process has one thread only.
  pid_t child = spawn(1);
  ASSERT_GT(child, 0);
  {
    FakeControl c(dir.socket, 1);
    for (uint64_t round = 2; round <= 4; ++round) {
      // Stepped by hand rather than by a thread, so that the next fork is made from one thread too.
      const uint64_t epoch =
          c.publish({{"a", sample::cluster("a", static_cast<uint32_t>(round))}, {"a", sample::endpoint_set("a", 3)}});
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (c.publisher->acknowledgement(epoch).state != AckState::kAcknowledged &&
             std::chrono::steady_clock::now() < deadline) {
        now += base::kMillisecond;
        c.link->step(now);
        ::usleep(500);
      }
      ASSERT_EQ(ack(c, epoch), "acknowledged") << "round " << round << ": " << c.link->info().state;
      EXPECT_NE(c.link->info().pid, static_cast<uint32_t>(::getpid()));
      EXPECT_EQ(c.link->info().pid, static_cast<uint32_t>(child));
      end(child);
      child = spawn(round);
    }
  }
  end(child);
}

}  // namespace
}  // namespace millrace
