#include "control/access_log_template.h"

#include <algorithm>
#include <cstdlib>
#include <unistd.h>

#include <yaml-cpp/yaml.h>

#include "control/json_text.h"
#include "lib/base/time_text.h"
#include "lib/format/default_format.h"

namespace millrace::control {

using base::Error;
using base::Result;

namespace {

constexpr size_t kMaxTimeFormat = 128;  // bytes: its text stays below what a line or a header has room for

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

}  // namespace

namespace {

using table::FormatArgument;
using table::FormatCommand;
using table::FormatOp;
using table::FormatPiece;
using table::FormatQuote;
using table::FormatWhere;

std::vector<std::string_view> command_names(FormatWhere where) {
  std::vector<std::string_view> names;
  for (const FormatCommand& c : table::kFormatCommands)
    if (where == FormatWhere::kLog || c.where == FormatWhere::kAnywhere) names.push_back(c.name);
  return names;
}

std::vector<std::string_view> split_at(std::string_view words, char separator) {
  std::vector<std::string_view> out;
  for (;;) {
    const size_t at = words.find(separator);
    out.push_back(words.substr(0, at));
    if (at == std::string_view::npos) return out;
    words = words.substr(at + 1);
  }
}

// The words of commands that take some. Error: what they may be.
base::Status take_words(FormatPiece& p, std::string_view argument, bool given) {
  const std::vector<std::string_view> words = given ? split_at(argument, ':') : std::vector<std::string_view>{};
  struct Word {
    std::string_view name;
    uint8_t variant;
  };
  const auto one_of = [&](std::initializer_list<Word> choices) -> base::Status {
    if (!given) return {};
    for (const Word& w : choices) {
      if (words.size() != 1 || words[0] != w.name) continue;
      p.variant = w.variant;
      return {};
    }
    std::vector<std::string_view> names;
    for (const Word& w : choices) names.push_back(w.name);
    return Error{"\"" + std::string(argument) + "\" is none of " + list_of(names)};
  };
  switch (p.op) {
    case FormatOp::kPath: {
      p.variant = table::kPathWithQuery;
      if (words.size() > 2) return Error{"takes at most two words, as in %PATH(NQ:ORIG)%"};
      if (!words.empty()) {
        if (words[0] == "NQ") p.variant = 0;
        else if (words[0] != "WQ" && !words[0].empty()) return Error{"\"" + std::string(words[0]) + "\" is neither WQ nor NQ"};
      }
      if (words.size() < 2 || words[1].empty() || words[1] == "ORIG_OR_PATH") return {};
      if (words[1] != "ORIG" && words[1] != "PATH")
        return Error{"\"" + std::string(words[1]) + "\" is none of ORIG, PATH, ORIG_OR_PATH"};
      p.variant |= words[1] == "ORIG" ? table::kPathOriginal : table::kPathCurrent;
      return {};
    }
    case FormatOp::kGrpcStatus:
      return one_of({{"CAMEL_STRING", table::kGrpcCamel}, {"SNAKE_STRING", table::kGrpcSnake}, {"NUMBER", table::kGrpcNumber}});
    case FormatOp::kResponseCodeDetails:
      return one_of({{"ALLOW_WHITESPACES", table::kAllowWhitespace}});
    case FormatOp::kRequestedServerName:
      return one_of({{"SNI_ONLY", table::kServerNameSni},
                     {"SNI_FIRST", table::kServerNameSniFirst},
                     {"HOST_ONLY", table::kServerNameHost},
                     {"HOST_FIRST", table::kServerNameHostFirst}});
    case FormatOp::kCommonDuration: {
      if (words.size() < 2 || words.size() > 3)
        return Error{"takes two moments and a precision, as in %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%"};
      const auto moment = [](std::string_view name, table::FormatMoment* out) {
        for (const table::FormatMomentName& m : table::kFormatMoments)
          if (m.name == name) {
            *out = m.moment;
            return true;
          }
        return false;
      };
      const bool first = moment(words[0], &p.from);
      if (!first || !moment(words[1], &p.to)) {
        std::vector<std::string_view> names;
        for (const table::FormatMomentName& m : table::kFormatMoments) names.push_back(m.name);
        return Error{"\"" + std::string(words[first ? 1 : 0]) + "\" is none of the moments " + list_of(names)};
      }
      const std::string_view precision = words.size() == 3 ? words[2] : "ms";
      if (precision != "ms" && precision != "us" && precision != "ns")
        return Error{"\"" + std::string(precision) + "\" is none of ms, us, ns"};
      p.variant = precision == "ms" ? 0 : precision == "us" ? 1 : 2;
      return {};
    }
    default:
      return {};
  }
}

base::Status take_argument(FormatPiece& p, const FormatCommand& c, std::string_view argument, bool given) {
  switch (c.argument) {
    case FormatArgument::kNone:
      if (given) return Error{"takes no argument"};
      return {};
    case FormatArgument::kHeader: {
      const size_t question = argument.find('?');
      p.text = lower(argument.substr(0, question));
      if (question != std::string_view::npos) p.other = lower(argument.substr(question + 1));
      if (argument.empty()) return Error{"names no header, as in %REQ(USER-AGENT)%"};
      return {};
    }
    case FormatArgument::kName:
      p.text = argument;
      if (argument.empty()) return Error{"needs a name in parentheses"};
      return {};
    case FormatArgument::kTime: {
      if (argument.size() > kMaxTimeFormat)
        return Error{"its time format is longer than " + std::to_string(kMaxTimeFormat) + " bytes"};
      const size_t bad = base::check_time_format(argument);
      if (bad != std::string_view::npos)
        return Error{"\"" + std::string(argument.substr(bad, 3)) + "\" is no conversion of times that Millrace knows"};
      p.text = argument.empty() ? base::kDefaultTimeFormat : argument;
      return {};
    }
    case FormatArgument::kWords:
      return take_words(p, argument, given);
  }
  return {};
}

// What only control knows is text for a poll core.
void make_literal(FormatPiece& p) {
  if (p.op == FormatOp::kHostname) p.text = host_name();
  else if (const char* v = std::getenv(p.text.c_str()); v != nullptr) p.text = v;
  else p.text.clear();
  if (p.max_length != 0 && p.text.size() > p.max_length) p.text.resize(p.max_length);
  const FormatPiece literal{.op = FormatOp::kLiteral, .text = p.text};
  p = literal;
}

}  // namespace

const std::string& host_name() {
  static const std::string kName = [] {
    char name[256] = "-";
    gethostname(name, sizeof name - 1);
    return std::string(name);
  }();
  return kName;
}

Result<std::vector<AccessLogTemplate::Part>> AccessLogTemplate::parse(std::string_view format, FormatWhere where) {
  std::vector<Part> out;
  const auto literal = [&](std::string_view text) {
    if (out.empty() || out.back().op != Op::kLiteral) out.push_back({});
    out.back().text += text;
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      literal(format.substr(i, 1));
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == '%') {
      literal("%");
      ++i;
      continue;
    }
    // NAME, NAME(argument), NAME(argument):length; the argument may itself contain '%' (START_TIME).
    size_t at = i + 1;
    while (at < format.size() &&
           ((format[at] >= 'A' && format[at] <= 'Z') || (format[at] >= '0' && format[at] <= '9') || format[at] == '_'))
      ++at;
    const std::string name(format.substr(i + 1, at - i - 1));
    if (name.empty())
      return Error{"no operator follows the '%' at offset " + std::to_string(i) + "; a literal percent sign is written %%"};
    const std::string operation = "operator %" + name + "%";
    std::string_view argument;
    bool has_argument = false;
    if (at < format.size() && format[at] == '(') {
      const size_t end = format.find(')', at);
      if (end == std::string_view::npos) return Error{operation + ": its '(' is not closed by ')'"};
      argument = format.substr(at + 1, end - at - 1);
      has_argument = true;
      at = end + 1;
    }
    uint32_t max_length = 0;
    if (at < format.size() && format[at] == ':') {
      size_t end = ++at;
      while (end < format.size() && format[end] >= '0' && format[end] <= '9') ++end;
      if (end == at || end - at > 6) return Error{operation + ": a length follows ':', as in %REQ(USER-AGENT):100%"};
      max_length = static_cast<uint32_t>(std::stoul(std::string(format.substr(at, end - at))));
      at = end;
    }
    if (at >= format.size() || format[at] != '%')
      return Error{operation + ": not closed by '%'; a literal percent sign is written %%"};
    const auto* known = std::find_if(std::begin(table::kFormatCommands), std::end(table::kFormatCommands),
                                     [&](const FormatCommand& c) { return c.name == name; });
    if (known != std::end(table::kFormatCommands) && known->where == FormatWhere::kLog && where != FormatWhere::kLog)
      return Error{operation + " is known only in access logs"};
    if (known == std::end(table::kFormatCommands)) {
      const std::vector<std::string_view> names = command_names(where);
      const std::string near = nearest(name, names);
      return Error{operation + " is not supported by Millrace" + (near.empty() ? "" : "; did you mean %" + near + "%?") +
                   (near.empty() ? "; supported are " : " Supported are ") + list_of(names, " and ")};
    }
    Part p;
    p.op = known->op;
    p.max_length = max_length;
    if (max_length != 0 && (known->argument == FormatArgument::kNone || known->argument == FormatArgument::kTime))
      return Error{operation + ": takes no length"};
    if (const auto ok = take_argument(p, *known, argument, has_argument); !ok.ok()) return Error{operation + ": " + ok.error()};
    i = at;
    if (where != FormatWhere::kLog && (p.op == Op::kHostname || p.op == Op::kEnvironment)) {
      make_literal(p);
      literal(p.text);
      continue;
    }
    out.push_back(std::move(p));
  }
  return out;
}

