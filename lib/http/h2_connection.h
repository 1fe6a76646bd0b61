// HTTP/2 (RFC 9113) on one connection, as server or as client: bytes in, streams that have news out; what streams have to say in,
// bytes out. nghttp2 does framing, HPACK, the state machine of streams and flow control; this file joins it to packets, lent
// memory and bounds, and keeps the floods out.
//
//   packets ─▶ receive() ─▶ stream.rx, head, trailers, flags ─▶ pop_ready() ─▶ owner
//   packets ◀─ produce() ◀─ stream.tx ◀─ resume() ◀─ submit_response(), submit_request(), write to stream.tx ◀─ owner
//
// Nothing is called back while nghttp2 works but H2Owner (memory for a new stream and its heads): events are flags of streams, so
// the owner may do what it likes when it looks at them, also reset other streams or give the connection up.
//
// Refuses to know: sockets, TLS, clocks, what a request means, who lends.
//
// Flow control is joined end to end: what stays in stream.rx is not given back to the peer until consumed(); what the peer's
// windows do not allow stays in stream.tx.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lib/base/arena.h"
#include "lib/base/list.h"
#include "lib/base/time.h"
#include "lib/http/message.h"
#include "lib/io/packet_queue.h"

struct nghttp2_session;
struct nghttp2_session_callbacks;
struct nghttp2_option;

namespace millrace::http {

enum class H2Role : uint8_t { kServer, kClient };

// RFC 9113 3.4: what a client says first.
inline constexpr std::string_view kH2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// What a client assumes of a server whose SETTINGS have not come yet (RFC 9113 5.1.2 recommends no fewer).
inline constexpr uint32_t kStreamsBeforeSettings = 100;
// 1xx heads that a stream may bring before its response: an endless row of them would hold an exchange for ever.
inline constexpr uint32_t kMaxInformationalHeads = 32;

// RFC 9113 section 7.
enum class H2Code : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControlError = 3,
  kSettingsTimeout = 4,
  kStreamClosed = 5,
  kFrameSizeError = 6,
  kRefusedStream = 7,
  kCancel = 8,
  kCompressionError = 9,
  kConnectError = 10,
  kEnhanceYourCalm = 11,
  kInadequateSecurity = 12,
  kHttp11Required = 13,
};

enum class H2Error : uint8_t {
#define H2_ERROR(name, details, code, scope, sentence) name,
#include "lib/http/h2_errors.def"
#undef H2_ERROR
  kCount
};
struct H2ErrorInfo {
  const char* details;   // %RESPONSE_CODE_DETAILS%
  H2Code code;           // what the peer is told
  bool connection;       // the connection ends, not only the stream
  const char* sentence;  // for people
};
const H2ErrorInfo& info(H2Error e);

// config.core.v3.Http2ProtocolOptions, with Envoy's defaults of 2026, and the HttpConnectionManager's limits on heads.
struct H2Options {
  uint32_t hpack_table_size = 4096;
  uint32_t max_concurrent_streams = 1024;
  uint32_t initial_stream_window_size = 16u << 20;      // bytes, 65535..2^31-1
  uint32_t initial_connection_window_size = 24u << 20;  // bytes, 65535..2^31-1
  uint32_t max_head_bytes = 60 * 1024;                  // names and values, of a head and of trailers
  uint32_t max_headers = 100;                           // fields, pseudo headers included
  uint32_t max_outbound_frames = 10'000;
  uint32_t max_outbound_control_frames = 1'000;
  uint32_t max_consecutive_inbound_frames_with_empty_payload = 1;
  uint32_t max_inbound_priority_frames_per_stream = 100;
  uint32_t max_inbound_window_update_frames_per_data_frame_sent = 10;
  // Envoy's overload.premature_reset_total_stream_count: a client that has had so many streams reset within a second of their
  // beginning, and more than half of all, is made to leave (CVE-2023-44487).
  uint32_t premature_reset_total_stream_count = 500;
  bool allow_connect = false;                                  // extended CONNECT (RFC 8441)
  bool override_stream_error_on_invalid_http_message = false;  // true: a malformed message costs its stream, not the connection
  friend bool operator==(const H2Options&, const H2Options&) = default;
};

// Where the bytes and fields of a head, or of trailers, are kept. Lent by the owner when the block begins.
struct H2HeadStorage {
  std::span<char> bytes;
  Header* fields = nullptr;
  uint32_t field_capacity = 0;  // of `fields`
};

