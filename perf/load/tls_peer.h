// TLS for the generator's connections, sans-I/O: ciphertext of a frame in, plaintext out through a callback; plaintext in,
// ciphertext out into a queue from which the engine cuts segments. One TlsPeer holds all sessions of one polling core, clients
// and servers. It stands on lib/tls and adds what a generator needs: one context a target with its tickets, a certificate of its
// own.
//
//   frame ─ receive() ─▶ [ session ] ─▶ sink(plaintext)          request/response bytes ─ send() ─▶ [ session ] ─▶ output()
//                             └── handshake, tickets, alerts ──▶ output()
//
// Rules
//  1. After every call look at output(): any call may have added to it, also one that failed (the alert).
//  2. output() is both send queue and retransmission queue: its first byte is the first one not acknowledged. The engine reads it
//     with peek(offset) and consumes what is acknowledged. The ciphertext cannot be made again.
//  3. After a Step with an error the session only answers with that error: send what output() holds, then close().
//  4. Everything but create() and the destructor is called by the polling thread, after start_thread().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/status.h"
#include "lib/base/time.h"
#include "lib/io/packet_queue.h"
#include "lib/tls/memory.h"
#include "lib/tls/session.h"

namespace millrace::load {

// Ciphertext a session may have unacknowledged before send() takes no more. Above 64 KiB, so that bulk transfers fill a wire
// whose round trip is tens of microseconds; not by much, because the engine finds its place in the queue by walking it.
inline constexpr uint64_t kTlsOutputLimit = 128 * 1024;
// Most sessions with a ticket that are kept for each target; each lasts for one connection in TLS 1.3 (RFC 8446 C.4), so there
// must be as many as connections that open before the next one gets its ticket.
inline constexpr uint32_t kTlsMaxKeptSessions = 4096;

struct TlsConfig {
  bool clients = false, servers = false;  // at least one
  uint32_t targets = 1;                   // clients: contexts, each with its own tickets; 1 … 65536
  uint32_t max_sessions = 1;              // open at one time, clients and servers together
  uint32_t memory_sessions = 0;           // of those: how many OpenSSL gets memory for, reserved at once (20 KB each); 0: all
  std::string sni;                        // clients; empty: none is sent
  bool resume = false;                    // clients offer the newest ticket of their target. Servers always issue tickets
  bool tls12 = false;                     // TLS 1.2 only; otherwise TLS 1.3 only, so that a figure says what it measured
  std::string certificate_pem, key_pem;   // servers; both empty: self-signed, ECDSA P-256, for `sni` (or "localhost")
};

struct TlsStep {
  tls::TlsError error = tls::TlsError::kNone;  // tls::to_string() names it
  bool handshake_done = false;                 // became established in this call: send() works from now on
  bool resumed = false;                        // with handshake_done: by a ticket
  bool peer_closed = false;                    // close_notify came: no more plaintext
  bool blocked = false;  // no packet, no TLS memory or no room in output(): call receive() again, with nothing, later
};

class TlsPeer {
 public:
  using Handle = uint32_t;
  static constexpr Handle kNoHandle = UINT32_MAX;

  // For ordinary threads, before anything else in the process uses OpenSSL. `pool` gives the packets of output() (data room 2
  // KiB: two to three packets a handshake flight) and must outlive the peer. Errors say which file, what memory.
  static base::Result<std::unique_ptr<TlsPeer>> create(const TlsConfig& config, io::PacketPool pool);
  ~TlsPeer();  // on the thread that polled, or after it has ended; closes what is open
  TlsPeer(const TlsPeer&) = delete;
  TlsPeer& operator=(const TlsPeer&) = delete;

  void start_thread();  // on the polling thread, once, before its loop
  void end_thread();    // on the polling thread, after its loop

  // kNoHandle when max_sessions are open or TLS memory is short (counters().limit, .no_memory). A client's first flight is in
  // output() at once.
  Handle open_client(uint32_t target);
  Handle open_server();
  void close(Handle h);  // frees at once with all ciphertext, sends nothing

  // The next ciphertext in order (a frame's payload; may be empty). Calls sink(base::ByteSpan) for every run of plaintext (at
  // most 16 KiB each); the bytes are valid during the call. `sink` must not call this TlsPeer with the same handle.
  template <class Sink>
  TlsStep receive(Handle h, io::PacketPtr payload, Sink&& sink) {
    ends_[h].input.push(std::move(payload));
    return receive_input(h, sink);
  }
  // The same for bytes that stay where they are: copied. With no packet left for them the session cannot go on (kNoMemory): close
  // it.
  template <class Sink>
  TlsStep receive(Handle h, base::ByteSpan payload, Sink&& sink) {
    if (ends_[h].input.append_copy(payload, pool_) < payload.size()) return {.error = tls::TlsError::kNoMemory};
    return receive_input(h, sink);
  }

  // Encrypts from the front of `plain` into output(); returns how many bytes were taken: fewer than all of them when
  // kTlsOutputLimit is reached, packets or memory are short, or before the handshake is done. Offer the rest again, starting with
  // the same bytes: a record may be half written (they may have moved in memory). `now` only sizes records.
  size_t send(Handle h, base::ByteSpan plain, base::TimeNs now);
  void close_notify(Handle h);  // into output(); idempotent

  io::PacketQueue& output(Handle h) { return ends_[h].output; }
  bool established(Handle h) const { return ends_[h].session->established(); }
  tls::Negotiated negotiated(Handle h) const { return ends_[h].session->negotiated(); }
  const tls::SessionCounters& counters() const { return sessions_.counters(); }
  uint32_t open() const { return sessions_.open(); }
  const std::string& certificate_pem() const { return certificate_pem_; }  // what servers show

 private:
  struct End {
    tls::Session* session = nullptr;
    io::PacketQueue input, output;  // ciphertext: not yet a whole record; not yet acknowledged
    Handle next_free = 0;
  };
  TlsPeer(const TlsConfig& config, io::PacketPool pool);
  Handle open_end(tls::Session* session);
  tls::Wire wire(End& end) { return {end.input, end.output, pool_, kTlsOutputLimit}; }
  // Decrypts up to one scratch buffer; `got` bytes of it are plaintext. True when there may be more at once.
  bool receive_some(End& end, TlsStep& step, size_t& got);
  template <class Sink>
  TlsStep receive_input(Handle h, Sink&& sink) {
    TlsStep step;
    for (bool more = true; more;) {
      size_t got = 0;
      more = receive_some(ends_[h], step, got);
      if (got != 0) sink(base::ByteSpan(scratch_.get(), got));
    }
    return step;
  }

  io::PacketPool pool_;
  TlsConfig config_;
  std::string certificate_pem_;
  std::unique_ptr<tls::LibraryContext> library_;
  std::unique_ptr<tls::ServerContext> server_context_;
  std::vector<std::unique_ptr<tls::ClientContext>> client_contexts_;  // by target
  tls::SessionPool sessions_;
  std::unique_ptr<End[]> ends_;
  std::unique_ptr<uint8_t[]> scratch_;  // tls::kMaxRecordBytes of plaintext
  Handle free_head_ = 0;
  tls::Arena* arena_ = nullptr;
};

}  // namespace millrace::load
