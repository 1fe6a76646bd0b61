#include "lib/http/h1_body.h"

#include <algorithm>

#include "lib/http/connection.h"
#include "lib/http/h1_scan.h"

namespace millrace::http {

namespace {

// The parser has checked that it is a number of 63 bits, and kept it.
template <class Head>
uint64_t length_of(const Head& head) {
  if (head.content_length != kLengthNotRead) return head.content_length;
  uint64_t n = 0;
  for (char c : head.headers.get(HeaderId::kContentLength)) n = n * 10 + static_cast<uint64_t>(c - '0');
  return n;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Where in a trailer line the next byte is.
enum TrailerState : uint8_t { kLineStart, kName, kValue, kValueCr, kEndCr };

}  // namespace

BodyFraming request_framing(const RequestHead& head) {
  if (is_connect(head) || is_upgrade(head.headers)) return {Framing::kTunnel, 0};
  return content_framing(head);
}

BodyFraming content_framing(const RequestHead& head) {
  if (head.headers.has(HeaderId::kTransferEncoding)) return {Framing::kChunked, 0};
  if (head.headers.has(HeaderId::kContentLength)) return {Framing::kContentLength, length_of(head)};
  return {Framing::kNone, 0};
}

BodyFraming response_framing(const ResponseHead& head, std::string_view request_method, bool upgrade_requested) {
  if (head.status == 101 && upgrade_requested) return {Framing::kTunnel, 0};
  if (is_text(request_method, "CONNECT") && head.status >= 200 && head.status < 300)
    return {Framing::kTunnel, 0};  // RFC 9112 6.3 (2)
  if (is_text(request_method, "HEAD") || head.status < 200 || head.status == 204 || head.status == 304)
    return {Framing::kNone, 0};                                                                       // (1)
  if (head.headers.has(HeaderId::kTransferEncoding)) return {Framing::kChunked, 0};                   // (4)
  if (head.headers.has(HeaderId::kContentLength)) return {Framing::kContentLength, length_of(head)};  // (6)
  return {Framing::kUntilClose, 0};                                                                   // (8)
}

void BodyDecoder::start(BodyFraming framing, const TrailerLimits& limits) {
  *this = BodyDecoder{};
  framing_ = framing;
  limits_ = limits;
  switch (framing.kind) {
    case Framing::kNone:
      state_ = State::kFinished;
      break;
    case Framing::kContentLength:
      remaining_ = framing.length;
      state_ = framing.length == 0 ? State::kFinished : State::kData;
      break;
    case Framing::kChunked:
      state_ = State::kChunkSizeFirst;
      break;
    case Framing::kUntilClose:
    case Framing::kTunnel:
      remaining_ = UINT64_MAX;
      state_ = State::kData;
      break;
  }
}

void BodyDecoder::lend_trailers(std::span<char> bytes, HeaderTable* table) {
  MILLRACE_ASSERT(trailer_bytes_ == 0, "trailer storage is lent before the trailer section begins");
  trailer_storage_ = bytes;
  trailers_ = table;
}

BodyDecoder::Step BodyDecoder::fail(H1Error e, uint32_t skip) {
  state_ = State::kBroken;
  error_ = e;
  return {skip, 0, BodyStatus::kBad, e};
}

// One byte of the trailer section (RFC 9112 7.1.2: field lines, each ended by CRLF, and an empty line). kNone: go on, or, when
// state_ became kFinished, the section is over.
H1Error BodyDecoder::trailer_byte(char c) {
  if (++trailer_bytes_ > limits_.max_bytes) return H1Error::kTrailersTooLarge;
  if (trailers_ != nullptr) {
    if (trailer_bytes_ > trailer_storage_.size()) return H1Error::kTrailersTooLarge;
    trailer_storage_[trailer_bytes_ - 1] = c;
  }
  const uint8_t u = static_cast<uint8_t>(c);
  const bool control = (u < 0x20 && c != '\t' && c != '\r' && c != '\n') || u == 0x7f;
  if (control) return H1Error::kControlInTrailer;
  switch (trailer_state_) {
    case kLineStart:
      if (c == '\r') {
        trailer_state_ = kEndCr;
        return H1Error::kNone;
      }
      [[fallthrough]];
    case kName:
      if (c == ':' && trailer_state_ == kName) {
        trailer_state_ = kValue;
        return H1Error::kNone;
      }
      if (scan::kTokenLower[u] == 0) return H1Error::kBadTrailer;
      trailer_state_ = kName;
      return H1Error::kNone;
    case kValue:
      if (c == '\n') return H1Error::kBadTrailer;
      if (c == '\r') trailer_state_ = kValueCr;
      return H1Error::kNone;
    case kValueCr:
      if (c != '\n') return H1Error::kBadTrailer;
      trailer_state_ = kLineStart;
      return H1Error::kNone;
    default:  // kEndCr
      if (c != '\n') return H1Error::kBadTrailer;
      state_ = State::kFinished;
      if (trailers_ == nullptr) return H1Error::kNone;
      return parse_fields(trailer_storage_.first(trailer_bytes_), limits_.max_count, trailers_);
  }
}

BodyDecoder::Step BodyDecoder::any_step(base::ByteSpan in) {
  const char* const bytes = reinterpret_cast<const char*>(in.data());
  uint32_t i = 0;
  // A span holds a packet or two; the counters of Step are 32 bits.
  const uint32_t n = static_cast<uint32_t>(std::min<size_t>(in.size(), UINT32_MAX));
  for (;;) {
    if (state_ == State::kFinished) return {i, 0, BodyStatus::kDone, H1Error::kNone};
    if (state_ == State::kBroken) return {0, 0, BodyStatus::kBad, error_};
    if (i == n) return {i, 0, BodyStatus::kMore, H1Error::kNone};
    if (state_ == State::kData) return data_step(i, n - i);
    const char c = bytes[i];
    switch (state_) {
      case State::kChunkSizeFirst:
        line_bytes_ = 0;
        if (hex_digit(c) < 0) return fail(H1Error::kBadChunkSize, i);
        state_ = State::kChunkSize;
        [[fallthrough]];
      case State::kChunkSize: {
        if (c != '\r' && ++line_bytes_ > kMaxChunkLineBytes) return fail(H1Error::kBadChunkExtension, i);
        if (const int digit = hex_digit(c); digit >= 0) {
          if (remaining_ > (uint64_t{INT64_MAX} >> 4)) return fail(H1Error::kChunkSizeOverflow, i);
          remaining_ = remaining_ << 4 | static_cast<uint64_t>(digit);
        } else if (c == '\r') {
          state_ = State::kChunkSizeLf;
        } else if (c == ';') {
          state_ = State::kChunkExtension;
        } else if (c == ' ' || c == '\t') {
          state_ = State::kChunkSizeBlank;
        } else {
          return fail(H1Error::kBadChunkSize, i);
        }
        break;
      }
      case State::kChunkSizeBlank:  // BWS before ";" (7.1.1), or before CRLF, which Envoy takes too
        if (c != '\r' && ++line_bytes_ > kMaxChunkLineBytes) return fail(H1Error::kBadChunkExtension, i);
        if (c == '\r') {
          state_ = State::kChunkSizeLf;
        } else if (c == ';') {
          state_ = State::kChunkExtension;
        } else if (c != ' ' && c != '\t') {
          return fail(H1Error::kBadChunkExtension, i);
        }
        break;
      case State::kChunkExtension:
        if (c != '\r' && ++line_bytes_ > kMaxChunkLineBytes) return fail(H1Error::kBadChunkExtension, i);
        if (c == '\r') {
          state_ = State::kChunkSizeLf;
        } else if (!scan::is_value_byte(static_cast<uint8_t>(c))) {
          return fail(H1Error::kBadChunkExtension, i);
        }
        break;
      case State::kChunkSizeLf:
        if (c != '\n') return fail(H1Error::kBadChunkExtension, i);
        state_ = remaining_ == 0 ? State::kTrailer : State::kData;
        break;
      case State::kChunkDataCr:
        if (c != '\r') return fail(H1Error::kMissingChunkEnd, i);
        state_ = State::kChunkDataLf;
        break;
      case State::kChunkDataLf:
        if (c != '\n') return fail(H1Error::kMissingChunkEnd, i);
        state_ = State::kChunkSizeFirst;
        break;
      case State::kTrailer: {
        const H1Error e = trailer_byte(c);
        if (e != H1Error::kNone) return fail(e, i);
        break;
      }
      default:
        break;
    }
    ++i;
  }
}

}  // namespace millrace::http
