#include "control/access_log_format.h"

#include <charconv>
#include <cstdio>
#include <optional>
#include <time.h>
#include <unistd.h>

#include "control/json_text.h"

namespace millrace::control {

using base::Error;
using base::Result;
using stats::AccessLogRecord;
using stats::AccessLogView;
using stats::StringId;

namespace {

void append_number(uint64_t v, std::string& out) {
  char buffer[20];
  const auto r = std::to_chars(buffer, buffer + sizeof buffer, v);
  out.append(buffer, r.ptr);
}

// Envoy formats times by strftime with %f (and %1f..%9f) for fractions of a second and %E…S left out; default
// "%Y-%m-%dT%H:%M:%E3SZ".
void append_time(uint64_t wall_ns, std::string_view format, std::string& out) {
  const time_t seconds = static_cast<time_t>(wall_ns / 1'000'000'000);
  const uint32_t nanos = static_cast<uint32_t>(wall_ns % 1'000'000'000);
  tm parts;
  gmtime_r(&seconds, &parts);
  char buffer[128];
  if (format.empty()) {
    const size_t n = strftime(buffer, sizeof buffer, "%Y-%m-%dT%H:%M:%S", &parts);
    out.append(buffer, n);
    std::snprintf(buffer, sizeof buffer, ".%03uZ", nanos / 1'000'000);
    out += buffer;
    return;
  }
  std::string piece;
  const auto flush = [&] {
    if (piece.empty()) return;
    const size_t n = strftime(buffer, sizeof buffer, piece.c_str(), &parts);
    out.append(buffer, n);
    piece.clear();
  };
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      piece += format[i];
      continue;
    }
    size_t digits = 0;
    size_t at = i + 1;
    if (format[at] >= '1' && format[at] <= '9' && at + 1 < format.size() && format[at + 1] == 'f')
      digits = static_cast<size_t>(format[at++] - '0');
    if (format[at] == 'f') {
      flush();
      char fraction[16];
      std::snprintf(fraction, sizeof fraction, "%09u", nanos);
      out.append(fraction, digits == 0 ? 9 : digits);
      i = at;
      continue;
    }
    if (format[at] == 's') {  // strftime would take local time for it
      flush();
      append_number(static_cast<uint64_t>(seconds), out);
      i = at;
      continue;
    }
    piece += '%';
    piece += format[++i];
  }
  flush();
}

void append_address(const base::IpAddress& a, uint16_t port, std::string& out) {
  const bool v6 = !a.is_v4();
  if (v6) out += '[';
  out += a.to_string();
  if (v6) out += ']';
  out += ':';
  append_number(port, out);
}

bool append_ms(uint64_t ns, std::string& out) {
  if (ns == stats::kNoTime) return false;
  append_number(ns / 1'000'000, out);
  return true;
}

// The cipher suites that this product negotiates, by IANA number (OpenSSL's names, as Envoy prints them).
const char* cipher_name(uint16_t id) {
  switch (id) {
    case 0x1301:
      return "TLS_AES_128_GCM_SHA256";
    case 0x1302:
      return "TLS_AES_256_GCM_SHA384";
    case 0x1303:
      return "TLS_CHACHA20_POLY1305_SHA256";
    case 0xc02b:
      return "ECDHE-ECDSA-AES128-GCM-SHA256";
    case 0xc02c:
      return "ECDHE-ECDSA-AES256-GCM-SHA384";
    case 0xc02f:
      return "ECDHE-RSA-AES128-GCM-SHA256";
    case 0xc030:
      return "ECDHE-RSA-AES256-GCM-SHA384";
    case 0xcca8:
      return "ECDHE-RSA-CHACHA20-POLY1305";
    case 0xcca9:
      return "ECDHE-ECDSA-CHACHA20-POLY1305";
    default:
      return nullptr;
  }
}

// Request headers and pseudo headers that every record carries.
std::optional<std::string_view> request_string(const AccessLogView& r, std::string_view name) {
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
    if (k.name == name) return r.string(k.id);
  return r.extra(StringId::kExtraRequestHeader, name);
}

std::string hostname() {
  char name[256] = "-";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace

Result<AccessLogFormat> AccessLogFormat::text(std::string_view format) {
  auto t = AccessLogTemplate::text(format);
  if (!t.ok()) return Error{t.error()};
  return AccessLogFormat(std::move(t).value());
}

Result<AccessLogFormat> AccessLogFormat::json(std::string_view object) {
  auto t = AccessLogTemplate::json(object);
  if (!t.ok()) return Error{t.error()};
  return AccessLogFormat(std::move(t).value());
}

bool AccessLogFormat::is_number(Op op) {
  switch (op) {
    case Op::kDuration:
    case Op::kRequestDuration:
    case Op::kResponseDuration:
    case Op::kResponseTxDuration:
    case Op::kResponseCode:
    case Op::kBytesReceived:
    case Op::kBytesSent:
    case Op::kDownstreamLocalPort:
    case Op::kDownstreamRemotePort:
    case Op::kDownstreamDirectPort:
    case Op::kConnectionId:
    case Op::kAttemptCount:
      return true;
    default:
      return false;
  }
}

bool AccessLogFormat::value(const Part& p, const AccessLogView& view, std::string& out) {
  const AccessLogRecord& r = view.fixed();
  const auto string = [&](std::optional<std::string_view> s) {
    if (!s || s->empty()) return false;
    out += *s;
    return true;
  };
  const auto address = [&](const base::IpAddress& a, uint16_t port) {
    if (port == 0 && a.is_unspecified()) return false;
    append_address(a, port, out);
    return true;
  };
  const auto number = [&](uint64_t v) {
    append_number(v, out);
    return true;
  };
  switch (p.op) {
    case Op::kLiteral:
      out += p.text;
      return true;
    case Op::kStartTime:
      append_time(r.start_wall_ns, p.text, out);
      return true;
    case Op::kDuration:
      return append_ms(r.duration_ns, out);
    case Op::kRequestDuration:
      return append_ms(r.request_rx_last_ns, out);
    case Op::kResponseDuration:
      return append_ms(r.upstream_rx_first_ns, out);
    case Op::kResponseTxDuration:
      if (r.upstream_rx_first_ns == stats::kNoTime) return false;
      return append_ms(r.duration_ns - r.upstream_rx_first_ns, out);
    case Op::kReq:
      if (string(request_string(view, p.text))) return true;
      return !p.other.empty() && string(request_string(view, p.other));
    case Op::kResp: {
      const auto find = [&](const std::string& name) -> std::optional<std::string_view> {
        if (name == "x-envoy-upstream-service-time") return view.string(StringId::kUpstreamServiceTime);
        return view.extra(StringId::kExtraResponseHeader, name);
      };
      if (p.text == ":status") return r.response_code != 0 && number(r.response_code);
      if (string(find(p.text))) return true;
      return !p.other.empty() && string(find(p.other));
    }
    case Op::kTrailer:
      if (string(view.extra(StringId::kExtraResponseTrailer, p.text))) return true;
      return !p.other.empty() && string(view.extra(StringId::kExtraResponseTrailer, p.other));
    case Op::kProtocol:
    case Op::kUpstreamProtocol: {
      const std::string_view name = to_string(p.op == Op::kProtocol ? r.protocol : r.upstream_protocol);
      if (name == "-") return false;
      out += name;
      return true;
    }
    case Op::kResponseCode:
      return number(r.response_code);
    case Op::kResponseCodeDetails:
      return string(view.string(StringId::kResponseCodeDetails));
    case Op::kResponseFlags: {
      if (view.flags().empty()) return string("-");  // also in JSON, as Envoy
      char buffer[stats::ResponseFlags::kMaxText];
      out.append(buffer, view.flags().format(buffer, sizeof buffer));
      return true;
    }
    case Op::kResponseFlagsLong: {
      bool any = false;
      for (uint32_t i = 0; i < stats::kResponseFlagCount; ++i) {
        if (!view.flags().has(static_cast<stats::ResponseFlag>(i))) continue;
        if (any) out += ',';
        out += stats::info(static_cast<stats::ResponseFlag>(i)).long_name;
        any = true;
      }
      return any || string("-");
    }
    case Op::kBytesReceived:
      return number(r.bytes_received);
    case Op::kBytesSent:
      return number(r.bytes_sent);
    case Op::kUpstreamHost:
      return address(r.upstream_remote, r.upstream_remote_port);
    case Op::kUpstreamLocalAddress:
      return address(r.upstream_local, r.upstream_local_port);
    case Op::kUpstreamCluster:
      return string(view.string(StringId::kClusterName));
    case Op::kRouteName:
      return string(view.string(StringId::kRouteName));
    case Op::kVirtualHost:
      return string(view.string(StringId::kVirtualHostName));
    case Op::kDownstreamRemote:
      return address(r.downstream_remote, r.downstream_remote_port);
    case Op::kDownstreamRemoteNoPort:
      out += r.downstream_remote.to_string();
      return true;
    case Op::kDownstreamRemotePort:
      return number(r.downstream_remote_port);
    case Op::kDownstreamLocal:
      return address(r.downstream_local, r.downstream_local_port);
    case Op::kDownstreamLocalNoPort:
      out += r.downstream_local.to_string();
      return true;
    case Op::kDownstreamLocalPort:
      return number(r.downstream_local_port);
    case Op::kDownstreamDirect:
      return address(r.downstream_direct_remote, r.downstream_direct_remote_port);
    case Op::kDownstreamDirectNoPort:
      out += r.downstream_direct_remote.to_string();
      return true;
    case Op::kDownstreamDirectPort:
      return number(r.downstream_direct_remote_port);
    case Op::kRequestedServerName:
      return string(view.string(StringId::kServerName));
    case Op::kTlsVersion:
      if (r.tls_version == 0) return false;
      out += r.tls_version == stats::kWireTls13 ? "TLSv1.3" : "TLSv1.2";
      return true;
    case Op::kTlsCipher: {
      const char* name = cipher_name(r.tls_cipher);
      if (name == nullptr) return false;
      out += name;
      return true;
    }
    case Op::kConnectionId:
      return number(r.connection_id);
    case Op::kHostname: {
      static const std::string kName = hostname();
      out += kName;
      return true;
    }
    case Op::kAttemptCount:
      return number(r.attempt_count);
    case Op::kFilterChainName:
      return string(view.string(StringId::kFilterChainName));
    case Op::kUpstreamTransportFailure:
      return string(view.string(StringId::kTransportFailure));
  }
  return false;
}

void AccessLogFormat::append(const AccessLogView& record, std::string& out) const {
  if (template_.is_json()) {
    append_node(template_.root(), record, out);
    out += '\n';
    return;
  }
  std::string piece;
  for (const Part& p : template_.parts()) {
    piece.clear();
    if (!value(p, record, piece)) piece = "-";
    if (p.max_length != 0 && piece.size() > p.max_length) piece.resize(p.max_length);
    out += piece;
  }
}

void AccessLogFormat::append_node(const Node& n, const AccessLogView& r, std::string& out) {
  switch (n.kind) {
    case Node::Kind::kRaw:
      out += n.raw;
      return;
    case Node::Kind::kParts: {
      std::string text;
      if (n.parts.size() == 1 && n.parts[0].op != Op::kLiteral) {  // one operator alone keeps its type
        if (!value(n.parts[0], r, text)) {
          out += "null";
          return;
        }
        if (n.parts[0].max_length != 0 && text.size() > n.parts[0].max_length) text.resize(n.parts[0].max_length);
        if (is_number(n.parts[0].op)) {
          out += text;
          return;
        }
      } else {
        for (const Part& p : n.parts) {
          std::string piece;
          if (!value(p, r, piece)) piece = "-";
          if (p.max_length != 0 && piece.size() > p.max_length) piece.resize(p.max_length);
          text += piece;
        }
      }
      out += json_quote(text);
      return;
    }
    case Node::Kind::kObject:
    case Node::Kind::kArray: {
      const bool object = n.kind == Node::Kind::kObject;
      out += object ? '{' : '[';
      bool first = true;
      for (const auto& [key, child] : n.members) {
        if (!first) out += ',';
        first = false;
        if (object) {
          out += json_quote(key);
          out += ':';
        }
        append_node(child, r, out);
      }
      out += object ? '}' : ']';
      return;
    }
  }
}

}  // namespace millrace::control
