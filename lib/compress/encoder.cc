#include "lib/compress/encoder.h"

#include <algorithm>
#include <bit>
#include <brotli/encode.h>
#include <csetjmp>
#include <new>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY  // static contexts and their size: there since 1.3, and the only way without malloc
#include <zstd.h>

namespace millrace::compress {
namespace {

// ---- how much memory

// zlib.h, deflateInit2(): window and hash chains, hash heads and pending output (a quarter more of it from 1.3.1 on); the state
// is about 6 KB.
size_t gzip_bytes(const Settings& s) {
  constexpr size_t kState = 12 * 1024;
  return (size_t{1} << (s.window_bits + 2)) + (size_t{1} << (s.memory_level + 9)) + (size_t{1} << (s.memory_level + 6)) + kState;
}

uint8_t bits_of(uint64_t length, uint8_t least, uint8_t most) {
  if (length >= uint64_t{1} << most) return most;
  return std::max<uint8_t>(least, static_cast<uint8_t>(std::bit_width(length)));
}

// Windows of at most 64 KiB: larger ones cost 2 to 3 MiB a response up to quality 4, and from 5 on tables of up to 32 MiB, where
// those for 64 KiB have one. For the bodies of the web the better bargain.
constexpr uint8_t kBrotliWindow = 16, kBrotliBlock = 16;
uint8_t brotli_window(const Settings& s, uint64_t length) { return bits_of(length, 10, std::min(s.window_bits, kBrotliWindow)); }
// No formula of brotli's: what was measured (encoder_test.cc, MemoryIsEnough) and a third more.
size_t brotli_bytes(const Settings& s, uint64_t length) {
  constexpr size_t kKiB = 1024, kShort = 14;
  const bool is_short = brotli_window(s, length) <= kShort;
  if (s.level <= 1) return (is_short ? 448 : 1'024) * kKiB;
  if (s.level <= 3) return (is_short ? 896 : 1'280) * kKiB;
  return (s.level <= 8 ? 2'432 : 3'456) * kKiB;
}

// The level's parameters for a body of this length, with a window of at most 256 KiB: RFC 9659 allows 8 MiB, which would be 11
// MiB of memory a response.
constexpr uint32_t kZstdWindow = 18;
ZSTD_compressionParameters zstd_parameters(const Settings& s, uint64_t length) {
  const uint64_t size = std::min<uint64_t>(length, uint64_t{1} << kZstdWindow);
  ZSTD_compressionParameters p = ZSTD_getCParams(s.level, std::max<uint64_t>(size, 1), 0);
  p.windowLog = std::min(p.windowLog, kZstdWindow);
  if (s.strategy != 0) p.strategy = static_cast<ZSTD_strategy>(s.strategy);
  if (p.strategy > ZSTD_btlazy2) p.strategy = ZSTD_btlazy2;
  return ZSTD_adjustCParams(p, length == kUnknownLength ? ZSTD_CONTENTSIZE_UNKNOWN : std::max<uint64_t>(length, 1), 0);
}
size_t zstd_bytes(const Settings& s, uint64_t length) {
  constexpr size_t kSlack = 4096;
  return ZSTD_estimateCStreamSize_usingCParams(zstd_parameters(s, length)) + kSlack;
}

constexpr size_t kHeader = (sizeof(Encoder) + 63) & ~size_t{63};

// ---- what the libraries call

void* zlib_allocate(void* heap, unsigned items, unsigned size) {
  return static_cast<BlockHeap*>(heap)->allocate(size_t{items} * size);
}
void library_free(void* heap, void* piece) { static_cast<BlockHeap*>(heap)->free(piece); }

// Distributions build brotli so that it ends the process when it gets no memory. block_bytes() is meant to exclude that; should
// it be wrong for some body, the library is left from here, by longjmp: it is C without anything to undo, and all it has lies in
// the block, which goes as a whole.
struct BrotliHeap {
  BlockHeap* heap = nullptr;
  std::jmp_buf* out = nullptr;
};
thread_local BrotliHeap t_brotli;  // of the call that is under way

void* brotli_allocate(void*, size_t bytes) {
  void* piece = t_brotli.heap->allocate(bytes);
  if (piece == nullptr && bytes != 0) std::longjmp(*t_brotli.out, 1);
  return piece;
}
void brotli_free(void*, void* piece) { t_brotli.heap->free(piece); }

// Runs f, which calls brotli. False: it was left in the middle. f holds nothing that has a destructor.
template <class F>
bool within_memory(BlockHeap& heap, F&& f) {
  std::jmp_buf out;
  t_brotli = {&heap, &out};
  if (setjmp(out) != 0) return false;
  f();
  return true;
}

}  // namespace

size_t Encoder::block_bytes(const Settings& s, uint64_t length) {
  switch (s.codec) {
    case Codec::kGzip:
      return kHeader + gzip_bytes(s);
    case Codec::kBrotli:
      return kHeader + brotli_bytes(s, length);
    case Codec::kZstd:
      break;
  }
  return kHeader + zstd_bytes(s, length);
}

Encoder* Encoder::create(const Settings& s, uint64_t length, std::span<uint8_t> block) {
  if (block.size() < kHeader + 4 * BlockHeap::kAlign) return nullptr;
  const std::span<uint8_t> rest = block.subspan(kHeader);
  auto* e = new (block.data()) Encoder(s.codec, rest);
  bool good = false;
  switch (s.codec) {
    case Codec::kGzip:
      good = e->start_gzip(s);
      break;
    case Codec::kBrotli:
      good = e->start_brotli(s, length);
      break;
    case Codec::kZstd:
      good = e->start_zstd(s, length, rest);
      break;
  }
  return good ? e : nullptr;
}

bool Encoder::start_gzip(const Settings& s) {
  void* place = heap_.allocate(sizeof(z_stream));
  if (place == nullptr) return false;
  auto* z = new (place) z_stream{};
  z->zalloc = zlib_allocate;
  z->zfree = library_free;
  z->opaque = &heap_;
  state_ = z;
  constexpr int kGzipFormat = 16;  // zlib.h: added to the window bits
  return deflateInit2(z, s.level, Z_DEFLATED, s.window_bits + kGzipFormat, s.memory_level, s.strategy) == Z_OK;
}

bool Encoder::start_brotli(const Settings& s, uint64_t length) {
  if (!within_memory(heap_, [&] { state_ = BrotliEncoderCreateInstance(brotli_allocate, brotli_free, this); })) return false;
  auto* b = static_cast<BrotliEncoderState*>(state_);
  if (b == nullptr) return false;
  bool good = BrotliEncoderSetParameter(b, BROTLI_PARAM_QUALITY, s.level) == BROTLI_TRUE;
  good = BrotliEncoderSetParameter(b, BROTLI_PARAM_MODE, s.strategy) == BROTLI_TRUE && good;
  good = BrotliEncoderSetParameter(b, BROTLI_PARAM_LGWIN, brotli_window(s, length)) == BROTLI_TRUE && good;
  good = BrotliEncoderSetParameter(b, BROTLI_PARAM_LGBLOCK, std::min(s.block_bits, kBrotliBlock)) == BROTLI_TRUE && good;
  good =
      BrotliEncoderSetParameter(b, BROTLI_PARAM_DISABLE_LITERAL_CONTEXT_MODELING, s.no_literal_contexts) == BROTLI_TRUE && good;
  return good;
}

bool Encoder::start_zstd(const Settings& s, uint64_t length, std::span<uint8_t> workspace) {
  ZSTD_CCtx* c = ZSTD_initStaticCCtx(workspace.data(), workspace.size());
  if (c == nullptr) return false;
  state_ = c;
  const ZSTD_compressionParameters p = zstd_parameters(s, length);
  const auto set = [&](ZSTD_cParameter which, unsigned value) {
    return ZSTD_isError(ZSTD_CCtx_setParameter(c, which, static_cast<int>(value))) == 0;
  };
  return set(ZSTD_c_compressionLevel, s.level) && set(ZSTD_c_windowLog, p.windowLog) && set(ZSTD_c_hashLog, p.hashLog) &&
         set(ZSTD_c_chainLog, p.chainLog) && set(ZSTD_c_searchLog, p.searchLog) && set(ZSTD_c_minMatch, p.minMatch) &&
         set(ZSTD_c_targetLength, p.targetLength) && set(ZSTD_c_strategy, static_cast<unsigned>(p.strategy)) &&
         set(ZSTD_c_checksumFlag, s.checksum ? 1 : 0);
}

Step Encoder::step(base::ByteSpan in, std::span<uint8_t> out, Directive d) {
  Step r;
  if (out.size() < kLeastOut || (finished_ && !in.empty())) {
    r.failed = true;
    return r;
  }
  if (finished_) {
    r.done = true;
    return r;
  }
  switch (codec_) {
    case Codec::kGzip: {
      auto& z = *static_cast<z_stream*>(state_);
      z.next_in = const_cast<Bytef*>(in.data());  // zlib does not write to it
      z.avail_in = static_cast<uInt>(std::min<size_t>(in.size(), UINT32_MAX));
      z.next_out = out.data();
      z.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), UINT32_MAX));
      const uInt had_in = z.avail_in, had_out = z.avail_out;
      const int code = deflate(&z, d == Directive::kMore ? Z_NO_FLUSH : d == Directive::kFlush ? Z_SYNC_FLUSH : Z_FINISH);
      r.consumed = had_in - z.avail_in;
      r.produced = had_out - z.avail_out;
      // Z_BUF_ERROR: nothing was left to do, which is no error.
      r.failed = code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR;
      if (d == Directive::kFinish) r.done = finished_ = code == Z_STREAM_END;
      else r.done = r.consumed == in.size() && (d == Directive::kMore || z.avail_out != 0);
      break;
    }
    case Codec::kBrotli: {
      auto* b = static_cast<BrotliEncoderState*>(state_);
      size_t left_in = in.size(), left_out = out.size();
      const uint8_t* from = in.data();
      uint8_t* to = out.data();
      const BrotliEncoderOperation op = d == Directive::kMore    ? BROTLI_OPERATION_PROCESS
                                        : d == Directive::kFlush ? BROTLI_OPERATION_FLUSH
                                                                 : BROTLI_OPERATION_FINISH;
      BROTLI_BOOL good = BROTLI_FALSE;
      if (!within_memory(heap_, [&] { good = BrotliEncoderCompressStream(b, op, &left_in, &from, &left_out, &to, nullptr); })) {
        finished_ = true;
        return {0, 0, false, true};
      }
      r.failed = good != BROTLI_TRUE;
      r.consumed = in.size() - left_in;
      r.produced = out.size() - left_out;
      if (d == Directive::kFinish) r.done = finished_ = BrotliEncoderIsFinished(b) == BROTLI_TRUE;
      else r.done = left_in == 0 && BrotliEncoderHasMoreOutput(b) != BROTLI_TRUE;
      break;
    }
    case Codec::kZstd: {
      ZSTD_inBuffer from{in.data(), in.size(), 0};
      ZSTD_outBuffer to{out.data(), out.size(), 0};
      const size_t left = ZSTD_compressStream2(static_cast<ZSTD_CCtx*>(state_), &to, &from,
                                               d == Directive::kMore    ? ZSTD_e_continue
                                               : d == Directive::kFlush ? ZSTD_e_flush
                                                                        : ZSTD_e_end);
      r.failed = ZSTD_isError(left) != 0;
      r.consumed = from.pos;
      r.produced = to.pos;
      if (d == Directive::kMore) r.done = from.pos == in.size();
      else r.done = !r.failed && left == 0 && from.pos == in.size();
      if (d == Directive::kFinish) finished_ = r.done;
      break;
    }
  }
  if (r.failed) r.done = false;
  return r;
}

size_t Encoder::peak_bytes() const { return kHeader + (codec_ == Codec::kZstd ? block_bytes_ : heap_.peak()); }

}  // namespace millrace::compress
