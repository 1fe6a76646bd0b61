#include "lib/route/regex_syntax.h"

#include <cstdint>
#include <cstdio>
#include <re2/re2.h>
#include <vector>

#include "lib/route/pattern_db.h"

// Differences between the two engines, and what is done about each:
//   captures, (?P<n>...), (?<n>...)   Hyperscan has no captures: (?:...)
//   (?i) (?m) (?s) (?U), in groups    flags are tracked here and written out atom by atom; m, s and U do not matter for a full
//   match of a
//                                     subject without line feeds
//   ^ $ \A \z                         RE2: only the ends of the text; PCRE's $ also stops before a final line feed: written as \A
//   and \z \v \s                             PCRE's \v is a class, and its \s holds VT: written out
//   (?i)k, (?i)s                      fold to U+212A and U+017F: written out
//   octal, \x{...}, \Q...\E           written out as characters
//   \d \w \W [[:alpha:]] [[:^lower:]]   ASCII in both, but under (?i) RE2 folds the set before it negates it: written out as
//   ranges \pN \p{Greek}                     Unicode tables in both; refused under (?i), where the engines fold differently \C a
//   single byte: Hyperscan cannot, refused \1, (?=...), (?>...), a*+, (?R)   RE2 cannot, refused by name
namespace millrace::route {

namespace {

struct Flags {
  bool fold = false;  // (?i)
};

class Translator {
 public:
  explicit Translator(std::string_view text) : text_(text) {}

  TranslatedRegex run();

 private:
  // ---- refusals
  bool refuse(size_t offset, const std::string& what, const std::string& why) {
    if (error_.empty()) {
      error_ = what + " at offset " + std::to_string(offset) + " of \"" + std::string(text_) + "\": " + why;
    }
    return false;
  }
  static constexpr const char* kNotRegular = "RE2, Envoy's regex engine, does not support it, nor does Hyperscan";

  // ---- reading
  bool more() const { return at_ < text_.size(); }
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool starts(std::string_view s) const { return text_.substr(at_).starts_with(s); }
  bool rune(uint32_t* out);  // one UTF-8 character at at_

  bool step();
  bool group_open();
  bool flags_or_group(size_t begin);
  bool escape();
  bool quoted();
  bool bracket_class();
  bool class_item(std::string* out, uint32_t* single);
  bool char_escape(uint32_t* out);  // after the backslash: a single character
  bool property(std::string* out);  // \pN, \p{Greek}, \P...
  bool quantifier();

  // ---- writing
  static std::string write_rune(uint32_t c);
  static bool write_class(std::string_view name, bool negate, bool fold, std::string* out);
  void atom_literal(uint32_t c);
  void atom(std::string text, std::string literal_bytes = {}, bool zero_width = false) {
    flush_literal();
    out_ += text;
    pending_literal_ = std::move(literal_bytes);
    if (pending_literal_.empty() && !zero_width) prefix_open_ = prefix_open_ && !at_top();
    if (!at_top()) pending_literal_.clear();
    quantifiable_ = true;
  }
  // The literal before this one was not followed by a quantifier: it belongs to the prefix.
  void flush_literal() {
    if (prefix_open_) prefix_ += pending_literal_;
    pending_literal_.clear();
  }
  bool at_top() const { return stack_.empty(); }

  struct Open {
    Flags outer;
    size_t offset;
  };

  std::string_view text_;
  size_t at_ = 0;
  Flags flags_;
  std::vector<Open> stack_;
  std::string out_, re2_;  // re2_: what RE2 is asked about ((?<n>) written as older RE2 wants it)
  std::string error_;
  std::string prefix_, pending_literal_;
  bool prefix_open_ = true, top_alternation_ = false, quantifiable_ = false;
  size_t re2_from_ = 0;  // text from here on has not been copied to re2_
};

void append_utf8(std::string* out, uint32_t c) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
  }
}

// ASCII classes as RE2 has them (re2/perl_groups.cc), as sorted ranges of characters.
using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;
constexpr uint32_t kMaxRune = 0x10ffff;
constexpr uint32_t kLongS = 0x17f, kKelvin = 0x212a;  // the two characters beyond ASCII that fold to ASCII letters: s and k

Ranges complement(const Ranges& set) {
  Ranges out;
  uint32_t next = 0;
  for (const auto& [low, high] : set) {
    if (low > next) out.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kMaxRune) out.emplace_back(next, kMaxRune);
  return out;
}

