// One request and its response, whatever connection each side uses. An exchange is born when a request head is complete, and ends
// when its response has been handed to the client's connection, or when it can no longer be.
//
//   request   kBody ──last byte──▶ kComplete              response  kNone ──head written──▶ kBody ──last byte──▶ kComplete
//
// It owns its head buffers and its place in a pool; it borrows the downstream session and, while it is served, an upstream
// session.
#pragma once

#include <cstdint>

#include "dataplane/head_buffer.h"
#include "dataplane/http_policy.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/time.h"
#include "lib/http/forward.h"
#include "lib/http/h1_body.h"
#include "lib/http/local_reply.h"
#include "lib/http/message.h"
#include "lib/stats/response_flag.h"

namespace millrace::dataplane {

using base::TimeNs;

struct DownstreamSession;
struct UpstreamSession;
struct Http2Stream;
struct ExchangeFilters;
struct RetryState;
struct Http2ClientStream;
struct EndpointPool;
struct ClusterState;

enum class RequestPhase : uint8_t { kBody, kComplete };
enum class ResponsePhase : uint8_t { kNone, kBody, kComplete };

// One direction of a body: how it comes and how it leaves.
struct BodyRelay {
  http::BodyDecoder decoder;
  bool chunked_out = false;
  bool drop_trailers = false;      // the other side takes none
  HeadBuffer* trailers = nullptr;  // lent to the decoder when trailers are forwarded
  http::HeaderTable trailer_table;
};

// What is out of the ordinary about an exchange, so that the ordinary one tests it once for all.
enum Unusual : uint8_t {
  kUnusualTunnel = 1,   // `tunnel`
  kUnusualRaw = 2,      // the endpoint is spoken to in raw TCP: a CONNECT that ends here
  kUnusualRetry = 4,    // `retry`
  kUnusualWatched = 8,  // its cluster is watched: what the endpoint answers is reported (health_keeper.h)
};

// All of an exchange but what links it: copied over by Exchange::renew().
struct ExchangeState {
  DownstreamSession* downstream = nullptr;
  Http2Stream* stream = nullptr;                 // of a client that speaks HTTP/2; null: the whole connection is this exchange's
  UpstreamSession* upstream = nullptr;           // null: not (yet, any more) on an upstream connection
  Http2ClientStream* upstream_stream = nullptr;  // of `upstream`, when that speaks HTTP/2
  EndpointPool* endpoint = nullptr;              // chosen endpoint; null before the choice
  ClusterState* cluster = nullptr;
  RequestPhase request_phase = RequestPhase::kBody;
  ResponsePhase response_phase = ResponsePhase::kNone;
  bool close_downstream = false;  // the client's connection ends with this exchange
  bool reset_downstream = false;  // with close_downstream: by a reset, because a FIN would make a cut body look complete
  bool close_told = false;        // the response's head said "connection: close"
  bool client_left = false;       // the client's connection is gone already
  bool local_reply = false;       // the response is the gateway's own
  bool upstream_head_sent = false;
  bool upstream_http2 = false;  // of the upstream connection it was sent on
  bool tried_again = false;     // Upstreams::try_again()
  bool counted_active = false;  // in the cluster's and endpoint's active requests
  bool is_head = false, is_connect = false, is_grpc = false, is_grpc_upstream = false, upgrade_requested = false;
  // An upgrade or CONNECT that the configuration allows: what follows the heads are bytes of another protocol. They wait until
  // the endpoint has agreed (tunnel_open: 101, or 2xx to CONNECT), and then each direction ends by itself.
  bool tunnel = false, tunnel_open = false;
  bool is_websocket = false;  // a tunnel of that type
  bool odd_head = false;      // a WebSocket or gRPC-Web: write_upstream_head() has more to do
  uint8_t unusual = 0;        // Unusual
  uint8_t proxy_version = 0;  // raw_upstream: of the PROXY protocol header that comes first; 0: none
  http::ResponseDetail detail = http::ResponseDetail::kNone;
  uint8_t stripped_port = 0;  // bytes behind the authority that strip_any_host_port or strip_matching_host_port took

  HeadBuffer* request_buffer = nullptr;
  http::RequestHead request;
  http::RequestOrigin origin;
  http::Scratch scratch;           // over request_buffer's rest
  std::string_view original_path;  // before any rewrite
  std::string_view request_id;
  std::string_view websocket_key;  // made up by us for an endpoint of HTTP/1.1; "": none
  HeadBuffer* response_buffer = nullptr;
  size_t response_scanned = 0;
  http::ResponseHead response;
  BodyRelay request_body, response_body;
  ExchangeFilters* filters = nullptr;  // where an HTTP filter has something to do; in the request's head buffer
  RetryState* retry = nullptr;         // where the route or the request asks for it; likewise

  RoutePolicy route;
  table::ObjectId virtual_host = table::kNoObject;
  stats::ScopeSlot virtual_host_slot = stats::kOverflowScope;
  uint32_t route_rank = UINT32_MAX;  // index into the virtual host's routes
  stats::ResponseFlags flags;
  const char* detail_text = nullptr;  // instead of `detail`, where an error has its own text (static storage, or in `scratch`)

  TimeNs route_deadline = base::kNever;     // route timeout, from the end of the request
  TimeNs request_deadline = base::kNever;   // HCM.request_timeout, from its start
  TimeNs duration_deadline = base::kNever;  // max_stream_duration
  TimeNs last_activity = 0;                 // for the idle timeout

  TimeNs started_at = 0, request_complete_at = 0, upstream_sent_at = 0, first_upstream_byte_at = 0, upstream_connected_at = 0,
         downstream_first_byte_at = 0;
  uint64_t started_wall_ns = 0;  // Unix time
  uint64_t request_head_bytes = 0, response_head_bytes = 0;
  uint64_t bytes_received = 0, bytes_sent = 0;  // bodies, without framing: %BYTES_RECEIVED%, %BYTES_SENT%
  uint16_t status = 0;                          // of the response, 0: none
  uint16_t retries = 0;                         // attempts after the first
  uint16_t upstream_port = 0, upstream_local_port = 0;
  stats::ScopeSlot cluster_slot = stats::kOverflowScope,
                   endpoint_slot = stats::kOverflowScope;  // once chosen: where the response counts
  base::IpAddress upstream_address, upstream_local_address;
  std::string_view upstream_service_time;  // text of x-envoy-upstream-service-time, in response_buffer's scratch

  bool raw_upstream() const { return (unusual & kUnusualRaw) != 0; }
  bool active() const { return downstream != nullptr; }
  std::string_view detail_view() const {
    return detail_text != nullptr ? std::string_view(detail_text) : http::response_detail(detail);
  }
};

struct Exchange : ExchangeState {
  base::ListNode pending;  // in endpoint->pending while it waits for a connection
  SessionTimer timer{
      TimerKind::kExchange};  // the earliest of the deadlines; of a finished exchange it may still lie in the wheel

  // As fresh, for the next request. The timer stays where it is.
  void renew() { static_cast<ExchangeState&>(*this) = ExchangeState{}; }
};

}  // namespace millrace::dataplane
