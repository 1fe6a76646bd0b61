// The matcher as a template over what it tells about its work: NoTrace for poll cores (nothing, at no cost), RecordingTrace for
// explain. Included by matcher.cc and explain.cc only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "lib/base/hash.h"
#include "lib/http/message.h"
#include "lib/route/ascii.h"
#include "lib/route/index_format.h"
#include "lib/route/matcher.h"

namespace millrace::route {

// Why a candidate (a route whose path matches) does not match.
enum class Refusal : uint8_t { kNone, kFraction, kGrpc, kCertificate, kHeader, kQuery, kPatternFailed, kTooLong };
struct Verdict {
  Refusal refusal = Refusal::kNone;
  uint32_t which = 0;  // kHeader, kQuery: index of the matcher
};

struct NoTrace {
  static constexpr bool kRecords = false;
  void tried(uint32_t, const Verdict&) {}
};

// absl::SimpleAtoi of Envoy's range match: optional white space around, a sign, digits, no overflow.
bool parse_int64(std::string_view text, int64_t* out);

// The value of the first parameter of that name in the query; false when there is none. Names and values as sent (not
// percent-decoded).
bool first_query_value(std::string_view path, std::string_view name, std::string_view* value);

inline bool regex_holds(const VirtualHostRuntime& host, MatchScratch& scratch, uint32_t regex, std::string_view value,
                        bool* holds) {
  const table::Regex& r = host.object->regexes.at(host.object, regex);
  struct Want {
    uint32_t position;
    bool found;
  } want{r.position, false};
  const ScanStatus status = scan(
      *host.dbs[r.db], scratch.patterns, value,
      [](void* w, uint32_t position) {
        Want* to = static_cast<Want*>(w);
        return to->found = to->found || position == to->position;
      },
      &want);
  *holds = want.found;
  return status == ScanStatus::kDone;
}

// StringMatcher and the header specifiers. False: the regex engine failed.
inline bool string_holds(const VirtualHostRuntime& host, MatchScratch& scratch, const table::ValueMatch& m,
                         std::string_view value, bool* holds) {
  const std::string_view want = view(host.object, m.value);
  switch (m.kind) {
    case table::StringMatchKind::kPresent:
      *holds = true;
      return true;
    case table::StringMatchKind::kExact:
      *holds = m.ignore_case ? equals_folded(value, want) : value == want;
      return true;
    case table::StringMatchKind::kPrefix:
      *holds = value.size() >= want.size() &&
               (m.ignore_case ? equals_folded(value.substr(0, want.size()), want) : value.starts_with(want));
      return true;
    case table::StringMatchKind::kSuffix:
      *holds = value.size() >= want.size() &&
               (m.ignore_case ? equals_folded(value.substr(value.size() - want.size()), want) : value.ends_with(want));
      return true;
    case table::StringMatchKind::kContains:
      *holds = m.ignore_case ? contains_folded(value, want) : value.find(want) != std::string_view::npos;
      return true;
    case table::StringMatchKind::kRange: {
      int64_t number;
      *holds = parse_int64(value, &number) && number >= m.range_start && number < m.range_end;
      return true;
    }
    case table::StringMatchKind::kRegex:
      return regex_holds(host, scratch, m.regex, value, holds);
  }
  *holds = false;
  return true;
}

template <class Trace>
class Match {
 public:
  Match(const VirtualHostRuntime& runtime, const http::RequestHead& head, const MatchContext& context, Trace& trace,
        const MatchAhead* ahead = nullptr)
      : runtime_(runtime),
        host_(*runtime.object),
        head_(head),
        context_(context),
        trace_(trace),
        ahead_(ahead != nullptr && ahead->host_ == &runtime && ahead->whole_.data() == head.path.data() &&
                       ahead->whole_.size() == head.path.size()
                   ? ahead
                   : nullptr),
        blob_(runtime.blob),
        index_(*reinterpret_cast<const IndexHeader*>(blob_)),
        present_(head.headers.present()) {}

  MatchResult run() {
    MatchResult result;
    if (tls_required()) {
      result.outcome = MatchOutcome::kTlsRequired;
      return result;
    }
    if (head_.path.empty()) [[unlikely]] {
      return head_.method == "CONNECT" ? match_connect() : result;
    }
    path_ = ahead_ != nullptr ? ahead_->path_ : http::path_only(head_.path);

    const PrefixNode* chain = nullptr;
    if (runtime_.exact_slots != nullptr)
      exact({runtime_.exact_slots, runtime_.exact_mask, runtime_.exact_nodes}, path_,
            ahead_ != nullptr ? ahead_->exact_hash_ : base::hash64(path_));
    if (runtime_.prefix_slots != nullptr) {
      chain = longest_prefix({runtime_.prefix_slots, runtime_.prefix_mask, runtime_.prefix_nodes},
                             {runtime_.lengths, runtime_.length_count}, runtime_.first_length, path_, ahead_);
      walk(index_.prefix[0], runtime_.prefix_nodes, chain, path_);
    }
    if (runtime_.folded) match_folded();
    if (chain != nullptr) scan_databases(chain);

    return verdict();
  }

