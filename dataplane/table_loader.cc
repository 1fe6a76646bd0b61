#include "dataplane/table_loader.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <time.h>
#include <utility>

#include "dataplane/drain.h"
#include "dataplane/runtime_nodes.h"
#include "lib/base/assert.h"
#include "lib/route/matcher.h"
#include "lib/stats/events.h"
#include "lib/table/validate.h"

namespace millrace::dataplane {

using base::Error;
using base::Result;
using base::Status;
using base::TimeNs;
using stats::LoaderCounter;
using table::Kind;
using table::ObjectId;
using table::ObjectRef;

namespace {

constexpr TimeNs kSweepInterval = base::kSecond;
constexpr size_t kForgetAbove = 256;  // names of objects that are gone, four times over: see `dependents`

// The mapping of one control process's arena; snapshots keep it alive.
struct ArenaMapping {
  shm::Segment segment;
  const uint8_t* at(uint64_t offset) const { return segment.data() + offset; }
  std::span<const uint8_t> bytes(uint64_t offset, uint64_t size) const { return {segment.data() + offset, size}; }
};

// An object of a snapshot that was accepted, or is being built.
struct Loaded {
  ObjectRef ref;
  std::shared_ptr<const void> node;  // what the loader made of it; null for kinds that need nothing
};

bool by_key(const ObjectRef& a, const ObjectRef& b) { return a.kind != b.kind ? a.kind < b.kind : a.id < b.id; }
bool same_place(const ObjectRef& a, const ObjectRef& b) {
  return a.id == b.id && a.kind == b.kind && a.arena_offset == b.arena_offset && a.version == b.version && a.size == b.size;
}

TimeNs monotonic_now() {
  timespec t;
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<TimeNs>(t.tv_sec) * base::kSecond + static_cast<TimeNs>(t.tv_nsec);
}

// Looks objects up in the references of the snapshot being built.
class RefFinder : public ObjectFinder {
 public:
  RefFinder(const ArenaMapping& arena, const std::vector<Loaded>& refs) : arena_(arena), refs_(refs) {}
  FoundObject find(Kind kind, ObjectId id) const override {
    const size_t i = index(kind, id);
    if (i == refs_.size()) return {};
    return {reinterpret_cast<const table::ObjectHeader*>(arena_.at(refs_[i].ref.arena_offset)), refs_[i].ref.version};
  }
  // The number of references when there is none.
  size_t index(Kind kind, ObjectId id) const {
    ObjectRef key{};
    key.kind = kind;
    key.id = id;
    const auto it =
        std::lower_bound(refs_.begin(), refs_.end(), key, [](const Loaded& l, const ObjectRef& k) { return by_key(l.ref, k); });
    return it == refs_.end() || it->ref.kind != kind || it->ref.id != id ? refs_.size() : static_cast<size_t>(it - refs_.begin());
  }

 private:
  const ArenaMapping& arena_;
  const std::vector<Loaded>& refs_;
};

// Remembers what was asked for: what the node being made depends on.
class TrackingFinder : public ObjectFinder {
 public:
  explicit TrackingFinder(const RefFinder& finder) : finder_(finder) {}
  FoundObject find(Kind kind, ObjectId id) const override {
    asked_.push_back(id);
    return finder_.find(kind, id);
  }
  std::vector<ObjectId> take() const { return std::exchange(asked_, {}); }

 private:
  const RefFinder& finder_;
  mutable std::vector<ObjectId> asked_;
};

}  // namespace

struct TableLoader::Impl {
  Impl(const TableLoaderConfig& c, stats::Region r, std::span<WorkerTableSlot> s, shm::RingProducer* e)
      : config_(c), region(r), slots(s), events(e), builder(r, c.scope_linger_ns, c.tls_libraries), scratch_of(s.size()) {}

