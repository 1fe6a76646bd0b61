#include "lib/http/h2_connection.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include <nghttp2/nghttp2.h>

#include "lib/base/assert.h"

namespace millrace::http {

namespace {

constexpr H2ErrorInfo kErrors[] = {
#define kStream false
#define kConnection true
#define H2_ERROR(name, details, code, scope, sentence) {details, H2Code::code, scope, sentence},
#include "lib/http/h2_errors.def"
#undef H2_ERROR
#undef kStream
#undef kConnection
};

// A run of body bytes at the end of a packet is taken over with the packet from this size on; smaller ones are copied together,
// so that they do not pin a packet each.
constexpr uint32_t kTakeFrom = 512;
// Envoy's overload.premature_reset_min_stream_lifetime_seconds.
constexpr base::TimeNs kPrematureReset = base::kSecond;
// Packets that must be left before a DATA frame is begun: its header, a split front and a split back.
constexpr uint32_t kPacketsPerDataFrame = 4;

// What nghttp2 allocates goes through these.
void* arena_malloc(size_t n, void* arena) { return static_cast<base::Arena*>(arena)->allocate(n); }
void arena_free(void* p, void* arena) { static_cast<base::Arena*>(arena)->free_local(p); }
void* arena_calloc(size_t n, size_t size, void* arena) {
  if (size != 0 && n > SIZE_MAX / size) return nullptr;
  void* p = static_cast<base::Arena*>(arena)->allocate(n * size);
  if (p != nullptr) std::memset(p, 0, n * size);
  return p;
}
void* arena_realloc(void* p, size_t n, void* arena) { return static_cast<base::Arena*>(arena)->reallocate(p, n); }

std::string_view text(const uint8_t* p, size_t n) { return {reinterpret_cast<const char*>(p), n}; }

nghttp2_nv field(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())), reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())),
          name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

H2Error error_of(uint32_t code) {
  switch (static_cast<H2Code>(code)) {
    case H2Code::kNoError:
      return H2Error::kNone;
    case H2Code::kInternalError:
      return H2Error::kNoMemory;
    case H2Code::kFlowControlError:
      return H2Error::kFlowControl;
    case H2Code::kFrameSizeError:
      return H2Error::kFrameSize;
    case H2Code::kCompressionError:
      return H2Error::kHpack;
    case H2Code::kEnhanceYourCalm:
      return H2Error::kResetFlood;
    default:
      return H2Error::kProtocol;
  }
}

H2Error error_of_library(int code) {
  switch (code) {
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
      return H2Error::kBadPreface;
    case NGHTTP2_ERR_FLOODED:
      return H2Error::kOutboundControlFlood;
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
      return H2Error::kContinuationFlood;
    case NGHTTP2_ERR_TOO_MANY_SETTINGS:
      return H2Error::kSettingsFlood;
    case NGHTTP2_ERR_NOMEM:
      return H2Error::kNoMemory;
    default:
      return H2Error::kProtocol;
  }
}

}  // namespace

const H2ErrorInfo& info(H2Error e) { return kErrors[static_cast<size_t>(e)]; }

struct H2Context::Impl {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_mem memory{};
  bool has_memory = false;
  nghttp2_option* option = nullptr;  // filled for each connection anew: nghttp2 copies it
  std::array<nghttp2_nv, kMaxFields> fields;
};

// What nghttp2 calls. A struct, so that it sees the insides of streams and connections.
struct H2Callbacks {
  static H2Connection& self(void* user) { return *static_cast<H2Connection*>(user); }
  static H2Stream* stream(nghttp2_session* session, int32_t id) {
    return static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  // --- in

  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* hd, void* user) {
    H2Connection& c = self(user);
    ++c.counters_.frames_rx;
    switch (hd->type) {
      case NGHTTP2_PUSH_PROMISE:  // RFC 9113 8.4: ENABLE_PUSH is 0 before there is a request that a push could belong to
        if (c.role_ == H2Role::kClient) c.fail(H2Error::kPush);
        break;
      case NGHTTP2_HEADERS:
        c.check_stream_id(hd->stream_id);
        [[fallthrough]];
      case NGHTTP2_CONTINUATION:
        c.count_empty(hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0);
        break;
      case NGHTTP2_PRIORITY:
        ++c.counters_.priority_rx;
        break;
      case NGHTTP2_WINDOW_UPDATE:
        ++c.counters_.window_updates_rx;
        break;
      default:
        break;
    }
    c.check_floods();
    return 0;
  }

