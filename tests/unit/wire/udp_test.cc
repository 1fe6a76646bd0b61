#include "lib/wire/udp.h"

#include <gtest/gtest.h>

#include "tests/support/guard_page.h"
#include "tests/support/hex.h"

namespace millrace::wire {
namespace {

using support::GuardPage;
using support::hex;

TEST(Udp, Datagrams) {
  const struct {
    const char* name;
    const char* bytes;
    ParseError error;
    uint16_t payload;
  } kRows[] = {
      {"of Linux", "b81b 270f 000d c8c2 68656c6c6f", ParseError::kNone, 5},
      {"with padding behind", "b81b 270f 0009 c8c2 68 0000", ParseError::kNone, 1},
      {"empty", "b81b 270f 0008 c8c2", ParseError::kNone, 0},
      {"length 7", "b81b 270f 0007 c8c2", ParseError::kBadHeader, 0},
      {"length past the end", "b81b 270f 0009 c8c2", ParseError::kTruncated, 0},
      {"cut", "b81b 270f 0008 c8", ParseError::kTruncated, 0},
  };
  for (const auto& row : kRows) {
    const GuardPage page(hex(row.bytes));
    UdpView v;
    ASSERT_EQ(UdpView::parse(page.bytes(), v), row.error) << row.name;
    if (row.error != ParseError::kNone) continue;
    EXPECT_EQ(v.payload_length, row.payload);
    EXPECT_EQ(v.dst_port, 9999);
    EXPECT_TRUE(v.has_checksum);
  }
}

TEST(Udp, Writes) {
  std::vector<uint8_t> out(8);
  EXPECT_EQ((UdpRepr{0xb81b, 9999, 5}.emit(out.data())), 8u);
  EXPECT_EQ(out, hex("b81b 270f 000d 0000"));
}

}  // namespace
}  // namespace millrace::wire
