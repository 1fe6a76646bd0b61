// A body: fed whole and byte by byte gives the same bytes, end, trailers and verdict. The first byte of the input says which
// framing.
#include "lib/http/h1_body.h"

#include <algorithm>
#include <string>
#include <vector>

#include "tests/fuzz/require.h"

using namespace millrace;
using namespace millrace::http;

namespace {

struct Decoded {
  BodyStatus status = BodyStatus::kMore;
  H1Error error = H1Error::kNone;
  std::string body, trailers;
  size_t used = 0;
  bool operator==(const Decoded&) const = default;
};

Decoded decode(base::ByteSpan in, BodyFraming framing, bool want_trailers, size_t piece) {
  Decoded d;
  BodyDecoder decoder;
  Header storage[8];
  HeaderTable table(storage, 8);
  std::vector<char> memory(256);
  decoder.start(framing, {512, 8});
  if (want_trailers) decoder.lend_trailers(memory, &table);
  d.status = decoder.step({}).status;
  while (d.status == BodyStatus::kMore && d.used < in.size()) {
    const base::ByteSpan next = in.subspan(d.used, std::min(piece, in.size() - d.used));
    const std::vector<uint8_t> copy(next.begin(), next.end());  // exactly as long as it says
    const BodyDecoder::Step s = decoder.step(copy);
    FUZZ_REQUIRE(s.skip + s.data <= copy.size() && (s.status != BodyStatus::kMore || s.skip + s.data != 0));
    d.body.append(reinterpret_cast<const char*>(copy.data()) + s.skip, s.data);
    d.used += s.skip + s.data;
    d.status = s.status;
    d.error = s.error;
  }
  FUZZ_REQUIRE(decoder.done() == (d.status == BodyStatus::kDone));
  FUZZ_REQUIRE(decoder.body_bytes() == d.body.size());
  for (const Header& h : table) d.trailers += std::string(h.name) + ":" + std::string(h.value) + "\n";
  return d;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  BodyFraming framing{Framing::kChunked, 0};
  if (data[0] % 8 == 1) framing = {Framing::kContentLength, data[0]};
  if (data[0] % 8 == 2) framing = {Framing::kUntilClose, 0};
  if (data[0] % 8 == 3) framing = {Framing::kNone, 0};
  const base::ByteSpan in(data + 1, size - 1);
  for (const bool want_trailers : {false, true}) {
    const Decoded whole = decode(in, framing, want_trailers, SIZE_MAX);
    FUZZ_REQUIRE(whole == decode(in, framing, want_trailers, 1));
    FUZZ_REQUIRE(whole == decode(in, framing, want_trailers, 7));
  }
  return 0;
}
