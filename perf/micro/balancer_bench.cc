// One pick by policy and number of endpoints (lib/route/balancer): equal weights, weights of 1 to 100, and with every tenth
// endpoint not to be used. Requests in flight change with each pick, as they do in a worker.
//   build/perf/bench-balancer
#include <benchmark/benchmark.h>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/prng.h"
#include "lib/route/balancer/balancer.h"
#include "lib/table/object_writer.h"
#include "perf/micro/measured.h"

using namespace millrace;
using table::LbPolicy;

namespace {

enum Shape { kEqual, kWeighted, kSomeUnusable };

struct Set {
  std::vector<uint64_t> words;  // the object, aligned
  std::vector<uint32_t> active;
  std::vector<uint8_t> usable;
  route::balancer::Balancer balancer;
  base::Prng random{1};
  // A request that was picked for ends when this many others have been: the endpoints to take one from.
  std::vector<uint32_t> under_way = std::vector<uint32_t>(256, UINT32_MAX);
  size_t at = 0;

  Set(LbPolicy policy, uint32_t n, Shape shape) : active(n), usable(n, 1) {
    table::ObjectWriter w(table::Kind::kEndpointSet, "c");
    table::EndpointSet o{};
    o.name = w.string("c");
    std::vector<table::Endpoint> list(n);
    for (uint32_t i = 0; i < n; ++i) {
      list[i].address = base::IpAddress::v4(0x0a000000 + i);
      list[i].port = 80;
      if (shape == kWeighted) list[i].weight = static_cast<uint32_t>(random.between(1, 100));
      if (shape == kSomeUnusable) usable[i] = i % 10 != 3;
      o.total_weight += list[i].weight;
    }
    o.healthy = n;
    o.endpoints = w.array(list);
    const std::vector<uint8_t> blob = std::move(w.finish(o)).value();
    words.resize((blob.size() + 7) / 8);
    std::memcpy(words.data(), blob.data(), blob.size());
    balancer.build(*reinterpret_cast<const table::EndpointSet*>(words.data()), policy, 2, 7);
    if (shape == kSomeUnusable)
      balancer.recount(
          1,
          [this](uint32_t i) { return usable[i] != 0 ? route::balancer::Health::kHealthy : route::balancer::Health::kUnhealthy; },
          n);
  }
  uint32_t pick() {
    using route::balancer::Health;
    const uint32_t e = balancer.pick(
        [] { return route::balancer::PickContext{}; }, [this](uint32_t i) { return active[i]; }, [this] { return random.next(); },
        [this](uint32_t i) { return usable[i] != 0 ? Health::kHealthy : Health::kUnhealthy; }, [] {});
    uint32_t& old = under_way[at++ & 255];
    if (old != UINT32_MAX) --active[old];
    old = e;
    ++active[e];
    return e;
  }
};

void pick(benchmark::State& state, LbPolicy policy, Shape shape) {
  Set set(policy, static_cast<uint32_t>(state.range(0)), shape);
  for (auto _ : state) benchmark::DoNotOptimize(set.pick());
  state.SetItemsProcessed(state.iterations());
}
#define MILLRACE_PICK(name, policy, shape) BENCHMARK_CAPTURE(pick, name, policy, shape)->Arg(4)->Arg(100)->Arg(10'000)
MILLRACE_PICK(round_robin, LbPolicy::kRoundRobin, kEqual);
MILLRACE_PICK(round_robin_weighted, LbPolicy::kRoundRobin, kWeighted);
MILLRACE_PICK(round_robin_some_unusable, LbPolicy::kRoundRobin, kSomeUnusable);
MILLRACE_PICK(least_request, LbPolicy::kLeastRequest, kEqual);
MILLRACE_PICK(least_request_weighted, LbPolicy::kLeastRequest, kWeighted);
MILLRACE_PICK(random, LbPolicy::kRandom, kEqual);
MILLRACE_PICK(random_some_unusable, LbPolicy::kRandom, kSomeUnusable);

// What a change of the endpoints costs the loader.
void build(benchmark::State& state, LbPolicy policy) {
  Set set(policy, static_cast<uint32_t>(state.range(0)), kWeighted);
  for (auto _ : state) {
    route::balancer::Balancer b;
    b.build(*reinterpret_cast<const table::EndpointSet*>(set.words.data()), policy, 2, 7);
    benchmark::DoNotOptimize(b);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(build, round_robin, LbPolicy::kRoundRobin)->Arg(100)->Arg(10'000);
BENCHMARK_CAPTURE(build, least_request, LbPolicy::kLeastRequest)->Arg(100)->Arg(10'000);

bench::CountedCase counted(const char* name, LbPolicy policy, Shape shape) {
  return {name, [policy, shape] {
            auto set = std::make_shared<Set>(policy, 100u, shape);
            return [set] { benchmark::DoNotOptimize(set->pick()); };
          }};
}
const bench::CountedCase kCounted[] = {counted("pick-round-robin", LbPolicy::kRoundRobin, kEqual),
                                       counted("pick-least-request", LbPolicy::kLeastRequest, kEqual)};

}  // namespace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv, kCounted); }
