#include "tests/sim/stack_simulation.h"

#include <algorithm>
#include <cstdio>

#include "lib/wire/icmp.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"

namespace millrace::sim {
namespace {

using dataplane::ConnectError;
using dataplane::Connection;
using dataplane::TcpStack;

constexpr TimeNs kStart = 1000 * base::kSecond;
constexpr uint64_t kMostSteps = 2'000'000;
constexpr size_t kTraceLength = 200;
constexpr size_t kRing = 64;         // frames that wait for a paused host
constexpr uint32_t kFewPackets = 3;  // left to a host whose pool is empty
constexpr uint16_t kServerPort = 80, kFirstPort = 50'000, kPorts = 6;
constexpr TimeNs kGreatStep = base::kSecond, kTryAgain = 50 * base::kMillisecond, kAmpleTimeWait = 60 * base::kSecond;
constexpr size_t kEthernet = 14, kIpv4 = 20, kIpv6 = 40;

io::MacAddress mac_of(int side) { return {2, 0, 0, 0, 0, static_cast<uint8_t>(side + 1)}; }
base::IpAddress address_of(int side, bool v6) {
  if (!v6) return base::IpAddress::v4(0x0a010001u + static_cast<uint32_t>(side));
  base::IpAddress a = *base::IpAddress::parse("fd00:1::");
  a.bytes[15] = static_cast<uint8_t>(side + 1);
  return a;
}

uint16_t ether_type(const std::vector<uint8_t>& f) { return static_cast<uint16_t>(f[12] << 8 | f[13]); }
// Where the TCP header begins; 0: it is no TCP segment.
size_t tcp_at(const std::vector<uint8_t>& f) {
  if (ether_type(f) == 0x0800 && f.size() >= kEthernet + kIpv4 + 20 && f[kEthernet + 9] == 6)
    return kEthernet + (f[kEthernet] & 15u) * 4;
  if (ether_type(f) == 0x86dd && f.size() >= kEthernet + kIpv6 + 20 && f[kEthernet + 6] == 6) return kEthernet + kIpv6;
  return 0;
}

// A word of a frame changes, and with it the checksum at `sum` (RFC 1624).
void change_word(std::vector<uint8_t>& f, size_t at, uint16_t value, size_t sum) {
  const auto word = [&](size_t i) { return static_cast<uint32_t>(f[i] << 8 | f[i + 1]); };
  uint32_t s = (~word(sum) & 0xffff) + (~word(at) & 0xffff) + value;
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  const uint16_t updated = static_cast<uint16_t>(~s);
  f[at] = static_cast<uint8_t>(value >> 8), f[at + 1] = static_cast<uint8_t>(value);
  f[sum] = static_cast<uint8_t>(updated >> 8), f[sum + 1] = static_cast<uint8_t>(updated);
}

// Congestion experienced, where the packet says that it may be told (RFC 3168 5). False: it does not.
bool mark(std::vector<uint8_t>& f) {
  if (ether_type(f) == 0x0800) {
    if ((f[kEthernet + 1] & 3) == 0) return false;
    change_word(f, kEthernet, static_cast<uint16_t>(f[kEthernet] << 8 | f[kEthernet + 1] | 3), kEthernet + 10);
    return true;
  }
  if (ether_type(f) != 0x86dd || (f[kEthernet + 1] & 0x30) == 0) return false;
  f[kEthernet + 1] |= 0x30;
  return true;
}

}  // namespace

StackSimulation::Host::Host(int side, HostPools& pools) : side(side), pools(pools), port(mac_of(side)) {
  const dataplane::ListenerSet::Entry all[] = {{base::IpAddress::v4(0), kServerPort, 1, false},
                                               {base::IpAddress{}, kServerPort, 1, false}};
  listeners = dataplane::ListenerSet(all);
}

StackSimulation::StackSimulation(const Scenario& scenario, const Pools& pools)
    : scenario_(scenario), random_(scenario.seed), now_(kStart) {
  for (int i = 0; i < 2; ++i) {
    hosts_[i] = std::make_unique<Host>(i, *pools[static_cast<size_t>(i)]);
    hosts_[i]->port.change().tx_multi_segment = scenario.chain;
    boot(*hosts_[i]);
  }
  for (size_t i = 0; i < scenario_.connections.size(); ++i) {
    const ConnectionPlan& c = scenario_.connections[i];
    for (int side = 0; side < 2; ++side) {
      Flow f;
      f.connection = i;
      f.side = side;
      f.plan = side == 0 ? &c.client : &c.server;
      if (side == 0 && c.used && c.after == ConnectionPlan::kNone) f.start_at = kStart + c.start;
      flows_.push_back(f);
    }
  }
  for (size_t i = 0; i < scenario_.faults.size(); ++i) faults_.push_back(i);
  std::stable_sort(faults_.begin(), faults_.end(),
                   [&](size_t a, size_t b) { return scenario_.faults[a].at > scenario_.faults[b].at; });
}

StackSimulation::~StackSimulation() {
  for (auto& h : hosts_) {
    h->stack.reset();
    h->port.clear();
    for (auto* p : {&h->pools.payload, &h->pools.headers}) p->set_limit(p->capacity());
  }
}

void StackSimulation::fail(const Flow* f, const std::string& what) {
  if (!failure_.empty()) return;
  char head[128];
  std::snprintf(head, sizeof head, "at %.6f s", static_cast<double>(now_ - kStart) * 1e-9);
  failure_ = head;
  if (f != nullptr) {
    failure_ += ", connection " + std::to_string(f->connection) + (f->side == 0 ? " client" : " server");
    if (f->c != nullptr) failure_ += std::string(" in ") + tcp::to_string(tcp::state(f->c->tcb));
  }
  failure_ += ": " + what;
}

// A fresh host, without memory of what was before.
void StackSimulation::boot(Host& h) {
  h.stack.reset();
  h.port.clear();
  h.ring.clear();
  dataplane::TcpStackConfig c;
  c.max_connections = 32;
  c.max_time_wait = 32;
  c.max_half_open = scenario_.backlog;
  c.max_repairs = std::max(scenario_.repairs, 1u);
  c.local_port_first = kFirstPort;
  c.local_port_last = kFirstPort + kPorts - 1;
  c.max_port_maps = 16;
  for (uint32_t i = 0; i < 4; ++i) c.secret[i] = 100u * static_cast<uint32_t>(h.side) + 1'000u * h.life + i;
  ++h.life;
  dataplane::InterfaceConfig i;
  i.addresses = {{address_of(h.side, false), uint8_t{24}}, {address_of(h.side, true), uint8_t{64}}};
  i.dad_transmits = static_cast<uint8_t>(scenario_.seed & 1);
  c.ip.ports = {i};
  c.ip.max_neighbors = 16;
  c.downstream = scenario_.connections.at(0).server_config;
  io::PortQueue* q[] = {&h.port};
  h.stack.emplace(c, q, h.steering, nullptr, h.pools.payload.pool(), h.pools.headers.pool(),
                  scenario_.chain ? h.pools.indirect.pool() : io::PacketPool(), h.counters.view(), clock(h));
  h.stack->set_listeners(&h.listeners);
}

// --- what befalls hosts

void StackSimulation::begin_fault(const HostFault& f) {
  ++coverage_.host_faults[static_cast<size_t>(f.kind)];
  Host& h = *hosts_[f.side];
  const auto forgive_living = [&] {
    for (Flow& flow : flows_)
      if (flow.outcome.opened && !flow.done) forgive(flow.connection);
  };
  switch (f.kind) {
    case HostFault::Kind::kClockStep:
      h.clock_ahead += f.lasts;
      if (f.lasts > kGreatStep) forgive_living();
      return;
    case HostFault::Kind::kDeath:
      forgive_living();
      for (Flow& flow : flows_) {
        if (flow.side != f.side || flow.c == nullptr) continue;
        flow.c = nullptr;
        flow.outcome.reset = true;
        over(flow);
      }
      boot(h);
      h.dead = true;
      [[fallthrough]];
    case HostFault::Kind::kPause:
      h.asleep_until = std::max(h.asleep_until, now_ + f.lasts);
      break;
    case HostFault::Kind::kNoPackets: {
      auto& pool = f.lasts % 2 == 0 ? h.pools.payload : h.pools.headers;
      pool.set_limit(std::min(pool.in_use() + kFewPackets, pool.capacity()));
      break;
    }
    case HostFault::Kind::kNoRepairs:
      return;  // the stack keeps them to itself; scenarios with one or two do the same
  }
  fault_ends_.emplace(now_ + f.lasts, static_cast<size_t>(&f - scenario_.faults.data()));
}

void StackSimulation::end_faults() {
  while (!fault_ends_.empty() && fault_ends_.begin()->first <= now_) {
    const HostFault& f = scenario_.faults[fault_ends_.begin()->second];
    fault_ends_.erase(fault_ends_.begin());
    Host& h = *hosts_[f.side];
    if (f.kind == HostFault::Kind::kNoPackets) {
      for (auto* p : {&h.pools.payload, &h.pools.headers}) p->set_limit(p->capacity());
    } else if (!asleep(h)) {
      h.dead = false;
      for (const auto& frame : std::exchange(h.ring, {})) deliver(h, frame);
    }
  }
}

// --- applications

void StackSimulation::open(Flow& f) {
  Host& h = *hosts_[0];
  const ConnectionPlan& c = scenario_.connections[f.connection];
  ConnectError why = ConnectError::kNone;
  const tcp::Profile& profile = h.stack->add_profile(c.client_config);
  f.c = h.stack->connect(address_of(1, c.v6), kServerPort, profile, clock(h), &f, &why);
  if (f.c == nullptr) {  // no port, no memory, an address that is not ours yet: later
    f.start_at = now_ + kTryAgain;
    return;
  }
  f.start_at = base::kNever;
  f.outcome.opened = true;
  f.client_port = f.c->tuple().local_port;
  f.iss = tcp::stream_sent(f.c->tcb);  // the SYN has not left
  // The server's side of the same tuple may not be over: only then is the end open. As in simulation.h: in TIME-WAIT only
  // timestamps tell in every case that the SYN is a new one (RFC 6191), and those of a client that was started again do not.
  const bool told_apart =
      hosts_[0]->life == 1 && c.client_config.timestamps && scenario_.connections.at(0).server_config.timestamps;
  const auto& server = *hosts_[1]->stack;
  const auto owned = std::count_if(flows_.begin(), flows_.end(), [](const Flow& x) { return x.side == 1 && x.c != nullptr; });
  const bool orphans = server.active_connections() > static_cast<size_t>(owned);
  for (const Flow& old : flows_) {
    if (old.side != 1 || old.client_port != f.client_port) continue;
    if (old.c != nullptr || (old.done && orphans)) {
      forgive(f.connection);
      ++coverage_.reopened_over_old;
    } else if (old.done && hosts_[1]->stack->time_wait_entries() > 0) {
      ++coverage_.reopened_in_time_wait;
      if (!told_apart || !scenario_.connections[old.connection].client_config.timestamps) forgive(f.connection);
    }
  }
}

// Whose connection the client has opened from there: the tuple may have been used again while the handshake was on its way, so
// the first sequence number tells.
StackSimulation::Flow* StackSimulation::accept(Host& h, Connection& c) {
  Flow* found = nullptr;
  const uint32_t irs = tcp::stream_received(c.tcb) - static_cast<uint32_t>(tcp::rx_queue(c.tcb).bytes()) - 1;
  if (h.side == 1)
    for (Flow& f : flows_)
      if (f.side == 1 && f.c == nullptr && !f.outcome.opened && peer_of(f).c != nullptr &&
          peer_of(f).client_port == c.tuple().remote_port && peer_of(f).iss == irs &&
          scenario_.connections[f.connection].v6 == !c.tuple().remote.is_v4())
        found = &f;
  if (found == nullptr) return nullptr;
  found->c = &c;
  found->client_port = c.tuple().remote_port;
  found->outcome.opened = true;
  c.owner = found;
  return found;
}

// The session layer's part in it has ended.
void StackSimulation::over(Flow& f) {
  f.c = nullptr;
  f.done = f.outcome.closed = true;
  if (f.side == 1) return;
  for (size_t i = 0; i < scenario_.connections.size(); ++i)
    if (scenario_.connections[i].used && scenario_.connections[i].after == f.connection)
      flow(i, 0).start_at = now_ + scenario_.connections[i].start;
}

void StackSimulation::read(Host& h, Flow& f, bool all) {
  auto& rx = tcp::rx_queue(f.c->tcb);
  uint64_t budget = all ? UINT64_MAX : f.plan->read_size;
  const Flow& peer = peer_of(f);
  const uint64_t from = stream_of(scenario_, peer.connection, peer.side);
  bool took = false;
  while (!rx.empty() && budget > 0) {
    const auto bytes = rx.front();
    const size_t n = static_cast<size_t>(std::min<uint64_t>(budget, bytes.size()));
    for (size_t i = 0; i < n; ++i)
      if (bytes[i] != pattern(from, f.outcome.received + i))
        return fail(&f, "byte " + std::to_string(f.outcome.received + i) + " is wrong");
    f.outcome.received += n;
    budget -= n;
    rx.consume(n);
    took = true;
  }
  if (!took) return;
  hash_.add(f.outcome.received);
  tcp::window_update(f.c->tcb, clock(h), h.stack->memory_pressure() == dataplane::MemoryPressure::kNone);
  h.stack->touch(*f.c);
  if (f.outcome.received > peer.outcome.sent && !peer.forgiven) fail(&f, "more received than the peer sent");
}

void StackSimulation::write(Host& h, Flow& f) {
  while (f.outcome.sent < f.plan->send_bytes) {
    const uint32_t space = tcp::send_space(f.c->tcb);
    const size_t n = static_cast<size_t>(std::min<uint64_t>({space, f.plan->write_size, f.plan->send_bytes - f.outcome.sent}));
    if (n == 0) return;
    std::vector<uint8_t> bytes(n);
    const uint64_t stream = stream_of(scenario_, f.connection, f.side);
    for (size_t i = 0; i < n; ++i) bytes[i] = pattern(stream, f.outcome.sent + i);
    const size_t taken = tcp::send_copy(f.c->tcb, bytes, h.stack->pool());
    f.outcome.sent += taken;
    h.stack->touch(*f.c);
    if (f.plan->write_interval > 0) f.next_write = now_ + f.plan->write_interval;
    else if (taken < n) f.next_write = now_ + kTryAgain;  // the pool is empty
    if (taken < n || f.plan->write_interval > 0) return;
  }
}

void StackSimulation::react(Host& h, Flow& f, uint32_t events) {
  Outcome& o = f.outcome;
  if (events & tcp::kEventConnected) o.connected = true;
  if (events & tcp::kEventPeerFin) o.peer_fin = true;
  if (events & (tcp::kEventReset | tcp::kEventTimedOut)) {
    o.reset |= (events & tcp::kEventReset) != 0;
    o.timed_out |= (events & tcp::kEventTimedOut) != 0;
    read(h, f, true);
    h.stack->detach(*f.c, clock(h));
    return over(f);
  }
  application(h, f);
}

void StackSimulation::application(Host& h, Flow& f) {
  const TimeNs t = now_ - kStart;
  if (t >= f.plan->abort_at && !f.outcome.aborted) {
    f.outcome.aborted = true;
    h.stack->abort(*f.c, clock(h));
    return over(f);
  }
  if (now_ >= f.next_read && !f.plan->stalled.holds(t)) {
    read(h, f, false);
    if (f.plan->read_interval > 0) f.next_read = now_ + f.plan->read_interval;
  }
  if (!f.outcome.connected) return;
  if (now_ >= f.next_write) write(h, f);
  if (!f.close_called && f.outcome.sent == f.plan->send_bytes && (f.plan->close_when_sent || f.outcome.peer_fin)) {
    tcp::close(f.c->tcb, clock(h));
    h.stack->touch(*f.c);
    f.close_called = true;
  }
  if (f.close_called && f.outcome.peer_fin && tcp::rx_queue(f.c->tcb).empty()) {
    h.stack->detach(*f.c, clock(h));
    over(f);
  }
}

// One turn of a worker's loop.
void StackSimulation::work(Host& h) {
  while (h.stack->receive(clock(h)) > 0) {
  }
  h.stack->run_timers(clock(h), 64);
  if (h.side == 0)
    for (Flow& f : flows_)
      if (f.start_at <= now_) open(f);
  while (Connection* c = h.stack->pop_ready()) {
    const uint32_t events = TcpStack::take_events(*c);
    Flow* f = c->owner != nullptr ? static_cast<Flow*>(c->owner) : accept(h, *c);
    if (f == nullptr) {  // nobody of ours: a repeated segment of old times has opened it
      h.stack->abort(*c, clock(h));
      continue;
    }
    react(h, *f, events);
  }
  for (Flow& f : flows_)
    if (f.side == h.side && f.c != nullptr && next_time(f) <= now_) application(h, f);
  h.stack->flush(clock(h));
  h.stack->for_each_connection([&](const Connection& c) {
    if (c.over || tcp::state(c.tcb) == tcp::State::kClosed) return;
    if (tcp::next_deadline(c.tcb) == base::kNever) fail(static_cast<const Flow*>(c.owner), "no deadline");
    if (tcp::output_pending(c.tcb) && c.dirty_next == Connection::kNotQueued)
      fail(static_cast<const Flow*>(c.owner), "output is due and nobody knows");
  });
}

// --- the network

void StackSimulation::transmit(Host& from) {
  const Link& l = scenario_.link[from.side];
  while (from.port.sent() > 0) {
    std::vector<uint8_t> f = from.port.pop_sent_bytes();
    const TimeNs t = now_ - kStart;
    ++coverage_.packets;
    const Passage way = path_[from.side].pass(l, t, static_cast<uint32_t>(f.size() - kEthernet), t >= scenario_.heal_at, random_);
    hash_.add(now_ ^ static_cast<uint64_t>(from.side) << 63);
    hash_.add(f.data(), f.size());
    hash_.add(way.copies + way.corrupt * 4u + way.squeeze * 8u);
    coverage_.count(way);
    trace_.push_back({now_,
                      from.side,
                      way.fate,
                      {f.begin(), f.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(f.size(), 94))},
                      f.size()});
    if (trace_.size() > kTraceLength) trace_.pop_front();
    if (way.next_mtu != 0) too_big(from, f, way.next_mtu);
    if (way.copies == 0) continue;
    const size_t tcp = tcp_at(f);
    if (way.crowded) coverage_.marked += mark(f);
    if (way.squeeze && tcp != 0 && (f[tcp + 13] & wire::kTcpSyn) == 0) {
      const uint16_t window = static_cast<uint16_t>(f[tcp + 14] << 8 | f[tcp + 15]);
      if (window > l.squeeze_window) change_word(f, tcp + 14, l.squeeze_window, tcp + 16);
    }
    for (uint32_t i = 0; i < way.copies; ++i) {
      Flying copy{f, 1 - from.side};
      if (way.corrupt) damage(copy.bytes);
      if (!copy.bytes.empty()) wire_.emplace(kStart + way.at[i], std::move(copy));
    }
  }
}

