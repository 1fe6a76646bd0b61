// HttpConnectionManager.local_reply_config: which of the gateway's own answers become something else, and how their bodies look.
#include "dataplane/exchange_format.h"
#include "dataplane/http_proxy.h"

namespace millrace::dataplane {

// LocalReplyImpl::rewrite: the first mapper whose filter holds may add fields and change status and body; then the body is put
// into its form, also without a mapper. False: no room.
bool HttpProxy::rewrite_local_reply(Exchange& ex, uint16_t* status, std::string_view* body, std::string_view* content_type,
                                    http::Scratch& scratch) {
  const CurrentChain chain = current_chain(ctx_, *ex.downstream);
  if (chain.object == nullptr) return true;
  const void* const object = chain.object;
  const table::HttpConnectionManager& hcm = chain.runtime->chain->hcm;
  // What filters and formats see: the status that is meant, also of what will be 200 to gRPC; not that the request broke the
  // protocol, which Envoy notes when it has answered.
  const stats::ResponseFlags flags = ex.flags;
  ex.flags.bits &= ~stats::ResponseFlags::bit(stats::ResponseFlag::kDownstreamProtocolError);
  ex.status = ex.response.status = *status;
  const table::BodyFormat* format = &hcm.local_reply_format;
  const LogFacts facts = log_facts(ctx_, ex);
  bool room = true;
  for (const table::LocalReplyMapper& m : std::span(hcm.local_reply_mappers.begin(object), hcm.local_reply_mappers.count)) {
    if (!filter_holds(object, m.filter, facts)) continue;
    if (m.has_body != 0) *body = table::view(object, m.body);
    room = apply_options(ex, ex.response.headers, object, m.headers_to_add, FormatUse::kResponseHeader, scratch);
    if (m.status != 0) *status = m.status;
    if (m.format.parts.count != 0) format = &m.format;
    break;
  }
  ex.status = *status;
  if (room && format->parts.count != 0) {
    *content_type = table::view(object, format->content_type);
    remember_names_for(ex, object, format->parts);
    const std::string_view missing = format->omit_empty_values != 0 ? std::string_view("") : std::string_view("-");
    *body = format_value(ctx_, ex, object, format->parts, FormatUse::kBody, scratch, *body, missing);
  }
  ex.flags = flags;
  return room && !scratch.overflowed();
}

}  // namespace millrace::dataplane
