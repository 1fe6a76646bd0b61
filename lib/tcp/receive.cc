// The receiver: payload and FIN of acceptable segments (RFC 9293 3.10.7.4, seventh and eighth step), the receive window and its
// growth.
#include "lib/tcp/seq.h"
#include "lib/tcp/tcb_ops.h"

namespace millrace::tcp {
namespace {

using stats::DropReason;

// RFC 9293 3.8.6.3: an ACK for at least every second full-sized segment, none later than the delay.
void schedule_ack(Tcb& t, TimeNs now) {
  const uint32_t unacknowledged = t.rcv_nxt - t.last_ack_sent;
  if ((t.settings & kSettingDelayedAck) == 0 || unacknowledged > t.rcv_mss) {
    mark_output(t, kDueAck);
    return;
  }
  if ((t.due & (kDueAck | kDueDelayedAck)) == 0) {
    t.due |= kDueDelayedAck;
    t.delayed_ack_at = now + from_us(t.delayed_ack_us);
  }
}

// Eighth step: rcv_nxt reached the peer's FIN.
uint32_t peer_fin(Tcb& t, TimeNs now) {
  ++t.rcv_nxt;
  t.flags |= kFlagPeerFinDone;
  mark_output(t, kDueAck);
  switch (t.state) {
    case State::kSynReceived:
    case State::kEstablished:
      t.state = State::kCloseWait;
      return kEventPeerFin;
    case State::kFinWait1:
      t.state = State::kClosing;
      return kEventPeerFin;  // our FIN is not acknowledged, or it would be FIN-WAIT-2
    case State::kFinWait2:
      enter_time_wait(t, now);
      return kEventPeerFin | kEventTimeWait;
    default:
      return 0;
  }
}

// RFC 1122 4.2.2.13: data that nobody will read.
uint32_t refuse_data(Tcb& t, DropReason& drop) {
  drop = DropReason::kTcpDataAfterClose;
  reset_connection(t);
  return kEventClosed;
}

uint32_t accept_in_order(Tcb& t, io::PacketPtr payload) {
  uint32_t got = payload.size();
  if (got > t.rcv_mss) t.rcv_mss = static_cast<uint16_t>(std::min<uint32_t>(got, t.our_mss));
  t.rx.push(std::move(payload));
  if (!t.reassembly.empty()) got += t.reassembly.deliver(t.rcv_nxt + got, t.rx);
  t.rcv_nxt += got;
  t.bytes_received += got;
  return got;
}

}  // namespace

uint32_t receive_text(Tcb& t, const wire::TcpView& s, uint32_t seq, io::PacketPtr payload, bool fin, TimeNs now,
                      DropReason& drop) {
  uint32_t length = payload ? payload.size() : 0;
  uint32_t events = 0;

  if (t.state != State::kEstablished && t.state != State::kFinWait1 && t.state != State::kFinWait2) {
    // The peer has sent its FIN: there is nothing behind it.
    if (length > 0 && seq_gt(seq + length, t.peer_fin_seq)) drop = DropReason::kTcpDataAfterFin;
    if (length > 0 || fin) mark_output(t, kDueAck);
    return 0;
  }

  // Cut to the window: the part received before, the part beyond.
  if (length > 0 && seq_lt(seq, t.rcv_nxt)) {
    const uint32_t old = std::min(t.rcv_nxt - seq, length);
    if (has(t, kFlagSack)) t.reassembly.note_duplicate(seq, seq + old);
    payload.trim_front(old);
    seq += old;
    length -= old;
    mark_output(t, kDueAck);
    if (length == 0) drop = DropReason::kTcpOldDuplicate;
  }
  if (length > 0 && seq_gt(seq + length, t.rcv_adv)) {
    const uint32_t beyond = std::min(seq + length - t.rcv_adv, length);
    payload.trim_back(beyond);
    length -= beyond;
    fin = false;
    drop = DropReason::kTcpWindowOverflow;
    mark_output(t, kDueAck);
  }
  if (has(t, kFlagPeerFin) && length > 0 && seq_gt(seq + length, t.peer_fin_seq)) {
    const uint32_t behind = std::min(seq + length - t.peer_fin_seq, length);
    payload.trim_back(behind);
    length -= behind;
    drop = DropReason::kTcpDataAfterFin;
    mark_output(t, kDueAck);
  }
  if (fin && !has(t, kFlagPeerFin)) {
    t.flags |= kFlagPeerFin;
    t.peer_fin_seq = seq + length;
    // Bytes held beyond the end that the peer has now named were never part of the stream.
    if (!t.reassembly.empty() && seq_gt(t.reassembly.end(), t.peer_fin_seq)) t.reassembly.clear();
  }

  if (length > 0) {
    if (has(t, kFlagOrphan)) return refuse_data(t, drop);
    if (seq == t.rcv_nxt) {
      const bool had_gap = !t.reassembly.empty();
      accept_in_order(t, std::move(payload));
      events |= kEventReadable;
      if (had_gap) mark_output(t, kDueAck);  // RFC 5681 4.2: a segment that fills a gap is acknowledged at once
      schedule_ack(t, now);
    } else {
      const uint64_t budget = uint64_t{t.rcv_cap} * kReceiveTruesizeFactor;
      const uint32_t limit = static_cast<uint32_t>(budget - std::min<uint64_t>(budget, t.rx.truesize()));
      const uint32_t left = seq, right = seq + length;
      switch (t.reassembly.insert(seq, std::move(payload), limit)) {
        case Reassembly::Outcome::kStored:
          break;
        case Reassembly::Outcome::kDuplicate:
          drop = DropReason::kTcpOldDuplicate;
          if (has(t, kFlagSack)) t.reassembly.note_duplicate(left, right);
          break;
        case Reassembly::Outcome::kFull:
          drop = DropReason::kTcpReassemblyFull;
          break;
      }
      mark_output(t, kDueAck);  // RFC 5681 4.2: out of order, at once
    }
  }
  if (fin && !has(t, kFlagPeerFinDone)) mark_output(t, kDueAck);
  if (has(t, kFlagPeerFin) && !has(t, kFlagPeerFinDone) && t.rcv_nxt == t.peer_fin_seq) events |= peer_fin(t, now);
  return events;
}

uint32_t receive_room(const Tcb& t) {
  // A queue of small pieces costs more than its bytes: charge a share of what the pool lent.
  const uint64_t charge = std::max(t.rx.bytes(), t.rx.truesize() / kReceiveTruesizeFactor);
  return t.rcv_cap > charge ? static_cast<uint32_t>(t.rcv_cap - charge) : 0;
}

void window_update(Tcb& t, TimeNs now, bool may_grow) {
  if (!synchronized(t.state) || has(t, kFlagPeerFinDone)) return;
  // Dynamic right-sizing: twice what the reader took in one round-trip time is what the peer needs to keep the path full.
  const uint64_t unread = t.rx.bytes();
  const uint32_t taken = static_cast<uint32_t>(t.bytes_received - unread);  // modulo 2^32 is enough for a difference
  const TimeNs rtt = t.srtt_us != 0 ? from_us(t.srtt_us) : 100 * base::kMillisecond;
  if (now - t.growth_started_at >= rtt && now != t.growth_started_at) {
    const uint64_t in_one_rtt = static_cast<uint64_t>(taken - t.growth_bytes) * rtt / (now - t.growth_started_at);
    if (may_grow && t.rcv_cap < t.rcv_buf && in_one_rtt * 2 > t.rcv_cap)
      t.rcv_cap = static_cast<uint32_t>(std::min<uint64_t>(t.rcv_buf, uint64_t{t.rcv_cap} * 2));
    t.growth_started_at = now;
    t.growth_bytes = taken;
  }
  // RFC 9293 3.8.6.2.2: an update only when the window opens by a worthwhile step; smaller ones ride on other segments.
  const uint32_t right = t.rcv_nxt + receive_room(t);
  if (!seq_gt(right, t.rcv_adv)) return;
  const uint32_t step = right - t.rcv_adv;
  const uint32_t small = std::min<uint32_t>(t.our_mss, t.rcv_cap / 2);
  if (step >= t.rcv_cap / 4 || (rcv_wnd(t) < small && step >= small)) mark_output(t, kDueAck);
}

}  // namespace millrace::tcp