  const TableLoaderConfig config_;
  stats::Region region;
  std::span<WorkerTableSlot> slots;
  shm::RingProducer* events;
  NodeBuilder builder;  // outlives every node: declared before what holds them

  // The link.
  std::shared_ptr<const ArenaMapping> arena;  // of the attached control; null when none is
  shm::Segment commands;
  shm::RingConsumer ring;
  uint64_t incarnation = 0;
  bool is_attached = false;
  bool ring_broken = false;

  // The tables in force.
  std::shared_ptr<const ArenaMapping> loaded_arena;  // the one `loaded` lies in
  std::vector<Loaded> loaded;                        // sorted by (kind, id); owns the nodes of the newest snapshot
  // By object: whose nodes were made by looking at it, or for it. May name nodes that do not any more.
  std::unordered_map<ObjectId, std::vector<ObjectId>> dependents;
  std::deque<std::unique_ptr<RuntimeSnapshot>> alive;
  std::deque<uint64_t> alive_scratch;  // scratch generation of each
  DrainState drain;
  uint64_t next_sequence = 1;
  uint64_t last_epoch = 0;
  std::string rejection;
  TimeNs next_sweep = 0;

  // Questions that are not with every worker yet: the command, and the next worker that it goes to.
  static constexpr size_t kMaxUnposted = 64;  // beyond: lost; who asked gives up by himself
  std::deque<std::pair<std::vector<uint8_t>, size_t>> unposted;

  // Scratch for regex scans: generation of the prototype, and which generation each worker is known to have.
  uint64_t scratch_generation = 0;
  std::vector<uint64_t> scratch_of;

  void count(LoaderCounter c, uint64_t n = 1) { region.loader()[c].add(n); }
  void gauge(LoaderCounter c, uint64_t v) { region.loader()[c].set(v); }

  void tell(stats::EventType type, uint64_t epoch, ObjectId object, uint64_t build_ns, uint32_t objects, std::string_view text) {
    if (events == nullptr) return;
    const auto room = events->reserve(stats::kMaxLoaderEvent);
    if (room.data() == nullptr) return count(LoaderCounter::kEventsLost);
    stats::LoaderEvent event;
    event.incarnation = incarnation;
    event.epoch = epoch;
    event.object = object;
    event.build_ns = build_ns;
    event.objects = objects;
    events->commit(stats::write_loader_event(room, type, event, text));
  }

  // ---- one snapshot -------------------------------------------------------------------------------------------------------
  struct Failure {
    ObjectId object = table::kNoObject;
    std::string reason;
  };

  Status check_root(const table::PublishSnapshot& command, std::vector<Loaded>& next) {
    const uint64_t size = arena->segment.size();
    if (command.root_offset < table::kArenaFirstOffset || command.root_offset % 8 != 0 || command.root_offset >= size)
      return Error{"snapshot root lies outside the arena"};
    const auto bytes = arena->bytes(command.root_offset, size - command.root_offset);
    if (Status s = table::validate_snapshot(bytes, size); !s.ok()) return s;
    table::SnapshotHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.epoch != command.epoch || header.count != command.count)
      return Error{"snapshot root is not the one the command names"};
    if (header.incarnation != incarnation) return Error{"snapshot root is of another control process"};
    if (header.epoch <= last_epoch)
      return Error{"epoch " + std::to_string(header.epoch) + " is not above the last one, " + std::to_string(last_epoch)};
    const auto* refs = reinterpret_cast<const ObjectRef*>(bytes.data() + sizeof header);
    next.reserve(header.count);
    for (uint32_t i = 0; i < header.count; ++i) {
      if (refs[i].arena_offset < table::kArenaFirstOffset)
        return Error{"snapshot reference " + std::to_string(i) + ": lies in the arena's first page"};
      next.push_back({refs[i], nullptr});
    }
    return {};
  }

