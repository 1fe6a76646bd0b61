// Decisions and heads: which way a request goes, what its head becomes on the way up, what the response's head becomes on the way
// down, and the answers that the gateway gives by itself.
#include <algorithm>
#include <array>

#include "dataplane/client_cert.h"
#include "dataplane/exchange_format.h"
#include "dataplane/http_proxy.h"
#include "lib/http/connection.h"
#include "lib/http/forward.h"
#include "lib/http/h1_writer.h"
#include "lib/route/index_format.h"
#include "lib/route/matcher.h"
#include "lib/route/rewrite.h"

namespace millrace::dataplane {

using http::HeaderId;
using http::LocalReply;
using http::ResponseDetail;
using stats::HcmCounter;
using stats::HttpCounter;
using stats::ResponseFlag;
using stats::VirtualHostCounter;

namespace {

// Parses a decimal of at most 9 digits; false when it is none.
bool parse_decimal(std::string_view s, uint32_t* out) {
  if (s.empty() || s.size() > 9) return false;
  uint32_t v = 0;
  for (const char c : s) {
    if (c < '0' || c > '9') return false;
    v = v * 10 + static_cast<uint32_t>(c - '0');
  }
  *out = v;
  return true;
}

// Envoy writes the fields that overwrite before those that are added, whatever their order in the configuration
// (HeaderParser::evaluateHeaders).
bool overwrites(table::HeaderAppend append) {
  return append == table::HeaderAppend::kOverwriteIfExists || append == table::HeaderAppend::kOverwriteIfExistsOrAdd;
}

// One HeaderValueOption on a table. False: the table is full.
bool apply_edit(http::HeaderTable& headers, std::string_view name, std::string_view value, table::HeaderAppend append) {
  const http::Header* present = headers.find(name);
  switch (append) {
    case table::HeaderAppend::kAppendIfExistsOrAdd:
      break;
    case table::HeaderAppend::kAddIfAbsent:
      if (present != nullptr) return true;
      break;
    case table::HeaderAppend::kOverwriteIfExists:
      if (present == nullptr) return true;
      headers.remove(name);
      break;
    case table::HeaderAppend::kOverwriteIfExistsOrAdd:
      headers.remove(name);
      break;
  }
  return headers.push({name, value, http::header_id(name)});
}

}  // namespace

void HttpProxy::route(Exchange& ex) {
  DownstreamSession& d = *ex.downstream;
  http::RequestHead& request = ex.request;
  stats::ScopeBlock& hcm = ctx_.stats.scope(d.policy->http.stat_slot);
  ctx_.stats
      ->http[request.version == http::Version::kHttp11   ? HttpCounter::kHttp11
             : request.version == http::Version::kHttp10 ? HttpCounter::kHttp10
                                                         : HttpCounter::kHttp2]
      .add();

  ex.is_head = request.method == "HEAD";
  ex.is_connect = http::is_connect(request);
  ex.is_grpc = http::is_grpc(request.headers);
  ex.upgrade_requested = http::is_upgrade(request.headers);
  ex.original_path = request.path;
  // What follows an upgrade or CONNECT may be another protocol, or the body of a request that is refused: no request is read
  // there.
  const bool wants_tunnel = ex.is_connect || ex.upgrade_requested;
  bool special = wants_tunnel;  // of those whose route is known there is more to do
  ex.close_downstream =
      ex.stream == nullptr && (http::should_close(request.version, request.headers) || d.draining || wants_tunnel);
  if (ex.stream == nullptr && d.policy->http.max_requests_per_connection != 0 &&
      d.requests >= d.policy->http.max_requests_per_connection) {
    if (!ex.close_downstream) hcm[HcmCounter::kCxMaxRequests].add();
    ex.close_downstream = true;
  }
  const http::ForwardOptions& options = d.policy->forward;
  if (options.strips_host()) [[unlikely]] {
    std::string_view with_port;
    if (http::strip_host(&request, options, d.tuple().local_port, ex.scratch,
                         &with_port))  // else the scratch has overflowed: 431
      ex.stripped_port = static_cast<uint8_t>(with_port.size() - request.authority.size());
  }
  // The virtual host is found here already, so that the route's cache lines are on their way while the head is edited, which
  // changes neither authority nor, but for normalisation, the path.
  const RouteTableRuntime* routes = ctx_.tables->route_table(d.policy->http.route_table);
  const VirtualHostEntry* entry = nullptr;
  route::MatchAhead ahead;
  if (routes != nullptr) {
    const route::HostResult host = route::find_virtual_host(*routes->object, request.authority);
    if (host.index != route::kNoVirtualHost)
      entry = ctx_.tables->virtual_host(routes->object->virtual_hosts.at(routes->object, host.index));
    if (entry != nullptr) {
      ahead.fetch_slots(entry->runtime, request.path);
      __builtin_prefetch(&ctx_.stats.scope(entry->slot), 1);
    }
  }
  http::BodyFraming framing = http::request_framing(request);
  bool complete = false;
  http::BodyFraming own_body;  // of an upgrade request: what comes in front of the other protocol
  if (ex.stream != nullptr) {  // the stream says where the body ends; its length, if told, nghttp2 has checked
    complete = ex.stream->rx_end && ex.stream->rx.empty() && !ex.stream->trailers_complete;
    if (framing.kind == http::Framing::kNone && !ex.is_connect && !complete) framing.kind = http::Framing::kChunked;
    ex.request_body.decoder.start(complete && framing.kind == http::Framing::kChunked ? http::BodyFraming{} : framing);
  } else {
    const bool tunnel = framing.kind == http::Framing::kTunnel;
    if (tunnel && !ex.is_connect) own_body = http::content_framing(request);
    start_body(ex.request_body, tunnel ? http::BodyFraming{} : framing, framing.kind == http::Framing::kChunked,
               d.policy->http.enable_trailers);
    complete = ex.request_body.decoder.done();
  }
  if (complete) {
    ex.request_phase = RequestPhase::kComplete;
    ex.request_complete_at = ctx_.now;
  }
  if (ex.request_phase == RequestPhase::kBody)
    ex.request_deadline = deadline_after(ex.started_at, d.policy->http.request_timeout_ms);
  ex.duration_deadline = deadline_after(ex.started_at, d.policy->http.max_stream_duration_ms);
  ex.route.idle_timeout_ms =
      d.policy->http.stream_idle_timeout_ms;  // route_to_cluster() arms the timer; all other ways end at once

  if (!http::check_underscores(request.headers, options.underscores)) {
    ex.detail_text = http::info(http::H1Error::kUnderscore).details;
    ex.flags.set(ResponseFlag::kDownstreamProtocolError);
    request.method = request.path = request.authority = {};  // Envoy's codec refuses it before there is a request to log
    return reply_with(ex, 400, http::reason_phrase(400), ResponseDetail::kH1UnexpectedUnderscore, true);
  }
  if (request.version == http::Version::kHttp10 && request.authority.empty()) return reply(ex, LocalReply::kMissingHost);
  switch (http::normalize_path(&request, options, ex.scratch)) {
    case http::PathVerdict::kContinue:
      break;
    case http::PathVerdict::kReject:
      ctx_.stats->http[HttpCounter::kBadPath].add();
      hcm[HcmCounter::kRqFailedPathNormalization].add();
      return reply(ex, LocalReply::kPathNormalizationFailed);
    case http::PathVerdict::kRedirect:
      hcm[HcmCounter::kRqRedirectedNormalizedPath].add();
      return reply_with(ex, 307, {}, ResponseDetail::kPathNormalizationFailed, false, request.path);
    case http::PathVerdict::kNotRelative:
      return reply(ex, LocalReply::kAbsolutePathRejected);
  }
  ahead.fetch_nodes();
  const tcp::FourTuple& tuple = d.tuple();
  const http::Downstream peer{tuple.remote, tuple.local, tuple.remote_port, tuple.local_port, d.tls_terminated};
  const uint64_t random[2] = {ctx_.random.next(), ctx_.random.next()};
  const bool expects_continue = http::expects_continue(request);
  if (!http::mutate_request(&request, options, peer, random, ex.scratch, &ex.origin) || ex.scratch.overflowed())
    return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  ex.request_id = request.headers.get(HeaderId::kXRequestId);
  if (request.method.size() >= 5 && !http::count_down_forwards(&request, ex.scratch)) [[unlikely]]
    return reply_with(ex, request.method == "OPTIONS" ? 200 : 501, {}, ResponseDetail::kNone, false);
  if (options.keep_client_cert) [[unlikely]] {
    if (!set_forwarded_client_cert(request.headers, d.policy->http.forward_client_cert, d.policy->http.client_cert_details,
                                   d.tls == nullptr ? nullptr : d.tls->session, ex.scratch, ctx_.write_buffer))
      return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  }

  if (expects_continue) {
    request.headers.remove(HeaderId::kExpect);
    if (ex.request_phase == RequestPhase::kBody || !own_body.empty()) {
      http::ResponseHead proceed;
      proceed.status = 100;
      if (ex.stream != nullptr) http2_.write_head(*ex.stream, proceed, false);
      else ctx_.transports.write_copy(d, http::kContinue, ctx_.now);
    }
  }

  if (d.policy->http.filters) [[unlikely]] {
    if (d.policy->http.grpc_web) begin_grpc_web(ex);
    if (d.policy->http.compressors) begin_compression(ex);
    special |= is_grpc_web(ex) || d.policy->http.cors;
  }
  StageScope stage(ctx_.stages, Stage::kRoute);
  if (entry == nullptr) {
    hcm[HcmCounter::kNoRoute].add();
    return reply(ex, LocalReply::kRouteNotFound, ResponseFlag::kNoRouteFound);
  }
  ex.virtual_host = entry->id;
  ex.virtual_host_slot = entry->slot;
  stats::ScopeBlock& vh = ctx_.stats.scope(entry->slot);
  vh[VirtualHostCounter::kRqTotal].add();
  vh[VirtualHostCounter::kRqActive].add();
  const table::VirtualHost& object = *entry->runtime.object;
  const bool logged = d.policy->http.log_names;  // only records, and headers made of commands, ask for names
  if (logged) ex.route.virtual_host_name = ex.scratch.copy(table::view(&object, object.name));

  const uint64_t route_random = ctx_.random.next();
  const route::MatchResult match = route::match_route(
      entry->runtime, request,
      {route_random, d.tls_terminated, &ctx_.match_scratch, d.certificate_presented, d.certificate_validated}, &ahead);
  stage.next(Stage::kHttpParse, 0);
  switch (match.outcome) {
    case route::MatchOutcome::kRoute:
      break;
    case route::MatchOutcome::kNoRoute:
      hcm[HcmCounter::kNoRoute].add();
      vh[VirtualHostCounter::kNoRoute].add();
      return reply(ex, LocalReply::kRouteNotFound, ResponseFlag::kNoRouteFound);
    case route::MatchOutcome::kTlsRequired:
      vh[VirtualHostCounter::kRedirect].add();
      return redirect(ex, 301, route::tls_redirect_target(request, ctx_.write_buffer));
    case route::MatchOutcome::kPatternFailed:
      vh[VirtualHostCounter::kScanFailed].add();
      return reply_with(ex, 500, {}, ResponseDetail::kNone, false);
    case route::MatchOutcome::kTooLong:
      return reply_with(ex, 500, {}, ResponseDetail::kNone, false);
  }
  ex.route_rank = match.route;
  if (special && !wants_tunnel) [[unlikely]] {
    if (d.policy->http.cors && begin_cors(ex, *entry, object.routes.at(&object, match.route)))
      return answer_preflight(ex, *entry, object.routes.at(&object, match.route), route_random);
    if (is_grpc_web(ex) && !translate_grpc_web_request(ex))
      return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  } else if (special) [[unlikely]] {
    const table::Route& taken = object.routes.at(&object, match.route);
    if (!upgrade_allowed(ex, object, taken)) {
      if (logged) ex.route.route_name = ex.scratch.copy(table::view(&object, taken.name));
      if (logged && taken.action == table::ActionKind::kCluster)
        ex.route.cluster_name = ex.scratch.copy(table::view(&object, taken.clusters.at(&object, 0).name));
      return reply(ex, LocalReply::kUpgradeRefused);
    }
    if (d.policy->http.cors) begin_cors(ex, *entry, taken);  // no upgrade is a preflight
    begin_tunnel(ex, own_body);
    if (ex.is_connect)  // stripped only for the choice of a route
      request.authority = {request.authority.data(), request.authority.size() + ex.stripped_port};
  }
  // Where the index says all there is to do, the route itself stays where it is: three cache lines of its own.
  if (match.action != nullptr && !logged) return route_to_cluster(ex, *entry, *routes->object, match, route_random);
  const table::Route& route = object.routes.at(&object, match.route);
  if (logged) ex.route.route_name = ex.scratch.copy(table::view(&object, route.name));
  switch (route.action) {
    case table::ActionKind::kRedirect: {
      vh[VirtualHostCounter::kRedirect].add();
      const EditLevel levels[] = {
          {&object, &route.headers_mut}, {&object, &object.headers_mut}, {routes->object, &routes->object->headers_mut}};
      keep_response_edits(ex, levels, 3, routes->object->most_specific_header_mutations_wins != 0);
      return redirect(ex, route.redirect.status,
                      route::redirect_target(object, route, request, {d.tls_terminated}, ctx_.write_buffer));
    }
    case table::ActionKind::kDirectResponse: {
      vh[VirtualHostCounter::kDirectResponse].add();
      const EditLevel levels[] = {
          {&object, &route.headers_mut}, {&object, &object.headers_mut}, {routes->object, &routes->object->headers_mut}};
      keep_response_edits(ex, levels, 3, routes->object->most_specific_header_mutations_wins != 0);
      // Envoy names a place for 201 and 3xx: the request's own address, since nothing rewrites it.
      const bool places = route.direct_status == 201 || (route.direct_status >= 300 && route.direct_status < 400);
      const std::string_view location =
          places ? route::redirect_target(object, route, request, {d.tls_terminated}, ctx_.write_buffer) : std::string_view{};
      return reply_with(ex, route.direct_status, table::view(&object, route.direct_body), ResponseDetail::kDirectResponse, false,
                        location);
    }
    case table::ActionKind::kCluster:
    case table::ActionKind::kWeightedClusters:
      return route_to_cluster(ex, *entry, *routes->object, match, route_random);
  }
}

void HttpProxy::route_to_cluster(Exchange& ex, const VirtualHostEntry& entry, const table::RouteTable& routes,
                                 const route::MatchResult& match, uint64_t random) {
  DownstreamSession& d = *ex.downstream;
  http::RequestHead& request = ex.request;
  const table::VirtualHost& object = *entry.runtime.object;
  // A route and a cluster that edit nothing: they stand for those of a RouteAction, which says the rest.
  static constexpr table::Route kPlainRoute{};
  static constexpr table::WeightedCluster kPlainChoice{};
  const bool logged = d.policy->http.log_names;
  const bool plain = match.action != nullptr && !logged;
  const table::Route& route = plain ? kPlainRoute : object.routes.at(&object, match.route);
  const http::ForwardOptions& options = d.policy->forward;
  const table::WeightedCluster& choice =
      plain ? kPlainChoice : route.clusters.at(&object, route::pick_cluster(object, route, random));
  const route::RouteAction action =
      plain ? *match.action
            : route::RouteAction{choice.cluster, route.timeout_ms, route.idle_timeout_ms, route.cluster_not_found_status, 0};
  ex.route.cluster = action.cluster;
  if (logged) ex.route.cluster_name = ex.scratch.copy(table::view(&object, choice.name));

  const EditLevel levels[] = {{&object, &choice.headers},
                              {&object, &route.headers_mut},
                              {&object, entry.runtime.edits ? &object.headers_mut : &kPlainRoute.headers_mut},
                              {&routes, &routes.headers_mut}};
  const bool reversed = routes.most_specific_header_mutations_wins != 0;
  keep_response_edits(ex, levels, 4, reversed);

  const ClusterRuntime* runtime = ctx_.tables->cluster(action.cluster);
  if (runtime == nullptr) {
    ctx_.stats.scope(entry.slot)[VirtualHostCounter::kNoCluster].add();
    ex.flags.set(ResponseFlag::kNoClusterFound);
    ex.route.cluster_name = {};  // Envoy logs only a cluster that exists
    return reply_with(ex, static_cast<uint16_t>(action.cluster_not_found_status), {}, ResponseDetail::kClusterNotFound, false);
  }

  // The route's timeout, unless a trusted client asks for another one (Envoy: FilterUtility::finalTimeout).
  uint32_t timeout_ms = action.timeout_ms;
  // Router.respect_expected_rq_timeout: what an Envoy before us has told its endpoint, us, holds; then nothing else does.
  const bool expected = d.policy->http.respect_expected_rq_timeout && request.headers.has(HeaderId::kXEnvoyExpectedRqTimeoutMs);
  if (expected) [[unlikely]] {
    parse_decimal(request.headers.get(HeaderId::kXEnvoyExpectedRqTimeoutMs), &timeout_ms);
  } else if (request.headers.has(HeaderId::kXEnvoyUpstreamRqTimeoutMs)) {
    parse_decimal(request.headers.get(HeaderId::kXEnvoyUpstreamRqTimeoutMs), &timeout_ms);
    request.headers.remove(HeaderId::kXEnvoyUpstreamRqTimeoutMs);
  }
  if (ex.origin.internal) [[unlikely]] {
    begin_retry(ex, object, route, timeout_ms);
    http::remove_retry_fields(request.headers);
  }
  ex.route.timeout_ms = timeout_ms;
  if (action.idle_timeout_ms != UINT32_MAX) ex.route.idle_timeout_ms = action.idle_timeout_ms;
  if (!plain) {
    if (route.max_stream_duration_ms != UINT32_MAX)
      ex.duration_deadline = deadline_after(ex.started_at, route.max_stream_duration_ms);
    if ((route.retry.count | route.count_in_request | route.count_in_response) != 0 && !ex.origin.internal)
      begin_retry(ex, object, route, timeout_ms);
    for (const table::UpgradeConfig* u = route.upgrades.begin(&object); u != route.upgrades.end(&object); ++u) {
      if (u->terminate == 0 || !(ex.is_connect || (u->allow_post != 0 && request.method == "POST"))) continue;
      ex.unusual |= kUnusualRaw;
      ex.proxy_version = u->proxy_version;
    }
  }

  // Envoy's order: its own field, the configured ones, the host, the path.
  bool room = true;
  if (ex.retry != nullptr) [[unlikely]]
    room = write_attempt_fields(ex);
  else room = http::mutate_upstream_request(&request, options, timeout_ms, ex.scratch);
  for (uint32_t i = 0; i < 4 && room; ++i) {
    const EditLevel& level = levels[reversed ? 3 - i : i];
    if (level.edits->request_add.count + level.edits->request_remove.count == 0) continue;
    room = apply_request_edits(ex, level.object, *level.edits);
  }
  const bool keep_original = !options.suppress_envoy_headers;
  route::RequestHash hash;
  if (!plain) {
    if (route.has_host_rewrite != 0)
      room = room && http::rewrite_host(&request, ex.scratch.copy(table::view(&object, route.host_rewrite)),
                                        route.append_xfh != 0, ex.scratch, keep_original);
    if (route.has_prefix_rewrite != 0 && !request.path.empty()) {
      const std::string_view replacement = ex.scratch.copy(table::view(&object, route.prefix_rewrite));
      room = room &&
             http::rewrite_path(&request, route::matched_path_bytes(object, route, request), replacement, options, ex.scratch);
    }
    if (route.hash_policies.count != 0) room = room && hash_request(ex, &object, route, &hash);  // of what the endpoint will see
  }

  StageScope stage(ctx_.stages, Stage::kUpstream);
  ClusterState* cluster = upstreams_.cluster_state(action.cluster, *runtime);
  Upstreams::PickError why = Upstreams::PickError::kTableFull;
  std::string_view hostname;
  EndpointPool* endpoint = cluster == nullptr ? nullptr
                                              : upstreams_.pick(*cluster, *runtime, cluster->codec_for(ex.stream != nullptr),
                                                                hash, 0, &why, &hostname);
  if (endpoint == nullptr) {
    if (why == Upstreams::PickError::kNoHealthy)
      return reply(ex, LocalReply::kNoHealthyUpstream, ResponseFlag::kNoHealthyUpstream);
    return reply(ex, LocalReply::kUpstreamOverflow, ResponseFlag::kUpstreamOverflow);
  }
  ex.unusual |= cluster->unusual;
  ex.upstream_address = endpoint->address;
  ex.upstream_port = endpoint->port;
  if (!hostname.empty()) ex.route.upstream_host_name = ex.scratch.copy(hostname);
  if (route.auto_host_rewrite != 0 && !hostname.empty())
    room = room && http::rewrite_host(&request, ex.scratch.copy(hostname), route.append_xfh != 0, ex.scratch, keep_original);
  if (!room || ex.scratch.overflowed()) {
    upstreams_.release_if_unused(*endpoint);
    return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  }
  if (ex.request_phase == RequestPhase::kComplete || ex.is_websocket) ex.route_deadline = deadline_after(ctx_.now, timeout_ms);
  arm(ex);
  UpstreamFailure failure = UpstreamFailure::kLocal;
  if (!(ex.raw_upstream() ? upstreams_.submit_own(ex, *endpoint, &failure) : upstreams_.submit(ex, *endpoint, &failure))) {
    EndpointPool* unused = ex.endpoint;
    ex.endpoint = nullptr;
    upstreams_.release_if_unused(*unused);
    on_upstream_failed(ex, failure);
  }
}

// Of the route that was chosen, for those who ask only now.
void HttpProxy::remember_names(Exchange& ex) {
  if (ex.virtual_host == table::kNoObject || ex.route.virtual_host_name.data() != nullptr) return;
  const VirtualHostEntry* entry = ctx_.tables->virtual_host(ex.virtual_host);
  if (entry == nullptr) return;
  const table::VirtualHost& object = *entry->runtime.object;
  ex.route.virtual_host_name = ex.scratch.copy(table::view(&object, object.name));
  if (ex.route_rank < object.routes.count)
    ex.route.route_name = ex.scratch.copy(table::view(&object, object.routes.at(&object, ex.route_rank).name));
  if (const ClusterRuntime* cluster = ctx_.tables->cluster(ex.route.cluster); cluster != nullptr)
    ex.route.cluster_name = ex.scratch.copy(table::view(cluster->object, cluster->object->name));
}

void HttpProxy::remember_names_for(Exchange& ex, const void* object, const table::Array<table::FormatPart>& parts) {
  if (std::any_of(parts.begin(object), parts.end(object), [](const table::FormatPart& p) { return names_something(p.op); }))
    remember_names(ex);
}

// The steps of a value, their strings copied: they outlive the tables of this iteration.
std::span<const format::Step> HttpProxy::keep_steps(Exchange& ex, const void* object,
                                                    const table::Array<table::FormatPart>& parts) {
  auto* steps = allocate_array<format::Step>(ex.scratch, parts.count);
  if (steps == nullptr) return {};
  for (uint32_t i = 0; i < parts.count; ++i) {
    steps[i] = format::step_of(object, parts.at(object, i));
    steps[i].text = ex.scratch.copy(steps[i].text);
    steps[i].other = ex.scratch.copy(steps[i].other);
  }
  remember_names_for(ex, object, parts);
  return {steps, parts.count};
}

// As Envoy: what goes is taken out, then every value is made, then fields are overwritten, then added. So a value may speak of
// the field that it replaces.
bool HttpProxy::apply_request_edits(Exchange& ex, const void* object, const table::HeaderMutations& m) {
  for (const table::Str* name = m.request_remove.begin(object); name != m.request_remove.end(object); ++name)
    ex.request.headers.remove(table::view(object, *name));
  return apply_options(ex, ex.request.headers, object, m.request_add, FormatUse::kRequestHeader, ex.scratch);
}

bool HttpProxy::apply_options(Exchange& ex, http::HeaderTable& headers, const void* object,
                              const table::Array<table::HeaderOption>& list, FormatUse use, http::Scratch& scratch) {
  const std::span options(list.begin(object), list.count);
  auto* values = allocate_array<std::string_view>(scratch, list.count);
  if (values == nullptr) return false;
  for (size_t i = 0; i < options.size(); ++i) {  // copies: the head outlives the tables of this iteration
    const table::HeaderOption& o = options[i];
    remember_names_for(ex, object, o.parts);
    values[i] =
        o.parts.count == 0 ? scratch.copy(table::view(object, o.value)) : format_value(ctx_, ex, object, o.parts, use, scratch);
  }
  for (const bool overwriting : {true, false}) {
    for (size_t i = 0; i < options.size(); ++i) {
      const table::HeaderOption& o = options[i];
      if (overwrites(o.append) != overwriting || (values[i].empty() && o.keep_empty_value == 0)) continue;
      if (!apply_edit(headers, scratch.copy(table::view(object, o.name)), values[i], o.append)) return false;
    }
  }
  return true;
}

// Response edits are applied when the response comes, seconds later: their strings are copied now. What does not fit overflows
// the scratch, which the caller answers with 431.
void HttpProxy::keep_response_edits(Exchange& ex, const EditLevel* levels, uint32_t count, bool reversed) {
  uint32_t edits = 0;
  for (uint32_t i = 0; i < count; ++i) edits += levels[i].edits->response_add.count + levels[i].edits->response_remove.count;
  if (edits == 0) return;
  auto* out = allocate_array<ResponseEdit>(ex.scratch, edits);
  if (out == nullptr) return;
  uint32_t n = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const EditLevel& level = levels[reversed ? count - 1 - i : i];
    const table::HeaderMutations& m = *level.edits;
    for (const table::Str* name = m.response_remove.begin(level.object); name != m.response_remove.end(level.object); ++name)
      out[n++] = {ex.scratch.copy(table::view(level.object, *name)),
                  {},
                  {},
                  table::HeaderAppend::kAppendIfExistsOrAdd,
                  static_cast<uint8_t>(i),
                  false,
                  true};
    for (const bool overwriting : {true, false}) {
      for (const table::HeaderOption* o = m.response_add.begin(level.object); o != m.response_add.end(level.object); ++o) {
        const std::string_view value = table::view(level.object, o->value);
        const bool keep_empty = o->keep_empty_value != 0, formatted = o->parts.count != 0;
        if (overwrites(o->append) != overwriting || (value.empty() && !formatted && !keep_empty)) continue;
        out[n++] = {ex.scratch.copy(table::view(level.object, o->name)),
                    ex.scratch.copy(value),
                    formatted ? keep_steps(ex, level.object, o->parts) : std::span<const format::Step>{},
                    o->append,
                    static_cast<uint8_t>(i),
                    keep_empty,
                    false};
      }
    }
  }
  ex.route.response_edits = out;
  ex.route.response_edit_count = n;
}

