// What is known of management servers, for people and programs: `millctl xds`, and the counters of discovery under Envoy's names:
//
//   cluster_manager.cds.   listener_manager.lds.           what comes as a whole
//   http.STAT_PREFIX.rds.ROUTE.   cluster.NAME.   sds.NAME.  what is asked for by name, each a subscription of its own
//   control_plane.                                          the stream, if there is one
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "control/control_plane.h"
#include "control/metrics.h"
#include "control/xds_stream.h"
#include "lib/api/millrace.control.v1.pb.h"

namespace millrace::control {

using MetricVisit = std::function<void(const MetricGroup&, std::span<const MetricValue>)>;

// `model`: says which clusters and listeners ask for a name. A version's gauge is a hash of its text (Envoy's is another hash).
void visit_discovery(const XdsStatus& status, const Model& model, const MetricVisit& visit);
// Texts of the same: "control_plane.identifier", "cluster_manager.cds.version_text", ...
std::vector<std::pair<std::string, std::string>> discovery_texts(const XdsStatus& status, const Model& model);

// Of the stream and of the files together; nothing: neither is asked for anything.
std::optional<XdsStatus> discovery_status(const ControlPlane& plane);

void report_xds(ControlPlane& plane, v1::XdsReply* out);
// The counters of visit_discovery() as `millctl stats` has them: scope "xds".
void report_discovery(ControlPlane& plane, const v1::StatsRequest& request, v1::StatsReply* out);

}  // namespace millrace::control
