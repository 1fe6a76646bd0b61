// Bodies: from one connection's received bytes to another's send queue, by reference where whole packets pass, with back-pressure
// from the slower side (what cannot be written stays in rx(), and closes the peer's window).
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
  if (!trailers || !chunked_out || in.kind != http::Framing::kChunked) return;
  body.trailers = ctx_.heads.acquire();
  if (body.trailers == nullptr) return;  // trailers are dropped, as without the option
  body.trailer_table = http::HeaderTable(body.trailers->headers, body.trailers->header_capacity);
  body.decoder.lend_trailers({body.trailers->data, body.trailers->capacity}, &body.trailer_table);
}

void HttpProxy::free_body(BodyRelay& body) {
  ctx_.heads.release(body.trailers);
  body.trailers = nullptr;
}

HttpProxy::RelayEnd HttpProxy::relay(Session& from, Session& to, BodyRelay& body, uint64_t* bytes) {
  StageScope stage(ctx_.stages, Stage::kRelay);
  Transports& t = ctx_.transports;
  io::PacketQueue& in = t.rx(from);
  RelayEnd end;
  bool moved = false;
  while (!body.decoder.done()) {
    const base::ByteSpan front = in.front();
    if (front.empty()) {
      if (from.peer_closed) end.status = body.decoder.finish() ? Relay::kDone : Relay::kCut;
      break;
    }
    if (t.tx_space(to) < kMinSpace) break;
    const http::BodyDecoder::Step step = body.decoder.step(front);
    moved = true;
    if (step.skip != 0) in.consume(step.skip);
    if (step.data != 0) {
      char chunk[http::kMaxChunkHeaderBytes];
      bool whole = true;
      if (body.chunked_out) {
        const size_t n = http::write_chunk_header(step.data, chunk);
        whole = t.write_copy(to, std::string_view(chunk, n), ctx_.now) == n;
      }
      if (step.data == in.front().size()) {
        t.write(to, in.pop(), ctx_.now);
      } else {
        whole = whole && t.write_copy(to, in.front().first(step.data), ctx_.now) == step.data;
        in.consume(step.data);
      }
      if (body.chunked_out) whole = whole && t.write_copy(to, http::kChunkEnd, ctx_.now) == http::kChunkEnd.size();
      *bytes += step.data;
      if (!whole) {  // packet memory is spent in the middle of a message: it cannot be completed
        end.status = Relay::kCut;
        t.after_read(from, ctx_.now);
        return end;
      }
    }
    if (step.status == http::BodyStatus::kBad) {
      end = {Relay::kBad, step.error};
      break;
    }
  }
  if (moved) t.after_read(from, ctx_.now);
  if (end.status == Relay::kBlocked && body.decoder.done()) end.status = Relay::kDone;
  if (end.status == Relay::kDone && body.chunked_out) {
    if (body.trailers != nullptr && body.trailer_table.size() != 0) {
      const size_t n = http::write_last_chunk(body.trailer_table, ctx_.write_buffer);
      if (n > ctx_.write_buffer.size() || t.write_copy(to, {ctx_.write_buffer.data(), n}, ctx_.now) != n)
        end.status = Relay::kCut;
    } else if (t.write_copy(to, http::kLastChunk, ctx_.now) != http::kLastChunk.size()) {
      end.status = Relay::kCut;
    }
  }
  return end;
}

// The request will not be sent any more: what has come of its body is read, so that a request that is complete does not cost the
// client its connection.
void HttpProxy::discard_received_body(Exchange& ex) {
  if (ex.request_phase != RequestPhase::kBody) return;
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

void HttpProxy::relay_request(Exchange& ex) {
  if (ex.request_phase != RequestPhase::kBody || !ex.upstream_head_sent || ex.upstream == nullptr) return;
  DownstreamSession& d = *ex.downstream;
  const uint64_t before = ex.bytes_received;
  const RelayEnd end = relay(d, *ex.upstream, ex.request_body, &ex.bytes_received);
  if (ex.bytes_received != before) ex.last_activity = ctx_.now;
  switch (end.status) {
    case Relay::kBlocked:
      return;
    case Relay::kDone:
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
      if (d.peer_closed) return;  // the client went in the middle of its body: on_downstream ends it
      ex.flags.set(stats::ResponseFlag::kOverloadManager);
      if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
      upstreams_.cancel(ex);
      return reply(ex, http::LocalReply::kOverload);
  }
}

void HttpProxy::relay_response(Exchange& ex) {
  if (ex.response_phase != ResponsePhase::kBody || ex.upstream == nullptr) return;
  const uint64_t before = ex.bytes_sent;
  const RelayEnd end = relay(*ex.upstream, *ex.downstream, ex.response_body, &ex.bytes_sent);
  if (ex.bytes_sent != before) ex.last_activity = ctx_.now;
  switch (end.status) {
    case Relay::kBlocked:
      return;
    case Relay::kDone:
      return response_complete(ex);
    case Relay::kBad:
      ex.flags.set(stats::ResponseFlag::kUpstreamProtocolError);
      ex.detail = http::ResponseDetail::kResetAfterResponseProtocolError;
      return cut_response(ex);
    case Relay::kCut:
      if (!ex.upstream->peer_closed) {
        ex.flags.set(stats::ResponseFlag::kOverloadManager);
        return cut_response(ex);
      }
      return on_upstream_failed(ex, UpstreamFailure::kClosed);
  }
}

}  // namespace millrace::dataplane