// Level by level, each as in apply_request_edits(). `scratch`: of the response's head.
bool HttpProxy::apply_response_edits(Exchange& ex, http::Scratch& scratch, bool local) {
  const std::span edits(ex.route.response_edits, ex.route.response_edit_count);
  uint32_t level = UINT32_MAX;
  for (size_t i = 0; i < edits.size(); ++i) {
    ResponseEdit& e = edits[i];
    if (local && e.level == ResponseEdit::kCookieLevel) continue;
    if (e.remove) {
      ex.response.headers.remove(e.name);
      continue;
    }
    if (e.level != level) {  // the first behind its level's removals
      level = e.level;
      for (size_t k = i; k < edits.size() && edits[k].level == level; ++k)
        if (!edits[k].parts.empty()) edits[k].value = format_value(ctx_, ex, edits[k].parts, FormatUse::kResponseHeader, scratch);
    }
    if (e.value.empty() && !e.keep_empty_value) continue;
    if (!apply_edit(ex.response.headers, e.name, e.value, e.append)) return false;
  }
  return true;
}

// Puts a head straight into a packet; the rare one that needs more than a packet goes through the worker's buffer. `write`
// returns the bytes it needs, whether or not they fit its span. False: packet memory is spent, or the head is beyond all limits.
template <class Write>
bool HttpProxy::write_head(Session& to, Write&& write) {
  io::PacketPtr packet = ctx_.stack.pool().alloc();
  if (!packet) return false;
  const uint32_t room = packet.tailroom();
  const size_t n = write(std::span<char>(reinterpret_cast<char*>(packet.data()), room));
  if (n <= room) [[likely]] {
    packet.append(static_cast<uint32_t>(n));
    ctx_.transports.write(to, std::move(packet), ctx_.now);
    return true;
  }
  write(ctx_.write_buffer);
  return n <= ctx_.write_buffer.size() && ctx_.transports.write_copy(to, {ctx_.write_buffer.data(), n}, ctx_.now) == n;
}

