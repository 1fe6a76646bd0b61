#include "dataplane/downstream.h"

#include <memory>

#include "dataplane/filter_chain_match.h"
#include "dataplane/http2_server.h"
#include "dataplane/http_proxy.h"
#include "dataplane/tcp_proxy.h"
#include "dataplane/upstreams.h"
#include "lib/base/hash.h"
#include "lib/stats/events.h"
#include "lib/tls/client_hello.h"
#include "lib/wire/proxy_protocol.h"

namespace millrace::dataplane {

using stats::HcmCounter;
using stats::ListenerCounter;
using stats::TlsCounter;

namespace {
uint64_t chain_key(const table::Listener& l, uint32_t index) {
  return base::hash64(table::view(&l, l.filter_chains.at(&l, index).name));
}
}  // namespace

uint32_t find_chain(const table::Listener& l, uint64_t key, uint32_t likely) {
  if (likely < l.filter_chains.count && chain_key(l, likely) == key) return likely;
  for (uint32_t i = 0; i < l.filter_chains.count; ++i)
    if (chain_key(l, i) == key) return i;
  return UINT32_MAX;
}

CurrentChain current_chain(const WorkerContext& ctx, const DownstreamSession& d) {
  const ListenerRuntime* listener = ctx.tables->listener(d.policy->listener);
  if (listener == nullptr) return {};
  uint32_t chain = d.policy->chain;
  if (d.policy->epoch != ctx.tables->epoch()) chain = find_chain(*listener->object, d.policy->chain_key, chain);
  return chain < listener->chains.size() ? CurrentChain{listener->object, &listener->chains[chain]} : CurrentChain{};
}

Downstreams::Downstreams(WorkerContext& context, HttpProxy& http, TcpProxy& tcp)
    : ctx_(context),
      http_(http),
      tcp_(tcp),
      sessions_(context.limits.connections),
      extras_(context.limits.connections),
      mores_(context.limits.connections),
      policies_(context.limits.policies),
      hello_scratch_(std::make_unique<uint8_t[]>(tls::kMaxClientHelloBytes)) {}

Downstreams::~Downstreams() {
  for (uint32_t i = 0; i < sessions_.ever_used(); ++i) {
    if (!sessions_.lent(i)) continue;
    DownstreamSession& d = sessions_[i];
    ctx_.disarm(d.timer);
    ctx_.heads.release(std::exchange(d.head, nullptr));
    d.wake.unlink();
    if (d.connection != nullptr) ctx_.transports.abort(d, ctx_.now);
    sessions_.free(&d);
  }
}

// What stands for a policy while the chain is not chosen.
ConnectionPolicy* Downstreams::unchosen(table::ObjectId listener, stats::ScopeSlot slot) {
  ConnectionPolicy* p = policies_.again(listener, UINT16_MAX, ctx_.tables->epoch());
  return p != nullptr ? p : policies_.acquire(listener, slot, UINT16_MAX, 0, nullptr, ctx_.tables->epoch());
}

void Downstreams::accept(Connection& c) {
  DownstreamSession* d = sessions_.alloc();
  const table::ObjectId listener_id = ctx_.stack.listener_of(c);
  const ListenerRuntime* listener = ctx_.tables->listener(listener_id);
  if (d == nullptr || listener == nullptr) {
    if (d != nullptr) sessions_.free(d);
    if (listener != nullptr) ctx_.stats.scope(listener->slot)[ListenerCounter::kCxOverflow].add();
    return ctx_.stack.abort(c, ctx_.now);
  }
  std::destroy_at(d);
  std::construct_at(d);
  d->connection = &c;
  c.owner = static_cast<Session*>(d);
  d->phase = DownstreamPhase::kInspect;
  start_counting(*d);
  d->accepted_at = ctx_.now;
  d->handshake_rtt_us = c.tcb.srtt_us;
  d->connection_id = ctx_.stack.next_connection_id();
  stats::ScopeBlock& s = ctx_.stats.scope(listener->slot);
  s[ListenerCounter::kCxTotal].add();
  s[ListenerCounter::kCxActive].add();
  const table::Listener& object = *listener->object;
  if ((object.tls_inspector | object.proxy_protocol) == 0) return choose_chain(*d, listener_id, false, {});
  d->proxy_read = object.proxy_protocol == 0;
  d->policy = unchosen(listener_id, listener->slot);
  if (d->policy == nullptr) return refuse(*d, listener->slot);
  s[ListenerCounter::kPreCxActive].add();
  ctx_.arm(d->timer, deadline_after(ctx_.now, object.listener_filters_timeout_ms));
}

// No place for another policy.
void Downstreams::refuse(DownstreamSession& d, stats::ScopeSlot slot) {
  stats::ScopeBlock& s = ctx_.stats.scope(slot);
  s[ListenerCounter::kCxOverflow].add();
  s[ListenerCounter::kCxActive].sub();
  s[ListenerCounter::kCxDestroy].add();
  ctx_.disarm(d.timer);
  ctx_.transports.abort(d, ctx_.now);
  d.phase = DownstreamPhase::kFree;
  if (d.policy != nullptr) policies_.release(*std::exchange(d.policy, nullptr));
  if (d.extra != nullptr) free_extra(d);
  sessions_.free(&d);
}

void Downstreams::set_sni(DownstreamSession& d, std::string_view name) {
  if (name.empty()) return;
  extra(d).sni.assign(name);
}

ConnectionExtra& Downstreams::extra(DownstreamSession& d) {
  if (d.extra == nullptr) {
    d.extra = extras_.alloc();
    *d.extra = {};
  }
  return *d.extra;
}

ConnectionMore& Downstreams::more(DownstreamSession& d) {
  ConnectionExtra& e = extra(d);
  if (e.more == nullptr) {
    e.more = mores_.alloc();
    e.more->has_ja3 = e.more->has_ja4 = false;
  }
  return *e.more;
}

void Downstreams::free_extra(DownstreamSession& d) {
  ConnectionExtra* e = std::exchange(d.extra, nullptr);
  if (e->more != nullptr) {
    e->more->tlvs.clear();
    if (!e->more->pools.empty()) upstreams_->forget_client(*e->more);
    mores_.free(std::exchange(e->more, nullptr));
  }
  extras_.free(e);
}

void Downstreams::refresh_policy(DownstreamSession& d) {
  ConnectionPolicy& p = *d.policy;
  const uint64_t epoch = ctx_.tables->epoch();
  const ListenerRuntime* entry = ctx_.tables->listener(p.listener);
  const uint32_t chain = entry == nullptr ? UINT32_MAX : find_chain(*entry->object, p.chain_key, p.chain);
  if (chain == UINT32_MAX ||
      entry->object->filter_chains.at(entry->object, chain).filter != table::NetworkFilterKind::kHttpConnectionManager) {
    p.epoch = epoch;
    p.gone = true;
    return;
  }
  HttpPolicy now;
  now.assign(entry->object, entry->object->filter_chains.at(entry->object, chain).hcm);
  now.log_names = entry->chains[chain].log_fields->names;
  now.stat_slot = p.http.stat_slot;  // gauges that went up there come down there
  ConnectionPolicy* same = policies_.acquire(p.listener, p.listener_slot, static_cast<uint16_t>(chain), p.chain_key, &now, epoch);
  if (same == nullptr) {  // no place: as if it were gone
    p.epoch = epoch;
    p.gone = true;
    return;
  }
  d.policy = same;  // mostly the very same, found right
  policies_.release(p);
}

void Downstreams::on_ready(DownstreamSession& d, uint32_t events) {
  if (bytes_due(d)) count_bytes(d);
  constexpr uint32_t kDead = tcp::kEventReset | tcp::kEventTimedOut;
  const DownstreamPhase at = d.phase;
  if (at == DownstreamPhase::kLinger) {
    if (events & kDead) return abort(d);
    ctx_.transports.rx(d).clear();
    if (d.tls != nullptr) tcp::rx_queue(d.connection->tcb).clear();
    tcp::window_update(d.connection->tcb, ctx_.now);
    ctx_.stack.touch(*d.connection);
    if (events & tcp::kEventSendSpace) ctx_.transports.on_send_space(d, ctx_.now);
    if (events & tcp::kEventPeerFin) close(d, 0);
    return;
  }
  if (at == DownstreamPhase::kInspect) {
    if (events & kDead) return abort(d);
    if (events & tcp::kEventPeerFin) d.fin_received = true;
    inspect(d);
    if (d.phase == DownstreamPhase::kInspect && d.fin_received) return close(d, 0);
    return;
  }
  TransportEvents t;
  if ((events & kDead) == 0) t = ctx_.transports.pull(d, events, ctx_.now);
  if (t.failed) {
    count_tls_failure(d, t.error);
    if (at == DownstreamPhase::kHandshake) return close(d, 1'000);
    if (at == DownstreamPhase::kHttp) return http_.on_downstream_gone(d, true);
    if (at == DownstreamPhase::kHttp2) return http_.http2().gone(d, true);
    return tcp_.on_downstream_gone(d);
  }
  if (at == DownstreamPhase::kHandshake) {
    if (events & kDead) return abort(d);
    if (t.handshake_done) {
      const tls::Negotiated n = d.tls->session->negotiated();
      stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
      s[ListenerCounter::kSslHandshake].add();
      if (n.resumed) s[ListenerCounter::kSslSessionReused].add();
      if (!n.peer_certificate) s[ListenerCounter::kSslNoCertificate].add();
      count_staple(d);
      d.certificate_presented = n.peer_certificate;
      d.certificate_validated = n.validation == tls::PeerValidation::kValidated;
      d.tls_resumed = n.resumed;
      d.tls_version = n.version == tls::Version::kTls13 ? stats::kWireTls13 : stats::kWireTls12;
      d.tls_cipher = n.cipher_id;
      if (d.server_name().empty()) set_sni(d, n.server_name);
      ctx_.disarm(d.timer);
      ctx_.stats->histogram(stats::WorkerHistogram::kHandshakeTime).record(ctx_.now - d.accepted_at);
      return start_filter(d);
    }
    if (d.peer_closed || d.fin_received) return close(d, 0);
    return;
  }
  if (at == DownstreamPhase::kHttp) return http_.on_downstream(d, events);
  if (at == DownstreamPhase::kHttp2) return http_.http2().on_downstream(d, events);
  if (at == DownstreamPhase::kTunnel) return tcp_.on_downstream(d, events);
}

// As Envoy counts: failed verifications by their kind, a connection that just ended not at all, all else as connection_error.
void Downstreams::count_tls_failure(DownstreamSession& d, tls::TlsError error) {
  using tls::TlsError;
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  count_staple(d);
  switch (error) {
    case TlsError::kPeerCertificateMissing:
      return s[ListenerCounter::kSslFailVerifyNoCert].add();
    case TlsError::kPeerCertificateName:
      return s[ListenerCounter::kSslFailVerifySan].add();
    case TlsError::kPeerCertificateHash:
      return s[ListenerCounter::kSslFailVerifyHash].add();
    case TlsError::kPeerCertificateUntrusted:
    case TlsError::kPeerCertificateExpired:
    case TlsError::kPeerCertificateRevoked:
    case TlsError::kPeerCertificateBad:
      return s[ListenerCounter::kSslFailVerify].add();
    case TlsError::kHandshakeEof:
    case TlsError::kEofWithoutCloseNotify:
      return;
    default:
      return s[ListenerCounter::kSslConnectionError].add();
  }
}

void Downstreams::count_staple(DownstreamSession& d) {
  if (d.phase != DownstreamPhase::kHandshake || d.tls == nullptr) return;
  const tls::StapleResult r = d.tls->session->staple();
  if (r == tls::StapleResult::kNone) return;
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  s[ListenerCounter::kSslOcspRequests].add();
  s[r == tls::StapleResult::kSent      ? ListenerCounter::kSslOcspResponses
    : r == tls::StapleResult::kOmitted ? ListenerCounter::kSslOcspOmitted
                                       : ListenerCounter::kSslOcspFailed]
      .add();
}

void Downstreams::on_timer(DownstreamSession& d) {
  switch (d.phase) {
    case DownstreamPhase::kInspect: {
      stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
      s[ListenerCounter::kPreCxTimeout].add();
      const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
      if (listener != nullptr && listener->object->continue_on_listener_filters_timeout != 0) {
        s[ListenerCounter::kPreCxActive].sub();
        return choose_chain(d, d.policy->listener, false, {});
      }
      return close(d, 0);
    }
    case DownstreamPhase::kHandshake:
      ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kCxTransportConnectTimeout].add();
      ctx_.stats->tls[TlsCounter::kFailTimeout].add();
      return abort(d);
    case DownstreamPhase::kHttp:
      return http_.on_downstream_timer(d);
    case DownstreamPhase::kHttp2:
      return http_.http2().on_timer(d);
    case DownstreamPhase::kLinger:
      ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxDelayedCloseTimeout].add();
      return close(d, 0);
    case DownstreamPhase::kTunnel:
    case DownstreamPhase::kFree:
      return;
  }
}