  static int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Connection& c = self(user);
    const int32_t id = frame->hd.stream_id;
    H2Stream* s = stream(session, id);
    if (s == nullptr) {
      if (c.role_ != H2Role::kServer || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;  // released: nobody reads it
      s = c.failed_ ? nullptr : c.owner_->open_stream();
      if (s == nullptr) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
      }
      s->id = id;
      s->opened_at_ = c.now_;
      nghttp2_session_set_stream_user_data(session, id, s);
      ++c.open_streams_;
      ++c.counters_.streams;
    }
    H2HeadStorage storage;
    s->block_trailers_ = s->head_complete && !s->informational_head_;
    s->block_bytes_ = s->block_fields_ = 0;
    s->host_ = {};
    s->block_dropped_ = false;
    if (!c.owner_->lend(*s, s->block_trailers_, &storage)) {
      if (s->block_trailers_) {
        s->block_dropped_ = true;
        return 0;
      }
      return reset(c, *s, H2Error::kRefused);
    }
    s->room_ = storage.bytes;
    s->base_ = storage.bytes.data();
    s->block_ = HeaderTable(storage.fields, storage.field_capacity);
    if (!s->block_trailers_) {
      s->request = {};
      s->response = {};
      s->protocol = {};
      s->informational = s->informational_head_ = s->head_complete = false;
    }
    return 0;
  }

  static int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                       const uint8_t* value, size_t value_size, uint8_t, void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr || s->block_dropped_) return 0;
    s->block_bytes_ += static_cast<uint32_t>(name_size + value_size);
    if (s->block_bytes_ > c.options_.max_head_bytes) return reset(c, *s, H2Error::kHeadTooLarge);
    if (++s->block_fields_ > c.options_.max_headers) return reset(c, *s, H2Error::kTooManyHeaders);
    if (add(*s, text(name, name_size), text(value, value_size))) return 0;
    if (s->block_trailers_ || !grow(c, *s) || !add(*s, text(name, name_size), text(value, value_size)))
      return reset(c, *s, H2Error::kHeadTooLarge);
    return 0;
  }

  // Moves what there is of a head to larger storage.
  static bool grow(H2Connection& c, H2Stream& s) {
    H2HeadStorage fresh;
    const char* const old = s.base_;
    const size_t used = static_cast<size_t>(s.room_.data() - old);
    if (!c.owner_->grow(s, &fresh) || fresh.bytes.size() < used || fresh.field_capacity < s.block_.size()) return false;
    std::memcpy(fresh.bytes.data(), old, used);
    const auto moved = [&](std::string_view v) {
      return v.data() >= old && v.data() <= old + used ? std::string_view(fresh.bytes.data() + (v.data() - old), v.size()) : v;
    };
    HeaderTable fields(fresh.fields, fresh.field_capacity);
    for (const Header& h : s.block_) fields.push({moved(h.name), moved(h.value), h.id});
    s.block_ = fields;
    for (std::string_view* v :
         {&s.request.method, &s.request.path, &s.request.authority, &s.request.scheme, &s.protocol, &s.host_})
      if (v->data() != nullptr) *v = moved(*v);
    s.base_ = fresh.bytes.data();
    s.room_ = fresh.bytes.subspan(used);
    return true;
  }

  static bool add(H2Stream& s, std::string_view name, std::string_view value) {
    const HeaderId id = name.starts_with(':') ? HeaderId::kOther : header_id(name);
    std::string_view kept_name = header_name(id);
    const size_t bytes = value.size() + (id == HeaderId::kOther && !name.starts_with(':') ? name.size() : 0);
    if (bytes > s.room_.size()) return false;
    char* const at = s.room_.data();
    std::memcpy(at, value.data(), value.size());
    const std::string_view kept{at, value.size()};
    if (bytes != value.size()) {
      std::memcpy(at + value.size(), name.data(), name.size());
      kept_name = {at + value.size(), name.size()};
    }
    s.room_ = s.room_.subspan(bytes);
    if (name.starts_with(':')) {
      if (name == ":method") s.request.method = kept;
      else if (name == ":path") s.request.path = kept;
      else if (name == ":authority") s.request.authority = kept;
      else if (name == ":scheme") s.request.scheme = kept;
      else if (name == ":protocol") s.protocol = kept;
      else if (name == ":status")  // nghttp2 has seen that it is three digits
        s.response.status = static_cast<uint16_t>((kept[0] - '0') * 100 + (kept[1] - '0') * 10 + (kept[2] - '0'));
      return true;
    }
    if (id == HeaderId::kHost) {
      s.host_ = kept;
      return true;
    }
    return s.block_.push({kept_name, kept, id});
  }

  static int on_invalid_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t*, size_t, const uint8_t*,
                               size_t, uint8_t, void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    malformed(c, *s, H2Error::kInvalidHeader);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }

  static int on_invalid_frame(nghttp2_session* session, const nghttp2_frame* frame, int error, void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr || (error != NGHTTP2_ERR_HTTP_HEADER && error != NGHTTP2_ERR_HTTP_MESSAGING)) return 0;
    malformed(c, *s, error == NGHTTP2_ERR_HTTP_HEADER ? H2Error::kInvalidHeader : H2Error::kMessaging);
    return 0;  // nghttp2 resets the stream with PROTOCOL_ERROR
  }

  static int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Connection& c = self(user);
    switch (frame->hd.type) {
      case NGHTTP2_HEADERS: {
        H2Stream* s = stream(session, frame->hd.stream_id);
        if (s == nullptr) return 0;
        if (!complete(c, *s)) return 0;
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) s->rx_end = true;
        c.mark(*s);
        return 0;
      }
      case NGHTTP2_DATA: {
        c.count_empty(frame->hd.length - frame->data.padlen == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0);
        c.check_floods();
        H2Stream* s = stream(session, frame->hd.stream_id);
        if (s == nullptr) return 0;
        if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) s->rx_end = true;
        c.mark(*s);
        return 0;
      }
      case NGHTTP2_RST_STREAM:  // on_stream_close follows
        ++c.counters_.resets_rx;
        if (const H2Stream* s = stream(session, frame->hd.stream_id); s == nullptr || c.now_ - s->opened_at_ < kPrematureReset)
          c.count_premature_reset();
        return 0;
      case NGHTTP2_SETTINGS:
        ++c.counters_.settings_rx;
        return 0;
      case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) ++c.counters_.ping_acks_rx;
        else ++c.counters_.pings_rx;
        return 0;
      case NGHTTP2_GOAWAY:
        ++c.counters_.goaway_rx;
        c.goaway_received_ = true;
        return 0;
      default:
        return 0;
    }
  }

  // A field block is whole. False: the stream was reset for it.
  static bool complete(H2Connection& c, H2Stream& s) {
    if (s.block_trailers_) {
      if (!s.block_dropped_) {
        s.trailers = s.block_;
        s.trailers_complete = true;
      }
      s.rx_end = true;
      return true;
    }
    if (!join_cookies(s) && !(grow(c, s) && join_cookies(s))) {
      reset(c, s, H2Error::kHeadTooLarge);
      return false;
    }
    if (c.role_ == H2Role::kServer) {
      s.request.version = Version::kHttp2;
      // RFC 9113 8.3.1: :authority and Host must not differ; a request without :authority is the Host's.
      if (s.request.authority.data() == nullptr) {
        s.request.authority = s.host_;
      } else if (s.host_.data() != nullptr && s.host_ != s.request.authority) {
        malformed(c, s, H2Error::kMessaging);
        if (!c.failed_) reset(c, s, H2Error::kMessaging);
        return false;
      }
      s.request.headers = s.block_;
    } else {
      s.response.version = Version::kHttp2;
      s.response.headers = s.block_;
      s.informational = s.informational_head_ = s.response.status < 200;
      if (s.informational && ++s.informational_heads_ > kMaxInformationalHeads) {
        reset(c, s, H2Error::kInformationalFlood);
        return false;
      }
    }
    s.head_bytes_used_ = static_cast<uint32_t>(s.room_.data() - s.base_);
    s.head_complete = true;
    return true;
  }

  // RFC 9113 8.2.3: what a client split for HPACK's sake is one field for everybody behind us; as Envoy's it stands last.
  static bool join_cookies(H2Stream& s) {
    if (!s.block_.has(HeaderId::kCookie)) return true;
    if ((s.block_.repeated() & bit_of(HeaderId::kCookie)) == 0) {
      const std::string_view value = s.block_.get(HeaderId::kCookie);
      s.block_.remove(HeaderId::kCookie);
      return s.block_.add(HeaderId::kCookie, value);
    }
    char* const at = s.room_.data();
    size_t n = 0;
    for (const Header& h : s.block_) {
      if (h.id != HeaderId::kCookie) continue;
      const size_t separator = n == 0 ? 0 : 2;
      if (n + separator + h.value.size() > s.room_.size()) return false;
      std::memcpy(at + n, "; ", separator);
      std::memcpy(at + n + separator, h.value.data(), h.value.size());
      n += separator + h.value.size();
    }
    s.room_ = s.room_.subspan(n);
    s.block_.remove(HeaderId::kCookie);
    return s.block_.add(HeaderId::kCookie, {at, n});
  }

  static int on_data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t n, void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, id);
    if (s == nullptr || s->closed) {
      nghttp2_session_consume(session, id, n);
      return 0;
    }
    s->rx_bytes += n;
    c.unread_ += n;
    const uint8_t* const end = c.current_.data() + c.current_.size();
    if (n >= kTakeFrom && data + n == end) {
      c.taker_ = s;
      c.taken_at_ = static_cast<uint32_t>(data - c.current_.data());
      return 0;
    }
    if (s->rx.append_copy({data, n}, c.context_->pool_) != n) c.fail(H2Error::kNoMemory);
    return 0;
  }

  static int on_stream_close(nghttp2_session* session, int32_t id, uint32_t code, void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, id);
    ++c.closed_streams_;
    if (s == nullptr) return 0;
    nghttp2_session_set_stream_user_data(session, id, nullptr);
    --c.open_streams_;
    s->closed = true;
    s->deferred_ = false;
    if (c.role_ == H2Role::kClient && !s->head_sent) {
      if (s->error == H2Error::kNone) s->error = H2Error::kGoAway;  // nghttp2 would not send it: the peer is going away
    } else if (code != NGHTTP2_NO_ERROR && s->error == H2Error::kNone) {
      s->peer_code = static_cast<H2Code>(code);
      s->error = c.goaway_received_ && code == NGHTTP2_REFUSED_STREAM ? H2Error::kGoAway
                 : code == NGHTTP2_REFUSED_STREAM                     ? H2Error::kRemoteRefused
                                                                      : H2Error::kRemoteReset;
    } else if (code == NGHTTP2_NO_ERROR && !(s->rx_end && s->tx_ended) && s->error == H2Error::kNone) {
      s->error = H2Error::kRemoteReset;  // RST_STREAM(NO_ERROR): a server that has answered and wants no more body
    }
    c.mark(*s);
    return 0;
  }

  static int on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* user) {
    H2Connection& c = self(user);
    switch (frame->hd.type) {
      case NGHTTP2_HEADERS:
        if (c.role_ == H2Role::kClient)
          if (H2Stream* s = stream(session, frame->hd.stream_id); s != nullptr) s->head_sent = true;
        break;
      case NGHTTP2_DATA:
        ++c.counters_.data_frames_tx;
        break;
      case NGHTTP2_RST_STREAM:
        ++c.counters_.resets_tx;
        break;
      case NGHTTP2_GOAWAY:
        ++c.counters_.goaway_tx;
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
          c.failed_ = true;
          if (c.error_ == H2Error::kNone) c.error_ = error_of(frame->goaway.error_code);
        }
        break;
      default:
        break;
    }
    return 0;
  }

  // --- out

  static ssize_t send(nghttp2_session*, const uint8_t* data, size_t n, int, void* user) {
    H2Connection& c = self(user);
    const size_t taken = c.out_->append_copy({data, n}, c.context_->pool_);
    return taken == 0 ? static_cast<ssize_t>(NGHTTP2_ERR_WOULDBLOCK) : static_cast<ssize_t>(taken);
  }

  static ssize_t read_body(nghttp2_session* session, int32_t id, uint8_t*, size_t limit, uint32_t* flags, nghttp2_data_source*,
                           void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, id);
    if (s == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // released: its RST_STREAM is on the way
    if (c.out_->bytes() >= c.out_limit_ || c.frames_left_ == 0) return NGHTTP2_ERR_PAUSE;
    const uint64_t n = std::min<uint64_t>(limit, s->tx.bytes());
    const bool last = s->tx_end && n == s->tx.bytes();
    if (n == 0 && !last) {
      s->deferred_ = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (last) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (s->tx_trailers != nullptr && s->tx_trailers->size() != 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const size_t fields = c.add_fields(*s->tx_trailers, 0);
        if (nghttp2_submit_trailer(session, id, c.context_->impl_->fields.data(), fields) != 0)
          return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
      }
      s->tx_ended = true;
    }
    return static_cast<ssize_t>(n);
  }

  static int send_body(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* header, size_t n, nghttp2_data_source*,
                       void* user) {
    H2Connection& c = self(user);
    H2Stream* s = stream(session, frame->hd.stream_id);
    if (s == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (c.frames_left_ == 0) return NGHTTP2_ERR_WOULDBLOCK;
    --c.frames_left_;
    io::PacketPool& pool = c.context_->pool_;
    constexpr size_t kFrameHeaderBytes = 9;
    if (c.out_->append_copy({header, kFrameHeaderBytes}, pool) != kFrameHeaderBytes || s->tx.move_to(*c.out_, n, pool) != n)
      return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->tx_bytes += n;
    if (s->tx_wanted_below != UINT64_MAX && s->tx.bytes() < s->tx_wanted_below) {
      s->tx_wanted_below = UINT64_MAX;
      c.mark(*s);
    }
    return 0;
  }

  // --- ends

  // A malformed message: its stream's end, or, as Envoy has it unless told otherwise, the connection's.
  static void malformed(H2Connection& c, H2Stream& s, H2Error e) {
    if (s.error == H2Error::kNone) s.error = e;
    if (!c.options_.override_stream_error_on_invalid_http_message) c.fail(e);
  }
  // For use inside a callback about that stream.
  static int reset(H2Connection& c, H2Stream& s, H2Error e) {
    if (s.error == H2Error::kNone) s.error = e;
    nghttp2_submit_rst_stream(c.session_, NGHTTP2_FLAG_NONE, s.id, static_cast<uint32_t>(info(e).code));
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  }
};

