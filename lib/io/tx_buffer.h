// The frames of one worker on their way to one port: collected, then handed over in bursts. Builds frames from a header and a
// piece of a PacketQueue, by reference where the port can chain and the piece is worth it, else by copy.
//
// A port that does not take everything holds its senders back instead of losing their frames:
//
//            kBurst                    kCapacity        blocked(): who has data to send asks first and waits
//   0 ─ data ──┤ ─ reserve: ARP, ND, ICMP, RST ─┤       a full reserve drops the newest frame (kTxQueueFull)
//
// What the port leaves stays, in order, for the next flush(). A port that has taken nothing for kGiveUpAfter has no peer, or a
// dead one: all that waits is dropped (kTxQueueFull), and so is what comes, once a flush, until the port takes a frame again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lib/base/bytes.h"
#include "lib/base/time.h"
#include "lib/io/packet_pool.h"
#include "lib/io/packet_queue.h"
#include "lib/io/port_queue.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"
#include "lib/stats/stage_clock.h"

namespace millrace::io {

// Pools that frames are built from. `payload`: linear frames with payload; `headers`: at least 122 bytes, for frames without
// payload and in front of chains; `indirect`: mbufs without data that refer to payload (null pool: never chain).
struct TxPools {
  PacketPool payload, headers, indirect;
};

// Who looks at frames on their way (a capture). Asked `on` once a burst; `show` must leave the frames as they are.
struct FrameTap {
  bool on = false;
  void (*show)(FrameTap& self, uint16_t port, bool outbound, rte_mbuf* const* frames, uint32_t n) = nullptr;
  static FrameTap& none() {  // never on
    static FrameTap tap;
    return tap;
  }
};

class TxBuffer {
 public:
  // `drops`: kDropReasonCount counters, indexed by DropReason. `stages`: the worker's clock, told of Stage::kTxBurst. All
  // references outlive the buffer.
  TxBuffer(PortQueue& port, TxPools pools, stats::CounterBlock<stats::PortCounter>& counters, stats::Counter* drops,
           stats::StageClock& stages = stats::StageClock::never());
  ~TxBuffer();  // frees what was not sent
  TxBuffer(const TxBuffer&) = delete;
  TxBuffer& operator=(const TxBuffer&) = delete;

  // A frame of `header_bytes` uninitialised bytes (at most kHeaderRoom) followed by `length` payload bytes of `payload` from
  // `offset`. The caller writes the header in place (first segment's data) and then calls send(). Null when a pool is empty
  // (counted kTxNoMbuf).
  rte_mbuf* build(uint32_t header_bytes, const PacketQueue* payload, uint64_t offset, uint32_t length) {
    // Most frames: everything in one header packet, the payload from the front of the queue.
    const uint32_t size = header_bytes + length;
    if (size > header_room_ || (length > 0 && offset + length > payload->front().size())) [[unlikely]]
      return build_any(header_bytes, payload, offset, length);
    rte_mbuf* m = rte_mbuf_raw_alloc(pools_.headers.raw());
    if (m == nullptr) [[unlikely]]
      return no_packet();
    reset_for_transmit(m, size);
    if (length > 0) std::memcpy(rte_pktmbuf_mtod(m, uint8_t*) + header_bytes, payload->front().data() + offset, length);
    return m;
  }
  // Takes ownership of a complete frame (single or chained).
  void send(rte_mbuf* frame) {
    if (count_ >= kBurst && !make_room()) [[unlikely]]
      return drop(frame);
    bytes_ += frame->pkt_len;
    frames_[count_++] = frame;
  }
  void send(PacketPtr frame) { send(frame.release()); }
  // Offers everything to the port, once. At the end of each iteration in which something waits.
  void flush(base::TimeNs now);
  // The port did not take all that it was last offered: new data is to wait until a flush() has made room.
  bool blocked() const { return blocked_; }
  // When a port that is blocked will be given up, if it goes on taking nothing; kNever: it is not blocked.
  base::TimeNs give_up_at() const { return blocked_ ? base::time_add(full_since_, kGiveUpAfter) : base::kNever; }

  // Shows `tap` every frame just before the port is offered it, as frames of port `index`.
  void set_tap(FrameTap& tap, uint16_t index) {
    tap_ = &tap;
    tap_port_ = index;
  }

  uint32_t waiting() const { return count_; }
  PortQueue& port() { return port_; }
  static constexpr uint32_t kBurst = 128;                      // frames from which the port is offered them at once
  static constexpr uint32_t kCapacity = 256;                   // frames; those above kBurst are the reserve of who cannot wait
  static constexpr base::TimeNs kGiveUpAfter = base::kSecond;  // longer than any pause of a peer that still lives

 private:
  // What rte_pktmbuf_reset() does, less what only receivers look at, in five stores, as receive paths of drivers do it. A packet
  // from a pool has one reference, one segment and no successor (rte_mbuf_raw_free() sees to that).
  static void reset_for_transmit(rte_mbuf* m, uint32_t size) {
    constexpr uint64_t kDataOffRefcntSegmentsPort =
        uint64_t{RTE_PKTMBUF_HEADROOM} | uint64_t{1} << 16 | uint64_t{1} << 32 | uint64_t{RTE_MBUF_PORT_INVALID} << 48;
    static_assert(offsetof(rte_mbuf, refcnt) == offsetof(rte_mbuf, rearm_data) + 2 &&
                  offsetof(rte_mbuf, nb_segs) == offsetof(rte_mbuf, rearm_data) + 4 &&
                  offsetof(rte_mbuf, port) == offsetof(rte_mbuf, rearm_data) + 6);
    std::memcpy(&m->rearm_data, &kDataOffRefcntSegmentsPort, sizeof kDataOffRefcntSegmentsPort);
    m->ol_flags = 0;
    m->pkt_len = size;
    m->data_len = static_cast<uint16_t>(size);
    m->vlan_tci = 0;
    m->tx_offload = 0;
  }
  rte_mbuf* no_packet();  // counts; null
  bool make_room();
  void drop(rte_mbuf* frame);
  uint32_t offer();
  rte_mbuf* build_any(uint32_t header_bytes, const PacketQueue* payload, uint64_t offset, uint32_t length);
  rte_mbuf* build_chain(uint32_t header_bytes, const PacketQueue& payload, uint64_t offset, uint32_t length);

  PortQueue& port_;
  TxPools pools_;
  stats::CounterBlock<stats::PortCounter>& counters_;
  stats::Counter* drops_;
  stats::StageClock& stages_;
  FrameTap* tap_ = &FrameTap::none();
  uint16_t tap_port_ = 0;
  uint32_t shown_ = 0;    // of the frames, from the front: offered before, so the tap has seen them
  uint32_t header_room_;  // of the header pool's packets, at most kHeaderRoom
  uint32_t count_ = 0;
  bool blocked_ = false;
  uint64_t bytes_ = 0;                      // in the frames
  base::TimeNs full_since_ = base::kNever;  // the last progress of a port that does not take everything
  rte_mbuf* frames_[kCapacity];
};

}  // namespace millrace::io
