// One TLS connection, sans-I/O: ciphertext comes out of one PacketQueue, ciphertext goes into another, plaintext likewise.
// Whoever owns the TCP connection moves the queues; nothing here knows of sockets, TCP or time but for the `now` of send().
//
//                 receive()                                      send()
//   TCP rx_queue ── cipher_in ──▶ [ SSL ] ──▶ plain_out     plain_in ──▶ [ SSL ] ──▶ cipher_out ──▶ TCP send
//                                    └── handshake, alerts, key updates ──▶ cipher_out
//
// Rules
//  1. Every call may put ciphertext into cipher_out, also receive() (handshake, alerts): send it after each call, also after an
//     error.
//  2. Nothing is lost when a limit stops a call: it goes on where it stopped when called again. Progress says what stopped it.
//  3. After `error` is set the session only answers with the same error; close it (SessionPool::close).
//  4. All calls come from the worker that owns the pool.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "lib/base/time.h"
#include "lib/io/packet_queue.h"
#include "lib/tls/context.h"
#include "lib/tls/peer_certificate.h"
#include "lib/tls/tls_error.h"

struct ssl_st;
struct bio_st;
struct ossl_lib_ctx_st;

namespace millrace::tls {

// Record sizes: small records can be used by the peer as soon as their one segment is there; large ones cost less. As H2O does
// it.
inline constexpr uint32_t kSmallRecordBytes = 1300;  // plaintext; with 22 to 29 bytes of record it fits one MSS of 1360 and up
inline constexpr uint32_t kSmallRecordPhaseBytes = 100 * 1024;   // so much goes out in small records, then records grow
inline constexpr base::TimeNs kRecordIdleReset = base::kSecond;  // nothing sent for so long: small again
inline constexpr uint32_t kMaxRecordBytes = 16 * 1024;           // RFC 8446 5.1
// Above cipher_limit, what handshake messages, key updates and alerts may still add to cipher_out. Without it an alert that
// answers an error would be lost on a full queue; with no bound at all a peer that asks for key updates and reads nothing would
// fill memory.
inline constexpr uint32_t kControlReserveBytes = 32 * 1024;
// Free arena memory below which a session is not opened and a handshake does not go on (it fails with kNoMemory): covers one
// session's handshake, measured in README.md.
inline constexpr uint64_t kHandshakeHeadroomBytes = 256 * 1024;
// Records without application data (KeyUpdate, tickets, warnings) that a peer may send in a row after the handshake; one more
// fails the session with kBadRecord. BoringSSL allows 32 KeyUpdates.
inline constexpr uint32_t kMaxControlRecords = 32;
inline constexpr uint32_t kMaxServerNameBytes = 255;  // RFC 6066 3, as BoringSSL limits it

struct Wire {                   // the ciphertext side of a session: references to what the caller owns
  io::PacketQueue& cipher_in;   // consumed from the front
  io::PacketQueue& cipher_out;  // appended to
  io::PacketPool& pool;         // where packets for cipher_out and for plaintext come from
  uint64_t cipher_limit;        // bytes: no further record of application data is begun while cipher_out holds this much
  bool peer_eof = false;        // the peer has sent FIN: cipher_in is all there will ever be
};

struct Progress {
  uint64_t plain_bytes = 0;          // moved into plain_out, or out of plain_in
  uint64_t cipher_bytes = 0;         // added to cipher_out
  TlsError error = TlsError::kNone;  // the session has failed; the alert, if one is due, is in cipher_out
  bool handshake_done = false;       // became established in this call
  bool handshake_stepped = false;    // this call did handshake work (a flight was read or written): what the loop's bound counts
  bool handshake_pending =
      false;          // handshake work is possible and was not allowed by allow_handshake_step: call again next iteration
  bool more = false;  // stopped at max: there is, or may be, more to do at once
  bool output_blocked = false;  // stopped because cipher_out is at its limit: call again when it has drained
  bool pool_empty = false;      // stopped because the pool is empty: call again later
  bool peer_closed = false;  // no more plaintext will come: close_notify was read, or the connection ended without (`truncated`)
  bool truncated = false;    // the latter. Envoy treats both alike, as end of stream; whoever must know can tell them apart
};

struct Negotiated {
  Version version = Version::kTls12;
  const char* cipher = "";       // OpenSSL's name, static storage: "ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"
  uint16_t cipher_id = 0;        // its IANA number, e.g. 0x1301; 0: none yet
  std::string_view alpn;         // empty: none; valid while the session is open
  std::string_view server_name;  // server: as the client sent it; client: as asked for; valid while the session is open
  bool resumed = false;
  bool peer_certificate = false;                               // the peer showed one (and it verified, where a CA is configured)
  PeerValidation validation = PeerValidation::kNoCertificate;  // of a resumed session: kNotValidated, as Envoy has it
};

// What became of the client's wish for an OCSP staple; kNone: it had none.
enum class StapleResult : uint8_t { kNone, kSent, kOmitted, kFailed };

class SessionPool;

class Session {
 public:
  enum class State : uint8_t { kHandshake, kEstablished, kFailed };
  State state() const { return state_; }
  bool established() const { return state_ == State::kEstablished; }
  TlsError error() const { return error_; }
  Negotiated negotiated() const;  // after the handshake; earlier, what is known so far
  std::string_view alpn() const;  // the selected protocol; empty: none. Valid while it is open
  // The peer's certificate, once the handshake is done (of a resumed session: as its ticket holds it). The texts live as long as
  // the session. Null or empty: there is none, or no memory for what it says.
  bool has_peer_certificate() const;
  const PeerCertificate* peer_certificate();
  // URL-encoded PEM of it alone, or with the rest of its chain.
  std::string_view peer_pem(bool chain);
  // Our own certificate's subject alternative names of kind URI. Server sessions.
  std::span<const std::string> local_uri_sans() const;
  // TLS session id (%DOWNSTREAM_TLS_SESSION_ID%, in hex); empty: none.
  std::span<const uint8_t> session_id() const;
  StapleResult staple() const { return staple_; }
  // One text of the caller's, kept with the session: what is made of the peer's certificate once for all requests. `key` says
  // what it is. keep_text() copies it, once: a second text, or no memory, gives an empty view.
  std::string_view kept_text(uint32_t key) const {
    return text_ != nullptr && key == text_key_ ? text_view() : std::string_view();
  }
  std::string_view keep_text(uint32_t key, std::string_view text);
  // Why the peer's certificate did not pass, in Envoy's words ("verify cert failed: ..."), also where it was accepted all the
  // same; empty otherwise. Good until another session of the pool judges one.
  std::string_view verify_detail() const { return verify_detail_; }
  uint8_t alert_sent() const { return alert_sent_; }          // AlertDescription of a fatal alert that we sent; 0: none
  uint8_t alert_received() const { return alert_received_; }  // likewise received; 0: none (or close_notify)
  bool close_sent() const { return close_sent_; }
  bool close_received() const { return close_received_; }