// One byte behind the Ethernet header changes; what has no checksum of its own is left to the link's, which drops the frame.
void StackSimulation::damage(std::vector<uint8_t>& f) {
  if (ether_type(f) != 0x0800 && ether_type(f) != 0x86dd) return f.clear();
  f[kEthernet + random_.below(f.size() - kEthernet)] ^= static_cast<uint8_t>(1 + random_.below(255));
}

// The router on the way has dropped it and says so (RFC 1191, RFC 8201).
void StackSimulation::too_big(Host& sender, const std::vector<uint8_t>& f, uint16_t mtu) {
  const bool v4 = ether_type(f) == 0x0800;
  const base::IpAddress source = address_of(1 - sender.side, !v4), destination = address_of(sender.side, !v4);
  const wire::IcmpErrorRepr error{.type = static_cast<uint8_t>(v4 ? 3 : 2),
                                  .code = static_cast<uint8_t>(v4 ? 4 : 0),
                                  .parameter = mtu,
                                  .packet = base::ByteSpan(f).subspan(kEthernet)};
  const uint32_t length = v4 ? error.length_v4() : error.length_v6();
  const size_t ip = v4 ? kIpv4 : kIpv6;
  std::vector<uint8_t> out(kEthernet + ip + length);
  const io::MacAddress to = mac_of(sender.side), from = mac_of(1 - sender.side);
  std::copy(to.begin(), to.end(), out.begin());
  std::copy(from.begin(), from.end(), out.begin() + 6);
  out[12] = f[12], out[13] = f[13];
  if (v4) {
    wire::Ipv4Repr h;
    h.src = 0x0a010001u + static_cast<uint32_t>(1 - sender.side);
    h.dst = 0x0a010001u + static_cast<uint32_t>(sender.side);
    h.protocol = 1;
    h.payload_length = static_cast<uint16_t>(length);
    h.emit(out.data() + kEthernet);
    error.emit_v4(out.data() + kEthernet + ip);
  } else {
    wire::Ipv6Repr h;
    h.src = source, h.dst = destination;
    h.next_header = 58;
    h.payload_length = static_cast<uint16_t>(length);
    h.emit(out.data() + kEthernet);
    error.emit_v6(out.data() + kEthernet + ip, source, destination);
  }
  ++coverage_.path_mtu;
  wire_.emplace(now_ + scenario_.link[sender.side].delay, Flying{std::move(out), sender.side});
}

