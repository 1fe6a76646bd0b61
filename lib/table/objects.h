// What each kind of object holds. All structs are plain data; field comments name the Envoy v3 field they come from. A struct
// with references has `template <class V> void refs(V& v) const` listing them: the validator walks these, so a new reference
// field that is not listed fails validate_test.
#pragma once

#include <cstdint>
#include <type_traits>

#include "lib/base/ip_address.h"
#include "lib/table/format_ops.h"
#include "lib/table/hash_policy.h"
#include "lib/table/health_check.h"
#include "lib/table/layout.h"
#include "lib/table/outlier_detection.h"

namespace millrace::table {

// ---- string and value matching (envoy.type.matcher.v3) ---------------------------------------------------------------
enum class StringMatchKind : uint8_t { kExact, kPrefix, kSuffix, kContains, kRegex, kPresent, kRange };
// ValueMatch.header for what is not in the header table: ":method", ":path" (with query), ":authority" and "host", ":scheme".
inline constexpr uint8_t kPseudoMethod = 0xf0, kPseudoPath = 0xf1, kPseudoAuthority = 0xf2, kPseudoScheme = 0xf3;
struct ValueMatch {                        // one header or query parameter matcher
  Str name;                                // lower case for headers, as written for query parameters
  Str value;                               // exact/prefix/suffix/contains text (lower-cased when ignore_case)
  int64_t range_start = 0, range_end = 0;  // kRange: [start, end)
  uint32_t regex = 0;                      // kRegex: index into VirtualHost.regexes
  StringMatchKind kind = StringMatchKind::kPresent;
  uint8_t invert = 0;  // HeaderMatcher.invert_match; for kPresent: present_match=false is stored as invert
  uint8_t ignore_case = 0;
  uint8_t treat_missing_as_empty = 0;  // HeaderMatcher.treat_missing_header_as_empty
  uint8_t header = 0;  // headers: http::HeaderId of the name, 0 for names the gateway does not know; see kPseudo...
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(name);
    v(value);
  }
};

// ---- header manipulation (envoy.config.core.v3.HeaderValueOption) -----------------------------------------------------
// One step of a format string such as "a %REQ(X?Y):10% b": the value is what all steps give, one behind the other.
struct FormatPart {
  Str text;                 // kLiteral: the text; a header's (lower case) or parameter's name; a time format
  Str other;                // %REQ(X?Y)%: Y, lower case
  uint32_t max_length = 0;  // bytes kept; 0: all
  FormatOp op = FormatOp::kLiteral;
  uint8_t variant = 0;  // how the command's words were understood (format_ops.h)
  FormatMoment from = FormatMoment::kRequestFirst, to = FormatMoment::kRequestFirst;  // kCommonDuration
  FormatQuote quote = FormatQuote::kNone;
  uint8_t reserved[3] = {};
  template <class V>
  void refs(V& v) const {
    v(text);
    v(other);
  }
};
// SubstitutionFormatString of a body that is made on a poll core; without parts there is none.
struct BodyFormat {
  Array<FormatPart> parts;
  Str content_type;
  uint8_t omit_empty_values = 0;  // what is absent is nothing, and not "-"
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(parts);
    v(content_type);
  }
};
enum class HeaderAppend : uint8_t { kAppendIfExistsOrAdd, kAddIfAbsent, kOverwriteIfExistsOrAdd, kOverwriteIfExists };
struct HeaderOption {
  Str name;                 // lower case
  Str value;                // literal; unused when there are parts
  Array<FormatPart> parts;  // of a value with %COMMANDS%; empty: `value` is all there is
  HeaderAppend append = HeaderAppend::kAppendIfExistsOrAdd;
  uint8_t keep_empty_value = 0;
  uint16_t reserved = 0;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(value);
    v(parts);
  }
};
struct HeaderMutations {
  Array<HeaderOption> request_add, response_add;
  Array<Str> request_remove, response_remove;
  template <class V>
  void refs(V& v) const {
    v(request_add);
    v(response_add);
    v(request_remove);
    v(response_remove);
  }
};

// ---- virtual host: the unit of compilation (DESIGN section 2) ----------------------------------------------------------
enum class PathKind : uint8_t { kPrefix, kExact, kSeparatedPrefix, kRegex, kConnect };  // kConnect: connect_matcher, no path
enum class ActionKind : uint8_t { kCluster, kWeightedClusters, kRedirect, kDirectResponse };

