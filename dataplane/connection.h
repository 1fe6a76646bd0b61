// One TCP connection of a worker as the two layers that share it see it: TcpStack below (dataplane/tcp_stack.h) drives the TCB,
// the session layer above (HTTP, TLS, tunnels) reacts to its events. There are no callbacks: the worker pops ready connections
// and switches on `role`.
//
// Who owns a Connection
//  1. It lives in the pool of one TcpStack and never leaves that worker.
//  2. connect() and the first pop_ready() of an accepted connection hand it to the session layer (`attached`). From then on the
//     stack keeps the object, whatever the peer does, until the session layer calls detach() or abort(). No pointer to it may be
//     used after that.
//  3. A connection that fails before it was ever handed over is freed by the stack; the session layer never hears of it.
#pragma once

#include <cstdint>
#include <utility>

#include "lib/base/pool.h"
#include "lib/base/timer_wheel.h"
#include "lib/io/port_queue.h"
#include "lib/tcp/tcb.h"
#include "lib/tcp/tcp.h"

namespace millrace::dataplane {

enum class Role : uint8_t {
  kNone,        // not in use, or an orphan that the stack finishes alone
  kDownstream,  // accepted: a client connected to one of our listeners
  kUpstream,    // connect(): we connected to an endpoint
};

// Where frames of a connection leave, resolved once: a slot of the neighbour table with its generation (ip_layer.h checks it).
struct NextHop {
  uint16_t port = 0;               // index of the port in the configuration
  uint16_t address_sum = 0;        // one's complement sum of both addresses: part of every checksum of the connection
  uint32_t neighbor = UINT32_MAX;  // slot; UINT32_MAX: not looked up yet
  uint32_t generation = 0;
};

struct Connection {
  tcp::Tcb tcb;  // four cache lines; line 0 is what a received segment touches first

  // --- session layer: rw; stack: ro -----------------------------------------------------------------------------------------
  void* owner = nullptr;  // the session or upstream stream; null until the session layer sets it

  // --- stack: rw; session layer: ro -----------------------------------------------------------------------------------------
  base::TimerNode timer;             // in the stack's wheel: never later than the one deadline it has in every state
  uint32_t ready_next = kNotQueued;  // connections with events (ConnectionQueue)
  uint32_t dirty_next = kNotQueued;  // connections that may have output
  uint32_t flow_hash = 0;            // hash in the flow table
  uint16_t events = 0;               // pending tcp::Event bits, taken by TcpStack::take_events()
  Role role : 4 = Role::kNone;       // stack sets it; the session layer may read it only
  uint8_t traced_state : 4 = 0;      // tcp::State that the trace knows of
  bool attached : 1 = false;         // the session layer holds it (rule 2)
  bool connected : 1 = false;        // reached ESTABLISHED
  bool half_open : 1 = false;        // counted as half-open (SYN-RECEIVED)
  bool fast_open : 1 = false;        // and as a pending fast open
  bool over : 1 = false;  // left the flow table: nothing comes in any more; freed once let go and its last segment is out
  bool local_port_taken : 1 = false;  // by connect(), to be given back
  bool admitted : 1 = false;          // counted by Admission::accept()
  NextHop next_hop;
  uint16_t port : 4 = 0;         // index of the port whose address is the local one
  uint16_t generation : 12 = 0;  // of its place in the pool: grows when it is given back
  uint16_t counted_on = 0;       // what Admission::ended() wants back

  static constexpr uint32_t kNotQueued = UINT32_MAX;
  static constexpr uint32_t kLastQueued = UINT32_MAX - 1;

  const tcp::FourTuple& tuple() const { return tcp::tuple(tcb); }
  // Tells it from those that used its place before or will after it (table::ConnectionId).
  uint32_t tag() const { return flow_hash ^ generation * 0x9e3779b1u; }
};
static_assert(io::kMaxPorts <= 16 && tcp::State::kTimeWait < tcp::State{16}, "they fit their bits");
static_assert(sizeof(Connection) == 320, "memory per connection: update the sum in README.md and memory_test.cc");

// A FIFO of connections of one pool, linked by index through `Next`: four bytes a connection. There is no taking out of the
// middle; whoever pops looks whether the connection is still of interest.
template <uint32_t Connection::*Next>
class ConnectionQueue {
 public:
  bool empty() const { return head_ == Connection::kLastQueued; }
  // Nothing when it is queued already.
  void push(base::Pool<Connection>& pool, Connection& c) {
    if (c.*Next != Connection::kNotQueued) return;
    c.*Next = Connection::kLastQueued;
    const uint32_t i = pool.index_of(&c);
    if (empty()) head_ = i;
    else pool[tail_].*Next = i;
    tail_ = i;
  }
  // Calls f(Connection&) for each, first to last; f may not push or pop.
  template <class F>
  void for_each(base::Pool<Connection>& pool, F&& f) {
    if (empty()) return;
    for (uint32_t i = head_; i != Connection::kLastQueued; i = pool[i].*Next) f(pool[i]);
  }
  // Null when empty.
  Connection* pop(base::Pool<Connection>& pool) {
    if (empty()) return nullptr;
    Connection& c = pool[head_];
    head_ = std::exchange(c.*Next, Connection::kNotQueued);
    return &c;
  }

 private:
  uint32_t head_ = Connection::kLastQueued, tail_ = 0;
};

}  // namespace millrace::dataplane
