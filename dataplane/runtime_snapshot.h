// What a worker reads of the tables: one immutable RuntimeSnapshot of one epoch, built by the table loader, offered through one
// atomic pointer, taken at the top of the worker's loop.
//
//   loader:  build -> WorkerTableSlot::offer(s)          worker, top of loop:  const RuntimeSnapshot* t = slot.take(...)
//            every taken >= s->sequence -> free what is older
//
// Pointers into a snapshot, and into the table objects it names, are good until the next take() of that worker: a loop iteration,
// no longer.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/listener_set.h"
#include "lib/route/balancer/balancer.h"
#include "lib/route/matcher.h"
#include "lib/route/pattern_db.h"
#include "lib/shm/epoch.h"
#include "lib/stats/region.h"
#include "lib/table/inspect.h"
#include "lib/table/objects.h"

namespace millrace::tls {
class ClientContext;
class ServerContext;
}  // namespace millrace::tls

namespace millrace::dataplane {

// ObjectId -> T*: flat, open addressing with linear probing, at most half full. Built once, then only read; copies share it.
// ObjectIds are hashes already.
template <class T>
class ObjectMap {
 public:
  ObjectMap() = default;
  explicit ObjectMap(size_t expected) {
    size_t n = 8;
    while (n < expected * 2) n *= 2;
    owned_ = std::make_shared<std::vector<Slot>>(n);
    slots_ = owned_->data();
    mask_ = n - 1;
  }
  // Null when there is none.
  const T* find(table::ObjectId id) const {
    if (slots_ == nullptr) return nullptr;
    for (size_t i = id & mask_;; i = (i + 1) & mask_) {
      if (slots_[i].id == id) return slots_[i].value;
      if (slots_[i].id == table::kNoObject) return nullptr;
    }
  }
  // `id` must be new and not kNoObject, and no more than `expected` may be added; not after a copy was made.
  void add(table::ObjectId id, const T* value) {
    size_t i = id & mask_;
    while (slots_[i].id != table::kNoObject) i = (i + 1) & mask_;
    slots_[i] = {id, value};
    ++size_;
  }
  size_t size() const { return size_; }

 private:
  struct Slot {
    table::ObjectId id = table::kNoObject;
    const T* value = nullptr;
  };
  Slot* slots_ = nullptr;
  size_t mask_ = 0, size_ = 0;
  std::shared_ptr<std::vector<Slot>> owned_;
};

// What the formats of some access logs ask for: strings that have an id (lib/stats/events.h), and headers that have none ("extra
// headers"), lower case.
struct AccessLogFields {
  uint64_t strings = 0;  // bit i: the string of that stats::StringId is asked for
  bool filters = false;  // some log has a filter
  bool sizes = false;    // bytes of heads are
  bool names = false;    // ... among them names of routes, virtual hosts or clusters
  std::vector<std::string> request_headers, response_headers, response_trailers;
  bool empty() const { return request_headers.empty() && response_headers.empty() && response_trailers.empty(); }
};

struct FilterChainRuntime {
  const table::FilterChain* chain = nullptr;
  stats::ScopeSlot slot = stats::kOverflowScope;  // ScopeKind::kHcm of its stat_prefix (HTTP connection manager or TCP proxy)
  const AccessLogFields* log_fields = nullptr;    // never null
  std::vector<stats::ScopeSlot> compressors;      // by index of chain->hcm.compressors (ScopeKind::kCompressor)
  // By worker. Null when the chain does not terminate TLS, and when a secret that it needs is not there (yet): the connection is
  // then refused like one whose handshake failed.
  std::span<tls::ServerContext* const> tls;
  tls::ServerContext* tls_context(uint32_t worker) const { return worker < tls.size() ? tls[worker] : nullptr; }
};
struct ListenerRuntime {
  table::ObjectId id = table::kNoObject;
  const table::Listener* object = nullptr;
  stats::ScopeSlot slot = stats::kOverflowScope;  // ScopeKind::kListener
  const AccessLogFields* log_fields = nullptr;    // of the listener's own access logs; never null
  std::vector<FilterChainRuntime> chains;         // by index of object->filter_chains
};
struct RouteTableRuntime {
  table::ObjectId id = table::kNoObject;
  const table::RouteTable* object = nullptr;
};
// Two cache lines: with a hundred virtual hosts in turn, what a request reads of its own is seldom in the nearest cache.
struct alignas(64) VirtualHostEntry {
  route::VirtualHostRuntime runtime;  // what route::match_route takes; runtime.object is the virtual host
  table::ObjectId id = table::kNoObject;
  stats::ScopeSlot slot = stats::kOverflowScope;  // ScopeKind::kVirtualHost
};
static_assert(sizeof(VirtualHostEntry) == 128);
struct ClusterRuntime {
  table::ObjectId id = table::kNoObject;
  const table::Cluster* object = nullptr;
  const table::EndpointSet* endpoints = nullptr;  // null: not there (yet); as a cluster without endpoints
  stats::ScopeSlot slot = stats::kOverflowScope;  // ScopeKind::kCluster
  std::vector<stats::ScopeSlot> endpoint_slots;   // by index of endpoints->endpoints (ScopeKind::kEndpoint)
  // Its endpoints have a state that changes without the tables (endpoint_health.h), in the words of their slots: by outlier
  // detection, by active health checks, or both.
  bool watched = false, detects = false, checks = false;
  uint32_t good_state = 0;  // of stats::HealthBit: what a usable endpoint's state has of `state_mask`
  uint32_t state_mask = 0;
  stats::ScopeSlot health_slot = stats::kOverflowScope;  // ScopeKind::kClusterHealth, where it detects
  stats::ScopeSlot check_slot = stats::kOverflowScope;   // ScopeKind::kClusterCheck, where it checks
  uint64_t check_hash = 0;                               // of all that its checks are made of: another one, other checks
  // By worker, built by the loader with the set (empty without endpoints); each is used and changed by its worker only.
  mutable std::vector<route::balancer::Balancer> balancers;
  // By worker, where object->has_tls. Empty: a secret that it needs is not there (yet): connections to endpoints then fail.
  std::span<tls::ClientContext* const> tls;
  tls::ClientContext* tls_context(uint32_t worker) const { return worker < tls.size() ? tls[worker] : nullptr; }

