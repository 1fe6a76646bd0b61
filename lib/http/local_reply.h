// Answers that the gateway gives by itself: status, body and response code details as Envoy writes them.
#pragma once

#include <cstdint>
#include <string_view>

#include "lib/http/h1_parser.h"
#include "lib/http/message.h"
#include "lib/http/scratch.h"

namespace millrace::http {

// %RESPONSE_CODE_DETAILS%: one list for everything that can be said of how a response came about.
enum class ResponseDetail : uint8_t {
  kNone = 0,
#define RESPONSE_DETAIL(symbol, text) symbol,
#include "lib/http/response_details.def"
#undef RESPONSE_DETAIL
  kCount
};
// Of a codec error: the same text as H1ErrorInfo::details. Stable text, "" for kNone.
std::string_view response_detail(ResponseDetail d);
// The detail that says the same as info(e).details.
ResponseDetail response_detail_of(H1Error e);

enum class LocalReply : uint8_t {
#define LOCAL_REPLY(symbol, status, body, closes, detail) symbol,
#include "lib/http/local_replies.def"
#undef LOCAL_REPLY
  kCount
};
struct LocalReplyInfo {
  uint16_t status;
  std::string_view body;  // text/plain; "" : no body, content-length: 0
  bool closes;  // the connection is closed after it (connection: close); it is too whenever the request was not read whole
  ResponseDetail detail;
};
const LocalReplyInfo& info(LocalReply r);

// Fills *head (its table needs room for three more fields; what it holds already, such as location or x-envoy-overloaded, comes
// first, as Envoy orders it): status, and for a body content-length and content-type. The caller then runs
// mutate_response (date, server) and write_response_head with framing kNone or kContentLength{body_out->size()}. `body` may be a
// direct response's; it must outlive the head. `replace_content_type`: the body is not the one that a content-type there already
// speaks of. grpc: the request was gRPC, which is answered with 200 and
// grpc-status/grpc-message instead of a body; *body_out is what follows the head (not for HEAD). False: no room.
bool fill_local_reply(ResponseHead* head, uint16_t status, std::string_view body, bool grpc, Scratch& scratch,
                      std::string_view* body_out, std::string_view content_type = "text/plain",
                      bool replace_content_type = false);

// The gRPC status Envoy maps an HTTP status to (Grpc::Utility::httpToGrpcStatus).
uint32_t grpc_status_of(uint16_t http_status);

}  // namespace millrace::http
