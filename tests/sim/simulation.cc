#include "tests/sim/simulation.h"

#include <algorithm>
#include <cstdio>

#include "lib/tcp/seq.h"

namespace millrace::sim {
namespace {

constexpr size_t kTraceLength = 512;
constexpr uint16_t kServerPort = 80;
constexpr uint64_t kMostSteps = 3'000'000;             // a run that ends at all needs far fewer
constexpr TimeNs kStart = 1000 * base::kSecond;        // clocks need not begin at 0
constexpr size_t kRing = 64;                           // frames that wait for a paused host
constexpr uint32_t kFewPackets = 3;                    // left to a host whose pool is empty
constexpr TimeNs kAmpleTimeWait = 60 * base::kSecond;  // longer than a repetition is put off
// A jump of a clock beyond this may end connections: it is longer than what a peer is given to answer.
constexpr TimeNs kGreatStep = base::kSecond;

tcp::FourTuple tuple_of(const ConnectionPlan& c, int side) {
  const auto client = c.v6 ? *base::IpAddress::parse("fd00::1") : base::IpAddress::v4(0x0a000001);
  const auto server = c.v6 ? *base::IpAddress::parse("fd00::2") : base::IpAddress::v4(0x0a000002);
  return side == 0 ? tcp::FourTuple{client, server, c.client_port, kServerPort}
                   : tcp::FourTuple{server, client, kServerPort, c.client_port};
}

base::HashKey secret(uint32_t life) { return {0x0123456789abcdefu + life, 0xfedcba9876543210u ^ life}; }

}  // namespace

Simulation::Simulation(const Scenario& scenario, const Pools& pools, Mutant mutant)
    : scenario_(scenario), pools_(pools), mutant_(mutant), random_(scenario.seed), now_(kStart) {
  for (int i = 0; i < 2; ++i) {
    hosts_[i] = std::make_unique<Host>(scenario.repairs);
    isn_[i] = std::make_unique<tcp::IsnGenerator>(secret(0));
  }
  listener_ = std::make_unique<tcp::Listener>(scenario.connections.at(0).server_config, scenario.backlog, secret(0));
  trace_.resize(kTraceLength);
  for (size_t i = 0; i < scenario_.connections.size(); ++i) {
    for (int side = 0; side < 2; ++side) {
      auto s = std::make_unique<Side>();
      s->connection = i;
      s->side = side;
      const ConnectionPlan& c = scenario_.connections[i];
      s->profile = {side == 0 ? c.client_config : c.server_config, &host(side).repairs};
      s->plan = side == 0 ? &scenario_.connections[i].client : &scenario_.connections[i].server;
      sides_.push_back(std::move(s));
    }
    const ConnectionPlan& c = scenario_.connections[i];
    if (c.used && c.after == ConnectionPlan::kNone) push(kStart + c.start, Event::Kind::kStart, i);
  }
  for (size_t i = 0; i < scenario_.faults.size(); ++i) push(kStart + scenario_.faults[i].at, Event::Kind::kFault, i);
}

Simulation::~Simulation() {
  for (auto& s : sides_) tcp::release(s->tcb);
  for (auto& h : hosts_)
    for (tcp::Repair* r : h->hoarded) h->repairs.give(r);
  for (auto* p : pools_) p->set_limit(p->capacity());
}

void Simulation::fail(const Side* s, const std::string& what) {
  if (!failure_.empty()) return;
  char head[128];
  std::snprintf(head, sizeof head, "at %.6f s", static_cast<double>(now_ - kStart) * 1e-9);
  failure_ = head;
  if (s != nullptr)
    failure_ += ", connection " + std::to_string(s->connection) + (s->side == 0 ? " client" : " server") + " in " +
                tcp::to_string(state(s->tcb));
  failure_ += ": " + what;
}

void Simulation::check_state(Side& s) {
  const tcp::State is = state(s.tcb);
  if (is == s.seen) return;
  if (!coverage_.states.change(s.seen, is)) fail(&s, std::string("no clause leads here from ") + tcp::to_string(s.seen));
  s.seen = is;
}

void Simulation::start(size_t connection) {
  const ConnectionPlan& c = scenario_.connections[connection];
  for (int side = 0; side < (c.simultaneous ? 2 : 1); ++side)
    if (asleep(side)) return push(host(side).asleep_until, Event::Kind::kStart, connection);
  // Who was started again has another timestamp offset: its SYN looks old to a server that waits (RFC 6191).
  if (c.after != ConnectionPlan::kNone && host(0).started_again) {
    const Side& old = *sides_[c.after * 2 + 1];
    if (old.live || old.time_wait) forgive(connection);
  }
  if (c.simultaneous) ++coverage_.simultaneous;
  for (int side = 0; side < (c.simultaneous ? 2 : 1); ++side) {
    Side& s = *sides_[connection * 2 + static_cast<size_t>(side)];
    const tcp::FourTuple t = tuple_of(c, side);
    uint32_t iss = isn_[side]->isn(t, clock(side));
    if (c.near_wrap[side] != 0) iss = 0u - c.near_wrap[side], ++coverage_.wrapped;
    tcp::open_active(s.tcb, t, s.profile, iss, clock(side), isn_[side]->timestamp_offset(t));
    s.live = true;
    s.outcome.opened = true;
    react(s, 0);
  }
}

// --- what befalls hosts

void Simulation::forgive(size_t connection) {
  for (size_t side = 0; side < 2; ++side) sides_[connection * 2 + side]->forgiven = true;
}

void Simulation::begin_fault(const HostFault& f) {
  ++coverage_.host_faults[static_cast<size_t>(f.kind)];
  Host& h = host(f.side);
  const size_t index = static_cast<size_t>(&f - scenario_.faults.data());
  switch (f.kind) {
    case HostFault::Kind::kClockStep:
      h.clock_ahead += f.lasts;
      if (f.lasts > kGreatStep)
        for (auto& s : sides_)
          if (s->live || s->time_wait) forgive(s->connection);
      return;
    case HostFault::Kind::kDeath:
      forget_everything(f.side);
      h.dead = true;
      [[fallthrough]];
    case HostFault::Kind::kPause:
      h.asleep_until = std::max(h.asleep_until, now_ + f.lasts);
      break;
    case HostFault::Kind::kNoPackets:
      pool(f.side).set_limit(std::min(pool(f.side).in_use() + kFewPackets, pool(f.side).capacity()));
      break;
    case HostFault::Kind::kNoRepairs:
      while (tcp::Repair* r = h.repairs.take()) h.hoarded.push_back(r);
      break;
  }
  push(now_ + f.lasts, Event::Kind::kFaultEnds, index);
}

void Simulation::end_fault(const HostFault& f) {
  Host& h = host(f.side);
  switch (f.kind) {
    case HostFault::Kind::kClockStep:
      return;
    case HostFault::Kind::kDeath:
    case HostFault::Kind::kPause: {
      if (h.asleep_until > now_) return;  // another fault keeps it asleep
      h.dead = false;
      std::deque<SimPacket> waiting;
      waiting.swap(h.ring);
      for (SimPacket& p : waiting) arrive(std::move(p));
      return;
    }
    case HostFault::Kind::kNoPackets:
      pool(f.side).set_limit(pool(f.side).capacity());
      break;
    case HostFault::Kind::kNoRepairs:
      for (tcp::Repair* r : h.hoarded) h.repairs.give(r);
      h.hoarded.clear();
      break;
  }
  for (auto& s : sides_)  // an application that got no packet tries again
    if (s->side == f.side && s->live && !asleep(f.side)) react(*s, 0);
}

// The host is switched off: no segment says so.
void Simulation::forget_everything(int side) {
  for (auto& s : sides_) {
    if (s->live || s->time_wait) forgive(s->connection);
    if (s->side != side || (!s->live && !s->time_wait)) continue;
    s->time_wait.reset();
    s->seen = tcp::State::kClosed;
    if (s->live) {
      tcp::release(s->tcb);
      s->live = s->counted_half_open = false;
      s->outcome.closed = s->outcome.reset = true;
    }
    for (size_t i = 0; i < scenario_.connections.size(); ++i) {
      const ConnectionPlan& c = scenario_.connections[i];
      if (side == 1 || !c.used || c.after != s->connection) continue;
      forgive(i);
      ++coverage_.reopened_over_old;
      push(now_ + c.start, Event::Kind::kStart, i);
    }
  }
  host(side).ring.clear();
  host(side).started_again = true;
  const base::HashKey key = secret(++server_lives_ * 2 + static_cast<uint32_t>(side));
  isn_[side] = std::make_unique<tcp::IsnGenerator>(key);
  if (side == 1) listener_ = std::make_unique<tcp::Listener>(scenario_.connections.at(0).server_config, scenario_.backlog, key);
}

// --- the network

size_t Simulation::fly(SimPacket&& p) {
  if (free_slots_.empty()) {
    in_flight_.push_back(std::move(p));
    return in_flight_.size() - 1;
  }
  const size_t slot = free_slots_.back();
  free_slots_.pop_back();
  in_flight_[slot] = std::move(p);
  return slot;
}

void Simulation::transmit(int from, const wire::TcpRepr& header, const std::vector<uint8_t>& payload, bool ecn_capable) {
  ++coverage_.packets;
  SimPacket p;
  p.to_side = 1 - from;
  const uint32_t header_length = header.header_length();
  p.bytes.resize(header_length + payload.size());
  header.emit(p.bytes.data());
  if (!payload.empty()) std::memcpy(p.bytes.data() + header_length, payload.data(), payload.size());

  TraceRecord& r = trace_[trace_next_++ % kTraceLength];
  r.at = now_;
  r.from = static_cast<uint8_t>(from);
  if (wire::TcpView::parse(p.bytes, r.header) != wire::ParseError::kNone) return fail(nullptr, "a header of ours does not parse");

  const TimeNs t = now_ - kStart;
  constexpr uint32_t kIpHeader = 20;
  const Passage way = path_[from].pass(scenario_.link[from], t, static_cast<uint32_t>(p.bytes.size()) + kIpHeader,
                                       t >= scenario_.heal_at, random_);
  r.fate = way.fate;
  hash_.add(now_ ^ static_cast<uint64_t>(from) << 63);
  hash_.add(p.bytes.data(), p.bytes.size());
  hash_.add(way.copies + way.corrupt * 4u + way.squeeze * 8u);
  coverage_.count(way);
  if (way.next_mtu != 0) {
    p.to_side = from;
    p.mtu = way.next_mtu;
    push(now_ + scenario_.link[0].delay, Event::Kind::kTooBig, fly(std::move(p)));
    return;
  }
  p.corrupt = way.corrupt;
  p.marked = way.crowded && ecn_capable;
  coverage_.marked += p.marked;
  if (way.squeeze && !r.header.syn()) {
    const uint16_t window = std::min(r.header.window, scenario_.link[from].squeeze_window);
    p.bytes[14] = static_cast<uint8_t>(window >> 8);
    p.bytes[15] = static_cast<uint8_t>(window);
  }
  for (uint32_t i = 0; i < way.copies; ++i)
    push(kStart + way.at[i], Event::Kind::kPacket, fly(i + 1 < way.copies ? SimPacket(p) : std::move(p)));
}

void Simulation::arrive(SimPacket p) {
  if (p.corrupt) return;  // its checksum is wrong
  Host& h = host(p.to_side);
  if (asleep(p.to_side)) {
    if (!h.dead && h.ring.size() < kRing) h.ring.push_back(std::move(p));
    return;
  }
  wire::TcpView v;
  if (wire::TcpView::parse(p.bytes, v) != wire::ParseError::kNone) return fail(nullptr, "a segment does not parse");
  const base::ByteSpan payload = base::ByteSpan(p.bytes).subspan(v.payload_offset);
  const uint16_t client_port = p.to_side == 0 ? v.dst_port : v.src_port;
  for (auto& s : sides_)
    if (s->side == p.to_side && (s->live || s->time_wait) && scenario_.connections[s->connection].client_port == client_port)
      return give(*s, v, payload, p.marked);
  to_listener(p.to_side, client_port, v, payload, nullptr);
}

// The router that dropped a packet says so to its sender.
void Simulation::told_too_big(const SimPacket& p) {
  wire::TcpView v;
  if (asleep(p.to_side) || wire::TcpView::parse(p.bytes, v) != wire::ParseError::kNone) return;
  const uint16_t client_port = p.to_side == 0 ? v.src_port : v.dst_port;
  for (auto& s : sides_) {
    if (s->side != p.to_side || !s->live || scenario_.connections[s->connection].client_port != client_port) continue;
    ++coverage_.path_mtu;
    on_path_mtu(s->tcb, p.mtu, v.seq, clock(s->side));
    return react(*s, 0);
  }
}

void Simulation::give(Side& s, const wire::TcpView& v, base::ByteSpan payload, bool marked) {
  const TimeNs clock = this->clock(s.side);
  const uint16_t client_port = scenario_.connections[s.connection].client_port;
  if (s.time_wait) {
    wire::TcpRepr reply;
    const auto r = time_wait_input(*s.time_wait, v, clock, reply);
    if (r.verdict == tcp::TimeWaitVerdict::kReply) transmit(s.side, reply, {});
    if (r.verdict == tcp::TimeWaitVerdict::kReopen) {
      const tcp::TimeWaitEntry before = *std::exchange(s.time_wait, {});
      to_listener(s.side, client_port, v, payload, &before);
    }
    return;
  }
  if (mutant_ == Mutant::kSequenceWrap && v.payload_length > 0 && v.seq + v.payload_length < v.seq) return;
  // As the gateway does it: first the whole segment as it came, then what was parsed of it.
  const uint32_t length = static_cast<uint32_t>(v.payload_offset + payload.size());
  io::PacketPtr packet = pool(s.side).make(base::ByteSpan(payload.data() - v.payload_offset, length));
  if (!packet) {  // the pool is empty: as if lost
    ++coverage_.no_packet;
    return;
  }
  uint32_t events = 0;
  const uint32_t una = s.tcb.snd_una;
  if (!marked && input_predicted(s.tcb, packet.raw(), 0, length, clock, events)) {
    static_cast<void>(packet.release());
    check_state(s);
  } else {
    packet.trim_front(v.payload_offset);
    tcp::TimeWaitEntry before;
    if (state(s.tcb) == tcp::State::kTimeWait) before = make_time_wait(s.tcb, clock);
    const tcp::InputResult r = input(s.tcb, v, payload.empty() ? io::PacketPtr() : std::move(packet), clock, marked);
    events = r.events;
    check_state(s);
    if (events & tcp::kEventReopen) {
      react(s, events);
      return to_listener(s.side, client_port, v, payload, &before);
    }
  }
  if (mutant_ == Mutant::kAckUnseen && s.tcb.snd_una != una && s.tcb.tx.bytes() > 0 && mutations_++ == 20) s.tcb.snd_una = una;
  if (mutant_ == Mutant::kPacketKept && payload.size() > 0 && mutations_++ == 3) kept_ = pool(s.side).alloc();
  react(s, events);
}

// Nobody has this connection: the listener's affair, or a reset.
void Simulation::to_listener(int to, uint16_t client_port, const wire::TcpView& v, base::ByteSpan payload,
                             const tcp::TimeWaitEntry* before) {
  Side* next = nullptr;  // whose turn it is to be opened: the client's newest
  if (to == 1)
    for (auto& s : sides_) {
      const ConnectionPlan& c = scenario_.connections[s->connection];
      if (s->side == 1 && !c.simultaneous && c.client_port == client_port && peer_of(*s).outcome.opened) next = s.get();
    }
  if (next != nullptr && next->outcome.connected) next = nullptr;
  if (next == nullptr) {  // the client, or what the client opened has been
    wire::TcpRepr reset;
    if (tcp::make_reset(v, reset)) transmit(to, reset, {});
    return;
  }
  Side& s = *next;
  const ConnectionPlan& c = scenario_.connections[s.connection];
  const tcp::FourTuple t = tuple_of(c, 1);
  const tcp::ListenerDecision d = listener_->input(t, v, clock(1));
  uint32_t isn = d.isn;
  if (before != nullptr) {
    isn = next_isn(*before, isn);
    ++coverage_.reopened_in_time_wait;
  } else if (c.near_wrap[1] != 0) {
    isn = 0u - c.near_wrap[1];
  }
  using Action = tcp::ListenerDecision::Action;
  const auto reopen = [&] {  // it may have been half open before
    s.outcome = Outcome{};
    s.close_called = s.advertised = false;
    s.live = s.outcome.opened = true;
  };
  switch (d.action) {
    case Action::kIgnore:
      return;
    case Action::kReply:
    case Action::kCookie:
      return transmit(1, d.reply, {});
    case Action::kOpen:
      reopen();
      s.counted_half_open = true;
      open_passive(s.tcb, t, s.profile, v, isn, clock(1), d.ts_offset);
      return react(s, 0);
    case Action::kAcceptCookie:
      reopen();
      s.outcome.connected = true;
      open_cookie(s.tcb, t, s.profile, v, d.cookie, clock(1), d.ts_offset);
      check_state(s);
      return give(s, v, payload);
  }
}

// --- one side

void Simulation::react(Side& s, uint32_t events) {
  using namespace tcp;
  check_state(s);
  Outcome& o = s.outcome;
  if (events & kEventConnected) o.connected = true;
  if (events & kEventPeerFin) o.peer_fin = true;
  if (events & kEventReset) o.reset = true;
  if (events & kEventTimedOut) o.timed_out = true;
  if (s.counted_half_open && state(s.tcb) != State::kSynReceived) {
    listener_->half_open_ended();
    s.counted_half_open = false;
  }
  if (mutant_ == Mutant::kStateSkipped && state(s.tcb) == State::kFinWait1 && !(s.tcb.flags & kFlagFinSent))
    s.tcb.state = State::kFinWait2, s.seen = State::kEstablished;
  if (!(events & kEventClosed)) application(s);
  check_state(s);
  output(s);
  check_state(s);
  if ((events & kEventTimeWait) && s.plan->mini_time_wait && state(s.tcb) == State::kTimeWait) {
    read(s, true);
    s.time_wait = make_time_wait(s.tcb, clock(s.side));
    finish(s);
    return;
  }
  if (state(s.tcb) == State::kClosed) {
    read(s, true);
    finish(s);
  }
}

void Simulation::finish(Side& s) {
  if (!s.live) return;
  s.outcome.closed = true;
  if (s.counted_half_open) listener_->half_open_ended();
  s.counted_half_open = false;
  release(s.tcb);
  s.seen = tcp::State::kClosed;
  s.live = false;
  if (!s.time_wait) tuple_free(s);
}

// The client may use its tuple again: whoever waits for that starts.
void Simulation::tuple_free(const Side& s) {
  if (s.side == 1) return;
  for (size_t i = 0; i < scenario_.connections.size(); ++i) {
    const ConnectionPlan& c = scenario_.connections[i];
    if (!c.used || c.after != s.connection) continue;
    push(now_ + c.start, Event::Kind::kStart, i);
    // Only timestamps tell the server in every case that the SYN is a new one (RFC 6191); and only in TIME-WAIT may it believe
    // that.
    const Side& old = peer_of(s);
    const bool in_time_wait = old.time_wait || (old.live && state(old.tcb) == tcp::State::kTimeWait);
    if ((old.live || old.time_wait) && !(in_time_wait && c.client_config.timestamps && c.server_config.timestamps)) {
      ++coverage_.reopened_over_old;
      forgive(i);
    }
  }
}

void Simulation::read(Side& s, bool all) {
  auto& rx = rx_queue(s.tcb);
  uint64_t budget = all ? UINT64_MAX : s.plan->read_size;
  const Side& peer = peer_of(s);
  const uint64_t from = stream(peer);
  bool took = false;
  while (!rx.empty() && budget > 0) {
    const auto bytes = rx.front();
    const size_t n = static_cast<size_t>(std::min<uint64_t>(budget, bytes.size()));
    for (size_t i = 0; i < n; ++i) {
      if (bytes[i] != pattern(from, s.outcome.received + i))
        return fail(&s, "byte " + std::to_string(s.outcome.received + i) + " is wrong");
    }
    s.outcome.received += n;
    budget -= n;
    took = true;
    if (mutant_ == Mutant::kDeliveredTwice && mutations_++ == 2) break;
    rx.consume(mutant_ == Mutant::kByteSkipped && n > 1 && mutations_++ == 2 ? n - 1 : n);
  }
  if (took) {
    hash_.add(s.outcome.received);
    s.outcome.last_byte_at = now_ - kStart;
    window_update(s.tcb, clock(s.side));
  }
  if (s.outcome.received > peer.outcome.sent && !peer.forgiven) fail(&s, "more received than the peer sent");
}

void Simulation::write(Side& s) {
  using namespace tcp;
  while (s.outcome.sent < s.plan->send_bytes) {
    const uint32_t space = send_space(s.tcb);
    const size_t n = static_cast<size_t>(std::min<uint64_t>({space, s.plan->write_size, s.plan->send_bytes - s.outcome.sent}));
    if (n == 0) return;
    std::vector<uint8_t> bytes(n);
    for (size_t i = 0; i < n; ++i) bytes[i] = pattern(stream(s), s.outcome.sent + i);
    const size_t taken = send_copy(s.tcb, bytes, pool(s.side));
    s.outcome.sent += taken;
    if (s.plan->write_interval > 0) s.next_write = now_ + s.plan->write_interval;
    if (taken < n || s.plan->write_interval > 0) return;
  }
}

void Simulation::application(Side& s) {
  using namespace tcp;
  if (!s.live) return;
  const TimeNs t = now_ - kStart;
  if (t >= s.plan->abort_at && !s.outcome.aborted) {
    s.outcome.aborted = true;
    abort(s.tcb, clock(s.side));
    return;
  }
  if ((s.plan->read_interval == 0 || now_ >= s.next_read) && !s.plan->stalled.holds(t)) {
    read(s);
    if (s.plan->read_interval > 0) s.next_read = now_ + s.plan->read_interval;
  }
  if (s.plan->write_interval == 0 || now_ >= s.next_write) write(s);
  const bool all_sent = s.outcome.sent == s.plan->send_bytes;
  const bool handshake = state(s.tcb) == State::kSynSent;  // close() would give up the connection
  if (!s.close_called && !handshake && all_sent && (s.plan->close_when_sent || s.outcome.peer_fin)) {
    close(s.tcb, clock(s.side));
    s.close_called = true;
  }
}

void Simulation::output(Side& s) {
  using namespace tcp;
  OutSegment out;
  int count = 0;
  while (s.live && poll_output(s.tcb, clock(s.side), out)) {
    if (++count > 10'000) return fail(&s, "poll_output() never ends");
    sabotage(s, out);
    std::vector<uint8_t> payload(out.payload_len);
    if (out.payload_len > 0) {
      if (out.payload_offset + uint64_t{out.payload_len} > tx_queue(s.tcb).bytes())
        return fail(&s, "output names bytes that are not queued");
      tx_queue(s.tcb).peek(out.payload_offset, payload.data(), payload.size());
      s.largest_mss = std::max(s.largest_mss, s.tcb.snd_mss);
      const size_t size = out.header.header_length() - 20 + out.payload_len;
      const bool path_probe = s.tcb.repair != nullptr && size == s.tcb.repair->path.size;
      if (size > (path_probe ? s.largest_mss : s.tcb.snd_mss))
        return fail(&s, "segment of " + std::to_string(out.payload_len) + " + " + std::to_string(out.header.header_length()) +
                            " is larger than the peer's MSS " + std::to_string(s.tcb.snd_mss));
    }
    if (out.header.flags & wire::kTcpAck && !(out.header.flags & wire::kTcpRst)) {
      const uint32_t shift = out.header.flags & wire::kTcpSyn ? 0 : s.tcb.rcv_wscale;
      const uint32_t right = out.header.ack + (uint32_t{out.header.window} << shift);
      const uint32_t rounding = (1u << shift) - 1;  // RFC 7323 2.4
      if (s.advertised && seq_lt(right + rounding, s.advertised_right))
        return fail(&s, "the right edge of the window moved left");
      s.advertised_right = s.advertised ? seq_max(right, s.advertised_right) : right;
      s.advertised = true;
    }
    transmit(s.side, out.header, payload, out.ecn_capable);
  }
  if (!s.live || state(s.tcb) == State::kClosed) return;
  if (mutant_ == Mutant::kNoDeadline && (s.tcb.flags & kFlagFinSent)) s.tcb.retransmit_at = s.tcb.state_at = base::kNever;
  if (output_pending(s.tcb)) return fail(&s, "output pending after poll_output() said no");
  if (next_deadline(s.tcb) == base::kNever) return fail(&s, "no deadline");
  if (bytes_unacked(s.tcb) > 0 && s.tcb.retransmit_at == base::kNever && state(s.tcb) >= State::kEstablished)
    fail(&s, "unacknowledged data and no timer");
}

TimeNs Simulation::next_time(const Side& s) const {
  const Host& h = host(s.side);
  const auto on_our_clock = [&](TimeNs t) { return t == base::kNever ? t : t - std::min(t, h.clock_ahead); };
  if (h.asleep_until > now_) return base::kNever;  // the event that wakes it does
  if (s.time_wait) return on_our_clock(s.time_wait->expires_at);
  if (!s.live) return base::kNever;
  TimeNs t = on_our_clock(next_deadline(s.tcb));
  if (!s.tcb.rx.empty()) {
    if (s.plan->stalled.holds(now_ - kStart)) t = std::min(t, kStart + s.plan->stalled.until);
    else if (s.plan->read_interval > 0) t = std::min(t, std::max(s.next_read, now_ + 1));
  }
  if (s.plan->write_interval > 0 && s.outcome.sent < s.plan->send_bytes && send_space(s.tcb) > 0)
    t = std::min(t, std::max(s.next_write, now_ + 1));
  if (s.plan->abort_at != base::kNever && !s.outcome.aborted) t = std::min(t, std::max(kStart + s.plan->abort_at, now_ + 1));
  return t;
}

void Simulation::wake(Side& s) {
  const TimeNs clock = this->clock(s.side);
  if (s.time_wait) {
    if (s.time_wait->expires_at <= clock) {
      s.time_wait.reset();
      tuple_free(s);
    }
    return;
  }
  if (!s.live) return;
  uint32_t events = 0;
  if (next_deadline(s.tcb) <= clock) {
    events = on_deadline(s.tcb, clock);
    if (state(s.tcb) != tcp::State::kClosed && next_deadline(s.tcb) <= clock) fail(&s, "a deadline passed and stayed");
  }
  react(s, events);
}

// --- the run

std::string Simulation::run_until(TimeNs until) {
  const TimeNs end = kStart + until;
  uint64_t steps = 0;
  while (failure_.empty()) {
    TimeNs t = events_.empty() ? base::kNever : events_.top().at;
    Side* next = nullptr;
    for (auto& s : sides_) {
      const TimeNs d = next_time(*s);
      if (d < t) {
        t = d;
        next = s.get();
      }
    }
    if (t == base::kNever || t > end) break;
    if (++steps > kMostSteps) {
      fail(nullptr, "too many steps");
      break;
    }
    now_ = std::max(now_, t);
    if (next != nullptr) {
      wake(*next);
      continue;
    }
    const Event e = events_.top();
    events_.pop();
    switch (e.kind) {
      case Event::Kind::kStart:
        start(e.index);
        break;
      case Event::Kind::kFault:
        begin_fault(scenario_.faults[e.index]);
        break;
      case Event::Kind::kFaultEnds:
        end_fault(scenario_.faults[e.index]);
        break;
      case Event::Kind::kPacket:
      case Event::Kind::kTooBig: {
        SimPacket p = std::move(in_flight_[e.index]);
        free_slots_.push_back(e.index);
        if (e.kind == Event::Kind::kPacket) arrive(std::move(p));
        else told_too_big(p);
        break;
      }
    }
  }
  return failure_;
}

std::string Simulation::run() {
  run_until(scenario_.end_at);
  if (failure_.empty()) check_end();
  return failure_;
}

void Simulation::check_end() {
  for (auto& s : sides_) {
    if (!scenario_.connections[s->connection].used) continue;
    const Side& peer = peer_of(*s);
    if (s->live) return fail(s.get(), "not closed at the end");
    if (s->time_wait) return fail(s.get(), "TIME-WAIT without end");
    const auto short_of = [&] {
      return "received " + std::to_string(s->outcome.received) + " of " + std::to_string(peer.outcome.sent) + " bytes";
    };
    if (s->outcome.aborted || peer.outcome.aborted) continue;
    // Whatever befell the hosts: who was told that this was all has got all.
    if (s->outcome.peer_fin && !s->outcome.reset && !s->outcome.timed_out && !peer.forgiven &&
        s->outcome.received != peer.outcome.sent)
      return fail(s.get(), short_of());
    if (s->forgiven) continue;
    if (!s->outcome.opened) return fail(s.get(), "never opened");
    // A peer whose TIME-WAIT is over before our last repetition answers it with a reset: nothing is lost by that.
    const bool complete = s->outcome.peer_fin && peer.outcome.peer_fin && s->outcome.received == peer.outcome.sent &&
                          peer.outcome.received == s->outcome.sent;
    if (s->outcome.reset && !(complete && peer.profile.config.time_wait_ns < kAmpleTimeWait))
      return fail(s.get(), "reset, and nobody aborted");
    if (s->outcome.timed_out) return fail(s.get(), "timed out on a healed network");
    if (!s->outcome.connected) return fail(s.get(), "never connected");
    if (!s->outcome.peer_fin) return fail(s.get(), "never saw the peer's FIN");
    if (s->outcome.sent != s->plan->send_bytes) return fail(s.get(), "did not send everything");
    if (s->outcome.received != peer.outcome.sent) return fail(s.get(), short_of());
  }
  if (listener_->half_open() != 0) return fail(nullptr, "half-open count is not 0");
  for (int i = 0; i < 2; ++i) {
    if (!pool(i).balanced()) return fail(nullptr, std::to_string(pool(i).in_use()) + " packets not returned");
    if (host(i).repairs.in_use() != 0) return fail(nullptr, std::to_string(host(i).repairs.in_use()) + " repairs not returned");
  }
}

std::string Simulation::trace() const {
  std::string text;
  const size_t n = std::min(trace_next_, kTraceLength);
  for (size_t i = trace_next_ - n; i < trace_next_; ++i) {
    const TraceRecord& r = trace_[i % kTraceLength];
    char flags[36], line[400];
    int at = std::snprintf(line, sizeof line, "%12.6f %s:%u %s seq %u len %u ack %u win %u",
                           static_cast<double>(r.at - kStart) * 1e-9, r.from == 0 ? "client" : "server",
                           r.from == 0 ? r.header.src_port : r.header.dst_port, wire::format_tcp_flags(r.header.flags, flags),
                           r.header.seq, r.header.payload_length, r.header.ack, r.header.window);
    for (const auto& b : r.header.sack)
      at += std::snprintf(line + at, sizeof line - static_cast<size_t>(at), " sack %u-%u", b.left, b.right);
    std::snprintf(line + at, sizeof line - static_cast<size_t>(at), "%s%s\n", *r.fate ? "  ## " : "", r.fate);
    text += line;
  }
  return text;
}

}  // namespace millrace::sim
