// The two connections of an exchange: reading request heads from clients and response heads from endpoints.
#include "dataplane/http_proxy.h"

#include <algorithm>
#include <memory>

#include "lib/http/connection.h"
#include "lib/http/h1_parser.h"
#include "lib/http/h1_writer.h"

namespace millrace::dataplane {

using stats::HcmCounter;
using stats::HttpCounter;

namespace {
// Of a small head buffer, what head bytes may fill; the rest is for strings made while forwarding.
constexpr uint32_t kSmallHeadFill = 6 * 1024;
// A head longer than this in a small buffer moves to a large one, so that a copy of its longest string fits behind it.
constexpr uint32_t kSmallHeadComfort = 3 * 1024;

uint32_t fill_limit(const HeadBuffer& h) { return h.large ? HeadBufferPool::kMaxHeadBytes : kSmallHeadFill; }
}  // namespace

HttpProxy::HttpProxy(WorkerContext& context, Downstreams& downstreams, Upstreams& upstreams, base::Arena* http2_arena)
    : ctx_(context),
      downstreams_(downstreams),
      upstreams_(upstreams),
      exchanges_(context.limits.exchanges),
      encoders_(context.limits.compression_bytes),
      http2_(context, *this, downstreams, http2_arena) {}

HttpProxy::~HttpProxy() {
  for (uint32_t i = 0; i < exchanges_.capacity(); ++i) {
    if (!exchanges_.lent(i)) continue;
    Exchange& ex = exchanges_[i];
    ctx_.disarm(ex.timer);
    free_body(ex.request_body);
    free_body(ex.response_body);
    if (ex.filters != nullptr) end_filters(ex);
    if (ex.retry != nullptr) end_retry(ex);
    ctx_.heads.release(ex.request_buffer);
    ctx_.heads.release(ex.response_buffer);
    exchanges_.free(&ex);
  }
}

void HttpProxy::start(DownstreamSession& d) {
  d.phase = DownstreamPhase::kHttp;
  d.exchange = nullptr;
  d.head = nullptr;
  stats::ScopeBlock& hcm = ctx_.stats.scope(d.policy->http.stat_slot);
  hcm[HcmCounter::kCxTotal].add();
  hcm[HcmCounter::kCxActive].add();
  if (d.tls_terminated) hcm[HcmCounter::kCxSslTotal].add();
  // Envoy, codec_type AUTO: what ALPN agreed on, else what the first bytes say (is_http2_preface()).
  const table::HttpCodec codec = d.policy->http.codec;
  if (codec == table::HttpCodec::kHttp2 ||
      (codec == table::HttpCodec::kAuto && d.tls != nullptr && d.tls->session->negotiated().alpn == "h2")) {
    hcm[HcmCounter::kCxHttp2Total].add();
    http2_.start(d);
    return;
  }
  arm_idle(d);
  read_requests(d);
}

void HttpProxy::on_downstream(DownstreamSession& d, uint32_t events) {
  if (events & (tcp::kEventReset | tcp::kEventTimedOut)) return client_gone(d, true);
  if (events & tcp::kEventSendSpace) {
    ctx_.transports.on_send_space(d, ctx_.now);
    if (d.exchange != nullptr) relay_response(*d.exchange);
    if (d.phase != DownstreamPhase::kHttp) return;
  }
  if (d.exchange == nullptr || d.exchange->request_phase == RequestPhase::kBody) read_requests(d);
  // A tunnel has heard of it as the end of one direction.
  if (d.phase == DownstreamPhase::kHttp && d.peer_closed && (d.exchange == nullptr || !d.exchange->tunnel_open))
    client_gone(d, false);
}

void HttpProxy::on_downstream_gone(DownstreamSession& d, bool reset) { client_gone(d, reset); }

void HttpProxy::on_downstream_timer(DownstreamSession& d) {
  if (d.exchange != nullptr) return;
  stats::ScopeBlock& hcm = ctx_.stats.scope(d.policy->http.stat_slot);
  if (d.head != nullptr) {  // request_headers_timeout; Envoy's stream idle timeout runs from the first byte, too
    const bool idle = ctx_.now < deadline_after(d.head_started, d.policy->http.request_headers_timeout_ms);
    hcm[idle ? HcmCounter::kRqIdleTimeout : HcmCounter::kRqHeaderTimeout].add();
    HeadBuffer* head = std::exchange(d.head, nullptr);
    http::RequestHead none;
    none.headers = http::HeaderTable(head->headers, head->header_capacity);
    head->used = 0;
    Exchange* ex = begin(d, head);
    if (ex == nullptr) return;
    ex->request = none;
    if (!idle) return reply(*ex, http::LocalReply::kRequestHeadersTimeout);
    return reply(*ex, http::LocalReply::kStreamIdleTimeout, stats::ResponseFlag::kStreamIdleTimeout);
  }
  if (!d.expired && outlived(d)) {  // a request that is on its way is served yet
    if (d.policy->http.drain_timeout_ms != 0) return ctx_.arm(d.timer, deadline_after(ctx_.now, d.policy->http.drain_timeout_ms));
  }
  if (d.expired) return downstreams_.close(d, d.policy->http.delayed_close_timeout_ms);
  hcm[HcmCounter::kCxIdleTimeout].add();
  downstreams_.close(d, d.policy->http.delayed_close_timeout_ms);
}

void HttpProxy::arm_idle(DownstreamSession& d) {
  ctx_.arm(d.timer, std::min(deadline_after(ctx_.now, d.policy->http.idle_timeout_ms), outlives_at(d)));
}

TimeNs HttpProxy::outlives_at(const DownstreamSession& d) const {
  return deadline_after(d.accepted_at, d.policy->http.max_connection_duration_ms);
}

// Whether the connection has passed its max_connection_duration; counted when that shows.
bool HttpProxy::outlived(DownstreamSession& d) {
  if (d.policy->http.max_connection_duration_ms == 0) [[likely]]
    return false;
  if (!d.expired && ctx_.now >= outlives_at(d)) {
    d.expired = true;
    ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxMaxDuration].add();
  }
  return d.expired;
}

