#include "lib/http/forward.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#if defined(__SSSE3__)
#include <immintrin.h>
#endif

#include "lib/http/connection.h"
#include "lib/http/h1_scan.h"
#include "lib/http/short_bytes.h"

namespace millrace::http {

namespace {

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// x-envoy-* fields that only a trusted peer may send (Envoy's cleanInternalHeaders), without the prefix.
constexpr std::string_view kEnvoyPrefix = "x-envoy-";
constexpr std::string_view kInternalOnly[] = {"retriable-status-codes",
                                              "retriable-header-names",
                                              "retry-on",
                                              "retry-grpc-on",
                                              "max-retries",
                                              "upstream-alt-stat-name",
                                              "upstream-rq-per-try-timeout-ms",
                                              "upstream-rq-timeout-alt-response",
                                              "force-trace",
                                              "ip-tags",
                                              "original-url",
                                              "hedge-on-per-try-timeout"};
constexpr std::string_view kEdgeOnly[] = {"downstream-service-cluster", "downstream-service-node"};

template <size_t N>
bool is_one_of(std::string_view name, const std::string_view (&list)[N]) {
  for (std::string_view s : list)
    if (name == s) return true;
  return false;
}

// What mutateRequestHeaders removes of the known names, whatever comes after.
constexpr uint64_t kUpgradeIds = bit_of(HeaderId::kConnection) | bit_of(HeaderId::kUpgrade);
constexpr uint64_t kHopByHopIds =
    bit_of(HeaderId::kKeepAlive) | bit_of(HeaderId::kProxyConnection) | bit_of(HeaderId::kTransferEncoding);
constexpr uint64_t kUntrustedIds = bit_of(HeaderId::kXEnvoyUpstreamRqTimeoutMs) | bit_of(HeaderId::kXEnvoyExpectedRqTimeoutMs);
constexpr uint64_t kEdgeIds =
    bit_of(HeaderId::kXEnvoyDecoratorOperation) | bit_of(HeaderId::kXEnvoyOriginalPath) | bit_of(HeaderId::kXEnvoyOriginalHost);

// RetryStateImpl::create: what a client that is believed may say about retries is said to us.
constexpr std::string_view kRetryNames[] = {"retry-on",
                                            "retry-grpc-on",
                                            "max-retries",
                                            "hedge-on-per-try-timeout",
                                            "retriable-header-names",
                                            "retriable-status-codes",
                                            "upstream-rq-per-try-timeout-ms"};

// The same of the names that have no id.
bool is_removed_name(std::string_view name, bool internal, bool edge, bool keep_client_cert) {
  if (name.starts_with(kEnvoyPrefix)) {
    const std::string_view rest = name.substr(kEnvoyPrefix.size());
    return (!internal && is_one_of(rest, kInternalOnly)) || (edge && is_one_of(rest, kEdgeOnly));
  }
  return !keep_client_cert && name == "x-forwarded-client-cert";
}

// All fields of that id as one list, joined by `comma`; a view when there is at most one.
std::string_view joined(const HeaderTable& headers, HeaderId id, std::string_view comma, Scratch& scratch) {
  if (!headers.has(id)) return {};
  uint32_t count = 0;
  size_t bytes = 0;
  for (const Header& h : headers)
    if (h.id == id) {
      ++count;
      bytes += h.value.size() + comma.size();
    }
  if (count == 1) return headers.get(id);
  char* out = scratch.allocate(bytes - comma.size());
  if (out == nullptr) return {};
  char* p = out;
  for (const Header& h : headers) {
    if (h.id != id) continue;
    if (p != out) p = comma.copy(p, comma.size()) + p;
    p = h.value.copy(p, h.value.size()) + p;
  }
  return {out, static_cast<size_t>(p - out)};
}

bool append_value(HeaderTable& headers, HeaderId id, std::string_view comma, std::string_view value, Scratch& scratch) {
  const std::string_view old = joined(headers, id, comma, scratch);
  return headers.set(id, old.empty() ? value : scratch.concat({old, comma, value}));
}

// Dotted quad by hand: inet_ntop costs more than parsing a whole small request.
size_t format_v4(uint32_t host_order, char* out) {
  char* p = out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const uint32_t v = host_order >> shift & 255;
    if (v >= 100) *p++ = static_cast<char>('0' + v / 100);
    if (v >= 10) *p++ = static_cast<char>('0' + v / 10 % 10);
    *p++ = static_cast<char>('0' + v % 10);
    if (shift != 0) *p++ = '.';
  }
  return static_cast<size_t>(p - out);
}

std::string_view address_text(const base::IpAddress& a, Scratch& scratch) {
  constexpr size_t kMaxText = 46;
  char* out = scratch.allocate(kMaxText);
  if (out == nullptr) return {};
  const size_t n = a.is_v4() ? format_v4(a.v4_host_order(), out) : a.format(out, kMaxText);
  scratch.give_back(kMaxText - n);
  return {out, n};
}

// Fields that Envoy's header map holds once (its inline headers): repeated ones become one list, in the place of the first.
bool join_single_fields(HeaderTable& headers, Scratch& scratch) {
  constexpr uint64_t kSingle = bit_of(HeaderId::kContentType) | bit_of(HeaderId::kTe) | bit_of(HeaderId::kUserAgent) |
                               bit_of(HeaderId::kXForwardedFor) | bit_of(HeaderId::kXForwardedProto) |
                               bit_of(HeaderId::kXForwardedHost) | bit_of(HeaderId::kXForwardedPort) |
                               bit_of(HeaderId::kXRequestId) | bit_of(HeaderId::kVia) | bit_of(HeaderId::kGrpcTimeout);
  for (uint64_t twice = headers.repeated() & kSingle; twice != 0; twice &= twice - 1) {
    const auto id = static_cast<HeaderId>(std::countr_zero(twice));
    headers.set(id, joined(headers, id, ",", scratch));
  }
  return !scratch.overflowed();
}

bool has_control_blank_or_hash(std::string_view v) {
#if defined(MILLRACE_HTTP_WINDOW)
  if (v.size() >= scan::kLeastForPieces) {
    uint32_t found = 0;
    scan::for_each_piece(v, [&](__m256i x) {
      const auto is = [&](char c) { return _mm256_cmpeq_epi8(x, _mm256_set1_epi8(c)); };
      const __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(' ')), x);
      found |= static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_or_si256(low, _mm256_or_si256(is('#'), is(0x7f)))));
    });
    return found != 0;
  }
