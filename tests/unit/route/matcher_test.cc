// Which route a request takes: tables of routes, requests and the expected index, in Envoy's semantics.
#include "lib/route/matcher.h"

#include <gtest/gtest.h>

#include "lib/route/explain.h"
#include "tests/unit/route/route_fixture.h"

namespace millrace::test {
namespace {

using table::StringMatchKind;

struct PathCase {
  const char* path;
  int want;
};

TEST(MatchPath, FirstMatchWinsWhateverTheKind) {
  Loaded host(host_of({
      exact("/a"),         // 0
      prefix("/a/b"),      // 1
      regex("/a/[0-9]+"),  // 2
      separated("/a"),     // 3
      prefix("/a"),        // 4
      exact("/a"),         // 5 hidden by 0
      prefix("/a/b/c"),    // 6 hidden by 1
      regex("/r/.*x"),     // 7
      exact("/r/x"),       // 8 hidden by 7
      prefix("/"),         // 9
      prefix(""),          // 10
  }));
  for (const auto& [path, want] : std::initializer_list<PathCase>{{"/a", 0},
                                                                  {"/a?x=1", 0},
                                                                  {"/a#f", 0},
                                                                  {"/a/b", 1},
                                                                  {"/a/b/c", 1},
                                                                  {"/a/bc", 1},
                                                                  {"/a/12", 2},
                                                                  {"/a/12x", 3},
                                                                  {"/a/", 3},
                                                                  {"/a/c", 3},
                                                                  {"/ab", 4},
                                                                  {"/r/x", 7},
                                                                  {"/r/yx", 7},
                                                                  {"/r/y", 9},
                                                                  {"/", 9},
                                                                  {"*", 10},
                                                                  {"?q", 10},
                                                                  {"", -1}}) {
    EXPECT_EQ(host(Request(path)), want) << path;
  }
}

TEST(MatchPath, SeparatedPrefixWantsASlashOrTheEnd) {
  Loaded host(host_of({separated("/api/dev")}));
  for (const auto& [path, want] : std::initializer_list<PathCase>{{"/api/dev", 0},
                                                                  {"/api/dev/", 0},
                                                                  {"/api/dev/v1", 0},
                                                                  {"/api/dev?x", 0},
                                                                  {"/api/developer", -1},
                                                                  {"/api/de", -1},
                                                                  {"/api/dev#x", 0}}) {
    EXPECT_EQ(host(Request(path)), want) << path;
  }
}

TEST(MatchPath, CaseInsensitiveKinds) {
  Loaded host(
      host_of({folded(exact("/Exact")), folded(prefix("/Pre")), folded(separated("/SEP")), exact("/exact"), regex("/(?i)re")}));
  for (const auto& [path, want] : std::initializer_list<PathCase>{{"/eXaCT", 0},
                                                                  {"/exact", 0},
                                                                  {"/exac", -1},
                                                                  {"/exactly", -1},
                                                                  {"/PREfix", 1},
                                                                  {"/sep/x", 2},
                                                                  {"/sepx", -1},
                                                                  {"/sep", 2},
                                                                  {"/RE", 4},
                                                                  {"/re", 4}}) {
    EXPECT_EQ(host(Request(path)), want) << path;
  }
}

TEST(MatchPath, LongPathsAgainstFoldedLiterals) {
  const std::string longest(route::kMaxPathLiteralBytes - 1, 'A');
  Loaded host(host_of({folded(exact("/" + longest)), folded(prefix("/" + longest))}));
  EXPECT_EQ(host(Request("/" + std::string(longest.size(), 'a'))), 0);
  EXPECT_EQ(host(Request("/" + std::string(longest.size() + 1, 'a'))), 1);
  EXPECT_EQ(host(Request("/" + std::string(100'000, 'a'))), 1);
  EXPECT_EQ(host(Request("/" + std::string(longest.size() - 1, 'a'))), -1);
}

TEST(MatchPath, NestedPrefixesOfManyLengths) {
  std::vector<route::RouteSpec> routes;
  std::string p = "/";
  for (int i = 0; i < 200; ++i) routes.push_back(prefix(p += static_cast<char>('a' + i % 26)));
  std::reverse(routes.begin(), routes.end());  // longest first, as people write them
  Loaded host(host_of(routes));
  for (int length = 1; length <= 200; ++length)
    EXPECT_EQ(host(Request(p.substr(0, static_cast<size_t>(length) + 1) + "!")), 200 - length);
  EXPECT_EQ(host(Request("/!")), -1);
}

struct HeaderCase {
  const char* what;
  route::MatcherSpec matcher;
  std::vector<std::pair<std::string, std::string>> headers;
  bool want;
};

route::MatcherSpec inverted(route::MatcherSpec m) {
  m.invert = true;
  return m;
}
route::MatcherSpec any_case(route::MatcherSpec m) {
  m.ignore_case = true;
  return m;
}
route::MatcherSpec missing_is_empty(route::MatcherSpec m) {
  m.treat_missing_as_empty = true;
  return m;
}
route::MatcherSpec range(std::string name, int64_t from, int64_t to) {
  route::MatcherSpec m = matcher(std::move(name), StringMatchKind::kRange);
  m.range_start = from;
  m.range_end = to;
  return m;
}

TEST(MatchHeader, Table) {
  const auto exact_m = matcher("X-A", StringMatchKind::kExact, "v");
  const auto present = matcher("x-a", StringMatchKind::kPresent);
  const std::vector<HeaderCase> cases = {
      {"exact", exact_m, {{"x-a", "v"}}, true},
      {"exact, other value", exact_m, {{"x-a", "w"}}, false},
      {"exact, missing", exact_m, {}, false},
      {"exact inverted", inverted(exact_m), {{"x-a", "w"}}, true},
      {"exact inverted, equal", inverted(exact_m), {{"x-a", "v"}}, false},
      {"exact inverted, missing: no match either", inverted(exact_m), {}, false},
      {"exact inverted, missing counts as empty", missing_is_empty(inverted(exact_m)), {}, true},
      {"exact empty, missing counts as empty", missing_is_empty(matcher("x-a", StringMatchKind::kExact, "")), {}, true},
      {"exact any case", any_case(exact_m), {{"x-a", "V"}}, true},
      {"exact, one of two values is enough",
       matcher("x-a", StringMatchKind::kExact, "b"),
       {{"x-a", "a"}, {"y", "n"}, {"x-a", "b"}},
       true},
      {"exact, two values are not joined", matcher("x-a", StringMatchKind::kExact, "a,b"), {{"x-a", "a"}, {"x-a", "b"}}, false},
      {"exact, three, one empty", matcher("x-a", StringMatchKind::kExact, ""), {{"x-a", "b"}, {"x-a", "a"}, {"x-a", ""}}, true},
      {"exact inverted, one of two values is equal", inverted(exact_m), {{"x-a", "w"}, {"x-a", "v"}}, false},
      {"exact inverted, two other values", inverted(exact_m), {{"x-a", "w"}, {"x-a", "u"}}, true},
      {"cookie crumbs are not joined",
       matcher("cookie", StringMatchKind::kExact, "a=1; b=2"),
       {{"cookie", "a=1"}, {"cookie", "b=2"}},
       false},
      {"user-agent is one field: joined",
       matcher("user-agent", StringMatchKind::kExact, "a,b"),
       {{"user-agent", "a"}, {"user-agent", "b"}},
       true},
      {"known header", matcher("user-agent", StringMatchKind::kPrefix, "curl/"), {{"user-agent", "curl/8"}}, true},
      {"known header missing", matcher("user-agent", StringMatchKind::kPrefix, "curl/"), {{"x-a", "curl/8"}}, false},
      {"prefix", matcher("x-a", StringMatchKind::kPrefix, "ab"), {{"x-a", "abc"}}, true},
      {"prefix longer than value", matcher("x-a", StringMatchKind::kPrefix, "abcd"), {{"x-a", "abc"}}, false},
      {"prefix any case", any_case(matcher("x-a", StringMatchKind::kPrefix, "AB")), {{"x-a", "aBc"}}, true},
      {"suffix", matcher("x-a", StringMatchKind::kSuffix, "bc"), {{"x-a", "abc"}}, true},
      {"suffix any case", any_case(matcher("x-a", StringMatchKind::kSuffix, "bC")), {{"x-a", "aBc"}}, true},
      {"suffix, no", matcher("x-a", StringMatchKind::kSuffix, "bc"), {{"x-a", "bcd"}}, false},
      {"contains", matcher("x-a", StringMatchKind::kContains, "b"), {{"x-a", "abc"}}, true},
      {"contains any case", any_case(matcher("x-a", StringMatchKind::kContains, "BC")), {{"x-a", "abcd"}}, true},
      {"contains, no", matcher("x-a", StringMatchKind::kContains, "z"), {{"x-a", "abc"}}, false},
      {"regex is a full match", matcher("x-a", StringMatchKind::kRegex, "b+"), {{"x-a", "abb"}}, false},
      {"regex", matcher("x-a", StringMatchKind::kRegex, "ab+"), {{"x-a", "abb"}}, true},
      {"regex ignores ignore_case", any_case(matcher("x-a", StringMatchKind::kRegex, "ab")), {{"x-a", "AB"}}, false},
      {"regex inverted", inverted(matcher("x-a", StringMatchKind::kRegex, "ab+")), {{"x-a", "x"}}, true},
      {"regex, empty value", matcher("x-a", StringMatchKind::kRegex, "a*"), {{"x-a", ""}}, true},
      {"regex, missing counts as empty", missing_is_empty(matcher("x-a", StringMatchKind::kRegex, "a*")), {}, true},
      {"regex, one of two values is enough", matcher("x-a", StringMatchKind::kRegex, "b+"), {{"x-a", "a"}, {"x-a", "bb"}}, true},
      {"regex, values are not joined", matcher("x-a", StringMatchKind::kRegex, "a,b"), {{"x-a", "a"}, {"x-a", "b"}}, false},
      {"present", present, {{"x-a", ""}}, true},
      {"present, missing", present, {}, false},
      {"not present", inverted(present), {}, true},
      {"not present, but there", inverted(present), {{"x-a", "1"}}, false},
      {"present, missing counts as empty", missing_is_empty(present), {}, true},
      {"range", range("x-a", 1, 10), {{"x-a", "9"}}, true},
      {"range end excluded", range("x-a", 1, 10), {{"x-a", "10"}}, false},
      {"range start included", range("x-a", -5, 10), {{"x-a", "-5"}}, true},
      {"range with sign and space", range("x-a", 1, 10), {{"x-a", " +3 "}}, true},
      {"range, no number", range("x-a", 0, 10), {{"x-a", "3a"}}, false},
      {"range, sign only", range("x-a", -9, 10), {{"x-a", "-"}}, false},
      {"range, overflow", range("x-a", INT64_MIN, INT64_MAX), {{"x-a", "9223372036854775808"}}, false},
      {"range, smallest", range("x-a", INT64_MIN, INT64_MAX), {{"x-a", "-9223372036854775808"}}, true},
      {"range inverted, no number", inverted(range("x-a", 0, 10)), {{"x-a", "z"}}, true},
      {":method", matcher(":method", StringMatchKind::kExact, "GET"), {}, true},
      {":path has the query", matcher(":path", StringMatchKind::kSuffix, "?q=1"), {}, true},
      {":authority", matcher(":authority", StringMatchKind::kExact, "example.com"), {}, true},
      {"host is :authority", matcher("Host", StringMatchKind::kExact, "example.com"), {}, true},
      {":scheme from the connection", matcher(":scheme", StringMatchKind::kExact, "http"), {}, true},
      {"no specifier deprecated exact_match \"\"", matcher("x-a", StringMatchKind::kPrefix, ""), {{"x-a", "z"}}, true},
  };
  for (const HeaderCase& c : cases) {
    Loaded host(host_of({with_header(prefix("/"), c.matcher)}));
    ASSERT_TRUE(host.ok()) << c.what;
    EXPECT_EQ(host(Request("/p?q=1", c.headers)), c.want ? 0 : -1) << c.what;
  }
}

TEST(MatchQuery, Table) {
  struct QueryCase {
    route::MatcherSpec matcher;
    const char* path;
    bool want;
  };
  const auto a = matcher("a", StringMatchKind::kExact, "1");
  const std::vector<QueryCase> cases = {
      {a, "/?a=1", true},
      {a, "/?b=2&a=1", true},
      {a, "/?a=2&a=1", false},
      {a, "/?a=1&a=2", true},
      {a, "/?aa=1", false},
      {a, "/", false},
      {a, "/?a", false},
      {a, "/?a=1=2", false},
      {a, "/?&&a=1", true},
      {matcher("a", StringMatchKind::kPresent), "/?a", true},
      {matcher("a", StringMatchKind::kPresent), "/?b=a", false},
      {inverted(matcher("a", StringMatchKind::kPresent)), "/?b", true},
      {inverted(matcher("a", StringMatchKind::kPresent)), "/?a", false},
      {matcher("a", StringMatchKind::kExact, ""), "/?a", true},
      {matcher("a", StringMatchKind::kExact, ""), "/?a=", true},
      {matcher("a", StringMatchKind::kRegex, "[0-9]+"), "/?a=12", true},
      {matcher("a", StringMatchKind::kRegex, "[0-9]+"), "/?a=12x", false},
      {matcher("a", StringMatchKind::kPrefix, "x"), "/?a=xy", true},
      {any_case(matcher("a", StringMatchKind::kExact, "X")), "/?a=x", true},
      {matcher("a", StringMatchKind::kContains, "%2"), "/?a=1%20", true},
      {matcher("A", StringMatchKind::kPresent), "/?a", false},
  };
  for (const QueryCase& c : cases) {
    Loaded host(host_of({with_query(prefix("/"), c.matcher)}));
    EXPECT_EQ(host(Request(c.path)), c.want ? 0 : -1) << c.path << " " << c.matcher.value;
  }
}

TEST(MatchRoute, AFailedPredicateLeavesItToTheNext) {
  Loaded host(host_of({with_header(exact("/a"), matcher("x", StringMatchKind::kExact, "1")),
                       with_header(regex("/a|/b"), matcher("x", StringMatchKind::kExact, "2")),
                       with_query(prefix("/a"), matcher("q", StringMatchKind::kPresent)), exact("/a")}));
  EXPECT_EQ(host(Request("/a", {{"x", "1"}})), 0);
  EXPECT_EQ(host(Request("/a", {{"x", "2"}})), 1);
  EXPECT_EQ(host(Request("/b", {{"x", "2"}})), 1);
  EXPECT_EQ(host(Request("/a?q")), 2);
  EXPECT_EQ(host(Request("/a")), 3);
  EXPECT_EQ(host(Request("/b")), -1);
}

TEST(MatchRoute, GrpcOnly) {
  auto r = prefix("/");
  r.grpc_only = true;
  Loaded host(host_of({r}));
  EXPECT_EQ(host(Request("/", {{"content-type", "application/grpc"}})), 0);
  EXPECT_EQ(host(Request("/", {{"content-type", "application/grpc+proto"}})), 0);
  EXPECT_EQ(host(Request("/", {{"content-type", "application/grpc-web"}})), -1);
  EXPECT_EQ(host(Request("/")), -1);
}

TEST(MatchRoute, StateOfTheClientsCertificate) {
  using enum table::CertificateMatch;
  route::RouteSpec shown = prefix("/"), good = prefix("/"), none = prefix("/");
  shown.presented = kYes;
  good.validated = kYes;
  none.presented = kNo;
  none.validated = kNo;
  Loaded host(host_of({good, shown, none}));
  struct {
    bool presented, validated;
    uint32_t route;
  } cases[] = {{false, false, 2}, {true, false, 1}, {true, true, 0}};
  for (const auto& c : cases) {
    const Request rq("/x");
    const route::MatchResult r =
        route::match_route(host.runtime(), rq.head(), {0, true, &host.scratch(), c.presented, c.validated});
    EXPECT_EQ(r.outcome, route::MatchOutcome::kRoute);
    EXPECT_EQ(r.route, c.route);
  }
}

TEST(MatchRoute, RuntimeFractionUsesTheRandomNumberAsEnvoyDoes) {
  auto r = prefix("/");
  r.fraction_numerator = 25;
  r.fraction_denominator = 100;
  Loaded host(host_of({r, prefix("/")}));
  for (uint64_t random = 0; random < 1000; ++random) EXPECT_EQ(host(Request("/"), random), random % 100 < 25 ? 0 : 1) << random;
}

TEST(MatchRoute, RequireTls) {
  auto all = host_of({prefix("/")});
  all.require_tls = table::RequireTls::kAll;
  auto external = all;
  external.require_tls = table::RequireTls::kExternalOnly;
  Loaded a(all), e(external);
  EXPECT_EQ(a(Request("/"), 0, false), -2);
  EXPECT_EQ(a(Request("/"), 0, true), 0);
  EXPECT_EQ(a(Request("/", {{"x-forwarded-proto", "https"}}), 0, false), 0);
  EXPECT_EQ(a(Request("/", {{"x-forwarded-proto", "http"}}), 0, true), -2);
  EXPECT_EQ(e(Request("/"), 0, false), -2);
  EXPECT_EQ(e(Request("/", {{"x-envoy-internal", "true"}}), 0, false), 0);
  EXPECT_EQ(a(Request("/", {{"x-envoy-internal", "true"}}), 0, false), -2);
}

TEST(MatchRoute, NonAsciiPathsAreCharactersToExpressions) {
  Loaded host(host_of({regex("/a.c"), regex("/\\xe9+"), regex("/[^/]{2}"), prefix("/\xc3\xa9")}));
  EXPECT_EQ(host(Request("/a\xc3\xa9"
                         "c")),
            0);  // one character between a and c, two bytes
  EXPECT_EQ(host(Request("/\xc3\xa9\xc3\xa9")), 1);
  EXPECT_EQ(host(Request("/\xe2\x82\xac\xe2\x82\xac")), 2);
  EXPECT_EQ(host(Request("/\xff\xff")), -1);     // not UTF-8: no expression matches
  EXPECT_EQ(host(Request("/\xc3\xa9\xff")), 3);  // a literal does not care
}

TEST(MatchRoute, AFailingEngineIsAnErrorAndNeverNoMatch) {
  Loaded host(host_of(
      {exact("/first"), regex("/[a-z]+"), prefix("/"), with_header(prefix("/h"), matcher("x", StringMatchKind::kRegex, "a+"))}));
  route::MatchScratch bad;  // without the scratch that the loader gives
  const auto match = [&](const char* path, std::vector<std::pair<std::string, std::string>> headers = {}) {
    const Request r(path, std::move(headers));
    return route::match_route(host.runtime(), r.head(), {0, false, &bad});
  };
  EXPECT_EQ(match("/first").outcome, route::MatchOutcome::kRoute);  // decided by a better rank: the engine is not asked
  EXPECT_EQ(match("/other").outcome, route::MatchOutcome::kPatternFailed);
  Loaded header_only(host_of({with_header(prefix("/h"), matcher("x", StringMatchKind::kRegex, "a+")), prefix("/")}));
  const Request r("/h", {{"x", "a"}});
  EXPECT_EQ(route::match_route(header_only.runtime(), r.head(), {0, false, &bad}).outcome, route::MatchOutcome::kPatternFailed);
}

TEST(MatchRoute, JoinedHeadersThatDoNotFitAreAnError) {
  Loaded host(host_of({with_header(prefix("/"), matcher("user-agent", StringMatchKind::kPrefix, "a"))}));
  const std::string big(40'000, 'a');
  EXPECT_EQ(host.match(Request("/", {{"user-agent", big}}).head()).outcome, route::MatchOutcome::kRoute);
  EXPECT_EQ(host.match(Request("/", {{"user-agent", big}, {"user-agent", big}}).head()).outcome, route::MatchOutcome::kTooLong);
}

TEST(PickCluster, EnvoysWalk) {
  auto r = prefix("/");
  r.action = table::ActionKind::kWeightedClusters;
  r.clusters = {{"a", 10, {}}, {"b", 0, {}}, {"c", 30, {}}, {"d", 60, {}}};
  Loaded host(host_of({r}));
  const table::Route& route = host.object().routes.at(&host.object(), 0);
  ASSERT_EQ(route.total_weight, 100u);
  for (uint64_t random = 0; random < 300; ++random) {
    const uint64_t v = random % 100;
    EXPECT_EQ(route::pick_cluster(host.object(), route, random), v < 10 ? 0u : v < 40 ? 2u : 3u) << random;
  }
}

TEST(Explain, SaysWhyEachEarlierRouteFailed) {
  Loaded host(host_of({exact("/x"), with_header(prefix("/"), matcher("x-tenant", StringMatchKind::kExact, "a")), regex("/[0-9]+"),
                       with_query(prefix("/"), matcher("v", StringMatchKind::kExact, "2")), prefix("/")}));
  const Request r("/12?v=1", {{"x-tenant", "b"}});
  // Route 2 matches, so 3 and 4 are not looked at.
  route::RouteExplanation e = route::explain_route(host.runtime(), r.head(), host.context());
  ASSERT_EQ(e.result.outcome, route::MatchOutcome::kRoute);
  EXPECT_EQ(e.result.route, 2u);
  ASSERT_EQ(e.considered.size(), 3u);
  EXPECT_EQ(e.considered[0].why, "path \"/x\" does not match \"/12\"");
  EXPECT_EQ(e.considered[1].why, "header x-tenant (exact \"a\") does not hold: it is \"b\"");
  EXPECT_TRUE(e.considered[2].matched);
  EXPECT_EQ(e.considered[2].why, "safe_regex \"/[0-9]+\" matches");
  const Request none("x");
  e = route::explain_route(host.runtime(), none.head(), host.context(), 2);
  EXPECT_EQ(e.result.outcome, route::MatchOutcome::kNoRoute);
  EXPECT_EQ(e.considered.size(), 2u);
  EXPECT_EQ(e.left_out, 3u);
}

// ---- virtual hosts

struct HostCase {
  const char* authority;
  int want;
  route::HostMatch how;
};

TEST(FindVirtualHost, EnvoysOrder) {
  route::RouteTableSpec spec;
  spec.name = "t";
  spec.virtual_hosts = {{"t/0", {"example.com", "Upper.Example.com"}},
                        {"t/1", {"*.example.com"}},
                        {"t/2", {"*-bar.example.com"}},
                        {"t/3", {"foo.*"}},
                        {"t/4", {"foo.bar.*", "example.com:8080"}},
                        {"t/5", {"*"}},
                        {"t/6", {"*.b.example.com", "[::1]"}}};
  for (const bool ignore_port : {false, true}) {
    spec.ignore_port_in_host_matching = ignore_port;
    const auto object = route::compile_route_table(spec);
    ASSERT_TRUE(object.ok());
    ASSERT_TRUE(table::validate_object({object.bytes(), object.size_bytes}).ok())
        << table::validate_object({object.bytes(), object.size_bytes}).error();
    const auto& t = object.as<table::RouteTable>();
    ASSERT_TRUE(route::validate_route_table(t).ok());
    using H = route::HostMatch;
    for (const HostCase& c :
         std::initializer_list<HostCase>{{"example.com", 0, H::kExact},
                                         {"EXAMPLE.com", 0, H::kExact},
                                         {"upper.example.com", 0, H::kExact},
                                         {"a.example.com", 1, H::kSuffix},
                                         {"foo-bar.example.com", 2, H::kSuffix},
                                         {"-bar.example.com", 1, H::kSuffix},
                                         {".example.com", 5, H::kDefault},
                                         {"x.b.example.com", 6, H::kSuffix},
                                         {"foo.com", 3, H::kPrefix},
                                         {"foo.bar.com", 4, H::kPrefix},
                                         {"foo.", 5, H::kDefault},
                                         {"foo.example.com", 1, H::kSuffix},
                                         {"other", 5, H::kDefault},
                                         {"", 5, H::kDefault},
                                         {"example.com:80", ignore_port ? 0 : 5, ignore_port ? H::kExact : H::kDefault},
                                         {"example.com:8080", ignore_port ? 0 : 4, H::kExact},
                                         {"[::1]:80", ignore_port ? 6 : 5, ignore_port ? H::kExact : H::kDefault},
                                         {"[::1]", 6, H::kExact}}) {
      const route::HostResult r = route::find_virtual_host(t, c.authority);
      EXPECT_EQ(static_cast<int>(r.index), c.want) << c.authority << " ignore_port " << ignore_port;
      EXPECT_EQ(r.how, c.how) << c.authority;
    }
    const std::string long_name(1000, 'a');
    EXPECT_EQ(route::find_virtual_host(t, long_name + ".example.com").index, 1u);
    EXPECT_EQ(route::find_virtual_host(t, "foo." + long_name).index, 3u);
    EXPECT_EQ(route::find_virtual_host(t, long_name).index, 5u);
  }
}

TEST(FindVirtualHost, OnlyADefaultAndNothingAtAll) {
  route::RouteTableSpec spec;
  spec.name = "t";
  auto empty = route::compile_route_table(spec);
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(route::find_virtual_host(empty.as<table::RouteTable>(), "a").index, route::kNoVirtualHost);
  spec.virtual_hosts = {{"t/0", {"a.com"}}};
  auto one = route::compile_route_table(spec);
  EXPECT_EQ(route::find_virtual_host(one.as<table::RouteTable>(), "b.com").how, route::HostMatch::kNone);
}

}  // namespace
}  // namespace millrace::test
