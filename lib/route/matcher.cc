#include "lib/route/matcher.h"

#include <span>

#include "lib/route/matcher_impl.h"

namespace millrace::route {

MatchScratch::MatchScratch(size_t max_header_bytes)
    : joined_capacity_(std::max<size_t>(max_header_bytes, 64 * 1024)),
      joined_(new char[joined_capacity_]),
      lower_(new char[kMaxPathLiteralBytes + 1]),
      ids_(new uint32_t[kMaxPatternsPerDb]) {}

const char* to_string(MatchOutcome outcome) {
  switch (outcome) {
    case MatchOutcome::kRoute:
      return "route";
    case MatchOutcome::kNoRoute:
      return "no_route";
    case MatchOutcome::kTlsRequired:
      return "tls_required";
    case MatchOutcome::kPatternFailed:
      return "pattern_failed";
    case MatchOutcome::kTooLong:
      return "too_long";
  }
  return "?";
}

// ---- virtual host -----------------------------------------------------------------------------------------------------

namespace {

// HeaderUtility::getPortStart: the last colon, unless it lies inside an IPv6 literal's brackets.
std::string_view without_port(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos) return authority;
  const size_t bracket = authority.rfind(']');
  return bracket == std::string_view::npos || bracket < colon ? authority.substr(0, colon) : authority;
}

const table::DomainEntry* find_domain(const table::RouteTable& table, const table::Array<table::DomainEntry>& domains,
                                      const table::Array<uint32_t>& slots, std::string_view text) {
  if (slots.count == 0) return nullptr;
  const uint64_t mask = slots.count - 1;
  const uint64_t hash = base::hash64(text);
  for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
    const uint32_t slot = slots.at(&table, static_cast<uint32_t>(at));
    if (slot == 0) return nullptr;
    const table::DomainEntry& d = domains.at(&table, slot - 1);
    if (d.hash == hash && view(&table, d.text) == text) return &d;
  }
}

}  // namespace

HostResult find_virtual_host(const table::RouteTable& table, std::string_view authority) {
  const HostResult fallback{table.default_virtual_host,
                            table.default_virtual_host == kNoVirtualHost ? HostMatch::kNone : HostMatch::kDefault};
  if (table.exact.count + table.suffixes.count + table.prefixes.count == 0) return fallback;
  std::string_view host = table.ignore_port_in_host_matching ? without_port(authority) : authority;

  // Domains have at most kMaxDomainBytes: of a longer host only its ends can matter.
  char head_bytes[kMaxDomainBytes], tail_bytes[kMaxDomainBytes];
  const size_t n = std::min<size_t>(host.size(), kMaxDomainBytes);
  lower_copy(head_bytes, host.substr(0, n));
  const std::string_view head(head_bytes, n);
  std::string_view tail = head;
  if (host.size() > n) {
    lower_copy(tail_bytes, host.substr(host.size() - n));
    tail = std::string_view(tail_bytes, n);
  } else if (const table::DomainEntry* d = find_domain(table, table.exact, table.exact_slots, head)) {
    return {d->virtual_host, HostMatch::kExact};
  }
  for (const uint32_t length : std::span(table.suffix_lengths.begin(&table), table.suffix_lengths.count)) {
    if (length >= host.size()) continue;  // a wildcard stands for at least one character
    if (const table::DomainEntry* d = find_domain(table, table.suffixes, table.suffix_slots, tail.substr(tail.size() - length))) {
      return {d->virtual_host, HostMatch::kSuffix};
    }
  }
  for (const uint32_t length : std::span(table.prefix_lengths.begin(&table), table.prefix_lengths.count)) {
    if (length >= host.size()) continue;
    if (const table::DomainEntry* d = find_domain(table, table.prefixes, table.prefix_slots, head.substr(0, length))) {
      return {d->virtual_host, HostMatch::kPrefix};
    }
  }
  return fallback;
}

// ---- route ------------------------------------------------------------------------------------------------------------

bool parse_int64(std::string_view text, int64_t* out) {
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.empty()) return false;
  int64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    if (__builtin_mul_overflow(value, 10, &value)) return false;
    if (negative ? __builtin_sub_overflow(value, c - '0', &value) : __builtin_add_overflow(value, c - '0', &value)) return false;
  }
  *out = value;
  return true;
}