  std::span<const table::Endpoint> endpoint_list() const {
    if (endpoints == nullptr) return {};
    return {endpoints->endpoints.begin(endpoints), endpoints->endpoints.count};
  }
};

class RuntimeSnapshot {
 public:
  ~RuntimeSnapshot();
  RuntimeSnapshot(const RuntimeSnapshot&) = delete;
  RuntimeSnapshot& operator=(const RuntimeSnapshot&) = delete;

  uint64_t epoch() const { return epoch_; }        // control's; 0: nothing was published yet
  uint64_t sequence() const { return sequence_; }  // the loader's count of snapshots, from 1; grows through control's restarts

  std::span<const ListenerRuntime* const> listeners() const { return listener_list_; }
  const ListenerRuntime* listener(table::ObjectId id) const { return listeners_.find(id); }
  const RouteTableRuntime* route_table(table::ObjectId id) const { return route_tables_.find(id); }
  const VirtualHostEntry* virtual_host(table::ObjectId id) const { return virtual_hosts_.find(id); }
  const ClusterRuntime* cluster(table::ObjectId id) const { return clusters_.find(id); }
  std::span<const ClusterRuntime* const> watched_clusters() const { return watched_; }
  const ListenerSet& listener_set() const { return listener_set_; }
  size_t objects() const { return objects_; }

  // Right after take() gave a new snapshot: swaps the scratch for regex scans into the worker's MatchScratch if this snapshot
  // brings one (`mine` is freed with the snapshot). Pointer work only. At most once per worker and snapshot does anything.
  void adopt_scratch(uint32_t worker, route::PatternScratch& mine) const;

 private:
  friend class TableLoader;
  RuntimeSnapshot() = default;

  struct WorkerScratch {
    route::PatternScratch scratch;
    bool fresh = false;  // written by the loader before the offer, then by its worker only
  };

