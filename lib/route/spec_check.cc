#include "lib/route/spec_check.h"

#include <algorithm>
#include <map>

#include "lib/route/ascii.h"
#include "lib/route/matcher.h"

namespace millrace::route {

namespace {

using table::ActionKind;
using table::PathKind;
using table::StringMatchKind;

std::string number(uint64_t n) { return std::to_string(n); }
std::string lower_text(std::string_view s) {
  std::string out(s);
  lower_copy(out.data(), s);
  return out;
}

bool is_token(std::string_view s) {  // RFC 9110 5.6.2
  if (s.empty()) return false;
  for (const char c : s) {
    const bool ok = (lower(c) >= 'a' && lower(c) <= 'z') || (c >= '0' && c <= '9') ||
                    std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
    if (!ok) return false;
  }
  return true;
}

class Check {
 public:
  Check(const VirtualHostSpec& spec, TranslationCache& translations) : spec_(spec), translations_(translations) {}

  std::vector<SpecError> run() {
    if (spec_.name.empty()) error("name", "a virtual host needs a name");
    if (spec_.domains.empty()) error("domains", "a virtual host needs at least one domain");
    if (spec_.routes.size() > kMaxRoutesPerVirtualHost) {
      error("routes", number(spec_.routes.size()) + " routes; at most " + number(kMaxRoutesPerVirtualHost) +
                          " are supported in a virtual host");
      return std::move(errors_);
    }
    for (uint32_t i = 0; i < spec_.routes.size(); ++i) {
      route_ = i;
      route(spec_.routes[i]);
    }
    return std::move(errors_);
  }

 private:
  void error(std::string path, std::string message) { errors_.push_back({std::move(path), std::move(message), ""}); }
  void at_route(const std::string& field, std::string message) {
    errors_.push_back({"routes[" + number(route_) + "]." + field, std::move(message), route_label(route_, spec_.routes[route_])});
  }

  void route(const RouteSpec& r) {
    match(r);
    switch (r.action) {
      case ActionKind::kCluster:
        if (r.clusters.size() != 1 || r.clusters[0].name.empty()) at_route("route.cluster", "a cluster name is needed");
        break;
      case ActionKind::kWeightedClusters:
        weighted(r);
        break;
      case ActionKind::kRedirect: {
        const uint16_t s = r.redirect.status;
        if (s != 301 && s != 302 && s != 303 && s != 307 && s != 308) {
          at_route("redirect.response_code", number(s) + " is not a redirect status (301, 302, 303, 307, 308)");
        }
        if (!r.redirect.path.empty() && !r.redirect.prefix_rewrite.empty()) {
          at_route("redirect", "path_redirect and prefix_rewrite exclude each other");
        }
        break;
      }
      case ActionKind::kDirectResponse:
        if (r.direct_status < 200 || r.direct_status > 599)
          at_route("direct_response.status", number(r.direct_status) + " is not in 200..599");
        break;
    }
  }

  void weighted(const RouteSpec& r) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r.clusters.size(); ++i) {
      sum += r.clusters[i].weight;
      if (r.clusters[i].name.empty())
        at_route("route.weighted_clusters.clusters[" + number(i) + "].name", "a cluster name is needed");
    }
    if (sum == 0) at_route("route.weighted_clusters", "Sum of weights in the weighted_cluster must be greater than 0.");
    if (sum > UINT32_MAX)
      at_route("route.weighted_clusters", "the sum of the weights is " + number(sum) + "; it must be below 2^32");
  }

  void match(const RouteSpec& r) {
    if (r.path_kind == PathKind::kRegex) {
      if (r.path.empty()) {
        at_route("match.safe_regex.regex", "the expression is empty");
      } else if (const TranslatedRegex& t = translations_.get(r.path); !t.ok()) {
        at_route("match.safe_regex.regex", t.error);
      }
    } else if (r.path.size() > kMaxPathLiteralBytes) {
      at_route("match",
               "the path has " + number(r.path.size()) + " bytes; at most " + number(kMaxPathLiteralBytes) + " are supported");
    }
    if (r.path_kind == PathKind::kSeparatedPrefix &&
        (r.path.empty() || r.path.back() == '/' || r.path.find_first_of("?#") != std::string::npos)) {
      at_route("match.path_separated_prefix", "\"" + r.path + "\" must not be empty, end in \"/\" or contain \"?\" or \"#\"");
    }
    const uint32_t d = r.fraction_denominator;
    if (d != 1 && d != 100 && d != 10'000 && d != 1'000'000)
      at_route("match.runtime_fraction", "unknown denominator " + number(d));
    for (uint32_t i = 0; i < r.headers.size(); ++i) matcher(r.headers[i], false, i);
    for (uint32_t i = 0; i < r.query.size(); ++i) matcher(r.query[i], true, i);
    for (const CorsSpec& c : r.cors) origins(c);
  }

  void origins(const CorsSpec& c) {
    for (uint32_t i = 0; i < c.origins.size(); ++i) {
      if (c.origins[i].kind != StringMatchKind::kRegex) continue;
      const TranslatedRegex& t = translations_.get(c.origins[i].value);
      const std::string field = origin_field(route_, c, i);
      const auto said = [&](const SpecError& e) { return e.path == field; };  // of a virtual host's: by every route
      if (!t.ok() && std::none_of(errors_.begin(), errors_.end(), said))
        errors_.push_back({field, t.error, route_label(route_, spec_.routes[route_])});
    }
  }

  void matcher(const MatcherSpec& m, bool query, uint32_t index) {
    const std::string field = std::string(query ? "match.query_parameters[" : "match.headers[") + number(index) + "]";
    if (m.name.empty()) {
      at_route(field + ".name", "the name is empty");
    } else if (!query && !is_token(m.name[0] == ':' ? std::string_view(m.name).substr(1) : std::string_view(m.name))) {
      at_route(field + ".name", "\"" + m.name + "\" is not a header name");
    }
    if (query && m.kind == StringMatchKind::kRange) at_route(field, "query parameters have no range match");
    if (query && m.invert && m.kind != StringMatchKind::kPresent) at_route(field, "query parameters cannot be inverted");
    if (m.kind == StringMatchKind::kRegex) {
      if (m.value.empty()) {
        at_route(field + ".string_match.safe_regex.regex", "the expression is empty");
      } else if (const TranslatedRegex& t = translations_.get(m.value); !t.ok()) {
        at_route(field + ".string_match.safe_regex.regex", t.error);
      }
    }
  }

  const VirtualHostSpec& spec_;
  TranslationCache& translations_;
  std::vector<SpecError> errors_;
  uint32_t route_ = 0;
};

}  // namespace

