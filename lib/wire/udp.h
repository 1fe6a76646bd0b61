// The UDP header (RFC 768).
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

inline constexpr uint32_t kUdpHeader = 8;          // bytes
inline constexpr uint32_t kUdpChecksumOffset = 6;  // of the checksum field

struct UdpView {
  uint16_t src_port = 0, dst_port = 0;
  uint16_t payload_length = 0;  // behind the header, by the header's own length field
  bool has_checksum = false;    // false is legal over IPv4 only (RFC 8200 8.1)

  // `datagram`: the IP payload. kNone; kTruncated; kBadHeader (length below 8). The checksum is not looked at.
  static ParseError parse(base::ByteSpan datagram, UdpView& out) {
    if (datagram.size() < kUdpHeader) return ParseError::kTruncated;
    const uint8_t* p = datagram.data();
    const uint16_t length = base::load_be16(p + 4);
    if (length < kUdpHeader) return ParseError::kBadHeader;
    if (length > datagram.size()) return ParseError::kTruncated;
    out.src_port = base::load_be16(p);
    out.dst_port = base::load_be16(p + 2);
    out.payload_length = static_cast<uint16_t>(length - kUdpHeader);
    out.has_checksum = base::load_be16(p + kUdpChecksumOffset) != 0;
    return ParseError::kNone;
  }
};

struct UdpRepr {
  uint16_t src_port = 0, dst_port = 0;
  uint16_t payload_length = 0;

  // Writes kUdpHeader bytes with checksum 0; returns kUdpHeader.
  uint32_t emit(uint8_t* out) const {
    base::store_be16(out, src_port);
    base::store_be16(out + 2, dst_port);
    base::store_be16(out + 4, static_cast<uint16_t>(kUdpHeader + payload_length));
    base::store_be16(out + 6, 0);
    return kUdpHeader;
  }
};

}  // namespace millrace::wire
