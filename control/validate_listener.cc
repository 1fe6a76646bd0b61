// Listeners, their filter chains and what hangs below: TLS contexts, HTTP connection managers, TCP proxies.
#include <map>
#include <set>

#include "control/proto_values.h"
#include "control/proxy_transport.h"
#include "control/socket_options.h"
#include "control/validate.h"
#include "control/validate_compressor.h"
#include "control/validate_rules.h"
#include "control/validate_tls.h"
#include "lib/api/envoy.extensions.filters.http.cors.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.grpc_web.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.router.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.proxy_protocol.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.tls_inspector.v3.pb.h"
#include "lib/base/ascii.h"
#include "lib/table/filter_chain_index.h"
#include "lib/table/objects.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace core = envoy::config::core::v3;
using Compressor = envoy::extensions::filters::http::compressor::v3::Compressor;
using Cors = envoy::extensions::filters::http::cors::v3::Cors;
using GrpcWeb = envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
using Router = envoy::extensions::filters::http::router::v3::Router;
using ProxyProtocol = envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
using TlsInspector = envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool listener_filters(const api::Listener& l, const Path& root, ErrorSink& e) {
  bool ok = true, inspects = false, proxied = false;
  for (int i = 0; i < l.listener_filters_size(); ++i) {
    const auto& f = l.listener_filters(i);
    const Path here(root, "listener_filters", i), config(here, "typed_config");
    ok = not_empty(f.name(), Path(here, "name"), e) && ok;
    TlsInspector inspector;
    ProxyProtocol proxy;
    if (!f.has_typed_config()) {
      ok = complain(config, e, "is required");
    } else if (f.typed_config().UnpackTo(&inspector)) {
      ok = known_fields_only(inspector, config, e) && ok;
      if (std::exchange(inspects, true)) ok = complain(here, e, "a second tls_inspector");
    } else if (f.typed_config().UnpackTo(&proxy)) {
      ok = known_fields_only(proxy, config, e) && ok;
      ok = validate_pass_through(proxy.pass_through_tlvs(), Path(config, "pass_through_tlvs"), e) && ok;
      if (inspects) ok = complain(here, e, "the PROXY protocol comes before TLS: put it in front of the tls_inspector");
      if (std::exchange(proxied, true)) ok = complain(here, e, "a second proxy_protocol");
    } else {
      ok = complain(config, e, "only ProxyProtocol and TlsInspector are supported here by Millrace yet");
    }
  }
  return ok;
}

bool common_http_options(const core::HttpProtocolOptions& o, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (o.has_idle_timeout()) ok = duration(o.idle_timeout(), Path(at, "idle_timeout"), e);
  if (o.has_max_connection_duration()) ok = duration(o.max_connection_duration(), Path(at, "max_connection_duration"), e) && ok;
  if (o.has_max_stream_duration()) ok = duration(o.max_stream_duration(), Path(at, "max_stream_duration"), e) && ok;
  constexpr uint32_t kMostHeaders = 1000;  // what a head buffer of the data plane holds
  if (o.has_max_headers_count()) {
    const uint32_t most = o.max_headers_count().value();
    if (most == 0 || most > kMostHeaders)
      ok = complain(Path(at, "max_headers_count"), e, "must be from 1 to " + std::to_string(kMostHeaders));
  }
  return ok;
}

bool http_filters(const api::HttpConnectionManager& h, const Path& at, ErrorSink& e) {
  if (h.http_filters().empty())
    return complain(Path(at, "http_filters"), e, "must end with the router filter (envoy.filters.http.router)");
  bool ok = true;
  uint32_t compressors = 0, grpc_webs = 0, cors_filters = 0;
  for (int i = 0; i < h.http_filters_size(); ++i) {
    const auto& f = h.http_filters(i);
    const Path here(at, "http_filters", i), config(here, "typed_config");
    ok = not_empty(f.name(), Path(here, "name"), e) && ok;
    Compressor compressor;
    Cors cors;
    GrpcWeb grpc_web;
    Router router;
    if (!f.has_typed_config()) {
      ok = complain(config, e, "is required");
    } else if (f.typed_config().UnpackTo(&router)) {
      ok = known_fields_only(router, config, e) && ok;
      if (i + 1 < h.http_filters_size()) ok = complain(here, e, "the router ends the list: nothing may follow it");
    } else if (f.typed_config().UnpackTo(&compressor)) {
      ok = validate_compressor(compressor, config, e) && ok;
      if (++compressors == table::kMostCompressors + 1)
        ok = complain(here, e, "more than " + std::to_string(table::kMostCompressors) + " compressor filters");
      if (i + 1 == h.http_filters_size()) ok = complain(here, e, "the router filter must follow (envoy.filters.http.router)");
    } else if (f.typed_config().UnpackTo(&grpc_web)) {
      ok = known_fields_only(grpc_web, config, e) && ok;
      if (++grpc_webs == 2) ok = complain(here, e, "the gRPC-Web filter is in the list already");
      if (i + 1 == h.http_filters_size()) ok = complain(here, e, "the router filter must follow (envoy.filters.http.router)");
    } else if (f.typed_config().UnpackTo(&cors)) {
      ok = known_fields_only(cors, config, e) && ok;
      if (++cors_filters == 2) ok = complain(here, e, "the CORS filter is in the list already");
      if (i + 1 == h.http_filters_size()) ok = complain(here, e, "the router filter must follow (envoy.filters.http.router)");
    } else {
      ok = complain(config, e, "only Compressor, Cors, GrpcWeb and Router are supported here by Millrace yet");
    }
  }
  return ok;
}

