#include "control/access_log_filter.h"

#include <vector>

#include "control/route_spec.h"
#include "lib/stats/response_flag.h"

namespace millrace::control {

namespace {

namespace log = envoy::config::accesslog::v3;
using table::LogFilter;
using table::LogFilterKind;

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

void set_comparison(const log::ComparisonFilter& c, LogFilter* out) {
  out->op = c.op() == log::ComparisonFilter::GE   ? table::LogFilterOp::kAtLeast
            : c.op() == log::ComparisonFilter::LE ? table::LogFilterOp::kAtMost
                                                  : table::LogFilterOp::kEqual;
  out->value = c.value().default_value();
}

table::ValueMatch header(const envoy::config::route::v3::HeaderMatcher& m, table::ObjectWriter& w) {
  const route::MatcherSpec spec = header_matcher_spec(m);
  table::ValueMatch out{};
  out.name = w.string(lower(spec.name));
  out.value = w.string(spec.ignore_case ? lower(spec.value) : spec.value);
  out.range_start = spec.range_start;
  out.range_end = spec.range_end;
  out.kind = spec.kind;
  out.invert = spec.invert;
  out.ignore_case = spec.ignore_case;
  out.treat_missing_as_empty = spec.treat_missing_as_empty;
  return out;
}

void add(const log::AccessLogFilter& f, table::ObjectWriter& w, std::vector<LogFilter>& out) {
  const size_t at = out.size();
  out.emplace_back();
  const auto below = [&](LogFilterKind kind, const auto& filters) {
    out[at].kind = kind;
    for (const auto& child : filters) add(child, w, out);
    out[at].nodes = static_cast<uint32_t>(out.size() - at);
  };
  LogFilter& n = out[at];  // until children are added
  switch (f.filter_specifier_case()) {
    case log::AccessLogFilter::kStatusCodeFilter:
      n.kind = LogFilterKind::kStatus;
      return set_comparison(f.status_code_filter().comparison(), &n);
    case log::AccessLogFilter::kDurationFilter:
      n.kind = LogFilterKind::kDuration;
      return set_comparison(f.duration_filter().comparison(), &n);
    case log::AccessLogFilter::kTraceableFilter:
      n.kind = LogFilterKind::kTraceable;
      return;
    case log::AccessLogFilter::kRuntimeFilter: {
      const auto& r = f.runtime_filter();
      using Percent = envoy::type::v3::FractionalPercent;
      n.kind = LogFilterKind::kRuntime;
      n.value = r.percent_sampled().numerator();
      n.denominator = r.percent_sampled().denominator() == Percent::MILLION        ? 1'000'000
                      : r.percent_sampled().denominator() == Percent::TEN_THOUSAND ? 10'000
                                                                                   : 100;
      n.independent = r.use_independent_randomness();
      return;
    }
    case log::AccessLogFilter::kAndFilter:
      return below(LogFilterKind::kAnd, f.and_filter().filters());
    case log::AccessLogFilter::kOrFilter:
      return below(LogFilterKind::kOr, f.or_filter().filters());
    case log::AccessLogFilter::kHeaderFilter:
      n.kind = LogFilterKind::kHeader;
      n.header = header(f.header_filter().header(), w);
      return;
    case log::AccessLogFilter::kResponseFlagFilter:
      n.kind = LogFilterKind::kResponseFlag;
      for (const std::string& flag : f.response_flag_filter().flags()) n.value |= response_flag_bit(flag);
      return;
    case log::AccessLogFilter::kGrpcStatusFilter:
      n.kind = LogFilterKind::kGrpcStatus;
      for (const int status : f.grpc_status_filter().statuses()) n.value |= uint64_t{1} << status;
      n.exclude = f.grpc_status_filter().exclude();
      return;
    case log::AccessLogFilter::kLogTypeFilter:
      n.kind = LogFilterKind::kLogType;
      for (const int type : f.log_type_filter().types()) n.value |= uint64_t{1} << type;
      n.exclude = f.log_type_filter().exclude();
      return;
    case log::AccessLogFilter::kNotHealthCheckFilter:
    case log::AccessLogFilter::FILTER_SPECIFIER_NOT_SET:
      n.kind = LogFilterKind::kNotHealthCheck;
      return;
  }
}

}  // namespace

uint64_t response_flag_bit(std::string_view short_name) {
  const auto flag = stats::response_flag_of(short_name);
  return flag ? uint64_t{1} << static_cast<uint32_t>(*flag) : 0;
}

size_t filter_nodes(const log::AccessLogFilter& f) {
  size_t n = 1;
  for (const auto& child : f.and_filter().filters()) n += filter_nodes(child);
  for (const auto& child : f.or_filter().filters()) n += filter_nodes(child);
  return n;
}

table::Array<LogFilter> compile_filter(const log::AccessLogFilter& filter, table::ObjectWriter& w) {
  std::vector<LogFilter> nodes;
  add(filter, w, nodes);
  return w.array(nodes);
}

}  // namespace millrace::control
