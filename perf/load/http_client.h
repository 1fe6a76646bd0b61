// The clients: when a connection opens, which request comes next, and whether its answer is right. Closed loop: an answer calls
// for the next request on its connection. Open loop: request k is due at start + k / rate whatever the answers do; it takes the
// next connection that can, and its latency counts from when it was due (no coordinated omission: Tene, "How not to measure
// latency").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/prng.h"
#include "lib/base/status.h"
#include "perf/load/histogram.h"
#include "perf/load/tcp_peer.h"
#include "perf/load/workload.h"

namespace millrace::load {

class HttpClient {
 public:
  static constexpr uint32_t kOpensPerLoop = 64;  // connections begun, and requests begun, in one loop iteration at most

  // `targets` outlives the client.
  HttpClient(Shared& shared, TcpPeer& tcp, const TargetTable& targets);

  // Builds request templates and remembers who we are. `remotes`: address ids of options.targets, `wire`: index of the clients'
  // wire.
  void prepare(uint8_t wire, bool v6, std::vector<AddressId> remotes, uint64_t seed);

  // Before the ramp, again and again: tries to open the first connection until it can be opened, and takes it back. True when it
  // could.
  bool probe();
  // Once a loop iteration: ramp and open loop.
  void advance();
  // No connection has a request that is not answered. Looks at all of them: not for every loop iteration.
  bool quiet() const;
  bool exhausted() const { return requests_left_ == 0; }  // --requests
  // Ends connections, some in each call as the wire takes their RSTs, or all `at_once`; true when none is open.
  bool close_some(bool at_once);
  // All connections that were asked for have opened (and idle ones have had their answer), or have failed.
  bool ramped() const { return begun_ == slots_ && settled_ >= slots_; }
  void begin_waking();  // idle connections, --wake of them spread over all, work like the others from now on, as many as a loop
                        // can start
  void start_load(base::TimeNs now);  // the open loop's clock begins (at the end of the ramp)

  uint64_t open() const { return open_; }
  uint64_t idle() const { return idle_; }
  uint64_t backlog() const;
  Histogram& latency() { return latency_; }
  Histogram& connect_latency() { return connect_latency_; }

  // From TcpPeer.
  void on_connected(uint32_t i, Connection& c);
  void on_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  void on_peer_fin(uint32_t i, Connection& c);
  void on_reset(uint32_t i, Connection& c);
  void on_forgotten(uint32_t i, Connection& c, bool opened);
  void reopen(uint32_t i);
  // True when the oldest request is out of time: the connection was reset.
  bool check_timeout(uint32_t i, Connection& c);
  MessageBytes bytes(const Message& m) const;
  // Which of options.targets a slot's connection goes to: all of them in turn.
  uint32_t target_of(uint32_t i, const Connection& c) const {
    return static_cast<uint32_t>((uint64_t{i} + c.generation) % remotes_.size());
  }

 private:
  struct Head {
    uint64_t at;  // in heads_
    uint32_t bytes;
    uint32_t rotation;
  };
  void open_slot(uint32_t i);
  bool can_start(const Connection& c) const;
  bool start_request(uint32_t i, Connection& c, base::TimeNs counted_from);
  void refill(uint32_t i, Connection& c);
  void make_ready(uint32_t i, Connection& c);
  void issue_due();
  void wake_some();
  void settle(Connection& c);
  // Consumes a head or part of it; returns bytes taken, 0 when the connection is gone.
  uint32_t take_head(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  bool begin_response(uint32_t i, Connection& c, const uint8_t* head, const struct HeadScan& scan);
  void end_response(uint32_t i, Connection& c);
  void take_body(Connection& c, const uint8_t* p, uint32_t n);
  uint32_t take_chunked(uint32_t i, Connection& c, const uint8_t* p, uint32_t n);
  void fail(uint32_t i, uint64_t& counter);

  Shared& shared_;
  Counters& counters_;
  ConnectionTable& table_;
  TcpPeer& tcp_;
  const TargetTable& targets_;
  TargetDraw draw_;
  base::Prng random_;

  uint8_t wire_ = 0;
  bool v6_ = false;
  std::vector<AddressId> remotes_;
  std::vector<Head> heads_of_;
  std::string heads_;  // all requests' heads without their empty line
  uint32_t slots_ = 0, begun_ = 0, settled_ = 0;
  uint32_t to_wake_ = 0, woken_ = 0;  // of the idle ones
  uint32_t first_generation_ = 0;
  uint64_t open_ = 0, idle_ = 0;
  uint32_t expected_length_ = kNone;  // kNone: any
  bool check_body_, head_method_;
  uint64_t requests_left_;
  base::TimeNs ramp_start_ = 0;

  // open loop
  enum class Probe : uint8_t { kNone, kTrying, kRetry, kGood } probe_ = Probe::kNone;
  bool open_loop_, loaded_ = false;
  double gap_ns_ = 0, next_due_ = 0;  // ns since load_start_
  base::TimeNs load_start_ = 0;
  std::vector<uint32_t> ready_;  // ring, a power of two
  uint32_t ready_head_ = 0, ready_tail_ = 0;
  uint32_t closing_ = 0;

  Histogram latency_, connect_latency_;
};

}  // namespace millrace::load
