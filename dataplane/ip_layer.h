// Ethernet, VLAN, ARP, ND, IPv4, IPv6 and ICMP of one worker: frames in, checked TCP segments out; TCP segments in, frames out.
// It knows addresses, routes and neighbours, nothing of connections.
//
//   receive:  frame ─▶ Ethernet/VLAN ─▶ ARP ── answered, learned (neighbor.h)
//                                   └─▶ IPv4/IPv6 ─▶ ICMP/ICMPv6 ── echo answered, ND, errors reported up
//                                                └─▶ TCP ── to the caller, checksum verified
//   send:     segment ─▶ route ─▶ neighbour ─▶ known: TxBuffer of the port
//                                          └─▶ unknown: waits, at most three frames a neighbour
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/connection.h"
#include "dataplane/counters.h"
#include "dataplane/exception_path.h"
#include "dataplane/neighbor.h"
#include "dataplane/rate_limit.h"
#include "dataplane/reassembly.h"
#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/io/packet.h"
#include "lib/io/packet_queue.h"
#include "lib/io/port_queue.h"
#include "lib/io/tx_buffer.h"
#include "lib/tcp/tcp.h"
#include "lib/wire/checksum.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/icmp.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "lib/wire/nd.h"

namespace millrace::dataplane {

struct InterfaceAddress {
  base::IpAddress address;
  uint8_t prefix_bits = 0;  // 0..32 or 0..128: what is reached without a router
};
struct InterfaceRoute {
  base::IpAddress network;  // unspecified with prefix_bits 0: default route of that family
  uint8_t prefix_bits = 0;
  base::IpAddress via;  // a neighbour of the same port and family
};
struct StaticNeighbor {
  base::IpAddress address;
  io::MacAddress mac{};
};
// An interface: addresses, routes and neighbours of one VLAN of one device.
struct InterfaceConfig {
  static constexpr uint16_t kOwnDevice = UINT16_MAX;
  uint16_t device =
      kOwnDevice;             // the device (index of its queue) that it is a further VLAN of; kOwnDevice: that of its own index
  uint16_t vlan = 0;          // 802.1Q tag of all its frames, 1..4094; 0: untagged, and tags that carry only a priority
  uint16_t mtu = 1500;        // largest IP packet we send; never above the device's
  uint8_t dad_transmits = 0;  // DupAddrDetectTransmits (RFC 4862 5.1) of its IPv6 addresses; 0: used without asking
  std::vector<InterfaceAddress> addresses;
  std::vector<InterfaceRoute> routes;
  std::vector<StaticNeighbor> neighbors;
};
struct IpLayerConfig {
  // The first ones are those of the devices, one each and in their order; behind them further VLANs. At most kMaxInterfaces. A
  // "port" in the names of this layer and those above it is an index into this list.
  std::vector<InterfaceConfig> ports;
  uint32_t max_neighbors = 1'024;
  uint32_t max_icmp_per_second = 1'000;  // echo replies and other answers of our own
  uint32_t max_fragments = 256;          // packets held for reassembly; 0: fragments are dropped
  ExceptionPath* exception = nullptr;    // the way to the host for what is not ours; null: none. Outlives the layer
  uint32_t worker = 0;                   // worker 0 announces the addresses, and asks whether they are free
  // Fragments of a datagram arrive wherever the port sends them, and meet at one of so many workers; `index`: which of them this
  // is. TcpStack sets both.
  uint32_t workers = 1, index = 0;
  uint64_t seed = 0;
};

// A TCP segment that passed every check of this layer. Of other verdicts only `frame`, `arrival_port` and `meets_at` are filled.
struct TcpPacket {
  rte_mbuf* frame = nullptr;  // owned by whoever holds this struct
  tcp::FourTuple tuple;
  uint16_t arrival_port = 0;      // the device where it came in
  uint16_t local_port_index = 0;  // the port that has the local address
  uint16_t l4_offset = 0;         // of the TCP header in the first segment's data
  uint16_t l4_length = 0;         // header and payload
  uint8_t ecn = 0;                // IP ECN bits (RFC 3168)
  uint32_t meets_at = 0;          // kFragment: the worker that puts its datagram together
};

// What an ICMP error says about a connection of ours.
struct IcmpError {
  enum class Kind : uint8_t { kUnreachable, kTooBig } kind = Kind::kUnreachable;
  bool hard = false;     // port or protocol unreachable, prohibited: no use to go on in SYN-SENT
  uint16_t mtu = 0;      // kTooBig: next hop's MTU, 0 when an old router does not say
  tcp::FourTuple tuple;  // as we see it
  uint32_t seq = 0;      // of the quoted segment
  uint16_t port = 0;     // whose address is local
};

enum class IpVerdict : uint8_t {
  kConsumed,   // answered, learned from or dropped with a reason; the frame is gone
  kTcp,        // `tcp` is filled and owns the frame
  kIcmpError,  // `error` is filled; `tcp.frame` is what it came in
  kFragment,   // a fragment for us that another worker waits for: `tcp.frame`, untouched, is for `tcp.meets_at`
};

class IpLayer {
 public:
  static constexpr uint16_t kMaxInterfaces = 128;  // of all devices together

