// The compressor filters of a connection manager, as the data plane reads them.
#pragma once

#include <vector>

#include "control/model.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::control {

// In the order of http_filters; with Envoy's defaults where the configuration says nothing.
std::vector<table::Compressor> compile_compressors(const api::HttpConnectionManager& h, table::ObjectWriter& w);

}  // namespace millrace::control