  // What one load does to the tables in force, until it is known to be good.
  struct Change {
    std::vector<Loaded> next;
    std::vector<size_t> fresh;      // indices in `next` of objects that were not there, or not so
    std::vector<ObjectId> touched;  // ids of those, and of objects that are gone
    std::vector<std::pair<size_t, std::shared_ptr<const void>>> replaced;  // index in `next`, the node that was good before
    bool kinds[static_cast<size_t>(Kind::kCount)] = {};                    // with other nodes than before
  };

  // Finds what is known already (both lists are sorted alike), whose nodes move over, and checks the rest.
  Status check_objects(Change& c, Failure& failure) {
    const bool comparable = loaded_arena == arena;
    const auto touch = [&](const ObjectRef& ref) {
      c.touched.push_back(ref.id);
      c.kinds[static_cast<size_t>(ref.kind)] = true;
    };
    size_t old = 0;
    uint64_t reused = 0;
    for (size_t i = 0; i < c.next.size(); ++i) {
      const ObjectRef& ref = c.next[i].ref;
      for (; old < loaded.size() && by_key(loaded[old].ref, ref); ++old) touch(loaded[old].ref);
      const bool there = old < loaded.size() && loaded[old].ref.id == ref.id && loaded[old].ref.kind == ref.kind;
      if (comparable && there && same_place(loaded[old].ref, ref)) {
        c.next[i].node = std::move(loaded[old++].node);
        ++reused;
        continue;
      }
      if (there) ++old;
      touch(ref);
      const auto bytes = arena->bytes(ref.arena_offset, ref.size);
      failure.object = ref.id;
      Status s = table::validate_object(bytes);
      const auto* header = reinterpret_cast<const table::ObjectHeader*>(bytes.data());
      if (s.ok() && (header->id != ref.id || header->kind != ref.kind || header->version != ref.version))
        s = Error{std::string(table::to_string(ref.kind)) + ": is not the object its reference names"};
      if (s.ok() && ref.kind == Kind::kRouteTable)
        s = route::validate_route_table(*reinterpret_cast<const table::RouteTable*>(header));
      if (!s.ok()) return s;
      count(LoaderCounter::kObjectsValidated);
      count(LoaderCounter::kBytesValidated, ref.size);
      c.fresh.push_back(i);
    }
    for (; old < loaded.size(); ++old) touch(loaded[old].ref);
    count(LoaderCounter::kObjectsReused, reused);
    failure.object = table::kNoObject;
    return {};
  }
  // The tables in force get their nodes back.
  void take_back(Change& c) {
    for (auto& [index, node] : c.replaced) c.next[index].node = std::move(node);
    size_t old = 0;
    for (Loaded& l : c.next) {
      while (old < loaded.size() && by_key(loaded[old].ref, l.ref)) ++old;
      if (old < loaded.size() && same_place(loaded[old].ref, l.ref) && loaded[old].node == nullptr && loaded_arena == arena)
        loaded[old].node = std::move(l.node);
    }
  }
  // Nodes that the new tables do not show: the newest snapshot is the last that does.
  void retire(Change& c) {
    std::vector<std::shared_ptr<const void>>& owners = alive.back()->owners_;
    for (auto& [index, node] : c.replaced) owners.push_back(std::move(node));
    for (Loaded& l : loaded)
      if (l.node != nullptr) owners.push_back(std::move(l.node));
  }

  // Which route table each new virtual host belongs to: names for the statistics.
  std::unordered_map<ObjectId, std::string_view> owners_of_virtual_hosts(const Change& c) const {
    std::unordered_map<ObjectId, std::string_view> owners;
    for (const size_t i : c.fresh)
      if (c.next[i].ref.kind == Kind::kVirtualHost) owners.emplace(c.next[i].ref.id, std::string_view());
    if (owners.empty()) return owners;
    for (const Loaded& l : c.next) {
      if (l.ref.kind != Kind::kRouteTable) continue;
      const auto& t = *reinterpret_cast<const table::RouteTable*>(arena->at(l.ref.arena_offset));
      for (uint32_t i = 0; i < t.virtual_hosts.count; ++i)
        if (const auto o = owners.find(t.virtual_hosts.at(&t, i)); o != owners.end() && o->second.empty())
          o->second = table::view(&t, t.name);
    }
    return owners;
  }

