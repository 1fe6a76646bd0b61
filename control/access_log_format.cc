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
using table::FormatQuote;

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

AccessLogFormat::AccessLogFormat(const AccessLogTemplate& t, bool omit_empty_values) {
  if (omit_empty_values) missing_ = "";
  for (const Part& p : t.flat(omit_empty_values)) {
    if (p.op == FormatOp::kLiteral) add_text(p);
    else add_value(p);
  }
}

Result<AccessLogFormat> AccessLogFormat::text(std::string_view format, bool omit_empty_values) {
  const auto t = AccessLogTemplate::text(format);
  if (!t.ok()) return Error{t.error()};
  return AccessLogFormat(*t, omit_empty_values);
}

Result<AccessLogFormat> AccessLogFormat::json(std::string_view object, bool omit_empty_values) {
  const auto t = AccessLogTemplate::json(object);
  if (!t.ok()) return Error{t.error()};
  return AccessLogFormat(*t, omit_empty_values);
}

void AccessLogFormat::add_text(const Part& part) {
  Step s;
  s.quote = part.quote;
  s.text = part.text;
  steps_.push_back(std::move(s));
}

void AccessLogFormat::add_value(const Part& part) {
  Step s;
  s.quote = part.quote;
  s.text = part.text;
  s.other = part.other;
  s.value = {part.op, part.variant, part.from, part.to, part.quote, 0, 0, part.max_length, {}, {}};
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
  format::JsonShape shape;
  for (const Step& s : steps_) {
    if (s.value.op == FormatOp::kLiteral) {
      switch (s.quote) {
        case FormatQuote::kJsonKey:
          shape.key(s.text);
          break;
        case FormatQuote::kJsonOpen:
          shape.open(s.text, out);
          break;
        case FormatQuote::kJsonClose:
          shape.close(s.text, out);
          break;
        default:
          shape.begin_value(out);
          out.put(s.text);
      }
      continue;
    }
    format::Step step = s.value;
    step.text = s.text;
    step.other = s.other;
    std::string_view v = format::evaluate(step, Source{*this, record, s.time}, buffer);
    const bool absent = format::is_absent(v);
    if (absent && s.quote >= FormatQuote::kJsonString) {
      if (!shape.skip_value()) out.put("null");
      continue;
    }
    shape.begin_value(out);
    if (absent) v = missing_;
    if (step.max_length != 0) v = v.substr(0, step.max_length);
    switch (s.quote) {
      case FormatQuote::kJsonPiece:
        put_json_text(v, out);
        break;
      case FormatQuote::kJsonString:
        out.put('"');
        put_json_text(v, out);
        out.put('"');
        break;
      default:
        out.put(v);
    }
  }
}

}  // namespace millrace::control