 private:
  // CONNECT has no path: only routes with a connect_matcher take it (Envoy: ConnectRouteEntryImpl).
  MatchResult match_connect() {
    path_ = kConnectLiteral;
    if (runtime_.exact_slots != nullptr)
      exact({runtime_.exact_slots, runtime_.exact_mask, runtime_.exact_nodes}, path_, base::hash64(path_));
    return verdict();
  }

  MatchResult verdict() const {
    MatchResult result;
    if (failed_rank_ < best_) {  // the route whose answer is unknown would have won
      result.outcome = failure_ == Refusal::kTooLong ? MatchOutcome::kTooLong : MatchOutcome::kPatternFailed;
      return result;
    }
    if (best_ == UINT32_MAX) return result;
    result.outcome = MatchOutcome::kRoute;
    result.route = best_;
    const uint32_t action = best_action_ != 0 ? best_action_ : runtime_.meta[best_].action;
    if (action != 0) result.action = &runtime_.actions[action - 1];
    return result;
  }

  template <class Node>
  struct Hashed {
    const Slot* slots;
    uint64_t mask;
    const Node* nodes;
  };
  template <class Node>
  Hashed<Node> hashed(const Section<Slot>& slots, const Section<Node>& nodes) const {
    return {slots.in(blob_), uint64_t{slots.count} - 1, nodes.in(blob_)};
  }

  void match_folded() {
    // One byte more than the longest literal is enough to tell "equal" from "longer" and to see a separator.
    const std::string_view lowered(context_.scratch->lower(), std::min<size_t>(path_.size(), size_t{index_.longest_folded} + 1));
    lower_copy(context_.scratch->lower(), path_.substr(0, lowered.size()));
    const ExactTable& exacts = index_.exact[1];
    const PrefixTable& prefixes = index_.prefix[1];
    if (exacts.slots.count != 0) exact(hashed(exacts.slots, exacts.nodes), lowered, base::hash64(lowered));
    if (prefixes.slots.count == 0) return;
    const std::span<const uint32_t> lengths(prefixes.lengths.in(blob_), prefixes.lengths.count);
    const PrefixNode* chain = longest_prefix(hashed(prefixes.slots, prefixes.nodes), lengths,
                                             lengths.empty() ? 0 : lengths[lengths.size() / 2], lowered, nullptr);
    walk(prefixes, prefixes.nodes.in(blob_), chain, lowered);
  }

  // ---- virtual host: require_tls (VirtualHostImpl::getRouteFromEntries)

  bool tls_required() const {
    if (runtime_.require_tls == table::RequireTls::kNone) return false;
    const std::string_view proto = head_.headers.get(http::HeaderId::kXForwardedProto);
    if (proto.empty() ? context_.is_tls : proto == "https") return false;
    return host_.require_tls == table::RequireTls::kAll || head_.headers.get(http::HeaderId::kXEnvoyInternal) != "true";
  }

  // ---- path

  template <class Node>
  bool begins(const Node& n, std::string_view path) const {
    if (path.size() < n.length) return false;
    if (n.length <= Node::kHeadBytes) return std::memcmp(n.head, path.data(), n.length) == 0;
    return std::memcmp(n.head, path.data(), Node::kHeadBytes) == 0 &&
           std::memcmp(index_.text.in(blob_) + n.rest, path.data() + Node::kHeadBytes, n.length - Node::kHeadBytes) == 0;
  }

  void exact(const Hashed<ExactNode>& table, std::string_view path, uint64_t hash) {
    for (uint64_t at = hash & table.mask; table.slots[at].node != 0; at = (at + 1) & table.mask) {
      if (table.slots[at].tag != static_cast<uint32_t>(hash >> 32)) continue;
      const ExactNode& n = table.nodes[table.slots[at].node - 1];
      if (n.length == path.size() && begins(n, path)) return try_run(n.ranks, n.action);
    }
  }

