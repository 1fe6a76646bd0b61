#include "lib/route/compiler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <tuple>
#include <unordered_map>

#include "lib/base/hash.h"
#include "lib/http/message.h"
#include "lib/route/ascii.h"
#include "lib/route/index_builder.h"
#include "lib/route/matcher.h"
#include "lib/route/regex_planner.h"
#include "lib/route/spec_check.h"
#include "lib/table/object_writer.h"

namespace millrace::route {

namespace {

using table::ObjectWriter;
using table::PathKind;
using table::RegexInput;
using table::StringMatchKind;

std::string lower_text(std::string_view s) {
  std::string out(s);
  lower_copy(out.data(), s);
  return out;
}

CompiledObject failed(std::vector<SpecError> errors) {
  CompiledObject out;
  out.errors = std::move(errors);
  return out;
}

template <class Root>
CompiledObject seal(ObjectWriter& writer, const Root& root) {
  CompiledObject out;
  auto blob = writer.finish(root);
  if (!blob.ok()) {
    out.errors.push_back({"", blob.error(), ""});
    return out;
  }
  auto words = std::make_shared<std::vector<uint64_t>>((blob->size() + 7) / 8);
  std::memcpy(words->data(), blob->data(), blob->size());
  out.size_bytes = blob->size();
  out.words = std::move(words);
  return out;
}

table::HeaderMutations write_mutations(ObjectWriter& w, const HeaderMutationsSpec& spec) {
  const auto options = [&w](const std::vector<HeaderOptionSpec>& from) { return write_header_options(w, from); };
  const auto names = [&w](const std::vector<std::string>& from) {
    std::vector<table::Str> to;
    for (const std::string& n : from) to.push_back(w.string(lower_text(n)));
    return w.array(to);
  };
  table::HeaderMutations m;
  m.request_add = options(spec.request_add);
  m.response_add = options(spec.response_add);
  m.request_remove = names(spec.request_remove);
  m.response_remove = names(spec.response_remove);
  return m;
}

// Distinct expressions of a virtual host, and where each is used (for error messages).
class RegexTable {
 public:
  struct Use {
    uint32_t route;
    std::string field;
  };
  explicit RegexTable(TranslationCache& translations) : translations_(translations) {}

  uint32_t add(RegexInput input, const std::string& name, const std::string& expression, Use use) {
    // Two spellings of one expression, "(a)" and "(?:a)", are one.
    const TranslatedRegex& t = translations_.get(expression);
    const auto [it, fresh] = ids_.try_emplace(std::tuple(input, name, t.expression), static_cast<uint32_t>(planned_.size()));
    if (fresh) {
      planned_.push_back(
          {input, name, input == RegexInput::kPath ? t.literal_prefix : "", {t.expression, t.matches_empty}, UINT32_MAX});
      sources_.push_back(expression);
      uses_.push_back(std::move(use));
      ranks_.emplace_back();
    }
    return it->second;
  }
  void add_rank(uint32_t regex, uint32_t rank) {
    ranks_[regex].push_back(rank);
    planned_[regex].best_rank = std::min(planned_[regex].best_rank, rank);
  }
  size_t size() const { return planned_.size(); }
  const std::vector<PlannedExpression>& planned() const { return planned_; }
  const std::string& source(uint32_t i) const { return sources_[i]; }
  const Use& use(uint32_t i) const { return uses_[i]; }
  const std::vector<uint32_t>& ranks(uint32_t i) const { return ranks_[i]; }

