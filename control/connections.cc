#include "control/connections.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>

#include "control/control_plane.h"
#include "control/inspections.h"
#include "control/json_text.h"

namespace millrace::control {

using base::Error;
using base::Result;
using table::ConnectionRecord;
using table::ConnectionSort;
using table::InspectAction;
using table::SessionPhase;
using table::TraceKind;

namespace {

template <class T>
bool number(std::string_view text, T* out, int radix = 10) {
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), *out, radix);
  return !text.empty() && e == std::errc() && end == text.data() + text.size();
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c == '_' ? '-' : static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
  return out;
}

// RFC 9293's names, and where ss has others, those.
Result<uint32_t> state_bit(std::string_view text) {
  static constexpr std::pair<const char*, uint32_t> kShort[] = {
      {"close", 0}, {"unconn", 0}, {"syn-recv", 2}, {"estab", 3}, {"connected", 3}};
  const std::string wanted = lower(text);
  std::vector<std::string> all;
  for (uint32_t i = 0; i < table::kTcpStates; ++i) {
    all.push_back(lower(table::kTcpStateNames[i]));
    if (wanted == all.back()) return 1u << i;
  }
  for (const auto& [name, i] : kShort)
    if (wanted == name) return 1u << i;
  const std::string near = nearest(wanted, all);
  return Error{"--state: \"" + std::string(text) + "\" is no TCP state; " +
               (near.empty() ? "there are " + list_of(all, " and ") : "did you mean " + near + "?")};
}

struct Place {
  base::IpAddress address;
  uint8_t bits = 0;
  bool has_address = false;
  uint16_t port = 0;
};

// ADDRESS, ADDRESS/BITS, ADDRESS:PORT, [ADDRESS]:PORT, :PORT
Result<Place> parse_place(const std::string& option, std::string_view text) {
  const auto bad = [&] {
    return Error{option + ": \"" + std::string(text) +
                 "\" is none of ADDRESS, ADDRESS/BITS, ADDRESS:PORT, [ADDRESS]:PORT, :PORT (names are not looked up)"};
  };
  Place p;
  std::string_view address = text, port;
  if (text.starts_with("[")) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return bad();
    address = text.substr(1, close - 1);
    if (close + 1 < text.size()) {
      if (text[close + 1] != ':') return bad();
      port = text.substr(close + 2);
      if (port.empty()) return bad();
    }
  } else if (const size_t colon = text.find(':');
             colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos) {
    address = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (port.empty()) return bad();
  }
  if (!port.empty() && (!number(port, &p.port) || p.port == 0)) return bad();
  if (address.empty()) return p;
  const size_t slash = address.find('/');
  const auto a = base::IpAddress::parse(address.substr(0, slash));
  if (!a) return bad();
  p.address = *a;
  p.has_address = true;
  const unsigned most = a->is_v4() ? 32 : 128;
  unsigned bits = most;
  if (slash != std::string_view::npos && (!number(address.substr(slash + 1), &bits) || bits > most)) return bad();
  p.bits = static_cast<uint8_t>(bits);
  return p;
}

Result<table::ObjectId> find_object(const Model& model, ConfigKind kind, table::Kind table_kind, const std::string& option,
                                    const std::string& name) {
  if (name.empty()) return table::kNoObject;
  const std::vector<std::string> all = model.names(kind);
  if (std::find(all.begin(), all.end(), name) != all.end()) return table::object_id(table_kind, name);
  const std::string near = nearest(name, all);
  return Error{option + ": there is no " + std::string(to_string(kind)) + " \"" + name + "\"" +
               (!near.empty() ? "; did you mean " + near + "?"
                : all.empty() ? ""
                              : "; there are " + list_of(all, " and "))};
}

constexpr std::pair<const char*, ConnectionSort> kSorts[] = {
    {"rtt", ConnectionSort::kRtt},   {"retransmits", ConnectionSort::kRetransmits},
    {"age", ConnectionSort::kAge},   {"queued", ConnectionSort::kQueued},
    {"cwnd", ConnectionSort::kCwnd}, {"idle", ConnectionSort::kIdle}};

