// A whole worker in virtual time: real tables through a real loader, real TCP stacks as clients and servers on wires of memory,
// nothing that waits for a clock. Time stands still while frames move and jumps to the next deadline when none do, so an hour
// costs nothing and a timeout can be tested to the millisecond.
//
//   clients (TcpStack 10.1.0.2) ═══ FakePort ═▶ Worker 10.1.0.1 │ 10.2.0.1 ◀═ FakePort ═══ servers (TcpStack 10.2.0.2 …)
//                                                 ▲
//   Tables ── ObjectWriter, RouteCompiler ── arena, command ring ── TableLoader
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "dataplane/table_loader.h"
#include "dataplane/worker.h"
#include "lib/route/compiler.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/events.h"
#include "lib/stats/region.h"
#include "lib/table/link.h"
#include "lib/table/object_writer.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::dataplane::test {

using base::IpAddress;
using base::kMicrosecond;
using base::kMillisecond;
using base::kSecond;

inline IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }
inline io::MacAddress mac(uint8_t n) { return {2, 0, 0, 0, 0, n}; }

// ---- configuration
// --------------------------------------------------------------------------------------------------------------
struct EndpointConfig {
  std::string address = "10.2.0.2";
  uint16_t port = 8000;
  table::EndpointState state = table::EndpointState::kHealthy;
  uint32_t health_port = 0;
  bool no_health_check = false;
};
struct ClusterConfig {
  std::string name = "c";
  std::vector<EndpointConfig> endpoints = {{}};
  std::function<void(table::Cluster&)> edit;
  std::function<void(table::Cluster&, table::ObjectWriter&)> write;  // the same, of what has bytes of its own
  std::string added_tlvs;                                            // of its PROXY protocol header, as the wire has them
};
struct Config {
  std::vector<route::RouteSpec> routes;
  std::vector<ClusterConfig> clusters = {{}};
  std::function<void(table::HttpConnectionManager&)> hcm;
  std::function<void(table::ObjectWriter&, table::HttpConnectionManager&)>
      write_hcm;                               // what needs room in the object; access_logs too
  std::vector<table::Compressor> compressors;  // of the connection manager; name and content types are filled in
  std::vector<std::string> content_types = {"text/plain", "application/json"};  // of all of them
  std::string upgrades;  // of the connection manager, lower case, joined by ','
  std::function<void(table::Listener&)> edit_listener;
  bool listener = true;
};
inline route::RouteSpec route_to(std::string cluster = "c", std::string prefix = "/") {
  route::RouteSpec r;
  r.name = "to-" + cluster;
  r.path = std::move(prefix);
  r.clusters.push_back({std::move(cluster), 0, {}});
  return r;
}

// What records must carry for `LogEntry`, and a header of each kind.
inline constexpr std::string_view kLogFormat =
    "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE_DETAILS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %REQ(X-LOGGED)% %RESP(X-LOGGED)%";