bool first_query_value(std::string_view path, std::string_view name, std::string_view* value) {
  const size_t mark = path.find('?');
  if (mark == std::string_view::npos) return false;
  std::string_view rest = path.substr(mark + 1);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view parameter = rest.substr(0, end);
    const size_t equal = parameter.find('=');
    if (parameter.substr(0, equal) == name) {
      *value = equal == std::string_view::npos ? std::string_view{} : parameter.substr(equal + 1);
      return true;
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

VirtualHostRuntime::VirtualHostRuntime(const table::VirtualHost* host, const PatternDb* const* databases)
    : object(host), dbs(databases), blob(host->index.begin(host)), require_tls(host->require_tls) {
  const IndexHeader& index = *reinterpret_cast<const IndexHeader*>(blob);
  if (index.exact[0].slots.count != 0) {
    exact_slots = index.exact[0].slots.in(blob);
    exact_nodes = index.exact[0].nodes.in(blob);
    exact_mask = index.exact[0].slots.count - 1;
  }
  if (index.prefix[0].slots.count != 0) {
    prefix_slots = index.prefix[0].slots.in(blob);
    prefix_nodes = index.prefix[0].nodes.in(blob);
    prefix_mask = index.prefix[0].slots.count - 1;
    lengths = index.prefix[0].lengths.in(blob);
    length_count = index.prefix[0].lengths.count;
    if (length_count != 0) first_length = lengths[length_count / 2];
  }
  meta = index.meta.in(blob);
  actions = index.actions.in(blob);
  const table::HeaderMutations& m = host->headers_mut;
  edits = (m.request_add.count | m.response_add.count | m.request_remove.count | m.response_remove.count) != 0;
  folded = index.exact[1].nodes.count + index.prefix[1].nodes.count != 0;
}

void MatchAhead::fetch_slots(const VirtualHostRuntime& host, std::string_view path) {
  if (path.empty()) return;
  host_ = &host;
  whole_ = path;
  __builtin_prefetch(host.actions);  // a virtual host has few different ones
  path_ = http::path_only(path);
  if (host.prefix_slots != nullptr && host.first_length <= path_.size()) {
    prefix_hash_ = base::hash64(path_.substr(0, host.first_length));
    __builtin_prefetch(host.prefix_slots + (prefix_hash_ & host.prefix_mask));
  }
  if (host.exact_slots != nullptr) {
    exact_hash_ = base::hash64(path_);
    __builtin_prefetch(host.exact_slots + (exact_hash_ & host.exact_mask));
  }
}

void MatchAhead::fetch_nodes() const {
  // The node of the first slot with the right tag, if it is found in the line that has been fetched.
  const auto fetch = [](const Slot* slots, uint64_t mask, uint64_t hash, const auto* nodes) {
    const uint64_t in_line = kLineBytes / sizeof(Slot);
    for (uint64_t at = hash & mask, end = (at | (in_line - 1)) + 1; at < end && at <= mask && slots[at].node != 0; ++at)
      if (slots[at].tag == static_cast<uint32_t>(hash >> 32)) return __builtin_prefetch(nodes + slots[at].node - 1);
  };
  if (host_ == nullptr) return;
  const VirtualHostRuntime& host = *host_;
  if (host.prefix_slots != nullptr && host.first_length <= path_.size())
    fetch(host.prefix_slots, host.prefix_mask, prefix_hash_, host.prefix_nodes);
  if (host.exact_slots != nullptr) fetch(host.exact_slots, host.exact_mask, exact_hash_, host.exact_nodes);
}

MatchResult match_route(const VirtualHostRuntime& host, const http::RequestHead& head, const MatchContext& context,
                        const MatchAhead* ahead) {
  NoTrace trace;
  return Match<NoTrace>(host, head, context, trace, ahead).run();
}

bool value_matches(const VirtualHostRuntime& host, const table::ValueMatch& matcher, std::string_view value,
                   MatchScratch& scratch, bool* holds) {
  return string_holds(host, scratch, matcher, value, holds);
}

}  // namespace millrace::route
