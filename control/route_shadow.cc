#include "control/route_shadow.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "control/model_builder.h"

namespace millrace::control {

namespace {

using envoy::config::route::v3::RouteMatch;
using Header = envoy::config::route::v3::HeaderMatcher;

bool any_case(const RouteMatch& m) { return m.has_case_sensitive() && !m.case_sensitive().value(); }

std::string lower(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}
bool has_letters(std::string_view s) {
  return std::any_of(s.begin(), s.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
}

// A path predicate as what is compared. kStart: what every path that a regular expression matches begins with.
enum class Shape : uint8_t { kPrefix, kSeparated, kExact, kStart, kOther };
struct Paths {
  Shape shape = Shape::kOther;
  std::string text;
  bool fold = false;  // letters of either case
};

// What every match of a regular expression (RE2, of the whole path) begins with; "" when that is not plain.
std::string literal_start(std::string_view regex) {
  if (regex.find('|') != std::string_view::npos) return "";
  size_t end = 0;
  while (end < regex.size() && (std::isalnum(static_cast<unsigned char>(regex[end])) != 0 ||
                                std::string_view("/-_~").find(regex[end]) != std::string_view::npos))
    ++end;
  if (end > 0 && end < regex.size() && std::string_view("?*{").find(regex[end]) != std::string_view::npos) --end;
  return std::string(regex.substr(0, end));
}

Paths paths_of(const RouteMatch& m) {
  switch (m.path_specifier_case()) {
    case RouteMatch::kPrefix:
      return {Shape::kPrefix, m.prefix(), any_case(m)};
    case RouteMatch::kPath:
      return {Shape::kExact, m.path(), any_case(m)};
    case RouteMatch::kPathSeparatedPrefix:
      return {Shape::kSeparated, m.path_separated_prefix(), any_case(m)};
    case RouteMatch::kSafeRegex:  // case_sensitive says nothing of it
      if (m.safe_regex().regex() == ".*") return {Shape::kPrefix, "", false};
      if (m.safe_regex().regex() == "/.*") return {Shape::kPrefix, "/", false};
      return {Shape::kStart, literal_start(m.safe_regex().regex()), false};
    default:
      return {};
  }
}

bool paths_cover(const RouteMatch& ma, const RouteMatch& mb) {
  if (ma.has_connect_matcher() || mb.has_connect_matcher()) return ma.has_connect_matcher() && mb.has_connect_matcher();
  Paths a = paths_of(ma), b = paths_of(mb);
  if (a.shape == Shape::kStart) return mb.has_safe_regex() && ma.safe_regex().regex() == mb.safe_regex().regex();
  if (a.shape == Shape::kOther || b.shape == Shape::kOther) return false;
  if (!a.fold && b.fold && has_letters(a.text)) return false;
  if (a.fold || b.fold) a.text = lower(a.text), b.text = lower(b.text);
  switch (a.shape) {
    case Shape::kPrefix:
      return b.text.starts_with(a.text);
    case Shape::kSeparated:
      if (b.text == a.text) return b.shape == Shape::kExact || b.shape == Shape::kSeparated;
      return b.text.starts_with(a.text) && b.text[a.text.size()] == '/';
    case Shape::kExact:
      return b.shape == Shape::kExact && a.text == b.text;
    default:
      return false;
  }
}

bool always(const envoy::config::core::v3::RuntimeFractionalPercent& f) {
  using Percent = envoy::type::v3::FractionalPercent;
  const auto& v = f.default_value();
  const uint64_t whole = v.denominator() == Percent::HUNDRED        ? 100
                         : v.denominator() == Percent::TEN_THOUSAND ? 10'000
                                                                    : 1'000'000;
  return v.numerator() >= whole;
}

// Does it hold only of requests that have the header?
bool needs_header(const Header& h) {
  if (h.invert_match() || h.treat_missing_header_as_empty()) return false;
  return h.header_match_specifier_case() != Header::kPresentMatch || h.present_match();
}

bool follows(const Header& wanted, const RouteMatch& b) {
  const std::string name = lower(wanted.name()), bytes = deterministic_bytes(wanted);
  const bool presence = !wanted.invert_match() && !wanted.treat_missing_header_as_empty() &&
                        ((wanted.header_match_specifier_case() == Header::kPresentMatch && wanted.present_match()) ||
                         wanted.header_match_specifier_case() == Header::HEADER_MATCH_SPECIFIER_NOT_SET);
  return std::any_of(b.headers().begin(), b.headers().end(), [&](const Header& h) {
    if (lower(h.name()) != name) return false;
    return (presence && needs_header(h)) || deterministic_bytes(h) == bytes;
  });
}

bool predicates_cover(const RouteMatch& a, const RouteMatch& b) {
  if (a.has_grpc() && !b.has_grpc()) return false;
  if (a.has_runtime_fraction() && !always(a.runtime_fraction())) return false;
  if (a.has_tls_context() &&
      (!b.has_tls_context() || deterministic_bytes(a.tls_context()) != deterministic_bytes(b.tls_context())))
    return false;
  if (!std::all_of(a.headers().begin(), a.headers().end(), [&](const Header& h) { return follows(h, b); })) return false;
  return std::all_of(a.query_parameters().begin(), a.query_parameters().end(), [&](const auto& q) {
    const std::string bytes = deterministic_bytes(q);
    return std::any_of(b.query_parameters().begin(), b.query_parameters().end(),
                       [&](const auto& other) { return deterministic_bytes(other) == bytes; });
  });
}

// Earlier routes by what their paths say in lower case: those that may take all of another one are few, and found by its text.
class Earlier {
 public:
  void add(const RouteMatch& m, int index) {
    const Paths p = paths_of(m);
    if (m.has_connect_matcher()) return add_to(connect_, "", index);
    if (p.shape == Shape::kStart) return add_to(regexes_, m.safe_regex().regex(), index);
    if (p.shape == Shape::kExact) return add_to(exact_, lower(p.text), index);
    if (p.shape == Shape::kOther) return;
    add_to(prefixes_, lower(p.text), index);
    const auto at = std::lower_bound(lengths_.begin(), lengths_.end(), p.text.size());
    if (at == lengths_.end() || *at != p.text.size()) lengths_.insert(at, p.text.size());
  }
  // Calls see(index) for each that may.
  template <class See>
  void each(const RouteMatch& m, See&& see) const {
    const Paths p = paths_of(m);
    const auto all = [&](const Table& t, const std::string& key) {
      const auto found = t.find(key);
      if (found == t.end()) return;
      for (const int i : found->second) see(i);
    };
    if (m.has_connect_matcher()) return all(connect_, "");
    if (p.shape == Shape::kStart) all(regexes_, m.safe_regex().regex());
    if (p.shape == Shape::kOther) return;
    const std::string text = lower(p.text);
    if (p.shape == Shape::kExact) all(exact_, text);
    for (const size_t n : lengths_) {
      if (n > text.size()) break;
      all(prefixes_, text.substr(0, n));
    }
  }

 private:
  // Routes that differ in their predicates only can be many (a route a header value): the first of them are compared.
  static constexpr size_t kMost = 256;
  using Table = std::unordered_map<std::string, std::vector<int>>;
  static void add_to(Table& t, std::string key, int index) {
    std::vector<int>& all = t[std::move(key)];
    if (all.size() < kMost) all.push_back(index);
  }
  Table prefixes_, exact_, regexes_, connect_;
  std::vector<size_t> lengths_;  // of prefixes_, ascending
};

std::string words(const RouteMatch& m) {
  const std::string more = m.headers_size() + m.query_parameters_size() > 0 ? ", with predicates" : "";
  switch (m.path_specifier_case()) {
    case RouteMatch::kPrefix:
      return "prefix " + m.prefix() + more;
    case RouteMatch::kPath:
      return "path " + m.path() + more;
    case RouteMatch::kPathSeparatedPrefix:
      return "path_separated_prefix " + m.path_separated_prefix() + more;
    case RouteMatch::kSafeRegex:
      return "regex " + m.safe_regex().regex() + more;
    case RouteMatch::kConnectMatcher:
      return "CONNECT" + more;
    default:
      return "no path" + more;
  }
}

std::string route_words(const api::VirtualHost& host, int index) {
  const api::Route& r = host.routes(index);
  return "routes[" + std::to_string(index) + "] (" + (r.name().empty() ? "" : r.name() + ": ") + words(r.match()) + ")";
}

std::string because(const ShadowedRoute& s, const api::VirtualHost& host) {
  return "is never reached: " + route_words(host, s.by) + " before it takes every request that it matches";
}

}  // namespace

bool takes_all_of(const RouteMatch& a, const RouteMatch& b) { return paths_cover(a, b) && predicates_cover(a, b); }

std::vector<ShadowedRoute> shadowed_routes(const api::VirtualHost& host) {
  std::vector<ShadowedRoute> out;
  Earlier earlier;
  for (int i = 0; i < host.routes_size(); ++i) {
    const RouteMatch& m = host.routes(i).match();
    int by = std::numeric_limits<int>::max();
    earlier.each(m, [&](int a) {
      if (a < by && takes_all_of(host.routes(a).match(), m)) by = a;
    });
    if (by < i) out.push_back({i, by});
    else earlier.add(m, i);  // what is never reached takes nothing that the one before it does not
  }
  return out;
}

std::vector<ShadowedRoute> shadowed_at(const api::VirtualHost& host, int index) {
  std::vector<ShadowedRoute> out;
  const RouteMatch& mine = host.routes(index).match();
  for (int i = 0; i < index; ++i)
    if (takes_all_of(host.routes(i).match(), mine)) return {{index, i}};
  for (int i = index + 1; i < host.routes_size(); ++i)
    if (takes_all_of(mine, host.routes(i).match())) out.push_back({i, index});
  return out;
}

std::string to_string(const ShadowedRoute& s, const api::VirtualHost& host) {
  return route_words(host, s.route) + " " + because(s, host);
}

ConfigErrors shadow_warnings(const RouteObject& r, const RouteObject* before) {
  ConfigErrors out;
  const std::string fallback = r.listener.empty() ? "route " + r.name : "listener " + r.listener;
  ErrorSink sink(r.source.get(), fallback, &out);
  for (size_t h = 0; h < r.virtual_hosts.size(); ++h) {
    const auto& host = r.virtual_hosts[h];
    if (before != nullptr &&
        std::find(before->virtual_hosts.begin(), before->virtual_hosts.end(), host) != before->virtual_hosts.end())
      continue;
    for (const ShadowedRoute& s : shadowed_routes(*host)) {
      const std::string at = "virtual_hosts[" + std::to_string(h) + "].routes[" + std::to_string(s.route) + "]";
      sink.add((r.source_path.empty() ? "" : r.source_path + ".") + at,
               (host->routes(s.route).name().empty() ? "" : "\"" + host->routes(s.route).name() + "\" ") + because(s, *host));
    }
  }
  return out;
}

ConfigErrors shadow_warnings(const Model& model, const Model* before) {
  ConfigErrors out;
  const auto add = [&](const RouteObject& r, const RouteObject* was) {
    for (ConfigError& w : shadow_warnings(r, was)) out.push_back(std::move(w));
  };
  static const Model::Table<RouteObject> none;
  Model::Table<RouteObject>::differences(before == nullptr ? none : before->routes(), model.routes(),
                                         [&](const std::string&, const auto& was, const auto& is) {
                                           if (is != nullptr) add(*is, was.get());
                                         });
  sort_errors(out);
  return out;
}

}  // namespace millrace::control
