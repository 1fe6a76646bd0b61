#include <algorithm>
#include <string>
#include <string_view>

#include "dataplane/table_loader.h"

namespace millrace::dataplane {

namespace {

// What every record carries anyway (lib/stats/events.h, StringId).
constexpr std::string_view kRecordedRequestHeaders[] = {
    ":method",    ":path",        ":authority", ":scheme",           "host",        "x-envoy-original-path", "x-forwarded-for",
    "user-agent", "x-request-id", "referer",    "x-forwarded-proto", "content-type"};
constexpr std::string_view kRecordedResponseHeaders[] = {":status", "x-envoy-upstream-service-time"};

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

template <size_t N>
void add(std::string_view name, const std::string_view (&recorded)[N], std::vector<std::string>& out) {
  if (name.empty() || name.size() > 255) return;
  std::string n = lower(name);
  if (std::find(std::begin(recorded), std::end(recorded), n) != std::end(recorded)) return;
  if (std::find(out.begin(), out.end(), n) == out.end()) out.push_back(std::move(n));
}

// "X?Y" of an operator's parentheses: both names.
template <size_t N>
void add_names(std::string_view inside, const std::string_view (&recorded)[N], std::vector<std::string>& out) {
  const size_t question = inside.find('?');
  add(inside.substr(0, question), recorded, out);
  if (question != std::string_view::npos) add(inside.substr(question + 1), recorded, out);
}

}  // namespace

void collect_access_log_fields(std::string_view format, AccessLogFields& out) {
  constexpr std::string_view kNothingRecorded[] = {":"};
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      ++at;
      continue;
    }
    if (format.substr(at, 2) == "%%") {
      at += 2;
      continue;
    }
    // %NAME(inside):LENGTH%, the whole of it without another percent sign.
    const size_t end = format.find('%', at + 1);
    if (end == std::string_view::npos) return;
    const std::string_view op = format.substr(at + 1, end - at - 1);
    at = end + 1;
    const size_t open = op.find('('), close = op.find(')');
    if (open == std::string_view::npos || close == std::string_view::npos || close < open) continue;
    const std::string_view name = op.substr(0, open), inside = op.substr(open + 1, close - open - 1);
    if (name == "REQ") add_names(inside, kRecordedRequestHeaders, out.request_headers);
    else if (name == "RESP") add_names(inside, kRecordedResponseHeaders, out.response_headers);
    else if (name == "TRAILER") add_names(inside, kNothingRecorded, out.response_trailers);
  }
}

}  // namespace millrace::dataplane
