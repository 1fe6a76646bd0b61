// From a 4-tuple to its connection (dataplane/flow_table.h), by number of connections: one at a time, and in bursts of 32 with
// the prefetches of the data plane's stages in between. A connection here is a tuple on its own cache line, as in the data plane.
//   build/perf/bench-flow-table
#include <algorithm>
#include <benchmark/benchmark.h>
#include <memory>
#include <vector>

#include "dataplane/flow_table.h"
#include "lib/base/prng.h"
#include "perf/micro/measured.h"

using namespace millrace;
using dataplane::flow_hash;
using dataplane::FlowTable;

namespace {

constexpr uint64_t kSeed = 0x123456789abcdef;
constexpr size_t kOrder = 1 << 16;  // look-ups before the order repeats
constexpr uint32_t kBurst = 32;

struct alignas(64) Tuple {
  base::IpAddress local, remote;
  uint16_t local_port = 0, remote_port = 0;
  bool operator==(const Tuple& o) const {
    return local == o.local && remote == o.remote && local_port == o.local_port && remote_port == o.remote_port;
  }
  uint32_t hash() const { return static_cast<uint32_t>(flow_hash(kSeed, local, local_port, remote, remote_port)); }
};

struct Flows {
  FlowTable table;
  std::vector<Tuple> connections;
  std::vector<Tuple> wanted;  // copies, as a frame brings them, in random order

  Flows(uint32_t n, bool hit) : table(n) {
    base::Prng random(9);
    for (uint32_t i = 0; i < n; ++i) {
      connections.push_back(tuple(i));
      table.insert(connections[i].hash(), i);
    }
    for (size_t i = 0; i < kOrder; ++i) wanted.push_back(tuple(static_cast<uint32_t>(random.below(n)) + (hit ? 0 : n)));
  }
  // The i-th connection of many clients to one listener.
  static Tuple tuple(uint32_t i) {
    Tuple t;
    t.local = base::IpAddress::v4(0x0a000001);
    t.remote = base::IpAddress::v4(0x0b000000 + i / 50'000);
    t.local_port = 443;
    t.remote_port = static_cast<uint16_t>(1024 + i % 50'000);
    return t;
  }
  uint32_t find(const Tuple& t) const {
    return table.find(t.hash(), [&](uint32_t i) { return connections[i] == t; });
  }
};

void look_up(benchmark::State& state, bool hit) {
  const Flows f(static_cast<uint32_t>(state.range(0)), hit);
  size_t i = 0;
  for (auto _ : state) {
    const uint32_t found = f.find(f.wanted[i++ & (kOrder - 1)]);
    if ((found != FlowTable::kNone) != hit) return state.SkipWithError("a look-up that went wrong");
    benchmark::DoNotOptimize(found);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(look_up, hit, true)->Arg(64)->Arg(10'000)->Arg(1'000'000);
BENCHMARK_CAPTURE(look_up, miss, false)->Arg(64)->Arg(10'000)->Arg(1'000'000);

// As TcpStack::input_burst: hash and prefetch the bucket, prefetch the connection, then look.
void look_up_burst(benchmark::State& state) {
  const Flows f(static_cast<uint32_t>(state.range(0)), true);
  size_t i = 0;
  uint32_t hashes[kBurst];
  for (auto _ : state) {
    const Tuple* burst = &f.wanted[i & (kOrder - 1)];
    i += kBurst;
    for (uint32_t k = 0; k < kBurst; ++k) {
      hashes[k] = burst[k].hash();
      f.table.prefetch(hashes[k]);
    }
    for (const uint32_t h : hashes)
      if (const uint32_t c = f.table.candidate(h); c != FlowTable::kNone) __builtin_prefetch(&f.connections[c]);
    for (uint32_t k = 0; k < kBurst; ++k) {
      const uint32_t found = f.table.find(hashes[k], [&](uint32_t c) { return f.connections[c] == burst[k]; });
      if (found == FlowTable::kNone) return state.SkipWithError("a flow is missing");
      benchmark::DoNotOptimize(found);
    }
  }
  state.SetItemsProcessed(state.iterations() * kBurst);
}
BENCHMARK(look_up_burst)->Arg(64)->Arg(10'000)->Arg(1'000'000);

// Connections come and go in a table that stays as full as it may be.
void replace(benchmark::State& state) {
  const auto n = static_cast<uint32_t>(state.range(0));
  Flows f(n, true);
  base::Prng random(4);
  std::vector<uint32_t> victims(kOrder);
  for (uint32_t& v : victims) v = static_cast<uint32_t>(random.below(n));
  uint32_t fresh = n;
  size_t i = 0;
  for (auto _ : state) {
    const uint32_t v = victims[i++ & (kOrder - 1)];
    f.table.erase(f.connections[v].hash(), v);
    f.connections[v] = Flows::tuple(fresh++);
    f.table.insert(f.connections[v].hash(), v);
  }
  if (f.table.size() != n) state.SkipWithError("flows were lost");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(replace)->Arg(10'000)->Arg(1'000'000);

const bench::CountedCase kCounted[] = {{"flow-look-up", [] {
                                          auto f = std::make_shared<Flows>(10'000, true);
                                          return [f, i = size_t{0}]() mutable {
                                            benchmark::DoNotOptimize(f->find(f->wanted[i++ & (kOrder - 1)]));
                                          };
                                        }}};

}  // namespace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv, kCounted); }