  // Reads what cipher_in holds: goes on with the handshake, then decrypts straight into fresh packets of the pool until
  // `max_plain` bytes were added to plain_out (never more). With allow_handshake_step false an unfinished handshake is left
  // alone. A client's first flight also comes from receive(), with cipher_in empty.
  Progress receive(const Wire& wire, io::PacketQueue& plain_out, uint64_t max_plain, bool allow_handshake_step = true);

  // The same into flat memory: at most plain_out.size() bytes, of which Progress.plain_bytes were written. For those who use the
  // plaintext up at once and keep no packets.
  Progress receive(const Wire& wire, std::span<uint8_t> plain_out, bool allow_handshake_step = true);

  // Encrypts up to `max` bytes of plain_in, record by record, until cipher_out holds wire.cipher_limit; what was encrypted has
  // left plain_in. Before the handshake is done, and after close_notify(), it does nothing. A record once begun is finished by a
  // later call with the same plain_in: callers only append to plain_in meanwhile.
  Progress send(const Wire& wire, io::PacketQueue& plain_in, uint64_t max, base::TimeNs now);

  // The same from flat memory; Progress.plain_bytes says how much of `plain` is done with. The next call begins with what was
  // left of it (at any address): a record may have been begun with those bytes.
  Progress send(const Wire& wire, base::ByteSpan plain, base::TimeNs now);

  // Queues close_notify (idempotent); the other direction stays open. Call again while output_blocked or pool_empty is reported.
  Progress close_notify(const Wire& wire);

  // True when decrypted bytes lie inside the session: receive() yields plaintext without new cipher_in. OpenSSL only ever gets
  // whole records: a partial one waits in cipher_in, where the TCP receive window counts it, and costs no TLS memory.
  bool has_buffered_input() const;

 private:
  friend class SessionPool;
  friend class ServerContext;
  friend class ClientContext;
  friend class Verifier;
  friend struct ContextCallbacks;
  friend struct SessionBio;
  struct Call;  // one call's view of the world, for the BIO

