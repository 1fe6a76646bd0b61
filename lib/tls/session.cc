#include "lib/tls/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/assert.h"
#include "lib/tls/context_impl.h"
#include "lib/tls/memory.h"
#include "lib/tls/openssl_ptr.h"
#include "lib/tls/peer_facts.h"

namespace millrace::tls {
namespace {

constexpr uint32_t kRecordHeaderBytes = 5;
constexpr uint32_t kMaxCiphertextBytes =
    16384 + 2048;  // RFC 5246 6.2.3; TLS 1.3 allows 256 over 2^14. OpenSSL refuses what is over
// What OpenSSL allocates for one record in either direction (16.4 KB and its slack).
constexpr size_t kRecordBufferBytes = 17 * 1024;

// Bytes of the record at the front, header included, when all of it is there; 0 when it is not. Bytes that are no record at all
// are given to OpenSSL as they are, for it to name the error.
uint32_t front_record(const io::PacketQueue& in) {
  if (in.bytes() < kRecordHeaderBytes) {
    // Even so little can be wrong: a first byte that no record has (20 to 24).
    const base::ByteSpan f = in.front();
    return !f.empty() && (f[0] < 20 || f[0] > 24) && in.bytes() > 0 ? static_cast<uint32_t>(in.bytes()) : 0;
  }
  uint8_t h[kRecordHeaderBytes];
  in.peek(0, h, sizeof h);
  const uint32_t length = uint32_t{h[3]} << 8 | h[4];
  const bool record = h[0] >= 20 && h[0] <= 24 && h[1] == 3 && length <= kMaxCiphertextBytes;
  if (!record) return static_cast<uint32_t>(std::min<uint64_t>(in.bytes(), kMaxCiphertextBytes));
  return in.bytes() >= kRecordHeaderBytes + length ? kRecordHeaderBytes + length : 0;
}

bool memory_for_record() {
  const Arena* a = Arena::of_this_thread();
  return a == nullptr || a->has_room(kRecordBufferBytes);
}
bool memory_for_handshake() {
  const Arena* a = Arena::of_this_thread();
  return a == nullptr || a->available() >= kHandshakeHeadroomBytes;
}

}  // namespace

// One call's view of the world. Lives on the stack; the BIO finds it through the session.
struct Session::Call {
  Call(Session& s, const Wire& w) : session(s), wire(w) {
    s.call_ = this;
    ERR_clear_error();
  }
  ~Call() { session.call_ = nullptr; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Tells the caller why OpenSSL could not write.
  void report_block(Progress& p) const {
    p.output_blocked = p.output_blocked || limit_hit;
    p.pool_empty = p.pool_empty || pool_empty;
  }

  Session& session;
  const Wire& wire;
  uint64_t written = 0;
  bool limit_hit = false, pool_empty = false;
};

// OpenSSL's end of the wire.
struct SessionBio {
  static int read(BIO* bio, char* out, int length) {
    auto* s = static_cast<Session*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (s->call_ != nullptr && length > 0) {
      io::PacketQueue& in = s->call_->wire.cipher_in;
      if (s->record_left_ == 0) s->record_left_ = front_record(in);
      if (s->record_left_ != 0) {
        const uint32_t n = std::min(s->record_left_, static_cast<uint32_t>(length));
        in.peek(0, reinterpret_cast<uint8_t*>(out), n);
        in.consume(n);
        s->record_left_ -= n;
        return static_cast<int>(n);
      }
    }
    BIO_set_retry_read(bio);
    return -1;
  }

