// The receiving half of TcpStack: from bursts of frames to TCP input, listeners, TIME-WAIT, hand-over and resets.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include <rte_mbuf.h>

#include "dataplane/tcp_stack.h"
#include "lib/wire/ethernet.h"
#include "lib/wire/ipv4.h"

namespace millrace::dataplane {

using stats::DropReason;
using table::TraceKind;
using wire::ParseError;

struct TcpStack::Incoming {
  TcpPacket packet;
  uint32_t hash = 0;
};

namespace {

// What a frame on a hand-over ring is, in mbuf.hash.usr (the port's own hash is not used any more then).
constexpr uint32_t kHandedSegment = 0;
constexpr uint32_t kHandedNews = 1;      // a copy of ARP or ND that another worker answered: learn from it, nothing else
constexpr uint32_t kHandedFragment = 2;  // whose datagram we put together; what comes of it may be yet another worker's
constexpr uint32_t kHandedError = 3;     // about a connection of ours: the IcmpError itself, in the place of the frame's bytes
static_assert(std::is_trivially_copyable_v<IcmpError>);

base::ByteSpan l4_of(const TcpPacket& p) { return {rte_pktmbuf_mtod(p.frame, const uint8_t*) + p.l4_offset, p.l4_length}; }

// Could this frame hold neighbour information? Decides whether a copy for the other workers is worth making.
bool maybe_neighbor_news(const rte_mbuf* m) {
  if (m->data_len < wire::kEthernetHeader + 28) return false;  // ARP, untagged
  const uint8_t* at = rte_pktmbuf_mtod(m, const uint8_t*);
  uint32_t offset = 12;
  uint16_t type = base::load_be16(at + offset);
  if (type == wire::kEtherVlan) type = base::load_be16(at + (offset += 4));
  if (type == wire::kEtherArp) return true;
  return type == wire::kEtherIpv6 && m->data_len > offset + 8 && at[offset + 2 + 6] == wire::kIpIcmpv6;
}

}  // namespace

uint32_t TcpStack::receive(TimeNs now) {
  if (pressure_countdown_-- == 0) {
    pressure_countdown_ = kPressureInterval;
    update_pressure();
  }
  StageScope stage(*counters_.stages, Stage::kRxBurst);
  rte_mbuf* frames[io::kRxBurst];
  uint32_t total = 0;
  for (uint16_t p = 0; p < queues_.size(); ++p) {
    const uint32_t n = queues_[p]->rx_burst(frames, io::kRxBurst);
    if (n == 0) continue;
    total += n;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; ++i) bytes += frames[i]->pkt_len;
    stats::CounterBlock<PortCounter>& c = *counters_.ports[p];
    c[PortCounter::kRxBursts].add();
    c[PortCounter::kRxPackets].add(n);
    c[PortCounter::kRxBytes].add(bytes);
    if (tap_->on) [[unlikely]]
      tap_->show(*tap_, p, false, frames, n);
    input_burst(p, frames, n, now, false);
  }
  if (ip_.takes_from_host()) [[unlikely]]
    total += ip_.send_from_host(now);
  if (mesh_ == nullptr) return total;
  for (uint32_t from = 0; from < config_.workers; ++from) {
    const uint32_t n = mesh_->pop(from, config_.worker, frames, io::kRxBurst);
    if (n == 0) continue;
    total += n;
    (*counters_.loop)[LoopCounter::kHandoverIn].add(n);
    for (uint32_t i = 0; i < n; ++i) input_handed(frames[i], now);
  }
  return total;
}

// A frame that another worker handed to us.
void TcpStack::input_handed(rte_mbuf* frame, TimeNs now) {
  TcpPacket unused;
  IcmpError error;
  switch (frame->hash.usr) {
    case kHandedNews:
      ip_.input(frame->port, frame, now, true, unused, error);
      return;
    case kHandedError:
      std::memcpy(&error, rte_pktmbuf_mtod(frame, const void*), sizeof error);
      input_icmp_error(error, frame, now, true);
      return;
    default:
      input_burst(frame->port, &frame, 1, now, frame->hash.usr == kHandedSegment);
  }
}

