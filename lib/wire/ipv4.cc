#include "lib/wire/ipv4.h"

#include "lib/wire/checksum.h"

namespace millrace::wire {

namespace {

constexpr uint16_t kDontFragment = 0x4000, kMoreFragments = 0x2000, kOffsetMask = 0x1fff;
constexpr uint8_t kOptEnd = 0, kOptNop = 1, kOptLooseSourceRoute = 131, kOptStrictSourceRoute = 137;

bool options_ok(const uint8_t* p, const uint8_t* end) {
  while (p < end) {
    if (*p == kOptEnd) return true;
    if (*p == kOptNop) {
      ++p;
      continue;
    }
    if (*p == kOptLooseSourceRoute || *p == kOptStrictSourceRoute) return false;
    if (end - p < 2 || p[1] < 2 || p[1] > end - p) return false;
    p += p[1];
  }
  return true;
}

}  // namespace

ParseError Ipv4View::parse(base::ByteSpan packet, bool verify_checksum, Ipv4View& out) {
  if (packet.size() < kIpv4Header) return ParseError::kTruncated;
  const uint8_t* p = packet.data();
  const uint32_t header = (p[0] & 0x0f) * 4u;
  const uint32_t total = base::load_be16(p + 2);
  if (p[0] >> 4 != 4 || header < kIpv4Header || total < header) return ParseError::kBadHeader;
  if (total > packet.size()) return ParseError::kTruncated;
  if (verify_checksum && !checksum_ok(checksum_sum({p, header}))) return ParseError::kBadChecksum;
  out.src = base::load_be32(p + 12);
  out.dst = base::load_be32(p + 16);
  out.protocol = p[9];
  out.ttl = p[8];
  out.tos = p[1];
  out.identification = base::load_be16(p + 4);
  const uint16_t fragment = base::load_be16(p + 6);
  out.dont_fragment = (fragment & kDontFragment) != 0;
  out.payload_offset = static_cast<uint16_t>(header);
  out.payload_length = static_cast<uint16_t>(total - header);
  if (__builtin_expect(header != kIpv4Header, 0) && !options_ok(p + kIpv4Header, p + header)) return ParseError::kBadHeader;
  if ((fragment & (kMoreFragments | kOffsetMask)) != 0) return ParseError::kFragment;
  return ParseError::kNone;
}

uint32_t Ipv4Repr::emit(uint8_t* out, bool with_checksum) const {
  out[0] = 0x45;
  out[1] = tos;
  base::store_be16(out + 2, static_cast<uint16_t>(kIpv4Header + payload_length));
  base::store_be16(out + 4, identification);
  base::store_be16(out + 6, dont_fragment ? kDontFragment : 0);
  out[8] = ttl;
  out[9] = protocol;
  base::store_be16(out + kIpv4ChecksumOffset, 0);
  base::store_be32(out + 12, src);
  base::store_be32(out + 16, dst);
  if (with_checksum) store_checksum(out + kIpv4ChecksumOffset, checksum_finish(checksum_sum({out, kIpv4Header})));
  return kIpv4Header;
}

}  // namespace millrace::wire
