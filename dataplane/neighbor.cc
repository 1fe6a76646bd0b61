#include "dataplane/neighbor.h"

#include <algorithm>

#include <rte_mbuf.h>

#include "dataplane/flow_table.h"
#include "lib/base/assert.h"

namespace millrace::dataplane {

using stats::DropReason;

const char* to_string(NeighborState s) {
  switch (s) {
    case NeighborState::kFree:
      return "free";
    case NeighborState::kIncomplete:
      return "incomplete";
    case NeighborState::kReachable:
      return "reachable";
    case NeighborState::kStale:
      return "stale";
    case NeighborState::kDelay:
      return "delay";
    case NeighborState::kProbe:
      return "probe";
    case NeighborState::kStatic:
      return "static";
  }
  return "?";
}

NeighborTable::NeighborTable(uint32_t capacity, uint64_t seed, stats::Counter* drops)
    : capacity_(capacity), seed_(seed), drops_(drops), entries_(std::make_unique<Entry[]>(capacity)) {
  MILLRACE_ASSERT(capacity > 0, "a neighbour table of a sensible size");
  uint32_t buckets = 1;
  while (buckets < capacity) buckets *= 2;
  mask_ = buckets - 1;
  heads_ = std::make_unique<uint32_t[]>(buckets);
  std::fill_n(heads_.get(), buckets, kNone);
  for (uint32_t i = capacity; i-- > 0;) {
    entries_[i].next = free_;
    free_ = i;
  }
}

NeighborTable::~NeighborTable() {
  for (uint32_t i = 0; i < capacity_; ++i)
    for (uint32_t f = 0; f < entries_[i].queued; ++f) rte_pktmbuf_free(entries_[i].frames[f]);
}

uint32_t NeighborTable::bucket(uint16_t port, const base::IpAddress& a) const {
  return static_cast<uint32_t>(flow_hash(seed_, a, port, a, 0)) & mask_;
}

uint32_t NeighborTable::find(uint16_t port, const base::IpAddress& a) const {
  for (uint32_t i = heads_[bucket(port, a)]; i != kNone; i = entries_[i].next)
    if (entries_[i].port == port && entries_[i].address == a) return i;
  return kNone;
}

uint32_t NeighborTable::find_or_create(uint16_t port, const base::IpAddress& a, TimeNs now) {
  uint32_t slot = find(port, a);
  if (slot != kNone) return slot;
  slot = allocate(port, a, now);
  if (slot == kNone) return kNone;
  Entry& e = entries_[slot];
  set_state(e, NeighborState::kIncomplete);
  set_pending(e, now);
  return slot;
}

// A free slot, or that of the neighbour longest without news (RFC 4861 leaves the choice open); never one that is static or
// waited for.
uint32_t NeighborTable::allocate(uint16_t port, const base::IpAddress& a, TimeNs now) {
  if (free_ == kNone) {
    uint32_t oldest = kNone;
    for (uint32_t i = 0; i < capacity_; ++i) {
      const Entry& e = entries_[i];
      const bool aged =
          (e.state == NeighborState::kStale || e.state == NeighborState::kReachable) && now - e.confirmed >= kReachableTime;
      if (aged && (oldest == kNone || e.confirmed < entries_[oldest].confirmed)) oldest = i;
    }
    if (oldest == kNone) return kNone;
    remove(oldest, DropReason::kNone);
  }
  const uint32_t slot = free_;
  Entry& e = entries_[slot];
  free_ = e.next;
  e.address = a;
  e.port = port;
  e.probes = 0;
  e.queued = 0;
  e.confirmed = now;
  e.fresh_until = 0;
  e.mac = {};
  e.due = base::kNever;
  uint32_t& head = heads_[bucket(port, a)];
  e.next = head;
  head = slot;
  ++used_;
  return slot;
}

void NeighborTable::remove(uint32_t slot, DropReason why) {
  Entry& e = entries_[slot];
  uint32_t* link = &heads_[bucket(e.port, e.address)];
  while (*link != slot) link = &entries_[*link].next;
  *link = e.next;
  for (uint32_t i = 0; i < e.queued; ++i) rte_pktmbuf_free(e.frames[i]);
  if (e.queued > 0) drops_[static_cast<uint32_t>(why)].add(e.queued);
  e.queued = 0;
  clear_pending(e);
  set_state(e, NeighborState::kFree);
  e.fresh_until = 0;
  ++e.generation;
  e.next = free_;
  free_ = slot;
  --used_;
}

void NeighborTable::set_state(Entry& e, NeighborState to) {
  const auto doubtful = [](NeighborState s) { return s == NeighborState::kDelay || s == NeighborState::kProbe; };
  in_doubt_ += doubtful(to);
  in_doubt_ -= doubtful(e.state);
  e.state = to;
}

void NeighborTable::set_pending(Entry& e, TimeNs due) {
  if (e.due == base::kNever) ++pending_;
  e.due = due;
  next_poll_ = pending_ == 1 ? due : std::min(next_poll_, due);
}

void NeighborTable::clear_pending(Entry& e) {
  if (e.due == base::kNever) return;
  e.due = base::kNever;
  --pending_;
}

bool NeighborTable::usable_slow(Entry& e, TimeNs now) {
  switch (e.state) {
    case NeighborState::kReachable:
    case NeighborState::kStale:  // aged and in use again: still good for sending, and soon TCP will tell whether it hears us
      set_state(e, NeighborState::kDelay);
      e.probes = 0;
      e.watched = kNone;
      set_pending(e, now + kDelayTime);
      return true;
    case NeighborState::kStatic:
    case NeighborState::kDelay:
    case NeighborState::kProbe:
      return true;
    case NeighborState::kFree:
    case NeighborState::kIncomplete:
      return false;
  }
  return false;
}

void NeighborTable::enqueue(uint32_t slot, rte_mbuf* frame) {
  Entry& e = entries_[slot];
  if (e.queued == kMaxQueued) {
    rte_pktmbuf_free(e.frames[0]);
    std::move(e.frames + 1, e.frames + kMaxQueued, e.frames);
    --e.queued;
    drops_[static_cast<uint32_t>(DropReason::kNeighborQueueFull)].add();
  }
  e.frames[e.queued++] = frame;
}

uint32_t NeighborTable::learn(uint16_t port, const base::IpAddress& a, const io::MacAddress& mac, bool create, Evidence evidence,
                              TimeNs now) {
  uint32_t slot = find(port, a);
  bool changed = false;
  if (slot == kNone) {
    if (!create) return kNone;
    slot = allocate(port, a, now);
    if (slot == kNone) return kNone;
    changed = true;
  }
  Entry& e = entries_[slot];
  if (e.state == NeighborState::kStatic) return kNone;
  changed = changed || e.state == NeighborState::kIncomplete || e.mac != mac;
  e.mac = mac;
  e.confirmed = now;
  if (evidence == Evidence::kAnswered) {
    confirm(e, now);
  } else if (changed) {
    set_state(e, NeighborState::kStale);
    e.fresh_until = 0;
    clear_pending(e);
  }
  return slot;
}

void NeighborTable::confirm(Entry& e, TimeNs now) {
  set_state(e, NeighborState::kReachable);
  e.confirmed = now;
  e.fresh_until = now + kReachableTime;
  e.probes = 0;
  clear_pending(e);
}

void NeighborTable::doubt(uint32_t slot, TimeNs now) {
  Entry& e = entries_[slot];
  if (e.state != NeighborState::kReachable || now >= e.fresh_until) return;
  set_state(e, NeighborState::kStale);
  e.fresh_until = 0;
}

void NeighborTable::observe(uint32_t slot, uint32_t generation, uint32_t id, uint32_t una, uint32_t received, TimeNs now) {
  Entry& e = entries_[slot];
  if (e.generation != generation || (e.state != NeighborState::kDelay && e.state != NeighborState::kProbe)) return;
  if (e.watched == id) {
    if (una != e.watched_una || received != e.watched_received) return confirm(e, now);
    if (now - e.watched_at < kWatchTime) return;
  } else if (e.watched != kNone && now - e.watched_at < kWatchTime) {
    return;
  }
  e.watched = id;
  e.watched_una = una;
  e.watched_received = received;
  e.watched_at = now;
}

uint32_t NeighborTable::take_frames(uint32_t slot, rte_mbuf** out) {
  Entry& e = entries_[slot];
  const uint32_t n = e.queued;
  std::copy_n(e.frames, n, out);
  e.queued = 0;
  return n;
}

void NeighborTable::add_static(uint16_t port, const base::IpAddress& a, const io::MacAddress& mac, TimeNs now) {
  uint32_t slot = find(port, a);
  if (slot == kNone) slot = allocate(port, a, now);
  MILLRACE_ASSERT(slot != kNone, "room for the static neighbours of the configuration");
  entries_[slot].mac = mac;
  set_state(entries_[slot], NeighborState::kStatic);
  entries_[slot].fresh_until = base::kNever;
}

uint32_t NeighborTable::poll(TimeNs now, std::span<NeighborProbe> out) {
  if (pending_ == 0 || now < next_poll_) return 0;
  uint32_t n = 0;
  TimeNs next = base::kNever;
  for (uint32_t i = 0; i < capacity_ && pending_ > 0; ++i) {
    Entry& e = entries_[i];
    if (e.due > now) {
      next = std::min(next, e.due);
      continue;
    }
    if (n == out.size()) {
      next = now;
      break;
    }
    if (e.probes == kMaxProbes) {
      out[n++] = {e.port, true, false, e.mac, e.address};
      remove(i, DropReason::kNeighborUnreachable);
      continue;
    }
    if (e.state == NeighborState::kDelay) set_state(e, NeighborState::kProbe);
    ++e.probes;
    e.due = now + kProbeInterval;
    next = std::min(next, e.due);
    out[n++] = {e.port, false, e.state == NeighborState::kProbe, e.mac, e.address};
  }
  next_poll_ = next;
  return n;
}

}  // namespace millrace::dataplane
