#include "lib/table/validate.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lib/base/hash.h"
#include "lib/table/ref_names.h"
#include "lib/table/retry_on.h"

namespace millrace::table {

namespace {

using base::Error;
using base::Status;

class Walker;

template <class T>
concept HasRefs = requires(const T& t, Walker& w) {
  t.refs(w);
};
template <class T>
inline constexpr bool kIsArray = false;
template <class T>
inline constexpr bool kIsArray<Array<T>> = true;

// Visits every reference of a root struct, depth first. The depth is that of the types: finite, and small.
class Walker {
 public:
  explicit Walker(std::span<const uint8_t> bytes)
      : base_(bytes.data()), size_(bytes.size()), budget_(bytes.size() + kValidatedElementsSlack) {}

  template <class Root>
  Status run() {
    const Root& root = *reinterpret_cast<const Root*>(base_);
    kind_ = root.header.kind;
    depth_ = 0;
    visit(root, 0);
    if (!failed_) return {};
    return Error{std::string(to_string(kind_)) + error_};
  }

  // A reference, called by refs().
  template <class T>
  void operator()(const Array<T>& a) {
    Frame& frame = frames_[depth_ - 1];
    ++frame.ordinal;
    if (failed_) return;
    if (a.count == 0) {
      if (a.offset > size_) fail("points past the end of the object");
      return;
    }
    if (a.offset < sizeof(ObjectHeader)) return fail("points into the object's header");
    if (a.offset % alignof(T) != 0) return fail("is not aligned");
    if (uint64_t{a.count} * sizeof(T) > size_ - std::min<uint64_t>(a.offset, size_))
      return fail("reaches past the end of the object");
    if constexpr (HasRefs<T> || kIsArray<T>) {
      const T* elements = a.begin(base_);
      for (uint32_t i = 0; i < a.count && !failed_; ++i) visit(elements[i], i);
    }
  }

  // ---- for the field checks below; all of them are no-ops once something failed
  void fail(const char* what) { fail_field(nullptr, what); }
  // `field`: a member without references of the struct being visited.
  void fail_field(const char* field, const char* what) {
    if (failed_) return;
    failed_ = true;
    for (uint32_t d = 0; d < depth_; ++d) {
      const Frame& f = frames_[d];
      if (d > 0) error_ += "[" + std::to_string(f.index) + "]";
      if (f.names != nullptr && f.ordinal >= 0 && static_cast<size_t>(f.ordinal) < f.name_count &&
          !(field != nullptr && d + 1 == depth_))
        error_ += std::string(d == 0 ? ": " : ".") + f.names[f.ordinal];
    }
    if (field != nullptr) error_ += std::string(depth_ == 1 ? ": " : ".") + field;
    error_ += std::string(" ") + what;
  }
  template <class Enum>
  void in_enum(const char* field, Enum value, Enum last) {
    if (static_cast<uint64_t>(value) > static_cast<uint64_t>(last)) fail_field(field, "is not one of its values");
  }
  void flag(const char* field, uint8_t value) {
    if (value > 1) fail_field(field, "is neither 0 nor 1");
  }
  void index(const char* field, uint64_t value, uint64_t limit) {
    if (value >= limit) fail_field(field, "is an index out of range");
  }
  // Every element of a checked array of indices.
  void indices(const char* field, const Array<uint32_t>& a, uint64_t limit, bool allow_none = false) {
    if (!spend(a.count)) return;
    for (uint32_t i = 0; i < a.count; ++i) {
      const uint32_t v = a.at(base_, i);
      if (v >= limit && !(allow_none && v == UINT32_MAX)) return fail_field(field, "holds an index out of range");
    }
  }
  bool spend(uint64_t elements) {
    if (failed_) return false;
    if (elements > budget_) {
      fail("makes the object larger to read than its size allows");
      return false;
    }
    budget_ -= elements;
    return true;
  }
  const uint8_t* base() const { return base_; }
  Kind kind() const { return kind_; }
  bool failed() const { return failed_; }
  template <class Root>
  const Root& root() const {
    return *reinterpret_cast<const Root*>(base_);
  }

 private:
  struct Frame {
    const char* const* names;
    size_t name_count;
    int ordinal;     // of the reference being visited; -1 before the first
    uint32_t index;  // of this struct in its array
  };
  static constexpr uint32_t kMaxDepth = 8;  // listener > filter_chains > access_logs > path is 4

  template <class T>
  void visit(const T& t, uint32_t i);

