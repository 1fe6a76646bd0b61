// What nearly every segment of a healthy connection is, both ways, without the branches that the rest of lib/tcp needs. Each
// function here either does exactly what input() or poll_output() would do, or nothing at all: fast_path_test.cc runs both side
// by side.
#include <rte_mbuf.h>

#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {

namespace {

// Flags under which segments need a closer look.
constexpr uint16_t kInputTrouble = kFlagPeerFin | kFlagOrphan | kFlagPersist | kFlagKarn | kFlagFinQueued;

// New data of ours is acknowledged, all of it in order and nothing of it lost: process_ack() without recovery.
inline uint32_t acknowledged(Tcb& t, uint32_t ack, TimeNs now) {
  const uint32_t acked = ack - t.snd_una, flight = t.snd_max - t.snd_una;
  t.tx.consume(acked);
  t.snd_una = ack;
  t.timeouts = 0;
  t.probes = 0;
  t.dup_acks = 0;
  if (has(t, kFlagTiming) && seq_ge(ack, t.rtt_seq)) {
    t.flags &= static_cast<uint16_t>(~kFlagTiming);
    rtt_sample(t, clock_us(now) - t.rtt_sent_us);
  }
  if (has(t, kFlagCwndLimited) || flight >= t.congestion.cwnd) {
    grow_window(t, acked, true, now);
    if (t.tx.empty()) t.flags &= static_cast<uint16_t>(~kFlagCwndLimited);
  }
  if (seq_gt(ack, t.recover)) t.recover = ack - 1;
  if (acked == flight) {
    t.retransmit_at = base::kNever;
  } else {
    arm_loss_timer(t, now);
  }
  if (t.tx.empty()) {
    t.state_at = base::kNever;
  } else {
    t.state_at = base::time_add(now, config(t).user_timeout_ns);
    t.due |= kDueOutput;
  }
  if (t.repair != nullptr) settle_repair(t, now);  // borrowed just now, to grow
  return kEventSendSpace;
}

// The `text` bytes of a segment that came uncut, in a chain whose headers are taken off.
void take_chain(io::PacketQueue& to, rte_mbuf* m, uint32_t text) {
  while (m != nullptr) {
    rte_mbuf* rest = m->next;
    m->next = nullptr;
    m->nb_segs = 1;
    const uint32_t have = std::min<uint32_t>(m->data_len, text);  // behind the last only Ethernet's padding
    m->data_len = static_cast<uint16_t>(have);
    m->pkt_len = have;
    to.push(io::PacketPtr(m));  // an empty one is given back
    text -= have;
    m = rest;
  }
}

}  // namespace

// RFC 9293 3.10.7.4 for the case that Van Jacobson's header prediction names: ESTABLISHED, the next segment in order, nothing but
// ACK and PSH, the options that every segment carries, nothing being repaired. Checked on the header's bytes as they came.
bool input_predicted(Tcb& t, rte_mbuf* frame, uint32_t l4_offset, uint32_t l4_length, TimeNs now, uint32_t& events) {
  const uint8_t* h = rte_pktmbuf_mtod_offset(frame, const uint8_t*, l4_offset);
  const bool timestamps = has(t, kFlagTimestamps);
  const uint32_t header = wire::kTcpMinHeader + (timestamps ? wire::kTcpTimestampsLength : 0);
  const uint32_t word = base::load_be32(h + 12);  // data offset, flags, window
  const uint32_t seq = base::load_be32(h + 4), ack = base::load_be32(h + 8);
  constexpr uint32_t kAnyWindowOrPush = 0xffff | uint32_t{wire::kTcpPsh} << 16;
  if ((word & ~kAnyWindowOrPush) != (header << 26 | uint32_t{wire::kTcpAck} << 16) || seq != t.rcv_nxt || l4_length < header ||
      frame->data_len < l4_offset + header || t.state != State::kEstablished || t.recovery != Recovery::kOpen ||
      t.snd_nxt != t.snd_max || t.repair != nullptr || (t.flags & kInputTrouble) != 0) [[unlikely]]
    return false;
  const uint32_t acked = ack - t.snd_una, text = l4_length - header;
  if (acked > t.snd_max - t.snd_una || text > t.rcv_adv - t.rcv_nxt || (text | acked) == 0) [[unlikely]]
    return false;
  if (timestamps) {
    const uint32_t val = base::load_be32(h + wire::kTcpMinHeader + 4);
    if (base::load_be32(h + wire::kTcpMinHeader) != wire::kTcpNopNopTimestamps || seq_lt(val, t.ts_recent)) [[unlikely]]
      return false;
    if (seq_le(seq, t.last_ack_sent)) {  // RFC 7323 4.3 (2)
      t.ts_recent = val;
      t.ts_recent_hour = whole_hours(now);
    }
  }

  t.last_received = now;
  t.keepalives_sent = 0;
  if (acked != 0) events |= acknowledged(t, ack, now);
  const uint32_t window = (word & 0xffff) << t.snd_wscale;
  if (seq_le(t.snd_wl1, seq)) [[likely]] {  // not older than what the window was last taken from
    t.snd_wl1 = seq;
    t.snd_wl2 = ack;
    if (window != t.snd_wnd) {
      if (window > t.snd_wnd) t.due |= kDueOutput;
      t.snd_wnd = window;
      t.max_snd_wnd = std::max(t.max_snd_wnd, window);
    }
  }
  if (text == 0) {
    rte_pktmbuf_free(frame);
    return true;
  }
  if (text > t.rcv_mss) t.rcv_mss = static_cast<uint16_t>(std::min<uint32_t>(text, t.our_mss));
  frame->data_off = static_cast<uint16_t>(frame->data_off + l4_offset + header);
  if (frame->next == nullptr) [[likely]] {
    frame->data_len = static_cast<uint16_t>(text);  // behind it only Ethernet's padding
    frame->pkt_len = text;
    t.rx.push(io::PacketPtr(frame));
  } else {
    frame->data_len = static_cast<uint16_t>(frame->data_len - l4_offset - header);
    take_chain(t.rx, frame, text);
  }
  t.rcv_nxt += text;
  events |= kEventReadable;
  if (!config(t).delayed_ack || t.rcv_nxt - t.last_ack_sent > t.rcv_mss) {
    t.due |= kDueAck | kDueOutput;
  } else if ((t.due & (kDueAck | kDueDelayedAck)) == 0) {
    t.due |= kDueDelayedAck;
    t.delayed_ack_at = base::time_add(now, config(t).delayed_ack_ns);
  }
  return true;
}

