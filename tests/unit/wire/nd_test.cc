#include "lib/wire/nd.h"

#include <gtest/gtest.h>

#include "lib/wire/ipv6.h"
#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

base::IpAddress ip(const char* text) { return *base::IpAddress::parse(text); }
constexpr MacAddress kB = {2, 0, 0, 0, 0, 0x0b};

// From a Linux wire: duplicate address detection with a nonce, an advertisement, a router solicitation.
constexpr const char* kDad = "8700 d4fb 00000000 fd000009000000000000000000000001 0e01 bb58288cb6b2";
constexpr const char* kAdvertisement = "8800 1c76 60000000 fd000009000000000000000000000002 0201 02000000000b";
constexpr const char* kRouterSolicitation = "8500 7b18 00000000 0101 02000000000b";

TEST(Nd, DuplicateAddressDetectionOfLinux) {
  NdView v;
  ASSERT_EQ(NdView::parse(GuardPage(hex(kDad)).bytes(), ip("::"), ip("ff02::1:ff00:1"), 255, true, v), ParseError::kNone);
  EXPECT_EQ(v.type, NdType::kNeighborSolicitation);
  EXPECT_EQ(v.target, ip("fd00:9::1"));
  EXPECT_FALSE(v.source_mac);
}

TEST(Nd, AdvertisementOfLinuxBothWays) {
  NdView v;
  ASSERT_EQ(NdView::parse(hex(kAdvertisement), ip("fd00:9::2"), ip("fd00:9::1"), 255, true, v), ParseError::kNone);
  EXPECT_EQ(v.type, NdType::kNeighborAdvertisement);
  EXPECT_FALSE(v.router);
  EXPECT_TRUE(v.solicited && v.override_flag);
  EXPECT_EQ(v.target_mac, kB);

  NdRepr r;
  r.type = NdType::kNeighborAdvertisement;
  r.target = ip("fd00:9::2");
  r.solicited = r.override_flag = true;
  r.mac = kB;
  std::vector<uint8_t> out(r.length());
  EXPECT_EQ(r.emit(out.data(), ip("fd00:9::2"), ip("fd00:9::1")), 32u);
  EXPECT_EQ(out, hex(kAdvertisement));
}

TEST(Nd, SolicitationOfOurs) {
  NdRepr r;
  r.target = ip("fd00:9::1");
  std::vector<uint8_t> out(kNdMaxLength);
  out.resize(r.emit(out.data(), ip("::"), ip("ff02::1:ff00:1")));
  NdView v;
  ASSERT_EQ(NdView::parse(out, ip("::"), ip("ff02::1:ff00:1"), 255, true, v), ParseError::kNone);
  EXPECT_FALSE(v.source_mac);

  r.mac = kB;
  out.resize(kNdMaxLength);
  out.resize(r.emit(out.data(), ip("fd00:9::2"), ip("ff02::1:ff00:1")));
  ASSERT_EQ(NdView::parse(out, ip("fd00:9::2"), ip("ff02::1:ff00:1"), 255, true, v), ParseError::kNone);
  EXPECT_EQ(v.source_mac, kB);
}

TEST(Nd, RouterSolicitationOfLinux) {
  NdView v;
  ASSERT_EQ(NdView::parse(hex(kRouterSolicitation), ip("fe80::ff:fe00:b"), ip("ff02::2"), 255, true, v), ParseError::kNone);
  EXPECT_EQ(v.type, NdType::kRouterSolicitation);
  EXPECT_EQ(v.source_mac, kB);
}

