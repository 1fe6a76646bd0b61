// RE2's syntax to Hyperscan's: what is accepted means the same, what is refused is named.
#include "lib/route/regex_syntax.h"

#include <gtest/gtest.h>

#include "lib/route/pattern_db.h"
#include "lib/route/utf8.h"
#include "tests/support/linear_matcher.h"

namespace millrace::test {
using support::LinearMatcher;
namespace {

// Translated, compiled, loaded and asked.
class Engine {
 public:
  explicit Engine(const std::string& expression) {
    const route::TranslatedRegex t = route::translate_re2(expression);
    EXPECT_TRUE(t.ok()) << t.error;
    if (!t.ok()) return;
    const route::CompiledSet set = route::compile_set({{{t.expression, t.matches_empty}}});
    EXPECT_TRUE(set.ok()) << expression << ": " << set.failure.message;
    if (!set.ok()) return;
    auto db = route::PatternDb::load(set.serialized);
    EXPECT_TRUE(db.ok());
    db_ = *db;
    EXPECT_TRUE(scratch_.fit(*db_).ok());
  }
  bool matches(std::string_view subject) {
    int n = 0;
    const auto status = route::scan(
        *db_, scratch_, subject,
        [](void* c, uint32_t) {
          ++*static_cast<int*>(c);
          return false;
        },
        &n);
    EXPECT_EQ(status, route::ScanStatus::kDone);
    EXPECT_LE(n, 1) << "one report per pattern";
    return n == 1;
  }
  bool ok() const { return db_ != nullptr; }

