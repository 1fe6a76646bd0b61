// Random tables and random requests, through the compiled matcher and through the linear reference: the answers are equal,
// always.
#include <cstdlib>
#include <random>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/support/linear_matcher.h"
#include "tests/support/seed.h"
#include "tests/unit/route/route_fixture.h"

namespace millrace::test {
using support::LinearMatcher;
namespace {

using table::PathKind;
using table::StringMatchKind;

// Small alphabets, so that tables and requests meet often.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  base::Prng& random() { return random_; }

  std::string pick(std::initializer_list<const char*> from) {
    return *(from.begin() + static_cast<ptrdiff_t>(random_.below(from.size())));
  }

  std::string path() {
    std::string p;
    const uint64_t n = random_.below(5);
    for (uint64_t i = 0; i < n; ++i)
      p += "/" + pick({"a", "b", "ab", "A", "api", "v1", "v2", "x", "", "\xc3\xa9", "12", "long-segment-name", "k", "K",
                       "\xe2\x84\xaa"});
    if (random_.chance(1, 12)) p += pick({"/", "//", "x", "?", "#", ".", "\xff"});
    return p.empty() ? "/" : p;
  }
  std::string expression() {
    std::string e;
    if (random_.chance(2, 3)) {
      e = path();
      for (const char c : {'?', '#', '\xff', '.'})
        if (const size_t i = e.find(c); i != std::string::npos) e.resize(i);
    }
    const uint64_t n = random_.below(4) + (e.empty() ? 1 : 0);
    for (uint64_t i = 0; i < n; ++i) {
      e += pick({"/[a-z]+",
                 "/[^/]+",
                 "(/.*)?",
                 ".*",
                 "/(a|b|ab)",
                 "/v[0-9]",
                 "(?i:/API)",
                 "/\\d{1,2}",
                 "/\\w+",
                 "/\\pL",
                 "[[:alpha:]]*",
                 "/(?P<n>x)",
                 "$",
                 "/.",
                 "(?:/a)+",
                 "/a{0,2}b?",
                 "\\b",
                 "/\\x61",
                 "(?i)/k",
                 "/[^a]",
                 "|/b",
                 "/?",
                 "/(?U:a+)",
                 "\\z",
                 "/\\Qa.b\\E",
                 "/[\\w-]+",
                 "/\\D",
                 "/(|v1)",
                 "/(?i)[^k]",
                 "/(?i:[\\W])",
                 "/(?i)[[:^lower:]]",
                 "/(?i:\\W)",
                 "/(?i)[\\wx]+",
                 "/[[:^alnum:]]",
                 "/(?i)\\w",
                 "(?i)/[a-k]+",
                 "/[^\\S]",
                 "/\\xc3",
                 "/\\x{e9}",
                 "/(?i)\xc3\x89"});
    }
    return e;
  }
  std::string header_name() {
    return pick(
        {"x-a", "x-b", "X-Tenant", "user-agent", "cookie", "content-type", ":method", ":path", ":authority", "host", ":scheme"});
  }
  std::string value() {
    return pick({"", "a", "b", "ab", "A", "aB", "abc", "1", "10", "-3", "10 ", "GET", "application/grpc", "example.com", "http",
                 "\xc3\xa9"});
  }

