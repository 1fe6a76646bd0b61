#include "control/compile_compressor.h"

#include "lib/api/envoy.extensions.compression.brotli.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.gzip.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.compression.zstd.compressor.v3.pb.h"
#include "lib/api/envoy.extensions.filters.http.compressor.v3.pb.h"
#include "lib/base/ascii.h"

namespace millrace::control {

namespace {

namespace compression = envoy::extensions::compression;
using envoy::extensions::filters::http::compressor::v3::Compressor;
using Brotli = compression::brotli::compressor::v3::Brotli;
using Gzip = compression::gzip::compressor::v3::Gzip;
using Zstd = compression::zstd::compressor::v3::Zstd;

// Envoy's default of CommonDirectionConfig.content_type (compressor_filter.cc, defaultContentEncoding).
constexpr const char* kContentTypes[] = {"text/html",
                                         "text/plain",
                                         "text/css",
                                         "application/javascript",
                                         "application/x-javascript",
                                         "text/javascript",
                                         "text/x-javascript",
                                         "text/ecmascript",
                                         "text/js",
                                         "text/jscript",
                                         "text/x-js",
                                         "application/ecmascript",
                                         "application/x-json",
                                         "application/xml",
                                         "application/json",
                                         "image/svg+xml",
                                         "text/xml",
                                         "application/xhtml+xml",
                                         "application/grpc-web",
                                         "application/grpc-web+proto"};

template <class Field>
uint8_t value_or(bool has, const Field& field, uint8_t otherwise) {
  return has ? static_cast<uint8_t>(field.value()) : otherwise;
}

void set_library(const google::protobuf::Any& any, table::Compressor* out) {
  Brotli b;
  Gzip g;
  Zstd z;
  if (any.UnpackTo(&g)) {
    constexpr uint8_t kDefaultLevel = 6;  // zlib's own
    out->codec = table::CompressionCodec::kGzip;
    out->level = g.compression_level() == Gzip::DEFAULT_COMPRESSION ? kDefaultLevel : static_cast<uint8_t>(g.compression_level());
    out->strategy = static_cast<uint8_t>(g.compression_strategy());
    out->window_bits = value_or(g.has_window_bits(), g.window_bits(), 12);
    out->memory_level = value_or(g.has_memory_level(), g.memory_level(), 5);
  } else if (any.UnpackTo(&b)) {
    out->codec = table::CompressionCodec::kBrotli;
    out->level = value_or(b.has_quality(), b.quality(), 3);
    out->strategy = b.encoder_mode() == Brotli::TEXT ? 1 : b.encoder_mode() == Brotli::FONT ? 2 : 0;
    out->window_bits = value_or(b.has_window_bits(), b.window_bits(), 18);
    out->block_bits = value_or(b.has_input_block_bits(), b.input_block_bits(), 24);
    out->no_literal_contexts = b.disable_literal_context_modeling();
  } else if (any.UnpackTo(&z)) {
    constexpr uint8_t kDefaultLevel = 3;  // zstd's own, and what it takes 0 for
    out->codec = table::CompressionCodec::kZstd;
    out->level = value_or(z.compression_level().value() != 0, z.compression_level(), kDefaultLevel);
    out->strategy = static_cast<uint8_t>(z.strategy());
    out->checksum = z.enable_checksum();
  }
}

}  // namespace

std::vector<table::Compressor> compile_compressors(const api::HttpConnectionManager& h, table::ObjectWriter& w) {
  std::vector<table::Compressor> out;
  for (const auto& f : h.http_filters()) {
    Compressor c;
    if (!f.typed_config().UnpackTo(&c)) continue;
    table::Compressor o;
    o.name = w.string(c.compressor_library().name());
    set_library(c.compressor_library().typed_config(), &o);
    const auto& response = c.response_direction_config();
    const auto& common = response.common_config();
    std::vector<table::Str> types;
    if (common.content_type().empty())
      for (const char* t : kContentTypes) types.push_back(w.string(t));
    for (std::string t : common.content_type()) {
      for (char& ch : t) ch = base::to_lower(ch);
      types.push_back(w.string(t));
    }
    o.content_types = w.array(types);
    if (common.min_content_length().value() != 0) o.min_content_length = common.min_content_length().value();  // Envoy: 0 is 30
    o.enabled = !common.has_enabled() || common.enabled().default_value().value();
    o.disable_on_etag = response.disable_on_etag_header();
    o.remove_accept_encoding = response.remove_accept_encoding_header();
    o.choose_first = c.choose_first();
    o.response_config = c.has_response_direction_config();
    out.push_back(o);
  }
  return out;
}

}  // namespace millrace::control