void StackSimulation::deliver(Host& to, const std::vector<uint8_t>& frame) {
  if (asleep(to)) {
    if (!to.dead && to.ring.size() < kRing) to.ring.push_back(frame);
    return;
  }
  io::PacketPtr p = to.pools.payload.make(base::ByteSpan(frame));
  if (!p) {
    ++coverage_.no_packet;
    return;
  }
  to.port.deliver(std::move(p));
}

// --- the run

TimeNs StackSimulation::next_time(const Flow& f) const {
  if (f.c == nullptr) return f.start_at;
  TimeNs t = base::kNever;
  if (!f.c->tcb.rx.empty()) {
    if (f.plan->stalled.holds(now_ - kStart)) t = kStart + f.plan->stalled.until;
    else t = f.next_read;
  }
  if (f.outcome.connected && f.outcome.sent < f.plan->send_bytes && f.next_write > 0 && tcp::send_space(f.c->tcb) > 0)
    t = std::min(t, f.next_write);
  if (f.plan->abort_at != base::kNever && !f.outcome.aborted) t = std::min(t, kStart + f.plan->abort_at);
  return t;
}

TimeNs StackSimulation::next_time(Host& h) {
  if (asleep(h)) return h.asleep_until;
  const TimeNs deadline = h.stack->next_deadline();
  TimeNs t = deadline == base::kNever ? deadline : deadline - std::min(deadline, h.clock_ahead);
  for (const Flow& f : flows_)
    if (f.side == h.side) t = std::min(t, next_time(f));
  return t;
}

