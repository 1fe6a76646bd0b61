// The way of a response's body through its encoder: stands in front of a ConnectionOut or a StreamOut of http_relay.cc and has
// the same face, so that relay() need not know. What comes out is gathered in packets, each of them a chunk where the body is
// chunked.
#pragma once

#include <utility>

#include "dataplane/exchange.h"
#include "dataplane/response_compression.h"
#include "lib/io/packet_queue.h"

namespace millrace::dataplane {

template <class Out>
struct EncodedOut {
  Out out;
  ResponseCompression& state;
  io::PacketPool pool;
  BodyRelay& body;
  const io::PacketQueue* in;  // where the body comes from; null: all of it is given at once
  uint64_t sent = 0;          // bytes that came out
  io::PacketPtr packet;       // being filled

  // How relay() sees it.
  bool spent() const { return state.turn_bytes >= kEncodedPerTurn; }
  bool has_room() { return !spent() && out.has_room(); }
  bool begin(const BodyRelay&, uint32_t) { return true; }
  void write(io::PacketPtr p) { copy(p.bytes()); }
  bool copy(base::ByteSpan bytes) {
    state.turn_bytes += static_cast<uint32_t>(bytes.size());
    state.since_flush += static_cast<uint32_t>(bytes.size());
    state.unflushed = true;
    const bool block = state.since_flush >= kEncodedPerFlush && state.encoder->codec() != compress::Codec::kGzip;
    return encode(bytes, block ? compress::Directive::kFlush : compress::Directive::kMore);
  }
  bool end(const BodyRelay&) { return !state.failed; }
  void moved() {
    if (state.streaming && state.unflushed && in->empty()) encode({}, compress::Directive::kFlush);
    emit();
    out.moved();
  }
  bool finish(BodyRelay& b, const http::HeaderTable* trailers, HeadBuffer*& buffer) {
    return encode({}, compress::Directive::kFinish) && emit() && out.finish(b, trailers, buffer);
  }

  bool encode(base::ByteSpan bytes, compress::Directive directive) {
    compress::Step step;
    while (!step.done && !state.failed) {
      if (packet && packet.tailroom() < compress::Encoder::kLeastOut) emit();
      if (!packet) packet = pool.alloc();
      if (!packet) {
        state.failed = true;
        break;
      }
      step = state.encoder->step(bytes, {packet.data() + packet.size(), packet.tailroom()}, directive);
      if (step.produced != 0) packet.append(static_cast<uint32_t>(step.produced));
      bytes = bytes.subspan(step.consumed);
      state.failed |= step.failed;
    }
    if (directive != compress::Directive::kMore) {
      state.unflushed = false;
      state.since_flush = 0;
    }
    return !state.failed;
  }
  // What has gathered goes.
  bool emit() {
    if (!packet || packet.size() == 0) return !state.failed;
    const uint32_t n = packet.size();
    bool whole = out.begin(body, n);
    out.write(std::exchange(packet, {}));
    whole = out.end(body) && whole;
    sent += n;
    state.failed |= !whole;
    return !state.failed;
  }
};

}  // namespace millrace::dataplane
