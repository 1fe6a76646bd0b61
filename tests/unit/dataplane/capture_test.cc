// A capture on a worker: every frame of both directions, or those that the filter takes; bounds; a full ring is counted.
#include <cstring>
#include <optional>

#include "tests/unit/dataplane/worker_fixture.h"

namespace millrace::dataplane::test {
namespace {

struct Captured {
  struct Packet {
    table::PacketRecord record;
    std::string bytes;
  };
  std::vector<Packet> packets;
  std::optional<table::CaptureDone> done;
};

void read(World& w, uint64_t id, Captured& out) {
  for (auto r = w.inspection_reader.front(); r.data() != nullptr; r = w.inspection_reader.front()) {
    table::InspectHeader h;
    std::memcpy(&h, r.data(), sizeof h);
    if (h.id == id && h.type == table::InspectType::kPacket) {
      Captured::Packet p;
      std::memcpy(&p.record, r.data(), sizeof p.record);
      EXPECT_EQ(r.size(), sizeof p.record + p.record.kept);
      p.bytes.assign(reinterpret_cast<const char*>(r.data()) + sizeof p.record, p.record.kept);
      out.packets.push_back(std::move(p));
    } else if (h.id == id && h.type == table::InspectType::kCaptureDone) {
      EXPECT_FALSE(out.done);
      std::memcpy(&out.done.emplace(), r.data(), sizeof *out.done);
    }
    w.inspection_reader.pop();
  }
}

table::StartCapture command(uint64_t id, std::string_view filter = "") {
  table::StartCapture c;
  c.id = id;
  c.snap = 65'535;
  c.max_packets = c.max_bytes = UINT64_MAX;
  auto f = table::parse_packet_filter(filter);
  EXPECT_TRUE(f.ok()) << f.error();
  c.filter = *f;
  return c;
}

void request(World& w) {
  Peer& client = w.connect();
  w.send(client, get());
  ASSERT_TRUE(w.wait_for(client, "hello"));
  w.settle();
}

uint64_t port_packets(World& w, uint32_t port) {
  return w.stats().ports[port][stats::PortCounter::kRxPackets].read() +
         w.stats().ports[port][stats::PortCounter::kTxPackets].read();
}

TEST(Capture, HasEveryFrameOfBothDirections) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  w.settle();
  ASSERT_TRUE(w.ask(command(1)));
  w.turn();
  const uint64_t before[2] = {port_packets(w, 0), port_packets(w, 1)};
  request(w);
  Captured c;
  read(w, 1, c);
  uint64_t n[2] = {}, out = 0;
  bool saw_request = false;
  for (const auto& p : c.packets) {
    ASSERT_LT(p.record.port, 2u);
    ++n[p.record.port];
    out += p.record.direction == table::FrameDirection::kOutbound;
    EXPECT_EQ(p.record.kept, p.record.length);
    EXPECT_GE(p.record.wall_ns, World::kWallStart);
    saw_request |= p.record.port == 0 && p.record.direction == table::FrameDirection::kInbound &&
                   p.bytes.find("GET / HTTP/1.1") != std::string::npos;
  }
  EXPECT_EQ(n[0], port_packets(w, 0) - before[0]);
  EXPECT_EQ(n[1], port_packets(w, 1) - before[1]);
  EXPECT_GT(out, 0u);
  EXPECT_LT(out, c.packets.size());
  EXPECT_TRUE(saw_request);
  EXPECT_FALSE(c.done);
  table::StopInspection stop;
  stop.id = 1;
  ASSERT_TRUE(w.ask(stop));
  w.turn();
  read(w, 1, c);
  ASSERT_TRUE(c.done);
  EXPECT_EQ(c.done->taken[0], n[0]);
  EXPECT_EQ(c.done->seen[1], n[1]);
  EXPECT_EQ(c.done->dropped[0] + c.done->dropped[1], 0u);
  const size_t had = c.packets.size();
  request(w);
  read(w, 1, c);
  EXPECT_EQ(c.packets.size(), had) << "stopped";
}

TEST(Capture, TakesWhatTheFilterTakes) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  w.settle();
  ASSERT_TRUE(w.ask(command(1, "tcp dst port 80 and tcp-syn and inbound")));
  w.turn();
  request(w);
  Captured c;
  read(w, 1, c);
  ASSERT_EQ(c.packets.size(), 1u);
  EXPECT_EQ(c.packets[0].record.port, 0u);
  EXPECT_EQ(c.packets[0].bytes[47] & 0x12, 0x02) << "a SYN without ACK";
}