H2Context::H2Context(base::Arena* arena, io::PacketPool pool) : impl_(new Impl), pool_(pool) {
  nghttp2_session_callbacks* cb = nullptr;
  MILLRACE_ASSERT(nghttp2_session_callbacks_new(&cb) == 0, "memory at start");
  nghttp2_session_callbacks_set_on_begin_frame_callback(cb, H2Callbacks::on_begin_frame);
  nghttp2_session_callbacks_set_on_begin_headers_callback(cb, H2Callbacks::on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(cb, H2Callbacks::on_header);
  nghttp2_session_callbacks_set_on_invalid_header_callback(cb, H2Callbacks::on_invalid_header);
  nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, H2Callbacks::on_invalid_frame);
  nghttp2_session_callbacks_set_on_frame_recv_callback(cb, H2Callbacks::on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, H2Callbacks::on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(cb, H2Callbacks::on_stream_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(cb, H2Callbacks::on_frame_sent);
  nghttp2_session_callbacks_set_send_callback(cb, H2Callbacks::send);
  nghttp2_session_callbacks_set_send_data_callback(cb, H2Callbacks::send_body);
  impl_->callbacks = cb;
  MILLRACE_ASSERT(nghttp2_option_new(&impl_->option) == 0, "memory at start");
  nghttp2_option_set_no_auto_window_update(impl_->option, 1);
  nghttp2_option_set_stream_reset_rate_limit(impl_->option, UINT32_MAX, UINT32_MAX);  // it asks a clock: ours is its better
  nghttp2_option_set_peer_max_concurrent_streams(impl_->option, kStreamsBeforeSettings);
  if (arena != nullptr) {
    impl_->memory = {arena, arena_malloc, arena_free, arena_calloc, arena_realloc};
    impl_->has_memory = true;
  }
}

H2Context::~H2Context() {
  nghttp2_session_callbacks_del(impl_->callbacks);
  nghttp2_option_del(impl_->option);
  delete impl_;
}

bool H2Connection::start(H2Context& context, H2Role role, const H2Options& options, H2Owner& owner) {
  MILLRACE_ASSERT(session_ == nullptr, "a connection starts once");
  context_ = &context;
  owner_ = &owner;
  options_ = options;
  role_ = role;
  counters_ = {};
  error_ = H2Error::kNone;
  open_streams_ = empty_frames_ = 0;
  unread_ = 0;
  closed_streams_ = premature_resets_ = 0;
  newest_id_ = -1;
  skipped_from_ = skipped_to_ = 0;
  goaway_received_ = goaway_sent_ = failed_ = false;

  nghttp2_option* option = context.impl_->option;
  nghttp2_option_set_max_outbound_ack(option, options.max_outbound_control_frames);
  nghttp2_mem* memory = context.impl_->has_memory ? &context.impl_->memory : nullptr;
  const int made = role == H2Role::kServer
                       ? nghttp2_session_server_new3(&session_, context.impl_->callbacks, this, option, memory)
                       : nghttp2_session_client_new3(&session_, context.impl_->callbacks, this, option, memory);
  if (made != 0) {
    session_ = nullptr;
    return false;
  }
  std::array<nghttp2_settings_entry, 8> settings;
  size_t n = 0;
  settings[n++] = {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, options.hpack_table_size};
  if (role == H2Role::kClient) settings[n++] = {NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  else settings[n++] = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams};
  settings[n++] = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.initial_stream_window_size};
  if (role == H2Role::kServer) {
    settings[n++] = {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options.max_head_bytes + 32 * options.max_headers};
    if (options.allow_connect) settings[n++] = {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
  }
  if (nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), n) != 0 ||
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                            static_cast<int32_t>(options.initial_connection_window_size)) != 0) {
    stop();
    return false;
  }
  return true;
}

