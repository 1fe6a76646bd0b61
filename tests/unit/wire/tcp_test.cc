#include "lib/wire/tcp.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

// A SYN of Linux 6.1 to port 81, and the answer of its kernel.
constexpr const char* kLinuxSyn =
    "ec9c 0051 24de24fe 00000000 a002 faf0 593b 0000 0204 05b4 0402 080a 4dad5b45 00000000 01 03030a";
constexpr const char* kLinuxRst = "0051 e9f6 00000000 9df7faa8 5014 0000 32d2 0000";

TEST(TcpView, ReadsALinuxSyn) {
  const GuardPage page(hex(kLinuxSyn));
  TcpView v;
  ASSERT_EQ(TcpView::parse(page.bytes(), v), ParseError::kNone);
  EXPECT_EQ(v.src_port, 0xec9c);
  EXPECT_EQ(v.dst_port, 81);
  EXPECT_EQ(v.seq, 0x24de24feu);
  EXPECT_EQ(v.ack, 0u);
  EXPECT_EQ(v.window, 64240);
  EXPECT_EQ(v.flags, kTcpSyn);
  EXPECT_EQ(v.payload_offset, 40);
  EXPECT_EQ(v.payload_length, 0u);
  EXPECT_EQ(v.sequence_length(), 1u);
  EXPECT_EQ(v.mss, 1460);
  EXPECT_EQ(v.wscale, 10);
  EXPECT_TRUE(v.sack_permitted);
  EXPECT_EQ(v.timestamps, (TcpTimestamps{0x4dad5b45, 0}));
  EXPECT_TRUE(v.sack.empty());
}

TEST(TcpView, ReadsALinuxReset) {
  TcpView v;
  ASSERT_EQ(TcpView::parse(hex(kLinuxRst), v), ParseError::kNone);
  EXPECT_TRUE(v.rst() && v.has_ack());
  EXPECT_EQ(v.ack, 0x9df7faa8u);
  EXPECT_EQ(v.sequence_length(), 0u);
  EXPECT_FALSE(v.has_mss() || v.wscale || v.sack_permitted || v.timestamps);
}

// What we would send in place of Linux's SYN is the same bytes but for the checksum.
TEST(TcpRepr, WritesOptionsAsLinuxDoes) {
  TcpRepr r;
  r.src_port = 0xec9c;
  r.dst_port = 81;
  r.seq = 0x24de24fe;
  r.ack = 77;  // not sent without ACK
  r.window = 64240;
  r.flags = kTcpSyn;
  r.mss = 1460;
  r.sack_permitted = true;
  r.timestamps = TcpTimestamps{0x4dad5b45, 0};
  r.wscale = 10;
  std::vector<uint8_t> expected = hex(kLinuxSyn), out(60, 0xee);
  expected[16] = expected[17] = 0;
  out.resize(r.emit(out.data()));
  EXPECT_EQ(out, expected);
}

struct Header {
  const char* name;
  uint8_t flags;
  const char* options;  // hex; padded to 4 bytes by the row itself
  ParseError error;
  std::string seen;  // what the view makes of it
};

std::string describe(const TcpView& v) {
  std::string s;
  if (v.mss) s += "mss " + std::to_string(*v.mss) + " ";
  if (v.wscale) s += "ws " + std::to_string(*v.wscale) + " ";
  if (v.sack_permitted) s += "sackok ";
  if (v.timestamps) s += "ts " + std::to_string(v.timestamps->val) + "," + std::to_string(v.timestamps->ecr) + " ";
  for (const SackBlock& b : v.sack) s += "[" + std::to_string(b.left) + "," + std::to_string(b.right) + ") ";
  if (!s.empty()) s.pop_back();
  return s;
}

std::vector<uint8_t> header_with(uint8_t flags, std::vector<uint8_t> options) {
  std::vector<uint8_t> h = hex("0001 0002 00000003 00000004 5000 0005 0000 0000");
  h[12] = static_cast<uint8_t>((20 + options.size()) / 4 << 4);
  h[13] = flags;
  h.insert(h.end(), options.begin(), options.end());
  return h;
}

