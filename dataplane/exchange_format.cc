#include "dataplane/exchange_format.h"

#include <algorithm>
#include <cstring>

#include "dataplane/downstream.h"
#include "dataplane/http2_server.h"
#include "lib/tcp/tcp.h"

namespace millrace::dataplane {

using format::kAbsent;
using stats::StringId;

namespace {

// "" is told from nothing by its address.
std::string_view present_or_absent(std::string_view v) { return v.empty() ? kAbsent : v; }

std::string_view value_of(const http::HeaderTable& headers, std::string_view name) {
  const http::Header* h = headers.find(name);
  if (h == nullptr) return kAbsent;
  return h->value.data() == nullptr ? std::string_view("") : h->value;
}

bool parse_status(std::string_view s, uint16_t* out) {
  constexpr uint32_t kMost = 9999;
  uint32_t v = 0;
  if (s.empty()) return false;
  for (const char c : s) {
    if (c < '0' || c > '9') return false;
    v = v * 10 + static_cast<uint32_t>(c - '0');
    if (v > kMost) return false;
  }
  *out = static_cast<uint16_t>(v);
  return true;
}

// %UPSTREAM_TRANSPORT_FAILURE_REASON%
std::string_view transport_failure(const Exchange& ex) {
  if (ex.detail == http::ResponseDetail::kResetBeforeResponseRefused) return "delayed_connect_error:_Connection_refused";
  if (ex.detail != http::ResponseDetail::kResetBeforeResponseRemoteConnectionFailure || ex.detail_text == nullptr) return kAbsent;
  const std::string_view all = ex.detail_view();  // "...{remote_connection_failure|REASON}"
  const size_t at = all.find('|');
  return at == std::string_view::npos ? kAbsent : all.substr(at + 1, all.size() - at - 2);
}

struct Source {
  const WorkerContext& ctx;
  const Exchange& ex;
  const stats::AccessLogRecord& fixed;
  bool response;
  std::string_view body;