// What workers copy with each policy (dataplane/http_policy.h).
constexpr size_t kMostUpgradeBytes = 128;

bool upgrades(const api::HttpConnectionManager& h, const Path& at, ErrorSink& e) {
  bool ok = true;
  size_t bytes = 0;
  std::set<std::string> seen;
  for (int i = 0; i < h.upgrade_configs_size(); ++i) {
    const auto& u = h.upgrade_configs(i);
    const Path here(at, "upgrade_configs", i), type(here, "upgrade_type");
    ok = upgrade_type(u.upgrade_type(), type, e) && ok;
    std::string lower = u.upgrade_type();
    for (char& c : lower) c = base::to_lower(c);
    if (!seen.insert(lower).second) ok = complain(type, e, "\"" + u.upgrade_type() + "\" is configured already");
    bytes += lower.size() + 1;
  }
  if (bytes > kMostUpgradeBytes)
    ok = complain(Path(at, "upgrade_configs"), e,
                  "the types have more than " + std::to_string(kMostUpgradeBytes) + " bytes together");
  return ok;
}

bool connection_manager(const api::HttpConnectionManager& h, const Path& at, ErrorSink& e) {
  constexpr uint32_t kMostHeaderKb = 96;  // what a head buffer of the data plane holds (Envoy: 8192)
  if (!known_fields_only(h, at, e)) return false;
  bool ok = not_empty(h.stat_prefix(), Path(at, "stat_prefix"), e);
  ok = http_filters(h, at, e) && ok;
  const Path config(at, "route_config"), rds(at, "rds");
  if (h.has_rds()) {
    ok = not_empty(h.rds().route_config_name(), Path(rds, "route_config_name"), e) && ok;
    ok = resource_source(h.rds().has_config_source(), h.rds().config_source(), Path(rds, "config_source"), e) && ok;
  } else if (!h.has_route_config()) {
    ok = complain(config, e, "is required");
  } else {
    ok = validate_route_configuration(h.route_config(), config, e) && ok;
  }
  ok = common_http_options(h.common_http_protocol_options(), Path(at, "common_http_protocol_options"), e) && ok;
  ok = http2_options(h.http2_protocol_options(), Path(at, "http2_protocol_options"), e) && ok;
  const Path http1(at, "http_protocol_options");
  ok = header_value(h.http_protocol_options().default_host_for_http_10(), Path(http1, "default_host_for_http_10"), e) && ok;
  ok = upgrades(h, at, e) && ok;
  ok = header_value(h.server_name(), Path(at, "server_name"), e) && ok;
  ok = header_value(h.via(), Path(at, "via"), e) && ok;
  if (h.has_max_request_headers_kb()) {
    const uint32_t kb = h.max_request_headers_kb().value();
    if (kb == 0 || kb > kMostHeaderKb)
      ok = complain(Path(at, "max_request_headers_kb"), e, "must be from 1 to " + std::to_string(kMostHeaderKb));
  }
  if (h.has_stream_idle_timeout()) ok = duration(h.stream_idle_timeout(), Path(at, "stream_idle_timeout"), e) && ok;
  if (h.has_request_timeout()) ok = duration(h.request_timeout(), Path(at, "request_timeout"), e) && ok;
  if (h.has_request_headers_timeout()) ok = duration(h.request_headers_timeout(), Path(at, "request_headers_timeout"), e) && ok;
  if (h.has_drain_timeout()) ok = duration(h.drain_timeout(), Path(at, "drain_timeout"), e) && ok;
  if (h.has_delayed_close_timeout()) ok = duration(h.delayed_close_timeout(), Path(at, "delayed_close_timeout"), e) && ok;
  if (h.has_local_reply_config()) ok = local_reply_config(h.local_reply_config(), Path(at, "local_reply_config"), e) && ok;
  if (h.strip_matching_host_port() && h.strip_any_host_port())
    ok = complain(Path(at, "strip_any_host_port"), e, "cannot be combined with strip_matching_host_port");
  const std::string& scheme = h.scheme_header_transformation().scheme_to_overwrite();
  if (h.has_scheme_header_transformation() && scheme != "http" && scheme != "https")
    ok = complain(Path(Path(at, "scheme_header_transformation"), "scheme_to_overwrite"), e, "must be http or https");
  const Path internal(at, "internal_address_config");
  const int ranges = h.internal_address_config().cidr_ranges_size();
  if (ranges > static_cast<int>(table::kMaxInternalRanges))
    ok = complain(Path(internal, "cidr_ranges"), e, "has more than " + std::to_string(table::kMaxInternalRanges) + " elements");
  for (int i = 0; i < ranges; ++i)
    ok = cidr_range(h.internal_address_config().cidr_ranges(i), Path(internal, "cidr_ranges", i), e) && ok;
  return access_logs(h.access_log(), at, e) && ok;
}

