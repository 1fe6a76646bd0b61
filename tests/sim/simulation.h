// A network of two hosts in virtual time: lossy links between real TCBs of lib/tcp, with applications that send, read, close and
// abort as their plan says. Everything is decided by one seed. After every step the invariants that need no knowledge of the plan
// are checked.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "lib/base/prng.h"
#include "lib/tcp/listener.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcp.h"
#include "lib/tcp/time_wait.h"
#include "lib/wire/tcp.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::sim {

using base::TimeNs;

// One direction of the path. Probabilities are 0..1.
struct Link {
  double loss = 0, duplicate = 0, corrupt = 0;
  TimeNs delay = 10 * base::kMillisecond;
  TimeNs jitter = 0;                  // extra delay, uniform in 0..jitter: reorders
  uint64_t bytes_per_second = 0;      // 0: unlimited
  uint32_t queue_bytes = UINT32_MAX;  // waiting for the link; more is dropped
};

// What one application does on its connection. It sends byte i as pattern(stream, i), so that the other side can check each byte.
struct Plan {
  uint64_t send_bytes = 0;
  uint32_t write_size = 16'384;     // most bytes of one write
  uint32_t read_size = UINT32_MAX;  // most bytes of one read
  TimeNs read_interval = 0;         // 0: reads at once; else every so often (a slow reader)
  TimeNs write_interval = 0;        // 0: whenever there is space
  bool close_when_sent = true;      // half close after the last byte; else close when the peer has closed
  TimeNs abort_at = base::kNever;
  bool mini_time_wait = false;  // moves to a TimeWaitEntry
};

struct ConnectionPlan {
  TimeNs start = 0;
  uint16_t client_port = 0;
  bool simultaneous = false;  // both sides open actively
  Plan client, server;
  tcp::Config client_config, server_config;
};

struct Scenario {
  uint64_t seed = 0;
  Link link[2];                   // [0]: client to server
  TimeNs heal_at = base::kNever;  // from here on no faults
  TimeNs end_at = 0;              // everything must be over by then
  uint32_t backlog = 16;
  uint32_t repairs = 64;  // tcp::RepairPool, shared by both sides
  std::vector<ConnectionPlan> connections;
};

// How one side of a connection ended.
struct Outcome {
  bool opened = false, connected = false, peer_fin = false, reset = false, timed_out = false, closed = false, aborted = false;
  uint64_t sent = 0, received = 0;
  TimeNs last_byte_at = 0;
};

class Simulation {
 public:
  // `pool` outlives the simulation; more than one may use it one after the other.
  Simulation(const Scenario& scenario, support::HeapPacketPool& pool);
  ~Simulation();

  // Runs to the end. Empty when all was right, else what was wrong; then trace() shows the last packets.
  std::string run();
  // Runs until `until` without asking for an end: for measurements.
  std::string run_until(TimeNs until);
  std::string trace() const;
  const Outcome& outcome(size_t connection, int side) const { return sides_[connection * 2 + side]->outcome; }
  TimeNs now() const { return now_; }
  uint64_t packets() const { return packets_; }

 private:
  struct Side {
    size_t connection = 0;
    int side = 0;  // 0 client, 1 server
    const Plan* plan = nullptr;
    tcp::Profile profile;
    tcp::Tcb tcb;
    bool live = false;  // the TCB is in use
    bool counted_half_open = false;
    std::optional<tcp::TimeWaitEntry> time_wait;
    Outcome outcome;
    bool close_called = false;
    TimeNs next_read = 0, next_write = 0;
    uint32_t advertised_right = 0;  // right edge of the window on the wire so far
    bool advertised = false;
  };
  struct Packet {
    std::vector<uint8_t> bytes;
    int to_side = 0;
    bool corrupt = false;
  };
  struct Event {
    TimeNs at;
    uint64_t order;
    enum class Kind : uint8_t { kPacket, kStart } kind;
    size_t index;  // into packets in flight, or the connection
    bool operator>(const Event& o) const { return at != o.at ? at > o.at : order > o.order; }
  };
  struct TraceRecord {
    TimeNs at = 0;
    uint8_t from = 0;
    const char* fate = "";
    wire::TcpView header;
  };

  static uint8_t pattern(uint64_t stream, uint64_t i) {
    uint64_t x = (stream * 0x9e3779b97f4a7c15) ^ (i >> 3);
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 31;
    return static_cast<uint8_t>(x >> (8 * (i & 7)));
  }
  uint64_t stream(const Side& s) const { return scenario_.seed * 1000 + s.connection * 2 + static_cast<uint64_t>(s.side); }

  void fail(const Side* s, const std::string& what);
  void start(size_t connection);
  void transmit(int from_side, const wire::TcpRepr& header, const std::vector<uint8_t>& payload);
  void arrive(Packet packet);
  void to_listener(Side& server, const wire::TcpView& segment, base::ByteSpan payload);
  void give(Side& s, const wire::TcpView& segment, base::ByteSpan payload);
  void react(Side& s, uint32_t events);
  void application(Side& s);
  void read(Side& s, bool all = false);
  void write(Side& s);
  void output(Side& s);
  void finish(Side& s);
  TimeNs next_time(const Side& s) const;
  void wake(Side& s);
  void check_end();

  Scenario scenario_;
  support::HeapPacketPool& pool_;
  base::Prng random_;
  tcp::IsnGenerator isn_;
  tcp::Listener listener_;
  tcp::RepairPool repairs_;
  TimeNs now_ = 0;
  uint64_t order_ = 0, packets_ = 0;
  std::vector<std::unique_ptr<Side>> sides_;  // connection * 2 + side
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Packet> in_flight_;
  std::vector<size_t> free_slots_;
  TimeNs link_free_at_[2] = {0, 0};
  std::vector<TraceRecord> trace_;
  size_t trace_next_ = 0;
  std::string failure_;
};

// A scenario with everything drawn from `seed`.
Scenario random_scenario(uint64_t seed);

}  // namespace millrace::sim
