#include "dataplane/http2_server.h"

#include <algorithm>
#include <memory>

#include "dataplane/http_proxy.h"

namespace millrace::dataplane {

using stats::HcmCounter;
using stats::HttpCounter;

http::H2Stream* Http2Session::open_stream() {
  Http2Server& s = *server;
  Http2Stream* stream = s.streams_.alloc();
  if (stream == nullptr) return nullptr;
  std::destroy_at(stream);
  std::construct_at(stream);
  stream->session = this;
  streams.push_back(*stream);
  return stream;
}

bool Http2Session::lend(http::H2Stream& stream, bool trailers, http::H2HeadStorage* storage) {
  auto& s = static_cast<Http2Stream&>(stream);
  HeadBuffer*& buffer = trailers ? s.trailer_buffer : s.head;
  if (buffer == nullptr) buffer = server->ctx_.heads.acquire();
  if (buffer == nullptr) return false;
  if (!trailers) head_since = server->ctx_.now;
  // Behind the head stays room for what forwarding adds.
  *storage = {{buffer->data, buffer->capacity - http::kForwardScratchBytes * 4},
              buffer->headers,
              buffer->header_capacity - http::kForwardedHeaders};
  return true;
}

bool Http2Session::grow(http::H2Stream& stream, http::H2HeadStorage* storage) {
  auto& s = static_cast<Http2Stream&>(stream);
  if (s.head == nullptr) return false;
  HeadBuffer* large = server->ctx_.heads.grow(s.head);  // the small one's memory stays as it is until it is lent again
  if (large == nullptr) return false;
  s.head = large;
  *storage = {{large->data, HeadBufferPool::kMaxHeadBytes}, large->headers, large->header_capacity - http::kForwardedHeaders};
  return true;
}

Http2Server::Http2Server(WorkerContext& context, HttpProxy& proxy, Downstreams& downstreams, base::Arena* arena)
    : ctx_(context),
      proxy_(proxy),
      downstreams_(downstreams),
      context_(arena, context.stack.pool()),
      sessions_(context.limits.http2_connections),
      streams_(context.limits.exchanges) {}

Http2Server::~Http2Server() {
  for (uint32_t i = 0; i < sessions_.ever_used(); ++i) {
    if (!sessions_.lent(i)) continue;
    Http2Session& h = sessions_[i];
    while (Http2Stream* s = h.streams.front()) free_stream(*s);
    h.connection.stop();
    sessions_.free(&h);
  }
}

bool Http2Server::start(DownstreamSession& d) {
  Http2Session* h = sessions_.alloc();
  if (h != nullptr) {
    std::destroy_at(h);
    std::construct_at(h);
    h->stream_buffer = std::min<uint64_t>(kStreamBufferBytes, tcp::profile(d.connection->tcb)->config.snd_buf);
    if (!h->connection.start(context_, http::H2Role::kServer, d.policy->http.h2_options(), *h)) {
      sessions_.free(h);
      h = nullptr;
    }
  }
  if (h == nullptr) {
    ctx_.stats->flag(stats::ResponseFlag::kOverloadManager);
    downstreams_.close(d, 0);
    return false;
  }
  h->server = this;
  h->downstream = &d;
  h->keepalive.start(d.policy->http.keepalive, ctx_.now, ctx_.random.next());
  d.phase = DownstreamPhase::kHttp2;
  d.h2 = h;
  ctx_.arm(d.timer, deadline_after(ctx_.now, d.policy->http.idle_timeout_ms));
  mark(*h);
  on_downstream(d, 0);
  return true;
}

void Http2Server::on_downstream(DownstreamSession& d, uint32_t events) {
  if (events & (tcp::kEventReset | tcp::kEventTimedOut)) return gone(d, true);
  Http2Session& h = *d.h2;
  if (events & tcp::kEventSendSpace) ctx_.transports.on_send_space(d, ctx_.now);
  proxy_.refresh_policy(d);
  if (d.draining) drain(h);
  receive(h, d.peer_closed);
  process_ready(h);
  mark(h);
  if (d.peer_closed) gone(d, false);
}

// `last`: the client will send no more, so that nothing is put off.
void Http2Server::receive(Http2Session& h, bool last) {
  DownstreamSession& d = *h.downstream;
  io::PacketQueue& rx = ctx_.transports.rx(d);
  if (rx.empty()) return;
  // What slow endpoints leave unread is memory: when that is short, such a connection is read no further for now.
  if (!last && h.connection.unread() > kHeldUnderPressureBytes && ctx_.stack.memory_pressure() != MemoryPressure::kNone) {
    if (!h.paused.linked()) paused_.push_back(h);
    return;
  }
  StageScope stage(ctx_.stages, Stage::kHttpParse);
  do {
    h.connection.receive(rx, ctx_.now);
    rx.clear();  // only a connection that is over leaves something
  } while (ctx_.transports.after_read(d, ctx_.now) && !rx.empty());
  h.keepalive.heard(d.policy->http.keepalive, ctx_.now, h.connection.counters().ping_acks_rx, ctx_.random.next());
}

void Http2Server::process_ready(Http2Session& h) {
  while (auto* s = static_cast<Http2Stream*>(h.connection.pop_ready())) on_stream(*s);
}

void Http2Server::on_stream(Http2Stream& s) {
  if (!s.begun) {
    if (s.closed) return is_malformed(s) ? refuse(s) : free_stream(s);
    if (!s.head_complete) return;
    return begin(s);
  }
  if (s.exchange == nullptr) {
    if (s.closed) return free_stream(s);
    // Nobody reads what still comes of an answered request.
    consumed(s, s.rx.bytes());
    s.rx.clear();
    return;
  }
  if (s.closed && !(s.rx_end && s.error == http::H2Error::kNone)) return proxy_.stream_gone(*s.exchange);
  Exchange* ex = s.exchange;
  proxy_.relay_request(*ex);
  if (s.exchange == ex) proxy_.relay_response(*ex);
}

// A request that is none: nothing of it is looked at, but it is counted and logged, as Envoy's.
void Http2Server::refuse(Http2Stream& s) {
  Http2Session& h = *s.session;
  s.closed = s.begun = true;
  h.head_since = base::kNever;
  HeadBuffer* head = s.head != nullptr ? std::exchange(s.head, nullptr) : ctx_.heads.acquire();
  if (head == nullptr) return free_stream(s);
  head->used = head->head_length = 0;
  s.request = {};
  s.protocol = {};
  h.downstream->head_started = ctx_.now;
  Exchange* ex = proxy_.begin_stream(*h.downstream, s, head);
  if (ex == nullptr) return free_stream(s);
  proxy_.stream_gone(*ex);  // frees it
}

void Http2Server::begin(Http2Stream& s) {
  s.begun = true;
  Http2Session& h = *s.session;
  h.head_since = base::kNever;
  DownstreamSession& d = *h.downstream;
  HeadBuffer* head = std::exchange(s.head, nullptr);
  head->used = head->head_length = s.head_bytes_used();
  d.head_started = ctx_.now;
  Exchange* ex = proxy_.begin_stream(d, s, head);
  if (ex == nullptr) {  // no exchange left: the client may try again
    h.connection.reset(s, http::H2Code::kRefusedStream);
    return free_stream(s);
  }
  if (d.policy->http.max_requests_per_connection != 0 && d.requests >= d.policy->http.max_requests_per_connection) {
    if (!h.draining) ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxMaxRequests].add();
    drain(h);
  }
  proxy_.route(*ex);
  if (s.exchange == ex) proxy_.relay_request(*ex);
}