constexpr uint32_t kDefaultWaitMs = 5'000;

double ms(uint32_t us) { return us / 1e3; }
double seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

const char* state_name(uint8_t s) { return s < table::kTcpStates ? table::kTcpStateNames[s] : "?"; }

std::string join_endpoint(const base::IpAddress& a, uint16_t port) {
  return (a.is_v4() ? a.to_string() : "[" + a.to_string() + "]") + ":" + std::to_string(port);
}

const char* phase_name(SessionPhase p) {
  switch (p) {
    case SessionPhase::kNone:
      return "";
    case SessionPhase::kInspect:
      return "inspect";
    case SessionPhase::kHandshake:
      return "handshake";
    case SessionPhase::kHttp:
      return "http";
    case SessionPhase::kTunnel:
      return "tunnel";
    case SessionPhase::kLinger:
      return "linger";
    case SessionPhase::kConnecting:
      return "connecting";
    case SessionPhase::kIdle:
      return "idle";
    case SessionPhase::kActive:
      return "active";
    case SessionPhase::kHttp2:
      return "http2";
  }
  return "";
}

// The next of its timers, named as ss does.
void report_timer(const ConnectionRecord& r, v1::Connection* out) {
  const std::pair<int64_t, const char*> timers[] = {{r.retransmit_in_ns, r.persist != 0 ? "persist" : "on"},
                                                    {r.delayed_ack_in_ns, "delack"},
                                                    {r.state_in_ns, r.state == 9 ? "timewait" : "user"},
                                                    {r.keepalive_in_ns, "keepalive"}};
  const std::pair<int64_t, const char*>* first = nullptr;
  for (const auto& t : timers)
    if (t.first >= 0 && (first == nullptr || t.first < first->first)) first = &t;
  if (first == nullptr) return;
  out->set_timer(first->second);
  out->set_timer_ms(static_cast<double>(first->first) / 1e6);
}

}  // namespace

std::string connection_id(uint32_t worker, table::ConnectionId id) {
  char text[48];
  std::snprintf(text, sizeof text, "%u-%u-%08x", worker, id.slot, id.tag);
  return text;
}

Result<std::pair<uint32_t, table::ConnectionId>> parse_connection_id(std::string_view text) {
  const size_t a = text.find('-'), b = a == std::string_view::npos ? a : text.find('-', a + 1);
  uint32_t worker = 0;
  table::ConnectionId id;
  if (b == std::string_view::npos || !number(text.substr(0, a), &worker) || !number(text.substr(a + 1, b - a - 1), &id.slot) ||
      text.size() - b - 1 != 8 || !number(text.substr(b + 1), &id.tag, 16) || id.slot == UINT32_MAX)
    return Error{"\"" + std::string(text) + "\" is no connection: an id looks like 0-17-3fa90c21; millctl conn list shows them"};
  return std::pair{worker, id};
}

