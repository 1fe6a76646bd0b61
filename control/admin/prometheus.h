// The statistics in Prometheus's text format (version 0.0.4), under Envoy's names and labels:
//
//   cluster.api.upstream_rq_total   envoy_cluster_upstream_rq_total{envoy_cluster_name="api"}
//   cluster.api.upstream_rq_2xx     envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="api"}
//   millrace.tcp.connections_...    millrace_tcp_connections_...          what only Millrace has keeps its own name
//
// Of each worker, with the label millrace_worker: millrace_worker_* (the loop), millrace_stage_* (where its cycles go, while
// accounting is on). Times are histograms in milliseconds, as Envoy's, with finer buckets below one.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "control/admin/baseline.h"
#include "control/metrics.h"
#include "control/model.h"
#include "lib/stats/region.h"

namespace millrace::control::admin {

struct PrometheusOptions {
  bool used_only = false;                               // leaves out what was never anything but 0 (?usedonly)
  bool endpoints = false;                               // endpoints too: as many lines as all clusters', times theirs
  std::function<bool(std::string_view metric)> wanted;  // null: all; told the name without labels (?filter=)
  using Visit = std::function<void(const MetricGroup&, std::span<const MetricValue>)>;
  std::function<void(const Visit&)> also;  // null: none; what control itself counts
  const Baseline* since = nullptr;         // null: counters from the data plane's start
  bool summaries = false;                  // quantiles instead of buckets (?histogram_buckets=summary)
};
// One text: each metric's lines together, as the format asks, in order of name.
std::string prometheus_text(const stats::RegionView& view, const Model& model, const PrometheusOptions& options);

// What stands in that text of each worker alone: "millrace.worker." and "millrace.stage.".
void visit_workers(const stats::RegionView& view, const PrometheusOptions::Visit& visit);

// What control itself counts, alone: there is no data plane.
std::string prometheus_text_of_control(const PrometheusOptions& options);

// Upper bounds of a histogram's buckets.
std::span<const double> histogram_bounds_ms();

// A name as Prometheus takes it: [a-zA-Z_:][a-zA-Z0-9_:]*, others become '_'.
std::string prometheus_name(std::string_view name);
// A label's value with '\\', '"' and newline escaped.
std::string prometheus_label(std::string_view value);

}  // namespace millrace::control::admin