bool Http2Server::has_room(Http2Stream& s) {
  const uint64_t most = s.session->stream_buffer;
  if (s.tx.bytes() < most) return true;
  s.tx_wanted_below = most / 2;
  return false;
}

bool Http2Server::write_head(Http2Stream& s, const http::ResponseHead& head, bool end) {
  mark(*s.session);
  return s.session->connection.submit_response(s, head, end);
}

void Http2Server::written(Http2Stream& s, bool end, HeadBuffer* trailers, const http::HeaderTable* table) {
  if (end) {
    s.tx_end = true;
    s.response_trailer_buffer = trailers;
    if (table != nullptr) {
      s.response_trailer_table = *table;
      s.tx_trailers = &s.response_trailer_table;
    }
  }
  s.session->connection.resume(s);
  mark(*s.session);
}

void Http2Server::consumed(Http2Stream& s, uint64_t bytes) {
  if (bytes == 0) return;
  s.session->connection.consumed(s, bytes);
  mark(*s.session);
}

void Http2Server::exchange_over(Http2Stream& s, bool cut, http::H2Code code) {
  s.exchange = nullptr;
  Http2Session& h = *s.session;
  mark(h);
  if (s.closed) return free_stream(s);
  if (cut) {
    h.connection.reset(s, code);
    return free_stream(s);
  }
  consumed(s, s.rx.bytes());
  s.rx.clear();
  if (!s.rx_end) h.early.push_back(s);
  if (!s.tx_ended) {
    s.stalled_since = ctx_.now;
    s.stalled_tx_bytes = s.tx_bytes;
    h.stalled.push_back(s);
  }
}

