#include "lib/table/filter_chain_index.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/hash.h"

namespace millrace::table {
namespace {

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// What Envoy compares when it says "the same matching rules": the criteria as a set of values.
struct Rules {
  std::set<std::string> names;
  std::set<std::string> protocols;
  TransportProtocol transport;
  friend bool operator<(const Rules& a, const Rules& b) {
    return std::tie(a.names, a.protocols, a.transport) < std::tie(b.names, b.protocols, b.transport);
  }
};

}  // namespace

base::Result<FilterChainIndex> build_filter_chain_index(const std::vector<FilterChainCriteria>& chains) {
  // Per server name ("" is any): (transport, protocol) -> the one chain that claims it. A second claim is an overlap.
  using Claims = std::map<std::pair<TransportProtocol, std::string>, uint32_t>;
  std::map<std::string, Claims> exact, wildcard;
  Claims any;
  std::map<Rules, uint32_t> seen;

  for (uint32_t i = 0; i < chains.size(); ++i) {
    const FilterChainCriteria& c = chains[i];
    Rules rules{{}, {c.application_protocols.begin(), c.application_protocols.end()}, c.transport_protocol};
    for (const std::string& name : c.server_names) {
      if (name.find('*') != std::string::npos && (name.compare(0, 2, "*.") != 0 || name.find('*', 1) != std::string::npos)) {
        return base::Error{"partial wildcards are not supported in \"server_names\" (filter chain '" + c.name + "': \"" + name +
                           "\")"};
      }
      rules.names.insert(lower(name));
    }
    const auto [same, fresh] = seen.emplace(std::move(rules), i);
    if (!fresh) {
      return base::Error{"filter chain '" + c.name + "' has the same matching rules defined as '" + chains[same->second].name +
                         "'"};
    }

    const auto claim = [&](Claims& claims) {
      bool ok = true;
      if (c.application_protocols.empty()) ok = claims.emplace(std::pair{c.transport_protocol, std::string()}, i).second;
      for (const std::string& p : c.application_protocols)
        ok = claims.emplace(std::pair{c.transport_protocol, p}, i).second && ok;
      return ok;
    };
    bool ok = true;
    if (c.server_names.empty()) ok = claim(any);
    for (const std::string& name : c.server_names) {
      const std::string n = lower(name);
      ok = ok && (n.empty() ? claim(any) : n[0] == '*' ? claim(wildcard[n.substr(1)]) : claim(exact[n]));
    }
    if (!ok) return base::Error{"multiple filter chains with overlapping matching rules are defined"};
  }

  // Named transport before any, named protocols before any, then in the order of the configuration.
  const auto ordered = [&](const Claims& claims) {
    std::vector<uint32_t> list;
    for (const auto& [key, chain] : claims) list.push_back(chain);
    std::sort(list.begin(), list.end(), [&](uint32_t a, uint32_t b) {
      const auto rank = [&](uint32_t i) {
        return std::tuple(chains[i].transport_protocol == TransportProtocol::kAny, chains[i].application_protocols.empty(), i);
      };
      return rank(a) < rank(b);
    });
    list.erase(std::unique(list.begin(), list.end()), list.end());
    return list;
  };
  FilterChainIndex index;
  for (const auto& [text, claims] : exact) index.exact_names.push_back({text, base::hash64(text), ordered(claims)});
  for (const auto& [text, claims] : wildcard) index.wildcard_names.push_back({text, base::hash64(text), ordered(claims)});
  index.any_name_chains = ordered(any);
  return index;
}

}  // namespace millrace::table
