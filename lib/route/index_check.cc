// What the loader checks before a worker follows it blindly. Complements table::validate (which checks that every reference of
// the object lies inside it): here are the numbers that mean something only to the matcher.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "lib/base/hash.h"
#include "lib/route/index_format.h"
#include "lib/route/matcher.h"

namespace millrace::route {

namespace {

base::Error bad(const std::string& what) { return base::Error{"virtual host object: " + what}; }

class IndexCheck {
 public:
  IndexCheck(const table::VirtualHost& host, const uint8_t* blob, uint32_t size)
      : host_(host), blob_(blob), size_(size), index_(*reinterpret_cast<const IndexHeader*>(blob)) {}

  base::Status run() {
    if (index_.magic != kIndexMagic || index_.version != kIndexVersion) return bad("the route index is of another version");
    if (index_.size != size_) return bad("the route index has another size than it says");
    if (index_.header_ids != header_id_fingerprint())
      return bad("the route index numbers header names otherwise than this program");
    if (!fits(index_.meta) || !fits(index_.actions) || !fits(index_.numbers) || !fits(index_.text))
      return bad("a section of the route index runs out of it");
    if (index_.meta.count != host_.routes.count) return bad("the route index was made for another number of routes");
    if (index_.longest_folded > kMaxPathLiteralBytes) return bad("the longest literal of the route index is too long");
    for (uint32_t rank = 0; rank < host_.routes.count; ++rank)
      if (!action(rank)) return bad("the route index says otherwise than a route what is to be done");
    for (int folded = 0; folded < 2; ++folded) {
      if (!exact(index_.exact[folded], folded == 1)) return bad("the table of exact paths is damaged");
      if (!prefix(index_.prefix[folded], folded == 1)) return bad("the table of path prefixes is damaged");
    }
    return {};
  }

 private:
  template <class T>
  bool fits(const Section<T>& s) const {
    return s.count == 0 || (s.offset >= sizeof(IndexHeader) && s.offset % alignof(T) == 0 && s.offset <= size_ &&
                            s.count <= (size_ - s.offset) / sizeof(T));
  }
  bool fits(const Run& r) const {
    if (r.count == 1) return true;
    return r.first <= index_.numbers.count && r.count <= index_.numbers.count - r.first;
  }
  template <class Node>
  bool literal(const Node& n, bool folded) const {
    const uint32_t beyond = n.length - std::min(n.length, Node::kHeadBytes);
    return (beyond == 0 || (n.rest <= index_.text.count && beyond <= index_.text.count - n.rest)) &&
           n.length <= kMaxPathLiteralBytes && (!folded || n.length <= index_.longest_folded);
  }
  // What a worker does without looking at the route must be what the route says.
  bool action(uint32_t rank) const {
    const uint32_t index = index_.meta.in(blob_)[rank].action;
    if (index == 0) return true;
    if (index > index_.actions.count) return false;
    const RouteAction& a = index_.actions.in(blob_)[index - 1];
    const table::Route& r = host_.routes.at(&host_, rank);
    const auto edits = [](const table::HeaderMutations& m) {
      return (m.request_add.count | m.response_add.count | m.request_remove.count | m.response_remove.count) != 0;
    };
    if (r.action != table::ActionKind::kCluster || r.clusters.count != 1 || edits(r.headers_mut)) return false;
    if ((r.has_prefix_rewrite | r.has_host_rewrite | r.auto_host_rewrite) != 0) return false;
    if ((r.upgrades.count | r.retry.count | r.hash_policies.count) != 0 || r.max_stream_duration_ms != UINT32_MAX) return false;
    if ((r.count_in_request | r.count_in_response) != 0) return false;
    const table::WeightedCluster& c = r.clusters.at(&host_, 0);
    return !edits(c.headers) && a == RouteAction{c.cluster, r.timeout_ms, r.idle_timeout_ms, r.cluster_not_found_status, 0};
  }
  bool action_of(const Run& r, uint32_t action) const {
    return action == (r.count == 1 ? index_.meta.in(blob_)[r.first & ~kUnconditional].action : 0);
  }
  bool ranks(const Run& r) const {
    if (!fits(r)) return false;
    const uint32_t* n = r.in(index_.numbers.in(blob_));
    for (uint32_t i = 0; i < r.count; ++i) {
      const uint32_t rank = n[i] & ~kUnconditional;
      if (rank >= host_.routes.count || (i > 0 && rank <= (n[i - 1] & ~kUnconditional))) return false;
    }
    return true;
  }
  bool databases(const Run& r) const {
    if (!fits(r)) return false;
    const uint32_t* n = r.in(index_.numbers.in(blob_));
    for (uint32_t i = 0; i < r.count; ++i)
      if (n[i] >= host_.regex_dbs.count || host_.regex_dbs.at(&host_, n[i]).input != table::RegexInput::kPath) return false;
    return true;
  }
  // Probing must end: a power of two with a free slot.
  bool slots(const Section<Slot>& s, uint32_t nodes) const {
    if (!fits(s) || (s.count == 0) != (nodes == 0)) return false;
    if (s.count == 0) return true;
    if (!std::has_single_bit(s.count)) return false;
    bool free = false;
    for (uint32_t i = 0; i < s.count; ++i) {
      const uint32_t node = s.in(blob_)[i].node;
      if (node > nodes) return false;
      free = free || node == 0;
    }
    return free;
  }
  bool exact(const ExactTable& t, bool folded) const {
    if (!fits(t.nodes) || !slots(t.slots, t.nodes.count)) return false;
    for (uint32_t i = 0; i < t.nodes.count; ++i) {
      const ExactNode& n = t.nodes.in(blob_)[i];
      if (!literal(n, folded) || !ranks(n.ranks) || !action_of(n.ranks, n.action)) return false;
    }
    return true;
  }
  bool prefix(const PrefixTable& t, bool folded) const {
    if (!fits(t.nodes) || !slots(t.slots, t.nodes.count) || !fits(t.lengths) || !fits(t.more)) return false;
    for (uint32_t i = 0; i < t.lengths.count; ++i)
      if (t.lengths.in(blob_)[i] > kMaxPathLiteralBytes || (i > 0 && t.lengths.in(blob_)[i] <= t.lengths.in(blob_)[i - 1]))
        return false;
    const PrefixNode* nodes = t.nodes.in(blob_);
    for (uint32_t i = 0; i < t.nodes.count; ++i) {
      const PrefixNode& n = nodes[i];
      if (!literal(n, folded) || !ranks(n.ranks) || !action_of(n.ranks, n.action) || n.more > t.more.count) return false;
      // Every step to a parent shortens the text (so walks end), and the parent's text begins this one's (so it begins the path
      // too).
      if (n.parent > t.nodes.count) return false;
      if (n.parent != 0) {
        const PrefixNode& p = nodes[n.parent - 1];
        if (p.length >= n.length || !literal(p, folded)) return false;
        const uint32_t head = std::min(p.length, PrefixNode::kHeadBytes);
        if (std::memcmp(p.head, n.head, head) != 0) return false;
        const char* text = index_.text.in(blob_);
        if (p.length > head && std::memcmp(text + p.rest, text + n.rest, p.length - head) != 0) return false;
      }
    }
    for (uint32_t i = 0; i < t.more.count; ++i)
      if (!ranks(t.more.in(blob_)[i].separated) || !databases(t.more.in(blob_)[i].dbs)) return false;
    return true;
  }