struct WeightedCluster {  // WeightedCluster.ClusterWeight
  Str name;
  ObjectId cluster = kNoObject;
  uint32_t weight = 0;  // sum of all weights of an action fits 32 bits
  uint32_t reserved = 0;
  HeaderMutations headers;
  template <class V>
  void refs(V& v) const {
    v(name);
    headers.refs(v);
  }
};
struct Redirect {                  // RedirectAction
  Str scheme;                      // empty: unchanged ("https" also for https_redirect)
  Str host, path, prefix_rewrite;  // empty: unchanged
  uint16_t port = 0;               // 0: unchanged
  uint16_t status = 301;
  uint8_t strip_query = 0;
  uint8_t https_redirect = 0;            // drops port 80 / keeps others as Envoy does
  uint8_t has_path = 0, has_prefix = 0;  // an empty string can be meant
  template <class V>
  void refs(V& v) const {
    v(scheme);
    v(host);
    v(path);
    v(prefix_rewrite);
  }
};
// A set of types of PROXY protocol TLVs.
struct TlvTypes {
  uint32_t bits[8] = {};
  void set(uint8_t type) { bits[type / 32] |= uint32_t{1} << type % 32; }
  bool has(uint8_t type) const { return (bits[type / 32] >> type % 32 & 1) != 0; }
  bool any() const {
    uint32_t all = 0;
    for (const uint32_t b : bits) all |= b;
    return all != 0;
  }
};
inline constexpr uint32_t kTlvHeadBytes = 3;            // type, length
inline constexpr uint32_t kMostAddedTlvBytes = 32'768;  // of 65,535 altogether; those that pass are fewer than 4,096
struct ProxyHeaderOut {                                 // ProxyProtocolUpstreamTransport.config
  Blob added;                                           // added_tlvs as the wire has them: type, length and value of each
  TlvTypes passed;                                      // pass_through_tlvs: those of the client's header that go on
  uint8_t version = 0;                                  // 1 or 2; 0: no header
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(added);
  }
};
struct UpgradeConfig {  // RouteAction.UpgradeConfig
  Str type;             // lower case
  uint8_t enabled = 1;
  uint8_t terminate = 0;      // connect_config: a CONNECT ends here, its bytes go to a TCP connection
  uint8_t allow_post = 0;     // connect_config.allow_post: so does a POST
  uint8_t proxy_version = 0;  // connect_config.proxy_protocol_config: 1 or 2; 0: none
  uint8_t reserved[4] = {};
  template <class V>
  void refs(V& v) const {
    v(type);
  }
};
enum class CertificateMatch : uint8_t { kAny, kYes, kNo };
struct ResetHeader {           // RetryPolicy.ResetHeader
  Str name;                    // lower case
  uint8_t unix_timestamp = 0;  // the value is a time, else seconds from now
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(name);
  }
};
inline constexpr uint32_t kMostRetryMatchers = 16;  // of each list of a RetryPolicy: copied into each exchange
struct RetryPolicy {                                // RetryPolicy, of the route or else its virtual host
  Array<uint32_t> status_codes;                     // retriable_status_codes
  Array<ValueMatch> response_headers;               // retriable_headers; no regular expression
  Array<ValueMatch> request_headers;                // retriable_request_headers; no regular expression
  Array<ResetHeader> reset_headers;                 // rate_limited_retry_back_off
  uint32_t retry_on = 0;                            // RetryOn (retry_on.h)
  uint32_t num_retries = 1;
  uint32_t per_try_timeout_ms = 0, per_try_idle_timeout_ms = 0;  // 0: none
  uint32_t base_interval_ms = 25, max_interval_ms = 250;         // retry_back_off; at least 1, base <= max
  uint32_t reset_max_interval_ms = 300'000;
  uint32_t host_attempts = 1;  // host_selection_retry_max_attempts
  uint8_t previous_hosts = 0;  // retry_host_predicate: endpoints that were tried are avoided
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(status_codes);
    v(response_headers);
    v(request_headers);
    v(reset_headers);
  }
};
// What per-route configuration says to HTTP filters (typed_per_filter_config of the route and its virtual host, merged by
// control: of each field the most specific word). A filter finds its entry by its name in http_filters.
struct CorsPolicy {           // envoy.extensions.filters.http.cors.v3.CorsPolicy
  Str filter;                 // the name it is configured for
  Array<ValueMatch> origins;  // allow_origin_string_match, without names; one that holds is enough
  Str allow_methods, allow_headers, expose_headers, max_age;
  uint32_t enabled_numerator = 1, enabled_denominator = 1;  // filter_enabled: random % denominator < numerator
  uint32_t shadow_numerator = 0, shadow_denominator = 1;    // shadow_enabled
  uint8_t any_origin = 0;                                   // one of the matchers takes "*": every origin is allowed
  uint8_t allow_credentials = 0, allow_private_network_access = 0;
  uint8_t forward_not_matching_preflights = 1;
  uint8_t reserved[4] = {};
  template <class V>
  void refs(V& v) const {
    v(filter);
    v(origins);
    v(allow_methods);
    v(allow_headers);
    v(expose_headers);
    v(max_age);
  }
};
struct RouteFilters {
  Array<CorsPolicy> cors;
  template <class V>
  void refs(V& v) const {
    v(cors);
  }
};
struct Route {
  // match (RouteMatch); rank is the index in VirtualHost.routes: the lowest that matches wins
  Str name;
  Str path;                 // literal, lower-cased when !case_sensitive; the expression for kRegex
  uint32_t path_regex = 0;  // kRegex: index into VirtualHost.regexes
  PathKind path_kind = PathKind::kPrefix;
  uint8_t case_sensitive = 1;
  ActionKind action = ActionKind::kCluster;
  uint8_t grpc_only = 0;                                                                    // RouteMatch.grpc
  CertificateMatch presented = CertificateMatch::kAny, validated = CertificateMatch::kAny;  // RouteMatch.tls_context
  uint8_t count_in_request = 0, count_in_response = 0;  // VirtualHost.include_(request_)attempt_count(_in_response)
  uint8_t tell_timeout_retry = 0;                       // VirtualHost.include_is_timeout_retry_header
  uint8_t reserved_match[3] = {};
  Array<ValueMatch> headers, query;  // all must hold
  // RouteMatch.runtime_fraction.default_value: the route takes part when random % denominator < numerator. Denominator 100,
  // 10'000 or 1'000'000 as configured (the same random number also chooses the weighted cluster, so the arithmetic shows); 1/1
  // when there is none.
  uint32_t fraction_numerator = 1, fraction_denominator = 1;
  // action
  Array<WeightedCluster> clusters;  // kCluster: exactly one (weight ignored); kWeightedClusters: one or more
  uint32_t total_weight = 0;
  Redirect redirect;
  uint16_t direct_status = 0;  // kDirectResponse
  uint16_t cluster_not_found_status = 503;
  Str direct_body;
  Str prefix_rewrite;  // RouteAction.prefix_rewrite ("" with has_prefix_rewrite 0: none)
  Str host_rewrite;    // RouteAction.host_rewrite_literal
  uint8_t has_prefix_rewrite = 0, has_host_rewrite = 0, auto_host_rewrite = 0, append_xfh = 0;
  uint32_t timeout_ms = 15'000;                  // RouteAction.timeout; 0: none
  uint32_t idle_timeout_ms = UINT32_MAX;         // RouteAction.idle_timeout; UINT32_MAX: the HCM's stream_idle_timeout; 0: none
  uint32_t max_stream_duration_ms = UINT32_MAX;  // RouteAction.max_stream_duration; UINT32_MAX: the HCM's; 0: none
  uint32_t retry_buffer_limit = UINT32_MAX;      // per_request_buffer_limit_bytes; UINT32_MAX: the listener's
  Array<RetryPolicy> retry;                      // none or one
  Array<UpgradeConfig> upgrades;                 // RouteAction.upgrade_configs: says more than the HCM's
  Array<HashPolicy> hash_policies;               // RouteAction.hash_policy
  Array<RouteFilters> filters;                   // none or one; routes that say the same share it
  HeaderMutations headers_mut;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(path);
    v(headers);
    v(query);
    v(clusters);
    redirect.refs(v);
    v(direct_body);
    v(prefix_rewrite);
    v(host_rewrite);
    v(retry);
    v(upgrades);
    v(hash_policies);
    v(filters);
    headers_mut.refs(v);
  }
};

