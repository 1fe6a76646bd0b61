#include "perf/micro/worker_rig.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <time.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "lib/base/prng.h"
#include "lib/route/compiler.h"
#include "lib/table/link.h"
#include "lib/table/object_writer.h"
#include "lib/tls/memory.h"
#include "perf/micro/measured.h"
#include "tests/unit/tls/test_certificate.h"

namespace millrace::bench {

using namespace dataplane;

namespace {

constexpr uint32_t kEndpoints = 4;
constexpr base::TimeNs kStart = 1'000 * base::kSecond;
constexpr uint64_t kEventRing = 4 << 20;
constexpr uint64_t kWallStart = 1'700'000'000ull * base::kSecond;
constexpr uint32_t kRequestTexts = 16'384;  // different requests in a table of many routes
constexpr size_t kTlsArenaBytes = size_t{64} << 20;

[[noreturn]] void die(const std::string& why) {
  std::fprintf(stderr, "bench-worker: %s\n", why.c_str());
  std::exit(1);
}
template <class T>
T must(base::Result<T> r) {
  if (!r.ok()) die(r.error());
  return std::move(r).value();
}

IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }
io::MacAddress mac(uint8_t n) { return {2, 0, 0, 0, 0, n}; }

uint64_t clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * base::kSecond + static_cast<uint64_t>(t.tv_nsec);
}

std::vector<uint8_t> write_cluster(bool http2) {
  table::ObjectWriter w(table::Kind::kCluster, "c");
  table::Cluster o{};
  o.name = w.string("c");
  o.endpoint_set = table::object_id(table::Kind::kEndpointSet, "c");
  if (http2) o.http = table::UpstreamHttp::kHttp2;
  o.max_connections = o.max_pending_requests = o.max_requests = 65'536;
  return must(w.finish(o));
}
std::vector<uint8_t> write_endpoints() {
  table::ObjectWriter w(table::Kind::kEndpointSet, "c");
  table::EndpointSet o{};
  o.name = w.string("c");
  std::vector<table::Endpoint> list(kEndpoints);
  for (uint32_t i = 0; i < kEndpoints; ++i) {
    list[i].address = IpAddress::v4(0x0a020002 + i);
    list[i].port = 8000;
  }
  o.healthy = o.total_weight = kEndpoints;
  o.endpoints = w.array(list);
  return must(w.finish(o));
}
std::vector<uint8_t> write_secret() {
  const tls::CertificatePem pem = tls::testing::make_certificate({.common_name = "bench.example", .sans = {"DNS:bench.example"}});
  table::ObjectWriter w(table::Kind::kSecret, "s");
  table::Secret o{};
  o.name = w.string("s");
  o.certificate_chain_pem = w.blob({reinterpret_cast<const uint8_t*>(pem.chain.data()), pem.chain.size()});
  o.private_key_pem = w.blob({reinterpret_cast<const uint8_t*>(pem.key.data()), pem.key.size()});
  return must(w.finish(o));
}
std::vector<uint8_t> write_listener(const RigOptions& options) {
  table::ObjectWriter w(table::Kind::kListener, "l");
  table::Listener o{};
  o.name = w.string("l");
  o.address = ip("0.0.0.0");
  o.port = 80;
  std::vector<table::FilterChain> chains(1);
  chains[0].name = w.string("chain");
  if (options.tls) {
    const std::vector<table::ObjectId> secrets{table::object_id(table::Kind::kSecret, "s")};
    chains[0].has_tls = 1;
    chains[0].tls.secrets = w.array(secrets);
  }
  table::HttpConnectionManager& h = chains[0].hcm;
  h.stat_prefix = w.string("in");
  h.route_table = table::object_id(table::Kind::kRouteTable, "t");
  h.route_table_name = w.string("t");
  h.server_name = w.string("envoy");
  if (options.access_log) {
    std::vector<table::AccessLog> logs(1);
    logs[0].path = w.string("access.log");
    h.access_logs = w.array(logs);
  }
  o.filter_chains = w.array(chains);
  const std::vector<uint32_t> any{0};
  o.any_name_chains = w.array(any);
  return must(w.finish(o));
}

