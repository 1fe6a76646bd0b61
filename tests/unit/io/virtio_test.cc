// net_virtio_user against net_vhost between two processes, each with an EAL of its own on ordinary pages: what the gateway relies
// on where a memory port stands in for a NIC. Segments go there with their checksum left to the port, single, chained and of 60
// KB to be cut; they come back as large as they were sent. Every byte and every mark is looked at.
#include <chrono>
#include <cstdio>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "lib/bootstrap/dataplane_section.h"
#include "lib/io/eal.h"
#include "lib/io/packet_pool.h"
#include "lib/io/port.h"
#include "lib/io/tx_buffer.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/tcp.h"

namespace millrace::io {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kMss = 1448;
constexpr uint32_t kHeader = 14 + 20 + 20;
// Payload of each segment in order: small ones (copied into one packet), chained ones, large ones for the port to cut, and the
// longest that IPv4 can carry.
constexpr uint32_t kSizes[] = {1,    60,     511,    512,  1000,   1448,   100,    2896,   10'000, 30'000, 60'000,
                               1448, 60'000, 65'000, 1200, 60'000, 20'001, 40'003, 65'400, 7,      60'000, 64'999};
constexpr int kSegments = 400;
uint32_t size_of(int i) { return kSizes[static_cast<size_t>(i) % std::size(kSizes)]; }
uint8_t byte_of(int i, uint32_t at) { return static_cast<uint8_t>(i * 31 + static_cast<int>(at * 2654435761u >> 24)); }
constexpr uint32_t kUs = 0x0a010001, kPeer = 0x0a010002;

bool large(int i) { return size_of(i) > kMss; }

// One side: EAL, pools, the port.
struct Side {
  std::vector<PacketPool> pools;  // payload, headers, indirect
  std::unique_ptr<Port> port;