  static int write(BIO* bio, const char* data, int length) {
    auto* s = static_cast<Session*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (s->call_ != nullptr && length > 0) {
      Session::Call& call = *s->call_;
      io::PacketQueue& out = call.wire.cipher_out;
      const uint64_t limit = std::min(call.wire.cipher_limit, UINT64_MAX - kControlReserveBytes) + kControlReserveBytes;
      const uint64_t room = limit > out.bytes() ? limit - out.bytes() : 0;
      if (room == 0) {
        call.limit_hit = true;
      } else {
        const size_t want = static_cast<size_t>(std::min<uint64_t>(room, static_cast<uint64_t>(length)));
        const size_t n = out.append_copy(base::ByteSpan(reinterpret_cast<const uint8_t*>(data), want), call.wire.pool);
        call.written += n;
        if (n != 0) return static_cast<int>(n);
        call.pool_empty = true;
      }
    }
    BIO_set_retry_write(bio);
    return -1;
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  // Made once by an ordinary thread (the first SessionPool), never freed.
  static const BIO_METHOD* method() {
    static BIO_METHOD* m = [] {
      BIO_METHOD* fresh = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "packet queue");
      MILLRACE_ASSERT(fresh != nullptr, "start-up has memory for a BIO method");
      BIO_meth_set_read(fresh, &read);
      BIO_meth_set_write(fresh, &write);
      BIO_meth_set_ctrl(fresh, &control);
      return fresh;
    }();
    return m;
  }
};

// --- errors -----------------------------------------------------------------------------------------------------------------

namespace {

TlsError from_alert(int description) {
  switch (description) {
    case SSL_AD_UNEXPECTED_MESSAGE:
      return TlsError::kAlertUnexpectedMessage;
    case SSL_AD_BAD_RECORD_MAC:
      return TlsError::kAlertBadRecordMac;
    case SSL_AD_RECORD_OVERFLOW:
      return TlsError::kAlertRecordOverflow;
    case SSL_AD_HANDSHAKE_FAILURE:
      return TlsError::kAlertHandshakeFailure;
    case SSL_AD_BAD_CERTIFICATE:
      return TlsError::kAlertBadCertificate;
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
      return TlsError::kAlertUnsupportedCertificate;
    case SSL_AD_CERTIFICATE_REVOKED:
      return TlsError::kAlertCertificateRevoked;
    case SSL_AD_CERTIFICATE_EXPIRED:
      return TlsError::kAlertCertificateExpired;
    case SSL_AD_CERTIFICATE_UNKNOWN:
      return TlsError::kAlertCertificateUnknown;
    case SSL_AD_ILLEGAL_PARAMETER:
      return TlsError::kAlertIllegalParameter;
    case SSL_AD_UNKNOWN_CA:
      return TlsError::kAlertUnknownCa;
    case SSL_AD_ACCESS_DENIED:
      return TlsError::kAlertAccessDenied;
    case SSL_AD_DECODE_ERROR:
      return TlsError::kAlertDecodeError;
    case SSL_AD_DECRYPT_ERROR:
      return TlsError::kAlertDecryptError;
    case SSL_AD_PROTOCOL_VERSION:
      return TlsError::kAlertProtocolVersion;
    case SSL_AD_INSUFFICIENT_SECURITY:
      return TlsError::kAlertInsufficientSecurity;
    case SSL_AD_INTERNAL_ERROR:
      return TlsError::kAlertInternalError;
    case SSL_AD_USER_CANCELLED:
      return TlsError::kAlertUserCanceled;
    case SSL_AD_NO_RENEGOTIATION:
      return TlsError::kAlertNoRenegotiation;
    case SSL_AD_MISSING_EXTENSION:
      return TlsError::kAlertMissingExtension;
    case SSL_AD_UNSUPPORTED_EXTENSION:
      return TlsError::kAlertUnsupportedExtension;
    case SSL_AD_UNRECOGNIZED_NAME:
      return TlsError::kAlertUnrecognizedName;
    case SSL_AD_CERTIFICATE_REQUIRED:
      return TlsError::kAlertCertificateRequired;
    case SSL_AD_NO_APPLICATION_PROTOCOL:
      return TlsError::kAlertNoApplicationProtocol;
    default:
      return TlsError::kAlertOther;
  }
}

// kNone: this reason says nothing by itself.
TlsError from_reason(int reason) {
  switch (reason) {
    case SSL_R_NO_SHARED_CIPHER:
      return TlsError::kNoSharedCipher;
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SUITABLE_GROUPS:
    case SSL_R_UNSUPPORTED_ELLIPTIC_CURVE:
    case SSL_R_WRONG_CURVE:
      return TlsError::kNoSharedGroup;
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_WRONG_SIGNATURE_TYPE:
    case SSL_R_MISSING_SIGALGS_EXTENSION:
      return TlsError::kNoSharedSignature;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_UNSUPPORTED_SSL_VERSION:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_VERSION_TOO_HIGH:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_INAPPROPRIATE_FALLBACK:
      return TlsError::kUnsupportedVersion;
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_SSL_FILETYPE:
      return TlsError::kNotTls;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
      return TlsError::kHttpRequest;
    case SSL_R_NO_CERTIFICATE_SET:
    case SSL_R_NO_CERTIFICATE_ASSIGNED:
      return TlsError::kNoCertificate;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return TlsError::kPeerCertificateMissing;
    case SSL_R_BAD_SIGNATURE:
    case SSL_R_DIGEST_CHECK_FAILED:
    case SSL_R_BINDER_DOES_NOT_VERIFY:
    case SSL_R_BAD_DIGEST_LENGTH:
      return TlsError::kBadSignature;
    case SSL_R_LENGTH_MISMATCH:
    case SSL_R_LENGTH_TOO_SHORT:
    case SSL_R_LENGTH_TOO_LONG:
    case SSL_R_BAD_EXTENSION:
    case SSL_R_BAD_LENGTH:
    case SSL_R_BAD_PACKET:
    case SSL_R_EXCESSIVE_MESSAGE_SIZE:
    case SSL_R_NO_CIPHERS_SPECIFIED:
    case SSL_R_ERROR_IN_RECEIVED_CIPHER_LIST:
    case SSL_R_CERT_LENGTH_MISMATCH:
      return TlsError::kDecodeError;
    case SSL_R_BAD_KEY_SHARE:
    case SSL_R_BAD_PSK_IDENTITY:
    case SSL_R_BAD_ECPOINT:
    case SSL_R_BAD_DH_VALUE:
    case SSL_R_NO_COMPRESSION_SPECIFIED:
    case SSL_R_BAD_LEGACY_VERSION:
    case SSL_R_INVALID_ALERT:
    case SSL_R_UNSOLICITED_EXTENSION:
      return TlsError::kIllegalParameter;
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_UNEXPECTED_RECORD:
    case SSL_R_CCS_RECEIVED_EARLY:
    case SSL_R_NOT_ON_RECORD_BOUNDARY:
    case SSL_R_MIXED_HANDSHAKE_AND_NON_HANDSHAKE_DATA:
    case SSL_R_APP_DATA_IN_HANDSHAKE:
      return TlsError::kUnexpectedMessage;
    case SSL_R_NO_RENEGOTIATION:
      return TlsError::kRenegotiation;
    case SSL_R_DECRYPTION_FAILED:
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
      return TlsError::kBadRecordMac;
    case SSL_R_DATA_LENGTH_TOO_LONG:
    case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
      return TlsError::kRecordTooLong;
    case SSL_R_BAD_RECORD_TYPE:
    case SSL_R_RECORD_TOO_SMALL:
    case SSL_R_RECORD_LENGTH_MISMATCH:
    case SSL_R_TOO_MANY_WARN_ALERTS:
      return TlsError::kBadRecord;
    default:
      return TlsError::kNone;
  }
}

}  // namespace

TlsError Session::error_from_openssl() const {
  TlsError found = TlsError::kNone;
  bool generic_ssl = false;
  for (unsigned long e; (e = ERR_get_error()) != 0;) {
    const int reason = ERR_GET_REASON(e);
    if (reason == ERR_R_MALLOC_FAILURE) return ERR_clear_error(), TlsError::kNoMemory;
    if (found != TlsError::kNone || ERR_GET_LIB(e) != ERR_LIB_SSL) continue;
    generic_ssl = true;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
      found = verify_error_ != TlsError::kNone ? verify_error_ : TlsError::kPeerCertificateUntrusted;
    else found = from_reason(reason);
  }
  // An alert of the peer says more than what we made of it.
  if (alert_received_ != 0) return from_alert(alert_received_);
  if (found != TlsError::kNone) return found;
  // OpenSSL 3.0 has several hundred reasons; the alert it sent sorts the rest.
  switch (alert_sent_) {
    case SSL_AD_UNEXPECTED_MESSAGE:
      return TlsError::kUnexpectedMessage;
    case SSL_AD_BAD_RECORD_MAC:
      return TlsError::kBadRecordMac;
    case SSL_AD_RECORD_OVERFLOW:
      return TlsError::kRecordTooLong;
    case SSL_AD_DECODE_ERROR:
      return TlsError::kDecodeError;
    case SSL_AD_ILLEGAL_PARAMETER:
      return TlsError::kIllegalParameter;
    case SSL_AD_DECRYPT_ERROR:
      return TlsError::kBadSignature;
    case SSL_AD_PROTOCOL_VERSION:
      return TlsError::kUnsupportedVersion;
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
      return TlsError::kPeerCertificateBad;
    case SSL_AD_MISSING_EXTENSION:
      return TlsError::kIllegalParameter;
    default:
      return generic_ssl && state_ == State::kHandshake ? TlsError::kDecodeError : TlsError::kInternal;
  }
}

void Session::fail(Progress& p, TlsError e) {
  state_ = State::kFailed;
  error_ = p.error = e;
  ++pool_->counters_.errors[static_cast<unsigned>(e)];
}

void Session::info_callback(const ssl_st* ssl, int where, int value) {
  if ((where & SSL_CB_ALERT) == 0) return;
  auto* s = static_cast<Session*>(BIO_get_data(SSL_get_rbio(ssl)));
  const bool fatal = (value >> 8) == SSL3_AL_FATAL;
  const auto description = static_cast<uint8_t>(value & 0xff);
  if ((where & SSL_CB_READ) != 0 && (fatal || description == SSL_AD_USER_CANCELLED)) s->alert_received_ = description;
  if ((where & SSL_CB_WRITE) != 0 && fatal) s->alert_sent_ = description;
}

// --- receiving ----------------------------------------------------------------------------------------------------------------

bool Session::input_ready(const Wire& wire) const {
  return record_left_ != 0 || output_pending_ || SSL_has_pending(ssl_) == 1 || front_record(wire.cipher_in) != 0;
}

bool Session::has_buffered_input() const { return SSL_has_pending(ssl_) == 1; }

// True when the handshake is done.
bool Session::step_handshake(Call& call, Progress& p) {
  if (!memory_for_handshake()) {
    ++pool_->counters_.no_memory;
    fail(p, TlsError::kNoMemory);
    return false;
  }
  const OSSL_HANDSHAKE_STATE before = SSL_get_state(ssl_);
  started_ = true;
  output_pending_ = false;
  const int r = SSL_do_handshake(ssl_);
  p.handshake_stepped = SSL_get_state(ssl_) != before || call.written != 0;
  if (r == 1) {
    state_ = State::kEstablished;
    p.handshake_done = true;
    ++pool_->counters_.handshakes;
    if (SSL_session_reused(ssl_) == 1) ++pool_->counters_.resumed;
    if (client_ != nullptr) client_->keep_renewed_session(ssl_);
    return true;
  }
  switch (SSL_get_error(ssl_, r)) {
    case SSL_ERROR_WANT_READ:
      if (call.wire.peer_eof && !input_ready(call.wire)) fail(p, TlsError::kHandshakeEof);
      return false;
    case SSL_ERROR_WANT_WRITE:
      output_pending_ = true;
      call.report_block(p);
      return false;
    default:
      fail(p, error_from_openssl());
      return false;
  }
}

namespace {

// Where plaintext goes: begin() gives room for `bytes` of it, null when there is none; commit() keeps the first `got` of them.
struct PacketSink {
  io::PacketQueue& queue;
  io::PacketPool& pool;
  io::PacketPtr packet = {};
  uint32_t room = 0;
  uint8_t* begin(uint64_t most) {
    packet = pool.alloc();
    if (!packet) return nullptr;
    room = static_cast<uint32_t>(std::min<uint64_t>(packet.tailroom(), most));
    return packet.append(room);
  }
  void commit(uint32_t got) {
    packet.trim_back(room - got);
    queue.push(std::move(packet));
  }
};
struct FlatSink {
  std::span<uint8_t> out;
  uint32_t room = 0;
  uint8_t* begin(uint64_t most) {
    room = static_cast<uint32_t>(std::min<uint64_t>({out.size(), most, kMaxRecordBytes}));
    return out.data();
  }
  void commit(uint32_t got) { out = out.subspan(got); }
};

// Where plaintext comes from: bytes() are left, record() gives the first `length` of them in one piece, consume() drops them.
struct PacketSource {
  io::PacketQueue& queue;
  uint8_t* gather;
  uint64_t bytes() const { return queue.bytes(); }
  const uint8_t* record(uint32_t length) {
    if (queue.front().size() >= length) return queue.front().data();
    queue.peek(0, gather, length);
    return gather;
  }
  void consume(size_t n) { queue.consume(n); }
};
struct FlatSource {
  base::ByteSpan left;
  uint64_t bytes() const { return left.size(); }
  const uint8_t* record(uint32_t) const { return left.data(); }
  void consume(size_t n) { left = left.subspan(n); }
};

}  // namespace

template <class Sink>
void Session::read_plaintext(Call& call, Sink& sink, uint64_t max_plain, Progress& p) {
  const Wire& wire = call.wire;
  while (!close_received_ && !truncated_) {
    if (!input_ready(wire)) {
      // Nothing whole is left, and nothing will come: cut off without close_notify.
      truncated_ = wire.peer_eof;
      break;
    }
    if (p.plain_bytes >= max_plain) {
      p.more = true;
      break;
    }
    if (!memory_for_record()) {
      p.pool_empty = true;
      break;
    }
    uint8_t* into = sink.begin(max_plain - p.plain_bytes);
    if (into == nullptr) {
      p.pool_empty = true;
      break;
    }
    output_pending_ = false;
    size_t got = 0;
    const int r = SSL_read_ex(ssl_, into, sink.room, &got);
    if (r == 1) {
      sink.commit(static_cast<uint32_t>(got));
      p.plain_bytes += got;
      control_records_ = 0;
      continue;
    }
    const int e = SSL_get_error(ssl_, r);
    if (e == SSL_ERROR_ZERO_RETURN) {
      close_received_ = true;
    } else if (e == SSL_ERROR_WANT_READ) {
      if (++control_records_ > kMaxControlRecords) return fail(p, TlsError::kBadRecord);
    } else if (e == SSL_ERROR_WANT_WRITE) {
      output_pending_ = true;
      call.report_block(p);
      break;
    } else {
      return fail(p, error_from_openssl());
    }
  }
  p.peer_closed = close_received_ || truncated_;
  p.truncated = truncated_;
}

Progress Session::receive(const Wire& wire, io::PacketQueue& plain_out, uint64_t max_plain, bool allow_handshake_step) {
  PacketSink sink{plain_out, wire.pool};
  return receive_into(wire, sink, max_plain, allow_handshake_step);
}

Progress Session::receive(const Wire& wire, std::span<uint8_t> plain_out, bool allow_handshake_step) {
  FlatSink sink{plain_out};
  return receive_into(wire, sink, plain_out.size(), allow_handshake_step);
}

template <class Sink>
Progress Session::receive_into(const Wire& wire, Sink& sink, uint64_t max_plain, bool allow_handshake_step) {
  Progress p;
  if (state_ == State::kFailed) {
    p.error = error_;
    return p;
  }
  Call call(*this, wire);
  if (state_ == State::kHandshake) {
    const bool first_flight = client_ != nullptr && !started_;
    if (!first_flight && !input_ready(wire)) {
      if (wire.peer_eof) fail(p, TlsError::kHandshakeEof);
      return p;
    }
    if (!allow_handshake_step) {
      p.handshake_pending = true;
      return p;
    }
    const bool done = step_handshake(call, p);
    p.cipher_bytes = call.written;
    if (!done) return p;
  }
  read_plaintext(call, sink, max_plain, p);
  p.cipher_bytes = call.written;
  return p;
}

// --- sending ------------------------------------------------------------------------------------------------------------------

Progress Session::send(const Wire& wire, io::PacketQueue& plain_in, uint64_t max, base::TimeNs now) {
  PacketSource source{plain_in, pool_->gather_.get()};
  return send_from(wire, source, max, now);
}

Progress Session::send(const Wire& wire, base::ByteSpan plain, base::TimeNs now) {
  FlatSource source{plain};
  return send_from(wire, source, plain.size(), now);
}

template <class Source>
Progress Session::send_from(const Wire& wire, Source& source, uint64_t max, base::TimeNs now) {
  Progress p;
  if (state_ == State::kFailed) {
    p.error = error_;
    return p;
  }
  if (state_ != State::kEstablished || close_sent_ || (SSL_get_shutdown(ssl_) & SSL_SENT_SHUTDOWN) != 0) return p;
  Call call(*this, wire);
  if (now - last_send_ > kRecordIdleReset && retry_length_ == 0) small_phase_sent_ = 0;
  while (source.bytes() != 0) {
    if (retry_length_ == 0) {
      if (p.plain_bytes >= max) {
        p.more = true;
        break;
      }
      if (wire.cipher_out.bytes() >= wire.cipher_limit) {
        p.output_blocked = true;
        break;
      }
      if (!memory_for_record()) {
        p.pool_empty = true;
        break;
      }
    }
    const uint32_t record = small_phase_sent_ < kSmallRecordPhaseBytes ? kSmallRecordBytes : kMaxRecordBytes;
    const uint32_t length = retry_length_ != 0
                                ? retry_length_
                                : static_cast<uint32_t>(std::min({uint64_t{record}, source.bytes(), max - p.plain_bytes}));
    MILLRACE_ASSERT(length <= source.bytes(), "what a record was begun with is still there");
    size_t written = 0;
    const int r = SSL_write_ex(ssl_, source.record(length), length, &written);
    if (r == 1) {
      source.consume(written);
      p.plain_bytes += written;
      small_phase_sent_ = std::min(small_phase_sent_ + static_cast<uint32_t>(written), kSmallRecordPhaseBytes);
      retry_length_ = 0;
      last_send_ = now;
      continue;
    }
    const int e = SSL_get_error(ssl_, r);
    if (e == SSL_ERROR_WANT_WRITE || e == SSL_ERROR_WANT_READ) {
      retry_length_ = length;
      call.report_block(p);
      break;
    }
    fail(p, error_from_openssl());
    break;
  }
  p.cipher_bytes = call.written;
  return p;
}

Progress Session::close_notify(const Wire& wire) {
  Progress p;
  if (state_ == State::kFailed) {
    p.error = error_;
    return p;
  }
  if (close_sent_) return p;
  if (state_ != State::kEstablished) {  // nothing to protect yet: TCP's close says it all
    close_sent_ = true;
    return p;
  }
  if (retry_length_ != 0) {  // a record is half written: send() goes first
    p.output_blocked = true;
    return p;
  }
  Call call(*this, wire);
  const int r = SSL_shutdown(ssl_);
  p.cipher_bytes = call.written;
  if (r >= 0) {
    close_sent_ = true;
  } else if (SSL_get_error(ssl_, r) == SSL_ERROR_WANT_WRITE) {
    call.report_block(p);
  } else {
    fail(p, error_from_openssl());
  }
  return p;
}

Negotiated Session::negotiated() const {
  Negotiated n;
  n.version = SSL_version(ssl_) == TLS1_3_VERSION ? Version::kTls13 : Version::kTls12;
  if (const SSL_CIPHER* c = SSL_get_current_cipher(ssl_)) {
    n.cipher = SSL_CIPHER_get_name(c);
    n.cipher_id = SSL_CIPHER_get_protocol_id(c);
  }
  n.alpn = this->alpn();
  if (const char* sni = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name)) n.server_name = sni;
  n.resumed = SSL_session_reused(ssl_) == 1;
  n.peer_certificate = SSL_get0_peer_certificate(ssl_) != nullptr;
  n.validation =
      n.peer_certificate && validation_ == PeerValidation::kNoCertificate ? PeerValidation::kNotValidated : validation_;
  return n;
}

bool Session::has_peer_certificate() const { return SSL_get0_peer_certificate(ssl_) != nullptr; }

const PeerCertificate* Session::peer_certificate() {
  if (peer_ == nullptr)
    if (X509* leaf = SSL_get0_peer_certificate(ssl_); leaf != nullptr) peer_ = make_peer_certificate(leaf, library());
  return peer_;
}

std::string_view Session::peer_pem(bool chain) {
  char*& kept = pems_[chain ? 1 : 0];
  if (kept == nullptr)
    if (X509* leaf = SSL_get0_peer_certificate(ssl_); leaf != nullptr)
      kept = make_encoded_pem(leaf, chain ? SSL_get_peer_cert_chain(ssl_) : nullptr);
  return kept == nullptr ? std::string_view() : std::string_view(kept);
}

std::string_view Session::keep_text(uint32_t key, std::string_view text) {
  if (text_ != nullptr) return {};
  text_ = static_cast<char*>(OPENSSL_memdup(text.data(), text.size()));
  if (text_ == nullptr) {
    ERR_clear_error();
    return {};
  }
  text_key_ = key;
  text_size_ = static_cast<uint32_t>(text.size());
  return text_view();
}

std::span<const std::string> Session::local_uri_sans() const {
  if (server_ == nullptr) return {};
  return server_->impl_->certificates[certificate_].uri_sans;
}

std::span<const uint8_t> Session::session_id() const {
  const SSL_SESSION* s = SSL_get0_session(ssl_);
  unsigned n = 0;
  const unsigned char* id = s == nullptr ? nullptr : SSL_SESSION_get_id(s, &n);
  return {id, id == nullptr ? 0 : n};
}

ossl_lib_ctx_st* Session::library() const { return server_ != nullptr ? server_->impl_->library : client_->impl_->library; }

std::string_view Session::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return name == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(name), size);
}

