// HTTP from client to endpoint and back: reads request heads, routes them, relays bodies both ways with back-pressure, answers
// what the gateway itself has to answer, and ends exchanges. One object per worker; files: http_proxy.cc (the two connections),
// http_relay.cc (bodies), http_compress.cc (compressor filters), http_cors.cc, http_grpc_web.cc, http_tunnel.cc (upgrades,
// CONNECT), http_router.cc (decisions and heads), http_finish.cc (ends, records).
//
// Who may free an exchange: only finish(). It may be called inside any function below, so after a call that can finish, callers
// look at DownstreamSession::exchange (or the return value) before they touch the exchange again.
#pragma once

#include <cstdint>
#include <string_view>

#include "dataplane/downstream.h"
#include "dataplane/exchange.h"
#include "dataplane/exchange_filters.h"
#include "dataplane/exchange_format.h"
#include "dataplane/http2_server.h"
#include "dataplane/response_compression.h"
#include "dataplane/retry.h"
#include "dataplane/upstreams.h"
#include "dataplane/worker_context.h"
#include "lib/compress/encoder_pool.h"
#include "lib/http/h1_writer.h"
#include "lib/http/local_reply.h"

namespace millrace::dataplane {

// Which counter of the worker a refused message counts on.
stats::HttpCounter http_error_counter(http::H1Error e);

class HttpProxy {
 public:
  // `http2_arena`: memory of nghttp2; null: malloc (tests).
  HttpProxy(WorkerContext& context, Downstreams& downstreams, Upstreams& upstreams, base::Arena* http2_arena = nullptr);
  ~HttpProxy();

  // --- from Downstreams
  void start(DownstreamSession& d);                           // a connection whose chain is an HttpConnectionManager
  void on_downstream(DownstreamSession& d, uint32_t events);  // its events, rx() is up to date
  void on_downstream_timer(DownstreamSession& d);             // idle timeout, request headers timeout
  void on_downstream_gone(DownstreamSession& d, bool reset);  // TLS failed under it

  // --- from Upstreams
  void on_upstream_ready(Exchange& ex);
  void on_upstream_readable(Exchange& ex);
  void on_upstream_head(Exchange& ex);  // HTTP/2: the head of the response is complete, in ex.response_buffer
  void tunnel_over(Exchange& ex);       // both directions of its tunnel are, and a stream has framed all of it
  void on_upstream_writable(Exchange& ex) {
    if ((ex.unusual & kUnusualRetry) != 0) [[unlikely]]
      return relay_kept(ex);
    relay_request(ex);
  }
  void on_upstream_failed(Exchange& ex, UpstreamFailure failure);

  void on_timer(Exchange& ex);
  void on_retry_timer(Exchange& ex);
  // Body bytes of a request on their way to an endpoint, kept for a retry: `packet`, if they are all of one. What cannot be kept
  // ends all retries of it.
  void keep(Exchange& ex, const io::PacketPtr* packet, base::ByteSpan bytes);
  // A request that may be sent once more: its trailers come back from the stream that had them.
  void keep_trailers(Exchange& ex, HeadBuffer* buffer, const http::HeaderTable& table);

  // --- HTTP/2 from clients
  Http2Server& http2() { return http2_; }
  // An exchange of a stream whose head is complete; route() is next. Null: none is left.
  Exchange* begin_stream(DownstreamSession& d, Http2Stream& s, HeadBuffer* head);
  // The stream was reset, or its connection is over.
  void stream_gone(Exchange& ex);

  // Sessions with more to do (pipelined requests, bodies whose encoder has had its turn), at most those that wait now.
  void run_wake_list();
  bool has_wakeups() { return !wake_.empty() || !encoding_.empty(); }

  uint32_t exchanges_in_use() const { return exchanges_.in_use(); }
  uint32_t encoders_in_use() const { return encoders_.in_use(); }
  uint32_t exchanges_capacity() const { return exchanges_.capacity(); }

 private:
  friend struct HttpProxyTest;
  friend class Http2Server;
  friend class Http2Client;

