#include "lib/stats/region.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lib/base/assert.h"
#include "lib/base/hash.h"

namespace millrace::stats {

namespace {

constexpr uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
constexpr uint64_t kPage = 4096;

struct Layout {
  uint64_t workers_offset, worker_stride, scopes_offset, blocks_offset, health_offset, size;
};
// Parts begin on pages, so that a sparse segment pays only for what is used.
Layout layout_of(uint32_t workers, uint32_t scopes) {
  Layout l;
  l.workers_offset = round_up(sizeof(RegionHeader), kPage);
  l.worker_stride = round_up(sizeof(WorkerBlock), kPage);
  l.scopes_offset = l.workers_offset + workers * l.worker_stride;
  l.blocks_offset = round_up(l.scopes_offset + uint64_t{scopes} * sizeof(ScopeEntry), kPage);
  l.health_offset = l.blocks_offset + round_up(uint64_t{scopes} * sizeof(ScopeBlock), kPage) * workers;
  l.size = l.health_offset + round_up(uint64_t{scopes} * sizeof(EndpointHealth), kPage);
  return l;
}
uint64_t block_stride(uint32_t scopes) { return round_up(uint64_t{scopes} * sizeof(ScopeBlock), kPage); }

uint64_t add_names(uint64_t hash, std::span<const CounterInfo> list) {
  for (const CounterInfo& c : list) hash = base::hash64(c.name, hash);
  return base::hash64(hash + list.size());
}

uint64_t pack_meta(ScopeKind kind, uint8_t state, bool truncated, ScopeSlot parent) {
  return static_cast<uint64_t>(kind) | uint64_t{state} << 16 | uint64_t{truncated} << 24 | uint64_t{parent} << 32;
}

}  // namespace

uint64_t region_layout_hash() {
  uint64_t h = kRegionLayoutVersion;
  h = add_names(h, infos<LoopCounter>());
  h = add_names(h, infos<PortCounter>());
  h = add_names(h, infos<TcpCounter>());
  h = add_names(h, infos<TlsCounter>());
  h = add_names(h, infos<HttpCounter>());
  h = add_names(h, infos<LoaderCounter>());
  h = add_names(h, infos<ListenerCounter>());
  h = add_names(h, infos<HcmCounter>());
  h = add_names(h, infos<CompressorCounter>());
  h = add_names(h, infos<ClusterHealthCounter>());
  h = add_names(h, infos<ClusterCheckCounter>());
  h = add_names(h, infos<VirtualHostCounter>());
  h = add_names(h, infos<ClusterCounter>());
  h = add_names(h, infos<Pool>());
  h = add_names(h, infos<WorkerHistogram>());
  h = add_names(h, infos<Stage>());
  for (uint32_t i = 0; i < kDropReasonCount; ++i) h = base::hash64(info(static_cast<DropReason>(i)).name, h);
  for (uint32_t i = 0; i < kResponseFlagCount; ++i) h = base::hash64(info(static_cast<ResponseFlag>(i)).short_name, h);
  return base::hash64(h ^ sizeof(WorkerBlock) ^ uint64_t{sizeof(RegionHeader)} << 32);
}

const char* to_string(ScopeKind k) {
  switch (k) {
    case ScopeKind::kNone:
      return "none";
    case ScopeKind::kOverflow:
      return "overflow";
    case ScopeKind::kListener:
      return "listener";
    case ScopeKind::kHcm:
      return "http";
    case ScopeKind::kVirtualHost:
      return "virtual_host";
    case ScopeKind::kCluster:
      return "cluster";
    case ScopeKind::kEndpoint:
      return "endpoint";
    case ScopeKind::kCompressor:
      return "compressor";
    case ScopeKind::kClusterHealth:
      return "health";
    case ScopeKind::kClusterCheck:
      return "check";
    case ScopeKind::kCount:
      break;
  }
  return "unknown";
}

std::span<const CounterInfo> scope_counters(ScopeKind k) {
  switch (k) {
    case ScopeKind::kListener:
      return infos<ListenerCounter>();
    case ScopeKind::kHcm:
      return infos<HcmCounter>();
    case ScopeKind::kCompressor:
      return infos<CompressorCounter>();
    case ScopeKind::kClusterHealth:
      return infos<ClusterHealthCounter>();
    case ScopeKind::kClusterCheck:
      return infos<ClusterCheckCounter>();
    case ScopeKind::kVirtualHost:
      return infos<VirtualHostCounter>();
    case ScopeKind::kCluster:
    case ScopeKind::kEndpoint:
      return infos<ClusterCounter>();
    case ScopeKind::kNone:
    case ScopeKind::kOverflow:
    case ScopeKind::kCount:
      break;
  }
  return {};
}

void WorkerBlock::flag(ResponseFlags set) {
  for (uint64_t left = set.bits; left != 0; left &= left - 1) {
    const uint32_t i = static_cast<uint32_t>(std::countr_zero(left));
    if (i < kResponseFlagCount) response_flags[i].add();
  }
}

uint64_t region_size(const RegionConfig& config) { return layout_of(config.workers, config.scopes).size; }

base::Result<Region> Region::create(std::span<uint8_t> memory, const RegionConfig& config) {
  if (config.workers == 0 || config.workers > kMaxWorkers)
    return base::Error{"statistics region: 1 to " + std::to_string(kMaxWorkers) + " workers"};
  if (config.scopes < kMinScopes || config.scopes > kMaxScopes)
    return base::Error{"statistics region: " + std::to_string(kMinScopes) + " to " + std::to_string(kMaxScopes) + " scopes"};
  if (config.port_names.size() > kMaxPorts)
    return base::Error{"statistics region: at most " + std::to_string(kMaxPorts) + " ports"};
  if (config.incarnation == 0) return base::Error{"statistics region: incarnation 0"};
  const Layout l = layout_of(config.workers, config.scopes);
  if (memory.size() < l.size) return base::Error{"statistics region: needs " + std::to_string(l.size) + " bytes"};
  MILLRACE_ASSERT(reinterpret_cast<uintptr_t>(memory.data()) % 64 == 0, "a region is aligned to cache lines");

  RegionHeader& h = *reinterpret_cast<RegionHeader*>(memory.data());
  h.layout_version = kRegionLayoutVersion;
  h.workers = config.workers;
  h.layout_hash = region_layout_hash();
  h.incarnation = config.incarnation;
  h.start_wall_ns = config.start_wall_ns;
  h.start_monotonic_ns = config.start_monotonic_ns;
  h.tsc_hz = config.tsc_hz;
  h.scopes = config.scopes;
  h.ports = static_cast<uint32_t>(config.port_names.size());
  h.workers_offset = l.workers_offset;
  h.worker_stride = l.worker_stride;
  h.scopes_offset = l.scopes_offset;
  h.blocks_offset = l.blocks_offset;
  h.health_offset = l.health_offset;
  h.size = l.size;
  for (size_t i = 0; i < config.port_names.size(); ++i) config.port_names[i].copy(h.port_names[i], kMaxPortName - 1);
  config.version.copy(h.version, sizeof h.version - 1);
  Region region(&h);
  ScopeEntry& overflow = region.scope_entries()[kOverflowScope];
  overflow.meta.store(pack_meta(ScopeKind::kOverflow, static_cast<uint8_t>(ScopeState::kLive), false, 0),
                      std::memory_order_relaxed);
  uint64_t name = 0;
  std::memcpy(&name, "overflow", 8);
  overflow.name[0].store(name, std::memory_order_relaxed);
  overflow.name_size.store(8, std::memory_order_relaxed);
  h.magic = kRegionMagic;
  return region;
}

WorkerBlock& Region::worker(uint32_t w) const {
  MILLRACE_ASSERT(w < header_->workers, "worker number in range");
  return *reinterpret_cast<WorkerBlock*>(reinterpret_cast<uint8_t*>(header_) + header_->workers_offset +
                                         w * header_->worker_stride);
}
WorkerStats Region::worker_stats(uint32_t w) const { return {&worker(w), scope_blocks(w), header_->scopes, health()}; }
ScopeEntry* Region::scope_entries() const {
  return reinterpret_cast<ScopeEntry*>(reinterpret_cast<uint8_t*>(header_) + header_->scopes_offset);
}
ScopeBlock* Region::scope_blocks(uint32_t w) const {
  MILLRACE_ASSERT(w < header_->workers, "worker number in range");
  return reinterpret_cast<ScopeBlock*>(reinterpret_cast<uint8_t*>(header_) + header_->blocks_offset +
                                       w * block_stride(header_->scopes));
}
EndpointHealth* Region::health() const {
  return reinterpret_cast<EndpointHealth*>(reinterpret_cast<uint8_t*>(header_) + header_->health_offset);
}

// ---- directory --------------------------------------------------------------------------------------------------------------

ScopeDirectory::ScopeDirectory(const Region& region, base::TimeNs linger_ns)
    : region_(region),
      linger_ns_(linger_ns),
      key_of_(region.scopes()),
      state_(region.scopes(), static_cast<uint8_t>(ScopeState::kFree)),
      releases_(region.scopes()) {}

void ScopeDirectory::write_entry(ScopeSlot slot, ScopeKind kind, uint64_t key, uint8_t state, std::string_view name,
                                 ScopeSlot parent) {
  ScopeEntry& e = region_.scope_entries()[slot];
  const bool truncated = name.size() > kMaxScopeName;
  if (truncated) name = name.substr(0, kMaxScopeName);
  uint64_t words[kMaxScopeName / 8] = {};
  if (!name.empty()) std::memcpy(words, name.data(), name.size());
  const uint32_t sequence = e.sequence.load(std::memory_order_relaxed);
  e.sequence.store(sequence + 1, std::memory_order_relaxed);
  // Release on every word: none may become visible before the odd number. Pairs with the acquire loads of the words in
  // RegionView::scope.
  e.key.store(key, std::memory_order_release);
  e.meta.store(pack_meta(kind, state, truncated, parent), std::memory_order_release);
  e.name_size.store(name.size(), std::memory_order_release);
  for (size_t i = 0; i < kMaxScopeName / 8; ++i) e.name[i].store(words[i], std::memory_order_release);
  e.sequence.store(sequence + 2, std::memory_order_release);  // pairs with the acquire load in RegionView::scope
}

void ScopeDirectory::set_state(ScopeSlot slot, uint8_t state) {
  state_[slot] = state;
  ScopeEntry& e = region_.scope_entries()[slot];
  const uint64_t meta = e.meta.load(std::memory_order_relaxed);
  // One word: no torn read is possible.
  e.meta.store((meta & ~(uint64_t{0xff} << 16)) | uint64_t{state} << 16, std::memory_order_relaxed);
}

ScopeSlot ScopeDirectory::acquire(ScopeKind kind, uint64_t key, std::string_view name, ScopeSlot parent) {
  const std::pair<uint16_t, uint64_t> k{static_cast<uint16_t>(kind), key};
  if (const auto it = index_.find(k); it != index_.end()) {
    // A lingering slot that came back: its entry in lingering_ is skipped by sweep().
    if (state_[it->second] != static_cast<uint8_t>(ScopeState::kLive))
      set_state(it->second, static_cast<uint8_t>(ScopeState::kLive));
    return it->second;
  }
  ScopeSlot slot;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else if (next_fresh_ < region_.scopes()) {
    slot = next_fresh_++;
  } else {
    ++overflowed_;
    return kOverflowScope;
  }
  index_.emplace(k, slot);
  key_of_[slot] = k;
  state_[slot] = static_cast<uint8_t>(ScopeState::kLive);
  write_entry(slot, kind, key, static_cast<uint8_t>(ScopeState::kLive), name, parent);
  return slot;
}

void ScopeDirectory::release(ScopeSlot slot, base::TimeNs now) {
  if (slot == kOverflowScope || slot >= region_.scopes() || state_[slot] != static_cast<uint8_t>(ScopeState::kLive)) return;
  set_state(slot, static_cast<uint8_t>(ScopeState::kLingering));
  lingering_.push_back({slot, ++releases_[slot], now, false});
}

bool ScopeDirectory::quiet(ScopeSlot slot, ScopeKind kind) const {
  const auto list = scope_counters(kind);
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].type != CounterType::kGauge) continue;
    for (uint32_t w = 0; w < region_.workers(); ++w)
      if (region_.scope_blocks(w)[slot].words[i].read() != 0) return false;
  }
  return true;
}