 private:
  TranslationCache& translations_;
  std::map<std::tuple<RegexInput, std::string, std::string>, uint32_t> ids_;
  std::vector<PlannedExpression> planned_;
  std::vector<std::string> sources_;
  std::vector<Use> uses_;
  std::vector<std::vector<uint32_t>> ranks_;
};

struct CachedDb {
  PatternSet set;
  std::vector<uint8_t> serialized;
};
struct ReadyDb {
  PlannedDb plan;
  uint64_t hash = 0;
  std::shared_ptr<const CachedDb> db;
};

uint8_t header_code(const std::string& lower_name) {
  if (lower_name == ":method") return table::kPseudoMethod;
  if (lower_name == ":path") return table::kPseudoPath;
  if (lower_name == ":authority" || lower_name == "host") return table::kPseudoAuthority;
  if (lower_name == ":scheme") return table::kPseudoScheme;
  return static_cast<uint8_t>(http::header_id(lower_name));
}

// What a header must be for the matcher to hold at all: its bit in HeaderTable::present().
uint64_t needed_header(const MatcherSpec& m, uint8_t code) {
  if (code >= static_cast<uint8_t>(http::HeaderId::kCount) || m.treat_missing_as_empty) return 0;
  if (m.kind == StringMatchKind::kPresent && m.invert) return 0;
  return uint64_t{1} << code;
}

// Nothing but a cluster to go to: what a RouteAction can say.
bool is_simple(const RouteSpec& r) {
  const auto edits = [](const HeaderMutationsSpec& m) {
    return m.request_add.size() + m.response_add.size() + m.request_remove.size() + m.response_remove.size() != 0;
  };
  return r.action == table::ActionKind::kCluster && !edits(r.headers_mut) && !edits(r.clusters[0].headers) &&
         r.prefix_rewrite.empty() && !r.host_rewrite.has_value() && !r.auto_host_rewrite && r.upgrades.empty() &&
         r.hash_policies.empty() && !r.max_stream_duration_ms.has_value() && !r.retry.has_value() && !r.count_in_request &&
         !r.count_in_response;
}

// One virtual host on its way from spec to object.
class HostWriter {
 public:
  HostWriter(const VirtualHostSpec& spec, std::string_view object_name, TranslationCache& translations)
      : spec_(spec),
        writer_(table::Kind::kVirtualHost, object_name),
        index_(static_cast<uint32_t>(spec.routes.size())),
        regexes_(translations) {}

  // First pass: finds the expressions, which have to be compiled before anything can be written about them.
  void collect() {
    route_regex_.assign(spec_.routes.size(), 0);
    for (uint32_t rank = 0; rank < spec_.routes.size(); ++rank) {
      const RouteSpec& r = spec_.routes[rank];
      if (r.path_kind == PathKind::kRegex) {
        route_regex_[rank] = regexes_.add(RegexInput::kPath, "", r.path, {rank, path_field(rank, r)});
        regexes_.add_rank(route_regex_[rank], rank);
      }
      for (uint32_t i = 0; i < r.headers.size(); ++i)
        if (r.headers[i].kind == StringMatchKind::kRegex)
          regexes_.add(RegexInput::kHeader, lower_text(r.headers[i].name), r.headers[i].value,
                       {rank, matcher_field(rank, false, i)});
      for (uint32_t i = 0; i < r.query.size(); ++i)
        if (r.query[i].kind == StringMatchKind::kRegex)
          regexes_.add(RegexInput::kQuery, r.query[i].name, r.query[i].value, {rank, matcher_field(rank, true, i)});
      for (const CorsSpec& c : r.cors)
        for (uint32_t i = 0; i < c.origins.size(); ++i)
          if (c.origins[i].kind == StringMatchKind::kRegex)
            regexes_.add(RegexInput::kHeader, lower_text(c.origins[i].name), c.origins[i].value,
                         {rank, origin_field(rank, c, i)});
    }
  }
  const RegexTable& regexes() const { return regexes_; }

  CompiledObject write(const std::vector<ReadyDb>& dbs) {
    table::VirtualHost root{};
    root.name = writer_.string(spec_.name);
    std::vector<table::Str> domains;
    for (const std::string& d : spec_.domains) domains.push_back(writer_.string(d));
    root.domains = writer_.array(domains);
    std::vector<table::Route> routes;
    routes.reserve(spec_.routes.size());
    literals_.reserve(spec_.routes.size());
    for (uint32_t rank = 0; rank < spec_.routes.size(); ++rank) routes.push_back(write_route(rank));
    root.routes = writer_.array(routes);
    write_regexes(dbs, &root);
    root.index = writer_.blob(index_.finish(), kLineBytes);
    root.headers_mut = write_mutations(writer_, spec_.headers_mut);
    root.require_tls = spec_.require_tls;
    return seal(writer_, root);
  }

