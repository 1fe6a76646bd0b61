// Which virtual host and which route a request takes. Poll core: no heap, no lock, no system call; everything it reads is a
// validated, immutable object (lib/table) plus what the loader made of it (runtime.h). The answers are those of Envoy's linear
// scan (RouteMatcher::findVirtualHost, VirtualHostImpl::getRouteFromEntries), whatever the data structure; tests compare both.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "lib/base/status.h"
#include "lib/http/message.h"
#include "lib/route/pattern_db.h"
#include "lib/table/objects.h"

namespace millrace::route {

inline constexpr uint32_t kMaxDomainBytes = 255;             // of one VirtualHost.domains entry (DNS allows 253)
inline constexpr uint32_t kMaxPathLiteralBytes = 16 * 1024;  // of one path, prefix or path_separated_prefix
inline constexpr uint32_t kMaxRoutesPerVirtualHost = 1 << 20;

// ---- virtual host -----------------------------------------------------------------------------------------------------

inline constexpr uint32_t kNoVirtualHost = UINT32_MAX;
enum class HostMatch : uint8_t { kNone, kExact, kSuffix, kPrefix, kDefault };
struct HostResult {
  uint32_t index = kNoVirtualHost;  // into RouteTable.virtual_hosts
  HostMatch how = HostMatch::kNone;
};
// Exact domain, else the longest suffix wildcard, else the longest prefix wildcard, else "*"; a wildcard never stands for
// nothing. `authority` as the client sent it: compared in lower case, without its port if the table says
// ignore_port_in_host_matching.
HostResult find_virtual_host(const table::RouteTable& table, std::string_view authority);

// ---- route ------------------------------------------------------------------------------------------------------------

// A virtual host as workers use it: the object, and its databases in the order of object->regex_dbs. Views; owner is
// LoadedVirtualHost (runtime.h), which the snapshot keeps.
// Where the matcher's structures lie is looked up once, here: so a request reads these two lines instead of the object's and its
// index's first ones.
struct Slot;
struct ExactNode;
struct PrefixNode;
struct RouteMeta;
struct RouteAction;
struct VirtualHostRuntime {
  VirtualHostRuntime() = default;
  // `object` has passed validate_index().
  VirtualHostRuntime(const table::VirtualHost* object, const PatternDb* const* dbs);

  const table::VirtualHost* object = nullptr;
  const PatternDb* const* dbs = nullptr;
  const uint8_t* blob = nullptr;  // the index (index_format.h)
  // Of the case-sensitive tables; null: none. Masks: slots - 1.
  const Slot* exact_slots = nullptr;
  const ExactNode* exact_nodes = nullptr;
  const Slot* prefix_slots = nullptr;
  const PrefixNode* prefix_nodes = nullptr;
  const uint32_t* lengths = nullptr;
  const RouteMeta* meta = nullptr;
  const RouteAction* actions = nullptr;
  uint32_t exact_mask = 0, prefix_mask = 0;
  uint32_t length_count = 0;
  uint32_t first_length = 0;  // with which the search for a prefix begins
  bool folded = false;        // there are case-insensitive literals
  bool edits = false;         // object->headers_mut is not empty
  table::RequireTls require_tls = table::RequireTls::kNone;
};

// Working memory of one worker, made before it runs (heap in the constructor only). Not thread-safe.
class MatchScratch {
 public:
  // `max_header_bytes`: the largest header section a listener accepts (values of one name are joined here). Rounded up to 64 KiB.
  explicit MatchScratch(size_t max_header_bytes = 64 * 1024);

  PatternScratch patterns;  // the loader's latest clone: swap it in together with the snapshot

  char* joined() { return joined_.get(); }
  size_t joined_capacity() const { return joined_capacity_; }
  char* lower() { return lower_.get(); }  // kMaxPathLiteralBytes + 1
  uint32_t* ids() { return ids_.get(); }  // kMaxPatternsPerDb, for path databases