void HttpProxy::wake(DownstreamSession& d) {
  if (!d.wake.linked()) wake_.push_back(d);
}

void HttpProxy::run_wake_list() {
  // One turn each: what is woken while we run waits for the next iteration.
  if (!encoding_.empty()) run_encoders();
  base::List<DownstreamSession, &DownstreamSession::wake> now;
  now.splice_back(wake_);
  while (DownstreamSession* d = now.pop_front()) {
    if (d->phase != DownstreamPhase::kHttp) continue;
    read_requests(*d);
    if (d->phase == DownstreamPhase::kHttp && d->peer_closed && d->exchange == nullptr) client_gone(*d, false);
  }
}

// The policy as the tables of this epoch have it.
void HttpProxy::refresh_policy(DownstreamSession& d) {
  if (d.policy->epoch != ctx_.tables->epoch()) [[unlikely]]
    downstreams_.refresh_policy(d);
  d.draining = d.policy->gone;
  if (ctx_.drain.active) [[unlikely]]
    d.draining |= ctx_.drain.closes(ctx_.now, ctx_.random.next());
}

void HttpProxy::read_requests(DownstreamSession& d) {
  // One new request per call: pipelined ones follow through the wake list, so that no connection holds the loop.
  if (d.exchange == nullptr && !read_head(d)) return;
  if (d.exchange != nullptr) relay_request(*d.exchange);
}

