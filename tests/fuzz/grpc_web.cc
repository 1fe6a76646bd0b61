// gRPC-Web's base64, both ways, in any pieces: what is decoded does not depend on where the input or the output was cut, and
// what is encoded decodes to what it was.
#include "lib/http/grpc_web.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "tests/fuzz/require.h"

namespace {

using namespace millrace;

// The first bytes say how large the pieces are, over and over.
struct Pieces {
  base::ByteSpan sizes;
  size_t at = 0;
  size_t next(size_t least) { return least + (sizes.empty() ? 0 : sizes[at++ % sizes.size()]); }
};

struct Decoded {
  std::string bytes;
  bool bad = false, complete = false;
};

Decoded decode(base::ByteSpan in, Pieces pieces) {
  Decoded d;
  http::Base64Decoder decoder;
  uint8_t out[300];
  while (!in.empty() && !d.bad) {
    const size_t n = std::min(in.size(), pieces.next(1));
    const http::CodedStep s = decoder.step(in.first(n), std::span(out).first(pieces.next(3)));
    FUZZ_REQUIRE(s.consumed <= n);
    FUZZ_REQUIRE(s.consumed != 0 || s.bad);
    d.bytes.append(reinterpret_cast<const char*>(out), s.produced);
    d.bad = s.bad;
    in = in.subspan(s.consumed);
  }
  d.complete = decoder.complete();
  return d;
}

std::string encode(base::ByteSpan in, Pieces pieces) {
  std::string text;
  http::GrpcWebTextEncoder encoder;
  uint8_t out[300];
  while (!in.empty()) {
    const size_t n = std::min(in.size(), pieces.next(1));
    const http::CodedStep s =
        encoder.step(in.first(n), std::span(out).first(http::GrpcWebTextEncoder::kLeastOut + pieces.next(0)));
    FUZZ_REQUIRE(s.consumed != 0 && s.consumed <= n && !s.bad);
    text.append(reinterpret_cast<const char*>(out), s.produced);
    in = in.subspan(s.consumed);
  }
  text.append(reinterpret_cast<const char*>(out), encoder.finish(out));
  FUZZ_REQUIRE(encoder.finish(out) == 0);
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kSizes = 4;
  if (size < kSizes) return 0;
  const Pieces pieces{{data, kSizes}};
  const base::ByteSpan in(data + kSizes, size - kSizes);
  const Decoded whole = decode(in, {}), cut = decode(in, pieces);
  FUZZ_REQUIRE(whole.bad == cut.bad && whole.bytes == cut.bytes && whole.complete == cut.complete);
  if (!whole.bad && whole.complete) FUZZ_REQUIRE(in.size() % 4 == 0);

  const std::string text = encode(in, {});
  FUZZ_REQUIRE(text == encode(in, pieces));
  const Decoded back = decode({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, pieces);
  FUZZ_REQUIRE(!back.bad && back.complete && back.bytes == std::string(reinterpret_cast<const char*>(in.data()), in.size()));
  return 0;
}
