// Frames out of headers and payload: copied or chained, counted, retried, dropped.
#include "lib/io/tx_buffer.h"

#include <gtest/gtest.h>

#include "tests/support/fake_port.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::io {
namespace {

using stats::DropReason;
using stats::PortCounter;

struct Fixture {
  explicit Fixture(bool chain, uint16_t max_segments = 8) {
    port.change().tx_multi_segment = chain;
    port.change().max_tx_segments = max_segments;
  }
  uint64_t dropped(DropReason r) { return drops[static_cast<uint32_t>(r)].read(); }
  support::HeapPacketPool payload{64}, headers{32, kHeaderRoom}, indirect{32, 0};
  support::FakePort port{MacAddress{2, 0, 0, 0, 0, 1}};
  stats::CounterBlock<PortCounter> counters;
  stats::Counter drops[stats::kDropReasonCount];
  TxBuffer tx{port, {payload.pool(), headers.pool(), indirect.pool()}, counters, drops};
};

std::string pattern(size_t n) {
  std::string s(n, ' ');
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>('a' + i % 26);
  return s;
}

struct Case {
  const char* what;
  bool chain;
  uint16_t max_segments;
  std::vector<size_t> packets;  // sizes in the queue
  uint64_t offset;
  uint32_t length;
  uint16_t segments;  // of the frame
};

TEST(TxBuffer, FramesHoldWhatTheQueueHolds) {
  const Case cases[] = {
      {"no payload", true, 8, {100}, 0, 0, 1},
      {"small payload is copied though the port chains", true, 8, {600}, 10, 511, 1},
      {"large payload is referred to", true, 8, {600}, 10, 512, 2},
      {"over three packets", true, 8, {700, 700, 700}, 600, 1400, 4},
      {"exactly to a packet's end", true, 8, {700, 700}, 700, 700, 2},
      {"more pieces than the port takes: copied", true, 2, {700, 700, 700}, 600, 1400, 1},
      {"port cannot chain", false, 1, {700, 700, 700}, 600, 1400, 1},
  };
  for (const Case& c : cases) {
    Fixture f(c.chain, c.max_segments);
    const std::string all = pattern(2100);
    {
      PacketQueue q;
      size_t at = 0;
      for (const size_t n : c.packets) {
        q.push_whole(f.payload.make(all.substr(at, n)));
        at += n;
      }
      rte_mbuf* m = f.tx.build(54, &q, c.offset, c.length);
      ASSERT_NE(m, nullptr) << c.what;
      EXPECT_EQ(m->nb_segs, c.segments) << c.what;
      EXPECT_EQ(m->pkt_len, 54 + c.length) << c.what;
      std::memset(rte_pktmbuf_mtod(m, void*), 'H', 54);
      f.tx.send(m);
      f.tx.flush();
    }  // the queue is gone, what the frame refers to is not
    const std::vector<uint8_t> bytes = f.port.pop_sent_bytes();
    EXPECT_EQ(base::as_chars(bytes), std::string(54, 'H') + all.substr(c.offset, c.length)) << c.what;
    EXPECT_EQ(f.counters[PortCounter::kTxPackets].read(), 1u);
    EXPECT_EQ(f.counters[PortCounter::kTxBytes].read(), 54 + c.length);
    EXPECT_EQ(f.payload.in_use() + f.headers.in_use() + f.indirect.in_use(), 0u) << c.what;
  }
}

TEST(TxBuffer, EmptyPoolsAreCounted) {
  Fixture f(true);
  std::vector<PacketPtr> all;
  while (f.headers.in_use() < 32) all.push_back(f.headers.alloc());
  EXPECT_EQ(f.tx.build(54, nullptr, 0, 0), nullptr);
  EXPECT_EQ(f.dropped(DropReason::kTxNoMbuf), 1u);
  PacketQueue q;
  q.push_whole(f.payload.make(pattern(1000)));
  rte_mbuf* m = f.tx.build(54, &q, 0, 1000);  // cannot chain without a header packet: copies
  ASSERT_NE(m, nullptr);
  EXPECT_EQ(m->nb_segs, 1);
  rte_pktmbuf_free(m);
}

TEST(TxBuffer, FrameBeyondABufferIsRefusedWherePortsCannotChain) {
  Fixture f(false);
  PacketQueue q;
  q.push_whole(f.payload.make(pattern(2000)));
  q.push_whole(f.payload.make(pattern(2000)));
  EXPECT_EQ(f.tx.build(54, &q, 0, 3000), nullptr);
  EXPECT_EQ(f.dropped(DropReason::kTxTooBig), 1u);
}

TEST(TxBuffer, SlowPortIsRetriedThenTheRestDropped) {
  Fixture f(false);
  f.port.tx_room = 3;
  for (int i = 0; i < 5; ++i) f.tx.send(f.tx.build(54, nullptr, 0, 0));
  f.tx.flush();
  EXPECT_EQ(f.port.sent(), 3u);
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 2u);
  EXPECT_EQ(f.counters[PortCounter::kTxPackets].read(), 3u);
  EXPECT_EQ(f.counters[PortCounter::kTxBursts].read(), TxBuffer::kFlushRetries + 1u);
  EXPECT_EQ(f.tx.waiting(), 0u);
}

TEST(TxBuffer, FullBufferFlushesItself) {
  Fixture f(false);
  support::HeapPacketPool many(TxBuffer::kCapacity + 1, kHeaderRoom);
  for (uint32_t i = 0; i <= TxBuffer::kCapacity; ++i) {
    PacketPtr p = many.alloc();
    p.append(60);
    f.tx.send(std::move(p));
  }
  EXPECT_EQ(f.port.sent(), TxBuffer::kCapacity);
  EXPECT_EQ(f.tx.waiting(), 1u);
  f.tx.flush();
  f.port.clear();
}

}  // namespace
}  // namespace millrace::io
