#include "tests/packet/script.h"

#include <array>
#include <charconv>
#include <cstdio>

#include "lib/wire/tcp.h"

namespace millrace::packet {
namespace {

constexpr size_t kMaxScript = 1 << 20;        // bytes
constexpr uint64_t kMaxTime_s = 100'000'000;  // no script goes on longer
constexpr uint32_t kOurCookieBytes = 8;       // FO last
constexpr uint32_t kMaxOptionBytes = 40;

// A line as words and punctuation, read from left to right. The first error sticks.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) { skip(); }

  bool ok() const { return why_.empty(); }
  const std::string& why() const { return why_; }
  bool fail(std::string why) {
    if (why_.empty()) why_ = std::move(why);
    return false;
  }
  bool at_end() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }

  // Takes `token` if it stands here.
  bool take(std::string_view token) {
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    skip();
    return true;
  }
  // The same for a whole word.
  bool take_word(std::string_view word) {
    if (!rest_.starts_with(word) || (rest_.size() > word.size() && is_word(rest_[word.size()]))) return false;
    return take(word);
  }
  bool need(std::string_view token) {
    return take(token) || fail("expected '" + std::string(token) + "' at '" + std::string(rest_.substr(0, 20)) + "'");
  }
  // Letters, digits, '_', '-' and '.'.
  std::string word() {
    size_t n = 0;
    while (n < rest_.size() && is_word(rest_[n])) ++n;
    std::string w(rest_.substr(0, n));
    rest_.remove_prefix(n);
    skip();
    if (w.empty()) fail("expected a word at '" + std::string(rest_.substr(0, 20)) + "'");
    return w;
  }
  std::string until_space() {
    const size_t n = std::min(rest_.find(' '), rest_.size());
    std::string w(rest_.substr(0, n));
    rest_.remove_prefix(n);
    skip();
    return w;
  }
  uint64_t number(uint64_t most) {
    uint64_t v = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), v);
    if (error != std::errc() || v > most) {
      fail("expected a number up to " + std::to_string(most) + " at '" + std::string(rest_.substr(0, 20)) + "'");
      return 0;
    }
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    skip();
    return v;
  }
  // Modulo 2^32; may be negative.
  uint32_t sequence() {
    const bool minus = take("-");
    const auto v = static_cast<uint32_t>(number(UINT32_MAX));
    return minus ? 0u - v : v;
  }
  // Seconds with up to nine decimals.
  TimeNs seconds() {
    const bool fraction_only = !rest_.empty() && rest_[0] == '.';
    uint64_t ns = fraction_only ? 0 : raw_number(kMaxTime_s) * base::kSecond;
    if (!rest_.empty() && rest_[0] == '.') {
      rest_.remove_prefix(1);
      uint64_t unit = base::kSecond;
      size_t digits = 0;
      while (digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9') {
        unit /= 10;
        ns += unit * static_cast<uint64_t>(rest_[digits++] - '0');
      }
      if (digits == 0 || digits > 9) fail("a time has one to nine decimals");
      rest_.remove_prefix(digits);
    }
    skip();
    return ns;
  }
  bool hex(std::string& out) {
    while (rest_.size() >= 2) {
      const int high = digit(rest_[0]), low = digit(rest_[1]);
      if (high < 0 || low < 0) break;
      out += static_cast<char>(high * 16 + low);
      rest_.remove_prefix(2);
    }
    const bool ends = rest_.empty() || !is_word(rest_[0]);
    skip();
    return ends || fail("expected pairs of hexadecimal digits");
  }

 private:
  static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  }
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  }
  uint64_t raw_number(uint64_t most) {
    uint64_t v = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), v);
    if (error != std::errc() || v > most) {
      fail("expected a number at '" + std::string(rest_.substr(0, 20)) + "'");
      return 0;
    }
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return v;
  }
  void skip() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t')) rest_.remove_prefix(1);
  }
  std::string_view rest_;
  std::string why_;
};

