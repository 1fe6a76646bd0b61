#include "lib/wire/nd.h"

#include "lib/wire/checksum.h"
#include "lib/wire/ipv6.h"

namespace millrace::wire {

namespace {

constexpr uint8_t kOptSourceMac = 1, kOptTargetMac = 2, kOptPrefix = 3, kOptMtu = 5;
constexpr uint32_t kNeighborLength = 24, kRouterSolicitationLength = 8, kRouterAdvertisementLength = 16;
constexpr uint8_t kFlagRouter = 0x80, kFlagSolicited = 0x40, kFlagOverride = 0x20;

MacAddress mac_at(const uint8_t* p) {
  MacAddress m;
  std::memcpy(m.data(), p, 6);
  return m;
}

// RFC 4861 4.6: options of 8-byte units; a length of zero discards the message, an unknown option is skipped.
ParseError read_options(base::ByteSpan options, NdView& out) {
  const uint8_t* p = options.data();
  size_t left = options.size();
  for (uint32_t count = 0; left > 0; ++count) {
    if (count == kNdMaxOptions) return ParseError::kBadHeader;
    if (left < 8) return ParseError::kTruncated;
    const uint32_t length = p[1] * 8u;
    if (length == 0) return ParseError::kBadHeader;
    if (length > left) return ParseError::kTruncated;
    switch (p[0]) {
      case kOptSourceMac:
      case kOptTargetMac: {
        if (length != 8) return ParseError::kBadHeader;  // another kind of link layer
        const MacAddress mac = mac_at(p + 2);
        if (is_group(mac)) return ParseError::kBadHeader;
        (p[0] == kOptSourceMac ? out.source_mac : out.target_mac) = mac;
        break;
      }
      case kOptPrefix: {
        if (length != 32 || p[2] > 128) return ParseError::kBadHeader;
        if (out.type != NdType::kRouterAdvertisement || out.prefix_count == kNdMaxPrefixes) break;
        out.prefixes[out.prefix_count++] = {base::IpAddress::v6(p + 16), p[2],
                                            (p[3] & 0x80) != 0,          (p[3] & 0x40) != 0,
                                            base::load_be32(p + 4),      base::load_be32(p + 8)};
        break;
      }
      case kOptMtu:
        if (length != 8) return ParseError::kBadHeader;
        if (out.type == NdType::kRouterAdvertisement) out.mtu = base::load_be32(p + 4);
        break;
      default:
        break;
    }
    p += length;
    left -= length;
  }
  return ParseError::kNone;
}

}  // namespace

ParseError NdView::parse(base::ByteSpan message, const base::IpAddress& src, const base::IpAddress& dst, uint8_t hop_limit,
                         bool verify_checksum, NdView& out) {
  if (message.size() < kRouterSolicitationLength) return ParseError::kTruncated;
  if (hop_limit != kNdHopLimit) return ParseError::kBadHeader;
  const uint8_t* p = message.data();
  if (p[0] < 133 || p[0] > 136) return ParseError::kUnsupported;
  if (verify_checksum) {
    const ChecksumSum pseudo =
        pseudo_header_v6(src.bytes.data(), dst.bytes.data(), kIpIcmpv6, static_cast<uint32_t>(message.size()));
    if (!checksum_ok(pseudo + checksum_sum(message))) return ParseError::kBadChecksum;
  }
  if (p[1] != 0) return ParseError::kBadHeader;  // code
  out = NdView{};
  out.type = static_cast<NdType>(p[0]);

  uint32_t fixed = kRouterSolicitationLength;
  switch (out.type) {
    case NdType::kRouterSolicitation:
      break;
    case NdType::kRouterAdvertisement:
      fixed = kRouterAdvertisementLength;
      if (message.size() < fixed) return ParseError::kTruncated;
      if (!is_link_local_v6(src)) return ParseError::kBadHeader;
      out.hop_limit = p[4];
      out.router_lifetime_s = base::load_be16(p + 6);
      out.reachable_time_ms = base::load_be32(p + 8);
      out.retrans_timer_ms = base::load_be32(p + 12);
      break;
    case NdType::kNeighborSolicitation:
    case NdType::kNeighborAdvertisement:
      fixed = kNeighborLength;
      if (message.size() < fixed) return ParseError::kTruncated;
      out.target = base::IpAddress::v6(p + 8);
      if (is_multicast_v6(out.target) || out.target.is_v4()) return ParseError::kBadHeader;
      break;
  }
  if (const ParseError e = read_options(message.subspan(fixed), out); e != ParseError::kNone) return e;

  switch (out.type) {
    case NdType::kRouterSolicitation:
      if (src.is_unspecified() && out.source_mac) return ParseError::kBadHeader;
      break;
    case NdType::kNeighborSolicitation:
      // Duplicate address detection: from ::, to the solicited-node group, without a link-layer address.
      if (src.is_unspecified() && (out.source_mac || dst != solicited_node_group(out.target))) return ParseError::kBadHeader;
      break;
    case NdType::kNeighborAdvertisement:
      out.router = (p[4] & kFlagRouter) != 0;
      out.solicited = (p[4] & kFlagSolicited) != 0;
      out.override_flag = (p[4] & kFlagOverride) != 0;
      if (is_multicast_v6(dst) && out.solicited) return ParseError::kBadHeader;
      break;
    case NdType::kRouterAdvertisement:
      break;
  }
  return ParseError::kNone;
}

uint32_t NdRepr::emit(uint8_t* out, const base::IpAddress& src, const base::IpAddress& dst) const {
  const bool advertisement = type == NdType::kNeighborAdvertisement;
  out[0] = static_cast<uint8_t>(type);
  out[1] = 0;
  base::store_be16(out + 2, 0);
  base::store_be32(out + 4, 0);
  if (advertisement) {
    out[4] =
        static_cast<uint8_t>((router ? kFlagRouter : 0) | (solicited ? kFlagSolicited : 0) | (override_flag ? kFlagOverride : 0));
  }
  std::memcpy(out + 8, target.bytes.data(), 16);
  if (mac) {
    out[24] = advertisement ? kOptTargetMac : kOptSourceMac;
    out[25] = 1;
    std::memcpy(out + 26, mac->data(), 6);
  }
  const ChecksumSum pseudo = pseudo_header_v6(src.bytes.data(), dst.bytes.data(), kIpIcmpv6, length());
  store_checksum(out + 2, checksum_finish(pseudo + checksum_sum({out, length()})));
  return length();
}

}  // namespace millrace::wire
