// The names of the references of each struct of objects.h, in the order in which refs() visits them (nested structs flattened),
// for the validator's messages. validate_test reads objects.h and compares: each Str, Blob and Array member must be visited by
// refs(), and be named here in the same place.
#pragma once

#include "lib/table/objects.h"

namespace millrace::table {

template <class T>
struct RefNames;

#define MILLRACE_HEADER_MUTATIONS(m) m ".request_add", m ".response_add", m ".request_remove", m ".response_remove"
#define MILLRACE_REF_NAMES(type, ...)                      \
  template <>                                              \
  struct RefNames<type> {                                  \
    static constexpr const char* kNames[] = {__VA_ARGS__}; \
  }

MILLRACE_REF_NAMES(ValueMatch, "name", "value");
MILLRACE_REF_NAMES(FormatPart, "text", "other");
MILLRACE_REF_NAMES(HeaderOption, "name", "value", "parts");
MILLRACE_REF_NAMES(WeightedCluster, "name", MILLRACE_HEADER_MUTATIONS("headers"));
MILLRACE_REF_NAMES(UpgradeConfig, "type");
MILLRACE_REF_NAMES(ResetHeader, "name");
MILLRACE_REF_NAMES(CookieAttribute, "name", "value");
MILLRACE_REF_NAMES(HashPolicy, "name", "path", "attributes");
MILLRACE_REF_NAMES(RetryPolicy, "status_codes", "response_headers", "request_headers", "reset_headers");
MILLRACE_REF_NAMES(CorsPolicy, "filter", "origins", "allow_methods", "allow_headers", "expose_headers", "max_age");
MILLRACE_REF_NAMES(RouteFilters, "cors");
MILLRACE_REF_NAMES(Route, "name", "path", "headers", "query", "clusters", "redirect.scheme", "redirect.host", "redirect.path",
                   "redirect.prefix_rewrite", "direct_body", "prefix_rewrite", "host_rewrite", "retry", "upgrades",
                   "hash_policies", "filters", MILLRACE_HEADER_MUTATIONS("headers_mut"));
MILLRACE_REF_NAMES(RegexDb, "serialized", "ids", "literal_prefix", "name");
MILLRACE_REF_NAMES(Regex, "expression", "ranks");
MILLRACE_REF_NAMES(VirtualHost, "name", "domains", "routes", "regexes", "regex_dbs", "index",
                   MILLRACE_HEADER_MUTATIONS("headers_mut"));
MILLRACE_REF_NAMES(DomainEntry, "text");
MILLRACE_REF_NAMES(RouteTable, "name", "virtual_hosts", "exact", "exact_slots", "suffixes", "prefixes", "suffix_slots",
                   "prefix_slots", "suffix_lengths", "prefix_lengths", MILLRACE_HEADER_MUTATIONS("headers_mut"));
MILLRACE_REF_NAMES(LogFilter, "header.name", "header.value");
MILLRACE_REF_NAMES(AccessLog, "path", "format", "filter");
MILLRACE_REF_NAMES(BodyFormat, "parts", "content_type");
MILLRACE_REF_NAMES(LocalReplyMapper, "filter", "headers_to_add", "body", "format.parts", "format.content_type");
MILLRACE_REF_NAMES(Compressor, "name", "content_types");
MILLRACE_REF_NAMES(FilterChain, "name", "server_names", "application_protocols", "tls.secrets", "tls.alpn", "tls.cipher_suites",
                   "tls.curves", "hcm.stat_prefix", "hcm.route_table_name", "hcm.access_logs", "hcm.server_name", "hcm.via",
                   "hcm.default_host_for_http_10", "hcm.upgrades", "hcm.cors", "hcm.local_reply_mappers",
                   "hcm.local_reply_format.parts", "hcm.local_reply_format.content_type", "hcm.internal_ranges",
                   "hcm.compressors", "tcp.stat_prefix", "tcp.clusters", "tcp.access_logs");
MILLRACE_REF_NAMES(ServerNameEntry, "text", "chains");
MILLRACE_REF_NAMES(Listener, "name", "filter_chains", "exact_names", "wildcard_names", "any_name_chains", "access_logs");
MILLRACE_REF_NAMES(Cluster, "name", "tls.secrets", "tls.sni", "tls.alpn", "tls.cipher_suites", "tls.curves",
                   "tls.auto_sni_header", "proxy.added", "health_check.host", "health_check.front", "health_check.back",
                   "health_check.receive", "health_check.expected", "health_check.retriable");
MILLRACE_REF_NAMES(HealthPayload, "bytes");
MILLRACE_REF_NAMES(Endpoint, "hostname", "health_host");
MILLRACE_REF_NAMES(EndpointSet, "name", "endpoints", "localities");
MILLRACE_REF_NAMES(SanMatch, "value");
MILLRACE_REF_NAMES(Secret, "name", "certificate_chain_pem", "private_key_pem", "ocsp_staple", "ticket_keys", "trusted_ca_pem",
                   "crl_pem", "sans", "certificate_hashes", "spki_hashes");

#undef MILLRACE_REF_NAMES
#undef MILLRACE_HEADER_MUTATIONS

}  // namespace millrace::table