  const table::ObjectHeader* object(const Loaded& l) const {
    return reinterpret_cast<const table::ObjectHeader*>(arena->at(l.ref.arena_offset));
  }
  void depends(ObjectId node, const std::vector<ObjectId>& on) {
    for (const ObjectId id : on) {
      std::vector<ObjectId>& list = dependents[id];
      if (std::find(list.begin(), list.end(), node) == list.end()) list.push_back(node);
    }
  }

  // Listeners and clusters look at other objects, so known ones may need a new node too.
  Status build_looking(Change& c, size_t index, const TrackingFinder& finder, uint64_t epoch) {
    Loaded& l = c.next[index];
    std::shared_ptr<const void> made;
    const auto looked = [&] {
      depends(l.ref.id, finder.take());
      return Status();
    };
    if (l.ref.kind == Kind::kListener) {
      if (l.node != nullptr && NodeBuilder::still_good(*static_cast<const ListenerNode*>(l.node.get()), finder)) return looked();
      auto node = builder.listener(*reinterpret_cast<const table::Listener*>(object(l)), finder);
      if (!node.ok()) return Error{node.error()};
      for (const std::string& note : (*node)->notes) tell(stats::EventType::kLoaderNote, epoch, l.ref.id, 0, 0, note);
      made = std::move(*node);
    } else {
      if (l.node != nullptr && NodeBuilder::still_good(*static_cast<const ClusterNode*>(l.node.get()), finder)) return looked();
      auto node = builder.cluster(*reinterpret_cast<const table::Cluster*>(object(l)), finder);
      if (!node.ok()) return Error{node.error()};
      for (const std::string& note : (*node)->notes) tell(stats::EventType::kLoaderNote, epoch, l.ref.id, 0, 0, note);
      made = std::move(*node);
    }
    c.kinds[static_cast<size_t>(l.ref.kind)] = true;
    if (l.node != nullptr) c.replaced.emplace_back(index, std::move(l.node));
    l.node = std::move(made);
    return looked();
  }

  Status build_nodes(Change& c, uint64_t epoch, Failure& failure) {
    const RefFinder refs(*arena, c.next);
    const TrackingFinder finder(refs);
    bool grew = false;
    const std::unordered_map<ObjectId, std::string_view> owners = owners_of_virtual_hosts(c);
    // Looked at: what is new, and what looked at something that is. Now and then everything, so that names long gone are
    // forgotten.
    const bool everything = dependents.size() > 4 * (c.next.size() + kForgetAbove);
    if (everything) dependents.clear();
    std::vector<size_t> looking;
    for (size_t i = 0; everything && i < c.next.size(); ++i)
      if (c.next[i].ref.kind == Kind::kListener || c.next[i].ref.kind == Kind::kCluster) looking.push_back(i);
    for (const size_t i : c.fresh)
      if (c.next[i].ref.kind == Kind::kListener || c.next[i].ref.kind == Kind::kCluster) looking.push_back(i);
    for (const ObjectId id : c.touched) {
      const auto found = dependents.find(id);
      if (found == dependents.end()) continue;
      for (const ObjectId node : found->second)
        for (const Kind kind : {Kind::kListener, Kind::kCluster})
          if (const size_t i = refs.index(kind, node); i < c.next.size()) looking.push_back(i);
    }
    std::sort(looking.begin(), looking.end());
    looking.erase(std::unique(looking.begin(), looking.end()), looking.end());
    for (const size_t i : looking) {
      failure.object = c.next[i].ref.id;
      if (Status s = build_looking(c, i, finder, epoch); !s.ok()) return s;
    }
    for (const size_t i : c.fresh) {
      Loaded& l = c.next[i];
      failure.object = l.ref.id;
      if (l.ref.kind == Kind::kRouteTable) {
        auto node = std::make_shared<RouteTableRuntime>();
        node->id = l.ref.id;
        node->object = reinterpret_cast<const table::RouteTable*>(object(l));
        l.node = std::move(node);
      } else if (l.ref.kind == Kind::kVirtualHost) {
        const auto owner = owners.find(l.ref.id);
        auto node = builder.virtual_host(*reinterpret_cast<const table::VirtualHost*>(object(l)),
                                         owner == owners.end() ? std::string_view() : owner->second, &grew);
        if (grew) {
          ++scratch_generation;  // also when a later object fails: the prototype has grown
          grew = false;
        }
        if (!node.ok()) return Error{node.error()};
        l.node = std::move(*node);
      }
    }
    failure.object = table::kNoObject;
    return {};
  }

