// Builds, from the filter chain matches of one listener, the index that the data plane looks connections up in:
// Listener.exact_names, wildcard_names, any_name_chains. Pure functions for control; the reader is
// dataplane/filter_chain_match.h.
//
// Source: envoy.config.listener.v3.FilterChainMatch. Errors carry Envoy's words; the caller puts "error adding listener '<name>':
// " in front.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/status.h"
#include "lib/table/objects.h"

namespace millrace::table {

// One chain's criteria, as configured, in the order of Listener.filter_chains.
struct FilterChainCriteria {
  std::string name;                                // FilterChain.name, for messages; may be empty
  std::vector<std::string> server_names;           // "www.example.com", "*.example.com"; case does not matter; empty: any
  std::vector<std::string> application_protocols;  // ALPN names; empty: any
  TransportProtocol transport_protocol = TransportProtocol::kAny;
};

struct FilterChainIndex {
  struct Name {
    std::string text;              // lower case; a wildcard's without its '*' (".example.com")
    uint64_t hash = 0;             // base::hash64(text)
    std::vector<uint32_t> chains;  // indices; named transport before any, named protocols before any, then by index
  };
  std::vector<Name> exact_names;     // sorted by text
  std::vector<Name> wildcard_names;  // sorted by text
  std::vector<uint32_t> any_name_chains;
};

// Errors:
//   partial wildcards are not supported in "server_names"                  (Envoy: "*" only as the whole first label)
//   filter chain '<a>' has the same matching rules defined as '<b>'        (equal criteria)
//   multiple filter chains with overlapping matching rules are defined     (some connection would match two of them equally well)
base::Result<FilterChainIndex> build_filter_chain_index(const std::vector<FilterChainCriteria>& chains);

}  // namespace millrace::table
