// Moments as text, in the conversions of strftime and Envoy's additions, without locale, heap or system call: the same code
// writes a header on a poll core and a line of an access log.
//
// Understood: a A b h B c C d D e F H I j k l m M n p r R S t T u w x X y Y z Z s %; f and 1f..9f (so many digits of the second's
// fraction), E1S..E9S and E*S (seconds with fraction), E1f..E9f, E*f, E4Y, Ez and E*z (+hh:mm, +hh:mm:ss), ET (the letter T).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace millrace::base {

inline constexpr std::string_view kDefaultTimeFormat = "%Y-%m-%dT%H:%M:%E3SZ";  // Envoy's for START_TIME

struct TimeZone {
  int32_t offset_s = 0;  // east of UTC
  std::string_view name = "UTC";
};

// Where in a text digits of the second's fraction stand: nothing else of it changes within a second.
struct FractionAt {
  uint16_t offset = 0;
  uint8_t digits = 0;  // 1..9
};
inline constexpr uint32_t kMaxFractions = 8;
struct Fractions {
  FractionAt at[kMaxFractions];
  uint32_t count = 0;
  bool patchable = true;  // false: the text must be made anew for each moment (E*S, or more fractions than fit)
};

// The text of `wall_ns` (nanoseconds since 1970) at `out`; returns its bytes, at most `capacity`: what does not fit is left out.
// `format` must have passed check_time_format(); what that refuses is copied as it stands. `fractions`, if not null, is filled.
size_t format_time(uint64_t wall_ns, std::string_view format, const TimeZone& zone, char* out, size_t capacity,
                   Fractions* fractions = nullptr);

// Writes the digits of that moment's fraction over those of another moment of the same second.
void patch_fractions(uint64_t wall_ns, const Fractions& fractions, char* text);

// Offset of the first '%' that begins no known conversion; npos when all is well.
size_t check_time_format(std::string_view format);

}  // namespace millrace::base
