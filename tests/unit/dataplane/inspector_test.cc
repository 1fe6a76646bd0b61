// An operator's questions to a worker: what is listed is what is there, walks are slices, a ring without room stops nobody, and
// the trace tells what happened.
#include <cstring>
#include <optional>

#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

using table::InspectAction;
using table::TraceKind;

// What came back to one question.
struct Answer {
  std::vector<table::ConnectionRecord> connections;
  std::vector<table::TraceEntry> trace;
  std::optional<table::InspectDone> done;
};

void read(World& w, uint64_t id, Answer& a) {
  for (auto r = w.inspection_reader.front(); r.data() != nullptr; r = w.inspection_reader.front()) {
    table::InspectHeader h;
    ASSERT_GE(r.size(), sizeof h);
    std::memcpy(&h, r.data(), sizeof h);
    if (h.id == id) {
      if (h.type == table::InspectType::kConnection) {
        table::ConnectionRecord c;
        std::memcpy(&c, r.data(), sizeof c);
        EXPECT_EQ(r.size(), sizeof c + c.sni_size + c.alpn_size);
        a.connections.push_back(c);
      } else if (h.type == table::InspectType::kTrace) {
        table::TraceRecord t;
        std::memcpy(&t, r.data(), sizeof t);
        a.trace.push_back(t.entry);
      } else if (h.type == table::InspectType::kDone) {
        EXPECT_FALSE(a.done) << "one end a question";
        std::memcpy(&a.done.emplace(), r.data(), sizeof *a.done);
      }
    }
    w.inspection_reader.pop();
  }
}

table::InspectConnections question(uint64_t id, InspectAction action = InspectAction::kList) {
  table::InspectConnections q;
  q.id = id;
  q.action = action;
  q.limit = UINT32_MAX;
  return q;
}

Answer ask(World& w, const table::InspectConnections& q) {
  EXPECT_TRUE(w.ask(q));
  Answer a;
  for (int turns = 0; turns < 10'000 && !a.done; ++turns) {
    w.turn();
    read(w, q.id, a);
  }
  EXPECT_TRUE(a.done) << "answered";
  return a;
}

std::vector<Peer*> connect(World& w, size_t n) {
  std::vector<Peer*> out;
  for (size_t i = 0; i < n; ++i) {
    out.push_back(&w.connect());
    w.send(*out.back(), get());
    EXPECT_TRUE(w.wait_for(*out.back(), "hello"));
  }
  return out;
}

const Connection* of(World& w, const Peer& p) {
  const tcp::FourTuple t = p.connection->tuple();
  const Connection* found = nullptr;
  w.worker->stack().for_each_connection([&](const Connection& c) {
    if (c.tuple().remote == t.local && c.tuple().remote_port == t.local_port) found = &c;
  });
  return found;
}

TEST(Names, AreThoseOfTcp) {
  for (uint32_t i = 0; i < table::kTcpStates; ++i)
    EXPECT_STREQ(table::kTcpStateNames[i], tcp::to_string(static_cast<tcp::State>(i)));
}

TEST(List, HasEveryConnectionOnce) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  const std::vector<Peer*> clients = connect(w, 100);
  const Answer a = ask(w, question(1));
  EXPECT_EQ(a.done->matched, w.worker->stack().active_connections());
  EXPECT_EQ(a.done->reported, a.connections.size());
  EXPECT_EQ(a.connections.size(), w.worker->stack().active_connections());
  std::set<uint32_t> slots;
  uint32_t down = 0, up = 0;
  for (const auto& c : a.connections) {
    EXPECT_TRUE(slots.insert(c.connection.slot).second);
    EXPECT_EQ(c.state, static_cast<uint8_t>(tcp::State::kEstablished));
    if (c.role == static_cast<uint8_t>(Role::kDownstream)) {
      ++down;
      EXPECT_EQ(c.listener, table::object_id(table::Kind::kListener, "l"));
      EXPECT_EQ(c.phase, table::SessionPhase::kHttp);
      EXPECT_EQ(c.requests, 1u);
      EXPECT_EQ(c.remote, ip("10.1.0.2"));
    } else {
      ++up;
      EXPECT_EQ(c.phase, table::SessionPhase::kIdle);
      EXPECT_NE(c.cluster, table::kNoObject);
    }
  }
  EXPECT_EQ(down, clients.size());
  EXPECT_GE(up, 1u);
}