// Stage by stage over the burst, so that the misses of one frame are served while another is worked on.
void TcpStack::input_burst(uint16_t port, rte_mbuf** frames, uint32_t n, TimeNs now, bool handed) {
  StageScope stage(*counters_.stages, Stage::kPacketParse, n);
  for (uint32_t i = 0; i < n; ++i) __builtin_prefetch(rte_pktmbuf_mtod(frames[i], const void*));

  Incoming incoming[io::kRxBurst];
  uint32_t segments = 0;
  for (uint32_t i = 0; i < n; ++i) {
    rte_mbuf* news = nullptr;
    if (mesh_ != nullptr && !handed && maybe_neighbor_news(frames[i])) [[unlikely]] {
      news = rte_pktmbuf_copy(frames[i], pool_.raw(), 0, UINT32_MAX);
    }
    Incoming& in = incoming[segments];
    IcmpError error;
    const IpVerdict verdict = ip_.input(port, frames[i], now, false, in.packet, error);
    if (news != nullptr) share_neighbor_news(port, news);
    if (verdict == IpVerdict::kFragment) [[unlikely]]
      push(in.packet.meets_at, in.packet.frame, in.packet.arrival_port, kHandedFragment);
    if (verdict == IpVerdict::kIcmpError) [[unlikely]]
      input_icmp_error(error, in.packet.frame, now, false);
    if (verdict != IpVerdict::kTcp) continue;
    const tcp::FourTuple& t = in.packet.tuple;
    in.hash = hash_of(t.local, t.local_port, t.remote, t.remote_port);
    flows_.prefetch(in.hash);
    ++segments;
  }
  for (uint32_t i = 0; i < segments; ++i) {
    const uint32_t c = flows_.candidate(incoming[i].hash);
    if (c == FlowTable::kNone) continue;
    // All five lines: sequence spaces, timers, queues, configuration and cwnd, events and owner.
    const auto* line = reinterpret_cast<const uint8_t*>(&connections_[c]);
    for (uint32_t at = 0; at < sizeof(Connection); at += 64) __builtin_prefetch(line + at);
  }
  stage.next(Stage::kTcpInput, segments);
  for (uint32_t i = 0; i < segments; ++i) input_segment(incoming[i], now, handed);
}

void TcpStack::input_segment(Incoming& in, TimeNs now, bool handed) {
  const uint32_t index = flows_.find(in.hash, [&](uint32_t i) { return connections_[i].tuple() == in.packet.tuple; });
  if (index != FlowTable::kNone && pressure_ != MemoryPressure::kReserve) [[likely]] {
    Connection& c = connections_[index];
    uint32_t events = 0;
    if (in.packet.ecn != static_cast<uint8_t>(wire::Ecn::kCongestion) &&
        tcp::input_predicted(c.tcb, in.packet.frame, in.packet.l4_offset, in.packet.l4_length, now, events)) [[likely]] {
      count(TcpCounter::kSegmentsIn).add();
      if (events != 0 && c.attached) {
        c.events |= static_cast<uint16_t>(events);
        ready_.push(connections_, c);
        __builtin_prefetch(c.owner);
        __builtin_prefetch(static_cast<const uint8_t*>(c.owner) + 64);
      }
      touch(c);  // flush() looks for output and at the deadline, once an iteration
      return;
    }
  }
  wire::TcpView segment;
  if (const ParseError e = wire::TcpView::parse(l4_of(in.packet), segment); e != ParseError::kNone) {
    counters_.drop(e == ParseError::kBadFlags ? DropReason::kTcpBadFlags : DropReason::kTcpTruncated);
    rte_pktmbuf_free(in.packet.frame);
    return;
  }
  if (index != FlowTable::kNone) {
    input_connection(connections_[index], segment, in.packet.frame, in.packet.l4_offset + segment.payload_offset, in.packet.ecn,
                     now);
    return;
  }
  if (!handed && hand_over(in)) return;
  count(TcpCounter::kSegmentsOther).add();
  if (time_wait_.size() > 0 && time_wait_.find(in.hash, in.packet.tuple) != nullptr) {
    input_time_wait(in, segment, now);
  } else {
    input_listener(in, segment, nullptr, now);
  }
  if (in.packet.frame != nullptr) rte_pktmbuf_free(in.packet.frame);
}