std::span<char> Session::verify_detail_buffer() { return pool_->verify_detail_; }

// One writer, so no read-modify-write; release: whoever reads 0 may free what the session used.
static void count_session(std::atomic<uint32_t>& sessions, uint32_t by) {
  sessions.store(sessions.load(std::memory_order_relaxed) + by, std::memory_order_release);
}

// --- the pool -----------------------------------------------------------------------------------------------------------------

SessionPool::SessionPool(uint32_t capacity)
    : sessions_(new Session[capacity]), gather_(new uint8_t[kMaxRecordBytes]), capacity_(capacity) {
  for (uint32_t i = 0; i < capacity; ++i) sessions_[i].next_free_ = i + 1;
  (void)SessionBio::method();
}

SessionPool::~SessionPool() { MILLRACE_ASSERT(open_ == 0, "sessions are closed before their pool goes"); }

Session* SessionPool::reject(TlsError e) {
  last_error_ = e;
  ++(e == TlsError::kSessionLimit ? counters_.limit : counters_.no_memory);
  ERR_clear_error();
  return nullptr;
}

Session* SessionPool::take() {
  if (free_head_ >= capacity_) return reject(TlsError::kSessionLimit);
  if (!memory_for_handshake()) return reject(TlsError::kNoMemory);
  return &sessions_[free_head_];
}

