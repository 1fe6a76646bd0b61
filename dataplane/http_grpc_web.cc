// The gRPC-Web filter (envoy.filters.http.grpc_web): what it does to heads, as Envoy's GrpcWebFilter, and what it counts. Runs
// only for requests of gRPC-Web where a connection manager has the filter.
#include <memory>

#include "dataplane/http_proxy.h"
#include "lib/http/grpc_web.h"

namespace millrace::dataplane {

using http::HeaderId;
using stats::ClusterCounter;

// Whether the request is the filter's business. What follows from it for its head is done once the route is known, which is
// chosen by the head as it came.
void HttpProxy::begin_grpc_web(Exchange& ex) {
  const http::HeaderTable& headers = ex.request.headers;
  const http::GrpcWebType type = http::grpc_web_type(headers.get(HeaderId::kContentType));
  if (type == http::GrpcWebType::kNone || ex.request.path.empty() || ex.is_connect || ex.upgrade_requested) return;
  ExchangeFilters* filters = filters_of(ex);
  auto* web = filters == nullptr ? nullptr : allocate_array<GrpcWeb>(ex.scratch, 1);
  if (web == nullptr) return;  // the scratch has overflowed: 431
  filters->grpc_web = std::construct_at(web);
  web->text_request = type == http::GrpcWebType::kText;
  const http::Header* accept = headers.find("accept");
  web->text_response = accept != nullptr && http::grpc_web_type(accept->value) == http::GrpcWebType::kText;
}

// Envoy: decodeHeaders. False: no room.
bool HttpProxy::translate_grpc_web_request(Exchange& ex) {
  GrpcWeb& web = *ex.filters->grpc_web;
  if (std::exchange(web.translated, true)) return true;
  http::HeaderTable& headers = ex.request.headers;
  headers.remove(HeaderId::kContentLength);
  ex.is_grpc_upstream = true;
  ex.odd_head = true;
  bool room = headers.set(HeaderId::kContentType, http::kGrpcType) && headers.set(HeaderId::kTe, "trailers");
  if (headers.find("grpc-accept-encoding") == nullptr)
    room = room && headers.push({"grpc-accept-encoding", "identity", HeaderId::kOther});
  return room;
}

// Envoy: decodeData, of a body that is no base64.
void HttpProxy::refuse_base64(Exchange& ex) {
  const bool size = ex.filters->grpc_web->bad_size;
  if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
  upstreams_.cancel(ex);
  ex.detail_text = size ? "grpc_base_64_decode_failed_bad_size" : "grpc_base_64_decode_failed";
  reply_with(ex, 400, "Bad gRPC-web request, invalid base64 data.", http::ResponseDetail::kNone, false);
}

void HttpProxy::end_grpc_web(Exchange& ex) {
  GrpcWeb* web = std::exchange(ex.filters->grpc_web, nullptr);
  ctx_.heads.release(web->message);
  std::destroy_at(web);
}

void HttpProxy::count_grpc_web(const Exchange& ex, std::string_view grpc_status) {
  if (grpc_status.empty() || ex.cluster == nullptr) return;
  stats::ScopeBlock& s = ctx_.stats.scope(ex.cluster->slot);
  s[ClusterCounter::kGrpcWebTotal].add();
  s[grpc_status == "0" ? ClusterCounter::kGrpcWebSuccess : ClusterCounter::kGrpcWebFailure].add();
}

// Envoy: encodeHeaders. `end`: no body follows. True: the response's body has to come first, and becomes its grpc-message.
bool HttpProxy::begin_grpc_web_response(Exchange& ex, bool end) {
  GrpcWeb& web = *ex.filters->grpc_web;
  http::HeaderTable& headers = ex.response.headers;
  count_grpc_web(ex, headers.get(HeaderId::kGrpcStatus));
  const bool gather = !end && !http::is_grpc_web_response(ex.response, end);
  headers.remove(HeaderId::kContentLength);
  headers.set(HeaderId::kContentType, web.text_response ? http::kGrpcWebTextProto : http::kGrpcWebProto);
  return gather;
}

// `message`, percent-encoded, and grpc-status of a response that is no gRPC, instead of its body. False: no room.
bool HttpProxy::put_grpc_message(http::ResponseHead& head, std::string_view message, http::Scratch& scratch) {
  return head.headers.set("grpc-message", message) &&
         head.headers.set(HeaderId::kGrpcStatus, scratch.decimal(http::grpc_status_of(head.status))) &&
         head.headers.set(HeaderId::kContentLength, "0") && !scratch.overflowed();
}

// The body of such a response is there.
void HttpProxy::finish_gathered(Exchange& ex) {
  GrpcWeb& web = *ex.filters->grpc_web;
  web.gathering = false;
  http::ResponseHead& response = ex.response;
  HeadBuffer* m = web.message;
  http::Scratch message_scratch(m == nullptr ? std::span<char>() : m->scratch());
  const std::string_view body = m == nullptr ? std::string_view("") : std::string_view(m->data, m->used);
  const std::string_view message = http::grpc_message(body, message_scratch);
  bool room = put_grpc_message(response, message, web.response_scratch);
  if (ex.filters->compression != nullptr) room = room && compress_response(ex, response.headers, true, web.response_scratch);
  room = room && http::mutate_response(&response, ex.downstream->policy->forward, {ctx_.date, ex.request_id, false},
                                       web.response_scratch);
  const http::ResponseWrite how{{http::Framing::kContentLength, 0}, ex.request.version, ex.close_downstream, ex.is_head};
  if (!room || !write_response_head(ex, response, how, true)) {
    ex.flags.set(stats::ResponseFlag::kOverloadManager);
    return cut_response(ex);
  }
  ex.downstream_first_byte_at = ctx_.now;
  response_complete(ex);
}

// It will not be there. Nothing was said to the client yet, so that it gets an answer, which Envoy's filter leaves as it is.
void HttpProxy::cut_gathering(Exchange& ex) {
  using http::LocalReply;
  using stats::ResponseFlag;
  if (ex.upstream != nullptr || ex.endpoint != nullptr) upstreams_.cancel(ex);
  end_grpc_web(ex);
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  free_body(ex.response_body);
  ex.response_phase = ResponsePhase::kNone;
  const LocalReply answer = ex.flags.has(ResponseFlag::kUpstreamProtocolError)           ? LocalReply::kUpstreamProtocolError
                            : ex.flags.has(ResponseFlag::kUpstreamRemoteReset)           ? LocalReply::kUpstreamReset
                            : ex.flags.has(ResponseFlag::kUpstreamConnectionTermination) ? LocalReply::kUpstreamClosed
                            : ex.flags.has(ResponseFlag::kOverloadManager)               ? LocalReply::kOverload
                                                                                         : LocalReply::kResponseTimeout;
  reply(ex, answer);
}

}  // namespace millrace::dataplane
