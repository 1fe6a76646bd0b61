// The compiler: errors with their field, what an edit costs, what a hostile expression can do.
#include "lib/route/compiler.h"

#include <chrono>

#include <gtest/gtest.h>

#include "lib/route/regex_planner.h"
#include "tests/unit/route/route_fixture.h"

namespace millrace::test {
namespace {

using table::StringMatchKind;

TEST(CompileErrors, EachNamesItsField) {
  struct Case {
    route::RouteSpec route;
    const char* path;
    const char* says;
  };
  auto named = regex("/a(?=b)");
  named.name = "look";
  auto weights = prefix("/");
  weights.action = table::ActionKind::kWeightedClusters;
  weights.clusters = {{"a", 0, {}}, {"b", 0, {}}};
  auto too_heavy = weights;
  too_heavy.clusters[0].weight = too_heavy.clusters[1].weight = UINT32_MAX;
  auto no_cluster = prefix("/");
  no_cluster.clusters.clear();
  auto status = prefix("/");
  status.action = table::ActionKind::kDirectResponse;
  status.direct_status = 99;
  auto redirect = prefix("/");
  redirect.action = table::ActionKind::kRedirect;
  redirect.redirect.status = 200;
  auto both = redirect;
  both.redirect.status = 301;
  both.redirect.path = "/a";
  both.redirect.prefix_rewrite = "/b";
  auto fraction = prefix("/");
  fraction.fraction_denominator = 7;
  route::MatcherSpec query_range = matcher("q", StringMatchKind::kRange);
  const std::vector<Case> cases = {
      {named, "routes[0].match.safe_regex.regex", "lookahead"},
      {regex(""), "routes[0].match.safe_regex.regex", "empty"},
      {regex("a$b"), "routes[0].match.safe_regex.regex", "Hyperscan cannot compile \"a$b\": Embedded end anchors not supported"},
      {with_header(prefix("/"), matcher("x", StringMatchKind::kRegex, "(a)\\1")),
       "routes[0].match.headers[0].string_match.safe_regex.regex", "back-reference"},
      {with_query(prefix("/"), matcher("x", StringMatchKind::kRegex, "a**")),
       "routes[0].match.query_parameters[0].string_match.safe_regex.regex", "doubled"},
      {with_query(prefix("/"), query_range), "routes[0].match.query_parameters[0]", "no range"},
      {with_header(prefix("/"), matcher("", StringMatchKind::kPresent)), "routes[0].match.headers[0].name", "empty"},
      {with_header(prefix("/"), matcher("a b", StringMatchKind::kPresent)), "routes[0].match.headers[0].name",
       "not a header name"},
      {separated("/a/"), "routes[0].match.path_separated_prefix", "must not be empty, end in"},
      {separated(""), "routes[0].match.path_separated_prefix", "must not be empty"},
      {separated("/a?b"), "routes[0].match.path_separated_prefix", "\"?\""},
      {prefix(std::string(20'000, 'a')), "routes[0].match", "at most 16384"},
      {weights, "routes[0].route.weighted_clusters", "Sum of weights in the weighted_cluster must be greater than 0."},
      {too_heavy, "routes[0].route.weighted_clusters", "below 2^32"},
      {no_cluster, "routes[0].route.cluster", "needed"},
      {status, "routes[0].direct_response.status", "200..599"},
      {redirect, "routes[0].redirect.response_code", "not a redirect status"},
      {both, "routes[0].redirect", "exclude each other"},
      {fraction, "routes[0].match.runtime_fraction", "denominator 7"},
  };
  for (const Case& c : cases) {
    route::RouteCompiler compiler;
    const auto object = compiler.compile_virtual_host(host_of({c.route}), "t/h");
    ASSERT_EQ(object.errors.size(), 1u) << c.path << " " << c.says;
    EXPECT_EQ(object.errors[0].path, c.path);
    EXPECT_NE(object.errors[0].message.find(c.says), std::string::npos) << object.errors[0].message;
    EXPECT_EQ(object.errors[0].route, c.route.name.empty() ? "#0" : c.route.name);
  }
}

TEST(CompileErrors, AllAtOnce) {
  route::RouteCompiler compiler;
  auto spec = host_of({regex("(a"), prefix("/"), regex("b)"), separated("/c/")});
  spec.name = "";
  EXPECT_EQ(compiler.compile_virtual_host(spec, "t/h").errors.size(), 4u);
  EXPECT_EQ(route::check_virtual_host(spec).size(), 4u);
  // What only Hyperscan refuses is found together too.
  EXPECT_EQ(compiler.compile_virtual_host(host_of({regex("a$b"), regex("/good"), regex("/x(^b)")}), "t/h").errors.size(), 2u);
}

TEST(CompileErrors, Domains) {
  route::RouteTableSpec spec;
  spec.name = "rt";
  spec.virtual_hosts = {{"rt/a", {"a.com", "*.b.com", "*"}},
                        {"rt/b", {"A.com", "*.B.com", "", "x*y", "*a*", "*", "c d", std::string(300, 'a')}},
                        {"rt/c", {}}};
  const auto object = route::compile_route_table(spec);
  const std::vector<std::pair<std::string, std::string>> want = {
      {"virtual_hosts[1].domains[0]",
       "Only unique values for domains are permitted. Duplicate entry of domain a.com in route rt"},
      {"virtual_hosts[1].domains[1]",
       "Only unique values for domains are permitted. Duplicate entry of domain *.b.com in route rt"},
      {"virtual_hosts[1].domains[2]", "the domain is empty"},
      {"virtual_hosts[1].domains[3]", "\"x*y\": a wildcard may stand at the beginning or at the end, once"},
      {"virtual_hosts[1].domains[4]", "\"*a*\": a wildcard may stand at the beginning or at the end, once"},
      {"virtual_hosts[1].domains[5]", "Only a single wildcard domain is permitted in route rt"},
      {"virtual_hosts[1].domains[6]", "\"c d\" contains a character that no host name has"},
      {"virtual_hosts[1].domains[7]", "the domain has 300 bytes; at most 255 are supported"},
      {"virtual_hosts[2].domains", "a virtual host needs at least one domain"},
  };
  ASSERT_EQ(object.errors.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(object.errors[i].path, want[i].first);
    EXPECT_EQ(object.errors[i].message, want[i].second);
  }
}

std::string service_regex(int i) { return "/svc" + std::to_string(i) + "/v[0-9]+/users/[^/]+"; }
std::string shared_regex(int i) { return "/api/v[0-9]+/[^/]+/thing" + std::to_string(i); }

TEST(Incremental, ALiteralRouteRecompilesNoDatabase) {
  route::RouteCompiler compiler;
  auto spec = host_of({});
  for (int i = 0; i < 100; ++i) spec.routes.push_back(regex(service_regex(i)));
  for (int i = 0; i < 100; ++i) spec.routes.push_back(regex(shared_regex(i)));
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_EQ(compiler.stats().regexes, 200u);
  EXPECT_EQ(compiler.stats().databases_compiled, compiler.stats().databases);

  spec.routes.insert(spec.routes.begin(), exact("/new"));
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_EQ(compiler.stats().databases_compiled, 0u);

  spec.routes.insert(spec.routes.begin(), regex(service_regex(1000)));
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_LE(compiler.stats().patterns_compiled, route::kLeafPatterns + 1);

  spec.routes.insert(spec.routes.begin(), regex(shared_regex(1000)));
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_EQ(compiler.stats().patterns_compiled, 1u);

  spec.routes.erase(spec.routes.begin());
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_EQ(compiler.stats().patterns_compiled, 0u);

  Loaded host(spec, &compiler);
  EXPECT_EQ(host(Request("/svc7/v1/users/bob")), 2 + 7);
  EXPECT_EQ(host(Request("/svc1000/v1/users/bob")), 0);
  EXPECT_EQ(host(Request("/api/v3/t/thing42")), 2 + 100 + 42);
  EXPECT_EQ(host(Request("/api/v3/t/thing1000")), -1);  // its database still holds it
}

TEST(Incremental, AddingOneByOneCostsLittleAndAnswersStayRight) {
  route::RouteCompiler compiler;
  auto spec = host_of({});
  uint64_t patterns = 0;
  constexpr int kRoutes = 120;
  for (int i = 0; i < kRoutes; ++i) {
    spec.routes.push_back(regex(shared_regex(i)));
    ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
    patterns += compiler.stats().patterns_compiled;
    EXPECT_LE(compiler.stats().databases, 10u) << i;
  }
  EXPECT_LE(patterns, kRoutes * 8u);  // n log n, far from n^2 / 2 = 7200
  Loaded host(spec, &compiler);
  for (int i = 0; i < kRoutes; ++i) EXPECT_EQ(host(Request("/api/v1/t/thing" + std::to_string(i))), i);
}

TEST(Incremental, SameSpecSameBytes) {
  route::RouteCompiler compiler;
  auto spec = host_of(
      {regex("/a+"), prefix("/b"), with_header(exact("/c"), matcher("x", StringMatchKind::kRegex, "y+")), folded(prefix("/D"))});
  const auto one = compiler.compile_virtual_host(spec, "t/h"), two = compiler.compile_virtual_host(spec, "t/h");
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(*one.words, *two.words);
  compiler.forget("t/h");
  EXPECT_EQ(compiler.cached_databases(), 0u);
  EXPECT_EQ(compiler.cached_bytes(), 0u);
}

TEST(Incremental, EqualExpressionsAreOne) {
  route::RouteCompiler compiler;
  const auto spec = host_of({regex("/(a|b)"), regex("/(?:a|b)"), regex("/(a|b)"),
                             with_header(regex("/c"), matcher("x", StringMatchKind::kRegex, "/c"))});
  ASSERT_TRUE(compiler.compile_virtual_host(spec, "t/h").ok());
  EXPECT_EQ(compiler.stats().regexes, 3u);
  Loaded host(spec, &compiler);
  EXPECT_EQ(host(Request("/b")), 0);
}

TEST(Planner, ExpressionsAreFoundUnderTheirPrefix) {
  std::vector<route::PlannedExpression> e;
  for (int i = 0; i < 40; ++i)
    e.push_back(
        {table::RegexInput::kPath, "", "/s" + std::to_string(i), {"x" + std::to_string(i), false}, static_cast<uint32_t>(i)});
  for (int i = 0; i < 20; ++i)
    e.push_back({table::RegexInput::kPath, "", "/", {"y" + std::to_string(i), false}, static_cast<uint32_t>(100 + i)});
  e.push_back({table::RegexInput::kPath, "", "", {"empty", true}, 200});
  for (int i = 0; i < 10; ++i) e.push_back({table::RegexInput::kHeader, "x-a", "", {"h" + std::to_string(i), false}, UINT32_MAX});
  std::vector<int> seen(e.size());
  for (const auto& db : route::plan_databases(e, {})) {
    ASSERT_EQ(db.set.patterns.size(), db.expressions.size());
    EXPECT_LE(db.set.patterns.size(), db.group.prefix == "/" ? 20u : 10u);
    for (size_t i = 0; i < db.expressions.size(); ++i) {
      ++seen[db.expressions[i]];
      EXPECT_EQ(db.set.patterns[i], e[db.expressions[i]].pattern);
      EXPECT_TRUE(e[db.expressions[i]].literal_prefix.starts_with(db.group.prefix));
    }
  }
  EXPECT_EQ(std::vector<int>(e.size(), 1), seen);
}

// ---- the child process

// Legal for RE2; Hyperscan works on it for seconds and in the end finds it too large.
const char* const kHostile = "/x[^/]{1,900}y[^/]{1,900}z";

TEST(CompileInChild, AHostileSetFailsAloneAndInTime) {
  const route::PatternSet good{{{"/a[0-9]+", false}}}, hostile{{{"/b", false}, {kHostile, false}}},
      refused{{{"/b", false}, {"a\\zb", false}}};
  const std::vector<route::PatternSet> sets = {good, hostile, refused, good};
  const auto begin = std::chrono::steady_clock::now();
  const auto results = route::compile_sets_in_child(sets, {.seconds = 1, .children = 1});
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_TRUE(results[0].ok());
  EXPECT_TRUE(results[3].ok());
  EXPECT_EQ(results[0].serialized, results[3].serialized);
  EXPECT_EQ(results[1].failure.message, "compiling took longer than 1 s");
  EXPECT_EQ(results[1].failure.pattern, -1);
  EXPECT_FALSE(results[2].ok());
  EXPECT_EQ(results[2].failure.pattern, 1);
}

#if !defined(__SANITIZE_ADDRESS__)  // its allocator aborts on a limit, with pages of report
TEST(CompileInChild, MemoryIsLimited) {
  const auto results = route::compile_sets_in_child(std::vector<route::PatternSet>{{{{kHostile, false}}}},
                                                    {.memory_bytes = 16 << 20, .seconds = 60});
  ASSERT_FALSE(results[0].ok());
  EXPECT_TRUE(results[0].failure.message.find("16 MiB") != std::string::npos ||
              results[0].failure.message.find("allocate") != std::string::npos)
      << results[0].failure.message;
}
#endif

TEST(CompileInChild, TheCompilerNamesTheExpressionThatIsToBlame) {
  route::RouteCompiler compiler({.seconds = 1, .children = 2});
  const auto spec = host_of({regex("/x/a+"), regex(kHostile), regex("/x/b+")});
  const auto object = compiler.compile_virtual_host(spec, "t/h");
  ASSERT_EQ(object.errors.size(), 1u);
  EXPECT_EQ(object.errors[0].path, "routes[1].match.safe_regex.regex");
  EXPECT_EQ(object.errors[0].message,
            std::string("Hyperscan cannot compile \"") + kHostile + "\": compiling took longer than 1 s");
}

TEST(PatternDb, DamagedBytesAreRefused) {
  const auto set = route::compile_set({{{"/a[0-9]+", false}}});
  ASSERT_TRUE(set.ok());
  EXPECT_TRUE(route::PatternDb::load(set.serialized).ok());
  size_t accepted = 0;
  for (size_t i = 0; i < set.serialized.size(); i += 7) {
    auto bytes = set.serialized;
    bytes[i] ^= 0x55;
    auto db = route::PatternDb::load(bytes);
    if (!db.ok()) continue;
    ++accepted;  // a byte that nothing reads: padding, reserved
    route::PatternScratch scratch;
    ASSERT_TRUE(scratch.fit(**db).ok());
    int n = 0;
    EXPECT_EQ(route::scan(
                  **db, scratch, "/a12",
                  [](void* c, uint32_t) {
                    ++*static_cast<int*>(c);
                    return false;
                  },
                  &n),
              route::ScanStatus::kDone);
    EXPECT_EQ(n, 1);
  }
  EXPECT_LT(accepted * 10, set.serialized.size() / 7);
  for (size_t n : {size_t{0}, size_t{4}, size_t{40}, set.serialized.size() - 1}) {
    EXPECT_FALSE(route::PatternDb::load(std::span(set.serialized).first(n)).ok()) << n;
  }
  EXPECT_NE(route::platform().find("hyperscan 5."), std::string::npos);
}

}  // namespace
}  // namespace millrace::test
