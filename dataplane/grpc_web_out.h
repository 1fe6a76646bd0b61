// Bodies of gRPC-Web on their way: each stands in front of a ConnectionOut, a StreamOut or an EncodedOut and has the same face,
// so that relay() need not know (http_relay.cc).
#pragma once

#include <algorithm>
#include <utility>

#include "dataplane/exchange.h"
#include "dataplane/exchange_filters.h"
#include "dataplane/worker_context.h"

namespace millrace::dataplane {

// What comes out of a coder gathers in packets, each a chunk where the body is chunked.
template <class Out>
struct Gathered {
  Out out;
  io::PacketPool pool;
  BodyRelay& body;
  uint64_t sent = 0;  // bytes
  bool failed = false;
  io::PacketPtr packet = {};  // being filled

  // `step` reads and writes as the coders of lib/http/grpc_web.h do; `least`: room that always lets it go on.
  template <class Step>
  bool code(base::ByteSpan bytes, uint32_t least, Step&& step) {
    while (!bytes.empty() && !failed) {
      if (packet && packet.tailroom() < least) emit();
      if (!packet) packet = pool.alloc();
      if (!packet) failed = true;
      if (failed) break;
      const http::CodedStep s = step(bytes, std::span<uint8_t>(packet.data() + packet.size(), packet.tailroom()));
      packet.append(static_cast<uint32_t>(s.produced));
      bytes = bytes.subspan(s.consumed);
      failed |= s.bad;
    }
    return !failed;
  }
  bool emit() {
    if (!packet || packet.size() == 0) return !failed;
    const uint32_t n = packet.size();
    bool whole = out.begin(body, n);
    out.write(std::exchange(packet, {}));
    whole = out.end(body) && whole;
    sent += n;
    failed |= !whole;
    return !failed;
  }
};

// Requests of application/grpc-web-text: base64 to bytes.
template <class Out>
struct Base64In {
  Gathered<Out> to;
  GrpcWeb& web;

  bool has_room() { return !to.failed && to.out.has_room(); }
  bool begin(const BodyRelay&, uint32_t) { return true; }
  void write(io::PacketPtr p) { copy(p.bytes()); }
  bool copy(base::ByteSpan bytes) {
    return to.code(bytes, 3, [&](base::ByteSpan in, std::span<uint8_t> out) {
      const http::CodedStep s = web.decoder.step(in, out);
      web.bad_base64 |= s.bad;
      return s;
    });
  }
  bool end(const BodyRelay&) { return !to.failed; }
  void moved() {
    to.emit();
    to.out.moved();
  }
  bool finish(BodyRelay& b, const http::HeaderTable* trailers, HeadBuffer*& buffer) {
    web.bad_base64 = web.bad_size = !web.decoder.complete();
    return !web.bad_base64 && to.emit() && to.out.finish(b, trailers, buffer);
  }
};

// Responses: as they are, or as base64; trailers become the last frame.
template <class Out>
struct GrpcWebOut {
  Gathered<Out> to;
  GrpcWeb& web;
  std::span<char> frame_buffer;  // where the frame of trailers is put together
  std::string_view grpc_status = {};

  bool has_room() { return !to.failed && to.out.has_room(); }
  bool begin(const BodyRelay& b, uint32_t n) { return web.text_response || to.out.begin(b, n); }
  void write(io::PacketPtr p) {
    if (web.text_response) {
      encode(p.bytes());
      return;
    }
    to.sent += p.size();
    to.out.write(std::move(p));
  }
  bool copy(base::ByteSpan bytes) {
    if (web.text_response) return encode(bytes);
    to.sent += bytes.size();
    return to.out.copy(bytes);
  }
  bool end(const BodyRelay& b) { return web.text_response ? !to.failed : to.out.end(b); }
  void moved() {
    to.emit();
    to.out.moved();
  }
  bool finish(BodyRelay& b, const http::HeaderTable* trailers, HeadBuffer*& buffer) {
    if (web.text_response) pad();
    if (trailers != nullptr && trailers->size() != 0) {
      grpc_status = trailers->get(http::HeaderId::kGrpcStatus);
      const size_t n = http::write_grpc_web_trailers(*trailers, frame_buffer);
      if (n > frame_buffer.size()) return false;
      const base::ByteSpan frame = base::as_bytes(std::string_view(frame_buffer.data(), n));
      if (web.text_response) encode(frame);
      else to.failed |= !(to.out.begin(b, static_cast<uint32_t>(n)) && copy(frame) && to.out.end(b));
    }
    return to.emit() && to.out.finish(b, nullptr, buffer);
  }

 private:
  bool encode(base::ByteSpan bytes) {
    return to.code(bytes, http::GrpcWebTextEncoder::kLeastOut,
                   [&](base::ByteSpan in, std::span<uint8_t> out) { return web.encoder.step(in, out); });
  }
  // A frame that the response did not end.
  void pad() {
    uint8_t last[http::GrpcWebTextEncoder::kLeastOut];
    const size_t n = web.encoder.finish(last);
    to.code({last, n}, sizeof last, [&](base::ByteSpan in, std::span<uint8_t> out) {
      std::copy(in.begin(), in.end(), out.begin());
      return http::CodedStep{in.size(), in.size(), false};
    });
  }
};

// The body of a response that is no gRPC: its first bytes are kept, the rest is read and forgotten.
struct MessageOut {
  GrpcWeb& web;
  HeadBufferPool& heads;

  bool has_room() { return true; }
  bool begin(const BodyRelay&, uint32_t) { return true; }
  void write(io::PacketPtr p) { copy(p.bytes()); }
  bool copy(base::ByteSpan bytes) {
    HeadBuffer*& m = web.message;
    if (m == nullptr) m = heads.acquire();
    while (m != nullptr && !bytes.empty()) {  // three times the bytes fit behind them, percent-encoded
      const uint32_t most = std::min(GrpcWeb::kMostMessage, m->capacity / 4);
      const size_t n = std::min<size_t>(bytes.size(), most - m->used);
      std::copy_n(bytes.begin(), n, m->data + m->used);
      m->used += static_cast<uint32_t>(n);
      bytes = bytes.subspan(n);
      if (bytes.empty() || most == GrpcWeb::kMostMessage) break;
      HeadBuffer* large = heads.grow(m);
      if (large == nullptr) break;  // a shorter message then
      m = large;
    }
    return true;
  }
  bool end(const BodyRelay&) { return true; }
  void moved() {}
  bool finish(BodyRelay&, const http::HeaderTable*, HeadBuffer*&) { return true; }
};

}  // namespace millrace::dataplane
