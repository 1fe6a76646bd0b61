// Retries, as Envoy's router and RetryStateImpl have them: when a request is sent once more, after which pause, and to whom. Runs
// only where a route or a request's fields ask for it (retry.h).
#include <algorithm>
#include <charconv>
#include <memory>

#include "dataplane/header_match.h"
#include "dataplane/http_proxy.h"
#include "lib/http/connection.h"
#include "lib/http/forward.h"
#include "lib/table/retry_on.h"

namespace millrace::dataplane {

using http::HeaderId;
using http::LocalReply;
using http::ResponseDetail;
using stats::ClusterCounter;
using stats::ResponseFlag;

namespace {

constexpr std::string_view kRetryOn = "x-envoy-retry-on", kRetryGrpcOn = "x-envoy-retry-grpc-on",
                           kMaxRetries = "x-envoy-max-retries", kPerTryTimeout = "x-envoy-upstream-rq-per-try-timeout-ms",
                           kStatusCodes = "x-envoy-retriable-status-codes", kHeaderNames = "x-envoy-retriable-header-names",
                           kRateLimited = "x-envoy-ratelimited", kIsTimeoutRetry = "x-envoy-is-timeout-retry";

// All of a decimal number.
template <class T>
bool parse_number(std::string_view text, T* out) {
  const char* const end = text.data() + text.size();
  const auto r = std::from_chars(text.data(), end, *out);
  return !text.empty() && r.ec == std::errc() && r.ptr == end;
}

std::string_view value_of(const http::HeaderTable& headers, std::string_view name) {
  const http::Header* h = headers.find(name);
  return h == nullptr ? std::string_view{} : h->value;
}

uint32_t words_in(std::string_view list) {
  uint32_t n = 0;
  table::for_each_word(list, [&](std::string_view) { ++n; });
  return n;
}

// A string of a table, or of the request, so that it lies at an offset from `base`.
class Copier {
 public:
  Copier(http::Scratch& scratch, const char* base) : scratch_(scratch), base_(base) {}
  table::Str copy(std::string_view text) {
    const std::string_view kept = scratch_.copy(text);
    table::Str s{};
    if (kept.data() == nullptr) return s;
    s.offset = static_cast<uint32_t>(kept.data() - base_);
    s.count = static_cast<uint32_t>(kept.size());
    return s;
  }

 private:
  http::Scratch& scratch_;
  const char* base_;
};

// Room for `count` of them. Null: the scratch overflows.
template <class T>
T* make_room(http::Scratch& scratch, uint32_t count) {
  char* raw = scratch.allocate(count * sizeof(T) + alignof(T));
  if (raw == nullptr) return nullptr;
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(raw) + alignof(T) - 1) & ~(alignof(T) - 1));
}
template <class T>
std::span<T> make_array(http::Scratch& scratch, uint32_t count) {
  T* const at = count == 0 ? nullptr : make_room<T>(scratch, count);
  if (at == nullptr) return {};
  std::uninitialized_value_construct_n(at, count);
  return {at, count};
}

bool grpc_retriable(const http::HeaderTable& headers, uint32_t retry_on) {
  constexpr struct {
    uint32_t status, bit;
  } kStatuses[] = {{1, table::kRetryOnGrpcCancelled},
                   {4, table::kRetryOnGrpcDeadlineExceeded},
                   {8, table::kRetryOnGrpcResourceExhausted},
                   {13, table::kRetryOnGrpcInternal},
                   {14, table::kRetryOnGrpcUnavailable}};
  uint32_t status = 0;
  if (!headers.has(HeaderId::kGrpcStatus) || !parse_number(headers.get(HeaderId::kGrpcStatus), &status)) return false;
  return std::any_of(std::begin(kStatuses), std::end(kStatuses),
                     [&](const auto& s) { return s.status == status && (retry_on & s.bit) != 0; });
}

// RetryStateImpl::wouldRetryFromHeaders
bool response_retriable(const RetryState& r, const http::ResponseHead& response) {
  const uint32_t on = r.retry_on;
  if (response.headers.find(kRateLimited) != nullptr) return (on & table::kRetryOnRateLimited) != 0;
  const uint32_t status = response.status;
  if ((on & table::kRetryOn5xx) != 0 && status >= 500 && status < 600) return true;
  if ((on & table::kRetryOnGatewayError) != 0 && status >= 502 && status <= 504) return true;
  if ((on & table::kRetryOnRetriable4xx) != 0 && status == 409) return true;
  if ((on & table::kRetryOnStatusCodes) != 0 &&
      std::find(r.status_codes.begin(), r.status_codes.end(), status) != r.status_codes.end())
    return true;
  if ((on & table::kRetryOnHeaders) != 0 &&
      std::any_of(r.response_headers.begin(), r.response_headers.end(),
                  [&](const table::ValueMatch& m) { return header_holds(r.strings, m, nullptr, &response.headers); }))
    return true;
  return (on & table::kRetryOnGrpc) != 0 && grpc_retriable(response.headers, on);
}