// A tuple that this worker does not know may be another's. True: the frame is gone.
bool TcpStack::hand_over(Incoming& in) {
  if (mesh_ == nullptr) return false;
  const TcpPacket& p = in.packet;
  const uint32_t owner =
      steering_.owner(ip_.device_of(p.local_port_index), p.tuple.local, p.tuple.local_port, p.tuple.remote, p.tuple.remote_port);
  if (owner == config_.worker) return false;
  push(owner, in.packet.frame, p.arrival_port, kHandedSegment);
  return true;
}

// To another worker; dropped when the ring to it is full.
void TcpStack::push(uint32_t worker, rte_mbuf* frame, uint16_t device, uint32_t what) {
  frame->port = device;
  frame->hash.usr = what;
  if (mesh_->push(config_.worker, worker, frame)) {
    (*counters_.loop)[LoopCounter::kHandoverOut].add();
  } else {
    counters_.drop(DropReason::kWrongCore);
    rte_pktmbuf_free(frame);
  }
}

// Every worker keeps its own neighbour table, but an answer arrives at one of them: the others get a copy to learn from. Losing
// one only costs them a question of their own.
void TcpStack::share_neighbor_news(uint16_t port, rte_mbuf* copy) {
  if (!ip_.neighbor_news()) {
    rte_pktmbuf_free(copy);
    return;
  }
  copy->port = port;
  copy->hash.usr = kHandedNews;
  rte_mbuf_refcnt_update(copy, static_cast<int16_t>(config_.workers - 1));  // one reference a worker, read only
  for (uint32_t w = 0; w < config_.workers; ++w) {
    if (w == config_.worker) {
      rte_pktmbuf_free(copy);
    } else if (!mesh_->push(config_.worker, w, copy)) {
      rte_pktmbuf_free(copy);
    } else {
      (*counters_.loop)[LoopCounter::kHandoverOut].add();
    }
  }
}

// A segment for a connection. A chained frame is input as several segments in a row: the same header, each with its piece of the
// payload.
void TcpStack::input_connection(Connection& c, const wire::TcpView& segment, rte_mbuf* frame, uint32_t payload_at, uint8_t ecn,
                                TimeNs now) {
  count(TcpCounter::kSegmentsIn).add();
  const tcp::Glance before = tcp::glance(c.tcb);
  uint32_t left = segment.payload_length;
  uint32_t events = 0;
  DropReason dropped = DropReason::kNone;
  auto feed = [&](const wire::TcpView& view, io::PacketPtr payload) {
    const tcp::InputResult r =
        tcp::input(c.tcb, view, std::move(payload), now, ecn == static_cast<uint8_t>(wire::Ecn::kCongestion));
    events |= r.events;
    if (r.drop != DropReason::kNone) dropped = r.drop;
  };
  if (left == 0) {
    rte_pktmbuf_free(frame);
    feed(segment, {});
  } else if (pressure_ == MemoryPressure::kReserve) [[unlikely]] {
    // Nothing may be kept now; the acknowledgement in it still frees memory of ours. The peer repeats the rest.
    rte_pktmbuf_free(frame);
    counters_.drop(DropReason::kTcpMemory);
    wire::TcpView bare = segment;
    bare.payload_length = 0;
    bare.flags &= static_cast<uint8_t>(~wire::kTcpFin);
    feed(bare, {});
  } else {
    wire::TcpView piece = segment;
    for (rte_mbuf* m = frame; m != nullptr && left > 0;) {
      rte_mbuf* rest = m->next;
      m->next = nullptr;
      m->nb_segs = 1;
      m->data_off = static_cast<uint16_t>(m->data_off + payload_at);
      const uint32_t have = std::min<uint32_t>(m->data_len - payload_at, left);  // behind it only Ethernet's padding
      m->data_len = static_cast<uint16_t>(have);
      m->pkt_len = have;
      payload_at = 0;
      left -= have;
      if (have == 0) {
        rte_pktmbuf_free_seg(m);
      } else {
        piece.payload_length = have;
        piece.flags = left > 0 ? segment.flags & static_cast<uint8_t>(~(wire::kTcpFin | wire::kTcpPsh)) : segment.flags;
        feed(piece, io::PacketPtr(m));
        piece.seq += have;
      }
      m = rest;
      if (left == 0 && m != nullptr) rte_pktmbuf_free(m);
    }
  }
  if (dropped != DropReason::kNone) [[unlikely]] {
    counters_.drop(dropped);
    table::ResetCause cause{};
    if (dropped == DropReason::kTcpDataAfterClose) cause = table::ResetCause::kDataAfterClose;
    trace(c, cause == table::ResetCause{} ? TraceKind::kDropped : TraceKind::kResetSent, now, static_cast<uint32_t>(dropped),
          segment.seq, segment.payload_length, static_cast<uint8_t>(before.state), static_cast<uint8_t>(cause));
  }
  note(c, before, now);
  on_events(c, events, now);
}

