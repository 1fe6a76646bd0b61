// Unaligned loads and stores of network-order integers, and the span types the layers pass around.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace millrace::base {

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

template <class T>
inline T load_unaligned(const void* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

inline uint16_t load_be16(const void* p) { return __builtin_bswap16(load_unaligned<uint16_t>(p)); }
inline uint32_t load_be32(const void* p) { return __builtin_bswap32(load_unaligned<uint32_t>(p)); }
inline uint64_t load_be64(const void* p) { return __builtin_bswap64(load_unaligned<uint64_t>(p)); }
inline void store_be16(void* p, uint16_t v) {
  v = __builtin_bswap16(v);
  std::memcpy(p, &v, sizeof v);
}
inline void store_be32(void* p, uint32_t v) {
  v = __builtin_bswap32(v);
  std::memcpy(p, &v, sizeof v);
}
inline void store_be64(void* p, uint64_t v) {
  v = __builtin_bswap64(v);
  std::memcpy(p, &v, sizeof v);
}

inline std::string_view as_chars(ByteSpan s) { return {reinterpret_cast<const char*>(s.data()), s.size()}; }
inline ByteSpan as_bytes(std::string_view s) { return {reinterpret_cast<const uint8_t*>(s.data()), s.size()}; }

static_assert(std::endian::native == std::endian::little, "the shared-memory layouts assume little endian");

}  // namespace millrace::base
