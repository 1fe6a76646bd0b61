// H2Connection: a server and a client of ours against each other, and a server against frames made by hand.
#include "lib/http/h2_connection.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/prng.h"
#include "tests/support/heap_packet_pool.h"

namespace millrace::http {
namespace {

using namespace std::string_literals;

struct TestStream : H2Stream {
  char bytes[8192], trailer_bytes[1024];
  Header fields[128], trailer_fields[16];
  std::unique_ptr<char[]> large;
  std::unique_ptr<Header[]> large_fields;
};

struct Owner final : H2Owner {
  std::deque<std::unique_ptr<TestStream>> streams;
  uint32_t refuse_after = UINT32_MAX;
  bool lend_trailers = true;
  H2Stream* open_stream() override {
    if (streams.size() >= refuse_after) return nullptr;
    return make();
  }
  TestStream* make() {
    streams.push_back(std::make_unique<TestStream>());
    return streams.back().get();
  }
  bool lend(H2Stream& s, bool trailers, H2HeadStorage* storage) override {
    auto& t = static_cast<TestStream&>(s);
    if (trailers) {
      if (!lend_trailers) return false;
      *storage = {t.trailer_bytes, t.trailer_fields, 16};
    } else {
      *storage = {t.bytes, t.fields, 112};
    }
    return true;
  }
  bool grow(H2Stream& s, H2HeadStorage* storage) override {
    auto& t = static_cast<TestStream&>(s);
    if (t.large != nullptr) return false;
    t.large = std::make_unique<char[]>(100'000);
    t.large_fields = std::make_unique<Header[]>(1100);
    *storage = {{t.large.get(), 100'000}, t.large_fields.get(), 1100};
    return true;
  }
};

std::string drain(io::PacketQueue& q) {
  std::string s;
  while (!q.empty()) {
    const base::ByteSpan f = q.front();
    s.append(reinterpret_cast<const char*>(f.data()), f.size());
    q.consume(f.size());
  }
  return s;
}

std::string peek(const io::PacketQueue& q) {
  std::string s(q.bytes(), '\0');
  q.peek(0, reinterpret_cast<uint8_t*>(s.data()), s.size());
  return s;
}

// --- frames by hand

std::string u24(uint32_t v) { return {static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)}; }
std::string u32(uint32_t v) { return static_cast<char>(v >> 24) + u24(v); }
std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  return u24(static_cast<uint32_t>(payload.size())) + static_cast<char>(type) + static_cast<char>(flags) + u32(stream) +
         std::string(payload);
}
enum : uint8_t { kData, kHeaders, kPriority, kRst, kSettings, kPush, kPing, kGoAwayFrame, kWindow, kContinuation };
constexpr uint8_t kEndStream = 1, kEndHeaders = 4, kAck = 1;
const std::string kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
std::string literal(std::string_view name, std::string_view value) {  // HPACK literal without indexing, short strings
  return "\0"s + static_cast<char>(name.size()) + std::string(name) + static_cast<char>(value.size()) + std::string(value);
}
// :method GET, :scheme http, :path /, :authority h
std::string get_block() { return "\x82\x86\x84"s + literal(":authority", "h"); }
std::string hello() { return kMagic + frame(kSettings, 0, 0, ""); }

struct Frame {
  uint8_t type, flags;
  uint32_t stream;
  std::string payload;
};
std::vector<Frame> parse(std::string_view s) {
  std::vector<Frame> v;
  const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(s[i])); };
  while (s.size() >= 9) {
    const uint32_t n = at(0) << 16 | at(1) << 8 | at(2);
    v.push_back({static_cast<uint8_t>(at(3)), static_cast<uint8_t>(at(4)), at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8),
                 std::string(s.substr(9, n))});
    s.remove_prefix(9 + n);
  }
  EXPECT_TRUE(s.empty());
  return v;
}

