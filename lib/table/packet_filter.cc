#include "lib/table/packet_filter.h"

#include "lib/base/bytes.h"

namespace millrace::table {
namespace {

using base::load_be16;

constexpr uint16_t kTypeIp4 = 0x0800, kTypeArp = 0x0806, kTypeVlan = 0x8100, kTypeIp6 = 0x86dd;
constexpr uint8_t kProtocolIcmp = 1, kProtocolTcp = 6, kProtocolUdp = 17, kProtocolIcmp6 = 58;
constexpr uint32_t kMaxExtensionHeaders = 8;

base::IpAddress v4_at(const uint8_t* p) {
  return base::IpAddress::v4(uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3]);
}

void read_transport(std::span<const uint8_t> at, PacketFields& f) {
  if ((f.protocol != kProtocolTcp && f.protocol != kProtocolUdp) || at.size() < 4) return;
  f.source_port = load_be16(at.data());
  f.destination_port = load_be16(at.data() + 2);
  f.has_ports = true;
  if (f.protocol == kProtocolTcp && at.size() >= 14) f.tcp_flags = at[13];
}

void read_ip4(std::span<const uint8_t> at, PacketFields& f) {
  if (at.size() < 20 || at[0] >> 4 != 4) return;
  f.protocol = at[9];
  f.source = v4_at(&at[12]);
  f.destination = v4_at(&at[16]);
  f.has_addresses = true;
  const size_t header = size_t{at[0] & 15u} * 4;
  const bool first_fragment = (load_be16(&at[6]) & 0x1fff) == 0;
  if (header >= 20 && header <= at.size() && first_fragment) read_transport(at.subspan(header), f);
}

void read_ip6(std::span<const uint8_t> at, PacketFields& f) {
  if (at.size() < 40 || at[0] >> 4 != 6) return;
  f.source = base::IpAddress::v6(&at[8]);
  f.destination = base::IpAddress::v6(&at[24]);
  f.has_addresses = true;
  uint8_t next = at[6];
  size_t offset = 40;
  for (uint32_t i = 0; i < kMaxExtensionHeaders; ++i) {
    const bool options = next == 0 || next == 43 || next == 60, fragment = next == 44;
    if (!options && !fragment) break;
    if (at.size() < offset + 8) return;
    if (fragment && (load_be16(&at[offset + 2]) & 0xfff8) != 0) {
      f.protocol = at[offset];
      return;
    }
    next = at[offset];
    offset += fragment ? 8 : 8 + size_t{at[offset + 1]} * 8;
  }
  f.protocol = next;
  if (offset <= at.size()) read_transport(at.subspan(offset), f);
}

bool in_range(uint16_t v, const FilterOp& op) { return v >= op.lo && v <= op.hi; }

bool term(const FilterOp& op, const PacketFields& f) {
  const bool source = op.side != FilterSide::kDestination, destination = op.side != FilterSide::kSource;
  switch (op.term) {
    case FilterTerm::kIp4:
      return f.ether_type == kTypeIp4;
    case FilterTerm::kIp6:
      return f.ether_type == kTypeIp6;
    case FilterTerm::kArp:
      return f.ether_type == kTypeArp;
    case FilterTerm::kTcp:
      return f.protocol == kProtocolTcp;
    case FilterTerm::kUdp:
      return f.protocol == kProtocolUdp;
    case FilterTerm::kIcmp:
      return f.protocol == kProtocolIcmp && f.ether_type == kTypeIp4;
    case FilterTerm::kIcmp6:
      return f.protocol == kProtocolIcmp6 && f.ether_type == kTypeIp6;
    case FilterTerm::kVlan:
      return f.has_vlan && (op.lo == 0 || f.vlan == op.lo);
    case FilterTerm::kInbound:
      return !f.outbound;
    case FilterTerm::kOutbound:
      return f.outbound;
    case FilterTerm::kNet:
      return f.has_addresses && ((source && f.source.in_prefix(op.address, op.bits)) ||
                                 (destination && f.destination.in_prefix(op.address, op.bits)));
    case FilterTerm::kPort:
      return f.has_ports && ((source && in_range(f.source_port, op)) || (destination && in_range(f.destination_port, op)));
    case FilterTerm::kFlags:
      return f.protocol == kProtocolTcp && (f.tcp_flags & op.lo) != 0;
    case FilterTerm::kLess:
      return f.length <= op.lo;
    case FilterTerm::kGreater:
      return f.length >= op.lo;
    case FilterTerm::kNot:
    case FilterTerm::kAnd:
    case FilterTerm::kOr:
    case FilterTerm::kCount:
      break;
  }
  return false;
}

}  // namespace

void read_fields(std::span<const uint8_t> front, PacketFields& f) {
  if (front.size() < 14) return;
  size_t offset = 12;
  f.ether_type = load_be16(&front[offset]);
  if (f.ether_type == kTypeVlan && front.size() >= 18) {
    f.vlan = load_be16(&front[14]) & 0xfff;
    f.has_vlan = true;
    offset = 16;
    f.ether_type = load_be16(&front[offset]);
  }
  const std::span<const uint8_t> l3 = front.subspan(offset + 2);
  if (f.ether_type == kTypeIp4) return read_ip4(l3, f);
  if (f.ether_type == kTypeIp6) return read_ip6(l3, f);
  // ARP of IPv4 over Ethernet: sender and target, as pcap has them.
  if (f.ether_type == kTypeArp && l3.size() >= 28 && load_be16(&l3[2]) == kTypeIp4 && l3[4] == 6 && l3[5] == 4) {
    f.source = v4_at(&l3[14]);
    f.destination = v4_at(&l3[24]);
    f.has_addresses = true;
  }
}

bool is_valid(const PacketFilter& filter) {
  if (filter.count > kMaxFilterOps) return false;
  uint32_t depth = 0;
  for (uint32_t i = 0; i < filter.count; ++i) {
    const FilterOp& op = filter.ops[i];
    if (op.term < FilterTerm::kIp4 || op.term >= FilterTerm::kCount || op.side > FilterSide::kDestination) return false;
    if (op.term == FilterTerm::kNet && op.bits > (op.address.is_v4() ? 32 : 128)) return false;
    if (op.term == FilterTerm::kNot) {
      if (depth < 1) return false;
    } else if (op.term == FilterTerm::kAnd || op.term == FilterTerm::kOr) {
      if (depth < 2) return false;
      --depth;
    } else {
      ++depth;  // at most kMaxFilterOps, below the 64 bits of the stack
    }
  }
  return depth == (filter.count == 0 ? 0 : 1);
}

bool matches(const PacketFilter& filter, const PacketFields& fields) {
  if (filter.count == 0) return true;
  uint64_t stack = 0;  // bit 0: the top
  static_assert(kMaxFilterOps <= 64);
  for (uint32_t i = 0; i < filter.count; ++i) {
    const FilterOp& op = filter.ops[i];
    switch (op.term) {
      case FilterTerm::kNot:
        stack ^= 1;
        break;
      case FilterTerm::kAnd:
        stack = stack >> 1 & (~uint64_t{1} | stack);
        break;
      case FilterTerm::kOr:
        stack = stack >> 1 | (stack & 1);
        break;
      default:
        stack = stack << 1 | (term(op, fields) ? 1 : 0);
        break;
    }
  }
  return (stack & 1) != 0;
}

}  // namespace millrace::table
