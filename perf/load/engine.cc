#include "perf/load/engine.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace::load {

using base::Error;

namespace {

uint32_t client_address_count(const Network& n) {
  const uint32_t host_bits = (n.address.is_v4() ? 32u : 128u) - n.bits;
  return host_bits >= 16 ? kMaxClientAddresses : 1u << host_bits;
}

// The address with its host bits zero.
base::IpAddress network_address(const Network& n) {
  base::IpAddress a = n.address;
  const uint32_t keep = n.address.is_v4() ? 96u + n.bits : n.bits;
  for (uint32_t bit = keep; bit < 128; ++bit) a.bytes[bit / 8] &= static_cast<uint8_t>(~(0x80 >> (bit % 8)));
  return a;
}

base::IpAddress plus(base::IpAddress a, uint64_t n) {
  for (int i = 15; i >= 0 && n != 0; --i) {
    n += a.bytes[static_cast<size_t>(i)];
    a.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(n);
    n >>= 8;
  }
  return a;
}

// How many addresses first … last are; 0 when more than the limit.
uint32_t range_count(const ServerRange& r) {
  uint64_t d = 0;
  for (size_t i = 0; i < 16; ++i) {
    const int64_t digit = static_cast<int64_t>(r.last.bytes[i]) - r.first.bytes[i];
    d = d * 256 + static_cast<uint64_t>(digit);
    if (static_cast<int64_t>(d) > kMaxServerAddresses) return 0;
  }
  return d >= kMaxServerAddresses ? 0 : static_cast<uint32_t>(d) + 1;
}

}  // namespace

Engine::Engine(const Options& options, const TargetTable& targets, const TableConfig& table)
    : options_(options), table_(table), shared_{options, counters_, table_, wires_}, tcp_(shared_) {
  if (has_clients()) client_ = std::make_unique<HttpClient>(shared_, tcp_, targets);
  if (has_servers()) server_ = std::make_unique<HttpServer>(shared_, tcp_);
  tcp_.set_applications(client_.get(), server_.get());
}

Engine::~Engine() = default;