bool HttpProxy::read_head(DownstreamSession& d) {
  io::PacketQueue& rx = ctx_.transports.rx(d);
  if (rx.empty()) return false;
  // A client that pipelines and does not read gets no further responses queued: kEventSendSpace comes back here.
  if (ctx_.transports.tx_space(d) == 0) return false;
  if (d.head == nullptr) {
    refresh_policy(d);
    d.head = ctx_.heads.acquire();
    if (d.head == nullptr) {
      overload(d);
      return false;
    }
    d.head_scanned = 0;
    d.head_started = ctx_.now;
  }
  StageScope stage(ctx_.stages, Stage::kHttpParse);
  const http::H1Limits limits = d.policy->http.request_limits();
  while (true) {
    HeadBuffer* h = d.head;
    h->used += static_cast<uint32_t>(rx.peek(h->used, reinterpret_cast<uint8_t*>(h->data) + h->used, fill_limit(*h) - h->used));
    http::RequestHead request;
    request.headers = http::HeaderTable(h->headers, h->header_capacity - http::kForwardedHeaders);
    const http::HeadResult r = http::parse_request_head(h->bytes(), d.head_scanned, limits, &request);
    if (r.status == http::ParseStatus::kPartial) {
      d.head_scanned = h->used;
      ctx_.arm(d.timer, std::min(deadline_after(d.head_started, d.policy->http.request_headers_timeout_ms),
                                 deadline_after(d.head_started, d.policy->http.stream_idle_timeout_ms)));
      if (h->used < fill_limit(*h)) return false;
      HeadBuffer* large = ctx_.heads.grow(h);
      if (large == nullptr) {
        if (h->large || rx.bytes() > h->used) {
          d.head = nullptr;
          refuse_head(d, h, request, http::H1Error::kHeadTooLarge);
        }
        return false;
      }
      d.head = large;
      continue;
    }
    if (!h->large &&
        ((r.status == http::ParseStatus::kDone && r.consumed > kSmallHeadComfort) ||
         (r.error == http::H1Error::kTooManyHeaders && limits.max_header_count > h->header_capacity - http::kForwardedHeaders))) {
      if (HeadBuffer* large = ctx_.heads.grow(h); large != nullptr) {
        d.head = large;
        d.head_scanned = 0;
        continue;
      }
    }
    if (r.status == http::ParseStatus::kBad) {
      bool wait = false;
      if (d.requests == 0 && is_http2_preface(d, &wait)) {
        if (wait) {
          d.head_scanned = 0;
          return false;
        }
        ctx_.heads.release(std::exchange(d.head, nullptr));
        ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxHttp2Total].add();
        http2_.start(d);
        return false;
      }
      d.head = nullptr;
      refuse_head(d, h, request, r.error);
      return false;
    }
    d.head = nullptr;
    h->used = h->head_length = static_cast<uint32_t>(r.consumed);
    rx.consume(r.consumed);
    ctx_.transports.after_read(d, ctx_.now);
    Exchange* ex = begin(d, h);
    if (ex == nullptr) return false;
    ex->request = request;
    ex->request.headers = http::HeaderTable(h->headers, h->header_capacity, request.headers);
    route(*ex);
    return d.exchange != nullptr;
  }
}

// RFC 9113 3.3, prior knowledge: the first line of the preface is no request of HTTP/1, so we come here only when the parser has
// refused it. *wait: it is the preface so far.
bool HttpProxy::is_http2_preface(DownstreamSession& d, bool* wait) {
  if (d.policy->http.codec != table::HttpCodec::kAuto) return false;
  const std::string_view seen{d.head->data, std::min<size_t>(d.head->used, http::kH2Preface.size())};
  if (!http::kH2Preface.starts_with(seen)) return false;
  *wait = seen.size() < http::kH2Preface.size();
  return true;
}

Exchange* HttpProxy::begin(DownstreamSession& d, HeadBuffer* head) {
  Exchange* ex = exchanges_.alloc();
  if (ex == nullptr) {
    ctx_.heads.release(head);
    overload(d);
    return nullptr;
  }
  init(*ex, d, head);
  d.exchange = ex;
  ctx_.disarm(d.timer);
  return ex;
}

Exchange* HttpProxy::begin_stream(DownstreamSession& d, Http2Stream& s, HeadBuffer* head) {
  Exchange* ex = exchanges_.alloc();
  if (ex == nullptr) {
    ctx_.heads.release(head);
    ctx_.stats->flag(stats::ResponseFlag::kOverloadManager);
    return nullptr;
  }
  init(*ex, d, head);
  ex->stream = &s;
  s.exchange = ex;
  ex->request = s.request;
  ex->request.headers = http::HeaderTable(head->headers, head->header_capacity, s.request.headers);
  if (!s.protocol.empty()) {  // RFC 8441 5: from here on it is what HTTP/1.1 says
    ex->request.method = "GET";
    ex->request.headers.add(http::HeaderId::kConnection, "upgrade");
    ex->request.headers.add(http::HeaderId::kUpgrade, s.protocol);
  }
  return ex;
}