  // The map of one kind: the one before where nothing of the kind is other than it was.
  template <class T, class Of>
  ObjectMap<T> map_of(Kind kind, const Change& c, const ObjectMap<T>* before, Of&& of) const {
    if (before != nullptr && !c.kinds[static_cast<size_t>(kind)]) return *before;
    const auto kind_is = [](const Loaded& l, Kind k) { return l.ref.kind < k; };
    auto i = std::lower_bound(c.next.begin(), c.next.end(), kind, kind_is);
    auto end = i;
    while (end != c.next.end() && end->ref.kind == kind) ++end;
    ObjectMap<T> map(static_cast<size_t>(end - i));
    for (; i != end; ++i)
      if (i->node != nullptr) map.add(i->ref.id, of(i->node.get()));
    return map;
  }

  Result<std::unique_ptr<RuntimeSnapshot>> assemble(const Change& c, uint64_t epoch) {
    const RuntimeSnapshot* before = alive.empty() ? nullptr : alive.back().get();
    std::unique_ptr<RuntimeSnapshot> s(new RuntimeSnapshot());
    s->epoch_ = epoch;
    s->sequence_ = next_sequence;
    s->objects_ = c.next.size();
    s->owners_.push_back(arena);
    s->listeners_ = map_of<ListenerRuntime>(Kind::kListener, c, before == nullptr ? nullptr : &before->listeners_,
                                            [](const void* n) { return &static_cast<const ListenerNode*>(n)->runtime; });
    s->route_tables_ = map_of<RouteTableRuntime>(Kind::kRouteTable, c, before == nullptr ? nullptr : &before->route_tables_,
                                                 [](const void* n) { return static_cast<const RouteTableRuntime*>(n); });
    s->virtual_hosts_ = map_of<VirtualHostEntry>(Kind::kVirtualHost, c, before == nullptr ? nullptr : &before->virtual_hosts_,
                                                 [](const void* n) { return &static_cast<const VirtualHostNode*>(n)->entry; });
    s->clusters_ = map_of<ClusterRuntime>(Kind::kCluster, c, before == nullptr ? nullptr : &before->clusters_,
                                          [](const void* n) { return &static_cast<const ClusterNode*>(n)->runtime; });
    std::vector<ListenerSet::Entry> entries;
    for (const Loaded& l : c.next) {
      if (l.ref.kind == Kind::kCluster && l.node != nullptr) {
        const ClusterRuntime& r = static_cast<const ClusterNode*>(l.node.get())->runtime;
        if (r.watched) s->watched_.push_back(&r);
      }
      if (l.ref.kind != Kind::kListener || l.node == nullptr) continue;
      const ListenerRuntime& r = static_cast<const ListenerNode*>(l.node.get())->runtime;
      s->listener_list_.push_back(&r);
      const std::string name(table::view(r.object, r.object->name));
      const auto limit = config_.listener_limits.find(name);
      entries.push_back({r.object->address, r.object->port, r.id, false,
                         limit != config_.listener_limits.end() ? limit->second : config_.connection_limit, r.slot, r.object->tcp,
                         r.object->per_connection_buffer_limit_bytes});
    }
    s->listener_set_ = ListenerSet(entries);
    s->scratch_.resize(slots.size());
    for (size_t w = 0; w < slots.size(); ++w) {
      if (scratch_of[w] == scratch_generation) continue;
      auto clone = builder.prototype_scratch().clone();
      if (!clone.ok()) return Error{"scratch for regex scans: " + clone.error()};
      s->scratch_[w].scratch = std::move(*clone);
      s->scratch_[w].fresh = true;
    }
    return s;
  }