// To the client, whatever it speaks. `end`: there is no body.
bool HttpProxy::write_response_head(Exchange& ex, const http::ResponseHead& head, const http::ResponseWrite& how, bool end) {
  if (ex.stream != nullptr) return http2_.write_head(*ex.stream, head, end);
  ex.close_told = how.close;
  return write_head(*ex.downstream, [&](std::span<char> to) { return http::write_response_head(head, how, to); });
}

bool HttpProxy::write_upstream_head(Exchange& ex) {
  StageScope stage(ctx_.stages, Stage::kHttpWrite);
  if (ex.upstream_stream != nullptr) {
    ex.request_body.chunked_out = false;
    if (ex.unusual == 0) [[likely]]
      return upstreams_.http2().write_head(*ex.upstream_stream, ex.request, ex.request_phase == RequestPhase::kComplete);
    if (!ex.tunnel) {
      const bool complete = ex.request_phase == RequestPhase::kComplete && (ex.retry == nullptr || ex.retry->body_ended);
      return upstreams_.http2().write_head(*ex.upstream_stream, ex.request, complete);
    }
    http::RequestHead head = ex.request;
    head.method = "CONNECT";
    return upstreams_.http2().write_head(*ex.upstream_stream, head, false);
  }
  if (!ex.cluster->enable_trailers) {
    ex.request_body.drop_trailers = true;
    free_body(ex.request_body);
  }
  http::BodyFraming out = http::outgoing_framing(ex.request_body.decoder.framing(), http::Version::kHttp11);
  if (ex.odd_head) [[unlikely]] {
    if (ex.is_websocket && !add_websocket_key(ex)) return false;
    // gRPC-Web: what goes on has another length
    if (is_grpc_web(ex) && !out.empty()) out = {http::Framing::kChunked, 0};
  }
  ex.request_body.chunked_out = out.kind == http::Framing::kChunked;
  return write_head(*ex.upstream, [&](std::span<char> room) { return http::write_request_head(ex.request, out, room); });
}