 private:
  size_t joined_capacity_;
  std::unique_ptr<char[]> joined_, lower_;
  std::unique_ptr<uint32_t[]> ids_;
};

struct MatchContext {
  uint64_t random_value = 0;  // one per request: runtime_fraction and pick_cluster use the same, as Envoy does
  bool is_tls = false;        // the downstream connection: used where the head has no x-forwarded-proto or scheme
  MatchScratch* scratch = nullptr;
  bool certificate_presented = false, certificate_validated = false;  // of the client
};

enum class MatchOutcome : uint8_t {
  kRoute,          // `route` wins
  kNoRoute,        // 404, response flag NR
  kTlsRequired,    // VirtualHost.require_tls: 301 to https://HOST/PATH (rewrite.h, tls_redirect_target)
  kPatternFailed,  // the regex engine failed where its answer mattered: 500, never a silent no-match
  kTooLong,        // joined header values larger than MatchScratch: 500
};
const char* to_string(MatchOutcome outcome);  // "route", "no_route", "tls_required", "pattern_failed", "too_long": counter names

struct MatchResult {
  MatchOutcome outcome = MatchOutcome::kNoRoute;
  uint32_t route = UINT32_MAX;          // kRoute: index into VirtualHost.routes
  const RouteAction* action = nullptr;  // kRoute: all there is to its action (index_format.h), in the object; null: see the route
};

// Brings what match_route() will touch into the cache while the caller is still at other work, and keeps what it computed. A
// request for one of 100,000 routes finds neither its slot nor its node in the cache; each takes as long as some 300
// instructions.
class MatchAhead {
 public:
  // As soon as the virtual host is known. `path`: as the request has it (query included), and as match_route() will see it; if it
  // changes on the way, all this was for nothing and nothing else.
  void fetch_slots(const VirtualHostRuntime& host, std::string_view path);
  // Some 100 ns later: reads the slots.
  void fetch_nodes() const;
  // The caller changed the path's bytes in place, or may have.
  void forget() { host_ = nullptr; }

 private:
  template <class Trace>
  friend class Match;
  const VirtualHostRuntime* host_ = nullptr;
  std::string_view whole_, path_;  // with and without its query
  uint64_t exact_hash_ = 0, prefix_hash_ = 0;
};

// The first route (lowest index) of the virtual host that matches. `head` after the connection manager's edits
// (x-forwarded-proto, x-envoy-internal, normalised path). A request without a path (CONNECT) matches
// routes with a connect_matcher, and no others do.
// `ahead`: what was done for this very request beforehand, or null.
MatchResult match_route(const VirtualHostRuntime& host, const http::RequestHead& head, const MatchContext& context,
                        const MatchAhead* ahead = nullptr);

// Whether one matcher of the virtual host takes a value: what a filter asks of the text that its policy speaks of (CorsPolicy).
// No header is looked up, and `invert` is the caller's business. False: the regex engine failed.
bool value_matches(const VirtualHostRuntime& host, const table::ValueMatch& matcher, std::string_view value,
                   MatchScratch& scratch, bool* holds);

// Which of route.clusters: index. Envoy's arithmetic: random % total_weight, then a walk over the weights in order.
// Undefined for routes without clusters.
inline uint32_t pick_cluster(const table::VirtualHost& host, const table::Route& route, uint64_t random_value) {
  const uint32_t n = route.clusters.count;
  if (n <= 1 || route.total_weight == 0) return 0;
  uint64_t left = random_value % route.total_weight;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t w = route.clusters.at(&host, i).weight;
    if (left < w) return i;
    left -= w;
  }
  return n - 1;  // only if total_weight were not the sum, which the validator refuses
}

// ---- checks for the loader (heap allowed; called once per object, after table::validate) --------------------------------

// Everything that the matcher will follow without looking: index blob, ranks, database ids, fractions, weights. Error names what
// is wrong.
base::Status validate_index(const table::VirtualHost& host);
base::Status validate_route_table(const table::RouteTable& table);

}  // namespace millrace::route