// All that waits fits the window, cwnd and one segment (or what the port cuts): output_data() without what holds back or repeats.
// Or nothing waits, and at most an ACK is due. False: not that simple.
static bool output_predicted(Tcb& t, TimeNs now, OutSegment& out, uint32_t max_payload, bool& sent) {
  constexpr uint16_t kSimple = kDueOutput | kDueAck | kDueDelayedAck;
  if (t.state != State::kEstablished || t.recovery != Recovery::kOpen || t.repair != nullptr || (t.due & ~kSimple) != 0 ||
      (t.flags & (kFlagPersist | kFlagFinQueued | kFlagCwndLimited)) != 0 || t.snd_nxt != t.snd_max || t.dup_acks != 0)
      [[unlikely]]
    return false;
  const uint32_t flight = t.snd_nxt - t.snd_una, waiting = static_cast<uint32_t>(t.tx.bytes()) - flight;
  if (waiting == 0) {
    sent = (t.due & kDueAck) != 0;
    t.due &= static_cast<uint16_t>(~kDueOutput);
    if (!sent) return true;
    if (t.snd_nxt - t.snd_una > t.snd_wnd) {  // the peer took back window: output_synchronized() knows which number to use
      t.due |= kDueOutput;
      return false;
    }
  } else {
    const uint32_t mss = payload_mss(t);
    if (flight == 0 && TimeNs{clock_ms(now) - t.last_sent_ms} * base::kMillisecond > from_us(t.rto_us))
      congestion_on_idle(t.congestion, config(t).congestion, nullptr, mss);
    if (waiting > std::max(mss, max_payload) || waiting + flight > std::min<uint32_t>(t.snd_wnd, t.congestion.cwnd) ||
        (waiting > mss && waiting % mss != 0) || (waiting < mss && !config(t).nodelay && flight != 0))
      return false;
    if (waiting > mss && waiting > max_payload - max_payload % mss) return false;
    sent = true;
    out.segment_size = static_cast<uint16_t>(mss);
    out.ecn_capable = has(t, kFlagEcn);
    t.due &= static_cast<uint16_t>(~kDueOutput);
  }

  wire::TcpRepr& h = out.header;
  h.src_port = t.tuple.local_port;
  h.dst_port = t.tuple.remote_port;
  h.seq = t.snd_nxt;
  h.flags = waiting == 0 ? wire::kTcpAck : wire::kTcpAck | wire::kTcpPsh;
  h.ack = t.last_ack_sent = t.rcv_nxt;
  h.window = advertise(t);
  if (has(t, kFlagTimestamps)) h.timestamps = wire::TcpTimestamps{timestamp_clock(t, now), t.ts_recent};
  t.due &= static_cast<uint16_t>(~(kDueAck | kDueDelayedAck));
  t.delayed_ack_at = base::kNever;
  if (waiting == 0) return true;

  out.payload_offset = flight;
  out.payload_len = waiting;
  t.snd_nxt += waiting;
  if (!has(t, kFlagTiming)) {
    t.flags = static_cast<uint16_t>((t.flags & ~kFlagKarn) | kFlagTiming);
    t.rtt_seq = t.snd_nxt;
    t.rtt_sent_us = clock_us(now);
  }
  t.snd_max = t.snd_nxt;
  t.last_sent_ms = clock_ms(now);
  if (t.retransmit_at == base::kNever) {
    t.retransmit_at = base::time_add(now, from_us(t.rto_us));
    t.probe_timer = false;
  }
  if (flight + waiting > payload_mss(t) && !t.probe_timer) lower_to_probe(t, now);
  if (t.state_at == base::kNever) t.state_at = base::time_add(now, config(t).user_timeout_ns);
  return true;
}

bool poll_output(Tcb& t, TimeNs now, OutSegment& out, uint32_t max_payload) {
  if ((t.due & kDueOutput) == 0) return false;
  out = OutSegment{};
  bool sent = false;
  if (output_predicted(t, now, out, max_payload, sent)) [[likely]]
    return sent;
  return poll_output_any(t, now, out, max_payload);
}

}  // namespace millrace::tcp
