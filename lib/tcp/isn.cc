#include "lib/tcp/isn.h"

#include <cstring>

namespace millrace::tcp {

uint32_t IsnGenerator::isn(const FourTuple& t, TimeNs now) const {
  uint8_t bytes[36];
  std::memcpy(bytes, t.local.bytes.data(), 16);
  std::memcpy(bytes + 16, t.remote.bytes.data(), 16);
  base::store_be16(bytes + 32, t.local_port);
  base::store_be16(bytes + 34, t.remote_port);
  return static_cast<uint32_t>(now / 4'000) + static_cast<uint32_t>(base::siphash24(key_, bytes, sizeof bytes));
}

uint32_t IsnGenerator::timestamp_offset(const FourTuple& t) const {
  uint8_t bytes[32];
  std::memcpy(bytes, t.local.bytes.data(), 16);
  std::memcpy(bytes + 16, t.remote.bytes.data(), 16);
  return static_cast<uint32_t>(base::siphash24(key_, bytes, sizeof bytes) >> 32);
}

}  // namespace millrace::tcp