void TcpStack::input_time_wait(Incoming& in, const wire::TcpView& segment, TimeNs now) {
  TimeWaitTable::Slot& s = *time_wait_.find(in.hash, in.packet.tuple);
  const TimeNs expired_at = s.entry.expires_at;
  wire::TcpRepr answer;
  const tcp::TimeWaitResult r = tcp::time_wait_input(s.entry, segment, now, answer);
  if (r.drop != DropReason::kNone) counters_.drop(r.drop);
  switch (r.verdict) {
    case tcp::TimeWaitVerdict::kIgnore:
      break;
    case tcp::TimeWaitVerdict::kReply:
      if (s.entry.expires_at != expired_at) time_wait_.renewed(s);
      reply(in, answer, now);
      break;
    case tcp::TimeWaitVerdict::kReopen: {
      const tcp::TimeWaitEntry before = s.entry;
      expire_time_wait(s);
      count(TcpCounter::kTimeWaitReused).add();
      input_listener(in, segment, &before, now);
      break;
    }
  }
}

// A segment of no connection. `before`: the connection in TIME-WAIT that a SYN follows. What is left of `in.packet.frame` is the
// caller's.
void TcpStack::input_listener(Incoming& in, const wire::TcpView& segment, const tcp::TimeWaitEntry* before, TimeNs now) {
  const ListenerSet::Entry* listener =
      listeners_ == nullptr ? nullptr : listeners_->find(in.packet.tuple.local, in.packet.tuple.local_port);
  const bool opens = segment.syn() && !segment.has_ack();
  if (listener == nullptr && ip_.give_to_host(in.packet, now)) return;
  if (listener == nullptr) return reset(in, segment, opens ? DropReason::kTcpNoListener : DropReason::kTcpNoConnection, now);
  if (opens) {
    if (listener->draining || refuses_connections_) return reset(in, segment, DropReason::kTcpListenerDraining, now);
    if (pressure_ >= MemoryPressure::kNoNew) return counters_.drop(DropReason::kTcpMemory);
    if (connections_.full()) return counters_.drop(DropReason::kTcpTableFull);
    if (admission_ != nullptr) [[unlikely]] {
      const DropReason why = admission_->on_syn(in.packet.tuple.remote, *listener, now);
      if (why != DropReason::kNone) return refuse(in, segment, *listener, why, now);
    }
  }
  const tcp::Profile& profile = profiles_.with(downstream_profile(), listener->tcp, listener->buffer_limit);
  tcp::ListenerDecision d = listener_.input(in.packet.tuple, segment, profile.config, now, true);
  using Action = tcp::ListenerDecision::Action;
  const uint16_t mss = ip_.mss(in.packet.local_port_index, in.packet.tuple.local.is_v4());
  switch (d.action) {
    case Action::kIgnore:
      counters_.drop(d.drop);
      return;
    case Action::kReply:
      return reset(in, segment, d.drop, now);
    case Action::kCookie:
      if (d.reply.mss) d.reply.mss = std::min(*d.reply.mss, mss);
      count(TcpCounter::kSynCookiesSent).add();
      return reply(in, d.reply, now);
    case Action::kOpen:
    case Action::kAcceptCookie:
      break;
  }
  if (connections_.full()) return counters_.drop(DropReason::kTcpTableFull);  // a cookie's ACK: the peer will repeat its data
  Connection& c = *open(in.hash, in.packet.local_port_index);
  c.role = Role::kDownstream;
  profiles_.joined(profile);
  if (d.action == Action::kOpen) return open_passive(c, in, segment, d, profile, before, mss, now);
  tcp::open_cookie(c.tcb, in.packet.tuple, profile, segment, d.cookie, now, d.ts_offset, mss);
  count(TcpCounter::kSynCookiesAccepted).add();
  trace_opened(c, 2, segment.ack - 1, segment.seq - 1, now);
  on_events(c, tcp::kEventConnected, now);
  if (c.over) return;  // no room for it any more
  input_connection(c, segment, std::exchange(in.packet.frame, nullptr), in.packet.l4_offset + segment.payload_offset,
                   in.packet.ecn, now);
}

