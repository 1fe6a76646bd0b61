// HTTP/1 message bodies: which framing a head means (RFC 9112 6.3) and a decoder that walks the byte stream packet by packet
// without copying: it only says which bytes at the front of a packet are framing and which are body, so that the body bytes can
// be forwarded by reference.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lib/base/bytes.h"
#include "lib/http/h1_parser.h"
#include "lib/http/message.h"

namespace millrace::http {

enum class Framing : uint8_t {
  kNone,           // the message ends with its head
  kContentLength,  // `length` bytes, maybe 0 (which is not the same as no content-length)
  kChunked,
  kUntilClose,  // responses only: the upstream's close ends it
  kTunnel,      // after 101 or a 2xx to CONNECT, and after such a request: bytes both ways until close
};
struct BodyFraming {
  Framing kind = Framing::kNone;
  uint64_t length = 0;  // kContentLength

  bool empty() const { return kind == Framing::kNone || (kind == Framing::kContentLength && length == 0); }
};

// Of a head that parse_request_head accepted (so nothing can be wrong with it); call it before forward.h removes what it reads.
// CONNECT and an upgrade are kTunnel: the bytes that follow must wait until the upstream has agreed (101, or 2xx to CONNECT).
// Sent on earlier they would be the next request for an upstream that does not know the upgrade: a smuggled one.
BodyFraming request_framing(const RequestHead& head);
// The same for the body that an upgrade request may have in front of what follows the upgrade.
BodyFraming content_framing(const RequestHead& head);
// Of a head that parse_response_head accepted. `request_method` as sent; `upgrade_requested`: is_upgrade() of the request, since
// a 101 nobody asked for has no body (the session had better treat it as a protocol error). 1xx, 204, 304 and answers to HEAD:
// kNone.
BodyFraming response_framing(const ResponseHead& head, std::string_view request_method, bool upgrade_requested);

// Longest chunk-size line: digits (leading zeros too), extensions and blanks, without CRLF.
inline constexpr uint32_t kMaxChunkLineBytes = 4096;

struct TrailerLimits {
  uint32_t max_bytes = 60 * 1024;
  uint32_t max_count = 100;
};

enum class BodyStatus : uint8_t {
  kMore,  // not over: call again with what follows
  kDone,  // the message is over: what follows belongs to the next message
  kBad,   // step.error says why
};

class BodyDecoder {
 public:
  // Begins a message. Trailers are checked and dropped unless lend_trailers() was called after start().
  void start(BodyFraming framing, const TrailerLimits& limits = {});

  // Trailer fields are wanted: their bytes are copied to `bytes` (they may be spread over packets; at most bytes.size()) and
  // appear in *table, whose storage the caller set. Both must live until kDone and as long as the fields are read.
  void lend_trailers(std::span<char> bytes, HeaderTable* table);

  struct Step {
    uint32_t skip = 0;  // bytes at the front that are framing: not forwarded
    uint32_t data = 0;  // bytes behind them that are body: forwarded
    BodyStatus status = BodyStatus::kMore;
    H1Error error = H1Error::kNone;
  };
  // Looks at the next bytes of the stream, in order. skip + data <= in.size(); the rest (in.subspan(skip + data)) is for the next
  // call (kMore) or the next message (kDone). With kMore and skip + data == in.size() everything was used; with kMore otherwise
  // call again at once. Always makes progress on a non-empty span. An empty message is kDone on the first call, also with an
  // empty span.
  Step step(base::ByteSpan in) {
    if (state_ != State::kData) return any_step(in);
    // A span holds a packet or two; the counters of Step are 32 bits.
    return data_step(0, in.size() < UINT32_MAX ? static_cast<uint32_t>(in.size()) : UINT32_MAX);
  }

  // The peer closed (FIN). True when that is a legal end (kUntilClose, kTunnel, or already done); else the message was cut short.
  bool finish() {
    return state_ == State::kFinished || framing_.kind == Framing::kUntilClose || framing_.kind == Framing::kTunnel;
  }

  bool done() const { return state_ == State::kFinished; }
  BodyFraming framing() const { return framing_; }
  // Body bytes handed out so far (without framing): BYTES_RECEIVED/BYTES_SENT of the access log.
  uint64_t body_bytes() const { return body_bytes_; }
  // Body bytes known to come still: of content-length, or of the current chunk.
  uint64_t remaining() const { return remaining_; }

 private:
  enum class State : uint8_t {
    kData,
    kChunkSizeFirst,
    kChunkSize,
    kChunkSizeBlank,
    kChunkExtension,
    kChunkSizeLf,
    kChunkDataCr,
    kChunkDataLf,
    kTrailer,
    kFinished,
    kBroken
  };
  Step any_step(base::ByteSpan in);
  // kData with n bytes left behind the `skip` ones.
  Step data_step(uint32_t skip, uint32_t n) {
    const uint32_t data = remaining_ < n ? static_cast<uint32_t>(remaining_) : n;
    body_bytes_ += data;
    if (framing_.kind == Framing::kUntilClose || framing_.kind == Framing::kTunnel)
      return {skip, data, BodyStatus::kMore, H1Error::kNone};
    remaining_ -= data;
    if (remaining_ != 0) return {skip, data, BodyStatus::kMore, H1Error::kNone};
    state_ = framing_.kind == Framing::kContentLength ? State::kFinished : State::kChunkDataCr;
    return {skip, data, state_ == State::kFinished ? BodyStatus::kDone : BodyStatus::kMore, H1Error::kNone};
  }
  Step fail(H1Error e, uint32_t skip);
  H1Error trailer_byte(char c);

  BodyFraming framing_;
  TrailerLimits limits_;
  State state_ = State::kFinished;
  H1Error error_ = H1Error::kNone;  // kBroken: why, told again at every further step
  uint8_t trailer_state_ = 0;       // where in a trailer line the checker is
  uint32_t line_bytes_ = 0;         // of the chunk-size line so far
  uint32_t trailer_bytes_ = 0;
  uint64_t remaining_ = 0;
  uint64_t body_bytes_ = 0;
  std::span<char> trailer_storage_;
  HeaderTable* trailers_ = nullptr;
};

}  // namespace millrace::http