#endif
  return std::any_of(v.begin(), v.end(), [](char c) { return c == '#' || static_cast<uint8_t>(c) <= ' ' || c == 0x7f; });
}

// Envoy (Http::Utility::isValidRefererValue) drops a Referer that names a fragment or credentials, or that is no reference (RFC
// 9110 10.1.3).
bool is_valid_referer(std::string_view v) {
  if (has_control_blank_or_hash(v)) return false;
  const size_t colon = v.find(':');
  if (colon == std::string_view::npos || v.find('/') < colon) return true;  // a relative reference
  if (colon == 0 || v.substr(colon, 3) != "://") return false;
  std::string_view authority = v.substr(colon + 3);
  authority = authority.substr(0, std::min(authority.find('/'), authority.find('?')));
  if (authority.empty() || authority.find('@') != std::string_view::npos) return false;
  const size_t port_mark = authority.find(':', authority.front() == '[' ? std::min(authority.find(']'), authority.size()) : 0);
  if (port_mark == std::string_view::npos) return true;
  uint32_t port = 0;
  for (const char c : authority.substr(port_mark + 1)) {
    if (c < '0' || c > '9') return false;
    port = port * 10 + static_cast<uint32_t>(c - '0');
    if (port > 65535) return false;
  }
  return port_mark != 0;
}

bool set_request_id(HeaderTable& headers, const ForwardOptions& options, bool edge, const uint64_t random[2], Scratch& scratch) {
  if (!options.generate_request_id) return true;
  const std::string_view old = headers.get(HeaderId::kXRequestId);
  if (old.empty() || (edge && !options.preserve_external_request_id)) {
    char* text = scratch.allocate(kUuidBytes);
    if (text == nullptr) return false;
    format_uuid(random, text);
    return headers.set(HeaderId::kXRequestId, {text, kUuidBytes});
  }
  // Digit 14 of a UUID carries Envoy's trace decision (4: no trace). One kept from outside must not force a trace.
  constexpr size_t kTraceDigit = 14;
  if (!edge || old.size() != kUuidBytes || old[kTraceDigit] == '4') return true;
  return headers.set(HeaderId::kXRequestId, scratch.concat({old.substr(0, kTraceDigit), "4", old.substr(kTraceDigit + 1)}));
}