// Nothing is under way and nothing is planned.
bool StackSimulation::quiet() {
  if (!wire_.empty() || !faults_.empty() || !fault_ends_.empty()) return false;
  for (const Flow& f : flows_)
    if (f.c != nullptr || f.start_at != base::kNever) return false;
  for (auto& h : hosts_)
    if (h->stack->active_connections() != 0 || h->stack->time_wait_entries() != 0) return false;
  return true;
}

std::string StackSimulation::run() {
  const TimeNs end = kStart + scenario_.end_at;
  for (uint64_t steps = 0; failure_.empty() && !quiet(); ++steps) {
    TimeNs next = wire_.empty() ? base::kNever : wire_.begin()->first;
    if (!faults_.empty()) next = std::min(next, kStart + scenario_.faults[faults_.back()].at);
    if (!fault_ends_.empty()) next = std::min(next, fault_ends_.begin()->first);
    for (auto& h : hosts_) next = std::min(next, next_time(*h));
    if (next == base::kNever || next > end) break;
    if (steps > kMostSteps) {
      fail(nullptr, "too many steps");
      break;
    }
    now_ = std::max(now_ + base::kMicrosecond, next);
    end_faults();
    while (!faults_.empty() && kStart + scenario_.faults[faults_.back()].at <= now_) {
      const size_t f = faults_.back();
      faults_.pop_back();
      begin_fault(scenario_.faults[f]);
    }
    while (!wire_.empty() && wire_.begin()->first <= now_) {
      const Flying f = std::move(wire_.extract(wire_.begin()).mapped());
      deliver(*hosts_[f.to], f.bytes);
    }
    for (auto& h : hosts_)
      if (!asleep(*h)) work(*h);
    for (auto& h : hosts_) transmit(*h);
  }
  if (failure_.empty()) check_end();
  return failure_;
}

