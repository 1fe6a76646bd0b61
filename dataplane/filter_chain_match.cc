#include "dataplane/filter_chain_match.h"

#include <algorithm>

namespace millrace::dataplane {
namespace {

using table::Array;
using table::FilterChain;
using table::Listener;
using table::ServerNameEntry;
using table::TransportProtocol;

// The entry whose text is `name`, by binary search (entries are sorted by text); null when there is none.
const ServerNameEntry* find_name(const Listener& l, const Array<ServerNameEntry>& names, std::string_view name) {
  const ServerNameEntry* end = names.end(&l);
  const ServerNameEntry* at = std::lower_bound(
      names.begin(&l), end, name, [&](const ServerNameEntry& e, std::string_view n) { return table::view(&l, e.text) < n; });
  return at != end && table::view(&l, at->text) == name ? at : nullptr;
}

// Envoy's server name step: exact, then "*.a.b" before "*.b", then the chains that name no server.
const Array<uint32_t>* chains_for_name(const Listener& l, std::string_view sni) {
  if (!sni.empty()) {
    if (const ServerNameEntry* e = find_name(l, l.exact_names, sni)) return &e->chains;
    if (l.wildcard_names.count != 0) {
      for (size_t dot = sni.find('.', 1); dot != std::string_view::npos; dot = sni.find('.', dot + 1)) {
        if (const ServerNameEntry* e = find_name(l, l.wildcard_names, sni.substr(dot))) return &e->chains;
      }
    }
  }
  return l.any_name_chains.count != 0 ? &l.any_name_chains : nullptr;
}

bool offers(const Listener& l, const FilterChain& chain, std::string_view protocol) {
  for (const table::Str& p : std::span(chain.application_protocols.begin(&l), chain.application_protocols.count)) {
    if (table::view(&l, p) == protocol) return true;
  }
  return false;
}

}  // namespace

uint32_t match_filter_chain(const Listener& l, const ConnectionFacts& facts) {
  const Array<uint32_t>* list = chains_for_name(l, facts.server_name);
  if (list == nullptr) return l.default_filter_chain;
  const std::span<const uint32_t> chains(list->begin(&l), list->count);
  const auto chain = [&](uint32_t i) -> const FilterChain& { return l.filter_chains.at(&l, i); };

  // Transport protocol: the detected one when any chain names it, else the chains that name none. No way back to the others.
  const TransportProtocol detected = facts.is_tls ? TransportProtocol::kTls : TransportProtocol::kRawBuffer;
  const bool named =
      std::any_of(chains.begin(), chains.end(), [&](uint32_t i) { return chain(i).transport_protocol == detected; });
  const TransportProtocol transport = named ? detected : TransportProtocol::kAny;

  // Application protocol: the first of the client's that some chain names, else the chain that names none.
  for (std::string_view protocol : facts.alpn) {
    for (uint32_t i : chains) {
      if (chain(i).transport_protocol == transport && offers(l, chain(i), protocol)) return i;
    }
  }
  for (uint32_t i : chains) {
    if (chain(i).transport_protocol == transport && chain(i).application_protocols.count == 0) return i;
  }
  return l.default_filter_chain;
}

}  // namespace millrace::dataplane
