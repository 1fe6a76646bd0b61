// /stats, /stats/prometheus, /reset_counters.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <vector>

#include "control/admin/json.h"
#include "control/admin/prometheus.h"
#include "control/admin/query.h"
#include "control/xds_report.h"

namespace millrace::control::admin {

using stats::RegionView;

namespace {

enum class Buckets : uint8_t { kSummary, kCumulative, kDisjoint, kDetailed };

std::optional<Buckets> buckets_of(const Request& r) {
  const std::string mode = value_of(r, "histogram_buckets");
  if (mode.empty() || mode == "summary") return Buckets::kSummary;
  if (mode == "cumulative") return Buckets::kCumulative;
  if (mode == "disjoint") return Buckets::kDisjoint;
  if (mode == "detailed") return Buckets::kDetailed;
  return std::nullopt;
}

// Milliseconds with three digits behind the point.
std::string milliseconds(uint64_t ns) {
  char buf[40];
  const double ms = std::round(static_cast<double>(ns) / 1e3) / 1e3;
  return {buf, std::to_chars(buf, buf + sizeof buf, ms).ptr};
}
std::string shortest(double n) {
  char buf[24];
  return {buf, std::to_chars(buf, buf + sizeof buf, n).ptr};
}

constexpr struct {
  const char* name;
  double percent;
} kQuantiles[] = {{"P0", 0},   {"P25", 25}, {"P50", 50},     {"P75", 75},     {"P90", 90},
                  {"P95", 95}, {"P99", 99}, {"P99.5", 99.5}, {"P99.9", 99.9}, {"P100", 100}};

struct Stat {
  std::string name;
  uint64_t value;
};
using Times = std::vector<std::pair<std::string, stats::HistogramSnapshot>>;

// The buckets of Prometheus's text: how many values each holds, those of lower ones in it or not.
struct Bucket {
  double upper_ms;
  uint64_t count;
};
std::vector<Bucket> buckets(const stats::HistogramSnapshot& h, bool cumulative) {
  std::vector<Bucket> out;
  uint64_t before = 0;
  for (const double ms : histogram_bounds_ms()) {
    const uint64_t n = h.count_at_or_below(static_cast<uint64_t>(ms * 1e6));
    out.push_back({ms, cumulative ? n : n - before});
    before = n;
  }
  return out;
}

// ---- text. What Envoy counts of the last interval (in front of the comma) is not kept here: nan, as Envoy has it without one.
std::string quantiles_text(const stats::HistogramSnapshot& h) {
  if (h.count() == 0) return " No recorded values";
  std::string out;
  for (const auto& q : kQuantiles) out += std::string(" ") + q.name + "(nan," + milliseconds(h.percentile(q.percent)) + ")";
  return out;
}

std::string histogram_text(const std::string& name, const stats::HistogramSnapshot& h, Buckets mode) {
  std::string out = name + ":";
  if (mode == Buckets::kSummary) return out + quantiles_text(h) + "\n";
  if (mode != Buckets::kDetailed) {
    for (const Bucket& b : buckets(h, mode == Buckets::kCumulative))
      out += " B" + shortest(b.upper_ms) + "(nan," + std::to_string(b.count) + ")";
    return out + "\n";
  }
  out += "\n  totals=";
  bool first = true;
  for (uint32_t i = 0; i < stats::kHistogramBuckets; ++i) {
    if (h.bucket(i) == 0) continue;
    const uint64_t begin = stats::histogram_bucket_begin(i);
    out += (first ? "" : ", ") + shortest(static_cast<double>(begin) / 1e6) + "," +
           shortest(static_cast<double>(stats::histogram_bucket_end(i) - begin) / 1e6) + ":" + std::to_string(h.bucket(i));
    first = false;
  }
  return out + "\n  intervals=\n  summary=" + quantiles_text(h).substr(1) + "\n";
}

// ---- JSON
TextValue plain(std::string text) { return TextValue{TextValue::Kind::kScalar, std::move(text), false, {}}; }

TextValue quantile_values(const stats::HistogramSnapshot& h) {
  TextValue values = list();
  for (const auto& q : kQuantiles)
    append(values, map({{"interval", plain("null")},
                        {"cumulative", plain(h.count() == 0 ? "null" : milliseconds(h.percentile(q.percent)))}}));
  return values;
}

TextValue histograms_json(const Times& histograms, Buckets mode) {
  if (mode == Buckets::kCumulative || mode == Buckets::kDisjoint) {
    TextValue all = list();
    for (const auto& [name, h] : histograms) {
      TextValue values = list();
      for (const Bucket& b : buckets(h, mode == Buckets::kCumulative))
        append(values,
               map({{"upper_bound", plain(shortest(b.upper_ms))}, {"interval", plain("null")}, {"cumulative", number(b.count)}}));
      append(all, map({{"name", text(name)}, {"buckets", values}}));
    }
    return all;
  }
  TextValue percents = list(), all = list();
  for (const auto& q : kQuantiles) append(percents, plain(shortest(q.percent)));
  for (const auto& [name, h] : histograms) {
    if (mode == Buckets::kSummary) {
      append(all, map({{"name", text(name)}, {"values", quantile_values(h)}}));
      continue;
    }
    TextValue totals = list();
    for (uint32_t i = 0; i < stats::kHistogramBuckets; ++i) {
      if (h.bucket(i) == 0) continue;
      const uint64_t begin = stats::histogram_bucket_begin(i);
      append(totals, map({{"lower_bound", plain(shortest(static_cast<double>(begin) / 1e6))},
                          {"width", plain(shortest(static_cast<double>(stats::histogram_bucket_end(i) - begin) / 1e6))},
                          {"count", number(h.bucket(i))}}));
    }
    append(all, map({{"name", text(name)}, {"totals", totals}, {"intervals", list()}, {"percentiles", quantile_values(h)}}));
  }
  if (mode == Buckets::kSummary) return map({{"supported_quantiles", percents}, {"computed_quantiles", all}});
  return map({{"supported_percentiles", percents}, {"details", all}});
}

}  // namespace

std::shared_ptr<const Baseline> Pages::baseline(const RegionView& view) const {
  const std::lock_guard lock(baseline_mutex_);
  return baseline_ != nullptr && baseline_->incarnation() == view.header().incarnation ? baseline_ : nullptr;
}

// As in Envoy, histograms go on; unlike it, so do statistics sinks and millctl, which read what the data plane counts.
Reply Pages::reset_counters() const {
  const auto model = s_.resolved(), accepted = s_.model();
  const std::optional<XdsStatus> xds = s_.discovery ? s_.discovery() : std::nullopt;
  std::shared_ptr<Baseline> taken;
  const bool there = s_.with_stats([&](const RegionView& view) {
    taken = std::make_shared<Baseline>(view.header().incarnation);
    const auto add = [&](const MetricGroup& g, std::span<const MetricValue> values) { taken->add(g, values); };
    visit_metrics(view, *model, add);
    visit_workers(view, add);
    if (xds) visit_discovery(*xds, *accepted, add);
  });
  if (!there) return {503, kPlain, "no data plane is connected: there is nothing to reset\n"};
  const std::lock_guard lock(baseline_mutex_);
  baseline_ = std::move(taken);
  return {200, kPlain, "OK\n"};
}

Reply Pages::stats(const Request& r) const {
  const std::string format = value_of(r, "format");
  if (format == "prometheus") return prometheus(r);
  if (!format.empty() && format != "json" && format != "text")
    return bad_request("usage: /stats?format=(json|prometheus|text)\n");
  const std::string type = value_of(r, "type");
  if (!type.empty() && type != "Counters" && type != "Gauges" && type != "Histograms" && type != "TextReadouts" && type != "All")
    return bad_request("invalid &type= param: All, Counters, Gauges, Histograms or TextReadouts");
  const std::optional<Buckets> mode = buckets_of(r);
  if (!mode) return bad_request("usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n");
  const Filter filter = filter_of(r, "filter");
  if (!filter.error.empty()) return bad_request(filter.error);
  const bool used = has(r, "usedonly"), as_json = format == "json";
  const auto wanted = [&](const char* t) { return type.empty() || type == "All" || type == t; };
  const bool counters = wanted("Counters"), gauges = wanted("Gauges");

  std::vector<Stat> all;
  Times histograms;
  const auto model = s_.resolved();
  std::shared_ptr<const Baseline> since;
  const MetricVisit add = [&](const MetricGroup& g, std::span<const MetricValue> from_start) {
    std::vector<MetricValue> rest;
    if (since != nullptr) rest = since->rest(g, from_start);
    for (const MetricValue& v : since != nullptr ? std::span<const MetricValue>(rest) : from_start) {
      if ((used && v.value == 0) || !(v.gauge ? gauges : counters)) continue;
      std::string name = g.prefix + std::string(v.name);
      if (filter.passes(name)) all.push_back({std::move(name), v.value});
    }
  };
  const bool there = s_.with_stats([&](const RegionView& view) {
    since = baseline(view);
    visit_metrics(view, *model, add);
    if (wanted("Histograms"))
      visit_histograms(view, [&](std::string_view name, const char*, const stats::HistogramSnapshot& h) {
        if ((!used || h.count() != 0) && filter.passes(name)) histograms.emplace_back(std::string(name), h);
      });
  });
  if (!there && gauges && filter.passes("server.live")) all.push_back({"server.live", 0});
  std::vector<std::pair<std::string, std::string>> texts;
  if (const std::optional<XdsStatus> xds = s_.discovery ? s_.discovery() : std::nullopt) {
    const auto accepted = s_.model();
    visit_discovery(*xds, *accepted, add);
    if (wanted("TextReadouts")) texts = discovery_texts(*xds, *accepted);
    std::erase_if(texts, [&](const auto& t) { return (used && t.second.empty()) || !filter.passes(t.first); });
    std::sort(texts.begin(), texts.end());
  }
  std::sort(all.begin(), all.end(), [](const Stat& a, const Stat& b) { return a.name < b.name; });
  std::sort(histograms.begin(), histograms.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  if (as_json) {
    TextValue stats = list();
    for (const auto& [name, value] : texts) append(stats, map({{"name", text(name)}, {"value", text(value)}}));
    for (const Stat& s : all) append(stats, map({{"name", text(s.name)}, {"value", number(s.value)}}));
    if (!histograms.empty()) append(stats, map({{"histograms", histograms_json(histograms, *mode)}}));
    return {200, "application/json", to_json(map({{"stats", stats}}), true) + "\n"};
  }
  Reply out;
  for (const auto& [name, value] : texts) out.body += name + ": \"" + value + "\"\n";
  for (const Stat& s : all) out.body += s.name + ": " + std::to_string(s.value) + "\n";
  for (const auto& [name, h] : histograms) out.body += histogram_text(name, h, *mode);
  return out;
}

Reply Pages::prometheus(const Request& r) const {
  const Filter filter = filter_of(r, "filter");
  if (!filter.error.empty()) return bad_request(filter.error);
  const std::string mode = value_of(r, "histogram_buckets");
  if (!mode.empty() && mode != "cumulative" && mode != "summary")
    return bad_request("unsupported prometheus histogram bucket mode");
  PrometheusOptions options;
  options.used_only = has(r, "usedonly");
  options.endpoints = has(r, "endpoints");
  options.summaries = mode == "summary";
  if (filter.regex != nullptr) options.wanted = [&](std::string_view name) { return filter.passes(name); };
  const std::optional<XdsStatus> xds = s_.discovery ? s_.discovery() : std::nullopt;
  const auto accepted = s_.model();
  if (xds) options.also = [&](const PrometheusOptions::Visit& visit) { visit_discovery(*xds, *accepted, visit); };
  Reply out{200, "text/plain; version=0.0.4; charset=utf-8", ""};
  const auto model = s_.resolved();
  std::shared_ptr<const Baseline> since;
  if (!s_.with_stats([&](const RegionView& view) {
        since = baseline(view);
        options.since = since.get();
        out.body = prometheus_text(view, *model, options);
      }))
    out.body =
        "# HELP envoy_server_live 1 while the data plane is connected to control\n# TYPE envoy_server_live gauge\n"
        "envoy_server_live 0\n" +
        prometheus_text_of_control(options);
  return out;
}

}  // namespace millrace::control::admin
