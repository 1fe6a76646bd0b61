// What an encoder is asked for: the fields of Envoy's Gzip, Brotli and Zstd messages (envoy.extensions.compression.*), as plain
// bytes. Ranges are those of the messages' validation rules, tightened where a poll core could not bear more (kMost…).
#pragma once

#include <cstdint>
#include <string_view>

namespace millrace::compress {

enum class Codec : uint8_t { kGzip, kBrotli, kZstd };
inline constexpr uint32_t kCodecs = 3;

// What content-encoding and accept-encoding call it (RFC 9110 8.4.1, RFC 7932 13, RFC 8878 7.2).
constexpr std::string_view content_encoding(Codec c) { return c == Codec::kGzip ? "gzip" : c == Codec::kBrotli ? "br" : "zstd"; }

// Above these a block of input takes tens of milliseconds, in which nobody else of the worker would be served.
inline constexpr uint8_t kMostBrotliQuality = 9;  // Envoy: 11
inline constexpr uint8_t kMostZstdLevel = 12;     // Envoy: 22
inline constexpr uint8_t kMostZstdStrategy = 6;   // BTLAZY2; Envoy: 9, BTULTRA2

struct Settings {
  Codec codec = Codec::kGzip;
  uint8_t level = 6;                 // gzip 1 … 9; brotli quality 0 … kMostBrotliQuality; zstd 1 … kMostZstdLevel
  uint8_t strategy = 0;              // gzip: zlib's 0 … 4; brotli: mode 0 … 2; zstd: 0 (the level's), 1 … kMostZstdStrategy
  uint8_t window_bits = 12;          // gzip 9 … 15, brotli 10 … 24; zstd chooses by itself
  uint8_t memory_level = 5;          // gzip 1 … 9
  uint8_t block_bits = 24;           // brotli 16 … 24
  bool checksum = false;             // zstd: a checksum of the content ends the frame
  bool no_literal_contexts = false;  // brotli: disable_literal_context_modeling
  friend bool operator==(const Settings&, const Settings&) = default;
};

// A body whose length its head does not tell.
inline constexpr uint64_t kUnknownLength = UINT64_MAX;

}  // namespace millrace::compress