TEST(TcpView, Options) {
  constexpr ParseError kOk = ParseError::kNone, kCut = ParseError::kTruncated;
  const Header kRows[] = {
      {"none", kTcpAck, "", kOk, ""},
      {"timestamps, the fast path", kTcpAck, "0101 080a 00000007 00000008", kOk, "ts 7,8"},
      {"timestamps without padding in front", kTcpAck, "080a 00000007 00000008 0000", kOk, "ts 7,8"},
      {"timestamps then SACK", kTcpAck, "0101080a0000000100000002 0101 050a 00000005 00000009", kOk, "ts 1,2 [5,9)"},
      {"three blocks beside timestamps", kTcpAck,
       "0101080a0000000100000002 0101 051a 00000001 00000002 00000003 00000004 00000005 00000006", kOk,
       "ts 1,2 [1,2) [3,4) [5,6)"},
      {"four blocks", kTcpAck, "0101 0522 00000001 00000002 00000003 00000004 00000005 00000006 00000007 00000008", kOk,
       "[1,2) [3,4) [5,6) [7,8)"},
      {"SACK block that wraps", kTcpAck, "0101 050a fffffff0 00000010", kOk, "[4294967280,16)"},
      {"second SACK option replaces the first", kTcpAck, "050a 00000001 00000002 050a 00000003 00000004", kOk, "[3,4)"},
      {"all of a SYN", kTcpSyn, "020405b4 0402 080a 00000001 00000000 01 030307", kOk, "mss 1460 ws 7 sackok ts 1,0"},
      {"handshake options outside a SYN mean nothing", kTcpAck, "020405b4 0402 0303 0700 0000", kOk, ""},
      {"window shift above 14 is 14", kTcpSyn, "0303 0f00", kOk, "ws 14"},
      {"mss 0 is for TCP to judge", kTcpSyn, "02040000", kOk, "mss 0"},
      {"nothing behind the end is read", kTcpSyn, "00 020405b4 030307", kOk, ""},
      {"unknown option is skipped", kTcpSyn, "1e06 01020304 0204 0500 0000", kOk, "mss 1280"},
      {"experimental option of length 2", kTcpSyn, "fd02 0101", kOk, ""},
      {"length 0", kTcpAck, "0800 0000", kCut, ""},
      {"length 1", kTcpAck, "1e01 0000", kCut, ""},
      {"kind at the very end without its length", kTcpAck, "010101 1e", kCut, ""},
      {"past the header", kTcpAck, "0101 080a", kCut, ""},
      {"unknown option past the header", kTcpAck, "1e05 0101", kCut, ""},
      {"mss of 3 bytes", kTcpSyn, "020305 00", kCut, ""},
      {"window scale of 4 bytes", kTcpSyn, "03040700", kCut, ""},
      {"SACK permitted of 3 bytes", kTcpSyn, "04030000", kCut, ""},
      {"timestamps of 8 bytes", kTcpAck, "0808 000000010000", kCut, ""},
      {"SACK without a block", kTcpAck, "05020000", kCut, ""},
      {"SACK with half a block", kTcpAck, "0506 00000001 0000", kCut, ""},
  };
  for (const Header& row : kRows) {
    SCOPED_TRACE(row.name);
    const GuardPage page(header_with(row.flags, hex(row.options)));
    TcpView v;
    ASSERT_EQ(TcpView::parse(page.bytes(), v), row.error);
    if (row.error == kOk) {
      EXPECT_EQ(describe(v), row.seen);
    }
  }
}

TEST(TcpView, NothingIsLeftOverFromTheLastSegment) {
  TcpView v;
  ASSERT_EQ(TcpView::parse(hex(kLinuxSyn), v), ParseError::kNone);
  ASSERT_EQ(TcpView::parse(header_with(kTcpAck, hex("0101 050a 00000005 00000009")), v), ParseError::kNone);
  EXPECT_EQ(describe(v), "[5,9)");
  ASSERT_EQ(TcpView::parse(header_with(kTcpAck, {}), v), ParseError::kNone);
  EXPECT_EQ(describe(v), "");
}

TEST(TcpView, FlagsThatNoConnectionHas) {
  const struct {
    uint8_t flags;
    ParseError error;
  } kRows[] = {
      {0, ParseError::kBadFlags},
      {kTcpEce | kTcpCwr, ParseError::kBadFlags},
      {kTcpSyn | kTcpFin, ParseError::kBadFlags},
      {kTcpSyn | kTcpRst, ParseError::kBadFlags},
      {kTcpSyn | kTcpRst | kTcpAck, ParseError::kBadFlags},
      {0xff, ParseError::kBadFlags},
      {kTcpSyn, ParseError::kNone},
      {kTcpSyn | kTcpAck, ParseError::kNone},
      {kTcpSyn | kTcpEce | kTcpCwr, ParseError::kNone},  // RFC 3168 6.1.1
      {kTcpFin, ParseError::kNone},                      // without ACK: TCP drops it with its own reason
      {kTcpRst | kTcpFin | kTcpAck, ParseError::kNone},
      {kTcpPsh, ParseError::kNone},
  };
  for (const auto& row : kRows) {
    TcpView v;
    char text[36];
    EXPECT_EQ(TcpView::parse(header_with(row.flags, {}), v), row.error) << format_tcp_flags(row.flags, text);
  }
}