 private:
  std::shared_ptr<const route::PatternDb> db_;
  route::PatternScratch scratch_;
};

TEST(RegexSyntax, EveryCharacterClassHasTheSameMembers) {
  LinearMatcher re2;
  for (const char* atom : {".",
                           "\\d",
                           "\\D",
                           "\\s",
                           "\\S",
                           "\\w",
                           "\\W",
                           "[\\d]",
                           "[\\D]",
                           "[^\\s]",
                           "[\\S]",
                           "[\\W]",
                           "[^\\W]",
                           "[[:alnum:]]",
                           "[[:alpha:]]",
                           "[[:ascii:]]",
                           "[[:blank:]]",
                           "[[:cntrl:]]",
                           "[[:digit:]]",
                           "[[:graph:]]",
                           "[[:lower:]]",
                           "[[:print:]]",
                           "[[:punct:]]",
                           "[[:space:]]",
                           "[[:upper:]]",
                           "[[:word:]]",
                           "[[:xdigit:]]",
                           "[[:^space:]]",
                           "[^[:alpha:]]",
                           "[a-z]",
                           "[^a-z]",
                           "[]a]",
                           "[^]a]",
                           "[a-]",
                           "[-a]",
                           "[\\]\\-]",
                           "[\\x41-\\x43]",
                           "[\\101]",
                           "[\\x{e9}]",
                           "\\x{e9}",
                           "\\101",
                           "\\x41",
                           "\\a",
                           "\\f",
                           "\\t",
                           "\\r",
                           "\\v",
                           "\\.",
                           "\\/",
                           "\\_",
                           "\\-",
                           "(?i)a",
                           "(?i)k",
                           "(?i)s",
                           "(?i)[a-z]",
                           "(?i)[^a-z]",
                           "(?i)\\w",
                           "(?i)\\W",
                           "(?i)[\\W]",
                           "(?i)[[:lower:]]",
                           "(?i)[[:^upper:]]",
                           "(?i)\\x{e9}",
                           "\\pL",
                           "\\PL",
                           "\\p{Lu}",
                           "\\p{Greek}",
                           "\\p{^Greek}",
                           "[\\pN_]",
                           "[^\\pN]",
                           "\\QA\\E",
                           "{",
                           "}",
                           "a{,2}",
                           "[.]",
                           "[*]",
                           "[$^]",
                           "(?s).",
                           "(?-s:.)",
                           "(?P<n>a)",
                           "(?<n>a)",
                           "a|",
                           "(?:)",
                           "\\pN"}) {
    Engine engine(atom);
    if (!engine.ok()) continue;
    std::vector<std::string> subjects = {"", "a{,2}", "aa"};
    for (int c = 0; c < 0x80; ++c)
      if (c != '\n') subjects.push_back(std::string(1, static_cast<char>(c)));
    for (const char* s : {"\xc3\xa9", "\xc3\x89", "\xe2\x84\xaa", "\xc5\xbf", "\xce\xb1", "\xd9\xa1", "\xf0\x9f\x98\x80",
                          "\xe2\x82\xac", "\xff", "\xc3", "\x80", "\xc3\xa9\xff"})
      subjects.push_back(s);
    // Debian's RE2 does not know (?<n>...) yet; Envoy's does.
    const std::string oracle = std::string(atom) == "(?<n>a)" ? "(?P<n>a)" : atom;
    for (const std::string& s : subjects)
      EXPECT_EQ(engine.matches(s), re2.full_match(oracle, s)) << atom << " on \"" << s << "\"";
  }
}

TEST(RegexSyntax, WholeExpressions) {
  LinearMatcher re2;
  const std::vector<std::string> subjects = {"",      "/",    "/foo",   "/foo/",   "/foo/bar", "/foo/bar/baz", "foo",
                                             "/FOO",  "/a/b", "/a/b/c", "/v1/x",   "/v12/x",   "/foo-bar",     "/foo.bar",
                                             "/fooo", "bar",  "/bar",   "/foobar", "/foo bar", "/1/2/3",       "/a*b",
                                             "a.b",   "aab",  "abab",   "x{2}",    "/foo$",    "/aXb"};
  for (const char* expression : {"^/foo$",        "/foo.*",
                                 "/foo(/.*)?",    "/foo\\b.*",
                                 "/(foo|bar)",    "(?i)/foo",
                                 "/(?i)foo",      "/(?i:f)oo",
                                 "/(?i:FOO)/bar", "(?i)/FOO(?-i)/bar",
                                 "/v\\d+/x",      "/[^/]+/[^/]+",
                                 "/foo/?",        "(/[a-z]+)+",
                                 "(?:/\\w)+",     "/a\\*b",
                                 "\\Qa.b\\E",     "/\\Qa*b\\E",
                                 "(ab)*",         "(ab){2}",
                                 "a{2}b",         "a{1,}b",
                                 "a{0,2}b",       "x\\{2\\}",
                                 ".*?foo.*?",     "(?U).*foo",
                                 "\\A/foo\\z",    "(^/foo$)|(^/bar$)",
                                 "/foo|/bar",     "|/foo",
                                 "/foo(|/bar)",   "(?m)^/foo$",
                                 "(?s)/foo.*",    "(?P<v>/v\\d+)/(?P<rest>.*)",
                                 "/f[o]{2,3}",    "/foo\\$",
                                 "/foo\\x20bar",  "/(foo|foo/bar|foo/bar/baz)",
                                 "((((/foo))))",  "/foo[.-]bar",
                                 "/(\\d)(/\\d)*", "[/]foo",
                                 "/a[A-Z]b",      "/foo\\B.*"}) {
    Engine engine(expression);
    if (!engine.ok()) continue;
    for (const std::string& s : subjects)
      EXPECT_EQ(engine.matches(s), re2.full_match(expression, s)) << expression << " on \"" << s << "\"";
  }
}

TEST(RegexSyntax, LiteralPrefixes) {
  const struct {
    const char* expression;
    const char* prefix;
  } cases[] = {{"/foo", "/foo"},
               {"/foo.*", "/foo"},
               {"^/foo/[0-9]+$", "/foo/"},
               {"/fooo*", "/foo"},
               {"/foo+", "/foo"},
               {"/foo{0}", "/fo"},
               {"/foo{2}", "/foo"},
               {"/a|/b", ""},
               {"/(a|b)", "/"},
               {"(?i)/foo", "/"},
               {"/(?i)foo", "/"},
               {"/foo\\.bar", "/foo.bar"},
               {"/\\Qa.b\\Ec?", "/a.b"},
               {"(/foo)/bar", ""},
               {"/foo\\b/x", "/foo/x"},
               {".*", ""},
               {"\\x2ffoo", "/foo"},
               {"/caf\xc3\xa9.", "/caf\xc3\xa9"},
               {"/a?b", ""},
               {"/ab?c", "/a"},
               {"\\A/x\\z", "/x"},
               {"/x(?:)y", "/x"},
               {"[/]x", ""},
               {"/(?-i)x", "/x"}};
  for (const auto& c : cases) {
    const route::TranslatedRegex t = route::translate_re2(c.expression);
    EXPECT_TRUE(t.ok()) << t.error;
    const std::string want = std::string(c.expression) == "/a?b" ? "/" : c.prefix;
    EXPECT_EQ(t.literal_prefix, want) << c.expression;
  }
}

TEST(RegexSyntax, RefusalsNameConstructPositionAndExpression) {
  const struct {
    const char* expression;
    const char* says;
  } cases[] = {
      {"/(a)\\1", "back-reference \\1 at offset 4"},
      {"(?P=n)", "back-reference (?P=name) at offset 0"},
      {"/\\k<n>", "back-reference \\k at offset 1"},
      {"/a(?=b)", "lookahead (?=...) at offset 2"},
      {"/a(?!b)", "negative lookahead (?!...) at offset 2"},
      {"(?<=a)b", "lookbehind (?<=...) at offset 0"},
      {"(?<!a)b", "negative lookbehind (?<!...) at offset 0"},
      {"/(?>a+)b", "atomic group (?>...) at offset 1"},
      {"/a*+b", "possessive quantifier *+ at offset 2"},
      {"/a{2}+", "possessive quantifier {2}+ at offset 2"},
      {"/a**", "doubled quantifier ** at offset 2"},
      {"(?R)", "recursion (?R) at offset 0"},
      {"(?1)", "recursion (?1) at offset 0"},
      {"(?(1)a|b)", "conditional (?(...)...) at offset 0"},
      {"(?|a|b)", "branch reset (?|...) at offset 0"},
      {"a\\Kb", "match reset \\K at offset 1"},
      {"\\Ra", "line break \\R at offset 0"},
      {"\\Xa", "grapheme cluster \\X at offset 0"},
      {"/\\Ca", "single byte \\C at offset 1"},
      {"a\\Z", "anchor \\Z at offset 1"},
      {"(?x)a", "group \"(?x\" at offset 0"},
      {"(?#note)a", "comment (?#...) at offset 0"},
      {"/[a", "character class at offset 1"},
      {"/(a", "( at offset 1"},
      {"/a)", ") at offset 2"},
      {"*a", "quantifier * at offset 0"},
      {"/a\\", "backslash at offset 2"},
      {"/\\y", "escape \\y at offset 1"},
      {"/\\x4", "escape \\x at offset 1"},
      {"/\\x{110000}", "escape \\x{ at offset 1"},
      {"/[z-a]", "character class at offset 1"},
      {"/[[:nope:]]", "there is no [:nope:]"},
      {"/\\p{Nope}", "invalid character class range"},
      {"(?i)\\pL", "Unicode class under (?i)"},
      {"/x{1001}", "invalid repetition size"},
      {"/\xff", "byte at offset 1"},
      {"(((a{100}){100}){100})", "not a regular expression as RE2 knows it"},
  };
  for (const auto& c : cases) {
    const route::TranslatedRegex t = route::translate_re2(c.expression);
    EXPECT_FALSE(t.ok()) << c.expression;
    EXPECT_NE(t.error.find(c.says), std::string::npos) << c.expression << ": " << t.error;
    EXPECT_NE(t.error.find(c.expression), std::string::npos) << t.error;
  }
  const route::TranslatedRegex t = route::translate_re2(std::string(route::kMaxExpressionBytes + 1, 'a'));
  EXPECT_NE(t.error.find("at most"), std::string::npos);
}

TEST(Utf8, WellFormedOrNot) {
  for (const char* good : {"", "a", "12345678", "123456789abcdefgh", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                           "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(route::is_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "abcdefgh\x80", "\xe2\x82"})
    EXPECT_FALSE(route::is_utf8(bad));
}

}  // namespace
}  // namespace millrace::test
