// A whole worker as production makes it (pools of EAL with their caches, statistics region, event ring, tables through the
// loader) between template clients and servers, in one thread and in virtual time: each turn is one Worker::iterate(), which may
// be measured, and then the peers' work, which is not.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/table_loader.h"
#include "dataplane/worker.h"
#include "lib/base/status.h"
#include "lib/io/packet_pool.h"
#include "lib/shm/segment.h"
#include "lib/shm/spsc_ring.h"
#include "lib/stats/region.h"
#include "perf/micro/memory_port.h"
#include "perf/micro/template_peers.h"

namespace millrace::bench {

struct RigOptions {
  std::string name = "keepalive";
  uint32_t connections = 64;
  uint64_t body_bytes = 64;
  uint32_t routes = 10;
  uint32_t pool_packets = 65'536;   // payload packets; as bootstrap::LimitsSection
  uint64_t counted_requests = 500;  // so many are enough for a count of instructions
  bool one_request_each = false, tls = false, access_log = false, http2 = false, timestamps = true, hugepages = false;
};

// start_eal() (eal.h) comes before the first one.
// What the workers of a data plane share, and what is made for each of them before it is: tables through the loader, statistics
// region, steering, TLS libraries.
class Gateway {
 public:
  explicit Gateway(const RigOptions& options, uint32_t workers = 1);
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  const RigOptions& options() const { return options_; }
  uint32_t workers() const { return workers_; }

 private:
  friend class Rig;
  void publish_tables();

  RigOptions options_;
  uint32_t workers_;
  shm::Segment region_memory_, commands_memory_, arena_;
  std::unique_ptr<stats::Region> region_;
  shm::RingProducer commands_;
  io::Steering steering_;
  std::unique_ptr<io::HandoverMesh> mesh_;  // null with one worker
  std::vector<dataplane::WorkerTableSlot> slots_;
  std::vector<std::unique_ptr<tls::LibraryContext>> libraries_;
  std::unique_ptr<dataplane::TableLoader> loader_;
};

// One worker of it with its peers. Made and used by one thread, which has a DPDK core id.
class Rig {
 public:
  static constexpr base::TimeNs kTurn = 32 * base::kMicrosecond;  // virtual: a burst of 32 requests at a million a second

  explicit Rig(Gateway& gateway, uint32_t worker = 0);
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  // One turn; returns the time that the worker took, in nanoseconds of the real clock.
  uint64_t turn();
  // The same without a clock; `measured`: the worker's part is what a profiler counts (measured.h).
  void turn_untimed(bool measured);
  // The halves of a turn: the worker's, and the peers'.
  void turn_worker();
  void turn_peers();
  // Until so many answers more have come; false when nothing comes any more, or something was wrong.
  bool run(uint64_t answers, bool measured);
  uint64_t answered() const { return clients_->answered(); }
  // What was wrong, in words; empty: every answer was right.
  std::string error() const;
  const stats::WorkerBlock& stats() const { return gateway_.region_->worker(index_); }
  dataplane::Worker& worker() { return *worker_; }

 private:
  Gateway& gateway_;
  uint32_t index_;
  base::TimeNs now_;
  io::PacketPool payload_, headers_, indirect_;
  std::unique_ptr<MemoryPort> inside_, outside_;
  shm::Segment events_memory_;
  shm::RingProducer events_;
  shm::RingConsumer event_reader_;
  std::unique_ptr<tls::LibraryContext> client_library_;
  std::unique_ptr<tls::ClientContext> client_context_;
  std::unique_ptr<dataplane::Worker> worker_;
  std::unique_ptr<TemplateClients> clients_;
  std::unique_ptr<TemplateServers> servers_;
};

}  // namespace millrace::bench
