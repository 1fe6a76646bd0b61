// What an exchange remembers of its retry policy and of its attempts; in the request's head buffer, and only where the route or
// the request's fields ask for something of it. http_retry.cc decides (Envoy: RetryStateImpl, Router::Filter).
//
//   route ─ begin_retry() ─▶ attempt ─┬─ response head ─ retry_response() ─┬─ taken: it goes on, nothing is kept any more
//             ▲                       ├─ reset, refused ─ retry_reset() ───┤
//             │                       └─ per-try timeout ─────────────────┴─ once more: back-off ─ start_retry() ─▶ attempt
//          body kept (kept_body.h), up to its limit
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/head_buffer.h"
#include "dataplane/kept_body.h"
#include "dataplane/worker_context.h"
#include "lib/base/ip_address.h"
#include "lib/base/time.h"
#include "lib/http/message.h"
#include "lib/route/request_hash.h"
#include "lib/table/objects.h"

namespace millrace::dataplane {

struct Exchange;
struct ClusterState;

struct RetryState {
  static constexpr uint32_t kRememberedHosts = 16;  // of previous_hosts; then the oldest is forgotten

  explicit RetryState(Exchange& ex) : exchange(&ex) {}

  Exchange* exchange;
  SessionTimer timer{TimerKind::kRetry};  // the earliest of the three deadlines
  base::TimeNs back_off_until = base::kNever;
  base::TimeNs per_try_deadline = base::kNever;
  uint32_t per_try_timeout_ms = 0, per_try_idle_timeout_ms = 0;  // 0: none
  uint32_t retry_on = 0;                                         // table::RetryOn; 0: never
  uint32_t left = 0;                                             // retries
  uint32_t attempts = 1;
  uint32_t next_interval_ms = 25, max_interval_ms = 250, reset_max_interval_ms = 300'000;
  uint32_t host_attempts = 1;
  route::RequestHash hash;    // of the route's hash policies
  uint64_t buffer_limit = 0;  // bytes of the body
  bool previous_hosts = false, count_in_request = false, count_in_response = false, tell_timeout_retry = false;
  bool auto_host_rewrite = false;
  bool given_up = false;       // the response has begun, or the body is too large: no further attempt, nothing is kept
  bool overflowed = false;     // the breaker for retries said no
  bool after_timeout = false;  // the last attempt ran into the per-try timeout
  bool body_ended = true;      // the end of the body has gone to the endpoint, or there is none
  bool has_body = false;
  ClusterState* slot = nullptr;  // whose count of retries has one for us
  std::span<uint32_t> status_codes;
  std::span<table::ValueMatch> response_headers;  // their strings lie at offsets from `strings`
  std::span<table::ResetHeader> reset_headers;    // likewise
  const void* strings = nullptr;

  KeptBody body;
  uint32_t sent = 0;               // pieces of `body` that this attempt has sent
  HeadBuffer* trailers = nullptr;  // of the request, back from a stream of HTTP/2
  http::HeaderTable trailer_table;

  struct Host {
    base::IpAddress address;
    uint16_t port = 0;
  };
  std::array<Host, kRememberedHosts> hosts;
  uint32_t tried_hosts = 0;
  char attempt_text[11], expected_text[11];

  bool may_retry() const { return retry_on != 0 && !given_up; }
  bool waits() const { return back_off_until != base::kNever; }
  bool caught_up() const { return sent == body.pieces(); }
  void remember(const base::IpAddress& address, uint16_t port) { hosts[tried_hosts++ % kRememberedHosts] = {address, port}; }
  bool tried(const base::IpAddress& address, uint16_t port) const {
    for (uint32_t i = 0; i < std::min(tried_hosts, kRememberedHosts); ++i)
      if (hosts[i].port == port && hosts[i].address == address) return true;
    return false;
  }
};

}  // namespace millrace::dataplane