// The first of the listener filters: a PROXY protocol header. False: the rest of it has yet to come, or the connection is over.
bool Downstreams::read_proxy_header(DownstreamSession& d, const table::Listener& listener) {
  io::PacketQueue& rx = tcp::rx_queue(d.connection->tcb);
  uint8_t* bytes = hello_scratch_.get();
  static_assert(wire::kMostProxyV2Bytes <= tls::kMaxClientHelloBytes, "one scratch for both");
  const size_t n = rx.peek(0, bytes, static_cast<uint32_t>(wire::kMostProxyV2Bytes));
  wire::ProxyHeader header;
  wire::ProxyError error;
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  switch (wire::parse_proxy_header({bytes, n}, &header, &error)) {
    case wire::ProxyStatus::kPartial:
      return false;
    case wire::ProxyStatus::kBad:
      s[ListenerCounter::kProxyError].add();
      close(d, 0);
      return false;
    case wire::ProxyStatus::kAbsent:
      if (listener.proxy_optional == 0) {
        s[ListenerCounter::kProxyAbsent].add();
        close(d, 0);
        return false;
      }
      s[ListenerCounter::kProxyAbsentAllowed].add();
      break;
    case wire::ProxyStatus::kDone:
      if (header.version == 1 ? listener.proxy_refuse_v1 != 0 : listener.proxy_refuse_v2 != 0) {
        s[ListenerCounter::kProxyDisallowed].add();
        close(d, 0);
        return false;
      }
      s[header.version == 1 ? ListenerCounter::kProxyV1 : ListenerCounter::kProxyV2].add();
      if (!header.local) {
        ConnectionExtra& e = extra(d);
        e.proxied = true;
        e.tuple.remote = header.source;
        e.tuple.remote_port = header.source_port;
        e.tuple.local = header.destination;
        e.tuple.local_port = header.destination_port;
        if (!header.tlvs.empty() && listener.proxy_kept_tlvs.any() && !keep_tlvs(d, header.tlvs, listener.proxy_kept_tlvs)) {
          close(d, 0);
          return false;
        }
      }
      rx.consume(header.size);
      tcp::window_update(d.connection->tcb, ctx_.now);
      ctx_.stack.touch(*d.connection);
      break;
  }
  d.proxy_read = true;
  return true;
}