void H2Connection::stop() {
  if (session_ == nullptr) return;
  while (ready_.pop_front() != nullptr) {
  }
  nghttp2_session_del(session_);
  session_ = nullptr;
}

void H2Connection::fail(H2Error e) {
  if (error_ == H2Error::kNone) error_ = e;
  if (failed_) return;
  failed_ = true;
  nghttp2_session_terminate_session(session_, static_cast<uint32_t>(info(e).code));
}

// RFC 9113 5.1.1: ids only grow. One that was passed over was never opened; nghttp2 takes it for a stream long closed.
void H2Connection::check_stream_id(int32_t id) {
  if (role_ != H2Role::kServer || (id & 1) == 0) return;
  if (id > newest_id_) {
    if (id > newest_id_ + 2) {
      skipped_from_ = newest_id_;
      skipped_to_ = id;
    }
    newest_id_ = id;
  } else if (id > skipped_from_ && id < skipped_to_) {
    fail(H2Error::kProtocol);
  }
}

void H2Connection::count_empty(bool empty) {
  if (!empty) {
    empty_frames_ = 0;
  } else if (++empty_frames_ > options_.max_consecutive_inbound_frames_with_empty_payload) {
    fail(H2Error::kEmptyFrames);
  }
}

// Envoy: ConnectionManagerImpl::maybeDrainDueToPrematureResets.
void H2Connection::count_premature_reset() {
  ++premature_resets_;
  const uint64_t closed = closed_streams_ + 1;  // with this one
  if (role_ == H2Role::kServer && closed > options_.premature_reset_total_stream_count && premature_resets_ * 2 > closed)
    fail(H2Error::kResetFlood);
}