void ScopeDirectory::sweep(base::TimeNs now, base::TimeNs safe_before) {
  constexpr size_t kSlotsPerSweep = 4096;
  for (size_t looked = 0; looked < kSlotsPerSweep && !lingering_.empty(); ++looked) {
    if (sweep_at_ >= lingering_.size()) {
      sweep_at_ = 0;
      if (looked != 0) break;  // once round is enough
    }
    Lingering& l = lingering_[sweep_at_];
    const auto drop = [&] {
      l = lingering_.back();
      lingering_.pop_back();
    };
    if (state_[l.slot] != static_cast<uint8_t>(ScopeState::kLingering) ||
        l.release != releases_[l.slot]) {  // came back meanwhile
      drop();
      continue;
    }
    const ScopeKind kind = static_cast<ScopeKind>(key_of_[l.slot].first);
    if (l.since >= safe_before || now < base::time_add(l.since, linger_ns_)) {
      ++sweep_at_;
      continue;
    }
    if (!quiet(l.slot, kind)) {
      l.since = now;
      l.seen_quiet = false;
      ++sweep_at_;
      continue;
    }
    if (!l.seen_quiet) {
      l.since = now;
      l.seen_quiet = true;
      ++sweep_at_;
      continue;
    }
    // Nobody has it any more: the words are the loader's until the slot is given out again.
    const ScopeSlot slot = l.slot;
    drop();
    for (uint32_t w = 0; w < region_.workers(); ++w)
      for (Counter& c : region_.scope_blocks(w)[slot].words) c.set(0);
    std::memset(static_cast<void*>(&region_.health()[slot]), 0, sizeof(EndpointHealth));
    index_.erase(key_of_[slot]);
    key_of_[slot] = {};
    state_[slot] = static_cast<uint8_t>(ScopeState::kFree);
    write_entry(slot, ScopeKind::kNone, 0, static_cast<uint8_t>(ScopeState::kFree), {}, kOverflowScope);
    ScopeEntry& e = region_.scope_entries()[slot];
    e.generation.store(e.generation.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    free_.push_back(slot);
  }
}

// ---- reading ----------------------------------------------------------------------------------------------------------------

base::Result<RegionView> RegionView::attach(std::span<const uint8_t> memory) {
  if (memory.size() < sizeof(RegionHeader)) return base::Error{"statistics region: shorter than its header"};
  if (reinterpret_cast<uintptr_t>(memory.data()) % 64 != 0) return base::Error{"statistics region: not aligned"};
  const RegionHeader& h = *reinterpret_cast<const RegionHeader*>(memory.data());
  if (h.magic != kRegionMagic) return base::Error{"statistics region: not one (magic)"};
  if (h.layout_version != kRegionLayoutVersion || h.layout_hash != region_layout_hash())
    return base::Error{"statistics region: made by a program with another list of counters"};
  RegionView v;
  v.base_ = memory.data();
  v.header_ = &h;
  v.workers_ = h.workers;
  v.scopes_ = h.scopes;
  v.ports_ = h.ports;
  if (v.workers_ == 0 || v.workers_ > kMaxWorkers || v.scopes_ < kMinScopes || v.scopes_ > kMaxScopes || v.ports_ > kMaxPorts)
    return base::Error{"statistics region: counts out of range"};
  const Layout l = layout_of(v.workers_, v.scopes_);
  if (h.workers_offset != l.workers_offset || h.worker_stride != l.worker_stride || h.scopes_offset != l.scopes_offset ||
      h.blocks_offset != l.blocks_offset || h.health_offset != l.health_offset)
    return base::Error{"statistics region: offsets are not those of this layout"};
  if (l.size > memory.size()) return base::Error{"statistics region: shorter than its parts"};
  v.workers_offset_ = l.workers_offset;
  v.worker_stride_ = l.worker_stride;
  v.scopes_offset_ = l.scopes_offset;
  v.blocks_offset_ = l.blocks_offset;
  v.health_offset_ = l.health_offset;
  return v;
}

std::string RegionView::port_name(uint32_t port) const {
  if (port >= ports_) return {};
  const char* name = header_->port_names[port];
  return {name, strnlen(name, kMaxPortName)};
}

const WorkerBlock& RegionView::worker(uint32_t w) const {
  MILLRACE_ASSERT(w < workers_, "worker number in range");
  return *reinterpret_cast<const WorkerBlock*>(base_ + workers_offset_ + w * worker_stride_);
}

const ScopeBlock& RegionView::block(uint32_t w, ScopeSlot slot) const {
  MILLRACE_ASSERT(w < workers_ && slot < scopes_, "worker and slot in range");
  return *reinterpret_cast<const ScopeBlock*>(base_ + blocks_offset_ + w * block_stride(scopes_) +
                                              uint64_t{slot} * sizeof(ScopeBlock));
}

const EndpointHealth& RegionView::health(ScopeSlot slot) const {
  MILLRACE_ASSERT(slot < scopes_, "slot in range");
  return reinterpret_cast<const EndpointHealth*>(base_ + health_offset_)[slot];
}

std::optional<Scope> RegionView::scope(ScopeSlot slot) const {
  if (slot >= scopes_) return std::nullopt;
  const ScopeEntry& e = reinterpret_cast<const ScopeEntry*>(base_ + scopes_offset_)[slot];
  for (int attempt = 0; attempt < 100; ++attempt) {
    const uint32_t before = e.sequence.load(std::memory_order_acquire);  // pairs with the release store in write_entry
    if (before % 2 != 0) continue;
    Scope s;
    s.slot = slot;
    // Acquire on every word: the second look at the number comes after them. Pairs with the release stores of the words in
    // write_entry: who sees a new word sees the odd number before it.
    s.key = e.key.load(std::memory_order_acquire);
    s.generation = e.generation.load(std::memory_order_acquire);
    const uint64_t meta = e.meta.load(std::memory_order_acquire);
    const uint64_t size = e.name_size.load(std::memory_order_acquire);
    uint64_t words[kMaxScopeName / 8];
    for (size_t i = 0; i < kMaxScopeName / 8; ++i) words[i] = e.name[i].load(std::memory_order_acquire);
    if (e.sequence.load(std::memory_order_relaxed) != before) continue;
    s.kind = static_cast<ScopeKind>(meta & 0xffff);
    s.state = static_cast<ScopeState>(meta >> 16 & 0xff);
    s.truncated = (meta >> 24 & 0xff) != 0;
    s.parent = static_cast<ScopeSlot>(meta >> 32);
    if (s.kind == ScopeKind::kNone || s.kind >= ScopeKind::kCount || s.state == ScopeState::kFree ||
        s.state > ScopeState::kLingering)
      return std::nullopt;
    s.name.assign(reinterpret_cast<const char*>(words), std::min<uint64_t>(size, kMaxScopeName));
    return s;
  }
  return std::nullopt;
}

std::vector<Scope> RegionView::all_scopes() const {
  std::vector<Scope> all;
  for (ScopeSlot s = 1; s < scopes_; ++s)
    if (auto scope_copy = scope(s)) all.push_back(std::move(*scope_copy));
  return all;
}

uint64_t RegionView::scope_sum(ScopeSlot slot, uint32_t word) const {
  if (slot >= scopes_ || word >= kScopeCounters) return 0;
  uint64_t sum = 0;
  for (uint32_t w = 0; w < workers_; ++w) sum += block(w, slot).words[word].read();
  return sum;
}
uint64_t RegionView::drops(DropReason r) const {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < workers_; ++w) sum += worker(w).drops[static_cast<uint32_t>(r)].read();
  return sum;
}
uint64_t RegionView::response_flags(ResponseFlag f) const {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < workers_; ++w) sum += worker(w).response_flags[static_cast<uint32_t>(f)].read();
  return sum;
}
HistogramSnapshot RegionView::histogram(WorkerHistogram h) const {
  HistogramSnapshot s;
  for (uint32_t w = 0; w < workers_; ++w) s.merge(worker(w).histograms[static_cast<uint32_t>(h)]);
  return s;
}
uint64_t RegionView::min_seen_epoch() const {
  uint64_t least = UINT64_MAX;
  for (uint32_t w = 0; w < workers_; ++w)
    // Pairs with the worker's release store in WorkerTableSlot::take: what it used before, it uses no more.
    least = std::min(least, worker(w).seen_epoch.load(std::memory_order_acquire));
  return least;
}

}  // namespace millrace::stats
