// millrace-load: start-up, the polling core, progress, the end. Exit codes: 0 clean, 1 errors in the run, 2 usage, 3 the machine.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include <rte_cycles.h>

#include "lib/io/eal.h"
#include "lib/io/packet_pool.h"
#include "lib/io/port.h"
#include "perf/load/engine.h"
#include "perf/load/options.h"
#include "perf/load/report.h"
#include "perf/load/spread_queue.h"
#include "perf/load/tls_peer.h"
#include "perf/load/workload.h"

namespace millrace::load {
namespace {

constexpr int kExitErrors = 1, kExitUsage = 2, kExitMachine = 3;
// Frames on their way: both rings of both wires, the engine's queues, and what caches hold.
constexpr uint32_t kPoolPackets = 49'151;
// For received frames that nobody cuts: one or two packets each instead of thirty. They are given back within the burst.
constexpr uint32_t kLargePackets = 2'047, kLargeRoom = 32 * 1024;

Engine* g_engine = nullptr;  // for the signal handler

void on_signal(int) {
  if (g_engine != nullptr) g_engine->stop();
}

int failed(const std::string& message, int code) {
  std::fprintf(stderr, "millrace-load: %s\n", message.c_str());
  return code;
}

// The invariant TSC as nanoseconds (DPDK measured its frequency at start).
class Clock {
 public:
  Clock() : start_(rte_get_tsc_cycles()), ns_per_cycle_((1e9 / static_cast<double>(rte_get_tsc_hz())) * 4294967296.0) {
    // Begins at the time of day within the 275 s in which initial sequence numbers come round (tcp_peer.h).
    timespec t{};
    clock_gettime(CLOCK_REALTIME, &t);
    begin_ = base::kSecond +
             (static_cast<uint64_t>(t.tv_sec) * base::kSecond + static_cast<uint64_t>(t.tv_nsec)) % (uint64_t{1} << 38);
  }
  base::TimeNs now() const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<base::TimeNs>(static_cast<Wide>(rte_get_tsc_cycles() - start_) * ns_per_cycle_ >> 32) + begin_;
  }

 private:
  uint64_t start_, ns_per_cycle_, begin_;
};

struct Polling {
  Engine& engine;
  TlsPeer* tls;
  std::atomic<bool> done{false};
};

int poll(void* argument) {
  auto& p = *static_cast<Polling*>(argument);
  if (p.tls != nullptr) p.tls->start_thread();
  const Clock clock;
  while (p.engine.step(clock.now())) {
  }
  if (p.tls != nullptr) p.tls->end_thread();
  p.done.store(true, std::memory_order_release);
  return 0;
}

base::Result<std::string> read_file(const std::string& path) {
  std::string out;
  FILE* f = std::fopen(path.c_str(), "rb");
  if (f == nullptr) return base::Error{"'" + path + "' cannot be read"};
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, f)) != 0;) out.append(buffer, n);
  std::fclose(f);
  return out;
}

base::Result<std::unique_ptr<TlsPeer>> make_tls(const Options& o, io::PacketPool pool) {
  TlsConfig config;
  config.clients = o.tls_clients;
  config.servers = o.tls_servers;
  config.targets = static_cast<uint32_t>(std::max<size_t>(o.targets.size(), 1));
  const bool clients = o.role != Role::kServers;
  config.max_sessions = (clients && o.tls_clients ? o.connections + o.idle : 0) + (o.tls_servers ? o.max_server_connections : 0);
  // Memory for as many as clients open; a servers' side alone cannot know how many will come.
  constexpr uint32_t kUnknownSessions = 4096;
  config.memory_sessions =
      clients ? (o.connections + o.idle) * (uint32_t{o.tls_clients} + uint32_t{o.tls_servers}) : kUnknownSessions;
  config.sni = o.sni;
  config.resume = o.tls_resume;
  config.tls12 = o.tls12;
  if (!o.certificate.empty()) {
    auto certificate = read_file(o.certificate);
    if (!certificate) return base::Error{"--certificate: " + certificate.error()};
    auto key = read_file(o.key);
    if (!key) return base::Error{"--key: " + key.error()};
    config.certificate_pem = std::move(*certificate);
    config.key_pem = std::move(*key);
  }
  return TlsPeer::create(config, pool);
}