TEST(Nd, RouterAdvertisement) {
  const auto message =
      hex("8600 0000 40 00 0708 00007530 000003e8"
          "0101 020000000001"
          "0501 0000 000005dc"
          "0304 40 c0 00278d00 00093a80 00000000 fd000009000000000000000000000000"
          "1903 0000 00000e10 fd000009000000000000000000000053");  // RDNSS: skipped
  NdView v;
  ASSERT_EQ(NdView::parse(GuardPage(message).bytes(), ip("fe80::1"), ip("ff02::1"), 255, false, v), ParseError::kNone);
  EXPECT_EQ(v.hop_limit, 64);
  EXPECT_EQ(v.router_lifetime_s, 1800);
  EXPECT_EQ(v.reachable_time_ms, 30'000u);
  EXPECT_EQ(v.retrans_timer_ms, 1000u);
  EXPECT_EQ(v.mtu, 1500u);
  EXPECT_EQ(v.source_mac, (MacAddress{2, 0, 0, 0, 0, 1}));
  ASSERT_EQ(v.prefix_count, 1);
  EXPECT_EQ(v.prefixes[0].prefix, ip("fd00:9::"));
  EXPECT_EQ(v.prefixes[0].prefix_length, 64);
  EXPECT_TRUE(v.prefixes[0].on_link && v.prefixes[0].autonomous);
  EXPECT_EQ(v.prefixes[0].valid_lifetime_s, 2'592'000u);
  EXPECT_EQ(v.prefixes[0].preferred_lifetime_s, 604'800u);
  EXPECT_EQ(NdView::parse(message, ip("fd00:9::1"), ip("ff02::1"), 255, false, v), ParseError::kBadHeader);  // not link-local
}

TEST(Nd, Refusals) {
  const std::string target = "fd000009000000000000000000000002";
  const std::string ns = "8700 0000 00000000" + target, na = "8800 0000 40000000" + target;
  std::string seventeen;
  for (int i = 0; i < 17; ++i) seventeen += "fd01 000000000000";
  constexpr ParseError kOk = ParseError::kNone, kBad = ParseError::kBadHeader, kCut = ParseError::kTruncated;
  const struct {
    const char* name;
    std::string message;
    const char* src;
    const char* dst;
    uint8_t hop_limit;
    ParseError error;
  } kRows[] = {
      {"good", ns, "fd00:9::1", "ff02::1:ff00:2", 255, kOk},
      {"forwarded", ns, "fd00:9::1", "ff02::1:ff00:2", 254, kBad},
      {"code", "8701 0000 00000000" + target, "fd00:9::1", "ff02::1:ff00:2", 255, kBad},
      {"group as target", "8700 0000 00000000 ff020000000000000000000000000001", "fd00:9::1", "ff02::1", 255, kBad},
      {"detection with a link-layer address", ns + "0101 020000000001", "::", "ff02::1:ff00:2", 255, kBad},
      {"detection to the wrong group", ns, "::", "ff02::1", 255, kBad},
      {"solicited advertisement to a group", na, "fd00:9::2", "ff02::1", 255, kBad},
      {"solicited advertisement to us", na, "fd00:9::2", "fd00:9::1", 255, kOk},
      {"router solicitation from nowhere with an address", "8500 0000 00000000 0101 020000000001", "::", "ff02::2", 255, kBad},
      {"router solicitation from nowhere", "8500 0000 00000000", "::", "ff02::2", 255, kOk},
      {"redirect", "8900 0000 00000000" + target + target, "fe80::1", "fd00:9::1", 255, ParseError::kUnsupported},
      {"option of length 0", ns + "0100 020000000001", "fd00:9::1", "ff02::1:ff00:2", 255, kBad},
      {"option past the end", ns + "0102 020000000001", "fd00:9::1", "ff02::1:ff00:2", 255, kCut},
      {"option cut", ns + "0101 0200", "fd00:9::1", "ff02::1:ff00:2", 255, kCut},
      {"link-layer address of another kind", ns + "0102 020000000001 0000000000000000", "fd00:9::1", "ff02::1:ff00:2", 255, kBad},
      {"group as link-layer address", ns + "0101 030000000001", "fd00:9::1", "ff02::1:ff00:2", 255, kBad},
      {"seventeen options", ns + seventeen, "fd00:9::1", "ff02::1:ff00:2", 255, kBad},
      {"prefix longer than an address", "8600 0000 00000000 00000000 00000000 0304 81 00 00000000 00000000 00000000" + target,
       "fe80::1", "ff02::1", 255, kBad},
      {"target cut", "8700 0000 00000000 fd00", "fd00:9::1", "ff02::1:ff00:2", 255, kCut},
      {"advertisement cut", "8600 0000 00000000", "fe80::1", "ff02::1", 255, kCut},
      {"empty", "", "fe80::1", "ff02::1", 255, kCut},
  };
  for (const auto& row : kRows) {
    const GuardPage page(hex(row.message));
    NdView v;
    EXPECT_EQ(NdView::parse(page.bytes(), ip(row.src), ip(row.dst), row.hop_limit, false, v), row.error) << row.name;
  }
  NdView v;
  EXPECT_EQ(NdView::parse(hex(ns), ip("fd00:9::1"), ip("ff02::1:ff00:2"), 255, true, v), ParseError::kBadChecksum);
}

}  // namespace
}  // namespace millrace::wire