// False: no packet is left. Who said more than we can remember is not passed on as if he had said less.
bool Downstreams::keep_tlvs(DownstreamSession& d, base::ByteSpan tlvs, const table::TlvTypes& types) {
  io::PacketQueue& kept = more(d).tlvs;
  wire::ProxyTlv tlv;
  for (base::ByteSpan rest = tlvs, at = tlvs; wire::next_proxy_tlv(&rest, &tlv); at = rest) {
    const base::ByteSpan one = at.first(at.size() - rest.size());
    if (types.has(tlv.type) && kept.append_copy(one, ctx_.stack.pool()) != one.size()) {
      ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kProxyTlvsLost].add();
      return false;
    }
  }
  return true;
}

void Downstreams::fingerprint(DownstreamSession& d, const tls::ClientHello& hello) {
  const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
  if (listener == nullptr || (listener->object->ja3 | listener->object->ja4) == 0) return;
  ConnectionMore& m = more(d);
  if (listener->object->ja3 != 0) m.has_ja3 = tls::ja3(hello, m.ja3);
  if (listener->object->ja4 != 0) m.has_ja4 = tls::ja4(hello, m.ja4);
}

void Downstreams::inspect(DownstreamSession& d) {
  if (!d.proxy_read) {
    const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
    if (listener == nullptr) return close(d, 0);  // it went while its first bytes were on the way
    if (!read_proxy_header(d, *listener->object)) return;
    if (listener->object->tls_inspector == 0) {
      ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kPreCxActive].sub();
      return choose_chain(d, d.policy->listener, false, {});
    }
  }
  tls::ClientHello hello;
  const tls::HelloResult r =
      tls::inspect(tcp::rx_queue(d.connection->tcb), {hello_scratch_.get(), tls::kMaxClientHelloBytes}, hello);
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  switch (r.verdict) {
    case tls::HelloVerdict::kNeedMore:
      return;
    case tls::HelloVerdict::kTooLarge:
      ctx_.stats->tls[TlsCounter::kInspectorTooLarge].add();
      return abort(d);
    case tls::HelloVerdict::kClientHello:
      ctx_.stats->tls[TlsCounter::kInspected].add();
      s[ListenerCounter::kPreCxActive].sub();
      set_sni(d, hello.server_name());
      fingerprint(d, hello);
      return choose_chain(d, d.policy->listener, true, hello.alpn);
    case tls::HelloVerdict::kNotTls:
    case tls::HelloVerdict::kBad:  // Envoy without close_connection_on_client_hello_parsing_errors: raw_buffer
      ctx_.stats->tls[TlsCounter::kInspectedNotTls].add();
      s[ListenerCounter::kPreCxActive].sub();
      return choose_chain(d, d.policy->listener, false, {});
  }
}

