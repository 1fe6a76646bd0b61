// What is due to be sent: one segment a call (RFC 9293 3.8, 3.10.2). Order: resets, SYN, retransmission, data and FIN, probes,
// ACK.
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

using namespace wire;  // flag names

uint32_t sack_blocks(const Tcb& t) {
  if (!has(t, kFlagSack) || t.repair == nullptr) return 0;
  return std::min<uint32_t>(t.repair->reassembly.report_size(), has(t, kFlagTimestamps) ? 3 : 4);
}

// Where, from `seq` on, the peer has reported to hold bytes already; `end` when nowhere before it.
uint32_t next_reported(const Tcb& t, uint32_t seq, uint32_t end) {
  return t.repair == nullptr ? end : t.repair->scoreboard.next_left(seq, end);
}

// Payload bytes of the next segment, all options deducted (RFC 6691).
uint32_t payload_limit(const Tcb& t) {
  const uint32_t blocks = sack_blocks(t);
  return payload_mss(t) - (blocks == 0 ? 0 : 4 + 8 * blocks);
}

// Everything but payload. An ACK goes with every segment of a synchronized connection, so it settles what ACK was due.
void fill_header(Tcb& t, OutSegment& out, uint32_t seq, uint8_t flags, TimeNs now) {
  TcpRepr& h = out.header;
  h.src_port = t.tuple.local_port;
  h.dst_port = t.tuple.remote_port;
  h.seq = seq;
  h.flags = flags;
  if ((t.due & kDueEce) != 0 && (flags & (kTcpAck | kTcpSyn)) == kTcpAck) h.flags |= kTcpEce;
  if ((flags & kTcpAck) != 0) {
    h.ack = t.rcv_nxt;
    t.last_ack_sent = t.rcv_nxt;
    t.delayed_ack_at = base::kNever;
    t.due &= static_cast<uint16_t>(~(kDueAck | kDueDelayedAck));
    if ((flags & kTcpSyn) == 0 && has(t, kFlagSack) && t.repair != nullptr && t.repair->reassembly.has_report()) {
      t.repair->reassembly.report(h.sack, sack_blocks(t));
      return_repair(t);  // if it was only borrowed to report a duplicate
    }
  }
  if ((flags & kTcpSyn) == 0) h.window = advertise(t);
  if (has(t, kFlagTimestamps)) h.timestamps = TcpTimestamps{timestamp_clock(t, now), (flags & kTcpAck) != 0 ? t.ts_recent : 0};
}

// `space` bytes of sequence space from `seq` on go out now: for the RTT clock and the retransmission timer.
void note_sent(Tcb& t, uint32_t seq, uint32_t space, TimeNs now) {
  const uint32_t end = seq + space;
  if (t.repair != nullptr) note_sent_in_repair(t, seq, space, now);
  if (seq_lt(seq, t.snd_max)) {
    ++t.retransmits;
    forbid_timing(t);
  } else if (!has(t, kFlagTiming)) {
    t.flags = static_cast<uint16_t>((t.flags & ~kFlagKarn) | kFlagTiming);
    t.rtt_seq = end;
    t.rtt_sent_us = clock_us(now);
  }
  t.snd_max = seq_max(t.snd_max, end);
  t.last_sent_ms = clock_ms(now);
  if (t.retransmit_at == base::kNever || has(t, kFlagPersist)) arm_retransmit(t, now);  // RFC 6298 5.1
  if (t.snd_max - t.snd_una > payload_mss(t) && !t.probe_timer && t.state >= State::kEstablished) lower_to_probe(t, now);
}

void emit_data(Tcb& t, OutSegment& out, uint32_t seq, uint32_t length, bool fin, TimeNs now) {
  uint8_t flags = kTcpAck;
  if (fin) {
    flags |= kTcpFin;
    t.flags |= kFlagFinSent;
  }
  if (length > 0 && seq + length == snd_end(t)) flags |= kTcpPsh;
  fill_header(t, out, seq, flags, now);
  out.payload_offset = seq - t.snd_una;
  out.payload_len = length;
  if (has(t, kFlagEcn) && seq == t.snd_max && length > 0) {  // never what is sent again (RFC 3168 6.1.5)
    out.ecn_capable = true;
    if ((t.due & kDueCwr) != 0) {
      t.due &= static_cast<uint16_t>(~kDueCwr);
      out.header.flags |= kTcpCwr;
    }
  }
}