TEST(TcpView, EveryCutIsTruncated) {
  const auto whole = hex(kLinuxSyn);
  for (size_t n = 0; n < whole.size(); ++n) {
    const GuardPage page(base::ByteSpan(whole).first(n));
    TcpView v;
    EXPECT_EQ(TcpView::parse(page.bytes(), v), ParseError::kTruncated) << n;
  }
}

TEST(TcpView, DataOffsetBelowFive) {
  auto h = header_with(kTcpAck, {});
  for (uint8_t words = 0; words < 5; ++words) {
    h[12] = static_cast<uint8_t>(words << 4);
    TcpView v;
    EXPECT_EQ(TcpView::parse(h, v), ParseError::kBadHeader);
  }
}

TEST(TcpView, PayloadIsWhatFollowsTheHeader) {
  auto h = header_with(kTcpAck | kTcpFin, hex("01010101"));
  h.insert(h.end(), {'a', 'b', 'c'});
  TcpView v;
  ASSERT_EQ(TcpView::parse(h, v), ParseError::kNone);
  EXPECT_EQ(v.payload_offset, 24);
  EXPECT_EQ(v.payload_length, 3u);
  EXPECT_EQ(v.sequence_length(), 4u);
}

TEST(TcpRepr, WhatIsWrittenIsRead) {
  for (int mask = 0; mask < 16; ++mask) {
    for (uint32_t blocks = 0; blocks <= kTcpMaxSackBlocks; ++blocks) {
      SCOPED_TRACE(testing::Message() << "options " << mask << " blocks " << blocks);
      TcpRepr r;
      r.flags = kTcpSyn | kTcpAck;
      r.ack = 9;
      if (mask & 1) r.mss = 1220;
      if (mask & 2) r.wscale = 7;
      r.sack_permitted = (mask & 4) != 0;
      if (mask & 8) r.timestamps = TcpTimestamps{1, 2};
      for (uint32_t i = 0; i < blocks; ++i) ASSERT_TRUE(r.sack.push({i * 10, i * 10 + 5}));
      uint8_t out[kTcpMaxHeader];
      const uint32_t length = r.emit(out);
      ASSERT_EQ(length, r.header_length());
      TcpView v;
      ASSERT_EQ(TcpView::parse({out, length}, v), ParseError::kNone);
      EXPECT_EQ(v.payload_offset, length);
      EXPECT_EQ(v.mss, r.mss);
      EXPECT_EQ(v.wscale, r.wscale);
      EXPECT_EQ(v.sack_permitted, r.sack_permitted);
      EXPECT_EQ(v.timestamps, r.timestamps);
      // As many blocks as 40 bytes hold: 3 beside timestamps alone (RFC 2018 3).
      const uint32_t used = (mask & 1 ? 4 : 0) + (mask & 2 ? 4 : 0) + (mask & 8 ? 12 : mask & 4 ? 4 : 0);
      ASSERT_EQ(v.sack.size(), std::min(blocks, (40 - used - 4) / 8));
      for (uint32_t i = 0; i < v.sack.size(); ++i) EXPECT_EQ(v.sack[i], r.sack[i]);
    }
  }
}

TEST(SackBlocks, HoldsFour) {
  SackBlocks b;
  for (uint32_t i = 0; i < 4; ++i) EXPECT_TRUE(b.push({i, i + 1}));
  EXPECT_FALSE(b.push({9, 10}));
  EXPECT_EQ(b.size(), 4u);
  SackBlocks c = b;
  EXPECT_EQ(b, c);
  c.clear();
  EXPECT_TRUE(c.empty());
  EXPECT_FALSE(b == c);
}

TEST(TcpFlags, AsText) {
  char text[36];
  EXPECT_STREQ(format_tcp_flags(kTcpSyn | kTcpAck, text), "SYN|ACK");
  EXPECT_STREQ(format_tcp_flags(0, text), "");
  EXPECT_STREQ(format_tcp_flags(0xff, text), "FIN|SYN|RST|PSH|ACK|URG|ECE|CWR");
}

}  // namespace
}  // namespace millrace::wire