// What does not go on to the upstream: hop-by-hop fields, what only a trusted peer may say, what the gateway itself has answered.
void remove_from_request(RequestHead* head, bool internal, bool edge, bool keep_client_cert) {
  HeaderTable& headers = head->headers;
  constexpr uint64_t kLookedAt = kUpgradeIds | kHopByHopIds | kUntrustedIds | kEdgeIds | bit_of(HeaderId::kXEnvoyInternal) |
                                 bit_of(HeaderId::kTe) | bit_of(HeaderId::kReferer) | bit_of(HeaderId::kExpect);
  if ((headers.present() & kLookedAt) == 0 && !headers.may_have_guarded_names()) [[likely]]
    return;
  headers.remove_ids(kHopByHopIds | bit_of(HeaderId::kXEnvoyInternal) | (is_upgrade(headers) ? 0 : kUpgradeIds) |
                     (internal ? 0 : kUntrustedIds) | (edge ? kEdgeIds : 0));
  if (headers.may_have_guarded_names())
    headers.remove_if(
        [&](const Header& h) { return h.id == HeaderId::kOther && is_removed_name(h.name, internal, edge, keep_client_cert); });
  if (headers.has(HeaderId::kTe)) {  // RFC 9110 10.1.4: only "trailers" can be meant for more than the next hop
    bool trailers = false;
    std::string_view list = headers.get(HeaderId::kTe);
    while (!list.empty()) {
      const size_t comma = list.find(',');
      trailers = trailers || trim(list.substr(0, comma)) == "trailers";
      list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
    }
    if (trailers) headers.set(HeaderId::kTe, "trailers");
    else headers.remove(HeaderId::kTe);
  }
  if (headers.has(HeaderId::kReferer)) {
    if ((headers.repeated() & bit_of(HeaderId::kReferer)) != 0)
      headers.remove_if([](const Header& h) { return h.id == HeaderId::kReferer && !is_valid_referer(h.value); });
    else if (!is_valid_referer(headers.get(HeaderId::kReferer))) headers.remove(HeaderId::kReferer);
  }
  if (expects_continue(*head)) headers.remove(HeaderId::kExpect);  // the gateway answers it itself
}

}  // namespace

bool apply_underscore_action(HeaderTable& headers, UnderscoreAction action) {
  const auto has_underscore = [](const Header& h) {
    return h.id == HeaderId::kOther && h.name.find('_') != std::string_view::npos;
  };
  if (action == UnderscoreAction::kDrop) {
    headers.remove_if(has_underscore);
    return true;
  }
  for (const Header& h : headers)
    if (has_underscore(h)) return false;
  return true;
}