// Regex databases are compiled by control (lib/route/compiler.h). Each holds < 10,000 expressions, anchored \A(?:...)\z; an
// expression reports its position in the database, and `ids` says which Regex that is: so a database keeps its bytes when other
// regexes come and go.
enum class RegexInput : uint8_t { kPath, kHeader, kQuery };
struct RegexDb {
  Blob serialized;         // hs_serialize_database; the loader deserialises it
  uint64_t hash = 0;       // of the expressions and flags in order: the loader's cache key
  Array<uint32_t> ids;     // position in the database -> index into VirtualHost.regexes; UINT32_MAX: no longer used
  Str literal_prefix;      // kPath: all its expressions begin with this text, so only such paths need a scan
  Str name;                // kHeader/kQuery: the header or parameter
  uint32_t best_rank = 0;  // kPath: lowest rank any of its expressions belongs to
  RegexInput input = RegexInput::kPath;
  uint8_t reserved[3] = {};
  template <class V>
  void refs(V& v) const {
    v(serialized);
    v(ids);
    v(literal_prefix);
    v(name);
  }
};
struct Regex {
  Str expression;         // as configured
  Array<uint32_t> ranks;  // kPath: the routes that use it, ascending
  uint32_t db = 0;        // index into VirtualHost.regex_dbs
  uint32_t position = 0;  // in that database
  template <class V>
  void refs(V& v) const {
    v(expression);
    v(ranks);
  }
};

enum class RequireTls : uint8_t { kNone, kExternalOnly, kAll };
// The index structures (exact hash, prefix hashes by length, rank lists) are lib/route's: built by route/compiler.h, read by
// route/matcher.h, opaque here but for their bounds.
struct VirtualHost {
  ObjectHeader header;
  Str name;
  Array<Str> domains;  // as configured, for people
  Array<Route> routes;
  Array<Regex> regexes;
  Array<RegexDb> regex_dbs;
  Blob index;  // lib/route's; 8-byte aligned
  HeaderMutations headers_mut;
  RequireTls require_tls = RequireTls::kNone;
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(name);
    v(domains);
    v(routes);
    v(regexes);
    v(regex_dbs);
    v(index);
    headers_mut.refs(v);
  }
};