  // A node whose tag is that of `prefix`, which hashes to `hash`; with `compare`, one whose text is.
  const PrefixNode* find_prefix(const Hashed<PrefixNode>& table, std::string_view prefix, uint64_t hash, bool compare) const {
    for (uint64_t at = hash & table.mask; table.slots[at].node != 0; at = (at + 1) & table.mask) {
      if (table.slots[at].tag != static_cast<uint32_t>(hash >> 32)) continue;
      const PrefixNode& n = table.nodes[table.slots[at].node - 1];
      if (n.length == prefix.size() && (!compare || begins(n, prefix))) return &n;
    }
    return nullptr;
  }

  // The longest node (literal or marker) that begins `path`. Its text is compared once, at the end: a miss on the way is certain
  // (the hash of a text that is there is there too), and a false hit on the way can only make the last comparison fail. `first`:
  // the length that is tried first, lengths[size / 2]; `ahead` knows the hash for it.
  const PrefixNode* longest_prefix(const Hashed<PrefixNode>& table, std::span<const uint32_t> lengths, uint32_t first,
                                   std::string_view path, const MatchAhead* ahead) const {
    const PrefixNode* last = nullptr;
    uint32_t length = first;
    for (size_t low = 0, mid = lengths.size() / 2, high = lengths.size(); low < high;) {
      const PrefixNode* hit = nullptr;
      if (length <= path.size()) {
        const std::string_view prefix = path.substr(0, length);
        hit = find_prefix(table, prefix, ahead != nullptr ? ahead->prefix_hash_ : base::hash64(prefix), false);
      }
      ahead = nullptr;
      if (hit != nullptr) {
        last = hit;
        low = mid + 1;
      } else {
        high = mid;
      }
      if (low >= high) break;
      mid = (low + high) / 2;
      length = lengths[mid];
    }
    if (last == nullptr || begins(*last, path)) return last;
    for (size_t i = lengths.size(); i-- > 0;) {  // two texts share 32 hash bits: look at every length, comparing
      if (lengths[i] > path.size()) continue;
      const std::string_view prefix = path.substr(0, lengths[i]);
      if (const PrefixNode* hit = find_prefix(table, prefix, base::hash64(prefix), true)) return hit;
    }
    return nullptr;
  }

  void walk(const PrefixTable& table, const PrefixNode* nodes, const PrefixNode* node, std::string_view path) {
    for (; node != nullptr && node->best_rank < best_; node = node->parent != 0 ? &nodes[node->parent - 1] : nullptr) {
      try_run(node->ranks, node->action);
      if (node->more == 0) continue;
      const Run& separated = table.more.in(blob_)[node->more - 1].separated;
      if (separated.count != 0 && (path.size() == node->length || path[node->length] == '/')) try_run(separated, 0);
    }
  }

  void scan_databases(const PrefixNode* node) {
    const PrefixNode* nodes = runtime_.prefix_nodes;
    for (; node != nullptr && node->best_rank < best_; node = node->parent != 0 ? &nodes[node->parent - 1] : nullptr) {
      if (node->more == 0) continue;
      const Run& dbs = index_.prefix[0].more.in(blob_)[node->more - 1].dbs;
      const uint32_t* numbers = dbs.in(index_.numbers.in(blob_));
      for (uint32_t i = 0; i < dbs.count; ++i) {
        if (host_.regex_dbs.at(&host_, numbers[i]).best_rank >= best_) break;  // ascending: the rest is worse
        scan_paths(numbers[i]);
      }
    }
  }

  // Scans the path, then tries the routes of what matched: the engine's scratch is free again by then for header expressions.
  void scan_paths(uint32_t db_index) {
    const table::RegexDb& db = host_.regex_dbs.at(&host_, db_index);
    struct Found {
      uint32_t* ids;
      uint32_t count, capacity;
    } found{context_.scratch->ids(), 0, db.ids.count};
    const ScanStatus status = scan(
        *runtime_.dbs[db_index], context_.scratch->patterns, path_,
        [](void* f, uint32_t position) {
          Found* to = static_cast<Found*>(f);
          if (to->count < to->capacity) to->ids[to->count++] = position;
          return false;
        },
        &found);
    if (status == ScanStatus::kFailed) return failed(db.best_rank, Refusal::kPatternFailed);
    for (uint32_t i = 0; i < found.count; ++i) {
      if (found.ids[i] >= db.ids.count) continue;
      const uint32_t regex = db.ids.at(&host_, found.ids[i]);
      if (regex == UINT32_MAX) continue;
      const auto& ranks = host_.regexes.at(&host_, regex).ranks;
      for (uint32_t k = 0; k < ranks.count; ++k) {
        const uint32_t rank = ranks.at(&host_, k);
        if (rank >= best_) break;
        if (holds(rank)) break;
      }
    }
  }

  // ---- candidates

