#include "control/admin/prometheus.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <unordered_map>
#include <vector>

#include "control/metrics.h"

namespace millrace::control::admin {

using stats::RegionView;

namespace {

// Upper bounds in milliseconds: Envoy's defaults, and ours below them.
constexpr double kBounds[] = {0.01, 0.025, 0.05,  0.1,   0.25,  0.5,    1,      5,      10,      25,      50,        100,
                              250,  500,   1'000, 2'500, 5'000, 10'000, 30'000, 60'000, 300'000, 600'000, 1'800'000, 3'600'000};
constexpr double kNanosecondsPerMs = 1e6;
constexpr double kQuantiles[] = {0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1};  // of a summary, as Envoy's

void append_number(std::string& out, uint64_t n) {
  char buf[24];
  out.append(buf, std::to_chars(buf, buf + sizeof buf, n).ptr);
}
void append_number(std::string& out, double n) {
  char buf[40];
  out.append(buf, std::to_chars(buf, buf + sizeof buf, n).ptr);
}

struct Family {
  const char* text;
  const char* type;  // "counter", "gauge", "histogram", "summary"
  std::string lines;
};

// "downstream_rq_2xx" is the class 2 of "downstream_rq_xx"; 0: no class.
char response_class(std::string_view name) {
  const bool is = name.size() > 7 && name.ends_with("xx") && name.substr(name.size() - 7, 4) == "_rq_";
  const char c = is ? name[name.size() - 3] : '0';
  return c >= '1' && c <= '5' ? c : '\0';
}

class Text {
 public:
  explicit Text(const PrometheusOptions& options) : options_(options) {}

