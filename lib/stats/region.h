// The statistics region: one shared memory segment, made by the data plane at start, written by the data plane only, read by
// control.
//
//   +--------------------+  0
//   | RegionHeader       |  written once before the descriptor is handed out; `loader` counters: loader thread
//   +--------------------+  workers_offset
//   | WorkerBlock × W    |  each written by its worker only (cache-line aligned: no two writers on a line)
//   +--------------------+  scopes_offset
//   | ScopeEntry × S     |  the directory: which object has which slot; written by the loader thread only
//   +--------------------+  blocks_offset
//   | ScopeBlock × S × W |  one array of S blocks per worker, each written by its worker only
//   +--------------------+  health_offset
//   | EndpointHealth × S |  health.h: each written by the worker that owns its cluster
//   +--------------------+
//
// A *scope* is one object with counters of its own: a listener, an HTTP connection manager (by stat_prefix), a virtual host, a
// cluster, an endpoint, a compressor filter (its parent the connection manager), the health of a cluster (its parent the cluster;
// only where something watches it). The loader gives it a slot when its first snapshot arrives; the snapshot carries the slot
// number to the workers.
//
// Life of a slot (ScopeDirectory, used by the loader):
//   free -> live        acquire(kind, key): same (kind, key) gives the same slot as long as the slot was not freed
//   live -> lingering   the object left the tables (release(slot, now)); its counters stay readable, running exchanges still
//   count on it lingering -> live   the object came back: same slot, counters go on lingering -> free   sweep(now) after
//   kScopeLingerNs, provided every gauge of the slot is zero over all workers at both ends of a further
//                       linger time: nothing that holds the slot is under way (whoever keeps a slot number across loop turns
//                       holds one of its gauges up: rq_active, cx_active, …). Ownership of its words then goes to the loader,
//                       which zeroes them and bumps `generation`; the next snapshot's release/acquire hands them back to the
//                       workers.
// Slot 0 is never freed: the overflow scope, shared by all objects that found the directory full. So a slot number is always
// good.
//
// Memory orders: counters are relaxed (counters.h). ScopeEntry is a sequence lock: the writer makes `sequence` odd, stores the
// words (release each), makes it even (release); a reader loads it (acquire), the words (acquire each), and it again: the same
// even number, or try again. WorkerBlock::seen_epoch is stored with release by the worker (taking a snapshot) and loaded with
// acquire by control (reclaiming).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/stats/counters.h"
#include "lib/stats/drop_reason.h"
#include "lib/stats/health.h"
#include "lib/stats/histogram.h"
#include "lib/stats/response_flag.h"

