#include "lib/stats/response_flag.h"

#include <bit>
#include <cstring>

namespace millrace::stats {

namespace {
constexpr ResponseFlagInfo kInfo[] = {
#define RESPONSE_FLAG(symbol, short_name, long_name, text) {short_name, long_name, text},
#include "lib/stats/response_flags.def"
#undef RESPONSE_FLAG
    {"-", "-", "unknown response flag"},
};
static_assert(sizeof(kInfo) / sizeof(kInfo[0]) == kResponseFlagCount + 1);
}  // namespace

const ResponseFlagInfo& info(ResponseFlag f) {
  const uint32_t i = static_cast<uint32_t>(f);
  return kInfo[i < kResponseFlagCount ? i : kResponseFlagCount];
}

std::optional<ResponseFlag> response_flag_of(std::string_view short_name) {
  for (uint32_t i = 0; i < kResponseFlagCount; ++i)
    if (short_name == kInfo[i].short_name) return static_cast<ResponseFlag>(i);
  return std::nullopt;
}

size_t ResponseFlags::format(char* out, size_t capacity, bool of_request) const {
  size_t n = 0;
  constexpr uint32_t kFirst = static_cast<uint32_t>(ResponseFlag::kUpstreamRetryLimitExceeded);
  constexpr uint64_t kFirstBit = uint64_t{1} << kFirst;
  for (uint64_t left = bits; left != 0;) {
    const bool first = of_request && (left & kFirstBit) != 0;
    const uint32_t i = first ? kFirst : static_cast<uint32_t>(std::countr_zero(left));
    left &= first ? ~kFirstBit : left - 1;
    if (i >= kResponseFlagCount) break;
    const size_t length = std::strlen(kInfo[i].short_name);
    const size_t comma = n == 0 ? 0 : 1;
    if (n + comma + length > capacity) return n;
    if (comma != 0) out[n++] = ',';
    std::memcpy(out + n, kInfo[i].short_name, length);
    n += length;
  }
  if (n == 0 && capacity > 0) out[n++] = '-';
  return n;
}

}  // namespace millrace::stats
