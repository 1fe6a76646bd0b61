// Two engines, clients and servers, with a cable of memory between them, in virtual time. The cable delays each frame and, as
// told, loses, reorders, repeats or changes it, so a test states what went wrong on the wire and reads what the run says about
// it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/prng.h"
#include "perf/load/engine.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::load {

using Frame = std::vector<uint8_t>;

inline constexpr base::TimeNs kStep = 20 * base::kMicrosecond;
inline constexpr base::TimeNs kCableDelay = 50 * base::kMicrosecond;  // one way

// One direction.
class Cable {
 public:
  explicit Cable(uint64_t seed) : random(seed) {}

  base::Prng random;
  uint32_t lose = 0, repeat = 0, hold_back = 0;  // of 1,000 frames; held back: delivered 300 µs later than the rest
  bool cut = false;                              // loses everything
  base::TimeNs stalled_until = 0;                // delivers nothing before
  std::function<void(Frame&)> change;            // may alter a frame; empty: dropped

  void carry(base::TimeNs now, support::FakePort& from, support::FakePort& to, support::HeapPacketPool& pool) {
    for (Frame f = from.pop_sent_bytes(); !f.empty(); f = from.pop_sent_bytes()) {
      ++frames;
      if (cut || random.below(1000) < lose) continue;
      if (change) change(f);
      if (f.empty()) continue;
      const base::TimeNs at = now + kCableDelay + (random.below(1000) < hold_back ? 300 * base::kMicrosecond : 0);
      if (random.below(1000) < repeat) flying.push_back({at, f});
      flying.push_back({at, std::move(f)});
    }
    if (now < stalled_until) return;
    for (size_t i = 0; i < flying.size();) {
      if (flying[i].at > now) {
        ++i;
        continue;
      }
      if (auto p = pool.make(base::ByteSpan(flying[i].frame))) to.deliver(std::move(p));
      flying.erase(flying.begin() + static_cast<long>(i));
    }
  }
  uint64_t frames = 0;

 private:
  struct Flying {
    base::TimeNs at;
    Frame frame;
  };
  std::deque<Flying> flying;
};

// What the tests' runs have in common; a test changes what it is about.
inline Options rig_options(Role role) {
  Options o;
  o.role = role;
  WireOptions w;
  w.devargs = "memory";
  const char* mine = role == Role::kServers ? "10.63.0.2" : "10.63.0.1";
  const char* other = role == Role::kServers ? "10.63.0.1" : "10.63.0.2";
  w.router = {*base::IpAddress::parse(mine), 24};
  w.dut = *base::IpAddress::parse(other);
  o.wires = {w};
  o.clients = {*base::IpAddress::parse("10.64.0.0"), 24};
  o.targets = {{*base::IpAddress::parse("10.65.0.1"), 80}};
  o.servers = {{*base::IpAddress::parse("10.65.0.1"), *base::IpAddress::parse("10.65.0.4"), 80, 81}};
  o.connections = 8;
  o.max_server_connections = 4096;
  o.response_body = 64;
  o.warmup_ns = 0;
  o.duration_ns = 200 * base::kMillisecond;
  o.timeout_ns = 5 * base::kSecond;
  return o;
}

struct Rig {
  explicit Rig(uint32_t packets = 32'768, uint32_t room = support::HeapPacketPool::kDefaultDataRoom)
      : client_pool(packets, room), server_pool(packets, room) {}
  Options client_options = rig_options(Role::kClients), server_options = rig_options(Role::kServers);
  std::string targets = "load.example /\n";
  uint64_t seed = 1;
  support::HeapPacketPool client_pool, server_pool;
  support::FakePort client_port{{2, 0, 0, 0, 0, 1}}, server_port{{2, 0, 0, 0, 0, 2}};
  Cable to_server{11}, to_client{12};
  std::function<void(base::TimeNs since_start)> each_step;
  TlsPeer *client_tls = nullptr, *server_tls = nullptr;
  RunResult clients, servers;
  base::TimeNs took = 0;

  // Runs until the clients are done (or for a minute of virtual time), then ends the servers.
  void run() {
    server_options.duration_ns = 0;
    auto table = TargetTable::parse(targets, "test");
    MILLRACE_ASSERT(table.ok(), "targets of the test");
    io::PortQueue* c_ports[] = {&client_port};
    io::PortQueue* s_ports[] = {&server_port};
    auto c = Engine::create(client_options, *table, c_ports, client_pool.pool(), client_tls, seed);
    auto s = Engine::create(server_options, *table, s_ports, server_pool.pool(), server_tls, seed + 1);
    MILLRACE_ASSERT(c.ok() && s.ok(), "engines of the test");
    base::TimeNs now = base::kSecond;
    const base::TimeNs start = now;
    bool c_goes = true, s_goes = true;
    while ((c_goes || s_goes) && now < start + 60 * base::kSecond) {
      now += kStep;
      if (each_step) each_step(now - start);
      if (c_goes) c_goes = (*c)->step(now);
      if (s_goes) s_goes = (*s)->step(now);
      if (!c_goes) (*s)->stop();
      to_server.carry(now, client_port, server_port, server_pool);
      to_client.carry(now, server_port, client_port, client_pool);
    }
    took = now - start;
    clients = (*c)->take_result();
    servers = (*s)->take_result();
    client_port.clear();
    server_port.clear();
  }
  Counters c() const { return clients.last.counters; }
  Counters s() const { return servers.last.counters; }
};

// The error counters that are not zero, for messages and for tests that name all of them.
inline std::string errors_of(const Counters& c) {
  std::string out;
  for (const LoadCounterInfo& i : kLoadCounters)
    if (i.kind == CounterKind::kError && c.*i.member != 0) out += std::string(i.name) + " " + std::to_string(c.*i.member) + " ";
  return out;
}

}  // namespace millrace::load
