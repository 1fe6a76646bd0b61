#include "lib/base/ip_address.h"

#include <arpa/inet.h>
#include <cstdio>

namespace millrace::base {

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof buffer) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = 0;
  uint8_t raw[16];
  if (inet_pton(AF_INET, buffer, raw) == 1)
    return v4(uint32_t{raw[0]} << 24 | uint32_t{raw[1]} << 16 | uint32_t{raw[2]} << 8 | raw[3]);
  if (inet_pton(AF_INET6, buffer, raw) == 1) return v6(raw);
  return std::nullopt;
}

bool IpAddress::in_prefix(const IpAddress& network, unsigned prefix_bits) const {
  if (is_v4() != network.is_v4()) return false;
  unsigned bits = prefix_bits + (is_v4() ? 96 : 0);
  if (bits > 128) bits = 128;
  const unsigned whole = bits / 8;
  if (std::memcmp(bytes.data(), network.bytes.data(), whole) != 0) return false;
  if (bits % 8 == 0) return true;
  const uint8_t mask = static_cast<uint8_t>(0xff << (8 - bits % 8));
  return (bytes[whole] & mask) == (network.bytes[whole] & mask);
}

size_t IpAddress::format(char* out, size_t capacity) const {
  char buffer[INET6_ADDRSTRLEN];
  if (is_v4()) inet_ntop(AF_INET, bytes.data() + 12, buffer, sizeof buffer);
  else inet_ntop(AF_INET6, bytes.data(), buffer, sizeof buffer);
  const size_t n = std::strlen(buffer);
  if (n > capacity) return 0;
  std::memcpy(out, buffer, n);
  return n;
}

std::string IpAddress::to_string() const {
  char buffer[INET6_ADDRSTRLEN];
  return {buffer, format(buffer, sizeof buffer)};
}

}  // namespace millrace::base
