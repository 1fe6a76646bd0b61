// A port of memory: what a test puts in is received, what the code under test sends is kept. No EAL.
#pragma once

#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/io/packet.h"
#include "lib/io/port_queue.h"

namespace millrace::support {

class FakePort final : public io::PortQueue {
 public:
  explicit FakePort(const io::MacAddress& mac, uint16_t mtu = 1500) {
    capabilities_.mac = mac;
    capabilities_.mtu = mtu;
    capabilities_.max_mtu = mtu;
    capabilities_.max_tx_segments = 16;
  }
  ~FakePort() override { clear(); }

  // The next rx_burst() delivers it. Takes ownership.
  void deliver(rte_mbuf* m) { rx_.push_back(m); }
  void deliver(io::PacketPtr p) { rx_.push_back(p.release()); }
  // The oldest frame that was sent; null when there is none. The caller owns it.
  rte_mbuf* pop_sent() {
    if (tx_.empty()) return nullptr;
    rte_mbuf* m = tx_.front();
    tx_.pop_front();
    return m;
  }
  // The same, left where it is.
  const rte_mbuf* next_sent() const { return tx_.empty() ? nullptr : tx_.front(); }
  // The same as flat bytes; empty when there is none.
  std::vector<uint8_t> pop_sent_bytes() {
    rte_mbuf* m = pop_sent();
    std::vector<uint8_t> out;
    for (rte_mbuf* s = m; s != nullptr; s = s->next) {
      const auto* at = rte_pktmbuf_mtod(s, const uint8_t*);
      out.insert(out.end(), at, at + s->data_len);
    }
    if (m != nullptr) rte_pktmbuf_free(m);
    return out;
  }
  size_t sent() const { return tx_.size(); }
  void clear() {
    for (rte_mbuf* m : rx_) rte_pktmbuf_free(m);
    for (rte_mbuf* m : tx_) rte_pktmbuf_free(m);
    rx_.clear();
    tx_.clear();
  }
  // The transmit queue takes at most this many frames before pop_sent(): a port that is slow.
  size_t tx_room = SIZE_MAX;
  // One tx_burst() takes at most this many.
  size_t tx_a_burst = SIZE_MAX;
  io::PortCapabilities& change() { return capabilities_; }

  uint16_t rx_burst(rte_mbuf** out, uint16_t n) override {
    uint16_t got = 0;
    while (got < n && !rx_.empty()) {
      out[got++] = rx_.front();
      rx_.pop_front();
    }
    return got;
  }
  uint16_t tx_burst(rte_mbuf** frames, uint16_t n) override {
    uint16_t took = 0;
    while (took < n && took < tx_a_burst && tx_.size() < tx_room) tx_.push_back(frames[took++]);
    return took;
  }

 private:
  std::deque<rte_mbuf*> rx_, tx_;
};

}  // namespace millrace::support
