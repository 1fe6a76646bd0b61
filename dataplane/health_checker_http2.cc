// Health checks over HTTP/2, gRPC's among them: one stream a check, on a connection of their own.
#include <algorithm>
#include <memory>

#include "dataplane/health_checker.h"
#include "dataplane/http_policy.h"

namespace millrace::dataplane {

using stats::CheckResult;
using table::HealthCheckKind;

bool HealthChecker::start_http2(CheckSession& s, const Target& t) {
  CheckHttp2* h = http2_.alloc();
  if (h == nullptr) return false;
  std::destroy_at(h);
  std::construct_at(h);
  h->heads = &ctx_.heads;
  const table::Cluster& c = *t.cluster->object;
  http::H2Options o = h2_options_of(c.http2);
  o.max_head_bytes = c.max_response_headers_bytes;
  o.max_headers = c.max_response_headers_count + 1;  // :status
  if (!h->connection.start(http2_context_, http::H2Role::kClient, o, *h)) {
    http2_.free(h);
    return false;
  }
  s.h2 = h;
  return true;
}

void HealthChecker::ask_http2(CheckSession& s, const Target& t) {
  const table::Cluster& c = *t.cluster->object;
  const table::HealthCheck& h = t.check();
  const auto text = [&](const table::Blob& b) { return std::string_view(reinterpret_cast<const char*>(b.begin(&c)), b.count); };
  const table::Str& own = t.endpoint->health_host;
  const std::string_view host = own.count != 0 ? table::view(t.cluster->endpoints, own) : table::view(&c, h.host);
  const std::string_view request[] = {text(h.front), host, text(h.back)};
  if (!s.h2->ask(request, c.has_tls != 0, ctx_.stack.pool())) return lost(s, t, CheckResult::kLocal);
  flush_http2(s, t);
}

// False: the connection is over, and the check, if one was under way, has failed.
bool HealthChecker::flush_http2(CheckSession& s, const Target& t) {
  http::H2Connection& c = s.h2->connection;
  while (const uint64_t space = ctx_.transports.tx_space(s)) {
    io::PacketQueue out;
    c.produce(out, space);
    if (out.empty()) break;
    while (io::PacketPtr p = out.pop()) ctx_.transports.write(s, std::move(p), ctx_.now);
  }
  if (c.error() == http::H2Error::kNone) return true;
  if (s.under_way) lost(s, t, c.error() == http::H2Error::kNoMemory ? CheckResult::kLocal : CheckResult::kProtocol);
  else close(s, false);
  return false;
}

void HealthChecker::read_http2(CheckSession& s, const Target& t) {
  io::PacketQueue& rx = ctx_.transports.rx(s);
  http::H2Connection& c = s.h2->connection;
  do {
    if (!rx.empty()) c.receive(rx, ctx_.now);
    rx.clear();  // only a connection that is over leaves something
  } while (ctx_.transports.after_read(s, ctx_.now) && !rx.empty());
  while (c.pop_ready() != nullptr) {
  }
  if (s.under_way && take_http2(s, t)) return answered_http2(s, t);
  if (!flush_http2(s, t)) return;
  if (s.under_way && (s.peer_closed || (s.h2->stream.closed && !s.h2->stream.rx_end))) return lost(s, t, CheckResult::kClosed);
  if (!s.under_way && (s.peer_closed || c.going_away())) close(s, false);
}

// What has come of the answer; true when that is all.
bool HealthChecker::take_http2(CheckSession& s, const Target& t) {
  CheckHttp2& h = *s.h2;
  http::H2Stream& stream = h.stream;
  const table::HealthCheck& check = t.check();
  if (stream.informational) stream.informational = stream.head_complete = false;
  if (stream.head_complete && !s.head_done) {
    s.head_done = true;
    s.status = stream.response.status;
    s.says_degraded = stream.response.headers.find("x-envoy-degraded") != nullptr;
  }
  const auto text = [&](uint32_t i) {
    const table::Blob& b = check.receive.at(t.cluster->object, i).bytes;
    return base::ByteSpan{b.begin(t.cluster->object), b.count};
  };
  const uint64_t most = check.kind == HealthCheckKind::kGrpc ? HeadBufferPool::kSmallBytes
                        : check.receive_limit != 0           ? check.receive_limit
                                                             : UINT64_MAX;
  while (!stream.rx.empty()) {
    const base::ByteSpan in = stream.rx.front();
    const base::ByteSpan data = in.first(static_cast<size_t>(std::min<uint64_t>(in.size(), most - std::min(s.looked_at, most))));
    if (h.body == nullptr) h.body = ctx_.heads.acquire();
    if (h.body != nullptr && check.kind == HealthCheckKind::kGrpc) {
      std::copy(data.begin(), data.end(), h.body->data + s.looked_at);
      h.body->used = static_cast<uint32_t>(s.looked_at + data.size());
    } else if (h.body != nullptr && !s.found && !data.empty()) {
      s.found = s.match.feed(data, {h.body->data, h.body->capacity}, check.receive.count, text);
    }
    s.looked_at += data.size();
    const uint64_t n = in.size();
    stream.rx.consume(n);
    h.connection.consumed(stream, n);
  }
  return stream.rx_end && s.head_done;
}

// GrpcActiveHealthCheckSession::onRpcComplete; an HTTP answer as over HTTP/1.1.
void HealthChecker::answered_http2(CheckSession& s, const Target& t) {
  CheckHttp2& h = *s.h2;
  GrpcHealth grpc;
  const bool is_grpc = t.check().kind == HealthCheckKind::kGrpc;
  if (is_grpc) {
    std::span<const char> message;
    if (h.body != nullptr) message = {h.body->data, h.body->used};
    grpc = grpc_health(h.stream, message);
  }
  h.end_stream();
  s.under_way = false;  // what the connection meets from here on is not this check's
  if (!flush_http2(s, t)) {
  } else if (t.check().reuse_connection == 0 || s.peer_closed || h.connection.going_away()) {
    close(s, false);
  }
  if (!is_grpc) return judge(s, t);
  constexpr uint16_t kOk = 200;
  if (grpc.status == 0 && grpc.serving && s.status == kOk) return succeed(s, t, false);
  if (grpc.status == GrpcHealth::kNoStatus) return fail(s, t, CheckFailure::kActive, CheckResult::kStatus);
  if (grpc.status == 0) return fail(s, t, CheckFailure::kActive, CheckResult::kNotServing);
  s.status = static_cast<uint16_t>(grpc.status);
  fail(s, t, CheckFailure::kActive, CheckResult::kGrpc);
}

}  // namespace millrace::dataplane
