// ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): echo, and the errors that tell TCP something. Neighbour discovery is in nd.h.
#pragma once

#include <cstdint>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"
#include "lib/wire/parse_error.h"

namespace millrace::wire {

enum class IcmpKind : uint8_t {
  kEchoRequest,
  kEchoReply,
  kUnreachable,   // destination unreachable (also v4 protocol and port unreachable): `code` says why
  kPacketTooBig,  // v4: "fragmentation needed" (RFC 1191), v6: type 2; `mtu` is the next hop's, 0 when an old router did not say
  kTimeExceeded,
  kParameterProblem,
  kNeighbor,  // v6 types 133..137: parse it with nd.h
  kOther,     // well formed, none of our business
};

inline constexpr uint32_t kIcmpHeader = 8;         // bytes of every message here
inline constexpr uint32_t kIcmpMaxErrorV4 = 576;   // bytes of a whole IPv4 packet with an error (RFC 1812 4.3.2.3)
inline constexpr uint32_t kIcmpMaxErrorV6 = 1280;  // bytes of a whole IPv6 packet with an error (RFC 4443 2.4 c)

// The start of our own packet that an error quotes. Only as trustworthy as whoever sent the error: TCP checks the sequence number
// (RFC 5927 4).
struct QuotedPacket {
  base::IpAddress src, dst;
  uint8_t protocol = 0;
  bool has_ports = false;  // enough was quoted of a TCP or UDP header
  uint16_t src_port = 0, dst_port = 0;
  bool has_seq = false;  // of a TCP header
  uint32_t seq = 0;
};

struct IcmpView {
  IcmpKind kind = IcmpKind::kOther;
  uint8_t type = 0, code = 0;             // as on the wire
  uint16_t identifier = 0, sequence = 0;  // of an echo
  uint32_t mtu = 0;                       // kPacketTooBig
  bool has_quote = false;                 // errors: `quote` was readable
  QuotedPacket quote;

  // `message`: the IP payload. kNone; kTruncated; kBadChecksum. An error whose quote is no packet we can read has has_quote
  // false.
  static ParseError parse_v4(base::ByteSpan message, bool verify_checksum, IcmpView& out);
  // `src`, `dst`: of the IPv6 header, for the checksum.
  static ParseError parse_v6(base::ByteSpan message, const base::IpAddress& src, const base::IpAddress& dst, bool verify_checksum,
                             IcmpView& out);
};

// Turns an echo request into its reply in place, checksum included; the addresses of the IP header are the caller's to swap.
// `message` has been parsed as an echo request. For v6 the checksum stays right because swapping addresses does not change the
// sum.
void make_echo_reply_v4(base::MutableByteSpan message);
void make_echo_reply_v6(base::MutableByteSpan message);

// An echo request or reply of our own.
struct IcmpEchoRepr {
  bool reply = false;
  uint16_t identifier = 0, sequence = 0;
  base::ByteSpan data;  // follows the header

  uint32_t length() const { return kIcmpHeader + static_cast<uint32_t>(data.size()); }
  // Write length() bytes with checksum; return length().
  uint32_t emit_v4(uint8_t* out) const;
  uint32_t emit_v6(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const;
};

// An error about a packet that we received. Never about an ICMP error, a group address or a fragment: that is for the caller to
// see to (RFC 1122 3.2.2, RFC 4443 2.4 e).
struct IcmpErrorRepr {
  uint8_t type = 0, code = 0;  // as on the wire: v4 3/3 or v6 1/4 for a closed port, v6 4/1 for an unknown next header, ...
  uint32_t parameter = 0;      // the word behind the checksum: MTU or pointer
  base::ByteSpan packet;       // the offending packet from its IP header on; cut to what may be quoted

  uint32_t length_v4() const;  // at most kIcmpMaxErrorV4 - 20
  uint32_t length_v6() const;  // at most kIcmpMaxErrorV6 - 40
  uint32_t emit_v4(uint8_t* out) const;
  uint32_t emit_v6(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const;
};

}  // namespace millrace::wire
