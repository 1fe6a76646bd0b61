#include "lib/base/ip_address.h"

#include <gtest/gtest.h>

namespace millrace::base {
namespace {

TEST(IpAddress, TextBothWays) {
  const struct {
    const char* text;
    const char* canonical;  // null: not an address
  } kRows[] = {
      {"10.1.2.3", "10.1.2.3"},
      {"0.0.0.0", "0.0.0.0"},
      {"255.255.255.255", "255.255.255.255"},
      {"::", "::"},
      {"::1", "::1"},
      {"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"},
      {"2001:DB8::0:1", "2001:db8::1"},
      {"fe80::1", "fe80::1"},
      {"::ffff:10.1.2.3", "10.1.2.3"},
      {"", nullptr},
      {"10.1.2", nullptr},
      {"10.1.2.256", nullptr},
      {"10.1.2.3/24", nullptr},
      {"[::1]", nullptr},
      {"fe80::1%eth0", nullptr},
      {"1:2:3:4:5:6:7:8:9", nullptr},
      {":::", nullptr},
      {"::1::", nullptr},
      {"10.1.2.3 ", nullptr},
  };
  for (const auto& row : kRows) {
    const auto a = IpAddress::parse(row.text);
    ASSERT_EQ(a.has_value(), row.canonical != nullptr) << row.text;
    if (!a) continue;
    EXPECT_EQ(a->to_string(), row.canonical);
    char out[46];
    EXPECT_EQ(std::string(out, a->format(out, sizeof out)), row.canonical);
  }
}

TEST(IpAddress, FamiliesAndOrder) {
  const IpAddress a = IpAddress::v4(0x0a010203);
  EXPECT_TRUE(a.is_v4());
  EXPECT_EQ(a.v4_host_order(), 0x0a010203u);
  EXPECT_FALSE(a.is_unspecified());
  EXPECT_TRUE(IpAddress::v4(0).is_unspecified());
  EXPECT_TRUE(IpAddress{}.is_unspecified());
  EXPECT_FALSE(IpAddress{}.is_v4());
  EXPECT_LT(IpAddress::v4(1), IpAddress::v4(2));
}

TEST(IpAddress, Prefixes) {
  const struct {
    const char* address;
    const char* network;
    unsigned bits;
    bool inside;
  } kRows[] = {
      {"10.1.2.3", "10.1.0.0", 16, true},      {"10.2.2.3", "10.1.0.0", 16, false},
      {"10.1.2.3", "10.1.2.2", 31, true},      {"10.1.2.3", "10.1.2.2", 32, false},
      {"10.1.2.3", "99.0.0.0", 0, true},       {"10.1.2.3", "::", 0, false},
      {"2001:db8::1", "2001:db8::", 32, true}, {"2001:db9::1", "2001:db8::", 32, false},
      {"2001:db9::1", "2001:db8::", 31, true}, {"2001:db8::1", "2001:db8::1", 128, true},
      {"2001:db8::1", "0.0.0.0", 0, false},
  };
  for (const auto& row : kRows)
    EXPECT_EQ(IpAddress::parse(row.address)->in_prefix(*IpAddress::parse(row.network), row.bits), row.inside)
        << row.address << " in " << row.network << "/" << row.bits;
}

}  // namespace
}  // namespace millrace::base
