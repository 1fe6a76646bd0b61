// A port of memory for benchmarks: two rings of frame pointers, nothing else, so that what is measured on top of it is the worker
// and not the port. It promises what net_virtio_user promises on top of a vhost that offloads: TCP checksums both ways, TSO,
// chains; IPv4 header checksums are software's.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/io/packet.h"
#include "lib/io/port_queue.h"

namespace millrace::bench {

class alignas(64) FrameRing {
 public:
  static constexpr uint32_t kFrames = 8192;  // power of two; more than the peers ever have under way
  bool push(rte_mbuf* m) {
    if (head_ - tail_ == kFrames) return false;
    frames_[head_++ & (kFrames - 1)] = m;
    return true;
  }
  rte_mbuf* pop() { return head_ == tail_ ? nullptr : frames_[tail_++ & (kFrames - 1)]; }
  uint32_t size() const { return head_ - tail_; }

 private:
  std::unique_ptr<rte_mbuf*[]> frames_ = std::make_unique<rte_mbuf*[]>(kFrames);
  uint32_t head_ = 0, tail_ = 0;
};

class MemoryPort final : public io::PortQueue {
 public:
  explicit MemoryPort(const io::MacAddress& mac) {
    capabilities_.mac = mac;
    capabilities_.rx_tcp_checksum = true;
    capabilities_.tx_tcp_checksum = true;
    capabilities_.tso = true;
    capabilities_.tx_multi_segment = true;
    capabilities_.max_tx_segments = 32;
  }
  ~MemoryPort() override {
    for (FrameRing* r : {&rx, &tx})
      while (rte_mbuf* m = r->pop()) rte_pktmbuf_free(m);
  }

  uint16_t rx_burst(rte_mbuf** out, uint16_t n) override {
    uint16_t got = 0;
    while (got < n && (out[got] = rx.pop()) != nullptr) ++got;
    return got;
  }
  uint16_t tx_burst(rte_mbuf** frames, uint16_t n) override {
    uint16_t took = 0;
    while (took < n && tx.push(frames[took])) ++took;
    return took;
  }

  FrameRing rx, tx;  // towards the worker, from the worker
};

}  // namespace millrace::bench
