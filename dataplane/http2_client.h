// HTTP/2 towards endpoints: one connection, many exchanges. Joins http::H2Connection (frames, streams, windows) to an
// UpstreamSession below, which Upstreams opened, pools and counts, and to HttpProxy above, which does the same with each exchange
// as with one on a connection of HTTP/1.
//
//   Upstreams::attach ─▶ open() ─▶ write_head(), stream.tx ─▶ flush(), once an iteration ─▶ H2Connection::produce ─▶ tx
//   rx ─▶ H2Connection::receive ─▶ ready streams ─┬─ response head ─▶ HttpProxy::on_upstream_head
//                                                 ├─ body, room     ─▶ relay_response, relay_request
//                                                 └─ reset          ─▶ HttpProxy::on_upstream_failed, or once more elsewhere
//
// Who ends what: an exchange gives its stream back (release()), at any time, also from inside on_ready(); a stream lives no
// longer than its exchange is on it. A connection ends only in flush(), on_ready() and on_timer(), never under somebody's feet.
//
// RFC 9113 6.8, 8.7: a stream that the endpoint's GOAWAY leaves out was not processed, nor one refused (REFUSED_STREAM), which is
// our fault when it was opened before the endpoint's SETTINGS came. If nothing of its body is gone, it is tried once more on
// another connection, unseen by the client.
#pragma once

#include <cstdint>

#include "dataplane/http2_keepalive.h"
#include "dataplane/worker_context.h"
#include "lib/base/list.h"
#include "lib/base/pool.h"
#include "lib/http/h2_connection.h"

namespace millrace::dataplane {

class HttpProxy;
class Http2Client;
class Upstreams;
struct Exchange;
struct Http2ClientSession;
struct UpstreamSession;
enum class UpstreamFailure : uint8_t;

// One stream, of one exchange.
struct Http2ClientStream : http::H2Stream {
  Http2ClientSession* session = nullptr;
  Exchange* exchange = nullptr;
  HeadBuffer* trailer_buffer = nullptr;          // of the response
  HeadBuffer* request_trailer_buffer = nullptr;  // lives until they are framed
  http::HeaderTable request_trailer_table;
  bool begun = false;               // the response's head was handed over
  bool guessed = false;             // opened before the endpoint had said how many streams it allows
  bool waits_for_settings = false;  // not opened before they have come
  base::ListNode link;              // in Http2ClientSession::streams
};

// One connection to an endpoint.
struct Http2ClientSession final : http::H2Owner {
  Http2Client* client = nullptr;
  UpstreamSession* upstream = nullptr;
  http::H2Connection connection;
  base::List<Http2ClientStream, &Http2ClientStream::link> streams;
  base::ListNode dirty;   // in Http2Client::dirty_: something may be framed, or decided
  base::ListNode paused;  // in Http2Client::paused_: not read while packet memory is short
  Keepalive keepalive;
  uint64_t stream_buffer = 0;  // bytes that may wait in each stream's tx
  TimeNs idle_since = 0;       // no stream since then
  UpstreamFailure failure{};   // ended: what its streams that were not complete met
  bool draining = false;       // takes no further stream; ends with its last one
  bool ended = false;          // nothing is read or sent any more; streams whose response is complete are served to their end
  bool reset = false;          // ended: the connection ends with a reset

  http::H2Stream* open_stream() override { return nullptr; }  // an endpoint opens none: PUSH_PROMISE ends the connection
  bool lend(http::H2Stream& s, bool trailers, http::H2HeadStorage* storage) override;
  bool grow(http::H2Stream& s, http::H2HeadStorage* storage) override;
};

class Http2Client {
 public:
  using Stream = Http2ClientStream;
  // Request bytes that one stream may hold beyond what its window lets go (bytes).
  static constexpr uint64_t kStreamBufferBytes = 64 * 1024;

  // `arena`: memory of nghttp2 (null: malloc, tests).
  Http2Client(WorkerContext& context, HttpProxy& proxy, Upstreams& upstreams, base::Arena* arena);
  ~Http2Client();

  // --- from Upstreams
  // The connection is established and speaks HTTP/2 from here on. False: no memory for it.
  bool start(UpstreamSession& u);
  // How many streams may be opened on it now.
  uint32_t room(const UpstreamSession& u) const;
  // A stream for the exchange, which room() allows: ex.upstream_stream. write_head() opens it.
  void open(UpstreamSession& u, Exchange& ex);
  // The exchange is done with its stream, which is reset unless it is over.
  void release(Http2ClientStream& s);
  void on_ready(UpstreamSession& u, uint32_t events);
  void on_timer(UpstreamSession& u);
  // No further stream; ends with its last one.
  void drain(UpstreamSession& u);
  // Gives the memory back: the session is going.
  void stop(UpstreamSession& u);

  // Frames what waits, lends streams to who waits for them, ends what is over. At the end of an iteration.
  void flush();

  // --- from HttpProxy, about the stream of an exchange
  bool has_room(Http2ClientStream& s);
  void write(Http2ClientStream& s, io::PacketPtr packet) { s.tx.push(std::move(packet)); }
  // Opens the stream. `end`: there is no body. False: no memory.
  bool write_head(Http2ClientStream& s, const http::RequestHead& head, bool end);
  // Extended CONNECT is the endpoint's to allow, in its SETTINGS. kUnknown: they have not come; HttpProxy::on_upstream_ready is
  // called again when they have.
  enum class Allowed : uint8_t { kUnknown, kNo, kYes };
  Allowed extended_connect(Http2ClientStream& s);
  // What was written to s.tx may go; `end`: it is all, and `trailers` (may be null; its buffer goes over to the stream) follow.
  void written(Http2ClientStream& s, bool end, HeadBuffer* trailers = nullptr, const http::HeaderTable* table = nullptr);
  // Response bytes were taken out of s.rx.
  void consumed(Http2ClientStream& s, uint64_t bytes);
  // How a stream that closed too early ended.
  static UpstreamFailure failure_of(const Http2ClientStream& s);

  http::H2Context& context() { return context_; }
  uint32_t sessions_in_use() const { return sessions_.in_use(); }
  uint32_t streams_in_use() const { return streams_.in_use(); }

 private:
  friend struct Http2ClientSession;
  void mark(Http2ClientSession& h) {
    if (!h.dirty.linked()) dirty_.push_back(h);
  }
  void receive(Http2ClientSession& h, bool last);
  void process_ready(Http2ClientSession& h);
  void on_stream(Http2ClientStream& s);
  void fail(Http2ClientStream& s);
  void end(Http2ClientSession& h, UpstreamFailure failure, bool reset);
  void flush(Http2ClientSession& h);
  void settle(Http2ClientSession& h);

  WorkerContext& ctx_;
  HttpProxy& proxy_;
  Upstreams& upstreams_;
  http::H2Context context_;
  base::Pool<Http2ClientSession> sessions_;
  base::Pool<Http2ClientStream> streams_;
  base::List<Http2ClientSession, &Http2ClientSession::dirty> dirty_;
  base::List<Http2ClientSession, &Http2ClientSession::paused> paused_;
};

}  // namespace millrace::dataplane
