// Two hosts of TCBs in virtual time: real TCBs of lib/tcp over the network of path.h, with applications that send, read, close
// and abort as their plan says, and hosts that pause, die and run out of memory. Everything is decided by one seed. After every
// step the invariants that need no knowledge of the plan are checked.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
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
#include "tests/sim/coverage.h"
#include "tests/sim/path.h"
#include "tests/sim/scenario.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::sim {

// How one side of a connection ended.
struct Outcome {
  bool opened = false, connected = false, peer_fin = false, reset = false, timed_out = false, closed = false, aborted = false;
  uint64_t sent = 0, received = 0;
  TimeNs last_byte_at = 0;
};

// Bugs put between lib/tcp and the world, each as a wrong line in lib/tcp would show: the oracle must find every one.
enum class Mutant : uint8_t {
  kNone,
  kWrongByte,       // a byte of a repeated segment comes from the wrong place in the queue
  kByteSkipped,     // a byte is taken from the receive queue twice, another never
  kDeliveredTwice,  // the reader sees the same bytes again
  kAckTooFar,       // acknowledges a byte more than has come
  kAckUnseen,       // an acknowledgement of data is not taken note of
  kFinEarly,        // FIN before the last byte
  kFinLost,         // FIN never goes out
  kWindowShrinks,   // the right edge of the window moves left
  kOversize,        // the peer's MSS is exceeded
  kTimerLost,       // the retransmission timer is not armed
  kNoDeadline,      // no timer at all
  kStateSkipped,    // FIN-WAIT-2 without the acknowledgement of our FIN
  kPacketKept,      // a packet is not given back
  kSequenceWrap,    // what lies beyond 2^32 counts as old
  kCount
};
const char* to_string(Mutant m);

// A segment on its way.
struct SimPacket {
  std::vector<uint8_t> bytes;
  int to_side = 0;
  bool corrupt = false, marked = false;  // marked: CE (RFC 3168)
  uint16_t mtu = 0;                      // kTooBig: what its sender is told
};

class Simulation {
 public:
  using Pools = std::array<support::HeapPacketPool*, 2>;
  // The pools, one a host, outlive the simulation; more than one may use them one after the other.
  Simulation(const Scenario& scenario, const Pools& pools, Mutant mutant = Mutant::kNone);
  ~Simulation();

  // Runs to the end. Empty when all was right, else what was wrong; then trace() shows the last packets.
  std::string run();
  // Runs until `until` without asking for an end: for measurements.
  std::string run_until(TimeNs until);
  std::string trace() const;
  const Outcome& outcome(size_t connection, int side) const {
    return sides_[connection * 2 + static_cast<size_t>(side)]->outcome;
  }
  TimeNs now() const { return now_; }
  uint64_t packets() const { return coverage_.packets; }
  const Coverage& coverage() const { return coverage_; }
  uint64_t hash() const { return hash_.value(); }

 private:
  struct Side {
    size_t connection = 0;
    int side = 0;  // 0 client, 1 server
    const Plan* plan = nullptr;
    tcp::Profile profile;
    tcp::Tcb tcb;
    bool live = false;  // the TCB is in use
    bool counted_half_open = false;
    bool forgiven = false;  // may end early: its host or its peer's lost its memory or its sense of time
    std::optional<tcp::TimeWaitEntry> time_wait;
    Outcome outcome;
    tcp::State seen = tcp::State::kClosed;
    bool close_called = false;
    TimeNs next_read = 0, next_write = 0;
    uint32_t advertised_right = 0;  // right edge of the window on the wire so far
    bool advertised = false;
    uint16_t largest_mss =
        0;  // that the peer's and the path's MSS have allowed so far: what a probe of the path may go back up to
  };
  struct Host {
    explicit Host(uint32_t repairs) : repairs(repairs) {}
    tcp::RepairPool repairs;
    std::vector<tcp::Repair*> hoarded;  // kNoRepairs
    TimeNs clock_ahead = 0;
    TimeNs asleep_until = 0;  // paused or dead
    bool dead = false, started_again = false;
    std::deque<SimPacket> ring;  // what comes meanwhile
  };
  struct Event {
    TimeNs at;
    uint64_t order;
    enum class Kind : uint8_t { kPacket, kStart, kFault, kFaultEnds, kTooBig } kind;
    size_t index;  // into packets in flight, connections or faults
    bool operator>(const Event& o) const { return at != o.at ? at > o.at : order > o.order; }
  };
  struct TraceRecord {
    TimeNs at = 0;
    uint8_t from = 0;
    const char* fate = "";
    wire::TcpView header;
  };

  uint64_t stream(const Side& s) const { return stream_of(scenario_, s.connection, s.side); }
  Side& peer_of(const Side& s) const { return *sides_[s.connection * 2 + static_cast<size_t>(1 - s.side)]; }
  Host& host(int side) { return *hosts_[static_cast<size_t>(side)]; }
  const Host& host(int side) const { return *hosts_[static_cast<size_t>(side)]; }
  // The host's own clock.
  TimeNs clock(int side) const { return now_ + host(side).clock_ahead; }
  bool asleep(int side) const { return host(side).asleep_until > now_; }
  support::HeapPacketPool& pool(int side) { return *pools_[static_cast<size_t>(side)]; }

  void fail(const Side* s, const std::string& what);
  void check_state(Side& s);
  void push(TimeNs at, Event::Kind kind, size_t index) { events_.push({at, order_++, kind, index}); }
  size_t fly(SimPacket&& p);
  void start(size_t connection);
  void begin_fault(const HostFault& f);
  void end_fault(const HostFault& f);
  void forget_everything(int side);
  void forgive(size_t connection);
  void transmit(int from_side, const wire::TcpRepr& header, const std::vector<uint8_t>& payload, bool ecn_capable = false);
  void arrive(SimPacket packet);
  void told_too_big(const SimPacket& packet);
  Side* side_for(int to, uint16_t client_port, bool syn);
  void to_listener(int to, uint16_t client_port, const wire::TcpView& segment, base::ByteSpan payload,
                   const tcp::TimeWaitEntry* before);
  void give(Side& s, const wire::TcpView& segment, base::ByteSpan payload, bool marked = false);
  void react(Side& s, uint32_t events);
  void application(Side& s);
  void read(Side& s, bool all = false);
  void write(Side& s);
  void output(Side& s);
  void finish(Side& s);
  void tuple_free(const Side& s);
  void sabotage(Side& s, tcp::OutSegment& out);
  TimeNs next_time(const Side& s) const;
  void wake(Side& s);
  void check_end();

  Scenario scenario_;
  Pools pools_;
  Mutant mutant_;
  uint64_t mutations_ = 0;
  base::Prng random_;
  std::unique_ptr<Host> hosts_[2];
  uint32_t server_lives_ = 0;
  std::unique_ptr<tcp::IsnGenerator> isn_[2];
  std::unique_ptr<tcp::Listener> listener_;
  TimeNs now_ = 0;
  uint64_t order_ = 0;
  std::vector<std::unique_ptr<Side>> sides_;  // connection * 2 + side
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::deque<SimPacket> in_flight_;
  std::vector<size_t> free_slots_;
  Path path_[2];
  std::vector<TraceRecord> trace_;
  size_t trace_next_ = 0;
  io::PacketPtr kept_;
  Coverage coverage_;
  TraceHash hash_;
  std::string failure_;
};

}  // namespace millrace::sim
