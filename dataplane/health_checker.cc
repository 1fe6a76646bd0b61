#include "dataplane/health_checker.h"

#include <algorithm>
#include <bit>

#include "dataplane/endpoint_health.h"
#include "lib/http/connection.h"

namespace millrace::dataplane {

using stats::CheckResult;
using stats::ClusterCheckCounter;
using table::HealthCheckKind;

HealthChecker::HealthChecker(WorkerContext& context, HealthKeeper& keeper, const tcp::Profile& profile, http::H2Context& http2)
    : ctx_(context),
      keeper_(keeper),
      profile_(profile),
      sessions_(context.limits.health_checks),
      http2_context_(http2),
      http2_(context.limits.http2_connections),
      buckets_(std::make_unique<Bucket[]>(std::bit_ceil(context.limits.health_checks))),
      mask_(std::bit_ceil(context.limits.health_checks) - 1) {}

HealthChecker::~HealthChecker() {
  for (uint32_t i = 0; i < sessions_.ever_used(); ++i) {
    if (!sessions_.lent(i)) continue;
    CheckSession& s = sessions_[i];
    close(s, true);
    ctx_.disarm(s.timer);
    s.bucket.unlink();
    sessions_.free(&s);
  }
}

// ---- which endpoints are checked
// -----------------------------------------------------------------------------------------------

CheckSession* HealthChecker::find(stats::ScopeSlot endpoint) {
  for (CheckSession& s : bucket(endpoint))
    if (s.endpoint_slot == endpoint) return &s;
  return nullptr;
}

// Null where it is not to be checked (any more).
HealthChecker::Target HealthChecker::target(CheckSession& s) const {
  const ClusterRuntime* c = ctx_.tables->cluster(s.cluster);
  if (c == nullptr || !owns(*c) || c->slot != s.cluster_slot || c->check_slot != s.check_slot) return {};
  const std::vector<stats::ScopeSlot>& slots = c->endpoint_slots;
  if (s.endpoint >= slots.size() || slots[s.endpoint] != s.endpoint_slot) {
    const auto at = std::find(slots.begin(), slots.end(), s.endpoint_slot);
    if (at == slots.end()) return {};
    s.endpoint = static_cast<uint32_t>(at - slots.begin());
  }
  const table::Endpoint& e = c->endpoint_list()[s.endpoint];
  if (e.no_health_check != 0) return {};
  return {c, &e};
}

void HealthChecker::on_tables() {
  ++sweep_;
  cluster_at_ = endpoint_at_ = session_at_ = 0;
  due_ = ctx_.tables->watched_clusters().empty() && sessions_.in_use() == 0 ? base::kNever : ctx_.now;
}

void HealthChecker::step() {
  if (ctx_.now < due_) return;
  const std::span<const ClusterRuntime* const> clusters = ctx_.tables->watched_clusters();
  for (uint32_t budget = kPerTurn; cluster_at_ < clusters.size();) {
    const ClusterRuntime& c = *clusters[cluster_at_];
    if (!owns(c) || endpoint_at_ == c.endpoint_slots.size()) {
      ++cluster_at_;
      endpoint_at_ = 0;
      continue;
    }
    if (budget-- == 0) return;
    if (endpoint_at_ == 0) ctx_.stats.scope(c.check_slot)[ClusterCheckCounter::kUnchecked].set(0);
    sweep_endpoint(c, endpoint_at_++);
  }
  for (uint32_t budget = kPerTurn; session_at_ < sessions_.ever_used(); ++session_at_) {
    if (budget-- == 0) return;
    if (sessions_.lent(session_at_) && sessions_[session_at_].swept != sweep_) stop(sessions_[session_at_]);
  }
  due_ = base::kNever;
}

void HealthChecker::sweep_endpoint(const ClusterRuntime& c, uint32_t i) {
  const stats::ScopeSlot slot = c.endpoint_slots[i];
  CheckSession* s = find(slot);
  if (s != nullptr && (s->cluster != c.id || s->check_slot != c.check_slot)) stop(*std::exchange(s, nullptr));
  if (c.endpoint_list()[i].no_health_check != 0) {
    if (s != nullptr) stop(*s);
    std::atomic<uint32_t>& state = ctx_.stats.health(slot).state;
    const uint32_t before = state.load(std::memory_order_relaxed);
    if ((before & stats::kHealthCheckPassed) != 0) return;
    state.store(before | stats::kHealthCheckPassed, std::memory_order_relaxed);
    return health_changed(ctx_.stats, c.slot);
  }
  if (s == nullptr) return start(c, i);
  s->swept = sweep_;
  s->endpoint = i;
  if (s->check_hash == c.check_hash) return;
  s->check_hash = c.check_hash;
  s->under_way = false;
  close(*s, true);
  begin(*s, {&c, &c.endpoint_list()[i]});
}

void HealthChecker::start(const ClusterRuntime& c, uint32_t i) {
  CheckSession* s = sessions_.alloc();
  if (s == nullptr) {
    ctx_.stats.scope(c.check_slot)[ClusterCheckCounter::kUnchecked].add();
    return;
  }
  s->cluster = c.id;
  s->cluster_slot = c.slot;
  s->check_slot = c.check_slot;
  s->endpoint_slot = c.endpoint_slots[i];
  s->endpoint = i;
  s->check_hash = c.check_hash;
  s->swept = sweep_;
  s->state = {};
  s->under_way = s->ready = s->degraded = false;
  s->connection = nullptr;
  s->tls = nullptr;
  s->head = nullptr;
  s->h2 = nullptr;
  bucket(s->endpoint_slot).push_front(*s);
  // What is left of the time when it was not checked: it has to pass.
  std::atomic<uint32_t>& state = ctx_.stats.health(s->endpoint_slot).state;
  const uint32_t before = state.load(std::memory_order_relaxed);
  if ((before & (stats::kHealthCheckPassed | stats::kHealthCheckDegraded)) != 0) {
    state.store(before & ~uint32_t{stats::kHealthCheckPassed | stats::kHealthCheckDegraded}, std::memory_order_relaxed);
    health_changed(ctx_.stats, c.slot);
  }
  ctx_.stats.health(s->endpoint_slot).check_result.set(static_cast<uint64_t>(Result::kNone));
  ctx_.stats.health(s->endpoint_slot).check_failures.set(0);
  const Target t{&c, &c.endpoint_list()[i]};
  const uint64_t wait = CheckState::initial_ms(t.check(), [&] { return ctx_.random.next(); });
  if (wait == 0) begin(*s, t);
  else ctx_.arm(s->timer, base::time_add(ctx_.now, wait * base::kMillisecond));
}

void HealthChecker::stop(CheckSession& s) {
  close(s, true);
  ctx_.disarm(s.timer);
  show(s, false, false);
  s.bucket.unlink();
  sessions_.free(&s);
}

// Whether anybody ever opened a connection to the cluster (checks do not count).
bool HealthChecker::has_traffic(const ClusterRuntime& c) const {
  if (ctx_.health_mesh == nullptr) return ctx_.stats.scope(c.slot)[stats::ClusterCounter::kCxTotal].read() != 0;
  for (uint32_t w = 0; w < ctx_.health_mesh->workers(); ++w)
    if (ctx_.health_mesh->counters(w, c.slot)[stats::ClusterCounter::kCxTotal].read() != 0) return true;
  return false;
}

// ---- a check
// ---------------------------------------------------------------------------------------------------------------------

void HealthChecker::on_timer(CheckSession& s) {
  const Target t = target(s);
  if (t.cluster == nullptr) return stop(s);
  if (!s.under_way) return begin(s, t);
  close(s, true);
  fail(s, t, CheckFailure::kNetwork, CheckResult::kTimeout);
}

void HealthChecker::begin(CheckSession& s, const Target& t) {
  count(s, ClusterCheckCounter::kAttempt).add();
  s.under_way = true;
  s.scanned = 0;
  s.head_done = s.found = s.close_after = s.says_degraded = false;
  s.status = 0;
  s.looked_at = 0;
  s.match.start();
  ctx_.arm(s.timer, base::time_add(ctx_.now, t.check().timeout_ms * base::kMillisecond));
  if (s.connection == nullptr) {
    if (!open(s, t)) fail(s, t, CheckFailure::kNetwork, CheckResult::kLocal);
  } else {
    ask(s, t);
  }
}

bool HealthChecker::open(CheckSession& s, const Target& t) {
  const table::Cluster& c = *t.cluster->object;
  const uint16_t port = t.endpoint->health_port != 0 ? static_cast<uint16_t>(t.endpoint->health_port) : t.endpoint->port;
  ConnectError why = ConnectError::kNone;
  s.connection =
      ctx_.stack.connect(t.endpoint->address, port, ctx_.stack.profile(profile_, c.tcp, c.per_connection_buffer_limit_bytes),
                         ctx_.now, static_cast<Session*>(&s), &why, t.check().timeout_ms * base::kMillisecond);
  s.ready = s.fin_received = s.peer_closed = s.shut_down = false;
  s.tls = nullptr;
  s.opened_at = ctx_.now;
  return s.connection != nullptr;
}

void HealthChecker::on_ready(CheckSession& s, uint32_t events) {
  const Target t = target(s);
  if (t.cluster == nullptr) return stop(s);
  CheckResult why = CheckResult::kNone;
  if (!s.ready) {
    if (!become_ready(s, t, &events, &why)) return lost(s, t, why);
    if (!s.ready) return;
    ask(s, t);
    if (s.connection == nullptr || events == 0) return;
  }
  if ((events & (tcp::kEventReset | tcp::kEventTimedOut)) != 0) s.peer_closed = true;
  else if ((events & (tcp::kEventReadable | tcp::kEventPeerFin)) != 0 && ctx_.transports.pull(s, events, ctx_.now).failed)
    return lost(s, t, CheckResult::kTls);
  if ((events & tcp::kEventSendSpace) != 0) ctx_.transports.on_send_space(s, ctx_.now);
  read(s, t);
}

// TCP's handshake is done, then TLS's where the cluster has it.
bool HealthChecker::become_ready(CheckSession& s, const Target& t, uint32_t* events, CheckResult* why) {
  const table::Cluster& c = *t.cluster->object;
  if ((*events & (tcp::kEventReset | tcp::kEventTimedOut)) != 0) {
    *why = (*events & tcp::kEventTimedOut) != 0 ? CheckResult::kTimeout
           : s.tls == nullptr                   ? CheckResult::kRefused
                                                : CheckResult::kTls;
    return false;
  }
  if (s.tls == nullptr) {
    if ((*events & tcp::kEventConnected) == 0) return true;
    *events &= ~uint32_t{tcp::kEventConnected};
    if (c.has_tls == 0) {
      *why = CheckResult::kLocal;
      return s.ready = t.check().http2 == 0 || start_http2(s, t);
    }
    tls::ClientContext* context = t.cluster->tls_context(ctx_.worker);
    std::string_view sni = table::view(&c, c.tls.sni);
    if (c.tls.auto_host_sni != 0 && t.endpoint->hostname.count != 0)
      sni = table::view(t.cluster->endpoints, t.endpoint->hostname);
    const std::string_view alpn = t.check().http2 != 0 && c.tls.alpn.count == 0 ? "\x02h2" : std::string_view();
    *why = CheckResult::kTls;
    if (context == nullptr || !ctx_.transports.start_tls_client(s, *context, sni, alpn)) return false;
  }
  const TransportEvents done = ctx_.transports.pull(s, *events, ctx_.now);
  *why = CheckResult::kTls;
  if (done.failed) return false;
  s.ready = done.handshake_done;
  *events &= ~uint32_t{tcp::kEventReadable};
  if (!ctx_.transports.rx(s).empty() || s.peer_closed) *events |= tcp::kEventReadable;
  *why = CheckResult::kLocal;
  return !s.ready || t.check().http2 == 0 || start_http2(s, t);
}

// The connection takes what is to be sent.
void HealthChecker::ask(CheckSession& s, const Target& t) {
  const table::HealthCheck& h = t.check();
  const void* object = t.cluster->object;
  const auto write = [&](const table::Blob& b) {
    if (b.count != 0) ctx_.transports.write_copy(s, base::ByteSpan{b.begin(object), b.count}, ctx_.now);
  };
  if (!s.ready) return;
  if (s.h2 != nullptr) return ask_http2(s, t);
  write(h.front);
  if (h.kind == HealthCheckKind::kHttp) {
    const table::Str& own = t.endpoint->health_host;
    ctx_.transports.write_copy(s, own.count != 0 ? table::view(t.cluster->endpoints, own) : table::view(object, h.host),
                               ctx_.now);
    write(h.back);
  } else if (h.receive.count == 0) {  // that it connects is enough
    close(s, false);
    succeed(s, t, false);
  }
}

void HealthChecker::read(CheckSession& s, const Target& t) {
  if (s.h2 != nullptr) return read_http2(s, t);
  io::PacketQueue& rx = ctx_.transports.rx(s);
  if (!s.under_way) {
    if (rx.empty() && !s.peer_closed && !s.fin_received) return;
    // Nobody asked for anything. As in Envoy the end of an idle connection is a failure of a TCP check, and nothing to an HTTP
    // one.
    if (t.check().kind == HealthCheckKind::kTcp) {
      if (s.peer_closed || s.fin_received) return lost(s, t, CheckResult::kClosed);
      rx.consume(rx.bytes());
      ctx_.transports.after_read(s, ctx_.now);
      return;
    }
    return close(s, !rx.empty());
  }
  if (!rx.empty() && s.head == nullptr) {
    s.head = ctx_.heads.acquire();
    if (s.head == nullptr) return lost(s, t, CheckResult::kLocal);
  }
  if (t.check().kind == HealthCheckKind::kTcp) read_tcp(s, t);
  else read_http(s, t);
}

void HealthChecker::read_tcp(CheckSession& s, const Target& t) {
  io::PacketQueue& rx = ctx_.transports.rx(s);
  const table::HealthCheck& h = t.check();
  const auto text = [&](uint32_t i) {
    const table::Blob& b = h.receive.at(t.cluster->object, i).bytes;
    return base::ByteSpan{b.begin(t.cluster->object), b.count};
  };
  do {
    while (!rx.empty()) {
      s.found = s.match.feed(rx.front(), {s.head->data, HeadBufferPool::kSmallBytes}, h.receive.count, text);
      rx.consume(rx.front().size());
      if (!s.found) continue;
      rx.consume(rx.bytes());
      ctx_.transports.after_read(s, ctx_.now);
      if (h.reuse_connection == 0 || s.peer_closed) close(s, false);
      return succeed(s, t, false);
    }
  } while (ctx_.transports.after_read(s, ctx_.now));
  if (s.peer_closed) lost(s, t, CheckResult::kClosed);
}

void HealthChecker::read_http(CheckSession& s, const Target& t) {
  io::PacketQueue& rx = ctx_.transports.rx(s);
  const table::HealthCheck& h = t.check();
  const auto text = [&](uint32_t i) {
    const table::Blob& b = h.receive.at(t.cluster->object, i).bytes;
    return base::ByteSpan{b.begin(t.cluster->object), b.count};
  };
  if (!s.head_done && !rx.empty() && !read_head(s, t)) return;
  while (s.head_done) {
    const base::ByteSpan in = rx.front();
    const http::BodyDecoder::Step step = s.body.step(in);
    if (step.status == http::BodyStatus::kBad) return lost(s, t, CheckResult::kProtocol);
    base::ByteSpan data = in.subspan(step.skip, step.data);
    if (h.receive_limit != 0)
      data = data.first(std::min<uint64_t>(data.size(), h.receive_limit - std::min<uint64_t>(s.looked_at, h.receive_limit)));
    s.looked_at += data.size();
    if (!s.found && !data.empty()) s.found = s.match.feed(data, {s.head->data, s.head->capacity}, h.receive.count, text);
    rx.consume(step.skip + step.data);
    if (step.status == http::BodyStatus::kDone) return answered(s, t);
    if (rx.empty() && !ctx_.transports.after_read(s, ctx_.now)) break;
  }
  if (!s.peer_closed) return;
  if (s.head_done && s.body.finish()) {
    s.close_after = true;
    return answered(s, t);
  }
  lost(s, t, CheckResult::kClosed);
}

// False: not all of it is there, or the check has failed.
bool HealthChecker::read_head(CheckSession& s, const Target& t) {
  constexpr std::string_view kDegraded = "x-envoy-degraded";
  io::PacketQueue& rx = ctx_.transports.rx(s);
  http::H1Limits limits;
  limits.max_head_bytes = t.cluster->object->max_response_headers_bytes;
  limits.max_header_count = t.cluster->object->max_response_headers_count;
  limits.accept_http_10 = true;
  for (;;) {
    HeadBuffer& h = *s.head;
    h.used += static_cast<uint32_t>(rx.peek(h.used, reinterpret_cast<uint8_t*>(h.data) + h.used, h.capacity - h.used));
    http::ResponseHead response;
    response.headers = http::HeaderTable(h.headers, h.header_capacity);
    const http::HeadResult r = http::parse_response_head(h.bytes(), s.scanned, limits, &response);
    if (r.status == http::ParseStatus::kPartial) {
      s.scanned = h.used;
      if (h.used < h.capacity) {
        if (s.peer_closed) lost(s, t, CheckResult::kClosed);
        return false;
      }
      HeadBuffer* large = ctx_.heads.grow(&h);
      if (large == nullptr) return lost(s, t, CheckResult::kProtocol), false;
      s.head = large;
      continue;
    }
    if (r.status != http::ParseStatus::kDone) return lost(s, t, CheckResult::kProtocol), false;
    rx.consume(r.consumed);
    h.used = 0;
    s.scanned = 0;
    if (response.status < 200 && response.status != 101) {
      if (rx.empty() && !ctx_.transports.after_read(s, ctx_.now)) {
        if (s.peer_closed) lost(s, t, CheckResult::kClosed);
        return false;
      }
      continue;
    }
    s.status = response.status;
    s.says_degraded = response.headers.find(kDegraded) != nullptr;
    s.close_after = http::should_close(response.version, response.headers);
    const http::BodyFraming framing = http::response_framing(response, t.check().head_method != 0 ? "HEAD" : "GET", false);
    s.body.start(framing);
    s.head_done = true;
    return true;
  }
}

void HealthChecker::answered(CheckSession& s, const Target& t) {
  const table::HealthCheck& h = t.check();
  if (s.close_after || h.reuse_connection == 0 || s.peer_closed || !ctx_.transports.rx(s).empty()) close(s, false);
  else ctx_.transports.after_read(s, ctx_.now);
  judge(s, t);
}

// HttpActiveHealthCheckSession::healthCheckResult.
void HealthChecker::judge(CheckSession& s, const Target& t) {
  const table::HealthCheck& h = t.check();
  const auto in = [&](const table::Array<table::StatusRange>& ranges) {
    for (uint32_t i = 0; i < ranges.count; ++i) {
      const table::StatusRange& r = ranges.at(t.cluster->object, i);
      if (s.status >= r.from && s.status < r.to) return true;
    }
    return false;
  };
  constexpr uint16_t kOk = 200;
  const bool expected = h.expected.count == 0 ? s.status == kOk : in(h.expected);
  const CheckFailure kind = in(h.retriable) ? CheckFailure::kRetriable : CheckFailure::kActive;
  const bool found = h.receive.count == 0 || s.found;
  if (!expected) return fail(s, t, kind, CheckResult::kStatus);
  if (!found) return fail(s, t, kind, CheckResult::kPayload);
  succeed(s, t, s.says_degraded);
}

// The connection ended, or is given up: with the check that is under way, or (TCP) between two of them.
void HealthChecker::lost(CheckSession& s, const Target& t, CheckResult why) {
  close(s, true);
  fail(s, t, CheckFailure::kNetwork, why);
}

// ---- results
// ---------------------------------------------------------------------------------------------------------------------

void HealthChecker::succeed(CheckSession& s, const Target& t, bool degraded) {
  count(s, ClusterCheckCounter::kSuccess).add();
  const CheckState::Transition transition = s.state.success(t.check());
  show(s, !s.state.failed(), degraded);
  if (!s.state.failed()) keeper_.check_succeeded(s.endpoint_slot);
  settle(s, t, true, transition, CheckResult::kSuccess);
}

void HealthChecker::fail(CheckSession& s, const Target& t, CheckFailure kind, CheckResult why) {
  count(s, ClusterCheckCounter::kFailure).add();
  if (kind == CheckFailure::kNetwork) count(s, ClusterCheckCounter::kNetworkFailure).add();
  const CheckState::Transition transition = s.state.failure(t.check(), kind);
  show(s, !s.state.failed(), s.degraded);
  settle(s, t, false, transition, why);
}

void HealthChecker::settle(CheckSession& s, const Target& t, bool success, CheckState::Transition transition,
                           CheckResult result) {
  s.under_way = false;
  if (s.head != nullptr) ctx_.heads.release(std::exchange(s.head, nullptr));
  stats::EndpointHealth& h = ctx_.stats.health(s.endpoint_slot);
  h.check_result.set(static_cast<uint64_t>(result) | uint64_t{s.status} << 8);
  h.checked_at_ns.set(ctx_.now);
  h.check_failures.set(success ? 0 : h.check_failures.read() + 1);
  const uint64_t wait =
      CheckState::interval_ms(t.check(), success, transition, has_traffic(*t.cluster), [&] { return ctx_.random.next(); });
  ctx_.arm(s.timer, base::time_add(ctx_.now, wait * base::kMillisecond));
}

// For everybody to see.
void HealthChecker::show(CheckSession& s, bool passed, bool degraded) {
  std::atomic<uint32_t>& state = ctx_.stats.health(s.endpoint_slot).state;
  const uint32_t before = state.load(std::memory_order_relaxed);
  constexpr uint32_t kMine = stats::kHealthCheckPassed | stats::kHealthCheckDegraded;
  const uint32_t after =
      (before & ~kMine) | (passed ? stats::kHealthCheckPassed : 0u) | (degraded ? stats::kHealthCheckDegraded : 0u);
  if (s.degraded != degraded) {
    if (degraded) count(s, ClusterCheckCounter::kDegraded).add();
    else count(s, ClusterCheckCounter::kDegraded).sub();
    s.degraded = degraded;
  }
  if (before == after) return;
  if (((before ^ after) & stats::kHealthCheckPassed) != 0) {
    if (passed) count(s, ClusterCheckCounter::kHealthy).add();
    else count(s, ClusterCheckCounter::kHealthy).sub();
  }
  state.store(after, std::memory_order_relaxed);
  health_changed(ctx_.stats, s.cluster_slot);
}

void HealthChecker::close(CheckSession& s, bool reset) {
  if (s.head != nullptr) ctx_.heads.release(std::exchange(s.head, nullptr));
  if (s.h2 != nullptr) {
    s.h2->end_stream();
    s.h2->connection.stop();
    http2_.free(std::exchange(s.h2, nullptr));
  }
  if (s.connection == nullptr) return;
  if (reset) ctx_.transports.abort(s, ctx_.now);
  else ctx_.transports.detach(s, ctx_.now);
  s.connection = nullptr;
  s.ready = false;
}

}  // namespace millrace::dataplane
