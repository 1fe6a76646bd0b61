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

#include "lib/base/list.h"
#include "lib/base/time.h"
#include "lib/base/timer_wheel.h"
#include "lib/table/layout.h"
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
  uint16_t port = 0;         // index of the port in the configuration
  uint16_t address_sum = 0;  // one's complement sum of both addresses: part of every checksum of the connection
  uint32_t neighbor = UINT32_MAX;  // slot; UINT32_MAX: not looked up yet
  uint32_t generation = 0;
};

struct Connection {
  tcp::Tcb tcb;  // cache lines 0..n; line 0 is what a received segment touches

  // --- session layer: rw; stack: ro -----------------------------------------------------------------------------------------
  void* owner = nullptr;    // the session or upstream stream; null until the session layer sets it
  Role role = Role::kNone;  // stack sets it; the session layer may read it only

  // --- stack: rw; session layer: ro -----------------------------------------------------------------------------------------
  bool attached = false;          // the session layer holds it (rule 2)
  bool connected = false;         // reached ESTABLISHED
  bool half_open = false;         // counted as half-open (SYN-RECEIVED)
  bool over = false;              // left the flow table: nothing comes in any more; freed once let go and its last segment is out
  bool local_port_taken = false;  // by connect(), to be given back
  uint16_t port = 0;              // index of the port whose address is the local one
  uint32_t events = 0;            // pending tcp::Event bits, taken by TcpStack::take_events()
  uint32_t flow_hash = 0;         // hash in the flow table
  table::ObjectId listener = table::kNoObject;  // kDownstream: the listener that accepted it
  uint64_t id = 0;                              // unique over all workers of one data plane run, never 0: for logs
  base::TimeNs opened_at = 0;                   // when the SYN was sent or the connection accepted
  uint64_t bytes_received = 0;                  // payload bytes of segments that came in (retransmissions included)
  uint64_t bytes_sent = 0;                      // payload bytes put on the wire (retransmissions included)
  NextHop next_hop;
  base::TimerNode timer;  // in the stack's wheel: one deadline in every state
  base::ListNode ready;   // has events
  base::ListNode dirty;   // may have output

  const tcp::FourTuple& tuple() const { return tcp::tuple(tcb); }
};

}  // namespace millrace::dataplane