  void offer(std::unique_ptr<RuntimeSnapshot> s) {
    ++next_sequence;
    const RuntimeSnapshot* offered = s.get();
    alive.push_back(std::move(s));
    alive_scratch.push_back(scratch_generation);
    for (WorkerTableSlot& slot : slots) slot.offer(offered);
    gauge(LoaderCounter::kOfferedEpoch, offered->epoch());
    gauge(LoaderCounter::kSnapshotsAlive, alive.size());
  }

  void load(const table::PublishSnapshot& command) {
    const TimeNs began = monotonic_now();
    Change c;
    Failure failure;
    std::unique_ptr<RuntimeSnapshot> snapshot;
    Status s = check_root(command, c.next);
    if (s.ok()) s = check_objects(c, failure);
    if (s.ok()) s = build_nodes(c, command.epoch, failure);
    if (s.ok()) {
      auto built = assemble(c, command.epoch);
      if (built.ok()) snapshot = std::move(*built);
      else s = Error{built.error()};
    }
    if (!s.ok()) take_back(c);
    if (!s.ok()) {
      rejection = s.error();
      count(LoaderCounter::kSnapshotsRejected);
      tell(stats::EventType::kSnapshotRejected, command.epoch, failure.object, monotonic_now() - began, command.count, rejection);
      return;
    }
    rejection.clear();
    last_epoch = command.epoch;
    retire(c);
    loaded = std::move(c.next);
    loaded_arena = arena;
    offer(std::move(snapshot));
    const TimeNs took = monotonic_now() - began;
    count(LoaderCounter::kSnapshotsAccepted);
    gauge(LoaderCounter::kLastBuildNs, took);
    tell(stats::EventType::kSnapshotAccepted, command.epoch, table::kNoObject, took, command.count, {});
  }

  // ---- commands -----------------------------------------------------------------------------------------------------------
  bool run_commands() {
    if (!is_attached || ring_broken) return false;
    table::PublishSnapshot newest;
    bool any = false, did = false;
    for (auto record = ring.front(); record.data() != nullptr; record = ring.front()) {
      if (inspection(record) || set_drain(record)) {
        ring.pop();
        did = true;
        continue;
      }
      table::PublishSnapshot command;
      table::SetStagePeriod stages;
      if (record.size() == sizeof command) std::memcpy(&command, record.data(), sizeof command);
      if (record.size() == sizeof stages) std::memcpy(&stages, record.data(), sizeof stages);
      if (record.size() == sizeof stages && stages.type == table::CommandType::kSetStagePeriod &&
          stages.period <= stats::StageClock::kMaxPeriod) {
        set_stage_period(stages.period);
        did = true;
      } else if (record.size() != sizeof command || command.type != table::CommandType::kPublishSnapshot) {
        count(LoaderCounter::kCommandErrors);
        rejection = "control sent a malformed command";
        tell(stats::EventType::kSnapshotRejected, 0, table::kNoObject, 0, 0, rejection);
      } else {
        if (any) count(LoaderCounter::kSnapshotsSkipped);
        newest = command;
        any = true;
      }
      ring.pop();
    }
    if (ring.error() != shm::RingError::kNone) {
      ring_broken = true;
      count(LoaderCounter::kCommandErrors);
      rejection = std::string("command ring is corrupt: ") + shm::to_string(ring.error());
      tell(stats::EventType::kSnapshotRejected, 0, table::kNoObject, 0, 0, rejection);
    }
    if (any) load(newest);
    return any || did;
  }