bool mutate_request(RequestHead* head, const ForwardOptions& options, const Downstream& downstream, const uint64_t random[2],
                    Scratch& scratch, RequestOrigin* origin) {
  HeaderTable& headers = head->headers;
  const std::string_view connection_scheme = downstream.tls ? std::string_view("https") : std::string_view("http");

  if (!join_single_fields(headers, scratch)) return false;

  // Who is it? (mutateRequestHeaders: "final remote address")
  base::IpAddress from_xff;
  bool single = true;
  bool found = false;
  if (!headers.has(HeaderId::kXForwardedFor)) {
    single = options.use_remote_address;
  } else if (options.use_remote_address) {
    single = false;
    bool ignored = false;
    if (options.xff_num_trusted_hops > 0)
      found = address_from_xff(headers, options.xff_num_trusted_hops - 1, &from_xff, &ignored);
  } else {
    found = address_from_xff(headers, options.xff_num_trusted_hops, &from_xff, &single);
  }
  origin->client = found ? from_xff : downstream.remote;
  origin->client_port = found ? 0 : downstream.remote_port;
  // Without use_remote_address only an address of x-forwarded-for can make a request internal.
  origin->internal = options.internal_range_count != 0 && single && (found || options.use_remote_address) &&
                     is_internal_address(origin->client, options);
  origin->edge = !origin->internal && options.use_remote_address;

  remove_from_request(head, origin->internal, origin->edge, options.keep_client_cert);

  bool room = true;
  if (options.use_remote_address) {
    if (!options.skip_xff_append) {
      const std::string_view peer = address_text(is_loopback(downstream.remote) ? downstream.local : downstream.remote, scratch);
      room &= append_value(headers, HeaderId::kXForwardedFor, ",", peer, scratch);
    }
    if (options.xff_num_trusted_hops == 0) room &= headers.set(HeaderId::kXForwardedProto, connection_scheme);
  }
  std::string_view forwarded = headers.get(HeaderId::kXForwardedProto);
  if (forwarded.empty()) {
    room &= headers.set(HeaderId::kXForwardedProto, connection_scheme);
    forwarded = connection_scheme;
  }
  if (head->scheme.empty()) {
    head->scheme = forwarded.data() == connection_scheme.data() ? connection_scheme
                   : equals_ignore_case(forwarded, "https")     ? std::string_view("https")
                   : equals_ignore_case(forwarded, "http")      ? std::string_view("http")
                                                                : connection_scheme;
  }
  if (options.edits_forwarded()) [[unlikely]] {
    const bool ours = options.use_remote_address && options.xff_num_trusted_hops == 0;
    if (options.append_x_forwarded_port && (ours || !headers.has(HeaderId::kXForwardedPort)))
      room &= headers.set(HeaderId::kXForwardedPort, scratch.decimal(downstream.local_port));
    if (options.scheme_overwrite != SchemeTransform::kNo) {
      head->scheme = options.scheme_overwrite == SchemeTransform::kHttps ? std::string_view("https") : std::string_view("http");
      room &= headers.set(HeaderId::kXForwardedProto, head->scheme);
    }
  }
  if (origin->internal) room &= headers.set(HeaderId::kXEnvoyInternal, "true");
  if (!options.via.empty()) room &= append_value(headers, HeaderId::kVia, ", ", options.via, scratch);
  if (origin->edge) room &= headers.set(HeaderId::kXEnvoyExternalAddress, address_text(origin->client, scratch));
  room &= set_request_id(headers, options, origin->edge, random, scratch);
  return room && !scratch.overflowed();
}

void format_uuid(const uint64_t random[2], char out[kUuidBytes]) {
  // RFC 9562 5.4: version 4 in digit 12, variant 10 in the first bits of digit 16. The version digit is also Envoy's "no trace".
  const uint64_t high = (random[0] & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (random[1] & ~(uint64_t{3} << 62)) | uint64_t{2} << 62;
#if defined(__SSSE3__)
  // Digits 0 to 15 in `a`, 16 to 31 in `b`, then moved apart where the dashes go.
  const __m128i digits = _mm_setr_epi8('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f');
  const __m128i bytes =
      _mm_set_epi64x(static_cast<int64_t>(__builtin_bswap64(low)), static_cast<int64_t>(__builtin_bswap64(high)));
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i upper = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble), lower = _mm_and_si128(bytes, nibble);
  const __m128i a = _mm_shuffle_epi8(digits, _mm_unpacklo_epi8(upper, lower));
  const __m128i b = _mm_shuffle_epi8(digits, _mm_unpackhi_epi8(upper, lower));
  const auto spread = [](__m128i text, __m128i from, __m128i dashes) {
    return _mm_or_si128(_mm_shuffle_epi8(text, from), dashes);
  };
  const char d = '-';
  const __m128i first = spread(a, _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -1, 8, 9, 10, 11, -1, 12, 13),
                               _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, d, 0, 0, 0, 0, d, 0, 0));
  const __m128i second = spread(_mm_alignr_epi8(b, a, 14), _mm_setr_epi8(0, 1, -1, 2, 3, 4, 5, -1, 6, 7, 8, 9, 10, 11, 12, 13),
                                _mm_setr_epi8(0, 0, d, 0, 0, 0, 0, d, 0, 0, 0, 0, 0, 0, 0, 0));
  const uint32_t last = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_srli_si128(b, 12)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), first);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), second);
  std::memcpy(out + 32, &last, sizeof last);
