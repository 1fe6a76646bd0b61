// What a proxy does to heads on their way through: Envoy's ConnectionManagerUtility and the router's header rules as pure
// functions on RequestHead/ResponseHead. New strings live in the caller's Scratch; header tables need room for kForwardedHeaders
// more fields.
//
// Order of a request:  check_underscores -> strip_host -> normalize_path -> mutate_request -> (route) -> route's header rules
// -> mutate_upstream_request -> rewrite_host -> rewrite_path -> write.   Of a response:  mutate_upstream_response -> route's
// header rules -> mutate_response -> write.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "lib/base/ip_address.h"
#include "lib/http/message.h"
#include "lib/http/scratch.h"

namespace millrace::http {

enum class ServerHeaderMode : uint8_t { kOverwrite, kAppendIfAbsent, kPassThrough };  // HCM.server_header_transformation
enum class EscapedSlashesAction : uint8_t { kKeepUnchanged, kReject, kUnescapeAndRedirect, kUnescapeAndForward };
enum class UnderscoreAction : uint8_t { kAllow, kReject, kDrop };  // headers_with_underscores_action

enum class StripPortMode : uint8_t { kNo, kMatching, kAny };
enum class SchemeTransform : uint8_t { kNo, kHttp, kHttps };

struct AddressRange {
  base::IpAddress network;
  unsigned prefix_bits = 0;  // of its own family
  friend bool operator==(const AddressRange&, const AddressRange&) = default;
};
// What used to be internal without a configuration: RFC 1918, RFC 4193 and loopback.
extern const std::array<AddressRange, 6> kPrivateRanges;

// The HttpConnectionManager's fields that decide about headers (defaults are Envoy's). Strings outlive the exchange's use of it.
struct ForwardOptions {
  bool use_remote_address = false;
  uint32_t xff_num_trusted_hops = 0;
  bool skip_xff_append = false;
  bool generate_request_id = true;
  bool preserve_external_request_id = false;
  bool always_set_request_id_in_response = false;
  bool suppress_envoy_headers = false;  // Router.suppress_envoy_headers
  bool normalize_path = false;
  bool merge_slashes = false;
  EscapedSlashesAction escaped_slashes = EscapedSlashesAction::kKeepUnchanged;
  UnderscoreAction underscores = UnderscoreAction::kAllow;
  // HCM.internal_address_config: a client of one of these ranges is internal (x-envoy-internal: true, and its x-envoy-* fields
  // are believed). None by default, as in Envoy since 1.33: then every request is external. Outlives the exchange's use of it.
  const AddressRange* internal_ranges = nullptr;
  uint32_t internal_range_count = 0;
  bool append_x_forwarded_port = false;
  bool strip_trailing_host_dot = false;
  StripPortMode strip_port = StripPortMode::kNo;            // strip_matching_host_port, strip_any_host_port
  SchemeTransform scheme_overwrite = SchemeTransform::kNo;  // scheme_header_transformation.scheme_to_overwrite
  bool keep_client_cert =
      false;  // x-forwarded-client-cert stays for the caller to judge: forward_client_cert_details is not SANITIZE
  bool strips_host() const { return (static_cast<unsigned>(strip_port) | strip_trailing_host_dot) != 0; }
  bool edits_forwarded() const { return (static_cast<unsigned>(scheme_overwrite) | append_x_forwarded_port) != 0; }
  ServerHeaderMode server_header = ServerHeaderMode::kOverwrite;
  std::string_view server_name = "envoy";
  std::string_view via;  // "": no via
  friend bool operator==(const ForwardOptions&, const ForwardOptions&) = default;
};

// The downstream connection.
struct Downstream {
  base::IpAddress remote;  // the peer
  base::IpAddress local;   // our address, used in x-forwarded-for when the peer is a loopback address
  uint16_t remote_port = 0;
  uint16_t local_port = 0;
  bool tls = false;
};

// Fields that mutate_request and mutate_upstream_request can add, together (x-forwarded-for/-proto/-port, x-request-id,
// x-envoy-internal, x-envoy-external-address, via, x-envoy-original-path, x-envoy-expected-rq-timeout-ms, x-forwarded-host,
// x-envoy-original-host, content-length) and the response functions (x-envoy-upstream-service-time, server, date, via,
// x-request-id): spare capacity to reserve.
inline constexpr uint32_t kForwardedHeaders = 16;
// Scratch that these functions can need beyond the strings of the head itself (x-forwarded-for, via, a rewritten path are copied
// whole).
inline constexpr size_t kForwardScratchBytes = 512;

// --- requests

// headers_with_underscores_action. kDrop removes the fields; kReject answers false when there is one (400,
// http1.unexpected_underscore).
bool apply_underscore_action(HeaderTable& headers, UnderscoreAction action);
inline bool check_underscores(HeaderTable& headers, UnderscoreAction action) {
  // No known name has an underscore.
  return action == UnderscoreAction::kAllow || !headers.has(HeaderId::kOther) || apply_underscore_action(headers, action);
}

enum class PathVerdict : uint8_t {
  kContinue,     // head.path is as it should be (maybe new, in scratch)
  kReject,       // 400, path_normalization_failed
  kRedirect,     // 307 with location: head.path (UNESCAPE_AND_REDIRECT found an escaped slash), path_normalization_failed. gRPC:
                 // kReject it
  kNotRelative,  // 404, absolute_path_rejected: the path does not start with '/' (OPTIONS *, "http://host?query")
};
// Checks every path (a '#' is kReject) and applies HCM normalize_path, merge_slashes, path_with_escaped_slashes_action on
// head->path (its query is left alone), in Envoy's order: escaped slashes, percent-encoding and dot segments, double slashes. An
// empty path (CONNECT) passes. A path too long for the scratch is kReject. Worst case of scratch: four times the path and its
// query; what is not used goes back.
PathVerdict normalize_path(RequestHead* head, const ForwardOptions& options, Scratch& scratch);

// strip_matching_host_port, strip_any_host_port, strip_trailing_host_dot on head->authority: for options that strips_host().
// `local_port`: of the listener's socket. *with_port: the authority as it was with its port, if that is stripped; what CONNECT
// asks the endpoint for. False: no room.
bool strip_host(RequestHead* head, const ForwardOptions& options, uint16_t local_port, Scratch& scratch,
                std::string_view* with_port);

struct RequestOrigin {
  base::IpAddress client;    // downstream remote address as Envoy sees it: from x-forwarded-for with trusted hops, or the peer
  uint16_t client_port = 0;  // 0 when the address came from x-forwarded-for
  bool internal = false;     // x-envoy-internal: true was set
  bool edge = false;         // external request and use_remote_address
};
// ConnectionManagerUtility::mutateRequestHeaders: hop-by-hop fields, expect: 100-continue, x-forwarded-for, x-forwarded-proto,
// x-envoy-*, via, x-request-id. `random`: 128 fresh random bits, used when an id is generated. head->scheme (unless an absolute
// target gave it) becomes x-forwarded-proto when that is http or https, else the connection's. scratch.overflowed() or a full
// table (returns false) mean that something could not be added: answer 500.
bool mutate_request(RequestHead* head, const ForwardOptions& options, const Downstream& downstream, const uint64_t random[2],
                    Scratch& scratch, RequestOrigin* origin);

// Text of a UUIDv4 with those bits: Envoy's random generator. 36 bytes.
inline constexpr size_t kUuidBytes = 36;
void format_uuid(const uint64_t random[2], char out[kUuidBytes]);

// RFC 9110 7.6.2, of OPTIONS and TRACE: Max-Forwards is counted down. False: it is 0, this gateway is the one that answers. A
// value that is no number is left alone.
bool count_down_forwards(RequestHead* head, Scratch& scratch);

// RouteAction.prefix_rewrite/regex_rewrite: replaces the first `matched` bytes of the path (0..path without query) by
// `replacement`, and keeps the old path in x-envoy-original-path (not with suppress_envoy_headers). False: no room.
bool rewrite_path(RequestHead* head, size_t matched, std::string_view replacement, const ForwardOptions& options,
                  Scratch& scratch);
// host_rewrite_literal / auto_host_rewrite: the old host goes to x-envoy-original-host (keep_original; pass
// !suppress_envoy_headers) and, with append_x_forwarded_host, to the end of x-forwarded-host unless it is its last member
// already. False: no room.
bool rewrite_host(RequestHead* head, std::string_view host, bool append_x_forwarded_host, Scratch& scratch,
                  bool keep_original = true);

// x-envoy-retry-on and what else a client that is believed may say about retries: it goes no further. The router's part too.
void remove_retry_fields(HeaderTable& headers);
// The router's part, after the route is known: x-envoy-expected-rq-timeout-ms (timeout_ms != 0), unless suppressed.
bool mutate_upstream_request(RequestHead* head, const ForwardOptions& options, uint32_t timeout_ms, Scratch& scratch);

// --- responses

// The router's part: x-envoy-upstream-service-time (milliseconds from the last request byte sent to the response head), unless
// suppressed. kRequestNotSent: the response came before the request was complete (always so for upgrades): no such field.
inline constexpr uint64_t kRequestNotSent = UINT64_MAX;
bool mutate_upstream_response(ResponseHead* head, const ForwardOptions& options, uint64_t service_time_ms, Scratch& scratch);

struct ResponseFacts {
  std::string_view date;        // IMF-fixdate; used when the response has none
  std::string_view request_id;  // for always_set_request_id_in_response
  bool upgrade = false;         // the request was an upgrade and the response is 101: connection and upgrade stay
};
// ConnectionManagerUtility::mutateResponseHeaders and ConnectionManagerImpl::encodeHeaders: hop-by-hop fields, date, server, via,
// x-request-id. Also for local replies. False: no room.
bool mutate_response(ResponseHead* head, const ForwardOptions& options, const ResponseFacts& facts, Scratch& scratch);

// --- shared pieces

bool is_internal_address(const base::IpAddress& a, const ForwardOptions& options);
bool is_loopback(const base::IpAddress& a);

// The address `hops_from_right` (0 = last) of all x-forwarded-for fields; false when there is none or it is no address.
// *single: x-forwarded-for holds exactly one address.
bool address_from_xff(const HeaderTable& headers, uint32_t hops_from_right, base::IpAddress* address, bool* single);

}  // namespace millrace::http