// The whole request has been received: the route's timeout starts (Envoy: from the end of the downstream request).
void HttpProxy::request_complete(Exchange& ex) {
  ex.request_phase = RequestPhase::kComplete;
  ex.request_complete_at = ctx_.now;
  ex.request_deadline = base::kNever;
  ex.route_deadline = deadline_after(ctx_.now, ex.route.timeout_ms);
  arm(ex);
  if (ex.unusual == 0) [[likely]]
    return;
  if (ex.raw_upstream() && ex.upstream != nullptr) ctx_.transports.shutdown(*ex.upstream, ctx_.now);
  if (ex.retry != nullptr && ex.upstream_head_sent && ex.upstream != nullptr) {
    ex.retry->body_ended = true;
    ex.retry->per_try_deadline = deadline_after(ctx_.now, ex.retry->per_try_timeout_ms);
    arm_retry(*ex.retry);
  }
}

// As Envoy: nobody waits for the rest of a request that is being answered, so the connection is not used again.
void HttpProxy::answered_early(Exchange& ex) {
  ex.close_downstream = true;
  ctx_.stats.scope(ex.downstream->policy->http.stat_slot)[HcmCounter::kRqBeforeComplete].add();
}

// To outlier detection (Envoy: Router::Filter::onUpstreamHeaders). The status of gRPC counts where it comes with the head.
void HttpProxy::report_response(const Exchange& ex) {
  uint16_t status = ex.response.status;
  if (ex.is_grpc) {
    constexpr uint16_t kAsHttp[] = {200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401};
    const std::string_view said = ex.response.headers.get(HeaderId::kGrpcStatus);
    const uint32_t code = said.size() == 1   ? static_cast<uint32_t>(said[0] - '0')
                          : said.size() == 2 ? static_cast<uint32_t>((said[0] - '0') * 10 + said[1] - '0')
                                             : UINT32_MAX;
    if (code < std::size(kAsHttp)) status = kAsHttp[code];
    else if (!said.empty()) status = 500;
  }
  upstreams_.report_status(*ex.upstream->endpoint, status);
}

