// Several queues of one port as one: what a NIC's neighbour with many queues looks like to a device under test. A flow's frames
// leave by one queue, chosen by a hash of its addresses and ports that the other side does not know; what arrives is taken from
// all of them in turn.
#pragma once

#include <utility>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/io/packet.h"
#include "lib/io/port_queue.h"

namespace millrace::load {

class SpreadQueue final : public io::PortQueue {
 public:
  // `queues`: not owned, at least one, all of the same port.
  explicit SpreadQueue(std::vector<io::PortQueue*> queues) : queues_(std::move(queues)) {
    capabilities_ = queues_.front()->capabilities();
  }

  uint16_t rx_burst(rte_mbuf** out, uint16_t n) override {
    uint16_t got = 0;
    for (size_t i = 0; i < queues_.size() && got < n; ++i) {
      got = static_cast<uint16_t>(got + queues_[next_]->rx_burst(out + got, static_cast<uint16_t>(n - got)));
      next_ = next_ + 1 == queues_.size() ? 0 : next_ + 1;
    }
    return got;
  }

  // Frames of one queue that stand side by side go in one call. What a full queue does not take ends the burst: order is kept.
  uint16_t tx_burst(rte_mbuf** frames, uint16_t n) override {
    uint16_t sent = 0;
    while (sent < n) {
      const size_t queue = queue_of(frames[sent]);
      uint16_t end = static_cast<uint16_t>(sent + 1);
      while (end < n && queue_of(frames[end]) == queue) ++end;
      const uint16_t run = static_cast<uint16_t>(end - sent);
      const uint16_t took = queues_[queue]->tx_burst(frames + sent, run);
      sent = static_cast<uint16_t>(sent + took);
      if (took < run) break;
    }
    return sent;
  }

 private:
  // Untagged frames with options are spread by what stands in the ports' place: any place is good as long as it is always the
  // same.
  size_t queue_of(const rte_mbuf* m) const {
    const uint8_t* p = rte_pktmbuf_mtod(m, const uint8_t*);
    const bool v6 = p[12] == 0x86 && p[13] == 0xdd;
    if (m->data_len < (v6 ? 58 : 38)) return 0;
    uint64_t h = base::load_unaligned<uint64_t>(p + (v6 ? 46 : 26));
    if (!v6) h ^= uint64_t{base::load_be32(p + 34)} << 16;
    else h ^= base::load_unaligned<uint64_t>(p + 30) ^ uint64_t { base::load_be32(p + 54) } << 16;
    h *= 0x9e3779b97f4a7c15;
    return static_cast<size_t>((h >> 32) * queues_.size() >> 32);
  }

  std::vector<io::PortQueue*> queues_;
  size_t next_ = 0;
};

}  // namespace millrace::load