  std::string_view text_view() const { return {text_, text_size_}; }
  ossl_lib_ctx_st* library() const;
  std::span<char> verify_detail_buffer();
  void set_verdict(PeerValidation v, TlsError error, std::string_view detail) {
    validation_ = v;
    verify_error_ = error;
    verify_detail_ = detail;
  }
  void fail(Progress& p, TlsError e);
  TlsError error_from_openssl() const;
  bool input_ready(const Wire& wire) const;
  bool step_handshake(Call& call, Progress& p);
  template <class Sink>
  Progress receive_into(const Wire& wire, Sink& sink, uint64_t max_plain, bool allow_handshake_step);
  template <class Sink>
  void read_plaintext(Call& call, Sink& sink, uint64_t max_plain, Progress& p);
  template <class Source>
  Progress send_from(const Wire& wire, Source& source, uint64_t max, base::TimeNs now);
  static void info_callback(const ssl_st* ssl, int where, int value);

  ssl_st* ssl_ = nullptr;
  bio_st* bio_ = nullptr;
  SessionPool* pool_ = nullptr;
  ServerContext* server_ = nullptr;
  ClientContext* client_ = nullptr;
  Call* call_ = nullptr;  // only during a call
  base::TimeNs last_send_ = 0;
  uint32_t small_phase_sent_ = 0;  // bytes since the start or the last idle reset, up to kSmallRecordPhaseBytes
  uint32_t retry_length_ = 0;      // plaintext length of a record that SSL_write has begun; 0: none
  uint32_t record_left_ = 0;       // bytes at the front of cipher_in that belong to a record OpenSSL has begun to read
  uint32_t control_records_ = 0;   // records without application data in a row
  State state_ = State::kHandshake;
  TlsError error_ = TlsError::kNone, verify_error_ = TlsError::kNone;
  PeerValidation validation_ = PeerValidation::kNoCertificate;
  std::string_view verify_detail_;  // static text, or in the pool's buffer
  uint8_t alert_sent_ = 0, alert_received_ = 0;
  bool close_sent_ = false, close_received_ = false, truncated_ = false, started_ = false;
  bool output_pending_ = false;  // OpenSSL waits for room in cipher_out: call it again without new input
  StapleResult staple_ = StapleResult::kNone;
  uint32_t certificate_ = 0;         // server: index of the one that is shown
  PeerCertificate* peer_ = nullptr;  // made when asked for, by OpenSSL's allocator
  char* text_ = nullptr;             // likewise: keep_text()
  uint32_t text_key_ = 0, text_size_ = 0;
  char* pems_[2] = {};  // likewise: the leaf, the chain
  uint32_t next_free_ = 0;
};

struct SessionCounters {
  uint64_t opened = 0, closed = 0, handshakes = 0, resumed = 0, no_memory = 0, limit = 0;
  uint64_t errors[kTlsErrorCount] = {};  // by reason, each session at most once
};

// All sessions of one worker. Built by an ordinary thread; afterwards only the worker touches it.
class SessionPool {
 public:
  explicit SessionPool(uint32_t capacity);
  ~SessionPool();  // no session may be open
  SessionPool(const SessionPool&) = delete;
  SessionPool& operator=(const SessionPool&) = delete;

  // Null when the pool is full or TLS memory is short (counted; last_error() says which). The context must outlive the session.
  Session* open_server(ServerContext& context);
  // `sni` may be empty. `alpn`: names that replace the context's list for this session; empty: the context's.
  Session* open_client(ClientContext& context, std::string_view sni, std::string_view alpn_wire = {});
  void close(Session* session);  // frees at once, sends nothing

  // Who hears the secrets of sessions opened from now on, while it is set: a line of the NSS key log format each, without
  // newline, from within receive() and send(). Null: nobody, and nothing is formatted. For captures that an operator may make
  // (Envoy has it as CommonTlsContext.key_log).
  struct KeyLog {
    void (*line)(void* self, const char* text, size_t size) = nullptr;
    void* self = nullptr;
  };
  void set_key_log(const KeyLog& log) { key_log_ = log; }

  TlsError last_error() const { return last_error_; }
  uint32_t open() const { return open_; }
  uint32_t capacity() const { return capacity_; }
  const SessionCounters& counters() const { return counters_; }

 private:
  friend class Session;
  Session* take();
  Session* reject(TlsError e);
  bool attach(Session& s, ssl_ctx_st* ctx);
  Session* opened(Session& s);

  std::unique_ptr<Session[]> sessions_;
  std::array<char, 512> verify_detail_{};  // Session::verify_detail()
  std::unique_ptr<uint8_t[]> gather_;      // kMaxRecordBytes: a record's plaintext when it lies in several packets
  uint32_t capacity_ = 0, open_ = 0, free_head_ = 0;
  static void on_key_line(const ssl_st* ssl, const char* line);

  KeyLog key_log_;
  TlsError last_error_ = TlsError::kNone;
  SessionCounters counters_;
};

}  // namespace millrace::tls
