// HTTP/2 from clients: one connection, many exchanges. Joins http::H2Connection (frames, streams, windows) to the TCP or TLS
// connection below and to HttpProxy above, which does the same with each exchange as with one of HTTP/1: routing, the connection
// to the endpoint, timeouts, records.
//
//   rx ─▶ H2Connection::receive ─▶ ready streams ─┬─ head complete ─▶ HttpProxy::begin_stream ─▶ route
//                                                 ├─ body, room     ─▶ relay_request, relay_response
//                                                 └─ reset          ─▶ HttpProxy::stream_gone
//   tx ◀─ flush(), once an iteration ◀─ H2Connection::produce ◀─ stream.tx ◀─ answers, relay_response
//
// A stream outlives its exchange until its last byte is framed. A refused or broken stream never costs its neighbours anything;
// only what RFC 9113 calls a connection error, and a flood, ends the connection.
#pragma once

#include <cstdint>

#include "dataplane/downstream.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/http/h2_connection.h"

namespace millrace::dataplane {

class HttpProxy;
class Http2Server;
struct Exchange;
struct Http2Session;

// One stream of a client.
struct Http2Stream : http::H2Stream {
  Http2Session* session = nullptr;
  Exchange* exchange = nullptr;                   // null before the head is complete and after the response was handed over
  HeadBuffer* head = nullptr;                     // until the exchange takes it
  HeadBuffer* trailer_buffer = nullptr;           // of the request
  HeadBuffer* response_trailer_buffer = nullptr;  // lives until they are framed
  http::HeaderTable response_trailer_table;
  bool begun = false;             // an exchange was made of it, or refused
  base::ListNode link;            // in Http2Session::streams
  base::ListNode early;           // in Http2Session::early: answered before the request was complete
  base::ListNode stalled;         // in Http2Session::stalled: answered, and the client's window does not take it
  TimeNs stalled_since = 0;       // when it held as many bytes last
  uint64_t stalled_tx_bytes = 0;  // tx_bytes then
};

// One connection of a client that speaks HTTP/2.
struct Http2Session final : http::H2Owner {
  Http2Server* server = nullptr;
  DownstreamSession* downstream = nullptr;
  http::H2Connection connection;
  base::List<Http2Stream, &Http2Stream::link> streams;
  base::List<Http2Stream, &Http2Stream::early> early;
  base::List<Http2Stream, &Http2Stream::stalled> stalled;  // oldest look first
  base::ListNode dirty;                                    // in Http2Server::dirty_: something may be framed
  base::ListNode paused;                                   // in Http2Server::paused_: not read while packet memory is short
  Keepalive keepalive;
  uint64_t stream_buffer = 0;        // bytes that may wait in each stream's tx
  bool draining = false;             // the client knows (GOAWAY) that no further stream is wanted
  TimeNs goaway_at = base::kNever;   // draining: from then on streams are refused
  TimeNs idle_at = base::kNever;     // no stream is open: when the idle timeout ends
  TimeNs head_since = base::kNever;  // a head is under way, since

  http::H2Stream* open_stream() override;
  bool lend(http::H2Stream& s, bool trailers, http::H2HeadStorage* storage) override;
  bool grow(http::H2Stream& s, http::H2HeadStorage* storage) override;
};

class Http2Server {
 public:
  using Stream = Http2Stream;
  // Response bytes that one stream may hold beyond what its window lets go (bytes).
  static constexpr uint64_t kStreamBufferBytes = 64 * 1024;

  // `arena`: memory of nghttp2 (null: malloc, tests).
  Http2Server(WorkerContext& context, HttpProxy& proxy, Downstreams& downstreams, base::Arena* arena);
  ~Http2Server();

  // From here on the session speaks HTTP/2; what rx() holds is read (the preface first). False: no room for another connection,
  // and the session is closed.
  bool start(DownstreamSession& d);
  void on_downstream(DownstreamSession& d, uint32_t events);
  void on_timer(DownstreamSession& d);
  // The transport failed under it, or the peer is gone.
  void gone(DownstreamSession& d, bool reset);
  // Frames what waits, at the end of an iteration.
  void flush();

  // --- from HttpProxy, about the stream of an exchange
  // Response bytes that may be written now; when that is too few, the stream is told when there is room.
  bool has_room(Http2Stream& s);
  void write(Http2Stream& s, io::PacketPtr packet) { s.tx.push(std::move(packet)); }
  // The head (1xx: a further one follows). `end`: there is no body.
  bool write_head(Http2Stream& s, const http::ResponseHead& head, bool end);
  // What was written to s.tx may go; `end`: it is all, and `trailers` (may be null; its buffer goes over to the stream) follow.
  void written(Http2Stream& s, bool end, HeadBuffer* trailers = nullptr, const http::HeaderTable* table = nullptr);
  // Request bytes were taken out of s.rx.
  void consumed(Http2Stream& s, uint64_t bytes);
  // The exchange is over. `cut`: its response is not complete, the stream is reset with `code`.
  void exchange_over(Http2Stream& s, bool cut, http::H2Code code);

  uint32_t sessions_in_use() const { return sessions_.in_use(); }
  uint32_t streams_in_use() const { return streams_.in_use(); }

 private:
  friend struct Http2Session;
  void mark(Http2Session& h) {
    if (!h.dirty.linked()) dirty_.push_back(h);
  }
  void receive(Http2Session& h, bool last);
  void process_ready(Http2Session& h);
  void on_stream(Http2Stream& s);
  void begin(Http2Stream& s);
  static bool is_malformed(const Http2Stream& s) {
    return s.error == http::H2Error::kInvalidHeader || s.error == http::H2Error::kMessaging;
  }
  void refuse(Http2Stream& s);
  void free_stream(Http2Stream& s);
  void drain(Http2Session& h);
  bool flush(Http2Session& h);
  void close(Http2Session& h, bool reset);
  void settle(Http2Session& h);
  TimeNs head_deadline(const Http2Session& h) const;
  void reset_stalled(Http2Session& h);

  WorkerContext& ctx_;
  HttpProxy& proxy_;
  Downstreams& downstreams_;
  http::H2Context context_;
  base::Pool<Http2Session> sessions_;
  base::Pool<Http2Stream> streams_;
  base::List<Http2Session, &Http2Session::dirty> dirty_;
  base::List<Http2Session, &Http2Session::paused> paused_;
};

}  // namespace millrace::dataplane