// RetryStateImpl::wouldRetryFromReset. `sent`: the request's head had gone.
bool reset_retriable(uint32_t on, UpstreamFailure failure, bool sent) {
  if (failure == UpstreamFailure::kOverflow || failure == UpstreamFailure::kNoRoom) return false;
  if ((on & (table::kRetryOnReset | table::kRetryOn5xx | table::kRetryOnGatewayError)) != 0) return true;
  if ((on & table::kRetryOnResetBeforeRequest) != 0 && !sent) return true;
  switch (failure) {
    case UpstreamFailure::kStreamRefused:
      return (on & table::kRetryOnRefusedStream) != 0;
    case UpstreamFailure::kRefused:
    case UpstreamFailure::kTimeout:
    case UpstreamFailure::kLocal:
    case UpstreamFailure::kTls:
      return (on & table::kRetryOnConnectFailure) != 0;
    default:
      return false;
  }
}

}  // namespace

// RetryState::create, FilterUtility::finalTimeout. Before the request's fields about retries are taken out. What does not fit
// overflows the scratch, which the caller answers with 431.
void HttpProxy::begin_retry(Exchange& ex, const table::VirtualHost& object, const table::Route& route, uint32_t timeout_ms) {
  const http::HeaderTable& headers = ex.request.headers;
  const table::RetryPolicy* policy = route.retry.count == 0 ? nullptr : route.retry.begin(&object);
  std::string_view on, grpc_on, per_try;
  const bool asks = ex.origin.internal && headers.may_have_guarded_names();  // else its fields are gone already
  if (asks) {
    on = value_of(headers, kRetryOn);
    grpc_on = value_of(headers, kRetryGrpcOn);
    per_try = value_of(headers, kPerTryTimeout);
  }
  const uint32_t asked = table::parse_retry_on(on) | table::parse_retry_grpc_on(grpc_on);
  if (policy == nullptr && asked == 0 && per_try.empty() && (route.count_in_request | route.count_in_response) == 0) return;
  if (ex.is_connect) return;  // its bytes are no body that could be kept
  RetryState* state = make_room<RetryState>(ex.scratch, 1);
  if (state == nullptr) return;
  RetryState& r = *std::construct_at(state, ex);
  ex.retry = &r;
  ex.unusual |= kUnusualRetry;
  r.count_in_request = route.count_in_request != 0;
  r.count_in_response = route.count_in_response != 0;
  r.tell_timeout_retry = route.tell_timeout_retry != 0;
  r.auto_host_rewrite = route.auto_host_rewrite != 0;
  r.strings = ex.request_buffer->data;
  r.has_body = ex.request_phase == RequestPhase::kBody;
  r.left = 1;
  r.retry_on = asked;
  if (policy != nullptr) {
    r.retry_on |= policy->retry_on;
    r.left = policy->num_retries;
    r.per_try_timeout_ms = policy->per_try_timeout_ms;
    r.per_try_idle_timeout_ms = policy->per_try_idle_timeout_ms;
    r.next_interval_ms = policy->base_interval_ms;
    r.max_interval_ms = policy->max_interval_ms;
    r.reset_max_interval_ms = policy->reset_max_interval_ms;
    r.host_attempts = policy->host_attempts;
    r.previous_hosts = policy->previous_hosts != 0;
    const std::span wanted(policy->request_headers.begin(&object), policy->request_headers.count);
    if (!wanted.empty() && std::none_of(wanted.begin(), wanted.end(), [&](const table::ValueMatch& m) {
          return header_holds(&object, m, &ex.request, &headers);
        }))
      r.retry_on = 0;
  }
  if (!per_try.empty()) parse_number(per_try, &r.per_try_timeout_ms);
  if (timeout_ms != 0 && r.per_try_timeout_ms >= timeout_ms) r.per_try_timeout_ms = 0;
  if (r.retry_on == 0 || ex.tunnel) {
    r.retry_on = 0;
    return;
  }
  r.buffer_limit = 1024 * 1024;  // of a listener that is gone: Envoy's default
  if (const CurrentChain chain = current_chain(ctx_, *ex.downstream); chain.object != nullptr)
    r.buffer_limit = chain.object->per_connection_buffer_limit_bytes;
  r.buffer_limit = std::min<uint64_t>(r.buffer_limit, route.retry_buffer_limit);

  Copier copier(ex.scratch, ex.request_buffer->data);
  const std::string_view codes = asks ? value_of(headers, kStatusCodes) : std::string_view{};
  const std::string_view names = asks ? value_of(headers, kHeaderNames) : std::string_view{};
  if (asks) parse_number(value_of(headers, kMaxRetries), &r.left);
  const uint32_t policy_codes = policy == nullptr ? 0 : policy->status_codes.count;
  r.status_codes = make_array<uint32_t>(ex.scratch, policy_codes + words_in(codes));
  uint32_t n = 0;
  for (; n < policy_codes && n < r.status_codes.size(); ++n) r.status_codes[n] = policy->status_codes.at(&object, n);
  table::for_each_word(codes, [&](std::string_view word) {
    if (n < r.status_codes.size()) parse_number(word, &r.status_codes[n++]);
  });
  const uint32_t policy_headers = policy == nullptr ? 0 : policy->response_headers.count;
  r.response_headers = make_array<table::ValueMatch>(ex.scratch, policy_headers + words_in(names));
  n = 0;
  for (; n < policy_headers && n < r.response_headers.size(); ++n) {
    const table::ValueMatch& from = policy->response_headers.at(&object, n);
    r.response_headers[n] = from;
    r.response_headers[n].name = copier.copy(table::view(&object, from.name));
    r.response_headers[n].value = copier.copy(table::view(&object, from.value));
  }
  table::for_each_word(names, [&](std::string_view word) {
    if (n == r.response_headers.size()) return;
    table::ValueMatch& m = r.response_headers[n++];  // kPresent
    m.name = copier.copy(word);
    char* const text = const_cast<char*>(static_cast<const char*>(r.strings)) + m.name.offset;
    for (uint32_t i = 0; i < m.name.count; ++i)
      text[i] = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] + 32) : text[i];
  });
  if (policy == nullptr) return;
  r.reset_headers = make_array<table::ResetHeader>(ex.scratch, policy->reset_headers.count);
  for (n = 0; n < r.reset_headers.size(); ++n) {
    const table::ResetHeader& from = policy->reset_headers.at(&object, n);
    r.reset_headers[n].unix_timestamp = from.unix_timestamp;
    r.reset_headers[n].name = copier.copy(table::view(&object, from.name));
  }
}