 private:
  table::Route write_route(uint32_t rank) {
    const RouteSpec& r = spec_.routes[rank];
    table::Route out{};
    out.name = writer_.string(r.name);
    const bool folded = !r.case_sensitive && r.path_kind != PathKind::kRegex;
    literals_.push_back(folded ? lower_text(r.path) : r.path);
    const std::string& literal = literals_.back();
    out.path = writer_.string(literal);
    out.path_kind = r.path_kind;
    out.case_sensitive = r.case_sensitive;
    out.path_regex = route_regex_[rank];
    switch (r.path_kind) {
      case PathKind::kExact:
        index_.add_exact(literal, folded, rank);
        break;
      case PathKind::kPrefix:
        index_.add_prefix(literal, folded, false, rank);
        break;
      case PathKind::kSeparatedPrefix:
        index_.add_prefix(literal, folded, true, rank);
        break;
      case PathKind::kConnect:
        index_.add_exact(kConnectLiteral, false, rank);
        break;
      case PathKind::kRegex:
        break;
    }
    RouteMeta meta;
    out.grpc_only = r.grpc_only;
    out.presented = r.presented;
    out.validated = r.validated;
    if (r.presented != table::CertificateMatch::kAny || r.validated != table::CertificateMatch::kAny)
      meta.needs |= kNeedsCertificate;
    if (r.grpc_only) meta.needs |= kNeedsGrpc;
    if (r.grpc_only) meta.present |= uint64_t{1} << static_cast<int>(http::HeaderId::kContentType);
    out.fraction_numerator = r.fraction_numerator;
    out.fraction_denominator = r.fraction_denominator;
    if (r.fraction_numerator < r.fraction_denominator) meta.needs |= kNeedsFraction;
    if (!r.headers.empty()) meta.needs |= kNeedsHeaders;
    if (!r.query.empty()) meta.needs |= kNeedsQuery;
    out.headers = write_matchers(r.headers, RegexInput::kHeader, &meta.present);
    out.query = write_matchers(r.query, RegexInput::kQuery, nullptr);
    index_.set_meta(rank, meta);
    write_action(r, &out);
    if (is_simple(r))
      index_.set_action(rank, {table::object_id(table::Kind::kCluster, r.clusters[0].name), out.timeout_ms, out.idle_timeout_ms,
                               out.cluster_not_found_status, 0});
    return out;
  }

  table::Array<table::ValueMatch> write_matchers(const std::vector<MatcherSpec>& specs, RegexInput input, uint64_t* present) {
    std::vector<table::ValueMatch> out;
    for (const MatcherSpec& m : specs) {
      table::ValueMatch v{};
      const std::string name = input == RegexInput::kHeader ? lower_text(m.name) : m.name;
      const bool fold = m.ignore_case && m.kind != StringMatchKind::kRegex;
      v.name = writer_.string(name);
      v.value = writer_.string(fold ? lower_text(m.value) : m.value);
      v.range_start = m.range_start;
      v.range_end = m.range_end;
      v.kind = m.kind;
      v.invert = m.invert;
      v.ignore_case = fold;
      v.treat_missing_as_empty = m.treat_missing_as_empty;
      if (input == RegexInput::kHeader) {
        v.header = header_code(name);
        *present |= needed_header(m, v.header);
      }
      if (m.kind == StringMatchKind::kRegex) v.regex = regexes_.add(input, name, m.value, {});
      out.push_back(v);
    }
    return writer_.array(out);
  }

