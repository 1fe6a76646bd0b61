// The PROXY protocol in configurations: which TLVs pass, what is added, and the transport socket that puts a header in front of
// what is spoken to endpoints (envoy.transport_sockets.upstream_proxy_protocol).
#pragma once

#include "control/model.h"
#include "control/source_map.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::control {

using ProxyProtocolConfig = envoy::config::core::v3::ProxyProtocolConfig;
using PassThroughTlvs = envoy::config::core::v3::ProxyProtocolPassThroughTLVs;

// A cluster's transport socket without what wraps it. Valid while the TransportSocket it was made from is.
struct UpstreamTransport {
  bool proxied = false;  // `proxy` is said first
  ProxyProtocolConfig proxy;
  bool tls = false;  // then `context` is spoken; otherwise bytes as they are
  api::UpstreamTlsContext context;
  const char* tls_path = "transport_socket.typed_config";  // of the context, from the cluster on
};
// Of none, one that was validated, or a wrong one, of which nothing is said.
UpstreamTransport unwrap(const envoy::config::core::v3::TransportSocket& t);
bool validate_transport_socket(const envoy::config::core::v3::TransportSocket& t, const Path& at, ErrorSink& e);
bool validate_pass_through(const PassThroughTlvs& p, const Path& at, ErrorSink& e);
// Where only the version of a header may be chosen (connect_config).
bool validate_version_only(const ProxyProtocolConfig& c, const Path& at, ErrorSink& e);

table::TlvTypes compile_pass_through(bool given, const PassThroughTlvs& p);
table::ProxyHeaderOut compile_proxy(const ProxyProtocolConfig& c, table::ObjectWriter& w);

}  // namespace millrace::control
