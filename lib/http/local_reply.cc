#include "lib/http/local_reply.h"

#include "lib/base/assert.h"
#include "lib/http/grpc_web.h"

namespace millrace::http {

void error_details_missing_in_response_details_def();  // not constexpr: reaching it is a compile error

namespace {

constexpr std::string_view kDetails[] = {
    "",
#define RESPONSE_DETAIL(symbol, text) text,
#include "lib/http/response_details.def"
#undef RESPONSE_DETAIL
};
constexpr LocalReplyInfo kReplies[] = {
#define LOCAL_REPLY(symbol, status, body, closes, detail) {status, body, closes, ResponseDetail::detail},
#include "lib/http/local_replies.def"
#undef LOCAL_REPLY
};

consteval ResponseDetail find_detail(std::string_view text) {
  for (size_t i = 1; i < std::size(kDetails); ++i)
    if (kDetails[i] == text) return static_cast<ResponseDetail>(i);
  error_details_missing_in_response_details_def();
  return ResponseDetail::kNone;
}
constexpr ResponseDetail kDetailOfError[] = {
    ResponseDetail::kNone,
#define H1_ERROR(symbol, name, status, details, text) find_detail(details),
#include "lib/http/h1_errors.def"
#undef H1_ERROR
};

}  // namespace

ResponseDetail response_detail_of(H1Error e) {
  MILLRACE_ASSERT(e < H1Error::kCount, "an H1Error of the list");
  return kDetailOfError[static_cast<size_t>(e)];
}

std::string_view response_detail(ResponseDetail d) {
  MILLRACE_ASSERT(d < ResponseDetail::kCount, "a ResponseDetail of the list");
  return kDetails[static_cast<size_t>(d)];
}

const LocalReplyInfo& info(LocalReply r) {
  MILLRACE_ASSERT(r < LocalReply::kCount, "a LocalReply of the list");
  return kReplies[static_cast<size_t>(r)];
}

uint32_t grpc_status_of(uint16_t http_status) {
  switch (http_status) {
    case 400:
      return 13;  // INTERNAL
    case 401:
      return 16;  // UNAUTHENTICATED
    case 403:
      return 7;  // PERMISSION_DENIED
    case 404:
      return 12;  // UNIMPLEMENTED
    case 429:
    case 502:
    case 503:
    case 504:
      return 14;  // UNAVAILABLE
    default:
      return 2;  // UNKNOWN
  }
}

bool fill_local_reply(ResponseHead* head, uint16_t status, std::string_view body, bool grpc, Scratch& scratch,
                      std::string_view* body_out, std::string_view content_type, bool replace_content_type) {
  head->reason = {};
  head->version = Version::kHttp11;
  const auto put = [head](HeaderId id, std::string_view value) { return head->headers.set(id, value); };
  if (grpc) {
    head->status = 200;
    *body_out = {};
    if (content_type == "application/json" && body.ends_with('\n')) body.remove_suffix(1);  // a format in JSON ends its line
    const std::string_view message = grpc_message(body, scratch);
    return put(HeaderId::kContentType, "application/grpc") &&
           put(HeaderId::kGrpcStatus, scratch.decimal(grpc_status_of(status))) &&
           (message.empty() || head->headers.push({"grpc-message", message, HeaderId::kOther})) && !scratch.overflowed();
  }
  head->status = status;
  *body_out = body;
  if (body.empty()) return true;  // the writer says content-length: 0 where the status allows it
  return put(HeaderId::kContentLength, scratch.decimal(body.size())) &&
         ((head->headers.has(HeaderId::kContentType) && !replace_content_type) || put(HeaderId::kContentType, content_type)) &&
         !scratch.overflowed();
}

}  // namespace millrace::http
