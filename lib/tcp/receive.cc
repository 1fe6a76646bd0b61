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
  if (!config(t).delayed_ack || unacknowledged > t.rcv_mss) {
    mark_output(t, kDueAck);
    return;
  }
  if ((t.due & (kDueAck | kDueDelayedAck)) == 0) {
    t.due |= kDueDelayedAck;
    t.delayed_ack_at = base::time_add(now, config(t).delayed_ack_ns);
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
  if (out_of_order(t)) got += t.repair->reassembly.deliver(t.rcv_nxt + got, t.rx);
  t.rcv_nxt += got;
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
    note_duplicate(t, seq, seq + old);
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
    if (out_of_order(t) && seq_gt(t.repair->reassembly.end(), t.peer_fin_seq)) t.repair->reassembly.clear();
  }

  if (length > 0) {
    if (has(t, kFlagOrphan)) return refuse_data(t, drop);
    if (seq == t.rcv_nxt) {
      const bool had_gap = out_of_order(t);
      accept_in_order(t, std::move(payload));
      events |= kEventReadable;
      if (had_gap) {
        mark_output(t, kDueAck);  // RFC 5681 4.2: a segment that fills a gap is acknowledged at once
        return_repair(t);
      }
      schedule_ack(t, now);
    } else {
      const uint64_t budget = uint64_t{t.rcv_cap} * kReceiveTruesizeFactor;
      const uint32_t limit = static_cast<uint32_t>(budget - std::min<uint64_t>(budget, t.rx.truesize()));
      const uint32_t left = seq, right = seq + length;
      Repair* r = need_repair(t);
      switch (r == nullptr ? Reassembly::Outcome::kFull : r->reassembly.insert(seq, std::move(payload), limit)) {
        case Reassembly::Outcome::kStored:
          break;
        case Reassembly::Outcome::kDuplicate:
          drop = DropReason::kTcpOldDuplicate;
          note_duplicate(t, left, right);
          break;
        case Reassembly::Outcome::kFull:
          drop = DropReason::kTcpReassemblyFull;
          return_repair(t);
          break;
      }
      mark_output(t, kDueAck);  // RFC 5681 4.2: out of order, at once
    }
  }
  if (fin && !has(t, kFlagPeerFinDone)) mark_output(t, kDueAck);
  if (has(t, kFlagPeerFin) && !has(t, kFlagPeerFinDone) && t.rcv_nxt == t.peer_fin_seq) events |= peer_fin(t, now);
  return events;
}

// RFC 2883 4: the next SACK option begins with what came twice.
void note_duplicate(Tcb& t, uint32_t left, uint32_t right) {
  if (!has(t, kFlagSack)) return;
  Repair* r = need_repair(t);
  if (r == nullptr) return;
  tally(t, seq_lt(left, t.rcv_nxt) ? &RecoveryCounts::reported_below : &RecoveryCounts::reported_above);
  r->reassembly.note_duplicate(left, right);
}

void window_update(Tcb& t, TimeNs now, bool may_grow) {
  if (!synchronized(t.state) || has(t, kFlagPeerFinDone)) return;
  // Dynamic right-sizing: twice what the reader took in one round-trip time is what the peer needs to keep the path full.
  const uint64_t unread = t.rx.bytes();
  const uint32_t taken = t.rcv_nxt - static_cast<uint32_t>(unread);  // modulo 2^32 is enough for a difference
  const uint32_t rtt_us = t.srtt_us != 0 ? t.srtt_us : 100'000;
  const uint32_t elapsed_us = clock_us(now) - t.growth_started_us;
  if (elapsed_us >= rtt_us) {
    const uint32_t most = rcv_limit(t);
    if (may_grow && t.rcv_cap < most && uint64_t{taken - t.growth_seq} * rtt_us * 2 > uint64_t{t.rcv_cap} * elapsed_us)
      t.rcv_cap = static_cast<uint32_t>(std::min<uint64_t>(most, uint64_t{t.rcv_cap} * 2));
    t.growth_started_us = clock_us(now);
    t.growth_seq = taken;
  }
  // RFC 9293 3.8.6.2.2: an update only when the window opens by a worthwhile step; smaller ones ride on other segments.
  const uint32_t right = t.rcv_nxt + receive_room(t);
  if (!seq_gt(right, t.rcv_adv)) return;
  const uint32_t step = right - t.rcv_adv;
  const uint32_t small = std::min<uint32_t>(t.our_mss, t.rcv_cap / 2);
  if (step >= small && (step >= t.rcv_cap / 4 || rcv_wnd(t) < small)) mark_output(t, kDueAck);
}

}  // namespace millrace::tcp
