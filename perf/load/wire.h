// One wire: a port, the one neighbour behind it, and the frames on it. Answers ARP and ND for every address we play, finds the
// device under test's MAC, checks what comes in and writes headers from a template with the checksum left to the port or
// computed. Knows no connection.
//
//   port ─ rx_burst ─▶ parse (prefetched) ─▶ Segment[]          alloc ─▶ payload ─▶ write_headers ─▶ send ─▶ ring ─ flush ─▶ port
//                        └── ARP, ND: answered here
//
// Addresses are 32-bit ids, so that a connection's key is 12 bytes in both families: of IPv4 the address in host order, of IPv6
// the index in the AddressBook.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/base/prng.h"
#include "lib/base/time.h"
#include "lib/io/packet.h"
#include "lib/io/port_queue.h"
#include "lib/wire/checksum.h"
#include "perf/load/options.h"
#include "perf/load/run_result.h"

namespace millrace::load {

using AddressId = uint32_t;
inline constexpr AddressId kNoAddress = UINT32_MAX;

// IPv6 addresses by number, in both directions. Filled at start with our own; grows only by the device under test's addresses.
class AddressBook {
 public:
  static constexpr uint32_t kForeign = 65'536;  // addresses of others that are remembered

  explicit AddressBook(uint32_t own);              // capacity for our own addresses
  AddressId intern(const uint8_t* address16);      // kNoAddress: full
  AddressId find(const uint8_t* address16) const;  // kNoAddress: not there
  const uint8_t* bytes(AddressId id) const { return addresses_[id].data(); }
  uint32_t size() const { return count_; }

 private:
  uint32_t slot_of(const uint8_t* address16) const;
  std::vector<std::array<uint8_t, 16>> addresses_;
  std::vector<uint32_t> slots_;  // id + 1; 0: empty
  uint32_t count_ = 0;
};

// Which addresses we play. Ranges of IPv4 ids are compared; of IPv6 only what is in the book with an id below `own`.
class OwnAddresses {
 public:
  void add(const base::IpAddress& first, uint32_t count);
  void add_everything() { everything_ = true; }  // a forwarder stands for whoever is asked for
  bool contains(const base::IpAddress& a) const;

 private:
  struct Range {
    base::IpAddress first, last;
  };
  std::vector<Range> ranges_;
  bool everything_ = false;
};

// A TCP segment as it arrived, checked: lengths hold, the checksum is right. Host byte order.
struct Segment {
  rte_mbuf* packet;  // owned by whoever holds the segment; payload may go on in packet->next
  const uint8_t* tcp;
  const uint8_t* payload;
  uint32_t length;  // payload bytes in all, over the chain
  uint32_t first;   // of them in the first mbuf
  uint32_t seq, ack;
  AddressId src, dst;
  uint16_t src_port, dst_port;
  uint16_t window;
  uint8_t flags;
  uint8_t header;  // TCP header bytes
  bool v6;
};

class Wire {
 public:
  static constexpr uint16_t kBurst = 64;
  // Frames of a receive call while they are large ones: as many bytes as the core's cache holds until they are looked at.
  static constexpr uint16_t kLargeBurst = 16;
  static constexpr uint32_t kLarge = 8 * 1024;
  static constexpr uint32_t kQueue = 16'384;  // frames that wait for the port, a power of two
  static constexpr uint32_t kQueueHigh =
      kQueue / 4;  // buffers in waiting frames; above, data waits in its connections, acknowledgements go on
  static constexpr base::TimeNs kResolveEvery = 100 * base::kMillisecond;

  // All references outlive the wire. `packets`: where frames are built. `book` may be null without IPv6.
  Wire(io::PortQueue& port, io::PacketPool packets, const WireOptions& options, const OwnAddresses& own, AddressBook* book,
       Counters& counters, double loss, uint64_t seed);
  ~Wire();
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;

  // Up to kBurst segments into `out` (room for kBurst). Everything else in the burst is answered or dropped here. `frames`: how
  // many frames the port delivered.
  uint32_t receive(base::TimeNs now, Segment* out, uint32_t& frames);
  // Up to kBurst raw frames, ARP and ND answered and taken out: for --role forward.
  uint32_t receive_raw(rte_mbuf** out, uint32_t& frames);