void StackSimulation::check_end() {
  for (Flow& f : flows_) {
    if (!scenario_.connections[f.connection].used) continue;
    const Flow& peer = peer_of(f);
    if (f.c != nullptr) return fail(&f, "not closed at the end");
    if (f.outcome.aborted || peer.outcome.aborted) continue;
    const auto short_of = [&] {
      return "received " + std::to_string(f.outcome.received) + " of " + std::to_string(peer.outcome.sent) + " bytes";
    };
    if (f.outcome.peer_fin && !f.outcome.reset && !f.outcome.timed_out && !peer.forgiven &&
        f.outcome.received != peer.outcome.sent)
      return fail(&f, short_of());
    if (f.forgiven) continue;
    if (!f.outcome.opened) return fail(&f, "never opened");
    // A peer whose TIME-WAIT is over before our last repetition answers it with a reset: nothing is lost by that.
    const TimeNs peer_time_wait = peer.side == 0 ? scenario_.connections[f.connection].client_config.time_wait_ns
                                                 : scenario_.connections.at(0).server_config.time_wait_ns;
    const bool complete = f.outcome.peer_fin && peer.outcome.peer_fin && f.outcome.received == peer.outcome.sent &&
                          peer.outcome.received == f.outcome.sent;
    if (f.outcome.reset && !(complete && peer_time_wait < kAmpleTimeWait)) return fail(&f, "reset, and nobody aborted");
    if (f.outcome.timed_out) return fail(&f, "timed out on a healed network");
    if (!f.outcome.connected) return fail(&f, "never connected");
    if (!f.outcome.peer_fin) return fail(&f, "never saw the peer's FIN");
    if (f.outcome.sent != f.plan->send_bytes) return fail(&f, "did not send everything");
    if (f.outcome.received != peer.outcome.sent) return fail(&f, short_of());
  }
  for (auto& h : hosts_) {
    const char* name = h->side == 0 ? "client" : "server";
    if (h->stack->active_connections() != 0)
      return fail(nullptr, std::string(name) + ": " + std::to_string(h->stack->active_connections()) + " connections left");
    if (h->stack->time_wait_entries() != 0) return fail(nullptr, std::string(name) + ": TIME-WAIT without end");
    if (h->stack->repairs().in_use() != 0) return fail(nullptr, std::string(name) + ": Repairs not returned");
  }
}

std::string StackSimulation::trace() const {
  std::string text;
  for (const TraceRecord& r : trace_) {
    char line[300];
    int at = std::snprintf(line, sizeof line, "%12.6f %s %4zu bytes ", static_cast<double>(r.at - kStart) * 1e-9,
                           r.from == 0 ? "client" : "server", r.length);
    const auto put = [&](const char* format, auto... values) {
      at += std::snprintf(line + at, sizeof line - static_cast<size_t>(at), format, values...);
    };
    const size_t tcp = tcp_at(r.head);
    wire::TcpView v;
    char flags[36];
    if (tcp != 0 && tcp < r.head.size() &&
        wire::TcpView::parse(base::ByteSpan(r.head).subspan(tcp), v) == wire::ParseError::kNone)
      put("%s %u > %u %s seq %u ack %u win %u", ether_type(r.head) == 0x0800 ? "v4" : "v6", v.src_port, v.dst_port,
          wire::format_tcp_flags(v.flags, flags), v.seq, v.ack, v.window);
    else put("type %04x", ether_type(r.head));
    put("%s%s\n", *r.fate ? "  ## " : "", r.fate);
    text += line;
  }
  return text;
}

}  // namespace millrace::sim
