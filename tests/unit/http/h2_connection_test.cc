// H2Connection: a server and a client of ours against each other, and a server against frames made by hand.
#include "tests/unit/http/h2_fixture.h"

namespace millrace::http::test {
namespace {

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
  EXPECT_EQ(s->request.headers.begin()[1].id, HeaderId::kCookie) << "last, as Envoy's";
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
}  // namespace millrace::http::test