  const uint8_t* base_;
  uint64_t size_, budget_;
  Kind kind_{};
  Frame frames_[kMaxDepth];
  uint32_t depth_ = 0;
  bool failed_ = false;
  std::string error_;
};

// ---- what must hold of a struct beyond its references, once those are good ---------------------------------------------------

// Structs without rules of their own.
template <class T>
void check(const T&, Walker&) {}

constexpr uint32_t kSha256Bytes = 32, kMaxSniBytes = 255;

// Only a virtual host has regular expressions.
uint64_t regex_count(const Walker& w) { return w.kind() == Kind::kVirtualHost ? w.root<VirtualHost>().regexes.count : 0; }

void check(const ValueMatch& m, Walker& w) {
  w.in_enum("kind", m.kind, StringMatchKind::kRange);
  w.flag("invert", m.invert);
  w.flag("ignore_case", m.ignore_case);
  w.flag("treat_missing_as_empty", m.treat_missing_as_empty);
  if (m.header >= 64 && (m.header < kPseudoMethod || m.header > kPseudoScheme)) w.fail_field("header", "is not a known header");
  if (m.kind == StringMatchKind::kRegex) w.index("regex", m.regex, regex_count(w));
}
void check(const FormatPart& p, Walker& w) {
  w.in_enum("op", p.op, kLastFormatOp);
  w.in_enum("from", p.from, FormatMoment::kResponseLast);
  w.in_enum("to", p.to, FormatMoment::kResponseLast);
  w.in_enum("quote", p.quote, kLastFormatQuote);
  if (p.op == FormatOp::kCommonDuration) w.index("variant", p.variant, std::size(kPrecisionNs));
}
void check(const HeaderOption& o, Walker& w) {
  w.in_enum("append", o.append, HeaderAppend::kOverwriteIfExists);
  w.flag("keep_empty_value", o.keep_empty_value);
}

void check_weights(const Array<WeightedCluster>& clusters, uint32_t total, Walker& w) {
  if (w.failed()) return;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < clusters.count; ++i) sum += clusters.at(w.base(), i).weight;
  if (sum != total) return w.fail_field("total_weight", "is not the sum of the clusters' weights");
  if (sum == 0) w.fail_field("total_weight", "is 0: no cluster could be chosen");
}

void check(const UpgradeConfig& u, Walker& w) {
  w.flag("enabled", u.enabled);
  w.flag("terminate", u.terminate);
  w.flag("allow_post", u.allow_post);
  if (u.proxy_version > 2) w.fail_field("proxy_version", "is neither 0, 1 nor 2");
}
void check(const ResetHeader& h, Walker& w) { w.flag("unix_timestamp", h.unix_timestamp); }
void check(const RetryPolicy& p, Walker& w) {
  w.flag("previous_hosts", p.previous_hosts);
  if ((p.retry_on & ~kRetryOnAll) != 0) w.fail_field("retry_on", "has a bit that means nothing");
  if (p.base_interval_ms == 0) w.fail_field("base_interval_ms", "is 0");
  if (p.max_interval_ms < p.base_interval_ms) w.fail_field("max_interval_ms", "is less than the base");
  for (const uint32_t n : {p.status_codes.count, p.response_headers.count, p.request_headers.count, p.reset_headers.count})
    if (n > kMostRetryMatchers) w.fail_field("retry", "holds a list longer than an exchange copies");
  if (w.failed()) return;
  for (const Array<ValueMatch>* list : {&p.response_headers, &p.request_headers})
    for (uint32_t i = 0; i < list->count; ++i)
      if (list->at(w.base(), i).kind == StringMatchKind::kRegex) w.fail_field("retry", "holds a regular expression");
}
void check(const CorsPolicy& c, Walker& w) {
  w.flag("any_origin", c.any_origin);
  w.flag("allow_credentials", c.allow_credentials);
  w.flag("allow_private_network_access", c.allow_private_network_access);
  w.flag("forward_not_matching_preflights", c.forward_not_matching_preflights);
  if (c.enabled_denominator == 0) w.fail_field("enabled_denominator", "is 0");
  if (c.shadow_denominator == 0) w.fail_field("shadow_denominator", "is 0");
}
void check(const Route& r, Walker& w) {
  w.flag("count_in_request", r.count_in_request);
  w.flag("count_in_response", r.count_in_response);
  w.flag("tell_timeout_retry", r.tell_timeout_retry);
  if (r.retry.count > 1) w.fail_field("retry", "holds more than one policy");
  if (r.filters.count > 1) w.fail_field("filters", "holds more than one element");
  w.in_enum("path_kind", r.path_kind, PathKind::kConnect);
  w.in_enum("action", r.action, ActionKind::kDirectResponse);
  w.flag("case_sensitive", r.case_sensitive);
  w.flag("grpc_only", r.grpc_only);
  w.in_enum("presented", r.presented, CertificateMatch::kNo);
  w.in_enum("validated", r.validated, CertificateMatch::kNo);
  w.flag("has_prefix_rewrite", r.has_prefix_rewrite);
  w.flag("has_host_rewrite", r.has_host_rewrite);
  w.flag("auto_host_rewrite", r.auto_host_rewrite);
  w.flag("append_xfh", r.append_xfh);
  w.flag("redirect.strip_query", r.redirect.strip_query);
  w.flag("redirect.https_redirect", r.redirect.https_redirect);
  w.flag("redirect.has_path", r.redirect.has_path);
  w.flag("redirect.has_prefix", r.redirect.has_prefix);
  if (w.failed()) return;
  if (r.path_kind == PathKind::kRegex) w.index("path_regex", r.path_regex, regex_count(w));
  if (r.fraction_denominator == 0) w.fail_field("fraction_denominator", "is 0");
  const auto is_status = [](uint16_t s) { return s >= 100 && s <= 599; };
  if (!is_status(r.cluster_not_found_status)) w.fail_field("cluster_not_found_status", "is not an HTTP status");
  switch (r.action) {
    case ActionKind::kCluster:
      if (r.clusters.count != 1) w.fail_field("clusters", "does not hold exactly one cluster");
      break;
    case ActionKind::kWeightedClusters:
      if (r.clusters.count == 0) return w.fail_field("clusters", "is empty");
      check_weights(r.clusters, r.total_weight, w);
      break;
    case ActionKind::kRedirect:
      if (r.redirect.status < 300 || r.redirect.status > 399) w.fail_field("redirect.status", "is not a redirect");
      break;
    case ActionKind::kDirectResponse:
      if (!is_status(r.direct_status)) w.fail_field("direct_status", "is not an HTTP status");
      break;
  }
}
void check(const RegexDb& d, Walker& w) {
  const VirtualHost& host = w.root<VirtualHost>();
  w.in_enum("input", d.input, RegexInput::kQuery);
  w.indices("ids", d.ids, host.regexes.count, /*allow_none=*/true);
  if (d.best_rank != UINT32_MAX) w.index("best_rank", d.best_rank, std::max<uint32_t>(host.routes.count, 1));
}
void check(const Regex& r, Walker& w) {
  const VirtualHost& host = w.root<VirtualHost>();
  w.index("db", r.db, host.regex_dbs.count);
  w.indices("ranks", r.ranks, host.routes.count);
}
void check(const VirtualHost& v, Walker& w) {
  w.in_enum("require_tls", v.require_tls, RequireTls::kAll);
  if (v.index.offset % 8 != 0) w.fail_field("index", "is not aligned");
  if (w.failed()) return;
  // Positions need the databases' references, which only now are known to be good.
  for (uint32_t i = 0; i < v.regexes.count; ++i) {
    const Regex& r = v.regexes.at(&v, i);
    if (r.position >= v.regex_dbs.at(&v, r.db).ids.count) return w.fail_field("regexes", "holds a position beyond its database");
  }
}

// A hash table of index+1 into `entries`: power of two, at most half full (so a probe always meets an empty slot).
void check_slots(const char* field, const Array<uint32_t>& slots, const Array<DomainEntry>& entries, Walker& w) {
  if (w.failed()) return;
  if (slots.count == 0) {
    if (entries.count != 0) w.fail_field(field, "is missing");
    return;
  }
  if (!std::has_single_bit(slots.count)) return w.fail_field(field, "is no power of two");
  if (!w.spend(slots.count)) return;
  uint64_t used = 0;
  for (uint32_t i = 0; i < slots.count; ++i) {
    const uint32_t v = slots.at(w.base(), i);
    if (v > entries.count) return w.fail_field(field, "holds an index out of range");
    used += v != 0;
  }
  if (used * 2 > slots.count) w.fail_field(field, "is more than half full");
}
void check_lengths(const char* field, const Array<uint32_t>& lengths, Walker& w) {
  if (!w.spend(lengths.count)) return;
  for (uint32_t i = 1; i < lengths.count; ++i)
    if (lengths.at(w.base(), i) >= lengths.at(w.base(), i - 1)) return w.fail_field(field, "is not in descending order");
}
void check(const DomainEntry& d, Walker& w) {
  w.index("virtual_host", d.virtual_host, w.root<RouteTable>().virtual_hosts.count);
  if (!w.spend(d.text.count / 64)) return;
  if (d.hash != base::hash64(view(w.base(), d.text))) w.fail_field("hash", "is not that of the text");
}
void check(const RouteTable& t, Walker& w) {
  w.flag("ignore_port_in_host_matching", t.ignore_port_in_host_matching);
  w.flag("most_specific_header_mutations_wins", t.most_specific_header_mutations_wins);
  if (t.default_virtual_host != UINT32_MAX) w.index("default_virtual_host", t.default_virtual_host, t.virtual_hosts.count);
  check_slots("exact_slots", t.exact_slots, t.exact, w);
  check_slots("suffix_slots", t.suffix_slots, t.suffixes, w);
  check_slots("prefix_slots", t.prefix_slots, t.prefixes, w);
  check_lengths("suffix_lengths", t.suffix_lengths, w);
  check_lengths("prefix_lengths", t.prefix_lengths, w);
}

// Windows go to nghttp2 as 31 bits; the rest are counts that any value fits.
void check_http2(const Http2Options& o, Walker& w) {
  constexpr uint32_t kLargestWindow = 0x7fffffff, kMostPercent = 100;
  if (o.initial_stream_window_size > kLargestWindow || o.initial_connection_window_size > kLargestWindow)
    return w.fail_field("http2", "has a window above 2147483647");
  if (o.max_concurrent_streams == 0) return w.fail_field("http2", "allows no stream");
  if (o.keepalive_jitter_percent > kMostPercent) return w.fail_field("http2", "has a jitter above 100 %");
}
// Trees that fill their part of the array exactly; bounded, since a poll core walks them recursively.
bool is_filter_tree(const LogFilter* f, uint32_t nodes, uint32_t depth) {
  constexpr uint32_t kMostDepth = 16;
  if (depth > kMostDepth || f->nodes == 0 || f->nodes > nodes) return false;
  if (f->kind != LogFilterKind::kAnd && f->kind != LogFilterKind::kOr) return f->nodes == 1;
  uint32_t at = 1;
  while (at < f->nodes) {
    if (!is_filter_tree(f + at, f->nodes - at, depth + 1)) return false;
    at += f[at].nodes;
  }
  return true;
}
void check_filter(const Array<LogFilter>& filter, Walker& w) {
  if (w.failed() || filter.count == 0) return;
  const LogFilter* root = filter.begin(w.base());
  if (filter.count > kMaxLogFilterNodes || root->nodes != filter.count || !is_filter_tree(root, filter.count, 0))
    w.fail_field("filter", "is no tree of filters");
}
void check(const LogFilter& f, Walker& w) {
  w.in_enum("kind", f.kind, LogFilterKind::kLogType);
  w.in_enum("op", f.op, LogFilterOp::kAtMost);
  w.flag("exclude", f.exclude);
  w.flag("independent", f.independent);
  if (f.kind == LogFilterKind::kHeader && f.header.kind >= StringMatchKind::kRegex &&
      f.header.kind != StringMatchKind::kPresent && f.header.kind != StringMatchKind::kRange)
    w.fail_field("header.kind", "is not one of its values here");
  if (f.kind == LogFilterKind::kRuntime && f.denominator == 0) w.fail_field("denominator", "is 0");
}
void check(const AccessLog& a, Walker& w) {
  w.flag("json", a.json);
  w.flag("omit_empty_values", a.omit_empty_values);
  check_filter(a.filter, w);
}
void check(const LocalReplyMapper& m, Walker& w) {
  w.flag("has_body", m.has_body);
  w.flag("format.omit_empty_values", m.format.omit_empty_values);
  if (m.status != 0 && (m.status < 200 || m.status > 599)) w.fail_field("status", "is not an HTTP status");
  check_filter(m.filter, w);
}
void check(const Compressor& c, Walker& w) {
  w.in_enum("codec", c.codec, CompressionCodec::kZstd);
  w.flag("checksum", c.checksum);
  w.flag("no_literal_contexts", c.no_literal_contexts);
  w.flag("enabled", c.enabled);
  w.flag("disable_on_etag", c.disable_on_etag);
  w.flag("remove_accept_encoding", c.remove_accept_encoding);
  w.flag("choose_first", c.choose_first);
  w.flag("response_config", c.response_config);
  if (w.failed()) return;
  const auto within = [&](const char* field, uint8_t value, uint8_t least, uint8_t most) {
    if (value < least || value > most) w.fail_field(field, "is out of its range");
  };
  switch (c.codec) {
    case CompressionCodec::kGzip:
      within("level", c.level, 1, 9);
      within("strategy", c.strategy, 0, 4);
      within("window_bits", c.window_bits, 9, 15);
      within("memory_level", c.memory_level, 1, 9);
      break;
    case CompressionCodec::kBrotli:
      within("level", c.level, 0, kMostBrotliQuality);
      within("strategy", c.strategy, 0, 2);
      within("window_bits", c.window_bits, 10, 24);
      within("block_bits", c.block_bits, 16, 24);
      break;
    case CompressionCodec::kZstd:
      within("level", c.level, 1, kMostZstdLevel);
      within("strategy", c.strategy, 0, kMostZstdStrategy);
      break;
  }
  if (c.content_types.count == 0) w.fail_field("content_types", "is empty");
}
void check(const FilterChain& c, Walker& w) {
  w.in_enum("transport_protocol", c.transport_protocol, TransportProtocol::kRawBuffer);
  w.in_enum("filter", c.filter, NetworkFilterKind::kTcpProxy);
  w.flag("has_tls", c.has_tls);
  w.in_enum("tls.min_version", c.tls.min_version, TlsVersion::kTls13);
  w.in_enum("tls.max_version", c.tls.max_version, TlsVersion::kTls13);
  w.flag("tls.disable_tickets", c.tls.disable_tickets);
  w.flag("tls.require_client_certificate", c.tls.require_client_certificate);
  w.flag("tls.full_scan_certs", c.tls.full_scan_certs);
  w.flag("tls.prefer_client_ciphers", c.tls.prefer_client_ciphers);
  w.in_enum("tls.ocsp_policy", c.tls.ocsp_policy, OcspPolicy::kMustStaple);
  w.in_enum("hcm.forward_client_cert", c.hcm.forward_client_cert, ForwardClientCert::kAlwaysForwardOnly);
  w.in_enum("hcm.server_header", c.hcm.server_header, ServerHeader::kPassThrough);
  w.in_enum("hcm.escaped_slashes", c.hcm.escaped_slashes, EscapedSlashes::kUnescapeAndForward);
  w.flag("hcm.use_remote_address", c.hcm.use_remote_address);
  w.flag("hcm.skip_xff_append", c.hcm.skip_xff_append);
  w.flag("hcm.generate_request_id", c.hcm.generate_request_id);
  w.flag("hcm.preserve_external_request_id", c.hcm.preserve_external_request_id);
  w.flag("hcm.always_set_request_id_in_response", c.hcm.always_set_request_id_in_response);
  w.flag("hcm.normalize_path", c.hcm.normalize_path);
  w.flag("hcm.merge_slashes", c.hcm.merge_slashes);
  w.flag("hcm.accept_http_10", c.hcm.accept_http_10);
  w.flag("hcm.enable_trailers", c.hcm.enable_trailers);
  w.flag("hcm.allow_absolute_url", c.hcm.allow_absolute_url);
  w.flag("hcm.headers_with_underscores_reject", c.hcm.headers_with_underscores_reject);
  w.flag("hcm.headers_with_underscores_drop", c.hcm.headers_with_underscores_drop);
  w.flag("hcm.suppress_envoy_headers", c.hcm.suppress_envoy_headers);
  w.flag("hcm.allow_chunked_length", c.hcm.allow_chunked_length);
  w.in_enum("hcm.codec", c.hcm.codec, HttpCodec::kHttp2);
  w.flag("hcm.http2.allow_connect", c.hcm.http2.allow_connect);
  w.flag("hcm.http2.override_stream_error_on_invalid_http_message", c.hcm.http2.override_stream_error_on_invalid_http_message);
  if (c.filter == NetworkFilterKind::kHttpConnectionManager) check_http2(c.hcm.http2, w);
  w.in_enum("hcm.strip_port", c.hcm.strip_port, StripPort::kAny);
  w.in_enum("hcm.scheme_overwrite", c.hcm.scheme_overwrite, SchemeOverwrite::kHttps);
  w.flag("hcm.strip_trailing_host_dot", c.hcm.strip_trailing_host_dot);
  w.flag("hcm.append_x_forwarded_port", c.hcm.append_x_forwarded_port);
  w.flag("hcm.respect_expected_rq_timeout", c.hcm.respect_expected_rq_timeout);
  w.flag("hcm.local_reply_format.omit_empty_values", c.hcm.local_reply_format.omit_empty_values);
  if (c.hcm.compressors.count > kMostCompressors) w.fail_field("hcm.compressors", "holds more than 8 filters");
  if (c.hcm.grpc_web > c.hcm.compressors.count + 1) w.fail_field("hcm.grpc_web", "stands behind more compressors than there are");
  if (w.failed()) return;
  if (c.hcm.internal_ranges.count > kMaxInternalRanges)
    return w.fail_field("hcm.internal_ranges", "holds more than a policy has room for");
  for (uint32_t i = 0; i < c.hcm.internal_ranges.count; ++i) {
    const AddressRange& r = c.hcm.internal_ranges.at(w.base(), i);
    if (r.prefix_bits > (r.network.is_v4() ? 32 : 128))
      return w.fail_field("hcm.internal_ranges", "holds a prefix longer than its address");
  }
  if (w.failed()) return;
  if (c.has_tls != 0 && c.tls.min_version > c.tls.max_version) return w.fail_field("tls.min_version", "is above tls.max_version");
  if (c.filter == NetworkFilterKind::kTcpProxy) {
    if (c.tcp.clusters.count == 0) return w.fail_field("tcp.clusters", "is empty");
    if (c.tcp.clusters.count > 1) check_weights(c.tcp.clusters, c.tcp.total_weight, w);
  }
}
void check(const ServerNameEntry& e, Walker& w) {
  w.indices("chains", e.chains, w.root<Listener>().filter_chains.count);
  if (!w.spend(e.text.count / 64)) return;
  if (e.hash != base::hash64(view(w.base(), e.text))) w.fail_field("hash", "is not that of the text");
}
void check_sorted(const char* field, const Array<ServerNameEntry>& names, Walker& w) {
  if (w.failed()) return;
  for (uint32_t i = 1; i < names.count; ++i)
    if (view(w.base(), names.at(w.base(), i - 1).text) >= view(w.base(), names.at(w.base(), i).text))
      return w.fail_field(field, "is not sorted by text");
}
void check_tcp(const TcpOptions& o, Walker& w) {
  w.in_enum("tcp.keepalive", o.keepalive, TcpKeepalive::kOn);
  w.in_enum("tcp.congestion", o.congestion, TcpCongestion::kBbr);
  if (o.max_segment != 0 && o.max_segment < kLeastMaxSegment) w.fail_field("tcp.max_segment", "is too small");
}
void check(const Listener& l, Walker& w) {
  check_tcp(l.tcp, w);
  w.flag("tls_inspector", l.tls_inspector);
  w.flag("continue_on_listener_filters_timeout", l.continue_on_listener_filters_timeout);
  w.flag("proxy_protocol", l.proxy_protocol);
  w.flag("proxy_optional", l.proxy_optional);
  w.flag("proxy_refuse_v1", l.proxy_refuse_v1);
  w.flag("proxy_refuse_v2", l.proxy_refuse_v2);
  w.flag("ja3", l.ja3);
  w.flag("ja4", l.ja4);
  if (l.port == 0) w.fail_field("port", "is 0");
  if (l.default_filter_chain != UINT32_MAX) w.index("default_filter_chain", l.default_filter_chain, l.filter_chains.count);
  w.indices("any_name_chains", l.any_name_chains, l.filter_chains.count);
  check_sorted("exact_names", l.exact_names, w);
  check_sorted("wildcard_names", l.wildcard_names, w);
}

void check_proxy(const ProxyHeaderOut& p, Walker& w) {
  if (p.version > 2) w.fail_field("proxy.version", "is neither 0, 1 nor 2");
  if (p.added.count > kMostAddedTlvBytes) w.fail_field("proxy.added", "is longer than its limit");
  if (w.failed()) return;
  const uint8_t* bytes = p.added.begin(w.base());
  for (uint32_t at = 0; at < p.added.count;) {
    const uint32_t left = p.added.count - at;
    const uint32_t size = left < kTlvHeadBytes ? UINT32_MAX : kTlvHeadBytes + base::load_be16(bytes + at + 1);
    if (size > left) return w.fail_field("proxy.added", "holds a TLV that runs out of it");
    at += size;
  }
}
void check_statuses(const char* field, const Array<StatusRange>& ranges, Walker& w) {
  constexpr uint16_t kFirst = 100, kEnd = 600;
  for (uint32_t i = 0; i < ranges.count; ++i) {
    const StatusRange& r = ranges.at(w.base(), i);
    if (r.from < kFirst || r.from >= r.to || r.to > kEnd) return w.fail_field(field, "holds a range that is none of statuses");
  }
}
void check_health_check(const HealthCheck& h, Walker& w) {
  w.in_enum("health_check.kind", h.kind, HealthCheckKind::kGrpc);
  w.flag("health_check.reuse_connection", h.reuse_connection);
  w.flag("health_check.head_method", h.head_method);
  w.flag("health_check.http2", h.http2);
  if (h.timeout_ms == 0) w.fail_field("health_check.timeout_ms", "is 0");
  for (const uint32_t ms : {h.interval_ms, h.no_traffic_interval_ms, h.no_traffic_healthy_interval_ms, h.unhealthy_interval_ms,
                            h.unhealthy_edge_interval_ms, h.healthy_edge_interval_ms})
    if (ms == 0) return w.fail_field("health_check.interval_ms", "is 0 (or one of the other intervals is)");
  if (w.failed()) return;
  check_statuses("health_check.expected", h.expected, w);
  check_statuses("health_check.retriable", h.retriable, w);
}
void check(const HealthPayload& p, Walker& w) {
  if (p.bytes.count == 0 || p.bytes.count > kMostHealthPayload) w.fail_field("bytes", "is empty or longer than its limit");
}
void check(const Cluster& c, Walker& w) {
  w.in_enum("lb_policy", c.lb_policy, LbPolicy::kMaglev);
  w.flag("fail_on_panic", c.fail_on_panic);
  w.flag("locality_weighted", c.locality_weighted);
  w.flag("hash_hostname", c.hash_hostname);
  w.flag("ring_murmur", c.ring_murmur);
  if (c.panic_threshold > 100) w.fail_field("panic_threshold", "is above 100");
  if (c.ring_min == 0 || c.ring_min > c.ring_max || c.ring_max > kMostRingSize) w.fail_field("ring_min", "is no size of a ring");
  if (c.maglev_size < 2 || c.maglev_size > kMostMaglevTable) w.fail_field("maglev_size", "is no size of a table");
  w.flag("enable_trailers", c.enable_trailers);
  check_tcp(c.tcp, w);
  if (c.tcp.fast_open_queue != 0) w.fail_field("tcp.fast_open_queue", "is a listener's");
  w.flag("has_retry_budget", c.has_retry_budget);
  w.flag("has_tls", c.has_tls);
  w.flag("outlier.present", c.outlier.present);
  if (c.outlier.interval_ms == 0) w.fail_field("outlier.interval_ms", "is 0");
  w.in_enum("tls.min_version", c.tls.min_version, TlsVersion::kTls13);
  w.in_enum("tls.max_version", c.tls.max_version, TlsVersion::kTls13);
  w.flag("tls.auto_host_sni", c.tls.auto_host_sni);
  w.flag("tls.auto_sni_san_validation", c.tls.auto_sni_san_validation);
  w.flag("tls.auto_sni", c.tls.auto_sni);
  w.in_enum("http", c.http, UpstreamHttp::kAsDownstream);
  w.flag("http2.allow_connect", c.http2.allow_connect);
  w.flag("http2.override_stream_error_on_invalid_http_message", c.http2.override_stream_error_on_invalid_http_message);
  check_http2(c.http2, w);
  check_proxy(c.proxy, w);
  if (w.failed()) return;
  check_health_check(c.health_check, w);
  if (w.failed()) return;
  if (c.has_tls != 0 && c.tls.min_version > c.tls.max_version) return w.fail_field("tls.min_version", "is above tls.max_version");
  if (c.tls.secrets.count > 1) return w.fail_field("tls.secrets", "holds more than one certificate");
  if (c.tls.sni.count > kMaxSniBytes) w.fail_field("tls.sni", "is longer than 255 bytes");
}
void check(const SanMatch& m, Walker& w) {
  w.in_enum("type", m.type, SanType::kEmail);
  w.in_enum("kind", m.kind, StringMatchKind::kContains);
  w.flag("ignore_case", m.ignore_case);
}
void check(const Secret& s, Walker& w) {
  w.in_enum("kind", s.kind, SecretKind::kTicketKeys);
  if (s.ticket_keys.count % kTicketKeyBytes != 0) w.fail_field("ticket_keys", "is no multiple of 80 bytes");
  if (s.ticket_keys.count > kTicketKeyBytes * kMaxTicketKeys) w.fail_field("ticket_keys", "holds more than 16 keys");
  if (s.kind == SecretKind::kTicketKeys && s.ticket_keys.count == 0) w.fail_field("ticket_keys", "is empty");
  w.flag("only_leaf_crl", s.only_leaf_crl);
  w.flag("allow_expired", s.allow_expired);
  w.flag("accept_untrusted", s.accept_untrusted);
  if (s.certificate_hashes.count % kSha256Bytes != 0) w.fail_field("certificate_hashes", "is no multiple of 32 bytes");
  if (s.spki_hashes.count % kSha256Bytes != 0) w.fail_field("spki_hashes", "is no multiple of 32 bytes");
}
void check(const Endpoint& e, Walker& w) {
  w.in_enum("state", e.state, EndpointState::kDegraded);
  w.flag("no_health_check", e.no_health_check);
  if (e.health_port > UINT16_MAX) w.fail_field("health_port", "is no port");
  if (!w.failed()) w.index("locality", e.locality, std::max(w.root<EndpointSet>().localities.count, 1u));
  if (e.port == 0) w.fail_field("port", "is 0");
  if (e.weight == 0) w.fail_field("weight", "is 0");
}
void check(const CookieAttribute&, Walker&) {}
void check(const HashPolicy& p, Walker& w) {
  w.in_enum("kind", p.kind, HashPolicyKind::kQueryParameter);
  w.flag("has_ttl", p.has_ttl);
  w.flag("terminal", p.terminal);
}
void check(const EndpointSet& s, Walker& w) {
  if (w.failed()) return;
  uint64_t weights = 0;
  for (uint32_t i = 0; i < s.localities.count; ++i) {
    const Locality& l = s.localities.at(&s, i);
    if (l.priority > kMostPriority) return w.fail_field("localities", "holds a priority above 128");
    if (i > 0 && l.priority < s.localities.at(&s, i - 1).priority)
      return w.fail_field("localities", "is not ordered by priority");
    weights += l.weight;
  }
  if (weights > UINT32_MAX) return w.fail_field("localities", "holds weights beyond 32 bits");
  uint64_t weight = 0, healthy = 0;
  for (uint32_t i = 0; i < s.endpoints.count; ++i) {
    const Endpoint& e = s.endpoints.at(&s, i);
    if (e.state != EndpointState::kHealthy) continue;
    weight += e.weight;
    ++healthy;
  }
  if (weight != s.total_weight) w.fail_field("total_weight", "is not the sum of the healthy endpoints' weights");
  if (healthy != s.healthy) w.fail_field("healthy", "is not the number of healthy endpoints");
}

template <class T>
void Walker::visit(const T& t, uint32_t i) {
  if (!spend(1)) return;
  MILLRACE_ASSERT(depth_ < kMaxDepth, "no type nests deeper");
  if constexpr (kIsArray<T>) {  // an array of strings
    frames_[depth_++] = {nullptr, 0, -1, i};
    (*this)(t);
  } else {
    frames_[depth_++] = {RefNames<T>::kNames, std::size(RefNames<T>::kNames), -1, i};
    t.refs(*this);
    if (!failed_) check(t, *this);
  }
  --depth_;
}

Status check_header(std::span<const uint8_t> bytes, bool verify_checksum) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % 8 != 0) return Error{"object is not aligned"};
  if (bytes.size() < sizeof(ObjectHeader)) return Error{"object is shorter than its header"};
  ObjectHeader h;
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != kObjectMagic) return Error{"not a table object (magic)"};
  if (h.layout_version != kLayoutVersion)
    return Error{"object of layout version " + std::to_string(h.layout_version) + ", this program knows " +
                 std::to_string(kLayoutVersion)};
  if (root_struct_size(h.kind) == 0) return Error{"object of unknown kind " + std::to_string(static_cast<int>(h.kind))};
  const std::string kind = to_string(h.kind);
  if (h.size != bytes.size()) return Error{kind + ": size field disagrees with the bytes there are"};
  if (h.size % 8 != 0) return Error{kind + ": size is no multiple of 8"};
  if (h.size < root_struct_size(h.kind)) return Error{kind + ": shorter than its root"};
  if (h.id == kNoObject) return Error{kind + ": id is 0"};
  if (verify_checksum && base::crc32c(bytes.subspan(sizeof h)) != h.checksum) return Error{kind + ": checksum is wrong"};
  return {};
}

}  // namespace