// `alpn`: views of the scratch or of a packet.
void Downstreams::choose_chain(DownstreamSession& d, table::ObjectId listener_id, bool is_tls, const tls::AlpnList& alpn) {
  ctx_.disarm(d.timer);
  const ListenerRuntime* listener = ctx_.tables->listener(listener_id);
  const stats::ScopeSlot slot = d.policy != nullptr ? d.policy->listener_slot : listener->slot;  // accept() has just found it
  uint32_t chain = kNoFilterChain;
  if (listener != nullptr) {
    ConnectionFacts facts;
    facts.is_tls = is_tls;
    if (is_tls) {
      facts.server_name = d.server_name();
      facts.alpn = alpn;
    }
    facts.destination = d.tuple().local;
    facts.source = d.tuple().remote;
    facts.destination_port = d.tuple().local_port;
    facts.source_port = d.tuple().remote_port;
    chain = match_filter_chain(*listener->object, facts);
  }
  if (chain == kNoFilterChain || chain >= listener->chains.size()) {
    if (d.policy == nullptr) d.policy = unchosen(listener_id, slot);
    if (d.policy == nullptr) return refuse(d, slot);
    ctx_.stats.scope(slot)[ListenerCounter::kNoFilterChainMatch].add();
    ctx_.stats->flag(stats::ResponseFlag::kNoRouteFound);
    d.phase = DownstreamPhase::kHandshake;  // past inspection: nothing of it is left to undo
    return close(d, 0);
  }
  const FilterChainRuntime& runtime = listener->chains[chain];
  const table::FilterChain& c = *runtime.chain;
  ConnectionPolicy* policy = policies_.again(listener_id, static_cast<uint16_t>(chain), ctx_.tables->epoch());
  if (policy == nullptr) {
    HttpPolicy http;
    http.assign(listener->object, c.hcm);
    http.log_names = runtime.log_fields->names;
    http.stat_slot = runtime.slot;
    policy = policies_.acquire(listener_id, slot, static_cast<uint16_t>(chain), chain_key(*listener->object, chain), &http,
                               ctx_.tables->epoch());
  }
  if (policy == nullptr) return refuse(d, slot);
  if (d.policy != nullptr) policies_.release(*d.policy);
  d.policy = policy;
  if (c.has_tls == 0) return start_filter(d);
  d.phase = DownstreamPhase::kHandshake;
  d.tls_terminated = true;
  tls::ServerContext* context = runtime.tls_context(ctx_.worker);
  if (context == nullptr || !ctx_.transports.start_tls_server(d, *context)) {
    ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kSslConnectionError].add();
    return abort(d);
  }
  // Envoy has no limit of its own here unless transport_socket_connect_timeout is set; ours is the listener filters' then.
  const uint32_t timeout = c.connect_timeout_ms != 0 ? c.connect_timeout_ms : listener->object->listener_filters_timeout_ms;
  ctx_.arm(d.timer, deadline_after(ctx_.now, timeout));
  on_ready(d, tcp::kEventReadable);
}

