#include "perf/load/tcp_peer.h"

#include <algorithm>

#include "lib/base/assert.h"
#include "perf/load/http_client.h"
#include "perf/load/http_server.h"
#include "perf/load/pattern.h"
#include "perf/load/tls_peer.h"

namespace millrace::load {
namespace {

constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10;

}  // namespace

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
    else
      on_stranger(wire, s);
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
    // The peer holds an older connection of this address and port: it is told to forget it (RFC 9293 3.5.2), and our SYN comes again.
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
  // Without the peer's option ours does not count either (RFC 7323 2.2): the window we announce is then smaller than what we take.
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
      if (c.tls != kNone) [[unlikely]] receive_tls(i, c, {at + skip, n});
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
  const uint32_t here = std::min(n, wire.buffer_bytes() - header);
  auto* p = reinterpret_cast<uint8_t*>(rte_pktmbuf_append(m, static_cast<uint16_t>(header + here)));
  if (n != 0) {
    copy_stream(c, seq, here, p + header);
    if (here != n) [[unlikely]] {
      if (!append_chain(wire, c, m, seq + here, n - here)) {
        rte_pktmbuf_free(m);
        arm_rto(i, c, kRtoMs);
        return false;
      }
    }
    flags |= seq + n == c.snd_end ? kPsh : 0;
  }
  wire.write_headers(m, {v6, c.local, c.remote, c.local_port, c.remote_port, seq, c.rcv_nxt, advertised_, flags, 0}, n, n > c.mss ? c.mss : 0);
  wire.send(m);
  const uint32_t end = seq + n + (flags & kFin);
  if (end != seq) {
    if (seq_lt(seq, c.snd_max)) [[unlikely]] ++counters_.retransmissions;
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

void TcpPeer::copy_messages(Connection& c, uint32_t seq, uint32_t n, uint8_t* out) {
  for (uint32_t k = 0; n != 0; ++k) {
    MILLRACE_ASSERT(k < c.in_flight, "what is sent again is still known");
    const Message& message = table_.message(c, k);
    if (!seq_lt(seq, message.end)) continue;
    const MessageBytes b = is_server(c) ? server_->bytes(message) : client_->bytes(message);
    uint32_t offset = seq - (message.end - b.total());
    for (int piece = 0; piece < 2; ++piece) {
      if (offset < b.piece_bytes[piece]) {
        const uint32_t run = std::min(n, b.piece_bytes[piece] - offset);
        std::memcpy(out, b.piece[piece] + offset, run);
        out += run, n -= run, seq += run, offset = 0;
        if (n == 0) return;
      } else {
        offset -= b.piece_bytes[piece];
      }
    }
    if (offset < b.body) {
      const uint32_t run = std::min(n, b.body - offset);
      copy_pattern(out, b.rotation, offset, run);
      out += run, n -= run, seq += run, offset = 0;
      if (n == 0) return;
    } else {
      offset -= b.body;
    }
    const uint32_t run = std::min(n, b.tail_bytes - offset);
    if (run != 0) std::memcpy(out, b.tail + offset, run);
    out += run, n -= run, seq += run;
  }
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
    send_bare(*shared_.wires[c.wire], {(c.flags & kV6) != 0, c.local, c.remote, c.local_port, c.remote_port, c.snd_nxt, c.rcv_nxt, 0,
                                       kRst | kAck, 0});
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
    case State::kFree: return;
    case State::kWaiting:
      if (rto) return client_->reopen(i);
      break;
    case State::kSynSent:
    case State::kSynReceived:
      if (!rto) break;
      if (++c.backoff > kMaxBackoff || uint64_t{kSynTimeoutMs} * ((1u << c.backoff) - 1) * base::kMillisecond > shared_.options.timeout_ns) {
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