// The context may serve later sessions whose pool wants no keys (any more): the pool decides, each time.
void SessionPool::on_key_line(const ssl_st* ssl, const char* line) {
  BIO* bio = SSL_get_rbio(ssl);
  const auto* s = bio == nullptr ? nullptr : static_cast<const Session*>(BIO_get_data(bio));
  if (s == nullptr || s->pool_ == nullptr || s->pool_->key_log_.line == nullptr) return;
  s->pool_->key_log_.line(s->pool_->key_log_.self, line, std::strlen(line));
}

bool SessionPool::attach(Session& s, SSL_CTX* ctx) {
  // A context is one worker's, so this is a plain store.
  SSL_CTX_set_keylog_callback(ctx, key_log_.line != nullptr ? &SessionPool::on_key_line : nullptr);
  SslPtr ssl(SSL_new(ctx));
  BioPtr bio(ssl != nullptr ? BIO_new(SessionBio::method()) : nullptr);
  if (bio == nullptr) return false;
  const uint32_t next = s.next_free_;
  s = Session();
  s.next_free_ = next;
  s.pool_ = this;
  BIO_set_data(bio.get(), &s);
  BIO_set_init(bio.get(), 1);
  s.bio_ = bio.release();
  s.ssl_ = ssl.release();
  SSL_set_bio(s.ssl_, s.bio_, s.bio_);
  return true;
}