  // ---- questions to the workers (table/inspect.h) ---------------------------------------------------------------------------
  // True when the record is one, and good; it is then on its way to every worker.
  bool inspection(std::span<const uint8_t> record) {
    table::CommandType type;
    if (record.size() < sizeof type) return false;
    std::memcpy(&type, record.data(), sizeof type);
    table::InspectConnections connections;
    table::StartCapture capture;
    table::StopInspection stop;
    if (type == table::CommandType::kInspectConnections && record.size() == sizeof connections) {
      std::memcpy(&connections, record.data(), sizeof connections);
      if (connections.id == 0 || connections.sort >= table::ConnectionSort::kCount) return false;
      post({reinterpret_cast<const uint8_t*>(&connections), sizeof connections});
    } else if (type == table::CommandType::kStartCapture && record.size() == sizeof capture) {
      std::memcpy(&capture, record.data(), sizeof capture);
      if (capture.id == 0 || capture.snap == 0 || !table::is_valid(capture.filter)) return false;
      if (capture.tls_keys != 0) capture.tls_keys = config_.tls_key_capture ? 1 : 2;  // 2: workers refuse
      post({reinterpret_cast<const uint8_t*>(&capture), sizeof capture});
    } else if (type == table::CommandType::kStopInspection && record.size() == sizeof stop) {
      std::memcpy(&stop, record.data(), sizeof stop);
      post({reinterpret_cast<const uint8_t*>(&stop), sizeof stop});
    } else {
      return false;
    }
    return true;
  }
  void post(std::span<const uint8_t> command) {
    if (unposted.size() < kMaxUnposted) unposted.push_back({{command.begin(), command.end()}, 0});
    deliver();
  }
  // In order, to every worker; a worker that has no room holds up those behind it until the next step.
  bool deliver() {
    bool did = false;
    while (!unposted.empty()) {
      auto& [command, next] = unposted.front();
      while (next < slots.size() && slots[next].post(command)) {
        ++next;
        did = true;
      }
      if (next < slots.size()) return did;
      unposted.pop_front();
    }
    return did;
  }

  // Every worker hears it within a turn; what is there already says for how long (DrainState).
  bool set_drain(std::span<const uint8_t> record) {
    table::SetDrain command;
    if (record.size() != sizeof command) return false;
    std::memcpy(&command, record.data(), sizeof command);
    if (command.type != table::CommandType::kSetDrain || command.time_s > table::SetDrain::kMaxTimeS) return false;
    if (command.fields & table::SetDrain::kHealth) drain.health_failed = command.health_failed != 0;
    if (command.fields & table::SetDrain::kDrain) {
      drain.draining = command.draining != 0;
      drain.time_s = drain.draining ? command.time_s : 0;
      drain.from_ms = drain.draining ? monotonic_now() / base::kMillisecond : 0;
    }
    drain.active = drain.health_failed || drain.draining;
    for (WorkerTableSlot& slot : slots) slot.set_drain(drain.word());
    gauge(LoaderCounter::kHealthFailed, drain.health_failed);
    gauge(LoaderCounter::kDrainFromMs, drain.from_ms);
    gauge(LoaderCounter::kDrainTime, drain.time_s);
    gauge(LoaderCounter::kDraining, drain.draining);  // the last: whoever waits for it finds the others
    return true;
  }

  void set_stage_period(uint32_t period) {
    for (WorkerTableSlot& slot : slots) slot.set_stage_period(period);
    gauge(LoaderCounter::kStagePeriod, period);
  }

