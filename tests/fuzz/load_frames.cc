// The load generator's engine against a peer that is free to send anything: segments made from what the engine last said, with
// sequence numbers, flags, payload and headers bent by the input, or raw frames. It must not read outside of frames, assert, or
// lose a packet, and must come to its end. Each step of the input: kind, which connection, flags, shift of seq, shift of ack,
// payload bytes.
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "perf/load/engine.h"
#include "tests/fuzz/require.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;

namespace {

constexpr size_t kHeaders = 14 + 20 + 20;
using Frame = std::vector<uint8_t>;

load::Options options() {
  load::Options o;
  o.role = load::Role::kBoth;
  load::WireOptions w;
  w.router = {*base::IpAddress::parse("10.63.0.1"), 24};
  w.dut = *base::IpAddress::parse("10.63.0.2");
  o.wires = {w};
  o.clients = {*base::IpAddress::parse("10.64.0.0"), 24};
  o.targets = {{*base::IpAddress::parse("10.63.0.2"), 80}};
  o.servers = {{*base::IpAddress::parse("10.65.0.1"), *base::IpAddress::parse("10.65.0.1"), 80, 80}};
  o.connections = 4;
  o.pipeline = 3;
  o.max_server_connections = 64;
  o.response_body = 3000;
  o.warmup_ns = base::kMillisecond;
  o.duration_ns = 0;
  o.timeout_ns = base::kSecond;
  return o;
}

void deliver(support::FakePort& port, support::HeapPacketPool& pool, const Frame& f) {
  io::PacketPtr p = pool.make(base::ByteSpan(f));
  if (!p) return;
  p.raw()->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD | RTE_MBUF_F_RX_IP_CKSUM_NONE;
  port.deliver(std::move(p));
}

// A segment to `said`'s sender: addresses and ports swapped, seq and ack as it expects them, plus the shifts.
Frame answer(const Frame& said, uint8_t flags, int8_t seq_shift, int8_t ack_shift, const uint8_t* payload, size_t n) {
  Frame f(said.begin(), said.begin() + kHeaders);
  const uint32_t length = base::load_be16(&said[16]) - 20 - (said[14 + 20 + 12] >> 4) * 4;
  const bool ends = (said[14 + 20 + 13] & 3) != 0;
  std::swap_ranges(f.begin(), f.begin() + 6, f.begin() + 6);
  std::swap_ranges(f.begin() + 26, f.begin() + 30, f.begin() + 30);
  std::swap_ranges(f.begin() + 34, f.begin() + 36, f.begin() + 36);
  base::store_be16(&f[16], static_cast<uint16_t>(40 + n));
  base::store_be32(&f[38], base::load_be32(&said[42]) + static_cast<uint32_t>(seq_shift));
  base::store_be32(&f[42], base::load_be32(&said[38]) + length + ends + static_cast<uint32_t>(ack_shift));
  f[46] = 0x50;
  f[47] = flags;
  f.insert(f.end(), payload, payload + n);
  return f;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const load::Options o = options();
  static const auto table = *load::TargetTable::single("a.example", "/path");
  support::HeapPacketPool pool{2048};
  {
    support::FakePort port({2, 0, 0, 0, 0, 1});
    io::PortQueue* ports[] = {&port};
    auto made = load::Engine::create(o, table, ports, pool.pool(), nullptr, 7);
    FUZZ_REQUIRE(made.ok());
    load::Engine& engine = **made;
    base::TimeNs now = base::kSecond;
    std::vector<Frame> said;  // TCP only, the newest last
    auto turn = [&] {
      now += 100 * base::kMicrosecond;
      const bool more = engine.step(now);
      for (Frame f = port.pop_sent_bytes(); !f.empty(); f = port.pop_sent_bytes()) {
        FUZZ_REQUIRE(f.size() >= 42);
        if (f.size() >= kHeaders && f[12] == 8 && f[13] == 0) said.push_back(std::move(f));
      }
      if (said.size() > 32) said.erase(said.begin(), said.end() - 16);
      return more;
    };
    // The peer's MAC is known from the start.
    Frame arp(60, 0);
    const uint8_t reply[] = {2, 0, 0, 0, 0, 1, 2, 0,  0,  0, 0, 2, 8, 6, 0, 1, 8, 0,  6,  4, 0,
                             2, 2, 0, 0, 0, 0, 2, 10, 63, 0, 2, 2, 0, 0, 0, 0, 1, 10, 63, 0, 1};
    std::memcpy(arp.data(), reply, sizeof reply);
    deliver(port, pool, arp);
    turn();
    turn();
    for (size_t i = 0; i + 6 <= size;) {
      const uint8_t kind = data[i], which = data[i + 1], flags = data[i + 2];
      const auto seq = static_cast<int8_t>(data[i + 3]), ack = static_cast<int8_t>(data[i + 4]);
      const size_t n = std::min<size_t>(data[i + 5], size - i - 6);
      const uint8_t* payload = data + i + 6;
      i += 6 + n;
      if (kind % 8 == 7) {
        deliver(port, pool, Frame(payload, payload + n));
      } else if (kind % 8 == 6) {  // a connection to our server: SYN and, with luck, what follows
        Frame syn(kHeaders + n, 0);
        const uint8_t head[] = {2, 0, 0, 0,    0, 1,  2, 0, 0, 0,  0,  2, 8, 0,  0x45, 0, 0,
                                0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 63, 0, 2, 10, 65,   0, 1};
        std::memcpy(syn.data(), head, sizeof head);
        base::store_be16(&syn[16], static_cast<uint16_t>(40 + n));
        base::store_be16(&syn[34], static_cast<uint16_t>(1024 + which));
        base::store_be16(&syn[36], 80);
        syn[46] = 0x50;
        syn[47] = 2;
        base::store_be16(&syn[48], 0xffff);
        std::memcpy(syn.data() + kHeaders, payload, n);
        deliver(port, pool, syn);
      } else if (kind % 8 == 5) {
        now += which * 10 * base::kMillisecond;  // timers
      } else if (!said.empty()) {
        const Frame& to = said[said.size() - 1 - which % said.size()];
        // Mostly what the connection waits for; a SYN gets its SYN-ACK.
        const bool syn = (to[47] & 2) != 0 && (to[47] & 16) == 0 && kind % 8 == 0;
        deliver(port, pool,
                answer(to,
                       syn             ? 0x12
                       : kind % 8 <= 2 ? 0x10 | (flags & 9)
                                       : flags,
                       kind % 8 == 4 ? seq : 0, kind % 8 >= 3 ? ack : 0, payload, syn ? 0 : n));
      }
      turn();
    }
    engine.stop();
    bool more = true;
    for (int i = 0; more && i < 400; ++i) {
      now += 50 * base::kMillisecond;
      more = turn();
    }
    FUZZ_REQUIRE(!more);
  }
  FUZZ_REQUIRE(pool.balanced());
  return 0;
}