base::Result<TargetTable> read_targets(const Options& o) {
  return o.targets_file.empty() ? TargetTable::single(o.host, o.path) : TargetTable::read(o.targets_file);
}

bool takes_uncut(const std::string& devargs) {
  return devargs.starts_with("net_vhost") && (devargs + ",").find(",tso=1,") != std::string::npos;
}

// net_vhost hands on segments of up to 64 KB that carry the marks of TSO, but does not say so. With tso=1 its user has asked for
// such segments.
void send_uncut(const io::Port& port, io::PortQueue& queue) {
  io::PortCapabilities c = queue.capabilities();
  if (!c.tx_tcp_checksum || !takes_uncut(port.options().devargs)) return;
  c.tso = c.tx_multi_segment = c.tso_sum_with_length = true;
  c.max_tx_segments = std::max<uint16_t>(c.max_tx_segments, 32);
  queue.set_capabilities(c);
}

int run(const Options& o) {
  sigset_t start_signal;  // blocked before any other thread is made, so that only sigwait() sees it
  sigemptyset(&start_signal);
  sigaddset(&start_signal, SIGUSR1);
  if (o.start_on_signal) pthread_sigmask(SIG_BLOCK, &start_signal, nullptr);

  auto targets = read_targets(o);
  if (!targets) return failed(targets.error(), kExitUsage);

  io::EalOptions eal;
  eal.worker_cores = {o.core};
  eal.main_core = o.main_core;
  eal.hugepages = o.hugepages;
  eal.memory_mb = o.memory_mb;
  eal.file_prefix = o.file_prefix.empty() ? "millrace-load-" + std::to_string(getpid()) : o.file_prefix;
  for (const WireOptions& w : o.wires) eal.devices.push_back(w.devargs);
  if (base::Status s = io::init_eal(eal); !s) return failed(s.error(), kExitMachine);

  auto pool = io::make_eal_pool("load", kPoolPackets, io::kPayloadRoom, io::worker_lcore(eal, 0));
  if (!pool) return failed(pool.error(), kExitMachine);

  io::PacketPool large;
  if (o.offloads != WireOffloads::kOff &&
      std::any_of(o.wires.begin(), o.wires.end(), [](const WireOptions& w) { return takes_uncut(w.devargs); })) {
    auto made = io::make_eal_pool("large", kLargePackets, kLargeRoom, io::worker_lcore(eal, 0));
    if (!made) return failed(made.error(), kExitMachine);
    large = *made;
  }

  std::unique_ptr<TlsPeer> tls;
  if (o.tls_clients || o.tls_servers) {
    auto made = make_tls(o, *pool);
    if (!made) return failed(made.error(), kExitMachine);
    tls = std::move(*made);
  }

  std::vector<std::unique_ptr<io::Port>> ports;
  std::vector<std::unique_ptr<SpreadQueue>> spread;
  std::vector<io::PortQueue*> queues;
  for (const WireOptions& w : o.wires) {
    io::PortOptions p;
    p.name = "wire" + std::to_string(ports.size());
    p.devargs = w.devargs;
    p.mtu = o.mtu;
    if (o.offloads == WireOffloads::kOff) p.offloads = {false, false, false, false};
    p.rx_descriptors = p.tx_descriptors = o.descriptors;
    p.addresses = {w.router.address};
    if (w.router6) p.addresses.push_back(w.router6->address);
    p.workers = o.queues;
    const std::vector<io::PacketPool> pools(o.queues, large.raw() != nullptr && takes_uncut(w.devargs) ? large : *pool);
    auto port = io::Port::open(p, pools);
    if (!port) return failed(port.error(), kExitMachine);
    ports.push_back(std::move(*port));
    std::vector<io::PortQueue*> each;
    for (uint32_t q = 0; q < o.queues; ++q) {
      each.push_back(&ports.back()->queue(q));
      if (o.offloads == WireOffloads::kAuto) send_uncut(*ports.back(), *each.back());
    }
    if (o.queues > 1) spread.push_back(std::make_unique<SpreadQueue>(each));
    queues.push_back(o.queues > 1 ? spread.back().get() : each.front());
  }

  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  const uint64_t seed =
      o.seed * 0x9e3779b97f4a7c15 ^ static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 ^ static_cast<uint64_t>(t.tv_nsec);
  auto engine = Engine::create(o, *targets, queues, *pool, tls.get(), seed);
  if (!engine) return failed(engine.error(), kExitUsage);
  g_engine = engine->get();
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);

  if (o.start_on_signal) {
    std::fputs("millrace-load: waiting for SIGUSR1\n", stderr);
    int number = 0;
    sigwait(&start_signal, &number);
  }
  Polling polling{**engine, tls.get(), {}};
  if (base::Status s = io::launch_worker(eal, 0, poll, &polling); !s) return failed(s.error(), kExitMachine);
  Progress progress(o, stderr);
  base::TimeNs slept = 0;
  uint32_t naps = 0;
  constexpr base::TimeNs kNap = 20 * base::kMillisecond;
  while (!polling.done.load(std::memory_order_acquire)) {
    const timespec nap{0, kNap};
    nanosleep(&nap, nullptr);
    slept += kNap;
    // Asking is what makes a listening net_virtio_user (server=1) take its next peer.
    if (++naps % 25 == 0)
      for (const auto& p : ports) (void)p->link_up();
    if (o.interval_ns != 0 && !o.quiet && slept >= o.interval_ns) {
      slept = 0;
      progress.line((*engine)->published().read());
    }
  }
  io::wait_worker(eal, 0);
  g_engine = nullptr;
  RunResult result = (*engine)->take_result();
  for (const auto& p : ports) {
    result.drivers.push_back(p->driver());
    for (const std::string& n : p->notes()) result.notes.push_back(p->name() + ": " + n);
    const io::PortDeviceStats s = p->device_stats();
    result.last.counters.rx_lost += s.rx_missed + s.rx_errors + s.rx_no_mbuf;
    result.last.counters.tx_lost += s.tx_errors;
  }
  const bool written = report(o, result);
  const int code = !result.failure.empty() ? kExitErrors : !written ? kExitMachine : result.clean() ? 0 : kExitErrors;
  for (const WireOptions& w : o.wires) {
    // DPDK 22.11's interrupt thread panics when a net_virtio_user that listens (server=1) is closed after its peer has gone: it
    // is left open.
    if (!w.devargs.starts_with("net_virtio_user") || w.devargs.find(",server=1") == std::string::npos) continue;
    const size_t path = w.devargs.find(",path=");
    if (path != std::string::npos) {
      const size_t from = path + 6;
      unlink(w.devargs.substr(from, w.devargs.find(',', from) - from).c_str());
    }
    std::fflush(nullptr);
    _exit(code);
  }
  (*engine).reset();
  tls.reset();
  ports.clear();
  io::free_eal_pool(*pool);
  if (large.raw() != nullptr) io::free_eal_pool(large);
  io::cleanup_eal();
  return code;
}

}  // namespace
}  // namespace millrace::load

int main(int argc, char** argv) {
  using namespace millrace::load;
  auto parsed = parse_options(argc, argv);
  if (!parsed) return failed(parsed.error(), kExitUsage);
  if (!parsed->help.empty()) {
    std::fputs(parsed->help.c_str(), stdout);
    return 0;
  }
  return run(parsed->options);
}
