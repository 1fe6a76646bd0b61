// IP fragments of one worker, held until their datagram is whole (RFC 791 3.2, RFC 8200 4.5). Within bounds, because nobody who
// sends fragments has proved to be there (RFC 8900 3.7):
//
//   all together        `max_fragments` packets, kMaxDatagrams datagrams   the oldest datagram gives way
//   one source          a quarter of that                                  its new fragment, and what came of that datagram, goes
//   one datagram        kMaxPieces fragments; 30 s (IPv4, as Linux), 60 s (IPv6, RFC 8200)
//   overlapping pieces  the whole datagram goes (RFC 5722; of IPv4 too): who writes over himself means no good
//
// Knows bytes and time, no addresses of ours; what comes out is a frame as if it had come in one piece.
#pragma once

#include <cstdint>
#include <memory>

#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/io/packet_pool.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"

struct rte_mbuf;

namespace millrace::dataplane {

using base::TimeNs;

struct Fragment {
  base::IpAddress src, dst;
  uint32_t identification = 0;
  uint8_t protocol = 0;  // of the payload; IPv6: as the fragment header says
  uint8_t ecn = 0;
  bool more = false;            // not the last one
  uint16_t port = 0;            // interface of arrival
  rte_mbuf* frame = nullptr;    // one segment, Ethernet header included; add() takes it
  uint16_t l3_offset = 0;       // of the IP header in it
  uint16_t next_header_at = 0;  // IPv6: of the field that says that a fragment header follows, from the IP header
  uint16_t data_offset = 0;     // of the fragment's data, from the IP header
  uint16_t length = 0;          // of its data
  uint32_t offset = 0;          // of its data in the datagram
};

class Reassembler {
 public:
  static constexpr uint32_t kMaxDatagrams = 64;
  static constexpr uint32_t kMaxPieces = 48;  // 64 KB in fragments of an Ethernet
  static constexpr TimeNs kTimeoutV4 = 30 * base::kSecond, kTimeoutV6 = 60 * base::kSecond;

  // `pool`: where a datagram that fits into one packet is put together. `drops`: by DropReason. `max_fragments` 0: holds none.
  Reassembler(uint32_t max_fragments, io::PacketPool pool, stats::Counter* drops);
  ~Reassembler();
  Reassembler(const Reassembler&) = delete;
  Reassembler& operator=(const Reassembler&) = delete;

  // Takes the frame in any case. The datagram's frame when this was its last missing piece (one packet where it fits, else a
  // chain; header rewritten), else null: held, or dropped with a reason.
  rte_mbuf* add(const Fragment& f, TimeNs now);
  // A datagram whose time is up: gives its first fragment (the caller frees it), or null when that never came; false: none is
  // due. `port`, `l3_offset`: of that frame.
  bool expire(TimeNs now, rte_mbuf** first, uint16_t* port, uint16_t* l3_offset);
  TimeNs next_deadline() const;  // kNever: nothing is held

  uint32_t held() const { return held_; }  // packets

 private:
  struct Piece {
    rte_mbuf* frame;
    uint32_t offset;
    uint16_t length, data_offset;  // data_offset: from the frame's start
  };
  struct Datagram {
    base::IpAddress src, dst;
    uint32_t identification = 0;
    uint32_t total = 0;     // bytes of payload; 0: the last piece has not come
    uint32_t received = 0;  // bytes
    uint16_t pieces = 0;    // 0: free
    uint16_t port = 0, l3_offset = 0, next_header_at = 0;
    uint8_t protocol = 0;
    uint8_t ecn = 0;  // bits seen: 1 << ECN of each fragment
    TimeNs deadline = 0;
    Piece piece[kMaxPieces];  // by offset
  };
  Datagram* find(const Fragment& f);
  Datagram* make(const Fragment& f, TimeNs now);
  bool room_for(const Fragment& f, const Datagram& d);
  void give_up(Datagram& d, stats::DropReason why);
  rte_mbuf* assemble(Datagram& d);
  rte_mbuf* refuse(const Fragment& f, stats::DropReason why);
  void count(stats::DropReason why, uint32_t n = 1) { drops_[static_cast<uint32_t>(why)].add(n); }

  uint32_t max_fragments_;
  io::PacketPool pool_;
  stats::Counter* drops_;
  std::unique_ptr<Datagram[]> datagrams_;
  uint32_t held_ = 0;
};

}  // namespace millrace::dataplane