  table::Array<table::RetryPolicy> write_retry(const RetrySpec& r) {
    table::RetryPolicy p{};
    uint64_t ignored = 0;
    p.status_codes = writer_.array(r.status_codes);
    p.response_headers = write_matchers(r.response_headers, RegexInput::kHeader, &ignored);
    p.request_headers = write_matchers(r.request_headers, RegexInput::kHeader, &ignored);
    std::vector<table::ResetHeader> resets;
    for (const auto& [name, unix_timestamp] : r.reset_headers) {
      table::ResetHeader h{};
      h.name = writer_.string(lower_text(name));
      h.unix_timestamp = unix_timestamp;
      resets.push_back(h);
    }
    p.reset_headers = writer_.array(resets);
    p.retry_on = r.retry_on;
    p.num_retries = r.num_retries;
    p.per_try_timeout_ms = r.per_try_timeout_ms;
    p.per_try_idle_timeout_ms = r.per_try_idle_timeout_ms;
    p.base_interval_ms = r.base_interval_ms;
    p.max_interval_ms = r.max_interval_ms;
    p.reset_max_interval_ms = r.reset_max_interval_ms;
    p.host_attempts = r.host_attempts;
    p.previous_hosts = r.previous_hosts;
    return writer_.array(std::vector<table::RetryPolicy>{p});
  }

  // Routes of one virtual host mostly say the same: it is written once.
  table::Array<table::RouteFilters> write_filters(const RouteSpec& r) {
    if (r.cors.empty()) return {};
    std::string key;
    const auto say = [&key](std::string_view s) { key.append(std::to_string(s.size())).append(":").append(s); };
    const auto number = [&key](uint64_t n) { key.append(std::to_string(n)).append(","); };
    for (const CorsSpec& c : r.cors) {
      for (const std::string* s : {&c.filter, &c.allow_methods, &c.allow_headers, &c.expose_headers, &c.max_age}) say(*s);
      for (const uint32_t n : {c.enabled_numerator, c.enabled_denominator, c.shadow_numerator, c.shadow_denominator}) number(n);
      number(c.allow_credentials * 4u + c.allow_private_network_access * 2u + c.forward_not_matching_preflights);
      number(c.origins.size());
      for (const MatcherSpec& m : c.origins) {
        say(m.value);
        number(static_cast<uint64_t>(m.kind) * 2 + m.ignore_case);
      }
    }
    const auto [at, fresh] = filters_.try_emplace(std::move(key));
    if (!fresh) return at->second;
    std::vector<table::CorsPolicy> cors;
    for (const CorsSpec& c : r.cors) {
      table::CorsPolicy p{};
      uint64_t ignored = 0;
      p.filter = writer_.string(c.filter);
      p.origins = write_matchers(c.origins, RegexInput::kHeader, &ignored);
      p.allow_methods = writer_.string(c.allow_methods);
      p.allow_headers = writer_.string(c.allow_headers);
      p.expose_headers = writer_.string(c.expose_headers);
      p.max_age = writer_.string(c.max_age);
      p.enabled_numerator = c.enabled_numerator;
      p.enabled_denominator = c.enabled_denominator;
      p.shadow_numerator = c.shadow_numerator;
      p.shadow_denominator = c.shadow_denominator;
      p.any_origin = std::any_of(c.origins.begin(), c.origins.end(), takes_star);
      p.allow_credentials = c.allow_credentials;
      p.allow_private_network_access = c.allow_private_network_access;
      p.forward_not_matching_preflights = c.forward_not_matching_preflights;
      cors.push_back(p);
    }
    table::RouteFilters filters{};
    filters.cors = writer_.array(cors);
    return at->second = writer_.array(std::vector<table::RouteFilters>{filters});
  }

  // Envoy asks each matcher of origins whether it takes "*" first (CorsFilter::isOriginAllowed). Of expressions the worker asks.
  static bool takes_star(const MatcherSpec& m) {
    switch (m.kind) {
      case StringMatchKind::kExact:
      case StringMatchKind::kPrefix:
      case StringMatchKind::kSuffix:
      case StringMatchKind::kContains:
        return m.value == "*";
      default:
        return false;
    }
  }

