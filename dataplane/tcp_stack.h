// One worker's TCP/IP: from bursts of frames to connection events and back. Share-nothing; every function is called by the owning
// worker's thread only, with `now` from the worker's clock. No heap, lock, system call or callback after construction.
//
// The worker's loop around it:
//   stack.receive(now)                                  rx bursts of every port, ARP/ND/ICMP answered, TCP input
//   while (Connection* c = stack.pop_ready())           the session layer reacts: switch (c->role)
//       events = stack.take_events(*c) …                … tcp::rx_queue/send/close on c->tcb, then stack.touch(*c)
//   stack.run_timers(now, kMaxTimers)                   deadlines of TCBs, TIME-WAIT, neighbours
//   stack.flush(now)                                    segments of touched connections, transmit buffers of every port
//
//            frames                      events, pop_ready()
//   ports ───────────▶ IpLayer ──▶ flow table ──▶ Connection ──▶ session layer
//         ◀─────────── IpLayer ◀── poll_output ◀── touch() ◀────
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/admission.h"
#include "dataplane/connection.h"
#include "dataplane/counters.h"
#include "dataplane/flow_table.h"
#include "dataplane/ip_layer.h"
#include "dataplane/listener_set.h"
#include "dataplane/port_allocator.h"
#include "dataplane/rate_limit.h"
#include "dataplane/tcp_profiles.h"
#include "dataplane/time_wait_table.h"
#include "dataplane/trace.h"
#include "lib/base/pool.h"
#include "lib/base/time.h"
#include "lib/base/timer_wheel.h"
#include "lib/io/packet.h"
#include "lib/io/port_queue.h"
#include "lib/io/steering.h"
#include "lib/tcp/isn.h"
#include "lib/tcp/listener.h"
#include "lib/tcp/tcp.h"

namespace millrace::dataplane {

using base::TimeNs;

// Why connect() gave no connection. kNone: it did.
enum class ConnectError : uint8_t {
  kNone,
  kNoRoute,             // no port has a route to the address, or no address of its family
  kNoLocalPort,         // every tried local port towards this endpoint is taken (range spent, TIME-WAIT included)
  kTooManyConnections,  // the pool of connections is empty
  kNoMemory,            // packet memory below the watermark for new connections
};
const char* to_string(ConnectError e);  // "no route to the address", …

// How tight packet memory is, by free packets of the payload pool (README: watermarks).
enum class MemoryPressure : uint8_t {
  kNone,      // 25 % or more are free
  kNoGrowth,  // below 25 %: receive windows stop growing; proxies stop reading ahead
  kNoNew,     // below 10 %: new connections refused (counted tcp_memory), out-of-order data dropped
  kReserve,   // below 5 %: received payload is dropped; what is left is for ACK, RST, ARP
};

struct TcpStackConfig {
  uint32_t worker = 0;                // index of this worker, 0-based
  uint32_t workers = 1;               // of how many
  uint32_t max_connections = 65'536;  // pool size; a SYN beyond it is ignored (kTcpTableFull)
  uint32_t max_half_open = 1'024;     // SYN-RECEIVED beyond which SYNs are answered with cookies (RFC 4987)
  uint32_t max_time_wait = 65'536;    // mini entries; the oldest is recycled when full
  uint32_t max_repairs = 0;  // connections with losses at one time (lib/tcp/repair.h); 0: a quarter of all, at least 1,024
  uint16_t local_port_first = 16'384;  // range for connect(), inclusive
  uint16_t local_port_last = 65'535;
  uint32_t max_port_maps = 1'024;          // distinct (local address, remote endpoint) pairs with ports in use at one time
  uint32_t max_resets_per_second = 1'000;  // RST answers to segments of nobody
  AdmissionConfig admission;               // who may open connections (admission.h); by default nobody is asked
  uint64_t secret[4] = {};                 // seeds of hashes, ISNs and cookies: random per process, equal on all workers
  tcp::Config downstream;                  // of accepted connections; mss is reduced to the port's MTU
  IpLayerConfig ip;                        // addresses, routes, neighbours, limits
};

class TcpStack {
 public:
  // One port as this worker sees it, in the order of config.ip.ports; not owned, must outlive the stack. `pool`: received payload
  // and linear frames; `headers`: small packets for header segments, ACK, RST, ARP (never lent to sessions); `indirect`:
  // data-less mbufs that reference payload (may be the null pool when no port can chain). `counters`: where to count
  // (counters.h); copied, what it points to must outlive the stack.
  TcpStack(const TcpStackConfig& config, std::span<io::PortQueue* const> ports, const io::Steering& steering,
           io::HandoverMesh* mesh, io::PacketPool pool, io::PacketPool headers, io::PacketPool indirect,
           const StackCounters& counters, TimeNs now);
  ~TcpStack();  // frees every connection silently (no segments); balanced pools are the caller's to check
  TcpStack(const TcpStack&) = delete;
  TcpStack& operator=(const TcpStack&) = delete;