// ---- route table: which virtual host (RouteConfiguration) ---------------------------------------------------------------
struct DomainEntry {  // one domain, lower-cased, without its '*'
  Str text;
  uint64_t hash = 0;          // base::hash64(text)
  uint32_t virtual_host = 0;  // index into RouteTable.virtual_hosts
  uint32_t reserved = 0;
  template <class V>
  void refs(V& v) const {
    v(text);
  }
};
struct RouteTable {
  ObjectHeader header;
  Str name;
  Array<ObjectId> virtual_hosts;
  Array<DomainEntry> exact;     // sorted by (hash, text)
  Array<uint32_t> exact_slots;  // power of two, load <= 50 %: index+1 into `exact`, linear probing from hash
  Array<DomainEntry> suffixes;  // "*.foo.com" -> ".foo.com", "*-bar.foo.com" -> "-bar.foo.com"; sorted by (length desc, text)
  Array<DomainEntry> prefixes;  // "foo.*" -> "foo."; sorted by (length desc, text)
  Array<uint32_t> suffix_slots, prefix_slots;      // as exact_slots; empty when there are none
  Array<uint32_t> suffix_lengths, prefix_lengths;  // the distinct text lengths, descending: one probe each
  uint32_t default_virtual_host = UINT32_MAX;      // of "*"; UINT32_MAX: none
  uint8_t ignore_port_in_host_matching = 0;
  uint8_t most_specific_header_mutations_wins = 0;
  uint8_t reserved[2] = {};
  HeaderMutations headers_mut;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(virtual_hosts);
    v(exact);
    v(exact_slots);
    v(suffixes);
    v(prefixes);
    v(suffix_slots);
    v(prefix_slots);
    v(suffix_lengths);
    v(prefix_lengths);
    headers_mut.refs(v);
  }
};

// ---- TCP of the connections of a listener or cluster --------------------------------------------------------------------
enum class TcpCongestion : uint8_t { kDefault, kCubic, kReno, kBbr };
enum class TcpKeepalive : uint8_t { kDefault, kOff, kOn };
// What `socket_options` and the fields with names of their own ask for. 0 asks for nothing: what the gateway does of itself holds
// (`tcp` of the dataplane section). Connections of one direction whose options are equal share a TCP profile.
struct TcpOptions {
  uint32_t user_timeout_ms = 0;                             // TCP_USER_TIMEOUT
  uint16_t keepalive_idle_s = 0, keepalive_interval_s = 0;  // TCP_KEEPIDLE, TCP_KEEPINTVL
  uint16_t max_segment = 0;                                 // TCP_MAXSEG, bytes
  uint16_t fast_open_queue = 0;  // tcp_fast_open_queue_length, TCP_FASTOPEN: of a listener, in each worker; 0: no fast open
  uint8_t keepalive_probes = 0;  // TCP_KEEPCNT
  TcpKeepalive keepalive = TcpKeepalive::kDefault;     // SO_KEEPALIVE
  TcpCongestion congestion = TcpCongestion::kDefault;  // TCP_CONGESTION
  uint8_t reserved = 0;
  friend bool operator==(const TcpOptions&, const TcpOptions&) = default;
};
inline constexpr uint16_t kLeastMaxSegment = 88;  // bytes: what lib/tcp sends at least

// ---- listener ---------------------------------------------------------------------------------------------------------
enum class NetworkFilterKind : uint8_t { kHttpConnectionManager, kTcpProxy };
enum class TlsVersion : uint8_t { kTls12 = 0, kTls13 = 1 };
enum class ServerHeader : uint8_t { kOverwrite, kAppendIfAbsent, kPassThrough };
enum class EscapedSlashes : uint8_t { kKeepUnchanged, kReject, kUnescapeAndRedirect, kUnescapeAndForward };