  // http_proxy.cc
  void read_requests(DownstreamSession& d);
  bool read_head(DownstreamSession& d);  // true: an exchange was made
  bool is_http2_preface(DownstreamSession& d, bool* wait);
  void init(Exchange& ex, DownstreamSession& d, HeadBuffer* head);
  void refresh_policy(DownstreamSession& d);
  void arm_idle(DownstreamSession& d);
  TimeNs outlives_at(const DownstreamSession& d) const;
  bool outlived(DownstreamSession& d);
  void wake(DownstreamSession& d);
  Exchange* begin(DownstreamSession& d, HeadBuffer* head);  // null: no exchange left; the session is closing
  void refuse_head(DownstreamSession& d, HeadBuffer* head, const http::RequestHead& partial, http::H1Error error);
  void overload(DownstreamSession& d);
  bool read_response_head(Exchange& ex);  // false: needs more, or the exchange ended

  // http_relay.cc
  enum class Relay : uint8_t { kBlocked, kDone, kBad, kCut };
  struct RelayEnd {
    Relay status = Relay::kBlocked;
    http::H1Error error = http::H1Error::kNone;
  };
  template <class In, class Out>
  RelayEnd relay(In in, Out out, BodyRelay& body, uint64_t* bytes);
  void relay_request(Exchange& ex);
  template <class Out>
  RelayEnd relay_from_client(Exchange& ex, Out out);
  template <class In>
  RelayEnd relay_filtered(Exchange& ex, In in);
  template <class In, class Out>
  RelayEnd relay_encoded(Exchange& ex, In in, Out out);
  template <class In, class Out>
  RelayEnd relay_grpc_web(Exchange& ex, In in, Out out, uint64_t* came, uint64_t* went);
  bool write_encoded(Exchange& ex, std::string_view body);
  void relay_kept(Exchange& ex);
  template <class Out>
  bool send_kept(Exchange& ex, Out out);
  void discard_received_body(Exchange& ex);
  void relay_response(Exchange& ex);
  void start_body(BodyRelay& body, http::BodyFraming in, bool chunked_out, bool trailers);
  void free_body(BodyRelay& body);