// One stream, in memory of the owner, which derives from it. Between open (open_stream() or submit_request()) and release() the
// connection may write to it.
struct H2Stream {
  int32_t id = 0;  // 0: not open
  // --- what came
  io::PacketQueue rx;         // body bytes received and not yet taken: take them, then say consumed()
  uint64_t rx_bytes = 0;      // body bytes received in all
  RequestHead request;        // server: once head_complete
  ResponseHead response;      // client: once head_complete; 1xx heads set informational instead
  HeaderTable trailers;       // once trailers_complete
  std::string_view protocol;  // server: ":protocol" of an extended CONNECT (RFC 8441)
  bool head_complete = false;
  // Client: `response` is a 1xx; the owner clears this and head_complete, a further head follows. One that is followed by its
  // successor in the same receive() is never seen.
  bool informational = false;
  bool rx_end = false;  // END_STREAM came: rx will not grow
  bool trailers_complete = false;
  bool head_sent = false;  // client: the request's head is framed; before that the peer knows nothing of the stream
  bool closed = false;     // both sides are over, or it was reset: no event will follow. release() it when rx has been read.
  H2Error error = H2Error::kNone;       // closed: why, when not in order
  H2Code peer_code = H2Code::kNoError;  // with kRemoteReset: what the peer said
  // --- what goes
  io::PacketQueue tx;                        // body bytes not yet framed: write, then resume()
  bool tx_end = false;                       // set before the last resume(): tx will not grow
  bool tx_ended = false;                     // END_STREAM is framed
  const HeaderTable* tx_trailers = nullptr;  // with tx_end: sent behind the body; lives until tx_ended or closed
  uint64_t tx_bytes = 0;                     // body bytes framed in all
  // Set by who writes and finds tx full enough: when tx holds fewer bytes, the stream gets ready and nobody waits any more.
  uint64_t tx_wanted_below = UINT64_MAX;  // bytes; UINT64_MAX: nobody waits

  // Bytes of the lent head storage that the head takes; what is behind them is the owner's.
  uint32_t head_bytes_used() const { return head_bytes_used_; }

 private:
  friend class H2Connection;
  friend struct H2Callbacks;
  uint32_t head_bytes_used_ = 0;
  char* base_ = nullptr;  // of the storage lent for the block under way
  std::span<char> room_;  // of the field block under way: what is left of its bytes
  HeaderTable block_;     // its fields so far
  uint32_t block_bytes_ = 0, block_fields_ = 0;
  uint32_t informational_heads_ = 0;
  std::string_view host_;  // the host field, where :authority may be missing
  base::TimeNs opened_at_ = 0;
  bool block_trailers_ = false;      // the block is trailers
  bool informational_head_ = false;  // the last whole head was a 1xx
  bool block_dropped_ = false;       // trailers nobody lent memory for
  bool deferred_ = false;            // nghttp2 waits for resume()
  base::ListNode ready_;
};

class H2Owner {
 public:
  // Server: the peer opens a stream: fresh memory for it, or null (refused: RFC 9113 8.7 lets the client try again).
  virtual H2Stream* open_stream() = 0;
  // A head (request, response, also 1xx) or trailers of that stream begin: memory for it, which lives until release(). False:
  // none is left. A head without memory resets its stream; trailers are dropped.
  virtual bool lend(H2Stream& s, bool trailers, H2HeadStorage* storage) = 0;
  // A head does not fit what was lent for it: more, to which everything is copied. What was lent before must stay readable until
  // this call's caller returns. False: there is no more (the stream is reset).
  virtual bool grow(H2Stream& s, H2HeadStorage* storage) = 0;

 protected:
  ~H2Owner() = default;
};

// What all connections of a worker share. Make it before the poll loop: it allocates. One thread.
class H2Context {
 public:
  // `arena`: where nghttp2 allocates; null: malloc (tests). `pool`: packets for frames and for body bytes that must be copied.
  H2Context(base::Arena* arena, io::PacketPool pool);
  ~H2Context();
  H2Context(const H2Context&) = delete;
  H2Context& operator=(const H2Context&) = delete;

  io::PacketPool& pool() { return pool_; }

 private:
  friend class H2Connection;
  friend struct H2Callbacks;
  static constexpr uint32_t kMaxFields = 1100;  // as many as a large head buffer holds, and pseudo headers
  struct Impl;
  Impl* impl_;
  io::PacketPool pool_;
};

// Counted since the connection began; the owner takes differences.
struct H2Counters {
  uint64_t streams = 0;  // opened, either side
  uint64_t frames_rx = 0;
  uint64_t resets_rx = 0, resets_tx = 0;
  uint64_t goaway_rx = 0, goaway_tx = 0;
  uint64_t pings_rx = 0, ping_acks_rx = 0;
  uint64_t window_updates_rx = 0, priority_rx = 0, settings_rx = 0;
  uint64_t data_frames_tx = 0;
};

class H2Connection {
 public:
  H2Connection() = default;
  ~H2Connection() { stop(); }
  H2Connection(const H2Connection&) = delete;
  H2Connection& operator=(const H2Connection&) = delete;