// FilterUtility::setTimeoutHeaders: what is left for this attempt; 0: no such field.
uint32_t HttpProxy::expected_timeout_ms(const Exchange& ex) const {
  const uint32_t whole = ex.route.timeout_ms;
  const uint32_t expected = ex.retry->per_try_timeout_ms != 0 ? ex.retry->per_try_timeout_ms : whole;
  if (whole == 0 || ex.request_phase != RequestPhase::kComplete) return expected;
  const uint64_t elapsed = (ctx_.now - ex.request_complete_at) / base::kMillisecond;
  return elapsed >= whole ? 1 : static_cast<uint32_t>(std::min<uint64_t>(expected, whole - elapsed));
}

// x-envoy-expected-rq-timeout-ms, x-envoy-attempt-count, x-envoy-is-timeout-retry of this attempt, in Envoy's order. False: no
// room.
bool HttpProxy::write_attempt_fields(Exchange& ex) {
  RetryState& r = *ex.retry;
  http::HeaderTable& headers = ex.request.headers;
  const auto text = [](char(&buffer)[11], uint32_t value) {
    return std::string_view(buffer, static_cast<size_t>(std::to_chars(buffer, buffer + sizeof buffer, value).ptr - buffer));
  };
  bool room = true;
  const uint32_t expected = ex.downstream->policy->forward.suppress_envoy_headers ? 0 : expected_timeout_ms(ex);
  if (expected != 0) room = headers.set(HeaderId::kXEnvoyExpectedRqTimeoutMs, text(r.expected_text, expected));
  if (r.count_in_request) room = headers.set(HeaderId::kXEnvoyAttemptCount, text(r.attempt_text, r.attempts)) && room;
  if (r.tell_timeout_retry && r.attempts > 1) room = headers.set(kIsTimeoutRetry, r.after_timeout ? "true" : "false") && room;
  return room;
}

