#include "lib/format/evaluate.h"

#include "lib/base/hash.h"

namespace millrace::format {

namespace detail {

namespace {

char* put_number(char* to, uint32_t v) {
  char digits[10];
  uint32_t n = 0;
  do {
    digits[n++] = static_cast<char>('0' + v % 10);
    v /= 10;
  } while (v != 0);
  while (n != 0) *to++ = digits[--n];
  return to;
}
char* put_ip(char* to, const base::IpAddress& a) {
  constexpr size_t kMostText = 46;
  if (!a.is_v4()) return to + a.format(to, kMostText);
  for (size_t i = 12; i < 16; ++i) {
    to = put_number(to, a.bytes[i]);
    *to++ = '.';
  }
  return to - 1;
}

std::string_view ms(uint64_t ns, char* buffer) { return ns == stats::kNoTime ? kAbsent : number(ns / 1'000'000, buffer); }
// From one moment after the start to another, where both came and in that order.
std::string_view between(uint64_t from, uint64_t to, uint64_t unit_ns, char* buffer) {
  if (from == stats::kNoTime || to == stats::kNoTime || to < from) return kAbsent;
  return number((to - from) / unit_ns, buffer);
}

// The cipher suites that this product negotiates, by IANA number (OpenSSL's names, as Envoy prints them).
std::string_view cipher_name(uint16_t id) {
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
      return kAbsent;
  }
}

struct GrpcNames {
  std::string_view camel, snake;
};
constexpr GrpcNames kGrpcNames[] = {{"OK", "OK"},
                                    {"Canceled", "CANCELLED"},
                                    {"Unknown", "UNKNOWN"},
                                    {"InvalidArgument", "INVALID_ARGUMENT"},
                                    {"DeadlineExceeded", "DEADLINE_EXCEEDED"},
                                    {"NotFound", "NOT_FOUND"},
                                    {"AlreadyExists", "ALREADY_EXISTS"},
                                    {"PermissionDenied", "PERMISSION_DENIED"},
                                    {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
                                    {"FailedPrecondition", "FAILED_PRECONDITION"},
                                    {"Aborted", "ABORTED"},
                                    {"OutOfRange", "OUT_OF_RANGE"},
                                    {"Unimplemented", "UNIMPLEMENTED"},
                                    {"Internal", "INTERNAL"},
                                    {"Unavailable", "UNAVAILABLE"},
                                    {"DataLoss", "DATA_LOSS"},
                                    {"Unauthenticated", "UNAUTHENTICATED"}};

std::string_view grpc_status(uint16_t status, uint8_t variant, char* buffer) {
  if (status == UINT16_MAX) return kAbsent;
  if (variant == table::kGrpcNumber || status >= std::size(kGrpcNames)) return number(status, buffer);
  return variant == table::kGrpcSnake ? kGrpcNames[status].snake : kGrpcNames[status].camel;
}

std::string_view flags_text(uint64_t bits, bool by_long_name, bool of_request, char* buffer) {
  stats::ResponseFlags flags;
  flags.bits = bits;
  if (flags.empty()) return "-";  // also in JSON, as Envoy
  if (!by_long_name) return {buffer, flags.format(buffer, stats::ResponseFlags::kMaxText, of_request)};
  char* p = buffer;
  const auto add = [&](stats::ResponseFlag flag) {
    if (!flags.has(flag)) return;
    if (p != buffer) *p++ = ',';
    const std::string_view name = stats::info(flag).long_name;
    p += name.copy(p, name.size());
  };
  constexpr auto kFirst = stats::ResponseFlag::kUpstreamRetryLimitExceeded;  // as the short names: ResponseFlags::format()
  if (of_request) add(kFirst);
  for (uint32_t i = 0; i < stats::kResponseFlagCount; ++i)
    if (!of_request || static_cast<stats::ResponseFlag>(i) != kFirst) add(static_cast<stats::ResponseFlag>(i));
  return {buffer, static_cast<size_t>(p - buffer)};
}

}  // namespace

std::string_view number(uint64_t v, char* buffer) {
  char* const end = buffer + 20;
  char* p = end;
  do {
    *--p = static_cast<char>('0' + v % 10);
    v /= 10;
  } while (v != 0);
  return {p, static_cast<size_t>(end - p)};
}

std::string_view ip_text(const base::IpAddress& a, char* buffer) {
  return {buffer, static_cast<size_t>(put_ip(buffer, a) - buffer)};
}

std::string_view address_text(const base::IpAddress& a, uint16_t port, char* buffer) {
  const bool v6 = !a.is_v4();
  char* p = buffer;
  if (v6) *p++ = '[';
  p = put_ip(p, a);
  if (v6) *p++ = ']';
  *p++ = ':';
  p = put_number(p, port);
  return {buffer, static_cast<size_t>(p - buffer)};
}

std::string_view uuid(uint64_t high, uint64_t low, char* buffer) {
  high = (high & ~uint64_t{0xf000}) | 0x4000;  // RFC 9562 5.4
  low = (low & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;
  char* p = buffer;
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20) *p++ = '-';
    const uint64_t half = digit < 16 ? high : low;
    *p++ = "0123456789abcdef"[half >> (60 - 4 * (digit & 15)) & 15];
  }
  return {buffer, static_cast<size_t>(p - buffer)};
}

uint64_t moment(const stats::AccessLogRecord& r, FormatMoment m) {
  switch (m) {
    case FormatMoment::kRequestFirst:
      return 0;
    case FormatMoment::kRequestLast:
      return r.request_rx_last_ns;
    case FormatMoment::kConnectStart:
      return r.upstream_connect_start_ns;
    case FormatMoment::kConnectEnd:
      return r.upstream_connect_end_ns;
    case FormatMoment::kUpstreamTxFirst:
      return r.upstream_tx_first_ns;
    case FormatMoment::kUpstreamTxLast:
      return r.upstream_tx_last_ns;
    case FormatMoment::kUpstreamRxFirst:
      return r.upstream_rx_first_ns;
    case FormatMoment::kUpstreamRxLast:
      return r.upstream_rx_last_ns;
    case FormatMoment::kResponseFirst:
      return r.downstream_tx_first_ns;
    case FormatMoment::kResponseLast:
      return (r.record_flags & stats::kFlagResponseCut) != 0 ? stats::kNoTime : r.duration_ns;
  }
  return stats::kNoTime;
}

std::string_view without_port(std::string_view host) {
  const size_t colon = host.rfind(':');
  return colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos ? host.substr(0, colon) : host;
}

std::string_view query_of(std::string_view path) {
  const size_t question = path.find('?');
  return question == std::string_view::npos ? kAbsent : path.substr(question + 1);
}

namespace {

uint32_t hex_digit(char c) {
  return c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
         : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
         : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                : 16;
}
// Percent-decoded into `buffer`; what is no escape stays. Cut at kValueRoom.
std::string_view decoded(std::string_view v, char* buffer) {
  size_t n = 0;
  for (size_t i = 0; i < v.size() && n < kValueRoom; ++i) {
    if (v[i] == '%' && v.size() - i > 2 && hex_digit(v[i + 1]) < 16 && hex_digit(v[i + 2]) < 16) {
      buffer[n++] = static_cast<char>(hex_digit(v[i + 1]) << 4 | hex_digit(v[i + 2]));
      i += 2;
    } else {
      buffer[n++] = v[i];
    }
  }
  return {buffer, n};
}

}  // namespace

// The first parameter of that name.
std::string_view query_parameter(std::string_view path, std::string_view name, char* buffer) {
  std::string_view query = query_of(path);
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    const size_t equals = one.find('=');
    if (one.substr(0, equals) == name)
      return equals == std::string_view::npos ? std::string_view("") : decoded(one.substr(equals + 1), buffer);
    if (one.size() == query.size()) break;
    query.remove_prefix(one.size() + 1);
  }
  return kAbsent;
}