struct NamedClass {
  const char* name;
  Ranges ranges;
};
const NamedClass kClasses[] = {
    {"d", {{'0', '9'}}},
    {"s", {{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}}},
    {"w", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
    {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}},
    {"alpha", {{'A', 'Z'}, {'a', 'z'}}},
    {"ascii", {{0, 0x7f}}},
    {"blank", {{'\t', '\t'}, {' ', ' '}}},
    {"cntrl", {{0, 0x1f}, {0x7f, 0x7f}}},
    {"digit", {{'0', '9'}}},
    {"graph", {{'!', '~'}}},
    {"lower", {{'a', 'z'}}},
    {"print", {{' ', '~'}}},
    {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
    {"space", {{'\t', '\r'}, {' ', ' '}}},
    {"upper", {{'A', 'Z'}}},
    {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
    {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
};

bool is_alpha(uint32_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z' && c < 0x80; }
bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }
bool is_octal(char c) { return c >= '0' && c <= '7'; }
int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string Translator::write_rune(uint32_t c) {
  if (is_alpha(c) || is_digit(c) || c == '/' || c == '_' || c == '%' || c == '=' || c == ',' || c == '~' || c == '@') {
    return std::string(1, static_cast<char>(c));
  }
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, c < 0x80 ? "\\x%02x" : "\\x{%x}", c);
  return buffer;
}

// The class's ranges for use between brackets; false: no such class.
bool Translator::write_class(std::string_view name, bool negate, bool fold, std::string* out) {
  for (const NamedClass& c : kClasses) {
    if (name != c.name) continue;
    bool in[0x80] = {};
    for (const auto& [low, high] : c.ranges)
      for (uint32_t i = low; i <= high; ++i) in[i] = true;
    if (fold)
      for (uint32_t i = 'a'; i <= 'z'; ++i) in[i] = in[i - 32] = in[i] || in[i - 32];
    Ranges set;
    for (uint32_t i = 0; i < 0x80; ++i) {
      if (!in[i]) continue;
      if (!set.empty() && set.back().second + 1 == i) {
        set.back().second = i;
      } else {
        set.emplace_back(i, i);
      }
    }
    if (fold && in[static_cast<int>('s')]) set.emplace_back(kLongS, kLongS);
    if (fold && in[static_cast<int>('k')]) set.emplace_back(kKelvin, kKelvin);
    if (negate) set = complement(set);
    out->clear();
    for (const auto& [low, high] : set) {
      *out += write_rune(low);
      if (high != low) *out += '-' + write_rune(high);
    }
    return true;
  }
  return false;
}

bool Translator::rune(uint32_t* out) {
  const auto byte = [this](size_t i) { return static_cast<uint8_t>(text_[at_ + i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) {
    *out = lead;
    ++at_;
    return true;
  }
  const size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (n == 0 || at_ + n > text_.size()) return refuse(at_, "byte", "the expression is not UTF-8");
  uint32_t c = lead & (0xffu >> (n + 1));
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return refuse(at_, "byte", "the expression is not UTF-8");
    c = c << 6 | (byte(i) & 0x3f);
  }
  at_ += n;
  *out = c;
  return true;
}

void Translator::atom_literal(uint32_t c) {
  if (flags_.fold && is_alpha(c)) {
    const uint32_t lower = c | 0x20;
    std::string set = "[";
    set += static_cast<char>(lower);
    set += static_cast<char>(lower & ~0x20u);
    if (lower == 'k') set += "\\x{212a}";  // KELVIN SIGN
    if (lower == 's') set += "\\x{17f}";   // LATIN SMALL LETTER LONG S
    return atom(set + "]");
  }
  if (flags_.fold && c >= 0x80) return atom("(?i:" + write_rune(c) + ")");
  std::string bytes;
  append_utf8(&bytes, c);
  atom(write_rune(c), bytes);
}

bool Translator::group_open() {
  const size_t begin = at_;
  if (peek(1) != '?') {
    ++at_;
    stack_.push_back({flags_, begin});
    flush_literal();
    prefix_open_ = false;
    out_ += "(?:";
    quantifiable_ = false;
    return true;
  }
  struct Construct {
    std::string_view opening;
    const char* name;
  };
  static constexpr Construct kRefused[] = {
      {"(?=", "lookahead (?=...)"},
      {"(?!", "negative lookahead (?!...)"},
      {"(?<=", "lookbehind (?<=...)"},
      {"(?<!", "negative lookbehind (?<!...)"},
      {"(?>", "atomic group (?>...)"},
      {"(?|", "branch reset (?|...)"},
      {"(?(", "conditional (?(...)...)"},
      {"(?R", "recursion (?R)"},
      {"(?&", "recursion (?&name)"},
      {"(?P>", "recursion (?P>name)"},
      {"(?P=", "back-reference (?P=name)"},
      {"(?#", "comment (?#...)"},
      {"(?C", "callout (?C)"},
      {"(?0", "recursion (?0)"},
      {"(?1", "recursion (?1)"},
      {"(?'", "quoted group name (?'name')"},
      {"(?+", "relative recursion (?+1)"},
  };
  for (const Construct& c : kRefused)
    if (starts(c.opening)) return refuse(begin, c.name, kNotRegular);
  return flags_or_group(begin);
}

// At "(?": a named group, or flags for the rest of the group ("(?i)") or for a group of their own ("(?i:...)").
bool Translator::flags_or_group(size_t begin) {
  if (starts("(?P<") || starts("(?<")) {
    const size_t close = text_.find('>', at_);
    if (close == std::string_view::npos) return refuse(begin, "group name", "it has no closing >");
    if (text_[at_ + 2] == '<') {  // the spelling RE2 has taken since 2023
      re2_ += text_.substr(re2_from_, begin - re2_from_);
      re2_ += "(?P";
      re2_from_ = begin + 2;
    }
    at_ = close + 1;
    stack_.push_back({flags_, begin});
    flush_literal();
    prefix_open_ = false;
    out_ += "(?:";
    quantifiable_ = false;
    return true;
  }
  at_ += 2;
  Flags next = flags_;
  bool negate = false;
  for (; more(); ++at_) {
    switch (text_[at_]) {
      case 'i':
        next.fold = !negate;
        break;
      case 'm':
      case 's':
      case 'U':
        break;
      case '-':
        negate = true;
        break;
      case ')':
        ++at_;
        flags_ = next;
        quantifiable_ = false;
        return true;
      case ':':
        ++at_;
        stack_.push_back({flags_, begin});
        flags_ = next;
        flush_literal();
        prefix_open_ = false;
        out_ += "(?:";
        quantifiable_ = false;
        return true;
      default:
        return refuse(begin, "group \"(?" + std::string(1, text_[at_]) + "\"", "RE2 knows the flags i, m, s and U only");
    }
  }
  return refuse(begin, "group", "missing )");
}

bool Translator::char_escape(uint32_t* out) {
  const size_t begin = at_ - 1;
  if (!more()) return refuse(begin, "backslash", "nothing follows it");
  const char c = text_[at_];
  if (c >= '1' && c <= '9') {
    if (c >= '8' || !is_octal(peek(1))) return refuse(begin, std::string("back-reference \\") + c, kNotRegular);
  }
  if (is_octal(c)) {
    uint32_t v = 0;
    for (int i = 0; i < 3 && is_octal(peek()); ++i) v = v * 8 + static_cast<uint32_t>(text_[at_++] - '0');
    *out = v;
    return true;
  }
  ++at_;
  switch (c) {
    case 'a':
      *out = '\a';
      return true;
    case 'f':
      *out = '\f';
      return true;
    case 'n':
      *out = '\n';
      return true;
    case 'r':
      *out = '\r';
      return true;
    case 't':
      *out = '\t';
      return true;
    case 'v':
      *out = '\v';
      return true;
    case 'x': {
      uint32_t v = 0;
      int digits = 0;
      if (peek() == '{') {
        ++at_;
        for (; more() && hex_value(peek()) >= 0 && v <= 0x10ffff; ++digits)
          v = v * 16 + static_cast<uint32_t>(hex_value(text_[at_++]));
        if (digits == 0 || peek() != '}' || v > 0x10ffff)
          return refuse(begin, "escape \\x{", "it wants 1 to 6 hexadecimal digits up to 10FFFF and }");
        ++at_;
      } else {
        for (; digits < 2 && hex_value(peek()) >= 0; ++digits) v = v * 16 + static_cast<uint32_t>(hex_value(text_[at_++]));
        if (digits != 2) return refuse(begin, "escape \\x", "it wants two hexadecimal digits");
      }
      *out = v;
      return true;
    }
    case 'C':
      return refuse(begin, "single byte \\C", "Hyperscan does not support it");
    case 'K':
      return refuse(begin, "match reset \\K", kNotRegular);
    case 'R':
      return refuse(begin, "line break \\R", kNotRegular);
    case 'X':
      return refuse(begin, "grapheme cluster \\X", kNotRegular);
    case 'G':
      return refuse(begin, "anchor \\G", kNotRegular);
    case 'Z':
      return refuse(begin, "anchor \\Z", "RE2 does not support it; use \\z or $");
    case 'g':
    case 'k':
      return refuse(begin, std::string("back-reference \\") + c, kNotRegular);
    default:
      break;
  }
  if (is_alpha(static_cast<uint8_t>(c))) return refuse(begin, std::string("escape \\") + c, "RE2 does not know it");
  --at_;
  return rune(out);
}

bool Translator::property(std::string* out) {
  const size_t begin = at_ - 1;
  if (flags_.fold) return refuse(begin, "Unicode class under (?i)", "Hyperscan folds it otherwise than RE2; write (?-i:\\p...)");
  *out = std::string("\\") + text_[at_++];
  if (!more()) return refuse(begin, "Unicode class", "its name is missing");
  if (peek() != '{') {
    *out += text_[at_++];
    return true;
  }
  const size_t close = text_.find('}', at_);
  if (close == std::string_view::npos) return refuse(begin, "Unicode class", "missing }");
  *out += std::string(text_.substr(at_, close + 1 - at_));
  at_ = close + 1;
  return true;
}

bool Translator::quoted() {  // after \Q
  const size_t end = std::min(text_.find("\\E", at_), text_.size());
  while (at_ < end) {
    uint32_t c;
    if (!rune(&c)) return false;
    atom_literal(c);
  }
  at_ = std::min(end + 2, text_.size());
  return true;
}

bool Translator::escape() {
  ++at_;
  switch (peek()) {
    case 'A':
      ++at_;
      atom("\\A", {}, true);
      quantifiable_ = false;
      return true;
    case 'z':
      ++at_;
      atom("\\z", {}, true);
      quantifiable_ = false;
      return true;
    case 'b':
    case 'B':
      atom(std::string("\\") + text_[at_++], {}, true);
      return true;
    case 'd':
    case 's':
    case 'w':
    case 'D':
    case 'S':
    case 'W': {
      const char c = text_[at_++];
      std::string ranges;
      write_class(std::string(1, static_cast<char>(c | 0x20)), (c & 0x20) == 0, flags_.fold, &ranges);
      atom("[" + ranges + "]");
      return true;
    }
    case 'Q':
      ++at_;
      return quoted();
    case 'p':
    case 'P': {
      std::string text;
      if (!property(&text)) return false;
      atom(text);
      return true;
    }
    default:
      break;
  }
  uint32_t c;
  if (!char_escape(&c)) return false;
  atom_literal(c);
  return true;
}

// One item of a bracket class: text to write, and *single when it is one character (which may begin or end a range), else
// UINT32_MAX.
bool Translator::class_item(std::string* out, uint32_t* single) {
  *single = UINT32_MAX;
  if (starts("[:")) {
    const size_t close = text_.find(":]", at_ + 2);
    if (close != std::string_view::npos) {
      std::string_view name = text_.substr(at_ + 2, close - at_ - 2);
      const bool negate = name.starts_with('^');
      if (negate) name.remove_prefix(1);
      if (!write_class(name, negate, flags_.fold, out))
        return refuse(at_, "character class", "there is no [:" + std::string(name) + ":]");
      at_ = close + 2;
      return true;
    }
  }
  if (peek() != '\\') {
    uint32_t c;
    if (!rune(&c)) return false;
    *single = c;
    return true;
  }
  ++at_;
  switch (peek()) {
    case 'd':
    case 's':
    case 'w':
    case 'D':
    case 'S':
    case 'W': {
      const char c = text_[at_++];
      return write_class(std::string(1, static_cast<char>(c | 0x20)), (c & 0x20) == 0, flags_.fold, out);
    }
    case 'p':
    case 'P':
      return property(out);
    default:
      return char_escape(single);
  }
}

bool Translator::bracket_class() {
  const size_t begin = at_++;
  std::string body = "[";
  if (peek() == '^') {
    body += '^';
    ++at_;
  }
  for (bool first = true; first || peek() != ']'; first = false) {
    if (!more()) return refuse(begin, "character class", "missing ]");
    std::string item;
    uint32_t low;
    if (!class_item(&item, &low)) return false;
    if (low == UINT32_MAX) {
      body += item;
      continue;
    }
    body += write_rune(low);
    if (peek() == '-' && at_ + 1 < text_.size() && peek(1) != ']') {
      ++at_;
      uint32_t high;
      if (!class_item(&item, &high)) return false;
      if (high == UINT32_MAX || high < low)
        return refuse(begin, "character class", "a range in it is backwards or ends in a class");
      body += '-' + write_rune(high);
    }
  }
  ++at_;
  body += ']';
  atom(flags_.fold ? "(?i:" + body + ")" : body);
  return true;
}

// * + ? {n} {n,} {n,m}, each with an optional lazy mark, which a full match does not need. A brace that is none of these is a
//   character.
bool Translator::quantifier() {
  const size_t begin = at_;
  std::string text(1, text_[at_]);
  bool at_least_one = text_[at_] == '+';
  if (text_[at_] == '{') {
    size_t i = at_ + 1;
    const size_t digits = i;
    while (i < text_.size() && is_digit(static_cast<uint8_t>(text_[i]))) ++i;
    bool valid = i > digits;
    at_least_one = valid && text_.substr(digits, i - digits).find_first_not_of('0') != std::string_view::npos;
    if (valid && i < text_.size() && text_[i] == ',') {
      ++i;
      while (i < text_.size() && is_digit(static_cast<uint8_t>(text_[i]))) ++i;
    }
    valid = valid && i < text_.size() && text_[i] == '}';
    if (!valid) {
      ++at_;
      atom_literal('{');
      return true;
    }
    text = std::string(text_.substr(at_, i + 1 - at_));
    at_ = i + 1;
  } else {
    ++at_;
  }
  if (!quantifiable_) return refuse(begin, "quantifier " + text, "there is nothing before it that it could repeat");
  if (peek() == '+') return refuse(begin, "possessive quantifier " + text + "+", kNotRegular);
  if (peek() == '?') ++at_;
  if (more() && (peek() == '*' || peek() == '+' || peek() == '?')) {
    return refuse(begin, "doubled quantifier " + text + std::string(1, peek()), "RE2 does not allow it");
  }
  // The prefix ends here; one copy of what is repeated still belongs to it if it has to be there.
  if (at_least_one) flush_literal();
  pending_literal_.clear();
  if (at_top()) prefix_open_ = false;
  out_ += text;
  quantifiable_ = false;
  return true;
}

bool Translator::step() {
  switch (text_[at_]) {
    case '(':
      return group_open();
    case ')':
      if (stack_.empty()) return refuse(at_, ")", "it closes no group");
      ++at_;
      flags_ = stack_.back().outer;
      stack_.pop_back();
      out_ += ')';
      quantifiable_ = true;
      return true;
    case '|':
      ++at_;
      if (at_top()) top_alternation_ = true;
      out_ += '|';
      quantifiable_ = false;
      return true;
    case '^':
      ++at_;
      atom("\\A", {}, true);
      quantifiable_ = false;
      return true;
    case '$':
      ++at_;
      atom("\\z", {}, true);
      quantifiable_ = false;
      return true;
    case '.':
      ++at_;
      atom(".");
      return true;
    case '[':
      return bracket_class();
    case '\\':
      return escape();
    case '*':
    case '+':
    case '?':
    case '{':
      return quantifier();
    default: {
      uint32_t c;
      if (!rune(&c)) return false;
      atom_literal(c);
      return true;
    }
  }
}

TranslatedRegex Translator::run() {
  TranslatedRegex result;
  if (text_.size() > kMaxExpressionBytes) {
    result.error = "the expression has " + std::to_string(text_.size()) + " bytes; at most " +
                   std::to_string(kMaxExpressionBytes) + " are supported";
    return result;
  }
  while (more() && error_.empty()) step();
  if (error_.empty() && !stack_.empty()) refuse(stack_.back().offset, "(", "missing )");
  if (!error_.empty()) {
    result.error = error_;
    return result;
  }
  flush_literal();
  re2_ += text_.substr(re2_from_);

  // Envoy: re2::RE2 with default options (UTF-8, 8 MiB program), FullMatch.
  re2::RE2::Options options;
  options.set_log_errors(false);
  const re2::RE2 oracle(re2_, options);
  if (!oracle.ok()) {
    const size_t offset = oracle.error_arg().empty() ? std::string_view::npos : text_.find(oracle.error_arg());
    result.error = "\"" + std::string(text_) + "\" is not a regular expression as RE2 knows it: " + oracle.error();
    if (offset != std::string_view::npos && !oracle.error_arg().empty()) result.error += " at offset " + std::to_string(offset);
    return result;
  }
  result.expression = out_;
  result.literal_prefix = top_alternation_ ? std::string() : prefix_;
  result.matches_empty = re2::RE2::FullMatch("", oracle);
  return result;
}

}  // namespace

TranslatedRegex translate_re2(std::string_view expression) { return Translator(expression).run(); }

}  // namespace millrace::route
