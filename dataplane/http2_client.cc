#include "dataplane/http2_client.h"

#include <algorithm>
#include <memory>

#include "dataplane/http_proxy.h"

namespace millrace::dataplane {

using stats::ClusterCounter;

bool Http2ClientSession::lend(http::H2Stream& stream, bool trailers, http::H2HeadStorage* storage) {
  auto& s = static_cast<Http2ClientStream&>(stream);
  Exchange& ex = *s.exchange;
  if (trailers && ex.response_body.drop_trailers) return false;
  HeadBuffer*& buffer = trailers ? s.trailer_buffer : ex.response_buffer;
  if (buffer == nullptr) buffer = client->ctx_.heads.acquire();
  if (buffer == nullptr) return false;
  if (!trailers && ex.first_upstream_byte_at == 0) ex.first_upstream_byte_at = client->ctx_.now;
  // Behind the head stays room for what forwarding adds.
  *storage = {{buffer->data, buffer->capacity - http::kForwardScratchBytes * 4},
              buffer->headers,
              buffer->header_capacity - http::kForwardedHeaders};
  return true;
}

bool Http2ClientSession::grow(http::H2Stream& stream, http::H2HeadStorage* storage) {
  Exchange& ex = *static_cast<Http2ClientStream&>(stream).exchange;
  HeadBuffer* large =
      client->ctx_.heads.grow(ex.response_buffer);  // the small one's memory stays as it is until it is lent again
  if (large == nullptr) return false;
  ex.response_buffer = large;
  *storage = {{large->data, HeadBufferPool::kMaxHeadBytes}, large->headers, large->header_capacity - http::kForwardedHeaders};
  return true;
}

Http2Client::Http2Client(WorkerContext& context, HttpProxy& proxy, Upstreams& upstreams, base::Arena* arena)
    : ctx_(context),
      proxy_(proxy),
      upstreams_(upstreams),
      context_(arena, context.stack.pool()),
      sessions_(context.limits.http2_connections),
      streams_(context.limits.exchanges) {}

Http2Client::~Http2Client() {
  for (uint32_t i = 0; i < sessions_.ever_used(); ++i)
    if (sessions_.lent(i)) stop(*sessions_[i].upstream);
}

bool Http2Client::start(UpstreamSession& u) {
  Http2ClientSession* h = sessions_.alloc();
  if (h == nullptr) return false;
  std::destroy_at(h);
  std::construct_at(h);
  h->stream_buffer = std::min<uint64_t>(kStreamBufferBytes, tcp::profile(u.connection->tcb)->config.snd_buf);
  const ClusterState& c = *u.endpoint->cluster;
  if (!h->connection.start(context_, http::H2Role::kClient, c.http2, *h)) {
    sessions_.free(h);
    return false;
  }
  h->client = this;
  h->upstream = &u;
  h->idle_since = ctx_.now;
  h->keepalive.start(c.keepalive, ctx_.now, ctx_.random.next());
  u.h2 = h;
  mark(*h);
  return true;
}

void Http2Client::stop(UpstreamSession& u) {
  Http2ClientSession& h = *u.h2;
  while (Http2ClientStream* s = h.streams.front()) release(*s);
  h.connection.stop();
  h.dirty.unlink();
  h.paused.unlink();
  u.h2 = nullptr;
  sessions_.free(&h);
}

uint32_t Http2Client::room(const UpstreamSession& u) const {
  const Http2ClientSession& h = *u.h2;
  if (h.draining || h.ended || u.context != u.endpoint->cluster->context) return 0;  // the last: another TLS configuration's
  const uint32_t room = h.connection.may_open();
  if (h.connection.settings_received()) return room;
  const uint32_t told = u.endpoint->streams_told, open = h.connection.open_streams();
  return std::min(room, told > open ? told - open : 0);
}

void Http2Client::open(UpstreamSession& u, Exchange& ex) {
  Http2ClientSession& h = *u.h2;
  Http2ClientStream* s = streams_.alloc();
  MILLRACE_ASSERT(s != nullptr, "there are as many streams as exchanges");
  std::destroy_at(s);
  std::construct_at(s);
  s->session = &h;
  s->exchange = &ex;
  s->guessed = !h.connection.settings_received();
  h.streams.push_back(*s);
  ex.upstream_stream = s;
  const KeepaliveOptions& k = u.endpoint->cluster->keepalive;
  if (h.keepalive.wanted_before_stream(k, ctx_.now) && h.connection.ping()) h.keepalive.sent(k, ctx_.now);
  mark(h);
}

void Http2Client::release(Http2ClientStream& s) {
  Http2ClientSession& h = *s.session;
  Exchange& ex = *s.exchange;
  h.connection.release(s);
  ex.upstream_stream = nullptr;
  if (ex.response_phase == ResponsePhase::kComplete && s.trailers_complete && s.trailer_buffer != nullptr) {
    ex.response_body.trailers =
        std::exchange(s.trailer_buffer, nullptr);  // a client of HTTP/1 had the text: what is left is logged
    ex.response_body.trailer_table = s.trailers;
  }
  ctx_.heads.release(std::exchange(s.trailer_buffer, nullptr));
  if (s.request_trailer_buffer != nullptr) [[unlikely]]
    proxy_.keep_trailers(ex, std::exchange(s.request_trailer_buffer, nullptr), s.request_trailer_table);
  s.link.unlink();
  streams_.free(&s);
  if (h.streams.empty()) h.idle_since = ctx_.now;
  mark(h);
}

void Http2Client::drain(UpstreamSession& u) {
  u.h2->draining = true;
  mark(*u.h2);
}

bool Http2Client::has_room(Http2ClientStream& s) {
  const uint64_t most = s.session->stream_buffer;
  if (s.tx.bytes() < most) return true;
  s.tx_wanted_below = most / 2;
  return false;
}

bool Http2Client::write_head(Http2ClientStream& s, const http::RequestHead& head, bool end) {
  mark(*s.session);
  return s.session->connection.submit_request(s, head, end);
}

Http2Client::Allowed Http2Client::extended_connect(Http2ClientStream& s) {
  const http::H2Connection& c = s.session->connection;
  s.waits_for_settings = !c.settings_received();
  if (s.waits_for_settings) return Allowed::kUnknown;
  return c.peer_takes_extended_connect() ? Allowed::kYes : Allowed::kNo;
}

void Http2Client::written(Http2ClientStream& s, bool end, HeadBuffer* trailers, const http::HeaderTable* table) {
  if (end) {
    s.tx_end = true;
    s.request_trailer_buffer = trailers;
    if (table != nullptr) {
      s.request_trailer_table = *table;
      s.tx_trailers = &s.request_trailer_table;
    }
  }
  s.session->connection.resume(s);
  mark(*s.session);
}

void Http2Client::consumed(Http2ClientStream& s, uint64_t bytes) {
  if (bytes == 0) return;
  s.session->connection.consumed(s, bytes);
  mark(*s.session);
}

// ---- in -------------------------------------------------------------------------------------------------------------------

// `last`: the endpoint is gone, so that nothing is put off.
void Http2Client::receive(Http2ClientSession& h, bool last) {
  UpstreamSession& u = *h.upstream;
  io::PacketQueue& rx = ctx_.transports.rx(u);
  if (rx.empty()) return;
  // What slow clients leave unread is memory: when that is short, such a connection is read no further for now.
  if (!last && h.connection.unread() > kHeldUnderPressureBytes && ctx_.stack.memory_pressure() != MemoryPressure::kNone) {
    if (!h.paused.linked()) paused_.push_back(h);
    return;
  }
  StageScope stage(ctx_.stages, Stage::kHttpParse);
  const bool unsettled = !h.connection.settings_received();
  do {
    h.connection.receive(rx, ctx_.now);
    rx.clear();  // only a connection that is over leaves something
  } while (ctx_.transports.after_read(u, ctx_.now) && !rx.empty());
  h.keepalive.heard(u.endpoint->cluster->keepalive, ctx_.now, h.connection.counters().ping_acks_rx, ctx_.random.next());
  if (!unsettled || !h.connection.settings_received()) return;
  upstreams_.settled(u);
  for (Http2ClientStream* s = h.streams.front(); s != nullptr;) {
    Http2ClientStream* next = h.streams.next(*s);
    if (std::exchange(s->waits_for_settings, false)) proxy_.on_upstream_ready(*s->exchange);  // may be the end of it
    s = next;
  }
}

void Http2Client::on_ready(UpstreamSession& u, uint32_t events) {
  Http2ClientSession& h = *u.h2;
  mark(h);
  if (h.ended) return;
  const bool reset = (events & (tcp::kEventReset | tcp::kEventTimedOut)) != 0;
  bool failed = false;
  if (reset) {
    u.peer_closed = u.fin_received = true;
  } else {
    if (events & tcp::kEventSendSpace) ctx_.transports.on_send_space(u, ctx_.now);
    if (events & (tcp::kEventReadable | tcp::kEventPeerFin)) failed = ctx_.transports.pull(u, events, ctx_.now).failed;
  }
  const bool over = failed || u.peer_closed;
  receive(h, over);
  process_ready(h);
  if (!over || h.ended) return;
  // Streams whose response is complete are in order; the others hear how it ended.
  if (h.connection.open_streams() != 0) upstreams_.count(*u.endpoint, ClusterCounter::kCxDestroyRemoteActiveRq);
  end(h, reset ? UpstreamFailure::kReset : UpstreamFailure::kClosed, reset || failed);
}

void Http2Client::process_ready(Http2ClientSession& h) {
  while (auto* s = static_cast<Http2ClientStream*>(h.connection.pop_ready())) on_stream(*s);
}

void Http2Client::on_stream(Http2ClientStream& s) {
  Exchange& ex = *s.exchange;
  // 100, 102, 103: not forwarded (proxy_100_continue is off).
  if (s.informational) s.informational = s.head_complete = false;
  if (s.closed && !s.rx_end) return fail(s);  // also a head that came: Envoy's router drops it with the reset
  if (s.head_complete && !s.begun) {
    s.begun = true;
    proxy_.on_upstream_head(ex);
    if (ex.upstream_stream != &s) return;
  }
  proxy_.on_upstream_writable(ex);
  if (ex.upstream_stream != &s) return;
  proxy_.relay_response(ex);
  if (ex.upstream_stream != &s || !s.closed) return;
  if (s.error != http::H2Error::kNone && !s.begun) return fail(s);
  if (!ex.tunnel_open || ex.response_phase != ResponsePhase::kComplete) return;
  if (ex.request_phase == RequestPhase::kComplete) return proxy_.tunnel_over(ex);
  fail(s);  // nobody takes what the client still says
}

UpstreamFailure Http2Client::failure_of(const Http2ClientStream& s) {
  using http::H2Error;
  switch (s.error) {
    case H2Error::kNone:
    case H2Error::kLocalReset:
      return s.session->failure;
    case H2Error::kRemoteReset:  // Envoy: one for PROTOCOL_ERROR is the protocol's
      return s.peer_code == http::H2Code::kProtocolError ? UpstreamFailure::kProtocol : UpstreamFailure::kStreamReset;
    case H2Error::kRemoteRefused:
    case H2Error::kGoAway:
      return UpstreamFailure::kStreamRefused;
    case H2Error::kRefused:
    case H2Error::kNoMemory:
      return UpstreamFailure::kNoRoom;
    default:
      return UpstreamFailure::kProtocol;
  }
}

// The stream is over and its response is not.
void Http2Client::fail(Http2ClientStream& s) {
  Exchange& ex = *s.exchange;
  const bool unprocessed = s.error == http::H2Error::kGoAway || (s.error == http::H2Error::kRemoteRefused && s.guessed);
  if (unprocessed && upstreams_.try_again(ex)) return;
  const UpstreamFailure failure = failure_of(s);
  if (s.error == http::H2Error::kRemoteReset || failure == UpstreamFailure::kStreamRefused)
    upstreams_.count(*s.session->upstream->endpoint, ClusterCounter::kRqRxReset);
  proxy_.on_upstream_failed(ex, failure);
}

// Nothing more will come over this connection, or go.
void Http2Client::end(Http2ClientSession& h, UpstreamFailure failure, bool reset) {
  h.ended = true;
  h.failure = failure;
  h.reset = reset;
  h.paused.unlink();
  mark(h);
  for (Http2ClientStream* s = h.streams.front(); s != nullptr;) {
    Http2ClientStream* next = h.streams.next(*s);
    if (!s->begun || !s->rx_end) fail(*s);
    s = next;
  }
}

// ---- out ------------------------------------------------------------------------------------------------------------------

void Http2Client::on_timer(UpstreamSession& u) {
  Http2ClientSession& h = *u.h2;
  mark(h);
  if (h.ended) return;
  const ClusterState& c = *u.endpoint->cluster;
  switch (h.keepalive.due(ctx_.now)) {
    case Keepalive::Due::kDead:
      upstreams_.count(*u.endpoint, ClusterCounter::kCxKeepaliveTimeout);
      return end(h, UpstreamFailure::kClosed, true);
    case Keepalive::Due::kPing:
      if (h.connection.ping()) h.keepalive.sent(c.keepalive, ctx_.now);
      break;
    case Keepalive::Due::kNothing:
      break;
  }
  if (!h.streams.empty() || ctx_.now < deadline_after(h.idle_since, c.idle_timeout_ms)) return;
  upstreams_.count(*u.endpoint, ClusterCounter::kCxIdleTimeout);
  h.draining = true;
}

void Http2Client::flush() {
  if (!paused_.empty() && ctx_.stack.memory_pressure() == MemoryPressure::kNone) [[unlikely]] {
    while (Http2ClientSession* h = paused_.pop_front()) {
      receive(*h, false);
      process_ready(*h);
      mark(*h);
    }
  }
  // Those that get dirty meanwhile wait for the next iteration.
  base::List<Http2ClientSession, &Http2ClientSession::dirty> now;
  now.splice_back(dirty_);
  while (Http2ClientSession* h = now.pop_front()) flush(*h);
}

void Http2Client::flush(Http2ClientSession& h) {
  UpstreamSession& u = *h.upstream;
  StageScope stage(ctx_.stages, Stage::kHttpWrite);
  while (!h.ended) {
    bool wrote = false;
    if (const uint64_t space = ctx_.transports.tx_space(u); space != 0) {
      io::PacketQueue out;
      h.connection.produce(out, space);
      wrote = !out.empty();
      while (io::PacketPtr p = out.pop()) ctx_.transports.write(u, std::move(p), ctx_.now);
    }
    process_ready(h);
    if (const http::H2Error e = h.connection.error(); e != http::H2Error::kNone) {
      const bool ours = e == http::H2Error::kNoMemory;
      if (!ours) upstreams_.count(*u.endpoint, ClusterCounter::kCxProtocolError);
      end(h, ours ? UpstreamFailure::kNoRoom : UpstreamFailure::kProtocol, false);
      break;
    }
    if (!upstreams_.feed(u) && !wrote) break;
  }
  settle(h);
}

void Http2Client::settle(Http2ClientSession& h) {
  UpstreamSession& u = *h.upstream;
  EndpointPool& e = *u.endpoint;
  if (h.streams.empty() && (h.ended || h.draining || e.retired || u.context != e.cluster->context || h.connection.going_away())) {
    const bool reset = h.reset;
    return upstreams_.close_session(u, reset);
  }
  h.dirty.unlink();
  upstreams_.offer(u);
  const TimeNs idle = h.streams.empty() ? deadline_after(h.idle_since, e.cluster->idle_timeout_ms) : base::kNever;
  ctx_.arm(u.timer, h.ended ? base::kNever : std::min(idle, h.keepalive.deadline()));
}

}  // namespace millrace::dataplane
