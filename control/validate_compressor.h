// The compressor filter (envoy.filters.http.compressor).
#pragma once

#include "control/model.h"
#include "control/source_map.h"
#include "lib/api/envoy.extensions.filters.http.compressor.v3.pb.h"

namespace millrace::control {

// `at`: its typed_config. Complains of everything that Envoy refuses, and of what a poll core could not bear.
bool validate_compressor(const envoy::extensions::filters::http::compressor::v3::Compressor& c, const Path& at, ErrorSink& e);

}  // namespace millrace::control