  route::MatcherSpec matcher_spec(bool query) {
    route::MatcherSpec m;
    m.name = query ? pick({"q", "r", "a", "long"}) : header_name();
    m.kind = static_cast<StringMatchKind>(random_.below(query ? 6 : 7));
    m.value = value();
    if (m.kind == StringMatchKind::kRegex)
      m.value = pick({"a+", ".*", "[a-z]{1,2}", "(?i)ab", "[0-9]*", ".", "GET|POST", "a|b|", "\\d+", "[^a]*"});
    m.range_start = static_cast<int64_t>(random_.below(20)) - 10;
    m.range_end = m.range_start + static_cast<int64_t>(random_.below(20));
    m.ignore_case = random_.chance(1, 4);
    m.invert = (!query || m.kind == StringMatchKind::kPresent) && random_.chance(1, 4);
    m.treat_missing_as_empty = !query && random_.chance(1, 6);
    return m;
  }
  route::RouteSpec route_spec() {
    static LinearMatcher probe;
    route::RouteSpec r = to_cluster(static_cast<PathKind>(random_.below(4)), path());
    r.case_sensitive = !random_.chance(1, 4);
    if (r.path_kind == PathKind::kSeparatedPrefix) {
      while (!r.path.empty() && (r.path.back() == '/' || r.path.find_first_of("?#") != std::string::npos)) r.path.pop_back();
      if (r.path.empty()) r.path = "/a";
    }
    if (r.path_kind == PathKind::kPrefix && random_.chance(1, 10)) r.path = "";
    if (r.path_kind == PathKind::kRegex) r.path = expression();
    for (uint64_t n = random_.chance(1, 3) ? random_.below(3) : 0; n > 0; --n) r.headers.push_back(matcher_spec(false));
    for (uint64_t n = random_.chance(1, 5) ? random_.below(3) : 0; n > 0; --n) r.query.push_back(matcher_spec(true));
    if (random_.chance(1, 15)) {
      r.fraction_numerator = static_cast<uint32_t>(random_.below(100));
      r.fraction_denominator = 100;
    }
    r.grpc_only = random_.chance(1, 25);
    return r;
  }
  route::VirtualHostSpec host_spec() {
    std::vector<route::RouteSpec> routes;
    for (uint64_t n = 1 + random_.below(random_.chance(1, 10) ? 200 : 25); n > 0; --n) routes.push_back(route_spec());
    route::VirtualHostSpec h = host_of(std::move(routes));
    if (random_.chance(1, 20)) h.require_tls = static_cast<table::RequireTls>(random_.below(3));
    return h;
  }
  // A path near to what the table says: a literal of it, changed a little.
  std::string request_path(const route::VirtualHostSpec& spec) {
    std::string p = path();
    if (random_.chance(1, 2)) {
      const route::RouteSpec& r = spec.routes[random_.below(spec.routes.size())];
      if (r.path_kind != PathKind::kRegex) p = r.path;
      if (random_.chance(1, 3)) p += pick({"/", "/a", "x", "/12", ""});
      if (random_.chance(1, 6))
        for (char& c : p)
          if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    }
    if (random_.chance(1, 4)) p += pick({"?q=a", "?q=1&r=b", "?a", "?r=&q=10", "?x=1&long=abc&q=A", "?q=%61&q=a"});
    return p;
  }
  std::vector<std::pair<std::string, std::string>> request_headers() {
    std::vector<std::pair<std::string, std::string>> out;
    for (uint64_t n = random_.below(4); n > 0; --n) {
      std::string name = header_name();
      if (name[0] == ':' || name == "host") continue;
      for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
      out.emplace_back(name, value());
    }
    if (random_.chance(1, 10)) out.emplace_back("x-forwarded-proto", pick({"http", "https"}));
    if (random_.chance(1, 10)) out.emplace_back("x-envoy-internal", "true");
    return out;
  }