  const table::VirtualHost& host_;
  const uint8_t* blob_;
  const uint32_t size_;
  const IndexHeader& index_;
};

base::Status check_matcher(const table::VirtualHost& host, const table::ValueMatch& m, table::RegexInput input) {
  if (m.kind > table::StringMatchKind::kRange) return bad("a matcher is of an unknown kind");
  const bool pseudo = m.header >= table::kPseudoMethod && m.header <= table::kPseudoScheme;
  if (!pseudo && m.header >= static_cast<uint8_t>(http::HeaderId::kCount)) return bad("a matcher names an unknown header id");
  if (m.kind != table::StringMatchKind::kRegex) return {};
  if (m.regex >= host.regexes.count) return bad("a matcher names a regex that is not there");
  const table::RegexDb& db = host.regex_dbs.at(&host, host.regexes.at(&host, m.regex).db);
  if (db.input != input) return bad("a matcher uses a regex of another input");
  return {};
}

base::Status check_regexes(const table::VirtualHost& host) {
  for (uint32_t i = 0; i < host.regexes.count; ++i) {
    const table::Regex& r = host.regexes.at(&host, i);
    if (r.db >= host.regex_dbs.count) return bad("a regex names a database that is not there");
    const table::RegexDb& db = host.regex_dbs.at(&host, r.db);
    if (r.position >= db.ids.count || db.ids.at(&host, r.position) != i)
      return bad("a regex and its database disagree about its position");
    for (uint32_t k = 0; k < r.ranks.count; ++k) {
      const uint32_t rank = r.ranks.at(&host, k);
      if (rank >= host.routes.count || (k > 0 && rank <= r.ranks.at(&host, k - 1)))
        return bad("a regex's routes are out of range or order");
    }
  }
  for (uint32_t i = 0; i < host.regex_dbs.count; ++i) {
    const table::RegexDb& db = host.regex_dbs.at(&host, i);
    if (db.input > table::RegexInput::kQuery) return bad("a regex database has an unknown input");
    if (db.ids.count == 0 || db.ids.count > kMaxPatternsPerDb) return bad("a regex database has too many or no expressions");
    for (uint32_t k = 0; k < db.ids.count; ++k)
      if (const uint32_t id = db.ids.at(&host, k); id != UINT32_MAX && id >= host.regexes.count)
        return bad("a regex database names a regex that is not there");
  }
  return {};
}

base::Status check_routes(const table::VirtualHost& host) {
  for (uint32_t i = 0; i < host.routes.count; ++i) {
    const table::Route& r = host.routes.at(&host, i);
    if (r.path_kind > table::PathKind::kConnect || r.action > table::ActionKind::kDirectResponse)
      return bad("a route is of an unknown kind");
    if (r.fraction_denominator == 0) return bad("a route's runtime fraction has denominator 0");
    if (r.path_kind == table::PathKind::kRegex && r.path_regex >= host.regexes.count)
      return bad("a route names a regex that is not there");
    for (uint32_t k = 0; k < r.headers.count; ++k)
      if (auto s = check_matcher(host, r.headers.at(&host, k), table::RegexInput::kHeader); !s.ok()) return s;
    for (uint32_t k = 0; k < r.query.count; ++k)
      if (auto s = check_matcher(host, r.query.at(&host, k), table::RegexInput::kQuery); !s.ok()) return s;
    for (uint32_t f = 0; f < r.filters.count; ++f) {
      const auto& policies = r.filters.at(&host, f).cors;
      for (uint32_t p = 0; p < policies.count; ++p)
        for (uint32_t k = 0; k < policies.at(&host, p).origins.count; ++k)
          if (auto s = check_matcher(host, policies.at(&host, p).origins.at(&host, k), table::RegexInput::kHeader); !s.ok())
            return s;
    }
    if (r.action == table::ActionKind::kCluster && r.clusters.count != 1)
      return bad("a cluster route has not exactly one cluster");
    if (r.action == table::ActionKind::kWeightedClusters) {
      uint64_t sum = 0;
      for (uint32_t k = 0; k < r.clusters.count; ++k) sum += r.clusters.at(&host, k).weight;
      if (r.clusters.count == 0 || sum == 0 || sum != r.total_weight) return bad("a route's weights do not add up");
    }
  }
  return {};
}

bool slots_ok(const table::RouteTable& t, const table::Array<uint32_t>& slots, uint32_t entries) {
  if (slots.count == 0) return entries == 0;
  if (!std::has_single_bit(slots.count)) return false;
  bool free = false;
  for (uint32_t i = 0; i < slots.count; ++i) {
    if (slots.at(&t, i) > entries) return false;
    free = free || slots.at(&t, i) == 0;
  }
  return free;
}

}  // namespace

uint64_t header_id_fingerprint() {
  uint64_t h = static_cast<uint64_t>(http::HeaderId::kCount);
  for (int i = 1; i < static_cast<int>(http::HeaderId::kCount); ++i)
    h = base::hash64(http::header_name(static_cast<http::HeaderId>(i)), h);
  return h;
}

base::Status validate_index(const table::VirtualHost& host) {
  if (host.routes.count > kMaxRoutesPerVirtualHost) return bad("it has too many routes");
  if (host.require_tls > table::RequireTls::kAll) return bad("require_tls is unknown");
  if (auto s = check_regexes(host); !s.ok()) return s;
  if (auto s = check_routes(host); !s.ok()) return s;
  if (host.index.count < sizeof(IndexHeader) || host.index.offset % 8 != 0)
    return bad("the route index is missing or misaligned");
  return IndexCheck(host, host.index.begin(&host), host.index.count).run();
}

base::Status validate_route_table(const table::RouteTable& t) {
  const auto wrong = [](const char* what) { return base::Error{std::string("route table object: ") + what}; };
  const struct {
    const table::Array<table::DomainEntry>& domains;
    const table::Array<uint32_t>& slots;
    const table::Array<uint32_t>* lengths;
  } parts[] = {{t.exact, t.exact_slots, nullptr},
               {t.suffixes, t.suffix_slots, &t.suffix_lengths},
               {t.prefixes, t.prefix_slots, &t.prefix_lengths}};
  for (const auto& part : parts) {
    if (!slots_ok(t, part.slots, part.domains.count)) return wrong("a domain hash table is damaged");
    for (uint32_t i = 0; i < part.domains.count; ++i) {
      const table::DomainEntry& d = part.domains.at(&t, i);
      if (d.virtual_host >= t.virtual_hosts.count) return wrong("a domain names a virtual host that is not there");
      if (d.text.count > kMaxDomainBytes) return wrong("a domain is too long");
    }
    if (part.lengths != nullptr)
      for (uint32_t i = 0; i < part.lengths->count; ++i)
        if (part.lengths->at(&t, i) > kMaxDomainBytes) return wrong("a wildcard length is too long");
  }
  if (t.default_virtual_host != kNoVirtualHost && t.default_virtual_host >= t.virtual_hosts.count) {
    return wrong("the default virtual host is not there");
  }
  return {};
}

}  // namespace millrace::route
