// The other half of TcpPeer: what it sends, and its timers.
#include <algorithm>

#include "lib/base/assert.h"
#include "perf/load/http_client.h"
#include "perf/load/http_server.h"
#include "perf/load/pattern.h"
#include "perf/load/tcp_flags.h"
#include "perf/load/tcp_peer.h"
#include "perf/load/tls_peer.h"

namespace millrace::load {

// --- sending ----------------------------------------------------------------------------------------------------------------

void TcpPeer::connect(uint32_t i) {
  Connection& c = table_[i];
  c.state = State::kSynSent;
  c.snd_una = initial_sequence();
  c.snd_nxt = c.snd_max = c.snd_end = c.snd_una + 1;
  c.rcv_nxt = 0;
  c.ack_at_ms = 0;
  c.duplicate_acks = c.backoff = c.ack_segments = 0;
  ++counters_.connects;
  send_syn(i, c);
  arm_rto(i, c, kSynTimeoutMs);
}

void TcpPeer::send_syn(uint32_t, Connection& c) {
  Wire& wire = *shared_.wires[c.wire];
  rte_mbuf* m = wire.alloc();
  if (m == nullptr) return;
  const bool v6 = (c.flags & kV6) != 0;
  const uint32_t header = wire.header_bytes(v6);
  auto* p = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(header + 8)));
  base::store_be32(p + header, 0x02040000u | (shared_.options.mtu - (v6 ? 60u : 40u)));
  base::store_be32(p + header + 4, 0x01030300u | window_shift_);
  const bool server = is_server(c);
  wire.write_headers(m,
                     {v6, c.local, c.remote, c.local_port, c.remote_port, c.snd_una, server ? c.rcv_nxt : 0,
                      static_cast<uint16_t>(std::min<uint32_t>(shared_.options.window, 65'535)),
                      static_cast<uint8_t>(server ? kSyn | kAck : kSyn), 8},
                     0, 0);
  wire.send(m);
}

void TcpPeer::send_bare(Wire& wire, const Wire::Headers& h) {
  rte_mbuf* m = wire.alloc();
  if (m == nullptr) return;
  (void)rte_pktmbuf_append(m, static_cast<uint16_t>(wire.header_bytes(h.v6)));
  wire.write_headers(m, h, 0, 0);
  wire.send(m);
}

bool TcpPeer::send_segment(uint32_t i, Connection& c, uint32_t seq, uint32_t n, uint8_t flags) {
  Wire& wire = *shared_.wires[c.wire];
  rte_mbuf* m = wire.alloc();
  if (m == nullptr) [[unlikely]] {
    arm_rto(i, c, kRtoMs);
    return false;
  }
  const bool v6 = (c.flags & kV6) != 0;
  const uint32_t header = wire.header_bytes(v6);
  const bool refer = n > c.mss && wire.can_refer() && c.tls == kNone;
  const uint32_t here = refer ? 0 : std::min(n, wire.buffer_bytes() - header);
  auto* p = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(header + here)));
  if (n != 0) {
    if (here != 0) copy_stream(c, seq, here, p + header);
    if (here != n) [[unlikely]] {
      if (refer ? !append_references(wire, c, m, seq, n) : !append_chain(wire, c, m, seq + here, n - here)) {
        rte_pktmbuf_free(m);
        arm_rto(i, c, kRtoMs);
        return false;
      }
    }
    flags |= seq + n == c.snd_end ? kPsh : 0;
  }
  wire.write_headers(m, {v6, c.local, c.remote, c.local_port, c.remote_port, seq, c.rcv_nxt, advertised_, flags, 0}, n,
                     n > c.mss ? c.mss : 0);
  wire.send(m);
  const uint32_t end = seq + n + (flags & kFin);
  if (end != seq) {
    if (seq_lt(seq, c.snd_max)) [[unlikely]]
      ++counters_.retransmissions;
    if (seq_lt(c.snd_max, end)) c.snd_max = end;
    if (c.rto_at_ms == 0) arm_rto(i, c, kRtoMs);
  }
  c.flags &= static_cast<uint16_t>(~(kAckNow | kAckLater));
  c.ack_segments = 0;
  c.ack_at_ms = 0;
  return true;
}

// The rest of a segment that the port will cut, in further buffers.
bool TcpPeer::append_chain(Wire& wire, Connection& c, rte_mbuf* head, uint32_t seq, uint32_t n) {
  for (rte_mbuf* last = head; n != 0;) {
    rte_mbuf* m = wire.alloc();
    if (m == nullptr) return false;
    const uint32_t run = std::min(n, wire.buffer_bytes());
    copy_stream(c, seq, run, reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(run))));
    last->next = m;
    last = m;
    ++head->nb_segs;
    head->pkt_len += run;
    seq += run;
    n -= run;
  }
  return true;
}

