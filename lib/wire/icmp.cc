#include "lib/wire/icmp.h"

#include <algorithm>

#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"

namespace millrace::wire {

namespace {

constexpr uint8_t kV4EchoReply = 0, kV4Unreachable = 3, kV4Echo = 8, kV4TimeExceeded = 11, kV4ParameterProblem = 12;
constexpr uint8_t kV4FragmentationNeeded = 4;  // code of kV4Unreachable
constexpr uint8_t kV6Unreachable = 1, kV6PacketTooBig = 2, kV6TimeExceeded = 3, kV6ParameterProblem = 4, kV6Echo = 128,
                  kV6EchoReply = 129;
constexpr uint8_t kV6FirstNeighbor = 133, kV6LastNeighbor = 137;
constexpr uint32_t kChecksumOffset = 2;

void read_ports(base::ByteSpan l4, QuotedPacket& q) {
  if ((q.protocol != kIpTcp && q.protocol != kIpUdp) || l4.size() < 4) return;
  q.has_ports = true;
  q.src_port = base::load_be16(l4.data());
  q.dst_port = base::load_be16(l4.data() + 2);
  if (q.protocol != kIpTcp || l4.size() < 8) return;
  q.has_seq = true;
  q.seq = base::load_be32(l4.data() + 4);
}

// The quote is a packet cut short, so the length fields of its header say more than there is; its checksum may have changed
// underway.
bool read_quote_v4(base::ByteSpan bytes, QuotedPacket& q) {
  if (bytes.size() < kIpv4Header) return false;
  const uint8_t* p = bytes.data();
  const uint32_t header = (p[0] & 0x0f) * 4u;
  if (p[0] >> 4 != 4 || header < kIpv4Header || header > bytes.size()) return false;
  if ((base::load_be16(p + 6) & 0x1fff) != 0) return false;  // not the first fragment: no L4 header in it
  q.src = base::IpAddress::v4(base::load_be32(p + 12));
  q.dst = base::IpAddress::v4(base::load_be32(p + 16));
  q.protocol = p[9];
  read_ports(bytes.subspan(header), q);
  return true;
}

// We send no extension headers, so a quote that has one is not of a packet of ours.
bool read_quote_v6(base::ByteSpan bytes, QuotedPacket& q) {
  if (bytes.size() < kIpv6Header) return false;
  const uint8_t* p = bytes.data();
  if (p[0] >> 4 != 6) return false;
  q.src = base::IpAddress::v6(p + 8);
  q.dst = base::IpAddress::v6(p + 24);
  if (q.src.is_v4() || q.dst.is_v4()) return false;
  q.protocol = p[6];
  read_ports(bytes.subspan(kIpv6Header), q);
  return true;
}

void begin(base::ByteSpan message, IcmpView& out) {
  out = IcmpView{};
  out.type = message[0];
  out.code = message[1];
}

void change_type(base::MutableByteSpan message, uint8_t type) {
  const uint16_t before = base::load_unaligned<uint16_t>(message.data());
  message[0] = type;
  const uint16_t after = base::load_unaligned<uint16_t>(message.data());
  uint8_t* at = message.data() + kChecksumOffset;
  store_checksum(at, checksum_update16(base::load_unaligned<uint16_t>(at), before, after));
}

uint32_t emit(uint8_t* out, uint8_t type, uint8_t code, uint32_t word, base::ByteSpan data, ChecksumSum pseudo) {
  out[0] = type;
  out[1] = code;
  base::store_be16(out + kChecksumOffset, 0);
  base::store_be32(out + 4, word);
  if (!data.empty()) std::memcpy(out + kIcmpHeader, data.data(), data.size());
  const uint32_t length = kIcmpHeader + static_cast<uint32_t>(data.size());
  store_checksum(out + kChecksumOffset, checksum_finish(pseudo + checksum_sum({out, length})));
  return length;
}

base::ByteSpan cut(base::ByteSpan packet, uint32_t most) { return packet.first(std::min<size_t>(packet.size(), most)); }
constexpr uint32_t kQuoteV4 = kIcmpMaxErrorV4 - kIpv4Header - kIcmpHeader;
constexpr uint32_t kQuoteV6 = kIcmpMaxErrorV6 - kIpv6Header - kIcmpHeader;

}  // namespace

ParseError IcmpView::parse_v4(base::ByteSpan message, bool verify_checksum, IcmpView& out) {
  if (message.size() < kIcmpHeader) return ParseError::kTruncated;
  if (verify_checksum && !checksum_ok(checksum_sum(message))) return ParseError::kBadChecksum;
  begin(message, out);
  const uint8_t* p = message.data();
  switch (out.type) {
    case kV4Echo:
    case kV4EchoReply:
      if (out.code != 0) return ParseError::kNone;
      out.kind = out.type == kV4Echo ? IcmpKind::kEchoRequest : IcmpKind::kEchoReply;
      out.identifier = base::load_be16(p + 4);
      out.sequence = base::load_be16(p + 6);
      return ParseError::kNone;
    case kV4Unreachable:
      out.kind = IcmpKind::kUnreachable;
      if (out.code == kV4FragmentationNeeded) {
        out.kind = IcmpKind::kPacketTooBig;
        out.mtu = base::load_be16(p + 6);
      }
      break;
    case kV4TimeExceeded:
      out.kind = IcmpKind::kTimeExceeded;
      break;
    case kV4ParameterProblem:
      out.kind = IcmpKind::kParameterProblem;
      break;
    default:
      return ParseError::kNone;
  }
  out.has_quote = read_quote_v4(message.subspan(kIcmpHeader), out.quote);
  return ParseError::kNone;
}

ParseError IcmpView::parse_v6(base::ByteSpan message, const base::IpAddress& src, const base::IpAddress& dst,
                              bool verify_checksum, IcmpView& out) {
  if (message.size() < kIcmpHeader) return ParseError::kTruncated;
  if (verify_checksum) {
    const ChecksumSum pseudo =
        pseudo_header_v6(src.bytes.data(), dst.bytes.data(), kIpIcmpv6, static_cast<uint32_t>(message.size()));
    if (!checksum_ok(pseudo + checksum_sum(message))) return ParseError::kBadChecksum;
  }
  begin(message, out);
  const uint8_t* p = message.data();
  switch (out.type) {
    case kV6Echo:
    case kV6EchoReply:
      if (out.code != 0) return ParseError::kNone;
      out.kind = out.type == kV6Echo ? IcmpKind::kEchoRequest : IcmpKind::kEchoReply;
      out.identifier = base::load_be16(p + 4);
      out.sequence = base::load_be16(p + 6);
      return ParseError::kNone;
    case kV6Unreachable:
      out.kind = IcmpKind::kUnreachable;
      break;
    case kV6PacketTooBig:
      out.kind = IcmpKind::kPacketTooBig;
      out.mtu = base::load_be32(p + 4);
      break;
    case kV6TimeExceeded:
      out.kind = IcmpKind::kTimeExceeded;
      break;
    case kV6ParameterProblem:
      out.kind = IcmpKind::kParameterProblem;
      break;
    default:
      if (out.type >= kV6FirstNeighbor && out.type <= kV6LastNeighbor) out.kind = IcmpKind::kNeighbor;
      return ParseError::kNone;
  }
  out.has_quote = read_quote_v6(message.subspan(kIcmpHeader), out.quote);
  return ParseError::kNone;
}

void make_echo_reply_v4(base::MutableByteSpan message) { change_type(message, kV4EchoReply); }
void make_echo_reply_v6(base::MutableByteSpan message) { change_type(message, kV6EchoReply); }

uint32_t IcmpEchoRepr::emit_v4(uint8_t* out) const {
  return emit(out, reply ? kV4EchoReply : kV4Echo, 0, uint32_t{identifier} << 16 | sequence, data, 0);
}
uint32_t IcmpEchoRepr::emit_v6(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const {
  return emit(out, reply ? kV6EchoReply : kV6Echo, 0, uint32_t{identifier} << 16 | sequence, data,
              pseudo_header_v6(src.bytes.data(), dst.bytes.data(), kIpIcmpv6, length()));
}

uint32_t IcmpErrorRepr::length_v4() const { return kIcmpHeader + static_cast<uint32_t>(cut(packet, kQuoteV4).size()); }
uint32_t IcmpErrorRepr::length_v6() const { return kIcmpHeader + static_cast<uint32_t>(cut(packet, kQuoteV6).size()); }
uint32_t IcmpErrorRepr::emit_v4(uint8_t* out) const { return emit(out, type, code, parameter, cut(packet, kQuoteV4), 0); }
uint32_t IcmpErrorRepr::emit_v6(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const {
  return emit(out, type, code, parameter, cut(packet, kQuoteV6),
              pseudo_header_v6(src.bytes.data(), dst.bytes.data(), kIpIcmpv6, length_v6()));
}

}  // namespace millrace::wire
