#include <gtest/gtest.h>

#include "lib/wire/checksum.h"
#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

// Header of a TCP SYN of Linux.
constexpr const char* kV4 = "4500 003c fcc6 4000 4006 29e1 0a090001 0a090002";
constexpr size_t kV4Payload = 40;

std::vector<uint8_t> v4_with(std::vector<uint8_t> header, size_t payload) {
  header.resize(header.size() + payload);
  return header;
}

TEST(Ipv4, ReadsALinuxHeader) {
  const GuardPage page(v4_with(hex(kV4), kV4Payload));
  Ipv4View v;
  ASSERT_EQ(Ipv4View::parse(page.bytes(), true, v), ParseError::kNone);
  EXPECT_EQ(v.src, 0x0a090001u);
  EXPECT_EQ(v.dst, 0x0a090002u);
  EXPECT_EQ(v.protocol, kIpTcp);
  EXPECT_EQ(v.ttl, 64);
  EXPECT_EQ(v.identification, 0xfcc6);
  EXPECT_TRUE(v.dont_fragment);
  EXPECT_EQ(v.ecn(), Ecn::kNotCapable);
  EXPECT_EQ(v.payload_offset, 20);
  EXPECT_EQ(v.payload_length, 40);
}

TEST(Ipv4, WritesTheSameBytes) {
  Ipv4Repr r;
  r.src = 0x0a090001;
  r.dst = 0x0a090002;
  r.protocol = kIpTcp;
  r.identification = 0xfcc6;
  r.payload_length = 40;
  std::vector<uint8_t> out(20);
  EXPECT_EQ(r.emit(out.data()), 20u);
  EXPECT_EQ(out, hex(kV4));
  r.emit(out.data(), false);
  EXPECT_EQ(out[10] | out[11], 0);
}

TEST(Ipv4, EthernetPaddingIsNotPayload) {
  Ipv4View v;
  ASSERT_EQ(Ipv4View::parse(v4_with(hex(kV4), kV4Payload + 6), true, v), ParseError::kNone);
  EXPECT_EQ(v.payload_length, 40);
}

TEST(Ipv4, Refusals) {
  const struct {
    const char* name;
    const char* header;  // checksum not verified
    size_t payload;
    ParseError error;
  } kRows[] = {
      {"version 6", "6500 0014 0000 0000 4006 0000 0a090001 0a090002", 0, ParseError::kBadHeader},
      {"header of 16 bytes", "4400 0014 0000 0000 4006 0000 0a090001 0a090002", 0, ParseError::kBadHeader},
      {"header longer than the packet says", "4600 0014 0000 0000 4006 0000 0a090001 0a090002", 8, ParseError::kBadHeader},
      {"header longer than the bytes", "4f00 003c 0000 0000 4006 0000 0a090001 0a090002", 0, ParseError::kTruncated},
      {"total length below the header", "4500 0013 0000 0000 4006 0000 0a090001 0a090002", 0, ParseError::kBadHeader},
      {"total length past the frame", "4500 0015 0000 0000 4006 0000 0a090001 0a090002", 0, ParseError::kTruncated},
      {"first fragment", "4500 001c 0000 2000 4006 0000 0a090001 0a090002", 8, ParseError::kFragment},
      {"last fragment", "4500 001c 0000 0001 4006 0000 0a090001 0a090002", 8, ParseError::kFragment},
      {"don't fragment is no fragment", "4500 001c 0000 4000 4006 0000 0a090001 0a090002", 8, ParseError::kNone},
      {"router alert", "4600 0018 0000 0000 4006 0000 0a090001 0a090002 94040000", 0, ParseError::kNone},
      {"no operation and end", "4600 0018 0000 0000 4006 0000 0a090001 0a090002 010100ff", 0, ParseError::kNone},
      {"loose source route", "4700 001c 0000 0000 4006 0000 0a090001 0a090002 8307040a00000100", 0, ParseError::kBadHeader},
      {"strict source route", "4700 001c 0000 0000 4006 0000 0a090001 0a090002 8907040a00000100", 0, ParseError::kBadHeader},
      {"option of length 0", "4600 0018 0000 0000 4006 0000 0a090001 0a090002 44000000", 0, ParseError::kBadHeader},
      {"option past the header", "4600 0018 0000 0000 4006 0000 0a090001 0a090002 44050000", 4, ParseError::kBadHeader},
      {"option without its length", "4600 0018 0000 0000 4006 0000 0a090001 0a090002 01010144", 0, ParseError::kBadHeader},
  };
  for (const auto& row : kRows) {
    const GuardPage page(v4_with(hex(row.header), row.payload));
    Ipv4View v;
    EXPECT_EQ(Ipv4View::parse(page.bytes(), false, v), row.error) << row.name;
  }
}

