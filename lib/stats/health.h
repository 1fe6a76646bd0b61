// What all workers, and control, know of the health of endpoints: two lines of words for each scope (region.h), so one for each
// endpoint of a cluster, whatever edits its set goes through, and one for the cluster itself.
//
// Who writes: the worker that owns the cluster, (slot of the cluster) % workers; everybody else reads. What other workers see of
// an endpoint they tell by words of their own (EndpointTally) and over rings (dataplane/health_mesh.h).
//
// Order.
//  1. Each word is good by itself and read relaxed; a worker that picks an endpoint reads `state` alone.
//  2. After a change of `state` of any endpoint of a cluster the owner stores `generation` of the cluster's own line with
//     release. Who keeps something worked out from the states loads `generation` (acquire) first and the states then: it sees at
//     least the states of that generation; those of a later one that it may see too come with a later number, by which it works
//     out again.
//  3. While a slot is free its words are the loader's, which zeroes them; they are handed back as the counters are (region.h).
//     A zero line is a healthy endpoint of which nothing is known.
//  4. Control reads for people: words of one line may be of two moments.
#pragma once

#include <atomic>
#include <cstdint>

#include "lib/stats/counters.h"

namespace millrace::stats {

// EndpointHealth::state, bits. 0: nothing speaks against the endpoint.
enum HealthBit : uint32_t {
  kHealthEjected = 1,        // by outlier detection
  kHealthCheckPassed = 2,    // by active health checks: set while the endpoint counts as healthy. Means something only where the
                             // cluster has checks: there a zero word is an endpoint that was not checked yet, and may not be used
  kHealthCheckDegraded = 4,  // its last successful check said x-envoy-degraded
};

// What the last active health check of an endpoint came to (EndpointHealth::check_result, low byte).
enum class CheckResult : uint8_t {
  kNone,  // not checked yet
  kSuccess,
  kStatus,   // another status than expected: bits 8 to 23
  kPayload,  // what was to be received did not come
  kTimeout,
  kRefused,     // the connection was refused or reset before it was there
  kClosed,      // the connection ended before the answer
  kProtocol,    // the answer is no HTTP
  kTls,         // the TLS handshake failed
  kLocal,       // the check never left: no route, no port, no memory
  kGrpc,        // a gRPC status other than OK: bits 8 to 23
  kNotServing,  // the service answers that it does not serve
};

struct alignas(128) EndpointHealth {  // the worker that owns the cluster: rw; others, control: ro
  std::atomic<uint32_t> state;        // of an endpoint
  std::atomic<uint32_t> generation;   // of a cluster: grows with each change of a state of its endpoints
  Counter suspect;                    // bits by OriginKind: the run of failures is not empty, so a success is worth telling
  Counter consecutive_5xx, consecutive_gateway_failure, consecutive_local_origin_failure;
  Counter backoff;                          // Envoy's ejectTimeBackoff: base_ejection_time is multiplied by it
  Counter detector;                         // table::OutlierDetector of the last ejection
  Counter ejected_at_ns, ejected_until_ns;  // CLOCK_MONOTONIC; `until` is met at an end of an interval
  Counter ejections;                        // ever
  Counter seen_total[2], seen_success[2];   // by OriginKind: the tallies over all workers when the interval began
  Counter interval[2];                      // by OriginKind, of the interval that ended last: requests << 32 | successes
  // Active health checks (dataplane/health_checker.h):
  Counter check_result;    // CheckResult, and the status in bits 8 to 23
  Counter checked_at_ns;   // CLOCK_MONOTONIC
  Counter check_failures;  // in a row
  Counter check_reserved[13];
};
static_assert(sizeof(EndpointHealth) == 256);

enum class OriginKind : uint8_t { kExternal, kLocal };

// What one worker has seen of one endpoint: the last words of its own block of the endpoint's scope. Only for clusters with
// outlier detection.
struct EndpointTally {           // its worker: rw; the owner of the cluster: ro
  Counter total[2], success[2];  // by OriginKind; grow
  Counter told;                  // its worker only: bits by OriginKind: a failure was told and no success after it
};
inline constexpr uint32_t kTallyWords = sizeof(EndpointTally) / sizeof(Counter);

}  // namespace millrace::stats
