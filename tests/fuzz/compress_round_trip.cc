// Any settings within their ranges, any body in any pieces: the decoder gets back what the encoder took, and no encoder asks for
// more memory than it was given.
//   bytes 0…5: settings; 6: output room; 7: bit 0: length is told; then pieces: a length byte, a directive byte, the bytes
#include <cstdlib>
#include <string>
#include <vector>

#include "lib/compress/encoder_pool.h"
#include "tests/support/decode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace::compress;
  if (size < 8) return 0;
  static EncoderPool pool(8 << 20);
  Settings s;
  s.codec = static_cast<Codec>(data[0] % kCodecs);
  switch (s.codec) {
    case Codec::kGzip:
      s.level = 1 + data[1] % 9;
      s.strategy = data[2] % 5;
      s.window_bits = 9 + data[3] % 7;
      s.memory_level = 1 + data[4] % 9;
      break;
    case Codec::kBrotli:
      s.level = data[1] % (kMostBrotliQuality + 1);
      s.strategy = data[2] % 3;
      s.window_bits = 10 + data[3] % 15;
      s.block_bits = 16 + data[4] % 9;
      s.no_literal_contexts = data[5] & 1;
      break;
    case Codec::kZstd:
      s.level = 1 + data[1] % kMostZstdLevel;
      s.strategy = data[2] % (kMostZstdStrategy + 1);
      s.checksum = data[5] & 1;
      break;
  }
  std::vector<uint8_t> out(Encoder::kLeastOut + data[6] * 8);
  const bool told = data[7] & 1;
  data += 8;
  size -= 8;
  Encoder* e = pool.open(s, told ? size : kUnknownLength);
  if (e == nullptr) abort();
  std::string plain, coded;
  bool last = false;
  while (!last) {
    size_t n = 0;
    Directive d = Directive::kFinish;
    uint32_t copies = 1;
    if (size >= 2) {
      n = std::min<size_t>(data[0], size - 2);
      d = static_cast<Directive>(data[1] % 3);
      copies = 1 + (data[1] >> 4) * 16;  // bodies larger than the fuzzer's input
      data += 2;
      size -= 2;
    }
    std::string piece;
    for (uint32_t i = 0; i < copies; ++i) piece.append(reinterpret_cast<const char*>(data), n);
    data += n;
    size -= n;
    last = d == Directive::kFinish;
    plain += piece;
    millrace::base::ByteSpan rest = millrace::base::as_bytes(std::string_view(piece));
    Step step;
    int idle = 0;
    do {
      step = e->step(rest, out, d);
      if (step.failed || step.consumed > rest.size() || step.produced > out.size()) abort();
      rest = rest.subspan(step.consumed);
      coded.append(reinterpret_cast<const char*>(out.data()), step.produced);
      idle = step.consumed + step.produced == 0 ? idle + 1 : 0;
      if (idle > 2) abort();
    } while (!step.done);
    if (!rest.empty()) abort();
  }
  pool.close(e);
  std::string back;
  bool whole = false;
  if (!millrace::test::decode(s.codec, coded, &back, &whole) || !whole || back != plain) abort();
  return 0;
}
