#include "control/publisher.h"

#include <algorithm>
#include <cstring>

#include "lib/base/assert.h"
#include "lib/table/object_writer.h"
#include "lib/table/validate.h"

namespace millrace::control {

using base::Error;
using base::Result;
using base::Status;
using table::ObjectHeader;
using table::ObjectId;

Publisher::Publisher(const PublisherConfig& config, Arena arena) : config_(config), arena_(std::move(arena)) {}

Result<std::unique_ptr<Publisher>> Publisher::create(const PublisherConfig& config) {
  if (config.incarnation == 0) return Error{"publisher: incarnation 0"};
  auto arena = Arena::create(config.arena_size);
  if (!arena.ok()) return Error{arena.error()};
  return std::unique_ptr<Publisher>(new Publisher(config, std::move(*arena)));
}

// ---- publishing -----------------------------------------------------------------------------------------------------------

Result<uint64_t> Publisher::publish(std::span<const PublishObject> changed, std::span<const ObjectId> removed) {
  std::lock_guard lock(mutex_);
  return apply(changed, removed, /*replace_all=*/false);
}

Result<uint64_t> Publisher::publish_all(std::span<const PublishObject> objects) {
  std::lock_guard lock(mutex_);
  return apply(objects, {}, /*replace_all=*/true);
}

Result<uint64_t> Publisher::write_root(std::vector<table::ObjectRef> refs, uint64_t epoch) {
  const std::vector<uint8_t> root = table::write_snapshot(epoch, config_.incarnation, std::move(refs));
  auto offset = arena_.allocate(root.size());
  if (!offset.ok()) return Error{"snapshot root: " + offset.error()};
  std::memcpy(arena_.at(*offset), root.data(), root.size());
  return *offset;
}

namespace {

table::ObjectRef reference(table::Kind kind, ObjectId id, uint64_t offset, uint64_t version, uint32_t size) {
  table::ObjectRef r{};
  r.id = id;
  r.arena_offset = offset;
  r.version = version;
  r.size = size;
  r.kind = kind;
  return r;
}

}  // namespace

std::vector<table::ObjectRef> Publisher::all_references() const {
  std::vector<table::ObjectRef> refs;
  refs.reserve(objects_.size());
  for (const auto& [key, o] : objects_) refs.push_back(reference(key.first, key.second, o.offset, o.version, o.size));
  return refs;
}

// The references in force with `put` in and `gone` out, all sorted by key: one pass over what lies side by side.
std::vector<table::ObjectRef> Publisher::merged(const Objects& put, std::span<const Key> gone) const {
  std::vector<table::ObjectRef> out;
  out.reserve(refs_.size() + put.size());
  auto fresh = put.begin();
  auto lost = gone.begin();
  const auto take = [&] {
    const auto& [key, o] = *fresh++;
    out.push_back(reference(key.first, key.second, o.offset, o.version, o.size));
  };
  for (const table::ObjectRef& r : refs_) {
    const Key key{r.kind, r.id};
    while (fresh != put.end() && fresh->first < key) take();
    while (lost != gone.end() && *lost < key) ++lost;
    if (fresh != put.end() && fresh->first == key) take();
    else if (lost == gone.end() || *lost != key) out.push_back(r);
  }
  while (fresh != put.end()) take();
  return out;
}

Result<uint64_t> Publisher::apply(std::span<const PublishObject> changed, std::span<const ObjectId> removed, bool replace_all) {
  // 1. What is new? Nothing is touched before everything is known to be good.
  struct Fresh {
    const PublishObject* object;
    ObjectHeader header;
    uint64_t offset = 0;
  };
  std::vector<Fresh> fresh;
  std::unordered_map<ObjectId, size_t> named;  // ids of `changed`
  for (size_t i = 0; i < changed.size(); ++i) {
    const PublishObject& o = changed[i];
    if (o.bytes.size() < sizeof(ObjectHeader)) return Error{"'" + o.name + "': not a table object"};
    if (config_.validate) {
      if (Status s = table::validate_object(o.bytes); !s.ok()) return Error{"'" + o.name + "': " + s.error()};
    }
    ObjectHeader header;
    std::memcpy(&header, o.bytes.data(), sizeof header);
    if (header.size != o.bytes.size() || header.id == table::kNoObject) return Error{"'" + o.name + "': not a table object"};
    if (!named.emplace(header.id, i).second)
      return Error{"'" + o.name + "' is published twice at once, or its id collides with that of '" +
                   changed[named[header.id]].name + "'"};
    const auto kind = kind_of_.find(header.id);
    const bool known = kind != kind_of_.end();
    if (known) {
      const Object& old = objects_.at({kind->second, header.id});
      if (kind->second != header.kind || old.name != o.name)
        return Error{"'" + o.name + "': its id collides with that of '" + old.name + "'; give one of them another name"};
      const uint8_t* bytes = arena_.at(old.offset);
      if (old.size == header.size && std::memcmp(bytes + sizeof(ObjectHeader), o.bytes.data() + sizeof(ObjectHeader),
                                                 header.size - sizeof(ObjectHeader)) == 0)
        continue;  // as it is in force
    }
    fresh.push_back({&o, header});
  }
  std::vector<Key> gone;
  for (const ObjectId id : removed) {
    if (named.count(id) != 0) return Error{"an object is published and removed at once"};
    if (const auto it = kind_of_.find(id); it != kind_of_.end()) gone.push_back({it->second, id});
  }
  if (replace_all) {
    for (const auto& [key, o] : objects_)
      if (named.count(key.second) == 0) gone.push_back(key);
  }
  std::sort(gone.begin(), gone.end());
  gone.erase(std::unique(gone.begin(), gone.end()), gone.end());
  if (fresh.empty() && gone.empty() && published_) return epoch_;

  // 2. Room and bytes for the new objects and the root; all given back on failure.
  Objects put;
  const uint64_t epoch = epoch_ + 1;
  size_t written = 0;
  const auto give_back = [&] {
    for (size_t i = 0; i < written; ++i) arena_.free(fresh[i].offset);
  };
  for (Fresh& f : fresh) {
    auto offset = arena_.allocate(f.header.size);
    if (!offset.ok()) {
      give_back();
      return Error{"'" + f.object->name + "': " + offset.error()};
    }
    f.offset = *offset;
    ++written;
    f.header.version = next_version_++;
    std::memcpy(arena_.at(f.offset), f.object->bytes.data(), f.header.size);
    std::memcpy(arena_.at(f.offset), &f.header, sizeof f.header);  // the checksum does not cover the header
    put[{f.header.kind, f.header.id}] = {f.object->name, f.offset, f.header.version, f.header.size, f.header.kind};
  }
  std::vector<table::ObjectRef> refs = merged(put, gone);
  auto root = write_root(refs, epoch);
  if (!root.ok()) {
    give_back();
    return Error{root.error()};
  }

  // 3. From here on it cannot fail.
  const auto let_go = [&](uint64_t offset) {
    if (arena_shared_) arena_.retire(offset, epoch);
    else arena_.free(offset);
  };
  for (const Key& key : gone) {
    const auto old = objects_.find(key);
    let_go(old->second.offset);
    kind_of_.erase(key.second);
    objects_.erase(old);
  }
  for (auto& [key, object] : put) {
    kind_of_[key.second] = key.first;
    const auto [at, is_new] = objects_.try_emplace(key, std::move(object));
    if (is_new) continue;
    let_go(at->second.offset);
    at->second = std::move(object);
  }
  if (root_offset_ != 0) let_go(root_offset_);
  published_ = true;
  epoch_ = epoch;
  root_offset_ = *root;
  refs_ = std::move(refs);
  root_count_ = static_cast<uint32_t>(refs_.size());
  send_newest();
  return epoch_;
}

// Tells the data plane about the newest epoch, if one is linked and there is room; step() tries again.
void Publisher::send_newest() {
  if (!ring_.attached() || root_offset_ == 0 || sent_epoch_ >= epoch_) return;
  table::PublishSnapshot command;
  command.count = root_count_;
  command.epoch = epoch_;
  command.root_offset = root_offset_;
  if (ring_.push({reinterpret_cast<const uint8_t*>(&command), sizeof command})) sent_epoch_ = epoch_;
}

bool Publisher::set_stage_period(uint32_t period) {
  std::lock_guard lock(mutex_);
  if (!stats_ || !ring_.attached()) return false;
  stage_period_ = period;
  send_stage_period();
  return true;
}

void Publisher::send_stage_period() {
  if (!stage_period_ || !ring_.attached()) return;
  table::SetStagePeriod command;
  command.period = *stage_period_;
  if (ring_.push({reinterpret_cast<const uint8_t*>(&command), sizeof command})) stage_period_.reset();
}

bool Publisher::send_inspection(std::span<const uint8_t> command) {
  std::lock_guard lock(mutex_);
  return stats_ && ring_.attached() && ring_.push(command);
}

// ---- the link ---------------------------------------------------------------------------------------------------------------

// Copies every live object into an arena that nobody has seen. The old one goes with its last mapping.
Status Publisher::move_to_fresh_arena() {
  auto created = Arena::create(config_.arena_size);
  if (!created.ok()) return Error{created.error()};
  Arena fresh = std::move(*created);
  Objects moved = objects_;
  for (auto& [key, o] : moved) {
    auto offset = fresh.allocate(o.size);
    if (!offset.ok()) return Error{offset.error()};
    std::memcpy(fresh.at(*offset), arena_.at(o.offset), o.size);
    o.offset = *offset;
  }
  arena_ = std::move(fresh);
  objects_ = std::move(moved);
  refs_ = all_references();
  arena_shared_ = false;
  root_offset_ = 0;
  return {};
}

Result<Publisher::Handover> Publisher::prepare_link() {
  std::lock_guard lock(mutex_);
  stats_.reset();
  ring_ = shm::RingProducer();
  if (arena_shared_) {
    if (Status s = move_to_fresh_arena(); !s.ok()) return Error{s.error()};
  }
  auto commands = shm::Segment::create("millrace-commands", shm::ring_bytes(config_.command_ring));
  if (!commands.ok()) return Error{commands.error()};
  if (const auto e = shm::format_ring(commands->bytes(), config_.command_ring); e != shm::RingError::kNone)
    return Error{std::string("command ring: ") + shm::to_string(e)};
  auto arena_fd = arena_.segment().read_only_fd();
  if (!arena_fd.ok()) return Error{arena_fd.error()};
  commands_ = std::move(*commands);
  arena_shared_ = true;  // whatever happens next, somebody may have it
  Handover h;
  h.arena = std::move(*arena_fd);
  h.commands = commands_.fd();
  h.arena_size = arena_.size();
  h.command_capacity = config_.command_ring;
  return h;
}

void Publisher::on_linked(stats::RegionView stats, uint64_t last_epoch) {
  std::lock_guard lock(mutex_);
  stats_ = stats;
  if (!published_) inherited_epoch_ = last_epoch;
  const auto attached = ring_.attach(commands_.bytes());
  MILLRACE_ASSERT(attached == shm::RingError::kNone, "a command ring just made is good");
  accepted_ = rejected_ = sent_epoch_ = 0;
  rejection_.clear();
  // The first epoch of this link is above everything this data plane has seen: words it shows from another control cannot be
  // mistaken for ours.
  const bool root_good = root_offset_ != 0 && epoch_ > last_epoch;
  if (published_ && epoch_ <= last_epoch) epoch_ = last_epoch + 1;
  if (!published_) epoch_ = std::max(epoch_, last_epoch);
  fence_epoch_ = published_ ? epoch_ : epoch_ + 1;
  if (published_ && !root_good) {
    if (auto root = write_root(refs_, epoch_); root.ok()) {
      if (root_offset_ != 0) arena_.retire(root_offset_, epoch_);
      root_offset_ = *root;
      root_count_ = static_cast<uint32_t>(refs_.size());
    } else {
      rejected_ = epoch_;
      rejection_ = root.error();
    }
  }
  send_newest();
  changed_.notify_all();
}

void Publisher::on_unlinked() {
  std::lock_guard lock(mutex_);
  stats_.reset();
  stage_period_.reset();
  drain_ = {};
  ring_ = shm::RingProducer();
  // A data plane that only lost its link still serves from the arena it has: from now on it is left alone. When there is no room
  // for a copy now, prepare_link tries again, and until then replaced objects stay where they are.
  if (arena_shared_) (void)move_to_fresh_arena();
  changed_.notify_all();
}

void Publisher::on_loader_event(const stats::LoaderEvent& event, stats::EventType type, std::string_view text) {
  std::lock_guard lock(mutex_);
  if (event.incarnation != config_.incarnation || event.epoch < fence_epoch_) return;
  if (type == stats::EventType::kSnapshotAccepted) {
    accepted_ = std::max(accepted_, event.epoch);
  } else if (type == stats::EventType::kSnapshotRejected && event.epoch >= rejected_) {
    rejected_ = event.epoch;
    rejection_ = text;
  }
  changed_.notify_all();
}

// Wishes that wait for room become one: the newer word of each field counts.
bool Publisher::set_drain(const table::SetDrain& wish) {
  std::lock_guard lock(mutex_);
  if (!stats_ || !ring_.attached()) return false;
  if (wish.fields & table::SetDrain::kHealth) drain_.health_failed = wish.health_failed;
  if (wish.fields & table::SetDrain::kDrain) {
    drain_.draining = wish.draining;
    drain_.time_s = wish.time_s;
  }
  drain_.fields |= wish.fields;
  send_drain();
  return true;
}

void Publisher::send_drain() {
  if (drain_.fields == 0 || !ring_.attached()) return;
  if (ring_.push({reinterpret_cast<const uint8_t*>(&drain_), sizeof drain_})) drain_ = {};
}

Status Publisher::step() {
  std::lock_guard lock(mutex_);
  if (!stats_) return {};
  send_newest();
  send_stage_period();
  send_drain();
  if (ring_.error() != shm::RingError::kNone) return Error{std::string("command ring: ") + shm::to_string(ring_.error())};
  const uint64_t seen = min_seen();
  if (seen != 0) arena_.reclaim(seen);
  changed_.notify_all();
  return {};
}

// The epoch of this link that every worker has taken; 0: none yet.
uint64_t Publisher::min_seen() const {
  if (!stats_) return 0;
  const uint64_t seen = stats_->min_seen_epoch();
  return seen >= fence_epoch_ ? seen : 0;
}

// ---- asking -----------------------------------------------------------------------------------------------------------------

Acknowledgement Publisher::acknowledgement_locked(uint64_t epoch) const {
  if (!stats_) return {AckState::kNotConnected, "no data plane is connected"};
  const uint64_t seen = min_seen();
  if (seen != 0 && seen >= epoch) return {AckState::kAcknowledged, {}};
  // Refused, and nothing at or above it was accepted since. (An epoch passed over for a newer one shares the newer one's fate.)
  if (rejected_ != 0 && rejected_ >= epoch && rejected_ > accepted_ && rejected_ >= sent_epoch_)
    return {AckState::kRejected, rejection_};
  return {AckState::kPending, {}};
}

Acknowledgement Publisher::acknowledgement(uint64_t epoch) const {
  std::lock_guard lock(mutex_);
  return acknowledgement_locked(epoch);
}

Acknowledgement Publisher::wait_acknowledged(uint64_t epoch, std::chrono::milliseconds timeout) {
  // Workers only write their words; step() wakes us, and a short wait covers a link thread that is busy.
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  std::unique_lock lock(mutex_);
  for (;;) {
    Acknowledgement a = acknowledgement_locked(epoch);
    if (a.state == AckState::kAcknowledged || a.state == AckState::kRejected) return a;
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return a;
    changed_.wait_until(lock, std::min(deadline, now + std::chrono::milliseconds(1)));
  }
}

PublisherStatus Publisher::status() const {
  std::lock_guard lock(mutex_);
  PublisherStatus s;
  s.connected = stats_.has_value();
  s.epoch = epoch_;
  s.acknowledged = min_seen();
  if (stats_) {
    for (uint32_t w = 0; w < stats_->workers(); ++w) {
      const uint64_t seen = stats_->worker(w).seen_epoch.load(std::memory_order_acquire);
      s.seen.push_back(seen >= fence_epoch_ ? seen : 0);
    }
  }
  s.accepted = accepted_;
  s.rejected = rejected_;
  s.rejection = rejection_;
  s.objects = objects_.size();
  s.arena_used = arena_.used();
  s.arena_retired = arena_.retired();
  s.arena_size = arena_.size();
  s.arena_huge = arena_.on_huge_pages();
  s.arena_ordinary = arena_.on_ordinary_pages();
  s.kernel_makes_huge = arena_.kernel_makes_huge();
  s.waiting_for_ring = ring_.attached() && sent_epoch_ < epoch_ && root_offset_ != 0;
  return s;
}

uint64_t Publisher::inherited_epoch() const {
  std::lock_guard lock(mutex_);
  return inherited_epoch_;
}

bool Publisher::contains(ObjectId id) const {
  std::lock_guard lock(mutex_);
  return kind_of_.count(id) != 0;
}

std::optional<std::vector<uint8_t>> Publisher::object(ObjectId id) const {
  std::lock_guard lock(mutex_);
  const auto kind = kind_of_.find(id);
  if (kind == kind_of_.end()) return std::nullopt;
  const Object& o = objects_.at({kind->second, id});
  return std::vector<uint8_t>(arena_.at(o.offset), arena_.at(o.offset) + o.size);
}

}  // namespace millrace::control