Result<table::InspectConnections> connections_question(const v1::ConnectionsRequest& rq, const Model& model, uint32_t workers) {
  table::InspectConnections q;
  q.action = rq.action() == v1::ConnectionsRequest::KILL   ? InspectAction::kKill
             : rq.action() == v1::ConnectionsRequest::SHOW ? InspectAction::kShow
                                                           : InspectAction::kList;
  q.limit = rq.limit() == 0 ? UINT32_MAX : rq.limit();
  table::ConnectionFilter& f = q.filter;
  if (!rq.id().empty()) {
    auto id = parse_connection_id(rq.id());
    if (!id.ok()) return Error{id.error()};
    if (id->first >= workers)
      return Error{"\"" + rq.id() + "\": there is no worker " + std::to_string(id->first) + "; there are " +
                   std::to_string(workers)};
    f.id = id->second;
    f.workers = uint64_t{1} << id->first;
  } else if (q.action == InspectAction::kShow) {
    return Error{"which connection? millctl conn list shows their ids"};
  }
  if (rq.workers_size() != 0) {
    uint64_t mask = 0;
    for (const uint32_t w : rq.workers()) {
      if (w >= workers)
        return Error{"--worker: there is no worker " + std::to_string(w) + "; there are " + std::to_string(workers)};
      mask |= uint64_t{1} << w;
    }
    f.workers &= mask;
  }
  if (rq.states_size() != 0) {
    f.states = 0;
    for (const std::string& s : rq.states()) {
      auto bit = state_bit(s);
      if (!bit.ok()) return Error{bit.error()};
      f.states |= *bit;
    }
  }
  auto listener = find_object(model, ConfigKind::kListener, table::Kind::kListener, "--listener", rq.listener());
  if (!listener.ok()) return Error{listener.error()};
  f.listener = *listener;
  auto cluster = find_object(model, ConfigKind::kCluster, table::Kind::kCluster, "--cluster", rq.cluster());
  if (!cluster.ok()) return Error{cluster.error()};
  f.cluster = *cluster;
  if (!rq.peer().empty()) {
    auto p = parse_place("--peer", rq.peer());
    if (!p.ok()) return Error{p.error()};
    f.peer = p->address, f.peer_bits = p->bits, f.has_peer = p->has_address, f.peer_port = p->port;
  }
  if (!rq.local().empty()) {
    auto p = parse_place("--local", rq.local());
    if (!p.ok()) return Error{p.error()};
    f.local = p->address, f.local_bits = p->bits, f.has_local = p->has_address, f.local_port = p->port;
  }
  if (rq.role() == "downstream") f.role = 1;
  else if (rq.role() == "upstream") f.role = 2;
  else if (!rq.role().empty()) return Error{"--role: \"" + rq.role() + "\" is neither downstream nor upstream"};
  if (!rq.sort().empty()) {
    std::vector<std::string> all;
    for (const auto& [name, sort] : kSorts) {
      all.push_back(name);
      if (rq.sort() == name) q.sort = sort;
    }
    if (q.sort == ConnectionSort::kNone) return Error{"--sort: \"" + rq.sort() + "\" is none of " + list_of(all)};
    if (q.limit > table::kMaxSorted) {
      if (rq.limit() != 0) return Error{"--top: at most " + std::to_string(table::kMaxSorted)};
      q.limit = table::kMaxSorted;
    }
  }
  return q;
}

ConnectionNames::ConnectionNames(const Model& model) {
  for (const std::string& n : model.names(ConfigKind::kListener)) names[table::object_id(table::Kind::kListener, n)] = n;
  for (const std::string& n : model.names(ConfigKind::kCluster)) names[table::object_id(table::Kind::kCluster, n)] = n;
}

