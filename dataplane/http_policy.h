// What a connection and an exchange remember of the configuration. Plain copies: no pointer into a table lives longer than a loop
// iteration (DESIGN section 2), so an edit never closes a connection and old tables can be reclaimed at once.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "dataplane/http2_keepalive.h"
#include "lib/format/evaluate.h"
#include "lib/http/forward.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h2_connection.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

// A string copied by value; longer ones are refused by control (kMaxPolicyString).
template <uint32_t N>
class InlineString {
 public:
  void assign(std::string_view s) {
    size_ = static_cast<uint8_t>(s.size() < N ? s.size() : N);
    std::memcpy(bytes_, s.data(), size_);
  }
  std::string_view view() const { return {bytes_, size_}; }
  bool empty() const { return size_ == 0; }
  friend bool operator==(const InlineString& a, const InlineString& b) { return a.view() == b.view(); }

 private:
  static_assert(N <= 255);
  uint8_t size_ = 0;
  char bytes_[N];
};

inline constexpr uint32_t kPseudoHeaders = 5;      // of HTTP/2, which do not count against max_headers_count
inline constexpr uint32_t kMaxPolicyString = 128;  // bytes of HCM.server_name, HCM.via, default_host_for_http_10

inline http::H2Options h2_options_of(const table::Http2Options& t) {
  http::H2Options o;
  o.hpack_table_size = t.hpack_table_size;
  o.max_concurrent_streams = t.max_concurrent_streams;
  o.initial_stream_window_size = t.initial_stream_window_size;
  o.initial_connection_window_size = t.initial_connection_window_size;
  o.max_outbound_frames = t.max_outbound_frames;
  o.max_outbound_control_frames = t.max_outbound_control_frames;
  o.max_consecutive_inbound_frames_with_empty_payload = t.max_consecutive_inbound_frames_with_empty_payload;
  o.max_inbound_priority_frames_per_stream = t.max_inbound_priority_frames_per_stream;
  o.max_inbound_window_update_frames_per_data_frame_sent = t.max_inbound_window_update_frames_per_data_frame_sent;
  o.override_stream_error_on_invalid_http_message = t.override_stream_error_on_invalid_http_message != 0;
  o.allow_connect = t.allow_connect != 0;
  return o;
}

// HttpConnectionManager as a connection uses it; refreshed from the tables when a request starts in a new epoch. Shared by
// connections (policy_cache.h).
struct HttpPolicy {
  table::ObjectId route_table = table::kNoObject;
  uint32_t stat_slot = 0;  // the HCM's counters (stats region)
  uint32_t stream_idle_timeout_ms = 0, request_timeout_ms = 0, request_headers_timeout_ms = 0, idle_timeout_ms = 0;
  uint32_t max_connection_duration_ms = 0, max_stream_duration_ms = 0, delayed_close_timeout_ms = 0;
  uint32_t max_requests_per_connection = 0;
  uint32_t drain_timeout_ms = 0;
  http::H2Options http2;  // its limits on heads are set by h2_options()
  KeepaliveOptions keepalive;
  table::HttpCodec codec = table::HttpCodec::kAuto;
  uint32_t max_head_bytes = 0, max_headers_count = 0;
  bool filters = false;  // the HCM has HTTP filters that look at requests: any of the following
  bool compressors = false, grpc_web = false;
  bool cors = false;           // it looks at the route
  uint32_t access_logs = 0;    // how many the HCM has; 0: no record is made
  bool log_names = false;      // they ask for names of routes, virtual hosts or clusters
  bool local_replies = false;  // local_reply_config has something to say
  bool respect_expected_rq_timeout = false;
  http::AddressRange internal_ranges[table::kMaxInternalRanges];
  bool accept_http_10 = false, allow_absolute_url = true, enable_trailers = false, allow_chunked_length = false;
  table::ForwardClientCert forward_client_cert = table::ForwardClientCert::kSanitize;
  uint8_t client_cert_details = 0;  // table::ClientCertDetail
  http::ForwardOptions forward;     // its views are set by options(), not stored
  InlineString<kMaxPolicyString> server_name, via, default_host;
  InlineString<kMaxPolicyString> upgrades;  // enabled types, lower case, joined by ','