  // Null (counted as tx_lost) when the pool is empty.
  rte_mbuf* alloc() {
    rte_mbuf* m = rte_pktmbuf_alloc(packets_.raw());
    if (m == nullptr) [[unlikely]]
      ++counters_.tx_lost;
    return m;
  }
  struct Headers {
    bool v6;
    AddressId src, dst;
    uint16_t src_port, dst_port;
    uint32_t seq, ack;
    uint16_t window;
    uint8_t flags;
    uint8_t options;  // bytes of TCP options, already written behind the 20 bytes of header
  };
  // The largest payload of one segment handed to the port, which cuts it to the connection's size; 0: the port does not cut.
  uint32_t max_payload() const { return max_payload_; }
  uint32_t buffer_bytes() const { return packets_.data_room(); }
  // A packet that refers to `n` bytes (at most kMaxReference) of memory that lives as long as the program. Only where the port
  // copies what it sends (can_refer()). Null as alloc().
  rte_mbuf* refer(const uint8_t* at, uint32_t n);
  bool can_refer() const { return port_.capabilities().tx_copies; }
  static constexpr uint32_t kMaxReference = 61'440;
  uint32_t header_bytes(bool v6) const { return v6 ? 14 + 40 + 20 : 14 + 20 + 20; }
  // Writes Ethernet, IP and TCP headers to the start of `m`, whose payload of `payload` bytes in all stands behind them (and the
  // options), with `mss` in a chain. `mss`: 0, or the size to which the port cuts the payload (TSO).
  void write_headers(rte_mbuf* m, const Headers& h, uint32_t payload, uint16_t mss);
  // Takes ownership.
  void send(rte_mbuf* m);
  // Sends a frame that was received as it is, its checksums right or, where the port left them to us, still to be filled in.
  void forward(rte_mbuf* m);
  // Hands over what the port takes.
  void flush();
  uint32_t queued() const { return tail_ - head_; }
  bool congested() const { return buffers_ > kQueueHigh; }

  // Resolving: call once in a while until it is true, or rely on receive() which also learns.
  bool resolved() const { return resolved_; }
  void resolve(base::TimeNs now);

  const io::PortCapabilities& capabilities() const { return port_.capabilities(); }
  const WireOptions& options() const { return options_; }

 private:
  bool parse(rte_mbuf* m, Segment& s);
  bool parse_v4(rte_mbuf* m, const uint8_t* ip, uint32_t left, Segment& s);
  bool parse_v6(rte_mbuf* m, const uint8_t* ip, uint32_t left, Segment& s);
  bool parse_tcp(rte_mbuf* m, const uint8_t* tcp, uint32_t bytes, base::ByteSpan ip, Segment& s);
  bool checksum_good(rte_mbuf* m, const uint8_t* tcp, uint32_t bytes, wire::ChecksumSum pseudo) const;
  void on_arp(base::ByteSpan packet);
  void on_nd(const uint8_t* ip, uint32_t left);
  void send_arp(uint16_t operation, const io::MacAddress& to, uint32_t sender_ip, uint32_t target_ip,
                const io::MacAddress& target_mac);
  void send_nd(bool solicitation, const io::MacAddress& to, const base::IpAddress& src, const base::IpAddress& dst,
               const base::IpAddress& target);
  bool lose() { return loss_ != 0 && random_.below(1'000'000) < loss_; }

