// The frames of one loop iteration on their way to one port: collected, then handed over in bursts. Builds frames from a header
// and a piece of a PacketQueue, by reference where the port can chain and the piece is worth it, else by copy.
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/io/packet_pool.h"
#include "lib/io/packet_queue.h"
#include "lib/io/port_queue.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"
#include "lib/stats/stage_clock.h"

namespace millrace::io {

// Pools that frames are built from. `payload`: linear frames with payload; `headers`: kHeaderRoom bytes, for frames without
// payload and in front of chains; `indirect`: mbufs without data that refer to payload (null pool: never chain).
struct TxPools {
  PacketPool payload, headers, indirect;
};

class TxBuffer {
 public:
  // `drops`: kDropReasonCount counters, indexed by DropReason. `stages`: the worker's clock, told of Stage::kTxBurst. All references
  // outlive the buffer.
  TxBuffer(PortQueue& port, TxPools pools, stats::CounterBlock<stats::PortCounter>& counters, stats::Counter* drops,
           stats::StageClock& stages = stats::StageClock::never());
  ~TxBuffer();  // frees what was not sent
  TxBuffer(const TxBuffer&) = delete;
  TxBuffer& operator=(const TxBuffer&) = delete;

  // A frame of `header_bytes` uninitialised bytes (at most kHeaderRoom) followed by `length` payload bytes of `payload` from
  // `offset`. The caller writes the header in place (first segment's data) and then calls send(). Null when a pool is empty
  // (counted kTxNoMbuf).
  rte_mbuf* build(uint32_t header_bytes, const PacketQueue* payload, uint64_t offset, uint32_t length);
  // Takes ownership of a complete frame (single or chained).
  void send(rte_mbuf* frame) {
    if (count_ == kCapacity) [[unlikely]]
      flush();
    bytes_ += frame->pkt_len;
    frames_[count_++] = frame;
  }
  void send(PacketPtr frame) { send(frame.release()); }
  // Hands everything over. A full transmit queue is retried kFlushRetries times, then the rest is dropped (kTxQueueFull).
  void flush();

  uint32_t waiting() const { return count_; }
  PortQueue& port() { return port_; }
  static constexpr uint32_t kCapacity = 128;  // frames; a full buffer flushes itself
  static constexpr uint32_t kFlushRetries = 8;

 private:
  rte_mbuf* build_chain(uint32_t header_bytes, const PacketQueue& payload, uint64_t offset, uint32_t length);

  PortQueue& port_;
  TxPools pools_;
  stats::CounterBlock<stats::PortCounter>& counters_;
  stats::Counter* drops_;
  stats::StageClock& stages_;
  uint32_t count_ = 0;
  uint64_t bytes_ = 0;  // in them
  rte_mbuf* frames_[kCapacity];
};

}  // namespace millrace::io