TEST(Capture, EndsAtItsBounds) {
  World w;
  w.serve([](const std::string&) { return ok(); });
  w.settle();
  table::StartCapture q = command(1);
  q.max_packets = 3;
  q.snap = 60;
  ASSERT_TRUE(w.ask(q));
  request(w);
  Captured c;
  read(w, 1, c);
  EXPECT_EQ(c.packets.size(), 3u);
  ASSERT_TRUE(c.done);
  for (const auto& p : c.packets) EXPECT_LE(p.record.kept, 60u);
  q = command(2);
  q.max_bytes = 100;
  ASSERT_TRUE(w.ask(q));
  request(w);
  Captured by_bytes;
  read(w, 2, by_bytes);
  ASSERT_TRUE(by_bytes.done);
  EXPECT_LE(by_bytes.packets.size(), 2u);
  q = command(3);
  q.duration_ns = 10 * kMillisecond;
  ASSERT_TRUE(w.ask(q));
  w.turn();
  w.run(20 * kMillisecond);
  Captured by_time;
  read(w, 3, by_time);
  EXPECT_TRUE(by_time.done);
}

TEST(Capture, AFullRingLosesPacketsAndCountsThem) {
  WorldOptions o;
  o.inspection_ring = 4096;
  World w({}, o);
  w.serve([](const std::string&) { return ok(); });
  w.settle();
  ASSERT_TRUE(w.ask(command(1)));
  w.turn();
  for (int i = 0; i < 10; ++i) request(w);
  table::StopInspection stop;
  stop.id = 1;
  ASSERT_TRUE(w.ask(stop));
  Captured c;
  for (int i = 0; i < 10 && !c.done; ++i) {
    w.turn();
    read(w, 1, c);
  }
  ASSERT_TRUE(c.done);
  const uint64_t taken = c.done->taken[0] + c.done->taken[1], dropped = c.done->dropped[0] + c.done->dropped[1];
  EXPECT_GT(dropped, 0u);
  EXPECT_EQ(c.packets.size(), taken - dropped);
}

TEST(Capture, OneAtATime) {
  World w;
  ASSERT_TRUE(w.ask(command(1)));
  ASSERT_TRUE(w.ask(command(2)));
  w.turn();
  Captured first, second;
  for (auto r = w.inspection_reader.front(); r.data() != nullptr; r = w.inspection_reader.front()) {
    table::CaptureDone d;
    if (r.size() == sizeof d) {
      std::memcpy(&d, r.data(), sizeof d);
      if (d.header.type == table::InspectType::kCaptureDone) (d.header.id == 1 ? first : second).done = d;
    }
    w.inspection_reader.pop();
  }
  EXPECT_FALSE(first.done);
  ASSERT_TRUE(second.done);
  EXPECT_EQ(second.done->refused, 1u);
  // Keys that the configuration does not permit (the loader says so with a 2).
  table::StopInspection stop;
  ASSERT_TRUE(w.ask(stop));
  w.turn();
  table::StartCapture keys = command(3);
  keys.tls_keys = 2;
  ASSERT_TRUE(w.ask(keys));
  w.turn();
  Captured third;
  read(w, 3, third);
  ASSERT_TRUE(third.done);
  EXPECT_EQ(third.done->refused, 2u);
}

}  // namespace
}  // namespace millrace::dataplane::test