  const stats::AccessLogRecord& record() const { return fixed; }
  std::string_view string(StringId id) const { return record_string(ex, id); }
  std::string_view request_header(std::string_view name, uint8_t = 0) const {
    const http::RequestHead& r = ex.request;
    if (name == ":method") return present_or_absent(r.method);
    if (name == ":path") return present_or_absent(r.path);
    if (name == ":authority" || name == "host") return present_or_absent(r.authority);
    if (name == ":scheme") return present_or_absent(r.scheme);
    return value_of(r.headers, name);
  }
  std::string_view response_header(std::string_view name) const {
    return response ? value_of(ex.response.headers, name) : kAbsent;
  }
  std::string_view response_trailer(std::string_view name) const {
    const http::HeaderTable* t = response_trailers(ex);
    return t != nullptr ? value_of(*t, name) : kAbsent;
  }
  std::string_view time(const format::Step& s, uint64_t wall_ns, char* buffer) const {
    return {buffer, base::format_time(wall_ns, s.text, {}, buffer, format::kValueRoom)};
  }
  std::string_view local_reply_body() const { return body.data() == nullptr ? std::string_view("") : body; }
  void random(uint64_t out[2]) const {
    out[0] = ctx.random.next();
    out[1] = ctx.random.next();
  }
};

}  // namespace

const http::HeaderTable* response_trailers(const Exchange& ex) {
  if (ex.response_body.trailers != nullptr) return &ex.response_body.trailer_table;
  // They are the stream's since they were given to it.
  return ex.stream != nullptr && ex.stream->response_trailer_buffer != nullptr ? &ex.stream->response_trailer_table : nullptr;
}

bool names_something(format::FormatOp op) {
  return op == format::FormatOp::kRouteName || op == format::FormatOp::kVirtualHostName ||
         op == format::FormatOp::kUpstreamCluster;
}

uint16_t grpc_status(const Exchange& ex) {
  if (!ex.is_grpc) return UINT16_MAX;
  uint16_t status = 0;
  if (const http::HeaderTable* t = response_trailers(ex);
      t != nullptr && parse_status(t->get(http::HeaderId::kGrpcStatus), &status))
    return status;
  if (ex.response_buffer != nullptr && parse_status(ex.response.headers.get(http::HeaderId::kGrpcStatus), &status)) return status;
  return ex.status == 0 ? UINT16_MAX : static_cast<uint16_t>(http::grpc_status_of(ex.status));
}

// Envoy's byte sizes: names and values, without what a codec puts between them.
static uint32_t bytes_of(const http::HeaderTable& headers) {
  size_t n = 0;
  for (const http::Header& h : headers) n += h.name.size() + h.value.size();
  return static_cast<uint32_t>(n);
}
static void count_heads(const Exchange& ex, stats::AccessLogRecord& r) {
  const auto pseudo = [](std::string_view name, std::string_view value) {
    return value.empty() ? 0 : static_cast<uint32_t>(name.size() + value.size());
  };
  r.request_headers_bytes = bytes_of(ex.request.headers) + pseudo(":method", ex.request.method) +
                            pseudo(":path", ex.request.path) + pseudo(":authority", ex.request.authority) +
                            pseudo(":scheme", ex.request.scheme);
  if (ex.response_buffer != nullptr && ex.status != 0)
    r.response_headers_bytes = bytes_of(ex.response.headers) + pseudo(":status", "200");
  if (ex.close_told && r.response_headers_bytes != 0) r.response_headers_bytes += pseudo("connection", "close");
  if (const http::HeaderTable* t = response_trailers(ex); t != nullptr) r.response_trailers_bytes = bytes_of(*t);
}

void fill_record(const WorkerContext& ctx, const Exchange& ex, bool sizes, stats::AccessLogRecord& r) {
  const DownstreamSession& d = *ex.downstream;
  const auto since = [&](TimeNs t) { return t == 0 || t < ex.started_at ? stats::kNoTime : t - ex.started_at; };
  r.start_wall_ns = ex.started_wall_ns;
  r.duration_ns = ctx.now - ex.started_at;
  r.request_rx_last_ns = since(ex.request_complete_at);
  r.upstream_tx_first_ns = since(ex.upstream_sent_at);
  r.upstream_tx_last_ns =
      ex.upstream_sent_at == 0 ? stats::kNoTime : since(std::max(ex.upstream_sent_at, ex.request_complete_at));
  r.upstream_rx_first_ns = since(ex.first_upstream_byte_at);
  r.upstream_rx_last_ns = ex.first_upstream_byte_at == 0 ? stats::kNoTime : r.duration_ns;
  r.downstream_tx_first_ns = since(ex.downstream_first_byte_at);
  r.upstream_ready_ns = since(ex.upstream_connected_at);
  r.bytes_received = ex.bytes_received;
  r.bytes_sent = ex.bytes_sent;
  if (sizes) count_heads(ex, r);
  r.flags = ex.flags.bits;
  r.connection_id = d.connection_id;
  r.listener = d.policy->listener;
  r.filter_chain = d.policy->chain;
  r.route_table = d.policy->http.route_table;
  r.virtual_host = ex.virtual_host;
  r.cluster = ex.route.cluster;
  r.route_rank = ex.route_rank;
  const tcp::FourTuple& tuple = d.tuple();
  r.downstream_direct_remote = d.connection->tuple().remote;
  r.downstream_direct_remote_port = d.connection->tuple().remote_port;
  const bool trusted = !ex.origin.client.is_unspecified();
  r.downstream_remote = trusted ? ex.origin.client : tuple.remote;
  r.downstream_remote_port = trusted ? ex.origin.client_port : tuple.remote_port;
  r.downstream_local = tuple.local;
  r.downstream_local_port = tuple.local_port;
  r.upstream_remote = ex.upstream_address;
  r.upstream_remote_port = ex.upstream_port;
  r.upstream_local = ex.upstream_local_address;
  r.upstream_local_port = ex.upstream_local_port;
  r.response_code = ex.status;
  r.grpc_status = grpc_status(ex);
  r.protocol = ex.stream != nullptr                           ? stats::Protocol::kHttp2
               : ex.request.version == http::Version::kHttp10 ? stats::Protocol::kHttp10
                                                              : stats::Protocol::kHttp11;
  if (ex.upstream_sent_at != 0) r.upstream_protocol = ex.upstream_http2 ? stats::Protocol::kHttp2 : stats::Protocol::kHttp11;
  r.attempt_count = ex.upstream_port != 0 ? 1 : 0;  // an endpoint was chosen
  r.worker = static_cast<uint16_t>(ctx.worker);
  r.tcp_handshake_rtt_us = d.handshake_rtt_us;
  r.tcp_rtt_us = d.connection->tcb.srtt_us;
  r.tcp_retransmits = tcp::retransmits(d.connection->tcb);
  if (ex.response_phase != ResponsePhase::kComplete) r.record_flags |= stats::kFlagResponseCut;
  if (d.tls_terminated) {
    r.record_flags |= stats::kFlagDownstreamTls;
    r.tls_version = d.tls_version;
    r.tls_cipher = d.tls_cipher;
    if (d.tls_resumed) r.record_flags |= stats::kFlagTlsResumed;
  }
}

std::string_view record_string(const Exchange& ex, StringId id) {
  using http::HeaderId;
  const http::HeaderTable& headers = ex.request.headers;
  const auto header = [&](HeaderId h) { return present_or_absent(headers.get(h)); };
  switch (id) {
    case StringId::kResponseCodeDetails:
      return present_or_absent(ex.detail_view());
    case StringId::kTransportFailure:
      return transport_failure(ex);
    case StringId::kMethod:
      return present_or_absent(ex.request.method);
    case StringId::kPath:
      return present_or_absent(ex.request.path);
    case StringId::kOriginalPath:
      return header(HeaderId::kXEnvoyOriginalPath);
    case StringId::kAuthority:
      return present_or_absent(ex.request.authority);
    case StringId::kForwardedFor:
      return header(HeaderId::kXForwardedFor);
    case StringId::kUserAgent:
      return header(HeaderId::kUserAgent);
    case StringId::kRequestId:
      return present_or_absent(ex.request_id);
    case StringId::kReferer:
      return header(HeaderId::kReferer);
    case StringId::kUpstreamServiceTime:
      return present_or_absent(ex.upstream_service_time);
    case StringId::kRouteName:
      return present_or_absent(ex.route.route_name);
    case StringId::kClusterName:
      return present_or_absent(ex.route.cluster_name);
    case StringId::kVirtualHostName:
      return present_or_absent(ex.route.virtual_host_name);
    case StringId::kServerName:
      return present_or_absent(ex.downstream->server_name());
    case StringId::kScheme:
      return present_or_absent(ex.request.scheme);
    case StringId::kForwardedProto:
      return header(HeaderId::kXForwardedProto);
    case StringId::kContentType:
      return header(HeaderId::kContentType);
    case StringId::kUpstreamHost:
      return present_or_absent(ex.route.upstream_host_name);
    default:
      return kAbsent;
  }
}

std::string_view format_value(const WorkerContext& ctx, const Exchange& ex, std::span<const format::Step> steps, FormatUse use,
                              http::Scratch& scratch, std::string_view local_reply_body, std::string_view missing) {
  stats::AccessLogRecord record;
  if (std::any_of(steps.begin(), steps.end(), [](const format::Step& s) { return format::needs_record(s.op); }))
    fill_record(ctx, ex, true, record);
  const Source source{ctx, ex, record, use != FormatUse::kRequestHeader, local_reply_body};
  const size_t room = scratch.left();
  char* const out = scratch.allocate(room);
  size_t used = 0;
  bool fits = true;
  char buffer[format::kValueRoom];
  for (const format::Step& s : steps) {
    std::string_view v = format::evaluate(s, source, buffer);
    if (format::is_absent(v)) v = missing;
    if (s.max_length != 0) v = v.substr(0, s.max_length);
    fits = fits && v.size() <= room - used;
    if (!fits) break;
    if (!v.empty()) std::memcpy(out + used, v.data(), v.size());
    used += v.size();
  }
  if (!fits) {
    scratch.give_back(room);
    (void)scratch.allocate(room + 1);  // overflowed
    return {};
  }
  scratch.give_back(room - used);
  if (use == FormatUse::kBody) return {out, used};
  for (char& c : std::span(out, used))
    if ((static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7f) c = '_';
  return {out, used};
}

}  // namespace millrace::dataplane