Result<AccessLogTemplate> AccessLogTemplate::text(std::string_view format) {
  auto parts = parse(format.empty() ? format::kDefaultAccessLogFormat : format);
  if (!parts.ok()) return Error{parts.error()};
  AccessLogTemplate f;
  f.parts_ = std::move(parts).value();
  return f;
}

// JSON is YAML, and yaml-cpp keeps the keys in order.
struct AccessLogTemplate::Parser {
  static Result<Node> node(const YAML::Node& y, int depth, FormatWhere where) {
    Node n;
    if (depth > kMaxDepth) return Error{"json_format: nested deeper than " + std::to_string(kMaxDepth) + " levels"};
    if (y.IsMap() || y.IsSequence()) {
      n.kind = y.IsMap() ? Node::Kind::kObject : Node::Kind::kArray;
      for (auto it = y.begin(); it != y.end(); ++it) {
        auto child = node(y.IsMap() ? YAML::Node(it->second) : YAML::Node(*it), depth + 1, where);
        if (!child.ok()) return child;
        n.members.emplace_back(y.IsMap() ? it->first.Scalar() : std::string(), std::move(child).value());
      }
      return n;
    }
    if (y.IsNull()) {
      n.kind = Node::Kind::kRaw;
      n.raw = "null";
      return n;
    }
    if (y.Tag() == "?" || y.Tag().empty()) {  // a plain scalar: number or boolean
      n.kind = Node::Kind::kRaw;
      n.raw = y.Scalar();
      return n;
    }
    auto parts = parse(y.Scalar(), where);
    if (!parts.ok()) return Error{parts.error()};
    n.parts = std::move(parts).value();
    return n;
  }
};