  // References outlive the layer. ports[i] is the device of config.ports[i].
  IpLayer(const IpLayerConfig& config, std::span<io::PortQueue* const> ports, io::TxPools pools, const StackCounters& counters,
          TimeNs now);

  // Takes ownership of a frame that came in on device `port`. With `learn_only` (a copy of a frame that another worker has
  // answered) it only learns.
  IpVerdict input(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error);
  // The same, step by step: where input() sends all that is not an ordinary segment. Public for the test that compares the two.
  IpVerdict input_any(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error);
  // True when the last input() held neighbour information that the other workers need too (ARP, NS, NA).
  bool neighbor_news() const { return neighbor_news_; }

  struct Source {
    base::IpAddress address;
    uint16_t port = 0;
  };
  // The address and port from which `remote` is reached (longest prefix; on equal prefixes the first port of the configuration).
  // nullopt: no route. `nth` > 0: further addresses of that port, in the order of the configuration, of which one may be taken
  // when those before it have no free local port: of the family, in a subnet with the first. nullopt: there are no more.
  std::optional<Source> source_for(const base::IpAddress& remote, uint32_t nth = 0) const;
  // The port that has this address of ours.
  std::optional<uint16_t> port_of(const base::IpAddress& local) const;
  // Largest TCP payload towards `remote` from `port` without options: MTU less IP and TCP header.
  uint16_t mss(uint16_t port, bool v4) const;

  // Sends one segment of (tuple): `payload_length` bytes of `payload` from `payload_offset` (payload may be null when 0). `hop`
  // caches the next hop between calls. A payload above `mss` bytes is for the port to cut (TSO); the caller has asked can_cut().
  // `ecn`: of the IP header (RFC 3168 5). Returns kNone, or why it was dropped (also counted).
  stats::DropReason send_tcp(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, const wire::TcpRepr& header,
                             const io::PacketQueue* payload, uint64_t payload_offset, uint32_t payload_length, TimeNs now,
                             uint32_t mss = UINT32_MAX, wire::Ecn ecn = wire::Ecn::kNotCapable);
  // True when `port` cuts segments itself and takes this piece of `payload` as one frame (it may lie in too many packets).
  bool can_cut(uint16_t port, const io::PacketQueue& payload, uint64_t payload_offset, uint32_t payload_length) const;

  // Solicitations, failures; duplicate address detection; gratuitous ARP and unsolicited NA.
  void run_timers(TimeNs now);
  TimeNs next_deadline() const { return std::min(next_timer_, neighbors_.next_deadline()); }
  // Transmits every port's buffer. What a port does not take waits, and tx_blocked() says so until it has taken it.
  void flush(TimeNs now);
  void flush(uint16_t port, TimeNs now) {
    if (io::TxBuffer& tx = interfaces_[port]->tx; tx.waiting() > 0) tx.flush(now);
  }
  // Segments with data for this port are to wait. ARP, ND, ICMP and resets have a reserve (lib/io/tx_buffer.h).
  bool tx_blocked(uint16_t port) const { return interfaces_[port]->tx.blocked(); }
  // When the first of the blocked ports is given up; kNever: none is blocked.
  TimeNs tx_give_up_at() const;
  // The link of device `port` came up (again): whoever is on it now is told our addresses.
  void link_came_up(uint16_t port, TimeNs now);

  // True while some neighbour waits for a sign of life (NUD: DELAY, PROBE). Then progressed() for connections with news tells it
  // of progress (RFC 4861 7.3.1): `id` names the connection, `una` and `received` are where its two byte streams stand.
  bool neighbors_in_doubt() const { return neighbors_.in_doubt() != 0; }
  void progressed(const NextHop& hop, uint32_t id, uint32_t una, uint32_t received, TimeNs now) {
    if (hop.neighbor != NeighborTable::kNone) neighbors_.observe(hop.neighbor, hop.generation, id, una, received, now);
  }

