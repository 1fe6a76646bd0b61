// The generator's loop: one call of step() is one iteration, with the time given, so that tests run it in virtual time. It owns
// nothing of DPDK: queues of ports and a pool are handed in.
//
//   kResolving ─▶ kProbing ─▶ kRamping ─▶ kWarmup ─▶ kMeasuring ─▶ kHolding ─▶ kDraining ─▶ kDone
//
//   step:  each wire: receive ─▶ TcpPeer ─▶ HttpClient / HttpServer ─▶ frames;   ramp and open loop;   deadlines;   flush; phase
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/base/status.h"
#include "lib/io/packet.h"
#include "lib/io/port_queue.h"
#include "perf/load/flood.h"
#include "perf/load/http_client.h"
#include "perf/load/http_server.h"
#include "perf/load/options.h"
#include "perf/load/run_result.h"
#include "perf/load/tcp_peer.h"
#include "perf/load/tls_peer.h"
#include "perf/load/workload.h"

namespace millrace::load {

class Engine {
 public:
  static constexpr base::TimeNs kReadyTimeout = 20 * base::kSecond;  // for the peer's MAC, and for its accepting a connection
  static constexpr base::TimeNs kRampSlack = 30 * base::kSecond;     // beyond connections / ramp
  static constexpr base::TimeNs kDrainTimeout = 2 * base::kSecond;   // for answers that are still to come
  static constexpr base::TimeNs kCloseTimeout = 5 * base::kSecond;   // for the wire to take the RSTs of all connections
  static constexpr base::TimeNs kSettle = 50 * base::kMillisecond;   // between the clients' end and the servers'
  static constexpr base::TimeNs kPublishEvery = base::kMillisecond;

  // One port a wire (options.wires). `options`, `targets`, ports and pool outlive the engine. `tls` may be null without TLS.
  // Errors: one sentence on addresses that do not fit together.
  static base::Result<std::unique_ptr<Engine>> create(const Options& options, const TargetTable& targets,
                                                      std::span<io::PortQueue* const> ports, io::PacketPool pool, TlsPeer* tls,
                                                      uint64_t seed);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // One loop iteration; `now` never goes back and is above 1 ms. False once the run is over.
  bool step(base::TimeNs now);
  // From any thread, or a signal handler: ends the measurement and drains.
  void stop() { stop_.store(true, std::memory_order_relaxed); }

  Phase phase() const { return phase_; }
  const Counters& counters() const { return counters_; }           // engine's thread
  const PublishedSample& published() const { return published_; }  // any thread
  // After step() returned false. `drivers` and `notes` are the caller's to fill.
  RunResult take_result() { return std::move(result_); }

 private:
  Engine(const Options& options, const TargetTable& targets, const TableConfig& table);
  uint32_t forward();
  void advance_phase(base::TimeNs now);
  void enter(Phase p, base::TimeNs now);
  void begin_draining(base::TimeNs now);
  void swap_histograms();
  Sample sample(base::TimeNs now) const;
  bool has_clients() const { return options_.role == Role::kBoth || options_.role == Role::kClients; }
  bool has_servers() const { return options_.role == Role::kBoth || options_.role == Role::kServers; }

  const Options& options_;
  Counters counters_;
  OwnAddresses own_;
  std::unique_ptr<AddressBook> book_;
  ConnectionTable table_;
  std::vector<std::unique_ptr<Wire>> wires_;
  Shared shared_;
  TcpPeer tcp_;
  std::unique_ptr<HttpClient> client_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<Flood> flood_;

  Phase phase_ = Phase::kResolving;
  base::TimeNs phase_start_ = 0, last_step_ = 0, next_publish_ = 0, next_quiet_check_ = 0, servers_end_ = 0;
  bool last_step_worked_ = false, clients_closed_ = false;
  uint64_t busy_ns_ = 0;
  std::atomic<bool> stop_{false};
  PublishedSample published_;
  RunResult result_;
};

}  // namespace millrace::load