uint32_t length_of(const Option& o) {
  switch (o.kind) {
    case Option::Kind::kMss:
      return 4;
    case Option::Kind::kSackPermitted:
      return 2;
    case Option::Kind::kTimestamps:
      return 10;
    case Option::Kind::kNop:
    case Option::Kind::kEnd:
      return 1;
    case Option::Kind::kWindowScale:
      return 3;
    case Option::Kind::kSack:
      return 2 + 4 * static_cast<uint32_t>(o.edges.size());
    case Option::Kind::kFastOpen:
      return 2 + (o.echo_last ? kOurCookieBytes : static_cast<uint32_t>(o.bytes.size()));
    case Option::Kind::kHex:
      return static_cast<uint32_t>(o.bytes.size());
  }
  return 0;
}

bool parse_option(Reader& r, Option& o) {
  using Kind = Option::Kind;
  if (r.take_word("mss")) {
    o.kind = Kind::kMss;
    o.value = static_cast<uint32_t>(r.number(65'535));
  } else if (r.take_word("sackOK")) {
    o.kind = Kind::kSackPermitted;
  } else if (r.take_word("TS")) {
    o.kind = Kind::kTimestamps;
    if (!r.need("val")) return false;
    o.value = r.sequence();
    if (!r.need("ecr")) return false;
    if (r.take_word("last")) o.echo_last = true;
    else o.echo = r.sequence();
  } else if (r.take_word("nop")) {
    o.kind = Kind::kNop;
  } else if (r.take_word("eol")) {
    o.kind = Kind::kEnd;
  } else if (r.take_word("wscale")) {
    o.kind = Kind::kWindowScale;
    o.value = static_cast<uint32_t>(r.number(255));
  } else if (r.take_word("sack")) {
    o.kind = Kind::kSack;
    while (r.ok() && o.edges.size() < 2 * wire::kTcpMaxSackBlocks && !r.rest().starts_with(",") && !r.rest().starts_with(">")) {
      o.edges.push_back(r.sequence());
      if (!r.need(":")) return false;
      o.edges.push_back(r.sequence());
    }
    if (o.edges.empty()) return r.fail("sack LEFT:RIGHT ...");
  } else if (r.take_word("FO")) {
    o.kind = Kind::kFastOpen;
    if (r.take_word("last")) o.echo_last = true;
    else r.hex(o.bytes);
  } else if (r.take_word("hex")) {
    o.kind = Kind::kHex;
    r.hex(o.bytes);
    if (o.bytes.empty()) return r.fail("hex BYTES");
  } else {
    return r.fail("unknown option at '" + std::string(r.rest().substr(0, 20)) + "'");
  }
  return r.ok();
}

bool parse_options(Reader& r, Segment& s) {
  if (r.take("...")) {
    s.any_options = true;
    return r.need(">");
  }
  uint32_t length = 0;
  do {
    Option o;
    if (!parse_option(r, o)) return false;
    length += length_of(o);
    s.options.push_back(std::move(o));
  } while (r.take(","));
  if (length > kMaxOptionBytes) return r.fail("options are " + std::to_string(length) + " bytes; 40 have room");
  if (length % 4 != 0) return r.fail("options are " + std::to_string(length) + " bytes; pad them with nop or eol");
  return r.need(">");
}

bool parse_flags(Reader& r, uint8_t& flags) {
  const std::string letters = r.word();
  for (char c : letters) {
    switch (c) {
      case 'S':
        flags |= wire::kTcpSyn;
        break;
      case 'F':
        flags |= wire::kTcpFin;
        break;
      case 'R':
        flags |= wire::kTcpRst;
        break;
      case 'P':
        flags |= wire::kTcpPsh;
        break;
      case '.':
        flags |= wire::kTcpAck;
        break;
      case 'U':
        flags |= wire::kTcpUrg;
        break;
      case 'E':
        flags |= wire::kTcpEce;
        break;
      case 'W':
        flags |= wire::kTcpCwr;
        break;
      case '-':
        break;
      default:
        return r.fail("unknown flag '" + std::string(1, c) + "': S F R P . U E W, or - for none");
    }
  }
  return r.ok();
}

// What follows the sequence numbers: ack, win, urg and options, in this order.
bool parse_tail(Reader& r, Segment& s) {
  if (r.take_word("ack")) s.ack = r.sequence();
  if (r.take_word("win")) s.window = static_cast<uint16_t>(r.number(65'535));
  if (r.take_word("urg")) s.urgent = static_cast<uint16_t>(r.number(65'535));
  if (r.take("<")) return parse_options(r, s);
  return r.ok();
}

bool parse_segment(Reader& r, Segment& s) {
  if (r.take("[")) {
    const std::string mark = r.word();
    static constexpr std::array<std::string_view, 4> kMarks = {"noecn", "ect1", "ect0", "ce"};
    for (uint8_t i = 0; i < kMarks.size(); ++i)
      if (mark == kMarks[i]) s.ecn = i;
    if (!s.ecn) return r.fail("[noecn], [ect0], [ect1] or [ce]");
    if (!r.need("]")) return false;
  }
  if (!parse_flags(r, s.flags)) return false;
  s.seq = r.sequence();
  if (!r.need(":")) return false;
  const uint32_t end = r.sequence();
  if (!r.need("(")) return false;
  s.length = static_cast<uint32_t>(r.number(65'535));
  if (!r.need(")")) return false;
  if (s.seq + s.length != end) return r.fail("FIRST:END(LENGTH) do not agree");
  if (!parse_tail(r, s)) return false;
  if (((s.flags & wire::kTcpAck) != 0) != s.ack.has_value()) return r.fail("'.' and `ack N` go together");
  return true;
}

bool parse_time(Reader& r, When& w) {
  if (r.take("*")) {
    w.base = When::Base::kAnyTime;
    return true;
  }
  w.base = r.take("+") ? When::Base::kPrevious : When::Base::kStart;
  w.from = w.to = r.seconds();
  if (r.take("~")) {
    if ((w.base == When::Base::kPrevious) != r.take("+")) return r.fail("both ends of a range are relative, or none");
    w.to = r.seconds();
    if (w.to < w.from) return r.fail("the range is empty");
  }
  return r.ok();
}

bool parse_assertion(Reader& r, Assertion& a) {
  using Op = Assertion::Op;
  static constexpr std::pair<std::string_view, Op> kOps[] = {{"==", Op::kEqual},        {"!=", Op::kNotEqual},
                                                             {"<=", Op::kLessEqual},    {"<", Op::kLess},
                                                             {">=", Op::kGreaterEqual}, {">", Op::kGreater}};
  a.name = r.word();
  for (const auto& [text, op] : kOps) {
    if (!r.take(text)) continue;
    a.op = op;
    a.value = r.word();
    return r.ok();
  }
  return r.fail("a comparison: == != < <= > >=");
}

bool parse_handshake(Reader& r, Event& e) {
  e.kind = Event::Kind::kHandshake;
  e.segment.flags = wire::kTcpSyn;
  e.active = r.take_word("active");
  if (r.take_word("rtt")) e.rtt = r.seconds();
  return parse_tail(r, e.segment) && (!e.segment.ack || r.fail("a handshake has its own ack"));
}

bool parse_icmp(Reader& r, Event& e) {
  e.kind = Event::Kind::kIcmp;
  if (r.take_word("too_big")) {
    if (!r.need("mtu")) return false;
    e.number = r.number(65'535);
  } else if (r.take_word("unreachable")) {
    e.code = 1 + static_cast<uint32_t>(r.number(15));
  } else {
    return r.fail("icmp too_big mtu N seq N, or icmp unreachable CODE seq N");
  }
  if (!r.need("seq")) return false;
  e.segment.seq = r.sequence();
  return r.ok();
}

bool parse_verb(Reader& r, Event& e) {
  using Kind = Event::Kind;
  static constexpr std::pair<std::string_view, Kind> kPlain[] = {{"connect", Kind::kConnect},   {"eof", Kind::kEof},
                                                                 {"shutdown", Kind::kShutdown}, {"close", Kind::kClose},
                                                                 {"abort", Kind::kAbort},       {"quiet", Kind::kQuiet}};
  for (const auto& [word, kind] : kPlain)
    if (r.take_word(word)) {
      e.kind = kind;
      return true;
    }
  if (r.take_word("listen")) {
    e.kind = Kind::kListen;
    e.number = r.at_end() ? 1024 : r.number(1'000'000);
  } else if (r.take_word("handshake")) {
    return parse_handshake(r, e);
  } else if (r.take_word("write")) {
    e.kind = Kind::kWrite;
    e.number = r.number(1 << 24);
    if (r.take("=")) e.accepted = r.number(1 << 24);
  } else if (r.take_word("read")) {
    e.kind = Kind::kRead;
    e.number = r.number(1 << 24);
  } else if (r.take_word("pressure")) {
    e.kind = Kind::kPressure;
    if (r.take_word("on")) e.number = 1;
    else return r.need("off");
  } else if (r.take_word("pool")) {
    e.kind = Kind::kPool;
    e.number = r.take("-") ? UINT32_MAX : r.number(1 << 20);
  } else if (r.take_word("events")) {
    e.kind = Kind::kEvents;
    while (r.ok() && !r.at_end()) e.words.push_back(r.word());
  } else if (r.take_word("drop")) {
    e.kind = Kind::kDrop;
    e.words.push_back(r.word());
  } else if (r.take_word("tcpi")) {
    e.kind = Kind::kTcpi;
    do {
      if (!parse_assertion(r, e.assertions.emplace_back())) return false;
    } while (r.take(","));
  } else {
    return r.fail("unknown verb at '" + std::string(r.rest().substr(0, 20)) + "'");
  }
  return r.ok();
}

bool parse_event(Reader& r, Event& e) {
  if (!parse_time(r, e.when)) return false;
  if (r.take("<")) {
    if (r.take_word("icmp")) return parse_icmp(r, e);
    e.kind = Event::Kind::kReceive;
    if (e.when.base == When::Base::kAnyTime || e.when.from != e.when.to) return r.fail("only `>` may have a range of time");
    return parse_segment(r, e.segment);
  }
  if (r.take(">")) {
    e.kind = Event::Kind::kExpect;
    return parse_segment(r, e.segment);
  }
  if (e.when.base == When::Base::kAnyTime || e.when.from != e.when.to) return r.fail("only `>` may have a range of time");
  return parse_verb(r, e);
}

bool parse_config(Reader& r, Script& out) {
  while (r.ok() && !r.at_end()) {
    const std::string pair = r.until_space();
    const size_t at = pair.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == pair.size()) return r.fail("config NAME=VALUE ...");
    out.config.emplace_back(pair.substr(0, at), pair.substr(at + 1));
  }
  return r.ok();
}

// Without the comment and the blanks at both ends.
std::string_view strip(std::string_view line) {
  if (const size_t at = line.find("//"); at != std::string_view::npos) line = line.substr(0, at);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r')) line.remove_suffix(1);
  while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
  return line;
}

}  // namespace

bool parse_script(std::string_view text, Script& out, ScriptError& error) {
  out = Script();
  if (text.size() > kMaxScript) {
    error = {1, "a script of more than a megabyte"};
    return false;
  }
  uint32_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = strip(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty()) continue;
    Reader r(line);
    if (out.shows.empty()) {
      if (r.take_word("shows") && !r.at_end()) out.shows = r.rest();
      else r.fail("a script begins with `shows CLAUSE: what`");
    } else if (r.take_word("config")) {
      if (out.events.empty()) parse_config(r, out);
      else r.fail("config comes before the first event");
    } else {
      Event& e = out.events.emplace_back();
      e.line = number;
      if (parse_event(r, e) && !r.at_end()) r.fail("too much: '" + std::string(r.rest()) + "'");
    }
    if (!r.ok()) {
      error = {number, r.why()};
      return false;
    }
  }
  if (out.events.empty()) {
    error = {number == 0 ? 1 : number, "nothing happens in this script"};
    return false;
  }
  return true;
}

std::string format_flags(uint8_t flags) {
  std::string s;
  if (flags & wire::kTcpSyn) s += 'S';
  if (flags & wire::kTcpFin) s += 'F';
  if (flags & wire::kTcpRst) s += 'R';
  if (flags & wire::kTcpPsh) s += 'P';
  if (flags & wire::kTcpUrg) s += 'U';
  if (flags & wire::kTcpEce) s += 'E';
  if (flags & wire::kTcpCwr) s += 'W';
  if (flags & wire::kTcpAck) s += '.';
  return s.empty() ? "-" : s;
}

namespace {

std::string format_number(uint32_t v) {  // numbers just below the start are written negative
  return v > 0xffff0000 ? "-" + std::to_string(0u - v) : std::to_string(v);
}

std::string format_hex(const std::string& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string s;
  for (char c : bytes) {
    s += kDigits[static_cast<uint8_t>(c) >> 4];
    s += kDigits[static_cast<uint8_t>(c) & 15];
  }
  return s;
}

std::string format_option(const Option& o) {
  using Kind = Option::Kind;
  switch (o.kind) {
    case Kind::kMss:
      return "mss " + std::to_string(o.value);
    case Kind::kSackPermitted:
      return "sackOK";
    case Kind::kTimestamps:
      return "TS val " + format_number(o.value) + " ecr " + (o.echo_last ? "last" : format_number(o.echo));
    case Kind::kNop:
      return "nop";
    case Kind::kEnd:
      return "eol";
    case Kind::kWindowScale:
      return "wscale " + std::to_string(o.value);
    case Kind::kSack: {
      std::string s = "sack";
      for (size_t i = 0; i + 1 < o.edges.size(); i += 2)
        s += " " + format_number(o.edges[i]) + ":" + format_number(o.edges[i + 1]);
      return s;
    }
    case Kind::kFastOpen:
      return o.echo_last ? "FO last" : o.bytes.empty() ? "FO" : "FO " + format_hex(o.bytes);
    case Kind::kHex:
      return "hex " + format_hex(o.bytes);
  }
  return "?";
}

}  // namespace

std::string format_segment(const Segment& s) {
  static constexpr const char* kMarks[] = {"[noecn] ", "[ect1] ", "[ect0] ", "[ce] "};
  std::string text = (s.ecn ? kMarks[*s.ecn & 3] : "") + format_flags(s.flags) + " " + format_number(s.seq) + ":" +
                     format_number(s.seq + s.length) + "(" + std::to_string(s.length) + ")";
  if (s.ack) text += " ack " + format_number(*s.ack);
  if (s.window) text += " win " + std::to_string(*s.window);
  if (s.urgent) text += " urg " + std::to_string(*s.urgent);
  if (s.any_options) return text + " <...>";
  if (s.options.empty()) return text;
  std::string options;
  for (const Option& o : s.options) options += (options.empty() ? "" : ",") + format_option(o);
  return text + " <" + options + ">";
}

std::string format_time(TimeNs t) {
  char text[40];
  const auto whole = static_cast<unsigned long long>(t / base::kSecond), ns = static_cast<unsigned long long>(t % base::kSecond);
  if (ns % base::kMillisecond == 0) std::snprintf(text, sizeof text, "%llu.%03llu", whole, ns / base::kMillisecond);
  else std::snprintf(text, sizeof text, "%llu.%06llu", whole, ns / base::kMicrosecond);
  return text;
}

}  // namespace millrace::packet