  void write_action(const RouteSpec& r, table::Route* out) {
    out->action = r.action;
    std::vector<table::WeightedCluster> clusters;
    uint64_t sum = 0;
    for (const WeightedClusterSpec& c : r.clusters) {
      table::WeightedCluster w{};
      w.name = writer_.string(c.name);
      w.cluster = table::object_id(table::Kind::kCluster, c.name);
      w.weight = c.weight;
      w.headers = write_mutations(writer_, c.headers);
      sum += c.weight;
      clusters.push_back(w);
    }
    out->clusters = writer_.array(clusters);
    out->total_weight = static_cast<uint32_t>(sum);
    out->redirect.scheme = writer_.string(lower_text(r.redirect.scheme));
    out->redirect.host = writer_.string(r.redirect.host);
    out->redirect.path = writer_.string(r.redirect.path);
    out->redirect.prefix_rewrite = writer_.string(r.redirect.prefix_rewrite);
    out->redirect.port = r.redirect.port;
    out->redirect.status = r.redirect.status;
    out->redirect.strip_query = r.redirect.strip_query;
    out->redirect.https_redirect = r.redirect.https_redirect;
    out->redirect.has_path = !r.redirect.path.empty();
    out->redirect.has_prefix = !r.redirect.prefix_rewrite.empty();
    out->direct_status = r.direct_status;
    out->direct_body = writer_.string(r.direct_body);
    out->cluster_not_found_status = r.cluster_not_found_status;
    out->prefix_rewrite = writer_.string(r.prefix_rewrite);
    out->has_prefix_rewrite = !r.prefix_rewrite.empty();
    out->host_rewrite = writer_.string(r.host_rewrite.value_or(""));
    out->has_host_rewrite = r.host_rewrite.has_value();
    out->auto_host_rewrite = r.auto_host_rewrite;
    out->append_xfh = r.append_xfh;
    out->timeout_ms = r.timeout_ms;
    out->idle_timeout_ms = r.idle_timeout_ms.value_or(UINT32_MAX);
    out->max_stream_duration_ms = r.max_stream_duration_ms.value_or(UINT32_MAX);
    std::vector<table::UpgradeConfig> upgrades;
    for (const UpgradeSpec& u : r.upgrades) {
      table::UpgradeConfig w{};
      w.type = writer_.string(lower_text(u.type));
      w.enabled = u.enabled;
      w.terminate = u.terminate;
      w.allow_post = u.allow_post;
      w.proxy_version = u.proxy_version;
      upgrades.push_back(w);
    }
    out->upgrades = writer_.array(upgrades);
    std::vector<table::HashPolicy> policies;
    for (const HashPolicySpec& p : r.hash_policies) {
      table::HashPolicy w{};
      const bool header = p.kind == table::HashPolicyKind::kHeader;
      const std::string name = header ? lower_text(p.name) : p.name;
      w.name = writer_.string(name);
      w.path = writer_.string(p.path);
      std::vector<table::CookieAttribute> attributes;
      for (const auto& [key, value] : p.attributes) attributes.push_back({writer_.string(key), writer_.string(value)});
      w.attributes = writer_.array(attributes);
      w.has_ttl = p.ttl_s.has_value();
      w.ttl_s = p.ttl_s.value_or(0);
      w.terminal = p.terminal;
      w.header = header ? header_code(name) : 0;
      w.kind = p.kind;
      policies.push_back(w);
    }
    out->hash_policies = writer_.array(policies);
    if (r.retry.has_value()) out->retry = write_retry(*r.retry);
    out->filters = write_filters(r);
    out->retry_buffer_limit = r.retry_buffer_limit;
    out->count_in_request = r.count_in_request;
    out->count_in_response = r.count_in_response;
    out->tell_timeout_retry = r.tell_timeout_retry;
    out->headers_mut = write_mutations(writer_, r.headers_mut);
  }