namespace millrace::stats {

inline constexpr uint64_t kRegionMagic = 0x5453'4352'4c4d'5631;
inline constexpr uint32_t kRegionLayoutVersion = 4;
// Hash of every name of every counter list, in order: programs built from different lists refuse each other.
uint64_t region_layout_hash();

// ---- limits ----------------------------------------------------------------------------------------------------------------
inline constexpr uint32_t kMaxWorkers = 64;
inline constexpr uint32_t kMaxPorts = 16;
inline constexpr uint32_t kMaxPortName = 48;
inline constexpr uint32_t kMaxScopeName = 128;  // longer names are cut and marked (ScopeEntry::truncated)
inline constexpr uint32_t kScopeCounters = 64;  // words of a scope, 512 bytes: the longest list (clusters) and room to grow
static_assert(kCountOf<ListenerCounter> <= kScopeCounters && kCountOf<HcmCounter> <= kScopeCounters &&
              kCountOf<CompressorCounter> <= kScopeCounters && kCountOf<VirtualHostCounter> <= kScopeCounters &&
              kCountOf<ClusterHealthCounter> <= kScopeCounters && kCountOf<ClusterCheckCounter> <= kScopeCounters &&
              kCountOf<ClusterCounter> <= kScopeCounters - kTallyWords);
inline constexpr uint32_t kDefaultScopes =
    1          // the overflow scope
    + 255      // listeners
    + 256      // HTTP connection managers and TCP proxies, by stat_prefix
    + 32'256   // virtual hosts
    + 32'768   // clusters
    + 65'536;  // endpoints; 131,072 together: 33 MB a worker when all are in use (the segment is sparse)
inline constexpr uint32_t kMinScopes = 64, kMaxScopes = 1u << 22;
inline constexpr base::TimeNs kScopeLingerNs = 60 * base::kSecond;

enum class ScopeKind : uint16_t {
  kNone = 0,
  kOverflow,
  kListener,
  kHcm,
  kVirtualHost,
  kCluster,
  kEndpoint,
  kCompressor,
  kClusterHealth,
  kClusterCheck,
  kCount
};
const char* to_string(ScopeKind k);  // "listener", "http", "virtual_host", "cluster", "endpoint", "compressor", "health", "check"
std::span<const CounterInfo> scope_counters(ScopeKind k);  // names of the words of a scope; the overflow scope has none

// The key of a compressor's scope says whether its counters go by Envoy's names without "response." (no
// response_direction_config).
constexpr uint64_t compressor_key(uint64_t hash, bool plain) { return (hash & ~uint64_t{1}) | (plain ? 1 : 0); }
constexpr bool is_plain_compressor(uint64_t key) { return (key & 1) != 0; }

using ScopeSlot = uint32_t;
inline constexpr ScopeSlot kOverflowScope = 0;

// ---- what lies in the segment ----------------------------------------------------------------------------------------------
struct RegionHeader {  // data plane: rw before the hand-out, then ro; control: ro
  uint64_t magic;
  uint32_t layout_version;
  uint32_t workers;
  uint64_t layout_hash;
  uint64_t incarnation;         // random, of this data plane process; never 0
  uint64_t start_wall_ns;       // CLOCK_REALTIME at start
  uint64_t start_monotonic_ns;  // CLOCK_MONOTONIC at start
  uint64_t tsc_hz;              // of LoopCounter cycles; 0: unknown
  uint32_t pid;
  uint32_t scopes;
  uint32_t ports;
  uint32_t reserved;
  uint64_t workers_offset, worker_stride, scopes_offset, blocks_offset, health_offset, size;
  char port_names[kMaxPorts][kMaxPortName];        // NUL-terminated
  char version[64];                                // of the program, NUL-terminated
  alignas(64) CounterBlock<LoaderCounter> loader;  // loader thread: rw; others: ro
};

struct PoolGauge {
  Counter in_use, capacity;  // objects
  Counter high_water;        // most ever in use
  Counter refused;           // allocations that found it empty
};

// Where a worker's cycles go (stage_clock.h): of the busy turns that were accounted, one in LoaderCounter::kStagePeriod at
// random.
struct StageBlock {
  Counter turns;                     // busy turns accounted
  Counter cycles[kCountOf<Stage>];   // TSC cycles, each cycle in one stage; what reading the clock costs is taken off
  Counter entries[kCountOf<Stage>];  // times a stage was entered, or items where it works on bursts
};

// How often a worker's loop stood still: heartbeat_ns was older than Envoy's bounds when the data plane's main thread looked.
struct WatchdogBlock {
  Counter misses, mega_misses;
};

struct WorkerBlock {                             // its worker: rw; everybody else: ro
  alignas(64) std::atomic<uint64_t> seen_epoch;  // epoch of the snapshot the worker uses; see above
  Counter heartbeat_ns;                          // CLOCK_MONOTONIC of a recent loop turn
  alignas(64) CounterBlock<LoopCounter> loop;
  CounterBlock<TcpCounter> tcp;
  CounterBlock<TlsCounter> tls;
  CounterBlock<HttpCounter> http;
  Counter drops[kDropReasonCount];
  Counter response_flags[kResponseFlagCount];
  PoolGauge pools[kCountOf<Pool>];
  CounterBlock<PortCounter> ports[kMaxPorts];
  Histogram histograms[kCountOf<WorkerHistogram>];
  alignas(64) StageBlock stages;
  alignas(64) WatchdogBlock watchdog;  // main thread: rw; everybody else: ro