TEST(List, FiltersLeaveOutWhatTheyShould) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  const std::vector<Peer*> clients = connect(w, 10);
  const uint16_t port = clients[3]->connection->tuple().local_port;
  const auto matched = [&](auto&& set) {
    static uint64_t id = 100;
    table::InspectConnections q = question(++id);
    set(q.filter);
    return ask(w, q).done->matched;
  };
  EXPECT_EQ(matched([](auto& f) { f.role = 1; }), 10u);
  EXPECT_EQ(matched([&](auto& f) { f.peer_port = port; }), 1u);
  EXPECT_EQ(matched([&](auto& f) { f.local_port = 80; }), 10u);
  EXPECT_EQ(matched([](auto& f) { f.has_peer = 1, f.peer = ip("10.1.0.0"), f.peer_bits = 24; }), 10u);
  EXPECT_EQ(matched([](auto& f) { f.has_peer = 1, f.peer = ip("10.9.0.0"), f.peer_bits = 24; }), 0u);
  EXPECT_EQ(matched([](auto& f) { f.has_local = 1, f.local = ip("10.1.0.1"), f.local_bits = 32; }), 10u);
  EXPECT_EQ(matched([](auto& f) { f.states = 1u << static_cast<uint32_t>(tcp::State::kSynSent); }), 0u);
  EXPECT_EQ(matched([](auto& f) { f.listener = table::object_id(table::Kind::kListener, "l"); }), 10u);
  EXPECT_EQ(matched([](auto& f) { f.listener = table::object_id(table::Kind::kListener, "other"); }), 0u);
  // A question that is not for this worker is not answered at all.
  table::InspectConnections q = question(7);
  q.filter.workers = 2;
  ASSERT_TRUE(w.ask(q));
  Answer none;
  for (int i = 0; i < 100; ++i) w.turn();
  read(w, 7, none);
  EXPECT_FALSE(none.done);
}

TEST(List, SortedGivesTheLargest) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  std::vector<Peer*> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(connect(w, 1)[0]);
    w.run(50 * kMillisecond);
  }
  table::InspectConnections q = question(1);
  q.sort = table::ConnectionSort::kAge;
  q.limit = 5;
  q.filter.role = 1;
  const Answer a = ask(w, q);
  EXPECT_EQ(a.done->matched, 20u);
  ASSERT_EQ(a.connections.size(), 5u);
  for (size_t i = 0; i < 5; ++i)
    EXPECT_EQ(a.connections[i].remote_port, clients[i]->connection->tuple().local_port) << "oldest first";
}

// The bound on a turn: so many places looked at and so many records, whatever the pool's size.
TEST(Slices, ATurnDoesABoundedPiece) {
  WorldOptions o;
  o.limits.connections = 512;
  World w({}, o);
  w.serve([](const std::string&) { return ok(); });
  connect(w, 200);
  const uint32_t slots = w.worker->stack().connection_slots();
  ASSERT_TRUE(w.ask(question(1)));
  Answer a;
  size_t before = 0;
  uint32_t turns = 0;
  while (!a.done && turns < 1000) {
    w.turn();
    ++turns;
    read(w, 1, a);
    EXPECT_LE(a.connections.size() - before, Inspector::kRecordsPerStep);
    before = a.connections.size();
  }
  EXPECT_GE(turns, (slots + Inspector::kSlotsPerStep - 1) / Inspector::kSlotsPerStep);
  EXPECT_GE(turns, 200 / Inspector::kRecordsPerStep);
  EXPECT_EQ(a.connections.size(), a.done->matched);
}

TEST(Slices, AFullRingStopsTheWalkAndNothingElse) {
  WorldOptions o;
  o.inspection_ring = 4096;  // a handful of records
  World w({}, o);
  w.serve([](const std::string&) { return ok(); });
  const std::vector<Peer*> clients = connect(w, 60);
  ASSERT_TRUE(w.ask(question(1)));
  for (int i = 0; i < 200; ++i) w.turn();
  clients[0]->received.clear();
  w.send(*clients[0], get());
  EXPECT_TRUE(w.wait_for(*clients[0], "hello", kSecond)) << "requests go on";
  Answer a;
  for (int i = 0; i < 1000 && !a.done; ++i) {
    read(w, 1, a);
    w.turn();
  }
  ASSERT_TRUE(a.done);
  EXPECT_EQ(a.connections.size(), a.done->matched);
  EXPECT_GE(a.done->matched, 60u);
}

