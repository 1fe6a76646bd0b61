// What a packet costs at a memory port: cycles in the receive and transmit calls of net_virtio_user and in all that is done with
// it, against a net_vhost peer in a process of its own on another core that sends segments without checksum as fast as they are
// answered. Each frame received is freed, each one sent is fresh from the header pool, as in the gateway.
//   build/perf/port-cost [--arguments ,packed_vq=1,…] [--payload 90] [--outstanding 128] [--seconds 2] [--cores 0,1]
//   [--ordinary-pages]
// Prints one line: the best and the middle one of many short intervals (other work on the machine shows in the middle), frames a
// call, million packets a second.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
#include <x86intrin.h>

#include <rte_mbuf.h>

#include "lib/bootstrap/dataplane_section.h"
#include "lib/io/eal.h"
#include "lib/io/packet_pool.h"
#include "lib/io/port.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/tcp.h"

namespace millrace::bench {
namespace {

struct Options {
  std::string arguments;       // of virtio_user, beyond what bootstrap::expand_device fills in
  uint32_t payload = 90;       // bytes of a segment
  uint32_t outstanding = 128;  // frames under way
  double seconds = 2;
  uint32_t cores[2] = {0, 1};
  uint16_t descriptors = 1024;  // vhost ignores it, virtio_user takes its own queue_size
  uint16_t burst = io::kRxBurst;
  bool hugepages = true;
};

constexpr uint64_t kInterval = 4'096;  // packets

struct Machine {
  io::PacketPool payload, headers;
  std::unique_ptr<io::Port> port;
};

bool open(Machine& m, const Options& o, const std::string& device, uint32_t core) {
  io::EalOptions eal;
  eal.worker_cores = {core};
  eal.main_core = core == o.cores[0] ? o.cores[1] : o.cores[0];
  eal.hugepages = o.hugepages;
  eal.memory_mb = 128;
  eal.file_prefix = "port-cost" + std::to_string(getpid());
  if (const base::Status s = io::init_eal(eal); !s) return std::fprintf(stderr, "%s\n", s.error().c_str()), false;
  auto payload = io::make_eal_pool("payload", 16'384, io::kPayloadRoom, core);
  auto headers = io::make_eal_pool("headers", 16'384, io::kHeaderRoom + 512, core);
  if (!payload || !headers) return std::fprintf(stderr, "no memory\n"), false;
  m.payload = *payload;
  m.headers = *headers;
  io::PortOptions p;
  p.name = "bench";
  p.rx_descriptors = p.tx_descriptors = o.descriptors;
  std::string why;
  p.devargs = *bootstrap::expand_device(device, 0, 1500, 1, &why);
  auto port = io::Port::open(p, {&m.payload, 1});
  if (!port) return std::fprintf(stderr, "%s\n", port.error().c_str()), false;
  m.port = std::move(*port);
  for (int tries = 0; !m.port->link_up(); ++tries) {
    if (tries == 1000) return std::fprintf(stderr, "the peer does not come\n"), false;
    usleep(10'000);
  }
  return true;
}

// A segment as the gateway sends it: checksum left to the port.
rte_mbuf* make_frame(io::PacketPool& pool, uint32_t payload) {
  rte_mbuf* m = pool.alloc().release();
  if (m == nullptr) return nullptr;
  auto* at = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(54 + payload)));
  wire::EthernetRepr{{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, wire::kEtherIpv4, 0}.emit(at);
  wire::Ipv4Repr ip;
  ip.src = 0x0a010001;
  ip.dst = 0x0a010002;
  ip.protocol = wire::kIpTcp;
  ip.payload_length = static_cast<uint16_t>(20 + payload);
  ip.emit(at + 14);
  wire::TcpRepr tcp;
  tcp.flags = wire::kTcpAck;
  tcp.emit(at + 34);
  wire::store_checksum(at + 50, wire::checksum_fold(wire::pseudo_header_v4(ip.src, ip.dst, wire::kIpTcp, 20 + payload)));
  m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
  m->tx_offload = rte_mbuf_tx_offload(14, 20, 20, 0, 0, 0, 0);
  return m;
}

uint32_t make_frames(io::PacketPool& pool, uint32_t payload, rte_mbuf** out, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i)
    if ((out[i] = make_frame(pool, payload)) == nullptr) return i;
  return n;
}

struct Context {
  Machine* machine;
  const Options* options;
  std::vector<double> rx, tx, all;  // cycles a packet, by interval
  uint64_t packets = 0, calls = 0, cycles = 0;
};

int peer(void* argument) {
  Context& c = *static_cast<Context*>(argument);
  io::PortQueue& q = c.machine->port->queue(0);
  uint32_t under_way = 0;
  rte_mbuf* frames[128];
  uint64_t idle = 0;
  while (c.machine->port->link_up() || under_way == 0) {
    for (int turn = 0; turn < 4096; ++turn) {
      const uint32_t room = std::min<uint32_t>(c.options->outstanding - under_way, 32);
      if (room > 0) {
        const uint32_t n = make_frames(c.machine->headers, c.options->payload, frames, room);
        const uint32_t sent = q.tx_burst(frames, static_cast<uint16_t>(n));
        for (uint32_t i = sent; i < n; ++i) rte_pktmbuf_free(frames[i]);
        under_way += sent;
      }
      const uint32_t got = q.rx_burst(frames, 64);
      for (uint32_t i = 0; i < got; ++i) rte_pktmbuf_free(frames[i]);
      under_way -= std::min(got, under_way);
      idle = got == 0 ? idle + 1 : 0;
      if (idle > 50'000'000) under_way = 0;  // frames were lost: go on
    }
    if (getppid() == 1) break;
  }
  return 0;
}

int gateway(void* argument) {
  Context& c = *static_cast<Context*>(argument);
  io::PortQueue& q = c.machine->port->queue(0);
  rte_mbuf *in[128], *out[128];
  const uint64_t hz = io::tsc_hz(), start = __rdtsc();
  uint64_t in_interval = 0, rx = 0, tx = 0, all = 0, now = start;
  while (now - start < static_cast<uint64_t>(c.options->seconds * static_cast<double>(hz))) {
    const uint64_t t0 = __rdtsc();
    const uint32_t n = q.rx_burst(in, c.options->burst);
    const uint64_t t1 = now = __rdtsc();
    if (n == 0) continue;
    for (uint32_t i = 0; i < n; ++i) rte_pktmbuf_free(in[i]);
    const uint32_t made = make_frames(c.machine->headers, c.options->payload, out, n);
    const uint64_t t2 = __rdtsc();
    uint32_t sent = 0;
    while (sent < made) sent += q.tx_burst(out + sent, static_cast<uint16_t>(made - sent));
    now = __rdtsc();
    rx += t1 - t0;
    tx += now - t2;
    all += now - t0;
    in_interval += n;
    ++c.calls;
    c.packets += n;
    if (in_interval >= kInterval) {
      c.rx.push_back(static_cast<double>(rx) / static_cast<double>(in_interval));
      c.tx.push_back(static_cast<double>(tx) / static_cast<double>(in_interval));
      c.all.push_back(static_cast<double>(all) / static_cast<double>(in_interval));
      in_interval = rx = tx = all = 0;
    }
  }
  c.cycles = now - start;
  return 0;
}

int run(const Options& o) {
  char directory[] = "/tmp/millrace-port-cost-XXXXXX";
  if (mkdtemp(directory) == nullptr) return 1;
  const std::string socket = std::string(directory) + "/port.sock";
  const pid_t child = fork();
  Machine m;
  Context c{&m, &o, {}, {}, {}};
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!open(m, o, "vhost:" + socket, o.cores[0])) _exit(1);
    io::EalOptions eal;
    eal.worker_cores = {o.cores[0]};
    (void)io::launch_worker(eal, 0, peer, &c);
    io::wait_worker(eal, 0);
    _exit(0);
  }
  for (int tries = 0; access(socket.c_str(), F_OK) != 0 && tries < 1000; ++tries) usleep(10'000);
  int code = 1;
  if (open(m, o, "virtio_user:" + socket + o.arguments, o.cores[1])) {
    io::EalOptions eal;
    eal.worker_cores = {o.cores[1]};
    (void)io::launch_worker(eal, 0, gateway, &c);
    io::wait_worker(eal, 0);
    if (!c.rx.empty()) {
      auto at = [](std::vector<double> v, double part) {
        std::sort(v.begin(), v.end());
        return v[static_cast<size_t>(part * static_cast<double>(v.size() - 1))];
      };
      std::printf(
          "%-52s rx %4.0f / %4.0f  tx %4.0f / %4.0f  all %4.0f / %4.0f cycles a packet (2 %% / middle), %4.1f a call, %5.2f "
          "Mpps, %lu packets\n",
          (o.arguments + " payload=" + std::to_string(o.payload) + " outstanding=" + std::to_string(o.outstanding)).c_str(),
          at(c.rx, 0.02), at(c.rx, 0.5), at(c.tx, 0.02), at(c.tx, 0.5), at(c.all, 0.02), at(c.all, 0.5),
          static_cast<double>(c.packets) / static_cast<double>(c.calls),
          static_cast<double>(c.packets) / static_cast<double>(c.cycles) * static_cast<double>(io::tsc_hz()) * 1e-6, c.packets);
      code = 0;
    }
  }
  m.port.reset();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  unlink(socket.c_str());
  rmdir(directory);
  return code;
}

int usage(int code) {
  std::fprintf(
      code == 0 ? stdout : stderr,
      "usage: port-cost [--arguments ,KEY=VALUE,…] [--payload BYTES] [--outstanding FRAMES] [--burst N] [--descriptors N]\n"
      "                  [--seconds S] [--cores PEER,GATEWAY] [--ordinary-pages]\n");
  return code;
}

}  // namespace
}  // namespace millrace::bench

int main(int argc, char** argv) {
  using namespace millrace::bench;
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--help") return usage(0);
    if (a == "--ordinary-pages") {
      o.hugepages = false;
      continue;
    }
    if (i + 1 == argc) return usage(2);
    const char* v = argv[++i];
    if (a == "--arguments") o.arguments = v;
    else if (a == "--payload") o.payload = std::min<uint32_t>(static_cast<uint32_t>(std::atoi(v)), 500);
    else if (a == "--outstanding") o.outstanding = static_cast<uint32_t>(std::atoi(v));
    else if (a == "--burst") o.burst = static_cast<uint16_t>(std::clamp(std::atoi(v), 1, 128));
    else if (a == "--descriptors") o.descriptors = static_cast<uint16_t>(std::atoi(v));
    else if (a == "--seconds") o.seconds = std::atof(v);
    else if (a == "--cores") std::sscanf(v, "%u,%u", &o.cores[0], &o.cores[1]);
    else return usage(2);
  }
  return run(o);
}
