// Upgrades (RFC 9110 7.8) and CONNECT (9.3.6), of HTTP/1.1 and of HTTP/2 (RFC 8441): which are allowed, and what becomes of the
// exchange once the endpoint has agreed. The bytes move as bodies do (http_relay.cc), with the framing kTunnel.
//
//   request ─ allowed? ─▶ begin_tunnel ─▶ endpoint ─ 101, 2xx ─▶ tunnel_open ─▶ each direction ends by itself ─▶ tunnel_over
//               │ 403                        └─ anything else: an ordinary response, then the connection ends
//
// No byte behind the request goes on before the endpoint has agreed: it would be the next request for one that does not know the
// upgrade, a smuggled one.
#include "dataplane/http_proxy.h"
#include "lib/http/connection.h"
#include "lib/http/websocket.h"
#include "lib/wire/proxy_protocol.h"

namespace millrace::dataplane {

using http::HeaderId;
using http::LocalReply;
using http::ResponseDetail;
using stats::HcmCounter;
using stats::HttpCounter;
using stats::ResponseFlag;

namespace {

constexpr std::string_view kKeyName = "sec-websocket-key", kAcceptName = "sec-websocket-accept";

bool list_has_type(std::string_view list, std::string_view type) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (http::equals_ignore_case(list.substr(0, comma), type)) return true;
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
  }
  return false;
}

}  // namespace

// Envoy: HttpConnectionManagerConfig::createUpgradeFilterChain. The route's word, where it has one, else the connection
// manager's.
bool HttpProxy::upgrade_allowed(Exchange& ex, const table::VirtualHost& host, const table::Route& route) {
  const http::HeaderTable& headers = ex.request.headers;
  const HttpPolicy& policy = ex.downstream->policy->http;
  stats::ScopeBlock& hcm = ctx_.stats.scope(policy.stat_slot);
  // Envoy keeps `upgrade` as one field: a repeated one is a list, which is no type.
  const bool one = (headers.repeated() & http::bit_of(HeaderId::kUpgrade)) == 0;
  const std::string_view type = ex.is_connect ? std::string_view("connect") : one ? headers.get(HeaderId::kUpgrade) : "";
  const table::UpgradeConfig* said = nullptr;
  for (const table::UpgradeConfig* u = route.upgrades.begin(&host); u != route.upgrades.end(&host) && said == nullptr; ++u)
    if (http::equals_ignore_case(table::view(&host, u->type), type)) said = u;
  const bool allowed = !type.empty() && (said != nullptr ? said->enabled != 0 : list_has_type(policy.upgrades.view(), type));
  if (!allowed) {
    ctx_.stats->http[HttpCounter::kUpgradeDenied].add();
    hcm[HcmCounter::kRqWsOnNonWsRoute].add();
    return false;
  }
  hcm[HcmCounter::kCxUpgradesTotal].add();
  hcm[HcmCounter::kCxUpgradesActive].add();
  ex.is_websocket = ex.odd_head = http::equals_ignore_case(type, "websocket");
  return true;
}

// `body`: of an upgrade request of HTTP/1.1, which comes before the other protocol does.
void HttpProxy::begin_tunnel(Exchange& ex, http::BodyFraming body) {
  ex.tunnel = true;
  ex.unusual |= kUnusualTunnel;
  ex.request_phase = RequestPhase::kBody;
  ex.request_complete_at = 0;
  ex.request_deadline = deadline_after(ex.started_at, ex.downstream->policy->http.request_timeout_ms);
  if (ex.stream != nullptr || ex.is_connect) return ex.request_body.decoder.start({http::Framing::kTunnel, 0});
  start_body(ex.request_body, body, body.kind == http::Framing::kChunked, false);
}

// RFC 8441 5: over extended CONNECT there is no key, and an endpoint of HTTP/1.1 wants one.
bool HttpProxy::add_websocket_key(Exchange& ex) {
  if (ex.stream == nullptr || ex.request.headers.find(kKeyName) != nullptr) return true;
  char* key = ex.scratch.allocate(http::kWebSocketKeyBytes);
  if (key == nullptr) return false;
  const uint64_t random[2] = {ctx_.random.next(), ctx_.random.next()};
  http::write_websocket_key(random, key);
  ex.websocket_key = {key, http::kWebSocketKeyBytes};
  return ex.request.headers.push({kKeyName, ex.websocket_key});
}

