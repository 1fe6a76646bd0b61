// What a route lookup costs, by number of routes and kind, and what compiling a table costs.
//   ninja -C build perf/micro/route_bench && build/perf/micro/route_bench
// Requests go over all routes in a fixed pseudo-random order, so that the table competes for the caches as it does in life.
#include <benchmark/benchmark.h>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "lib/base/prng.h"
#include "lib/http/message.h"
#include "lib/route/compiler.h"
#include "lib/route/runtime.h"

using namespace millrace;

namespace {

enum Kind { kExact, kPrefix, kRegex, kSharedRegex, kHeaders };

route::RouteSpec make_route(Kind kind, int i) {
  route::RouteSpec r;
  r.clusters.push_back({"cluster-" + std::to_string(i % 1000), 0, {}});
  const std::string n = std::to_string(i);
  switch (kind) {
    case kExact:
      r.path_kind = table::PathKind::kExact;
      r.path = "/service-" + n + "/v1/resource/item";
      break;
    case kPrefix:
      r.path = "/service-" + n + "/v1/";
      break;
    case kRegex:  // each under its own literal prefix, as services are
      r.path_kind = table::PathKind::kRegex;
      r.path = "/service-" + n + "/v[0-9]+/users/[^/]+/orders/[0-9]{1,12}";
      break;
    case kSharedRegex:  // all under one prefix
      r.path_kind = table::PathKind::kRegex;
      r.path = "/api/v[0-9]+/[^/]+/thing" + n + "(/.*)?";
      break;
    case kHeaders:
      r.path = "/service-" + n + "/v1/";
      r.headers.resize(2);
      r.headers[0] = {":method", table::StringMatchKind::kExact, "GET", 0, 0, false, false, false};
      r.headers[1] = {"x-tenant", table::StringMatchKind::kPrefix, "acme", 0, 0, false, false, false};
      break;
  }
  return r;
}
std::string make_path(Kind kind, int i) {
  const std::string n = std::to_string(i);
  switch (kind) {
    case kExact:
      return "/service-" + n + "/v1/resource/item";
    case kPrefix:
    case kHeaders:
      return "/service-" + n + "/v1/resource/item?query=1";
    case kRegex:
      return "/service-" + n + "/v12/users/bob42/orders/1234567";
    case kSharedRegex:
      return "/api/v2/tenant77/thing" + n + "/details/here";
  }
  return {};
}

route::VirtualHostSpec make_spec(Kind kind, int routes) {
  route::VirtualHostSpec spec;
  spec.name = "h";
  spec.domains = {"*"};
  for (int i = 0; i < routes; ++i) spec.routes.push_back(make_route(kind, i));
  return spec;
}

// As in the arena: on huge pages where the system gives them (four-kilobyte pages cost large tables two thirds of their speed).
struct HugeCopy {
  explicit HugeCopy(const route::CompiledObject& from) {
    constexpr size_t kHuge = size_t{2} << 20;
    const size_t size = (from.size_bytes + kHuge - 1) / kHuge * kHuge;
    bytes = static_cast<uint8_t*>(std::aligned_alloc(kHuge, size));
    ::madvise(bytes, size, MADV_HUGEPAGE);
    std::memcpy(bytes, from.bytes(), from.size_bytes);
  }
  ~HugeCopy() { std::free(bytes); }
  HugeCopy(const HugeCopy&) = delete;
  HugeCopy& operator=(const HugeCopy&) = delete;
  uint8_t* bytes;
};

struct Fixture {
  route::CompiledObject object;
  std::unique_ptr<HugeCopy> arena;
  route::PatternDbCache cache;
  std::unique_ptr<route::LoadedVirtualHost> host;
  route::MatchScratch scratch;
  std::vector<std::string> paths;

