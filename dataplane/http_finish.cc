// How exchanges end: completed, cut, timed out, or left by the client; and what is counted and recorded of them.
#include <algorithm>
#include <bit>

#include "dataplane/exchange_format.h"
#include "dataplane/http_proxy.h"
#include "lib/stats/events.h"

namespace millrace::dataplane {

using http::LocalReply;
using http::ResponseDetail;
using stats::ClusterCounter;
using stats::HcmCounter;
using stats::HttpCounter;
using stats::ResponseFlag;
using stats::VirtualHostCounter;

namespace {

// Adds one to the counter of the status' class: first is the group's k…1xx, the classes follow it.
template <class Block, class Enum>
void count_class(Block& block, Enum first, uint16_t status) {
  if (status >= 100 && status < 600) block[static_cast<Enum>(static_cast<uint16_t>(first) + status / 100 - 1)].add();
}

}  // namespace

stats::HttpCounter http_error_counter(http::H1Error e) {
  using http::H1Error;
  switch (e) {
    case H1Error::kBadMethod:
    case H1Error::kBadStartLine:
    case H1Error::kBadTarget:
      return HttpCounter::kBadRequestLine;
    case H1Error::kBadVersion:
    case H1Error::kUnsupportedVersion:
    case H1Error::kHttp10Refused:
      return HttpCounter::kBadVersion;
    case H1Error::kHeadTooLarge:
    case H1Error::kTooManyHeaders:
      return HttpCounter::kHeadersTooLarge;
    case H1Error::kMissingHost:
    case H1Error::kRepeatedHost:
    case H1Error::kBadHost:
      return HttpCounter::kBadHost;
    case H1Error::kBadContentLength:
    case H1Error::kRepeatedContentLength:
    case H1Error::kLengthAndChunked:
    case H1Error::kBadTransferEncoding:
    case H1Error::kTransferEncodingHttp10:
    case H1Error::kTransferEncodingConnect:
    case H1Error::kContentLengthConnect:
      return HttpCounter::kBadFraming;
    case H1Error::kBadChunkSize:
    case H1Error::kChunkSizeOverflow:
    case H1Error::kBadChunkExtension:
    case H1Error::kMissingChunkEnd:
    case H1Error::kTrailersTooLarge:
    case H1Error::kTooManyTrailers:
      return HttpCounter::kBadChunk;
    default:
      return HttpCounter::kBadHeader;
  }
}

void HttpProxy::arm(Exchange& ex) {
  const TimeNs idle = ex.route.idle_timeout_ms == 0 ? base::kNever : deadline_after(ex.last_activity, ex.route.idle_timeout_ms);
  ctx_.arm(ex.timer, std::min({idle, ex.route_deadline, ex.request_deadline, ex.duration_deadline}));
}

void HttpProxy::on_timer(Exchange& ex) {
  stats::ScopeBlock& hcm = ctx_.stats.scope(ex.downstream->policy->http.stat_slot);
  const bool started = ex.response_phase != ResponsePhase::kNone;
  if (ctx_.now >= ex.route_deadline) {
    if (ex.cluster != nullptr) {
      ctx_.stats.scope(ex.cluster->slot)[ClusterCounter::kRqTimeout].add();
      if (ex.endpoint != nullptr) ctx_.stats.scope(ex.endpoint->slot)[ClusterCounter::kRqTimeout].add();
    }
    ex.flags.set(ResponseFlag::kUpstreamRequestTimeout);
    ex.detail = ResponseDetail::kResponseTimeout;
    if (!started && ex.endpoint != nullptr) upstreams_.report(*ex.endpoint, Upstreams::Outcome::kTimeout);
    upstreams_.cancel(ex);
    if (started) return cut_response(ex);
    return reply(ex, LocalReply::kResponseTimeout);
  }
  if (ctx_.now >= ex.request_deadline) {
    hcm[HcmCounter::kRqTimeout].add();
    upstreams_.cancel(ex);
    if (started) return cut_response(ex);
    return reply(ex, LocalReply::kRequestTimeout);
  }
  if (ctx_.now >= ex.duration_deadline) {
    hcm[HcmCounter::kRqMaxDuration].add();
    ex.detail = ResponseDetail::kMaxDurationTimeout;  // Envoy sets no flag
    upstreams_.cancel(ex);
    if (started) return cut_response(ex);
    const http::LocalReplyInfo& i = http::info(LocalReply::kMaxStreamDuration);
    const bool complete = ex.request_phase == RequestPhase::kComplete;
    return reply_with(ex, complete ? 504 : i.status, i.body, i.detail, !complete);
  }
  if (ex.route.idle_timeout_ms != 0 && ctx_.now >= deadline_after(ex.last_activity, ex.route.idle_timeout_ms)) {
    hcm[HcmCounter::kRqIdleTimeout].add();
    ex.flags.set(ResponseFlag::kStreamIdleTimeout);
    ex.detail = ResponseDetail::kStreamIdleTimeout;
    upstreams_.cancel(ex);
    if (started) return cut_response(ex);
    return reply(ex, ex.request_phase == RequestPhase::kComplete ? LocalReply::kStreamIdleTimeoutAfterRequest
                                                                 : LocalReply::kStreamIdleTimeout);
  }
  arm(ex);  // something moved meanwhile
}

void HttpProxy::response_complete(Exchange& ex) {
  ex.response_phase = ResponsePhase::kComplete;
  UpstreamSession& u = *ex.upstream;
  const uint64_t upstream_ns = ctx_.now - ex.upstream_sent_at;
  ctx_.stats->histogram(stats::WorkerHistogram::kUpstreamTime).record(upstream_ns);
  // Whatever the endpoint sent behind its response was not asked for: such a connection is not used again.
  const bool reuse = ex.upstream_stream != nullptr ||
                     (ex.request_phase == RequestPhase::kComplete && u.reusable && ctx_.transports.rx(u).empty());
  upstreams_.finish(ex, reuse);
  finish(ex);
}

void HttpProxy::cut_response(Exchange& ex) {
  if (is_grpc_web(ex) && ex.filters->grpc_web->gathering) [[unlikely]]
    return cut_gathering(ex);
  DownstreamSession& d = *ex.downstream;
  if (ex.upstream != nullptr || ex.endpoint != nullptr) upstreams_.cancel(ex);
  if (ex.stream == nullptr) ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxDestroyLocalActiveRq].add();
  ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kRqTxReset].add();
  // A body that only the close ends would look complete: the client must see a reset instead (RFC 9112 6.3 rule 8, 8).
  const bool ambiguous =
      ex.response_phase == ResponsePhase::kBody && !ex.local_reply && !ex.tunnel && !ex.response_body.chunked_out &&
      (ex.response_body.decoder.framing().kind != http::Framing::kContentLength || encodes(ex) || is_grpc_web(ex));
  ex.close_downstream = true;
  if (ambiguous) ex.reset_downstream = true;
  finish(ex);
}