void HttpProxy::arm_retry(RetryState& r) {
  const Exchange& ex = *r.exchange;
  const TimeNs idle = ex.upstream_head_sent && ex.upstream != nullptr && r.per_try_idle_timeout_ms != 0
                          ? deadline_after(ex.last_activity, r.per_try_idle_timeout_ms)
                          : base::kNever;
  ctx_.arm(r.timer, std::min({r.back_off_until, r.per_try_deadline, idle}));
}

// What an exchange out of the ordinary does first with its connection. False: it cannot go on yet, or at all, or has gone on.
bool HttpProxy::before_upstream_head(Exchange& ex) {
  if ((ex.unusual & kUnusualWatched) != 0) upstreams_.report(*ex.endpoint, Upstreams::Outcome::kConnected);
  if (ex.raw_upstream()) {
    open_raw_tunnel(ex);
    return false;
  }
  if (ex.tunnel && ex.upstream_stream != nullptr && !begin_stream_tunnel(ex)) return false;
  if (RetryState* r = ex.retry; r != nullptr) {
    // Envoy: from when the connection is there and the request is complete.
    if (ex.request_phase == RequestPhase::kComplete) r->per_try_deadline = deadline_after(ctx_.now, r->per_try_timeout_ms);
    ctx_.arm(r->timer, std::min(r->per_try_deadline, deadline_after(ctx_.now, r->per_try_idle_timeout_ms)));
    if (send_upstream_head(ex)) relay_kept(ex);
    return false;
  }
  return true;
}

void HttpProxy::keep(Exchange& ex, const io::PacketPtr* packet, base::ByteSpan bytes) {
  RetryState& r = *ex.retry;
  if (r.given_up) return;
  io::PacketPool pool = ctx_.stack.pool();
  const bool fits = r.body.bytes() + bytes.size() <= r.buffer_limit && ctx_.stack.memory_pressure() == MemoryPressure::kNone;
  if (fits && (packet != nullptr ? r.body.add(*packet, pool) : r.body.copy(bytes, pool))) {
    if (ex.upstream != nullptr) r.sent = r.body.pieces();
    return;
  }
  ctx_.stats.scope(ex.cluster_slot)[ClusterCounter::kRetryOrShadowAbandoned].add();
  give_up_retry(ex);
}

void HttpProxy::keep_trailers(Exchange& ex, HeadBuffer* buffer, const http::HeaderTable& table) {
  if (ex.retry == nullptr || !ex.retry->may_retry() || ex.retry->trailers != nullptr) return ctx_.heads.release(buffer);
  ex.retry->trailers = buffer;
  ex.retry->trailer_table = table;
}

// There will be no further attempt.
void HttpProxy::give_up_retry(Exchange& ex) {
  RetryState& r = *ex.retry;
  r.given_up = true;
  if (r.slot != nullptr) --std::exchange(r.slot, nullptr)->retries;
  r.body.clear();
  r.sent = 0;
  ctx_.heads.release(std::exchange(r.trailers, nullptr));
}

void HttpProxy::end_retry(Exchange& ex) {
  give_up_retry(ex);
  ctx_.timers.cancel(ex.retry->timer.node);
  std::destroy_at(std::exchange(ex.retry, nullptr));
}

// RetryStateImpl::shouldRetry. `reset_ms`: the pause that the response asks for, 0: none. True: the attempt is to be forgotten,
// another one follows.
bool HttpProxy::decide_retry(Exchange& ex, bool would, uint32_t reset_ms) {
  RetryState& r = *ex.retry;
  if (!r.may_retry()) return false;
  stats::ScopeBlock& counters = ctx_.stats.scope(ex.cluster_slot);
  if (r.slot != nullptr) {
    if (!would) counters[ClusterCounter::kRqRetrySuccess].add();
    --std::exchange(r.slot, nullptr)->retries;
  }
  if (!would) return false;
  if (r.left == 0) {
    counters[ClusterCounter::kRqRetryLimitExceeded].add();
    ex.flags.set(ResponseFlag::kUpstreamRetryLimitExceeded);
    return false;
  }
  --r.left;
  if (ex.cluster->retries >= ex.cluster->most_retries()) {
    counters[ClusterCounter::kRqRetryOverflow].add();
    ex.flags.set(ResponseFlag::kUpstreamOverflow);
    r.overflowed = true;
    return false;
  }
  r.slot = ex.cluster;
  ++r.slot->retries;
  counters[ClusterCounter::kRqRetry].add();
  if (ex.virtual_host != table::kNoObject) ctx_.stats.scope(ex.virtual_host_slot)[stats::VirtualHostCounter::kRetries].add();
  r.remember(ex.upstream_address, ex.upstream_port);
  uint64_t pause_ms = 0;
  if (reset_ms > 1) {  // JitteredLowerBoundBackOffStrategy
    pause_ms = reset_ms + ctx_.random.next() % std::max<uint64_t>(reset_ms / 2, 1);
    counters[ClusterCounter::kRqRetryBackoffRatelimited].add();
  } else {  // JitteredExponentialBackOffStrategy
    pause_ms = ctx_.random.next() % r.next_interval_ms;
    r.next_interval_ms = r.next_interval_ms < r.max_interval_ms / 2 ? 2 * r.next_interval_ms : r.max_interval_ms;
    counters[ClusterCounter::kRqRetryBackoffExponential].add();
  }
  r.back_off_until = base::time_add(ctx_.now, pause_ms * base::kMillisecond);
  r.per_try_deadline = base::kNever;
  ctx_.arm(r.timer, r.back_off_until);
  return true;
}

