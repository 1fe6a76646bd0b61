// The other end of lib/compress: a body back from its coding, by the libraries' own decoders. For tests.
#pragma once

#include <brotli/decode.h>
#include <string>
#include <string_view>
#include <zlib.h>
#include <zstd.h>

#include "lib/compress/settings.h"

namespace millrace::test {

// What can be decoded of `coded` so far. *whole: it ended, and nothing stands behind it. False: it is no such coding.
inline bool decode(compress::Codec codec, std::string_view coded, std::string* plain, bool* whole) {
  char buffer[16 * 1024];
  *whole = false;
  plain->clear();
  switch (codec) {
    case compress::Codec::kGzip: {
      z_stream z{};
      if (inflateInit2(&z, 15 + 16) != Z_OK) return false;
      z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(coded.data()));
      z.avail_in = static_cast<uInt>(coded.size());
      int code = Z_OK;
      do {
        z.next_out = reinterpret_cast<Bytef*>(buffer);
        z.avail_out = sizeof buffer;
        code = inflate(&z, Z_SYNC_FLUSH);
        plain->append(buffer, sizeof buffer - z.avail_out);
      } while (code == Z_OK && (z.avail_in != 0 || z.avail_out == 0));
      *whole = code == Z_STREAM_END && z.avail_in == 0;
      inflateEnd(&z);
      return code == Z_OK || code == Z_BUF_ERROR || *whole;
    }
    case compress::Codec::kBrotli: {
      BrotliDecoderState* b = BrotliDecoderCreateInstance(nullptr, nullptr, nullptr);
      size_t in = coded.size();
      const auto* from = reinterpret_cast<const uint8_t*>(coded.data());
      BrotliDecoderResult code;
      do {
        size_t out = sizeof buffer;
        auto* to = reinterpret_cast<uint8_t*>(buffer);
        code = BrotliDecoderDecompressStream(b, &in, &from, &out, &to, nullptr);
        plain->append(buffer, sizeof buffer - out);
      } while (code == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
      BrotliDecoderDestroyInstance(b);
      *whole = code == BROTLI_DECODER_RESULT_SUCCESS && in == 0;
      return code == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT || *whole;
    }
    case compress::Codec::kZstd: {
      ZSTD_DCtx* d = ZSTD_createDCtx();
      ZSTD_inBuffer in{coded.data(), coded.size(), 0};
      size_t code = 1;
      bool full = true;
      while ((in.pos < in.size || full) && code != 0) {
        ZSTD_outBuffer out{buffer, sizeof buffer, 0};
        code = ZSTD_decompressStream(d, &out, &in);
        if (ZSTD_isError(code)) break;
        plain->append(buffer, out.pos);
        full = out.pos == out.size;
      }
      ZSTD_freeDCtx(d);
      *whole = code == 0 && in.pos == in.size;
      return ZSTD_isError(code) == 0;
    }
  }
  return false;
}

}  // namespace millrace::test
