#include "control/validate_compressor.h"

#include "control/validate_rules.h"
#include "lib/api/envoy.extensions.compression.brotli.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.gzip.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.zstd.compressor.v3.pb.h"
#include "lib/table/objects.h"

namespace millrace::control {

namespace {

using namespace rules;
namespace compression = envoy::extensions::compression;
using Brotli = compression::brotli::compressor::v3::Brotli;
using Gzip = compression::gzip::compressor::v3::Gzip;
using Zstd = compression::zstd::compressor::v3::Zstd;
using UInt32 = google::protobuf::UInt32Value;

bool complain(const Path& at, ErrorSink& e, std::string message) {
  e.add(at, std::move(message));
  return false;
}

bool within(bool has, const UInt32& value, uint32_t least, uint32_t most, const Path& at, ErrorSink& e) {
  if (!has || (value.value() >= least && value.value() <= most)) return true;
  return complain(at, e, "must be from " + std::to_string(least) + " to " + std::to_string(most));
}

template <class Library>
bool chunk_size(const Library& l, const Path& at, ErrorSink& e) {
  return within(l.has_chunk_size(), l.chunk_size(), 4096, 65536, Path(at, "chunk_size"), e);
}

bool gzip(const Gzip& g, const Path& at, ErrorSink& e) {
  bool ok = known_fields_only(g, at, e);
  ok = within(g.has_memory_level(), g.memory_level(), 1, 9, Path(at, "memory_level"), e) && ok;
  ok = within(g.has_window_bits(), g.window_bits(), 9, 15, Path(at, "window_bits"), e) && ok;
  return chunk_size(g, at, e) && ok;
}

// Beyond these a block takes tens of milliseconds, in which a worker would serve nobody else.
constexpr const char* kTooSlow = " (Envoy allows more, but one block would keep a worker from everybody else for too long)";

bool brotli(const Brotli& b, const Path& at, ErrorSink& e) {
  bool ok = known_fields_only(b, at, e);
  if (b.quality().value() > table::kMostBrotliQuality)
    ok = complain(Path(at, "quality"), e, "must be from 0 to " + std::to_string(table::kMostBrotliQuality) + kTooSlow);
  ok = within(b.has_window_bits(), b.window_bits(), 10, 24, Path(at, "window_bits"), e) && ok;
  ok = within(b.has_input_block_bits(), b.input_block_bits(), 16, 24, Path(at, "input_block_bits"), e) && ok;
  return chunk_size(b, at, e) && ok;
}

bool zstd(const Zstd& z, const Path& at, ErrorSink& e) {
  bool ok = known_fields_only(z, at, e);
  if (z.compression_level().value() > table::kMostZstdLevel)
    ok = complain(Path(at, "compression_level"), e, "must be from 0 to " + std::to_string(table::kMostZstdLevel) + kTooSlow);
  if (z.strategy() > table::kMostZstdStrategy)
    ok = complain(Path(at, "strategy"), e, "must be at most BTLAZY2" + std::string(kTooSlow));
  return chunk_size(z, at, e) && ok;
}

}  // namespace

bool validate_compressor(const envoy::extensions::filters::http::compressor::v3::Compressor& c, const Path& at, ErrorSink& e) {
  bool ok = known_fields_only(c, at, e);
  const Path library(at, "compressor_library"), config(library, "typed_config");
  if (!c.has_compressor_library()) {
    ok = complain(library, e, "is required");
  } else {
    ok = not_empty(c.compressor_library().name(), Path(library, "name"), e) && ok;
    Brotli b;
    Gzip g;
    Zstd z;
    const auto& any = c.compressor_library().typed_config();
    if (!c.compressor_library().has_typed_config()) ok = complain(config, e, "is required");
    else if (any.UnpackTo(&g)) ok = gzip(g, config, e) && ok;
    else if (any.UnpackTo(&b)) ok = brotli(b, config, e) && ok;
    else if (any.UnpackTo(&z)) ok = zstd(z, config, e) && ok;
    else ok = complain(config, e, "only Gzip, Brotli and Zstd are supported here by Millrace");
  }
  const Path response(at, "response_direction_config"), common(response, "common_config"), enabled(common, "enabled");
  const auto& flag = c.response_direction_config().common_config();
  if (flag.has_enabled()) {
    if (!flag.enabled().has_default_value()) ok = complain(Path(enabled, "default_value"), e, "is required");
    ok = not_empty(flag.enabled().runtime_key(), Path(enabled, "runtime_key"), e) && ok;
  }
  return ok;
}

}  // namespace millrace::control