// ResetHeaderParserImpl::parseInterval, of the first header that says something within the limit; 0: none does.
uint64_t HttpProxy::asked_pause_ms(const Exchange& ex) const {
  const RetryState& r = *ex.retry;
  for (const table::ResetHeader& reset : r.reset_headers) {
    uint64_t value = 0;
    const http::Header* h = ex.response.headers.find(table::view(r.strings, reset.name));
    if (h == nullptr || !parse_number(h->value, &value)) continue;
    if (reset.unix_timestamp != 0) {
      const uint64_t now = ctx_.wall_ns / base::kSecond;
      if (value < now) continue;
      value -= now;
    }
    constexpr uint64_t kMs = 1000;
    if (value <= r.reset_max_interval_ms / kMs) return value * kMs;
  }
  return 0;
}

// The response's head is there, as the endpoint wrote it. True: it is not taken.
bool HttpProxy::retry_response(Exchange& ex) {
  RetryState& r = *ex.retry;
  const bool would = r.may_retry() && response_retriable(r, ex.response);
  if (!decide_retry(ex, would, would ? static_cast<uint32_t>(asked_pause_ms(ex)) : 0)) {
    give_up_retry(ex);
    r.per_try_deadline = base::kNever;
    arm_retry(r);
    return false;
  }
  r.after_timeout = false;
  UpstreamSession& u = *ex.upstream;
  bool over = ex.request_phase == RequestPhase::kComplete && r.caught_up() && r.body_ended;
  if (const Http2ClientStream* s = ex.upstream_stream; s != nullptr) {
    over = over && s->rx_end && s->rx.empty() && !s->trailers_complete;
  } else {
    const http::BodyFraming in = http::response_framing(ex.response, ex.request.method, false);
    over = over && in.empty() && u.reusable && ctx_.transports.rx(u).empty() &&
           !http::should_close(ex.response.version, ex.response.headers);
  }
  if (over) upstreams_.finish(ex, true);
  else upstreams_.cancel(ex);
  forget_attempt(ex);
  return true;
}

// The attempt ended without a response; its connection or stream is given back. True: another one follows.
bool HttpProxy::retry_reset(Exchange& ex, UpstreamFailure failure) {
  RetryState& r = *ex.retry;
  if (!decide_retry(ex, r.may_retry() && reset_retriable(r.retry_on, failure, ex.upstream_head_sent), 0)) return false;
  r.after_timeout = false;
  forget_attempt(ex);
  return true;
}

// Router::Filter::onPerTryTimeout, onPerTryIdleTimeout.
void HttpProxy::per_try_timeout(Exchange& ex, bool idle) {
  RetryState& r = *ex.retry;
  const bool started = ex.response_phase != ResponsePhase::kNone, sent = ex.upstream_head_sent;
  stats::ScopeBlock& counters = ctx_.stats.scope(ex.cluster_slot);
  counters[idle ? ClusterCounter::kRqPerTryIdleTimeout : ClusterCounter::kRqPerTryTimeout].add();
  ctx_.stats.scope(ex.endpoint_slot)[ClusterCounter::kRqTimeout].add();
  r.per_try_deadline = base::kNever;
  if (ex.endpoint != nullptr) upstreams_.report(*ex.endpoint, Upstreams::Outcome::kTimeout);
  upstreams_.cancel(ex);
  ex.endpoint = nullptr;
  const ResponseDetail detail = idle ? ResponseDetail::kUpstreamPerTryIdleTimeout : ResponseDetail::kUpstreamPerTryTimeout;
  if (started) {
    ex.flags.set(ResponseFlag::kUpstreamRequestTimeout);
    ex.detail = detail;
    return cut_response(ex);
  }
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  // To Envoy a reset of its own.
  if (decide_retry(ex, r.may_retry() && reset_retriable(r.retry_on, UpstreamFailure::kStreamReset, sent), 0)) {
    r.after_timeout = true;
    return forget_attempt(ex);
  }
  ex.flags.set(ResponseFlag::kUpstreamRequestTimeout);
  ex.detail = detail;
  reply(ex, LocalReply::kResponseTimeout);
}