std::string_view fixed_value(const Step& s, const stats::AccessLogRecord& r, char* buffer) {
  constexpr uint64_t kUs = 1000, kMs = 1'000'000;
  const bool connected = r.upstream_ready_ns != stats::kNoTime;
  const auto unless_none = [&](uint64_t v) { return v == 0 ? kAbsent : number(v, buffer); };
  switch (s.op) {
    case FormatOp::kDuration:
      return ms(r.duration_ns, buffer);
    case FormatOp::kRequestDuration:
      return ms(r.request_rx_last_ns, buffer);
    case FormatOp::kRequestTxDuration:
      return ms(r.upstream_tx_last_ns, buffer);
    case FormatOp::kResponseDuration:
      return ms(r.upstream_rx_first_ns, buffer);
    case FormatOp::kResponseTxDuration:
      return between(r.upstream_rx_first_ns, moment(r, FormatMoment::kResponseLast), kMs, buffer);
    case FormatOp::kHandshakeDuration:
      return ms(r.tls_handshake_ns, buffer);
    case FormatOp::kPoolReadyDuration:
      return ms(r.upstream_ready_ns, buffer);
    case FormatOp::kCommonDuration:
      return between(moment(r, s.from), moment(r, s.to), table::kPrecisionNs[s.variant], buffer);
    case FormatOp::kProtocol:
    case FormatOp::kUpstreamProtocol: {
      const std::string_view name = to_string(s.op == FormatOp::kProtocol ? r.protocol : r.upstream_protocol);
      return name == "-" ? kAbsent : name;
    }
    case FormatOp::kResponseCode:
      return number(r.response_code, buffer);
    case FormatOp::kResponseFlags:
      return flags_text(r.flags, false, (r.record_flags & stats::kFlagConnectionRecord) == 0, buffer);
    case FormatOp::kResponseFlagsLong:
      return flags_text(r.flags, true, (r.record_flags & stats::kFlagConnectionRecord) == 0, buffer);
    case FormatOp::kGrpcStatus:
      return grpc_status(r.grpc_status, s.variant, buffer);
    case FormatOp::kGrpcStatusNumber:
      return grpc_status(r.grpc_status, table::kGrpcNumber, buffer);
    case FormatOp::kBytesReceived:
      return number(r.bytes_received, buffer);
    case FormatOp::kBytesSent:
      return number(r.bytes_sent, buffer);
    case FormatOp::kRequestHeadersBytes:
      return number(r.request_headers_bytes, buffer);
    case FormatOp::kResponseHeadersBytes:
      return number(r.response_headers_bytes, buffer);
    case FormatOp::kResponseTrailersBytes:
      return number(r.response_trailers_bytes, buffer);
    case FormatOp::kUpstreamHost:
      return r.upstream_remote_port == 0 ? kAbsent : address_text(r.upstream_remote, r.upstream_remote_port, buffer);
    case FormatOp::kUpstreamRemote:  // unlike the host, which was only chosen, it must have been reached
      return !connected ? kAbsent : address_text(r.upstream_remote, r.upstream_remote_port, buffer);
    case FormatOp::kUpstreamRemoteNoPort:
      return !connected ? kAbsent : ip_text(r.upstream_remote, buffer);
    case FormatOp::kUpstreamPort:
      return !connected ? kAbsent : number(r.upstream_remote_port, buffer);
    case FormatOp::kUpstreamLocal:
      return r.upstream_local_port == 0 ? kAbsent : address_text(r.upstream_local, r.upstream_local_port, buffer);
    case FormatOp::kUpstreamLocalNoPort:
      return r.upstream_local_port == 0 ? kAbsent : ip_text(r.upstream_local, buffer);
    case FormatOp::kUpstreamLocalPort:
      return unless_none(r.upstream_local_port);
    case FormatOp::kAttemptCount:
      return number(r.attempt_count, buffer);
    case FormatOp::kDownstreamRemote:
      return address_text(r.downstream_remote, r.downstream_remote_port, buffer);
    case FormatOp::kDownstreamRemoteNoPort:
      return ip_text(r.downstream_remote, buffer);
    case FormatOp::kDownstreamRemotePort:
      return number(r.downstream_remote_port, buffer);
    case FormatOp::kDownstreamDirect:
      return address_text(r.downstream_direct_remote, r.downstream_direct_remote_port, buffer);
    case FormatOp::kDownstreamDirectNoPort:
      return ip_text(r.downstream_direct_remote, buffer);
    case FormatOp::kDownstreamDirectPort:
      return number(r.downstream_direct_remote_port, buffer);
    case FormatOp::kDownstreamLocal:
      return address_text(r.downstream_local, r.downstream_local_port, buffer);
    case FormatOp::kDownstreamLocalNoPort:
      return ip_text(r.downstream_local, buffer);
    case FormatOp::kDownstreamLocalPort:
      return number(r.downstream_local_port, buffer);
    case FormatOp::kTlsVersion:
      return r.tls_version == 0 ? kAbsent : r.tls_version == stats::kWireTls13 ? "TLSv1.3" : "TLSv1.2";
    case FormatOp::kTlsCipher:
      return cipher_name(r.tls_cipher);
    case FormatOp::kConnectionId:
      return number(r.connection_id, buffer);
    case FormatOp::kStreamId:
      if ((r.record_flags & stats::kFlagConnectionRecord) == 0) return kAbsent;
      return uuid(base::hash64(r.start_wall_ns), base::hash64(r.connection_id ^ r.listener), buffer);
    case FormatOp::kAccessLogType:
      return (r.record_flags & stats::kFlagConnectionRecord) == 0 ? "DownstreamEnd"
             : r.filter_chain == UINT16_MAX                       ? "NotSet"
                                                                  : "TcpConnectionEnd";
    case FormatOp::kTcpHandshakeRtt:
      return unless_none(r.tcp_handshake_rtt_us);
    case FormatOp::kTcpRtt:
      return unless_none(r.tcp_rtt_us);
    case FormatOp::kTcpRetransmits:
      return number(r.tcp_retransmits, buffer);
    case FormatOp::kStageRead:
      return between(0, r.request_rx_last_ns, kUs, buffer);
    case FormatOp::kStageConnect:
      return between(0, r.upstream_tx_first_ns, kUs, buffer);
    case FormatOp::kStageWait:
      return between(r.upstream_tx_first_ns, r.upstream_rx_first_ns, kUs, buffer);
    case FormatOp::kStageRespond:
      return between(r.upstream_rx_first_ns, r.duration_ns, kUs, buffer);
    case FormatOp::kWorker:
      return number(r.worker, buffer);
    default:
      return kAbsent;
  }
}

}  // namespace detail

bool needs_record(FormatOp op) {
  switch (op) {
    case FormatOp::kLiteral:
    case FormatOp::kReq:
    case FormatOp::kTrailer:
    case FormatOp::kPath:
    case FormatOp::kQueryParam:
    case FormatOp::kQueryParams:
    case FormatOp::kLocalReplyBody:
    case FormatOp::kVirtualClusterName:
    case FormatOp::kUniqueId:
    case FormatOp::kHostname:
    case FormatOp::kEnvironment:
      return false;
    default:
      return true;
  }
}

}  // namespace millrace::format
