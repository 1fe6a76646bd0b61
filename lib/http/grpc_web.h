// gRPC-Web (github.com/grpc/grpc, doc/PROTOCOL-WEB.md) as functions over bytes: what a content-type asks for, base64 in and out
// in pieces of any size, the frame that carries trailers. Nothing allocates; nothing is kept but a few bytes of state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "lib/base/bytes.h"
#include "lib/http/message.h"
#include "lib/http/scratch.h"

namespace millrace::http {

inline constexpr std::string_view kGrpcType = "application/grpc", kGrpcWebProto = "application/grpc-web+proto",
                                  kGrpcWebTextProto = "application/grpc-web-text+proto";

enum class GrpcWebType : uint8_t { kNone, kBinary, kText };
// Of a request's content-type or accept: one of the four names, exactly (Envoy: GrpcWebFilter::isGrpcWebRequest).
GrpcWebType grpc_web_type(std::string_view value);
// Whether a response can be passed on as gRPC-Web: 200 and application/grpc, or already application/grpc-web (parameters
// ignored). `end`: no body follows, so that its grpc-status decides (Envoy: needsTransformationForNonProtoEncodedResponse).
bool is_grpc_web_response(const ResponseHead& head, bool end);

struct CodedStep {
  size_t consumed = 0, produced = 0;  // bytes
  bool bad = false;                   // the input is no base64; nothing more can be read
};

// Base64 (RFC 4648 4) to bytes. Padding may stand behind any group of four, since a stream may be several encodings one behind
// the other; bits that padding leaves over must be zero, as Envoy has it. A group is judged when it is whole.
class Base64Decoder {
 public:
  // Takes what fits: `out` of three bytes or more always lets it go on.
  CodedStep step(base::ByteSpan in, std::span<uint8_t> out);
  bool complete() const { return pending_ == 0; }  // the input may end here

 private:
  uint32_t bits_ = 0;    // of a group that has begun
  uint8_t pending_ = 0;  // characters of it, padding too
  uint8_t padding_ = 0;
  bool bad_ = false;  // something in it is no base64
};

// Frames of gRPC to base64, each an encoding of its own with its padding, as Envoy writes them; streamed, so that a frame need
// not be whole. A frame that ends early ends with finish().
class GrpcWebTextEncoder {
 public:
  static constexpr size_t kLeastOut = 8;  // of step() and finish(), to go on
  CodedStep step(base::ByteSpan in, std::span<uint8_t> out);
  size_t finish(std::span<uint8_t> out);  // what is left of a frame, padded; bytes written

 private:
  uint32_t group_ = 0;      // up to two bytes that wait for a third
  uint8_t grouped_ = 0;     // how many
  uint8_t head_bytes_ = 0;  // of the frame's head that have come: flags, four of length
  uint32_t left_ = 0;       // bytes of its message to come
};

// The frame of trailers: 0x80, length, "name:value\r\n" each. Bytes it needs; written only when they fit.
size_t write_grpc_web_trailers(const HeaderTable& trailers, std::span<char> out);

// The value of grpc-message for a text (gRPC over HTTP/2, "Status-Message"): percent-encoded. "" when the scratch has no room.
std::string_view grpc_message(std::string_view text, Scratch& scratch);

}  // namespace millrace::http