base::Result<std::unique_ptr<Engine>> Engine::create(const Options& options, const TargetTable& targets,
                                                     std::span<io::PortQueue* const> ports, io::PacketPool pool, TlsPeer* tls,
                                                     uint64_t seed) {
  if (ports.empty() || ports.size() != options.wires.size() || ports.size() > kMaxWires)
    return Error{"one or two wires are needed, each with its port"};
  TableConfig config;
  const bool clients = options.role == Role::kBoth || options.role == Role::kClients;
  const bool servers = options.role == Role::kBoth || options.role == Role::kServers;
  uint32_t own_v6 = 0;
  bool any_v6 = false;
  if (clients) {
    config.clients = options.connections + options.idle;
    config.client_v6 = !options.clients.address.is_v4();
    config.client_addresses = client_address_count(options.clients);
    if (config.client_v6) own_v6 += config.client_addresses, any_v6 = true;
    else config.client_first = network_address(options.clients).v4_host_order();
    const uint64_t tuples = uint64_t{config.client_addresses} * (kLastClientPort - kFirstClientPort + 1);
    if (config.clients == 0 || std::bit_ceil(uint64_t{config.clients}) > tuples)
      return Error{"the network of --clients has too few addresses for " + std::to_string(config.clients) + " connections"};
    for (const Endpoint& t : options.targets)
      if (t.address.is_v4() == config.client_v6)
        return Error{"--target and --clients are of different families: " + t.address.to_string()};
    if (options.targets.empty()) return Error{"clients need a --target"};
    config.rings = options.pipeline > 1 ? config.clients : 0;
  }
  if (servers) {
    config.servers = options.max_server_connections;
    config.rings += std::min(config.servers, 65'536u);
    for (const ServerRange& r : options.servers) {
      const uint32_t n = range_count(r);
      if (n == 0) return Error{"--servers has a range of more than " + std::to_string(kMaxServerAddresses) + " addresses"};
      if (!r.first.is_v4()) own_v6 += n, any_v6 = true;
    }
    if (options.servers.empty()) return Error{"servers need --servers"};
  }

  std::unique_ptr<Engine> engine(new Engine(options, targets, config));
  Engine& e = *engine;
  e.shared_.tls = tls;
  if (any_v6) e.book_ = std::make_unique<AddressBook>(own_v6);
  if (options.role == Role::kForward) e.own_.add_everything();
  for (const WireOptions& w : options.wires) {
    e.own_.add(w.router.address, 1);
    if (w.router6) e.own_.add(w.router6->address, 1);
  }
  std::vector<AddressId> remotes;
  if (clients) {
    const base::IpAddress first = network_address(options.clients);
    e.own_.add(first, config.client_addresses);
    if (config.client_v6)
      for (uint32_t i = 0; i < config.client_addresses; ++i) e.book_->intern(plus(first, i).bytes.data());
    for (const Endpoint& t : options.targets)
      remotes.push_back(t.address.is_v4() ? t.address.v4_host_order() : e.book_->intern(t.address.bytes.data()));
  }
  if (servers) {
    std::vector<HttpServer::Range> ranges;
    for (const ServerRange& r : options.servers) {
      const uint32_t n = range_count(r);
      e.own_.add(r.first, n);
      if (r.first.is_v4()) {
        ranges.push_back({false, r.first.v4_host_order(), r.last.v4_host_order(), r.port_first, r.port_last});
        continue;
      }
      for (uint32_t i = 0; i < n;
           ++i) {  // ids of a range need not follow each other when ranges overlap: one range an address then
        const AddressId id = e.book_->intern(plus(r.first, i).bytes.data());
        if (i != 0 && ranges.back().last + 1 == id) ranges.back().last = id;
        else ranges.push_back({true, id, id, r.port_first, r.port_last});
      }
    }
    e.server_->prepare(std::move(ranges));
  }
  for (size_t w = 0; w < ports.size(); ++w) {
    e.wires_.push_back(std::make_unique<Wire>(*ports[w], pool, options.wires[w], e.own_, e.book_.get(), e.counters_, options.loss,
                                              seed + 7919 * (w + 1)));
  }
  if (options.flood > 0) e.flood_ = std::make_unique<Flood>(options, *e.wires_[0], e.counters_, seed ^ 0xf100d);
  if (clients) e.client_->prepare(0, config.client_v6, std::move(remotes), seed);
  return engine;
}

bool Engine::step(base::TimeNs now) {
  shared_.now = now;
  shared_.now_ms = static_cast<uint32_t>(now / base::kMillisecond);
  if (last_step_worked_) busy_ns_ += now - last_step_;
  last_step_ = now;
  const uint64_t sent_before = counters_.tx_frames;
  uint32_t frames = 0;
  if (options_.role == Role::kForward) [[unlikely]] {
    frames = forward();
  } else {
    for (uint8_t w = 0; w < wires_.size(); ++w) {
      Segment burst[Wire::kBurst];
      uint32_t received = 0;
      const uint32_t n = wires_[w]->receive(now, burst, received);
      if (n != 0) tcp_.input_burst(w, {burst, n});
      frames += received;
    }
    if (client_ != nullptr && phase_ >= Phase::kRamping) {
      client_->advance();
      tcp_.finish_burst();
    }
    table_.deadlines.sweep(shared_.now_ms, [&](uint32_t i) { tcp_.on_deadline(i); });
    tcp_.finish_burst();
    tcp_.unblock();
    if (flood_ != nullptr && phase_ >= Phase::kWarmup && phase_ < Phase::kDraining) flood_->step(now);
  }
  for (auto& w : wires_) w->flush();
  last_step_worked_ = frames != 0 || counters_.tx_frames != sent_before;
  advance_phase(now);
  if (now >= next_publish_) {
    next_publish_ = now + kPublishEvery;
    published_.publish(sample(now));
  }
  return phase_ != Phase::kDone;
}

// Back to the router with MAC addresses swapped and nothing else: clients and servers that ask each other directly talk through
// it.
uint32_t Engine::forward() {
  uint32_t frames = 0;
  for (auto& w : wires_) {
    rte_mbuf* burst[Wire::kBurst];
    uint32_t received = 0;
    const uint32_t n = w->receive_raw(burst, received);
    frames += received;
    for (uint32_t i = 0; i < n; ++i) {
      uint8_t* p = rte_pktmbuf_mtod(burst[i], uint8_t*);
      uint8_t mac[6];
      std::memcpy(mac, p, 6);
      std::memcpy(p, p + 6, 6);
      std::memcpy(p + 6, mac, 6);
      w->forward(burst[i]);
    }
    counters_.forwarded += n;
  }
  return frames;
}

// --- phases -----------------------------------------------------------------------------------------------------------------

Sample Engine::sample(base::TimeNs now) const {
  Sample s;
  s.now = now;
  s.phase = phase_;
  s.counters = counters_;
  if (client_ != nullptr) {
    s.client_connections = client_->open();
    s.idle_connections = client_->idle();
    s.backlog = client_->backlog();
  }
  s.server_connections = table_.servers_open();
  s.busy_ns = s.busy_measured_ns = busy_ns_;
  return s;
}

void Engine::enter(Phase p, base::TimeNs now) {
  phase_ = p;
  phase_start_ = now;
}

// What was recorded until now is the result's; what follows is nobody's.
void Engine::swap_histograms() {
  if (client_ == nullptr) return;
  std::swap(result_.latency, client_->latency());
  std::swap(result_.connect_latency, client_->connect_latency());
}

void Engine::begin_draining(base::TimeNs now) {
  shared_.stopping = true;
  enter(Phase::kDraining, now);
}

void Engine::advance_phase(base::TimeNs now) {
  if (phase_start_ == 0) phase_start_ = now;
  const base::TimeNs elapsed = now - phase_start_;
  const bool stop = stop_.load(std::memory_order_relaxed);
  if (stop && phase_ < Phase::kDraining) {
    result_.interrupted = options_.duration_ns != 0;  // else it is the way to end it
    if (phase_ == Phase::kMeasuring) result_.end = sample(now);
    else if (phase_ < Phase::kMeasuring) result_.failure = std::string("ended by a signal while ") + to_string(phase_);
    if (phase_ == Phase::kMeasuring) swap_histograms();
    return begin_draining(now);
  }
  switch (phase_) {
    case Phase::kResolving: {
      const bool resolved = std::all_of(wires_.begin(), wires_.end(), [](const auto& w) { return w->resolved(); });
      if (resolved || !has_clients()) {
        // Servers and forwarders learn their peer's MAC when it asks for theirs.
        enter(has_clients() ? Phase::kProbing : Phase::kWarmup, now);
      } else if (elapsed > kReadyTimeout) {
        for (const auto& w : wires_)
          if (!w->resolved())
            result_.failure =
                "no answer from " + w->options().dut.to_string() + " to ARP or neighbour discovery on " + w->options().devargs;
        begin_draining(now);
      } else {
        for (auto& w : wires_)
          if (!w->resolved()) w->resolve(now);
      }
      break;
    }
    case Phase::kProbing:
      // What listens may not be there yet when its addresses are: it is given time, and what was tried does not count.
      if (client_->probe()) {
        counters_ = Counters{};
        enter(Phase::kRamping, now);
      } else if (elapsed > kReadyTimeout) {
        const Endpoint& t = options_.targets[0];
        result_.failure = t.address.to_string() + " does not accept connections on port " + std::to_string(t.port);
        begin_draining(now);
      }
      break;
    case Phase::kRamping: {
      const double ramp_s = (static_cast<double>(options_.connections) + options_.idle) / std::max(options_.ramp, 1u);
      if (client_->ramped()) {
        client_->start_load(now);
        enter(Phase::kWarmup, now);
      } else if (elapsed > static_cast<base::TimeNs>(ramp_s * 1e9) + kRampSlack) {
        result_.failure = "only " + std::to_string(client_->open()) + " of " + std::to_string(table_.clients()) +
                          " connections were open at the end of the ramp";
        begin_draining(now);
      }
      break;
    }
    case Phase::kWarmup:
      if (elapsed < options_.warmup_ns) break;
      result_.start = sample(now);
      result_.offered_rate = options_.rate;
      if (client_ != nullptr) {
        client_->latency().clear();
        client_->connect_latency().clear();
        if (options_.wake > 0) client_->begin_waking();
      }
      enter(Phase::kMeasuring, now);
      break;
    case Phase::kMeasuring: {
      const bool forever = options_.duration_ns == 0;
      const bool asked_all = client_ != nullptr && client_->exhausted() && now >= next_quiet_check_ && client_->quiet();
      if (now >= next_quiet_check_) next_quiet_check_ = now + base::kMillisecond;
      if ((forever || elapsed < options_.duration_ns) && !asked_all) break;
      result_.end = sample(now);
      swap_histograms();
      if (options_.hold_ns != 0) enter(Phase::kHolding, now);
      else begin_draining(now);
      break;
    }
    case Phase::kHolding:
      if (elapsed >= options_.hold_ns) begin_draining(now);
      break;
    case Phase::kDraining:
      if (client_ != nullptr && !clients_closed_) {
        if (servers_end_ == 0) {  // answers are still waited for
          if (now < next_quiet_check_) break;
          next_quiet_check_ = now + 5 * base::kMillisecond;
          if (!client_->quiet() && elapsed < kDrainTimeout) break;
        }
        servers_end_ = now + kSettle;
        clients_closed_ = client_->close_some(elapsed > kCloseTimeout);
        break;
      }
      if (now < servers_end_ || (server_ != nullptr && !server_->close_some(elapsed > 2 * kCloseTimeout))) break;
      for (const auto& w : wires_)
        if (w->queued() != 0 && elapsed < kDrainTimeout) return;
      result_.last = sample(now);
      result_.last.phase = Phase::kDone;
      phase_ = Phase::kDone;
      published_.publish(result_.last);
      break;
    case Phase::kDone:
      break;
  }
}

}  // namespace millrace::load