  // Shows `tap` every frame that goes out; it outlives the layer.
  void set_tap(io::FrameTap& tap) {
    for (uint16_t p = 0; p < interfaces_.size(); ++p) interfaces_[p]->tx.set_tap(tap, p);
  }

  uint32_t ports() const { return static_cast<uint32_t>(interfaces_.size()); }
  uint16_t device_of(uint16_t port) const { return interfaces_[port]->device; }
  const io::PortCapabilities& capabilities(uint16_t port) const { return interfaces_[port]->capabilities; }
  const NeighborTable& neighbors() const { return neighbors_; }

  // The way to the host: true when the segment is the host's (no listener and no connection of ours wants it, but a rule says
  // so), and a copy is on its way.
  bool give_to_host(const TcpPacket& p, TimeNs now);
  // Frames of the host, to their ports. False: there were none.
  bool send_from_host(TimeNs now);
  bool takes_from_host() const { return config_.exception != nullptr && config_.exception->takes(); }

  // The addresses of all interfaces in the order of the configuration, and what became of each.
  enum class AddressState : uint8_t { kUsed, kTentative, kDuplicate };
  struct AddressStatus {
    base::IpAddress address;
    uint16_t port = 0;
    AddressState state = AddressState::kUsed;
  };
  std::span<const AddressStatus> addresses() const { return addresses_; }

 private:
  // An address of ours.
  struct Local {
    base::IpAddress address;
    uint16_t port = 0;
    bool used = false;
  };
  // What the first bytes of a frame must be for input() to take it in one pass: two masked comparisons.
  struct FastFrame {
    uint64_t mac = 0;        // our address in the destination, no group as source: bytes 0..7 under kMacMask
    uint32_t tag = 0;        // the configured 802.1Q tag, or nothing: bytes 12..15 under tag_mask
    uint32_t tag_mask = 0;   //
    uint32_t l3_offset = 0;  // 14 or 18
    static constexpr uint64_t kMacMask = 0x0001'ffff'ffff'ffff;
    void set(const io::MacAddress& mac, uint16_t vlan);
  };
  // What all our TCP frames of one family have in common on this port.
  struct Outgoing {
    uint64_t ethernet = 0;    // bytes 6 to 13 of the frame: source, tag or type
    uint32_t tag_rest = 0;    // bytes 14 to 17 where there is a tag
    uint32_t l3_offset = 0;   // 14 or 18
    uint32_t l4_offset = 0;   // of the TCP header
    uint32_t max_l4 = 0;      // largest TCP header and payload within the MTU
    uint64_t ol_flags = 0;    // what the port is asked for; 0 where it does no TCP checksums
    uint64_t tx_offload = 0;  // lengths of the link and IP header, as an mbuf has them
    void set(const io::PortCapabilities& c, const InterfaceConfig& config, bool v4);
  };
  // Checksum marks of received frames (the values of the masked flags) that stand for a checksum now.
  struct Believed {
    static constexpr uint64_t kNoMark = ~uint64_t{0};
    uint64_t ip = kNoMark, good = kNoMark, unsummed = kNoMark;
  };
  // One interface: its configuration, what its device can do, and the frames on their way out.
  struct Interface {
    Interface(const InterfaceConfig& c, io::PortQueue& q, io::TxPools pools, const StackCounters& counters, uint16_t d)
        : config(c),
          device(d),
          queue(q),
          capabilities(q.capabilities()),
          tx(q, pools, *counters.ports[d], counters.drops, *counters.stages) {
      fast.set(capabilities.mac, c.vlan);
      outgoing[0].set(capabilities, config, false);
      outgoing[1].set(capabilities, config, true);
    }
    InterfaceConfig config;
    uint16_t device;
    Interface* next_vlan = nullptr;  // of the same device
    uint16_t index = 0;
    io::PortQueue& queue;
    io::PortCapabilities capabilities;  // a copy: the receive self-test may take from it
    io::TxBuffer tx;
    uint32_t marks_to_verify = kMarksToVerify;     // frames marked good that are still to be checked
    uint32_t unsummed_to_verify = kMarksToVerify;  // frames marked as never summed, likewise
    FastFrame fast;
    Local recent;          // the address of ours that the last segment was for
    Outgoing outgoing[2];  // IPv6, IPv4
    Believed believed;
    void believe();   // after a change of what it says
    bool distrust();  // returns false
  };
  struct Route {
    base::IpAddress network, via;  // via unspecified: the destination itself is the neighbour
    uint8_t bits = 0;              // in the family's own form
    bool direct = false;
    uint16_t port = 0;
    bool down = false;                // `via` does not answer: others of the same prefix go first (RFC 1122 3.3.1.4)
    TimeNs ask_again = base::kNever;  // while down
  };
  // A frame under way through input().
  struct Frame {
    rte_mbuf* mbuf = nullptr;
    uint16_t port = 0;  // the interface
    uint32_t l3_offset = 0;
    wire::EthernetView ethernet;
    bool learn_only = false;
    TimeNs now = 0;
    base::ByteSpan l3() const;  // from the IP header to the frame's end; of a chain only the headers may be touched
  };
  // The first this many checksums that a port marks as good are computed all the same; one lie, and software does it from then
  // on.
  static constexpr uint32_t kMarksToVerify = 64;
  static constexpr uint32_t kAnnouncements = 2;                      // ANNOUNCE_NUM (RFC 5227 1.1)
  static constexpr TimeNs kAnnounceInterval = 2 * base::kSecond;     // ANNOUNCE_INTERVAL
  static constexpr TimeNs kDefendInterval = 10 * base::kSecond;      // DEFEND_INTERVAL
  static constexpr TimeNs kDadInterval = base::kSecond;              // RetransTimer (RFC 4862 5.4)
  static constexpr TimeNs kDeadRouterInterval = 10 * base::kSecond;  // how often a router that did not answer is asked again

