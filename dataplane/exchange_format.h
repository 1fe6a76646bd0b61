// An exchange as format strings see it (lib/format/evaluate.h): the values of headers with %COMMANDS% and of local replies, and
// what an access log record carries.
#pragma once

#include <span>
#include <string_view>

#include "dataplane/exchange.h"
#include "dataplane/log_filter.h"
#include "lib/format/evaluate.h"
#include "lib/http/scratch.h"
#include "lib/stats/events.h"

namespace millrace::dataplane {

// The fixed part of an exchange's record, as of now. `sizes`: the bytes of heads too, which have to be counted.
void fill_record(const WorkerContext& ctx, const Exchange& ex, bool sizes, stats::AccessLogRecord& r);
// A string of it; absent (null) when it has none. Views live as long as the exchange.
std::string_view record_string(const Exchange& ex, stats::StringId id);
// The response's trailers, once they have come whole; null: none, or none were kept.
const http::HeaderTable* response_trailers(const Exchange& ex);
// gRPC's status of the response, as Envoy: its trailers, its headers, else what the HTTP status means. UINT16_MAX: no gRPC.
uint16_t grpc_status(const Exchange& ex);

// A value as a JSON string's inside: quotes, backslashes, controls and what is no UTF-8 escaped or replaced. False: no room.
bool append_json(std::string_view value, char* out, size_t room, size_t* used);

enum class FormatUse : uint8_t { kRequestHeader, kResponseHeader, kBody };
// All steps' values one behind the other, in `scratch`; what is absent is empty (in a body: `missing`), and in a header bytes
// that none may have become '_'. `local_reply_body`: of %LOCAL_REPLY_BODY%. "" when the scratch overflows. The steps are copies,
// or parts of a table's `object`, as it is now.
std::string_view format_value(const WorkerContext& ctx, const Exchange& ex, std::span<const format::Step> steps, FormatUse use,
                              http::Scratch& scratch);
std::string_view format_value(const WorkerContext& ctx, const Exchange& ex, const void* object,
                              const table::Array<table::FormatPart>& parts, FormatUse use, http::Scratch& scratch,
                              std::string_view local_reply_body = {}, std::string_view missing = {});

// What filters of access logs and local replies look at.
LogFacts log_facts(const WorkerContext& ctx, const Exchange& ex);

// Names of route, virtual host or cluster: they are copied into the exchange only for those who ask.
bool names_something(format::FormatOp op);

}  // namespace millrace::dataplane