  Fixture(Kind kind, int routes) {
    route::RouteCompiler compiler({.seconds = 600});
    object = compiler.compile_virtual_host(make_spec(kind, routes), "t/h");
    if (!object.ok()) std::abort();
    route::PatternScratch prototype;
    arena = std::make_unique<HugeCopy>(object);
    host = std::move(
        route::LoadedVirtualHost::load(*reinterpret_cast<const table::VirtualHost*>(arena->bytes), cache, prototype, nullptr)
            .value());
    scratch.patterns = std::move(prototype.clone().value());
    base::Prng random(1);
    for (int i = 0; i < 8192; ++i)
      paths.push_back(make_path(kind, static_cast<int>(random.below(static_cast<uint64_t>(routes)))));
  }
};

Fixture& fixture(Kind kind, int routes) {
  static std::map<std::pair<Kind, int>, std::unique_ptr<Fixture>> all;
  auto& f = all[{kind, routes}];
  if (f == nullptr) f = std::make_unique<Fixture>(kind, routes);
  return *f;
}

void lookup(benchmark::State& state, Kind kind) {
  Fixture& f = fixture(kind, static_cast<int>(state.range(0)));
  http::Header storage[8];
  http::RequestHead head;
  head.method = "GET";
  head.authority = "example.com";
  head.headers = http::HeaderTable(storage, 8);
  head.headers.push({"user-agent", "bench", http::HeaderId::kUserAgent});
  head.headers.push({"accept", "*/*", http::HeaderId::kOther});
  head.headers.push({"x-tenant", "acme-7", http::HeaderId::kOther});
  size_t i = 0;
  for (auto _ : state) {
    head.path = f.paths[i++ & 8191];
    const route::MatchResult r = route::match_route(f.host->runtime(), head, {i, false, &f.scratch});
    if (r.outcome != route::MatchOutcome::kRoute) state.SkipWithError("no route");
    benchmark::DoNotOptimize(r);
  }
  state.counters["object_MB"] = static_cast<double>(f.object.size_bytes) / 1e6;
  state.counters["scratch_KB"] = static_cast<double>(f.scratch.patterns.size_bytes()) / 1e3;
}
BENCHMARK_CAPTURE(lookup, exact, kExact)->Arg(1)->Arg(1'000)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(lookup, prefix, kPrefix)->Arg(1)->Arg(1'000)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(lookup, prefix_and_headers, kHeaders)->Arg(1)->Arg(1'000)->Arg(10'000)->Arg(100'000);
BENCHMARK_CAPTURE(lookup, regex_by_prefix, kRegex)->Arg(1)->Arg(1'000)->Arg(10'000);
BENCHMARK_CAPTURE(lookup, regex_one_prefix, kSharedRegex)->Arg(1)->Arg(1'000)->Arg(5'000);

// A whole virtual host from its spec, literals only.
void compile_literals(benchmark::State& state) {
  const auto spec = make_spec(kPrefix, static_cast<int>(state.range(0)));
  route::RouteCompiler compiler;
  for (auto _ : state) benchmark::DoNotOptimize(compiler.compile_virtual_host(spec, "t/h").size_bytes);
}
BENCHMARK(compile_literals)->Arg(1'000)->Arg(10'000)->Arg(100'000)->Unit(benchmark::kMillisecond);

// One expression more in a virtual host that has many: what `millctl route add` waits for.
void add_one_regex(benchmark::State& state, Kind kind) {
  auto spec = make_spec(kind, static_cast<int>(state.range(0)));
  route::RouteCompiler compiler({.seconds = 600});
  if (!compiler.compile_virtual_host(spec, "t/h").ok()) std::abort();
  int next = static_cast<int>(state.range(0));
  uint64_t patterns = 0;
  for (auto _ : state) {
    spec.routes.push_back(make_route(kind, next++));
    benchmark::DoNotOptimize(compiler.compile_virtual_host(spec, "t/h").size_bytes);
    patterns += compiler.stats().patterns_compiled;
  }
  state.counters["patterns_each"] = static_cast<double>(patterns) / static_cast<double>(state.iterations());
}
BENCHMARK_CAPTURE(add_one_regex, by_prefix, kRegex)->Arg(5'000)->Iterations(20)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(add_one_regex, one_prefix, kSharedRegex)->Arg(5'000)->Iterations(20)->Unit(benchmark::kMillisecond);

// A cold compile, child processes and all.
void compile_regexes(benchmark::State& state, Kind kind) {
  const auto spec = make_spec(kind, static_cast<int>(state.range(0)));
  for (auto _ : state) {
    route::RouteCompiler compiler({.seconds = 600});
    benchmark::DoNotOptimize(compiler.compile_virtual_host(spec, "t/h").size_bytes);
  }
}
BENCHMARK_CAPTURE(compile_regexes, by_prefix, kRegex)->Arg(1'000)->Arg(10'000)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(compile_regexes, one_prefix, kSharedRegex)->Arg(1'000)->Iterations(1)->Unit(benchmark::kMillisecond);

void find_host(benchmark::State& state) {
  route::RouteTableSpec spec;
  spec.name = "t";
  const int n = static_cast<int>(state.range(0));
  for (int i = 0; i < n; ++i) {
    const std::string s = "tenant-" + std::to_string(i) + ".example.com";
    spec.virtual_hosts.push_back({"t/" + std::to_string(i), {i % 4 == 0 ? "*." + s : s}});
  }
  const auto object = route::compile_route_table(spec);
  const HugeCopy arena(object);
  const auto& routes = *reinterpret_cast<const table::RouteTable*>(arena.bytes);
  std::vector<std::string> names;
  base::Prng random(1);
  for (int i = 0; i < 8192; ++i) {
    const uint64_t k = random.below(static_cast<uint64_t>(n));
    names.push_back((k % 4 == 0 ? "www.tenant-" : "tenant-") + std::to_string(k) + ".example.com");
  }
  size_t i = 0;
  for (auto _ : state) {
    const auto r = route::find_virtual_host(routes, names[i++ & 8191]);
    if (r.how == route::HostMatch::kNone) state.SkipWithError("no host");
    benchmark::DoNotOptimize(r);
  }
}
BENCHMARK(find_host)->Arg(1)->Arg(1'000)->Arg(100'000);

}  // namespace

BENCHMARK_MAIN();