// Control's part: objects into the arena, snapshots into the command ring. Objects that no snapshot names any more are
// overwritten once the workers have gone on, as control reuses their memory: whoever still looks at them sees garbage.
class Tables {
 public:
  explicit Tables(TableLoader& loader) : loader_(loader) {
    auto memory = shm::Segment::create("arena", 8 << 20);
    auto ring_memory = shm::Segment::create("commands", shm::ring_bytes(table::kDefaultCommandRing));
    EXPECT_TRUE(memory.ok() && ring_memory.ok());
    arena_ = std::move(*memory);
    ring_ = std::move(*ring_memory);
    EXPECT_EQ(shm::format_ring(ring_.bytes(), table::kDefaultCommandRing), shm::RingError::kNone);
    EXPECT_EQ(commands_.attach(ring_.bytes()), shm::RingError::kNone);
    auto arena = shm::Segment::map(shm::UniqueFd(::dup(arena_.fd())), shm::Access::kReadOnly, 1, 1 << 30);
    auto ring = shm::Segment::map(shm::UniqueFd(::dup(ring_.fd())), shm::Access::kReadWrite, 1, 1 << 30);
    EXPECT_TRUE(arena.ok() && ring.ok());
    const base::Status s = loader.attach(std::move(*arena), std::move(*ring), 1);
    EXPECT_TRUE(s.ok()) << s.error();
  }
  // Compiles, publishes, and has the loader offer it.
  void publish(const Config& config, base::TimeNs now) {
    std::vector<std::vector<uint8_t>> blobs;
    const auto add = [&](base::Result<std::vector<uint8_t>> b) {
      ASSERT_TRUE(b.ok());
      blobs.push_back(std::move(*b));
    };
    const auto compiled = [&](const route::CompiledObject& o) {
      for (const auto& e : o.errors) ADD_FAILURE() << e.path << ": " << e.message;
      if (o.ok()) blobs.emplace_back(o.bytes(), o.bytes() + o.size_bytes);
    };
    route::VirtualHostSpec host;
    host.name = "h";
    host.domains = {"*"};
    host.routes = config.routes.empty() ? std::vector<route::RouteSpec>{route_to()} : config.routes;
    compiled(compiler_.compile_virtual_host(host, route::virtual_host_object_name("t", "h")));
    route::RouteTableSpec table;
    table.name = "t";
    table.virtual_hosts = {{route::virtual_host_object_name("t", "h"), {"*"}}};
    compiled(route::compile_route_table(table));
    for (const ClusterConfig& c : config.clusters) {
      add(cluster(c));
      add(endpoints(c));
    }
    if (config.listener) add(listener(config));

    const std::map<table::ObjectId, Published> before = std::move(published_);
    published_.clear();
    std::vector<table::ObjectRef> refs;
    for (const std::vector<uint8_t>& blob : blobs) {
      const auto id = reinterpret_cast<const table::ObjectHeader*>(blob.data())->id;
      const auto old = before.find(id);
      if (old != before.end() && old->second.blob == blob) {
        published_.insert(*old);
      } else {
        Published p{blob, place(blob.size()), {}};
        p.ref = {id,
                 p.offset,
                 ++version_,
                 static_cast<uint32_t>(blob.size()),
                 reinterpret_cast<const table::ObjectHeader*>(blob.data())->kind,
                 0};
        std::memcpy(arena_.data() + p.offset, blob.data(), blob.size());
        reinterpret_cast<table::ObjectHeader*>(arena_.data() + p.offset)->version = p.ref.version;
        published_.emplace(id, std::move(p));
      }
      refs.push_back(published_.at(id).ref);
    }
    for (const auto& [id, p] : before)
      if (const auto now_there = published_.find(id); now_there == published_.end() || now_there->second.offset != p.offset)
        garbage_.push_back({p.offset, p.blob.size()});
    const std::vector<uint8_t> root = table::write_snapshot(++epoch_, 1, refs);
    table::PublishSnapshot command;
    command.count = static_cast<uint32_t>(refs.size());
    command.epoch = epoch_;
    command.root_offset = place(root.size());
    std::memcpy(arena_.data() + command.root_offset, root.data(), root.size());
    ASSERT_TRUE(commands_.push({reinterpret_cast<const uint8_t*>(&command), sizeof command}));
    loader_.step(now);
    ASSERT_EQ(loader_.last_rejection(), "");
    ASSERT_EQ(loader_.last_epoch(), epoch_);
  }
  // Call when every worker has taken the newest snapshot.
  void reclaim(base::TimeNs now) {
    loader_.step(now);
    EXPECT_EQ(loader_.snapshots_alive(), 1u) << "old tables are freed as soon as the worker went on";
    for (const auto& [offset, size] : garbage_) std::memset(arena_.data() + offset, 0xdd, size);
    garbage_.clear();
  }
  uint64_t epoch() const { return epoch_; }