class H2 : public ::testing::Test {
 protected:
  void start(H2Options options = {}) {
    ASSERT_TRUE(server.start(context, H2Role::kServer, options, server_owner));
    ASSERT_TRUE(client.start(context, H2Role::kClient, {}, client_owner));
  }
  void start_server(H2Options options = {}) { ASSERT_TRUE(server.start(context, H2Role::kServer, options, server_owner)); }
  // Everything both have to say, until nobody has anything.
  void exchange(uint64_t limit = 1 << 20) {
    for (int i = 0; i < 100; ++i) {
      io::PacketQueue up, down;
      ASSERT_TRUE(client.produce(up, limit));
      ASSERT_TRUE(server.produce(down, limit));
      if (up.empty() && down.empty()) return;
      EXPECT_TRUE(server.receive(up, now));
      EXPECT_TRUE(client.receive(down, now));
    }
  }
  TestStream* request(std::string_view method, std::string_view path, bool end, std::vector<Header> extra = {}) {
    TestStream* s = client_owner.make();
    RequestHead head;
    head.method = method;
    head.path = path;
    head.authority = "host.test";
    head.scheme = "http";
    head.headers = HeaderTable(extra.data(), static_cast<uint32_t>(extra.size() + 8));
    std::vector<Header> storage(extra.size() + 1);
    head.headers = HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    EXPECT_TRUE(client.submit_request(*s, head, end));
    return s;
  }
  void respond(H2Stream& s, uint16_t status, bool end, std::vector<Header> extra = {}) {
    ResponseHead head;
    head.status = status;
    std::vector<Header> storage(extra.size() + 1);
    head.headers = HeaderTable(storage.data(), static_cast<uint32_t>(storage.size()));
    for (const Header& h : extra) head.headers.push(h);
    EXPECT_TRUE(server.submit_response(s, head, end));
  }
  void write(H2Connection& c, H2Stream& s, std::string_view body, bool end) {
    EXPECT_EQ(s.tx.append_copy(body, pool), body.size());
    s.tx_end = end;
    c.resume(s);
  }
  TestStream* next(H2Connection& c) { return static_cast<TestStream*>(c.pop_ready()); }
  // Raw bytes to the server; its answer as frames.
  bool feed(std::string_view bytes, size_t packet = 1400) {
    io::PacketQueue q;
    for (size_t i = 0; i < bytes.size(); i += packet) q.push_whole(pool.make(bytes.substr(i, packet)));
    return server.receive(q, now);
  }
  std::vector<Frame> answer() {
    io::PacketQueue q;
    server.produce(q, 1 << 20);
    return parse(drain(q));
  }
  uint32_t goaway_code() {
    for (const Frame& f : answer())
      if (f.type == kGoAwayFrame) return static_cast<uint8_t>(f.payload[7]);
    return UINT32_MAX;
  }

  base::TimeNs now = base::kSecond;
  support::HeapPacketPool pool{8192};
  H2Context context{nullptr, pool};
  Owner server_owner, client_owner;
  H2Connection server, client;
};