  // The listeners of the snapshot in force; null: none. Must stay valid until the next call. Connections are not touched.
  void set_listeners(const ListenerSet* listeners) { listeners_ = listeners; }
  // Whatever they listen to: no new connections while true (a drain that has come to its end).
  void refuse_connections(bool refuse) { refuses_connections_ = refuse; }
  // Shows `tap` every frame that comes in or goes out; it outlives the stack.
  void set_tap(io::FrameTap& tap) {
    tap_ = &tap;
    ip_.set_tap(tap);
  }

  // --- the loop -----------------------------------------------------------------------------------------------------------
  // One burst from each port and from each hand-over ring, processed to the end. Returns the number of frames (0: idle).
  uint32_t receive(TimeNs now);
  // The next connection with events, in the order they became ready; null when there is none. An accepted connection appears here
  // first with kEventConnected, owner null, and is then attached (connection.h rule 2).
  Connection* pop_ready();
  // The Event bits since the last call; clears them.
  static uint32_t take_events(Connection& c) { return std::exchange(c.events, uint16_t{0}); }
  // Handles at most `max` due deadlines; returns how many. Events go through pop_ready() as any other.
  uint32_t run_timers(TimeNs now, uint32_t max);
  // Builds and sends what touched connections have due, then transmits every port's buffer. Call at the end of each iteration.
  // Connections of a port whose transmit queue is full keep what they have and wait, in order, until it takes frames again.
  void flush(TimeNs now);
  // The earliest time at which run_timers() has work (a lower bound: the timers are lazy); kNever: none.
  TimeNs next_deadline();

  // --- the session layer ------------------------------------------------------------------------------------------------------
  // Opens a connection; SYN is sent by flush(). `owner` and role kUpstream are set, the connection is attached. kEventConnected,
  // kEventReset or kEventTimedOut (connect_timeout_ns) tell the outcome. Null with *why set on failure.
  Connection* connect(const base::IpAddress& remote, uint16_t port, const tcp::Profile& profile, TimeNs now, void* owner,
                      ConnectError* why, TimeNs connect_timeout_ns = tcp::kProfileTimeout);
  Connection* connect(const base::IpAddress&, uint16_t, const tcp::Profile&&, TimeNs, void*, ConnectError*, TimeNs = 0) = delete;
  // What connections of a kind share, kept as long as the stack lives. At start, not for each connection.
  const tcp::Profile& add_profile(const tcp::Config& config) { return profiles_.add(config); }
  const tcp::Profile& downstream_profile() const { return profiles_.first(); }
  // `base`, a profile of add_profile(), with what a listener or cluster asks for: for connect(), at once.
  const tcp::Profile& profile(const tcp::Profile& base, const table::TcpOptions& options, uint32_t buffer_limit) {
    return profiles_.with(base, options, buffer_limit);
  }
  const TcpProfiles& profiles() const { return profiles_; }
  // The listener that an accepted connection belongs to: whoever listens on its address now; kNoObject: nobody (any more).
  table::ObjectId listener_of(const Connection& c) const;
  // Unique over all workers of one data plane run, never 0: for logs.
  uint64_t next_connection_id() {
    const uint64_t id = next_id_;
    next_id_ += config_.workers;
    return id;
  }
  // After any tcp:: call that may have made output due (send, close, window_update after consuming). Cheap and idempotent.
  void touch(Connection& c);
  // The session layer is done with it. Unsent data and FIN are still delivered (close() is implied), unread and later data is
  // answered with RST (RFC 1122 4.2.2.13); the stack finishes TIME-WAIT alone. The pointer is dead.
  void detach(Connection& c, TimeNs now);
  // Resets the connection and lets go of it. The pointer is dead.
  void abort(Connection& c, TimeNs now);
  // Resets a connection at an operator's word, as if its peer had: the session layer, if any holds it, hears kEventReset.
  void kill(Connection& c, TimeNs now);
  // Puts a connection (back) on the ready list with these events: for sessions that stopped at a budget and want to go on in the
  // next iteration.
  void reschedule(Connection& c, uint32_t events);