 private:
  struct Published {
    std::vector<uint8_t> blob;
    uint64_t offset = 0;
    table::ObjectRef ref{};
  };
  uint64_t place(uint64_t size) {
    const uint64_t at = next_;
    next_ += (size + 63) & ~uint64_t{63};
    EXPECT_LE(next_, arena_.size());
    return at;
  }
  static base::Result<std::vector<uint8_t>> cluster(const ClusterConfig& c) {
    table::ObjectWriter w(table::Kind::kCluster, c.name);
    table::Cluster o{};
    o.name = w.string(c.name);
    o.endpoint_set = table::object_id(table::Kind::kEndpointSet, c.name);
    if (c.edit) c.edit(o);
    if (c.write) c.write(o, w);
    if (!c.added_tlvs.empty())
      o.proxy.added = w.blob({reinterpret_cast<const uint8_t*>(c.added_tlvs.data()), c.added_tlvs.size()});
    return w.finish(o);
  }
  static base::Result<std::vector<uint8_t>> endpoints(const ClusterConfig& c) {
    table::ObjectWriter w(table::Kind::kEndpointSet, c.name);
    table::EndpointSet o{};
    o.name = w.string(c.name);
    std::vector<table::Endpoint> list;
    for (const EndpointConfig& e : c.endpoints) {
      table::Endpoint out{};
      out.address = ip(e.address);
      out.port = e.port;
      out.state = e.state;
      out.health_port = e.health_port;
      out.no_health_check = e.no_health_check;
      if (e.state == table::EndpointState::kHealthy) {
        ++o.healthy;
        o.total_weight += out.weight;
      }
      list.push_back(out);
    }
    o.endpoints = w.array(list);
    return w.finish(o);
  }
  static base::Result<std::vector<uint8_t>> listener(const Config& config) {
    table::ObjectWriter w(table::Kind::kListener, "l");
    table::Listener o{};
    o.name = w.string("l");
    o.address = ip("0.0.0.0");
    o.port = 80;
    std::vector<table::FilterChain> chains(1);
    chains[0].name = w.string("chain");
    table::HttpConnectionManager& h = chains[0].hcm;
    h.stat_prefix = w.string("in");
    h.route_table = table::object_id(table::Kind::kRouteTable, "t");
    h.route_table_name = w.string("t");
    h.server_name = w.string("envoy");
    std::vector<table::AccessLog> logs(1);
    logs[0].path = w.string("access.log");
    logs[0].format = w.string(kLogFormat);
    h.access_logs = w.array(logs);
    h.upgrades = w.string(config.upgrades);
    std::vector<table::Compressor> compressors = config.compressors;
    for (table::Compressor& c : compressors) {
      std::vector<table::Str> types;
      for (const std::string& t : config.content_types) types.push_back(w.string(t));
      c.content_types = w.array(types);
      c.name = w.string("lib");
    }
    h.compressors = w.array(compressors);
    if (config.hcm) config.hcm(h);
    if (config.write_hcm) config.write_hcm(w, h);
    o.filter_chains = w.array(chains);
    const std::vector<uint32_t> any{0};
    o.any_name_chains = w.array(any);
    if (config.edit_listener) config.edit_listener(o);
    return w.finish(o);
  }

  TableLoader& loader_;
  route::RouteCompiler compiler_;
  shm::Segment arena_, ring_;
  shm::RingProducer commands_;
  std::map<table::ObjectId, Published> published_;
  std::vector<std::pair<uint64_t, size_t>> garbage_;
  uint64_t next_ = table::kArenaFirstOffset, epoch_ = 0, version_ = 0;
};

// ---- clients and servers
// ----------------------------------------------------------------------------------------------------------- One connection of a
// peer. What it received, and what it still wants to send.
struct Peer {
  Connection* connection = nullptr;
  std::string received, unsent;
  bool reading = true;  // false: the application is stuck, the window closes
  bool connected = false, fin = false, reset = false, timed_out = false;
  bool closing = false;  // FIN behind `unsent`
  uint16_t local_port = 0;
  base::TimeNs last_byte_at = 0, ended_at = 0;
  bool open() const { return connection != nullptr && !fin && !reset && !timed_out; }
};

