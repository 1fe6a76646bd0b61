// Neighbour discovery for IPv6 (RFC 4861): router and neighbour solicitations and advertisements. Redirects are kUnsupported: a
// gateway with static routes does not let a neighbour rewrite them.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

enum class NdType : uint8_t {
  kRouterSolicitation = 133,
  kRouterAdvertisement = 134,
  kNeighborSolicitation = 135,
  kNeighborAdvertisement = 136,
};

inline constexpr uint8_t kNdHopLimit = 255;    // RFC 4861 4: proof that no router forwarded it
inline constexpr uint32_t kNdMaxOptions = 16;  // more in one message are refused
inline constexpr uint32_t kNdMaxPrefixes = 4;  // of a router advertisement; further ones are ignored
inline constexpr uint32_t kNdMaxLength = 32;   // bytes that NdRepr::emit writes at most

// RFC 4861 4.6.2.
struct NdPrefix {
  base::IpAddress prefix;
  uint8_t prefix_length = 0;
  bool on_link = false, autonomous = false;
  uint32_t valid_lifetime_s = 0, preferred_lifetime_s = 0;
};

struct NdView {
  NdType type = NdType::kNeighborSolicitation;
  base::IpAddress target;                                         // NS, NA
  bool router = false, solicited = false, override_flag = false;  // NA: R, S, O
  std::optional<MacAddress> source_mac;                           // option 1: NS, RS, RA
  std::optional<MacAddress> target_mac;                           // option 2: NA
  // RA only
  uint8_t hop_limit = 0;                                 // 0: unspecified
  uint16_t router_lifetime_s = 0;                        // 0: not a default router
  uint32_t reachable_time_ms = 0, retrans_timer_ms = 0;  // 0: unspecified
  std::optional<uint32_t> mtu;                           // option 5
  uint8_t prefix_count = 0;
  NdPrefix prefixes[kNdMaxPrefixes];

  // `message`: the payload of an IPv6 packet from `src` to `dst` whose next header is ICMPv6 and whose type is one of NdType.
  // All checks of RFC 4861 6.1.1, 6.1.2, 7.1.1, 7.1.2. kNone; kTruncated; kBadChecksum; kBadHeader; kUnsupported.
  static ParseError parse(base::ByteSpan message, const base::IpAddress& src, const base::IpAddress& dst, uint8_t hop_limit,
                          bool verify_checksum, NdView& out);
};

// What we send: solicitations and advertisements of our own addresses. The IPv6 header around has hop limit 255.
struct NdRepr {
  NdType type = NdType::kNeighborSolicitation;  // kNeighborSolicitation or kNeighborAdvertisement
  base::IpAddress target;
  bool router = false, solicited = false, override_flag = false;  // NA
  std::optional<MacAddress> mac;  // ours: source link-layer address of an NS (not from ::), target link-layer address of an NA

  uint32_t length() const { return mac ? 32 : 24; }
  // Writes length() bytes with checksum; returns length().
  uint32_t emit(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const;
};

}  // namespace millrace::wire