void HttpProxy::forward_response_head(Exchange& ex) {
  DownstreamSession& d = *ex.downstream;
  UpstreamSession& u = *ex.upstream;
  http::ResponseHead& response = ex.response;
  const http::ForwardOptions& options = d.policy->forward;
  http::Scratch scratch(ex.response_buffer->scratch());
  ex.detail = ResponseDetail::kViaUpstream;
  ex.status = response.status;
  if (ex.unusual != 0) [[unlikely]] {
    if ((ex.unusual & kUnusualWatched) != 0) report_response(ex);
    if (ex.retry != nullptr && retry_response(ex)) return;
    if (ex.tunnel && ex.upstream_stream != nullptr && !http1_answer(ex)) return;
  }
  http::BodyFraming in = http::response_framing(response, ex.request.method, ex.tunnel && !ex.is_connect);
  if (const Http2ClientStream* s = ex.upstream_stream; s != nullptr) {  // the stream says where the body ends
    if (in.kind == http::Framing::kUntilClose)
      in.kind = s->rx_end && s->rx.empty() && !s->trailers_complete ? http::Framing::kNone : http::Framing::kChunked;
  } else if (in.kind == http::Framing::kUntilClose || http::should_close(response.version, response.headers)) {
    u.reusable = false;
  }
  if (ex.tunnel && !answer_upgrade(ex, &in)) [[unlikely]]
    return;
  const uint64_t service_ms = ex.request_phase != RequestPhase::kComplete
                                  ? http::kRequestNotSent
                                  : (ctx_.now - ex.request_complete_at) / base::kMillisecond;
  bool room = http::mutate_upstream_response(&response, options, service_ms, scratch);
  if (ex.retry != nullptr && ex.retry->count_in_response) [[unlikely]]
    room = room && response.headers.set(HeaderId::kXEnvoyAttemptCount, scratch.decimal(ex.retry->attempts));
  ex.upstream_service_time = response.headers.get(HeaderId::kXEnvoyUpstreamServiceTime);
  room = room && apply_response_edits(ex, scratch, false);
  bool encoded = false, grpc_web = false;
  if (ex.filters != nullptr) [[unlikely]] {
    GrpcWeb* web = ex.filters->grpc_web;
    if (ex.filters->cors != nullptr) room = room && put_cors(*ex.filters->cors, response.headers);
    if (web != nullptr && begin_grpc_web_response(ex, in.empty()) && room && !scratch.overflowed()) {
      web->gathering = true;
      web->response_scratch = scratch;
      ex.response_phase = ResponsePhase::kBody;
      ex.request_deadline = base::kNever;
      if (ex.upstream_stream == nullptr) start_body(ex.response_body, in, false, false);
      else ex.response_body.decoder.start(in);
      return;
    }
    grpc_web = web != nullptr;
    encoded = grpc_web && !in.empty();  // another length then
    if (ex.filters->compression != nullptr) room = room && compress_response(ex, response.headers, in.empty(), scratch);
    encoded |= encodes(ex);
  }
  room = room && http::mutate_response(&response, options, {ctx_.date, ex.request_id, ex.tunnel_open}, scratch);
  if (!room || scratch.overflowed()) {
    upstreams_.cancel(ex);
    ctx_.heads.release(std::exchange(ex.response_buffer, nullptr));
    ex.flags.set(ResponseFlag::kUpstreamProtocolError);
    return reply(ex, LocalReply::kUpstreamProtocolError);
  }
  StageScope stage(ctx_.stages, Stage::kHttpWrite);
  const http::BodyFraming out =
      http::outgoing_framing(encoded ? http::BodyFraming{http::Framing::kChunked, 0} : in, ex.request.version);
  if (out.kind == http::Framing::kUntilClose || outlived(d)) ex.close_downstream = true;
  if (ex.request_phase != RequestPhase::kComplete && !ex.tunnel) [[unlikely]]
    answered_early(ex);
  const http::ResponseWrite how{out, ex.request.version, ex.close_downstream && !ex.tunnel_open, ex.is_head};
  if (!write_response_head(ex, response, how, in.empty())) {
    ex.flags.set(ResponseFlag::kOverloadManager);
    return cut_response(ex);
  }
  ex.response_phase = ResponsePhase::kBody;
  ex.request_deadline = base::kNever;  // Envoy: until the response begins
  ex.downstream_first_byte_at = ctx_.now;
  const bool chunked_out = ex.stream == nullptr && out.kind == http::Framing::kChunked;
  const bool trailers = ex.stream != nullptr || (chunked_out && d.policy->http.enable_trailers) ||
                        grpc_web;  // the client takes them, or the gRPC-Web filter
  ex.response_body.drop_trailers = !trailers;
  if (ex.upstream_stream == nullptr) [[likely]]
    return start_body(ex.response_body, in, chunked_out, trailers && ex.cluster->enable_trailers);
  ex.response_body.chunked_out = chunked_out;
  ex.response_body.decoder.start(in);  // of a stream only asked how the body leaves
}