#else
  char* p = out;
  for (int digit = 0; digit < 32; ++digit) {
    if (digit == 8 || digit == 12 || digit == 16 || digit == 20) *p++ = '-';
    const uint64_t half = digit < 16 ? high : low;
    *p++ = "0123456789abcdef"[half >> (60 - 4 * (digit & 15)) & 15];
  }
#endif
}

bool count_down_forwards(RequestHead* head, Scratch& scratch) {
  constexpr size_t kMostDigits = 9;  // larger values are as good as none
  if (head->method != "OPTIONS" && head->method != "TRACE") return true;
  for (Header& h : std::span(head->headers.storage(), head->headers.size())) {
    if (h.id != HeaderId::kOther || h.name != "max-forwards") continue;
    if (h.value.empty() || h.value.size() > kMostDigits) return true;
    uint32_t left = 0;
    for (const char c : h.value) {
      if (c < '0' || c > '9') return true;
      left = left * 10 + static_cast<uint32_t>(c - '0');
    }
    if (left == 0) return false;
    h.value = scratch.decimal(left - 1);
    return true;
  }
  return true;
}

bool rewrite_path(RequestHead* head, size_t matched, std::string_view replacement, const ForwardOptions& options,
                  Scratch& scratch) {
  MILLRACE_ASSERT(matched <= head->path.size(), "the matched part is part of the path");
  const std::string_view old = head->path;
  const std::string_view rewritten = scratch.concat({replacement, old.substr(matched)});
  if (scratch.overflowed()) return false;
  head->path = rewritten;
  return options.suppress_envoy_headers || head->headers.set(HeaderId::kXEnvoyOriginalPath, old);
}

bool rewrite_host(RequestHead* head, std::string_view host, bool append_x_forwarded_host, Scratch& scratch, bool keep_original) {
  const std::string_view old = head->authority;
  bool room = true;
  if (!old.empty()) {
    if (keep_original) room &= head->headers.set(HeaderId::kXEnvoyOriginalHost, old);
    if (append_x_forwarded_host) {
      const std::string_view list = head->headers.get(HeaderId::kXForwardedHost);
      const size_t comma = list.rfind(',');
      const std::string_view last = trim(comma == std::string_view::npos ? list : list.substr(comma + 1));
      if (last != old) room &= append_value(head->headers, HeaderId::kXForwardedHost, ",", old, scratch);
    }
  }
  head->authority = host;
  return room && !scratch.overflowed();
}

void remove_retry_fields(HeaderTable& headers) {
  if (!headers.may_have_guarded_names()) return;
  headers.remove_if([](const Header& h) {
    return h.id == HeaderId::kOther && h.name.starts_with(kEnvoyPrefix) &&
           is_one_of(h.name.substr(kEnvoyPrefix.size()), kRetryNames);
  });
}

bool mutate_upstream_request(RequestHead* head, const ForwardOptions& options, uint32_t timeout_ms, Scratch& scratch) {
  if (options.suppress_envoy_headers || timeout_ms == 0) return true;
  const std::string_view text = scratch.decimal(timeout_ms);
  return !scratch.overflowed() && head->headers.set(HeaderId::kXEnvoyExpectedRqTimeoutMs, text);
}

bool mutate_upstream_response(ResponseHead* head, const ForwardOptions& options, uint64_t service_time_ms, Scratch& scratch) {
  if (options.suppress_envoy_headers || service_time_ms == kRequestNotSent) return true;
  const std::string_view text = scratch.decimal(service_time_ms);
  return !scratch.overflowed() && head->headers.set(HeaderId::kXEnvoyUpstreamServiceTime, text);
}

bool mutate_response(ResponseHead* head, const ForwardOptions& options, const ResponseFacts& facts, Scratch& scratch) {
  HeaderTable& headers = head->headers;
  if ((headers.present() & (kHopByHopIds | kUpgradeIds)) != 0)
    headers.remove_ids(kHopByHopIds | (facts.upgrade && is_upgrade(headers) ? 0 : kUpgradeIds));
  bool room = true;
  if (!headers.has(HeaderId::kDate) && !facts.date.empty()) room &= headers.push({"date", facts.date, HeaderId::kDate});
  const bool overwrite = options.server_header == ServerHeaderMode::kOverwrite ||
                         (options.server_header == ServerHeaderMode::kAppendIfAbsent && !headers.has(HeaderId::kServer));
  if (overwrite) room &= headers.set(HeaderId::kServer, options.server_name);
  if (options.always_set_request_id_in_response && !facts.request_id.empty())
    room &= headers.set(HeaderId::kXRequestId, facts.request_id);
  if (!options.via.empty()) room &= append_value(headers, HeaderId::kVia, ", ", options.via, scratch);
  return room && !scratch.overflowed();
}