void report_connection(const ConnectionRecord& r, std::string_view sni, std::string_view alpn, const ConnectionNames& names,
                       v1::Connection* out) {
  const auto name = [&](table::ObjectId id) -> std::string {
    if (id == table::kNoObject) return "";
    const auto it = names.names.find(id);
    return it == names.names.end() ? "(removed)" : it->second;
  };
  out->set_id(connection_id(r.header.worker, r.connection));
  out->set_worker(r.header.worker);
  out->set_state(state_name(r.state));
  out->set_role(r.role == 1 ? "downstream" : r.role == 2 ? "upstream" : "");
  out->set_session(phase_name(r.phase));
  out->set_local(join_endpoint(r.local, r.local_port));
  out->set_remote(join_endpoint(r.remote, r.remote_port));
  if (r.port < names.ports.size()) out->set_port(names.ports[r.port]);
  out->set_listener(name(r.listener));
  out->set_cluster(name(r.cluster));
  if (r.peer.slot != UINT32_MAX) out->set_peer_id(connection_id(r.header.worker, r.peer));
  out->set_session_id(r.session_id);
  out->set_sni(std::string(sni));
  out->set_alpn(std::string(alpn));
  if (r.tls_version != 0) out->set_tls_version(r.tls_version == 0x0304 ? "TLSv1.3" : "TLSv1.2");
  out->set_tls_cipher(r.tls_cipher);
  out->set_requests(r.requests);
  out->set_age_s(seconds(r.age_ns));
  out->set_idle_s(seconds(r.idle_ns));
  out->set_rtt_ms(ms(r.srtt_us));
  out->set_rttvar_ms(ms(r.rttvar_us));
  out->set_rto_ms(ms(r.rto_us));
  out->set_backoff(r.backoff);
  out->set_mss(r.mss);
  out->set_rcv_mss(r.peer_mss);
  const uint32_t mss = std::max<uint32_t>(r.mss, 1);
  out->set_cwnd(r.cwnd / mss);
  out->set_cwnd_bytes(r.cwnd);
  out->set_ssthresh(r.ssthresh == UINT32_MAX ? 0 : r.ssthresh / mss);
  out->set_snd_wnd(r.snd_wnd);
  out->set_rcv_wnd(r.rcv_wnd);
  out->set_snd_wscale(r.snd_wscale);
  out->set_rcv_wscale(r.rcv_wscale);
  out->set_unacked((r.unacked + mss - 1) / mss);
  out->set_unacked_bytes(r.unacked);
  out->set_sacked_bytes(r.sacked);
  out->set_send_queue(r.send_queue);
  out->set_receive_queue(r.receive_queue);
  out->set_out_of_order(r.out_of_order);
  out->set_retransmits(r.retransmits);
  out->set_reordering(r.reordering);
  out->set_zero_window_probes(r.probes);
  out->set_keepalive_probes(r.keepalives);
  if (r.timestamps != 0) out->add_options("ts");
  if (r.sack != 0) out->add_options("sack");
  if (r.window_scaling != 0) out->add_options("wscale");
  out->set_congestion(r.congestion == 0 ? "cubic" : r.congestion == 1 ? "reno" : r.congestion == 2 ? "bbr" : "?");
  out->set_ca_state(r.recovery == 0 ? "open" : r.recovery == 1 ? "recovery" : "loss");
  report_timer(r, out);
  out->set_snd_una(r.snd_una);
  out->set_snd_nxt(r.snd_nxt);
  out->set_rcv_nxt(r.rcv_nxt);
  if (r.stream_known == 0) return;
  out->set_bytes_known(true);
  out->set_bytes_sent(r.stream_sent);
  out->set_bytes_received(r.stream_received);
}

bool count_stream(const ConnectionRecord& r, std::span<const table::TraceEntry> trace, v1::Connection* out) {
  constexpr uint8_t kEstablished = 3, kActive = 3;
  bool sent = false, received = false;
  uint32_t first_sent = 0, first_received = 0;
  for (const table::TraceEntry& e : trace) {
    if (e.kind == TraceKind::kOpened) {
      first_sent = e.a + 1;
      first_received = e.b + 1;
      sent = true;
      received = e.from != kActive;
    } else if (e.kind == TraceKind::kState && sent && !received && e.to >= kEstablished) {
      first_received = e.b;  // of an active open; what came with the SYN-ACK itself is not counted
      received = true;
    }
  }
  if (!sent || !received) return false;
  out->set_bytes_known(true);
  out->set_bytes_sent(static_cast<uint32_t>(r.stream_sent) - first_sent);
  out->set_bytes_received(static_cast<uint32_t>(r.stream_received) - first_received);
  return true;
}

