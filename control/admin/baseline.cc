#include "control/admin/baseline.h"

namespace millrace::control::admin {

namespace {

// One object's counters in one of its lives. A name may come back with counters that began anew, and a cluster has two groups.
std::string key_of(const MetricGroup& g) {
  std::string key = g.plain + std::to_string(g.life);
  for (const auto& [name, value] : g.tags) (key += '\0') += value;
  return key;
}

}  // namespace

void Baseline::add(const MetricGroup& group, std::span<const MetricValue> values) {
  std::vector<uint64_t>& then = then_[key_of(group)];
  then.clear();
  then.reserve(values.size());
  for (const MetricValue& v : values) then.push_back(v.gauge ? 0 : v.value);
}

std::vector<MetricValue> Baseline::rest(const MetricGroup& group, std::span<const MetricValue> values) const {
  std::vector<MetricValue> out(values.begin(), values.end());
  const auto found = then_.find(key_of(group));
  if (found == then_.end() || found->second.size() != out.size()) return out;
  for (size_t i = 0; i < out.size(); ++i)
    if (!out[i].gauge && out[i].value >= found->second[i]) out[i].value -= found->second[i];
  return out;
}

}  // namespace millrace::control::admin
