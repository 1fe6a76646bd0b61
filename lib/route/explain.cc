#include "lib/route/explain.h"

#include <map>

#include "lib/route/matcher_impl.h"

namespace millrace::route {

namespace {

struct RecordingTrace {
  static constexpr bool kRecords = true;
  std::map<uint32_t, Verdict> tried_routes;
  void tried(uint32_t rank, const Verdict& v) { tried_routes[rank] = v; }
};

std::string quoted(std::string_view s) { return "\"" + std::string(s) + "\""; }

// "header x-tenant (exact "a")", "query parameter v (present)"
std::string describe(const table::VirtualHost& host, const table::ValueMatch& m, const char* what) {
  std::string text = std::string(what) + " " + std::string(view(&host, m.name)) + " (";
  if (m.invert != 0) text += "not ";
  const std::string value = quoted(view(&host, m.value));
  switch (m.kind) {
    case table::StringMatchKind::kExact:
      text += "exact " + value;
      break;
    case table::StringMatchKind::kPrefix:
      text += "prefix " + value;
      break;
    case table::StringMatchKind::kSuffix:
      text += "suffix " + value;
      break;
    case table::StringMatchKind::kContains:
      text += "contains " + value;
      break;
    case table::StringMatchKind::kRegex:
      text += "regex " + value;
      break;
    case table::StringMatchKind::kPresent:
      text += "present";
      break;
    case table::StringMatchKind::kRange:
      text += "range [" + std::to_string(m.range_start) + ", " + std::to_string(m.range_end) + ")";
      break;
  }
  if (m.ignore_case != 0) text += ", any case";
  if (m.treat_missing_as_empty != 0) text += ", missing counts as empty";
  return text + ")";
}

std::string sent_value(const table::ValueMatch& m, std::string_view name, const http::RequestHead& head) {
  switch (m.header) {
    case table::kPseudoMethod:
      return "is " + quoted(head.method);
    case table::kPseudoPath:
      return "is " + quoted(head.path);
    case table::kPseudoAuthority:
      return "is " + quoted(head.authority);
    case table::kPseudoScheme:
      return "is " + quoted(head.scheme);
    default:
      break;
  }
  std::string values;
  bool there = false;
  for (const http::Header& h : head.headers) {
    if (h.name != name) continue;
    values += (there ? "," : "") + std::string(h.value);
    there = true;
  }
  return there ? "is " + quoted(values) : "is missing";
}

std::string path_text(const table::VirtualHost& host, const table::Route& route) {
  const std::string literal = quoted(view(&host, route.path));
  const std::string fold = route.case_sensitive != 0 ? "" : ", any case";
  switch (route.path_kind) {
    case table::PathKind::kPrefix:
      return "prefix " + literal + fold;
    case table::PathKind::kExact:
      return "path " + literal + fold;
    case table::PathKind::kSeparatedPrefix:
      return "path_separated_prefix " + literal + fold;
    case table::PathKind::kConnect:
      return "connect_matcher";
    case table::PathKind::kRegex:
      return "safe_regex " + quoted(view(&host, host.regexes.at(&host, route.path_regex).expression));
  }
  return literal;
}

std::string reason(const table::VirtualHost& host, const table::Route& route, const http::RequestHead& head,
                   const MatchContext& context, const Verdict& v) {
  switch (v.refusal) {
    case Refusal::kNone:
      return path_text(host, route) + " matches" +
             (route.headers.count + route.query.count != 0 ? ", and all conditions hold" : "");
    case Refusal::kFraction:
      return "runtime_fraction " + std::to_string(route.fraction_numerator) + "/" + std::to_string(route.fraction_denominator) +
             ": the random number " + std::to_string(context.random_value) + " leaves it out";
    case Refusal::kCertificate:
      return "tls_context asks for another state of the client's certificate";
    case Refusal::kGrpc:
      return "not a gRPC request (content-type)";
    case Refusal::kHeader: {
      const table::ValueMatch& m = route.headers.at(&host, v.which);
      return describe(host, m, "header") + " does not hold: it " + sent_value(m, view(&host, m.name), head);
    }
    case Refusal::kQuery: {
      const table::ValueMatch& m = route.query.at(&host, v.which);
      std::string_view value;
      const bool there = first_query_value(head.path, view(&host, m.name), &value);
      return describe(host, m, "query parameter") + " does not hold: it is " + (there ? quoted(value) : "missing");
    }
    case Refusal::kPatternFailed:
      return "the regex engine failed";
    case Refusal::kTooLong:
      return "the joined header values are too long";
  }
  return "";
}

}  // namespace

RouteExplanation explain_route(const VirtualHostRuntime& runtime, const http::RequestHead& head, const MatchContext& context,
                               uint32_t limit) {
  RouteExplanation out;
  RecordingTrace trace;
  out.result = Match<RecordingTrace>(runtime, head, context, trace).run();
  if (out.result.outcome == MatchOutcome::kTlsRequired) return out;
  const table::VirtualHost& host = *runtime.object;
  const uint32_t winner = out.result.outcome == MatchOutcome::kRoute ? out.result.route : host.routes.count;
  const uint32_t first = winner > limit ? winner - limit : 0;
  out.left_out = first;
  for (uint32_t rank = first; rank < winner; ++rank) {
    const auto it = trace.tried_routes.find(rank);
    const table::Route& route = host.routes.at(&host, rank);
    const std::string why = it == trace.tried_routes.end()
                                ? path_text(host, route) + " does not match " + quoted(http::path_only(head.path))
                                : reason(host, route, head, context, it->second);
    out.considered.push_back({rank, false, why});
  }
  if (winner < host.routes.count) {
    out.considered.push_back(
        {winner, true, reason(host, host.routes.at(&host, winner), head, context, trace.tried_routes[winner])});
  }
  return out;
}

}  // namespace millrace::route