Status validate_object(std::span<const uint8_t> bytes, bool verify_checksum) {
  if (Status s = check_header(bytes, verify_checksum); !s.ok()) return s;
  Walker w(bytes);
  switch (reinterpret_cast<const ObjectHeader*>(bytes.data())->kind) {
    case Kind::kListener:
      return w.run<Listener>();
    case Kind::kRouteTable:
      return w.run<RouteTable>();
    case Kind::kVirtualHost:
      return w.run<VirtualHost>();
    case Kind::kCluster:
      return w.run<Cluster>();
    case Kind::kEndpointSet:
      return w.run<EndpointSet>();
    case Kind::kSecret:
      return w.run<Secret>();
    case Kind::kCount:
      break;
  }
  return Error{"object of unknown kind"};
}

Status validate_snapshot(std::span<const uint8_t> bytes, uint64_t arena_size) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % 8 != 0) return Error{"snapshot root is not aligned"};
  if (bytes.size() < sizeof(SnapshotHeader)) return Error{"snapshot root is shorter than its header"};
  SnapshotHeader h;
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.magic != kSnapshotMagic) return Error{"not a snapshot root (magic)"};
  if (h.layout_version != kLayoutVersion)
    return Error{"snapshot of layout version " + std::to_string(h.layout_version) + ", this program knows " +
                 std::to_string(kLayoutVersion)};
  if (snapshot_size(h.count) > bytes.size()) return Error{"snapshot root reaches past the end of the arena"};
  const auto refs_bytes = bytes.subspan(sizeof h, uint64_t{h.count} * sizeof(ObjectRef));
  if (base::crc32c(refs_bytes) != h.checksum) return Error{"snapshot root: checksum is wrong"};
  if (h.epoch == 0) return Error{"snapshot root: epoch is 0"};
  const ObjectRef* refs = reinterpret_cast<const ObjectRef*>(refs_bytes.data());
  for (uint32_t i = 0; i < h.count; ++i) {
    const ObjectRef& r = refs[i];
    const auto bad = [&](const char* what) { return Error{"snapshot reference " + std::to_string(i) + ": " + what}; };
    if (root_struct_size(r.kind) == 0) return bad("unknown kind");
    if (r.id == kNoObject) return bad("id is 0");
    if (r.size < root_struct_size(r.kind) || r.size % 8 != 0) return bad("impossible size");
    if (r.arena_offset == 0 || r.arena_offset % 8 != 0) return bad("offset is 0 or not aligned");
    if (r.arena_offset > arena_size || r.size > arena_size - r.arena_offset) return bad("reaches past the end of the arena");
    if (i > 0 && !(refs[i - 1].kind < r.kind || (refs[i - 1].kind == r.kind && refs[i - 1].id < r.id)))
      return bad("not in ascending order");
  }
  return {};
}

const char* root_struct_name(Kind k) {
  switch (k) {
    case Kind::kListener:
      return "Listener";
    case Kind::kRouteTable:
      return "RouteTable";
    case Kind::kVirtualHost:
      return "VirtualHost";
    case Kind::kCluster:
      return "Cluster";
    case Kind::kEndpointSet:
      return "EndpointSet";
    case Kind::kSecret:
      return "Secret";
    case Kind::kCount:
      break;
  }
  return "";
}

size_t root_struct_size(Kind k) {
  switch (k) {
    case Kind::kListener:
      return sizeof(Listener);
    case Kind::kRouteTable:
      return sizeof(RouteTable);
    case Kind::kVirtualHost:
      return sizeof(VirtualHost);
    case Kind::kCluster:
      return sizeof(Cluster);
    case Kind::kEndpointSet:
      return sizeof(EndpointSet);
    case Kind::kSecret:
      return sizeof(Secret);
    case Kind::kCount:
      break;
  }
  return 0;
}

}  // namespace millrace::table
