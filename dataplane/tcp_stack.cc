#include "dataplane/tcp_stack.h"

#include <algorithm>

namespace millrace::dataplane {

using stats::DropReason;

const char* to_string(ConnectError e) {
  switch (e) {
    case ConnectError::kNone:
      return "no error";
    case ConnectError::kNoRoute:
      return "no route to the address";
    case ConnectError::kNoLocalPort:
      return "no local port left towards this endpoint";
    case ConnectError::kTooManyConnections:
      return "connection table full";
    case ConnectError::kNoMemory:
      return "packet memory short";
  }
  return "?";
}

TcpStack::TcpStack(const TcpStackConfig& config, std::span<io::PortQueue* const> ports, const io::Steering& steering,
                   io::HandoverMesh* mesh, io::PacketPool pool, io::PacketPool headers, io::PacketPool indirect,
                   const StackCounters& counters, TimeNs now)
    : config_(config),
      queues_(ports.begin(), ports.end()),
      steering_(steering),
      mesh_(mesh),
      pool_(pool),
      counters_(counters),
      ip_(config.ip, ports, io::TxPools{pool, headers, indirect}, counters, now),
      repairs_(config.max_repairs != 0 ? config.max_repairs : std::max(1'024u, config.max_connections / 4)),
      connections_(config.max_connections),
      flows_(config.max_connections),
      time_wait_(config.max_time_wait),
      local_ports_(config.local_port_first, config.local_port_last, config.max_port_maps, config.secret[1] ^ config.worker),
      listener_(config.downstream, config.max_half_open, base::HashKey{config.secret[2], config.secret[3]}),
      isn_(base::HashKey{config.secret[2], config.secret[3]}),
      wheel_(now),
      held_(config.ip.ports.size()),
      reset_limit_(config.max_resets_per_second, now),
      next_id_(config.worker + 1) {
  MILLRACE_ASSERT(config.workers == 1 || mesh != nullptr, "several workers hand frames to each other");
  if (config.admission.any())
    admission_ = std::make_unique<Admission>(config.admission, config.workers, config.max_connections, config.secret[1]);
  add_profile(config.downstream);
  update_pressure();
}

TcpStack::~TcpStack() {
  for (uint32_t i = 0; i < connections_.ever_used(); ++i) {
    if (!connections_.lent(i)) continue;
    wheel_.cancel(connections_[i].timer);
    tcp::release(connections_[i].tcb);
  }
}

const tcp::Profile& TcpStack::add_profile(const tcp::Config& config) { return profiles_.emplace_back(config, &repairs_); }

table::ObjectId TcpStack::listener_of(const Connection& c) const {
  const ListenerSet::Entry* e = listeners_ == nullptr ? nullptr : listeners_->find(c.tuple().local, c.tuple().local_port);
  return e == nullptr ? table::kNoObject : e->id;
}

// --- the life of a connection --------------------------------------------------------------------------------------------------

// A fresh connection in the flow table's future: the caller opens its TCB and inserts it. Null: the pool is empty.
Connection* TcpStack::open(uint32_t hash, uint16_t port) {
  Connection* c = connections_.alloc();
  if (c == nullptr) return nullptr;
  c->flow_hash = hash;
  c->port = port;
  flows_.insert(hash, connections_.index_of(c));
  count(TcpCounter::kActive).set(connections_.in_use());
  return c;
}

// The tuple is free for others from here on.
void TcpStack::leave_table(Connection& c) {
  if (c.over) return;
  c.over = true;
  flows_.erase(c.flow_hash, connections_.index_of(&c));
  wheel_.cancel(c.timer);
  if (c.half_open) {
    c.half_open = false;
    listener_.half_open_ended();
    count(TcpCounter::kSynReceived).set(listener_.half_open());
  }
  if (c.admitted) [[unlikely]] {
    c.admitted = false;
    admission_->ended(c.tuple().remote, c.counted_on);
  }
  if (c.local_port_taken) {
    c.local_port_taken = false;
    const tcp::FourTuple& t = c.tuple();
    local_ports_.release(t.local, t.remote, t.remote_port, t.local_port);
  }
}

void TcpStack::to_time_wait(Connection& c, TimeNs now) {
  TimeWaitTable::Slot* s = time_wait_.insert(c.flow_hash, tcp::make_time_wait(c.tcb, now));
  if (s == nullptr) {  // full: the one that waited longest gives way
    expire_time_wait(*time_wait_.oldest());
    s = time_wait_.insert(c.flow_hash, tcp::make_time_wait(c.tcb, now));
  }
  s->port = c.port;
  s->local_port_taken = c.local_port_taken;
  c.local_port_taken = false;  // the entry has it now
  count(TcpCounter::kTimeWait).set(time_wait_.size());
  leave_table(c);
}

void TcpStack::expire_time_wait(TimeWaitTable::Slot& s) {
  const tcp::FourTuple& t = s.entry.tuple;
  if (s.local_port_taken) local_ports_.release(t.local, t.remote, t.remote_port, t.local_port);
  time_wait_.remove(s);
  count(TcpCounter::kTimeWait).set(time_wait_.size());
}

// The last step: only when nobody holds it and its last segment is out.
void TcpStack::free(Connection& c) {
  MILLRACE_ASSERT(!c.attached && c.over, "free a connection that is over and let go");
  count(TcpCounter::kRetransmits).add(tcp::info(c.tcb).retransmits);
  tcp::release(c.tcb);
  wheel_.cancel(c.timer);
  c.owner = nullptr;
  c.role = Role::kNone;
  c.over = c.connected = false;
  c.events = 0;
  c.next_hop = {};
  connections_.free(&c);
  count(TcpCounter::kActive).set(connections_.in_use());
}

// A handshake is complete: is there still room for it? False: it was reset and is over.
bool TcpStack::admit(Connection& c, TimeNs now) {
  const ListenerSet::Entry* e = listeners_ == nullptr ? nullptr : listeners_->find(c.tuple().local, c.tuple().local_port);
  if (e == nullptr) return true;  // went away meanwhile: the session layer closes it
  const DropReason why = admission_->accept(c.tuple().remote, *e, c.counted_on);
  c.admitted = why == DropReason::kNone;
  if (c.admitted) return true;
  counters_.drop(why);
  counters_.overflowed(e->scope);
  tcp::abort(c.tcb, now);
  leave_table(c);
  touch(c);
  return false;
}

// What TCP reported, whether from a segment or a deadline. Leaves the connection scheduled and on the lists it belongs to.
void TcpStack::on_events(Connection& c, uint32_t events, TimeNs now) {
  if (c.half_open && tcp::state(c.tcb) != tcp::State::kSynReceived) {
    c.half_open = false;
    listener_.half_open_ended();
    count(TcpCounter::kSynReceived).set(listener_.half_open());
  }
  if (events != 0) {
    if (events & tcp::kEventConnected) {
      if (admission_ != nullptr && c.role == Role::kDownstream && !admit(c, now)) [[unlikely]]
        return;
      count(c.role == Role::kUpstream ? TcpCounter::kOpened : TcpCounter::kAccepted).add();
      c.attached = true;
      c.connected = true;
    }
    const bool opening = c.role == Role::kUpstream && !c.connected;
    if (events & tcp::kEventReset) count(opening ? TcpCounter::kConnectFailed : TcpCounter::kResetReceived).add();
    if (events & tcp::kEventTimedOut) count(opening ? TcpCounter::kConnectTimeout : TcpCounter::kTimedOut).add();
    if ((events & (tcp::kEventClosed | tcp::kEventTimeWait)) && !(events & (tcp::kEventReset | tcp::kEventTimedOut)))
      count(TcpCounter::kClosed).add();
    if ((events & tcp::kEventTimeWait) && !(events & tcp::kEventClosed)) to_time_wait(c, now);
    if (events & tcp::kEventClosed) leave_table(c);
    if (c.attached) {
      c.events |= static_cast<uint16_t>(events);
      ready_.push(connections_, c);
    }
  }
  // What is over is freed by flush(), after its last segment; flush() also looks at the deadline.
  if (c.over || tcp::output_pending(c.tcb)) touch(c);
  else arm(c);
}

// The timer is left where it is while the deadline only moves later: when it fires, run_timers() looks again. So a connection at
// work touches the wheel a few times a second, not with each segment.
void TcpStack::arm(Connection& c) {
  if (c.over) return;
  const TimeNs deadline = tcp::next_deadline(c.tcb), armed = c.timer.deadline();
  if (deadline < armed && armed - deadline >= base::TimerWheel::kTick) wheel_.schedule(c.timer, deadline);
}

Connection* TcpStack::pop_ready() {
  while (Connection* c = ready_.pop(connections_))
    if (c->attached && c->events != 0) return c;  // else it was let go meanwhile
  return nullptr;
}

void TcpStack::touch(Connection& c) { dirty_.push(connections_, c); }

void TcpStack::reschedule(Connection& c, uint32_t events) {
  c.events |= static_cast<uint16_t>(events);
  ready_.push(connections_, c);
}

Connection* TcpStack::connect(const base::IpAddress& remote, uint16_t port, const tcp::Profile& profile, TimeNs now, void* owner,
                              ConnectError* why, TimeNs connect_timeout_ns) {
  auto fail = [&](ConnectError e) {
    *why = e;
    return nullptr;
  };
  *why = ConnectError::kNone;
  std::optional<IpLayer::Source> source = ip_.source_for(remote);
  if (!source) return fail(ConnectError::kNoRoute);
  if (pressure_ >= MemoryPressure::kNoNew) {
    counters_.drop(DropReason::kTcpMemory);
    return fail(ConnectError::kNoMemory);
  }
  if (connections_.full()) return fail(ConnectError::kTooManyConnections);
  // A range of ports for each of our addresses on the way there: spent, the next address goes on.
  for (uint32_t nth = 0; source; source = ip_.source_for(remote, ++nth)) {
    Connection* c = connect_from(*source, remote, port, profile, now, owner, connect_timeout_ns);
    if (c == nullptr) continue;
    if (nth != 0) count(TcpCounter::kNextSource).add();
    return c;
  }
  count(TcpCounter::kPortsExhausted).add();
  return fail(ConnectError::kNoLocalPort);
}

// Null: no local port of this source address is free.
Connection* TcpStack::connect_from(const IpLayer::Source& source, const base::IpAddress& remote, uint16_t port,
                                   const tcp::Profile& profile, TimeNs now, void* owner, TimeNs connect_timeout_ns) {
  // The allocator knows the ports it gave; a tuple can also be taken by a peer that connected to us from the endpoint's own
  // address and port.
  for (uint32_t tries = 0; tries < 4; ++tries) {
    const uint16_t local_port =
        local_ports_.allocate(steering_, config_.worker, ip_.device_of(source.port), source.address, remote, port);
    if (local_port == 0) break;
    const tcp::FourTuple tuple{source.address, remote, local_port, port};
    const uint32_t hash = hash_of(tuple.local, local_port, remote, port);
    const bool taken = flows_.find(hash, [&](uint32_t i) { return connections_[i].tuple() == tuple; }) != FlowTable::kNone ||
                       time_wait_.find(hash, tuple) != nullptr;
    if (taken) {
      local_ports_.release(tuple.local, remote, port, local_port);
      continue;
    }
    Connection* c = open(hash, source.port);
    tcp::open_active(c->tcb, tuple, profile, isn_.isn(tuple, now), now, isn_.timestamp_offset(tuple),
                     ip_.mss(source.port, remote.is_v4()), connect_timeout_ns);
    c->local_port_taken = true;
    c->role = Role::kUpstream;
    c->attached = true;
    c->owner = owner;
    touch(*c);
    return c;
  }
  return nullptr;
}

void TcpStack::detach(Connection& c, TimeNs now) {
  MILLRACE_ASSERT(c.attached, "detach a connection that the session layer holds");
  c.attached = false;
  c.role = Role::kNone;
  c.owner = nullptr;
  c.events = 0;
  if (!c.over) {
    tcp::set_orphan(c.tcb, now);
    tcp::close(c.tcb, now);
    if (tcp::state(c.tcb) == tcp::State::kClosed) leave_table(c);
  }
  touch(c);
}

void TcpStack::abort(Connection& c, TimeNs now) {
  MILLRACE_ASSERT(c.attached, "abort a connection that the session layer holds");
  c.attached = false;
  c.role = Role::kNone;
  c.owner = nullptr;
  c.events = 0;
  if (!c.over) {
    tcp::abort(c.tcb, now);
    leave_table(c);
  }
  touch(c);
}

// --- output and time
// -------------------------------------------------------------------------------------------------------------

// What is due of one connection, as far as its port takes it. False: the port is blocked and nothing was sent.
bool TcpStack::output(Connection& c, TimeNs now) {
  const uint16_t port = tx_port(c);
  const bool tso = ip_.capabilities(port).tso;
  const uint32_t mss = tcp::effective_mss(c.tcb);
  const io::PacketQueue& queue = tcp::tx_queue(c.tcb);
  tcp::OutSegment out;
  const auto ecn = [&out] { return out.ecn_capable ? wire::Ecn::kCapable0 : wire::Ecn::kNotCapable; };
  for (uint32_t n = 0; n < kSegmentsPerFlush; ++n) {
    if (ip_.tx_blocked(port)) [[unlikely]]
      return n != 0;
    if (!tcp::poll_output(c.tcb, now, out, tso ? kMaxTsoPayload : mss)) break;
    DropReason dropped = DropReason::kNone;
    if (out.payload_len <= mss || ip_.can_cut(port, queue, out.payload_offset, out.payload_len)) {
      dropped =
          ip_.send_tcp(c.tuple(), c.port, c.next_hop, out.header, &queue, out.payload_offset, out.payload_len, now, mss, ecn());
      count(TcpCounter::kSegmentsOut).add();
    } else {
      // The port cuts, but not this: it lies in too many packets. Cut here; FIN and PSH belong to the last piece.
      wire::TcpRepr header = out.header;
      for (uint32_t done = 0; done < out.payload_len && dropped == DropReason::kNone;) {
        const uint32_t piece = std::min(mss, out.payload_len - done);
        const bool last = done + piece == out.payload_len;
        header.flags = last ? out.header.flags : out.header.flags & static_cast<uint8_t>(~(wire::kTcpFin | wire::kTcpPsh));
        header.seq = out.header.seq + done;
        dropped = ip_.send_tcp(c.tuple(), c.port, c.next_hop, header, &queue, out.payload_offset + done, piece, now, mss, ecn());
        count(TcpCounter::kSegmentsOut).add();
        done += piece;
      }
    }
    if (out.header.flags & wire::kTcpRst) count(TcpCounter::kResetSent).add();
    if (dropped == DropReason::kTxNoMbuf) break;  // TCP repeats it; no use to go on now
  }
  return true;
}

void TcpStack::output_turn(Connection& c, TimeNs now) {
  const bool sent = !tcp::output_pending(c.tcb) || output(c, now);
  if (tcp::output_pending(c.tcb)) {
    if (sent) touch(c);
    else held_[tx_port(c)].push(connections_, c);
  } else if (c.over) {
    if (!c.attached) free(c);
    return;
  }
  arm(c);
}

// Connections with news are proof that their neighbour hears us (RFC 4861 7.3.1).
void TcpStack::report_progress(TimeNs now) {
  dirty_.for_each(connections_, [&](Connection& c) {
    const tcp::Info i = tcp::info(c.tcb);
    ip_.progressed(c.next_hop, connections_.index_of(&c), i.snd_una, i.rcv_nxt, now);
  });
}

void TcpStack::flush(TimeNs now) {
  StageScope stage(*counters_.stages, Stage::kTcpOutput);
  if (ip_.neighbors_in_doubt()) [[unlikely]]
    report_progress(now);
  // One turn for each connection that is on the list now; those that have more to say come back to its end. First those that a
  // blocked port has held back, as far as it goes: they cost an iteration nothing while it stays blocked.
  ConnectionQueue<& Connection::dirty_next> turn = std::exchange(dirty_, {});
  for (uint16_t p = 0; p < held_.size(); ++p) {
    if (held_[p].empty()) [[likely]]
      continue;
    ip_.flush(p, now);
    while (!ip_.tx_blocked(p) && !held_[p].empty()) output_turn(*held_[p].pop(connections_), now);
  }
  while (Connection* c = turn.pop(connections_)) output_turn(*c, now);
  ip_.run_timers(now);  // the solicitations that the segments above want
  ip_.flush(now);
}

uint32_t TcpStack::run_timers(TimeNs now, uint32_t max) {
  uint32_t fired = wheel_.advance(now, max, [&](base::TimerNode& node) {
    Connection& c = base::member_owner<&Connection::timer>(node);
    if (tcp::next_deadline(c.tcb) > now) {
      wheel_.schedule(c.timer, tcp::next_deadline(c.tcb));
      return;
    }
    on_events(c, tcp::on_deadline(c.tcb, now), now);
  });
  for (; fired < max; ++fired) {
    TimeWaitTable::Slot* s = time_wait_.oldest();
    if (s == nullptr || s->entry.expires_at > now) break;
    expire_time_wait(*s);
  }
  ip_.run_timers(now);
  (*counters_.loop)[LoopCounter::kTimersFired].add(fired);
  if (wheel_.backlog()) (*counters_.loop)[LoopCounter::kTimersDeferred].add();
  return fired;
}

TimeNs TcpStack::next_deadline() {
  TimeNs next = std::min(wheel_.next_wakeup(), ip_.next_deadline());
  if (const TimeWaitTable::Slot* s = time_wait_.oldest()) next = std::min(next, s->entry.expires_at);
  return std::min(next, ip_.tx_give_up_at());
}

void TcpStack::update_pressure() {
  count(TcpCounter::kRepairsRefused).set(repairs_.refused());
  const uint64_t free = pool_.available(), all = pool_.capacity();
  pressure_ = free * 100 >= all * 25   ? MemoryPressure::kNone
              : free * 100 >= all * 10 ? MemoryPressure::kNoGrowth
              : free * 100 >= all * 5  ? MemoryPressure::kNoNew
                                       : MemoryPressure::kReserve;
}

}  // namespace millrace::dataplane
