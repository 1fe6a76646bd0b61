#include "lib/base/time_text.h"

#include <ctime>
#include <string>

#include <gtest/gtest.h>

#include "lib/base/prng.h"

namespace millrace::base {
namespace {

constexpr uint64_t kMoment = 1'767'225'599'012'345'678;  // 2025-12-31T23:59:59.012345678Z, a Wednesday

std::string text(uint64_t wall_ns, std::string_view format, const TimeZone& zone = {}) {
  char out[256];
  return {out, format_time(wall_ns, format, zone, out, sizeof out)};
}

TEST(TimeText, Conversions) {
  struct Case {
    std::string_view format, want;
  };
  for (const Case& c : {
           Case{"%Y-%m-%dT%H:%M:%E3SZ", "2025-12-31T23:59:59.012Z"},
           Case{"%s", "1767225599"},
           Case{"%s.%3f", "1767225599.012"},
           Case{"%s.%f|%9f|%6f|%1f", "1767225599.012345678|012345678|012345|0"},
           Case{"%E6S %E*S %E4Y %Ez %E*z%ET", "59.012345 59.012345678 2025 +00:00 +00:00:00T"},
           Case{"%a %A %b %h %B %c", "Wed Wednesday Dec Dec December Wed Dec 31 23:59:59 2025"},
           Case{"%C %d %e %D %x %F %j", "20 31 31 12/31/25 12/31/25 2025-12-31 365"},
           Case{"%H %I %k %l %p %r %R %T %X", "23 11 23 11 PM 11:59:59 PM 23:59 23:59:59 23:59:59"},
           Case{"%u %w %y %z %Z %% %t%n", "3 3 25 +0000 UTC % \t\n"},
           Case{"no conversion at all", "no conversion at all"},
           Case{"", ""},
       }) {
    EXPECT_EQ(text(kMoment, c.format), c.want) << c.format;
    EXPECT_EQ(check_time_format(c.format), std::string_view::npos) << c.format;
  }
  EXPECT_EQ(text(0, "%F %T %a"), "1970-01-01 00:00:00 Thu");
  EXPECT_EQ(text(951'782'400ull * 1'000'000'000, "%F %j"), "2000-02-29 060") << "a leap year of 400";
  EXPECT_EQ(text(4'107'542'400ull * 1'000'000'000, "%F"), "2100-03-01") << "no leap year";
  EXPECT_EQ(text(kMoment, "%F %T %z %Z", {3600, "CET"}), "2026-01-01 00:59:59 +0100 CET");
  EXPECT_EQ(text(kMoment, "%F %T %Ez", {-12'600, "X"}), "2025-12-31 20:29:59 -03:30");
}

TEST(TimeText, SaysWhatItDoesNotKnow) {
  struct Case {
    std::string_view format;
    size_t offset;
  };
  for (const Case& c : {Case{"%Q", 0}, Case{"a%", 1}, Case{"%Y%E", 2}, Case{"%E3", 0}, Case{"%E5Y", 0}, Case{"%0f", 0},
                        Case{"%3s", 0}, Case{"%%%N", 2}})
    EXPECT_EQ(check_time_format(c.format), c.offset) << c.format;
}

// The calendar against the C library's, over four centuries.
TEST(TimeText, AgreesWithStrftime) {
  Prng random(7);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t second = random.next() % 13'000'000'000ull;
    const auto clock = static_cast<time_t>(second);
    tm parts;
    gmtime_r(&clock, &parts);
    char want[64];
    strftime(want, sizeof want, "%F %T %a %j %u", &parts);
    ASSERT_EQ(text(second * 1'000'000'000 + 5, "%F %T %a %j %u"), want) << second;
  }
}

// What a writer of many lines does: the text of a second is made once, then only its fractions change.
TEST(TimeText, FractionsArePatched) {
  for (const std::string_view format : {"%Y-%m-%dT%H:%M:%E3SZ", "%3f %9f %s.%6f", "%T", "%f%f%f%f%f%f%f%f%f"}) {
    char out[256];
    Fractions f;
    const size_t n = format_time(kMoment, format, {}, out, sizeof out, &f);
    if (f.count == kMaxFractions) {
      EXPECT_FALSE(f.patchable) << "one more than there is room for";
      continue;
    }
    ASSERT_TRUE(f.patchable);
    const uint64_t later = kMoment + 987'000'321;
    patch_fractions(later, f, out);
    EXPECT_EQ(std::string(out, n), text(later, format)) << format;
  }
  char out[8];
  Fractions f;
  EXPECT_EQ(format_time(kMoment, "%T%9f", {}, out, sizeof out, &f), 8u);
  EXPECT_FALSE(f.patchable) << "its digits were cut off";
  format_time(kMoment, "%E*S", {}, out, sizeof out, &f);
  EXPECT_FALSE(f.patchable);
}

}  // namespace
}  // namespace millrace::base
