#include "control/upstream_http.h"

#include <string>

#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/validate.h"
#include "control/validate_rules.h"
#include "lib/base/ascii.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace core = envoy::config::core::v3;

constexpr std::string_view kHttpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
constexpr uint32_t kMostHeaders = 1000;  // what a head has room for

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

// Of the messages that listeners and clusters share, clusters honour a part.
bool common_options(const core::HttpProtocolOptions& c, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (c.has_idle_timeout()) ok = duration(c.idle_timeout(), Path(at, "idle_timeout"), e);
  const auto not_here = [&](bool set, const Path& path) {
    if (set) ok = complain(path, e, "not supported by Millrace on clusters yet");
  };
  const uint32_t headers = c.max_headers_count().value();
  if (c.has_max_headers_count() && (headers == 0 || headers > kMostHeaders))
    ok = complain(Path(at, "max_headers_count"), e, "must be from 1 to " + std::to_string(kMostHeaders));
  not_here(c.has_max_connection_duration(), Path(at, "max_connection_duration"));
  not_here(c.has_max_stream_duration(), Path(at, "max_stream_duration"));
  not_here(c.headers_with_underscores_action() != core::HttpProtocolOptions::ALLOW, Path(at, "headers_with_underscores_action"));
  return ok;
}

bool http1_options(const core::Http1ProtocolOptions& h, const Path& at, ErrorSink& e) {
  bool ok = true;
  const auto not_here = [&](bool set, const char* field) {
    if (set) ok = complain(Path(at, field), e, "not supported by Millrace on clusters yet");
  };
  not_here(h.has_allow_absolute_url(), "allow_absolute_url");
  not_here(h.accept_http_10(), "accept_http_10");
  not_here(h.allow_chunked_length(), "allow_chunked_length");
  not_here(!h.default_host_for_http_10().empty(), "default_host_for_http_10");
  return ok;
}

// Those messages that hold both.
template <class M>
bool both_options(const M& m, const Path& at, ErrorSink& e) {
  const bool ok = http1_options(m.http_protocol_options(), Path(at, "http_protocol_options"), e);
  return http2_options(m.http2_protocol_options(), Path(at, "http2_protocol_options"), e) && ok;
}

// The name of a request in TLS towards its endpoint.
bool name_options(const core::UpstreamHttpProtocolOptions& o, const UpstreamTransport& transport, const Path& at, ErrorSink& e) {
  bool ok = true;
  const Path san(at, "auto_san_validation"), header(at, "override_auto_sni_header");
  if (o.auto_sni() && !transport.tls) ok = complain(Path(at, "auto_sni"), e, "needs TLS towards endpoints (transport_socket)");
  if (o.auto_san_validation() && !o.auto_sni())
    ok = complain(san, e, "not supported by Millrace without auto_sni: the name that is sent is the one that is compared");
  const auto& common = transport.context.common_tls_context();
  const auto& judged = common.validation_context();
  const bool elsewhere = common.has_validation_context_sds_secret_config() || common.has_combined_validation_context();
  if (o.auto_san_validation() && transport.tls && !elsewhere && !judged.has_trusted_ca() && !judged.has_system_root_certs())
    ok = complain(san, e, "needs a validation_context with a trusted_ca");
  if (!o.override_auto_sni_header().empty()) ok = header_name(o.override_auto_sni_header(), header, e) && ok;
  return ok;
}

bool typed_options(const UpstreamHttpOptions& o, const UpstreamTransport& transport, const Path& at, ErrorSink& e) {
  const bool tls = transport.tls;
  bool ok = common_options(o.common_http_protocol_options(), Path(at, "common_http_protocol_options"), e);
  ok = name_options(o.upstream_http_protocol_options(), transport, Path(at, "upstream_http_protocol_options"), e) && ok;
  const Path config(at, "explicit_http_config"), own(at, "auto_config");
  switch (o.upstream_protocol_options_case()) {
    case UpstreamHttpOptions::kExplicitHttpConfig:
      if (o.explicit_http_config().protocol_config_case() == UpstreamHttpOptions::ExplicitHttpConfig::PROTOCOL_CONFIG_NOT_SET)
        return complain(config, e, "needs http_protocol_options or http2_protocol_options");
      return both_options(o.explicit_http_config(), config, e) && ok;
    case UpstreamHttpOptions::kUseDownstreamProtocolConfig:
      return both_options(o.use_downstream_protocol_config(), Path(at, "use_downstream_protocol_config"), e) && ok;
    case UpstreamHttpOptions::kAutoConfig:
      if (!tls) return complain(own, e, "needs TLS towards endpoints (transport_socket), whose ALPN decides");
      return both_options(o.auto_config(), own, e) && ok;
    case UpstreamHttpOptions::UPSTREAM_PROTOCOL_OPTIONS_NOT_SET:
      break;
  }
  return complain(config, e, "is required, or use_downstream_protocol_config, or auto_config");
}

}  // namespace