// ---- the gateway's own answers
// ---------------------------------------------------------------------------------------------------

void HttpProxy::redirect(Exchange& ex, uint16_t status, std::string_view location) {
  if (location.empty()) return reply_with(ex, 431, {}, ResponseDetail::kH1HeadersTooLarge, true);
  reply_with(ex, status, {}, ResponseDetail::kDirectResponse, false, location);
}

void HttpProxy::reply(Exchange& ex, LocalReply kind, stats::ResponseFlags flags) {
  const http::LocalReplyInfo& i = http::info(kind);
  ex.flags = ex.flags | flags;
  reply_with(ex, i.status, i.body, i.detail, i.closes);
}

void HttpProxy::reply_tls_failure(Exchange& ex, std::string_view reason) {
  constexpr std::string_view kBefore = "upstream_reset_before_response_started{remote_connection_failure|", kAfter = "}";
  const size_t n = kBefore.size() + reason.size() + kAfter.size() + 1;
  if (!reason.empty() && ex.scratch.left() >= n) {
    char* text = ex.scratch.allocate(n);
    char* at = std::copy(kBefore.begin(), kBefore.end(), text);
    at = std::replace_copy(reason.begin(), reason.end(), at, ' ', '_');
    at = std::copy(kAfter.begin(), kAfter.end(), at);
    *at = 0;
    ex.detail_text = text;
  }
  reply(ex, LocalReply::kUpstreamConnectFailure, ResponseFlag::kUpstreamConnectionFailure);
}