void Downstreams::start_filter(DownstreamSession& d) {
  const ListenerRuntime* listener = ctx_.tables->listener(d.policy->listener);
  const uint32_t chain = listener == nullptr ? UINT32_MAX : find_chain(*listener->object, d.policy->chain_key, d.policy->chain);
  if (chain == UINT32_MAX) return close(d, 0);  // removed between its choice and the end of the handshake
  const table::FilterChain& c = *listener->chains[chain].chain;
  if (d.tls == nullptr && !tcp::rx_queue(d.connection->tcb).empty()) d.peer_closed = d.fin_received;
  if (c.filter == table::NetworkFilterKind::kTcpProxy) {
    tcp_.start(d, listener->object, c.tcp, listener->chains[chain].slot);
    if (d.phase == DownstreamPhase::kTunnel) tcp_.on_downstream(d, tcp::kEventReadable);
    return;
  }
  http_.start(d);
}

void Downstreams::close(DownstreamSession& d, uint32_t delayed_close_ms) {
  if (d.phase == DownstreamPhase::kInspect) ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kPreCxActive].sub();
  ctx_.disarm(d.timer);
  d.wake.unlink();
  ctx_.heads.release(std::exchange(d.head, nullptr));
  count_close(d);
  if (delayed_close_ms == 0 || d.fin_received || d.phase == DownstreamPhase::kLinger) {
    ctx_.transports.detach(d, ctx_.now);
    return free(d);
  }
  ctx_.transports.shutdown(d, ctx_.now);
  ctx_.transports.rx(d).clear();
  ctx_.transports.after_read(d, ctx_.now);
  d.phase = DownstreamPhase::kLinger;
  ctx_.arm(d.timer, deadline_after(ctx_.now, delayed_close_ms));
}

