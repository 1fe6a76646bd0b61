// Opening, closing and what else the application asks of a connection (RFC 9293 3.10.1 to 3.10.6).
#include "lib/tcp/tcb.h"

#include <algorithm>
#include <utility>

#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
const char* to_string(State s) {
  switch (s) {
    case State::kClosed:
      return "CLOSED";
    case State::kSynSent:
      return "SYN-SENT";
    case State::kSynReceived:
      return "SYN-RECEIVED";
    case State::kEstablished:
      return "ESTABLISHED";
    case State::kFinWait1:
      return "FIN-WAIT-1";
    case State::kFinWait2:
      return "FIN-WAIT-2";
    case State::kCloseWait:
      return "CLOSE-WAIT";
    case State::kClosing:
      return "CLOSING";
    case State::kLastAck:
      return "LAST-ACK";
    case State::kTimeWait:
      return "TIME-WAIT";
  }
  return "?";
}

// --- opening

namespace {

void apply_profile(Tcb& t, const FourTuple& tuple, const Profile& p, uint16_t most_mss, TimeNs now) {
  MILLRACE_ASSERT(t.state == State::kClosed && t.profile == nullptr && t.tx.empty() && t.rx.empty(), "a fresh TCB");
  const Config& c = p.config;
  t.tuple = tuple;
  t.profile = &p;
  t.our_mss = std::min(c.mss, most_mss);
  t.rto_us = static_cast<uint32_t>(std::min<TimeNs>((c.rto_initial_ns + 999) / base::kMicrosecond, UINT32_MAX));
  t.rcv_cap = std::min({c.rcv_wnd_initial, c.rcv_buf, kMaxSendWindow / 2});
  t.rcv_mss = std::min<uint16_t>(536, t.our_mss);
  t.state_at = base::time_add(now, c.connect_timeout_ns);
  t.last_received = now;
  t.last_sent_ms = clock_ms(now);
}

void start_sequence(Tcb& t, uint32_t iss) { t.snd_una = t.snd_nxt = t.snd_max = t.recover = iss; }

void note_timestamp(Tcb& t, uint32_t val, TimeNs now) {
  t.ts_recent = val;
  t.ts_recent_hour = whole_hours(now);
}

void set_send_mss(Tcb& t, uint16_t peer) { t.snd_mss = std::max(kMinSendMss, std::min(peer, t.our_mss)); }

// The shift that our buffer asks for, whether or not it is agreed on.
uint8_t wanted_shift(const Tcb& t) { return window_shift(std::min(config(t).rcv_buf, kMaxSendWindow / 2)); }

// The receive side once it is known whether windows are scaled: without scaling 16 bits are all there is.
void settle_window(Tcb& t) {
  if (has(t, kFlagWindowScaling)) {
    t.rcv_wscale = wanted_shift(t) & 15;
  } else {
    t.rcv_wscale = 0;
    t.snd_wscale = 0;
    t.rcv_cap = std::min(t.rcv_cap, 65'535u);
  }
}

}  // namespace

void apply_peer_options(Tcb& t, const wire::TcpView& syn) {
  set_send_mss(t, syn.mss.value_or(t.tuple.remote.is_v4() ? kDefaultMssV4 : kDefaultMssV6));
  const Config& c = config(t);
  if (c.sack && syn.sack_permitted) t.flags |= kFlagSack;
  if (c.timestamps && syn.timestamps) t.flags |= kFlagTimestamps;
  if (c.window_scaling && syn.wscale) {
    t.flags |= kFlagWindowScaling;
    t.snd_wscale = std::min(*syn.wscale, wire::kTcpMaxWindowShift) & 15;
  }
  settle_window(t);
  // Our SYN, if there was one, asked for it, and a SYN-ACK with both flags is our own SYN's, thrown back (RFC 3168 6.1.1).
  const bool asked = c.ecn == EcnMode::kRequest && may_use_ecn(c) && !has(t, kFlagSynLost);
  if (syn.has_ack() ? asked && (syn.flags & kEcnSetup) == wire::kTcpEce : accepts_ecn(c, syn)) t.flags |= kFlagEcn;
}

void open_active(Tcb& t, const FourTuple& tuple, const Profile& p, uint32_t iss, TimeNs now, uint32_t ts_offset,
                 uint16_t most_mss, TimeNs connect_timeout_ns) {
  apply_profile(t, tuple, p, most_mss, now);
  if (connect_timeout_ns != kProfileTimeout) t.state_at = base::time_add(now, connect_timeout_ns);
  start_sequence(t, iss);
  t.ts_offset = ts_offset;
  t.rcv_wscale = wanted_shift(t) & 15;  // as our SYN offers it
  t.state = State::kSynSent;
  mark_output(t, kDueSyn);
}

void open_passive(Tcb& t, const FourTuple& tuple, const Profile& p, const wire::TcpView& syn, uint32_t iss, TimeNs now,
                  uint32_t ts_offset, uint16_t most_mss) {
  apply_profile(t, tuple, p, most_mss, now);
  start_sequence(t, iss);
  t.ts_offset = ts_offset;
  apply_peer_options(t, syn);
  t.rcv_nxt = t.rcv_adv = t.last_ack_sent = syn.seq + 1;
  t.snd_wnd = t.max_snd_wnd = syn.window;  // never scaled in a SYN
  t.snd_wl1 = syn.seq;
  t.snd_wl2 = iss;
  if (has(t, kFlagTimestamps)) note_timestamp(t, syn.timestamps->val, now);
  t.state = State::kSynReceived;
  mark_output(t, kDueSyn);
}

uint32_t open_fast(Tcb& t, const FourTuple& tuple, const Profile& p, const wire::TcpView& syn, io::PacketPtr data, uint32_t iss,
                   TimeNs now, uint32_t ts_offset, uint16_t most_mss) {
  open_passive(t, tuple, p, syn, iss, now, ts_offset, most_mss);
  t.fast_open = true;
  t.growth_seq = t.rcv_nxt;
  start_sequence(t, iss + 1);
  t.recover = iss;
  congestion_init(t.congestion, payload_mss(t));
  if (!data || data.size() == 0) return kEventConnected;
  const uint32_t length = std::min<uint32_t>(data.size(), t.rcv_cap);
  data.trim_back(data.size() - length);
  t.rcv_mss = static_cast<uint16_t>(std::clamp<uint32_t>(length, t.rcv_mss, t.our_mss));
  t.rcv_nxt += length;
  t.rcv_adv = t.rcv_nxt;  // the SYN-ACK says more
  t.rx.push(std::move(data));
  return kEventConnected | kEventReadable;
}

void open_cookie(Tcb& t, const FourTuple& tuple, const Profile& p, const wire::TcpView& ack, const CookieOptions& o, TimeNs now,
                 uint32_t ts_offset, uint16_t most_mss) {
  apply_profile(t, tuple, p, most_mss, now);
  start_sequence(t, ack.ack - 1);
  t.ts_offset = ts_offset;
  set_send_mss(t, o.mss);
  if (o.sack) t.flags |= kFlagSack;
  if (o.timestamps) t.flags |= kFlagTimestamps;
  if (o.ecn) t.flags |= kFlagEcn;
  if (o.window_scaling) {
    t.flags |= kFlagWindowScaling;
    t.snd_wscale = o.snd_wscale & 15;
  }
  settle_window(t);
  t.rcv_nxt = t.last_ack_sent = ack.seq;
  t.rcv_adv = t.rcv_nxt + first_window(p.config);  // what the cookie's SYN-ACK said
  t.snd_una = t.snd_nxt = t.snd_max = ack.ack;
  t.snd_wnd = t.max_snd_wnd = uint32_t{ack.window} << t.snd_wscale;
  t.snd_wl1 = ack.seq - 1;  // so that this very segment updates the window when it goes through input()
  t.snd_wl2 = ack.ack;
  if (has(t, kFlagTimestamps) && ack.timestamps) note_timestamp(t, ack.timestamps->val, now);
  enter_established(t, now);
}

// --- changes of state

void enter_established(Tcb& t, TimeNs now) {
  const bool sending = t.fast_open && t.snd_una != t.snd_max;
  t.fast_open = false;
  t.state = State::kEstablished;
  if (!sending) t.retransmit_at = base::kNever;
  t.state_at = sending ? base::time_add(now, config(t).user_timeout_ns) : base::kNever;
  t.timeouts = 0;
  t.recover = t.snd_una - 1;
  t.due &= static_cast<uint16_t>(~kDueStrayReset);  // its sequence number shares its place with what follows
  if (!sending) congestion_init(t.congestion, payload_mss(t));
  if (has(t, kFlagSynLost)) {
    congestion_syn_lost(t.congestion, payload_mss(t));
    if (t.srtt_us == 0) t.rto_us = std::max(t.rto_us, kRtoAfterLostSyn_us);
  }
  t.growth_started_us = clock_us(now);
  t.growth_seq = t.rcv_nxt - static_cast<uint32_t>(t.rx.bytes());
  if (has(t, kFlagFinQueued)) t.state = State::kFinWait1;  // close() came before the handshake was done
  mark_output(t);
}

void enter_closed(Tcb& t) {
  t.state = State::kClosed;
  t.due &= kDueReset | kDueStrayReset | kDueOutput;
  stop_timers(t);
  t.tx.clear();
  give_up_repair(t);
}

void enter_time_wait(Tcb& t, TimeNs now) {
  t.state = State::kTimeWait;
  t.retransmit_at = base::kNever;
  t.tx.clear();
  give_up_repair(t);
  t.state_at = base::time_add(now, config(t).time_wait_ns);
}

void enter_fin_wait_2(Tcb& t, TimeNs now) {
  t.state = State::kFinWait2;
  t.state_at = has(t, kFlagOrphan) ? base::time_add(now, config(t).fin_wait_2_ns) : base::kNever;
}

void reset_connection(Tcb& t) {
  t.due |= kDueReset | kDueOutput;
  enter_closed(t);
}

// --- what is borrowed

Repair* need_repair(Tcb& t) {
  if (t.repair == nullptr && t.profile->repairs != nullptr) {
    t.repair = t.profile->repairs->take();
    if (t.repair != nullptr) {
      // When it was sent, nobody remembers: all of it with the last segment.
      t.repair->scoreboard.reset(t.snd_una, t.snd_max, t.last_sent_ms * 1000u);
      if (t.recovery >= Recovery::kFast && has(t, kFlagSack)) {
        adopt_scoreboard(t);
        t.repair->prr.flight = t.snd_max - t.snd_una;
        t.congestion.cwnd = std::min<uint32_t>(t.congestion.cwnd, std::max<uint32_t>(t.congestion.ssthresh, payload_mss(t)));
      }
    }
  }
  return t.repair;
}

void return_repair(Tcb& t) {
  const Repair* r = t.repair;
  if (r == nullptr || !undisturbed(t) || has_scoreboard(t) || r->probing || r->bbr.active || !r->reassembly.empty() ||
      r->reassembly.has_report() || !r->growth.idle() || r->path.most != 0)
    return;
  give_up_repair(t);
}

void give_up_repair(Tcb& t) {
  if (t.repair == nullptr) return;
  t.repair->reassembly.clear();
  t.profile->repairs->give(std::exchange(t.repair, nullptr));
}

// --- the application

uint32_t send_space(const Tcb& t) {
  const bool open = t.state == State::kSynSent || t.state == State::kSynReceived || may_send_data(t.state);
  if (!open || has(t, kFlagFinQueued) || t.tx.bytes() >= config(t).snd_buf) return 0;
  return config(t).snd_buf - static_cast<uint32_t>(t.tx.bytes());
}

void send(Tcb& t, io::PacketPtr payload) {
  const bool open = t.state == State::kSynSent || t.state == State::kSynReceived || may_send_data(t.state);
  if (!open || has(t, kFlagFinQueued)) return;
  t.tx.push(std::move(payload));
  mark_output(t);
}

size_t send_copy(Tcb& t, base::ByteSpan bytes, io::PacketPool& pool) {
  const size_t n = t.tx.append_copy(bytes.first(std::min<size_t>(bytes.size(), send_space(t))), pool);
  if (n > 0) mark_output(t);
  return n;
}

size_t send_copy_whole(Tcb& t, base::ByteSpan bytes, io::PacketPool& pool) {
  const bool open = t.state == State::kSynSent || t.state == State::kSynReceived || may_send_data(t.state);
  if (!open || has(t, kFlagFinQueued)) return 0;
  const size_t n = t.tx.append_copy(bytes, pool);
  if (n > 0) mark_output(t);
  return n;
}

// RFC 9293 3.10.4.
void close(Tcb& t, TimeNs now) {
  if (has(t, kFlagFinQueued)) return;
  switch (t.state) {
    case State::kSynSent:
      return enter_closed(t);
    case State::kSynReceived:
      break;  // the FIN waits for the handshake
    case State::kEstablished:
      t.state = State::kFinWait1;
      break;
    case State::kCloseWait:
      t.state = State::kLastAck;
      break;
    default:
      return;
  }
  t.flags |= kFlagFinQueued;
  mark_output(t);
}

// RFC 9293 3.10.5.
void abort(Tcb& t, TimeNs now) {
  switch (t.state) {
    case State::kClosed:
      return;
    case State::kSynSent:
    case State::kClosing:
    case State::kLastAck:
    case State::kTimeWait:
      return enter_closed(t);
    default:
      return reset_connection(t);
  }
}

void set_orphan(Tcb& t, TimeNs now) {
  t.flags |= kFlagOrphan;
  t.rx.clear();
  if (t.state == State::kFinWait2) t.state_at = base::time_add(now, config(t).fin_wait_2_ns);
}

void release(Tcb& t) {
  t.tx.clear();
  t.rx.clear();
  give_up_repair(t);
  t.~Tcb();
  new (&t) Tcb();
}

// --- what can be seen

Info info(const Tcb& t) {
  return {.state = t.state,
          .snd_una = t.snd_una,
          .snd_nxt = t.snd_max,
          .snd_wnd = t.snd_wnd,
          .rcv_nxt = t.rcv_nxt,
          .rcv_wnd = rcv_wnd(t),
          .cwnd = t.congestion.cwnd,
          .ssthresh = t.congestion.ssthresh == Congestion::kNoThreshold ? UINT32_MAX : uint32_t{t.congestion.ssthresh},
          .bytes_in_flight = bytes_in_flight(t),
          .srtt_us = t.srtt_us,
          .rttvar_us = t.rttvar_us,
          .rto_ms = t.rto_us / 1000,
          .retransmits = t.retransmits,
          .reordering_events = t.repair != nullptr ? t.repair->reordering_events : 0,
          .repairing = t.repair != nullptr,
          .snd_una_bytes = static_cast<uint32_t>(t.tx.bytes()),
          .rx_bytes = static_cast<uint32_t>(t.rx.bytes()),
          .out_of_order = t.repair != nullptr ? t.repair->reassembly.bytes() : 0,
          .sacked = t.repair != nullptr ? t.repair->scoreboard.bytes() : 0,
          .mss = effective_mss(t),
          .peer_mss = t.rcv_mss,
          .snd_wscale = t.snd_wscale,
          .rcv_wscale = t.rcv_wscale,
          .recovery = static_cast<uint8_t>(t.recovery),
          .timeouts = t.timeouts,
          .probes = t.probes,
          .keepalives = t.keepalives_sent,
          .sack = has(t, kFlagSack),
          .timestamps = has(t, kFlagTimestamps),
          .window_scaling = has(t, kFlagWindowScaling),
          .persist = has(t, kFlagPersist),
          .congestion = t.profile != nullptr ? config(t).congestion : CongestionAlgorithm::kCubic,
          .last_received = t.last_received,
          .retransmit_at = t.retransmit_at,
          .delayed_ack_at = t.delayed_ack_at,
          .state_at = t.state_at,
          .keepalive_at = t.profile != nullptr ? keepalive_at(t) : base::kNever};
}

void on_path_mtu(Tcb& t, uint16_t mtu, uint32_t quoted_seq, TimeNs now) {
  if (!synchronized(t.state) || t.state == State::kTimeWait) return;
  if (!seq_in(quoted_seq, t.snd_una, t.snd_max)) return;  // RFC 5927 4.1: it must quote what is in flight
  const bool v4 = t.tuple.remote.is_v4();
  const uint16_t least = v4 ? kMinPathMtuV4 : kMinPathMtuV6, headers = v4 ? 40 : 60;
  const uint16_t mss = static_cast<uint16_t>(std::max(mtu, least) - headers);
  if (mss >= t.snd_mss) return;
  t.snd_mss = mss;
  t.congestion.cwnd = std::max(t.congestion.cwnd, payload_mss(t));
  if (t.repair != nullptr && t.repair->path.most != 0) {
    forget_path_probe(t);
    t.repair->path.failed = static_cast<uint16_t>(mss + 1);
  }
  // What was too big is lost, but not through congestion: all of it goes again in smaller segments, cwnd stays (RFC 1191 6.4, RFC
  // 8201 5.4).
  lose_everything(t, now, false);
  forbid_timing(t);
  mark_output(t);
}

bool make_reset(const wire::TcpView& s, wire::TcpRepr& out) {
  if (s.rst()) return false;
  out = wire::TcpRepr{};
  out.src_port = s.dst_port;
  out.dst_port = s.src_port;
  if (s.has_ack()) {
    out.seq = s.ack;
    out.flags = wire::kTcpRst;
  } else {
    out.seq = 0;
    out.ack = s.seq + s.sequence_length();
    out.flags = wire::kTcpRst | wire::kTcpAck;
  }
  return true;
}

}  // namespace millrace::tcp