// envoy.config.accesslog.v3.AccessLogFilter: nodes in prefix order, kAnd and kOr followed by what hangs below them.
enum class LogFilterKind : uint8_t {
  kStatus,
  kDuration,
  kNotHealthCheck,
  kTraceable,
  kRuntime,
  kAnd,
  kOr,
  kHeader,
  kResponseFlag,
  kGrpcStatus,
  kLogType
};
enum class LogFilterOp : uint8_t { kEqual, kAtLeast, kAtMost };
enum class LogType : uint8_t { kNotSet = 0, kTcpConnectionEnd = 3, kDownstreamEnd = 6 };  // data.accesslog.v3.AccessLogType
inline constexpr uint32_t kMaxLogFilterNodes = 256;                                       // of one filter
struct LogFilter {
  ValueMatch header;   // kHeader; no regular expression
  uint64_t value = 0;  // kStatus, kDuration (ms): with which to compare; kRuntime: numerator; kResponseFlag: bits, 0: any flag;
                       // kGrpcStatus, kLogType: one bit for each that is meant
  uint32_t nodes = 1;  // this one and all below it
  uint32_t denominator = 0;  // kRuntime
  LogFilterKind kind = LogFilterKind::kNotHealthCheck;
  LogFilterOp op = LogFilterOp::kEqual;
  uint8_t exclude = 0;      // kGrpcStatus, kLogType: those that are not named
  uint8_t independent = 0;  // kRuntime: use_independent_randomness
  uint8_t reserved[4] = {};
  template <class V>
  void refs(V& v) const {
    header.refs(v);
  }
};
struct AccessLog {  // FileAccessLog; formatting is control's, the data plane only says which
  Str path;
  Str format;                     // text_format with Envoy's operators; empty: the default format
  Array<LogFilter> filter;        // empty: all
  uint8_t json = 0;               // `format` is a JSON object of operators
  uint8_t omit_empty_values = 0;  // for control
  uint8_t reserved[6] = {};
  template <class V>
  void refs(V& v) const {
    v(path);
    v(format);
    v(filter);
  }
};
// The compressor filter of HttpConnectionManager.http_filters, its response direction. Ranges as lib/compress/settings.h has
// them.
enum class CompressionCodec : uint8_t { kGzip, kBrotli, kZstd };
inline constexpr uint8_t kMostBrotliQuality = 9, kMostZstdLevel = 12, kMostZstdStrategy = 6;
inline constexpr uint32_t kMostCompressors = 8;  // of one connection manager
struct Compressor {
  Str name;                  // of the compressor library: in the statistics
  Array<Str> content_types;  // lower case; never empty
  uint32_t min_content_length = 30;
  CompressionCodec codec = CompressionCodec::kGzip;
  uint8_t level = 6;  // gzip 1 … 9, brotli's quality, zstd's level from 1
  uint8_t strategy = 0, window_bits = 12, memory_level = 5, block_bits = 24;
  uint8_t checksum = 0, no_literal_contexts = 0;
  uint8_t enabled = 1, disable_on_etag = 0, remove_accept_encoding = 0, choose_first = 0;
  uint8_t response_config = 0;  // response_direction_config is there: Envoy then names some of the statistics differently
  uint8_t reserved[3] = {};
  template <class V>
  void refs(V& v) const {
    v(name);
    v(content_types);
  }
};
// HttpConnectionManager.forward_client_cert_details, and bits for set_current_client_cert_details.
enum class ForwardClientCert : uint8_t { kSanitize, kForwardOnly, kAppendForward, kSanitizeSet, kAlwaysForwardOnly };
enum ClientCertDetail : uint8_t { kDetailSubject = 1, kDetailCert = 2, kDetailDns = 4, kDetailUri = 8, kDetailChain = 16 };
struct LocalReplyMapper {  // HttpConnectionManager.local_reply_config.mappers: the first whose filter holds
  Array<LogFilter> filter;
  Array<HeaderOption> headers_to_add;
  Str body;
  BodyFormat format;    // without parts: the configuration's
  uint16_t status = 0;  // 0: as it is
  uint8_t has_body = 0;
  uint8_t reserved[5] = {};
  template <class V>
  void refs(V& v) const {
    v(filter);
    v(headers_to_add);
    v(body);
    format.refs(v);
  }
};
struct AddressRange {  // core.v3.CidrRange
  base::IpAddress network;
  uint8_t prefix_bits = 0;  // of its own family: 0..32 or 0..128
  uint8_t reserved[7] = {};
};
inline constexpr uint32_t kMaxInternalRanges = 16;  // of one HttpConnectionManager: copied into each policy
enum class StripPort : uint8_t { kNo, kMatching, kAny };
enum class SchemeOverwrite : uint8_t { kNo, kHttp, kHttps };
enum class HttpCodec : uint8_t { kAuto, kHttp1, kHttp2 };  // HttpConnectionManager.codec_type
struct Http2Options {                                      // core.v3.Http2ProtocolOptions; defaults are Envoy's of 2026
  uint32_t hpack_table_size = 4096;
  uint32_t max_concurrent_streams = 1024;
  uint32_t initial_stream_window_size = 16u << 20, initial_connection_window_size = 24u << 20;  // bytes
  uint32_t max_outbound_frames = 10'000, max_outbound_control_frames = 1'000;
  uint32_t max_consecutive_inbound_frames_with_empty_payload = 1;
  uint32_t max_inbound_priority_frames_per_stream = 100;
  uint32_t max_inbound_window_update_frames_per_data_frame_sent = 10;
  uint8_t override_stream_error_on_invalid_http_message = 0;
  uint8_t keepalive_jitter_percent = 15;  // connection_keepalive.interval_jitter, 0..100
  uint8_t allow_connect = 0;
  uint8_t reserved = 0;
  uint32_t keepalive_interval_ms = 0;       // connection_keepalive.interval; 0: no PING at intervals
  uint32_t keepalive_timeout_ms = 0;        // .timeout; 0: no connection_keepalive
  uint32_t keepalive_idle_interval_ms = 0;  // .connection_idle_interval; 0: off
};
struct HttpConnectionManager {
  Str stat_prefix;
  ObjectId route_table = kNoObject;  // inline route_config or rds
  Str route_table_name;
  Array<AccessLog> access_logs;
  Str server_name;  // default "envoy", as Envoy's clients expect
  Str via;
  Str default_host_for_http_10;
  Str upgrades;  // upgrade_configs that are enabled: lower case, joined by ','
  Str cors;      // name of the CORS filter in http_filters; empty: there is none
  Array<LocalReplyMapper> local_reply_mappers;
  BodyFormat local_reply_format;
  Array<AddressRange> internal_ranges;        // internal_address_config; empty: nobody is internal
  Array<Compressor> compressors;              // in the order of http_filters
  uint32_t stream_idle_timeout_ms = 300'000;  // 0: off
  uint32_t request_timeout_ms = 0, request_headers_timeout_ms = 0;
  uint32_t idle_timeout_ms = 3'600'000;  // common_http_protocol_options.idle_timeout
  uint32_t max_connection_duration_ms = 0, max_stream_duration_ms = 0;
  uint32_t delayed_close_timeout_ms = 1'000, drain_timeout_ms = 5'000;
  uint32_t max_request_headers_bytes = 60 * 1024, max_headers_count = 100, max_requests_per_connection = 0;
  uint32_t xff_num_trusted_hops = 0;
  ServerHeader server_header = ServerHeader::kOverwrite;
  EscapedSlashes escaped_slashes = EscapedSlashes::kKeepUnchanged;
  uint8_t use_remote_address = 0, skip_xff_append = 0, generate_request_id = 1, preserve_external_request_id = 0,
          always_set_request_id_in_response = 0, normalize_path = 0, merge_slashes = 0, accept_http_10 = 0, enable_trailers = 0,
          allow_absolute_url = 1, headers_with_underscores_reject = 0, headers_with_underscores_drop = 0,
          suppress_envoy_headers = 0;
  HttpCodec codec = HttpCodec::kAuto;
  uint8_t allow_chunked_length = 0;
  ForwardClientCert forward_client_cert = ForwardClientCert::kSanitize;
  uint8_t client_cert_details = 0;  // ClientCertDetail
  StripPort strip_port = StripPort::kNo;
  SchemeOverwrite scheme_overwrite = SchemeOverwrite::kNo;
  uint8_t strip_trailing_host_dot = 0, append_x_forwarded_port = 0;
  uint8_t respect_expected_rq_timeout = 0;
  uint8_t grpc_web = 0;  // the gRPC-Web filter: 0 none, else one more than the compressors in front of it
  Http2Options http2;
  template <class V>
  void refs(V& v) const {
    v(stat_prefix);
    v(route_table_name);
    v(access_logs);
    v(server_name);
    v(via);
    v(default_host_for_http_10);
    v(upgrades);
    v(cors);
    v(local_reply_mappers);
    local_reply_format.refs(v);
    v(internal_ranges);
    v(compressors);
  }
};
struct TcpProxy {
  Str stat_prefix;
  Array<WeightedCluster> clusters;
  Array<AccessLog> access_logs;
  uint32_t total_weight = 0;
  uint32_t idle_timeout_ms = 3'600'000;  // 0: off
  uint32_t max_connect_attempts = 1;
  uint32_t max_downstream_connection_duration_ms = 0;
  uint8_t hash_source_ip = 0;  // hash_policy: source_ip
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(stat_prefix);
    v(clusters);
    v(access_logs);
  }
};
enum class OcspPolicy : uint8_t { kLenient, kStrict, kMustStaple };
// A certificate's peer is judged by up to two secrets of kind kValidation: `validation` is validation_context, or the default of
// combined_validation_context; `validation_more` what a secret named by the user adds (its fields replace, its lists are
// appended).
struct DownstreamTls {                                           // DownstreamTlsContext
  Array<ObjectId> secrets;                                       // certificates; chosen by SAN among them, the first on a miss
  ObjectId validation = kNoObject, validation_more = kNoObject;  // of client certificates; none: none is asked for
  Array<Str> alpn;                                               // in order of preference; empty: no ALPN
  Array<Str> cipher_suites;  // TLS 1.2 names as OpenSSL writes them; empty: Envoy's default list
  Array<Str> curves;         // empty: X25519, P-256
  TlsVersion min_version = TlsVersion::kTls12, max_version = TlsVersion::kTls13;
  uint8_t disable_tickets = 0;  // disable_stateless_session_resumption
  uint8_t require_client_certificate = 0;
  uint8_t full_scan_certs = 0;  // full_scan_certs_on_sni_mismatch
  OcspPolicy ocsp_policy = OcspPolicy::kLenient;
  uint8_t prefer_client_ciphers = 0;
  uint8_t reserved[1] = {};
  uint32_t session_timeout_s = 0;  // 0: OpenSSL's default, two hours
  uint32_t reserved_2 = 0;
  ObjectId ticket_keys = kNoObject;  // a secret of kind kTicketKeys; none: random ones of this data plane
  template <class V>
  void refs(V& v) const {
    v(secrets);
    v(alpn);
    v(cipher_suites);
    v(curves);
  }
};
struct UpstreamTls {        // UpstreamTlsContext
  Array<ObjectId> secrets;  // the certificate that is shown when the endpoint asks for one: none or one
  ObjectId validation = kNoObject, validation_more = kNoObject;  // of the endpoint's certificate; none: it is NOT verified
  Str sni;
  Array<Str> alpn, cipher_suites, curves;  // as in DownstreamTls
  uint32_t max_session_keys = 1;           // sessions kept for resumption, of each worker; 0: none
  TlsVersion min_version = TlsVersion::kTls12, max_version = TlsVersion::kTls12;
  uint8_t auto_host_sni = 0;            // SNI is the endpoint's hostname, where it has one
  uint8_t auto_sni_san_validation = 0;  // the certificate must name what SNI says; also auto_san_validation
  Str auto_sni_header;                  // override_auto_sni_header, lower case; empty: none
  uint8_t auto_sni = 0;                 // SNI is the host of the request, which has connections for that name alone
  uint8_t reserved[7] = {};
  template <class V>
  void refs(V& v) const {
    v(secrets);
    v(sni);
    v(alpn);
    v(cipher_suites);
    v(curves);
    v(auto_sni_header);
  }
};
enum class TransportProtocol : uint8_t { kAny, kTls, kRawBuffer };
struct FilterChain {
  Str name;
  Array<Str> server_names;  // as configured, for people; the index below is what is matched
  Array<Str> application_protocols;
  TransportProtocol transport_protocol = TransportProtocol::kAny;
  uint8_t has_tls = 0;  // terminate with `tls`; otherwise raw bytes (SNI passthrough when the match names SNI)
  NetworkFilterKind filter = NetworkFilterKind::kHttpConnectionManager;
  uint8_t reserved = 0;
  uint32_t connect_timeout_ms = 0;  // transport_socket_connect_timeout: TLS handshake; 0: off
  DownstreamTls tls;
  HttpConnectionManager hcm;
  TcpProxy tcp;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(server_names);
    v(application_protocols);
    tls.refs(v);
    hcm.refs(v);
    tcp.refs(v);
  }
};
struct ServerNameEntry {  // SNI -> chains that name it; wildcard entries keep ".foo.com" of "*.foo.com"
  Str text;               // lower case
  uint64_t hash = 0;
  Array<uint32_t> chains;  // filter chain indices, most specific transport/ALPN first
  template <class V>
  void refs(V& v) const {
    v(text);
    v(chains);
  }
};
struct Listener {
  ObjectHeader header;
  Str name;
  base::IpAddress address;  // unspecified: every address of the gateway, of that family
  uint16_t port = 0;
  uint8_t tls_inspector = 0;
  uint8_t continue_on_listener_filters_timeout = 0;
  uint8_t proxy_protocol = 0;                        // listener filter proxy_protocol: the client's addresses come in a header
  uint8_t proxy_optional = 0;                        // allow_requests_without_proxy_protocol
  uint8_t proxy_refuse_v1 = 0, proxy_refuse_v2 = 0;  // disallowed_versions
  uint8_t ja3 = 0, ja4 = 0;                          // enable_ja3_fingerprinting, enable_ja4_fingerprinting of the tls_inspector
  uint8_t reserved[2] = {};
  TlvTypes proxy_kept_tlvs;  // pass_through_tlvs: of the client's PROXY protocol header, kept for endpoints
  uint32_t listener_filters_timeout_ms = 15'000;
  uint32_t per_connection_buffer_limit_bytes = 1024 * 1024;
  uint32_t default_filter_chain = UINT32_MAX;  // index into filter_chains
  TcpOptions tcp;
  Array<FilterChain> filter_chains;
  Array<ServerNameEntry> exact_names;     // sorted by text
  Array<ServerNameEntry> wildcard_names;  // sorted by text
  Array<uint32_t> any_name_chains;        // chains without server_names, most specific first
  Array<AccessLog> access_logs;           // Listener.access_log: connections for which no chain matched
  template <class V>
  void refs(V& v) const {
    v(name);
    v(filter_chains);
    v(exact_names);
    v(wildcard_names);
    v(any_name_chains);
    v(access_logs);
  }
};

