// What a worker sees of a port: one receive and one transmit queue, and what the port can do. The only virtual calls of the
// packet path: one a burst, so that tests put a port of memory (tests/support/fake_port.h) in the place of DPDK's (port.h).
#pragma once

#include <array>
#include <cstdint>

#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"

struct rte_mbuf;

namespace millrace::io {

inline constexpr uint16_t kMaxPorts = 16;  // ports of one gateway; sizes the counters in shared memory
inline constexpr uint16_t kRxBurst = 32;   // frames of one receive call
// Packets of one received chain; longer ones are dropped (kRxTooManySegments). A frame of 64 KB in buffers of 2 KB, and some.
inline constexpr uint16_t kMaxRxSegments = 40;
// Packets of one sent chain at most, whatever the port takes: 64 KB in segments of 1,400 bytes as they came in, and the header.
inline constexpr uint16_t kMaxTxSegments = 48;
inline constexpr uint32_t kChainFrom = 512;  // payload bytes from which a frame refers to its payload instead of copying it

using MacAddress = std::array<uint8_t, 6>;

// What a port can do, after the start-up test and the `offloads` setting: the hot path asks nothing else. False means that
// software does it.
struct PortCapabilities {
  bool rx_ip_checksum = false;   // marks IPv4 headers good/bad
  bool rx_tcp_checksum = false;  // marks TCP checksums good/bad
  // Marks TCP segments as never summed (RTE_MBUF_F_RX_L4_CKSUM_NONE: "not correct in the data, but its integrity is verified"):
  // virtio and vhost, whose peers leave sums to a device that memory does not need. Only of these drivers is it believed.
  bool rx_tcp_unsummed = false;
  bool tx_ip_checksum = false;       // fills IPv4 header checksums in
  bool tx_tcp_checksum = false;      // fills TCP checksums in (pseudo-header sum given)
  bool tso = false;                  // cuts big TCP segments
  bool tso_sum_with_length = false;  // the pseudo-header's sum that it is given with those has the length in it
  bool lro = false;                  // delivers big TCP segments uncut
  bool tx_multi_segment = false;     // sends chained frames
  bool tx_copies = false;            // copies while it sends: frames may refer to memory that is not DPDK's (external buffers)
  bool rx_scatter = false;           // may deliver chains
  bool rss = false;                  // spreads flows by a Toeplitz hash that steering.h can predict
  // A peer on the same host (veth, tap) leaves TCP checksums half done: only the pseudo-header's sum is in the field, because the
  // bytes never left memory. Where this is set such a segment counts as good; any other wrong sum is dropped as everywhere.
  bool partial_rx_checksum = false;
  uint16_t mtu = 1500;           // in force: largest IP packet
  uint16_t max_mtu = 1500;       // largest that the port could be set to
  uint16_t max_tx_segments = 1;  // mbufs of one chained frame
  uint16_t rx_queues = 1;
  MacAddress mac{};
};

class PortQueue {
 public:
  virtual ~PortQueue() = default;
  // Up to `n` frames, owned by the caller. A frame is one mbuf, or where `rx_scatter` a chain of at most kMaxRxSegments whose
  // first segment holds at least the Ethernet, IP and TCP headers.
  virtual uint16_t rx_burst(rte_mbuf** out, uint16_t n) = 0;
  // Offers `n` frames; takes ownership of the first k, which it returns.
  virtual uint16_t tx_burst(rte_mbuf** frames, uint16_t n) = 0;
  const PortCapabilities& capabilities() const { return capabilities_; }
  void set_capabilities(const PortCapabilities& c) { capabilities_ = c; }
  // Where the queue counts frames that it drops itself: kDropReasonCount words of the worker, by DropReason.
  void count_drops_in(stats::Counter* drops) { drops_ = drops; }

 protected:
  void count(stats::DropReason r) {
    if (drops_ != nullptr) drops_[static_cast<uint32_t>(r)].add();
  }
  PortCapabilities capabilities_;

 private:
  stats::Counter* drops_ = nullptr;
};

}  // namespace millrace::io
