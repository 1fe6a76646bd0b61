#include "control/compile_objects.h"

#include <map>
#include <tuple>

#include "control/access_log_filter.h"
#include "control/access_log_template.h"
#include "control/compile_compressor.h"
#include "control/config_loader.h"
#include "control/health_checks.h"
#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/route_spec.h"
#include "control/socket_options.h"
#include "control/tls_values.h"
#include "control/upstream_http.h"
#include "lib/api/envoy.extensions.access_loggers.file.v3.pb.h"
#include "lib/api/envoy.extensions.access_loggers.stream.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.cors.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.grpc_web.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.router.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.proxy_protocol.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.tls_inspector.v3.pb.h"
#include "lib/base/ascii.h"
#include "lib/base/ip_address.h"
#include "lib/table/filter_chain_index.h"
#include "lib/table/object_writer.h"

namespace millrace::control {

namespace {

namespace core = envoy::config::core::v3;
namespace loggers = envoy::extensions::access_loggers;
using table::ObjectWriter;

using AccessLogs = google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>;

base::Status set_format(const core::SubstitutionFormatString& f, ObjectWriter& w, table::AccessLog* out) {
  out->omit_empty_values = f.omit_empty_values();
  switch (f.format_case()) {
    case core::SubstitutionFormatString::kTextFormat:
      out->format = w.string(f.text_format());
      break;
    case core::SubstitutionFormatString::kJsonFormat:
      out->format = w.string(to_json(f.json_format(), false, false));
      out->json = 1;
      break;
    case core::SubstitutionFormatString::kTextFormatSource: {
      const auto text = read_data_source(f.text_format_source());
      if (!text.ok()) return base::Error{text.error()};
      out->format = w.string(*text);
      break;
    }
    case core::SubstitutionFormatString::FORMAT_NOT_SET:
      break;
  }
  return {};
}

base::Result<table::Array<table::AccessLog>> access_logs(const AccessLogs& logs, ObjectWriter& w) {
  std::vector<table::AccessLog> out;
  for (const auto& log : logs) {
    table::AccessLog a{};
    loggers::file::v3::FileAccessLog file;
    loggers::stream::v3::StdoutAccessLog to_out;
    loggers::stream::v3::StderrAccessLog to_err;
    base::Status ok;
    if (log.typed_config().UnpackTo(&file)) {
      a.path = w.string(file.path());
      if (file.has_log_format()) ok = set_format(file.log_format(), w, &a);
      else a.format = w.string(file.format());
    } else if (log.typed_config().UnpackTo(&to_out)) {
      a.path = w.string("/dev/stdout");
      ok = set_format(to_out.log_format(), w, &a);
    } else if (log.typed_config().UnpackTo(&to_err)) {
      a.path = w.string("/dev/stderr");
      ok = set_format(to_err.log_format(), w, &a);
    }
    if (!ok.ok()) return base::Error{ok.error()};
    if (log.has_filter()) a.filter = compile_filter(log.filter(), w);
    out.push_back(a);
  }
  return w.array(out);
}

// A body that a poll core makes.
base::Result<table::BodyFormat> body_format(const core::SubstitutionFormatString& f, ObjectWriter& w) {
  constexpr auto kWhere = table::FormatWhere::kAnywhere;
  const bool json = f.format_case() == core::SubstitutionFormatString::kJsonFormat;
  base::Result<std::vector<table::FormatPiece>> parts = std::vector<table::FormatPiece>{};
  if (json) {
    const auto made = AccessLogTemplate::json(to_json(f.json_format(), false, false), kWhere);
    if (!made.ok()) return base::Error{made.error()};
    parts = made->flat(f.omit_empty_values());
  } else if (f.has_text_format_source()) {
    const auto text = read_data_source(f.text_format_source());
    if (!text.ok()) return base::Error{text.error()};
    parts = AccessLogTemplate::parse(*text, kWhere);
  } else {
    parts = AccessLogTemplate::parse(f.text_format(), kWhere);
  }
  if (!parts.ok()) return base::Error{parts.error()};
  if (parts->empty()) parts->push_back({});  // an empty body is a format too
  table::BodyFormat out{};
  out.parts = table::write_format(w, *parts);
  out.content_type = w.string(!f.content_type().empty() ? f.content_type() : json ? "application/json" : "text/plain");
  out.omit_empty_values = f.omit_empty_values();
  return out;
}

base::Status set_local_reply(const envoy::extensions::filters::network::http_connection_manager::v3::LocalReplyConfig& c,
                             ObjectWriter& w, table::HttpConnectionManager* out) {
  if (c.has_body_format()) {
    const auto format = body_format(c.body_format(), w);
    if (!format.ok()) return base::Error{format.error()};
    out->local_reply_format = *format;
  }
  std::vector<table::LocalReplyMapper> mappers;
  for (const auto& m : c.mappers()) {
    table::LocalReplyMapper mapper{};
    mapper.filter = compile_filter(m.filter(), w);
    std::vector<route::HeaderOptionSpec> headers;
    for (const auto& h : m.headers_to_add()) headers.push_back(header_option_spec(h));
    mapper.headers_to_add = route::write_header_options(w, headers);
    if (m.has_body()) {
      const auto body = read_data_source(m.body());
      if (!body.ok()) return base::Error{body.error()};
      mapper.body = w.string(*body);
      mapper.has_body = 1;
    }
    if (m.has_body_format_override()) {
      const auto format = body_format(m.body_format_override(), w);
      if (!format.ok()) return base::Error{format.error()};
      mapper.format = *format;
    }
    mapper.status = static_cast<uint16_t>(m.status_code().value());
    mappers.push_back(mapper);
  }
  out->local_reply_mappers = w.array(mappers);
  return {};
}

template <class Strings>
table::Array<table::Str> strings(const Strings& from, ObjectWriter& w) {
  std::vector<table::Str> out;
  for (const auto& s : from) out.push_back(w.string(s));
  return w.array(out);
}

base::Status set_connection_manager(const api::HttpConnectionManager& h, const std::string& route, ObjectWriter& w,
                                    table::HttpConnectionManager* out) {
  using Hcm = api::HttpConnectionManager;
  out->stat_prefix = w.string(h.stat_prefix());
  out->route_table = table::object_id(table::Kind::kRouteTable, route);
  out->route_table_name = w.string(route);
  const auto logs = access_logs(h.access_log(), w);
  if (!logs.ok()) return base::Error{logs.error()};
  out->access_logs = *logs;
  out->server_name = w.string(h.server_name().empty() ? "envoy" : h.server_name());
  out->via = w.string(h.via());
  out->codec = h.codec_type() == Hcm::HTTP1   ? table::HttpCodec::kHttp1
               : h.codec_type() == Hcm::HTTP2 ? table::HttpCodec::kHttp2
                                              : table::HttpCodec::kAuto;
  compile_http2(h.http2_protocol_options(), &out->http2);
  out->forward_client_cert = static_cast<table::ForwardClientCert>(h.forward_client_cert_details());
  const auto& d = h.set_current_client_cert_details();
  out->client_cert_details = static_cast<uint8_t>((d.subject().value() ? table::kDetailSubject : 0) |
                                                  (d.cert() ? table::kDetailCert : 0) | (d.dns() ? table::kDetailDns : 0) |
                                                  (d.uri() ? table::kDetailUri : 0) | (d.chain() ? table::kDetailChain : 0));
  const auto& h1 = h.http_protocol_options();
  out->default_host_for_http_10 = w.string(h1.default_host_for_http_10());
  std::string upgrades;
  for (const auto& u : h.upgrade_configs()) {
    if (u.has_enabled() && !u.enabled().value()) continue;  // as if it were not there; a route may still enable it
    if (!upgrades.empty()) upgrades += ',';
    for (const char c : u.upgrade_type()) upgrades += base::to_lower(c);
  }
  out->upgrades = w.string(upgrades);
  out->stream_idle_timeout_ms = ms_or(h.has_stream_idle_timeout(), h.stream_idle_timeout(), out->stream_idle_timeout_ms);
  out->request_timeout_ms = ms_or(h.has_request_timeout(), h.request_timeout(), out->request_timeout_ms);
  out->request_headers_timeout_ms =
      ms_or(h.has_request_headers_timeout(), h.request_headers_timeout(), out->request_headers_timeout_ms);
  const auto& c = h.common_http_protocol_options();
  out->idle_timeout_ms = ms_or(c.has_idle_timeout(), c.idle_timeout(), out->idle_timeout_ms);
  out->max_connection_duration_ms = ms_or(c.has_max_connection_duration(), c.max_connection_duration(), 0);
  out->max_stream_duration_ms = ms_or(c.has_max_stream_duration(), c.max_stream_duration(), 0);
  out->delayed_close_timeout_ms = ms_or(h.has_delayed_close_timeout(), h.delayed_close_timeout(), out->delayed_close_timeout_ms);
  out->drain_timeout_ms = ms_or(h.has_drain_timeout(), h.drain_timeout(), out->drain_timeout_ms);
  if (h.has_max_request_headers_kb()) out->max_request_headers_bytes = h.max_request_headers_kb().value() * 1024;
  if (c.has_max_headers_count()) out->max_headers_count = c.max_headers_count().value();
  if (c.has_max_requests_per_connection()) out->max_requests_per_connection = c.max_requests_per_connection().value();
  out->xff_num_trusted_hops = h.xff_num_trusted_hops();
  switch (h.server_header_transformation()) {
    case Hcm::APPEND_IF_ABSENT:
      out->server_header = table::ServerHeader::kAppendIfAbsent;
      break;
    case Hcm::PASS_THROUGH:
      out->server_header = table::ServerHeader::kPassThrough;
      break;
    default:
      out->server_header = table::ServerHeader::kOverwrite;
  }
  switch (h.path_with_escaped_slashes_action()) {
    case Hcm::REJECT_REQUEST:
      out->escaped_slashes = table::EscapedSlashes::kReject;
      break;
    case Hcm::UNESCAPE_AND_REDIRECT:
      out->escaped_slashes = table::EscapedSlashes::kUnescapeAndRedirect;
      break;
    case Hcm::UNESCAPE_AND_FORWARD:
      out->escaped_slashes = table::EscapedSlashes::kUnescapeAndForward;
      break;
    default:
      out->escaped_slashes = table::EscapedSlashes::kKeepUnchanged;
  }
  if (const auto ok = set_local_reply(h.local_reply_config(), w, out); !ok.ok()) return ok;
  std::vector<table::AddressRange> internal;
  for (const auto& r : h.internal_address_config().cidr_ranges()) {
    table::AddressRange range{};
    range.network = *base::IpAddress::parse(r.address_prefix());
    range.prefix_bits = static_cast<uint8_t>(r.prefix_len().value());
    internal.push_back(range);
  }
  out->internal_ranges = w.array(internal);
  out->strip_port = h.strip_any_host_port()        ? table::StripPort::kAny
                    : h.strip_matching_host_port() ? table::StripPort::kMatching
                                                   : table::StripPort::kNo;
  out->strip_trailing_host_dot = h.strip_trailing_host_dot();
  out->append_x_forwarded_port = h.append_x_forwarded_port();
  if (h.has_scheme_header_transformation())
    out->scheme_overwrite = h.scheme_header_transformation().scheme_to_overwrite() == "https" ? table::SchemeOverwrite::kHttps
                                                                                              : table::SchemeOverwrite::kHttp;
  out->use_remote_address = h.use_remote_address().value();
  out->skip_xff_append = h.skip_xff_append();
  out->generate_request_id = !h.has_generate_request_id() || h.generate_request_id().value();
  out->preserve_external_request_id = h.preserve_external_request_id();
  out->always_set_request_id_in_response = h.always_set_request_id_in_response();
  out->normalize_path = h.normalize_path().value();
  out->merge_slashes = h.merge_slashes();
  out->accept_http_10 = h1.accept_http_10();
  out->enable_trailers = h1.enable_trailers();
  out->allow_chunked_length = h1.allow_chunked_length();
  out->allow_absolute_url = !h1.has_allow_absolute_url() || h1.allow_absolute_url().value();
  out->headers_with_underscores_reject = c.headers_with_underscores_action() == core::HttpProtocolOptions::REJECT_REQUEST;
  out->headers_with_underscores_drop = c.headers_with_underscores_action() == core::HttpProtocolOptions::DROP_HEADER;
  out->compressors = w.array(compile_compressors(h, w));
  uint8_t compressors = 0;  // in front of the one being looked at
  for (const auto& f : h.http_filters()) {
    if (f.typed_config().Is<envoy::extensions::filters::http::compressor::v3::Compressor>()) ++compressors;
    if (f.typed_config().Is<envoy::extensions::filters::http::grpc_web::v3::GrpcWeb>()) out->grpc_web = compressors + 1;
    if (f.typed_config().Is<envoy::extensions::filters::http::cors::v3::Cors>()) out->cors = w.string(f.name());
    envoy::extensions::filters::http::router::v3::Router router;
    if (!f.typed_config().UnpackTo(&router)) continue;
    out->suppress_envoy_headers = router.suppress_envoy_headers();
    out->respect_expected_rq_timeout = router.respect_expected_rq_timeout();
  }
  return {};
}

base::Status set_tcp_proxy(const api::TcpProxy& t, ObjectWriter& w, table::TcpProxy* out) {
  out->stat_prefix = w.string(t.stat_prefix());
  std::vector<table::WeightedCluster> clusters;
  const auto add = [&](const std::string& name, uint32_t weight) {
    table::WeightedCluster c{};
    c.name = w.string(name);
    c.cluster = table::object_id(table::Kind::kCluster, name);
    c.weight = weight;
    out->total_weight += weight;
    clusters.push_back(c);
  };
  if (t.has_cluster()) add(t.cluster(), 1);
  for (const auto& c : t.weighted_clusters().clusters()) add(c.name(), c.weight());
  out->clusters = w.array(clusters);
  const auto logs = access_logs(t.access_log(), w);
  if (!logs.ok()) return base::Error{logs.error()};
  out->access_logs = *logs;
  out->idle_timeout_ms = ms_or(t.has_idle_timeout(), t.idle_timeout(), out->idle_timeout_ms);
  if (t.has_max_connect_attempts()) out->max_connect_attempts = t.max_connect_attempts().value();
  out->hash_source_ip = !t.hash_policy().empty();
  out->max_downstream_connection_duration_ms =
      ms_or(t.has_max_downstream_connection_duration(), t.max_downstream_connection_duration(), 0);
  return {};
}

namespace tls_api = envoy::extensions::transport_sockets::tls::v3;

// What both directions have in common. TLS_AUTO is 1.2 at the least; at most 1.3 towards clients, 1.2 towards endpoints.
template <class T>
void set_common_tls(const tls_api::CommonTlsContext& common, const TlsSecrets& used, table::TlsVersion most, ObjectWriter& w,
                    T* out) {
  std::vector<table::ObjectId> secrets;
  const auto id = [](const std::string& name) {
    return name.empty() ? table::kNoObject : table::object_id(table::Kind::kSecret, name);
  };
  for (const std::string& s : used.certificates) secrets.push_back(id(s));
  out->secrets = w.array(secrets);
  out->validation = id(used.validation);
  out->validation_more = id(used.validation_more);
  out->alpn = strings(common.alpn_protocols(), w);
  out->cipher_suites = strings(common.tls_params().cipher_suites(), w);
  out->curves = strings(common.tls_params().ecdh_curves(), w);
  const auto version = [](tls_api::TlsParameters::TlsProtocol p, table::TlsVersion fallback) {
    return p == tls_api::TlsParameters::TLSv1_3   ? table::TlsVersion::kTls13
           : p == tls_api::TlsParameters::TLSv1_2 ? table::TlsVersion::kTls12
                                                  : fallback;
  };
  out->min_version = version(common.tls_params().tls_minimum_protocol_version(), table::TlsVersion::kTls12);
  out->max_version = version(common.tls_params().tls_maximum_protocol_version(), most);
}

void set_tls(const ChainObject& chain, ObjectWriter& w, table::DownstreamTls* out) {
  set_common_tls(chain.tls.common_tls_context(), chain.secrets, table::TlsVersion::kTls13, w, out);
  out->disable_tickets = chain.tls.disable_stateless_session_resumption();
  out->require_client_certificate = chain.tls.require_client_certificate().value();
  out->prefer_client_ciphers = chain.tls.prefer_client_ciphers();
  out->full_scan_certs = chain.tls.full_scan_certs_on_sni_mismatch().value();
  out->ocsp_policy = static_cast<table::OcspPolicy>(chain.tls.ocsp_staple_policy());
  if (chain.tls.has_session_timeout()) out->session_timeout_s = static_cast<uint32_t>(chain.tls.session_timeout().seconds());
  if (!chain.secrets.ticket_keys.empty()) out->ticket_keys = table::object_id(table::Kind::kSecret, chain.secrets.ticket_keys);
}

void set_tls(const ClusterObject& c, ObjectWriter& w, table::UpstreamTls* out) {
  set_common_tls(c.tls.common_tls_context(), c.secrets, table::TlsVersion::kTls12, w, out);
  out->sni = w.string(c.tls.sni());
  if (c.tls.has_max_session_keys()) out->max_session_keys = c.tls.max_session_keys().value();
  out->auto_host_sni = c.tls.auto_host_sni();
  out->auto_sni_san_validation = c.tls.auto_sni_san_validation();
}

table::TransportProtocol transport(const std::string& name) {
  return name == "tls"          ? table::TransportProtocol::kTls
         : name == "raw_buffer" ? table::TransportProtocol::kRawBuffer
                                : table::TransportProtocol::kAny;
}

table::Array<table::ServerNameEntry> names(const std::vector<table::FilterChainIndex::Name>& from, ObjectWriter& w) {
  std::vector<table::ServerNameEntry> out;
  for (const auto& n : from) {
    table::ServerNameEntry e{};
    e.text = w.string(n.text);
    e.hash = n.hash;
    e.chains = w.array(n.chains);
    out.push_back(e);
  }
  return w.array(out);
}

base::Result<table::FilterChain> filter_chain(const ChainObject& chain, const api::FilterChain& written, ObjectWriter& w) {
  table::FilterChain out{};
  const auto& match = written.filter_chain_match();
  out.name = w.string(chain.name);
  out.server_names = strings(match.server_names(), w);
  out.application_protocols = strings(match.application_protocols(), w);
  out.transport_protocol = transport(match.transport_protocol());
  out.has_tls = chain.has_tls;
  out.connect_timeout_ms = ms_or(written.has_transport_socket_connect_timeout(), written.transport_socket_connect_timeout(), 0);
  if (chain.has_tls) set_tls(chain, w, &out.tls);
  base::Status ok;
  if (const auto* hcm = std::get_if<api::HttpConnectionManager>(&chain.filter)) {
    out.filter = table::NetworkFilterKind::kHttpConnectionManager;
    ok = set_connection_manager(*hcm, chain.route, w, &out.hcm);
  } else if (const auto* tcp = std::get_if<api::TcpProxy>(&chain.filter)) {
    out.filter = table::NetworkFilterKind::kTcpProxy;
    ok = set_tcp_proxy(*tcp, w, &out.tcp);
  }
  if (!ok.ok()) return base::Error{ok.error()};
  return out;
}

}  // namespace

base::Result<std::vector<uint8_t>> compile_listener(const ListenerObject& l) {
  ObjectWriter w(table::Kind::kListener, l.name);
  table::Listener out{};
  const api::Listener& config = *l.config;
  const auto& socket = config.address().socket_address();
  const auto address = base::IpAddress::parse(socket.address());
  MILLRACE_ASSERT(address.has_value(), "validation refuses a listener without an IP address");
  out.name = w.string(l.name);
  out.address = *address;
  out.port = static_cast<uint16_t>(socket.port_value());
  for (const auto& f : config.listener_filters()) {
    envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol proxy;
    envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector inspector;
    if (f.typed_config().UnpackTo(&inspector)) {
      out.tls_inspector = 1;
      out.ja3 = inspector.enable_ja3_fingerprinting().value();
      out.ja4 = inspector.enable_ja4_fingerprinting().value();
    }
    if (!f.typed_config().UnpackTo(&proxy)) continue;
    out.proxy_protocol = 1;
    out.proxy_optional = proxy.allow_requests_without_proxy_protocol();
    out.proxy_kept_tlvs = compile_pass_through(proxy.has_pass_through_tlvs(), proxy.pass_through_tlvs());
    for (const int v : proxy.disallowed_versions())
      (v == core::ProxyProtocolConfig::V1 ? out.proxy_refuse_v1 : out.proxy_refuse_v2) = 1;
  }
  out.continue_on_listener_filters_timeout = config.continue_on_listener_filters_timeout();
  out.listener_filters_timeout_ms =
      ms_or(config.has_listener_filters_timeout(), config.listener_filters_timeout(), out.listener_filters_timeout_ms);
  if (config.has_per_connection_buffer_limit_bytes())
    out.per_connection_buffer_limit_bytes = config.per_connection_buffer_limit_bytes().value();

  listener_tcp_options(config, Path(), out.tcp, nullptr);

  std::vector<table::FilterChain> chains;
  std::vector<table::FilterChainCriteria> criteria;
  for (size_t i = 0; i < l.chains.size(); ++i) {
    const ChainObject& c = l.chains[i];
    const api::FilterChain& written = c.is_default ? config.default_filter_chain() : config.filter_chains(static_cast<int>(i));
    auto chain = filter_chain(c, written, w);
    if (!chain.ok()) return base::Error{chain.error()};
    chains.push_back(*chain);
    if (c.is_default) {
      out.default_filter_chain = static_cast<uint32_t>(i);
      continue;
    }
    const auto& m = written.filter_chain_match();
    criteria.push_back({c.name,
                        {m.server_names().begin(), m.server_names().end()},
                        {m.application_protocols().begin(), m.application_protocols().end()},
                        transport(m.transport_protocol())});
    // Envoy puts the inspector in by itself when a match needs it.
    if (m.server_names_size() > 0 || m.application_protocols_size() > 0 || !m.transport_protocol().empty()) out.tls_inspector = 1;
  }
  out.filter_chains = w.array(chains);
  const auto index = table::build_filter_chain_index(criteria);
  if (!index.ok()) return base::Error{index.error()};
  out.exact_names = names(index->exact_names, w);
  out.wildcard_names = names(index->wildcard_names, w);
  out.any_name_chains = w.array(index->any_name_chains);
  const auto logs = access_logs(config.access_log(), w);
  if (!logs.ok()) return base::Error{logs.error()};
  out.access_logs = *logs;
  return w.finish(out);
}

namespace {

table::OutlierDetection compile_outlier_detection(const envoy::config::cluster::v3::OutlierDetection& o) {
  using table::OutlierDetector;
  table::OutlierDetection out;
  out.present = 1;
  const auto set = [](bool has, const google::protobuf::UInt32Value& v, auto& to) {
    if (has) to = static_cast<std::remove_reference_t<decltype(to)>>(v.value());
  };
  const auto enforcing = [&](OutlierDetector d) -> uint8_t& { return out.enforcing[static_cast<uint32_t>(d)]; };
#define MILLRACE_SET(field, to) set(o.has_##field(), o.field(), to)
  MILLRACE_SET(consecutive_5xx, out.consecutive_5xx);
  MILLRACE_SET(consecutive_gateway_failure, out.consecutive_gateway_failure);
  MILLRACE_SET(consecutive_local_origin_failure, out.consecutive_local_origin_failure);
  MILLRACE_SET(max_ejection_percent, out.max_ejection_percent);
  MILLRACE_SET(success_rate_minimum_hosts, out.success_rate_minimum_hosts);
  MILLRACE_SET(success_rate_request_volume, out.success_rate_request_volume);
  MILLRACE_SET(success_rate_stdev_factor, out.success_rate_stdev_factor);
  MILLRACE_SET(failure_percentage_threshold, out.failure_percentage_threshold);
  MILLRACE_SET(failure_percentage_minimum_hosts, out.failure_percentage_minimum_hosts);
  MILLRACE_SET(failure_percentage_request_volume, out.failure_percentage_request_volume);
  MILLRACE_SET(enforcing_consecutive_5xx, enforcing(OutlierDetector::kConsecutive5xx));
  MILLRACE_SET(enforcing_consecutive_gateway_failure, enforcing(OutlierDetector::kConsecutiveGatewayFailure));
  MILLRACE_SET(enforcing_success_rate, enforcing(OutlierDetector::kSuccessRate));
  MILLRACE_SET(enforcing_consecutive_local_origin_failure, enforcing(OutlierDetector::kConsecutiveLocalOriginFailure));
  MILLRACE_SET(enforcing_local_origin_success_rate, enforcing(OutlierDetector::kLocalOriginSuccessRate));
  MILLRACE_SET(enforcing_failure_percentage, enforcing(OutlierDetector::kFailurePercentage));
  MILLRACE_SET(enforcing_failure_percentage_local_origin, enforcing(OutlierDetector::kFailurePercentageLocalOrigin));
#undef MILLRACE_SET
  out.interval_ms = ms_or(o.has_interval(), o.interval(), out.interval_ms);
  out.base_ejection_ms = ms_or(o.has_base_ejection_time(), o.base_ejection_time(), out.base_ejection_ms);
  out.max_ejection_ms =
      std::max(out.base_ejection_ms, ms_or(o.has_max_ejection_time(), o.max_ejection_time(), out.max_ejection_ms));
  out.max_ejection_jitter_ms = ms_or(o.has_max_ejection_time_jitter(), o.max_ejection_time_jitter(), out.max_ejection_jitter_ms);
  out.always_eject_one_host = o.always_eject_one_host().value();
  out.split_external_local_origin_errors = o.split_external_local_origin_errors();
  return out;
}

}  // namespace

base::Result<std::vector<uint8_t>> compile_cluster(const ClusterObject& c) {
  using Cluster = api::Cluster;
  ObjectWriter w(table::Kind::kCluster, c.name);
  table::Cluster out{};
  const Cluster& config = *c.config;
  out.name = w.string(c.name);
  out.endpoint_set = table::object_id(table::Kind::kEndpointSet, c.name);
  out.connect_timeout_ms = ms_or(config.has_connect_timeout(), config.connect_timeout(), out.connect_timeout_ms);
  if (config.has_per_connection_buffer_limit_bytes())
    out.per_connection_buffer_limit_bytes = config.per_connection_buffer_limit_bytes().value();
  cluster_tcp_options(config, Path(), out.tcp, nullptr);
  switch (config.lb_policy()) {
    case Cluster::LEAST_REQUEST:
      out.lb_policy = table::LbPolicy::kLeastRequest;
      break;
    case Cluster::RING_HASH:
      out.lb_policy = table::LbPolicy::kRingHash;
      break;
    case Cluster::MAGLEV:
      out.lb_policy = table::LbPolicy::kMaglev;
      break;
    case Cluster::RANDOM:
      out.lb_policy = table::LbPolicy::kRandom;
      break;
    default:
      out.lb_policy = table::LbPolicy::kRoundRobin;
  }
  const auto& ring = config.ring_hash_lb_config();
  if (ring.has_minimum_ring_size()) out.ring_min = static_cast<uint32_t>(ring.minimum_ring_size().value());
  if (ring.has_maximum_ring_size()) out.ring_max = static_cast<uint32_t>(ring.maximum_ring_size().value());
  out.ring_murmur = ring.hash_function() == Cluster::RingHashLbConfig::MURMUR_HASH_2;
  if (config.maglev_lb_config().has_table_size())
    out.maglev_size = static_cast<uint32_t>(config.maglev_lb_config().table_size().value());
  const auto& common = config.common_lb_config();
  if (common.has_healthy_panic_threshold()) out.panic_threshold = static_cast<uint8_t>(common.healthy_panic_threshold().value());
  out.fail_on_panic = common.zone_aware_lb_config().fail_traffic_on_panic();
  out.locality_weighted = common.has_locality_weighted_lb_config();
  out.hash_hostname = common.consistent_hashing_lb_config().use_hostname_for_hashing();
  out.hash_balance_factor = common.consistent_hashing_lb_config().hash_balance_factor().value();
  if (config.least_request_lb_config().has_choice_count())
    out.least_request_choice_count = config.least_request_lb_config().choice_count().value();
  if (!config.circuit_breakers().thresholds().empty()) {
    const auto& t = config.circuit_breakers().thresholds(0);
    if (t.has_max_connections()) out.max_connections = t.max_connections().value();
    if (t.has_max_pending_requests()) out.max_pending_requests = t.max_pending_requests().value();
    if (t.has_max_requests()) out.max_requests = t.max_requests().value();
    if (t.has_max_retries()) out.max_retries = t.max_retries().value();
    if (t.has_retry_budget()) {
      constexpr double kDefaultPercent = 20, kMillipercent = 1000;
      constexpr uint32_t kDefaultConcurrency = 3;
      const auto& b = t.retry_budget();
      out.has_retry_budget = 1;
      out.retry_budget_millipercent =
          static_cast<uint32_t>((b.has_budget_percent() ? b.budget_percent().value() : kDefaultPercent) * kMillipercent + 0.5);
      out.min_retry_concurrency = b.has_min_retry_concurrency() ? b.min_retry_concurrency().value() : kDefaultConcurrency;
    }
  }
  if (config.has_outlier_detection()) out.outlier = compile_outlier_detection(config.outlier_detection());
  if (!config.health_checks().empty()) out.health_check = compile_health_check(config, w);
  out.has_tls = c.has_tls;
  if (c.has_tls) set_tls(c, w, &out.tls);
  if (c.has_proxy) out.proxy = compile_proxy(c.proxy, w);
  compile_upstream_http(config, w, &out);
  return w.finish(out);
}

// By priority, then as Envoy orders them. What is written twice is one locality, whose weight is the last one's.
using LocalityKey = std::tuple<uint32_t, std::string, std::string, std::string>;
static LocalityKey locality_key(const envoy::config::endpoint::v3::LocalityLbEndpoints& l) {
  return {l.priority(), l.locality().region(), l.locality().zone(), l.locality().sub_zone()};
}

base::Result<std::vector<uint8_t>> compile_endpoints(const EndpointsObject& e) {
  ObjectWriter w(table::Kind::kEndpointSet, e.name);
  table::EndpointSet out{};
  out.name = w.string(e.name);
  if (e.config->policy().has_overprovisioning_factor())
    out.overprovisioning_factor = e.config->policy().overprovisioning_factor().value();
  std::map<LocalityKey, uint32_t> localities;
  for (const auto& locality : e.config->endpoints())
    localities[locality_key(locality)] = locality.load_balancing_weight().value();
  std::vector<table::Locality> written;
  for (auto& [key, weight] : localities) {
    written.push_back({std::get<0>(key), weight});
    weight = static_cast<uint32_t>(written.size() - 1);  // from here on: its index
  }
  out.localities = w.array(written);
  std::vector<table::Endpoint> endpoints;
  for (const auto& locality : e.config->endpoints()) {
    const uint32_t index = localities[locality_key(locality)];
    for (const auto& p : locality.lb_endpoints()) {
      table::Endpoint x{};
      const auto& socket = p.endpoint().address().socket_address();
      const auto address = base::IpAddress::parse(socket.address());
      if (!address) continue;  // a host name that has not been resolved (control/dns_names.h)
      x.address = *address;
      x.port = static_cast<uint16_t>(socket.port_value());
      switch (p.health_status()) {
        case core::DRAINING:
          x.state = table::EndpointState::kDraining;
          break;
        case core::UNHEALTHY:
        case core::TIMEOUT:
          x.state = table::EndpointState::kUnhealthy;
          break;
        case core::DEGRADED:
          x.state = table::EndpointState::kDegraded;
          break;
        default:
          x.state = table::EndpointState::kHealthy;
      }
      x.locality = index;
      x.weight = p.has_load_balancing_weight() ? p.load_balancing_weight().value() : 1;
      x.hostname = w.string(p.endpoint().hostname());
      const auto& health = p.endpoint().health_check_config();
      x.health_host = w.string(health.hostname());
      x.health_port = health.port_value();
      x.no_health_check = health.disable_active_health_check();
      if (x.state == table::EndpointState::kHealthy) {
        out.total_weight += x.weight;
        ++out.healthy;
      }
      endpoints.push_back(x);
    }
  }
  out.endpoints = w.array(endpoints);
  return w.finish(out);
}

namespace {

using envoy::type::matcher::v3::StringMatcher;

table::SanMatch san_match(const tls_api::SubjectAltNameMatcher& m, ObjectWriter& w) {
  table::SanMatch out{};
  switch (m.san_type()) {
    case tls_api::SubjectAltNameMatcher::URI:
      out.type = table::SanType::kUri;
      break;
    case tls_api::SubjectAltNameMatcher::IP_ADDRESS:
      out.type = table::SanType::kIpAddress;
      break;
    case tls_api::SubjectAltNameMatcher::EMAIL:
      out.type = table::SanType::kEmail;
      break;
    default:
      out.type = table::SanType::kDns;
  }
  const StringMatcher& text = m.matcher();
  out.ignore_case = text.ignore_case();
  switch (text.match_pattern_case()) {
    case StringMatcher::kPrefix:
      out.kind = table::StringMatchKind::kPrefix;
      out.value = w.string(text.prefix());
      break;
    case StringMatcher::kSuffix:
      out.kind = table::StringMatchKind::kSuffix;
      out.value = w.string(text.suffix());
      break;
    case StringMatcher::kContains:
      out.kind = table::StringMatchKind::kContains;
      out.value = w.string(text.contains());
      break;
    default:
      out.value = w.string(text.exact());
  }
  return out;
}

void set_validation(const SecretObject& s, ObjectWriter& w, table::Secret* out) {
  const tls_api::CertificateValidationContext& v = s.config->validation_context();
  const auto bytes = [](const std::string& t) { return std::span(reinterpret_cast<const uint8_t*>(t.data()), t.size()); };
  out->kind = table::SecretKind::kValidation;
  out->trusted_ca_pem = w.blob(bytes(s.trusted_ca_pem));
  out->crl_pem = w.blob(bytes(s.crl_pem));
  std::vector<table::SanMatch> sans;
  for (const auto& m : v.match_typed_subject_alt_names()) sans.push_back(san_match(m, w));
  out->sans = w.array(sans);
  const auto hashes = [&](const auto& list, bool (*parse)(std::string_view, Sha256*)) {
    std::vector<uint8_t> all;
    for (const std::string& text : list) {
      Sha256 one{};
      MILLRACE_ASSERT(parse(text, &one), "validation refuses what is no hash");
      all.insert(all.end(), one.begin(), one.end());
    }
    return w.blob(all);
  };
  out->certificate_hashes = hashes(v.verify_certificate_hash(), &parse_certificate_hash);
  out->spki_hashes = hashes(v.verify_certificate_spki(), &parse_spki_hash);
  if (v.has_max_verify_depth()) out->max_verify_depth = v.max_verify_depth().value();
  out->only_leaf_crl = v.only_verify_leaf_cert_crl();
  out->allow_expired = v.allow_expired_certificate();
  out->accept_untrusted = v.trust_chain_verification() == tls_api::CertificateValidationContext::ACCEPT_UNTRUSTED;
}

}  // namespace

base::Result<std::vector<uint8_t>> compile_secret(const SecretObject& s) {
  ObjectWriter w(table::Kind::kSecret, s.name);
  table::Secret out{};
  const auto bytes = [](const std::string& t) { return std::span(reinterpret_cast<const uint8_t*>(t.data()), t.size()); };
  out.name = w.string(s.name);
  out.certificate_chain_pem = w.blob(bytes(s.certificate_chain_pem));
  out.private_key_pem = w.blob(bytes(s.private_key_pem));
  out.ocsp_staple = w.blob(bytes(s.ocsp_staple));
  if (s.config->has_validation_context()) set_validation(s, w, &out);
  if (s.config->has_session_ticket_keys()) {
    out.kind = table::SecretKind::kTicketKeys;
    out.ticket_keys = w.blob(bytes(s.ticket_keys));
  }
  return w.finish(out);
}

}  // namespace millrace::control
