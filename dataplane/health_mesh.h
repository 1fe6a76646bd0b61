// How workers tell the owner of a cluster what its endpoints did: a ring from each worker to each other one.
//
//  1. Ring (from, to) is written by worker `from` alone and read by worker `to` alone; `head_` counts reports ever put in,
//     written by the one, `tail_` those ever taken out, written by the other; both modulo 2^32, head_ - tail_ at most kReports.
//  2. The writer fills reports_[head_ % kReports] only while head_ - tail_ < kReports, with tail_ loaded by acquire: the reader
//     is done with that place. Then it stores head_ with release.
//  3. The reader loads head_ with acquire before it reads a place, and stores tail_ with release when it has read it.
//  4. A full ring loses the report, which the writer counts (reports_lost). Tallies (stats::EndpointTally) lose nothing.
//
// Reports of one worker arrive in their order; those of several in the order in which the owner looks, which is that of the
// results to within the 50 us between its looks. So "consecutive" is of the whole machine, as it is of the process in Envoy.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "lib/base/assert.h"
#include "lib/stats/region.h"
#include "lib/table/layout.h"

namespace millrace::dataplane {

enum class HealthResult : uint8_t { kSuccess, kFailure, kGatewayFailure, kLocalSuccess, kLocalFailure };

struct HealthReport {
  table::ObjectId cluster = table::kNoObject;
  stats::ScopeSlot endpoint = stats::kOverflowScope;
  HealthResult result = HealthResult::kSuccess;
};

class HealthMesh {
 public:
  static constexpr uint32_t kReports = 256;

  // Before the workers run. `region`: whose blocks hold the tallies.
  explicit HealthMesh(const stats::Region& region)
      : region_(region), workers_(region.workers()), rings_(std::make_unique<Ring[]>(size_t{workers_} * workers_)) {}

  uint32_t workers() const { return workers_; }
  const stats::EndpointTally& tally(uint32_t worker, stats::ScopeSlot endpoint) const {
    return region_.scope_blocks(worker)[endpoint].tally();
  }
  // What that worker counted.
  const stats::ScopeBlock& counters(uint32_t worker, stats::ScopeSlot slot) const { return region_.scope_blocks(worker)[slot]; }

  // Worker `from`. False: the ring is full.
  bool push(uint32_t from, uint32_t to, const HealthReport& report) {
    Ring& r = rings_[size_t{from} * workers_ + to];
    const uint32_t head = r.head.load(std::memory_order_relaxed);
    if (head - r.tail.load(std::memory_order_acquire) == kReports) return false;
    r.reports[head % kReports] = report;
    r.head.store(head + 1, std::memory_order_release);
    return true;
  }
  // Worker `to`. False: nothing there.
  bool pop(uint32_t from, uint32_t to, HealthReport* report) {
    Ring& r = rings_[size_t{from} * workers_ + to];
    const uint32_t tail = r.tail.load(std::memory_order_relaxed);
    if (r.head.load(std::memory_order_acquire) == tail) return false;
    *report = r.reports[tail % kReports];
    r.tail.store(tail + 1, std::memory_order_release);
    return true;
  }

 private:
  struct Ring {
    alignas(64) std::atomic<uint32_t> head{0};  // from: rw, to: ro
    alignas(64) std::atomic<uint32_t> tail{0};  // to: rw, from: ro
    HealthReport reports[kReports];             // from: rw, to: ro
  };
  stats::Region region_;
  uint32_t workers_;
  std::unique_ptr<Ring[]> rings_;
};

}  // namespace millrace::dataplane
