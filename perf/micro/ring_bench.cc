// The ring between two threads and within one. Items per second are records; one thread shows the cost of both sides'
// instructions, two threads that of the cache lines between them.
#include <benchmark/benchmark.h>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "lib/shm/spsc_ring.h"
#include "lib/stats/events.h"
#include "perf/micro/measured.h"

namespace millrace {
namespace {

struct Ring {
  explicit Ring(uint64_t capacity)
      : size(shm::ring_bytes(capacity)), memory(static_cast<uint8_t*>(std::aligned_alloc(4096, (size + 4095) / 4096 * 4096))) {
    std::memset(memory, 0, size);
    shm::format_ring({memory, size}, capacity);
    producer.attach({memory, size});
    consumer.attach({memory, size});
  }
  ~Ring() { std::free(memory); }
  size_t size;
  uint8_t* memory;
  shm::RingProducer producer;
  shm::RingConsumer consumer;
};

void BM_PushPop(benchmark::State& state) {
  Ring r(1 << 20);
  const uint32_t size = static_cast<uint32_t>(state.range(0));
  uint64_t value = 0;
  for (auto _ : state) {
    const auto room = r.producer.reserve(size);
    std::memcpy(room.data(), &value, sizeof value);
    r.producer.commit(size);
    const auto record = r.consumer.front();
    benchmark::DoNotOptimize(record.data());
    r.consumer.pop();
    ++value;
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * size);
}
BENCHMARK(BM_PushPop)->Arg(8)->Arg(64)->Arg(512)->Arg(4096);

// The producer's thread is measured; a consumer drains as fast as it can.
void BM_TwoThreads(benchmark::State& state) {
  Ring r(1 << 20);
  const uint32_t size = static_cast<uint32_t>(state.range(0));
  std::atomic<bool> stop{false};
  std::thread drain([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      const auto record = r.consumer.front();
      if (record.data() == nullptr) continue;
      benchmark::DoNotOptimize(record[0]);
      r.consumer.pop();
    }
  });
  uint64_t full = 0;
  for (auto _ : state) {
    auto room = r.producer.reserve(size);
    while (room.data() == nullptr) {
      ++full;
      room = r.producer.reserve(size);
    }
    std::memset(room.data(), 1, size);
    r.producer.commit(size);
  }
  stop = true;
  drain.join();
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
  state.counters["full"] = static_cast<double>(full);
}
BENCHMARK(BM_TwoThreads)->Arg(8)->Arg(64)->Arg(512)->UseRealTime();

// What one access log record costs a worker: twelve strings, put straight into the ring.
void BM_AccessLogRecord(benchmark::State& state) {
  Ring r(4 << 20);
  stats::AccessLogRecord record;
  const stats::LogString strings[] = {
      {stats::StringId::kMethod, "GET"},
      {stats::StringId::kPath, "/api/v1/users/12345/orders?limit=20&offset=40"},
      {stats::StringId::kAuthority, "www.example.com"},
      {stats::StringId::kForwardedFor, "203.0.113.7"},
      {stats::StringId::kUserAgent,
       "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"},
      {stats::StringId::kRequestId, "2f1c9f0e-6d5c-4f07-9b7e-3a1f6f0f7a11"},
      {stats::StringId::kUpstreamServiceTime, "3"},
      {stats::StringId::kRouteName, "users"},
      {stats::StringId::kClusterName, "users-v1"},
      {stats::StringId::kVirtualHostName, "www"},
      {stats::StringId::kResponseCodeDetails, "via_upstream"},
      {stats::StringId::kScheme, "https"}};
  for (auto _ : state) {
    const stats::AccessLogBuilder b(record, strings);
    auto room = r.producer.reserve(b.size());
    if (room.data() == nullptr) {
      state.PauseTiming();
      while (r.consumer.front().data() != nullptr) r.consumer.pop();
      state.ResumeTiming();
      room = r.producer.reserve(b.size());
    }
    b.write(room);
    r.producer.commit(b.size());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BM_AccessLogRecord);

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::bench::bench_main(argc, argv); }