void HttpProxy::init(Exchange& exchange, DownstreamSession& d, HeadBuffer* head) {
  Exchange* ex = &exchange;
  ex->renew();
  ex->downstream = &d;
  ex->request_buffer = head;
  ex->scratch = http::Scratch(head->scratch());
  ex->request_head_bytes = head->used;
  ex->started_at = d.head_started;
  ex->started_wall_ns = ctx_.wall_ns - (ctx_.now - d.head_started);
  ex->last_activity = ctx_.now;
  ++d.requests;
  ctx_.stats->http[HttpCounter::kRqTotal].add();
  ctx_.stats->http[HttpCounter::kRqActive].add();
  stats::ScopeBlock& hcm = ctx_.stats.scope(d.policy->http.stat_slot);
  hcm[HcmCounter::kRqTotal].add();
  hcm[HcmCounter::kRqActive].add();
}

// No exchange or head buffer is left: an answer without either, then the connection ends.
void HttpProxy::overload(DownstreamSession& d) {
  static constexpr std::string_view kAnswer =
      "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 16\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nenvoy "
      "overloaded";
  ctx_.stats->flag(stats::ResponseFlag::kOverloadManager);
  ctx_.stats->http[HttpCounter::kRq5xx].add();
  if (ctx_.transports.tx_space(d) >= kAnswer.size()) ctx_.transports.write_copy(d, kAnswer, ctx_.now);
  downstreams_.close(d, d.policy->http.delayed_close_timeout_ms);
}

void HttpProxy::refuse_head(DownstreamSession& d, HeadBuffer* head, const http::RequestHead& partial, http::H1Error error) {
  ctx_.transports.rx(d).clear();
  ctx_.transports.after_read(d, ctx_.now);
  head->head_length = head->used;
  Exchange* ex = begin(d, head);
  if (ex == nullptr) return;
  ex->request.headers = http::HeaderTable(head->headers, head->header_capacity);
  const http::H1ErrorInfo& i = http::info(error);
  if (!i.by_codec) {  // the head itself was in order; of others Envoy logs neither method nor path
    ex->request.method = partial.method;
    ex->request.path = partial.path;
    ex->request.version = partial.version;
    ex->original_path = partial.path;
  }
  ex->detail_text = i.details;
  ctx_.stats->http[http_error_counter(error)].add();
  ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxProtocolError].add();
  if (i.by_codec) ex->flags.set(stats::ResponseFlag::kDownstreamProtocolError);
  reply_with(*ex, i.status, i.by_codec ? http::reason_phrase(i.status) : std::string_view{}, http::response_detail_of(error),
             true);
}

// ---- the endpoint's side
// --------------------------------------------------------------------------------------------------------

void HttpProxy::on_upstream_ready(Exchange& ex) {
  if (ex.unusual != 0 && !before_upstream_head(ex)) [[unlikely]]
    return;
  if (send_upstream_head(ex)) relay_request(ex);
}

void HttpProxy::on_upstream_readable(Exchange& ex) {
  if (ex.response_phase == ResponsePhase::kNone && !read_response_head(ex)) return;
  if (ex.tunnel_open) [[unlikely]] {  // what has waited for the endpoint's consent
    relay_request(ex);
    if (!ex.active()) return;
  }
  relay_response(ex);
}