// Envoy's bounds (ProtocolConstraints::checkInboundFrameLimits).
void H2Connection::check_floods() {
  if (failed_) return;
  if (counters_.priority_rx > uint64_t{options_.max_inbound_priority_frames_per_stream} * (1 + counters_.streams))
    return fail(H2Error::kPriorityFlood);
  if (counters_.window_updates_rx >
      5 + 2 * (counters_.streams +
               uint64_t{options_.max_inbound_window_update_frames_per_data_frame_sent} * counters_.data_frames_tx))
    return fail(H2Error::kWindowUpdateFlood);
  if (nghttp2_session_get_outbound_queue_size(session_) > options_.max_outbound_frames) fail(H2Error::kOutboundFlood);
}

void H2Connection::read_packet(io::PacketPtr packet) {
  current_ = packet.bytes();
  taker_ = nullptr;
  const ssize_t n = nghttp2_session_mem_recv(session_, current_.data(), current_.size());
  current_ = {};
  if (taker_ != nullptr) {
    packet.trim_front(taken_at_);
    taker_->rx.push_whole(std::move(packet));
    taker_ = nullptr;
  }
  if (n < 0) {
    if (error_ == H2Error::kNone) error_ = error_of_library(static_cast<int>(n));
    failed_ = true;
    nghttp2_session_terminate_session(session_, static_cast<uint32_t>(info(error_).code));
  }
}

