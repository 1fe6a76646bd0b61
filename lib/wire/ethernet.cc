#include "lib/wire/ethernet.h"

namespace millrace::wire {

namespace {
constexpr uint16_t kSmallestType = 0x0600;  // below: an 802.3 length field
constexpr uint16_t kReservedVlan = 4095;
}  // namespace

ParseError EthernetView::parse(base::ByteSpan frame, EthernetView& out) {
  if (frame.size() < kEthernetHeader) return ParseError::kTruncated;
  const uint8_t* p = frame.data();
  std::memcpy(out.dst.data(), p, 6);
  std::memcpy(out.src.data(), p + 6, 6);
  out.ether_type = base::load_be16(p + 12);
  out.vlan_id = 0;
  out.priority = 0;
  out.payload_offset = kEthernetHeader;
  if (is_group(out.src)) return ParseError::kBadHeader;
  if (__builtin_expect(out.ether_type == kEtherVlan, 0)) {
    if (frame.size() < kEthernetHeader + kVlanTag) return ParseError::kTruncated;
    const uint16_t tag = base::load_be16(p + 14);
    out.vlan_id = tag & 0x0fff;
    out.priority = static_cast<uint8_t>(tag >> 13);
    out.ether_type = base::load_be16(p + 16);
    out.payload_offset = kEthernetHeader + kVlanTag;
    if (out.vlan_id == kReservedVlan) return ParseError::kBadHeader;
    if (out.ether_type == kEtherVlan) return ParseError::kUnsupported;
  }
  if (out.ether_type < kSmallestType || out.ether_type == kEtherSvlan) return ParseError::kUnsupported;
  return ParseError::kNone;
}

uint32_t EthernetRepr::emit(uint8_t* out) const {
  std::memcpy(out, dst.data(), 6);
  std::memcpy(out + 6, src.data(), 6);
  if (vlan_id == 0) {
    base::store_be16(out + 12, ether_type);
    return kEthernetHeader;
  }
  base::store_be16(out + 12, kEtherVlan);
  base::store_be16(out + 14, vlan_id & 0x0fff);
  base::store_be16(out + 16, ether_type);
  return kEthernetHeader + kVlanTag;
}

}  // namespace millrace::wire