TEST(Ipv4, EveryFlippedBitIsSeenByTheChecksum) {
  const auto good = v4_with(hex(kV4), kV4Payload);
  for (size_t bit = 0; bit < 160; ++bit) {
    auto bad = good;
    bad[bit / 8] = static_cast<uint8_t>(bad[bit / 8] ^ 1u << bit % 8);
    Ipv4View v;
    EXPECT_NE(Ipv4View::parse(bad, true, v), ParseError::kNone) << bit;
  }
}

constexpr const char* kA = "fd000009000000000000000000000001";
constexpr const char* kB = "fd000009000000000000000000000002";

std::vector<uint8_t> v6_with(uint8_t next, std::vector<uint8_t> payload, const char* src = kA, const char* dst = kB) {
  auto p = hex("6000 0000 0000 0040");
  p[5] = static_cast<uint8_t>(payload.size());
  p[4] = static_cast<uint8_t>(payload.size() >> 8);
  p[6] = next;
  for (const char* a : {src, dst}) {
    const auto bytes = hex(a);
    p.insert(p.end(), bytes.begin(), bytes.end());
  }
  p.insert(p.end(), payload.begin(), payload.end());
  return p;
}

TEST(Ipv6, ReadsAndWritesAHeaderOfLinux) {
  const auto header = hex("600670e6 0040 3a 40 fd000009000000000000000000000001 fd000009000000000000000000000002");
  auto packet = header;
  packet.resize(packet.size() + 0x40);
  const GuardPage page(packet);
  Ipv6View v;
  ASSERT_EQ(Ipv6View::parse(page.bytes(), v), ParseError::kNone);
  EXPECT_EQ(v.flow_label, 0x670e6u);
  EXPECT_EQ(v.traffic_class, 0);
  EXPECT_EQ(v.next_header, kIpIcmpv6);
  EXPECT_EQ(v.hop_limit, 64);
  EXPECT_EQ(v.src.to_string(), "fd00:9::1");
  EXPECT_EQ(v.dst.to_string(), "fd00:9::2");
  EXPECT_EQ(v.payload_offset, 40);
  EXPECT_EQ(v.payload_length, 64);

  Ipv6Repr r;
  r.src = v.src;
  r.dst = v.dst;
  r.next_header = kIpIcmpv6;
  r.flow_label = 0x670e6;
  r.payload_length = 64;
  std::vector<uint8_t> out(40);
  EXPECT_EQ(r.emit(out.data()), 40u);
  EXPECT_EQ(out, header);
}

