// Frames, as anybody on the wire can send them, into a whole TcpStack: nothing crashes, no connection or packet is lost or kept.
// Input: records of { length (2 bytes, big endian), what the application does (1 byte), time that passes (1 byte, 2^n
// microseconds), frame }. IP and TCP checksums are put right, so that the fuzzer gets behind them; odd actions leave them as they
// are.
#include <optional>

#include "dataplane/tcp_stack.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "tests/fuzz/require.h"
#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

using namespace millrace;
using namespace millrace::dataplane;

namespace {

void put_checksums_right(std::vector<uint8_t>& f) {
  wire::EthernetView e;
  if (wire::EthernetView::parse(f, e) != wire::ParseError::kNone) return;
  uint8_t* l3 = f.data() + e.payload_offset;
  const base::ByteSpan packet{l3, f.size() - e.payload_offset};
  base::IpAddress src, dst;
  uint32_t l4 = 0, length = 0;
  if (e.ether_type == wire::kEtherIpv4) {
    wire::Ipv4View v;
    if (packet.size() < 20) return;
    const uint32_t header = (l3[0] & 15u) * 4;
    if (header < 20 || header > packet.size()) return;
    wire::store_checksum(l3 + 10, 0);
    wire::store_checksum(l3 + 10, wire::checksum_finish(wire::checksum_sum({l3, header})));
    if (wire::Ipv4View::parse(packet, true, v) != wire::ParseError::kNone || v.protocol != wire::kIpTcp) return;
    src = base::IpAddress::v4(v.src);
    dst = base::IpAddress::v4(v.dst);
    l4 = v.payload_offset;
    length = v.payload_length;
  } else if (e.ether_type == wire::kEtherIpv6) {
    wire::Ipv6View v;
    if (wire::Ipv6View::parse(packet, v) != wire::ParseError::kNone || v.next_header != wire::kIpTcp) return;
    src = v.src;
    dst = v.dst;
    l4 = v.payload_offset;
    length = v.payload_length;
  }
  if (length < wire::kTcpMinHeader) return;
  wire::store_checksum(l3 + l4 + wire::kTcpChecksumOffset, 0);
  const auto sum = wire::pseudo_header(src, dst, wire::kIpTcp, length) + wire::checksum_sum({l3 + l4, length});
  wire::store_checksum(l3 + l4 + wire::kTcpChecksumOffset, wire::checksum_finish(sum));
}

struct Ring {
  static constexpr uint64_t kCapacity = 16 * 1024;
  Ring() {
    const std::span<uint8_t> bytes(memory, sizeof memory);
    FUZZ_REQUIRE(shm::format_ring(bytes, kCapacity) == shm::RingError::kNone);
    FUZZ_REQUIRE(producer.attach(bytes) == shm::RingError::kNone && consumer.attach(bytes) == shm::RingError::kNone);
  }
  alignas(64) uint8_t memory[shm::ring_bytes(kCapacity)];
  shm::RingProducer producer;
  shm::RingConsumer consumer;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  support::HeapPacketPool pool(256), headers(64, 128), indirect(64, 0);
  support::FakePort port({2, 0, 0, 0, 0, 1});
  port.change().tx_multi_segment = size % 2 == 1;
  const io::Steering steering(1, 1);
  LocalCounters counters;
  TcpStackConfig c;
  c.max_connections = 8;
  c.max_half_open = 4;
  c.max_time_wait = 4;
  c.max_port_maps = 4;
  c.ip.max_neighbors = 4;
  InterfaceConfig i;
  i.addresses = {{base::IpAddress::v4(0x0a010001), 24}, {*base::IpAddress::parse("fd00:1::1"), 64}};
  i.routes = {{base::IpAddress::v4(0), 0, base::IpAddress::v4(0x0a0100fe)}};
  InterfaceConfig vlan;  // a second one on the same device
  vlan.device = 0;
  vlan.vlan = 5;
  vlan.addresses = {{base::IpAddress::v4(0x0a050001), 24}, {*base::IpAddress::parse("fd00:5::1"), 64}};
  vlan.dad_transmits = 1;
  c.ip.ports = {i, vlan};
  c.ip.max_fragments = 16;
  // Every other input has a host beside the gateway, which sends back what it gets.
  Ring to_host, from_host;
  std::optional<ExceptionPath> path;
  if (size % 4 < 2) path.emplace(to_host.producer, &from_host.consumer, 1'000'000, std::vector<HostRule>{{6, 179, 179}}, 0);
  c.ip.exception = path ? &*path : nullptr;
  io::PortQueue* q[] = {&port};
  const ListenerSet::Entry entries[] = {{base::IpAddress::v4(0), 80, 1, false}, {base::IpAddress{}, 80, 2, false}};
  const ListenerSet listeners(entries);
  TimeNs now = 1000 * base::kSecond;
  TcpStack stack(c, q, steering, nullptr, pool.pool(), headers.pool(), indirect.pool(), counters.view(), now);
  stack.set_listeners(&listeners);
  uint32_t held = 0;
  while (size >= 4) {
    const size_t n = std::min<size_t>(base::load_be16(data) & 2047, size - 4);
    const uint8_t action = data[2];
    now += base::kMicrosecond << (data[3] % 27);
    std::vector<uint8_t> frame(data + 4, data + 4 + n);
    data += 4 + n;
    size -= 4 + n;
    if (n >= 14) std::memcpy(frame.data(), port.capabilities().mac.data(), action & 64 ? 0 : 6);
    if (n >= 14 && (action & 1) == 0) put_checksums_right(frame);
    if (io::PacketPtr p = pool.make(frame)) port.deliver(std::move(p));
    if (action & 32) {
      ConnectError why;
      if (stack.connect(base::IpAddress::v4(0x0a010002), 8080, stack.downstream_profile(), now, nullptr, &why) != nullptr) ++held;
    }
    for (std::span<const uint8_t> f; (f = to_host.consumer.front()).data() != nullptr; to_host.consumer.pop())
      if (action & 8) from_host.producer.push(f);
    stack.receive(now);
    while (Connection* k = stack.pop_ready()) {
      const uint32_t events = TcpStack::take_events(*k);
      if (k->role == Role::kDownstream && (events & tcp::kEventConnected)) ++held;
      io::PacketQueue& rx = tcp::rx_queue(k->tcb);
      rx.consume(rx.bytes() / (1 + action % 3));
      tcp::window_update(k->tcb, now);
      tcp::send_copy(k->tcb, frame, stack.pool());
      stack.touch(*k);
      if ((events & (tcp::kEventReset | tcp::kEventTimedOut | tcp::kEventClosed | tcp::kEventPeerFin)) || (action & 2)) {
        action & 4 ? stack.abort(*k, now) : stack.detach(*k, now);
        --held;
      }
    }
    stack.run_timers(now, 16);
    stack.flush(now);
    FUZZ_REQUIRE(stack.active_connections() >= held);
    while (port.sent() > 0) port.pop_sent_bytes();
  }
  return 0;  // the pools assert that everything came back
}