class Host {
 public:
  Host(uint8_t n, const std::string& address, const std::string& gateway, base::TimeNs now, uint32_t packets = 16384)
      : pool(packets), headers(4096, 128), port(mac(n)), steering_(1, n) {
    TcpStackConfig c;
    c.max_connections = 512;
    c.max_half_open = 256;
    c.max_time_wait = 1024;
    for (uint32_t i = 0; i < 4; ++i) c.secret[i] = 1000u * n + i;
    InterfaceConfig i;
    i.addresses = {{ip(address), 24}};
    i.neighbors = {{ip(gateway), mac(static_cast<uint8_t>(n + 100))}};
    c.ip.ports = {i};
    c.ip.worker = 1;
    c.downstream.time_wait_ns = kSecond;
    io::PortQueue* q[] = {&port};
    stack.emplace(c, q, steering_, nullptr, pool.pool(), headers.pool(), io::PacketPool(), counters.view(), now);
    set_listening({});
  }
  void set_listening(const std::vector<uint16_t>& ports) {
    std::vector<ListenerSet::Entry> e;
    for (const uint16_t p : ports) e.push_back({ip("0.0.0.0"), p, p, false});
    listening_ = ListenerSet(e);
    stack->set_listeners(&listening_);
  }
  Peer& connect(const std::string& address, uint16_t to, base::TimeNs now) {
    Peer& p = peers.emplace_back();
    ConnectError why;
    p.connection = stack->connect(ip(address), to, stack->downstream_profile(), now, &p, &why);
    EXPECT_NE(p.connection, nullptr) << to_string(why);
    return p;
  }
  void send(Peer& p, std::string_view bytes, base::TimeNs now) {
    p.unsent += bytes;
    flush(p, now);
  }
  void close(Peer& p, base::TimeNs now) {
    p.closing = true;
    flush(p, now);
  }
  void abort(Peer& p, base::TimeNs now) {
    if (p.connection != nullptr) stack->abort(*p.connection, now);
    p.connection = nullptr;
    p.unsent.clear();
  }
  void resume(Peer& p, base::TimeNs now) {
    p.reading = true;
    read(p, now);
  }
  void abort_all(base::TimeNs now) {
    for (Peer& p : peers) abort(p, now);
  }
  void turn(base::TimeNs now) {
    stack->receive(now);
    stack->run_timers(now, 256);
    while (Connection* c = stack->pop_ready()) on_ready(*c, now);
    stack->flush(now);
  }

  support::HeapPacketPool pool, headers;
  support::FakePort port;
  LocalCounters counters;
  std::optional<TcpStack> stack;
  std::deque<Peer> peers;  // in the order of their connections; references stay good

 private:
  void on_ready(Connection& c, base::TimeNs now) {
    const uint32_t events = TcpStack::take_events(c);
    if (c.owner == nullptr) {
      Peer& fresh = peers.emplace_back();
      fresh.connection = &c;
      fresh.local_port = c.tuple().local_port;
      c.owner = &fresh;
    }
    Peer& p = *static_cast<Peer*>(c.owner);
    if (events & tcp::kEventConnected) p.connected = true;
    read(p, now);
    if (events & tcp::kEventPeerFin) {
      p.fin = true;
      p.ended_at = now;
    }
    if (events & (tcp::kEventReset | tcp::kEventTimedOut)) {
      p.reset = (events & tcp::kEventReset) != 0;
      p.timed_out = (events & tcp::kEventTimedOut) != 0;
      p.ended_at = now;
      stack->detach(c, now);
      p.connection = nullptr;
      return;
    }
    flush(p, now);
  }
  void read(Peer& p, base::TimeNs now) {
    if (p.connection == nullptr || !p.reading) return;
    io::PacketQueue& q = tcp::rx_queue(p.connection->tcb);
    if (q.empty()) return;
    while (!q.empty()) {
      p.received += base::as_chars(q.front());
      q.pop();
    }
    p.last_byte_at = now;
    tcp::window_update(p.connection->tcb, now);
    stack->touch(*p.connection);
  }
  void flush(Peer& p, base::TimeNs now) {
    if (p.connection == nullptr || !p.connection->connected) return;
    if (!p.unsent.empty())
      p.unsent.erase(0, tcp::send_copy(p.connection->tcb, base::as_bytes(std::string_view(p.unsent)), pool.pool()));
    if (p.unsent.empty() && p.closing) tcp::close(p.connection->tcb, now);
    stack->touch(*p.connection);
  }