TEST(Ipv6, ExtensionHeaders) {
  std::string eight, nine, large;
  for (int i = 0; i < 7; ++i) eight += "3c00 010400000000 ";
  eight += "0600 010400000000 ";
  nine = "3c00 010400000000 " + eight;
  // Two headers of 128 bytes are the limit; one more option unit is too much.
  const std::string filler(2 * 122, '0');
  const std::string at_limit = "3c0f 017a" + filler + "0000 060f 017a" + filler + "0000";
  const std::string over_limit = at_limit.substr(0, at_limit.find("060f")) + "3c0f 017a" + filler + "0000 0600 010400000000";
  std::string many_options = "0603", nine_options = "0603";
  for (int i = 0; i < 8; ++i) many_options += "1e00";
  many_options += "010c 000000000000000000000000";
  for (int i = 0; i < 9; ++i) nine_options += "1e00";
  nine_options += "010a 00000000000000000000";

  constexpr ParseError kOk = ParseError::kNone, kBad = ParseError::kBadHeader, kCut = ParseError::kTruncated;
  const struct {
    const char* name;
    uint8_t first;
    std::string payload;
    ParseError error;
    uint8_t next;
    uint16_t length;  // behind the extensions
  } kRows[] = {
      {"none", 6, "00112233", kOk, 6, 4},
      {"hop by hop with padding", 0, "0600 010400000000 11", kOk, 6, 1},
      {"hop by hop with router alert, as MLD has it", 0, "3a00 050200000100 8f00", kOk, 58, 2},
      {"destination options, one-byte padding", 60, "0600 000000000000", kOk, 6, 0},
      {"routing header that is done", 43, "0602 0400 00000000 00000000000000000000000000000000 11", kOk, 6, 1},
      {"hop by hop, destination options", 0, "3c00010400000000 0600010400000000 11", kOk, 6, 1},
      {"atomic fragment", 44, "0600 0000 00000001 11", kOk, 6, 1},
      {"no next header", 60, "3b00 010400000000", kOk, 59, 0},
      {"authentication header is the caller's", 51, "0604 0000", kOk, 51, 4},
      {"unknown option that may be skipped", 60, "0600 1e04 00000000", kOk, 6, 0},
      {"eight headers", 60, eight, kOk, 6, 0},
      {"256 bytes of extensions", 60, at_limit, kOk, 6, 0},
      {"eight options", 60, many_options, kOk, 6, 0},
      {"first fragment", 44, "0600 0001 00000001 11", ParseError::kFragment, 0, 0},
      {"later fragment", 44, "0600 0008 00000001 11", ParseError::kFragment, 0, 0},
      {"routing type 0 with segments left", 43, "0602 0001 00000000 00000000000000000000000000000000", kBad, 0, 0},
      {"hop by hop in second place", 60, "0000010400000000 0600010400000000", kBad, 0, 0},
      {"jumbo payload", 0, "0600 c204 00010000", kBad, 0, 0},
      {"unknown option that discards", 60, "0600 5e04 00000000", kBad, 0, 0},
      {"option past its header", 60, "0600 0105 00000000 11", kBad, 0, 0},
      {"option kind without length", 60, "0600 0103 000000 01", kBad, 0, 0},
      {"nine headers", 60, nine, kBad, 0, 0},
      {"more than 256 bytes", 60, over_limit, kBad, 0, 0},
      {"nine options", 60, nine_options, kBad, 0, 0},
      {"extension header cut", 60, "0600 0104", kCut, 0, 0},
      {"extension length past the packet", 60, "0601 0104 00000000", kCut, 0, 0},
      {"nothing behind the announcement", 0, "", kCut, 0, 0},
  };
  for (const auto& row : kRows) {
    SCOPED_TRACE(row.name);
    const GuardPage page(v6_with(row.first, hex(row.payload)));
    Ipv6View v;
    ASSERT_EQ(Ipv6View::parse(page.bytes(), v), row.error);
    if (row.error != kOk) continue;
    EXPECT_EQ(v.next_header, row.next);
    EXPECT_EQ(v.payload_length, row.length);
    EXPECT_EQ(v.payload_offset + v.payload_length, static_cast<int>(page.bytes().size()));
  }
}

TEST(Ipv6, Refusals) {
  Ipv6View v;
  auto p = v6_with(6, {1, 2, 3});
  p[0] = 0x45;
  EXPECT_EQ(Ipv6View::parse(p, v), ParseError::kBadHeader);
  p = v6_with(6, {1, 2, 3});
  for (size_t n = 0; n < p.size(); ++n) {
    const GuardPage page(base::ByteSpan(p).first(n));
    EXPECT_EQ(Ipv6View::parse(page.bytes(), v), ParseError::kTruncated) << n;
  }
  EXPECT_EQ(Ipv6View::parse(v6_with(6, {}, "ff020000000000000000000000000001"), v), ParseError::kBadHeader);
  EXPECT_EQ(Ipv6View::parse(v6_with(6, {}, "00000000000000000000ffff0a010203"), v), ParseError::kBadHeader);
  EXPECT_EQ(Ipv6View::parse(v6_with(6, {}, kA, "00000000000000000000ffff0a010203"), v), ParseError::kBadHeader);
  EXPECT_EQ(Ipv6View::parse(v6_with(6, {}, "00000000000000000000000000000000"), v),
            ParseError::kNone);  // :: asks for its address
}

TEST(Ipv6, WellKnownAddresses) {
  const uint8_t mac[6] = {0x02, 0, 0, 0, 0, 0x0b};
  EXPECT_EQ(link_local_from_mac(mac).to_string(), "fe80::ff:fe00:b");  // as Linux made it
  EXPECT_TRUE(is_link_local_v6(link_local_from_mac(mac)));
  EXPECT_FALSE(is_link_local_v6(*base::IpAddress::parse("fec0::1")));
  EXPECT_EQ(solicited_node_group(*base::IpAddress::parse("fd00:9::1:2")).to_string(), "ff02::1:ff01:2");
  EXPECT_EQ(all_nodes_group().to_string(), "ff02::1");
  EXPECT_EQ(all_routers_group().to_string(), "ff02::2");
  EXPECT_TRUE(is_multicast_v6(all_nodes_group()));
}

}  // namespace
}  // namespace millrace::wire
