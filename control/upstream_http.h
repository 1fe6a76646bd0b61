// How HTTP is spoken to the endpoints of a cluster, wherever the configuration says it: typed_extension_protocol_options, or the
// older fields of Cluster itself.
#pragma once

#include "control/model.h"
#include "control/source_map.h"
#include "lib/api/envoy.extensions.upstreams.http.v3.pb.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::control {

using UpstreamHttpOptions = envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

bool validate_upstream_http(const api::Cluster& c, const Path& root, ErrorSink& e);
// Of a cluster that was validated: what it means in terms of the new message.
UpstreamHttpOptions upstream_http_options(const api::Cluster& c);
void compile_http2(const envoy::config::core::v3::Http2ProtocolOptions& o, table::Http2Options* out);
void compile_upstream_http(const api::Cluster& c, table::ObjectWriter& w, table::Cluster* out);

}  // namespace millrace::control
