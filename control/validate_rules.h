// Rules that several messages share. Each complains to the sink and returns whether it had nothing to complain about.
#pragma once

#include <string>
#include <string_view>

#include <google/protobuf/repeated_field.h>

#include "control/model.h"
#include "control/source_map.h"
#include "lib/api/envoy.config.accesslog.v3.pb.h"
#include "lib/api/envoy.config.core.v3.pb.h"
#include "lib/api/envoy.extensions.filters.network.http_connection_manager.v3.pb.h"
#include "lib/table/format_ops.h"

namespace millrace::control::rules {

namespace core = envoy::config::core::v3;

bool not_empty(std::string_view value, const Path& at, ErrorSink& e);
// No NUL, CR or LF (validate.rules well_known_regex HTTP_HEADER_VALUE, strict false).
bool header_value(std::string_view value, const Path& at, ErrorSink& e);
// The type of an upgrade: protocol-name ["/" version] (RFC 9110 7.8), or CONNECT.
bool upgrade_type(std::string_view type, const Path& at, ErrorSink& e);
// RFC 9110 5.1 token.
bool header_name(std::string_view name, const Path& at, ErrorSink& e);
// 0 … about 49 days (what the tables hold), or `least_ms` …
bool duration(const google::protobuf::Duration& d, const Path& at, ErrorSink& e, int64_t least_ms = 0);
bool at_least(uint64_t value, uint64_t least, const Path& at, ErrorSink& e);

// An IP address and a port from 1 to 65535. `udp`: of a sink of datagrams, which Envoy takes whatever protocol is written.
// `names`: or a host name.
bool address(bool has, const core::Address& a, const Path& at, ErrorSink& e, bool udp = false, bool names = false);
bool data_source(const core::DataSource& d, const Path& at, ErrorSink& e);
bool header_options(const google::protobuf::RepeatedPtrField<core::HeaderValueOption>& options, std::string_view field,
                    const Path& at, ErrorSink& e);
bool headers_to_remove(const google::protobuf::RepeatedPtrField<std::string>& names, std::string_view field, const Path& at,
                       ErrorSink& e);
bool access_logs(const google::protobuf::RepeatedPtrField<envoy::config::accesslog::v3::AccessLog>& logs, const Path& at,
                 ErrorSink& e);
// validate.rules of Http2ProtocolOptions and KeepaliveSettings.
bool http2_options(const core::Http2ProtocolOptions& o, const Path& at, ErrorSink& e);
// `where`: who evaluates it.
bool substitution_format(const core::SubstitutionFormatString& f, const Path& at, ErrorSink& e, table::FormatWhere where);
// validate_access_log.cc
bool access_log_filter(const envoy::config::accesslog::v3::AccessLogFilter& f, const Path& at, ErrorSink& e);
bool local_reply_config(const envoy::extensions::filters::network::http_connection_manager::v3::LocalReplyConfig& c,
                        const Path& at, ErrorSink& e);
bool cidr_range(const core::CidrRange& r, const Path& at, ErrorSink& e);
// Of what objects ask for by name: the streams of dynamic_resources (ads, self).
bool resource_source(bool has, const core::ConfigSource& s, const Path& at, ErrorSink& e);
// validate_xds.cc. What a source points at (the ADS stream, clusters) is not looked at.
bool config_source(const core::ConfigSource& s, const Path& at, ErrorSink& e);
bool api_config_source(const core::ApiConfigSource& s, const Path& at, ErrorSink& e);
// validate_route.cc
bool string_matcher(const envoy::type::matcher::v3::StringMatcher& m, const Path& at, ErrorSink& e);
bool header_matcher(const envoy::config::route::v3::HeaderMatcher& m, const Path& at, ErrorSink& e);

template <class M>
bool header_mutations(const M& m, const Path& at, ErrorSink& e) {
  bool ok = header_options(m.request_headers_to_add(), "request_headers_to_add", at, e);
  ok = header_options(m.response_headers_to_add(), "response_headers_to_add", at, e) && ok;
  ok = headers_to_remove(m.request_headers_to_remove(), "request_headers_to_remove", at, e) && ok;
  return headers_to_remove(m.response_headers_to_remove(), "response_headers_to_remove", at, e) && ok;
}

// What a binary message (xDS) can hold and text cannot: fields and enum values that our .proto files do not have.
bool known_fields_only(const google::protobuf::Message& m, const Path& at, ErrorSink& e);

}  // namespace millrace::control::rules
