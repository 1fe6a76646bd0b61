// Connections in TIME-WAIT as mini entries: found by 4-tuple, expired in the order they came. All have the same duration, so a
// FIFO is enough; a repeated FIN starts the time again and moves the entry to the end.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/flow_table.h"
#include "lib/base/pool.h"
#include "lib/tcp/time_wait.h"

namespace millrace::dataplane {

class TimeWaitTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Slot {
    tcp::TimeWaitEntry entry;
    uint32_t hash = 0;
    uint32_t prev = kNone, next = kNone;  // the FIFO
    uint16_t port = 0;                    // index of the port of the local address
    bool local_port_taken = false;        // opened by connect(): its local port is given back when the entry ends
  };

  explicit TimeWaitTable(uint32_t capacity) : slots_(capacity), flows_(capacity) {}

  void prefetch(uint32_t hash) const { flows_.prefetch(hash); }
  Slot* find(uint32_t hash, const tcp::FourTuple& tuple) {
    const uint32_t i = flows_.find(hash, [&](uint32_t k) { return slots_[k].entry.tuple == tuple; });
    return i == kNone ? nullptr : &slots_[i];
  }
  // Null when full: remove oldest() first.
  Slot* insert(uint32_t hash, const tcp::TimeWaitEntry& entry) {
    Slot* s = slots_.alloc();
    if (s == nullptr) return nullptr;
    s->entry = entry;
    s->hash = hash;
    const uint32_t i = slots_.index_of(s);
    append(i);
    flows_.insert(hash, i);
    return s;
  }
  // expires_at has grown: to the end of the FIFO.
  void renewed(Slot& s) {
    const uint32_t i = slots_.index_of(&s);
    unlink(i);
    append(i);
  }
  void remove(Slot& s) {
    const uint32_t i = slots_.index_of(&s);
    flows_.erase(s.hash, i);
    unlink(i);
    slots_.free_index(i);
  }
  Slot* oldest() { return head_ == kNone ? nullptr : &slots_[head_]; }
  const Slot* oldest() const { return head_ == kNone ? nullptr : &slots_[head_]; }
  uint32_t size() const { return slots_.in_use(); }

 private:
  void append(uint32_t i) {
    Slot& s = slots_[i];
    s.prev = tail_;
    s.next = kNone;
    (tail_ == kNone ? head_ : slots_[tail_].next) = i;
    tail_ = i;
  }
  void unlink(uint32_t i) {
    const Slot& s = slots_[i];
    (s.prev == kNone ? head_ : slots_[s.prev].next) = s.next;
    (s.next == kNone ? tail_ : slots_[s.next].prev) = s.prev;
  }

  base::Pool<Slot> slots_;
  FlowTable flows_;
  uint32_t head_ = kNone, tail_ = kNone;
};

}  // namespace millrace::dataplane