bool HttpProxy::read_response_head(Exchange& ex) {
  UpstreamSession& u = *ex.upstream;
  io::PacketQueue& rx = ctx_.transports.rx(u);
  if (rx.empty()) return false;
  StageScope stage(ctx_.stages, Stage::kHttpParse);
  if (ex.first_upstream_byte_at == 0) ex.first_upstream_byte_at = ctx_.now;
  if (ex.response_buffer == nullptr) {
    ex.response_buffer = ctx_.heads.acquire();
    ex.response_scanned = 0;
    if (ex.response_buffer == nullptr) {
      ex.flags.set(stats::ResponseFlag::kOverloadManager);
      upstreams_.cancel(ex);
      reply(ex, http::LocalReply::kOverload);
      return false;
    }
  }
  http::H1Limits limits;
  limits.max_head_bytes = ex.cluster->max_response_head_bytes;
  limits.max_header_count = ex.cluster->max_response_headers_count;
  limits.accept_http_10 = true;
  while (true) {
    HeadBuffer* h = ex.response_buffer;
    h->used += static_cast<uint32_t>(rx.peek(h->used, reinterpret_cast<uint8_t*>(h->data) + h->used, fill_limit(*h) - h->used));
    ex.response.headers = http::HeaderTable(h->headers, h->header_capacity - http::kForwardedHeaders);
    const http::HeadResult r = http::parse_response_head(h->bytes(), ex.response_scanned, limits, &ex.response);
    if (r.status == http::ParseStatus::kPartial) {
      ex.response_scanned = h->used;
      if (h->used < fill_limit(*h)) return false;
      if (HeadBuffer* large = ctx_.heads.grow(h); large != nullptr) {
        ex.response_buffer = large;
        continue;
      }
      if (!h->large && rx.bytes() <= h->used) return false;
    }
    if (r.status != http::ParseStatus::kDone) {
      u.reusable = false;
      ctx_.stats.scope(ex.cluster->slot)[stats::ClusterCounter::kCxProtocolError].add();
      upstreams_.report(*ex.endpoint, Upstreams::Outcome::kFailed);
      upstreams_.cancel(ex);
      ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
      if (ex.retry != nullptr && retry_reset(ex, UpstreamFailure::kProtocol)) return false;
      reply(ex, http::LocalReply::kUpstreamProtocolError, stats::ResponseFlag::kUpstreamProtocolError);
      return false;
    }
    if (!h->large && r.consumed > kSmallHeadComfort) {
      if (HeadBuffer* large = ctx_.heads.grow(h); large != nullptr) {
        ex.response_buffer = large;
        ex.response_scanned = 0;
        continue;
      }
    }
    rx.consume(r.consumed);
    if (ex.response.status < 200 && ex.response.status != 101) {  // 100, 102, 103: not forwarded (proxy_100_continue is off)
      h->used = 0;
      ex.response_scanned = 0;
      if (rx.empty()) {
        ctx_.transports.after_read(u, ctx_.now);
        return false;
      }
      continue;
    }
    if (rx.empty()) ctx_.transports.after_read(u, ctx_.now);  // else the body's relay does it
    h->used = h->head_length = static_cast<uint32_t>(r.consumed);
    ex.response.headers = http::HeaderTable(h->headers, h->header_capacity, ex.response.headers);
    if (ex.response.status == 101 && (!ex.tunnel || ex.is_connect)) {  // nobody asked for an upgrade
      upstreams_.report(*ex.endpoint, Upstreams::Outcome::kFailed);
      upstreams_.cancel(ex);
      ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
      if (ex.retry != nullptr && retry_reset(ex, UpstreamFailure::kProtocol)) return false;
      reply(ex, http::LocalReply::kUpstreamProtocolError, stats::ResponseFlag::kUpstreamProtocolError);
      return false;
    }
    ex.last_activity = ctx_.now;
    forward_response_head(ex);
    return ex.active() && ex.response_phase == ResponsePhase::kBody;
  }
}

void HttpProxy::on_upstream_head(Exchange& ex) {
  const Http2ClientStream& s = *ex.upstream_stream;
  HeadBuffer& h = *ex.response_buffer;
  h.used = h.head_length = s.head_bytes_used();
  ex.response = s.response;
  ex.response.headers = http::HeaderTable(h.headers, h.header_capacity, s.response.headers);
  ex.last_activity = ctx_.now;
  forward_response_head(ex);
}