  // The family of a metric, or null when it is not wanted.
  Family* family(const std::string& plain, std::string_view name, const char* text, const char* type) {
    std::string key = plain;
    key += name;
    if (const auto found = by_metric_.find(key); found != by_metric_.end()) return found->second;
    const bool ours = key.starts_with("millrace.");
    std::string full(name);
    if (const char c = response_class(name); c != '\0') {
      full.erase(full.size() - 3, 1);
      text = "responses by the class of their status";
    }
    full = prometheus_name((ours ? "" : "envoy_") + plain + full);
    Family* f = nullptr;
    if (!options_.wanted || options_.wanted(full)) {
      f = &families_[full];
      f->text = text;
      f->type = type;
      names_.emplace(f, full);
    }
    by_metric_.emplace(std::move(key), f);
    return f;
  }
  void line(Family* f, std::string_view suffix, std::string_view labels, auto value) {
    std::string& out = f->lines;
    out += names_.at(f);
    out += suffix;
    if (!labels.empty()) {
      out += '{';
      out += labels;
      out += '}';
    }
    out += ' ';
    append_number(out, value);
    out += '\n';
  }
  void group(const MetricGroup& g, std::span<const MetricValue> all) {
    if (g.endpoint && !options_.endpoints) return;
    std::vector<MetricValue> since;
    if (options_.since != nullptr) since = options_.since->rest(g, all);
    const std::span<const MetricValue> values = options_.since != nullptr ? since : all;
    std::string labels;
    for (const auto& [name, value] : g.tags)
      labels += (labels.empty() ? "" : ",") + prometheus_name(name) + "=\"" + prometheus_label(value) + "\"";
    // Groups of one kind have the same values in the same order, but for a few.
    std::vector<std::pair<std::string_view, Family*>>& known = by_group_[g.plain];
    known.resize(std::max(known.size(), values.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      const MetricValue& v = values[i];
      if (options_.used_only && v.value == 0) continue;
      if (known[i].first != v.name) known[i] = {v.name, family(g.plain, v.name, v.text, v.gauge ? "gauge" : "counter")};
      Family* f = known[i].second;
      if (f == nullptr) continue;
      if (const char c = response_class(v.name); c != '\0')
        line(f, "", std::string("envoy_response_code_class=\"") + c + "\"" + (labels.empty() ? "" : ",") + labels, v.value);
      else line(f, "", labels, v.value);
    }
  }
  void histogram(std::string_view name, const char* text, const stats::HistogramSnapshot& h) {
    if (options_.used_only && h.count() == 0) return;
    Family* f = family("", name, text, options_.summaries ? "summary" : "histogram");
    if (f == nullptr) return;
    if (options_.summaries) {
      for (const double quantile : kQuantiles) {
        std::string label = "quantile=\"";
        append_number(label, quantile);
        const double ms = static_cast<double>(h.percentile(quantile * 100)) / kNanosecondsPerMs;
        line(f, "", label + "\"", h.count() == 0 ? std::numeric_limits<double>::quiet_NaN() : ms);
      }
      line(f, "_sum", "", static_cast<double>(h.sum()) / kNanosecondsPerMs);
      line(f, "_count", "", h.count());
      return;
    }
    for (const double bound : kBounds) {
      std::string label = "le=\"";
      append_number(label, bound);
      line(f, "_bucket", label + "\"", h.count_at_or_below(static_cast<uint64_t>(bound * kNanosecondsPerMs)));
    }
    line(f, "_bucket", "le=\"+Inf\"", h.count());
    line(f, "_sum", "", static_cast<double>(h.sum()) / kNanosecondsPerMs);
    line(f, "_count", "", h.count());
  }
  std::string whole() const {
    std::string out;
    size_t bytes = 0;
    for (const auto& [name, f] : families_) bytes += f.lines.size() + 2 * name.size() + 200;
    out.reserve(bytes);
    for (const auto& [name, f] : families_) {
      if (f.lines.empty()) continue;
      out += "# HELP " + name + " " + f.text + "\n# TYPE " + name + " " + f.type + "\n";
      out += f.lines;
    }
    return out;
  }

 private:
  const PrometheusOptions& options_;
  std::map<std::string, Family> families_;
  std::unordered_map<const Family*, std::string> names_;
  std::unordered_map<std::string, Family*> by_metric_;
  std::unordered_map<std::string, std::vector<std::pair<std::string_view, Family*>>> by_group_;
};

}  // namespace

void visit_workers(const RegionView& view, const PrometheusOptions::Visit& visit) {
  const auto loop = stats::infos<stats::LoopCounter>();
  const auto stages = stats::infos<stats::Stage>();
  std::vector<MetricValue> values;
  for (uint32_t w = 0; w < view.workers(); ++w) {
    const stats::WorkerBlock& block = view.worker(w);
    const std::string worker = std::to_string(w);
    values.clear();
    for (uint32_t i = 0; i < loop.size(); ++i)
      values.push_back({loop[i].name, loop[i].text, loop[i].type == stats::CounterType::kGauge,
                        block.loop[static_cast<stats::LoopCounter>(i)].read()});
    visit({"", "millrace.worker.", {{"millrace.worker", worker}}}, values);
    if (block.stages.turns.read() == 0) continue;
    for (uint32_t i = 0; i < stages.size(); ++i) {
      const MetricValue of_stage[] = {
          {"cycles", "TSC cycles of accounted turns by stage", false, block.stages.cycles[i].read()},
          {"entries", "times a stage was entered in accounted turns", false, block.stages.entries[i].read()}};
      visit({"", "millrace.stage.", {{"millrace.worker", worker}, {"millrace.stage", stages[i].name}}}, of_stage);
    }
  }
}

std::span<const double> histogram_bounds_ms() { return kBounds; }

std::string prometheus_name(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
    if (!good) c = '_';
  }
  if (!out.empty() && out[0] >= '0' && out[0] <= '9') out.insert(0, "_");
  return out;
}

std::string prometheus_label(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out;
}

std::string prometheus_text_of_control(const PrometheusOptions& options) {
  Text text(options);
  if (options.also) options.also([&](const MetricGroup& g, std::span<const MetricValue> values) { text.group(g, values); });
  return text.whole();
}

std::string prometheus_text(const RegionView& view, const Model& model, const PrometheusOptions& options) {
  Text text(options);
  visit_metrics(view, model, [&](const MetricGroup& g, std::span<const MetricValue> values) {
    if (g.plain != "millrace.worker.") text.group(g, values);  // by worker, below
  });
  if (options.also) options.also([&](const MetricGroup& g, std::span<const MetricValue> values) { text.group(g, values); });
  visit_workers(view, [&](const MetricGroup& g, std::span<const MetricValue> values) { text.group(g, values); });
  visit_histograms(view, [&](std::string_view name, const char* sentence, const stats::HistogramSnapshot& h) {
    text.histogram(name, sentence, h);
  });
  return text.whole();
}

}  // namespace millrace::control::admin
