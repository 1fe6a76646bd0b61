// An IPv4 or IPv6 address as 16 bytes; IPv4 is kept v4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so that tuples of both
// families hash and compare alike. Lives in base because tables, wire formats and TCP all name addresses.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

namespace millrace::base {

struct IpAddress {
  std::array<uint8_t, 16> bytes{};  // network order

  // `host_order`: 10.1.2.3 is 0x0a010203.
  static constexpr IpAddress v4(uint32_t host_order) {
    IpAddress a;
    a.bytes[10] = a.bytes[11] = 0xff;
    a.bytes[12] = static_cast<uint8_t>(host_order >> 24);
    a.bytes[13] = static_cast<uint8_t>(host_order >> 16);
    a.bytes[14] = static_cast<uint8_t>(host_order >> 8);
    a.bytes[15] = static_cast<uint8_t>(host_order);
    return a;
  }
  // The same from the four bytes as they lie in a packet.
  static constexpr IpAddress v4_memory_order(uint32_t loaded) {
    struct Words {
      uint64_t w[2];
    };
    return {std::bit_cast<std::array<uint8_t, 16>>(Words{{0, 0xffff'0000 | uint64_t{loaded} << 32}})};
  }
  static IpAddress v6(const uint8_t* network_order_16) {
    IpAddress a;
    std::memcpy(a.bytes.data(), network_order_16, 16);
    return a;
  }
  // Dotted quad or RFC 4291 text, without port, brackets, zone or prefix length. nullopt when it is neither.
  static std::optional<IpAddress> parse(std::string_view text);

  constexpr bool is_v4() const { return word(0) == 0 && static_cast<uint32_t>(word(1)) == 0xffff0000; }
  // The first or second eight bytes as they lie in memory: for comparing and hashing.
  constexpr uint64_t word(unsigned half) const {
    struct Words {
      uint64_t w[2];
    };
    return std::bit_cast<Words>(bytes).w[half];
  }
  constexpr uint32_t v4_host_order() const {
    return uint32_t{bytes[12]} << 24 | uint32_t{bytes[13]} << 16 | uint32_t{bytes[14]} << 8 | bytes[15];
  }
  // 0.0.0.0 or ::
  constexpr bool is_unspecified() const {
    for (int i = is_v4() ? 12 : 0; i < 16; ++i)
      if (bytes[i] != 0) return false;
    return true;
  }
  // True when the first `prefix_bits` bits of the family's own form agree (0..32 for v4, 0..128 for v6) and so does the family.
  bool in_prefix(const IpAddress& network, unsigned prefix_bits) const;
  // Canonical text (RFC 5952 for v6).
  std::string to_string() const;
  // Writes the same text without allocation (for records); returns the length, at most 46.
  size_t format(char* out, size_t capacity) const;

  friend constexpr bool operator==(const IpAddress& a, const IpAddress& b) {
    return ((a.word(0) ^ b.word(0)) | (a.word(1) ^ b.word(1))) == 0;
  }
  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

}  // namespace millrace::base
