#include "tests/sim/simulation.h"

#include <algorithm>
#include <cstdio>

#include "lib/tcp/seq.h"

namespace millrace::sim {
namespace {

constexpr size_t kTraceLength = 512;
constexpr uint16_t kServerPort = 80;
constexpr TimeNs kStart = 1000 * base::kSecond;  // clocks need not begin at 0
constexpr base::HashKey kSecret{0x0123456789abcdef, 0xfedcba9876543210};

tcp::FourTuple tuple_of(const ConnectionPlan& c, int side) {
  const auto client = base::IpAddress::v4(0x0a000001), server = base::IpAddress::v4(0x0a000002);
  return side == 0 ? tcp::FourTuple{client, server, c.client_port, kServerPort}
                   : tcp::FourTuple{server, client, kServerPort, c.client_port};
}

}  // namespace

Simulation::Simulation(const Scenario& scenario, support::HeapPacketPool& pool)
    : scenario_(scenario),
      pool_(pool),
      random_(scenario.seed),
      isn_(kSecret),
      listener_(scenario.connections.at(0).server_config, scenario.backlog, kSecret),
      repairs_(scenario.repairs),
      now_(kStart) {
  trace_.resize(kTraceLength);
  for (size_t i = 0; i < scenario_.connections.size(); ++i) {
    for (int side = 0; side < 2; ++side) {
      auto s = std::make_unique<Side>();
      s->connection = i;
      s->side = side;
      const ConnectionPlan& c = scenario_.connections[i];
      s->profile = {side == 0 ? c.client_config : c.server_config, &repairs_};
      s->plan = side == 0 ? &scenario_.connections[i].client : &scenario_.connections[i].server;
      sides_.push_back(std::move(s));
    }
    events_.push({kStart + scenario_.connections[i].start, order_++, Event::Kind::kStart, i});
  }
}

Simulation::~Simulation() {
  for (auto& s : sides_) tcp::release(s->tcb);
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

void Simulation::start(size_t connection) {
  const ConnectionPlan& c = scenario_.connections[connection];
  for (int side = 0; side < (c.simultaneous ? 2 : 1); ++side) {
    Side& s = *sides_[connection * 2 + static_cast<size_t>(side)];
    const tcp::FourTuple t = tuple_of(c, side);
    tcp::open_active(s.tcb, t, s.profile, isn_.isn(t, now_), now_, isn_.timestamp_offset(t));
    s.live = true;
    s.outcome.opened = true;
    react(s, 0);
  }
}

// --- the network

void Simulation::transmit(int from, const wire::TcpRepr& header, const std::vector<uint8_t>& payload) {
  ++packets_;
  Packet p;
  p.to_side = 1 - from;
  const uint32_t header_length = header.header_length();
  p.bytes.resize(header_length + payload.size());
  header.emit(p.bytes.data());
  if (!payload.empty()) std::memcpy(p.bytes.data() + header_length, payload.data(), payload.size());

  TraceRecord& r = trace_[trace_next_++ % kTraceLength];
  r.at = now_;
  r.from = static_cast<uint8_t>(from);
  r.fate = "";
  if (wire::TcpView::parse(p.bytes, r.header) != wire::ParseError::kNone) return fail(nullptr, "a header of ours does not parse");

  const bool faults = now_ - kStart < scenario_.heal_at;
  const Link& l = scenario_.link[from];
  if (faults && random_.unit() < l.loss) {
    r.fate = "lost";
    return;
  }
  TimeNs leaves = now_;
  if (l.bytes_per_second != 0) {
    const TimeNs waiting = link_free_at_[from] > now_ ? link_free_at_[from] - now_ : 0;
    const uint64_t queued = waiting * l.bytes_per_second / base::kSecond;
    if (queued + p.bytes.size() > l.queue_bytes) {
      r.fate = "queue full";
      return;
    }
    leaves = now_ + waiting + (p.bytes.size() + 40) * base::kSecond / l.bytes_per_second;
    link_free_at_[from] = leaves;
  }
  int copies = 1;
  if (faults && random_.unit() < l.duplicate) {
    copies = 2;
    r.fate = "twice";
  }
  if (faults && random_.unit() < l.corrupt) {
    p.corrupt = true;
    r.fate = "corrupt";
  }
  for (int i = 0; i < copies; ++i) {
    const TimeNs jitter = faults && l.jitter > 0 ? random_.below(l.jitter) : 0;
    size_t slot;
    if (free_slots_.empty()) {
      slot = in_flight_.size();
      in_flight_.emplace_back();
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    in_flight_[slot] = i + 1 < copies ? p : std::move(p);
    events_.push({leaves + l.delay + jitter, order_++, Event::Kind::kPacket, slot});
  }
}

void Simulation::arrive(Packet p) {
  if (p.corrupt) return;  // its checksum is wrong
  wire::TcpView v;
  if (wire::TcpView::parse(p.bytes, v) != wire::ParseError::kNone) return fail(nullptr, "a segment does not parse");
  const base::ByteSpan payload = base::ByteSpan(p.bytes).subspan(v.payload_offset);
  const uint16_t client_port = p.to_side == 0 ? v.dst_port : v.src_port;
  for (auto& s : sides_) {
    if (s->side != p.to_side || scenario_.connections[s->connection].client_port != client_port) continue;
    return give(*s, v, payload);
  }
  fail(nullptr, "a segment for nobody");
}

void Simulation::give(Side& s, const wire::TcpView& v, base::ByteSpan payload) {
  if (s.time_wait) {
    wire::TcpRepr reply;
    const auto r = time_wait_input(*s.time_wait, v, now_, reply);
    if (r.verdict == tcp::TimeWaitVerdict::kReply) transmit(s.side, reply, {});
    return;
  }
  if (!s.live) {
    if (s.side == 1) return to_listener(s, v, payload);
    wire::TcpRepr reset;
    if (tcp::make_reset(v, reset)) transmit(s.side, reset, {});
    return;
  }
  // As the gateway does it: first the whole segment as it came, then what was parsed of it.
  const uint32_t length = static_cast<uint32_t>(v.payload_offset + payload.size());
  io::PacketPtr packet = pool_.make(base::ByteSpan(payload.data() - v.payload_offset, length));
  if (!packet) return;  // the pool is empty: as if lost
  uint32_t events = 0;
  if (input_predicted(s.tcb, packet.raw(), 0, length, now_, events)) {
    static_cast<void>(packet.release());
    return react(s, events);
  }
  packet.trim_front(v.payload_offset);
  const tcp::InputResult r = input(s.tcb, v, payload.empty() ? io::PacketPtr() : std::move(packet), now_);
  react(s, r.events);
}

void Simulation::to_listener(Side& s, const wire::TcpView& v, base::ByteSpan payload) {
  const ConnectionPlan& c = scenario_.connections[s.connection];
  const tcp::FourTuple t = tuple_of(c, 1);
  if (s.outcome.opened) {  // it was here and is gone: this plan opens each connection once
    wire::TcpRepr reset;
    if (tcp::make_reset(v, reset)) transmit(1, reset, {});
    return;
  }
  const tcp::ListenerDecision d = listener_.input(t, v, now_);
  using Action = tcp::ListenerDecision::Action;
  switch (d.action) {
    case Action::kIgnore:
      return;
    case Action::kReply:
    case Action::kCookie:
      return transmit(1, d.reply, {});
    case Action::kOpen:
      open_passive(s.tcb, t, s.profile, v, d.isn, now_, d.ts_offset);
      s.live = s.counted_half_open = s.outcome.opened = true;
      return react(s, 0);
    case Action::kAcceptCookie:
      open_cookie(s.tcb, t, s.profile, v, d.cookie, now_, d.ts_offset);
      s.live = s.outcome.opened = s.outcome.connected = true;
      return give(s, v, payload);
  }
}

// --- one side

void Simulation::react(Side& s, uint32_t events) {
  using namespace tcp;
  Outcome& o = s.outcome;
  if (events & kEventConnected) o.connected = true;
  if (events & kEventPeerFin) o.peer_fin = true;
  if (events & kEventReset) o.reset = true;
  if (events & kEventTimedOut) o.timed_out = true;
  if (s.counted_half_open && state(s.tcb) != State::kSynReceived) {
    listener_.half_open_ended();
    s.counted_half_open = false;
  }
  if (!(events & kEventClosed)) application(s);
  output(s);
  if ((events & kEventTimeWait) && s.plan->mini_time_wait && state(s.tcb) == State::kTimeWait) {
    read(s, true);
    s.time_wait = make_time_wait(s.tcb, now_);
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
  if (s.counted_half_open) listener_.half_open_ended();
  s.counted_half_open = false;
  release(s.tcb);
  s.live = false;
}

void Simulation::read(Side& s, bool all) {
  auto& rx = rx_queue(s.tcb);
  uint64_t budget = all ? UINT64_MAX : s.plan->read_size;
  const Side& peer = *sides_[s.connection * 2 + static_cast<size_t>(1 - s.side)];
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
    rx.consume(n);
    took = true;
  }
  if (took) {
    s.outcome.last_byte_at = now_ - kStart;
    window_update(s.tcb, now_);
  }
  if (s.outcome.received > peer.outcome.sent) fail(&s, "more received than the peer sent");
}

void Simulation::write(Side& s) {
  using namespace tcp;
  while (s.outcome.sent < s.plan->send_bytes) {
    const uint32_t space = send_space(s.tcb);
    const size_t n = static_cast<size_t>(std::min<uint64_t>({space, s.plan->write_size, s.plan->send_bytes - s.outcome.sent}));
    if (n == 0) return;
    std::vector<uint8_t> bytes(n);
    for (size_t i = 0; i < n; ++i) bytes[i] = pattern(stream(s), s.outcome.sent + i);
    const size_t taken = send_copy(s.tcb, bytes, pool_);
    s.outcome.sent += taken;
    if (taken < n) return;
    if (s.plan->write_interval > 0) {
      s.next_write = now_ + s.plan->write_interval;
      return;
    }
  }
}

void Simulation::application(Side& s) {
  using namespace tcp;
  if (!s.live) return;
  if (now_ - kStart >= s.plan->abort_at && !s.outcome.aborted) {
    s.outcome.aborted = true;
    abort(s.tcb, now_);
    return;
  }
  if (s.plan->read_interval == 0 || now_ >= s.next_read) {
    read(s);
    if (s.plan->read_interval > 0) s.next_read = now_ + s.plan->read_interval;
  }
  if (s.plan->write_interval == 0 || now_ >= s.next_write) write(s);
  const bool all_sent = s.outcome.sent == s.plan->send_bytes;
  const bool handshake = state(s.tcb) == State::kSynSent;  // close() would give up the connection
  if (!s.close_called && !handshake && all_sent && (s.plan->close_when_sent || s.outcome.peer_fin)) {
    close(s.tcb, now_);
    s.close_called = true;
  }
}

void Simulation::output(Side& s) {
  using namespace tcp;
  OutSegment out;
  int count = 0;
  while (s.live && poll_output(s.tcb, now_, out)) {
    if (++count > 10'000) return fail(&s, "poll_output() never ends");
    std::vector<uint8_t> payload(out.payload_len);
    if (out.payload_len > 0) {
      if (out.payload_offset + uint64_t{out.payload_len} > tx_queue(s.tcb).bytes())
        return fail(&s, "output names bytes that are not queued");
      tx_queue(s.tcb).peek(out.payload_offset, payload.data(), payload.size());
      if (out.header.header_length() - 20 + out.payload_len > s.tcb.snd_mss)
        return fail(&s, "segment of " + std::to_string(out.payload_len) + " + " + std::to_string(out.header.header_length()) +
                            " is larger than the peer's MSS " + std::to_string(s.tcb.snd_mss));
    }
    if (out.header.flags & wire::kTcpAck && !(out.header.flags & wire::kTcpRst)) {
      const uint32_t shift = out.header.flags & wire::kTcpSyn ? 0 : s.tcb.rcv_wscale;
      const uint32_t right = out.header.ack + (uint32_t{out.header.window} << shift);
      if (s.advertised && seq_lt(right, s.advertised_right)) return fail(&s, "the right edge of the window moved left");
      s.advertised_right = s.advertised ? seq_max(right, s.advertised_right) : right;
      s.advertised = true;
    }
    transmit(s.side, out.header, payload);
  }
  if (!s.live || state(s.tcb) == State::kClosed) return;
  if (output_pending(s.tcb)) return fail(&s, "output pending after poll_output() said no");
  if (next_deadline(s.tcb) == base::kNever) return fail(&s, "no deadline");
  if (bytes_unacked(s.tcb) > 0 && s.tcb.retransmit_at == base::kNever && state(s.tcb) >= State::kEstablished)
    fail(&s, "unacknowledged data and no timer");
}

TimeNs Simulation::next_time(const Side& s) const {
  if (s.time_wait) return s.time_wait->expires_at;
  if (!s.live) return base::kNever;
  TimeNs t = next_deadline(s.tcb);
  if (s.plan->read_interval > 0 && (!s.tcb.rx.empty())) t = std::min(t, std::max(s.next_read, now_ + 1));
  if (s.plan->write_interval > 0 && s.outcome.sent < s.plan->send_bytes && send_space(s.tcb) > 0)
    t = std::min(t, std::max(s.next_write, now_ + 1));
  if (s.plan->abort_at != base::kNever && !s.outcome.aborted) t = std::min(t, std::max(kStart + s.plan->abort_at, now_ + 1));
  return t;
}

void Simulation::wake(Side& s) {
  if (s.time_wait) {
    if (s.time_wait->expires_at <= now_) s.time_wait.reset();
    return;
  }
  if (!s.live) return;
  uint32_t events = 0;
  if (next_deadline(s.tcb) <= now_) {
    events = on_deadline(s.tcb, now_);
    if (state(s.tcb) != tcp::State::kClosed && next_deadline(s.tcb) <= now_) fail(&s, "a deadline passed and stayed");
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
    if (++steps > 20'000'000) {
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
    if (e.kind == Event::Kind::kStart) {
      start(e.index);
    } else {
      Packet p = std::move(in_flight_[e.index]);
      free_slots_.push_back(e.index);
      arrive(std::move(p));
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
    const Side& peer = *sides_[s->connection * 2 + static_cast<size_t>(1 - s->side)];
    const bool any_abort = s->outcome.aborted || peer.outcome.aborted;
    if (s->live) return fail(s.get(), "not closed at the end");
    if (any_abort) continue;
    if (!s->outcome.opened) return fail(s.get(), "never opened");
    if (s->outcome.reset) return fail(s.get(), "reset, and nobody aborted");
    if (s->outcome.timed_out) return fail(s.get(), "timed out on a healed network");
    if (!s->outcome.connected) return fail(s.get(), "never connected");
    if (!s->outcome.peer_fin) return fail(s.get(), "never saw the peer's FIN");
    if (s->outcome.sent != s->plan->send_bytes) return fail(s.get(), "did not send everything");
    if (s->outcome.received != peer.outcome.sent)
      return fail(s.get(),
                  "received " + std::to_string(s->outcome.received) + " of " + std::to_string(peer.outcome.sent) + " bytes");
  }
  if (listener_.half_open() != 0) return fail(nullptr, "half-open count is not 0");
  if (!pool_.balanced()) return fail(nullptr, std::to_string(pool_.in_use()) + " packets not returned");
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

// --- scenarios

namespace {

tcp::Config random_config(base::Prng& r) {
  tcp::Config c;
  constexpr uint16_t kMss[] = {100, 536, 1220, 1460, 1460, 8960};
  constexpr uint32_t kBuffers[] = {2'000, 8'192, 65'535, 65'536, 262'144, 1'000'000};
  c.mss = kMss[r.below(std::size(kMss))];
  c.rcv_buf = kBuffers[r.below(std::size(kBuffers))];
  c.rcv_wnd_initial = static_cast<uint32_t>(r.between(1'000, 65'536));
  c.snd_buf = kBuffers[r.below(std::size(kBuffers))];
  c.sack = !r.chance(1, 4);
  c.timestamps = !r.chance(1, 4);
  c.window_scaling = !r.chance(1, 5);
  c.delayed_ack = !r.chance(1, 5);
  c.nodelay = !r.chance(1, 4);
  c.congestion = r.chance(1, 3) ? tcp::CongestionAlgorithm::kReno : tcp::CongestionAlgorithm::kCubic;
  if (r.chance(1, 4)) c.keepalive_idle_ns = 2 * base::kSecond, c.keepalive_interval_ns = base::kSecond, c.keepalive_probes = 30;
  return c;
}

Plan random_plan(base::Prng& r) {
  Plan p;
  constexpr uint64_t kSizes[] = {0, 1, 100, 1'460, 10'000, 100'000, 400'000};
  p.send_bytes = kSizes[r.below(std::size(kSizes))];
  if (p.send_bytes > 1) p.send_bytes = r.between(p.send_bytes / 2, p.send_bytes);
  p.write_size = static_cast<uint32_t>(r.chance(1, 3) ? r.between(1, 600) : r.between(600, 70'000));
  if (p.send_bytes > 20'000) p.write_size = std::max(p.write_size, 200u);
  if (r.chance(1, 4)) {
    p.read_interval = r.between(1, 200) * base::kMillisecond;
    p.read_size = static_cast<uint32_t>(r.between(2'000, 100'000));
  }
  if (r.chance(1, 6)) p.write_interval = r.between(1, 20) * base::kMillisecond;
  if (p.write_interval > 0) p.write_size = std::max<uint32_t>(p.write_size, static_cast<uint32_t>(p.send_bytes / 1000 + 1));
  p.close_when_sent = true;
  p.mini_time_wait = r.chance(1, 2);
  return p;
}

Link random_link(base::Prng& r) {
  Link l;
  constexpr double kLoss[] = {0, 0, 0.001, 0.01, 0.05, 0.15, 0.30};
  l.loss = kLoss[r.below(std::size(kLoss))];
  if (r.chance(1, 3)) l.duplicate = r.unit() * 0.1;
  if (r.chance(1, 3)) l.corrupt = r.unit() * 0.05;
  constexpr TimeNs kDelay[] = {20 * base::kMicrosecond, base::kMillisecond, 10 * base::kMillisecond, 80 * base::kMillisecond,
                               300 * base::kMillisecond};
  l.delay = kDelay[r.below(std::size(kDelay))];
  if (r.chance(1, 2)) l.jitter = r.below(l.delay * 2 + 1);
  if (r.chance(1, 2)) {
    constexpr uint64_t kRates[] = {50'000, 1'000'000, 12'500'000, 125'000'000};
    l.bytes_per_second = kRates[r.below(std::size(kRates))];
    l.queue_bytes = static_cast<uint32_t>(r.between(12'000, 300'000));
  }
  return l;
}

}  // namespace

Scenario random_scenario(uint64_t seed) {
  base::Prng r(seed);
  Scenario s;
  s.seed = seed;
  s.link[0] = random_link(r);
  s.link[1] = random_link(r);
  s.heal_at = r.between(1, 15) * base::kSecond;
  s.end_at = 1'200 * base::kSecond;
  s.backlog = r.chance(1, 3) ? 0 : 16;  // 0: SYN cookies for everybody
  const uint64_t n = r.between(1, 4);
  const tcp::Config server = random_config(r);
  for (uint64_t i = 0; i < n; ++i) {
    ConnectionPlan c;
    c.client_port = static_cast<uint16_t>(40'000 + i);
    c.start = r.below(2'000) * base::kMillisecond;
    c.simultaneous = r.chance(1, 8);
    c.client = random_plan(r);
    c.server = random_plan(r);
    c.client_config = random_config(r);
    c.server_config = server;
    if (r.chance(1, 10)) c.client.abort_at = r.below(5'000) * base::kMillisecond;
    if (r.chance(1, 10)) c.server.abort_at = r.below(5'000) * base::kMillisecond;
    c.server.close_when_sent = r.chance(1, 2);
    s.connections.push_back(c);
  }
  if (r.chance(1, 4)) s.repairs = 1;  // nearly never one to be had
  return s;
}

}  // namespace millrace::sim
