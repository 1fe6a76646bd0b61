#include "control/access_log_format.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <random>

#include "control/json_text.h"
#include "lib/base/time.h"

namespace millrace::control {

using base::Error;
using base::Result;
using format::kAbsent;
using stats::AccessLogView;
using stats::StringId;
using table::FormatOp;

namespace {

// Request headers and pseudo headers that records may carry under an id of their own; 0: none of them.
uint8_t recorded_request(std::string_view name) {
  struct Known {
    std::string_view name;
    StringId id;
  };
  static constexpr Known kKnown[] = {
      {":method", StringId::kMethod},
      {":path", StringId::kPath},
      {":authority", StringId::kAuthority},
      {"host", StringId::kAuthority},
      {":scheme", StringId::kScheme},
      {"x-envoy-original-path", StringId::kOriginalPath},
      {"x-forwarded-for", StringId::kForwardedFor},
      {"user-agent", StringId::kUserAgent},
      {"x-request-id", StringId::kRequestId},
      {"referer", StringId::kReferer},
      {"x-forwarded-proto", StringId::kForwardedProto},
      {"content-type", StringId::kContentType},
  };
  for (const Known& k : kKnown)
    if (k.name == name) return static_cast<uint8_t>(k.id);
  return 0;
}

std::string_view or_absent(const std::optional<std::string_view>& v) { return v ? *v : kAbsent; }

void put_json_text(std::string_view s, LineBuffer& out) {
  const bool plain_text = std::all_of(s.begin(), s.end(), [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; });
  if (plain_text) return out.put(s);
  const std::string quoted = json_quote(s);
  out.put(std::string_view(quoted).substr(1, quoted.size() - 2));
}

}  // namespace

Result<AccessLogFormat> AccessLogFormat::text(std::string_view format, bool omit_empty_values) {
  const auto t = AccessLogTemplate::text(format);
  if (!t.ok()) return Error{t.error()};
  AccessLogFormat out;
  if (omit_empty_values) out.missing_ = "";
  for (const Part& p : t->parts()) {
    if (p.op == FormatOp::kLiteral) out.add_text(p.text);
    else out.add_value(Kind::kValue, p);
  }
  return out;
}

Result<AccessLogFormat> AccessLogFormat::json(std::string_view object, bool omit_empty_values) {
  const auto t = AccessLogTemplate::json(object);
  if (!t.ok()) return Error{t.error()};
  AccessLogFormat out;
  if (omit_empty_values) out.missing_ = "";
  out.add_node(t->root());
  out.add_text("\n");
  return out;
}

void AccessLogFormat::add_text(std::string_view text) {
  if (steps_.empty() || steps_.back().kind != Kind::kText) steps_.emplace_back();
  steps_.back().text += text;
}

void AccessLogFormat::add_value(Kind kind, const Part& part) {
  Step s;
  s.kind = kind;
  s.text = part.text;
  s.other = part.other;
  s.value = {part.op, part.variant, part.from, part.to, 0, 0, part.max_length, {}, {}};
  for (const table::FormatCommand& c : table::kFormatCommands)
    if (c.op == part.op) s.number = c.type == table::FormatType::kNumber;
  if (part.op == FormatOp::kGrpcStatus) s.number = part.variant == table::kGrpcNumber;
  if (part.op == FormatOp::kReq) {
    s.value.id = recorded_request(part.text);
    s.value.other_id = recorded_request(part.other);
  }
  if (part.op == FormatOp::kEnvironment) {
    const char* v = std::getenv(part.text.c_str());
    s.text = v != nullptr ? v : "";
  }
  if (part.op == FormatOp::kHostname) s.text = host_name();
  if (part.op >= FormatOp::kStartTime && part.op <= FormatOp::kEmitTimeLocal) {
    s.time = static_cast<uint32_t>(times_.size());
    times_.emplace_back();
    times_.back().local = part.op == FormatOp::kStartTimeLocal || part.op == FormatOp::kEmitTimeLocal;
  }
  steps_.push_back(std::move(s));
}

void AccessLogFormat::add_node(const Node& n) {
  switch (n.kind) {
    case Node::Kind::kRaw:
      return add_text(n.raw);
    case Node::Kind::kParts:
      if (n.parts.size() == 1 && n.parts[0].op != FormatOp::kLiteral) return add_value(Kind::kJsonValue, n.parts[0]);
      add_text("\"");
      for (const Part& p : n.parts) {
        if (p.op == FormatOp::kLiteral) {
          const std::string quoted = json_quote(p.text);
          add_text(std::string_view(quoted).substr(1, quoted.size() - 2));
        } else {
          add_value(Kind::kJsonPiece, p);
        }
      }
      return add_text("\"");
    case Node::Kind::kObject:
    case Node::Kind::kArray: {
      const bool object = n.kind == Node::Kind::kObject;
      add_text(object ? "{" : "[");
      for (size_t i = 0; i < n.members.size(); ++i) {
        if (i != 0) add_text(",");
        if (object) add_text(json_quote(n.members[i].first) + ":");
        add_node(n.members[i].second);
      }
      return add_text(object ? "}" : "]");
    }
  }
}

// What evaluate() asks of a record.
struct AccessLogFormat::Source {
  AccessLogFormat& owner;
  const AccessLogView& view;
  uint32_t time_index;

