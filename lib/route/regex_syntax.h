// From RE2's syntax (what Envoy's safe_regex takes) to Hyperscan's: same language, same meaning, or a refusal that says what and
// where. An expression is accepted only if RE2 accepts it, so a configuration that is valid here is valid in Envoy. Control only.
#pragma once

#include <string>
#include <string_view>

namespace millrace::route {

struct TranslatedRegex {
  std::string expression;      // Hyperscan syntax, captures removed, flags written out; to be anchored by pattern_db
  std::string literal_prefix;  // every match begins with this text ("" if none is known)
  bool matches_empty = false;
  std::string error;  // not empty: refused. "construct at offset N of \"EXPRESSION\": why"
  bool ok() const { return error.empty(); }
};
// Full-match semantics are the caller's (pattern_db anchors). Subjects hold no line feed (HTTP forbids it), so (?m) and (?s)
// change nothing.
TranslatedRegex translate_re2(std::string_view expression);

}  // namespace millrace::route