TEST(Questions, AreRefusedBeyondTheLimitAndStoppedOnRequest) {
  WorldOptions o;
  o.inspection_ring = 4096;
  World w({}, o);
  w.serve([](const std::string&) { return ok(); });
  connect(w, 60);
  for (uint64_t id = 1; id <= Inspector::kWalks; ++id) ASSERT_TRUE(w.ask(question(id)));
  for (int i = 0; i < 50; ++i) w.turn();  // the ring is full: all are under way
  table::StopInspection stop;
  stop.id = 2;
  ASSERT_TRUE(w.ask(stop));
  w.turn();
  std::map<uint64_t, Answer> answers;
  for (int i = 0; i < 5000; ++i) {
    for (auto r = w.inspection_reader.front(); r.data() != nullptr; r = w.inspection_reader.front()) {
      table::InspectHeader h;
      std::memcpy(&h, r.data(), sizeof h);
      if (h.type == table::InspectType::kDone) std::memcpy(&answers[h.id].done.emplace(), r.data(), sizeof(table::InspectDone));
      w.inspection_reader.pop();
    }
    w.turn();
  }
  EXPECT_TRUE(answers[1].done && answers[3].done && answers[4].done);
  EXPECT_FALSE(answers[2].done) << "stopped";
  // Five at once, with room to answer: the fifth is told so.
  for (uint64_t id = 11; id <= 11 + Inspector::kWalks; ++id) ASSERT_TRUE(w.ask(question(id)));
  Answer fifth;
  for (int i = 0; i < 5 && !fifth.done; ++i) {
    w.turn();
    read(w, 11 + Inspector::kWalks, fifth);
  }
  ASSERT_TRUE(fifth.done);
  EXPECT_EQ(fifth.done->refused, 1u);
}

TEST(Questions, WaitWhenTheirBoxIsFull) {
  WorkerTableSlot slot;
  const table::StopInspection stop;
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(&stop), sizeof stop);
  for (uint32_t i = 0; i < WorkerTableSlot::kQuestions; ++i) EXPECT_TRUE(slot.post(bytes));
  EXPECT_FALSE(slot.post(bytes));
  EXPECT_EQ(slot.posted(), WorkerTableSlot::kQuestions);
  slot.fetched(1);
  EXPECT_TRUE(slot.post(bytes));
  EXPECT_FALSE(slot.post(bytes));
}

TEST(Kill, ResetsOneAndTheSessionHearsOfIt) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  const std::vector<Peer*> clients = connect(w, 3);
  table::InspectConnections q = question(1, InspectAction::kKill);
  const Connection* c = of(w, *clients[1]);
  ASSERT_NE(c, nullptr);
  q.filter.id = w.worker->stack().id_of(*c);
  const Answer a = ask(w, q);
  EXPECT_EQ(a.done->killed, 1u);
  w.settle();
  EXPECT_TRUE(clients[1]->reset);
  EXPECT_TRUE(clients[0]->open() && clients[2]->open());
  EXPECT_EQ(w.worker->downstreams_in_use(), 2u);
  EXPECT_EQ(w.stats().tcp[stats::TcpCounter::kKilled].read(), 1u);
  // Its id is nobody's now, though its place will be used again.
  q.id = 2;
  EXPECT_EQ(ask(w, q).done->matched, 0u);
  connect(w, 1);
  q.id = 3;
  EXPECT_EQ(ask(w, q).done->matched, 0u) << "another one in the same place is not meant";
}

TEST(Kill, ByFilterTakesAllOfThem) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  const std::vector<Peer*> clients = connect(w, 50);
  table::InspectConnections q = question(1, InspectAction::kKill);
  q.filter.role = 1;
  EXPECT_EQ(ask(w, q).done->killed, 50u);
  w.settle();
  for (const Peer* p : clients) EXPECT_TRUE(p->reset);
  EXPECT_EQ(w.worker->downstreams_in_use(), 0u);
}