  const stats::AccessLogRecord& record() const { return view.fixed(); }
  std::string_view string(StringId id) const { return or_absent(view.string(id)); }
  std::string_view request_header(std::string_view name, uint8_t id = 0) const {
    if (id == 0) id = recorded_request(name);
    return id != 0 ? string(static_cast<StringId>(id)) : or_absent(view.extra(StringId::kExtraRequestHeader, name));
  }
  std::string_view response_header(std::string_view name) const {
    if (name == "x-envoy-upstream-service-time") return string(StringId::kUpstreamServiceTime);
    return or_absent(view.extra(StringId::kExtraResponseHeader, name));
  }
  std::string_view response_trailer(std::string_view name) const {
    return or_absent(view.extra(StringId::kExtraResponseTrailer, name));
  }
  // The text of a second is made once; within it only digits of the fraction change.
  std::string_view time(const format::Step& s, uint64_t wall_ns, char*) const {
    TimeText& t = owner.times_[time_index];
    const uint64_t second = wall_ns / base::kSecond;
    if (t.second == second && t.fractions.patchable) {
      base::patch_fractions(wall_ns, t.fractions, t.text);
      return {t.text, t.size};
    }
    base::TimeZone zone;
    tm local;
    if (t.local) {
      const auto clock = static_cast<time_t>(second);
      localtime_r(&clock, &local);
      zone = {static_cast<int32_t>(local.tm_gmtoff), local.tm_zone};
    }
    t.size = static_cast<uint32_t>(base::format_time(wall_ns, s.text, zone, t.text, sizeof t.text, &t.fractions));
    t.second = second;
    return {t.text, t.size};
  }
  std::string_view local_reply_body() const { return kAbsent; }  // only a local reply's own format knows it
  void random(uint64_t out[2]) const {
    static std::mt19937_64 generator{std::random_device{}()};
    out[0] = generator();
    out[1] = generator();
  }
};

void AccessLogFormat::append(const AccessLogView& record, LineBuffer& out) {
  char buffer[format::kValueRoom];
  for (const Step& s : steps_) {
    if (s.kind == Kind::kText) {
      out.put(s.text);
      continue;
    }
    format::Step step = s.value;
    step.text = s.text;
    step.other = s.other;
    std::string_view v = format::evaluate(step, Source{*this, record, s.time}, buffer);
    const bool absent = format::is_absent(v);
    if (absent && s.kind == Kind::kJsonValue) {
      out.put("null");
      continue;
    }
    if (absent) v = missing_;
    if (step.max_length != 0) v = v.substr(0, step.max_length);
    if (s.kind == Kind::kValue || (s.number && !absent)) {
      out.put(v);
    } else if (s.kind == Kind::kJsonPiece) {
      put_json_text(v, out);
    } else {
      out.put('"');
      put_json_text(v, out);
      out.put('"');
    }
  }
}

}  // namespace millrace::control