namespace {

// What Envoy says of a connection that failed again.
std::string_view retried_body(std::string_view body, http::Scratch& scratch) {
  constexpr std::string_view kFailed = "upstream connect error or disconnect/reset before headers. ",
                             kRetried = "retried and the latest ";
  std::array<char, 192> text;
  if (!body.starts_with(kFailed) || body.size() + kRetried.size() > text.size()) return body;
  size_t n = kFailed.copy(text.data(), kFailed.size());
  n += kRetried.copy(text.data() + n, kRetried.size());
  n += body.copy(text.data() + n, text.size() - n, kFailed.size());
  return scratch.copy({text.data(), n});
}

}  // namespace

// The response's head in its buffer; `text` is the body that follows. False: no room.
bool HttpProxy::make_local_reply(Exchange& ex, uint16_t status, std::string_view body, std::string_view location,
                                 std::string_view* text) {
  HeadBuffer* const h = ex.response_buffer;
  const HttpPolicy& policy = ex.downstream->policy->http;
  http::Scratch scratch(h->scratch());
  ex.response.headers = http::HeaderTable(h->headers, h->header_capacity);
  bool room = true;
  // Envoy's order: the place, the route's fields, x-envoy-overloaded, then content-length and -type.
  if (!location.empty()) room = ex.response.headers.push({"location", scratch.copy(location), HeaderId::kLocation});
  ex.status = 0;  // as yet: what %RESPONSE_CODE% of an added field is to Envoy
  room = room && apply_response_edits(ex, scratch, true);
  // Not when only a retry was refused.
  const bool dropped = ex.flags.has(ResponseFlag::kUpstreamOverflow) && (ex.retry == nullptr || !ex.retry->overflowed);
  if (ex.retry != nullptr && ex.retry->count_in_response && ex.endpoint_slot != stats::kOverflowScope)
    room = room && ex.response.headers.set(HeaderId::kXEnvoyAttemptCount, scratch.decimal(ex.retry->attempts));
  if (dropped && !policy.forward.suppress_envoy_headers)
    room = room && ex.response.headers.push({"x-envoy-overloaded", "true", HeaderId::kXEnvoyOverloaded});
  std::string_view content_type = "text/plain";
  bool other_body = false;
  const Cors* cors = ex.filters == nullptr ? nullptr : ex.filters->cors;
  const bool preflight = cors != nullptr && cors->preflight;  // Envoy: a response of the filter's own, no local reply
  if (ex.retry != nullptr && ex.retry->attempts > 1) [[unlikely]]
    body = retried_body(body, scratch);
  if (policy.local_replies && !preflight) [[unlikely]] {
    const std::string_view before = body;
    room = room && rewrite_local_reply(ex, &status, &body, &content_type, scratch);
    other_body = body != before;
  }
  room = room &&
         http::fill_local_reply(&ex.response, status, body, ex.is_grpc && !preflight, scratch, text, content_type, other_body);
  ex.status = ex.response.status;  // a gRPC request is answered with 200
  if (ex.filters != nullptr) [[unlikely]] {
    if (cors != nullptr) room = room && put_cors(*cors, ex.response.headers);
    if (ex.filters->grpc_web != nullptr && room) {
      const bool gather = begin_grpc_web_response(ex, ex.is_head || text->empty());
      if (gather) room = put_grpc_message(ex.response, http::grpc_message(*text, scratch), scratch);
      *text = {};
    }
    if (ex.filters->compression != nullptr)
      room = room && compress_response(ex, ex.response.headers, ex.is_head || text->empty(), scratch);
  }
  room = room && http::mutate_response(&ex.response, ex.downstream->policy->forward, {ctx_.date, ex.request_id, false}, scratch);
  return room && !scratch.overflowed();
}