bool H2Connection::receive(io::PacketQueue& in, base::TimeNs now) {
  now_ = now;
  while (!failed_) {
    io::PacketPtr packet = in.pop();
    if (!packet) break;
    read_packet(std::move(packet));
  }
  return !failed_;
}

H2Stream* H2Connection::pop_ready() { return ready_.pop_front(); }

void H2Connection::consumed(H2Stream& s, uint64_t bytes) {
  if (bytes == 0) return;
  unread_ -= bytes;
  nghttp2_session_consume(session_, s.id, bytes);
}

size_t H2Connection::add_fields(const HeaderTable& headers, size_t n) {
  // RFC 9113 8.2.2: what belongs to a connection of HTTP/1.
  constexpr uint64_t kConnectionFields = bit_of(HeaderId::kConnection) | bit_of(HeaderId::kKeepAlive) |
                                         bit_of(HeaderId::kProxyConnection) | bit_of(HeaderId::kTransferEncoding) |
                                         bit_of(HeaderId::kUpgrade) | bit_of(HeaderId::kHttp2Settings) | bit_of(HeaderId::kHost);
  for (const Header& h : headers) {
    if (h.id != HeaderId::kOther && (bit_of(h.id) & kConnectionFields) != 0) continue;
    if (h.id == HeaderId::kTe && h.value != "trailers") continue;
    if (n == context_->impl_->fields.size()) break;
    context_->impl_->fields[n++] = field(h.name, h.value);
  }
  return n;
}

