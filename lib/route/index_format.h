// How VirtualHost.index lies in memory: the path structures of one virtual host as one position-independent blob. Offsets count
// from the blob's first byte. Written by index_builder, checked once by validate_index(), then followed blindly by the matcher.
//
//   exact[f]    hash table: whole path -> ranks                            f = 0 case-sensitive, 1 folded to lower case
//   prefix[f]   hash table over all prefix literals, searched by length    (Waldvogel et al., "Scalable high speed IP routing
//   lookups",
//               SIGCOMM 1997: binary search on the distinct lengths. A literal of length L leaves a marker at every length where
//               the search for it must turn to longer ones. A hit means "look longer", a miss "look shorter", so log2(lengths)
//               probes find the longest literal that begins the path; `parent` leads from there to all shorter ones.)
//   meta[rank]  what a route asks of a request beyond its path, in 16 bytes: most routes ask nothing, and most that do are
//               refused by the mask of present headers before a string is touched
//   actions     what the common request needs of the route that it takes, once for all routes that say the same
//
// A large table is bound by cache misses, so they are counted here. A request for one of 100,000 literals touches two lines that
// no other request has brought into the cache:
//
//   slots ──▶ │tag node│..8 of them in a line      1: where the text's hash leads to
//                  │
//   nodes ──▶ │rest length parent best ranks more action │ text.. │    2: one line: text, rank and action
//                                                   │
//   actions ─▶ │cluster timeouts │..                └ few, shared: in the cache already
//
// Beyond that only longer texts (their rest), routes with conditions (meta and the route itself) and routes whose action edits
// or rewrites anything (table::Route) cost lines of their own. Slots and nodes begin at multiples of 64 bytes of the blob.
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::route {

// Under which routes with a connect_matcher stand in the table of exact paths: no path is like this.
inline constexpr std::string_view kConnectLiteral = "\x01connect";

inline constexpr uint32_t kIndexMagic = 0x4952'4c4d;  // "MLRI"
inline constexpr uint32_t kIndexVersion = 2;

template <class T>
struct Section {
  uint32_t offset = 0;  // from the blob's first byte, aligned to alignof(T)
  uint32_t count = 0;
  const T* in(const uint8_t* blob) const { return reinterpret_cast<const T*>(blob + offset); }
};
// A list of numbers: a run of the `numbers` section, or a single one kept right here, which saves a cache miss on most lookups.
struct Run {
  uint32_t first = 0;  // count 1: the number itself; else where the run begins
  uint32_t count = 0;
  const uint32_t* in(const uint32_t* numbers) const { return count == 1 ? &first : numbers + first; }
};
// Marks a rank whose route asks nothing beyond its path: RouteMeta need not be read.
inline constexpr uint32_t kUnconditional = uint32_t{1} << 31;

struct Slot {         // open addressing, linear probing, power of two, at most half full
  uint32_t tag = 0;   // upper half of the text's hash64; the lower half chooses the slot
  uint32_t node = 0;  // index + 1; 0: free
};
// The text of a node: its first bytes are in the node itself, so that most need no other line; the rest lies in the `text`
// section. `action` saves a look at RouteMeta where the node has one rank: index + 1 into `actions`; 0: RouteMeta knows.
struct ExactNode {
  static constexpr uint32_t kHeadBytes = 44;
  uint32_t rest = 0, length = 0;  // of the whole text
  Run ranks;                      // ascending, each maybe with kUnconditional
  uint32_t action = 0;
  char head[kHeadBytes] = {};
};
struct PrefixNode {
  static constexpr uint32_t kHeadBytes = 32;
  uint32_t rest = 0, length = 0;
  uint32_t parent = 0;     // index + 1 of the longest literal (never a bare marker) that is a shorter prefix; 0: none
  uint32_t best_rank = 0;  // lowest rank of this node and its ancestors, databases included; UINT32_MAX: none
  Run ranks;               // of `prefix` routes, as above
  uint32_t action = 0;
  uint32_t more = 0;  // index + 1 into PrefixTable::more; 0: there is no more
  char head[kHeadBytes] = {};
};
struct PrefixMore {
  Run separated;  // ranks of `path_separated_prefix` routes, as above
  Run dbs;        // indices into VirtualHost.regex_dbs, by ascending best_rank (case-sensitive table only)
};
struct ExactTable {
  Section<ExactNode> nodes;
  Section<Slot> slots;
};
struct PrefixTable {
  Section<PrefixNode> nodes;
  Section<Slot> slots;
  Section<uint32_t> lengths;  // distinct lengths of literals, ascending
  Section<PrefixMore> more;
};

enum RouteNeeds : uint32_t { kNeedsFraction = 1, kNeedsGrpc = 2, kNeedsHeaders = 4, kNeedsQuery = 8, kNeedsCertificate = 16 };
struct RouteMeta {
  uint64_t present = 0;  // http::HeaderTable::present() bits without which the route cannot match
  uint32_t needs = 0;    // RouteNeeds; 0: the path decides alone
  uint32_t action = 0;   // index + 1 into `actions`; 0: the request needs table::Route itself
};
struct RouteAction {     // of a route of ActionKind::kCluster that edits and rewrites nothing
  uint64_t cluster = 0;  // the rest as in table::Route
  uint32_t timeout_ms = 0, idle_timeout_ms = 0;
  uint32_t cluster_not_found_status = 0;
  uint32_t reserved = 0;
  friend bool operator==(const RouteAction&, const RouteAction&) = default;
};

struct IndexHeader {
  uint32_t magic = kIndexMagic;
  uint32_t version = kIndexVersion;
  uint32_t size = 0;            // bytes of the blob
  uint32_t longest_folded = 0;  // longest literal of exact[1] and prefix[1]: so much of a path has to be lowered
  uint64_t header_ids = 0;      // header_id_fingerprint(): the bits of RouteMeta::present mean the same in both programs
  Section<RouteMeta> meta;      // one a route
  Section<RouteAction> actions;
  Section<uint32_t> numbers;
  Section<char> text;
  ExactTable exact[2];
  PrefixTable prefix[2];
};
static_assert(sizeof(IndexHeader) % 8 == 0 && sizeof(Slot) == 8 && sizeof(ExactNode) == 64 && sizeof(PrefixNode) == 64);
inline constexpr uint32_t kLineBytes = 64;  // of the processor's cache

// Hash of all names that http::HeaderId knows, in order.
uint64_t header_id_fingerprint();

}  // namespace millrace::route