  void assign(const void* object, const table::HttpConnectionManager& h) {
    route_table = h.route_table;
    stream_idle_timeout_ms = h.stream_idle_timeout_ms;
    request_timeout_ms = h.request_timeout_ms;
    request_headers_timeout_ms = h.request_headers_timeout_ms;
    idle_timeout_ms = h.idle_timeout_ms;
    max_connection_duration_ms = h.max_connection_duration_ms;
    max_stream_duration_ms = h.max_stream_duration_ms;
    delayed_close_timeout_ms = h.delayed_close_timeout_ms;
    max_requests_per_connection = h.max_requests_per_connection;
    drain_timeout_ms = h.drain_timeout_ms;
    codec = h.codec;
    http2 = h2_options_of(h.http2);
    keepalive.assign(h.http2);
    max_head_bytes = h.max_request_headers_bytes;
    max_headers_count = h.max_headers_count;
    compressors = h.compressors.count != 0;
    grpc_web = h.grpc_web != 0;
    cors = h.cors.count != 0;
    filters = compressors || grpc_web || cors;
    access_logs = h.access_logs.count;
    accept_http_10 = h.accept_http_10 != 0;
    allow_absolute_url = h.allow_absolute_url != 0;
    enable_trailers = h.enable_trailers != 0;
    allow_chunked_length = h.allow_chunked_length != 0;
    upgrades.assign(table::view(object, h.upgrades));
    forward_client_cert = h.forward_client_cert;
    client_cert_details = h.client_cert_details;
    forward.keep_client_cert = h.forward_client_cert != table::ForwardClientCert::kSanitize;
    forward.use_remote_address = h.use_remote_address != 0;
    forward.xff_num_trusted_hops = h.xff_num_trusted_hops;
    forward.skip_xff_append = h.skip_xff_append != 0;
    forward.generate_request_id = h.generate_request_id != 0;
    forward.preserve_external_request_id = h.preserve_external_request_id != 0;
    forward.always_set_request_id_in_response = h.always_set_request_id_in_response != 0;
    forward.suppress_envoy_headers = h.suppress_envoy_headers != 0;
    forward.normalize_path = h.normalize_path != 0;
    forward.merge_slashes = h.merge_slashes != 0;
    forward.escaped_slashes = static_cast<http::EscapedSlashesAction>(h.escaped_slashes);
    forward.underscores = h.headers_with_underscores_reject != 0 ? http::UnderscoreAction::kReject
                          : h.headers_with_underscores_drop != 0 ? http::UnderscoreAction::kDrop
                                                                 : http::UnderscoreAction::kAllow;
    forward.append_x_forwarded_port = h.append_x_forwarded_port != 0;
    forward.strip_trailing_host_dot = h.strip_trailing_host_dot != 0;
    forward.strip_port = static_cast<http::StripPortMode>(h.strip_port);
    forward.scheme_overwrite = static_cast<http::SchemeTransform>(h.scheme_overwrite);
    forward.internal_range_count = h.internal_ranges.count;
    for (uint32_t i = 0; i < h.internal_ranges.count; ++i) {
      const table::AddressRange& r = h.internal_ranges.at(object, i);
      internal_ranges[i] = {r.network, r.prefix_bits};
    }
    local_replies = h.local_reply_mappers.count != 0 || h.local_reply_format.parts.count != 0;
    respect_expected_rq_timeout = h.respect_expected_rq_timeout != 0;
    forward.server_header = static_cast<http::ServerHeaderMode>(h.server_header);
    server_name.assign(table::view(object, h.server_name));
    via.assign(table::view(object, h.via));
    default_host.assign(table::view(object, h.default_host_for_http_10));
  }
  friend bool operator==(const HttpPolicy&, const HttpPolicy&) = default;
  // The same with its strings pointing into this policy: valid while it is neither moved nor assigned.
  http::ForwardOptions options() const {
    http::ForwardOptions o = forward;
    o.server_name = server_name.view();
    o.via = via.view();
    o.internal_ranges = internal_ranges;
    return o;
  }
  http::H2Options h2_options() const {
    http::H2Options o = http2;
    o.max_head_bytes = max_head_bytes;
    o.max_headers = max_headers_count + kPseudoHeaders;
    return o;
  }
  http::H1Limits request_limits() const {
    http::H1Limits l;
    l.max_head_bytes = max_head_bytes;
    l.max_header_count = max_headers_count;
    l.accept_http_10 = accept_http_10;
    l.allow_absolute_url = allow_absolute_url;
    l.allow_chunked_length = allow_chunked_length;
    l.default_host_for_http_10 = default_host.view();
    return l;
  }
};

// One header edit of a route, kept until the response comes. The strings lie in the exchange's request head buffer.
struct ResponseEdit {
  std::string_view name, value;
  std::span<const format::Step> parts = {};  // of a value with %COMMANDS%; its strings lie there too
  table::HeaderAppend append = table::HeaderAppend::kAppendIfExistsOrAdd;
  uint8_t level = 0;  // of route, virtual host ...: each is applied as a whole
  bool keep_empty_value = false;
  bool remove = false;
  static constexpr uint8_t kCookieLevel = UINT8_MAX;  // set-cookie of a hash policy: of responses of endpoints only
};

// What the chosen route asks for, as the exchange remembers it.
struct RoutePolicy {
  table::ObjectId cluster = table::kNoObject;
  uint32_t timeout_ms = 0;                                       // 0: none
  uint32_t idle_timeout_ms = 0;                                  // 0: none
  std::string_view route_name, virtual_host_name, cluster_name;  // copies in the request head buffer
  std::string_view upstream_host_name;                           // ditto; "": the endpoint has none
  ResponseEdit* response_edits = nullptr;                        // ditto
  uint32_t response_edit_count = 0;
};

}  // namespace millrace::dataplane