bool validate_upstream_http(const api::Cluster& c, const Path& root, ErrorSink& e) {
  bool ok = true;
  for (const auto& [name, any] : c.typed_extension_protocol_options()) {
    const Path options(root, "typed_extension_protocol_options", std::string_view(name));
    UpstreamHttpOptions o;
    if (name != kHttpOptions) ok = complain(options, e, "not supported by Millrace yet; known is " + std::string(kHttpOptions));
    else if (!any.UnpackTo(&o)) ok = complain(options, e, "must be a " + std::string(kHttpOptions));
    else ok = known_fields_only(o, options, e) && typed_options(o, unwrap(c.transport_socket()), options, e) && ok;
  }
  const auto one_way = [&](bool set, const char* field) {  // Envoy would not look at it
    if (set && !c.typed_extension_protocol_options().empty())
      ok = complain(Path(root, field), e, "has no effect beside typed_extension_protocol_options");
  };
  one_way(c.has_http_protocol_options(), "http_protocol_options");
  one_way(c.has_http2_protocol_options(), "http2_protocol_options");
  one_way(c.has_common_http_protocol_options(), "common_http_protocol_options");
  one_way(c.has_max_requests_per_connection(), "max_requests_per_connection");
  if (c.has_http_protocol_options() && c.has_http2_protocol_options())
    ok = complain(Path(root, "http2_protocol_options"), e, "cannot be combined with http_protocol_options");
  ok = common_options(c.common_http_protocol_options(), Path(root, "common_http_protocol_options"), e) && ok;
  return both_options(c, root, e) && ok;
}

UpstreamHttpOptions upstream_http_options(const api::Cluster& c) {
  UpstreamHttpOptions o;
  for (const auto& [name, any] : c.typed_extension_protocol_options())
    if (any.UnpackTo(&o)) return o;
  *o.mutable_common_http_protocol_options() = c.common_http_protocol_options();
  if (c.has_max_requests_per_connection() && !o.common_http_protocol_options().has_max_requests_per_connection())
    *o.mutable_common_http_protocol_options()->mutable_max_requests_per_connection() = c.max_requests_per_connection();
  if (c.has_http2_protocol_options())
    *o.mutable_explicit_http_config()->mutable_http2_protocol_options() = c.http2_protocol_options();
  else *o.mutable_explicit_http_config()->mutable_http_protocol_options() = c.http_protocol_options();
  return o;
}

void compile_http2(const core::Http2ProtocolOptions& o, table::Http2Options* out) {
  const auto take = [](bool has, uint32_t value, uint32_t* to) {
    if (has) *to = value;
  };
  take(o.has_hpack_table_size(), o.hpack_table_size().value(), &out->hpack_table_size);
  take(o.has_max_concurrent_streams(), o.max_concurrent_streams().value(), &out->max_concurrent_streams);
  take(o.has_initial_stream_window_size(), o.initial_stream_window_size().value(), &out->initial_stream_window_size);
  take(o.has_initial_connection_window_size(), o.initial_connection_window_size().value(), &out->initial_connection_window_size);
  take(o.has_max_outbound_frames(), o.max_outbound_frames().value(), &out->max_outbound_frames);
  take(o.has_max_outbound_control_frames(), o.max_outbound_control_frames().value(), &out->max_outbound_control_frames);
  take(o.has_max_consecutive_inbound_frames_with_empty_payload(), o.max_consecutive_inbound_frames_with_empty_payload().value(),
       &out->max_consecutive_inbound_frames_with_empty_payload);
  take(o.has_max_inbound_priority_frames_per_stream(), o.max_inbound_priority_frames_per_stream().value(),
       &out->max_inbound_priority_frames_per_stream);
  take(o.has_max_inbound_window_update_frames_per_data_frame_sent(),
       o.max_inbound_window_update_frames_per_data_frame_sent().value(),
       &out->max_inbound_window_update_frames_per_data_frame_sent);
  out->allow_connect = o.allow_connect();
  out->override_stream_error_on_invalid_http_message = o.override_stream_error_on_invalid_http_message().value();
  const core::KeepaliveSettings& k = o.connection_keepalive();
  if (!o.has_connection_keepalive()) return;
  out->keepalive_timeout_ms = ms_or(true, k.timeout(), 0);
  out->keepalive_interval_ms = ms_or(k.has_interval(), k.interval(), 0);
  out->keepalive_idle_interval_ms = ms_or(k.has_connection_idle_interval(), k.connection_idle_interval(), 0);
  if (k.has_interval_jitter()) out->keepalive_jitter_percent = static_cast<uint8_t>(k.interval_jitter().value());
}

void compile_upstream_http(const api::Cluster& c, table::ObjectWriter& w, table::Cluster* out) {
  const UpstreamHttpOptions o = upstream_http_options(c);
  const auto& names = o.upstream_http_protocol_options();
  out->tls.auto_sni = names.auto_sni();
  if (names.auto_san_validation()) out->tls.auto_sni_san_validation = 1;
  std::string header = names.override_auto_sni_header();
  for (char& x : header) x = base::to_lower(x);
  out->tls.auto_sni_header = w.string(header);
  const auto& common = o.common_http_protocol_options();
  out->idle_timeout_ms = ms_or(common.has_idle_timeout(), common.idle_timeout(), out->idle_timeout_ms);
  if (common.has_max_requests_per_connection()) out->max_requests_per_connection = common.max_requests_per_connection().value();
  if (common.has_max_headers_count()) out->max_response_headers_count = common.max_headers_count().value();
  const auto both = [&](const auto& config, table::UpstreamHttp http) {
    out->http = http;
    out->enable_trailers = config.http_protocol_options().enable_trailers();
    compile_http2(config.http2_protocol_options(), &out->http2);
  };
  switch (o.upstream_protocol_options_case()) {
    case UpstreamHttpOptions::kUseDownstreamProtocolConfig:
      return both(o.use_downstream_protocol_config(), table::UpstreamHttp::kAsDownstream);
    case UpstreamHttpOptions::kAutoConfig:
      return both(o.auto_config(), table::UpstreamHttp::kAlpn);
    default:
      return both(o.explicit_http_config(), o.explicit_http_config().has_http2_protocol_options() ? table::UpstreamHttp::kHttp2
                                                                                                  : table::UpstreamHttp::kHttp1);
  }
}

}  // namespace millrace::control