  void write_regexes(const std::vector<ReadyDb>& dbs, table::VirtualHost* root) {
    std::vector<table::Regex> regexes(regexes_.size());
    for (uint32_t i = 0; i < regexes.size(); ++i) {
      regexes[i].expression = writer_.string(regexes_.source(i));
      regexes[i].ranks = writer_.array(regexes_.ranks(i));
    }
    std::vector<table::RegexDb> out;
    for (uint32_t d = 0; d < dbs.size(); ++d) {
      const ReadyDb& ready = dbs[d];
      table::RegexDb db{};
      db.serialized = writer_.blob(ready.db->serialized, 8);
      db.hash = ready.hash;
      db.ids = writer_.array(ready.plan.expressions);
      db.literal_prefix = writer_.string(ready.plan.group.prefix);
      db.name = writer_.string(ready.plan.group.name);
      db.input = ready.plan.group.input;
      db.best_rank = UINT32_MAX;
      for (uint32_t position = 0; position < ready.plan.expressions.size(); ++position) {
        const uint32_t e = ready.plan.expressions[position];
        if (e == UINT32_MAX) continue;
        regexes[e].db = d;
        regexes[e].position = position;
        db.best_rank = std::min(db.best_rank, regexes_.planned()[e].best_rank);
      }
      if (db.input == RegexInput::kPath) index_.add_db(ready.plan.group.prefix, d, db.best_rank);
      out.push_back(db);
    }
    root->regexes = writer_.array(regexes);
    root->regex_dbs = writer_.array(out);
  }

  const VirtualHostSpec& spec_;
  ObjectWriter writer_;
  IndexBuilder index_;
  RegexTable regexes_;
  std::vector<uint32_t> route_regex_;
  std::map<std::string, table::Array<table::RouteFilters>> filters_;
  std::vector<std::string> literals_;  // reserved up front: the index builder keeps views
};

}  // namespace

struct RouteCompiler::Impl {
  CompileLimits limits;
  CompileStats stats;
  TranslationCache translations;
  struct Host {
    PlanMemory memory;
    std::vector<std::shared_ptr<const CachedDb>> dbs;
  };
  std::unordered_map<std::string, Host> hosts;
  std::unordered_map<uint64_t, std::weak_ptr<const CachedDb>> cache;

  // As many translations as a process may hold of expressions that are no longer used.
  static constexpr size_t kMaxTranslations = 1'000'000;

  std::shared_ptr<const CachedDb> find(uint64_t hash, const PatternSet& set) const {
    const auto it = cache.find(hash);
    if (it == cache.end()) return nullptr;
    auto db = it->second.lock();
    return db != nullptr && db->set.patterns == set.patterns ? db : nullptr;
  }

  // Compiles what is not in the cache. A set with an expression that Hyperscan refuses is tried again without it; a set that
  // costs too much is halved, down to the expression that is to blame.
  std::vector<ReadyDb> make_databases(std::vector<PlannedDb> plan, const RegexTable& regexes, const VirtualHostSpec& spec,
                                      std::vector<SpecError>* errors) {
    constexpr size_t kMaxErrors = 100;
    std::vector<ReadyDb> ready;
    std::vector<PlannedDb> todo = std::move(plan);
    const auto blame = [&](const PlannedDb& db, uint32_t position, const std::string& why) {
      const uint32_t e = db.expressions[position];
      if (e == UINT32_MAX) return;
      const RegexTable::Use& use = regexes.use(e);
      // Offsets in Hyperscan's words are those of our rewriting: no use to a reader.
      errors->push_back({use.field,
                         "Hyperscan cannot compile \"" + regexes.source(e) + "\": " + why.substr(0, why.find(" at index ")),
                         route_label(use.route, spec.routes[use.route])});
    };
    while (!todo.empty() && errors->size() < kMaxErrors) {
      std::vector<PlannedDb> missing;
      std::vector<PatternSet> sets;
      for (PlannedDb& db : todo) {
        const uint64_t hash = hash_of(db.set);
        if (auto cached = find(hash, db.set)) {
          ready.push_back({std::move(db), hash, std::move(cached)});
          continue;
        }
        sets.push_back(db.set);
        missing.push_back(std::move(db));
      }
      todo.clear();
      if (missing.empty()) break;
      std::vector<CompiledSet> results = compile_sets_in_child(sets, limits);
      for (size_t i = 0; i < missing.size(); ++i) {
        PlannedDb& db = missing[i];
        const uint32_t size = static_cast<uint32_t>(db.set.patterns.size());
        if (results[i].ok()) {
          ++stats.databases_compiled;
          stats.patterns_compiled += size;
          auto made = std::make_shared<CachedDb>(CachedDb{db.set, std::move(results[i].serialized)});
          const uint64_t hash = hash_of(db.set);
          cache[hash] = made;
          ready.push_back({std::move(db), hash, std::move(made)});
          continue;
        }
        const CompileFailure& why = results[i].failure;
        if (size == 1) {
          blame(db, 0, why.message);
        } else if (why.pattern >= 0 && static_cast<uint32_t>(why.pattern) < size) {
          blame(db, static_cast<uint32_t>(why.pattern), why.message);
          db.set.patterns.erase(db.set.patterns.begin() + why.pattern);
          db.expressions.erase(db.expressions.begin() + why.pattern);
          todo.push_back(std::move(db));
        } else {
          PlannedDb half{db.group, {}, {}};
          half.set.patterns.assign(db.set.patterns.begin() + size / 2, db.set.patterns.end());
          half.expressions.assign(db.expressions.begin() + size / 2, db.expressions.end());
          db.set.patterns.resize(size / 2);
          db.expressions.resize(size / 2);
          todo.push_back(std::move(db));
          todo.push_back(std::move(half));
        }
      }
    }
    return ready;
  }