// ---- cluster, endpoints, secret ---------------------------------------------------------------------------------------
enum class LbPolicy : uint8_t { kRoundRobin, kLeastRequest, kRandom, kRingHash, kMaglev };
inline constexpr uint64_t kMostRingSize = 8u << 20;      // RingHashLbConfig: of either size
inline constexpr uint64_t kMostMaglevTable = 5'000'011;  // MaglevLbConfig.table_size, a prime
inline constexpr uint32_t kMostPriority = 128;           // LocalityLbEndpoints.priority
// HttpProtocolOptions.upstream_protocol_options: what is spoken to endpoints. kAlpn: auto_config, what TLS agrees on;
// kAsDownstream: use_downstream_protocol_config, what the client speaks.
enum class UpstreamHttp : uint8_t { kHttp1, kHttp2, kAlpn, kAsDownstream };
struct Cluster {
  ObjectHeader header;
  Str name;
  ObjectId endpoint_set = kNoObject;
  uint32_t connect_timeout_ms = 5'000;
  uint32_t idle_timeout_ms = 3'600'000;  // of pooled upstream connections
  uint32_t max_requests_per_connection = 0;
  uint32_t least_request_choice_count = 2;
  uint32_t max_connections = 1024, max_pending_requests = 1024, max_requests = 1024;  // circuit_breakers, default priority
  uint32_t max_retries = 3;
  uint32_t retry_budget_millipercent = 0;  // retry_budget.budget_percent: of requests under way and waiting; 1/1000 of a percent
  uint32_t min_retry_concurrency = 0;      // retry_budget; both 0 and has_retry_budget 0: max_retries holds
  uint32_t per_connection_buffer_limit_bytes = 1024 * 1024;
  uint32_t max_response_headers_bytes = 60 * 1024;
  TcpOptions tcp;
  uint32_t max_response_headers_count = 100;  // common_http_protocol_options.max_headers_count
  Http2Options http2;
  LbPolicy lb_policy = LbPolicy::kRoundRobin;
  uint8_t enable_trailers = 0;  // http_protocol_options.enable_trailers
  UpstreamHttp http = UpstreamHttp::kHttp1;
  uint8_t has_tls = 0;  // transport_socket: `tls` is spoken to its endpoints
  uint8_t has_retry_budget = 0;
  uint8_t panic_threshold = 50;   // common_lb_config.healthy_panic_threshold, percent; 0: no panic
  uint8_t fail_on_panic = 0;      // zone_aware_lb_config.fail_traffic_on_panic
  uint8_t locality_weighted = 0;  // locality_weighted_lb_config
  uint8_t hash_hostname = 0;      // consistent_hashing_lb_config.use_hostname_for_hashing
  uint8_t ring_murmur = 0;        // ring_hash_lb_config.hash_function is MURMUR_HASH_2
  uint8_t reserved[6] = {};
  uint32_t hash_balance_factor = 0;  // consistent_hashing_lb_config; percent, from 100; 0: no bound
  uint32_t ring_min = 1024, ring_max = kMostRingSize;
  uint32_t maglev_size = 65'537;
  OutlierDetection outlier;
  UpstreamTls tls;
  ProxyHeaderOut proxy;
  HealthCheck health_check;
  template <class V>
  void refs(V& v) const {
    v(name);
    tls.refs(v);
    proxy.refs(v);
    health_check.refs(v);
  }
};
static_assert(std::has_unique_object_representations_v<Cluster> && std::has_unique_object_representations_v<Listener>,
              "no padding: the same input gives the same bytes");