  void drop(DropReason r, uint64_t n = 1) { drops[static_cast<uint32_t>(r)].add(n); }
  void flag(ResponseFlag f) { response_flags[static_cast<uint32_t>(f)].add(); }
  void flag(ResponseFlags set);  // one each
  PoolGauge& pool(Pool p) { return pools[static_cast<uint32_t>(p)]; }
  Histogram& histogram(WorkerHistogram h) { return histograms[static_cast<uint32_t>(h)]; }
};

struct ScopeEntry {                  // loader thread: rw; control: ro (through RegionView::scope)
  std::atomic<uint32_t> sequence;    // odd while being written
  std::atomic<uint32_t> generation;  // grows when the slot is freed: counters then begin at zero
  std::atomic<uint64_t> key;
  std::atomic<uint64_t> meta;  // kind (16 bits) | state (8) | truncated (8) | parent slot (32)
  std::atomic<uint64_t> name_size;
  std::atomic<uint64_t> name[kMaxScopeName / 8];
  uint64_t reserved[4];
};
static_assert(sizeof(ScopeEntry) == 192);

struct alignas(64) ScopeBlock {  // its worker: rw; everybody else: ro
  Counter words[kScopeCounters];
  // The enum must be the one of the slot's kind; the overflow slot takes any of them (its words then mean nothing, and nobody
  // shows them).
  template <class Enum>
  Counter& operator[](Enum e) {
    return words[static_cast<uint32_t>(e)];
  }
  template <class Enum>
  const Counter& operator[](Enum e) const {
    return words[static_cast<uint32_t>(e)];
  }
  // Of an endpoint's block.
  EndpointTally& tally() { return *reinterpret_cast<EndpointTally*>(words + kScopeCounters - kTallyWords); }
  const EndpointTally& tally() const { return *reinterpret_cast<const EndpointTally*>(words + kScopeCounters - kTallyWords); }
};
static_assert(sizeof(ScopeBlock) == 512);

// ---- making and writing (data plane) ----------------------------------------------------------------------------------------
struct RegionConfig {
  uint32_t workers = 1;                 // 1 … kMaxWorkers
  uint32_t scopes = kDefaultScopes;     // kMinScopes … kMaxScopes
  std::vector<std::string> port_names;  // at most kMaxPorts; index is the port number of WorkerBlock::ports
  uint64_t incarnation = 0;             // must not be 0
  uint64_t start_wall_ns = 0, start_monotonic_ns = 0, tsc_hz = 0;
  std::string version;
};
// Bytes of a region for that configuration.
uint64_t region_size(const RegionConfig& config);

// What a worker writes to; plain pointers, made once before its loop.
class WorkerStats {
 public:
  WorkerStats() = default;
  WorkerStats(WorkerBlock* block, ScopeBlock* scopes, uint32_t scope_count, EndpointHealth* health = nullptr)
      : block_(block), scopes_(scopes), health_(health), scope_count_(scope_count) {}
  WorkerBlock* operator->() const { return block_; }
  WorkerBlock& block() const { return *block_; }
  // The worker's own words of a scope: stats.scope(slot)[ClusterCounter::kRqTotal].add().
  bool there() const { return block_ != nullptr; }
  ScopeBlock& scope(ScopeSlot slot) const { return scopes_[slot < scope_count_ ? slot : kOverflowScope]; }
  // Of an endpoint or a cluster; to be written by the worker that owns the cluster alone.
  EndpointHealth& health(ScopeSlot slot) const { return health_[slot < scope_count_ ? slot : kOverflowScope]; }

 private:
  WorkerBlock* block_ = nullptr;
  ScopeBlock* scopes_ = nullptr;
  EndpointHealth* health_ = nullptr;
  uint32_t scope_count_ = 0;
};

// The data plane's handle on a region in memory that it owns (a fresh, zeroed mapping). Does not own the memory.
class Region {
 public:
  // `memory`: at least region_size(config) zero bytes, 64-byte aligned. Error when the configuration is out of its limits.
  static base::Result<Region> create(std::span<uint8_t> memory, const RegionConfig& config);

  RegionHeader& header() const { return *header_; }
  uint32_t workers() const { return header_->workers; }
  WorkerBlock& worker(uint32_t w) const;
  WorkerStats worker_stats(uint32_t w) const;
  CounterBlock<LoaderCounter>& loader() const { return header_->loader; }
  ScopeEntry* scope_entries() const;
  ScopeBlock* scope_blocks(uint32_t w) const;  // S of them
  EndpointHealth* health() const;              // S of them
  uint32_t scopes() const { return header_->scopes; }

 private:
  explicit Region(RegionHeader* header) : header_(header) {}
  RegionHeader* header_;
};

// Slots for scopes; used by the loader thread only.
class ScopeDirectory {
 public:
  explicit ScopeDirectory(const Region& region, base::TimeNs linger_ns = kScopeLingerNs);