  void sweep() {
    std::erase_if(cache, [](const auto& entry) { return entry.second.expired(); });
    if (translations.size() > kMaxTranslations) translations.clear();
  }
};

RouteCompiler::RouteCompiler(CompileLimits limits) : impl_(std::make_unique<Impl>()) { impl_->limits = limits; }
RouteCompiler::~RouteCompiler() = default;
RouteCompiler::RouteCompiler(RouteCompiler&&) noexcept = default;
RouteCompiler& RouteCompiler::operator=(RouteCompiler&&) noexcept = default;

CompiledObject RouteCompiler::compile_virtual_host(const VirtualHostSpec& spec, std::string_view object_name) {
  impl_->stats = {};
  std::vector<SpecError> errors = check_spec(spec, impl_->translations);
  if (!errors.empty()) return failed(std::move(errors));

  HostWriter writer(spec, object_name, impl_->translations);
  writer.collect();
  const auto known = impl_->hosts.find(std::string(object_name));
  static const PlanMemory kNothing;
  std::vector<PlannedDb> plan =
      plan_databases(writer.regexes().planned(), known == impl_->hosts.end() ? kNothing : known->second.memory);
  impl_->stats.regexes = static_cast<uint32_t>(writer.regexes().size());
  std::vector<ReadyDb> dbs = impl_->make_databases(std::move(plan), writer.regexes(), spec, &errors);
  if (!errors.empty()) return failed(std::move(errors));
  std::sort(dbs.begin(), dbs.end(),
            [](const ReadyDb& a, const ReadyDb& b) { return std::tie(a.plan.group, a.hash) < std::tie(b.plan.group, b.hash); });
  impl_->stats.databases = static_cast<uint32_t>(dbs.size());

  CompiledObject out = writer.write(dbs);
  if (!out.ok()) return out;
  Impl::Host host;
  std::vector<PlannedDb> final_plan;
  for (ReadyDb& db : dbs) {
    host.dbs.push_back(std::move(db.db));
    final_plan.push_back(std::move(db.plan));
  }
  host.memory = remember(final_plan);
  impl_->hosts[std::string(object_name)] = std::move(host);
  impl_->sweep();
  return out;
}

void RouteCompiler::forget(std::string_view object_name) {
  impl_->hosts.erase(std::string(object_name));
  impl_->sweep();
}
const CompileStats& RouteCompiler::stats() const { return impl_->stats; }
size_t RouteCompiler::cached_databases() const { return impl_->cache.size(); }
size_t RouteCompiler::cached_bytes() const {
  size_t sum = 0;
  for (const auto& [hash, db] : impl_->cache)
    if (const auto alive = db.lock()) sum += alive->serialized.size();
  return sum;
}

table::Array<table::HeaderOption> write_header_options(ObjectWriter& w, const std::vector<HeaderOptionSpec>& options) {
  std::vector<table::HeaderOption> to;
  for (const HeaderOptionSpec& o : options) {
    table::HeaderOption option{};
    option.name = w.string(lower_text(o.name));
    option.value = w.string(o.value);
    option.parts = table::write_format(w, o.parts);
    option.append = o.append;
    option.keep_empty_value = o.keep_empty_value;
    to.push_back(option);
  }
  return w.array(to);
}

std::string virtual_host_object_name(std::string_view route_table, std::string_view virtual_host) {
  return std::string(route_table) + "/" + std::string(virtual_host);
}

// ---- route table ------------------------------------------------------------------------------------------------------

namespace {

struct Domain {
  std::string text;
  uint32_t host;
};

void write_domains(ObjectWriter& w, std::vector<Domain> domains, bool by_length, table::Array<table::DomainEntry>* entries,
                   table::Array<uint32_t>* slots, table::Array<uint32_t>* lengths) {
  std::vector<table::DomainEntry> out;
  std::sort(domains.begin(), domains.end(), [&](const Domain& a, const Domain& b) {
    if (by_length) return a.text.size() != b.text.size() ? a.text.size() > b.text.size() : a.text < b.text;
    const uint64_t ha = base::hash64(a.text), hb = base::hash64(b.text);
    return std::tie(ha, a.text) < std::tie(hb, b.text);
  });
  std::vector<uint32_t> hashed(domains.empty() ? 0 : std::bit_ceil(domains.size() * 2), 0);
  std::vector<uint32_t> distinct;
  for (const Domain& d : domains) {
    table::DomainEntry e{};
    e.text = w.string(d.text);
    e.hash = base::hash64(d.text);
    e.virtual_host = d.host;
    out.push_back(e);
    uint64_t at = e.hash & (hashed.size() - 1);
    while (hashed[at] != 0) at = (at + 1) & (hashed.size() - 1);
    hashed[at] = static_cast<uint32_t>(out.size());
    if (distinct.empty() || distinct.back() != d.text.size()) distinct.push_back(static_cast<uint32_t>(d.text.size()));
  }
  *entries = w.array(out);
  *slots = w.array(hashed);
  if (lengths != nullptr) *lengths = w.array(distinct);
}

}  // namespace

CompiledObject compile_route_table(const RouteTableSpec& spec) {
  std::vector<SpecError> errors = check_domains(spec);
  if (!errors.empty()) return failed(std::move(errors));
  ObjectWriter w(table::Kind::kRouteTable, spec.name);
  table::RouteTable root{};
  root.name = w.string(spec.name);
  std::vector<table::ObjectId> hosts;
  std::vector<Domain> exact, suffixes, prefixes;
  for (uint32_t h = 0; h < spec.virtual_hosts.size(); ++h) {
    hosts.push_back(table::object_id(table::Kind::kVirtualHost, spec.virtual_hosts[h].object_name));
    for (const std::string& written : spec.virtual_hosts[h].domains) {
      const std::string d = lower_text(written);
      if (d == "*") {
        root.default_virtual_host = h;
      } else if (d.front() == '*') {
        suffixes.push_back({d.substr(1), h});
      } else if (d.back() == '*') {
        prefixes.push_back({d.substr(0, d.size() - 1), h});
      } else {
        exact.push_back({d, h});
      }
    }
  }
  root.virtual_hosts = w.array(hosts);
  write_domains(w, std::move(exact), false, &root.exact, &root.exact_slots, nullptr);
  write_domains(w, std::move(suffixes), true, &root.suffixes, &root.suffix_slots, &root.suffix_lengths);
  write_domains(w, std::move(prefixes), true, &root.prefixes, &root.prefix_slots, &root.prefix_lengths);
  root.ignore_port_in_host_matching = spec.ignore_port_in_host_matching;
  root.most_specific_header_mutations_wins = spec.most_specific_header_mutations_wins;
  root.headers_mut = write_mutations(w, spec.headers_mut);
  return seal(w, root);
}

}  // namespace millrace::route
