// What a route look-up costs, by kind and number of routes, for requests that match and such that do not, drawn uniformly and by
// Zipf's law (s = 1); and what compiling a table costs. A batch is 64 look-ups: items_per_second is over all, p50_ns and p99_ns
// are of a look-up in the median and in the worst hundredth of the batches.
//   build/perf/bench-matcher --benchmark_filter=prefix
#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <cmath>
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
#include "perf/micro/measured.h"

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
  }
};

Fixture& fixture(Kind kind, int routes) {
  static std::map<std::pair<Kind, int>, std::unique_ptr<Fixture>> all;
  auto& f = all[{kind, routes}];
  if (f == nullptr) f = std::make_unique<Fixture>(kind, routes);
  return *f;
}

enum class Draw { kUniform, kZipf, kMiss };

// Paths in an order that no predictor knows and that covers the table as traffic does.
std::vector<std::string> make_paths(Kind kind, int routes, Draw draw) {
  constexpr int kPaths = 16'384;
  base::Prng random(1);
  std::vector<double> until;                              // cumulated weight of rank
  std::vector<int> of_rank(static_cast<size_t>(routes));  // the popular routes lie anywhere in the table
  for (int i = 0; i < routes; ++i) of_rank[static_cast<size_t>(i)] = i;
  for (size_t i = of_rank.size(); i > 1; --i) std::swap(of_rank[i - 1], of_rank[random.below(i)]);
  if (draw == Draw::kZipf)
    for (int i = 0; i < routes; ++i) until.push_back((until.empty() ? 0 : until.back()) + 1.0 / (i + 1));
  std::vector<std::string> paths;
  for (int i = 0; i < kPaths; ++i) {
    size_t rank = random.below(static_cast<uint64_t>(routes));
    if (draw == Draw::kZipf)
      rank = static_cast<size_t>(std::lower_bound(until.begin(), until.end(), random.unit() * until.back()) - until.begin());
    std::string path = make_path(kind, of_rank[std::min(rank, of_rank.size() - 1)]);
    // A miss shares all but a byte in its second half with a route: nothing is refused at the first look.
    if (draw == Draw::kMiss) path[path.find("/", 1) + 1] = '!';
    paths.push_back(std::move(path));
  }
  return paths;
}

class Lookup {
 public:
  Lookup(Kind kind, int routes, Draw draw) : fixture_(fixture(kind, routes)), paths_(make_paths(kind, routes, draw)) {
    head_.method = "GET";
    head_.authority = "example.com";
    head_.headers = http::HeaderTable(storage_, 8);
    head_.headers.push({"user-agent", "bench", http::HeaderId::kUserAgent});
    head_.headers.push({"accept", "*/*", http::HeaderId::kOther});
    head_.headers.push({"x-tenant", "acme-7", http::HeaderId::kOther});
    want_ = draw == Draw::kMiss ? route::MatchOutcome::kNoRoute : route::MatchOutcome::kRoute;
  }
  Lookup(const Lookup&) = delete;
  Lookup& operator=(const Lookup&) = delete;
  // False: the table gave another answer than it should.
  bool operator()() {
    head_.path = paths_[at_++ & (paths_.size() - 1)];
    const route::MatchResult r = route::match_route(fixture_.host->runtime(), head_, {at_, false, &fixture_.scratch});
    benchmark::DoNotOptimize(r);
    return r.outcome == want_;
  }
  double object_mb() const { return static_cast<double>(fixture_.object.size_bytes) / 1e6; }

 private:
  Fixture& fixture_;
  std::vector<std::string> paths_;
  http::Header storage_[8];
  http::RequestHead head_;
  route::MatchOutcome want_;
  size_t at_ = 0;
};

void lookup(benchmark::State& state, Kind kind, Draw draw) {
  using Clock = std::chrono::steady_clock;
  constexpr int kBatch = 64;
  Lookup look(kind, static_cast<int>(state.range(0)), draw);
  std::vector<double> ns;
  ns.reserve(1 << 20);
  for (auto _ : state) {
    bool right = true;
    const Clock::time_point begun = Clock::now();
    for (int i = 0; i < kBatch; ++i) right &= look();
    const std::chrono::duration<double> took = Clock::now() - begun;
    state.SetIterationTime(took.count());
    if (ns.size() < ns.capacity()) ns.push_back(took.count() * 1e9 / kBatch);
    if (!right) return state.SkipWithError("a wrong answer");
  }
  std::sort(ns.begin(), ns.end());
  state.SetItemsProcessed(state.iterations() * kBatch);
  state.counters["p50_ns"] = ns[ns.size() / 2];
  state.counters["p99_ns"] = ns[ns.size() * 99 / 100];
  state.counters["object_MB"] = look.object_mb();
}
void literal_sizes(benchmark::internal::Benchmark* b) { b->Arg(10)->Arg(1'000)->Arg(10'000)->Arg(100'000)->UseManualTime(); }
// 100,000 expressions: see main().
void regex_sizes(benchmark::internal::Benchmark* b) { b->Arg(10)->Arg(1'000)->Arg(10'000)->UseManualTime(); }
void shared_regex_sizes(benchmark::internal::Benchmark* b) { b->Arg(10)->Arg(1'000)->Arg(5'000)->UseManualTime(); }
#define MILLRACE_LOOKUP(name, kind, sizes)                                       \
  BENCHMARK_CAPTURE(lookup, name##_uniform, kind, Draw::kUniform)->Apply(sizes); \
  BENCHMARK_CAPTURE(lookup, name##_zipf, kind, Draw::kZipf)->Apply(sizes);       \
  BENCHMARK_CAPTURE(lookup, name##_miss, kind, Draw::kMiss)->Apply(sizes)
MILLRACE_LOOKUP(exact, kExact, literal_sizes);
MILLRACE_LOOKUP(prefix, kPrefix, literal_sizes);
MILLRACE_LOOKUP(prefix_and_headers, kHeaders, literal_sizes);
MILLRACE_LOOKUP(regex_by_prefix, kRegex, regex_sizes);
MILLRACE_LOOKUP(regex_one_prefix, kSharedRegex, shared_regex_sizes);

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
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(find_host)->Arg(1)->Arg(1'000)->Arg(100'000);

bench::CountedCase counted(const char* name, Kind kind, int routes, Draw draw) {
  return {name, [=] {
            auto look = std::make_shared<Lookup>(kind, routes, draw);
            return [look] { (*look)(); };
          }};
}
const bench::CountedCase kCounted[] = {
    counted("exact-10000", kExact, 10'000, Draw::kUniform),
    counted("prefix-10000", kPrefix, 10'000, Draw::kUniform),
    counted("prefix-10000-miss", kPrefix, 10'000, Draw::kMiss),
    counted("prefix-and-headers-1000", kHeaders, 1'000, Draw::kUniform),
    counted("regex-100", kRegex, 100, Draw::kUniform),
};

}  // namespace

int main(int argc, char** argv) {
  // A table of 100,000 expressions takes minutes and gigabytes to compile, so it is there only when it is asked for.
  if (const char* many = std::getenv("MILLRACE_BENCH_REGEXES"); many != nullptr) {
    const int n = std::atoi(many);
    benchmark::RegisterBenchmark("lookup/regex_by_prefix_uniform_many",
                                 [](benchmark::State& s) { lookup(s, kRegex, Draw::kUniform); })
        ->Arg(n)
        ->UseManualTime();
  }
  return bench::bench_main(argc, argv, kCounted);
}