  io::Steering steering_;
  ListenerSet listening_;
};

// ---- the world
// -------------------------------------------------------------------------------------------------------------------------
struct LogLine {
  std::string remote, direct, local;  // address:port
  uint16_t status = 0;
  std::string flags, method, path, details;
  uint32_t sinks = 0;
  uint64_t bytes_received = 0, bytes_sent = 0, duration_ns = 0;
};

struct WorldOptions {
  WorkerLimits limits{.connections = 256,
                      .exchanges = 64,
                      .small_heads = 128,
                      .large_heads = 4,
                      .upstream_endpoints = 64,
                      .clusters = 16,
                      .http2_connections = 32,
                      .compression_bytes = 8 << 20,
                      .tcp_proxies = 16};
  uint32_t payload_packets = 8192;
  bool chain = false;  // ports that send chained frames
  uint64_t inspection_ring = 1 << 20;
};

class World {
 public:
  explicit World(const Config& config = {}, const WorldOptions& o = {})
      : payload(o.payload_packets),
        headers(4096, 128),
        indirect(4096, 0),
        inside(mac(101)),
        outside(mac(102)),
        steering_(1, 7),
        client(1, "10.1.0.2", "10.1.0.1", now),
        server(2, "10.2.0.2", "10.2.0.1", now) {
    server.set_listening({8000, 8001});
    for (support::FakePort* p : {&inside, &outside}) p->change().tx_multi_segment = o.chain;
    stats::RegionConfig r;
    r.scopes = 128;
    r.port_names = {"in", "out"};
    r.incarnation = 5;
    const uint64_t size = region_bytes_ = (stats::region_size(r) + 63) & ~uint64_t{63};
    region_memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, size)));
    std::memset(region_memory_.get(), 0, size);
    auto region = stats::Region::create({region_memory_.get(), size}, r);
    EXPECT_TRUE(region.ok()) << region.error();
    region_.emplace(*region);
    events_memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, shm::ring_bytes(1 << 20))));
    EXPECT_EQ(shm::format_ring({events_memory_.get(), shm::ring_bytes(1 << 20)}, 1 << 20), shm::RingError::kNone);
    EXPECT_EQ(events_.attach({events_memory_.get(), shm::ring_bytes(1 << 20)}), shm::RingError::kNone);
    EXPECT_EQ(event_reader_.attach({events_memory_.get(), shm::ring_bytes(1 << 20)}), shm::RingError::kNone);
    inspection_memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, shm::ring_bytes(o.inspection_ring))));
    const std::span<uint8_t> inspection(inspection_memory_.get(), shm::ring_bytes(o.inspection_ring));
    EXPECT_EQ(shm::format_ring(inspection, o.inspection_ring), shm::RingError::kNone);
    EXPECT_EQ(inspection_.attach(inspection), shm::RingError::kNone);
    EXPECT_EQ(inspection_reader.attach(inspection), shm::RingError::kNone);
    loader.emplace(TableLoaderConfig{}, *region_, std::span(slots_), nullptr);
    tables.emplace(*loader);

    WorkerConfig c;
    c.limits = o.limits;
    c.seed = 42;
    c.stack.max_connections = o.limits.connections;
    c.stack.max_half_open = 128;
    c.stack.max_time_wait = 1024;
    for (uint32_t i = 0; i < 4; ++i) c.stack.secret[i] = 9 + i;
    c.stack.downstream.time_wait_ns = kSecond;
    c.upstream_tcp.time_wait_ns = kSecond;
    InterfaceConfig in, out;
    in.addresses = {{ip("10.1.0.1"), 24}};
    in.neighbors = {{ip("10.1.0.2"), mac(1)}};
    out.addresses = {{ip("10.2.0.1"), 24}};
    out.neighbors = {{ip("10.2.0.2"), mac(2)}, {ip("10.2.0.3"), mac(3)}};  // .3: a machine that is switched off
    c.stack.ip.ports = {in, out};
    c.stack.ip.worker = 1;
    c.tls_sessions = 16;
    io::PortQueue* ports[] = {&inside, &outside};
    WorkerResources res;
    res.ports = ports;
    res.steering = &steering_;
    res.payload = payload.pool();
    res.headers = headers.pool();
    res.indirect = o.chain ? indirect.pool() : io::PacketPool();
    res.stats = region_->worker_stats(0);
    res.events = &events_;
    res.inspection = &inspection_;
    res.tables = &slots_[0];
    worker.emplace(c, res, now);
    publish(config);
  }
  ~World() { expect_balanced(); }

  // New tables in force, old ones gone.
  void publish(const Config& config) {
    tables->publish(config, now);
    turn();
    EXPECT_EQ(region_->worker(0).seen_epoch.load(), tables->epoch());
    tables->reclaim(now);
  }

  // As the loader does it when an operator wants it.
  void drain(const DrainState& state) { slots_[0].set_drain(state.word()); }

  shm::RingConsumer inspection_reader;  // what the worker answers
  // A question of an operator, as the loader posts it.
  template <class Command>
  bool ask(const Command& command) {
    return slots_[0].post({reinterpret_cast<const uint8_t*>(&command), sizeof command});
  }

  // One turn of everybody; true when frames moved.
  bool turn() {
    worker->stages().begin_turn(__rdtsc(), account_stages ? 1 : 0);
    const bool busy = worker->iterate(now, kWallStart + now);
    worker->stages().end_turn(__rdtsc(), busy);
    client.turn(now);
    server.turn(now);
    if (server_script) server_script();
    bool moved = carry(inside, client.port, client.pool);
    moved |= carry(outside, server.port, server.pool, server_deaf);
    moved |= carry(client.port, inside, payload);
    moved |= carry(server.port, outside, payload);
    return moved;
  }
  void run(base::TimeNs duration) {
    run_until([] { return false; }, duration);
  }
  void settle() { run(2 * kMillisecond); }
  // Until `done`, or for `limit` of virtual time; whether it was done.
  bool run_until(const std::function<bool()>& done, base::TimeNs limit = 600 * kSecond) {
    const base::TimeNs end = now + limit;
    int quiet = 0;
    while (!done()) {
      const bool moved = turn();
      quiet = moved ? 0 : quiet + 1;
      if (quiet < 3) {
        if (now + 10 * kMicrosecond > end) break;
        now += 10 * kMicrosecond;
        continue;
      }
      base::TimeNs next = std::min({worker->next_deadline(), client.stack->next_deadline(), server.stack->next_deadline()});
      next = std::max(next, now + 100 * kMicrosecond);
      if (next >= end) {
        now = end;
        turn();
        break;
      }
      now = next;
      quiet = 1;
    }
    return done();
  }

  const stats::StageBlock& stages() { return region_->worker(0).stages; }
  Peer& connect() { return client.connect("10.1.0.1", 80, now); }
  void send(Peer& p, std::string_view bytes) { owner(p).send(p, bytes, now); }
  void close(Peer& p) { owner(p).close(p, now); }
  void abort(Peer& p) { owner(p).abort(p, now); }
  void resume(Peer& p) { owner(p).resume(p, now); }
  // The i-th connection that the worker opened to the server, waited for.
  Peer& upstream(size_t i = 0) {
    static Peer none;
    if (!run_until([&] { return server.peers.size() > i; }, 10 * kSecond)) {
      ADD_FAILURE() << "the worker did not open connection " << i << " to the server";
      return none;
    }
    return server.peers[i];
  }
  bool wait_for(Peer& p, std::string_view text, base::TimeNs limit = 600 * kSecond) {
    return run_until([&] { return p.received.find(text) != std::string::npos; }, limit);
  }
  // Every connection to the server is answered by `answer(request head)`, once a whole head (and `content-length` body) is there.
  void serve(std::function<std::string(const std::string&)> answer) {
    server_script = [this, answer = std::move(answer)] {
      for (Peer& p : server.peers) {
        while (true) {
          const size_t end = p.received.find("\r\n\r\n");
          if (end == std::string::npos) break;
          size_t body = 0;
          if (const size_t at = p.received.find("content-length: "); at < end)
            body = std::strtoul(p.received.c_str() + at + 16, nullptr, 10);
          if (p.received.size() < end + 4 + body) break;
          const std::string request = p.received.substr(0, end + 4 + body);
          p.received.erase(0, request.size());
          server.send(p, answer(request), now);
        }
      }
    };
  }

  std::vector<LogLine> log() {
    for (std::span<const uint8_t> r = event_reader_.front(); r.data() != nullptr; r = event_reader_.front()) {
      stats::AccessLogView v;
      EXPECT_EQ(v.parse(r), stats::RecordError::kNone);
      char flags[stats::ResponseFlags::kMaxText];
      LogLine l;
      l.status = v.fixed().response_code;
      l.flags.assign(flags, v.flags().format(flags, sizeof flags));
      l.method = v.string(stats::StringId::kMethod).value_or("-");
      l.path = v.string(stats::StringId::kPath).value_or("-");
      l.details = v.string(stats::StringId::kResponseCodeDetails).value_or("-");
      l.sinks = v.fixed().sinks;
      l.bytes_received = v.fixed().bytes_received;
      l.bytes_sent = v.fixed().bytes_sent;
      l.duration_ns = v.fixed().duration_ns;
      const auto text = [](const IpAddress& a, uint16_t port) {
        char out[46];
        return std::string(out, a.format(out, sizeof out)) + ":" + std::to_string(port);
      };
      l.remote = text(v.fixed().downstream_remote, v.fixed().downstream_remote_port);
      l.direct = text(v.fixed().downstream_direct_remote, v.fixed().downstream_direct_remote_port);
      l.local = text(v.fixed().downstream_local, v.fixed().downstream_local_port);
      lines_.push_back(std::move(l));
      event_reader_.pop();
    }
    return lines_;
  }
  // "200 -", "503 UF": of the newest line.
  std::string last() {
    const std::vector<LogLine> l = log();
    return l.empty() ? "no line" : std::to_string(l.back().status) + " " + l.back().flags;
  }
  stats::WorkerBlock& stats() { return region_->worker(0); }
  // Of all HTTP connection managers together.
  uint64_t counted(stats::HcmCounter c) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < region_->scopes(); ++i)
      if ((region_->scope_entries()[i].meta.load() & 0xffff) == static_cast<uint64_t>(stats::ScopeKind::kHcm))
        sum += region_->worker_stats(0).scope(i)[c].read();
    return sum;
  }
  // Of all clusters together.
  uint64_t cluster_count(stats::ClusterCounter c) {
    const auto view = stats::RegionView::attach({region_memory_.get(), region_bytes_});
    EXPECT_TRUE(view.ok());
    uint64_t n = 0;
    for (const stats::Scope& s : view->all_scopes())
      if (s.kind == stats::ScopeKind::kCluster) n += view->sum(s.slot, c);
    return n;
  }

  // Of the health of all clusters together.
  uint64_t health_count(stats::ClusterHealthCounter c) {
    const auto view = stats::RegionView::attach({region_memory_.get(), region_bytes_});
    EXPECT_TRUE(view.ok());
    uint64_t n = 0;
    for (const stats::Scope& s : view->all_scopes())
      if (s.kind == stats::ScopeKind::kClusterHealth) n += view->sum(s.slot, c);
    return n;
  }

  // Of the active health checks of all clusters together.
  uint64_t check_count(stats::ClusterCheckCounter c) {
    const auto view = stats::RegionView::attach({region_memory_.get(), region_bytes_});
    EXPECT_TRUE(view.ok());
    uint64_t n = 0;
    for (const stats::Scope& s : view->all_scopes())
      if (s.kind == stats::ScopeKind::kClusterCheck) n += view->sum(s.slot, c);
    return n;
  }

  // Of all compressor filters together.
  uint64_t compressor_count(stats::CompressorCounter c) {
    const auto view = stats::RegionView::attach({region_memory_.get(), region_bytes_});
    EXPECT_TRUE(view.ok());
    uint64_t n = 0;
    for (const stats::Scope& s : view->all_scopes())
      if (s.kind == stats::ScopeKind::kCompressor) n += view->sum(s.slot, c);
    return n;
  }

  // Both sides go away; then nothing of the worker's may be lent out any more.
  void expect_balanced() {
    server_deaf = false;
    server_script = nullptr;
    payload.set_limit(payload.capacity());
    for (int i = 0; i < 2; ++i) {  // twice: a connection may have been under way to the server
      client.abort_all(now);
      server.abort_all(now);
      run(10 * kSecond);
    }
    EXPECT_EQ(worker->exchanges_in_use(), 0u);
    EXPECT_EQ(worker->heads_in_use(), 0u);
    EXPECT_EQ(worker->downstreams_in_use(), 0u);
    EXPECT_EQ(worker->upstreams_in_use(), 0u);
    EXPECT_EQ(worker->endpoints_in_use(), 0u);
    EXPECT_EQ(worker->tunnels_in_use(), 0u);
    EXPECT_EQ(worker->checks_in_use(), 0u);
    EXPECT_EQ(worker->encoders_in_use(), 0u);
    EXPECT_EQ(worker->stack().active_connections(), 0u);
    EXPECT_EQ(worker->stack().time_wait_entries(), 0u);
    EXPECT_EQ(payload.in_use(), 0u);
    EXPECT_EQ(headers.in_use(), 0u);
    EXPECT_EQ(indirect.in_use(), 0u);
    EXPECT_EQ(stats().http[stats::HttpCounter::kRqActive].read(), 0u);
  }

  static constexpr uint64_t kWallStart = 1'700'000'000ull * kSecond;
  base::TimeNs now = 1'000 * kSecond;
  support::HeapPacketPool payload, headers, indirect;
  support::FakePort inside, outside;

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  Host& owner(Peer& p) {
    for (Peer& x : client.peers)
      if (&x == &p) return client;
    return server;
  }
  // Frames from one port's transmit queue to another's receive queue; a receiver without packets loses them, as a device does.
  static bool carry(support::FakePort& from, support::FakePort& to, support::HeapPacketPool& pool, bool lost = false) {
    bool moved = false;
    for (std::vector<uint8_t> f = from.pop_sent_bytes(); !f.empty(); f = from.pop_sent_bytes()) {
      moved = true;
      if (lost) continue;
      if (io::PacketPtr p = pool.make(f); p) to.deliver(std::move(p));
    }
    return moved;
  }

  io::Steering steering_;
  std::unique_ptr<uint8_t, Free> region_memory_, events_memory_, inspection_memory_;
  uint64_t region_bytes_ = 0;
  shm::RingProducer inspection_;
  std::optional<stats::Region> region_;
  shm::RingProducer events_;
  shm::RingConsumer event_reader_;
  std::vector<LogLine> lines_;
  std::vector<WorkerTableSlot> slots_ = std::vector<WorkerTableSlot>(1);

 public:
  std::optional<TableLoader> loader;
  std::optional<Tables> tables;
  Host client, server;
  std::optional<Worker> worker;
  std::function<void()> server_script;
  bool server_deaf = false;     // frames to the server are lost
  bool account_stages = false;  // every turn of the worker, into stages()
};

// ---- HTTP in a line
// --------------------------------------------------------------------------------------------------------------------
inline std::string get(std::string_view path = "/", std::string_view more = "") {
  return "GET " + std::string(path) + " HTTP/1.1\r\nhost: a\r\n" + std::string(more) + "\r\n";
}
inline std::string ok(std::string_view body = "hello") {
  return "HTTP/1.1 200 OK\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}
inline size_t count_of(const std::string& text, std::string_view what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + what.size())) ++n;
  return n;
}
// Text that shows when a piece is missing or out of order.
inline std::string pattern(size_t bytes) {
  std::string s(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) s[i] = static_cast<char>('a' + (i * 2654435761u >> 16) % 26);
  return s;
}

// Whether a head has exactly that line behind its first.
inline bool has_line(const std::string& head, std::string_view line) {
  return head.find("\r\n" + std::string(line) + "\r\n") != std::string::npos;
}

}  // namespace millrace::dataplane::test