void Downstreams::abort(DownstreamSession& d) {
  if (d.phase == DownstreamPhase::kInspect) ctx_.stats.scope(d.policy->listener_slot)[ListenerCounter::kPreCxActive].sub();
  ctx_.disarm(d.timer);
  d.wake.unlink();
  ctx_.heads.release(std::exchange(d.head, nullptr));
  count_close(d);
  ctx_.transports.abort(d, ctx_.now);
  free(d);
}

void Downstreams::count_bytes(DownstreamSession& d) {
  if (d.connection == nullptr) return;
  const MovedBytes moved = take_moved(d);
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  s[ListenerCounter::kRxBytes].add(moved.rx);
  s[ListenerCounter::kTxBytes].add(moved.tx);
}

void Downstreams::count_close(DownstreamSession& d) {
  count_bytes(d);
  if (d.phase == DownstreamPhase::kHttp || d.phase == DownstreamPhase::kHttp2) {
    ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxActive].sub();
    ctx_.stats.scope(d.policy->http.stat_slot)[HcmCounter::kCxDestroy].add();
  }
}

void Downstreams::free(DownstreamSession& d) {
  stats::ScopeBlock& s = ctx_.stats.scope(d.policy->listener_slot);
  s[ListenerCounter::kCxActive].sub();
  s[ListenerCounter::kCxDestroy].add();
  d.phase = DownstreamPhase::kFree;
  policies_.release(*std::exchange(d.policy, nullptr));
  if (d.extra != nullptr) free_extra(d);
  sessions_.free(&d);
}

}  // namespace millrace::dataplane
