// The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt of 2020): the line or block by which a proxy in front of
// us says whose connection it passes on, and by which we say so to an endpoint. Bytes in, addresses out; no I/O, no state.
//
//   v1  "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"          v2  12 bytes of signature | 2, command | family | length |
//   addresses | TLVs
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/base/bytes.h"
#include "lib/base/ip_address.h"

namespace millrace::wire {

inline constexpr size_t kMostProxyV1Bytes = 107;    // of the specification, CRLF included
inline constexpr size_t kProxyV2HeadBytes = 16;     // signature, version and command, family, length
inline constexpr size_t kMostProxyV2Bytes = 4'096;  // ours, of what is read: addresses and TLVs; the specification allows 65,551
inline constexpr size_t kMostProxyHeaderBytes = 107;  // of what is written, without TLVs: version 1 is the longer one
inline constexpr size_t kMostTlvBytes = 65'535 - 36;  // of what is written: the length counts addresses too

enum class ProxyStatus : uint8_t {
  kDone,     // ProxyHeader::size bytes are it
  kPartial,  // so far it is one; more bytes are needed
  kAbsent,   // the bytes are something else
  kBad,      // it begins like one and is none
};
enum class ProxyError : uint8_t {
  kNone,
  kLine,      // v1: no CRLF within its 107 bytes, or other characters than a line of words has
  kFamily,    // neither TCP4, TCP6 nor UNKNOWN; v2: neither INET, INET6 nor UNSPEC, or neither STREAM nor DGRAM
  kAddress,   // v1: not an address of its family
  kPort,      // v1: not a decimal from 0 to 65535
  kVersion,   // v2: another version than 2
  kCommand,   // v2: neither LOCAL nor PROXY
  kLength,    // v2: too short for its addresses, or longer than kMostProxyV2Bytes
  kTlv,       // v2: a TLV that runs out of the header
  kChecksum,  // v2: PP2_TYPE_CRC32C does not agree
};
const char* to_string(ProxyError e);  // stable, snake_case

struct ProxyHeader {
  uint8_t version = 0;  // 1 or 2
  // LOCAL, UNKNOWN or UNSPEC: the proxy speaks for itself, the connection's own addresses count.
  bool local = true;
  base::IpAddress source, destination;  // of the client's connection; not of local ones
  uint16_t source_port = 0, destination_port = 0;
  base::ByteSpan tlvs;  // v2: type, length and value of each, checked; a view into the input
  size_t size = 0;      // bytes of the whole header
};

// Looks at the first bytes of a connection. `bytes` may be less than the whole header, and more. *header is filled with kDone.
ProxyStatus parse_proxy_header(base::ByteSpan bytes, ProxyHeader* header, ProxyError* error);

inline constexpr uint8_t kTlvAlpn = 0x01, kTlvAuthority = 0x02, kTlvCrc32c = 0x03, kTlvNoop = 0x04, kTlvUniqueId = 0x05,
                         kTlvSsl = 0x20, kTlvNetns = 0x30;

// One TLV of a checked sequence.
struct ProxyTlv {
  uint8_t type = 0;
  base::ByteSpan value;
};
// The next of `*tlvs`, which loses it. False: there is none.
bool next_proxy_tlv(base::ByteSpan* tlvs, ProxyTlv* tlv);

// Writes a header of that version for TCP; 0 when `out` is too small. Addresses of two families become IPv6 (v4-mapped) ones in
// version 2, and UNKNOWN in version 1. `tlvs`: version 2, as parse_proxy_header() gives them; at most kMostTlvBytes; they may
// lie in `out` behind its first kMostProxyHeaderBytes.
size_t write_proxy_header(const ProxyHeader& header, std::span<uint8_t> out);

}  // namespace millrace::wire