void report_trace(const table::TraceRecord& record, v1::TraceEvent* out) {
  const table::TraceEntry& e = record.entry;
  out->set_ago_s(seconds(record.ago_ns));
  const auto n = [](uint32_t v) { return std::to_string(v); };
  const auto ssthresh = [&](uint32_t v) { return v == UINT32_MAX ? std::string("none") : n(v); };
  const auto say = [&](const char* event, const std::string& text) {
    out->set_event(event);
    out->set_text(text);
  };
  switch (e.kind) {
    case TraceKind::kOpened:
      if (e.from == 3) return say("opened", "by us: SYN, first sequence number " + n(e.a));
      return say("opened", std::string(e.from == 2 ? "by the peer, with a SYN cookie" : "by the peer: its SYN came") +
                               "; first sequence numbers " + n(e.a) + " ours, " + n(e.b) + " its");
    case TraceKind::kState:
      return say("state", std::string(state_name(e.from)) + " -> " + state_name(e.to));
    case TraceKind::kRetransmit:
      return say("retransmit", n(e.b) + (e.b == 1 ? " segment" : " segments") + " sent again; snd_una " + n(e.a) + ", cwnd " +
                                   n(e.c) + " bytes, " + n(e.d) + " in flight");
    case TraceKind::kTimeout:
      return say("timeout", "retransmission timeout no. " + n(e.d) + " in a row; snd_una " + n(e.a) + ", cwnd " + n(e.c) +
                                " bytes, RTO now " + n(e.b / 1000) + " ms");
    case TraceKind::kFastRecovery:
      return say("recovery", "loss found, fast recovery; snd_una " + n(e.a) + ", cwnd " + n(e.c) + " bytes, ssthresh " +
                                 ssthresh(e.b) + ", " + n(e.d) + " in flight");
    case TraceKind::kRecovered:
      return say("recovered", "losses repaired; snd_una " + n(e.a) + ", cwnd " + n(e.c) + " bytes, ssthresh " + ssthresh(e.b));
    case TraceKind::kZeroWindow:
      return say("zero window", "the peer closed its window; snd_una " + n(e.a) + ", " + n(e.d) + " bytes wait");
    case TraceKind::kWindowOpened:
      return say("window", "the peer opened its window again: " + n(e.b) + " bytes");
    case TraceKind::kProbe:
      return say("probe", "zero-window probe no. " + n(e.d) + " in a row");
    case TraceKind::kKeepalive:
      return say("keepalive", "probe no. " + n(e.d) + " in a row");
    case TraceKind::kOurWindowShut:
      return say("no window", "we advertise no window: " + n(e.d) + " bytes are not read yet");
    case TraceKind::kDropped: {
      const bool known = e.a < stats::kDropReasonCount;
      return say("dropped", known ? std::string(stats::info(static_cast<stats::DropReason>(e.a)).name) + ": " +
                                        stats::info(static_cast<stats::DropReason>(e.a)).text + "; seq " + n(e.b) + ", " +
                                        n(e.d) + " bytes"
                                  : "?");
    }
    case TraceKind::kResetReceived:
      return say("reset", "the peer reset or refused it");
    case TraceKind::kResetSent: {
      const char* who = "?";
      switch (static_cast<table::ResetCause>(e.to)) {
        case table::ResetCause::kSession:
          who = "the session layer gave it up (see the access log's response flags)";
          break;
        case table::ResetCause::kOperator:
          who = "an operator: millctl conn kill";
          break;
        case table::ResetCause::kDataAfterClose:
          who = "data came after our side was closed";
          break;
        case table::ResetCause::kBadSegment:
          who = "in answer to an unacceptable segment; the connection stays";
          break;
        case table::ResetCause::kTimeout:
          who = "a time-out";
          break;
      }
      return say("reset", std::string("we reset it in ") + state_name(e.from) + ": " + who);
    }
    case TraceKind::kTimedOut:
      return say("timed out", "given up: nobody answered");
    case TraceKind::kPathMtu:
      return say("path mtu", "a router says " + n(e.a) + " bytes");
    case TraceKind::kCount:
      break;
  }
  say("?", "kind " + n(static_cast<uint32_t>(e.kind)));
}