void HttpProxy::stream_gone(Exchange& ex) {
  const Http2Stream& s = *ex.stream;
  ctx_.stats.scope(ex.downstream->policy->http.stat_slot)[HcmCounter::kRqRxReset].add();
  const http::H2ErrorInfo& why = http::info(s.error);
  const bool theirs = s.error == http::H2Error::kRemoteReset && s.peer_code != http::H2Code::kProtocolError;
  if (s.error != http::H2Error::kNone && !theirs && s.error != http::H2Error::kLocalReset) {
    ex.flags.set(ResponseFlag::kDownstreamProtocolError);
    ex.detail_text = why.details;
  } else {
    ex.flags.set(ResponseFlag::kDownstreamConnectionTermination);
    if (s.error == http::H2Error::kRemoteReset) ex.detail_text = why.details;
    else ex.detail = ResponseDetail::kDownstreamRemoteDisconnect;
  }
  if (ex.response_phase == ResponsePhase::kNone) ex.status = 0;
  upstreams_.cancel(ex);
  ex.client_left = true;
  finish(ex);
}

void HttpProxy::client_gone(DownstreamSession& d, bool reset) {
  if (d.exchange != nullptr) {
    ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxDestroyRemoteActiveRq].add();
    Exchange& ex = *d.exchange;
    ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kRqRxReset].add();
    ex.flags.set(ResponseFlag::kDownstreamConnectionTermination);
    ex.detail = ResponseDetail::kDownstreamRemoteDisconnect;
    if (ex.response_phase == ResponsePhase::kNone) ex.status = 0;
    upstreams_.cancel(ex);
    ex.close_downstream = true;
    ex.client_left = true;
    finish(ex);
  }
  if (d.phase != DownstreamPhase::kHttp) return;
  ctx_.heads.release(std::exchange(d.head, nullptr));
  d.wake.unlink();
  if (reset) downstreams_.abort(d);
  else downstreams_.close(d, 0);
}

