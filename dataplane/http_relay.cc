// Bodies: from one connection's received bytes to another's send queue, by reference where whole packets pass, with back-pressure
// from the slower side (what cannot be written stays in rx(), and closes the peer's window).
#include "dataplane/encoded_out.h"
#include "dataplane/exchange_filters.h"
#include "dataplane/grpc_web_out.h"
#include "dataplane/http_proxy.h"
#include "lib/http/h1_writer.h"

namespace millrace::dataplane {

namespace {
// Room that must be free before a run of body bytes is moved: the run itself may overshoot by less than a packet, its chunk
// framing may not.
constexpr uint64_t kMinSpace = 256;
}  // namespace

void HttpProxy::start_body(BodyRelay& body, http::BodyFraming in, bool chunked_out, bool trailers) {
  body.chunked_out = chunked_out;
  body.decoder.start(in);
  if (in.empty()) {
    body.decoder.step({});
    return;
  }
  if (!trailers || in.kind != http::Framing::kChunked) return;
  body.trailers = ctx_.heads.acquire();
  if (body.trailers == nullptr) return;  // trailers are dropped, as without the option
  body.trailer_table = http::HeaderTable(body.trailers->headers, body.trailers->header_capacity);
  body.decoder.lend_trailers({body.trailers->data, body.trailers->capacity}, &body.trailer_table);
}

void HttpProxy::free_body(BodyRelay& body) {
  ctx_.heads.release(body.trailers);
  body.trailers = nullptr;
}

namespace {

// Where a body comes from, and where it goes: a connection of HTTP/1 or a stream of HTTP/2. relay() is made once for each pair.

struct ConnectionIn {
  WorkerContext& ctx;
  Session& from;
  http::BodyDecoder& decoder;
  io::PacketQueue& queue() { return ctx.transports.rx(from); }
  bool done() const { return decoder.done(); }
  http::BodyDecoder::Step step(base::ByteSpan front) { return decoder.step(front); }
  bool over() const { return from.peer_closed; }  // nothing more will come
  bool finish() { return decoder.finish(); }      // ... and that is a legal end
  void taken(uint64_t) { ctx.transports.after_read(from, ctx.now); }
  HeadBuffer*& trailer_buffer(BodyRelay& body) { return body.trailers; }  // where their text lies
};

// Side: Http2Server, of clients' streams, or Http2Client, of endpoints'.
template <class Side>
struct StreamIn {
  Side& side;
  typename Side::Stream& from;
  io::PacketQueue& queue() { return from.rx; }
  bool done() const { return from.rx_end && from.rx.empty(); }
  http::BodyDecoder::Step step(base::ByteSpan front) {
    return {0, static_cast<uint32_t>(front.size()), http::BodyStatus::kMore, http::H1Error::kNone};
  }
  bool over() const { return from.closed; }
  bool finish() { return from.rx_end; }
  void taken(uint64_t bytes) { side.consumed(from, bytes); }
  HeadBuffer*& trailer_buffer(BodyRelay&) { return from.trailer_buffer; }
};

struct ConnectionOut {
  WorkerContext& ctx;
  Session& to;
  bool has_room() { return ctx.transports.tx_space(to) >= kMinSpace; }
  bool begin(const BodyRelay& body, uint32_t data) {
    if (!body.chunked_out) return true;
    char chunk[http::kMaxChunkHeaderBytes];
    const size_t n = http::write_chunk_header(data, chunk);
    return ctx.transports.write_copy(to, std::string_view(chunk, n), ctx.now) == n;
  }
  void write(io::PacketPtr p) { ctx.transports.write(to, std::move(p), ctx.now); }
  bool copy(base::ByteSpan bytes) { return ctx.transports.write_copy(to, bytes, ctx.now) == bytes.size(); }
  bool end(const BodyRelay& body) {
    return !body.chunked_out || ctx.transports.write_copy(to, http::kChunkEnd, ctx.now) == http::kChunkEnd.size();
  }
  void moved() {}
  bool finish(BodyRelay& body, const http::HeaderTable* trailers, HeadBuffer*&) {
    if (!body.chunked_out) return true;
    if (trailers == nullptr || trailers->size() == 0)
      return ctx.transports.write_copy(to, http::kLastChunk, ctx.now) == http::kLastChunk.size();
    const size_t n = http::write_last_chunk(*trailers, ctx.write_buffer);
    return n <= ctx.write_buffer.size() && ctx.transports.write_copy(to, {ctx.write_buffer.data(), n}, ctx.now) == n;
  }
};

template <class Side>
struct StreamOut {
  Side& side;
  typename Side::Stream& to;
  io::PacketPool& pool;
  bool has_room() { return side.has_room(to); }
  bool begin(const BodyRelay&, uint32_t) { return true; }
  void write(io::PacketPtr p) { side.write(to, std::move(p)); }
  bool copy(base::ByteSpan bytes) { return to.tx.append_copy(bytes, pool) == bytes.size(); }
  bool end(const BodyRelay&) { return true; }
  void moved() { side.written(to, false); }
  bool finish(BodyRelay&, const http::HeaderTable* trailers, HeadBuffer*& buffer) {
    const bool has = trailers != nullptr && trailers->size() != 0;
    side.written(to, true, has ? std::exchange(buffer, nullptr) : nullptr, has ? trailers : nullptr);
    return true;
  }
};

// In front of another way out: what goes is kept for a retry as well.
template <class Out>
struct KeepingOut {
  Out out;
  HttpProxy& proxy;
  Exchange& ex;
  bool has_room() { return out.has_room(); }
  bool begin(const BodyRelay& body, uint32_t data) { return out.begin(body, data); }
  void write(io::PacketPtr p) {
    proxy.keep(ex, &p, p.bytes());
    out.write(std::move(p));
  }
  bool copy(base::ByteSpan bytes) {
    proxy.keep(ex, nullptr, bytes);
    return out.copy(bytes);
  }
  bool end(const BodyRelay& body) { return out.end(body); }
  void moved() { out.moved(); }
  bool finish(BodyRelay& body, const http::HeaderTable* trailers, HeadBuffer*& buffer) {
    return out.finish(body, trailers, buffer);
  }
};

// There is no endpoint now: a retry waits, and what comes meanwhile is only kept.
struct Nowhere {
  bool has_room() { return true; }
  bool begin(const BodyRelay&, uint32_t) { return true; }
  void write(io::PacketPtr) {}
  bool copy(base::ByteSpan) { return true; }
  bool end(const BodyRelay&) { return true; }
  void moved() {}
  bool finish(BodyRelay&, const http::HeaderTable*, HeadBuffer*&) { return true; }
};

// The trailers that came with the body, if any are kept.
const http::HeaderTable* trailers_of(const ConnectionIn&, const BodyRelay& body) {
  return body.trailers != nullptr ? &body.trailer_table : nullptr;
}
template <class Side>
const http::HeaderTable* trailers_of(const StreamIn<Side>& in, const BodyRelay& body) {
  return in.from.trailers_complete && !body.drop_trailers ? &in.from.trailers : nullptr;
}

}  // namespace

template <class In, class Out>
HttpProxy::RelayEnd HttpProxy::relay(In from, Out to, BodyRelay& body, uint64_t* bytes) {
  StageScope stage(ctx_.stages, Stage::kRelay);
  io::PacketQueue& in = from.queue();
  RelayEnd end;
  bool moved = false;
  uint64_t taken = 0;
  while (!from.done()) {
    const base::ByteSpan front = in.front();
    if (front.empty()) {
      if (from.over()) end.status = from.finish() ? Relay::kDone : Relay::kCut;
      break;
    }
    if (!to.has_room()) break;
    const http::BodyDecoder::Step step = from.step(front);
    moved = true;
    if (step.skip != 0) in.consume(step.skip);
    if (step.data != 0) {
      bool whole = to.begin(body, step.data);
      if (step.data == in.front().size()) {
        to.write(in.pop());
      } else {
        whole = whole && to.copy(in.front().first(step.data));
        in.consume(step.data);
      }
      whole = whole && to.end(body);
      *bytes += step.data;
      taken += step.data;
      if (!whole) {  // packet memory is spent in the middle of a message: it cannot be completed
        end.status = Relay::kCut;
        from.taken(taken);
        return end;
      }
    }
    if (step.status == http::BodyStatus::kBad) {
      end = {Relay::kBad, step.error};
      break;
    }
  }
  if (moved) {
    from.taken(taken);
    to.moved();
  }
  if (end.status == Relay::kBlocked && from.done()) end.status = Relay::kDone;
  if (end.status == Relay::kDone && !to.finish(body, trailers_of(from, body), from.trailer_buffer(body)))
    end.status = Relay::kCut;
  return end;
}

// The request will not be sent any more: what has come of its body is read, so that a request that is complete does not cost the
// client its connection.
void HttpProxy::discard_received_body(Exchange& ex) {
  if (ex.request_phase != RequestPhase::kBody || ex.stream != nullptr || ex.tunnel) return;
  io::PacketQueue& in = ctx_.transports.rx(*ex.downstream);
  http::BodyDecoder& decoder = ex.request_body.decoder;
  while (!decoder.done()) {
    const base::ByteSpan front = in.front();
    if (front.empty()) break;
    const http::BodyDecoder::Step step = decoder.step(front);
    in.consume(step.skip + step.data);
    ex.bytes_received += step.data;
    if (step.status == http::BodyStatus::kBad) break;
  }
  ctx_.transports.after_read(*ex.downstream, ctx_.now);
  if (decoder.done()) request_complete(ex);
}

template <class Out>
HttpProxy::RelayEnd HttpProxy::relay_from_client(Exchange& ex, Out out) {
  return ex.stream == nullptr
             ? relay<ConnectionIn, Out>({ctx_, *ex.downstream, ex.request_body.decoder}, out, ex.request_body, &ex.bytes_received)
             : relay<StreamIn<Http2Server>, Out>({http2_, *ex.stream}, out, ex.request_body, &ex.bytes_received);
}

void HttpProxy::relay_request(Exchange& ex) {
  if (ex.request_phase != RequestPhase::kBody) return;
  if (!ex.upstream_head_sent || ex.upstream == nullptr) [[unlikely]] {
    if (ex.retry == nullptr || !ex.retry->waits()) return;
  } else if (ex.unusual != 0) [[unlikely]] {
    if (ex.tunnel && !ex.tunnel_open &&
        (ex.request_body.decoder.done() || ex.request_body.decoder.framing().kind == http::Framing::kTunnel))
      return;
    if (ex.retry != nullptr && !ex.retry->caught_up()) return;  // relay_kept() comes back
  }
  DownstreamSession& d = *ex.downstream;
  const uint64_t before = ex.bytes_received;
  const auto go = [&](auto out) {
    if (is_grpc_web(ex) && ex.filters->grpc_web->text_request) [[unlikely]] {
      Base64In<decltype(out)> decoded{{out, ctx_.stack.pool(), ex.request_body}, *ex.filters->grpc_web};
      return relay_from_client<Base64In<decltype(out)>&>(ex, decoded);
    }
    return relay_from_client(ex, out);
  };
  const auto to = [&](auto out) {
    if (ex.retry != nullptr && ex.retry->may_retry()) [[unlikely]]
      return go(KeepingOut<decltype(out)>{out, *this, ex});
    return go(out);
  };
  const RelayEnd end = ex.upstream == nullptr ? to(Nowhere{})
                       : ex.upstream_stream == nullptr
                           ? to(ConnectionOut{ctx_, *ex.upstream})
                           : to(StreamOut<Http2Client>{upstreams_.http2(), *ex.upstream_stream, ctx_.stack.pool()});
  if (ex.bytes_received != before) ex.last_activity = ctx_.now;
  if (ex.upstream == nullptr && ex.retry->given_up) [[unlikely]]
    return reply(ex, http::LocalReply::kRetryBufferLimit);
  switch (end.status) {
    case Relay::kBlocked:
      return;
    case Relay::kDone:
      if (ex.tunnel) return tunnel_request_over(ex);
      return request_complete(ex);
    case Relay::kBad: {
      ctx_.stats->http[stats::HttpCounter::kBadChunk].add();
      ex.flags.set(stats::ResponseFlag::kDownstreamProtocolError);
      ex.detail_text = http::info(end.error).details;
      if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
      upstreams_.cancel(ex);
      return reply_with(ex, http::info(end.error).status, http::reason_phrase(http::info(end.error).status),
                        http::ResponseDetail::kH1CodecError, true);
    }
    case Relay::kCut:
      if (is_grpc_web(ex) && ex.filters->grpc_web->bad_base64) [[unlikely]]
        return refuse_base64(ex);
      if (ex.stream != nullptr ? ex.stream->closed : d.peer_closed)
        return;  // the client went in the middle of its body: on_downstream ends it
      ex.flags.set(stats::ResponseFlag::kOverloadManager);
      if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
      upstreams_.cancel(ex);
      return reply(ex, http::LocalReply::kOverload);
  }
}

// What is kept of the request, to the endpoint of this attempt. False: packet memory is spent in the middle of it.
template <class Out>
bool HttpProxy::send_kept(Exchange& ex, Out out) {
  StageScope stage(ctx_.stages, Stage::kRelay);
  RetryState& r = *ex.retry;
  io::PacketPool pool = ctx_.stack.pool();
  bool whole = true, moved = false;
  for (; whole && !r.caught_up() && out.has_room(); ++r.sent, moved = true) {
    io::PacketPtr packet = r.body.packet(r.sent, pool);
    const base::ByteSpan bytes = r.body.piece(r.sent);
    whole = out.begin(ex.request_body, static_cast<uint32_t>(bytes.size()));
    if (packet) out.write(std::move(packet));
    else whole = whole && out.copy(bytes);
    whole = whole && out.end(ex.request_body);
  }
  if (moved) out.moved();
  if (!whole || !r.caught_up() || r.body_ended || ex.request_phase != RequestPhase::kComplete) return whole;
  r.body_ended = true;
  const http::HeaderTable* trailers = nullptr;
  HeadBuffer** buffer = &ex.request_body.trailers;
  if (r.trailers != nullptr) trailers = &r.trailer_table, buffer = &r.trailers;
  else if (ex.stream == nullptr) trailers = ex.request_body.trailers != nullptr ? &ex.request_body.trailer_table : nullptr;
  else if (ex.stream->trailers_complete && !ex.request_body.drop_trailers)
    trailers = &ex.stream->trailers, buffer = &ex.stream->trailer_buffer;
  return out.finish(ex.request_body, trailers, *buffer);
}

// Of an attempt: first what is kept, then what else comes.
void HttpProxy::relay_kept(Exchange& ex) {
  if (!ex.upstream_head_sent || ex.upstream == nullptr) return;
  if (RetryState& r = *ex.retry; !r.caught_up() || !r.body_ended) {
    const bool whole = ex.upstream_stream == nullptr
                           ? send_kept(ex, ConnectionOut{ctx_, *ex.upstream})
                           : send_kept(ex, StreamOut<Http2Client>{upstreams_.http2(), *ex.upstream_stream, ctx_.stack.pool()});
    if (!whole) {
      ex.flags.set(stats::ResponseFlag::kOverloadManager);
      if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
      upstreams_.cancel(ex);
      return reply(ex, http::LocalReply::kOverload);
    }
    ex.last_activity = ctx_.now;
    if (!r.caught_up()) return;
  }
  relay_request(ex);
}

// Through the encoder to `out`. bytes_sent is what comes out of it.
template <class In, class Out>
HttpProxy::RelayEnd HttpProxy::relay_encoded(Exchange& ex, In in, Out out) {
  ResponseCompression& c = *ex.filters->compression;
  stats::ScopeBlock& counters = ctx_.stats.scope(c.slot);
  uint64_t plain = 0, ignored = 0;
  if (std::exchange(c.turn_at, ctx_.now) != ctx_.now) c.turn_bytes = 0;
  EncodedOut<Out> encoded{out, c, ctx_.stack.pool(), ex.response_body, &in.queue()};
  RelayEnd end = is_grpc_web(ex) ? relay_grpc_web<In, EncodedOut<Out>&>(ex, in, encoded, &plain, &ignored)
                                 : relay<In, EncodedOut<Out>&>(in, encoded, ex.response_body, &plain);
  ex.bytes_sent += encoded.sent;
  counters[stats::CompressorCounter::kUncompressedBytes].add(plain);
  counters[stats::CompressorCounter::kCompressedBytes].add(encoded.sent);
  if (plain != 0) ex.last_activity = ctx_.now;
  if (c.failed && (end.status == Relay::kBlocked || end.status == Relay::kDone)) end.status = Relay::kCut;
  if (end.status == Relay::kBlocked && encoded.spent() && !c.more.linked()) encoding_.push_back(c);
  return end;
}

// Through the gRPC-Web filter to `out`. `came`, `went`: bytes, which are added.
template <class In, class Out>
HttpProxy::RelayEnd HttpProxy::relay_grpc_web(Exchange& ex, In in, Out out, uint64_t* came, uint64_t* went) {
  GrpcWebOut<Out> web{{out, ctx_.stack.pool(), ex.response_body}, *ex.filters->grpc_web, ctx_.write_buffer};
  RelayEnd end = relay<In, GrpcWebOut<Out>&>(in, web, ex.response_body, came);
  if (web.to.failed && (end.status == Relay::kBlocked || end.status == Relay::kDone)) end.status = Relay::kCut;
  *went += web.to.sent;
  count_grpc_web(ex, web.grpc_status);
  return end;
}

template <class In>
HttpProxy::RelayEnd HttpProxy::relay_filtered(Exchange& ex, In in) {
  uint64_t came = 0;
  if (is_grpc_web(ex) && ex.filters->grpc_web->gathering) {
    const RelayEnd end = relay(in, MessageOut{*ex.filters->grpc_web, ctx_.heads}, ex.response_body, &came);
    if (came != 0) ex.last_activity = ctx_.now;
    return end;
  }
  const auto through = [&](auto out) {
    using Out = decltype(out);
    if (encodes(ex)) return relay_encoded<In, Out>(ex, in, out);
    if (!is_grpc_web(ex)) return relay<In, Out>(in, out, ex.response_body, &ex.bytes_sent);
    const RelayEnd end = relay_grpc_web<In, Out>(ex, in, out, &came, &ex.bytes_sent);
    if (came != 0) ex.last_activity = ctx_.now;
    return end;
  };
  return ex.stream == nullptr ? through(ConnectionOut{ctx_, *ex.downstream})
                              : through(StreamOut<Http2Server>{http2_, *ex.stream, ctx_.stack.pool()});
}

// The whole of an answer of our own. False: it cannot be completed.
bool HttpProxy::write_encoded(Exchange& ex, std::string_view body) {
  stats::ScopeBlock& counters = ctx_.stats.scope(ex.filters->compression->slot);
  const auto through = [&](auto out) {
    EncodedOut<decltype(out)> encoded{out, *ex.filters->compression, ctx_.stack.pool(), ex.response_body, nullptr};
    HeadBuffer* no_trailers = nullptr;
    const bool whole = encoded.copy(base::as_bytes(body)) && encoded.finish(ex.response_body, nullptr, no_trailers);
    ex.bytes_sent += encoded.sent;
    counters[stats::CompressorCounter::kUncompressedBytes].add(body.size());
    counters[stats::CompressorCounter::kCompressedBytes].add(encoded.sent);
    return whole;
  };
  return ex.stream == nullptr ? through(ConnectionOut{ctx_, *ex.downstream})
                              : through(StreamOut<Http2Server>{http2_, *ex.stream, ctx_.stack.pool()});
}

void HttpProxy::relay_response(Exchange& ex) {
  if (ex.response_phase != ResponsePhase::kBody || ex.upstream == nullptr) return;
  const uint64_t before = ex.bytes_sent;
  const auto from = [&](auto in) {
    if (ex.filters != nullptr) [[unlikely]]
      return relay_filtered(ex, in);
    return ex.stream == nullptr
               ? relay(in, ConnectionOut{ctx_, *ex.downstream}, ex.response_body, &ex.bytes_sent)
               : relay(in, StreamOut<Http2Server>{http2_, *ex.stream, ctx_.stack.pool()}, ex.response_body, &ex.bytes_sent);
  };
  const RelayEnd end = ex.upstream_stream == nullptr ? from(ConnectionIn{ctx_, *ex.upstream, ex.response_body.decoder})
                                                     : from(StreamIn<Http2Client>{upstreams_.http2(), *ex.upstream_stream});
  if (ex.bytes_sent != before) ex.last_activity = ctx_.now;
  switch (end.status) {
    case Relay::kBlocked:
      return;
    case Relay::kDone:
      if (ex.tunnel_open) return tunnel_response_over(ex);
      if (is_grpc_web(ex) && ex.filters->grpc_web->gathering) [[unlikely]]
        return finish_gathered(ex);
      return response_complete(ex);
    case Relay::kBad:
      ex.flags.set(stats::ResponseFlag::kUpstreamProtocolError);
      ex.detail = http::ResponseDetail::kResetAfterResponseProtocolError;
      return cut_response(ex);
    case Relay::kCut:
      if (const Http2ClientStream* s = ex.upstream_stream; s != nullptr && s->closed && !s->rx_end)
        return on_upstream_failed(ex, Http2Client::failure_of(*s));
      if (ex.upstream_stream != nullptr || !ex.upstream->peer_closed) {
        ex.flags.set(stats::ResponseFlag::kOverloadManager);
        return cut_response(ex);
      }
      return on_upstream_failed(ex, UpstreamFailure::kClosed);
  }
}

}  // namespace millrace::dataplane