bool tcp_proxy(const api::TcpProxy& t, const Path& at, ErrorSink& e) {
  if (!known_fields_only(t, at, e)) return false;
  bool ok = not_empty(t.stat_prefix(), Path(at, "stat_prefix"), e);
  const Path weighted(at, "weighted_clusters");
  switch (t.cluster_specifier_case()) {
    case api::TcpProxy::kCluster:
      ok = not_empty(t.cluster(), Path(at, "cluster"), e) && ok;
      break;
    case api::TcpProxy::kWeightedClusters: {
      uint64_t sum = 0;
      if (t.weighted_clusters().clusters().empty())
        ok = complain(Path(weighted, "clusters"), e, "must have at least one element");
      for (int i = 0; i < t.weighted_clusters().clusters_size(); ++i) {
        const Path here(weighted, "clusters", i);
        ok = not_empty(t.weighted_clusters().clusters(i).name(), Path(here, "name"), e) && ok;
        ok = at_least(t.weighted_clusters().clusters(i).weight(), 1, Path(here, "weight"), e) && ok;
        sum += t.weighted_clusters().clusters(i).weight();
      }
      if (sum > UINT32_MAX) ok = complain(Path(weighted, "clusters"), e, "the weights sum up to more than 4294967295");
      break;
    }
    case api::TcpProxy::CLUSTER_SPECIFIER_NOT_SET:
      ok = complain(at, e, "needs cluster or weighted_clusters");
      break;
  }
  if (t.hash_policy_size() > 1) ok = complain(Path(at, "hash_policy"), e, "must have at most one element");
  if (t.hash_policy_size() == 1 && !t.hash_policy(0).has_source_ip())
    ok = complain(Path(at, "hash_policy", 0), e, "needs source_ip");
  if (t.has_max_connect_attempts()) ok = at_least(t.max_connect_attempts().value(), 1, Path(at, "max_connect_attempts"), e) && ok;
  if (t.has_idle_timeout()) ok = duration(t.idle_timeout(), Path(at, "idle_timeout"), e) && ok;
  if (t.has_max_downstream_connection_duration())
    ok = duration(t.max_downstream_connection_duration(), Path(at, "max_downstream_connection_duration"), e, 1) && ok;
  return access_logs(t.access_log(), at, e) && ok;
}

bool filter_chain(const api::FilterChain& c, const Path& at, ErrorSink& e) {
  bool ok = true;
  if (c.filters_size() == 0)
    ok = complain(Path(at, "filters"), e, "must have one element: an HttpConnectionManager or a TcpProxy");
  for (int i = 0; i < c.filters_size(); ++i) {
    const auto& f = c.filters(i);
    const Path here(at, "filters", i), config(here, "typed_config");
    ok = not_empty(f.name(), Path(here, "name"), e) && ok;
    api::HttpConnectionManager hcm;
    api::TcpProxy tcp;
    if (!f.has_typed_config()) ok = complain(config, e, "is required");
    else if (f.typed_config().UnpackTo(&hcm)) ok = connection_manager(hcm, config, e) && ok;
    else if (f.typed_config().UnpackTo(&tcp)) ok = tcp_proxy(tcp, config, e) && ok;
    else ok = complain(config, e, f.typed_config().type_url() + " is not supported by Millrace yet");
    if (i > 0) ok = complain(here, e, "the filter before it ends the chain: nothing may follow it");
  }
  const Path match(at, "filter_chain_match"), socket(at, "transport_socket"), tls(socket, "typed_config");
  const std::string& transport = c.filter_chain_match().transport_protocol();
  if (!transport.empty() && transport != "tls" && transport != "raw_buffer")
    ok = complain(Path(match, "transport_protocol"), e, "\"" + transport + "\" is never detected: use \"tls\" or \"raw_buffer\"");
  if (c.has_transport_socket()) {
    api::DownstreamTlsContext context;
    ok = not_empty(c.transport_socket().name(), Path(socket, "name"), e) && ok;
    if (!c.transport_socket().has_typed_config()) ok = complain(tls, e, "is required");
    else if (!c.transport_socket().typed_config().UnpackTo(&context)) ok = complain(tls, e, "must be a DownstreamTlsContext");
    else ok = known_fields_only(context, tls, e) && downstream_tls(context, tls, e) && ok;
  }
  if (c.has_transport_socket_connect_timeout())
    ok = duration(c.transport_socket_connect_timeout(), Path(at, "transport_socket_connect_timeout"), e) && ok;
  return ok;
}

