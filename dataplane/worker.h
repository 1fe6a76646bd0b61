// One poll core: its share of everything, and the loop that runs packets to completion (DESIGN section 3). Made by the main
// thread, run on its core, destroyed by the main thread. Tests run iterate() in virtual time over ports of memory.
//
//   take tables ─▶ operator's questions ─▶ receive ─▶ ready connections ─▶ deferred TLS ─▶ pipelined requests ─▶ timers ─▶ flush
//   ─▶ gauges
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "dataplane/capture.h"
#include "dataplane/downstream.h"
#include "dataplane/head_buffer.h"
#include "dataplane/health_checker.h"
#include "dataplane/http_proxy.h"
#include "dataplane/inspector.h"
#include "dataplane/runtime_snapshot.h"
#include "dataplane/tcp_proxy.h"
#include "dataplane/tcp_stack.h"
#include "dataplane/transport.h"
#include "dataplane/upstreams.h"
#include "dataplane/worker_context.h"
#include "dataplane/worker_limits.h"
#include "lib/base/prng.h"
#include "lib/base/timer_wheel.h"
#include "lib/http/h1_writer.h"
#include "lib/tls/context.h"
#include "lib/tls/memory.h"

namespace millrace::dataplane {

struct WorkerConfig {
  uint32_t index = 0, workers = 1;
  bool shares_core = false;  // others poll on its core: it lets them run when it is idle, and now and then when it is not
  WorkerLimits limits;
  TcpStackConfig stack;
  tcp::Config upstream_tcp;
  uint32_t tls_sessions = 16'384;
  uint64_t seed = 0;  // of everything random in this worker
};

// What the supervisor knows of links and the workers of addresses, for each other; looked at with the gauges.
struct LinkWatch {
  std::atomic<uint32_t> came_up[io::kMaxPorts] = {};  // supervisor: rw, worker 0: ro: how often the link of a device came up
  std::atomic<uint64_t> duplicates{0};  // worker 0: rw, supervisor: ro: the first 64 addresses that another node has, by bit
};

// What a worker uses and does not own; all of it outlives the worker.
struct WorkerResources {
  std::span<io::PortQueue* const> ports;
  const io::Steering* steering = nullptr;
  io::HandoverMesh* mesh = nullptr;  // null with one worker
  io::PacketPool payload, headers, indirect;
  stats::WorkerStats stats;
  shm::RingProducer* events = nullptr;
  shm::RingProducer* inspection = nullptr;  // null: nobody can look into this worker (tests)
  WorkerTableSlot* tables = nullptr;
  tls::Arena* tls_arena = nullptr;             // null: OpenSSL allocates from malloc (tests)
  HealthMesh* health_mesh = nullptr;           // null with one worker
  LinkWatch* links = nullptr;                  // worker 0 only; null: links never change
  tls::LibraryContext* tls_library = nullptr;  // may be null where no TLS is terminated (tests)
};

class Worker {
 public:
  Worker(const WorkerConfig& config, const WorkerResources& resources, TimeNs now);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // One turn of the loop. `now` monotonic, `wall_ns` Unix time. True when there was something to do.
  bool iterate(TimeNs now, uint64_t wall_ns);
  // Turns until `stop`; on the worker's own core. Registers the thread's TLS memory first.
  void run(const std::atomic<bool>& stop);

  // The clock of the stages; run() begins and ends its turns, tests that want figures do it around iterate().
  stats::StageClock& stages() { return stages_; }
  TcpStack& stack() { return stack_; }
  WorkerContext& context() { return ctx_; }
  uint32_t exchanges_in_use() const { return http_.exchanges_in_use(); }
  uint32_t policies_in_use() const { return downstreams_.policies_in_use(); }
  uint32_t downstreams_in_use() const { return downstreams_.in_use(); }
  uint32_t upstreams_in_use() const { return upstreams_.connections_in_use(); }
  uint32_t endpoints_in_use() const { return upstreams_.endpoints_in_use(); }
  uint32_t encoders_in_use() const { return http_.encoders_in_use(); }
  uint32_t checks_in_use() const { return checker_.in_use(); }
  uint32_t tunnels_in_use() const { return tcp_.in_use(); }
  uint32_t heads_in_use() const { return heads_.in_use(); }
  // The earliest time at which iterate() has work without a packet coming: for virtual time. kNever: none.
  TimeNs next_deadline();

 private:
  bool take_tables();
  void take_drain(uint64_t word);  // while there is a drain, and when it ends
  void dispatch(Connection& c);
  void dispatch(Session& s, uint32_t events);
  void fire(SessionTimer& t);
  void set_date(uint64_t wall_seconds);
  void do_chores(TimeNs now);
  void publish_gauges(TimeNs now);
  void watch_links(LinkWatch& links, TimeNs now);

  static constexpr size_t kWriteBufferBytes = 160 * 1024;  // the largest head, its framing and what was added to it
  static constexpr uint32_t kDeferredPerLoop = 32;         // sessions whose decryption goes on, per turn
  static constexpr TimeNs kGaugeInterval = 10 * base::kMillisecond;

  WorkerConfig config_;
  WorkerResources resources_;
  stats::StageClock stages_;
  base::Prng random_;
  base::TimerWheel timers_;
  TcpStack stack_;
  Transports transports_;
  HeadBufferPool heads_;
  route::MatchScratch match_scratch_;
  std::unique_ptr<char[]> write_buffer_;
  WorkerContext ctx_;
  HttpProxy http_;
  TcpProxy tcp_;
  Downstreams downstreams_;
  Upstreams upstreams_;
  HealthChecker checker_;
  Capture capture_;
  Inspector inspector_;
  char date_[http::kDateBytes];
  uint64_t date_second_ = 0;
  uint64_t drain_word_ = 0;  // of ctx_.drain
  TimeNs gauges_at_ = 0;
  TimeNs chores_at_ = 0;  // the earlier of `gauges_at_` and what the health of endpoints asks for
  uint32_t links_seen_[io::kMaxPorts] = {};
};

}  // namespace millrace::dataplane
