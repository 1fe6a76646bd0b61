// Control's side of lib/route: virtual hosts and route tables as plain values in, table objects out. Heap, exceptions of the
// standard library and seconds of time are allowed here; link route_compiler_dep (it needs RE2), the data plane links route_dep.
//
// Spec structs mirror lib/table/objects.h field by field (see there for the Envoy field each comes from); names, hosts and paths
// as the user wrote them: the compiler lower-cases what has to be. Defaults are Envoy's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/status.h"
#include "lib/route/pattern_db.h"
#include "lib/table/format_piece.h"
#include "lib/table/objects.h"

namespace millrace::route {

// ---- input ------------------------------------------------------------------------------------------------------------

// One HeaderMatcher or QueryParameterMatcher.
//   present_match: false  -> kPresent with invert flipped.       No specifier at all -> kPresent.
//   exact_match: ""  (deprecated field) -> kPrefix with "": Envoy takes it as "any value, and never missing".
//   string_match.safe_regex, safe_regex_match -> kRegex (ignore_case has no effect on it, as in Envoy).
struct MatcherSpec {
  std::string name;  // header (any case; ":method", ":path", ":authority", ":scheme" and "host" too) or query parameter
  table::StringMatchKind kind = table::StringMatchKind::kPresent;
  std::string value;                       // text or regular expression
  int64_t range_start = 0, range_end = 0;  // kRange: [start, end); headers only
  bool invert = false;                     // query parameters: only with kPresent
  bool ignore_case = false;
  bool treat_missing_as_empty = false;  // headers only
};
struct HeaderOptionSpec {
  std::string name, value;
  table::HeaderAppend append = table::HeaderAppend::kAppendIfExistsOrAdd;
  bool keep_empty_value = false;
  std::vector<table::FormatPiece> parts = {};  // of a value with %COMMANDS%, which is then all of it
};
// Into an object of any kind.
table::Array<table::HeaderOption> write_header_options(table::ObjectWriter& w, const std::vector<HeaderOptionSpec>& options);
struct HeaderMutationsSpec {
  std::vector<HeaderOptionSpec> request_add, response_add;
  std::vector<std::string> request_remove, response_remove;
};
struct WeightedClusterSpec {
  std::string name;
  uint32_t weight = 0;
  HeaderMutationsSpec headers;
};
struct RedirectSpec {
  std::string scheme, host, path, prefix_rewrite;
  uint16_t port = 0;      // 0: unchanged
  uint16_t status = 301;  // 301, 302, 303, 307, 308
  bool strip_query = false, https_redirect = false;
};
struct UpgradeSpec {
  std::string type;  // any case
  bool enabled = true, terminate = false, allow_post = false;
  uint8_t proxy_version = 0;  // of the PROXY protocol towards the endpoint; 0: none
};
// RetryPolicy; defaults are Envoy's.
struct RetrySpec {
  uint32_t retry_on = 0;  // table::RetryOn
  uint32_t num_retries = 1;
  uint32_t per_try_timeout_ms = 0, per_try_idle_timeout_ms = 0;  // 0: none
  uint32_t base_interval_ms = 25, max_interval_ms = 250;
  uint32_t reset_max_interval_ms = 300'000;
  uint32_t host_attempts = 1;
  bool previous_hosts = false;
  std::vector<uint32_t> status_codes;
  std::vector<MatcherSpec> response_headers, request_headers;  // no regular expressions
  std::vector<std::pair<std::string, bool>> reset_headers;     // name, whether it is a Unix time
};
struct HashPolicySpec {  // RouteAction.HashPolicy
  table::HashPolicyKind kind = table::HashPolicyKind::kHeader;
  std::string name, path;
  std::vector<std::pair<std::string, std::string>> attributes;  // of the cookie
  std::optional<uint64_t> ttl_s;                                // not set: no cookie is made
  bool terminal = false;
};
// CorsPolicy of a route, merged with its virtual host's.
struct CorsSpec {
  std::string filter;                // its name in http_filters
  std::vector<MatcherSpec> origins;  // names are not looked at
  bool origins_of_host = false;      // they were written at the virtual host: where an error is shown
  std::string allow_methods, allow_headers, expose_headers, max_age;
  bool allow_credentials = false, allow_private_network_access = false, forward_not_matching_preflights = true;
  uint32_t enabled_numerator = 1, enabled_denominator = 1, shadow_numerator = 0, shadow_denominator = 1;
};
struct RouteSpec {
  std::string name;
  // match
  table::PathKind path_kind = table::PathKind::kPrefix;
  std::string path;            // literal, or the expression for kRegex; empty for kConnect
  bool case_sensitive = true;  // no effect on kRegex, as in Envoy
  bool grpc_only = false;
  table::CertificateMatch presented = table::CertificateMatch::kAny, validated = table::CertificateMatch::kAny;  // tls_context
  std::vector<MatcherSpec> headers, query;
  uint32_t fraction_numerator = 1, fraction_denominator = 1;  // runtime_fraction.default_value: n of 100, 10'000 or 1'000'000
  // action
  table::ActionKind action = table::ActionKind::kCluster;
  std::vector<WeightedClusterSpec> clusters;  // kCluster: exactly one; kWeightedClusters: one or more, sum of weights 1..2^32-1
  RedirectSpec redirect;
  uint16_t direct_status = 0;  // kDirectResponse: 100..599
  std::string direct_body;
  uint16_t cluster_not_found_status = 503;
  std::string prefix_rewrite;  // "": none
  std::optional<std::string> host_rewrite;
  bool auto_host_rewrite = false, append_xfh = false;
  uint32_t timeout_ms = 15'000;                    // 0: none
  std::optional<uint32_t> idle_timeout_ms;         // not set: the connection manager's; 0: none
  std::optional<uint32_t> max_stream_duration_ms;  // likewise
  std::vector<UpgradeSpec> upgrades;
  std::vector<HashPolicySpec> hash_policies;
  std::optional<RetrySpec> retry;            // of the route, or of its virtual host
  uint32_t retry_buffer_limit = UINT32_MAX;  // per_request_buffer_limit_bytes; UINT32_MAX: the listener's limit
  bool count_in_request = false, count_in_response = false, tell_timeout_retry = false;  // of the virtual host
  std::vector<CorsSpec> cors;                                                            // one a filter name
  HeaderMutationsSpec headers_mut;
};
struct VirtualHostSpec {
  std::string name;
  std::vector<std::string> domains;
  std::vector<RouteSpec> routes;
  table::RequireTls require_tls = table::RequireTls::kNone;
  HeaderMutationsSpec headers_mut;
};
// A route table without its virtual hosts' routes: what find_virtual_host needs.
struct RouteTableSpec {
  std::string name;
  struct Host {
    std::string object_name;  // of the virtual host object: virtual_host_object_name(table, host)
    std::vector<std::string> domains;
  };
  std::vector<Host> virtual_hosts;
  bool ignore_port_in_host_matching = false;
  bool most_specific_header_mutations_wins = false;
  HeaderMutationsSpec headers_mut;
};
// "TABLE/HOST": the name that a virtual host's object id is made of.
std::string virtual_host_object_name(std::string_view route_table, std::string_view virtual_host);

// ---- output -----------------------------------------------------------------------------------------------------------

// One thing wrong, with the path of the field below the message that was compiled (Envoy's field names):
// "routes[3].match.safe_regex.regex", "virtual_hosts[1].domains[0]". `route` names the route for a person ("" : its index says
// it).
struct SpecError {
  std::string path;
  std::string message;
  std::string route;
};
struct CompiledObject {
  std::shared_ptr<const std::vector<uint64_t>> words;  // 8-byte aligned storage of the blob, header included (version 1)
  size_t size_bytes = 0;
  std::vector<SpecError> errors;  // all there are; then there is no blob
  bool ok() const { return errors.empty(); }
  const uint8_t* bytes() const { return reinterpret_cast<const uint8_t*>(words->data()); }
  template <class T>
  const T& as() const {
    return *reinterpret_cast<const T*>(bytes());
  }
};

// What compilation cost: how much of the regex work was found in the cache.
struct CompileStats {
  uint32_t regexes = 0;  // distinct expressions of the last virtual host
  uint32_t databases = 0;
  uint32_t databases_compiled = 0;  // of them, not in the cache
  uint32_t patterns_compiled = 0;
};

// Compiles virtual hosts and remembers the databases it made (by content hash) and how it split the expressions over them, so
// that a literal route added recompiles no database and a regex added only a small one. Not thread-safe; one for a control
// process.
class RouteCompiler {
 public:
  explicit RouteCompiler(CompileLimits limits = {});
  ~RouteCompiler();
  RouteCompiler(RouteCompiler&&) noexcept;
  RouteCompiler& operator=(RouteCompiler&&) noexcept;

  // `object_name`: virtual_host_object_name(). Blocks while expressions are compiled in a child process (compiler.cc says how
  // long).
  CompiledObject compile_virtual_host(const VirtualHostSpec& spec, std::string_view object_name);
  // Forgets what it remembers of a virtual host that is gone.
  void forget(std::string_view object_name);
  // Of the last compile_virtual_host.
  const CompileStats& stats() const;
  // Databases in memory, with their bytes.
  size_t cached_databases() const;
  size_t cached_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Domains: no empty ones, '*' only as first or last character, no duplicates in the whole table (Envoy's wording of the errors).
CompiledObject compile_route_table(const RouteTableSpec& spec);

// Checks without compiling databases: quick, for `millctl check` while typing. Finds everything that compile_virtual_host finds,
// but for expressions that only Hyperscan refuses.
std::vector<SpecError> check_virtual_host(const VirtualHostSpec& spec);
std::vector<SpecError> check_domains(const RouteTableSpec& spec);

}  // namespace millrace::route