void HttpProxy::on_retry_timer(Exchange& ex) {
  RetryState& r = *ex.retry;
  if (ctx_.now >= r.back_off_until) return start_retry(ex);
  if (ctx_.now >= r.per_try_deadline) return per_try_timeout(ex, false);
  const bool under_way = ex.upstream_head_sent && ex.upstream != nullptr;
  if (under_way && r.per_try_idle_timeout_ms != 0 && ctx_.now >= deadline_after(ex.last_activity, r.per_try_idle_timeout_ms))
    return per_try_timeout(ex, true);
  arm_retry(r);
}

// As if it had not been.
void HttpProxy::forget_attempt(Exchange& ex) {
  ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
  ex.endpoint = nullptr;
  ex.upstream_head_sent = ex.upstream_http2 = ex.tried_again = false;
  ex.response_scanned = 0;
  ex.response = {};
  ex.status = 0;
  ex.detail = ResponseDetail::kNone;
  ex.first_upstream_byte_at = ex.upstream_connected_at = ex.upstream_sent_at = 0;
  ex.last_activity = ctx_.now;
  relay_request(ex);  // what has come meanwhile
}

// Router::Filter::doRetry.
void HttpProxy::start_retry(Exchange& ex) {
  RetryState& r = *ex.retry;
  r.back_off_until = base::kNever;
  ++r.attempts;
  ++ex.retries;
  r.sent = 0;
  r.body_ended = !r.has_body;
  const ClusterRuntime* runtime = ctx_.tables->cluster(ex.route.cluster);
  if (runtime == nullptr) return reply(ex, LocalReply::kNoHealthyUpstream, ResponseFlag::kNoHealthyUpstream);
  StageScope stage(ctx_.stages, Stage::kUpstream);
  ClusterState* cluster = upstreams_.cluster_state(ex.route.cluster, *runtime);
  Upstreams::PickError why = Upstreams::PickError::kTableFull;
  std::string_view hostname;
  EndpointPool* endpoint = nullptr;
  for (uint32_t attempt = 0; cluster != nullptr; ++attempt) {
    endpoint = upstreams_.pick(*cluster, *runtime, cluster->codec_for(ex.stream != nullptr), r.hash, attempt, &why, &hostname);
    if (endpoint == nullptr || !r.previous_hosts || attempt >= r.host_attempts || !r.tried(endpoint->address, endpoint->port))
      break;
    upstreams_.release_if_unused(*endpoint);
  }
  if (endpoint == nullptr) {
    if (why == Upstreams::PickError::kNoHealthy)
      return reply(ex, LocalReply::kNoHealthyUpstream, ResponseFlag::kNoHealthyUpstream);
    return reply(ex, LocalReply::kUpstreamOverflow, ResponseFlag::kUpstreamOverflow);
  }
  ex.upstream_address = endpoint->address;
  ex.upstream_port = endpoint->port;
  ex.route.upstream_host_name = {};
  bool room = write_attempt_fields(ex);
  if (!hostname.empty() && hostname.size() < ex.scratch.left()) {
    ex.route.upstream_host_name = ex.scratch.copy(hostname);
    // The client's host was told apart with the first attempt.
    if (r.auto_host_rewrite)
      room = http::rewrite_host(&ex.request, ex.route.upstream_host_name, false, ex.scratch, false) && room;
  }
  if (!room || ex.scratch.overflowed()) {
    upstreams_.release_if_unused(*endpoint);
    return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  }
  UpstreamFailure failure = UpstreamFailure::kLocal;
  if (upstreams_.submit(ex, *endpoint, &failure)) return;
  EndpointPool* unused = ex.endpoint;
  ex.endpoint = nullptr;
  upstreams_.release_if_unused(*unused);
  on_upstream_failed(ex, failure);
}

}  // namespace millrace::dataplane