  // Begins: our SETTINGS (and, as client, the preface) wait in produce(). False: no memory.
  bool start(H2Context& context, H2Role role, const H2Options& options, H2Owner& owner);
  bool started() const { return session_ != nullptr; }
  // Gives all memory back. Streams that are still open are forgotten, not told: release() them first.
  void stop();

  // --- in
  // Reads all of `in` (up to the end, or until the connection fails). False: the connection is over. Some errors are known only
  // when their GOAWAY is framed: call produce(), then look at error().
  bool receive(io::PacketQueue& in, base::TimeNs now);
  // The streams with news since they were last popped, each once.
  H2Stream* pop_ready();
  bool has_ready() const { return !ready_.empty(); }
  // The owner took `bytes` out of s.rx: the peer may send as many more.
  void consumed(H2Stream& s, uint64_t bytes);

  // --- out
  // Server. The head of the response; `end`: there is no body. 1xx with end == false. False: no memory (the connection is over).
  bool submit_response(H2Stream& s, const ResponseHead& head, bool end);
  // Client. Opens the stream. `head.path`, `authority`, `scheme` and `method` become pseudo headers. False: no memory, or no
  // stream may be opened (see may_open()).
  bool submit_request(H2Stream& s, const RequestHead& head, bool end);
  // s.tx grew, or s.tx_end was set.
  void resume(H2Stream& s);
  // A PING of ours; its answer counts in counters().ping_acks_rx. False: no memory (the connection is over).
  bool ping();
  // RST_STREAM. The stream is closed with kLocalReset; no event follows.
  void reset(H2Stream& s, H2Code code);
  // The owner's memory of the stream ends: what it did not read goes back to the connection's window. A stream that is not closed
  // is reset with kCancel (client) or kNoError/kCancel (server).
  void release(H2Stream& s);

  // Server, graceful (RFC 9113 6.8): notice() first, then after a round trip or a drain time goaway().
  void notice();
  void goaway(H2Code code);

  // Frames what may be sent to the end of `out`, until that holds `limit` bytes. False: no memory; the connection is over.
  bool produce(io::PacketQueue& out, uint64_t limit);
  bool wants_write() const;

  // --- state
  H2Error error() const { return error_; }
  // Nothing more will happen: GOAWAY sent or received and no stream left, or failed.
  bool finished() const;
  bool going_away() const { return goaway_received_ || goaway_sent_; }
  bool goaway_received() const { return goaway_received_; }
  uint32_t open_streams() const { return open_streams_; }
  // Body bytes received that lie in the streams' rx: what this connection costs because somebody else is slow.
  uint64_t unread() const { return unread_; }
  // The peer's SETTINGS are known. Before that a client may open kStreamsBeforeSettings streams at most.
  bool settings_received() const { return counters_.settings_rx != 0; }
  // Client: whether the peer's SETTINGS allow extended CONNECT (RFC 8441 3), which H2Stream::protocol makes of a request.
  bool peer_takes_extended_connect() const;
  // Client: how many more streams the peer lets us open now (its SETTINGS_MAX_CONCURRENT_STREAMS, GOAWAY, ids left).
  uint32_t may_open() const;
  // Client: how many streams may be open at once, by the endpoint's SETTINGS and our own limit.
  uint32_t stream_limit() const;
  const H2Counters& counters() const { return counters_; }

 private:
  friend struct H2Callbacks;
  void mark(H2Stream& s) {
    if (!s.ready_.linked()) ready_.push_back(s);
  }
  void fail(H2Error e);
  void read_packet(io::PacketPtr packet);
  size_t add_fields(const HeaderTable& headers, size_t n);
  void check_stream_id(int32_t id);
  void count_empty(bool empty);
  void count_premature_reset();
  void check_floods();

  nghttp2_session* session_ = nullptr;
  H2Context* context_ = nullptr;
  H2Owner* owner_ = nullptr;
  io::PacketQueue* out_ = nullptr;  // while produce() runs
  uint64_t out_limit_ = 0;
  uint32_t frames_left_ = 0;   // DATA frames that packet memory is there for, of this produce()
  base::ByteSpan current_;     // while receive() runs: the packet that is being read
  H2Stream* taker_ = nullptr;  // gets the rest of that packet, from taken_at_ on
  uint32_t taken_at_ = 0;
  H2Options options_;
  H2Counters counters_;
  base::List<H2Stream, &H2Stream::ready_> ready_;
  uint32_t open_streams_ = 0;
  uint32_t empty_frames_ = 0;
  uint64_t unread_ = 0;
  int32_t newest_id_ = -1, skipped_from_ = 0, skipped_to_ = 0;  // of the peer's streams
  uint64_t closed_streams_ = 0, premature_resets_ = 0;
  base::TimeNs now_ = 0;
  H2Error error_ = H2Error::kNone;
  H2Role role_ = H2Role::kServer;
  bool goaway_received_ = false, goaway_sent_ = false, failed_ = false;
};

}  // namespace millrace::http