void Http2Server::free_stream(Http2Stream& s) {
  Http2Session& h = *s.session;
  h.connection.release(s);
  ctx_.heads.release(std::exchange(s.head, nullptr));
  ctx_.heads.release(std::exchange(s.trailer_buffer, nullptr));
  ctx_.heads.release(std::exchange(s.response_trailer_buffer, nullptr));
  s.link.unlink();
  s.early.unlink();
  s.stalled.unlink();
  if (!s.begun) h.head_since = base::kNever;
  streams_.free(&s);
  mark(h);
}

// RFC 9113 6.8: the client is told at once, and streams it had on the way are served for drain_timeout yet.
void Http2Server::drain(Http2Session& h) {
  if (h.draining) return;
  h.draining = true;
  h.connection.notice();
  h.goaway_at = deadline_after(ctx_.now, h.downstream->policy->http.drain_timeout_ms);
  if (h.goaway_at == base::kNever) h.goaway_at = ctx_.now;
  mark(h);
}

void Http2Server::on_timer(DownstreamSession& d) {
  Http2Session& h = *d.h2;
  mark(h);
  if (ctx_.now >= h.goaway_at) {
    h.goaway_at = base::kNever;
    return h.connection.goaway(http::H2Code::kNoError);
  }
  switch (h.keepalive.due(ctx_.now)) {
    case Keepalive::Due::kDead:
      ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxKeepaliveTimeout].add();
      return gone(d, true);
    case Keepalive::Due::kPing:
      if (h.connection.ping()) h.keepalive.sent(d.policy->http.keepalive, ctx_.now);
      return;
    case Keepalive::Due::kNothing:
      break;
  }
  if (!h.draining && proxy_.outlived(d)) return drain(h);
  if (ctx_.now >= head_deadline(h)) {  // nothing else can come on this connection before the rest of the head
    const bool idle = ctx_.now < deadline_after(h.head_since, d.policy->http.request_headers_timeout_ms);
    ctx_.stats.scope(d.policy->http.stat_slot)[idle ? HcmCounter::kRqIdleTimeout : HcmCounter::kRqHeaderTimeout].add();
    return h.connection.goaway(http::H2Code::kEnhanceYourCalm);
  }
  reset_stalled(h);
  if (ctx_.now < h.idle_at) return;
  ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxIdleTimeout].add();
  drain(h);
}

TimeNs Http2Server::head_deadline(const Http2Session& h) const {
  if (h.head_since == base::kNever) return base::kNever;
  const HttpPolicy& p = h.downstream->policy->http;
  return std::min(deadline_after(h.head_since, p.request_headers_timeout_ms),
                  deadline_after(h.head_since, p.stream_idle_timeout_ms));
}

// Answers that nobody reads: Envoy's stream idle timeout holds until the last byte is framed.
void Http2Server::reset_stalled(Http2Session& h) {
  const uint32_t most_ms = h.downstream->policy->http.stream_idle_timeout_ms;
  for (Http2Stream* s = h.stalled.front(); s != nullptr; s = h.stalled.front()) {
    if (ctx_.now < deadline_after(s->stalled_since, most_ms)) return;
    s->stalled.unlink();
    if (s->tx_ended || s->closed) continue;
    if (s->tx_bytes != s->stalled_tx_bytes) {
      s->stalled_since = ctx_.now;
      s->stalled_tx_bytes = s->tx_bytes;
      h.stalled.push_back(*s);
      continue;
    }
    ctx_.stats.scope(h.downstream->policy->http.stat_slot)[HcmCounter::kRqIdleTimeout].add();
    h.connection.reset(*s, http::H2Code::kCancel);
    free_stream(*s);
  }
}