// RFC 9293 3.10.5, 3.10.7.4: an acceptable RST carries our next sequence number.
void emit_reset(Tcb& t, OutSegment& out) {
  TcpRepr& h = out.header;
  h.src_port = t.tuple.local_port;
  h.dst_port = t.tuple.remote_port;
  if ((t.due & kDueStrayReset) != 0) {
    t.due &= static_cast<uint16_t>(~kDueStrayReset);
    h.seq = t.stray_reset_seq;
    h.flags = kTcpRst;
    return;
  }
  t.due = 0;
  h.seq = t.snd_max;
  h.ack = t.rcv_nxt;
  h.flags = kTcpRst | kTcpAck;
}

// note_sent() of the SYN-ACK of a fast open, which lies outside the sequence space that it knows.
void note_fast_open(Tcb& t, TimeNs now) {
  t.last_sent_ms = clock_ms(now);
  if (t.retransmit_at != base::kNever) {  // armed by the first one
    ++t.retransmits;
    return forbid_timing(t);
  }
  t.flags |= kFlagTiming;
  t.rtt_seq = t.snd_una;
  t.rtt_sent_us = clock_us(now);
  arm_retransmit(t, now);
}

bool output_syn(Tcb& t, OutSegment& out, TimeNs now) {
  const bool first_time = t.snd_max == t.snd_una;
  if ((t.due & kDueSyn) == 0) {
    if ((t.due & kDueAck) == 0 || t.state == State::kSynSent) return false;
    fill_header(t, out, t.snd_max, kTcpAck, now);
    return true;
  }
  t.due &= static_cast<uint16_t>(~kDueSyn);
  TcpRepr& h = out.header;
  // The data of a fast open takes its part; what a SYN-ACK said once stays.
  const uint32_t room = std::max(receive_room(t), rcv_wnd(t));
  const uint16_t window = first_window(std::min(t.rcv_cap, room), t.rcv_wscale);
  h.window = window;
  h.mss = t.our_mss;
  if (t.state == State::kSynSent) {
    // A SYN that asks for ECN may have been lost because of that (RFC 3168 6.1.1.1).
    const bool ecn = config(t).ecn == EcnMode::kRequest && may_use_ecn(config(t)) && !has(t, kFlagSynLost);
    fill_header(t, out, t.snd_una, ecn ? kTcpSyn | kEcnSetup : kTcpSyn, now);
    if (config(t).window_scaling) h.wscale = static_cast<uint8_t>(t.rcv_wscale);
    h.sack_permitted = config(t).sack;
    if (config(t).timestamps) h.timestamps = TcpTimestamps{timestamp_clock(t, now), 0};
  } else {
    fill_header(t, out, t.fast_open ? t.snd_una - 1 : t.snd_una,
                has(t, kFlagEcn) ? kTcpSyn | kTcpAck | kTcpEce : kTcpSyn | kTcpAck, now);
    if (has(t, kFlagWindowScaling)) h.wscale = static_cast<uint8_t>(t.rcv_wscale);
    h.sack_permitted = has(t, kFlagSack);
    t.rcv_adv = seq_max(t.rcv_adv, t.rcv_nxt + window);
  }
  if (t.fast_open) {
    note_fast_open(t, now);
    return true;
  }
  note_sent(t, t.snd_una, 1, now);
  if (first_time) t.snd_nxt = t.snd_max;
  return true;
}

// Fast retransmit: the segment at snd_una, now (RFC 5681 3.2 step 3, RFC 6675 5 step 4.3).
bool output_retransmit(Tcb& t, OutSegment& out, TimeNs now) {
  t.due &= static_cast<uint16_t>(~kDueRetransmit);
  if (t.snd_una == t.snd_max) return false;
  const uint32_t end = snd_end(t);
  const uint32_t limit = seq_min(next_reported(t, t.snd_una, end), seq_min(end, t.snd_max));
  const uint32_t length = std::min(limit - t.snd_una, payload_limit(t));
  const bool fin = has(t, kFlagFinSent) && t.snd_una + length == end;
  emit_data(t, out, t.snd_una, length, fin, now);
  note_sent(t, t.snd_una, length + fin, now);
  return true;
}