void HttpProxy::on_upstream_failed(Exchange& ex, UpstreamFailure failure) {
  using http::LocalReply;
  using http::ResponseDetail;
  using stats::ResponseFlag;
  const bool started = ex.response_phase != ResponsePhase::kNone, stream = ex.upstream_stream != nullptr;
  // Envoy: onUpstreamReset, whatever has come; not what a limit of ours refused.
  if (ex.endpoint != nullptr && failure != UpstreamFailure::kOverflow && failure != UpstreamFailure::kNoRoom)
    upstreams_.report(*ex.endpoint,
                      failure == UpstreamFailure::kTimeout ? Upstreams::Outcome::kTimeout : Upstreams::Outcome::kFailed);
  if (ex.upstream != nullptr) upstreams_.cancel(ex);
  ex.endpoint = nullptr;
  if (started && stream) {
    switch (failure) {
      case UpstreamFailure::kStreamReset:
      case UpstreamFailure::kStreamRefused:
        ex.flags.set(ResponseFlag::kUpstreamRemoteReset);
        ex.detail = ResponseDetail::kResetAfterResponseRemoteReset;
        break;
      case UpstreamFailure::kProtocol:
        ex.flags.set(ResponseFlag::kUpstreamProtocolError);
        ex.detail = ResponseDetail::kResetAfterResponseProtocolError;
        break;
      case UpstreamFailure::kNoRoom:
        ex.flags.set(ResponseFlag::kOverloadManager);
        break;
      default:
        ex.flags.set(ResponseFlag::kUpstreamConnectionTermination);
        ex.detail = ResponseDetail::kResetAfterResponseConnectionTermination;
    }
    ex.reset_downstream |= ex.tunnel_open;
    return cut_response(ex);
  }
  if (started && ex.tunnel_open) {
    ex.flags.set(ResponseFlag::kUpstreamConnectionTermination);
    ex.detail = ResponseDetail::kResetAfterResponseConnectionTermination;
    ex.reset_downstream = true;
    return cut_response(ex);
  }
  if (started) {
    // A connection that ends inside a body, by FIN or RST, is an error of the protocol to Envoy's codec.
    ex.flags.set(ResponseFlag::kUpstreamProtocolError);
    ex.detail = http::ResponseDetail::kResetAfterResponseProtocolError;
    return cut_response(ex);
  }
  const bool partial_head = !stream && ex.response_buffer != nullptr && ex.response_buffer->used != 0;
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  if (ex.retry != nullptr &&
      retry_reset(ex, failure == UpstreamFailure::kClosed && partial_head ? UpstreamFailure::kProtocol : failure))
    return;
  // A head that ends in the middle is an error of the protocol, not a connection that ended (Envoy: codec error).
  if (failure == UpstreamFailure::kClosed && partial_head)
    return reply(ex, LocalReply::kUpstreamProtocolError, ResponseFlag::kUpstreamProtocolError);
  if (failure == UpstreamFailure::kRefused || failure == UpstreamFailure::kTimeout || failure == UpstreamFailure::kTls)
    discard_received_body(ex);
  switch (failure) {
    case UpstreamFailure::kRefused:
      return reply(ex, LocalReply::kUpstreamConnectRefused, ResponseFlag::kUpstreamConnectionFailure);
    case UpstreamFailure::kTimeout:
      return reply(ex, LocalReply::kUpstreamConnectTimeout, ResponseFlag::kUpstreamConnectionFailure);
    case UpstreamFailure::kTls:
      return reply_tls_failure(ex, upstreams_.tls_failure());
    case UpstreamFailure::kLocal:
      return reply(ex, LocalReply::kUpstreamLocalConnectFailure, ResponseFlag::kUpstreamConnectionFailure);
    case UpstreamFailure::kClosed:
    case UpstreamFailure::kReset:
      return reply(ex, LocalReply::kUpstreamClosed, ResponseFlag::kUpstreamConnectionTermination);
    case UpstreamFailure::kOverflow:
      return reply(ex, LocalReply::kUpstreamOverflow, ResponseFlag::kUpstreamOverflow);
    case UpstreamFailure::kStreamReset:
      return reply(ex, LocalReply::kUpstreamReset, ResponseFlag::kUpstreamRemoteReset);
    case UpstreamFailure::kStreamRefused:
      return reply(ex, LocalReply::kUpstreamRefusedStream, ResponseFlag::kUpstreamRemoteReset);
    case UpstreamFailure::kProtocol:
      return reply(ex, LocalReply::kUpstreamProtocolError, ResponseFlag::kUpstreamProtocolError);
    case UpstreamFailure::kNoRoom:
      return reply(ex, LocalReply::kOverload, ResponseFlag::kOverloadManager);
  }
}

}  // namespace millrace::dataplane