TEST_F(H2, RequestAndResponseWithBodiesAndTrailers) {
  start();
  exchange();
  TestStream* up = request("POST", "/a?b=c", false, {{"x-one", "1"}, {"content-type", "text/plain", HeaderId::kContentType}});
  write(client, *up, "hello ", false);
  exchange();
  TestStream* s = next(server);
  ASSERT_NE(s, nullptr);
  EXPECT_TRUE(s->head_complete);
  EXPECT_FALSE(s->rx_end);
  EXPECT_EQ(s->request.method, "POST");
  EXPECT_EQ(s->request.path, "/a?b=c");
  EXPECT_EQ(s->request.authority, "host.test");
  EXPECT_EQ(s->request.scheme, "http");
  EXPECT_EQ(s->request.version, Version::kHttp2);
  ASSERT_EQ(s->request.headers.size(), 2u);
  EXPECT_EQ(s->request.headers[0].name, "x-one");
  EXPECT_EQ(s->request.headers.get(HeaderId::kContentType), "text/plain");
  EXPECT_EQ(peek(s->rx), "hello ");
  write(client, *up, "world", true);
  exchange();
  ASSERT_EQ(next(server), s);
  EXPECT_TRUE(s->rx_end);
  EXPECT_EQ(drain(s->rx), "hello world");
  server.consumed(*s, 11);

  respond(*s, 100, false);
  exchange();
  ASSERT_EQ(next(client), up);
  EXPECT_TRUE(up->informational);
  EXPECT_EQ(up->response.status, 100);
  respond(*s, 200, false, {{"connection", "close", HeaderId::kConnection}, {"x-two", "2"}});
  Header fields[2];
  HeaderTable trailers(fields, 2);
  trailers.push({"grpc-status", "0", HeaderId::kGrpcStatus});
  s->tx_trailers = &trailers;
  write(server, *s, "answer", true);
  exchange();
  ASSERT_EQ(next(client), up);
  EXPECT_FALSE(up->informational);
  EXPECT_EQ(up->response.status, 200);
  ASSERT_EQ(up->response.headers.size(), 1u) << "connection fields do not exist in HTTP/2";
  EXPECT_EQ(drain(up->rx), "answer");
  EXPECT_TRUE(up->rx_end);
  ASSERT_TRUE(up->trailers_complete);
  EXPECT_EQ(up->trailers.get(HeaderId::kGrpcStatus), "0");
  EXPECT_TRUE(up->closed);
  EXPECT_EQ(up->error, H2Error::kNone);
  ASSERT_EQ(next(server), s);
  EXPECT_TRUE(s->closed);
  EXPECT_EQ(s->error, H2Error::kNone);
  EXPECT_EQ(server.open_streams(), 0u);
  EXPECT_EQ(client.open_streams(), 0u);
  client.release(*up);
  server.release(*s);
}