void HttpProxy::finish(Exchange& ex) {
  StageScope stage(ctx_.stages, Stage::kFinish);
  DownstreamSession& d = *ex.downstream;
  ctx_.disarm(ex.timer);
  account(ex);
  downstreams_.count_bytes(d);
  if (d.policy->http.access_logs != 0) emit_access_log(ex);
  const bool close = ex.close_downstream, reset = ex.reset_downstream, left = ex.client_left;
  free_body(ex.request_body);
  free_body(ex.response_body);
  if (ex.filters != nullptr) [[unlikely]]
    end_filters(ex);
  ctx_.heads.release(std::exchange(ex.request_buffer, nullptr));
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  ex.downstream = nullptr;
  if (Http2Stream* s = ex.stream; s != nullptr) {
    const bool cut = ex.response_phase != ResponsePhase::kComplete || (ex.tunnel_open && reset);
    // RFC 9113 8.5: what ends a tunnel's connection in disorder.
    const http::H2Code code = ex.tunnel ? http::H2Code::kConnectError : http::H2Code::kInternalError;
    exchanges_.free(&ex);
    return http2_.exchange_over(*s, cut, code);
  }
  d.exchange = nullptr;
  exchanges_.free(&ex);
  if (left) return;  // client_gone ends the connection
  if (reset) return downstreams_.abort(d);
  if (close) return downstreams_.close(d, d.policy->http.delayed_close_timeout_ms);
  arm_idle(d);
  if (!ctx_.transports.rx(d).empty() || d.peer_closed) wake(d);
}

void HttpProxy::account(Exchange& ex) {
  DownstreamSession& d = *ex.downstream;
  stats::ScopeBlock& hcm = ctx_.stats.scope(d.policy->http.stat_slot);
  ctx_.stats->http[HttpCounter::kRqActive].sub();
  hcm[HcmCounter::kRqActive].sub();
  if (ex.unusual != 0) [[unlikely]] {
    if (ex.tunnel) hcm[HcmCounter::kCxUpgradesActive].sub();
    if (ex.retry != nullptr) end_retry(ex);
  }
  count_class(ctx_.stats->http, HttpCounter::kRq1xx, ex.status);
  count_class(hcm, HcmCounter::kRq1xx, ex.status);
  if (ex.virtual_host != table::kNoObject) {
    stats::ScopeBlock& vh = ctx_.stats.scope(ex.virtual_host_slot);
    vh[VirtualHostCounter::kRqActive].sub();
    count_class(vh, VirtualHostCounter::kRq1xx, ex.status);
  }
  if (ex.cluster_slot != stats::kOverflowScope) {
    count_class(ctx_.stats.scope(ex.cluster_slot), ClusterCounter::kRq1xx, ex.status);
    if (ex.endpoint_slot != stats::kOverflowScope)
      count_class(ctx_.stats.scope(ex.endpoint_slot), ClusterCounter::kRq1xx, ex.status);
  }
  if (!ex.flags.empty()) ctx_.stats->flag(ex.flags);
  ctx_.stats->histogram(stats::WorkerHistogram::kRequestTime).record(ctx_.now - ex.started_at);
}

void HttpProxy::emit_access_log(const Exchange& ex) {
  if (ctx_.events == nullptr) return;
  const DownstreamSession& d = *ex.downstream;
  stats::AccessLogRecord r;
  const CurrentChain chain = current_chain(ctx_, d);
  const AccessLogFields* fields = chain.object != nullptr ? chain.runtime->log_fields : nullptr;
  if (fields != nullptr && fields->filters) {
    r.sinks = wanted_logs(chain.object, chain.runtime->chain->hcm.access_logs, log_facts(ctx_, ex));
    if (r.sinks == 0) return;
  }
  fill_record(ctx_, ex, fields == nullptr || fields->sizes, r);

  using stats::StringId;
  const http::HeaderTable& headers = ex.request.headers;
  stats::AccessLogBuilder builder(r);
  // A listener that is gone has taken its formats along: all strings then, and no extra headers.
  for (uint64_t wanted = fields != nullptr ? fields->strings : ~uint64_t{0}; wanted != 0; wanted &= wanted - 1) {
    const auto id = static_cast<StringId>(std::countr_zero(wanted));
    builder.add(id, record_string(ex, id));
  }
  if (fields != nullptr) {
    for (const std::string& name : fields->request_headers)
      if (const http::Header* h = headers.find(name); h != nullptr && !h->value.empty())
        builder.add(StringId::kExtraRequestHeader, h->value, name);
    if (ex.response_buffer != nullptr)
      for (const std::string& name : fields->response_headers)
        if (const http::Header* h = ex.response.headers.find(name); h != nullptr && !h->value.empty())
          builder.add(StringId::kExtraResponseHeader, h->value, name);
    if (const http::HeaderTable* trailers = response_trailers(ex); trailers != nullptr)
      for (const std::string& name : fields->response_trailers)
        if (const http::Header* h = trailers->find(name); h != nullptr && !h->value.empty())
          builder.add(StringId::kExtraResponseTrailer, h->value, name);
  }
  const std::span<uint8_t> out = ctx_.events->reserve(builder.size());
  if (out.empty()) {
    ctx_.stats->loop[stats::LoopCounter::kEventsLost].add();
    return;
  }
  builder.write(out);
  ctx_.events->commit(builder.size());
  ctx_.stats->loop[stats::LoopCounter::kEventsWritten].add();
}

}  // namespace millrace::dataplane