namespace {
// Pieces of a stream behind the headers of a frame: bodies by reference to the pattern, what is short copied.
struct ReferringChain {
  Wire& wire;
  rte_mbuf *head, *last;
  static constexpr uint32_t kReferFrom = 1024;  // bytes

  void link(rte_mbuf* m) {
    last->next = m;
    last = m;
    ++head->nb_segs;
  }
  bool bytes(const uint8_t* p, uint32_t n) {
    while (n != 0) {
      if (RTE_MBUF_HAS_EXTBUF(last) || rte_pktmbuf_tailroom(last) == 0) {
        rte_mbuf* m = wire.alloc();
        if (m == nullptr) return false;
        link(m);
      }
      const uint32_t run = std::min<uint32_t>(n, rte_pktmbuf_tailroom(last));
      std::memcpy(rte_pktmbuf_mtod_offset(last, uint8_t*, last->data_len), p, run);
      last->data_len = static_cast<uint16_t>(last->data_len + run);
      head->pkt_len += run;
      p += run, n -= run;
    }
    return true;
  }
  bool body(uint32_t rotation, uint64_t offset, uint32_t n) {
    while (n != 0) {
      const uint32_t run = std::min(n, Wire::kMaxReference);
      const uint8_t* at = pattern() + pattern_at(rotation, offset);
      if (run < kReferFrom) {
        if (!bytes(at, run)) return false;
      } else {
        rte_mbuf* m = wire.refer(at, run);
        if (m == nullptr) return false;
        link(m);
        head->pkt_len += run;
      }
      offset += run, n -= run;
    }
    return true;
  }
};

struct Copy {
  uint8_t* out;
  bool bytes(const uint8_t* p, uint32_t n) {
    std::memcpy(out, p, n);
    out += n;
    return true;
  }
  bool body(uint32_t rotation, uint64_t offset, uint32_t n) {
    copy_pattern(out, rotation, offset, n);
    out += n;
    return true;
  }
};
}  // namespace

// The whole payload of a segment that the port will cut, without a copy of what is in bodies.
bool TcpPeer::append_references(Wire& wire, Connection& c, rte_mbuf* head, uint32_t seq, uint32_t n) {
  return walk_messages(c, seq, n, ReferringChain{wire, head, head});
}

Message* TcpPeer::append(Connection& c, base::TimeNs time, uint32_t what, const MessageBytes& bytes) {
  const uint32_t begin = c.tls == kNone ? c.snd_end : plain_end(c);
  Message* m = table_.push_message(c);
  if (m == nullptr) return nullptr;
  *m = {time, what, begin + bytes.total()};
  if (c.tls == kNone) c.snd_end = m->end;
  return m;
}

void TcpPeer::copy_stream(Connection& c, uint32_t seq, uint32_t n, uint8_t* out) {
  if (c.tls == kNone) [[likely]]
    return copy_messages(c, seq, n, out);
  const size_t got = shared_.tls->output(c.tls).peek(seq - c.snd_una, out, n);
  MILLRACE_ASSERT(got == n, "ciphertext that is not acknowledged is kept");
}

void TcpPeer::copy_messages(Connection& c, uint32_t seq, uint32_t n, uint8_t* out) { walk_messages(c, seq, n, Copy{out}); }

// The `n` bytes of the stream from `seq` on, piece by piece: sink.bytes(p, n) and sink.body(rotation, offset, n), which end it by
// false.
template <class Sink>
bool TcpPeer::walk_messages(Connection& c, uint32_t seq, uint32_t n, Sink sink) {
  for (uint32_t k = 0; n != 0; ++k) {
    MILLRACE_ASSERT(k < c.in_flight, "what is sent again is still known");
    const Message& message = table_.message(c, k);
    if (!seq_lt(seq, message.end)) continue;
    const MessageBytes b = is_server(c) ? server_->bytes(message) : client_->bytes(message);
    uint32_t offset = seq - (message.end - b.total());
    for (int piece = 0; piece < 2; ++piece) {
      if (offset < b.piece_bytes[piece]) {
        const uint32_t run = std::min(n, b.piece_bytes[piece] - offset);
        if (!sink.bytes(b.piece[piece] + offset, run)) return false;
        n -= run, seq += run, offset = 0;
        if (n == 0) return true;
      } else {
        offset -= b.piece_bytes[piece];
      }
    }
    if (offset < b.body) {
      const uint32_t run = std::min(n, b.body - offset);
      if (!sink.body(b.rotation, offset, run)) return false;
      n -= run, seq += run, offset = 0;
      if (n == 0) return true;
    } else {
      offset -= b.body;
    }
    const uint32_t run = std::min(n, b.tail_bytes - offset);
    if (run != 0 && !sink.bytes(b.tail + offset, run)) return false;
    n -= run, seq += run;
  }
  return true;
}