// A SYN that gets a connection. With fast open its data is received now, and the first SYN-ACK may bring a cookie: that one goes
// out at once, so that nobody has to remember it.
void TcpStack::open_passive(Connection& c, Incoming& in, const wire::TcpView& syn, const tcp::ListenerDecision& d,
                            const tcp::Profile& profile, const tcp::TimeWaitEntry* before, uint16_t mss, TimeNs now) {
  const tcp::FourTuple& tuple = in.packet.tuple;
  const uint32_t isn = before == nullptr ? d.isn : tcp::next_isn(*before, d.isn);
  uint32_t events = 0;
  if (d.accepts_data()) [[unlikely]] {
    io::PacketPtr data;
    if (syn.payload_length > 0 && in.packet.frame->nb_segs == 1) {
      rte_mbuf* m = std::exchange(in.packet.frame, nullptr);
      m->data_off = static_cast<uint16_t>(m->data_off + in.packet.l4_offset + syn.payload_offset);
      m->data_len = static_cast<uint16_t>(syn.payload_length);
      m->pkt_len = m->data_len;
      data = io::PacketPtr(m);
    }
    events = tcp::open_fast(c.tcb, tuple, profile, syn, std::move(data), isn, now, d.ts_offset, mss);
    c.fast_open = true;
  } else {
    tcp::open_passive(c.tcb, tuple, profile, syn, isn, now, d.ts_offset, mss);
  }
  c.half_open = true;
  trace_opened(c, 1, isn, syn.seq, now);
  count(TcpCounter::kSynReceived).set(listener_.half_open());
  if (d.fast_open != tcp::ListenerDecision::FastOpen::kNone) [[unlikely]]
    count_fast_open(d.fast_open);
  if (tcp::OutSegment out; d.gives_cookie() && !ip_.tx_blocked(c.port) && tcp::poll_output(c.tcb, now, out)) [[unlikely]] {
    const wire::TcpCookie cookie = listener_.fast_open_cookies().make(tuple, now);
    out.header.fast_open = &cookie;
    ip_.send_tcp(tuple, c.port, c.next_hop, out.header, nullptr, 0, 0, now);
    count(TcpCounter::kSegmentsOut).add();
  }
  on_events(c, events, now);
}

