#include "lib/stats/counters.h"

namespace millrace::stats {

namespace {
#define MILLRACE_ENTRY(symbol, name, type, text) {name, CounterType::type, text},
constexpr CounterInfo kLoop[] = {
#define LOOP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kPort[] = {
#define PORT_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kTcp[] = {
#define TCP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kTls[] = {
#define TLS_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kHttp[] = {
#define HTTP_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kLoader[] = {
#define LOADER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kListener[] = {
#define LISTENER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kHcm[] = {
#define HCM_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kCompressor[] = {
#define COMPRESSOR_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kClusterHealth[] = {
#define CLUSTER_HEALTH_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kClusterCheck[] = {
#define CLUSTER_CHECK_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kVirtualHost[] = {
#define VIRTUAL_HOST_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
constexpr CounterInfo kCluster[] = {
#define CLUSTER_COUNTER MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
#undef MILLRACE_ENTRY
#define MILLRACE_ENTRY(symbol, name, text) {name, CounterType::kGauge, text},
constexpr CounterInfo kPool[] = {
#define POOL MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
#undef MILLRACE_ENTRY
#define MILLRACE_ENTRY(symbol, name, text) {name, CounterType::kCounter, text},
constexpr CounterInfo kStage[] = {
#define STAGE MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
#undef MILLRACE_ENTRY
#define MILLRACE_ENTRY(symbol, name, text) {name, CounterType::kGauge, text},
constexpr CounterInfo kHistogram[] = {
#define WORKER_HISTOGRAM MILLRACE_ENTRY
#include "lib/stats/counters.def"
};
#undef MILLRACE_ENTRY
}  // namespace

template <>
std::span<const CounterInfo> infos<LoopCounter>() {
  return kLoop;
}
template <>
std::span<const CounterInfo> infos<PortCounter>() {
  return kPort;
}
template <>
std::span<const CounterInfo> infos<TcpCounter>() {
  return kTcp;
}
template <>
std::span<const CounterInfo> infos<TlsCounter>() {
  return kTls;
}
template <>
std::span<const CounterInfo> infos<HttpCounter>() {
  return kHttp;
}
template <>
std::span<const CounterInfo> infos<LoaderCounter>() {
  return kLoader;
}
template <>
std::span<const CounterInfo> infos<ListenerCounter>() {
  return kListener;
}
template <>
std::span<const CounterInfo> infos<HcmCounter>() {
  return kHcm;
}
template <>
std::span<const CounterInfo> infos<CompressorCounter>() {
  return kCompressor;
}
template <>
std::span<const CounterInfo> infos<ClusterHealthCounter>() {
  return kClusterHealth;
}
template <>
std::span<const CounterInfo> infos<ClusterCheckCounter>() {
  return kClusterCheck;
}
template <>
std::span<const CounterInfo> infos<VirtualHostCounter>() {
  return kVirtualHost;
}
template <>
std::span<const CounterInfo> infos<ClusterCounter>() {
  return kCluster;
}
template <>
std::span<const CounterInfo> infos<Pool>() {
  return kPool;
}
template <>
std::span<const CounterInfo> infos<Stage>() {
  return kStage;
}
template <>
std::span<const CounterInfo> infos<WorkerHistogram>() {
  return kHistogram;
}

}  // namespace millrace::stats
