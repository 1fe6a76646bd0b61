#include "perf/load/tcp_peer.h"

#include <algorithm>

#include "lib/base/assert.h"
#include "perf/load/http_client.h"
#include "perf/load/http_server.h"
#include "perf/load/tcp_flags.h"
#include "perf/load/tls_peer.h"

namespace millrace::load {

TcpPeer::TcpPeer(Shared& shared) : shared_(shared), counters_(shared.counters), table_(shared.table) {
  const uint32_t window = shared.options.window;
  uint8_t shift = 0;
  while (window >> shift > 65'535) ++shift;
  window_shift_ = shift;
  advertised_ = static_cast<uint16_t>(window >> shift);
  if (shared.options.tls_clients || shared.options.tls_servers) plain_ = std::make_unique<uint8_t[]>(kPlainChunk);
  touched_.reserve(1 << 16);
  blocked_.reserve(1 << 16);
  unblocking_.reserve(1 << 16);
}

// --- receiving --------------------------------------------------------------------------------------------------------------

void TcpPeer::input_burst(uint8_t wire, std::span<Segment> burst) {
  ConnectionTable::Lookup lookup[Wire::kBurst];
  for (size_t i = 0; i < burst.size(); ++i) table_.prepare(burst[i], lookup[i]);
  for (size_t i = 0; i < burst.size(); ++i) table_.fetch(burst[i], lookup[i]);
  for (size_t i = 0; i < burst.size(); ++i) {
    Segment& s = burst[i];
    const uint32_t at = table_.find(s, lookup[i]);
    if (at != kNone) [[likely]]
      input(at, wire, s);
    else on_stranger(wire, s);
    rte_pktmbuf_free(s.packet);
  }
  finish_burst();
}

void TcpPeer::input(uint32_t i, uint8_t wire, Segment& s) {
  Connection& c = table_[i];
  c.wire = wire;
  if (c.state == State::kOpen) [[likely]]
    return input_open(i, c, s);
  if (c.state == State::kSynSent) return input_syn_sent(i, c, s);
  // kSynReceived
  if ((s.flags & kRst) != 0) {
    if (s.seq == c.rcv_nxt) forget(i, c);
    return;
  }
  if ((s.flags & kSyn) != 0) {
    ++counters_.syn_retransmissions;  // ours was lost, or theirs came twice
    return send_syn(i, c);
  }
  if ((s.flags & kAck) == 0 || s.ack != c.snd_nxt) return;
  c.state = State::kOpen;
  c.snd_una = s.ack;
  c.snd_wnd = uint32_t{s.window} << c.snd_shift;
  c.rto_at_ms = 0;
  c.backoff = 0;
  server_->on_open(i, c);
  if (shared_.options.tls_servers && !open_session(i, c)) return;
  input_open(i, c, s);
}

void TcpPeer::input_syn_sent(uint32_t i, Connection& c, const Segment& s) {
  if ((s.flags & kAck) != 0 && s.ack != c.snd_nxt) {
    // The peer holds an older connection of this address and port: it is told to forget it (RFC 9293 3.5.2), and our SYN comes
    // again.
    ++counters_.stale_segments;
    if ((s.flags & kRst) == 0)
      send_bare(*shared_.wires[c.wire], {s.v6, s.dst, s.src, s.dst_port, s.src_port, s.ack, 0, 0, kRst, 0});
    return;
  }
  if ((s.flags & kRst) != 0) {
    if ((s.flags & kAck) == 0) return;
    ++counters_.connect_failed;
    return forget(i, c);
  }
  if ((s.flags & (kSyn | kAck)) != (kSyn | kAck)) return;
  read_syn_options(c, s);
  c.state = State::kOpen;
  c.snd_una = s.ack;
  c.snd_wnd = s.window;  // never scaled in a SYN segment (RFC 7323 2.2)
  c.rcv_nxt = s.seq + 1;
  c.rto_at_ms = 0;
  c.backoff = 0;
  c.flags |= kAckNow;
  ++counters_.connected;
  touch(i);
  client_->on_connected(i, c);
  if (c.state == State::kOpen && c.tls == kNoSession) open_session(i, c);
}

void TcpPeer::read_syn_options(Connection& c, const Segment& s) {
  uint32_t mss = 536;  // RFC 9293 3.7.1
  uint8_t shift = 0;
  const uint8_t* p = s.tcp + 20;
  const uint8_t* end = s.tcp + s.header;
  while (p < end && *p != 0) {
    if (*p == 1) {
      ++p;
      continue;
    }
    if (end - p < 2 || p[1] < 2 || p + p[1] > end) break;
    if (p[0] == 2 && p[1] == 4) mss = base::load_be16(p + 2);
    if (p[0] == 3 && p[1] == 3) shift = std::min<uint8_t>(p[2], 14);
    p += p[1];
  }
  const uint32_t ours = shared_.options.mtu - (s.v6 ? 60u : 40u);
  c.mss = static_cast<uint16_t>(std::clamp(mss, 64u, ours));
  c.snd_shift = shift;
  // Without the peer's option ours does not count either (RFC 7323 2.2): the window we announce is then smaller than what we
  // take.
  c.cwnd = kInitialWindow * c.mss;
  c.ssthresh = UINT32_MAX;
}

void TcpPeer::on_stranger(uint8_t wire, const Segment& s) {
  if ((s.flags & (kSyn | kAck | kRst)) == kSyn && server_ != nullptr && server_->listens(s.v6, s.dst, s.dst_port)) {
    if (accept(wire, s)) return;
    ++counters_.unexpected;
  } else if (!table_.is_client_address(s.v6, s.dst) && (server_ == nullptr || !server_->has_address(s.v6, s.dst))) {
    ++counters_.other_frames;
    return;
  } else {
    ++counters_.stale_segments;
  }
  if ((s.flags & kRst) != 0) return;
  // RFC 9293 3.10.7.1
  const bool with_ack = (s.flags & kAck) != 0;
  const uint32_t ack = s.seq + s.length + ((s.flags & kSyn) != 0) + ((s.flags & kFin) != 0);
  send_bare(*shared_.wires[wire], {s.v6, s.dst, s.src, s.dst_port, s.src_port, with_ack ? s.ack : 0, with_ack ? 0 : ack, 0,
                                   static_cast<uint8_t>(with_ack ? kRst : kRst | kAck), 0});
}

bool TcpPeer::accept(uint8_t wire, const Segment& s) {
  if (shared_.stopping) return false;
  const uint32_t i = table_.add_server(s);
  if (i == kNone) return false;
  Connection& c = table_[i];
  c.wire = wire;
  c.state = State::kSynReceived;
  read_syn_options(c, s);
  c.rcv_nxt = s.seq + 1;
  c.snd_una = initial_sequence();
  c.snd_nxt = c.snd_max = c.snd_end = c.snd_una + 1;
  c.snd_wnd = s.window;
  send_syn(i, c);
  arm_rto(i, c, kSynTimeoutMs);
  return true;
}

void TcpPeer::input_open(uint32_t i, Connection& c, Segment& s) {
  const uint32_t old = c.rcv_nxt - s.seq;  // bytes in front of what we wait for
  if ((s.flags & (kSyn | kRst | kAck)) != kAck) [[unlikely]] {
    if ((s.flags & kRst) != 0) {
      if (s.seq - c.rcv_nxt >= shared_.options.window && old != 0) return;  // not in the window (RFC 9293 3.10.7.4)
      if ((s.flags & kAck) != 0) acknowledge(i, c, s, false);               // so that what the peer has counts as answered
      if (is_server(c)) server_->on_reset(i, c);
      else client_->on_reset(i, c);
      return forget(i, c);
    }
    if ((s.flags & kSyn) != 0) {
      // A SYN-ACK again: ours was lost. Any other is answered by an acknowledgement (RFC 5961 4).
      if ((s.flags & kAck) != 0) ++counters_.duplicates;
      c.flags |= kAckNow;
      touch(i);
    }
    return;
  }
  touch(i);
  const uint32_t fin = (s.flags & kFin) != 0;
  if (old != 0) [[unlikely]] {
    if (static_cast<int32_t>(old) < 0) {
      if (s.length + fin != 0) {
        ++counters_.rx_out_of_order;
        c.flags |= kAckNow;
      }
      return acknowledge(i, c, s, false);
    }
    if (old >= s.length + fin) {
      if (s.length > 1 || fin != 0) ++counters_.duplicates;  // a byte or none is a keep-alive probe (RFC 9293 3.8.4)
      c.flags |= kAckNow;
      return acknowledge(i, c, s, false);
    }
  }
  acknowledge(i, c, s, s.length + fin == 0);
  if (s.length > old) {
    if ((c.flags & kPeerFin) != 0) {
      ++counters_.unexpected;
      return abort(i);
    }
    c.rcv_nxt += s.length - old;
    // Every second full segment (RFC 5681 4.2); one that nobody cut counts for as many as it is.
    c.ack_segments = static_cast<uint8_t>(std::min<uint32_t>(c.ack_segments + 1 + (s.length - 1) / c.mss, 255));
    c.flags |= c.ack_segments >= 2 ? kAckNow : kAckLater;
    deliver(i, c, s, old);
    if (c.state != State::kOpen) return;
  }
  if (fin != 0 && (c.flags & kPeerFin) == 0) {
    ++c.rcv_nxt;
    c.flags |= kPeerFin | kAckNow;
    if (is_server(c)) server_->on_peer_fin(i, c);
    else client_->on_peer_fin(i, c);
  }
}

void TcpPeer::acknowledge(uint32_t i, Connection& c, const Segment& s, bool may_be_duplicate) {
  const uint32_t acked = s.ack - c.snd_una;
  const uint32_t flight = c.snd_max - c.snd_una;
  const uint32_t window = uint32_t{s.window} << c.snd_shift;
  if (acked == 0) {
    if (flight != 0 && may_be_duplicate && window == c.snd_wnd) [[unlikely]] {
      if (++c.duplicate_acks == 3 && (c.flags & kRecovery) == 0) {  // RFC 5681 3.2
        c.ssthresh = std::max(flight / 2, 2u * c.mss);
        c.cwnd = c.ssthresh;
        c.recover = c.snd_max;
        c.flags |= kRecovery;
        const uint32_t left = c.snd_end - c.snd_una;
        if (static_cast<int32_t>(left) > 0) send_segment(i, c, c.snd_una, std::min<uint32_t>(left, c.mss), kAck);
        else send_segment(i, c, c.snd_una, 0, kAck | kFin);
        arm_rto(i, c, kRtoMs);
      }
    }
    c.snd_wnd = window;
    return;
  }
  if (acked > flight) return;  // of the past, or of the future
  if (c.tls < kNoSession) {
    io::PacketQueue& output = shared_.tls->output(c.tls);
    output.consume(std::min<uint64_t>(acked, output.bytes()));  // a FIN is not in it
  }
  c.snd_una = s.ack;
  c.snd_wnd = window;
  if (seq_lt(c.snd_nxt, c.snd_una)) c.snd_nxt = c.snd_una;
  c.duplicate_acks = 0;
  c.backoff = 0;
  if ((c.flags & kRecovery) != 0) [[unlikely]] {
    if (seq_lt(c.snd_una, c.recover)) {  // a partial acknowledgement: the next hole (RFC 6582 3.2)
      const uint32_t left = c.snd_end - c.snd_una;
      if (static_cast<int32_t>(left) > 0) send_segment(i, c, c.snd_una, std::min<uint32_t>(left, c.mss), kAck);
    } else {
      c.flags &= static_cast<uint16_t>(~kRecovery);
    }
  } else if (c.cwnd < (1u << 30)) {
    c.cwnd += c.cwnd < c.ssthresh ? acked : std::max<uint32_t>(1, c.mss * std::min<uint32_t>(acked, c.mss) / c.cwnd);
  }
  if (c.snd_una == c.snd_max) c.rto_at_ms = 0;
  else c.rto_at_ms = shared_.now_ms + kRtoMs;
  if (is_server(c))
    while (c.in_flight != 0 && was_sent(c, table_.message(c, 0))) table_.pop_message(c);
}

void TcpPeer::deliver(uint32_t i, Connection& c, const Segment& s, uint32_t skip) {
  const uint8_t* at = s.payload;
  uint32_t run = s.first, left = s.length;
  rte_mbuf* m = s.packet;
  while (true) {
    if (skip < run) {
      const uint32_t n = run - skip;
      if (c.tls != kNone) [[unlikely]]
        receive_tls(i, c, {at + skip, n});
      else take_bytes(i, c, at + skip, n);
      skip = 0;
      if (c.state != State::kOpen) return;
    } else {
      skip -= run;
    }
    left -= run;
    if (left == 0) return;
    m = m->next;
    if (m == nullptr) return;
    at = rte_pktmbuf_mtod(m, const uint8_t*);
    run = std::min<uint32_t>(left, m->data_len);
  }
}

void TcpPeer::take_bytes(uint32_t i, Connection& c, const uint8_t* p, uint32_t n) {
  if (is_server(c)) server_->on_bytes(i, c, p, n);
  else client_->on_bytes(i, c, p, n);
}

// --- TLS ----------------------------------------------------------------------------------------------------------------------

bool TcpPeer::open_session(uint32_t i, Connection& c) {
  c.plain_sent = 0;
  c.tls = is_server(c) ? shared_.tls->open_server() : shared_.tls->open_client(client_->target_of(i, c));
  if (c.tls != TlsPeer::kNoHandle) return true;
  c.tls = kNoSession;
  ++counters_.tls;
  abort(i);
  return false;
}

void TcpPeer::receive_tls(uint32_t i, Connection& c, base::ByteSpan payload) {
  if (c.tls == kNoSession) return;
  const uint32_t handle = c.tls;
  delivering_ = handle;
  const TlsStep step = shared_.tls->receive(handle, payload, [&](base::ByteSpan plain) {
    if (c.state == State::kOpen && c.tls == handle) take_bytes(i, c, plain.data(), static_cast<uint32_t>(plain.size()));
  });
  delivering_ = kNone;
  if (close_later_ != kNone) {  // the application was done with it in the middle
    shared_.tls->close(close_later_);
    close_later_ = kNone;
    return;
  }
  if (step.handshake_done) {
    if (is_server(c)) ++(step.resumed ? counters_.server_handshakes_resumed : counters_.server_handshakes_full);
    else ++(step.resumed ? counters_.handshakes_resumed : counters_.handshakes_full);
  }
  touch(i);
  if (step.error != tls::TlsError::kNone) {
    ++counters_.tls;
    encrypt(i, c);  // the alert, if there is one
    output(i);
    return abort(i);
  }
  if (step.blocked) table_.deadlines.arm(i, shared_.now_ms + 1);
}

void TcpPeer::encrypt(uint32_t, Connection& c) {
  TlsPeer& tls = *shared_.tls;
  if (seq_lt(c.snd_end, c.snd_max)) return;  // our FIN was sent: nothing comes behind it
  if (tls.established(c.tls)) {
    while (true) {
      const uint32_t left = plain_end(c) - c.plain_sent;
      if (left == 0) {
        if ((c.flags & kFinQueued) != 0) tls.close_notify(c.tls);
        break;
      }
      const uint32_t n = std::min(left, kPlainChunk);
      copy_messages(c, c.plain_sent, n, plain_.get());
      const auto took = static_cast<uint32_t>(tls.send(c.tls, {plain_.get(), n}, shared_.now));
      c.plain_sent += took;
      if (is_server(c))
        while (c.in_flight != 0 && was_sent(c, table_.message(c, 0))) table_.pop_message(c);
      if (took < n) break;
    }
  }
  c.snd_end = c.snd_una + static_cast<uint32_t>(tls.output(c.tls).bytes());
}

}  // namespace millrace::load
