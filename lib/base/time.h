// Time as every layer sees it: unsigned nanoseconds on a monotonic clock whose zero means nothing.
// Only dataplane/worker and the control threads read a clock; everything below receives `now` as an argument.
#pragma once

#include <cstdint>

namespace millrace::base {

using TimeNs = uint64_t;

inline constexpr TimeNs kNever = UINT64_MAX;  // a deadline that does not exist
inline constexpr TimeNs kMicrosecond = 1'000;
inline constexpr TimeNs kMillisecond = 1'000'000;
inline constexpr TimeNs kSecond = 1'000'000'000;

// now + delta, saturating at kNever, so that "no timeout" can be added to any time.
constexpr TimeNs time_add(TimeNs now, TimeNs delta) { return now > kNever - delta ? kNever : now + delta; }

}  // namespace millrace::base