  io::PacketPool& pool() { return pool_; }  // for tcp::send_copy and bodies
  MemoryPressure memory_pressure() const { return pressure_; }

  // --- what can be seen ------------------------------------------------------------------------------------------------------
  uint32_t active_connections() const { return connections_.in_use(); }  // attached or orphaned, TIME-WAIT mini entries excluded
  const tcp::RepairPool& repairs() const { return repairs_; }
  uint32_t time_wait_entries() const { return time_wait_.size(); }
  const StackCounters& counters() const { return counters_; }
  const Admission* admission() const { return admission_.get(); }  // null: nothing is limited
  IpLayer& ip() { return ip_; }
  const TraceRing& trace() const { return trace_; }
  // The pool of connections by slot, for walks in slices: slots below connection_slots() were ever used; null: not in use now.
  uint32_t connection_slots() const { return connections_.ever_used(); }
  Connection* connection_at(uint32_t slot) { return connections_.lent(slot) ? &connections_[slot] : nullptr; }
  table::ConnectionId id_of(const Connection& c) const { return {connections_.index_of(&c), c.tag()}; }
  // Calls f(const Connection&) for each connection in use (millctl dump; slow).
  template <class F>
  void for_each_connection(F&& f) const {
    for (uint32_t i = 0; i < connections_.ever_used(); ++i)
      if (connections_.lent(i)) f(connections_[i]);
  }

 private:
  struct Incoming;  // a segment between the stages of a burst

  // tcp_input.cc
  void input_burst(uint16_t port, rte_mbuf** frames, uint32_t n, TimeNs now, bool handed);
  void input_segment(Incoming& in, TimeNs now, bool handed);
  void input_connection(Connection& c, const wire::TcpView& segment, rte_mbuf* frame, uint32_t payload_at, uint8_t ecn,
                        TimeNs now);
  void open_passive(Connection& c, Incoming& in, const wire::TcpView& syn, const tcp::ListenerDecision& d,
                    const tcp::Profile& profile, const tcp::TimeWaitEntry* before, uint16_t mss, TimeNs now);
  void input_time_wait(Incoming& in, const wire::TcpView& segment, TimeNs now);
  void input_listener(Incoming& in, const wire::TcpView& segment, const tcp::TimeWaitEntry* before, TimeNs now);
  void input_icmp_error(const IcmpError& error, rte_mbuf* frame, TimeNs now, bool handed);
  void input_handed(rte_mbuf* frame, TimeNs now);
  void count_fast_open(tcp::ListenerDecision::FastOpen what);
  bool hand_over(Incoming& in);
  void push(uint32_t worker, rte_mbuf* frame, uint16_t device, uint32_t what);
  void share_neighbor_news(uint16_t port, rte_mbuf* copy);
  void reply(const Incoming& in, const wire::TcpRepr& header, TimeNs now);
  void refuse(const Incoming& in, const wire::TcpView& segment, const ListenerSet::Entry& listener, stats::DropReason why,
              TimeNs now);
  void reset(const Incoming& in, const wire::TcpView& segment, stats::DropReason why, TimeNs now);