bool H2Connection::submit_response(H2Stream& s, const ResponseHead& head, bool end) {
  if (s.closed || failed_) return !failed_;
  char digits[3] = {static_cast<char>('0' + head.status / 100 % 10), static_cast<char>('0' + head.status / 10 % 10),
                    static_cast<char>('0' + head.status % 10)};
  auto& fields = context_->impl_->fields;
  fields[0] = field(":status", {digits, 3});
  const size_t n = add_fields(head.headers, 1);
  int r = 0;
  if (head.status < 200) {
    r = nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, s.id, nullptr, fields.data(), n, nullptr);
  } else {
    const nghttp2_data_provider body{{.ptr = nullptr}, H2Callbacks::read_body};
    r = nghttp2_submit_response(session_, s.id, fields.data(), n, end ? nullptr : &body);
    if (end) s.tx_end = s.tx_ended = true;
  }
  if (r == 0) return true;
  fail(H2Error::kNoMemory);
  return false;
}

bool H2Connection::submit_request(H2Stream& s, const RequestHead& head, bool end) {
  if (may_open() == 0) return false;
  auto& fields = context_->impl_->fields;
  size_t n = 0;
  const bool connect = head.method == "CONNECT" && s.protocol.empty();
  fields[n++] = field(":method", head.method);
  if (!connect) {
    fields[n++] = field(":scheme", head.scheme);
    fields[n++] = field(":path", head.path);
  }
  fields[n++] = field(":authority", head.authority);
  if (!s.protocol.empty()) fields[n++] = field(":protocol", s.protocol);
  n = add_fields(head.headers, n);
  const nghttp2_data_provider body{{.ptr = nullptr}, H2Callbacks::read_body};
  const int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), n, end ? nullptr : &body, &s);
  if (id < 0) {
    if (nghttp2_is_fatal(id)) fail(H2Error::kNoMemory);
    return false;
  }
  s.id = id;
  if (end) s.tx_end = s.tx_ended = true;
  ++open_streams_;
  ++counters_.streams;
  return true;
}

