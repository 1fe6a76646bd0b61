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
      f.tx.flush(0);
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

// Frames of 60 bytes that carry a number.
rte_mbuf* numbered(PacketPool& pool, uint32_t i) {
  PacketPtr p = pool.alloc();
  std::memcpy(p.append(60), &i, sizeof i);
  return p.release();
}
uint32_t number_of(const std::vector<uint8_t>& frame) { return base::load_unaligned<uint32_t>(frame.data()); }

struct Many : Fixture {
  Many() : Fixture(false) {}
  ~Many() { port.clear(); }
  void send(uint32_t n) {
    for (uint32_t i = 0; i < n; ++i) tx.send(numbered(pool, next++));
  }
  // All that the port has taken since the last call carries the numbers from `from` on, none left out.
  void expect_in_order(uint32_t from, uint32_t n) {
    ASSERT_EQ(port.sent(), n);
    for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(number_of(port.pop_sent_bytes()), from + i);
  }
  support::HeapPacketPool frames{1024, kHeaderRoom};
  PacketPool pool = frames.pool();
  uint32_t next = 0;
};

TEST(TxBuffer, WhatASlowPortLeavesComesNextInOrder) {
  for (const size_t a_burst : {1u, 3u, 4u, 5u}) {
    Many f;
    f.port.tx_a_burst = a_burst;
    f.send(5);
    uint32_t calls = 0;
    for (base::TimeNs now = 0; f.tx.waiting() > 0; now += base::kMillisecond) {
      ASSERT_LT(calls, 10u);
      f.tx.flush(now);
      ++calls;
      EXPECT_EQ(f.tx.blocked(), f.tx.waiting() > 0);
    }
    EXPECT_EQ(calls, (5 + a_burst - 1) / a_burst);
    EXPECT_EQ(f.counters[PortCounter::kTxBursts].read(), calls);
    EXPECT_EQ(f.counters[PortCounter::kTxRetries].read(), calls - 1);
    EXPECT_EQ(f.counters[PortCounter::kTxPackets].read(), 5u);
    EXPECT_EQ(f.counters[PortCounter::kTxBytes].read(), 300u);
    EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 0u);
    f.expect_in_order(0, 5);
  }
}

TEST(TxBuffer, ABurstsWorthIsOfferedAtOnce) {
  Many f;
  f.send(TxBuffer::kBurst);
  EXPECT_EQ(f.port.sent(), 0u);
  f.send(1);
  EXPECT_EQ(f.port.sent(), TxBuffer::kBurst);
  EXPECT_EQ(f.tx.waiting(), 1u);
  EXPECT_FALSE(f.tx.blocked());
  f.tx.flush(0);
  f.expect_in_order(0, TxBuffer::kBurst + 1);
}

TEST(TxBuffer, ReserveIsForWhoeverCannotWait) {
  Many f;
  f.port.tx_room = 0;
  f.send(TxBuffer::kBurst);
  EXPECT_FALSE(f.tx.blocked());
  f.send(1);  // beyond a burst: the port is asked, and refuses
  EXPECT_TRUE(f.tx.blocked());
  const uint64_t asked = f.counters[PortCounter::kTxBursts].read();
  f.send(TxBuffer::kCapacity - TxBuffer::kBurst - 1);
  EXPECT_EQ(f.counters[PortCounter::kTxBursts].read(), asked) << "a port that refused is left alone until there is need";
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 0u);
  f.send(2);  // no room any more
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 2u);
  f.port.tx_room = 1;
  f.send(1);  // the last chance before dropping is taken
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 2u);
  EXPECT_TRUE(f.tx.blocked());
  f.port.tx_room = SIZE_MAX;
  f.tx.flush(0);
  EXPECT_FALSE(f.tx.blocked());
  ASSERT_EQ(f.port.sent(), TxBuffer::kCapacity + 1);
  for (uint32_t i = 0; i < TxBuffer::kCapacity; ++i) ASSERT_EQ(number_of(f.port.pop_sent_bytes()), i);
  EXPECT_EQ(number_of(f.port.pop_sent_bytes()), TxBuffer::kCapacity + 2);
}

TEST(TxBuffer, StuckPortIsGivenUpAndTakenBack) {
  constexpr base::TimeNs kStart = 5 * base::kSecond, kLimit = TxBuffer::kGiveUpAfter;
  Many f;
  EXPECT_EQ(f.tx.give_up_at(), base::kNever);
  f.port.tx_room = 0;
  f.send(3);
  f.tx.flush(kStart);
  EXPECT_EQ(f.tx.give_up_at(), kStart + kLimit);
  f.tx.flush(kStart + kLimit - 1);
  EXPECT_EQ(f.tx.waiting(), 3u);
  // One frame in time is progress: the limit counts from there.
  f.port.tx_room = 1;
  f.tx.flush(kStart + kLimit - 1);
  EXPECT_EQ(f.tx.waiting(), 2u);
  EXPECT_EQ(f.tx.give_up_at(), kStart + 2 * kLimit - 1);
  f.tx.flush(kStart + 2 * kLimit - 2);
  EXPECT_TRUE(f.tx.blocked());
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 0u);
  f.tx.flush(kStart + 2 * kLimit - 1);
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 2u);
  EXPECT_EQ(f.tx.waiting(), 0u);
  EXPECT_FALSE(f.tx.blocked()) << "connections must find out by themselves that nothing comes through";
  EXPECT_EQ(f.tx.give_up_at(), base::kNever);
  // From now on nothing is kept over a flush …
  f.send(2);
  f.tx.flush(kStart + 3 * kLimit);
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 4u);
  EXPECT_EQ(f.frames.in_use(), 1u);
  // … until the port takes a frame: then what it leaves waits again.
  f.port.tx_room = 2;
  f.send(2);
  f.tx.flush(kStart + 4 * kLimit);
  EXPECT_EQ(f.dropped(DropReason::kTxQueueFull), 4u);
  EXPECT_EQ(f.tx.waiting(), 1u);
  EXPECT_EQ(f.tx.give_up_at(), kStart + 5 * kLimit);
  f.port.tx_room = SIZE_MAX;
  f.tx.flush(kStart + 4 * kLimit);
}

}  // namespace
}  // namespace millrace::io
