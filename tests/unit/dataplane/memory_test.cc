// What an idle connection costs, everything counted, and that it holds nothing else; and the policies that connections share.
#include <cstdio>

#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

// One accepted, idle, plaintext HTTP/1 keep-alive connection (README.md, "Memory of a connection").
constexpr double kFlows = FlowTable::bytes_per_flow(1'000'000);
constexpr double kIdleBytes = base::Pool<Connection>::kBytesPerObject + base::Pool<DownstreamSession>::kBytesPerObject + kFlows;

TEST(Memory, IdleConnectionIsBelow512Bytes) {
  std::printf("TCB %zu + connection %zu + session %zu + places in pools %u + flow table %.1f = %.1f bytes\n", sizeof(tcp::Tcb),
              sizeof(Connection) - sizeof(tcp::Tcb), sizeof(DownstreamSession), 8u, kFlows, kIdleBytes);
  EXPECT_LE(kIdleBytes, 512);
}

TEST(Memory, IdleConnectionsHoldNothingElse) {
  constexpr size_t kCount = 100;
  World w;
  w.serve([](const std::string&) { return ok(); });
  std::vector<Peer*> clients;
  for (size_t i = 0; i < kCount; ++i) {
    clients.push_back(&w.connect());
    w.send(*clients.back(), get());
    ASSERT_TRUE(w.wait_for(*clients.back(), "hello"));
  }
  ASSERT_TRUE(w.run_until([&] { return w.payload.in_use() == 0; }, kSecond));  // the last delayed ACKs have come
  EXPECT_EQ(w.worker->downstreams_in_use(), kCount);
  EXPECT_EQ(w.worker->exchanges_in_use(), 0u);
  EXPECT_EQ(w.worker->heads_in_use(), 0u);
  EXPECT_EQ(w.worker->policies_in_use(), 1u);  // all of them share it
  EXPECT_EQ(w.worker->stack().repairs().in_use(), 0u);
  EXPECT_EQ(w.payload.in_use(), 0u);
  EXPECT_EQ(w.headers.in_use(), 0u);
  uint32_t idle = 0;
  w.worker->stack().for_each_connection([&](const Connection& c) {
    EXPECT_EQ(c.tcb.repair, nullptr);
    EXPECT_TRUE(c.tcb.rx.empty() && c.tcb.tx.empty());
    ++idle;
  });
  EXPECT_EQ(idle, kCount + w.worker->upstreams_in_use());
}

// Capacity is a limit, not an expectation: pools for a million connections cost nothing until somebody connects.
TEST(Memory, CapacityIsNotTouched) {
  const auto resident = [] {
    long pages = 0, all = 0;
    std::FILE* f = std::fopen("/proc/self/statm", "r");
    EXPECT_EQ(std::fscanf(f, "%ld %ld", &all, &pages), 2);
    std::fclose(f);
    return static_cast<double>(pages) * 4096;
  };
  WorldOptions small, big;
  big.limits.connections = 1'000'000;
  double grown[2];
  int i = 0;
  for (const WorldOptions* o : {&small, &big}) {
    const double before = resident();
    World w({}, *o);
    w.serve([](const std::string&) { return ok(); });
    Peer& c = w.connect();
    w.send(c, get());
    ASSERT_TRUE(w.wait_for(c, "hello"));
    grown[i++] = resident() - before;
  }
  EXPECT_LT(grown[1], grown[0] + (48 << 20)) << "bytes; sixteen pools and tables, a huge page each and some";
}

// ---- policies

TEST(Policies, AnEditMovesConnectionsOneByOne) {
  Config config;
  World w(config);
  w.serve([](const std::string&) { return ok(); });
  std::vector<Peer*> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(&w.connect());
  const auto ask = [&](size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      clients[i]->received.clear();
      w.send(*clients[i], get());
    }
    for (size_t i = from; i < to; ++i) ASSERT_TRUE(w.wait_for(*clients[i], "hello"));
  };
  ask(0, 10);
  EXPECT_EQ(w.worker->policies_in_use(), 1u);
  config.routes = {route_to()};
  w.publish(config);
  ask(0, 5);
  EXPECT_EQ(w.worker->policies_in_use(), 1u) << "an edit elsewhere leaves it as it is";
  config.hcm = [](table::HttpConnectionManager& h) { h.server_header = table::ServerHeader::kPassThrough; };
  w.publish(config);
  ask(0, 5);
  EXPECT_EQ(w.worker->policies_in_use(), 2u);
  EXPECT_EQ(clients[0]->received.find("server: envoy"), std::string::npos);
  ask(5, 10);
  EXPECT_EQ(w.worker->policies_in_use(), 1u) << "the old one went with its last user";
  EXPECT_EQ(clients[9]->received.find("server: envoy"), std::string::npos);
  config.hcm = nullptr;
  w.publish(config);
  ask(0, 10);
  EXPECT_TRUE(has_line(clients[9]->received, "server: envoy"));
}

TEST(Policies, NoPlaceForAnotherOne) {
  Config config;
  WorldOptions o;
  o.limits.policies = 1;
  World w(config, o);
  w.serve([](const std::string&) { return ok(); });
  Peer& old = w.connect();
  w.send(old, get());
  ASSERT_TRUE(w.wait_for(old, "hello"));
  config.hcm = [](table::HttpConnectionManager& h) { h.server_header = table::ServerHeader::kPassThrough; };
  w.publish(config);
  Peer& fresh = w.connect();
  ASSERT_TRUE(w.run_until([&] { return fresh.reset; }, kSecond)) << "the only place is taken";
  old.received.clear();
  w.send(old, get());
  ASSERT_TRUE(w.run_until([&] { return old.fin; }, 20 * kSecond));
  EXPECT_TRUE(has_line(old.received, "connection: close")) << old.received;
  EXPECT_TRUE(has_line(old.received, "server: envoy")) << "it kept the policy it had";
  w.close(old);
  ASSERT_TRUE(w.run_until([&] { return w.worker->policies_in_use() == 0; }, 20 * kSecond));
  Peer& after = w.connect();
  w.send(after, get());
  ASSERT_TRUE(w.wait_for(after, "hello"));
}

}  // namespace
}  // namespace millrace::dataplane::test
