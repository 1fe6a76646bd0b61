// Active health checks (Envoy: HttpHealthCheckerImpl, TcpHealthCheckerImpl, GrpcHealthCheckerImpl) of a worker. An endpoint is
// checked by one worker of the machine: the one that owns its cluster, slot of the cluster % workers, as outlier detection has it
// (health_keeper.h); so both write the one word of the endpoint's state (lib/stats/health.h), which everybody reads.
//
//   tables ─▶ sweep: a CheckSession for each endpoint, by its slot ─▶ timer ─▶ connection ─▶ request ─▶ answer, close or timeout
//                                                                       ▲                                        │
//                                       CheckState: next interval ──────┴──────────── EndpointHealth ◀───────────┘
//
//  1. A session goes by the slot of its endpoint, which stays the same while the endpoint is in the tables: an edit leaves it,
//     what it has found and its connection alone. If the checks themselves are edited (ClusterRuntime::check_hash), a check that
//     is under way is given up without a result, the connection is closed, and the next check begins at once; what was found
//     stays.
//  2. An endpoint that leaves the tables, or whose cluster is not checked any more, has a word without kHealthCheckPassed: if it
//     comes back it has to pass first.
//  3. Nothing here is on the way of a request. Where no cluster has checks step() is never called.
//
// It refuses to know balancing, circuit breakers (checks do not count, as in Envoy) and pools of connections.
#pragma once

#include <cstdint>
#include <memory>

#include "dataplane/check_http2.h"
#include "dataplane/check_state.h"
#include "dataplane/health_keeper.h"
#include "dataplane/health_mesh.h"
#include "dataplane/payload_match.h"
#include "dataplane/transport.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/http/h1_body.h"

namespace millrace::dataplane {

struct CheckSession : Session {
  CheckSession() : Session(SessionKind::kHealthCheck) {}
  base::ListNode bucket;                        // by endpoint_slot
  SessionTimer timer{TimerKind::kHealthCheck};  // while a check is under way its timeout, else when the next one begins
  table::ObjectId cluster = table::kNoObject;
  stats::ScopeSlot cluster_slot = stats::kOverflowScope, check_slot = stats::kOverflowScope,
                   endpoint_slot = stats::kOverflowScope;
  uint32_t endpoint = 0;    // its index in the endpoints of the cluster when it was last looked for
  uint64_t check_hash = 0;  // of the checks that it makes
  uint64_t swept = 0;       // sweep that saw it last
  TimeNs opened_at = 0;     // its connection
  CheckState state;
  CheckHttp2* h2 = nullptr;  // lent with a connection that speaks it
  bool under_way = false;
  bool ready = false;     // the connection can be written to
  bool degraded = false;  // counted as
  // Of the answer, while a check is under way:
  HeadBuffer* head = nullptr;  // lent with the first bytes; in it the head, then what the matcher keeps
  uint32_t scanned = 0;
  bool head_done = false, found = false, close_after = false, says_degraded = false;
  uint16_t status = 0;
  uint64_t looked_at = 0;  // bytes of the body
  http::BodyDecoder body;
  PayloadMatch match;
};

class HealthChecker {
 public:
  // `profile`: of connections to endpoints.
  HealthChecker(WorkerContext& context, HealthKeeper& keeper, const tcp::Profile& profile, http::H2Context& http2);
  ~HealthChecker();

  // The worker has taken other tables.
  void on_tables();
  // When step() has something to do beyond what timers do; kNever where everything is as the tables say.
  TimeNs due() const { return due_; }
  // Bounded work: sessions for endpoints that are new, none for those that are gone.
  void step();

  void on_ready(CheckSession& s, uint32_t events);
  void on_timer(CheckSession& s);
  uint32_t in_use() const { return sessions_.in_use(); }

 private:
  using Bucket = base::List<CheckSession, &CheckSession::bucket>;
  using Result = stats::CheckResult;
  struct Target {  // what a session checks, in the tables of this turn
    const ClusterRuntime* cluster = nullptr;
    const table::Endpoint* endpoint = nullptr;
    const table::HealthCheck& check() const { return cluster->object->health_check; }
  };

  bool owns(const ClusterRuntime& c) const { return c.checks && c.slot % ctx_.workers == ctx_.worker; }
  Bucket& bucket(stats::ScopeSlot endpoint) { return buckets_[endpoint & mask_]; }
  CheckSession* find(stats::ScopeSlot endpoint);
  Target target(CheckSession& s) const;
  void sweep_endpoint(const ClusterRuntime& c, uint32_t i);
  void start(const ClusterRuntime& c, uint32_t i);
  void stop(CheckSession& s);
  bool has_traffic(const ClusterRuntime& c) const;

  void begin(CheckSession& s, const Target& t);
  bool open(CheckSession& s, const Target& t);
  // False: the check failed.
  bool become_ready(CheckSession& s, const Target& t, uint32_t* events, Result* why);
  void ask(CheckSession& s, const Target& t);
  void read(CheckSession& s, const Target& t);
  void read_tcp(CheckSession& s, const Target& t);
  void read_http(CheckSession& s, const Target& t);
  bool read_head(CheckSession& s, const Target& t);
  // health_checker_http2.cc
  bool start_http2(CheckSession& s, const Target& t);
  void ask_http2(CheckSession& s, const Target& t);
  void read_http2(CheckSession& s, const Target& t);
  bool take_http2(CheckSession& s, const Target& t);
  bool flush_http2(CheckSession& s, const Target& t);
  void answered_http2(CheckSession& s, const Target& t);
  void answered(CheckSession& s, const Target& t);
  void judge(CheckSession& s, const Target& t);
  void lost(CheckSession& s, const Target& t, Result why);

  void succeed(CheckSession& s, const Target& t, bool degraded);
  void fail(CheckSession& s, const Target& t, CheckFailure kind, Result why);
  void settle(CheckSession& s, const Target& t, bool success, CheckState::Transition transition, Result result);
  void show(CheckSession& s, bool passed, bool degraded);
  void close(CheckSession& s, bool reset);
  stats::Counter& count(const CheckSession& s, stats::ClusterCheckCounter c) { return ctx_.stats.scope(s.check_slot)[c]; }

  static constexpr uint32_t kPerTurn = 64;  // endpoints, or sessions, that a sweep looks at

  WorkerContext& ctx_;
  HealthKeeper& keeper_;
  const tcp::Profile& profile_;
  base::Pool<CheckSession> sessions_;
  http::H2Context& http2_context_;
  base::Pool<CheckHttp2> http2_;
  std::unique_ptr<Bucket[]> buckets_;
  uint32_t mask_;
  uint64_t sweep_ = 0;
  uint32_t cluster_at_ = 0, endpoint_at_ = 0, session_at_ = 0;
  TimeNs due_ = base::kNever;
};

}  // namespace millrace::dataplane