  // The slot of (kind, key), made when it is not there; kOverflowScope when the directory is full. Ends a linger. `name` longer
  // than kMaxScopeName is cut. `parent`: the slot of the cluster of an endpoint, else 0.
  ScopeSlot acquire(ScopeKind kind, uint64_t key, std::string_view name, ScopeSlot parent = kOverflowScope);
  // The object left the tables. Harmless for the overflow slot.
  void release(ScopeSlot slot, base::TimeNs now);
  // Frees what has lingered long enough and is quiet; looks at a bounded number of slots per call. Call about once a second, and
  // only from where every worker has taken a snapshot younger than the release (`safe_before`: slots released before that time
  // may be looked at).
  void sweep(base::TimeNs now, base::TimeNs safe_before);

  uint32_t in_use() const { return static_cast<uint32_t>(index_.size()); }  // live and lingering
  uint64_t overflowed() const { return overflowed_; }

 private:
  struct Lingering {
    ScopeSlot slot;
    uint32_t release;
    base::TimeNs since;
    bool seen_quiet;
  };
  struct KeyHash {
    size_t operator()(const std::pair<uint16_t, uint64_t>& k) const { return k.second * 0x9e3779b97f4a7c15ull + k.first; }
  };
  void write_entry(ScopeSlot slot, ScopeKind kind, uint64_t key, uint8_t state, std::string_view name, ScopeSlot parent);
  void set_state(ScopeSlot slot, uint8_t state);
  bool quiet(ScopeSlot slot, ScopeKind kind) const;

  Region region_;
  base::TimeNs linger_ns_;
  std::unordered_map<std::pair<uint16_t, uint64_t>, ScopeSlot, KeyHash> index_;
  std::vector<std::pair<uint16_t, uint64_t>> key_of_;  // by slot
  std::vector<uint8_t> state_;                         // by slot
  std::vector<uint32_t> releases_;                     // by slot: how often it was released; older Lingering entries are void
  std::vector<ScopeSlot> free_;
  std::vector<Lingering> lingering_;
  size_t sweep_at_ = 0;
  ScopeSlot next_fresh_ = 1;
  uint64_t overflowed_ = 0;
};

// ---- reading (control) ------------------------------------------------------------------------------------------------------
enum class ScopeState : uint8_t { kFree = 0, kLive = 1, kLingering = 2 };
struct Scope {  // a copy of a directory entry
  ScopeSlot slot;
  ScopeKind kind;
  ScopeState state;
  bool truncated;
  uint32_t generation;
  uint64_t key;
  ScopeSlot parent;
  std::string name;
};

// Control's read-only handle; checks magic, versions and that every offset lies inside the mapping, once. Does not own the
// memory.
class RegionView {
 public:
  static base::Result<RegionView> attach(std::span<const uint8_t> memory);

  const RegionHeader& header() const { return *header_; }
  uint32_t workers() const { return workers_; }
  uint32_t scopes() const { return scopes_; }
  uint32_t ports() const { return ports_; }
  std::string port_name(uint32_t port) const;
  const WorkerBlock& worker(uint32_t w) const;
  const CounterBlock<LoaderCounter>& loader() const { return header_->loader; }

  // A consistent copy of an entry; nullopt when the slot is free, out of range, or would not hold still.
  std::optional<Scope> scope(ScopeSlot slot) const;
  // Every live and lingering scope, in slot order.
  std::vector<Scope> all_scopes() const;
  const ScopeBlock& block(uint32_t w, ScopeSlot slot) const;
  const EndpointHealth& health(ScopeSlot slot) const;
  // One word of a scope summed over the workers.
  uint64_t scope_sum(ScopeSlot slot, uint32_t word) const;
  template <class Enum>
  uint64_t sum(ScopeSlot slot, Enum e) const {
    return scope_sum(slot, static_cast<uint32_t>(e));
  }
  // Sums over the workers.
  uint64_t drops(DropReason r) const;
  uint64_t response_flags(ResponseFlag f) const;
  HistogramSnapshot histogram(WorkerHistogram h) const;
  // The epoch every worker has taken: the least of all seen_epoch words (acquire).
  uint64_t min_seen_epoch() const;

 private:
  RegionView() = default;
  const uint8_t* base_ = nullptr;
  const RegionHeader* header_ = nullptr;
  // Copies of the checked header fields: what is used for addressing must not change under us.
  uint32_t workers_ = 0, scopes_ = 0, ports_ = 0;
  uint64_t workers_offset_ = 0, worker_stride_ = 0, scopes_offset_ = 0, blocks_offset_ = 0, health_offset_ = 0;
};

}  // namespace millrace::stats