  uint64_t epoch_ = 0, sequence_ = 0;
  size_t objects_ = 0;
  std::vector<const ListenerRuntime*> listener_list_;
  ObjectMap<ListenerRuntime> listeners_;
  ObjectMap<RouteTableRuntime> route_tables_;
  ObjectMap<VirtualHostEntry> virtual_hosts_;
  ObjectMap<ClusterRuntime> clusters_;
  std::vector<const ClusterRuntime*> watched_;
  ListenerSet listener_set_;
  mutable std::vector<WorkerScratch> scratch_;  // by worker
  // Loader thread only: the arena, and what this snapshot was the last to show. What newer ones show too is theirs: they live
  // longer.
  std::vector<std::shared_ptr<const void>> owners_;
};

// The hand-over between the loader and one worker.
class WorkerTableSlot {
 public:
  // Loader thread: from now on the worker takes `s`. `s` stays alive until taken() >= s->sequence() of a later one.
  void offer(const RuntimeSnapshot* s) { offered_.store(s, std::memory_order_release); }  // pairs with take()
  // Worker, at the top of its loop, holding no pointer into an older snapshot. The newest offered one; null only before the first
  // offer. `seen_epoch`: the worker's word in the statistics region, told when the snapshot changes.
  const RuntimeSnapshot* take(std::atomic<uint64_t>& seen_epoch) {
    const RuntimeSnapshot* s = offered_.load(std::memory_order_acquire);  // pairs with offer(): the snapshot is complete
    if (__builtin_expect(s != current_, 0)) {
      current_ = s;
      // Every use of the old snapshot happened before these two stores (release); the loader and control free behind an acquire.
      taken_.arrive(s->sequence());
      seen_epoch.store(s->epoch(), std::memory_order_release);
    }
    return s;
  }
  uint64_t taken() const { return taken_.read(); }

  // Stage accounting (stats/stage_clock.h): one turn in `period`; 0: off. Loader thread.
  void set_stage_period(uint32_t period) { stage_period_.store(period, std::memory_order_relaxed); }
  // Worker, once a turn. Relaxed: nothing else hangs on it. On the line that take() reads anyway.
  uint32_t stage_period() const { return stage_period_.load(std::memory_order_relaxed); }

  // DrainState::word() (drain.h). Loader thread; the worker once a turn, as above.
  void set_drain(uint64_t word) { drain_.store(word, std::memory_order_relaxed); }
  uint64_t drain() const { return drain_.load(std::memory_order_relaxed); }

  // Questions of an operator (table/inspect.h), a few at a time, from the loader to the worker's Inspector.
  //  1. `posted_` counts questions ever posted, written by the loader; `fetched_` those ever fetched, written by the worker. Both
  //  grow
  //     modulo 2^32; posted_ - fetched_ is at most kQuestions.
  //  2. The loader writes letters_[posted_ % kQuestions] only while it is not full, then stores posted_ with release; the worker
  //  loads
  //     posted_ with acquire before it reads a letter. It stores fetched_ with release when it has read one for the last time;
  //     the loader loads fetched_ with acquire before it writes over it.
  //  3. A worker that has not come round for so many questions is stuck; the loader then keeps them and tries again.
  static constexpr uint32_t kQuestions = 8;
  struct Question {
    alignas(8) uint8_t bytes[sizeof(table::StartCapture)];  // one of the commands, by its type
    uint32_t size = 0;
  };
  // Loader thread. False: as many are waiting as there is room for; try again.
  bool post(std::span<const uint8_t> command) {
    MILLRACE_ASSERT(command.size() <= sizeof(Question::bytes), "the largest command fits");
    const uint32_t n = posted_.load(std::memory_order_relaxed);
    if (n - fetched_.load(std::memory_order_acquire) == kQuestions) return false;
    Question& q = questions_[n % kQuestions];
    std::memcpy(q.bytes, command.data(), command.size());
    q.size = static_cast<uint32_t>(command.size());
    posted_.store(n + 1, std::memory_order_release);
    return true;
  }
  // Worker, once a turn: how many were ever posted. On the line that take() reads anyway.
  uint32_t posted() const { return posted_.load(std::memory_order_acquire); }
  // Worker: the n-th question (fetched() <= n < posted()), and that it is done with.
  const Question& question(uint32_t n) const { return questions_[n % kQuestions]; }
  void fetched(uint32_t n) { fetched_.store(n, std::memory_order_release); }

 private:
  alignas(64) std::atomic<const RuntimeSnapshot*> offered_{nullptr};  // loader: rw, worker: ro
  std::atomic<uint32_t> stage_period_{0};                             // loader: rw, worker: ro
  std::atomic<uint64_t> drain_{0};                                    // loader: rw, worker: ro
  std::atomic<uint32_t> posted_{0};                                   // loader: rw, worker: ro
  shm::EpochWord taken_;                                              // worker: rw, loader: ro; RuntimeSnapshot::sequence
  const RuntimeSnapshot* current_ = nullptr;                          // worker only
  alignas(64) std::atomic<uint32_t> fetched_{0};                      // worker: rw, loader: ro
  alignas(64) Question questions_[kQuestions];                        // loader: rw, worker: ro
};

}  // namespace millrace::dataplane