// Towards an endpoint of HTTP/2 an upgrade is an extended CONNECT (RFC 8441 4), which the endpoint has to allow first. False: it
// waits for the endpoint's SETTINGS, or was answered.
bool HttpProxy::begin_stream_tunnel(Exchange& ex) {
  const http::Framing kind = ex.request_body.decoder.framing().kind;
  if (kind != http::Framing::kTunnel && !ex.request_body.decoder.done()) {  // a body first: a stream has one for all
    upstreams_.cancel(ex);
    reply(ex, LocalReply::kUpgradeRefused);
    return false;
  }
  if (!ex.is_connect) {
    Http2ClientStream& s = *ex.upstream_stream;
    switch (upstreams_.http2().extended_connect(s)) {
      case Http2Client::Allowed::kUnknown:
        return false;
      case Http2Client::Allowed::kNo:
        upstreams_.cancel(ex);
        ex.flags.set(ResponseFlag::kUpstreamProtocolError);
        reply(ex, LocalReply::kUpstreamProtocolError);
        return false;
      case Http2Client::Allowed::kYes:
        break;
    }
    s.protocol = ex.request.headers.get(HeaderId::kUpgrade);
    ex.request.headers.remove(HeaderId::kContentLength);  // at most "0"
  }
  ex.request_body.decoder.start({http::Framing::kTunnel, 0});
  return true;
}

// The answer to an extended CONNECT as HTTP/1.1 would have it: 200 is 101. False: there is no room for it.
bool HttpProxy::http1_answer(Exchange& ex) {
  if (ex.is_connect || ex.response.status != 200) return true;
  http::HeaderTable& headers = ex.response.headers;
  const std::string_view type = ex.request.headers.get(HeaderId::kUpgrade);
  ex.response.status = ex.status = 101;
  bool room = headers.set(HeaderId::kConnection, "Upgrade") && headers.set(HeaderId::kUpgrade, type);
  // RFC 8441 5: there is neither key nor accept on a stream, and a client of HTTP/1.1 has sent the one and wants the other.
  const http::Header* key = ex.request.headers.find(kKeyName);
  if (ex.is_websocket && ex.stream == nullptr && key != nullptr && headers.find(kAcceptName) == nullptr) {
    char* accept = key->value.size() == http::kWebSocketKeyBytes ? ex.scratch.allocate(http::kWebSocketAcceptBytes) : nullptr;
    if (accept != nullptr) http::write_websocket_accept(key->value, accept);
    room = room && (accept == nullptr || headers.push({kAcceptName, {accept, http::kWebSocketAcceptBytes}}));
  }
  if (room && !ex.scratch.overflowed()) return true;
  upstreams_.cancel(ex);
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  reply(ex, LocalReply::kOverload, ResponseFlag::kOverloadManager);
  return false;
}

// The endpoint's answer to an upgrade or CONNECT. *in: how its body is framed. False: answered otherwise, the exchange is over.
bool HttpProxy::answer_upgrade(Exchange& ex, http::BodyFraming* in) {
  http::ResponseHead& response = ex.response;
  if (ex.upstream_stream == nullptr) ex.upstream->reusable = false;
  if (in->kind != http::Framing::kTunnel) {
    if (ex.is_websocket && response.status < 400 &&
        ex.upstream_stream != nullptr) {  // what its stream still brings is not wanted
      upstreams_.cancel(ex);
      ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
      ex.detail = ResponseDetail::kWebSocketHandshakeUnsuccessful;
      reply(ex, LocalReply::kUpstreamProtocolError, ResponseFlag::kUpstreamProtocolError);
      return false;
    }
    // Envoy: a WebSocket handshake is refused by an error; any other answer to one is no answer, and its body nothing.
    if (ex.is_websocket && response.status < 400) {
      ex.detail = ResponseDetail::kWebSocketHandshakeUnsuccessful;
      response.headers.remove(HeaderId::kContentLength);
      *in = {};
    }
    return true;
  }
  if (!ex.websocket_key.empty()) {  // the handshake with the endpoint is ours
    char expected[http::kWebSocketAcceptBytes];
    http::write_websocket_accept(ex.websocket_key, expected);
    const http::Header* accept = response.headers.find(kAcceptName);
    if (accept == nullptr || accept->value != std::string_view(expected, sizeof expected)) {
      upstreams_.cancel(ex);
      ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
      ex.flags.set(ResponseFlag::kUpstreamProtocolError);
      ex.detail = ResponseDetail::kNone;
      reply(ex, LocalReply::kBadWebSocketAccept);
      return false;
    }
    response.headers.remove(kAcceptName);
  }
  ex.tunnel_open = true;
  ex.route_deadline = base::kNever;
  response.headers.remove(HeaderId::kContentLength);     // RFC 9110 9.3.6: there is no content
  if (ex.stream != nullptr && response.status == 101) {  // RFC 8441 5: agreement is a 2xx
    response.status = 200;
    response.headers.remove_ids(http::bit_of(HeaderId::kConnection) | http::bit_of(HeaderId::kUpgrade));
  }
  return true;
}