std::string path_field(uint32_t route, const RouteSpec& spec) {
  const char* kind = spec.path_kind == PathKind::kRegex     ? "safe_regex.regex"
                     : spec.path_kind == PathKind::kExact   ? "path"
                     : spec.path_kind == PathKind::kPrefix  ? "prefix"
                     : spec.path_kind == PathKind::kConnect ? "connect_matcher"
                                                            : "path_separated_prefix";
  return "routes[" + number(route) + "].match." + kind;
}
std::string matcher_field(uint32_t route, bool query, uint32_t matcher) {
  return "routes[" + number(route) + "].match." + (query ? "query_parameters[" : "headers[") + number(matcher) +
         "].string_match.safe_regex.regex";
}
std::string origin_field(uint32_t route, const CorsSpec& cors, uint32_t origin) {
  return (cors.origins_of_host ? std::string() : "routes[" + number(route) + "].") + "typed_per_filter_config[\"" + cors.filter +
         "\"].allow_origin_string_match[" + number(origin) + "].safe_regex.regex";
}
std::string route_label(uint32_t index, const RouteSpec& route) { return route.name.empty() ? "#" + number(index) : route.name; }

std::vector<SpecError> check_spec(const VirtualHostSpec& spec, TranslationCache& translations) {
  return Check(spec, translations).run();
}

std::vector<SpecError> check_virtual_host(const VirtualHostSpec& spec) {
  TranslationCache translations;
  return check_spec(spec, translations);
}

// RouteMatcher's constructor has the wording of duplicates; that '*' may stand at an end only is our own, stricter rule (Envoy
// takes "a*b" for a literal name, which no client can mean).
std::vector<SpecError> check_domains(const RouteTableSpec& spec) {
  std::vector<SpecError> errors;
  std::map<std::string, bool> seen;
  bool has_default = false;
  for (uint32_t h = 0; h < spec.virtual_hosts.size(); ++h) {
    const auto& domains = spec.virtual_hosts[h].domains;
    const std::string host = "virtual_hosts[" + number(h) + "]";
    if (domains.empty()) errors.push_back({host + ".domains", "a virtual host needs at least one domain", ""});
    for (uint32_t d = 0; d < domains.size(); ++d) {
      const std::string path = host + ".domains[" + number(d) + "]";
      const std::string domain = lower_text(domains[d]);
      if (domain.empty()) {
        errors.push_back({path, "the domain is empty", ""});
        continue;
      }
      if (domain.size() > kMaxDomainBytes) {
        errors.push_back(
            {path, "the domain has " + number(domain.size()) + " bytes; at most " + number(kMaxDomainBytes) + " are supported",
             ""});
        continue;
      }
      if (domain.find_first_of("\r\n \t/") != std::string::npos || domain.find('\0') != std::string::npos) {
        errors.push_back({path, "\"" + domains[d] + "\" contains a character that no host name has", ""});
        continue;
      }
      if (domain == "*") {
        if (has_default) errors.push_back({path, "Only a single wildcard domain is permitted in route " + spec.name, ""});
        has_default = true;
        continue;
      }
      const size_t star = domain.find('*');
      const bool twice = star != std::string::npos && domain.find('*', star + 1) != std::string::npos;
      if (twice || (star != std::string::npos && star != 0 && star + 1 != domain.size())) {
        errors.push_back({path, "\"" + domains[d] + "\": a wildcard may stand at the beginning or at the end, once", ""});
        continue;
      }
      if (!seen.emplace(domain, true).second) {
        errors.push_back(
            {path, "Only unique values for domains are permitted. Duplicate entry of domain " + domain + " in route " + spec.name,
             ""});
      }
    }
  }
  return errors;
}

}  // namespace millrace::route