  // `action`: of the one rank that `run` has, if that is known.
  void try_run(const Run& run, uint32_t action) {
    const uint32_t* numbers = run.count == 1 ? &run.first : index_.numbers.in(blob_) + run.first;
    for (uint32_t i = 0; i < run.count; ++i) {
      const uint32_t rank = numbers[i] & ~kUnconditional;
      if (rank >= best_) return;
      if ((numbers[i] & kUnconditional) != 0) return wins(rank, action);
      if (holds(rank)) return;
    }
  }

  // The path of this route matches and its rank is below best_: do its predicates hold?
  bool holds(uint32_t rank) {
    const Verdict v = runtime_.meta[rank].needs == 0 ? Verdict{} : predicates(rank);
    if (v.refusal == Refusal::kNone) {
      wins(rank, 0);
      return true;
    }
    trace_.tried(rank, v);
    if (v.refusal == Refusal::kPatternFailed || v.refusal == Refusal::kTooLong) failed(rank, v.refusal);
    return false;
  }

  void wins(uint32_t rank, uint32_t action) {
    trace_.tried(rank, {});
    best_ = rank;
    best_action_ = action;
  }

  void failed(uint32_t rank, Refusal why) {
    if (rank >= failed_rank_) return;
    failed_rank_ = rank;
    failure_ = why;
  }

  Verdict predicates(uint32_t rank) {
    const RouteMeta& meta = runtime_.meta[rank];
    if constexpr (!Trace::kRecords) {
      if ((meta.present & present_) != meta.present) return {Refusal::kHeader, 0};
    }
    const table::Route& route = host_.routes.at(&host_, rank);
    if ((meta.needs & kNeedsFraction) && context_.random_value % route.fraction_denominator >= route.fraction_numerator) {
      return {Refusal::kFraction, 0};
    }
    if ((meta.needs & kNeedsGrpc) && !is_grpc()) return {Refusal::kGrpc, 0};
    if ((meta.needs & kNeedsCertificate) &&
        !(holds(route.presented, context_.certificate_presented) && holds(route.validated, context_.certificate_validated)))
      return {Refusal::kCertificate, 0};
    if (meta.needs & kNeedsHeaders) {
      for (uint32_t i = 0; i < route.headers.count; ++i)
        if (const Refusal r = header_holds(route.headers.at(&host_, i)); r != Refusal::kNone) return {r, i};
    }
    if (meta.needs & kNeedsQuery) {
      for (uint32_t i = 0; i < route.query.count; ++i)
        if (const Refusal r = query_holds(route.query.at(&host_, i)); r != Refusal::kNone) return {r, i};
    }
    return {};
  }

  static bool holds(table::CertificateMatch wanted, bool is) {
    return wanted == table::CertificateMatch::kAny || (wanted == table::CertificateMatch::kYes) == is;
  }

  // Grpc::Common::isGrpcRequestHeaders: content-type application/grpc, or application/grpc+...
  bool is_grpc() const {
    constexpr std::string_view kGrpc = "application/grpc";
    const std::string_view type = head_.headers.get(http::HeaderId::kContentType);
    return type.starts_with(kGrpc) && (type.size() == kGrpc.size() || type[kGrpc.size()] == '+');
  }

  // HeaderUtility::matchHeaders HeaderUtility::HeaderDataBaseImpl::matchesHeaders. Of repeated fields it is enough that one value
  // holds (Envoy since 1.39); fields that Envoy keeps as one (kJoinedFields) are joined first.
  Refusal header_holds(const table::ValueMatch& m) {
    const auto id = static_cast<http::HeaderId>(m.header);
    if (!is_pseudo(m.header) && (kJoinedFields >> static_cast<int>(id) & 1) == 0) {
      if (head_.headers.has(id)) {
        const std::string_view name = view(&host_, m.name);
        bool found = false;
        for (const http::Header& h : head_.headers) {
          if (h.id != id || (id == http::HeaderId::kOther && h.name != name)) continue;
          found = true;
          bool holds = false;
          if (!value_holds(m, h.value, &holds)) return Refusal::kPatternFailed;
          if (holds) return m.invert == 0 ? Refusal::kNone : Refusal::kHeader;
        }
        if (found) return m.invert != 0 ? Refusal::kNone : Refusal::kHeader;
      }
      return missing_holds(m);
    }
    std::string_view value;
    bool missing = false;
    if (!header_value(m, &value, &missing)) return Refusal::kTooLong;
    if (missing) return missing_holds(m);
    bool holds = false;
    if (!value_holds(m, value, &holds)) return Refusal::kPatternFailed;
    return holds != (m.invert != 0) ? Refusal::kNone : Refusal::kHeader;
  }

