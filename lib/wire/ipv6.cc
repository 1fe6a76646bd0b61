#include "lib/wire/ipv6.h"

namespace millrace::wire {

namespace {

constexpr uint8_t kHopByHop = 0, kRouting = 43, kFragmentHeader = 44, kDestinationOptions = 60;
constexpr uint8_t kOptPad1 = 0, kOptPadN = 1;

bool is_extension(uint8_t next_header) {
  return next_header == kHopByHop || next_header == kRouting || next_header == kFragmentHeader ||
         next_header == kDestinationOptions;
}

// The options of a hop-by-hop or destination options header (RFC 8200 4.2). We know only padding; an unknown option may be
// skipped when its two highest bits are zero, otherwise the packet is to be discarded.
bool options_ok(const uint8_t* packet, const uint8_t* p, const uint8_t* end, Ipv6View& out) {
  uint32_t options = 0;
  while (p < end) {
    if (*p == kOptPad1) {
      ++p;
      continue;
    }
    if (end - p < 2 || p[1] > end - p - 2) return false;
    if (*p != kOptPadN && (*p & 0xc0) != 0) {
      if ((*p & 0x80) != 0) {
        out.problem_at = static_cast<uint16_t>(p - packet);
        out.problem_code = 2;
        out.problem_to_group = (*p & 0x40) == 0;
      }
      return false;
    }
    if (*p != kOptPadN && ++options > kIpv6MaxOptions) return false;
    p += 2 + p[1];
  }
  return true;
}

// Walks from out.payload_offset to the upper layer.
ParseError skip_extensions(const uint8_t* packet, uint32_t end, Ipv6View& out) {
  uint32_t at = kIpv6Header;
  for (uint32_t count = 0; is_extension(out.next_header); ++count) {
    if (count == kIpv6MaxExtensions) return ParseError::kBadHeader;
    if (out.next_header == kHopByHop && count != 0) {  // RFC 8200 4.1: only directly behind the IPv6 header
      out.problem_at = out.next_header_at;
      out.problem_code = 1;
      return ParseError::kBadHeader;
    }
    if (end - at < 8) return ParseError::kTruncated;
    const uint8_t* p = packet + at;
    const uint32_t length = out.next_header == kFragmentHeader ? 8 : (p[1] + 1u) * 8;
    if (length > end - at) return ParseError::kTruncated;
    if (at + length - kIpv6Header > kIpv6MaxExtensionBytes) return ParseError::kBadHeader;
    switch (out.next_header) {
      case kFragmentHeader:
        if ((base::load_be16(p + 2) & 0xfff9) != 0) {  // offset or M
          out.fragment_at = static_cast<uint16_t>(at);
          return ParseError::kFragment;
        }
        break;
      case kRouting:
        if (p[3] != 0) {  // RFC 8200 4.4: an unknown routing type with segments left
          out.problem_at = static_cast<uint16_t>(at + 2);
          return ParseError::kBadHeader;
        }
        break;
      default:
        if (!options_ok(packet, p + 2, p + length, out)) return ParseError::kBadHeader;
    }
    out.next_header = p[0];
    out.next_header_at = static_cast<uint16_t>(at);
    at += length;
  }
  out.payload_offset = static_cast<uint16_t>(at);
  out.payload_length = static_cast<uint16_t>(end - at);
  return ParseError::kNone;
}

}  // namespace

ParseError Ipv6View::parse(base::ByteSpan packet, Ipv6View& out) {
  if (packet.size() < kIpv6Header) return ParseError::kTruncated;
  const uint8_t* p = packet.data();
  const uint32_t first = base::load_be32(p);
  if (first >> 28 != 6) return ParseError::kBadHeader;
  const uint32_t payload = base::load_be16(p + 4);
  if (kIpv6Header + payload > packet.size()) return ParseError::kTruncated;
  out.traffic_class = static_cast<uint8_t>(first >> 20);
  out.flow_label = first & 0xfffff;
  out.next_header = p[6];
  out.hop_limit = p[7];
  out.src = base::IpAddress::v6(p + 8);
  out.dst = base::IpAddress::v6(p + 24);
  out.payload_offset = kIpv6Header;
  out.payload_length = static_cast<uint16_t>(payload);
  out.next_header_at = 6;
  out.problem_at = 0;
  out.problem_code = 0;
  out.problem_to_group = true;
  // A v4-mapped address on the wire would be taken for an IPv4 peer from here on (RFC 4942 2.2).
  if (is_multicast_v6(out.src) || out.src.is_v4() || out.dst.is_v4()) return ParseError::kBadHeader;
  if (__builtin_expect(!is_extension(out.next_header), 1)) return ParseError::kNone;
  return skip_extensions(p, kIpv6Header + payload, out);
}

uint32_t Ipv6Repr::emit(uint8_t* out) const {
  base::store_be32(out, 6u << 28 | uint32_t{traffic_class} << 20 | (flow_label & 0xfffff));
  base::store_be16(out + 4, payload_length);
  out[6] = next_header;
  out[7] = hop_limit;
  std::memcpy(out + 8, src.bytes.data(), 16);
  std::memcpy(out + 24, dst.bytes.data(), 16);
  return kIpv6Header;
}

base::IpAddress link_local_from_mac(const uint8_t* mac6) {
  base::IpAddress a;
  a.bytes = {0xfe,    0x80,    0,    0,    0,       0,       0,      0, static_cast<uint8_t>(mac6[0] ^ 2),
             mac6[1], mac6[2], 0xff, 0xfe, mac6[3], mac6[4], mac6[5]};
  return a;
}

base::IpAddress solicited_node_group(const base::IpAddress& a) {
  base::IpAddress g;
  g.bytes = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a.bytes[13], a.bytes[14], a.bytes[15]};
  return g;
}

base::IpAddress all_nodes_group() {
  base::IpAddress g;
  g.bytes = {0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return g;
}

base::IpAddress all_routers_group() {
  base::IpAddress g = all_nodes_group();
  g.bytes[15] = 2;
  return g;
}

}  // namespace millrace::wire