// LbEndpoint.health_status; draining: no new requests.
enum class EndpointState : uint8_t { kHealthy, kDraining, kUnhealthy, kDegraded };
struct Endpoint {
  base::IpAddress address;
  uint16_t port = 0;
  EndpointState state = EndpointState::kHealthy;
  uint8_t no_health_check = 0;  // health_check_config.disable_active_health_check
  uint32_t weight = 1;          // load_balancing_weight
  uint32_t locality = 0;        // index into EndpointSet.localities
  Str hostname;
  Str health_host;           // health_check_config.hostname
  uint32_t health_port = 0;  // health_check_config.port_value; 0: `port`
  template <class V>
  void refs(V& v) const {
    v(hostname);
    v(health_host);
  }
};
struct Locality {         // LocalityLbEndpoints; those of one place and priority are one
  uint32_t priority = 0;  // 0 is the highest; at most kMostPriority
  uint32_t weight = 0;    // load_balancing_weight; 0: not said
};
struct EndpointSet {  // ClusterLoadAssignment
  ObjectHeader header;
  Str name;
  Array<Endpoint> endpoints;
  Array<Locality> localities;  // as Envoy orders them: by priority, then by region, zone and sub-zone; empty: one of priority 0
  uint32_t total_weight = 0;   // of the healthy ones
  uint32_t healthy = 0;
  uint32_t overprovisioning_factor = 140;  // policy.overprovisioning_factor, percent
  uint32_t reserved = 0;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(endpoints);
    v(localities);
  }
  // Of endpoint i.
  uint32_t priority(uint32_t i) const {
    return localities.count == 0 ? 0 : localities.at(this, endpoints.at(this, i).locality).priority;
  }
};
enum class SanType : uint8_t { kDns, kUri, kIpAddress, kEmail };
struct SanMatch {  // SubjectAltNameMatcher
  Str value;
  SanType type = SanType::kDns;
  StringMatchKind kind = StringMatchKind::kExact;  // kExact … kContains
  uint8_t ignore_case = 0;
  uint8_t reserved[5] = {};
  template <class V>
  void refs(V& v) const {
    v(value);
  }
};
enum class SecretKind : uint8_t { kCertificate, kValidation, kTicketKeys };
inline constexpr uint32_t kTicketKeyBytes = 80, kMaxTicketKeys = 16;
struct Secret {
  ObjectHeader header;
  Str name;
  Blob certificate_chain_pem, private_key_pem, ocsp_staple;  // kCertificate: TlsCertificate
  Blob ticket_keys;                                          // kTicketKeys: kTicketKeyBytes each, the first encrypts
  // kValidation: CertificateValidationContext
  Blob trusted_ca_pem, crl_pem;
  Array<SanMatch> sans;
  Blob certificate_hashes, spki_hashes;    // SHA-256, 32 bytes each
  uint32_t max_verify_depth = UINT32_MAX;  // UINT32_MAX: not said
  SecretKind kind = SecretKind::kCertificate;
  uint8_t only_leaf_crl = 0, allow_expired = 0, accept_untrusted = 0;
  template <class V>
  void refs(V& v) const {
    v(name);
    v(certificate_chain_pem);
    v(private_key_pem);
    v(ocsp_staple);
    v(ticket_keys);
    v(trusted_ca_pem);
    v(crl_pem);
    v(sans);
    v(certificate_hashes);
    v(spki_hashes);
  }
};

}  // namespace millrace::table