namespace {

void put_text(std::vector<FormatPiece>& out, std::string_view text) {
  if (out.empty() || out.back().op != FormatOp::kLiteral || out.back().quote != FormatQuote::kNone) out.push_back({});
  out.back().text += text;
}

void put_shape(std::vector<FormatPiece>& out, FormatQuote quote, std::string text) {
  out.push_back({.op = FormatOp::kLiteral, .text = std::move(text), .quote = quote});
}

std::string inside_quotes(std::string_view text) {
  const std::string quoted = json_quote(text);
  return quoted.substr(1, quoted.size() - 2);
}

void put_value(std::vector<FormatPiece>& out, FormatPiece piece, bool alone) {
  bool number = piece.op == FormatOp::kGrpcStatus && piece.variant == table::kGrpcNumber;
  for (const FormatCommand& c : table::kFormatCommands)
    if (c.op == piece.op) number = number || c.type == table::FormatType::kNumber;
  piece.quote = !alone ? FormatQuote::kJsonPiece : number ? FormatQuote::kJsonNumber : FormatQuote::kJsonString;
  out.push_back(std::move(piece));
}

void flatten_value(const AccessLogTemplate::Node& n, std::vector<FormatPiece>& out) {
  if (n.kind == AccessLogTemplate::Node::Kind::kRaw) return put_text(out, n.raw);
  if (n.parts.size() == 1 && n.parts[0].op != FormatOp::kLiteral) return put_value(out, n.parts[0], true);
  put_text(out, "\"");
  for (const FormatPiece& p : n.parts) {
    if (p.op == FormatOp::kLiteral) put_text(out, inside_quotes(p.text));
    else put_value(out, p, false);
  }
  put_text(out, "\"");
}

bool is_bracket(const AccessLogTemplate::Node& n) {
  using Kind = AccessLogTemplate::Node::Kind;
  return n.kind == Kind::kObject || n.kind == Kind::kArray;
}

void flatten(const AccessLogTemplate::Node& n, std::vector<FormatPiece>& out) {
  if (!is_bracket(n)) return flatten_value(n, out);
  const bool object = n.kind == AccessLogTemplate::Node::Kind::kObject;
  put_text(out, object ? "{" : "[");
  for (size_t i = 0; i < n.members.size(); ++i) {
    if (i != 0) put_text(out, ",");
    if (object) put_text(out, json_quote(n.members[i].first) + ":");
    flatten(n.members[i].second, out);
  }
  put_text(out, object ? "}" : "]");
}

// With omit_empty_values. `key`: with its colon.
void flatten_omitting(const std::string& key, const AccessLogTemplate::Node& n, std::vector<FormatPiece>& out) {
  if (!is_bracket(n)) {
    if (n.kind == AccessLogTemplate::Node::Kind::kRaw && n.raw == "null") return;
    put_shape(out, FormatQuote::kJsonKey, key);
    return flatten_value(n, out);
  }
  const bool object = n.kind == AccessLogTemplate::Node::Kind::kObject;
  put_shape(out, FormatQuote::kJsonOpen, key + (object ? "{" : "["));
  for (const auto& [name, member] : n.members) flatten_omitting(object ? json_quote(name) + ":" : "", member, out);
  put_shape(out, FormatQuote::kJsonClose, object ? "}" : "]");
}

}  // namespace

std::vector<AccessLogTemplate::Part> AccessLogTemplate::flat(bool omit_empty_values) const {
  if (!json_) return parts_;
  std::vector<Part> out;
  if (omit_empty_values) flatten_omitting("", root_, out);
  else flatten(root_, out);
  put_text(out, "\n");
  return out;
}

Result<AccessLogTemplate> AccessLogTemplate::json(std::string_view object, FormatWhere where) {
  AccessLogTemplate f;
  f.json_ = true;
  try {
    const YAML::Node y = YAML::Load(std::string(object));
    if (!y.IsMap()) return Error{"json_format: must be an object"};
    auto root = Parser::node(y, 0, where);
    if (!root.ok()) return Error{root.error()};
    f.root_ = std::move(root).value();
  } catch (const YAML::Exception& e) {
    return Error{std::string("json_format: ") + e.what()};
  }
  return f;
}

}  // namespace millrace::control
