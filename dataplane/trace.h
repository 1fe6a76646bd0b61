// What happened to connections, for `millctl conn show`: one ring of fixed records a worker, written whenever something out of
// the ordinary happens (a change of state, a loss, a closed window, a reset) and never for an ordinary segment. The oldest gives
// way. So an idle connection costs nothing, and one in trouble can be read about, also for a while after it is gone.
#pragma once

#include <cstdint>

#include "lib/base/reserved_memory.h"
#include "lib/table/inspect.h"

namespace millrace::dataplane {

class TraceRing {
 public:
  static constexpr uint32_t kEntries = 16'384;  // a power of two; 640 KiB, touched as they are written
  TraceRing() : memory_(kEntries * sizeof(table::TraceEntry)), entries_(memory_.as<table::TraceEntry>()) {}

  void add(const table::TraceEntry& e) { entries_[written_++ & (kEntries - 1)] = e; }

  // Entries are numbered from 0 for ever; those from begin() to end() are there.
  uint64_t end() const { return written_; }
  uint64_t begin() const { return written_ > kEntries ? written_ - kEntries : 0; }
  const table::TraceEntry& at(uint64_t i) const { return entries_[i & (kEntries - 1)]; }

 private:
  base::ReservedMemory memory_;
  table::TraceEntry* entries_;
  uint64_t written_ = 0;
};

}  // namespace millrace::dataplane