void Http2Server::flush() {
  if (!paused_.empty() && ctx_.stack.memory_pressure() == MemoryPressure::kNone) [[unlikely]] {
    while (Http2Session* h = paused_.pop_front()) {
      receive(*h, false);
      process_ready(*h);
      mark(*h);
    }
  }
  // Those that get dirty meanwhile wait for the next iteration.
  base::List<Http2Session, &Http2Session::dirty> now;
  now.splice_back(dirty_);
  while (Http2Session* h = now.pop_front()) {
    if (flush(*h)) settle(*h);
  }
}

// False: the session is gone.
bool Http2Server::flush(Http2Session& h) {
  DownstreamSession& d = *h.downstream;
  StageScope stage(ctx_.stages, Stage::kHttpWrite);
  while (true) {
    const uint64_t space = ctx_.transports.tx_space(d);
    if (space == 0) break;
    io::PacketQueue out;
    h.connection.produce(out, space);
    const bool wrote = !out.empty();
    while (io::PacketPtr p = out.pop()) ctx_.transports.write(d, std::move(p), ctx_.now);
    // RFC 9113 8.1: answered before the request was complete; what still comes is not wanted.
    while (Http2Stream* s = h.early.front()) {
      s->early.unlink();
      if (s->rx_end || s->closed) continue;
      if (!s->tx_ended) {
        h.early.push_front(*s);
        break;
      }
      h.connection.reset(*s, http::H2Code::kNoError);
      free_stream(*s);
    }
    if (h.connection.error() != http::H2Error::kNone) {
      ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxProtocolError].add();
      close(h, false);
      return false;
    }
    process_ready(h);
    if (!wrote) break;
  }
  h.dirty.unlink();
  if (h.connection.finished() && h.streams.empty()) {
    close(h, false);
    return false;
  }
  return true;
}

// The idle timeout runs from when there is no stream (what else the client says, such as PING, does not count).
void Http2Server::settle(Http2Session& h) {
  DownstreamSession& d = *h.downstream;
  if (!h.streams.empty() || h.draining) h.idle_at = base::kNever;
  else if (h.idle_at == base::kNever) h.idle_at = deadline_after(ctx_.now, d.policy->http.idle_timeout_ms);
  const TimeNs outlives = h.draining ? base::kNever : proxy_.outlives_at(d);
  const Http2Stream* oldest = h.stalled.front();
  const TimeNs stalled =
      oldest == nullptr ? base::kNever : deadline_after(oldest->stalled_since, d.policy->http.stream_idle_timeout_ms);
  ctx_.arm(d.timer, std::min({h.idle_at, h.goaway_at, h.keepalive.deadline(), outlives, stalled, head_deadline(h)}));
}

void Http2Server::gone(DownstreamSession& d, bool reset) { close(*d.h2, reset); }

void Http2Server::close(Http2Session& h, bool reset) {
  DownstreamSession& d = *h.downstream;
  const bool failed = h.connection.error() != http::H2Error::kNone;
  bool active = false;
  while (Http2Stream* s = h.streams.front()) {
    if (s->exchange != nullptr) {
      active = true;
      s->closed = true;
      if (failed && s->error == http::H2Error::kNone) s->error = h.connection.error();
      proxy_.stream_gone(*s->exchange);  // frees it
    } else if (!s->begun && is_malformed(*s)) {
      refuse(*s);
    } else {
      free_stream(*s);
    }
  }
  if (active)
    ctx_.stats
        .scope(d.policy->http.stat_slot)[failed ? HcmCounter::kCxDestroyLocalActiveRq : HcmCounter::kCxDestroyRemoteActiveRq]
        .add();
  h.connection.stop();
  h.dirty.unlink();
  h.paused.unlink();
  d.h2 = nullptr;
  sessions_.free(&h);
  if (reset) downstreams_.abort(d);
  else downstreams_.close(d, failed ? d.policy->http.delayed_close_timeout_ms : 0);
}

}  // namespace millrace::dataplane
