#include "control/envoy_names.h"

#include <map>
#include <string>

#include "lib/api/envoy.config.bootstrap.v3.pb.h"
#include "lib/api/envoy.config.grpc_credential.v3.pb.h"
#include "lib/api/envoy.config.metrics.v3.pb.h"
#include "lib/api/envoy.config.route.v3.pb.h"
#include "lib/api/envoy.extensions.access_loggers.file.v3.pb.h"
#include "lib/api/envoy.extensions.access_loggers.stream.v3.pb.h"
#include "lib/api/envoy.extensions.compression.brotli.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.gzip.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.zstd.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.cors.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.grpc_web.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.router.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.proxy_protocol.v3.pb.h"
#include "lib/api/envoy.extensions.filters.listener.tls_inspector.v3.pb.h"
#include "lib/api/envoy.extensions.filters.network.http_connection_manager.v3.pb.h"
#include "lib/api/envoy.extensions.filters.network.tcp_proxy.v3.pb.h"
#include "lib/api/envoy.extensions.network.dns_resolver.cares.v3.pb.h"
#include "lib/api/envoy.extensions.retry.host.previous_hosts.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.proxy_protocol.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.raw_buffer.v3.pb.h"
#include "lib/api/envoy.extensions.transport_sockets.tls.v3.pb.h"
#include "lib/api/envoy.extensions.upstreams.http.v3.pb.h"

namespace millrace::control {

namespace {

struct Names {
  std::string_view owner, words;
};
constexpr Names kEnvoyOnly[] = {
#include "control/envoy_names.inc"
};

namespace ext = envoy::extensions;
using google::protobuf::Descriptor;
using ExtensionTable = std::map<std::string, std::vector<const Descriptor*>, std::less<>>;

const ExtensionTable& extension_table() {
  static const ExtensionTable table = {
      {"envoy.config.listener.v3.ListenerFilter.typed_config",
       {ext::filters::listener::proxy_protocol::v3::ProxyProtocol::descriptor(),
        ext::filters::listener::tls_inspector::v3::TlsInspector::descriptor()}},
      {"envoy.config.listener.v3.Filter.typed_config",
       {ext::filters::network::http_connection_manager::v3::HttpConnectionManager::descriptor(),
        ext::filters::network::tcp_proxy::v3::TcpProxy::descriptor()}},
      {"envoy.config.core.v3.TransportSocket.typed_config",
       {ext::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport::descriptor(),
        ext::transport_sockets::raw_buffer::v3::RawBuffer::descriptor(),
        ext::transport_sockets::tls::v3::DownstreamTlsContext::descriptor(),
        ext::transport_sockets::tls::v3::UpstreamTlsContext::descriptor()}},
      {"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config",
       {ext::filters::http::compressor::v3::Compressor::descriptor(), ext::filters::http::cors::v3::Cors::descriptor(),
        ext::filters::http::grpc_web::v3::GrpcWeb::descriptor(), ext::filters::http::router::v3::Router::descriptor()}},
      {"envoy.config.route.v3.VirtualHost.typed_per_filter_config",
       {ext::filters::http::cors::v3::CorsPolicy::descriptor(), envoy::config::route::v3::FilterConfig::descriptor()}},
      {"envoy.config.route.v3.Route.typed_per_filter_config",
       {ext::filters::http::cors::v3::CorsPolicy::descriptor(), envoy::config::route::v3::FilterConfig::descriptor()}},
      {"envoy.config.route.v3.FilterConfig.config", {ext::filters::http::cors::v3::CorsPolicy::descriptor()}},
      {"envoy.config.core.v3.TypedExtensionConfig.typed_config",
       {ext::compression::brotli::compressor::v3::Brotli::descriptor(),
        ext::compression::gzip::compressor::v3::Gzip::descriptor(), ext::compression::zstd::compressor::v3::Zstd::descriptor(),
        ext::network::dns_resolver::cares::v3::CaresDnsResolverConfig::descriptor()}},
      {"envoy.config.accesslog.v3.AccessLog.typed_config",
       {ext::access_loggers::file::v3::FileAccessLog::descriptor(),
        ext::access_loggers::stream::v3::StdoutAccessLog::descriptor(),
        ext::access_loggers::stream::v3::StderrAccessLog::descriptor()}},
      {"envoy.config.cluster.v3.Cluster.typed_extension_protocol_options",
       {ext::upstreams::http::v3::HttpProtocolOptions::descriptor()}},
      {"envoy.config.route.v3.RetryPolicy.RetryHostPredicate.typed_config",
       {ext::retry::host::previous_hosts::v3::PreviousHostsPredicate::descriptor()}},
      {"envoy.config.core.v3.GrpcService.GoogleGrpc.CallCredentials.MetadataCredentialsFromPlugin.typed_config",
       {envoy::config::grpc_credential::v3::FileBasedMetadataConfig::descriptor()}},
      {"envoy.config.metrics.v3.StatsSink.typed_config",
       {envoy::config::metrics::v3::StatsdSink::descriptor(), envoy::config::metrics::v3::DogStatsdSink::descriptor()}},
  };
  return table;
}

}  // namespace

bool envoy_has(std::string_view message_or_enum, std::string_view name) {
  for (const Names& n : kEnvoyOnly)
    if (n.owner == message_or_enum) return n.words.find(" " + std::string(name) + " ") != std::string_view::npos;
  return false;
}

const std::vector<const Descriptor*>& extensions_of(const google::protobuf::FieldDescriptor* any_field) {
  static const std::vector<const Descriptor*> none;
  const auto found = extension_table().find(any_field->full_name());
  return found == extension_table().end() ? none : found->second;
}

const Descriptor* find_message(std::string_view full_name) {
  // The tables above and the kinds keep every file of lib/api linked, so that the generated pool knows it.
  static const bool linked = !extension_table().empty() && envoy::config::bootstrap::v3::Bootstrap::descriptor() != nullptr;
  return linked ? google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(std::string(full_name)) : nullptr;
}

}  // namespace millrace::control
