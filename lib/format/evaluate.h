// What one command of a format string gives: the one place that says so, for access logs (control, from a record) and for headers
// and local replies (poll cores, from an exchange). Commands: lib/table/format_ops.def. No heap: a value is a view of what the
// source has, or is made in the caller's buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "lib/base/time_text.h"
#include "lib/stats/events.h"
#include "lib/table/format_ops.h"
#include "lib/table/objects.h"

namespace millrace::format {

using table::FormatMoment;
using table::FormatOp;

// A FormatPart or FormatPiece with its strings as views.
struct Step {
  FormatOp op = FormatOp::kLiteral;
  uint8_t variant = 0;
  FormatMoment from = FormatMoment::kRequestFirst, to = FormatMoment::kRequestFirst;
  table::FormatQuote quote = table::FormatQuote::kNone;
  uint8_t id = 0, other_id = 0;  // of the headers `text` and `other` of kReq: what the source wants to be reminded of; 0: nothing
  uint32_t max_length = 0;       // bytes kept; 0: all
  std::string_view text, other;
};
inline Step step_of(const void* object, const table::FormatPart& p) {
  return {p.op, p.variant, p.from, p.to, p.quote, 0, 0, p.max_length, table::view(object, p.text), table::view(object, p.other)};
}

// A value that is not there: .data() is null. An empty value is something else.
inline constexpr std::string_view kAbsent{};
inline bool is_absent(std::string_view v) { return v.data() == nullptr; }

// Bytes that evaluate() may write: all response flags by their long names are the longest.
inline constexpr size_t kValueRoom = 2048;

// True when the command looks at the record, not only at headers: who has to make the record first can spare that.
bool needs_record(FormatOp op);

namespace detail {
std::string_view number(uint64_t v, char* buffer);
std::string_view ip_text(const base::IpAddress& a, char* buffer);
std::string_view address_text(const base::IpAddress& a, uint16_t port, char* buffer);
std::string_view uuid(uint64_t high, uint64_t low, char* buffer);
uint64_t moment(const stats::AccessLogRecord& r, FormatMoment m);
// What needs nothing but the record's fixed part.
std::string_view fixed_value(const Step& s, const stats::AccessLogRecord& r, char* buffer);
std::string_view without_port(std::string_view host);
std::string_view query_of(std::string_view path);                                              // absent without '?'
std::string_view query_parameter(std::string_view path, std::string_view name, char* buffer);  // percent-decoded
}  // namespace detail

// `Source` has:
//   const stats::AccessLogRecord& record() const;
//   std::string_view string(stats::StringId) const;             absent when it has none
//   std::string_view request_header(std::string_view, uint8_t id = 0) const;   by lower-case name, pseudo headers too; absent
//   when
//                                                                              there is none; `id` of the step, if it has one
//   std::string_view response_header(std::string_view) const;   all but ":status"
//   std::string_view response_trailer(std::string_view) const;
//   std::string_view time(const Step&, uint64_t wall_ns, char* buffer) const;   s.text is the time format
//   std::string_view local_reply_body() const;
//   void random(uint64_t out[2]) const;
template <class Source>
std::string_view evaluate(const Step& s, const Source& source, char* buffer) {
  using stats::StringId;
  const auto path = [&](uint8_t variant) -> std::string_view {
    std::string_view p = (variant & table::kPathCurrent) != 0 ? kAbsent : source.request_header("x-envoy-original-path");
    if (is_absent(p) && (variant & table::kPathOriginal) == 0) p = source.request_header(":path");
    return (variant & table::kPathWithQuery) != 0 ? p : p.substr(0, p.find('?'));
  };
  switch (s.op) {
    case FormatOp::kLiteral:
      return s.text;
    case FormatOp::kReq: {
      const std::string_view v = source.request_header(s.text, s.id);
      return !is_absent(v) || s.other.empty() ? v : source.request_header(s.other, s.other_id);
    }
    case FormatOp::kResp: {
      const auto header = [&](std::string_view name) {
        if (name != ":status") return source.response_header(name);
        return source.record().response_code != 0 ? detail::number(source.record().response_code, buffer) : kAbsent;
      };
      const std::string_view v = header(s.text);
      return !is_absent(v) || s.other.empty() ? v : header(s.other);
    }
    case FormatOp::kTrailer: {
      const std::string_view v = source.response_trailer(s.text);
      return !is_absent(v) || s.other.empty() ? v : source.response_trailer(s.other);
    }
    case FormatOp::kPath:
      return path(s.variant);
    case FormatOp::kQueryParam:
      return detail::query_parameter(path(table::kPathWithQuery), s.text, buffer);
    case FormatOp::kQueryParams:
      return detail::query_of(path(table::kPathWithQuery));
    case FormatOp::kStartTime:
    case FormatOp::kStartTimeLocal:
      return source.time(s, source.record().start_wall_ns, buffer);
    case FormatOp::kEmitTime:
    case FormatOp::kEmitTimeLocal:
      return source.time(s, source.record().start_wall_ns + source.record().duration_ns, buffer);
    case FormatOp::kResponseCodeDetails:
      return source.string(StringId::kResponseCodeDetails);
    case FormatOp::kConnectionTermination:
      return source.string(StringId::kConnectionTermination);
    case FormatOp::kLocalReplyBody:
      return source.local_reply_body();
    case FormatOp::kVirtualClusterName:  // there are none
      return kAbsent;
    case FormatOp::kUpstreamHostName:
    case FormatOp::kUpstreamHostNameNoPort: {
      const std::string_view name = source.string(StringId::kUpstreamHost);
      const bool port = s.op == FormatOp::kUpstreamHostName;
      if (!is_absent(name)) return port ? name : detail::without_port(name);
      const stats::AccessLogRecord& r = source.record();
      if (r.upstream_remote_port == 0) return kAbsent;
      return port ? detail::address_text(r.upstream_remote, r.upstream_remote_port, buffer)
                  : detail::ip_text(r.upstream_remote, buffer);
    }
    case FormatOp::kUpstreamCluster:
      return source.string(StringId::kClusterName);
    case FormatOp::kUpstreamTransportFailure:
      return source.string(StringId::kTransportFailure);
    case FormatOp::kRequestedServerName: {
      const std::string_view sni = source.string(StringId::kServerName);
      if (s.variant == table::kServerNameSni) return sni;
      const std::string_view authority = source.request_header(":authority");
      const std::string_view host = is_absent(authority) ? kAbsent : detail::without_port(authority);
      if (s.variant == table::kServerNameHost) return host;
      if (s.variant == table::kServerNameSniFirst) return !is_absent(sni) ? sni : host;
      return !is_absent(host) ? host : sni;
    }
    case FormatOp::kJa3:
      return source.string(StringId::kJa3);
    case FormatOp::kJa4:
      return source.string(StringId::kJa4);
    case FormatOp::kRouteName:
      return source.string(StringId::kRouteName);
    case FormatOp::kVirtualHostName:
      return source.string(StringId::kVirtualHostName);
    case FormatOp::kFilterChainName:
      return source.string(StringId::kFilterChainName);
    case FormatOp::kStreamId: {
      // Of a request its id; of what has none, a UUID that all its records share.
      const std::string_view id = source.string(StringId::kRequestId);
      return is_absent(id) ? detail::fixed_value(s, source.record(), buffer) : id;
    }
    case FormatOp::kUniqueId: {
      uint64_t random[2];
      source.random(random);
      return detail::uuid(random[0], random[1], buffer);
    }
    case FormatOp::kHostname:  // the text has been put in
    case FormatOp::kEnvironment:
      return s.text.empty() ? kAbsent : s.text;
    default:
      return detail::fixed_value(s, source.record(), buffer);
  }
}

}  // namespace millrace::format
