#include "dataplane/tcp_stack.h"

#include <algorithm>

namespace millrace::dataplane {

using stats::DropReason;
using table::TraceKind;

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

namespace {
IpLayerConfig with_workers(IpLayerConfig ip, const TcpStackConfig& config) {
  ip.workers = config.workers;
  ip.index = config.worker;
  return ip;
}
}  // namespace

TcpStack::TcpStack(const TcpStackConfig& config, std::span<io::PortQueue* const> ports, const io::Steering& steering,
                   io::HandoverMesh* mesh, io::PacketPool pool, io::PacketPool headers, io::PacketPool indirect,
                   const StackCounters& counters, TimeNs now)
    : config_(config),
      queues_(ports.begin(), ports.end()),
      steering_(steering),
      mesh_(mesh),
      pool_(pool),
      counters_(counters),
      ip_(with_workers(config.ip, config), ports, io::TxPools{pool, headers, indirect}, counters, now),
      repairs_(config.max_repairs != 0 ? config.max_repairs : std::max(1'024u, config.max_connections / 4)),
      profiles_(repairs_),
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

void TcpStack::half_open_ended(Connection& c, bool reset) {
  c.half_open = false;
  listener_.half_open_ended();
  if (c.fast_open) listener_.fast_open_ended(reset);
  c.fast_open = false;
  count(TcpCounter::kSynReceived).set(listener_.half_open());
}

// The tuple is free for others from here on.
void TcpStack::leave_table(Connection& c) {
  if (c.over) return;
  c.over = true;
  if (!c.connected) count(TcpCounter::kOpenFailed).add();
  flows_.erase(c.flow_hash, connections_.index_of(&c));
  wheel_.cancel(c.timer);
  if (c.half_open) half_open_ended(c, false);
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
  count(TcpCounter::kTimeWaitEntered).add();
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
  profiles_.left(*tcp::profile(c.tcb));
  tcp::release(c.tcb);
  wheel_.cancel(c.timer);
  c.owner = nullptr;
  c.role = Role::kNone;
  c.over = c.connected = false;
  c.events = 0;
  c.next_hop = {};
  c.traced_state = 0;
  c.generation = (c.generation + 1) & 0xfff;
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
  trace_state(c, now);
  if (c.half_open && tcp::state(c.tcb) != tcp::State::kSynReceived) half_open_ended(c, (events & tcp::kEventReset) != 0);
  if (events != 0) {
    if (events & tcp::kEventConnected) {
      if (admission_ != nullptr && c.role == Role::kDownstream && !admit(c, now)) [[unlikely]]
        return;
      count(c.role == Role::kUpstream ? TcpCounter::kOpened : TcpCounter::kAccepted).add();
      c.attached = true;
      c.connected = true;
    }
    const bool opening = c.role == Role::kUpstream && !c.connected;
    if (events & tcp::kEventReset) {
      count(opening ? TcpCounter::kConnectFailed : TcpCounter::kResetReceived).add();
      trace(c, TraceKind::kResetReceived, now);
    }
    if (events & tcp::kEventTimedOut) {
      count(opening ? TcpCounter::kConnectTimeout : TcpCounter::kTimedOut).add();
      trace(c, TraceKind::kTimedOut, now);
    }
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
    profiles_.joined(profile);
    c->local_port_taken = true;
    c->role = Role::kUpstream;
    c->attached = true;
    c->owner = owner;
    count(TcpCounter::kActiveOpens).add();
    trace_opened(*c, 3, tcp::info(c->tcb).snd_una, 0, now);
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
    count(TcpCounter::kAborted).add();
    trace(c, TraceKind::kResetSent, now, 0, 0, 0, static_cast<uint8_t>(tcp::state(c.tcb)),
          static_cast<uint8_t>(table::ResetCause::kSession));
    tcp::abort(c.tcb, now);
    trace_state(c, now);
    leave_table(c);
  }
  touch(c);
}

void TcpStack::kill(Connection& c, TimeNs now) {
  if (c.over) return;
  count(TcpCounter::kKilled).add();
  trace(c, TraceKind::kResetSent, now, 0, 0, 0, static_cast<uint8_t>(tcp::state(c.tcb)),
        static_cast<uint8_t>(table::ResetCause::kOperator));
  tcp::abort(c.tcb, now);
  trace_state(c, now);
  leave_table(c);
  if (c.attached) reschedule(c, tcp::kEventReset | tcp::kEventClosed);
  touch(c);
}

// --- the trace

void TcpStack::trace(const Connection& c, TraceKind kind, TimeNs now, uint32_t a, uint32_t b, uint32_t d, uint8_t from,
                     uint8_t to) {
  table::TraceEntry e;
  e.time_ns = now;
  e.slot = connections_.index_of_own(&c);
  e.tag = c.tag();
  e.kind = kind;
  e.from = from;
  e.to = to;
  e.a = a;
  e.b = b;
  e.c = tcp::cwnd(c.tcb);
  e.d = d;
  trace_.add(e);
}

void TcpStack::trace_opened(Connection& c, uint8_t how, uint32_t iss, uint32_t irs, TimeNs now) {
  trace(c, TraceKind::kOpened, now, iss, irs, 0, how, static_cast<uint8_t>(tcp::state(c.tcb)));
  note_state(c, now);
}

void TcpStack::note_state(Connection& c, TimeNs now) {
  using tcp::State;
  const auto counted = [](uint8_t s) {
    return s == static_cast<uint8_t>(State::kEstablished) || s == static_cast<uint8_t>(State::kCloseWait);
  };
  const uint8_t from = c.traced_state, to = static_cast<uint8_t>(tcp::state(c.tcb));
  c.traced_state = to & 15;
  trace(c, TraceKind::kState, now, tcp::stream_sent(c.tcb), tcp::stream_received(c.tcb), 0, from, to);
  if (counted(to) && !counted(from)) count(TcpCounter::kEstablished).add();
  if (!counted(to) && counted(from)) count(TcpCounter::kEstablished).sub();
  if (counted(from) && to == static_cast<uint8_t>(State::kClosed)) count(TcpCounter::kEstablishedReset).add();
}

void TcpStack::note_retransmits(Connection& c, uint32_t n, TimeNs now) {
  const tcp::Info i = tcp::info(c.tcb);
  count(TcpCounter::kRetransmits).add(n);
  if (i.state == tcp::State::kSynSent || i.state == tcp::State::kSynReceived) count(TcpCounter::kSynRetransmits).add(n);
  else if (i.recovery == static_cast<uint8_t>(tcp::Recovery::kFast)) count(TcpCounter::kFastRetransmits).add(n);
  else count(TcpCounter::kTimeoutRetransmits).add(n);
  trace(c, TraceKind::kRetransmit, now, i.snd_una, n, i.bytes_in_flight);
}

void TcpStack::note(Connection& c, const tcp::Glance& before, TimeNs now) {
  using tcp::Recovery;
  const tcp::Glance after = tcp::glance(c.tcb);
  if (after == before) return;
  tcp::Glance still = after;
  still.state = before.state;
  if (still == before) return;  // the state alone: trace_state() writes that
  const tcp::Info i = tcp::info(c.tcb);
  if (after.out_of_order > before.out_of_order) count(TcpCounter::kOutOfOrder).add();
  if (after.timeouts > before.timeouts) {
    count(TcpCounter::kRtoExpired).add();
    trace(c, TraceKind::kTimeout, now, i.snd_una, i.rto_ms * 1000, after.timeouts);
  }
  if (after.probes > before.probes) {
    count(TcpCounter::kProbes).add();
    trace(c, TraceKind::kProbe, now, i.snd_una, i.rto_ms * 1000, after.probes);
  }
  if (after.keepalives > before.keepalives) {
    count(TcpCounter::kKeepalives).add();
    trace(c, TraceKind::kKeepalive, now, i.snd_una, 0, after.keepalives);
  }
  if (after.recovery != before.recovery) {
    const bool fast = after.recovery == static_cast<uint8_t>(Recovery::kFast);
    if (fast) count(TcpCounter::kFastRecoveries).add();
    if (fast) trace(c, TraceKind::kFastRecovery, now, i.snd_una, i.ssthresh, i.bytes_in_flight);
    else if (after.recovery == static_cast<uint8_t>(Recovery::kOpen)) trace(c, TraceKind::kRecovered, now, i.snd_una, i.ssthresh);
  }
  if (after.window_shut != before.window_shut && after.state >= tcp::State::kEstablished &&
      before.state >= tcp::State::kEstablished) {
    if (after.window_shut) count(TcpCounter::kZeroWindowsReceived).add();
    trace(c, after.window_shut ? TraceKind::kZeroWindow : TraceKind::kWindowOpened, now, i.snd_una, i.snd_wnd, i.snd_una_bytes);
  }
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
  const uint32_t retransmits = tcp::retransmits(c.tcb);
  const auto ecn = [&out] { return out.ecn_capable ? wire::Ecn::kCapable0 : wire::Ecn::kNotCapable; };
  for (uint32_t n = 0; n < kSegmentsPerFlush; ++n) {
    if (ip_.tx_blocked(port)) [[unlikely]] {
      if (n == 0) return false;
      break;
    }
    if (!tcp::poll_output(c.tcb, now, out, tso ? kMaxTsoPayload : mss)) break;
    DropReason dropped = DropReason::kNone;
    const uint32_t cut = std::max<uint32_t>(mss, out.segment_size);
    if (out.payload_len <= cut || ip_.can_cut(port, queue, out.payload_offset, out.payload_len)) {
      dropped =
          ip_.send_tcp(c.tuple(), c.port, c.next_hop, out.header, &queue, out.payload_offset, out.payload_len, now, cut, ecn());
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
    if (out.header.window == 0 || (out.header.flags & wire::kTcpRst) != 0) [[unlikely]] {
      if (out.header.flags & wire::kTcpRst) {
        count(TcpCounter::kResetSent).add();
        if (tcp::state(c.tcb) != tcp::State::kClosed)
          trace(c, TraceKind::kResetSent, now, out.header.seq, 0, 0, static_cast<uint8_t>(tcp::state(c.tcb)),
                static_cast<uint8_t>(table::ResetCause::kBadSegment));
      } else {
        count(TcpCounter::kZeroWindowsSent).add();
        trace(c, TraceKind::kOurWindowShut, now, out.header.ack, 0, tcp::info(c.tcb).rx_bytes);
      }
    }
    if (dropped == DropReason::kTxNoMbuf) break;  // TCP repeats it; no use to go on now
  }
  if (const uint32_t n = tcp::retransmits(c.tcb) - retransmits; n != 0) [[unlikely]]
    note_retransmits(c, n, now);
  return true;
}

void TcpStack::output_turn(Connection& c, TimeNs now) {
  trace_state(c, now);
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
    const tcp::Glance before = tcp::glance(c.tcb);
    const uint32_t events = tcp::on_deadline(c.tcb, now);
    note(c, before, now);
    on_events(c, events, now);
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

// Copied now and then: lib/tcp counts for itself.
void TcpStack::count_recoveries() {
  const tcp::RecoveryCounts& c = repairs_.counts();
  count(TcpCounter::kRenoRecoveries).set(c.reno_recoveries);
  count(TcpCounter::kLossProbes).set(c.loss_probes);
  count(TcpCounter::kProbesRepaired).set(c.probes_repaired);
  count(TcpCounter::kDuplicatesBelow).set(c.duplicates_below);
  count(TcpCounter::kDuplicatesAbove).set(c.duplicates_above);
  count(TcpCounter::kReportedBelow).set(c.reported_below);
  count(TcpCounter::kReportedAbove).set(c.reported_above);
  count(TcpCounter::kSpuriousTimeouts).set(c.spurious_timeouts);
  count(TcpCounter::kUndoneByDuplicates).set(c.undone_by_duplicates);
  count(TcpCounter::kUndoneByEchoes).set(c.undone_by_echoes);
  count(TcpCounter::kUndoneTimeouts).set(c.undone_timeouts);
  count(TcpCounter::kReorderings).set(c.reorderings);
  count(TcpCounter::kLostAgain).set(c.lost_again);
  count(TcpCounter::kReneged).set(c.reneged);
  count(TcpCounter::kLargerSegments).set(c.larger_segments);
  count(TcpCounter::kLargerLost).set(c.larger_lost);
  count(TcpCounter::kDelayExits).set(c.delay_exits);
}

void TcpStack::update_pressure() {
  count(TcpCounter::kRepairsRefused).set(repairs_.refused());
  count(TcpCounter::kProfilesRefused).set(profiles_.refused());
  count_recoveries();
  const uint64_t free = pool_.available(), all = pool_.capacity();
  pressure_ = free * 100 >= all * 25   ? MemoryPressure::kNone
              : free * 100 >= all * 10 ? MemoryPressure::kNoGrowth
              : free * 100 >= all * 5  ? MemoryPressure::kNoNew
                                       : MemoryPressure::kReserve;
}

}  // namespace millrace::dataplane
