// The IPv4 header (RFC 791). Options are checked and skipped; source routes are refused (RFC 7126 4.3, 4.4), fragments too.
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

enum IpProtocol : uint8_t {
  kIpIcmp = 1,
  kIpTcp = 6,
  kIpUdp = 17,
  kIpIcmpv6 = 58,
  kIpv6NoNext = 59,
};

// Of the last two bits of tos / traffic class (RFC 3168 5).
enum class Ecn : uint8_t { kNotCapable = 0, kCapable1 = 1, kCapable0 = 2, kCongestion = 3 };

inline constexpr uint32_t kIpv4Header = 20;          // bytes without options
inline constexpr uint32_t kIpv4ChecksumOffset = 10;  // of the checksum field
inline constexpr uint8_t kDefaultHopLimit = 64;      // RFC 1700's advice

struct Ipv4View {
  uint32_t src = 0, dst = 0;  // host order
  uint8_t protocol = 0;
  uint8_t ttl = 0;
  uint8_t tos = 0;  // DSCP and ECN
  bool dont_fragment = false;
  uint16_t identification = 0;
  uint16_t payload_offset = 0;  // header length: 20..60
  uint16_t payload_length = 0;  // by the total length field; the frame may be longer (Ethernet's padding)

  Ecn ecn() const { return static_cast<Ecn>(tos & 3); }

  // `packet`: behind the Ethernet header. `verify_checksum`: false where the port has vouched for it.
  // kNone; kTruncated; kBadHeader (version, header or total length, options, source route); kBadChecksum; kFragment, with `out`
  // filled.
  static ParseError parse(base::ByteSpan packet, bool verify_checksum, Ipv4View& out);
};

struct Ipv4Repr {
  uint32_t src = 0, dst = 0;  // host order
  uint8_t protocol = 0;
  uint8_t ttl = kDefaultHopLimit;
  uint8_t tos = 0;
  bool dont_fragment = true;  // then identification may be anything (RFC 6864 4.1)
  uint16_t identification = 0;
  uint16_t payload_length = 0;

  // Writes kIpv4Header bytes, with the checksum (or 0 for a port that fills it in). Returns kIpv4Header.
  uint32_t emit(uint8_t* out, bool with_checksum = true) const;
};

}  // namespace millrace::wire
