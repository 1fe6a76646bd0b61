// Which packets a capture wants: a small program in postfix order, made of text by control (packet_filter_parser.cc), sent with
// the command, and run by workers on the parsed fields of each frame. No jumps, no memory: one bit a result, at most 64 of them.
//
// The language is the part of pcap-filter(7) that names fields, with the same words and precedence:
//
//   expression := term | not expression | expression and expression | expression or expression | ( expression )
//   term       := [ip|ip6|tcp|udp] [src|dst] host ADDRESS | [src|dst] net ADDRESS/BITS | [tcp|udp] [src|dst] port N
//               | [src|dst] portrange N-N | ip | ip6 | arp | tcp | udp | icmp | icmp6 | vlan [N]
//               | inbound | outbound | tcp-syn | tcp-ack | tcp-fin | tcp-rst | tcp-push | less N | greater N
//               | listener NAME | cluster NAME
//   not, and, or may be written !, &&, ||; and and or have equal precedence and group to the left, not binds strongest.
//
// Beyond pcap: tcp-syn and the like alone are true where the segment has that flag; listener and cluster stand for the addresses
// that these have now (a listener's on our side, a cluster's endpoints on the other). Not there: byte offsets, Ethernet
// addresses, names of hosts, ports or networks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/ip_address.h"
#include "lib/base/status.h"

namespace millrace::table {

inline constexpr uint32_t kMaxFilterOps = 48;         // of one program; the text that needs more is refused
inline constexpr uint32_t kMaxFilterText = 4 * 1024;  // bytes

enum class FilterTerm : uint8_t {
  kIp4 = 1,
  kIp6,
  kArp,
  kTcp,
  kUdp,
  kIcmp,
  kIcmp6,
  kVlan,      // lo: its number, 0: any
  kInbound,   // received
  kOutbound,  // sent
  kNet,       // side, address, bits (of the family's own form)
  kPort,      // side, lo … hi
  kFlags,     // lo: TCP flag bits, one of which is set
  kLess,      // frame length at most lo
  kGreater,   // frame length at least lo
  kNot,
  kAnd,
  kOr,
  kCount
};
enum class FilterSide : uint8_t { kEither = 0, kSource, kDestination };

struct FilterOp {
  FilterTerm term = FilterTerm::kIp4;
  FilterSide side = FilterSide::kEither;
  uint8_t bits = 0;
  uint8_t reserved = 0;
  uint16_t lo = 0, hi = 0;
  base::IpAddress address;
};
static_assert(sizeof(FilterOp) == 24);

struct PacketFilter {
  uint32_t count = 0;  // of ops; 0: every packet
  uint32_t reserved = 0;
  FilterOp ops[kMaxFilterOps];
};

// What a filter looks at. Fields that a frame does not have are 0, `has_…` false.
struct PacketFields {
  uint32_t length = 0;  // bytes of the frame
  uint16_t ether_type = 0, vlan = 0;
  uint16_t source_port = 0, destination_port = 0;
  uint8_t protocol = 0;  // of IP; an extension header that cannot be passed ends the search
  uint8_t tcp_flags = 0;
  bool outbound = false;
  bool has_addresses = false, has_ports = false, has_vlan = false;
  base::IpAddress source, destination;
};
// Reads the fields of an Ethernet frame; `front`: its first bytes, as many as lie in one piece. Anything may be cut or wrong:
// then fields are missing. `length` and `outbound` are the caller's.
void read_fields(std::span<const uint8_t> front, PacketFields& fields);

// True when the program is one: every term known, the stack never empty where it is needed, and one result at the end.
bool is_valid(const PacketFilter& filter);
// Does the packet match? `filter` is valid.
bool matches(const PacketFilter& filter, const PacketFields& fields);

// What `listener NAME` and `cluster NAME` stand for.
struct FilterEndpoint {
  base::IpAddress address;  // unspecified: any
  uint16_t port = 0;
};
struct FilterNames {
  // Each gives the endpoints of that name; an error says that there is none.
  std::function<base::Result<std::vector<FilterEndpoint>>(std::string_view)> listener, cluster;
};
// The program of a text; empty text: every packet. Errors name the place: `column 12: "hots" is no word of the language; did you
// mean host?`
base::Result<PacketFilter> parse_packet_filter(std::string_view text, const FilterNames& names = {});

}  // namespace millrace::table
