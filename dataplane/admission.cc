#include "dataplane/admission.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dataplane/flow_table.h"
#include "lib/base/assert.h"

namespace millrace::dataplane {

using base::IpAddress;
using base::TimeNs;
using stats::DropReason;

// --- TokenBuckets ------------------------------------------------------------------------------------------------------------

namespace {
uint32_t sets_for(uint32_t entries, uint32_t ways) { return std::bit_ceil((entries + ways - 1) / ways); }
}  // namespace

TokenBuckets::TokenBuckets(uint32_t per_second, uint32_t burst, uint32_t entries)
    : cost_(std::max<TimeNs>(base::kSecond / per_second, 1)),
      depth_(cost_ * burst),
      mask_(sets_for(entries, kWays) - 1),
      memory_((size_t{mask_} + 1) * kWays * sizeof(Entry)),
      entries_(memory_.as<Entry>()) {
  MILLRACE_ASSERT(per_second > 0 && burst > 0 && entries > 0, "a bucket that can be filled");
}

TokenBuckets::Place TokenBuckets::find(uint64_t key) const {
  const uint32_t first = (static_cast<uint32_t>(key >> 32) & mask_) * kWays;
  uint32_t fullest = first;
  for (uint32_t i = first; i < first + kWays; ++i) {
    if (entries_[i].key == key) return {i, false};
    if (entries_[i].full_at < entries_[fullest].full_at) fullest = i;
  }
  return {fullest, true};
}

void TokenBuckets::spend(const Place& p, uint64_t key, TimeNs now) {
  Entry& e = entries_[p.index];
  if (p.fresh) {
    forgotten_ += e.full_at > now;
    e = {key, 0};
  }
  e.full_at = std::max(e.full_at, now) + cost_;
}

// --- KeyCounts -----------------------------------------------------------------------------------------------------------------

KeyCounts::KeyCounts(uint32_t capacity)
    : mask_(std::bit_ceil(std::max(capacity, 8u) * 2) - 1),
      memory_((size_t{mask_} + 1) * sizeof(Entry)),
      entries_(memory_.as<Entry>()),
      capacity_(capacity) {}

uint32_t KeyCounts::get(uint64_t key) const {
  for (uint32_t i = home(key); entries_[i].count != 0; i = (i + 1) & mask_)
    if (entries_[i].key == key) return entries_[i].count;
  return 0;
}

void KeyCounts::up(uint64_t key) {
  uint32_t i = home(key);
  for (; entries_[i].count != 0; i = (i + 1) & mask_) {
    if (entries_[i].key != key) continue;
    ++entries_[i].count;
    return;
  }
  MILLRACE_ASSERT(keys_ < capacity_, "a key for each connection at most");
  entries_[i] = {key, 1};
  ++keys_;
}

void KeyCounts::down(uint64_t key) {
  uint32_t i = home(key);
  while (entries_[i].key != key || entries_[i].count == 0) {
    MILLRACE_ASSERT(entries_[i].count != 0, "a key that was counted");
    i = (i + 1) & mask_;
  }
  if (--entries_[i].count != 0) return;
  --keys_;
  // What was pushed on by this entry moves back, so that a search may end at the first free place (Knuth 6.4, algorithm R).
  for (uint32_t j = (i + 1) & mask_; entries_[j].count != 0; j = (j + 1) & mask_) {
    const uint32_t away = (j - home(entries_[j].key)) & mask_;
    if (away < ((j - i) & mask_)) continue;
    entries_[i] = entries_[j];
    entries_[j].count = 0;
    i = j;
  }
}

// --- Admission -----------------------------------------------------------------------------------------------------------------

namespace {
// The two words of an address as they lie in memory, with `bits` of 128 ones from the first byte on.
void prefix_mask(uint32_t bits, uint64_t out[2]) {
  for (uint32_t w = 0; w < 2; ++w) {
    const uint32_t here = bits <= 64 * w ? 0 : std::min(64u, bits - 64 * w);
    const uint64_t big_endian = here == 0 ? 0 : ~uint64_t{0} << (64 - here);
    out[w] = __builtin_bswap64(big_endian);
  }
}
}  // namespace

Admission::Admission(const AdmissionConfig& config, uint32_t workers, uint32_t connections, uint64_t seed)
    : workers_(workers), seed_(seed), listeners_(config.listener_limits ? kMaxListeners : 0) {
  MILLRACE_ASSERT(config.sources.size() <= AdmissionConfig::kMaxLevels, "a few lengths of prefixes");
  if (config.max_active_downstream_connections != 0) most_ = share(config.max_active_downstream_connections);
  for (const SourceLevel& s : config.sources) {
    Level& l = levels_.emplace_back();
    prefix_mask(96u + s.ipv4_prefix, l.mask_v4);
    prefix_mask(s.ipv6_prefix, l.mask_v6);
    if (s.syns_per_second != 0)
      l.buckets = std::make_unique<TokenBuckets>(share(s.syns_per_second), share(s.burst != 0 ? s.burst : s.syns_per_second),
                                                 config.source_table);
    if (s.connections != 0) {
      l.connections = share(s.connections);
      l.counts = std::make_unique<KeyCounts>(connections);
    }
  }
}

uint64_t Admission::key(const Level& l, const IpAddress& a) const {
  const uint64_t* mask = a.is_v4() ? l.mask_v4 : l.mask_v6;
  const uint64_t words[2] = {a.word(0) & mask[0], a.word(1) & mask[1]};
  IpAddress prefix;
  std::memcpy(prefix.bytes.data(), words, sizeof words);
  return flow_hash(seed_, prefix, 0, IpAddress{}, 0) | 1;  // never 0, which free places have
}

uint16_t Admission::listener(table::ObjectId id) const {
  for (uint16_t i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].id == id) return static_cast<uint16_t>(i + 1);
    if (listeners_[i].id == table::kNoObject) break;
  }
  return 0;
}