void TcpPeer::output(uint32_t i) {
  Connection& c = table_[i];
  if (c.state != State::kOpen) return;
  if (c.tls != kNone) [[unlikely]] {
    if (c.tls == kNoSession) return;
    encrypt(i, c);
  }
  Wire& wire = *shared_.wires[c.wire];
  uint32_t left;
  while (static_cast<int32_t>(left = c.snd_end - c.snd_nxt) > 0) {
    const uint32_t flight = c.snd_nxt - c.snd_una;
    const uint32_t window = std::min({c.snd_wnd, c.cwnd, shared_.options.window});
    const uint32_t room = window > flight ? window - flight : 0;
    // Whole segments where the port cuts them, so that the last one of a message is the only short one.
    const uint32_t most = left <= c.mss || wire.max_payload() <= c.mss ? c.mss : wire.max_payload() - wire.max_payload() % c.mss;
    uint32_t n = std::min(left, most);
    if (n > room && room >= c.mss) n = room - room % c.mss;
    if (n > room) {
      // A short segment only when nothing is on its way (RFC 9293 3.8.6.2.1).
      if (room == 0 || flight != 0) {
        if (c.snd_wnd <= c.cwnd) ++counters_.window_stalls;
        if (flight == 0 && c.rto_at_ms == 0) arm_rto(i, c, kRtoMs);  // persist: on_deadline() probes
        break;
      }
      n = room;
    }
    if (wire.congested()) [[unlikely]] {
      if ((c.flags & kBlocked) == 0) {
        c.flags |= kBlocked;
        blocked_.push_back(i);
      }
      break;
    }
    const bool last = n == left && (c.flags & kFinQueued) != 0 && (c.tls == kNone || plain_end(c) == c.plain_sent);
    if (!send_segment(i, c, c.snd_nxt, n, static_cast<uint8_t>(kAck | (last ? kFin : 0)))) return;
    c.snd_nxt += n + last;
  }
  if (left == 0 && (c.flags & kFinQueued) != 0 && (c.tls == kNone || plain_end(c) == c.plain_sent)) {
    if (send_segment(i, c, c.snd_nxt, 0, kAck | kFin)) ++c.snd_nxt;
  }
}

void TcpPeer::close(uint32_t i) {
  Connection& c = table_[i];
  if (c.state != State::kOpen) return;
  c.flags |= kFinQueued;
  c.recover = shared_.now_ms;  // from now on: since when the peer's FIN is waited for
  table_.deadlines.arm(i, shared_.now_ms + timeout_ms());
  touch(i);
}

void TcpPeer::abort(uint32_t i) {
  Connection& c = table_[i];
  if (c.state >= State::kSynSent && !shared_.wires[c.wire]->congested()) {
    // A SYN that was not answered is reset too: the peer may hold half a connection.
    send_bare(*shared_.wires[c.wire],
              {(c.flags & kV6) != 0, c.local, c.remote, c.local_port, c.remote_port, c.snd_nxt, c.rcv_nxt, 0, kRst | kAck, 0});
  }
  forget(i, c);
}

void TcpPeer::forget(uint32_t i, Connection& c) {
  if (c.tls < kNoSession) {
    if (c.tls == delivering_) close_later_ = c.tls;
    else shared_.tls->close(c.tls);
  }
  c.tls = kNone;
  table_.give_back(c);
  c.rto_at_ms = c.ack_at_ms = 0;
  const bool opened = c.state == State::kOpen;
  if (is_server(c)) {
    table_.remove_server(i);
    if (opened) ++counters_.server_closed;
    return;
  }
  c.state = State::kFree;
  client_->on_forgotten(i, c, opened);
}

void TcpPeer::finish_burst() {
  // finish() may touch again (a slot that opens its next connection): those come later in the same pass.
  for (size_t k = 0; k < touched_.size(); ++k) {
    const uint32_t i = touched_[k];
    table_[i].flags &= static_cast<uint16_t>(~kTouched);
    finish(i);
  }
  touched_.clear();
}