  int open(const std::string& device, const char* role) {
    EalOptions eal;
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    eal.main_core = 0;
    eal.worker_cores = {cores > 1 ? 1u : 0u};
    eal.hugepages = false;
    eal.memory_mb = 96;
    eal.file_prefix = std::string("virtio-test-") + role + std::to_string(getpid());
    if (const base::Status s = init_eal(eal); !s) {
      std::fprintf(stderr, "%s: %s\n", role, s.error().c_str());
      return 77;  // the machine does not let us
    }
    for (const auto& [name, room] : {std::pair{"payload", kPayloadRoom}, {"headers", kHeaderRoom}, {"indirect", 0u}}) {
      auto pool = make_eal_pool(name, 8192, room, 0);
      if (!pool) return 2;
      pools.push_back(*pool);
    }
    PortOptions o;
    o.name = role;
    std::string why;
    o.devargs = *bootstrap::expand_device(device, 0, 1500, 1, &why);
    auto p = Port::open(o, {pools.data(), 1});
    if (!p) {
      std::fprintf(stderr, "%s\n", p.error().c_str());
      return 3;
    }
    port = std::move(*p);
    std::fputs(capability_table({&port, 1}).c_str(), stderr);
    const auto limit = Clock::now() + std::chrono::seconds(20);
    while (!port->link_up()) {
      if (Clock::now() > limit) return 4;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return 0;
  }
  bool balanced() const {
    for (const PacketPool& p : pools)
      if (p.available() != p.capacity()) return false;
    return true;
  }
};

// Segment i as a frame that asks the port for its checksum and, where it is large, to be cut.
rte_mbuf* make_segment(int i, uint32_t src, uint32_t dst, TxBuffer& tx, PacketPool& pool, const PortCapabilities& c) {
  PacketQueue payload;
  std::vector<uint8_t> bytes(size_of(i));
  for (uint32_t at = 0; at < bytes.size(); ++at) bytes[at] = byte_of(i, at);
  if (payload.append_copy(bytes, pool) != bytes.size()) return nullptr;
  rte_mbuf* m = tx.build(kHeader, &payload, 0, size_of(i));
  if (m == nullptr) return nullptr;
  auto* at = rte_pktmbuf_mtod(m, uint8_t*);
  wire::EthernetRepr{{2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, wire::kEtherIpv4, 0}.emit(at);
  wire::Ipv4Repr ip;
  ip.src = src;
  ip.dst = dst;
  ip.protocol = wire::kIpTcp;
  ip.payload_length = static_cast<uint16_t>(20 + size_of(i));
  ip.emit(at + 14);
  wire::TcpRepr tcp;
  tcp.src_port = 1000;
  tcp.dst_port = 80;
  tcp.seq = static_cast<uint32_t>(i);
  tcp.flags = wire::kTcpAck;
  tcp.emit(at + 34);
  const bool with_length = !large(i) || c.tso_sum_with_length;
  wire::store_checksum(at + 34 + 16,
                       wire::checksum_fold(wire::pseudo_header_v4(src, dst, wire::kIpTcp, with_length ? 20 + size_of(i) : 0)));
  m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
  m->l2_len = 14;
  m->l3_len = 20;
  m->l4_len = 20;
  if (large(i)) {
    m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
    m->tso_segsz = kMss;
  }
  return m;
}

// What is wrong with segment i as it arrived; null: nothing.
const char* check_segment(int i, const rte_mbuf* m, uint32_t src, uint32_t dst) {
  const uint32_t n = size_of(i);
  if (m->pkt_len != kHeader + n) return "length";
  if (m->nb_segs > kMaxRxSegments) return "too many pieces";
  const auto* at = rte_pktmbuf_mtod(m, const uint8_t*);
  if (m->data_len < kHeader) return "header in pieces";
  wire::Ipv4View ip;
  if (wire::Ipv4View::parse({at + 14, m->pkt_len - 14}, true, ip) != wire::ParseError::kNone) return "IP header";
  if (ip.src != src || ip.dst != dst || ip.payload_length != 20 + n) return "IP fields";
  if (base::load_be32(at + 38) != static_cast<uint32_t>(i)) return "not the next one";
  if ((m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) != RTE_MBUF_F_RX_L4_CKSUM_NONE) return "not marked as unsummed";
  const auto field = base::load_unaligned<uint16_t>(at + 34 + 16);
  const bool full = field == wire::checksum_fold(wire::pseudo_header_v4(src, dst, wire::kIpTcp, 20 + n));
  const bool bare = field == wire::checksum_fold(wire::pseudo_header_v4(src, dst, wire::kIpTcp, 0));
  if (large(i)) {
    if ((m->ol_flags & RTE_MBUF_F_RX_LRO) == 0 || m->tso_segsz != kMss) return "not marked as large";
    if (!full && !bare) return "checksum field of a large segment";
  } else if (!full) {
    return "checksum field";
  }
  uint32_t seen = 0, skip = kHeader;
  for (const rte_mbuf* s = m; s != nullptr; s = s->next) {
    const auto* p = rte_pktmbuf_mtod(s, const uint8_t*);
    for (uint32_t k = skip; k < s->data_len; ++k, ++seen)
      if (p[k] != byte_of(i, seen)) return "payload";
    skip = 0;
  }
  return seen == n ? nullptr : "payload length";
}

// Sends its segments, a few at a time, and checks those of the other side. Both sides do the same.
int exchange(Side& s, uint32_t self, uint32_t peer) {
  stats::CounterBlock<stats::PortCounter> counters;
  stats::Counter drops[stats::kDropReasonCount];
  int sent = 0, got = 0;
  {
    TxBuffer tx(s.port->queue(0), {s.pools[0], s.pools[1], s.pools[2]}, counters, drops);
    const auto limit = Clock::now() + std::chrono::seconds(60);
    while ((sent < kSegments || got < kSegments) && Clock::now() < limit) {
      if (sent < kSegments && sent - got < 4) {
        rte_mbuf* m = make_segment(sent, self, peer, tx, s.pools[0], s.port->capabilities());
        if (m == nullptr) return 7;
        if (large(sent) && m->nb_segs < 2) return 10;
        tx.send(m);
        tx.flush(0);
        if (drops[static_cast<uint32_t>(stats::DropReason::kTxQueueFull)].read() != 0) return 11;
        ++sent;
      }
      rte_mbuf* frames[kRxBurst];
      const uint16_t n = s.port->queue(0).rx_burst(frames, kRxBurst);
      for (uint16_t k = 0; k < n; ++k, ++got) {
        const char* wrong = check_segment(got, frames[k], peer, self);
        rte_pktmbuf_free(frames[k]);
        if (wrong != nullptr) {
          std::fprintf(stderr, "%s: segment %d of %u bytes: %s\n", s.port->driver().c_str(), got, size_of(got), wrong);
          return 9;
        }
      }
      if (n == 0) std::this_thread::yield();
    }
    // The last ones of ours are still to be read. The driver leaves first, as guests do.
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    while (s.port->driver() == "net_vhost" && s.port->link_up() && Clock::now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  if (sent != kSegments || got != kSegments) return 8;
  s.port.reset();
  return s.balanced() ? 0 : 6;
}

int device_side(const std::string& socket) {
  Side s;
  if (const int r = s.open("vhost:" + socket, "vhost"); r != 0) return r;
  if (!s.port->capabilities().rx_tcp_unsummed || !s.port->capabilities().tx_tcp_checksum) return 12;
  return exchange(s, kPeer, kUs);
}

int driver_side(const std::string& socket, const std::string& arguments) {
  for (const auto limit = Clock::now() + std::chrono::seconds(20); access(socket.c_str(), F_OK) != 0 && Clock::now() < limit;)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  Side s;
  if (const int r = s.open("virtio_user:" + socket + arguments, "virtio"); r != 0) return r;
  const PortCapabilities& c = s.port->capabilities();
  if (!c.rx_tcp_unsummed || !c.tx_tcp_checksum || !c.tso || !c.lro || !c.tso_sum_with_length) return 12;
  return exchange(s, kUs, kPeer);
}

class Virtio : public testing::TestWithParam<const char*> {};

TEST_P(Virtio, LargeAndUnsummedSegmentsBetweenTwoProcesses) {
  char directory[] = "/tmp/millrace-virtio-test-XXXXXX";
  ASSERT_NE(mkdtemp(directory), nullptr);
  const std::string socket = std::string(directory) + "/port.sock";
  pid_t children[2];
  for (int side = 0; side < 2; ++side) {
    children[side] = fork();
    ASSERT_GE(children[side], 0);
    if (children[side] == 0) _exit(side == 0 ? device_side(socket) : driver_side(socket, GetParam()));
  }
  bool skipped = false;
  for (int side = 0; side < 2; ++side) {
    int status = 0;
    ASSERT_EQ(waitpid(children[side], &status, 0), children[side]);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    if (WEXITSTATUS(status) == 77) skipped = true;
    else EXPECT_EQ(WEXITSTATUS(status), 0) << (side == 0 ? "vhost" : "virtio_user");
  }
  unlink(socket.c_str());
  rmdir(directory);
  if (skipped) GTEST_SKIP() << "DPDK does not start here";
}

INSTANTIATE_TEST_SUITE_P(Rings, Virtio,
                         testing::Values("", ",packed_vq=1", ",packed_vq=0,in_order=0", ",packed_vq=0,in_order=1"));

}  // namespace
}  // namespace millrace::io
