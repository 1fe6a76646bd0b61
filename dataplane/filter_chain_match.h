// Which filter chain of a listener serves a connection: Envoy's order (SNI, then transport protocol, then application protocol),
// where each step keeps only the most specific and nothing backtracks. Works on the index that lib/table/filter_chain_index.h
// built. No heap.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/ip_address.h"
#include "lib/table/objects.h"
#include "lib/tls/client_hello.h"

namespace millrace::dataplane {

// What is known of a connection before its first filter runs.
struct ConnectionFacts {
  bool is_tls = false;           // the TLS inspector found a ClientHello; else the transport protocol is "raw_buffer"
  std::string_view server_name;  // SNI in lower case (ClientHello::server_name()); empty: none
  tls::AlpnList alpn;            // the client's, in its order
  // Criteria on these come before SNI in Envoy's order. No filter chain of the table carries any yet, so they do not decide.
  base::IpAddress destination, source;
  uint16_t destination_port = 0, source_port = 0;
};

inline constexpr uint32_t kNoFilterChain = UINT32_MAX;  // Envoy closes the connection and counts no_filter_chain_match

// Index into listener.filter_chains: the match, else listener.default_filter_chain, else kNoFilterChain. `listener` is a
// validated object.
uint32_t match_filter_chain(const table::Listener& listener, const ConnectionFacts& facts);

}  // namespace millrace::dataplane