  // ---- what nobody sees any more ----------------------------------------------------------------------------------------------
  bool reclaim() {
    uint64_t passed = UINT64_MAX;
    for (size_t w = 0; w < slots.size(); ++w) {
      const uint64_t taken = slots[w].taken();
      passed = std::min(passed, taken);
      // Who has taken a snapshot has its scratch: brought by it, or had before it was built.
      for (size_t i = 0; i < alive.size(); ++i)
        if (alive[i]->sequence() == taken) scratch_of[w] = std::max(scratch_of[w], alive_scratch[i]);
    }
    bool freed = false;
    while (alive.size() > 1 && alive.front()->sequence() < passed) {
      alive.pop_front();
      alive_scratch.pop_front();
      freed = true;
    }
    if (freed) gauge(LoaderCounter::kSnapshotsAlive, alive.size());
    return freed;
  }

  void sweep(TimeNs now) {
    if (now < next_sweep) return;
    next_sweep = now + kSweepInterval;
    builder.sweep(now);
    gauge(LoaderCounter::kPatternDatabases, builder.pattern_databases());
    gauge(LoaderCounter::kTlsContexts, builder.tls().sweep());
    gauge(LoaderCounter::kScopesInUse, builder.leases().directory().in_use());
    gauge(LoaderCounter::kScopesOverflowed, builder.leases().directory().overflowed());
  }
};

TableLoader::TableLoader(const TableLoaderConfig& config, stats::Region region, std::span<WorkerTableSlot> slots,
                         shm::RingProducer* events)
    : impl_(std::make_unique<Impl>(config, region, slots, events)) {
  MILLRACE_ASSERT(slots.size() == region.workers(), "one slot per worker");
  MILLRACE_ASSERT(config.tls_libraries.empty() || config.tls_libraries.size() == slots.size(),
                  "one library context per worker, or none");
  auto empty = impl_->assemble(Impl::Change{}, 0);
  MILLRACE_ASSERT(empty.ok(), "an empty snapshot needs nothing");
  impl_->offer(std::move(*empty));
  impl_->set_stage_period(config.stage_period);
}

TableLoader::~TableLoader() = default;

Status TableLoader::attach(shm::Segment arena, shm::Segment commands, uint64_t control_incarnation) {
  shm::RingConsumer ring;
  if (const auto e = ring.attach(commands.bytes()); e != shm::RingError::kNone)
    return Error{std::string("command ring: ") + shm::to_string(e)};
  if (arena.size() < table::kMinArenaSize) return Error{"arena of " + std::to_string(arena.size()) + " bytes is too small"};
  auto mapping = std::make_shared<ArenaMapping>();
  mapping->segment = std::move(arena);
  impl_->arena = std::move(mapping);
  impl_->commands = std::move(commands);
  impl_->ring = ring;
  impl_->incarnation = control_incarnation;
  impl_->is_attached = true;
  impl_->ring_broken = false;
  return {};
}

void TableLoader::detach() {
  // Whoever asked is gone: nobody reads the answers.
  const table::StopInspection all;
  impl_->post({reinterpret_cast<const uint8_t*>(&all), sizeof all});
  impl_->is_attached = false;
  impl_->ring = shm::RingConsumer();
  impl_->commands = shm::Segment();
  impl_->arena.reset();  // what serves keeps its own reference
}

bool TableLoader::attached() const { return impl_->is_attached; }

bool TableLoader::step(TimeNs now) {
  impl_->builder.leases().set_now(now);
  bool did = impl_->deliver();
  did |= impl_->run_commands();
  did |= impl_->reclaim();
  impl_->sweep(now);
  return did;
}

uint64_t TableLoader::last_epoch() const { return impl_->last_epoch; }
const RuntimeSnapshot* TableLoader::offered() const { return impl_->alive.back().get(); }
size_t TableLoader::snapshots_alive() const { return impl_->alive.size(); }
const std::string& TableLoader::last_rejection() const { return impl_->rejection; }

}  // namespace millrace::dataplane