TEST_F(H2, TheWindowStaysClosedUntilBytesAreConsumed) {
  H2Options o;
  o.initial_stream_window_size = 65535;
  o.initial_connection_window_size = 65535;
  start(o);
  exchange();
  TestStream* up = request("POST", "/", false);
  const std::string body(200'000, 'b');
  write(client, *up, body, true);
  exchange();
  TestStream* s = next(server);
  ASSERT_NE(s, nullptr);
  EXPECT_EQ(s->rx.bytes(), 65535u);
  EXPECT_EQ(up->tx.bytes(), body.size() - 65535);
  std::string got;
  while (!s->rx_end || !s->rx.empty()) {
    const std::string part = drain(s->rx);
    ASSERT_FALSE(part.empty());
    got += part;
    server.consumed(*s, part.size());
    exchange();
  }
  EXPECT_EQ(got, body);
  EXPECT_EQ(up->tx_bytes, body.size());
  server.release(*s);
  client.release(*up);
}

TEST_F(H2, BytesNobodyReadGoBackToTheConnectionsWindow) {
  H2Options o;
  o.initial_stream_window_size = 65535;
  o.initial_connection_window_size = 65535;
  start(o);
  exchange();
  for (int i = 0; i < 4; ++i) {
    TestStream* up = request("POST", "/", false);
    write(client, *up, std::string(60'000, 'x'), false);
    exchange();
    TestStream* s = next(server);
    ASSERT_NE(s, nullptr) << i;
    EXPECT_EQ(s->rx.bytes(), 60'000u) << i;
    server.release(*s);
    exchange();
    ASSERT_EQ(next(client), up);
    EXPECT_TRUE(up->closed);
    EXPECT_EQ(up->error, H2Error::kRemoteReset);
    EXPECT_EQ(up->peer_code, H2Code::kCancel);
    client.release(*up);
  }
}

TEST_F(H2, BodiesOfManyStreamsInSmallAndLargePieces) {
  start();
  exchange();
  base::Prng random(20261123);
  struct Pair {
    TestStream *up, *down = nullptr;
    std::string sent, got;
  };
  std::vector<Pair> pairs;
  for (int i = 0; i < 40; ++i) pairs.push_back({request("POST", "/", false), nullptr, {}, {}});
  const auto collect = [&] {
    while (TestStream* s = next(server)) {
      for (Pair& p : pairs)
        if (static_cast<uint32_t>(p.up->id) == static_cast<uint32_t>(s->id)) {
          p.down = s;
          const std::string part = drain(s->rx);
          p.got += part;
          server.consumed(*s, part.size());
        }
    }
  };
  for (int round = 0; round < 300; ++round) {
    Pair& p = pairs[random.next() % pairs.size()];
    std::string part(random.next() % (round % 7 == 0 ? 40'000 : 900), 0);
    for (char& c : part) c = static_cast<char>(random.next());
    p.sent += part;
    write(client, *p.up, part, false);
    if (round % 3 == 0) {
      exchange(1000 + random.next() % 100'000);
      collect();
    }
  }
  for (Pair& p : pairs) write(client, *p.up, {}, true);
  exchange();
  collect();
  for (Pair& p : pairs) {
    ASSERT_NE(p.down, nullptr);
    EXPECT_EQ(p.got, p.sent);
    EXPECT_TRUE(p.down->rx_end);
    server.release(*p.down);
    client.release(*p.up);
  }
}

TEST_F(H2, ProduceStopsAtItsLimitAndGoesOn) {
  start();
  exchange();
  TestStream* up = request("GET", "/", true);
  exchange();
  TestStream* s = next(server);
  respond(*s, 200, false);
  write(server, *s, std::string(400'000, 'r'), true);
  io::PacketQueue q;
  ASSERT_TRUE(server.produce(q, 50'000));
  EXPECT_GE(q.bytes(), 50'000u);
  EXPECT_LT(q.bytes(), 50'000u + 16'384 + 9);
  EXPECT_TRUE(server.wants_write());
  ASSERT_TRUE(client.receive(q, now));
  exchange();
  ASSERT_EQ(next(client), up);
  EXPECT_EQ(up->rx.bytes(), 400'000u);
  client.release(*up);
  server.release(*s);
}

TEST_F(H2, ARefusedStreamMayBeTriedAgain) {
  server_owner.refuse_after = 0;
  start();
  exchange();
  TestStream* up = request("GET", "/", true);
  exchange();
  ASSERT_EQ(next(client), up);
  EXPECT_TRUE(up->closed);
  EXPECT_EQ(up->error, H2Error::kRemoteRefused);
  EXPECT_EQ(server.open_streams(), 0u);
}

TEST_F(H2, CookiesAreJoinedAndHostStandsInForAuthority) {
  start_server();
  ASSERT_TRUE(feed(hello() + frame(kHeaders, kEndHeaders | kEndStream, 1,
                                   "\x82\x86\x84"s + literal("host", "h.test") + literal("cookie", "a=1") + literal("x", "y") +
                                       literal("cookie", "b=2"))));
  TestStream* s = next(server);
  ASSERT_NE(s, nullptr);
  EXPECT_EQ(s->request.authority, "h.test");
  EXPECT_EQ(s->request.headers.get(HeaderId::kCookie), "a=1; b=2");
  EXPECT_EQ(s->request.headers.size(), 2u);
  server.release(*s);
}

TEST_F(H2, TrailersOfTheRequestAreKeptOrDropped) {
  for (const bool lend : {true, false}) {
    SCOPED_TRACE(lend);
    H2Connection c;
    Owner owner;
    owner.lend_trailers = lend;
    ASSERT_TRUE(c.start(context, H2Role::kServer, {}, owner));
    io::PacketQueue q;
    q.append_copy(hello() + frame(kHeaders, kEndHeaders, 1, get_block()) + frame(kData, 0, 1, "abc") +
                      frame(kHeaders, kEndHeaders | kEndStream, 1, literal("x-t", "v")),
                  pool);
    ASSERT_TRUE(c.receive(q, 0));
    auto* s = static_cast<TestStream*>(c.pop_ready());
    ASSERT_NE(s, nullptr);
    EXPECT_EQ(peek(s->rx), "abc");
    EXPECT_TRUE(s->rx_end);
    EXPECT_EQ(s->trailers_complete, lend);
    if (lend) {
      ASSERT_EQ(s->trailers.size(), 1u);
      EXPECT_EQ(s->trailers[0].name, "x-t");
    }
    EXPECT_EQ(s->request.path, "/");
    c.release(*s);
  }
}

struct MalformedCase {
  const char* name;
  std::string bytes;  // behind hello()
  H2Error error;
  H2Code code;
};

class H2Malformed : public H2, public ::testing::WithParamInterface<MalformedCase> {};

TEST_P(H2Malformed, EndsTheConnectionWithItsReason) {
  start_server();
  const std::string bytes = GetParam().bytes;
  feed(hello() + bytes);
  EXPECT_EQ(goaway_code(), static_cast<uint32_t>(GetParam().code));
  EXPECT_EQ(server.error(), GetParam().error) << info(server.error()).details;
  EXPECT_TRUE(server.finished());
  while (H2Stream* s = server.pop_ready()) server.release(*s);
}

std::string repeat(std::string_view s, int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += s;
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    Table, H2Malformed,
    ::testing::Values(
        MalformedCase{"DataOnStreamZero", frame(kData, 0, 0, "x"), H2Error::kProtocol, H2Code::kProtocolError},
        MalformedCase{"DataOnIdleStream", frame(kData, 0, 5, "x"), H2Error::kProtocol, H2Code::kProtocolError},
        MalformedCase{"EvenStream", frame(kHeaders, kEndHeaders, 2, get_block()), H2Error::kProtocol, H2Code::kProtocolError},
        MalformedCase{
            "StreamPassedOver",
            frame(kHeaders, kEndHeaders | kEndStream, 5, get_block()) + frame(kHeaders, kEndHeaders | kEndStream, 3, get_block()),
            H2Error::kProtocol, H2Code::kProtocolError},
        MalformedCase{"BadHpack", frame(kHeaders, kEndHeaders, 1, "\xff\xff\xff\xff\xff\xff\xff"), H2Error::kHpack,
                      H2Code::kCompressionError},
        MalformedCase{"FrameTooLarge", u24(20000) + std::string("\0\0\0\0\0\1", 6), H2Error::kFrameSize, H2Code::kFrameSizeError},
        MalformedCase{"PingOfSeven", frame(kPing, 0, 0, "1234567"), H2Error::kFrameSize, H2Code::kFrameSizeError},
        MalformedCase{"WindowOfZero", frame(kWindow, 0, 0, u32(0)), H2Error::kProtocol, H2Code::kProtocolError},
        MalformedCase{"WindowOverflow", frame(kWindow, 0, 0, u32(0x7fffffff)), H2Error::kFlowControl, H2Code::kFlowControlError},
        MalformedCase{"UpperCaseName", frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("X-Upper", "v")),
                      H2Error::kInvalidHeader, H2Code::kProtocolError},
        MalformedCase{"ValueWithNewline", frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("x", "a\r\nb: c")),
                      H2Error::kInvalidHeader, H2Code::kProtocolError},
        MalformedCase{"ConnectionField",
                      frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("connection", "close")),
                      H2Error::kInvalidHeader, H2Code::kProtocolError},
        MalformedCase{"TransferEncoding",
                      frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("transfer-encoding", "chunked")),
                      H2Error::kInvalidHeader, H2Code::kProtocolError},
        MalformedCase{"NoPath", frame(kHeaders, kEndHeaders | kEndStream, 1, "\x82\x86"s + literal(":authority", "h")),
                      H2Error::kMessaging, H2Code::kProtocolError},
        MalformedCase{"HostAgainstAuthority",
                      frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("host", "other")), H2Error::kMessaging,
                      H2Code::kProtocolError},
        MalformedCase{"EmptyDataFlood", frame(kHeaders, kEndHeaders, 1, get_block()) + repeat(frame(kData, 0, 1, ""), 2),
                      H2Error::kEmptyFrames, H2Code::kEnhanceYourCalm},
        MalformedCase{"PriorityFlood", repeat(frame(kPriority, 0, 1, u32(0) + "\x10"), 101), H2Error::kPriorityFlood,
                      H2Code::kEnhanceYourCalm},
        MalformedCase{"WindowUpdateFlood", repeat(frame(kWindow, 0, 0, u32(1)), 6), H2Error::kWindowUpdateFlood,
                      H2Code::kEnhanceYourCalm}),
    [](const auto& p) { return std::string(p.param.name); });

TEST_F(H2, FloodsBelowTheirBoundsAreHarmless) {
  start_server();
  EXPECT_TRUE(feed(hello() + repeat(frame(kPriority, 0, 1, u32(0) + "\x10"), 100) + repeat(frame(kWindow, 0, 0, u32(1)), 5) +
                   frame(kHeaders, kEndHeaders, 1, get_block()) + frame(kData, 0, 1, "") + frame(kData, 0, 1, "x") +
                   frame(kData, 0, 1, "")));
  H2Stream* s = server.pop_ready();
  ASSERT_NE(s, nullptr);
  server.release(*s);
}

TEST_F(H2, PingsThatNobodyReadsTheAnswersOfEndTheConnection) {
  start_server();
  EXPECT_TRUE(feed(hello() + repeat(frame(kPing, 0, 0, "12345678"), 999)));
  EXPECT_FALSE(feed(repeat(frame(kPing, 0, 0, "12345678"), 10)));
  answer();
  EXPECT_EQ(server.error(), H2Error::kOutboundControlFlood);
}

TEST_F(H2, ContinuationFloodEndsTheConnection) {
  start_server();
  feed(hello() + frame(kHeaders, 0, 1, get_block()) + repeat(frame(kContinuation, 0, 1, literal("a", "b")), 50));
  answer();
  EXPECT_EQ(server.error(), H2Error::kContinuationFlood) << info(server.error()).details;
  while (H2Stream* s = server.pop_ready()) server.release(*s);
}

TEST_F(H2, RapidResetEndsTheConnection) {
  start_server();
  ASSERT_TRUE(feed(hello()));
  uint32_t id = 1;
  const auto open_and_reset = [&](base::TimeNs lifetime) {
    const bool opened = feed(frame(kHeaders, kEndHeaders | kEndStream, id, get_block()));
    now += lifetime;
    const bool alive = opened && feed(frame(kRst, 0, id, u32(8)));
    id += 2;
    while (H2Stream* s = server.pop_ready()) server.release(*s);
    return alive;
  };
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(open_and_reset(2 * base::kSecond)) << i << ": patient clients may cancel";
  int more = 0;
  while (more < 5000 && open_and_reset(base::kMillisecond)) ++more;
  EXPECT_EQ(more, 2000) << "more than half of all";
  EXPECT_EQ(goaway_code(), static_cast<uint32_t>(H2Code::kEnhanceYourCalm));
  EXPECT_EQ(server.error(), H2Error::kResetFlood);
}

TEST_F(H2, ContentLengthThatLiesCostsItsStream) {
  start_server();
  ASSERT_TRUE(feed(hello() + frame(kHeaders, kEndHeaders, 1, get_block() + literal("content-length", "3")) +
                   frame(kData, kEndStream, 1, "four")));
  H2Stream* s = server.pop_ready();
  ASSERT_NE(s, nullptr);
  EXPECT_FALSE(s->rx_end) << "a body that lies never ends in order";
  answer();
  ASSERT_EQ(server.pop_ready(), s);
  EXPECT_TRUE(s->closed);
  server.release(*s);
}

TEST_F(H2, HeadLimitsCostTheStreamAlone) {
  H2Options o;
  o.max_headers = 8;
  o.max_head_bytes = 300;
  start_server(o);
  std::string many = get_block();
  for (int i = 0; i < 5; ++i) many += literal("x" + std::to_string(i), "v");
  const std::string large = get_block() + literal("x", std::string(120, 'a')) + literal("y", std::string(120, 'b')) +
                            literal("z", std::string(60, 'c'));
  ASSERT_TRUE(feed(hello() + frame(kHeaders, kEndHeaders | kEndStream, 1, many) +
                   frame(kHeaders, kEndHeaders | kEndStream, 3, large) +
                   frame(kHeaders, kEndHeaders | kEndStream, 5, get_block())));
  std::vector<uint32_t> reset;
  for (const Frame& f : answer())
    if (f.type == kRst) reset.push_back(f.stream);
  EXPECT_EQ(reset, (std::vector<uint32_t>{1, 3}));
  std::vector<std::pair<int32_t, H2Error>> seen;
  while (H2Stream* s = server.pop_ready()) {
    seen.emplace_back(s->id, s->error);
    server.release(*s);
  }
  ASSERT_EQ(seen.size(), 3u);
  for (const auto& [id, error] : seen)
    EXPECT_EQ(error, id == 1 ? H2Error::kTooManyHeaders : id == 3 ? H2Error::kHeadTooLarge : H2Error::kNone) << id;
}

TEST_F(H2, AHeadMovesToLargerStorage) {
  H2Options o;
  o.max_headers = 1000;
  start(o);
  exchange();
  std::vector<std::string> texts;
  for (int i = 0; i < 400; ++i) texts.push_back("x-" + std::to_string(i));
  std::vector<Header> extra;
  extra.push_back({"cookie", "a=1", HeaderId::kCookie});
  for (const std::string& t : texts) extra.push_back({t, t});
  const std::string value(40'000, 'v');
  extra.push_back({"x-large", value});
  extra.push_back({"cookie", "b=2", HeaderId::kCookie});
  TestStream* up = request("GET", "/path", true, extra);
  exchange();
  TestStream* s = next(server);
  ASSERT_NE(s, nullptr);
  ASSERT_TRUE(s->head_complete);
  EXPECT_EQ(s->request.path, "/path");
  EXPECT_EQ(s->request.authority, "host.test");
  EXPECT_EQ(s->request.headers.find("x-0")->value, "x-0");
  EXPECT_EQ(s->request.headers.find("x-399")->value, "x-399");
  EXPECT_EQ(s->request.headers.find("x-large")->value, value);
  EXPECT_EQ(s->request.headers.get(HeaderId::kCookie), "a=1; b=2");
  EXPECT_GT(s->head_bytes_used(), 40'000u);
  server.release(*s);
  client.release(*up);
}

TEST_F(H2, WhoeverWaitsForRoomIsTold) {
  H2Options o;
  start(o);
  exchange();
  TestStream* up = request("GET", "/", true);
  exchange();
  TestStream* s = next(server);
  respond(*s, 200, false);
  write(server, *s, std::string(100'000, 'r'), false);
  s->tx_wanted_below = 50'000;
  io::PacketQueue q;
  ASSERT_TRUE(server.produce(q, 20'000));
  EXPECT_FALSE(server.has_ready());
  ASSERT_TRUE(server.produce(q, 80'000));
  ASSERT_EQ(next(server), s);
  EXPECT_EQ(s->tx_wanted_below, UINT64_MAX);
  q.clear();
  server.release(*s);
  client.release(*up);
}

TEST_F(H2, AMalformedMessageMayCostItsStreamOnly) {
  H2Options o;
  o.override_stream_error_on_invalid_http_message = true;
  start_server(o);
  ASSERT_TRUE(feed(hello() + frame(kHeaders, kEndHeaders | kEndStream, 1, get_block() + literal("connection", "close")) +
                   frame(kHeaders, kEndHeaders | kEndStream, 3, get_block())));
  const std::vector<Frame> frames = answer();
  bool first = false, second = false;
  while (H2Stream* s = server.pop_ready()) {
    if (s->id == 1) first = s->closed && s->error == H2Error::kInvalidHeader;
    if (s->id == 3) second = s->head_complete;
    if (s->id == 3) server.release(*s);
  }
  bool reset = false;
  for (const Frame& f : frames) reset |= f.type == kRst && f.stream == 1;
  EXPECT_TRUE(reset);
  EXPECT_TRUE(first);
  EXPECT_TRUE(second);
  EXPECT_EQ(server.error(), H2Error::kNone);
}

TEST_F(H2, NotAPreface) {
  start_server();
  EXPECT_FALSE(feed("GET / HTTP/1.1\r\nhost: h\r\n\r\n"));
  EXPECT_EQ(server.error(), H2Error::kBadPreface);
}

TEST_F(H2, GracefulGoAwayLetsStreamsFinish) {
  start();
  exchange();
  TestStream* up = request("GET", "/", true);
  exchange();
  TestStream* s = next(server);
  server.notice();
  exchange();
  EXPECT_TRUE(client.goaway_received());
  EXPECT_EQ(client.may_open(), 0u);
  EXPECT_FALSE(server.finished());
  server.goaway(H2Code::kNoError);
  respond(*s, 200, true);
  exchange();
  ASSERT_EQ(next(client), up);
  EXPECT_EQ(up->response.status, 200);
  EXPECT_EQ(up->error, H2Error::kNone);
  EXPECT_TRUE(server.finished());
  EXPECT_TRUE(client.finished());
  client.release(*up);
  server.release(*s);
}

TEST_F(H2, TheClientKeepsToThePeersStreams) {
  H2Options o;
  o.max_concurrent_streams = 3;
  start(o);
  exchange();
  EXPECT_EQ(client.may_open(), 3u);
  std::vector<TestStream*> streams;
  for (int i = 0; i < 3; ++i) streams.push_back(request("GET", "/", true));
  EXPECT_EQ(client.may_open(), 0u);
  TestStream extra;
  RequestHead head;
  head.method = "GET";
  head.path = "/";
  EXPECT_FALSE(client.submit_request(extra, head, true));
  exchange();
  while (TestStream* s = next(server)) {
    respond(*s, 204, true);
    server.release(*s);
  }
}

TEST_F(H2, NothingIsLeftInTheArena) {
  base::Arena* arena = base::Arena::create(base::kArenaMinBytes);
  ASSERT_NE(arena, nullptr);
  {
    H2Context in_arena(arena, pool);
    const uint64_t before = arena->in_use();
    Owner owner;
    {
      H2Connection c;
      ASSERT_TRUE(c.start(in_arena, H2Role::kServer, {}, owner));
      io::PacketQueue q, out;
      std::string bytes = hello();
      for (uint32_t id = 1; id < 100; id += 2) bytes += frame(kHeaders, kEndHeaders | kEndStream, id, get_block());
      q.append_copy(bytes, pool);
      ASSERT_TRUE(c.receive(q, 0));
      EXPECT_GT(arena->in_use(), before);
      while (H2Stream* s = c.pop_ready()) c.release(*s);
      ASSERT_TRUE(c.produce(out, 1 << 20));
    }
    EXPECT_EQ(arena->in_use(), before);

    // With every allocation refused in turn: an answer each time, never a crash or a leak.
    for (uint64_t n = 0; n < 200; ++n) {
      arena->fail_after(n);
      Owner o;
      {
        H2Connection c;
        if (c.start(in_arena, H2Role::kServer, {}, o)) {
          io::PacketQueue q, out;
          q.append_copy(hello() + frame(kHeaders, kEndHeaders, 1, get_block()) + frame(kData, kEndStream, 1, "x"), pool);
          c.receive(q, 0);
          while (H2Stream* s = c.pop_ready()) {
            ResponseHead head;
            head.status = 200;
            if (!s->closed) c.submit_response(*s, head, true);
            c.release(*s);
          }
          c.produce(out, 1 << 20);
        }
      }
      arena->fail_after(UINT64_MAX);
      ASSERT_EQ(arena->in_use(), before) << n;
    }
  }
  base::Arena::destroy(arena);
}

}  // namespace
}  // namespace millrace::http