std::string route_prefix(uint32_t i) { return "/service-" + std::to_string(i) + "/v1/"; }

std::vector<std::string> request_texts(const RigOptions& options) {
  std::vector<std::string> out;
  base::Prng random(1);
  const uint32_t n = options.routes < 1'000 ? 1'000 : kRequestTexts;
  for (uint32_t i = 0; i < n; ++i) {
    const auto route = static_cast<uint32_t>(random.below(options.routes));
    out.push_back("GET " + route_prefix(route) + "item/" + std::to_string(random.below(100'000)) +
                  " HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n" +
                  (options.one_request_each ? "Connection: close\r\n" : "") + "\r\n");
  }
  return out;
}

}  // namespace

Gateway::Gateway(const RigOptions& options, uint32_t workers)
    : options_(options), workers_(workers), steering_(workers, 7), slots_(workers) {
  stats::RegionConfig r;
  r.workers = workers;
  r.port_names = {"in", "out"};
  r.incarnation = 5;
  region_memory_ = must(shm::Segment::create("stats", stats::region_size(r)));
  region_ = std::make_unique<stats::Region>(must(stats::Region::create(region_memory_.bytes(), r)));
  commands_memory_ = must(shm::Segment::create("commands", shm::ring_bytes(table::kDefaultCommandRing)));
  if (shm::format_ring(commands_memory_.bytes(), table::kDefaultCommandRing) != shm::RingError::kNone ||
      commands_.attach(commands_memory_.bytes()) != shm::RingError::kNone)
    die("a ring cannot be made");
  if (workers > 1) mesh_ = std::make_unique<io::HandoverMesh>(workers);
  TableLoaderConfig config;
  for (uint32_t w = 0; options.tls && w < workers; ++w) {
    libraries_.push_back(must(tls::LibraryContext::create()));
    config.tls_libraries.push_back(libraries_.back().get());
  }
  loader_ = std::make_unique<TableLoader>(config, *region_, std::span(slots_), nullptr);
  publish_tables();
}

Gateway::~Gateway() = default;

Rig::Rig(Gateway& gateway, uint32_t worker) : gateway_(gateway), index_(worker), now_(kStart) {
  const RigOptions& options = gateway.options();
  const unsigned lcore = rte_lcore_id();
  const std::string n = std::to_string(worker);
  payload_ = must(io::make_eal_pool(("payload" + n).c_str(), options.pool_packets, io::kPayloadRoom, lcore));
  headers_ = must(io::make_eal_pool(("headers" + n).c_str(), options.pool_packets / 4, io::kHeaderRoom, lcore));
  indirect_ = must(io::make_eal_pool(("indirect" + n).c_str(), options.pool_packets / 4, 0, lcore));
  inside_ = std::make_unique<MemoryPort>(mac(101));
  outside_ = std::make_unique<MemoryPort>(mac(102));
  events_memory_ = must(shm::Segment::create("events", shm::ring_bytes(kEventRing)));
  if (shm::format_ring(events_memory_.bytes(), kEventRing) != shm::RingError::kNone ||
      events_.attach(events_memory_.bytes()) != shm::RingError::kNone ||
      event_reader_.attach(events_memory_.bytes()) != shm::RingError::kNone)
    die("a ring cannot be made");
  tls::Arena* arena = nullptr;
  if (options.tls) {
    client_library_ = must(tls::LibraryContext::create());
    tls::ClientConfig client;
    client.min_version = client.max_version = tls::Version::kTls13;
    client_context_ = must(tls::ClientContext::create(*client_library_, client));
    arena = tls::Arena::create(kTlsArenaBytes);
    if (arena == nullptr) die("no memory for TLS");
  }

  WorkerConfig c;
  c.index = worker;
  c.workers = gateway.workers();
  c.seed = 42 + worker;
  c.stack.worker = worker;
  c.stack.workers = gateway.workers();
  c.stack.max_connections = c.limits.connections;
  for (uint32_t i = 0; i < 4; ++i) c.stack.secret[i] = 9 + i;
  InterfaceConfig in, out;
  in.addresses = {{ip("10.1.0.1"), 24}};
  out.addresses = {{ip("10.2.0.1"), 24}};
  for (uint32_t i = 0; i < 16; ++i) in.neighbors.push_back({IpAddress::v4(0x0a010002 + i), mac(1)});
  for (uint32_t i = 0; i < kEndpoints; ++i) out.neighbors.push_back({IpAddress::v4(0x0a020002 + i), mac(2)});
  c.stack.ip.ports = {in, out};
  c.stack.ip.worker = 1;  // announces nothing
  io::PortQueue* ports[] = {inside_.get(), outside_.get()};
  WorkerResources res;
  res.ports = ports;
  res.steering = &gateway.steering_;
  res.mesh = gateway.mesh_.get();
  res.payload = payload_;
  res.headers = headers_;
  res.indirect = indirect_;
  res.stats = gateway.region_->worker_stats(worker);
  res.events = &events_;
  res.tables = &gateway.slots_[worker];
  res.tls_arena = arena;
  res.tls_library = options.tls ? gateway.libraries_[worker].get() : nullptr;
  worker_ = std::make_unique<Worker>(c, res, now_);
  if (arena != nullptr) {
    tls::Arena::register_thread(arena);
    res.tls_library->warm_up_thread();
    client_library_->warm_up_thread();
  }

  ClientOptions co;
  co.connections = options.connections;
  co.body_bytes = options.body_bytes;
  co.one_request_each = options.one_request_each;
  co.requests = request_texts(options);
  co.http2 = options.http2;
  co.target = ip("10.1.0.1");
  co.tls = client_context_.get();
  if (gateway.workers() > 1)  // as the port's own spreading would have it
    co.mine = [&gateway, worker](const Flow& f) {
      return gateway.steering_.owner(0, f.remote, f.remote_port, f.local, f.local_port) == worker;
    };
  clients_ = std::make_unique<TemplateClients>(PeerWire{*inside_, payload_, mac(1), mac(101), options.timestamps}, co);
  servers_ = std::make_unique<TemplateServers>(PeerWire{*outside_, payload_, mac(2), mac(102), options.timestamps},
                                               ServerOptions{options.body_bytes, options.http2});
  turn_worker();  // takes the tables
  now_ += kTurn;
  clients_->start(now_);
}

Rig::~Rig() {
  clients_.reset();
  servers_.reset();
  worker_.reset();
  inside_.reset();
  outside_.reset();
  tls::Arena::register_thread(nullptr);
  client_context_.reset();
  for (const io::PacketPool& p : {payload_, headers_, indirect_}) {
    if (p.available() != p.capacity())
      std::fprintf(stderr, "bench-worker: %u packets of pool %s were not given back\n", p.capacity() - p.available(),
                   p.raw()->name);
    io::free_eal_pool(p);
  }
}

void Gateway::publish_tables() {
  std::vector<std::vector<uint8_t>> blobs;
  const auto compiled = [&](const route::CompiledObject& o) {
    for (const auto& e : o.errors) die(e.path + ": " + e.message);
    blobs.emplace_back(o.bytes(), o.bytes() + o.size_bytes);
  };
  route::VirtualHostSpec host;
  host.name = "h";
  host.domains = {"*"};
  for (uint32_t i = 0; i < options_.routes; ++i) {
    route::RouteSpec route;
    route.name = "r" + std::to_string(i);
    route.path = route_prefix(i);
    route.clusters.push_back({"c", 0, {}});
    host.routes.push_back(std::move(route));
  }
  const std::string object_name = route::virtual_host_object_name("t", "h");
  compiled(route::RouteCompiler().compile_virtual_host(host, object_name));
  route::RouteTableSpec table;
  table.name = "t";
  table.virtual_hosts = {{object_name, {"*"}}};
  compiled(route::compile_route_table(table));
  blobs.push_back(write_cluster(options_.http2));
  blobs.push_back(write_endpoints());
  blobs.push_back(write_listener(options_));
  if (options_.tls) blobs.push_back(write_secret());

  uint64_t size = table::kArenaFirstOffset + (1 << 20);
  for (const auto& b : blobs) size += (b.size() + 63) & ~uint64_t{63};
  arena_ = must(shm::Segment::create("arena", size, shm::Pages::kNormal));
  for (uint64_t piece = 0; piece < size; piece += shm::kHugePageSize) (void)arena_.make_huge(piece);  // as control's arena does
  uint64_t at = table::kArenaFirstOffset;
  std::vector<table::ObjectRef> refs;
  for (const auto& b : blobs) {
    std::memcpy(arena_.data() + at, b.data(), b.size());
    auto* header = reinterpret_cast<table::ObjectHeader*>(arena_.data() + at);
    header->version = 1;
    refs.push_back({header->id, at, 1, static_cast<uint32_t>(b.size()), header->kind, 0});
    at += (b.size() + 63) & ~uint64_t{63};
  }
  const std::vector<uint8_t> root = table::write_snapshot(1, 1, refs);
  table::PublishSnapshot command;
  command.count = static_cast<uint32_t>(refs.size());
  command.epoch = 1;
  command.root_offset = at;
  std::memcpy(arena_.data() + at, root.data(), root.size());
  auto arena = must(shm::Segment::map(shm::UniqueFd(::dup(arena_.fd())), shm::Access::kReadOnly, 1, uint64_t{4} << 30));
  auto ring = must(shm::Segment::map(shm::UniqueFd(::dup(commands_memory_.fd())), shm::Access::kReadWrite, 1, 1 << 30));
  if (const base::Status s = loader_->attach(std::move(arena), std::move(ring), 1); !s.ok()) die(s.error());
  if (!commands_.push({reinterpret_cast<const uint8_t*>(&command), sizeof command})) die("command ring");
  loader_->step(kStart);
  if (loader_->last_epoch() != 1) die("tables refused: " + loader_->last_rejection());
}

void Rig::turn_worker() { worker_->iterate(now_, kWallStart + now_); }

void Rig::turn_peers() {
  clients_->receive(now_);
  servers_->receive(now_);
  servers_->pump(now_);
  while (event_reader_.front().data() != nullptr) event_reader_.pop();
  now_ += kTurn;
}

uint64_t Rig::turn() {
  const uint64_t begun = clock_ns();
  turn_worker();
  const uint64_t took = clock_ns() - begun;
  turn_peers();
  return took;
}

void Rig::turn_untimed(bool measured) {
  const auto work = [this] { turn_worker(); };
  if (measured) bench::measured(work);
  else work();
  turn_peers();
}

bool Rig::run(uint64_t answers, bool measured) {
  const uint64_t goal = answered() + answers;
  uint64_t quiet = 0;
  while (answered() < goal && error().empty()) {
    const uint64_t before = answered();
    turn_untimed(measured);
    // A large body takes turns, a lost frame the retransmission timer: ten virtual seconds without an answer are too long.
    quiet = answered() == before ? quiet + 1 : 0;
    if (quiet > 10 * base::kSecond / kTurn) return false;
  }
  return error().empty();
}

std::string Rig::error() const {
  for (const PeerErrors* e : {&clients_->errors, &servers_->errors})
    if (e->count != 0) return e->first + " (" + std::to_string(e->count) + " errors)";
  return {};
}

}  // namespace millrace::bench
