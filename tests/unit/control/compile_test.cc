// Model to table objects: what each field becomes, that the validator and the matcher take it, and that an edit compiles what it
// touches.
#include "control/compile.h"

#include <set>

#include "lib/base/ip_address.h"
#include "lib/route/compiler.h"
#include "lib/route/matcher.h"
#include "lib/route/runtime.h"
#include "lib/table/objects.h"
#include "lib/table/validate.h"
#include "tests/unit/control/config_fixture.h"

namespace millrace::control {
namespace {

using table::view;

template <class T>
const T& object(const Compiler& c, table::Kind kind, const std::string& name) {
  const TableObject* o = c.find(kind, name);
  EXPECT_NE(o, nullptr) << name;
  static const T none{};
  return o == nullptr ? none : *reinterpret_cast<const T*>(o->bytes());
}
std::vector<std::string> names_of(const std::vector<TableObject>& objects) {
  std::vector<std::string> out;
  for (const TableObject& o : objects) out.push_back(std::string(table::to_string(o.kind)) + " " + o.name);
  return out;
}
using Names = std::vector<std::string>;

class CompileTest : public ConfigTest {
 protected:
  void compile(const std::string& file) {
    model_ = model_of(read_file(data_directory() / "good" / file));
    const CompileResult r = compiler_.compile(model_);
    ASSERT_EQ(to_text(r.errors), "");
    for (const TableObject& o : r.changed) {
      const base::Status s = table::validate_object({o.bytes(), o.size_bytes});
      EXPECT_TRUE(s.ok()) << o.name << ": " << (s.ok() ? "" : s.error());
      EXPECT_EQ(o.id, table::object_id(o.kind, o.name));
    }
  }
  Model model_;
  Compiler compiler_;
};

TEST_F(CompileTest, ListenerWithTls) {
  compile("tls.yaml");
  const auto& l = object<table::Listener>(compiler_, table::Kind::kListener, "https");
  EXPECT_EQ(view(&l, l.name), "https");
  EXPECT_EQ(l.address.to_string(), "::");
  EXPECT_EQ(l.port, 443);
  EXPECT_EQ(l.tls_inspector, 1);
  EXPECT_EQ(l.continue_on_listener_filters_timeout, 1);
  EXPECT_EQ(l.listener_filters_timeout_ms, 5000u);
  EXPECT_EQ(l.per_connection_buffer_limit_bytes, 32768u);
  ASSERT_EQ(l.access_logs.count, 1u);
  EXPECT_EQ(view(&l, l.access_logs.at(&l, 0).path), "/dev/stdout");
  ASSERT_EQ(l.filter_chains.count, 4u);
  EXPECT_EQ(l.default_filter_chain, 3u);
  ASSERT_EQ(l.exact_names.count, 2u);
  ASSERT_EQ(l.wildcard_names.count, 2u);
  EXPECT_EQ(view(&l, l.exact_names.at(&l, 0).text), "a.example");
  EXPECT_EQ(view(&l, l.wildcard_names.at(&l, 0).text), ".a.example");
  EXPECT_EQ(l.any_name_chains.count, 0u);

  const table::FilterChain& a = l.filter_chains.at(&l, 0);
  EXPECT_EQ(view(&l, a.name), "a");
  EXPECT_EQ(a.transport_protocol, table::TransportProtocol::kTls);
  EXPECT_EQ(a.has_tls, 1);
  EXPECT_EQ(a.connect_timeout_ms, 3000u);
  EXPECT_EQ(a.filter, table::NetworkFilterKind::kHttpConnectionManager);
  ASSERT_EQ(a.tls.secrets.count, 1u);
  EXPECT_EQ(a.tls.secrets.at(&l, 0), table::object_id(table::Kind::kSecret, "https/a/tls_certificates[0]"));
  EXPECT_EQ(view(&l, a.tls.alpn.at(&l, 0)), "http/1.1");
  EXPECT_EQ(a.tls.cipher_suites.count, 2u);
  EXPECT_EQ(a.tls.curves.count, 2u);
  EXPECT_EQ(a.tls.min_version, table::TlsVersion::kTls12);
  EXPECT_EQ(a.tls.max_version, table::TlsVersion::kTls13);
  EXPECT_EQ(a.tls.disable_tickets, 1);

  const table::HttpConnectionManager& h = a.hcm;
  EXPECT_EQ(view(&l, h.stat_prefix), "https");
  EXPECT_EQ(h.route_table, table::object_id(table::Kind::kRouteTable, "https_routes"));
  EXPECT_EQ(view(&l, h.route_table_name), "https_routes");
  EXPECT_EQ(view(&l, h.server_name), "millrace");
  EXPECT_EQ(view(&l, h.via), "gw");
  EXPECT_EQ(view(&l, h.default_host_for_http_10), "a.example");
  EXPECT_EQ(h.stream_idle_timeout_ms, 0u);
  EXPECT_EQ(h.request_timeout_ms, 30'000u);
  EXPECT_EQ(h.request_headers_timeout_ms, 10'000u);
  EXPECT_EQ(h.idle_timeout_ms, 60'000u);
  EXPECT_EQ(h.max_connection_duration_ms, 3'600'000u);
  EXPECT_EQ(h.max_stream_duration_ms, 600'000u);
  EXPECT_EQ(h.delayed_close_timeout_ms, 500u);
  EXPECT_EQ(h.drain_timeout_ms, 1000u);
  EXPECT_EQ(h.max_request_headers_bytes, 96u * 1024);
  EXPECT_EQ(h.max_headers_count, 50u);
  EXPECT_EQ(h.max_requests_per_connection, 1000u);
  EXPECT_EQ(h.xff_num_trusted_hops, 1u);
  EXPECT_EQ(h.server_header, table::ServerHeader::kAppendIfAbsent);
  EXPECT_EQ(h.escaped_slashes, table::EscapedSlashes::kUnescapeAndRedirect);
  for (const uint8_t on : {h.use_remote_address, h.skip_xff_append, h.preserve_external_request_id,
                           h.always_set_request_id_in_response, h.normalize_path, h.merge_slashes, h.accept_http_10,
                           h.enable_trailers, h.headers_with_underscores_reject, h.suppress_envoy_headers})
    EXPECT_EQ(on, 1);
  for (const uint8_t off : {h.generate_request_id, h.allow_absolute_url, h.headers_with_underscores_drop}) EXPECT_EQ(off, 0);
  ASSERT_EQ(h.access_logs.count, 2u);
  EXPECT_EQ(view(&l, h.access_logs.at(&l, 0).format), "%RESPONSE_CODE%\n");
  EXPECT_EQ(h.access_logs.at(&l, 0).json, 0);
  EXPECT_EQ(view(&l, h.access_logs.at(&l, 1).format), R"({"path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%"})");
  EXPECT_EQ(h.access_logs.at(&l, 1).json, 1);

  const table::FilterChain& b = l.filter_chains.at(&l, 1);
  EXPECT_EQ(b.tls.secrets.at(&l, 0), table::object_id(table::Kind::kSecret, "web"));
  EXPECT_EQ(b.filter, table::NetworkFilterKind::kTcpProxy);
  EXPECT_EQ(b.tcp.idle_timeout_ms, 0u);
  EXPECT_EQ(b.tcp.max_connect_attempts, 3u);
  EXPECT_EQ(b.tcp.max_downstream_connection_duration_ms, 86'400'000u);
  const table::FilterChain& p = l.filter_chains.at(&l, 2);
  EXPECT_EQ(p.has_tls, 0);
  ASSERT_EQ(p.tcp.clusters.count, 2u);
  EXPECT_EQ(p.tcp.total_weight, 3u);
  EXPECT_EQ(p.tcp.clusters.at(&l, 1).cluster, table::object_id(table::Kind::kCluster, "backup"));
  EXPECT_EQ(view(&l, p.application_protocols.at(&l, 0)), "h2");
}

TEST_F(CompileTest, DefaultsAreEnvoys) {
  model_ = model_of(gateway_yaml("- { match: { prefix: / }, route: { cluster: api } }"));
  ASSERT_TRUE(compiler_.compile(model_).ok());
  const auto& l = object<table::Listener>(compiler_, table::Kind::kListener, "edge");
  EXPECT_EQ(l.tls_inspector, 0);
  EXPECT_EQ(l.default_filter_chain, UINT32_MAX);
  EXPECT_EQ(l.any_name_chains.count, 1u);
  EXPECT_EQ(l.per_connection_buffer_limit_bytes, 1u << 20);
  const auto& h = l.filter_chains.at(&l, 0).hcm;
  EXPECT_EQ(view(&l, h.server_name), "envoy");
  EXPECT_EQ(h.stream_idle_timeout_ms, 300'000u);
  EXPECT_EQ(h.idle_timeout_ms, 3'600'000u);
  EXPECT_EQ(h.generate_request_id, 1);
  EXPECT_EQ(h.use_remote_address, 0);
  EXPECT_EQ(h.allow_absolute_url, 1);
  const auto& c = object<table::Cluster>(compiler_, table::Kind::kCluster, "api");
  EXPECT_EQ(c.connect_timeout_ms, 5000u);
  EXPECT_EQ(c.max_requests, 1024u);
  EXPECT_EQ(c.lb_policy, table::LbPolicy::kRoundRobin);
  EXPECT_EQ(l.tcp, table::TcpOptions{});
  EXPECT_EQ(c.tcp, table::TcpOptions{});
}

TEST_F(CompileTest, UpstreamHttp) {
  compile("upstream_http.yaml");
  const auto& c = object<table::Cluster>(compiler_, table::Kind::kCluster, "explicit");
  EXPECT_EQ(c.http, table::UpstreamHttp::kHttp2);
  EXPECT_EQ(c.idle_timeout_ms, 30'000u);
  EXPECT_EQ(c.max_requests_per_connection, 100u);
  EXPECT_EQ(c.max_response_headers_count, 50u);
  EXPECT_EQ(c.http2.hpack_table_size, 8192u);
  EXPECT_EQ(c.http2.max_concurrent_streams, 100u);
  EXPECT_EQ(c.http2.initial_stream_window_size, 65536u);
  EXPECT_EQ(c.http2.initial_connection_window_size, 1048576u);
  EXPECT_EQ(c.http2.max_outbound_frames, 5000u);
  EXPECT_EQ(c.http2.max_outbound_control_frames, 500u);
  EXPECT_EQ(c.http2.max_consecutive_inbound_frames_with_empty_payload, 2u);
  EXPECT_EQ(c.http2.max_inbound_priority_frames_per_stream, 50u);
  EXPECT_EQ(c.http2.max_inbound_window_update_frames_per_data_frame_sent, 5u);
  EXPECT_EQ(c.http2.override_stream_error_on_invalid_http_message, 1u);
  EXPECT_EQ(c.http2.keepalive_interval_ms, 30'000u);
  EXPECT_EQ(c.http2.keepalive_timeout_ms, 5'000u);
  EXPECT_EQ(c.http2.keepalive_jitter_percent, 20u);
  EXPECT_EQ(c.http2.keepalive_idle_interval_ms, 60'000u);
  const auto& same = object<table::Cluster>(compiler_, table::Kind::kCluster, "as_downstream");
  EXPECT_EQ(same.http, table::UpstreamHttp::kAsDownstream);
  EXPECT_EQ(same.enable_trailers, 1u);
  EXPECT_EQ(same.http2.max_concurrent_streams, 7u);
  EXPECT_EQ(same.http2.keepalive_timeout_ms, 0u);
  EXPECT_EQ(same.http2.keepalive_jitter_percent, 15u);
  const auto& old = object<table::Cluster>(compiler_, table::Kind::kCluster, "old_style");
  EXPECT_EQ(old.http, table::UpstreamHttp::kHttp2);
  EXPECT_EQ(old.http2.max_concurrent_streams, 9u);
  EXPECT_EQ(old.idle_timeout_ms, 20'000u);
  EXPECT_EQ(old.max_requests_per_connection, 11u);
  const auto& plain = object<table::Cluster>(compiler_, table::Kind::kCluster, "plain");
  EXPECT_EQ(plain.http, table::UpstreamHttp::kHttp1);
  EXPECT_EQ(plain.http2.max_concurrent_streams, 1024u);
  EXPECT_EQ(plain.max_response_headers_count, 100u);
}

TEST_F(CompileTest, ClusterAndEndpoints) {
  compile("tls.yaml");
  const auto& c = object<table::Cluster>(compiler_, table::Kind::kCluster, "api");
  EXPECT_EQ(view(&c, c.name), "api");
  EXPECT_EQ(c.endpoint_set, table::object_id(table::Kind::kEndpointSet, "api"));
  EXPECT_EQ(c.connect_timeout_ms, 250u);
  EXPECT_EQ(c.idle_timeout_ms, 30'000u);
  EXPECT_EQ(c.max_requests_per_connection, 100u);
  EXPECT_EQ(c.least_request_choice_count, 3u);
  EXPECT_EQ(c.max_connections, 10u);
  EXPECT_EQ(c.max_pending_requests, 11u);
  EXPECT_EQ(c.max_requests, 12u);
  EXPECT_EQ(c.per_connection_buffer_limit_bytes, 65536u);
  EXPECT_EQ(c.lb_policy, table::LbPolicy::kLeastRequest);
  EXPECT_EQ(c.enable_trailers, 1);
  const auto& e = object<table::EndpointSet>(compiler_, table::Kind::kEndpointSet, "api");
  ASSERT_EQ(e.endpoints.count, 4u);
  EXPECT_EQ(e.healthy, 1u);
  EXPECT_EQ(e.total_weight, 5u);
  EXPECT_EQ(e.endpoints.at(&e, 0).address.to_string(), "10.0.0.1");
  EXPECT_EQ(view(&e, e.endpoints.at(&e, 0).hostname), "one.example");
  EXPECT_EQ(e.endpoints.at(&e, 1).state, table::EndpointState::kDraining);
  EXPECT_EQ(e.endpoints.at(&e, 2).state, table::EndpointState::kUnhealthy);
  EXPECT_EQ(e.endpoints.at(&e, 3).state, table::EndpointState::kUnhealthy);
  EXPECT_EQ(object<table::EndpointSet>(compiler_, table::Kind::kEndpointSet, "backup").endpoints.count, 0u);
  const auto& s = object<table::Secret>(compiler_, table::Kind::kSecret, "web");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(s.private_key_pem.begin(&s)), s.private_key_pem.count),
            read_file("key.pem"));
}

// socket_options by Linux's numbers, and the fields that have names.
TEST_F(CompileTest, TcpOptions) {
  compile("tls.yaml");
  const auto& l = object<table::Listener>(compiler_, table::Kind::kListener, "https").tcp;
  EXPECT_EQ(l, (table::TcpOptions{.keepalive_idle_s = 60,
                                  .keepalive_interval_s = 10,
                                  .fast_open_queue = 256,
                                  .keepalive_probes = 5,
                                  .keepalive = table::TcpKeepalive::kOn,
                                  .congestion = table::TcpCongestion::kBbr}));
  const auto& c = object<table::Cluster>(compiler_, table::Kind::kCluster, "api").tcp;
  EXPECT_EQ(c, (table::TcpOptions{.user_timeout_ms = 30'000,
                                  .keepalive_idle_s = 20,
                                  .keepalive_interval_s = 5,
                                  .max_segment = 512,
                                  .keepalive_probes = 3,
                                  .keepalive = table::TcpKeepalive::kOn,
                                  .congestion = table::TcpCongestion::kReno}));
  // A field that is 0 switches it off, whatever the others say, as in Envoy.
  EXPECT_EQ(object<table::Cluster>(compiler_, table::Kind::kCluster, "backup").tcp,
            (table::TcpOptions{.keepalive = table::TcpKeepalive::kOff}));
}

// The compiled table answers as the configuration says: one request for each route.
TEST_F(CompileTest, CorsPoliciesOfRouteAndVirtualHost) {
  compile("cors.yaml");
  const auto& l = object<table::Listener>(compiler_, table::Kind::kListener, "edge");
  EXPECT_EQ(view(&l, l.filter_chains.at(&l, 0).hcm.cors), "envoy.filters.http.cors");
  const auto& v = object<table::VirtualHost>(compiler_, table::Kind::kVirtualHost, "main/all");
  const auto& plain = v.routes.at(&v, 0).filters;
  ASSERT_EQ(plain.count, 1u);
  EXPECT_EQ(v.routes.at(&v, 1).filters.offset, plain.offset) << "what two routes say is there once";
  ASSERT_EQ(plain.at(&v, 0).cors.count, 1u);
  const table::CorsPolicy& host = plain.at(&v, 0).cors.at(&v, 0);
  EXPECT_EQ(host.any_origin, 1);
  ASSERT_EQ(host.origins.count, 2u);
  EXPECT_EQ(host.origins.at(&v, 1).kind, table::StringMatchKind::kRegex);
  EXPECT_EQ(host.enabled_numerator, 5u);
  EXPECT_EQ(host.enabled_denominator, 10'000u);
  EXPECT_EQ(host.shadow_numerator, 0u);
  EXPECT_EQ(host.allow_credentials, 1);
  EXPECT_EQ(host.forward_not_matching_preflights, 1);

  // Of each field the route's word, else the virtual host's; whether it is enabled the route says alone.
  const auto& own = v.routes.at(&v, 2).filters;
  ASSERT_EQ(own.count, 1u);
  ASSERT_EQ(own.at(&v, 0).cors.count, 2u);
  const table::CorsPolicy& c = own.at(&v, 0).cors.at(&v, 0);
  EXPECT_EQ(view(&v, c.filter), "envoy.filters.http.cors");
  ASSERT_EQ(c.origins.count, 1u);
  EXPECT_EQ(c.origins.at(&v, 0).kind, table::StringMatchKind::kSuffix);
  EXPECT_EQ(c.origins.at(&v, 0).ignore_case, 1);
  EXPECT_EQ(c.any_origin, 0);
  EXPECT_EQ(view(&v, c.allow_methods), "GET");
  EXPECT_EQ(view(&v, c.allow_headers), "x-own");
  EXPECT_EQ(view(&v, c.expose_headers), "x-host");
  EXPECT_EQ(view(&v, c.max_age), "10");
  EXPECT_EQ(c.allow_credentials, 0);
  EXPECT_EQ(c.allow_private_network_access, 1);
  EXPECT_EQ(c.forward_not_matching_preflights, 0);
  EXPECT_EQ(c.enabled_numerator, c.enabled_denominator);
  EXPECT_EQ(c.shadow_numerator, 7u);
  EXPECT_EQ(c.shadow_denominator, 100u);
  EXPECT_EQ(view(&v, own.at(&v, 0).cors.at(&v, 1).filter), "second");

  EXPECT_EQ(v.routes.at(&v, 3).filters.count, 0u) << "disabled";
  EXPECT_EQ(v.routes.at(&v, 4).filters.count, 0u) << "answers by itself";
}

TEST_F(CompileTest, Compressors) {
  compile("compression.yaml");
  const auto& l = object<table::Listener>(compiler_, table::Kind::kListener, "edge");
  const table::HttpConnectionManager& h = l.filter_chains.at(&l, 0).hcm;
  ASSERT_EQ(h.compressors.count, 3u);
  EXPECT_EQ(h.grpc_web, 3) << "behind two of them";
  const table::Compressor& br = h.compressors.at(&l, 0);
  EXPECT_EQ(view(&l, br.name), "brotli");
  EXPECT_EQ(br.codec, table::CompressionCodec::kBrotli);
  EXPECT_EQ(br.level, 9);
  EXPECT_EQ(br.strategy, 1);
  EXPECT_EQ(br.window_bits, 22);
  EXPECT_EQ(br.block_bits, 16);
  EXPECT_EQ(br.no_literal_contexts, 1);
  EXPECT_EQ(br.min_content_length, 1000u);
  ASSERT_EQ(br.content_types.count, 2u);
  EXPECT_EQ(view(&l, br.content_types.at(&l, 0)), "text/html");
  EXPECT_EQ(br.enabled, 0);
  EXPECT_EQ(br.disable_on_etag, 1);
  EXPECT_EQ(br.remove_accept_encoding, 1);
  EXPECT_EQ(br.choose_first, 1);
  EXPECT_EQ(br.response_config, 1);
  const table::Compressor& zstd = h.compressors.at(&l, 1);
  EXPECT_EQ(zstd.codec, table::CompressionCodec::kZstd);
  EXPECT_EQ(zstd.level, 7);
  EXPECT_EQ(zstd.strategy, 5);
  EXPECT_EQ(zstd.checksum, 1);
  const table::Compressor& gz = h.compressors.at(&l, 2);  // Envoy's defaults
  EXPECT_EQ(gz.codec, table::CompressionCodec::kGzip);
  EXPECT_EQ(gz.level, 6);
  EXPECT_EQ(gz.strategy, 0);
  EXPECT_EQ(gz.window_bits, 12);
  EXPECT_EQ(gz.memory_level, 5);
  EXPECT_EQ(gz.min_content_length, 30u);
  EXPECT_EQ(gz.content_types.count, 20u);
  EXPECT_EQ(gz.enabled, 1);
  EXPECT_EQ(gz.disable_on_etag, 0);
  EXPECT_EQ(gz.remove_accept_encoding, 0);
  EXPECT_EQ(gz.choose_first, 0);
  EXPECT_EQ(gz.response_config, 0);
}

TEST_F(CompileTest, MatcherFindsTheRoutes) {
  compile("routes.yaml");
  const auto& rt = object<table::RouteTable>(compiler_, table::Kind::kRouteTable, "table");
  EXPECT_EQ(rt.ignore_port_in_host_matching, 1);
  EXPECT_EQ(rt.most_specific_header_mutations_wins, 1);
  ASSERT_EQ(rt.headers_mut.request_add.count, 2u);
  EXPECT_EQ(view(&rt, rt.headers_mut.request_add.at(&rt, 0).value), "100%");
  EXPECT_EQ(rt.headers_mut.request_add.at(&rt, 1).append, table::HeaderAppend::kOverwriteIfExistsOrAdd);
  EXPECT_EQ(route::find_virtual_host(rt, "shop.example:8080").index, 0u);
  EXPECT_EQ(route::find_virtual_host(rt, "x.shop.example").how, route::HostMatch::kSuffix);
  EXPECT_EQ(route::find_virtual_host(rt, "shop.org").how, route::HostMatch::kPrefix);
  EXPECT_EQ(route::find_virtual_host(rt, "else.org").index, 1u);
  EXPECT_EQ(object<table::VirtualHost>(compiler_, table::Kind::kVirtualHost, "table/other").require_tls,
            table::RequireTls::kExternalOnly);

  const auto& vh = object<table::VirtualHost>(compiler_, table::Kind::kVirtualHost, "table/shop");
  route::PatternDbCache cache;
  route::PatternScratch prototype;
  auto loaded = route::LoadedVirtualHost::load(vh, cache, prototype, nullptr);
  ASSERT_TRUE(loaded.ok()) << loaded.error();
  route::MatchScratch scratch;
  scratch.patterns = std::move(prototype);
  const auto route_of = [&](std::string_view path, std::vector<std::pair<std::string, std::string>> headers = {}) -> std::string {
    std::vector<http::Header> storage(headers.size() + 1);
    http::RequestHead head;
    head.method = "GET";
    head.path = path;
    head.authority = "shop.example";
    head.headers = http::HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const auto& [n, v] : headers) head.headers.push({n, v, http::header_id(n)});
    route::MatchContext context;
    context.scratch = &scratch;
    context.random_value = 0;
    const route::MatchResult r = route::match_route((*loaded)->runtime(), head, context);
    return r.outcome == route::MatchOutcome::kRoute ? std::string(view(&vh, vh.routes.at(&vh, r.route).name))
                                                    : route::to_string(r.outcome);
  };
  const std::vector<std::pair<std::string, std::string>> all = {{"x-a", "A"},   {"x-b", "bb"},  {"x-c", "d"}, {"x-d", "ada"},
                                                                {"x-e", "eee"}, {"x-f", "9"},   {"x-h", "h"}, {"x-i", "ii"},
                                                                {"x-j", "jj"},  {"x-k", "akb"}, {"x-l", "l"}, {"x-m", ""}};
  EXPECT_EQ(route_of("/cart?x"), "exact");
  EXPECT_EQ(route_of("/Cart"), "nocase");
  EXPECT_EQ(route_of("/api/x"), "separated");
  EXPECT_EQ(route_of("/apis"), "maintenance");
  EXPECT_EQ(route_of("/v12/x"), "regex");
  EXPECT_EQ(route_of("/m?p=1&q=abc", all), "matchers");
  EXPECT_EQ(route_of("/m?q=abc", all), "maintenance") << "parameter p is missing";
  for (size_t drop = 0; drop < all.size(); ++drop) {
    auto fewer = all;
    fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(drop));
    EXPECT_EQ(route_of("/m?p=1&q=abc", fewer), "maintenance") << "without " << all[drop].first;
  }
  EXPECT_EQ(route_of("/x", {{"content-type", "application/grpc+proto"}}), "grpc");
  EXPECT_EQ(route_of("/split"), "split");
  EXPECT_EQ(route_of("/old/a"), "move");

  const auto find = [&](std::string_view name) -> const table::Route& {
    for (uint32_t i = 0; i < vh.routes.count; ++i)
      if (view(&vh, vh.routes.at(&vh, i).name) == name) return vh.routes.at(&vh, i);
    ADD_FAILURE() << name;
    return vh.routes.at(&vh, 0);
  };
  EXPECT_EQ(find("exact").timeout_ms, 0u);
  EXPECT_EQ(find("exact").idle_timeout_ms, 60'000u);
  EXPECT_EQ(find("nocase").timeout_ms, 15'000u);
  EXPECT_EQ(find("nocase").idle_timeout_ms, UINT32_MAX);
  EXPECT_EQ(view(&vh, find("separated").host_rewrite), "api.internal");
  EXPECT_EQ(find("separated").append_xfh, 1);
  EXPECT_EQ(find("regex").auto_host_rewrite, 1);
  EXPECT_EQ(find("matchers").cluster_not_found_status, 404);
  EXPECT_EQ(find("matchers").fraction_numerator, 25u);
  EXPECT_EQ(find("split").total_weight, 100u);
  EXPECT_EQ(find("move").redirect.status, 308);
  EXPECT_EQ(find("secure").redirect.port, 8443);
  EXPECT_EQ(find("maintenance").direct_status, 503);
  EXPECT_EQ(view(&vh, find("maintenance").direct_body), "back soon\n");
}

TEST_F(CompileTest, SameInputSameBytes) {
  for (const auto& file : files_in("good")) {
    const std::string text = read_file(file);
    Compiler a, b;
    ASSERT_TRUE(a.compile(model_of(text)).ok());
    ASSERT_TRUE(b.compile(model_of(text)).ok());
    const auto x = a.objects(), y = b.objects();
    ASSERT_EQ(names_of(x), names_of(y));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(*x[i].words, *y[i].words) << x[i].name;
  }
}

TEST_F(CompileTest, AnEditCompilesWhatItTouches) {
  model_ = model_of(gateway_yaml("- { name: one, match: { prefix: /1 }, route: { cluster: api } }"));
  const CompileResult first = compiler_.compile(model_);
  EXPECT_EQ(names_of(first.changed), (Names{"endpoint_set api", "endpoint_set canary", "cluster api", "cluster canary",
                                            "virtual_host main/all", "route_table main", "listener edge"}));
  EXPECT_EQ(names_of(compiler_.objects()), names_of(first.changed));

  const auto step = [&](ModelEdit edit, const Names& changed, size_t removed = 0) {
    ASSERT_EQ(errors_of(edit), "");
    const CompileResult r = compiler_.compile(edit.model);
    EXPECT_EQ(to_text(r.errors), "");
    EXPECT_EQ(names_of(r.changed), changed);
    EXPECT_EQ(r.removed.size(), removed);
    EXPECT_EQ(r.reused + r.changed.size(), compiler_.size());
    model_ = std::move(edit.model);
  };
  step(model_.add_endpoint("api", {"10.0.0.7", 80, 1}), {"endpoint_set api"});
  api::Route r;
  load_message("{ name: two, match: { prefix: /2 }, route: { cluster: canary } }", "r", &r);
  step(model_.add_route("main", "all", r, {}), {"virtual_host main/all"});
  step(model_.apply(load_document(
           "{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: canary, lb_policy: RANDOM }", "f")),
       {"cluster canary"});
  step(model_.apply(load_document(to_yaml(*model_.message({ConfigKind::kListener, "edge"}), true), "f")), {});
  step(model_.erase({ConfigKind::kListener, "edge"}), {}, 3);
  step(model_.erase({ConfigKind::kCluster, "api"}), {}, 2);
}

TEST_F(CompileTest, OneVirtualHostOfMany) {
  std::string yaml = gateway_yaml("- { name: one, match: { prefix: /1 }, route: { cluster: api } }");
  std::string more;
  for (int i = 0; i < 50; ++i)
    more += "            - { name: h" + std::to_string(i) + ", domains: [h" + std::to_string(i) +
            ".example], routes: [{ name: r, match: { prefix: / }, route: { cluster: api } }] }\n";
  yaml.insert(yaml.find("            - name: all"), more);
  model_ = model_of(yaml);
  EXPECT_EQ(compiler_.compile(model_).changed.size(), 2u + 2u + 51u + 1u + 1u);
  const ModelEdit e = model_.remove_route("main", "h7", "r");
  EXPECT_EQ(names_of(compiler_.compile(e.model).changed), Names{"virtual_host main/h7"});
  // The whole file again brings that one back, and nothing else.
  EXPECT_EQ(names_of(compiler_.compile(e.model.replace(load_document(yaml, "f")).model).changed), Names{"virtual_host main/h7"});
}

}  // namespace
}  // namespace millrace::control