void ask_connections(ControlPlane& plane, const v1::ConnectionsRequest& rq, const std::function<bool()>& cancelled,
                     v1::ConnectionsReply* out) {
  using Clock = std::chrono::steady_clock;
  const auto model = plane.in_force();
  ConnectionNames names(*model);
  uint32_t workers = 0;
  const bool there = plane.link().with_stats([&](const stats::RegionView& view) {
    workers = view.workers();
    for (uint32_t p = 0; p < view.ports(); ++p) names.ports.push_back(view.port_name(p));
  });
  // What is wrong with the request is said also when nobody is there to ask.
  auto question = connections_question(rq, *model, there ? workers : stats::kMaxWorkers);
  if (!question.ok()) return out->set_error(question.error());
  out->set_connected(there);
  const auto inspection = plane.inspections().open();
  question->id = inspection->id();
  if (there && !plane.publisher().send_inspection({reinterpret_cast<const uint8_t*>(&*question), sizeof *question}))
    out->set_connected(false);
  if (!out->connected()) return;

  uint32_t waiting = 0;
  for (uint32_t w = 0; w < workers; ++w) waiting += static_cast<uint32_t>(question->filter.workers >> w & 1);
  const auto deadline = Clock::now() + std::chrono::milliseconds(rq.wait_ms() == 0 ? kDefaultWaitMs : rq.wait_ms());
  std::optional<ConnectionRecord> shown;
  std::vector<table::TraceEntry> trace;
  bool gone = false;
  uint32_t refused = 0;
  while (waiting > 0 && !gone && !cancelled() && Clock::now() < deadline) {
    for (const Inspection::Record& r :
         inspection->take(std::min(deadline, Clock::now() + std::chrono::milliseconds(100)), &gone)) {
      table::InspectHeader header;
      if (!r.get(header)) continue;
      if (header.type == table::InspectType::kConnection) {
        ConnectionRecord c;
        if (!r.get(c) || r.bytes.size() != sizeof c + c.sni_size + c.alpn_size) continue;
        if (question->action == InspectAction::kShow) shown = c;
        const auto text = r.behind(sizeof c);
        const std::string_view all(reinterpret_cast<const char*>(text.data()), text.size());
        report_connection(c, all.substr(0, c.sni_size), all.substr(c.sni_size), names, out->add_connections());
      } else if (table::TraceRecord t; header.type == table::InspectType::kTrace && r.get(t)) {
        report_trace(t, out->add_trace());
        trace.push_back(t.entry);
      } else if (table::InspectDone d; header.type == table::InspectType::kDone && r.get(d)) {
        --waiting;
        refused += d.refused;
        out->set_matched(out->matched() + d.matched);
        out->set_killed(out->killed() + d.killed);
        out->set_time_wait(out->time_wait() + d.time_wait);
        out->set_trace_begins_ago_s(seconds(d.trace_begins_ago_ns));
        if (waiting == 0) break;
      }
    }
  }
  if (shown && shown->stream_known == 0 && out->connections_size() == 1) count_stream(*shown, trace, out->mutable_connections(0));
  out->set_complete(waiting == 0 && refused == 0);
  if (waiting > 0) {
    table::StopInspection stop;
    stop.id = inspection->id();
    plane.publisher().send_inspection({reinterpret_cast<const uint8_t*>(&stop), sizeof stop});
  }
  if (gone) return out->set_connected(false);
  if (refused > 0) return out->set_error("too many questions at once; try again in a moment");
  if (!rq.id().empty() && out->complete() && out->matched() == 0 && out->trace_size() == 0) {
    out->set_not_found(true);
    return out->set_error("there is no connection " + rq.id() + " (any more); millctl conn list shows those that there are");
  }
  // Every worker gave its largest; of all of them, the largest. Without an order: as they came, so many.
  auto& list = *out->mutable_connections();
  const auto key = [&](const v1::Connection& c) -> double {
    switch (question->sort) {
      case ConnectionSort::kRtt:
        return c.rtt_ms();
      case ConnectionSort::kRetransmits:
        return c.retransmits();
      case ConnectionSort::kAge:
        return c.age_s();
      case ConnectionSort::kQueued:
        return static_cast<double>(c.send_queue()) + c.receive_queue() + c.out_of_order();
      case ConnectionSort::kCwnd:
        return c.cwnd_bytes();
      case ConnectionSort::kIdle:
        return c.idle_s();
      case ConnectionSort::kNone:
      case ConnectionSort::kCount:
        break;
    }
    return 0;
  };
  if (question->sort != ConnectionSort::kNone)
    std::stable_sort(list.begin(), list.end(), [&](const auto& a, const auto& b) { return key(a) > key(b); });
  if (rq.limit() != 0 && list.size() > static_cast<int>(rq.limit()))
    list.DeleteSubrange(static_cast<int>(rq.limit()), list.size() - static_cast<int>(rq.limit()));
}

}  // namespace millrace::control