const std::array<AddressRange, 6> kPrivateRanges = {{{base::IpAddress::v4(0x0a000000), 8},
                                                     {base::IpAddress::v4(0xac100000), 12},
                                                     {base::IpAddress::v4(0xc0a80000), 16},
                                                     {base::IpAddress::v4(0x7f000001), 32},
                                                     {{{0xfc}}, 7},
                                                     {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}, 128}}};

bool is_internal_address(const base::IpAddress& a, const ForwardOptions& options) {
  for (uint32_t i = 0; i < options.internal_range_count; ++i)
    if (a.in_prefix(options.internal_ranges[i].network, options.internal_ranges[i].prefix_bits)) return true;
  return false;
}

bool strip_host(RequestHead* head, const ForwardOptions& options, uint16_t local_port, Scratch& scratch,
                std::string_view* with_port) {
  // Where the colon of the port stands (HeaderUtility::getPortStart): outside of [].
  const auto port_mark = [](std::string_view host) {
    const size_t colon = host.rfind(':');
    if (colon == std::string_view::npos || host.find(']', colon) != std::string_view::npos) return std::string_view::npos;
    return colon;
  };
  const size_t mark = port_mark(head->authority);
  if (const std::string_view host = head->authority.substr(0, mark); options.strip_trailing_host_dot && host.ends_with('.')) {
    const std::string_view bare = host.substr(0, host.size() - 1);
    head->authority = mark == std::string_view::npos ? bare : scratch.concat({bare, head->authority.substr(mark)});
    if (scratch.overflowed()) return false;
  }
  *with_port = head->authority;
  if (options.strip_port == StripPortMode::kNo) return true;
  const size_t colon = port_mark(head->authority);
  if (colon == std::string_view::npos) return true;
  const std::string_view digits = head->authority.substr(colon + 1);
  uint32_t port = 0;
  bool number = !digits.empty() && digits.size() <= 5;
  for (const char c : digits) {
    number = number && c >= '0' && c <= '9';
    port = port * 10 + static_cast<uint32_t>(c - '0');
  }
  if (number && (options.strip_port == StripPortMode::kAny || port == local_port))
    head->authority = head->authority.substr(0, colon);
  return true;
}

bool is_loopback(const base::IpAddress& a) {
  if (a.is_v4()) return a.v4_host_order() >> 24 == 127;
  for (int i = 0; i < 15; ++i)
    if (a.bytes[static_cast<size_t>(i)] != 0) return false;
  return a.bytes[15] == 1;
}

bool address_from_xff(const HeaderTable& headers, uint32_t hops_from_right, base::IpAddress* address, bool* single) {
  *single = false;
  if (!headers.has(HeaderId::kXForwardedFor)) return false;
  uint32_t total = 0;  // members over all fields
  for (const Header& h : headers) {
    if (h.id != HeaderId::kXForwardedFor || h.value.empty()) continue;
    ++total;
    for (char c : h.value) total += c == ',';
  }
  *single = total == 1;
  if (hops_from_right >= total) return false;
  uint32_t wanted = total - 1 - hops_from_right;  // from the left
  for (const Header& h : headers) {
    if (h.id != HeaderId::kXForwardedFor || h.value.empty()) continue;
    std::string_view list = h.value;
    for (;;) {
      const size_t comma = list.find(',');
      if (wanted == 0) {
        const auto parsed = base::IpAddress::parse(trim(list.substr(0, comma)));
        if (parsed) *address = *parsed;
        return parsed.has_value();
      }
      --wanted;
      if (comma == std::string_view::npos) break;
      list = list.substr(comma + 1);
    }
  }
  return false;
}

}  // namespace millrace::http