void HttpProxy::reply_with(Exchange& ex, uint16_t status, std::string_view body, ResponseDetail detail, bool close,
                           std::string_view location) {
  if (ex.response_phase != ResponsePhase::kNone) return cut_response(ex);
  StageScope stage(ctx_.stages, Stage::kHttpWrite);
  DownstreamSession& d = *ex.downstream;
  if (ex.response_buffer == nullptr) ex.response_buffer = ctx_.heads.acquire();
  HeadBuffer* h = ex.response_buffer;
  if (h == nullptr) return cut_response(ex);
  h->used = h->head_length = 0;
  ex.local_reply = true;
  if (ex.detail == ResponseDetail::kNone) ex.detail = detail;
  if (close || outlived(d)) ex.close_downstream = true;
  if (ex.request_phase != RequestPhase::kComplete) answered_early(ex);
  std::string_view text;
  bool room = make_local_reply(ex, status, body, location, &text);
  if (!room && (d.policy->http.local_replies || ex.filters != nullptr)) [[unlikely]] {  // the form of a body may be long
    if (HeadBuffer* large = ctx_.heads.grow(h); large != nullptr) {
      ex.response_buffer = large;
      room = make_local_reply(ex, status, body, location, &text);
    }
  }
  if (!room) return cut_response(ex);
  const bool encoded = encodes(ex);
  const http::BodyFraming framing = encoded        ? http::outgoing_framing({http::Framing::kChunked, 0}, ex.request.version)
                                    : text.empty() ? http::BodyFraming{}
                                                   : http::BodyFraming{http::Framing::kContentLength, text.size()};
  if (framing.kind == http::Framing::kUntilClose) ex.close_downstream = true;
  const http::ResponseWrite how{framing, ex.request.version, ex.close_downstream, ex.is_head};
  const bool body_follows = !ex.is_head && !text.empty();
  if (!write_response_head(ex, ex.response, how, !body_follows)) return cut_response(ex);
  ex.response_phase = ResponsePhase::kBody;
  ex.downstream_first_byte_at = ctx_.now;
  if (encoded) {
    ex.response_body.chunked_out = ex.stream == nullptr && framing.kind == http::Framing::kChunked;
    if (!write_encoded(ex, text)) return cut_response(ex);
  } else if (body_follows) {
    if (ex.stream != nullptr) {
      if (ex.stream->tx.append_copy(text, ctx_.stack.pool()) != text.size()) return cut_response(ex);
      http2_.written(*ex.stream, true);
    } else if (ctx_.transports.write_copy(d, text, ctx_.now) != text.size()) {
      return cut_response(ex);
    }
    ex.bytes_sent += text.size();
  }
  ex.response_phase = ResponsePhase::kComplete;
  finish(ex);
}

}  // namespace millrace::dataplane