  io::PortQueue& port_;
  io::PacketPool packets_;
  WireOptions options_;
  const OwnAddresses& own_;
  AddressBook* book_;
  Counters& counters_;
  uint32_t loss_;  // of 1,000,000
  base::Prng random_;
  std::array<uint8_t, 12> ethernet_{};  // destination and source
  bool resolved_ = false, announced_ = false, stalled_ = false;
  bool tx_checksum_, partial_checksum_, tso_with_length_;
  uint32_t max_payload_;
  base::TimeNs next_resolve_ = 0;
  uint16_t ip_id_ = 0;
  uint32_t head_ = 0, tail_ = 0;
  uint32_t buffers_ = 0;                // of the frames in the queue
  uint16_t burst_ = kBurst;             // of the next receive call
  rte_mbuf_ext_shared_info reference_;  // of all packets that refer(): counts them, frees nothing
  std::unique_ptr<rte_mbuf*[]> queue_;
};

inline rte_mbuf* Wire::refer(const uint8_t* at, uint32_t n) {
  rte_mbuf* m = alloc();
  if (m == nullptr) [[unlikely]]
    return nullptr;
  rte_mbuf_ext_refcnt_update(&reference_, 1);
  rte_pktmbuf_attach_extbuf(m, const_cast<uint8_t*>(at), RTE_BAD_IOVA, static_cast<uint16_t>(n), &reference_);
  m->data_len = static_cast<uint16_t>(n);
  m->pkt_len = n;
  return m;
}

inline void Wire::send(rte_mbuf* m) {
  if (tail_ - head_ == kQueue) [[unlikely]] {
    flush();
    if (tail_ - head_ == kQueue) {
      ++counters_.tx_lost;
      rte_pktmbuf_free(m);
      return;
    }
  }
  buffers_ += m->nb_segs;
  queue_[tail_++ & (kQueue - 1)] = m;
}

inline void Wire::write_headers(rte_mbuf* m, const Headers& h, uint32_t payload, uint16_t mss) {
  uint8_t* p = rte_pktmbuf_mtod(m, uint8_t*);
  std::memcpy(p, ethernet_.data(), 12);
  const uint32_t tcp_bytes = 20 + h.options + payload;
  wire::ChecksumSum pseudo;
  uint8_t* tcp;
  if (!h.v6) [[likely]] {
    const uint32_t total = 20 + tcp_bytes;
    p[12] = 0x08, p[13] = 0;
    uint8_t* ip = p + 14;
    const uint16_t id = ip_id_++;
    // 45 00 | total | id | DF | TTL 64, TCP
    uint64_t sum = 0x4500 + 0x4000 + 0x4006 + uint64_t{total} + id;
    sum += (h.src >> 16) + (h.src & 0xffff) + (h.dst >> 16) + (h.dst & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    base::store_be64(ip, uint64_t{0x4500} << 48 | uint64_t{total & 0xffff} << 32 | uint64_t{id} << 16 | 0x4000);
    base::store_be32(ip + 8, 0x40060000u | static_cast<uint16_t>(~sum));
    base::store_be32(ip + 12, h.src);
    base::store_be32(ip + 16, h.dst);
    pseudo = wire::pseudo_header_v4(h.src, h.dst, 6, mss != 0 && !tso_with_length_ ? 0 : tcp_bytes);
    tcp = ip + 20;
    m->l3_len = 20;
  } else {
    p[12] = 0x86, p[13] = 0xdd;
    uint8_t* ip = p + 14;
    base::store_be32(ip, 0x60000000);
    base::store_be16(ip + 4, static_cast<uint16_t>(tcp_bytes));
    ip[6] = 6, ip[7] = 64;
    std::memcpy(ip + 8, book_->bytes(h.src), 16);
    std::memcpy(ip + 24, book_->bytes(h.dst), 16);
    pseudo = wire::pseudo_header_v6(ip + 8, ip + 24, 6, mss != 0 && !tso_with_length_ ? 0 : tcp_bytes);
    tcp = ip + 40;
    m->l3_len = 40;
  }
  base::store_be32(tcp, uint32_t{h.src_port} << 16 | h.dst_port);
  base::store_be32(tcp + 4, h.seq);
  base::store_be32(tcp + 8, h.ack);
  base::store_be32(tcp + 12, uint32_t{(20u + h.options) / 4} << 28 | uint32_t{h.flags} << 16 | h.window);
  std::memset(tcp + 16, 0, 4);
  if (tx_checksum_) {
    const uint16_t folded = wire::checksum_fold(pseudo);
    wire::store_checksum(tcp + 16, folded);
    m->l2_len = 14;
    m->l4_len = 20 + h.options;
    m->ol_flags |= (h.v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4) | RTE_MBUF_F_TX_TCP_CKSUM;
    if (mss != 0) {
      m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG | (h.v6 ? 0 : RTE_MBUF_F_TX_IP_CKSUM);
      m->tso_segsz = mss;
    }
  } else {
    const auto header_and_payload = base::ByteSpan(tcp, tcp_bytes);
    wire::store_checksum(tcp + 16, wire::checksum_finish(pseudo + wire::checksum_sum(header_and_payload)));
  }
}

}  // namespace millrace::load