  // What has to be done with an address in time.
  struct AddressTimer {
    uint8_t probes_left = 0;         // solicitations of duplicate address detection
    uint8_t announcements_left = 0;  //
    TimeNs due = base::kNever;
    TimeNs defended = 0;  // last time, when somebody claimed it
  };

  IpVerdict input_on(Interface& i, uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error);
  IpVerdict input_vlan(uint16_t port, rte_mbuf* frame, TimeNs now, bool learn_only, TcpPacket& tcp, IcmpError& error);
  Interface* interface_of(uint16_t device, uint16_t vlan) const;
  IpVerdict drop(const Frame& f, stats::DropReason why);
  IpVerdict done(const Frame& f);
  bool addressed_to_us(const Interface& i, const wire::MacAddress& dst) const;

  // ip_layer.cc
  IpVerdict input_v4(Frame& f, TcpPacket& tcp, IcmpError& error);
  IpVerdict input_v6(Frame& f, TcpPacket& tcp, IcmpError& error);
  IpVerdict input_tcp(Frame& f, const base::IpAddress& src, const base::IpAddress& dst, uint16_t local_port, uint32_t l4_offset,
                      uint32_t l4_length, uint8_t ecn, TcpPacket& tcp);
  bool tcp_checksum_ok(Interface& i, const rte_mbuf* m, uint32_t l4_offset, const base::IpAddress& src,
                       const base::IpAddress& dst, uint32_t l4_length);
  void write_link_and_ip(const Interface& i, bool v4, uint8_t* at, const io::MacAddress& destination, const tcp::FourTuple& tuple,
                         uint16_t address_sum, uint32_t l4_length, wire::Ecn ecn) const;
  stats::DropReason send_any(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, const wire::TcpRepr& header,
                             const io::PacketQueue* payload, uint64_t payload_offset, uint32_t payload_length, TimeNs now,
                             uint32_t mss, wire::Ecn ecn);
  stats::DropReason resolve(const tcp::FourTuple& tuple, uint16_t local_port_index, NextHop& hop, TimeNs now);
  static bool tcp_sum_ok(const rte_mbuf* m, uint32_t l4_offset, wire::ChecksumSum pseudo, uint32_t l4_length);
  const Route* route_to(const base::IpAddress& remote, uint16_t preferred_port) const;
  const Local* local(const base::IpAddress& a) const {
    if (!maybe_local(a)) return nullptr;
    for (uint32_t i = local_slot(a); locals_[i].used; i = (i + 1) & locals_mask_)
      if (locals_[i].address == a) return &locals_[i];
    return nullptr;
  }
  // False for nearly all addresses that are not ours: by the last byte's low six bits.
  bool maybe_local(const base::IpAddress& a) const { return (locals_filter_ >> (a.word(1) >> 56 & 63) & 1) != 0; }
  // Addresses come from the configuration, so the hash need not resist anybody.
  uint32_t local_slot(const base::IpAddress& a) const {
    return static_cast<uint32_t>((a.word(1) ^ std::rotl(a.word(0), 29)) * 0x9e3779b97f4a7c15ull >> 40) & locals_mask_;
  }
  const base::IpAddress* address_towards(uint16_t port, const base::IpAddress& neighbor) const;