void H2Connection::resume(H2Stream& s) {
  if (!s.deferred_ || s.closed) return;
  s.deferred_ = false;
  nghttp2_session_resume_data(session_, s.id);
}

bool H2Connection::ping() {
  if (failed_) return false;
  if (nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr) == 0) return true;
  fail(H2Error::kNoMemory);
  return false;
}

void H2Connection::reset(H2Stream& s, H2Code code) {
  if (s.closed || s.id == 0) return;
  if (s.error == H2Error::kNone) s.error = H2Error::kLocalReset;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, s.id, static_cast<uint32_t>(code));
  nghttp2_session_set_stream_user_data(session_, s.id, nullptr);
  --open_streams_;
  s.closed = true;
  s.deferred_ = false;
  s.ready_.unlink();
}

void H2Connection::release(H2Stream& s) {
  if (!s.closed) reset(s, H2Code::kCancel);
  s.ready_.unlink();
  if (session_ != nullptr && !s.rx.empty()) {
    unread_ -= s.rx.bytes();
    nghttp2_session_consume_connection(session_, s.rx.bytes());
  }
  s.rx.clear();
  s.tx.clear();
}

void H2Connection::notice() { nghttp2_submit_shutdown_notice(session_); }

void H2Connection::goaway(H2Code code) {
  if (failed_ || goaway_sent_) return;
  goaway_sent_ = true;
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                        static_cast<uint32_t>(code), nullptr, 0);
}

bool H2Connection::produce(io::PacketQueue& out, uint64_t limit) {
  out_ = &out;
  out_limit_ = limit;
  frames_left_ = context_->pool_.available() / kPacketsPerDataFrame;  // asked once: it adds up the caches of all cores
  const int r = nghttp2_session_send(session_);
  out_ = nullptr;
  if (r == 0) return true;
  if (error_ == H2Error::kNone) error_ = error_of_library(r);
  failed_ = true;
  return false;
}

bool H2Connection::wants_write() const { return nghttp2_session_want_write(session_) != 0; }

bool H2Connection::finished() const {
  return failed_ || ((goaway_received_ || goaway_sent_) && open_streams_ == 0 && nghttp2_session_want_write(session_) == 0);
}

uint32_t H2Connection::may_open() const {
  if (failed_ || goaway_received_ || goaway_sent_ || nghttp2_session_check_request_allowed(session_) == 0) return 0;
  const uint32_t limit = stream_limit();
  return limit > open_streams_ ? limit - open_streams_ : 0;
}

bool H2Connection::peer_takes_extended_connect() const {
  return nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

uint32_t H2Connection::stream_limit() const {
  const uint32_t peer = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return std::min(peer, options_.max_concurrent_streams);
}

}  // namespace millrace::http