// Pacing: may something go now? If not, pace_at says when.
bool paced_out(Tcb& t, TimeNs now) {
  if (!bbr_rules(t) || t.repair->bbr.next_send <= now) return false;
  t.repair->pace_at = t.repair->bbr.next_send;
  return true;
}

// Bytes that may go at once: what the rate sends in a millisecond, which is as exact as timers are.
uint32_t pacing_burst(const Tcb& t) {
  const uint64_t rate = bbr_pacing_rate(t.repair->bbr, t.congestion.cwnd, t.srtt_us);
  return static_cast<uint32_t>(std::clamp<uint64_t>(rate / 1000, 2 * payload_mss(t), 65'535));
}

// NextSeg() of RFC 6675 4, rule 1: the lowest piece that is lost. What rules 3 and 4 are for is found by time (RFC 8985).
bool output_hole(Tcb& t, OutSegment& out, TimeNs now) {
  const Repair& r = *t.repair;
  if (r.scoreboard.lost() == 0 || !sack_recovery(t) || r.frto == Frto::kSecond) return false;
  const Scoreboard::Range lost = r.scoreboard.first_lost();
  const uint32_t end = snd_end(t);
  const uint32_t data_limit = seq_min(lost.right, end);
  const uint32_t length = seq_lt(lost.left, data_limit) ? std::min(data_limit - lost.left, payload_limit(t)) : 0;
  if (r.scoreboard.in_flight() + length > t.congestion.cwnd || paced_out(t, now)) return false;
  const bool fin = has(t, kFlagFinSent) && lost.left + length == end && seq_gt(lost.right, end);
  if (length == 0 && !fin) return false;
  emit_data(t, out, lost.left, length, fin, now);
  note_sent(t, lost.left, length + fin, now);
  if (lost.left == t.snd_una) arm_retransmit(t, now);
  return true;
}

// RFC 8985 7.3: new data if there is any that the peer takes, else the last segment once more; whatever cwnd says.
bool output_loss_probe(Tcb& t, OutSegment& out, TimeNs now) {
  t.due &= static_cast<uint16_t>(~kDueLossProbe);
  if (!undisturbed(t) || t.repair == nullptr || t.snd_nxt != t.snd_max || t.snd_una == t.snd_max) return false;
  const uint32_t end = snd_end(t), mss = payload_limit(t);
  const uint32_t right = t.snd_una + t.snd_wnd;
  const uint32_t waiting = seq_gt(end, t.snd_max) ? end - t.snd_max : 0;
  uint32_t seq = t.snd_max, length = std::min({waiting, mss, seq_gt(right, seq) ? right - seq : 0});
  if (length < std::min(waiting, mss)) length = 0;  // no silly segments
  bool fin = false;
  if (length == 0) {
    const uint32_t data_end = seq_min(end, t.snd_max);  // behind the last byte sent
    length = std::min(data_end - t.snd_una, mss);
    seq = data_end - length;
    fin = has(t, kFlagFinSent) && data_end == end;
    if (length == 0 && !fin) return false;
  }
  Repair& r = *t.repair;
  tally(t, &RecoveryCounts::loss_probes);
  r.probing = true;
  r.probe_repeats = seq_lt(seq, t.snd_max);
  emit_data(t, out, seq, length, fin, now);
  note_sent(t, seq, length + fin, now);
  t.snd_nxt = t.snd_max;
  r.probe_end = t.snd_max;
  arm_retransmit(t, now);
  return true;
}

// A segment larger than those that are known to get through (RFC 4821 7.4): new data, with enough behind it. kWait: as soon as
// there is room for it; nothing else goes before.
enum class Probe : uint8_t { kNo, kWait, kSent };
Probe output_path_probe(Tcb& t, OutSegment& out, TimeNs now) {
  if (t.recovery != Recovery::kOpen || !may_send_data(t.state) || t.snd_nxt != t.snd_max || has_scoreboard(t) ||
      sack_blocks(t) != 0)
    return Probe::kNo;
  const uint32_t mss = payload_mss(t), tail = kPathProbeTail * mss;
  const uint32_t needed = t.repair->path.most + tail;
  if (snd_end(t) - t.snd_max < needed || t.snd_wnd < needed || t.congestion.cwnd < needed) return Probe::kNo;
  const uint16_t size = path_probe_size(t, now);
  if (size == 0) return Probe::kNo;
  const uint32_t length = size - (t.snd_mss - mss);
  // What is in flight makes room soon; a sender that fills its window would never have any.
  if (bytes_in_flight(t) + length > t.congestion.cwnd || seq_gt(t.snd_max + needed, t.snd_una + t.snd_wnd) || paced_out(t, now))
    return Probe::kWait;
  PathSearch& p = t.repair->path;
  p.size = size;
  p.left = t.snd_max;
  p.right = t.snd_max + length;
  emit_data(t, out, p.left, length, false, now);
  out.segment_size = static_cast<uint16_t>(length);
  note_sent(t, p.left, length, now);
  t.snd_nxt = t.snd_max;
  return Probe::kSent;
}

// Data and FIN at snd_nxt, as far as the peer's window, cwnd, Nagle and silly-window avoidance let it go (RFC 9293 3.8.6.2.1).
bool output_data(Tcb& t, OutSegment& out, TimeNs now, uint32_t max_payload) {
  if (seq_lt(t.snd_nxt, t.snd_max) && has_scoreboard(t)) t.snd_nxt = t.repair->scoreboard.skip(t.snd_nxt);
  const uint32_t seq = t.snd_nxt, end = snd_end(t);
  if (seq_gt(seq, end)) return false;  // the FIN is out
  const bool fin_due = has(t, kFlagFinQueued) && !has(t, kFlagFinAcked) && t.state != State::kSynReceived;
  const uint32_t waiting = end - seq;
  if (waiting == 0 && !fin_due) return false;

  const bool repeated = seq_lt(seq, t.snd_max);
  const uint32_t right = t.snd_una + t.snd_wnd;
  const uint32_t window = seq_gt(right, seq) ? right - seq : 0;
  const uint32_t mss = payload_limit(t);
  if (t.snd_una == t.snd_max && TimeNs{clock_ms(now) - t.last_sent_ms} * base::kMillisecond > from_us(t.rto_us))
    congestion_on_idle(t.congestion, config(t).congestion, growth(t), payload_mss(t));

  uint32_t length = std::min(waiting, window);
  if (repeated) length = std::min(length, next_reported(t, seq, end) - seq);
  const uint32_t flight = bytes_in_flight(t);
  // RFC 3042: each of the first two duplicate ACKs lets one more segment out. With SACK the flight has already shrunk by it.
  const uint32_t beyond = undisturbed(t) && !sack_recovery(t) ? std::min<uint32_t>(t.dup_acks, 2) * mss : 0;
  const uint32_t cwnd = t.congestion.cwnd + beyond;
  const uint32_t room = cwnd > flight ? cwnd - flight : 0;
  if (length > room) {
    t.flags |= kFlagCwndLimited;
    length = room >= mss ? room - room % mss : flight == 0 ? std::min(length, mss) : 0;
    if (length == 0) return false;
  } else {
    t.flags &= static_cast<uint16_t>(~kFlagCwndLimited);
  }
  // CWR is for one segment: ports that cut repeat it.
  if (bbr_rules(t) && max_payload > mss) max_payload = std::min(max_payload, pacing_burst(t));
  const uint32_t most = (t.due & kDueCwr) != 0 ? mss : std::max(mss, max_payload - max_payload % mss);
  length = std::min(length, most);
  if (length > mss) length -= length % mss;

  if (length < mss && !repeated && length > 0) {
    const bool whole = length == waiting && (config(t).nodelay || t.snd_una == t.snd_max || fin_due);
    const bool half_window = length >= t.max_snd_wnd / 2;
    if (!whole && !half_window) return false;
  }
  const bool fin = fin_due && length == waiting && window > length;
  if (length == 0 && !fin) return false;
  if (paced_out(t, now)) return false;

  emit_data(t, out, seq, length, fin, now);
  out.segment_size = static_cast<uint16_t>(mss);
  note_sent(t, seq, length + fin, now);
  t.snd_nxt = seq + length + fin;
  return true;
}

// RFC 9293 3.8.6.1: one octet beyond the window, or our FIN; with a window that is merely silly, what it takes (the override of
// RFC 1122 4.2.3.4).
bool output_probe(Tcb& t, OutSegment& out, TimeNs now) {
  t.due &= static_cast<uint16_t>(~kDueProbe);
  if (!outstanding(t)) return false;
  const uint32_t waiting = static_cast<uint32_t>(t.tx.bytes());
  const uint32_t length = std::min({waiting, std::max(t.snd_wnd, 1u), payload_limit(t)});
  const bool fin = waiting == 0;
  emit_data(t, out, t.snd_una, length, fin, now);
  out.ecn_capable = false;  // RFC 3168 6.1.6
  if ((out.header.flags & kTcpCwr) != 0) {
    out.header.flags &= static_cast<uint8_t>(~kTcpCwr);
    t.due |= kDueCwr;
  }
  if (t.repair != nullptr) note_sent_in_repair(t, t.snd_una, length + fin, now);
  if (seq_lt(t.snd_una, t.snd_max)) {
    ++t.retransmits;
    forbid_timing(t);
  }
  t.snd_max = seq_max(t.snd_max, t.snd_una + length + fin);
  t.last_sent_ms = clock_ms(now);
  if (t.snd_wnd > 0) {
    t.snd_nxt = seq_max(t.snd_nxt, t.snd_una + length + fin);
    arm_retransmit(t, now);
  }
  return true;
}

// The sequence number of a segment without data: SND.NXT, unless the peer took back window and would find that unacceptable.
uint32_t ack_seq(const Tcb& t) { return seq_min(t.snd_max, seq_max(t.snd_una, t.snd_una + t.snd_wnd)); }

bool output_synchronized(Tcb& t, OutSegment& out, TimeNs now, uint32_t max_payload) {
  if (t.state != State::kTimeWait && outstanding(t)) {
    if (t.state_at == base::kNever) t.state_at = base::time_add(now, config(t).user_timeout_ns);
    if ((t.due & kDueRetransmit) != 0 && output_retransmit(t, out, now)) return true;
    if (t.repair != nullptr && output_hole(t, out, now)) return true;
    if ((t.due & kDueLossProbe) != 0 && output_loss_probe(t, out, now)) return true;
    if ((t.due & kDueProbe) != 0 && output_probe(t, out, now)) return true;
    Probe probe = Probe::kNo;
    if (t.repair != nullptr && t.repair->path.most != 0) [[unlikely]]
      probe = output_path_probe(t, out, now);
    if (probe == Probe::kSent || (probe == Probe::kNo && output_data(t, out, now, max_payload))) return true;
    if (t.retransmit_at == base::kNever) {  // nothing in flight, and the window keeps it so
      t.flags |= kFlagPersist;
      t.retransmit_at = base::time_add(now, from_us(t.rto_us));
    }
  }
  if ((t.due & kDueKeepalive) != 0) {
    t.due &= static_cast<uint16_t>(~kDueKeepalive);
    fill_header(t, out, t.snd_max - 1, kTcpAck, now);  // RFC 9293 3.8.4
    return true;
  }
  if ((t.due & kDueAck) != 0) {
    fill_header(t, out, (t.due & kDueAckAtMax) != 0 ? t.snd_max : ack_seq(t), kTcpAck, now);
    t.due &= static_cast<uint16_t>(~kDueAckAtMax);
    return true;
  }
  return false;
}

}  // namespace

bool poll_output_any(Tcb& t, TimeNs now, OutSegment& out, uint32_t max_payload) {
  if ((t.due & (kDueReset | kDueStrayReset)) != 0) {
    emit_reset(t, out);
    return true;
  }
  bool sent = false;
  switch (t.state) {
    case State::kClosed:
      break;
    case State::kSynSent:
    case State::kSynReceived:
      sent = t.fast_open && (t.due & kDueSyn) == 0 ? output_synchronized(t, out, now, max_payload) : output_syn(t, out, now);
      break;
    default:
      sent = output_synchronized(t, out, now, max_payload);
      break;
  }
  if (!sent) t.due &= static_cast<uint16_t>(~kDueOutput);
  return sent;
}

}  // namespace millrace::tcp
