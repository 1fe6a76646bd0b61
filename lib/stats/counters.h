// Counters in shared memory: the word, the enums and names made from counters.def, and arrays indexed by an enum.
//
// Every word has one writer, so adding is a plain load, add and store (no locked instruction), all relaxed: a reader wants a
// recent value, not an order between words. What must be ordered (epochs, directory entries) says so where it stands, in
// region.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

namespace millrace::stats {

// One word, one writer. Zero bytes are a valid Counter, so a fresh shared mapping needs no construction.
class Counter {
 public:
  // Writer only.
  void add(uint64_t n = 1) { word_.store(word_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  void sub(uint64_t n = 1) { word_.store(word_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed); }
  void set(uint64_t v) { word_.store(v, std::memory_order_relaxed); }
  // Anybody. Gauges summed over workers are right even when one worker's share is negative (arithmetic modulo 2^64).
  uint64_t read() const { return word_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> word_{0};
};
static_assert(sizeof(Counter) == 8 && std::atomic<uint64_t>::is_always_lock_free);

enum class CounterType : uint8_t { kCounter, kGauge };
struct CounterInfo {
  const char* name;
  CounterType type;
  const char* text;
};

// One enum per group of counters.def: LoopCounter::kIterations, …, kCount; names by info(enum) and infos<Enum>().
#define MILLRACE_ENTRY(symbol, name, type, text) symbol,
enum class LoopCounter : uint16_t {
#define LOOP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class PortCounter : uint16_t {
#define PORT_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class TcpCounter : uint16_t {
#define TCP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class TlsCounter : uint16_t {
#define TLS_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class HttpCounter : uint16_t {
#define HTTP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class LoaderCounter : uint16_t {
#define LOADER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class ListenerCounter : uint16_t {
#define LISTENER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class HcmCounter : uint16_t {
#define HCM_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class CompressorCounter : uint16_t {
#define COMPRESSOR_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class ClusterHealthCounter : uint16_t {
#define CLUSTER_HEALTH_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class ClusterCheckCounter : uint16_t {
#define CLUSTER_CHECK_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class VirtualHostCounter : uint16_t {
#define VIRTUAL_HOST_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class ClusterCounter : uint16_t {  // clusters and endpoints
#define CLUSTER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
#undef MILLRACE_ENTRY
#define MILLRACE_ENTRY(symbol, name, text) symbol,
enum class Pool : uint16_t {
#define POOL MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class Stage : uint16_t {
#define STAGE MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
enum class WorkerHistogram : uint16_t {
#define WORKER_HISTOGRAM MILLRACE_ENTRY
#include "lib/stats/counters.def"
  kCount
};
#undef MILLRACE_ENTRY

template <class Enum>
inline constexpr uint32_t kCountOf = static_cast<uint32_t>(Enum::kCount);

// The names of a group, in enum order (specialised in counters.cc for every enum above).
template <class Enum>
std::span<const CounterInfo> infos();
template <class Enum>
const CounterInfo& info(Enum e) {
  return infos<Enum>()[static_cast<uint32_t>(e)];
}
template <>
std::span<const CounterInfo> infos<LoopCounter>();
template <>
std::span<const CounterInfo> infos<PortCounter>();
template <>
std::span<const CounterInfo> infos<TcpCounter>();
template <>
std::span<const CounterInfo> infos<TlsCounter>();
template <>
std::span<const CounterInfo> infos<HttpCounter>();
template <>
std::span<const CounterInfo> infos<LoaderCounter>();
template <>
std::span<const CounterInfo> infos<ListenerCounter>();
template <>
std::span<const CounterInfo> infos<HcmCounter>();
template <>
std::span<const CounterInfo> infos<CompressorCounter>();
template <>
std::span<const CounterInfo> infos<ClusterHealthCounter>();
template <>
std::span<const CounterInfo> infos<ClusterCheckCounter>();
template <>
std::span<const CounterInfo> infos<VirtualHostCounter>();
template <>
std::span<const CounterInfo> infos<ClusterCounter>();
template <>
std::span<const CounterInfo> infos<Pool>();
template <>
std::span<const CounterInfo> infos<Stage>();
template <>
std::span<const CounterInfo> infos<WorkerHistogram>();

// An array of counters indexed by its enum: `block[TcpCounter::kAccepted].add()`.
template <class Enum>
struct CounterBlock {
  Counter words[kCountOf<Enum>];
  Counter& operator[](Enum e) { return words[static_cast<uint32_t>(e)]; }
  const Counter& operator[](Enum e) const { return words[static_cast<uint32_t>(e)]; }
};

}  // namespace millrace::stats