 private:
  base::Prng random_;
};

int as_int(const route::MatchResult& m) {
  switch (m.outcome) {
    case route::MatchOutcome::kRoute:
      return static_cast<int>(m.route);
    case route::MatchOutcome::kNoRoute:
      return LinearMatcher::kNoRoute;
    case route::MatchOutcome::kTlsRequired:
      return LinearMatcher::kTlsRequired;
    default:
      return -100;
  }
}

std::string show(const route::VirtualHostSpec& spec, int index) {
  if (index < 0) return std::to_string(index);
  const route::RouteSpec& r = spec.routes[static_cast<size_t>(index)];
  return std::to_string(index) + " (kind " + std::to_string(static_cast<int>(r.path_kind)) + " \"" + r.path +
         "\" case_sensitive " + std::to_string(r.case_sensitive) + ", " + std::to_string(r.headers.size()) + " headers, " +
         std::to_string(r.query.size()) + " query)";
}

TEST(Differential, RandomTablesAgainstTheLinearScan) {
  const uint64_t seed = support::run_seed();
  std::printf("seed %llu (repeat with MILLRACE_SEED)\n", static_cast<unsigned long long>(seed));
  Generator g(seed);
  LinearMatcher reference;
  route::RouteCompiler compiler;
  constexpr int kTables = 250, kRequests = 1'000;
  uint64_t found = 0, lookups = 0, refused = 0;
  route::VirtualHostSpec spec;
  for (int t = 0; t < kTables; ++t) {
    // Every other table is an edit of the one before, so that databases are kept, merged and half used.
    if (t % 2 == 0 || spec.routes.empty()) {
      spec = g.host_spec();
    } else {
      for (uint64_t n = 1 + g.random().below(6); n > 0; --n) {
        const size_t at = g.random().below(spec.routes.size() + 1);
        if (g.random().chance(1, 3) && spec.routes.size() > 1 && at < spec.routes.size()) {
          spec.routes.erase(spec.routes.begin() + static_cast<ptrdiff_t>(at));
        } else {
          spec.routes.insert(spec.routes.begin() + static_cast<ptrdiff_t>(at), g.route_spec());
        }
      }
    }
    // Expressions that RE2 or Hyperscan refuse are not the subject here.
    for (;;) {
      const auto object = compiler.compile_virtual_host(spec, "t/h");
      if (object.ok()) break;
      std::vector<bool> bad(spec.routes.size());
      for (const auto& e : object.errors) {
        ASSERT_TRUE(e.path.starts_with("routes[")) << e.path << " " << e.message;
        bad[std::strtoul(e.path.c_str() + 7, nullptr, 10)] = true;
        ++refused;
      }
      std::vector<route::RouteSpec> good;
      for (size_t i = 0; i < bad.size(); ++i)
        if (!bad[i]) good.push_back(spec.routes[i]);
      if (good.empty()) good.push_back(prefix("/"));
      spec.routes = std::move(good);
    }
    Loaded host(spec, &compiler);
    ASSERT_TRUE(host.ok());
    for (int i = 0; i < kRequests; ++i, ++lookups) {
      const Request request(g.request_path(spec), g.request_headers(), g.pick({"GET", "POST"}),
                            g.pick({"example.com", "a", "ab"}));
      const uint64_t random = g.random().next();
      const bool tls = g.random().chance(1, 2);
      const int want = reference.match(spec, request.head(), random, tls);
      const int got = as_int(host.match(request.head(), random, tls));
      found += want >= 0;
      ASSERT_EQ(got, want) << "seed " << seed << " table " << t << " path " << request.head().path << "\n got " << show(spec, got)
                           << "\nwant " << show(spec, want);
    }
  }
  std::printf("%llu lookups, %llu found a route, %llu expressions refused\n", static_cast<unsigned long long>(lookups),
              static_cast<unsigned long long>(found), static_cast<unsigned long long>(refused));
  EXPECT_GE(lookups, 200'000u);
  EXPECT_GT(found, lookups / 4);  // else the generator tests nothing
  EXPECT_LT(found, lookups - lookups / 20);
}

TEST(Differential, RandomDomainsAgainstTheLinearScan) {
  const uint64_t seed = support::run_seed();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  Generator g(seed);
  LinearMatcher reference;
  const auto name = [&g] {
    std::string n = g.pick({"a", "b", "foo", "x-bar", "A"});
    for (uint64_t i = g.random().below(4); i > 0; --i) n += g.pick({".a", ".b", ".com", "-bar", ".Foo", ".example"});
    return n;
  };
  uint64_t matched = 0;
  for (int t = 0; t < 300; ++t) {
    route::RouteTableSpec spec;
    spec.name = "t";
    spec.ignore_port_in_host_matching = g.random().chance(1, 2);
    std::map<std::string, bool> seen;
    for (uint64_t h = g.random().below(20); h > 0; --h) {
      std::vector<std::string> domains;
      for (uint64_t d = 1 + g.random().below(3); d > 0; --d) {
        std::string domain = name();
        switch (g.random().below(6)) {
          case 0:
            domain = "*." + domain;
            break;
          case 1:
            domain = "*-" + domain;
            break;
          case 2:
            domain += ".*";
            break;
          case 3:
            if (g.random().chance(1, 3)) domain = "*";
            break;
          default:
            break;
        }
        std::string key = domain;
        for (char& c : key) c = static_cast<char>(std::tolower(c));
        if (seen.emplace(key, true).second) domains.push_back(domain);
      }
      if (!domains.empty()) spec.virtual_hosts.push_back({"t/" + std::to_string(h), domains});
    }
    const auto object = route::compile_route_table(spec);
    ASSERT_TRUE(object.ok()) << object.errors[0].message;
    const auto valid = table::validate_object({object.bytes(), object.size_bytes});
    ASSERT_TRUE(valid.ok()) << valid.error();
    const auto& compiled = object.as<table::RouteTable>();
    ASSERT_TRUE(route::validate_route_table(compiled).ok());
    for (int i = 0; i < 300; ++i) {
      std::string host = name();
      if (g.random().chance(1, 4)) host += g.pick({":80", ":", ".", ":x]"});
      const int want = reference.find_virtual_host(spec, host);
      const route::HostResult got = route::find_virtual_host(compiled, host);
      matched += want >= 0;
      ASSERT_EQ(got.index == route::kNoVirtualHost ? -1 : static_cast<int>(got.index), want)
          << "seed " << seed << " host " << host;
    }
  }
  EXPECT_GT(matched, 10'000u);
}

}  // namespace
}  // namespace millrace::test
