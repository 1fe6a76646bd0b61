// Filters of access logs, and what local_reply_config makes of the gateway's own answers.
#include "control/access_log_filter.h"
#include "control/validate_rules.h"
#include "lib/base/ip_address.h"
#include "lib/table/objects.h"

namespace millrace::control::rules {

namespace log = envoy::config::accesslog::v3;
namespace hcm = envoy::extensions::filters::network::http_connection_manager::v3;

namespace {

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool comparison(bool has, const log::ComparisonFilter& c, const Path& at, ErrorSink& e) {
  const Path here(at, "comparison");
  if (!has) return complain(here, e, "is required");
  return c.has_value() || complain(Path(here, "value"), e, "is required");
}

template <class Filters>
bool children(const Filters& filters, const Path& at, ErrorSink& e, int depth);

bool filter(const log::AccessLogFilter& f, const Path& at, ErrorSink& e, int depth) {
  constexpr int kMostDepth = 8;
  if (depth > kMostDepth) return complain(at, e, "is nested deeper than " + std::to_string(kMostDepth) + " levels");
  switch (f.filter_specifier_case()) {
    case log::AccessLogFilter::kStatusCodeFilter:
      return comparison(f.status_code_filter().has_comparison(), f.status_code_filter().comparison(),
                        Path(at, "status_code_filter"), e);
    case log::AccessLogFilter::kDurationFilter:
      return comparison(f.duration_filter().has_comparison(), f.duration_filter().comparison(), Path(at, "duration_filter"), e);
    case log::AccessLogFilter::kNotHealthCheckFilter:
    case log::AccessLogFilter::kTraceableFilter:
    case log::AccessLogFilter::kGrpcStatusFilter:
    case log::AccessLogFilter::kLogTypeFilter:
      return true;
    case log::AccessLogFilter::kRuntimeFilter:
      return not_empty(f.runtime_filter().runtime_key(), Path(Path(at, "runtime_filter"), "runtime_key"), e);
    case log::AccessLogFilter::kAndFilter:
      return children(f.and_filter().filters(), Path(at, "and_filter"), e, depth);
    case log::AccessLogFilter::kOrFilter:
      return children(f.or_filter().filters(), Path(at, "or_filter"), e, depth);
    case log::AccessLogFilter::kHeaderFilter: {
      const Path here(at, "header_filter"), header(here, "header");
      if (!f.header_filter().has_header()) return complain(header, e, "is required");
      const auto& m = f.header_filter().header();
      if (m.has_safe_regex_match() || m.string_match().has_safe_regex())
        return complain(header, e, "regular expressions are not supported in filters by Millrace yet");
      return header_matcher(m, header, e);
    }
    case log::AccessLogFilter::kResponseFlagFilter: {
      bool ok = true;
      const Path here(at, "response_flag_filter");
      for (int i = 0; i < f.response_flag_filter().flags_size(); ++i)
        if (response_flag_bit(f.response_flag_filter().flags(i)) == 0)
          ok = complain(Path(here, "flags", i), e,
                        "\"" + f.response_flag_filter().flags(i) + "\" is no response flag that Millrace sets");
      return ok;
    }
    case log::AccessLogFilter::FILTER_SPECIFIER_NOT_SET:
      break;
  }
  return complain(at, e, "needs one of the filters");
}

template <class Filters>
bool children(const Filters& filters, const Path& at, ErrorSink& e, int depth) {
  if (filters.size() < 2) return complain(Path(at, "filters"), e, "must have at least two elements");
  bool ok = true;
  for (int i = 0; i < filters.size(); ++i) ok = filter(filters[i], Path(at, "filters", i), e, depth + 1) && ok;
  return ok;
}

}  // namespace

bool access_log_filter(const log::AccessLogFilter& f, const Path& at, ErrorSink& e) {
  if (!filter(f, at, e, 0)) return false;
  const size_t nodes = filter_nodes(f);
  return nodes <= table::kMaxLogFilterNodes ||
         complain(at, e, "holds " + std::to_string(nodes) + " filters, the most is " + std::to_string(table::kMaxLogFilterNodes));
}

bool cidr_range(const core::CidrRange& r, const Path& at, ErrorSink& e) {
  const auto address = base::IpAddress::parse(r.address_prefix());
  if (!address) return complain(Path(at, "address_prefix"), e, "\"" + r.address_prefix() + "\" is no IP address");
  const uint32_t most = address->is_v4() ? 32 : 128;
  return r.prefix_len().value() <= most ||
         complain(Path(at, "prefix_len"), e, "must be at most " + std::to_string(most) + " for " + r.address_prefix());
}

bool local_reply_config(const hcm::LocalReplyConfig& c, const Path& at, ErrorSink& e) {
  constexpr uint32_t kLeastStatus = 200, kMostStatus = 599;  // validate.rules
  bool ok = true;
  if (c.has_body_format()) ok = substitution_format(c.body_format(), Path(at, "body_format"), e, table::FormatWhere::kAnywhere);
  for (int i = 0; i < c.mappers_size(); ++i) {
    const hcm::ResponseMapper& m = c.mappers(i);
    const Path here(at, "mappers", i), filter_at(here, "filter");
    if (!m.has_filter()) ok = complain(filter_at, e, "is required");
    else ok = access_log_filter(m.filter(), filter_at, e) && ok;
    if (m.has_status_code() && (m.status_code().value() < kLeastStatus || m.status_code().value() > kMostStatus))
      ok = complain(Path(here, "status_code"), e, "must be from 200 to 599");
    if (m.has_body()) ok = data_source(m.body(), Path(here, "body"), e) && ok;
    if (m.has_body_format_override())
      ok = substitution_format(m.body_format_override(), Path(here, "body_format_override"), e, table::FormatWhere::kAnywhere) &&
           ok;
    ok = header_options(m.headers_to_add(), "headers_to_add", here, e) && ok;
  }
  return ok;
}

}  // namespace millrace::control::rules
