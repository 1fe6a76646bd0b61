#include "lib/stats/kernel_counters.h"

namespace millrace::stats {
namespace {

uint64_t over_ports(const WorkerBlock& b, PortCounter c) {
  uint64_t sum = 0;
  for (const auto& p : b.ports) sum += p[c].read();
  return sum;
}

#define T(symbol) b.tcp[TcpCounter::symbol].read()
#define D(symbol) b.drops[static_cast<uint32_t>(DropReason::symbol)].read()
#define P(symbol) over_ports(b, PortCounter::symbol)
constexpr KernelCounter kCounters[] = {
#define KERNEL_COUNTER(name, expression, text) {name, [](const WorkerBlock& b) -> uint64_t { return expression; }, text},
#include "lib/stats/kernel_counters.def"
#undef KERNEL_COUNTER
};
#undef T
#undef D
#undef P

}  // namespace

std::span<const KernelCounter> kernel_counters() { return kCounters; }

}  // namespace millrace::stats
