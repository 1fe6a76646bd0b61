// Any text as a regular expression: refused with a reason, or accepted by RE2 and Hyperscan alike and the same to both. The first
// line is the expression, the second a subject.
#include <algorithm>
#include <re2/re2.h>
#include <string>

#include "lib/route/pattern_db.h"
#include "lib/route/regex_syntax.h"
#include "tests/fuzz/require.h"

using namespace millrace;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\n'), input.size());
  const std::string expression(input.substr(0, end));
  const std::string_view subject = input.substr(std::min(end + 1, input.size()), 64);
  const route::TranslatedRegex t = route::translate_re2(expression);
  if (!t.ok()) {
    FUZZ_REQUIRE(!t.error.empty());
    return 0;
  }
  // Repeats and Unicode tables can make Hyperscan work for seconds; the length bounds the rest.
  if (expression.size() > 40 || expression.find_first_of("{pP") != std::string::npos ||
      subject.find('\n') != std::string_view::npos)
    return 0;
  if (expression.find("(?<") != std::string::npos) return 0;  // this RE2 is older than Envoy's
  const route::CompiledSet set = route::compile_set({{{t.expression, t.matches_empty}}});
  if (!set.ok()) return 0;
  auto db = route::PatternDb::load(set.serialized);
  FUZZ_REQUIRE(db.ok());
  static route::PatternScratch scratch;
  FUZZ_REQUIRE(scratch.fit(**db).ok());
  bool matched = false;
  const auto status = route::scan(
      **db, scratch, subject, [](void* m, uint32_t) { return *static_cast<bool*>(m) = true; }, &matched);
  FUZZ_REQUIRE(status == route::ScanStatus::kDone);
  re2::RE2::Options options;
  options.set_log_errors(false);
  const re2::RE2 oracle(expression, options);
  // RE2 is lax about overlong UTF-8; we are not.
  if (std::all_of(subject.begin(), subject.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
    FUZZ_REQUIRE(matched == re2::RE2::FullMatch(re2::StringPiece(subject.data(), subject.size()), oracle));
  }
  FUZZ_REQUIRE(!matched || subject.starts_with(t.literal_prefix));
  return 0;
}
