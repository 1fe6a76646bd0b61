#include "dataplane/exchange_format.h"

#include <algorithm>
#include <cstring>

#include "dataplane/downstream.h"
#include "dataplane/http2_server.h"
#include "lib/format/json_shape.h"
#include "lib/tcp/tcp.h"

namespace millrace::dataplane {

using format::kAbsent;
using stats::StringId;
using table::FormatQuote;

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

// Bytes of the UTF-8 character that `s` begins with (RFC 3629); 0: it begins with none.
size_t utf8_bytes(std::string_view s) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const auto tail = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return i < s.size() && at(i) >= low && at(i) <= high;
  };
  const uint8_t c = at(0);
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c <= 0xdf) return tail(1) ? 2 : 0;
  if ((c & 0xf0) == 0xe0) return tail(1, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf) && tail(2) ? 3 : 0;
  if (c >= 0xf0 && c <= 0xf4) return tail(1, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf) && tail(2) && tail(3) ? 4 : 0;
  return 0;
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

bool append_json(std::string_view v, char* out, size_t room, size_t* used) {
  constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  const auto put = [&](std::string_view s) {
    if (s.size() > room - *used) return false;
    std::memcpy(out + *used, s.data(), s.size());
    *used += s.size();
    return true;
  };
  for (size_t i = 0; i < v.size();) {
    const auto c = static_cast<uint8_t>(v[i]);
    bool ok = true;
    size_t n = 1;
    if (c == '"' || c == '\\') {
      const char escaped[] = {'\\', v[i]};
      ok = put({escaped, 2});
    } else if (c < 0x20) {
      const char* const hex = "0123456789abcdef";
      const char escaped[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
      ok = c == '\n' ? put("\\n") : c == '\t' ? put("\\t") : c == '\r' ? put("\\r") : put({escaped, sizeof escaped});
    } else if (c < 0x80) {
      ok = put(v.substr(i, 1));
    } else {
      n = utf8_bytes(v.substr(i));
      ok = put(n == 0 ? kReplacement : v.substr(i, n));
      n = std::max<size_t>(n, 1);
    }
    if (!ok) return false;
    i += n;
  }
  return true;
}

bool names_something(format::FormatOp op) {
  return op == format::FormatOp::kRouteName || op == format::FormatOp::kVirtualHostName ||
         op == format::FormatOp::kUpstreamCluster;
}

static uint16_t grpc_status_of_response(const Exchange& ex) {
  uint16_t status = 0;
  if (const http::HeaderTable* t = response_trailers(ex);
      t != nullptr && parse_status(t->get(http::HeaderId::kGrpcStatus), &status))
    return status;
  if (ex.response_buffer != nullptr && parse_status(ex.response.headers.get(http::HeaderId::kGrpcStatus), &status)) return status;
  return static_cast<uint16_t>(http::grpc_status_of(ex.status));
}

uint16_t grpc_status(const Exchange& ex) { return !ex.is_grpc || ex.status == 0 ? UINT16_MAX : grpc_status_of_response(ex); }

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

LogFacts log_facts(const WorkerContext& ctx, const Exchange& ex) {
  LogFacts f;
  f.status = ex.status;
  f.duration_ms = (ctx.now - ex.started_at) / base::kMillisecond;
  f.flags = ex.flags.bits;
  f.grpc_status = grpc_status_of_response(ex);
  f.request = &ex.request;
  f.request_id = ex.request_id;
  f.random = ctx.random.next();
  return f;
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
  r.attempt_count = static_cast<uint16_t>(ex.upstream_port != 0 ? 1 + ex.retries : 0);  // an endpoint was chosen
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
    case StringId::kJa3:
      return ex.downstream->ja3();
    case StringId::kJa4:
      return ex.downstream->ja4();
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

namespace {

// What is written so far; once something has not fitted, nothing more is.
struct Written {
  char* out;
  size_t room, used = 0;
  bool fits = true;

  void put(std::string_view s) {
    fits = fits && s.size() <= room - used;
    if (!fits || s.empty()) return;
    std::memcpy(out + used, s.data(), s.size());
    used += s.size();
  }
  void put_json(std::string_view s) { fits = fits && append_json(s, out, room, &used); }
  size_t size() const { return used; }
  void truncate(size_t n) { used = std::min(used, n); }
};

void write_literal(const format::Step& s, format::JsonShape& shape, Written& w) {
  switch (s.quote) {
    case FormatQuote::kJsonKey:
      return shape.key(s.text);
    case FormatQuote::kJsonOpen:
      return shape.open(s.text, w);
    case FormatQuote::kJsonClose:
      return shape.close(s.text, w);
    default:
      shape.begin_value(w);
      w.put(s.text);
  }
}

void write_value(const format::Step& s, std::string_view v, std::string_view missing, format::JsonShape& shape, Written& w) {
  const bool absent = format::is_absent(v);
  if (absent && s.quote >= FormatQuote::kJsonString) {
    if (!shape.skip_value()) w.put("null");
    return;
  }
  shape.begin_value(w);
  if (absent) v = missing;
  if (s.max_length != 0) v = v.substr(0, s.max_length);
  if (s.quote == FormatQuote::kJsonString) w.put("\"");
  if (s.quote == FormatQuote::kJsonString || s.quote == FormatQuote::kJsonPiece) w.put_json(v);
  else w.put(v);
  if (s.quote == FormatQuote::kJsonString) w.put("\"");
}

// `step(i)`: the i-th of `count`.
template <class StepAt>
std::string_view format_steps(const WorkerContext& ctx, const Exchange& ex, uint32_t count, const StepAt& step, FormatUse use,
                              http::Scratch& scratch, std::string_view local_reply_body, std::string_view missing) {
  stats::AccessLogRecord record;
  bool looks_at_record = false;
  for (uint32_t i = 0; i < count; ++i) looks_at_record |= format::needs_record(step(i).op);
  if (looks_at_record) fill_record(ctx, ex, true, record);
  const Source source{ctx, ex, record, use != FormatUse::kRequestHeader, local_reply_body};
  const size_t room = scratch.left();
  Written w{scratch.allocate(room), room};
  format::JsonShape shape;
  char buffer[format::kValueRoom];
  for (uint32_t i = 0; i < count && w.fits; ++i) {
    const format::Step s = step(i);
    if (s.op == format::FormatOp::kLiteral) write_literal(s, shape, w);
    else write_value(s, format::evaluate(s, source, buffer), missing, shape, w);
  }
  if (!w.fits) {
    scratch.give_back(room);
    (void)scratch.allocate(room + 1);  // overflowed
    return {};
  }
  scratch.give_back(room - w.used);
  if (use == FormatUse::kBody) return {w.out, w.used};
  for (char& c : std::span(w.out, w.used))
    if ((static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7f) c = '_';
  return {w.out, w.used};
}

}  // namespace

std::string_view format_value(const WorkerContext& ctx, const Exchange& ex, std::span<const format::Step> steps, FormatUse use,
                              http::Scratch& scratch) {
  return format_steps(ctx, ex, static_cast<uint32_t>(steps.size()), [&](uint32_t i) { return steps[i]; }, use, scratch, {}, {});
}

std::string_view format_value(const WorkerContext& ctx, const Exchange& ex, const void* object,
                              const table::Array<table::FormatPart>& parts, FormatUse use, http::Scratch& scratch,
                              std::string_view local_reply_body, std::string_view missing) {
  return format_steps(
      ctx, ex, parts.count, [&](uint32_t i) { return format::step_of(object, parts.at(object, i)); }, use, scratch,
      local_reply_body, missing);
}

}  // namespace millrace::dataplane
