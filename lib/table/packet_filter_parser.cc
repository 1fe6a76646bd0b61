// From the text of a packet filter to its program (packet_filter.h has the grammar). Recursive descent; depth is bounded by the
// nesting of parentheses and nots that kMaxFilterOps allows.
#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "lib/table/packet_filter.h"

namespace millrace::table {
namespace {

using base::Error;
using base::Result;
using base::Status;

struct Token {
  std::string_view text;
  size_t column = 0;  // from 1
};

constexpr std::array<std::string_view, 27> kWords = {
    "host",     "port",    "net",     "src",     "dst",     "and",      "or",       "not",     "portrange",
    "ip",       "ip6",     "arp",     "tcp",     "udp",     "icmp",     "icmp6",    "vlan",    "inbound",
    "outbound", "tcp-syn", "tcp-ack", "tcp-fin", "tcp-rst", "tcp-push", "listener", "cluster", "greater"};

struct FlagWord {
  std::string_view word;
  uint8_t bit;
};
constexpr FlagWord kFlagWords[] = {{"tcp-fin", 0x01}, {"tcp-syn", 0x02}, {"tcp-rst", 0x04}, {"tcp-push", 0x08},
                                   {"tcp-ack", 0x10}, {"tcp-urg", 0x20}, {"tcp-ece", 0x40}, {"tcp-cwr", 0x80}};

size_t distance(std::string_view a, std::string_view b) {
  std::array<size_t, 32> row{};
  if (a.size() >= row.size() || b.size() >= row.size()) return row.size();
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

class Parser {
 public:
  Parser(std::string_view text, const FilterNames& names) : names_(names), end_{"", text.size() + 1} {
    for (size_t i = 0; i < text.size();) {
      const char c = text[i];
      if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        ++i;
        continue;
      }
      size_t n = 1;
      if (c == '"' || c == '\'') {  // a name with blanks
        const size_t close = text.find(c, i + 1);
        n = (close == std::string_view::npos ? text.size() : close + 1) - i;
      } else if (text.substr(i, 2) == "&&" || text.substr(i, 2) == "||") {
        n = 2;
      } else if (std::string_view("()!").find(c) == std::string_view::npos) {
        while (i + n < text.size() && std::string_view(" \t\r\n()!&|\"'").find(text[i + n]) == std::string_view::npos) ++n;
      }
      tokens_.push_back({text.substr(i, n), i + 1});
      i += n;
    }
  }

  Result<PacketFilter> run() {
    if (tokens_.empty()) return PacketFilter{};
    if (Status s = expression(); !s.ok()) return Error{s.error()};
    if (at_ < tokens_.size()) return Error{bad(peek(), "comes where \"and\", \"or\" or the end was expected").error()};
    return program_;
  }

 private:
  const Token& peek(size_t ahead = 0) const { return at_ + ahead < tokens_.size() ? tokens_[at_ + ahead] : end_; }
  Token take() {
    const Token t = peek();
    if (at_ < tokens_.size()) ++at_;
    return t;
  }
  bool accept(std::string_view word) {
    if (peek().text != word || at_ >= tokens_.size()) return false;
    ++at_;
    return true;
  }
  static Status bad(const Token& t, const std::string& what) {
    return Error{"column " + std::to_string(t.column) + ": " + (t.text.empty() ? "the end" : "\"" + std::string(t.text) + "\"") +
                 " " + what};
  }

  Status emit(const FilterOp& op) {
    if (program_.count == kMaxFilterOps)
      return Error{"the filter is too long: more than " + std::to_string(kMaxFilterOps) +
                   " terms and operators (a listener or cluster counts with each of its addresses)"};
    program_.ops[program_.count++] = op;
    return {};
  }
  Status emit(FilterTerm t) {
    FilterOp op;
    op.term = t;
    return emit(op);
  }

  Status expression() {
    if (Status s = factor(); !s.ok()) return s;
    for (;;) {
      FilterTerm join;
      if (accept("and") || accept("&&")) join = FilterTerm::kAnd;
      else if (accept("or") || accept("||")) join = FilterTerm::kOr;
      else return {};
      if (Status s = factor(); !s.ok()) return s;
      if (Status s = emit(join); !s.ok()) return s;
    }
  }

  Status factor() {
    if (++nesting_ > kMaxFilterOps) return bad(peek(), "is nested too deeply");
    Status s;
    if (accept("not") || accept("!")) {
      s = factor();
      if (s.ok()) s = emit(FilterTerm::kNot);
    } else if (peek().text == "(") {
      const Token open = take();
      s = expression();
      if (s.ok() && !accept(")")) s = bad(open, "is never closed: \")\" is missing");
    } else {
      s = primitive();
    }
    --nesting_;
    return s;
  }

  // [proto] [src|dst] (host|net|port|portrange) VALUE, or a word that stands alone.
  Status primitive() {
    const Token first = peek();
    uint32_t begun = program_.count;
    bool any = false;
    constexpr std::pair<std::string_view, FilterTerm> kProtocols[] = {
        {"ip", FilterTerm::kIp4},  {"ip6", FilterTerm::kIp6},   {"arp", FilterTerm::kArp},    {"tcp", FilterTerm::kTcp},
        {"udp", FilterTerm::kUdp}, {"icmp", FilterTerm::kIcmp}, {"icmp6", FilterTerm::kIcmp6}};
    for (const auto& [word, t] : kProtocols) {
      if (first.text != word) continue;
      take();
      if (Status s = emit(t); !s.ok()) return s;
      any = true;
      break;
    }
    FilterOp op;
    const Token side = peek();
    if (accept("src")) op.side = FilterSide::kSource;
    else if (accept("dst")) op.side = FilterSide::kDestination;
    const Token kind = peek();
    const bool sided = op.side != FilterSide::kEither;
    if (accept("host") || accept("net")) {
      if (Status s = address(kind.text == "net", op); !s.ok()) return s;
    } else if (accept("port") || accept("portrange")) {
      if (Status s = ports(kind.text == "portrange", op); !s.ok()) return s;
    } else if (sided) {
      // pcap's short form: src 10.0.0.1
      if (kind.text.empty() || !looks_like_address(kind.text)) return bad(side, "needs host, net, port or portrange behind it");
      if (Status s = address(true, op); !s.ok()) return s;
    } else if (any) {
      return {};  // a protocol alone
    } else {
      return word();
    }
    if (Status s = emit(op); !s.ok()) return s;
    if (program_.count - begun == 2) return emit(FilterTerm::kAnd);
    return {};
  }

  static bool looks_like_address(std::string_view t) { return base::IpAddress::parse(t.substr(0, t.find('/'))).has_value(); }

  Status address(bool net, FilterOp& op) {
    const Token t = take();
    const size_t slash = t.text.find('/');
    const auto a = base::IpAddress::parse(t.text.substr(0, slash));
    if (!a)
      return bad(t, std::string("is no ") +
                        (net ? "network: write 10.1.0.0/16 or fd00::/64" : "IPv4 or IPv6 address (names are not looked up)"));
    const unsigned most = a->is_v4() ? 32 : 128;
    unsigned bits = most;
    if (slash != std::string_view::npos) {
      const std::string_view rest = t.text.substr(slash + 1);
      const auto [end, e] = std::from_chars(rest.data(), rest.data() + rest.size(), bits);
      if (!net || e != std::errc() || end != rest.data() + rest.size() || bits > most)
        return bad(
            t, net ? "has no prefix length between 0 and " + std::to_string(most) : "is a network: write net instead of host");
    }
    op.term = FilterTerm::kNet;
    op.address = *a;
    op.bits = static_cast<uint8_t>(bits);
    return {};
  }

  static bool number(std::string_view t, uint32_t most, uint16_t& out) {
    uint32_t v = 0;
    const auto [end, e] = std::from_chars(t.data(), t.data() + t.size(), v);
    if (t.empty() || e != std::errc() || end != t.data() + t.size() || v > most) return false;
    out = static_cast<uint16_t>(v);
    return true;
  }

  Status ports(bool range, FilterOp& op) {
    const Token t = take();
    op.term = FilterTerm::kPort;
    const size_t dash = t.text.find('-');
    if (range) {
      if (dash == std::string_view::npos || !number(t.text.substr(0, dash), 65535, op.lo) ||
          !number(t.text.substr(dash + 1), 65535, op.hi) || op.lo > op.hi)
        return bad(t, "is no range of ports: write 8000-8100");
      return {};
    }
    if (!number(t.text, 65535, op.lo)) return bad(t, "is no port: a number up to 65535 (service names are not looked up)");
    op.hi = op.lo;
    return {};
  }

  Status named(const Token& kind, bool ours) {
    Token t = take();
    if (t.text.size() >= 2 && (t.text.front() == '"' || t.text.front() == '\'') && t.text.back() == t.text.front())
      t.text = t.text.substr(1, t.text.size() - 2);
    if (t.text.empty()) return bad(kind, "needs a name behind it");
    const auto& look = ours ? names_.listener : names_.cluster;
    if (!look) return bad(kind, "cannot be resolved here");
    auto found = look(t.text);
    if (!found.ok()) return bad(t, ": " + found.error());
    if (found->empty()) return bad(t, "has no address");
    bool first = true;
    for (const FilterEndpoint& e : *found) {
      // Our side is the destination of what comes in and the source of what goes out; the program need not know which, because
      // address and port are compared on the same side.
      if (Status s = endpoint(e); !s.ok()) return s;
      if (!first)
        if (Status s = emit(FilterTerm::kOr); !s.ok()) return s;
      first = false;
    }
    return {};
  }

  Status endpoint(const FilterEndpoint& e) {
    bool first = true;
    for (const FilterSide side : {FilterSide::kSource, FilterSide::kDestination}) {
      FilterOp op;
      op.side = side;
      op.term = FilterTerm::kPort;
      op.lo = op.hi = e.port;
      if (Status s = emit(op); !s.ok()) return s;
      if (!e.address.is_unspecified()) {
        op.term = FilterTerm::kNet;
        op.lo = op.hi = 0;
        op.address = e.address;
        op.bits = e.address.is_v4() ? 32 : 128;
        if (Status s = emit(op); !s.ok()) return s;
        if (Status s = emit(FilterTerm::kAnd); !s.ok()) return s;
      }
      if (!first)
        if (Status s = emit(FilterTerm::kOr); !s.ok()) return s;
      first = false;
    }
    return {};
  }

  Status word() {
    const Token t = take();
    if (t.text == "inbound") return emit(FilterTerm::kInbound);
    if (t.text == "outbound") return emit(FilterTerm::kOutbound);
    if (t.text == "listener") return named(t, true);
    if (t.text == "cluster") return named(t, false);
    FilterOp op;
    if (t.text == "vlan") {
      op.term = FilterTerm::kVlan;
      if (number(peek().text, 4094, op.lo)) take();
      return emit(op);
    }
    if (t.text == "less" || t.text == "greater") {
      op.term = t.text == "less" ? FilterTerm::kLess : FilterTerm::kGreater;
      const Token n = take();
      if (!number(n.text, 65535, op.lo)) return bad(n, "is no frame length: a number up to 65535");
      return emit(op);
    }
    for (const FlagWord& f : kFlagWords) {
      if (t.text != f.word) continue;
      op.term = FilterTerm::kFlags;
      op.lo = f.bit;
      return emit(op);
    }
    if (t.text.empty()) return bad(t, "comes where a term was expected");
    std::string_view near;
    size_t best = 3;
    for (const std::string_view w : kWords)
      if (const size_t d = distance(t.text, w); d < best && d < w.size()) best = d, near = w;
    return bad(t, "is no word of the language" +
                      (near.empty() ? std::string("; see millctl capture --help") : "; did you mean " + std::string(near) + "?"));
  }

  const FilterNames& names_;
  std::vector<Token> tokens_;
  const Token end_;
  size_t at_ = 0;
  uint32_t nesting_ = 0;
  PacketFilter program_;
};

}  // namespace

Result<PacketFilter> parse_packet_filter(std::string_view text, const FilterNames& names) {
  if (text.size() > kMaxFilterText) return Error{"a filter has at most " + std::to_string(kMaxFilterText) + " characters"};
  return Parser(text, names).run();
}

}  // namespace millrace::table
