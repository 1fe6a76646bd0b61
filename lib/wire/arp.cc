#include "lib/wire/arp.h"

namespace millrace::wire {

namespace {
constexpr uint16_t kHardwareEthernet = 1;
constexpr uint16_t kLengths = 6 << 8 | 4;  // bytes of a hardware and of a protocol address
}  // namespace

ParseError ArpView::parse(base::ByteSpan packet, ArpView& out) {
  if (packet.size() < kArpLength) return ParseError::kTruncated;
  const uint8_t* p = packet.data();
  if (base::load_be16(p) != kHardwareEthernet || base::load_be16(p + 2) != kEtherIpv4 || base::load_be16(p + 4) != kLengths) {
    return ParseError::kUnsupported;
  }
  const uint16_t operation = base::load_be16(p + 6);
  if (operation != 1 && operation != 2) return ParseError::kUnsupported;
  out.operation = static_cast<ArpOperation>(operation);
  std::memcpy(out.sender_mac.data(), p + 8, 6);
  out.sender_ip = base::load_be32(p + 14);
  std::memcpy(out.target_mac.data(), p + 18, 6);
  out.target_ip = base::load_be32(p + 24);
  if (is_group(out.sender_mac)) return ParseError::kBadHeader;
  return ParseError::kNone;
}

uint32_t ArpRepr::emit(uint8_t* out) const {
  base::store_be16(out, kHardwareEthernet);
  base::store_be16(out + 2, kEtherIpv4);
  base::store_be16(out + 4, kLengths);
  base::store_be16(out + 6, static_cast<uint16_t>(operation));
  std::memcpy(out + 8, sender_mac.data(), 6);
  base::store_be32(out + 14, sender_ip);
  std::memcpy(out + 18, target_mac.data(), 6);
  base::store_be32(out + 24, target_ip);
  return kArpLength;
}

}  // namespace millrace::wire
