// Filter chain matching against a naive reference that scans all chains, on tables of hand and of chance. Covers the whole way:
// the criteria, the index that control builds of them, the object, the lookup.
#include "dataplane/filter_chain_match.h"

#include <random>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/table/filter_chain_index.h"
#include "lib/table/object_writer.h"
#include "tests/support/seed.h"

namespace millrace::dataplane {
namespace {

using table::FilterChainCriteria;
using table::TransportProtocol;
using enum table::TransportProtocol;

// A listener object as control writes it.
struct ListenerObject {
  std::vector<uint8_t> blob;
  const table::Listener& get() const { return *reinterpret_cast<const table::Listener*>(blob.data()); }
};
ListenerObject make_listener(const std::vector<FilterChainCriteria>& chains, const table::FilterChainIndex& index,
                             uint32_t fallback) {
  table::ObjectWriter w(table::Kind::kListener, "test");
  const auto strings = [&](const std::vector<std::string>& list) {
    std::vector<table::Str> out;
    for (const std::string& s : list) out.push_back(w.string(s));
    return w.array(out);
  };
  std::vector<table::FilterChain> list;
  for (const FilterChainCriteria& c : chains) {
    table::FilterChain f{};
    f.server_names = strings(c.server_names);
    f.application_protocols = strings(c.application_protocols);
    f.transport_protocol = c.transport_protocol;
    list.push_back(f);
  }
  const auto names = [&](const std::vector<table::FilterChainIndex::Name>& from) {
    std::vector<table::ServerNameEntry> out;
    for (const auto& n : from) {
      table::ServerNameEntry e{};
      e.text = w.string(n.text);
      e.hash = n.hash;
      e.chains = w.array(n.chains);
      out.push_back(e);
    }
    return w.array(out);
  };
  table::Listener l{};
  l.default_filter_chain = fallback;
  l.filter_chains = w.array(list);
  l.exact_names = names(index.exact_names);
  l.wildcard_names = names(index.wildcard_names);
  l.any_name_chains = w.array(index.any_name_chains);
  return {std::move(w.finish(l).value())};
}

struct Connection {
  bool tls = true;
  std::string sni;
  std::vector<std::string> alpn;
};
std::string alpn_wire(const std::vector<std::string>& names) {
  std::string wire;
  for (const std::string& n : names) wire += static_cast<char>(n.size()) + n;
  return wire;
}
uint32_t match(const ListenerObject& l, const Connection& c) {
  const std::string wire = alpn_wire(c.alpn);
  ConnectionFacts facts;
  facts.is_tls = c.tls;
  facts.server_name = c.sni;
  facts.alpn = tls::AlpnList(base::as_bytes(wire));
  return match_filter_chain(l.get(), facts);
}

// Envoy's text (listener_components.proto), taken literally: per criterion, keep the chains whose value is the most specific that
// matches.
uint32_t reference(const std::vector<FilterChainCriteria>& chains, const Connection& c, uint32_t fallback) {
  std::vector<uint32_t> left;
  std::vector<std::string> patterns;
  if (!c.sni.empty()) patterns.push_back(c.sni);
  for (size_t dot = c.sni.find('.', 1); dot != std::string::npos; dot = c.sni.find('.', dot + 1))
    patterns.push_back("*" + c.sni.substr(dot));
  for (const std::string& p : patterns) {
    for (uint32_t i = 0; i < chains.size(); ++i) {
      for (const std::string& n : chains[i].server_names)
        if (n == p) left.push_back(i);
    }
    if (!left.empty()) break;
  }
  if (left.empty()) {
    for (uint32_t i = 0; i < chains.size(); ++i)
      if (chains[i].server_names.empty()) left.push_back(i);
  }
  const auto keep = [&](auto&& matches) {
    std::vector<uint32_t> kept;
    for (uint32_t i : left)
      if (matches(chains[i])) kept.push_back(i);
    return kept;
  };
  const TransportProtocol detected = c.tls ? kTls : kRawBuffer;
  auto kept = keep([&](const FilterChainCriteria& f) { return f.transport_protocol == detected; });
  left = !kept.empty() ? kept : keep([](const FilterChainCriteria& f) { return f.transport_protocol == kAny; });
  kept.clear();
  for (const std::string& p : c.alpn) {
    kept = keep([&](const FilterChainCriteria& f) {
      return std::find(f.application_protocols.begin(), f.application_protocols.end(), p) != f.application_protocols.end();
    });
    if (!kept.empty()) break;
  }
  left = !kept.empty() ? kept : keep([](const FilterChainCriteria& f) { return f.application_protocols.empty(); });
  EXPECT_LE(left.size(), 1u);
  return left.empty() ? fallback : left[0];
}

TEST(FilterChainMatch, MostSpecificAndNoWayBack) {
  const std::vector<FilterChainCriteria> chains = {
      /* 0 */ {.name = "www", .server_names = {"www.example.com"}, .transport_protocol = kTls},
      /* 1 */ {.name = "one label", .server_names = {"*.example.com"}},
      /* 2 */ {.name = "two labels", .server_names = {"*.com"}, .application_protocols = {"h2"}},
      /* 3 */ {.name = "api h2", .server_names = {"api.example.com"}, .application_protocols = {"h2"}},
      /* 4 */
      {.name = "api h1",
       .server_names = {"api.example.com", "API2.example.com"},
       .application_protocols = {"http/1.1", "http/1.0"}},
      /* 5 */ {.name = "any tls", .transport_protocol = kTls},
      /* 6 */ {.name = "any", .application_protocols = {"h2"}},
  };
  auto index = table::build_filter_chain_index(chains);
  ASSERT_TRUE(index.ok()) << index.error();
  const ListenerObject l = make_listener(chains, *index, 99);
  struct Case {
    Connection c;
    uint32_t chain;
  };
  const Case cases[] = {
      {{true, "www.example.com", {"h2"}}, 0},
      {{false, "www.example.com", {}}, 99},  // the name's only chain wants TLS: not "*.example.com"
      {{true, "foo.example.com", {}}, 1},
      {{true, "a.b.example.com", {}}, 1},         // a wildcard covers any number of labels
      {{true, "example.com", {"h2"}}, 2},         // not covered by "*.example.com"
      {{true, "example.com", {"http/1.1"}}, 99},  // "*.com" matched and wants h2: not "any"
      {{true, "api.example.com", {"h2", "http/1.1"}}, 3},
      {{true, "api.example.com", {"http/1.1", "h2"}}, 4},  // the client's order decides
      {{true, "api.example.com", {"h3", "http/1.0"}}, 4},
      {{true, "api.example.com", {}}, 99},
      {{true, "api2.example.com", {"http/1.1"}}, 4},  // configured in capitals
      {{true, "", {"h2"}}, 5},                        // "tls" is more specific than any
      {{true, "example.org", {}}, 5},
      {{false, "", {"h2"}}, 6},
      {{false, "", {}}, 99},
      {{true, ".", {}}, 5},
      {{true, ".com", {}}, 5},  // an empty label is none
      {{true, "com", {}}, 5},
      {{true, "x.com", {"h2"}}, 2},
  };
  for (const Case& t : cases) {
    EXPECT_EQ(match(l, t.c), t.chain) << (t.c.tls ? "tls " : "raw ") << t.c.sni << " " << (t.c.alpn.empty() ? "" : t.c.alpn[0]);
  }
}

TEST(FilterChainMatch, NothingConfigured) {
  const ListenerObject l = make_listener({}, {}, kNoFilterChain);
  EXPECT_EQ(match(l, {}), kNoFilterChain);
  EXPECT_EQ(match(l, {true, "a.b", {"h2"}}), kNoFilterChain);
}

TEST(FilterChainIndex, ErrorsAreEnvoys) {
  struct Case {
    std::vector<FilterChainCriteria> chains;
    const char* error;
  };
  const Case cases[] = {
      {{{.name = "a", .server_names = {"w*.example.com"}}}, "partial wildcards are not supported in \"server_names\""},
      {{{.name = "a", .server_names = {"*"}}}, "partial wildcards are not supported in \"server_names\""},
      {{{.name = "a", .server_names = {"*.*.com"}}}, "partial wildcards are not supported in \"server_names\""},
      {{{.name = "a"}, {.name = "b"}}, "filter chain 'b' has the same matching rules defined as 'a'"},
      {{{.name = "a", .server_names = {"x.y"}}, {.name = "b", .server_names = {"X.Y"}}},
       "filter chain 'b' has the same matching rules defined as 'a'"},
      {{{.name = "a", .server_names = {"x.y", "z.y"}}, {.name = "b", .server_names = {"z.y"}}},
       "multiple filter chains with overlapping matching rules are defined"},
      {{{.name = "a", .application_protocols = {"h2"}}, {.name = "b", .application_protocols = {"http/1.1", "h2"}}},
       "multiple filter chains with overlapping matching rules are defined"},
      {{{.name = "a", .server_names = {"x.y", "x.y"}}}, "multiple filter chains with overlapping matching rules are defined"},
  };
  for (const Case& c : cases) {
    auto index = table::build_filter_chain_index(c.chains);
    ASSERT_FALSE(index.ok());
    EXPECT_TRUE(index.error().starts_with(c.error)) << index.error();
  }
}

TEST(FilterChainMatch, AgreesWithTheReferenceOnRandomTables) {
  const uint64_t seed = support::run_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::vector<std::string> labels = {"a", "b", "c", "example"}, protocols = {"h2", "http/1.1", "acme"};
  const auto name = [&](size_t most) {
    std::string s = labels[random() % labels.size()];
    for (size_t n = random() % most; n > 0; --n) s += "." + labels[random() % labels.size()];
    return s;
  };
  const auto some = [&](const std::vector<std::string>& from) {
    std::vector<std::string> out;
    for (const std::string& s : from)
      if (random() % 3 == 0) out.push_back(s);
    std::shuffle(out.begin(), out.end(), random);
    return out;
  };
  unsigned good = 0, overlapping = 0, matched = 0;
  while (good < 300) {
    std::vector<FilterChainCriteria> chains(1 + random() % 8);
    for (size_t i = 0; i < chains.size(); ++i) {
      FilterChainCriteria& c = chains[i];
      c.name = std::to_string(i);
      std::set<std::string> names;
      for (size_t n = random() % 4; n > 0; --n) names.insert((random() % 2 == 0 ? "*." : "") + name(3));
      c.server_names.assign(names.begin(), names.end());
      c.application_protocols = some(protocols);
      c.transport_protocol = static_cast<TransportProtocol>(random() % 3);
    }
    // Two chains overlap when some name (or none), the transport and some protocol (or none) are the same.
    bool overlap = false;
    for (size_t i = 0; i < chains.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        const auto meet = [](const std::vector<std::string>& a, const std::vector<std::string>& b) {
          if (a.empty() || b.empty()) return a.empty() && b.empty();
          return std::find_first_of(a.begin(), a.end(), b.begin(), b.end()) != a.end();
        };
        overlap = overlap || (meet(chains[i].server_names, chains[j].server_names) &&
                              chains[i].transport_protocol == chains[j].transport_protocol &&
                              meet(chains[i].application_protocols, chains[j].application_protocols));
      }
    }
    auto index = table::build_filter_chain_index(chains);
    ASSERT_EQ(index.ok(), !overlap);
    if (overlap) {
      ++overlapping;
      continue;
    }
    ++good;
    const uint32_t fallback = random() % 2 == 0 ? kNoFilterChain : 77;
    const ListenerObject l = make_listener(chains, *index, fallback);
    for (int i = 0; i < 200; ++i) {
      const Connection c{random() % 2 == 0, random() % 5 == 0 ? "" : name(4), some(protocols)};
      const uint32_t expected = reference(chains, c, fallback);
      ASSERT_EQ(match(l, c), expected) << c.sni << (c.tls ? " tls" : " raw");
      matched += expected != fallback;
    }
  }
  EXPECT_GT(overlapping, 10u);
  EXPECT_GT(matched, 1000u);
}

}  // namespace
}  // namespace millrace::dataplane
