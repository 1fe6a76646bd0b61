// Cluster.health_checks: checked, and made into what the data plane sends and expects (table/health_check.h).
#pragma once

#include "control/model.h"
#include "control/source_map.h"
#include "lib/table/object_writer.h"
#include "lib/table/objects.h"

namespace millrace::control {

bool validate_health_checks(const api::Cluster& c, const Path& root, ErrorSink& e);
bool validate_health_check_config(const envoy::config::endpoint::v3::Endpoint::HealthCheckConfig& c, const Path& at,
                                  ErrorSink& e);
// Of a cluster that was validated and has one.
table::HealthCheck compile_health_check(const api::Cluster& c, table::ObjectWriter& w);

}  // namespace millrace::control
