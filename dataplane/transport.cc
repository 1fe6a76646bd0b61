#include "dataplane/transport.h"

#include <utility>

namespace millrace::dataplane {

namespace {
// Decrypted bytes that may wait for their reader before decryption stops and the peer's window closes.
constexpr uint64_t kPlainRxLimit = 64 * 1024;
}  // namespace

Transports::Transports(TcpStack& stack, uint32_t tls_sessions, stats::CounterBlock<stats::TlsCounter>& counters)
    : stack_(stack), channels_(tls_sessions), sessions_(tls_sessions), counters_(counters) {}

bool Transports::start_tls_server(Session& s, tls::ServerContext& context) {
  TlsChannel* channel = take_channel();
  return channel != nullptr && start_tls(s, sessions_.open_server(context), *channel, false);
}

bool Transports::start_tls_client(Session& s, tls::ClientContext& context, std::string_view sni, std::string_view alpn_wire) {
  TlsChannel* channel = take_channel();
  return channel != nullptr && start_tls(s, sessions_.open_client(context, sni, alpn_wire), *channel, true);
}

TlsChannel* Transports::take_channel() {
  TlsChannel* channel = channels_.alloc();
  if (channel == nullptr) count_failure(tls::TlsError::kSessionLimit);
  return channel;
}

bool Transports::start_tls(Session& s, tls::Session* session, TlsChannel& channel, bool client) {
  if (session == nullptr) {
    count_failure(sessions_.last_error());
    channels_.free(&channel);
    return false;
  }
  channel.session = session;
  channel.owner = &s;
  channel.close_after_tx = channel.established_reported = false;
  channel.client = client;
  s.tls = &channel;
  counters_[stats::TlsCounter::kInProgress].add();
  return true;
}

TransportEvents Transports::pull(Session& s, uint32_t events, TimeNs now) {
  TransportEvents result;
  if (events & tcp::kEventPeerFin) s.fin_received = true;
  if (s.tls == nullptr) {
    s.peer_closed = s.fin_received;
    return result;
  }
  TlsChannel& c = *s.tls;
  if (c.session->error() != tls::TlsError::kNone || s.peer_closed) return result;
  io::PacketQueue out;
  const uint64_t waiting = c.plain_rx.bytes();
  const uint64_t room = waiting < kPlainRxLimit ? kPlainRxLimit - waiting : 0;
  const bool handshaking = !c.session->established();
  StageScope stage(*stack_.counters().stages, handshaking ? Stage::kTlsHandshake : Stage::kTlsRecords);
  const tls::Wire wire{tcp::rx_queue(s.connection->tcb), out, stack_.pool(), tcp::send_space(s.connection->tcb), s.fin_received};
  const tls::Progress p = c.session->receive(wire, c.plain_rx, room, handshakes_left_ > 0);
  if (handshaking && p.handshake_stepped && handshakes_left_ > 0) --handshakes_left_;
  send_cipher(s, out);
  tcp::window_update(s.connection->tcb, now, stack_.memory_pressure() == MemoryPressure::kNone);
  stack_.touch(*s.connection);
  counters_[stats::TlsCounter::kBytesIn].add(p.plain_bytes);
  if (p.error != tls::TlsError::kNone) {
    count_failure(p.error);
    if (!c.established_reported) counters_[stats::TlsCounter::kInProgress].sub();
    c.established_reported = true;
    result.failed = true;
    result.error = p.error;
    return result;
  }
  if (p.handshake_done) {
    c.established_reported = true;
    result.handshake_done = true;
    counters_[stats::TlsCounter::kInProgress].sub();
    counters_[c.client ? stats::TlsCounter::kClientHandshakes : stats::TlsCounter::kHandshakes].add();
    const tls::Negotiated n = c.session->negotiated();
    if (n.resumed) counters_[stats::TlsCounter::kResumptions].add();
    counters_[n.version == tls::Version::kTls13 ? stats::TlsCounter::kTls13 : stats::TlsCounter::kTls12].add();
  }
  if (p.peer_closed) s.peer_closed = true;
  if (p.handshake_pending) counters_[stats::TlsCounter::kDeferred].add();
  const bool again = p.handshake_pending || p.pool_empty || (p.more && c.plain_rx.bytes() < kPlainRxLimit);
  if (again && !c.deferred.linked()) deferred_.push_back(c);
  if (!c.plain_tx.empty()) pump_tx(s, now);
  return result;
}

bool Transports::after_read(Session& s, TimeNs now) {
  if (s.tls == nullptr) {
    tcp::window_update(s.connection->tcb, now, stack_.memory_pressure() == MemoryPressure::kNone);
    stack_.touch(*s.connection);
    return false;
  }
  TlsChannel& c = *s.tls;
  const bool more = !tcp::rx_queue(s.connection->tcb).empty() || c.session->has_buffered_input();
  if (!more || c.plain_rx.bytes() >= kPlainRxLimit / 2) return false;
  // Decryption goes on in the worker's next look at deferred sessions: one connection cannot hold the loop.
  if (!c.deferred.linked()) deferred_.push_back(c);
  return false;
}

void Transports::write(Session& s, io::PacketPtr packet, TimeNs now) {
  MILLRACE_ASSERT(!s.shut_down, "write before shutdown");
  if (s.tls == nullptr) {
    tcp::send(s.connection->tcb, std::move(packet));
    stack_.touch(*s.connection);
    return;
  }
  s.tls->plain_tx.push(std::move(packet));
  cork(*s.tls);
}

size_t Transports::write_copy(Session& s, base::ByteSpan bytes, TimeNs now) {
  MILLRACE_ASSERT(!s.shut_down, "write before shutdown");
  if (s.tls == nullptr) {
    const size_t n = tcp::send_copy_whole(s.connection->tcb, bytes, stack_.pool());
    stack_.touch(*s.connection);
    return n;
  }
  const size_t n = s.tls->plain_tx.append_copy(bytes, stack_.pool());
  cork(*s.tls);
  return n;
}

void Transports::flush_records(TimeNs now) {
  while (TlsChannel* c = corked_.pop_front()) pump_tx(*c->owner, now);
}

void Transports::on_send_space(Session& s, TimeNs now) {
  if (s.tls != nullptr) pump_tx(s, now);
}

// Encrypts what fits; once everything is out and the session is shutting down, close_notify and FIN follow.
void Transports::pump_tx(Session& s, TimeNs now) {
  TlsChannel& c = *s.tls;
  if (c.session->error() != tls::TlsError::kNone) return;
  StageScope stage(*stack_.counters().stages, Stage::kTlsRecords);
  io::PacketQueue out;
  const tls::Wire wire{tcp::rx_queue(s.connection->tcb), out, stack_.pool(), tcp::send_space(s.connection->tcb), s.fin_received};
  if (!c.plain_tx.empty() && c.session->established()) {
    const tls::Progress p = c.session->send(wire, c.plain_tx, UINT64_MAX, now);
    counters_[stats::TlsCounter::kBytesOut].add(p.plain_bytes);
    if (p.pool_empty && !c.deferred.linked()) deferred_.push_back(c);
  }
  send_cipher(s, out);
  if (c.close_after_tx && (c.plain_tx.empty() || !c.session->established())) {
    io::PacketQueue last;
    const tls::Wire end{tcp::rx_queue(s.connection->tcb), last, stack_.pool(), UINT64_MAX, s.fin_received};
    c.session->close_notify(end);
    send_cipher(s, last);
    c.close_after_tx = false;
    tcp::close(s.connection->tcb, now);
  }
  stack_.touch(*s.connection);
}

void Transports::send_cipher(Session& s, io::PacketQueue& out) {
  while (!out.empty()) tcp::send(s.connection->tcb, out.pop());
}

void Transports::shutdown(Session& s, TimeNs now) {
  if (s.shut_down) return;
  s.shut_down = true;
  if (s.tls == nullptr) {
    tcp::close(s.connection->tcb, now);
    stack_.touch(*s.connection);
    return;
  }
  s.tls->close_after_tx = true;
  if (s.tls->session->error() != tls::TlsError::kNone) {  // nothing can be encrypted any more: only the FIN is left
    tcp::close(s.connection->tcb, now);
    stack_.touch(*s.connection);
    return;
  }
  pump_tx(s, now);
}

void Transports::detach(Session& s, TimeNs now) {
  if (s.connection == nullptr) return;
  if (s.tls != nullptr) {
    TlsChannel& c = *s.tls;
    if (c.session->error() == tls::TlsError::kNone && c.session->established()) {
      io::PacketQueue out;
      const tls::Wire wire{tcp::rx_queue(s.connection->tcb), out, stack_.pool(), UINT64_MAX, s.fin_received};
      if (!c.plain_tx.empty()) c.session->send(wire, c.plain_tx, UINT64_MAX, now);
      c.session->close_notify(wire);
      if (!s.shut_down || c.close_after_tx) send_cipher(s, out);
    }
    free_tls(s);
  }
  Connection* connection = std::exchange(s.connection, nullptr);
  connection->owner = nullptr;
  stack_.detach(*connection, now);
}

void Transports::abort(Session& s, TimeNs now) {
  if (s.connection == nullptr) return;
  if (s.tls != nullptr) free_tls(s);
  Connection* connection = std::exchange(s.connection, nullptr);
  connection->owner = nullptr;
  stack_.abort(*connection, now);
}

Session* Transports::pop_deferred() {
  TlsChannel* c = deferred_.pop_front();
  return c == nullptr ? nullptr : c->owner;
}

void Transports::free_tls(Session& s) {
  TlsChannel* c = std::exchange(s.tls, nullptr);
  c->deferred.unlink();
  c->corked.unlink();
  if (!c->established_reported) counters_[stats::TlsCounter::kInProgress].sub();
  sessions_.close(std::exchange(c->session, nullptr));
  c->plain_rx.clear();
  c->plain_tx.clear();
  c->owner = nullptr;
  channels_.free(c);
}

void Transports::count_failure(tls::TlsError e) {
  using stats::TlsCounter;
  using tls::TlsError;
  counters_[TlsCounter::kConnectionError].add();
  switch (e) {
    case TlsError::kNoMemory:
    case TlsError::kSessionLimit:
    case TlsError::kInternal:
      counters_[TlsCounter::kFailInternal].add();
      break;
    case TlsError::kNoSharedCipher:
    case TlsError::kNoSharedGroup:
    case TlsError::kNoSharedSignature:
      counters_[TlsCounter::kFailCipher].add();
      break;
    case TlsError::kUnsupportedVersion:
      counters_[TlsCounter::kFailVersion].add();
      break;
    case TlsError::kPeerCertificateMissing:
      counters_[TlsCounter::kFailNoCertificate].add();
      break;
    case TlsError::kPeerCertificateUntrusted:
    case TlsError::kPeerCertificateExpired:
    case TlsError::kPeerCertificateName:
    case TlsError::kPeerCertificateBad:
    case TlsError::kPeerCertificateRevoked:
    case TlsError::kPeerCertificateHash:
      counters_[TlsCounter::kFailCertificate].add();
      break;
    case TlsError::kHandshakeEof:
    case TlsError::kEofWithoutCloseNotify:
      counters_[TlsCounter::kFailClosed].add();
      break;
    default:
      counters_[e >= TlsError::kAlertUnexpectedMessage && e <= TlsError::kAlertOther ? TlsCounter::kFailAlert
                                                                                     : TlsCounter::kFailProtocol]
          .add();
  }
}

}  // namespace millrace::dataplane
