#include "lib/route/balancer/priority_load.h"

#include <algorithm>

namespace millrace::route::balancer {

namespace {

constexpr uint32_t kWhole = 100;  // percent

uint32_t availability(uint32_t endpoints, uint32_t total, uint32_t overprovisioning) {
  if (total == 0) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(kWhole, uint64_t{overprovisioning} * endpoints / total));
}

bool in_panic(const HealthCount& c, uint32_t threshold) {
  return c.total == 0 ? threshold > 0 : uint64_t{kWhole} * (c.healthy + c.degraded) < uint64_t{threshold} * c.total;
}

// Everything is in panic: by the number of endpoints, whatever their health.
void spread_in_panic(std::span<const HealthCount> counts, std::span<PriorityLoad> loads) {
  uint64_t total = 0;
  for (const HealthCount& c : counts) total += c.total;
  for (PriorityLoad& l : loads) l.healthy = l.degraded = 0;
  if (total == 0) {
    loads[0].healthy = kWhole;
    return;
  }
  uint32_t left = kWhole;
  size_t first = counts.size();
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i].total != 0) first = std::min(first, i);
    loads[i].healthy = static_cast<uint32_t>(uint64_t{kWhole} * counts[i].total / total);
    left -= loads[i].healthy;
  }
  loads[first].healthy += left;
}

}  // namespace

void spread_load(std::span<const HealthCount> counts, uint32_t overprovisioning, uint32_t panic_threshold,
                 std::span<PriorityLoad> loads) {
  const auto healthy = [&](size_t i) { return availability(counts[i].healthy, counts[i].total, overprovisioning); };
  const auto degraded = [&](size_t i) { return availability(counts[i].degraded, counts[i].total, overprovisioning); };
  uint32_t all = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    loads[i] = {};
    all = std::min(kWhole, all + healthy(i) + degraded(i));
  }
  if (all != 0) {
    uint32_t left = kWhole;
    size_t first_healthy = counts.size(), first_degraded = counts.size();
    for (size_t i = 0; i < counts.size(); ++i) {
      if (healthy(i) != 0) first_healthy = std::min(first_healthy, i);
      loads[i].healthy = std::min(left, healthy(i) * kWhole / all);
      left -= loads[i].healthy;
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      if (degraded(i) != 0) first_degraded = std::min(first_degraded, i);
      loads[i].degraded = std::min(left, degraded(i) * kWhole / all);
      left -= loads[i].degraded;
    }
    // What rounding left over.
    if (first_healthy < counts.size()) loads[first_healthy].healthy += left;
    else loads[first_degraded].degraded += left;
  } else if (panic_threshold == 0) {
    loads[0].healthy = kWhole;
    return;
  }
  bool total_panic = true;
  for (size_t i = 0; i < counts.size(); ++i) {
    loads[i].panic = all != kWhole && in_panic(counts[i], panic_threshold);  // enough altogether is no panic anywhere
    total_panic = total_panic && loads[i].panic;
  }
  if (total_panic) spread_in_panic(counts, loads);
}

PriorityChoice choose_priority(std::span<const PriorityLoad> loads, uint64_t hash) {
  const uint32_t wanted = static_cast<uint32_t>(hash % kWhole) + 1;
  uint32_t sum = 0;
  for (uint32_t i = 0; i < loads.size(); ++i)
    if ((sum += loads[i].healthy) >= wanted) return {i, false};
  for (uint32_t i = 0; i < loads.size(); ++i)
    if ((sum += loads[i].degraded) >= wanted) return {i, true};
  return {};
}

uint64_t effective_weight(uint32_t weight, uint32_t eligible, uint32_t total, uint32_t overprovisioning) {
  if (total == 0) return 0;
  constexpr uint64_t kOne = 65'536;
  const uint64_t share = uint64_t{overprovisioning} * eligible * kOne / (uint64_t{total} * kWhole);
  return weight * std::min(kOne, share);
}

}  // namespace millrace::route::balancer
