// One body on its way through gzip, brotli or zstd: bytes in, bytes out, no I/O, no heap. An encoder lives in one block of memory
// that it never leaves (encoder_pool.h lends it); giving the block back is all it takes to end it, at any point.
//
//   Step s;
//   do s = encoder.step(in, out, Directive::kFlush), in = in.subspan(s.consumed), take s.produced bytes of out
//   while (!s.done && !s.failed);
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "lib/base/bytes.h"
#include "lib/compress/block_heap.h"
#include "lib/compress/settings.h"

namespace millrace::compress {

enum class Directive : uint8_t {
  kMore,    // take the bytes; what comes out is up to the library
  kFlush,   // and let everything out that was taken: a client can decode all of it (costs a few bytes)
  kFinish,  // and end the stream; only with the last bytes, and nothing may follow
};

// Each call with kFlush or kFinish that is not done is repeated with the rest of the same input and the same directive.
struct Step {
  size_t consumed = 0, produced = 0;  // bytes
  bool done = false;                  // all input was taken, and what the directive asks for is in `out`
  bool failed = false;                // the library refused, or its memory did not suffice: the stream cannot be completed
};

class Encoder {
 public:
  static constexpr size_t kLeastOut = 64;  // bytes of `out` at each step: fewer make no headway

  // Bytes of the block that an encoder needs for a body of `length` bytes (or kUnknownLength). A shorter body needs less.
  static size_t block_bytes(const Settings& s, uint64_t length);
  // In `block` (aligned to 64, block_bytes() long). Null: the library refused the settings, or the block is too small.
  static Encoder* create(const Settings& s, uint64_t length, std::span<uint8_t> block);

  Step step(base::ByteSpan in, std::span<uint8_t> out, Directive d);

  Codec codec() const { return codec_; }
  // Most bytes of its block that were in use, this object included (zstd: the block).
  size_t peak_bytes() const;

 private:
  Encoder(Codec codec, std::span<uint8_t> rest) : codec_(codec), heap_(rest), block_bytes_(rest.size()) {}
  bool start_gzip(const Settings& s);
  bool start_brotli(const Settings& s, uint64_t length);
  bool start_zstd(const Settings& s, uint64_t length, std::span<uint8_t> workspace);

  Codec codec_;
  bool finished_ = false;
  BlockHeap heap_;         // gzip, brotli
  size_t block_bytes_;     // behind this object
  void* state_ = nullptr;  // z_stream, BrotliEncoderState or ZSTD_CCtx, in the block
};

}  // namespace millrace::compress