TEST(Kill, AnUpstreamInUseAnswersItsClient) {
  World w;  // the server never answers
  Peer& client = w.connect();
  w.send(client, get());
  Peer& up = w.upstream();
  ASSERT_TRUE(w.run_until([&] { return !up.received.empty(); }, kSecond));
  table::InspectConnections q = question(1, InspectAction::kKill);
  q.filter.role = 2;
  EXPECT_EQ(ask(w, q).done->killed, 1u);
  EXPECT_TRUE(w.wait_for(client, "503", kSecond)) << client.received;
  w.settle();
  EXPECT_TRUE(up.reset);
}

// ---- the trace

std::vector<TraceKind> kinds(const Answer& a) {
  std::vector<TraceKind> out;
  for (const auto& e : a.trace) out.push_back(e.kind);
  return out;
}

TEST(Trace, TellsTheLifeOfAConnection) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Peer& client = *connect(w, 1)[0];
  const Connection* c = of(w, client);
  ASSERT_NE(c, nullptr);
  table::InspectConnections q = question(1, InspectAction::kShow);
  q.filter.id = w.worker->stack().id_of(*c);
  const Answer a = ask(w, q);
  EXPECT_EQ(kinds(a), (std::vector{TraceKind::kOpened, TraceKind::kState, TraceKind::kState}));
  EXPECT_EQ(a.trace.back().to, static_cast<uint8_t>(tcp::State::kEstablished));
  ASSERT_EQ(a.connections.size(), 1u);
  // Together with its opening the record says what it has carried.
  EXPECT_EQ(static_cast<uint32_t>(a.connections[0].stream_received) - a.trace[0].b - 1, get().size());
  EXPECT_EQ(static_cast<uint32_t>(a.connections[0].stream_sent) - a.trace[0].a - 1, client.received.size());
  // It ends; what the trace knows outlives it.
  w.close(client);
  ASSERT_TRUE(w.run_until([&] { return w.worker->downstreams_in_use() == 0; }, 5 * kSecond));
  w.run(kSecond);
  q.id = 2;
  const Answer after = ask(w, q);
  EXPECT_TRUE(after.connections.empty());
  ASSERT_GE(after.trace.size(), 5u);
  EXPECT_EQ(after.trace.back().to, static_cast<uint8_t>(tcp::State::kClosed));
  for (size_t i = 1; i < after.trace.size(); ++i) EXPECT_GE(after.trace[i].time_ns, after.trace[i - 1].time_ns);
}

TEST(Trace, OrdinaryRequestsLeaveNoTrace) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Peer& client = *connect(w, 1)[0];
  w.settle();
  const uint64_t before = w.worker->stack().trace().end();
  for (int i = 0; i < 100; ++i) {
    client.received.clear();
    w.send(client, get());
    ASSERT_TRUE(w.wait_for(client, "hello"));
  }
  EXPECT_EQ(w.worker->stack().trace().end(), before);
}

TEST(Trace, ASilentServerIsTimeoutsAndRetransmissions) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  Peer& client = *connect(w, 1)[0];
  w.settle();
  w.server_deaf = true;
  w.send(client, get());
  w.run(3 * kSecond);
  uint32_t timeouts = 0, sent_again = 0;
  const TraceRing& trace = w.worker->stack().trace();
  for (uint64_t i = trace.begin(); i < trace.end(); ++i) {
    timeouts += trace.at(i).kind == TraceKind::kTimeout;
    if (trace.at(i).kind == TraceKind::kRetransmit) sent_again += trace.at(i).b;
  }
  EXPECT_GE(timeouts, 2u);
  EXPECT_GE(sent_again, 2u);
  EXPECT_EQ(w.stats().tcp[stats::TcpCounter::kRetransmits].read(), sent_again);
  EXPECT_GE(w.stats().tcp[stats::TcpCounter::kRtoExpired].read(), 2u);
}

TEST(Trace, TheOldestGivesWay) {
  TraceRing ring;
  for (uint32_t i = 0; i < TraceRing::kEntries + 10; ++i) {
    table::TraceEntry e;
    e.a = i;
    ring.add(e);
  }
  EXPECT_EQ(ring.begin(), 10u);
  EXPECT_EQ(ring.end() - ring.begin(), TraceRing::kEntries);
  EXPECT_EQ(ring.at(ring.begin()).a, 10u);
  EXPECT_EQ(ring.at(ring.end() - 1).a, TraceRing::kEntries + 9);
}

}  // namespace
}  // namespace millrace::dataplane::test
