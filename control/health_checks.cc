#include "control/health_checks.h"

#include <algorithm>
#include <string>
#include <strings.h>
#include <utility>
#include <vector>

#include "control/access_log_template.h"
#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/upstream_http.h"
#include "control/validate_rules.h"
#include "lib/base/ascii.h"
#include "lib/base/bytes.h"

namespace millrace::control {

namespace {

using namespace rules;
using core::HealthCheck;
using Payload = HealthCheck::Payload;
using Statuses = google::protobuf::RepeatedPtrField<envoy::type::v3::Int64Range>;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// False: the text is not hexadecimal.
bool bytes_of(const Payload& p, std::string* out) {
  out->clear();
  if (p.payload_case() == Payload::kBinary) {
    *out = p.binary();
    return true;
  }
  if (p.text().size() % 2 != 0) return false;
  for (size_t i = 0; i < p.text().size(); i += 2) {
    const int high = digit(p.text()[i]), low = digit(p.text()[i + 1]);
    if (high < 0 || low < 0) return false;
    out->push_back(static_cast<char>(high * 16 + low));
  }
  return true;
}

bool payload(const Payload& p, const Path& at, ErrorSink& e, bool received) {
  const Path text(at, "text");
  std::string bytes;
  if (p.payload_case() == Payload::PAYLOAD_NOT_SET) return complain(text, e, "is required (or binary)");
  if (p.payload_case() == Payload::kText && p.text().empty()) return complain(text, e, "must not be empty");
  if (!bytes_of(p, &bytes)) return complain(text, e, "must be hexadecimal, two digits a byte");
  if (!received) return true;
  if (bytes.empty()) return complain(Path(at, "binary"), e, "must not be empty");
  if (bytes.size() > table::kMostHealthPayload)
    return complain(at, e, "must be at most " + std::to_string(table::kMostHealthPayload) + " bytes");
  return true;
}

bool payloads(const google::protobuf::RepeatedPtrField<Payload>& list, const Path& at, ErrorSink& e) {
  bool ok = true;
  for (int i = 0; i < list.size(); ++i) ok = payload(list[i], Path(at, "receive", i), e, true) && ok;
  return ok;
}

// HttpStatusChecker.
bool statuses(const Statuses& list, std::string_view field, const Path& at, ErrorSink& e) {
  constexpr int64_t kFirst = 100, kEnd = 600;
  bool ok = true;
  for (int i = 0; i < list.size(); ++i) {
    const Path here(at, field, i);
    if (list[i].start() >= list[i].end()) ok = complain(Path(here, "start"), e, "must be below end: [start, end)");
    else if (list[i].start() < kFirst) ok = complain(Path(here, "start"), e, "must be at least 100");
    else if (list[i].end() > kEnd) ok = complain(Path(here, "end"), e, "must be at most 600");
  }
  return ok;
}

std::string_view method_of(const HealthCheck::HttpHealthCheck& h) {
  return h.method() == core::METHOD_UNSPECIFIED ? "GET" : std::string_view(core::RequestMethod_Name(h.method()));
}
bool has_body(std::string_view method) { return method == "POST" || method == "PUT" || method == "PATCH" || method == "OPTIONS"; }

// The value of a header that is the same in each request. False: it has commands.
bool constant(const std::string& value, std::string* out) {
  const auto parts = AccessLogTemplate::parse(value, table::FormatWhere::kAnywhere);
  if (!parts.ok()) return false;
  out->clear();
  for (const table::FormatPiece& p : *parts) {
    if (p.op != table::FormatOp::kLiteral) return false;
    *out += p.text;
  }
  return true;
}

using Options = google::protobuf::RepeatedPtrField<core::HeaderValueOption>;

bool constant_headers(const Options& options, std::string_view field, const Path& at, ErrorSink& e) {
  bool ok = header_options(options, field, at, e);
  for (int i = 0; i < options.size(); ++i) {
    const Path option(at, field, i), header(option, "header"), value(header, "value");
    const std::string& text = options[i].header().value();
    std::string unused;
    if (AccessLogTemplate::parse(text, table::FormatWhere::kAnywhere).ok() && !constant(text, &unused))
      ok = complain(value, e, "commands are not supported in the requests of health checks yet; %% is a percent sign");
  }
  return ok;
}

// GrpcHealthCheckerImpl, and the factory that asks the cluster for HTTP/2.
bool grpc(const api::Cluster& c, const HealthCheck::GrpcHealthCheck& h, const Path& at, ErrorSink& e) {
  bool ok = header_value(h.authority(), Path(at, "authority"), e);
  ok = constant_headers(h.initial_metadata(), "initial_metadata", at, e) && ok;
  const UpstreamHttpOptions o = upstream_http_options(c);
  const bool http2 =
      o.has_auto_config() || o.has_use_downstream_protocol_config() || o.explicit_http_config().has_http2_protocol_options();
  return http2 ? ok : complain(at, e, "is for clusters that speak HTTP/2, and '" + c.name() + "' speaks HTTP/1.1");
}

bool http(const HealthCheck::HttpHealthCheck& h, const Path& at, ErrorSink& e) {
  bool ok = header_value(h.host(), Path(at, "host"), e);
  ok = not_empty(h.path(), Path(at, "path"), e) && header_value(h.path(), Path(at, "path"), e) && ok;
  if (!h.path().empty() && (h.path()[0] != '/' || h.path().find_first_of(" \t") != std::string::npos))
    ok = complain(Path(at, "path"), e, "must begin with / and hold no blanks");
  if (h.has_send()) {
    ok = payload(h.send(), Path(at, "send"), e, false) && ok;
    if (!has_body(method_of(h)))
      ok = complain(Path(at, "send"), e,
                    "is for methods with a body (POST, PUT, PATCH, OPTIONS), not " + std::string(method_of(h)));
  }
  ok = payloads(h.receive(), at, e) && ok;
  ok = constant_headers(h.request_headers_to_add(), "request_headers_to_add", at, e) && ok;
  ok = headers_to_remove(h.request_headers_to_remove(), "request_headers_to_remove", at, e) && ok;
  ok = statuses(h.expected_statuses(), "expected_statuses", at, e) && ok;
  return statuses(h.retriable_statuses(), "retriable_statuses", at, e) && ok;
}

}  // namespace

// validate.rules of HealthCheck, and what Envoy's checkers throw.
bool validate_health_checks(const api::Cluster& c, const Path& root, ErrorSink& e) {
  if (c.health_checks().empty()) return true;
  if (c.health_checks_size() > 1) return complain(Path(root, "health_checks", 1), e, "a cluster has at most one health check");
  const Path at(root, "health_checks", 0);
  const HealthCheck& h = c.health_checks(0);
  bool ok = true;
  const auto time = [&](bool required, bool has, const google::protobuf::Duration& d, std::string_view field) {
    if (required && !has) ok = complain(Path(at, field), e, "is required");
    else if (has) ok = duration(d, Path(at, field), e, 1) && ok;
  };
  time(true, h.has_timeout(), h.timeout(), "timeout");
  time(true, h.has_interval(), h.interval(), "interval");
  time(false, h.has_no_traffic_interval(), h.no_traffic_interval(), "no_traffic_interval");
  time(false, h.has_no_traffic_healthy_interval(), h.no_traffic_healthy_interval(), "no_traffic_healthy_interval");
  time(false, h.has_unhealthy_interval(), h.unhealthy_interval(), "unhealthy_interval");
  time(false, h.has_unhealthy_edge_interval(), h.unhealthy_edge_interval(), "unhealthy_edge_interval");
  time(false, h.has_healthy_edge_interval(), h.healthy_edge_interval(), "healthy_edge_interval");
  if (h.has_initial_jitter()) ok = duration(h.initial_jitter(), Path(at, "initial_jitter"), e) && ok;
  if (h.has_interval_jitter()) ok = duration(h.interval_jitter(), Path(at, "interval_jitter"), e) && ok;
  if (!h.has_unhealthy_threshold()) ok = complain(Path(at, "unhealthy_threshold"), e, "is required");
  if (!h.has_healthy_threshold()) ok = complain(Path(at, "healthy_threshold"), e, "is required");
  const Path of_http(at, "http_health_check"), of_tcp(at, "tcp_health_check");
  switch (h.health_checker_case()) {
    case HealthCheck::kHttpHealthCheck:
      ok = http(h.http_health_check(), of_http, e) && ok;
      break;
    case HealthCheck::kTcpHealthCheck:
      if (h.tcp_health_check().has_send()) ok = payload(h.tcp_health_check().send(), Path(of_tcp, "send"), e, false) && ok;
      ok = payloads(h.tcp_health_check().receive(), of_tcp, e) && ok;
      break;
    case HealthCheck::kGrpcHealthCheck:
      ok = grpc(c, h.grpc_health_check(), Path(at, "grpc_health_check"), e) && ok;
      break;
    case HealthCheck::HEALTH_CHECKER_NOT_SET:
      ok = complain(of_http, e, "is required (or tcp_health_check, or grpc_health_check)");
  }
  if (c.transport_socket().typed_config().type_url().ends_with("ProxyProtocolUpstreamTransport"))
    ok = complain(at, e, "health checks of a cluster whose connections begin with a PROXY protocol header are not supported yet");
  return ok;
}

bool validate_health_check_config(const envoy::config::endpoint::v3::Endpoint::HealthCheckConfig& c, const Path& at,
                                  ErrorSink& e) {
  constexpr uint32_t kLastPort = 65'535;
  bool ok = header_value(c.hostname(), Path(at, "hostname"), e);
  if (c.port_value() > kLastPort) ok = complain(Path(at, "port_value"), e, "must be at most 65535");
  return ok;
}

namespace {

table::Blob blob(const std::string& bytes, table::ObjectWriter& w) { return w.blob(base::as_bytes(bytes)); }

table::Array<table::HealthPayload> compile(const google::protobuf::RepeatedPtrField<Payload>& list, table::ObjectWriter& w) {
  std::vector<table::HealthPayload> out;
  for (const Payload& p : list) {
    std::string bytes;
    bytes_of(p, &bytes);
    out.push_back({blob(bytes, w)});
  }
  return w.array(out);
}

table::Array<table::StatusRange> compile(const Statuses& list, table::ObjectWriter& w) {
  std::vector<table::StatusRange> out;
  for (const auto& r : list) out.push_back({static_cast<uint16_t>(r.start()), static_cast<uint16_t>(r.end())});
  return w.array(out);
}

using Headers = std::vector<std::pair<std::string, std::string>>;

// HeaderParser::evaluateHeaders: what is removed goes first. As Envoy's header map has it names are lower case, and a further
// value of user-agent joins the one that is there.
void edit(const google::protobuf::RepeatedPtrField<std::string>& remove, const Options& add, Headers& headers) {
  using Option = core::HeaderValueOption;
  const auto same = [](const std::string& name) {
    return [&name](const auto& header) { return strcasecmp(header.first.c_str(), name.c_str()) == 0; };
  };
  for (const std::string& name : remove) std::erase_if(headers, same(name));
  for (const Option& o : add) {
    std::string value;
    constant(o.header().value(), &value);
    if (value.empty() && !o.keep_empty_value()) continue;
    std::string name = o.header().key();
    for (char& c : name) c = base::to_lower(c);
    auto action = o.append_action();
    if (o.has_append()) action = o.append().value() ? Option::APPEND_IF_EXISTS_OR_ADD : Option::OVERWRITE_IF_EXISTS_OR_ADD;
    const bool there = std::any_of(headers.begin(), headers.end(), same(name));
    if ((action == Option::ADD_IF_ABSENT && there) || (action == Option::OVERWRITE_IF_EXISTS && !there)) continue;
    if (action == Option::OVERWRITE_IF_EXISTS_OR_ADD || action == Option::OVERWRITE_IF_EXISTS) std::erase_if(headers, same(name));
    const auto agent = name == "user-agent" ? std::find_if(headers.begin(), headers.end(), same(name)) : headers.end();
    if (agent != headers.end()) agent->second += "," + value;
    else headers.emplace_back(name, value);
  }
}

void compile_http(const HealthCheck::HttpHealthCheck& h, const std::string& cluster, table::ObjectWriter& w,
                  table::HealthCheck* out) {
  const std::string method(method_of(h));
  out->kind = table::HealthCheckKind::kHttp;
  out->head_method = method == "HEAD";
  out->host = w.string(h.host().empty() ? cluster : h.host());
  Headers headers{{"user-agent", "Envoy/HC"}};
  std::string body, back = "\r\n";
  if (h.has_send()) bytes_of(h.send(), &body);
  edit(h.request_headers_to_remove(), h.request_headers_to_add(), headers);
  for (const auto& [name, value] : headers) back += name + ": " + value + "\r\n";
  out->http2 = h.codec_client_type() == envoy::type::v3::HTTP2;
  if (!body.empty() || (has_body(method) && out->http2 == 0)) back += "content-length: " + std::to_string(body.size()) + "\r\n";
  out->front = blob(method + " " + h.path() + " HTTP/1.1\r\nhost: ", w);
  out->back = blob(back + "\r\n" + body, w);
  out->receive = compile(h.receive(), w);
  out->expected = compile(h.expected_statuses(), w);
  out->retriable = compile(h.retriable_statuses(), w);
  if (h.has_response_buffer_size())
    out->receive_limit = static_cast<uint32_t>(std::min<uint64_t>(h.response_buffer_size().value(), UINT32_MAX));
}

// Grpc::Common::prepareHeaders, and a HealthCheckRequest.
void compile_grpc(const HealthCheck::GrpcHealthCheck& h, const std::string& cluster, table::ObjectWriter& w,
                  table::HealthCheck* out) {
  out->kind = table::HealthCheckKind::kGrpc;
  out->http2 = 1;
  out->host = w.string(h.authority().empty() ? cluster : h.authority());
  Headers headers{{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "Envoy/HC"}};
  edit({}, h.initial_metadata(), headers);
  std::string back = "\r\n", message;
  for (const auto& [name, value] : headers) back += name + ": " + value + "\r\n";
  if (!h.service_name().empty()) {
    constexpr char kServiceField = 0x0a;
    message.push_back(kServiceField);
    size_t size = h.service_name().size();
    for (; size >= 0x80; size >>= 7) message.push_back(static_cast<char>((size & 0x7f) | 0x80));
    message.push_back(static_cast<char>(size));
    message += h.service_name();
  }
  std::string frame(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(message.size() >> shift & 0xff));
  out->front = blob("POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: ", w);
  out->back = blob(back + "\r\n" + frame + message, w);
}

}  // namespace

table::HealthCheck compile_health_check(const api::Cluster& c, table::ObjectWriter& w) {
  const HealthCheck& h = c.health_checks(0);
  table::HealthCheck out;
  out.timeout_ms = ms_or(h.has_timeout(), h.timeout(), out.timeout_ms);
  out.interval_ms = ms_or(h.has_interval(), h.interval(), out.interval_ms);
  out.initial_jitter_ms = ms_or(h.has_initial_jitter(), h.initial_jitter(), 0);
  out.interval_jitter_ms = ms_or(h.has_interval_jitter(), h.interval_jitter(), 0);
  out.interval_jitter_percent = h.interval_jitter_percent();
  out.no_traffic_interval_ms = ms_or(h.has_no_traffic_interval(), h.no_traffic_interval(), out.no_traffic_interval_ms);
  out.no_traffic_healthy_interval_ms =
      ms_or(h.has_no_traffic_healthy_interval(), h.no_traffic_healthy_interval(), out.no_traffic_interval_ms);
  out.unhealthy_interval_ms = ms_or(h.has_unhealthy_interval(), h.unhealthy_interval(), out.interval_ms);
  out.unhealthy_edge_interval_ms = ms_or(h.has_unhealthy_edge_interval(), h.unhealthy_edge_interval(), out.unhealthy_interval_ms);
  out.healthy_edge_interval_ms = ms_or(h.has_healthy_edge_interval(), h.healthy_edge_interval(), out.interval_ms);
  out.unhealthy_threshold = h.unhealthy_threshold().value();
  out.healthy_threshold = h.healthy_threshold().value();
  out.reuse_connection = !h.has_reuse_connection() || h.reuse_connection().value();
  if (h.has_http_health_check()) {
    compile_http(h.http_health_check(), c.name(), w, &out);
    return out;
  }
  if (h.has_grpc_health_check()) {
    compile_grpc(h.grpc_health_check(), c.name(), w, &out);
    return out;
  }
  const HealthCheck::TcpHealthCheck& tcp = h.tcp_health_check();
  std::string bytes;
  out.kind = table::HealthCheckKind::kTcp;
  if (tcp.has_send()) bytes_of(tcp.send(), &bytes);
  out.front = blob(bytes, w);
  out.receive = compile(tcp.receive(), w);
  return out;
}

}  // namespace millrace::control
