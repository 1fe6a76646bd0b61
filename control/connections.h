// `millctl conn`: from a request's words to a question, from the workers' records to what a person or program reads.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "control/model.h"
#include "lib/api/millrace.control.v1.pb.h"
#include "lib/base/status.h"
#include "lib/stats/region.h"
#include "lib/table/inspect.h"

namespace millrace::control {

class ControlPlane;

// "0-17-3fa90c21". The worker's number comes apart, because a question is for every worker.
std::string connection_id(uint32_t worker, table::ConnectionId id);
base::Result<std::pair<uint32_t, table::ConnectionId>> parse_connection_id(std::string_view text);

// The question that a request asks, without its id. Errors name the field, what is wrong and what there is.
base::Result<table::InspectConnections> connections_question(const v1::ConnectionsRequest& request, const Model& model,
                                                             uint32_t workers);

// Names that records carry as ids.
struct ConnectionNames {
  explicit ConnectionNames(const Model& model);
  std::unordered_map<table::ObjectId, std::string> names;
  std::vector<std::string> ports;
};
void report_connection(const table::ConnectionRecord& record, std::string_view sni, std::string_view alpn,
                       const ConnectionNames& names, v1::Connection* out);
// How much a connection has sent and received, from its trace: false when that does not reach back to its opening.
bool count_stream(const table::ConnectionRecord& record, std::span<const table::TraceEntry> trace, v1::Connection* out);
void report_trace(const table::TraceRecord& record, v1::TraceEvent* out);

// Asks every worker and waits for the answers, at most request.wait_ms; `cancelled` is asked now and then.
void ask_connections(ControlPlane& plane, const v1::ConnectionsRequest& request, const std::function<bool()>& cancelled,
                     v1::ConnectionsReply* out);

}  // namespace millrace::control
