#include <algorithm>
#include <cctype>
#include <span>
#include <string>
#include <string_view>

#include "dataplane/table_loader.h"
#include "lib/format/default_format.h"
#include "lib/stats/events.h"
#include "lib/table/format_ops.h"

namespace millrace::dataplane {

namespace {

using stats::StringId;
using table::FormatOp;

constexpr uint64_t bit(StringId id) { return uint64_t{1} << static_cast<unsigned>(id); }

struct Recorded {
  std::string_view name;
  StringId id;
};
// Headers that have an id of their own in a record.
constexpr Recorded kRequestHeaders[] = {{":method", StringId::kMethod},
                                        {":path", StringId::kPath},
                                        {":authority", StringId::kAuthority},
                                        {":scheme", StringId::kScheme},
                                        {"host", StringId::kAuthority},
                                        {"x-envoy-original-path", StringId::kOriginalPath},
                                        {"x-forwarded-for", StringId::kForwardedFor},
                                        {"user-agent", StringId::kUserAgent},
                                        {"x-request-id", StringId::kRequestId},
                                        {"referer", StringId::kReferer},
                                        {"x-forwarded-proto", StringId::kForwardedProto},
                                        {"content-type", StringId::kContentType}};
constexpr Recorded kResponseHeaders[] = {{"x-envoy-upstream-service-time", StringId::kUpstreamServiceTime}};

// Strings that a command needs, beyond headers.
uint64_t strings_of(FormatOp op) {
  switch (op) {
    case FormatOp::kPath:
    case FormatOp::kQueryParam:
    case FormatOp::kQueryParams:
      return bit(StringId::kPath) | bit(StringId::kOriginalPath);
    case FormatOp::kResponseCodeDetails:
      return bit(StringId::kResponseCodeDetails);
    case FormatOp::kConnectionTermination:
      return bit(StringId::kConnectionTermination);
    case FormatOp::kUpstreamHostName:
    case FormatOp::kUpstreamHostNameNoPort:
      return bit(StringId::kUpstreamHost);
    case FormatOp::kUpstreamCluster:
      return bit(StringId::kClusterName);
    case FormatOp::kUpstreamTransportFailure:
      return bit(StringId::kTransportFailure);
    case FormatOp::kRequestedServerName:
      return bit(StringId::kServerName) | bit(StringId::kAuthority);
    case FormatOp::kJa3:
      return bit(StringId::kJa3);
    case FormatOp::kJa4:
      return bit(StringId::kJa4);
    case FormatOp::kRouteName:
      return bit(StringId::kRouteName);
    case FormatOp::kVirtualHostName:
      return bit(StringId::kVirtualHostName);
    case FormatOp::kFilterChainName:
      return bit(StringId::kFilterChainName);
    case FormatOp::kStreamId:
      return bit(StringId::kRequestId);
    default:
      return 0;
  }
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

void add(std::string_view name, std::span<const Recorded> recorded, uint64_t& strings, std::vector<std::string>& out) {
  if (name.empty() || name.size() > 255 || name == ":status") return;
  std::string n = lower(name);
  for (const Recorded& r : recorded)
    if (r.name == n) {
      strings |= bit(r.id);
      return;
    }
  if (std::find(out.begin(), out.end(), n) == out.end()) out.push_back(std::move(n));
}

}  // namespace

void collect_access_log_fields(std::string_view format, AccessLogFields& out) {
  if (format.empty()) format = format::kDefaultAccessLogFormat;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      ++at;
      continue;
    }
    if (format.substr(at, 2) == "%%") {
      at += 2;
      continue;
    }
    // %NAME%, %NAME(inside)%, %NAME(inside):LENGTH%; the inside of a time has percent signs of its own.
    size_t end = at + 1;
    while (end < format.size() && (std::isalnum(static_cast<unsigned char>(format[end])) != 0 || format[end] == '_')) ++end;
    const std::string_view name = format.substr(at + 1, end - at - 1);
    std::string_view inside;
    if (end < format.size() && format[end] == '(') {
      const size_t close = format.find(')', end);
      if (close == std::string_view::npos) return;
      inside = format.substr(end + 1, close - end - 1);
      end = close + 1;
    }
    end = format.find('%', end);
    if (end == std::string_view::npos) return;
    at = end + 1;
    const auto* command = std::find_if(std::begin(table::kFormatCommands), std::end(table::kFormatCommands),
                                       [&](const table::FormatCommand& c) { return c.name == name; });
    if (command == std::end(table::kFormatCommands)) continue;
    out.strings |= strings_of(command->op);
    out.sizes |= command->op == FormatOp::kRequestHeadersBytes || command->op == FormatOp::kResponseHeadersBytes ||
                 command->op == FormatOp::kResponseTrailersBytes;
    for (const std::string_view header :
         {inside.substr(0, inside.find('?')),
          inside.find('?') == std::string_view::npos ? std::string_view{} : inside.substr(inside.find('?') + 1)}) {
      if (command->op == FormatOp::kReq) add(header, kRequestHeaders, out.strings, out.request_headers);
      else if (command->op == FormatOp::kResp) add(header, kResponseHeaders, out.strings, out.response_headers);
      else if (command->op == FormatOp::kTrailer) add(header, {}, out.strings, out.response_trailers);
    }
  }
  out.names = (out.strings & (bit(StringId::kRouteName) | bit(StringId::kVirtualHostName) | bit(StringId::kClusterName))) != 0;
}

}  // namespace millrace::dataplane
