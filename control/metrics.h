// The statistics region as metrics with Envoy's names: what sinks and exporters walk. A metric's name is a group's prefix, a dot
// and the counter's name of lib/stats/counters.def.
//
//   listener.0.0.0.0_443.   http.STAT_PREFIX.   vhost.NAME.   cluster.NAME.     Envoy's own
//   cluster.NAME.endpoint.10.0.0.1_80.                                          one endpoint
//   server.                                                                     live, uptime, concurrency, total_connections
//   millrace.tcp.  millrace.tls.  millrace.http.  millrace.worker.  millrace.loader.  millrace.port.NAME.
//   millrace.drops.REASON   millrace.response_flags.FLAG                         what only Millrace has; sums over the workers
//
// Where a name holds the name of an object, the group has it as a tag too, under Envoy's name for it ("envoy.cluster_name"), and
// `plain` is the prefix without it ("cluster."): what DogStatsD and Prometheus want.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/metric_name.h"
#include "control/model.h"
#include "lib/stats/region.h"

namespace millrace::control {

struct MetricGroup {
  std::string prefix;  // "cluster.api."
  std::string plain;   // "cluster."
  std::vector<std::pair<std::string, std::string>> tags;
  bool endpoint = false;  // of one endpoint: Envoy sends those only where it is asked to
  uint64_t life = 0;      // another one: another slot, or its counters began anew
};
struct MetricValue {
  std::string_view name;  // behind the prefix; valid during the call
  const char* text;       // one sentence, no full stop
  bool gauge;             // otherwise it only grows, from the data plane's start
  uint64_t value;
};
// Sums over all workers, once a group. Any thread, off the poll cores; `model` gives listeners their addresses.
void visit_metrics(const stats::RegionView& view, const Model& model,
                   const std::function<void(const MetricGroup&, std::span<const MetricValue>)>& visit);
// "millrace.downstream_rq_time" and so on, in nanoseconds, since the data plane's start.
void visit_histograms(const stats::RegionView& view,
                      const std::function<void(std::string_view name, const char* text, const stats::HistogramSnapshot&)>& visit);

}  // namespace millrace::control