  // ip_control.cc: ARP, ND, ICMP
  IpVerdict input_arp(Frame& f);
  IpVerdict input_nd(Frame& f, const base::IpAddress& src, const base::IpAddress& dst, uint8_t hop_limit, base::ByteSpan message);
  IpVerdict input_icmp(Frame& f, const wire::IcmpView& icmp, const base::IpAddress& src, const base::IpAddress& dst,
                       uint16_t local_port, uint32_t l4_offset, uint32_t l4_length, TcpPacket& tcp, IcmpError& error);
  IpVerdict input_solicitation(Frame& f, const wire::NdView& nd, const base::IpAddress& src);
  IpVerdict input_advertisement(Frame& f, const wire::NdView& nd);
  void learned(uint32_t slot);
  void solicit(const NeighborProbe& probe);
  void send_nd(uint16_t port, const wire::NdRepr& nd, const base::IpAddress& src, const base::IpAddress& dst,
               const wire::MacAddress& to);
  // Tells the sender of `f` what was wrong with it. Not called for what no error may be sent about: errors, groups, fragments but
  // the first (RFC 1122 3.2.2, RFC 4443 2.4 e).
  void send_icmp_error(const Frame& f, const base::IpAddress& src, const base::IpAddress& dst, uint8_t type, uint8_t code,
                       uint32_t parameter);
  void router_lost(uint16_t port, const base::IpAddress& router, TimeNs now);
  void router_found(uint16_t port, const base::IpAddress& router);

  // ip_fragments.cc: `f` is a fragment for us. kTcp: the whole datagram, of whatever protocol, is in f.mbuf.
  IpVerdict reassemble_v4(Frame& f, const wire::Ipv4View& ip, TcpPacket& elsewhere);
  IpVerdict reassemble_v6(Frame& f, const wire::Ipv6View& ip, TcpPacket& elsewhere);
  IpVerdict reassemble(Frame& f, Fragment& piece, TcpPacket& elsewhere);
  uint32_t fragment_owner(const Fragment& piece) const;
  void expire_fragments(TimeNs now);
  void send_fragments(Interface& i, const wire::MacAddress& to, const base::IpAddress& src, const base::IpAddress& dst,
                      uint8_t protocol, base::ByteSpan payload);

  // ip_host.cc: what is not ours. offer_to_host() copies the frame for the host, if there is a way to it; the frame stays the
  // caller's. not_ours() does that with a frame of no use to us, which is dropped for `why` where there is no host.
  bool offer_to_host(const Frame& f);
  IpVerdict not_ours(const Frame& f, stats::DropReason why);
  bool host_wants(const Frame& f, uint8_t protocol, uint32_t l4_offset) const;

  // ip_addresses.cc: the life of our own addresses
  void add_addresses(TimeNs now);
  void use(uint32_t address);
  void set_due(uint32_t address, TimeNs due);
  uint32_t address_index(uint16_t port, const base::IpAddress& a, AddressState state) const;  // UINT32_MAX: none
  void address_timers(TimeNs now);
  void announce(uint32_t address);
  void probe(uint32_t address);
  void found_duplicate(uint32_t address);
  void defend(const base::IpAddress& a, TimeNs now);
  uint8_t* control_frame(uint16_t port, const wire::MacAddress& dst, uint16_t ether_type, uint32_t length, rte_mbuf** frame);

  IpLayerConfig config_;
  StackCounters counters_;
  io::TxPools pools_;
  NeighborTable neighbors_;
  Reassembler reassembler_;
  uint32_t next_identification_;
  RateLimit icmp_limit_;
  std::vector<std::unique_ptr<Interface>> interfaces_;
  std::vector<Route> routes_;  // longest prefix first, then by port
  std::vector<Local> locals_;  // open addressing, power of two, at most half full
  uint32_t locals_mask_ = 0;
  uint64_t locals_filter_ = 0;
  std::vector<AddressStatus> addresses_;
  std::vector<AddressTimer> address_timers_;  // beside addresses_
  TimeNs next_timer_ = base::kNever;          // of addresses and of routers that are down
  uint32_t routers_down_ = 0;
  bool neighbor_news_ = false;
};

}  // namespace millrace::dataplane