DropReason Admission::room(const IpAddress& remote, const ListenerSet::Entry& entry) const {
  if (active_ >= most_) return DropReason::kTcpDownstreamLimit;
  if (entry.connection_limit != 0) {
    const uint16_t place = listener(entry.id);
    if (place != 0 && listeners_[place - 1].active >= share(entry.connection_limit)) return DropReason::kTcpListenerLimit;
  }
  for (const Level& l : levels_)
    if (l.counts && l.counts->get(key(l, remote)) >= l.connections) return DropReason::kTcpSourceLimit;
  return DropReason::kNone;
}

DropReason Admission::on_syn(const IpAddress& remote, const ListenerSet::Entry& entry, TimeNs now) {
  if (const DropReason why = room(remote, entry); why != DropReason::kNone) return why;
  // A token is spent at every level or at none: a host that is over its own rate takes nothing from its network.
  TokenBuckets::Place places[AdmissionConfig::kMaxLevels];
  uint64_t keys[AdmissionConfig::kMaxLevels];
  for (size_t i = 0; i < levels_.size(); ++i) {
    if (!levels_[i].buckets) continue;
    keys[i] = key(levels_[i], remote);
    places[i] = levels_[i].buckets->find(keys[i]);
    if (!levels_[i].buckets->has(places[i], now)) return DropReason::kTcpSynRateLimited;
  }
  for (size_t i = 0; i < levels_.size(); ++i)
    if (levels_[i].buckets) levels_[i].buckets->spend(places[i], keys[i], now);
  return DropReason::kNone;
}

DropReason Admission::accept(const IpAddress& remote, const ListenerSet::Entry& entry, uint16_t& counted_on) {
  counted_on = 0;
  if (const DropReason why = room(remote, entry); why != DropReason::kNone) return why;
  ++active_;
  if (entry.connection_limit != 0) {
    uint16_t place = listener(entry.id);
    // A place without connections is anybody's; places are taken from the front, so the search ends early.
    for (uint16_t i = 0; place == 0 && i < listeners_.size(); ++i) {
      if (listeners_[i].active != 0) continue;
      listeners_[i].id = entry.id;
      place = static_cast<uint16_t>(i + 1);
    }
    if (place != 0) ++listeners_[place - 1].active;
    counted_on = place;
  }
  for (Level& l : levels_)
    if (l.counts) l.counts->up(key(l, remote));
  return DropReason::kNone;
}

void Admission::ended(const IpAddress& remote, uint16_t counted_on) {
  MILLRACE_ASSERT(active_ > 0, "one end for each accepted connection");
  --active_;
  if (counted_on != 0) --listeners_[counted_on - 1u].active;
  for (Level& l : levels_)
    if (l.counts) l.counts->down(key(l, remote));
}

uint32_t Admission::sources() const {
  uint32_t n = 0;
  for (const Level& l : levels_) n += l.counts ? l.counts->keys() : 0;
  return n;
}

uint64_t Admission::forgotten() const {
  uint64_t n = 0;
  for (const Level& l : levels_) n += l.buckets ? l.buckets->forgotten() : 0;
  return n;
}

}  // namespace millrace::dataplane
