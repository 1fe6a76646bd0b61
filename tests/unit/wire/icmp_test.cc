#include "lib/wire/icmp.h"

#include <gtest/gtest.h>

#include "lib/wire/ipv4.h"
#include "lib/wire/ipv6.h"
#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

base::IpAddress ip(const char* text) { return *base::IpAddress::parse(text); }

// ping of Linux, and what its peer's kernel answered.
constexpr const char* kPingData =
    "0191cf036b00000000fa410700000000 00101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";
const std::string kRequest4 = std::string("0800 5f13 439c 00") + kPingData,
                  kReply4 = std::string("0000 6713 439c 00") + kPingData;
constexpr const char* kPingData6 =
    "0191cf036b00000000ce700a00000000 00101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637";
const std::string kRequest6 = std::string("8000 1552 439d 00") + kPingData6,
                  kReply6 = std::string("8100 1452 439d 00") + kPingData6;

TEST(Icmp, EchoOfLinuxV4) {
  auto message = hex(kRequest4);
  ASSERT_EQ(message.size(), 64u);
  IcmpView v;
  ASSERT_EQ(IcmpView::parse_v4(GuardPage(message).bytes(), true, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kEchoRequest);
  EXPECT_EQ(v.identifier, 0x439c);
  EXPECT_EQ(v.sequence, 1);
  make_echo_reply_v4(message);
  EXPECT_EQ(message, hex(kReply4));
  ASSERT_EQ(IcmpView::parse_v4(message, true, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kEchoReply);
}

TEST(Icmp, EchoOfLinuxV6) {
  auto message = hex(kRequest6);
  IcmpView v;
  ASSERT_EQ(IcmpView::parse_v6(message, ip("fd00:9::1"), ip("fd00:9::2"), true, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kEchoRequest);
  EXPECT_EQ(v.identifier, 0x439d);
  make_echo_reply_v6(message);
  EXPECT_EQ(message, hex(kReply6));
  EXPECT_EQ(IcmpView::parse_v6(message, ip("fd00:9::2"), ip("fd00:9::3"), true, v), ParseError::kBadChecksum);
}

TEST(Icmp, EchoOfNothingButZeros) {
  std::vector<uint8_t> message(8);
  IcmpEchoRepr{}.emit_v4(message.data());
  IcmpView v;
  ASSERT_EQ(IcmpView::parse_v4(message, true, v), ParseError::kNone);
  make_echo_reply_v4(message);
  EXPECT_EQ(IcmpView::parse_v4(message, true, v), ParseError::kNone);
}

TEST(Icmp, WritesThePingOfLinux) {
  const auto expected4 = hex(kRequest4), expected6 = hex(kRequest6);
  std::vector<uint8_t> out(64);
  IcmpEchoRepr r;
  r.identifier = 0x439c;
  r.sequence = 1;
  r.data = base::ByteSpan(expected4).subspan(8);
  ASSERT_EQ(r.emit_v4(out.data()), 64u);
  EXPECT_EQ(out, expected4);
  r.identifier = 0x439d;
  r.data = base::ByteSpan(expected6).subspan(8);
  ASSERT_EQ(r.emit_v6(out.data(), ip("fd00:9::1"), ip("fd00:9::2")), 64u);
  EXPECT_EQ(out, expected6);
}

// Linux tells 10.9.0.1 that nobody listens on UDP port 9999: bytes from its wire, both ways.
const char* const kUnreachable4 = "0303 1130 00000000 45000021a29d40004011841a0a0900010a090002 b81b270f000dc8c2 68656c6c6f";
const char* const kUnreachable6 =
    "0104 0e7a 00000000 600f84b5000d1140fd000009000000000000000000000001fd000009000000000000000000000002 e443270f000db698 "
    "68656c6c6f";

TEST(Icmp, UnreachableOfLinux) {
  IcmpView v;
  ASSERT_EQ(IcmpView::parse_v4(GuardPage(hex(kUnreachable4)).bytes(), true, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kUnreachable);
  EXPECT_EQ(v.code, 3);
  ASSERT_TRUE(v.has_quote && v.quote.has_ports);
  EXPECT_FALSE(v.quote.has_seq);
  EXPECT_EQ(v.quote.src.to_string(), "10.9.0.1");
  EXPECT_EQ(v.quote.dst.to_string(), "10.9.0.2");
  EXPECT_EQ(v.quote.protocol, kIpUdp);
  EXPECT_EQ(v.quote.src_port, 0xb81b);
  EXPECT_EQ(v.quote.dst_port, 9999);

  ASSERT_EQ(IcmpView::parse_v6(hex(kUnreachable6), ip("fd00:9::2"), ip("fd00:9::1"), true, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kUnreachable);
  ASSERT_TRUE(v.has_quote && v.quote.has_ports);
  EXPECT_EQ(v.quote.dst_port, 9999);
}

TEST(Icmp, WritesTheErrorsOfLinux) {
  const auto expected4 = hex(kUnreachable4), expected6 = hex(kUnreachable6);
  IcmpErrorRepr r;
  r.type = 3;
  r.code = 3;
  r.packet = base::ByteSpan(expected4).subspan(8);
  std::vector<uint8_t> out(r.length_v4());
  r.emit_v4(out.data());
  EXPECT_EQ(out, expected4);
  r.type = 1;
  r.code = 4;
  r.packet = base::ByteSpan(expected6).subspan(8);
  out.resize(r.length_v6());
  r.emit_v6(out.data(), ip("fd00:9::2"), ip("fd00:9::1"));
  EXPECT_EQ(out, expected6);
}

TEST(Icmp, ErrorsQuoteNoMoreThanAllowed) {
  const std::vector<uint8_t> large(3000, 0x45);
  IcmpErrorRepr r;
  r.packet = large;
  EXPECT_EQ(r.length_v4(), kIcmpMaxErrorV4 - 20);
  EXPECT_EQ(r.length_v6(), kIcmpMaxErrorV6 - 40);
}

TEST(Icmp, PathMtu) {
  IcmpView v;
  const std::string quote4 = "4500 05dc 0001 4000 4006 0000 0a090001 0a090002 c001 0050 0000abcd";
  ASSERT_EQ(IcmpView::parse_v4(hex("0304 0000 0000 0514" + quote4), false, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kPacketTooBig);
  EXPECT_EQ(v.mtu, 1300u);
  ASSERT_TRUE(v.has_quote && v.quote.has_seq);
  EXPECT_EQ(v.quote.seq, 0xabcdu);
  EXPECT_EQ(v.quote.src_port, 0xc001);
  const std::string quote6 =
      "60000000 05b4 06 40 fd000009000000000000000000000001 fd000009000000000000000000000002 c001 0050 0000abcd";
  ASSERT_EQ(IcmpView::parse_v6(hex("0200 0000 00000500" + quote6), ip("::1"), ip("::2"), false, v), ParseError::kNone);
  EXPECT_EQ(v.kind, IcmpKind::kPacketTooBig);
  EXPECT_EQ(v.mtu, 1280u);
  ASSERT_TRUE(v.has_quote && v.quote.has_seq);
  EXPECT_EQ(v.quote.dst.to_string(), "fd00:9::2");
}

TEST(Icmp, QuotesThatCannotBeRead) {
  const char* kQuotes[] = {
      "",
      "45000014 0000 4000 4006 0000 0a090001 0a0900",             // header cut
      "65000014 0000 4000 4006 0000 0a090001 0a090002",           // version
      "44000014 0000 4000 4006 0000 0a090001 0a090002",           // header length
      "4f000014 0000 4000 4006 0000 0a090001 0a090002",           // options cut
      "45000014 0000 0008 4006 0000 0a090001 0a090002 c0010050",  // not the first fragment
  };
  for (const char* quote : kQuotes) {
    const GuardPage page(hex(std::string("0301 0000 00000000") + quote));
    IcmpView v;
    ASSERT_EQ(IcmpView::parse_v4(page.bytes(), false, v), ParseError::kNone);
    EXPECT_FALSE(v.has_quote) << quote;
  }
  IcmpView v;
  const GuardPage short_ports(hex("0301 0000 00000000 45000014 0000 4000 4006 0000 0a090001 0a090002 c00100"));
  ASSERT_EQ(IcmpView::parse_v4(short_ports.bytes(), false, v), ParseError::kNone);
  EXPECT_TRUE(v.has_quote);
  EXPECT_FALSE(v.quote.has_ports);
}

TEST(Icmp, KindsAndRefusals) {
  const struct {
    bool v6;
    const char* message;
    ParseError error;
    IcmpKind kind;
  } kRows[] = {
      {false, "0b00 0000 00000000", ParseError::kNone, IcmpKind::kTimeExceeded},
      {false, "0c00 0000 00000000", ParseError::kNone, IcmpKind::kParameterProblem},
      {false, "0500 0000 00000000", ParseError::kNone, IcmpKind::kOther},  // redirect
      {false, "0801 0000 00000000", ParseError::kNone, IcmpKind::kOther},  // echo with a code that is not
      {false, "0800 0000 000000", ParseError::kTruncated, IcmpKind::kOther},
      {true, "0300 0000 00000000", ParseError::kNone, IcmpKind::kTimeExceeded},
      {true, "0400 0000 00000000", ParseError::kNone, IcmpKind::kParameterProblem},
      {true, "8700 0000 00000000", ParseError::kNone, IcmpKind::kNeighbor},
      {true, "8900 0000 00000000", ParseError::kNone, IcmpKind::kNeighbor},
      {true, "8f00 0000 00000000", ParseError::kNone, IcmpKind::kOther},  // MLD
      {true, "", ParseError::kTruncated, IcmpKind::kOther},
  };
  for (const auto& row : kRows) {
    const GuardPage page(hex(row.message));
    IcmpView v;
    const ParseError e =
        row.v6 ? IcmpView::parse_v6(page.bytes(), ip("::1"), ip("::2"), false, v) : IcmpView::parse_v4(page.bytes(), false, v);
    ASSERT_EQ(e, row.error) << row.message;
    if (e == ParseError::kNone) {
      EXPECT_EQ(v.kind, row.kind) << row.message;
    }
  }
  IcmpView v;
  EXPECT_EQ(IcmpView::parse_v4(hex("0800 0000 00000000"), true, v), ParseError::kBadChecksum);
}

}  // namespace
}  // namespace millrace::wire
