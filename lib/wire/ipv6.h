// The IPv6 header (RFC 8200) and the extension headers in front of the payload, which are checked and skipped within limits.
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

inline constexpr uint32_t kIpv6Header = 40;              // bytes
inline constexpr uint32_t kIpv6MaxExtensions = 8;        // headers; RFC 8504 5.3 allows a limit, and real traffic has 0 or 1
inline constexpr uint32_t kIpv6MaxExtensionBytes = 256;  // of all extension headers together
inline constexpr uint32_t kIpv6MaxOptions = 8;           // options in one header, padding not counted (RFC 8504 5.3)

struct Ipv6View {
  base::IpAddress src, dst;
  uint8_t next_header = 0;  // of the payload, behind all extension headers (IpProtocol, or 59: nothing follows)
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;    // DSCP and ECN
  uint32_t flow_label = 0;      // 20 bits
  uint16_t payload_offset = 0;  // of the first byte behind the extension headers
  uint16_t payload_length = 0;  // behind the extension headers
  uint16_t fragment_at = 0;     // with kFragment: where the fragment header stands; next_header is 44 then
  uint16_t next_header_at = 6;  // where in the packet `next_header` stands
  // With kBadHeader: what to tell the sender in a parameter problem (RFC 8200 4, RFC 4443 3.4). problem_at 0: nothing.
  uint16_t problem_at = 0;
  uint8_t problem_code = 0;      // 0 erroneous field, 1 unknown next header, 2 unknown option
  bool problem_to_group = true;  // also when the packet was for a group (an option whose two highest bits are 10)

  Ecn ecn() const { return static_cast<Ecn>(traffic_class & 3); }

  // `packet`: behind the Ethernet header; padding may follow.
  // kNone; kTruncated; kBadHeader (version; an extension out of place, over the limits, with an option that RFC 8200 4.2 tells us
  // to discard the packet for; a routing header with segments left, which is always so for the deprecated type 0, RFC 5095; a
  // group or v4-mapped source); kFragment, with all but the payload filled. An atomic fragment header (RFC 6946) is skipped.
  static ParseError parse(base::ByteSpan packet, Ipv6View& out);
};

struct Ipv6Repr {
  base::IpAddress src, dst;
  uint8_t next_header = 0;
  uint8_t hop_limit = kDefaultHopLimit;
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;      // 20 bits
  uint16_t payload_length = 0;  // bytes behind these 40

  // Writes kIpv6Header bytes; returns kIpv6Header.
  uint32_t emit(uint8_t* out) const;
};

// ff00::/8
constexpr bool is_multicast_v6(const base::IpAddress& a) { return a.bytes[0] == 0xff; }
// fe80::/10
constexpr bool is_link_local_v6(const base::IpAddress& a) { return a.bytes[0] == 0xfe && (a.bytes[1] & 0xc0) == 0x80; }
// fe80:: with the modified EUI-64 of `mac` (RFC 4291 appendix A).
base::IpAddress link_local_from_mac(const uint8_t* mac6);
// ff02::1:ffXX:XXXX (RFC 4291 2.7.1): where solicitations for `a` go.
base::IpAddress solicited_node_group(const base::IpAddress& a);
// ff02::1
base::IpAddress all_nodes_group();
// ff02::2
base::IpAddress all_routers_group();

}  // namespace millrace::wire
