// millrace-dataplane: one DPDK primary process with a poll-mode worker on each configured core, the table loader's thread, and
// this main thread, which starts everything, then only waits for the end. Everything that can go wrong with the machine is found
// here, before the first packet, and ends the program with one line.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <signal.h>
#include <sstream>
#include <string>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>

#include "dataplane/control_link.h"
#include "dataplane/host_bridge.h"
#include "dataplane/table_loader.h"
#include "dataplane/watchdog.h"
#include "dataplane/worker.h"
#include "lib/base/service_notify.h"
#include "lib/bootstrap/dataplane_section.h"
#include "lib/io/eal.h"
#include "lib/io/port.h"
#include "lib/route/pattern_db.h"
#include "lib/tls/context.h"
#include "lib/tls/memory.h"

namespace millrace::dataplane {
namespace {

inline constexpr uint32_t kTlsArenaMegabytes = 256;  // of a worker: about 10,000 idle sessions (lib/tls/README.md)

struct Options {
  std::string config_file;
  std::string dataplane;  // the section, instead of the file's
  std::string run_dir = "/run/millrace";
  std::string file_prefix;
  bool check = false;
};

// Exit codes, as documented in README.md.
enum Exit : int { kOk = 0, kUsage = 2, kConfig = 3, kMachine = 4, kLeak = 5 };

int fail(int code, const std::string& message) {
  std::fprintf(stderr, "millrace-dataplane: %s\n", message.c_str());
  return code;
}

uint64_t random_u64() {
  uint64_t v = 0;
  while (v == 0)
    if (getrandom(&v, sizeof v, 0) != sizeof v) v = 0;
  return v;
}

uint64_t clock_ns(clockid_t id) {
  timespec t;
  clock_gettime(id, &t);
  return static_cast<uint64_t>(t.tv_sec) * base::kSecond + static_cast<uint64_t>(t.tv_nsec);
}

tcp::Config tcp_config(const bootstrap::TcpSection& s) {
  tcp::Config c;
  c.rcv_buf = s.rcv_buf;
  c.rcv_wnd_initial = s.rcv_wnd_initial;
  c.snd_buf = s.snd_buf;
  c.sack = s.sack;
  c.timestamps = s.timestamps;
  c.window_scaling = s.window_scaling;
  switch (s.congestion) {
    case bootstrap::CongestionControl::kCubic:
      c.congestion = tcp::CongestionAlgorithm::kCubic;
      break;
    case bootstrap::CongestionControl::kReno:
      c.congestion = tcp::CongestionAlgorithm::kReno;
      break;
    case bootstrap::CongestionControl::kBbr:
      c.congestion = tcp::CongestionAlgorithm::kBbr;
      break;
  }
  switch (s.ecn) {
    case bootstrap::EcnUse::kOff:
      c.ecn = tcp::EcnMode::kOff;
      break;
    case bootstrap::EcnUse::kAccept:
      c.ecn = tcp::EcnMode::kAccept;
      break;
    case bootstrap::EcnUse::kRequest:
      c.ecn = tcp::EcnMode::kRequest;
      break;
  }
  c.delayed_ack = s.delayed_ack;
  c.delayed_ack_ns = s.delayed_ack_ms * base::kMillisecond;
  c.rto_min_ns = s.rto_min_ms * base::kMillisecond;
  c.rto_initial_ns = s.rto_initial_ms * base::kMillisecond;
  c.rto_max_ns = s.rto_max_ms * base::kMillisecond;
  c.connect_timeout_ns = s.connect_timeout_ms * base::kMillisecond;
  c.user_timeout_ns = s.user_timeout_ms * base::kMillisecond;
  c.keepalive_idle_ns = s.keepalive_idle_ms * base::kMillisecond;
  c.keepalive_interval_ns = s.keepalive_interval_ms * base::kMillisecond;
  c.keepalive_probes = static_cast<uint8_t>(s.keepalive_probes);
  c.fin_wait_2_ns = s.fin_wait_2_ms * base::kMillisecond;
  c.time_wait_ns = s.time_wait_ms * base::kMillisecond;
  return c;
}

InterfaceConfig interface_config(const bootstrap::LinkSection& p, uint16_t device, uint16_t mtu) {
  InterfaceConfig i;
  i.device = device;
  i.vlan = p.vlan;
  i.mtu = mtu;
  i.dad_transmits = static_cast<uint8_t>(p.dad);
  for (const bootstrap::Prefix& a : p.addresses) i.addresses.push_back({a.address, a.bits});
  for (const bootstrap::RouteSection& r : p.routes) i.routes.push_back({r.to.address, r.to.bits, r.via});
  for (const base::IpAddress& g : p.gateways) i.routes.push_back({g.is_v4() ? base::IpAddress::v4(0) : base::IpAddress{}, 0, g});
  for (const bootstrap::NeighborSection& n : p.neighbors) i.neighbors.push_back({n.address, n.mac});
  return i;
}

IpLayerConfig ip_config(const bootstrap::DataplaneSection& s) {
  IpLayerConfig ip;
  for (uint16_t d = 0; d < s.ports.size(); ++d) ip.ports.push_back(interface_config(s.ports[d], d, s.ports[d].mtu));
  for (uint16_t d = 0; d < s.ports.size(); ++d)
    for (const bootstrap::LinkSection& v : s.ports[d].vlans) ip.ports.push_back(interface_config(v, d, s.ports[d].mtu));
  ip.max_neighbors = s.limits.neighbors;
  ip.max_icmp_per_second = s.limits.icmp_per_second;
  ip.max_fragments = s.limits.fragments;
  return ip;
}

AdmissionConfig admission_config(const bootstrap::LimitsSection& s) {
  AdmissionConfig c;
  c.max_active_downstream_connections = s.max_active_downstream_connections;
  c.listener_limits = s.connection_limit != 0 || !s.listener_connection_limits.empty();
  for (const bootstrap::SourceSection& x : s.sources)
    c.sources.push_back({x.ipv4_prefix, x.ipv6_prefix, x.syns_per_second, x.burst, x.connections});
  c.source_table = s.source_table;
  return c;
}

struct WorkerThread {
  Worker* worker = nullptr;
  const std::atomic<bool>* stop = nullptr;
};
int run_worker(void* argument) {
  const WorkerThread& t = *static_cast<WorkerThread*>(argument);
  t.worker->run(*t.stop);
  return 0;
}

// What devices count by themselves (frames that never reached a worker), once a second or more often, into words of worker 0 that
// nobody else writes.
void publish_device_stats(const std::vector<std::unique_ptr<io::Port>>& ports, stats::WorkerBlock& block) {
  using stats::DropReason;
  using stats::PortCounter;
  uint64_t no_mbuf = 0, errors = 0;
  for (size_t i = 0; i < ports.size(); ++i) {
    const io::PortDeviceStats s = ports[i]->device_stats();
    auto& counters = block.ports[i];
    counters[PortCounter::kRxMissed].set(s.rx_missed);
    counters[PortCounter::kRxErrors].set(s.rx_errors);
    counters[PortCounter::kRxNoMbuf].set(s.rx_no_mbuf);
    counters[PortCounter::kTxErrors].set(s.tx_errors);
    no_mbuf += s.rx_no_mbuf;
    errors += s.rx_errors;
  }
  block.drops[static_cast<uint32_t>(DropReason::kRxNoMbuf)].set(no_mbuf);
  block.drops[static_cast<uint32_t>(DropReason::kRxPortError)].set(errors);
}

// Links that came up, for worker 0; duplicates of our addresses, for people.
class Links {
 public:
  Links(const std::vector<std::unique_ptr<io::Port>>& ports, const IpLayerConfig& ip, LinkWatch& watch)
      : ports_(ports), ip_(ip), watch_(watch), up_(ports.size(), true) {}
  void look() {
    for (size_t p = 0; p < ports_.size(); ++p) {
      const bool up = ports_[p]->link_up();
      const std::optional<std::string> moved = ports_[p]->look_at_members();
      if (moved) std::fprintf(stderr, "millrace-dataplane: port %s: %s\n", ports_[p]->name().c_str(), moved->c_str());
      if (up && (!up_[p] || moved)) watch_.came_up[p].fetch_add(1, std::memory_order_relaxed);
      if (up != up_[p])
        std::fprintf(stderr, "millrace-dataplane: port %s: link %s\n", ports_[p]->name().c_str(), up ? "up" : "down");
      up_[p] = up;
    }
    const uint64_t duplicates = watch_.duplicates.load(std::memory_order_relaxed);
    uint32_t n = 0;
    for (const InterfaceConfig& i : ip_.ports) {
      for (const InterfaceAddress& a : i.addresses) {
        if (n < 64 && ((duplicates & ~told_) >> n & 1) != 0)
          std::fprintf(
              stderr, "millrace-dataplane: port %s: another node has %s; the address is not used (duplicate address detection)\n",
              ports_[i.device]->name().c_str(), a.address.to_string().c_str());
        ++n;
      }
    }
    told_ |= duplicates;
  }