// What the endpoint is told of whose connection it is.
bool HttpProxy::write_proxy_header(Session& to, const tcp::FourTuple& client, uint8_t version) {
  wire::ProxyHeader header;
  header.version = version;
  header.local = false;
  header.source = client.remote;
  header.source_port = client.remote_port;
  header.destination = client.local;
  header.destination_port = client.local_port;
  uint8_t bytes[wire::kMostProxyV1Bytes];  // version 2 without TLVs is shorter
  const size_t n = wire::write_proxy_header(header, bytes);
  return ctx_.transports.write_copy(to, base::ByteSpan{bytes, n}, ctx_.now) == n;
}

// The connection to the endpoint is there, and it is no HTTP: the answer is ours (Envoy: TcpUpstream::encodeHeaders).
void HttpProxy::open_raw_tunnel(Exchange& ex) {
  ex.upstream_head_sent = true;
  ex.upstream_sent_at = ex.last_activity = ctx_.now;
  if (ex.proxy_version != 0 && !write_proxy_header(*ex.upstream, ex.downstream->tuple(), ex.proxy_version)) {
    ex.flags.set(ResponseFlag::kOverloadManager);
    upstreams_.cancel(ex);
    return reply(ex, LocalReply::kOverload);
  }
  ex.response_buffer = ctx_.heads.acquire();
  if (ex.response_buffer == nullptr) {
    ex.flags.set(ResponseFlag::kOverloadManager);
    upstreams_.cancel(ex);
    return reply(ex, LocalReply::kOverload);
  }
  ex.response = {};
  ex.response.status = 200;
  ex.response.headers = http::HeaderTable(ex.response_buffer->headers, ex.response_buffer->header_capacity);
  forward_response_head(ex);
  if (!ex.active()) return;
  if (ex.request_phase == RequestPhase::kComplete) return ctx_.transports.shutdown(*ex.upstream, ctx_.now);
  relay_request(ex);
}

// The client says no more. Its own body in front of the other protocol may have been all so far.
void HttpProxy::tunnel_request_over(Exchange& ex) {
  if (ex.stream == nullptr && ex.request_body.decoder.framing().kind != http::Framing::kTunnel) {
    ex.request_body.chunked_out = false;  // its last chunk is written
    if (!ex.tunnel_open) return;
    ex.request_body.decoder.start({http::Framing::kTunnel, 0});
    return relay_request(ex);
  }
  ex.request_phase = RequestPhase::kComplete;
  ex.request_complete_at = ctx_.now;
  if (ex.response_phase == ResponsePhase::kComplete) return tunnel_over(ex);
  if (ex.upstream_stream == nullptr) ctx_.transports.shutdown(*ex.upstream, ctx_.now);  // a stream has END_STREAM
}

void HttpProxy::tunnel_response_over(Exchange& ex) {
  ex.response_phase = ResponsePhase::kComplete;
  if (ex.request_phase == RequestPhase::kComplete) return tunnel_over(ex);
  if (ex.stream == nullptr) ctx_.transports.shutdown(*ex.downstream, ctx_.now);
}

void HttpProxy::tunnel_over(Exchange& ex) {
  if (const Http2ClientStream* s = ex.upstream_stream; s != nullptr && !s->closed) return;  // when its last bytes are framed
  upstreams_.finish(ex, false);
  finish(ex);
}

}  // namespace millrace::dataplane
