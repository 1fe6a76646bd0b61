// Serial arithmetic on 32-bit sequence numbers and timestamps (RFC 9293 3.4, RFC 7323 5.2). Two numbers compare rightly while
// they are less than 2^31 apart, which windows of at most 2^30 guarantee.
#pragma once

#include <cstdint>

namespace millrace::tcp {

constexpr bool seq_lt(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
constexpr bool seq_le(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) <= 0; }
constexpr bool seq_gt(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) > 0; }
constexpr bool seq_ge(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) >= 0; }
constexpr uint32_t seq_max(uint32_t a, uint32_t b) { return seq_lt(a, b) ? b : a; }
constexpr uint32_t seq_min(uint32_t a, uint32_t b) { return seq_lt(a, b) ? a : b; }
// left <= x < right, going round.
constexpr bool seq_in(uint32_t x, uint32_t left, uint32_t right) { return x - left < right - left; }

}  // namespace millrace::tcp
