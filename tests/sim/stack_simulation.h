// Two whole hosts in virtual time: dataplane/tcp_stack.h at both ends (Ethernet, ARP, ND, IPv4, IPv6, ICMP, ports, TIME-WAIT
// table, timers), frames between them over the network of path.h, and a router on the way that answers what is too big. The same
// scenarios and faults as simulation.h, except what a host does not do by itself: simultaneous opens, sequence numbers of one's
// choice.
#pragma once

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/tcp_stack.h"
#include "lib/base/prng.h"
#include "tests/sim/coverage.h"
#include "tests/sim/path.h"
#include "tests/sim/scenario.h"
#include "tests/sim/simulation.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::sim {

// The memory of one host; outlives simulations, one after the other.
struct HostPools {
  support::HeapPacketPool payload{4'096}, headers{2'048, 128}, indirect{4'096, 0};
  bool balanced() const { return payload.balanced() && headers.balanced() && indirect.balanced(); }
};

class StackSimulation {
 public:
  using Pools = std::array<HostPools*, 2>;
  StackSimulation(const Scenario& scenario, const Pools& pools);
  ~StackSimulation();

  // Runs to the end. Empty when all was right, else what was wrong; then trace() shows the last frames.
  std::string run();
  std::string trace() const;
  const Coverage& coverage() const { return coverage_; }
  uint64_t hash() const { return hash_.value(); }

 private:
  // One side of a connection of the plan.
  struct Flow {
    size_t connection = 0;
    int side = 0;
    const Plan* plan = nullptr;
    dataplane::Connection* c = nullptr;
    uint16_t client_port = 0;  // of the connection under way
    uint32_t iss = 0;          // client: of that connection
    bool forgiven = false;
    bool close_called = false, done = false;
    Outcome outcome;
    TimeNs start_at = base::kNever;  // client: when it connects, or tries again
    TimeNs next_read = 0, next_write = 0;
  };
  struct Flying {
    std::vector<uint8_t> bytes;
    int to = 0;
  };
  struct Host {
    Host(int side, HostPools& pools);
    int side;
    HostPools& pools;
    support::FakePort port;
    io::Steering steering{1, 1};
    dataplane::LocalCounters counters;
    dataplane::ListenerSet listeners;
    std::optional<dataplane::TcpStack> stack;
    uint32_t life = 0;
    TimeNs clock_ahead = 0, asleep_until = 0;
    bool dead = false;
    std::deque<std::vector<uint8_t>> ring;
  };
  struct TraceRecord {
    TimeNs at = 0;
    int from = 0;
    const char* fate = "";
    std::vector<uint8_t> head;
    size_t length = 0;
  };

  TimeNs clock(const Host& h) const { return now_ + h.clock_ahead; }
  bool asleep(const Host& h) const { return h.asleep_until > now_; }
  Flow& flow(size_t connection, int side) { return flows_[connection * 2 + static_cast<size_t>(side)]; }
  Flow& peer_of(const Flow& f) { return flow(f.connection, 1 - f.side); }
  void fail(const Flow* f, const std::string& what);
  void boot(Host& h);
  void begin_fault(const HostFault& f);
  void end_faults();
  void forgive(size_t connection) { flow(connection, 0).forgiven = flow(connection, 1).forgiven = true; }
  void work(Host& h);
  void open(Flow& f);
  Flow* accept(Host& h, dataplane::Connection& c);
  void react(Host& h, Flow& f, uint32_t events);
  void application(Host& h, Flow& f);
  void read(Host& h, Flow& f, bool all);
  void write(Host& h, Flow& f);
  void over(Flow& f);
  void transmit(Host& from);
  void damage(std::vector<uint8_t>& frame);
  void too_big(Host& sender, const std::vector<uint8_t>& frame, uint16_t mtu);
  void deliver(Host& to, const std::vector<uint8_t>& frame);
  TimeNs next_time(Host& h);
  TimeNs next_time(const Flow& f) const;
  bool quiet();
  void check_end();

  Scenario scenario_;
  base::Prng random_;
  std::unique_ptr<Host> hosts_[2];
  std::vector<Flow> flows_;  // connection * 2 + side
  std::multimap<TimeNs, Flying> wire_;
  std::multimap<TimeNs, size_t> fault_ends_;
  std::vector<size_t> faults_;  // still to come, by time, the next one last
  Path path_[2];
  TimeNs now_ = 0;
  std::deque<TraceRecord> trace_;
  Coverage coverage_;
  TraceHash hash_;
  std::string failure_;
};

}  // namespace millrace::sim
