#include "dataplane/inspector.h"

#include <algorithm>
#include <cstring>

#include "dataplane/downstream.h"
#include "dataplane/health_checker.h"
#include "dataplane/tcp_proxy.h"
#include "dataplane/upstreams.h"

namespace millrace::dataplane {

using table::ConnectionRecord;
using table::ConnectionSort;
using table::InspectAction;
using table::SessionPhase;

// ---- what sessions know -------------------------------------------------------------------------------------------------------

SessionFacts session_facts(const Connection& c) {
  SessionFacts f;
  if (c.owner == nullptr) return f;
  const auto& session = *static_cast<const Session*>(c.owner);
  if (session.tls != nullptr && session.tls->session != nullptr) {
    const tls::Negotiated n = session.tls->session->negotiated();
    f.alpn = n.alpn;
    if (n.cipher_id != 0) f.tls_version = n.version == tls::Version::kTls13 ? 0x0304 : 0x0303;
    f.tls_cipher = n.cipher_id;
    f.sni = n.server_name;
  }
  switch (session.kind) {
    case SessionKind::kDownstream: {
      const auto& d = static_cast<const DownstreamSession&>(session);
      f.since = d.accepted_at;
      f.requests = d.requests;
      f.id = d.connection_id;
      if (!d.server_name().empty()) f.sni = d.server_name();
      if (d.policy != nullptr) f.listener = d.policy->listener;
      switch (d.phase) {
        case DownstreamPhase::kFree:
          break;
        case DownstreamPhase::kInspect:
          f.phase = SessionPhase::kInspect;
          break;
        case DownstreamPhase::kHandshake:
          f.phase = SessionPhase::kHandshake;
          break;
        case DownstreamPhase::kLinger:
          f.phase = SessionPhase::kLinger;
          break;
        case DownstreamPhase::kHttp:
          f.phase = SessionPhase::kHttp;
          if (d.exchange != nullptr) {
            if (d.exchange->cluster != nullptr) f.cluster = d.exchange->cluster->id;
            if (d.exchange->upstream != nullptr) f.peer = d.exchange->upstream->connection;
          }
          break;
        case DownstreamPhase::kHttp2:
          f.phase = SessionPhase::kHttp2;  // many exchanges at once: none of them is the other side
          break;
        case DownstreamPhase::kTunnel:
          f.phase = SessionPhase::kTunnel;
          if (d.tunnel == nullptr) break;
          f.cluster = d.tunnel->cluster;
          f.peer = d.tunnel->connection;
          f.tunnel = true;
          f.bytes_from_peer = d.tunnel->bytes_received;
          f.bytes_to_peer = d.tunnel->bytes_sent;
          break;
      }
      return f;
    }
    case SessionKind::kUpstreamHttp: {
      const auto& u = static_cast<const UpstreamSession&>(session);
      f.since = u.opened_at;
      f.requests = u.requests;
      if (u.endpoint != nullptr && u.endpoint->cluster != nullptr) f.cluster = u.endpoint->cluster->id;
      f.phase = !u.connected ? SessionPhase::kConnecting : u.exchange == nullptr ? SessionPhase::kIdle : SessionPhase::kActive;
      if (u.exchange != nullptr && u.exchange->downstream != nullptr) {
        const DownstreamSession& d = *u.exchange->downstream;
        f.peer = d.connection;
        if (d.policy != nullptr) f.listener = d.policy->listener;
      }
      return f;
    }
    case SessionKind::kHealthCheck: {
      const auto& s = static_cast<const CheckSession&>(session);
      f.since = s.opened_at;
      f.cluster = s.cluster;
      f.phase = !s.ready ? SessionPhase::kConnecting : s.under_way ? SessionPhase::kActive : SessionPhase::kIdle;
      return f;
    }
    case SessionKind::kUpstreamTcp: {
      const auto& t = static_cast<const Tunnel&>(session);
      f.since = t.connect_started;
      f.cluster = t.cluster;
      f.phase = t.connected ? SessionPhase::kTunnel : SessionPhase::kConnecting;
      f.tunnel = t.connected;
      f.bytes_to_peer = t.bytes_received;
      f.bytes_from_peer = t.bytes_sent;
      if (t.downstream != nullptr) {
        f.peer = t.downstream->connection;
        if (t.downstream->policy != nullptr) f.listener = t.downstream->policy->listener;
      }
      return f;
    }
  }
  return f;
}

// ---- questions ----------------------------------------------------------------------------------------------------------------

Inspector::Inspector(WorkerContext& context, Capture& capture, shm::RingProducer* ring)
    : ctx_(context), capture_(capture), ring_(ring) {
  for (Walk& w : walks_) w.best = std::make_unique_for_overwrite<Candidate[]>(table::kMaxSorted);
}

bool Inspector::step(WorkerTableSlot& slot) {
  const uint32_t posted = slot.posted();
  for (; fetched_ != posted; slot.fetched(++fetched_)) fetch(slot.question(fetched_));
  active_ = capture_.step(ctx_.now);
  if (capture_.wants_tls_keys()) {
    ctx_.transports.set_key_log(
        {[](void* self, const char* text, size_t size) { static_cast<Capture*>(self)->tls_key(text, size); }, &capture_});
  } else {
    ctx_.transports.set_key_log({});
  }
  bool walking = false;
  for (Walk& w : walks_) {
    if (w.phase == Walk::Phase::kFree) continue;
    advance(w);
    walking |= w.phase != Walk::Phase::kFree;
  }
  active_ |= walking;
  return walking;
}

void Inspector::fetch(const WorkerTableSlot::Question& q) {
  if (ring_ == nullptr) return;
  table::CommandType type;
  std::memcpy(&type, q.bytes, sizeof type);
  switch (type) {
    case table::CommandType::kInspectConnections:
      return begin(*reinterpret_cast<const table::InspectConnections*>(q.bytes));
    case table::CommandType::kStartCapture:
      return capture_.start(*reinterpret_cast<const table::StartCapture*>(q.bytes), ctx_.now);
    case table::CommandType::kStopInspection: {
      const uint64_t id = reinterpret_cast<const table::StopInspection*>(q.bytes)->id;
      for (Walk& w : walks_)
        if (id == 0 || w.question.id == id) w.phase = Walk::Phase::kFree;
      return capture_.stop(id);
    }
    default:
      return;
  }
}

void Inspector::begin(const table::InspectConnections& question) {
  if ((question.filter.workers >> (ctx_.worker & 63) & 1) == 0) return;
  Walk* w = std::find_if(walks_, walks_ + kWalks, [](const Walk& x) { return x.phase == Walk::Phase::kFree; });
  if (w == walks_ + kWalks) {
    const auto room = ring_->reserve(sizeof(table::InspectDone));
    if (room.data() == nullptr) return;  // who asked gives up by himself
    table::InspectDone done;
    done.header = {table::InspectType::kDone, ctx_.worker, question.id};
    done.refused = 1;
    std::memcpy(room.data(), &done, sizeof done);
    return ring_->commit(sizeof done);
  }
  w->question = question;
  w->done = {};
  w->done.header = {table::InspectType::kDone, ctx_.worker, question.id};
  w->phase = Walk::Phase::kPool;
  w->next = question.filter.id.slot == UINT32_MAX ? 0 : question.filter.id.slot;
  w->candidates = 0;
  const table::ConnectionFilter& f = question.filter;
  const bool bare = f.id.slot == UINT32_MAX && f.role == 0 && f.listener == table::kNoObject && f.cluster == table::kNoObject &&
                    f.has_peer == 0 && f.has_local == 0 && f.peer_port == 0 && f.local_port == 0;
  if (bare && (f.states >> static_cast<uint32_t>(tcp::State::kTimeWait) & 1) != 0)
    w->done.time_wait = ctx_.stack.time_wait_entries();
  w->trace_at = ctx_.stack.trace().begin();
  w->trace_end = ctx_.stack.trace().end();
}

void Inspector::advance(Walk& w) {
  switch (w.phase) {
    case Walk::Phase::kFree:
      return;
    case Walk::Phase::kPool:
      if (!walk_pool(w)) return;
      w.next = 0;
      if (w.question.action == InspectAction::kShow) {
        w.phase = Walk::Phase::kTrace;
      } else if (w.candidates != 0) {
        std::sort_heap(w.best.get(), w.best.get() + w.candidates,
                       [](const Candidate& a, const Candidate& b) { return a.key > b.key; });
        w.phase = Walk::Phase::kSorted;
      } else {
        w.phase = Walk::Phase::kDone;
      }
      return;
    case Walk::Phase::kSorted:
      if (walk_sorted(w)) w.phase = Walk::Phase::kDone;
      return;
    case Walk::Phase::kTrace:
      if (walk_trace(w)) w.phase = Walk::Phase::kDone;
      return;
    case Walk::Phase::kDone:
      if (finish(w)) w.phase = Walk::Phase::kFree;
      return;
  }
}

bool Inspector::matches(const table::ConnectionFilter& f, const Connection& c) const {
  const tcp::FourTuple& t = c.tuple();
  if ((f.states >> static_cast<uint32_t>(tcp::state(c.tcb)) & 1) == 0) return false;
  if (f.id.slot != UINT32_MAX && f.id.tag != c.tag()) return false;
  if (f.role != 0 && f.role != static_cast<uint32_t>(c.role)) return false;
  if (f.peer_port != 0 && f.peer_port != t.remote_port) return false;
  if (f.local_port != 0 && f.local_port != t.local_port) return false;
  if (f.has_peer != 0 && !t.remote.in_prefix(f.peer, f.peer_bits)) return false;
  if (f.has_local != 0 && !t.local.in_prefix(f.local, f.local_bits)) return false;
  if (f.listener == table::kNoObject && f.cluster == table::kNoObject) return true;
  const SessionFacts s = session_facts(c);
  return (f.listener == table::kNoObject || f.listener == s.listener) &&
         (f.cluster == table::kNoObject || f.cluster == s.cluster);
}

namespace {

uint64_t sort_key(ConnectionSort by, const Connection& c, TimeNs now) {
  const tcp::Info i = tcp::info(c.tcb);
  switch (by) {
    case ConnectionSort::kRtt:
      return i.srtt_us;
    case ConnectionSort::kRetransmits:
      return i.retransmits;
    case ConnectionSort::kAge: {
      const TimeNs since = session_facts(c).since;
      return since == 0 ? 0 : now - since;
    }
    case ConnectionSort::kQueued:
      return uint64_t{i.snd_una_bytes} + i.rx_bytes + i.out_of_order;
    case ConnectionSort::kCwnd:
      return i.cwnd;
    case ConnectionSort::kIdle:
      return now - std::min(i.last_received, now);
    case ConnectionSort::kNone:
    case ConnectionSort::kCount:
      break;
  }
  return 0;
}

}  // namespace

// The largest keys so far, in a heap whose front is the least of them.
void Inspector::keep(Walk& w, uint64_t key, table::ConnectionId id) {
  const uint32_t most = std::min(w.question.limit, table::kMaxSorted);
  const auto larger = [](const Candidate& a, const Candidate& b) { return a.key > b.key; };
  Candidate* begin = w.best.get();
  if (w.candidates < most) {
    begin[w.candidates++] = {key, id};
    std::push_heap(begin, begin + w.candidates, larger);
  } else if (most > 0 && key > begin[0].key) {
    std::pop_heap(begin, begin + w.candidates, larger);
    begin[w.candidates - 1] = {key, id};
    std::push_heap(begin, begin + w.candidates, larger);
  }
}

// A slice of the pool. True at its end.
bool Inspector::walk_pool(Walk& w) {
  TcpStack& stack = ctx_.stack;
  const table::InspectConnections& q = w.question;
  const bool one = q.filter.id.slot != UINT32_MAX;
  const uint32_t end = one ? std::min(q.filter.id.slot + 1, stack.connection_slots()) : stack.connection_slots();
  const uint32_t stop = std::min(end, w.next + std::min(kSlotsPerStep, end - std::min(w.next, end)));
  uint32_t written = 0;
  for (; w.next < stop; ++w.next) {
    Connection* c = stack.connection_at(w.next);
    if (c == nullptr || c->over || !matches(q.filter, *c)) continue;
    if (written == kRecordsPerStep) return false;
    if (q.action == InspectAction::kKill) {
      ++w.done.matched;
      if (w.done.killed < q.limit) {
        stack.kill(*c, ctx_.now);
        ++w.done.killed;
        ++written;
      }
      continue;
    }
    if (q.sort != ConnectionSort::kNone) {
      ++w.done.matched;
      keep(w, sort_key(q.sort, *c, ctx_.now), stack.id_of(*c));
      continue;
    }
    if (w.done.reported < q.limit) {
      if (!report(w, *c)) return false;  // no room: this one again in the next turn
      ++written;
    }
    ++w.done.matched;
  }
  return w.next >= end;
}

// The candidates, largest first, as far as they are still there.
bool Inspector::walk_sorted(Walk& w) {
  for (uint32_t written = 0; w.next < w.candidates; ++w.next) {
    const table::ConnectionId id = w.best[w.next].id;
    const Connection* c = ctx_.stack.connection_at(id.slot);
    if (c == nullptr || c->tag() != id.tag) continue;
    if (written++ == kRecordsPerStep || !report(w, *c)) return false;
  }
  return true;
}

// The trace of one connection, oldest first; entries that were written over meanwhile are passed by.
bool Inspector::walk_trace(Walk& w) {
  const TraceRing& trace = ctx_.stack.trace();
  w.trace_at = std::max(w.trace_at, trace.begin());
  const uint64_t stop = std::min(w.trace_end, w.trace_at + kSlotsPerStep * 16);
  uint32_t written = 0;
  for (; w.trace_at < stop; ++w.trace_at) {
    const table::TraceEntry& e = trace.at(w.trace_at);
    if (e.slot != w.question.filter.id.slot || e.tag != w.question.filter.id.tag) continue;
    if (written++ == kRecordsPerStep) return false;
    const auto room = ring_->reserve(sizeof(table::TraceRecord));
    if (room.data() == nullptr) return false;
    table::TraceRecord r;
    r.header = {table::InspectType::kTrace, ctx_.worker, w.question.id};
    r.ago_ns = ctx_.now - e.time_ns;
    r.entry = e;
    std::memcpy(room.data(), &r, sizeof r);
    ring_->commit(sizeof r);
  }
  return w.trace_at >= w.trace_end;
}

bool Inspector::finish(Walk& w) {
  const auto room = ring_->reserve(sizeof w.done);
  if (room.data() == nullptr) return ring_->error() != shm::RingError::kNone;  // a broken ring: nobody will hear
  const TraceRing& trace = ctx_.stack.trace();
  if (trace.end() > trace.begin()) w.done.trace_begins_ago_ns = ctx_.now - trace.at(trace.begin()).time_ns;
  std::memcpy(room.data(), &w.done, sizeof w.done);
  ring_->commit(sizeof w.done);
  return true;
}

// ---- one connection -----------------------------------------------------------------------------------------------------------

bool Inspector::report(Walk& w, const Connection& c) {
  const SessionFacts s = session_facts(c);
  ConnectionRecord r;
  r.header = {table::InspectType::kConnection, ctx_.worker, w.question.id};
  fill(r, c, s);
  const uint32_t size = static_cast<uint32_t>(sizeof r) + r.sni_size + r.alpn_size;
  const auto room = ring_->reserve(size);
  if (room.data() == nullptr) return false;
  std::memcpy(room.data(), &r, sizeof r);
  std::memcpy(room.data() + sizeof r, s.sni.data(), r.sni_size);
  std::memcpy(room.data() + sizeof r + r.sni_size, s.alpn.data(), r.alpn_size);
  ring_->commit(size);
  ++w.done.reported;
  return true;
}

void Inspector::fill(ConnectionRecord& r, const Connection& c, const SessionFacts& s) const {
  const tcp::Info i = tcp::info(c.tcb);
  const tcp::FourTuple& t = c.tuple();
  const TimeNs now = ctx_.now;
  const auto in = [now](TimeNs at) -> int64_t { return at == base::kNever ? -1 : at > now ? static_cast<int64_t>(at - now) : 0; };
  r.connection = ctx_.stack.id_of(c);
  if (s.peer != nullptr) r.peer = ctx_.stack.id_of(*s.peer);
  r.local = t.local;
  r.remote = t.remote;
  r.local_port = t.local_port;
  r.remote_port = t.remote_port;
  r.port = c.port;
  r.state = static_cast<uint8_t>(i.state);
  r.role = static_cast<uint8_t>(c.role);
  r.phase = s.phase;
  r.recovery = i.recovery;
  r.snd_wscale = i.snd_wscale;
  r.rcv_wscale = i.rcv_wscale;
  r.sack = i.sack;
  r.timestamps = i.timestamps;
  r.window_scaling = i.window_scaling;
  r.congestion = static_cast<uint8_t>(i.congestion);
  r.backoff = i.timeouts;
  r.probes = i.probes;
  r.keepalives = i.keepalives;
  r.sni_size = static_cast<uint8_t>(std::min<size_t>(s.sni.size(), 255));
  r.alpn_size = static_cast<uint8_t>(std::min<size_t>(s.alpn.size(), 255));
  r.mss = i.mss;
  r.peer_mss = i.peer_mss;
  r.tls_version = s.tls_version;
  r.tls_cipher = s.tls_cipher;
  r.cwnd = i.cwnd;
  r.ssthresh = i.ssthresh;
  r.snd_wnd = i.snd_wnd;
  r.rcv_wnd = i.rcv_wnd;
  r.snd_una = i.snd_una;
  r.snd_nxt = i.snd_nxt;
  r.rcv_nxt = i.rcv_nxt;
  r.unacked = i.snd_nxt - i.snd_una;
  r.sacked = i.sacked;
  r.send_queue = i.snd_una_bytes;
  r.receive_queue = i.rx_bytes;
  r.out_of_order = i.out_of_order;
  r.srtt_us = i.srtt_us;
  r.rttvar_us = i.rttvar_us;
  r.rto_us = i.rto_ms * 1000;
  r.retransmits = static_cast<uint32_t>(i.retransmits);
  r.reordering = i.reordering_events;
  r.requests = s.requests;
  r.age_ns = s.since == 0 ? 0 : now - std::min(s.since, now);
  r.idle_ns = now - std::min(i.last_received, now);
  r.retransmit_in_ns = in(i.retransmit_at);
  r.delayed_ack_in_ns = in(i.delayed_ack_at);
  r.state_in_ns = in(i.state_at);
  r.keepalive_in_ns = in(i.keepalive_at);
  r.persist = i.persist;
  r.session_id = s.id;
  r.listener = s.listener;
  r.cluster = s.cluster;
  if (r.listener == table::kNoObject && c.role == Role::kDownstream) r.listener = ctx_.stack.listener_of(c);
  r.stream_sent = tcp::stream_sent(c.tcb);
  r.stream_received = tcp::stream_received(c.tcb);
  if (s.tunnel) {
    r.stream_known = 1;
    r.stream_sent = s.bytes_to_peer;
    r.stream_received = s.bytes_from_peer;
  }
}

}  // namespace millrace::dataplane
