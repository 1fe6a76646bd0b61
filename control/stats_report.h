// The statistics region, and the model, as the replies of the control service: sums over workers, names and sentences from the
// lists.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "control/config_kind.h"
#include "control/model.h"
#include "lib/api/millrace.control.v1.pb.h"
#include "lib/stats/region.h"

namespace millrace::control {

// What the data plane adds to `status`. `seen`: by worker, the epoch each has taken of this control's tables.
void report_status(const stats::RegionView& view, const std::vector<uint64_t>& seen, v1::StatusReply* out);
// Counters of every group and scope, filtered; histograms that hold anything.
void report_stats(const stats::RegionView& view, const v1::StatsRequest& request, v1::StatsReply* out);
// Drop reasons, worst and most frequent first, and response flags.
void report_drops(const stats::RegionView& view, bool all, v1::DropsReply* out);
// Every worker's counters now, for `millctl top`; the caller sets `connected`.
void report_top(const stats::RegionView& view, v1::TopSample* out);
// Whether the gateway drains, how far it is, and what is left of it.
void report_drain(const stats::RegionView& view, v1::DrainReply* out);
// Slots of clusters whose endpoints are actively checked.
std::set<stats::ScopeSlot> checked_clusters(const std::vector<stats::Scope>& scopes);
// What the data plane found out about endpoints, by cluster and "address:port", as a line for people: "ejected for 12 s:
// consecutive_5xx". Those of which there is nothing to say are not in it.
using LiveStates = std::map<std::pair<std::string, std::string>, std::string>;
LiveStates live_states(const stats::RegionView& view, uint64_t now_monotonic_ns);
// The objects of one kind (with columns for people) or of all.
void report_list(const Model& model, std::optional<ConfigKind> only, const LiveStates& live, v1::ListReply* out);

}  // namespace millrace::control
