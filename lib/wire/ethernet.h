// Ethernet II frames (IEEE 802.3 3.2.6) with at most one 802.1Q tag. LLC frames (length instead of type) are kUnsupported, as is
// a second tag.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

using MacAddress = std::array<uint8_t, 6>;

inline constexpr MacAddress kBroadcastMac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

constexpr bool is_group(const MacAddress& m) { return (m[0] & 1) != 0; }  // multicast or broadcast
// The Ethernet group of an IPv6 group: 33:33 and its last four bytes (RFC 2464 7).
constexpr MacAddress multicast_mac_v6(const base::IpAddress& group) {
  return {0x33, 0x33, group.bytes[12], group.bytes[13], group.bytes[14], group.bytes[15]};
}

enum EtherType : uint16_t {
  kEtherIpv4 = 0x0800,
  kEtherArp = 0x0806,
  kEtherVlan = 0x8100,   // 802.1Q C-tag
  kEtherSvlan = 0x88a8,  // 802.1ad S-tag: not spoken
  kEtherIpv6 = 0x86dd,
};

inline constexpr uint32_t kEthernetHeader = 14, kVlanTag = 4;  // bytes
inline constexpr uint16_t kMaxVlanId = 4094;                   // 0 is "no VLAN" (a priority tag), 4095 reserved (802.1Q 9.6)

struct EthernetView {
  MacAddress dst, src;
  uint16_t ether_type = 0;     // of the payload, behind the tag if there is one
  uint16_t vlan_id = 0;        // 1..4094; 0: untagged, or a tag that carries only a priority
  uint8_t priority = 0;        // PCP of the tag
  uint8_t payload_offset = 0;  // 14 or 18

  // kNone; kTruncated; kBadHeader (group address as source, VLAN 4095); kUnsupported (LLC, two tags).
  static ParseError parse(base::ByteSpan frame, EthernetView& out);
};

struct EthernetRepr {
  MacAddress dst, src;
  uint16_t ether_type = 0;
  uint16_t vlan_id = 0;  // 0: no tag

  uint32_t header_length() const { return vlan_id == 0 ? kEthernetHeader : kEthernetHeader + kVlanTag; }
  // Writes header_length() bytes; returns how many.
  uint32_t emit(uint8_t* out) const;
};

}  // namespace millrace::wire
