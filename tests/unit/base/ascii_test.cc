#include "lib/base/ascii.h"

#include <string>

#include <gtest/gtest.h>

namespace millrace::base {
namespace {

// Every byte at every position of a word and of the rest behind it.
TEST(Ascii, LowerKnowsEveryByteEverywhere) {
  for (int value = 0; value < 256; ++value) {
    const char c = static_cast<char>(value);
    const char expected = value >= 'A' && value <= 'Z' ? static_cast<char>(value + 32) : c;
    EXPECT_EQ(to_lower(c), expected);
    for (size_t at = 0; at < 11; ++at) {
      std::string s(11, 'Q');
      s[at] = c;
      lower_in_place(s.data(), s.size());
      std::string want(11, 'q');
      want[at] = expected;
      ASSERT_EQ(s, want) << "byte " << value << " at " << at;
    }
  }
}

TEST(Ascii, EqualsIgnoresOnlyTheCaseOfLetters) {
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string x(9, static_cast<char>(a)), y(9, static_cast<char>(b));
      const bool same = to_lower(static_cast<char>(a)) == to_lower(static_cast<char>(b));
      ASSERT_EQ(iequals(x, y), same) << a << " " << b;
    }
  }
  EXPECT_TRUE(iequals("Content-Length", "content-LENGTH"));
  EXPECT_FALSE(iequals("Content-Length", "Content-Lengt"));
  EXPECT_FALSE(iequals("Content-Length", "Content-Lengti"));
  EXPECT_FALSE(iequals("abcdefg@", "abcdefg`"));  // differ in bit 0x20 without being letters
  EXPECT_TRUE(iequals("", ""));
}

TEST(Ascii, Tokens) {
  const std::string_view kAll = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  for (int c = 0; c < 256; ++c)
    EXPECT_EQ(is_token_char(static_cast<char>(c)), kAll.find(static_cast<char>(c)) != std::string_view::npos) << c;
  EXPECT_TRUE(is_token("x-request-id"));
  EXPECT_FALSE(is_token(""));
  EXPECT_FALSE(is_token("a b"));
  EXPECT_FALSE(is_token("a:"));
}

}  // namespace
}  // namespace millrace::base