bool chain_matches(const api::Listener& l, const Path& root, ErrorSink& e) {
  bool ok = true;
  std::map<std::string_view, int> names;
  for (int i = 0; i < l.filter_chains_size(); ++i) {
    if (l.filter_chains(i).name().empty()) continue;
    const Path here(root, "filter_chains", i);
    const auto [first, fresh] = names.emplace(l.filter_chains(i).name(), i);
    if (!fresh)
      ok = complain(
          Path(here, "name"), e,
          "\"" + l.filter_chains(i).name() + "\" is the name of filter_chains[" + std::to_string(first->second) + "] already");
  }
  // Envoy names a pair; to put the error where it was written, chains are added one by one until the index refuses.
  std::vector<table::FilterChainCriteria> criteria;
  for (int i = 0; i < l.filter_chains_size(); ++i) {
    const auto& m = l.filter_chains(i).filter_chain_match();
    table::FilterChainCriteria c;
    c.name = l.filter_chains(i).name();
    c.server_names.assign(m.server_names().begin(), m.server_names().end());
    c.application_protocols.assign(m.application_protocols().begin(), m.application_protocols().end());
    c.transport_protocol = m.transport_protocol() == "tls"          ? table::TransportProtocol::kTls
                           : m.transport_protocol() == "raw_buffer" ? table::TransportProtocol::kRawBuffer
                                                                    : table::TransportProtocol::kAny;
    criteria.push_back(std::move(c));
  }
  if (table::build_filter_chain_index(criteria).ok()) return ok;
  std::vector<table::FilterChainCriteria> some;
  for (int i = 0; i < l.filter_chains_size(); ++i) {
    some.push_back(criteria[static_cast<size_t>(i)]);
    const auto index = table::build_filter_chain_index(some);
    if (index.ok()) continue;
    const Path chain(root, "filter_chains", i), match(chain, "filter_chain_match"), server_names(match, "server_names");
    const bool wildcard = index.error().find("server_names") != std::string::npos;
    ok = complain(wildcard ? server_names : l.filter_chains(i).has_filter_chain_match() ? match : chain, e, index.error());
    some.pop_back();
  }
  return ok;
}

}  // namespace

bool validate_listener(const api::Listener& l, ErrorSink& e) {
  const Path root;
  if (!known_fields_only(l, root, e)) return false;
  bool ok = address(l.has_address(), l.address(), Path(root, "address"), e);
  if (l.filter_chains().empty() && !l.has_default_filter_chain())
    ok = complain(Path(root, "filter_chains"), e, "no filter chains specified");
  ok = listener_filters(l, root, e) && ok;
  for (int i = 0; i < l.filter_chains_size(); ++i) ok = filter_chain(l.filter_chains(i), Path(root, "filter_chains", i), e) && ok;
  const Path fallback(root, "default_filter_chain");
  if (l.has_default_filter_chain()) {
    ok = filter_chain(l.default_filter_chain(), fallback, e) && ok;
    if (l.default_filter_chain().has_filter_chain_match())
      ok = complain(Path(fallback, "filter_chain_match"), e, "has no meaning: the default chain takes what no other matches");
  }
  ok = chain_matches(l, root, e) && ok;
  if (l.has_listener_filters_timeout())
    ok = duration(l.listener_filters_timeout(), Path(root, "listener_filters_timeout"), e) && ok;
  if (l.has_per_connection_buffer_limit_bytes())
    ok = at_least(l.per_connection_buffer_limit_bytes().value(), 1, Path(root, "per_connection_buffer_limit_bytes"), e) && ok;
  table::TcpOptions tcp;
  ok = listener_tcp_options(l, root, tcp, &e) && ok;
  return access_logs(l.access_log(), root, e) && ok;
}

}  // namespace millrace::control
