// A whole worker under load: nanoseconds (Google Benchmark) or instructions (callgrind) a request, driver not counted.
//   build/perf/bench-worker                                   every case, timed
//   build/perf/bench-worker --case keepalive --benchmark_repetitions=5
//   valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no --toggle-collect=millrace_measured_turn
//       build/perf/bench-worker --case keepalive --callgrind 5000
#include <benchmark/benchmark.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "lib/tls/memory.h"
#include "perf/micro/eal.h"
#include "perf/micro/measured.h"
#include "perf/micro/worker_rig.h"

namespace millrace::bench {
namespace {

std::vector<RigOptions> all_cases() {
  std::vector<RigOptions> c(9);
  c[0].name = "keepalive";
  c[1].name = "keepalive-log";
  c[1].access_log = true;
  c[2].name = "body-1k";
  c[2].body_bytes = 1024;
  c[3].name = "body-16k";
  c[3].body_bytes = 16 * 1024;
  c[3].counted_requests = 200;
  c[4].name = "bulk";
  c[4].body_bytes = 1 << 20;
  c[4].connections = 16;
  c[4].counted_requests = 16;
  c[5].name = "connections";
  c[5].one_request_each = true;
  c[6].name = "tls";
  c[6].tls = true;
  c[7].name = "routes-100000";
  c[7].routes = 100'000;
  c[8].name = "http2";  // on both sides: the clients' connections, and one to the endpoint that all their streams share
  c[8].http2 = true;
  return c;
}

// Requests before anything is counted: pools, pooled connections, slow start, and what is built on first use.
uint64_t warm_up_requests(const RigOptions& o) { return o.body_bytes >= 100'000 ? 64 : 2'000; }

void timed(benchmark::State& state, const RigOptions& options) {
  Gateway gateway(options);
  Rig rig(gateway);
  if (!rig.run(warm_up_requests(options), false)) {
    state.SkipWithError(("no answers: " + rig.error()).c_str());
    return;
  }
  const uint64_t before = rig.answered();
  for (auto _ : state) state.SetIterationTime(static_cast<double>(rig.turn()) * 1e-9);
  if (!rig.error().empty()) return state.SkipWithError(rig.error().c_str());
  const auto requests = static_cast<double>(rig.answered() - before);
  state.SetItemsProcessed(static_cast<int64_t>(requests));
  state.counters["s_per_request"] = benchmark::Counter(requests, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["requests_per_turn"] = benchmark::Counter(requests, benchmark::Counter::kAvgIterations);
  if (options.body_bytes >= 1024)
    state.SetBytesProcessed(static_cast<int64_t>(requests * static_cast<double>(options.body_bytes)));
}

// Two workers of one gateway on two cores at once: what they take from each other (caches, memory, the machine) shows beside the
// same case with one.
void timed_pair(benchmark::State& state, RigOptions options) {
  options.pool_packets = 16'384;
  static Gateway gateway(options, 2);  // outlives every repetition
  const auto worker = static_cast<uint32_t>(state.thread_index());
  if (const base::Status s = enter_eal(worker); !s.ok()) {
    state.SkipWithError(s.error().c_str());
    return;
  }
  {
    Rig rig(gateway, worker);
    if (!rig.run(warm_up_requests(options), false)) state.SkipWithError(("no answers: " + rig.error()).c_str());
    const uint64_t before = rig.answered();
    for (auto _ : state) state.SetIterationTime(static_cast<double>(rig.turn()) * 1e-9);
    if (!rig.error().empty()) state.SkipWithError(rig.error().c_str());
    state.SetItemsProcessed(static_cast<int64_t>(rig.answered() - before));
  }
  leave_eal();
}

int counted(const RigOptions& options, uint64_t requests) {
  Gateway gateway(options);
  Rig rig(gateway);
  if (requests == 0) requests = options.counted_requests;
  const bool warm = rig.run(warm_up_requests(options), false);
  const uint64_t before = rig.answered();
  start_counting();
  const bool done = warm && rig.run(requests, true);
  if (!done) {
    std::fprintf(stderr, "bench-worker: case %s: %s\n", options.name.c_str(),
                 rig.error().empty() ? "no more answers came" : rig.error().c_str());
    return 1;
  }
  stop_counting(options.name);
  std::printf("case %s requests %lu\n", options.name.c_str(), rig.answered() - before);
  return 0;
}

int usage(int code) {
  std::fprintf(code == 0 ? stdout : stderr,
               "usage: bench-worker [--case NAME] [--callgrind N | 0: each case's own number] \n"
               "                    [--core N] [--hugepages] [--no-timestamps] [--connections N] [--benchmark_...]\n  cases:");
  for (const RigOptions& o : all_cases()) std::fprintf(code == 0 ? stdout : stderr, " %s", o.name.c_str());
  std::fputs("\n", code == 0 ? stdout : stderr);
  return code;
}

int run(int argc, char** argv) {
  std::string name;
  uint64_t requests = 0, connections = 0;
  int core = -1;
  bool hugepages = false, timestamps = true, callgrind = false;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto value = [&]() -> const char* { return i + 1 < argc ? argv[++i] : ""; };
    if (a == "--case") name = value();
    else if (a == "--callgrind") {
      callgrind = true;
      requests = std::strtoull(value(), nullptr, 10);
    } else if (a == "--connections") connections = std::strtoull(value(), nullptr, 10);
    else if (a == "--core") core = std::atoi(value());
    else if (a == "--hugepages") hugepages = true;
    else if (a == "--no-timestamps") timestamps = false;
    else if (a == "--help") return usage(0);
    else if (a.starts_with("--benchmark_")) rest.push_back(argv[i]);
    else return usage(2);
  }
  std::vector<RigOptions> cases;
  for (RigOptions o : all_cases()) {
    if (!name.empty() && o.name != name) continue;
    o.timestamps = timestamps;
    o.hugepages = hugepages;
    if (connections != 0) o.connections = static_cast<uint32_t>(connections);
    cases.push_back(std::move(o));
  }
  if (cases.empty()) return usage(2);

  if (const base::Status s = tls::install_memory_hooks(); !s.ok()) {
    std::fprintf(stderr, "bench-worker: %s\n", s.error().c_str());
    return 1;
  }
  if (const base::Status s = start_eal(core, hugepages); !s.ok()) {
    std::fprintf(stderr, "bench-worker: %s\n", s.error().c_str());
    return 1;
  }
  if (callgrind) {
    for (const RigOptions& o : cases)
      if (const int code = counted(o, requests); code != 0) return code;
    return 0;
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  for (const RigOptions& o : cases)
    benchmark::RegisterBenchmark(("worker/" + o.name).c_str(), [o](benchmark::State& s) { timed(s, o); })->UseManualTime();
  if (name.empty() && allowed_cores() >= 2) {
    RigOptions o;
    o.timestamps = timestamps;
    benchmark::RegisterBenchmark("worker/keepalive-two-workers", [o](benchmark::State& s) { timed_pair(s, o); })
        ->UseManualTime()
        ->Threads(2);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace millrace::bench

int main(int argc, char** argv) { return millrace::bench::run(argc, argv); }