  // http_router.cc
  void route(Exchange& ex);
  void route_to_cluster(Exchange& ex, const VirtualHostEntry& host, const table::RouteTable& routes,
                        const route::MatchResult& match, uint64_t random);
  // http_tunnel.cc
  bool upgrade_allowed(Exchange& ex, const table::VirtualHost& host, const table::Route& route);
  void begin_tunnel(Exchange& ex, http::BodyFraming body);
  bool add_websocket_key(Exchange& ex);
  bool answer_upgrade(Exchange& ex, http::BodyFraming* in);
  bool begin_stream_tunnel(Exchange& ex);
  bool http1_answer(Exchange& ex);
  bool write_proxy_header(Session& to, const tcp::FourTuple& client, uint8_t version);
  void open_raw_tunnel(Exchange& ex);
  void tunnel_request_over(Exchange& ex);
  void tunnel_response_over(Exchange& ex);
  // http_router.cc
  void redirect(Exchange& ex, uint16_t status, std::string_view location);
  // The levels of header edits of a route, most specific first.
  struct EditLevel {
    const void* object;
    const table::HeaderMutations* edits;
  };
  void keep_response_edits(Exchange& ex, const EditLevel* levels, uint32_t count, bool reversed);
  bool apply_response_edits(Exchange& ex, http::Scratch& scratch, bool local);
  // What the route's hash policies say; a cookie that they make goes with the response. False: no room for it.
  bool hash_request(Exchange& ex, const void* object, const table::Route& route, route::RequestHash* out);
  bool keep_cookie(Exchange& ex, std::string_view value);
  bool apply_options(Exchange& ex, http::HeaderTable& headers, const void* object,
                     const table::Array<table::HeaderOption>& options, FormatUse use, http::Scratch& scratch);
  bool make_local_reply(Exchange& ex, uint16_t status, std::string_view body, std::string_view location, std::string_view* text);
  // local_replies.cc
  bool rewrite_local_reply(Exchange& ex, uint16_t* status, std::string_view* body, std::string_view* content_type,
                           http::Scratch& scratch);
  void remember_names(Exchange& ex);
  void remember_names_for(Exchange& ex, const void* object, const table::Array<table::FormatPart>& parts);
  // Fits a small vector in the scratch. Null: it overflows.
  template <class T>
  static T* allocate_array(http::Scratch& scratch, uint32_t count) {
    char* raw = scratch.allocate(count * sizeof(T) + alignof(T));
    if (raw == nullptr) return nullptr;
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(raw) + alignof(T) - 1) & ~(alignof(T) - 1));
  }
  std::span<const format::Step> keep_steps(Exchange& ex, const void* object, const table::Array<table::FormatPart>& parts);
  bool apply_request_edits(Exchange& ex, const void* object, const table::HeaderMutations& m);
  template <class Write>
  bool write_head(Session& to, Write&& write);
  bool write_upstream_head(Exchange& ex);
  bool write_response_head(Exchange& ex, const http::ResponseHead& head, const http::ResponseWrite& how, bool end);
  void answered_early(Exchange& ex);
  void forward_response_head(Exchange& ex);
  void report_response(const Exchange& ex);
  void reply(Exchange& ex, http::LocalReply kind, stats::ResponseFlags flags = {});
  // 503 UF for a handshake with the endpoint that failed: `reason` goes into the response code details, with '_' for its spaces.
  void reply_tls_failure(Exchange& ex, std::string_view reason);
  // The one way out for responses of the gateway's own; ends the exchange. `location` may be empty.
  void reply_with(Exchange& ex, uint16_t status, std::string_view body, http::ResponseDetail detail, bool close,
                  std::string_view location = {});
  void request_complete(Exchange& ex);

  // http_compress.cc
  const FilterChainRuntime* compressors_of(const DownstreamSession& d) const;
  ExchangeFilters* filters_of(Exchange& ex);
  void end_filters(Exchange& ex);
  void begin_compression(Exchange& ex);
  bool compress_response(Exchange& ex, http::HeaderTable& headers, bool end_stream, http::Scratch& scratch);
  void close_encoder(ResponseCompression& c);
  void end_compression(Exchange& ex);
  void run_encoders();

  // http_grpc_web.cc
  void begin_grpc_web(Exchange& ex);
  bool translate_grpc_web_request(Exchange& ex);
  bool begin_grpc_web_response(Exchange& ex, bool end);
  bool put_grpc_message(http::ResponseHead& head, std::string_view message, http::Scratch& scratch);
  void finish_gathered(Exchange& ex);
  void cut_gathering(Exchange& ex);
  void count_grpc_web(const Exchange& ex, std::string_view grpc_status);
  void refuse_base64(Exchange& ex);
  void end_grpc_web(Exchange& ex);

  // http_cors.cc
  bool begin_cors(Exchange& ex, const VirtualHostEntry& entry, const table::Route& route);
  bool put_cors(const Cors& cors, http::HeaderTable& headers);
  void answer_preflight(Exchange& ex, const VirtualHostEntry& entry, const table::Route& route, uint64_t random);

  // http_retry.cc
  bool before_upstream_head(Exchange& ex);
  // The request's head to its endpoint. False: there is no memory, the exchange is over.
  bool send_upstream_head(Exchange& ex) {
    if (!write_upstream_head(ex)) {
      ex.flags.set(stats::ResponseFlag::kOverloadManager);
      upstreams_.cancel(ex);
      reply(ex, http::LocalReply::kOverload);
      return false;
    }
    ex.upstream_head_sent = true;
    ex.upstream_http2 = ex.upstream_stream != nullptr;
    ex.upstream_sent_at = ex.last_activity = ctx_.now;
    return true;
  }
  void begin_retry(Exchange& ex, const table::VirtualHost& object, const table::Route& route, uint32_t timeout_ms);
  void arm_retry(RetryState& r);
  bool retry_response(Exchange& ex);
  bool retry_reset(Exchange& ex, UpstreamFailure failure);
  bool decide_retry(Exchange& ex, bool would, uint32_t reset_ms);
  uint64_t asked_pause_ms(const Exchange& ex) const;
  void forget_attempt(Exchange& ex);
  void start_retry(Exchange& ex);
  bool write_attempt_fields(Exchange& ex);
  uint32_t expected_timeout_ms(const Exchange& ex) const;
  void per_try_timeout(Exchange& ex, bool idle);
  void give_up_retry(Exchange& ex);
  void end_retry(Exchange& ex);
  // http_finish.cc
  void finish(Exchange& ex);
  void response_complete(Exchange& ex);
  void client_gone(DownstreamSession& d, bool reset);
  void cut_response(Exchange& ex);  // the response cannot be completed: the client's connection ends with it
  void account(Exchange& ex);
  void emit_access_log(const Exchange& ex);
  void arm(Exchange& ex);

  WorkerContext& ctx_;
  Downstreams& downstreams_;
  Upstreams& upstreams_;
  base::Pool<Exchange> exchanges_;
  base::List<DownstreamSession, &DownstreamSession::wake> wake_;
  base::List<ResponseCompression, &ResponseCompression::more> encoding_;
  compress::EncoderPool encoders_;
  Http2Server http2_;
};

}  // namespace millrace::dataplane