void TcpPeer::finish(uint32_t i) {
  Connection& c = table_[i];
  if (c.state != State::kOpen) return;
  output(i);
  if ((c.flags & kAckNow) != 0) {
    send_ack(i, c);
  } else if ((c.flags & kAckLater) != 0 && c.ack_at_ms == 0) {
    c.ack_at_ms = shared_.now_ms + kDelayedAckMs;
    table_.deadlines.arm(i, c.ack_at_ms);
  }
  const bool finished = (c.flags & (kPeerFin | kFinQueued)) == (kPeerFin | kFinQueued) && c.snd_una == c.snd_end + 1;
  if (finished) {
    if (!is_server(c)) ++counters_.closed;
    forget(i, c);
  }
}

void TcpPeer::unblock() {
  if (blocked_.empty()) return;
  std::swap(blocked_, unblocking_);
  for (const uint32_t i : unblocking_) {
    table_[i].flags &= static_cast<uint16_t>(~kBlocked);
    output(i);
  }
  unblocking_.clear();
}

// --- timers -----------------------------------------------------------------------------------------------------------------

void TcpPeer::arm_rto(uint32_t i, Connection& c, uint32_t base_ms) {
  c.rto_at_ms = shared_.now_ms + std::min(base_ms << c.backoff, kMaxRtoMs);
  table_.deadlines.arm(i, c.rto_at_ms);
}

void TcpPeer::on_deadline(uint32_t i) {
  Connection& c = table_[i];
  const uint32_t now = shared_.now_ms;
  if (c.state == State::kFree) return;
  const bool rto = c.rto_at_ms != 0 && c.rto_at_ms <= now;
  switch (c.state) {
    case State::kFree:
      return;
    case State::kWaiting:
      if (rto) return client_->reopen(i);
      break;
    case State::kSynSent:
    case State::kSynReceived:
      if (!rto) break;
      if (++c.backoff > kMaxBackoff ||
          uint64_t{kSynTimeoutMs} * ((1u << c.backoff) - 1) * base::kMillisecond > shared_.options.timeout_ns) {
        if (!is_server(c)) ++counters_.connect_failed;
        return abort(i);
      }
      ++counters_.syn_retransmissions;
      send_syn(i, c);
      arm_rto(i, c, kSynTimeoutMs);
      break;
    case State::kOpen:
      if (c.ack_at_ms != 0 && c.ack_at_ms <= now) {
        ++counters_.delayed_acks;
        send_ack(i, c);
      }
      if (rto) {
        c.rto_at_ms = 0;
        const uint32_t flight = c.snd_max - c.snd_una;
        if (flight == 0 && (static_cast<int32_t>(c.snd_end - c.snd_nxt) <= 0 || c.snd_wnd != 0)) {
          output(i);
          break;
        }
        if (++c.backoff > kMaxBackoff) {
          ++(is_server(c) ? counters_.server_reset : counters_.timeout);
          return abort(i);
        }
        if (flight == 0 || (c.snd_wnd == 0 && static_cast<int32_t>(c.snd_end - c.snd_una) > 0)) {
          // The window is shut: one byte asks whether it still is (RFC 9293 3.8.6.1).
          ++counters_.window_stalls;
          const uint64_t before = counters_.retransmissions;
          send_segment(i, c, c.snd_una, 1, kAck);
          counters_.retransmissions = before;
          if (seq_lt(c.snd_nxt, c.snd_una + 1)) c.snd_nxt = c.snd_una + 1;
        } else {
          c.ssthresh = std::max(flight / 2, 2u * c.mss);
          c.cwnd = c.mss;
          c.snd_nxt = c.snd_una;
          c.flags &= static_cast<uint16_t>(~kRecovery);
          c.duplicate_acks = 0;
          output(i);
        }
        arm_rto(i, c, kRtoMs);
      }
      if ((c.flags & (kFinQueued | kPeerFin | kRecovery)) == kFinQueued && c.in_flight == 0) {
        // Our FIN is out, or would be; a peer that never sends its own must not hold the slot for ever.
        if (now - c.recover >= timeout_ms()) {
          ++(is_server(c) ? counters_.server_reset : counters_.timeout);
          return abort(i);
        }
        table_.deadlines.arm(i, c.recover + timeout_ms());
      }
      if (c.tls < kNoSession) {
        receive_tls(i, c, {});  // goes on where it was short of memory
        if (c.state != State::kOpen) return;
      }
      if (!is_server(c) && client_->check_timeout(i, c)) return;
      break;
  }
  if (c.rto_at_ms != 0) table_.deadlines.arm(i, c.rto_at_ms);
  if (c.ack_at_ms != 0) table_.deadlines.arm(i, c.ack_at_ms);
}

}  // namespace millrace::load