  Refusal missing_holds(const table::ValueMatch& m) {
    if (!m.treat_missing_as_empty)
      return m.kind == table::StringMatchKind::kPresent && m.invert ? Refusal::kNone : Refusal::kHeader;
    bool holds = false;
    if (!value_holds(m, {}, &holds)) return Refusal::kPatternFailed;
    return holds != (m.invert != 0) ? Refusal::kNone : Refusal::kHeader;
  }

  static bool is_pseudo(uint32_t header) {
    return header == table::kPseudoMethod || header == table::kPseudoPath || header == table::kPseudoAuthority ||
           header == table::kPseudoScheme;
  }
  static constexpr uint64_t joined_field(http::HeaderId id) { return uint64_t{1} << static_cast<int>(id); }
  // Fields that Envoy's header map holds once, whatever came (its inline headers).
  static constexpr uint64_t kJoinedFields =
      joined_field(http::HeaderId::kConnection) | joined_field(http::HeaderId::kContentType) | joined_field(http::HeaderId::kTe) |
      joined_field(http::HeaderId::kUserAgent) | joined_field(http::HeaderId::kXForwardedFor) |
      joined_field(http::HeaderId::kXForwardedProto) | joined_field(http::HeaderId::kXForwardedHost) |
      joined_field(http::HeaderId::kXForwardedPort) | joined_field(http::HeaderId::kXRequestId) |
      joined_field(http::HeaderId::kVia) | joined_field(http::HeaderId::kGrpcTimeout);

  // All values of a field that is kept as one, joined with ",". False: no room.
  bool header_value(const table::ValueMatch& m, std::string_view* value, bool* missing) {
    switch (m.header) {
      case table::kPseudoMethod:
        *value = head_.method;
        return true;
      case table::kPseudoPath:
        *value = head_.path;
        return true;
      case table::kPseudoAuthority:
        *value = head_.authority;
        return true;
      case table::kPseudoScheme:
        *value = !head_.scheme.empty() ? head_.scheme : context_.is_tls ? std::string_view("https") : std::string_view("http");
        return true;
      default:
        break;
    }
    const auto id = static_cast<http::HeaderId>(m.header);
    *missing = true;
    if (!head_.headers.has(id)) return true;
    const std::string_view name = view(&host_, m.name);
    const std::string_view separator = ",";
    size_t joined = 0;
    for (const http::Header& h : head_.headers) {
      if (h.id != id || (id == http::HeaderId::kOther && h.name != name)) continue;
      if (*missing) {
        *value = h.value;
        *missing = false;
        continue;
      }
      char* to = context_.scratch->joined();
      const size_t need = (joined == 0 ? value->size() : joined) + separator.size() + h.value.size();
      if (need > context_.scratch->joined_capacity()) return false;
      if (joined == 0) {
        if (!value->empty()) std::memcpy(to, value->data(), value->size());
        joined = value->size();
      }
      std::memcpy(to + joined, separator.data(), separator.size());
      if (!h.value.empty()) std::memcpy(to + joined + separator.size(), h.value.data(), h.value.size());
      joined = need;
      *value = {to, joined};
    }
    return true;
  }

  // ConfigUtility::QueryParameterMatcher::matches
  Refusal query_holds(const table::ValueMatch& m) {
    std::string_view value;
    const bool there = first_query_value(head_.path, view(&host_, m.name), &value);
    if (m.kind == table::StringMatchKind::kPresent) return there != (m.invert != 0) ? Refusal::kNone : Refusal::kQuery;
    if (!there) return Refusal::kQuery;
    bool holds = false;
    if (!value_holds(m, value, &holds)) return Refusal::kPatternFailed;
    return holds ? Refusal::kNone : Refusal::kQuery;
  }

  bool value_holds(const table::ValueMatch& m, std::string_view value, bool* holds) {
    return string_holds(runtime_, *context_.scratch, m, value, holds);
  }

  const VirtualHostRuntime& runtime_;
  const table::VirtualHost& host_;
  const http::RequestHead& head_;
  const MatchContext& context_;
  Trace& trace_;
  const MatchAhead* ahead_;  // null: nothing was done ahead for this path
  const uint8_t* blob_;
  const IndexHeader& index_;  // read where the runtime does not know
  const uint64_t present_;
  std::string_view path_;
  uint32_t best_ = UINT32_MAX;
  uint32_t best_action_ = 0;  // 0: RouteMeta knows
  uint32_t failed_rank_ = UINT32_MAX;
  Refusal failure_ = Refusal::kNone;
};

}  // namespace millrace::route