  // tcp_stack.cc
  Connection* open(uint32_t hash, uint16_t port);
  Connection* connect_from(const IpLayer::Source& source, const base::IpAddress& remote, uint16_t port,
                           const tcp::Profile& profile, TimeNs now, void* owner, TimeNs connect_timeout_ns);
  bool admit(Connection& c, TimeNs now);
  void on_events(Connection& c, uint32_t events, TimeNs now);
  void to_time_wait(Connection& c, TimeNs now);
  void leave_table(Connection& c);
  void half_open_ended(Connection& c, bool reset);
  bool output(Connection& c, TimeNs now);
  void output_turn(Connection& c, TimeNs now);
  uint16_t tx_port(const Connection& c) const { return c.next_hop.neighbor == NeighborTable::kNone ? c.port : c.next_hop.port; }
  void arm(Connection& c);
  void free(Connection& c);
  void report_progress(TimeNs now);
  void expire_time_wait(TimeWaitTable::Slot& s);
  void update_pressure();
  void count_recoveries();

  // What the trace and the counters are told. Nothing of it lies on the path of an ordinary segment but the comparison of the
  // state once a flush, and of the retransmissions once an output().
  void trace(const Connection& c, table::TraceKind kind, TimeNs now, uint32_t a = 0, uint32_t b = 0, uint32_t d = 0,
             uint8_t from = 0, uint8_t to = 0);
  void trace_opened(Connection& c, uint8_t how, uint32_t iss, uint32_t irs, TimeNs now);
  void trace_state(Connection& c, TimeNs now) {
    if (c.traced_state != static_cast<uint8_t>(tcp::state(c.tcb))) [[unlikely]]
      note_state(c, now);
  }
  void note_state(Connection& c, TimeNs now);
  void note_retransmits(Connection& c, uint32_t n, TimeNs now);
  // Compares with a glance of before.
  void note(Connection& c, const tcp::Glance& before, TimeNs now);
  uint32_t hash_of(const base::IpAddress& local, uint16_t local_port, const base::IpAddress& remote, uint16_t remote_port) const {
    return static_cast<uint32_t>(flow_hash(config_.secret[0], local, local_port, remote, remote_port));
  }
  stats::Counter& count(TcpCounter c) { return (*counters_.tcp)[c]; }

  static constexpr uint32_t kSegmentsPerFlush = 64;         // of one connection; the rest follows in the next iteration
  static constexpr uint32_t kMaxTsoPayload = 65'535 - 120;  // bytes: an IP packet with the longest headers
  static constexpr uint32_t kPressureInterval = 32;         // receive() calls between looks at the pool

  TcpStackConfig config_;
  std::vector<io::PortQueue*> queues_;
  const ListenerSet* listeners_ = nullptr;
  const io::Steering& steering_;
  io::HandoverMesh* mesh_;
  io::PacketPool pool_;
  StackCounters counters_;
  IpLayer ip_;
  tcp::RepairPool repairs_;
  TcpProfiles profiles_;  // the first: of accepted connections
  base::Pool<Connection> connections_;
  FlowTable flows_;
  TimeWaitTable time_wait_;
  PortAllocator local_ports_;
  std::unique_ptr<Admission> admission_;
  tcp::Listener listener_;  // one for all: its backlog is the worker's
  tcp::IsnGenerator isn_;
  base::TimerWheel wheel_;
  ConnectionQueue<&Connection::ready_next> ready_;
  ConnectionQueue<&Connection::dirty_next> dirty_;
  std::vector<ConnectionQueue<&Connection::dirty_next>> held_;  // by port: that found it blocked; they are on no other list
  RateLimit reset_limit_;
  TraceRing trace_;
  io::FrameTap* tap_ = &io::FrameTap::none();
  uint64_t next_id_;
  uint32_t pressure_countdown_ = 0;
  bool refuses_connections_ = false;
  MemoryPressure pressure_ = MemoryPressure::kNone;
};

}  // namespace millrace::dataplane