 private:
  const std::vector<std::unique_ptr<io::Port>>& ports_;
  const IpLayerConfig& ip_;
  LinkWatch& watch_;
  std::vector<bool> up_;
  uint64_t told_ = 0;
};

// What the main thread does beside its waiting.
struct Supervised {
  const std::vector<std::unique_ptr<io::Port>>& ports;
  Links& links;
  Watchdog& watchdog;
  base::ServiceNotifier& manager;
  const HostBridge* bridge;
  stats::WorkerBlock& block;  // of worker 0
};

// Supervises until SIGTERM or SIGINT. Signals were blocked before the first thread was made, so only this thread sees them.
void supervise(const sigset_t& set, const Supervised& s) {
  bool bonds = false;
  for (const auto& p : s.ports) bonds = bonds || p->is_bond();
  uint64_t interval_ns = Watchdog::kLookEveryNs;
  if (bonds) interval_ns = std::min<uint64_t>(interval_ns, io::Bond::kLookEveryMs * base::kMillisecond);
  const timespec interval{0, static_cast<long>(interval_ns)};
  uint64_t slow_at = 0, alive_at = 0;
  int signal = 0;
  while ((signal = sigtimedwait(&set, nullptr, &interval)) < 0) {
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    s.watchdog.look(now);
    if (s.manager.alive_every_ns() != 0 && now >= alive_at && s.watchdog.all_turn()) {
      s.manager.alive();
      alive_at = now + s.manager.alive_every_ns();
    }
    if (!bonds && now < slow_at) continue;
    slow_at = now + base::kSecond;
    s.links.look();
    publish_device_stats(s.ports, s.block);
    if (s.bridge != nullptr) s.block.drops[static_cast<uint32_t>(stats::DropReason::kToHostRefused)].set(s.bridge->refused());
  }
  s.manager.stopping();
  std::fprintf(stderr, "millrace-dataplane: %s, stopping\n", strsignal(signal));
}

// The text that holds the section, and what errors call it: the configuration file, another one (@FILE), or the option itself,
// which is the section's value ("{cores: [1], …}", or a block of lines).
base::Result<std::pair<std::string, std::string>> section_text(const Options& options) {
  std::string name = options.config_file;
  if (!options.dataplane.empty() && options.dataplane[0] != '@') {
    std::string text = options.dataplane[0] == '{' ? "dataplane: " : "dataplane:\n  ";
    for (const char c : options.dataplane) text += c == '\n' ? std::string("\n  ") : std::string(1, c);
    return std::pair{text, std::string("--dataplane")};
  }
  if (!options.dataplane.empty()) name = options.dataplane.substr(1);
  std::ifstream file(name, std::ios::binary);
  if (!file) return base::Error{name + ": " + std::strerror(errno) + "; give the configuration with --config FILE"};
  std::stringstream text;
  text << file.rdbuf();
  return std::pair{text.str(), name};
}

int run(const Options& options) {
  const auto text = section_text(options);
  if (!text.ok()) return fail(kConfig, text.error());
  const std::string& source = text->second;
  bootstrap::SectionResult parsed = bootstrap::read_dataplane_section(text->first, source, options.run_dir);
  for (const bootstrap::SectionError& e : parsed.errors) std::fprintf(stderr, "%s\n", e.to_string().c_str());
  if (!parsed.errors.empty()) return kConfig;
  if (!parsed.present)
    return fail(
        kConfig,
        source +
            ": no `dataplane:` section; it says which ports, cores and addresses to use (README.md); --dataplane gives it "
            "on the command line");
  bootstrap::DataplaneSection section = *parsed.section;
  if (!options.file_prefix.empty()) section.file_prefix = options.file_prefix;
  if (options.check) {
    std::printf("%s: the dataplane section is good\n", source.c_str());
    return kOk;
  }
  base::ServiceNotifier manager;  // before the first thread: it clears the environment
  const uint32_t workers = static_cast<uint32_t>(section.cores.size());

  if (mkdir(options.run_dir.c_str(), 0755) != 0 && errno != EEXIST)
    return fail(kMachine, options.run_dir + ": " + std::strerror(errno) + "; make it, or choose another with --run-dir");

  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  if (const base::Status s = tls::install_memory_hooks(); !s.ok()) return fail(kMachine, s.error());

  io::EalOptions eal;
  eal.worker_cores = section.cores;
  eal.main_core = section.main_core;
  eal.share_cores = section.share_cores;
  eal.hugepages = section.hugepages;
  eal.memory_mb = section.memory_mb;
  eal.file_prefix = section.file_prefix;
  for (const bootstrap::PortSection& p : section.ports) {
    eal.devices.push_back(p.devargs);
    for (const std::string& m : p.member_devargs) eal.devices.push_back(m);
  }
  if (const base::Status s = io::init_eal(eal); !s.ok()) return fail(kMachine, s.error());

  // Packet pools: one set per worker, so that a packet is freed where it was allocated.
  std::vector<io::PacketPool> payload, headers, indirect;
  for (uint32_t w = 0; w < workers; ++w) {
    const unsigned lcore = io::worker_lcore(eal, w);
    const std::string suffix = std::to_string(w);
    auto a = io::make_eal_pool(("payload" + suffix).c_str(), section.limits.payload_packets, io::kPayloadRoom, lcore);
    if (!a.ok()) return fail(kMachine, a.error());
    auto b = io::make_eal_pool(("headers" + suffix).c_str(), section.limits.header_packets, io::kHeaderRoom, lcore);
    if (!b.ok()) return fail(kMachine, b.error());
    auto c = io::make_eal_pool(("indirect" + suffix).c_str(), section.limits.header_packets, 0, lcore);
    if (!c.ok()) return fail(kMachine, c.error());
    payload.push_back(*a);
    headers.push_back(*b);
    indirect.push_back(*c);
  }

  const uint64_t secrets[4] = {random_u64(), random_u64(), random_u64(), random_u64()};
  io::Steering steering(workers, secrets[0]);
  std::vector<std::unique_ptr<io::Port>> ports;
  for (uint32_t i = 0; i < section.ports.size(); ++i) {
    const bootstrap::PortSection& p = section.ports[i];
    io::PortOptions o;
    o.name = p.name;
    o.devargs = p.devargs;
    o.mtu = p.mtu;
    o.offloads = {p.offloads.checksum, p.offloads.tso, p.offloads.lro, p.offloads.scatter};
    o.mac = p.mac;
    o.workers = workers;
    o.queues = p.queues;
    o.members = p.member_devargs;
    o.every_group = section.exception.enable;
    o.rx_descriptors = static_cast<uint16_t>(section.limits.rx_descriptors);
    o.tx_descriptors = static_cast<uint16_t>(section.limits.tx_descriptors);
    for (const bootstrap::Prefix& a : p.addresses) o.addresses.push_back(a.address);
    for (const bootstrap::LinkSection& v : p.vlans)
      for (const bootstrap::Prefix& a : v.addresses) o.addresses.push_back(a.address);
    auto port = io::Port::open(o, payload);
    if (!port.ok()) return fail(kMachine, "port " + p.name + ": " + port.error());
    ports.push_back(std::move(port).value());
    if (ports.back()->rss().has_value()) steering.set_hardware(static_cast<uint16_t>(i), *ports.back()->rss());
  }
  std::fputs(io::capability_table(ports).c_str(), stderr);
  // What the drivers took when they started (net_af_xdp's fill rings) they keep until the process ends; for the check at its end.
  std::vector<uint32_t> kept_by_drivers(workers);
  uint32_t sent_not_returned = 0;
  for (uint32_t w = 0; w < workers; ++w) kept_by_drivers[w] = payload[w].capacity() - payload[w].available();
  for (const auto& p : ports) sent_not_returned += p->sent_packets_kept();

  stats::RegionConfig region_config;
  region_config.workers = workers;
  region_config.incarnation = random_u64();
  region_config.start_wall_ns = clock_ns(CLOCK_REALTIME);
  region_config.start_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  region_config.tsc_hz = io::tsc_hz();
  region_config.version = MILLRACE_VERSION;
  for (const auto& p : ports) region_config.port_names.push_back(p->name());
  auto segments = SharedSegments::create(region_config);
  if (!segments.ok()) return fail(kMachine, segments.error());
  auto region = stats::Region::create(segments->stats.bytes(), region_config);
  if (!region.ok()) return fail(kMachine, region.error());
  std::vector<std::unique_ptr<shm::RingProducer>> event_rings;
  for (shm::Segment& s : segments->worker_events) {
    event_rings.push_back(std::make_unique<shm::RingProducer>());
    if (const shm::RingError e = event_rings.back()->attach(s.bytes()); e != shm::RingError::kNone)
      return fail(kMachine, "event ring of a worker cannot be used");
  }
  std::vector<std::unique_ptr<shm::RingProducer>> inspection_rings;
  for (shm::Segment& s : segments->inspection) {
    inspection_rings.push_back(std::make_unique<shm::RingProducer>());
    if (const shm::RingError e = inspection_rings.back()->attach(s.bytes()); e != shm::RingError::kNone)
      return fail(kMachine, "inspection ring of a worker cannot be used");
  }
  shm::RingProducer loader_events;
  if (loader_events.attach(segments->loader_events.bytes()) != shm::RingError::kNone)
    return fail(kMachine, "event ring of the loader cannot be used");

  std::vector<std::unique_ptr<tls::LibraryContext>> libraries;
  std::vector<tls::Arena*> arenas;
  TableLoaderConfig loader_config;
  for (uint32_t w = 0; w < workers; ++w) {
    auto library = tls::LibraryContext::create();
    if (!library.ok()) return fail(kMachine, library.error());
    libraries.push_back(std::move(library).value());
    loader_config.tls_libraries.push_back(libraries.back().get());
    tls::Arena* arena = tls::Arena::create(size_t{kTlsArenaMegabytes} << 20);
    if (arena == nullptr)
      return fail(kMachine, "no memory for TLS sessions (" + std::to_string(kTlsArenaMegabytes) + " MB a worker)");
    arenas.push_back(arena);
  }
  loader_config.connection_limit = section.limits.connection_limit;
  loader_config.listener_limits = section.limits.listener_connection_limits;
  if (section.stage_accounting) loader_config.stage_period = stats::StageClock::kDefaultPeriod;
  loader_config.tls_key_capture = section.tls_key_capture;
  std::vector<WorkerTableSlot> slots(workers);
  TableLoader loader(loader_config, *region, slots, &loader_events);

  std::unique_ptr<HostBridge> bridge;
  std::vector<std::unique_ptr<ExceptionPath>> exceptions;
  if (section.exception.enable) {
    std::vector<HostBridge::Device> devices;
    for (const auto& p : ports) devices.push_back({section.exception.name + p->name(), p->capabilities().mac, p->options().mtu});
    auto made = HostBridge::create(devices, workers);
    if (!made.ok()) return fail(kMachine, made.error());
    bridge = std::move(made).value();
    std::vector<HostRule> rules;
    for (const bootstrap::HostRule& r : section.exception.to_host) rules.push_back({r.protocol, r.first, r.last});
    for (uint32_t w = 0; w < workers; ++w)
      exceptions.push_back(std::make_unique<ExceptionPath>(bridge->to_host(w), bridge->from_host(w), section.exception.rate,
                                                           rules, clock_ns(CLOCK_MONOTONIC)));
  }
  LinkWatch link_watch;
  const IpLayerConfig ip = ip_config(section);

  std::unique_ptr<io::HandoverMesh> mesh = workers > 1 ? std::make_unique<io::HandoverMesh>(workers) : nullptr;
  std::vector<std::vector<io::PortQueue*>> queues(workers);
  std::unique_ptr<HealthMesh> health_mesh;
  if (workers > 1) health_mesh = std::make_unique<HealthMesh>(*region);
  std::vector<std::unique_ptr<Worker>> pool;
  for (uint32_t w = 0; w < workers; ++w) {
    for (const auto& p : ports) queues[w].push_back(&p->queue(w));
    WorkerConfig c;
    c.index = w;
    c.workers = workers;
    c.shares_core = section.share_cores;
    c.limits.connections = section.limits.connections;
    c.stack.worker = w;
    c.stack.workers = workers;
    c.stack.max_connections = section.limits.connections;
    c.stack.max_half_open = section.limits.half_open;
    c.stack.max_time_wait = section.limits.time_wait;
    c.stack.local_port_first = section.limits.upstream_port_first;
    c.stack.local_port_last = section.limits.upstream_port_last;
    c.stack.admission = admission_config(section.limits);
    c.stack.max_resets_per_second = section.limits.resets_per_second;
    std::memcpy(c.stack.secret, secrets, sizeof secrets);
    c.stack.downstream = c.upstream_tcp = tcp_config(section.tcp);
    c.stack.ip = ip;
    c.stack.ip.exception = bridge != nullptr ? exceptions[w].get() : nullptr;
    c.stack.ip.worker = w;
    c.stack.ip.seed = secrets[1];
    c.seed = random_u64();
    WorkerResources r;
    r.ports = queues[w];
    r.steering = &steering;
    r.mesh = mesh.get();
    r.health_mesh = health_mesh.get();
    r.payload = payload[w];
    r.headers = headers[w];
    r.indirect = indirect[w];
    r.stats = region->worker_stats(w);
    r.events = event_rings[w].get();
    r.inspection = inspection_rings[w].get();
    r.tables = &slots[w];
    r.tls_arena = arenas[w];
    r.tls_library = libraries[w].get();
    r.links = w == 0 ? &link_watch : nullptr;
    pool.push_back(std::make_unique<Worker>(c, r, clock_ns(CLOCK_MONOTONIC)));
  }

  ControlLinkConfig link_config;
  link_config.socket_path = options.run_dir + "/dataplane.sock";
  link_config.versions = link_versions(route::platform());
  link_config.incarnation = region_config.incarnation;
  auto link = ControlLink::create(link_config, *segments, *region, loader);
  if (!link.ok()) return fail(kMachine, link.error());
  (*link)->start();
  if (bridge != nullptr) bridge->start();

  std::atomic<bool> stop{false};
  std::vector<WorkerThread> threads(workers);
  for (uint32_t w = 0; w < workers; ++w) {
    threads[w] = {pool[w].get(), &stop};
    if (const base::Status s = io::launch_worker(eal, w, run_worker, &threads[w]); !s.ok()) {
      stop = true;
      return fail(kMachine, s.error());
    }
  }
  std::fprintf(stderr, "millrace-dataplane: %u worker%s, %zu port%s, waiting for tables on %s\n", workers,
               workers == 1 ? "" : "s", ports.size(), ports.size() == 1 ? "" : "s", link_config.socket_path.c_str());

  manager.ready("waiting for tables on " + link_config.socket_path);

  Links links(ports, ip, link_watch);
  Watchdog watchdog(*region, clock_ns(CLOCK_MONOTONIC));
  supervise(signals, {ports, links, watchdog, manager, bridge.get(), region->worker(0)});
  stop = true;
  if (bridge != nullptr) bridge->stop();
  for (uint32_t w = 0; w < workers; ++w) io::wait_worker(eal, w);
  (*link)->stop();
  link->reset();
  for (auto& w : pool) w.reset();
  mesh.reset();
  ports.clear();
  // Every buffer must be back: a leak is our bug, and this is where it shows (end-to-end tests look at the exit code). All of it
  // is checked to the packet, but for what a driver keeps at its close: what it took at its start exactly, and sent packets up to
  // its ring's size.
  int code = kOk;
  for (uint32_t w = 0; w < workers; ++w)
    for (const io::PacketPool& p : {payload[w], headers[w], indirect[w]}) {
      const uint32_t missing = p.capacity() - p.available();
      const bool from_here = p.raw() == payload[w].raw();
      const uint32_t kept = from_here ? kept_by_drivers[w] : 0;
      if (missing <= kept + (from_here ? sent_not_returned : 0)) continue;
      std::fprintf(stderr, "millrace-dataplane: worker %u: %u packets of pool %s were not given back\n", w, missing - kept,
                   p.raw()->name);
      code = kLeak;
    }
  for (uint32_t w = 0; w < workers; ++w)
    for (const io::PacketPool& p : {payload[w], headers[w], indirect[w]}) io::free_eal_pool(p);
  io::cleanup_eal();
  return code;
}

}  // namespace
}  // namespace millrace::dataplane

int main(int argc, char** argv) {
  using namespace millrace::dataplane;
  Options options;
  CLI::App app{"Millrace data plane: moves packets, terminates TCP and TLS, routes HTTP. Tables come from millrace-control."};
  app.add_option("-c,--config", options.config_file, "configuration file with a `dataplane:` section (YAML or JSON)")->required();
  app.add_option("-d,--dataplane", options.dataplane,
                 "the section itself instead of the file's, \"{cores: [1], ports: […]}\", or @FILE for another file that has it");
  app.add_option("--run-dir", options.run_dir, "directory of the socket to millrace-control")->capture_default_str();
  app.add_option("--file-prefix", options.file_prefix, "name space of DPDK's files; default from the run directory");
  app.add_flag("--check", options.check, "check the section and exit");
  app.set_version_flag("--version", std::string("millrace-dataplane ") + MILLRACE_VERSION);
  CLI11_PARSE(app, argc, argv);
  return run(options);
}
