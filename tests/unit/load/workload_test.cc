// The table of what is asked for, and that it is drawn as its law says.
#include "perf/load/workload.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::load {
namespace {

TEST(TargetTable, Lines) {
  auto t = TargetTable::parse(
      "# hosts and paths\n"
      "a.example /\n"
      "\n"
      "  b.example:8080 \t /x/y?q=1%20 \r\n"
      "* *\n"
      "[::1] /last-without-newline",
      "targets");
  ASSERT_TRUE(t.ok()) << t.error();
  const std::vector<std::pair<std::string, std::string>> want = {
      {"a.example", "/"}, {"b.example:8080", "/x/y?q=1%20"}, {"*", "*"}, {"[::1]", "/last-without-newline"}};
  ASSERT_EQ(t->size(), want.size());
  const TargetTable moved = std::move(*t);  // views stay valid in the table that has the text
  for (uint32_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(moved[i].host, want[i].first);
    EXPECT_EQ(moved[i].path, want[i].second);
  }
}

TEST(TargetTable, MistakesAreNamedByLine) {
  const struct {
    std::string text, want;
  } cases[] = {
      {"", "f: no line says what to ask for; write lines of `host path`"},
      {"\n# nothing\n  \n", "f: no line says what to ask for; write lines of `host path`"},
      {"a /\nb\n", "f:2: the path is missing: a line is `host path`"},
      {"a x\n", "f:1: the path does not begin with /"},
      {"a /x y\n", "f:1: the path has a blank or control character"},
      {"a /\x01\n", "f:1: the path has a blank or control character"},
      {"a\x7f /\n", "f:1: the host has a blank or control character"},
      {std::string("a\0b /\n", 6), "f:1: the host has a blank or control character"},
      {"# c\n" + std::string(256, 'h') + " /", "f:2: the host is longer than 255 bytes"},
      {"h /" + std::string(8000, 'p'), "f:1: the path is longer than 8000 bytes"},
  };
  for (const auto& c : cases) {
    const auto t = TargetTable::parse(c.text, "f");
    ASSERT_FALSE(t.ok()) << c.want;
    EXPECT_EQ(t.error(), c.want);
  }
  EXPECT_TRUE(TargetTable::parse(std::string(255, 'h') + " /" + std::string(7999, 'p'), "f").ok());
}

TEST(TargetTable, FilesAndSingles) {
  const auto missing = TargetTable::read("/nonexistent/targets");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error(), "/nonexistent/targets: No such file or directory");
  const auto folder = TargetTable::read("/");
  ASSERT_FALSE(folder.ok());
  EXPECT_EQ(folder.error(), "/: Is a directory");

  char name[] = "/tmp/millrace-targets-XXXXXX";
  const int fd = mkstemp(name);
  ASSERT_GE(fd, 0);
  std::FILE* out = fdopen(fd, "w");
  for (int i = 0; i < 100'000; ++i) std::fprintf(out, "h%d.example /path/%d\n", i % 100, i);
  std::fclose(out);
  const auto many = TargetTable::read(name);
  std::remove(name);
  ASSERT_TRUE(many.ok()) << many.error();
  ASSERT_EQ(many->size(), 100'000u);
  EXPECT_EQ((*many)[99'999].host, "h99.example");
  EXPECT_EQ((*many)[99'999].path, "/path/99999");

  const auto one = TargetTable::single("a.example", "/");
  ASSERT_TRUE(one.ok());
  ASSERT_EQ(one->size(), 1u);
  EXPECT_EQ((*one)[0].host, "a.example");
  EXPECT_EQ((*one)[0].path, "/");
  EXPECT_EQ(TargetTable::single("", "/").error(), "the host is empty");
  EXPECT_EQ(TargetTable::single("a", "x").error(), "the path does not begin with /");
}

// Chi-square of `n` draws against the law. With many degrees of freedom k it is close to normal with mean k and variance 2k; six
// deviations are no accident.
double chi_square_excess(uint32_t n, double s, uint64_t draws, uint64_t seed) {
  TargetDraw d(n, s, seed);
  std::vector<uint64_t> seen(n);
  for (uint64_t i = 0; i < draws; ++i) {
    const uint32_t x = d.next();
    EXPECT_LT(x, n);
    ++seen[x];
  }
  double norm = 0;
  for (uint32_t i = 0; i < n; ++i) norm += std::pow(i + 1.0, -s);
  // Cells with few expected draws are put together.
  double chi = 0, expected = 0;
  uint64_t got = 0;
  uint32_t cells = 0;
  for (uint32_t i = 0; i < n; ++i) {
    expected += std::pow(i + 1.0, -s) / norm * static_cast<double>(draws);
    got += seen[i];
    if (expected >= 20 || i + 1 == n) {
      chi += (static_cast<double>(got) - expected) * (static_cast<double>(got) - expected) / expected;
      expected = 0, got = 0, ++cells;
    }
  }
  const double k = cells - 1;
  return k <= 0 ? 0 : (chi - k) / std::sqrt(2 * k);
}

TEST(TargetDraw, FollowsItsLaw) {
  const uint64_t seed = std::getenv("MILLRACE_SEED") != nullptr ? std::strtoull(std::getenv("MILLRACE_SEED"), nullptr, 0) : 7;
  SCOPED_TRACE("MILLRACE_SEED=" + std::to_string(seed));
  for (const uint32_t n : {1u, 2u, 3u, 10u, 1000u, 65'537u}) {
    for (const double s : {0.0, 0.5, 0.99, 1.0, 1.2, 3.0}) {
      EXPECT_LT(chi_square_excess(n, s, 400'000, seed), 6) << n << " lines, exponent " << s;
    }
  }
}

// The statistic must be able to fail: draws of one law against another's expectation.
TEST(TargetDraw, TheTestSeesAWrongLaw) {
  TargetDraw uniform(1000, 0, 1);
  uint64_t first = 0;
  for (int i = 0; i < 100'000; ++i) first += uniform.next() == 0;
  EXPECT_LT(first, 200u);  // of Zipf 1.0 it would be 13,400
  TargetDraw zipf(1000, 1, 1);
  first = 0;
  for (int i = 0; i < 100'000; ++i) first += zipf.next() == 0;
  EXPECT_NEAR(static_cast<double>(first), 13'359, 6 * std::sqrt(13'359.0));
}

TEST(TargetDraw, TheSameSeedIsTheSameSequence) {
  TargetDraw a(100'000, 1.1, 42), b(100'000, 1.1, 42), c(100'000, 1.1, 43);
  int same = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint32_t x = a.next();
    ASSERT_EQ(b.next(), x);
    same += c.next() == x;
  }
  EXPECT_LT(same, 200);
}

TEST(TargetDraw, AMillionLinesAtOnce) {
  TargetDraw d(1'000'000, 1.0, 3);
  std::vector<bool> seen(1'000'000);
  uint32_t distinct = 0;
  for (int i = 0; i < 1'000'000; ++i) {
    const uint32_t x = d.next();
    distinct += !seen[x];
    seen[x] = true;
  }
  EXPECT_GT(distinct, 200'000u);
  EXPECT_LT(distinct, 300'000u);
}

}  // namespace
}  // namespace millrace::load