void TcpStack::count_fast_open(tcp::ListenerDecision::FastOpen what) {
  using FastOpen = tcp::ListenerDecision::FastOpen;
  if (what == FastOpen::kRequested) count(TcpCounter::kFastOpenRequests).add();
  if (what == FastOpen::kAccepted || what == FastOpen::kRenewed) count(TcpCounter::kFastOpens).add();
  if (what == FastOpen::kRenewed) count(TcpCounter::kFastOpensRenewed).add();
  if (what == FastOpen::kBad) count(TcpCounter::kFastOpenBadCookies).add();
  if (what == FastOpen::kOverflow) count(TcpCounter::kFastOpenOverflows).add();
}

// What an ICMP error says. It came in `frame`, which no spreading brings to the worker of the connection that it quotes.
void TcpStack::input_icmp_error(const IcmpError& e, rte_mbuf* frame, TimeNs now, bool handed) {
  const tcp::FourTuple& t = e.tuple;
  const uint32_t hash = hash_of(t.local, t.local_port, t.remote, t.remote_port);
  const uint32_t index = flows_.find(hash, [&](uint32_t i) { return connections_[i].tuple() == t; });
  if (index == FlowTable::kNone && mesh_ != nullptr && !handed && frame->data_len >= sizeof e) {
    const uint32_t owner = steering_.owner(ip_.device_of(e.port), t.local, t.local_port, t.remote, t.remote_port);
    if (owner != config_.worker) {
      std::memcpy(rte_pktmbuf_mtod(frame, void*), &e, sizeof e);
      return push(owner, frame, frame->port, kHandedError);
    }
  }
  rte_pktmbuf_free(frame);
  if (index == FlowTable::kNone) return counters_.drop(DropReason::kIcmpIgnored);
  Connection& c = connections_[index];
  if (e.kind == IcmpError::Kind::kTooBig) {
    // An old router that names no MTU: the plateau below Ethernet's that every IPv4 host must take (RFC 1191 7, RFC 791).
    tcp::on_path_mtu(c.tcb, e.mtu != 0 ? e.mtu : 576, e.seq, now);
    trace(c, TraceKind::kPathMtu, now, e.mtu);
    if (tcp::output_pending(c.tcb)) touch(c);
    return;
  }
  // Unreachable only matters while connecting, and only when it quotes our SYN (RFC 5927 4): then waiting for the time-out helps
  // nobody. That goes for soft errors too, as in every host in use (RFC 5461 4.1).
  if (tcp::state(c.tcb) != tcp::State::kSynSent || tcp::info(c.tcb).snd_una != e.seq)
    return counters_.drop(DropReason::kIcmpIgnored);
  tcp::abort(c.tcb, now);
  on_events(c, tcp::kEventReset | tcp::kEventClosed, now);
}

// One segment of no connection, back to where `in` came from.
void TcpStack::reply(const Incoming& in, const wire::TcpRepr& header, TimeNs now) {
  NextHop hop;
  ip_.send_tcp(in.packet.tuple, in.packet.local_port_index, hop, header, nullptr, 0, 0, now);
  count(TcpCounter::kSegmentsOut).add();
}

// A connection that Admission does not let in. A SYN above its source's rate gets no answer: who sends too many of them is not to
// make us send as many, perhaps to somebody else.
void TcpStack::refuse(const Incoming& in, const wire::TcpView& segment, const ListenerSet::Entry& listener, DropReason why,
                      TimeNs now) {
  if (why == DropReason::kTcpSynRateLimited) return counters_.drop(why);
  reset(in, segment, why, now);
  counters_.overflowed(listener.scope);
}

void TcpStack::reset(const Incoming& in, const wire::TcpView& segment, DropReason why, TimeNs now) {
  counters_.drop(why);
  wire::TcpRepr rst;
  if (!tcp::make_reset(segment, rst)) return;
  if (!reset_limit_.take(now)) return counters_.drop(DropReason::kTcpResetRateLimited);
  reply(in, rst, now);
  count(TcpCounter::kResetSent).add();
}

}  // namespace millrace::dataplane