Session* SessionPool::opened(Session& s) {
  free_head_ = s.next_free_;
  ++open_;
  ++counters_.opened;
  return &s;
}

Session* SessionPool::open_server(ServerContext& context) {
  Session* s = take();
  if (s == nullptr) return nullptr;
  if (!attach(*s, context.impl_->ctx.get())) return reject(TlsError::kNoMemory);
  SSL_set_accept_state(s->ssl_);
  s->server_ = &context;
  count_session(context.sessions_, 1);
  return opened(*s);
}

Session* SessionPool::open_client(ClientContext& context, std::string_view sni, std::string_view alpn_wire) {
  Session* s = take();
  if (s == nullptr) return nullptr;
  ClientContext::Impl& im = *context.impl_;
  if (!attach(*s, im.ctx.get())) return reject(TlsError::kNoMemory);
  SSL_set_connect_state(s->ssl_);
  bool ok = true;
  char name[kMaxServerNameBytes + 1];
  if (!sni.empty() && sni.size() <= kMaxServerNameBytes) {
    std::memcpy(name, sni.data(), sni.size());
    name[sni.size()] = 0;
    ok = SSL_set_tlsext_host_name(s->ssl_, name) == 1;
  }
  if (ok && !alpn_wire.empty()) {
    ok = SSL_set_alpn_protos(s->ssl_, reinterpret_cast<const unsigned char*>(alpn_wire.data()),
                             static_cast<unsigned>(alpn_wire.size())) == 0;
  }
  // A kept session is offered to the server it came from; TLS 1.3 tickets are used once (RFC 8446 C.4).
  if (SSL_SESSION* kept = ok ? im.sessions.newest() : nullptr; kept != nullptr && SSL_SESSION_is_resumable(kept) == 1) {
    const char* host = SSL_SESSION_get0_hostname(kept);
    if (std::string_view(host != nullptr ? host : "") == sni) {
      ok = SSL_set_session(s->ssl_, kept) == 1;
      if (SSL_SESSION_get_protocol_version(kept) == TLS1_3_VERSION) im.sessions.drop_newest();
    }
  }
  if (!ok) {
    SSL_free(s->ssl_);
    s->ssl_ = nullptr;
    return reject(TlsError::kNoMemory);
  }
  s->client_ = &context;
  count_session(context.sessions_, 1);
  return opened(*s);
}

void SessionPool::close(Session* s) {
  MILLRACE_ASSERT(s != nullptr && s->ssl_ != nullptr && s->pool_ == this, "a session is closed once, by its pool");
  // A connection that ends without close_notify keeps its session resumable (RFC 5246 7.2.1 gave the older rule up).
  if (s->state_ == Session::State::kEstablished) SSL_set_shutdown(s->ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  OPENSSL_free(std::exchange(s->peer_, nullptr));
  OPENSSL_free(std::exchange(s->text_, nullptr));
  for (char*& pem : s->pems_) OPENSSL_free(std::exchange(pem, nullptr));
  SSL_free(s->ssl_);  // and the BIO with it
  if (s->server_ != nullptr) count_session(s->server_->sessions_, UINT32_MAX);
  if (s->client_ != nullptr) count_session(s->client_->sessions_, UINT32_MAX);
  s->ssl_ = nullptr;
  s->next_free_ = free_head_;
  free_head_ = static_cast<uint32_t>(s - sessions_.get());
  --open_;
  ++counters_.closed;
}

}  // namespace millrace::tls
