// The Internet checksum by length, over bytes that begin anywhere (lib/wire/checksum.h). Bytes per second are of payload.
//   build/perf/bench-checksum
#include <benchmark/benchmark.h>
#include <memory>
#include <vector>

#include "lib/base/prng.h"
#include "lib/wire/checksum.h"
#include "perf/micro/measured.h"

using namespace millrace;

namespace {

// Spans of `length` random bytes at random places: alignments as they come, more of them than a predictor remembers.
struct Pieces {
  static constexpr size_t kMemory = 1 << 20;
  std::vector<uint8_t> memory;
  std::vector<base::ByteSpan> order;
  Pieces(size_t least, size_t most) : memory(kMemory) {
    base::Prng random(3);
    for (uint8_t& b : memory) b = static_cast<uint8_t>(random.next());
    for (int i = 0; i < 4096; ++i) {
      const size_t n = random.between(least, most);
      order.push_back({memory.data() + random.below(kMemory - n), n});
    }
  }
};

void sum(benchmark::State& state) {
  const Pieces pieces(static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)));
  size_t i = 0;
  uint64_t bytes = 0;
  for (auto _ : state) {
    const base::ByteSpan piece = pieces.order[i++ & 4095];
    benchmark::DoNotOptimize(wire::checksum_finish(wire::checksum_sum(piece)));
    bytes += piece.size();
  }
  state.SetItemsProcessed(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(bytes));
}
BENCHMARK(sum)->Args({20, 20})->Args({32, 32})->Args({64, 64})->Args({128, 128})->Args({536, 536})->Args({1460, 1460});
BENCHMARK(sum)->Args({9000, 9000})->Args({65'000, 65'000})->Args({20, 1460});

// A whole segment of TCP over IPv4 or IPv6: pseudo-header, header and payload together.
void segment(benchmark::State& state, bool v6) {
  const Pieces pieces(40, 1460);
  std::vector<base::IpAddress> addresses;
  base::Prng random(5);
  for (int i = 0; i < 1024; ++i) {
    base::IpAddress a = base::IpAddress::v4(static_cast<uint32_t>(random.next()));
    if (v6)
      for (uint8_t& b : a.bytes) b = static_cast<uint8_t>(random.next());
    addresses.push_back(a);
  }
  size_t i = 0;
  for (auto _ : state) {
    const base::ByteSpan piece = pieces.order[i & 4095];
    const wire::ChecksumSum pseudo =
        wire::pseudo_header(addresses[i & 1023], addresses[(i + 1) & 1023], 6, static_cast<uint32_t>(piece.size()));
    benchmark::DoNotOptimize(wire::checksum_finish(pseudo + wire::checksum_sum(piece)));
    ++i;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(segment, v4, false);
BENCHMARK_CAPTURE(segment, v6, true);

// A field changed under an existing checksum. Each result feeds the next: a latency.
void update(benchmark::State& state) {
  base::Prng random(11);
  std::vector<uint32_t> words(1024);
  for (uint32_t& w : words) w = static_cast<uint32_t>(random.next());
  uint16_t checksum = 0x1234;
  size_t i = 0;
  for (auto _ : state) {
    checksum = wire::checksum_update32(checksum, words[i & 1023], words[(i + 1) & 1023]);
    ++i;
  }
  benchmark::DoNotOptimize(checksum);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(update);

bench::CountedCase counted(const char* name, size_t bytes) {
  return {name, [bytes] {
            auto pieces = std::make_shared<Pieces>(bytes, bytes);
            return [pieces, i = size_t{0}]() mutable {
              benchmark::DoNotOptimize(wire::checksum_finish(wire::checksum_sum(pieces->order[i++ & 4095])));
            };
          }};
}
const bench::CountedCase kCounted[] = {counted("checksum-64", 64), counted("checksum-1460", 1460)};

}  // namespace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv, kCounted); }
